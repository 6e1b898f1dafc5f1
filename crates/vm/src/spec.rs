//! From the manifest to what is attached to the machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use amiforge_ami::{
    ArtifactFormat, BlockDeviceMapping, BootMode, DeviceName, Firmware, ImageId, Manifest,
    MappingTarget,
};
use amiforge_types::{Arch, Digest, GIB, SECTOR};

use crate::accel::Acceleration;
use crate::console::Milestone;

/// Volumes QEMU's machine has room for beside the other devices.
const MAX_VOLUMES: usize = 20;

/// How to run the machine.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// What executes the guest, from [`probe_acceleration`](crate::probe_acceleration).
    pub acceleration: Acceleration,
    /// Limit from start to the end of the session. Already scaled, see [`Acceleration::scale`].
    pub timeout: Duration,
    /// Limit for the power-off after the session.
    pub power_off_timeout: Duration,
    /// Milestones the guest must have reached before it is powered off; usually
    /// [`Milestone::Target`].
    pub required: Vec<Milestone>,
    /// A read-only disk with first-boot data, as its bytes; a multiple of 512 long.
    pub seed: Option<Vec<u8>>,
    /// Where the console goes; created or overwritten.
    pub console_log: PathBuf,
    /// Folder for overlays and sockets, which go into a new folder inside it. The overlay grows with
    /// what the guest writes.
    pub temp_parent: PathBuf,
    /// Set to true from elsewhere to stop the boot.
    pub cancel: Arc<AtomicBool>,
}

/// Where the bytes of a volume come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// A disk file.
    File {
        /// The file.
        path: PathBuf,
        /// Its format; declared by the manifest, never guessed.
        format: ArtifactFormat,
        /// Size of the disk in it, in bytes.
        disk_bytes: u64,
        /// Its content digest by the manifest.
        content_digest: Digest,
    },
    /// A volume without snapshot.
    Empty,
}

/// A volume to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Device name of the mapping.
    pub device: DeviceName,
    /// Its bytes.
    pub source: VolumeSource,
    /// Size the guest sees: the mapping's `volumeSize`, or the disk's where that is larger.
    pub attached_bytes: u64,
    /// NVMe serial number, as EC2 gives it: a volume id without its dash.
    pub serial: String,
}

/// Everything a boot needs to know.
#[derive(Clone, Debug)]
pub struct BootSpec {
    /// The image.
    pub image_id: ImageId,
    /// The firmware to start with.
    pub firmware: Firmware,
    /// What to attach, root first.
    pub volumes: Vec<Volume>,
    /// How to run it.
    pub options: BootOptions,
}

/// A manifest that cannot be booted as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The image is not for this firmware.
    #[error("the image has boot mode {boot_mode}: EC2 would not start it with {firmware}")]
    Firmware {
        /// Boot mode of the image.
        boot_mode: BootMode,
        /// Firmware asked for.
        firmware: Firmware,
    },
    /// Only x86_64 machines are run.
    #[error("images for {0} cannot be booted here")]
    Architecture(Arch),
    /// A volume has no disk file that can be booted.
    #[error("the manifest has no raw or qcow2 artifact for {0}")]
    NoArtifact(DeviceName),
    /// The file is not there.
    #[error("the disk of {device}, {}, is missing", .path.display())]
    Missing {
        /// The volume.
        device: DeviceName,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be looked at.
        #[source]
        source: std::io::Error,
    },
    /// Not a regular file. A link is none: a folder that came from elsewhere must not choose what
    /// of this host is opened.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// What stands in its place.
        path: PathBuf,
    },
    /// The file is shorter or longer than the manifest says.
    #[error("{} has {found} bytes, the manifest says {expected}", .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
    /// More volumes than the machine has room for.
    #[error("the image has {0} volumes, at most {MAX_VOLUMES} can be attached")]
    TooManyVolumes(usize),
    /// A seed disk of a length no disk has.
    #[error("the seed disk has {0} bytes, which is not a multiple of 512")]
    SeedLength(usize),
}

impl BootSpec {
    /// What EC2 would attach when it starts `manifest`, whose disk files are in `dir`.
    ///
    /// Every EBS mapping becomes a volume, at least as large as its `volumeSize`; raw is taken
    /// before qcow2. Instance store mappings are left out, as on Nitro, where they have no effect,
    /// and so are suppressed devices.
    pub fn from_manifest(
        manifest: &Manifest,
        dir: &Path,
        firmware: Firmware,
        options: BootOptions,
    ) -> Result<Self, SpecError> {
        if manifest.architecture != Arch::X86_64 {
            return Err(SpecError::Architecture(manifest.architecture));
        }
        if !manifest.boot_mode.allows(firmware) {
            return Err(SpecError::Firmware {
                boot_mode: manifest.boot_mode,
                firmware,
            });
        }
        if let Some(seed) = &options.seed
            && !(seed.len() as u64).is_multiple_of(SECTOR)
        {
            return Err(SpecError::SeedLength(seed.len()));
        }
        let (root, others): (Vec<_>, Vec<_>) = manifest
            .block_device_mappings
            .iter()
            .partition(|m| m.device_name == manifest.root_device_name);
        let mut volumes = Vec::new();
        for mapping in root.into_iter().chain(others) {
            volumes.extend(volume(manifest, dir, mapping)?);
        }
        if volumes.len() > MAX_VOLUMES {
            return Err(SpecError::TooManyVolumes(volumes.len()));
        }
        Ok(Self {
            image_id: manifest.image_id.clone(),
            firmware,
            volumes,
            options,
        })
    }
}

fn volume(
    manifest: &Manifest,
    dir: &Path,
    mapping: &BlockDeviceMapping,
) -> Result<Option<Volume>, SpecError> {
    let device = &mapping.device_name;
    let MappingTarget::Ebs(ebs) = &mapping.target else {
        return Ok(None);
    };
    let asked = u64::from(ebs.volume_size) * GIB;
    let id = Digest::of(format!("{}{device}", manifest.image_id).as_bytes()).hex();
    let serial = format!("vol{}", &id[..17]);
    let Some(info) = manifest.volume(device) else {
        return Ok(Some(Volume {
            device: device.clone(),
            source: VolumeSource::Empty,
            attached_bytes: asked,
            serial,
        }));
    };
    let artifact = [ArtifactFormat::Raw, ArtifactFormat::Qcow2]
        .iter()
        .find_map(|format| {
            manifest
                .artifacts
                .iter()
                .find(|a| a.device == *device && a.format == *format)
        })
        .ok_or_else(|| SpecError::NoArtifact(device.clone()))?;
    let path = dir.join(&artifact.file);
    let meta = std::fs::symlink_metadata(&path).map_err(|source| SpecError::Missing {
        device: device.clone(),
        path: path.clone(),
        source,
    })?;
    if !meta.is_file() {
        return Err(SpecError::NotAFile { path });
    }
    let found = meta.len();
    if found != artifact.bytes {
        return Err(SpecError::Length {
            path,
            found,
            expected: artifact.bytes,
        });
    }
    Ok(Some(Volume {
        device: device.clone(),
        source: VolumeSource::File {
            path,
            format: artifact.format,
            disk_bytes: info.size,
            content_digest: info.content_digest,
        },
        attached_bytes: asked.max(info.size),
        serial,
    }))
}
