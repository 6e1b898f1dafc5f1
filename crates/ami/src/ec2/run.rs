//! `RunInstances`.
//!
//! Source: EC2 API reference, `RunInstances`; EC2 user guide, `block-device-mapping-concepts`,
//! `configuring-instance-metadata-options`; EBS user guide, encryption.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use amiforge_types::{Arch, Digest};

use super::check::{
    Api, bad_value, base64_len, date, dry_run, gone, image_id, refuse, request_digest, tag_sets,
};
use super::devices::{
    Entry, EntryTarget, bad_mapping, check_clashes, check_volume, ebs_mut, entries, new_volume,
    overlay, too_small,
};
use super::register::MAX_BUNDLE_BYTES;
use super::request::request;
use super::types::DEFAULT_INSTANCE_TYPE;
use super::volumes::VolumePlan;
use super::{
    Attachment, Caller, Effects, Encryption, EphemeralVolume, ErrorCode, HttpTokens, Image,
    ImageState, Instance, InstanceState, InstanceType, InstanceVolume, MappingRequest,
    MetadataOptions, PortForward, RootDevice, ShutdownBehavior, SnapshotState, State,
    TagSpecification, Tags,
};
use crate::{
    BlockDeviceMapping, DeviceName, InstanceId, MappingTarget, ReservationId, SnapshotId, VolumeId,
};

/// Most bytes of user data, before base64.
pub const MAX_USER_DATA: usize = 16_384;

/// Most instances of one request here.
const MAX_COUNT: u32 = 64;

request! {
    /// `RunInstances`. The members after `dry_run` are amiforge's own.
    pub struct RunInstancesRequest {
        /// The image.
        pub image_id: String,
        /// For example `t3.micro`, which is the default here.
        pub instance_type: Option<String>,
        /// Fewest instances; 1 when absent.
        pub min_count: Option<u32>,
        /// Most instances; all of them are launched here. As `min_count` when absent.
        pub max_count: Option<u32>,
        /// Name of the key pair.
        pub key_name: Option<String>,
        /// What differs from the image's mappings.
        pub block_device_mappings: Vec<MappingRequest>,
        /// User data, base64 of at most 16384 bytes.
        pub user_data: Option<String>,
        /// Options of the metadata service.
        pub metadata_options: Option<MetadataOptionsRequest>,
        /// Tags for the types `instance` and `volume`.
        pub tag_specifications: Vec<TagSpecification>,
        /// Where it runs.
        pub placement: Option<Placement>,
        /// Its private address; with one instance only.
        pub private_ip_address: Option<String>,
        /// Protection against `TerminateInstances`.
        pub disable_api_termination: bool,
        /// `stop` or `terminate`: what a power-off by the guest does.
        pub instance_initiated_shutdown_behavior: Option<String>,
        /// A request repeated with the same token and members gives the same instances.
        pub client_token: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
        /// The public key of the key pair, one line of `authorized_keys`, from whoever keeps the pairs.
        pub public_key: Option<String>,
        /// Virtual processors, instead of the type's.
        pub cpus: Option<u32>,
        /// Memory in MiB, instead of the type's.
        pub memory_mib: Option<u32>,
        /// Ports of the host that lead into the instance; with one instance only.
        pub ports: Vec<PortForward>,
        /// Cuts the instance off from the network beyond this host.
        pub no_outbound: bool,
    }
}

request! {
    /// `InstanceMetadataOptionsRequest`.
    pub struct MetadataOptionsRequest {
        /// `optional` or `required`.
        pub http_tokens: Option<String>,
        /// 1 to 64.
        pub http_put_response_hop_limit: Option<u32>,
        /// `enabled` or `disabled`.
        pub http_endpoint: Option<String>,
        /// `enabled` or `disabled`.
        pub instance_metadata_tags: Option<String>,
    }
}

request! {
    /// `Placement`.
    pub struct Placement {
        /// A zone of the region.
        pub availability_zone: Option<String>,
    }
}

/// What a volume is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// Nothing: zeros.
    Empty,
    /// The blocks of a snapshot, which may be shorter than the volume.
    Snapshot {
        /// The snapshot.
        snapshot_id: SnapshotId,
        /// Its block map.
        map: Digest,
        /// Its encryption.
        encryption: Option<Encryption>,
    },
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// The volume; its record has the encryption that it shall have.
    pub volume_id: VolumeId,
    /// Size in GiB.
    pub size: u32,
    /// What it is made from.
    pub source: VolumeSource,
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
    /// A data key of the id in `encryption` is to be made first, wrapped by its key. Otherwise the volume has the data
    /// key of its snapshot, or none.
    pub new_data_key: bool,
}

