//! Owners that the kernel does not know: in a user namespace with one id every file is root's, so what a job
//! asks about owners and ids is answered from records (seccomp_unotify(2)).
//!
//! ```text
//! job     chown(f, 33, 33) ─ waits ─▶ S   really chown(f, 0, 0), as it clears set-id bits, then
//!                                         user.amiforge.owner = "33:33" on f
//! job     stat(f)          ─ waits ─▶ S   the record of f, if there is one; else the kernel answers
//! job     setuid(33)       ─ waits ─▶ S   noted for the process; getuid and new files follow it
//! ```
//!
//! Attributes move with their file, are copied up by overlayfs, and end with it. What cannot carry one (links,
//! pipes, sockets) is in a table by inode and birth ([`marks`]).
//!
//! This is no boundary. A process that escapes the records gets what root of the namespace has, which is
//! nothing of the host's but the caller's id behind root. Only owners are played: every process keeps root's rights on files.

mod ids;
mod marks;
mod place;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use amiforge_sys::{Answer, Asked, Call, Listener};
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::ids::Processes;
use self::marks::{ACCESS_ACL, DEFAULT_ACL, Marks, OWNER};
use self::place::{Callers, Place};
use super::{ChildError, refused};

/// Bytes of the name and of a value of an attribute (xattr(7)).
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 64 << 10;

/// Groups of a process (setgroups(2)).
const MAX_GROUPS: usize = 65_536;

/// Host directories whose records a job needs, and the one that gets those it makes.
pub(super) struct Dirs {
    /// Directories with records beside them, that are read.
    pub(super) read: Vec<PathBuf>,
    /// The directory that files are made or changed in.
    pub(super) write: PathBuf,
}

/// Answers the calls of a job.
pub(super) struct Recorder {
    listener: Listener,
    callers: Callers,
    processes: Processes,
    marks: Marks,
}

/// What a recorder needs that only the host's file system has; taken before that is left.
pub(super) struct Prepared {
    callers: Callers,
    marks: Marks,
}

impl Prepared {
    pub(super) fn new(dirs: Dirs) -> Result<Self, ChildError> {
        Ok(Self {
            callers: Callers::new().map_err(|e| refused("open /proc", e))?,
            marks: Marks::load(dirs).map_err(|e| ChildError::job("cannot read owners", &e))?,
        })
    }

    pub(super) fn listen(self, listener: Listener) -> Recorder {
        Recorder {
            listener,
            callers: self.callers,
            processes: Processes::default(),
            marks: self.marks,
        }
    }
}

impl AsFd for Recorder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A call is answered by the kernel alone: nothing is recorded about what it concerns, or it fails anyway.
struct Kernel;

impl From<Errno> for Kernel {
    fn from(_: Errno) -> Self {
        Self
    }
}

impl From<io::Error> for Kernel {
    fn from(_: io::Error) -> Self {
        Self
    }
}

type Answered = Result<Answer, Kernel>;

fn done(result: Result<(), Errno>) -> Answer {
    match result {
        Ok(()) => Answer::Value(0),
        Err(e) => Answer::Error(e.raw_os_error()),
    }
}

