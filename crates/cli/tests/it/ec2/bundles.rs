//! Instance-store images: bundled with a key that openssl made, registered, launched, copied.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use amiforge_testkit::{finish, run, tool};
use amiforge_vm::TinyEnding;
use serde_json::json;

use super::kill;
use super::{Cloud, SECRET};

/// Makes a key and its certificate; gives the options that name them.
fn signer(cloud: &Cloud, name: &str) -> String {
    let (key, certificate) = (
        cloud.env().path(format!("{name}.key")),
        cloud.env().path(format!("{name}.crt")),
    );
    let mut command = tool("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"]);
    command.args(["-subj", "/CN=me", "-keyout"]).arg(&key);
    run(command.arg("-out").arg(&certificate));
    format!(
        "--certificate {} --private-key {}",
        certificate.display(),
        key.display()
    )
}

/// Bundles the guest that loops for ever, into a folder of this name; gives the manifest.
fn bundle(cloud: &Cloud, out: &str, options: &str) -> PathBuf {
    let disk = cloud.disk(TinyEnding::Hang);
    let out = cloud.env().path(out);
    let printed = cloud.ok(&format!(
        "image bundle {} --prefix tiny --out {} {options}",
        disk.display(),
        out.display()
    ));
    assert_eq!(Path::new(&printed), out.join("tiny.manifest.xml"));
    out.join("tiny.manifest.xml")
}

fn register(cloud: &Cloud, manifest: &Path, name: &str) -> String {
    cloud.ok(&format!(
        "image register --manifest {} --name {name}",
        manifest.display()
    ))
}

fn store(cloud: &Cloud) -> PathBuf {
    cloud.env().state().join("store/v1/ec2")
}

fn root(cloud: &Cloud, instance: &str) -> PathBuf {
    store(cloud)
        .join("instances")
        .join(instance)
        .join("root.raw")
}

const RUN: &str = "--instance-type m3.medium --memory 256MiB";

#[test]
fn the_root_of_an_instance_store_image_goes_with_its_instance() {
    let cloud = Cloud::new();
    let disk = cloud.disk(TinyEnding::Hang);
    let unsigned =
        finish(&mut cloud.command(&format!("image bundle {} --out none", disk.display())));
    assert_eq!(unsigned.code(), 2);
    assert!(
        unsigned.stderr.contains("openssl req"),
        "{}",
        unsigned.stderr
    );

    let manifest = bundle(&cloud, "bundle", &signer(&cloud, "user"));
    let pair = store(&cloud).join("keys/ec2.pem");
    assert_eq!(fs_err::metadata(pair).unwrap().mode() & 0o777, 0o600);

    // As AWS's command line has it.
    let request = json!({
        "Name": "tiny", "ImageLocation": manifest, "VirtualizationType": "hvm",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
    });
    let request = cloud.env().write("register.json", request.to_string());
    let image = cloud.ok(&format!(
        "image register --cli-input-json {}",
        request.display()
    ));
    let shown = cloud.json(&format!("image show {image}"));
    assert_eq!(shown["RootDeviceType"], "instance-store");
    assert_eq!(shown["RootDeviceName"], "/dev/sda1");
    assert_eq!(shown["ImageLocation"], manifest.to_str().unwrap());
    cloud.refused(
        &format!("run {image} --instance-type t2.micro"),
        "UnsupportedOperation",
    );

    let started = cloud.json(&format!("run {image} {RUN} --json"));
    let instance = &started["Instances"][0];
    assert_eq!(instance["RootDeviceType"], "instance-store");
    let id = instance["InstanceId"].as_str().unwrap().to_owned();
    cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));

    let file = root(&cloud, &id);
    let meta = fs_err::metadata(&file).unwrap();
    assert_eq!(meta.len(), 1 << 20);
    assert!(meta.blocks() * 512 < 1 << 18, "zeros are holes");
    assert_eq!(meta.mode() & 0o777, 0o600);
    let bytes = fs_err::read(&file).unwrap();
    assert_eq!(bytes[512..1024], bytes[..512], "the guest has written");
    assert!(bytes[1 << 19..].starts_with(SECRET.as_bytes()));
    let ephemeral = file.with_file_name("ephemeral0.raw");
    assert_eq!(fs_err::metadata(ephemeral).unwrap().len(), 4 << 30);

    cloud.refused(&format!("instance stop {id}"), "UnsupportedOperation");
    cloud.refused(
        &format!("instance create-image {id} --name copy"),
        "UnsupportedOperation",
    );
    // A reboot keeps what was written, also when the machine is another one.
    let kept = |file: &Path| fs_err::read(file).unwrap()[4096..].starts_with(b"kept");
    let open = fs_err::OpenOptions::new().write(true).open(&file).unwrap();
    open.file().write_all_at(b"kept", 4096).unwrap();
    for how in ["--force", "--timeout 1"] {
        cloud.ok(&format!("instance reboot {how} {id}"));
        cloud.ok(&format!("instance wait {id} --timeout 120 --console up"));
        assert!(kept(&file), "{how}");
    }
    cloud.ok(&format!("instance terminate --force {id}"));
    assert_eq!(cloud.state(&id), "terminated");
    assert!(!file.exists());

    // The next instance begins with what was bundled. One whose process is killed has no root any more.
    let id = cloud.ok(&format!("run {image} {RUN}"));
    let file = root(&cloud, &id);
    assert!(!kept(&file));
    kill(cloud.processes(&id)[0]);
    for _ in 0..200 {
        if cloud.processes(&id).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(cloud.state(&id), "terminated");
    let found = cloud.json(&format!("instance list {id} --json"));
    assert_eq!(
        found["Reservations"][0]["Instances"][0]["StateReason"]["Code"],
        "Server.InternalError"
    );
    assert!(!file.exists());
    assert!(manifest.exists(), "the files are their owner's");
}

