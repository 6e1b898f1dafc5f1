//! Layers that are made again while another process uses them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amiforge_testkit::{Env, FileServer, Running, finish, run, tool};
use serde_json::Value;

use crate::tiny::Tiny;

const LIMIT: Duration = Duration::from_secs(300);

/// Two components: what the first makes is another each time, and the second copies it, once `flag` is there. Until then
/// it looks whether the files below are.
fn recipe(env: &Env, tiny: &Tiny<'_>, name: &str, server: &str, flag: &str) -> PathBuf {
    env.write(
        "stamp.yaml",
        "name: stamp\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Stamp\n        \
         action: ExecuteBash\n        inputs: {commands: ['mkdir -p /opt; cat /proc/sys/kernel/random/uuid >/opt/stamp']}\n",
    );
    env.write(
        format!("{name}-copy.yaml"),
        format!(
            "name: copy\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Copy\n        \
             action: ExecuteBash\n        inputs:\n          commands:\n            - |\n              \
             set -e\n              \
             until wget -q -O /dev/null {server}/{flag}; do\n                \
             test -s /opt/stamp; test -x /usr/bin/busybox; ls -R /usr >/dev/null; sleep 0.1\n              \
             done\n              \
             cat /opt/stamp >/opt/copy\n"
        ),
    );
    tiny.container(name, &["stamp.yaml", &format!("{name}-copy.yaml")], "")
}

fn build(env: &Env, recipe: &Path, out: &str, args: &[&str]) -> Command {
    let mut command = env.amiforge();
    command
        .args(["build", "--no-test", "--out"])
        .arg(env.path(out))
        .arg(recipe)
        .args(args);
    command
}

/// Files of an image, by umoci.
fn files(env: &Env, name: &str, out: &str) -> [String; 2] {
    let image = format!("{}:tiny:1.0.0", env.path(out).join("oci").display());
    let to = env.path(format!("{out}.{name}"));
    run(tool("umoci")
        .args(["raw", "unpack", "--rootless", "--image", &image])
        .arg(&to));
    ["stamp", "copy"].map(|file| fs_err::read_to_string(to.join("opt").join(file)).unwrap())
}

/// The layers of the store are those of the manifest, and whole.
fn verify_store(env: &Env, recipe: &Path, out: &str) {
    let manifest = fs_err::read(env.path(out).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let end = finish(&mut build(env, recipe, &format!("{out}.again"), &[])).expect_code(0);
    assert!(end.stderr.contains("4 of 4 from the store"), "{end}");
    let again = fs_err::read(env.path(format!("{out}.again/manifest.json"))).unwrap();
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(again["layers"], manifest["layers"]);
}

#[test]
fn two_rebuilds_at_once_each_end_with_layers_that_belong_together() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    let server = FileServer::start(&web);
    let recipe = recipe(&env, &tiny, "both", &server.url(), "flag");
    let mut first = Running::spawn(&mut build(&env, &recipe, "first", &["--rebuild"]));
    first.wait_until("its last step", LIMIT, |_| !server.requests().is_empty());
    let mut second = Running::spawn(&mut build(&env, &recipe, "second", &["--rebuild"]));
    second.wait_for_stderr("for another build", LIMIT);
    fs_err::write(web.join("flag"), "").unwrap();
    let first = first.wait(LIMIT).expect_code(0);
    let second = second.wait(LIMIT).expect_code(0);
    let [a, b] = ["first", "second"].map(|out| files(&env, "files", out));
    assert_eq!(a[0], a[1], "{first}");
    assert_eq!(b[0], b[1], "{second}");
    assert_ne!(a[0], b[0], "each made them again");
    // What the store has is whole, and that of the second.
    verify_store(&env, &recipe, "second");
}

#[test]
fn a_layer_that_is_made_again_stays_as_it_is_for_the_step_that_runs_on_it() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    fs_err::write(web.join("now"), "").unwrap();
    let server = FileServer::start(&web);
    let url = server.url();
    let slow = recipe(&env, &tiny, "slow", &url, "later");
    let quick = recipe(&env, &tiny, "quick", &url, "now");
    finish(&mut build(&env, &quick, "before", &[])).expect_code(0);
    let mut running = Running::spawn(&mut build(&env, &slow, "slow", &[]));
    let asked = |server: &FileServer| server.requests().iter().any(|r| r.contains("later"));
    running.wait_until("its step", LIMIT, |_| asked(&server));
    // All layers below it, while it looks at them.
    for out in ["again", "and-again"] {
        finish(&mut build(&env, &quick, out, &["--rebuild"])).expect_code(0);
    }
    let roots = env.state().join("store/v1/roots");
    let gone = || {
        let names = fs_err::read_dir(&roots).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".gone-")).count()
    };
    assert!(gone() > 0, "they are in use");
    fs_err::write(web.join("later"), "").unwrap();
    let end = running.wait(LIMIT).expect_code(0);
    let [stamp, copy] = files(&env, "files", "slow");
    assert_eq!(stamp, copy, "{end}");
    // Whoever comes next clears up.
    finish(&mut build(&env, &quick, "last", &["--rebuild"])).expect_code(0);
    assert_eq!(gone(), 0);
    verify_store(&env, &quick, "last");
}
