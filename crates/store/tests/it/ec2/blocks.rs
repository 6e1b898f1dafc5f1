//! Blocks, maps, and the collection of garbage.

use std::collections::BTreeSet;

use amiforge_store::FileBlob;
use amiforge_store::ec2::{Check, Ec2, Ec2Error, MapInfo};
use amiforge_types::{Digest, ReadAt};

use super::{
    BLOCK, Dice, Place, content, content_of_data, data_key, files_with, snapshot, snapshot_id,
};

fn record(ec2: &Ec2, n: u64, info: &MapInfo) {
    ec2.transact::<_, Ec2Error>(|state| {
        state
            .snapshots
            .insert(snapshot_id(n), snapshot(n, info, None));
        Ok(())
    })
    .unwrap();
}

fn forget(ec2: &Ec2, n: u64) {
    ec2.transact::<_, Ec2Error>(|state| {
        state.snapshots.remove(&snapshot_id(n));
        Ok(())
    })
    .unwrap();
}

fn counts(info: &MapInfo) -> (u64, u64, u64) {
    (info.blocks, info.changed, info.stored)
}

#[test]
fn blocks_are_stored_once_and_zeros_not_at_all() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let mut data = Dice(1).bytes(10 * BLOCK);
    let block = BLOCK as usize;
    data[3 * block..5 * block].fill(0);
    data.copy_within(0..block, 9 * block);
    let bytes = 12 * BLOCK + 1000;
    let first = ec2.import(&hold, &data, bytes, None, None).unwrap();
    assert_eq!(counts(&first), (8, 8, 7));
    let again = ec2.import(&hold, &data, bytes, None, None).unwrap();
    assert_eq!((again.map, counts(&again)), (first.map, (8, 8, 0)));

    let reader = ec2.open(&first.map, None, Check::FirstRead).unwrap();
    let mut want = data.clone();
    want.resize(bytes as usize, 0);
    assert!(content(&reader) == want);
    assert!(content_of_data(&reader) == want);
    assert_eq!(
        reader.next_data(3 * BLOCK).unwrap(),
        Some(5 * BLOCK..10 * BLOCK)
    );
    assert_eq!(reader.next_data(10 * BLOCK).unwrap(), None);
    let mut buf = vec![0; 700_001];
    for offset in [
        1,
        4095,
        BLOCK - 1,
        2 * BLOCK + 77,
        9 * BLOCK + 13,
        bytes - 700_001,
    ] {
        reader.read_exact_at(&mut buf, offset).unwrap();
        assert!(buf == want[offset as usize..][..buf.len()]);
    }
    assert!(reader.read_exact_at(&mut buf, bytes - 700_000).is_err());
    assert!(reader.read_exact_at(&mut buf, u64::MAX).is_err());

    // One block changes, one comes, one goes: only what is new is stored.
    data[5 * block] ^= 1;
    data[4 * block] = 1;
    data[7 * block..8 * block].fill(0);
    let second = ec2
        .import(&hold, &data, bytes, None, Some(&first.map))
        .unwrap();
    assert_eq!(counts(&second), (8, 3, 2));
    assert_eq!(ec2.diff(&first.map, &second.map).unwrap(), [4, 5, 7]);
    assert_eq!(ec2.verify(&second.map, None).unwrap(), 8);
    assert_eq!(ec2.usage().unwrap().blocks, 9);
    let own = ec2
        .own_blocks(&BTreeSet::from([first.map, second.map]))
        .unwrap();
    assert_eq!((own[&first.map], own[&second.map]), (2, 2));
    let both = BTreeSet::from([first.map, second.map]);
    assert_eq!(ec2.distinct_blocks(&both).unwrap(), 9);

    // The map says what EBS would list.
    let map = ec2.map(&first.map).unwrap();
    assert_eq!(map.blocks().collect::<Vec<_>>(), [0, 1, 2, 5, 6, 7, 8, 9]);
    assert_eq!(map.address(0), Some(Digest::of(&want[..block])));
    assert_eq!(map.address(3), None);
}

