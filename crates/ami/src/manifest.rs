//! `manifest.json`, schema version 1.
//!
//! Written with two-space indentation, keys in the order of the struct fields, maps sorted, and a
//! final newline: equal manifests are equal bytes. A reader refuses another `schemaVersion` and
//! ignores members it does not know, so members may be added within a version.

mod check;
mod date;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use amiforge_types::{Arch, Digest, Hasher, LayerId, Uuid};
use serde::{Deserialize, Serialize};

pub use check::{ManifestError, ManifestProblem};
pub use date::CreationDate;

use crate::{BlockDeviceMapping, BootMode, DeviceName, Firmware, ImageId, SnapshotId};

/// The only `schemaVersion` written and read.
pub const SCHEMA_VERSION: u32 = 1;

/// Longest manifest that is read, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;

/// How the image is virtualised; the only kind amiforge makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtualizationType {
    /// Hardware-assisted.
    Hvm,
}

/// Where the root volume lives; the only kind amiforge makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootDeviceType {
    /// An EBS volume.
    Ebs,
}

/// The value `v2.0` of `imdsSupport` (IMDSv2 only) and `tpmSupport` (NitroTPM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum V2Support {
    /// `v2.0`.
    #[serde(rename = "v2.0")]
    V2,
}

/// A partition of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInfo {
    /// Slot in the GPT, from 1.
    pub number: u32,
    /// First byte on the volume.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// Partition type GUID.
    #[serde(rename = "type")]
    pub type_guid: Uuid,
    /// Unique partition GUID.
    pub guid: Uuid,
    /// Partition name in the GPT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `ext4`, `vfat`, …; `None` when it holds no file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// The file system's UUID as `blkid` prints it: a UUID for ext4, `ABCD-1234` for FAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The file system's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A volume of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeInfo {
    /// The device name of its mapping.
    pub device: DeviceName,
    /// Size of the disk in bytes; at most the mapping's `volumeSize`.
    pub size: u64,
    /// Partitions by slot.
    pub partitions: Vec<PartitionInfo>,
    /// SHA-256 over the SHA-256 of each 512 KiB block.
    pub content_digest: Digest,
}

/// Bytes of a block of the content digest.
const BLOCK_BYTES: usize = 512 << 10;

impl VolumeInfo {
    /// Whether the volume holds nothing but zeros, told by its content digest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        static ZERO_BLOCK: LazyLock<Digest> = LazyLock::new(|| Digest::of(&vec![0; BLOCK_BYTES]));
        if !self.partitions.is_empty() {
            return false;
        }
        let mut hasher = Hasher::new();
        for _ in 0..self.size.div_ceil(BLOCK_BYTES as u64) {
            hasher.update(ZERO_BLOCK.as_bytes());
        }
        hasher.finish() == self.content_digest
    }
}

/// The format of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ArtifactFormat {
    /// Plain bytes, sparse.
    Raw,
    /// QEMU copy-on-write, version 3.
    Qcow2,
    /// VMware, stream-optimised.
    Vmdk,
    /// Virtual PC.
    Vhd,
}

impl ArtifactFormat {
    /// The text form, which is also the file extension.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
        }
    }
}

/// A disk file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The volume it holds.
    pub device: DeviceName,
    /// File name, without any folder.
    pub file: String,
    /// Format.
    pub format: ArtifactFormat,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Size of the disk in it, in bytes.
    pub virtual_bytes: u64,
    /// SHA-256 of the file; `None` when the build was told not to compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// The parent image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentImage {
    /// As the recipe has it.
    pub asked: String,
    /// What it resolved to, pinned.
    pub resolved: String,
}

/// A component that went into the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Digest of its canonical document.
    pub digest: Digest,
    /// Parameters as resolved.
    #[serde(default)]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// The layer its build phase made; `None` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerId>,
}

/// A layer of the image, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Identity: what went in.
    pub id: LayerId,
    /// Digest of its bytes: what came out.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// How its steps ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<LayerRun>,
}

/// How the steps of a layer ran when it was made. It says nothing about the bytes: they are the same every way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRun {
    /// The way of running commands, for example `mapped-ids`; `none` when none of the image's ran.
    pub sandbox: String,
    /// `host` when they could reach the network of the builder, else `none`.
    pub network: String,
}

