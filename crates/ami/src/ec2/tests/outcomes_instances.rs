//! What requests about instances and keys do when they are granted.

use super::*;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn good(w: &World) {
    assert_eq!(w.s.check(), Vec::<String>::new());
}

#[test]
fn instances_get_what_was_asked_for() {
    let mut w = World::new();
    let a = w.a.clone();
    let mut request = register("base", &w.snap(&a));
    request.imds_support = some("v2.0");
    request.block_device_mappings.push(at("/dev/sdf", sized(3)));
    request
        .block_device_mappings
        .push(ephemeral("/dev/sdg", "ephemeral0"));
    let id =
        w.s.register_image(&a, &request, None, &mut w.fx)
            .unwrap()
            .to_string();
    let run = w
        .run(&a, &id, |r| {
            r.instance_type = some("m5d.large");
            r.max_count = Some(2);
            r.client_token = some("t");
            r.disable_api_termination = false;
            r.block_device_mappings = vec![
                at(
                    "/dev/xvda",
                    EbsRequest {
                        delete_on_termination: Some(false),
                        volume_type: some("gp3"),
                        iops: Some(4000),
                        ..sized(20)
                    },
                ),
                no_device("/dev/sdf"),
                at(
                    "/dev/sdh",
                    EbsRequest {
                        encrypted: Some(true),
                        ..sized(1)
                    },
                ),
                ephemeral("/dev/sdi", "ephemeral1"),
            ];
            r.metadata_options = Some(MetadataOptionsRequest {
                http_tokens: some("optional"),
                ..Default::default()
            });
            r.tag_specifications = vec![
                TagSpecification::new("instance", [("Name", "web")]),
                TagSpecification::new("volume", [("v", "1")]),
            ];
        })
        .unwrap();
    assert_eq!(run.launches.len(), 2);
    assert_eq!(
        run.ignored
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["/dev/sdi"]
    );
    let first = &w.s.instances[&run.launches[0].instance_id];
    let second = &w.s.instances[&run.launches[1].instance_id];
    assert_ne!(
        (&first.mac, &first.private_ip),
        (&second.mac, &second.private_ip)
    );
    // What lies between 172.31 and the metadata service's address would be out of reach.
    assert!(
        first.private_ip.starts_with("169.255."),
        "{}",
        first.private_ip
    );
    assert_eq!((first.ami_launch_index, second.ami_launch_index), (0, 1));
    assert_eq!((first.cpus, first.memory_mib), (2, 8192));
    assert_eq!(first.metadata_options.http_tokens, HttpTokens::Optional);
    assert_eq!(first.metadata_options.http_put_response_hop_limit, 2);
    assert_eq!(
        first
            .ephemeral
            .iter()
            .map(|e| (e.device.to_string(), e.size))
            .collect::<Vec<_>>(),
        [("/dev/sdg".to_owned(), 70)]
    );
    let devices: Vec<_> = first.volumes.iter().map(|v| v.device.to_string()).collect();
    assert_eq!(devices, ["/dev/xvda", "/dev/sdh"]);
    let root = &w.s.volumes[&first.volumes[0].volume_id];
    assert_eq!(
        (
            root.size,
            root.iops,
            root.base.is_some(),
            root.tags["v"].as_str()
        ),
        (20, Some(4000), true, "1")
    );
    assert!(!root.attachment.as_ref().unwrap().delete_on_termination);
    assert!(run.launches[0].volumes[1].new_data_key);
    assert_eq!(run.launches[0].volumes[1].source, VolumeSource::Empty);
    assert_ne!(
        run.launches[0].volumes[1].encryption,
        run.launches[1].volumes[1].encryption
    );
    assert!(w.record(&id).last_launched_time.is_some());
    // Terminated: the root stays, as asked, and the other one, as all but the root do by default.
    let instance = run.launches[0].instance_id.clone();
    w.s.instance_running(&instance).unwrap();
    w.s.terminate_instances(&a, &ids(instance.as_str()), &w.fx)
        .unwrap();
    let left = w.s.instance_terminated(&instance, &w.fx).unwrap();
    assert_eq!(
        (left.deleted.len(), left.kept.len(), left.ephemeral.len()),
        (0, 2, 1)
    );
    w.s.delete_volume(&a, left.kept[0].as_str()).unwrap();
    // Without a word: IMDSv2 as the image says.
    let run = w.run(&a, &id, |_| {}).unwrap();
    let options = w.s.instances[&run.launches[0].instance_id].metadata_options;
    assert_eq!(
        (options.http_tokens, options.http_put_response_hop_limit),
        (HttpTokens::Required, 2)
    );
    good(&w);
}

