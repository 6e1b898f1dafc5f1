//! What differs between two trees, name by name.
//!
//! This is the pure half of an image diff: it walks both trees at once and says which names came, went
//! or changed, and in what. Whether two files of one size hold the same bytes is not known to a tree;
//! [`content_pairs`] lists the pairs that have to be looked at, and [`compare`] is handed the verdicts.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ino, Inode, Kind, Tree};

/// One thing that is not the same about a name that both trees have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Another type of file; nothing below a directory is compared then.
    Type,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Bytes of a file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Numbers of a device.
    Device,
    /// Extended attributes.
    Xattrs,
    /// Flags such as immutable.
    Flags,
    /// Which other names the inode has.
    Links,
    /// Modification time; only where asked for.
    Time,
}

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Only the new tree has it.
    Added(Ino),
    /// Only the old tree has it.
    Removed(Ino),
    /// Both have it, with differences, in the order of [`Aspect`].
    Changed(Ino, Ino, Vec<Aspect>),
}

/// A name and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path below the root, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// What became of it.
    pub fate: Fate,
}

/// Pairs of regular files, old and new, that stand under one name, have one size that is not zero, and
/// are not known to hold the same bytes or different ones. Each pair comes once.
#[must_use]
pub fn content_pairs(old: &Tree, new: &Tree) -> Vec<(Ino, Ino)> {
    let mut pairs = BTreeSet::new();
    both(old, new, &mut |_, a, b| {
        if let (Some(a), Some(b)) = (a, b)
            && let (Kind::File(was), Kind::File(is)) = (&old.inode(a).kind, &new.inode(b).kind)
            && was.size == is.size
            && was.size > 0
            && (was.digest.is_none() || is.digest.is_none())
        {
            pairs.insert((a, b));
        }
    });
    pairs.into_iter().collect()
}

/// All names that differ, in the order of a walk. `different` are the pairs of [`content_pairs`] whose
/// bytes differ; modification times count with `times`.
#[must_use]
pub fn compare(
    old: &Tree,
    new: &Tree,
    different: &BTreeSet<(Ino, Ino)>,
    times: bool,
) -> Vec<Change> {
    let mut links = Links::new(old, new);
    let mut changes = Vec::new();
    both(old, new, &mut |path, a, b| {
        let fate = match (a, b) {
            (Some(a), Some(b)) => {
                let aspects = aspects(old, new, a, b, different, times, &mut links);
                if aspects.is_empty() {
                    return;
                }
                Fate::Changed(a, b, aspects)
            }
            (Some(a), None) => Fate::Removed(a),
            (None, Some(b)) => Fate::Added(b),
            (None, None) => return,
        };
        changes.push(Change {
            path: path.to_vec(),
            fate,
        });
    });
    changes
}

fn aspects(
    old: &Tree,
    new: &Tree,
    a: Ino,
    b: Ino,
    different: &BTreeSet<(Ino, Ino)>,
    times: bool,
    links: &mut Links,
) -> Vec<Aspect> {
    let (was, is) = (&old.inode(a), &new.inode(b));
    let mut out = Vec::new();
    let mut note = |differs: bool, aspect| {
        if differs {
            out.push(aspect);
        }
    };
    let same_type = std::mem::discriminant(&was.kind) == std::mem::discriminant(&is.kind);
    note(!same_type, Aspect::Type);
    note(was.stat.mode != is.stat.mode, Aspect::Mode);
    let owner = |inode: &Inode| (inode.stat.uid, inode.stat.gid);
    note(owner(was) != owner(is), Aspect::Owner);
    match (&was.kind, &is.kind) {
        (Kind::File(x), Kind::File(y)) => {
            let known = matches!((x.digest, y.digest), (Some(x), Some(y)) if x != y);
            let differs = x.size != y.size || known || different.contains(&(a, b));
            note(differs, Aspect::Content);
        }
        (Kind::Symlink(x), Kind::Symlink(y)) => note(x != y, Aspect::Target),
        (Kind::CharDev { .. }, Kind::CharDev { .. })
        | (Kind::BlockDev { .. }, Kind::BlockDev { .. }) => {
            note(was.kind != is.kind, Aspect::Device);
        }
        _ => {}
    }
    note(was.xattrs != is.xattrs, Aspect::Xattrs);
    note(was.flags != is.flags, Aspect::Flags);
    note(same_type && links.differ(a, b), Aspect::Links);
    note(times && was.stat.mtime != is.stat.mtime, Aspect::Time);
    out
}

/// The names of inodes that have several.
struct Links {
    old: BTreeMap<Ino, Vec<Vec<u8>>>,
    new: BTreeMap<Ino, Vec<Vec<u8>>>,
    /// Verdicts so far: a group is compared once, not once for each of its names.
    seen: BTreeMap<(Ino, Ino), bool>,
}

impl Links {
    fn new(old: &Tree, new: &Tree) -> Self {
        Self {
            old: linked_names(old),
            new: linked_names(new),
            seen: BTreeMap::new(),
        }
    }

    fn differ(&mut self, a: Ino, b: Ino) -> bool {
        match (self.old.get(&a), self.new.get(&b)) {
            (None, None) => false,
            (Some(old), Some(new)) => *self.seen.entry((a, b)).or_insert_with(|| old != new),
            _ => true,
        }
    }
}

/// All names of every inode that has more than one, in the order of a walk.
#[must_use]
pub fn linked_names(tree: &Tree) -> BTreeMap<Ino, Vec<Vec<u8>>> {
    let counts = tree.link_counts();
    let mut names: BTreeMap<Ino, Vec<Vec<u8>>> = BTreeMap::new();
    let done: Result<(), std::convert::Infallible> = tree.visit(&mut |path, ino| {
        if counts[ino.index()] > 1 && tree.children(ino).is_none() {
            names.entry(ino).or_default().push(path.to_vec());
        }
        Ok(())
    });
    match done {
        Ok(()) => names,
    }
}

/// Walks both trees at once. A name that one of them lacks comes with everything below it; so does one
/// that is a directory in one and something else in the other.
fn both(old: &Tree, new: &Tree, take: &mut impl FnMut(&[u8], Option<Ino>, Option<Ino>)) {
    let mut path = Vec::new();
    take(&path, Some(Ino::ROOT), Some(Ino::ROOT));
    let open = |a: Option<Ino>, b: Option<Ino>| {
        let names = |tree, ino: Option<Ino>| {
            let children = ino.and_then(|ino| Tree::children(tree, ino));
            children
                .into_iter()
                .flat_map(|names| names.iter())
                .peekable()
        };
        (names(old, a), names(new, b))
    };
    let mut stack = vec![(open(Some(Ino::ROOT), Some(Ino::ROOT)), 0)];
    while let Some(((olds, news), len)) = stack.last_mut() {
        path.truncate(*len);
        let order = match (olds.peek(), news.peek()) {
            (None, None) => {
                stack.pop();
                continue;
            }
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = olds.next_if(|_| order.is_le());
        let b = news.next_if(|_| order.is_ge());
        let Some((name, _)) = a.or(b) else { continue };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let (a, b) = (a.map(|(_, ino)| ino), b.map(|(_, ino)| ino));
        take(&path, a, b);
        let is_dir = |tree: &Tree, ino: Option<Ino>| ino.is_some_and(|i| tree.is_dir(i));
        if is_dir(old, a) || is_dir(new, b) {
            stack.push((open(a, b), path.len()));
        }
    }
}

#[cfg(test)]
mod tests;
