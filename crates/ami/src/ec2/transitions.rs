//! What instances go through after their launch, and what time does to all records.
//!
//! ```text
//! pending ─▶ running ─▶ stopping ─▶ stopped ─▶ pending …
//!    └──────────┴──────────┴───────────┴─▶ shutting-down ─▶ terminated ─▶ (an hour later) gone
//! ```
//!
//! Each way has a beginning, asked for by the user or seen by whoever watches the machine, and an end, told by the engine.
//!
//! Source: EC2 user guide, `ec2-instance-lifecycle`; EC2 API reference, `StateReason`.

use amiforge_types::Timestamp;

use super::check::{
    Api, bad_value, base64_len, date, dry_run, instance_id, missing, no_instance, refuse,
};
use super::request::request;
use super::{
    ApiError, Caller, Effects, EphemeralVolume, ErrorCode, Instance, InstanceState, InstanceType,
    KeyId, KeyState, Protection, RootDevice, ShutdownBehavior, State, StateReason, VolumeState,
};
use crate::{CreationDate, ImageId, InstanceId, SnapshotId, VolumeId};

/// Seconds that the record of a terminated instance stays.
const TERMINATED_SECS: i64 = 3600;

request! {
    /// `StartInstances`, `StopInstances`, `RebootInstances`, `TerminateInstances`.
    pub struct InstancesRequest {
        /// The instances.
        pub instance_ids: Vec<String>,
        /// Of `StopInstances`: without a clean shutdown.
        pub force: bool,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `ModifyInstanceAttribute`: one attribute per request.
    pub struct ModifyInstanceRequest {
        /// The instance.
        pub instance_id: String,
        /// Protection against `TerminateInstances`.
        pub disable_api_termination: Option<bool>,
        /// `stop` or `terminate`.
        pub instance_initiated_shutdown_behavior: Option<String>,
        /// Another type; of a stopped instance.
        pub instance_type: Option<String>,
        /// User data, base64; of a stopped instance.
        pub user_data: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// `InstanceStateChange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The instance.
    pub instance_id: InstanceId,
    /// What it was in.
    pub previous_state: InstanceState,
    /// What it is in now.
    pub current_state: InstanceState,
}

/// What a terminated instance leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Volumes that went with it: their files are to be removed.
    pub deleted: Vec<VolumeId>,
    /// Volumes that stay, detached.
    pub kept: Vec<VolumeId>,
    /// Its instance store volumes, gone.
    pub ephemeral: Vec<EphemeralVolume>,
}

/// What [`State::expire`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Images out of the recycle bin.
    pub images: Vec<ImageId>,
    /// Snapshots out of the recycle bin.
    pub snapshots: Vec<SnapshotId>,
    /// Records of terminated instances.
    pub instances: Vec<InstanceId>,
    /// Keys whose deletion was scheduled: their material is to be destroyed.
    pub keys: Vec<KeyId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Reboot,
    Terminate,
}

impl Verb {
    const fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Reboot => "rebooted",
            Self::Terminate => "terminated",
        }
    }
}

fn reason(code: &str, message: &str) -> Option<StateReason> {
    Some(StateReason {
        code: code.to_owned(),
        message: format!("{code}: {message}"),
    })
}

/// `User initiated (2026-11-28 12:00:00 GMT)`.
fn user_initiated(at: CreationDate) -> String {
    let text = at.timestamp().to_string();
    format!(
        "User initiated ({} GMT)",
        text.trim_end_matches('Z').replace('T', " ")
    )
}

impl State {
    /// The instances of a request, each of which may be changed so; nothing has changed when one may not.
    fn chosen(
        &self,
        caller: &Caller,
        request: &InstancesRequest,
        verb: Verb,
    ) -> Api<Vec<InstanceId>> {
        if request.instance_ids.is_empty() {
            return missing("InstanceIds");
        }
        let ids: Vec<InstanceId> = request
            .instance_ids
            .iter()
            .map(|text| instance_id(text))
            .collect::<Api<_>>()?;
        dry_run(request.dry_run)?;
        for id in &ids {
            let instance = self.own_instance(caller, id)?;
            self.may_change(instance, verb)?;
        }
        Ok(ids)
    }

