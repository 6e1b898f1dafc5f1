//! A layer as a directory: the lower directory of an overlay.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use amiforge_tree::{
    Content, DataSource, Inode, InodeFlags, Kind, LayerDiff, LayerEntry, Stat, Tree, TreeError,
};
use amiforge_types::{BlobTable, Timestamp, WriteAt};
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use crate::FileTarget;
use crate::dirfd::{open_beneath, open_dir, proc_path, retry, split};

/// What was made, and what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaterialiseReport {
    /// Names made: directories, files, links, pipes, sockets, whiteouts.
    pub entries: u64,
    /// Device nodes left out: they cannot be made without host privileges. The sandbox brings its own.
    pub devices_skipped: u64,
    /// Attributes left out, because only the host's root may set them (`trusted.*` and labels).
    pub xattrs_skipped: u64,
}

/// A layer that could not be materialised. What was made so far stays in the target directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {:?}", String::from_utf8_lossy(path))]
pub struct MaterialiseError {
    /// What was tried.
    pub action: &'static str,
    /// Path in the image.
    pub path: Vec<u8>,
    /// Why it failed.
    pub source: io::Error,
}

impl MaterialiseError {
    pub(crate) fn new(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_vec();
        move |source| Self {
            action,
            path,
            source,
        }
    }

    pub(crate) fn errno(
        action: &'static str,
        path: &[u8],
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_vec();
        move |e| Self {
            action,
            path,
            source: e.into(),
        }
    }
}

type Result<T> = std::result::Result<T, MaterialiseError>;

/// Fills the empty directory `target` with what `diff` puts: owners, modes, attributes, times, hard
/// links and holes included. Whiteouts become character devices 0:0, opaque directories get
/// `user.overlay.opaque`. A directory that has children in the diff has to be in it as well, since
/// the owner and mode of a made-up one would hide those of the layers below. Inode flags are not set: they
/// would keep the next steps from changing the file, and us from removing the folder.
///
/// Call it as root, of the host or of a user namespace that maps every owner of the layer. The
/// process's umask does not matter. `/proc` has to be mounted when symbolic links have attributes.
pub fn materialise(
    diff: &LayerDiff,
    blobs: &BlobTable,
    target: impl AsFd,
) -> Result<MaterialiseReport> {
    let target = target.as_fd();
    let mut report = MaterialiseReport::default();
    let mut dirs: Vec<(&[u8], &Inode, bool)> = Vec::new();
    let mut files: Vec<(&[u8], &Inode, &Content)> = Vec::new();
    let mut links: Vec<(&[u8], &[u8])> = Vec::new();
    let mut places = Parents::below(target);
    for (path, entry) in &diff.entries {
        match entry {
            LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => match &inode.kind {
                Kind::Dir => {
                    places.make_dir(path)?;
                    dirs.push((path, inode, matches!(entry, LayerEntry::PutOpaque(_))));
                }
                Kind::File(content) => files.push((path, inode, content)),
                Kind::CharDev { .. } | Kind::BlockDev { .. } => {
                    report.devices_skipped += 1;
                    continue;
                }
                Kind::Symlink(link) => {
                    places.make_symlink(path, link)?;
                    report.xattrs_skipped += places.set_named(path, inode)?;
                }
                Kind::Fifo | Kind::Socket => {
                    let kind = if inode.kind == Kind::Fifo {
                        FileType::Fifo
                    } else {
                        FileType::Socket
                    };
                    places.make_node(path, kind)?;
                    report.xattrs_skipped += places.set_named(path, inode)?;
                }
            },
            LayerEntry::Link(to) => links.push((path, to)),
            LayerEntry::Whiteout => places.make_node(path, FileType::CharacterDevice)?,
        }
        report.entries += 1;
    }
    report.xattrs_skipped += files
        .par_iter()
        .map(|(path, inode, content)| make_file(target, path, inode, content, blobs))
        .sum::<Result<u64>>()?;
    for (path, to) in links {
        // A link to a device that was left out is left out, too.
        let is_device = matches!(diff.entries.get(to), Some(LayerEntry::Put(inode))
            if matches!(inode.kind, Kind::CharDev { .. } | Kind::BlockDev { .. }));
        if is_device {
            report.entries -= 1;
            report.devices_skipped += 1;
        } else {
            make_link(target, path, to)?;
        }
    }
    // Children first: their creation changes the time of the parent, and a parent without
    // permissions must not be closed before its children are done.
    for (path, inode, opaque) in dirs.into_iter().rev() {
        report.xattrs_skipped += finish_dir(target, path, inode, opaque)?;
    }
    Ok(report)
}

