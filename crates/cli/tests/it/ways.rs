//! The ways of running steps: each gives the same bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use amiforge_testkit::{
    Env, FileServer, Finished, ProxyServer, Running, finish, in_container, run, tool,
    workspace_root,
};

use crate::tiny::Tiny;
use crate::web::Web;

/// The ways that take no time to start; the first is what the others are compared with.
const WAYS: [&str; 3] = ["mapped-ids", "single-id", "chroot"];

/// What the kernel, or who plays it, has to do for owners: given away, made as somebody else, in folders that hand
/// down their group, kept and lost set-id bits and capabilities, links, pipes, moves, copies; and the answers to it.
const OWNERS: &str = r#"name: owners
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Give
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              umask 022
              mkdir -p /opt/app/deep /opt/shared /srv/web
              echo one > /opt/app/one; echo two > /opt/app/deep/two
              chown -R 33:34 /opt/app
              chown 35 /opt/app/one; chown :36 /opt/app/deep/two
              test "$(stat -c %u:%g /opt/app/one)" = 35:34
              test "$(stat -c %u:%g /opt/app/deep/two)" = 33:36
              # Groups that folders hand down
              chown 0:50 /opt/shared; chmod 2775 /opt/shared
              touch /opt/shared/file; mkdir /opt/shared/folder; ln -s file /opt/shared/link; mkfifo /opt/shared/pipe
              test "$(stat -c %g /opt/shared/file)" = 50
              test "$(stat -c %g:%a /opt/shared/folder)" = 50:2755
              # Links of their own
              ln -s one /opt/app/link; chown -h 37:38 /opt/app/link
              test "$(stat -c %u:%g /opt/app/link)" = 37:38
              test "$(stat -L -c %u /opt/app/link)" = 35
              mkfifo -m 600 /opt/app/pipe; chown 39 /opt/app/pipe
              # Set-id bits and capabilities that a new owner takes away, or not
              cp /bin/busybox /opt/app/tool; chmod 4755 /opt/app/tool; chown 33 /opt/app/tool
              test "$(stat -c %a /opt/app/tool)" = 755
              setcap cap_net_raw+ep /opt/app/tool
              # As somebody else
              printf 'web:x:33:34::/srv/web:/bin/sh\n' >> /etc/passwd; printf 'web:x:34:\n' >> /etc/group
              chown web:web /srv/web
              su -s /bin/sh -c 'id -u; echo mine > /srv/web/mine; mkdir /srv/web/sub; ln -s mine /srv/web/l; umask 077; touch /srv/web/private' web > /tmp/id
              test "$(cat /tmp/id)" = 33
              test "$(stat -c %u:%g:%a /srv/web/private)" = 33:34:600
              if su -s /bin/sh -c 'chown 0 /srv/web/mine' web 2>/dev/null; then exit 1; fi
              # Moves and copies
              mv /opt/app/deep /opt/deeper; cp -a /opt/app /opt/copy; cp -a /opt/app/link /opt/copy/link2
              test "$(stat -c %u:%g /opt/deeper/two)" = 33:36
              id > /opt/id
              # Folders that come by another name, as dpkg makes them: overlayfs marks what it moves
              mkdir -p /etc/conf.new/sub; touch /etc/conf.new/sub/file; mv /etc/conf.new /etc/conf
      - name: ByAction
        action: CreateFile
        inputs: [{path: /opt/by-action, content: x, owner: web, group: web, permissions: "0640"}]
"#;

/// On a layer with owners: they are there, and change.
const MORE: &str = r#"name: more
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: See
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              test "$(stat -c %u:%g /opt/app/one)" = 35:34
              test "$(stat -c %u:%g /opt/app/link)" = 37:38
              test "$(stat -c %u /opt/app/pipe)" = 39
              test "$(stat -c %u:%g:%a /srv/web/private)" = 33:34:600
              find /opt/app -user 33 | sort > /opt/of-33
              echo more >> /opt/app/one
              chmod 700 /opt/app
              chown -R 0:0 /opt/copy
              chown -h 40 /opt/app/link
              touch /opt/shared/later; cp -a /opt/app/one /opt/cut
              rm /opt/shared/file; touch /opt/shared/file; chgrp 0 /opt/shared/file
              mv /opt/deeper/two /opt/two
              # In the place of one that was there, and beside it
              rm -r /etc/conf/sub; mkdir -p /etc/sub.new/deep; mv /etc/sub.new /etc/conf/sub
              mkdir /opt/fresh.new; mv /opt/fresh.new /opt/fresh
  - name: validate
    steps:
      - name: Look
        action: ExecuteBash
        inputs:
          commands: ['test "$(stat -c %g /opt/shared/later)" = 50', 'test "$(stat -c %u /opt/app/link)" = 40']
