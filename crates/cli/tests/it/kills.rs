//! kill -9 at many points of a build's life, and disks of every size that is too small: no finished layer is lost, none
//! is damaged, nothing is left lying around, and the next run gives the bytes of one that nothing happened to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use amiforge_testkit::{Env, Finished, Running, SmallDisk, finish, run, tool};
use serde_json::Value;

use crate::tiny::Tiny;
use crate::web::names;

/// Kills in a run; `AMIFORGE_TEST_KILLS` says another number.
const KILLS: usize = 50;

const STEPS: &str = "\
name: steps
schemaVersion: 1.0
parameters:
  - Round: {type: string, default: '0'}
phases:
  - name: build
    steps:
      - name: Run
        action: ExecuteBash
        inputs: {commands: ['mkdir /made; echo {{ Round }} >/made/round; head -c 300000 /dev/zero >/made/zeros']}
  - name: validate
    steps:
      - name: Look
        action: ExecuteBash
        inputs: {commands: ['test -f /made/round']}
";
const FILES: &str = "\
name: files
schemaVersion: 1.0
parameters:
  - Round: {type: string, default: '0'}
phases:
  - name: build
    steps:
      - name: Write
        action: CreateFile
        inputs: [{path: /file, content: 'round {{ Round }}'}]
";

pub(crate) fn recipe(env: &Env) -> PathBuf {
    let tiny = Tiny::with_shell(env, &[("tiny-a", "1.0", "a")]);
    env.write("steps.yaml", STEPS);
    env.write("files.yaml", FILES);
    tiny.container("tiny", &["steps.yaml", "files.yaml"], "")
}

pub(crate) fn build(env: &Env, home: &Path, recipe: &Path, out: &str, round: usize) -> Command {
    let mut command = env.amiforge();
    command
        .env("AMIFORGE_HOME", home)
        .arg("build")
        .arg(recipe)
        .args(["--param", &format!("Round={round}"), "--out"])
        .arg(env.path(out));
    command
}

/// The image's bytes, file by file.
pub(crate) fn image(env: &Env, out: &str) -> Vec<String> {
    let sums = fs_err::read_to_string(env.path(out).join("SHA256SUMS")).unwrap();
    let lines = sums.lines().filter(|line| !line.contains("  logs/"));
    lines.map(str::to_owned).collect()
}

/// The ids in events of a kind; the last line may be cut.
pub(crate) fn told(events: &Path, kind: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(events).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["event"] == kind)
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect()
}

