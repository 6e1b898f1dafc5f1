//! `run` and `instance start`: from a record to a process.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amiforge_ami::InstanceId;
use amiforge_ami::ec2::{
    Effects as _, InstanceState, InstancesRequest, Launch, NewVolume, PortForward,
    RunInstancesRequest, State, StateChange, VolumeSource,
};
use amiforge_store::ec2::{Hold, VolumeBase};
use amiforge_types::GIB;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::desk::{Desk, Place, Refused, broken};
use super::folder::{Folder, MachineLock, PROCESS_LOG};
use super::supervise::INSTANCE_ARG;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// How long the process of an instance may take to end once its record says that the machine is off.
const ENDING_LIMIT: Duration = Duration::from_secs(10);
/// Where ports of this host lead into instances from.
const LOCAL: &str = "127.0.0.1";
/// The port that SSH listens on.
const SSH: u16 = 22;

/// Starts that are under way: what changed, and the right to start each machine.
type Begun = (Vec<StateChange>, Vec<(InstanceId, MachineLock)>);

/// What to start.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The image: an id, a name, `NAME/VERSION` of a build, or an output folder.
    pub image: String,
    /// Everything else; its image is the one above.
    pub request: RunInstancesRequest,
}

/// What the process of an instance says once, when its machine runs or does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// Whether something is missing on this host.
    #[serde(default)]
    pub(super) environment: bool,
}

impl Engine {
    /// Starts instances, and gives them in the shape of `RunInstances`.
    pub fn run(&self, place: &Place, request: &RunRequest) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let mut wanted = request.request.clone();
        wanted.image_id = desk.image_id(&request.image)?;
        // What is made for a launch is not collected before a record names it.
        let hold = desk.ec2.hold().map_err(broken)?;
        let (run, locks) = desk.transact(|state, fx| {
            let run = state.run_instances(&desk.caller, &wanted, fx)?;
            if !run.repeated {
                super::govern::enforce(state, &desk.caller, &run, fx.now())?;
            }
            let mut locks = Vec::new();
            for launch in run.launches.iter().filter(|_| !run.repeated) {
                locks.push(desk.claim(&launch.instance_id)?);
                choose_ports(state, &launch.instance_id)?;
            }
            Ok((run, locks))
        })?;
        for device in &run.ignored {
            self.warn(format!(
                "{device}: the instance type has no such instance store volume"
            ));
        }
        let mut ids = Vec::new();
        let mut failed = None;
        let mut locks = locks.into_iter();
        for launch in &run.launches {
            ids.push(launch.instance_id.to_string());
            let Some(lock) = locks.next() else {
                // A repeated request: they are there.
                continue;
            };
            self.stage("launch", launch.instance_id.to_string());
            let started = desk
                .make_volumes(&hold, launch)
                .and_then(|()| desk.start_process(&launch.instance_id, lock));
            if let Err(error) = started {
                ids.pop();
                // What cannot be told now is found by the next command.
                let _ = desk.launch_failed(&launch.instance_id, &error);
                failed.get_or_insert(error);
            }
        }
        drop(hold);
        match failed {
            Some(error) if ids.is_empty() => Err(error),
            Some(error) => Err(error.with_hint(format!("these do run: {}", ids.join(", ")))),
            None => desk.reservations(&ids),
        }
    }

    /// Starts stopped instances; gives `StartInstances`' answer.
    pub fn start_instances(&self, place: &Place, ids: &[String]) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let request = desk.instances_request(ids, false);
        let (changes, locks) = desk.start_when_free(&request)?;
        let mut failed = None;
        for (id, lock) in locks {
            self.stage("start", id.to_string());
            if let Err(error) = desk.start_process(&id, lock) {
                desk.launch_failed(&id, &error)?;
                failed.get_or_insert(error);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => desk.changes("StartingInstances", &changes),
        }
    }
}

/// A port of this host that nobody listens on just now, and that is no instance's.
fn free_port(state: &State) -> Option<u16> {
    let taken: BTreeSet<u16> = state
        .instances
        .values()
        .flat_map(|i| i.ports.iter().map(|p| p.host))
        .collect();
    // Each is held until the next is found, or the kernel gives the same again.
    let mut held = Vec::new();
    for _ in 0..=taken.len() {
        let listener = TcpListener::bind((LOCAL, 0)).ok()?;
        let port = listener.local_addr().ok()?.port();
        if !taken.contains(&port) {
            return Some(port);
        }
        held.push(listener);
    }
    None
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((LOCAL, port)).is_ok()
}

/// Ports that the user chose have to be free. There is always a way to the instance's SSH server: over a port that nobody asked for,
/// which is another one when a program took it meanwhile.
fn choose_ports(state: &mut State, id: &InstanceId) -> Result<(), Refused> {
    let Some(instance) = state.instances.get(id) else {
        return Ok(());
    };
    let mut ports = instance.ports.clone();
    if let Some(taken) = ports.iter().find(|p| !p.any_host && !is_free(p.host)) {
        return Err(Refused::Port {
            id: id.clone(),
            port: taken.host,
        });
    }
    let way = match ports.iter().position(|p| p.guest == SSH) {
        // One of the user's is way enough, and one of ours that is free stays.
        Some(at) if !ports[at].any_host || is_free(ports[at].host) => return Ok(()),
        Some(at) => Some(at),
        None => None,
    };
    let Some(host) = free_port(state) else {
        return Ok(());
    };
    match way {
        Some(at) => ports[at].host = host,
        None => ports.push(PortForward {
            host,
            guest: SSH,
            any_host: true,
        }),
    }
    if let Some(instance) = state.instances.get_mut(id) {
        instance.ports = ports;
    }
    Ok(())
}

