//! `cargo xtask schema`: writes `docs/schema/` from the decoders.

use anyhow::Result;

use crate::util::{cargo, run};

/// The test that compares the published schemas with the decoders writes them when it is asked to; so what
/// writes and what checks cannot differ.
pub(crate) fn run_task() -> Result<()> {
    run(cargo()
        .args([
            "test",
            "--quiet",
            "--locked",
            "--package",
            "amiforge-recipe",
        ])
        .args(["--test", "it", "schemas::published"])
        .env("AMIFORGE_BLESS", "1"))
}
