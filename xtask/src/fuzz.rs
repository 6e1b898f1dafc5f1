//! `cargo xtask fuzz`: the fuzz targets, with the one stable compiler.
//!
//! `cargo fuzz` wants a nightly compiler for its address sanitizer, which safe code does not need. What
//! libFuzzer needs is LLVM's coverage instrumentation, and that is reached by stable flags.
//!
//! ```text
//! fuzz/seeds/<target>/         small valid inputs, committed
//! fuzz/regressions/<target>/   inputs that once failed, committed: run first, every time
//! target/fuzz/corpus/<target>/ what the fuzzer found worth keeping, on this machine
//! target/fuzz/found/<target>/  an input that fails now
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::util::{
    Missing, cargo, find_program, output, root, run as run_shown, show, step, target_dir,
};

/// LLVM's coverage as libFuzzer reads it, and every check that a debug build has.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];
/// The instrumentation is for the target alone, so the target is named.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Seconds that one input may take, and MiB of memory.
const LIMITS: (u32, u32) = (20, 1024);
/// Longest input that the fuzzer makes, in bytes.
const LONGEST: u32 = 256 << 10;

/// How the targets are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    /// To run for long.
    Run,
    /// To be compiled soon, for a few seconds of running.
    Compile,
}

/// Runs every target (or `only` one) for `seconds`; with 0 only what is kept in the repository.
pub(crate) fn run(only: Option<&str>, seconds: u32, speed: Speed) -> Result<()> {
    if find_program("g++").is_none() {
        bail!(Missing(
            "libFuzzer is compiled by g++, which is not there: apt-get install g++".to_owned()
        ));
    }
    let targets = targets()?;
    if let Some(name) = only
        && !targets.iter().any(|t| t == name)
    {
        bail!(
            "there is no fuzz target {name}; there are {}",
            targets.join(", ")
        );
    }
    let (build, level) = match speed {
        Speed::Run => (target_dir().join("fuzz/build"), "3"),
        Speed::Compile => (target_dir().join("fuzz/build-quick"), "1"),
    };
    step("fuzz targets", || {
        run_shown(
            cargo()
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level)
                .args(["build", "--release", "--locked", "--target", TRIPLE])
                .arg("--manifest-path")
                .arg(root().join("fuzz/Cargo.toml"))
                .arg("--target-dir")
                .arg(&build)
                .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")),
        )
    })?;
    let wanted: Vec<&String> = targets
        .iter()
        .filter(|t| only.is_none_or(|o| o == *t))
        .collect();
    // A target has one thread: as many at a time as there are processors.
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(wanted.len()) {
            scope.spawn(|| {
                while let Some(name) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let program = build.join(TRIPLE).join("release").join(name);
                    if let Err(error) = one(&program, name, seconds) {
                        eprintln!("{name}: {error:#}");
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(name.as_str());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        bail!("fuzz targets that failed: {}", failed.join(", "));
    }
    Ok(())
}

fn one(program: &Path, name: &str, seconds: u32) -> Result<()> {
    let kept = |folder: &str| root().join("fuzz").join(folder).join(name);
    let inputs: Vec<PathBuf> = ["regressions", "seeds"]
        .map(kept)
        .into_iter()
        .filter(|dir| dir.is_dir())
        .collect();
    let corpus = target_dir().join("fuzz/corpus").join(name);
    let found = target_dir().join("fuzz/found").join(name);
    fs_err::create_dir_all(&corpus)?;
    fs_err::create_dir_all(&found)?;
    let mut command = Command::new(program);
    command
        .arg(&corpus)
        .args(&inputs)
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(format!("-timeout={}", LIMITS.0))
        .arg(format!("-rss_limit_mb={}", LIMITS.1))
        .arg(format!("-max_len={LONGEST}"))
        .args(["-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
    if seconds == 0 {
        command.arg("-runs=0");
    } else {
        command.arg(format!("-max_total_time={seconds}"));
    }
    let start = Instant::now();
    let done = output(&mut command)?;
    // In one piece, as others run beside it.
    let said = [done.stdout, done.stderr].concat();
    eprintln!(
        "== {name}: {}, {:.1} s\n{}",
        done.status,
        start.elapsed().as_secs_f64(),
        String::from_utf8_lossy(&said).trim_end()
    );
    if done.status.success() {
        return Ok(());
    }
    Err(anyhow!("`{}` failed: {}", show(&command), done.status)).with_context(|| {
        format!(
            "the input is in {}; mended, it belongs into fuzz/regressions/{name}",
            found.display()
        )
    })
}

/// One file each in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let manifest = fs_err::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for name in targets().unwrap() {
            assert!(
                manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
                "fuzz/Cargo.toml does not build {name}"
            );
            let seeds = root().join("fuzz/seeds").join(&name);
            let count = fs_err::read_dir(&seeds).map_or(0, Iterator::count);
            assert!(count > 0, "no seeds in {}", seeds.display());
        }
        for folder in ["seeds", "regressions"] {
            let kept = fs_err::read_dir(root().join("fuzz").join(folder));
            for entry in kept.into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                assert!(
                    !entry.path().is_dir() || targets().unwrap().contains(&name),
                    "fuzz/{folder}/{name} is of no target"
                );
            }
        }
    }
}
