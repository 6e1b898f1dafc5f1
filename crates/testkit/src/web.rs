//! A web server that misbehaves on request, made of Python's `http.server`; and S3, made of moto. Both
//! are others' code, so that our client does not only agree with us.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::env::workspace_root;
use crate::process::{run, tool};

const PROGRAM: &str = include_str!("web.py");

/// What is served below `/file/` and wherever all goes well.
pub const WEB_CONTENT: &str = "the content\n";

/// A server on 127.0.0.1 whose paths say how it behaves (see `web.py`). It also is a proxy, to which
/// every host is itself. It ends when dropped.
pub struct WebServer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
    secure: bool,
}

impl WebServer {
    /// Over plain HTTP.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::spawn(false)
    }

    /// Over TLS, with a certificate of its own for `localhost` and 127.0.0.1 that nobody signed.
    #[must_use]
    #[track_caller]
    pub fn secure() -> Self {
        Self::spawn(true)
    }

    #[track_caller]
    fn spawn(secure: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut command = tool("python3");
        command.arg("-c").arg(PROGRAM).arg(dir.path());
        if secure {
            let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
            run(tool("openssl")
                .args([
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-sha256",
                ])
                .args(["-subj", "/CN=localhost", "-addext", names])
                .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate));
            command.arg(certificate).arg(key);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a line with the port");
        let port = line.trim().parse().expect("the port of the web server");
        Self {
            child,
            port,
            dir,
            secure,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a path, which starts with `/`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Requests so far: method, target, `Authorization` or `Proxy-Authorization`, else `-`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = fs_err::read_to_string(self.dir.path().join("requests")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the Python environment that `cargo xtask setup test` makes; panics with what to do when
/// it is not there.
#[must_use]
#[track_caller]
pub fn venv_program(name: &str) -> PathBuf {
    let venv = std::env::var_os("AMIFORGE_TEST_VENV").map_or_else(
        || workspace_root().join("target/tools/aws-venv"),
        PathBuf::from,
    );
    let program = venv.join("bin").join(name);
    assert!(
        program.is_file(),
        "{} is missing; run `cargo xtask setup test`, or\n  python3 -m venv {2} && {2}/bin/pip install -r {1}",
        program.display(),
        workspace_root().join("xtask/requirements.txt").display(),
        venv.display(),
    );
    program
}

/// S3 on 127.0.0.1, empty at first. It ends when dropped.
pub struct S3Server {
    child: Child,
    endpoint: String,
    home: tempfile::TempDir,
}

impl S3Server {
    /// Starts moto. `env` are variables for it.
    #[must_use]
    #[track_caller]
    pub fn start(env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(venv_program("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("PYTHONUNBUFFERED", "1")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let endpoint = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let at = line.find("http://127.0.0.1:")?;
                Some(line[at..].trim_end().to_owned())
            })
            .expect("moto says where it listens");
        // Somebody has to read the rest, or it stops when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            child,
            endpoint,
            home,
        }
    }

    /// URL of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The AWS command line, asking this S3.
    #[must_use]
    #[track_caller]
    pub fn aws(&self, args: &[&str]) -> Command {
        let mut command = Command::new(venv_program("aws"));
        command
            .args(["--endpoint-url", &self.endpoint, "--region", "us-east-1"])
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .stdin(Stdio::null());
        command
    }

    /// Puts a file into a bucket by the AWS command line.
    #[track_caller]
    pub fn put(&self, file: &Path, uri: &str) {
        run(self.aws(&["s3", "cp", "--quiet"]).arg(file).arg(uri));
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
