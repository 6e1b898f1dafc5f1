//! What a process gives up where there is no namespace around it (seccomp(2), landlock(7)).

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Pid;

use crate::notify::{ARCH, arg_offset, jump};

/// Processes that a confined one may meet, and what it may use.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// False: sockets are only those of unix(7).
    pub network: bool,
    /// Processes that it may not send signals to, whatever kernel this is.
    pub protected: Vec<Pid>,
}

/// `x32` calls have this bit.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Confines the calling process and all that it will start:
///
/// - no signal to a protected process or to all at once, and from Linux 6.12 on none to any process that is not confined
///   with it; nor a connection to an abstract socket of one
/// - no device nodes, whiteouts of overlayfs included; no io_uring, whose requests no filter sees
/// - no records for the audit log of the kernel
/// - without `network`, no sockets but those of unix(7), and no programs of another architecture, whose calls have other numbers
///
/// Privileges cannot be gained any more by executing a program (`no_new_privs`): without that the kernel wants
/// `CAP_SYS_ADMIN` for this.
///
/// # Errors
/// When the process has more than one thread, or the kernel has no filters.
pub fn confine(confinement: &Confinement) -> io::Result<()> {
    super::single_threaded()?;
    rustix::thread::set_no_new_privs(true)?;
    // Older kernels, and those without it, do with the filter.
    let _older = scope();
    let mut program = program(confinement);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: `filter` points to as many instructions as it says, which live until the call returns; the
    // kernel copies them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    match ret {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A landlock(7) domain that restricts signals and abstract sockets to itself (Linux 6.12).
fn scope() -> io::Result<()> {
    const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
    const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
    const ABSTRACT_UNIX_SOCKET: u64 = 1;
    const SIGNAL: u64 = 2;
    // `struct landlock_ruleset_attr`: file system, network, scopes.
    let attributes = [0_u64, 0, ABSTRACT_UNIX_SOCKET | SIGNAL];
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the pointer leads to as many bytes as are said, which live until the call returns. A kernel that knows
    // less refuses them.
    let fd = unsafe {
        libc::syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            attributes.as_ptr(),
            std::mem::size_of_val(&attributes),
            0,
        )
    };
    let fd = match i32::try_from(fd) {
        Ok(fd @ 0..) => fd,
        _ => return Err(io::Error::last_os_error()),
    };
    // JUSTIFICATION: the call returns a number.
    // SAFETY: the kernel just made the descriptor for us; nobody else owns it.
    let _closed_at_the_end = unsafe { OwnedFd::from_raw_fd(fd) };
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: no memory is passed.
    match unsafe { libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, fd, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A filter that is put together rule by rule: each leaves when it does not apply.
struct Program(Vec<libc::sock_filter>);

/// Offset of the number of the call in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the architecture.
const ARCHITECTURE: u32 = 4;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const GIVE: u32 = libc::BPF_RET | libc::BPF_K;

/// The end of a call that is refused.
fn refuse(errno: i32) -> libc::sock_filter {
    let errno = u32::try_from(errno).unwrap_or(1);
    jump(GIVE, libc::SECCOMP_RET_ERRNO | errno, 0, 0)
}

impl Program {
    /// Refuses a call, where `test` may look at its arguments: it is the part of the program before the end, and jumps
    /// over the one instruction behind it when the call is to be made. With the jumps it needs, the number of the call is
    /// loaded again behind it.
    fn rule(&mut self, number: libc::c_long, test: &[libc::sock_filter], errno: i32) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let skip = u8::try_from(test.len() + 1).unwrap_or(u8::MAX);
        self.0.push(jump(LOAD, NUMBER, 0, 0));
        self.0.push(jump(EQUAL, number, 0, skip));
        self.0.extend_from_slice(test);
        self.0.push(refuse(errno));
    }

    /// Refuses a call whose argument is one of these values (its low 32 bits).
    fn values(&mut self, number: libc::c_long, argument: u32, values: &[i32], errno: i32) {
        for value in values {
            let value = u32::from_ne_bytes(value.to_ne_bytes());
            let test = [
                jump(LOAD, arg_offset(argument), 0, 0),
                jump(EQUAL, value, 0, 1),
            ];
            self.rule(number, &test, errno);
        }
    }
}

fn program(confinement: &Confinement) -> Vec<libc::sock_filter> {
    let mut program = Program(vec![jump(LOAD, ARCHITECTURE, 0, 0)]);
    match confinement.network {
        true => {
            program.0.push(jump(EQUAL, ARCH, 1, 0));
            program.0.push(jump(GIVE, libc::SECCOMP_RET_ALLOW, 0, 0));
        }
        false => {
            program.0.push(jump(EQUAL, ARCH, 1, 0));
            program.0.push(refuse(libc::ENOSYS));
        }
    }
    #[cfg(target_arch = "x86_64")]
    program.0.extend([
        jump(LOAD, NUMBER, 0, 0),
        jump(SET, X32, 0, 1),
        refuse(libc::ENOSYS),
    ]);
    program.rule(libc::SYS_io_uring_setup, &[], libc::ENOSYS);
    sockets(&mut program, confinement.network);
    nodes(&mut program);
    let own = |pid: &Pid| pid.as_raw_nonzero().get();
    let one: Vec<i32> = confinement.protected.iter().map(own).collect();
    // A negative number is a group of processes, and -1 all of them.
    let groups = one.iter().map(|pid| -pid);
    let any: Vec<i32> = one.iter().copied().chain(groups).chain([-1]).collect();
    program.values(libc::SYS_kill, 0, &any, libc::EPERM);
    for call in [
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_open,
    ] {
        program.values(call, 0, &one, libc::EPERM);
    }
    program.0.push(jump(GIVE, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.0
}

fn sockets(program: &mut Program, network: bool) {
    let family = jump(LOAD, arg_offset(0), 0, 0);
    let is = |family: i32, yes, no| jump(EQUAL, u32::try_from(family).unwrap_or(0), yes, no);
    if network {
        // As a kernel without the audit log has it, which programs know how to take.
        let audit = [
            family,
            is(libc::AF_NETLINK, 0, 3),
            jump(LOAD, arg_offset(2), 0, 0),
            is(libc::NETLINK_AUDIT, 0, 1),
        ];
        program.rule(libc::SYS_socket, &audit, libc::EPROTONOSUPPORT);
    } else {
        let local = [family, is(libc::AF_UNIX, 1, 0)];
        program.rule(libc::SYS_socket, &local, libc::EAFNOSUPPORT);
    }
}

/// Device nodes, of which those of whiteouts need no privilege, and a rename that leaves one.
fn nodes(program: &mut Program) {
    let device = |argument| {
        [
            jump(LOAD, arg_offset(argument), 0, 0),
            jump(AND, libc::S_IFMT, 0, 0),
            jump(EQUAL, libc::S_IFCHR, 1, 0),
            jump(EQUAL, libc::S_IFBLK, 0, 1),
        ]
    };
    #[cfg(target_arch = "x86_64")]
    program.rule(libc::SYS_mknod, &device(1), libc::EPERM);
    program.rule(libc::SYS_mknodat, &device(2), libc::EPERM);
    let whiteout = [
        jump(LOAD, arg_offset(4), 0, 0),
        jump(SET, libc::RENAME_WHITEOUT, 0, 1),
    ];
    program.rule(libc::SYS_renameat2, &whiteout, libc::EINVAL);
}
