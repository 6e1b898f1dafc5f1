//! Layers as changes: apply one to a tree, and find the one between two trees.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ino, Inode, Kind, LayerDiff, LayerEntry, Tree, TreeError};

/// A layer that does not fit the tree it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the layer's entry {:?} does not fit the tree",
    String::from_utf8_lossy(path)
)]
pub struct ApplyError {
    /// The entry's path.
    pub path: Vec<u8>,
    /// Why.
    pub source: TreeError,
}

impl Tree {
    /// Applies a layer. On an error the tree is left half-changed and should be dropped.
    ///
    /// A new non-directory gets an inode of its own, so further names of the inode that it replaces
    /// keep the old one, as with files renamed over each other. What the layer puts is of it, see
    /// [`Tree::layer`]; a directory that was there is not.
    pub fn apply(&mut self, diff: &LayerDiff) -> Result<(), ApplyError> {
        self.next_layer();
        for (path, entry) in &diff.entries {
            self.apply_entry(path, entry, diff)
                .map_err(|source| ApplyError {
                    path: path.clone(),
                    source,
                })?;
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        path: &[u8],
        entry: &LayerEntry,
        diff: &LayerDiff,
    ) -> Result<(), TreeError> {
        match entry {
            LayerEntry::Put(inode) => self.put(path, inode, false),
            LayerEntry::PutOpaque(inode) => self.put(path, inode, true),
            LayerEntry::Link(target) => {
                // The target must be of this layer: otherwise the same layer would mean different
                // inodes on different parents.
                match diff.entries.get(target) {
                    Some(LayerEntry::Put(_)) if target.as_slice() < path => {}
                    _ => return Err(TreeError::BadLink(target.clone())),
                }
                self.link(path, target).map(|_| ())
            }
            LayerEntry::Whiteout => {
                self.remove(path);
                Ok(())
            }
        }
    }

    fn put(&mut self, path: &[u8], inode: &Inode, opaque: bool) -> Result<(), TreeError> {
        let is_dir = matches!(inode.kind, Kind::Dir);
        if (path.is_empty() || opaque) && !is_dir {
            return Err(TreeError::NotADirectory(path.to_vec()));
        }
        match self
            .lookup(path)
            .filter(|ino| is_dir && self.children(*ino).is_some())
        {
            Some(ino) => {
                self.update(ino, |old| old.clone_from(inode))?;
                if opaque {
                    self.clear(ino);
                }
                Ok(())
            }
            None => self.insert(path, inode.clone()).map(|_| ()),
        }
    }

    /// The tree that a stack of layers makes, the lowest first. The root's stat is that of the
    /// last layer that has one, else `root`.
    pub fn from_layers<'a>(
        root: crate::Stat,
        layers: impl IntoIterator<Item = &'a LayerDiff>,
    ) -> Result<Self, ApplyError> {
        let mut tree = Self::new(root);
        for layer in layers {
            tree.apply(layer)?;
        }
        Ok(tree)
    }

    /// All names of every inode slot, in byte order of the whole path.
    fn names(&self) -> Vec<Vec<Vec<u8>>> {
        let mut names: Vec<Vec<Vec<u8>>> = vec![Vec::new(); self.slots()];
        for (path, ino) in self.walk() {
            names[ino.index()].push(path);
        }
        for list in &mut names {
            list.sort_unstable();
        }
        names
    }
}

/// The inode in a slot of the table.
fn slot_inode(tree: &Tree, slot: usize) -> Inode {
    tree.inode(Ino::from_index(slot).unwrap_or(Ino::ROOT))
}

fn same_inode(a: &Inode, b: &Inode) -> bool {
    a.stat == b.stat
        && a.xattrs == b.xattrs
        && a.flags == b.flags
        && match (&a.kind, &b.kind) {
            (Kind::File(a), Kind::File(b)) => a.same_bytes(b),
            (a, b) => a == b,
        }
}

impl LayerDiff {
    /// The layer that makes `tree` from an empty one. Its root entry sets the root's stat.
    #[must_use]
    pub fn from_tree(tree: &Tree) -> Self {
        let mut diff = Self::default();
        for (slot, names) in tree.names().into_iter().enumerate() {
            put_all_names(&mut diff, slot_inode(tree, slot), names);
        }
        diff
    }

