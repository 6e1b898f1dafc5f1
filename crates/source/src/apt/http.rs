//! Bytes from an archive: http, https or a local folder, checked, resumed, retried.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amiforge_types::{Digest, Hasher};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use super::config::AptConfig;
use crate::{Context, SourceError, SourceEvent};

/// How long is waited, and how often tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a connection, and for the head of an answer.
    pub(crate) answer: Duration,
    /// For the body in one attempt. An attempt that brought something is not a failed one, so this
    /// does not limit how long a large file may take.
    pub(crate) body: Duration,
    /// Failed attempts before it is given up.
    pub(crate) attempts: u32,
    /// Pause after the first failure; doubles with each.
    pub(crate) pause: Duration,
}

impl Patience {
    /// For real archives.
    pub(crate) const NORMAL: Self = Self {
        answer: Duration::from_secs(20),
        body: Duration::from_secs(45),
        attempts: 5,
        pause: Duration::from_millis(400),
    };
}

/// An attempt that brought at least this many bytes does not count as a failed one.
const PROGRESS: u64 = 256 << 10;

/// A client for the archives of one operation.
pub(crate) struct Client<'a> {
    ctx: Context<'a>,
    config: &'a AptConfig,
    patience: Patience,
    agents: Mutex<Vec<(String, Agent)>>,
    stop: AtomicBool,
}

/// How many bytes a file has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// This many.
    Exactly(u64),
    /// No index says it, and this many are too many for any.
    AtMost(u64),
}

impl Length {
    /// The most bytes that it may have.
    fn most(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtMost(bytes) => bytes,
        }
    }

    /// Whether a finished file is at this path.
    fn is_of(self, path: &Path) -> bool {
        match self {
            Self::Exactly(whole) => has_size(path, whole),
            Self::AtMost(_) => path.is_file(),
        }
    }
}

/// What makes a later request conditional.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

/// The answer to a conditional request.
pub(crate) enum Small {
    NotModified,
    Body(Vec<u8>, Validators),
    NotFound,
}

/// Why one attempt failed.
enum Failure {
    /// Try again, after this much arrived.
    Passing(String, u64),
    /// Do not.
    Final(SourceError),
    /// The server has no such file.
    NotFound,
}

impl<'a> Client<'a> {
    pub(crate) fn new(ctx: Context<'a>, config: &'a AptConfig, patience: Patience) -> Self {
        Self {
            ctx,
            config,
            patience,
            agents: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        }
    }

