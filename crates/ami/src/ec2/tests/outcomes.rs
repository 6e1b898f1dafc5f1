//! What requests that are granted do.

use super::*;
use crate::CreationDate;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn good(w: &World) {
    assert_eq!(w.s.check(), Vec::<String>::new());
}

/// How a copy is encrypted.
#[derive(Debug, PartialEq)]
enum Copied {
    Plain,
    /// The same blocks under the same key.
    Same,
    /// Anew, under the default key of the copy's account and region.
    Default,
    /// Anew, under the key that was named.
    Named,
    /// Refused later.
    Failed,
}

fn copied(
    w: &mut World,
    caller: &Caller,
    source: &str,
    from: &str,
    encrypted: Option<bool>,
    key: Option<&str>,
) -> Copied {
    let request = CopySnapshotRequest {
        source_snapshot_id: source.to_owned(),
        source_region: from.to_owned(),
        encrypted,
        kms_key_id: key.map(str::to_owned),
        ..CopySnapshotRequest::default()
    };
    let done = w.s.copy_snapshot(caller, &request, &mut w.fx).unwrap();
    let Some(copy) = done.copy else {
        return Copied::Failed;
    };
    let record = &w.s.snapshots[&done.snapshot_id];
    let source = &w.s.snapshots[&copy.from];
    assert_eq!(
        (&record.owner, &record.region),
        (&caller.account, &caller.region)
    );
    assert_eq!(record.parent.as_ref(), Some(&copy.from));
    match (&record.encryption, copy.reencrypt) {
        (None, None) => Copied::Plain,
        (Some(_), None) => {
            assert_eq!(
                (&record.encryption, record.map),
                (&source.encryption, source.map)
            );
            Copied::Same
        }
        (Some(encryption), Some(wanted)) => {
            assert_eq!(*encryption, wanted);
            assert_eq!(record.state, SnapshotState::Pending);
            match w.s.keys[&wanted.key_id].manager {
                KeyManager::Aws => Copied::Default,
                KeyManager::Customer => Copied::Named,
            }
        }
        (None, Some(_)) => panic!("never decrypted"),
    }
}

/// The second table of 4.3.
#[test]
fn copies_are_encrypted_as_the_table_says() {
    let mut w = World::new();
    let (a, b, far) = (w.a.clone(), w.b.clone(), w.far.clone());
    let key = w.key(&a, "alias/k");
    w.key(&a, "alias/other");
    w.key(&b, "alias/k");
    w.s.grant_key(&a, &key, &b.account).unwrap();
    let plain = w.snap(&a);
    let under_key = w.encrypted_snap(&a, "alias/k");
    for id in [&plain, &under_key] {
        w.share_snapshot(&a, id, B).unwrap();
    }
    let under_default = w.encrypted_snap(&a, DEFAULT_KEY_ALIAS);
    for (who, source, encrypted, named, expected) in [
        (&a, &plain, None, None, Copied::Plain),
        (&a, &plain, Some(false), None, Copied::Plain),
        (&a, &plain, Some(true), None, Copied::Default),
        (&a, &plain, Some(true), Some("alias/k"), Copied::Named),
        (&b, &plain, None, None, Copied::Plain),
        (&far, &plain, None, None, Copied::Plain),
        (&a, &under_key, None, None, Copied::Same),
        (&a, &under_default, None, None, Copied::Same),
        (&a, &under_key, Some(false), None, Copied::Same),
        (&a, &under_key, Some(true), Some("alias/k"), Copied::Same),
        (
            &a,
            &under_key,
            Some(true),
            Some("alias/other"),
            Copied::Named,
        ),
        (&far, &under_key, None, None, Copied::Default),
        (&far, &under_key, Some(false), None, Copied::Default),
        (&b, &under_key, None, None, Copied::Default),
        (&b, &under_key, Some(true), Some("alias/k"), Copied::Named),
        (&a, &plain, Some(true), Some("alias/none"), Copied::Failed),
        (&far, &plain, Some(true), Some("alias/k"), Copied::Failed),
    ] {
        let got = copied(&mut w, who, source, HERE, encrypted, named);
        assert_eq!(got, expected, "{who:?} {encrypted:?} {named:?}");
    }
    w.settings(&a).encryption_by_default = true;
    assert_eq!(
        copied(&mut w, &a, &plain, HERE, None, None),
        Copied::Default
    );
    w.s.set_default_key(&a, Some("alias/other")).unwrap();
    assert_eq!(copied(&mut w, &a, &plain, HERE, None, None), Copied::Named);
    w.s.set_key_enabled(&a, "alias/k", false).unwrap();
    assert_eq!(
        copied(&mut w, &a, &under_key, HERE, None, None),
        Copied::Failed
    );
    good(&w);
}

