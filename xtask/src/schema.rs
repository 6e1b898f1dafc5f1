//! `cargo xtask schema`: writes `docs/schema/` from the decoders, and what documents say of events from their table.

use anyhow::Result;

use crate::util::{cargo, run};

/// The tests that compare the published schemas with the decoders write them when they are asked to; so what
/// writes and what checks cannot differ.
pub(crate) fn run_task() -> Result<()> {
    let published = [
        ("amiforge-recipe", ["--test", "it", "schemas::published"]),
        (
            "amiforge-engine",
            ["--lib", "--", "event::tests::published"],
        ),
    ];
    for (package, test) in published {
        run(cargo()
            .args(["test", "--quiet", "--locked", "--package", package])
            .args(test)
            .env("AMIFORGE_BLESS", "1"))?;
    }
    Ok(())
}
