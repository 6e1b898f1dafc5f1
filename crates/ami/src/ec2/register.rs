//! `RegisterImage`, and the images that were built here.
//!
//! Source: EC2 API reference, `RegisterImage`; EC2 user guide, `creating-an-ami-ebs`, `set-ami-boot-mode`,
//! `enable-nitrotpm-support-on-ami`, `uefi-variables`.

use amiforge_types::{Arch, Digest, Hasher};

use super::check::{
    Api, add_tags, ami_name, bad_value, base64_len, date, description, dry_run, missing, one_of,
    refuse, tag_sets,
};
use super::devices::{
    EbsEntry, EntryTarget, bad_mapping, check_clashes, check_volume, entries, new_volume, too_small,
};
use super::request::request;
use super::{
    ApiError, BuildOrigin, Caller, Effects, ErrorCode, Image, ImageState, MappingRequest,
    RootDevice, Snapshot, SnapshotState, State, Tag, TagSpecification, Tags,
};
use crate::{
    BlockDeviceMapping, BootMode, CreationDate, DeviceName, ImageId, Manifest, MappingTarget,
    SnapshotId, V2Support,
};

/// Most images of an account in a region: available, pending, disabled, and in the recycle bin.
pub(crate) const MAX_IMAGES: usize = 50_000;

/// Largest root of an instance-store image, in bytes: 10 GiB.
pub const MAX_BUNDLE_BYTES: u64 = 10 << 30;

request! {
    /// `RegisterImage`.
    pub struct RegisterImageRequest {
        /// 3 to 128 characters, unique in account and region.
        pub name: String,
        /// Up to 255 characters.
        pub description: Option<String>,
        /// `x86_64` or `arm64`. AWS's default, `i386`, is not supported here.
        pub architecture: Option<String>,
        /// `hvm`. AWS's default, `paravirtual`, is not supported here.
        pub virtualization_type: Option<String>,
        /// The device whose mapping has the root snapshot.
        pub root_device_name: Option<String>,
        /// The volumes.
        pub block_device_mappings: Vec<MappingRequest>,
        /// `legacy-bios`, `uefi` or `uefi-preferred`.
        pub boot_mode: Option<String>,
        /// Enhanced networking.
        pub ena_support: Option<bool>,
        /// `simple`.
        pub sriov_net_support: Option<String>,
        /// `v2.0`.
        pub imds_support: Option<String>,
        /// `v2.0`; needs boot mode `uefi`.
        pub tpm_support: Option<String>,
        /// UEFI variables, base64 of at most 64000 characters.
        pub uefi_data: Option<String>,
        /// Paravirtual images only.
        pub kernel_id: Option<String>,
        /// Paravirtual images only.
        pub ramdisk_id: Option<String>,
        /// The manifest of an instance-store image.
        pub image_location: Option<String>,
        /// Codes of billed software. AWS takes them of authorised sellers only; here everybody is one.
        pub billing_products: Vec<String>,
        /// Tags for the type `image`.
        pub tag_specifications: Vec<TagSpecification>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// What the manifest of a bundle says, read by whoever has the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFacts {
    /// Architecture of the image.
    pub architecture: Arch,
    /// Bytes of the root file system image.
    pub image_bytes: u64,
    /// Bytes of the parts.
    pub stored_bytes: u64,
    /// SHA-256 of the manifest: one that was changed later is not the one that was registered.
    pub manifest: Digest,
    /// The root device of its mapping.
    pub root: Option<DeviceName>,
    /// Instance store volumes of its mapping, beside the root.
    pub ephemeral: Vec<BlockDeviceMapping>,
}

/// An image that was built here, to be taken into the catalog.
#[derive(Clone, Debug)]
pub struct AdoptImage<'a> {
    /// What the build left.
    pub manifest: &'a Manifest,
    /// The snapshot of each volume that has content. Owner and region are the caller's, whatever they say; the id, too,
    /// when another account or region has one of that id.
    pub snapshots: Vec<(DeviceName, Snapshot)>,
    /// Tags beside those of the manifest.
    pub tags: Tags,
    /// When it was built, which is when the image was made; the date in the manifest is a build clock. Absent, or to come: now.
    pub built: Option<CreationDate>,
}