    fn may_change(&self, instance: &Instance, verb: Verb) -> Api<()> {
        use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        let id = &instance.instance_id;
        if instance.root_device_type == RootDevice::InstanceStore
            && matches!(verb, Verb::Start | Verb::Stop)
        {
            return refuse(
                ErrorCode::UnsupportedOperation,
                format!(
                    "The instance '{id}' does not have an 'ebs' root device type and cannot be {}.",
                    verb.done()
                ),
            );
        }
        let good = match verb {
            Verb::Start => matches!(instance.state, Pending | Running | Stopped),
            Verb::Stop => matches!(instance.state, Running | Stopping | Stopped),
            Verb::Reboot => instance.state == Running,
            Verb::Terminate => true,
        };
        if !good {
            return refuse(
                ErrorCode::IncorrectInstanceState,
                format!(
                    "This instance '{id}' is not in a state from which it can be {}: it is {}.",
                    verb.done(),
                    instance.state.as_str()
                ),
            );
        }
        if verb == Verb::Terminate
            && instance.disable_api_termination
            && !matches!(instance.state, ShuttingDown | Terminated)
        {
            return refuse(
                ErrorCode::OperationNotPermitted,
                format!(
                    "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
                ),
            );
        }
        if verb == Verb::Start && instance.state == Stopped {
            instance.needs_root()?;
            for attached in &instance.volumes {
                if let Some(encryption) = self
                    .volumes
                    .get(&attached.volume_id)
                    .and_then(|v| v.encryption.as_ref())
                {
                    self.key_usable(&instance.owner, &encryption.key_id)?;
                }
            }
        }
        Ok(())
    }

    /// The changes that a request makes: `step` gives the new state of an instance, or leaves it.
    fn begin(
        &mut self,
        ids: &[InstanceId],
        step: impl Fn(&mut Instance) -> Option<InstanceState>,
    ) -> Vec<StateChange> {
        let mut changes = Vec::new();
        for id in ids {
            let Some(instance) = self.instances.get_mut(id) else {
                continue;
            };
            let previous_state = instance.state;
            if let Some(state) = step(instance) {
                instance.state = state;
            }
            changes.push(StateChange {
                instance_id: id.clone(),
                previous_state,
                current_state: instance.state,
            });
        }
        changes
    }

    /// Begins `StartInstances`: stopped ones become pending; end each with [`State::instance_running`] or
    /// [`State::launch_failed`]. Those that run already are left as they are.
    ///
    /// `IncorrectInstanceState` for one whose root was detached. KMS's codes when a key of a volume cannot be used any more (EC2 stops the
    /// instance again).
    pub fn start_instances(
        &mut self,
        caller: &Caller,
        request: &InstancesRequest,
        fx: &dyn Effects,
    ) -> Api<Vec<StateChange>> {
        let ids = self.chosen(caller, request, Verb::Start)?;
        let now = date(fx);
        Ok(self.begin(&ids, |instance| {
            (instance.state == InstanceState::Stopped).then(|| {
                instance.launch_time = now;
                instance.state_transition_reason = String::new();
                instance.state_reason = None;
                InstanceState::Pending
            })
        }))
    }

    /// Begins `StopInstances`: running ones become stopping; end each with [`State::instance_stopped`].
    /// `UnsupportedOperation` for one whose root is an instance store volume.
    pub fn stop_instances(
        &mut self,
        caller: &Caller,
        request: &InstancesRequest,
        fx: &dyn Effects,
    ) -> Api<Vec<StateChange>> {
        let ids = self.chosen(caller, request, Verb::Stop)?;
        let now = date(fx);
        Ok(self.begin(&ids, |instance| {
            (instance.state == InstanceState::Running).then(|| {
                instance.state_transition_reason = user_initiated(now);
                instance.state_reason =
                    reason("Client.UserInitiatedShutdown", "User initiated shutdown");
                InstanceState::Stopping
            })
        }))
    }

