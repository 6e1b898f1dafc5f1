//! Volumes that stay, go from instance to instance, and are made by themselves.

use super::{Cloud, HELLO};

/// What `volume list` says of a volume.
fn volume(cloud: &Cloud, id: &str) -> serde_json::Value {
    cloud.json(&format!("volume list {id} --json"))["Volumes"][0].clone()
}

#[test]
fn volumes_stay_are_attached_elsewhere_and_deleted() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    let mappings = cloud.env().write(
        "kept.json",
        r#"[{"DeviceName":"/dev/xvda","Ebs":{"DeleteOnTermination":false}}]"#,
    );
    let id = cloud.ok(&format!(
        "run {image} --instance-type t2.micro --block-device-mappings {}",
        mappings.display()
    ));
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    let found = cloud.json("volume list --json");
    let root = found["Volumes"][0]["VolumeId"].as_str().unwrap().to_owned();
    assert_eq!(
        found["Volumes"][0]["Attachments"][0]["InstanceId"],
        id.as_str()
    );
    cloud.refused(&format!("volume delete {root}"), "VolumeInUse");
    cloud.refused(&format!("volume detach {root}"), "OperationNotPermitted");
    // Of a volume that is written to.
    let live = cloud.json(&format!("snapshot create {root} --description live --json"));
    assert_eq!(
        (&live["State"], &live["VolumeId"]),
        (&"completed".into(), &root.as_str().into())
    );

    cloud.ok(&format!("instance terminate --force {id}"));
    let left = volume(&cloud, &root);
    assert_eq!(left["State"], "available");
    // What the guest had written is in it: the sector behind the first is its copy.
    let after = cloud.ok(&format!("snapshot create {root} --tag Name=after"));
    let file = cloud.env().path("after.raw");
    cloud.ok(&format!("snapshot export {after} --out {}", file.display()));
    let bytes = fs_err::read(file).unwrap();
    assert_eq!(bytes[512..1024], bytes[..512]);

    // Into an instance that has its own root, which then boots from the other one.
    let other = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    let refused = cloud.refused(
        &format!("volume attach {root} {other} /dev/sdf"),
        "UnsupportedOperation",
    );
    assert!(refused.stderr.contains("stop it first"), "{refused}");
    cloud.ok(&format!("instance stop --force {other}"));
    let own = cloud.json(&format!("instance list {other} --json"))["Reservations"][0]["Instances"]
        [0]["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        .as_str()
        .unwrap()
        .to_owned();
    cloud.refused(
        &format!("volume attach {root} {other} /dev/xvda"),
        "already in use",
    );
    let detached = cloud.json(&format!("volume detach {own} --json"));
    assert_eq!(
        (&detached["State"], &detached["Device"]),
        (&"detached".into(), &"/dev/xvda".into())
    );
    cloud.refused(&format!("instance start {other}"), "IncorrectInstanceState");
    assert_eq!(
        cloud.ok(&format!("volume attach {root} {other} /dev/xvda --dry-run")),
        "the request would be granted"
    );
    assert_eq!(volume(&cloud, &root)["State"], "available");
    let attached = cloud.json(&format!("volume attach {root} {other} /dev/xvda --json"));
    assert_eq!(attached["State"], "attached");
    cloud.ok(&format!("volume attach {own} {other} /dev/sdf"));
    cloud.ok(&format!("instance start {other}"));
    cloud.ok(&format!("instance wait {other} --timeout 120 --console up"));
    assert!(
        cloud
            .ok(&format!("instance console {other}"))
            .contains(HELLO)
    );
    // An image of it has both.
    let made = cloud.ok(&format!(
        "instance create-image {other} --name both --no-reboot"
    ));
    let shown = cloud.json(&format!("image show {made}"));
    assert_eq!(shown["BlockDeviceMappings"].as_array().unwrap().len(), 2);
    cloud.ok(&format!("instance terminate --force {other}"));
    for id in [&root, &own] {
        assert_eq!(
            volume(&cloud, id)["State"],
            "available",
            "attached later: it stays"
        );
        cloud.ok(&format!("volume delete {id}"));
        cloud.refused(&format!("volume list {id}"), "InvalidVolume.NotFound");
    }
    let folders = cloud.env().state().join("store/v1/ec2/volumes");
    assert_eq!(fs_err::read_dir(folders).unwrap().count(), 0);
    cloud.ok("snapshot verify");
}

#[test]
fn volumes_are_made_empty_of_snapshots_and_encrypted() {
    let cloud = Cloud::new();
    let key = cloud.ok("key create --alias mine");
    let image = cloud.image("tiny");
    let snapshot = cloud.json("snapshot list --json")["Snapshots"][0]["SnapshotId"]
        .as_str()
        .unwrap()
        .to_owned();
    let made = cloud.json("volume create --size 2 --tag Name=empty --json");
    assert_eq!(
        (&made["State"], &made["Size"], &made["VolumeType"]),
        (&"available".into(), &2.into(), &"gp3".into())
    );
    cloud.refused(
        "volume create --size 1 --availability-zone eu-west-1a",
        "InvalidZone.NotFound",
    );
    let sealed = cloud.json(&format!(
        "volume create --snapshot {snapshot} --size 2 --encrypted --kms-key-id alias/mine --json"
    ));
    assert_eq!(
        (&sealed["Size"], &sealed["Encrypted"]),
        (&2.into(), &true.into())
    );
    assert!(sealed["KmsKeyId"].as_str().unwrap().ends_with(&key));
    let sealed = sealed["VolumeId"].as_str().unwrap();
    // Its snapshot is encrypted as it is, and holds what the other one held.
    let copy = cloud.ok(&format!("snapshot create {sealed}"));
    let export = |id: &str, name: &str| {
        let file = cloud.env().path(name);
        cloud.ok(&format!("snapshot export {id} --out {}", file.display()));
        fs_err::read(file).unwrap()
    };
    let (old, new) = (export(&snapshot, "old.raw"), export(&copy, "new.raw"));
    assert!(new.len() == 2 << 30 && new[..old.len()] == old);
    let found = cloud.json(&format!("snapshot list {copy} --json"));
    assert_eq!(found["Snapshots"][0]["Encrypted"], true);

    // An instance of another zone cannot have it.
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!("instance stop --force {id}"));
    let far = cloud.ok("volume create --size 1 --availability-zone us-east-1b");
    cloud.refused(
        &format!("volume attach {far} {id} /dev/sdf"),
        "InvalidVolume.ZoneMismatch",
    );
    cloud.refused(&format!("volume detach {far}"), "IncorrectState");
    let listed = cloud.ok("volume list --filter status=available");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    cloud.ok(&format!("volume attach {sealed} {id} /dev/sdf"));
    cloud.ok(&format!("instance start {id}"));
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    cloud.ok(&format!("instance terminate --force {id}"));
}
