//! Our answers, walked member by member against the shapes that AWS's own client has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

/// What is wrong with answers, and which members they had.
struct Walk {
    model: Value,
    seen: BTreeMap<String, BTreeSet<String>>,
    bad: Vec<String>,
}

impl Walk {
    fn new() -> Self {
        let text = include_str!("../../../../../fixtures/botocore/ec2.json");
        Self {
            model: serde_json::from_str(text).unwrap(),
            seen: BTreeMap::new(),
            bad: Vec::new(),
        }
    }

    fn answer(&mut self, shape: &str, answer: &impl serde::Serialize) {
        let value = serde_json::to_value(answer).unwrap();
        self.value(shape, shape, &value);
    }

    fn value(&mut self, path: &str, name: &str, value: &Value) {
        let shape = self.model["shapes"][name].clone();
        let kind = shape["type"].as_str().unwrap_or("no such shape").to_owned();
        let good = match kind.as_str() {
            "structure" => return self.structure(path, name, &shape, value),
            "list" => {
                let member = shape["member"].as_str().unwrap();
                if let Some(list) = value.as_array() {
                    for (i, item) in list.iter().enumerate() {
                        self.value(&format!("{path}[{i}]"), member, item);
                    }
                }
                value.is_array()
            }
            "string" => value.as_str().is_some_and(|text| {
                shape["enum"]
                    .as_array()
                    .is_none_or(|known| known.iter().any(|k| k == text))
            }),
            "boolean" => value.is_boolean(),
            "integer" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            "long" => value.is_i64() || value.is_u64(),
            // As the command line prints it: ISO 8601 with an offset.
            "timestamp" => value
                .as_str()
                .is_some_and(|t| t.ends_with("+00:00") && t.parse::<Timestamp>().is_ok()),
            _ => false,
        };
        if !good {
            self.bad
                .push(format!("{path}: {value} is no {name} ({kind})"));
        }
    }

    fn structure(&mut self, path: &str, name: &str, shape: &Value, value: &Value) {
        let (Some(members), Some(object)) = (shape["members"].as_object(), value.as_object())
        else {
            self.bad.push(format!("{path}: {value} is no {name}"));
            return;
        };
        let order: Vec<&String> = members.keys().collect();
        let mut last = None;
        self.seen
            .entry(name.to_owned())
            .or_default()
            .extend(object.keys().cloned());
        for (key, member) in object {
            let place = order.iter().position(|k| *k == key);
            if place.is_none() || place <= last {
                self.bad
                    .push(format!("{path}.{key}: unknown, or out of order"));
                continue;
            }
            last = place;
            self.value(
                &format!("{path}.{key}"),
                members[key].as_str().unwrap(),
                member,
            );
        }
    }

