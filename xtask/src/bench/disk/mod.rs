//! `disk assemble` and `disk convert` against tar, mke2fs, sfdisk, mtools and qemu-img.

mod input;
pub(super) mod peer;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Bench;
use super::measure::{median, peak_mib, seconds};
use super::report::{Row, Table};
use crate::util::run as run_shown;
use peer::{Layout, UNPACK, check_peer, peer_command, peer_script, root_only_script};

const RUNS: usize = 5;
/// Names in the small and in the large folder.
const NAMES: (u32, u32) = (6_000, 60_000);

/// One comparison: what runs, what it is compared with, and how often at least.
struct Pair {
    work: String,
    ours: Command,
    peer_name: String,
    peer: Command,
    at_least: Option<f64>,
    /// The peer's time counts this often (ours does ten times its work, say).
    peer_times: f64,
    runs: usize,
}

/// What all comparisons of a run need.
struct Case<'a> {
    bench: &'a Bench,
    log: PathBuf,
    rows: Vec<Row>,
    memory: f64,
}

impl Case<'_> {
    /// Runs both in turn and keeps the medians; then ours once more for its memory.
    fn measure(&mut self, mut pair: Pair) -> Result<()> {
        eprintln!("-- {} / {}", pair.work, pair.peer_name);
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        // Warm caches for both; the first run of a pair is not counted.
        for run in 0..=pair.runs {
            self.bench.fresh("ours")?;
            let mine = seconds(&mut pair.ours, &self.log)?;
            self.bench.fresh("peer")?;
            let theirs = seconds(&mut pair.peer, &self.log)? * pair.peer_times;
            if run > 0 || pair.runs == 1 {
                ours.push(mine);
                peers.push(theirs);
            }
            if pair.runs == 1 {
                break;
            }
        }
        let (mine, theirs) = (median(&ours), median(&peers));
        eprintln!("   {mine:.3} s / {theirs:.3} s: {:.2}×", theirs / mine);
        self.bench.fresh("ours")?;
        self.memory = self.memory.max(peak_mib(&mut pair.ours, &self.log)?);
        self.rows.push(Row {
            work: pair.work,
            ours: mine,
            peer: (pair.peer_name, theirs),
            at_least: pair.at_least,
        });
        Ok(())
    }

    fn amiforge(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.bench.amiforge);
        command
            .args(args)
            .arg("--quiet")
            .env("AMIFORGE_HOME", self.bench.dir.join("home"));
        command
    }

    fn assemble(&self, rootfs: &Path, out: &str, more: &[&str]) -> Command {
        self.assemble_to(&[rootfs], &format!("ours/{out}"), more)
    }

    /// To a file below the folder of the run, from root file systems over one another.
    fn assemble_to(&self, rootfs: &[&Path], out: &str, more: &[&str]) -> Command {
        let mut command = self.amiforge(&["disk", "assemble"]);
        command
            .args(more)
            .arg("--out")
            .arg(self.bench.dir.join(out));
        for rootfs in rootfs {
            command.arg("--rootfs").arg(rootfs);
        }
        command
    }

    fn script(&self, name: &str, text: &str, input: &Path) -> Result<Command> {
        let script = self.bench.dir.join(name);
        fs_err::write(&script, text)?;
        Ok(peer_command(&script, input, &self.bench.dir.join("peer")))
    }
}

/// qemu-img's conversion with all it can do in parallel.
const CONVERT: &str = "qemu-img convert -c -m 8 -W -f raw -O qcow2";

pub(super) fn run(bench: &Bench) -> Result<Table> {
    let kept = input::debian_root(&bench.cache)?;
    let tar = bench.dir.join("rootfs.tar");
    fs_err::copy(&kept, &tar)?;
    let mut case = Case {
        bench,
        log: bench.dir.join("log"),
        rows: Vec::new(),
        memory: 0.0,
    };

    // The first run is the measure of the peer's layout.
    bench.fresh("ours")?;
    seconds(&mut case.assemble(&tar, "disk.raw", &[]), &case.log)?;
    let keep = bench.fresh("keep")?;
    let raw = keep.join("disk.raw");
    fs_err::rename(bench.dir.join("ours/disk.raw"), &raw)?;
    let layout = Layout::of(&raw)?;

    debian_root(&mut case, &tar, &layout)?;
    qcow2(&mut case, &tar, &raw, &layout)?;
    fs_err::remove_dir_all(&keep)?;
    let input = format!(
        "a Debian root of {} MB in {} entries; {} files of 3 to 5 KiB; one file of {} GiB, half of it holes",
        fs_err::metadata(&tar)?.len() / 1_000_000,
        input::entries(&tar)?,
        input::SMALL_FILES,
        input::HALF_HOLE_BYTES >> 30,
    );
    fs_err::remove_file(&tar)?;
    bench.fresh("peer")?;
    small_files(&mut case)?;
    half_hole(&mut case)?;
    one_folder(&mut case)?;
    empty_space(&mut case)?;
    Ok(Table {
        input,
        runs: RUNS,
        rows: case.rows,
        memory_mib: case.memory,
    })
}

