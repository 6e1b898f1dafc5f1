//! A small machine with a kernel and an initrd of its own: no firmware menu, no boot loader, no disk to boot from.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use amiforge_sys::{LockKind, try_lock};
use serde_json::json;
use tempfile::TempDir;

use crate::accel::Accelerator;
use crate::args;
use crate::error::VmError;
use crate::process::Qemu;
use crate::sockets::{accept, listen};
use crate::tools::QemuTools;

/// How the folders of machines begin, and the file in each that is locked as long as somebody uses it.
const PREFIX: &str = "amiforge-micro-";
const LOCK: &str = "lock";

/// How long QEMU may take to connect to its lines.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the console that are told.
const CONSOLE_TAIL: usize = 2000;

/// Devices are functions of PCI slots, eight a slot, from this one on.
const FIRST_SLOT: usize = 8;

/// The most disks that fit.
const MAX_DISKS: usize = 8 * (30 - FIRST_SLOT);

/// What a micro-VM is made of.
#[derive(Clone, Debug)]
pub struct MicroSpec {
    /// A Linux kernel, as its boot protocol has it.
    pub kernel: PathBuf,
    /// Its initrd ([`write_initrd`](crate::write_initrd)).
    pub initrd: Vec<u8>,
    /// Its disks.
    pub disks: Vec<MicroDisk>,
    /// Names of its virtio-serial ports.
    pub ports: Vec<String>,
    /// Whether QEMU's own network is there, through which the guest reaches what the host does.
    pub network: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// What executes it.
    pub accelerator: Accelerator,
}

/// A disk of a micro-VM: a raw file.
#[derive(Clone, Debug)]
pub struct MicroDisk {
    /// The file; its length is a multiple of 512.
    pub file: PathBuf,
    /// Serial number, at most 20 bytes, by which the guest knows it.
    pub serial: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// A micro-VM that runs. It is killed when the value is dropped, or the thread that started it ends.
#[derive(Debug)]
pub struct MicroVm {
    qemu: Mutex<Qemu>,
    ports: Vec<UnixStream>,
    dir: TempDir,
    /// Of the folder.
    _lock: File,
}

impl MicroSpec {
    /// Memory and processors that suit the host.
    #[must_use]
    pub fn sized() -> (u32, u32) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = rustix::system::sysinfo();
        let host_mib = (memory.totalram as u64).saturating_mul(memory.mem_unit.into()) >> 20;
        let memory_mib = u32::try_from(host_mib / 4).map_or(2048, |mib| mib.clamp(1024, 2048));
        (
            memory_mib,
            u32::try_from(cpus).map_or(4, |cpus| cpus.min(4)),
        )
    }

    fn command(&self, tools: &QemuTools, dir: &Path, initrd: &Path) -> Result<Command, VmError> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(VmError::io("resolve", path));
        let mut c = Command::new(&tools.qemu);
        c.current_dir(dir);
        c.args([
            "-name",
            "amiforge",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]);
        c.args(["-display", "none", "-vga", "none"]);
        c.args([
            "-machine",
            // Its memory holds what nobody is to see.
            &format!("{},graphics=off,dump-guest-core=off", args::MACHINE),
        ]);
        args::processors(&mut c, self.accelerator, self.memory_mib, self.cpus, None);
        c.arg("-kernel").arg(absolute(&self.kernel)?);
        c.arg("-initrd").arg(initrd);
        c.args([
            "-append",
            "console=ttyS0 quiet panic=-1 rdinit=/init random.trust_cpu=on mitigations=off no_timer_check rcupdate.rcu_expedited=1",
        ]);
        c.args(["-serial", "stdio"]);
        for (n, disk) in self.disks.iter().enumerate() {
            let path = absolute(&disk.file)?;
            let Some(path) = path.to_str() else {
                let e = std::io::Error::other("the name is not UTF-8");
                return Err(VmError::io("use", path)(e));
            };
            let file = json!({
                "driver": "file", "filename": path, "read-only": disk.read_only,
                "discard": "unmap", "cache": {"no-flush": true},
            });
            let node = json!({
                "driver": "raw", "node-name": format!("disk{n}"), "read-only": disk.read_only,
                "discard": "unmap", "cache": {"no-flush": true}, "file": file,
            });
            args::blockdev(&mut c, &node);
            let (slot, function) = (FIRST_SLOT + n / 8, n % 8);
            let multifunction = if function == 0 { "on" } else { "off" };
            // With another `werror` the machine would stand still when the host's disk is full.
            c.args([
                "-device",
                &format!(
                    "virtio-blk-pci,drive=disk{n},serial={},addr={slot:x}.{function},multifunction={multifunction},werror=report",
                    disk.serial
                ),
            ]);
        }
        if self.network {
            args::network(&mut c);
        }
        args::entropy(&mut c);
        c.args(["-device", "virtio-serial-pci,id=serial"]);
        for (n, name) in self.ports.iter().enumerate() {
            c.args(["-chardev", &format!("socket,id=port{n},path={}", socket(n))]);
            c.args([
                "-device",
                &format!("virtserialport,bus=serial.0,chardev=port{n},name={name}"),
            ]);
        }
        Ok(c)
    }
}