    /// Members of a shape that no answer had.
    fn unseen(&self, name: &str) -> Vec<String> {
        let seen = self.seen.get(name).cloned().unwrap_or_default();
        self.model["shapes"][name]["members"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect()
    }
}

/// Everything that an answer can have, in one state.
fn full() -> World {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let key = w.key(&a, "alias/k");
    w.s.grant_key(&a, &key, &b.account).unwrap();
    let old = w.key(&a, "alias/old");
    w.s.schedule_key_deletion(&a, &old, None, &w.fx).unwrap();
    w.settings(&a).allowed_images.state = AllowedImagesState::AuditMode;
    let snapshot = w.encrypted_snap(&a, "alias/k");
    let mut request = register("base", &snapshot);
    request.description = Some("one".to_owned());
    request.boot_mode = Some("uefi".to_owned());
    request.tpm_support = Some("v2.0".to_owned());
    request.imds_support = Some("v2.0".to_owned());
    request.sriov_net_support = Some("simple".to_owned());
    request.ena_support = Some(true);
    request.uefi_data = Some("QUJD".to_owned());
    request.tag_specifications = vec![TagSpecification::new("image", [("Name", "base")])];
    request.block_device_mappings[0]
        .ebs
        .as_mut()
        .unwrap()
        .volume_type = Some("gp3".to_owned());
    request.block_device_mappings.push(at(
        "/dev/sdf",
        EbsRequest {
            volume_type: Some("gp3".to_owned()),
            iops: Some(4000),
            throughput: Some(250),
            ..sized(10)
        },
    ));
    request
        .block_device_mappings
        .push(ephemeral("/dev/sdg", "ephemeral0"));
    let id = w.s.register_image(&a, &request, None, &mut w.fx).unwrap();
    let record = w.s.images.get_mut(&id).unwrap();
    record.product_codes = vec!["abcdef".to_owned()];
    let id = id.to_string();
    w.share(&a, &id, B);
    let at = DeprecateImageRequest {
        image_id: id.clone(),
        deprecate_at: "2027-01-01T00:00:00Z".to_owned(),
        dry_run: false,
    };
    w.s.deprecate_image(&a, &at, &w.fx).unwrap();
    w.run(&a, &id, |r| {
        r.key_name = Some("mine".to_owned());
        r.public_key = Some("ssh-ed25519 AAAA".to_owned());
        r.client_token = Some("t".to_owned());
        r.tag_specifications = vec![
            TagSpecification::new("instance", [("Name", "web")]),
            TagSpecification::new("volume", [("Name", "web")]),
        ];
        r.max_count = Some(2);
    })
    .unwrap();
    let stopped = w.stopped(&a, &id);
    w.create(&a, &stopped, |r| {
        r.tag_specifications = vec![TagSpecification::new("snapshot", [("Name", "web")])];
    })
    .unwrap();
    let gone = w.instance(&a, &id);
    w.s.machine_lost(&gone.parse().unwrap(), "lost", &w.fx)
        .unwrap();
    w.s.terminate_instances(&a, &ids(&gone), &w.fx).unwrap();
    w.s.instance_terminated(&gone.parse().unwrap(), &w.fx)
        .unwrap();
    w.bundle(&a, "bundle", 1 << 30).unwrap();
    let new = CreateVolumeRequest {
        availability_zone: Some(a.region.zone()),
        size: Some(1),
        ..CreateVolumeRequest::default()
    };
    w.s.create_volume(&a, &new, &mut w.fx).unwrap();
    let failed = w.s.create_volume(&a, &new, &mut w.fx).unwrap();
    w.s.fail_volume(&failed.volume_id).unwrap();
    w.copy(&a, &id, HERE, |r| {
        r.encrypted = Some(true);
        r.kms_key_id = Some("alias/none".to_owned());
    })
    .unwrap();
    let request = CopySnapshotRequest {
        source_snapshot_id: snapshot,
        source_region: HERE.to_owned(),
        encrypted: Some(true),
        kms_key_id: Some("alias/none".to_owned()),
        ..CopySnapshotRequest::default()
    };
    w.s.copy_snapshot(&a, &request, &mut w.fx).unwrap();
    assert_eq!(w.s.check(), Vec::<String>::new());
    w
}

/// Members that we do not have: of services that are not here, or of hardware that is not.
const NOT_HERE: &[(&str, &[&str])] = &[
    ("DescribeImagesResult", &[]),
    ("DescribeInstancesResult", &[]),
    ("DescribeSnapshotsResult", &[]),
    ("DescribeVolumesResult", &[]),
    (
        "Image",
        &[
            "ImageOwnerAlias",
            "FreeTierEligible",
            "KernelId",
            "RamdiskId",
            "Platform",
        ],
    ),
    ("BlockDeviceMapping", &["NoDevice"]),
    (
        "EbsBlockDevice",
        &[
            "KmsKeyId",
            "OutpostArn",
            "AvailabilityZone",
            "VolumeInitializationRate",
            "AvailabilityZoneId",
            "EbsCardIndex",
        ],
    ),
    (
        "Instance",
        &[
            "IamInstanceProfile",
            "InstanceLifecycle",
            "ElasticGpuAssociations",
            "ElasticInferenceAcceleratorAssociations",
            "OutpostArn",
            "SpotInstanceRequestId",
            "SriovNetSupport",
            "CapacityBlockId",
            "CapacityReservationId",
            "CapacityReservationSpecification",
            "HibernationOptions",
            "Licenses",
            "EnclaveOptions",
            "UsageOperationUpdateTime",
            "PrivateDnsNameOptions",
            "Ipv6Address",
            "MaintenanceOptions",
            "NetworkPerformanceOptions",
            "Operator",
            "SecondaryInterfaces",
            "KernelId",
            "RamdiskId",
            "Platform",
            "SubnetId",
            "VpcId",
            "PublicIpAddress",
        ],
    ),
    ("InstanceState", &[]),
    ("InstanceBlockDeviceMapping", &[]),
    (
        "EbsInstanceBlockDevice",
        &[
            "AssociatedResource",
            "VolumeOwnerId",
            "Operator",
            "EbsCardIndex",
        ],
    ),
    (
        "InstanceNetworkInterface",
        &[
            "Association",
            "Attachment",
            "Groups",
            "Ipv6Addresses",
            "SubnetId",
            "VpcId",
            "Ipv4Prefixes",
            "Ipv6Prefixes",
            "ConnectionTrackingConfiguration",
            "Operator",
        ],
    ),
    ("InstancePrivateIpAddress", &["Association"]),
    ("InstanceMetadataOptionsResponse", &[]),
    ("CpuOptions", &["AmdSevSnp", "NestedVirtualization"]),
    (
        "Placement",
        &[
            "AvailabilityZoneId",
            "Affinity",
            "PartitionNumber",
            "HostId",
            "SpreadDomain",
            "HostResourceGroupArn",
            "GroupId",
        ],
    ),
    ("Monitoring", &[]),
    ("Reservation", &["RequesterId"]),
    (
        "Snapshot",
        &[
            "OwnerAlias",
            "OutpostArn",
            "RestoreExpiryTime",
            "SseType",
            "AvailabilityZone",
            "TransferType",
            "CompletionDurationMinutes",
        ],
    ),
    (
        "Volume",
        &[
            "AvailabilityZoneId",
            "OutpostArn",
            "SourceVolumeId",
            "FastRestored",
            "SseType",
            "Operator",
            "VolumeInitializationRate",
        ],
    ),
    (
        "VolumeAttachment",
        &[
            "AssociatedResource",
            "InstanceOwningService",
            "EbsCardIndex",
        ],
    ),
    ("Tag", &[]),
    ("StateReason", &[]),
    ("ProductCode", &[]),
    (
        "ImageAttribute",
        &["KernelId", "RamdiskId", "BlockDeviceMappings"],
    ),
    ("AttributeValue", &[]),
    ("LaunchPermission", &[]),
    (
        "KeyMetadata",
        &[
            "ValidTo",
            "CustomKeyStoreId",
            "CloudHsmClusterId",
            "ExpirationModel",
            "CustomerMasterKeySpec",
            "EncryptionAlgorithms",
            "SigningAlgorithms",
            "KeyAgreementAlgorithms",
            "MultiRegionConfiguration",
            "PendingDeletionWindowInDays",
            "MacAlgorithms",
            "XksKeyConfiguration",
        ],
    ),
    ("AliasListEntry", &["CreationDate", "LastUpdatedDate"]),
    (
        "GrantListEntry",
        &[
            "GrantId",
            "Name",
            "CreationDate",
            "RetiringPrincipal",
            "Constraints",
        ],
    ),
];

#[test]
fn answers_have_the_members_types_and_order_of_the_model() {
    let mut w = full();
    let a = w.a.clone();
    let mut walk = Walk::new();
    let images = DescribeImagesRequest::default();
    walk.answer(
        "DescribeImagesResult",
        &w.s.describe_images(&a, &images, &w.fx).unwrap(),
    );
    let page = DescribeImagesRequest {
        max_results: Some(1),
        ..images
    };
    walk.answer(
        "DescribeImagesResult",
        &w.s.describe_images(&a, &page, &w.fx).unwrap(),
    );
    for most in [None, Some(1)] {
        let request = DescribeInstancesRequest {
            max_results: most,
            ..Default::default()
        };
        walk.answer(
            "DescribeInstancesResult",
            &w.s.describe_instances(&a, &request).unwrap(),
        );
        let request = DescribeSnapshotsRequest {
            max_results: most,
            ..Default::default()
        };
        walk.answer(
            "DescribeSnapshotsResult",
            &w.s.describe_snapshots(&a, &request).unwrap(),
        );
        let request = DescribeVolumesRequest {
            max_results: most,
            ..Default::default()
        };
        walk.answer(
            "DescribeVolumesResult",
            &w.s.describe_volumes(&a, &request).unwrap(),
        );
    }
    // What attaching and detaching answer.
    let instance =
        w.s.instances
            .values()
            .find(|i| i.state == InstanceState::Stopped)
            .unwrap()
            .clone();
    let request = DetachVolumeRequest {
        volume_id: instance.volumes[1].volume_id.to_string(),
        ..Default::default()
    };
    let was = w.s.detach_volume(&a, &request).unwrap();
    let volume = &w.s.volumes[&instance.volumes[1].volume_id];
    walk.answer(
        "VolumeAttachment",
        &volume.describe_attachment(&was, "detached"),
    );
    let request = AttachVolumeRequest {
        volume_id: request.volume_id,
        instance_id: instance.instance_id.to_string(),
        device: was.device.to_string(),
        dry_run: false,
    };
    let now = w.s.attach_volume(&a, &request, &w.fx).unwrap();
    let volume = &w.s.volumes[&instance.volumes[1].volume_id];
    walk.answer(
        "VolumeAttachment",
        &volume.describe_attachment(&now, "attached"),
    );
    let image =
        w.s.images
            .values()
            .find(|i| i.name == "base")
            .unwrap()
            .image_id
            .clone();
    let permissions = [
        LaunchPermission::All,
        LaunchPermission::OrganizationArn(
            "arn:aws:organizations::333333333333:organization/o-abcd1234".to_owned(),
        ),
        LaunchPermission::OrganizationalUnitArn(
            "arn:aws:organizations::333333333333:ou/o-abcd1234/ou-ab12-12345678".to_owned(),
        ),
    ];
    w.s.images
        .get_mut(&image)
        .unwrap()
        .launch_permissions
        .extend(permissions);
    for attribute in [
        "description",
        "kernel",
        "ramdisk",
        "launchPermission",
        "productCodes",
        "sriovNetSupport",
        "bootMode",
        "tpmSupport",
        "uefiData",
        "lastLaunchedTime",
        "imdsSupport",
        "deregistrationProtection",
    ] {
        let request = DescribeImageAttributeRequest {
            image_id: image.to_string(),
            attribute: attribute.to_owned(),
            dry_run: false,
        };
        walk.answer(
            "ImageAttribute",
            &w.s.describe_image_attribute(&a, &request, &w.fx).unwrap(),
        );
    }
    let keys = w.s.describe_keys(&a);
    for key in keys.keys.unwrap() {
        walk.answer("KeyMetadata", &key);
    }
    for alias in keys.aliases.unwrap() {
        walk.answer("AliasListEntry", &alias);
    }
    for grant in keys.grants.unwrap() {
        walk.answer("GrantListEntry", &grant);
    }
    assert!(walk.bad.is_empty(), "{}", walk.bad.join("\n"));
    // Every shape that was met, and of each the members that it never had.
    let met: BTreeSet<&str> = walk.seen.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = NOT_HERE.iter().map(|(name, _)| *name).collect();
    assert_eq!(met, listed);
    for (name, members) in NOT_HERE {
        assert_eq!(walk.unseen(name), *members, "{name}");
    }
}

#[test]
fn the_walk_finds_what_is_wrong() {
    for (answer, what) in [
        (serde_json::json!({"Images": [{"Colour": "red"}]}), "Colour"),
        (serde_json::json!({"Images": [{"State": "tired"}]}), "tired"),
        (
            serde_json::json!({"Images": [{"Public": "true"}]}),
            "Boolean",
        ),
        (serde_json::json!({"Images": {}}), "list"),
        (
            serde_json::json!({"Images": [{"Name": "b", "Description": "a"}]}),
            "out of order",
        ),
    ] {
        let mut walk = Walk::new();
        walk.answer("DescribeImagesResult", &answer);
        assert!(
            walk.bad.len() == 1 && walk.bad[0].contains(what),
            "{:?}",
            walk.bad
        );
    }
}

/// What others see of an image: not its tags, nor what is the owner's business.
#[test]
fn others_see_less() {
    let w = full();
    let result = w.s.describe_images(
        &w.b,
        &DescribeImagesRequest {
            include_deprecated: true,
            ..Default::default()
        },
        &w.fx,
    );
    let images = result.unwrap().images.unwrap();
    assert_eq!(images.len(), 1);
    let image = &images[0];
    assert_eq!(image.name.as_deref(), Some("base"));
    assert_eq!(image.owner_id.as_deref(), Some(A));
    assert_eq!(
        (
            &image.tags,
            &image.last_launched_time,
            &image.deregistration_protection
        ),
        (&None, &None, &None)
    );
}

/// Every filter of the lists is one, and what passes none passes no filter that excludes it.
#[test]
fn every_filter_is_known() {
    let w = full();
    let filters = |name: &&str| {
        vec![Filter {
            name: (*name).to_owned(),
            values: vec!["*".to_owned()],
        }]
    };
    let mut passed = 0;
    for name in describe::IMAGE_FILTERS {
        let request = DescribeImagesRequest {
            filters: filters(name),
            ..Default::default()
        };
        passed += usize::from(
            !w.s.describe_images(&w.a, &request, &w.fx)
                .unwrap()
                .images
                .unwrap()
                .is_empty(),
        );
    }
    for name in describe::SNAPSHOT_FILTERS {
        let request = DescribeSnapshotsRequest {
            filters: filters(name),
            ..Default::default()
        };
        passed += usize::from(
            !w.s.describe_snapshots(&w.a, &request)
                .unwrap()
                .snapshots
                .unwrap()
                .is_empty(),
        );
    }
    for name in describe::VOLUME_FILTERS {
        let request = DescribeVolumesRequest {
            filters: filters(name),
            ..Default::default()
        };
        passed += usize::from(
            !w.s.describe_volumes(&w.a, &request)
                .unwrap()
                .volumes
                .unwrap()
                .is_empty(),
        );
    }
    for name in describe::INSTANCE_FILTERS {
        let request = DescribeInstancesRequest {
            filters: filters(name),
            ..Default::default()
        };
        passed += usize::from(
            !w.s.describe_instances(&w.a, &request)
                .unwrap()
                .reservations
                .unwrap()
                .is_empty(),
        );
    }
    // All but those of things that are not here: owner aliases, kernels, Windows, free tier, public parameters.
    let all = describe::IMAGE_FILTERS.len()
        + describe::SNAPSHOT_FILTERS.len()
        + describe::VOLUME_FILTERS.len()
        + describe::INSTANCE_FILTERS.len();
    assert_eq!(all - passed, 7);
}
