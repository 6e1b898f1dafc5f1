//! kill -9 while a build hands layers to a shared folder or takes them from it, and folders on disks that are too small:
//! other machines never meet anything half done, and lose nothing that was there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amiforge_testkit::{Env, Finished, Running, SmallDisk, finish};

use crate::kills::{build, image, nothing_is_left_in, random, recipe, told};
use crate::web::names;

/// Kills of each kind; `AMIFORGE_TEST_KILLS` says how many of both.
const KILLS: usize = 24;

/// Machines beside each other, and a writer whom all trust.
struct Machines {
    env: Env,
    recipe: PathBuf,
    key: PathBuf,
    writer: String,
}

impl Machines {
    fn new() -> Self {
        let env = Env::new();
        let recipe = recipe(&env);
        let home = env.path("home-writer");
        fs_err::create_dir_all(&home).unwrap();
        let mut command = env.amiforge();
        command
            .env("AMIFORGE_HOME", &home)
            .args(["cache", "key", "new"]);
        let writer = finish(&mut command).expect_code(0).text();
        Self {
            recipe,
            key: home.join("cache-key"),
            writer: writer.trim_end().to_owned(),
            env,
        }
    }

    fn home(&self, machine: &str) -> PathBuf {
        self.env.path(format!("home-{machine}"))
    }

    /// A build of `round` on `machine`, into `out-MACHINE`.
    fn command(&self, machine: &str, round: usize) -> std::process::Command {
        let out = format!("out-{machine}");
        let mut command = build(&self.env, &self.home(machine), &self.recipe, &out, round);
        command.arg("--events").arg(self.env.path("events"));
        let _ = fs_err::remove_file(self.env.path("events"));
        command
    }

    fn writes(&self, machine: &str, cache: &Path, round: usize) -> std::process::Command {
        let mut command = self.command(machine, round);
        command.arg("--cache-key").arg(&self.key);
        command.arg("--cache-to").arg(cache);
        command
    }

    fn reads(&self, machine: &str, cache: &Path, round: usize) -> std::process::Command {
        let mut command = self.command(machine, round);
        command.arg("--cache-from").arg(cache);
        command.args(["--cache-trust", &self.writer]);
        command
    }

    /// A machine that has nothing gets all of `layers` from the cache, unharmed, and the image's bytes are `expected`.
    #[track_caller]
    fn newcomer_finds(&self, cache: &Path, layers: &BTreeSet<String>, expected: &str) {
        let _ = fs_err::remove_dir_all(self.home("new"));
        let end = finish(&mut self.reads("new", cache, 0)).expect_code(0);
        assert!(!end.stderr.contains("warning"), "{end}");
        let fetched = told(&self.env.path("events"), "layer-fetched");
        assert!(
            layers.is_subset(&fetched),
            "{layers:?} of {fetched:?}\n{end}"
        );
        assert_eq!(image(&self.env, "out-new"), image(&self.env, expected));
        nothing_is_left_in(&self.home("new"));
    }
}

/// Layers that a folder has an entry of.
fn entries(cache: &Path) -> BTreeSet<String> {
    let dir = cache.join("v1/entries");
    let names = if dir.is_dir() { names(&dir) } else { vec![] };
    let ids = names.iter().filter_map(|name| {
        let id = name.strip_prefix("layer-")?.strip_suffix(".json")?;
        (!id.contains('.')).then(|| id.to_owned())
    });
    ids.collect()
}

