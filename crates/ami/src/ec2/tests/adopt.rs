//! Images that were built here.

use super::*;
use crate::{CreationDate, DeviceName, Manifest};

fn manifest(change: impl FnOnce(&mut crate::ManifestSpec)) -> Manifest {
    let mut spec = crate::tests::spec();
    change(&mut spec);
    Manifest::new(spec).unwrap()
}

fn records(manifest: &Manifest) -> Vec<(DeviceName, Snapshot)> {
    let root = manifest.root_mapping().unwrap();
    let id = root.as_ebs().unwrap().snapshot_id.clone().unwrap();
    let mut snapshot = Snapshot::new(id, A.parse().unwrap(), HERE.parse().unwrap());
    snapshot.state = SnapshotState::Completed;
    snapshot.volume_size = 2;
    snapshot.map = Some(Digest::of(b"map"));
    vec![(root.device_name.clone(), snapshot)]
}

fn adopt(w: &mut World, caller: &Caller, manifest: &Manifest) -> Result<Adopted, ApiError> {
    let tags = Tags::from([("by".to_owned(), "test".to_owned())]);
    let request = AdoptImage {
        manifest,
        snapshots: records(manifest),
        tags,
        built: None,
    };
    w.s.adopt_image(caller, &request, &mut w.fx)
}

#[test]
fn a_build_is_one_image_of_each_account_and_region() {
    let mut w = World::new();
    let (a, b, far) = (w.a.clone(), w.b.clone(), w.far.clone());
    let built = manifest(|_| {});
    let first = adopt(&mut w, &a, &built).unwrap();
    assert_eq!(
        first,
        Adopted {
            image_id: built.image_id.clone(),
            created: true
        }
    );
    let image = w.s.images[&first.image_id].clone();
    assert_eq!(
        (image.name.as_str(), image.state),
        ("debian-web-1.0.0", ImageState::Available)
    );
    assert_eq!(
        (
            image.boot_mode,
            image.ena_support,
            image.imds_support.is_some()
        ),
        (Some(crate::BootMode::UefiPreferred), true, true)
    );
    assert_eq!(image.build.as_ref().unwrap().recipe, "debian-web");
    assert_eq!(image.tags["by"], "test");
    assert_eq!(w.s.snapshots.len(), 1);
    // Again: the same.
    assert_eq!(
        adopt(&mut w, &a, &built).unwrap(),
        Adopted {
            created: false,
            ..first.clone()
        }
    );
    // Elsewhere: another id, always the same one.
    for who in [&b, &far] {
        let other = adopt(&mut w, who, &built).unwrap();
        assert!(other.created && other.image_id != first.image_id);
        assert_eq!(
            adopt(&mut w, who, &built).unwrap(),
            Adopted {
                created: false,
                ..other.clone()
            }
        );
        assert_eq!(w.s.images[&other.image_id].owner, who.account);
    }
    assert_eq!((w.s.images.len(), w.s.snapshots.len()), (3, 3));
    assert_eq!(w.s.check(), Vec::<String>::new());
    w.run(&a, first.image_id.as_str(), |_| {}).unwrap();
    // Another build of the same name and version: the name is taken until the first one is gone.
    let rebuilt = manifest(|spec| spec.volumes[0].content_digest = Digest::of(b"other"));
    assert_eq!(
        adopt(&mut w, &a, &rebuilt).unwrap_err().code,
        ErrorCode::InvalidAmiNameDuplicate
    );
    w.deregister(&a, first.image_id.as_str(), true).unwrap();
    adopt(&mut w, &a, &rebuilt).unwrap();
    w.deregister(&a, rebuilt.image_id.as_str(), false).unwrap();
    // Back again, under its old id and with no word of its first life.
    w.s.images
        .get_mut(&first.image_id)
        .unwrap()
        .launch_permissions
        .insert(LaunchPermission::All);
    let back = adopt(&mut w, &a, &built).unwrap();
    assert_eq!(back, first);
    assert!(w.s.images[&first.image_id].launch_permissions.is_empty());
    assert_eq!(w.s.check(), Vec::<String>::new());
}

#[test]
fn a_snapshot_comes_back_out_of_the_bin_with_its_build() {
    let mut w = World::new();
    let a = w.a.clone();
    w.settings(&a).image_retention_days = Some(7);
    w.settings(&a).snapshot_retention_days = Some(7);
    let built = manifest(|_| {});
    let first = adopt(&mut w, &a, &built).unwrap();
    w.deregister(&a, first.image_id.as_str(), true).unwrap();
    assert_eq!(
        w.s.snapshots.values().next().unwrap().state,
        SnapshotState::Recoverable
    );
    adopt(&mut w, &a, &built).unwrap();
    assert_eq!(w.s.snapshots.len(), 1);
    assert_eq!(w.s.check(), Vec::<String>::new());
}

#[test]
fn what_a_build_lacks_is_refused() {
    let built = manifest(|_| {});
    type Change = fn(&mut Vec<(DeviceName, Snapshot)>);
    let rows: [(&str, Change, ErrorCode); 4] = [
        ("no snapshot", Vec::clear, ErrorCode::InvalidManifest),
        (
            "no blocks",
            |s| s[0].1.map = None,
            ErrorCode::IncorrectState,
        ),
        (
            "pending",
            |s| s[0].1.state = SnapshotState::Pending,
            ErrorCode::IncorrectState,
        ),
        (
            "too large",
            |s| s[0].1.volume_size = 3,
            ErrorCode::InvalidBlockDeviceMapping,
        ),
    ];
    for (what, change, code) in rows {
        let mut w = World::new();
        let mut snapshots = records(&built);
        change(&mut snapshots);
        let request = AdoptImage {
            manifest: &built,
            snapshots,
            tags: Tags::new(),
            built: None,
        };
        let error =
            w.s.adopt_image(&w.a.clone(), &request, &mut w.fx)
                .unwrap_err();
        assert_eq!(error.code, code, "{what}");
        assert_eq!(w.s, State::default(), "{what}");
    }
}

#[test]
fn an_image_is_as_old_as_its_build() {
    let mut w = World::new();
    let now = CreationDate::new(w.fx.now());
    let past = CreationDate::new(Timestamp::from_secs(1_700_000_000));
    let to_come = CreationDate::new(Timestamp::from_secs(w.fx.now().secs + 3600));
    for (version, built, expected) in [
        ("1.0.1", None, now),
        ("1.0.2", Some(past), past),
        ("1.0.3", Some(to_come), now),
    ] {
        let manifest = manifest(|spec| spec.version = version.into());
        let request = AdoptImage {
            manifest: &manifest,
            snapshots: records(&manifest),
            tags: Tags::new(),
            built,
        };
        let caller = w.a.clone();
        let adopted = w.s.adopt_image(&caller, &request, &mut w.fx).unwrap();
        assert_eq!(w.s.images[&adopted.image_id].creation_date, expected);
    }
}
