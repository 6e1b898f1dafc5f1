//! The pipeline that a person who knows the tools writes by hand.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::util::{run as run_shown, stdout};

/// Where our disk has what, so that the peer makes the same.
pub(in crate::bench) struct Layout {
    sectors: u64,
    /// Start and length in sectors of slots 1 to 3 (root, ESP, BIOS boot), or of the root alone.
    slots: Vec<(u64, u64, String)>,
    /// Inodes of the root file system.
    inodes: u64,
}

impl Layout {
    pub(in crate::bench) fn of(disk: &Path) -> Result<Self> {
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
        let slots: Vec<_> = slots.into_iter().map(|(_, s)| s).collect();
        let (start, ..) = slots.first().context("the disk has no partition")?;
        let header = stdout(Command::new("/usr/sbin/dumpe2fs").arg("-h").arg(format!(
            "{}?offset={}",
            disk.display(),
            start * 512
        )))?;
        let inodes = header
            .lines()
            .find_map(|line| line.strip_prefix("Inode count:")?.trim().parse().ok())
            .context("dumpe2fs counts no inodes")?;
        Ok(Self {
            sectors: fs_err::metadata(disk)?.len() / 512,
            slots,
            inodes,
        })
    }
}

/// Only the file system, with as many inodes as ours has, at its place on the disk.
pub(in crate::bench) fn root_only_script(layout: &Layout, root: &str) -> String {
    let (start, sectors, _) = &layout.slots[0];
    format!(
        r#"set -eu
export PATH="$PATH:/usr/sbin:/sbin"
input=$1 out=$2
{root}
truncate -s {bytes} "$out/disk.raw"
mke2fs -q -F -t ext4 -b 4096 -N {inodes} -E offset={offset} -d "$out/root" "$out/disk.raw" {kib}k
"#,
        bytes = layout.sectors * 512,
        inodes = layout.inodes,
        offset = start * 512,
        kib = sectors / 2,
    )
}

/// How the peer gets its root from a tar archive.
pub(in crate::bench) const UNPACK: &str = "mkdir \"$out/root\"\ntar -xf \"$input\" -C \"$out/root\" --numeric-owner --same-owner -p --xattrs --xattrs-include='*'";

/// What a person who knows the tools writes: each in place on the sparse disk, no copy in between,
/// the ESP filled straight from the unpacked root, GRUB put where the BIOS looks.
///
/// `$1` is the input from which `root` fills `$out/root`, `$2` the folder to work in, `$out`.
pub(in crate::bench) fn peer_script(layout: &Layout, root: &str) -> String {
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
pub(in crate::bench) fn peer_command(script: &Path, tar: &Path, out: &Path) -> Command {
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
pub(in crate::bench) fn check_peer(disk: &Path) -> Result<()> {
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