#[test]
fn holes_of_a_file_cost_nothing_and_sizes_are_checked() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let path = place.dir.path().join("disk");
    let file = std::fs::File::create(&path).unwrap();
    let tib = 1 << 40;
    file.set_len(tib).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", tib - 3).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", (tib / 2) - 3).unwrap();
    let info = ec2
        .import(&hold, &FileBlob::open(&path).unwrap(), tib, None, None)
        .unwrap();
    assert_eq!(counts(&info), (3, 3, 3));
    let reader = ec2.open(&info.map, None, Check::Encrypted).unwrap();
    let mut buf = [0; 6];
    reader.read_exact_at(&mut buf, (tib / 2) - 3).unwrap();
    assert_eq!(&buf, b"middle");

    let none = ec2.import(&hold, &Vec::new(), BLOCK, None, None).unwrap();
    assert_eq!(
        (counts(&none), ec2.verify(&none.map, None).unwrap()),
        ((0, 0, 0), 0)
    );
    for (source, bytes) in [(vec![1; 10], 9), (vec![], 0), (vec![], (64 << 40) + 1)] {
        let error = ec2.import(&hold, &source, bytes, None, None).unwrap_err();
        assert!(matches!(error, Ec2Error::Size { .. }), "{error}");
    }
    let error = ec2
        .open(&Digest::of(b"no"), None, Check::Encrypted)
        .unwrap_err();
    assert!(matches!(error, Ec2Error::NoMap { .. }), "{error}");
}

#[test]
fn encrypted_blocks_need_their_key() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let (key, other) = (data_key(ec2, 1), data_key(ec2, 2));
    let pattern = b"the quick brown fox jumps over the lazy dog";
    let mut data = Dice(2).bytes(5 * BLOCK);
    for at in (0..data.len() - 100).step_by(10_007) {
        data[at..at + pattern.len()].copy_from_slice(pattern);
    }
    let sealed = ec2
        .import(&hold, &data, 6 * BLOCK, Some(&key), None)
        .unwrap();
    assert_eq!(
        files_with(ec2.path(), pattern),
        Vec::<std::path::PathBuf>::new()
    );
    assert!(
        !files_with(ec2.path(), &[0; 20]).is_empty(),
        "the search works"
    );

    let reader = ec2.open(&sealed.map, Some(&key), Check::Encrypted).unwrap();
    let mut buf = vec![0; 100];
    for offset in [0, 7, BLOCK - 50, 4 * BLOCK + 1, BLOCK - 50, 5 * BLOCK - 50] {
        reader.read_exact_at(&mut buf, offset).unwrap();
        let end = data.len().min(offset as usize + 100);
        assert!(buf[..end - offset as usize] == data[offset as usize..end]);
    }
    assert!(content(&reader)[..data.len()] == data);
    // The same once more, with nothing left to check.
    assert!(content(&reader)[..data.len()] == data);

    // The same bytes under the same key are there; under another key, or none, they are others.
    let again = ec2
        .import(&hold, &data, 6 * BLOCK, Some(&key), None)
        .unwrap();
    assert_eq!((again.map, again.stored), (sealed.map, 0));
    let moved = ec2
        .reencrypt(&hold, &sealed.map, Some(&key), Some(&other))
        .unwrap();
    assert_eq!((counts(&moved), moved.bytes), ((5, 5, 5), 6 * BLOCK));
    assert_eq!(ec2.diff(&sealed.map, &moved.map).unwrap(), [0, 1, 2, 3, 4]);
    assert!(
        content(
            &ec2.open(&moved.map, Some(&other), Check::Encrypted)
                .unwrap()
        )[..data.len()]
            == data
    );
    let plain = ec2
        .reencrypt(&hold, &moved.map, Some(&other), None)
        .unwrap();
    assert!(content(&ec2.open(&plain.map, None, Check::FirstRead).unwrap())[..data.len()] == data);

    let error = |map, key| {
        ec2.open(map, key, Check::Encrypted)
            .unwrap_err()
            .to_string()
    };
    assert!(error(&sealed.map, None).ends_with("is encrypted: its data key is needed"));
    assert!(error(&sealed.map, Some(&other)).contains("is not encrypted under the data key"));
    assert!(error(&plain.map, Some(&key)).contains("is not encrypted under the data key"));
}