fn listed(env: &Env, home: &Path) -> BTreeSet<String> {
    let mut command = env.amiforge();
    let list = finish(
        command
            .env("AMIFORGE_HOME", home)
            .args(["cache", "list", "--json"]),
    );
    let list = list.expect_code(0).json();
    let layers = list["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Nothing of a process that is gone: no temporary file, no layer unpacked without its file, no output half done.
#[track_caller]
fn nothing_is_left(env: &Env, home: &Path) {
    nothing_is_left_in(home);
    let beside = names(&env.path(""))
        .into_iter()
        .filter(|n| n.contains("tmp-"));
    assert_eq!(beside.collect::<Vec<_>>(), Vec::<String>::new());
}

/// The same of a store alone.
#[track_caller]
pub(crate) fn nothing_is_left_in(home: &Path) {
    let store = home.join("store/v1");
    assert_eq!(names(&store.join("tmp")), Vec::<String>::new());
    let new = run(tool("find")
        .arg(&store)
        .args(["-name", ".new-*", "-o", "-name", "*.partial"]));
    assert_eq!(new.text(), "");
    let layers = names(&store.join("layers"));
    for root in names(&store.join("roots")) {
        assert!(
            layers.contains(&format!("{root}.layer")),
            "{root} of {layers:?}"
        );
    }
}

/// xorshift64*: the same points in each run.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}

#[test]
fn kill_9_at_any_point_loses_no_finished_layer() {
    let env = Env::new();
    let recipe = recipe(&env);
    let home = env.state();
    let kills = std::env::var("AMIFORGE_TEST_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    // How long a build takes, with all its layers and with its own alone.
    let other = env.path("other");
    let whole = finish(&mut build(&env, &other, &recipe, "expected", 0)).expect_code(0);
    // The shorter of two: what else the machine does is not the build's.
    let own = |out, round| {
        finish(&mut build(&env, &other, &recipe, out, round))
            .expect_code(0)
            .took
    };
    let own = own("again", 1).min(own("once more", 2));

    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut ready = BTreeSet::new();
    let (mut killed, mut round) = (0, 0);
    for number in 0..kills {
        let events = env.path("events");
        let _ = fs_err::remove_file(&events);
        let mut command = build(&env, &home, &recipe, "out", round);
        let running = Running::spawn(command.arg("--events").arg(&events));
        let longest = if ready.len() < 2 { whole.took } else { own };
        let at = longest.mul_f64((random(&mut state) % 1100) as f64 / 1000.0);
        sleep(at);
        // The main process alone, as the kernel does when memory is short; or with all that it started.
        let end: Finished = match number % 2 {
            0 => running.kill9(),
            _ => running.kill9_group(),
        };
        killed += usize::from(end.code() == 128 + 9);
        let until = Instant::now() + Duration::from_secs(10);
        while !env.processes().is_empty() {
            assert!(Instant::now() < until, "{:#?}", env.processes());
            sleep(Duration::from_millis(5));
        }
        // Whatever was told to be there is a hit from then on.
        let finished = told(&events, "layer-finished");
        let again: Vec<_> = told(&events, "layer-started")
            .intersection(&ready)
            .cloned()
            .collect();
        assert_eq!(again, Vec::<String>::new(), "made again\n{end}");
        assert!(!end.stderr.contains("warning"), "{end}");
        ready.extend(finished);
        let there = listed(&env, &home);
        assert!(ready.is_subset(&there), "{ready:?} of {there:?}\n{end}");
        // Mostly the same build goes on; when it is done, there is another.
        if end.code() == 0 || number % 3 == 2 {
            round += 1;
        }
    }
    assert!(
        killed * 2 > kills,
        "{killed} of {kills} were killed in time"
    );

    // Every layer is whole: a build compares all data with its digests, and would say so.
    for round in 0..=round {
        let events = env.path("events");
        let mut command = build(&env, &home, &recipe, "out", round);
        let end = finish(command.arg("--events").arg(&events)).expect_code(0);
        assert!(!end.stderr.contains("warning"), "{end}");
        let made = told(&events, "layer-started");
        assert!(made.is_disjoint(&ready), "{end}");
        if round == 0 {
            assert_eq!(image(&env, "out"), image(&env, "expected"));
        }
        if round == 1 {
            assert_eq!(image(&env, "out"), image(&env, "again"));
        }
    }
    nothing_is_left(&env, &home);
    // Collected, nothing but what the catalog needs is there.
    let mut command = env.amiforge();
    finish(command.args(["cache", "gc", "--keep", "0h"])).expect_code(0);
    nothing_is_left(&env, &home);
    let downloads = run(tool("find").arg(home.join("cache/v1")).args(["-type", "f"]));
    assert_eq!(downloads.text(), "");
    let left = listed(&env, &home);
    assert_eq!(left.len(), 4, "of the image in the output folder: {left:?}");
}

#[test]
fn a_disk_of_any_size_that_is_too_small_is_told_and_harms_nothing() {
    let env = Env::new();
    let recipe = recipe(&env);
    let expected = env.path("home");
    finish(&mut build(&env, &expected, &recipe, "expected", 0)).expect_code(0);
    let mut failed = 0;
    let mut kib = 64;
    loop {
        let disk = SmallDisk::new(kib << 10);
        let home = disk.path().join("home");
        let out = format!("out-{kib}");
        let end = finish(&mut build(&env, &home, &recipe, &out, 0));
        if end.code() == 0 {
            assert!(!end.stderr.contains("warning"), "{end}");
            assert_eq!(image(&env, &out), image(&env, "expected"));
            break;
        }
        failed += 1;
        let what = format!("{kib} KiB");
        assert!([1, 3].contains(&end.code()), "{what}: {end}");
        let (_, error) = end.stderr.split_once("error: ").unwrap();
        assert!(error.contains("No space left"), "{what}: {end}");
        let place = disk.path().display().to_string();
        assert!(
            error.contains(&place),
            "{what}, {place} is not named: {end}"
        );
        assert!(!env.path(&out).exists());
        let tmp = home.join("store/v1/tmp");
        assert_eq!(names(&tmp), Vec::<String>::new(), "{what}");
        // With room, what is there is taken, and the result is as if nothing had happened.
        let there: BTreeSet<String> = names(&home.join("store/v1/layers"))
            .iter()
            .map(|name| name.trim_end_matches(".layer").to_owned())
            .collect();
        disk.resize(256 << 20);
        let events = env.path("events");
        let mut command = build(&env, &home, &recipe, &out, 0);
        let end = finish(command.arg("--events").arg(&events)).expect_code(0);
        assert!(!end.stderr.contains("warning"), "{what}: {end}");
        assert_eq!(told(&events, "layer-cached"), there, "{what}: {end}");
        assert_eq!(image(&env, &out), image(&env, "expected"), "{what}");
        nothing_is_left(&env, &home);
        // Closer to each other than any file that matters is large.
        kib = kib * 8 / 5;
        assert!(kib < 256 << 10);
    }
    assert!(failed >= 5, "{failed}");
}

/// Writes without end, many files at once, none of them large.
const FLOOD: &str = "\
name: flood
schemaVersion: 1.0
parameters:
  - Round: {type: string, default: '0'}
phases:
  - name: build
    steps:
      - name: Flood
        action: ExecuteBash
        inputs: {commands: ['for f in a b c d; do (i=0; while :; do i=$((i+1)); head -c 4000000 /dev/zero >/$f-$i || exit; done) & done; wait']}
";

/// A disk of so many bytes with a home on it, and a recipe of one document.
fn small_disk(env: &Env, document: &str, bytes: u64) -> (SmallDisk, PathBuf, PathBuf) {
    let tiny = Tiny::with_shell(env, &[("tiny-a", "1.0", "a")]);
    env.write("fills.yaml", document);
    let recipe = tiny.container("full", &["fills.yaml"], "");
    let disk = SmallDisk::new(bytes);
    let home = disk.path().join("home");
    (disk, home, recipe)
}

#[test]
fn a_step_that_fills_the_disk_is_ended_before_it_is_full() {
    let env = Env::new();
    let (disk, home, recipe) = small_disk(&env, FLOOD, 1200 << 20);
    let (done, least) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let end = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                least.fetch_min(disk.free(), Ordering::Relaxed);
                sleep(Duration::from_millis(2));
            }
        });
        let end = finish(&mut build(&env, &home, &recipe, "out", 0));
        done.store(true, Ordering::Relaxed);
        end
    });
    let end = end.expect_code(1);
    for part in [
        "step Flood (ExecuteBash): ",
        "bash was ended: it left no more than 2",
        " MiB on the disk that it writes to",
        "the files of the failed run are not kept: only 2",
    ] {
        assert!(end.stderr.contains(part), "{part}: {end}");
    }
    let least = least.into_inner();
    assert!(least > 16 << 20, "{least} bytes were left: {end}");
    // And there is room again.
    assert!(disk.free() > 1100 << 20, "{}", disk.free());
    assert_eq!(names(&home.join("store/v1/tmp")), Vec::<String>::new());
}

