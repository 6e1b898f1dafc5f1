//! `build --locked`: the parent of an earlier build instead of what it is now.
//!
//! Of packages the lock is their resolution, of any other parent its [`ParentLock`]; both are in
//! `docs/formats/lock.md`.

use std::path::{Path, PathBuf};

use amiforge_recipe::ParentImage;
use amiforge_source::{MAX_LOCK_BYTES, ResolvedDebian};
use amiforge_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::read_file;
use crate::load::LoadedRecipe;
use crate::parent::{LockedParent, Parent};
use crate::settings::Engine;

/// Name of a lock, in an output folder and beside a recipe.
pub(crate) const LOCK_FILE: &str = "lock.json";
/// Differences that are told before it is only counted on.
const TOLD: usize = 10;
/// Form of the lock of a parent that is not of packages.
const FORMAT: u32 = 3;

/// The lock of a parent that is not of packages; format 3.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ParentLock {
    format: u32,
    /// As the recipe names it.
    parent: String,
    /// What that was.
    resolved: LockedParent,
}

/// Which of the forms a lock has.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// The lock of a resolved parent.
pub(crate) fn lock_json(asked: &ParentImage, parent: &Parent) -> serde_json::Result<Vec<u8>> {
    let value = match (parent.locked(), parent.packages()) {
        (Some(resolved), _) => serde_json::to_vec_pretty(&ParentLock {
            format: FORMAT,
            parent: asked.to_string(),
            resolved,
        }),
        (None, packages) => serde_json::to_vec_pretty(&packages),
    };
    let mut bytes = value?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl Engine {
    /// The parent of the recipe's lock. Neither the archive nor the host's apt configuration is
    /// asked what there is now; what is a file must still be the one that the lock names.
    pub(crate) fn locked_parent(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        out: &Path,
        offline: bool,
    ) -> Result<Parent, EngineError> {
        let path = find_lock(recipe.dir(), out)?;
        let context = || format!("--locked: {} cannot be used", path.display());
        let bytes = read_file(&path, MAX_LOCK_BYTES).or_fail(ErrorKind::Invalid, context)?;
        let asked = &recipe.recipe.parent;
        let is_ours = serde_json::from_slice::<Head>(&bytes)
            .is_ok_and(|head| head.format == u64::from(FORMAT));
        let is_debian = matches!(asked, ParentImage::Debian { .. });
        if !is_ours && is_debian {
            let lock = self.locked_packages(recipe, &path, &bytes)?;
            return Ok(Parent::Debian(Box::new(lock)));
        }
        if !is_ours {
            // Either of packages, or no lock at all.
            let lock = ResolvedDebian::from_lock(&bytes)
                .or_fail(ErrorKind::Invalid, context)
                .map_err(renew)?;
            let was = format!("debian:{}", lock.suite);
            return Err(unfit(&path, &[other_parent(&was, asked)]));
        }
        let lock: ParentLock = serde_json::from_slice(&bytes)
            .or_fail(ErrorKind::Invalid, context)
            .map_err(renew)?;
        if is_debian || lock.parent != asked.to_string() {
            return Err(unfit(&path, &[other_parent(&lock.parent, asked)]));
        }
        let parent = self.resolve_parent(recipe, store, offline, Some(&lock.resolved))?;
        let now = parent.locked();
        let drift = differences(&value(Some(&lock.resolved)), &value(now.as_ref()));
        match drift.is_empty() {
            true => Ok(parent),
            false => Err(unfit(&path, &drift)),
        }
    }

    /// The packages of a lock.
    fn locked_packages(
        &self,
        recipe: &LoadedRecipe,
        path: &Path,
        bytes: &[u8],
    ) -> Result<ResolvedDebian, EngineError> {
        let request = crate::parent::debian_request(recipe)?;
        let context = || format!("--locked: {} cannot be used", path.display());
        let lock = ResolvedDebian::from_lock(bytes)
            .or_fail(ErrorKind::Invalid, context)
            .map_err(renew)?;
        let differences = lock.unlike(&request);
        if !differences.is_empty() {
            return Err(unfit(path, &differences));
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

fn renew(error: EngineError) -> EngineError {
    error.with_hint("build without --locked to get a new lock, in the output folder")
}

fn unfit(path: &Path, differences: &[String]) -> EngineError {
    let message = format!(
        "--locked: {} does not fit the recipe{}",
        path.display(),
        listed(differences)
    );
    EngineError::new(ErrorKind::Invalid, message).with_hint(
        "build without --locked to resolve the recipe as it is now; its lock is in the output folder",
    )
}

fn other_parent(was: &str, asked: &ParentImage) -> String {
    format!("the lock is of {was}, the recipe says {asked}")
}

fn value(locked: Option<&LockedParent>) -> Value {
    serde_json::to_value(locked).unwrap_or_default()
}

/// The members that differ, old and new.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (old, new) = (members(old), members(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    };
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let (was, is) = (text(old.get(name)), text(new.get(name)));
            format!("{name}: the lock has {was}, the parent is now {is}")
        })
        .collect()
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
    fn drift_is_told_with_old_and_new() {
        let old = serde_json::json!({"type": "tar", "sha256": "a", "bytes": 1});
        let new = serde_json::json!({"type": "tar", "sha256": "b", "bytes": 1});
        assert_eq!(
            differences(&old, &new),
            ["sha256: the lock has a, the parent is now b"]
        );
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn many_differences_are_cut_short() {
        let lines: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert!(listed(&lines).ends_with("\n  9\n  and 2 more"));
        assert_eq!(listed(&lines[..1]), "\n  0");
    }
}
