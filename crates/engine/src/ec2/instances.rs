//! Instances that are there: listed, stopped, rebooted, terminated, looked at.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amiforge_ami::InstanceId;
use amiforge_ami::ec2::{
    ApiError, Caller, DescribeInstancesRequest, ErrorCode, Filter, Instance, InstanceState,
    InstancesRequest, State, StateChange,
};
use serde_json::{Value, json};

use super::control::{self, Order};
use super::desk::{Desk, Now, Place, refusal, tried};
use super::folder::SCREEN;
use super::supervise::SERIAL_SOCKET;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// Seconds that a guest gets to shut down, with hardware acceleration.
const SHUT_DOWN_SECONDS: u64 = 60;
/// Without it.
const SHUT_DOWN_SECONDS_TCG: u64 = 300;
/// How often a state or console is looked at that is waited for.
const TICK: Duration = Duration::from_millis(50);

/// How to end machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndRequest {
    /// At once, without asking the guest.
    pub force: bool,
    /// Seconds that the guest gets.
    pub seconds: Option<u64>,
}

/// What to wait for.
#[derive(Clone, Debug)]
pub struct WaitRequest {
    /// The instances.
    pub ids: Vec<String>,
    /// The state, by its name in the API.
    pub state: String,
    /// A text that the console must show, too.
    pub console: Option<String>,
    /// How long.
    pub limit: Duration,
}

/// How to log into an instance.
#[derive(Clone, Debug)]
pub struct SshAccess {
    /// Port of 127.0.0.1.
    pub port: u16,
    /// A file with the keys of hosts, for this instance alone.
    pub known_hosts: PathBuf,
}

impl EndRequest {
    pub(super) fn seconds(&self, engine: &Engine) -> u64 {
        self.seconds.unwrap_or_else(|| {
            let slow = amiforge_vm::QemuTools::find()
                .ok()
                .and_then(|tools| engine.acceleration(&tools).ok())
                .is_none_or(|a| a.accelerator == amiforge_vm::Accelerator::Tcg);
            if slow {
                SHUT_DOWN_SECONDS_TCG
            } else {
                SHUT_DOWN_SECONDS
            }
        })
    }
}

