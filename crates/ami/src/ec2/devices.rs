//! Block device mappings of requests: what they say, what an image has, and the two merged.
//!
//! Source: EC2 API reference, `BlockDeviceMapping`; EC2 user guide, `block-device-mapping-concepts`.

use super::check::{Api, missing, refuse, snapshot_id};
use super::{ApiError, EbsRequest, ErrorCode, MappingRequest};
use crate::{
    BlockDeviceMapping, DeviceName, EbsError, EbsVolume, MappingTarget, SnapshotId, VirtualName,
    VolumeType,
};

/// An entry of a request, read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) device: DeviceName,
    pub(crate) target: EntryTarget,
}

#[derive(Clone, Debug)]
pub(crate) enum EntryTarget {
    Ebs(Box<EbsEntry>),
    Virtual(VirtualName),
    NoDevice,
}

/// `EbsBlockDevice`, read. Absent is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct EbsEntry {
    pub(crate) snapshot: Option<SnapshotId>,
    pub(crate) size: Option<u32>,
    pub(crate) kind: Option<VolumeType>,
    pub(crate) iops: Option<u32>,
    pub(crate) throughput: Option<u32>,
    pub(crate) delete_on_termination: Option<bool>,
    pub(crate) encrypted: Option<bool>,
    pub(crate) key: Option<String>,
}

pub(crate) fn bad_mapping<T>(message: impl Into<String>) -> Api<T> {
    refuse(ErrorCode::InvalidBlockDeviceMapping, message)
}

/// Reads the entries: device names and types are known ones, each has one of three targets, no two are the same device.
/// `nothing` is what an entry with no target is answered by.
pub(crate) fn entries(requests: &[MappingRequest], nothing: ErrorCode) -> Api<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(requests.len());
    for request in requests {
        if request.device_name.is_empty() {
            return missing("DeviceName");
        }
        let device: DeviceName = request.device_name.parse().map_err(|_| {
            let name: String = request.device_name.chars().take(60).collect();
            ApiError::new(
                ErrorCode::InvalidBlockDeviceMapping,
                format!("Invalid device name {name}"),
            )
        })?;
        let target = match (&request.ebs, &request.virtual_name, &request.no_device) {
            (Some(ebs), None, None) => EntryTarget::Ebs(Box::new(ebs_entry(ebs)?)),
            (None, Some(name), None) => EntryTarget::Virtual(name.parse().map_err(|_| {
                let name: String = name.chars().take(60).collect();
                ApiError::new(
                    ErrorCode::InvalidBlockDeviceMapping,
                    format!("Invalid virtual name {name} for {device}"),
                )
            })?),
            (None, None, Some(_)) => EntryTarget::NoDevice,
            (None, None, None) => {
                return refuse(
                    nothing,
                    format!("The mapping of {device} must have one of Ebs, VirtualName, NoDevice"),
                );
            }
            _ => {
                return bad_mapping(format!(
                    "The mapping of {device} must have only one of Ebs, VirtualName, NoDevice"
                ));
            }
        };
        if let Some(other) = entries.iter().find(|e| e.device.clashes(&device)) {
            return bad_mapping(format!("{} and {device} are the same device", other.device));
        }
        entries.push(Entry { device, target });
    }
    Ok(entries)
}

fn ebs_entry(request: &EbsRequest) -> Api<EbsEntry> {
    if request.kms_key_id.is_some() && request.encrypted != Some(true) {
        return refuse(
            ErrorCode::InvalidParameterDependency,
            "The parameter KmsKeyId requires the parameter Encrypted to be set.",
        );
    }
    Ok(EbsEntry {
        snapshot: request
            .snapshot_id
            .as_deref()
            .map(snapshot_id)
            .transpose()?,
        size: request.volume_size,
        kind: request
            .volume_type
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|error: String| ApiError::new(ErrorCode::UnknownVolumeType, error))
            })
            .transpose()?,
        iops: request.iops,
        throughput: request.throughput,
        delete_on_termination: request.delete_on_termination,
        encrypted: request.encrypted,
        key: request.kms_key_id.clone(),
    })
}

