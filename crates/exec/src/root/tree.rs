//! A root in memory: a tree of layers, and what actions change in it.
//!
//! It does what the kernel does for root of a sandbox, so that it makes no difference for a step whether its file
//! actions run here or there. What it cannot do in the same way (another process's `/proc`, a pipe, an access list that
//! a new mode changes) ends the run with [`TreeRootError::NeedsSandbox`], and nothing has happened.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use amiforge_tree::{DataExtent, Ino, Kind, LayerDiff, Tree};
use amiforge_types::{BlobTable, Timestamp};
use rustix::io::Errno;

use super::state::{State, drop_privileges, is_closed, masked, too_many};
use super::{FileKind, Metadata, Open, Root, is_ours};
use crate::spec::MOUNT_POINTS;

/// Longest target of a link.
const MAX_TARGET: usize = 4095;

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// Why a run on a tree has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeRootError {
    /// It came to something that only a sandbox has.
    #[error("{0}, which needs a sandbox")]
    NeedsSandbox(String),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Cancelled,
}

/// A tree that file actions work on, without a process of their own. Nobody else sees what they change.
pub struct TreeRoot<'a> {
    lower: &'a Tree,
    blobs: &'a BlobTable,
    cancel: &'a AtomicBool,
    state: RefCell<State>,
}

impl<'a> TreeRoot<'a> {
    /// A root with the files of `lower`, whose data is in `blobs`. `/dev`, `/proc`, `/sys`, `/run` and `/tmp` are those of a
    /// sandbox (`docs/sandbox.md`). What is written gets the time `clock`; a run ends soon after `cancel` is set.
    #[must_use]
    pub fn new(
        lower: &'a Tree,
        blobs: &'a BlobTable,
        clock: Timestamp,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self {
            lower,
            blobs,
            cancel,
            state: RefCell::new(State::new(lower, clock)),
        }
    }

    /// Leaves files alone that have this owner or group: a step that changes one needs a sandbox, which knows what it may.
    #[must_use]
    pub fn without_files_of(self, id: u32) -> Self {
        self.state.borrow_mut().strangers = Some(id);
        self
    }

    /// What was changed, without what is below the mount points and what is at or below a path of `exclude` (without leading
    /// slash).
    ///
    /// # Errors
    /// When the run came to no end here: then nothing of it counts.
    pub fn changes(self, exclude: &[&str]) -> Result<LayerDiff, TreeRootError> {
        let mut state = self.state.into_inner();
        if let Some(left) = state.left {
            return Err(left);
        }
        for (slot, tail) in std::mem::take(&mut state.tails) {
            state.grow(slot, tail).map_err(too_many)?;
        }
        let diff = LayerDiff::between(self.lower, &state.tree);
        let mounts = MOUNT_POINTS.iter().map(|point| &point.as_bytes()[1..]);
        let exclude = exclude.iter().map(|path| path.as_bytes());
        let out: Vec<&[u8]> = mounts.chain(exclude).collect();
        let diff = diff.without(|path| out.iter().any(|out| is_at_or_below(path, out)));
        Ok(diff.with_folders(&state.tree))
    }

