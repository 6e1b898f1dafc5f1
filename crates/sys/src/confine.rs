//! What a process gives up where there is no namespace around it (seccomp(2), landlock(7)).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Pid;

use crate::notify::{ARCH, arg_offset, jump};

/// Processes that a confined one may meet, and what it may use.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// False: sockets are only those of unix(7).
    pub network: bool,
    /// Processes that it may not send signals to, whatever kernel this is, with their threads and groups of now.
    pub protected: Vec<Pid>,
}

/// `x32` calls have this bit.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Confines the calling process and all that it will start:
///
/// - no signal to a protected process or to all at once, and from Linux 6.12 on none to any process that is not confined
///   with it; nor a connection to an abstract socket of one
/// - no signal that the kernel sends for a descriptor to a protected process (`F_SETOWN`), nor by the calls that a filter
///   cannot look into (`F_SETOWN_EX` and two of ioctl(2))
/// - no limits of another process, no attaching to one, no look into its memory and descriptors; what a process started and
///   that asks for it (`PTRACE_TRACEME`) can be traced
/// - no device nodes, whiteouts of overlayfs included; no io_uring, whose requests no filter sees
/// - no records for the audit log of the kernel
/// - no programs of another architecture (32-bit ones, x32), whose calls have other numbers
/// - without `network`, no sockets but those of unix(7)
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

    /// Refuses a call whose argument is one of these values (its low 32 bits). With `when`, the value of another argument,
    /// only the calls that have that, too.
    fn values(
        &mut self,
        number: libc::c_long,
        when: Option<(u32, i32)>,
        argument: u32,
        values: &[i32],
        errno: i32,
    ) {
        // No jump leads over more than 255 instructions.
        const AT_ONCE: usize = 100;
        for values in values.chunks(AT_ONCE) {
            let far = |steps: usize| u8::try_from(steps).unwrap_or(u8::MAX);
            let mut test = Vec::new();
            if let Some((argument, value)) = when {
                test.push(jump(LOAD, arg_offset(argument), 0, 0));
                test.push(jump(EQUAL, bits(value), 0, far(values.len() + 2)));
            }
            test.push(jump(LOAD, arg_offset(argument), 0, 0));
            for (behind, value) in (0..values.len()).rev().zip(values) {
                test.push(jump(
                    EQUAL,
                    bits(*value),
                    far(behind),
                    u8::from(behind == 0),
                ));
            }
            self.rule(number, &test, errno);
        }
    }
}

fn bits(value: i32) -> u32 {
    u32::from_ne_bytes(value.to_ne_bytes())
}

