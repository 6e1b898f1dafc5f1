//! kill -9 in the middle.

use std::time::Duration;

use amiforge_store::{Home, Store};
use amiforge_testkit::Running;
use amiforge_types::{Digest, LayerId};

fn id() -> LayerId {
    LayerId(Digest::of(b"crash"))
}

const NAME: &str = "crash::a_killed_writer_leaves_nothing_and_the_next_one_goes_on";

#[test]
fn a_killed_writer_leaves_nothing_and_the_next_one_goes_on() {
    if let Some(home) = std::env::var_os("CRASH_HOME") {
        return half_way(std::path::Path::new(&home));
    }
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let mut child = Running::spawn(
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("CRASH_HOME", dir.path()),
    );
    child.wait_for_path(&ready, Duration::from_secs(60));
    let home = Home::below(dir.path());
    let tmp = dir.path().join("store/v1/tmp");
    let store = Store::open(&home).unwrap();
    assert!(
        store.try_lock_layer(id()).unwrap().is_none(),
        "the child holds the lock"
    );
    assert!(
        std::fs::read_dir(&tmp).unwrap().count() >= 4,
        "two sessions with their locks"
    );
    drop(store);
    child.kill9();
    let store = Store::open(&home).unwrap();
    assert!(store.leftovers().is_empty());
    assert_eq!(
        std::fs::read_dir(&tmp).unwrap().count(),
        2,
        "only our own session and its lock"
    );
    assert!(store.try_lock_layer(id()).unwrap().is_some());
    assert!(
        store
            .layer(id(), &mut amiforge_types::BlobTable::new())
            .unwrap()
            .is_none()
    );
    assert!(store.root(id()).is_none());
}

/// The child process.
fn half_way(home: &std::path::Path) {
    let store = Store::open(&Home::below(home)).unwrap();
    let _lock = store.lock_layer(id()).unwrap();
    let layer = store.layer_writer(id()).unwrap();
    std::io::Write::write_all(&mut layer.file(), b"half a layer").unwrap();
    let root = store.root_writer(id()).unwrap();
    std::fs::create_dir(root.path().join("usr")).unwrap();
    std::fs::write(home.join("ready"), "").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}
