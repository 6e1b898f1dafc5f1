//! System calls that another process answers (seccomp_unotify(2)).
//!
//! A process asks to be watched with [`watch`]; from then on its calls on the list, and those of all that it
//! starts, wait until who holds the [`Listener`] has answered each: with a result, or with leave to go on.
//! Calls in the form of another architecture than the program's are not watched.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Calls in the form of `x32` have this bit and are no calls of ours.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCH: u32 = 0xc000_00b7;

/// `O_CREAT` and `O_TMPFILE` are looked for in an argument; a call without them is not watched.
const MAKES: u32 = libc::O_CREAT as u32;

const RECV: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const ID_VALID: u64 = 0x4008_2102;
const ADD_FD: u64 = 0x4018_2103;

macro_rules! calls {
    ($($(#[$on:meta])? $name:ident = $number:ident,)*) => {
        /// A system call that can be watched, by its name in the kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is the name of a page of section 2 of the manual")]
        pub enum Call {
            $($(#[$on])? $name,)*
        }

        impl Call {
            pub(crate) const ALL: &'static [(libc::c_long, Call)] = &[
                $($(#[$on])? (libc::$number, Call::$name),)*
            ];
        }
    };
}

calls! {
    #[cfg(target_arch = "x86_64")] Stat = SYS_stat,
    #[cfg(target_arch = "x86_64")] Lstat = SYS_lstat,
    Fstat = SYS_fstat,
    Newfstatat = SYS_newfstatat,
    Statx = SYS_statx,
    #[cfg(target_arch = "x86_64")] Chown = SYS_chown,
    #[cfg(target_arch = "x86_64")] Lchown = SYS_lchown,
    Fchown = SYS_fchown,
    Fchownat = SYS_fchownat,
    #[cfg(target_arch = "x86_64")] Open = SYS_open,
    #[cfg(target_arch = "x86_64")] Creat = SYS_creat,
    Openat = SYS_openat,
    #[cfg(target_arch = "x86_64")] Mkdir = SYS_mkdir,
    Mkdirat = SYS_mkdirat,
    #[cfg(target_arch = "x86_64")] Symlink = SYS_symlink,
    Symlinkat = SYS_symlinkat,
    #[cfg(target_arch = "x86_64")] Mknod = SYS_mknod,
    Mknodat = SYS_mknodat,
    Setuid = SYS_setuid,
    Setgid = SYS_setgid,
    Setreuid = SYS_setreuid,
    Setregid = SYS_setregid,
    Setresuid = SYS_setresuid,
    Setresgid = SYS_setresgid,
    Setfsuid = SYS_setfsuid,
    Setfsgid = SYS_setfsgid,
    Setgroups = SYS_setgroups,
    Getuid = SYS_getuid,
    Geteuid = SYS_geteuid,
    Getgid = SYS_getgid,
    Getegid = SYS_getegid,
    Getresuid = SYS_getresuid,
    Getresgid = SYS_getresgid,
    Getgroups = SYS_getgroups,
    Setxattr = SYS_setxattr,
    Lsetxattr = SYS_lsetxattr,
    Fsetxattr = SYS_fsetxattr,
    Getxattr = SYS_getxattr,
    Lgetxattr = SYS_lgetxattr,
    Fgetxattr = SYS_fgetxattr,
    Listxattr = SYS_listxattr,
    Llistxattr = SYS_llistxattr,
    Flistxattr = SYS_flistxattr,
    Removexattr = SYS_removexattr,
    Lremovexattr = SYS_lremovexattr,
    Fremovexattr = SYS_fremovexattr,
    Execve = SYS_execve,
    Execveat = SYS_execveat,
    Uname = SYS_uname,
    Openat2 = SYS_openat2,
    #[cfg(target_arch = "x86_64")] Access = SYS_access,
    Faccessat = SYS_faccessat,
    Faccessat2 = SYS_faccessat2,
    #[cfg(target_arch = "x86_64")] Chmod = SYS_chmod,
    Fchmodat = SYS_fchmodat,
    Fchmodat2 = SYS_fchmodat2,
    #[cfg(target_arch = "x86_64")] Readlink = SYS_readlink,
    Readlinkat = SYS_readlinkat,
    Utimensat = SYS_utimensat,
    Statfs = SYS_statfs,
    Fstatfs = SYS_fstatfs,
}

/// Which calls are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Those about owners of files and ids of processes.
    Owners,
    /// Those that start a program or ask for the name of the machine.
    Programs,
}

impl Call {
    /// Who watches it. `None`: nobody; it is known for programs that are [traced](crate::trace).
    fn watched(self) -> Option<Watched> {
        match self {
            Self::Execve | Self::Execveat | Self::Uname => Some(Watched::Programs),
            #[cfg(target_arch = "x86_64")]
            Self::Access | Self::Chmod | Self::Readlink => None,
            Self::Openat2
            | Self::Faccessat
            | Self::Faccessat2
            | Self::Fchmodat
            | Self::Fchmodat2
            | Self::Readlinkat
            | Self::Utimensat
            | Self::Statfs
            | Self::Fstatfs => None,
            _ => Some(Watched::Owners),
        }
    }

    /// The call of a number, if it is one of these.
    pub(crate) fn of(number: libc::c_long) -> Option<Self> {
        let found = Self::ALL.iter().find(|(n, _)| *n == number);
        found.map(|(_, call)| *call)
    }

    /// The argument with the flags of a call that is watched only when it may make a file.
    fn makes_by(self) -> Option<u32> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Open => Some(1),
            Self::Openat => Some(2),
            _ => None,
        }
    }
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Names this call; another call of the same process has another one.
    pub id: u64,
    /// The thread that made it, as the listener's process sees it.
    pub thread: u32,
    /// Which.
    pub call: Call,
    /// Its arguments as they are in the registers.
    pub args: [u64; 6],
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is made as if nobody watched.
    Go,
    /// It was not made and returns this.
    Value(i64),
    /// It was not made and fails with this error number.
    Error(i32),
}

/// The end of a watch that answers.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0
    }
}