/// The first rule of its type that the volume breaks, as the API answers it.
pub(crate) fn check_volume(device: &DeviceName, volume: &EbsVolume, root: bool) -> Api<()> {
    check_figures(device.as_str(), volume)?;
    if root && !volume.volume_type.bootable() {
        return refuse(
            ErrorCode::BootForVolumeTypeUnsupported,
            format!(
                "{device}: a {} volume cannot be a root volume",
                volume.volume_type
            ),
        );
    }
    Ok(())
}

/// The same of size and provisioned figures alone; the message begins with `what` it is about.
pub(crate) fn check_figures(what: &str, volume: &EbsVolume) -> Api<()> {
    if let Some(error) = volume.check().into_iter().next() {
        let code = match error {
            EbsError::IopsMissing(_) => ErrorCode::MissingParameter,
            EbsError::IopsNotSettable(_) | EbsError::ThroughputNotSettable(_) => {
                ErrorCode::InvalidParameterCombination
            }
            EbsError::KeyWithoutEncryption => ErrorCode::InvalidParameterDependency,
            EbsError::Size { .. } | EbsError::Iops { .. } | EbsError::Throughput { .. } => {
                ErrorCode::InvalidParameterValue
            }
        };
        return refuse(code, format!("{what}: {error}"));
    }
    Ok(())
}

/// No two entries of a finished list are the same device.
pub(crate) fn check_clashes(mappings: &[BlockDeviceMapping]) -> Api<()> {
    for (i, mapping) in mappings.iter().enumerate() {
        if let Some(other) = mappings[..i]
            .iter()
            .find(|m| m.device_name.clashes(&mapping.device_name))
        {
            return bad_mapping(format!(
                "{} and {} are the same device",
                other.device_name, mapping.device_name
            ));
        }
    }
    Ok(())
}

pub(crate) fn too_small<T>(size: u32, snapshot: &SnapshotId, least: u32) -> Api<T> {
    bad_mapping(format!(
        "Volume of size {size}GB is smaller than snapshot '{snapshot}', expect size >= {least}GB"
    ))
}

/// Sets the members that `entry` has, in a volume. Provisioned figures of another type go with the type.
pub(crate) fn overlay(volume: &mut EbsVolume, entry: &EbsEntry) {
    if let Some(kind) = entry.kind
        && kind != volume.volume_type
    {
        volume.volume_type = kind;
        volume.iops = None;
        volume.throughput = None;
    }
    if let Some(size) = entry.size {
        volume.volume_size = size;
    }
    if let Some(snapshot) = &entry.snapshot {
        volume.snapshot_id = Some(snapshot.clone());
    }
    if entry.iops.is_some() {
        volume.iops = entry.iops;
    }
    if entry.throughput.is_some() {
        volume.throughput = entry.throughput;
    }
    if let Some(delete) = entry.delete_on_termination {
        volume.delete_on_termination = delete;
    }
}

/// A new volume, from an entry that says its snapshot or its size.
pub(crate) fn new_volume(entry: &EbsEntry, size: u32, delete: bool) -> EbsVolume {
    let mut volume = EbsVolume {
        snapshot_id: None,
        volume_size: size,
        volume_type: VolumeType::Gp2,
        delete_on_termination: delete,
        iops: None,
        throughput: None,
        encrypted: None,
        kms_key_id: None,
    };
    overlay(&mut volume, entry);
    volume
}

/// The EBS part of the mapping of a device, to change.
pub(crate) fn ebs_mut<'a>(
    mappings: &'a mut [BlockDeviceMapping],
    device: &DeviceName,
) -> Option<&'a mut EbsVolume> {
    mappings
        .iter_mut()
        .find(|m| m.device_name == *device)
        .and_then(|m| match &mut m.target {
            MappingTarget::Ebs(volume) => Some(volume),
            _ => None,
        })
}
