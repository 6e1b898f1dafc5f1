//! The little of `/proc` that systemd-tmpfiles reads, answered for a process that has none.
//!
//! It names files by its own descriptors (`/proc/self/fd/7`), to change or open again what it has open already. That is done
//! here for it, on the same file and never by a path: who asks reaches nothing that it does not have in its hands. Of texts it
//! gets copies. Nothing of the container's own `/proc` is ever handed over, since from a folder there a process walks out of its
//! root directory.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use amiforge_sys::{Answer, Call, read_memory, write_memory};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, SealFlags, StatxFlags, Timespec,
    Timestamps, XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, Gid, Uid};

use super::super::memory::{self, MAX_PATH};
use super::KEPT;

/// Bytes of the name and of a value of an attribute (xattr(7)).
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 64 << 10;

/// Files that are the same for everybody, by their names below `/proc`.
const TEXTS: &[&[&str]] = &[
    &["filesystems"],
    &["sys", "kernel", "cap_last_cap"],
    &["sys", "kernel", "random", "boot_id"],
];

/// What is the first process's own is refused in the other ways, where it is hidden.
const HIDDEN: &[&[u8]] = &[b"cwd", b"environ", b"exe", b"fd", b"root"];

/// What a call is to be instead of itself.
pub(super) enum Instead {
    /// It is answered here.
    Answered(Deed),
    /// It makes another descriptor for the same, closed when another program is executed or not. An open file that is
    /// only a handle (`O_PATH`) cannot be handed to another process in an answer, and has nothing that could differ.
    Duplicate(u32, bool),
}

/// A call that is to be answered here.
#[derive(Debug)]
pub(super) struct Deed {
    call: Call,
    args: [u64; 6],
    target: Target,
}

/// What a path below `/proc` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A descriptor of the asker.
    Descriptor(u32),
    /// The link to the program that it runs, to be read.
    Program,
    /// One of [`TEXTS`].
    Text(usize),
    /// The folder itself.
    Folder,
    /// Nothing, with this error.
    Fails(Errno),
}

/// Why a call cannot be played.
#[derive(Debug)]
pub(super) enum Unplayed {
    /// The kernel's answer is right.
    Kernel,
    /// It would be another one elsewhere.
    Differs(String),
}

impl Unplayed {
    fn without_rights() -> Self {
        Self::Differs("it runs without all rights of root".to_owned())
    }
}

impl From<io::Error> for Unplayed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Who became somebody else hides its memory.
            io::ErrorKind::PermissionDenied => Self::without_rights(),
            _ => Self::Kernel,
        }
    }
}

/// What is answered, or how the call fails.
pub(super) enum Played {
    Answer(Answer),
    /// A new descriptor, closed when another program is executed or not.
    Opened(OwnedFd, bool),
}

/// All that is played from.
pub(super) struct Proc {
    /// The container's own.
    proc: OwnedFd,
    texts: Vec<OwnedFd>,
    /// Device and inode of the empty folder of the job, and of the texts.
    ours: Vec<(u64, u64)>,
    /// What statfs(2) says of a real one.
    statfs: Vec<u8>,
    /// Where the job's root is for us.
    root: Vec<u8>,
    /// What was asked for and is not played.
    unknown: Option<String>,
}

impl Proc {
    /// For the job with this root directory.
    pub(super) fn new(root: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::statat(root, "proc", AtFlags::SYMLINK_NOFOLLOW)?;
        let mut played = Self {
            proc: rustix::fs::open("/proc", flags, Mode::empty())?,
            texts: Vec::new(),
            ours: vec![(folder.st_dev, folder.st_ino)],
            statfs: amiforge_sys::statfs_bytes(c"/proc")?,
            root: rustix::fs::readlinkat(CWD, own_path(root), Vec::new())?.into_bytes(),
            unknown: None,
        };
        for name in TEXTS {
            let text = played.read(&name.join("/")).unwrap_or_default();
            let copy = copy_of(&text)?;
            let stat = rustix::fs::fstat(&copy)?;
            played.ours.push((stat.st_dev, stat.st_ino));
            played.texts.push(copy);
        }
        Ok(played)
    }

    /// The container's own, for who traces.
    pub(super) fn dir(&self) -> &OwnedFd {
        &self.proc
    }

