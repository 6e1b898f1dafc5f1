//! Copying images and snapshots: each rule and its code.

use super::*;
use ErrorCode::*;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// An image of `a`, shared with `b`, whose snapshot is shared, too, under a key of `a` when there is one.
fn shared(w: &mut World, key: Option<&str>) -> (String, String) {
    let a = w.a.clone();
    let snapshot = match key {
        Some(key) => w.encrypted_snap(&a, key),
        None => w.snap(&a),
    };
    let id = w.image_of(&a, "shared", &snapshot);
    w.share(&a, &id, B);
    w.share_snapshot(&a, &snapshot, B).unwrap();
    (id, snapshot)
}

fn copy(w: &mut World, change: impl FnOnce(&mut CopyImageRequest)) -> Result<(), ApiError> {
    copy_of(w, &mut once(change))
}

fn copy_of(w: &mut World, change: Change<'_, CopyImageRequest>) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    done(w.copy(&a, &id, HERE, change))
}

#[test]
fn copying() {
    let rows: &[Row] = &[
        (
            "4.3 image id",
            |w| copy(w, |r| r.source_image_id = "foo".into()),
            InvalidAmiIdMalformed,
        ),
        (
            "4.3 image id is needed",
            |w| copy(w, |r| r.source_image_id = String::new()),
            MissingParameter,
        ),
        (
            "4.3 region is needed",
            |w| copy(w, |r| r.source_region = String::new()),
            MissingParameter,
        ),
        (
            "4.7 region",
            |w| copy(w, |r| r.source_region = "mars".into()),
            InvalidRegion,
        ),
        (
            "4.3 image of the region",
            |w| copy(w, |r| r.source_region = FAR.into()),
            InvalidAmiIdNotFound,
        ),
        (
            "4.3 name",
            |w| copy(w, |r| r.name = "x".into()),
            InvalidAmiNameMalformed,
        ),
        (
            "4.3 name is unique",
            |w| copy(w, |r| r.name = "base".into()),
            InvalidAmiNameDuplicate,
        ),
        (
            "4.3 key needs encrypted",
            |w| copy(w, |r| r.kms_key_id = some("alias/x")),
            InvalidParameterDependency,
        ),
        (
            "4.3 key needs encrypted, not false",
            |w| {
                copy(w, |r| {
                    r.kms_key_id = some("alias/x");
                    r.encrypted = Some(false);
                })
            },
            InvalidParameterDependency,
        ),
        (
            "4.3 duration in steps of 15",
            |w| {
                copy(w, |r| {
                    r.snapshot_copy_completion_duration_minutes = Some(20)
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.3 duration of at most 48 h",
            |w| {
                copy(w, |r| {
                    r.snapshot_copy_completion_duration_minutes = Some(2895)
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.3 one destination",
            |w| {
                copy(w, |r| {
                    r.destination_outpost_arn = some("arn");
                    r.destination_availability_zone = some("z");
                })
            },
            InvalidParameterCombination,
        ),
        (
            "4.3 no outposts here",
            |w| copy(w, |r| r.destination_outpost_arn = some("arn")),
            UnsupportedOperation,
        ),
        (
            "4.3 tags of images and snapshots",
            |w| {
                copy(w, |r| {
                    r.tag_specifications = vec![TagSpecification::new("instance", [("k", "v")])]
                })
            },
            InvalidParameterValue,
        ),
        (
            "4.3 dry run",
            |w| copy(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "4.3 not shared",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.3 storage is readable",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                w.share(&w.a.clone(), &id, B);
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 storage of public images is shared, too",
            |w| {
                let a = w.a.clone();
                w.settings(&a).allow_public_images = true;
                let id = w.image(&a, "base");
                w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)?;
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 key is usable",
            |w| {
                w.settings(&w.b.clone()).copy_shared_encrypted_images = true;
                w.key(&w.a.clone(), "alias/k");
                let (id, _) = shared(w, Some("alias/k"));
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "issue: an encrypted shared image is not copied directly",
            |w| {
                let key = w.key(&w.a.clone(), "alias/k");
                w.s.grant_key(&w.a.clone(), &key, &w.b.account.clone())?;
                let (id, _) = shared(w, Some("alias/k"));
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 marketplace codes",
            |w| {
                let (id, _) = shared(w, None);
                w.s.images
                    .get_mut(&id.parse().unwrap())
                    .unwrap()
                    .product_codes = vec!["abc".into()];
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 billing products",
            |w| {
                let (id, _) = shared(w, None);
                w.s.images
                    .get_mut(&id.parse().unwrap())
                    .unwrap()
                    .billing_products = vec!["bp-1".into()];
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 bundles of others",
            |w| {
                let id = w.bundle(&w.a.clone(), "base", 1)?;
                w.share(&w.a.clone(), &id, B);
                done(w.copy(&w.b.clone(), &id, HERE, |_| {}))
            },
            InvalidRequest,
        ),
        (
            "4.3 encryption of bundles",
            |w| {
                let id = w.bundle(&w.a.clone(), "base", 1)?;
                done(w.copy(&w.a.clone(), &id, HERE, |r| r.encrypted = Some(true)))
            },
            InvalidRequest,
        ),
        (
            "4.3 disabled",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.disable_image(&a, &image(&id), &w.fx)?;
                done(w.copy(&a, &id, HERE, |_| {}))
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "4.3 other parameters, same token",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.copy(&a, &id, HERE, |r| r.client_token = some("t"))?;
                done(w.copy(&a, &id, HERE, |r| {
                    r.client_token = some("t");
                    r.name = "other".into();
                }))
            },
            IdempotentParameterMismatch,
        ),
        (
            "4.3 at most 300 copies in progress",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                for i in 0..300 {
                    w.copy(&a, &id, HERE, |r| {
                        r.name = format!("copy {i}");
                        r.encrypted = Some(true);
                    })?;
                }
                done(w.copy(&a, &id, HERE, |_| {}))
            },
            ResourceLimitExceeded,
        ),
        (
            "4.7 copy of a snapshot: id",
            |w| {
                done(w.s.copy_snapshot(
                    &w.a.clone(),
                    &CopySnapshotRequest {
                        source_snapshot_id: "x".into(),
                        source_region: HERE.into(),
                        ..Default::default()
                    },
                    &mut w.fx,
                ))
            },
            InvalidSnapshotIdMalformed,
        ),
        (
            "4.7 copy of a snapshot: not shared",
            |w| {
                let id = w.snap(&w.b.clone());
                done(w.s.copy_snapshot(
                    &w.a.clone(),
                    &CopySnapshotRequest {
                        source_snapshot_id: id,
                        source_region: HERE.into(),
                        ..Default::default()
                    },
                    &mut w.fx,
                ))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.7 copy of a snapshot: complete",
            |w| {
                let id =
                    w.s.import_snapshot(&w.a, 1, None, Tags::new(), &mut w.fx)?
                        .to_string();
                done(w.s.copy_snapshot(
                    &w.a.clone(),
                    &CopySnapshotRequest {
                        source_snapshot_id: id,
                        source_region: HERE.into(),
                        ..Default::default()
                    },
                    &mut w.fx,
                ))
            },
            IncorrectState,
        ),
        (
            "4.3 copy of a snapshot: key needs encrypted",
            |w| {
                let id = w.snap(&w.a.clone());
                done(w.s.copy_snapshot(
                    &w.a.clone(),
                    &CopySnapshotRequest {
                        source_snapshot_id: id,
                        source_region: HERE.into(),
                        kms_key_id: some("alias/x"),
                        ..Default::default()
                    },
                    &mut w.fx,
                ))
            },
            InvalidParameterDependency,
        ),
    ];
    check_rows(rows);
}
