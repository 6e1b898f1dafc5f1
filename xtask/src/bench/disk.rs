//! `disk assemble` against tar, mke2fs, sfdisk and mtools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::measure::{median, peak_mib, seconds};
use super::report::{Row, Table};
use super::{Bench, archive};
use crate::util::{run as run_shown, stdout};

const RUNS: usize = 5;

/// A Debian root of about 350 MB with a kernel and both boot loaders. mmdebstrap makes it once.
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,grub-efi-amd64-signed,shim-signed,grub-pc-bin,\
    grub-cloud-amd64,cloud-init,cloud-guest-utils,ifupdown,isc-dhcp-client,openssh-server,ca-certificates,locales";

pub(super) fn run(bench: &Bench) -> Result<Table> {
    let kept = rootfs(&bench.cache)?;
    let tar = bench.dir.join("rootfs.tar");
    fs_err::copy(&kept, &tar)?;
    let log = bench.dir.join("log");

    let ours = bench.fresh("ours")?.join("disk.raw");
    let mut assemble = Command::new(&bench.amiforge);
    assemble
        .args([
            "disk",
            "assemble",
            "--quiet",
            "--checksums",
            "none",
            "--rootfs",
        ])
        .arg(&tar)
        .arg("--out")
        .arg(&ours);
    assemble.env("AMIFORGE_HOME", bench.dir.join("home"));
    // The first run is the measure of the peer's layout, and warms both up.
    seconds(&mut assemble, &log)?;
    let script = bench.dir.join("peer.sh");
    fs_err::write(&script, peer_script(&Layout::of(&ours)?, UNPACK))?;

    let (mut mine, mut peers, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bench.fresh("ours")?;
        mine.push(seconds(&mut assemble, &log)?);
        let dir = bench.fresh("peer")?;
        peers.push(seconds(&mut peer(&script, &tar, &dir), &log)?);
        let dir = bench.fresh("copy")?;
        copies.push(seconds(
            Command::new("cp").arg(&tar).arg(dir.join("copy")),
            &log,
        )?);
        bench.fresh("copy")?;
    }
    check_peer(&bench.dir.join("peer/disk.raw"))?;
    bench.fresh("peer")?;
    bench.fresh("ours")?;
    let memory = peak_mib(&mut assemble, &log)?;
    bench.fresh("ours")?;
    Ok(Table {
        input: format!(
            "a Debian root of {} MB in {} entries",
            fs_err::metadata(&tar)?.len() / 1_000_000,
            entries(&tar)?
        ),
        runs: RUNS,
        rows: vec![
            Row {
                work: "rootfs tar → bootable raw disk".into(),
                ours: median(&mine),
                peer: ("tar -x, mke2fs -d, sfdisk, mtools".into(), median(&peers)),
            },
            Row {
                work: "the same against copying the tar".into(),
                ours: median(&mine),
                peer: ("cp".into(), median(&copies)),
            },
        ],
        memory_mib: memory,
    })
}

/// The input, made once and kept.
fn rootfs(cache: &Path) -> Result<PathBuf> {
    let (uri, suite) = archive::of_host()?;
    let tar = cache.join(format!("rootfs-{suite}.tar"));
    if !tar.exists() {
        let part = cache.join("rootfs.part.tar");
        run_shown(
            Command::new("mmdebstrap")
                .args([
                    "--quiet",
                    "--variant=apt",
                    "--format=tar",
                    "--aptopt=Acquire::Retries \"3\"",
                ])
                .arg(format!("--include={}", PACKAGES.replace(' ', "")))
                .arg(&suite)
                .arg(&part)
                .arg(uri),
        )?;
        fs_err::rename(part, &tar)?;
    }
    Ok(tar)
}

fn entries(tar: &Path) -> Result<usize> {
    Ok(stdout(Command::new("tar").arg("-tf").arg(tar))?
        .lines()
        .count())
}

/// Where our disk has what, so that the peer makes the same.
pub(super) struct Layout {
    sectors: u64,
    /// Start and length in sectors of slots 1 to 3: root, ESP, BIOS boot.
    slots: Vec<(u64, u64, String)>,
}

