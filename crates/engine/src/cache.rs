//! What the store holds, and taking out of it what nobody needs.

mod held;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use amiforge_plan::Plan;
use amiforge_store::Store;
use amiforge_types::{ByteSize, LayerId};
use serde::Serialize;

use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::layers::store_context;
use crate::settings::Engine;

pub use self::held::HoldingImage;

/// Everything in store and cache.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheReport {
    /// Layers, the one that was used last first.
    pub layers: Vec<CachedLayer>,
    /// What was downloaded.
    pub downloads: Downloads,
}

/// A layer of the store.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedLayer {
    /// Id.
    pub id: LayerId,
    /// For people; none when no recipe is known that has it.
    pub title: Option<String>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether it lies unpacked beside that, too, for steps to run on.
    pub unpacked: bool,
    /// Seconds since a build used it.
    pub idle_seconds: u64,
    /// Recipes whose last build has it.
    pub recipes: Vec<String>,
    /// Images of the catalog that were made of it and whose files are there.
    pub images: Vec<String>,
}

/// Files of one kind: packages and indexes of archives, or what failed runs left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Downloads {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// What was used within this time.
    pub age: Option<Duration>,
    /// Layers up to this size together, those that were used last.
    pub bytes: Option<u64>,
}

/// What was taken out, or would be.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Layers that went.
    pub layers: Vec<CachedLayer>,
    /// Downloads that went.
    pub downloads: Downloads,
    /// What failed runs had changed that went.
    pub failures: Downloads,
    /// Layers that stay since an image of the catalog has them, although they are old or too much.
    pub kept_for_images: usize,
    /// Bytes of these.
    pub kept_for_images_bytes: u64,
    /// The images that have them, who holds most for itself alone first.
    pub held_by: Vec<HoldingImage>,
    /// How many stay for a build that runs.
    pub in_use: usize,
    /// Which these are.
    pub in_use_layers: Vec<CachedLayer>,
    /// No download was looked at, since a build runs.
    pub downloads_in_use: bool,
}

impl Collected {
    /// Bytes of what went; unpacked layers, which take about as much again, are not counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.bytes).sum();
        let others = self.downloads.bytes.saturating_add(self.failures.bytes);
        layers.saturating_add(others)
    }
}

/// What is known of layers from the plans of recipes and images.
#[derive(Default)]
struct Known {
    titles: BTreeMap<LayerId, String>,
    recipes: BTreeMap<LayerId, Vec<String>>,
    images: BTreeMap<LayerId, Vec<String>>,
}

