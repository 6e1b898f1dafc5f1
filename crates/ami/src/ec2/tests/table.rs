//! Registering and creating images: each rule and its code.

use super::*;
use ErrorCode::*;

fn reg(w: &mut World, change: impl FnOnce(&mut RegisterImageRequest)) -> Result<(), ApiError> {
    reg_of(w, &mut once(change))
}

fn reg_of(w: &mut World, change: Change<'_, RegisterImageRequest>) -> Result<(), ApiError> {
    let snapshot = w.snap(&w.a.clone());
    let mut request = register("one", &snapshot);
    change(&mut request);
    done(w.s.register_image(&w.a.clone(), &request, None, &mut w.fx))
}

fn reg_ebs(w: &mut World, change: impl FnOnce(&mut EbsRequest)) -> Result<(), ApiError> {
    reg_ebs_of(w, &mut once(change))
}

fn reg_ebs_of(w: &mut World, change: Change<'_, EbsRequest>) -> Result<(), ApiError> {
    reg(w, |r| {
        change(r.block_device_mappings[0].ebs.as_mut().unwrap())
    })
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn registering() {
    let rows: &[Row] = &[
        (
            "1.1 name is needed",
            |w| reg(w, |r| r.name = String::new()),
            MissingParameter,
        ),
        (
            "1.1 name has 3 characters",
            |w| reg(w, |r| r.name = "ab".into()),
            InvalidAmiNameMalformed,
        ),
        (
            "1.1 name has at most 128",
            |w| reg(w, |r| r.name = "a".repeat(129)),
            InvalidAmiNameMalformed,
        ),
        (
            "1.1 name has no colon",
            |w| reg(w, |r| r.name = "a:b:c".into()),
            InvalidAmiNameMalformed,
        ),
        (
            "1.1 description",
            |w| reg(w, |r| r.description = Some("d".repeat(256))),
            InvalidParameterValue,
        ),
        (
            "1.1 architecture is one",
            |w| reg(w, |r| r.architecture = some("vax")),
            InvalidParameterValue,
        ),
        (
            "1.1 architecture default i386",
            |w| reg(w, |r| r.architecture = None),
            UnsupportedOperation,
        ),
        (
            "1.1 x86_64_mac",
            |w| reg(w, |r| r.architecture = some("x86_64_mac")),
            UnsupportedOperation,
        ),
        (
            "1.1 virtualization default paravirtual",
            |w| reg(w, |r| r.virtualization_type = None),
            UnsupportedOperation,
        ),
        (
            "1.1 virtualization type is one",
            |w| reg(w, |r| r.virtualization_type = some("xen")),
            InvalidParameterValue,
        ),
        (
            "1.1 boot mode is one",
            |w| reg(w, |r| r.boot_mode = some("efi")),
            InvalidParameterValue,
        ),
        (
            "1.1 sriov is simple",
            |w| reg(w, |r| r.sriov_net_support = some("full")),
            InvalidParameterValue,
        ),
        (
            "1.1 imds is v2.0",
            |w| reg(w, |r| r.imds_support = some("v1.0")),
            InvalidParameterValue,
        ),
        (
            "1.1 tpm is v2.0",
            |w| reg(w, |r| r.tpm_support = some("2.0")),
            InvalidParameterValue,
        ),
        (
            "1.1 uefi data is base64",
            |w| reg(w, |r| r.uefi_data = some("@@@@")),
            InvalidParameterValue,
        ),
        (
            "1.1 uefi data is short",
            |w| reg(w, |r| r.uefi_data = Some("A".repeat(64_004))),
            InvalidParameterValue,
        ),
        (
            "1.1 kernel id",
            |w| reg(w, |r| r.kernel_id = some("vmlinuz")),
            InvalidKernelIdMalformed,
        ),
        (
            "1.1 ramdisk id",
            |w| reg(w, |r| r.ramdisk_id = some("initrd")),
            InvalidRamDiskIdMalformed,
        ),
        (
            "1.1 kernels are of paravirtual images",
            |w| reg(w, |r| r.kernel_id = some("aki-01234567")),
            InvalidParameterCombination,
        ),
        (
            "1.1 tags for images only",
            |w| {
                reg(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("volume", [("k", "v")])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "1.1 tag key is not empty",
            |w| {
                reg(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("image", [("", "v")])]
                })
            },
            InvalidTagKeyMalformed,
        ),
        (
            "1.1 tag key is not aws:",
            |w| {
                reg(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("image", [("Aws:k", "v")])]
                })
            },
            InvalidTagKeyMalformed,
        ),
        (
            "1.1 tag key length",
            |w| {
                reg(w, |r| {
                    r.tag_specifications =
                        vec![TagSpecification::new("image", [("k".repeat(128), "v")])]
                })
            },
            InvalidTagKeyMalformed,
        ),
        (
            "1.1 tag value length",
            |w| {
                reg(w, |r| {
                    r.tag_specifications =
                        vec![TagSpecification::new("image", [("k", "v".repeat(257))])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "1.1 at most 50 tags",
            |w| {
                reg(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new(
                        "image",
                        (0..51).map(|i| (i.to_string(), "v")),
                    )]
                })
            },
            TagLimitExceeded,
        ),
        (
            "1.1 dry run",
            |w| reg(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "1.1 dry run comes after form",
            |w| {
                reg(w, |r| {
                    r.dry_run = true;
                    r.name = "x".into();
                })
            },
            InvalidAmiNameMalformed,
        ),
        (
            "1.1 dry run comes before existence",
            |w| {
                reg(w, |r| {
                    r.dry_run = true;
                    r.block_device_mappings = vec![at("/dev/xvda", ebs("snap-00000000"))];
                })
            },
            DryRunOperation,
        ),
        (
            "1.1 name is unique",
            |w| {
                w.image(&w.a.clone(), "one");
                reg(w, |_| {})
            },
            InvalidAmiNameDuplicate,
        ),
        (
            "1.2 one source, not none",
            |w| reg(w, |r| r.block_device_mappings.clear()),
            MissingParameter,
        ),
        (
            "1.2 one source, not two",
            |w| reg(w, |r| r.image_location = some("b/x.manifest.xml")),
            InvalidParameterCombination,
        ),
        (
            "1.2 root device has a mapping",
            |w| reg(w, |r| r.root_device_name = some("/dev/sda1")),
            InvalidBlockDeviceMapping,
        ),
        (
            "1.2 root device has a snapshot",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings = vec![at("/dev/xvda", sized(8))]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "1.2 root device is needed",
            |w| reg(w, |r| r.root_device_name = None),
            MissingParameter,
        ),
        (
            "1.2 root device is a device",
            |w| reg(w, |r| r.root_device_name = some("xvda")),
            InvalidParameterValue,
        ),
        (
            "1.2 snapshot or size",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings
                        .push(at("/dev/sdf", EbsRequest::default()))
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "1.2 snapshot is complete",
            |w| {
                let id =
                    w.s.import_snapshot(&w.a, 8, None, Tags::new(), &mut w.fx)?
                        .to_string();
                done(w.s.register_image(&w.a.clone(), &register("one", &id), None, &mut w.fx))
            },
            IncorrectState,
        ),
        (
            "1.2 snapshot is the caller's, when it is shared",
            |w| {
                let id = w.snap(&w.b.clone());
                w.share_snapshot(&w.b.clone(), &id, A)?;
                done(w.s.register_image(&w.a.clone(), &register("one", &id), None, &mut w.fx))
            },
            InvalidParameterValue,
        ),
        (
            "4.7 snapshot of another is not seen",
            |w| {
                let id = w.snap(&w.b.clone());
                done(w.s.register_image(&w.a.clone(), &register("one", &id), None, &mut w.fx))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 snapshot of another region is not seen",
            |w| {
                let id = w.snap(&w.far.clone());
                done(w.s.register_image(&w.a.clone(), &register("one", &id), None, &mut w.fx))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 snapshot id",
            |w| reg_ebs(w, |e| e.snapshot_id = some("snap-xyz")),
            InvalidSnapshotIdMalformed,
        ),
        (
            "1.2 no encrypted beside a snapshot",
            |w| reg_ebs(w, |e| e.encrypted = Some(false)),
            InvalidBlockDeviceMapping,
        ),
        (
            "1.2 no key",
            |w| {
                reg_ebs(w, |e| {
                    e.encrypted = Some(true);
                    e.kms_key_id = some("alias/x");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "2.3 key needs encrypted",
            |w| reg_ebs(w, |e| e.kms_key_id = some("alias/x")),
            InvalidParameterDependency,
        ),
        (
            "1.2 iops are needed of io2",
            |w| reg_ebs(w, |e| e.volume_type = some("io2")),
            MissingParameter,
        ),
        (
            "1.2 iops are not for gp2",
            |w| reg_ebs(w, |e| e.iops = Some(3000)),
            InvalidParameterCombination,
        ),
        (
            "1.2 throughput is for gp3",
            |w| reg_ebs(w, |e| e.throughput = Some(200)),
            InvalidParameterCombination,
        ),
        (
            "2.4 iops of gp3",
            |w| {
                reg_ebs(w, |e| {
                    e.volume_type = some("gp3");
                    e.iops = Some(90_000);
                })
            },
            InvalidParameterValue,
        ),
        (
            "2.4 volume type is one",
            |w| reg_ebs(w, |e| e.volume_type = some("gp9")),
            UnknownVolumeType,
        ),
        (
            "2.4 st1 is no root",
            |w| {
                reg_ebs(w, |e| {
                    e.volume_type = some("st1");
                    e.volume_size = Some(200);
                })
            },
            BootForVolumeTypeUnsupported,
        ),
        (
            "2.4 size of the type",
            |w| reg_ebs(w, |e| e.volume_size = Some(20_000)),
            InvalidParameterValue,
        ),
        (
            "2.3 size of the snapshot",
            |w| reg_ebs(w, |e| e.volume_size = Some(7)),
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 one target, not two",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings[0].virtual_name = some("ephemeral0")
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 one target, not none",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings.push(MappingRequest {
                        device_name: "/dev/sdf".into(),
                        ..Default::default()
                    })
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 ephemeral numbers",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings
                        .push(ephemeral("/dev/sdf", "ephemeral24"))
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.2 device names",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings.push(at("/dev/hda", sized(1)))
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.2 device name is needed",
            |w| reg(w, |r| r.block_device_mappings.push(at("", sized(1)))),
            MissingParameter,
        ),
        (
            "2.2 sdX and xvdX are one",
            |w| {
                reg(w, |r| {
                    r.block_device_mappings.push(at("/dev/sdf", sized(1)));
                    r.block_device_mappings.push(at("/dev/xvdf", sized(1)));
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "1.2 tpm needs uefi, not absent",
            |w| reg(w, |r| r.tpm_support = some("v2.0")),
            InvalidParameterCombination,
        ),
        (
            "1.2 tpm needs uefi, not preferred",
            |w| {
                reg(w, |r| {
                    r.tpm_support = some("v2.0");
                    r.boot_mode = some("uefi-preferred");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "1.2 arm64 has no BIOS",
            |w| {
                reg(w, |r| {
                    r.architecture = some("arm64");
                    r.boot_mode = some("legacy-bios");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "1.2 arm64 needs hvm",
            |w| {
                reg(w, |r| {
                    r.architecture = some("arm64");
                    r.virtualization_type = None;
                })
            },
            InvalidParameterCombination,
        ),
        (
            "1.2 boot mode needs hvm",
            |w| {
                reg(w, |r| {
                    r.boot_mode = some("uefi");
                    r.virtualization_type = some("paravirtual");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "1.2 ena needs hvm",
            |w| {
                reg(w, |r| {
                    r.ena_support = Some(true);
                    r.virtualization_type = some("paravirtual");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "1.2 imds needs hvm",
            |w| {
                reg(w, |r| {
                    r.imds_support = some("v2.0");
                    r.virtualization_type = None;
                })
            },
            InvalidParameterCombination,
        ),
        (
            "5 root of at most 10 GiB",
            |w| done(w.bundle(&w.a.clone(), "one", (10 << 30) + 1)),
            InvalidManifest,
        ),
        (
            "5 manifest can be read",
            |w| {
                reg(w, |r| {
                    r.image_location = some("gone.manifest.xml");
                    r.block_device_mappings.clear();
                })
            },
            InvalidManifest,
        ),
        (
            "5 architecture is the manifest's",
            |w| {
                let mut request = register("one", "");
                request.block_device_mappings.clear();
                request.image_location = some("b/i.manifest.xml");
                let facts = BundleFacts {
                    architecture: amiforge_types::Arch::Arm64,
                    image_bytes: 1,
                    stored_bytes: 4096,
                    manifest: amiforge_types::Digest::of(b"manifest"),
                    root: None,
                    ephemeral: Vec::new(),
                };
                done(w.s.register_image(&w.a.clone(), &request, Some(&facts), &mut w.fx))
            },
            InvalidParameterCombination,
        ),
    ];
    check_rows(rows);
}

/// A request to make an image of a running instance.
fn create(w: &mut World, change: impl FnOnce(&mut CreateImageRequest)) -> Result<(), ApiError> {
    create_of(w, &mut once(change))
}

fn create_of(w: &mut World, change: Change<'_, CreateImageRequest>) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let id = w.instance(&a, &id);
    done(w.create(&a, &id, change))
}

#[test]
fn creating() {
    let rows: &[Row] = &[
        (
            "4.7 instance id",
            |w| create(w, |r| r.instance_id = "i-x".into()),
            InvalidInstanceIdMalformed,
        ),
        (
            "4.7 instance is needed",
            |w| create(w, |r| r.instance_id = String::new()),
            MissingParameter,
        ),
        (
            "4.7 instance is there",
            |w| create(w, |r| r.instance_id = "i-01234567".into()),
            InvalidInstanceIdNotFound,
        ),
        (
            "4.2 name",
            |w| create(w, |r| r.name = "x".into()),
            InvalidAmiNameMalformed,
        ),
        (
            "4.2 name is unique",
            |w| create(w, |r| r.name = "base".into()),
            InvalidAmiNameDuplicate,
        ),
        (
            "4.2 tags of images and snapshots",
            |w| {
                create(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("volume", [("k", "v")])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.2 snapshots are regional",
            |w| create(w, |r| r.snapshot_location = some("local")),
            InvalidParameterCombination,
        ),
        (
            "4.2 snapshot location is one",
            |w| create(w, |r| r.snapshot_location = some("mars")),
            InvalidParameterValue,
        ),
        (
            "4.2 dry run",
            |w| create(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "4.2 instance of another",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w.instance(&a, &id);
                done(w.create(&w.b.clone(), &id, |_| {}))
            },
            InvalidInstanceIdNotFound,
        ),
        (
            "4.2 running or stopped",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w.instance(&a, &id);
                w.s.stop_instances(&a, &ids(&id), &w.fx)?;
                done(w.create(&a, &id, |_| {}))
            },
            IncorrectInstanceState,
        ),
        (
            "4.2 not of an instance store",
            |w| {
                let a = w.a.clone();
                let id = w.bundle(&a, "base", 1 << 30)?;
                let id = w.instance(&a, &id);
                done(w.create(&a, &id, |_| {}))
            },
            UnsupportedOperation,
        ),
        (
            "4.2 no size of an existing volume",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![at("/dev/xvda", sized(20))]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.2 no type of an existing volume",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![at(
                        "/dev/xvda",
                        EbsRequest {
                            volume_type: some("gp3"),
                            ..Default::default()
                        },
                    )]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.3 an existing plain volume stays plain",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![at(
                        "/dev/xvda",
                        EbsRequest {
                            encrypted: Some(true),
                            ..Default::default()
                        },
                    )]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.2 the root stays",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![no_device("/dev/xvda")]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.2 a volume is no instance store",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![ephemeral("/dev/xvda", "ephemeral0")]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.2 a new volume has a size",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![at("/dev/sdf", EbsRequest::default())]
                })
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.2 devices do not clash",
            |w| {
                create(w, |r| {
                    r.block_device_mappings = vec![at("/dev/sda", sized(1))]
                })
            },
            InvalidBlockDeviceMapping,
        ),
    ];
    check_rows(rows);
}
