//! Request files for the AWS command line, derived from a manifest.
//!
//! Source: EC2 API reference, `RegisterImage` and `RunInstances`; the command line refuses keys it
//! does not know and values of another JSON type, so only members in use are written.

use serde::Serialize;

use crate::manifest::pretty;
use crate::{BlockDeviceMapping, Manifest, MappingTarget, VolumeInfo};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<&'a str>,
    volume_size: u32,
    volume_type: &'static str,
    delete_on_termination: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    iops: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throughput: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping<'a> {
    device_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ebs: Option<Ebs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_device: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagSpecification<'a> {
    resource_type: &'static str,
    tags: Vec<Tag<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RegisterImage<'a> {
    name: String,
    architecture: &'static str,
    virtualization_type: &'static str,
    root_device_name: &'a str,
    boot_mode: &'static str,
    ena_support: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    imds_support: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm_support: Option<&'static str>,
    block_device_mappings: Vec<Mapping<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tag_specifications: Vec<TagSpecification<'a>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Request {
    Register,
    Run,
}

fn wire<'a>(
    manifest: &'a Manifest,
    mapping: &'a BlockDeviceMapping,
    request: Request,
) -> Mapping<'a> {
    let mut out = Mapping {
        device_name: mapping.device_name.as_str(),
        ebs: None,
        virtual_name: None,
        no_device: None,
    };
    match &mapping.target {
        MappingTarget::Ebs(ebs) => {
            let register = request == Request::Register;
            let volume = manifest.volume(&mapping.device_name);
            // EC2 makes an empty volume from its size alone: there is nothing to upload.
            let empty =
                register && (ebs.snapshot_id.is_none() || volume.is_some_and(VolumeInfo::is_empty));
            out.ebs = Some(Ebs {
                snapshot_id: ebs
                    .snapshot_id
                    .as_ref()
                    .map(|id| id.as_str())
                    .filter(|_| register && !empty),
                volume_size: ebs.volume_size,
                volume_type: ebs.volume_type.as_str(),
                delete_on_termination: ebs.delete_on_termination,
                iops: ebs.iops,
                throughput: ebs.throughput,
                encrypted: ebs.encrypted.filter(|_| !register || empty),
                kms_key_id: ebs.kms_key_id.as_deref().filter(|_| !register),
            });
        }
        MappingTarget::Virtual(name) => out.virtual_name = Some(name.to_string()),
        MappingTarget::NoDevice => out.no_device = Some(""),
    }
    out
}

/// The content of `register-image.json`, for `aws ec2 register-image --cli-input-json file://…`.
///
/// `SnapshotId` holds the *local* id of the volume's content; replace it by the id AWS gave the
/// uploaded snapshot. A volume that is empty has none there: its size is all that EC2 needs, and
/// its `Encrypted` stays. `Encrypted` is left out of mappings with a snapshot and `KmsKeyId` of all,
/// as `RegisterImage` refuses both: an encrypted image comes from encrypted snapshots.
#[must_use]
pub fn register_image_request(manifest: &Manifest) -> Vec<u8> {
    let tags: Vec<_> = manifest
        .tags
        .iter()
        .map(|(key, value)| Tag { key, value })
        .collect();
    let tags = if tags.is_empty() {
        Vec::new()
    } else {
        vec![TagSpecification {
            resource_type: "image",
            tags,
        }]
    };
    pretty(&RegisterImage {
        name: manifest.ami_name(),
        architecture: manifest.architecture.ec2(),
        virtualization_type: "hvm",
        root_device_name: manifest.root_device_name.as_str(),
        boot_mode: manifest.boot_mode.as_str(),
        ena_support: manifest.ena_support,
        imds_support: manifest.imds_support.map(|_| "v2.0"),
        tpm_support: manifest.tpm_support.map(|_| "v2.0"),
        block_device_mappings: manifest
            .block_device_mappings
            .iter()
            .map(|m| wire(manifest, m, Request::Register))
            .collect(),
        tag_specifications: tags,
    })
}

/// The content of `block-device-mappings.json`, for
/// `aws ec2 run-instances --image-id … --block-device-mappings file://…`.
///
/// It holds no snapshot ids: an entry with the device name of the image's own mapping overrides
/// the members it has and inherits the rest, the snapshot among them.
#[must_use]
pub fn run_instances_mappings(manifest: &Manifest) -> Vec<u8> {
    let mappings: Vec<_> = manifest
        .block_device_mappings
        .iter()
        .map(|m| wire(manifest, m, Request::Run))
        .collect();
    pretty(&mappings)
}