fn program(confinement: &Confinement) -> Vec<libc::sock_filter> {
    let mut program = Program(vec![
        jump(LOAD, ARCHITECTURE, 0, 0),
        jump(EQUAL, ARCH, 1, 0),
        refuse(libc::ENOSYS),
    ]);
    #[cfg(target_arch = "x86_64")]
    program.0.extend([
        jump(LOAD, NUMBER, 0, 0),
        jump(SET, X32, 0, 1),
        refuse(libc::ENOSYS),
    ]);
    program.rule(libc::SYS_io_uring_setup, &[], libc::ENOSYS);
    sockets(&mut program, confinement.network);
    nodes(&mut program);
    others(&mut program);
    signals(&mut program, &confinement.protected);
    program.0.push(jump(GIVE, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.0
}

/// Calls that reach into other processes. The kernel lets root do that with processes that have no more capabilities than
/// itself, of which there may be some in the container.
fn others(program: &mut Program) {
    const PTRACE_ATTACH: i32 = 16;
    const PTRACE_SEIZE: i32 = 0x4206;
    let attach = [PTRACE_ATTACH, PTRACE_SEIZE];
    program.values(libc::SYS_ptrace, None, 0, &attach, libc::EPERM);
    for call in [
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
    ] {
        program.rule(call, &[], libc::EPERM);
    }
    // Of the calling process itself: setrlimit(2) of the C library.
    let another = [jump(LOAD, arg_offset(0), 0, 0), jump(EQUAL, 0, 1, 0)];
    program.rule(libc::SYS_prlimit64, &another, libc::EPERM);
}

/// All ways to have a signal sent.
fn signals(program: &mut Program, protected: &[Pid]) {
    const F_SETOWN_EX: i32 = 15;
    const FIOSETOWN: i32 = 0x8901;
    const SIOCSPGRP: i32 = 0x8902;
    // A program has no room for more than 4096 instructions.
    const MOST: usize = 512;
    let one: Vec<i32> = protected
        .iter()
        .map(|pid| pid.as_raw_nonzero().get())
        .collect();
    let more = one.iter().flat_map(|pid| threads(*pid));
    let mut threads: Vec<i32> = one.iter().copied().chain(more).collect();
    // The processes themselves stay in front.
    let mut met = BTreeSet::new();
    threads.retain(|id| met.insert(*id));
    threads.truncate(MOST);
    // A negative number is a group of processes, and -1 all of them.
    let groups = one.iter().filter_map(|pid| group(*pid));
    let groups: BTreeSet<i32> = one.iter().copied().chain(groups).map(|id| -id).collect();
    let any: Vec<i32> = threads.iter().copied().chain(groups).chain([-1]).collect();
    program.values(libc::SYS_kill, None, 0, &any, libc::EPERM);
    for call in [
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_pidfd_open,
    ] {
        program.values(call, None, 0, &threads, libc::EPERM);
    }
    // These name the process beside the thread.
    for call in [libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo] {
        program.values(call, None, 0, &one, libc::EPERM);
    }
    let owner = Some((1, libc::F_SETOWN));
    program.values(libc::SYS_fcntl, owner, 2, &any, libc::EPERM);
    // Who it is stands in memory, where no filter looks.
    program.values(libc::SYS_fcntl, None, 1, &[F_SETOWN_EX], libc::EPERM);
    let owner = [FIOSETOWN, SIOCSPGRP];
    program.values(libc::SYS_ioctl, None, 1, &owner, libc::EPERM);
}

/// The threads that a process has now; none when it does not show them.
fn threads(pid: i32) -> Vec<i32> {
    let Ok(listing) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let names = listing.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

/// The group of a process, unless it is of another pid namespace.
fn group(pid: i32) -> Option<i32> {
    // JUSTIFICATION: rustix takes for granted that every group has an id here.
    // SAFETY: no memory is passed.
    let group = unsafe { libc::getpgid(pid) };
    (group > 0).then_some(group)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer to a call.
    fn answer(
        program: &[libc::sock_filter],
        arch: u32,
        number: libc::c_long,
        arguments: [i32; 5],
    ) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (n, argument) in arguments.iter().enumerate() {
            data[16 + 8 * n..][..4].copy_from_slice(&argument.to_le_bytes());
        }
        let mut at = 0;
        let mut held = 0_u32;
        loop {
            let one = program[at];
            at += 1;
            let way = |yes: bool| usize::from(if yes { one.jt } else { one.jf });
            match u32::from(one.code) {
                LOAD => {
                    let from = usize::try_from(one.k).unwrap();
                    held = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                AND => held &= one.k,
                EQUAL => at += way(held == one.k),
                SET => at += way(held & one.k != 0),
                GIVE => return one.k,
                other => panic!("no instruction of ours: {other}"),
            }
        }
    }

    #[test]
    fn calls_that_reach_others_are_refused() {
        let own = rustix::process::getpid();
        let pid = own.as_raw_nonzero().get();
        let group = group(pid).unwrap();
        // Whatever the tests run with: one more.
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            wait.recv()
        });
        let thread = told.recv().unwrap().as_raw_nonzero().get();
        let protected = vec![own];
        let programs = [false, true].map(|network| {
            program(&Confinement {
                network,
                protected: protected.clone(),
            })
        });
        drop(end);
        assert!(other.join().unwrap().is_err());
        let free = i32::MAX;
        let calls = [
            (libc::SYS_kill, [pid, 9, 0, 0, 0], true),
            (libc::SYS_kill, [thread, 9, 0, 0, 0], true),
            (libc::SYS_kill, [-group, 9, 0, 0, 0], true),
            (libc::SYS_kill, [-1, 9, 0, 0, 0], true),
            (libc::SYS_kill, [free, 9, 0, 0, 0], false),
            (libc::SYS_kill, [-free, 9, 0, 0, 0], false),
            (libc::SYS_tkill, [thread, 9, 0, 0, 0], true),
            (libc::SYS_tkill, [free, 9, 0, 0, 0], false),
            (libc::SYS_tgkill, [pid, thread, 9, 0, 0], true),
            (libc::SYS_pidfd_open, [thread, 0, 0, 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_SETOWN, pid, 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_SETOWN, -group, 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_SETOWN, free, 0, 0], false),
            (libc::SYS_fcntl, [3, libc::F_DUPFD, pid, 0, 0], false),
            (libc::SYS_fcntl, [3, 15, 0, 0, 0], true),
            (libc::SYS_ioctl, [3, 0x8901, 0, 0, 0], true),
            (libc::SYS_ioctl, [3, 0x8902, 0, 0, 0], true),
            (libc::SYS_ioctl, [3, 0x5401, 0, 0, 0], false),
            (libc::SYS_prlimit64, [free, 7, 0, 0, 0], true),
            (libc::SYS_prlimit64, [0, 7, 0, 0, 0], false),
            (libc::SYS_ptrace, [16, free, 0, 0, 0], true),
            (libc::SYS_ptrace, [0x4206, free, 0, 0, 0], true),
            (libc::SYS_ptrace, [0, 0, 0, 0, 0], false),
            (libc::SYS_process_vm_readv, [free, 0, 0, 0, 0], true),
            (libc::SYS_process_vm_writev, [free, 0, 0, 0, 0], true),
            (libc::SYS_pidfd_getfd, [3, 0, 0, 0, 0], true),
            (libc::SYS_getpid, [0; 5], false),
        ];
        for program in &programs {
            for (number, arguments, refused) in calls {
                let given = answer(program, ARCH, number, arguments);
                let expected = match refused {
                    true => refuse(libc::EPERM).k,
                    false => libc::SECCOMP_RET_ALLOW,
                };
                assert_eq!(given, expected, "{number} {arguments:?}");
            }
            // 32-bit programs, and x32.
            let none = refuse(libc::ENOSYS).k;
            assert_eq!(answer(program, 0x4000_0003, 20, [0; 5]), none);
            #[cfg(target_arch = "x86_64")]
            assert_eq!(answer(program, ARCH, 0x4000_0027, [0; 5]), none);
        }
    }

    #[test]
    fn any_number_of_values_is_found() {
        let values: Vec<i32> = (1..=250).collect();
        let mut program = Program(Vec::new());
        let when = Some((1, 8));
        program.values(libc::SYS_fcntl, when, 2, &values, libc::EPERM);
        program.0.push(jump(GIVE, libc::SECCOMP_RET_ALLOW, 0, 0));
        for value in [0, 1, 99, 100, 101, 200, 249, 250, 251] {
            for command in [8, 9] {
                let given = answer(&program.0, ARCH, libc::SYS_fcntl, [3, command, value, 0, 0]);
                let refused = given == refuse(libc::EPERM).k;
                assert_eq!(refused, command == 8 && values.contains(&value), "{value}");
            }
        }
    }
}
