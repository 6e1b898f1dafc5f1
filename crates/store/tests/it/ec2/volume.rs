//! Volumes against a model in memory.

use amiforge_store::ec2::{Check, DataKey, Ec2Error, VolumeBase, VolumeFile};
use amiforge_types::{Digest, ReadAt as _};

use super::{
    BLOCK, Dice, GRAIN, Place, content, content_of_data, data_key, files_with, snapshot,
    snapshot_id, volume, volume_id,
};

/// What a volume should hold.
struct Model {
    bytes: Vec<u8>,
    dice: Dice,
}

impl Model {
    /// A range, mostly small, often at borders.
    fn range(&mut self) -> (u64, u64) {
        let size = self.bytes.len() as u64;
        let unit = [1, 512, GRAIN, BLOCK][self.dice.below(4) as usize];
        let mut offset = self.dice.below(size / unit) * unit;
        if self.dice.below(4) == 0 {
            offset += self.dice.below(1000);
        }
        let longest = [100, 3 * GRAIN, BLOCK / 3, 3 * BLOCK][self.dice.below(4) as usize];
        let mut len = self.dice.below(longest);
        if self.dice.below(2) == 0 {
            len = len / unit * unit;
        }
        let offset = offset.min(size);
        (offset, len.min(size - offset))
    }

    fn slice(&mut self, (offset, len): (u64, u64)) -> &mut [u8] {
        &mut self.bytes[offset as usize..][..len as usize]
    }

    fn change(&mut self, volume: &VolumeFile) {
        let range = self.range();
        if self.dice.below(3) == 0 {
            volume.zero_at(range.0, range.1).unwrap();
            self.slice(range).fill(0);
        } else {
            let new = self.dice.bytes(range.1);
            volume.write_at(&new, range.0).unwrap();
            self.slice(range).copy_from_slice(&new);
        }
    }

    fn look(&mut self, volume: &VolumeFile) {
        let range = self.range();
        let mut buf = vec![0x5a; range.1 as usize];
        volume.read_at(&mut buf, range.0).unwrap();
        assert!(buf == *self.slice(range), "{range:?}");
    }
}

fn against_the_model(seed: u64, base: bool, base_sealed: bool, sealed: bool) {
    // One of them on a disk.
    let place = if seed.is_multiple_of(10) {
        Place::new()
    } else {
        Place::fast()
    };
    let ec2 = &place.ec2;
    let key = sealed.then(|| data_key(ec2, 1));
    let base_key = if base_sealed {
        Some(data_key(ec2, 2))
    } else {
        None
    };
    let base_key: Option<&DataKey> = base_key.as_ref();
    let mut dice = Dice(seed);
    // The base is smaller than the volume, and ends within a block.
    let mut old = dice.bytes(5 * BLOCK + 12 * GRAIN);
    old[BLOCK as usize..2 * BLOCK as usize].fill(0);
    let hold = ec2.hold().unwrap();
    let info = ec2
        .import(&hold, &old, old.len() as u64, base_key, None)
        .unwrap();
    let size = 7 * BLOCK + 5 * GRAIN;
    let start = base.then_some(VolumeBase {
        map: info.map,
        key: base_key,
    });
    let mut file = ec2
        .create_volume(&hold, &volume_id(1), size, start, key.as_ref())
        .unwrap();
    ec2.transact::<_, Ec2Error>(|state| {
        let encryption = key.as_ref().map(|key| key.encryption().clone());
        state.volumes.insert(volume_id(1), volume(1, encryption));
        Ok(())
    })
    .unwrap();
    drop(hold);
    let mut bytes = if base { old } else { Vec::new() };
    bytes.resize(size as usize, 0);
    let mut model = Model { bytes, dice };
    let mut snapshots: Vec<(Digest, Vec<u8>)> = Vec::new();
    for step in 0..80 {
        match model.dice.below(20) {
            0..9 => model.change(&file),
            9..16 => model.look(&file),
            16 => file.flush().unwrap(),
            17 => {
                file.flush().unwrap();
                drop(file);
                file = ec2.open_volume(&volume_id(1)).unwrap();
                assert!(content(&file) == model.bytes, "step {step}");
                assert!(content_of_data(&file) == model.bytes, "step {step}");
            }
            18 => {
                let hold = ec2.hold().unwrap();
                let stored = file.snapshot(&hold).unwrap();
                // Sometimes what comes after it goes wrong.
                let record = model.dice.below(4) > 0;
                if record {
                    ec2.transact::<_, Ec2Error>(|state| {
                        let new = snapshot(step, &stored.info, key.as_ref());
                        state.snapshots.insert(snapshot_id(step), new);
                        Ok(())
                    })
                    .unwrap();
                    snapshots.push((stored.info.map, model.bytes.clone()));
                    model.change(&file);
                    file.rebase(&hold, &stored).unwrap();
                }
            }
            _ => {
                ec2.gc().unwrap().unwrap();
            }
        }
    }
    assert!(content(&file) == model.bytes);
    for (map, bytes) in &snapshots {
        let reader = ec2.open(map, key.as_ref(), Check::FirstRead).unwrap();
        assert!(content(&reader) == *bytes);
    }
    drop(file);
    ec2.gc().unwrap().unwrap();
    ec2.remove_volume(&volume_id(1)).unwrap();
    for (map, _) in &snapshots {
        ec2.verify(map, key.as_ref()).unwrap();
    }
}

