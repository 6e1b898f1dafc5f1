//! What commands answer: in the API's shapes, with what went otherwise than asked for, and nothing done by a dry run.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use amiforge_testkit::finish;

use super::{Cloud, HELLO};

const OTHER: &str = "--account 111122223333";

#[test]
fn a_disabled_key_opens_nothing_and_a_dry_run_rotates_nothing() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let key = cloud.ok("key create --alias mine");
    let copy = cloud.ok(&format!(
        "image copy {image} --name locked --encrypted --kms-key-id {key}"
    ));
    let shown = cloud.json(&format!("image show {copy}"));
    let snapshot = shown["Snapshots"][0]["SnapshotId"]
        .as_str()
        .unwrap()
        .to_owned();
    let material = cloud.env().state().join("store/v1/ec2/keys");
    let bytes = || -> u64 {
        let files = fs_err::read_dir(&material).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
    };
    let before = bytes();
    assert_eq!(
        cloud.ok(&format!("key rotate {key} --dry-run")),
        "the request would be granted"
    );
    assert_eq!(bytes(), before, "no material was made");
    cloud.ok(&format!("key rotate {key}"));
    assert!(bytes() > before);
    let keys = cloud.json("key list --json");
    let own = keys["Keys"].as_array().unwrap();
    let own = own.iter().find(|k| k["KeyId"] == key.as_str()).unwrap();
    assert_eq!(
        (&own["version"], &own["material"]),
        (&2.into(), &true.into())
    );

    let out = cloud.env().path("out.raw");
    let export = format!("image export {copy} --out {}", out.display());
    assert_eq!(
        cloud.ok(&format!("{export} --dry-run")),
        "the request would be granted"
    );
    assert!(!out.exists(), "a dry run writes nothing");
    cloud.ok(&format!("key disable {key}"));
    cloud.refused(&export, "DisabledException");
    cloud.refused(
        &format!("snapshot export {snapshot} --out {}", out.display()),
        "DisabledException",
    );
    assert!(!out.exists());
    let checks = finish(&mut cloud.command("snapshot verify --json")).expect_code(1);
    let checks: serde_json::Value = serde_json::from_str(&checks.text()).unwrap();
    let of = |id: &str| {
        let checks = checks.as_array().unwrap().iter();
        let mut found = checks.filter(|c| c["snapshotId"] == id);
        found.next().unwrap()["problems"].to_string()
    };
    assert!(of(&snapshot).contains("DisabledException"), "{checks}");
    cloud.ok(&format!("key enable {key}"));
    cloud.ok(&export);
    assert_eq!(
        fs_err::read(out).unwrap()[..512],
        fs_err::read(cloud.env().path("Hang.raw")).unwrap()[..512]
    );
}

#[test]
fn names_are_those_of_one_image() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    // A copy that failed has a name, too: the next one is meant by it.
    cloud.refused(
        "image copy golden --name twice --encrypted --kms-key-id alias/none",
        "the copy failed",
    );
    let good = cloud.ok("image copy golden --name twice");
    assert_eq!(
        cloud.json("image show twice")["ImageId"],
        good.as_str(),
        "the one that did not fail"
    );
    assert_eq!(cloud.ok("image deregister twice"), good);
    let failed = cloud.json("image show twice");
    assert_eq!(failed["State"], "failed");

    cloud.ok(&format!("image share {image} --to 111122223333"));
    let end = finish(&mut cloud.command(&format!("image copy golden {OTHER}"))).expect_code(2);
    assert!(
        end.stderr.contains("another account's image"),
        "{}",
        end.stderr
    );
    assert!(end.stderr.contains(&image), "{}", end.stderr);

    cloud.ok("account --image-retention 7 --snapshot-retention 7");
    cloud.ok("image deregister golden --delete-associated-snapshots");
    let bin = cloud.json("snapshot list --recycle-bin --json");
    let snapshot = bin["Snapshots"][0]["SnapshotId"]
        .as_str()
        .unwrap()
        .to_owned();
    cloud.refused("image restore golden", &snapshot);
    cloud.ok(&format!("snapshot restore {snapshot}"));
    assert_eq!(cloud.ok("image restore golden"), image);
    assert_eq!(cloud.json("image show golden")["State"], "available");
}

