//! kill -9 at random points of many verbs, and disks that are full: nothing that was there is lost, no snapshot lacks a block, and the
//! same command works afterwards.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use amiforge_store::{Home, Store};
use amiforge_testkit::{SmallDisk, finish, run, tool};
use serde_json::Value;

use super::Cloud;

/// Kills in a run; `AMIFORGE_TEST_KILLS` says another number.
const KILLS: usize = 240;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'t>(&mut self, texts: &'t [String]) -> Option<&'t String> {
        let count = u64::try_from(texts.len()).ok().filter(|n| *n > 0)?;
        texts.get(usize::try_from(self.roll(count)).ok()?)
    }
}

/// Every rule of a good state that the one of a store breaks.
fn broken_rules(home: &Path) -> Vec<String> {
    let store = Store::open(&Home::below(home)).unwrap();
    store.ec2().unwrap().read().unwrap().check()
}

/// Ids of images in a state.
fn images(cloud: &Cloud, state: &str) -> Vec<String> {
    let found = cloud.json("image list --json --include-disabled");
    let images = found["Images"].as_array().cloned().unwrap_or_default();
    images
        .iter()
        .filter(|i| i["State"] == state)
        .map(|i| i["ImageId"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs a command for a while; gives what it printed when it was done by then.
fn cut_short(mut command: Command, after: Duration) -> Option<String> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    let _ = child.kill();
    let end = child.wait_with_output().unwrap();
    end.status
        .success()
        .then(|| String::from_utf8_lossy(&end.stdout).trim().to_owned())
}

#[test]
fn commands_of_all_kinds_killed_at_any_point_lose_nothing() {
    let kills = std::env::var("AMIFORGE_TEST_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let seed = match std::env::var("AMIFORGE_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.unwrap().subsec_nanos().into()
        }
    };
    // Shown when the test fails.
    writeln!(std::io::stderr(), "AMIFORGE_TEST_SEED={seed}").unwrap();
    let mut dice = Dice(seed);
    let cloud = Cloud::new();
    let golden = cloud.image("golden");
    let disk = cloud.env().path("Hang.raw");
    let instance = cloud.ok(&format!("run {golden} --instance-type t2.micro"));
    cloud.ok(&format!(
        "instance wait {instance} --timeout 120 --console up"
    ));
    cloud.ok(&format!("instance stop --force {instance}"));
    let found = cloud.json(&format!("instance list {instance} --json"));
    let volume =
        found["Reservations"][0]["Instances"][0]["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
            .as_str()
            .unwrap()
            .to_owned();

    // What a command has said that there is, has to be there until another one was asked to take it away.
    let mut known: BTreeSet<String> = [golden.clone()].into();
    let mut longest = Duration::from_millis(100);
    let mut whole = 0;
    for n in 0..kills {
        let others: Vec<String> = known.iter().filter(|i| **i != golden).cloned().collect();
        let verb = dice.roll(20);
        let line = match verb {
            0..=2 => format!(
                "image register --disk {} --name disk-{n} --boot-mode legacy-bios",
                disk.display()
            ),
            3..=4 => format!("image copy {golden} --name plain-{n}"),
            5..=8 => format!("image copy {golden} --name sealed-{n} --encrypted"),
            9..=10 => format!("instance create-image {instance} --name of-{n}"),
            11 => format!("image share {golden} --to 111122223333 --with-snapshots"),
            12 => format!("image unshare {golden} --to 111122223333"),
            13..=14 => match dice.pick(&others) {
                Some(image) => {
                    known.remove(image);
                    format!("image deregister {image} --delete-associated-snapshots")
                }
                None => "snapshot gc".to_owned(),
            },
            15 => "snapshot gc".to_owned(),
            16 => format!("snapshot create {volume}"),
            17 => "volume create --size 1 --encrypted".to_owned(),
            18 if n % 4 == 0 => format!("run {golden} --instance-type t2.micro"),
            _ => format!("instance start {instance}"),
        };
        let began = Instant::now();
        let limit = u64::try_from(longest.as_micros()).unwrap();
        let after = Duration::from_micros(dice.roll(limit));
        let done = cut_short(cloud.command(&line), after);
        whole += usize::from(done.is_some());
        let makes = ["image register", "image copy", "instance create-image"];
        if let Some(id) = done.filter(|_| makes.iter().any(|m| line.starts_with(m))) {
            // How long such a command takes here is learnt on the way.
            longest = longest.max(began.elapsed().min(Duration::from_millis(300)));
            known.insert(id);
        }
        if line.starts_with("run") || line.starts_with("instance start") {
            end_machines(&cloud, &instance, &mut dice);
        }
        if n % 10 == 9 {
            look(&cloud, &known, &line, n);
        }
    }
    look(&cloud, &known, "the last one", kills);
    // Some were done by then, and some were not.
    assert!(
        (kills / 10..kills * 9 / 10).contains(&whole),
        "{whole} of {kills}"
    );
    assert_eq!(images(&cloud, "pending"), [] as [&str; 0]);

    // Whoever comes afterwards has nothing to do with it.
    cloud.ok("snapshot gc");
    let left = |dir: &str| {
        let path = cloud.env().state().join("store/v1/ec2").join(dir);
        fs_err::read_dir(path).unwrap().count()
    };
    assert_eq!(left("making"), 0);
    let listed = cloud.json("volume list --json")["Volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|v| v["State"] != "error")
        .count();
    assert!(left("volumes") >= listed, "every volume has its folder");
    cloud.ok(&format!("image copy {golden} --name last --encrypted"));
    cloud.ok(&format!("instance create-image {instance} --name of-last"));
    cloud.ok("snapshot verify");
}

/// Ends what a start that was killed may have left running: with a command that is killed, and then one that is not.
fn end_machines(cloud: &Cloud, kept: &str, dice: &mut Dice) {
    let found = cloud.json("instance list --json");
    let ids: Vec<(String, String)> = found["Reservations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| &r["Instances"][0])
        .map(|i| {
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            (text(&i["InstanceId"]), text(&i["State"]["Name"]))
        })
        .filter(|(_, state)| state != "terminated")
        .collect();
    for (id, _) in ids {
        let verb = if id == kept { "stop" } else { "terminate" };
        let line = format!("instance {verb} --force {id}");
        cut_short(
            cloud.command(&line),
            Duration::from_micros(dice.roll(60_000)),
        );
        let until = Instant::now() + Duration::from_secs(60);
        // The start of a command that was killed goes on in the process of the instance.
        while finish(&mut cloud.command(&line)).code() != 0 {
            assert!(Instant::now() < until, "{line}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn look(cloud: &Cloud, known: &BTreeSet<String>, line: &str, n: usize) {
    let there: BTreeSet<String> = images(cloud, "available").into_iter().collect();
    let lost: Vec<_> = known.difference(&there).collect();
    assert!(lost.is_empty(), "{n}: {lost:?} are lost after {line}");
    let bad = broken_rules(&cloud.env().state());
    assert!(bad.is_empty(), "{n}: after {line}: {bad:#?}");
    let end = finish(&mut cloud.command("snapshot verify"));
    assert_eq!(end.code(), 0, "{n}: after {line}: {end}");
}

/// A disk with some content that nothing else has.
fn noise(cloud: &Cloud, name: &str, mib: u32) -> String {
    let path = cloud.env().path(name);
    run(tool("dd")
        .args([
            "if=/dev/urandom",
            "bs=1M",
            &format!("count={mib}"),
            "status=none",
        ])
        .arg(format!("of={}", path.display())));
    path.display().to_string()
}

#[test]
fn a_full_disk_loses_nothing_and_the_same_command_works_with_room() {
    const ROOM: u64 = 64 << 20;
    let cloud = Cloud::new();
    let small = SmallDisk::new(ROOM);
    let on_small = |line: &str| {
        let mut command = cloud.command(line);
        command.env("AMIFORGE_HOME", small.path());
        command
    };
    let ok = |line: &str| {
        let end = finish(&mut on_small(line)).expect_code(0);
        end.text().trim().to_owned()
    };
    let first = ok(&format!(
        "image register --disk {} --name first",
        noise(&cloud, "first.raw", 6)
    ));
    let instance = ok(&format!("run {first} --instance-type t2.micro"));
    ok(&format!("instance stop --force {instance}"));
    let snapshots = ok("snapshot list --json");
    let used = ROOM - small.free();

    let second = noise(&cloud, "second.raw", 6);
    let lines = [
        format!("image register --disk {second} --name second"),
        format!("image copy {first} --name sealed --encrypted"),
        format!("instance create-image {instance} --name of-ROOM --no-reboot"),
        "volume create --size 1 --encrypted".to_owned(),
    ];
    // No room at all, room for a record, and room for a part of the blocks.
    for room in [0, 64 << 10, 256 << 10, 3 << 20] {
        small.resize(used + (24 << 20));
        let ballast = small.path().join("ballast");
        for (at, line) in lines.iter().enumerate() {
            let spare = small.free().saturating_sub(room);
            run(tool("dd")
                .args(["if=/dev/zero", "bs=4k", "status=none"])
                .arg(format!("count={}", spare / 4096))
                .arg(format!("of={}", ballast.display())));
            // What has room leaves an image of its name.
            let line = &line.replace("ROOM", &room.to_string());
            let end = finish(&mut on_small(line));
            // What needs little has its room.
            if end.code() != 0 {
                let text = &end.stderr;
                let full = text.contains("No space left") || text.contains("is full");
                assert!(full && text.contains("make room"), "{line}, {room}: {end}");
            } else {
                assert!(
                    room > 0 && at > 1,
                    "{line} found room on a disk with {room}"
                );
            }
            finish(&mut on_small("snapshot verify")).expect_code(0);
            let state = ok(&format!("image show {first}"));
            assert!(state.contains("\"available\""), "{state}");
            fs_err::remove_file(&ballast).unwrap();
            assert_eq!(
                broken_rules(small.path()),
                [] as [&str; 0],
                "{line}, {room}"
            );
            // What the failed one left is nobody's.
            ok("snapshot gc");
        }
    }
    for line in &lines[..2] {
        let id = ok(line);
        assert!(ok(&format!("image show {id}")).contains("\"available\""));
    }
    let made = ok(&format!("instance create-image {instance} --name again"));
    assert!(made.starts_with("ami-"));
    ok("snapshot verify");
    let before: Value = serde_json::from_str(&snapshots).unwrap();
    let now: Value = serde_json::from_str(&ok("snapshot list --json")).unwrap();
    let kept = &before["Snapshots"][0];
    let now = now["Snapshots"].as_array().unwrap();
    assert!(now.contains(kept), "{kept} is as it was");
    ok(&format!("instance terminate --force {instance}"));
}