    /// What was asked for since the last time and is not there, for people.
    pub(super) fn take_unknown(&mut self) -> Option<String> {
        self.unknown.take()
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.proc, path, flags, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What is to be answered to a call that a thread is about to make. It is stopped, and what is decided here is not looked at
    /// in its memory again.
    pub(super) fn deed(
        &mut self,
        thread: u32,
        call: Call,
        args: [u64; 6],
    ) -> Result<Instead, Unplayed> {
        let target = match call {
            Call::Fstatfs => self.is_ours(thread, low(args[0]))?,
            _ => self.target(thread, call, &args)?,
        };
        // Rights are not looked at below: what is done is what root of the job may do to what it has open.
        self.has_all_rights(thread)?;
        let mut deed = Deed { call, args, target };
        let opened = Asker { thread }.open_flags(&deed);
        if let (Target::Descriptor(fd), Ok((Some(flags), 0))) = (target, opened)
            && flags.contains(OFlags::PATH)
            && !flags.contains(OFlags::NOFOLLOW)
        {
            let is_dir = self.is_dir(thread, fd);
            deed.target = match is_dir {
                Err(error) => Target::Fails(error),
                Ok(false) if flags.contains(OFlags::DIRECTORY) => Target::Fails(Errno::NOTDIR),
                Ok(_) => return Ok(Instead::Duplicate(fd, flags.contains(OFlags::CLOEXEC))),
            };
        }
        Ok(Instead::Answered(deed))
    }

    fn is_dir(&self, thread: u32, fd: u32) -> Result<bool, Errno> {
        let path = format!("{thread}/fd/{fd}");
        let stat = rustix::fs::statat(&self.proc, path, AtFlags::empty())?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Whether a descriptor is for something that only looks like `/proc`.
    fn is_ours(&self, thread: u32, fd: u32) -> Result<Target, Unplayed> {
        let path = format!("{thread}/fd/{fd}");
        let stat =
            rustix::fs::statat(&self.proc, path, AtFlags::empty()).map_err(|_| Unplayed::Kernel)?;
        match self.ours.contains(&(stat.st_dev, stat.st_ino)) {
            true => Ok(Target::Folder),
            false => Err(Unplayed::Kernel),
        }
    }

    fn target(&mut self, thread: u32, call: Call, args: &[u64; 6]) -> Result<Target, Unplayed> {
        let at = path_argument(call).ok_or(Unplayed::Kernel)?;
        let path = memory::text(args[at], MAX_PATH, |at, part| read_memory(thread, at, part))?;
        let names = below_proc(path.as_bytes()).ok_or(Unplayed::Kernel)?;
        let process = self.process_of(thread)?.to_string();
        let own =
            |name: &[u8]| name == b"self" || name == b"thread-self" || name == process.as_bytes();
        let text = TEXTS.iter().position(|text| {
            text.iter()
                .map(|name| name.as_bytes())
                .eq(names.iter().copied())
        });
        let target = match names.as_slice() {
            [] if call == Call::Statfs => return Ok(Target::Folder),
            // The empty folder of the job is as good.
            [] => return Err(Unplayed::Kernel),
            [who, b"fd", number] if own(who) => {
                let digits = number.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(number).ok().filter(|_| digits);
                let number = number.and_then(|number| number.parse().ok());
                number.map(Target::Descriptor)
            }
            [who, b"exe"] if own(who) && reads_link(call) => Some(Target::Program),
            [b"1", what] if HIDDEN.contains(what) => Some(Target::Fails(Errno::ACCESS)),
            _ => text.map(Target::Text),
        };
        Ok(target.unwrap_or_else(|| {
            self.unknown = Some(path.to_string_lossy().into_owned());
            Target::Fails(Errno::NOENT)
        }))
    }

    fn process_of(&self, thread: u32) -> io::Result<u32> {
        let text = self.read(&format!("{thread}/status"))?;
        let text = String::from_utf8_lossy(&text);
        let field = field(&text, "Tgid:").and_then(|value| value.parse().ok());
        field.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Whether a thread is root with all that root of a job has.
    fn has_all_rights(&self, thread: u32) -> Result<(), Unplayed> {
        let text = self.read(&format!("{thread}/status"))?;
        let text = String::from_utf8_lossy(&text);
        let all_root = |name: &str| {
            field(&text, name).is_some_and(|ids| ids.split_ascii_whitespace().all(|id| id == "0"))
        };
        let effective = field(&text, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok());
        let effective = CapabilitySet::from_bits_retain(effective.unwrap_or(0));
        let ours = rustix::thread::capabilities(None).map_err(io::Error::from)?;
        match all_root("Uid:") && all_root("Gid:") && effective.contains(KEPT & ours.effective) {
            true => Ok(()),
            false => Err(Unplayed::without_rights()),
        }
    }

    /// Does what a thread that waits asked for.
    pub(super) fn carry_out(&self, thread: u32, deed: &Deed) -> Result<Played, Errno> {
        let a = &deed.args;
        let asker = Asker { thread };
        let file = match deed.target {
            Target::Fails(error) => return Err(error),
            Target::Folder => return asker.give(a[1], &self.statfs).map(Played::Answer),
            Target::Text(number) => {
                let text = self.texts.get(number).ok_or(Errno::NOENT)?;
                // What a file of the kernel's that everybody may read allows.
                match deed.call {
                    Call::Statfs => return asker.give(a[1], &self.statfs).map(Played::Answer),
                    call if changes(call) => return Err(Errno::ACCESS),
                    _ => text.try_clone().map_err(|_| Errno::MFILE)?,
                }
            }
            Target::Program => {
                let link = format!("{thread}/exe");
                return self.link(&asker, deed, &link).map(Played::Answer);
            }
            Target::Descriptor(fd) => {
                let link = format!("{thread}/fd/{fd}");
                if !follows(deed.call, a) {
                    return self.link(&asker, deed, &link).map(Played::Answer);
                }
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                rustix::fs::openat(&self.proc, link, flags, Mode::empty())?
            }
        };
        let (flags, resolve) = asker.open_flags(deed)?;
        if let Some(flags) = flags {
            // The last part is a link that paths of the kernel's cannot tell from others.
            return match resolve {
                0 => open_again(&file, flags),
                _ => Err(Errno::LOOP),
            };
        }
        asker.on_file(deed, &file).map(Played::Answer)
    }

    /// About a link itself, and not what it leads to.
    fn link(&self, asker: &Asker, deed: &Deed, link: &str) -> Result<Answer, Errno> {
        let a = &deed.args;
        let to = match deed.call {
            #[cfg(target_arch = "x86_64")]
            Call::Readlink => (a[1], a[2]),
            Call::Readlinkat => (a[2], a[3]),
            #[cfg(target_arch = "x86_64")]
            Call::Open => return Err(Errno::LOOP),
            Call::Openat | Call::Openat2 => return Err(Errno::LOOP),
            _ => return Err(Errno::OPNOTSUPP),
        };
        let text = rustix::fs::readlinkat(&self.proc, link, Vec::new())?.into_bytes();
        // Where it is for us, of which the job knows the part below its root. What is no path (`pipe:[1]`) stays.
        let text = match text.strip_prefix(self.root.as_slice()) {
            Some([]) => b"/",
            Some(rest @ [b'/', ..]) => rest,
            _ if text.first() != Some(&b'/') => text.as_slice(),
            _ => return Err(Errno::NOENT),
        };
        let room = usize::try_from(to.1).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(Errno::INVAL);
        }
        let text = &text[..text.len().min(room)];
        asker.give(to.0, text)?;
        Ok(value(text.len()))
    }
}

/// The thread whose call is carried out.
struct Asker {
    thread: u32,
}

impl Asker {
    fn text(&self, at: u64, max: usize) -> Result<CString, Errno> {
        memory::text(at, max, |at, part| read_memory(self.thread, at, part))
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::FAULT))
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        match len == 0 || read_memory(self.thread, at, &mut bytes).is_ok_and(|read| read == len) {
            true => Ok(bytes),
            false => Err(Errno::FAULT),
        }
    }

