//! Files that are not what they should be, and disks that are full.

use std::path::{Path, PathBuf};

use amiforge_store::ec2::{Check, Ec2, Ec2Error, VolumeBase};
use amiforge_testkit::SmallDisk;
use amiforge_types::{Digest, ReadAt as _};

use super::{
    BLOCK, Dice, GRAIN, Place, all_files, content, data_key, open, snapshot, snapshot_id, volume,
    volume_id,
};

/// The only file with this end.
fn only(dir: &Path, end: &str) -> PathBuf {
    let mut found = all_files(dir);
    found.retain(|path| path.to_str().unwrap().ends_with(end));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn with(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let good = std::fs::read(path).unwrap();
    let mut bad = good.clone();
    change(&mut bad);
    std::fs::write(path, bad).unwrap();
    good
}

#[test]
fn damaged_packs_are_found_and_named() {
    for sealed in [false, true] {
        let place = Place::fast();
        let ec2 = &place.ec2;
        let hold = ec2.hold().unwrap();
        let key = sealed.then(|| data_key(ec2, 1));
        let key = key.as_ref();
        let info = ec2
            .import(&hold, &Dice(1).bytes(4 * BLOCK), 4 * BLOCK, key, None)
            .unwrap();
        let pack = only(&ec2.path().join("packs"), ".pack");
        let verify = || {
            place
                .again()
                .verify(&info.map, key)
                .map_err(|e| Box::new((e.to_string(), e)))
        };
        let good = with(&pack, |b| b[4096 + BLOCK as usize * 2 + 77] ^= 4);
        let (text, error) = *verify().unwrap_err();
        assert!(
            matches!(
                &error,
                Ec2Error::BadBlock {
                    index: 2,
                    slot: 2,
                    ..
                }
            ),
            "{text}"
        );
        assert!(text.contains(pack.to_str().unwrap()), "{text}");
        // Guests do not get bad bytes of encrypted blocks, either; whoever copies out checks all.
        let check = if sealed {
            Check::Encrypted
        } else {
            Check::FirstRead
        };
        let reader = place.again().open(&info.map, key, check).unwrap();
        let mut buf = [0; 10];
        let error = reader
            .read_exact_at(&mut buf, 2 * BLOCK + 400_000)
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        reader.read_exact_at(&mut buf, 3 * BLOCK).unwrap();
        type Change = fn(&mut Vec<u8>);
        let changes: [(Change, &str); 7] = [
            (
                |b| b.truncate(4096 + BLOCK as usize * 3 + 9),
                "it ends before slot 3 does",
            ),
            (|b| b.truncate(10), "cut short"),
            (|b| b.clear(), "cut short"),
            (|b| b[0] = b'X', "not a pack"),
            (
                |b| b[8] = 7,
                "has the format version 7, this release reads 1",
            ),
            (|b| b[13] = 7, "slots of 526080 bytes"),
            (|b| b[4096..].fill(0), "is damaged in slot"),
        ];
        for (change, says) in changes {
            std::fs::write(&pack, &good).unwrap();
            with(&pack, change);
            let (text, _) = *verify().unwrap_err();
            assert!(
                text.contains(says) && text.contains(pack.to_str().unwrap()),
                "{text}"
            );
        }
        std::fs::remove_file(&pack).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &pack).unwrap();
        assert!(verify().is_err());
        std::fs::remove_file(&pack).unwrap();
        assert!(verify().unwrap_err().0.ends_with("it is missing"));
        std::fs::write(&pack, &good).unwrap();
        assert_eq!(verify().unwrap(), 4);
    }
}

#[test]
fn rows_that_cannot_be_are_errors() {
    let place = Place::fast();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let key = data_key(ec2, 1);
    let info = ec2
        .import(&hold, &Dice(1).bytes(BLOCK), BLOCK, Some(&key), None)
        .unwrap();
    let error = |sql: &str| {
        let db = rusqlite::Connection::open(ec2.path().join("state.sqlite")).unwrap();
        db.execute_batch("BEGIN").unwrap();
        db.execute_batch("CREATE TEMP TABLE b AS SELECT * FROM blocks; CREATE TEMP TABLE p AS SELECT * FROM packs").unwrap();
        db.execute_batch(sql).unwrap();
        db.execute_batch("COMMIT").unwrap();
        let error = place.again().verify(&info.map, Some(&key)).unwrap_err();
        db.execute_batch("DELETE FROM blocks; DELETE FROM packs; INSERT INTO blocks SELECT * FROM b; INSERT INTO packs SELECT * FROM p").unwrap();
        error.to_string()
    };
    assert!(error("DELETE FROM blocks").ends_with("is not in the store"));
    assert!(error("UPDATE blocks SET seal = NULL").contains("seal"));
    assert!(error("UPDATE blocks SET seal = x'00'").contains("a bad seal"));
    assert!(error("UPDATE blocks SET slot = -1").contains("cannot read the database"));
    assert!(
        error("UPDATE blocks SET slot = 4294967295")
            .contains("it ends before slot 4294967295 does")
    );
    assert!(error("UPDATE blocks SET pack = 99").ends_with("is not in the store"));
    assert!(error("UPDATE packs SET name = '../../../../etc/passwd'").contains("a bad pack"));
    assert!(ec2.verify(&info.map, Some(&key)).is_ok());
}