#[test]
fn a_copy_of_records_is_there_at_once() {
    let mut w = World::new();
    let (a, far) = (w.a.clone(), w.far.clone());
    let mut request = register("base", &w.snap(&a));
    request.boot_mode = some("uefi");
    request.tpm_support = some("v2.0");
    request.imds_support = some("v2.0");
    request.ena_support = Some(true);
    request.tag_specifications = vec![TagSpecification::new(
        "image",
        [("team", "web"), ("env", "prod")],
    )];
    let id =
        w.s.register_image(&a, &request, None, &mut w.fx)
            .unwrap()
            .to_string();
    w.share(&a, &id, B);
    let done = w
        .copy(&far, &id, HERE, |r| {
            r.copy_image_tags = Some(true);
            r.client_token = some("t");
            r.tag_specifications = vec![
                TagSpecification::new("image", [("env", "test")]),
                TagSpecification::new("snapshot", [("s", "1")]),
            ];
        })
        .unwrap();
    assert_eq!((done.state, done.repeated), (ImageState::Available, false));
    let source = w.record(&id).clone();
    let copy = w.record(done.image_id.as_str()).clone();
    assert_eq!(copy.source_image_id, Some(source.image_id.clone()));
    assert_eq!(copy.source_image_region, Some(a.region.clone()));
    assert_eq!(
        (
            copy.boot_mode,
            copy.tpm_support,
            copy.imds_support,
            copy.ena_support
        ),
        (
            source.boot_mode,
            source.tpm_support,
            source.imds_support,
            true
        )
    );
    assert!(copy.launch_permissions.is_empty());
    assert_eq!(
        copy.tags
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>(),
        ["env=test", "team=web"]
    );
    let snapshot = &w.s.snapshots[&done.snapshots[0].to];
    assert_eq!(snapshot.tags["s"], "1");
    assert_eq!(snapshot.region, far.region);
    // The same request again makes nothing.
    let count = w.s.images.len();
    let again = w
        .copy(&far, &id, HERE, |r| {
            r.copy_image_tags = Some(true);
            r.client_token = some("t");
            r.tag_specifications = vec![
                TagSpecification::new("image", [("env", "test")]),
                TagSpecification::new("snapshot", [("s", "1")]),
            ];
        })
        .unwrap();
    assert_eq!(
        (again.image_id, again.repeated, w.s.images.len()),
        (done.image_id, true, count)
    );
    good(&w);
}