#[test]
fn a_bundle_that_is_not_whole_is_not_launched() {
    let cloud = Cloud::new();
    let user = signer(&cloud, "user");
    let manifest = bundle(&cloud, "bundle", &user);
    let image = register(&cloud, &manifest, "tiny");
    let part = manifest.with_file_name("tiny.part.00");
    let good = fs_err::read(&part).unwrap();
    let fails = |what: &str| {
        let end = finish(&mut cloud.command(&format!("run {image} {RUN}")));
        assert_eq!(end.code(), 1);
        assert!(end.stderr.contains(what), "{}", end.stderr);
        let found = cloud.json("instance list --json");
        let all = found["Reservations"].as_array().unwrap();
        for instance in all.iter().map(|r| &r["Instances"][0]) {
            assert_eq!(instance["State"]["Name"], "terminated");
            let id = instance["InstanceId"].as_str().unwrap();
            assert!(!root(&cloud, id).exists());
        }
        let told = all.iter().any(|r| {
            let reason = &r["Instances"][0]["StateReason"]["Message"];
            reason.as_str().is_some_and(|text| text.contains(what))
        });
        assert!(told, "{found}");
    };

    let mut bad = good.clone();
    bad[1000] ^= 1;
    fs_err::write(&part, &bad).unwrap();
    fails("part 0 (tiny.part.00) is damaged");
    let copy = finish(&mut cloud.command(&format!("image copy {image} --region eu-west-1")));
    assert!(copy.stderr.contains("is damaged"), "{}", copy.stderr);
    assert_eq!(
        fs_err::read_dir(store(&cloud).join("bundles"))
            .unwrap()
            .count(),
        0
    );

    fs_err::remove_file(&part).unwrap();
    fails("tiny.part.00");
    let again = format!(
        "image register --manifest {} --name again",
        manifest.display()
    );
    cloud.refused(&again, "InvalidManifest");
    fs_err::write(&part, &good[1..]).unwrap();
    cloud.refused(&again, "InvalidManifest");
    fs_err::write(&part, &good).unwrap();

    // A manifest that was changed is not the one that was registered, and its signature is nobody's.
    let text = fs_err::read_to_string(&manifest).unwrap();
    fs_err::write(&manifest, text.replacen("x86_64", "x86-64", 1)).unwrap();
    fails("it was changed");
    cloud.refused(&again, "InvalidManifest");
    fs_err::write(&manifest, &text).unwrap();
    cloud.refused(
        "image register --manifest none.manifest.xml --name none",
        "InvalidManifest",
    );

    // What another account has signed is not the caller's, until it says so; what is sealed for another EC2 never is.
    let other = format!("{again} --account 210987654321");
    let end = cloud.refused(&other, "InvalidManifest");
    assert!(
        end.stderr.contains("--signing-certificate"),
        "{}",
        end.stderr
    );
    let settings = cloud.json(&format!(
        "account --account 210987654321 --signing-certificate {}",
        cloud.env().path("user.crt").display()
    ));
    let id = settings["signingCertificates"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap();
    cloud.ok(&other);
    cloud.ok(&format!(
        "account --account 210987654321 --remove-signing-certificate {id}"
    ));
    cloud.refused(&other.replace("again", "third"), "InvalidManifest");
    let elsewhere = format!(
        "{user} --ec2-certificate {}",
        cloud.env().path("user.crt").display()
    );
    let sealed = bundle(&cloud, "elsewhere", &elsewhere);
    let end = cloud.refused(
        &format!(
            "image register --manifest {} --name elsewhere",
            sealed.display()
        ),
        "InvalidManifest",
    );
    assert!(end.stderr.contains("--ec2-certificate"), "{}", end.stderr);
}

#[test]
fn the_copy_of_a_bundle_needs_no_original() {
    let cloud = Cloud::new();
    // Made for the certificate that others get.
    let certificate = cloud.env().path("ec2.crt");
    cloud.ok(&format!(
        "account --ec2-certificate {}",
        certificate.display()
    ));
    let options = format!(
        "{} --ec2-certificate {}",
        signer(&cloud, "user"),
        certificate.display()
    );
    let manifest = bundle(&cloud, "bundle", &options);
    let image = register(&cloud, &manifest, "tiny");
    cloud.refused(
        &format!("image copy {image} --region eu-west-1 --encrypted"),
        "InvalidRequest",
    );
    let copy = cloud.ok(&format!("image copy {image} --region eu-west-1"));
    let folder = store(&cloud).join("bundles").join(&copy);
    for entry in fs_err::read_dir(&folder).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    fs_err::remove_dir_all(manifest.parent().unwrap()).unwrap();
    cloud.ok("snapshot gc");
    assert!(folder.is_dir(), "an image names it");
    let end = finish(&mut cloud.command(&format!("run {image} {RUN}")));
    assert!(end.stderr.contains("InvalidManifest"), "{}", end.stderr);

    let there = "--region eu-west-1";
    let id = cloud.ok(&format!("run {copy} {RUN} {there}"));
    cloud.ok(&format!(
        "instance wait {id} {there} --timeout 120 --console up"
    ));
    cloud.ok(&format!("instance terminate --force {id} {there}"));
    let out = cloud.env().path("root.raw");
    cloud.ok(&format!(
        "image export {copy} {there} --out {}",
        out.display()
    ));
    let disk = fs_err::read(cloud.disk(TinyEnding::Hang)).unwrap();
    assert_eq!(fs_err::read(&out).unwrap(), disk);

    cloud.ok(&format!("image deregister {copy} {there}"));
    assert!(!folder.exists());
}
