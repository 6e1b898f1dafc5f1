//! Where QEMU connects to us: sockets in its working folder. QEMU is the client, so that no byte of a console is printed
//! before somebody reads it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::VmError;
use crate::process::Qemu;

/// A socket that waits for QEMU.
#[derive(Debug)]
pub(crate) struct Awaited {
    listener: UnixListener,
    path: PathBuf,
}

/// Makes a listener in `dir`. Socket addresses are short; the folder's path may not be, so the
/// address goes through the descriptor of the open folder.
pub(crate) fn listen(dir: &Path, name: &str) -> Result<Awaited, VmError> {
    let wrong = |e| VmError::io("listen on", dir.join(name))(e);
    let handle = std::fs::File::open(dir).map_err(wrong)?;
    let address = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    let listener = UnixListener::bind(address).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    Ok(Awaited {
        listener,
        path: dir.join(name),
    })
}

/// Waits until QEMU has connected; until then it is known that it runs.
pub(crate) fn accept(
    awaited: &Awaited,
    qemu: &mut Qemu,
    until: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<UnixStream, VmError> {
    loop {
        match awaited.listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(false)
                    .map_err(VmError::io("set up", &awaited.path))?;
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(VmError::io("accept on", &awaited.path)(e)),
        }
        if cancelled() {
            return Err(VmError::Cancelled);
        }
        if qemu.try_wait().is_some() || Instant::now() >= until {
            qemu.kill();
            let stderr = qemu.stderr();
            let stderr = if stderr.is_empty() {
                "it did not say why".to_owned()
            } else {
                stderr
            };
            return Err(VmError::Qemu { stderr });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
