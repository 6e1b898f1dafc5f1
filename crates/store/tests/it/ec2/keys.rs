//! Key material and data keys.

use amiforge_ami::ec2::Encryption;
use amiforge_store::ec2::{Check, Ec2Error};
use amiforge_types::Digest;

use super::{BLOCK, Dice, Place, content, data_key, key_id, snapshot, snapshot_id};

#[test]
fn rotation_keeps_old_data_keys_and_errors_say_what_is_missing() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let keys = ec2.keys();
    let error = ec2.generate_data_key(&hold, &key_id(1)).unwrap_err();
    assert!(matches!(error, Ec2Error::NoMaterial { .. }), "{error}");
    assert!(matches!(
        keys.provide(&key_id(1), 2),
        Err(Ec2Error::NoMaterial { .. })
    ));
    assert_eq!(keys.versions(&key_id(1)).unwrap(), None);
    let old = data_key(ec2, 1);
    assert!(matches!(
        keys.create(&key_id(1)),
        Err(Ec2Error::KeyExists { .. })
    ));
    keys.provide(&key_id(1), 2).unwrap();
    keys.provide(&key_id(1), 3).unwrap();
    // A rotation whose record was not written is not made twice.
    keys.provide(&key_id(1), 2).unwrap();
    let new = ec2.generate_data_key(&hold, &key_id(1)).unwrap();
    assert_ne!(old.id(), new.id());
    for key in [&old, &new] {
        let opened = place.again().open_data_key(key.encryption()).unwrap();
        assert_eq!(opened.id(), key.id());
    }
    assert_eq!(keys.versions(&key_id(1)).unwrap(), Some(3));

    // The same data key under another key opens the same blocks.
    let data = Dice(1).bytes(BLOCK);
    let info = ec2.import(&hold, &data, BLOCK, Some(&old), None).unwrap();
    keys.create(&key_id(2)).unwrap();
    let moved = ec2.rewrap(&hold, old.encryption(), &key_id(2)).unwrap();
    assert_eq!(
        (moved.id(), &moved.encryption().key_id),
        (old.id(), &key_id(2))
    );
    keys.destroy(&key_id(1)).unwrap();
    keys.destroy(&key_id(1)).unwrap();
    let error = ec2.open_data_key(old.encryption()).unwrap_err();
    assert!(
        matches!(&error, Ec2Error::NoMaterial { key, .. } if *key == key_id(1)),
        "{error}"
    );
    let opened = ec2.open_data_key(moved.encryption()).unwrap();
    assert!(
        content(
            &ec2.open(&info.map, Some(&opened), Check::Encrypted)
                .unwrap()
        ) == data
    );

    // Material of the same id that is not the same.
    keys.create(&key_id(1)).unwrap();
    let error = ec2.open_data_key(old.encryption()).unwrap_err();
    assert!(matches!(error, Ec2Error::WrongMaterial { .. }), "{error}");
    let error = ec2.open_data_key(new.encryption()).unwrap_err();
    assert!(
        matches!(error, Ec2Error::NoMaterialVersion { version: 3, .. }),
        "{error}"
    );
    let unknown = Encryption {
        key_id: key_id(2),
        data_key_id: Digest::of(b"x"),
    };
    let error = ec2.open_data_key(&unknown).unwrap_err();
    assert!(matches!(error, Ec2Error::NoDataKey { .. }), "{error}");
    assert!(!format!("{old:?}").contains("secret"));
}

#[test]
fn data_keys_that_nothing_names_go() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let (used, unused) = (data_key(ec2, 1), data_key(ec2, 2));
    let hold = ec2.hold().unwrap();
    let info = ec2
        .import(&hold, &Dice(1).bytes(BLOCK), BLOCK, Some(&used), None)
        .unwrap();
    ec2.transact::<_, Ec2Error>(|state| {
        state
            .snapshots
            .insert(snapshot_id(1), snapshot(1, &info, Some(&used)));
        Ok(())
    })
    .unwrap();
    drop(hold);
    assert_eq!(ec2.gc().unwrap().unwrap().data_keys, 1);
    assert!(ec2.open_data_key(used.encryption()).is_ok());
    assert!(matches!(
        ec2.open_data_key(unused.encryption()),
        Err(Ec2Error::NoDataKey { .. })
    ));
}

#[test]
fn damaged_key_files_are_not_taken_for_wrong_keys() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let key = data_key(ec2, 1);
    let path = ec2.path().join("keys").join(key_id(1).as_str());
    let good = std::fs::read(&path).unwrap();
    let with = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        ec2.open_data_key(key.encryption()).unwrap_err()
    };
    let flip = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    for bad in [
        flip(0),
        flip(12),
        flip(20),
        flip(60),
        good[..50].to_vec(),
        good[..10].to_vec(),
        vec![],
        vec![0; 1 << 20],
    ] {
        let error = with(&bad);
        assert!(
            matches!(&error, Ec2Error::Damaged { path: p, .. } if *p == path),
            "{error}"
        );
    }
    assert!(matches!(with(&flip(8)), Ec2Error::Version { found: 0, .. }));
    std::fs::write(&path, &good).unwrap();
    assert!(ec2.open_data_key(key.encryption()).is_ok());
}

#[test]
fn a_data_key_of_a_chosen_id_is_made_once() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    for n in [1, 2] {
        ec2.keys().create(&key_id(n)).unwrap();
    }
    let chosen = |n| Encryption {
        key_id: key_id(n),
        data_key_id: Digest::of(b"chosen"),
    };
    let data = Dice(1).bytes(BLOCK);
    // Whoever is first makes it; all get the same one.
    let maps: Vec<Digest> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (ec2, hold, chosen, data) = (place.again(), &hold, chosen(1), &data);
                scope.spawn(move || {
                    let key = ec2.create_data_key(hold, &chosen).unwrap();
                    ec2.import(hold, data, BLOCK, Some(&key), None).unwrap().map
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(maps.iter().all(|map| *map == maps[0]), "{maps:?}");
    let other = ec2.create_data_key(&hold, &chosen(2)).unwrap_err();
    assert!(matches!(other, Ec2Error::DataKeyExists { .. }), "{other}");
    let moved = ec2.rewrap(&hold, &chosen(1), &key_id(2)).unwrap();
    assert_eq!(ec2.verify(&maps[0], Some(&moved)).unwrap(), 1);
    assert!(ec2.create_data_key(&hold, &chosen(2)).is_ok());
}