impl Layout {
    pub(super) fn of(disk: &Path) -> Result<Self> {
        let json: serde_json::Value = serde_json::from_str(&stdout(
            Command::new("/usr/sbin/sfdisk").arg("--json").arg(disk),
        )?)?;
        let list = json["partitiontable"]["partitions"]
            .as_array()
            .context("sfdisk lists no partitions")?;
        let mut slots: Vec<_> = list
            .iter()
            .map(|p| {
                let number = |name: &str| p[name].as_u64().unwrap_or_default();
                let node = p["node"].as_str().unwrap_or_default().to_owned();
                (
                    node,
                    (
                        number("start"),
                        number("size"),
                        p["type"].as_str().unwrap_or_default().to_owned(),
                    ),
                )
            })
            .collect();
        slots.sort();
        Ok(Self {
            sectors: fs_err::metadata(disk)?.len() / 512,
            slots: slots.into_iter().map(|(_, s)| s).collect(),
        })
    }
}

/// How the peer gets its root from a tar archive.
const UNPACK: &str = "mkdir \"$out/root\"\ntar -xf \"$input\" -C \"$out/root\" --numeric-owner --same-owner -p --xattrs --xattrs-include='*'";

/// What a person who knows the tools writes: each in place on the sparse disk, no copy in between,
/// the ESP filled straight from the unpacked root, GRUB put where the BIOS looks.
///
/// `$1` is the input from which `root` fills `$out/root`, `$2` the folder to work in, `$out`.
pub(super) fn peer_script(layout: &Layout, root: &str) -> String {
    let table: String = layout
        .slots
        .iter()
        .enumerate()
        .map(|(i, (start, size, kind))| {
            format!("{}: start={start}, size={size}, type={kind}\n", i + 1)
        })
        .collect();
    let (root_start, root_sectors, _) = &layout.slots[0];
    let (esp_start, esp_sectors, _) = &layout.slots[1];
    let (bios_start, ..) = &layout.slots[2];
    format!(
        r#"set -eu
export PATH="$PATH:/usr/sbin:/sbin" MTOOLS_SKIP_CHECK=1
input=$1 out=$2
{root}
truncate -s {bytes} "$out/disk.raw"
sfdisk -q --no-reread "$out/disk.raw" <<'TABLE'
label: gpt
{table}TABLE
mke2fs -q -F -t ext4 -b 4096 -E offset={root_offset} -d "$out/root" "$out/disk.raw" {root_kib}k
esp="$out/disk.raw@@{esp_offset}"
mformat -i "$esp" -T {esp_sectors} -h 255 -s 63 -v ESP ::
mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$esp" "$out/root/usr/lib/shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$esp" "$out/root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" ::/EFI/BOOT/grubx64.efi
grub-mkimage -O i386-pc -d "$out/root/usr/lib/grub/i386-pc" -p '(,gpt1)/boot/grub' -o "$out/core.img" biosdisk part_gpt ext2
dd if="$out/root/usr/lib/grub/i386-pc/boot.img" of="$out/disk.raw" bs=440 count=1 conv=notrunc status=none
dd if="$out/core.img" of="$out/disk.raw" bs=512 seek={bios_start} conv=notrunc status=none
"#,
        bytes = layout.sectors * 512,
        root_offset = root_start * 512,
        root_kib = root_sectors / 2,
        esp_offset = esp_start * 512,
    )
}

/// The peer needs to be root to give files their owners; an ordinary user is that in a namespace.
pub(super) fn peer(script: &Path, tar: &Path, out: &Path) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "sh"]);
        command
    };
    command
        .arg(script)
        .arg(tar)
        .arg(out)
        .env("LC_ALL", "C.UTF-8");
    command
}

/// A peer that made rubbish quickly would be no measure.
pub(super) fn check_peer(disk: &Path) -> Result<()> {
    let layout = Layout::of(disk)?;
    let (start, sectors, _) = &layout.slots[0];
    let root = disk.with_file_name("root.ext4");
    run_shown(
        Command::new("dd")
            .arg(format!("if={}", disk.display()))
            .arg(format!("of={}", root.display()))
            .args([
                "bs=1M",
                "iflag=skip_bytes,count_bytes",
                "conv=sparse",
                "status=none",
            ])
            .arg(format!("skip={}", start * 512))
            .arg(format!("count={}", sectors * 512)),
    )?;
    run_shown(Command::new("/usr/sbin/e2fsck").arg("-fn").arg(&root))
}