    /// `RebootInstances`: checks that each runs, and gives their ids. Their state does not change.
    pub fn reboot_instances(
        &self,
        caller: &Caller,
        request: &InstancesRequest,
    ) -> Api<Vec<InstanceId>> {
        self.chosen(caller, request, Verb::Reboot)
    }

    /// Begins `TerminateInstances`: all become shutting-down; end each with [`State::instance_terminated`]. Those that are
    /// terminated already are left as they are.
    pub fn terminate_instances(
        &mut self,
        caller: &Caller,
        request: &InstancesRequest,
        fx: &dyn Effects,
    ) -> Api<Vec<StateChange>> {
        let ids = self.chosen(caller, request, Verb::Terminate)?;
        let now = date(fx);
        Ok(self.begin(&ids, |instance| {
            (!matches!(
                instance.state,
                InstanceState::ShuttingDown | InstanceState::Terminated
            ))
            .then(|| {
                instance.state_transition_reason = user_initiated(now);
                instance.state_reason =
                    reason("Client.UserInitiatedShutdown", "User initiated shutdown");
                InstanceState::ShuttingDown
            })
        }))
    }

    fn instance_in(&mut self, id: &InstanceId, states: &[InstanceState]) -> Api<&mut Instance> {
        let instance = self
            .instances
            .get_mut(id)
            .ok_or_else(|| no_instance(id.as_str()))?;
        if !states.contains(&instance.state) {
            return refuse(
                ErrorCode::IncorrectInstanceState,
                format!("The instance '{id}' is {}.", instance.state.as_str()),
            );
        }
        Ok(instance)
    }

    /// The machine of a pending instance runs.
    pub fn instance_running(&mut self, id: &InstanceId) -> Api<()> {
        let instance = self.instance_in(id, &[InstanceState::Pending])?;
        instance.state = InstanceState::Running;
        instance.ran = true;
        Ok(())
    }

    /// The machine of a stopping instance is off.
    pub fn instance_stopped(&mut self, id: &InstanceId) -> Api<()> {
        self.instance_in(id, &[InstanceState::Stopping])?.state = InstanceState::Stopped;
        Ok(())
    }

    /// The machine of an instance that is shutting down is off: the instance is terminated, and the volumes that go with
    /// it are gone.
    pub fn instance_terminated(&mut self, id: &InstanceId, fx: &dyn Effects) -> Api<Leftovers> {
        self.instance_in(id, &[InstanceState::ShuttingDown])?;
        self.bury(id, fx)
    }

    fn bury(&mut self, id: &InstanceId, fx: &dyn Effects) -> Api<Leftovers> {
        let now = date(fx);
        let instance = self
            .instances
            .get_mut(id)
            .ok_or_else(|| no_instance(id.as_str()))?;
        instance.state = InstanceState::Terminated;
        instance.terminated = Some(now);
        // A terminated instance holds no secret and no port.
        instance.user_data = None;
        instance.ports.clear();
        let mut left = Leftovers {
            ephemeral: std::mem::take(&mut instance.ephemeral),
            ..Leftovers::default()
        };
        for attached in std::mem::take(&mut instance.volumes) {
            let Some(volume) = self.volumes.get_mut(&attached.volume_id) else {
                continue;
            };
            if volume
                .attachment
                .as_ref()
                .is_some_and(|a| a.delete_on_termination)
            {
                self.volumes.remove(&attached.volume_id);
                left.deleted.push(attached.volume_id);
            } else {
                volume.attachment = None;
                volume.state = VolumeState::Available;
                left.kept.push(attached.volume_id);
            }
        }
        Ok(left)
    }

