//! `cargo xtask bench`: against the strongest hand-written pipeline, pairwise in the same run.
//!
//! Each pair runs ours and the peer's one after the other on the same input, in a memory-backed
//! folder, so that neither the disk nor the hour of the day decides. The medians and their ratio go
//! to `docs/benchmarks.md`, with the facts about the machine that a reader needs to compare.

mod archive;
mod build;
mod disk;
mod ec2;
mod measure;
mod report;
mod validate;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::setup;
use crate::util::{cargo, run as run_shown, step, target_dir};

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// `disk assemble`.
    Disk,
    /// `build` of the minimal recipe.
    Build,
    /// `validate` of many documents.
    Validate,
    /// Instances and images of them.
    Ec2,
    /// All of them.
    All,
}

/// Runs the benchmarks and writes the report.
pub(crate) fn run(what: What) -> Result<()> {
    step("set-up", || setup::run(setup::Purpose::Bench))?;
    step("amiforge itself", || {
        run_shown(cargo().args(["build", "--release", "--locked", "--package", "amiforge"]))
    })?;
    let bench = Bench::new()?;
    let mut sections = report::read()?;
    if matches!(what, What::Disk | What::All) {
        sections.insert(
            report::Section::Disk,
            step("disk assemble", || disk::run(&bench))?,
        );
    }
    if matches!(what, What::Build | What::All) {
        sections.insert(
            report::Section::Build,
            step("build", || build::run(&bench))?,
        );
    }
    if matches!(what, What::Validate | What::All) {
        sections.insert(
            report::Section::Validate,
            step("validate", || validate::run(&bench))?,
        );
    }
    if matches!(what, What::Ec2 | What::All) {
        sections.insert(
            report::Section::Ec2,
            step("instances", || ec2::run(&bench))?,
        );
    }
    report::write(&sections)
}

/// Where a run works.
struct Bench {
    amiforge: PathBuf,
    /// Memory-backed, removed at the end.
    dir: PathBuf,
    /// Inputs that are worth keeping between runs.
    cache: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let shm = PathBuf::from("/dev/shm");
        if !shm.is_dir() {
            bail!("/dev/shm is not there: the comparison needs a memory-backed folder");
        }
        let dir = shm.join(format!("amiforge-bench-{}", std::process::id()));
        fs_err::create_dir_all(&dir)?;
        let cache = target_dir().join("bench");
        fs_err::create_dir_all(&cache)?;
        Ok(Self {
            amiforge: target_dir().join("release/amiforge"),
            dir,
            cache,
        })
    }

    /// A fresh, empty folder.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            fs_err::remove_dir_all(&dir)?;
        }
        fs_err::create_dir_all(&dir)?;
        Ok(dir)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.dir);
    }
}