/// An instance to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The instance, pending; end it with [`State::instance_running`] or [`State::launch_failed`].
    pub instance_id: InstanceId,
    /// Its volumes, the root first.
    pub volumes: Vec<NewVolume>,
    /// The manifest of the bundle that its root is made of, of an instance-store image.
    pub bundle: Option<String>,
}

/// What [`State::run_instances`] began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstances {
    /// The reservation.
    pub reservation_id: ReservationId,
    /// Its instances. Without volumes when `repeated`.
    pub launches: Vec<Launch>,
    /// Devices whose mapping to an instance store volume has no effect, because the type has no (further) such volume.
    pub ignored: Vec<DeviceName>,
    /// Whether an earlier request with this client token began it.
    pub repeated: bool,
}

/// A volume as each instance gets it.
struct Planned {
    device: DeviceName,
    plan: VolumePlan,
}

struct Plain {
    kind: &'static InstanceType,
    entries: Vec<Entry>,
    count: u32,
    tags: Tags,
    volume_tags: Tags,
    zone: String,
    shutdown: ShutdownBehavior,
    address: Option<Ipv4Addr>,
    cpus: u32,
    memory_mib: u32,
}

impl RunInstancesRequest {
    fn plain(&self, caller: &Caller, image: Option<&Image>) -> Api<Plain> {
        let default = match image {
            Some(i) if i.root_device_type == RootDevice::InstanceStore => "m3.medium",
            Some(i) if i.architecture == Arch::Arm64 => "t4g.micro",
            _ => DEFAULT_INSTANCE_TYPE,
        };
        let kind = InstanceType::named(self.instance_type.as_deref().unwrap_or(default))?;
        let entries = entries(&self.block_device_mappings, ErrorCode::MissingParameter)?;
        let [tags, volume_tags] = tag_sets(&self.tag_specifications, ["instance", "volume"])?;
        let min = self.min_count.unwrap_or(1);
        let count = self.max_count.unwrap_or(min);
        if min == 0 || count < min || count > MAX_COUNT {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "MinCount {min} and MaxCount {count}: 1 <= MinCount <= MaxCount <= {MAX_COUNT}."
                ),
            );
        }
        if let Some(data) = &self.user_data {
            // The text itself is bounded, too: padding and line ends cannot make it long.
            let Some(len) = base64_len(data) else {
                return refuse(
                    ErrorCode::InvalidUserDataMalformed,
                    "Invalid BASE64 encoding of user data.",
                );
            };
            if len > MAX_USER_DATA {
                return refuse(
                    ErrorCode::InvalidUserDataMalformed,
                    format!("User data is limited to {MAX_USER_DATA} bytes"),
                );
            }
        }
        let zone = match self
            .placement
            .as_ref()
            .and_then(|p| p.availability_zone.as_deref())
        {
            None => caller.region.zone(),
            Some(zone) => {
                let letter = zone
                    .strip_prefix(caller.region.as_str())
                    .unwrap_or_default();
                if !matches!(letter.as_bytes(), [b'a'..=b'f']) {
                    return Err(bad_value("AvailabilityZone", zone));
                }
                zone.to_owned()
            }
        };
        let shutdown = match self.instance_initiated_shutdown_behavior.as_deref() {
            None | Some("stop") => ShutdownBehavior::Stop,
            Some("terminate") => ShutdownBehavior::Terminate,
            Some(other) => return Err(bad_value("InstanceInitiatedShutdownBehavior", other)),
        };
        let address = self
            .private_ip_address
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|_| bad_value("PrivateIpAddress", text))
            })
            .transpose()?;
        if count > 1 && (address.is_some() || !self.ports.is_empty()) {
            return refuse(
                ErrorCode::InvalidParameterCombination,
                "A private address and forwarded ports can be given for one instance only.",
            );
        }
        let mut hosts = BTreeSet::new();
        if let Some(twice) = self.ports.iter().find(|p| !hosts.insert(p.host)) {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("Port {} of the host is forwarded twice.", twice.host),
            );
        }
        let cpus = self.cpus.unwrap_or(kind.cpus);
        let memory_mib = self.memory_mib.unwrap_or(kind.memory_mib);
        if !(1..=255).contains(&cpus) {
            return Err(bad_value("Cpus", &cpus.to_string()));
        }
        if !(64..=16_777_216).contains(&memory_mib) {
            return Err(bad_value("MemoryMib", &memory_mib.to_string()));
        }
        self.metadata(None)?;
        // One line: it is written into files of lines.
        if let Some(key) = &self.public_key
            && (key.trim().is_empty() || key.len() > 16_384 || key.chars().any(char::is_control))
        {
            return refuse(
                ErrorCode::InvalidParameterValue,
                "The public key must be one line of authorized_keys.",
            );
        }
        if let Some(name) = &self.key_name
            && !(1..=255).contains(&name.chars().count())
        {
            return Err(bad_value("KeyName", name));
        }
        Ok(Plain {
            kind,
            entries,
            count,
            tags,
            volume_tags,
            zone,
            shutdown,
            address,
            cpus,
            memory_mib,
        })
    }

    /// The metadata options: what the request says, else what the image's `ImdsSupport` says, else tokens optional and
    /// one hop.
    fn metadata(&self, image: Option<&Image>) -> Api<MetadataOptions> {
        let v2 = image.is_some_and(|i| i.imds_support.is_some());
        let none = MetadataOptionsRequest::default();
        let asked = self.metadata_options.as_ref().unwrap_or(&none);
        let switch = |member: &str, text: Option<&str>, default: bool| match text {
            None => Ok(default),
            Some("enabled") => Ok(true),
            Some("disabled") => Ok(false),
            Some(other) => Err(bad_value(member, other)),
        };
        let hops = asked
            .http_put_response_hop_limit
            .unwrap_or(if v2 { 2 } else { 1 });
        let hops = match u8::try_from(hops) {
            Ok(hops @ 1..=64) => hops,
            _ => return Err(bad_value("HttpPutResponseHopLimit", &hops.to_string())),
        };
        Ok(MetadataOptions {
            http_endpoint: switch("HttpEndpoint", asked.http_endpoint.as_deref(), true)?,
            http_tokens: match asked.http_tokens.as_deref() {
                None if v2 => HttpTokens::Required,
                None | Some("optional") => HttpTokens::Optional,
                Some("required") => HttpTokens::Required,
                Some(other) => return Err(bad_value("HttpTokens", other)),
            },
            http_put_response_hop_limit: hops,
            instance_metadata_tags: switch(
                "InstanceMetadataTags",
                asked.instance_metadata_tags.as_deref(),
                false,
            )?,
        })
    }
}

