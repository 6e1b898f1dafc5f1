//! `run`, `instance create-image` and `image copy` against copying the whole disk with qemu-img.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::measure::{median, peak_mib, seconds};
use super::report::{Row, Table};
use crate::util::{run as run_shown, stdout};

const RUNS: usize = 5;
const MIB: u64 = 1 << 20;
/// The volumes.
const DISK: u64 = 2 << 30;
/// What is written to one between two images.
const CHANGED: u64 = 100 * 1_000_000;

/// A boot sector that loops for ever: the machine runs, and does nothing.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..2].copy_from_slice(&[0xEB, 0xFE]);
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}

/// A disk of which the first `data` bytes cannot be compressed, and the rest is holes.
fn disk(path: &Path, data: u64) -> Result<()> {
    let mut file = File::create_new(path)?;
    std::io::copy(&mut File::open("/dev/urandom")?.take(data), &mut file)?;
    file.set_len(DISK)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&boot_sector())?;
    Ok(())
}

/// One account with its instances, which end with it.
struct Cloud<'a> {
    bench: &'a Bench,
    home: PathBuf,
    instances: Vec<String>,
}

impl Cloud<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.bench.amiforge);
        command.env("AMIFORGE_HOME", &self.home).args(args);
        command
    }

    /// The last word that a command prints.
    fn word(&self, args: &[&str]) -> Result<String> {
        let text = stdout(&mut self.command(args))?;
        let word = text.split_whitespace().next_back();
        Ok(word.context("no id was printed")?.to_owned())
    }

    fn image(&self, name: &str, disk: &Path) -> Result<String> {
        let disk = disk.display().to_string();
        let args = ["image", "register", "--disk", &disk, "--name", name];
        self.word(&[&args[..], &["--boot-mode", "legacy-bios"]].concat())
    }

    fn launch(&mut self, image: &str) -> Result<String> {
        let id = self.word(&["run", image, "--instance-type", "t2.micro"])?;
        self.instances.push(id.clone());
        Ok(id)
    }

    /// The disk of an instance as its machine has it.
    fn volume(&self, instance: &str) -> String {
        let folder = self.home.join("store/v1/ec2/instances").join(instance);
        format!(
            "nbd+unix:///?socket={}",
            folder.join("volume0.sock").display()
        )
    }
}