#[test]
fn a_copy_that_encrypts_waits_and_can_fail_or_be_cancelled() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let started = |w: &mut World, name: &str| {
        let done = w
            .copy(&a, &id, HERE, |r| {
                r.name = name.to_owned();
                r.encrypted = Some(true);
            })
            .unwrap();
        assert_eq!(done.state, ImageState::Pending);
        (done.image_id, done.snapshots[0].to.clone())
    };
    let (one, snapshot) = started(&mut w, "one");
    let early = w.s.complete_image(&one, &[], None, &w.fx).unwrap_err();
    assert_eq!(early.code, ErrorCode::IncorrectState);
    let content = w.content(&snapshot);
    w.s.complete_image(&one, std::slice::from_ref(&content), None, &w.fx)
        .unwrap();
    assert_eq!(w.s.images[&one].state, ImageState::Available);
    assert_eq!(
        w.s.complete_image(&one, &[content], None, &w.fx)
            .unwrap_err()
            .code,
        ErrorCode::IncorrectState
    );

    let (two, snapshot) = started(&mut w, "two");
    let reason = StateReason {
        code: "Server.InternalError".to_owned(),
        message: "disk full".to_owned(),
    };
    w.s.fail_image(&two, reason.clone()).unwrap();
    assert_eq!(w.s.images[&two].state_reason, Some(reason));
    assert_eq!(w.s.snapshots[&snapshot].state, SnapshotState::Error);
    // Its name is free again.
    let (three, snapshot) = started(&mut w, "two");
    w.deregister(&a, three.as_str(), false).unwrap();
    assert!(!w.s.snapshots.contains_key(&snapshot));
    let content = w.content(&snapshot);
    let late =
        w.s.complete_image(&three, &[content], None, &w.fx)
            .unwrap_err();
    assert_eq!(late.code, ErrorCode::InvalidAmiIdUnavailable);
    // A key that is not there shows in the state alone.
    let done = w
        .copy(&a, &id, HERE, |r| {
            r.name = "four".to_owned();
            r.encrypted = Some(true);
            r.kms_key_id = some("alias/none");
        })
        .unwrap();
    assert_eq!((done.state, done.snapshots.len()), (ImageState::Failed, 0));
    assert!(
        w.s.images[&done.image_id]
            .state_reason
            .as_ref()
            .unwrap()
            .message
            .contains("Given key ID is not accessible")
    );
    good(&w);
}

#[test]
fn shared_images_are_launched_and_copied_as_their_storage_allows() {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let key = w.key(&a, "alias/k");
    let snapshot = w.encrypted_snap(&a, "alias/k");
    let id = w.image_of(&a, "base", &snapshot);
    w.share(&a, &id, B);
    w.s.grant_key(&a, &key, &b.account).unwrap();
    // Launched by the right to the image and the key; the volume is under a key of the launching account.
    let run = w.run(&b, &id, |_| {}).unwrap();
    let volume = &run.launches[0].volumes[0];
    let encryption = volume.encryption.as_ref().unwrap();
    assert!(volume.new_data_key);
    assert_eq!(w.s.keys[&encryption.key_id].owner, b.account);
    assert_eq!(w.s.keys[&encryption.key_id].manager, KeyManager::Aws);
    // The owner's is under the data key of the snapshot.
    let run = w.run(&a, &id, |_| {}).unwrap();
    let volume = &run.launches[0].volumes[0];
    assert!(!volume.new_data_key);
    assert_eq!(
        volume.encryption,
        w.s.snapshots[&snapshot.parse().unwrap()].encryption
    );
    // The newer rule of copies.
    w.share_snapshot(&a, &snapshot, B).unwrap();
    w.settings(&b).copy_shared_encrypted_images = true;
    let done = w.copy(&b, &id, HERE, |_| {}).unwrap();
    let copy = &w.s.snapshots[&done.snapshots[0].to];
    assert_eq!(
        w.s.keys[&copy.encryption.as_ref().unwrap().key_id].owner,
        b.account
    );
    good(&w);
}