#[test]
fn who_may_use_an_image_is_shown_and_taken_back() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    assert_eq!(
        cloud.ok("image share golden --to 111122223333 --with-snapshots"),
        image
    );
    let shown = cloud.json("image show golden");
    let account = serde_json::json!([{ "UserId": "111122223333" }]);
    assert_eq!(shown["LaunchPermissions"], account);
    assert_eq!(shown["Snapshots"][0]["CreateVolumePermissions"], account);
    let snapshot = shown["Snapshots"][0]["SnapshotId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        cloud.json(&format!("image show {image} {OTHER}"))["LaunchPermissions"].is_null(),
        "the owner's business"
    );

    let end = finish(&mut cloud.command("image unshare golden --to 111122223333")).expect_code(0);
    assert!(
        end.stderr.contains("still open to others") && end.stderr.contains(&snapshot),
        "{}",
        end.stderr
    );
    cloud.ok(&format!("snapshot verify {snapshot} {OTHER}"));
    let end = finish(&mut cloud.command("image unshare golden --to 111122223333 --with-snapshots"))
        .expect_code(0);
    assert!(!end.stderr.contains("still open"), "{}", end.stderr);
    cloud.refused(
        &format!("snapshot verify {snapshot} {OTHER}"),
        "InvalidSnapshot.NotFound",
    );

    cloud.ok("image protect golden --with-cooldown");
    let end = finish(&mut cloud.command("image protect golden --off")).expect_code(0);
    assert!(
        end.stderr.contains("stays protected until 20"),
        "{}",
        end.stderr
    );
    let end = cloud.refused("image deregister golden", "OperationNotPermitted");
    assert!(end.stderr.contains("until 20"), "{}", end.stderr);
}

