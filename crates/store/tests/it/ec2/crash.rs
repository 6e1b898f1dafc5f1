//! kill -9 at random points: a worker writes, flushes, makes snapshots, imports, changes records and collects garbage until it
//! is killed; then everything that is left is compared with what may be left.
//!
//! Each operation follows from its number, so that this process knows what the other one did.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use amiforge_ami::SnapshotId;
use amiforge_ami::ec2::Snapshot;
use amiforge_store::ec2::{Check, DataKey, Ec2, Ec2Error, VolumeFile};
use amiforge_testkit::Running;

use super::{BLOCK, Dice, GRAIN, content, key_id, open, snapshot, snapshot_id, volume, volume_id};

const NAME: &str = "ec2::crash::whatever_is_killed_leaves_old_or_new";
const ROUNDS: u64 = 200;
const BYTES: u64 = 10 * BLOCK;
const GRAINS: u64 = BYTES / GRAIN;
/// Volume 1 lies in the open, volume 2 is encrypted.
const VOLUMES: std::ops::RangeInclusive<u64> = 1..=2;

/// What a number stands for.
#[derive(Debug)]
enum Step {
    /// Volume, first grain, how many.
    Write(u64, u64, u64),
    Zero(u64, u64, u64),
    Flush(u64),
    /// Volume, and whether it is rebased.
    Snapshot(u64, bool),
    Import,
    Delete(u64),
    Records,
    Collect,
}

fn step(number: u64) -> Step {
    let mut dice = Dice(number * 1_000_003);
    let volume = 1 + dice.below(2);
    let grain = dice.below(GRAINS);
    let longest = [3, 40, 300][usize::try_from(dice.below(3)).unwrap()];
    let count = 1 + dice.below(longest);
    let count = count.min(GRAINS - grain);
    match dice.below(20) {
        0..8 => Step::Write(volume, grain, count),
        8..10 => Step::Zero(volume, grain, count),
        10..12 => Step::Flush(volume),
        12..15 => Step::Snapshot(volume, dice.below(4) > 0),
        15 => Step::Import,
        16..18 => Step::Delete(dice.next()),
        18 => Step::Records,
        _ => Step::Collect,
    }
}

/// What a write puts into a grain: the same word all over.
fn stamp(number: u64, grain: u64) -> u64 {
    number << 16 | (grain + 1)
}

fn import_data(number: u64) -> Vec<u8> {
    let mut data = Dice(number % 7).bytes(2 * BLOCK);
    data.extend(Dice(number).bytes(BLOCK));
    data
}

fn data_key(ec2: &Ec2) -> DataKey {
    let state = ec2.read().unwrap();
    let encryption = state.volumes[&volume_id(2)].encryption.clone();
    ec2.open_data_key(&encryption.unwrap()).unwrap()
}

#[test]
fn whatever_is_killed_leaves_old_or_new() {
    if let Some(home) = std::env::var_os("EC2_CRASH_HOME") {
        let first = std::env::var("EC2_CRASH_FIRST").unwrap().parse().unwrap();
        return work(Path::new(&home), first);
    }
    let dir = super::fast_dir();
    let home = dir.path();
    set_up(home);
    let mut parent = Parent {
        models: VOLUMES
            .map(|v| (v, vec![0; usize::try_from(GRAINS).unwrap()]))
            .collect(),
        snapshots: BTreeMap::new(),
        next: 1,
        flushed: BTreeMap::new(),
    };
    let mut dice = Dice(99);
    for round in 0..ROUNDS {
        let log = home.join("log");
        std::fs::write(&log, "").unwrap();
        let child = Running::spawn(
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env("EC2_CRASH_HOME", home)
                .env("EC2_CRASH_FIRST", parent.next.to_string()),
        );
        // Some do not even come to their first step: opening recovers what the one before left.
        let mut patience = Duration::from_secs(60);
        while round % 4 > 0 && std::fs::metadata(&log).unwrap().len() == 0 {
            let tick = Duration::from_millis(1);
            std::thread::sleep(tick);
            patience = patience.checked_sub(tick).expect("a first step");
        }
        std::thread::sleep(Duration::from_micros(dice.below(25_000)));
        child.kill9();
        let text = std::fs::read_to_string(&log).unwrap();
        parent.check(&open(home), &text, round);
    }
    let kinds = parent.next;
    assert!(
        kinds > ROUNDS,
        "the workers came to something: {kinds} steps"
    );
}

