//! Trees that are hard to remove.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use amiforge_store::{remove_tree, remove_tree_at};

use crate::common::sh;

#[test]
fn what_is_not_there_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    remove_tree(&dir.path().join("no")).unwrap();
    remove_tree(&dir.path().join("no/such")).unwrap();
}

#[test]
fn links_are_removed_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p keep t/sub; : > keep/f; ln -s ../keep t/link; ln -s /nonexistent t/sub/l; ln -s keep top"#,
    );
    remove_tree(&dir.path().join("t")).unwrap();
    remove_tree(&dir.path().join("top")).unwrap();
    assert!(dir.path().join("keep/f").exists());
    assert!(!dir.path().join("t").exists() && dir.path().join("top").symlink_metadata().is_err());
}

/// Root may do everything, so an ordinary user has to do it.
#[test]
fn unreadable_directories_are_opened_up() {
    if let Some(path) = std::env::var_os("REMOVE_THIS") {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(12345)).unwrap();
        remove_tree(std::path::Path::new(&path)).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p t/a/b t/c; : > t/a/b/f; chmod 0 t/a/b; chmod 0 t/a; chmod 500 t/c; chown -R 12345 t; chmod 555 t"#,
    );
    let path = dir.path().join("t");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "remove::unreadable_directories_are_opened_up",
            "--nocapture",
        ])
        .env("REMOVE_THIS", &path)
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    assert!(!path.exists());
}

#[test]
fn depth_needs_no_handles() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"mkdir "$1/t"; cd "$1/t"; python3 -c '
import os
for i in range(300):
    os.mkdir("d"); open("f", "w").close(); os.chdir("d")'"#,
    );
    let (soft, hard) = {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        (limit.current, limit.maximum)
    };
    let limit = |current| rustix::process::Rlimit {
        current,
        maximum: hard,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit(Some(200))).unwrap();
    let result = remove_tree(&dir.path().join("t"));
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit(soft)).unwrap();
    result.unwrap();
    assert!(!dir.path().join("t").exists());
}

#[test]
fn only_names_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let fd = std::fs::File::open(dir.path()).unwrap();
    for name in ["", ".", "..", "a/b", "/"] {
        let error = remove_tree_at(std::os::fd::AsFd::as_fd(&fd), name.as_bytes()).unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(error.path.as_os_str().as_bytes(), name.as_bytes());
    }
}
