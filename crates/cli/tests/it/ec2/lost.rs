//! Processes that are killed, records that say so.

use amiforge_testkit::finish;

use super::{Cloud, kill};

#[test]
fn whatever_is_killed_the_picture_is_true() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    let [ours, qemu] = cloud.processes(&id)[..] else {
        panic!("two processes")
    };
    kill(ours);
    // QEMU goes with it, however it ends.
    for _ in 0..200 {
        if cloud.processes(&id).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(cloud.processes(&id), [] as [i32; 0], "QEMU {qemu}");
    let found = finish(&mut cloud.command(&format!("instance list {id} --json"))).expect_code(0);
    assert!(found.stderr.contains("unexpectedly"), "{}", found.stderr);
    assert_eq!(cloud.state(&id), "stopped");

    cloud.ok(&format!("instance start {id}"));
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    let [first, second] = cloud.processes(&id)[..] else {
        panic!("two processes")
    };
    let name = |pid: i32| fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    kill(if name(first).starts_with("qemu") {
        first
    } else {
        second
    });
    cloud.ok(&format!("instance wait {id} --state stopped --timeout 60"));
    let found = cloud.json(&format!("instance list {id} --json"));
    assert_eq!(
        found["Reservations"][0]["Instances"][0]["StateReason"]["Code"],
        "Server.InternalError"
    );
    cloud.ok(&format!("instance terminate {id}"));
}

/// Commands killed at any point: what is registered can be read, and what is not leaves nothing behind.
#[test]
fn commands_killed_at_any_point_leave_old_or_new() {
    let cloud = Cloud::new();
    let image = cloud.image("tiny");
    for n in 0..60_u64 {
        let mut child = cloud
            .command(&format!("image copy {image} --name copy-{n} --encrypted"))
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(n * n * 25 % 90_000));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let found = cloud.json("image list --json");
    let images = found["Images"].as_array().unwrap();
    assert!(!images.is_empty());
    for image in images.iter().filter(|i| i["State"] == "available") {
        let snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
            .as_str()
            .unwrap();
        cloud.ok(&format!("snapshot verify {snapshot}"));
    }
    cloud.ok("snapshot gc");
    cloud.ok(&format!("image copy {image} --name last --encrypted"));
    cloud.ok("snapshot verify");
}