#[test]
fn a_new_volume_does_what_the_model_does() {
    for seed in 0..2 {
        against_the_model(seed, false, false, false);
        against_the_model(seed + 10, false, false, true);
    }
}

#[test]
fn a_volume_of_a_snapshot_does_what_the_model_does() {
    for seed in 0..2 {
        against_the_model(seed + 20, true, false, false);
        against_the_model(seed + 30, true, true, true);
    }
}

#[test]
fn base_and_volume_may_be_encrypted_differently() {
    for seed in 0..2 {
        against_the_model(seed + 40, true, false, true);
        against_the_model(seed + 50, true, true, false);
    }
}

#[test]
fn a_second_snapshot_costs_what_changed() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let data = Dice(1).bytes(20 * BLOCK);
    let base = ec2.import(&hold, &data, 20 * BLOCK, None, None).unwrap();
    let start = VolumeBase {
        map: base.map,
        key: None,
    };
    let file = ec2
        .create_volume(&hold, &volume_id(1), 30 * BLOCK, Some(start), None)
        .unwrap();
    let cost = |file: &VolumeFile| {
        let stored = file.snapshot(&hold).unwrap();
        file.rebase(&hold, &stored).unwrap();
        let info = stored.info;
        (info.blocks, info.changed, info.stored)
    };
    file.write_at(&[7; 100], 3 * BLOCK + 5).unwrap();
    file.write_at(&[8; 100], 25 * BLOCK - 50).unwrap();
    file.zero_at(5 * BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(cost(&file), (20, 5, 3));
    assert_eq!(cost(&file), (20, 0, 0), "nothing since");
    file.write_at(b"x", 0).unwrap();
    assert_eq!(cost(&file), (20, 1, 1));
    // The same bytes again are no change, though they were written.
    file.write_at(&data[10 * BLOCK as usize..][..GRAIN as usize], 10 * BLOCK)
        .unwrap();
    assert_eq!(cost(&file), (20, 0, 0));
    // To discard what is not there costs nothing, either.
    file.zero_at(28 * BLOCK, BLOCK).unwrap();
    assert_eq!(cost(&file), (20, 0, 0));
    let held = ec2.volume_info(&volume_id(1)).unwrap();
    assert_eq!(held.bytes, 30 * BLOCK);
    assert!(held.stored_bytes < 64 << 10, "{}", held.stored_bytes);
}