    pub(crate) fn context(&self) -> &Context<'a> {
        &self.ctx
    }

    /// Makes transfers under way and later ones end soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A small file, unless it is unchanged since `known`.
    pub(crate) fn small(
        &self,
        uri: &str,
        known: &Validators,
        limit: u64,
    ) -> Result<Small, SourceError> {
        if let Some(path) = local(uri) {
            return match read_limited(&path, limit) {
                Ok(bytes) => Ok(Small::Body(bytes, Validators::default())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Small::NotFound),
                Err(e) => Err(SourceError::io(path, e)),
            };
        }
        self.retrying(uri, || {
            let mut request = self
                .agent(uri)?
                .get(uri)
                .header("Cache-Control", "max-age=0");
            if let Some(etag) = &known.etag {
                request = request.header("If-None-Match", etag);
            }
            if let Some(time) = &known.last_modified {
                request = request.header("If-Modified-Since", time);
            }
            let mut response = request
                .call()
                .map_err(|e| Failure::Passing(e.to_string(), 0))?;
            match response.status().as_u16() {
                304 if *known != Validators::default() => return Ok(Small::NotModified),
                404 | 410 => return Ok(Small::NotFound),
                200 => {}
                status => return Err(refused(uri, status)),
            }
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned)
            };
            let validators = Validators {
                etag: header("etag"),
                last_modified: header("last-modified"),
            };
            let promised: Option<u64> = header("content-length").and_then(|v| v.parse().ok());
            let mut bytes = Vec::new();
            let read = response
                .body_mut()
                .as_reader()
                .take(limit + 1)
                .read_to_end(&mut bytes);
            read.map_err(|e| Failure::Passing(e.to_string(), 0))?;
            let got = bytes.len() as u64;
            if got > limit {
                return Err(Failure::Final(SourceError::malformed(
                    uri,
                    format!("larger than {limit} bytes"),
                )));
            }
            if promised.is_some_and(|p| p != got) {
                return Err(Failure::Passing(format!("ended after {got} bytes"), 0));
            }
            Ok(Small::Body(bytes, validators))
        })
        .map(|small| small.unwrap_or(Small::NotFound))
    }

    /// Brings a file of known digest to `dest`, by way of `<dest>.partial`. Gives the bytes
    /// that were transferred, or `None` when the server has no such file.
    pub(crate) fn file(
        &self,
        uri: &str,
        dest: &Path,
        length: Length,
        digest: Digest,
        progress: &dyn Fn(u64),
    ) -> Result<Option<u64>, SourceError> {
        let partial = dest.with_extension("partial");
        let io = |e| SourceError::io(&partial, e);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(io)?;
        // Another build may be fetching the same file.
        file.lock().map_err(io)?;
        if length.is_of(dest) {
            let _ = std::fs::remove_file(&partial);
            return Ok(Some(0));
        }
        let mut transferred = 0;
        let mut mismatches = 0;
        let done = self.retrying(uri, || {
            let mut have = file.metadata().map_err(|e| Failure::Final(io(e)))?.len();
            if have > length.most() {
                file.set_len(0).map_err(|e| Failure::Final(io(e)))?;
                have = 0;
            }
            let before = have;
            let result = self.append(uri, &partial, &mut file, &mut have, length, progress);
            let gained = have.saturating_sub(before);
            transferred += gained;
            result.map_err(|failure| match failure {
                Failure::Passing(reason, _) => Failure::Passing(reason, gained),
                other => other,
            })?;
            let got = hash(&mut file).map_err(|e| Failure::Final(io(e)))?;
            if got == digest {
                return Ok(());
            }
            file.set_len(0).map_err(|e| Failure::Final(io(e)))?;
            // Once may be a garbled resumption; twice is what the server has.
            mismatches += 1;
            let error = SourceError::Digest {
                uri: uri.to_owned(),
                expected: digest,
                got,
            };
            Err(if mismatches > 1 {
                Failure::Final(error)
            } else {
                Failure::Passing(error.to_string(), 0)
            })
        })?;
        if done.is_none() {
            let _ = std::fs::remove_file(&partial);
            return Ok(None);
        }
        file.sync_data().map_err(io)?;
        fs_err::rename(&partial, dest).map_err(io)?;
        Ok(Some(transferred))
    }

    /// Transfers from the end of `file`, which is at `partial`, on.
    fn append(
        &self,
        uri: &str,
        partial: &Path,
        file: &mut File,
        have: &mut u64,
        length: Length,
        progress: &dyn Fn(u64),
    ) -> Result<(), Failure> {
        let on_disk = |e: std::io::Error| Failure::Final(SourceError::io(partial, e));
        if let Length::Exactly(size) = length
            && *have == size
            && size > 0
        {
            return Ok(());
        }
        let size = length.most();
        // Where the answer says how long it is, that is how long the file is.
        let mut promised = None;
        let mut source: Box<dyn Read> = match local(uri) {
            Some(path) => {
                let mut source = match File::open(&path) {
                    Ok(source) => source,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        return Err(Failure::NotFound);
                    }
                    Err(e) => return Err(Failure::Final(SourceError::io(path, e))),
                };
                source
                    .seek(SeekFrom::Start(*have))
                    .map_err(|e| Failure::Final(SourceError::io(&path, e)))?;
                Box::new(source)
            }
            None => {
                let mut request = self.agent(uri)?.get(uri);
                if *have > 0 {
                    request = request.header("Range", format!("bytes={have}-"));
                }
                let response = request
                    .call()
                    .map_err(|e| Failure::Passing(e.to_string(), 0))?;
                match response.status().as_u16() {
                    206 if *have > 0 => {
                        let range = response
                            .headers()
                            .get("content-range")
                            .and_then(|v| v.to_str().ok());
                        if !range.is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) {
                            file.set_len(0).map_err(on_disk)?;
                            return Err(Failure::Passing(
                                "the server sent another range than asked for".to_owned(),
                                0,
                            ));
                        }
                    }
                    200 => {
                        // The server does not resume.
                        file.set_len(0).map_err(on_disk)?;
                        *have = 0;
                    }
                    404 | 410 => return Err(Failure::NotFound),
                    416 => {
                        file.set_len(0).map_err(on_disk)?;
                        return Err(Failure::Passing(
                            "the server cannot resume here".to_owned(),
                            0,
                        ));
                    }
                    status => return Err(refused(uri, status)),
                }
                let body = response.headers().get("content-length");
                let body: Option<u64> = body.and_then(|v| v.to_str().ok()?.parse().ok());
                promised = body.and_then(|body| body.checked_add(*have));
                Box::new(response.into_body().into_reader())
            }
        };
        file.seek(SeekFrom::Start(*have)).map_err(on_disk)?;
        let mut buf = vec![0; 128 << 10];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::Final(SourceError::Download {
                    uri: uri.to_owned(),
                    reason: "stopped".to_owned(),
                }));
            }
            let n = match source.read(&mut buf) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Failure::Passing(
                        format!("{e} after {have} of {size} bytes"),
                        0,
                    ));
                }
            };
            if n == 0 {
                break;
            }
            if *have + n as u64 > size {
                file.set_len(0).map_err(on_disk)?;
                *have = 0;
                return Err(Failure::Passing(
                    match length {
                        Length::Exactly(_) => {
                            format!("more than the {size} bytes of the index arrived")
                        }
                        Length::AtMost(_) => format!("it is larger than {size} bytes"),
                    },
                    0,
                ));
            }
            file.write_all(&buf[..n]).map_err(on_disk)?;
            *have += n as u64;
            progress(n as u64);
        }
        let whole = match length {
            Length::Exactly(size) => Some(size),
            Length::AtMost(_) => promised,
        };
        match whole {
            Some(whole) if *have != whole => Err(Failure::Passing(
                format!("ended after {have} of {whole} bytes"),
                0,
            )),
            _ => Ok(()),
        }
    }

    /// Runs attempts until one succeeds; `None` when the server has no such file.
    fn retrying<T>(
        &self,
        uri: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<Option<T>, SourceError> {
        if self.ctx.offline && local(uri).is_none() {
            return Err(SourceError::Offline {
                what: uri.to_owned(),
            });
        }
        let mut failed = 0;
        loop {
            let (reason, gained) = match attempt() {
                Ok(done) => return Ok(Some(done)),
                Err(Failure::NotFound) => return Ok(None),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason, gained)) => (reason, gained),
            };
            failed = if gained >= PROGRESS { 1 } else { failed + 1 };
            if failed >= self.patience.attempts
                || local(uri).is_some()
                || self.stop.load(Ordering::Relaxed)
            {
                return Err(SourceError::Download {
                    uri: uri.to_owned(),
                    reason,
                });
            }
            (self.ctx.events)(SourceEvent::Retry {
                uri: uri.to_owned(),
                attempt: failed,
                reason,
            });
            std::thread::sleep(self.patience.pause * 2u32.saturating_pow(failed - 1).min(32));
        }
    }

    /// The agent for an address: its proxy as apt would choose it.
    fn agent(&self, uri: &str) -> Result<Agent, Failure> {
        let scheme = if uri.starts_with("https:") {
            "https"
        } else {
            "http"
        };
        let host = uri
            .split("://")
            .nth(1)
            .and_then(|r| r.split('/').next())
            .unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let get = |name: String| self.config.get(&name).map(str::to_owned);
        let proxy = get(format!("Acquire::{scheme}::Proxy::{host}"))
            .or_else(|| get(format!("Acquire::{scheme}::Proxy")))
            .or_else(|| {
                if scheme == "https" {
                    get("Acquire::http::Proxy".to_owned())
                } else {
                    None
                }
            })
            .or_else(|| self.ctx.proxy.map(str::to_owned))
            .filter(|p| {
                !p.is_empty()
                    && !p.eq_ignore_ascii_case("DIRECT")
                    && !p.eq_ignore_ascii_case("false")
            });
        let key = format!("{scheme} {}", proxy.as_deref().unwrap_or_default());
        let mut agents = self
            .agents
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, agent)) = agents.iter().find(|(k, _)| *k == key) {
            return Ok(agent.clone());
        }
        let proxy = match proxy {
            Some(proxy) => Some(ureq::Proxy::new(&proxy).map_err(|e| {
                Failure::Final(SourceError::Download {
                    uri: uri.to_owned(),
                    reason: format!("proxy {proxy}: {e}"),
                })
            })?),
            None => None,
        };
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(8)
            .user_agent("amiforge")
            .proxy(proxy)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(self.patience.answer))
            .timeout_recv_response(Some(self.patience.answer))
            .timeout_recv_body(Some(self.patience.body));
        if scheme == "https"
            && let Some(roots) = self.host_roots()
        {
            builder = builder.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let agent: Agent = builder.build().into();
        agents.push((key, agent.clone()));
        Ok(agent)
    }

    /// The certificate authorities the host trusts, so that a private mirror works; `None` leaves the
    /// built-in ones.
    fn host_roots(&self) -> Option<RootCerts> {
        let pem =
            std::fs::read(self.ctx.host_root.join("etc/ssl/certs/ca-certificates.crt")).ok()?;
        let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        (!certificates.is_empty()).then(|| certificates.into())
    }
}

fn refused(uri: &str, status: u16) -> Failure {
    let reason = format!("the server answered {status}");
    match status {
        408 | 425 | 429 | 500..=599 => Failure::Passing(reason, 0),
        _ => Failure::Final(SourceError::Download {
            uri: uri.to_owned(),
            reason,
        }),
    }
}

/// The path of a `file:` address.
fn local(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix("file://").map(PathBuf::from)
}

/// True when the address is of this machine.
pub(crate) fn is_local(uri: &str) -> bool {
    local(uri).is_some()
}

pub(crate) fn has_size(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == size)
}

fn read_limited(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {limit} bytes"),
        )),
        false => Ok(bytes),
    }
}

pub(crate) fn hash(file: &mut File) -> std::io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match file.read(&mut buf)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buf[..n]),
        }
    }
}