impl State {
    /// `RunInstances`: records of instances and volumes, pending, and what is to be made of them. The image must be seen by
    /// the caller and available; its snapshots need not be shared, but the keys of encrypted ones must be usable.
    ///
    /// Volumes of another account's encrypted snapshots, and those of plain ones while encryption by default is on, are
    /// encrypted under the caller's default key. A key that cannot be used is refused at once with KMS's code (EC2 launches and
    /// terminates the instance). An image whose boot mode or architecture the type lacks is refused with
    /// `UnsupportedOperation` and `InvalidParameterValue`; the reference leaves the first code open.
    pub fn run_instances(
        &mut self,
        caller: &Caller,
        request: &RunInstancesRequest,
        fx: &mut dyn Effects,
    ) -> Api<RunInstances> {
        let id = image_id(&request.image_id)?;
        // The default type depends on the image; everything else is checked before it is looked at.
        let plain = request.plain(caller, self.images.get(&id))?;
        dry_run(request.dry_run)?;
        let digest = request_digest(request);
        if let Some(done) = self.repeated_launch(caller, request, digest)? {
            return Ok(done);
        }
        let image = self.seen_image(caller, &id, fx)?.clone();
        if image.state != ImageState::Available {
            return Err(gone(&id));
        }
        if request.key_name.is_some() && request.public_key.is_none() {
            return refuse(
                ErrorCode::InvalidKeyPairNotFound,
                format!(
                    "The key pair '{}' does not exist",
                    request.key_name.as_deref().unwrap_or_default()
                ),
            );
        }
        let kind = plain.kind;
        if kind.architecture != image.architecture {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI.",
                    kind.architecture, image.architecture
                ),
            );
        }
        let firmware = kind.firmware(image.boot_mode)?;
        let metadata_options = request.metadata(Some(&image))?;
        check_bundle(&image, kind)?;
        let mappings = self.merged(&image, &plain.entries)?;
        let (ephemeral, ignored) = instance_store(kind, &mappings);
        let planned = self.planned(caller, &image, &mappings, &plain.entries, fx)?;

        let reservation_id = self.new_reservation_id(fx);
        let mut launches = Vec::new();
        for index in 0..plain.count {
            let instance_id = self.new_instance_id(fx);
            let volumes = self.make_volumes(caller, &instance_id, &planned, &plain, fx);
            let private_ip = match plain.address {
                Some(address) => address,
                None => self.free_address(caller, fx),
            };
            let instance = Instance {
                instance_id: instance_id.clone(),
                reservation_id: reservation_id.clone(),
                owner: caller.account.clone(),
                region: caller.region.clone(),
                availability_zone: plain.zone.clone(),
                image_id: id.clone(),
                instance_type: kind.name.to_owned(),
                cpus: plain.cpus,
                memory_mib: plain.memory_mib,
                architecture: image.architecture,
                firmware,
                boot_mode: image.boot_mode,
                state: InstanceState::Pending,
                state_transition_reason: String::new(),
                state_reason: None,
                launch_time: date(fx),
                terminated: None,
                root_device_type: image.root_device_type,
                root_device_name: image.root_device_name.clone(),
                volumes: volumes
                    .iter()
                    .map(|(device, v)| InstanceVolume {
                        device: device.clone(),
                        volume_id: v.volume_id.clone(),
                    })
                    .collect(),
                ephemeral: ephemeral.clone(),
                key_name: request.key_name.clone(),
                public_key: request.public_key.clone(),
                user_data: request.user_data.clone(),
                metadata_options,
                mac: mac(fx.random()),
                private_ip: private_ip.to_string(),
                ports: request.ports.clone(),
                outbound: !request.no_outbound,
                ami_launch_index: index,
                ran: false,
                disable_api_termination: request.disable_api_termination,
                shutdown_behavior: plain.shutdown,
                ena_support: image.ena_support,
                tpm_support: image.tpm_support,
                platform_details: image.platform_details.clone(),
                usage_operation: image.usage_operation.clone(),
                product_codes: image.product_codes.clone(),
                client_token: request.client_token.clone(),
                client_request: request.client_token.is_some().then_some(digest),
                tags: plain.tags.clone(),
            };
            self.instances.insert(instance_id.clone(), instance);
            launches.push(Launch {
                instance_id,
                volumes: volumes.into_iter().map(|(_, v)| v).collect(),
                bundle: match image.root_device_type {
                    RootDevice::Ebs => None,
                    RootDevice::InstanceStore => image.image_location.clone(),
                },
            });
        }
        if let Some(image) = self.images.get_mut(&id) {
            image.last_launched_time = Some(date(fx));
        }
        Ok(RunInstances {
            reservation_id,
            launches,
            ignored,
            repeated: false,
        })
    }

    fn repeated_launch(
        &self,
        caller: &Caller,
        request: &RunInstancesRequest,
        digest: Digest,
    ) -> Api<Option<RunInstances>> {
        let Some(token) = &request.client_token else {
            return Ok(None);
        };
        let mut earlier = self.instances.values().filter(|i| {
            i.owner == caller.account
                && i.region == caller.region
                && i.client_token.as_ref() == Some(token)
        });
        let Some(first) = earlier.next() else {
            return Ok(None);
        };
        if first.client_request != Some(digest) {
            return refuse(
                ErrorCode::IdempotentParameterMismatch,
                format!("The client token {token} was used with other parameters."),
            );
        }
        let mut all: Vec<&Instance> = std::iter::once(first).chain(earlier).collect();
        all.sort_by_key(|i| i.ami_launch_index);
        Ok(Some(RunInstances {
            reservation_id: first.reservation_id.clone(),
            launches: all
                .into_iter()
                .map(|i| Launch {
                    instance_id: i.instance_id.clone(),
                    volumes: Vec::new(),
                    bundle: None,
                })
                .collect(),
            ignored: Vec::new(),
            repeated: true,
        }))
    }

    /// The image's mappings with the entries of the request.
    fn merged(&self, image: &Image, entries: &[Entry]) -> Api<Vec<BlockDeviceMapping>> {
        let root = &image.root_device_name;
        let mut mappings = image.block_device_mappings.clone();
        mappings.retain(|m| m.target != MappingTarget::NoDevice);
        for entry in entries {
            let device = &entry.device;
            let place = mappings.iter().position(|m| m.device_name == *device);
            let target = match &entry.target {
                EntryTarget::NoDevice => {
                    if device == root {
                        return bad_mapping(format!(
                            "The root device {device} cannot be left out."
                        ));
                    }
                    if let Some(place) = place {
                        mappings.remove(place);
                    }
                    continue;
                }
                _ if device == root && image.root_device_type == RootDevice::InstanceStore => {
                    return bad_mapping(format!("The root device {device} comes from the bundle."));
                }
                EntryTarget::Virtual(_) if device == root => {
                    return bad_mapping(format!(
                        "The root device {device} cannot be an instance store volume."
                    ));
                }
                EntryTarget::Virtual(name) => MappingTarget::Virtual(*name),
                EntryTarget::Ebs(ebs) => {
                    if device == root && ebs.snapshot.is_some() {
                        return bad_mapping(format!(
                            "snapshotId cannot be modified on root device {device}"
                        ));
                    }
                    if let Some(volume) = ebs_mut(&mut mappings, device) {
                        let snapshot = volume.snapshot_id.clone();
                        overlay(volume, ebs);
                        if volume.snapshot_id != snapshot && ebs.size.is_none() {
                            // The size of another snapshot is not the image's business.
                            volume.volume_size = self
                                .snapshot_size(volume.snapshot_id.as_ref())
                                .unwrap_or(volume.volume_size);
                        }
                        continue;
                    }
                    let size = ebs
                        .size
                        .or_else(|| self.snapshot_size(ebs.snapshot.as_ref()));
                    if size.is_none() && ebs.snapshot.is_none() {
                        return refuse(
                            ErrorCode::MissingParameter,
                            format!(
                                "The request must contain the parameter size or snapshotId for {device}"
                            ),
                        );
                    }
                    // Of a snapshot that is not there the size is never looked at.
                    MappingTarget::Ebs(new_volume(ebs, size.unwrap_or(1), false))
                }
            };
            match place {
                Some(place) => mappings[place].target = target,
                None => mappings.push(BlockDeviceMapping {
                    device_name: device.clone(),
                    target,
                }),
            }
        }
        check_clashes(&mappings)?;
        // The root first.
        mappings.sort_by_key(|m| m.device_name != *root);
        Ok(mappings)
    }

    fn snapshot_size(&self, id: Option<&SnapshotId>) -> Option<u32> {
        self.snapshots.get(id?).map(|s| s.volume_size)
    }

    /// Source and encryption of each EBS volume.
    fn planned(
        &mut self,
        caller: &Caller,
        image: &Image,
        mappings: &[BlockDeviceMapping],
        entries: &[Entry],
        fx: &mut dyn Effects,
    ) -> Api<Vec<Planned>> {
        let by_default = self.settings_of(caller).encryption_by_default;
        let mut planned = Vec::new();
        for mapping in mappings {
            let MappingTarget::Ebs(volume) = &mapping.target else {
                continue;
            };
            let device = &mapping.device_name;
            let entry =
                entries
                    .iter()
                    .find(|e| e.device == *device)
                    .and_then(|e| match &e.target {
                        EntryTarget::Ebs(ebs) => Some(ebs),
                        _ => None,
                    });
            let snapshot = match &volume.snapshot_id {
                None => None,
                Some(id) => {
                    // A snapshot of the image is launched from by the right to the image.
                    let of_image = image.block_device_mappings.iter().any(|m| {
                        m.as_ebs()
                            .is_some_and(|v| v.snapshot_id.as_ref() == Some(id))
                    });
                    let snapshot = if of_image {
                        self.snapshots
                            .get(id)
                            .filter(|s| s.bin.is_none())
                            .ok_or_else(|| super::check::no_snapshot(id.as_str()))?
                    } else {
                        self.seen_snapshot(caller, id)?
                    };
                    let (SnapshotState::Completed, Some(map)) = (snapshot.state, snapshot.map)
                    else {
                        return refuse(
                            ErrorCode::IncorrectState,
                            format!("Snapshot '{id}' is not 'completed'."),
                        );
                    };
                    if volume.volume_size < snapshot.volume_size {
                        return too_small(volume.volume_size, id, snapshot.volume_size);
                    }
                    Some((snapshot.clone(), map))
                }
            };
            check_volume(device, volume, *device == image.root_device_name)?;
            let encrypted = entry.and_then(|e| e.encrypted);
            let key = entry.and_then(|e| e.key.as_deref());
            let old = snapshot.as_ref().and_then(|(s, _)| s.encryption.clone());
            if old.is_some() && encrypted == Some(false) {
                return bad_mapping(format!(
                    "{device}: an encrypted snapshot makes an encrypted volume."
                ));
            }
            if let Some(old) = &old {
                self.key_usable(&caller.account, &old.key_id)?;
            }
            let own = snapshot
                .as_ref()
                .is_some_and(|(s, _)| s.owner == caller.account);
            let wished = match (encrypted, &old) {
                (Some(wished), _) => wished || by_default,
                (None, None) => volume.encrypted == Some(true) || by_default,
                // Of another account: under a key of the caller's.
                (None, Some(_)) => !own,
            };
            let encryption = self.encryption_wish(caller, old, own, wished, key, fx)?;
            planned.push(Planned {
                device: device.clone(),
                plan: VolumePlan {
                    volume: volume.clone(),
                    source: snapshot.map_or(VolumeSource::Empty, |(s, map)| {
                        VolumeSource::Snapshot {
                            snapshot_id: s.snapshot_id,
                            map,
                            encryption: s.encryption,
                        }
                    }),
                    encryption,
                },
            });
        }
        Ok(planned)
    }

    fn make_volumes(
        &mut self,
        caller: &Caller,
        instance_id: &InstanceId,
        planned: &[Planned],
        plain: &Plain,
        fx: &mut dyn Effects,
    ) -> Vec<(DeviceName, NewVolume)> {
        let mut volumes = Vec::new();
        for Planned { device, plan } in planned {
            let attachment = Attachment {
                instance_id: instance_id.clone(),
                device: device.clone(),
                delete_on_termination: plan.volume.delete_on_termination,
                attach_time: None,
            };
            let tags = plain.volume_tags.clone();
            let new = self.insert_volume(caller, &plain.zone, plan, Some(attachment), tags, fx);
            volumes.push((device.clone(), new));
        }
        volumes
    }

    /// An address of the default subnet that no instance of the account and region has: 172.31.0.4 and up, as the first
    /// addresses of a subnet are AWS's.
    fn free_address(&self, caller: &Caller, fx: &mut dyn Effects) -> Ipv4Addr {
        let taken: BTreeSet<&str> = self
            .instances
            .values()
            .filter(|i| {
                i.owner == caller.account
                    && i.region == caller.region
                    && i.state != InstanceState::Terminated
            })
            .map(|i| i.private_ip.as_str())
            .collect();
        // 4091 addresses of 172.31.0.0/20; an instance more than these shares one, which does no harm here.
        let start = u32::try_from(fx.random() % 4091).unwrap_or(0);
        (0..4091)
            .map(|i| Ipv4Addr::from(0xac1f_0000 + 4 + (start + i) % 4091))
            .find(|address| !taken.contains(address.to_string().as_str()))
            .unwrap_or(Ipv4Addr::new(172, 31, 0, 4))
    }
}

