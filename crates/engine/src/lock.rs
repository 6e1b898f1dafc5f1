//! `build --locked`: the parent and the downloads of an earlier build instead of what they are now.
//!
//! Of packages the lock is their resolution, of any other parent its [`ParentLock`]; both may have downloads.
//! The forms are in `docs/formats/lock.md`.

mod changelog;
mod told;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use std::path::{Path, PathBuf};

use amiforge_exec::{Download, Pins};
use amiforge_plan::{LayerKind, LayerPlan, Plan};
use amiforge_recipe::{
    DocumentKind, MAX_DOCUMENT_BYTES, ParentImage, ResourceKind, kind_of, recipe_sources,
};
use amiforge_source::{MAX_LOCK_BYTES, ResolvedDebian};
use amiforge_store::Store;
use amiforge_types::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::read_file;
use crate::layers::{layer_boot_packages, layer_downloads};
use crate::load::LoadedRecipe;
use crate::parent::{BootLock, BootPackage, LockedParent, Parent, boot_asked};
use crate::settings::Engine;

pub use self::changelog::LockedChangelog;
pub use self::update::{LockReport, LockRequest, LockedInput, LockedPackage, PackageFate};

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
    /// What steps brought in; read by itself.
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "here so that other unknown members are refused")]
    downloads: serde::de::IgnoredAny,
    /// What an imported parent was given for a boot; read by itself.
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "here so that other unknown members are refused")]
    boot_packages: serde::de::IgnoredAny,
}

/// What a lock has besides the parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Besides {
    /// What steps brought in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) downloads: Vec<Download>,
    /// What an imported parent was given for a boot; `None` where no such layer is, or nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot_packages: Option<BootLock>,
}

/// What a build must take, by its lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockPins {
    /// What steps bring in.
    pub(crate) downloads: Pins,
    /// The packages for a boot; `None` when the lock has none.
    pub(crate) boot: Option<BootLock>,
    /// The lock itself.
    path: PathBuf,
    /// Whom it serves besides, where it is one of several recipes.
    others: Option<String>,
}

impl LockPins {
    /// What to do when a step wants a download that the lock lacks.
    pub(crate) fn lacking(&self) -> String {
        match &self.others {
            Some(others) => others.clone(),
            None => format!(
                "{} does not have it: `amiforge lock update` takes what there is now",
                self.path.display()
            ),
        }
    }
}

/// Longest address of a download in a lock, in bytes.
const MAX_SOURCE_BYTES: usize = 64 << 10;

/// What a lock says.
pub(crate) struct Locked {
    pub(crate) parent: Parent,
    pub(crate) pins: LockPins,
}

/// Which of the forms a lock has.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

/// The lock of a resolved parent and of what came to it.
pub(crate) fn lock_json(
    asked: &ParentImage,
    parent: &Parent,
    besides: &Besides,
) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct With<'a, T> {
        #[serde(flatten)]
        parent: T,
        #[serde(flatten)]
        besides: &'a Besides,
    }
    let value = match (parent.locked(), parent.packages()) {
        (Some(resolved), _) => serde_json::to_vec_pretty(&With {
            parent: ParentLock {
                format: FORMAT,
                parent: asked.to_string(),
                resolved,
                downloads: serde::de::IgnoredAny,
                boot_packages: serde::de::IgnoredAny,
            },
            besides,
        }),
        (None, parent) => serde_json::to_vec_pretty(&With { parent, besides }),
    };
    let mut bytes = value?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What came into a plan's layers, in a fixed order; of layers that are not made yet, nothing.
pub(crate) fn besides(store: &Store, plan: &Plan) -> Result<Besides, EngineError> {
    let mut downloads = BTreeSet::new();
    let mut boot = None;
    for layer in &plan.layers {
        downloads.extend(layer_downloads(store, layer.id)?);
        // A plan has one such layer.
        if layer.kind == LayerKind::BootPackages {
            boot = layer_boot_packages(store, layer.id)?;
        }
    }
    Ok(Besides {
        downloads: downloads.into_iter().collect(),
        boot_packages: boot,
    })
}

/// Refuses layers of the store that hold other downloads or other packages for a boot than the lock.
pub(crate) fn pinned_layers(
    store: &Store,
    plan: &Plan,
    pins: &LockPins,
) -> Result<(), EngineError> {
    for layer in plan.layers.iter().filter(|layer| store.has_layer(layer.id)) {
        pinned_layer(store, layer, pins)?;
    }
    Ok(())
}