    fn give(&self, to: u64, bytes: &[u8]) -> Result<Answer, Errno> {
        write_memory(self.thread, to, bytes).map_err(|_| Errno::FAULT)?;
        Ok(Answer::Value(0))
    }

    /// A value for a buffer of a size, or, for none, its length (getxattr(2)).
    fn give_sized(&self, (to, size): (u64, u64), bytes: &[u8]) -> Result<Answer, Errno> {
        match size {
            0 => {}
            size if size < bytes.len() as u64 => return Err(Errno::RANGE),
            _ => drop(self.give(to, bytes)?),
        }
        Ok(value(bytes.len()))
    }

    /// The flags of a call that opens, and which paths it allows.
    fn open_flags(&self, deed: &Deed) -> Result<(Option<OFlags>, u64), Errno> {
        let a = &deed.args;
        let flags = |flags: u64| Some(OFlags::from_bits_retain(low(flags)));
        Ok(match deed.call {
            #[cfg(target_arch = "x86_64")]
            Call::Open => (flags(a[1]), 0),
            Call::Openat => (flags(a[2]), 0),
            Call::Openat2 => {
                // `struct open_how`: flags, mode, resolve.
                if a[3] < 24 {
                    return Err(Errno::INVAL);
                }
                let how = self.bytes(a[2], 24)?;
                (flags(number(&how[..8])), number(&how[16..]))
            }
            _ => (None, 0),
        })
    }