impl Drop for Cloud<'_> {
    fn drop(&mut self) {
        for id in &self.instances {
            let _ = stdout(&mut self.command(&["instance", "terminate", "--force", id]));
        }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Table> {
    let home = bench.fresh("home")?;
    let disks = bench.fresh("disks")?;
    let log = bench.dir.join("log");
    let mut cloud = Cloud {
        bench,
        home,
        instances: Vec::new(),
    };
    let mut rows = Vec::new();
    let mut memory: f64 = 0.0;
    for (what, data) in [
        ("a full volume of 2 GiB", DISK),
        ("a volume of 2 GiB with 512 MiB in it", 512 * MIB),
    ] {
        let path = disks.join("disk.raw");
        disk(&path, data)?;
        let image = cloud.image(&format!("of-{data}"), &path)?;
        let instance = cloud.launch(&image)?;
        let (ours, peer) = images(&cloud, &instance, &path, data, &log)?;
        rows.push(Row {
            work: format!("create-image after 100 MB were written to {what}"),
            ours: median(&ours),
            peer: (
                "qemu-img convert of the whole disk to qcow2".into(),
                median(&peer),
            ),
            // Of a disk that is mostly holes the peer copies little more than what changed.
            at_least: (data == DISK).then_some(5.0),
        });
        if data == DISK {
            let starts: Vec<f64> = (0..=RUNS)
                .map(|_| start(&mut cloud, &image, &log))
                .collect::<Result<_>>()?;
            rows.push(Row {
                work: "run: from the command to a running QEMU".into(),
                ours: median(&starts[1..]),
                peer: ("0.3 s".into(), 0.3),
                at_least: Some(1.0),
            });
            let (ours, peer) = copies(&cloud, &image, &path, &log)?;
            rows.push(Row {
                work: "image copy into another region, 2 GiB".into(),
                ours: median(&ours),
                peer: ("cp of the disk".into(), median(&peer)),
                at_least: None,
            });
            let args = ["instance", "stop", "--force", &instance];
            run_shown(&mut cloud.command(&args))?;
            // Of one that is off, the command itself does the work.
            let args = ["instance", "create-image", &instance, "--name", "memory"];
            memory = peak_mib(&mut cloud.command(&args), &log)?;
        }
        fs_err::remove_file(&path)?;
    }
    Ok(Table {
        input: "disks of random bytes; instances that run and do nothing, whose volumes are written to over NBD".into(),
        runs: RUNS,
        rows,
        memory_mib: memory,
    })
}

/// Seconds of making images after changes, and of converting the whole disk.
fn images(
    cloud: &Cloud<'_>,
    instance: &str,
    disk: &Path,
    data: u64,
    log: &Path,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let out = cloud.bench.dir.join("out.qcow2");
    let changes = cloud.bench.dir.join("changes");
    let (mut ours, mut peer) = (vec![], vec![]);
    // The first of a pair warms caches, and is not counted.
    for run in 0..=RUNS {
        let mut file = File::create(&changes)?;
        std::io::copy(&mut File::open("/dev/urandom")?.take(CHANGED), &mut file)?;
        // At another place each time, within what has data.
        let at = MIB + run as u64 * ((data - CHANGED - MIB) / RUNS as u64 / MIB * MIB);
        let at = at.min((data - CHANGED) / MIB * MIB);
        let write = format!("write -q -s {} {at} {CHANGED}", changes.display());
        let mut io = Command::new("qemu-io");
        io.args(["-f", "raw", "-c", &write, "-c", "flush"]);
        run_shown(io.arg(cloud.volume(instance)))?;

        let name = format!("run-{data}-{run}");
        let args = [
            "instance",
            "create-image",
            instance,
            "--no-reboot",
            "--json",
            "--name",
        ];
        let mut command = cloud.command(&[&args[..], &[&name]].concat());
        let mine = seconds(&mut command, log)?;
        let made: serde_json::Value = serde_json::from_str(&said(log)?)?;
        let stored = made["storedBlocks"].as_u64().unwrap_or_default();
        if !(CHANGED / (512 << 10)..CHANGED / (512 << 10) + 3).contains(&stored) {
            bail!("{stored} blocks were stored: {made}");
        }
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-m", "8", "-W", "-f", "raw", "-O", "qcow2"]);
        let theirs = seconds(convert.arg(disk).arg(&out), log)?;
        fs_err::remove_file(&out)?;
        eprintln!("   {mine:.3} s / {theirs:.3} s: {:.2}×", theirs / mine);
        if run > 0 {
            ours.push(mine);
            peer.push(theirs);
        }
    }
    Ok((ours, peer))
}

/// The answer in a log, which may follow warnings.
fn said(log: &Path) -> Result<String> {
    let text = fs_err::read_to_string(log)?;
    let at = text.find('{').context("no answer")?;
    Ok(text[at..].to_owned())
}

/// Seconds of a launch.
fn start(cloud: &mut Cloud<'_>, image: &str, log: &Path) -> Result<f64> {
    let mut command = cloud.command(&["run", image, "--instance-type", "t2.micro"]);
    let took = seconds(&mut command, log)?;
    let text = fs_err::read_to_string(log)?;
    let id = text.split_whitespace().next_back().context("no id")?;
    run_shown(&mut cloud.command(&["instance", "terminate", "--force", id]))?;
    Ok(took)
}

fn copies(cloud: &Cloud<'_>, image: &str, disk: &Path, log: &Path) -> Result<(Vec<f64>, Vec<f64>)> {
    let out = cloud.bench.dir.join("copy");
    let (mut ours, mut peer) = (vec![], vec![]);
    for run in 0..=RUNS {
        let name = format!("copy-{run}");
        let args = [
            "image",
            "copy",
            image,
            "--region",
            "eu-west-1",
            "--name",
            &name,
        ];
        let mine = seconds(&mut cloud.command(&args), log)?;
        let theirs = seconds(Command::new("cp").arg(disk).arg(&out), log)?;
        fs_err::remove_file(&out)?;
        if run > 0 {
            ours.push(mine);
            peer.push(theirs);
        }
    }
    Ok((ours, peer))
}
