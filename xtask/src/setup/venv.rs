//! The Python environment with the AWS command line and its local counterpart, for the tests that
//! show our requests to a real client.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::util::{root, run, stdout};

/// Fills `target/tools/aws-venv` from `xtask/requirements.txt`. Done again only when that file or
/// the system's Python changed; an interrupted try leaves no stamp and starts over.
pub(super) fn ensure() -> Result<()> {
    let requirements = root().join("xtask/requirements.txt");
    let dir = root().join("target/tools/aws-venv");
    let stamp = dir.join("installed.txt");
    let wanted = fs_err::read_to_string(&requirements)?;
    let python = stdout(Command::new("python3").args(["-c", "import sys; print(sys.version)"]))?;
    let wanted = format!("{wanted}\n# for Python {python}");
    if fs_err::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    if dir.exists() {
        fs_err::remove_dir_all(&dir)?;
    }
    fs_err::create_dir_all(&dir)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    let tries = 3;
    for attempt in 1..=tries {
        let done = run(Command::new(dir.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
            ])
            .args([
                "--retries",
                "5",
                "--timeout",
                "60",
                "--prefer-binary",
                "--requirement",
            ])
            .arg(&requirements));
        match done {
            Ok(()) => break,
            Err(error) if attempt == tries => {
                return Err(error).context("the Python packages of the tests");
            }
            Err(error) => {
                eprintln!("{error:#}; trying again");
                thread::sleep(Duration::from_secs(5 * attempt));
            }
        }
    }
    fs_err::write(&stamp, wanted)?;
    Ok(())
}