/// A new folder for a machine, and its lock.
fn folder(parent: &Path) -> std::io::Result<(TempDir, File)> {
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
    // Nobody sees it by its name before it is locked.
    let new = dir.path().join("new");
    let lock = File::options().write(true).create_new(true).open(&new)?;
    if !try_lock(&lock, LockKind::Exclusive)? {
        return Err(std::io::ErrorKind::ResourceBusy.into());
    }
    std::fs::rename(&new, dir.path().join(LOCK))?;
    Ok((dir, lock))
}

/// Removes the folders of machines whose owner was killed. What cannot be looked at or removed stays.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    let us = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == us);
        if !ours {
            continue;
        }
        let lock = File::options().write(true).open(entry.path().join(LOCK));
        // Who made it and has not locked it yet has no file of that name.
        if lock.is_ok_and(|lock| matches!(try_lock(&lock, LockKind::Exclusive), Ok(true))) {
            let _rest = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn socket(port: usize) -> String {
    format!("port{port}.sock")
}

impl MicroVm {
    /// Starts one. The guest speaks on its ports when it is up.
    ///
    /// # Errors
    /// When QEMU does not start, or `cancel` was raised.
    pub fn start(
        tools: &QemuTools,
        spec: &MicroSpec,
        cancel: &AtomicBool,
    ) -> Result<Self, VmError> {
        let parent = std::env::temp_dir();
        remove_abandoned(&parent);
        let (dir, lock) = folder(&parent).map_err(VmError::io("create a folder in", &parent))?;
        if spec.disks.len() > MAX_DISKS {
            let stderr = format!("{} disks are more than {MAX_DISKS}", spec.disks.len());
            return Err(VmError::Qemu { stderr });
        }
        let initrd = dir.path().join("initrd");
        std::fs::write(&initrd, &spec.initrd).map_err(VmError::io("write", &initrd))?;
        let mut listeners = Vec::new();
        for n in 0..spec.ports.len() {
            listeners.push(listen(dir.path(), &socket(n))?);
        }
        let command = spec.command(tools, dir.path(), &initrd)?;
        let mut qemu =
            Qemu::start_with_console(command).map_err(VmError::io("start", &tools.qemu))?;
        let until = Instant::now() + CONNECT_LIMIT;
        let mut ports = Vec::new();
        for listener in listeners {
            let cancelled = || cancel.load(Ordering::Relaxed);
            ports.push(accept(&listener, &mut qemu, until, &cancelled)?);
        }
        Ok(Self {
            qemu: Mutex::new(qemu),
            ports,
            dir,
            _lock: lock,
        })
    }

    /// The lines of its ports, in their order. Reading blocks.
    #[must_use]
    pub fn ports(&self) -> &[UnixStream] {
        &self.ports
    }

    /// The folder of its lines, which goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// What is known of its end: what QEMU said, and the end of what the guest wrote to its console. Waits a moment for that
    /// end.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut qemu = self.qemu.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match qemu.wait(Duration::from_secs(1)) {
            Some(_) => qemu.stderr(),
            None => String::new(),
        };
        let console = qemu.console();
        let tail = console.len().saturating_sub(CONSOLE_TAIL);
        let console = String::from_utf8_lossy(&console[tail..]);
        let words = [said.trim(), console.trim()];
        let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
        words.join("\n")
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        let qemu = self.qemu.get_mut();
        qemu.unwrap_or_else(PoisonError::into_inner).kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_machines_that_were_killed_go_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let (used, _lock) = folder(parent.path()).unwrap();
        let (left, lock) = folder(parent.path()).unwrap();
        std::fs::write(left.path().join("initrd"), "x").unwrap();
        let left = left.keep();
        // As the kernel does at the end of a process.
        drop(lock);
        let begun = parent.path().join(format!("{PREFIX}begun"));
        let other = parent.path().join("other");
        for dir in [&begun, &other] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(other.join(LOCK), "").unwrap();
        remove_abandoned(parent.path());
        assert!(!left.exists());
        assert!(used.path().exists() && begun.exists() && other.exists());
        drop(used);
    }
}
