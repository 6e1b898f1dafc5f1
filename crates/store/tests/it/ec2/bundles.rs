//! Copies of bundles, and the key pair that they are sealed for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use amiforge_ami::ImageId;
use amiforge_ami::ec2::{BinEntry, BundleFacts, Caller, Effects, Image, ImageState, State};
use amiforge_store::ec2::Ec2Error;
use amiforge_types::{Arch, Digest, Timestamp};

use super::Place;

struct Fixed(u128);

impl Effects for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp {
            secs: 1_790_000_000,
            nanos: 0,
        }
    }

    fn random(&mut self) -> u128 {
        self.0 += 1;
        self.0 << 64 | self.0
    }
}

/// Registers a bundle that is said to lie there.
fn registered(state: &mut State, name: &str, location: &Path) -> ImageId {
    let request = amiforge_ami::ec2::RegisterImageRequest {
        name: name.to_owned(),
        virtualization_type: Some("hvm".to_owned()),
        image_location: Some(location.to_str().unwrap().to_owned()),
        ..Default::default()
    };
    let facts = BundleFacts {
        architecture: Arch::X86_64,
        image_bytes: 4096,
        stored_bytes: 4096,
        manifest: Digest::of(b"manifest"),
        root: None,
        ephemeral: Vec::new(),
    };
    let caller = Caller {
        account: amiforge_ami::ec2::AccountId::local(),
        region: amiforge_ami::ec2::Region::local(),
    };
    let mut fx = Fixed(0);
    state
        .register_image(&caller, &request, Some(&facts), &mut fx)
        .unwrap()
}

#[test]
fn a_bundle_stays_as_long_as_an_image_names_it() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let id: ImageId = "ami-0123456789abcdef0".parse().unwrap();
    let hold = ec2.hold().unwrap();
    let fill = || {
        let new = ec2.begin_bundle(&hold).unwrap();
        std::fs::write(new.path().join("manifest"), b"text").unwrap();
        new
    };
    let folder = fill().place(&id).unwrap();
    assert!(
        matches!(fill().place(&id), Err(Ec2Error::Store(_))),
        "there is one"
    );
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let unfinished = fill();
    let path = unfinished.path().to_owned();
    drop(unfinished);
    assert!(!path.exists());
    assert_eq!(ec2.gc().unwrap(), None, "somebody holds");

    let change = |change: &dyn Fn(&mut Image)| {
        ec2.transact::<_, Ec2Error>(|state| {
            state.images.values_mut().for_each(change);
            Ok(())
        })
        .unwrap();
    };
    ec2.transact::<_, Ec2Error>(|state| {
        registered(state, "one", &folder.join("manifest"));
        Ok(())
    })
    .unwrap();
    drop(hold);
    let bundles = || ec2.gc().unwrap().unwrap().bundles;
    assert_eq!(bundles(), 0);
    change(&|image| image.state = ImageState::Disabled);
    assert_eq!(bundles(), 0);
    let exits = super::date();
    change(&|image| {
        image.state = ImageState::Deregistered;
        image.bin = Some(BinEntry {
            entered: exits,
            exits,
            disabled: false,
        });
    });
    assert_eq!(bundles(), 0, "it can be brought back");
    change(&|image| image.bin = None);
    assert_eq!(bundles(), 1);
    assert!(!folder.exists());
}

#[test]
fn there_is_one_key_pair() {
    let place = Place::new();
    let keys = place.ec2.keys();
    assert!(keys.ec2_pair().unwrap().is_none());
    assert_eq!(&keys.keep_ec2_pair(b"first").unwrap()[..], b"first");
    assert_eq!(&keys.keep_ec2_pair(b"second").unwrap()[..], b"first");
    assert_eq!(
        &place.again().keys().ec2_pair().unwrap().unwrap()[..],
        b"first"
    );
    let file = place.ec2.path().join("keys/ec2.pem");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