#[test]
fn a_client_token_launches_once() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let token = |r: &mut RunInstancesRequest| r.client_token = some("t");
    let first = w.run(&a, &id, token).unwrap();
    let again = w.run(&a, &id, token).unwrap();
    assert!(again.repeated);
    assert_eq!(again.reservation_id, first.reservation_id);
    assert_eq!(w.s.instances.len(), 1);
}

#[test]
fn the_life_of_an_instance() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let instance = w.instance(&a, &id);
    let key = instance.parse().unwrap();
    let change = w.s.stop_instances(&a, &ids(&instance), &w.fx).unwrap();
    assert_eq!(
        (change[0].previous_state, change[0].current_state),
        (InstanceState::Running, InstanceState::Stopping)
    );
    w.s.instance_stopped(&key).unwrap();
    let record = &w.s.instances[&key];
    assert_eq!(
        record.state_reason.as_ref().unwrap().code,
        "Client.UserInitiatedShutdown"
    );
    assert_eq!(
        record.state_transition_reason,
        "User initiated (2026-11-27 17:20:00 GMT)"
    );
    // Stopped: another type and user data.
    for request in [
        ModifyInstanceRequest {
            instance_type: some("t3.large"),
            ..Default::default()
        },
        ModifyInstanceRequest {
            user_data: some("aGVsbG8="),
            ..Default::default()
        },
    ] {
        w.s.modify_instance(
            &a,
            &ModifyInstanceRequest {
                instance_id: instance.clone(),
                ..request
            },
        )
        .unwrap();
    }
    assert_eq!(w.s.instances[&key].memory_mib, 8192);
    w.s.start_instances(&a, &ids(&instance), &w.fx).unwrap();
    // A start that fails stops it again: it is not lost.
    w.s.launch_failed(&key, "no room", &w.fx).unwrap();
    assert_eq!(w.s.instances[&key].state, InstanceState::Stopped);
    w.s.start_instances(&a, &ids(&instance), &w.fx).unwrap();
    w.s.instance_running(&key).unwrap();
    assert_eq!(
        w.s.reboot_instances(&a, &ids(&instance)).unwrap(),
        std::slice::from_ref(&key)
    );
    w.s.machine_lost(&key, "QEMU was killed", &w.fx).unwrap();
    let record = &w.s.instances[&key];
    assert_eq!(
        (
            record.state,
            record.state_reason.as_ref().unwrap().code.as_str()
        ),
        (InstanceState::Stopped, "Server.InternalError")
    );
    w.s.start_instances(&a, &ids(&instance), &w.fx).unwrap();
    w.s.instance_running(&key).unwrap();
    w.s.guest_shutdown(&key, &w.fx).unwrap();
    assert_eq!(
        w.s.instances[&key].state_reason.as_ref().unwrap().code,
        "Client.InstanceInitiatedShutdown"
    );
    good(&w);
    w.s.terminate_instances(&a, &ids(&instance), &w.fx).unwrap();
    let left = w.s.machine_lost(&key, "gone", &w.fx).unwrap();
    assert_eq!(left.deleted.len(), 1);
    assert!(w.s.volumes.is_empty());
    // Terminated twice is no error; an hour later it is not there.
    w.s.terminate_instances(&a, &ids(&instance), &w.fx).unwrap();
    let now = Timestamp::from_secs(w.fx.now + 3599);
    assert!(w.s.expire(now).instances.is_empty());
    let now = Timestamp::from_secs(w.fx.now + 3600);
    assert_eq!(w.s.expire(now).instances, [key]);
    good(&w);
}