    /// Everything but opening it.
    fn on_file(&self, deed: &Deed, file: &OwnedFd) -> Result<Answer, Errno> {
        let a = &deed.args;
        let path = own_path(file);
        let none = AtFlags::empty();
        match deed.call {
            #[cfg(target_arch = "x86_64")]
            Call::Stat => self.give(a[1], &stat(&path)?),
            Call::Newfstatat => self.give(a[2], &stat(&path)?),
            Call::Statx => {
                let kept = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
                let flags = AtFlags::from_bits_retain(low(a[2])) & kept;
                let flags = i32::try_from(flags.bits()).map_err(|_| Errno::INVAL)?;
                let mask = StatxFlags::from_bits_retain(low(a[3])).bits();
                let bytes = amiforge_sys::statx_bytes(&path, flags, mask, None);
                self.give(a[4], &bytes.map_err(errno)?)
            }
            Call::Statfs => {
                let bytes = amiforge_sys::statfs_bytes(&path).map_err(errno)?;
                self.give(a[1], &bytes)
            }
            #[cfg(target_arch = "x86_64")]
            Call::Access => access(&path, a[1]),
            Call::Faccessat | Call::Faccessat2 => access(&path, a[2]),
            #[cfg(target_arch = "x86_64")]
            Call::Chmod => done(rustix::fs::chmodat(CWD, &path, mode(a[1]), none)),
            Call::Fchmodat | Call::Fchmodat2 => {
                done(rustix::fs::chmodat(CWD, &path, mode(a[2]), none))
            }
            #[cfg(target_arch = "x86_64")]
            Call::Chown => chown(&path, a[1], a[2]),
            Call::Fchownat => chown(&path, a[2], a[3]),
            Call::Utimensat => {
                let times = self.times(a[2])?;
                done(rustix::fs::utimensat(CWD, &path, &times, none))
            }
            Call::Setxattr => {
                let name = self.text(a[1], MAX_NAME)?;
                is_settable(name.as_bytes())?;
                let len = usize::try_from(a[3]).ok().filter(|len| *len <= MAX_VALUE);
                let value = self.bytes(a[2], len.ok_or(Errno::TOOBIG)?)?;
                let flags = XattrFlags::from_bits_retain(low(a[4]));
                done(rustix::fs::setxattr(&path, &name, &value, flags))
            }
            Call::Removexattr => {
                let name = self.text(a[1], MAX_NAME)?;
                is_settable(name.as_bytes())?;
                done(rustix::fs::removexattr(&path, &name))
            }
            Call::Getxattr => {
                let name = self.text(a[1], MAX_NAME)?;
                if is_trusted(name.as_bytes()) {
                    return Err(Errno::NODATA);
                }
                let mut value = vec![0; MAX_VALUE];
                let len = rustix::fs::getxattr(&path, &name, &mut value[..])?;
                self.give_sized((a[2], a[3]), &value[..len])
            }
            Call::Listxattr => {
                let mut names = vec![0; MAX_VALUE];
                let len = rustix::fs::listxattr(&path, &mut names[..])?;
                let all = names[..len].split_inclusive(|b| *b == 0);
                let shown: Vec<u8> = all
                    .filter(|name| !is_trusted(name))
                    .flatten()
                    .copied()
                    .collect();
                self.give_sized((a[1], a[2]), &shown)
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// Two times (utimensat(2)); without any, now.
    fn times(&self, at: u64) -> Result<Timestamps, Errno> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        if at == 0 {
            return Ok(Timestamps {
                last_access: now,
                last_modification: now,
            });
        }
        let bytes = self.bytes(at, 32)?;
        let part = |at: usize| number(&bytes[at..at + 8]).cast_signed();
        Ok(Timestamps {
            last_access: Timespec {
                tv_sec: part(0),
                tv_nsec: part(8),
            },
            last_modification: Timespec {
                tv_sec: part(16),
                tv_nsec: part(24),
            },
        })
    }
}

/// Opens a file again that the asker has open. Only what cannot keep us waiting, and has no other side.
fn open_again(file: &OwnedFd, flags: OFlags) -> Result<Played, Errno> {
    let close = flags.contains(OFlags::CLOEXEC);
    let open = |flags| rustix::fs::open(own_path(file), flags | OFlags::CLOEXEC, Mode::empty());
    // Of a text; others are duplicated.
    if flags.contains(OFlags::PATH) {
        return Ok(Played::Opened(open(OFlags::RDONLY)?, close));
    }
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EXIST);
    }
    if flags.contains(OFlags::TMPFILE) {
        return Err(Errno::OPNOTSUPP);
    }
    let stat = rustix::fs::fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => {}
        _ => return Err(Errno::NXIO),
    }
    let waits = !flags.contains(OFlags::NONBLOCK);
    let opened = open((flags - OFlags::CREATE) | OFlags::NOCTTY | OFlags::NONBLOCK)?;
    if waits {
        let now = rustix::fs::fcntl_getfl(&opened)?;
        rustix::fs::fcntl_setfl(&opened, now - OFlags::NONBLOCK)?;
    }
    Ok(Played::Opened(opened, close))
}

