//! What a build leaves, and what the outside checkers and a guest say of it.

use amiforge_testkit::{Env, check, disk, finish, workspace_root};
use std::path::Path;

use crate::web::{Web, names, recipe, steps, verify_sums};

fn json(path: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

#[test]
fn image_output_folder_has_every_file_and_says_what_was_proven() {
    let web = Web::get();
    let out = web.out();
    for name in [
        "SHA256SUMS",
        "block-device-mappings.json",
        "boot-report.json",
        "console-bios.log",
        "console-uefi.log",
        "disk.qcow2",
        "disk.raw",
        "lock.json",
        "logs",
        "manifest.json",
        "packages.json",
        "plan.json",
        "register-image.json",
    ] {
        assert!(out.join(name).exists(), "no {name} in {:?}", names(&out));
    }
    verify_sums(&out);
    for (folder, phase) in names(&out.join("logs")).iter().zip(["build", "validate"]) {
        assert!(
            folder.starts_with("TOE_") && folder.ends_with(phase),
            "{folder}"
        );
        let folder = out.join("logs").join(folder);
        for name in ["console.log", "application.log", "chaining.json"] {
            assert!(
                !fs_err::read(folder.join(name)).unwrap().is_empty(),
                "{name} is empty"
            );
        }
        let detail = json(folder.join("detailedoutput.json"));
        assert_eq!(detail["status"], "success");
        assert_eq!(detail["documents"][0]["name"], "web");
    }
    assert_eq!(names(&out.join("logs")).len(), 2);

    let report = json(out.join("boot-report.json"));
    let manifest = json(out.join("manifest.json"));
    let schema = workspace_root().join("docs/schema/manifest.schema.json");
    check::json_schema(&schema, &out.join("manifest.json"));
    assert_eq!(report["passed"], true);
    assert_eq!(report["imageId"], manifest["imageId"]);
    for firmware in ["bios", "uefi"] {
        let run = &report["runs"][firmware];
        assert_eq!(
            (&run["passed"], &run["poweredOff"]),
            (&true.into(), &true.into()),
            "{firmware}"
        );
        let milestones: Vec<_> = run["milestones"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["name"].as_str().unwrap())
            .collect();
        for wanted in [
            "firmware",
            "bootloader",
            "kernel",
            "init",
            "target",
            "agent",
            "power-off",
        ] {
            assert!(
                milestones.contains(&wanted),
                "{firmware} reached {milestones:?}"
            );
        }
        let volume = &run["volumes"][0];
        assert!(volume["digestBefore"].is_string(), "{volume}");
        assert_eq!(volume["digestBefore"], volume["digestAfter"]);
        assert_eq!(run["tests"]["guest"]["efi"], firmware == "uefi");
        let document = &run["tests"]["run"]["documents"][0];
        let fetched = document["phases"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == "test")
            .map(|p| p["steps"][0].clone())
            .unwrap();
        assert_eq!(
            (&fetched["name"], &fetched["status"]),
            (&"FetchPage".into(), &"success".into())
        );
        assert!(
            fetched["outputs"][0]["stdout"]
                .as_str()
                .is_some_and(|page| page.contains("<h1>Hello from amiforge</h1>")),
            "{fetched}"
        );
        let console = fs_err::read(out.join(format!("console-{firmware}.log"))).unwrap();
        assert!(
            String::from_utf8_lossy(&console).contains("Linux version"),
            "{firmware}"
        );
        assert_eq!(
            manifest["bootProof"][firmware]["passed"], true,
            "{}",
            manifest["bootProof"]
        );
    }

    let packages = json(out.join("packages.json"));
    for wanted in ["nginx", "linux-image-cloud-amd64", "cloud-init", "dpkg"] {
        let found = packages
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == wanted);
        assert!(found.is_some_and(|p| p["version"].is_string()), "{wanted}");
    }
}

