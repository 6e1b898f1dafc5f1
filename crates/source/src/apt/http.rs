//! Bytes from an archive: http, https or a local folder, checked, resumed, retried.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use amiforge_types::Digest;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::config::AptConfig;
use crate::proxy::Route;
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
            let mut headers = vec![("Cache-Control", "max-age=0")];
            let etag = known.etag.as_deref();
            headers.extend(etag.map(|etag| ("If-None-Match", etag)));
            let time = known.last_modified.as_deref();
            headers.extend(time.map(|time| ("If-Modified-Since", time)));
            let mut response = self.get(uri, &headers)?;
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
            let range = format!("bytes={have}-");
            let headers = (have > 0).then_some(("Range", range.as_str()));
            let response = self.get(uri, headers.as_slice())?;
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

    /// The answer at an address, behind its redirects: each may be asked through another proxy.
    fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let failed = |reason: String| {
            Failure::Final(SourceError::Download {
                uri: uri.to_owned(),
                reason,
            })
        };
        let mut at: Uri = uri
            .parse()
            .map_err(|_| failed("it is no address".to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let (agent, login) = self.agent(&at).map_err(failed)?;
            let mut request = agent.get(&at);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(login) = login {
                request = request.header("Proxy-Authorization", login);
            }
            let response = request
                .call()
                .map_err(|e| Failure::Passing(e.to_string(), 0))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let to = header(&response, "location").unwrap_or_default();
            at = redirected(&at, to)
                .ok_or_else(|| failed(format!("it leads to {to:?}, which is no address")))?;
        }
        Err(failed("there are too many redirects".to_owned()))
    }

    /// The agent for an address, and who we are to its proxy, which is the one that apt would choose.
    fn agent(&self, uri: &Uri) -> Result<(Agent, Option<String>), String> {
        let secure = uri.scheme_str() == Some("https");
        let scheme = if secure { "https" } else { "http" };
        let host = uri.host().unwrap_or_default();
        let get = |name: String| self.config.get(&name).map(str::to_owned);
        let proxies = self.transfer.ctx.proxies;
        let of_http = || {
            secure
                .then(|| get("Acquire::http::Proxy".to_owned()))
                .flatten()
        };
        let proxy = get(format!("Acquire::{scheme}::Proxy::{host}"))
            .or_else(|| get(format!("Acquire::{scheme}::Proxy")))
            .or_else(of_http)
            .or_else(|| proxies.find(uri).map(str::to_owned))
            .filter(|p| {
                !p.is_empty()
                    && !p.eq_ignore_ascii_case("DIRECT")
                    && !p.eq_ignore_ascii_case("false")
            })
            // Of apt's own proxies, too, as apt has it.
            .filter(|_| !proxies.excepts(uri));
        let route = match &proxy {
            Some(proxy) => Route::through(proxy, secure)?,
            None => Route::Direct,
        };
        let login = match &route {
            Route::Forward { login, .. } => login.clone(),
            Route::Direct | Route::Tunnel(_) => None,
        };
        let key = format!("{scheme} {}", proxy.unwrap_or_default());
        let mut agents = self
            .agents
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, agent)) = agents.iter().find(|(k, _)| *k == key) {
            return Ok((agent.clone(), login));
        }
        let agent = self.transfer.agent(route, 0, secure);
        agents.push((key, agent.clone()));
        Ok((agent, login))
    }
}

/// Redirects followed in one request.
const MAX_REDIRECTS: u32 = 8;

/// The address that `Location` names (RFC 9110, 10.2.2); of `http` and `https` alone.
fn redirected(from: &Uri, to: &str) -> Option<Uri> {
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let absolute = match to {
        "" => return None,
        _ if to.starts_with("//") => format!("{scheme}:{to}"),
        _ if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        _ if to.contains("://") => to.to_owned(),
        _ => {
            let (folder, _) = from.path().rsplit_once('/')?;
            format!("{scheme}://{authority}{folder}/{to}")
        }
    };
    let absolute = absolute.split('#').next().unwrap_or_default();
    let uri: Uri = absolute.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_the_web_alone() {
        let from: Uri = "http://a.test:81/x/y?q".parse().unwrap();
        let to = |to: &str| redirected(&from, to).map(|uri| uri.to_string());
        for (location, expected) in [
            ("https://b.test/z", Some("https://b.test/z")),
            ("//b.test/z", Some("http://b.test/z")),
            ("/z", Some("http://a.test:81/z")),
            ("z/w#part", Some("http://a.test:81/x/z/w")),
            ("file:///etc/passwd", None),
            ("", None),
            ("http://", None),
        ] {
            assert_eq!(to(location).as_deref(), expected, "{location}");
        }
    }
}
