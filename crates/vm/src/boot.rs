//! One boot: start the machine, watch it, let the session speak with it, power it off, tell.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use amiforge_ami::DeviceName;
use amiforge_types::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::args::{self, MACHINE};
use crate::console::Milestone;
use crate::error::{BoxError, VmError};
use crate::link::{GuestLink, LinkError, SessionError, SessionOutcome};
use crate::machine::{Shared, seconds};
use crate::overlay;
use crate::process::Qemu;
use crate::qmp::{self, Shutdown};
use crate::report::{BootRun, Failure, VolumeProof};
use crate::sockets::{accept, listen};
use crate::spec::{BootSpec, Volume, VolumeSource};
use crate::tools::{Ovmf, QemuTools};

/// QEMU opens its sockets before it loads the firmware; a loaded host needs a while all the same.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(25);
/// What a failed guest may still print before it is killed.
const FAILURE_GRACE: Duration = Duration::from_secs(2);

/// What the caller does during a boot.
pub struct BootHooks<'a> {
    /// Content digest of a volume's file as it is now; called before and after for every
    /// [`VolumeSource::File`].
    pub digest: &'a (dyn Fn(&Volume) -> Result<Digest, BoxError> + Sync),
    /// Called once per milestone, with the time since the start, from another thread.
    pub milestone: &'a (dyn Fn(Milestone, Duration) + Sync),
}

impl std::fmt::Debug for BootHooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootHooks").finish_non_exhaustive()
    }
}

/// How the session ended, before anything is made of it.
enum Ended {
    Session(SessionOutcome),
    Link(LinkError),
    Failed(BoxError),
    NoPowerOff,
}

