//! `instance serial`: a terminal on the serial line of an instance.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-], as in telnet: leaves the serial line.
const ESCAPE: u8 = 0x1D;

/// The terminal of the user, raw until this is dropped: every key goes to the guest, Ctrl-C as well.
struct Raw(Termios);

impl Raw {
    /// `None` when standard input is no terminal.
    fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Joins the user's terminal with the line until the machine is off, or the user leaves.
pub(super) fn attach(line: &UnixStream) -> io::Result<()> {
    let raw = Raw::new()?;
    if raw.is_some() {
        crate::eprint_line("attached; Ctrl-] leaves\r");
    }
    let interactive = raw.is_some();
    let mut typed = line.try_clone()?;
    // Reading a terminal cannot be interrupted: this thread ends with the process.
    std::thread::spawn(move || {
        let mut buf = [0; 1024];
        while let Ok(n @ 1..) = io::stdin().read(&mut buf) {
            let keys = &buf[..n];
            let leave = keys.iter().position(|b| interactive && *b == ESCAPE);
            let keys = &keys[..leave.unwrap_or(n)];
            if typed.write_all(keys).is_err() || leave.is_some() {
                let _ = typed.shutdown(Shutdown::Both);
                return;
            }
        }
        // Standard input ended: what the guest still says is shown.
        let _ = typed.shutdown(Shutdown::Write);
    });
    let mut shown = line;
    let mut buf = [0; 16 << 10];
    let mut out = io::stdout();
    loop {
        match shown.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                if out.write_all(&buf[..n]).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}
