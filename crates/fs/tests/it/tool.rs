//! Running the outside checkers.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a tool in the C locale with the system folders in the path.
pub fn run(program: &str, args: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("MTOOLS_SKIP_CHECK", "0")
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"))
}

/// Standard output of a tool that must succeed.
pub fn stdout(program: &str, args: &[&str]) -> Vec<u8> {
    let out = run(program, args);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

pub fn text(program: &str, args: &[&str]) -> String {
    String::from_utf8_lossy(&stdout(program, args)).into_owned()
}

/// A `debugfs` request; its complaints fail the test.
pub fn debugfs(image: &Path, request: &str) -> String {
    let out = run("debugfs", &["-R", request, &image.to_string_lossy()]);
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(errors.lines().count() <= 1, "debugfs {request}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// `e2fsck -fn` must be content, and say nothing but the names of its passes and the summary.
pub fn e2fsck(image: &Path) {
    let out = run("e2fsck", &["-fn", &image.to_string_lossy()]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    let all = format!("{text}\n{errors}");
    assert!(out.status.success(), "e2fsck: {}\n{all}", out.status);
    for line in text.lines() {
        let known =
            line.starts_with("Pass ") || line.contains(" files (") && line.ends_with(" blocks");
        assert!(known, "e2fsck says {line:?} in\n{all}");
    }
    assert!(errors.lines().count() <= 1, "{all}");
}
