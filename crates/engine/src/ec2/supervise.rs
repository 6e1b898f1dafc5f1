//! The background process of an instance: it serves the volumes and the metadata to QEMU, takes orders, and tells the
//! record what becomes of the machine.
//!
//! ```text
//!   volumes ─NBD─▶ ┌──────┐        ┌─────────┐
//!   metadata ────▶ │ this │ ─QMP─▶ │  QEMU   │ dies with this process
//!   orders ──────▶ └──────┘        └─────────┘
//! ```
//!
//! One process for each instance, started by `run` or `instance start`, which hand it the lock of the instance's folder as
//! its standard input. Its main thread starts the machine and does what it is told, one after the other.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use amiforge_ami::ec2::{Instance, InstanceState, Leftovers, Pending, RootDevice};
use amiforge_ami::{ImageId, InstanceId, VolumeId};
use amiforge_store::ec2::{Making, VolumeFile};
use amiforge_types::GIB;
use amiforge_vm::imds::{ImdsServer, Metadata, Service};
use amiforge_vm::nbd::{BlockDevice, NbdServer};
use amiforge_vm::{
    ConsoleServer, DiskSource, Exit, ExitReason, InstanceDisk, InstanceError, InstanceEvent,
    InstanceNetwork, InstanceSpec, QemuTools, RunningInstance, ScreenFormat,
};
use serde_json::{Value, json};

use super::control::{Order, Ordered, listen};
use super::create::{Filled, fill};
use super::desk::{Desk, Place, broken};
use super::folder::{CONSOLE, ROOT, SCREEN};
use super::instances::EndRequest;
use super::run::Started;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// First argument of the process of an instance; the instance follows.
pub const INSTANCE_ARG: &str = "__amiforge-instance";
/// First argument of the process that joins a connection of the guest with the metadata service; its socket follows.
pub const IMDS_RELAY_ARG: &str = "__amiforge-imds-relay";

const IMDS_SOCKET: &str = "imds.sock";
/// Where its serial line can be attached to, in its folder.
pub(super) const SERIAL_SOCKET: &str = "serial.sock";
/// How often orders and the machine are looked at by turns.
const TICK: Duration = Duration::from_millis(20);
/// Most seconds that a guest gets: a day.
const LONGEST_WAIT: u64 = 86_400;
/// How long QEMU may take to end when it is told to.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// A volume as QEMU sees it.
struct Device(Arc<VolumeFile>);

impl BlockDevice for Device {
    fn len(&self) -> u64 {
        self.0.bytes()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(data, offset)
    }

