//! An HTTP file server on the loopback interface that misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sends this many bytes of the body, then nothing, with the connection open.
    StallAfter(u64),
    /// Sends this many bytes of the body, then closes the connection.
    CloseAfter(u64),
    /// Inverts the byte at this offset of the file.
    Corrupt(u64),
    /// Answers with this status and no file.
    Status(u16),
    /// Ignores `Range` and sends the whole file with status 200.
    NoRange,
}

struct State {
    root: PathBuf,
    faults: Mutex<Vec<(String, Fault, u32)>>,
    log: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A static file server on 127.0.0.1, one thread per connection, with byte ranges. It stops when dropped.
pub struct FileServer {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileServer {
    /// Serves the files below `root`.
    #[must_use]
    #[track_caller]
    pub fn start(root: &Path) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on the loopback interface");
        let address = listener.local_addr().expect("the port's address");
        let state = Arc::new(State {
            root: root.to_path_buf(),
            faults: Mutex::default(),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Acquire) {
                    break;
                }
                if let Ok(stream) = stream {
                    let state = Arc::clone(&shared);
                    thread::spawn(move || {
                        // A client that goes away in the middle is its own business.
                        let _ = serve(&state, &stream);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    /// Base URL without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests whose path ends in `suffix` go wrong like this. Faults are taken in
    /// the order in which they were added, one per request.
    pub fn fault(&self, suffix: &str, fault: Fault, times: u32) {
        lock(&self.state.faults).push((suffix.to_owned(), fault, times));
    }

    /// Requests so far: `GET /path` or `GET /path 100-` with the asked byte range.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state.log).clone()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes the first fault that fits the path.
fn take_fault(state: &State, path: &str) -> Option<Fault> {
    let mut faults = lock(&state.faults);
    let entry = faults
        .iter_mut()
        .find(|(suffix, _, left)| *left > 0 && path.ends_with(suffix.as_str()))?;
    entry.2 -= 1;
    Some(entry.1)
}

/// The header fields of a request, by their names in small letters, up to the empty line.
pub(crate) fn read_headers(reader: &mut impl BufRead) -> std::io::Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            return Ok(headers);
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn serve(state: &State, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or("/").to_owned(),
        );
        let headers = read_headers(&mut reader)?;
        let range = headers
            .get("range")
            .and_then(|r| r.strip_prefix("bytes="))
            .map(str::to_owned);
        let asked = range.as_ref().map(|r| format!(" {r}")).unwrap_or_default();
        lock(&state.log).push(format!("{method} {path}{asked}"));
        let fault = take_fault(state, &path);
        if !answer(state, stream, &method, &path, range.as_deref(), fault)? {
            return Ok(());
        }
    }
}

/// Sends one answer; `false` when the connection is to be closed.
fn answer(
    state: &State,
    mut out: &TcpStream,
    method: &str,
    path: &str,
    range: Option<&str>,
    fault: Option<Fault>,
) -> std::io::Result<bool> {
    if let Some(Fault::Status(code)) = fault {
        write!(out, "HTTP/1.1 {code} Fault\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    let file = local_path(&state.root, path).and_then(|p| fs_err::File::open(p).ok());
    let Some(mut file) = file.filter(|f| f.metadata().is_ok_and(|m| m.is_file())) else {
        write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    };
    let size = file.metadata()?.len();
    let (start, end) = match range
        .filter(|_| fault != Some(Fault::NoRange))
        .map(|r| parse_range(r, size))
    {
        None => {
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nAccept-Ranges: bytes\r\n\r\n"
            )?;
            (0, size)
        }
        Some(Some((start, end))) => {
            let last = end - 1;
            let len = end - start;
            write!(
                out,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {len}\r\nContent-Range: bytes {start}-{last}/{size}\r\n\r\n"
            )?;
            (start, end)
        }
        Some(None) => {
            write!(
                out,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n"
            )?;
            return Ok(true);
        }
    };
    if method == "HEAD" {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(start))?;
    let stop = match fault {
        Some(Fault::StallAfter(n) | Fault::CloseAfter(n)) => end.min(start.saturating_add(n)),
        _ => end,
    };
    let mut buf = [0; 16 << 10];
    let mut at = start;
    while at < stop {
        let n = usize::try_from(stop - at).map_or(buf.len(), |left| left.min(buf.len()));
        file.read_exact(&mut buf[..n])?;
        if let Some(Fault::Corrupt(offset)) = fault
            && let Some(index) = offset.checked_sub(at).and_then(|i| usize::try_from(i).ok())
            && let Some(byte) = buf[..n].get_mut(index)
        {
            *byte = !*byte;
        }
        out.write_all(&buf[..n])?;
        at += n as u64;
    }
    out.flush()?;
    if matches!(fault, Some(Fault::StallAfter(_))) {
        while !state.stop.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(stop == end)
}

/// `a-b`, `a-` or `-n` as a half-open byte range; `None` when it lies outside the file.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.split_once('-')?;
    let (start, end) = if from.is_empty() {
        (size.saturating_sub(to.parse().ok()?), size)
    } else {
        let end = if to.is_empty() {
            size
        } else {
            to.parse::<u64>().ok()?.saturating_add(1).min(size)
        };
        (from.parse().ok()?, end)
    };
    (start < end).then_some((start, end))
}

/// The file of a URL path; `None` for paths that lead out of the root.
fn local_path(root: &Path, url_path: &str) -> Option<PathBuf> {
    let path = url_path.split(['?', '#']).next()?.trim_start_matches('/');
    let path = percent_decode(path)?;
    let inside = Path::new(&path)
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    inside.then(|| root.join(path))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &FileServer, path: &str, range: Option<&str>) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let range = range
            .map(|r| format!("Range: bytes={r}\r\n"))
            .unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{range}\r\n").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let body = all.split_off(split + 4);
        (
            String::from_utf8(all)
                .unwrap()
                .lines()
                .next()
                .unwrap()
                .to_owned(),
            body,
        )
    }

    #[test]
    fn files_ranges_and_faults() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("f+x"), b"0123456789").unwrap();
        let server = FileServer::start(dir.path());
        let all = b"0123456789".to_vec();
        assert_eq!(
            get(&server, "/f%2bx", None),
            ("HTTP/1.1 200 OK".into(), all.clone())
        );
        assert_eq!(
            get(&server, "/f+x", Some("4-")),
            ("HTTP/1.1 206 Partial Content".into(), b"456789".to_vec())
        );
        assert_eq!(
            get(&server, "/f+x", Some("10-")).0,
            "HTTP/1.1 416 Range Not Satisfiable"
        );
        assert_eq!(get(&server, "/../f+x", None).0, "HTTP/1.1 404 Not Found");
        server.fault("f+x", Fault::CloseAfter(3), 1);
        server.fault("f+x", Fault::StallAfter(2), 1);
        server.fault("f+x", Fault::Corrupt(1), 1);
        server.fault("f+x", Fault::Status(503), 1);
        server.fault("f+x", Fault::NoRange, 1);
        assert_eq!(get(&server, "/f+x", None).1, b"012");
        assert_eq!(get(&server, "/f+x", None).1, b"01");
        assert_eq!(
            get(&server, "/f+x", None).1,
            [b"0", &[!b'1'][..], b"23456789"].concat()
        );
        assert_eq!(get(&server, "/f+x", None).0, "HTTP/1.1 503 Fault");
        assert_eq!(
            get(&server, "/f+x", Some("4-")),
            ("HTTP/1.1 200 OK".into(), all.clone())
        );
        assert_eq!(get(&server, "/f+x", None).1, all);
        assert_eq!(server.requests()[1], "GET /f+x 4-");
    }
}
