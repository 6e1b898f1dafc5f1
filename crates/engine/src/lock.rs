//! `build --locked`: the packages of an earlier build instead of those that the archive has now.

use std::path::{Path, PathBuf};

use amiforge_source::{MAX_LOCK_BYTES, ResolvedDebian};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::read_file;
use crate::load::LoadedRecipe;
use crate::settings::Engine;

/// Name of a lock, in an output folder and beside a recipe.
pub(crate) const LOCK_FILE: &str = "lock.json";
/// Differences that are told before it is only counted on.
const TOLD: usize = 10;

impl Engine {
    /// The packages of the recipe's lock. Neither the archive nor the host's apt configuration is
    /// asked what there is now.
    pub(crate) fn locked_parent(
        &self,
        recipe: &LoadedRecipe,
        out: &Path,
    ) -> Result<ResolvedDebian, EngineError> {
        let request = crate::parent::debian_request(recipe)?;
        let path = find_lock(recipe.dir(), out)?;
        let context = || format!("--locked: {} cannot be used", path.display());
        let bytes = read_file(&path, MAX_LOCK_BYTES).or_fail(ErrorKind::Invalid, context)?;
        let lock = ResolvedDebian::from_lock(&bytes)
            .or_fail(ErrorKind::Invalid, context)
            .map_err(|e| {
                e.with_hint("build without --locked to get a new lock, in the output folder")
            })?;
        let differences = lock.unlike(&request);
        if !differences.is_empty() {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "--locked: {} does not fit the recipe{}",
                    path.display(),
                    listed(&differences)
                ),
            )
            .with_hint(
                "build without --locked to resolve the recipe as it is now; its lock is in the output folder",
            ));
        }
        self.stage(
            "resolve",
            format!(
                "{}, {} packages of {}",
                recipe.recipe.parent,
                lock.packages.len(),
                path.display()
            ),
        );
        Ok(lock)
    }
}

/// The lock beside the recipe, which somebody put there to be used; else that of the build that is
/// to be repeated.
fn find_lock(recipe: &Path, out: &Path) -> Result<PathBuf, EngineError> {
    let places = [recipe.join(LOCK_FILE), out.join(LOCK_FILE)];
    places
        .iter()
        .find(|path| std::fs::symlink_metadata(path).is_ok())
        .cloned()
        .ok_or_else(|| {
            EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "--locked: there is neither {} nor {}",
                    places[0].display(),
                    places[1].display()
                ),
            )
            .with_hint("build once without --locked, then copy lock.json of the output folder beside the recipe to keep it")
        })
}

fn listed(lines: &[String]) -> String {
    let mut text: String = lines
        .iter()
        .take(TOLD)
        .map(|l| format!("\n  {l}"))
        .collect();
    let more = lines.len().saturating_sub(TOLD);
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_beside_the_recipe_comes_before_that_of_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let (recipe, out) = (dir.path().join("recipe"), dir.path().join("out"));
        for folder in [&recipe, &out] {
            std::fs::create_dir(folder).unwrap();
        }
        let error = find_lock(&recipe, &out).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        for folder in [&out, &recipe] {
            std::fs::write(folder.join(LOCK_FILE), "{}").unwrap();
            assert_eq!(find_lock(&recipe, &out).unwrap(), folder.join(LOCK_FILE));
        }
    }

    #[test]
    fn many_differences_are_cut_short() {
        let lines: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert!(listed(&lines).ends_with("\n  9\n  and 2 more"));
        assert_eq!(listed(&lines[..1]), "\n  0");
    }
}
