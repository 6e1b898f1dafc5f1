//! A machine that keeps what its guest wrote, so that it can be started again; `amiforge-vm` throws
//! it away by design. Always emulated: the outcome must not depend on the host's processor.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amiforge_ami::Firmware;
use amiforge_disk::{EmitOptions, Extents, Format, Output, emit};
use amiforge_fs::fat::{self, FatFile};
use amiforge_store::FileTarget;
use amiforge_testkit::{Running, workspace_root};
use amiforge_types::{BlobTable, MIB, Timestamp};
use amiforge_vm::QemuTools;
use serde_json::Value;

/// More than a boot and all its stages take on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(3000);

const USER_DATA: &str = "#cloud-config\n\
    bootcmd:\n\
    \x20 - [sh, -c, 'mkdir -p /run/seed && mount -o ro LABEL=CIDATA /run/seed && \
    systemd-run --no-block --collect --unit=amiforge-probe --property=Type=exec python3 /run/seed/run.py']\n";

/// A disk beside the root.
pub(crate) struct Extra {
    /// Its serial number, by which the guest finds it.
    pub(crate) serial: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// Writes extents into a sparse file.
pub(crate) fn write_disk(extents: &Extents, blobs: &BlobTable, path: &Path) {
    let target = FileTarget::from_file(fs_err::File::create(path).unwrap().into_parts().0);
    let output = Output::new(Format::Raw, &target);
    let options = EmitOptions {
        threads: 2,
        content_digest: false,
    };
    emit(extents, blobs, &[output], options).unwrap();
}

/// The disk that cloud-init reads: the scripts of `fixtures/guest` and what they are to do.
fn seed(job: &Value, path: &Path) {
    let meta_data: &[u8] = b"instance-id: i-guest\nlocal-hostname: guest\n";
    let mut files = vec![
        FatFile::new("meta-data", meta_data),
        FatFile::new("user-data", USER_DATA.as_bytes()),
        FatFile::new("job.json", job.to_string().into_bytes()),
    ];
    for entry in fs_err::read_dir(workspace_root().join("fixtures/guest")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".py") {
            files.push(FatFile::new(name, fs_err::read(entry.path()).unwrap()));
        }
    }
    let options = fat::Options {
        size: 8 * MIB,
        volume_id: 0x0A31_F09E,
        label: "CIDATA".to_owned(),
        clock: Timestamp::from_secs(0),
        hidden_sectors: 0,
    };
    write_disk(
        &fat::build(&files, &options).unwrap(),
        &BlobTable::new(),
        path,
    );
}

/// Boots `disk`, lets the guest do `job`, waits until it has powered off, and leaves what it said in
/// `<name>.log`. The variable store of the firmware stays beside the disk, as a machine keeps it.
#[track_caller]
pub(crate) fn boot(
    dir: &Path,
    name: &str,
    firmware: Firmware,
    disk: &Path,
    extras: &[Extra],
    job: &Value,
) {
    let tools = QemuTools::find().expect("QEMU; install it with `cargo xtask setup test`");
    let at = |end: &str| dir.join(format!("{name}.{end}"));
    seed(job, &at("seed"));
    let mut machine = "q35,graphics=off".to_owned();
    let mut c = Command::new(&tools.qemu);
    c.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    c.args(["-display", "none", "-vga", "std"]);
    c.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem"]);
    c.args(["-m", "1024M", "-smp", "1", "-boot", "strict=on,menu=off"]);
    if firmware == Firmware::Uefi {
        let ovmf = tools
            .ovmf()
            .expect("OVMF; install it with `cargo xtask setup test`");
        let vars = disk.with_extension("vars");
        if !vars.exists() {
            fs_err::write(&vars, fs_err::read(&ovmf.vars).unwrap()).unwrap();
        }
        machine.push_str(",pflash0=code,pflash1=vars");
        blockdev(&mut c, "code", &ovmf.code, true);
        blockdev(&mut c, "vars", &vars, false);
    }
    c.args(["-machine", &machine]);
    blockdev(&mut c, "root", disk, false);
    c.args(["-device", "nvme,drive=root,serial=vol0,bootindex=0"]);
    blockdev(&mut c, "seed", &at("seed"), true);
    c.args(["-device", "virtio-blk-pci,drive=seed,serial=seed"]);
    for Extra {
        serial,
        path,
        read_only,
    } in extras
    {
        blockdev(&mut c, serial, path, *read_only);
        let device = format!("virtio-blk-pci,drive={serial},serial={serial}");
        c.args(["-device", &device]);
    }
    c.args(["-netdev", "user,id=net,restrict=on"]);
    c.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    c.args(["-device", "virtio-rng-pci"]);
    c.args(["-serial", &format!("file:{}", at("console").display())]);
    let log = format!("file,id=log,path={}", at("log").display());
    c.args(["-chardev", &log, "-device", "virtio-serial-pci"]);
    c.args([
        "-device",
        "virtserialport,chardev=log,name=org.amiforge.test.0",
    ]);
    // A guest that does not come up is a failure of what the test asserts, so it is left to that.
    let _ = Running::spawn(&mut c).wait(LIMIT);
}

/// Discarded blocks become holes again, and nothing waits for the host's disk.
fn blockdev(c: &mut Command, node: &str, path: &Path, read_only: bool) {
    let node = serde_json::json!({
        "driver": "raw", "node-name": node, "read-only": read_only,
        "discard": "unmap", "cache": {"no-flush": true},
        "file": {"driver": "file", "filename": path, "read-only": read_only,
            "discard": "unmap", "cache": {"no-flush": true}},
    });
    c.args(["-blockdev", &node.to_string()]);
}

/// What a stage of a boot returned. Panics with the end of log and console when it did not.
#[track_caller]
pub(crate) fn result(dir: &Path, name: &str, stage: &str) -> Value {
    let text = |end: &str| {
        let bytes = fs_err::read(dir.join(format!("{name}.{end}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let log = text("log");
    let found = log
        .lines()
        .filter(|line| line.starts_with("{\"stage\""))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["stage"] == stage);
    let Some(found) = found else {
        let end = |text: &str| {
            let lines: Vec<String> = text
                .lines()
                .map(|line| line.chars().take(300).collect())
                .collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        panic!(
            "{name}: stage {stage} did not end\n--- log\n{}\n--- console\n{}",
            end(&log),
            end(&text("console"))
        );
    };
    found["result"].clone()
}
