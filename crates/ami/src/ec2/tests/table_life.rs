//! Retiring: each rule and its code.

use super::*;
use ErrorCode::*;

fn deprecate(w: &mut World, at: &str) -> Result<(), ApiError> {
    let a = w.a.clone();
    let id = w.image(&a, "base");
    done(w.s.deprecate_image(
        &a,
        &DeprecateImageRequest {
            image_id: id,
            deprecate_at: at.to_owned(),
            dry_run: false,
        },
        &w.fx,
    ))
}

fn snapshot(id: &str) -> SnapshotRequest {
    SnapshotRequest {
        snapshot_id: id.to_owned(),
        dry_run: false,
    }
}

/// The snapshot of an image's root.
fn root_snapshot(w: &World, id: &str) -> String {
    w.record(id).block_device_mappings[0]
        .as_ebs()
        .unwrap()
        .snapshot_id
        .clone()
        .unwrap()
        .to_string()
}

fn protect(w: &mut World, id: &str, with_cooldown: bool) -> Result<(), ApiError> {
    done(w.s.protect_image(
        &w.a.clone(),
        &ProtectImageRequest {
            image_id: id.to_owned(),
            with_cooldown,
            dry_run: false,
        },
        &w.fx,
    ))
}

#[test]
fn retiring() {
    let rows: &[Row] = &[
        (
            "4.5 image id",
            |w| done(w.deregister(&w.a.clone(), "snap-01234567", false)),
            InvalidAmiIdMalformed,
        ),
        (
            "4.5 image is there",
            |w| done(w.deregister(&w.a.clone(), "ami-01234567", false)),
            InvalidAmiIdNotFound,
        ),
        (
            "4.5 owner only",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                w.share(&w.a.clone(), &id, B);
                done(w.deregister(&w.b.clone(), &id, false))
            },
            AuthFailure,
        ),
        (
            "4.5 of those who see it",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                done(w.deregister(&w.b.clone(), &id, false))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.5 twice",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                done(w.deregister(&a, &id, false))
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "4.5 protected",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                protect(w, &id, false)?;
                done(w.deregister(&w.a.clone(), &id, false))
            },
            OperationNotPermitted,
        ),
        (
            "4.5 protected with cooldown, a day after it was taken off",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                protect(w, &id, true)?;
                w.s.unprotect_image(&a, &image(&id), &w.fx)?;
                w.fx.now += DAY - 1;
                done(w.deregister(&a, &id, false))
            },
            OperationNotPermitted,
        ),
        (
            "4.5 snapshot in use",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = root_snapshot(w, &id);
                done(w.s.delete_snapshot(&a, &snapshot(&id), &w.fx))
            },
            InvalidSnapshotInUse,
        ),
        (
            "4.5 snapshot in use by a disabled image",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.disable_image(&a, &image(&id), &w.fx)?;
                let id = root_snapshot(w, &id);
                done(w.s.delete_snapshot(&a, &snapshot(&id), &w.fx))
            },
            InvalidSnapshotInUse,
        ),
        (
            "a snapshot that is being copied is in use",
            |w| {
                let a = w.a.clone();
                let id = w.snap(&a);
                let request = CopySnapshotRequest {
                    source_snapshot_id: id.clone(),
                    source_region: HERE.into(),
                    encrypted: Some(true),
                    ..Default::default()
                };
                w.s.copy_snapshot(&a, &request, &mut w.fx)?;
                done(w.s.delete_snapshot(&a, &snapshot(&id), &w.fx))
            },
            InvalidSnapshotInUse,
        ),
        (
            "4.5 snapshot of another",
            |w| {
                let id = w.snap(&w.a.clone());
                w.share_snapshot(&w.a.clone(), &id, B)?;
                done(w.s.delete_snapshot(&w.b.clone(), &snapshot(&id), &w.fx))
            },
            AuthFailure,
        ),
        (
            "4.5 deprecation is a time",
            |w| deprecate(w, "tomorrow"),
            InvalidParameterValue,
        ),
        (
            "4.5 deprecation is needed",
            |w| deprecate(w, ""),
            MissingParameter,
        ),
        (
            "4.5 deprecation in the future",
            |w| deprecate(w, "2020-01-01T00:00:00Z"),
            InvalidParameterValue,
        ),
        (
            "4.5 deprecation within ten years",
            |w| deprecate(w, "2040-01-01T00:00:00Z"),
            InvalidParameterValue,
        ),
        (
            "4.5 deprecation of public images within two years",
            |w| {
                let a = w.a.clone();
                w.settings(&a).allow_public_images = true;
                let id = w.image(&a, "base");
                w.s.modify_launch_permission(&a, &id, &[everybody()], &[], false, &w.fx)?;
                done(w.s.deprecate_image(
                    &a,
                    &DeprecateImageRequest {
                        image_id: id,
                        deprecate_at: "2029-06-01T00:00:00Z".into(),
                        dry_run: false,
                    },
                    &w.fx,
                ))
            },
            InvalidParameterValue,
        ),
        (
            "4.5 disabling is the owner's",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                w.share(&w.a.clone(), &id, B);
                w.s.disable_image(&w.b.clone(), &image(&id), &w.fx)
            },
            AuthFailure,
        ),
        (
            "4.5 disabling what failed",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                let id = w
                    .copy(&a, &id, HERE, |r| {
                        r.encrypted = Some(true);
                        r.kms_key_id = Some("alias/gone".into());
                    })?
                    .image_id;
                w.s.disable_image(&a, &image(id.as_str()), &w.fx)
            },
            IncorrectState,
        ),
        (
            "4.5 restoring what is not in the bin",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.s.restore_image(&a, &image(&id))
            },
            InvalidAmiIdNotFound,
        ),
        (
            "4.5 restoring a name that was given away",
            |w| {
                let a = w.a.clone();
                w.settings(&a).image_retention_days = Some(7);
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                w.image(&a, "base");
                w.s.restore_image(&a, &image(&id))
            },
            InvalidAmiNameDuplicate,
        ),
        (
            "4.5 restoring without its snapshots",
            |w| {
                let a = w.a.clone();
                w.settings(&a).image_retention_days = Some(7);
                let id = w.image(&a, "base");
                w.deregister(&a, &id, true)?;
                w.s.restore_image(&a, &image(&id))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.5 restoring before its snapshots",
            |w| {
                let a = w.a.clone();
                w.settings(&a).image_retention_days = Some(7);
                w.settings(&a).snapshot_retention_days = Some(7);
                let id = w.image(&a, "base");
                w.deregister(&a, &id, true)?;
                w.s.restore_image(&a, &image(&id))
            },
            IncorrectState,
        ),
        (
            "4.5 using what lies in the bin",
            |w| {
                let a = w.a.clone();
                w.settings(&a).image_retention_days = Some(7);
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                done(w.run(&a, &id, |_| {}))
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "4.5 a snapshot in the bin is not seen",
            |w| {
                let a = w.a.clone();
                w.settings(&a).snapshot_retention_days = Some(7);
                let id = w.snap(&a);
                w.s.delete_snapshot(&a, &snapshot(&id), &w.fx)?;
                done(w.s.register_image(&a, &register("one", &id), None, &mut w.fx))
            },
            InvalidSnapshotNotFound,
        ),
        (
            "4.5 restoring a snapshot that is not in the bin",
            |w| {
                let a = w.a.clone();
                let id = w.snap(&a);
                w.s.restore_snapshot(&a, &snapshot(&id))
            },
            InvalidSnapshotNotFound,
        ),
    ];
    check_rows(rows);
}