impl Recorder {
    /// Answers one call.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let Some(asked) = self.listener.next()? else {
            return Ok(());
        };
        let answered = self.decide(&asked);
        self.callers.leave()?;
        match answered {
            Ok(Some(answer)) => self.listener.answer(asked.id, answer),
            Ok(None) => Ok(()),
            Err(Kernel) => self.listener.answer(asked.id, Answer::Go),
        }
    }

    /// Keeps what was recorded, for the jobs that use the directory next.
    pub(super) fn finish(&self) -> Result<(), ChildError> {
        let saved = self.marks.save();
        saved.map_err(|e| ChildError::job("cannot keep owners", &e))
    }

    /// `None`: it is answered already.
    fn decide(&mut self, asked: &Asked) -> Result<Option<Answer>, Kernel> {
        let a = &asked.args;
        let answer = match asked.call {
            #[cfg(target_arch = "x86_64")]
            Call::Stat => self.stat(asked, |c| c.at(asked, None, a[0], true), a[1])?,
            #[cfg(target_arch = "x86_64")]
            Call::Lstat => self.stat(asked, |c| c.at(asked, None, a[0], false), a[1])?,
            Call::Fstat => self.stat(asked, |c| c.open_file(asked, a[0]), a[1])?,
            Call::Newfstatat => self.stat(asked, |c| c.at_flags(asked, a[0], a[1], a[3]), a[2])?,
            Call::Statx => self.statx(asked)?,
            #[cfg(target_arch = "x86_64")]
            Call::Chown => {
                let place = self.callers.at(asked, None, a[0], true)?;
                self.chown(asked, &place, a[1], a[2])?
            }
            #[cfg(target_arch = "x86_64")]
            Call::Lchown => {
                let place = self.callers.at(asked, None, a[0], false)?;
                self.chown(asked, &place, a[1], a[2])?
            }
            Call::Fchown => {
                let place = self.callers.open_file(asked, a[0])?;
                self.chown(asked, &place, a[1], a[2])?
            }
            Call::Fchownat => {
                let place = self.callers.at_flags(asked, a[0], a[1], a[4])?;
                self.chown(asked, &place, a[2], a[3])?
            }
            #[cfg(target_arch = "x86_64")]
            Call::Open => return self.open(asked, None, a[0], a[1], a[2]),
            #[cfg(target_arch = "x86_64")]
            Call::Creat => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
                return self.open(asked, None, a[0], u64::from(flags.bits()), a[1]);
            }
            Call::Openat => return self.open(asked, Some(a[0]), a[1], a[2], a[3]),
            #[cfg(target_arch = "x86_64")]
            Call::Mkdir => self.mkdir(asked, None, a[0], a[1])?,
            Call::Mkdirat => self.mkdir(asked, Some(a[0]), a[1], a[2])?,
            #[cfg(target_arch = "x86_64")]
            Call::Symlink => self.symlink(asked, a[0], None, a[1])?,
            Call::Symlinkat => self.symlink(asked, a[0], Some(a[1]), a[2])?,
            #[cfg(target_arch = "x86_64")]
            Call::Mknod => self.mknod(asked, None, a[0], a[1], a[2])?,
            Call::Mknodat => self.mknod(asked, Some(a[0]), a[1], a[2], a[3])?,
            Call::Setxattr => {
                let place = self.callers.at(asked, None, a[0], true)?;
                self.set_attribute(asked, &place)?
            }
            Call::Lsetxattr => {
                let place = self.callers.at(asked, None, a[0], false)?;
                self.set_attribute(asked, &place)?
            }
            Call::Fsetxattr => {
                let place = self.callers.open_file(asked, a[0])?;
                self.set_attribute(asked, &place)?
            }
            Call::Getxattr => self.get_attribute(asked, |c| c.at(asked, None, a[0], true))?,
            Call::Lgetxattr => self.get_attribute(asked, |c| c.at(asked, None, a[0], false))?,
            Call::Fgetxattr => self.get_attribute(asked, |c| c.open_file(asked, a[0]))?,
            Call::Listxattr => self.list_attributes(asked, |c| c.at(asked, None, a[0], true))?,
            Call::Llistxattr => self.list_attributes(asked, |c| c.at(asked, None, a[0], false))?,
            Call::Flistxattr => self.list_attributes(asked, |c| c.open_file(asked, a[0]))?,
            Call::Removexattr => self.remove_attribute(asked, |c| c.at(asked, None, a[0], true))?,
            Call::Lremovexattr => {
                self.remove_attribute(asked, |c| c.at(asked, None, a[0], false))?
            }
            Call::Fremovexattr => self.remove_attribute(asked, |c| c.open_file(asked, a[0]))?,
            _ => self.processes.answer(&self.callers, asked)?,
        };
        Ok(Some(answer))
    }

    fn stat(
        &self,
        asked: &Asked,
        place: impl FnOnce(&Callers) -> io::Result<Place>,
        to: u64,
    ) -> Answered {
        let place = place(&self.callers)?;
        let owner = self.marks.owner(&place)?.ok_or(Kernel)?;
        let bytes = amiforge_sys::stat_bytes(&place.path, place.follow, Some(owner))?;
        self.give(asked, to, &bytes)
    }

    fn statx(&self, asked: &Asked) -> Answered {
        let a = &asked.args;
        let place = self.callers.at_flags(asked, a[0], a[1], a[2])?;
        let owner = self.marks.owner(&place)?.ok_or(Kernel)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW.bits();
        let mut flags = low(a[2]) & !nofollow;
        if !place.follow {
            flags |= nofollow;
        }
        let flags = i32::try_from(flags).map_err(|_| Kernel)?;
        let bytes = amiforge_sys::statx_bytes(&place.path, flags, low(a[3]), Some(owner))?;
        self.give(asked, a[4], &bytes)
    }

    /// Writes a result to the memory of the caller.
    fn give(&self, asked: &Asked, to: u64, bytes: &[u8]) -> Answered {
        if !self.listener.is_waiting(asked.id) {
            return Err(Kernel);
        }
        amiforge_sys::write_memory(asked.thread, to, bytes)?;
        Ok(Answer::Value(0))
    }

    fn chown(&mut self, asked: &Asked, place: &Place, uid: u64, gid: u64) -> Answered {
        let old = self.marks.owner(place)?.unwrap_or((0, 0));
        // The highest id leaves what there is (chown(2)).
        let new = |asked: u64, old: u32| match low(asked) {
            u32::MAX => old,
            id => id,
        };
        let new = (new(uid, old.0), new(gid, old.1));
        if !self.processes.may_chown(&self.callers, asked, old, new) {
            return Ok(Answer::Error(Errno::PERM.raw_os_error()));
        }
        Ok(done(self.marks.chown(place, new)))
    }

    /// Who a new file in the folder of `place` belongs to. `Kernel` when that is root.
    fn maker(&self, asked: &Asked, place: &Place) -> Result<(u32, u32), Kernel> {
        let (uid, gid) = self.processes.files_of(&self.callers, asked);
        let folder = place.folder();
        let stat = rustix::fs::stat(&folder.path)?;
        let gid = match Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID) {
            true => self.marks.owner(&folder)?.map_or(0, |(_, gid)| gid),
            false => gid,
        };
        match (uid, gid) {
            (0, 0) => Err(Kernel),
            owner => Ok(owner),
        }
    }

    fn open(
        &mut self,
        asked: &Asked,
        dir: Option<u64>,
        path: u64,
        flags: u64,
        mode: u64,
    ) -> Result<Option<Answer>, Kernel> {
        let flags = OFlags::from_bits_retain(low(flags));
        let place = self.callers.at(asked, dir, path, true)?;
        if rustix::fs::lstat(&place.path).is_ok() {
            return Err(Kernel);
        }
        let owner = self.maker(asked, &place)?;
        let mode = Mode::from_raw_mode(low(mode) & 0o7777);
        let opened = self.callers.with_umask(asked, || {
            let flags = flags | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOCTTY;
            rustix::fs::open(&place.path, flags, mode)
        })?;
        let file: OwnedFd = match opened {
            Ok(file) => file,
            Err(Errno::EXIST) => return Err(Kernel),
            Err(e) => return Ok(Some(Answer::Error(e.raw_os_error()))),
        };
        if let Err(e) = self.marks.chown(&place.unfollowed(), owner) {
            return Ok(Some(Answer::Error(e.raw_os_error())));
        }
        let cloexec = flags.contains(OFlags::CLOEXEC);
        match self
            .listener
            .answer_with_fd(asked.id, file.as_fd(), cloexec)
        {
            Ok(()) => Ok(None),
            // An old kernel: it opens what is there now.
            Err(_) if !flags.contains(OFlags::EXCL) => Err(Kernel),
            Err(e) => Ok(Some(Answer::Error(e.raw_os_error().unwrap_or(1)))),
        }
    }

    /// Makes something by `make`, and gives it to whom it belongs.
    fn make(
        &mut self,
        asked: &Asked,
        place: &Place,
        make: impl FnOnce(&CString) -> Result<(), Errno>,
    ) -> Answered {
        let owner = self.maker(asked, place)?;
        let made = self.callers.with_umask(asked, || make(&place.path))?;
        Ok(done(made.and_then(|()| {
            self.marks.chown(&place.unfollowed(), owner)
        })))
    }

    fn mkdir(&mut self, asked: &Asked, dir: Option<u64>, path: u64, mode: u64) -> Answered {
        let place = self.callers.at(asked, dir, path, false)?;
        let mode = Mode::from_raw_mode(low(mode) & 0o7777);
        self.make(asked, &place, |path| rustix::fs::mkdir(path, mode))
    }

    fn symlink(&mut self, asked: &Asked, target: u64, dir: Option<u64>, path: u64) -> Answered {
        let target = self.callers.text(asked, target)?;
        let place = self.callers.at(asked, dir, path, false)?;
        self.make(asked, &place, |path| rustix::fs::symlink(&target, path))
    }

    fn mknod(
        &mut self,
        asked: &Asked,
        dir: Option<u64>,
        path: u64,
        mode: u64,
        device: u64,
    ) -> Answered {
        let place = self.callers.at(asked, dir, path, false)?;
        let kind = match low(mode) & 0o170_000 {
            // mknod(2): no type is a regular file.
            0 => FileType::RegularFile,
            kind => FileType::from_raw_mode(kind),
        };
        let mode = Mode::from_raw_mode(low(mode) & 0o7777);
        self.make(asked, &place, |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device as Dev)
        })
    }

    /// The name of an attribute, if it is one that concerns us: the owner, or an access list.
    fn attribute(&self, asked: &Asked, at: u64) -> Result<Attribute, Kernel> {
        let name = self.callers.text_of(asked, at, MAX_NAME)?;
        match name.as_bytes() {
            b"system.posix_acl_access" => Ok(Attribute::List(ACCESS_ACL)),
            b"system.posix_acl_default" => Ok(Attribute::List(DEFAULT_ACL)),
            name if name.starts_with(marks::PREFIX) => Ok(Attribute::Ours),
            _ => Err(Kernel),
        }
    }

    fn set_attribute(&mut self, asked: &Asked, place: &Place) -> Answered {
        let a = &asked.args;
        let name = match self.attribute(asked, a[1])? {
            Attribute::Ours => return Ok(Answer::Error(Errno::PERM.raw_os_error())),
            Attribute::List(name) => name,
        };
        let len = usize::try_from(a[3])
            .ok()
            .filter(|len| *len <= MAX_VALUE)
            .ok_or(Kernel)?;
        let value = self.callers.bytes(asked, a[2], len)?;
        match marks::names_others(&value) {
            // The kernel takes it as it is; what was recorded does not count any more.
            false => {
                self.marks.forget_list(place, name);
                Err(Kernel)
            }
            true => Ok(done(self.marks.set_list(place, name, &value))),
        }
    }

    fn get_attribute(
        &self,
        asked: &Asked,
        place: impl FnOnce(&Callers) -> io::Result<Place>,
    ) -> Answered {
        let a = &asked.args;
        let name = match self.attribute(asked, a[1])? {
            Attribute::Ours => return Ok(Answer::Error(Errno::NODATA.raw_os_error())),
            Attribute::List(name) => name,
        };
        let place = place(&self.callers)?;
        let value = self.marks.list(&place, name).ok_or(Kernel)?;
        self.give_sized(asked, (a[2], a[3]), &value)
    }

    fn list_attributes(
        &self,
        asked: &Asked,
        place: impl FnOnce(&Callers) -> io::Result<Place>,
    ) -> Answered {
        let a = &asked.args;
        let place = place(&self.callers)?;
        let shown = self.marks.names(&place)?.ok_or(Kernel)?;
        self.give_sized(asked, (a[1], a[2]), &shown)
    }

    fn remove_attribute(
        &mut self,
        asked: &Asked,
        place: impl FnOnce(&Callers) -> io::Result<Place>,
    ) -> Answered {
        let name = match self.attribute(asked, asked.args[1])? {
            Attribute::Ours => return Ok(Answer::Error(Errno::NODATA.raw_os_error())),
            Attribute::List(name) => name,
        };
        let place = place(&self.callers)?;
        match self.marks.forget_list(&place, name) {
            true => Ok(Answer::Value(0)),
            false => Err(Kernel),
        }
    }

    /// A value for a buffer of a size, or, for none, its length (getxattr(2)).
    fn give_sized(&self, asked: &Asked, (to, size): (u64, u64), value: &[u8]) -> Answered {
        let len = value.len() as u64;
        if size != 0 && size < len {
            return Ok(Answer::Error(Errno::RANGE.raw_os_error()));
        }
        if size != 0 && len != 0 {
            self.give(asked, to, value)?;
        }
        Ok(Answer::Value(i64::try_from(len).unwrap_or(0)))
    }
}

/// What an attribute is to us.
enum Attribute {
    /// A record, which a job cannot see.
    Ours,
    /// An access list, kept under this name when it names ids that the namespace lacks.
    List(&'static str),
}

/// An argument that the kernel takes for 32 bits.
fn low(arg: u64) -> u32 {
    u32::try_from(arg & u64::from(u32::MAX)).unwrap_or(0)
}

const _: () = assert!(OWNER.len() < MAX_NAME);