fn stat(path: &CString) -> Result<Vec<u8>, Errno> {
    amiforge_sys::stat_bytes(path, true, None).map_err(errno)
}

fn access(path: &CString, asked: u64) -> Result<Answer, Errno> {
    let asked = Access::from_bits_retain(low(asked));
    done(rustix::fs::accessat(CWD, path, asked, AtFlags::empty()))
}

fn chown(path: &CString, uid: u64, gid: u64) -> Result<Answer, Errno> {
    // The highest id leaves what there is (chown(2)).
    let id = |id: u64| Some(low(id)).filter(|id| *id != u32::MAX);
    let (uid, gid) = (id(uid).map(Uid::from_raw), id(gid).map(Gid::from_raw));
    done(rustix::fs::chownat(CWD, path, uid, gid, AtFlags::empty()))
}

/// Attributes that need no privilege of their own, of which we may have some that the asker has not.
fn is_settable(name: &[u8]) -> Result<(), Errno> {
    match name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") {
        true => Ok(()),
        false => Err(Errno::PERM),
    }
}

fn is_trusted(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
}

fn done(result: Result<(), Errno>) -> Result<Answer, Errno> {
    result.map(|()| Answer::Value(0))
}

fn value(len: usize) -> Answer {
    Answer::Value(i64::try_from(len).unwrap_or(0))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn mode(argument: u64) -> Mode {
    Mode::from_raw_mode(low(argument) & 0o7777)
}

/// An argument that the kernel takes for 32 bits.
fn low(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or(0)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// The path of a descriptor of ours.
fn own_path(fd: &OwnedFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(path).unwrap_or_default()
}

/// A file in memory that nobody can change any more.
fn copy_of(text: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("proc", flags)?;
    File::from(copy.try_clone()?).write_all(text)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o444))?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, all)?;
    Ok(copy)
}

/// The value of a line of `/proc/PID/status`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(str::trim)
}

/// The names of a path behind `/proc`. None when it does not lead there, or by a way that only the kernel can go.
fn below_proc(path: &[u8]) -> Option<Vec<&[u8]>> {
    let names = path.strip_prefix(b"/")?.split(|b| *b == b'/');
    let mut names = names.filter(|name| !name.is_empty() && *name != b".");
    if names.next()? != b"proc" {
        return None;
    }
    let rest: Vec<&[u8]> = names.collect();
    (!rest.contains(&b"..".as_slice())).then_some(rest)
}