/// Time of the root directory of a layer that says nothing of it: near the first that ext4 and XFS can keep, so that
/// whoever stacks directories of layers looks for the root further below.
pub const UNSAID: Timestamp = Timestamp {
    secs: -2_147_483_647,
    nanos: 0,
};

/// The same as a tree, for a disk that is the lower layer of an overlay: what `diff` puts below the folder `folder` of
/// an otherwise empty root.
///
/// # Errors
/// When the layer is not one that [`materialise`] could write.
pub fn lower_tree(diff: &LayerDiff, folder: &[u8]) -> std::result::Result<Tree, TreeError> {
    let root = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: UNSAID,
    };
    let mut tree = Tree::new(root);
    let place = |path: &[u8]| match path {
        [] => folder.to_vec(),
        _ => [folder, b"/", path].concat(),
    };
    if !diff.entries.contains_key(&b""[..]) {
        tree.insert(folder, Inode::new(root, Kind::Dir))?;
    }
    let is_device =
        |inode: &Inode| matches!(inode.kind, Kind::CharDev { .. } | Kind::BlockDev { .. });
    let mut links = Vec::new();
    for (path, entry) in &diff.entries {
        let inode = match entry {
            LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) if is_device(inode) => continue,
            LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => {
                let mut inode = inode.clone();
                inode.xattrs.retain(|name, _| !host_only(name));
                inode.flags = InodeFlags::NONE;
                if matches!(entry, LayerEntry::PutOpaque(_)) {
                    let name = b"user.overlay.opaque".to_vec();
                    inode.xattrs.insert(name, b"y".to_vec());
                }
                inode
            }
            LayerEntry::Link(to) => {
                links.push((path, to));
                continue;
            }
            LayerEntry::Whiteout => {
                let stat = Stat { mode: 0, ..root };
                Inode::new(stat, Kind::CharDev { major: 0, minor: 0 })
            }
        };
        tree.insert(&place(path), inode)?;
    }
    for (path, to) in links {
        let device =
            matches!(diff.entries.get(to), Some(LayerEntry::Put(inode)) if is_device(inode));
        if !device {
            tree.link(&place(path), &place(to))?;
        }
    }
    Ok(tree)
}

/// The directory that the current entry is in, kept open since entries come sorted.
pub(crate) struct Parents<'a> {
    root: BorrowedFd<'a>,
    open: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Parents<'a> {
    pub(crate) fn below(root: BorrowedFd<'a>) -> Self {
        Self { root, open: None }
    }

    pub(crate) fn of<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (dir, name) = split(path);
        if self.open.as_ref().is_none_or(|(open, _)| open != dir) {
            let fd = open_dir(self.root, dir)
                .map_err(MaterialiseError::new("open the parent of", path))?;
            self.open = Some((dir.to_vec(), fd));
        }
        let fd = self.open.as_ref().map_or(self.root, |(_, fd)| fd.as_fd());
        Ok((fd, OsStr::from_bytes(name)))
    }

    fn make_dir(&mut self, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (dir, name) = self.of(path)?;
        rustix::fs::mkdirat(dir, name, Mode::RWXU)
            .map_err(MaterialiseError::errno("create the directory", path))
    }

    pub(crate) fn make_symlink(&mut self, path: &[u8], link: &[u8]) -> Result<()> {
        let (dir, name) = self.of(path)?;
        let link = OsStr::from_bytes(link);
        rustix::fs::symlinkat(link, dir, name)
            .map_err(MaterialiseError::errno("create the symbolic link", path))
    }

    /// A pipe, a socket, or (as a character device, 0:0) a whiteout.
    pub(crate) fn make_node(&mut self, path: &[u8], kind: FileType) -> Result<()> {
        let (dir, name) = self.of(path)?;
        let mode = if kind == FileType::CharacterDevice {
            Mode::empty()
        } else {
            Mode::RUSR | Mode::WUSR
        };
        rustix::fs::mknodat(dir, name, kind, mode, rustix::fs::makedev(0, 0))
            .map_err(MaterialiseError::errno("create the node", path))
    }

    /// Owner, attributes, mode and time of something that cannot be opened.
    pub(crate) fn set_named(&mut self, path: &[u8], inode: &Inode) -> Result<u64> {
        let (dir, name) = self.of(path)?;
        let stat = &inode.stat;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(
            dir,
            name,
            Some(Uid::from_raw(stat.uid)),
            Some(Gid::from_raw(stat.gid)),
            nofollow,
        )
        .map_err(MaterialiseError::errno("set the owner of", path))?;
        let file = proc_path(dir, name.as_bytes());
        let skipped = set_xattrs(&inode.xattrs, path, |attr, value| {
            rustix::fs::lsetxattr(&file, attr, value, XattrFlags::empty())
        })?;
        if !matches!(inode.kind, Kind::Symlink(_)) {
            // Just made by us in a directory that only we write to, so not a link.
            rustix::fs::chmodat(dir, name, mode(stat), AtFlags::empty())
                .map_err(MaterialiseError::errno("set the mode of", path))?;
        }
        rustix::fs::utimensat(dir, name, &times(stat), nofollow)
            .map_err(MaterialiseError::errno("set the time of", path))?;
        Ok(skipped)
    }
}

