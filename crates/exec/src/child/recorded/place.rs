//! Where a caller means when it names a file: in its root, its working directory, among its descriptors.
//!
//! The process that answers goes there itself: it changes its working directory, and for callers with another root
//! or other mounts its root, and names the file as the caller did.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use amiforge_sys::Asked;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, StatxFlags, XattrFlags};
use rustix::io::Errno;

use super::super::memory::{self, MAX_PATH};
use super::low;

/// A file as the process that answers can name it now.
pub(super) struct Place {
    pub(super) path: CString,
    /// Whether a link in the last place is followed.
    pub(super) follow: bool,
}

impl Place {
    /// The folder that it is in.
    pub(super) fn folder(&self) -> Self {
        let path = self.path.as_bytes();
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
        let path = &path[..end];
        let folder = match path.iter().rposition(|b| *b == b'/') {
            None => b".".as_slice(),
            Some(0) => b"/",
            Some(at) => &path[..at],
        };
        Self {
            path: CString::new(folder).unwrap_or_default(),
            follow: true,
        }
    }

    /// The flag of `…at` calls for a link in the last place.
    pub(super) fn flags(&self) -> AtFlags {
        match self.follow {
            true => AtFlags::empty(),
            false => AtFlags::SYMLINK_NOFOLLOW,
        }
    }

    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(CWD, &self.path, self.flags())
    }

    /// The length of the value of an attribute, which is in `buf`.
    pub(super) fn attribute(&self, name: &str, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.follow {
            true => rustix::fs::getxattr(&self.path, name, buf),
            false => rustix::fs::lgetxattr(&self.path, name, buf),
        }
    }

    /// The length of the names of all attributes, which are in `buf`.
    pub(super) fn attributes(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.follow {
            true => rustix::fs::listxattr(&self.path, buf),
            false => rustix::fs::llistxattr(&self.path, buf),
        }
    }

    pub(super) fn set_attribute(&self, name: &str, value: &[u8]) -> Result<(), Errno> {
        match self.follow {
            true => rustix::fs::setxattr(&self.path, name, value, XattrFlags::empty()),
            false => rustix::fs::lsetxattr(&self.path, name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove_attribute(&self, name: &str) -> Result<(), Errno> {
        match self.follow {
            true => rustix::fs::removexattr(&self.path, name),
            false => rustix::fs::lremovexattr(&self.path, name),
        }
    }

    /// The same, itself also when it is a link.
    pub(super) fn unfollowed(&self) -> Self {
        Self {
            path: self.path.clone(),
            follow: false,
        }
    }
}

/// What is known of the processes that ask.
pub(super) struct Callers {
    /// The host's `/proc`, which shows them by the ids that questions come with.
    proc: OwnedFd,
    /// Mount and inode of our own root when it was looked at last.
    root: Cell<(u64, u64)>,
    /// Our own root while we are in that of a caller.
    home: RefCell<Option<OwnedFd>>,
}

impl Callers {
    /// To be called where the host's `/proc` is mounted.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            proc: rustix::fs::open("/proc", flags, Mode::empty())?,
            root: Cell::new((0, 0)),
            home: RefCell::new(None),
        })
    }

    /// A path of the caller: relative to its working directory, or to the directory behind descriptor `dir`.
    pub(super) fn at(
        &self,
        asked: &Asked,
        dir: Option<u64>,
        path: u64,
        follow: bool,
    ) -> io::Result<Place> {
        let path = self.text(asked, path)?;
        if path.is_empty() {
            return Err(Errno::NOENT.into());
        }
        self.enter(asked, dir, path, follow)
    }

    /// The same with the flags of an `…at` call.
    pub(super) fn at_flags(
        &self,
        asked: &Asked,
        dir: u64,
        path: u64,
        flags: u64,
    ) -> io::Result<Place> {
        let flags = AtFlags::from_bits_retain(low(flags));
        // No path at all is meant as an empty one (Linux 6.11).
        let text = match path {
            0 if flags.contains(AtFlags::EMPTY_PATH) => CString::default(),
            path => self.text(asked, path)?,
        };
        if text.is_empty() {
            return match flags.contains(AtFlags::EMPTY_PATH) {
                true => self.open_file(asked, dir),
                false => Err(Errno::NOENT.into()),
            };
        }
        let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        self.enter(asked, Some(dir), text, follow)
    }

    /// The file behind a descriptor of the caller.
    pub(super) fn open_file(&self, asked: &Asked, fd: u64) -> io::Result<Place> {
        rustix::process::fchdir(&self.proc)?;
        Ok(Place {
            path: self.link(asked, fd)?,
            follow: true,
        })
    }

    /// The link in `/proc` to what a descriptor is, or to the working directory.
    fn link(&self, asked: &Asked, fd: u64) -> io::Result<CString> {
        let thread = asked.thread;
        let text = match low(fd).cast_signed() {
            at if at == CWD_NUMBER => format!("{thread}/cwd"),
            fd @ 0.. => format!("{thread}/fd/{fd}"),
            _ => return Err(Errno::BADF.into()),
        };
        Ok(CString::new(text)?)
    }

    fn enter(
        &self,
        asked: &Asked,
        dir: Option<u64>,
        path: CString,
        follow: bool,
    ) -> io::Result<Place> {
        let of_caller = own(path.as_bytes());
        if let Some(rest) = of_caller {
            rustix::process::fchdir(&self.proc)?;
            let mut text = asked.thread.to_string().into_bytes();
            text.extend_from_slice(rest);
            return Ok(Place {
                path: CString::new(text)?,
                follow,
            });
        }
        self.change_root(asked)?;
        if path.as_bytes().first() != Some(&b'/') {
            let cwd = u64::from(CWD_NUMBER.cast_unsigned());
            rustix::process::fchdir(&self.proc)?;
            rustix::process::chdir(&self.link(asked, dir.unwrap_or(cwd))?)?;
        }
        Ok(Place { path, follow })
    }

    /// Takes the root of the caller for ours, if it is another one.
    fn change_root(&self, asked: &Asked) -> io::Result<()> {
        let theirs = root_of(&self.proc, &format!("{}/root", asked.thread))?;
        if theirs == self.root.get() {
            return Ok(());
        }
        self.root.set(root_of(CWD, "/")?);
        if theirs == self.root.get() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let home = rustix::fs::open("/", flags, Mode::empty())?;
        rustix::process::fchdir(&self.proc)?;
        rustix::process::chdir(format!("{}/root", asked.thread))?;
        rustix::process::chroot(".")?;
        *self.home.borrow_mut() = Some(home);
        Ok(())
    }

    /// Goes back to our own root.
    pub(super) fn leave(&self) -> io::Result<()> {
        if let Some(home) = self.home.borrow_mut().take() {
            rustix::process::fchdir(&home)?;
            rustix::process::chroot(".")?;
        }
        Ok(())
    }

    /// A text that ends with a zero byte in the memory of the caller.
    pub(super) fn text(&self, asked: &Asked, at: u64) -> io::Result<CString> {
        self.text_of(asked, at, MAX_PATH)
    }

    /// The same of at most so many bytes with its end.
    pub(super) fn text_of(&self, asked: &Asked, at: u64, max: usize) -> io::Result<CString> {
        memory::text(at, max, |at, part| {
            amiforge_sys::read_memory(asked.thread, at, part)
        })
    }

    /// Exactly so many bytes of the memory of the caller.
    pub(super) fn bytes(&self, asked: &Asked, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match len == 0 || amiforge_sys::read_memory(asked.thread, at, &mut bytes)? == len {
            true => Ok(bytes),
            false => Err(Errno::FAULT.into()),
        }
    }

    /// Does something with the file mode mask of the caller.
    pub(super) fn with_umask<T>(&self, asked: &Asked, what: impl FnOnce() -> T) -> io::Result<T> {
        let umask = self.status(asked.thread)?.umask;
        let ours = rustix::process::umask(Mode::from_raw_mode(umask));
        let result = what();
        rustix::process::umask(ours);
        Ok(result)
    }

    /// Some of `/proc/PID/status`.
    pub(super) fn status(&self, pid: u32) -> io::Result<Status> {
        let text = self.read(&format!("{pid}/status"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|value| value.parse().ok());
        let (Some(process), Some(parent)) = (number("Tgid:"), number("PPid:")) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let umask = field("Umask:").and_then(|mask| u32::from_str_radix(mask, 8).ok());
        Ok(Status {
            process,
            parent,
            umask: umask.unwrap_or(0o022),
        })
    }

    /// When a process began: with its number it names it.
    pub(super) fn began(&self, process: u32) -> io::Result<u64> {
        let text = self.read(&format!("{process}/stat"))?;
        // The name of the program may hold anything; field 22 is the 20th behind it (proc_pid_stat(5)).
        let rest = text.rsplit_once(')').map(|(_, rest)| rest);
        let began = rest.and_then(|rest| rest.split_ascii_whitespace().nth(19)?.parse().ok());
        began.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let fd = rustix::fs::openat(
            &self.proc,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Of `/proc/PID/status`.
pub(super) struct Status {
    pub(super) process: u32,
    pub(super) parent: u32,
    pub(super) umask: u32,
}

/// `AT_FDCWD`.
const CWD_NUMBER: i32 = -100;

/// Which root it is.
fn root_of(dir: impl std::os::fd::AsFd, path: &str) -> io::Result<(u64, u64)> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(dir, path, AtFlags::empty(), wanted)?;
    Ok((stat.stx_mnt_id, stat.stx_ino))
}

/// What a path into the folder of the caller itself in `/proc` is behind that folder: for us it would be ours.
fn own(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/proc/")?;
    let rest = rest
        .strip_prefix(b"self")
        .or_else(|| rest.strip_prefix(b"thread-self"))?;
    rest.starts_with(b"/").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> String {
        let place = Place {
            path: CString::new(path).unwrap(),
            follow: false,
        };
        place.folder().path.into_string().unwrap()
    }

    #[test]
    fn folders_of_paths() {
        assert_eq!(folder("a"), ".");
        assert_eq!(folder("a/"), ".");
        assert_eq!(folder("/a"), "/");
        assert_eq!(folder("//"), ".");
        assert_eq!(folder("a/b//"), "a");
        assert_eq!(folder("../a/b"), "../a");
    }

    #[test]
    fn paths_to_oneself() {
        assert_eq!(own(b"/proc/self/fd/3"), Some(&b"/fd/3"[..]));
        assert_eq!(own(b"/proc/thread-self/cwd"), Some(&b"/cwd"[..]));
        assert_eq!(own(b"/proc/selfish"), None);
        assert_eq!(own(b"/proc/1/fd"), None);
    }
}