#[test]
fn launches_that_fail_and_instance_stores_are_terminated() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let run = w.run(&a, &id, |_| {}).unwrap();
    let instance = &run.launches[0].instance_id;
    w.s.launch_failed(instance, "QEMU is not there", &w.fx)
        .unwrap();
    assert_eq!(w.s.instances[instance].state, InstanceState::Terminated);
    let id = w.bundle(&a, "bundle", 1 << 30).unwrap();
    let run = w.run(&a, &id, |_| {}).unwrap();
    let launch = &run.launches[0];
    assert_eq!(
        launch.bundle.as_deref(),
        Some("/srv/bundles/image.manifest.xml")
    );
    assert!(launch.volumes.is_empty());
    assert_eq!(
        w.s.instances[&launch.instance_id].instance_type,
        "m3.medium"
    );
    w.s.instance_running(&launch.instance_id).unwrap();
    good(&w);
    w.s.machine_lost(&launch.instance_id, "gone", &w.fx)
        .unwrap();
    assert_eq!(
        w.s.instances[&launch.instance_id].state,
        InstanceState::Terminated
    );
    good(&w);
}

#[test]
fn an_image_of_an_instance() {
    let mut w = World::new();
    let a = w.a.clone();
    let mut request = register("base", &w.snap(&a));
    request.boot_mode = some("uefi");
    request.tpm_support = some("v2.0");
    request.block_device_mappings.push(at("/dev/sdf", sized(3)));
    let id =
        w.s.register_image(&a, &request, None, &mut w.fx)
            .unwrap()
            .to_string();
    let instance = w.instance(&a, &id);
    let made = w
        .create(&a, &instance, |r| {
            r.block_device_mappings = vec![
                no_device("/dev/sdf"),
                at("/dev/sdh", sized(5)),
                ephemeral("/dev/sdi", "ephemeral0"),
                at(
                    "/dev/xvda",
                    EbsRequest {
                        delete_on_termination: Some(false),
                        encrypted: Some(false),
                        ..Default::default()
                    },
                ),
            ];
            r.tag_specifications = vec![
                TagSpecification::new("image", [("Source", "x")]),
                TagSpecification::new("snapshot", [("s", "1")]),
            ];
        })
        .unwrap();
    assert!(made.reboot);
    assert_eq!(made.snapshots.len(), 1);
    let record = w.record(made.image_id.as_str()).clone();
    assert_eq!(record.state, ImageState::Pending);
    assert_eq!(record.source_instance_id, Some(instance.parse().unwrap()));
    assert_eq!(record.source_image_id, Some(id.parse().unwrap()));
    assert_eq!(
        (record.boot_mode, record.tpm_support),
        (w.record(&id).boot_mode, w.record(&id).tpm_support)
    );
    let devices: Vec<_> = record
        .block_device_mappings
        .iter()
        .map(|m| m.device_name.to_string())
        .collect();
    assert_eq!(devices, ["/dev/xvda", "/dev/sdh", "/dev/sdi"]);
    assert!(
        !record.block_device_mappings[0]
            .as_ebs()
            .unwrap()
            .delete_on_termination
    );
    let snapshot = &w.s.snapshots[&made.snapshots[0].snapshot_id];
    assert_eq!(
        snapshot.description.as_deref(),
        Some(format!("Created by CreateImage({instance}) for {}", made.image_id).as_str())
    );
    assert_eq!(snapshot.tags["s"], "1");
    let content = w.content(&made.snapshots[0].snapshot_id);
    w.s.complete_image(&made.image_id, &[content], None, &w.fx)
        .unwrap();
    good(&w);
    // It is launched from, also when the first one is gone.
    w.deregister(&a, &id, true).unwrap();
    let second = w.run(&a, made.image_id.as_str(), |_| {}).unwrap();
    w.s.instance_running(&second.launches[0].instance_id)
        .unwrap();
    good(&w);
    let made = w
        .create(&a, &instance, |r| {
            r.name = "again".to_owned();
            r.no_reboot = true;
        })
        .unwrap();
    assert!(!made.reboot);
    assert_eq!(made.snapshots.len(), 2);
}

