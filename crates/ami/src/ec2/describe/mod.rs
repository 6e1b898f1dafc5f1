//! The describing operations: what the caller sees, in the shapes of the API. Serialized, they are what the AWS command
//! line prints: members in PascalCase and in the model's order, absent ones left out, times as `2026-11-28T12:00:00+00:00`
//! (or as the API's text where it is one, with `.000Z`).
//!
//! Source: EC2 API reference, `DescribeImages`, `DescribeSnapshots`, `DescribeVolumes`, `DescribeInstances`,
//! `DescribeImageAttribute`; KMS API reference, `DescribeKey`.

mod images;
mod instances;
mod keys;
mod volumes;

#[cfg(test)]
pub(super) use images::IMAGE_FILTERS;
#[cfg(test)]
pub(super) use instances::INSTANCE_FILTERS;
#[cfg(test)]
pub(super) use volumes::{SNAPSHOT_FILTERS, VOLUME_FILTERS};

use serde::Serialize;

use super::{Caller, Tags};
use crate::{BlockDeviceMapping, CreationDate, MappingTarget};

/// A shape of an answer: all members may be absent.
macro_rules! shape {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
        }
    };
}
use shape;

pub use images::{
    AttributeText, DescribeImageAttributeRequest, DescribeImagesRequest, DescribeImagesResult,
    ImageAttribute, ImageDescription, LaunchPermissionDescription,
};
pub use instances::{
    CpuOptionsDescription, DescribeInstancesRequest, DescribeInstancesResult,
    EbsInstanceDescription, InstanceDescription, InstanceMappingDescription,
    InstanceStateDescription, MetadataOptionsDescription, MonitoringDescription,
    NetworkInterfaceDescription, PlacementDescription, PrivateIpDescription,
    ReservationDescription,
};
pub use keys::{AliasDescription, DescribeKeysResult, GrantDescription, KeyDescription};
pub use volumes::{
    AttachmentDescription, DescribeSnapshotsRequest, DescribeSnapshotsResult,
    DescribeVolumesRequest, DescribeVolumesResult, SnapshotDescription, VolumeDescription,
};

/// `Tag` of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagDescription {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

shape! {
    /// `StateReason`.
    pub struct StateReasonDescription {
        /// The code.
        pub code: String,
        /// The sentence.
        pub message: String,
    }
}

shape! {
    /// `ProductCode`.
    pub struct ProductCodeDescription {
        /// The code.
        pub product_code_id: String,
        /// `marketplace`.
        pub product_code_type: String,
    }
}

shape! {
    /// `BlockDeviceMapping`.
    pub struct MappingDescription {
        /// An EBS volume.
        pub ebs: EbsDescription,
        /// Suppressed.
        pub no_device: String,
        /// The device name.
        pub device_name: String,
        /// An instance store volume.
        pub virtual_name: String,
    }
}

shape! {
    /// `EbsBlockDevice`.
    pub struct EbsDescription {
        /// Whether the volume goes with the instance.
        pub delete_on_termination: bool,
        /// Provisioned I/O operations per second.
        pub iops: u32,
        /// The snapshot.
        pub snapshot_id: String,
        /// Size in GiB.
        pub volume_size: u32,
        /// The type.
        pub volume_type: String,
        /// Provisioned throughput in MiB/s.
        pub throughput: u32,
        /// Whether it is encrypted.
        pub encrypted: bool,
    }
}

/// The tags of a resource, sorted; absent when there are none, as the service has it for all but instances.
fn tags(tags: Option<&Tags>) -> Option<Vec<TagDescription>> {
    let list: Vec<TagDescription> = tags?
        .iter()
        .map(|(key, value)| TagDescription {
            key: key.clone(),
            value: value.clone(),
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn product_codes(codes: &[String]) -> Vec<ProductCodeDescription> {
    codes
        .iter()
        .map(|code| ProductCodeDescription {
            product_code_id: Some(code.clone()),
            product_code_type: Some("marketplace".to_owned()),
        })
        .collect()
}

fn state_reason(reason: Option<&super::StateReason>) -> Option<StateReasonDescription> {
    reason.map(|r| StateReasonDescription {
        code: Some(r.code.clone()),
        message: Some(r.message.clone()),
    })
}

/// A time as the command line prints it.
fn time(date: CreationDate) -> String {
    let text = date.timestamp().to_string();
    format!("{}+00:00", text.trim_end_matches('Z'))
}

/// A mapping; `encrypted` tells whether its snapshot is.
fn mapping(
    mapping: &BlockDeviceMapping,
    encrypted: impl Fn(&crate::EbsVolume) -> bool,
) -> MappingDescription {
    let mut out = MappingDescription {
        device_name: Some(mapping.device_name.to_string()),
        ..MappingDescription::default()
    };
    match &mapping.target {
        MappingTarget::NoDevice => out.no_device = Some(String::new()),
        MappingTarget::Virtual(name) => out.virtual_name = Some(name.to_string()),
        MappingTarget::Ebs(volume) => {
            out.ebs = Some(EbsDescription {
                delete_on_termination: Some(volume.delete_on_termination),
                iops: volume.iops,
                snapshot_id: volume.snapshot_id.as_ref().map(ToString::to_string),
                volume_size: Some(volume.volume_size),
                volume_type: Some(volume.volume_type.to_string()),
                throughput: volume.throughput,
                encrypted: Some(encrypted(volume)),
            });
        }
    }
    out
}

/// One value of a filter.
fn one(text: impl ToString) -> Option<Vec<String>> {
    Some(vec![text.to_string()])
}

/// A value that may be absent.
fn maybe(text: Option<impl ToString>) -> Option<Vec<String>> {
    Some(text.map(|t| t.to_string()).into_iter().collect())
}

/// Whether an owner of a request is this one. Aliases such as `amazon` are nobody here.
fn owned_by(owner: &super::AccountId, owners: &[String], caller: &Caller) -> bool {
    owners.is_empty()
        || owners.iter().any(|o| match o.as_str() {
            "self" => *owner == caller.account,
            other => owner.as_str() == other,
        })
}

/// Account ids, and the words that may stand for some.
fn check_accounts(accounts: &[String], words: &[&str]) -> Result<(), super::ApiError> {
    match accounts
        .iter()
        .find(|a| !words.contains(&a.as_str()) && a.parse::<super::AccountId>().is_err())
    {
        None => Ok(()),
        Some(bad) => {
            let shown: String = bad.chars().take(60).collect();
            Err(super::ApiError::new(
                super::ErrorCode::InvalidUserIdMalformed,
                format!("Invalid user id: \"{shown}\""),
            ))
        }
    }
}
