//! The changes themselves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amiforge_tree::{Content, Inode, InodeFlags, Kind, Tree};
use amiforge_types::BlobTable;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, RenameFlags, Stat, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::check::{file_type, unchanged};
use super::plan::{Action, Change, Dir, Plan};
use super::{FolderError, FolderReport};
use crate::dirfd::{open_dir_here, proc_path, retry, split};
use crate::harvest::xattr;
use crate::materialise::{fill, host_only, mode, times};
use crate::{FileTarget, remove_tree_at};

pub(super) fn write(
    root: BorrowedFd<'_>,
    (old, new): (&Tree, &Tree),
    blobs: &BlobTable,
    plan: &Plan,
    spare: &str,
    report: &mut FolderReport,
) -> Result<()> {
    let mut writer = Writer {
        root,
        old,
        new,
        blobs,
        spare,
        report,
        flags: Vec::new(),
        open: None,
    };
    for dir in plan.dirs.iter().filter(|dir| dir.names) {
        writer.unlock(dir)?;
    }
    for change in plan.changes() {
        writer.change(change)?;
        writer.report.changed += 1;
    }
    // Children first: what is done in a directory changes its time.
    for dir in plan.dirs.iter().rev() {
        writer.finish_dir(dir)?;
    }
    // Last of all, since they may forbid everything else.
    for (path, flags) in std::mem::take(&mut writer.flags) {
        writer.set_flags(&path, flags);
    }
    // What took the place of another file is on disk already; this is for the rest.
    rustix::fs::syncfs(root).map_err(|e| FolderError::io("sync", b"/")(e.into()))
}

struct Writer<'a> {
    root: BorrowedFd<'a>,
    old: &'a Tree,
    new: &'a Tree,
    blobs: &'a BlobTable,
    spare: &'a str,
    report: &'a mut FolderReport,
    /// Flags to set in the end.
    flags: Vec<(Vec<u8>, InodeFlags)>,
    /// The directory of the last change: most are followed by one in the same.
    open: Option<(Vec<u8>, OwnedFd)>,
}

type Result<T> = std::result::Result<T, FolderError>;

