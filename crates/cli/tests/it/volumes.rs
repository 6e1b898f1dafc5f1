//! Volumes beside the root.

use std::os::unix::fs::MetadataExt;

use amiforge_testkit::{check, finish, run, tool, workspace_root};

use crate::web::{Web, build, recipe, steps, verify_sums};

const NOTHING: &str = "\
name: nothing
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Nothing
        action: ExecuteBash
        inputs:
          commands: [\"true\"]
";

#[test]
fn image_further_volumes_have_files_digests_and_a_place_in_the_requests() {
    let web = Web::get();
    let env = web.env();
    let recipe = recipe(&env, NOTHING);
    let text = fs_err::read_to_string(&recipe).unwrap();
    let with = |more: &str| {
        let all = format!("{more}amiforge:\n");
        let text = text
            .replace("amiforge:\n", &all)
            .replace("formats: [raw]", "formats: [raw, qcow2]");
        fs_err::write(&recipe, text).unwrap();
    };
    with(
        "  - deviceName: /dev/sdf\n    ebs: {volumeSize: 3, volumeType: gp3, encrypted: true}\n  \
         - deviceName: /dev/sdg\n    ebs: {volumeSize: 1000, volumeType: gp2}\n  \
         - deviceName: /dev/sdb\n    virtualName: ephemeral0\n  \
         - deviceName: /dev/sdc\n    noDevice: \"\"\n",
    );
    let out = env.path("out");
    let end = env.run(&mut build(&env, &recipe, &out));
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs_err::read(out.join(name)).unwrap()).unwrap()
    };
    for (device, gib) in [("sdf", 3u64), ("sdg", 1000)] {
        let (raw, qcow2) = (
            out.join(format!("disk-{device}.raw")),
            out.join(format!("disk-{device}.qcow2")),
        );
        let meta = fs_err::metadata(&raw).unwrap();
        assert_eq!((meta.len(), meta.blocks()), (gib << 30, 0), "{device}");
        check::qemu_img_check(&qcow2, "qcow2");
        let info = run(tool("qemu-img").args(["info", "--output=json"]).arg(&qcow2)).json();
        assert_eq!(info["virtual-size"], gib << 30, "{info}");
        for file in [&raw, &qcow2] {
            let info = env
                .run(env.amiforge().args(["disk", "info", "--json"]).arg(file))
                .json();
            let manifest = json("manifest.json");
            let volume = manifest["volumes"]
                .as_array()
                .unwrap()
                .iter()
                .find(|v| v["device"] == format!("/dev/{device}"))
                .unwrap();
            assert_eq!(volume["contentDigest"], info["contentDigest"], "{device}");
            assert_eq!(volume["size"], gib << 30);
        }
    }
    let schema = workspace_root().join("docs/schema/manifest.schema.json");
    check::json_schema(&schema, &out.join("manifest.json"));
    check::qemu_img_compare(
        &out.join("disk-sdf.raw"),
        "raw",
        &out.join("disk-sdf.qcow2"),
        "qcow2",
    );
    let manifest = json("manifest.json");
    let files: Vec<&str> = manifest["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["file"].as_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            "disk-sdf.raw",
            "disk-sdf.qcow2",
            "disk-sdg.raw",
            "disk-sdg.qcow2",
            "disk.raw",
            "disk.qcow2"
        ]
    );
    // A terabyte of zeros is not hashed byte by byte; everything else is.
    let sums = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
    for file in &files {
        assert_eq!(
            sums.contains(&format!("  {file}\n")),
            *file != "disk-sdg.raw",
            "{file}\n{sums}"
        );
    }
    assert!(
        end.stderr.contains("disk-sdg.raw is not in SHA256SUMS"),
        "{end}"
    );
    run(tool("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&out));

    // Every EBS volume has the id of its content; to EC2 an empty one is its size, nothing to upload.
    let mappings = manifest["blockDeviceMappings"].as_array().unwrap();
    assert_eq!(mappings.len(), 5);
    for mapping in &mappings[..3] {
        assert!(mapping["ebs"]["snapshotId"].is_string(), "{mapping}");
    }
    assert_eq!(mappings[3]["virtualName"], "ephemeral0");
    assert_eq!(mappings[4]["noDevice"], "");
    let request = json("register-image.json");
    let mappings = request["BlockDeviceMappings"].as_array().unwrap();
    assert!(mappings[0]["Ebs"]["SnapshotId"].is_string(), "{request}");
    assert!(mappings[1]["Ebs"].get("SnapshotId").is_none(), "{request}");
    assert_eq!(mappings[1]["Ebs"]["VolumeSize"], 3);
    assert_eq!(mappings[1]["Ebs"]["Encrypted"], true);
    assert!(mappings[0]["Ebs"].get("Encrypted").is_none(), "{request}");

    // Another set of volumes is another image from the same layers.
    let before = manifest["imageId"].clone();
    with("  - deviceName: /dev/sdf\n    ebs: {volumeSize: 4, volumeType: gp3}\n");
    let end = env.run(&mut build(&env, &recipe, &out));
    assert_eq!(steps(&end), Vec::<String>::new(), "{end}");
    assert_ne!(json("manifest.json")["imageId"], before);
    assert!(!out.join("disk-sdg.raw").exists());
    verify_sums(&out);

    with(
        "  - deviceName: /dev/sdf\n    ebs: {snapshotId: snap-0123456789abcdef0, volumeSize: 4}\n",
    );
    let end = finish(&mut build(&env, &recipe, &out)).expect_code(2);
    for told in ["/dev/sdf starts from snap-0123456789abcdef0", "hint: "] {
        assert!(end.stderr.contains(told), "no `{told}` in\n{end}");
    }
}
