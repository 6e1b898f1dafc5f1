//! An expensive fixture, built once for all test processes.

use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::env::target_dir;

/// The folder `target/testkit/<name>-<key>`, filled by `build` when it is not there yet.
///
/// Test runners start one process per test; an exclusive lock lets one of them build while the
/// others wait. The folder appears by a rename after `build` returned, so a panic or a kill in
/// the middle leaves nothing that a later run would take for finished. Put everything that the
/// content depends on into `key` (a digest of inputs, a version counter); folders of the same
/// name with other keys are removed. Users must treat the result as read-only.
#[track_caller]
pub fn shared(name: &str, key: &str, build: impl FnOnce(&Path)) -> PathBuf {
    shared_under(&target_dir().join("testkit"), name, key, build)
}

#[track_caller]
fn shared_under(base: &Path, name: &str, key: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let clean = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+".contains(c))
    };
    assert!(
        clean(&name.replace('-', "_")),
        "a fixture's name is a file name: {name:?}"
    );
    assert!(
        clean(key),
        "a fixture's key is a file name without dashes: {key:?}"
    );
    fs_err::create_dir_all(base).expect("the folder of shared fixtures");
    let lock = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(base.join(format!("{name}.lock")))
        .expect("the lock of a shared fixture");
    flock(&lock, FlockOperation::LockExclusive).expect("lock a shared fixture");

    let done = base.join(format!("{name}-{key}"));
    if done.is_dir() {
        return done;
    }
    let stale = format!("{name}-");
    for entry in fs_err::read_dir(base)
        .expect("the folder of shared fixtures")
        .flatten()
    {
        let file = entry.file_name().to_string_lossy().into_owned();
        // Keys hold no dash, so `web-1` is not taken for a stale version of `web-big-1`'s sibling.
        if file
            .strip_prefix(&stale)
            .is_some_and(|rest| !rest.contains('-'))
        {
            let _ = fs_err::remove_dir_all(entry.path());
        }
    }
    let half = base.join(format!("{name}-{key}.part"));
    fs_err::create_dir_all(&half).expect("a folder for a shared fixture");
    build(&half);
    fs_err::rename(&half, &done).expect("put a shared fixture in place");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_once_per_key_and_never_half() {
        let base = tempfile::tempdir().unwrap();
        let make = |key: &str, text: &str| {
            let mut built = false;
            let dir = shared_under(base.path(), "x", key, |dir| {
                built = true;
                fs_err::write(dir.join("f"), text).unwrap();
            });
            (built, fs_err::read_to_string(dir.join("f")).unwrap())
        };
        assert_eq!(make("1", "a"), (true, "a".to_owned()));
        assert_eq!(make("1", "b"), (false, "a".to_owned()));

        let failed = std::panic::catch_unwind(|| {
            shared_under(base.path(), "x", "2", |dir| {
                fs_err::write(dir.join("f"), "half").unwrap();
                panic!("the build fails");
            })
        });
        assert!(failed.is_err());
        assert_eq!(make("2", "c"), (true, "c".to_owned()));
        assert!(
            !base.path().join("x-1").exists(),
            "the old key's folder goes"
        );
    }
}