#[test]
fn a_flush_covers_all_layers_and_nothing_else_is_durable() {
    let place = Place::fast();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let base = Dice(1).bytes(2 * BLOCK);
    let info = ec2.import(&hold, &base, 2 * BLOCK, None, None).unwrap();
    let start = VolumeBase {
        map: info.map,
        key: None,
    };
    let file = ec2
        .create_volume(&hold, &volume_id(1), 2 * BLOCK, Some(start), None)
        .unwrap();
    file.write_at(&[1; 100], 50).unwrap();
    // Two snapshots that come to nothing: the first write is two layers down.
    file.snapshot(&hold).unwrap();
    file.write_at(&[2; 100], BLOCK).unwrap();
    file.snapshot(&hold).unwrap();
    file.write_at(&[3; 100], 3 * GRAIN).unwrap();
    file.flush().unwrap();
    file.write_at(&[4; 100], 9 * GRAIN).unwrap();
    // To drop it is to pull the plug.
    drop(file);
    let mut want = base;
    want[50..150].fill(1);
    want[BLOCK as usize..BLOCK as usize + 100].fill(2);
    want[3 * GRAIN as usize..3 * GRAIN as usize + 100].fill(3);
    let file = place.again().open_volume(&volume_id(1)).unwrap();
    assert!(
        content(&file) == want,
        "the last write is lost, the base is not"
    );
}

#[test]
fn writing_goes_on_while_a_snapshot_is_made() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let size = 64 * BLOCK;
    let file = ec2
        .create_volume(&hold, &volume_id(1), size, None, None)
        .unwrap();
    // Each thread counts upwards in its own part, one grain after the other: a snapshot has to be a prefix of what it wrote.
    let grains = size / GRAIN / 4;
    std::thread::scope(|scope| {
        for part in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for n in 0..grains {
                    let stamp = vec![1 + (n % 251) as u8; GRAIN as usize];
                    file.write_at(&stamp, (part * grains + n) * GRAIN).unwrap();
                }
            });
        }
        for _ in 0..5 {
            let stored = file.snapshot(&hold).unwrap();
            file.rebase(&hold, &stored).unwrap();
            let reader = ec2.open(&stored.info.map, None, Check::FirstRead).unwrap();
            let bytes = content(&reader);
            for part in bytes.chunks((grains * GRAIN) as usize) {
                let stamps: Vec<u8> = part.chunks(GRAIN as usize).map(|g| g[0]).collect();
                let written = stamps.iter().take_while(|s| **s != 0).count();
                assert!(
                    stamps[written..].iter().all(|s| *s == 0),
                    "a hole in what was written"
                );
                for (n, stamp) in stamps[..written].iter().enumerate() {
                    assert_eq!(usize::from(*stamp), 1 + n % 251);
                }
            }
        }
    });
    let bytes = content(&file);
    assert!(bytes.chunks(GRAIN as usize).enumerate().all(|(n, g)| {
        let want = 1 + (n as u64 % grains % 251) as u8;
        g.iter().all(|b| *b == want)
    }));
}

