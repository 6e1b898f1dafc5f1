//! The unsafe corner: the few system calls that no safe wrapper of `rustix` covers.
//!
//! Each function here is safe to call; the precondition that makes it so is checked inside or
//! follows from its signature. Every `unsafe` block says why it is needed (JUSTIFICATION) and why
//! it is sound (SAFETY). No other crate may contain unsafe code.
#![allow(unsafe_code, reason = "this crate exists to hold it")]

mod answers;
mod confine;
mod lock;
mod notify;
pub mod trace;

use std::io;

pub use answers::{child_signals, statfs_bytes, uname_bytes, with_file_ids};
pub use confine::{Confinement, confine};
pub use lock::{LockKind, is_locked, try_lock};
pub use notify::{
    Answer, Asked, Call, Listener, Watched, read_memory, stat_bytes, statx_bytes, watch,
    write_memory,
};
pub use rustix::process::{Pid, Resource, Rlimit};
pub use rustix::thread::UnshareFlags as Namespaces;

/// Which side of [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old process.
    Parent(Pid),
}

/// Puts the calling process into new namespaces.
///
/// # Errors
/// When the process has more than one thread, or the kernel refuses.
pub fn unshare(flags: Namespaces) -> io::Result<()> {
    single_threaded()?;
    // JUSTIFICATION: rustix marks `unshare` unsafe, as `CLONE_FILES` gives threads that share
    // descriptors different tables.
    // SAFETY: there is one thread, so nobody holds a descriptor number that could come to mean
    // another file.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Duplicates the calling process.
///
/// # Errors
/// When the process has more than one thread, or the kernel refuses.
pub fn fork() -> io::Result<Fork> {
    single_threaded()?;
    // JUSTIFICATION: a new pid namespace only takes children; starting the executable again would
    // need it to be reachable and executable for the mapped ids, which a program in a home
    // directory is not.
    // SAFETY: in a process with one thread no lock can be held by a thread that the child lacks, so
    // the child may run any code.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| io::Error::other("fork returned a negative id")),
    }
}

/// Ends the process at once: no destructors, no flushing of buffers that the parent also holds.
pub fn exit_now(code: i32) -> ! {
    // JUSTIFICATION: `std::process::exit` runs exit handlers, which in a forked child belong to
    // the parent.
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from 3 on close-on-exec, so that no program started later inherits what
/// our own parent left open.
///
/// # Errors
/// When the kernel refuses (it is older than 5.11).
pub fn close_on_exec_from_3() -> io::Result<()> {
    // JUSTIFICATION: rustix has no safe `close_range`, because it can close descriptors others own.
    // SAFETY: with `CLOSE_RANGE_CLOEXEC` nothing is closed; flags of descriptors have no owner.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if ret == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Joins a new, empty session keyring, so that keys of the user's session stay out of reach.
///
/// # Errors
/// When the kernel has no keyrings (`ENOSYS`) or refuses.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if ret >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the program that `command` starts get `SIGKILL` when the thread that starts it ends.
pub fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // JUSTIFICATION: a parent-death signal must be set between fork and exec.
    // SAFETY: the closure makes one system call and allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

/// Makes the program that `command` starts lead a session of its own, without a terminal, and run
/// with the file mode mask `umask`.
pub fn new_session(command: &mut std::process::Command, umask: u16) {
    use std::os::unix::process::CommandExt as _;
    // JUSTIFICATION: both belong to the new process and must be set between fork and exec.
    // SAFETY: the closure makes two system calls and allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask.into()));
            Ok(())
        });
    }
}

/// Lets the program that `command` starts, and the process that becomes it, be looked into by who may trace them, although the
/// caller itself is hidden (prctl(2), `PR_SET_DUMPABLE`).
pub fn shown(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // JUSTIFICATION: the caller stays hidden, so it is set between fork and exec.
    // SAFETY: the closure makes one system call and allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let shown = rustix::process::DumpableBehavior::Dumpable;
            rustix::process::set_dumpable_behavior(shown)?;
            Ok(())
        });
    }
}

/// As [`new_session`], where standard input is a terminal that becomes the session's own (tty_ioctl(2), `TIOCSCTTY`).
pub fn new_session_on_terminal(command: &mut std::process::Command, umask: u16) {
    use std::os::unix::process::CommandExt as _;
    new_session(command, umask);
    // JUSTIFICATION: a terminal is taken by the leader of a session, which the program is only after the fork.
    // SAFETY: the closure makes one system call and allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
}

