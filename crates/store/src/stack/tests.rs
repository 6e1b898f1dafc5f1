#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
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

#[test]
fn a_device_in_the_place_of_something_hides_it() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    for name in ["file", "dir/x", "more/file"] {
        write(&at("root").join(name), name);
    }
    fs_err::create_dir(at("upper")).unwrap();
    let root = open(&at("root"));
    let mut seen = Seen::of(&root, &[]).unwrap();
    seen.begin(&root, &BTreeSet::new()).unwrap();
    fs_err::remove_dir_all(at("root/dir")).unwrap();
    for name in ["file", "dir", "more/file", "more/new"] {
        // `mv` does the same.
        whiteout(&at("device"));
        fs_err::rename(at("device"), at("root").join(name)).unwrap();
    }
    seen.note();
    assert_eq!(take_off(&root, &seen, open(&at("upper"))).unwrap(), 0);
    assert_eq!(names(&at("upper")), ["dir", "file", "more"]);
    assert_eq!(names(&at("upper/more")), ["file"]);
    for name in ["file", "dir", "more/file"] {
        let found = fs_err::symlink_metadata(at("upper").join(name)).unwrap();
        assert!(found.file_type().is_char_device() && found.rdev() == 0);
    }
}

/// Three files of two names each, `a1` to `c2`, and a link of two.
fn pairs(root: &Path) {
    for name in ["a", "b", "c"] {
        let first = root.join(format!("{name}1"));
        write(&first, name);
        fs_err::hard_link(&first, root.join(format!("{name}2"))).unwrap();
    }
    symlink("nowhere", root.join("l1")).unwrap();
    fs_err::hard_link(root.join("l1"), root.join("l2")).unwrap();
}

#[test]
fn a_change_by_no_known_name_is_one_of_all_names() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    pairs(&at("root"));
    fs_err::create_dir(at("upper")).unwrap();
    let root = open(&at("root"));
    let mut seen = Seen::of(&root, &[]).unwrap();
    seen.begin(&root, &BTreeSet::new()).unwrap();
    // Nothing is told before it is closed.
    let mut held = std::fs::File::options()
        .append(true)
        .open(at("root/a1"))
        .unwrap();
    std::io::Write::write_all(&mut held, b"more").unwrap();
    // These have another time of change alone.
    fs_err::remove_file(at("root/b1")).unwrap();
    fs_err::remove_file(at("root/l1")).unwrap();
    // A name that was moved before it was used.
    fs_err::rename(at("root/c1"), at("root/moved")).unwrap();
    fs_err::write(at("root/moved"), "more").unwrap();
    seen.note();
    assert!(!seen.is_lost(), "the kernel has room for one watch");
    assert_eq!(take_off(&root, &seen, open(&at("upper"))).unwrap(), 2);
    drop(held);
    assert_eq!(names(&at("upper")), ["a1", "a2", "b1", "c1", "l1", "moved"]);
    for name in ["a1", "a2"] {
        let text = fs_err::read_to_string(at("upper").join(name)).unwrap();
        assert_eq!(text, "amore");
    }
}

#[test]
fn what_is_known_stays_so_when_more_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    write(&at("root/opened"), "opened");
    write(&at("root/kept"), "kept");
    fs_err::create_dir(at("upper")).unwrap();
    let root = open(&at("root"));
    let mut seen = Seen::of(&root, &[]).unwrap();
    seen.begin(&root, &BTreeSet::new()).unwrap();
    let opened = std::fs::File::options()
        .append(true)
        .open(at("root/opened"));
    drop(opened.unwrap());
    seen.note();
    seen.lose();
    assert!(seen.is_lost());
    assert_eq!(take_off(&root, &seen, open(&at("upper"))).unwrap(), 0);
    assert_eq!(names(&at("upper")), ["opened"]);
}

#[test]
fn access_lists_are_not_handed_down() {
    const DEFAULT: &str = "system.posix_acl_default";
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    write(&at("low/dir/one"), "1");
    write(&at("high/dir/two"), "2");
    write(&at("high/dir/sub/three"), "3");
    fs_err::create_dir(at("root")).unwrap();
    // Owner, user 1234, group, mask, others: each may do all (acl(5)).
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in [
        (1, u32::MAX),
        (2, 1234),
        (4, u32::MAX),
        (16, u32::MAX),
        (32, u32::MAX),
    ] {
        list.extend_from_slice(&u16::to_le_bytes(tag));
        list.extend_from_slice(&7_u16.to_le_bytes());
        list.extend_from_slice(&u32::to_le_bytes(id));
    }
    for dir in ["low/dir", "root"] {
        match rustix::fs::setxattr(at(dir), DEFAULT, &list, XattrFlags::empty()) {
            // Not on this file system, or not for this user.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => return,
            set => set.unwrap(),
        }
    }
    let has = |path: &str, name: &str| {
        let mut value = [0; 256];
        rustix::fs::getxattr(at(path), name, &mut value).is_ok()
    };
    put_over(open(&at("low")), open(&at("root")), &[], false).unwrap();
    assert!(has("root/dir", DEFAULT), "that of the layer stays");
    assert!(!has("root", DEFAULT), "that of the host does not");
    put_over(open(&at("high")), open(&at("root")), &[], false).unwrap();
    for path in [
        "",
        "/dir",
        "/dir/one",
        "/dir/two",
        "/dir/sub",
        "/dir/sub/three",
    ] {
        for name in [DEFAULT, "system.posix_acl_access"] {
            assert!(!has(&format!("root{path}"), name), "{path} has {name}");
        }
    }
}