#[test]
fn damaged_maps_are_found_and_stop_the_collection() {
    let place = Place::fast();
    let ec2 = &place.ec2;
    let key = data_key(ec2, 1);
    let other = {
        let hold = ec2.hold().unwrap();
        ec2.generate_data_key(&hold, &super::key_id(1)).unwrap()
    };
    let hold = ec2.hold().unwrap();
    let info = ec2
        .import(
            &hold,
            &Dice(1).bytes(4 * BLOCK),
            4 * BLOCK,
            Some(&key),
            None,
        )
        .unwrap();
    ec2.transact::<_, Ec2Error>(|state| {
        state
            .snapshots
            .insert(snapshot_id(1), snapshot(1, &info, Some(&key)));
        Ok(())
    })
    .unwrap();
    drop(hold);
    let path = ec2.path().join("maps").join(info.map.hex());
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 6] = [
        (|b| b.truncate(20), "cut short"),
        (|b| b.truncate(100), "100 bytes instead of 240"),
        (|b| b[70] ^= 1, "its digest is another one"),
        (
            |b| b[8] = 2,
            "has the format version 2, this release reads 1",
        ),
        (
            |b| b[28..32].fill(255),
            "4294967295 blocks in a volume of 2097152 bytes",
        ),
        (
            |b| b.extend_from_slice(&[0; 100]),
            "340 bytes, more than 240",
        ),
    ];
    for (change, says) in changes {
        let good = with(&path, change);
        let error = ec2.verify(&info.map, Some(&key)).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains(path.to_str().unwrap()),
            "{error}"
        );
        let before = ec2.usage().unwrap();
        let collected = ec2.gc().unwrap_err().to_string();
        assert!(collected.contains(path.to_str().unwrap()), "{collected}");
        assert_eq!(ec2.usage().unwrap(), before);
        std::fs::write(&path, good).unwrap();
    }
    // A map of the right digest that somebody without the key wrote: blocks swapped.
    let forged = {
        let mut bytes = std::fs::read(&path).unwrap();
        let (one, two) = bytes[64..].split_at_mut(36);
        one[4..36].swap_with_slice(&mut two[4..36]);
        bytes
    };
    let digest = Digest::of(&forged);
    std::fs::write(ec2.path().join("maps").join(digest.hex()), &forged).unwrap();
    let error = ec2
        .open(&digest, Some(&key), Check::Encrypted)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("it was not written under its data key"),
        "{error}"
    );
    assert!(ec2.open(&digest, Some(&other), Check::Encrypted).is_err());
    // Without its map a snapshot that is complete is nothing, and nobody removes what it may have had.
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(ec2.gc().unwrap_err(), Ec2Error::NoMap { .. }));
}

#[test]
fn damaged_volumes_are_found_and_named() {
    let place = Place::fast();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let base = ec2
        .import(&hold, &Dice(1).bytes(2 * BLOCK), 2 * BLOCK, None, None)
        .unwrap();
    let start = Some(VolumeBase {
        map: base.map,
        key: None,
    });
    let size = 3 * BLOCK + GRAIN;
    let file = ec2
        .create_volume(&hold, &volume_id(1), size, start, None)
        .unwrap();
    file.write_at(b"here", 5).unwrap();
    file.write_at(b"end", size - 3).unwrap();
    file.flush().unwrap();
    drop(file);
    let dir = ec2.path().join("volumes").join(volume_id(1).as_str());
    let json = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    type Change = Box<dyn FnOnce(&mut Vec<u8>)>;
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "volume.json",
            Box::new(|b| b.truncate(30)),
            "EOF while parsing",
        ),
        (
            "volume.json",
            Box::new(json("\"version\": 1", "\"version\": 2")),
            "has the format version 2",
        ),
        (
            "volume.json",
            Box::new(json("\"bytes\": 1576960", "\"bytes\": 1576961")),
            "its values cannot be",
        ),
        (
            "volume.json",
            Box::new(json("\"bytes\": 1576960", "\"bytes\": 524288")),
            "instead of 524288",
        ),
        (
            "volume.json",
            Box::new(json(
                "\"bytes\": 1576960",
                "\"bytes\": 18446744073709547520",
            )),
            "its values cannot be",
        ),
        (
            "volume.json",
            Box::new(json("\"next\": 2", "\"next\": 1")),
            "its values cannot be",
        ),
        (
            "volume.json",
            Box::new(json("\"map\": \"", "\"map\": \"x")),
            "SHA-256",
        ),
        (
            "data-1",
            Box::new(|b| b.truncate(4096)),
            "4096 bytes instead of 1576960",
        ),
        (
            "mask-1",
            Box::new(|b| b.truncate(4096)),
            "4096 bytes instead of 8192",
        ),
        ("mask-1", Box::new(|b| b[0] = b'X'), "not a mask file"),
        ("mask-1", Box::new(|b| b[8] = 3), "has the format version 3"),
        (
            "mask-1",
            Box::new(|b| b[16] = 9),
            "it belongs to another layer",
        ),
        (
            "mask-1",
            Box::new(|b| b[4096 + 48] = 2),
            "block 3 has grains past the end",
        ),
        (
            "mask-1",
            Box::new(|b| b[8191] = 1),
            "block 255 has grains past the end",
        ),
    ];
    for (name, change, says) in cases {
        let path = dir.join(name);
        let good = with(&path, change);
        let error = ec2.open_volume(&volume_id(1)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains(dir.to_str().unwrap()),
            "{text}"
        );
        std::fs::write(&path, good).unwrap();
    }
    let file = ec2.open_volume(&volume_id(1)).unwrap();
    let bytes = content(&file);
    assert_eq!(
        (&bytes[5..9], &bytes[bytes.len() - 3..]),
        (&b"here"[..], &b"end"[..])
    );
    drop(file);
    std::fs::remove_file(dir.join("data-1")).unwrap();
    let error = ec2.open_volume(&volume_id(1)).unwrap_err().to_string();
    assert!(
        error.ends_with("data-1 is damaged: it is missing"),
        "{error}"
    );
}