    /// A pending instance did not come up, for the reason `message`: one that never ran is terminated, one that was
    /// started again is stopped. `Server.InternalError`.
    pub fn launch_failed(
        &mut self,
        id: &InstanceId,
        message: &str,
        fx: &dyn Effects,
    ) -> Api<Leftovers> {
        let instance = self.instance_in(id, &[InstanceState::Pending])?;
        instance.state_transition_reason = "Server.InternalError".to_owned();
        instance.state_reason = reason("Server.InternalError", message);
        if instance.ran && instance.root_device_type == RootDevice::Ebs {
            instance.state = InstanceState::Stopped;
            return Ok(Leftovers::default());
        }
        self.bury(id, fx)
    }

    /// The machine of an instance is gone without having been asked: it crashed, was killed, or the host went down.
    /// Whatever was under way is ended; a running instance is stopped, or terminated when its root was an instance store
    /// volume. `Server.InternalError`, unless the user had asked for it. No change to one that is stopped or terminated.
    pub fn machine_lost(
        &mut self,
        id: &InstanceId,
        message: &str,
        fx: &dyn Effects,
    ) -> Api<Leftovers> {
        let instance = self
            .instances
            .get_mut(id)
            .ok_or_else(|| no_instance(id.as_str()))?;
        match instance.state {
            InstanceState::Pending => self.launch_failed(id, message, fx),
            InstanceState::Running => {
                instance.state_transition_reason = "Server.InternalError".to_owned();
                instance.state_reason = reason("Server.InternalError", message);
                if instance.root_device_type == RootDevice::InstanceStore {
                    return self.bury(id, fx);
                }
                instance.state = InstanceState::Stopped;
                Ok(Leftovers::default())
            }
            InstanceState::Stopping => {
                instance.state = InstanceState::Stopped;
                Ok(Leftovers::default())
            }
            InstanceState::ShuttingDown => self.bury(id, fx),
            InstanceState::Stopped | InstanceState::Terminated => Ok(Leftovers::default()),
        }
    }

    /// The guest of a running instance powered itself off: the instance is stopped, or terminated when its shutdown
    /// behaviour says so or its root was an instance store volume. `Client.InstanceInitiatedShutdown`.
    pub fn guest_shutdown(&mut self, id: &InstanceId, fx: &dyn Effects) -> Api<Leftovers> {
        let instance = self.instance_in(id, &[InstanceState::Pending, InstanceState::Running])?;
        instance.state_transition_reason = "Instance initiated shutdown".to_owned();
        instance.state_reason = reason(
            "Client.InstanceInitiatedShutdown",
            "Instance initiated shutdown",
        );
        if instance.shutdown_behavior == ShutdownBehavior::Terminate
            || instance.root_device_type == RootDevice::InstanceStore
        {
            return self.bury(id, fx);
        }
        instance.state = InstanceState::Stopped;
        Ok(Leftovers::default())
    }