    /// The state, unless the run is to end.
    fn state(&self) -> io::Result<std::cell::RefMut<'_, State>> {
        let mut state = self.state.borrow_mut();
        if self.cancel.load(Ordering::Relaxed) {
            return Err(state.leave(TreeRootError::Cancelled));
        }
        match &state.left {
            Some(left) => Err(io::Error::other(left.clone())),
            None => Ok(state),
        }
    }
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl Root for TreeRoot<'_> {
    fn host_name(&self) -> String {
        crate::spec::HOST_NAME.to_owned()
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut state = self.state()?;
        let place = state.resolve(path, true)?;
        state.metadata(&place)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut state = self.state()?;
        let place = state.resolve(path, false)?;
        state.metadata(&place)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.state()?.resolve(path, true)?;
        place.found()?;
        Ok(place.full_path())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let mut state = self.state()?;
        let ino = state.resolve(path, false)?.found()?;
        let target = state.tree.target(ino).ok_or(Errno::INVAL)?;
        Ok(OsString::from_vec(target.to_vec()).into())
    }

    fn read_dir(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state()?;
        let ino = state.resolve(folder, true)?.found()?;
        let number = state.mounts.iter().position(|mount| *mount == ino);
        if let Some(point) = number.map(|number| MOUNT_POINTS[number])
            && is_closed(point)
        {
            return Err(state.needs_sandbox(format!("{point} is listed")));
        }
        let names = state.tree.children(ino).ok_or(Errno::NOTDIR)?;
        Ok(names
            .names()
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        let mut state = self.state()?;
        let ino = state.resolve(path, true)?.found()?;
        let content = state.content(ino)?;
        Ok(Box::new(content.into_reader(self.blobs)))
    }

    fn write(&self, path: &Path, how: Open, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let ino = state.open(path, how)?;
        state.hold(bytes.len())?;
        let tail = state.tails.entry(ino.index()).or_default();
        tail.extend_from_slice(bytes);
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path, how: Open) -> io::Result<()> {
        let mut state = self.state()?;
        let source = state.resolve(from, true)?.found()?;
        let content = state.content(source)?;
        state.hold(content.extents.len() * size_of::<DataExtent>())?;
        let ino = state.open(to, how)?;
        state.update(ino, |inode| inode.kind = Kind::File(content))
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.state()?;
        let place = state.resolve(path, false)?;
        if place.ino.is_some() {
            return Err(Errno::EXIST.into());
        }
        state.create(&place, masked(mode) & 0o1777, Kind::Dir)?;
        Ok(())
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_bytes();
        match target.len() {
            0 => return Err(Errno::NOENT.into()),
            len if len > MAX_TARGET => return Err(Errno::NAMETOOLONG.into()),
            _ => {}
        }
        let mut state = self.state()?;
        let place = state.new_place(path)?;
        state.create(&place, 0o777, Kind::Symlink(target.to_vec()))?;
        Ok(())
    }

    fn hard_link(&self, original: &Path, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let from = state.resolve(original, false)?;
        let ino = from.found()?;
        let place = state.new_place(path)?;
        if state.tree.is_dir(ino) {
            return Err(Errno::PERM.into());
        }
        if state.device(&from) != state.device(&place) {
            return Err(Errno::XDEV.into());
        }
        let (dir, name) = place.entry().ok_or(Errno::EXIST)?;
        state.update(ino, |_| ())?;
        state.touch(dir)?;
        let named = state.tree.name(dir, name, ino);
        named.map_err(|error| state.full(error))?;
        state.links[ino.index()] += 1;
        Ok(())
    }

    fn make_node(&self, path: &Path, like: &Metadata, mode: u32) -> io::Result<()> {
        let kind = match like.kind {
            FileKind::Pipe => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            // As in the sandbox, where no device can be made.
            FileKind::BlockDevice | FileKind::CharacterDevice => return Err(Errno::PERM.into()),
            FileKind::File | FileKind::Folder | FileKind::Link => return Err(Errno::INVAL.into()),
        };
        let mut state = self.state()?;
        let place = state.new_place(path)?;
        state.create(&place, masked(mode), kind)?;
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let place = state.resolve(path, false)?;
        if state.tree.is_dir(place.found()?) {
            return Err(Errno::ISDIR.into());
        }
        if state.is_mount(place.ino) {
            return Err(Errno::BUSY.into());
        }
        state.unname(&place)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let place = state.resolve(path, false)?;
        let ino = place.found()?;
        let names = state.tree.children(ino).ok_or(Errno::NOTDIR)?;
        match () {
            () if place.dots.is_some() => Err(Errno::INVAL.into()),
            () if state.is_mount(place.ino) => Err(Errno::BUSY.into()),
            () if !names.is_empty() => Err(Errno::NOTEMPTY.into()),
            () => state.unname(&place),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let place = state.resolve(path, false)?;
        let mut open = vec![place.found()?];
        if !state.tree.is_dir(open[0]) {
            return Err(Errno::NOTDIR.into());
        }
        if place.dots.is_some() {
            return Err(state.needs_sandbox("a path of a folder to remove ends in dots"));
        }
        let mut gone = Vec::new();
        while let Some(dir) = open.pop() {
            if state.is_mount(Some(dir)) {
                return Err(state.needs_sandbox("a mount point is removed"));
            }
            state.update(dir, |_| ())?;
            let Some(names) = state.tree.children(dir) else {
                continue;
            };
            let (dirs, files): (Vec<Ino>, Vec<Ino>) =
                names.inodes().partition(|ino| state.tree.is_dir(*ino));
            open.extend(dirs);
            gone.extend(files);
        }
        for ino in gone {
            state.update(ino, |_| ())?;
            state.links[ino.index()] = state.links[ino.index()].saturating_sub(1);
        }
        state.unname(&place)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let (from, to) = (state.resolve(from, false)?, state.resolve(to, false)?);
        let ino = from.found()?;
        let dir = state.tree.is_dir(ino);
        if state.device_above(&from) != state.device_above(&to) {
            return Err(Errno::XDEV.into());
        }
        if from.dots.is_some()
            || to.dots.is_some()
            || state.is_mount(from.ino)
            || state.is_mount(to.ino)
        {
            return Err(Errno::BUSY.into());
        }
        if dir && to.is_at_or_below(ino) && to.ino != Some(ino) {
            return Err(Errno::INVAL.into());
        }
        if !dir && (from.slash || to.slash) {
            return Err(Errno::NOTDIR.into());
        }
        if let Some(before) = to.ino {
            if before == ino {
                return Ok(());
            }
            match state.tree.children(before) {
                Some(_) if !dir => return Err(Errno::ISDIR.into()),
                None if dir => return Err(Errno::NOTDIR.into()),
                Some(names) if !names.is_empty() => return Err(Errno::NOTEMPTY.into()),
                _ => state.unname(&to)?,
            }
        }
        state.within_reach(&to)?;
        let (folder, name) = to.entry().ok_or(Errno::BUSY)?;
        state.touch(folder)?;
        state.unname(&from)?;
        if !dir {
            state.links[ino.index()] += 1;
        }
        let named = state.tree.name(folder, name, ino);
        named.map_err(|error| state.full(error))
    }

    fn chown(
        &self,
        path: &Path,
        follow: bool,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<()> {
        let mut state = self.state()?;
        let ino = state.resolve(path, follow)?.found()?;
        state.update(ino, |inode| {
            inode.stat.uid = uid.unwrap_or(inode.stat.uid);
            inode.stat.gid = gid.unwrap_or(inode.stat.gid);
            drop_privileges(inode);
        })
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.state()?;
        let ino = state.resolve(path, true)?.found()?;
        if state.inode(ino).xattrs.contains_key(ACCESS_LIST) {
            return Err(state.needs_sandbox("a file has an access list"));
        }
        let mode = u16::try_from(mode & 0o7777).unwrap_or(0);
        state.update(ino, |inode| inode.stat.mode = mode)
    }

    fn copy_attributes(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let from = state.resolve(from, false)?.found()?;
        let to = state.resolve(to, false)?.found()?;
        let given = state.inode(from).xattrs;
        if given.keys().all(|name| !is_ours(name)) {
            return Ok(());
        }
        state.update(to, |inode| {
            let given = given.into_iter().filter(|(name, _)| is_ours(name));
            inode.xattrs.extend(given);
        })
    }

    fn set_times(&self, path: &Path, like: &Metadata) -> io::Result<()> {
        let mut state = self.state()?;
        let ino = state.resolve(path, false)?.found()?;
        let [(secs, nanos), _] = like.times;
        let nanos = u32::try_from(nanos).unwrap_or(0);
        state.update(ino, |inode| inode.stat.mtime = Timestamp { secs, nanos })
    }
}
