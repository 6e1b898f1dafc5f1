//! Tagging, describing and keys: each rule and its code.

use super::*;
use ErrorCode::*;

fn tag(w: &mut World, caller: &Caller, id: &str, key: &str) -> Result<(), ApiError> {
    let request = CreateTagsRequest {
        resources: vec![id.to_owned()],
        tags: vec![Tag {
            key: key.to_owned(),
            value: "v".to_owned(),
        }],
        dry_run: false,
    };
    w.s.create_tags(caller, &request, &w.fx)
}

fn describe(
    w: &mut World,
    change: impl FnOnce(&mut DescribeImagesRequest),
) -> Result<(), ApiError> {
    describe_of(w, &mut once(change))
}

fn describe_of(w: &mut World, change: Change<'_, DescribeImagesRequest>) -> Result<(), ApiError> {
    let mut request = DescribeImagesRequest::default();
    change(&mut request);
    done(w.s.describe_images(&w.a.clone(), &request, &w.fx))
}

fn filter(name: &str, value: &str) -> Vec<Filter> {
    vec![Filter {
        name: name.to_owned(),
        values: vec![value.to_owned()],
    }]
}

#[test]
fn tagging_and_describing() {
    let rows: &[Row] = &[
        (
            "4.7 generic id",
            |w| tag(w, &w.a.clone(), "key-1", "k"),
            InvalidId,
        ),
        (
            "4.7 image id",
            |w| tag(w, &w.a.clone(), "ami-1", "k"),
            InvalidAmiIdMalformed,
        ),
        (
            "4.7 volume",
            |w| tag(w, &w.a.clone(), "vol-01234567", "k"),
            InvalidVolumeNotFound,
        ),
        (
            "4.7 volume id",
            |w| tag(w, &w.a.clone(), "vol-1", "k"),
            InvalidVolumeIdMalformed,
        ),
        (
            "4.7 instance",
            |w| tag(w, &w.a.clone(), "i-01234567", "k"),
            InvalidInstanceIdNotFound,
        ),
        (
            "4.7 tag key",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                tag(w, &w.a.clone(), &id, "aws:k")
            },
            InvalidTagKeyMalformed,
        ),
        (
            "4.7 tag limit",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                for i in 0..51 {
                    tag(w, &a, &id, &i.to_string())?;
                }
                Ok(())
            },
            TagLimitExceeded,
        ),
        (
            "tags of what is not seen",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                tag(w, &w.b.clone(), &id, "k")
            },
            InvalidAmiIdNotFound,
        ),
        (
            "tags of what is gone",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                tag(w, &a, &id, "k")
            },
            InvalidAmiIdUnavailable,
        ),
        (
            "no resources",
            |w| {
                w.s.delete_tags(&w.a.clone(), &DeleteTagsRequest::default(), &w.fx)
            },
            MissingParameter,
        ),
        (
            "3.1 unknown filter",
            |w| describe(w, |r| r.filters = filter("colour", "red")),
            InvalidParameterValue,
        ),
        (
            "3.1 unknown filter of snapshots",
            |w| {
                let filters = filter("colour", "red");
                let request = DescribeSnapshotsRequest {
                    filters,
                    ..Default::default()
                };
                done(w.s.describe_snapshots(&w.a, &request))
            },
            InvalidParameterValue,
        ),
        (
            "3.1 unknown filter of volumes",
            |w| {
                let filters = filter("colour", "red");
                let request = DescribeVolumesRequest {
                    filters,
                    ..Default::default()
                };
                done(w.s.describe_volumes(&w.a, &request))
            },
            InvalidParameterValue,
        ),
        (
            "3.1 unknown filter of instances",
            |w| {
                let filters = filter("colour", "red");
                let request = DescribeInstancesRequest {
                    filters,
                    ..Default::default()
                };
                done(w.s.describe_instances(&w.a, &request))
            },
            InvalidParameterValue,
        ),
        (
            "3.1 unseen id",
            |w| describe(w, |r| r.image_ids = vec!["ami-01234567".into()]),
            InvalidAmiIdNotFound,
        ),
        (
            "3.1 id",
            |w| describe(w, |r| r.image_ids = vec!["foo".into()]),
            InvalidAmiIdMalformed,
        ),
        (
            "3.1 owner",
            |w| describe(w, |r| r.owners = vec!["me".into()]),
            InvalidUserIdMalformed,
        ),
        (
            "3.1 executable user",
            |w| describe(w, |r| r.executable_users = vec!["me".into()]),
            InvalidUserIdMalformed,
        ),
        (
            "3.1 page",
            |w| describe(w, |r| r.max_results = Some(0)),
            InvalidMaxResults,
        ),
        (
            "3.1 token",
            |w| describe(w, |r| r.next_token = Some("!".into())),
            InvalidNextToken,
        ),
        (
            "3.1 dry run",
            |w| describe(w, |r| r.dry_run = true),
            DryRunOperation,
        ),
        (
            "3.1 deregistered",
            |w| {
                let a = w.a.clone();
                let id = w.image(&a, "base");
                w.deregister(&a, &id, false)?;
                describe(w, |r| r.image_ids = vec![id])
            },
            InvalidAmiIdNotFound,
        ),
        (
            "3.2 attributes are the owner's",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                w.share(&w.a.clone(), &id, B);
                let request = DescribeImageAttributeRequest {
                    image_id: id,
                    attribute: "launchPermission".into(),
                    dry_run: false,
                };
                done(w.s.describe_image_attribute(&w.b.clone(), &request, &w.fx))
            },
            AuthFailure,
        ),
        (
            "3.2 blockDeviceMapping is retired",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                let request = DescribeImageAttributeRequest {
                    image_id: id,
                    attribute: "blockDeviceMapping".into(),
                    dry_run: false,
                };
                done(w.s.describe_image_attribute(&w.a.clone(), &request, &w.fx))
            },
            AuthFailure,
        ),
        (
            "3.2 attribute",
            |w| {
                let id = w.image(&w.a.clone(), "base");
                let request = DescribeImageAttributeRequest {
                    image_id: id,
                    attribute: "colour".into(),
                    dry_run: false,
                };
                done(w.s.describe_image_attribute(&w.a.clone(), &request, &w.fx))
            },
            InvalidParameterValue,
        ),
        (
            "4.6 an image that is not allowed is not there",
            |w| {
                let id = w.image(&w.b.clone(), "base");
                w.share(&w.b.clone(), &id, A);
                w.settings(&w.a.clone()).allowed_images.state = AllowedImagesState::Enabled;
                done(w.run(&w.a.clone(), &id, |_| {}))
            },
            InvalidAmiIdNotFound,
        ),
    ];
    check_rows(rows);
}

