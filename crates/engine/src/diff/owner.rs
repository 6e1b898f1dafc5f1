//! Whose a changed file is: the package, by dpkg's lists, and the layer, by the store.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_store::Store;
use amiforge_tree::{Kind, LayerDiff, LayerEntry, Tree};
use amiforge_types::{BlobTable, LayerId};

use super::side::Side;
use crate::layers::Touched;
use crate::shown::{path, shown};

/// Largest list of files of one package, and of all of them.
const MAX_LIST: u64 = 32 << 20;
const MAX_LISTS: u64 = 512 << 20;
/// Where dpkg keeps them.
const INFO: &[u8] = b"var/lib/dpkg/info";

/// Package and layer of the paths that were asked for.
#[derive(Default)]
pub(super) struct Owners {
    packages: BTreeMap<Vec<u8>, String>,
    conffiles: BTreeSet<Vec<u8>>,
    /// Layer id, and the component that made it.
    layers: BTreeMap<Vec<u8>, (String, Option<String>)>,
    /// What is known of the steps of these layers, by id.
    steps: BTreeMap<String, Touched>,
}

impl Owners {
    /// Looks `paths` up in an image. What cannot be read belongs to nobody: the answer is an extra.
    pub(super) fn of(
        side: &Side,
        paths: &BTreeSet<&[u8]>,
        blobs: &BlobTable,
        store: Option<&Store>,
    ) -> Self {
        let mut owners = Self::default();
        if paths.is_empty() {
            return owners;
        }
        owners.read_lists(&side.root.tree, paths, blobs);
        if let Some(store) = store {
            owners.read_layers(side, paths, store);
        }
        owners
    }

    /// The package's name.
    pub(super) fn package(&self, path: &[u8]) -> Option<String> {
        self.packages.get(path).cloned()
    }

    /// Whether it is a configuration file of that package.
    pub(super) fn is_conffile(&self, path: &[u8]) -> bool {
        self.conffiles.contains(path)
    }

    /// Layer id and component name.
    pub(super) fn layer(&self, path: &[u8]) -> Option<&(String, Option<String>)> {
        self.layers.get(path)
    }

    /// The step that changed it last.
    pub(super) fn step(&self, at: &[u8]) -> Option<String> {
        let touched = self.steps.get(&self.layers.get(at)?.0)?;
        touched.step(&path(at)).map(|step| shown(step.as_bytes()))
    }

    fn read_lists(&mut self, tree: &Tree, paths: &BTreeSet<&[u8]>, blobs: &BlobTable) {
        let Some(lists) = tree.lookup(INFO).and_then(|dir| tree.children(dir)) else {
            return;
        };
        let mut left = MAX_LISTS;
        for (name, ino) in lists.iter() {
            let (package, conffiles) = match (
                name.strip_suffix(b".list"),
                name.strip_suffix(b".conffiles"),
            ) {
                (Some(package), _) => (package, false),
                (None, Some(package)) => (package, true),
                (None, None) => continue,
            };
            let Kind::File(content) = &tree.inode(ino).kind else {
                continue;
            };
            let Some(rest) = left.checked_sub(content.size) else {
                return;
            };
            left = rest;
            let Ok(text) = content.read_to_vec(blobs, MAX_LIST) else {
                continue;
            };
            for line in text.split(|b| *b == b'\n') {
                // An obsolete configuration file has a word in front of its path.
                let Some(start) = line.iter().position(|b| *b == b'/') else {
                    continue;
                };
                let path = &line[start + 1..];
                if path.is_empty() {
                    continue;
                }
                let moved = through_link(tree, path);
                let Some(found) = [Some(path), moved.as_deref()]
                    .into_iter()
                    .flatten()
                    .find_map(|p| paths.get(p))
                else {
                    continue;
                };
                if conffiles {
                    self.conffiles.insert(found.to_vec());
                } else {
                    // Of a directory that many packages have the first is as good as any.
                    self.packages
                        .entry(found.to_vec())
                        .or_insert_with(|| shown(package));
                }
            }
        }
    }