"#;

/// For a build that is about its parent.
const FIRST: &str = r#"name: first
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Nothing
        action: ExecuteBash
        inputs:
          commands: ["true"]
"#;

/// How long a build in machines may take, under QEMU's translator and beside other tests.
const MACHINES: Duration = Duration::from_secs(300);

#[test]
fn every_way_gives_the_same_bytes() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write("owners.yaml", OWNERS);
    env.write("more.yaml", MORE);
    let recipe = tiny.container("tiny", &["owners.yaml", "more.yaml"], "");
    let mut first = None;
    for way in WAYS {
        let out = env.path(format!("out-{way}"));
        let mut command = env.amiforge();
        command
            .args(["--sandbox", way, "build"])
            .arg(&recipe)
            .arg("--out")
            .arg(&out)
            // Layers of another way would be taken from the store.
            .env("AMIFORGE_HOME", env.path(format!("home-{way}")));
        let end = finish(&mut command).expect_code(0);
        let text = fs_err::read_to_string(out.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ran: Vec<(&str, &str)> = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| {
                let of = |name: &str| layer["ran"][name].as_str().unwrap();
                (of("sandbox"), of("network"))
            })
            .collect();
        assert_eq!(
            ran,
            [
                ("none", "none"),
                (way, "none"),
                (way, "host"),
                (way, "host")
            ],
            "{end}"
        );
        let layers = listing(&out);
        let blobs = files(&out.join("oci/blobs/sha256"));
        match &first {
            None => first = Some((layers, blobs)),
            Some((shown, first)) => {
                assert_eq!(*shown, layers, "{way}");
                assert!(*first == blobs, "{way}: other bytes");
            }
        }
        // The next build of another way on the same store makes nothing, and a shell of another way sees the same.
        for other in WAYS {
            let mut command = env.amiforge();
            command
                .args(["--sandbox", other, "shell"])
                .arg(&recipe)
                .args([
                    "--",
                    "stat",
                    "-c",
                    "%u:%g",
                    "/opt/app/link",
                    "/opt/shared/later",
                ])
                .env("AMIFORGE_HOME", env.path(format!("home-{way}")));
            let end = finish(&mut command).expect_code(0);
            assert_eq!(end.text(), "40:38\n0:50\n", "{way}, then {other}: {end}");
        }
    }
}

