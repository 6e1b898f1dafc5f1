//! Sharing: each rule and its code.

use super::*;
use ErrorCode::*;

fn launch(w: &mut World, add: &[LaunchPermissionRequest]) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    w.s.modify_launch_permission(&a, &id, add, &[], false, &w.fx)
}

fn modify(w: &mut World, change: impl FnOnce(&mut ModifyImageRequest)) -> Result<(), ApiError> {
    modify_of(w, &mut once(change))
}

fn modify_of(w: &mut World, change: Change<'_, ModifyImageRequest>) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    let mut request = ModifyImageRequest {
        image_id: id,
        ..ModifyImageRequest::default()
    };
    change(&mut request);
    w.s.modify_image(&a, &request, &w.fx)
}

fn value(text: &str) -> Option<AttributeValue> {
    Some(AttributeValue {
        value: text.to_owned(),
    })
}

fn organization(arn: &str) -> LaunchPermissionRequest {
    LaunchPermissionRequest {
        organization_arn: Some(arn.to_owned()),
        ..LaunchPermissionRequest::default()
    }
}

const ORG: &str = "arn:aws:organizations::333333333333:organization/o-abcd1234";

#[test]
fn sharing_images() {
    let rows: &[Row] = &[
        (
            "4.4 image id",
            |w| {
                w.s.modify_launch_permission(&w.a.clone(), "foo", &[user(B)], &[], false, &w.fx)
            },
            InvalidAmiIdMalformed,
        ),
        (
            "4.4 image is there",
            |w| {
                w.s.modify_launch_permission(
                    &w.a.clone(),
                    "ami-01234567",
                    &[user(B)],
                    &[],
                    false,
                    &w.fx,
                )
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.4 something is changed",
            |w| launch(w, &[]),
            MissingParameter,
        ),
        (
            "4.4 account",
            |w| launch(w, &[user("x")]),
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 group is all",
            |w| {
                launch(
                    w,
                    &[LaunchPermissionRequest {
                        group: Some("some".into()),
                        ..Default::default()
                    }],
                )
            },
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 organization",
            |w| {
                launch(
                    w,
                    &[organization(
                        "arn:aws:organizations::1:organization/o-abcd1234",
                    )],
                )
            },
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 organization has one id",
            |w| launch(w, &[organization(&format!("{ORG}/ou-abcd-1234"))]),
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 unit",
            |w| {
                launch(
                    w,
                    &[LaunchPermissionRequest {
                        organizational_unit_arn: Some(ORG.into()),
                        ..Default::default()
                    }],
                )
            },
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 a grantee is one thing",
            |w| {
                launch(
                    w,
                    &[LaunchPermissionRequest {
                        group: Some("all".into()),
                        ..user(B)
                    }],
                )
            },
            InvalidParameterCombination,
        ),
        (
            "4.4 a grantee is something",
            |w| launch(w, &[LaunchPermissionRequest::default()]),
            MissingParameter,
        ),
        (
            "4.4 at most 10000 in a request",
            |w| launch(w, &vec![user(B); 10_001]),
            InvalidParameterValue,
        ),
        (
            "4.4 at most 1000 grantees",
            |w| {
                launch(
                    w,
                    &(0..1001)
                        .map(|i| user(&format!("{i:012}")))
                        .collect::<Vec<_>>(),
                )
            },
            ResourceLimitExceeded,
        ),
        (
            "4.4 dry run",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.modify_launch_permission(&a, &id, &[user(B)], &[], true, &w.fx)
            },
            DryRunOperation,
        ),
        (
            "4.4 owner only, of those who see it",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                w.share(&w.a.clone(), &id, B);
                w.s.modify_launch_permission(&w.b.clone(), &id, &[user(A)], &[], false, &w.fx)
            },
            AuthFailure,
        ),
        (
            "4.4 disabled is not shared",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.disable_image(&a, &image(&id), &w.fx)?;
                w.s.modify_launch_permission(&a, &id, &[user(B)], &[], false, &w.fx)
            },
            IncorrectState,
        ),
        (
            "4.4 pending is not shared",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w
                    .copy(&a, &id, HERE, |r| r.encrypted = Some(true))?
                    .image_id
                    .to_string();
                w.s.modify_launch_permission(&a, &id, &[user(B)], &[], false, &w.fx)
            },
            IncorrectState,
        ),
        (
            "4.4 the default key is not shared",
            |w| {
                let a = w.a.clone();
                let snapshot = w.encrypted_snap(&a, DEFAULT_KEY_ALIAS);
                let id = w.image_of(&a, "base", &snapshot);
                w.s.modify_launch_permission(&a, &id, &[user(B)], &[], false, &w.fx)
            },
            InvalidParameter,
        ),
        (
            "4.4 encrypted is not public",
            |w| {
                let a = w.a.clone();
                w.settings(&a).allow_public_images = true;
                w.key(&a, "alias/k");
                let snapshot = w.encrypted_snap(&a, "alias/k");
                let id = w.image_of(&a, "base", &snapshot);
                w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)
            },
            InvalidParameter,
        ),
        (
            "4.4 product codes are not public",
            |w| {
                let a = w.a.clone();
                w.settings(&a).allow_public_images = true;
                let id = w.image(&a, "base");
                w.s.images
                    .get_mut(&id.parse().unwrap())
                    .unwrap()
                    .product_codes = vec!["abc".into()];
                w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)
            },
            OperationNotPermitted,
        ),
        (
            "4.4 product codes are for accounts",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.images
                    .get_mut(&id.parse().unwrap())
                    .unwrap()
                    .product_codes = vec!["abc".into()];
                w.s.modify_launch_permission(&a, &id, &[organization(ORG)], &[], false, &w.fx)
            },
            OperationNotPermitted,
        ),
        (
            "4.6 block public access",
            |w| launch(w, &[everybody()]),
            OperationNotPermitted,
        ),
        (
            "4.4 at most 5 public images",
            |w| {
                let a = w.a.clone();
                w.settings(&a).allow_public_images = true;
                for i in 0..6 {
                    let id = w.image(&a, &format!("image {i}"));
                    w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)?;
                }
                Ok(())
            },
            ResourceLimitExceeded,
        ),
        (
            "4.4 one attribute, not none",
            |w| modify(w, |_| {}),
            MissingParameter,
        ),
        (
            "4.4 one attribute, not two",
            |w| {
                modify(w, |r| {
                    r.description = value("d");
                    r.imds_support = value("v2.0");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "4.4 imds is v2.0",
            |w| modify(w, |r| r.imds_support = value("v1.0")),
            InvalidParameterValue,
        ),
        (
            "4.4 description",
            |w| modify(w, |r| r.description = value(&"d".repeat(256))),
            InvalidParameterValue,
        ),
        (
            "1.5 older form: attribute",
            |w| modify(w, |r| r.attribute = Some("kernel".into())),
            InvalidParameterValue,
        ),
        (
            "1.5 older form: operation",
            |w| {
                modify(w, |r| {
                    r.user_ids = vec![B.into()];
                    r.operation_type = Some("set".into());
                })
            },
            InvalidParameterValue,
        ),
        (
            "1.5 older form: operation is needed",
            |w| modify(w, |r| r.user_ids = vec![B.into()]),
            MissingParameter,
        ),
        (
            "1.5 older form: who",
            |w| modify(w, |r| r.operation_type = Some("add".into())),
            MissingParameter,
        ),
        (
            "1.5 older form: account",
            |w| {
                modify(w, |r| {
                    r.user_ids = vec!["me".into()];
                    r.operation_type = Some("add".into());
                })
            },
            InvalidAmiAttributeItemValue,
        ),
        (
            "4.4 cancelling what was not granted",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.cancel_launch_permission(&a, &image(&id), &w.fx)
            },
            InvalidRequest,
        ),
    ];
    check_rows(rows);
}

