//! Policies, audits, life cycles and settings, as far as they need no guest that does something.

use std::collections::BTreeMap;
use std::path::Path;

use amiforge_ami::{
    Artifact, ArtifactFormat, BlockDeviceMapping, BootMode, CreationDate, DeviceName, EbsVolume,
    Manifest, ManifestSpec, ParentImage, VolumeInfo,
};
use amiforge_testkit::{Finished, finish};
use amiforge_types::{Arch, Digest, Hasher, Timestamp};

use super::Cloud;

const ALLOW: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
const NO_LAUNCH: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "*", "Resource": "*"},
    {"Sid": "NoLaunch", "Effect": "Deny", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*:*:instance/*"}]}"#;
const DENY: &str = r#"{"Version": "2012-10-17", "Statement": {"Sid": "Closed", "Effect": "Deny", "Action": "ec2:DisableImage", "Resource": "*"}}"#;
const READ: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}}"#;

fn ends(cloud: &Cloud, line: &str, code: i32) -> Finished {
    finish(&mut cloud.command(line)).expect_code(code)
}

#[test]
fn policies_are_asked_about_the_operation_however_it_is_written() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let file = |name: &str, text: &str| cloud.env().write(name, text).display().to_string();
    let (allow, no_launch) = (file("allow.json", ALLOW), file("nolaunch.json", NO_LAUNCH));
    let (deny, read) = (file("deny.json", DENY), file("read.json", READ));
    let check =
        |policy: &str, rest: &str| format!("policy check --policy {policy} --image {image} {rest}");

    let whole = ends(&cloud, &check(&no_launch, "--action ec2:RunInstances"), 1).text();
    assert!(
        whole.contains("explicitDeny") && whole.contains("NoLaunch"),
        "{whole}"
    );
    for action in ["RunInstances", "EC2:runinstances"] {
        let found = ends(&cloud, &check(&no_launch, &format!("--action {action}")), 1);
        assert_eq!(found.text(), whole, "{action}");
    }
    for action in ["ec2:Bogus", "s3:RunInstances", "Bogus"] {
        let found = ends(&cloud, &check(&allow, &format!("--action {action}")), 2);
        assert!(
            found.stderr.contains(action) && found.stderr.contains("ec2:RunInstances, "),
            "{}",
            found.stderr
        );
    }
    let nothing = ends(&cloud, &check(&read, "--action DisableImage"), 1).text();
    assert!(
        nothing.contains("no statement allows it in any identity-based policy"),
        "{nothing}"
    );

    // The other kinds limit what the identity's policies allow.
    for (rest, code, said) in [
        (format!("--permissions-boundary {allow}"), 0, "allowed"),
        (
            format!("--permissions-boundary {read}"),
            1,
            "in any permissions boundary",
        ),
        (
            format!("--session-policy {read}"),
            1,
            "in any session policy",
        ),
        (format!("--scp {allow} --scp {allow},{read}"), 0, "allowed"),
        (
            format!("--scp {allow} --scp {read}"),
            1,
            "in any service control policy",
        ),
        (format!("--scp {allow},{deny}"), 1, "Closed"),
        (format!("--scp {allow} --scp ,"), 2, "level 1"),
    ] {
        let found = ends(
            &cloud,
            &check(&allow, &format!("--action DisableImage {rest}")),
            code,
        );
        let text = format!("{}{}", found.text(), found.stderr);
        assert!(text.contains(said), "{rest}: {text}");
    }

    let broken = cloud.env().write("broken.json", b"{\"Version\": \"\xff\"}");
    let found = ends(&cloud, &check(&broken.display().to_string(), ""), 2);
    assert!(
        found.stderr.contains("byte 0xff at offset 13"),
        "{}",
        found.stderr
    );
    let found = ends(
        &cloud,
        &format!("image cost --prices {}", broken.display()),
        2,
    );
    assert!(
        found.stderr.contains("byte 0xff at offset 13"),
        "{}",
        found.stderr
    );
}

const LIFECYCLE: &str = "name: tidy
resourceType: AMI_IMAGE
policyDetails:
  - action:
      type: DELETE
      includeResources: {amis: true, snapshots: true}
    filter: {type: AGE, value: 30, unit: DAYS}
resourceSelection:
  recipes:
    - {name: web, semanticVersion: x.x.x}
";

/// Puts a build into the catalog, as `amiforge build` leaves one: a folder with a disk of 1 MiB, and an entry.
fn build(cloud: &Cloud, version: &str) -> (String, std::path::PathBuf) {
    const BLOCK: usize = 512 << 10;
    let mut disk = vec![0; 2 * BLOCK];
    disk[..version.len()].copy_from_slice(version.as_bytes());
    let mut content = Hasher::new();
    for block in disk.chunks(BLOCK) {
        content.update(Digest::of(block).as_bytes());
    }
    let device: DeviceName = "/dev/xvda".parse().unwrap();
    let bytes = disk.len() as u64;
    let manifest = Manifest::new(ManifestSpec {
        name: "web".into(),
        version: version.into(),
        architecture: Arch::X86_64,
        boot_mode: BootMode::LegacyBios,
        root_device_name: device.clone(),
        ena_support: true,
        imds_v2: false,
        tpm_v2: false,
        creation_date: CreationDate::new(Timestamp::from_secs(1_700_000_000)),
        block_device_mappings: vec![BlockDeviceMapping::ebs(device.clone(), EbsVolume::gp3(1))],
        volumes: vec![VolumeInfo {
            device: device.clone(),
            size: bytes,
            partitions: Vec::new(),
            content_digest: content.finish(),
        }],
        artifacts: vec![Artifact {
            device,
            file: "disk.raw".into(),
            format: ArtifactFormat::Raw,
            bytes,
            virtual_bytes: bytes,
            sha256: None,
        }],
        parent_image: ParentImage {
            asked: "scratch".into(),
            resolved: "scratch".into(),
        },
        components: Vec::new(),
        layers: Vec::new(),
        recipe_digest: Digest::of(b"recipe"),
        plan_id: Digest::of(version.as_bytes()),
        tool_version: "0.0.0".into(),
        tags: BTreeMap::new(),
    })
    .unwrap();
    let env = cloud.env();
    let folder = env.path(format!("out-{version}"));
    env.write(folder.join("disk.raw"), disk);
    let json = manifest.to_json();
    env.write(folder.join("manifest.json"), &json);
    // It was built long ago.
    std::fs::File::open(folder.join("manifest.json"))
        .and_then(|file| {
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        })
        .unwrap();
    let id = manifest.image_id.to_string();
    let entry = serde_json::json!({
        "imageId": id, "name": "web", "version": version, "path": folder,
        "manifest": serde_json::from_slice::<serde_json::Value>(&json).unwrap(),
    });
    let catalog = env.state().join("store/v1/catalog/images");
    env.write(catalog.join(format!("{id}.json")), entry.to_string());
    (id, folder)
}

fn lifecycle(policy: &Path, rest: &str) -> String {
    format!("image lifecycle --policy {} {rest}", policy.display())
}

#[test]
fn builds_that_a_life_cycle_deletes_stay_deleted() {
    let cloud = Cloud::new();
    let policy = cloud.env().write("tidy.yaml", LIFECYCLE);
    assert_eq!(cloud.ok(&lifecycle(&policy, "--apply")), "nothing to do");
    let (id, _) = build(&cloud, "1.0.0");
    assert!(cloud.ok("image list").contains(&id));

    for rest in ["", "--apply --dry-run"] {
        let planned = cloud.ok(&lifecycle(&policy, rest));
        assert!(planned.starts_with(&format!("delete {id} ")), "{planned}");
        assert!(
            planned.ends_with("planned: 1 step; --apply does it"),
            "{planned}"
        );
    }
    let planned = cloud.json(&lifecycle(&policy, "--json"));
    assert_eq!(
        planned["steps"][0]["snapshots"].as_array().unwrap().len(),
        1,
        "{planned}"
    );
    assert!(cloud.ok("image list").contains(&id));
    assert_eq!(cloud.ok("snapshot list"), "", "a plan takes nothing in");

    let done = cloud.ok(&lifecycle(&policy, "--apply"));
    assert!(done.starts_with(&format!("deleted {id} ")), "{done}");
    assert!(done.ends_with("done: 1 of 1 step"), "{done}");
    assert_eq!(cloud.ok("image list"), "");
    assert_eq!(cloud.ok("snapshot list"), "", "its snapshot went along");
    cloud.refused("run web/1.0.0 --dry-run", "neither an image id");
    assert_eq!(cloud.ok(&lifecycle(&policy, "--apply")), "nothing to do");

    // In another region than the caller's; one that cannot be taken in is told, and the others go.
    let (gone, folder) = build(&cloud, "1.1.0");
    let (other, _) = build(&cloud, "1.2.0");
    fs_err::remove_file(folder.join("disk.raw")).unwrap();
    let end = ends(&cloud, &lifecycle(&policy, "--apply --region eu-west-1"), 1);
    assert!(
        end.text().contains(&format!("deleted {other} ")),
        "{}",
        end.text()
    );
    assert!(
        end.text().trim().ends_with("done: 1 of 2 steps"),
        "{}",
        end.text()
    );
    assert!(
        end.stderr.contains(&format!("error: {gone}")),
        "{}",
        end.stderr
    );
}

#[test]
fn problems_of_a_life_cycle_policy_have_their_line() {
    let cloud = Cloud::new();
    for (from, to, place, said) in [
        ("value: 30", "value: soon", ":7:32", "invalid digit"),
        ("type: DELETE", "type: BURN", ":5:13", "BURN"),
        ("recipes:", "recipies:", ":9:3", "recipies"),
        (
            "type: DELETE",
            "type: DISABLE",
            ":6:25",
            "snapshots can be deleted only",
        ),
        ("AMI_IMAGE", "CONTAINER_IMAGE", ":2:15", "AMI_IMAGE"),
    ] {
        let policy = cloud
            .env()
            .write("bad.yml", LIFECYCLE.replacen(from, to, 1));
        let end = ends(&cloud, &lifecycle(&policy, ""), 2);
        assert!(
            end.stderr.contains(&format!("bad.yml{place}")) && end.stderr.contains(said),
            "{to}: {}",
            end.stderr
        );
    }
    let policy = cloud.env().write("bytes.yaml", b"name: \xc3\x28\n");
    let end = ends(&cloud, &lifecycle(&policy, ""), 2);
    assert!(
        end.stderr.contains("byte 0xc3 at offset 6"),
        "{}",
        end.stderr
    );
    // What AWS takes otherwise is said.
    let count = LIFECYCLE.replace(
        "{type: AGE, value: 30, unit: DAYS}",
        "{type: COUNT, value: 3}",
    );
    let count = count
        .replace("DELETE", "DISABLE")
        .replace(", snapshots: true", "");
    let policy = cloud.env().write("count.yaml", count);
    let end = ends(&cloud, &lifecycle(&policy, ""), 0);
    assert!(
        end.stderr.contains("warning: policyDetails[0]"),
        "{}",
        end.stderr
    );
}

const ORGANIZATION: &str = "arn:aws:organizations::111122223333:organization/o-abcd1234";
const UNIT: &str = "arn:aws:organizations::111122223333:ou/o-abcd1234/ou-ab12-cd34ef56";

#[test]
fn settings_are_checked_shown_and_cleared() {
    let cloud = Cloud::new();
    for (line, said) in [
        ("account --organization foo", "OrganizationArn"),
        ("account --organizational-unit bar", "OrganizationalUnitArn"),
        ("account --remove-policy p", "there is none"),
        ("account --image-retention 366", "1 to 365"),
        (
            r#"account --allowed-images-criteria [{"ImageProviders":["somebody"]}]"#,
            "ImageProvider",
        ),
        (
            r#"account --allowed-images-criteria [{"Providers":[]}]"#,
            "Providers",
        ),
    ] {
        let end = ends(&cloud, line, 2);
        assert!(end.stderr.contains(said), "{line}: {}", end.stderr);
    }
    let policy = cloud.env().write("p.json", ALLOW);
    cloud.ok(&format!(
        "account --organization {ORGANIZATION} --organizational-unit {UNIT} --policy {} --block-public-snapshots enabled \
         --copy-shared-encrypted-images enabled --allowed-images audit-mode \
         --allowed-images-criteria [{{\"ImageProviders\":[\"111122223333\"]}}]",
        policy.display()
    ));
    let shown = cloud.json("account");
    assert_eq!(
        shown,
        cloud.json("account --dry-run"),
        "showing is no request"
    );
    assert_eq!(shown["organizationalUnits"], serde_json::json!([UNIT]));
    assert_eq!(shown["blockPublicSnapshots"], true);
    assert_eq!(shown["copySharedEncryptedImages"], true);
    assert_eq!(shown["allowedImages"]["state"], "audit-mode");
    let end = ends(&cloud, "account --remove-policy q.json", 2);
    assert!(end.stderr.contains("there are p.json"), "{}", end.stderr);

    let mut clear = cloud.command(
        "account --remove-policy p.json --block-public-snapshots disabled --copy-shared-encrypted-images disabled \
         --allowed-images disabled --allowed-images-criteria []",
    );
    clear.args(["--organization", "", "--organizational-unit", ""]);
    finish(&mut clear).expect_code(0);
    let bare = cloud.json("account --region eu-west-1");
    assert_eq!(cloud.json("account"), bare, "as where nothing was set");
}

#[test]
fn an_audit_asks_what_the_account_allows_and_forgets_what_is_terminated() {
    let cloud = Cloud::new();
    let image = cloud.image("golden");
    let other = "--account 111122223333";
    cloud.ok(&format!("image share {image} --to 111122223333"));
    let id = cloud.ok(&format!("run {image} {other} --instance-type t2.micro"));
    let audit = |code: i32| -> serde_json::Value {
        let end = ends(
            &cloud,
            &format!("audit --allowed-images --json {other}"),
            code,
        );
        serde_json::from_str(&end.text()).unwrap()
    };
    let found = audit(0);
    assert_eq!(
        found[0]["configRuleName"],
        "ec2-instance-launched-with-allowed-ami"
    );
    assert_eq!(found[0]["evaluations"][0]["compliance"], "NOT_APPLICABLE");
    let set = |providers: &str| {
        cloud.ok(&format!(
            "account {other} --allowed-images audit-mode --allowed-images-criteria [{{\"ImageProviders\":[\"{providers}\"]}}]"
        ));
    };
    set("none");
    let found = audit(1);
    assert_eq!(found[0]["evaluations"][0]["instanceId"], id.as_str());
    assert_eq!(found[0]["evaluations"][0]["compliance"], "NON_COMPLIANT");
    set("123456789012");
    assert_eq!(audit(0)[0]["evaluations"][0]["compliance"], "COMPLIANT");
    cloud.ok(&format!("account {other} --allowed-images enabled"));
    cloud.ok(&format!("run {image} {other} --dry-run"));
    set("none");
    cloud.ok(&format!("account {other} --allowed-images enabled"));
    cloud.refused(
        &format!("run {image} {other} --dry-run"),
        "InvalidAMIID.NotFound",
    );

    cloud.ok(&format!("instance terminate --force {id} {other}"));
    assert_eq!(audit(0)[0]["evaluations"], serde_json::json!([]));
    let end = ends(&cloud, "audit", 2);
    assert!(end.stderr.contains("--allowed-images"), "{}", end.stderr);
}
