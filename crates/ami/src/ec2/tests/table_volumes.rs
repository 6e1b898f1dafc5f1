//! Volumes by themselves: each rule and its code, and what is done when it is granted; what becomes of work that nobody ends.

use super::*;
use ErrorCode::*;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn zone() -> Option<String> {
    some("eu-central-1a")
}

fn create(w: &mut World, change: impl FnOnce(&mut CreateVolumeRequest)) -> Result<(), ApiError> {
    done(create_of(w, &mut once(change)))
}

fn create_of(
    w: &mut World,
    change: Change<'_, CreateVolumeRequest>,
) -> Result<NewVolume, ApiError> {
    let mut request = CreateVolumeRequest {
        availability_zone: zone(),
        size: Some(10),
        ..Default::default()
    };
    change(&mut request);
    w.s.create_volume(&w.a.clone(), &request, &mut w.fx)
}

/// A volume that is there.
fn made(w: &mut World) -> String {
    let id = create_of(w, &mut |_| {}).unwrap().volume_id;
    w.s.volume_created(&id).unwrap();
    id.to_string()
}

/// A stopped instance.
fn off(w: &mut World) -> String {
    let a = w.a.clone();
    let image = w.image(&a, "base");
    w.stopped(&a, &image)
}

fn attach_at(w: &mut World, volume: &str, instance: &str, device: &str) -> Result<(), ApiError> {
    let request = AttachVolumeRequest {
        volume_id: volume.to_owned(),
        instance_id: instance.to_owned(),
        device: device.to_owned(),
        dry_run: false,
    };
    done(w.s.attach_volume(&w.a.clone(), &request, &w.fx))
}

fn attach(w: &mut World, change: impl FnOnce(&mut AttachVolumeRequest)) -> Result<(), ApiError> {
    attach_of(w, &mut once(change))
}

fn attach_of(w: &mut World, change: Change<'_, AttachVolumeRequest>) -> Result<(), ApiError> {
    let mut request = AttachVolumeRequest {
        volume_id: made(w),
        instance_id: off(w),
        device: "/dev/sdf".into(),
        dry_run: false,
    };
    change(&mut request);
    done(w.s.attach_volume(&w.a.clone(), &request, &w.fx))
}

fn detach(w: &mut World, volume: &str) -> Result<(), ApiError> {
    let request = DetachVolumeRequest {
        volume_id: volume.to_owned(),
        ..Default::default()
    };
    done(w.s.detach_volume(&w.a.clone(), &request))
}

fn root_of(w: &World, instance: &str) -> String {
    w.s.instances[&instance.parse().unwrap()].volumes[0]
        .volume_id
        .to_string()
}