#[test]
fn image_build_prints_data_on_stdout_and_plain_lines_on_stderr() {
    let web = Web::get();
    let id = json(web.out().join("manifest.json"))["imageId"]
        .as_str()
        .unwrap()
        .to_owned();
    let stdout = web.stdout();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(stdout.starts_with(&format!("{id} /")), "{stdout}");
    let stderr = web.stderr();
    assert!(
        !stderr.contains(['\u{1b}', '\r']),
        "no control characters in a pipe"
    );
    for line in [
        "resolve debian:bookworm",
        "layer",
        "step web build/",
        "emit disk.raw",
        "boot bios passed",
    ] {
        assert!(stderr.contains(line), "no `{line}` in\n{stderr}");
    }
}

#[test]
fn image_disk_is_clean_for_the_outside_checkers() {
    let web = Web::get();
    let env = Env::new();
    let (raw, qcow2) = (web.out().join("disk.raw"), web.out().join("disk.qcow2"));
    check::sgdisk_verify(&raw);
    check::qemu_img_check(&qcow2, "qcow2");
    check::qemu_img_compare(&raw, "raw", &qcow2, "qcow2");
    let parts = disk::partitions(&raw);
    let slots: Vec<_> = parts.iter().map(|p| p.number).collect();
    assert_eq!(slots, [1, 2, 3], "root, ESP, BIOS boot");
    assert!(
        parts[0].offset > parts[1].offset && parts[0].offset > parts[2].offset,
        "the root can grow"
    );

    let esp = parts[1].extract(&raw, &env.path("esp"));
    check::fsck_vfat(&esp);
    let files = check::fat_list(&esp);
    assert!(
        files
            .iter()
            .any(|f| f.eq_ignore_ascii_case("/EFI/BOOT/BOOTX64.EFI")),
        "{files:?}"
    );

    let root = parts[0].extract(&raw, &env.path("root"));
    check::e2fsck(&root);
    let stat = |path: &str| {
        String::from_utf8_lossy(&check::debugfs(&root, &format!("stat {path}"))).into_owned()
    };
    for (path, mode, uid, gid) in [
        ("/usr/bin/passwd", "04755", 0, 0),
        ("/etc/shadow", "0640", 0, 42),
        ("/etc/passwd", "0644", 0, 0),
        ("/tmp", "01777", 0, 0),
        ("/var/mail", "02775", 0, 8),
        ("/srv/web/index.html", "0644", 0, 0),
    ] {
        let text = stat(path);
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |label: &str| {
            words
                .iter()
                .position(|w| *w == label)
                .map(|at| words[at + 1])
                .unwrap_or_default()
        };
        assert_eq!(
            (after("Mode:"), after("User:"), after("Group:")),
            (mode, uid.to_string().as_str(), gid.to_string().as_str()),
            "{path}\n{text}"
        );
    }
    for page in ["/srv/web/index.html", "/var/www/html/index.html"] {
        let text = String::from_utf8(check::ext4_cat(&root, page)).unwrap();
        assert!(
            text.contains("<h1>Hello from amiforge</h1>"),
            "{page}: {text}"
        );
    }
}

#[test]
fn image_can_be_looked_into_in_both_formats() {
    let web = Web::get();
    let env = Env::new();
    for name in ["disk.raw", "disk.qcow2"] {
        let image = web.out().join(name);
        let inspect = |args: &[&str]| env.run(env.amiforge().arg("inspect").arg(&image).args(args));
        assert!(
            inspect(&["cat", "/etc/debian_version"])
                .text()
                .starts_with("12.")
        );
        let stat = inspect(&["stat", "/etc/shadow", "--json"]).json();
        assert_eq!(
            (&stat["mode"], &stat["gid"]),
            (&"0640".into(), &42.into()),
            "{stat}"
        );
        let esp = inspect(&["--partition", "2", "ls", "/EFI/BOOT"]).text();
        assert!(esp.to_uppercase().contains("BOOTX64.EFI"), "{esp}");
    }
    // An output folder stands for its root volume.
    let end = env.run(
        env.amiforge()
            .arg("inspect")
            .arg(web.out())
            .args(["ls", "/srv/web"]),
    );
    assert!(end.text().contains("index.html"), "{end}");
    let end = env.run(
        env.amiforge()
            .args(["disk", "info", "--json"])
            .arg(web.out().join("disk.qcow2")),
    );
    let manifest = json(web.out().join("manifest.json"));
    assert_eq!(
        end.json()["contentDigest"],
        manifest["volumes"][0]["contentDigest"],
        "{manifest}"
    );
}