#[test]
fn keys() {
    let rows: &[Row] = &[
        (
            "alias begins with alias/",
            |w| done(w.s.create_key(&w.a.clone(), "", &["k".into()], &mut w.fx)),
            KmsInvalidAlias,
        ),
        (
            "alias/aws/ is AWS's",
            |w| done(w.s.create_key(&w.a.clone(), "", &["alias/aws/x".into()], &mut w.fx)),
            KmsInvalidAlias,
        ),
        (
            "aliases are unique",
            |w| {
                w.key(&w.a.clone(), "alias/k");
                done(w.s.create_key(&w.a.clone(), "", &["alias/k".into()], &mut w.fx))
            },
            KmsAlreadyExists,
        ),
        (
            "aliases are unique in a request",
            |w| {
                done(w.s.create_key(
                    &w.a.clone(),
                    "",
                    &["alias/k".into(), "alias/k".into()],
                    &mut w.fx,
                ))
            },
            KmsAlreadyExists,
        ),
        (
            "alias is unique",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.create_alias(&w.a.clone(), "alias/k", &k)
            },
            KmsAlreadyExists,
        ),
        (
            "key is there",
            |w| done(w.s.resolve_key(&w.a.clone(), "alias/none")),
            KmsNotFound,
        ),
        (
            "key of another is named by its ARN",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                done(w.s.resolve_key(&w.b.clone(), &k))
            },
            KmsNotFound,
        ),
        (
            "key of another region cannot be named",
            |w| {
                let k = w.key(&w.far.clone(), "alias/k");
                done(w.s.resolve_key(&w.a.clone(), &format!("arn:aws:kms:{FAR}:{A}:key/{k}")))
            },
            KmsNotFound,
        ),
        (
            "key of another is not changed",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.set_key_enabled(
                    &w.b.clone(),
                    &format!("arn:aws:kms:{HERE}:{A}:key/{k}"),
                    false,
                )
            },
            KmsAccessDenied,
        ),
        (
            "default key is not granted",
            |w| {
                let k = w.s.default_key(&w.a.clone(), &mut w.fx);
                w.s.grant_key(&w.a.clone(), k.as_str(), &w.b.account.clone())
            },
            KmsAccessDenied,
        ),
        (
            "default key is not deleted",
            |w| {
                let k = w.s.default_key(&w.a.clone(), &mut w.fx);
                done(w.s.schedule_key_deletion(&w.a.clone(), k.as_str(), None, &w.fx))
            },
            KmsAccessDenied,
        ),
        (
            "not granted",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.key_usable(&w.b.account, &k.parse().unwrap())
            },
            KmsAccessDenied,
        ),
        (
            "revoked",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.grant_key(&w.a.clone(), &k, &w.b.account.clone())?;
                w.s.key_usable(&w.b.account, &k.parse().unwrap())?;
                w.s.revoke_key(&w.a.clone(), &k, &w.b.account.clone())?;
                w.s.key_usable(&w.b.account, &k.parse().unwrap())
            },
            KmsAccessDenied,
        ),
        (
            "disabled",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.set_key_enabled(&w.a.clone(), &k, false)?;
                w.s.key_usable(&w.a.account, &k.parse().unwrap())
            },
            KmsDisabled,
        ),
        (
            "disabled is not rotated",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.set_key_enabled(&w.a.clone(), &k, false)?;
                done(w.s.rotate_key(&w.a.clone(), &k))
            },
            KmsDisabled,
        ),
        (
            "deletion in 7 days or more",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                done(w.s.schedule_key_deletion(&w.a.clone(), &k, Some(6), &w.fx))
            },
            KmsValidation,
        ),
        (
            "deletion in 30 days or less",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                done(w.s.schedule_key_deletion(&w.a.clone(), &k, Some(31), &w.fx))
            },
            KmsValidation,
        ),
        (
            "pending deletion",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.schedule_key_deletion(&w.a.clone(), &k, Some(7), &w.fx)?;
                w.s.key_usable(&w.a.account, &k.parse().unwrap())
            },
            KmsInvalidState,
        ),
        (
            "pending deletion is not enabled",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.schedule_key_deletion(&w.a.clone(), &k, Some(7), &w.fx)?;
                w.s.set_key_enabled(&w.a.clone(), &k, true)
            },
            KmsInvalidState,
        ),
        (
            "cancelling what is not pending",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.cancel_key_deletion(&w.a.clone(), &k)
            },
            KmsInvalidState,
        ),
        (
            "gone",
            |w| {
                let k = w.key(&w.a.clone(), "alias/k");
                w.s.schedule_key_deletion(&w.a.clone(), &k, Some(7), &w.fx)?;
                w.s.expire(Timestamp::from_secs(w.fx.now + 7 * DAY));
                w.s.key_usable(&w.a.account, &k.parse().unwrap())
            },
            KmsNotFound,
        ),
        (
            "default key must be usable",
            |w| w.s.set_default_key(&w.a.clone(), Some("alias/none")),
            KmsNotFound,
        ),
    ];
    check_rows(rows);
}
