//! Builds that fail, are interrupted, killed, or run out of room: one clear error, nothing
//! half-written, and the next run works.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use amiforge_testkit::{Env, Running, SmallDisk, finish};

use crate::web::{Web, build, names, recipe, steps, verify_sums};

const LIMIT: Duration = Duration::from_secs(300);

/// Sleeps for as long as a parameter says. Recognised among the processes of the host by its odd length.
const SLEEPER: &str = "\
name: sleeper
schemaVersion: 1.0
parameters:
  - Seconds:
      type: string
      default: '0'
      description: How long
phases:
  - name: build
    steps:
      - name: Before
        action: ExecuteBash
        inputs:
          commands: [echo before > /etc/before]
      - name: Sleep
        action: ExecuteBash
        inputs:
          commands:
            - echo sleeping for {{ Seconds }}
            - sleep {{ Seconds }}
            - echo {{ Seconds }} > /etc/slept
";
const LONG: &str = "86321";

/// Command lines that contain `text`: what the build started inside a sandbox has no variable of ours.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) && entry.file_name() != *std::process::id().to_string() {
            found.push(line);
        }
    }
    found
}

/// Nothing of the environment, and no sleeper, is alive; children of a killed program get a moment to notice.
#[track_caller]
fn nobody_is_left(env: &Env) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = [env.processes(), processes_with(&format!("sleep {LONG}"))].concat();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "left behind: {left:#?}");
        sleep(Duration::from_millis(50));
    }
}

fn layers(env: &Env) -> Vec<String> {
    names(&env.state().join("store/v1/layers"))
}

/// The store's temporary folder is empty, and beside the output folder stands nothing unfinished.
#[track_caller]
fn nothing_is_half_done(env: &Env) {
    assert_eq!(
        names(&env.state().join("store/v1/tmp")),
        Vec::<String>::new()
    );
    let beside: Vec<String> = names(&env.path(""))
        .into_iter()
        .filter(|n| n.contains("tmp-"))
        .collect();
    assert_eq!(beside, Vec::<String>::new());
}

#[track_caller]
fn sleep_is_over(env: &Env, out: &Path, seconds: &str) {
    verify_sums(out);
    let slept = env.run(
        env.amiforge()
            .arg("inspect")
            .arg(out)
            .args(["cat", "/etc/slept"]),
    );
    assert_eq!(slept.text(), format!("{seconds}\n"));
}

const FAILS: &str = "\
name: fails
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Good
        action: ExecuteBash
        inputs:
          commands: [echo good > /etc/good]
      - name: Bad
        action: ExecuteBash
        inputs:
          commands:
            - echo on stdout
            - echo on stderr >&2
            - exit 7
      - name: Never
        action: ExecuteBash
        inputs:
          commands: [echo never]
";

#[test]
fn image_a_failing_step_is_shown_and_leaves_nothing() {
    let web = Web::get();
    let env = web.env();
    let out = env.path("out");
    let before = layers(&env);
    let recipe = recipe(&env, FAILS);
    let end = finish(&mut build(&env, &recipe, &out)).expect_code(1);
    let (progress, error) = end
        .stderr
        .split_once("error: ")
        .unwrap_or_else(|| panic!("{end}"));
    for told in [
        "component.yaml",
        "phase build",
        "Bad",
        "exit 7",
        "on stdout",
        "on stderr",
        "out.failed",
    ] {
        assert!(error.contains(told), "no `{told}` in the error\n{end}");
    }
    assert!(
        progress.contains("build/Good") && !progress.contains("build/Never"),
        "{end}"
    );
    assert!(end.stdout.is_empty() && !out.exists(), "{end}");
    assert_eq!(layers(&env), before);
    nothing_is_half_done(&env);
    let logs = env.path("out.failed/logs");
    let toe = names(&logs);
    assert_eq!(toe.len(), 1, "{toe:?}");
    let console = fs_err::read_to_string(logs.join(&toe[0]).join("console.log")).unwrap();
    assert!(console.contains("Bad"), "{console}");
    assert!(env.path("out.failed/plan.json").exists());

    fs_err::write(
        recipe.with_file_name("component.yaml"),
        FAILS.replace("exit 7", "exit 0"),
    )
    .unwrap();
    let end = env.run(&mut build(&env, &recipe, &out));
    assert_eq!(steps(&end).len(), 3, "{end}");
    assert_eq!(
        end.stderr.matches("   cached ").count(),
        2,
        "the parent is taken from the store\n{end}"
    );
    verify_sums(&out);
}

#[test]
fn image_ctrl_c_in_a_step_ends_everything() {
    let web = Web::get();
    let env = web.env();
    let recipe = recipe(&env, SLEEPER);
    let out = env.path("out");
    let before = layers(&env);
    let mut running = Running::spawn(
        build(&env, &recipe, &out)
            .arg("--param")
            .arg(format!("Seconds={LONG}")),
    );
    running.wait_for_stderr(&format!("sleeping for {LONG}"), LIMIT);
    running.interrupt();
    let end = running.wait(LIMIT).expect_code(130);
    assert!(end.stderr.contains("interrupted"), "{end}");
    nobody_is_left(&env);
    assert!(!out.exists() && end.stdout.is_empty());
    assert!(!env.path("out.failed").exists(), "nothing failed\n{end}");
    nothing_is_half_done(&env);
    assert_eq!(layers(&env), before);

    env.run(build(&env, &recipe, &out).args(["--param", "Seconds=0"]));
    sleep_is_over(&env, &out, "0");
    nothing_is_half_done(&env);
}

