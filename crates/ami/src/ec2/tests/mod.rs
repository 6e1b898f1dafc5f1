//! The rules as tables, and what holds of every state.

mod adopt;
mod botocore;
mod invariants;
mod outcomes;
mod outcomes_instances;
mod shapes;
mod table;
mod table_copy;
mod table_keys;
mod table_life;
mod table_run;
mod table_share;
mod table_volumes;

use amiforge_types::{Digest, Timestamp};

use super::*;
use crate::SnapshotId;

/// A clock that stands until it is moved, and chance that can be repeated.
pub(super) struct Fx {
    pub(super) now: i64,
    pub(super) seed: u64,
}

impl Effects for Fx {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.now)
    }

    fn random(&mut self) -> u128 {
        // SplitMix64, twice.
        let mut next = || {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        u128::from(next()) << 64 | u128::from(next())
    }
}

/// A state, and who asks: `a` and `b` in one region, `far` is `a` in another.
pub(super) struct World {
    pub(super) s: State,
    pub(super) fx: Fx,
    pub(super) a: Caller,
    pub(super) b: Caller,
    pub(super) far: Caller,
}

pub(super) const A: &str = "111111111111";
pub(super) const B: &str = "222222222222";
pub(super) const HERE: &str = "eu-central-1";
pub(super) const FAR: &str = "us-east-1";
pub(super) const DAY: i64 = 86_400;

pub(super) fn caller(account: &str, region: &str) -> Caller {
    Caller {
        account: account.parse().unwrap(),
        region: region.parse().unwrap(),
    }
}

/// A change of a request. Not generic: what a row calls is compiled once, not once for each row.
pub(super) type Change<'a, R> = &'a mut dyn FnMut(&mut R);

/// What can be called once, as a [`Change`].
pub(super) fn once<R>(change: impl FnOnce(&mut R)) -> impl FnMut(&mut R) {
    let mut change = Some(change);
    move |request| {
        if let Some(change) = change.take() {
            change(request);
        }
    }
}

/// `Ok(())` of anything.
pub(super) fn done<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    result.map(drop)
}

pub(super) fn ebs(snapshot: &str) -> EbsRequest {
    EbsRequest {
        snapshot_id: Some(snapshot.to_owned()),
        ..EbsRequest::default()
    }
}

pub(super) fn sized(gib: u32) -> EbsRequest {
    EbsRequest {
        volume_size: Some(gib),
        ..EbsRequest::default()
    }
}

pub(super) fn at(device: &str, ebs: EbsRequest) -> MappingRequest {
    MappingRequest {
        device_name: device.to_owned(),
        ebs: Some(ebs),
        ..MappingRequest::default()
    }
}

pub(super) fn no_device(device: &str) -> MappingRequest {
    MappingRequest {
        device_name: device.to_owned(),
        no_device: Some(String::new()),
        ..MappingRequest::default()
    }
}

pub(super) fn ephemeral(device: &str, name: &str) -> MappingRequest {
    MappingRequest {
        device_name: device.to_owned(),
        virtual_name: Some(name.to_owned()),
        ..MappingRequest::default()
    }
}

/// A good request to register an image of a snapshot.
pub(super) fn register(name: &str, snapshot: &str) -> RegisterImageRequest {
    RegisterImageRequest {
        name: name.to_owned(),
        architecture: Some("x86_64".to_owned()),
        virtualization_type: Some("hvm".to_owned()),
        root_device_name: Some("/dev/xvda".to_owned()),
        block_device_mappings: vec![at("/dev/xvda", ebs(snapshot))],
        ..RegisterImageRequest::default()
    }
}

pub(super) fn ids(id: &str) -> InstancesRequest {
    InstancesRequest {
        instance_ids: vec![id.to_owned()],
        ..InstancesRequest::default()
    }
}

pub(super) fn image(id: &str) -> ImageRequest {
    ImageRequest {
        image_id: id.to_owned(),
        dry_run: false,
    }
}

pub(super) fn user(account: &str) -> LaunchPermissionRequest {
    LaunchPermissionRequest {
        user_id: Some(account.to_owned()),
        ..LaunchPermissionRequest::default()
    }
}

