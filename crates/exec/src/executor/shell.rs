//! A command that a person, or a script, talks to.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::surroundings::base_environment;
use super::{Held, reaper};
use crate::event::ShellResult;
use crate::spec::{ShellSpec, UMASK};

/// Shells of an image, the better ones first.
const SHELLS: &[&str] = &["/bin/bash", "/bin/sh"];

/// A terminal for a shell that will run where there is no `/dev/pts`.
///
/// # Errors
/// When there is none here either.
pub(crate) fn open_terminal() -> io::Result<OwnedFd> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    Ok(ours)
}

/// Starts the command, on a terminal that is `opened` already if one is, hands out the other ends of its input and outputs (its terminal, or three pipes: input, output,
/// errors), and waits for its end.
///
/// # Errors
/// When it cannot be started, or `hand_over` fails.
pub(crate) fn run_shell(
    spec: &ShellSpec,
    held: &Held,
    opened: Option<OwnedFd>,
    hand_over: &mut dyn FnMut(&[BorrowedFd<'_>]) -> io::Result<()>,
) -> io::Result<ShellResult> {
    let mut argv = spec.argv.clone();
    if argv.is_empty() {
        let found = SHELLS.iter().find(|path| Path::new(path).exists());
        let shell =
            found.ok_or_else(|| io::Error::other("the image has no /bin/bash and no /bin/sh"))?;
        argv.push((*shell).to_owned());
    }
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .envs(base_environment())
        .envs(&spec.env)
        .current_dir(&spec.dir);
    // Ours to hand over; the command's own ends are in `command`.
    let ours = match spec.terminal {
        Some(size) => {
            amiforge_sys::new_session_on_terminal(&mut command, UMASK);
            vec![terminal(&mut command, size, opened)?]
        }
        None => {
            amiforge_sys::new_session(&mut command, UMASK);
            pipes(&mut command)?
        }
    };
    amiforge_sys::limit(&mut command, held.list.clone());
    let mut child = reaper::spawn(&mut command)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", argv[0])))?;
    // Its ends of pipes and terminal: while they are open here, nobody sees that it has ended.
    drop(command);
    let handed: Vec<BorrowedFd<'_>> = ours.iter().map(OwnedFd::as_fd).collect();
    let handed = hand_over(&handed);
    drop(ours);
    if let Err(error) = handed {
        let _gone = child.kill();
        let _status = reaper::wait(&mut child);
        return Err(error);
    }
    let status = reaper::wait(&mut child)?;
    Ok(ShellResult {
        exit_code: status.code(),
        signal: status.signal(),
    })
}

/// A terminal of the sandbox's own (pts(4)); the command gets it, the other side is returned.
fn terminal(
    command: &mut Command,
    (rows, columns): (u16, u16),
    opened: Option<OwnedFd>,
) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let (ours, theirs) = match opened {
        Some(ours) => {
            let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
            (ours, theirs)
        }
        None => {
            let ours = open_terminal()?;
            let name = rustix::pty::ptsname(&ours, Vec::new())?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let theirs = rustix::fs::open(name, flags, Mode::empty())?;
            (ours, theirs)
        }
    };
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&ours, size)?;
    command
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    Ok(ours)
}

fn pipes(command: &mut Command) -> io::Result<Vec<OwnedFd>> {
    let (input, to_input) = io::pipe()?;
    let (from_output, output) = io::pipe()?;
    let (from_errors, errors) = io::pipe()?;
    command.stdin(input).stdout(output).stderr(errors);
    Ok(vec![
        to_input.into(),
        from_output.into(),
        from_errors.into(),
    ])
}
