//! Files that the sandbox lends to a job, kept out of what becomes of the job.
//!
//! Whatever a step does to a lent file, be it a new mode, copies it to the upper directory, text and all. What is
//! there with the lent bytes is not the step's: a layer is made without it, so that the image and the folder keep
//! their own, and nothing of this host gets into them.

use std::collections::BTreeMap;
use std::io;

use amiforge_exec::{RootSpec, lent_place};
use amiforge_tree::{Content, Kind, LayerDiff, LayerEntry, Tree};
use amiforge_types::BlobTable;

/// A lent file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lent {
    /// Names on the way to it, links among its directories followed.
    path: Vec<Vec<u8>>,
    text: Vec<u8>,
}

/// A file that may be a lent one could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {:?}", String::from_utf8_lossy(path))]
pub(crate) struct LentError {
    path: Vec<u8>,
    source: io::Error,
}

/// Whether a layer has a file that may be a lent one, by its name and size.
pub(crate) fn may_have(root: &RootSpec, diff: &LayerDiff) -> bool {
    let last = |path: &[u8]| path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec);
    let lent: BTreeMap<Vec<u8>, u64> = root
        .lent()
        .filter_map(|(path, text, _)| Some((last(path.as_bytes())?, text.len() as u64)))
        .collect();
    diff.entries.keys().any(|path| {
        let size = last(path).and_then(|name| lent.get(&name).copied());
        size.is_some() && content_at(diff, path).is_some_and(|content| Some(content.size) == size)
    })
}

/// The data of the file that a layer puts at a path.
fn content_at<'d>(diff: &'d LayerDiff, path: &[u8]) -> Option<&'d Content> {
    let entry = match diff.entries.get(path)? {
        LayerEntry::Link(first) => diff.entries.get(first)?,
        entry => entry,
    };
    match entry {
        LayerEntry::Put(inode) => match &inode.kind {
            Kind::File(content) => Some(content),
            _ => None,
        },
        _ => None,
    }
}

/// What `root` lends to a job on the files of `tree`.
pub(crate) fn lent(root: &RootSpec, tree: &Tree) -> Vec<Lent> {
    let link = |path: &[u8]| Some(tree.target(tree.lookup(path)?)?.to_vec());
    root.lent()
        .filter_map(|(path, text, _)| {
            // What has no place was not lent: the sandbox has refused it.
            let path = lent_place(path, link).ok()?;
            let text = text.to_vec();
            Some(Lent { path, text })
        })
        .collect()
}

/// The directories that the sandbox lays files of its own over.
pub(crate) fn covered(lent: &[Lent]) -> Vec<Vec<u8>> {
    let mut dirs: Vec<Vec<u8>> = lent
        .iter()
        .flat_map(|lent| (0..lent.path.len()).map(|depth| lent.path[..depth].join(&b'/')))
        .collect();
    dirs.sort_unstable();
    dirs.dedup();
    dirs
}

/// Whether a layer has directories with attributes, which the directories that the sandbox lays over them have not.
pub(crate) fn has_attributes(diff: &LayerDiff) -> bool {
    diff.entries.values().any(|entry| match entry {
        LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => {
            inode.kind == Kind::Dir && !inode.xattrs.is_empty()
        }
        LayerEntry::Link(_) | LayerEntry::Whiteout => false,
    })
}

/// Gives directories that a job has changed the attributes back that it could not see, since the sandbox had laid others
/// over them. Whether there were any.
pub(crate) fn restore_attributes(lent: &[Lent], lower: &Tree, diff: &mut LayerDiff) -> bool {
    let mut restored = false;
    for path in covered(lent) {
        let (Some(LayerEntry::Put(inode)), Some(below)) =
            (diff.entries.get_mut(&path), lower.lookup(&path))
        else {
            continue;
        };
        if inode.kind != Kind::Dir || !lower.is_dir(below) {
            continue;
        }
        for (name, value) in lower.xattrs(below) {
            if !inode.xattrs.contains_key(name) {
                inode.xattrs.insert(name.clone(), value.clone());
                restored = true;
            }
        }
    }
    restored
}