#[test]
fn public_images_are_deprecated_after_two_years() {
    let mut w = World::new();
    let a = w.a.clone();
    w.settings(&a).allow_public_images = true;
    let id = w.image(&a, "base");
    w.s.modify_launch_permission(&a, &id, &[everybody(), user(A), user(B)], &[], false, &w.fx)
        .unwrap();
    let created = w.record(&id).creation_date.timestamp().secs;
    let deprecated = |w: &World| w.record(&id).deprecation_time.unwrap().timestamp().secs;
    assert_eq!(deprecated(&w), created + 730 * DAY);
    // The owner is not listed.
    assert_eq!(w.record(&id).launch_permissions.len(), 2);
    let at = DeprecateImageRequest {
        image_id: id.clone(),
        deprecate_at: "2027-06-01T12:00:31Z".to_owned(),
        dry_run: false,
    };
    assert_eq!(
        w.s.deprecate_image(&a, &at, &w.fx).unwrap().to_string(),
        "2027-06-01T12:01:00.000Z"
    );
    w.s.undeprecate_image(&a, &super::image(&id), &w.fx)
        .unwrap();
    assert_eq!(deprecated(&w), created + 730 * DAY);
    // Block public access takes nothing back, and permissions can be removed.
    w.settings(&a).allow_public_images = false;
    w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)
        .unwrap();
    w.s.modify_launch_permission(
        &a,
        &id,
        &[],
        &[everybody(), user("999999999999")],
        false,
        &w.fx,
    )
    .unwrap();
    w.s.undeprecate_image(&a, &super::image(&id), &w.fx)
        .unwrap();
    assert_eq!(w.record(&id).deprecation_time, None);
    good(&w);
}

#[test]
fn keys_have_names_versions_and_grantees() {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let key = w.key(&a, "alias/k");
    let arn = format!("arn:aws:kms:{HERE}:{A}:key/{key}");
    w.s.create_alias(&a, "alias/second", &key).unwrap();
    for name in [
        key.as_str(),
        "alias/k",
        "alias/second",
        &arn,
        &format!("arn:aws:kms:{HERE}:{A}:alias/k"),
    ] {
        assert_eq!(w.s.resolve_key(&a, name).unwrap().as_str(), key, "{name}");
    }
    assert_eq!(w.s.resolve_key(&b, &arn).unwrap().as_str(), key);
    w.s.delete_alias(&a, "alias/second").unwrap();
    assert_eq!(w.s.rotate_key(&a, "alias/k").unwrap(), 2);
    let default = w.s.default_key(&a, &mut w.fx);
    assert_eq!(w.s.default_key(&a, &mut w.fx), default);
    assert_ne!(w.s.default_key(&b, &mut w.fx), default);
    assert_ne!(w.s.default_key(&w.far.clone(), &mut w.fx), default);
    assert_eq!(w.s.resolve_key(&a, DEFAULT_KEY_ALIAS).unwrap(), default);
    w.s.grant_key(&a, &key, &b.account).unwrap();
    let seen = w.s.describe_keys(&b);
    assert_eq!(
        (seen.keys.unwrap().len(), seen.grants.unwrap().len()),
        (2, 0)
    );
    let seen = w.s.describe_keys(&a);
    assert_eq!(
        (
            seen.keys.unwrap().len(),
            seen.aliases.unwrap().len(),
            seen.grants.unwrap().len()
        ),
        (2, 2, 1)
    );
    w.s.schedule_key_deletion(&a, &key, None, &w.fx).unwrap();
    w.s.cancel_key_deletion(&a, &key).unwrap();
    assert_eq!(w.s.keys[&key.parse().unwrap()].state, KeyState::Disabled);
    w.s.set_key_enabled(&a, &key, true).unwrap();
    w.s.schedule_key_deletion(&a, &key, Some(7), &w.fx).unwrap();
    let now = Timestamp::from_secs(w.fx.now + 7 * DAY);
    assert_eq!(w.s.expire(now).keys.len(), 1);
    good(&w);
}

#[test]
fn deregistering_reports_each_snapshot() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let snapshot = w.record(&id).block_device_mappings[0]
        .as_ebs()
        .unwrap()
        .snapshot_id
        .clone()
        .unwrap();
    let done = w.deregister(&a, &id, false).unwrap();
    assert!(done.delete_snapshot_results.is_empty() && !done.in_bin);
    let again = w.image_of(&a, "base", snapshot.as_str());
    let done = w.deregister(&a, &again, true).unwrap();
    assert_eq!(
        done.delete_snapshot_results,
        [(snapshot.clone(), DeleteReturnCode::Success)]
    );
    assert!(!w.s.snapshots.contains_key(&snapshot));
    good(&w);
}