pub(super) fn everybody() -> LaunchPermissionRequest {
    LaunchPermissionRequest {
        group: Some("all".to_owned()),
        ..LaunchPermissionRequest::default()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            s: State::default(),
            fx: Fx {
                now: 1_795_800_000,
                seed: 7,
            },
            a: caller(A, HERE),
            b: caller(B, HERE),
            far: caller(A, FAR),
        }
    }

    pub(super) fn settings(&mut self, caller: &Caller) -> &mut RegionSettings {
        self.s
            .settings
            .entry((caller.account.clone(), caller.region.clone()))
            .or_default()
    }

    /// A complete snapshot of 8 GiB.
    pub(super) fn snap(&mut self, caller: &Caller) -> String {
        let id = self
            .s
            .import_snapshot(caller, 8, None, Tags::new(), &mut self.fx)
            .unwrap();
        self.finish(&id);
        id.to_string()
    }

    /// The same under a key.
    pub(super) fn encrypted_snap(&mut self, caller: &Caller, key: &str) -> String {
        let plain = self.snap(caller);
        let request = CopySnapshotRequest {
            source_snapshot_id: plain,
            source_region: caller.region.to_string(),
            encrypted: Some(true),
            kms_key_id: Some(key.to_owned()),
            ..CopySnapshotRequest::default()
        };
        let copied = self
            .s
            .copy_snapshot(caller, &request, &mut self.fx)
            .unwrap();
        self.finish(&copied.snapshot_id);
        copied.snapshot_id.to_string()
    }

    pub(super) fn content(&mut self, id: &SnapshotId) -> SnapshotContent {
        SnapshotContent {
            snapshot_id: id.clone(),
            map: Digest::of(id.as_str().as_bytes()),
            blocks: 100,
            changed_blocks: 10,
        }
    }

    pub(super) fn finish(&mut self, id: &SnapshotId) {
        let content = self.content(id);
        self.s.complete_snapshot(&content, &self.fx).unwrap();
    }

    /// An available image of a plain snapshot.
    pub(super) fn image(&mut self, caller: &Caller, name: &str) -> String {
        let snapshot = self.snap(caller);
        self.image_of(caller, name, &snapshot)
    }

    pub(super) fn image_of(&mut self, caller: &Caller, name: &str, snapshot: &str) -> String {
        let request = register(name, snapshot);
        self.s
            .register_image(caller, &request, None, &mut self.fx)
            .unwrap()
            .to_string()
    }

    pub(super) fn bundle(
        &mut self,
        caller: &Caller,
        name: &str,
        bytes: u64,
    ) -> Result<String, ApiError> {
        let mut request = register(name, "");
        request.block_device_mappings = Vec::new();
        request.image_location = Some("/srv/bundles/image.manifest.xml".to_owned());
        let facts = BundleFacts {
            architecture: amiforge_types::Arch::X86_64,
            image_bytes: bytes,
            ephemeral: Vec::new(),
        };
        let id = self
            .s
            .register_image(caller, &request, Some(&facts), &mut self.fx)?;
        Ok(id.to_string())
    }

    pub(super) fn key(&mut self, caller: &Caller, alias: &str) -> String {
        self.s
            .create_key(caller, "", &[alias.to_owned()], &mut self.fx)
            .unwrap()
            .to_string()
    }

    /// A running instance.
    pub(super) fn instance(&mut self, caller: &Caller, image: &str) -> String {
        let request = RunInstancesRequest {
            image_id: image.to_owned(),
            ..RunInstancesRequest::default()
        };
        let id = self
            .s
            .run_instances(caller, &request, &mut self.fx)
            .unwrap()
            .launches[0]
            .instance_id
            .clone();
        self.s.instance_running(&id).unwrap();
        id.to_string()
    }

    pub(super) fn stopped(&mut self, caller: &Caller, image: &str) -> String {
        let id = self.instance(caller, image);
        self.s.stop_instances(caller, &ids(&id), &self.fx).unwrap();
        self.s.instance_stopped(&id.parse().unwrap()).unwrap();
        id
    }

    pub(super) fn share(&mut self, owner: &Caller, id: &str, with: &str) {
        self.s
            .modify_launch_permission(owner, id, &[user(with)], &[], false, &self.fx)
            .unwrap();
    }

    pub(super) fn share_snapshot(
        &mut self,
        owner: &Caller,
        id: &str,
        with: &str,
    ) -> Result<(), ApiError> {
        self.s.modify_snapshot(
            owner,
            &ModifySnapshotRequest {
                snapshot_id: id.to_owned(),
                operation_type: Some("add".to_owned()),
                user_ids: vec![with.to_owned()],
                ..ModifySnapshotRequest::default()
            },
        )
    }

    /// A copy of an image to where the caller is.
    pub(super) fn copy(
        &mut self,
        caller: &Caller,
        id: &str,
        from: &str,
        change: impl FnOnce(&mut CopyImageRequest),
    ) -> Result<CopiedImage, ApiError> {
        self.copy_of(caller, id, from, &mut once(change))
    }

    fn copy_of(
        &mut self,
        caller: &Caller,
        id: &str,
        from: &str,
        change: Change<'_, CopyImageRequest>,
    ) -> Result<CopiedImage, ApiError> {
        let mut request = CopyImageRequest {
            source_image_id: id.to_owned(),
            source_region: from.to_owned(),
            name: "copy".to_owned(),
            ..CopyImageRequest::default()
        };
        change(&mut request);
        self.s.copy_image(caller, &request, &mut self.fx)
    }

    pub(super) fn run(
        &mut self,
        caller: &Caller,
        id: &str,
        change: impl FnOnce(&mut RunInstancesRequest),
    ) -> Result<RunInstances, ApiError> {
        self.run_of(caller, id, &mut once(change))
    }

    fn run_of(
        &mut self,
        caller: &Caller,
        id: &str,
        change: Change<'_, RunInstancesRequest>,
    ) -> Result<RunInstances, ApiError> {
        let mut request = RunInstancesRequest {
            image_id: id.to_owned(),
            ..RunInstancesRequest::default()
        };
        change(&mut request);
        self.s.run_instances(caller, &request, &mut self.fx)
    }

    pub(super) fn create(
        &mut self,
        caller: &Caller,
        id: &str,
        change: impl FnOnce(&mut CreateImageRequest),
    ) -> Result<CreatedImage, ApiError> {
        self.create_of(caller, id, &mut once(change))
    }

    fn create_of(
        &mut self,
        caller: &Caller,
        id: &str,
        change: Change<'_, CreateImageRequest>,
    ) -> Result<CreatedImage, ApiError> {
        let mut request = CreateImageRequest {
            instance_id: id.to_owned(),
            name: "created".to_owned(),
            ..CreateImageRequest::default()
        };
        change(&mut request);
        self.s.create_image(caller, &request, &mut self.fx)
    }

    pub(super) fn deregister(
        &mut self,
        caller: &Caller,
        id: &str,
        snapshots: bool,
    ) -> Result<Deregistered, ApiError> {
        let request = DeregisterImageRequest {
            image_id: id.to_owned(),
            delete_associated_snapshots: snapshots,
            dry_run: false,
        };
        self.s.deregister_image(caller, &request, &self.fx)
    }

    pub(super) fn record(&self, id: &str) -> &Image {
        &self.s.images[&id.parse().unwrap()]
    }
}

/// A rule, how it is broken, and the code that it is answered with.
pub(super) type Row = (
    &'static str,
    fn(&mut World) -> Result<(), ApiError>,
    ErrorCode,
);

/// Every row is refused with its code, and has changed nothing that another row of the state would notice.
pub(super) fn check_rows(rows: &[Row]) {
    let mut bad = Vec::new();
    for (rule, breaks, code) in rows {
        let mut world = World::new();
        match breaks(&mut world) {
            Err(error) if error.code == *code => {}
            other => bad.push(format!("{rule}: {other:?}, not {code}")),
        }
        bad.extend(world.s.check().into_iter().map(|b| format!("{rule}: {b}")));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