/// Makes the program that `command` starts, and all that it starts, run under these limits.
pub fn limit(command: &mut std::process::Command, limits: Vec<(Resource, Rlimit)>) {
    use std::os::unix::process::CommandExt as _;
    // JUSTIFICATION: the limits are the new process's, not ours, so they are set between fork and exec.
    // SAFETY: the closure makes system calls over a list that was allocated before, so it is
    // async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (resource, limit) in &limits {
                rustix::process::setrlimit(*resource, *limit)?;
            }
            Ok(())
        });
    }
}

/// Brings up the loopback interface of the calling process's network namespace.
///
/// # Errors
/// When the kernel refuses.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    interface_up(&socket, c"lo")
}

/// Gives an Ethernet interface an address, brings it up, and sends everything that is for others to the gateway.
///
/// # Errors
/// When the kernel refuses.
pub fn configure_interface(
    name: &std::ffi::CStr,
    address: std::net::Ipv4Addr,
    mask: std::net::Ipv4Addr,
    gateway: std::net::Ipv4Addr,
) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = request_for(name);
        request.ifr_ifru.ifru_addr = internet(value);
        interface_request(&socket, what, &request)?;
    }
    interface_up(&socket, name)?;
    // JUSTIFICATION: routes are set with an ioctl or netlink; rustix has neither.
    // SAFETY: an all-zero `rtentry` is a valid value of this plain C structure.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet(std::net::Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(std::net::Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    use std::os::fd::AsRawFd as _;
    // JUSTIFICATION: as above.
    // SAFETY: the descriptor is an open socket and the pointer leads to an `rtentry` without a device name that lives until
    // the call returns, as SIOCADDRT (route(8), rt(4)) wants.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    if ret == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn interface_up(socket: &std::net::UdpSocket, name: &std::ffi::CStr) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    interface_request(socket, libc::SIOCSIFFLAGS, &request)
}

/// Of an interface; a name that is too long is cut.
fn request_for(name: &std::ffi::CStr) -> libc::ifreq {
    // JUSTIFICATION: interfaces are set with an ioctl or netlink; rustix has neither.
    // SAFETY: an all-zero `ifreq` is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request
}

fn interface_request(
    socket: &std::net::UdpSocket,
    what: libc::Ioctl,
    request: &libc::ifreq,
) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // JUSTIFICATION: as above.
    // SAFETY: the descriptor is an open socket and the pointer leads to an `ifreq` that lives until
    // the call returns, as the callers' requests (netdevice(7)) want.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_ref(request)) };
    if ret == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An Internet address as C has it (ip(7)): family, port, address in network order, zeros.
fn internet(address: std::net::Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2),
        sa_data: data,
    }
}

/// A child of the calling process that has ended, and stays to be waited for. With `wait` it waits until there is
/// one, else there may be none.
///
/// # Errors
/// When the process has no children, or a signal came in between.
pub fn ended_child(wait: bool) -> io::Result<Option<Pid>> {
    let flags = libc::WEXITED | libc::WNOWAIT | if wait { 0 } else { libc::WNOHANG };
    // JUSTIFICATION: rustix's `waitid` does not say whose end it reports.
    // SAFETY: an all-zero `siginfo_t` is a valid value of this plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the pointer leads to a `siginfo_t` that lives until the call returns.
    let ret = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    // JUSTIFICATION: the field is a member of a C union.
    // SAFETY: `waitid` succeeded, so the structure is that of SIGCHLD, which has the field, or still all zero.
    let pid = unsafe { info.si_pid() };
    Ok(Pid::from_raw(pid))
}

fn single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.take(2).count();
    if threads == 1 {
        Ok(())
    } else {
        Err(io::Error::other("the process has more than one thread"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ended_is_named_and_can_be_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        for wait in [true, false] {
            let ended = ended_child(wait).unwrap().unwrap();
            assert_eq!(u32::try_from(ended.as_raw_nonzero().get()), Ok(child.id()));
        }
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn refuses_to_fork_with_threads() {
        // The test harness itself runs tests in threads.
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || rx.recv());
        assert!(fork().is_err());
        assert!(unshare(Namespaces::NEWNS).is_err());
        drop(tx);
        assert!(other.join().unwrap().is_err());
    }
}
