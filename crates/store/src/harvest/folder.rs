//! An ordinary folder to a tree, its file data to a spool.
//!
//! A folder may have millions of files, so nothing is kept of them but the tree: data is copied in batches
//! while the folder is walked.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use amiforge_tree::{Content, DataExtent, DataSource, Ino, Inode, InodeFlags, Kind, Tree};
use amiforge_types::{BlobId, WriteAt as _};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType};

use super::data::{self, Chunk, ZeroRuns};
use super::flags::FlagReader;
use super::walk::{FileState, kind_of, stat_of};
use super::{Form, HOLE_BLOCK, HOLE_BYTES, HarvestError, xattr};
use crate::FileTarget;
use crate::dirfd::{join, open_dir, retry};

/// Files, and bytes of them, that are copied at once.
const BATCH_FILES: usize = 4096;
const BATCH_BYTES: u64 = 256 << 20;

/// Reads an ordinary directory, whole, over what `tree` holds, as one more [layer](Tree::layer) of it. What overlayfs
/// would take for a whiteout or a mark is a device or an attribute like any other here: the folder is a
/// root file system, and there may be a container store in it.
///
/// File data goes to `spool` (a regular file open for writing, emptied first), each run at a multiple of 4096 bytes with
/// zeros up to the next one. Runs of zeros of 64 KiB or more become holes. The tree's data is in
/// [`BlobId::UNASSIGNED`].
pub fn read_folder(dir: impl AsFd, mut tree: Tree, spool: &File) -> Result<Tree, HarvestError> {
    let root = dir.as_fd();
    spool.set_len(0).map_err(HarvestError::Spool)?;
    let target = FileTarget::from_file(spool.try_clone().map_err(HarvestError::Spool)?);
    let stat = retry(|| rustix::fs::fstat(root)).map_err(HarvestError::io("stat", b"/"))?;
    tree.next_layer();
    let mut reader = Reader {
        root,
        device: stat.st_dev,
        flags: FlagReader::below(root),
        tree,
        linked: HashMap::new(),
        pending: vec![(Vec::new(), Ino::ROOT)],
        batch: Vec::new(),
        batch_bytes: 0,
        spooled: 0,
        target,
    };
    let attrs = xattr::read(root, b"", Form::Plain)
        .map_err(HarvestError::io("read the attributes of", b"/"))?;
    let inode = Inode {
        xattrs: attrs.kept,
        flags: reader.flags.of(root),
        ..Inode::new(stat_of(&stat), Kind::Dir)
    };
    reader.tree.update(Ino::ROOT, |old| *old = inode)?;
    while let Some((path, ino)) = reader.pending.pop() {
        reader.directory(path, ino)?;
    }
    reader.flush()?;
    // The last runs may be zeros, which nobody has written.
    spool.set_len(reader.spooled).map_err(HarvestError::Spool)?;
    Ok(reader.tree)
}

/// A file whose data is to be copied.
struct Job {
    dir: Arc<Vec<u8>>,
    name: Vec<u8>,
    state: FileState,
    ino: Ino,
    /// Parts that may hold data: start, end, and place in the spool.
    parts: Vec<(u64, u64, u64)>,
}

impl Job {
    fn path(&self) -> Vec<u8> {
        join(&self.dir, &self.name)
    }
}

struct Reader<'a> {
    root: BorrowedFd<'a>,
    device: u64,
    flags: FlagReader,
    tree: Tree,
    /// Inodes of the host that have more than one name.
    linked: HashMap<u64, Ino>,
    pending: Vec<(Vec<u8>, Ino)>,
    batch: Vec<Job>,
    batch_bytes: u64,
    /// Bytes of the spool that are given away.
    spooled: u64,
    target: FileTarget,
}

