//! Running instances and what they go through: each rule and its code.

use super::*;
use ErrorCode::*;

fn run(w: &mut World, change: impl FnOnce(&mut RunInstancesRequest)) -> Result<(), ApiError> {
    run_of(w, &mut once(change))
}

fn run_of(w: &mut World, change: Change<'_, RunInstancesRequest>) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    done(w.run(&a, &id, change))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn map(w: &mut World, mapping: MappingRequest) -> Result<(), ApiError> {
    run(w, |r| r.block_device_mappings = vec![mapping])
}

fn metadata(change: impl FnOnce(&mut MetadataOptionsRequest)) -> Option<MetadataOptionsRequest> {
    let mut options = MetadataOptionsRequest::default();
    change(&mut options);
    Some(options)
}

/// An image of a boot mode, run on a type.
fn boot(
    w: &mut World,
    architecture: &str,
    mode: Option<&str>,
    kind: &str,
) -> Result<RunInstances, ApiError> {
    let a = w.a.clone();
    let mut request = register("base", &w.snap(&a));
    request.boot_mode = mode.map(str::to_owned);
    request.architecture = some(architecture);
    let id =
        w.s.register_image(&a, &request, None, &mut w.fx)?
            .to_string();
    w.run(&a, &id, |r| r.instance_type = some(kind))
}

