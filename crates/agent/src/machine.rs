//! As the first process of a micro-VM, started by the kernel from its initrd: makes the machine usable, then serves the
//! host's jobs ([`amiforge_exec::serve_jobs`]). When it ends, the machine does.
//!
//! ```text
//! /modules/*          of the initrd: what the kernel lacks, in the order of their names
//! disks               by their serial numbers: lower0, lower1, … on /lower0, …; upper on /upper; lent on /lent
//! ports               by their names, as amiforge_exec has them (LINK_PORT, …)
//! eth0                when there is one: the address that QEMU's own network gives to a guest
//! ```

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use amiforge_exec::{Helper, LAYERS_PORT, LINK_PORT, MachineLines, SHELL_PORTS};
use anyhow::Context as _;
use rustix::mount::{MountFlags, mount};

use crate::system::say;

/// How long devices may take to appear.
const WAIT: Duration = Duration::from_secs(60);

/// QEMU's own network (invocation, `-netdev user`).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

pub(crate) fn main() -> ExitCode {
    if let Err(error) = run() {
        say(&format!("{error:#}"));
    }
    // The kernel tells the virtual machine in any case: its first process ends.
    let _never = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    raise_limits();
    load_modules().context("cannot load the modules of the kernel")?;
    leave_initrd().context("cannot leave the initrd")?;
    // The lines come first, so that there is one to say what is wrong with the disks.
    let mut lines = MachineLines {
        disk: File::open("/")?,
        link: port(LINK_PORT)?,
        layers: port(LAYERS_PORT)?,
        shell: [
            port(SHELL_PORTS[0])?,
            port(SHELL_PORTS[1])?,
            port(SHELL_PORTS[2])?,
        ],
    };
    let ready = mount_disks().and_then(|()| {
        lines.disk = File::open("/upper")?;
        network()
    });
    if let Err(error) = ready {
        lines.give_up(&format!("the machine cannot be used: {error:#}"));
        return Err(error);
    }
    let helper = Helper::new("/proc/self/exe");
    amiforge_exec::serve_jobs(helper, &mut lines, |now| {
        let time = rustix::time::Timespec {
            tv_sec: now.secs,
            tv_nsec: now.nanos.into(),
        };
        // A clock that is seconds off is no reason to give up.
        let _refused = rustix::time::clock_settime(rustix::time::ClockId::Realtime, time);
    })
    .context("cannot talk to the host")
}

/// Those of a first process are the kernel's; steps get theirs from the recipe, as elsewhere.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |n| Rlimit {
        current: n,
        maximum: n,
    };
    // What the kernel does not allow is told by a step that needs it.
    let _refused = setrlimit(Resource::Nofile, limit(Some(1 << 20)));
    let _refused = setrlimit(Resource::Nproc, limit(None));
}

fn load_modules() -> anyhow::Result<()> {
    let mut modules: Vec<PathBuf> = std::fs::read_dir("/modules")?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    modules.sort();
    for path in modules {
        let image = std::fs::read(&path)?;
        match rustix::system::init_module(&image, c"") {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        }
    }
    Ok(())
}

/// Moves to a root in memory: of the initrd's own nobody can move away (pivot_root(2)), and jobs have to.
fn leave_initrd() -> anyhow::Result<()> {
    let new = Path::new("/new");
    std::fs::create_dir(new)?;
    mount(
        "root",
        new,
        "tmpfs",
        MountFlags::empty(),
        Some(c"mode=0755"),
    )?;
    for name in ["dev", "proc", "sys", "etc"] {
        std::fs::create_dir(new.join(name))?;
    }
    std::fs::copy("/init", new.join("init"))?;
    std::fs::remove_file("/init")?;
    mount(
        "dev",
        new.join("dev"),
        "devtmpfs",
        MountFlags::empty(),
        None,
    )?;
    mount("proc", new.join("proc"), "proc", MountFlags::empty(), None)?;
    mount("sys", new.join("sys"), "sysfs", MountFlags::empty(), None)?;
    rustix::process::chdir(new)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// A virtio-serial port by its name.
fn port(name: &str) -> anyhow::Result<File> {
    let found = wait_for(|| {
        let ports = std::fs::read_dir("/sys/class/virtio-ports").ok()?;
        ports.flatten().find_map(|port| {
            let text = std::fs::read_to_string(port.path().join("name")).ok()?;
            (text.trim() == name).then(|| Path::new("/dev").join(port.file_name()))
        })
    });
    let path = found.with_context(|| format!("there is no port {name}"))?;
    let opened = wait_for(|| File::options().read(true).write(true).open(&path).ok());
    opened.with_context(|| format!("cannot open {}", path.display()))
}

fn mount_disks() -> anyhow::Result<()> {
    let disks = wait_for(|| {
        let mut disks = Vec::new();
        for disk in std::fs::read_dir("/sys/block").ok()?.flatten() {
            if let Ok(serial) = std::fs::read_to_string(disk.path().join("serial")) {
                disks.push((serial.trim().to_owned(), disk.file_name()));
            }
        }
        disks
            .iter()
            .any(|(serial, _)| serial == "upper")
            .then_some(disks)
    });
    for (serial, name) in disks.context("there is no disk `upper`")? {
        let place = Path::new("/").join(&serial);
        std::fs::create_dir(&place)?;
        let device = Path::new("/dev").join(name);
        let (flags, options) = match serial.as_str() {
            "upper" => (MountFlags::NOATIME, c"noinit_itable,nobarrier,discard"),
            _ => (MountFlags::RDONLY | MountFlags::NOATIME, c"noload"),
        };
        mount(&device, &place, "ext4", flags, Some(options))
            .with_context(|| format!("cannot mount the disk {serial}"))?;
    }
    Ok(())
}

fn network() -> anyhow::Result<()> {
    if Path::new("/sys/class/net/eth0").exists() {
        amiforge_sys::configure_interface(c"eth0", ADDRESS, MASK, GATEWAY)
            .context("cannot configure the network")?;
    }
    amiforge_sys::loopback_up().context("cannot bring up the loopback interface")
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + WAIT;
    loop {
        match look() {
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            found => return found,
        }
    }
}