    fn zero_at(&self, offset: u64, len: u64, _hole: bool) -> io::Result<()> {
        self.0.zero_at(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// What the machine of an instance needs while it runs.
struct Supervisor<'e> {
    desk: Desk<'e>,
    instance: Instance,
    volumes: Vec<(VolumeId, Arc<VolumeFile>)>,
    servers: Vec<NbdServer>,
    service: Arc<Mutex<Service>>,
    _imds: ImdsServer,
    tools: QemuTools,
    spec: InstanceSpec,
    orders: Receiver<Ordered>,
    waiting: VecDeque<Ordered>,
    /// Set by SIGTERM and the like: the guest is shut down then.
    asked_to_end: Arc<AtomicBool>,
}

/// How a machine came to its end.
enum End {
    /// It was told to stop or terminate; who told wants to know how it went.
    Told(Vec<Ordered>, Value),
    /// It powered itself off.
    Guest,
    /// It was lost.
    Lost(String),
}

impl Engine {
    /// The process of an instance. Its standard input is the lock of the instance's folder; its standard output says
    /// whether the machine runs, in one line.
    pub fn supervise(&self, id: &str, asked_to_end: Arc<AtomicBool>) -> Result<(), EngineError> {
        // Of its own session: what happens to the terminal is nothing to it.
        let _ = rustix::process::setsid();
        // What it makes is its user's alone.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        match self.begin(id, asked_to_end) {
            Ok((supervisor, machine)) => {
                say(&Started {
                    problem: None,
                    environment: false,
                });
                supervisor.run(machine)
            }
            Err(error) => {
                say(&Started {
                    problem: Some(error.with_causes()),
                    environment: error.exit_code() == ErrorKind::Environment.exit_code(),
                });
                Err(error)
            }
        }
    }

    fn begin(
        &self,
        id: &str,
        asked_to_end: Arc<AtomicBool>,
    ) -> Result<(Supervisor<'_>, Machine), EngineError> {
        let bad =
            |e: amiforge_ami::IdParseError| EngineError::new(ErrorKind::Invalid, e.to_string());
        let id: InstanceId = id.parse().map_err(bad)?;
        let context = || format!("cannot start {id}");
        let desk = self.desk(&Place::default())?;
        let state = desk.read()?;
        let instance = state.instances.get(&id).cloned();
        let instance = instance
            .ok_or_else(|| EngineError::new(ErrorKind::Failed, format!("{id} is not there")))?;
        let folder = desk.folder(&id);
        // Names of sockets are short then, however long the path of the folder is.
        std::env::set_current_dir(folder.path()).or_fail(ErrorKind::Failed, context)?;

        let tools = QemuTools::find()
            .or_fail(ErrorKind::Environment, || {
                "instances cannot run here".to_owned()
            })
            .map_err(|e| e.with_hint("install QEMU (Debian: qemu-system-x86 ovmf)"))?;
        let acceleration = self.acceleration(&tools)?;
        let mut volumes = Vec::new();
        let mut servers = Vec::new();
        let mut disks = Vec::new();
        if instance.root_device_type == RootDevice::InstanceStore {
            disks.push(InstanceDisk {
                serial: store_serial(&id, "root"),
                boot_index: Some(0),
                source: DiskSource::Raw(folder.path().join(ROOT)),
            });
        }
        for (number, attached) in instance.volumes.iter().enumerate() {
            let volume = Arc::new(desk.ec2.open_volume(&attached.volume_id).map_err(broken)?);
            let socket = format!("volume{number}.sock");
            let listener = bind(&socket).or_fail(ErrorKind::Failed, context)?;
            let server = NbdServer::start(listener, Arc::new(Device(volume.clone())), false);
            servers.push(server.or_fail(ErrorKind::Failed, context)?);
            disks.push(InstanceDisk {
                serial: format!("vol{}", attached.volume_id.digits()),
                boot_index: (attached.device == instance.root_device_name).then_some(0),
                source: DiskSource::Nbd(PathBuf::from(socket)),
            });
            volumes.push((attached.volume_id.clone(), volume));
        }
        for ephemeral in &instance.ephemeral {
            let file = folder
                .path()
                .join(format!("{}.raw", ephemeral.virtual_name));
            make_ephemeral(&file, u64::from(ephemeral.size) * GIB)
                .or_fail(ErrorKind::Failed, context)?;
            disks.push(InstanceDisk {
                serial: store_serial(&id, &ephemeral.virtual_name.to_string()),
                boot_index: None,
                source: DiskSource::Raw(file),
            });
        }
        let metadata = Metadata::of(&instance, state.images.get(&instance.image_id))
            .or_fail(ErrorKind::Failed, context)?;
        let mut secret = [0; 32];
        for half in secret.chunks_mut(16) {
            half.copy_from_slice(
                &amiforge_store::ec2::random_u128()
                    .map_err(broken)?
                    .to_le_bytes(),
            );
        }
        let service = Arc::new(Mutex::new(Service::new(metadata, secret)));
        let listener = bind(IMDS_SOCKET).or_fail(ErrorKind::Failed, context)?;
        let imds =
            ImdsServer::start(listener, service.clone()).or_fail(ErrorKind::Failed, context)?;
        let program = std::fs::read_link("/proc/self/exe").or_fail(ErrorKind::Failed, context)?;
        let program = program.into_os_string().into_string().map_err(|path| {
            EngineError::new(
                ErrorKind::Failed,
                format!(
                    "{}: QEMU cannot start a program whose path is not UTF-8",
                    path.display()
                ),
            )
        })?;
        let relay = vec![program, IMDS_RELAY_ARG.to_owned(), IMDS_SOCKET.to_owned()];
        let private_ip = instance
            .private_ip
            .parse()
            .or_fail(ErrorKind::Internal, context)?;
        let spec = InstanceSpec {
            instance_id: id.clone(),
            instance_type: instance.instance_type.clone(),
            firmware: instance.firmware,
            accelerator: acceleration.accelerator,
            cpus: instance.cpus,
            memory_mib: instance.memory_mib,
            disks,
            network: InstanceNetwork {
                mac: instance.mac.clone(),
                private_ip,
                imds_relay: Some(relay),
                forwards: instance.ports.clone(),
                outbound: instance.outbound,
            },
            console_log: folder.path().join(CONSOLE),
            folder: folder.path().to_owned(),
        };
        // The console is that of this start; the one before is kept beside it, without what was put away of it.
        folder.begin_console().or_fail(ErrorKind::Failed, context)?;
        let orders = listen().or_fail(ErrorKind::Failed, context)?;
        let supervisor = Supervisor {
            desk,
            instance,
            volumes,
            servers,
            service,
            _imds: imds,
            tools,
            spec,
            orders,
            waiting: VecDeque::new(),
            asked_to_end,
        };
        let machine = supervisor.start()?;
        supervisor
            .desk
            .transact(|state, _| Ok(state.instance_running(&id)?))?;
        Ok((supervisor, machine))
    }
}

fn say(started: &Started) {
    let mut line = serde_json::to_string(started).unwrap_or_default();
    line.push('\n');
    // Who started us may be gone; the machine runs all the same.
    let _ = io::stdout().write_all(line.as_bytes());
    let _ = io::stdout().flush();
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn bind(name: &str) -> io::Result<UnixListener> {
    match std::fs::remove_file(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(name)
}

/// The serial number of an instance store volume, as EC2 has them.
fn store_serial(id: &InstanceId, name: &str) -> String {
    let digest = amiforge_types::Digest::of(format!("{id}{name}").as_bytes());
    format!("AWS{:.17}", digest.hex())
}

/// An instance store volume keeps its content over a reboot, and loses it when the instance stops.
fn make_ephemeral(path: &Path, bytes: u64) -> io::Result<()> {
    std::fs::File::create(path)?.set_len(bytes)
}

/// The process itself, of its log.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", Engine::wall_clock());
}

/// A machine, what it tells, and its serial line for whoever attaches to it.
type Machine = (
    RunningInstance,
    Receiver<InstanceEvent>,
    Option<ConsoleServer>,
);

/// How the machine was switched off.
struct Off {
    /// Why the guest did not shut down by itself; `None` when it did.
    forced: Option<String>,
    /// Orders to end that came meanwhile.
    ends: Vec<Ordered>,
}

impl Off {
    /// As part of an answer.
    fn said(&self) -> Value {
        match &self.forced {
            None => json!({ "shutDown": true }),
            Some(why) => json!({ "shutDown": false, "notShutDown": why }),
        }
    }
}

impl Supervisor<'_> {
    fn start(&self) -> Result<Machine, EngineError> {
        let (sender, events): (Sender<InstanceEvent>, _) = channel();
        let sender = Mutex::new(sender);
        let machine = RunningInstance::start(&self.tools, &self.spec, move |event| {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody listens any more when the machine is being dropped.
            let _ = sender.send(event);
        })
        .map_err(|error| {
            let kind = if error.is_environment() {
                ErrorKind::Environment
            } else {
                ErrorKind::Failed
            };
            EngineError::wrap(kind, "the machine does not start", error, None::<String>)
        })?;
        let serial = bind(SERIAL_SOCKET).and_then(|listener| machine.serve_console(listener));
        if let Err(error) = &serial {
            note(&format!("nobody can attach to the serial line: {error}"));
        }
        note(&format!(
            "machine started, QEMU is process {}",
            machine.pid()
        ));
        Ok((machine, events, serial.ok()))
    }

    /// Runs until the machine is off, and tells the record.
    fn run(mut self, machine: Machine) -> Result<(), EngineError> {
        let end = self.watch(machine);
        // Nothing writes any more.
        self.servers.clear();
        let mut lost = None;
        for (id, volume) in &self.volumes {
            if let Err(error) = volume.flush() {
                lost.get_or_insert(format!("{id}: {}", crate::error::chain(&error)));
            }
        }
        self.volumes.clear();
        for disk in &self.spec.disks {
            // What is on instance store volumes is lost now.
            if let DiskSource::Raw(file) = &disk.source {
                let _ = std::fs::remove_file(file);
            }
        }
        let id = self.instance.instance_id.clone();
        let told = self.desk.transact(|state, fx| {
            let left = match (state.instances.get(&id).map(|i| i.state), &end) {
                (Some(InstanceState::Stopping), _) => {
                    state.instance_stopped(&id)?;
                    Leftovers::default()
                }
                (Some(InstanceState::ShuttingDown), _) => state.instance_terminated(&id, fx)?,
                (Some(_), End::Lost(why)) => state.machine_lost(&id, why, fx)?,
                (Some(_), End::Guest | End::Told(..)) => state.guest_shutdown(&id, fx)?,
                (None, _) => Leftovers::default(),
            };
            Ok(left)
        });
        let problem = match (&told, lost) {
            (Err(error), _) => Some(error.with_causes()),
            (_, Some(lost)) => Some(format!("not all that was written is on the disk: {lost}")),
            _ => None,
        };
        if let Some(problem) = &problem {
            note(problem);
        }
        if let Ok(left) = told {
            self.desk.clear(&id, &left);
        }
        note("off");
        let (asked, said) = match end {
            End::Told(asked, said) => (asked, said),
            _ => (Vec::new(), Value::Null),
        };
        let answer =
            |ordered: Ordered| ordered.answer(problem.clone().map_or(Ok(said.clone()), Err));
        asked.into_iter().for_each(answer);
        while let Some(ordered) = self
            .waiting
            .pop_front()
            .or_else(|| self.orders.try_recv().ok())
        {
            match ordered.order {
                Order::End { .. } => answer(ordered),
                _ => ordered.answer(Err("the machine is off".to_owned())),
            }
        }
        Ok(())
    }

    /// The next order, waited for at most a moment.
    fn next_order(&mut self) -> Option<Ordered> {
        if let Some(ordered) = self.waiting.pop_front() {
            return Some(ordered);
        }
        match self.orders.recv_timeout(TICK) {
            Ok(ordered) => Some(ordered),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(TICK);
                None
            }
        }
    }