#[track_caller]
fn wait_until_gone(env: &Env) {
    let until = Instant::now() + Duration::from_secs(10);
    while !env.processes().is_empty() {
        assert!(Instant::now() < until, "{:#?}", env.processes());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `command` and kills it after a random part of `longest`.
fn killed(command: &mut std::process::Command, longest: Duration, state: &mut u64) -> Finished {
    let running = Running::spawn(command);
    std::thread::sleep(longest.mul_f64((random(state) % 1100) as f64 / 1000.0));
    match random(state) % 2 {
        0 => running.kill9(),
        _ => running.kill9_group(),
    }
}

#[test]
fn kill_9_of_writers_and_readers_leaves_a_shared_folder_whole() {
    let machines = Machines::new();
    let env = &machines.env;
    let kills = std::env::var("AMIFORGE_TEST_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    finish(&mut machines.command("alone", 0)).expect_code(0);
    let timing = env.path("timing");
    let wrote = finish(&mut machines.writes("timed", &timing, 0)).expect_code(0);
    let layers = entries(&timing);
    assert_eq!(layers.len(), 4, "{wrote}");
    let read = finish(&mut machines.reads("read", &timing, 0)).expect_code(0);

    let (mut state, mut dead) = (0x2545_f491_4f6c_dd1d, 0);
    let cache = env.path("cache");
    let mut there = BTreeSet::new();
    for number in 0..kills / 2 {
        // Each writer begins anew, now and then over a folder that has nothing: handing over is most of what it does.
        if number % 4 == 0 {
            let _ = fs_err::remove_dir_all(&cache);
            there.clear();
        }
        let _ = fs_err::remove_dir_all(machines.home("writing"));
        let mut command = machines.writes("writing", &cache, 0);
        let end = killed(&mut command, wrote.took, &mut state);
        dead += usize::from(end.code() == 128 + 9);
        wait_until_gone(env);
        assert!(!end.stderr.contains("warning"), "{end}");
        // What was there stays, and what was said to be handed over is.
        let shared = told(&env.path("events"), "layer-shared");
        let now = entries(&cache);
        assert!(there.is_subset(&now), "{there:?} of {now:?}\n{end}");
        assert!(shared.is_subset(&now), "{shared:?} of {now:?}\n{end}");
        there = now;
        if cache.is_dir() {
            machines.newcomer_finds(&cache, &there, "out-alone");
        }
    }
    // The next writer that is let alone leaves a whole folder, with nothing half done in it.
    let end = finish(&mut machines.writes("last", &cache, 0)).expect_code(0);
    assert!(!end.stderr.contains("warning"), "{end}");
    machines.newcomer_finds(&cache, &layers, "out-alone");

    for _ in 0..kills / 2 {
        let _ = fs_err::remove_dir_all(machines.home("reading"));
        let mut command = machines.reads("reading", &cache, 0);
        let end = killed(&mut command, read.took, &mut state);
        dead += usize::from(end.code() == 128 + 9);
        wait_until_gone(env);
        let fetched = told(&env.path("events"), "layer-fetched");
        // What was fetched is the machine's own; the rest is fetched now.
        let end = finish(&mut machines.reads("reading", &cache, 0)).expect_code(0);
        assert!(!end.stderr.contains("warning"), "{end}");
        let rest = told(&env.path("events"), "layer-fetched");
        assert!(rest.is_disjoint(&fetched), "{fetched:?}, {rest:?}\n{end}");
        assert_eq!(told(&env.path("events"), "layer-started"), BTreeSet::new());
        assert_eq!(image(env, "out-reading"), image(env, "out-alone"));
        nothing_is_left_in(&machines.home("reading"));
    }
    assert!(dead * 2 > kills, "{dead} of {kills} were killed in time");
}

#[test]
fn a_shared_folder_on_a_full_disk_costs_a_warning_and_harms_nobody() {
    let machines = Machines::new();
    let env = &machines.env;
    finish(&mut machines.command("alone", 0)).expect_code(0);
    let (mut full, mut kib) = (0, 16);
    loop {
        let disk = SmallDisk::new(kib << 10);
        let cache = disk.path().join("cache");
        let what = format!("{kib} KiB");
        let _ = fs_err::remove_dir_all(machines.home("writing"));
        let end = finish(&mut machines.writes("writing", &cache, 0)).expect_code(0);
        assert_eq!(image(env, "out-writing"), image(env, "out-alone"), "{what}");
        let there = entries(&cache);
        if !end.stderr.contains("warning") {
            assert_eq!(there.len(), 4, "{what}: {end}");
            break;
        }
        full += 1;
        assert!(end.stderr.contains("No space left"), "{what}: {end}");
        assert_eq!(end.stderr.matches("warning").count(), 1, "{what}: {end}");
        assert!(there.len() < 4, "{what}: {end}");
        if cache.is_dir() {
            machines.newcomer_finds(&cache, &there, "out-alone");
        }
        // With room, the next build hands over what is missing, though it makes nothing.
        disk.resize(64 << 20);
        let end = finish(&mut machines.writes("writing", &cache, 0)).expect_code(0);
        assert!(!end.stderr.contains("warning"), "{what}: {end}");
        assert_eq!(told(&env.path("events"), "layer-started"), BTreeSet::new());
        let now = entries(&cache);
        assert_eq!(now.len(), 4, "{what}: {end}");
        machines.newcomer_finds(&cache, &now, "out-alone");
        kib *= 3;
        assert!(kib < 64 << 10);
    }
    assert!(full >= 4, "{full}");
}
