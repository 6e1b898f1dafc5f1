//! The service on a Unix socket.

use std::io::{self, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http::{HttpError, Response, read_request};
use super::service::Service;
use crate::listener::Server;

/// Connections at a time: more than a guest makes that is up to no harm.
const CONNECTIONS_MAX: usize = 64;
/// How long a request may take to come, from its first byte on.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may lie idle between requests, and an answer wait for its reader.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Requests on one connection; then it has to be made anew.
const REQUESTS_MAX: usize = 1000;

/// Serves the metadata of an instance on a Unix socket, until it is stopped or dropped.
#[derive(Debug)]
pub struct ImdsServer {
    server: Server,
}

impl ImdsServer {
    /// Answers requests on `listener` from `service`, which may be changed all the while.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(listener: UnixListener, service: Arc<Mutex<Service>>) -> io::Result<Self> {
        let begun = Instant::now();
        let serve = move |stream: &UnixStream| {
            // The guest went away in the middle: there is nobody to tell.
            let _ = serve(stream, &service, begun);
        };
        let server = Server::start("imds", listener, CONNECTIONS_MAX, serve)?;
        Ok(Self { server })
    }

    /// Ends all connections and stops. Dropping does the same.
    pub fn stop(self) {
        drop(self.server);
    }
}

/// A stream whose reads end at a point in time, however slowly bytes come.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // The first byte of a request begins its time.
        let until = match self.until {
            Some(until) => until,
            None => Instant::now() + IDLE_LIMIT,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let read = self.stream.read(buf)?;
        self.until.get_or_insert(Instant::now() + REQUEST_LIMIT);
        Ok(read)
    }
}

fn serve(stream: &UnixStream, service: &Mutex<Service>, begun: Instant) -> io::Result<()> {
    stream.set_write_timeout(Some(IDLE_LIMIT))?;
    let timed = Timed {
        stream,
        until: None,
    };
    let mut reader = BufReader::new(timed);
    let mut writer = stream;
    for n in 1..=REQUESTS_MAX {
        reader.get_mut().until = None;
        let request = match read_request(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(HttpError::Status(status)) => {
                return Response::error(status).write(&mut writer, false);
            }
            Err(HttpError::Io(e)) => {
                let late = matches!(
                    e.kind(),
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                );
                // In the middle of a request; an idle connection just ends.
                if late && reader.get_ref().until.is_some() {
                    Response::error(408).write(&mut writer, false)?;
                }
                return Err(e);
            }
        };
        let response = service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .respond(&request, begun.elapsed());
        let keep_alive = request.keep_alive && n < REQUESTS_MAX;
        response.write(&mut writer, keep_alive)?;
        if !keep_alive {
            break;
        }
    }
    Ok(())
}
