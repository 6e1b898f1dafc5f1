//! Records for tests, each from its JSON, so that a record may have more members than a test names.

use amiforge_types::Timestamp;
use serde_json::{Value, json};

use super::{Caller, Image, Instance, Snapshot, State};

/// The account of the tests.
pub(super) const ME: &str = "123456789012";
/// Another one.
pub(super) const OTHER: &str = "210987654321";

/// An id whose last digits are a number.
pub(super) fn id(prefix: &str, number: u32) -> String {
    format!("{prefix}-{number:017x}")
}

pub(super) fn caller() -> Caller {
    Caller {
        account: ME.parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

/// A time, of RFC 3339.
pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Lays the members of `over` over those of `base`.
fn merged(mut base: Value, over: Value) -> Value {
    for (key, value) in over.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

/// An available image of the tests' account with one snapshot of its own number.
pub(super) fn image(number: u32, over: Value) -> Image {
    let base = json!({
        "imageId": id("ami", number), "name": format!("image {number}"), "owner": ME, "region": "us-east-1",
        "state": "available", "creationDate": "2026-01-01T00:00:00Z", "architecture": "x86_64", "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda", "blockDeviceMappings": [mapping("/dev/xvda", number)],
        "platformDetails": "Linux/UNIX", "usageOperation": "RunInstances",
    });
    serde_json::from_value(merged(base, over)).unwrap()
}

/// An entry with the snapshot of a number.
pub(super) fn mapping(device: &str, snapshot: u32) -> Value {
    json!({"deviceName": device, "ebs": {"snapshotId": id("snap", snapshot), "volumeSize": 8, "volumeType": "gp3",
        "deleteOnTermination": true}})
}

pub(super) fn snapshot(number: u32, over: Value) -> Snapshot {
    let base = json!({
        "snapshotId": id("snap", number), "owner": ME, "region": "us-east-1", "state": "completed",
        "startTime": "2026-01-01T00:00:00Z", "volumeSize": 8,
        "map": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "blocks": 2048, "changedBlocks": 2048,
    });
    serde_json::from_value(merged(base, over)).unwrap()
}

/// A running instance launched from the image of a number.
pub(super) fn instance(number: u32, image: u32, over: Value) -> Instance {
    let base = json!({
        "instanceId": id("i", number), "reservationId": id("r", number), "owner": ME, "region": "us-east-1",
        "availabilityZone": "us-east-1a", "imageId": id("ami", image), "instanceType": "t3.micro", "cpus": 2, "memoryMib": 1024,
        "architecture": "x86_64", "firmware": "bios", "state": "running", "launchTime": "2026-01-01T00:00:00Z",
        "rootDeviceType": "ebs", "rootDeviceName": "/dev/xvda", "volumes": [],
        "metadataOptions": {"httpEndpoint": true, "httpTokens": "required", "httpPutResponseHopLimit": 2,
            "instanceMetadataTags": false},
        "mac": "02:00:00:00:00:01", "privateIp": "172.31.0.2", "outbound": true,
        "platformDetails": "Linux/UNIX", "usageOperation": "RunInstances",
    });
    serde_json::from_value(merged(base, over)).unwrap()
}

pub(super) fn state(
    images: impl IntoIterator<Item = Image>,
    snapshots: impl IntoIterator<Item = Snapshot>,
    instances: impl IntoIterator<Item = Instance>,
) -> State {
    State {
        images: images
            .into_iter()
            .map(|i| (i.image_id.clone(), i))
            .collect(),
        snapshots: snapshots
            .into_iter()
            .map(|s| (s.snapshot_id.clone(), s))
            .collect(),
        instances: instances
            .into_iter()
            .map(|i| (i.instance_id.clone(), i))
            .collect(),
        ..State::default()
    }
}
