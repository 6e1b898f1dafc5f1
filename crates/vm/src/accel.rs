//! Whether the host can run a guest under KVM: proven by running one.
//!
//! `/dev/kvm` that opens proves little: under some hypervisors and emulators the first guest
//! instruction hangs. So a [`TinyGuest`] runs with a time limit, and TCG is taken when it does not
//! come through.

use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::VmError;
use crate::payload::{TinyEnding, TinyGuest};
use crate::process::Qemu;
use crate::tools::{QemuTools, QemuVersion};

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through Linux.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// The name QEMU has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The outcome of a probe; may be kept for as long as [`Acceleration::still_valid`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acceleration {
    /// What to use.
    pub accelerator: Accelerator,
    /// Why: one sentence for people.
    pub reason: String,
    /// How long the probe took, in seconds.
    pub seconds: f64,
    /// QEMU's version at the probe.
    pub qemu: QemuVersion,
    /// The kernel's release at the probe.
    pub kernel: String,
}

impl Acceleration {
    /// TCG without a probe, for callers that ask for it.
    #[must_use]
    pub fn tcg(tools: &QemuTools, reason: &str) -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            reason: reason.to_owned(),
            seconds: 0.0,
            qemu: tools.version,
            kernel: kernel_release(),
        }
    }

    /// True when QEMU and the kernel are those of the probe and, for KVM, the device still opens
    /// for this user.
    #[must_use]
    pub fn still_valid(&self, tools: &QemuTools) -> bool {
        self.qemu == tools.version
            && self.kernel == kernel_release()
            && (self.accelerator == Accelerator::Tcg || open_kvm().is_ok())
    }

    /// A limit meant for KVM, made long enough for this accelerator.
    #[must_use]
    pub fn scale(&self, limit: Duration) -> Duration {
        match self.accelerator {
            Accelerator::Kvm => limit,
            // A Debian boot takes 10 to 15 times as long under TCG on the same processor.
            Accelerator::Tcg => limit.saturating_mul(10),
        }
    }
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

fn open_kvm() -> std::io::Result<std::fs::File> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
}

/// Finds out whether KVM works, spending at most about `budget`; two seconds are plenty.
///
/// Anything but a guest that ran to its end under KVM means TCG; the reason says what happened. An
/// error means that the probe itself could not be set up.
pub fn probe_acceleration(tools: &QemuTools, budget: Duration) -> Result<Acceleration, VmError> {
    let started = Instant::now();
    let verdict = |accelerator, reason: String| Acceleration {
        accelerator,
        reason,
        seconds: crate::machine::seconds(started.elapsed()),
        qemu: tools.version,
        kernel: kernel_release(),
    };
    if let Err(e) = open_kvm() {
        return Ok(verdict(
            Accelerator::Tcg,
            format!("/dev/kvm cannot be opened: {e}"),
        ));
    }
    const VALUE: u8 = 0x2A;
    let guest = TinyGuest {
        message: String::new(),
        writes: false,
        ending: TinyEnding::DebugExit(VALUE),
    };
    let dir = tempfile::Builder::new()
        .prefix("amiforge-probe-")
        .tempdir()
        .map_err(VmError::io("create a folder in", std::env::temp_dir()))?;
    let disk = dir.path().join("probe.raw");
    std::fs::write(&disk, guest.disk()).map_err(VmError::io("write", &disk))?;

    let mut command = Command::new(&tools.qemu);
    command.current_dir(dir.path());
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    // The machine and processor of a real boot: KVM may run one kind of guest and abort on another.
    command.args([
        "-machine",
        crate::args::MACHINE,
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "2",
        "-m",
        "64M",
    ]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.args(["-drive", "file=probe.raw,format=raw,if=ide,snapshot=on"]);
    let mut qemu = Qemu::start(command).map_err(VmError::io("start", &tools.qemu))?;
    let status = qemu.wait(
        budget
            .saturating_sub(started.elapsed())
            .max(Duration::from_millis(50)),
    );
    qemu.kill();
    let expected = i32::from(VALUE) * 2 + 1;
    Ok(match status {
        Some(status) if status.code() == Some(expected) => {
            verdict(Accelerator::Kvm, "a guest ran under KVM".to_owned())
        }
        Some(status) => {
            let stderr = qemu.stderr();
            let line = stderr.lines().last().unwrap_or("no message").to_owned();
            verdict(
                Accelerator::Tcg,
                format!("QEMU with KVM ended with {status}: {line}"),
            )
        }
        None => verdict(
            Accelerator::Tcg,
            "/dev/kvm opens, but a guest hangs under it".to_owned(),
        ),
    })
}