    /// `ModifyInstanceAttribute`. Type and user data change while the instance is stopped, and so never of one whose
    /// root is an instance store volume.
    pub fn modify_instance(&mut self, caller: &Caller, request: &ModifyInstanceRequest) -> Api<()> {
        let id = instance_id(&request.instance_id)?;
        let given = [
            request.disable_api_termination.is_some(),
            request.instance_initiated_shutdown_behavior.is_some(),
            request.instance_type.is_some(),
            request.user_data.is_some(),
        ];
        one_attribute(given.iter().filter(|g| **g).count())?;
        let shutdown = match request.instance_initiated_shutdown_behavior.as_deref() {
            None => None,
            Some("stop") => Some(ShutdownBehavior::Stop),
            Some("terminate") => Some(ShutdownBehavior::Terminate),
            Some(other) => return Err(bad_value("InstanceInitiatedShutdownBehavior", other)),
        };
        let kind = request
            .instance_type
            .as_deref()
            .map(InstanceType::named)
            .transpose()?;
        if let Some(data) = &request.user_data
            && base64_len(data).is_none_or(|len| len > super::MAX_USER_DATA)
        {
            return refuse(
                ErrorCode::InvalidUserDataMalformed,
                "User data must be base64 of at most 16384 bytes.",
            );
        }
        dry_run(request.dry_run)?;
        let instance = self.own_instance(caller, &id)?;
        if kind.is_some() || request.user_data.is_some() {
            if instance.root_device_type == RootDevice::InstanceStore {
                return refuse(
                    ErrorCode::UnsupportedOperation,
                    format!("The instance '{id}' does not have an 'ebs' root device type."),
                );
            }
            if instance.state != InstanceState::Stopped {
                return refuse(
                    ErrorCode::IncorrectInstanceState,
                    format!("The instance '{id}' is not in the 'stopped' state."),
                );
            }
        }
        let firmware = match kind {
            Some(kind) if kind.architecture != instance.architecture => {
                return refuse(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "The instance type's architecture ({}) does not match the instance's ({}).",
                        kind.architecture, instance.architecture
                    ),
                );
            }
            Some(kind) => Some((kind, kind.firmware(instance.boot_mode)?)),
            None => None,
        };
        let instance = self
            .instances
            .get_mut(&id)
            .ok_or_else(|| no_instance(id.as_str()))?;
        if let Some(protect) = request.disable_api_termination {
            instance.disable_api_termination = protect;
        }
        if let Some(shutdown) = shutdown {
            instance.shutdown_behavior = shutdown;
        }
        if let Some((kind, firmware)) = firmware {
            kind.name.clone_into(&mut instance.instance_type);
            instance.cpus = kind.cpus;
            instance.memory_mib = kind.memory_mib;
            instance.firmware = firmware;
        }
        if let Some(data) = &request.user_data {
            instance.user_data = (!data.is_empty()).then(|| data.clone());
        }
        Ok(())
    }

    /// What time takes away: images and snapshots whose stay in the recycle bin is over, instances that were terminated an
    /// hour ago, keys whose deletion is due, and protection whose cooldown is over.
    pub fn expire(&mut self, now: Timestamp) -> Expired {
        let mut gone = Expired::default();
        for image in self.images.values_mut() {
            if image.bin.is_some_and(|bin| bin.exits.timestamp() <= now) {
                image.bin = None;
                gone.images.push(image.image_id.clone());
            }
            if matches!(
                image.deregistration_protection,
                Protection::EnabledWithCooldown { .. }
            ) && !image.deregistration_protection.holds(now)
            {
                image.deregistration_protection = Protection::Disabled;
            }
        }
        self.snapshots.retain(|id, snapshot| {
            let over = snapshot.bin.is_some_and(|bin| bin.exits.timestamp() <= now);
            if over {
                gone.snapshots.push(id.clone());
            }
            !over
        });
        self.instances.retain(|id, instance| {
            let over = instance
                .terminated
                .is_some_and(|at| now.secs.saturating_sub(at.timestamp().secs) >= TERMINATED_SECS);
            if over {
                gone.instances.push(id.clone());
            }
            !over
        });
        self.keys.retain(|id, key| {
            let over = key.state == KeyState::PendingDeletion
                && key.deletion_date.is_some_and(|at| at.timestamp() <= now);
            if over {
                gone.keys.push(id.clone());
            }
            !over
        });
        for settings in self.settings.values_mut() {
            if settings
                .default_key
                .as_ref()
                .is_some_and(|k| gone.keys.contains(k))
            {
                settings.default_key = None;
            }
        }
        gone
    }
}

/// Requests that modify take one attribute each.
pub(crate) fn one_attribute(count: usize) -> Result<(), ApiError> {
    match count {
        1 => Ok(()),
        0 => missing("Attribute"),
        _ => refuse(
            ErrorCode::InvalidParameterCombination,
            "Fields for multiple attribute types specified: one attribute can be changed per request.",
        ),
    }
}