#[test]
fn a_guest_that_does_not_shut_down_is_told_of() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let instances = cloud.env().state().join("store/v1/ec2/instances");
    cloud.ok(&format!("run {image} --instance-type t2.micro --dry-run"));
    assert!(
        !instances.exists() || fs_err::read_dir(&instances).unwrap().next().is_none(),
        "a dry run leaves no folder"
    );
    let reservation = cloud.json(&format!("run {image} --instance-type t2.micro --json"));
    let id = reservation["Instances"][0]["InstanceId"]
        .as_str()
        .unwrap()
        .to_owned();
    cloud.ok(&format!(
        "instance wait {id} --console {}",
        HELLO.split(' ').next().unwrap()
    ));

    // The guest loops: it is switched off, and that is said.
    let line = format!("instance create-image {id} --name torn --timeout 1 --json");
    let end = finish(&mut cloud.command(&line)).expect_code(0);
    let made: serde_json::Value = serde_json::from_str(&end.text()).unwrap();
    assert_eq!(made["shutDown"], false, "{made}");
    assert!(made["notShutDown"].as_str().unwrap().contains("within 1 s"));
    assert!(made["ImageId"].as_str().unwrap().starts_with("ami-"));

    // A machine that is lost meanwhile was not shut down either.
    let line = format!("instance create-image {id} --name lost --timeout 60 --json");
    let child = cloud
        .command(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    for pid in cloud.processes(&id) {
        let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.starts_with("qemu") {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
    let end = child.wait_with_output().unwrap();
    let made: serde_json::Value = serde_json::from_slice(&end.stdout).unwrap();
    assert_eq!(made["shutDown"], false, "{made}");
    assert_eq!(cloud.state(&id), "running", "it was started again");

    let stop = format!("instance stop {id} --timeout 1");
    let end = finish(&mut cloud.command(&stop)).expect_code(0);
    assert!(end.stderr.contains("was switched off"), "{}", end.stderr);
    cloud.refused(
        &format!("instance screenshot {id} --out screen.png"),
        "IncorrectInstanceState",
    );
    let a = cloud.json("image show golden")["Snapshots"][0]["SnapshotId"].clone();
    let b = cloud.json("image show torn")["Snapshots"][0]["SnapshotId"].clone();
    let (a, b) = (a.as_str().unwrap(), b.as_str().unwrap());
    let diff = cloud.json(&format!("snapshot diff {a} {b} --json"));
    assert_eq!(
        diff,
        serde_json::json!({ "ChangedBlocks": [{ "BlockIndex": 0 }], "VolumeSize": 1, "BlockSize": 524_288 })
    );
    assert_eq!(
        cloud.ok(&format!("snapshot diff {a} {b}")).lines().nth(1),
        Some("  0")
    );
}

#[test]
fn the_serial_line_can_be_attached_to() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!(
        "instance wait {id} --console {}",
        HELLO.split(' ').next().unwrap()
    ));
    let mut child = cloud
        .command(&format!("instance serial {id}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"typed\n").unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut buf = [0; 512];
    while !String::from_utf8_lossy(&seen).contains(HELLO) {
        let n = output.read(&mut buf).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buf[..n]);
    }
    // It ends with the machine.
    cloud.ok(&format!("instance terminate --force {id}"));
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_named_for_output_is_not_replaced_by_a_file() {
    let cloud = Cloud::new();
    cloud.image("golden");
    let dir = cloud.env().path("out");
    fs_err::create_dir_all(&dir).unwrap();
    let fifo = dir.join("fifo.raw");
    amiforge_testkit::run(amiforge_testkit::tool("mkfifo").arg(&fifo));
    let refused = cloud.refused(
        &format!("image export golden --out {}", fifo.display()),
        "not a regular file",
    );
    assert!(refused.stderr.contains("fifo.raw"), "{}", refused.stderr);
    let kind = fs_err::symlink_metadata(&fifo).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
    // A link is followed: what it names is written.
    let (real, link) = (dir.join("real.raw"), dir.join("link.raw"));
    fs_err::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    cloud.ok(&format!("image export golden --out {}", link.display()));
    assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs_err::metadata(&real).unwrap().len() > 1 << 20);
}

#[test]
fn a_lost_database_is_told_of_and_nothing_is_collected() {
    let cloud = Cloud::new();
    cloud.image("golden");
    let ec2 = cloud.env().state().join("store/v1/ec2");
    let database = ec2.join("state.sqlite");
    let kept = fs_err::read(&database).unwrap();
    let packs = || fs_err::read_dir(ec2.join("packs")).unwrap().count();
    let before = packs();
    for lost in [Some(""), None] {
        match lost {
            Some(text) => fs_err::write(&database, text).unwrap(),
            None => fs_err::remove_file(&database).unwrap(),
        }
        for line in ["image list", "snapshot gc", "run golden"] {
            let end = finish(&mut cloud.command(line));
            assert_eq!(end.code(), 1, "{line}: {}", end.text());
            assert!(end.stderr.contains("was lost"), "{line}: {}", end.stderr);
        }
        assert_eq!(packs(), before);
    }
    fs_err::write(&database, kept).unwrap();
    cloud.ok("snapshot verify");
}

#[test]
fn instances_run_below_a_long_path() {
    let mut cloud = Cloud::new();
    let long = cloud.env().path("folder-with-a-long-name-".repeat(6));
    fs_err::create_dir_all(&long).unwrap();
    cloud.at(long.join("state"));
    let image = cloud.image("golden");
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
    cloud.ok(&format!("instance screenshot {id} --out screen.png"));
    cloud.ok(&format!("instance terminate --force {id}"));
}

#[test]
fn a_process_that_hangs_is_ended_when_told_so() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let id = cloud.ok(&format!("run {image} --instance-type t2.micro"));
    let processes = cloud.processes(&id);
    for pid in &processes {
        let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        if !name.starts_with("qemu") {
            let pid = rustix::process::Pid::from_raw(*pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        }
    }
    let end = finish(&mut cloud.command(&format!("instance stop --force {id}"))).expect_code(0);
    assert!(end.stderr.contains("did not answer"), "{}", end.stderr);
    assert_eq!(cloud.state(&id), "stopped");
    assert!(cloud.processes(&id).is_empty());
}
