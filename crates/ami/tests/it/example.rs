//! A manifest in which every member is used.

use std::collections::BTreeMap;

use amiforge_ami::{
    Artifact, ArtifactFormat, BlockDeviceMapping, BootMode, BootProof, ComponentRecord,
    CreationDate, EbsVolume, Firmware, LayerRecord, LayerRun, Manifest, ManifestSpec,
    MappingTarget, ParentImage, PartitionInfo, VirtualName, VolumeInfo, VolumeType,
};
use amiforge_types::{Arch, Digest, GIB, LayerId, Seed, Timestamp};

fn partition(number: u32, offset: u64, size: u64, filesystem: Option<&str>) -> PartitionInfo {
    let seed = Seed::new(Digest::of(&number.to_le_bytes()));
    PartitionInfo {
        number,
        offset,
        size,
        type_guid: seed.uuid("type"),
        guid: seed.uuid("guid"),
        name: Some(format!("part{number}")),
        filesystem: filesystem.map(Into::into),
        uuid: filesystem.map(|_| seed.uuid("fs").to_string()),
        label: filesystem.map(|_| "root".into()),
    }
}

/// The content digest of a disk of zeros, the long way.
fn empty_digest(size: u64) -> Digest {
    let block = Digest::of(&vec![0; 512 << 10]);
    let blocks = usize::try_from(size / (512 << 10)).unwrap();
    Digest::of(&block.as_bytes().repeat(blocks))
}

pub(crate) fn spec() -> ManifestSpec {
    let root: amiforge_ami::DeviceName = "/dev/xvda".parse().unwrap();
    let data = EbsVolume {
        volume_type: VolumeType::Io2,
        iops: Some(2000),
        delete_on_termination: false,
        encrypted: Some(true),
        kms_key_id: Some("alias/data".into()),
        ..EbsVolume::gp3(10)
    };
    let root_volume = EbsVolume {
        iops: Some(4000),
        throughput: Some(250),
        encrypted: Some(true),
        ..EbsVolume::gp3(8)
    };
    ManifestSpec {
        name: "debian-web".into(),
        version: "1.2.3".into(),
        architecture: Arch::X86_64,
        boot_mode: BootMode::UefiPreferred,
        root_device_name: root.clone(),
        ena_support: true,
        imds_v2: true,
        tpm_v2: false,
        creation_date: CreationDate::new(Timestamp::from_secs(1_795_215_480)),
        block_device_mappings: vec![
            BlockDeviceMapping::ebs(root.clone(), root_volume),
            BlockDeviceMapping::ebs("/dev/sdf".parse().unwrap(), data),
            BlockDeviceMapping {
                device_name: "/dev/sdb".parse().unwrap(),
                target: MappingTarget::Virtual(VirtualName::new(0).unwrap()),
            },
            BlockDeviceMapping {
                device_name: "/dev/sdc".parse().unwrap(),
                target: MappingTarget::NoDevice,
            },
        ],
        volumes: vec![
            VolumeInfo {
                device: root.clone(),
                size: 2 * GIB,
                partitions: vec![
                    partition(3, 1 << 20, 1 << 20, None),
                    partition(1, 128 << 20, 1 << 30, Some("ext4")),
                ],
                content_digest: Digest::of(b"content"),
            },
            VolumeInfo {
                device: "/dev/sdf".parse().unwrap(),
                size: 10 * GIB,
                partitions: Vec::new(),
                content_digest: empty_digest(10 * GIB),
            },
        ],
        artifacts: vec![
            Artifact {
                device: "/dev/sdf".parse().unwrap(),
                file: "disk-sdf.qcow2".into(),
                format: ArtifactFormat::Qcow2,
                bytes: 262_144,
                virtual_bytes: 10 * GIB,
                sha256: Some(Digest::of(b"empty")),
            },
            Artifact {
                device: root.clone(),
                file: "disk.qcow2".into(),
                format: ArtifactFormat::Qcow2,
                bytes: 300_000_000,
                virtual_bytes: 2 * GIB,
                sha256: None,
            },
            Artifact {
                device: root,
                file: "disk.raw".into(),
                format: ArtifactFormat::Raw,
                bytes: 2 * GIB,
                virtual_bytes: 2 * GIB,
                sha256: Some(Digest::of(b"raw")),
            },
        ],
        parent_image: ParentImage {
            asked: "debian:bookworm".into(),
            resolved: "debian:bookworm@20261101".into(),
        },
        components: vec![ComponentRecord {
            name: "web".into(),
            version: "1.0.0".into(),
            digest: Digest::of(b"web"),
            parameters: BTreeMap::from([("Greeting".into(), vec!["hello".into()])]),
            layer: Some(LayerId(Digest::of(b"layer"))),
        }],
        layers: vec![LayerRecord {
            id: LayerId(Digest::of(b"layer")),
            digest: Digest::of(b"bytes"),
            bytes: 4096,
            ran: Some(LayerRun {
                sandbox: "mapped-ids".into(),
                network: "host".into(),
            }),
        }],
        recipe_digest: Digest::of(b"recipe"),
        plan_id: Digest::of(b"plan"),
        tool_version: "0.0.0".into(),
        tags: BTreeMap::from([
            ("Name".into(), "debian-web".into()),
            ("env".into(), "test & more".into()),
        ]),
    }
}

pub(crate) fn manifest() -> Manifest {
    let mut manifest = Manifest::new(spec()).unwrap();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let proof = BootProof {
            passed: true,
            seconds: 12.5,
            report: "boot-report.json".into(),
        };
        manifest.boot_proof.insert(firmware, proof);
    }
    manifest
}