impl Engine {
    /// What the store and the cache of downloads hold.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn cache(&self) -> Result<CacheReport, EngineError> {
        let store = self.open_store()?;
        let downloads = self.downloads(None)?;
        let layers = self.cached_layers(&store)?;
        Ok(CacheReport { layers, downloads })
    }

    /// Takes out what `keep` does not keep: never what a running build uses, nor layers of images of the catalog. With
    /// `dry` nothing is done.
    ///
    /// # Errors
    /// When something cannot be removed. What went until then is gone; every layer is there whole or not at all.
    pub fn collect(&self, keep: Keep, dry: bool) -> Result<Collected, EngineError> {
        let store = self.open_store()?;
        self.clear_leftovers(&store);
        let mut collected = Collected::default();
        let mut room = keep.bytes;
        let mut held = Vec::new();
        for layer in self.cached_layers(&store)? {
            let fits = match &mut room {
                Some(left) => {
                    let fits = layer.bytes <= *left;
                    *left = left.saturating_sub(layer.bytes);
                    fits
                }
                None => true,
            };
            let idle = Duration::from_secs(layer.idle_seconds);
            if fits && keep.age.is_none_or(|age| idle < age) {
                continue;
            }
            if !layer.images.is_empty() {
                held.push(layer);
                continue;
            }
            let unused = store
                .unused(layer.id)
                .or_fail(ErrorKind::Failed, store_context)?;
            let Some(unused) = unused else {
                collected.in_use_layers.push(layer);
                continue;
            };
            if !dry {
                self.remove_cached(&store, unused.id())?;
            }
            collected.layers.push(layer);
        }
        let images = store.images().or_fail(ErrorKind::Failed, store_context)?;
        collected.held_by = held::holders(&images, &held);
        collected.kept_for_images = held.len();
        collected.kept_for_images_bytes = held.iter().map(|layer| layer.bytes).sum();
        collected.in_use = collected.in_use_layers.len();
        if let Some(age) = keep.age {
            let unused = store
                .unused_downloads()
                .or_fail(ErrorKind::Failed, store_context)?;
            match unused {
                Some(_held) => collected.downloads = self.downloads(Some((age, dry)))?,
                None => collected.downloads_in_use = true,
            }
            collected.failures = files_below(store.failed_dir(), Some((age, dry)))?;
        }
        Ok(collected)
    }

    /// Removes a layer with all that goes with it. The caller has the right to.
    fn remove_cached(&self, store: &Store, id: LayerId) -> Result<(), EngineError> {
        store
            .remove_layer(id)
            .or_fail(ErrorKind::Failed, store_context)?;
        if let Some(root) = store.root(id) {
            self.remove_trees(store, &[root])?;
        }
        let own = id.to_string();
        for kind in [
            crate::layers::BUILD_RESULTS,
            crate::layers::RAN,
            crate::layers::STEPS,
            crate::layers::VALIDATED,
        ] {
            let keys = store.record_keys(kind);
            for key in keys.or_fail(ErrorKind::Failed, store_context)? {
                if key.starts_with(&own) {
                    store
                        .remove_record(kind, &key)
                        .or_fail(ErrorKind::Failed, store_context)?;
                }
            }
        }
        Ok(())
    }

    fn cached_layers(&self, store: &Store) -> Result<Vec<CachedLayer>, EngineError> {
        let known = self.known(store)?;
        let ids = store.layers().or_fail(ErrorKind::Failed, store_context)?;
        let now = SystemTime::now();
        let mut layers: Vec<CachedLayer> = ids
            .into_iter()
            .filter_map(|id| {
                let bytes = std::fs::metadata(store.layer_path(id)).ok()?.len();
                let idle = now.duration_since(store.last_use(id)?).unwrap_or_default();
                Some(CachedLayer {
                    id,
                    title: known.titles.get(&id).cloned(),
                    bytes,
                    unpacked: store.root(id).is_some(),
                    idle_seconds: idle.as_secs(),
                    recipes: known.recipes.get(&id).cloned().unwrap_or_default(),
                    images: known.images.get(&id).cloned().unwrap_or_default(),
                })
            })
            .collect();
        layers.sort_by_key(|layer| (layer.idle_seconds, layer.id));
        Ok(layers)
    }

    fn known(&self, store: &Store) -> Result<Known, EngineError> {
        let mut known = Known::default();
        let images = store.images().or_fail(ErrorKind::Failed, store_context)?;
        for image in images {
            // A later build into the same folder has an entry of its own, and the layers are those of that.
            let manifest = std::fs::read(image.path.join("manifest.json")).ok();
            let now = manifest.and_then(|bytes| crate::build::built_id(&bytes));
            if now.is_some_and(|id| id != image.image_id) {
                continue;
            }
            let text = std::fs::read_to_string(image.path.join("plan.json"));
            let plan = text.ok().and_then(|text| Plan::from_json(&text).ok());
            for layer in plan.iter().flat_map(|plan| &plan.layers) {
                known.titles.insert(layer.id, layer.title.clone());
                let of = known.images.entry(layer.id).or_default();
                of.push(image.image_id.clone());
            }
        }
        for plan in self.last_plans(store)? {
            for layer in &plan.layers {
                known.titles.insert(layer.id, layer.title.clone());
                let of = known.recipes.entry(layer.id).or_default();
                of.push(plan.recipe.name.clone());
            }
        }
        Ok(known)
    }

    fn downloads(&self, remove: Option<(Duration, bool)>) -> Result<Downloads, EngineError> {
        files_below(self.settings.home.downloads(), remove)
    }
}