impl Reader<'_> {
    fn directory(&mut self, path: Vec<u8>, ino: Ino) -> Result<(), HarvestError> {
        let fd = open_dir(self.root, &path).map_err(HarvestError::io("open", &path))?;
        if ino != Ino::ROOT {
            let flags = self.flags.of(fd.as_fd());
            if !flags.is_empty() {
                self.tree.update(ino, |dir| dir.flags = flags)?;
            }
        }
        let mut listing = Dir::read_from(&fd)
            .map_err(io::Error::from)
            .map_err(HarvestError::io("list", &path))?;
        let mut names = Vec::new();
        while let Some(entry) = listing.read() {
            let entry = entry
                .map_err(io::Error::from)
                .map_err(HarvestError::io("list", &path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        // The files of a folder become neighbours in the spool, as they are in the image.
        names.sort_unstable();
        let below = self.pending.len();
        let path = Arc::new(path);
        for name in names {
            self.entry(fd.as_fd(), &path, name, ino)?;
        }
        self.pending[below..].reverse();
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Arc<Vec<u8>>,
        name: Vec<u8>,
        parent: Ino,
    ) -> Result<(), HarvestError> {
        let shown = || join(path, &name);
        let stat =
            retry(|| rustix::fs::statat(dir, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(|e| HarvestError::io("stat", &shown())(e))?;
        if stat.st_dev != self.device {
            return Err(HarvestError::Mount(shown()));
        }
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let shared = !is_dir && stat.st_nlink > 1;
        let there = self
            .tree
            .children(parent)
            .and_then(|names| names.get(&name));
        let held = there.and_then(|ino| self.tree.children(ino));
        if !is_dir && held.is_some_and(|names| !names.is_empty()) {
            return Err(HarvestError::Replaces(shown()));
        }
        if let Some(ino) = self.linked.get(&stat.st_ino).filter(|_| shared) {
            return Ok(self.tree.name(parent, &name, *ino)?);
        }
        let attrs = xattr::read(dir, &name, Form::Plain)
            .map_err(|e| HarvestError::io("read the attributes of", &shown())(e))?;
        let kind = kind_of(dir, &name, &stat, shown)?;
        let is_file = matches!(kind, Kind::File(_));
        let inode = Inode {
            xattrs: attrs.kept,
            ..Inode::new(stat_of(&stat), kind)
        };
        let ino = match there.filter(|ino| is_dir && self.tree.is_dir(*ino)) {
            Some(ino) => {
                self.tree.update(ino, |old| *old = inode)?;
                ino
            }
            None => {
                let ino = self.tree.add(inode)?;
                self.tree.name(parent, &name, ino)?;
                ino
            }
        };
        if shared {
            self.linked.insert(stat.st_ino, ino);
        }
        if is_dir {
            self.pending.push((shown(), ino));
        } else if is_file {
            self.file(path, name, FileState::of(&stat), ino)?;
        }
        Ok(())
    }

    /// Gives the data of a file its places, and copies when there is enough to copy.
    fn file(
        &mut self,
        dir: &Arc<Vec<u8>>,
        name: Vec<u8>,
        state: FileState,
        ino: Ino,
    ) -> Result<(), HarvestError> {
        let mut parts = Vec::new();
        if state.sparse {
            let path = join(dir, &name);
            let file = data::open(self.root, &path, &state)?;
            let mut at = 0;
            while at < state.size {
                let (start, end) = data::next_data(&file, at, state.size)
                    .map_err(HarvestError::io("read", &path))?;
                at = end.max(start);
                match parts.last_mut() {
                    // Too little for a hole, whatever the host's file system made of it.
                    Some((_, last, _)) if start - *last < HOLE_BYTES => *last = end,
                    None if start < HOLE_BYTES => parts.push((0, end, 0)),
                    _ if start < end => parts.push((start, end, 0)),
                    _ => {}
                }
            }
        } else if state.size > 0 {
            parts.push((0, state.size, 0));
        }
        for (start, end, place) in &mut parts {
            *place = self.spooled;
            let len = (*end - *start).next_multiple_of(HOLE_BLOCK);
            self.spooled = self.spooled.saturating_add(len);
            self.batch_bytes += len;
        }
        self.batch.push(Job {
            dir: Arc::clone(dir),
            name,
            state,
            ino,
            parts,
        });
        if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Copies the data of the files that wait for it.
    fn flush(&mut self) -> Result<(), HarvestError> {
        let jobs = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let (root, flags, target) = (self.root, self.flags, &self.target);
        let done: Vec<(Content, InodeFlags)> = jobs
            .par_iter()
            .map_init(Vec::new, |buf, job| copy(root, flags, target, job, buf))
            .collect::<Result<_, _>>()?;
        for (job, (content, flags)) in jobs.iter().zip(done) {
            if content.size > 0 || !flags.is_empty() {
                self.tree.update(job.ino, |inode| {
                    (inode.kind, inode.flags) = (Kind::File(content), flags);
                })?;
            }
        }
        Ok(())
    }
}

/// Copies the data of one file, and says where it is.
fn copy(
    root: BorrowedFd<'_>,
    flags: FlagReader,
    target: &FileTarget,
    job: &Job,
    buf: &mut Vec<u8>,
) -> Result<(Content, InodeFlags), HarvestError> {
    let path = job.path();
    let size = job.state.size;
    let mut content = Content {
        size,
        ..Content::default()
    };
    if size == 0 {
        // There is nothing to read in it, so it need not be readable.
        let flags = data::open(root, &path, &job.state)
            .map_or(InodeFlags::NONE, |file| flags.of(file.as_fd()));
        return Ok((content, flags));
    }
    let file = data::open(root, &path, &job.state)?;
    let mut zeros = ZeroRuns::new();
    for (start, end, place) in &job.parts {
        zeros.hole(start - zeros.at());
        data::chunks(&file, *start, *end, buf, |bytes, at| {
            zeros.bytes(bytes);
            match data::is_zero(bytes) {
                true => Ok(()),
                false => target
                    .write_all_at(bytes, place + (at - start))
                    .map_err(HarvestError::Spool),
            }
        })
        .map_err(|error| match error {
            Chunk::Taken(error) => error,
            Chunk::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                HarvestError::Changed(path.clone())
            }
            Chunk::Read(error) => HarvestError::io("read", &path)(error),
        })?;
    }
    zeros.hole(size - zeros.at());
    // What is left out between parts is a hole in the image, too, so that a run lies in one of them.
    let mut parts = job.parts.iter().peekable();
    for (offset, end) in zeros.finish() {
        while parts
            .next_if(|(_, part_end, _)| *part_end <= offset)
            .is_some()
        {}
        if let Some((start, _, place)) = parts.peek() {
            content.extents.push(DataExtent {
                offset,
                len: end - offset,
                source: DataSource::Blob {
                    id: BlobId::UNASSIGNED,
                    offset: place + (offset - start),
                },
            });
        }
    }
    // Once more, for a write during the copy.
    let now = retry(|| rustix::fs::fstat(&file)).map_err(HarvestError::io("stat", &path))?;
    if FileState::of(&now) != job.state {
        return Err(HarvestError::Changed(path));
    }
    Ok((content, flags.of(file.as_fd())))
}