/// Which argument is the path that a call is about. None when it is about none that could be below `/proc`.
fn path_argument(call: Call) -> Option<usize> {
    match call {
        #[cfg(target_arch = "x86_64")]
        Call::Stat
        | Call::Lstat
        | Call::Chown
        | Call::Lchown
        | Call::Open
        | Call::Access
        | Call::Chmod
        | Call::Readlink => Some(0),
        Call::Statfs
        | Call::Setxattr
        | Call::Lsetxattr
        | Call::Getxattr
        | Call::Lgetxattr
        | Call::Listxattr
        | Call::Llistxattr
        | Call::Removexattr
        | Call::Lremovexattr => Some(0),
        Call::Newfstatat
        | Call::Statx
        | Call::Fchownat
        | Call::Openat
        | Call::Openat2
        | Call::Faccessat
        | Call::Faccessat2
        | Call::Fchmodat
        | Call::Fchmodat2
        | Call::Readlinkat
        | Call::Utimensat => Some(1),
        _ => None,
    }
}

/// Whether a call goes on to what a link in the last place leads to.
fn follows(call: Call, args: &[u64; 6]) -> bool {
    let at = |argument: usize| {
        !AtFlags::from_bits_retain(low(args[argument])).contains(AtFlags::SYMLINK_NOFOLLOW)
    };
    let open =
        |argument: usize| !OFlags::from_bits_retain(low(args[argument])).contains(OFlags::NOFOLLOW);
    match call {
        #[cfg(target_arch = "x86_64")]
        Call::Lstat | Call::Lchown | Call::Readlink => false,
        Call::Lsetxattr
        | Call::Lgetxattr
        | Call::Llistxattr
        | Call::Lremovexattr
        | Call::Readlinkat => false,
        Call::Newfstatat | Call::Faccessat2 | Call::Fchmodat2 | Call::Utimensat => at(3),
        Call::Statx => at(2),
        Call::Fchownat => at(4),
        #[cfg(target_arch = "x86_64")]
        Call::Open => open(1),
        Call::Openat => open(2),
        _ => true,
    }
}

fn reads_link(call: Call) -> bool {
    match call {
        #[cfg(target_arch = "x86_64")]
        Call::Readlink => true,
        Call::Readlinkat => true,
        _ => false,
    }
}

/// Whether a call would change a file, other than by opening it.
fn changes(call: Call) -> bool {
    match call {
        #[cfg(target_arch = "x86_64")]
        Call::Chown | Call::Lchown | Call::Chmod => true,
        Call::Fchownat
        | Call::Fchmodat
        | Call::Fchmodat2
        | Call::Utimensat
        | Call::Setxattr
        | Call::Lsetxattr
        | Call::Removexattr
        | Call::Lremovexattr => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_proc() {
        let names = |path: &str| {
            below_proc(path.as_bytes()).map(|names| {
                let names = names
                    .iter()
                    .map(|name| String::from_utf8_lossy(name).into_owned());
                names.collect::<Vec<_>>().join(" ")
            })
        };
        for (path, expected) in [
            ("/proc", Some("")),
            ("/proc/", Some("")),
            ("//proc/./self//fd/3/", Some("self fd 3")),
            ("/proc/1/root/etc", Some("1 root etc")),
            ("/proc/self/../1/root", None),
            ("/proc/..", None),
            ("/process/self", None),
            ("/etc/proc/self", None),
            ("proc/self/fd/3", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(names(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn texts_cannot_be_changed() {
        let copy = copy_of(b"40\n").unwrap();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let again = rustix::fs::open(own_path(&copy), flags, Mode::empty()).unwrap();
        assert_eq!(rustix::io::write(&again, b"41\n"), Err(Errno::PERM));
        let mut text = [0; 8];
        assert_eq!(rustix::io::read(&again, &mut text), Ok(3));
        assert_eq!(&text[..3], b"40\n");
    }

    #[test]
    fn a_file_that_keeps_waiting_is_not_opened_again() {
        let (end, _other) = rustix::pipe::pipe().unwrap();
        let opened = open_again(&end, OFlags::RDONLY);
        assert!(matches!(opened, Err(Errno::NXIO)));
        let folder = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        let Ok(Played::Opened(opened, true)) =
            open_again(&folder, OFlags::RDONLY | OFlags::CLOEXEC)
        else {
            panic!("not opened")
        };
        assert!(
            !rustix::fs::fcntl_getfl(&opened)
                .unwrap()
                .contains(OFlags::NONBLOCK)
        );
    }
}
