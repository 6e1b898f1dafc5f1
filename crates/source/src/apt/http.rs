//! Bytes from an archive: http, https or a local folder, checked, resumed, retried.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use amiforge_types::Digest;
use ureq::Agent;

use super::config::AptConfig;
use crate::transfer::{Failure, Part, Transfer, Wanted, header, part, refused, whole};
pub(crate) use crate::transfer::{Length, Patience, has_size, hash};
use crate::{Context, SourceError};

/// A client for the archives of one operation.
pub(crate) struct Client<'a> {
    transfer: Transfer<'a>,
    config: &'a AptConfig,
    agents: Mutex<Vec<(String, Agent)>>,
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

impl<'a> Client<'a> {
    pub(crate) fn new(ctx: Context<'a>, config: &'a AptConfig, patience: Patience) -> Self {
        Self {
            transfer: Transfer::new(ctx, patience),
            config,
            agents: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn context(&self) -> &Context<'a> {
        &self.transfer.ctx
    }

    /// What its downloads have in common with all others.
    pub(crate) fn transfer(&self) -> &Transfer<'a> {
        &self.transfer
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.transfer.is_stopped()
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
        let small = self.transfer.retrying(uri, false, || {
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
            let validators = Validators {
                etag: header(&response, "etag").map(str::to_owned),
                last_modified: header(&response, "last-modified").map(str::to_owned),
            };
            Ok(Small::Body(whole(uri, &mut response, limit)?, validators))
        })?;
        Ok(small.unwrap_or(Small::NotFound))
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
        let wanted = Wanted {
            uri,
            dest,
            length,
            digest,
        };
        let open = |have| self.open(uri, have);
        self.transfer.file(&wanted, is_local(uri), &open, progress)
    }

    /// A file from the offset `have` on.
    fn open(&self, uri: &str, have: u64) -> Result<Part, Failure> {
        let Some(path) = local(uri) else {
            let mut request = self.agent(uri)?.get(uri);
            if have > 0 {
                request = request.header("Range", format!("bytes={have}-"));
            }
            let response = request
                .call()
                .map_err(|e| Failure::Passing(e.to_string(), 0))?;
            return part(uri, response, have);
        };
        let mut source = match File::open(&path) {
            Ok(source) => source,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Failure::NotFound),
            Err(e) => return Err(Failure::Final(SourceError::io(path, e))),
        };
        source
            .seek(SeekFrom::Start(have))
            .map_err(|e| Failure::Final(SourceError::io(&path, e)))?;
        Ok(Part {
            reader: Box::new(source),
            resumed: true,
            promised: None,
        })
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
            .or_else(|| self.transfer.ctx.proxy.map(str::to_owned))
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
        let agent = self.transfer.agent(proxy, 8, scheme == "https");
        agents.push((key, agent.clone()));
        Ok(agent)
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
