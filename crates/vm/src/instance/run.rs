//! An instance that runs.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amiforge_ami::Firmware;
use serde_json::{Value, json};

use super::agent::GuestAgent;
use super::command::{self, GUEST_AGENT_ID, GUEST_AGENT_SOCKET};
use super::console::{Console, ConsoleServer, Log};
use super::{InstanceError, InstanceSpec};
use crate::args::{AGENT_SOCKET, CONSOLE_SOCKET, QMP_SOCKET, VARS_FILE};
use crate::error::VmError;
use crate::process::{Qemu, await_end};
use crate::qmp::Client;
use crate::sockets::{accept, listen};
use crate::tools::{QemuTools, QemuVersion};

/// How long QEMU may take to connect to us; a loaded host needs a while.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long QEMU may take for a command.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Something that happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceEvent {
    /// It restarts in place.
    Reset {
        /// Whether the guest wanted it, and not we.
        by_guest: bool,
    },
    /// It goes off; [`InstanceEvent::Exited`] follows.
    Shutdown(ExitReason),
    /// The kernel of the guest says that it panicked.
    Panicked,
    /// A disk failed, `disk0` being the first.
    DiskError {
        /// The disk.
        disk: String,
        /// Why, as QEMU has it.
        reason: String,
    },
    /// The guest agent came up, or went away.
    AgentOpen(bool),
    /// The log of the console cannot be written any more.
    LogFailed(String),
    /// It is off. The last event.
    Exited(Exit),
}

/// Why a machine went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest powered it off.
    PowerOff,
    /// We ended it: [`RunningInstance::quit`], [`RunningInstance::kill`], or dropping.
    Ended,
    /// The host ended QEMU, by a signal that it obeys.
    Signal,
    /// QEMU failed, or was killed by somebody.
    Crashed,
}

/// The end of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// How QEMU ended.
    pub status: Option<ExitStatus>,
    /// The end of what QEMU said on its standard error.
    pub stderr: String,
}

/// Form of a screenshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenFormat {
    /// PNG; QEMU 7.1 and later.
    Png,
    /// Portable pixmap.
    Ppm,
}

/// Whether the machine runs, by QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether its processors run.
    pub running: bool,
    /// QEMU's word for it: `running`, `paused`, `shutdown`, `io-error` and so on.
    pub state: String,
}

/// A machine that runs. It is killed when the value is dropped, or this process ends.
#[derive(Debug)]
pub struct RunningInstance {
    version: QemuVersion,
    pid: u32,
    shared: Arc<Shared>,
    qmp: Client,
    console: Arc<Console>,
    guest_agent: GuestAgent,
    agent: UnixStream,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    qemu: Mutex<Qemu>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What QEMU said of why it goes.
    shutdown: Option<ExitReason>,
    /// We have ended it.
    ended: bool,
    /// Of the channels of events and console, those that may still tell something.
    open: u32,
    exit: Option<Exit>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn qemu(&self) -> MutexGuard<'_, Qemu> {
        self.qemu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel has nothing more to tell.
    fn closed(&self) {
        self.state().open -= 1;
        self.changed.notify_all();
    }

