use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::metadata;
use crate::imds::http::{HttpError, read_request};
use crate::imds::relay::join;
use crate::imds::{ImdsServer, Request, Service};

fn read(text: &[u8]) -> Result<Option<Request>, u16> {
    read_request(&mut &*text).map_err(|e| match e {
        HttpError::Status(status) => status,
        HttpError::Io(e) => panic!("{e}"),
    })
}

#[test]
fn requests_are_read() {
    let request = read(
        b"\r\nPUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-A:  b \t\r\nContent-Length: 3\r\n\r\nabcGET",
    );
    let request = request.unwrap().unwrap();
    assert_eq!(request.method, "PUT");
    assert_eq!(request.target, "/latest/api/token");
    assert_eq!(request.header("x-a"), Some("b"));
    assert!(request.keep_alive);
    for (head, target, keep) in [
        ("GET / HTTP/1.0\n", "/", false),
        ("GET / HTTP/1.0\nConnection: Keep-Alive\n", "/", true),
        ("GET / HTTP/1.1\nConnection: x, CLOSE\n", "/", false),
        ("GET http://169.254.169.254/a?b HTTP/1.1\n", "/a?b", true),
        ("GET HTTP://169.254.169.254 HTTP/1.1\n", "/", true),
        ("GET /\u{fc} HTTP/1.1\n", "/\u{fc}", true),
    ] {
        let request = read(format!("{head}\n").as_bytes()).unwrap().unwrap();
        assert_eq!(
            (request.target.as_str(), request.keep_alive),
            (target, keep)
        );
    }
    assert_eq!(read(b""), Ok(None));
    assert_eq!(read(b"\r\n"), Ok(None));
}

#[test]
fn what_is_no_request_is_refused() {
    let long = "a".repeat(20_000);
    let many = "a: b\r\n".repeat(65);
    for (text, status) in [
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".into(), 400),
        ("GET  / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1 x\r\n\r\n".into(), 400),
        ("G@T / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET x HTTP/1.1\r\n\r\n".into(), 400),
        ("GET https://a/ HTTP/1.1\r\n\r\n".into(), 400),
        ("GET * HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\n\r\n".into(), 505),
        ("GET / FTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\na : b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\na: \0\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\na: b\r\n".into(), 400),
        ("GET / HTTP/1.1".into(), 400),
        ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na".into(), 400),
        ("GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\na".into(), 400),
        (
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(),
            400,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n".into(),
            413,
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n".into(),
            413,
        ),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{long}: x\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
    ] {
        assert_eq!(read(text.as_bytes()), Err(status), "{text:.60}");
    }
    assert_eq!(read(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(400));
}

struct Running {
    dir: tempfile::TempDir,
    service: Arc<Mutex<Service>>,
    _server: ImdsServer,
}

impl Running {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("imds")).unwrap();
        let service = Arc::new(Mutex::new(Service::new(metadata(), [7; 32])));
        let server = ImdsServer::start(listener, service.clone()).unwrap();
        Self {
            dir,
            service,
            _server: server,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("imds")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
    }

    /// Everything that is answered to `text` and the end.
    fn ask(&self, text: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

const TOKEN_REQUEST: &str =
    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";

#[test]
fn one_connection_serves_several_requests() {
    let running = Running::new();
    let answer = running.ask(TOKEN_REQUEST);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nServer: EC2ws\r\nContent-Type: text/plain\r\n"));
    assert!(answer.contains("\r\nConnection: keep-alive\r\n"));
    let token = answer.rsplit("\r\n").next().unwrap();
    let get = |method: &str, more: &str| {
        format!(
            "{method} /latest/meta-data/mac HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n{more}\r\n"
        )
    };
    let several = [
        get("GET", ""),
        get("HEAD", ""),
        get("GET", "Connection: close\r\n"),
        get("GET", ""),
    ];
    let answer = running.ask(&several.concat());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(answer.matches("Content-Length: 17").count(), 3);
    assert_eq!(answer.matches("02:ab:cd:00:00:01").count(), 2);
    running
        .service
        .lock()
        .unwrap()
        .update(|m| m.mac = "02:00:00:00:00:02".into());
    assert!(running.ask(&get("GET", "")).ends_with("02:00:00:00:00:02"));
}

#[test]
fn nonsense_is_answered_and_ends_the_connection() {
    let running = Running::new();
    let answer = running.ask(&format!("nonsense\r\n\r\n{TOKEN_REQUEST}"));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1);
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(answer.contains("\r\nConnection: close\r\n"));
}

/// The guest's end of a relay, which is one socket for input and output, and the thread that relays.
fn relayed(
    service: UnixStream,
    idle: Duration,
) -> (UnixStream, thread::JoinHandle<std::io::Result<()>>) {
    let (guest, relay) = UnixStream::pair().unwrap();
    guest
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let thread = thread::spawn(move || join(relay.as_fd(), relay.as_fd(), &service, idle));
    (guest, thread)
}

#[test]
fn a_relay_carries_both_ways_and_ends_with_either() {
    let running = Running::new();
    let idle = Duration::from_secs(30);
    // The guest closes its half; the answer still comes.
    let (mut guest, thread) = relayed(running.connect(), idle);
    guest.write_all(TOKEN_REQUEST.as_bytes()).unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    guest.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    thread.join().unwrap().unwrap();
    // The service closes; the guest hears of it, and may go on for a moment.
    let (mut guest, thread) = relayed(running.connect(), idle);
    guest.write_all(b"nonsense\r\n\r\n").unwrap();
    let mut answer = String::new();
    guest.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"));
    let _ = guest.write_all(b"more");
    drop(guest);
    thread.join().unwrap().unwrap();
    // The guest is gone at once.
    let (guest, thread) = relayed(running.connect(), idle);
    drop(guest);
    thread.join().unwrap().unwrap();
    // Nothing happens.
    let (_guest, thread) = relayed(running.connect(), Duration::from_millis(50));
    thread.join().unwrap().unwrap();
}

#[test]
fn a_relay_carries_much() {
    let (service, mut other) = UnixStream::pair().unwrap();
    let (mut guest, thread) = relayed(service, Duration::from_secs(30));
    let much: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let sent = much.clone();
    let echo = thread::spawn(move || {
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        other.write_all(&all).unwrap();
    });
    let reader = guest.try_clone().unwrap();
    guest.write_all(&sent).unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    { reader }.read_to_end(&mut back).unwrap();
    assert!(back == much);
    echo.join().unwrap();
    thread.join().unwrap().unwrap();
}
