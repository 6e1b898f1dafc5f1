//! Whose a changed file is: the package, by dpkg's lists, and the layer, by the store.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_store::Store;
use amiforge_tree::{Kind, Tree};
use amiforge_types::BlobTable;

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
        for at in origin.layers.iter().rev() {
            let Ok(Some(layer)) = store.layer(*at, &mut BlobTable::new()) else {
                continue;
            };
            let component = origin
                .components
                .iter()
                .find(|c| c.layer == Some(*at))
                .map(|c| shown(c.name.as_bytes()));
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
