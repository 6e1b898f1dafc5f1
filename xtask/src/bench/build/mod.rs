//! `build recipes/debian-minimal` against mmdebstrap and mkosi with the hand-written disk pipeline, and what it costs to
//! build again.

mod again;
mod mkosi;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::Bench;
use super::disk::peer::{Layout, check_peer, peer_script};
use super::measure::{median, peak_mib, seconds};
use super::report::{Row, Table};
use crate::util::{Missing, root, stdout};

const RUNS: usize = 3;
const RECIPE: &str = "recipes/debian-minimal";

/// mmdebstrap into a folder, from a local archive of exactly the packages: nothing is downloaded. The
/// folder is a tmpfs of its own, since /dev/shm takes no device nodes and mmdebstrap needs them.
const BOOTSTRAP: &str = "mkdir \"$out/root\"\nmount -t tmpfs -o mode=755 tmpfs \"$out/root\"\nmmdebstrap --quiet --variant=apt --format=directory --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=\"$(cat \"$input/names\")\" \
    --skip=cleanup/apt,cleanup/reproducible \"$(cat \"$input/suite\")\" \"$out/root\" \"deb [trusted=yes] copy:$input/archive ./\"";

pub(super) fn run(bench: &Bench) -> Result<Table> {
    if !rustix::process::geteuid().is_root() {
        bail!(Missing(
            "this benchmark runs as root: mmdebstrap must leave a folder with all owners"
                .to_owned()
        ));
    }
    let log = bench.dir.join("log");
    let home = bench.fresh("home")?;
    let build = |offline: bool| {
        let mut command = Command::new(&bench.amiforge);
        command.current_dir(root()).env("AMIFORGE_HOME", &home);
        command
            .args(["build", RECIPE, "--no-test", "--quiet", "--out"])
            .arg(bench.dir.join("ours/out"));
        command.args(offline.then_some("--offline"));
        command
    };
    // The first run downloads the packages, and shows the peer what to make.
    bench.fresh("ours")?;
    seconds(&mut build(false), &log)?;
    let ours = bench.dir.join("ours/out");
    let layout = Layout::of(&ours.join("disk.raw"))?;
    let script = bench.dir.join("peer.sh");
    fs_err::write(&script, peer_script(&layout, BOOTSTRAP))?;
    let input = bench.fresh("archive")?;
    let packages = local_archive(&home.join("cache"), &ours, &input)?;
    mkosi::suite(&input)?;
    let mkosi_script = bench.dir.join("mkosi.sh");
    fs_err::write(&mkosi_script, peer_script(&layout, mkosi::BOOTSTRAP))?;

    let (mut firsts, mut anew, mut again) = (vec![], vec![], vec![]);
    let (mut peers, mut mkosis) = (vec![], vec![]);
    for _ in 0..RUNS {
        forget(&home)?;
        bench.fresh("ours")?;
        firsts.push(seconds(&mut build(true), &log)?);
        again.push(seconds(&mut build(true), &log)?);
        bench.fresh("ours")?;
        anew.push(seconds(&mut build(true), &log)?);
        for (script, times) in [(&script, &mut peers), (&mkosi_script, &mut mkosis)] {
            let dir = bench.fresh("peer")?;
            let mut peer = Command::new("unshare");
            peer.args(["--mount", "sh"])
                .args([script, &input, &dir])
                .env("LC_ALL", "C.UTF-8");
            times.push(seconds(&mut peer, &log)?);
            check_peer(&dir.join("disk.raw"))?;
        }
        eprintln!(
            "-- ours {firsts:.2?} s, again {again:.3?} s, disks anew {anew:.2?} s, mmdebstrap {peers:.2?} s, mkosi {mkosis:.2?} s"
        );
    }
    bench.fresh("peer")?;
    forget(&home)?;
    bench.fresh("ours")?;
    let memory = peak_mib(&mut build(true), &log)?;
    let formats = fs_err::read_dir(&ours)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("disk."))
        .count();
    let mut rows = vec![
        Row {
            work: "recipe → bootable disk, empty store".into(),
            ours: median(&firsts),
            peer: (
                "mmdebstrap, mke2fs -d, sfdisk, mtools, grub-mkimage".into(),
                median(&peers),
            ),
            at_least: Some(3.0),
        },
        Row {
            work: "the same".into(),
            ours: median(&firsts),
            peer: (
                "mkosi -t directory, update-initramfs, the same pipeline".into(),
                median(&mkosis),
            ),
            at_least: Some(5.0),
        },
        Row {
            work: "the same again, nothing changed".into(),
            ours: median(&again),
            peer: ("0.3 s".into(), 0.3),
            at_least: Some(1.0),
        },
        Row {
            work: "the same again, the disks removed".into(),
            ours: median(&anew),
            peer: ("the first build".into(), median(&firsts)),
            at_least: None,
        },
    ];
    rows.extend(again::run(bench, &home)?);
    Ok(Table {
        input: format!(
            "{packages} packages, downloaded before; ours writes {formats} disk formats, the peers raw"
        ),
        runs: RUNS,
        rows,
        memory_mib: memory,
    })
}

/// Empties the store and keeps the downloads.
fn forget(home: &Path) -> Result<()> {
    let store = home.join("store");
    if store.exists() {
        fs_err::remove_dir_all(store)?;
    }
    Ok(())
}

/// A flat archive of the packages that our build used, with `names` and `suite` beside it.
fn local_archive(cache: &Path, ours: &Path, dir: &Path) -> Result<usize> {
    let archive = dir.join("archive");
    fs_err::create_dir(&archive)?;
    let mut pending = vec![cache.to_path_buf()];
    let mut count = 0;
    while let Some(folder) = pending.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else if is_package(&entry.path())? {
                fs_err::hard_link(entry.path(), archive.join(format!("{count}.deb")))?;
                count += 1;
            }
        }
    }
    let index = stdout(
        Command::new("dpkg-scanpackages")
            .args(["--multiversion", "."])
            .current_dir(&archive),
    )?;
    let names: BTreeSet<&str> = index
        .lines()
        .filter_map(|line| line.strip_prefix("Package: "))
        .collect();
    if names.len() != count {
        bail!(
            "the cache holds {count} packages of {} names; an older version is among them",
            names.len()
        );
    }
    fs_err::write(
        dir.join("names"),
        names.into_iter().collect::<Vec<_>>().join(","),
    )?;
    fs_err::write(archive.join("Packages"), &index)?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(ours.join("manifest.json"))?)?;
    let asked = manifest["parentImage"]["asked"]
        .as_str()
        .unwrap_or_default();
    fs_err::write(
        dir.join("suite"),
        asked.strip_prefix("debian:").unwrap_or(asked),
    )?;
    Ok(count)
}

/// A Debian package is an `ar` archive (deb(5)).
fn is_package(path: &PathBuf) -> Result<bool> {
    let mut magic = [0; 8];
    let read = fs_err::File::open(path)?.read(&mut magic)?;
    Ok(read == 8 && magic == *b"!<arch>\n")
}