#[test]
fn visibility() {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let far_b = caller(B, FAR);
    let unit = "arn:aws:organizations::333333333333:ou/o-abcd1234/ou-ab12-12345678";
    let org = "arn:aws:organizations::333333333333:organization/o-abcd1234";
    // In whichever region it was set down.
    w.settings(&far_b).organization = some(org);
    w.settings(&a).allow_public_images = true;
    let names =
        |w: &World, who: &Caller, change: &dyn Fn(&mut DescribeImagesRequest)| -> Vec<String> {
            let mut request = DescribeImagesRequest::default();
            change(&mut request);
            let result = w.s.describe_images(who, &request, &w.fx).unwrap();
            let mut names: Vec<String> = result
                .images
                .unwrap()
                .into_iter()
                .map(|i| i.name.unwrap())
                .collect();
            names.sort();
            names
        };
    let plain = |_: &mut DescribeImagesRequest| {};
    for name in ["own", "account", "org", "unit", "public"] {
        w.image(&a, name);
    }
    let id = |w: &World, name: &str| {
        w.s.images
            .values()
            .find(|i| i.name == name)
            .unwrap()
            .image_id
            .to_string()
    };
    w.share(&a, &id(&w, "account"), B);
    for (name, permission) in [
        (
            "org",
            LaunchPermissionRequest {
                organization_arn: some(org),
                ..Default::default()
            },
        ),
        (
            "unit",
            LaunchPermissionRequest {
                organizational_unit_arn: some(unit),
                ..Default::default()
            },
        ),
        ("public", everybody()),
    ] {
        let id = id(&w, name);
        w.s.modify_launch_permission(&a, &id, &[permission], &[], false, &w.fx)
            .unwrap();
    }
    assert_eq!(
        names(&w, &a, &plain),
        ["account", "org", "own", "public", "unit"]
    );
    assert_eq!(names(&w, &b, &plain), ["account", "org", "public"]);
    w.settings(&b).organizational_units = vec![unit.to_owned()];
    assert_eq!(names(&w, &b, &plain), ["account", "org", "public", "unit"]);
    assert!(names(&w, &far_b, &plain).is_empty());
    assert_eq!(
        names(&w, &b, &|r| r.executable_users = vec!["self".into()]),
        ["account", "org", "unit"]
    );
    assert_eq!(
        names(&w, &b, &|r| r.executable_users = vec![B.into()]),
        ["account"]
    );
    assert_eq!(
        names(&w, &b, &|r| r.executable_users = vec!["all".into()]),
        ["public"]
    );
    assert!(names(&w, &b, &|r| r.owners = vec!["self".into()]).is_empty());
    assert_eq!(
        names(&w, &b, &|r| r.owners = vec!["amazon".into(), A.into()]).len(),
        4
    );
    let filter = |name: &str, values: &[&str]| Filter {
        name: name.to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    };
    for (filters, expected) in [
        (vec![filter("name", &["o*"])], vec!["org", "own"]),
        (
            vec![filter("name", &["o??"]), filter("is-public", &["false"])],
            vec!["org", "own"],
        ),
        (vec![filter("name", &["own", "unit"])], vec!["own", "unit"]),
        (vec![filter("is-public", &["true"])], vec!["public"]),
        (
            vec![
                filter("block-device-mapping.volume-size", &["8"]),
                filter("state", &["available"]),
                filter("architecture", &["x86_64"]),
            ],
            vec!["account", "org", "own", "public", "unit"],
        ),
        (vec![filter("platform", &["windows"])], vec![]),
        (vec![filter("tag-key", &["*"])], vec![]),
    ] {
        assert_eq!(names(&w, &a, &|r| r.filters.clone_from(&filters)), expected);
    }
    // Tags are each account's own.
    let account = id(&w, "account");
    for (who, value) in [(&a, "owner"), (&b, "guest")] {
        let tags = vec![Tag {
            key: "approved".into(),
            value: value.into(),
        }];
        w.s.create_tags(
            who,
            &CreateTagsRequest {
                resources: vec![account.clone()],
                tags,
                dry_run: false,
            },
            &w.fx,
        )
        .unwrap();
    }
    assert_eq!(
        names(&w, &b, &|r| r.filters =
            vec![filter("tag:approved", &["guest"])]),
        ["account"]
    );
    assert!(
        names(&w, &b, &|r| r.filters =
            vec![filter("tag:approved", &["owner"])])
        .is_empty()
    );
    let request = DeleteTagsRequest {
        resources: vec![account.clone()],
        ..Default::default()
    };
    w.s.delete_tags(&b, &request, &w.fx).unwrap();
    assert!(w.record(&account).other_tags.is_empty());
    assert_eq!(w.record(&account).tags["approved"], "owner");
    // Deprecated: hidden from others, unless asked for.
    let at = DeprecateImageRequest {
        image_id: account.clone(),
        deprecate_at: CreationDate::new(Timestamp::from_secs(w.fx.now + 3600)).to_string(),
        dry_run: false,
    };
    w.s.deprecate_image(&a, &at, &w.fx).unwrap();
    w.fx.now += 7200;
    assert_eq!(names(&w, &b, &plain), ["org", "public", "unit"]);
    assert_eq!(names(&w, &b, &|r| r.include_deprecated = true).len(), 4);
    assert_eq!(
        names(&w, &b, &|r| r.image_ids = vec![account.clone()]),
        ["account"]
    );
    assert_eq!(names(&w, &a, &plain).len(), 5);
    w.run(&b, &account, |_| {}).unwrap();
    // Disabled: the owner alone, when asked for; its grants do not come back.
    w.s.disable_image(&a, &super::image(&account), &w.fx)
        .unwrap();
    assert_eq!(names(&w, &a, &plain).len(), 4);
    assert_eq!(names(&w, &a, &|r| r.include_disabled = true).len(), 5);
    w.s.enable_image(&a, &super::image(&account), &w.fx)
        .unwrap();
    assert!(w.record(&account).launch_permissions.is_empty());
    // A grantee gives up its own grant.
    let org_id = id(&w, "org");
    w.share(&a, &org_id, B);
    w.s.cancel_launch_permission(&b, &super::image(&org_id), &w.fx)
        .unwrap();
    assert_eq!(w.record(&org_id).launch_permissions.len(), 1);
    // Pages.
    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let request = DescribeImagesRequest {
            max_results: Some(2),
            next_token: token,
            ..Default::default()
        };
        let page = w.s.describe_images(&a, &request, &w.fx).unwrap();
        seen.extend(page.images.unwrap());
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    good(&w);
}

