//! Encryption is real.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};

use super::{Cloud, HELLO, SECRET};

/// Files below a folder that hold a text. Volumes are mostly holes, which are not read.
fn holding(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&path, text));
        } else if kind.is_file() && has(&path, text) {
            found.push(path);
        }
    }
    found
}

fn has(path: &Path, text: &str) -> bool {
    let file = fs_err::File::open(path).unwrap();
    let mut at = 0;
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        let mut bytes = vec![0; usize::try_from(at - start).unwrap()];
        file.file().read_exact_at(&mut bytes, start).unwrap();
        if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
            return true;
        }
    }
    false
}

#[test]
fn what_is_encrypted_is_nowhere_in_the_open() {
    let cloud = Cloud::new();
    let key = cloud.ok("key create --alias mine");
    let plain = cloud.image("plain");
    let ec2 = cloud.env().state().join("store/v1/ec2");
    assert_eq!(holding(&ec2.join("packs"), SECRET).len(), 1);
    let image = cloud.ok(&format!(
        "image copy {plain} --name sealed --encrypted --kms-key-id alias/mine"
    ));
    cloud.ok(&format!(
        "image deregister {plain} --delete-associated-snapshots"
    ));
    assert_eq!(
        holding(&ec2, SECRET),
        [] as [PathBuf; 0],
        "blocks of the plain one are gone"
    );

    // The guest sees a plain disk, and what it writes is encrypted as well.
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    let made = cloud.ok(&format!(
        "instance create-image {id} --name again --no-reboot"
    ));
    cloud.ok(&format!("instance stop --force {id}"));
    for text in [SECRET, HELLO] {
        let found = holding(&ec2, text);
        let open: Vec<_> = found
            .iter()
            .filter(|p| !p.ends_with("console.log"))
            .collect();
        assert!(open.is_empty(), "{text}: {open:?}");
    }
    let other = cloud.ok(&format!("run {made} --instance-type t2.micro"));
    cloud.ok(&format!("instance wait {other} --timeout 120 --console up"));
    cloud.ok(&format!("instance terminate --force {other}"));

    // A rotated key opens what was there before; a disabled one nothing, and neither does one without material.
    cloud.ok("key rotate alias/mine");
    cloud.ok("snapshot verify");
    cloud.ok("key disable alias/mine");
    cloud.refused(&format!("run {image}"), "DisabledException");
    cloud.ok("key enable alias/mine");
    let material = ec2.join("keys").join(&key);
    fs_err::rename(&material, cloud.env().path("kept")).unwrap();
    let end = cloud.refused(&format!("instance start {id}"), "no key material");
    assert!(end.stderr.contains(&key), "{}", end.stderr);
    // Of another key: it is told apart from a damaged store.
    let second = cloud.ok("key create");
    fs_err::copy(ec2.join("keys").join(second), &material).unwrap();
    cloud.refused(&format!("instance start {id}"), "wrong key material");
    fs_err::rename(cloud.env().path("kept"), &material).unwrap();
    cloud.ok(&format!("instance start {id}"));
}

#[test]
fn encryption_by_default_holds_for_what_is_imported() {
    let cloud = Cloud::new();
    cloud.ok("account --encryption-by-default enabled");
    let image = cloud.image("sealed");
    let shown = cloud.json(&format!("image show {image}"));
    assert_eq!(shown["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], true);
    assert_eq!(
        holding(&cloud.env().state().join("store/v1/ec2"), SECRET).len(),
        0
    );
    // The default key of AWS cannot be shared, so neither can the image.
    cloud.refused(
        &format!("image share {image} --to 111122223333"),
        "InvalidParameter",
    );
}