fn make_file(
    root: BorrowedFd<'_>,
    path: &[u8],
    inode: &Inode,
    content: &Content,
    blobs: &BlobTable,
) -> Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let fd = open_beneath(root, path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(MaterialiseError::new("create", path))?;
    let target = FileTarget::from_file(File::from(fd));
    fill(&target, content, blobs).map_err(MaterialiseError::new("write", path))?;
    set_open(target.file().as_fd(), path, inode)
}

/// Gives an empty file its content.
pub(crate) fn fill(target: &FileTarget, content: &Content, blobs: &BlobTable) -> io::Result<()> {
    for extent in &content.extents {
        match &extent.source {
            DataSource::Bytes(bytes) => target.write_all_at(bytes, extent.offset)?,
            DataSource::Blob { id, offset } => {
                target.copy_from(blobs.get(*id)?, *offset, extent.len, extent.offset)?;
            }
        }
    }
    let end = content
        .extents
        .last()
        .map_or(0, |e| e.offset.saturating_add(e.len));
    if end < content.size {
        target.set_len(content.size)?;
    }
    Ok(())
}

pub(crate) fn make_link(root: BorrowedFd<'_>, path: &[u8], to: &[u8]) -> Result<()> {
    let open = |dir| open_dir(root, dir).map_err(MaterialiseError::new("open the parent of", path));
    let ((new_dir, new_name), (old_dir, old_name)) = (split(path), split(to));
    let (new, old) = (open(new_dir)?, open(old_dir)?);
    rustix::fs::linkat(
        &old,
        OsStr::from_bytes(old_name),
        &new,
        OsStr::from_bytes(new_name),
        AtFlags::empty(),
    )
    .map_err(MaterialiseError::errno("create the hard link", path))
}

fn finish_dir(root: BorrowedFd<'_>, path: &[u8], inode: &Inode, opaque: bool) -> Result<u64> {
    let fd = open_dir(root, path).map_err(MaterialiseError::new("open", path))?;
    if opaque {
        rustix::fs::fsetxattr(&fd, "user.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(MaterialiseError::errno("mark as opaque", path))?;
    }
    set_open(fd.as_fd(), path, inode)
}

/// Owner first, since changing it drops set-id bits and capabilities; the time last.
pub(crate) fn set_open(fd: BorrowedFd<'_>, path: &[u8], inode: &Inode) -> Result<u64> {
    let stat = &inode.stat;
    rustix::fs::fchown(
        fd,
        Some(Uid::from_raw(stat.uid)),
        Some(Gid::from_raw(stat.gid)),
    )
    .map_err(MaterialiseError::errno("set the owner of", path))?;
    let skipped = set_xattrs(&inode.xattrs, path, |name, value| {
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
    })?;
    rustix::fs::fchmod(fd, mode(stat)).map_err(MaterialiseError::errno("set the mode of", path))?;
    rustix::fs::futimens(fd, &times(stat))
        .map_err(MaterialiseError::errno("set the time of", path))?;
    Ok(skipped)
}

fn set_xattrs(
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    path: &[u8],
    mut set: impl FnMut(&OsStr, &[u8]) -> rustix::io::Result<()>,
) -> Result<u64> {
    let mut skipped = 0;
    for (name, value) in xattrs {
        if host_only(name) {
            skipped += 1;
            continue;
        }
        retry(|| set(OsStr::from_bytes(name), value))
            .map_err(MaterialiseError::new("set the attributes of", path))?;
    }
    Ok(skipped)
}

/// Attributes that a materialised folder does not have. The overlay's own names would change what a
/// directory means.
pub(crate) fn host_only(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
        || name.starts_with(b"user.overlay.")
        || (name.starts_with(b"security.") && name != b"security.capability")
}

pub(crate) fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(u32::from(stat.mode))
}

pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mtime.secs,
        tv_nsec: i64::from(stat.mtime.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