    fn watch(&mut self, (mut machine, mut events, mut _serial): Machine) -> End {
        loop {
            for event in events.try_iter() {
                note(&format!("{event:?}"));
            }
            if let Some(exit) = machine.wait(Duration::ZERO) {
                return ended(&exit);
            }
            if self.asked_to_end.load(Ordering::SeqCst) {
                let seconds = EndRequest::default().seconds(self.desk.engine);
                let off = self.off(&machine, false, seconds);
                self.waiting.extend(off.ends);
                return End::Lost("The process of the instance was asked to end".to_owned());
            }
            let Some(ordered) = self.next_order() else {
                continue;
            };
            match ordered.order.clone() {
                Order::End { force, seconds } => {
                    let off = self.off(&machine, force, seconds);
                    let said = if force { Value::Null } else { off.said() };
                    let mut asked = vec![ordered];
                    asked.extend(off.ends);
                    return End::Told(asked, said);
                }
                Order::Reboot { force: true, .. } => {
                    ordered.answer(
                        machine
                            .reset()
                            .map(|()| Value::Null)
                            .map_err(|e| e.to_string()),
                    );
                }
                Order::Reboot {
                    force: false,
                    seconds,
                } => {
                    let off = self.off(&machine, false, seconds);
                    let said = off.said();
                    if !off.ends.is_empty() {
                        ordered.answer(Err("the instance was ended instead".to_owned()));
                        return End::Told(off.ends, said);
                    }
                    drop(machine);
                    match self.start() {
                        Ok(again) => (machine, events, _serial) = again,
                        Err(error) => {
                            let why = error.with_causes();
                            ordered.answer(Err(why.clone()));
                            return End::Lost(why);
                        }
                    }
                    ordered.answer(Ok(said));
                }
                Order::Image {
                    no_reboot: true,
                    image_id,
                    ..
                } => ordered.answer(self.image_as_it_runs(&machine, image_id)),
                Order::Image {
                    no_reboot: false,
                    image_id,
                    seconds,
                } => {
                    let work = Pending::Image(image_id);
                    let _making = match self.join(&work) {
                        Ok(making) => making,
                        Err(error) => {
                            ordered.answer(Err(error.with_causes()));
                            continue;
                        }
                    };
                    let off = self.off(&machine, false, seconds);
                    let how = off.said();
                    let filled = self.fill(&work, |take| take());
                    if !off.ends.is_empty() {
                        ordered.answer(filled.map(|f| f.with(&how)).map_err(|e| e.with_causes()));
                        return End::Told(off.ends, how);
                    }
                    drop(machine);
                    let again = self.start();
                    ordered.answer(filled.map(|f| f.with(&how)).map_err(|e| e.with_causes()));
                    match again {
                        Ok(again) => (machine, events, _serial) = again,
                        Err(error) => return End::Lost(error.with_causes()),
                    }
                }
                Order::Snapshot { snapshot_id } => {
                    let work = Pending::Snapshot(snapshot_id);
                    let filled = self
                        .join(&work)
                        .and_then(|_making| self.fill(&work, |take| take()));
                    ordered.answer(
                        filled
                            .map(|f| f.with(&Value::Null))
                            .map_err(|e| e.with_causes()),
                    );
                }
                Order::Screen => {
                    let screen = machine.screendump(Path::new(SCREEN), ScreenFormat::Png);
                    ordered.answer(screen.map(|()| Value::Null).map_err(|e| e.to_string()));
                }
                Order::Tags => {
                    let state = self.desk.read();
                    let tags = state.ok().and_then(|s| {
                        Some(s.instances.get(&self.instance.instance_id)?.tags.clone())
                    });
                    if let Some(tags) = tags {
                        let mut service =
                            self.service.lock().unwrap_or_else(PoisonError::into_inner);
                        service.update(|metadata| metadata.tags = tags);
                    }
                    ordered.answer(Ok(Value::Null));
                }
            }
        }
    }

