//! How a tree holds an inode: 32 bytes, and what many inodes have in common once.
//!
//! Two million inodes have to fit into some hundred megabytes, beside their names. Nearly every file of
//! a root is one run of a blob, nearly every owner, mode, flag and set of attributes is that of many, so
//! those are numbers; the rest (files in pieces, or in memory, or of known digest) is kept aside.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use amiforge_types::{BlobId, Timestamp};

use crate::InodeFlags;
use crate::model::{Content, DataExtent, DataSource, Inode, Kind, Stat, TreeError, XattrName};

type Xattrs = BTreeMap<XattrName, Vec<u8>>;

/// One inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    secs: i64,
    nanos: u32,
    /// Number of its [`Common`].
    common: u32,
    /// Place of the data; what of depends on the form.
    place: u64,
    size: u64,
}

const _: () = assert!(size_of::<Packed>() == 32);

/// What many inodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Common {
    form: Form,
    mode: u16,
    uid: u32,
    gid: u32,
    flags: InodeFlags,
    xattrs: u32,
    layer: u16,
}

/// The type of an inode, and what `place` and `size` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// Number of the directory.
    Dir,
    /// A file without data.
    Hole,
    /// A file that is one run: where it starts in the blob.
    Run(BlobId),
    /// Any other file: number of the content.
    Content,
    /// Start and length of the target.
    Symlink,
    /// Major and minor number.
    CharDev,
    /// Major and minor number.
    BlockDev,
    Fifo,
    Socket,
}

/// What is kept aside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    common: Interner<Common>,
    xattrs: Interner<Arc<Xattrs>>,
    targets: Vec<u8>,
    contents: Vec<Content>,
    /// The layer that what is packed now is of.
    pub(crate) layer: u16,
}

/// A regular file: its size and its runs.
#[derive(Clone, Debug)]
pub struct FileRuns<'t> {
    /// File size in bytes.
    pub size: u64,
    runs: Runs<'t>,
}

#[derive(Clone, Debug)]
enum Runs<'t> {
    None,
    One([DataExtent; 1]),
    Many(&'t [DataExtent]),
}

impl FileRuns<'_> {
    /// See [`Content::extents`].
    #[must_use]
    pub fn extents(&self) -> &[DataExtent] {
        match &self.runs {
            Runs::None => &[],
            Runs::One(one) => one,
            Runs::Many(many) => many,
        }
    }
}

impl Store {
    /// Packs an inode. `old` is what stood in its place: what was kept aside for it is used again.
    /// `dir` is the number of the directory, if it is one.
    pub(crate) fn pack(
        &mut self,
        inode: Inode,
        old: Option<Packed>,
        dir: usize,
    ) -> Result<Packed, TreeError> {
        let Inode {
            stat,
            kind,
            xattrs,
            flags,
        } = inode;
        let mut layer = old.map(|old| self.layer(old));
        let (form, place, size) = match kind {
            Kind::Dir => (Form::Dir, dir as u64, 0),
            Kind::File(content) => {
                // Other data is of the layer that brings it.
                layer = layer.filter(|_| old.is_some_and(|old| self.has_data(old, &content)));
                match run_of(&content) {
                    Some((form, place)) => (form, place, content.size),
                    None => (Form::Content, self.keep(content, old), 0),
                }
            }
            Kind::Symlink(target) => {
                let (at, len) = (self.targets.len(), target.len());
                match old.filter(|old| self.target(*old) == Some(&target[..])) {
                    Some(old) => (Form::Symlink, old.place, old.size),
                    None => {
                        self.targets.extend_from_slice(&target);
                        (Form::Symlink, at as u64, len as u64)
                    }
                }
            }
            Kind::CharDev { major, minor } => (Form::CharDev, major.into(), minor.into()),
            Kind::BlockDev { major, minor } => (Form::BlockDev, major.into(), minor.into()),
            Kind::Fifo => (Form::Fifo, 0, 0),
            Kind::Socket => (Form::Socket, 0, 0),
        };
        let xattrs = self.xattrs.add(xattrs, Arc::new)?;
        let common = Common {
            form,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            flags,
            xattrs,
            layer: layer.unwrap_or(self.layer),
        };
        Ok(Packed {
            secs: stat.mtime.secs,
            nanos: stat.mtime.nanos,
            common: self.common.add(common, |common| common)?,
            place,
            size,
        })
    }