impl Desk<'_> {
    pub(super) fn instances_request(&self, ids: &[String], force: bool) -> InstancesRequest {
        InstancesRequest {
            instance_ids: ids.to_vec(),
            force,
            ..Default::default()
        }
    }

    /// Brings records in line with what there is: an instance whose process is gone has no machine, however that came.
    pub(super) fn settle(&self) -> Result<(), EngineError> {
        let live = |state: InstanceState| {
            matches!(
                state,
                InstanceState::Pending
                    | InstanceState::Running
                    | InstanceState::Stopping
                    | InstanceState::ShuttingDown
            )
        };
        let state = self.read()?;
        for instance in state.instances.values().filter(|i| live(i.state)) {
            let id = &instance.instance_id;
            let folder = self.folder(id);
            match folder.is_live() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    self.engine
                        .warn(format!("{id}: its folder cannot be looked at: {error}"));
                    continue;
                }
            }
            let left = self.record(|state, fx| {
                // Machines are started in transactions, too: whose record says that there is one, and has none now, is off.
                let Some(now) = state
                    .instances
                    .get(id)
                    .map(|i| i.state)
                    .filter(|s| live(*s) && matches!(folder.is_live(), Ok(false)))
                else {
                    return Ok(None);
                };
                let left = match now {
                    InstanceState::Stopping => {
                        state.instance_stopped(id)?;
                        amiforge_ami::ec2::Leftovers::default()
                    }
                    InstanceState::ShuttingDown => state.instance_terminated(id, fx)?,
                    _ => state.machine_lost(
                        id,
                        "The process of the instance ended unexpectedly",
                        fx,
                    )?,
                };
                Ok(Some((now, left)))
            });
            let left = match left {
                Ok(left) => left,
                // On a full disk, say: what is there can be shown all the same.
                Err(error) => {
                    self.engine.warn(format!(
                        "{id}: it is off, which cannot be recorded now: {}",
                        error.with_causes()
                    ));
                    continue;
                }
            };
            if let Some((was, left)) = left {
                let mine = instance.owner == self.caller.account;
                if mine && matches!(was, InstanceState::Pending | InstanceState::Running) {
                    self.engine.warn(format!(
                        "{id}: its process has ended unexpectedly; it is off"
                    ));
                }
                self.clear(id, &left);
            }
        }
        Ok(())
    }

    /// `DescribeInstances`.
    pub(super) fn reservations(&self, ids: &[String]) -> Result<Value, EngineError> {
        self.describe(ids, &[])
    }

    fn describe(&self, ids: &[String], filters: &[Filter]) -> Result<Value, EngineError> {
        let request = DescribeInstancesRequest {
            instance_ids: ids.to_vec(),
            filters: filters.to_vec(),
            ..Default::default()
        };
        let found = self
            .read()?
            .describe_instances(&self.caller, &request)
            .map_err(refusal)?;
        serde_json::to_value(found).or_fail(ErrorKind::Internal, || "instances".to_owned())
    }

    /// `StateChange`s under the member of the answer.
    pub(super) fn changes(
        &self,
        member: &str,
        changes: &[StateChange],
    ) -> Result<Value, EngineError> {
        let now = self.read()?;
        let state = |s: InstanceState| json!({ "Code": s.code(), "Name": s.as_str() });
        let list: Vec<Value> = changes
            .iter()
            .map(|c| {
                let current = now
                    .instances
                    .get(&c.instance_id)
                    .map_or(c.current_state, |i| i.state);
                json!({
                    "InstanceId": c.instance_id,
                    "CurrentState": state(current),
                    "PreviousState": state(c.previous_state),
                })
            })
            .collect();
        Ok(json!({ member: list }))
    }

    /// An instance of the caller.
    pub(super) fn instance(&self, id: &str) -> Result<Instance, EngineError> {
        self.settle()?;
        let state = self.read()?;
        let found = state.instance_of(&self.caller, id).map_err(refusal)?;
        Ok(found.clone())
    }

    /// An instance of the caller that has a machine.
    fn running(&self, id: &str) -> Result<Instance, EngineError> {
        let instance = self.instance(id)?;
        if instance.state == InstanceState::Running {
            return Ok(instance);
        }
        Err(refusal(ApiError::new(
            ErrorCode::IncorrectInstanceState,
            format!(
                "The instance '{id}' is not running: it is {}",
                instance.state.as_str()
            ),
        )))
    }

    fn end(&self, ids: &[InstanceId], how: EndRequest, stopping: bool) -> Result<(), EngineError> {
        let seconds = how.seconds(self.engine);
        let order = Order::End {
            force: how.force,
            seconds,
        };
        let problems: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = ids
                .iter()
                .map(|id| {
                    let (folder, order) = (self.folder(id), &order);
                    scope.spawn(move || {
                        // One that is not live has ended before: `settle` tells.
                        let live = folder.is_live().unwrap_or(true);
                        match folder.ask(order) {
                            Ok(answer) => {
                                if stopping {
                                    self.told_off(id, &answer.result);
                                }
                                answer.problem
                            }
                            Err(_) if !live => None,
                            Err(error) => Some(format!(
                                "its process ended without an answer ({error}): what was written last may be lost"
                            )),
                        }
                    })
                })
                .collect();
            let answers = threads.into_iter().zip(ids);
            answers
                .filter_map(|(thread, id)| Some(format!("{id}: {}", thread.join().ok()??)))
                .collect()
        });
        for id in ids {
            self.folder(id).wait_until_free(Duration::from_secs(10));
        }
        self.settle()?;
        match problems.first() {
            None => Ok(()),
            Some(_) => Err(EngineError::new(ErrorKind::Failed, problems.join("; "))),
        }
    }
}

