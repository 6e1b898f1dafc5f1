//! What a course on AMIs teaches, with a real operating system: launch, customise, stop, make an image, copy, encrypt, share, launch from
//! that, approve, audit, retire. Two boots, one under each firmware.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use amiforge_testkit::finish;

use super::Cloud;
use crate::web::Web;

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Fetches a page, which has to be there.
fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1) == Some("200"), "/{path}: {answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn image_of_a_build_is_launched_customised_and_made_an_image_of() {
    let web = Web::get();
    let cloud = Cloud::new();
    let user_data = |name: &str, page: &str, end: &str| {
        cloud.env().write(
            name,
            format!(
                "#cloud-config\n\
                 write_files:\n\
                 - path: /srv/web/{page}\n\
                 \x20 content: {end}\n\
                 runcmd:\n\
                 - [sh, -c, 'echo \"root has $(findmnt -bno SIZE /) bytes, $(hostname), {end}\" >/dev/ttyS0']\n"
            ),
        )
    };
    let first_data = user_data("first.yaml", "first.html", "FIRST-IS-UP");
    let mappings = r#"[{"DeviceName":"/dev/xvda","Ebs":{"VolumeSize":4}},{"DeviceName":"/dev/sdf","Ebs":{"VolumeSize":1}}]"#;
    let mappings = cloud.env().write("mappings.json", mappings);
    let http = port();
    // t3: Nitro, so UEFI.
    let first = cloud.ok(&format!(
        "run {} --instance-type t3.micro --cpus 2 --user-data {} --port {http}:80 --block-device-mappings file://{} --tag Name=first",
        web.out().display(),
        first_data.display(),
        mappings.display()
    ));
    cloud.ok(&format!(
        "instance wait {first} --timeout 1500 --console FIRST-IS-UP"
    ));
    // The last that cloud-init says is where it had its data from.
    cloud.ok(&format!(
        "instance wait {first} --timeout 600 --console DataSourceEc2"
    ));
    let console = cloud.ok(&format!("instance console {first}"));
    let found = cloud.json(&format!("instance list {first} --json"));
    let instance = &found["Reservations"][0]["Instances"][0];
    let host = instance["PrivateDnsName"]
        .as_str()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        console.contains(&format!("bytes, {host}, FIRST-IS-UP")),
        "the host's name is {host}"
    );
    let size: u64 = console
        .split("root has ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap();
    assert!(size > 3 << 30, "the root was grown to the volume: {size}");
    assert_eq!(page(http, "first.html").trim(), "FIRST-IS-UP");
    assert!(page(http, "").contains("Hello from amiforge"));

    // As the guest runs: what is not on its disks is lost, and the journal makes the rest whole.
    let made = cloud.json(&format!(
        "instance create-image {first} --name customised --no-reboot --tag stage=test --json"
    ));
    let image = made["ImageId"].as_str().unwrap().to_owned();
    let stored = made["storedBlocks"].as_u64().unwrap();
    assert!(
        stored < made["blocks"].as_u64().unwrap() / 2,
        "only what changed is stored: {made}"
    );
    cloud.ok(&format!("instance stop {first} --timeout 600"));
    assert_eq!(cloud.state(&first), "stopped");
    let found = cloud.json(&format!("instance list {first} --json"));
    assert_eq!(
        found["Reservations"][0]["Instances"][0]["StateReason"]["Code"],
        "Client.UserInitiatedShutdown"
    );

    // To another region, encrypted on the way under a key of one's own, and shared with another account: image and key.
    let europe = "--region eu-west-1";
    let theirs = "--region eu-west-1 --account 111122223333";
    let plain = cloud.ok(&format!("image copy {image} {europe}"));
    let key = cloud.ok(&format!("key create --alias golden {europe}"));
    let sealed = cloud.ok(&format!(
        "image copy {plain} --name sealed --encrypted --kms-key-id alias/golden {europe}"
    ));
    cloud.ok(&format!(
        "image deregister {plain} --delete-associated-snapshots {europe}"
    ));
    cloud.ok(&format!("image share {sealed} --to 111122223333 {europe}"));
    cloud.refused(
        &format!("run {sealed} --instance-type t2.micro {theirs}"),
        "AccessDenied",
    );
    cloud.ok(&format!("key grant {key} --to 111122223333 {europe}"));
    // Only what is approved may be launched there, and is.
    let policy = cloud.env().write(
        "approved.json",
        r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "ec2:RunInstances", "NotResource": "arn:aws:ec2:*::image/*"},
            {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*",
             "Condition": {"StringEquals": {"ec2:Owner": "123456789012"}}}]}"#,
    );
    cloud.ok(&format!("account --policy {} {theirs}", policy.display()));

    // t2: Xen, so BIOS. Its metadata is another instance's, so cloud-init does all of it again.
    let second_data = user_data("second.yaml", "second.html", "SECOND-IS-UP");
    let http = port();
    let second = cloud.ok(&format!(
        "run {sealed} --instance-type t2.micro --cpus 2 --user-data {} --port {http}:80 --isolated {theirs}",
        second_data.display()
    ));
    cloud.ok(&format!(
        "instance wait {second} --timeout 1500 --console SECOND-IS-UP {theirs}"
    ));
    let console = cloud.ok(&format!("instance console {second} {theirs}"));
    assert!(
        [
            "recovering journal",
            "recovery complete",
            "Clearing orphaned inode"
        ]
        .iter()
        .any(|t| console.contains(t)),
        "the journal was replayed"
    );
    assert_eq!(page(http, "second.html").trim(), "SECOND-IS-UP");
    assert_eq!(page(http, "first.html").trim(), "FIRST-IS-UP");
    cloud.ok(&format!("audit --approved-ids {sealed} {theirs}"));
    let audit = finish(&mut cloud.command(&format!("audit --approved-ids {image} {theirs}")));
    assert!(audit.code() == 1 && audit.text().contains(&second));

    // Retired: nobody launches it any more, what runs goes on, and its blocks go when nothing needs them.
    cloud.ok(&format!(
        "image deprecate {sealed} --at 2030-01-01T00:00:00Z {europe}"
    ));
    cloud.ok(&format!("image disable {sealed} {europe}"));
    cloud.refused(
        &format!("run {sealed} --instance-type t2.micro {theirs}"),
        "InvalidAMIID",
    );
    cloud.ok(&format!(
        "image deregister {sealed} --delete-associated-snapshots {europe}"
    ));
    assert_eq!(page(http, "first.html").trim(), "FIRST-IS-UP");
    cloud.ok(&format!("instance terminate --force {first}"));
    cloud.ok(&format!("instance terminate --force {second} {theirs}"));
    assert!(cloud.processes(&first).is_empty() && cloud.processes(&second).is_empty());
    cloud.ok("snapshot gc");
    cloud.ok("snapshot verify");

    let lineage = cloud.ok(&format!("image lineage {image}"));
    assert!(
        lineage.contains(&first) && lineage.contains("debian-web"),
        "{lineage}"
    );
}