/// A layer over `lower` without the lent files that a job left in it, and without directories that it has for their
/// sake alone; `None` when there are none. What `lower` has in their place stays.
pub(crate) fn without(
    lent: &[Lent],
    lower: &Tree,
    diff: &LayerDiff,
    blobs: &BlobTable,
) -> Result<Option<LayerDiff>, LentError> {
    let mut found: Vec<(&Lent, Vec<u8>)> = Vec::new();
    for file in lent {
        let path = file.path.join(&b'/');
        let content = content_at(diff, &path);
        let Some(content) = content.filter(|content| content.size == file.text.len() as u64) else {
            continue;
        };
        let is_lent = match content.read_to_vec(blobs, content.size) {
            Ok(bytes) => bytes == file.text,
            Err(source) => return Err(LentError { path, source }),
        };
        if is_lent {
            found.push((file, path));
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut out = diff.without(|path| found.iter().any(|(_, lent)| lent == path));
    for (file, path) in &found {
        let Some((_, above)) = file.path.split_last() else {
            continue;
        };
        match lower.lookup(path).filter(|own| !lower.is_dir(*own)) {
            // In a directory that was made anew nothing shows through.
            Some(own) if is_hidden(&out, above) => {
                let own = LayerEntry::Put(lower.inode(own));
                out.entries.insert(path.clone(), own);
            }
            Some(_) => {}
            None => remove_empty(above, lower, &mut out),
        }
    }
    Ok(Some(out))
}

/// Whether a layer has one of the directories on the way anew.
fn is_hidden(diff: &LayerDiff, path: &[Vec<u8>]) -> bool {
    (1..=path.len()).any(|depth| {
        let entry = diff.entries.get(&path[..depth].join(&b'/'));
        matches!(entry, Some(LayerEntry::PutOpaque(_)))
    })
}

/// Removes directories that were made for a lent file alone.
fn remove_empty(path: &[Vec<u8>], lower: &Tree, diff: &mut LayerDiff) {
    for depth in (1..=path.len()).rev() {
        let dir = path[..depth].join(&b'/');
        let below = [&dir[..], b"/"].concat();
        let mut rest = diff.entries.range(below.clone()..);
        let is_empty = rest
            .next()
            .is_none_or(|(path, _)| !path.starts_with(&below));
        if lower.lookup(&dir).is_some() || !is_empty {
            return;
        }
        diff.entries.remove(&dir);
    }
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Inode, Stat};
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
        let mut root = root();
        root.shims = vec![amiforge_exec::Shim {
            path: path.to_owned(),
            text: text.to_owned(),
            mode: 0o755,
        }];
        lent(&root, &folder()).remove(0)
    }

    fn root() -> RootSpec {
        RootSpec {
            lowers: Vec::new(),
            upper: "upper".into(),
            work: "work".into(),
            shims: Vec::new(),
            resolv_conf: None,
            network: true,
            limits: amiforge_exec::Limits::default(),
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
    fn what_has_the_lent_text_goes_and_what_a_step_wrote_stays() {
        let lower = folder();
        let lent = [
            at("/etc/resolv.conf", "lent"),
            at("/usr/sbin/tool", "tool"),
            at("/usr/sbin/other", "other"),
            at("/new/dir/tool", "tool"),
        ];
        let mut diff = LayerDiff::default();
        let mut put = |path: &str, entry| diff.entries.insert(path.into(), entry);
        put("etc/resolv.conf", LayerEntry::Put(file("lent")));
        put("etc/saved", LayerEntry::Link(b"etc/resolv.conf".to_vec()));
        put("usr/bin/tool", LayerEntry::Put(file("tool")));
        put("usr/bin/other", LayerEntry::Put(file("ours!")));
        put("new", LayerEntry::Put(inode(Kind::Dir)));
        put("new/dir", LayerEntry::Put(inode(Kind::Dir)));
        put("new/dir/tool", LayerEntry::Put(file("tool")));
        let left = without(&lent, &lower, &diff, &BlobTable::new()).unwrap();
        let left = left.unwrap().entries;
        let names: Vec<_> = left
            .keys()
            .map(|path| path.escape_ascii().to_string())
            .collect();
        assert_eq!(names, ["etc/saved", "usr/bin/other"]);
        assert_eq!(left[&b"etc/saved"[..]], LayerEntry::Put(file("lent")));
        let again = LayerDiff { entries: left };
        let again = without(&lent, &lower, &again, &BlobTable::new()).unwrap();
        assert_eq!(again, None);
    }

    /// `cp -a /etc /x; rm -r /etc; mv /x /etc`, say.
    #[test]
    fn a_directory_that_is_made_anew_has_the_own_file() {
        let lower = folder();
        let mut diff = LayerDiff::default();
        let mut put = |path: &str, entry| diff.entries.insert(path.into(), entry);
        put("etc", LayerEntry::PutOpaque(inode(Kind::Dir)));
        put("etc/resolv.conf", LayerEntry::Put(file("lent")));
        let lent = [at("/etc/resolv.conf", "lent")];
        let left = without(&lent, &lower, &diff, &BlobTable::new()).unwrap();
        let own = &left.unwrap().entries[&b"etc/resolv.conf"[..]];
        assert_eq!(*own, LayerEntry::Put(file("own")));
    }

    #[test]
    fn directories_under_lent_files_keep_their_attributes() {
        let mut lower = folder();
        let etc = lower.lookup(b"etc").unwrap();
        let (list, value) = (b"system.posix_acl_access".to_vec(), b"acl".to_vec());
        lower
            .update(etc, |inode| {
                inode.xattrs.insert(list.clone(), value.clone());
            })
            .unwrap();
        let lent = [at("/etc/resolv.conf", "lent")];
        let mut diff = LayerDiff::default();
        let dir = || LayerEntry::Put(inode(Kind::Dir));
        diff.entries.insert(b"etc".to_vec(), dir());
        diff.entries.insert(b"usr".to_vec(), dir());
        assert!(!has_attributes(&diff));
        assert!(restore_attributes(&lent, &lower, &mut diff));
        assert!(has_attributes(&diff));
        let LayerEntry::Put(etc) = &diff.entries[&b"etc"[..]] else {
            panic!("{diff:?}");
        };
        assert_eq!(etc.xattrs[&list], value);
        assert!(!restore_attributes(&lent, &lower, &mut diff));
    }

    #[test]
    fn only_a_layer_with_a_file_of_that_name_and_size_is_looked_at() {
        let root = RootSpec {
            resolv_conf: Some("lent".to_owned()),
            ..root()
        };
        let has = |path: &str, text: &str| {
            let entry = LayerEntry::Put(file(text));
            let entries = [(path.as_bytes().to_vec(), entry)].into();
            may_have(&root, &LayerDiff { entries })
        };
        assert!(has("run/etc/resolv.conf", "tnel"));
        assert!(!has("etc/resolv.conf", "of another length"));
        assert!(!has("etc/resolv", "lent"));
    }
}
