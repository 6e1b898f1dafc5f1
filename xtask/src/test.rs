//! `cargo xtask test`: every check and every test. `.ci/run` calls exactly this.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::util::{cargo, output, root, run as run_shown, step};
use crate::{fuzz, setup, tidy};

/// How long each fuzz target runs on after its seeds: long enough to see that it still works.
const FUZZ_SECONDS: u32 = 5;

/// What cannot be installed is told within this time, before anything else runs.
const SETUP_SAYS_NO: Duration = Duration::from_secs(2);

/// Installs what the tests need, runs the checks, then the tests with their runner's own summary last.
///
/// All checks run even when one fails, so that one run shows everything; the tests run last.
pub(crate) fn run() -> Result<()> {
    // The checks up to the fuzz targets need nothing but cargo: they run beside the installing, which waits for networks and disks.
    let setup = thread::spawn(|| step("set-up", || setup::run(setup::Purpose::Test)));
    let begin = Instant::now();
    while !setup.is_finished() && begin.elapsed() < SETUP_SAYS_NO {
        thread::sleep(Duration::from_millis(50));
    }
    if setup.is_finished() {
        joined(setup)?;
        checks_and_tests(|| Ok(()))
    } else {
        checks_and_tests(|| joined(setup))
    }
}

fn joined(setup: thread::JoinHandle<Result<()>>) -> Result<()> {
    setup
        .join()
        .unwrap_or_else(|_| bail!("the set-up panicked"))
}

/// `set_up` returns when everything is installed.
fn checks_and_tests(set_up: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, work: &mut dyn FnMut() -> Result<()>| {
        if let Err(error) = step(name, work) {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    };
    check("format", &mut || {
        run_shown(cargo().args(["fmt", "--all", "--check"]))
    });
    check("tidy", &mut tidy::run);
    check("clippy", &mut || {
        run_shown(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    });
    check("documentation", &mut || {
        run_shown(
            cargo()
                .args(["doc", "--workspace", "--no-deps", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    check("documentation tests", &mut || {
        run_shown(cargo().args(["test", "--workspace", "--doc", "--locked"]))
    });
    // Tests of other crates run the real program, which must not be an old one.
    check("programs", &mut || {
        run_shown(cargo().args(["build", "--workspace", "--locked"]))
    });
    set_up()?;
    check("fuzzing", &mut || {
        fuzz::run(None, FUZZ_SECONDS, fuzz::Speed::Compile)
    });
    if !failed.is_empty() {
        eprintln!("\nfailed so far: {}", failed.join(", "));
    }
    let tests = run_tests();
    match (failed.is_empty(), tests) {
        (true, tests) => tests,
        (false, Ok(())) => bail!("the tests passed, but not: {}", failed.join(", ")),
        (false, Err(error)) => bail!("failed: {}, and {error:#}", failed.join(", ")),
    }
}

/// The tests, by cargo-nextest where it is installed, else by cargo.
fn run_tests() -> Result<()> {
    let nextest = output(cargo().args(["nextest", "--version"])).is_ok_and(|o| o.status.success());
    eprintln!("\n== tests");
    let mut command = cargo();
    if nextest {
        let profile = if std::env::var_os("CI").is_some() {
            "ci"
        } else {
            "default"
        };
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--profile",
            profile,
        ]);
    } else {
        command.args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--",
            "--skip=image_guest",
            "--test-threads=1",
        ]);
    }
    run_shown(command.current_dir(root()))
}