    fn read_layers(&mut self, side: &Side, paths: &BTreeSet<&[u8]>, store: &Store) {
        let Some(origin) = &side.origin else {
            return;
        };
        // The uppermost layer that has a path made it what it is.
        for (at, _) in origin.layers.iter().rev() {
            let Ok(Some(layer)) = store.layer(*at, &mut BlobTable::new()) else {
                continue;
            };
            let component = origin.component(*at);
            for path in paths {
                if layer.diff.entries.contains_key(*path) && !self.layers.contains_key(*path) {
                    let id = at.0.hex();
                    let steps = self.steps.entry(id.clone());
                    steps.or_insert_with(|| Touched::read(store, *at));
                    let owner = (id, component.clone());
                    self.layers.insert(path.to_vec(), owner);
                }
            }
        }
    }
}

/// Whose doing it is that an image does not have what a layer of it brings.
#[derive(Default)]
pub(super) struct Hidden(BTreeMap<Vec<u8>, Hider>);

/// A layer, and what made it.
pub(super) struct Hider {
    /// Layer id.
    pub(super) layer: String,
    /// The component.
    pub(super) component: Option<String>,
    /// Its step, where that is known.
    pub(super) step: Option<String>,
}

impl Hidden {
    /// Looks up by which layers `paths` are hidden from an image. A path that no layer brings, or whose layers are gone, is
    /// hidden by none.
    pub(super) fn of(side: &Side, paths: &BTreeSet<&[u8]>, store: Option<&Store>) -> Self {
        let (Some(origin), Some(store)) = (&side.origin, store) else {
            return Self::default();
        };
        let mut found = Self::default();
        let mut open = paths.clone();
        let mut hidden: BTreeMap<&[u8], LayerId> = BTreeMap::new();
        let mut touched: BTreeMap<LayerId, Touched> = BTreeMap::new();
        for (at, _) in origin.layers.iter().rev() {
            if open.is_empty() && hidden.is_empty() {
                break;
            }
            let Ok(Some(layer)) = store.layer(*at, &mut BlobTable::new()) else {
                continue;
            };
            hidden.retain(|path, by| {
                let brings = brings(&layer.diff, path);
                if brings {
                    let steps = touched
                        .entry(*by)
                        .or_insert_with(|| Touched::read(store, *by));
                    let step = steps.step(&self::path(path));
                    let hider = Hider {
                        layer: by.0.hex(),
                        component: origin.component(*by),
                        step: step.map(|step| shown(step.as_bytes())),
                    };
                    found.0.insert(path.to_vec(), hider);
                }
                !brings
            });
            open.retain(|path| {
                if brings(&layer.diff, path) {
                    return false;
                }
                let hides = hides(&layer.diff, path);
                if hides {
                    hidden.insert(*path, *at);
                }
                !hides
            });
        }
        found
    }

    /// The layer that hides a path.
    pub(super) fn by(&self, path: &[u8]) -> Option<&Hider> {
        self.0.get(path)
    }
}

fn brings(layer: &LayerDiff, path: &[u8]) -> bool {
    let entry = layer.entries.get(path);
    entry.is_some_and(|entry| !matches!(entry, LayerEntry::Whiteout))
}

/// Whether a layer that does not bring a path hides what is there below it: by a whiteout of it or of a directory above,
/// or by something else in such a directory's place.
fn hides(layer: &LayerDiff, path: &[u8]) -> bool {
    let above = path.iter().enumerate().filter(|(_, b)| **b == b'/');
    let mut above = above.map(|(at, _)| &path[..at]);
    let gone = |entry: Option<&LayerEntry>| matches!(entry, Some(LayerEntry::Whiteout));
    gone(layer.entries.get(path))
        || above.any(|dir| match layer.entries.get(dir) {
            Some(LayerEntry::Put(inode)) => !matches!(inode.kind, Kind::Dir),
            Some(_) => true,
            None => false,
        })
}

/// The path that a list's path leads to when its first name is a link, as `/bin` is to `usr/bin`.
fn through_link(tree: &Tree, path: &[u8]) -> Option<Vec<u8>> {
    let slash = path.iter().position(|b| *b == b'/')?;
    let ino = tree.lookup(&path[..slash])?;
    let Kind::Symlink(target) = &tree.inode(ino).kind else {
        return None;
    };
    let target = target.strip_prefix(b"/").unwrap_or(target);
    Some([target, &path[slash..]].concat())
}