/// Refuses a layer of the store that holds other downloads or other packages for a boot than the lock.
pub(crate) fn pinned_layer(
    store: &Store,
    layer: &LayerPlan,
    pins: &LockPins,
) -> Result<(), EngineError> {
    let refused = |holds: String, has: &str| {
        let message = format!(
            "--locked: the layer {} of the store holds {holds}, the lock has {has} ({})",
            layer.title,
            pins.path.display()
        );
        let mut hint = "--rebuild makes the layers again from what the lock has; `amiforge lock update` takes what there is now".to_owned();
        if let Some(others) = &pins.others {
            hint.push_str(&format!(". {others}"));
        }
        EngineError::new(ErrorKind::Invalid, message).with_hint(hint)
    };
    for download in layer_downloads(store, layer.id)? {
        let has = match pins.downloads.get(&download.source) {
            Some(pinned) if pinned.contains(&download.sha256) => continue,
            Some(pinned) => or(pinned),
            None if download.checked => continue,
            None => "nothing of it".to_owned(),
        };
        let holds = format!("{} with sha256 {}", download.source, download.sha256);
        return Err(refused(holds, &has));
    }
    let Some(made) = layer_boot_packages(store, layer.id)? else {
        return Ok(());
    };
    let shown = |package: &BootPackage| {
        let [name, version, arch] = [&package.name, &package.version, &package.arch];
        format!("{name} {version} {arch} with sha256 {}", package.sha256)
    };
    let by_name = |packages: &[BootPackage]| -> BTreeMap<_, _> {
        let packages = packages.iter().cloned();
        packages
            .map(|p| ((p.name.clone(), p.arch.clone()), p))
            .collect()
    };
    let has = by_name(&made.packages);
    let locked = pins.boot.as_ref().map(|lock| by_name(&lock.packages));
    let locked = locked.unwrap_or_default();
    let names: BTreeSet<_> = has.keys().chain(locked.keys()).collect();
    for name in names {
        match (has.get(name), locked.get(name)) {
            (Some(made), Some(locked)) if made.sha256 == locked.sha256 => {}
            (Some(made), Some(locked)) => return Err(refused(shown(made), &shown(locked))),
            (Some(made), None) => return Err(refused(shown(made), "nothing of it")),
            (None, locked) => {
                let locked = locked.map(shown).unwrap_or_default();
                return Err(refused(format!("no {}", name.0), &locked));
            }
        }
    }
    Ok(())
}

fn or(digests: &BTreeSet<Digest>) -> String {
    let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
    digests.join(" or ")
}

/// What a lock has besides the parent, checked.
fn besides_of(bytes: &[u8]) -> Result<Besides, String> {
    let besides: Besides = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    for (at, download) in besides.downloads.iter().enumerate() {
        let source = &download.source;
        if source.is_empty() || source.len() > MAX_SOURCE_BYTES || source.contains(char::is_control)
        {
            return Err(format!(
                "downloads[{at}].source: not the address of a download"
            ));
        }
    }
    if let Some(boot) = &besides.boot_packages {
        let checked = boot.check();
        checked.map_err(|reason| format!("bootPackages.{reason}"))?;
    }
    Ok(besides)
}

fn pins(downloads: Vec<Download>) -> Pins {
    let mut pins = Pins::new();
    for download in downloads {
        let digests = pins.entry(download.source).or_default();
        digests.insert(download.sha256);
    }
    pins
}

impl Engine {
    /// What the recipe's lock says. Neither the archive nor the host's apt configuration is
    /// asked what there is now; what is a file must still be the one that the lock names.
    pub(crate) fn locked(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        (lock, out): (Option<&Path>, &Path),
        offline: bool,
    ) -> Result<Locked, EngineError> {
        self.may_use_network(!offline);
        let path = match lock {
            Some(lock) => lock.to_owned(),
            None => find_lock(recipe.dir(), out)?,
        };
        let context = || format!("--locked: {} cannot be used", path.display());
        let bytes = read_file(&path, MAX_LOCK_BYTES).or_fail(ErrorKind::Invalid, context)?;
        let parent = self.locked_parent(recipe, store, offline, &path, &bytes)?;
        let besides = besides_of(&bytes).map_err(|reason| {
            renew(EngineError::new(
                ErrorKind::Invalid,
                format!("{}: {reason}", context()),
            ))
        })?;
        // The packages of an image that is continued are of its own recipe.
        let is_continued = matches!(recipe.recipe.parent, ParentImage::Image { .. });
        if let (Some(boot), false) = (&besides.boot_packages, is_continued) {
            let drift = differences(
                &value(Some(&boot.asked)),
                &value(Some(&boot_asked(recipe)?)),
            );
            if !drift.is_empty() {
                let told = |line: String| {
                    let line = line.replace("the parent is now", "the recipe has");
                    format!("packages for a boot, {line}")
                };
                let drift: Vec<String> = drift.into_iter().map(told).collect();
                let own = recipe.recipe.parent.to_string();
                return Err(unfit(recipe, &path, &own, &drift));
            }
        }
        Ok(Locked {
            parent,
            pins: LockPins {
                downloads: pins(besides.downloads),
                boot: besides.boot_packages,
                others: others_hint(recipe, &path, &recipe.recipe.parent.to_string()),
                path,
            },
        })
    }

