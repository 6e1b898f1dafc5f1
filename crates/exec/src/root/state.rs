//! What a root in memory holds, and the rules of the kernel for changing it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use amiforge_tree::{
    Content, DataExtent, DataSource, Ino, Inode, InodeFlags, Kind, Stat, Tree, TreeError,
};
use amiforge_types::Timestamp;
use rustix::io::Errno;

use super::resolve::{MAX_PATH, Place, resolve};
use super::tree::TreeRootError;
use super::{FileKind, Metadata, Open};
use crate::spec::{DEVICE_LINKS, DEVICES, MOUNT_POINTS, UMASK};

/// Bytes that a run may write, since they are held in memory until the layer is written.
const MAX_HELD: usize = 64 << 20;

/// Bytes that a new inode and its name are counted with.
const HELD_PER_FILE: usize = 256;

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

const DEFAULT_ACCESS_LIST: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

pub(super) struct State {
    pub(super) tree: Tree,
    /// Modification time of what is written.
    clock: Timestamp,
    /// Names of each inode that is no directory.
    pub(super) links: Vec<u32>,
    /// The directories of [`MOUNT_POINTS`], in that order.
    pub(super) mounts: Vec<Ino>,
    /// The devices of the host that a sandbox has: nothing of them can be changed.
    devices: Vec<Ino>,
    /// Bytes appended to files, which are not in the tree yet: a file that grows in a loop is not copied each time.
    pub(super) tails: BTreeMap<usize, Vec<u8>>,
    /// Bytes written so far.
    held: usize,
    pub(super) left: Option<TreeRootError>,
    /// Owner of files that are not to be changed.
    pub(super) strangers: Option<u32>,
}

impl State {
    pub(super) fn new(lower: &Tree, clock: Timestamp) -> Self {
        let mut state = Self {
            tree: lower.clone(),
            clock,
            links: lower.link_counts(),
            mounts: Vec::new(),
            devices: Vec::new(),
            tails: BTreeMap::new(),
            held: 0,
            left: None,
            strangers: None,
        };
        state.left = state.mount().err();
        state
    }

    /// Lays the mount points of a sandbox over those of the image.
    pub(super) fn mount(&mut self) -> Result<(), TreeRootError> {
        for point in MOUNT_POINTS {
            let name = &point.as_bytes()[1..];
            let own = self.tree.lookup(name);
            if own.is_some_and(|own| !self.tree.is_dir(own)) {
                let what = format!("{point} of the image is no directory");
                return Err(TreeRootError::NeedsSandbox(what));
            }
            let mode = match *point {
                "/proc" | "/sys" => 0o555,
                "/tmp" => 0o1777,
                _ => 0o755,
            };
            let made = self.place(Ino::ROOT, name, mode, Kind::Dir);
            self.mounts.push(made.map_err(too_many)?);
        }
        let [dev, _, _, run, _] = self.mounts[..] else {
            return Ok(());
        };
        let mut fill = || -> Result<(), TreeError> {
            self.place(run, b"lock", 0o1777, Kind::Dir)?;
            self.place(dev, b"pts", 0o755, Kind::Dir)?;
            self.place(dev, b"shm", 0o1777, Kind::Dir)?;
            for device in DEVICES {
                let (major, minor) = device.number;
                let kind = Kind::CharDev { major, minor };
                let made = self.place(dev, device.name.as_bytes(), 0o666, kind)?;
                self.devices.push(made);
            }
            for (name, target) in DEVICE_LINKS {
                let kind = Kind::Symlink(target.as_bytes().to_vec());
                self.place(dev, name.as_bytes(), 0o777, kind)?;
            }
            Ok(())
        };
        fill().map_err(too_many)
    }