#[test]
fn threads_share_a_grain() {
    for sealed in [false, true] {
        let place = Place::new();
        let ec2 = &place.ec2;
        let key = sealed.then(|| data_key(ec2, 1));
        let hold = ec2.hold().unwrap();
        let file = ec2
            .create_volume(&hold, &volume_id(1), BLOCK, None, key.as_ref())
            .unwrap();
        std::thread::scope(|scope| {
            for sector in 0..8u8 {
                let file = &file;
                scope.spawn(move || {
                    let at = u64::from(sector) * 512;
                    let mut back = [0; 512];
                    for round in 0..200u8 {
                        let new = [round ^ sector; 512];
                        file.write_at(&new, at).unwrap();
                        file.read_at(&mut back, at).unwrap();
                        assert!(
                            back == new,
                            "what another thread writes beside it is not seen"
                        );
                        if round % 50 == 49 && sector == 0 {
                            file.flush().unwrap();
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn nothing_of_an_encrypted_volume_lies_in_the_open() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let key = data_key(ec2, 1);
    let hold = ec2.hold().unwrap();
    let file = ec2
        .create_volume(&hold, &volume_id(1), 8 * BLOCK, None, Some(&key))
        .unwrap();
    let pattern = b"attack at dawn, and bring the good biscuits";
    for n in 0..500 {
        file.write_at(pattern, n * 8001).unwrap();
    }
    let whole: Vec<u8> = pattern
        .iter()
        .copied()
        .cycle()
        .take(BLOCK as usize)
        .collect();
    file.write_at(&whole, 5 * BLOCK).unwrap();
    file.flush().unwrap();
    assert_eq!(
        files_with(place.dir.path(), pattern),
        Vec::<std::path::PathBuf>::new()
    );
    let stored = file.snapshot(&hold).unwrap();
    assert_eq!(
        files_with(place.dir.path(), pattern),
        Vec::<std::path::PathBuf>::new()
    );
    file.rebase(&hold, &stored).unwrap();
    file.write_at(b"!", 5 * BLOCK + 1).unwrap();
    assert_eq!(
        files_with(place.dir.path(), pattern),
        Vec::<std::path::PathBuf>::new()
    );
    // In the open it would be found.
    let plain = ec2
        .create_volume(&hold, &volume_id(2), BLOCK, None, None)
        .unwrap();
    plain.write_at(pattern, 100_000).unwrap();
    assert_eq!(files_with(place.dir.path(), pattern).len(), 1);
}

#[test]
fn a_volume_is_open_once_and_sizes_are_checked() {
    let place = Place::new();
    let ec2 = &place.ec2;
    let hold = ec2.hold().unwrap();
    let base = ec2
        .import(&hold, &Dice(1).bytes(2 * BLOCK), 2 * BLOCK, None, None)
        .unwrap();
    let start = Some(VolumeBase {
        map: base.map,
        key: None,
    });
    for bytes in [0, 100, 4097, 1 << 50] {
        let made = ec2.create_volume(&hold, &volume_id(1), bytes, None, None);
        assert!(matches!(made, Err(Ec2Error::Size { .. })), "{bytes}");
    }
    let made = ec2.create_volume(&hold, &volume_id(1), BLOCK, start, None);
    assert!(matches!(made, Err(Ec2Error::Size { .. })));
    let file = ec2
        .create_volume(&hold, &volume_id(1), 2 * BLOCK, start, None)
        .unwrap();
    let again = ec2.create_volume(&hold, &volume_id(1), BLOCK, None, None);
    assert!(matches!(again, Err(Ec2Error::VolumeExists(_))));
    for ec2 in [ec2.clone(), place.again()] {
        assert!(matches!(
            ec2.open_volume(&volume_id(1)),
            Err(Ec2Error::VolumeInUse(_))
        ));
        assert!(matches!(
            ec2.remove_volume(&volume_id(1)),
            Err(Ec2Error::VolumeInUse(_))
        ));
        assert!(matches!(
            ec2.open_volume(&volume_id(2)),
            Err(Ec2Error::NoVolume { .. })
        ));
    }
    let eof = |e: std::io::Result<()>| e.unwrap_err().kind() == std::io::ErrorKind::UnexpectedEof;
    assert!(eof(file.read_at(&mut [0; 2], 2 * BLOCK - 1)));
    assert!(eof(file.write_at(&[0; 2], 2 * BLOCK - 1)));
    assert!(eof(file.zero_at(u64::MAX, 2)));
    file.write_at(&[], 2 * BLOCK).unwrap();
    assert_eq!(file.size(), 2 * BLOCK);
    drop(file);
    // Without a record it is garbage, unless somebody has it open.
    drop(hold);
    let file = ec2.open_volume(&volume_id(1)).unwrap();
    let done = ec2.gc().unwrap().unwrap();
    assert_eq!((done.volumes, done.maps), (0, 0));
    drop(file);
    let done = ec2.gc().unwrap().unwrap();
    assert_eq!((done.volumes, done.maps, done.blocks), (1, 1, 2));
    ec2.remove_volume(&volume_id(1)).unwrap();
    assert_eq!(ec2.volumes().unwrap(), []);
}