impl Desk<'_> {
    /// Begins the start of instances. The process of a machine that is off already may need a moment to end.
    fn start_when_free(&self, request: &InstancesRequest) -> Result<Begun, EngineError> {
        let until = Instant::now() + ENDING_LIMIT;
        loop {
            let mut busy = false;
            let begun = self.transact(|state, fx| {
                let changes = state.start_instances(&self.caller, request, fx)?;
                let mut locks = Vec::new();
                for change in changes
                    .iter()
                    .filter(|c| c.previous_state == InstanceState::Stopped)
                {
                    let id = &change.instance_id;
                    let lock = self.claim(id);
                    busy = matches!(lock, Err(Refused::Busy(_)));
                    locks.push((id.clone(), lock?));
                    choose_ports(state, id)?;
                }
                Ok((changes, locks))
            });
            if !busy || Instant::now() >= until {
                return begun;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The right to start the machine of an instance.
    fn claim(&self, id: &InstanceId) -> Result<MachineLock, Refused> {
        let folder = self.folder(id);
        let lock = folder
            .lock()
            .map_err(|source| Refused::folder(folder.path(), source))?;
        lock.ok_or_else(|| Refused::Busy(id.clone()))
    }

    fn make_volumes(&self, hold: &Hold, launch: &Launch) -> Result<(), EngineError> {
        if let Some(bundle) = &launch.bundle {
            return self.make_root_of_bundle(hold, launch, Path::new(bundle));
        }
        launch
            .volumes
            .iter()
            .try_for_each(|volume| self.make_volume(hold, volume))
    }

    /// Makes a volume over the blocks of its snapshot: nothing is copied.
    pub(super) fn make_volume(&self, hold: &Hold, volume: &NewVolume) -> Result<(), EngineError> {
        let key = match &volume.encryption {
            Some(encryption) if volume.new_data_key => {
                Some(self.ec2.create_data_key(hold, encryption).map_err(broken)?)
            }
            other => self.data_key(other.as_ref())?,
        };
        let bytes = u64::from(volume.size) * GIB;
        let id = &volume.volume_id;
        match &volume.source {
            VolumeSource::Empty => self.ec2.create_volume(hold, id, bytes, None, key.as_ref()),
            VolumeSource::Snapshot {
                map, encryption, ..
            } => {
                let base_key = self.data_key(encryption.as_ref())?;
                let base = VolumeBase {
                    map: *map,
                    key: base_key.as_ref(),
                };
                self.ec2
                    .create_volume(hold, id, bytes, Some(base), key.as_ref())
            }
        }
        .map(drop)
        .map_err(broken)
    }

    /// Starts the background process of an instance and waits until its machine runs.
    pub(super) fn start_process(
        &self,
        id: &InstanceId,
        lock: MachineLock,
    ) -> Result<(), EngineError> {
        let folder = self.folder(id);
        let context = || format!("cannot start {id}");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join(PROCESS_LOG))
            .or_fail(ErrorKind::Failed, context)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(INSTANCE_ARG)
            .arg(id.as_str())
            // The lock is held by whoever has it open: from now on the process has.
            .stdin(Stdio::from(lock.into_file()))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .process_group(0);
        let mut child = command.spawn().or_fail(ErrorKind::Failed, context)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            // What it says is bounded; a process that dies says nothing.
            let _ = BufReader::new(out).take(64 << 10).read_line(&mut line);
        }
        match serde_json::from_str::<Started>(&line) {
            Ok(Started { problem: None, .. }) => Ok(()),
            Ok(Started {
                problem: Some(problem),
                environment,
            }) => {
                let _ = child.wait();
                let kind = if environment {
                    ErrorKind::Environment
                } else {
                    ErrorKind::Failed
                };
                Err(EngineError::new(
                    kind,
                    format!("{id} does not start: {problem}"),
                ))
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                let words = folder.last_words();
                Err(EngineError::new(
                    ErrorKind::Failed,
                    format!("{id} does not start: its process ended. {words}"),
                )
                .with_hint(format!(
                    "its log is {}",
                    folder.path().join(PROCESS_LOG).display()
                )))
            }
        }
    }

    /// Ends a launch that came to nothing.
    fn launch_failed(&self, id: &InstanceId, error: &EngineError) -> Result<(), EngineError> {
        let why = error.with_causes();
        let left = self.transact(|state, fx| match state.instances.get(id).map(|i| i.state) {
            Some(InstanceState::Pending) => Ok(Some(state.launch_failed(id, &why, fx)?)),
            // The process has told the end itself.
            _ => Ok(None),
        })?;
        if let Some(left) = left {
            self.clear(id, &left);
        }
        Ok(())
    }

    /// Removes what a terminated instance leaves: best effort, the next garbage collection finds the rest.
    pub(super) fn clear(&self, id: &InstanceId, left: &amiforge_ami::ec2::Leftovers) {
        for volume in &left.deleted {
            let _ = self.ec2.remove_volume(volume);
        }
        let state = self.read();
        let gone = state.is_ok_and(|s| {
            s.instances
                .get(id)
                .is_none_or(|i| i.state == InstanceState::Terminated)
        });
        if gone {
            let folder: Folder = self.folder(id);
            let _ = folder.empty();
        }
    }
}