fn modify_snapshot(
    w: &mut World,
    change: impl FnOnce(&mut ModifySnapshotRequest),
) -> Result<(), ApiError> {
    modify_snapshot_of(w, &mut once(change))
}

fn modify_snapshot_of(
    w: &mut World,
    change: Change<'_, ModifySnapshotRequest>,
) -> Result<(), ApiError> {
    let a = w.a.clone();
    let mut request = ModifySnapshotRequest {
        snapshot_id: w.snap(&a),
        operation_type: Some("add".to_owned()),
        user_ids: vec![B.to_owned()],
        ..ModifySnapshotRequest::default()
    };
    change(&mut request);
    w.s.modify_snapshot(&a, &request)
}

#[test]
fn sharing_snapshots() {
    let rows: &[Row] = &[
        (
            "4.7 id",
            |w| modify_snapshot(w, |r| r.snapshot_id = "snap-x".into()),
            InvalidSnapshotIdMalformed,
        ),
        (
            "4.7 is there",
            |w| modify_snapshot(w, |r| r.snapshot_id = "snap-01234567".into()),
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 account",
            |w| modify_snapshot(w, |r| r.user_ids = vec!["12".into()]),
            InvalidUserIdMalformed,
        ),
        (
            "4.4 group is all",
            |w| {
                modify_snapshot(w, |r| {
                    r.user_ids.clear();
                    r.group_names = vec!["some".into()];
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.4 attribute",
            |w| modify_snapshot(w, |r| r.attribute = Some("productCodes".into())),
            InvalidParameterValue,
        ),
        (
            "4.4 something is changed",
            |w| modify_snapshot(w, |r| r.user_ids.clear()),
            MissingParameter,
        ),
        (
            "1.5 one form, not both",
            |w| {
                modify_snapshot(w, |r| {
                    let all = VolumePermissionRequest {
                        user_id: Some(B.into()),
                        group: None,
                    };
                    r.create_volume_permission = Some(VolumePermissionChanges {
                        add: vec![all],
                        remove: Vec::new(),
                    });
                })
            },
            InvalidParameterCombination,
        ),
        (
            "4.4 add or remove",
            |w| {
                modify_snapshot(w, |r| {
                    r.operation_type = None;
                    r.user_ids.clear();
                    let one = VolumePermissionRequest {
                        user_id: Some(B.into()),
                        group: None,
                    };
                    r.create_volume_permission = Some(VolumePermissionChanges {
                        add: vec![one.clone()],
                        remove: vec![one],
                    });
                })
            },
            InvalidParameterCombination,
        ),
        (
            "4.4 at most 500 changes",
            |w| {
                modify_snapshot(w, |r| {
                    r.user_ids = (0..501).map(|i| format!("{i:012}")).collect()
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.4 dry run",
            |w| modify_snapshot(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "4.4 owner only",
            |w| {
                let id = w.snap(&w.a.clone());
                w.share_snapshot(&w.a.clone(), &id, B)?;
                w.share_snapshot(&w.b.clone(), &id, A)
            },
            AuthFailure,
        ),
        (
            "4.4 default key",
            |w| {
                let a = w.a.clone();
                let id = w.encrypted_snap(&a, DEFAULT_KEY_ALIAS);
                w.share_snapshot(&a, &id, B)
            },
            OperationNotPermitted,
        ),
        (
            "4.4 encrypted is not public",
            |w| {
                let a = w.a.clone();
                w.key(&a, "alias/k");
                let id = w.encrypted_snap(&a, "alias/k");
                modify_snapshot(w, |r| {
                    r.snapshot_id = id;
                    r.user_ids.clear();
                    r.group_names = vec!["all".into()];
                })
            },
            OperationNotPermitted,
        ),
        (
            "4.4 marketplace is not public",
            |w| {
                let id = w.snap(&w.a.clone());
                w.s.snapshots
                    .get_mut(&id.parse().unwrap())
                    .unwrap()
                    .product_codes = vec!["abc".into()];
                modify_snapshot(w, |r| {
                    r.snapshot_id = id;
                    r.user_ids.clear();
                    r.group_names = vec!["all".into()];
                })
            },
            OperationNotPermitted,
        ),
        (
            "4.6 block public access",
            |w| {
                w.settings(&w.a.clone()).block_public_snapshots = true;
                modify_snapshot(w, |r| {
                    r.user_ids.clear();
                    r.group_names = vec!["all".into()];
                })
            },
            OperationNotPermitted,
        ),
        (
            "4.4 complete",
            |w| {
                let id =
                    w.s.import_snapshot(&w.a, 1, None, Tags::new(), &mut w.fx)?
                        .to_string();
                w.share_snapshot(&w.a.clone(), &id, B)
            },
            IncorrectState,
        ),
    ];
    check_rows(rows);
}
