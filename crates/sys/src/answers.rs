//! What the kernel would write to the memory of a program that asks it, as bytes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// The bytes of `struct utsname` (uname(2)), with another name of the machine.
///
/// # Errors
/// Those of the call.
pub fn uname_bytes(host: &str) -> io::Result<Vec<u8>> {
    // JUSTIFICATION: rustix converts the structure; a process that waits wants its bytes.
    // SAFETY: an all-zero `utsname` is a valid value of this plain C structure.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the pointer leads to a structure that lives until the call returns.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return Err(io::Error::last_os_error());
    }
    name.nodename = [0; 65];
    let room = name.nodename.len() - 1;
    for (to, from) in name.nodename[..room].iter_mut().zip(host.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // JUSTIFICATION: as above.
    // SAFETY: the structure was zeroed, so all its bytes are initialised.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const name).cast::<u8>(), std::mem::size_of_val(&name))
    };
    Ok(bytes.to_vec())
}

/// The bytes of the kernel's `struct statfs` of the file system of a file (statfs(2)).
///
/// # Errors
/// Those of the call.
pub fn statfs_bytes(path: &CStr) -> io::Result<Vec<u8>> {
    // JUSTIFICATION: as in `uname_bytes`.
    // SAFETY: an all-zero `statfs` is a valid value of this plain C structure.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the path ends with a zero byte and the structure lives until the call returns.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // JUSTIFICATION: as above.
    // SAFETY: the structure was zeroed, so all its bytes are initialised; on the architectures that this compiles for the
    // C library's is the kernel's.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const stat).cast::<u8>(), std::mem::size_of_val(&stat))
    };
    Ok(bytes.to_vec())
}

/// A descriptor that is readable when a child or a traced thread has changed (signalfd(2)). `SIGCHLD` itself does not come any
/// more; what the calling process starts later would inherit that.
///
/// # Errors
/// When the kernel refuses.
pub fn child_signals() -> io::Result<OwnedFd> {
    // JUSTIFICATION: rustix has neither signal sets nor signalfd.
    // SAFETY: an all-zero set is a valid value, and all pointers lead to it while it lives.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    match fd {
        // JUSTIFICATION: the call returns a number.
        // SAFETY: the kernel just made the descriptor for us; nobody else owns it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does something with another user and group for the rights on files (setfsuid(2)), and goes back.
///
/// # Errors
/// When they did not become these.
pub fn with_file_ids<T>((uid, gid): (u32, u32), what: impl FnOnce() -> T) -> io::Result<T> {
    let become_ids = |uid: u32, gid: u32| {
        // JUSTIFICATION: rustix has no setfsuid.
        // SAFETY: no memory is passed. An id that is none changes nothing and returns the one there is.
        unsafe {
            libc::setfsgid(gid);
            libc::setfsuid(uid);
            (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
        }
    };
    let own = become_ids(u32::MAX, u32::MAX);
    let number = |id: u32| i32::from_ne_bytes(id.to_ne_bytes());
    let there = become_ids(uid, gid) == (number(uid), number(gid));
    let result = there.then(what);
    let (old_uid, old_gid) = (own.0.cast_unsigned(), own.1.cast_unsigned());
    let back = become_ids(old_uid, old_gid) == own;
    match result {
        Some(result) if back => Ok(result),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}
