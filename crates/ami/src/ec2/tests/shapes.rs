//! Requests as JSON, and what is kept as JSON.

use serde_json::json;

use super::*;

#[test]
fn requests_are_read_in_the_shape_of_the_api() {
    let request: RunInstancesRequest = serde_json::from_value(json!({
        "ImageId": "ami-01234567", "InstanceType": "t3.micro", "MaxCount": 2, "UserData": "aGk=",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "KmsKeyId": "alias/k", "Encrypted": true, "DeleteOnTermination": true}},
            {"DeviceName": "/dev/sdg", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdh", "NoDevice": ""},
        ],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}],
        "DryRun": false,
    }))
    .unwrap();
    assert_eq!(request.block_device_mappings.len(), 3);
    assert_eq!(
        request.block_device_mappings[0]
            .ebs
            .as_ref()
            .unwrap()
            .kms_key_id
            .as_deref(),
        Some("alias/k")
    );
    for (bad, what) in [
        (json!({"imageId": "ami-01234567"}), "unknown field"),
        (json!({"ImageId": 1}), "invalid type"),
        (
            json!({"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": "3"}}]}),
            "invalid type",
        ),
    ] {
        let error = serde_json::from_value::<RunInstancesRequest>(bad)
            .unwrap_err()
            .to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn records_come_back_as_they_were_written() {
    let mut w = World::new();
    let a = w.a.clone();
    w.key(&a, "alias/k");
    w.settings(&a).allowed_images.image_criteria = vec![ImageCriterion {
        image_names: vec!["x*".into()],
        ..Default::default()
    }];
    w.settings(&a).image_retention_days = Some(3);
    let snapshot = w.encrypted_snap(&a, "alias/k");
    let id = w.image_of(&a, "base", &snapshot);
    w.share(&a, &id, B);
    w.s.protect_image(
        &a,
        &ProtectImageRequest {
            image_id: id.clone(),
            with_cooldown: true,
            dry_run: false,
        },
        &w.fx,
    )
    .unwrap();
    w.s.unprotect_image(&a, &super::image(&id), &w.fx).unwrap();
    w.run(&a, &id, |r| r.client_token = Some("t".into()))
        .unwrap();
    let other = w.image(&a, "other");
    w.deregister(&a, &other, true).unwrap();
    macro_rules! same {
        ($($records:expr),*) => {
            $(for record in $records.values() {
                let text = serde_json::to_string(record).unwrap();
                assert_eq!(*record, serde_json::from_str(&text).unwrap(), "{text}");
            })*
        };
    }
    same!(
        w.s.images,
        w.s.snapshots,
        w.s.volumes,
        w.s.instances,
        w.s.keys,
        w.s.settings
    );
}

#[test]
fn the_end_of_a_protection_is_read_in_both_spellings_and_written_in_one() {
    let at = |member: &str| json!({"enabled-with-cooldown": {member: "2026-01-01T00:00:00.000Z"}});
    let read = |value| serde_json::from_value::<Protection>(value).unwrap();
    let old = read(at("off_since"));
    assert!(matches!(
        old,
        Protection::EnabledWithCooldown { off_since: Some(_) }
    ));
    assert_eq!(old, read(at("offSince")));
    assert_eq!(serde_json::to_value(old).unwrap(), at("offSince"));
}