/// Boots `spec` and runs `session` against the guest.
///
/// The session runs on the calling thread, which must live as long as the boot does: QEMU gets
/// `SIGKILL` when it ends. When the session returns, the guest is given the rest of the time to reach the
/// required milestones, then it is asked to power off, unless it already has.
///
/// `Ok` means that the guest came through; [`BootRun::passed`] is then false only when the session
/// says that its tests failed. Every other outcome is an error, which holds the run where there is
/// one. In all cases QEMU is gone and the temporary folder removed.
pub fn boot(
    tools: &QemuTools,
    spec: &BootSpec,
    hooks: &BootHooks<'_>,
    session: &mut dyn FnMut(&mut GuestLink<'_>) -> Result<SessionOutcome, SessionError>,
) -> Result<BootRun, VmError> {
    let ovmf = args::firmware(tools, spec)?;
    let mut volumes = digests_before(spec, hooks)?;

    let parent = absolute(&spec.options.temp_parent)?;
    let temp = tempfile::Builder::new()
        .prefix("amiforge-vm-")
        .tempdir_in(&parent)
        .map_err(VmError::io("create a folder in", &parent))?;
    prepare(temp.path(), spec, ovmf)?;
    let log_path = &spec.options.console_log;
    let log = std::fs::File::create(log_path).map_err(VmError::io("create", log_path))?;

    let command = args::command(tools, &absolute_volumes(spec)?, ovmf, temp.path());
    let machine = Machine::start(tools, command, &temp)?;
    let (shared, ended, log_result) = machine.run(spec, hooks, log, session);
    let seconds = seconds(shared.elapsed());
    log_result.map_err(VmError::io("write", log_path))?;
    drop(temp);

    let changed = digests_after(spec, hooks, &mut volumes)?;
    let state = shared.lock();
    let run = BootRun {
        firmware: spec.firmware,
        passed: false,
        seconds,
        qemu: tools.version,
        machine: MACHINE.to_owned(),
        accelerator: spec.options.acceleration.accelerator,
        memory_mib: spec.options.memory_mib,
        cpus: spec.options.cpus,
        volumes,
        milestones: state.milestones.clone(),
        powered_off: state.shutdown == Some(Shutdown::PowerOff),
        failure: None,
        tests: Value::Null,
        console_log: log_path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    let tail = state.scanner.tail();
    let how = match (state.shutdown, state.exited) {
        (Some(Shutdown::PowerOff), _) => "powered off".to_owned(),
        (Some(Shutdown::Reset), _) => "restarted".to_owned(),
        (_, Some(status)) if !status.success() => format!("was lost (QEMU ended with {status})"),
        _ => "went away".to_owned(),
    };
    drop(state);
    conclude(spec, run, ended, changed, how, tail)
}

/// Turns what happened into the result.
fn conclude(
    spec: &BootSpec,
    mut run: BootRun,
    ended: Ended,
    changed: Option<DeviceName>,
    how: String,
    console_tail: Vec<String>,
) -> Result<BootRun, VmError> {
    if changed.is_none()
        && run.powered_off
        && let Ended::Session(outcome) = ended
    {
        run.passed = outcome.passed;
        run.tests = outcome.tests;
        return Ok(run);
    }
    let failed = |code: &str, message: String| {
        run.failure = Some(Failure {
            code: code.to_owned(),
            message,
            console_tail,
        });
        Box::new(run)
    };
    if let Some(device) = changed {
        let run = failed(
            "artefact-changed",
            format!("the disk of {device} changed while the guest ran"),
        );
        return Err(VmError::ArtefactChanged { device, run });
    }
    let limit = seconds(spec.options.timeout);
    let error = match ended {
        Ended::Session(_) | Ended::Link(LinkError::GuestGone) => {
            let run = failed("exited", format!("the guest {how} too early"));
            return Err(VmError::Exited { how, run });
        }
        Ended::NoPowerOff => {
            let seconds = seconds(spec.options.power_off_timeout);
            let run = failed(
                "no-power-off",
                format!("the guest did not power off within {seconds:.0} s"),
            );
            return Err(VmError::NoPowerOff { seconds, run });
        }
        Ended::Link(LinkError::Cancelled) => return Err(VmError::Cancelled),
        Ended::Link(LinkError::GuestFailed(failure)) => {
            let run = failed(failure.code(), failure.to_string());
            return Err(VmError::Guest { failure, run });
        }
        Ended::Link(LinkError::BootTimeout) => {
            let run = failed(
                "timeout",
                format!("the guest did not get through within {limit:.0} s"),
            );
            return Err(VmError::Timeout {
                seconds: limit,
                last: run.last_milestone(),
                run,
            });
        }
        Ended::Link(error) => BoxError::from(error),
        Ended::Failed(error) => error,
    };
    let run = failed("session", error.to_string());
    Err(VmError::Session { source: error, run })
}

fn digests_before(spec: &BootSpec, hooks: &BootHooks<'_>) -> Result<Vec<VolumeProof>, VmError> {
    let mut proofs = Vec::new();
    for volume in &spec.volumes {
        let mut proof = VolumeProof {
            device: volume.device.clone(),
            file: None,
            format: None,
            attached_bytes: volume.attached_bytes,
            digest_before: None,
            digest_after: None,
        };
        if let VolumeSource::File {
            path,
            format,
            content_digest,
            ..
        } = &volume.source
        {
            if *format == amiforge_ami::ArtifactFormat::Qcow2 {
                overlay::check_qcow2(path).map_err(VmError::io("boot from", path))?;
            }
            let found = digest(volume, hooks)?;
            if found != *content_digest {
                let device = volume.device.clone();
                return Err(VmError::NotTheArtefact {
                    device,
                    found,
                    expected: *content_digest,
                });
            }
            proof.file = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            proof.format = Some(*format);
            proof.digest_before = Some(found);
        }
        proofs.push(proof);
    }
    Ok(proofs)
}

/// Fills in the digests after; the first volume that changed.
fn digests_after(
    spec: &BootSpec,
    hooks: &BootHooks<'_>,
    proofs: &mut [VolumeProof],
) -> Result<Option<DeviceName>, VmError> {
    for (volume, proof) in spec.volumes.iter().zip(proofs.iter_mut()) {
        if proof.digest_before.is_some() {
            proof.digest_after = Some(digest(volume, hooks)?);
        }
    }
    Ok(proofs
        .iter()
        .find(|p| p.digest_before != p.digest_after)
        .map(|p| p.device.clone()))
}

fn digest(volume: &Volume, hooks: &BootHooks<'_>) -> Result<Digest, VmError> {
    (hooks.digest)(volume).map_err(|source| VmError::Digest {
        device: volume.device.clone(),
        source,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, VmError> {
    std::path::absolute(path).map_err(VmError::io("resolve", path))
}

/// QEMU runs in the temporary folder, so the artefacts need absolute paths.
fn absolute_volumes(spec: &BootSpec) -> Result<BootSpec, VmError> {
    let mut spec = spec.clone();
    for volume in &mut spec.volumes {
        if let VolumeSource::File { path, .. } = &mut volume.source {
            *path = absolute(path)?;
        }
    }
    Ok(spec)
}

/// Fills the temporary folder: overlays, seed, variable store.
fn prepare(dir: &Path, spec: &BootSpec, ovmf: Option<&Ovmf>) -> Result<(), VmError> {
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = dir.join(args::overlay_file(index));
        overlay::create(&path, volume.attached_bytes).map_err(VmError::io("create", path))?;
    }
    if let Some(seed) = &spec.options.seed {
        let path = dir.join(args::SEED_FILE);
        std::fs::write(&path, seed).map_err(VmError::io("write", path))?;
    }
    if let Some(ovmf) = ovmf {
        let path = dir.join(args::VARS_FILE);
        // Bytes only: the template is often read-only, the copy must not be.
        let bytes = std::fs::read(&ovmf.vars).map_err(VmError::io("read", &ovmf.vars))?;
        std::fs::write(&path, bytes).map_err(VmError::io("write", path))?;
    }
    Ok(())
}

/// A started QEMU with its three channels.
struct Machine {
    qemu: Qemu,
    console: UnixStream,
    agent: UnixStream,
    qmp: UnixStream,
}

impl Machine {
    /// Listens, starts QEMU and waits until it has connected. QEMU is the client, so that no byte of
    /// the console is printed before somebody reads it.
    fn start(tools: &QemuTools, command: Command, dir: &TempDir) -> Result<Self, VmError> {
        let listeners = [args::CONSOLE_SOCKET, args::AGENT_SOCKET, args::QMP_SOCKET]
            .map(|name| listen(dir.path(), name));
        let mut qemu = Qemu::start(command).map_err(VmError::io("start", &tools.qemu))?;
        let until = Instant::now() + CONNECT_LIMIT;
        let mut accept = |listener: Result<_, _>| accept(&listener?, &mut qemu, until, &|| false);
        let [console, agent, qmp] = listeners;
        let (console, agent, qmp) = (accept(console)?, accept(agent)?, accept(qmp)?);
        Ok(Self {
            qemu,
            console,
            agent,
            qmp,
        })
    }

    /// Runs to the end of QEMU.
    fn run(
        self,
        spec: &BootSpec,
        hooks: &BootHooks<'_>,
        log: std::fs::File,
        session: &mut dyn FnMut(&mut GuestLink<'_>) -> Result<SessionOutcome, SessionError>,
    ) -> (Shared, Ended, std::io::Result<()>) {
        let Self {
            qemu,
            mut console,
            agent,
            qmp,
        } = self;
        let shared = Shared::new(3);
        let until = Instant::now() + spec.options.timeout;
        shared.update(|state| state.deadline = Some(until));
        let qemu = Mutex::new(qemu);
        let mut log_result = Ok(());
        let ended = std::thread::scope(|scope| {
            // Whatever happens on this thread, a panic of the session included, the machine ends and
            // with it the threads that the scope waits for.
            let _stop = StopOnDrop(&shared);
            let console = scope.spawn(|| {
                let mut log = log;
                shared.read_console(&mut console, &mut log)
            });
            let agent_reader = agent.try_clone();
            scope.spawn(|| match agent_reader {
                Ok(mut stream) => shared.read_agent(&mut stream),
                Err(_) => shared.update(|state| state.open_channels -= 1),
            });
            let mut control = qmp.try_clone();
            scope.spawn(|| {
                qmp::events(qmp, |shutdown| {
                    shared.update(|state| state.shutdown = Some(shutdown));
                });
                shared.update(|state| state.open_channels -= 1);
            });
            scope.spawn(|| watch(&shared, &qemu, spec, hooks));
            if let Ok(control) = &mut control {
                // Without it QEMU takes no commands; events come all the same after it.
                let _ = qmp::command(control, "qmp_capabilities");
            }

            let restarts = control.as_ref().ok().and_then(|c| c.try_clone().ok());
            let mut link = GuestLink::new(&shared, agent, restarts, spec.options.timeout, until);
            let ended = match session(&mut link) {
                Ok(outcome) => finish(spec, &shared, &mut link, control.ok().as_mut(), outcome),
                Err(SessionError::Link(error)) => Ended::Link(error),
                Err(SessionError::Other(error)) => root_cause(&shared, error),
            };
            shared.update(|state| {
                state.closing = true;
                state.stop = true;
            });
            drop(link);
            log_result = console.join().unwrap_or(Ok(()));
            ended
        });
        (shared, ended, log_result)
    }
}

/// A session that failed because the guest did reports the guest.
fn root_cause(shared: &Shared, error: BoxError) -> Ended {
    match shared.check() {
        Err(lost) => Ended::Link(lost),
        Ok(()) => Ended::Failed(error),
    }
}

/// After the session: the required milestones, then the power-off.
fn finish(
    spec: &BootSpec,
    shared: &Shared,
    link: &mut GuestLink<'_>,
    control: Option<&mut UnixStream>,
    outcome: SessionOutcome,
) -> Ended {
    shared.update(|state| state.closing = true);
    for milestone in &spec.options.required {
        if let Err(error) = link.wait_for(*milestone, link.remaining()) {
            return Ended::Link(error);
        }
    }
    let limit = Instant::now() + spec.options.power_off_timeout;
    let already_off = shared.update(|state| {
        state.deadline = None;
        state.shutdown.is_some() || state.exited.is_some()
    });
    if !already_off && let Some(control) = control {
        // When QEMU is gone in this moment, the wait below says so.
        let _ = qmp::command(control, "system_powerdown");
    }
    match shared.wait(limit, |state| state.gone().then_some(())) {
        Ok(Some(())) => Ended::Session(outcome),
        Ok(None) => Ended::NoPowerOff,
        Err(error) => Ended::Link(error),
    }
}

/// Watches the process, the clock and the caller's wish; ends the machine when it must end.
fn watch(shared: &Shared, qemu: &Mutex<Qemu>, spec: &BootSpec, hooks: &BootHooks<'_>) {
    let mut told = 0;
    loop {
        let gone = shared.lock().gone();
        if gone && shared.lock().shutdown == Some(Shutdown::PowerOff) {
            // Only now, so that it comes after whatever the console still held.
            shared.reach(Milestone::PowerOff);
        }
        let status = qemu
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait();
        let now = Instant::now();
        let elapsed = shared.elapsed();
        let kill = shared.update(|state| {
            if status.is_some() {
                state.exited = status;
                return false;
            }
            if spec.options.cancel.load(Ordering::Relaxed) {
                state.cancelled = true;
            }
            if state.deadline.is_some_and(|deadline| now >= deadline) {
                state.timed_out = true;
            }
            let lost = state
                .failure
                .as_ref()
                .is_some_and(|(_, when)| elapsed > *when + FAILURE_GRACE);
            state.cancelled || state.timed_out || state.stop || lost
        });
        let fresh = shared
            .lock()
            .milestones
            .get(told..)
            .unwrap_or_default()
            .to_vec();
        told += fresh.len();
        for record in fresh {
            (hooks.milestone)(
                record.name,
                Duration::try_from_secs_f64(record.seconds).unwrap_or_default(),
            );
        }
        if gone {
            return;
        }
        if kill {
            qemu.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
        std::thread::sleep(TICK);
    }
}

struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.closing = true;
            state.stop = true;
        });
    }
}
