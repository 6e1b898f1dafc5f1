//! Ubuntu, by its own mirror and key. Among the guests that are tested apart: it takes another archive to be there.

use amiforge_testkit::{Env, finish, run, tool};
use serde_json::Value;

const ARCHIVE: &str = "http://archive.ubuntu.com/ubuntu";
/// What its keys come in, and the SHA-256 of that.
const KEYRING: &str = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb";
const KEYRING_SHA256: &str = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8";

const COMPONENT: &str = "\
name: hello
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Install
        action: ExecuteBash
        inputs: {commands: [apt-get update -q, apt-get install -qy hello]}
  - name: test
    steps:
      - name: Runs
        action: ExecuteBash
        inputs: {commands: ['grep -qx ID=ubuntu /etc/os-release', hello, systemctl is-active systemd-networkd]}
";

#[test]
fn image_guest_of_ubuntu_runs_its_steps_and_boots() {
    let env = Env::new();
    let deb = env.path("keyring.deb");
    let fetch = "import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])";
    run(tool("python3")
        .args(["-c", fetch])
        .arg(format!("{ARCHIVE}/{KEYRING}"))
        .arg(&deb));
    let sum = run(tool("sha256sum").arg(&deb)).text();
    assert!(sum.starts_with(KEYRING_SHA256), "{sum}");
    run(tool("dpkg-deb")
        .arg("-x")
        .arg(&deb)
        .arg(env.path("keyring")));
    env.write("hello.yaml", COMPONENT);
    let keyring = env.path("keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg");
    let recipe = env.write(
        "recipe.yaml",
        format!(
            "name: ubuntu-hello\nsemanticVersion: 1.0.0\nparentImage: debian:noble\n\
             components: [{{componentArn: ./hello.yaml}}]\n\
             amiforge:\n  formats: [raw]\n  apt:\n    mirror: {ARCHIVE}\n    \
             suites: [noble, noble-updates, noble-security]\n    components: [main, universe]\n    keyring: {}\n",
            keyring.display()
        ),
    );
    let out = env.path("out");
    let mut command = env.amiforge();
    finish(
        command
            .args(["build", "--check"])
            .arg(&recipe)
            .arg("--out")
            .arg(&out),
    )
    .expect_code(0);
    let report = fs_err::read(out.join("boot-report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    for firmware in ["bios", "uefi"] {
        assert_eq!(report["runs"][firmware]["passed"], true, "{report:#}");
    }
}
