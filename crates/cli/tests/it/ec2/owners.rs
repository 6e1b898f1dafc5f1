//! Accounts and regions: copies, shares, policies, audits, and the end of images.

use amiforge_testkit::finish;

use super::Cloud;

const OTHER: &str = "--account 111122223333";

#[test]
fn images_are_copied_shared_approved_audited_and_retired() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    cloud.refused(&format!("run {image} {OTHER}"), "InvalidAMIID.NotFound");
    cloud.ok(&format!("image share {image} --to 111122223333"));
    let id = cloud.ok(&format!("run {image} {OTHER} --instance-type t2.micro"));
    cloud.ok(&format!("instance terminate --force {id} {OTHER}"));
    // Launching is not reading: a copy needs the snapshots, too.
    cloud.refused(
        &format!("image copy {image} --name stolen {OTHER}"),
        "InvalidRequest",
    );
    cloud.ok(&format!(
        "image share {image} --to 111122223333 --with-snapshots"
    ));
    let theirs = cloud.ok(&format!("image copy {image} --name theirs {OTHER}"));
    assert_eq!(
        cloud.json(&format!("image show {theirs} {OTHER}"))["OwnerId"],
        "111122223333"
    );

    let packs = cloud.env().state().join("store/v1/ec2/packs");
    let before = fs_err::read_dir(&packs).unwrap().count();
    let copy = cloud.ok("image copy golden --region eu-west-1");
    assert_eq!(
        fs_err::read_dir(&packs).unwrap().count(),
        before,
        "a copy is metadata alone"
    );
    cloud.refused(&format!("image show {copy}"), "InvalidAMIID.NotFound");
    let shown = cloud.json(&format!("image show {copy} --region eu-west-1"));
    assert_eq!(
        (&shown["SourceImageId"], &shown["SourceImageRegion"]),
        (&image.as_str().into(), &"us-east-1".into())
    );

    // A dry run says what would be, and changes nothing.
    for line in [
        format!("image disable {image} --dry-run"),
        "key create --dry-run".to_owned(),
        "account --image-retention 3 --dry-run".to_owned(),
    ] {
        assert_eq!(cloud.ok(&line), "the request would be granted", "{line}");
    }
    assert_eq!(
        cloud.json(&format!("image show {image}"))["State"],
        "available"
    );
    assert_eq!(cloud.ok("key list"), "");
    assert!(cloud.json("account")["imageRetentionDays"].is_null());
    let disk = cloud.env().path("Hang.raw");
    cloud.refused(
        &format!("image register --disk {} --name golden", disk.display()),
        "InvalidAMIName.Duplicate",
    );
    assert_eq!(
        fs_err::read_dir(&packs).unwrap().count(),
        before,
        "nothing was read for it"
    );

    // Approved by tag: a policy lets nothing else be launched, and an audit finds what was.
    let rogue = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    let policy = cloud.env().write(
        "approved.json",
        r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "ec2:RunInstances", "NotResource": "arn:aws:ec2:*::image/*"},
            {"Sid": "ApprovedOnly", "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*",
             "Condition": {"StringEquals": {"ec2:ResourceTag/approved": "true"}}}]}"#,
    );
    let check = format!("policy check --policy {} --image {image}", policy.display());
    let denied = finish(&mut cloud.command(&check)).expect_code(1);
    assert!(denied.text().contains("ApprovedOnly"), "{}", denied.text());
    cloud.ok(&format!("account --policy {}", policy.display()));
    cloud.refused(&format!("run {image}"), "UnauthorizedOperation");
    let audit =
        finish(&mut cloud.command("audit --approved-tags approved:true --json")).expect_code(1);
    let found: serde_json::Value = serde_json::from_str(&audit.text()).unwrap();
    assert_eq!(found[0]["evaluations"][0]["instanceId"], rogue.as_str());
    assert_eq!(found[0]["evaluations"][0]["compliance"], "NON_COMPLIANT");
    cloud.ok(&format!("image tag {image} approved=true"));
    cloud.ok(&check);
    assert_eq!(
        cloud.ok(&format!("run {image} --dry-run")),
        "the request would be granted"
    );
    cloud.ok("audit --approved-tags approved:true");
    cloud.ok(&format!("instance terminate --force {rogue}"));

    // Retired: deprecated, disabled, protected, in the recycle bin, gone.
    cloud.ok(&format!(
        "image deprecate {image} --at 2030-01-01T00:00:00Z"
    ));
    cloud.ok(&format!("image disable {image}"));
    cloud.refused(&format!("run {image}"), "InvalidAMIID.Unavailable");
    cloud.ok(&format!("image enable {image}"));
    cloud.ok(&format!("image protect {image}"));
    cloud.refused(
        &format!("image deregister {image}"),
        "OperationNotPermitted",
    );
    cloud.ok(&format!("image protect {image} --off"));
    cloud.ok("account --image-retention 7 --snapshot-retention 14");
    cloud.ok(&format!(
        "image deregister {image} --delete-associated-snapshots"
    ));
    assert!(cloud.ok("image list --recycle-bin").contains(&image));
    let snapshot = shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        .as_str()
        .unwrap();
    cloud.ok(&format!("snapshot verify {snapshot}"));
    let list = cloud.json("snapshot list --json");
    assert!(
        list["Snapshots"].as_array().is_none_or(Vec::is_empty),
        "{list}"
    );

    let cost = cloud.json("image cost --json --region eu-west-1");
    assert_eq!(cost["images"][0]["imageId"], copy.as_str());
    let lifecycle = cloud.env().write(
        "lifecycle.json",
        r#"{"name": "tidy", "executionRole": "role", "resourceType": "AMI_IMAGE",
            "policyDetails": [{"action": {"type": "DISABLE"}, "filter": {"type": "COUNT", "value": 1}}],
            "resourceSelection": {"tagMap": {"approved": "true"}}}"#,
    );
    cloud.ok(&format!(
        "image lifecycle --policy {} {OTHER}",
        lifecycle.display()
    ));
}