#[test]
fn allowed_images() {
    let mut w = World::new();
    let (a, b) = (w.a.clone(), w.b.clone());
    let good_one = w.image(&b, "golden-1");
    let other = w.image(&b, "other");
    let own = w.image(&a, "mine");
    for id in [&good_one, &other] {
        w.share(&b, id, A);
    }
    let criterion = ImageCriterion {
        image_providers: vec![B.to_owned()],
        image_names: vec!["golden-*".to_owned()],
        maximum_days_since_created: Some(30),
        ..Default::default()
    };
    w.settings(&a).allowed_images = AllowedImages {
        state: AllowedImagesState::AuditMode,
        image_criteria: vec![criterion],
    };
    let allowed = |w: &World| -> Vec<bool> {
        [&good_one, &other, &own]
            .map(|id| {
                w.s.describe_image(&a, w.record(id), w.fx.now())
                    .image_allowed
                    .unwrap()
            })
            .to_vec()
    };
    assert_eq!(allowed(&w), [true, false, true]);
    w.run(&a, &other, |_| {}).unwrap();
    w.settings(&a).allowed_images.state = AllowedImagesState::Enabled;
    assert_eq!(
        w.run(&a, &other, |_| {}).unwrap_err().code,
        ErrorCode::InvalidAmiIdNotFound
    );
    w.run(&a, &good_one, |_| {}).unwrap();
    w.run(&a, &own, |_| {}).unwrap();
    w.fx.now += 31 * DAY;
    assert_eq!(
        w.run(&a, &good_one, |_| {}).unwrap_err().code,
        ErrorCode::InvalidAmiIdNotFound
    );
}

