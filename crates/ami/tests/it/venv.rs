//! The Python tools that `xtask/requirements.txt` pins.

use std::path::PathBuf;

use amiforge_testkit::workspace_root;

/// A program of the virtual environment; panics with the command to run when it is not there.
pub(crate) fn program(name: &str) -> PathBuf {
    let venv = std::env::var_os("AMIFORGE_TEST_VENV").map_or_else(
        || workspace_root().join("target/tools/aws-venv"),
        PathBuf::from,
    );
    let program = venv.join("bin").join(name);
    assert!(
        program.is_file(),
        "{} is missing; run `cargo xtask setup test`, or\n  python3 -m venv {2} && {2}/bin/pip install -r {1}",
        program.display(),
        workspace_root().join("xtask/requirements.txt").display(),
        venv.display(),
    );
    program
}