    /// The layer that turns `old` into `new`. A file whose bytes are not known to be the same (see
    /// [`Content::same_bytes`](crate::Content::same_bytes)) counts as changed.
    #[must_use]
    pub fn between(old: &Tree, new: &Tree) -> Self {
        let mut diff = Self::default();
        let old_names = old.names();
        for (slot, names) in new.names().into_iter().enumerate() {
            if names.is_empty() || is_unchanged(old, new, slot, &names, &old_names) {
                continue;
            }
            put_all_names(&mut diff, slot_inode(new, slot), names);
        }
        // Only the topmost of what is gone: a whiteout takes everything below it along, and so does
        // a directory that became something else.
        let mut stack = vec![(Vec::new(), Ino::ROOT, Ino::ROOT)];
        while let Some((path, old_dir, new_dir)) = stack.pop() {
            let (Some(olds), Some(news)) = (old.children(old_dir), new.children(new_dir)) else {
                continue;
            };
            for (name, old_child) in olds.iter() {
                let mut child: Vec<u8> = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(name);
                match news.get(name) {
                    Some(new_child) => stack.push((child, old_child, new_child)),
                    None => {
                        diff.entries.insert(child, LayerEntry::Whiteout);
                    }
                }
            }
        }
        diff
    }
}

impl LayerDiff {
    /// The layer without the entries at the paths that `goes` names. An inode whose first name goes is put under the
    /// first of those that stay.
    #[must_use]
    pub fn without(&self, goes: impl Fn(&[u8]) -> bool) -> Self {
        let mut out = Self::default();
        // First names that went, and which name is now the first.
        let mut moved: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if goes(path) {
                continue;
            }
            let entry = match entry {
                LayerEntry::Link(target) if goes(target) => match moved.get(target.as_slice()) {
                    Some(first) => LayerEntry::Link(first.to_vec()),
                    None => {
                        moved.insert(target, path);
                        match self.entries.get(target) {
                            Some(first) => first.clone(),
                            None => continue,
                        }
                    }
                },
                entry => entry.clone(),
            };
            out.entries.insert(path.clone(), entry);
        }
        out
    }

    /// Takes the mark of an opaque directory from those that hide nothing: where `lower` has no directory of that name, or
    /// another opaque one is above. Whether there were any.
    ///
    /// Overlayfs sets the mark on directories that were renamed, and on some kernels on every new one, whatever is below
    /// ("Documentation/filesystems/overlayfs.rst", "whiteouts and opaque directories"): it says how a layer was made.
    pub fn settle_opaque(&mut self, lower: &Tree) -> bool {
        let marked =
            |(_, entry): &(&Vec<u8>, &LayerEntry)| matches!(entry, LayerEntry::PutOpaque(_));
        let opaque: Vec<Vec<u8>> = self
            .entries
            .iter()
            .filter(marked)
            .map(|(path, _)| path.clone())
            .collect();
        // In the order of bytes whatever is above a directory comes before it.
        let mut hiding = BTreeSet::new();
        let mut settled = false;
        for path in opaque {
            let mut above = path
                .iter()
                .enumerate()
                .filter(|(_, b)| **b == b'/')
                .map(|(at, _)| &path[..at]);
            let is_hidden = above.any(|dir| hiding.contains(dir));
            if !is_hidden && lower.lookup(&path).is_some_and(|ino| lower.is_dir(ino)) {
                hiding.insert(path);
            } else if let Some(entry) = self.entries.get_mut(&path)
                && let LayerEntry::PutOpaque(inode) = entry
            {
                *entry = LayerEntry::Put(inode.clone());
                settled = true;
            }
        }
        settled
    }

    /// The same with the root and every folder on the way to an entry, as `new` has it: what the layer is made into
    /// by itself, such as the lower directory of an overlay, has no other place to learn of a folder that did not change.
    #[must_use]
    pub fn with_folders(mut self, new: &Tree) -> Self {
        let mut folders = BTreeSet::from([Vec::new()]);
        for path in self.entries.keys() {
            let mut rest = path.as_slice();
            while let Some(at) = rest.iter().rposition(|b| *b == b'/') {
                rest = &rest[..at];
                if !folders.insert(rest.to_vec()) {
                    break;
                }
            }
        }
        for path in folders {
            if let Some(ino) = new.lookup(&path)
                && new.children(ino).is_some()
            {
                let put = || LayerEntry::Put(new.inode(ino));
                self.entries.entry(path).or_insert_with(put);
            }
        }
        self
    }
}

fn put_all_names(diff: &mut LayerDiff, inode: Inode, names: Vec<Vec<u8>>) {
    let mut names = names.into_iter();
    let Some(first) = names.next() else { return };
    for name in names {
        diff.entries.insert(name, LayerEntry::Link(first.clone()));
    }
    diff.entries.insert(first, LayerEntry::Put(inode));
}

fn is_unchanged(
    old: &Tree,
    new: &Tree,
    slot: usize,
    names: &[Vec<u8>],
    old_names: &[Vec<Vec<u8>>],
) -> bool {
    let Some(was) = old.lookup(&names[0]) else {
        return false;
    };
    same_inode(&old.inode(was), &slot_inode(new, slot))
        && names.iter().all(|name| old.lookup(name) == Some(was))
        // A former further name must be gone: one that now leads to an inode of its own has to be
        // told apart from this one, which needs both to be put anew.
        && old_names[was.index()].iter().all(|name| names.contains(name) || new.lookup(name).is_none())
}