pub(crate) fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    }
}

/// The offset of the low half of argument `n` in `struct seccomp_data` (little endian).
pub(crate) const fn arg_offset(n: u32) -> u32 {
    16 + 8 * n
}

/// The program that the kernel runs for every call (seccomp(2)).
fn program(watched: Watched) -> Vec<libc::sock_filter> {
    let load = |offset| jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let give = |what| jump(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    let equal = |k, jt, jf| jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let mut program = vec![
        load(4),
        equal(ARCH, 1, 0),
        give(libc::SECCOMP_RET_ALLOW),
        load(0),
    ];
    let calls = Call::ALL.iter();
    for (number, call) in calls.filter(|(_, call)| call.watched() == Some(watched)) {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        match call.makes_by() {
            None => program.extend([equal(number, 0, 1), give(libc::SECCOMP_RET_USER_NOTIF)]),
            Some(arg) => program.extend([
                equal(number, 0, 4),
                load(arg_offset(arg)),
                jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, MAKES, 0, 1),
                give(libc::SECCOMP_RET_USER_NOTIF),
                give(libc::SECCOMP_RET_ALLOW),
            ]),
        }
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

/// Has the calling process, and all that it will start, watched. The listener has to be handed to another process:
/// this one waits for its answers from now on.
///
/// # Errors
/// When the process has more than one thread, lacks `CAP_SYS_ADMIN` in its user namespace and can still gain privileges, or
/// the kernel refuses (it is older than 5.9, or another watch is on already).
pub fn watch(watched: Watched) -> io::Result<Listener> {
    super::single_threaded()?;
    // `WAIT_KILLABLE_RECV` (Linux 5.19): signals other than fatal ones do not make a call that is being answered start anew.
    const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
    let mut program = program(watched);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        // JUSTIFICATION: no safe wrapper exists.
        // SAFETY: `filter` points to as many instructions as it says, which live until the call returns; the
        // kernel copies them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const filter,
            )
        };
        match fd {
            0.. => Ok(RawFd::try_from(fd).unwrap_or(-1)),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let plain = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match install(plain | WAIT_KILLABLE) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(plain)?,
        other => other?,
    };
    // JUSTIFICATION: the call returns a number.
    // SAFETY: the kernel just made the descriptor for us; nobody else owns it.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) }))
}

impl Listener {
    /// The next call. `None` when the one that was to be read is gone, since its process was killed.
    ///
    /// # Errors
    /// When the kernel refuses, for example because nobody is watched any more (`ENOENT` is `None`).
    pub fn next(&self) -> io::Result<Option<Asked>> {
        // JUSTIFICATION: the kernel wants it zeroed.
        // SAFETY: an all-zero `seccomp_notif` is a valid value of this plain C structure.
        let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        match self.control(RECV, (&raw mut notification).cast()) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let call = Call::of(libc::c_long::from(notification.data.nr));
        let asked = call.map(|call| Asked {
            id: notification.id,
            thread: notification.pid,
            call,
            args: notification.data.args,
        });
        if asked.is_none() {
            self.answer(notification.id, Answer::Go)?;
        }
        Ok(asked)
    }