    /// Whether an inode is a file of that size with its data in these places.
    fn has_data(&self, packed: Packed, content: &Content) -> bool {
        self.file(packed).is_some_and(|file| {
            file.size == content.size && file.extents() == content.extents.as_slice()
        })
    }

    /// The layer of an inode.
    pub(crate) fn layer(&self, packed: Packed) -> u16 {
        self.common(packed).layer
    }

    /// The same inode as one of another layer.
    pub(crate) fn with_layer(&mut self, packed: Packed, layer: u16) -> Result<Packed, TreeError> {
        let common = Common {
            layer,
            ..*self.common(packed)
        };
        Ok(Packed {
            common: self.common.add(common, |common| common)?,
            ..packed
        })
    }

    /// Keeps a content aside; gives its number.
    fn keep(&mut self, content: Content, old: Option<Packed>) -> u64 {
        let slot = old
            .filter(|old| self.common(*old).form == Form::Content)
            .and_then(|old| self.contents.get_mut(index(old.place)));
        match slot {
            Some(slot) => {
                *slot = content;
                old.map_or(0, |old| old.place)
            }
            None => {
                self.contents.push(content);
                self.contents.len() as u64 - 1
            }
        }
    }

    pub(crate) fn unpack(&self, packed: Packed) -> Inode {
        let common = self.common(packed);
        let (place, size) = (packed.place, packed.size);
        let half = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let kind = match common.form {
            Form::Dir => Kind::Dir,
            Form::Hole => Kind::File(Content {
                size,
                ..Content::default()
            }),
            Form::Run(id) => Kind::File(Content::blob(id, place, size)),
            Form::Content => Kind::File(self.contents[index(place)].clone()),
            Form::Symlink => Kind::Symlink(self.target(packed).unwrap_or_default().to_vec()),
            Form::CharDev => Kind::CharDev {
                major: half(place),
                minor: half(size),
            },
            Form::BlockDev => Kind::BlockDev {
                major: half(place),
                minor: half(size),
            },
            Form::Fifo => Kind::Fifo,
            Form::Socket => Kind::Socket,
        };
        Inode {
            stat: self.stat(packed),
            kind,
            xattrs: self.xattrs(packed).clone(),
            flags: common.flags,
        }
    }

    pub(crate) fn stat(&self, packed: Packed) -> Stat {
        let common = self.common(packed);
        Stat {
            mode: common.mode,
            uid: common.uid,
            gid: common.gid,
            mtime: Timestamp {
                secs: packed.secs,
                nanos: packed.nanos,
            },
        }
    }

    pub(crate) fn xattrs(&self, packed: Packed) -> &Xattrs {
        &self.xattrs.list[self.common(packed).xattrs as usize]
    }

    /// The number of a directory; `None` for other types.
    pub(crate) fn directory(&self, packed: Packed) -> Option<usize> {
        (self.common(packed).form == Form::Dir).then(|| index(packed.place))
    }

