//! A server on a Unix socket: a thread for each connection, a limit on how many, and a clean end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long connections may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Speaks with a client until it is done.
type Serve = dyn Fn(&UnixStream) + Send + Sync;

/// Serves every connection to a socket, until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

struct Shared {
    listener: UnixListener,
    name: &'static str,
    limit: usize,
    serve: Box<Serve>,
    stopping: AtomicBool,
    connections: Mutex<BTreeMap<u64, UnixStream>>,
    ended: Condvar,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Calls `serve` for every connection, on a thread of its own; what is over `limit` is closed at once. The connection is
    /// shut down when `serve` returns.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(
        name: &'static str,
        listener: UnixListener,
        limit: usize,
        serve: impl Fn(&UnixStream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(false)?;
        let shared = Arc::new(Shared {
            listener,
            name,
            limit,
            serve: Box::new(serve),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            ended: Condvar::new(),
        });
        let own = shared.clone();
        let listening = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || listen(&own))?;
        Ok(Self {
            shared,
            listening: Some(listening),
        })
    }

    /// How many clients are connected.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Takes no more connections, lets clients send no more, waits until they have their answers, and ends.
    fn end(&mut self) {
        let Some(listening) = self.listening.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection (accept(2) then fails with EINVAL).
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        let until = Instant::now() + STOP_GRACE;
        let mut connections = self.shared.connections();
        for stream in connections.values() {
            let _ = stream.shutdown(Shutdown::Read);
        }
        while !connections.is_empty() && Instant::now() < until {
            (connections, _) = self
                .shared
                .ended
                .wait_timeout(connections, until.saturating_duration_since(Instant::now()))
                .unwrap_or_else(PoisonError::into_inner);
        }
        for stream in connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(connections);
        let _ = listening.join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Accepts until the server stops, then waits for the connections.
fn listen(shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let accepted = shared.listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        threads.retain(|t| !t.is_finished());
        let Ok((stream, _)) = accepted else {
            // Out of descriptors or memory: there may be some later.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Ok(kept) = stream.try_clone() else {
            continue;
        };
        {
            let mut connections = shared.connections();
            if connections.len() >= shared.limit {
                continue;
            }
            connections.insert(number, kept);
            // The server may have looked at the connections just before.
            if shared.stopping.load(Ordering::SeqCst) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let own = shared.clone();
        let started = thread::Builder::new()
            .name(format!("{} client", shared.name))
            .spawn(move || {
                let _leave = Leave(&own, number);
                (own.serve)(&stream);
            });
        match started {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(Leave(shared, number)),
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Takes a connection off the list and shuts it down, also when its thread panics.
struct Leave<'a>(&'a Shared, u64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut connections = self.0.connections();
        if let Some(stream) = connections.remove(&self.1) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(connections);
        self.0.ended.notify_all();
    }
}