/// The program that made the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolInfo {
    /// `amiforge`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The outcome of booting the image with one firmware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootProof {
    /// Whether everything the proof asks for happened.
    pub passed: bool,
    /// From power-on to the end, in seconds.
    pub seconds: f64,
    /// File name of the boot report.
    pub report: String,
}

/// The AMI manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Derived from name, version and content; see [`Manifest::derive_image_id`].
    pub image_id: ImageId,
    /// The recipe's name.
    pub name: String,
    /// The recipe's version.
    pub version: String,
    /// Architecture.
    pub architecture: Arch,
    /// Always `hvm`.
    pub virtualization_type: VirtualizationType,
    /// Boot mode.
    pub boot_mode: BootMode,
    /// The device whose mapping is the root volume.
    pub root_device_name: DeviceName,
    /// Always `ebs`.
    pub root_device_type: RootDeviceType,
    /// Enhanced networking with ENA.
    pub ena_support: bool,
    /// IMDSv2 required by default; `null` when not.
    pub imds_support: Option<V2Support>,
    /// NitroTPM; `null` when not.
    pub tpm_support: Option<V2Support>,
    /// `Linux/UNIX`.
    pub platform_details: String,
    /// The build clock.
    pub creation_date: CreationDate,
    /// What an instance gets attached.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// The volumes with disk files; those beside the root are empty disks.
    pub volumes: Vec<VolumeInfo>,
    /// The disk files.
    pub artifacts: Vec<Artifact>,
    /// The parent image.
    pub parent_image: ParentImage,
    /// The components, in recipe order.
    pub components: Vec<ComponentRecord>,
    /// The layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// Digest of the recipe.
    pub recipe_digest: Digest,
    /// Identity of the plan.
    pub plan_id: Digest,
    /// What made it.
    pub tool: ToolInfo,
    /// Per firmware; empty when the boot proof was not run. The one part of a manifest that holds
    /// measured time and so differs between two builds.
    pub boot_proof: BTreeMap<Firmware, BootProof>,
    /// Tags of the image.
    pub tags: BTreeMap<String, String>,
}

/// What a build knows when it makes a manifest. Everything else is derived.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestSpec {
    /// See [`Manifest::name`].
    pub name: String,
    /// See [`Manifest::version`].
    pub version: String,
    /// See [`Manifest::architecture`].
    pub architecture: Arch,
    /// See [`Manifest::boot_mode`].
    pub boot_mode: BootMode,
    /// See [`Manifest::root_device_name`].
    pub root_device_name: DeviceName,
    /// See [`Manifest::ena_support`].
    pub ena_support: bool,
    /// IMDSv2 required by default.
    pub imds_v2: bool,
    /// NitroTPM; needs boot mode `uefi`.
    pub tpm_v2: bool,
    /// The build clock.
    pub creation_date: CreationDate,
    /// As asked for. Snapshot ids are filled in from `volumes`; those already there must agree.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// The volumes with content, each with a mapping of its device.
    pub volumes: Vec<VolumeInfo>,
    /// The disk files.
    pub artifacts: Vec<Artifact>,
    /// See [`Manifest::parent_image`].
    pub parent_image: ParentImage,
    /// See [`Manifest::components`].
    pub components: Vec<ComponentRecord>,
    /// See [`Manifest::layers`].
    pub layers: Vec<LayerRecord>,
    /// See [`Manifest::recipe_digest`].
    pub recipe_digest: Digest,
    /// See [`Manifest::plan_id`].
    pub plan_id: Digest,
    /// Version of amiforge.
    pub tool_version: String,
    /// See [`Manifest::tags`].
    pub tags: BTreeMap<String, String>,
}