#[test]
fn image_test_verb_boots_a_finished_output_again() {
    let web = Web::get();
    let env = web.env();
    let end = env.run(
        env.amiforge()
            .env_remove("TMPDIR")
            .args(["test", "--firmware", "bios", "--json"])
            .arg(web.out()),
    );
    let report = end.json();
    assert_eq!(report["passed"], true, "{end}");
    assert_eq!(report["runs"].as_object().map(|r| r.len()), Some(1));
    assert!(
        steps(&end).iter().any(|s| s.contains("test/FetchPage")),
        "{end}"
    );
    assert_eq!(env.processes(), Vec::<String>::new());
    verify_sums(&web.out());
}

const FAILS_IN_THE_GUEST: &str = "\
name: fails
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Mark
        action: ExecuteBash
        inputs:
          commands: [echo built > /etc/mark]
  - name: test
    steps:
      - name: Good
        action: ExecuteBash
        inputs:
          commands:
            - cat /etc/mark
            - for disk in /sys/block/nvme*; do echo $(cat $disk/device/serial) $(cat $disk/size); done
      - name: Bad
        action: ExecuteBash
        inputs:
          commands:
            - echo the guest says no
            - exit 9
";

#[test]
fn image_a_failing_test_phase_fails_the_build_and_keeps_the_logs() {
    let web = Web::get();
    let env = web.env();
    let recipe = recipe(&env, FAILS_IN_THE_GUEST);
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::write(
        &recipe,
        text.replace(
            "amiforge:\n",
            "  - deviceName: /dev/sdf\n    ebs: {volumeSize: 3, volumeType: gp3}\n  \
             - deviceName: /dev/sdb\n    virtualName: ephemeral0\namiforge:\n",
        ),
    )
    .unwrap();
    let out = env.path("out");
    let end = finish(
        env.amiforge()
            .env_remove("TMPDIR")
            .args(["build", "--offline", "--out"])
            .arg(&out)
            .arg(&recipe),
    )
    .expect_code(1);
    let (_, error) = end
        .stderr
        .split_once("error: ")
        .unwrap_or_else(|| panic!("{end}"));
    for told in ["bios", "Bad", "exit 9", "the guest says no", "out.failed"] {
        assert!(error.contains(told), "no `{told}` in\n{end}");
    }
    assert!(end.stdout.is_empty() && !out.exists(), "{end}");
    let failed = env.path("out.failed");
    let report = json(failed.join("boot-report.json"));
    assert_eq!(report["passed"], false);
    assert_eq!(
        report["runs"].as_object().map(|r| r.len()),
        Some(1),
        "BIOS only, as the recipe says"
    );
    // The guest had the second volume, the one of the file, with its size; and not the instance store.
    let run = &report["runs"]["bios"];
    let seen = run["tests"]["run"]["documents"][0]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "test")
        .and_then(|p| p["steps"][0]["outputs"][0]["stdout"].as_str())
        .unwrap_or_else(|| panic!("{run}"))
        .to_owned();
    let mut sectors: Vec<&str> = seen
        .lines()
        .filter(|l| l.starts_with("vol"))
        .filter_map(|l| l.split_once(' '))
        .map(|(_, size)| size)
        .collect();
    sectors.sort_unstable();
    assert_eq!(sectors, ["4194304", "6291456"], "{seen}");
    let data = &run["volumes"][1];
    assert_eq!(
        (&data["device"], &data["file"]),
        (&"/dev/sdf".into(), &"disk-sdf.raw".into()),
        "{data}"
    );
    assert!(data["digestBefore"].is_string(), "{data}");
    assert_eq!(data["digestBefore"], data["digestAfter"]);
    for name in ["plan.json", "lock.json", "console-bios.log", "logs"] {
        assert!(
            failed.join(name).exists(),
            "no {name}: {:?}",
            names(&failed)
        );
    }
    assert_eq!(env.processes(), Vec::<String>::new());
}