    /// Makes an image of the running machine, whose file systems are frozen for the moment that it is of, when its agent can.
    fn image_as_it_runs(&self, machine: &RunningInstance, id: ImageId) -> Result<Value, String> {
        let work = Pending::Image(id);
        let _making = self.join(&work).map_err(|e| e.with_causes())?;
        let mut frozen = Err(InstanceError::Gone);
        let mut still = None;
        let filled = self.fill(&work, |take| {
            frozen = machine.fs_freeze(Duration::from_secs(10));
            take();
            // One that answers late may have frozen them all the same.
            if !matches!(frozen, Err(InstanceError::NoAgent)) {
                still = thaw(machine);
            }
        });
        let mut how = match &frozen {
            Ok(n) => json!({ "frozenFileSystems": n }),
            Err(error) => json!({ "frozenFileSystems": 0, "notFrozen": error.to_string() }),
        };
        if let Some(why) = still {
            how["stillFrozen"] = why.into();
        }
        filled.map(|f| f.with(&how)).map_err(|e| e.with_causes())
    }

    /// Takes part in making something of the instance.
    fn join(&self, work: &Pending) -> Result<Making, EngineError> {
        let making = self.desk.join(work)?;
        note(&format!("making {}", work.id()));
        Ok(making)
    }

    /// Fills what is pending, or says that it failed: who asked may be gone.
    fn fill(
        &self,
        work: &Pending,
        around: impl FnOnce(&mut dyn FnMut()),
    ) -> Result<Filled, EngineError> {
        let filled = fill(&self.desk, work, &self.volumes, around);
        if let Err(error) = &filled {
            self.desk.fail(work, error);
        }
        filled
    }