#[test]
fn running() {
    let rows: &[Row] = &[
        (
            "4.7 image id",
            |w| run(w, |r| r.image_id = "foo".into()),
            InvalidAmiIdMalformed,
        ),
        (
            "4.7 image id is needed",
            |w| run(w, |r| r.image_id = String::new()),
            MissingParameter,
        ),
        (
            "4.7 image is there",
            |w| run(w, |r| r.image_id = "ami-01234567".into()),
            InvalidAmiIdNotFound,
        ),
        (
            "4.7 image is not seen",
            |w| {
                let id = w.image(&w.b.clone(), "base");
                done(w.run(&w.a.clone(), &id, |_| {}))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.7 image of another region",
            |w| {
                let id = w.image(&w.far.clone(), "base");
                done(w.run(&w.a.clone(), &id, |_| {}))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.7 deregistered",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                done(w.run(&a, &id, |_| {}))
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "4.5 disabled",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.disable_image(&a, &super::image(&id), &w.fx)?;
                done(w.run(&a, &id, |_| {}))
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "4.5 disabled, of another",
            |w| {
                let id = w.image(&w.b.clone(), "base");
                w.share(&w.b.clone(), &id, A);
                w.s.disable_image(&w.b.clone(), &super::image(&id), &w.fx)?;
                done(w.run(&w.a.clone(), &id, |_| {}))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.1 pending",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w
                    .copy(&a, &id, HERE, |r| r.encrypted = Some(true))?
                    .image_id;
                done(w.run(&a, id.as_str(), |_| {}))
            },
            InvalidAmiIdUnavailable,
        ),
        ("dry run", |w| run(w, |r| r.dry_run = true), DryRunOperation),
        (
            "type is known",
            |w| run(w, |r| r.instance_type = some("t9.huge")),
            InvalidInstanceType,
        ),
        (
            "type has the architecture",
            |w| run(w, |r| r.instance_type = some("t4g.micro")),
            InvalidParameterValue,
        ),
        (
            "1.3 uefi on a BIOS type",
            |w| done(boot(w, "x86_64", Some("uefi"), "t2.micro")),
            UnsupportedOperation,
        ),
        (
            "1.3 legacy-bios on Graviton",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let record = w.s.images.get_mut(&id.parse().unwrap()).unwrap();
                record.architecture = amiforge_types::Arch::Arm64;
                record.boot_mode = Some(crate::BootMode::LegacyBios);
                done(w.run(&a, &id, |r| r.instance_type = some("t4g.micro")))
            },
            UnsupportedOperation,
        ),
        (
            "key pair is there",
            |w| run(w, |r| r.key_name = some("mine")),
            InvalidKeyPairNotFound,
        ),
        (
            "a public key is one line",
            |w| run(w, |r| r.public_key = some("ssh-ed25519 A\nssh-ed25519 B")),
            InvalidParameterValue,
        ),
        (
            "user data is base64",
            |w| run(w, |r| r.user_data = some("#!/bin/sh")),
            InvalidUserDataMalformed,
        ),
        (
            "user data is short",
            |w| run(w, |r| r.user_data = Some("A".repeat(21_848))),
            InvalidUserDataMalformed,
        ),
        (
            "counts",
            |w| run(w, |r| r.min_count = Some(0)),
            InvalidParameterValue,
        ),
        (
            "counts in order",
            |w| {
                run(w, |r| {
                    r.min_count = Some(3);
                    r.max_count = Some(2);
                })
            },
            InvalidParameterValue,
        ),
        (
            "counts have an end",
            |w| run(w, |r| r.max_count = Some(1000)),
            InvalidParameterValue,
        ),
        (
            "ports of one instance",
            |w| {
                run(w, |r| {
                    r.max_count = Some(2);
                    r.ports = vec![port(1, 1)];
                })
            },
            InvalidParameterCombination,
        ),
        (
            "ports of the host are different",
            |w| run(w, |r| r.ports = vec![port(1, 1), port(1, 2)]),
            InvalidParameterValue,
        ),
        (
            "zone of the region",
            |w| {
                run(w, |r| {
                    r.placement = Some(Placement {
                        availability_zone: some("us-east-1a"),
                    })
                })
            },
            InvalidParameterValue,
        ),
        (
            "shutdown behaviour",
            |w| {
                run(w, |r| {
                    r.instance_initiated_shutdown_behavior = some("explode")
                })
            },
            InvalidParameterValue,
        ),
        (
            "private address",
            |w| run(w, |r| r.private_ip_address = some("home")),
            InvalidParameterValue,
        ),
        (
            "processors",
            |w| run(w, |r| r.cpus = Some(0)),
            InvalidParameterValue,
        ),
        (
            "memory",
            |w| run(w, |r| r.memory_mib = Some(1)),
            InvalidParameterValue,
        ),
        (
            "tags of instances and volumes",
            |w| {
                run(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("image", [("k", "v")])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "tokens",
            |w| {
                run(w, |r| {
                    r.metadata_options = metadata(|o| o.http_tokens = some("never"))
                })
            },
            InvalidParameterValue,
        ),
        (
            "hops",
            |w| {
                run(w, |r| {
                    r.metadata_options = metadata(|o| o.http_put_response_hop_limit = Some(65))
                })
            },
            InvalidParameterValue,
        ),
        (
            "hops are at least one",
            |w| {
                run(w, |r| {
                    r.metadata_options = metadata(|o| o.http_put_response_hop_limit = Some(0))
                })
            },
            InvalidParameterValue,
        ),
        (
            "endpoint",
            |w| {
                run(w, |r| {
                    r.metadata_options = metadata(|o| o.http_endpoint = some("on"))
                })
            },
            InvalidParameterValue,
        ),
        (
            "2.4 an entry has a target",
            |w| {
                map(
                    w,
                    MappingRequest {
                        device_name: "/dev/sdf".into(),
                        ..Default::default()
                    },
                )
            },
            MissingParameter,
        ),
        (
            "2.4 a new volume has a size",
            |w| map(w, at("/dev/sdf", EbsRequest::default())),
            MissingParameter,
        ),
        (
            "2.1 sizes only grow",
            |w| map(w, at("/dev/xvda", sized(4))),
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 the root stays",
            |w| map(w, no_device("/dev/xvda")),
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 the root is no instance store volume",
            |w| map(w, ephemeral("/dev/xvda", "ephemeral0")),
            InvalidBlockDeviceMapping,
        ),
        (
            "2.1 the root's snapshot stays",
            |w| {
                let s = w.snap(&w.a.clone());
                map(w, at("/dev/xvda", ebs(&s)))
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "2.2 devices do not clash",
            |w| map(w, at("/dev/sda", sized(1))),
            InvalidBlockDeviceMapping,
        ),
        (
            "2.2 device name",
            |w| map(w, at("/dev/foo", sized(1))),
            InvalidBlockDeviceMapping,
        ),
        (
            "4.7 snapshot id",
            |w| map(w, at("/dev/sdf", ebs("snap-x"))),
            InvalidSnapshotIdMalformed,
        ),
        (
            "4.7 snapshot is there",
            |w| map(w, at("/dev/sdf", ebs("snap-01234567"))),
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 snapshot is not shared",
            |w| {
                let s = w.snap(&w.b.clone());
                map(w, at("/dev/sdf", ebs(&s)))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 snapshot is complete",
            |w| {
                let s =
                    w.s.import_snapshot(&w.a, 1, None, Tags::new(), &mut w.fx)?
                        .to_string();
                map(w, at("/dev/sdf", ebs(&s)))
            },
            IncorrectState,
        ),
        (
            "2.4 type can boot",
            |w| {
                map(
                    w,
                    at(
                        "/dev/xvda",
                        EbsRequest {
                            volume_type: some("sc1"),
                            ..sized(200)
                        },
                    ),
                )
            },
            BootForVolumeTypeUnsupported,
        ),
        (
            "2.4 type is known",
            |w| {
                map(
                    w,
                    at(
                        "/dev/xvda",
                        EbsRequest {
                            volume_type: some("ssd"),
                            ..Default::default()
                        },
                    ),
                )
            },
            UnknownVolumeType,
        ),
        (
            "2.4 size of the type",
            |w| map(w, at("/dev/sdf", sized(16_385))),
            InvalidParameterValue,
        ),
        (
            "2.4 iops of io1",
            |w| {
                map(
                    w,
                    at(
                        "/dev/xvda",
                        EbsRequest {
                            volume_type: some("io1"),
                            ..Default::default()
                        },
                    ),
                )
            },
            MissingParameter,
        ),
        (
            "2.3 key needs encrypted",
            |w| {
                map(
                    w,
                    at(
                        "/dev/xvda",
                        EbsRequest {
                            kms_key_id: some("alias/k"),
                            ..Default::default()
                        },
                    ),
                )
            },
            InvalidParameterDependency,
        ),
        (
            "2.3 key is there",
            |w| {
                map(
                    w,
                    at(
                        "/dev/xvda",
                        EbsRequest {
                            encrypted: Some(true),
                            kms_key_id: some("alias/k"),
                            ..Default::default()
                        },
                    ),
                )
            },
            KmsNotFound,
        ),
        (
            "2.3 encrypted stays encrypted",
            |w| {
                let a = w.a.clone();
                w.key(&a, "alias/k");
                let s = w.encrypted_snap(&a, "alias/k");
                let id = w.image_of(&a, "base", &s);
                done(w.run(&a, &id, |r| {
                    r.block_device_mappings = vec![at(
                        "/dev/xvda",
                        EbsRequest {
                            encrypted: Some(false),
                            ..Default::default()
                        },
                    )]
                }))
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "4.4 key of a shared image is shared, too",
            |w| {
                let a = w.a.clone();
                w.key(&a, "alias/k");
                let s = w.encrypted_snap(&a, "alias/k");
                let id = w.image_of(&a, "base", &s);
                w.share(&a, &id, B);
                done(w.run(&w.b.clone(), &id, |_| {}))
            },
            KmsAccessDenied,
        ),
        (
            "4.3 key is enabled",
            |w| {
                let a = w.a.clone();
                w.key(&a, "alias/k");
                let s = w.encrypted_snap(&a, "alias/k");
                let id = w.image_of(&a, "base", &s);
                w.s.set_key_enabled(&a, "alias/k", false)?;
                done(w.run(&a, &id, |_| {}))
            },
            KmsDisabled,
        ),
        (
            "5 a bundle needs a type for it",
            |w| {
                let id = w.bundle(&w.a.clone(), "base", 1)?;
                done(w.run(&w.a.clone(), &id, |r| r.instance_type = some("t3.micro")))
            },
            UnsupportedOperation,
        ),
        (
            "5 the root comes from the bundle",
            |w| {
                let id = w.bundle(&w.a.clone(), "base", 1)?;
                done(w.run(&w.a.clone(), &id, |r| {
                    r.block_device_mappings = vec![at("/dev/xvda", sized(20))]
                }))
            },
            InvalidBlockDeviceMapping,
        ),
        (
            "other parameters, same token",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.run(&a, &id, |r| r.client_token = some("t"))?;
                done(w.run(&a, &id, |r| {
                    r.client_token = some("t");
                    r.cpus = Some(1);
                }))
            },
            IdempotentParameterMismatch,
        ),
    ];
    check_rows(rows);
}

fn port(host: u16, guest: u16) -> PortForward {
    PortForward {
        host,
        guest,
        any_host: false,
    }
}

/// A running instance of an image.
fn running_instance(w: &mut World) -> String {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    w.instance(&a, &id)
}

#[test]
fn transitions() {
    let rows: &[Row] = &[
        (
            "no instances",
            |w| done(w.s.stop_instances(&w.a.clone(), &InstancesRequest::default(), &w.fx)),
            MissingParameter,
        ),
        (
            "id",
            |w| done(w.s.stop_instances(&w.a.clone(), &ids("i-x"), &w.fx)),
            InvalidInstanceIdMalformed,
        ),
        (
            "is there",
            |w| done(w.s.stop_instances(&w.a.clone(), &ids("i-01234567"), &w.fx)),
            InvalidInstanceIdNotFound,
        ),
        (
            "of another",
            |w| {
                let id = running_instance(w);
                done(w.s.terminate_instances(&w.b.clone(), &ids(&id), &w.fx))
            },
            InvalidInstanceIdNotFound,
        ),
        (
            "dry run",
            |w| {
                let id = running_instance(w);
                done(w.s.stop_instances(
                    &w.a.clone(),
                    &InstancesRequest {
                        dry_run: true,
                        ..ids(&id)
                    },
                    &w.fx,
                ))
            },
            DryRunOperation,
        ),
        (
            "stopping what is pending",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w.run(&a, &id, |_| {})?.launches[0].instance_id.to_string();
                done(w.s.stop_instances(&a, &ids(&id), &w.fx))
            },
            IncorrectInstanceState,
        ),
        (
            "rebooting what is stopped",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w.stopped(&a, &id);
                done(w.s.reboot_instances(&a, &ids(&id)))
            },
            IncorrectInstanceState,
        ),
        (
            "starting what is stopping",
            |w| {
                let a = w.a.clone();
                let id = running_instance(w);
                w.s.stop_instances(&a, &ids(&id), &w.fx)?;
                done(w.s.start_instances(&a, &ids(&id), &w.fx))
            },
            IncorrectInstanceState,
        ),
        (
            "starting what is terminated",
            |w| {
                let a = w.a.clone();
                let id = running_instance(w);
                w.s.terminate_instances(&a, &ids(&id), &w.fx)?;
                w.s.instance_terminated(&id.parse().unwrap(), &w.fx)?;
                done(w.s.start_instances(&a, &ids(&id), &w.fx))
            },
            IncorrectInstanceState,
        ),
        (
            "5 an instance store does not stop",
            |w| {
                let a = w.a.clone();
                let id = w.bundle(&a, "base", 1)?;
                let id = w.instance(&a, &id);
                done(w.s.stop_instances(&a, &ids(&id), &w.fx))
            },
            UnsupportedOperation,
        ),
        (
            "5 an instance store keeps its user data",
            |w| {
                let a = w.a.clone();
                let id = w.bundle(&a, "base", 1)?;
                let id = w.instance(&a, &id);
                w.s.modify_instance(
                    &a,
                    &ModifyInstanceRequest {
                        instance_id: id,
                        user_data: some("aGk="),
                        ..Default::default()
                    },
                )
            },
            UnsupportedOperation,
        ),
        (
            "protected against termination",
            |w| {
                let a = w.a.clone();
                let id = running_instance(w);
                w.s.modify_instance(
                    &a,
                    &ModifyInstanceRequest {
                        instance_id: id.clone(),
                        disable_api_termination: Some(true),
                        ..Default::default()
                    },
                )?;
                done(w.s.terminate_instances(&a, &ids(&id), &w.fx))
            },
            OperationNotPermitted,
        ),
        (
            "user data changes when stopped",
            |w| {
                let a = w.a.clone();
                let id = running_instance(w);
                w.s.modify_instance(
                    &a,
                    &ModifyInstanceRequest {
                        instance_id: id,
                        user_data: some("aGk="),
                        ..Default::default()
                    },
                )
            },
            IncorrectInstanceState,
        ),
        (
            "one attribute",
            |w| {
                let id = running_instance(w);
                w.s.modify_instance(
                    &w.a.clone(),
                    &ModifyInstanceRequest {
                        instance_id: id,
                        ..Default::default()
                    },
                )
            },
            MissingParameter,
        ),
        (
            "type of the architecture",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w.stopped(&a, &id);
                w.s.modify_instance(
                    &a,
                    &ModifyInstanceRequest {
                        instance_id: id,
                        instance_type: some("t4g.micro"),
                        ..Default::default()
                    },
                )
            },
            InvalidParameterValue,
        ),
        (
            "the key of a stopped instance is gone",
            |w| {
                let a = w.a.clone();
                w.key(&a, "alias/k");
                let s = w.encrypted_snap(&a, "alias/k");
                let id = w.image_of(&a, "base", &s);
                let id = w.stopped(&a, &id);
                w.s.set_key_enabled(&a, "alias/k", false)?;
                done(w.s.start_instances(&a, &ids(&id), &w.fx))
            },
            KmsDisabled,
        ),
        (
            "a volume that is attached",
            |w| {
                let id = running_instance(w);
                let volume = w.s.instances[&id.parse().unwrap()].volumes[0]
                    .volume_id
                    .to_string();
                done(w.s.delete_volume(&w.a.clone(), &volume))
            },
            VolumeInUse,
        ),
        (
            "a volume of another",
            |w| {
                let id = running_instance(w);
                let volume = w.s.instances[&id.parse().unwrap()].volumes[0]
                    .volume_id
                    .to_string();
                done(w.s.delete_volume(&w.b.clone(), &volume))
            },
            InvalidVolumeNotFound,
        ),
        (
            "none is changed when one may not be",
            |w| {
                let a = w.a.clone();
                let id = running_instance(w);
                let both = InstancesRequest {
                    instance_ids: vec![id.clone(), "i-01234567".into()],
                    ..Default::default()
                };
                let result = w.s.stop_instances(&a, &both, &w.fx);
                assert_eq!(
                    w.s.instances[&id.parse().unwrap()].state,
                    InstanceState::Running
                );
                done(result)
            },
            InvalidInstanceIdNotFound,
        ),
    ];
    check_rows(rows);
}

/// Table 1.3: boot mode, instance type, firmware; an absent firmware is a refusal.
#[test]
fn effective_boot_mode() {
    use crate::Firmware::{Bios, Uefi};
    for (mode, architecture, kind, firmware) in [
        (Some("uefi"), "x86_64", "t3.micro", Some(Uefi)),
        (Some("uefi"), "x86_64", "t2.micro", None),
        (Some("legacy-bios"), "x86_64", "t3.micro", Some(Bios)),
        (Some("legacy-bios"), "x86_64", "t2.micro", Some(Bios)),
        (Some("uefi-preferred"), "x86_64", "t3.micro", Some(Uefi)),
        (Some("uefi-preferred"), "x86_64", "t2.micro", Some(Bios)),
        (Some("uefi-preferred"), "x86_64", "m5.metal", Some(Bios)),
        (Some("uefi"), "x86_64", "g4ad.xlarge", None),
        (Some("uefi"), "arm64", "t4g.micro", Some(Uefi)),
        (None, "arm64", "m6g.medium", Some(Uefi)),
        (None, "x86_64", "m7i.large", Some(Bios)),
        (None, "x86_64", "t2.micro", Some(Bios)),
    ] {
        let mut w = World::new();
        let result = boot(&mut w, architecture, mode, kind);
        match (result, firmware) {
            (Ok(run), Some(firmware)) => {
                assert_eq!(
                    w.s.instances[&run.launches[0].instance_id].firmware, firmware,
                    "{mode:?} {kind}"
                );
            }
            (Err(error), None) => assert_eq!(error.code, UnsupportedOperation, "{mode:?} {kind}"),
            (other, _) => panic!("{mode:?} {kind}: {other:?}"),
        }
    }
}
