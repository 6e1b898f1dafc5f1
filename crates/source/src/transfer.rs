//! What every download has: attempts and their pauses, files that are resumed, checked and only then named.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use amiforge_proxy::Forward;
use amiforge_types::{Digest, Hasher};
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts};
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, Body};

use crate::proxy::{AtProxy, Route};
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

/// Why one attempt failed.
pub(crate) enum Failure {
    /// Try again, after this much arrived.
    Passing(String, u64),
    /// Try again, from the first byte.
    Restart(String),
    /// Do not.
    Final(SourceError),
    /// The server has no such file.
    NotFound,
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

/// A file of known digest.
pub(crate) struct Wanted<'a> {
    /// Its address, as errors name it.
    pub(crate) uri: &'a str,
    /// Where it goes, by way of `<dest>.partial`.
    pub(crate) dest: &'a Path,
    /// Its size.
    pub(crate) length: Length,
    /// Digest.
    pub(crate) digest: Digest,
}

/// What a server sends of a file.
pub(crate) struct Part {
    pub(crate) reader: Box<dyn Read>,
    /// It begins where the file here ends, and not at the first byte.
    pub(crate) resumed: bool,
    /// How many bytes it has, where the server says so.
    pub(crate) promised: Option<u64>,
}

/// The downloads of one operation.
pub(crate) struct Transfer<'a> {
    pub(crate) ctx: Context<'a>,
    pub(crate) patience: Patience,
    stop: AtomicBool,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(ctx: Context<'a>, patience: Patience) -> Self {
        Self {
            ctx,
            patience,
            stop: AtomicBool::new(false),
        }
    }

    /// Makes transfers under way and later ones end soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Brings every item by `one`, `threads` at a time, and tells how much of `total` bytes has arrived. The bytes that
    /// came over the network.
    ///
    /// # Errors
    /// That of the first item that failed, which ends the others.
    pub(crate) fn together<T: Sync>(
        &self,
        items: &[T],
        threads: usize,
        total: u64,
        one: impl Fn(&T, &(dyn Fn(u64) + Sync)) -> Result<u64, SourceError> + Sync,
    ) -> Result<u64, SourceError> {
        let tell = |bytes| (self.ctx.events)(SourceEvent::FetchProgress { bytes, total });
        let (arrived, transferred) = (AtomicU64::new(0), AtomicU64::new(0));
        let reported = AtomicU64::new(0);
        let progress = |n: u64| {
            let bytes = arrived.fetch_add(n, Ordering::Relaxed) + n;
            // One event for each half percent is enough for any bar.
            let step = bytes / (total / 200).max(1);
            if reported.fetch_max(step, Ordering::Relaxed) < step {
                tell(bytes.min(total));
            }
        };
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<SourceError>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(items.len()) {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match one(item, &progress) {
                            Ok(n) => {
                                transferred.fetch_add(n, Ordering::Relaxed);
                            }
                            Err(error) => {
                                // The others end because of this one; its reason is the one to tell, so it is
                                // there before they are told to stop.
                                failure
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .get_or_insert(error);
                                self.stop();
                                next.store(items.len(), Ordering::Relaxed);
                                return;
                            }
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                tell(total);
                Ok(transferred.into_inner())
            }
        }
    }

    /// Runs attempts until one succeeds; `None` when the server has no such file. One that is `here`
    /// needs no network, and is tried once.
    pub(crate) fn retrying<T>(
        &self,
        uri: &str,
        here: bool,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<Option<T>, SourceError> {
        if self.ctx.offline && !here {
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
                Err(Failure::Restart(reason)) => (reason, 0),
                Err(Failure::Passing(reason, gained)) => (reason, gained),
            };
            failed = if gained >= PROGRESS { 1 } else { failed + 1 };
            if failed >= self.patience.attempts || here || self.is_stopped() {
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

    /// Brings a file; `open` asks for it from an offset on. Gives the bytes that were transferred, or `None`
    /// when the server has no such file.
    pub(crate) fn file(
        &self,
        wanted: &Wanted<'_>,
        here: bool,
        open: &dyn Fn(u64) -> Result<Part, Failure>,
        progress: &dyn Fn(u64),
    ) -> Result<Option<u64>, SourceError> {
        let partial = wanted.dest.with_extension("partial");
        let io = |e| SourceError::io(&partial, e);
        let on_disk = |e| Failure::Final(io(e));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(io)?;
        // Another build may be fetching the same file.
        file.lock().map_err(io)?;
        if wanted.length.is_of(wanted.dest) {
            let _ = std::fs::remove_file(&partial);
            return Ok(Some(0));
        }
        let mut transferred = 0;
        let mut mismatches = 0;
        let done = self.retrying(wanted.uri, here, || {
            let mut have = file.metadata().map_err(on_disk)?.len();
            if have > wanted.length.most() {
                file.set_len(0).map_err(on_disk)?;
                have = 0;
            }
            let before = have;
            let result = self.append(wanted, &mut file, &mut have, open, progress);
            let gained = have.saturating_sub(before);
            transferred += gained;
            match result {
                Ok(()) => {}
                Err(Failure::Passing(reason, _)) => return Err(Failure::Passing(reason, gained)),
                Err(Failure::Restart(reason)) => {
                    file.set_len(0).map_err(on_disk)?;
                    return Err(Failure::Restart(reason));
                }
                Err(other) => return Err(other),
            }
            let got = hash(&mut file).map_err(on_disk)?;
            if got == wanted.digest {
                return Ok(());
            }
            file.set_len(0).map_err(on_disk)?;
            // Once may be a garbled resumption; twice is what the server has.
            mismatches += 1;
            let error = SourceError::Digest {
                uri: wanted.uri.to_owned(),
                expected: wanted.digest,
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
        fs_err::rename(&partial, wanted.dest).map_err(io)?;
        Ok(Some(transferred))
    }

    /// Transfers from the end of `file` on.
    fn append(
        &self,
        wanted: &Wanted<'_>,
        file: &mut File,
        have: &mut u64,
        open: &dyn Fn(u64) -> Result<Part, Failure>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Failure> {
        let on_disk = |e: std::io::Error| {
            Failure::Final(SourceError::io(wanted.dest.with_extension("partial"), e))
        };
        if let Length::Exactly(size) = wanted.length
            && *have == size
            && size > 0
        {
            return Ok(());
        }
        let size = wanted.length.most();
        let Part {
            mut reader,
            resumed,
            promised,
        } = open(*have)?;
        if !resumed {
            file.set_len(0).map_err(on_disk)?;
            *have = 0;
        }
        // Where the answer says how long it is, that is how long the file is.
        let whole = match wanted.length {
            Length::Exactly(size) => Some(size),
            Length::AtMost(_) => promised.and_then(|n| n.checked_add(*have)),
        };
        file.seek(SeekFrom::Start(*have)).map_err(on_disk)?;
        let mut buf = vec![0; 128 << 10];
        loop {
            if self.is_stopped() {
                return Err(Failure::Final(SourceError::Download {
                    uri: wanted.uri.to_owned(),
                    reason: "stopped".to_owned(),
                }));
            }
            let n = match reader.read(&mut buf) {
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
                *have = 0;
                return Err(Failure::Restart(match wanted.length {
                    Length::Exactly(_) => format!("more than the promised {size} bytes arrived"),
                    Length::AtMost(_) => format!("it is larger than {size} bytes"),
                }));
            }
            file.write_all(&buf[..n]).map_err(on_disk)?;
            *have += n as u64;
            progress(n as u64);
        }
        match whole {
            Some(whole) if *have != whole => Err(Failure::Passing(
                format!("ended after {have} of {whole} bytes"),
                0,
            )),
            _ => Ok(()),
        }
    }

    /// An agent that follows at most `redirects`, and hands out the last answer whatever its status.
    pub(crate) fn agent(&self, route: Route, redirects: u32, tls: bool) -> Agent {
        let (tunnel, forward) = match route {
            Route::Direct => (None, None),
            Route::Tunnel(proxy) => (Some(proxy), None),
            Route::Forward { proxy, .. } => (None, Some(proxy)),
        };
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(redirects)
            .max_redirects_will_error(redirects > 0)
            .user_agent("amiforge")
            .proxy(tunnel)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(self.patience.answer))
            .timeout_recv_response(Some(self.patience.answer))
            .timeout_recv_body(Some(self.patience.body));
        if tls && let Some(roots) = host_roots(self.ctx.host_root) {
            let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
            builder = builder.tls_config(tls);
        }
        let config = builder.build();
        match forward {
            None => config.into(),
            Some(proxy) => {
                let connector = DefaultConnector::new().chain(Forward);
                Agent::with_parts(config, connector, AtProxy(proxy))
            }
        }
    }
}

/// The certificate authorities the host trusts, so that a private mirror works; `None` leaves the
/// built-in ones.
fn host_roots(host_root: &Path) -> Option<RootCerts> {
    let pem = std::fs::read(host_root.join("etc/ssl/certs/ca-certificates.crt")).ok()?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then(|| certificates.into())
}

/// The body of the answer to a request for a file of which the first `have` bytes are here.
pub(crate) fn part(uri: &str, response: Response<Body>, have: u64) -> Result<Part, Failure> {
    let resumed = match response.status().as_u16() {
        206 if have > 0 => {
            let range = header(&response, "content-range");
            if !range.is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) {
                return Err(Failure::Restart(
                    "the server sent another range than asked for".to_owned(),
                ));
            }
            true
        }
        // With a range asked for: the server does not resume.
        200 => false,
        404 | 410 => return Err(Failure::NotFound),
        416 => return Err(Failure::Restart("the server cannot resume here".to_owned())),
        status => return Err(refused(uri, status)),
    };
    let promised = header(&response, "content-length").and_then(|v| v.parse().ok());
    Ok(Part {
        reader: Box::new(response.into_body().into_reader()),
        resumed,
        promised,
    })
}

/// A header of an answer, if it is text.
pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|v| v.to_str().ok())
}

/// The whole body, if it is no longer than `limit` and as long as promised.
pub(crate) fn whole(
    uri: &str,
    response: &mut Response<Body>,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    let promised: Option<u64> = header(response, "content-length").and_then(|v| v.parse().ok());
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
    Ok(bytes)
}

/// A status that is no success: whether another attempt may help.
pub(crate) fn refused(uri: &str, status: u16) -> Failure {
    let reason = format!("the server answered {status}");
    match status {
        408 | 425 | 429 | 500..=599 => Failure::Passing(reason, 0),
        _ => Failure::Final(SourceError::Download {
            uri: uri.to_owned(),
            reason,
        }),
    }
}

pub(crate) fn has_size(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == size)
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