#[test]
fn garbage_goes_and_what_is_named_stays() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let block = BLOCK as usize;
    let a = Dice(3).bytes(8 * BLOCK);
    let mut b = a.clone();
    Dice(4).fill(&mut b[2 * block..4 * block]);
    let c = Dice(5).bytes(2 * BLOCK);
    let hold = ec2.hold().unwrap();
    let bytes = 8 * BLOCK;
    let infos = [&a, &b, &c].map(|data| ec2.import(&hold, data, bytes, None, None).unwrap());
    for (n, info) in (1..).zip(&infos) {
        record(ec2, n, info);
    }
    let unnamed = ec2
        .import(&hold, &Dice(6).bytes(3 * BLOCK), bytes, None, None)
        .unwrap();
    assert_eq!(ec2.gc().unwrap(), None, "something is being made");
    assert_eq!(place.again().gc().unwrap(), None);
    drop(hold);
    let done = ec2.gc().unwrap().unwrap();
    assert_eq!((done.blocks, done.packs, done.maps), (3, 1, 1));
    assert!(done.bytes >= 3 * BLOCK);
    assert!(ec2.map(&unnamed.map).is_err());
    assert_eq!(ec2.gc().unwrap().unwrap(), Default::default());

    // Of the first pack only what the second snapshot has, too, stays: the rest becomes holes.
    forget(ec2, 1);
    forget(ec2, 3);
    let before = ec2.usage().unwrap();
    let done = place.again().gc().unwrap().unwrap();
    assert_eq!((done.blocks, done.packs, done.maps), (4, 1, 2));
    assert!(done.bytes >= 4 * BLOCK, "{}", done.bytes);
    let after = ec2.usage().unwrap();
    assert_eq!(
        (before.blocks - after.blocks, before.packs - after.packs),
        (4, 1)
    );
    assert!(before.pack_bytes - after.pack_bytes >= 4 * BLOCK);
    assert_eq!(ec2.verify(&infos[1].map, None).unwrap(), 8);

    // What was collected is stored again when it comes again.
    let hold = ec2.hold().unwrap();
    let again = ec2.import(&hold, &a, bytes, None, None).unwrap();
    assert_eq!((again.map, again.stored), (infos[0].map, 2));
    assert_eq!(ec2.verify(&again.map, None).unwrap(), 8);
    drop(hold);

    // What is read stays until it is not.
    let reader = ec2.open(&again.map, None, Check::FirstRead).unwrap();
    assert_eq!(place.again().gc().unwrap().unwrap(), Default::default());
    assert!(content(&reader) == a);
    drop(reader);
    assert_eq!(place.again().gc().unwrap().unwrap().blocks, 2);
}

#[test]
fn a_lost_database_is_made_again_from_the_packs() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let key = data_key(ec2, 1);
    let hold = ec2.hold().unwrap();
    let a = Dice(7).bytes(4 * BLOCK);
    let b = Dice(8).bytes(2 * BLOCK);
    let kept = ec2.import(&hold, &a, 4 * BLOCK, None, None).unwrap();
    let sealed = ec2.import(&hold, &b, 4 * BLOCK, Some(&key), None).unwrap();
    let mut c = a.clone();
    Dice(9).fill(&mut c[..BLOCK as usize]);
    let both = ec2.import(&hold, &c, 4 * BLOCK, None, None).unwrap();
    ec2.transact::<_, Ec2Error>(|state| {
        state
            .snapshots
            .insert(snapshot_id(1), snapshot(1, &both, None));
        state
            .snapshots
            .insert(snapshot_id(2), snapshot(2, &sealed, Some(&key)));
        Ok(())
    })
    .unwrap();
    drop(hold);
    assert_eq!(ec2.gc().unwrap().unwrap().blocks, 1);
    assert_eq!(ec2.reindex().unwrap(), Some(0));
    let db = rusqlite::Connection::open(ec2.path().join("state.sqlite")).unwrap();
    db.execute_batch("DELETE FROM blocks; DELETE FROM packs")
        .unwrap();
    drop(db);
    let error = ec2.verify(&both.map, None).unwrap_err();
    assert!(
        matches!(error, Ec2Error::NoBlock { index: 0, .. }),
        "{error}"
    );
    assert_eq!(
        ec2.reindex().unwrap(),
        Some(6),
        "all but the one that was collected"
    );
    assert_eq!(ec2.verify(&both.map, None).unwrap(), 4);
    assert_eq!(ec2.verify(&sealed.map, Some(&key)).unwrap(), 2);
    assert!(ec2.verify(&kept.map, None).is_err());
}
