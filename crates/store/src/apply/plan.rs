//! What has to be done to make one tree of another, as few files as possible touched.

use std::collections::HashMap;

use amiforge_tree::{Ino, Inode, Kind, Tree};

use crate::dirfd::join;

/// Something that happens to one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: Vec<u8>,
    /// What the name leads to before.
    pub(super) old: Option<Ino>,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A new directory; its attributes come last.
    MakeDir,
    /// A new inode, data and all.
    Write(Ino),
    /// The same file with other attributes.
    Attributes(Ino),
    /// One more name of what this path leads to.
    Link(Vec<u8>),
    /// The name goes, and with a directory everything below.
    Remove,
}

/// A directory whose names or attributes change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dir {
    pub(super) path: Vec<u8>,
    pub(super) old: Option<Ino>,
    pub(super) new: Ino,
    /// Whether names in it change.
    pub(super) names: bool,
}

/// All changes. Done in this order, with the directories last, children before parents.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Directories before what is in them.
    pub(super) made: Vec<Change>,
    pub(super) links: Vec<Change>,
    pub(super) removed: Vec<Change>,
    /// Parents before children.
    pub(super) dirs: Vec<Dir>,
    pub(super) split: u64,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.changes().next().is_none() && self.dirs.is_empty()
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.made.iter().chain(&self.links).chain(&self.removed)
    }
}

/// What becomes of a file of the new tree, whatever its names.
#[derive(Clone, Debug)]
enum Fate {
    /// The old file of this path stays, perhaps with other attributes.
    Kept { at: Vec<u8>, was: Ino },
    /// It is written at its first name.
    Written { at: Vec<u8> },
}

struct Planner<'t> {
    old: &'t Tree,
    new: &'t Tree,
    /// Names of each file of the old tree.
    counts: Vec<u32>,
    /// Names of the new tree's files that have several and are not the old tree's.
    groups: HashMap<Ino, Vec<Vec<u8>>>,
    fates: HashMap<Ino, Fate>,
    plan: Plan,
}

/// Compares the trees. Slots of `new` that `old` has, too, are the same inodes, but for attributes of
/// directories: `new` was made from `old` by applying a layer.
pub(super) fn plan(old: &Tree, new: &Tree) -> Plan {
    let counts = new.link_counts();
    let mut groups: HashMap<Ino, Vec<Vec<u8>>> = HashMap::new();
    let fresh = |ino: Ino| ino.index() >= old.slots();
    if (0..counts.len())
        .filter_map(Ino::from_index)
        .any(|ino| fresh(ino) && !new.is_dir(ino) && counts[ino.index()] > 1)
    {
        for (path, ino) in new.walk() {
            if fresh(ino) && !new.is_dir(ino) && counts[ino.index()] > 1 {
                groups.entry(ino).or_default().push(path);
            }
        }
    }
    let mut planner = Planner {
        old,
        new,
        counts: old.link_counts(),
        groups,
        fates: HashMap::new(),
        plan: Plan::default(),
    };
    let mut todo = vec![(Vec::new(), Some(Ino::ROOT), Ino::ROOT)];
    while let Some((path, was, is)) = todo.pop() {
        planner.directory(path, was, is, &mut todo);
    }
    planner.plan
}

type Todo = Vec<(Vec<u8>, Option<Ino>, Ino)>;