    /// Switches the machine off: the guest gets so much time, or none. A forced order to end it that comes meanwhile ends the waiting.
    fn off(&mut self, machine: &RunningInstance, force: bool, seconds: u64) -> Off {
        let mut why = "it could not be asked to".to_owned();
        let mut ends = Vec::new();
        let until = Instant::now() + Duration::from_secs(seconds.min(LONGEST_WAIT));
        if !force && machine.power_down().is_ok() {
            let mut pressed = Instant::now();
            while Instant::now() < until {
                if let Some(exit) = machine.wait(TICK) {
                    // Only a guest that powered the machine off has written all that it had.
                    let forced = match exit.reason {
                        ExitReason::PowerOff => None,
                        _ => {
                            note(&format!("{exit:?}"));
                            Some("its machine was lost meanwhile".to_owned())
                        }
                    };
                    return Off { forced, ends };
                }
                // A guest that is still booting misses the first press.
                if pressed.elapsed() > Duration::from_secs(10) {
                    let _ = machine.power_down();
                    pressed = Instant::now();
                }
                if let Ok(ordered) = self.orders.try_recv() {
                    match ordered.order {
                        Order::End { force, .. } => {
                            ends.push(ordered);
                            if force {
                                why = "it was told to end at once".to_owned();
                                break;
                            }
                        }
                        _ => self.waiting.push_back(ordered),
                    }
                }
            }
            if Instant::now() >= until {
                why = format!("it did not within {seconds} s");
            }
            note(&format!("the guest did not shut down: {why}"));
        }
        machine.quit(QUIT_LIMIT);
        let forced = Some(why);
        Off { forced, ends }
    }
}

/// Thaws what may be frozen; says why it still is.
fn thaw(machine: &RunningInstance) -> Option<String> {
    let mut problem = None;
    for _ in 0..2 {
        match machine.fs_thaw(Duration::from_secs(30)) {
            Ok(_) => return None,
            Err(error) => problem = Some(error.to_string()),
        }
    }
    note(&format!(
        "the file systems may still be frozen: {}",
        problem.as_deref().unwrap_or_default()
    ));
    problem
}

/// What the end of a machine says that nobody asked for.
fn ended(exit: &Exit) -> End {
    note(&format!("{exit:?}"));
    match exit.reason {
        ExitReason::PowerOff => End::Guest,
        ExitReason::Signal => End::Lost("QEMU was ended by a signal".to_owned()),
        ExitReason::Ended => End::Guest,
        ExitReason::Crashed => End::Lost(format!(
            "QEMU ended unexpectedly: {}",
            exit.stderr.lines().last().unwrap_or_default()
        )),
    }
}