/// Names of everything in the store but the locks and sessions.
fn names(ec2: &Ec2) -> Vec<PathBuf> {
    let mut names = all_files(ec2.path().parent().unwrap());
    names.retain(|path| path.extension().is_none_or(|e| e != "lock"));
    names.sort();
    names
}

#[test]
fn a_full_disk_leaves_what_was_and_can_be_emptied() {
    let disk = SmallDisk::new(8 << 20);
    let ec2 = &open(disk.path());
    let hold = ec2.hold().unwrap();
    let data = Dice(1).bytes(4 * BLOCK);
    let info = ec2.import(&hold, &data, 64 * BLOCK, None, None).unwrap();
    let file = ec2
        .create_volume(
            &hold,
            &volume_id(1),
            64 * BLOCK,
            Some(VolumeBase {
                map: info.map,
                key: None,
            }),
            None,
        )
        .unwrap();
    ec2.transact::<_, Ec2Error>(|state| {
        state
            .snapshots
            .insert(snapshot_id(1), snapshot(1, &info, None));
        state.volumes.insert(volume_id(1), volume(1, None));
        Ok(())
    })
    .unwrap();
    // A snapshot that does not fit leaves nothing, in any of its stages.
    let before = names(ec2);
    let mut failed = 0;
    for blocks in [13, 12, 11] {
        let more = Dice(blocks).bytes(blocks * BLOCK);
        match ec2.import(&hold, &more, 64 * BLOCK, None, None) {
            Err(error) => {
                assert!(error.is_disk_full(), "{error}");
                failed += 1;
                assert_eq!(names(ec2), before, "{blocks} blocks");
            }
            Ok(_) => break,
        }
    }
    assert!(failed > 0);
    drop(hold);
    ec2.gc().unwrap().unwrap();
    // Writing ends with an error, and everything that was written is there.
    let mut at = 0;
    let error = loop {
        let grain = vec![u8::try_from(1 + at % 251).unwrap(); GRAIN as usize];
        match file.write_at(&grain, at * GRAIN) {
            Ok(()) => at += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(
        error.get_ref().unwrap().to_string().contains("data-1"),
        "{error}"
    );
    let check = |file: &amiforge_store::ec2::VolumeFile| {
        let bytes = content(file);
        for n in 0..at {
            let grain = &bytes[(n * GRAIN) as usize..][..GRAIN as usize];
            assert!(
                grain.iter().all(|b| u64::from(*b) == 1 + n % 251),
                "grain {n}"
            );
        }
    };
    check(&file);
    let flushed = file.flush();
    let before = names(ec2);
    let hold = ec2.hold().unwrap();
    let error = file.snapshot(&hold).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(names(ec2), before);
    let error = ec2.transact::<_, Ec2Error>(|state| {
        for n in 100..400 {
            state.volumes.insert(volume_id(n), volume(n, None));
        }
        Ok(())
    });
    assert!(error.unwrap_err().is_disk_full());
    assert_eq!(ec2.read().unwrap().volumes.len(), 1);
    drop(hold);
    // The guest frees some, and all goes on.
    file.zero_at(0, 100 * GRAIN).unwrap();
    if let Err(error) = flushed {
        assert!(error.is_disk_full(), "{error}");
    }
    file.flush().unwrap();
    drop(file);
    let file = open(disk.path()).open_volume(&volume_id(1)).unwrap();
    let bytes = content(&file);
    for n in 100..at {
        let grain = &bytes[(n * GRAIN) as usize..][..GRAIN as usize];
        assert!(
            grain.iter().all(|b| u64::from(*b) == 1 + n % 251),
            "grain {n}"
        );
    }
    drop(file);
    ec2.transact::<_, Ec2Error>(|state| {
        state.snapshots.clear();
        state.volumes.clear();
        Ok(())
    })
    .unwrap();
    let done = ec2.gc().unwrap().unwrap();
    assert_eq!((done.volumes, done.maps, done.blocks), (1, 1, 4));
    assert!(done.bytes > 6 << 20, "{done:?}");
}