#[test]
fn bin_and_time() {
    let mut w = World::new();
    let a = w.a.clone();
    w.settings(&a).image_retention_days = Some(7);
    w.settings(&a).snapshot_retention_days = Some(14);
    let id = w.image(&a, "base");
    w.share(&a, &id, B);
    let disabled = w.image(&a, "disabled");
    w.s.disable_image(&a, &super::image(&disabled), &w.fx)
        .unwrap();
    // Two images of one snapshot: it stays while one of them is there.
    let snapshot = w.record(&id).block_device_mappings[0]
        .as_ebs()
        .unwrap()
        .snapshot_id
        .clone()
        .unwrap();
    let twin = w.image_of(&a, "twin", snapshot.as_str());
    let done = w.deregister(&a, &id, true).unwrap();
    assert!(done.in_bin);
    assert_eq!(
        done.delete_snapshot_results,
        [(snapshot.clone(), DeleteReturnCode::Skipped)]
    );
    w.deregister(&a, &disabled, false).unwrap();
    assert_eq!(w.s.images_in_bin(&a).len(), 2);
    for id in [&id, &disabled] {
        w.s.restore_image(&a, &super::image(id)).unwrap();
    }
    assert_eq!(w.record(&id).state, ImageState::Available);
    assert_eq!(w.record(&id).launch_permissions.len(), 1);
    assert_eq!(w.record(&disabled).state, ImageState::Disabled);
    good(&w);
    w.deregister(&a, &twin, false).unwrap();
    let done = w.deregister(&a, &id, true).unwrap();
    assert_eq!(
        done.delete_snapshot_results,
        [(snapshot.clone(), DeleteReturnCode::Success)]
    );
    assert_eq!(w.s.snapshots[&snapshot].state, SnapshotState::Recoverable);
    w.s.restore_snapshot(
        &a,
        &SnapshotRequest {
            snapshot_id: snapshot.to_string(),
            dry_run: false,
        },
    )
    .unwrap();
    w.s.restore_image(&a, &super::image(&id)).unwrap();
    w.deregister(&a, &id, true).unwrap();
    let late = |w: &World, days: i64| Timestamp::from_secs(w.fx.now + days * DAY);
    let now = late(&w, 7);
    let gone = w.s.expire(now);
    assert_eq!((gone.images.len(), gone.snapshots.len()), (2, 0));
    let now = late(&w, 14);
    assert_eq!(w.s.expire(now).snapshots, [snapshot]);
    // A record of what is gone is left, and its name is free.
    assert!(w.s.images.contains_key(&id.parse().unwrap()));
    w.image(&a, "base");
    good(&w);
}

#[test]
fn cooldown_of_protection() {
    let mut w = World::new();
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let protect = ProtectImageRequest {
        image_id: id.clone(),
        with_cooldown: true,
        dry_run: false,
    };
    assert_eq!(
        w.s.protect_image(&a, &protect, &w.fx).unwrap(),
        "enabled-with-cooldown"
    );
    w.s.unprotect_image(&a, &super::image(&id), &w.fx).unwrap();
    w.fx.now += DAY / 2;
    // Asked again, the day is not longer.
    w.s.unprotect_image(&a, &super::image(&id), &w.fx).unwrap();
    w.fx.now += DAY / 2;
    w.deregister(&a, &id, false).unwrap();
    let id = w.image(&a, "base");
    let protect = ProtectImageRequest {
        image_id: id.clone(),
        with_cooldown: false,
        dry_run: false,
    };
    w.s.protect_image(&a, &protect, &w.fx).unwrap();
    assert_eq!(
        w.s.unprotect_image(&a, &super::image(&id), &w.fx).unwrap(),
        Protection::Disabled
    );
    w.deregister(&a, &id, false).unwrap();
}