fn errno(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> FolderError {
    let context = FolderError::io(action, path);
    move |e| context(e.into())
}

impl Writer<'_> {
    /// Lets the caller make names in a directory of its own that it may not write to. The mode is set to what it
    /// is to be in the end.
    fn unlock(&mut self, dir: &Dir) -> Result<()> {
        let Some(was) = dir.old else { return Ok(()) };
        let mode = self.old.stat(was).mode;
        if rustix::process::geteuid().is_root() || mode & 0o300 == 0o300 {
            return Ok(());
        }
        let fd = open(self.root, &dir.path)?;
        let mode = Mode::from_raw_mode(u32::from(mode | 0o300));
        rustix::fs::fchmod(&fd, mode).map_err(errno("set the mode of", &dir.path))
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        let (parent, name) = split(&change.path);
        let held = match self.open.take() {
            Some((path, fd)) if path == parent => fd,
            _ => open(self.root, parent)?,
        };
        let done = self.change_in(held.as_fd(), name, change);
        if let Err(error) = &done {
            let exists = matches!(error, FolderError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists);
            // What was in the making goes: on a full disk it would keep it full. What it was is told by the error.
            if !exists {
                let _ = remove_tree_at(held.as_fd(), self.spare.as_bytes());
            }
        }
        done?;
        self.open = Some((parent.to_vec(), held));
        Ok(())
    }

    fn change_in(&mut self, dir: BorrowedFd<'_>, name: &[u8], change: &Change) -> Result<()> {
        let path = &change.path;
        match &change.action {
            Action::MakeDir => {
                rustix::fs::mkdirat(dir, self.spare, Mode::RWXU)
                    .map_err(errno("create the directory", path))?;
                let made = self.open_new(dir, change, &Kind::Dir)?;
                self.place(dir, name, change, &made)?;
            }
            Action::Write(ino) => {
                let inode = self.new.inode(*ino);
                let made = self.make(dir, name, change, &inode)?;
                self.place(dir, name, change, &made)?;
                if !inode.flags.is_empty() {
                    self.flags.push((path.clone(), inode.flags));
                }
            }
            Action::Link(to) => {
                let (to_dir, to_name) = split(to);
                let to_dir = open(self.root, to_dir)?;
                let held = open_itself(to_dir.as_fd(), to_name).map_err(errno("open", to))?;
                let to_name = OsStr::from_bytes(to_name);
                rustix::fs::linkat(&to_dir, to_name, dir, self.spare, AtFlags::empty())
                    .map_err(errno("create the hard link", path))?;
                self.place(dir, name, change, &held)?;
            }
            Action::Attributes(ino) => {
                let was = change.old.unwrap_or(*ino);
                let held = open_itself(dir, name).map_err(errno("open", path))?;
                // It may have got another name since it was looked at.
                unchanged(&status(&held, path)?, self.old, was, path)?;
                let (old, new) = (self.old.inode(was), self.new.inode(*ino));
                self.attributes(Place { fd: &held, path }, &old, &new)?;
                if old.flags != new.flags {
                    self.flags.push((path.clone(), new.flags));
                }
            }
            Action::Remove => remove_tree_at(dir, name).map_err(|e| FolderError::Io {
                action: "remove",
                path: path.clone(),
                source: e.source,
            })?,
        }
        Ok(())
    }

    /// Gives what was made under the spare name its own, in the place of what was there. `made` is what was made.
    fn place(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        change: &Change,
        made: &OwnedFd,
    ) -> Result<()> {
        let path = &change.path;
        let target = OsStr::from_bytes(name);
        let held = status(made, path)?;
        let found = rustix::fs::statat(dir, self.spare, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(errno("stat", path))?;
        if (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino) {
            return Err(FolderError::Changed(path.clone()));
        }
        let is_dir = change.action == Action::MakeDir;
        let failed = |e: Errno| FolderError::io("rename to", path)(e.into());
        let Some(old) = change.old else {
            return rustix::fs::renameat_with(dir, self.spare, dir, target, RenameFlags::NOREPLACE)
                .map_err(failed);
        };
        if !is_dir && !self.old.is_dir(old) {
            return rustix::fs::renameat(dir, self.spare, dir, target).map_err(failed);
        }
        // One of the two is a directory, and the other is none: they change places.
        rustix::fs::renameat_with(dir, self.spare, dir, target, RenameFlags::EXCHANGE)
            .map_err(failed)?;
        Ok(remove_tree_at(dir, self.spare.as_bytes())?)
    }

    /// Opens what was made under the spare name, and sees that it is that.
    fn open_new(&self, dir: BorrowedFd<'_>, change: &Change, kind: &Kind) -> Result<OwnedFd> {
        let path = &change.path;
        let fd = open_itself(dir, self.spare.as_bytes()).map_err(errno("open", path))?;
        let stat = status(&fd, path)?;
        let ours = FileType::from_raw_mode(stat.st_mode) == file_type(kind)
            && (kind == &Kind::Dir || stat.st_nlink == 1);
        match ours {
            true => Ok(fd),
            false => Err(FolderError::Changed(path.clone())),
        }
    }

    /// Makes a file of any type but a directory under the spare name, ready but for its flags.
    fn make(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        change: &Change,
        inode: &Inode,
    ) -> Result<OwnedFd> {
        let path = change.path.as_slice();
        let spare = self.spare;
        let made = match &inode.kind {
            Kind::File(content) => self.make_file(dir, change, content)?,
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), dir, spare)
                    .map_err(errno("create the symbolic link", path))?;
                self.open_new(dir, change, &inode.kind)?
            }
            kind => {
                let (kind, device) = match kind {
                    Kind::CharDev { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
                    Kind::BlockDev { major, minor } => (FileType::BlockDevice, (*major, *minor)),
                    Kind::Socket => (FileType::Socket, (0, 0)),
                    _ => (FileType::Fifo, (0, 0)),
                };
                let device = rustix::fs::makedev(device.0, device.1);
                rustix::fs::mknodat(dir, spare, kind, Mode::RUSR | Mode::WUSR, device)
                    .map_err(errno("create the node", path))?;
                self.open_new(dir, change, &inode.kind)?
            }
        };
        let place = Place { fd: &made, path };
        let mut now = self.found(&place, &inode.kind)?;
        // Labels of the host's: of the file that this one takes the place of.
        if let Some(old) = change.old
            && !self.old.is_dir(old)
        {
            let labels = labels(dir, name).map_err(FolderError::io("read the label of", path))?;
            for (label, value) in labels {
                if now.xattrs.get(&label) != Some(&value) {
                    self.set_attribute(&place, &label, Some(&value))?;
                }
            }
        }
        // What a directory hands down to new files is not asked for.
        now.xattrs.retain(|attr, _| xattr::belongs_to_image(attr));
        self.attributes(place, &now, inode)?;
        // A rename can reach the disk before the data: then a power failure would leave neither file.
        if change.old.is_some() && matches!(inode.kind, Kind::File(_)) {
            retry(|| rustix::fs::fsync(&made)).map_err(FolderError::io("sync", path))?;
        }
        Ok(made)
    }

    fn make_file(
        &self,
        dir: BorrowedFd<'_>,
        change: &Change,
        content: &Content,
    ) -> Result<OwnedFd> {
        let path = change.path.as_slice();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, self.spare, flags, Mode::RUSR | Mode::WUSR)
            .map_err(errno("create", path))?;
        let target = FileTarget::from_file(File::from(fd));
        fill(&target, content, self.blobs).map_err(FolderError::io("write", path))?;
        let fd = target.file().try_clone();
        Ok(fd.map_err(FolderError::io("write", path))?.into())
    }

    /// The attributes that something new has.
    fn found(&self, place: &Place<'_>, kind: &Kind) -> Result<Inode> {
        let stat = crate::harvest::stat_of(&status(place.fd, place.path)?);
        let mut inode = Inode::new(stat, kind.clone());
        let path = itself(place.fd);
        for attr in xattr::list(&path, true).map_err(FolderError::io("list", place.path))? {
            let value = xattr::get(&path, &attr, true)
                .map_err(FolderError::io("read the attributes of", place.path))?;
            inode
                .xattrs
                .extend(value.map(|v| (attr.to_bytes().to_vec(), v)));
        }
        Ok(inode)
    }

    fn finish_dir(&mut self, dir: &Dir) -> Result<()> {
        let fd = open(self.root, &dir.path)?;
        let place = Place {
            fd: &fd,
            path: &dir.path,
        };
        let new = self.new.inode(dir.new);
        let old = match dir.old {
            Some(old) => {
                let mut old = self.old.inode(old);
                // As it is now, after all that was done in it.
                let now = self.found(&place, &Kind::Dir)?;
                old.stat = now.stat;
                old
            }
            None => {
                let mut now = self.found(&place, &Kind::Dir)?;
                now.xattrs.retain(|attr, _| xattr::belongs_to_image(attr));
                now
            }
        };
        self.attributes(place, &old, &new)?;
        if old.flags != new.flags {
            self.flags.push((dir.path.clone(), new.flags));
        }
        // With names that change they are counted already.
        if dir.old.is_some() && !dir.names {
            self.report.changed += 1;
        }
        Ok(())
    }

    /// Sets what differs between `old`, which the file has, and `new`.
    fn attributes(&mut self, place: Place<'_>, old: &Inode, new: &Inode) -> Result<()> {
        let (was, is) = (&old.stat, &new.stat);
        let mut bits = is.mode;
        let mut owned = false;
        if (was.uid, was.gid) != (is.uid, is.gid) {
            let (uid, gid) = (Some(Uid::from_raw(is.uid)), Some(Gid::from_raw(is.gid)));
            let set = |uid, gid| rustix::fs::chownat(place.fd, "", uid, gid, AtFlags::EMPTY_PATH);
            owned = true;
            match set(uid, gid) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL) => {
                    // A group of the caller's may be had.
                    let _also_refused = set(None, gid);
                    self.refuse("owner");
                    // They would lend the rights of another user than was meant.
                    bits &= !0o6000;
                }
                Err(e) => return Err(errno("set the owner of", place.path)(e)),
            }
        }
        for attr in old
            .xattrs
            .keys()
            .filter(|attr| !new.xattrs.contains_key(*attr))
        {
            self.set_attribute(&place, attr, None)?;
        }
        for (attr, value) in &new.xattrs {
            let lost = owned && attr == b"security.capability";
            if lost || old.xattrs.get(attr) != Some(value) {
                self.set_attribute(&place, attr, Some(value))?;
            }
        }
        let is_link = matches!(new.kind, Kind::Symlink(_));
        // An access list and a new owner change the mode, too, so it is not compared after them.
        let touched = owned || old.xattrs != new.xattrs;
        if !is_link && (touched || was.mode != bits) {
            let mut stat = *is;
            stat.mode = bits;
            self.set_mode(&place, mode(&stat))?;
        }
        if was.mtime != is.mtime {
            let path = itself(place.fd);
            match rustix::fs::utimensat(CWD, path, &times(is), AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::ACCESS) => self.refuse("time"),
                Err(e) => return Err(errno("set the time of", place.path)(e)),
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, place: &Place<'_>, mode: Mode) -> Result<()> {
        match rustix::fs::chmod(itself(place.fd), mode) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => {
                self.refuse("mode");
                Ok(())
            }
            Err(e) => Err(errno("set the mode of", place.path)(e)),
        }
    }

    fn set_attribute(
        &mut self,
        place: &Place<'_>,
        attr: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let path = itself(place.fd);
        let name = OsStr::from_bytes(attr);
        let done = retry(|| match value {
            Some(value) => rustix::fs::setxattr(&path, name, value, XattrFlags::empty()),
            None => rustix::fs::removexattr(&path, name),
        });
        let Err(error) = done else { return Ok(()) };
        let errors = [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::NODATA];
        match errors
            .iter()
            .position(|e| error.raw_os_error() == Some(e.raw_os_error()))
        {
            Some(3) if value.is_none() => Ok(()),
            Some(_) => {
                self.refuse("attribute");
                Ok(())
            }
            None => Err(FolderError::io("set the attributes of", place.path)(error)),
        }
    }

    /// All else is done by now, so whatever goes wrong is told and no more.
    fn set_flags(&mut self, path: &[u8], flags: InodeFlags) {
        let (dir, name) = split(path);
        let name = match name {
            [] => b".",
            name => name,
        };
        // Not every type can be opened, and none but these two has flags.
        let wanted = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let set = open_dir_here(self.root, dir).and_then(|dir| {
            let fd = rustix::fs::openat(&dir, OsStr::from_bytes(name), wanted, Mode::empty())?;
            let now = rustix::fs::ioctl_getflags(&fd)?;
            let flags = now | IFlags::from_bits_retain(flags.bits());
            Ok(rustix::fs::ioctl_setflags(&fd, flags)?)
        });
        if set.is_err() {
            self.refuse("flags");
        }
    }

    fn refuse(&mut self, what: &'static str) {
        *self.report.refused.entry(what).or_default() += 1;
    }
}

/// A file by a handle of its own, so that it is the same whatever its name leads to by now, and its path for
/// messages.
struct Place<'a> {
    fd: &'a OwnedFd,
    path: &'a [u8],
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_dir_here(root, path).map_err(FolderError::io("open", path))
}

/// A handle of any file, links too.
fn open_itself(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, OsStr::from_bytes(name), flags, Mode::empty())
}

fn status(fd: &OwnedFd, path: &[u8]) -> Result<Stat> {
    retry(|| rustix::fs::fstat(fd)).map_err(FolderError::io("stat", path))
}

/// A path that leads to an open file for calls that do not take its handle. Where the file is a symbolic link, it
/// leads to the link, and no further.
fn itself(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// The attributes that the host's security modules gave a file.
fn labels(dir: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = proc_path(dir, name);
    let mut found = BTreeMap::new();
    for attr in xattr::list(&path, false)? {
        let bytes = attr.to_bytes();
        if bytes.starts_with(b"security.") && host_only(bytes) && !xattr::belongs_to_image(bytes) {
            let value = xattr::get(&path, &attr, false)?;
            found.extend(value.map(|value| (bytes.to_vec(), value)));
        }
    }
    Ok(found)
}
