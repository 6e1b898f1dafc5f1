//! Whiteouts of an archive of changes (image-spec 1.1, layer.md, "Whiteouts"): what is hidden of the layers below.
//!
//! ```text
//! etc/.wh.motd            `etc/motd` of the layers below is gone
//! opt/app/.wh..wh..opq    everything that the layers below have in `opt/app` is gone
//! ```
//!
//! A whiteout hides what is below, never what its own archive brings, whichever of them comes first. One that hides
//! nothing is no error: other tools write them too.

use std::collections::HashSet;

use super::TarErrorKind;
use super::read::Reader;
use crate::Ino;

/// Begins the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the file that makes its directory opaque, after [`WHITEOUT`].
const OPAQUE: &[u8] = b".wh..opq";

/// Most names that all whiteouts of an archive look at, so that many of them over a large tree end.
const MOST_STEPS: u64 = 64 << 20;

/// What tells the layers below from the archive's own layer. An inode says itself which layer it is of.
pub(super) struct Lower {
    /// The archive's layer.
    layer: u16,
    /// Directories of the layers below that the archive has too.
    directories: HashSet<Ino>,
    /// Names that the archive gives to inodes of the layers below.
    links: HashSet<(Ino, Vec<u8>)>,
    steps: u64,
}

impl Lower {
    pub(super) fn new(layer: u16) -> Self {
        Self {
            layer,
            directories: HashSet::new(),
            links: HashSet::new(),
            steps: 0,
        }
    }

    pub(super) fn put(&mut self, directory: Ino) {
        self.directories.insert(directory);
    }

    pub(super) fn link(&mut self, directory: Ino, name: &[u8]) {
        self.links.insert((directory, name.to_vec()));
    }
}

/// What a whiteout hides.
pub(super) enum Mark {
    /// One name of its directory.
    Name(Vec<u8>),
    /// All of them.
    All,
}

/// The whiteout that a normalised path is, and its directory.
pub(super) fn mark(path: &[u8]) -> Result<Option<(&[u8], Mark)>, TarErrorKind> {
    let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    if dir
        .split(|b| *b == b'/')
        .any(|part| part.starts_with(WHITEOUT))
    {
        return Err(TarErrorKind::Unsupported(
            "a name below a whiteout".to_owned(),
        ));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    match hidden {
        OPAQUE => Ok(Some((dir, Mark::All))),
        b"" | b"." | b".." => Err(TarErrorKind::Name(path.to_vec())),
        // What the AUFS file system keeps for itself.
        _ if hidden.starts_with(WHITEOUT) => Err(TarErrorKind::Unsupported(format!(
            "the mark {:?}",
            String::from_utf8_lossy(name)
        ))),
        _ => Ok(Some((dir, Mark::Name(hidden.to_vec())))),
    }
}

impl Reader<'_> {
    /// Does what a whiteout in the directory `dir` says.
    pub(super) fn hide(&mut self, dir: &[u8], mark: Mark) -> Result<(), TarErrorKind> {
        let parent = match self.parent(dir, false) {
            Ok(parent) => parent.ino,
            // There is nothing to hide.
            Err(TarErrorKind::Parent(_)) => return Ok(()),
            Err(e) => return Err(e),
        };
        self.parent = None;
        match mark {
            Mark::All => self.hide_below(parent).map(|_| ()),
            Mark::Name(name) => match self.child(parent, &name) {
                Some(ino) => self.hide_name(parent, &name, ino).map(|_| ()),
                None => Ok(()),
            },
        }
    }

    /// Takes away what a directory has of the layers below; true when something is left.
    pub(super) fn hide_below(&mut self, dir: Ino) -> Result<bool, TarErrorKind> {
        let Some(children) = self.tree.children(dir) else {
            return Ok(false);
        };
        let children: Vec<(Vec<u8>, Ino)> = children
            .iter()
            .map(|(name, ino)| (name.to_vec(), ino))
            .collect();
        if let Some(lower) = &mut self.lower {
            lower.steps += children.len() as u64;
            if lower.steps > MOST_STEPS {
                return Err(TarErrorKind::Limit {
                    what: "names that whiteouts look at",
                    limit: MOST_STEPS,
                });
            }
        }
        let mut left = false;
        // As deep as the tree is, which has a limit.
        for (name, ino) in children {
            left |= self.hide_name(dir, &name, ino)?;
        }
        Ok(left)
    }

    /// Takes one name away unless it is of the archive; true when it stays.
    fn hide_name(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<bool, TarErrorKind> {
        let below = self.tree.is_dir(ino) && self.hide_below(ino)?;
        let own = self.lower.as_ref().is_some_and(|lower| {
            self.tree.layer(ino) == lower.layer
                || lower.directories.contains(&ino)
                || lower.links.contains(&(dir, name.to_vec()))
        });
        if !below && !own {
            self.tree.unname(dir, name);
        }
        Ok(below || own)
    }
}
