//! Makers that are killed: what they were making has failed, and says so.

use std::process::Child;
use std::time::{Duration, Instant};

use amiforge_testkit::{finish, run, tool};
use serde_json::Value;

use super::{Cloud, kill};

/// A disk that takes long enough to be encrypted.
fn large(cloud: &Cloud) -> String {
    let disk = cloud.env().path("large.raw");
    run(tool("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=192", "status=none"])
        .arg(format!("of={}", disk.display())));
    cloud.ok(&format!(
        "image register --disk {} --name large",
        disk.display()
    ))
}

fn images(cloud: &Cloud) -> Vec<Value> {
    let found = cloud.json("image list --json");
    found["Images"].as_array().cloned().unwrap_or_default()
}

fn snapshots(cloud: &Cloud) -> Vec<Value> {
    let found = cloud.json("snapshot list --json");
    found["Snapshots"].as_array().cloned().unwrap_or_default()
}

fn in_state(list: &[Value], state: &str) -> Vec<Value> {
    list.iter()
        .filter(|r| r["State"] == state)
        .cloned()
        .collect()
}

/// Starts a command, and gives it when what it makes is pending.
fn begun(cloud: &Cloud, line: &str) -> Child {
    let mut child = cloud.command(line).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        // Whoever looks sees it pending as long as its maker lives.
        if !in_state(&snapshots(cloud), "pending").is_empty() {
            return child;
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "{line}: too fast to be killed"
        );
        assert!(Instant::now() < until, "{line}: never begun");
    }
}

fn killed(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn copies_whose_process_was_killed_have_failed() {
    let cloud = Cloud::new();
    let image = large(&cloud);
    let packs = cloud.env().state().join("store/v1/ec2/packs");
    let count = || fs_err::read_dir(&packs).unwrap().count();
    let before = count();

    let copy = format!("image copy {image} --name sealed --encrypted");
    let child = begun(&cloud, &copy);
    assert_eq!(in_state(&images(&cloud), "pending").len(), 1);
    cloud.refused(&copy, "InvalidAMIName.Duplicate");
    killed(child);
    // A command that changes nothing says it as well.
    let failed = in_state(&images(&cloud), "failed");
    assert_eq!(failed.len(), 1, "{:?}", images(&cloud));
    let reason = &failed[0]["StateReason"];
    assert_eq!(reason["Code"], "Server.InternalError");
    assert!(
        reason["Message"].as_str().unwrap().contains("ended before"),
        "{reason}"
    );
    let error = in_state(&snapshots(&cloud), "error");
    assert_eq!(error.len(), 1);
    assert_eq!(error[0]["StateMessage"], reason["Message"]);

    // The same again works, and nothing of the first is left.
    let good = cloud.ok(&copy);
    assert_eq!(
        cloud.json(&format!("image show {good}"))["State"],
        "available"
    );
    let id = failed[0]["ImageId"].as_str().unwrap();
    cloud.ok(&format!(
        "image deregister {id} --delete-associated-snapshots"
    ));
    assert!(in_state(&snapshots(&cloud), "error").is_empty());
    cloud.ok("snapshot gc");
    assert_eq!(
        count(),
        2 * before,
        "the plain one, and one that is encrypted"
    );
    cloud.ok("snapshot verify");
    let making = cloud.env().state().join("store/v1/ec2/making");
    assert_eq!(fs_err::read_dir(making).unwrap().count(), 0);

    let snapshot = snapshots(&cloud)
        .iter()
        .find(|s| s["Encrypted"] == false)
        .unwrap()["SnapshotId"]
        .as_str()
        .unwrap()
        .to_owned();
    killed(begun(
        &cloud,
        &format!("snapshot copy {snapshot} --encrypted"),
    ));
    assert_eq!(in_state(&snapshots(&cloud), "error").len(), 1);
    let disk = cloud.env().path("large.raw");
    // Under encryption by default nothing of it is in the store yet.
    cloud.ok("account --encryption-by-default enabled");
    let register = format!("image register --disk {} --name second", disk.display());
    killed(begun(&cloud, &register));
    assert_eq!(in_state(&snapshots(&cloud), "error").len(), 2);
    cloud.ok(&register);
    cloud.ok("snapshot verify");
}

/// Of a running instance it is its own process that makes the image: a command that goes does not end that.
#[test]
fn what_is_made_of_an_instance_goes_on_without_the_command_that_asked() {
    let cloud = Cloud::new();
    let image = large(&cloud);
    cloud.ok(&format!("image copy {image} --name sealed --encrypted"));
    let id = cloud.ok("run sealed --instance-type t2.micro");
    let process = cloud.processes(&id);

    // The guest of zeros is switched off after this time, so the order is under way when the command goes.
    let mut child = cloud
        .command(&format!("instance create-image {id} --name of-it"))
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let log = cloud
        .env()
        .state()
        .join(format!("store/v1/ec2/instances/{id}/process.log"));
    while !fs_err::read_to_string(&log)
        .unwrap()
        .contains("making ami-")
    {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        in_state(&images(&cloud), "pending").len(),
        1,
        "its process makes it"
    );
    // Now nobody does.
    process.iter().for_each(|pid| kill(*pid));
    let until = Instant::now() + Duration::from_secs(20);
    while !cloud.processes(&id).is_empty() {
        assert!(Instant::now() < until);
    }
    let failed = in_state(&images(&cloud), "failed");
    assert_eq!(failed.len(), 1, "{:?}", images(&cloud));
    assert_eq!(cloud.state(&id), "stopped");
    let made = cloud.ok(&format!("instance create-image {id} --name of-it"));
    assert_eq!(
        cloud.json(&format!("image show {made}"))["State"],
        "available"
    );
    cloud.ok("snapshot verify");
    finish(&mut cloud.command(&format!("instance terminate {id}")));
}