/// What became of an [`AdoptImage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The image.
    pub image_id: ImageId,
    /// False when it was there already.
    pub created: bool,
}

/// What is common to new images.
pub(crate) struct NewImage {
    pub(crate) image_id: ImageId,
    pub(crate) name: String,
    pub(crate) state: ImageState,
    pub(crate) architecture: Arch,
    pub(crate) root_device_type: RootDevice,
    pub(crate) root_device_name: DeviceName,
    pub(crate) block_device_mappings: Vec<BlockDeviceMapping>,
    pub(crate) creation_date: CreationDate,
}

impl NewImage {
    pub(crate) fn of(self, caller: &Caller) -> Image {
        Image {
            image_id: self.image_id,
            name: self.name,
            description: None,
            owner: caller.account.clone(),
            region: caller.region.clone(),
            state: self.state,
            state_reason: None,
            creation_date: self.creation_date,
            architecture: self.architecture,
            boot_mode: None,
            root_device_type: self.root_device_type,
            root_device_name: self.root_device_name,
            block_device_mappings: self.block_device_mappings,
            ena_support: false,
            sriov_net_support: false,
            imds_support: None,
            tpm_support: None,
            uefi_data: None,
            platform_details: "Linux/UNIX".to_owned(),
            usage_operation: "RunInstances".to_owned(),
            product_codes: Vec::new(),
            billing_products: Vec::new(),
            tags: Tags::new(),
            other_tags: std::collections::BTreeMap::new(),
            launch_permissions: std::collections::BTreeSet::new(),
            deprecation_time: None,
            deregistration_protection: super::Protection::Disabled,
            source_instance_id: None,
            source_image_id: None,
            source_image_region: None,
            last_launched_time: None,
            image_location: None,
            bundle_bytes: None,
            bundle_stored_bytes: None,
            bundle_manifest: None,
            build: None,
            client_token: None,
            client_request: None,
            bin: None,
        }
    }
}

fn v2(member: &str, text: Option<&str>) -> Api<Option<V2Support>> {
    match text {
        None => Ok(None),
        Some("v2.0") => Ok(Some(V2Support::V2)),
        Some(other) => Err(bad_value(member, other)),
    }
}