/// Fills the disk, does not look at what it writes then, and makes room again.
const MOMENT: &str = "\
name: moment
schemaVersion: 1.0
parameters:
  - Round: {type: string, default: '0'}
phases:
  - name: build
    steps:
      - name: Fill
        action: ExecuteBash
        inputs: {commands: ['head -c 400000000 /dev/zero >/scratch; for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/zero >/data$i; done; rm /scratch']}
";

#[test]
fn a_step_that_fills_a_small_disk_for_a_moment_fails_and_leaves_no_layer() {
    let env = Env::new();
    let (disk, home, recipe) = small_disk(&env, MOMENT, 96 << 20);
    let end = finish(&mut build(&env, &home, &recipe, "out", 0)).expect_code(1);
    for part in [
        "step Fill (ExecuteBash): ",
        "bash was ended: it left no more than ",
    ] {
        assert!(end.stderr.contains(part), "{part}: {end}");
    }
    let layers = || names(&home.join("store/v1/layers")).len();
    let below = layers();
    disk.resize(900 << 20);
    let events = env.path("events");
    let mut command = build(&env, &home, &recipe, "out", 0);
    finish(command.arg("--events").arg(&events)).expect_code(0);
    assert_eq!(told(&events, "layer-cached").len(), below);
    assert_eq!(layers(), below + 1);
}
