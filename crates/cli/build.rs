//! Builds the guest agent as a static program and leaves it where `agent_blob.rs` embeds it.
//!
//! A nested cargo does it, in a target directory of its own below `OUT_DIR`: a build script cannot
//! wait for the lock of the directory that the outer cargo holds. `cargo build` of the command alone
//! thereby yields everything that a boot proof needs.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Profile in the workspace manifest, made for size.
const PROFILE: &str = "agent";

fn main() -> Result<(), Box<dyn Error>> {
    let variable =
        |name: &str| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir
        .ancestors()
        .nth(2)
        .ok_or("the crate is not in a workspace")?;
    let target = variable("TARGET")?
        .into_string()
        .map_err(|_| "TARGET is no text")?;
    let target_dir = out.join("agent");

    let mut command = Command::new(variable("CARGO")?);
    command
        .current_dir(workspace)
        .args([
            "build",
            "--quiet",
            "--package",
            "amiforge-agent",
            "--bin",
            "amiforge-agent",
        ])
        .args(["--profile", PROFILE, "--target", &target, "--target-dir"])
        .arg(&target_dir)
        // Not the flags of the outer build: the guest's program is the same whatever they are.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace));
    if workspace.join("Cargo.lock").exists() {
        command.arg("--locked");
    }
    // With `--target` these would choose another place or another compiler; the wrapper is clippy's.
    for name in [
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(name);
    }
    let status = command
        .status()
        .map_err(|e| format!("cannot start cargo for the guest agent: {e}"))?;
    if !status.success() {
        return Err(format!("building the guest agent failed ({status}); a static program needs libc.a, on Debian in libc6-dev").into());
    }

    let built = target_dir.join(&target).join(PROFILE);
    let copied = fs::copy(built.join("amiforge-agent"), out.join("amiforge-agent"))?;
    if copied == 0 {
        return Err("the guest agent is empty".into());
    }
    rerun_when_sources_change(&built.join("amiforge-agent.d"), workspace)
}

/// Static, and without the builder's folders in panic messages.
fn rustflags(workspace: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    // The last one that fits counts.
    let homes = [
        env::var_os("HOME"),
        env::var_os("CARGO_HOME"),
        Some(workspace.as_os_str().to_owned()),
    ];
    for (folder, name) in homes.into_iter().zip(["home", "cargo", "amiforge"]) {
        if let Some(folder) = folder.filter(|f| !f.is_empty() && f != "/") {
            flags.push("\u{1f}--remap-path-prefix=");
            flags.push(folder);
            flags.push("=/");
            flags.push(name);
        }
    }
    flags
}

/// The dependency file that cargo writes is `program: source source …` with escaped blanks.
fn rerun_when_sources_change(dep_info: &Path, workspace: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(dep_info)?;
    let mut crates = std::collections::BTreeSet::new();
    for source in text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .flat_map(|(_, list)| split(list))
    {
        let path = Path::new(&source);
        if let Ok(inside) = path.strip_prefix(workspace.join("crates")) {
            crates.extend(
                inside
                    .iter()
                    .next()
                    .map(|name| workspace.join("crates").join(name).join("Cargo.toml")),
            );
        }
        println!("cargo::rerun-if-changed={source}");
    }
    for path in crates
        .into_iter()
        .chain(["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name)))
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

fn split(list: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let Some(word) = words.last_mut() else { break };
        match c {
            '\\' => word.extend(chars.next()),
            ' ' => words.push(String::new()),
            c => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