/// Each layer and each validate phase takes a machine, so the parent is made without one, and nothing is validated.
#[test]
fn image_steps_in_a_machine_give_the_same_bytes() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    for (name, text) in [
        ("owners.yaml", OWNERS),
        (
            "more.yaml",
            MORE.split("  - name: validate").next().unwrap(),
        ),
        ("first.yaml", FIRST),
    ] {
        env.write(name, text);
    }
    // What is fetched ahead, and what only the step can fetch: both through a proxy on our loopback, which a machine reaches
    // elsewhere. Nobody else knows the host.
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    fs_err::write(web.join("sum"), "known before\n").unwrap();
    fs_err::write(web.join("plain"), "not known before\n").unwrap();
    let sum = run(tool("sha512sum").arg(web.join("sum"))).text();
    let sum = sum.split(' ').next().unwrap();
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Fetch\n        action: WebDownload\n        inputs:\n          \
             - {{source: 'http://far.test/sum', destination: /opt/sum, checksum: {sum}, algorithm: SHA512}}\n          \
             - {{source: 'http://far.test/plain', destination: /opt/plain}}\n      \
             - name: Look\n        action: ExecuteBash\n        inputs:\n          commands: ['[ -z \"$http_proxy\" ]']\n"
        ),
    );
    let server = FileServer::start(&web);
    let proxy = ProxyServer::start(server.url().split("//").nth(1).unwrap());
    let build = |way: &str, documents: &[&str]| {
        let out = env.path(format!("out-{way}"));
        let mut command = env.amiforge();
        command
            .args(["--sandbox", way, "build"])
            .arg(tiny.container("tiny", documents, ""))
            .arg("--out")
            .arg(&out)
            .env("http_proxy", format!("http://{}/", proxy.address()))
            // The kernel of machines is not there.
            .env("no_proxy", "debian.org");
        // Processes are found by the state folder of the environment.
        let home = match way {
            "micro-vm" => env.state(),
            _ => env.path("home"),
        };
        let mut parent = env.amiforge();
        parent
            .args(["--sandbox", "mapped-ids", "build"])
            .arg(tiny.container("parent", &["first.yaml"], ""))
            .arg("--out")
            .arg(env.path(format!("parent-{way}")))
            .env("AMIFORGE_HOME", &home);
        finish(&mut parent).expect_code(0);
        let end = Running::spawn(command.env("AMIFORGE_HOME", &home)).wait(MACHINES);
        (end.expect_code(0), out)
    };
    let documents = ["owners.yaml", "more.yaml", "fetch.yaml"];
    let (_, here) = build("mapped-ids", &documents);
    let (end, there) = build("micro-vm", &documents);
    let asked: Vec<String> = ["sum", "plain", "sum", "plain"]
        .map(|name| format!("GET http://far.test/{name}"))
        .to_vec();
    assert_eq!(proxy.requests(), asked);
    let logs = there.join("logs");
    let cached = run(tool("grep")
        .arg("-rhoE")
        .arg("[^ ]* comes from the cache")
        .arg(logs));
    let cached = cached.text();
    assert!(cached.contains("http://far.test/sum comes"), "{cached}");
    assert!(!cached.contains("plain"), "{cached}");
    assert!(end.stderr.contains("in a machine of their own"), "{end}");
    let text = fs_err::read_to_string(there.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ran = |n: usize| manifest["layers"][n]["ran"]["sandbox"].as_str().unwrap();
    assert_eq!(ran(1), "mapped-ids");
    assert_eq!([2, 3, 4].map(ran), ["micro-vm"; 3]);
    assert_eq!(listing(&here), listing(&there));
    let blobs = |out: &Path| files(&out.join("oci/blobs/sha256"));
    assert!(blobs(&here) == blobs(&there), "other bytes");
    let left = env.processes();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_a_network_there_is_none_and_it_is_told() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write(
        "looks.yaml",
        "name: looks\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Look\n        \
         action: ExecuteBash\n        inputs:\n          commands:\n            \
         - mkdir -p /opt\n            - '[ ! -e /proc/net ] || grep -c [a-z]: /proc/net/dev > /opt/interfaces'\n            \
         - '[ ! -e /proc/net ] || grep -qx 1 /opt/interfaces'\n            \
         - if echo > /dev/udp/192.0.2.1/9; then exit 1; fi\n",
    );
    let build = |settings: &str| -> Finished {
        let mut command = env.amiforge();
        command
            .arg("build")
            .arg(tiny.container("tiny", &["looks.yaml"], settings))
            .arg("--out")
            .arg(env.path("out"));
        finish(&mut command)
    };
    for way in WAYS {
        let plan = |settings: &str| {
            crate::tiny::planned_layers(
                &env,
                &tiny.container("tiny", &["looks.yaml"], settings),
                &[],
            )
        };
        assert_ne!(plan("  network: none\n"), plan(""), "an input of the layer");
        assert_eq!(plan("  network: host\n"), plan(""), "the default");
        let mut command = env.amiforge();
        command
            .args(["--sandbox", way, "build", "--rebuild"])
            .arg(tiny.container("tiny", &["looks.yaml"], "  network: none\n"))
            .arg("--out")
            .arg(env.path("out"));
        finish(&mut command).expect_code(0);
        let text = fs_err::read_to_string(env.path("out/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["layers"][2]["ran"]["network"], "none", "{text}");
        assert_eq!(manifest["layers"][2]["ran"]["sandbox"], way, "{text}");
    }
    let wrong = build("  network: some\n").expect_code(2);
    assert!(wrong.stderr.contains("`host`"), "{wrong}");
}

/// In a container that allows neither namespaces nor mounts nothing has to be asked for, and the bytes are those of elsewhere.
#[test]
fn a_container_without_namespaces_builds_the_same() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write("owners.yaml", OWNERS);
    let recipe = tiny.container("tiny", &["owners.yaml"], "");
    let build = |mut command: std::process::Command, name: &str| {
        command
            .arg("build")
            .arg(&recipe)
            .arg("--out")
            .arg(env.path(format!("out-{name}")))
            .env("AMIFORGE_HOME", env.path(format!("home-{name}")));
        finish(&mut command).expect_code(0)
    };
    build(env.amiforge(), "host");
    let end = build(contained(&env.amiforge()), "container");
    let told = "steps run in a changed root directory";
    assert!(end.stderr.contains(told), "{end}");
    assert!(
        end.stderr
            .contains("not mapped-ids: cannot create a user namespace"),
        "{end}"
    );
    let text = fs_err::read_to_string(env.path("out-container/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["layers"][2]["ran"]["sandbox"], "chroot", "{text}");
    let blobs = |name: &str| files(&env.path(format!("out-{name}/oci/blobs/sha256")));
    assert!(blobs("host") == blobs("container"), "other bytes");
    let mut doctor = contained(&env.amiforge());
    doctor.arg("doctor");
    let end = finish(&mut doctor);
    assert!(
        end.text().contains(told) || end.stderr.contains(told),
        "{end}"
    );
}

/// A command that has no arguments yet, in a container that allows neither namespaces nor mounts.
fn contained(program: &std::process::Command) -> std::process::Command {
    let mut command = in_container(program.get_program());
    command.env_clear();
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The scripts of systemd's packages call systemd-tmpfiles, which needs the `/proc` that a changed root directory has not. The
/// packages are unpacked already; they are configured again.
#[test]
fn image_a_debian_is_the_same_in_a_container_without_namespaces() {
    let web = Web::get();
    let env = web.env();
    // Of the parent, which both recipes have: unpacked, configured.
    let parent = |out: &Path| -> Vec<serde_json::Value> {
        let text = fs_err::read_to_string(out.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["layers"].as_array().unwrap()[..2].to_vec()
    };
    let first = parent(&web.out());
    let configured = first[1]["id"].as_str().unwrap();
    let layers = env.state().join("store/v1/layers");
    fs_err::remove_file(layers.join(format!("{configured}.layer"))).unwrap();
    let out = env.path("out");
    let mut command = contained(&env.amiforge());
    command
        .args(["build", "--offline", "--no-test", "recipes/debian-minimal"])
        .arg("--out")
        .arg(&out)
        .current_dir(workspace_root());
    let end = Running::spawn(&mut command).wait(MACHINES).expect_code(0);
    let second = parent(&out);
    assert_eq!(second[1]["ran"]["sandbox"], "chroot", "{end}");
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first["id"], second["id"], "{end}");
        assert_eq!(first["digest"], second["digest"], "{end}");
    }
    // Nothing was asked for in vain.
    assert!(!end.stderr.contains("systemd-tmpfiles asked for"), "{end}");
}

#[test]
fn a_way_that_there_is_not_is_told() {
    let env = Env::new();
    let mut command = env.amiforge();
    command.args(["--sandbox", "magic", "doctor"]);
    let end = finish(&mut command).expect_code(2);
    assert!(
        end.stderr
            .contains("mapped-ids, single-id, chroot, micro-vm"),
        "{end}"
    );
    let mut command = env.amiforge();
    command.arg("doctor").env("AMIFORGE_SANDBOX", "magic");
    let end = finish(&mut command).expect_code(2);
    assert!(end.stderr.contains("AMIFORGE_SANDBOX=magic"), "{end}");
}

/// What is in the layers, for people.
fn listing(out: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(out.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let list = |layer: &serde_json::Value| {
        let blob = out
            .join("oci/blobs/sha256")
            .join(layer["digest"].as_str().unwrap());
        let end = run(tool("tar")
            .args([
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "-tvvzf",
            ])
            .arg(blob));
        end.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    layers.iter().flat_map(list).collect()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs_err::read(path).unwrap())
        })
        .collect()
}
