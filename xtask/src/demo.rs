//! `cargo xtask demo`: from a fresh clone to an image that has booted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::util::{Missing, cargo, root, run as run_shown, show, step, target_dir};

const RECIPE: &str = "recipes/debian-web";
const OUT: &str = "out/demo";

/// Installs what is missing, builds the program, builds and boots the recipe, says what to do next.
pub(crate) fn run() -> Result<()> {
    step("set-up", || setup::run(setup::Purpose::Demo))?;
    step("amiforge itself", || {
        run_shown(cargo().args(["build", "--release", "--locked", "--package", "amiforge"]))
    })?;
    step("image", || build(&target_dir().join("release/amiforge")))?;
    let manifest = root().join(OUT).join("manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs_err::read(manifest)?)?;
    eprintln!(
        "\n{} {} is {}",
        text(&manifest["name"]),
        text(&manifest["version"]),
        text(&manifest["imageId"])
    );
    for (firmware, proof) in manifest["bootProof"].as_object().into_iter().flatten() {
        let verdict = if proof["passed"] == true {
            "booted, tests passed"
        } else {
            "FAILED"
        };
        eprintln!(
            "  {firmware:<5} {verdict} ({:.0} s)",
            proof["seconds"].as_f64().unwrap_or(0.0)
        );
    }
    eprintln!("The image and its papers are in {OUT}:");
    for artifact in manifest["artifacts"].as_array().into_iter().flatten() {
        println!("{}", Path::new(OUT).join(text(&artifact["file"])).display());
    }
    eprintln!("\nBoot it by hand (nothing is written to the image; leave with ctrl-A X):\n");
    eprintln!("  {}\n", show(&by_hand()));
    eprintln!("and, from another terminal, ask it for its page:  curl http://127.0.0.1:8080/");
    Ok(())
}

/// Runs the build in the folder that a reader would run it in. Its exit code 3 is ours.
fn build(amiforge: &Path) -> Result<()> {
    let mut command = Command::new(amiforge);
    command
        .current_dir(root())
        .args(["build", RECIPE, "--out", OUT]);
    eprintln!("$ {}", show(&command));
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", amiforge.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(3) => bail!(Missing(
            "the build lacks something on this machine; `amiforge doctor` says what".to_owned()
        )),
        _ => bail!("the build failed ({status}); its logs are in {OUT}.failed"),
    }
}

/// The command that boots the demo's image on a terminal, with the guest's port 80 on port 8080.
fn by_hand() -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35", "-m", "1024", "-nographic"]);
    // Emulation everywhere: a present /dev/kvm does not promise that guests run under it.
    command.args(["-accel", "tcg"]);
    command.arg("-drive").arg(format!(
        "file={OUT}/disk.qcow2,format=qcow2,if=virtio,snapshot=on"
    ));
    command.args([
        "-nic",
        "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80",
    ]);
    command
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