    /// Waits until the machine is off.
    fn wait(&self, limit: Duration) -> Option<Exit> {
        let until = Instant::now().checked_add(limit);
        let mut state = self.state();
        loop {
            if let Some(exit) = &state.exit {
                return Some(exit.clone());
            }
            let left = match until {
                Some(until) => until.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return None;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

type OnEvent = dyn Fn(InstanceEvent) + Send + Sync;

impl RunningInstance {
    /// Starts an instance. The servers of its disks must be up. `on_event` is called from threads of our own; it may not wait
    /// for the instance.
    ///
    /// # Errors
    /// When a tool is missing, something of `spec` cannot be, or QEMU does not start, with what it says.
    pub fn start(
        tools: &QemuTools,
        spec: &InstanceSpec,
        on_event: impl Fn(InstanceEvent) + Send + Sync + 'static,
    ) -> Result<Self, InstanceError> {
        let on_event: Arc<OnEvent> = Arc::new(on_event);
        let ovmf = match spec.firmware {
            Firmware::Bios => None,
            Firmware::Uefi => Some(tools.ovmf()?),
        };
        let command = command::command(tools, spec, ovmf)?;
        if let Some(ovmf) = ovmf {
            keep_variables(&ovmf.vars, &spec.folder.join(VARS_FILE))?;
        }
        let log_path = &spec.console_log;
        let log = Log::open(log_path).map_err(VmError::io("open", log_path))?;
        let names = [CONSOLE_SOCKET, AGENT_SOCKET, GUEST_AGENT_SOCKET, QMP_SOCKET];
        for name in names {
            // Of a run that was killed. The folder is the instance's alone.
            let path = spec.folder.join(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(VmError::io("remove", path)(e).into());
                }
                _ => {}
            }
        }
        let listeners = names.map(|name| listen(&spec.folder, name));
        let (shared, pid, keeper) = keep(tools, command, on_event.clone())?;
        // From here on, dropping it ends QEMU and the threads.
        let guard = Guard {
            shared: shared.clone(),
            keeper: Some(keeper),
        };
        let until = Instant::now() + CONNECT_LIMIT;
        let connect =
            |listener: Result<_, VmError>| accept(&listener?, &mut shared.qemu(), until, &|| false);
        let [console, agent, guest_agent, qmp] = listeners;
        let (console, agent) = (connect(console)?, connect(agent)?);
        let (guest_agent, qmp) = (connect(guest_agent)?, connect(qmp)?);
        for name in names {
            // Nobody else is to connect, nor to find it later.
            let _ = std::fs::remove_file(spec.folder.join(name));
        }
        let agent_open = Arc::new(AtomicBool::new(false));
        let io = VmError::io("speak with QEMU in", &spec.folder);
        let started = (|| {
            let (own, open, tell) = (shared.clone(), agent_open.clone(), on_event.clone());
            shared.state().open += 1;
            let qmp = Client::start(qmp, move |name, data| {
                happened(name, data, &own, &open, &*tell);
            })?;
            let output = console.try_clone()?;
            let console = Arc::new(Console::new(console));
            let (own, state) = (console.clone(), shared.clone());
            shared.state().open += 1;
            thread::Builder::new()
                .name("console".to_owned())
                .spawn(move || {
                    if let Err(e) = own.follow(output, log) {
                        on_event(InstanceEvent::LogFailed(e.to_string()));
                    }
                    state.closed();
                })?;
            Ok((qmp, console))
        })();
        let (qmp, console) = started.map_err(io)?;
        // Without it QEMU takes no commands. It connects before it looks for its disks, so it may still give up.
        let command = "qmp_capabilities";
        if let Err(e) = qmp.execute(command, Value::Null, CONNECT_LIMIT) {
            return Err(match shared.wait(Duration::from_secs(2)) {
                Some(exit) if !exit.stderr.is_empty() => VmError::Qemu {
                    stderr: exit.stderr,
                }
                .into(),
                _ => InstanceError::of_command(command)(e),
            });
        }
        Ok(Self {
            version: tools.version,
            pid,
            shared,
            qmp,
            console,
            guest_agent: GuestAgent::new(guest_agent, agent_open),
            agent,
            keeper: guard.release(),
        })
    }

    /// The process id of QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Presses the power button (ACPI): the guest shuts down, if it listens.
    ///
    /// # Errors
    /// When QEMU is gone or does not answer.
    pub fn power_down(&self) -> Result<(), InstanceError> {
        self.command("system_powerdown", Value::Null).map(drop)
    }

    /// Restarts the machine at once, as its reset button would.
    ///
    /// # Errors
    /// When QEMU is gone or does not answer.
    pub fn reset(&self) -> Result<(), InstanceError> {
        self.command("system_reset", Value::Null).map(drop)
    }

    /// Switches the machine off at once, with what QEMU has cached on its disks, and waits for the end: at most `limit`, then
    /// it is killed.
    pub fn quit(&self, limit: Duration) -> Exit {
        self.shared.state().ended = true;
        // When it does not answer it is killed below.
        let _ = self.command("quit", Value::Null);
        if let Some(exit) = self.wait(limit) {
            return exit;
        }
        self.kill()
    }

    /// Kills QEMU and waits for its end.
    pub fn kill(&self) -> Exit {
        self.shared.state().ended = true;
        self.shared.qemu().kill();
        loop {
            if let Some(exit) = self.wait(Duration::from_secs(60)) {
                return exit;
            }
        }
    }

    /// Waits until the machine is off: at most `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Option<Exit> {
        self.shared.wait(limit)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// When QEMU is gone or does not answer.
    pub fn status(&self) -> Result<Status, InstanceError> {
        let answer = self.command("query-status", Value::Null)?;
        Ok(Status {
            running: answer["running"].as_bool().unwrap_or(false),
            state: answer["status"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Writes what the screen shows to a file, which is made or overwritten; a relative path begins at the instance's folder.
    ///
    /// # Errors
    /// When the file cannot be written, QEMU is too old for the format, or it is gone.
    pub fn screendump(&self, path: &Path, format: ScreenFormat) -> Result<(), InstanceError> {
        let Some(file) = path.to_str() else {
            return Err(InstanceError::Path {
                path: path.to_owned(),
            });
        };
        let mut arguments = json!({ "filename": file });
        if format == ScreenFormat::Png {
            let (major, minor) = (self.version.major, self.version.minor);
            if (major, minor) < (7, 1) {
                return Err(InstanceError::Refused {
                    command: "screendump",
                    message: format!("QEMU {} cannot write PNG, 7.1 can", self.version),
                });
            }
            arguments["format"] = "png".into();
        }
        self.command("screendump", arguments).map(drop)
    }

    /// Serves the serial console on `listener`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn serve_console(&self, listener: UnixListener) -> io::Result<ConsoleServer> {
        ConsoleServer::start(listener, self.console.clone())
    }

    /// The line to our own agent in the guest, `org.amiforge.agent.0`. Reading blocks.
    #[must_use]
    pub fn agent(&self) -> &UnixStream {
        &self.agent
    }

    /// Has the guest agent freeze all file systems, and gives how many: what is on the disks then is consistent. Every
    /// freeze needs its [`fs_thaw`](Self::fs_thaw), also after an error.
    ///
    /// # Errors
    /// When no agent runs, it refuses, or it does not answer within `limit`.
    pub fn fs_freeze(&self, limit: Duration) -> Result<u64, InstanceError> {
        self.agent_count("guest-fsfreeze-freeze", limit)
    }

    /// Has the guest agent thaw all file systems, and gives how many were frozen.
    ///
    /// # Errors
    /// As those of [`fs_freeze`](Self::fs_freeze).
    pub fn fs_thaw(&self, limit: Duration) -> Result<u64, InstanceError> {
        self.agent_count("guest-fsfreeze-thaw", limit)
    }

    fn agent_count(&self, command: &'static str, limit: Duration) -> Result<u64, InstanceError> {
        let answer = self.guest_agent.execute(command, Value::Null, limit)?;
        answer.as_u64().ok_or_else(|| InstanceError::Agent {
            command,
            message: "its answer is no number".to_owned(),
        })
    }

    fn command(&self, command: &'static str, arguments: Value) -> Result<Value, InstanceError> {
        self.qmp
            .execute(command, arguments, COMMAND_LIMIT)
            .map_err(InstanceError::of_command(command))
    }
}

impl Drop for RunningInstance {
    fn drop(&mut self) {
        drop(Guard {
            shared: self.shared.clone(),
            keeper: self.keeper.take(),
        });
    }
}

/// Ends QEMU and its keeper.
struct Guard {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

impl Guard {
    fn release(mut self) -> Option<JoinHandle<()>> {
        self.keeper.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            self.shared.state().ended = true;
            self.shared.qemu().kill();
            let _ = keeper.join();
        }
    }
}

/// Starts QEMU on a thread that stays until its end: QEMU is killed when the thread that started it ends, and the caller's
/// may end before the instance does.
fn keep(
    tools: &QemuTools,
    command: std::process::Command,
    on_event: Arc<OnEvent>,
) -> Result<(Arc<Shared>, u32, JoinHandle<()>), InstanceError> {
    let (send, receive) = mpsc::channel();
    let start = move || {
        let qemu = match Qemu::start(command) {
            Ok(qemu) => qemu,
            Err(e) => return drop(send.send(Err(e))),
        };
        let pid = qemu.pid();
        let shared = Arc::new(Shared {
            qemu: Mutex::new(qemu),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let number = pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        drop(send.send(Ok((shared.clone(), number))));
        if let Some(pid) = pid {
            await_end(pid);
        }
        let (status, stderr) = {
            let mut qemu = shared.qemu();
            (qemu.wait(Duration::from_secs(10)), qemu.stderr())
        };
        // The last events and words may still be on their way.
        let mut state = shared.state();
        let until = Instant::now() + Duration::from_secs(1);
        while state.open > 0 && Instant::now() < until {
            (state, _) = shared
                .changed
                .wait_timeout(state, until.saturating_duration_since(Instant::now()))
                .unwrap_or_else(PoisonError::into_inner);
        }
        let reason = match (state.ended, state.shutdown) {
            (_, Some(ExitReason::PowerOff)) => ExitReason::PowerOff,
            (true, _) => ExitReason::Ended,
            (false, Some(reason)) => reason,
            (false, None) => ExitReason::Crashed,
        };
        let exit = Exit {
            reason,
            status,
            stderr,
        };
        drop(state);
        on_event(InstanceEvent::Exited(exit.clone()));
        shared.state().exit = Some(exit);
        shared.changed.notify_all();
    };
    let wrong = VmError::io("start", &tools.qemu);
    let keeper = thread::Builder::new().name("qemu".to_owned()).spawn(start);
    let started = keeper.and_then(|keeper| match receive.recv() {
        Ok(Ok((shared, pid))) => Ok((shared, pid, keeper)),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(io::Error::other("the thread that starts it ended")),
    });
    Ok(started.map_err(wrong)?)
}

/// An event of QEMU.
fn happened(name: &str, data: &Value, shared: &Shared, agent_open: &AtomicBool, tell: &OnEvent) {
    match name {
        "RESET" => {
            agent_open.store(false, Ordering::SeqCst);
            let by_guest = data["guest"].as_bool().unwrap_or(true);
            tell(InstanceEvent::Reset { by_guest });
        }
        "SHUTDOWN" => {
            let reason = match data["reason"].as_str() {
                Some("guest-shutdown") => ExitReason::PowerOff,
                Some("host-qmp-quit") => ExitReason::Ended,
                Some("host-signal") => ExitReason::Signal,
                _ => ExitReason::Crashed,
            };
            shared.state().shutdown = Some(reason);
            tell(InstanceEvent::Shutdown(reason));
        }
        "GUEST_PANICKED" => tell(InstanceEvent::Panicked),
        "BLOCK_IO_ERROR" => tell(InstanceEvent::DiskError {
            disk: data["node-name"].as_str().unwrap_or_default().to_owned(),
            reason: data["reason"].as_str().unwrap_or_default().to_owned(),
        }),
        "VSERPORT_CHANGE" if data["id"] == GUEST_AGENT_ID => {
            let open = data["open"].as_bool().unwrap_or(false);
            agent_open.store(open, Ordering::SeqCst);
            tell(InstanceEvent::AgentOpen(open));
        }
        "" => shared.closed(),
        _ => {}
    }
}

/// Makes the store of UEFI variables, unless the instance has one. It appears whole or not at all.
fn keep_variables(template: &Path, vars: &Path) -> Result<(), InstanceError> {
    if vars.exists() {
        return Ok(());
    }
    let bytes = std::fs::read(template).map_err(VmError::io("read", template))?;
    let begun = vars.with_extension("new");
    let write = || {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&begun)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(VmError::io("write", &begun))?;
    std::fs::rename(&begun, vars).map_err(VmError::io("write", vars))?;
    Ok(())
}