#[test]
fn image_ctrl_c_in_a_boot_ends_the_guest() {
    let web = Web::get();
    let env = web.env();
    let mut running = Running::spawn(
        env.amiforge()
            .args(["test", "--firmware", "bios"])
            .arg(web.out()),
    );
    running.wait_for_stderr("bootloader", LIMIT);
    let qemu = web.out().join("disk.raw").display().to_string();
    let guests = || processes_with(&qemu);
    assert!(
        !guests().is_empty(),
        "the guest is recognised while it runs"
    );
    running.interrupt();
    running.wait(LIMIT).expect_code(130);
    nobody_is_left(&env);
    assert_eq!(guests(), Vec::<String>::new());
    verify_sums(&web.out());
}

#[test]
fn image_kill_9_leaves_old_or_new() {
    let web = Web::get();
    let env = web.env();
    let recipe = recipe(&env, SLEEPER);
    let out = env.path("out");
    env.run(build(&env, &recipe, &out).args(["--param", "Seconds=0"]));
    let mut old = "0".to_owned();
    let long = LONG.to_owned();
    // Where it is killed, and how long the step may sleep for the build to get there.
    for (new, seconds, at) in [
        ("0.01", &long, format!("sleeping for {LONG}")),
        ("0.02", &"0.02".to_owned(), "resolve ".to_owned()),
        ("0.03", &"0.03".to_owned(), "done ".to_owned()),
        ("0.04", &"0.04".to_owned(), "emit ".to_owned()),
        ("0.05", &"0.05".to_owned(), "wrote ".to_owned()),
    ] {
        let param = |value: &str| format!("Seconds={value}");
        let mut running = Running::spawn(
            build(&env, &recipe, &out)
                .arg("--param")
                .arg(param(seconds)),
        );
        running.wait_for_stderr(&at, LIMIT);
        running.kill9();
        nobody_is_left(&env);
        let found = env
            .run(
                env.amiforge()
                    .arg("inspect")
                    .arg(&out)
                    .args(["cat", "/etc/slept"]),
            )
            .text();
        assert!(
            [&old, seconds].contains(&&found.trim_end().to_owned()),
            "killed at `{at}`: {found}"
        );
        verify_sums(&out);

        let end = env.run(build(&env, &recipe, &out).arg("--param").arg(param(new)));
        assert!(!end.stderr.contains("warning"), "{end}");
        sleep_is_over(&env, &out, new);
        nothing_is_half_done(&env);
        old = new.to_owned();
    }
}

#[test]
fn image_a_full_disk_under_the_output_leaves_nothing_half_written() {
    let web = Web::get();
    let env = web.env();
    let small = SmallDisk::new(64 << 20);
    let recipe = recipe(&env, SLEEPER);
    let out = small.path().join("out");
    let end = finish(&mut build(&env, &recipe, &out)).expect_code(1);
    let (_, error) = end
        .stderr
        .split_once("error: ")
        .unwrap_or_else(|| panic!("{end}"));
    assert!(error.contains("No space left"), "{end}");
    assert!(
        error.contains(&small.path().display().to_string()),
        "the error names the place\n{end}"
    );
    assert!(!out.exists(), "{end}");
    let left = names(small.path());
    assert!(left.iter().all(|n| n == "out.failed"), "{left:?}");
    assert!(
        !names(&small.path().join("out.failed"))
            .iter()
            .any(|n| n.starts_with("disk")),
        "logs and plan only"
    );
    nothing_is_half_done(&env);
    // With room it works, and takes the layer from the store.
    let end = env.run(&mut build(&env, &recipe, &env.path("out")));
    assert_eq!(steps(&end), Vec::<String>::new(), "{end}");
}

#[test]
fn image_a_full_disk_under_the_store_leaves_nothing_half_written() {
    let web = Web::get();
    let env = web.env();
    // Room for the store's folders and the first of the packages, not for a layer.
    let small = SmallDisk::new(100 << 20);
    symlink(env.state().join("cache"), small.path().join("cache")).unwrap();
    let recipe = recipe(&env, SLEEPER);
    let out = env.path("out");
    let end = finish(build(&env, &recipe, &out).env("AMIFORGE_HOME", small.path())).expect_code(1);
    let (_, error) = end
        .stderr
        .split_once("error: ")
        .unwrap_or_else(|| panic!("{end}"));
    assert!(error.contains("No space left"), "{end}");
    assert!(
        error.contains(&small.path().display().to_string()),
        "the error names the place\n{end}"
    );
    assert!(!out.exists(), "{end}");
    let store = small.path().join("store/v1");
    assert_eq!(names(&store.join("layers")), Vec::<String>::new());
    assert_eq!(names(&store.join("tmp")), Vec::<String>::new());
}