fn check_bundle(image: &Image, kind: &InstanceType) -> Api<()> {
    if image.root_device_type == RootDevice::Ebs {
        return Ok(());
    }
    if !kind.instance_store_root {
        return refuse(
            ErrorCode::UnsupportedOperation,
            format!(
                "The instance type '{}' does not support instance store-backed AMIs (m3, c3, r3, d2 and i2 do).",
                kind.name
            ),
        );
    }
    if image
        .bundle_bytes
        .is_none_or(|bytes| bytes > MAX_BUNDLE_BYTES)
    {
        return refuse(
            ErrorCode::InvalidManifest,
            format!(
                "The root of {} is larger than {MAX_BUNDLE_BYTES} bytes.",
                image.image_id
            ),
        );
    }
    Ok(())
}

/// The instance store volumes that the type has for these mappings, and the devices that it has none for.
fn instance_store(
    kind: &InstanceType,
    mappings: &[BlockDeviceMapping],
) -> (Vec<EphemeralVolume>, Vec<DeviceName>) {
    let (volumes, size) = kind.instance_store;
    let (mut got, mut ignored) = (Vec::new(), Vec::new());
    for mapping in mappings {
        let MappingTarget::Virtual(virtual_name) = mapping.target else {
            continue;
        };
        let device = mapping.device_name.clone();
        let twice = got
            .iter()
            .any(|e: &EphemeralVolume| e.virtual_name == virtual_name);
        if virtual_name.number() < volumes && !twice {
            got.push(EphemeralVolume {
                device,
                virtual_name,
                size,
            });
        } else {
            ignored.push(device);
        }
    }
    (got, ignored)
}

/// A locally administered address, in lower case.
fn mac(bits: u128) -> String {
    let b = bits.to_be_bytes();
    format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        b[11], b[12], b[13], b[14], b[15]
    )
}
