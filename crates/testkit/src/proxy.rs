//! An HTTP proxy on the loopback interface for which every host is one server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// A proxy on 127.0.0.1, one thread per connection. It stops when dropped.
pub struct ProxyServer {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProxyServer {
    /// Takes every request to the server at `target` (`host:port`), whatever host it names. Plain HTTP has to come with the
    /// whole address in its first line (RFC 9112, 3.2.2): as other proxies do, this one makes connections (`CONNECT`) to
    /// port 443 alone.
    #[must_use]
    #[track_caller]
    pub fn start(target: &str) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on the loopback interface");
        let address = listener.local_addr().expect("the port's address");
        let (log, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let (ours, ends, target) = (Arc::clone(&log), Arc::clone(&stop), target.to_owned());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (log, target) = (Arc::clone(&ours), target.clone());
                thread::spawn(move || {
                    // Who goes away in the middle is its own business.
                    let _ = serve(&stream, &target, &log);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self {
            address,
            log,
            stop,
            thread: Some(thread),
        }
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// First lines of requests so far without the version, and behind them who asked, where that was said.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }
}

impl Drop for ProxyServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(client: &TcpStream, target: &str, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let headers = crate::http::read_headers(&mut reader)?;
    let mut words = first.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let to = words.next().unwrap_or_default().to_owned();
    let who = headers.get("proxy-authorization");
    let who = who.map_or(String::new(), |who| format!(" {who}"));
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(format!("{method} {to}{who}"));
    let mut out = client;
    let refuse = |mut out: &TcpStream, status: &str| {
        write!(
            out,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    if method == "CONNECT" {
        if !to.ends_with(":443") {
            return refuse(out, "403 Forbidden");
        }
        let server = TcpStream::connect(target)?;
        write!(out, "HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut from, mut into) = (client.try_clone()?, server.try_clone()?);
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut into);
            let _ = into.shutdown(Shutdown::Write);
        });
        let mut server = server;
        let _ = std::io::copy(&mut server, &mut out);
        let _ = client.shutdown(Shutdown::Both);
        let _ = up.join();
        return Ok(());
    }
    let Some((_, path)) = to
        .strip_prefix("http://")
        .map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())))
    else {
        return refuse(out, "400 Bad Request");
    };
    let mut server = TcpStream::connect(target)?;
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| !name.starts_with("proxy-"))
    {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    server.write_all(request.as_bytes())?;
    server.shutdown(Shutdown::Write)?;
    let mut answer = BufReader::new(server);
    let mut status = String::new();
    answer.read_line(&mut status)?;
    // One request each: who asks again asks anew.
    write!(out, "{status}Connection: close\r\n")?;
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest)?;
    out.write_all(&rest)
}
