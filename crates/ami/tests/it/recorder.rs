//! A local EC2 (moto) behind a relay that keeps every request: moto forgets most of what it is
//! told, so what the command line *sent* is compared as well as what moto answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use amiforge_testkit::venv_program;

pub(crate) struct Ec2 {
    moto: Child,
    pub(crate) endpoint: String,
    requests: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    home: tempfile::TempDir,
}

impl Ec2 {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut moto = Command::new(venv_program("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(moto.stderr.take().unwrap()).lines();
        let upstream = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("Running on http://")?.1.trim().to_owned()))
            .expect("moto_server says where it listens");
        // Somebody has to read the rest, or moto stops when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sink = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (sink, upstream) = (sink.clone(), upstream.clone());
                std::thread::spawn(move || relay(client, &upstream, &sink));
            }
        });
        Self {
            moto,
            endpoint,
            requests,
            home,
        }
    }

    /// Runs `aws ec2 <args>` and returns its JSON.
    pub(crate) fn aws(&self, args: &[&str]) -> serde_json::Value {
        let output = Command::new(venv_program("aws"))
            .arg("ec2")
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("AWS_DEFAULT_OUTPUT", "json")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_MAX_ATTEMPTS", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "aws ec2 {args:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null)
    }

    /// The last request with this `Action`, as its form fields.
    pub(crate) fn request(&self, action: &str) -> BTreeMap<String, String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .rev()
            .find(|r| r["Action"] == action)
            .expect("the request was made")
            .clone()
    }
}

impl Drop for Ec2 {
    fn drop(&mut self) {
        let _ = self.moto.kill();
        let _ = self.moto.wait();
    }
}

/// One request, one answer, one connection.
fn relay(client: TcpStream, upstream: &str, sink: &Mutex<Vec<BTreeMap<String, String>>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if !lower.starts_with("connection:") {
            head.extend(line.into_bytes());
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    sink.lock().unwrap().push(form(&body));

    let mut server = TcpStream::connect(upstream).unwrap();
    head.extend(b"Connection: close\r\n\r\n");
    server.write_all(&head).unwrap();
    server.write_all(&body).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let mut client = client;
    let _ = client.write_all(&answer);
}

/// Fields of `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(body).unwrap();
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}
