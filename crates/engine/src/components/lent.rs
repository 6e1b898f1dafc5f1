//! Files that the sandbox lends to a run on a folder, kept from it.
//!
//! Whatever a step does to a lent file, be it a new mode, copies it to the upper directory, text and all. What is
//! there with the lent bytes is not the step's, and the folder keeps its own.

use std::io;

use amiforge_exec::RootSpec;
use amiforge_tree::{Ino, Kind, Tree, TreeError};
use amiforge_types::BlobTable;

/// Symbolic links followed on the way to one file, as the sandbox does.
const MAX_LINKS: usize = 40;

/// A lent file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lent {
    /// Names on the way to it, links among its directories followed.
    path: Vec<Vec<u8>>,
    text: Vec<u8>,
}

/// What was lent could not be told from what is the folder's.
#[derive(Debug, thiserror::Error)]
pub(super) enum LentError {
    /// A file could not be read.
    #[error("cannot read {:?}", String::from_utf8_lossy(path))]
    Read { path: Vec<u8>, source: io::Error },
    /// The tree is too large.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What `root` lends to a run on the files of `tree`.
pub(super) fn lent(root: &RootSpec, tree: &Tree) -> Vec<Lent> {
    let resolver = root.resolv_conf.as_ref();
    let resolver = resolver.map(|text| ("/etc/resolv.conf", text));
    let shims = root
        .shims
        .iter()
        .map(|shim| (shim.path.as_str(), &shim.text));
    shims
        .chain(resolver)
        .filter_map(|(path, text)| {
            // A circle of links: the sandbox has refused it.
            let path = resolve(tree, path.as_bytes())?;
            let text = text.as_bytes().to_vec();
            Some(Lent { path, text })
        })
        .collect()
}

/// The directories that the sandbox lays files of its own over.
pub(super) fn covered(lent: &[Lent]) -> Vec<Vec<u8>> {
    let mut dirs: Vec<Vec<u8>> = lent
        .iter()
        .flat_map(|lent| (0..lent.path.len()).map(|depth| lent.path[..depth].join(&b'/')))
        .collect();
    dirs.sort_unstable();
    dirs.dedup();
    dirs
}

/// Puts what `lower` has in the place of lent files that a run left in `changed`, a copy of `lower` with a layer
/// applied; what `lower` has not goes, with directories that nothing else is in.
pub(super) fn take_back(
    lent: &[Lent],
    lower: &Tree,
    changed: &mut Tree,
    blobs: &BlobTable,
) -> Result<(), LentError> {
    for Lent { path, text } in lent {
        let full = path.join(&b'/');
        let own = lower.lookup(&full);
        let Some(ino) = changed.lookup(&full).filter(|ino| Some(*ino) != own) else {
            continue;
        };
        let Kind::File(content) = changed.inode(ino).kind else {
            continue;
        };
        if u64::try_from(text.len()) != Ok(content.size) {
            continue;
        }
        let found = content
            .read_to_vec(blobs, content.size)
            .map_err(|source| LentError::Read {
                path: full.clone(),
                source,
            })?;
        if found != *text {
            continue;
        }
        changed.remove(&full);
        let Some((name, above)) = path.split_last() else {
            continue;
        };
        match own.filter(|own| !lower.is_dir(*own)) {
            Some(own) => {
                let dir = changed.lookup(&above.join(&b'/')).unwrap_or(Ino::ROOT);
                changed.name(dir, name, own)?;
            }
            None => remove_empty(above, lower, changed),
        }
    }
    Ok(())
}

/// Removes directories that were made for a lent file alone.
fn remove_empty(path: &[Vec<u8>], lower: &Tree, changed: &mut Tree) {
    for depth in (1..=path.len()).rev() {
        let dir = path[..depth].join(&b'/');
        let names = changed.lookup(&dir).and_then(|ino| changed.children(ino));
        if lower.lookup(&dir).is_some() || !names.is_some_and(|names| names.is_empty()) {
            return;
        }
        changed.remove(&dir);
    }
}

/// The names on the way to `path` with the symbolic links among its directories followed, by the rule of the
/// sandbox's own: a link in the last place is covered by what is lent.
fn resolve(tree: &Tree, path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|b| *b == b'/')
            .rev()
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut todo = parts(path);
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.pop();
            continue;
        }
        done.push(name);
        if todo.is_empty() {
            break;
        }
        let here = tree.lookup(&done.join(&b'/'));
        if let Some(target) = here.and_then(|ino| tree.target(ino)) {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            match target.starts_with(b"/") {
                true => done.clear(),
                false => drop(done.pop()),
            }
            todo.extend(parts(target));
        }
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Content, Inode, Stat};
    use amiforge_types::Timestamp;

    use super::*;

    fn inode(kind: Kind) -> Inode {
        let stat = Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        Inode::new(stat, kind)
    }

    fn file(text: &str) -> Inode {
        inode(Kind::File(Content::bytes(text.as_bytes())))
    }

    /// `/usr/sbin` is a link to `bin`, and `/etc/resolv.conf` is the folder's own.
    fn folder() -> Tree {
        let mut tree = Tree::new(inode(Kind::Dir).stat);
        for dir in ["usr", "usr/bin", "etc"] {
            tree.insert(dir.as_bytes(), inode(Kind::Dir)).unwrap();
        }
        let link = inode(Kind::Symlink(b"bin".to_vec()));
        tree.insert(b"usr/sbin", link).unwrap();
        tree.insert(b"etc/resolv.conf", file("own")).unwrap();
        tree
    }

    fn at(path: &str, text: &str) -> Lent {
        Lent {
            path: resolve(&folder(), path.as_bytes()).unwrap(),
            text: text.into(),
        }
    }

    #[test]
    fn directories_reached_through_links_are_covered() {
        let dirs = covered(&[at("/usr/sbin/tool", ""), at("/etc/resolv.conf", "")]);
        assert_eq!(
            dirs,
            [&b""[..], b"etc", b"usr", b"usr/bin"].map(<[u8]>::to_vec)
        );
    }

    #[test]
    fn a_circle_of_links_leads_nowhere() {
        let mut tree = folder();
        let link = inode(Kind::Symlink(b"/usr/loop".to_vec()));
        tree.insert(b"usr/loop", link).unwrap();
        assert_eq!(resolve(&tree, b"/usr/loop/tool"), None);
    }

    #[test]
    fn what_has_the_lent_text_goes_and_what_a_step_wrote_stays() {
        let lower = folder();
        let lent = [
            at("/etc/resolv.conf", "lent"),
            at("/usr/sbin/tool", "tool"),
            at("/usr/sbin/other", "other"),
            at("/new/dir/tool", "tool"),
        ];
        let mut changed = lower.clone();
        changed.insert(b"etc/resolv.conf", file("lent")).unwrap();
        changed.link(b"etc/saved", b"etc/resolv.conf").unwrap();
        changed.insert(b"usr/bin/tool", file("tool")).unwrap();
        changed.insert(b"usr/bin/other", file("ours!")).unwrap();
        changed.insert(b"new", inode(Kind::Dir)).unwrap();
        changed.insert(b"new/dir", inode(Kind::Dir)).unwrap();
        changed.insert(b"new/dir/tool", file("tool")).unwrap();
        take_back(&lent, &lower, &mut changed, &BlobTable::new()).unwrap();
        let own = lower.lookup(b"etc/resolv.conf");
        assert_eq!(changed.lookup(b"etc/resolv.conf"), own);
        assert!(
            changed
                .lookup(b"etc/saved")
                .is_some_and(|ino| Some(ino) != own)
        );
        assert_eq!(changed.lookup(b"usr/bin/tool"), None);
        assert!(changed.lookup(b"usr/bin/other").is_some());
        assert_eq!(changed.lookup(b"new"), None);
    }
}
