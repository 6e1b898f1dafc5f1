//! One store, several openings.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use amiforge_store::{CatalogImage, Home, Store, StoreError, write_atomic};
use amiforge_tree::{LayerDiff, layer};
use amiforge_types::{BlobTable, Digest, LayerId};

fn id(text: &str) -> LayerId {
    LayerId(Digest::of(text.as_bytes()))
}

fn open() -> (tempfile::TempDir, Home, Store) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::below(dir.path());
    let store = Store::open(&home).unwrap();
    (dir, home, store)
}

#[test]
fn a_layer_is_there_after_commit_and_not_before() {
    let (_dir, home, store) = open();
    let writer = store.layer_writer(id("a")).unwrap();
    let info = layer::write(&LayerDiff::default(), &BlobTable::new(), &mut writer.file()).unwrap();
    assert!(
        store
            .layer(id("a"), &mut BlobTable::new())
            .unwrap()
            .is_none()
    );
    let temp = writer.path().to_owned();
    assert_eq!(writer.commit().unwrap(), info);
    assert!(!temp.exists());
    let stored = store
        .layer(id("a"), &mut BlobTable::new())
        .unwrap()
        .unwrap();
    assert_eq!((stored.info, &*stored.diff), (info, &LayerDiff::default()));
    assert_eq!(Store::open(&home).unwrap().layers().unwrap(), [id("a")]);
    store.remove_layer(id("a")).unwrap();
    store.remove_layer(id("a")).unwrap();
    assert!(!store.has_layer(id("a")));
}