    fn locked_parent(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        offline: bool,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Parent, EngineError> {
        let context = || format!("--locked: {} cannot be used", path.display());
        let asked = &recipe.recipe.parent;
        let is_ours = serde_json::from_slice::<Head>(bytes)
            .is_ok_and(|head| head.format == u64::from(FORMAT));
        let is_debian = matches!(asked, ParentImage::Debian { .. });
        if !is_ours && is_debian {
            let lock = self.locked_packages(recipe, path, bytes)?;
            return Ok(Parent::Debian(Box::new(lock)));
        }
        if !is_ours {
            // Either of packages, or no lock at all.
            let lock = ResolvedDebian::from_lock(bytes)
                .or_fail(ErrorKind::Invalid, context)
                .map_err(renew)?;
            let was = format!("debian:{}", lock.suite);
            return Err(unfit(recipe, path, &was, &[other_parent(&was, asked)]));
        }
        let lock: ParentLock = serde_json::from_slice(bytes)
            .or_fail(ErrorKind::Invalid, context)
            .map_err(renew)?;
        if is_debian || lock.parent != asked.to_string() {
            let differences = [other_parent(&lock.parent, asked)];
            return Err(unfit(recipe, path, &lock.parent, &differences));
        }
        let parent = self.resolve_parent(recipe, store, offline, Some(&lock.resolved))?;
        let now = parent.locked();
        let drift = differences(&value(Some(&lock.resolved)), &value(now.as_ref()));
        match drift.is_empty() {
            true => Ok(parent),
            false => Err(unfit(recipe, path, &lock.parent, &drift)),
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
            let was = format!("debian:{}", lock.suite);
            return Err(unfit(recipe, path, &was, &differences));
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

/// A lock of the parent `was` that is not the recipe's.
fn unfit(recipe: &LoadedRecipe, path: &Path, was: &str, differences: &[String]) -> EngineError {
    let message = format!(
        "--locked: {} does not fit the recipe{}",
        path.display(),
        listed(differences)
    );
    let hint = match others_hint(recipe, path, was) {
        Some(others) => others,
        None => format!(
            "`amiforge lock update {}` resolves the recipe as it is now and writes the lock beside it; a build without --locked leaves one in the output folder",
            crate::shell::shown_argument(&recipe.path)
        ),
    };
    EngineError::new(ErrorKind::Invalid, message).with_hint(hint)
}

/// A recipe that the lock of a folder serves, too.
struct Beside {
    name: String,
    parent: String,
}

/// The other recipes in the folder of one: all of them have the same lock.
fn beside(recipe: &LoadedRecipe) -> Vec<Beside> {
    let Ok(entries) = std::fs::read_dir(recipe.dir()) else {
        return Vec::new();
    };
    let mut found: Vec<Beside> = entries
        .flatten()
        .filter(|entry| Some(entry.file_name().as_os_str()) != recipe.path.file_name())
        .filter_map(|entry| {
            let path = entry.path();
            let extension = path.extension()?.to_str()?;
            if !["yaml", "yml", "json"].contains(&extension) {
                return None;
            }
            let text = read_file(&path, MAX_DOCUMENT_BYTES as u64).ok()?;
            let text = String::from_utf8(text).ok()?;
            let is_recipe = matches!(
                kind_of(&text)?,
                DocumentKind::ImageRecipe | DocumentKind::Resource(ResourceKind::ContainerRecipe)
            );
            let parent = is_recipe.then(|| recipe_sources(&text).parent)??.0;
            Some(Beside {
                name: entry.file_name().into_string().ok()?,
                parent: parent.to_string(),
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Whom a lock of the parent `was` serves besides a recipe, and what to do for one that it does not fit; `None` where it is
/// that recipe's alone.
fn others_hint(recipe: &LoadedRecipe, path: &Path, was: &str) -> Option<String> {
    if path.parent() != Some(recipe.dir()) {
        return None;
    }
    let others = beside(recipe);
    if others.is_empty() {
        return None;
    }
    let names = |of: &mut dyn Iterator<Item = &Beside>| {
        let names: Vec<&str> = of.map(|other| other.name.as_str()).collect();
        names.join(", ")
    };
    let of_parent = names(&mut others.iter().filter(|other| other.parent == was));
    let made_for = match of_parent.is_empty() {
        true => String::new(),
        false => format!(", and is of {was}, the parent of {of_parent}"),
    };
    Some(format!(
        "{} serves all recipes of its folder, {} too{made_for}. One with another parent, other packages or other downloads needs a folder of its own; else `amiforge lock update {}` resolves this one as it is now, and replaces the lock for all of them",
        path.display(),
        names(&mut others.iter()),
        crate::shell::shown_argument(&recipe.path)
    ))
}

fn other_parent(was: &str, asked: &ParentImage) -> String {
    format!("the lock is of {was}, the recipe says {asked}")
}

fn value<T: Serialize>(locked: Option<&T>) -> Value {
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
