//! A registry of container images, Debian's `docker-registry` on 127.0.0.1; and a server that answers what a test says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::http::read_headers;
use crate::process::{run, tool};

/// How a registry is set up.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// A file that `htpasswd -B` made: everything takes a login of it.
    pub htpasswd: Option<PathBuf>,
    /// Address of a token server, and the certificate of its key: everything takes a token of it, for the service
    /// `test` and of the issuer `test`.
    pub token: Option<(String, PathBuf)>,
    /// Certificate and key: TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A registry that is empty at first. It ends when dropped.
pub struct RegistryServer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl RegistryServer {
    /// Starts `docker-registry` with what it keeps in a folder of its own.
    #[must_use]
    #[track_caller]
    pub fn start(settings: &RegistrySettings) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut yaml = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp:\n  addr: 127.0.0.1:0\n  secret: test\n",
            dir.path().join("data")
        );
        let mut add = |args: std::fmt::Arguments<'_>| {
            yaml.write_fmt(args).expect("text in memory");
        };
        if let Some((certificate, key)) = &settings.tls {
            add(format_args!(
                "  tls: {{certificate: {certificate:?}, key: {key:?}}}\n"
            ));
        }
        if let Some(path) = &settings.htpasswd {
            add(format_args!(
                "auth: {{htpasswd: {{realm: test, path: {path:?}}}}}\n"
            ));
        }
        if let Some((realm, certificate)) = &settings.token {
            add(format_args!(
                "auth: {{token: {{realm: {realm:?}, service: test, issuer: test, rootcertbundle: {certificate:?}}}}}\n"
            ));
        }
        let config = dir.path().join("config.yml");
        fs_err::write(&config, yaml).expect("a file");
        let mut child = tool("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let stderr = child.stderr.take().expect("its messages");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let mut said = String::new();
        let port = loop {
            let Some(line) = lines.next() else {
                panic!("docker-registry does not listen:\n{said}");
            };
            let found = line.split_once("listening on 127.0.0.1:");
            if let Some((_, rest)) = found {
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
                break digits.and_then(|d| d.parse().ok()).expect("its port");
            }
            said.push_str(&line);
            said.push('\n');
        };
        // What nobody reads would stop it once the pipe is full.
        thread::spawn(move || lines.for_each(drop));
        Self { child, port, dir }
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it keeps what it has: `docker/registry/v2/blobs/…` below it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `skopeo copy` of an image to `name` here, `args` before the two; certificates are not checked.
    #[track_caller]
    pub fn push(&self, image: &str, name: &str, args: &[&str]) {
        let to = format!("docker://{}/{name}", self.host());
        run(tool("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
            ])
            .args(args)
            .arg(image)
            .arg(to));
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed certificate for `localhost`, 127.0.0.1 and the made-up `registry.test`, and its key, in a folder: `cert.pem`, `key.pem`.
#[track_caller]
pub fn self_signed(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    run(tool("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-sha256",
        ])
        .args(["-subj", "/CN=localhost", "-addext"])
        .args([
            "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:registry.test",
            "-addext",
        ])
        .args(["basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    (certificate, key)
}

/// A request that a [`ScriptServer`] got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a [`ScriptServer`] answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers; `Content-Length` is added where there is none.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A status, headers and a body.
    #[must_use]
    pub fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            body: body.into(),
        }
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// An HTTP server on a loopback address whose answers are a function's. It ends when dropped.
pub struct ScriptServer {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptServer {
    /// Answers on 127.0.0.1 with `script`.
    #[must_use]
    #[track_caller]
    pub fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, script)
    }

    /// The same on another loopback address.
    #[must_use]
    #[track_caller]
    pub fn start_at(
        address: Ipv4Addr,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port on the loopback interface");
        let address = listener.local_addr().expect("the port's address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (shared, ended) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (log, script) = (Arc::clone(&shared), Arc::clone(&script));
                // A client that goes away in the middle is its own business.
                thread::spawn(move || serve(&stream, &log, &*script));
            }
        });
        Self {
            address,
            log,
            stop,
            thread: Some(thread),
        }
    }

    /// Address and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for ScriptServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request for each connection.
fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Asked>>, script: &Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return Ok(());
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        // Who speaks TLS here is told at once that nobody else does.
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    let headers = read_headers(&mut reader)?;
    let len = headers.get("content-length").and_then(|v| v.parse().ok());
    let mut body = vec![0; len.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let asked = Asked {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body,
    };
    let answer = script(&asked);
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked);
    let mut head = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(n, _)| n == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)
}
