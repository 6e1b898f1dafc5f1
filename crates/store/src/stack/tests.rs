#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};

use super::{Seen, put_over, take_off};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn whiteout(path: &Path) {
    let none = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), none).unwrap();
}

fn opaque(path: &Path) {
    rustix::fs::setxattr(path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn write(path: &Path, text: &str) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

#[test]
fn layers_hide_merge_and_replace() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    write(&at("low/dir/one"), "1");
    write(&at("low/dir/two"), "2");
    write(&at("low/gone/x"), "x");
    write(&at("low/hidden/x"), "x");
    write(&at("low/file"), "file");
    write(&at("low/closed/x"), "x");
    fs_err::hard_link(at("low/file"), at("low/name")).unwrap();
    symlink("../../outside", at("low/link")).unwrap();
    write(&at("high/dir/two"), "two");
    write(&at("high/hidden/y"), "y");
    write(&at("high/link/in"), "in");
    fs_err::create_dir(at("high/closed")).unwrap();
    write(&at("high/closed/y"), "y");
    opaque(&at("high/hidden"));
    whiteout(&at("high/gone"));
    let mode = std::fs::Permissions::from_mode(0o2750);
    fs_err::set_permissions(at("high/dir"), mode).unwrap();
    write(&at("outside/in"), "out");
    fs_err::create_dir(at("root")).unwrap();
    for layer in ["low", "high"] {
        put_over(open(&at(layer)), open(&at("root")), &[b"closed"], false).unwrap();
    }
    assert_eq!(
        names(&at("root")),
        ["closed", "dir", "file", "hidden", "link", "name"]
    );
    assert_eq!(names(&at("root/dir")), ["one", "two"]);
    assert_eq!(names(&at("root/hidden")), ["y"]);
    assert_eq!(names(&at("root/closed")), [""; 0]);
    assert_eq!(fs_err::read_to_string(at("root/dir/two")).unwrap(), "two");
    assert_eq!(fs_err::read_to_string(at("outside/in")).unwrap(), "out");
    let found = |path: &str| fs_err::symlink_metadata(at(path)).unwrap();
    assert_eq!(found("root/dir").mode() & 0o7777, 0o2750);
    assert_eq!(found("root/file").ino(), found("root/name").ino());
    assert_eq!(found("root/dir").mtime(), found("high/dir").mtime());
    assert!(rustix::fs::getxattr(at("root/hidden"), "user.overlay.opaque", &mut [0; 8]).is_err());
}

#[test]
fn what_changed_is_taken_off() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    for name in ["kept", "changed", "gone", "opened", "dir/x", "again/x"] {
        write(&at("root").join(name), name);
    }
    for name in ["one", "two", "three"] {
        write(&at("root/many"), "several names");
        fs_err::hard_link(at("root/many"), at("root").join(name)).unwrap();
    }
    fs_err::create_dir(at("root/closed")).unwrap();
    fs_err::create_dir(at("upper")).unwrap();
    let root = open(&at("root"));
    let mut seen = Seen::of(&root, &[b"closed"]).unwrap();
    seen.begin(&root, &[b"".to_vec()].into()).unwrap();

    fs_err::write(at("root/changed"), "more").unwrap();
    fs_err::remove_file(at("root/gone")).unwrap();
    drop(
        std::fs::File::options()
            .append(true)
            .open(at("root/opened"))
            .unwrap(),
    );
    fs_err::remove_dir_all(at("root/again")).unwrap();
    write(&at("root/again/y"), "y");
    write(&at("root/dir/new/deep"), "deep");
    write(&at("root/closed/secret"), "secret");
    fs_err::write(at("root/two"), "changed by one").unwrap();
    opaque(&at("root/dir/new"));
    symlink("/nowhere", at("root/link")).unwrap();
    seen.note();
    assert_eq!(take_off(&root, &seen, open(&at("upper"))).unwrap(), 0);

    assert_eq!(
        names(&at("upper")),
        ["again", "changed", "dir", "gone", "link", "opened", "two"]
    );
    let kind = fs_err::symlink_metadata(at("upper/gone"))
        .unwrap()
        .file_type();
    assert!(kind.is_char_device());
    assert_eq!(names(&at("upper/again")), ["y"]);
    assert_eq!(names(&at("upper/dir")), ["new"]);
    let mark = |path: &str| {
        let mut value = [0; 8];
        let read = rustix::fs::getxattr(at(path), "user.overlay.opaque", &mut value);
        read.map(|len| value[..len].to_vec())
    };
    assert_eq!(mark("upper/again").unwrap(), b"y");
    assert!(
        mark("upper/dir/new").is_err(),
        "that of the job is nobody's"
    );
}