    /// The runs of a file; `None` for other types.
    pub(crate) fn file(&self, packed: Packed) -> Option<FileRuns<'_>> {
        let (size, runs) = match self.common(packed).form {
            Form::Hole => (packed.size, Runs::None),
            Form::Run(id) => {
                let run = DataExtent {
                    offset: 0,
                    len: packed.size,
                    source: DataSource::Blob {
                        id,
                        offset: packed.place,
                    },
                };
                (packed.size, Runs::One([run]))
            }
            Form::Content => {
                let content = &self.contents[index(packed.place)];
                (content.size, Runs::Many(&content.extents))
            }
            _ => return None,
        };
        Some(FileRuns { size, runs })
    }

    /// The target of a symbolic link; `None` for other types.
    pub(crate) fn target(&self, packed: Packed) -> Option<&[u8]> {
        let start = index(packed.place);
        (self.common(packed).form == Form::Symlink)
            .then(|| &self.targets[start..start + index(packed.size)])
    }

    /// Replaces every blob id.
    pub(crate) fn map_blobs(&mut self, f: &mut dyn FnMut(BlobId) -> BlobId) {
        for content in &mut self.contents {
            content.map_blobs(f);
        }
        // Numbers stay what they are; where two became the same, either serves.
        for common in &mut self.common.list {
            if let Form::Run(id) = &mut common.form {
                *id = f(*id);
            }
        }
        self.common.index_again();
    }

    fn common(&self, packed: Packed) -> &Common {
        &self.common.list[packed.common as usize]
    }
}

/// The form of a file that needs nothing kept aside, and its place.
fn run_of(content: &Content) -> Option<(Form, u64)> {
    if content.digest.is_some() {
        return None;
    }
    match content.extents.as_slice() {
        [] => Some((Form::Hole, 0)),
        [
            DataExtent {
                offset: 0,
                len,
                source: DataSource::Blob { id, offset },
            },
        ] if *len == content.size && *len > 0 => Some((Form::Run(*id), *offset)),
        _ => None,
    }
}

/// Places of things that are in memory.
fn index(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// Equal values once, by number.
#[derive(Clone, Debug)]
struct Interner<T> {
    list: Vec<T>,
    numbers: HashMap<T, u32>,
    last: u32,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            numbers: HashMap::new(),
            last: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The number of a value, which `make` turns into what is kept.
    fn add<V>(&mut self, value: V, make: impl FnOnce(V) -> T) -> Result<u32, TreeError>
    where
        T: std::borrow::Borrow<V>,
        V: Eq + Hash,
    {
        // Neighbours are alike.
        let last = self.list.get(self.last as usize);
        if last.is_some_and(|last| last.borrow() == &value) {
            return Ok(self.last);
        }
        self.last = match self.numbers.get(&value) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.list.len()).map_err(|_| TreeError::TooMany)?;
                let value = make(value);
                self.list.push(value.clone());
                self.numbers.insert(value, number);
                number
            }
        };
        Ok(self.last)
    }

    fn index_again(&mut self) {
        self.numbers = (0..).zip(&self.list).map(|(n, v)| (v.clone(), n)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tree;

    #[test]
    fn a_small_file_takes_no_more_than_its_share() {
        const FILES: usize = 20_000;
        let stat = |mode, secs| Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::from_secs(secs),
        };
        let id = amiforge_types::BlobTable::new().add(Arc::new(Vec::new()));
        let mut tree = Tree::new(stat(0o755, 0));
        let mut secs = 0_i64;
        for dir in 0..FILES / 1000 {
            let dir = format!("d{dir:04}");
            tree.insert(dir.as_bytes(), Inode::new(stat(0o755, 1), Kind::Dir))
                .unwrap();
            for file in 0..1000 {
                let path = format!("{dir}/file-{file:05}.txt");
                secs += 1;
                let content = Content::blob(id, 512 * secs.unsigned_abs(), 6);
                let inode = Inode::new(stat(0o644, secs), Kind::File(content));
                tree.insert(path.as_bytes(), inode).unwrap();
            }
        }
        // 32 for the inode, 8 for the name and 15 for its text, and a tenth for all else.
        let held = tree.held_bytes();
        assert!(held <= FILES * (32 + 8 + 15) * 11 / 10, "{held} bytes");
        assert!(tree.store.contents.is_empty());
        assert_eq!(tree.store.common.list.len(), 2);
        assert_eq!(tree.store.xattrs.list.len(), 1);
    }
}