fn debian_root(case: &mut Case<'_>, tar: &Path, layout: &Layout) -> Result<()> {
    let whole = peer_script(layout, UNPACK);
    let pipeline = case.script("pipeline.sh", &whole, tar)?;
    case.measure(Pair {
        work: "rootfs tar → bootable raw disk".into(),
        ours: case.assemble(tar, "disk.raw", &[]),
        peer_name: "tar -x, mke2fs -d, sfdisk, mtools".into(),
        peer: pipeline,
        at_least: Some(5.0),
        peer_times: 1.0,
        runs: RUNS,
    })?;
    check_peer(&case.bench.dir.join("peer/disk.raw"))?;
    let pipeline = case.script("pipeline.sh", &whole, tar)?;
    case.measure(Pair {
        work: "the same without the content digest, which the peer has not either".into(),
        ours: case.assemble(tar, "disk.raw", &["--checksums", "none"]),
        peer_name: "tar -x, mke2fs -d, sfdisk, mtools".into(),
        peer: pipeline,
        at_least: None,
        peer_times: 1.0,
        runs: RUNS,
    })?;
    let unpacked = case.bench.fresh("unpacked")?;
    case.bench.fresh("peer")?;
    run_shown(&mut case.script(
        "unpack.sh",
        &format!("set -eu\ninput=$1 out=$2\n{UNPACK}\n"),
        tar,
    )?)?;
    fs_err::rename(case.bench.dir.join("peer/root"), unpacked.join("root"))?;
    let mke2fs = case.script(
        "mke2fs.sh",
        &root_only_script(layout, "ln -s \"$input/root\" \"$out/root\""),
        &unpacked,
    )?;
    case.measure(Pair {
        work: "the same, disk with boot loaders and all".into(),
        ours: case.assemble(tar, "disk.raw", &[]),
        peer_name: "mke2fs -d alone, from the unpacked folder".into(),
        peer: mke2fs,
        at_least: Some(2.0),
        peer_times: 1.0,
        runs: RUNS,
    })?;
    fs_err::remove_dir_all(&unpacked)?;
    let mut copy = Command::new("cp");
    copy.arg(tar).arg(case.bench.dir.join("peer/copy"));
    case.measure(Pair {
        work: "the same against copying the tar".into(),
        ours: case.assemble(tar, "disk.raw", &[]),
        peer_name: "cp".into(),
        peer: copy,
        at_least: Some(0.5),
        peer_times: 1.0,
        runs: RUNS,
    })
}

fn qcow2(case: &mut Case<'_>, tar: &Path, raw: &Path, layout: &Layout) -> Result<()> {
    for kind in ["zstd", "zlib"] {
        let convert = format!("{CONVERT} -o compression_type={kind}");
        let text = format!(
            "{}\n{convert} \"$out/disk.raw\" \"$out/disk.qcow2\"\n",
            peer_script(layout, UNPACK)
        );
        let peer = case.script("qcow2.sh", &text, tar)?;
        case.measure(Pair {
            work: format!("rootfs tar → qcow2 {kind}"),
            ours: case.assemble(tar, "disk.qcow2", &["--compress", kind]),
            peer_name: "the pipeline, then qemu-img convert -c -m 8 -W".into(),
            peer,
            at_least: Some(3.0),
            peer_times: 1.0,
            runs: RUNS,
        })?;
        let text = format!("set -eu\nin=$1 out=$2\n{convert} \"$in\" \"$out/disk.qcow2\"\n");
        let peer = case.script("convert.sh", &text, raw)?;
        let mut ours = case.amiforge(&["disk", "convert", "--compress", kind]);
        ours.arg(raw).arg(case.bench.dir.join("ours/disk.qcow2"));
        case.measure(Pair {
            work: format!("raw → qcow2 {kind}"),
            ours,
            peer_name: format!("qemu-img convert -c -m 8 -W, {kind}"),
            peer,
            at_least: Some(if kind == "zstd" { 1.3 } else { 2.5 }),
            peer_times: 1.0,
            runs: RUNS,
        })?;
        let sizes = ["ours", "peer"].map(|side| {
            fs_err::metadata(case.bench.dir.join(side).join("disk.qcow2")).map_or(0, |m| m.len())
        });
        if let [ours, peer] = sizes
            && let Some(row) = case.rows.last_mut()
        {
            let mb = |bytes: u64| bytes / 1_000_000;
            row.work = format!("{} ({} MB; peer {} MB)", row.work, mb(ours), mb(peer));
        }
    }
    reuse(case, tar)
}