/// The files in a folder; with an age, those that nobody has read for longer, which are removed unless it is a dry run.
fn files_below(dir: PathBuf, remove: Option<(Duration, bool)>) -> Result<Downloads, EngineError> {
    let mut found = Downloads::default();
    let mut open = vec![dir];
    let now = SystemTime::now();
    while let Some(dir) = open.pop() {
        for (path, meta) in entries(&dir)? {
            if meta.is_dir() {
                open.push(path);
                continue;
            }
            if let Some((age, dry)) = remove {
                let times = [meta.modified(), meta.accessed()];
                let last = times.into_iter().flatten().max();
                let idle = last.and_then(|last| now.duration_since(last).ok());
                if idle.is_none_or(|idle| idle < age) {
                    continue;
                }
                if !dry {
                    remove_file(&path)?;
                }
            }
            found.files += 1;
            found.bytes += meta.len();
        }
    }
    Ok(found)
}

/// What is in a directory; nothing when it is not there.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>, EngineError> {
    let context = || format!("cannot list {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(EngineError::wrap(
                ErrorKind::Failed,
                context(),
                e,
                None::<String>,
            ));
        }
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.or_fail(ErrorKind::Failed, context)?.path();
        // Another process may have taken it away.
        if let Ok(meta) = std::fs::symlink_metadata(&path) {
            all.push((path, meta));
        }
    }
    Ok(all)
}

fn remove_file(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot remove {}: {}", path.display(), chain(&e));
            Err(EngineError::new(ErrorKind::Failed, message))
        }
        _ => Ok(()),
    }
}

/// `3 days`, `2 hours`: the largest unit that there is one of.
fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

impl CachedLayer {
    fn line(&self) -> String {
        let title = self
            .title
            .as_deref()
            .unwrap_or("of no recipe that is known");
        let mut line = format!(
            "{}  {:>9}  {:>10}  {title}",
            &self.id.to_string()[..12],
            ByteSize(self.bytes).to_string(),
            ago(self.idle_seconds)
        );
        if !self.recipes.is_empty() {
            line.push_str(&format!("  [{}]", self.recipes.join(", ")));
        }
        if !self.images.is_empty() {
            line.push_str(&format!("  {}", self.images.join(" ")));
        }
        line
    }
}

impl CacheReport {
    /// A line for each layer: id, size, time since its last use, title, recipes whose last build has it, images.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.layers.iter().map(CachedLayer::line).collect();
        let bytes: u64 = self.layers.iter().map(|layer| layer.bytes).sum();
        let unpacked = self.layers.iter().filter(|layer| layer.unpacked).count();
        lines.push(format!(
            "{} layers of {}, {unpacked} of them unpacked, too; {} downloads of {}",
            self.layers.len(),
            ByteSize(bytes),
            self.downloads.files,
            ByteSize(self.downloads.bytes)
        ));
        lines.join("\n")
    }
}

impl Collected {
    /// A line for each layer, and what it comes to. `dry`: nothing was done.
    #[must_use]
    pub fn text(&self, dry: bool) -> String {
        let mut lines: Vec<String> = self.layers.iter().map(CachedLayer::line).collect();
        let verb = if dry { "would go" } else { "went" };
        lines.push(format!(
            "{} layers and {} downloads {verb}: {}",
            self.layers.len(),
            self.downloads.files,
            ByteSize(self.bytes())
        ));
        if self.failures.files > 0 {
            lines.push(format!(
                "of {} failed builds the files {verb}, too",
                self.failures.files
            ));
        }
        lines.extend(held::images_text(
            &self.held_by,
            self.kept_for_images,
            self.kept_for_images_bytes,
        ));
        lines.extend(held::builds_text(&self.in_use_layers));
        if self.downloads_in_use {
            lines.push("all downloads stay: a build uses them".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_largest_unit() {
        let all = [0, 1, 61, 7200, 86_400, 900_000].map(ago);
        assert_eq!(
            all,
            [
                "0 seconds",
                "1 second",
                "1 minute",
                "2 hours",
                "1 day",
                "10 days"
            ]
        );
    }
}