impl Planner<'_> {
    fn directory(&mut self, path: Vec<u8>, was: Option<Ino>, is: Ino, todo: &mut Todo) {
        let (old, new) = (self.old, self.new);
        let mut names = false;
        let olds = was.and_then(|was| old.children(was));
        let news = new.children(is);
        for (name, ino) in news.iter().flat_map(|names| names.iter()) {
            let before = olds.as_ref().and_then(|names| names.get(name));
            let child = join(&path, name);
            if new.is_dir(ino) {
                let same = before.filter(|before| old.is_dir(*before));
                if same.is_none() {
                    names = true;
                    self.plan.made.push(Change {
                        path: child.clone(),
                        old: before,
                        action: Action::MakeDir,
                    });
                }
                todo.push((child, same, ino));
            } else if before != Some(ino) {
                names |= self.file(child, before, ino);
            }
        }
        for (name, before) in olds.iter().flat_map(|names| names.iter()) {
            if news.as_ref().is_none_or(|names| names.get(name).is_none()) {
                names = true;
                self.plan.removed.push(Change {
                    path: join(&path, name),
                    old: Some(before),
                    action: Action::Remove,
                });
            }
        }
        let attributes = was.is_none_or(|was| {
            let (before, after) = (old.inode(was), new.inode(is));
            differences(&before, &after) > 0
        });
        if names || attributes {
            self.plan.dirs.push(Dir {
                path,
                old: was,
                new: is,
                names,
            });
        }
    }

    /// Whether the name changes.
    fn file(&mut self, path: Vec<u8>, before: Option<Ino>, ino: Ino) -> bool {
        let fate = match self.fates.get(&ino) {
            Some(fate) => fate.clone(),
            None => {
                let fate = self.fate(&path, ino);
                self.fates.insert(ino, fate.clone());
                fate
            }
        };
        let action = match fate {
            Fate::Kept { at, was } if at == path => {
                if differences(&self.old.inode(was), &self.new.inode(ino)) > 0 {
                    self.plan.made.push(Change {
                        path,
                        old: before,
                        action: Action::Attributes(ino),
                    });
                }
                return false;
            }
            Fate::Kept { was, .. } if before == Some(was) => return false,
            Fate::Written { at } if at == path => {
                self.tell_split(before, ino);
                self.plan.made.push(Change {
                    path,
                    old: before,
                    action: Action::Write(ino),
                });
                return true;
            }
            Fate::Kept { at, .. } | Fate::Written { at } => Action::Link(at),
        };
        self.tell_split(before, ino);
        self.plan.links.push(Change {
            path,
            old: before,
            action,
        });
        true
    }

    fn fate(&self, path: &[u8], ino: Ino) -> Fate {
        let one = [path.to_vec()];
        let names = self.groups.get(&ino).map_or(&one[..], Vec::as_slice);
        let after = self.new.inode(ino);
        let kept = names.iter().find_map(|name| {
            let was = self.old.lookup(name)?;
            let before = self.old.inode(was);
            // Attributes are set one after the other, so that a file with one name is rather written anew.
            let few = differences(&before, &after) <= 1 || self.counts[was.index()] > 1;
            (same_data(&before.kind, &after.kind) && few).then(|| Fate::Kept {
                at: name.clone(),
                was,
            })
        });
        kept.unwrap_or_else(|| Fate::Written {
            at: names.first().cloned().unwrap_or_default(),
        })
    }

    /// Counts a file that loses a name to a new one while others stay.
    fn tell_split(&mut self, before: Option<Ino>, ino: Ino) {
        let Some(was) = before.filter(|was| !self.old.is_dir(*was)) else {
            return;
        };
        let group = self.groups.get(&ino).into_iter().flatten();
        let along = group.filter(|name| self.old.lookup(name) == Some(was));
        let along = u32::try_from(along.count()).unwrap_or(u32::MAX).max(1);
        if self.counts[was.index()] > along {
            self.plan.split += 1;
        }
    }
}

fn same_data(old: &Kind, new: &Kind) -> bool {
    match (old, new) {
        (Kind::File(old), Kind::File(new)) => old.same_bytes(new),
        (old, new) => old == new,
    }
}

/// How many calls it takes to give a file other attributes.
fn differences(old: &Inode, new: &Inode) -> u32 {
    let owner = (old.stat.uid, old.stat.gid) != (new.stat.uid, new.stat.gid);
    // A new owner takes set-id bits and capabilities away, which are then set again.
    let drops = owner && (new.stat.mode & 0o6000 != 0 || !new.xattrs.is_empty());
    let rest = [
        old.stat.mode != new.stat.mode,
        old.stat.mtime != new.stat.mtime,
        old.xattrs != new.xattrs,
        old.flags != new.flags,
        drops,
    ];
    u32::from(owner) + rest.into_iter().map(u32::from).sum::<u32>()
}