/// What compression of unchanged clusters costs when the upper one of two layers changed: nothing, it should be.
fn reuse(case: &mut Case<'_>, tar: &Path) -> Result<()> {
    const ZSTD: &[&str] = &["--compress", "zstd"];
    let layers = ["before.tar", "after.tar"].map(|name| case.bench.dir.join("keep").join(name));
    for (seed, layer) in (3..).zip(&layers) {
        input::one_file(seed, layer)?;
    }
    let before = "keep/before.qcow2";
    seconds(
        &mut case.assemble_to(&[tar, &layers[0]], before, ZSTD),
        &case.log,
    )?;
    let before = case.bench.dir.join(before);
    let before = before.to_str().context("the path is not text")?;
    let rootfs = [tar, &layers[1]];
    let reusing = ["--compress", "zstd", "--reuse", before];
    let ours = case.assemble_to(&rootfs, "ours/disk.qcow2", &reusing);
    let full = case.assemble_to(&rootfs, "peer/disk.qcow2", ZSTD);
    case.measure(Pair {
        work: "one layer changed → qcow2 zstd, unchanged clusters reused".into(),
        ours,
        peer_name: "amiforge, everything compressed".into(),
        peer: full,
        at_least: Some(4.0),
        peer_times: 1.0,
        runs: RUNS,
    })?;
    // Speed that changes bytes is none.
    run_shown(
        Command::new("cmp")
            .args(["peer", "ours"].map(|side| case.bench.dir.join(side).join("disk.qcow2"))),
    )
}

/// An archive of one thing against unpacking it and `mke2fs -d`.
fn against_mke2fs(case: &mut Case<'_>, tar: &Path, work: String, at_least: f64) -> Result<()> {
    case.bench.fresh("ours")?;
    let plain = &["--boot", "none"];
    seconds(&mut case.assemble(tar, "disk.raw", plain), &case.log)?;
    let layout = Layout::of(&case.bench.dir.join("ours/disk.raw"))?;
    let peer = case.script("mke2fs.sh", &root_only_script(&layout, UNPACK), tar)?;
    case.measure(Pair {
        work,
        ours: case.assemble(tar, "disk.raw", plain),
        peer_name: "tar -x, mke2fs -d".into(),
        peer,
        at_least: Some(at_least),
        peer_times: 1.0,
        runs: RUNS,
    })
}

fn small_files(case: &mut Case<'_>) -> Result<()> {
    let tar = case.bench.dir.join("small.tar");
    input::small_files(&tar)?;
    let work = format!("{} small files, tar → raw", input::SMALL_FILES);
    against_mke2fs(case, &tar, work, 8.0)?;
    fs_err::remove_file(tar)?;
    Ok(())
}

fn half_hole(case: &mut Case<'_>) -> Result<()> {
    let tar = case.bench.dir.join("holes.tar");
    input::half_hole(&case.bench.dir, &tar)?;
    let work = format!(
        "one file of {} GiB, half holes, tar → raw",
        input::HALF_HOLE_BYTES >> 30
    );
    against_mke2fs(case, &tar, work, 15.0)?;
    fs_err::remove_file(tar)?;
    Ok(())
}

fn one_folder(case: &mut Case<'_>) -> Result<()> {
    let few = case.bench.dir.join("few");
    let many = case.bench.dir.join("many");
    input::one_folder(&few, NAMES.0)?;
    input::one_folder(&many, NAMES.1)?;
    let factor = f64::from(NAMES.1 / NAMES.0);
    let small = case.assemble_to(&[&few], "peer/disk.raw", &["--boot", "none"]);
    case.measure(Pair {
        work: format!("a folder of {} names", NAMES.1),
        ours: case.assemble(&many, "disk.raw", &["--boot", "none"]),
        peer_name: format!("amiforge, {factor} × a folder of {} names", NAMES.0),
        peer: small,
        at_least: Some(1.0 / 1.2),
        peer_times: factor,
        runs: RUNS,
    })?;
    let layout = Layout::of(&case.bench.dir.join("ours/disk.raw"))?;
    let link = "ln -s \"$input\" \"$out/root\"";
    let peer = case.script("mke2fs.sh", &root_only_script(&layout, link), &many)?;
    case.measure(Pair {
        work: "the same".into(),
        ours: case.assemble(&many, "disk.raw", &["--boot", "none"]),
        peer_name: "mke2fs -d (one run)".into(),
        peer,
        at_least: Some(8.0),
        peer_times: 1.0,
        runs: 1,
    })?;
    fs_err::remove_dir_all(few)?;
    fs_err::remove_dir_all(many)?;
    Ok(())
}

fn empty_space(case: &mut Case<'_>) -> Result<()> {
    let root = case.bench.dir.join("empty");
    fs_err::create_dir(&root)?;
    let sized = |size| ["--boot", "none", "--size", size];
    let small = case.assemble_to(&[&root], "peer/disk.raw", &sized("1GiB"));
    case.measure(Pair {
        work: "an empty disk of 100 GiB".into(),
        ours: case.assemble(&root, "disk.raw", &sized("100GiB")),
        peer_name: "amiforge, an empty disk of 1 GiB".into(),
        peer: small,
        at_least: Some(0.5),
        peer_times: 1.0,
        runs: RUNS,
    })?;
    fs_err::remove_dir_all(root)?;
    Ok(())
}