impl Engine {
    /// Instances, in the shape of `DescribeInstances`.
    pub fn instances(
        &self,
        place: &Place,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        desk.describe(ids, filters)
    }

    /// Stops instances and waits for it; gives `StopInstances`' answer.
    pub fn stop_instances(
        &self,
        place: &Place,
        ids: &[String],
        how: EndRequest,
    ) -> Result<Value, EngineError> {
        let begin = |state: &mut State, caller: &Caller, request: &InstancesRequest, fx: &Now| {
            state.stop_instances(caller, request, fx)
        };
        self.end_instances(place, ids, how, "StoppingInstances", begin)
    }

    /// Terminates instances and waits for it; gives `TerminateInstances`' answer.
    pub fn terminate_instances(
        &self,
        place: &Place,
        ids: &[String],
        how: EndRequest,
    ) -> Result<Value, EngineError> {
        let begin = |state: &mut State, caller: &Caller, request: &InstancesRequest, fx: &Now| {
            state.terminate_instances(caller, request, fx)
        };
        self.end_instances(place, ids, how, "TerminatingInstances", begin)
    }

    /// Begins the end of instances by the rules, ends their machines, and gives the changes under the member of the answer.
    fn end_instances(
        &self,
        place: &Place,
        ids: &[String],
        how: EndRequest,
        member: &str,
        begin: impl FnOnce(
            &mut State,
            &Caller,
            &InstancesRequest,
            &Now,
        ) -> Result<Vec<StateChange>, ApiError>,
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let request = desk.instances_request(ids, how.force);
        let changes = desk.transact(|state, fx| Ok(begin(state, &desk.caller, &request, fx)?))?;
        let ending: Vec<_> = changes
            .iter()
            .filter(|c| {
                matches!(
                    c.current_state,
                    InstanceState::Stopping | InstanceState::ShuttingDown
                )
            })
            .map(|c| c.instance_id.clone())
            .collect();
        // Of what is terminated nothing is kept anyway.
        let stopping = changes
            .iter()
            .any(|c| c.current_state == InstanceState::Stopping);
        desk.end(&ending, how, stopping)?;
        desk.changes(member, &changes)
    }