fn old_id(text: Option<&str>, prefix: &str, code: ErrorCode) -> Api<()> {
    let good = text.is_none_or(|t| {
        t.strip_prefix(prefix)
            .is_some_and(|d| matches!(d.len(), 8 | 17) && d.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    if good {
        return Ok(());
    }
    let shown: String = text.unwrap_or_default().chars().take(60).collect();
    refuse(
        code,
        format!("Invalid id: \"{shown}\" (expecting \"{prefix}...\")"),
    )
}

/// The members of a request that stand for themselves.
struct Plain {
    architecture: Option<Arch>,
    boot_mode: Option<BootMode>,
    imds: Option<V2Support>,
    tpm: Option<V2Support>,
    root: Option<DeviceName>,
    tags: Tags,
}

impl RegisterImageRequest {
    /// Presence and form of all members.
    fn plain(&self) -> Api<Plain> {
        ami_name(&self.name)?;
        description(self.description.as_deref())?;
        let [tags] = tag_sets(&self.tag_specifications, ["image"])?;
        old_id(
            self.kernel_id.as_deref(),
            "aki-",
            ErrorCode::InvalidKernelIdMalformed,
        )?;
        old_id(
            self.ramdisk_id.as_deref(),
            "ari-",
            ErrorCode::InvalidRamDiskIdMalformed,
        )?;
        let architecture = match self.architecture.as_deref() {
            Some("x86_64") => Some(Arch::X86_64),
            Some("arm64") => Some(Arch::Arm64),
            None | Some("i386" | "x86_64_mac" | "arm64_mac") => None,
            Some(other) => return Err(bad_value("Architecture", other)),
        };
        let boot_mode = self
            .boot_mode
            .as_deref()
            .map(|text| one_of("BootMode", text))
            .transpose()?;
        let imds = v2("ImdsSupport", self.imds_support.as_deref())?;
        let tpm = v2("TpmSupport", self.tpm_support.as_deref())?;
        if let Some(other) = self.sriov_net_support.as_deref().filter(|s| *s != "simple") {
            return Err(bad_value("SriovNetSupport", other));
        }
        if let Some(data) = &self.uefi_data
            && (data.len() > 64_000 || base64_len(data).is_none())
        {
            return refuse(
                ErrorCode::InvalidParameterValue,
                "UefiData must be base64 of at most 64000 characters.",
            );
        }
        let root = self
            .root_device_name
            .as_deref()
            .map(|text| text.parse().map_err(|_| bad_value("RootDeviceName", text)))
            .transpose()?;
        match self.virtualization_type.as_deref() {
            Some("hvm") => {}
            None | Some("paravirtual") => {
                if self.boot_mode.is_some()
                    || self.ena_support == Some(true)
                    || self.sriov_net_support.is_some()
                    || imds.is_some()
                    || tpm.is_some()
                    || architecture == Some(Arch::Arm64)
                {
                    return refuse(
                        ErrorCode::InvalidParameterCombination,
                        "BootMode, EnaSupport, SriovNetSupport, ImdsSupport, TpmSupport and arm64 need virtualization type hvm (the default is paravirtual).",
                    );
                }
                return refuse(
                    ErrorCode::UnsupportedOperation,
                    "Paravirtual images (the default when VirtualizationType is absent) are not supported here: say hvm.",
                );
            }
            Some(other) => return Err(bad_value("VirtualizationType", other)),
        }
        if self.kernel_id.is_some() || self.ramdisk_id.is_some() {
            return refuse(
                ErrorCode::InvalidParameterCombination,
                "Kernel and ramdisk ids can be given for paravirtual images only.",
            );
        }
        Ok(Plain {
            architecture,
            boot_mode,
            imds,
            tpm,
            root,
            tags,
        })
    }

    fn supported_architecture(
        &self,
        bundle: Option<&BundleFacts>,
        asked: Option<Arch>,
    ) -> Api<Arch> {
        match (asked, bundle) {
            (Some(arch), Some(bundle)) if arch != bundle.architecture => refuse(
                ErrorCode::InvalidParameterCombination,
                format!("The manifest says {}, not {arch}.", bundle.architecture),
            ),
            (Some(arch), _) => Ok(arch),
            (None, Some(bundle)) if self.architecture.is_none() => Ok(bundle.architecture),
            (None, _) => refuse(
                ErrorCode::UnsupportedOperation,
                format!(
                    "Architecture {} (the default when absent is i386) is not supported here: say x86_64 or arm64.",
                    self.architecture.as_deref().unwrap_or("i386")
                ),
            ),
        }
    }
}

impl State {
    /// `RegisterImage`: an image from snapshots of the caller, or of a bundle, whose manifest the caller has read
    /// (`bundle`). It is available at once.
    ///
    /// Codes that the reference leaves open: a source given twice is `InvalidParameterCombination`, none
    /// `MissingParameter`; a snapshot that is not complete `IncorrectState`; `Encrypted` beside a snapshot
    /// `InvalidBlockDeviceMapping` (the text is that of AWS); `TpmSupport` without `uefi`, 64-bit Arm with a BIOS, and
    /// `KmsKeyId` are `InvalidParameterCombination`. `TpmSupport` of 64-bit Arm images is taken.
    pub fn register_image(
        &mut self,
        caller: &Caller,
        request: &RegisterImageRequest,
        bundle: Option<&BundleFacts>,
        fx: &mut dyn Effects,
    ) -> Api<ImageId> {
        let plain = request.plain()?;
        let architecture = request.supported_architecture(bundle, plain.architecture)?;
        let entries = entries(
            &request.block_device_mappings,
            ErrorCode::InvalidBlockDeviceMapping,
        )?;
        let from_bundle = request.image_location.as_deref();
        let from_snapshot = entries
            .iter()
            .any(|e| matches!(&e.target, EntryTarget::Ebs(ebs) if ebs.snapshot.is_some()));
        match (from_bundle, from_snapshot) {
            (Some(_), true) => {
                return refuse(
                    ErrorCode::InvalidParameterCombination,
                    "ImageLocation cannot be given together with a root snapshot.",
                );
            }
            (None, _) if request.block_device_mappings.is_empty() => {
                return missing("ImageLocation or BlockDeviceMappings");
            }
            _ => {}
        }
        if plain.tpm.is_some() && plain.boot_mode != Some(BootMode::Uefi) {
            return refuse(
                ErrorCode::InvalidParameterCombination,
                "TpmSupport requires BootMode uefi.",
            );
        }
        if let Some(mode) = plain.boot_mode.filter(|mode| !mode.fits(architecture)) {
            return refuse(
                ErrorCode::InvalidParameterCombination,
                format!("Boot mode {mode} is not supported for architecture {architecture}."),
            );
        }
        dry_run(request.dry_run)?;

        let root = match (&plain.root, from_bundle) {
            (Some(root), _) => root.clone(),
            (None, Some(_)) => bundle
                .and_then(|b| b.root.clone())
                .unwrap_or_else(default_root),
            (None, None) => return missing("RootDeviceName"),
        };
        let mut product_codes: Vec<String> = Vec::new();
        let mut mappings = Vec::new();
        for entry in &entries {
            let target = match &entry.target {
                EntryTarget::NoDevice => continue,
                EntryTarget::Virtual(name) => MappingTarget::Virtual(*name),
                EntryTarget::Ebs(ebs) => {
                    let is_root = entry.device == root && from_bundle.is_none();
                    let (volume, codes) =
                        self.registered_volume(caller, &entry.device, ebs, is_root)?;
                    for code in codes {
                        if !product_codes.contains(&code) {
                            product_codes.push(code);
                        }
                    }
                    MappingTarget::Ebs(volume)
                }
            };
            mappings.push(BlockDeviceMapping {
                device_name: entry.device.clone(),
                target,
            });
        }
        let mut image = NewImage {
            image_id: self.new_image_id(fx),
            name: request.name.clone(),
            state: ImageState::Available,
            architecture,
            root_device_type: RootDevice::Ebs,
            root_device_name: root.clone(),
            block_device_mappings: mappings,
            creation_date: date(fx),
        }
        .of(caller);
        match from_bundle {
            Some(location) => bundled(&mut image, location, bundle)?,
            None => {
                let has_root = image.block_device_mappings.iter().any(|m| {
                    m.device_name == root && m.as_ebs().is_some_and(|v| v.snapshot_id.is_some())
                });
                if !has_root {
                    return bad_mapping("No root snapshot specified in device mapping.");
                }
            }
        }
        self.free_name(caller, &request.name)?;
        self.image_quota(caller)?;
        image.description = request.description.clone();
        image.boot_mode = plain.boot_mode;
        image.ena_support = request.ena_support == Some(true);
        image.sriov_net_support = request.sriov_net_support.is_some();
        image.imds_support = plain.imds;
        image.tpm_support = plain.tpm;
        image.uefi_data = request.uefi_data.clone();
        image.product_codes = product_codes;
        image.billing_products = request.billing_products.clone();
        image.tags = plain.tags;
        let id = image.image_id.clone();
        self.images.insert(id.clone(), image);
        Ok(id)
    }

    /// The volume of a mapping of a new image, and the product codes of its snapshot.
    pub(crate) fn registered_volume(
        &self,
        caller: &Caller,
        device: &DeviceName,
        ebs: &EbsEntry,
        root: bool,
    ) -> Api<(crate::EbsVolume, Vec<String>)> {
        if ebs.key.is_some() {
            return refuse(
                ErrorCode::InvalidParameterCombination,
                format!("{device}: KmsKeyId cannot be given when an image is made."),
            );
        }
        let Some(id) = &ebs.snapshot else {
            let Some(size) = ebs.size else {
                return bad_mapping(format!(
                    "Either snapshot ID or volume size must be provided for: {device}"
                ));
            };
            let mut volume = new_volume(ebs, size, root);
            volume.encrypted = ebs.encrypted;
            check_volume(device, &volume, root)?;
            return Ok((volume, Vec::new()));
        };
        if ebs.encrypted.is_some() {
            return bad_mapping(format!(
                "the encrypted flag cannot be specified since device {device} has a snapshot specified."
            ));
        }
        let snapshot = self.seen_snapshot(caller, id)?;
        if snapshot.owner != caller.account {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "Snapshot '{id}' does not belong to account {}.",
                    caller.account
                ),
            );
        }
        if snapshot.state != SnapshotState::Completed {
            return refuse(
                ErrorCode::IncorrectState,
                format!("Snapshot '{id}' is not 'completed'."),
            );
        }
        let size = ebs.size.unwrap_or(snapshot.volume_size);
        if size < snapshot.volume_size {
            return too_small(size, id, snapshot.volume_size);
        }
        let volume = new_volume(ebs, size, root);
        check_volume(device, &volume, root)?;
        Ok((volume, snapshot.product_codes.clone()))
    }

    pub(crate) fn image_quota(&self, caller: &Caller) -> Api<()> {
        let count = self
            .images
            .values()
            .filter(|i| {
                i.owner == caller.account
                    && i.region == caller.region
                    && (i.bin.is_some()
                        || !matches!(i.state, ImageState::Deregistered | ImageState::Failed))
            })
            .count();
        if count >= MAX_IMAGES {
            return refuse(
                ErrorCode::ResourceLimitExceeded,
                format!(
                    "You have reached the limit of {MAX_IMAGES} AMIs in {}.",
                    caller.region
                ),
            );
        }
        Ok(())
    }

    /// Takes an image that was built here into the catalog of the caller's account and region, available.
    ///
    /// Its id is the manifest's, so the same build twice is one image; where another account or region has that id, it is
    /// one derived from it, account and region. A build that was deregistered comes back as a new record of its old id.
    /// `InvalidAMIName.Duplicate` when another image of the caller has the name `<name>-<version>`;
    /// `InvalidManifest` when a volume with content has no snapshot.
    pub fn adopt_image(
        &mut self,
        caller: &Caller,
        request: &AdoptImage<'_>,
        fx: &mut dyn Effects,
    ) -> Api<Adopted> {
        let manifest = request.manifest;
        let name = manifest.ami_name();
        ami_name(&name)?;
        let mut tags: Tags = Tags::new();
        let list: Vec<Tag> = manifest
            .tags
            .iter()
            .chain(&request.tags)
            .map(|(key, value)| Tag {
                key: key.clone(),
                value: value.clone(),
            })
            .collect();
        add_tags(&mut tags, &list)?;
        let mine = |image: &Image| image.owner == caller.account && image.region == caller.region;
        let image_id = match self.images.get(&manifest.image_id) {
            Some(image) if !mine(image) => {
                ImageId::from_digest(&local(manifest.image_id.as_str(), caller))
            }
            _ => manifest.image_id.clone(),
        };
        if let Some(image) = self.images.get(&image_id)
            && image.state != ImageState::Deregistered
        {
            return Ok(Adopted {
                image_id,
                created: false,
            });
        }
        self.free_name(caller, &name)?;
        self.image_quota(caller)?;
        let mut mappings = manifest.block_device_mappings.clone();
        let mut new = Vec::new();
        for mapping in &mut mappings {
            let MappingTarget::Ebs(volume) = &mut mapping.target else {
                continue;
            };
            let given = request
                .snapshots
                .iter()
                .find(|(device, _)| *device == mapping.device_name);
            let empty = manifest
                .volume(&mapping.device_name)
                .is_none_or(crate::VolumeInfo::is_empty);
            volume.kms_key_id = None;
            let Some((device, snapshot)) = given else {
                let root = mapping.device_name == manifest.root_device_name;
                if !empty || root {
                    return refuse(
                        ErrorCode::InvalidManifest,
                        format!(
                            "{}: no snapshot for a volume with content",
                            mapping.device_name
                        ),
                    );
                }
                volume.snapshot_id = None;
                continue;
            };
            volume.encrypted = None;
            if snapshot.state != SnapshotState::Completed || snapshot.map.is_none() {
                return refuse(
                    ErrorCode::IncorrectState,
                    format!(
                        "{device}: Snapshot '{}' is not 'completed'.",
                        snapshot.snapshot_id
                    ),
                );
            }
            if volume.volume_size < snapshot.volume_size {
                return too_small(
                    volume.volume_size,
                    &snapshot.snapshot_id,
                    snapshot.volume_size,
                );
            }
            let snapshot = self.adopted_snapshot(caller, snapshot, fx);
            volume.snapshot_id = Some(snapshot.snapshot_id.clone());
            new.push(snapshot);
        }
        let mut image = NewImage {
            image_id: image_id.clone(),
            name,
            state: ImageState::Available,
            architecture: manifest.architecture,
            root_device_type: RootDevice::Ebs,
            root_device_name: manifest.root_device_name.clone(),
            block_device_mappings: mappings,
            creation_date: request
                .built
                .map_or_else(|| date(fx), |built| built.min(date(fx))),
        }
        .of(caller);
        image.boot_mode = Some(manifest.boot_mode);
        image.ena_support = manifest.ena_support;
        image.imds_support = manifest.imds_support;
        image.tpm_support = manifest.tpm_support;
        image
            .platform_details
            .clone_from(&manifest.platform_details);
        image.tags = tags;
        image.build = Some(BuildOrigin {
            recipe: manifest.name.clone(),
            version: manifest.version.clone(),
            plan_id: manifest.plan_id,
            parent: manifest.parent_image.asked.clone(),
        });
        self.images.insert(image_id.clone(), image);
        for snapshot in new {
            self.snapshots
                .insert(snapshot.snapshot_id.clone(), snapshot);
        }
        Ok(Adopted {
            image_id,
            created: true,
        })
    }

    /// The record of a snapshot of a build for the caller: one that is there with the same content, or a new one.
    fn adopted_snapshot(
        &self,
        caller: &Caller,
        given: &Snapshot,
        fx: &mut dyn Effects,
    ) -> Snapshot {
        let derived = SnapshotId::from_digest(&local(given.snapshot_id.as_str(), caller));
        let mut id = None;
        for candidate in [&given.snapshot_id, &derived] {
            match self.snapshots.get(candidate) {
                None => {
                    id = Some(candidate.clone());
                    break;
                }
                Some(there)
                    if there.owner == caller.account
                        && there.region == caller.region
                        && there.map == given.map
                        && there.encryption == given.encryption
                        && there.volume_size == given.volume_size =>
                {
                    let mut there = there.clone();
                    // Out of the recycle bin, when it lay there.
                    there.state = SnapshotState::Completed;
                    there.bin = None;
                    return there;
                }
                Some(_) => {}
            }
        }
        let mut snapshot = given.clone();
        snapshot.snapshot_id = id.unwrap_or_else(|| self.new_snapshot_id(fx));
        snapshot.owner = caller.account.clone();
        snapshot.region = caller.region.clone();
        snapshot.permissions.clear();
        snapshot.bin = None;
        snapshot
    }
}

fn default_root() -> DeviceName {
    "/dev/sda1"
        .parse()
        .unwrap_or_else(|_| unreachable!("a device name"))
}

/// What makes an image one of a bundle.
fn bundled(image: &mut Image, location: &str, bundle: Option<&BundleFacts>) -> Api<()> {
    let bad = |what: String| -> Result<(), ApiError> { refuse(ErrorCode::InvalidManifest, what) };
    let Some(bundle) = bundle else {
        return bad(format!("The manifest {location} cannot be read."));
    };
    if bundle.image_bytes == 0 || bundle.image_bytes > MAX_BUNDLE_BYTES {
        return bad(format!(
            "The root of an instance store-backed image has at most {MAX_BUNDLE_BYTES} bytes, this one {}.",
            bundle.image_bytes
        ));
    }
    if image
        .block_device_mappings
        .iter()
        .any(|m| m.device_name == image.root_device_name)
    {
        return bad_mapping(format!(
            "{} is the root, from the bundle.",
            image.root_device_name
        ));
    }
    for mapping in &bundle.ephemeral {
        if !image
            .block_device_mappings
            .iter()
            .any(|m| m.device_name.clashes(&mapping.device_name))
        {
            image.block_device_mappings.push(mapping.clone());
        }
    }
    check_clashes(&image.block_device_mappings)?;
    image.root_device_type = RootDevice::InstanceStore;
    image.image_location = Some(location.to_owned());
    image.bundle_bytes = Some(bundle.image_bytes);
    image.bundle_stored_bytes = Some(bundle.stored_bytes);
    image.bundle_manifest = Some(bundle.manifest);
    Ok(())
}

/// A digest that is the same for one id, account and region.
fn local(id: &str, caller: &Caller) -> amiforge_types::Digest {
    let mut hasher = Hasher::new();
    hasher.field(b"amiforge-local-id-v1");
    for text in [id, caller.account.as_str(), caller.region.as_str()] {
        hasher.field(text.as_bytes());
    }
    hasher.finish()
}
