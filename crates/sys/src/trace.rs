//! A program whose calls are seen before the kernel carries them out (ptrace(2)).
//!
//! Who traces may have a call be another one: uname(2), which a [watch](crate::watch) then brings to whoever answers. So a call
//! of one program can be answered where no watch is wanted on that call of all the others.

use std::io;

use crate::notify::Call;

const GETEVENTMSG: libc::c_long = 0x4201;
const SEIZE: libc::c_long = 0x4206;
const LISTEN: libc::c_long = 0x4208;
const SYSCALL_INFO: libc::c_long = 0x420e;
const SYSCALL: libc::c_long = 24;
const DETACH: libc::c_long = 17;

/// Of `PTRACE_SETOPTIONS`: system calls are told from signals, what a program starts is traced too, and ends with its tracer.
const OPTIONS: libc::c_long = libc::PTRACE_O_TRACESYSGOOD as libc::c_long
    | libc::PTRACE_O_TRACEFORK as libc::c_long
    | libc::PTRACE_O_TRACEVFORK as libc::c_long
    | libc::PTRACE_O_TRACECLONE as libc::c_long
    | libc::PTRACE_O_TRACEEXEC as libc::c_long
    | libc::PTRACE_O_EXITKILL as libc::c_long;

/// Why a traced thread does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to make a call. `None`: none that is known here.
    Enters(Option<(Call, [u64; 6])>),
    /// It has made a call.
    Leaves,
    /// It started another thread or process, which is traced.
    Started(u32),
    /// It is another program now.
    Executed,
    /// It is to get a signal.
    Signal(i32),
    /// It is stopped by a signal until it is told to go on.
    Halted,
    /// Nothing that concerns anybody.
    Other,
    /// It has ended.
    Ended,
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Up to the next stop.
    On,
    /// The same, with this signal.
    With(i32),
    /// It stays stopped as it would without a tracer.
    Halted,
    /// It is not traced any more.
    Free,
}

/// Traces a thread from its next program on.
///
/// # Errors
/// When the kernel refuses: it is traced already, belongs to somebody else, has more capabilities, or a module of the
/// kernel forbids it.
pub fn seize(thread: u32) -> io::Result<()> {
    ptrace(SEIZE, thread, 0, OPTIONS).map(drop)
}

/// Why a thread stopped; none when it runs.
///
/// # Errors
/// When it is not traced.
pub fn next_stop(thread: u32) -> io::Result<Option<Stop>> {
    const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
    const EVENT_STOP: i32 = 128;
    let mut status = 0;
    let pid = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    // JUSTIFICATION: rustix does not show which event a stop is.
    // SAFETY: the pointer leads to a number that lives until the call returns.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) } {
        0 => return Ok(None),
        1.. => {}
        _ => return Err(io::Error::last_os_error()),
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Some(Stop::Ended));
    }
    Ok(Some(match (libc::WSTOPSIG(status), status >> 16) {
        (SYSCALL_STOP, _) => call(thread)?,
        (_, libc::PTRACE_EVENT_EXEC) => Stop::Executed,
        (_, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
            Stop::Started(message(thread)?)
        }
        (libc::SIGTRAP, EVENT_STOP) => Stop::Other,
        (_, EVENT_STOP) => Stop::Halted,
        (signal, 0) => Stop::Signal(signal),
        _ => Stop::Other,
    }))
}

/// The call that a thread is about to make, if it is not one that has been made.
fn call(thread: u32) -> io::Result<Stop> {
    const ENTRY: u64 = 1;
    // `struct ptrace_syscall_info`: kind and architecture, instruction, stack, number, six arguments.
    let mut info = [0_u64; 11];
    let len = libc::c_long::try_from(std::mem::size_of_val(&info)).map_err(io::Error::other)?;
    let to = info.as_mut_ptr().expose_provenance();
    ptrace(SYSCALL_INFO, thread, len, to.cast_signed() as libc::c_long)?;
    if info[0] & 0xff != ENTRY {
        return Ok(Stop::Leaves);
    }
    let mut args = [0; 6];
    args.copy_from_slice(&info[4..10]);
    let number = libc::c_long::try_from(info[3]).ok();
    let call = number.and_then(Call::of);
    Ok(Stop::Enters(call.map(|call| (call, args))))
}

fn message(thread: u32) -> io::Result<u32> {
    let mut message: libc::c_ulong = 0;
    let to = (&raw mut message).expose_provenance();
    ptrace(GETEVENTMSG, thread, 0, to.cast_signed() as libc::c_long)?;
    u32::try_from(message).map_err(io::Error::other)
}

/// Lets a stopped thread go on. One that is gone needs nothing.
///
/// # Errors
/// When it is not stopped.
pub fn resume(thread: u32, how: Resume) -> io::Result<()> {
    let done = match how {
        Resume::On => ptrace(SYSCALL, thread, 0, 0),
        Resume::With(signal) => ptrace(SYSCALL, thread, 0, signal.into()),
        Resume::Halted => ptrace(LISTEN, thread, 0, 0),
        Resume::Free => ptrace(DETACH, thread, 0, 0),
    };
    match done {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        done => done.map(drop),
    }
}