fn set_up(home: &Path) {
    let ec2 = open(home);
    let hold = ec2.hold().unwrap();
    ec2.keys().create(&key_id(1)).unwrap();
    let key = ec2.generate_data_key(&hold, &key_id(1)).unwrap();
    for (v, key) in [(1, None), (2, Some(&key))] {
        ec2.create_volume(&hold, &volume_id(v), BYTES, None, key)
            .unwrap();
        ec2.transact::<_, Ec2Error>(|state| {
            let encryption = key.map(|key| key.encryption().clone());
            state.volumes.insert(volume_id(v), volume(v, encryption));
            Ok(())
        })
        .unwrap();
    }
}

/// The process that is killed.
fn work(home: &Path, first: u64) {
    let ec2 = open(home);
    let key = data_key(&ec2);
    let files = VOLUMES.map(|v| (v, ec2.open_volume(&volume_id(v)).unwrap()));
    let files: BTreeMap<u64, VolumeFile> = files.collect();
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(home.join("log"))
        .unwrap();
    for number in first.. {
        log.write_all(format!("begin {number}\n").as_bytes())
            .unwrap();
        match step(number) {
            Step::Write(v, grain, count) => {
                let words = (grain..grain + count).flat_map(|g| [stamp(number, g); 512]);
                let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
                files[&v].write_at(&bytes, grain * GRAIN).unwrap();
            }
            Step::Zero(v, grain, count) => files[&v].zero_at(grain * GRAIN, count * GRAIN).unwrap(),
            Step::Flush(v) => {
                files[&v].flush().unwrap();
                log.write_all(format!("flushed {number} {v}\n").as_bytes())
                    .unwrap();
            }
            Step::Snapshot(v, rebase) => {
                let hold = ec2.hold().unwrap();
                let key = (v == 2).then_some(&key);
                let stored = files[&v].snapshot(&hold).unwrap();
                put(
                    &ec2,
                    number,
                    &format!("volume {v}"),
                    snapshot(number, &stored.info, key),
                );
                if rebase {
                    files[&v].rebase(&hold, &stored).unwrap();
                }
            }
            Step::Import => {
                let hold = ec2.hold().unwrap();
                let info = ec2
                    .import(&hold, &import_data(number), BYTES, None, None)
                    .unwrap();
                put(&ec2, number, "import", snapshot(number, &info, None));
            }
            Step::Delete(which) => ec2
                .transact::<_, Ec2Error>(|state| {
                    // Four stay, so that there is something to check.
                    let ids: Vec<SnapshotId> = state.snapshots.keys().cloned().collect();
                    if ids.len() > 4 {
                        let at = usize::try_from(which % ids.len() as u64).unwrap();
                        state.snapshots.remove(&ids[at]);
                    }
                    Ok(())
                })
                .unwrap(),
            Step::Records => ec2
                .transact::<_, Ec2Error>(|state| {
                    let size = u32::try_from(number).unwrap();
                    state
                        .volumes
                        .values_mut()
                        .for_each(|volume| volume.size = size);
                    Ok(())
                })
                .unwrap(),
            Step::Collect => {
                ec2.gc().unwrap().unwrap();
            }
        }
    }
}

fn put(ec2: &Ec2, number: u64, of: &str, mut record: Snapshot) {
    record.description = Some(format!("{of} {number}"));
    ec2.transact::<_, Ec2Error>(|state| {
        state.snapshots.insert(snapshot_id(number), record);
        Ok(())
    })
    .unwrap();
}

/// The process that kills, with all that it knows.
struct Parent {
    /// By volume, the word of each grain.
    models: BTreeMap<u64, Vec<u64>>,
    /// What each snapshot has to hold.
    snapshots: BTreeMap<SnapshotId, Vec<u64>>,
    next: u64,
    /// The last flush of this round, by volume.
    flushed: BTreeMap<u64, u64>,
}

/// The word of each grain; a grain with several is torn.
fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |g: &[u8]| u64::from_le_bytes(g[..8].try_into().unwrap());
    let grains = bytes.chunks(usize::try_from(GRAIN).unwrap());
    grains
        .map(|g| {
            assert!(g.chunks(8).all(|w| w == &g[..8]), "a torn grain");
            word(g)
        })
        .collect()
}

