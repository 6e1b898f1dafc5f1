//! The server: a device on a Unix socket.

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::handshake::handshake;
use super::transmission::Connection;
use super::{BlockDevice, Export};
use crate::listener::Server;

/// Threads of a connection. QEMU has up to 16 requests on their way, most of which wait for the same disk.
const THREADS: usize = 4;
/// Connections at a time; QEMU makes one, `nbdcopy` four.
const CONNECTIONS_MAX: usize = 8;
/// How long a client may take for each word of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Serves one device on a Unix socket, until it is stopped or dropped.
#[derive(Debug)]
pub struct NbdServer {
    server: Server,
}

impl NbdServer {
    /// Serves `device` to everybody who connects to `listener`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        listener: UnixListener,
        device: Arc<dyn BlockDevice>,
        read_only: bool,
    ) -> io::Result<Self> {
        let serve = move |stream: &UnixStream| {
            let export = Export {
                device: &*device,
                read_only,
            };
            // A client that does not keep to the protocol loses its connection; that is all there is to say.
            let _ = serve(stream, export);
        };
        let server = Server::start("nbd", listener, CONNECTIONS_MAX, serve)?;
        Ok(Self { server })
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Takes no more connections and requests, lets those that are being done be answered, and ends. It does not flush the
    /// device. Dropping does the same.
    pub fn stop(self) {
        drop(self.server);
    }
}

/// A connection from beginning to end.
fn serve(stream: &UnixStream, export: Export<'_>) -> io::Result<()> {
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let (mut reader, mut writer) = (BufReader::with_capacity(16 << 10, stream), stream);
    if !handshake(&mut reader, &mut writer, export)? {
        return Ok(());
    }
    stream.set_read_timeout(None)?;
    let connection = Connection::new(reader, writer, export);
    thread::scope(|scope| {
        for _ in 1..THREADS {
            // Fewer threads do as well.
            let _ = thread::Builder::new()
                .name("nbd client".to_owned())
                .spawn_scoped(scope, || work(&connection, stream));
        }
        work(&connection, stream);
    });
    Ok(())
}

/// Works on a connection and closes it when a reply cannot be sent, or the device panics: a request that is never answered
/// would stop the guest for ever.
fn work(connection: &Connection<'_, BufReader<&UnixStream>, &UnixStream>, stream: &UnixStream) {
    struct Close<'a>(&'a UnixStream);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            let _ = self.0.shutdown(Shutdown::Both);
        }
    }
    let close = Close(stream);
    if connection.work().is_ok() {
        std::mem::forget(close);
    }
}