#[test]
fn two_volumes_of_one_snapshot() {
    let mut w = World::new();
    let a = w.a.clone();
    let snapshot = w.snap(&a);
    let mut request = register("base", &snapshot);
    request
        .block_device_mappings
        .push(at("/dev/sdf", ebs(&snapshot)));
    let id =
        w.s.register_image(&a, &request, None, &mut w.fx)
            .unwrap()
            .to_string();
    assert_eq!(w.run(&a, &id, |_| {}).unwrap().launches[0].volumes.len(), 2);
    let done = w.deregister(&a, &id, true).unwrap();
    assert_eq!(
        done.delete_snapshot_results,
        [(snapshot.parse().unwrap(), DeleteReturnCode::Success)]
    );
    good(&w);
}

#[test]
fn the_copy_of_a_bundle_waits_for_its_files() {
    let mut w = World::new();
    let (a, far) = (w.a.clone(), w.far.clone());
    let id = w.bundle(&a, "bundle", 1 << 30).unwrap();
    let done = w.copy(&far, &id, HERE, |_| {}).unwrap();
    assert_eq!(
        (done.state, done.bundle.as_deref()),
        (ImageState::Pending, Some("/srv/bundles/image.manifest.xml"))
    );
    w.s.complete_image(
        &done.image_id,
        &[],
        Some("/srv/copies/image.manifest.xml"),
        &w.fx,
    )
    .unwrap();
    let copy = w.record(done.image_id.as_str());
    assert_eq!(copy.state, ImageState::Available);
    assert_eq!(
        (copy.location().as_str(), copy.bundle_bytes),
        ("/srv/copies/image.manifest.xml", Some(1 << 30))
    );
    let source = w.record(&id);
    assert_eq!(
        (copy.bundle_stored_bytes, copy.bundle_manifest),
        (Some(4096), source.bundle_manifest)
    );
    assert!(source.bundle_manifest.is_some());
    good(&w);
}

/// The older and the newer form of one request do the same.
#[test]
fn both_forms_of_modifying() {
    let modified = |w: &mut World, change: &dyn Fn(&mut ModifyImageRequest)| {
        let mut request = ModifyImageRequest {
            image_id: w.image(&w.a.clone(), "base"),
            ..Default::default()
        };
        change(&mut request);
        w.s.modify_image(&w.a.clone(), &request, &w.fx).unwrap();
        w.s.clone()
    };
    type Form = fn(&mut ModifyImageRequest);
    let pairs: [(Form, Form); 3] = [
        (
            |r| {
                r.operation_type = Some("add".into());
                r.user_ids = vec![B.into(), A.into()];
                r.organization_arns =
                    vec!["arn:aws:organizations::333333333333:organization/o-abcd1234".into()];
            },
            |r| {
                let org = LaunchPermissionRequest {
                    organization_arn: Some(
                        "arn:aws:organizations::333333333333:organization/o-abcd1234".into(),
                    ),
                    ..Default::default()
                };
                r.launch_permission = Some(LaunchPermissionChanges {
                    add: vec![user(B), org],
                    remove: Vec::new(),
                });
            },
        ),
        (
            |r| {
                r.attribute = Some("description".into());
                r.value = Some("text".into());
            },
            |r| {
                r.description = Some(AttributeValue {
                    value: "text".into(),
                })
            },
        ),
        (
            |r| {
                r.attribute = Some("imdsSupport".into());
                r.value = Some("v2.0".into());
            },
            |r| {
                r.imds_support = Some(AttributeValue {
                    value: "v2.0".into(),
                })
            },
        ),
    ];
    let untouched = modified(&mut World::new(), &|r| {
        r.launch_permission = Some(LaunchPermissionChanges {
            add: vec![user(A)],
            remove: Vec::new(),
        })
    });
    for (one, other) in pairs {
        let (one, other) = (
            modified(&mut World::new(), &one),
            modified(&mut World::new(), &other),
        );
        assert_eq!(one, other);
        assert_ne!(one, untouched);
    }
}