#[test]
fn half_a_layer_is_never_committed() {
    let (dir, _home, store) = open();
    let writer = store.layer_writer(id("a")).unwrap();
    let mut bytes = Vec::new();
    layer::write(&LayerDiff::default(), &BlobTable::new(), &mut bytes).unwrap();
    writer.file().write_all(&bytes[..bytes.len() - 1]).unwrap();
    let temp = writer.path().to_owned();
    assert!(matches!(writer.commit(), Err(StoreError::Layer { .. })));
    assert!(!temp.exists() && !store.has_layer(id("a")));
    assert_eq!(
        std::fs::read_dir(dir.path().join("store/v1/layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_damaged_layer_is_an_error_that_names_it() {
    let (_dir, _home, store) = open();
    store
        .put_layer(id("a"), &LayerDiff::default(), &BlobTable::new())
        .unwrap();
    let path = store
        .layer(id("a"), &mut BlobTable::new())
        .unwrap()
        .unwrap()
        .path;
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    match store.layer(id("a"), &mut BlobTable::new()) {
        Err(StoreError::Layer { path: named, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_one_holds_the_lock_of_a_layer() {
    let (_dir, home, store) = open();
    let lock = store.lock_layer(id("a")).unwrap();
    let other = Store::open(&home).unwrap();
    assert!(other.try_lock_layer(id("a")).unwrap().is_none());
    assert!(other.try_lock_layer(id("b")).unwrap().is_some());
    let (send, receive) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _lock = other.lock_layer(id("a")).unwrap();
        send.send(()).unwrap();
    });
    assert!(
        receive.recv_timeout(Duration::from_millis(200)).is_err(),
        "it did not wait"
    );
    drop(lock);
    receive.recv_timeout(Duration::from_secs(30)).unwrap();
    waiter.join().unwrap();
}

#[test]
fn a_session_goes_with_its_store_and_leaves_others_alone() {
    let (dir, home, store) = open();
    let tmp = dir.path().join("store/v1/tmp");
    let mine = store.temp_dir("upper").unwrap();
    let other = Store::open(&home).unwrap();
    assert!(
        mine.is_dir(),
        "an opening removed what belongs to a living process"
    );
    assert!(other.leftovers().is_empty());
    drop(other);
    assert!(mine.is_dir());
    drop(store);
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

#[test]
fn a_writer_keeps_its_session() {
    let (_dir, _home, store) = open();
    let writer = store.root_writer(id("r")).unwrap();
    drop(store.clone());
    drop(store);
    std::fs::write(writer.path().join("f"), "x").unwrap();
    let root = writer.commit().unwrap();
    assert!(root.join("f").is_file() && root.ends_with(id("r").to_string()));
}

#[test]
fn the_second_of_two_roots_finds_the_first() {
    let (_dir, _home, store) = open();
    let (a, b) = (
        store.root_writer(id("r")).unwrap(),
        store.root_writer(id("r")).unwrap(),
    );
    std::fs::write(a.path().join("a"), "").unwrap();
    std::fs::write(b.path().join("b"), "").unwrap();
    let (a, b) = (a.commit().unwrap(), b.commit().unwrap());
    assert_eq!(a, b);
    assert!(a.join("a").exists() && !a.join("b").exists());
    assert_eq!(store.root(id("r")), Some(a));
}

#[test]
fn another_format_is_refused() {
    let (dir, home, store) = open();
    drop(store);
    std::fs::write(dir.path().join("store/version"), "amiforge-store 9\n").unwrap();
    match Store::open(&home) {
        Err(StoreError::Version { found, .. }) => assert_eq!(found, "amiforge-store 9"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_by_kind_and_key() {
    let (_dir, _home, store) = open();
    let record = serde_json::json!({"b": 1, "a": [2, "x"]});
    assert_eq!(store.get_record("build", "k").unwrap(), None);
    store.put_record("build", "k", &record).unwrap();
    store
        .put_record("build", "k2", &serde_json::json!(null))
        .unwrap();
    assert_eq!(store.get_record("build", "k").unwrap(), Some(record));
    assert_eq!(store.record_keys("build").unwrap(), ["k", "k2"]);
    assert!(store.record_keys("other").unwrap().is_empty());
    for bad in ["", "../x", "a/b", ".hidden", "x\0", &"k".repeat(201)] {
        assert!(matches!(
            store.put_record("build", bad, &serde_json::json!(1)),
            Err(StoreError::BadKey(_))
        ));
        assert!(matches!(
            store.get_record(bad, "k"),
            Err(StoreError::BadKey(_))
        ));
    }
}

#[test]
fn a_broken_record_counts_as_absent() {
    let (dir, _home, store) = open();
    store
        .put_record("build", "k", &serde_json::json!(1))
        .unwrap();
    let path = dir.path().join("store/v1/records/build/k.json");
    for damaged in ["{", "", "\0\0\0\0"] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(store.get_record("build", "k").unwrap(), None);
    }
}

#[test]
fn the_catalog_finds_images_by_id_and_name() {
    let (_dir, home, store) = open();
    let image = |id: &str, name: &str, version: &str| CatalogImage {
        image_id: id.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        path: "/out/x".into(),
        manifest: serde_json::json!({"schemaVersion": 1}),
    };
    let (a, b) = (
        image("ami-b", "web", "1.0.0"),
        image("ami-a", "web", "1.0.1"),
    );
    store.put_image(&a).unwrap();
    store.put_image(&b).unwrap();
    let store = Store::open(&home).unwrap();
    assert_eq!(store.images().unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.image("ami-a").unwrap(), Some(b.clone()));
    assert_eq!(store.image("ami-c").unwrap(), None);
    assert_eq!(store.image_by_name("web", "1.0.0").unwrap(), Some(a));
    assert_eq!(store.image_by_name("web", "2.0.0").unwrap(), None);
    store.put_image(&image("ami-z", "web", "1.0.1")).unwrap();
    assert!(matches!(
        store.image_by_name("web", "1.0.1"),
        Err(StoreError::Ambiguous { .. })
    ));
    // A build that ends with the same image is the newest again.
    let ended = |id: &str| store.image_finished(id).unwrap();
    assert!(ended("ami-z") >= ended("ami-a"));
    std::thread::sleep(std::time::Duration::from_millis(20));
    store.put_image(&b).unwrap();
    assert!(ended("ami-a") > ended("ami-z"));
    assert!(store.remove_image("ami-z").unwrap());
    assert_eq!(store.image_finished("ami-z"), None);
    assert!(!store.remove_image("ami-z").unwrap());
}

#[test]
fn write_atomic_replaces_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(write_atomic(&dir.path().join("no/f"), b"").is_err());
}

#[test]
fn a_full_disk_commits_nothing() {
    let disk = amiforge_testkit::SmallDisk::new(2 << 20);
    let store = Store::open(&Home::below(disk.path())).unwrap();
    store
        .put_record("build", "k", &serde_json::json!("old"))
        .unwrap();
    let full = disk.fill();
    let content = amiforge_tree::Content::bytes(vec![1; 1 << 20]);
    let stat = amiforge_tree::Stat {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: amiforge_types::Timestamp::from_secs(0),
    };
    let inode = amiforge_tree::Inode::new(stat, amiforge_tree::Kind::File(content));
    let diff = LayerDiff {
        entries: [(b"f".to_vec(), amiforge_tree::LayerEntry::Put(inode))].into(),
    };
    store
        .put_layer(id("a"), &diff, &BlobTable::new())
        .unwrap_err();
    assert!(!store.has_layer(id("a")));
    let big = serde_json::json!("x".repeat(100_000));
    let error = store.put_record("build", "k", &big).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(
        store.get_record("build", "k").unwrap(),
        Some(serde_json::json!("old"))
    );
    std::fs::remove_file(full).unwrap();
    store.put_layer(id("a"), &diff, &BlobTable::new()).unwrap();
}

#[test]
fn threads_write_the_same_layer_as_one() {
    let (_dir, _home, store) = open();
    let stat = amiforge_tree::Stat {
        mode: 0o600,
        uid: 7,
        gid: 8,
        mtime: amiforge_types::Timestamp::from_secs(9),
    };
    let mut blobs = BlobTable::new();
    let data: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|i| (i / 7).to_le_bytes())
        .collect();
    let blob = blobs.add(std::sync::Arc::new(data));
    let mut diff = LayerDiff::default();
    for i in 0..64_u64 {
        let len = (i * i * 617) % 900_000;
        let content = amiforge_tree::Content {
            size: len + i,
            extents: if len == 0 {
                Vec::new()
            } else {
                let source = amiforge_tree::DataSource::Blob {
                    id: blob,
                    offset: i * 1000,
                };
                let offset = i;
                vec![amiforge_tree::DataExtent {
                    offset,
                    len,
                    source,
                }]
            },
            digest: None,
        };
        let inode = amiforge_tree::Inode::new(stat, amiforge_tree::Kind::File(content));
        let path = format!("f{i:02}").into_bytes();
        diff.entries
            .insert(path, amiforge_tree::LayerEntry::Put(inode));
    }
    let mut one = Vec::new();
    let info = layer::write(&diff, &blobs, &mut one).unwrap();
    assert_eq!(store.put_layer(id("a"), &diff, &blobs).unwrap(), info);
    let path = store.layer_path(id("a"));
    assert!(std::fs::read(&path).unwrap() == one);

    // A changed byte of the data is found, and the file named.
    let verify = || {
        let mut blobs = BlobTable::new();
        let layer = store.layer(id("a"), &mut blobs)?.unwrap();
        layer.verify(&blobs)
    };
    verify().unwrap();
    let mut damaged = one.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = verify().unwrap_err();
    assert!(matches!(error, StoreError::LayerData { .. }), "{error:?}");

    // So is what is no file.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("x"), "x").unwrap();
    let error = verify().unwrap_err();
    assert!(matches!(error, StoreError::LayerKind(_)), "{error:?}");
    store.remove_layer(id("a")).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_layer_that_is_used_cannot_be_taken_away() {
    let (_dir, home, store) = open();
    let other = Store::open(&home).unwrap();
    store
        .put_layer(id("a"), &LayerDiff::default(), &BlobTable::new())
        .unwrap();
    let made = store.last_use(id("a")).unwrap();
    assert_eq!(store.last_use(id("b")), None);

    // To ask is no use.
    drop(other.unused(id("a")).unwrap().unwrap());
    assert_eq!(store.last_use(id("a")), Some(made));

    let later = made + Duration::from_secs(1000);
    let used = store.use_layers(&[id("a"), id("b")], later).unwrap();
    let too = other.use_layers(&[id("a")], later).unwrap();
    assert_eq!(store.last_use(id("a")), Some(later));
    drop(used);
    assert!(other.unused(id("a")).unwrap().is_none());
    drop(too);
    let unused = other.unused(id("a")).unwrap().unwrap();
    assert_eq!(unused.id(), id("a"));

    // Who wants to use it meanwhile waits.
    let (sender, receiver) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _used = store.use_layers(&[id("a")], later).unwrap();
        sender.send(store.has_layer(id("a"))).unwrap();
    });
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
    other.remove_layer(id("a")).unwrap();
    drop(unused);
    assert!(!receiver.recv().unwrap());
    waiting.join().unwrap();
}