    /// Whether the call still waits: what was read of its process before is of that process.
    #[must_use]
    pub fn is_waiting(&self, id: u64) -> bool {
        let mut id = id;
        self.control(ID_VALID, (&raw mut id).cast()).is_ok()
    }

    /// Answers a call. One that does not wait any more needs none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (val, error, flags) = match answer {
            Answer::Go => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
        };
        let mut response = libc::seccomp_notif_resp {
            id,
            val,
            error,
            flags: u32::try_from(flags).unwrap_or(1),
        };
        ended(self.control(SEND, (&raw mut response).cast()))
    }

    /// Answers a call with a new descriptor of the caller for the file behind `fd`.
    ///
    /// # Errors
    /// When the kernel refuses (it is older than 5.14, or the caller has too many).
    pub fn answer_with_fd(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> io::Result<()> {
        const ADD_FD_SEND: u32 = 1 << 1;
        let mut request = libc::seccomp_notif_addfd {
            id,
            flags: ADD_FD_SEND,
            srcfd: u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?,
            newfd: 0,
            newfd_flags: if close_on_exec {
                u32::try_from(libc::O_CLOEXEC).unwrap_or(0)
            } else {
                0
            },
        };
        ended(self.control(ADD_FD, (&raw mut request).cast()))
    }

    fn control(&self, request: u64, argument: *mut libc::c_void) -> io::Result<()> {
        // JUSTIFICATION: no safe wrapper exists.
        // SAFETY: private, and each caller passes a pointer to the structure that its request names, which lives
        // until the call returns.
        let ret = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument) };
        match ret {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A caller that is gone is not a failure.
fn ended(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Reads up to `buf.len()` bytes of the memory of a process (process_vm_readv(2)); how many there were.
///
/// # Errors
/// When nothing is there, or the process may not be looked into.
pub fn read_memory(pid: u32, address: u64, buf: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    let remote = remote(address, buf.len());
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: `local` covers `buf`, which is ours to write; the remote addresses are only used in the other process.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Writes all of `bytes` to the memory of a process that waits for an answer (process_vm_writev(2)).
///
/// # Errors
/// When the memory is not there or not writable, or the process may not be looked into.
pub fn write_memory(pid: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = remote(address, bytes.len());
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: `local` covers `bytes`, which is only read; the remote addresses are only used in the other process.
    let n = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(n) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn remote(address: u64, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(
            usize::try_from(address).unwrap_or(usize::MAX),
        ),
        iov_len: len,
    }
}

/// The bytes of the kernel's `struct stat` of a file (stat(2)), with another owner if there is one.
///
/// # Errors
/// Those of the call.
pub fn stat_bytes(path: &CStr, follow: bool, owner: Option<(u32, u32)>) -> io::Result<Vec<u8>> {
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // JUSTIFICATION: rustix converts the structure; a process that waits wants its bytes.
    // SAFETY: an all-zero `stat` is a valid value of this plain C structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the path ends with a zero byte and `stat` lives until the call returns.
    let ret = unsafe { libc::fstatat(libc::AT_FDCWD, path.as_ptr(), &raw mut stat, flags) };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(owner) = owner {
        (stat.st_uid, stat.st_gid) = owner;
    }
    // JUSTIFICATION: as above.
    // SAFETY: the structure was zeroed with its padding, so all its bytes are initialised; on the architectures
    // that this compiles for the C library's is the kernel's.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const stat).cast::<u8>(), std::mem::size_of_val(&stat))
    };
    Ok(bytes.to_vec())
}

/// The bytes of `struct statx` of a file (statx(2)), with another owner if there is one.
///
/// # Errors
/// Those of the call.
pub fn statx_bytes(
    path: &CStr,
    flags: i32,
    mask: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<Vec<u8>> {
    // JUSTIFICATION: as in `stat_bytes`.
    // SAFETY: an all-zero `statx` is a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the path ends with a zero byte and `stat` lives until the call returns.
    let ret = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags & !libc::AT_EMPTY_PATH,
            mask,
            &raw mut stat,
        )
    };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(owner) = owner {
        (stat.stx_uid, stat.stx_gid) = owner;
    }
    // JUSTIFICATION: as above.
    // SAFETY: zeroed with its padding, so all its bytes are initialised.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const stat).cast::<u8>(), std::mem::size_of_val(&stat))
    };
    Ok(bytes.to_vec())
}