impl Manifest {
    /// Makes a manifest: fills in snapshot ids and the image id, sorts volumes and artifacts by
    /// device, checks every rule. All problems are reported at once.
    pub fn new(spec: ManifestSpec) -> Result<Self, ManifestError> {
        let mut mappings = spec.block_device_mappings;
        for mapping in &mut mappings {
            if let crate::MappingTarget::Ebs(ebs) = &mut mapping.target
                && ebs.snapshot_id.is_none()
                && let Some(volume) = spec
                    .volumes
                    .iter()
                    .find(|v| v.device == mapping.device_name)
            {
                ebs.snapshot_id = Some(SnapshotId::from_digest(&volume.content_digest));
            }
        }
        let mut volumes = spec.volumes;
        volumes.sort_by(|a, b| a.device.cmp(&b.device));
        for volume in &mut volumes {
            volume.partitions.sort_by_key(|p| p.number);
        }
        let mut artifacts = spec.artifacts;
        artifacts
            .sort_by(|a, b| (&a.device, a.format, &a.file).cmp(&(&b.device, b.format, &b.file)));
        let mut manifest = Self {
            schema_version: SCHEMA_VERSION,
            image_id: ImageId::from_digest(&Digest::of(b"")),
            name: spec.name,
            version: spec.version,
            architecture: spec.architecture,
            virtualization_type: VirtualizationType::Hvm,
            boot_mode: spec.boot_mode,
            root_device_name: spec.root_device_name,
            root_device_type: RootDeviceType::Ebs,
            ena_support: spec.ena_support,
            imds_support: spec.imds_v2.then_some(V2Support::V2),
            tpm_support: spec.tpm_v2.then_some(V2Support::V2),
            platform_details: "Linux/UNIX".to_owned(),
            creation_date: spec.creation_date,
            block_device_mappings: mappings,
            volumes,
            artifacts,
            parent_image: spec.parent_image,
            components: spec.components,
            layers: spec.layers,
            recipe_digest: spec.recipe_digest,
            plan_id: spec.plan_id,
            tool: ToolInfo {
                name: "amiforge".to_owned(),
                version: spec.tool_version,
            },
            boot_proof: BTreeMap::new(),
            tags: spec.tags,
        };
        manifest.image_id = manifest.derive_image_id();
        manifest.into_checked()
    }

    /// The id that belongs to this image: the first 17 digits of the digest of what makes it that
    /// image to EC2. Name, version, architecture, boot mode, supports, root device, mappings (with
    /// the snapshot ids, which stand for the content) go in; dates, artefact formats, records of
    /// the build, tags and the boot proof do not.
    #[must_use]
    pub fn derive_image_id(&self) -> ImageId {
        let mut hasher = Hasher::new();
        hasher.field(b"amiforge-image-id-v1");
        for text in [
            &self.name,
            &self.version,
            self.architecture.ec2(),
            self.boot_mode.as_str(),
        ] {
            hasher.field(text.as_bytes());
        }
        let flags = [
            self.ena_support,
            self.imds_support.is_some(),
            self.tpm_support.is_some(),
        ];
        hasher.field(&flags.map(u8::from));
        hasher.field(self.root_device_name.as_str().as_bytes());
        for mapping in &self.block_device_mappings {
            // Cannot fail: plain structs with string keys. `json!` of them would do the same.
            hasher.field(&serde_json::to_vec(mapping).unwrap_or_default());
        }
        for volume in &self.volumes {
            hasher.field(volume.device.as_str().as_bytes());
            hasher.field(volume.content_digest.as_bytes());
        }
        ImageId::from_digest(&hasher.finish())
    }

    /// Reads and checks a manifest.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            schema_version: u64,
        }
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong { len: bytes.len() });
        }
        let head: Head = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if head.schema_version != u64::from(SCHEMA_VERSION) {
            return Err(ManifestError::Version {
                found: head.schema_version,
            });
        }
        serde_json::from_slice::<Self>(bytes)
            .map_err(ManifestError::Json)?
            .into_checked()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        pretty(self)
    }

    /// The mapping of the root device.
    #[must_use]
    pub fn root_mapping(&self) -> Option<&BlockDeviceMapping> {
        self.block_device_mappings
            .iter()
            .find(|m| m.device_name == self.root_device_name)
    }

    /// The volume of a device.
    #[must_use]
    pub fn volume(&self, device: &DeviceName) -> Option<&VolumeInfo> {
        self.volumes.iter().find(|v| v.device == *device)
    }

    /// The name the image is registered under: `<name>-<version>`.
    #[must_use]
    pub fn ami_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Two-space JSON with a final newline.
pub(crate) fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain structs into memory cannot fail: no map has a key that is not text.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
