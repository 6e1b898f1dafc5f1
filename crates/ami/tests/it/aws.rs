use std::collections::BTreeMap;

use amiforge_ami::{MappingTarget, VolumeType, register_image_request, run_instances_mappings};
use serde_json::Value;

use crate::example;
use crate::recorder::Ec2;

/// The query-protocol fields of `RegisterImage` for the example, with the snapshot AWS gave.
fn expected_registration(snapshot: &str) -> BTreeMap<String, String> {
    [
        ("Action", "RegisterImage"),
        ("Version", "2016-11-15"),
        ("Name", "debian-web-1.2.3"),
        ("Architecture", "x86_64"),
        ("VirtualizationType", "hvm"),
        ("RootDeviceName", "/dev/xvda"),
        ("BootMode", "uefi-preferred"),
        ("EnaSupport", "true"),
        ("ImdsSupport", "v2.0"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", snapshot),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("BlockDeviceMapping.1.Ebs.Iops", "4000"),
        ("BlockDeviceMapping.1.Ebs.Throughput", "250"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sdf"),
        ("BlockDeviceMapping.2.Ebs.VolumeSize", "10"),
        ("BlockDeviceMapping.2.Ebs.VolumeType", "io2"),
        ("BlockDeviceMapping.2.Ebs.DeleteOnTermination", "false"),
        ("BlockDeviceMapping.2.Ebs.Iops", "2000"),
        ("BlockDeviceMapping.2.Ebs.Encrypted", "true"),
        ("BlockDeviceMapping.3.DeviceName", "/dev/sdb"),
        ("BlockDeviceMapping.3.VirtualName", "ephemeral0"),
        ("BlockDeviceMapping.4.DeviceName", "/dev/sdc"),
        ("BlockDeviceMapping.4.NoDevice", ""),
        ("TagSpecification.1.ResourceType", "image"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", "debian-web"),
        ("TagSpecification.1.Tag.2.Key", "env"),
        ("TagSpecification.1.Tag.2.Value", "test & more"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

#[test]
fn the_request_files_are_accepted_by_the_aws_command_line() {
    let ec2 = Ec2::start();
    let manifest = example::manifest();
    let dir = tempfile::tempdir().unwrap();

    let volume = ec2.aws(&[
        "create-volume",
        "--size",
        "2",
        "--availability-zone",
        "eu-central-1a",
    ]);
    let volume = volume["VolumeId"].as_str().unwrap();
    let snapshot = ec2.aws(&["create-snapshot", "--volume-id", volume]);
    let snapshot = snapshot["SnapshotId"].as_str().unwrap();

    // Filling in the snapshot id is all that a user has to do.
    let local = manifest
        .root_mapping()
        .unwrap()
        .as_ebs()
        .unwrap()
        .snapshot_id
        .clone()
        .unwrap();
    let request = String::from_utf8(register_image_request(&manifest)).unwrap();
    assert_eq!(request.matches(local.as_str()).count(), 1);
    let file = dir.path().join("register-image.json");
    std::fs::write(&file, request.replace(local.as_str(), snapshot)).unwrap();
    let input = format!("file://{}", file.display());
    let image = ec2.aws(&["register-image", "--cli-input-json", &input]);
    let image = image["ImageId"].as_str().unwrap();
    assert_eq!(
        ec2.request("RegisterImage"),
        expected_registration(snapshot)
    );

    // What moto keeps of a registration: the name. It has its own fixed answer for the rest
    // (root device, boot mode, mappings), which is why the request itself is compared above.
    let images = ec2.aws(&["describe-images", "--owners", "self", "--image-ids", image]);
    let described = &images["Images"][0];
    assert_eq!(images["Images"].as_array().unwrap().len(), 1);
    for (field, value) in [
        ("ImageId", image),
        ("Name", "debian-web-1.2.3"),
        ("State", "available"),
        ("ImageType", "machine"),
    ] {
        assert_eq!(described[field], value, "{field}");
    }

    // moto refuses mappings without an EBS volume and forgets the iops of the others, which it then
    // misses for io2. Those get through the command line's own check only, at the end.
    let all = dir.path().join("block-device-mappings.json");
    std::fs::write(&all, run_instances_mappings(&manifest)).unwrap();
    let mut spec = example::spec();
    spec.block_device_mappings.retain(|m| m.as_ebs().is_some());
    if let MappingTarget::Ebs(data) = &mut spec.block_device_mappings[1].target {
        (data.volume_type, data.iops) = (VolumeType::Gp2, None);
    }
    let ebs = amiforge_ami::Manifest::new(spec).unwrap();
    let ebs_only = dir.path().join("ebs.json");
    std::fs::write(&ebs_only, run_instances_mappings(&ebs)).unwrap();

    let mappings = format!("file://{}", ebs_only.display());
    let args = [
        "--image-id",
        image,
        "--instance-type",
        "m5.large",
        "--block-device-mappings",
    ];
    let run = ec2.aws(&[&["run-instances"], &args[..], &[&mappings]].concat());
    let sent = ec2.request("RunInstances");
    assert_eq!(sent["BlockDeviceMapping.1.Ebs.Encrypted"], "true");
    assert_eq!(sent["BlockDeviceMapping.2.Ebs.KmsKeyId"], "alias/data");
    assert!(
        !sent.keys().any(|k| k.contains("SnapshotId")),
        "inherited from the image: {sent:?}"
    );

    let instance = run["Instances"][0]["InstanceId"].as_str().unwrap();
    let filter = format!("Name=attachment.instance-id,Values={instance}");
    let volumes = ec2.aws(&["describe-volumes", "--filters", &filter]);
    let volumes: BTreeMap<_, _> = volumes["Volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            (
                v["Attachments"][0]["Device"].as_str().unwrap().to_owned(),
                v.clone(),
            )
        })
        .collect();
    let instances = ec2.aws(&["describe-instances", "--instance-ids", instance]);
    let attached = instances["Reservations"][0]["Instances"][0]["BlockDeviceMappings"]
        .as_array()
        .unwrap();
    for mapping in &ebs.block_device_mappings {
        let volume = &volumes[mapping.device_name.as_str()];
        let asked = mapping.as_ebs().unwrap();
        assert_eq!(volume["Size"], asked.volume_size, "{volume}");
        assert_eq!(volume["VolumeType"], asked.volume_type.as_str(), "{volume}");
        assert_eq!(
            volume["Encrypted"],
            Value::Bool(asked.encrypted.unwrap_or(false)),
            "{volume}"
        );
        let attached = attached
            .iter()
            .find(|a| a["DeviceName"] == mapping.device_name.as_str())
            .unwrap();
        assert_eq!(
            attached["Ebs"]["DeleteOnTermination"], asked.delete_on_termination,
            "{attached}"
        );
    }
    assert_eq!(volumes.len(), ebs.block_device_mappings.len());

    let mappings = format!("file://{}", all.display());
    let skeleton = ec2.aws(
        &[
            &["run-instances", "--generate-cli-skeleton", "output"],
            &args[..],
            &[&mappings],
        ]
        .concat(),
    );
    assert!(
        skeleton["Instances"].is_array(),
        "the command line validated the mappings: {skeleton}"
    );
}