#[test]
fn creating_and_deleting() {
    let rows: &[Row] = &[
        (
            "zone is needed",
            |w| create(w, |r| r.availability_zone = None),
            MissingParameter,
        ),
        (
            "zone of the region",
            |w| create(w, |r| r.availability_zone = some("us-east-1a")),
            InvalidZoneNotFound,
        ),
        (
            "zone is one",
            |w| create(w, |r| r.availability_zone = some("eu-central-1")),
            InvalidZoneNotFound,
        ),
        (
            "size or snapshot",
            |w| create(w, |r| r.size = None),
            MissingParameter,
        ),
        (
            "size is not none",
            |w| create(w, |r| r.size = Some(0)),
            InvalidParameterValue,
        ),
        (
            "size of the type",
            |w| create(w, |r| r.size = Some(20_000)),
            InvalidParameterValue,
        ),
        (
            "type is one",
            |w| create(w, |r| r.volume_type = some("gp9")),
            UnknownVolumeType,
        ),
        (
            "iops are needed of io2",
            |w| create(w, |r| r.volume_type = some("io2")),
            MissingParameter,
        ),
        (
            "iops are not for gp2",
            |w| create(w, |r| r.iops = Some(3000)),
            InvalidParameterCombination,
        ),
        (
            "throughput is for gp3",
            |w| create(w, |r| r.throughput = Some(200)),
            InvalidParameterCombination,
        ),
        (
            "key needs encrypted",
            |w| create(w, |r| r.kms_key_id = some("alias/k")),
            InvalidParameterDependency,
        ),
        (
            "key is there",
            |w| {
                create(w, |r| {
                    r.encrypted = Some(true);
                    r.kms_key_id = some("alias/k");
                })
            },
            KmsNotFound,
        ),
        (
            "tags for volumes only",
            |w| {
                create(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("image", [("k", "v")])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "dry run",
            |w| create(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "snapshot id",
            |w| create(w, |r| r.snapshot_id = some("snap-1")),
            InvalidSnapshotIdMalformed,
        ),
        (
            "snapshot is there",
            |w| create(w, |r| r.snapshot_id = some("snap-01234567")),
            InvalidSnapshotNotFound,
        ),
        (
            "snapshot of another is not seen",
            |w| {
                let id = w.snap(&w.b.clone());
                create(w, |r| r.snapshot_id = Some(id))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "snapshot is complete",
            |w| {
                let id =
                    w.s.import_snapshot(&w.a, 8, None, Tags::new(), &mut w.fx)?
                        .to_string();
                create(w, |r| r.snapshot_id = Some(id))
            },
            IncorrectState,
        ),
        (
            "size of the snapshot",
            |w| {
                let id = w.snap(&w.a.clone());
                create(w, |r| {
                    r.snapshot_id = Some(id);
                    r.size = Some(7);
                })
            },
            InvalidParameterValue,
        ),
        (
            "encrypted stays encrypted",
            |w| {
                w.key(&w.a.clone(), "alias/k");
                let id = w.encrypted_snap(&w.a.clone(), "alias/k");
                create(w, |r| {
                    r.snapshot_id = Some(id);
                    r.encrypted = Some(false);
                })
            },
            InvalidParameterCombination,
        ),
        (
            "key of the snapshot is usable",
            |w| {
                let a = w.a.clone();
                let key = w.key(&a, "alias/k");
                let id = w.encrypted_snap(&a, "alias/k");
                w.s.set_key_enabled(&a, &key, false)?;
                create(w, |r| r.snapshot_id = Some(id))
            },
            KmsDisabled,
        ),
        (
            "made once",
            |w| {
                let id = made(w).parse().unwrap();
                w.s.volume_created(&id)
            },
            IncorrectState,
        ),
        (
            "not deleted while it is made",
            |w| {
                let id = create_of(w, &mut |_| {})?.volume_id.to_string();
                done(w.s.delete_volume(&w.a.clone(), &id))
            },
            IncorrectState,
        ),
        (
            "not deleted twice",
            |w| {
                let id = made(w);
                w.s.delete_volume(&w.a.clone(), &id)?;
                done(w.s.delete_volume(&w.a.clone(), &id))
            },
            InvalidVolumeNotFound,
        ),
        (
            "no snapshot while it is made",
            |w| {
                let id = create_of(w, &mut |_| {})?.volume_id.to_string();
                let request = CreateSnapshotRequest {
                    volume_id: id,
                    ..Default::default()
                };
                done(w.s.create_snapshot(&w.a.clone(), &request, &mut w.fx))
            },
            IncorrectState,
        ),
    ];
    check_rows(rows);
}

#[test]
fn attaching() {
    let rows: &[Row] = &[
        (
            "volume id",
            |w| attach(w, |r| r.volume_id = "vol-1".into()),
            InvalidVolumeIdMalformed,
        ),
        (
            "volume is needed",
            |w| attach(w, |r| r.volume_id.clear()),
            MissingParameter,
        ),
        (
            "volume is there",
            |w| attach(w, |r| r.volume_id = "vol-01234567".into()),
            InvalidVolumeNotFound,
        ),
        (
            "instance id",
            |w| attach(w, |r| r.instance_id = "i-1".into()),
            InvalidInstanceIdMalformed,
        ),
        (
            "instance is there",
            |w| attach(w, |r| r.instance_id = "i-01234567".into()),
            InvalidInstanceIdNotFound,
        ),
        (
            "device is needed",
            |w| attach(w, |r| r.device.clear()),
            MissingParameter,
        ),
        (
            "device is one",
            |w| attach(w, |r| r.device = "floppy".into()),
            InvalidParameterValue,
        ),
        (
            "dry run",
            |w| attach(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "of another account",
            |w| {
                let request = AttachVolumeRequest {
                    volume_id: made(w),
                    instance_id: off(w),
                    device: "/dev/sdf".into(),
                    dry_run: false,
                };
                done(w.s.attach_volume(&w.b.clone(), &request, &w.fx))
            },
            InvalidVolumeNotFound,
        ),
        (
            "attached once",
            |w| {
                let (volume, instance) = (made(w), off(w));
                attach_at(w, &volume, &instance, "/dev/sdf")?;
                attach_at(w, &volume, &instance, "/dev/sdg")
            },
            VolumeInUse,
        ),
        (
            "not while it is made",
            |w| {
                let volume = create_of(w, &mut |_| {})?.volume_id.to_string();
                let instance = off(w);
                attach_at(w, &volume, &instance, "/dev/sdf")
            },
            IncorrectState,
        ),
        (
            "not when it came to nothing",
            |w| {
                let volume = create_of(w, &mut |_| {})?.volume_id;
                w.s.fail_volume(&volume)?;
                let instance = off(w);
                attach_at(w, volume.as_str(), &instance, "/dev/sdf")
            },
            IncorrectState,
        ),
        (
            "zone of the instance",
            |w| {
                let volume = create_of(w, &mut |r| {
                    r.availability_zone = some("eu-central-1b");
                })?
                .volume_id;
                w.s.volume_created(&volume)?;
                let instance = off(w);
                attach_at(w, volume.as_str(), &instance, "/dev/sdf")
            },
            InvalidVolumeZoneMismatch,
        ),
        (
            "running",
            |w| {
                let a = w.a.clone();
                let (volume, image) = (made(w), w.image(&a, "base"));
                let instance = w.instance(&a, &image);
                attach_at(w, &volume, &instance, "/dev/sdf")
            },
            UnsupportedOperation,
        ),
        (
            "stopping",
            |w| {
                let a = w.a.clone();
                let (volume, image) = (made(w), w.image(&a, "base"));
                let instance = w.instance(&a, &image);
                w.s.stop_instances(&a, &ids(&instance), &w.fx)?;
                attach_at(w, &volume, &instance, "/dev/sdf")
            },
            IncorrectState,
        ),
        (
            "device is free",
            |w| attach(w, |r| r.device = "/dev/xvda".into()),
            InvalidParameterValue,
        ),
        (
            "device by its other name is free",
            |w| attach(w, |r| r.device = "/dev/sda1".into()),
            InvalidParameterValue,
        ),
        (
            "number of disks",
            |w| {
                let instance = off(w);
                for letter in 'b'..='z' {
                    let volume = made(w);
                    attach_at(w, &volume, &instance, &format!("/dev/xvd{letter}"))?;
                }
                let volume = made(w);
                attach_at(w, &volume, &instance, "/dev/xvdba")
            },
            AttachmentLimitExceeded,
        ),
        (
            "key is usable",
            |w| {
                let a = w.a.clone();
                let key = w.key(&a, "alias/k");
                let volume = create_of(w, &mut |r| {
                    r.encrypted = Some(true);
                    r.kms_key_id = some("alias/k");
                })?
                .volume_id;
                w.s.volume_created(&volume)?;
                let instance = off(w);
                w.s.set_key_enabled(&a, &key, false)?;
                attach_at(w, volume.as_str(), &instance, "/dev/sdf")
            },
            KmsDisabled,
        ),
    ];
    check_rows(rows);
}

#[test]
fn detaching_and_doing_without() {
    let rows: &[Row] = &[
        (
            "volume id",
            |w| detach(w, "vol-1"),
            InvalidVolumeIdMalformed,
        ),
        (
            "volume is there",
            |w| detach(w, "vol-01234567"),
            InvalidVolumeNotFound,
        ),
        (
            "dry run",
            |w| {
                let request = DetachVolumeRequest {
                    volume_id: "vol-01234567".into(),
                    dry_run: true,
                    ..Default::default()
                };
                done(w.s.detach_volume(&w.a.clone(), &request))
            },
            DryRunOperation,
        ),
        (
            "attached to nothing",
            |w| {
                let volume = made(w);
                detach(w, &volume)
            },
            IncorrectState,
        ),
        (
            "of another instance",
            |w| {
                let instance = off(w);
                let request = DetachVolumeRequest {
                    volume_id: root_of(w, &instance),
                    instance_id: some("i-01234567"),
                    ..Default::default()
                };
                done(w.s.detach_volume(&w.a.clone(), &request))
            },
            InvalidAttachmentNotFound,
        ),
        (
            "at another device",
            |w| {
                let instance = off(w);
                let request = DetachVolumeRequest {
                    volume_id: root_of(w, &instance),
                    device: some("/dev/sdf"),
                    ..Default::default()
                };
                done(w.s.detach_volume(&w.a.clone(), &request))
            },
            InvalidAttachmentNotFound,
        ),
        (
            "root of a running one",
            |w| {
                let a = w.a.clone();
                let image = w.image(&a, "base");
                let instance = w.instance(&a, &image);
                let root = root_of(w, &instance);
                detach(w, &root)
            },
            OperationNotPermitted,
        ),
        (
            "another of a running one",
            |w| {
                let a = w.a.clone();
                let (volume, instance) = (made(w), off(w));
                attach_at(w, &volume, &instance, "/dev/sdf")?;
                w.s.start_instances(&a, &ids(&instance), &w.fx)?;
                w.s.instance_running(&instance.parse().unwrap())?;
                detach(w, &volume)
            },
            UnsupportedOperation,
        ),
        (
            "no start without a root",
            |w| {
                let instance = off(w);
                let root = root_of(w, &instance);
                detach(w, &root)?;
                done(w.s.start_instances(&w.a.clone(), &ids(&instance), &w.fx))
            },
            IncorrectInstanceState,
        ),
        (
            "no image without a root",
            |w| {
                let instance = off(w);
                let root = root_of(w, &instance);
                detach(w, &root)?;
                done(w.create(&w.a.clone(), &instance, |_| {}))
            },
            IncorrectInstanceState,
        ),
    ];
    check_rows(rows);
}

#[test]
fn a_volume_goes_from_one_instance_to_another() {
    let mut w = World::new();
    let a = w.a.clone();
    let (first, image) = (off(&mut w), w.image(&a, "other"));
    let second = w.stopped(&a, &image);
    let root = root_of(&w, &first);
    detach(&mut w, &root).unwrap();
    assert_eq!(w.s.check(), Vec::<String>::new());
    // At another device it is a volume among others, and stays when the instance goes.
    w.fx.now += 60;
    attach_at(&mut w, &root, &second, "/dev/sdf").unwrap();
    let described = w.s.describe_volumes(&a, &DescribeVolumesRequest::default());
    let attached = described
        .unwrap()
        .volumes
        .unwrap()
        .into_iter()
        .find(|v| v.volume_id.as_deref() == Some(root.as_str()))
        .unwrap();
    let attachment = &attached.attachments.unwrap()[0];
    assert_eq!(
        (
            attachment.instance_id.as_deref(),
            attachment.device.as_deref()
        ),
        (Some(second.as_str()), Some("/dev/sdf"))
    );
    assert_ne!(attachment.attach_time, attached.create_time);
    detach(&mut w, &root).unwrap();
    // Back at the root's name it is the root, in front of what came meanwhile.
    let more = made(&mut w);
    attach_at(&mut w, &more, &first, "/dev/sdf").unwrap();
    attach_at(&mut w, &root, &first, "/dev/xvda").unwrap();
    assert_eq!(root_of(&w, &first), root);
    assert_eq!(w.s.check(), Vec::<String>::new());
    w.s.start_instances(&a, &ids(&first), &w.fx).unwrap();
    w.s.instance_running(&first.parse().unwrap()).unwrap();
    w.s.terminate_instances(&a, &ids(&first), &w.fx).unwrap();
    let left =
        w.s.instance_terminated(&first.parse().unwrap(), &w.fx)
            .unwrap();
    let kept: Vec<String> = left.kept.iter().map(ToString::to_string).collect();
    assert_eq!(kept, [root, more]);
    assert_eq!(w.s.check(), Vec::<String>::new());
}

#[test]
fn volumes_are_encrypted_as_those_of_launches_are() {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let key = w.key(&a, "alias/k");
    let snapshot = w.encrypted_snap(&a, "alias/k");
    let of = |w: &mut World, who: &Caller, snapshot: &str| {
        let request = CreateVolumeRequest {
            availability_zone: zone(),
            snapshot_id: Some(snapshot.to_owned()),
            ..Default::default()
        };
        w.s.create_volume(who, &request, &mut w.fx).unwrap()
    };
    let own = of(&mut w, &a, &snapshot);
    let record = &w.s.snapshots[&snapshot.parse().unwrap()];
    assert_eq!(
        (own.encryption.as_ref(), own.new_data_key, own.size),
        (record.encryption.as_ref(), false, 8)
    );
    // Another account's: under a key of its own, with a data key of its own.
    w.s.grant_key(&a, &key, &b.account).unwrap();
    w.share_snapshot(&a, &snapshot, B).unwrap();
    let theirs = of(&mut w, &b, &snapshot);
    assert!(theirs.new_data_key);
    assert_ne!(theirs.encryption.unwrap().key_id.to_string(), key);
    // By default.
    w.settings(&a).encryption_by_default = true;
    assert!(create_of(&mut w, &mut |_| {}).unwrap().new_data_key);
    assert_eq!(w.s.check(), Vec::<String>::new());
}

#[test]
fn work_without_a_maker_has_failed() {
    let mut w = World::new();
    let a = w.a.clone();
    w.key(&a, "alias/k");
    let image = w.image(&a, "base");
    let copy = w
        .copy(&a, &image, HERE, |r| {
            r.encrypted = Some(true);
            r.kms_key_id = some("alias/k");
        })
        .unwrap();
    let instance = w.stopped(&a, &image);
    let created = w.create(&a, &instance, |_| {}).unwrap();
    let import =
        w.s.import_snapshot(&a, 1, None, Tags::new(), &mut w.fx)
            .unwrap();
    let volume = create_of(&mut w, &mut |_| {}).unwrap().volume_id;
    let mut works = w.s.pending_works();
    let mut wanted = vec![
        Pending::Image(copy.image_id.clone()),
        Pending::Image(created.image_id.clone()),
        Pending::Snapshot(import.clone()),
        Pending::Volume(volume.clone()),
    ];
    works.sort();
    wanted.sort();
    // Snapshots of images that are being made go with these.
    assert_eq!(works, wanted);
    for work in &works {
        w.s.abandon(work);
        // Again, and when it has ended: nothing.
        w.s.abandon(work);
    }
    assert_eq!(w.s.pending_works(), []);
    assert_eq!(w.s.check(), Vec::<String>::new());
    let record = &w.s.images[&copy.image_id];
    assert_eq!(record.state, ImageState::Failed);
    let reason = record.state_reason.clone().unwrap();
    assert_eq!(reason.code, "Server.InternalError");
    for snapshot in [
        &import,
        &copy.snapshots[0].to,
        &created.snapshots[0].snapshot_id,
    ] {
        let record = &w.s.snapshots[snapshot];
        assert_eq!(record.state, SnapshotState::Error);
        assert_eq!(record.state_message.as_ref(), Some(&reason.message));
    }
    assert_eq!(w.s.volumes[&volume].state, VolumeState::Error);
    w.s.delete_volume(&a, volume.as_str()).unwrap();
    // The name is free for another attempt.
    w.copy(&a, &image, HERE, |_| {}).unwrap();
}