    /// Gives a name to a new inode of root's.
    pub(super) fn place(
        &mut self,
        dir: Ino,
        name: &[u8],
        mode: u16,
        kind: Kind,
    ) -> Result<Ino, TreeError> {
        let stat = Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: self.clock,
        };
        let ino = self.add(Inode::new(stat, kind))?;
        self.tree.name(dir, name, ino)?;
        Ok(ino)
    }

    pub(super) fn add(&mut self, inode: Inode) -> Result<Ino, TreeError> {
        let ino = self.tree.add(inode)?;
        self.links.resize(ino.index() + 1, 1);
        Ok(ino)
    }

    /// Ends the run.
    pub(super) fn leave(&mut self, why: TreeRootError) -> io::Error {
        let why = self.left.get_or_insert(why);
        io::Error::other(why.clone())
    }

    pub(super) fn needs_sandbox(&mut self, what: impl Into<String>) -> io::Error {
        self.leave(TreeRootError::NeedsSandbox(what.into()))
    }

    pub(super) fn full(&mut self, error: TreeError) -> io::Error {
        self.leave(too_many(error))
    }

    pub(super) fn resolve(&mut self, path: &Path, follow: bool) -> io::Result<Place> {
        let closed = RefCell::new(None);
        let enter = |dir: Ino| match self.mounts.iter().position(|mount| *mount == dir) {
            Some(number) if is_closed(MOUNT_POINTS[number]) => {
                *closed.borrow_mut() = Some(MOUNT_POINTS[number]);
                Err(io::ErrorKind::Unsupported.into())
            }
            _ => Ok(()),
        };
        let place = resolve(&self.tree, path, follow, &enter);
        match closed.into_inner() {
            Some(point) => Err(self.needs_sandbox(format!("a path leads into {point}"))),
            None => place,
        }
    }

    /// The file system that a place is on: mount points and what is below them are others.
    pub(super) fn device(&self, place: &Place) -> u64 {
        let at = |mount: &Ino| place.is_at_or_below(*mount);
        let number = self.mounts.iter().position(at);
        number.map_or(0, |number| number as u64 + 1)
    }

    /// The file system of the directory that has the place's name.
    pub(super) fn device_above(&self, place: &Place) -> u64 {
        let at = |mount: &Ino| match place.dots {
            Some(dir) => dir == *mount || place.is_at_or_below(*mount),
            None => place.ino != Some(*mount) && place.is_at_or_below(*mount),
        };
        let number = self.mounts.iter().position(at);
        number.map_or(0, |number| number as u64 + 1)
    }

    pub(super) fn is_mount(&self, ino: Option<Ino>) -> bool {
        ino.is_some_and(|ino| {
            ino == Ino::ROOT || self.mounts.contains(&ino) || self.devices.contains(&ino)
        })
    }

    pub(super) fn inode(&self, ino: Ino) -> Inode {
        self.tree.inode(ino)
    }

    pub(super) fn update(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) -> io::Result<()> {
        if self.devices.contains(&ino) {
            return Err(Errno::PERM.into());
        }
        let Inode { stat, flags, .. } = self.inode(ino);
        if self
            .strangers
            .is_some_and(|id| stat.uid == id || stat.gid == id)
        {
            return Err(self.needs_sandbox("a file of somebody else is changed"));
        }
        if flags.contains(InodeFlags::IMMUTABLE) || flags.contains(InodeFlags::APPEND_ONLY) {
            return Err(self.needs_sandbox("a file is protected against changes"));
        }
        let updated = self.tree.update(ino, change);
        updated.map_err(|error| self.full(error))
    }

    /// Appends bytes to a file of the tree.
    pub(super) fn grow(&mut self, slot: usize, tail: Vec<u8>) -> Result<(), TreeError> {
        let Some(ino) = Ino::from_index(slot).filter(|_| !tail.is_empty()) else {
            return Ok(());
        };
        self.tree.update(ino, |inode| {
            if let Kind::File(content) = &mut inode.kind {
                let (mut tail, mut offset) = (tail, content.size);
                content.size += tail.len() as u64;
                // One run for all that was appended: a file must not become a list of single bytes.
                if let Some(DataExtent {
                    offset: start,
                    len,
                    source: DataSource::Bytes(before),
                }) = content.extents.last()
                    && start + len == offset
                {
                    tail.splice(0..0, before.iter().copied());
                    offset = *start;
                    content.extents.pop();
                }
                content.extents.push(DataExtent {
                    offset,
                    len: tail.len() as u64,
                    source: DataSource::Bytes(tail.into()),
                });
                content.digest = None;
            }
        })
    }

    /// The content of a regular file, with all that was appended to it.
    pub(super) fn content(&mut self, ino: Ino) -> io::Result<Content> {
        if let Some(tail) = self.tails.remove(&ino.index()) {
            let grown = self.grow(ino.index(), tail);
            grown.map_err(|error| self.full(error))?;
        }
        match self.inode(ino).kind {
            Kind::File(content) => Ok(content),
            Kind::Dir => Err(Errno::ISDIR.into()),
            _ => Err(self.needs_sandbox("a pipe, socket or device is opened")),
        }
    }

    /// Counts bytes that are about to be held.
    pub(super) fn hold(&mut self, bytes: usize) -> io::Result<()> {
        self.held = self.held.saturating_add(bytes);
        if self.held > MAX_HELD {
            return Err(self.needs_sandbox(format!("more than {MAX_HELD} bytes are written")));
        }
        Ok(())
    }

    /// A file that may be written to, with its bits as they are after that.
    pub(super) fn written(&mut self, ino: Ino) -> io::Result<()> {
        let clock = self.clock;
        self.update(ino, |inode| {
            drop_privileges(inode);
            inode.stat.mtime = clock;
        })
    }

    /// Gives a place that has nothing a new inode.
    pub(super) fn create(&mut self, place: &Place, mode: u16, kind: Kind) -> io::Result<Ino> {
        let Some((dir, name)) = place.entry() else {
            return Err(Errno::EXIST.into());
        };
        self.within_reach(place)?;
        self.hold(HELD_PER_FILE)?;
        let above = self.inode(dir);
        if above.xattrs.contains_key(DEFAULT_ACCESS_LIST) {
            return Err(self.needs_sandbox("a folder has a default access list"));
        }
        let inherits = above.stat.mode & SET_GID != 0;
        let mut stat = Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: self.clock,
        };
        if inherits {
            stat.gid = above.stat.gid;
            if kind == Kind::Dir {
                stat.mode |= SET_GID;
            }
        }
        self.touch(dir)?;
        let made = self.add(Inode::new(stat, kind));
        let named = made.and_then(|ino| self.tree.name(dir, name, ino).map(|()| ino));
        named.map_err(|error| self.full(error))
    }

    /// Refuses a place that a whole path cannot name: layers and folders are made by such paths.
    pub(super) fn within_reach(&mut self, place: &Place) -> io::Result<()> {
        match place.path().len() < MAX_PATH {
            true => Ok(()),
            false => Err(self.needs_sandbox(format!("a path has {MAX_PATH} bytes or more"))),
        }
    }

    /// The time of a folder in which a name comes or goes.
    pub(super) fn touch(&mut self, dir: Ino) -> io::Result<()> {
        let clock = self.clock;
        self.update(dir, |inode| inode.stat.mtime = clock)
    }

    /// Takes the name of a place away.
    pub(super) fn unname(&mut self, place: &Place) -> io::Result<()> {
        let ino = place.found()?;
        let Some((dir, _)) = place.entry() else {
            return Err(Errno::BUSY.into());
        };
        self.touch(dir)?;
        if !self.tree.is_dir(ino) {
            // Of what is protected, no name may go.
            self.update(ino, |_| ())?;
            self.links[ino.index()] = self.links[ino.index()].saturating_sub(1);
        }
        self.tree.remove(&place.path());
        Ok(())
    }

    pub(super) fn metadata(&self, place: &Place) -> io::Result<Metadata> {
        let ino = place.found()?;
        let inode = self.inode(ino);
        let (kind, len, device) = match &inode.kind {
            Kind::Dir => (FileKind::Folder, 4096, 0),
            Kind::File(content) => {
                let tail = self.tails.get(&ino.index()).map_or(0, Vec::len);
                (FileKind::File, content.size + tail as u64, 0)
            }
            Kind::Symlink(target) => (FileKind::Link, target.len() as u64, 0),
            Kind::CharDev { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                (FileKind::CharacterDevice, 0, device)
            }
            Kind::BlockDev { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                (FileKind::BlockDevice, 0, device)
            }
            Kind::Fifo => (FileKind::Pipe, 0, 0),
            Kind::Socket => (FileKind::Socket, 0, 0),
        };
        let time = (inode.stat.mtime.secs, i64::from(inode.stat.mtime.nanos));
        Ok(Metadata {
            kind,
            mode: u32::from(inode.stat.mode),
            uid: inode.stat.uid,
            gid: inode.stat.gid,
            len,
            links: u64::from(self.links[ino.index()]),
            identity: (self.device(place), ino.index() as u64),
            device,
            times: [time, time],
        })
    }

    /// A file that is to be written to, empty unless it is appended to.
    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<Ino> {
        let place = self.resolve(path, !matches!(how, Open::New(_)))?;
        let ino = match (place.ino, how) {
            (Some(_), Open::New(_)) => return Err(Errno::EXIST.into()),
            (None, Open::Append) => return Err(Errno::NOENT.into()),
            (_, Open::Replace(_) | Open::New(_)) if place.slash => {
                return Err(Errno::ISDIR.into());
            }
            (None, Open::Replace(mode) | Open::New(mode)) => {
                let kind = Kind::File(Content::default());
                return self.create(&place, masked(mode), kind);
            }
            (Some(_), Open::Append | Open::Replace(_)) => place.found()?,
        };
        match self.inode(ino).kind {
            Kind::File(_) => {}
            Kind::Dir => return Err(Errno::ISDIR.into()),
            _ => return Err(self.needs_sandbox("a pipe, socket or device is written to")),
        }
        self.written(ino)?;
        if how != Open::Append {
            self.tails.remove(&ino.index());
            self.update(ino, |inode| inode.kind = Kind::File(Content::default()))?;
        }
        Ok(ino)
    }

    /// Where something is to be made that is no folder.
    pub(super) fn new_place(&mut self, path: &Path) -> io::Result<Place> {
        let place = self.resolve(path, false)?;
        match place.ino {
            Some(_) => Err(Errno::EXIST.into()),
            None if place.slash => Err(Errno::NOENT.into()),
            None => Ok(place),
        }
    }
}

/// Whether a mount point has files that only a running system has.
pub(super) fn is_closed(point: &str) -> bool {
    matches!(point, "/proc" | "/sys")
}

/// What a file loses when somebody writes to it or it gets another owner (`setattr_prepare` of the kernel).
pub(super) fn drop_privileges(inode: &mut Inode) {
    if inode.kind == Kind::Dir {
        return;
    }
    let mode = &mut inode.stat.mode;
    *mode &= !SET_UID;
    if *mode & GROUP_EXECUTE != 0 {
        *mode &= !SET_GID;
    }
    inode.xattrs.remove(CAPABILITY);
}

pub(super) fn masked(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0) & !UMASK
}

pub(super) fn too_many(error: TreeError) -> TreeRootError {
    TreeRootError::NeedsSandbox(format!("the tree has no more room: {error}"))
}