impl Parent {
    fn check(&mut self, ec2: &Ec2, log: &str, round: u64) {
        self.flushed.clear();
        let mut last = self.next;
        for line in log.lines() {
            let mut fields = line.split(' ');
            match (fields.next(), fields.next(), fields.next()) {
                (Some("begin"), Some(n), _) => last = n.parse().unwrap(),
                (Some("flushed"), Some(n), Some(v)) => {
                    self.flushed.insert(v.parse().unwrap(), n.parse().unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        self.learn_snapshots(last);
        let state = ec2.read().unwrap();
        let sizes: Vec<u32> = state.volumes.values().map(|v| v.size).collect();
        assert!(
            sizes.iter().all(|size| *size == sizes[0]),
            "half a transaction: {sizes:?}"
        );
        let key = data_key(ec2);
        for v in VOLUMES {
            let file = ec2
                .open_volume(&volume_id(v))
                .unwrap_or_else(|e| panic!("round {round}: {e}"));
            let found = words(&content(&file));
            self.check_volume(v, &found, last);
            self.models.insert(v, found);
        }
        let collect = round % 8 == 7;
        if collect {
            ec2.gc().unwrap().unwrap();
        }
        for (id, record) in &state.snapshots {
            let key = record.encryption.as_ref().map(|_| &key);
            let of = record.description.clone().unwrap();
            let reader = ec2.open(&record.map.unwrap(), key, Check::FirstRead);
            let reader = reader.unwrap_or_else(|e| panic!("round {round}, {of}: {e}"));
            // All that is new is compared, and all after a collection.
            let number: u64 = of.rsplit(' ').next().unwrap().parse().unwrap();
            if number < self.next && !collect {
                continue;
            }
            let bytes = content(&reader);
            if of.starts_with("import") {
                let data = import_data(number);
                assert!(bytes[..data.len()] == data, "round {round}, {of}");
            } else {
                assert!(words(&bytes) == self.snapshots[id], "round {round}, {of}");
            }
        }
        if collect {
            self.check_order(ec2);
        }
        self.next = last + 1;
    }

    /// What the snapshots of this round have to hold.
    fn learn_snapshots(&mut self, last: u64) {
        let mut models = self.models.clone();
        for number in self.next..=last {
            match step(number) {
                Step::Write(v, grain, count) => {
                    for g in grain..grain + count {
                        models.get_mut(&v).unwrap()[usize::try_from(g).unwrap()] = stamp(number, g);
                    }
                }
                Step::Zero(v, grain, count) => {
                    let range =
                        usize::try_from(grain).unwrap()..usize::try_from(grain + count).unwrap();
                    models.get_mut(&v).unwrap()[range].fill(0);
                }
                Step::Snapshot(v, _) => {
                    self.snapshots
                        .insert(snapshot_id(number), models[&v].clone());
                }
                _ => {}
            }
        }
    }

    /// Each grain is what the last flush made durable, or what was written to it since.
    fn check_volume(&self, v: u64, found: &[u64], last: u64) {
        let flushed = self.flushed.get(&v).copied().unwrap_or(0);
        let mut allowed: Vec<Vec<u64>> = self.models[&v].iter().map(|word| vec![*word]).collect();
        for number in self.next..=last {
            let (grains, zero) = match step(number) {
                Step::Write(of, grain, count) if of == v => (grain..grain + count, false),
                Step::Zero(of, grain, count) if of == v => (grain..grain + count, true),
                _ => continue,
            };
            for g in grains {
                let words = &mut allowed[usize::try_from(g).unwrap()];
                if number < flushed {
                    words.clear();
                }
                words.push(if zero { 0 } else { stamp(number, g) });
            }
        }
        for (g, (word, allowed)) in found.iter().zip(&allowed).enumerate() {
            assert!(
                allowed.contains(word),
                "volume {v}, grain {g}: {:?} instead of one of {:?}, flushed {flushed}",
                (word >> 16, word & 0xffff),
                allowed.iter().map(|w| w >> 16).collect::<Vec<_>>()
            );
        }
    }

    /// After a collection nothing is left over.
    fn check_order(&self, ec2: &Ec2) {
        let state = ec2.read().unwrap();
        let mut maps: std::collections::BTreeSet<_> =
            state.snapshots.values().filter_map(|s| s.map).collect();
        maps.extend(VOLUMES.filter_map(|v| ec2.volume_info(&volume_id(v)).unwrap().base));
        let usage = ec2.usage().unwrap();
        assert_eq!(usage.blocks, ec2.distinct_blocks(&maps).unwrap());
        let count = |dir: &str| std::fs::read_dir(ec2.path().join(dir)).unwrap().count() as u64;
        assert_eq!(count("maps"), maps.len() as u64);
        assert_eq!(count("packs"), 2 * usage.packs);
        // Holes are holes: each file has a page beside its blocks, its index, and what the file system rounds up.
        assert!(
            usage.pack_bytes <= usage.blocks * BLOCK + usage.packs * 64 * 1024,
            "{usage:?}"
        );
    }
}