/// Has a thread that is about to make a call make uname(2) instead, with the arguments that there are.
///
/// # Errors
/// When it is not stopped there.
pub fn make_uname(thread: u32) -> io::Result<()> {
    set_call(thread, libc::SYS_uname)
}

/// Has a thread that is about to make a call duplicate a descriptor of its own instead (fcntl(2)). What this changes has to be
/// [restored](Arguments::restore) when it has made the call.
///
/// # Errors
/// When it is not stopped there.
pub fn make_duplicate(thread: u32, fd: u32, close_on_exec: bool) -> io::Result<Arguments> {
    let how = match close_on_exec {
        true => libc::F_DUPFD_CLOEXEC,
        false => libc::F_DUPFD,
    };
    let old = Arguments(arguments(thread)?);
    set_arguments(thread, [fd.into(), u64::from(how.cast_unsigned()), 0])?;
    set_call(thread, libc::SYS_fcntl)?;
    Ok(old)
}

/// The first three arguments of a call, in their registers.
#[derive(Clone, Copy, Debug)]
pub struct Arguments([u64; 3]);

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::{Arguments, io, ptrace};

    const PEEKUSER: libc::c_long = 3;
    const POKEUSER: libc::c_long = 6;
    /// Where `struct user` has rdi, rsi and rdx, and the number of the call.
    const ARGUMENTS: [libc::c_long; 3] = [14 * 8, 13 * 8, 12 * 8];
    const ORIG_RAX: libc::c_long = 15 * 8;

    impl Arguments {
        /// Puts them back: a program takes it that a call changes none.
        ///
        /// # Errors
        /// When the thread is not stopped.
        pub fn restore(self, thread: u32) -> io::Result<()> {
            set_arguments(thread, self.0)
        }
    }

    pub(super) fn set_call(thread: u32, number: libc::c_long) -> io::Result<()> {
        ptrace(POKEUSER, thread, ORIG_RAX, number).map(drop)
    }

    pub(super) fn arguments(thread: u32) -> io::Result<[u64; 3]> {
        let mut values = [0_u64; 3];
        for (value, at) in values.iter_mut().zip(ARGUMENTS) {
            let to = std::ptr::from_mut(value).expose_provenance();
            ptrace(PEEKUSER, thread, at, to.cast_signed() as libc::c_long)?;
        }
        Ok(values)
    }

    pub(super) fn set_arguments(thread: u32, values: [u64; 3]) -> io::Result<()> {
        for (value, at) in values.into_iter().zip(ARGUMENTS) {
            ptrace(POKEUSER, thread, at, value.cast_signed())?;
        }
        Ok(())
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::{Arguments, io, ptrace};

    const GETREGSET: libc::c_long = 0x4204;
    const SETREGSET: libc::c_long = 0x4205;
    const NT_PRSTATUS: libc::c_long = 1;
    const NT_ARM_SYSTEM_CALL: libc::c_long = 0x404;

    /// x0 to x30, stack, instruction, state.
    type Registers = [u64; 34];

    impl Arguments {
        /// Puts them back, but for the first, where the result is: a program takes it that a call changes no other.
        ///
        /// # Errors
        /// When the thread is not stopped.
        pub fn restore(self, thread: u32) -> io::Result<()> {
            let [result, ..] = arguments(thread)?;
            let [_, second, third] = self.0;
            set_arguments(thread, [result, second, third])
        }
    }

    fn regset<T>(
        request: libc::c_long,
        thread: u32,
        set: libc::c_long,
        value: &mut T,
    ) -> io::Result<()> {
        let vector = libc::iovec {
            iov_base: std::ptr::from_mut(value).cast(),
            iov_len: std::mem::size_of_val(value),
        };
        let vector = (&raw const vector).expose_provenance();
        ptrace(request, thread, set, vector.cast_signed() as libc::c_long).map(drop)
    }

    pub(super) fn set_call(thread: u32, number: libc::c_long) -> io::Result<()> {
        let mut number = i32::try_from(number).map_err(io::Error::other)?;
        regset(SETREGSET, thread, NT_ARM_SYSTEM_CALL, &mut number)
    }

    pub(super) fn arguments(thread: u32) -> io::Result<[u64; 3]> {
        let mut all: Registers = [0; 34];
        regset(GETREGSET, thread, NT_PRSTATUS, &mut all)?;
        Ok([all[0], all[1], all[2]])
    }

    pub(super) fn set_arguments(thread: u32, values: [u64; 3]) -> io::Result<()> {
        let mut all: Registers = [0; 34];
        regset(GETREGSET, thread, NT_PRSTATUS, &mut all)?;
        all[..3].copy_from_slice(&values);
        regset(SETREGSET, thread, NT_PRSTATUS, &mut all)
    }
}

use registers::{arguments, set_arguments, set_call};

/// Private: each caller passes what its request names, and pointers to memory of its own that is large enough.
fn ptrace(
    request: libc::c_long,
    thread: u32,
    address: libc::c_long,
    data: libc::c_long,
) -> io::Result<libc::c_long> {
    let pid = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: see above; the kernel writes to our memory only where `data` leads, for the requests that ask for something, and
    // as much as they say. The traced thread is a process of its own.
    let ret = unsafe { libc::syscall(libc::SYS_ptrace, request, pid, address, data) };
    match ret {
        -1 => Err(io::Error::last_os_error()),
        ret => Ok(ret),
    }
}