    /// Reboots instances, one after the other.
    pub fn reboot_instances(
        &self,
        place: &Place,
        ids: &[String],
        how: EndRequest,
    ) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let request = desk.instances_request(ids, how.force);
        let chosen = desk
            .read()?
            .reboot_instances(&desk.caller, &request)
            .map_err(refusal)?;
        if place.dry_run {
            return Err(refusal(tried()));
        }
        let order = Order::Reboot {
            force: how.force,
            seconds: how.seconds(self),
        };
        for id in chosen {
            let answer = desk.order(&id, &order)?;
            desk.told_off(&id, &answer);
        }
        Ok(())
    }

    /// Writes what an instance has printed to its serial console; with `follow`, goes on until its machine is off.
    pub fn console(
        &self,
        place: &Place,
        id: &str,
        follow: bool,
        out: &mut dyn Write,
    ) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.instance(id)?;
        let folder = desk.folder(&instance.instance_id);
        let context = || format!("cannot read the console of {id}");
        let mut console = folder.console();
        loop {
            let live = folder.is_live().or_fail(ErrorKind::Failed, context)?;
            let mut bytes = Vec::new();
            console
                .read_more(&mut bytes)
                .or_fail(ErrorKind::Failed, context)?;
            if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                // Whoever read has seen enough.
                return Ok(());
            }
            if !follow || !live {
                return Ok(());
            }
            std::thread::sleep(TICK * 2);
        }
    }

    /// The serial line of a running instance: what is written to it is typed, what the guest prints can be read, the last 64 KiB first.
    pub fn serial(&self, place: &Place, id: &str) -> Result<UnixStream, EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.running(id)?;
        let folder = desk.folder(&instance.instance_id);
        control::connect(folder.path(), SERIAL_SOCKET).or_fail(ErrorKind::Failed, || {
            format!("{id}: its serial line cannot be attached to")
        })
    }

    /// Writes the screen of an instance as PNG.
    pub fn screenshot(&self, place: &Place, id: &str, out: &Path) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.running(id)?;
        desk.order(&instance.instance_id, &Order::Screen)?;
        let screen = desk.folder(&instance.instance_id).path().join(SCREEN);
        let bytes =
            std::fs::read(&screen).or_fail(ErrorKind::Failed, || format!("no picture of {id}"))?;
        crate::files::write_target(out, &bytes)
    }

    /// Waits until instances have a state and, if asked for, have printed a text.
    pub fn wait_for_instances(
        &self,
        place: &Place,
        request: &WaitRequest,
    ) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let until = Instant::now() + request.limit.min(Duration::from_secs(31_536_000));
        let known = [
            "pending",
            "running",
            "shutting-down",
            "terminated",
            "stopping",
            "stopped",
        ];
        if !known.contains(&request.state.as_str()) {
            let text = format!("--state {}: one of {}", request.state, known.join(", "));
            return Err(EngineError::new(ErrorKind::Invalid, text));
        }
        for id in &request.ids {
            loop {
                let instance = desk.instance(id)?;
                let seen = request.console.as_ref().is_none_or(|text| {
                    let mut log = Vec::new();
                    let mut console = desk.folder(&instance.instance_id).console();
                    // One that cannot be read shows nothing.
                    let _ = console.read_more(&mut log);
                    String::from_utf8_lossy(&log).contains(text)
                });
                if instance.state.as_str() == request.state && seen {
                    break;
                }
                let over = matches!(instance.state, InstanceState::Terminated)
                    && request.state != "terminated";
                let off = request.console.is_some()
                    && !seen
                    && matches!(instance.state, InstanceState::Stopped);
                if over || off || Instant::now() >= until {
                    let what = request
                        .console
                        .as_ref()
                        .map_or_else(String::new, |t| format!(" with {t:?} on its console"));
                    return Err(EngineError::new(
                        ErrorKind::Failed,
                        format!(
                            "{id} is {}, and was to be {}{what}",
                            instance.state.as_str(),
                            request.state
                        ),
                    )
                    .with_hint(format!(
                        "`amiforge instance console {id}` shows what it does"
                    )));
                }
                std::thread::sleep(TICK * 4);
            }
        }
        Ok(())
    }

    /// How to log into an instance over SSH.
    pub fn ssh_access(&self, place: &Place, id: &str) -> Result<SshAccess, EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.running(id)?;
        let port = instance
            .ports
            .iter()
            .find(|p| p.guest == 22)
            .map(|p| p.host);
        let port = port.ok_or_else(|| {
            EngineError::new(
                ErrorKind::Failed,
                format!("{id}: no port leads to its SSH server"),
            )
        })?;
        Ok(SshAccess {
            port,
            known_hosts: desk
                .folder(&instance.instance_id)
                .path()
                .join("known_hosts"),
        })
    }
}

impl Desk<'_> {
    /// Warns when a guest was switched off that should have shut down.
    fn told_off(&self, id: &InstanceId, answer: &Value) {
        if let Some(why) = answer["notShutDown"].as_str() {
            self.engine.warn(format!(
                "{id}: the guest did not shut down ({why}) and was switched off: what it had not written yet is lost"
            ));
        }
    }

    /// Gives an order to the process of an instance; its refusal is an error.
    pub(super) fn order(&self, id: &InstanceId, order: &Order) -> Result<Value, EngineError> {
        let answer = self.folder(id).ask(order).or_fail(ErrorKind::Failed, || {
            format!("{id} has no machine that could be asked")
        })?;
        match answer.problem {
            Some(problem) => Err(EngineError::new(
                ErrorKind::Failed,
                format!("{id}: {problem}"),
            )),
            None => Ok(answer.result),
        }
    }
}
