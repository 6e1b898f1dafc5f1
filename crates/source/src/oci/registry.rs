//! A registry (distribution-spec 1.1, "Pull"), and how it lets us in (the token authentication of Docker's
//! `distribution`, and Basic).
//!
//! Addresses are `https`; `http` only where the registry is this machine, and then only to this machine. Redirects are
//! followed here and not by the HTTP client: what shows who we are goes to the registry's own origin alone, and a
//! password to an authorization server only when that is of the registry's domain.

use std::io::{Seek as _, SeekFrom};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::reference::{Reference, is_loopback};
use super::{OciContext, OciError, document};
use crate::proxy::Route;
use crate::transfer::{Failure, Length, Part, Transfer, Wanted, header, part, refused, whole};
use crate::{SourceError, SourceEvent};

/// Redirects followed in one request.
const MAX_REDIRECTS: usize = 8;
/// Largest answer of an authorization server.
const MAX_TOKEN: u64 = 1 << 20;

/// Scheme, host (brackets of IPv6 stay) and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an address that may be asked; why it may not.
    fn of(uri: &Uri, local: bool) -> Result<Self, &'static str> {
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user in it");
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match scheme.as_str() {
            "https" => authority.port_u16().unwrap_or(443),
            "http" if local && is_loopback(&host) => authority.port_u16().unwrap_or(80),
            "http" => return Err("it is not https"),
            _ => return Err("it is neither https nor http"),
        };
        Ok(Self { scheme, host, port })
    }
}

/// The client of one repository.
pub(super) struct Registry<'a> {
    transfer: &'a Transfer<'a>,
    ctx: &'a OciContext<'a>,
    reference: &'a Reference,
    /// Scheme of the registry: found out with the first request.
    scheme: OnceLock<&'static str>,
    direct: Agent,
    proxied: Option<Agent>,
    /// The value of `Authorization`, once the registry has asked for it.
    authorization: Mutex<Option<String>>,
    /// What a token has to allow: `pull`, or `pull,push`.
    actions: &'static str,
}

/// What is asked of a registry, and sent with it.
#[derive(Clone, Copy)]
pub(super) struct Ask<'q> {
    pub(super) method: &'static str,
    pub(super) accept: Option<&'q str>,
    /// Bytes of the answer that are here.
    pub(super) have: u64,
    pub(super) content_type: Option<&'q str>,
    pub(super) payload: Payload<'q>,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'q> {
    Nothing,
    Bytes(&'q [u8]),
    /// All of a file.
    File(&'q std::fs::File),
}

impl Ask<'static> {
    /// Something of the registry.
    pub(super) const GET: Self = Self {
        method: "GET",
        accept: None,
        have: 0,
        content_type: None,
        payload: Payload::Nothing,
    };
}

impl Ask<'_> {
    fn send(
        &self,
        agent: &Agent,
        uri: &Uri,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(self.method).uri(uri);
        for (name, value) in [("Accept", self.accept), ("Content-Type", self.content_type)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if self.have > 0 {
            request = request.header("Range", format!("bytes={}-", self.have));
        }
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        match self.payload {
            Payload::Nothing => agent.run(request.body(())?),
            Payload::Bytes(bytes) => agent.run(request.body(bytes)?),
            Payload::File(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                agent.run(request.body(file)?)
            }
        }
    }
}

/// A manifest as the registry sends it.
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
    /// `Docker-Content-Digest`.
    pub(super) digest: Option<String>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        transfer: &'a Transfer<'a>,
        ctx: &'a OciContext<'a>,
        reference: &'a Reference,
    ) -> Result<Self, SourceError> {
        // Servers beside this machine are asked over TLS alone.
        let proxy = ctx.base.proxies.https();
        let proxied = proxy.map(|text| Route::through(text, true)).transpose();
        let proxied = proxied.map_err(|reason| SourceError::Download {
            uri: reference.to_string(),
            reason,
        })?;
        Ok(Self {
            transfer,
            ctx,
            reference,
            scheme: OnceLock::new(),
            direct: transfer.agent(Route::Direct, 0, true),
            proxied: proxied.map(|route| transfer.agent(route, 0, true)),
            authorization: Mutex::new(None),
            actions: "pull",
        })
    }

    /// The same for a client that also pushes.
    pub(super) fn writing(mut self) -> Self {
        self.actions = "pull,push";
        self
    }

    pub(super) fn transfer(&self) -> &'a Transfer<'a> {
        self.transfer
    }

    /// The manifest of a tag or digest; `None` when there is none.
    pub(super) fn manifest(&self, of: &str) -> Result<Option<Sent>, SourceError> {
        let path = format!("manifests/{of}");
        let uri = self.shown(&path);
        self.transfer.retrying(&uri, false, || {
            let ask = Ask {
                accept: Some(document::ACCEPT),
                ..Ask::GET
            };
            let mut response = self.ask(&path, ask)?;
            match response.status().as_u16() {
                200 => {}
                404 | 410 => return Err(Failure::NotFound),
                status => return Err(refused(&uri, status)),
            }
            Ok(Sent {
                content_type: header(&response, "content-type").map(str::to_owned),
                digest: header(&response, "docker-content-digest").map(str::to_owned),
                bytes: whole(&uri, &mut response, document::MAX_MANIFEST)?,
            })
        })
    }

    /// Brings a blob into a file. Gives the bytes that were transferred.
    pub(super) fn blob(
        &self,
        blob: &super::ResolvedBlob,
        dest: &std::path::Path,
        progress: &dyn Fn(u64),
    ) -> Result<u64, SourceError> {
        let path = format!("blobs/sha256:{}", blob.digest.hex());
        let uri = self.shown(&path);
        let wanted = Wanted {
            uri: &uri,
            dest,
            length: Length::Exactly(blob.size),
            digest: blob.digest,
        };
        let open = |have| -> Result<Part, Failure> {
            part(&uri, self.ask(&path, Ask { have, ..Ask::GET })?, have)
        };
        let found = self.transfer.file(&wanted, false, &open, progress)?;
        found.ok_or_else(|| {
            self.error(OciError::Missing {
                place: self.reference.name(),
                what: format!("the blob sha256:{}", blob.digest.hex()),
            })
        })
    }

    pub(super) fn error(&self, source: OciError) -> SourceError {
        SourceError::Oci {
            image: self.reference.to_string(),
            source: Box::new(source),
        }
    }

    fn access(&self, reason: impl Into<String>) -> Failure {
        Failure::Final(self.error(OciError::Access {
            registry: self.reference.registry().to_owned(),
            reason: reason.into(),
        }))
    }

    /// An address of the repository, for messages.
    pub(super) fn shown(&self, path: &str) -> String {
        let scheme = self.scheme.get().copied().unwrap_or("https");
        let (host, repository) = (self.reference.authority(), self.reference.repository());
        format!("{scheme}://{host}/v2/{repository}/{path}")
    }

    fn local(&self) -> bool {
        is_loopback(self.reference.host())
    }

    /// `http` where the registry is this machine and does not speak TLS.
    fn scheme(&self) -> &'static str {
        self.scheme.get_or_init(|| {
            let probe = format!("https://{}/v2/", self.reference.authority());
            match self.local() && self.direct.get(&probe).call().is_err() {
                true => "http",
                false => "https",
            }
        })
    }

    fn agent(&self, uri: &Uri) -> &Agent {
        match &self.proxied {
            Some(proxied) if self.ctx.base.proxies.find(uri).is_some() => proxied,
            _ => &self.direct,
        }
    }

    /// Asks for something below the repository.
    pub(super) fn ask(&self, path: &str, ask: Ask<'_>) -> Result<Response<Body>, Failure> {
        self.scheme();
        self.ask_at(&self.shown(path), ask)
    }

    /// The same at an address that the registry gave.
    pub(super) fn ask_at(&self, uri: &str, ask: Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut asked = false;
        loop {
            let authorization = self.authorization().clone();
            let (response, own) = self.follow(uri, ask, authorization.as_deref())?;
            match response.status().as_u16() {
                401 if own && !asked => {
                    asked = true;
                    let fresh = self.authorize(&response)?;
                    *self.authorization() = Some(fresh);
                }
                401 | 403 if own => return Err(self.denied(authorization.is_some())),
                _ => return Ok(response),
            }
        }
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn denied(&self, known: bool) -> Failure {
        let repository = self.reference.repository();
        self.access(match known {
            true => {
                format!(
                    "refuses {repository}: there is none, or it takes a login that may {}",
                    if self.actions == "pull" {
                        "read it"
                    } else {
                        "write to it"
                    }
                )
            }
            false => format!("refuses {repository}"),
        })
    }

    /// Follows redirects; what is sent is sent once. True when the answer is of the registry's own origin.
    fn follow(
        &self,
        uri: &str,
        ask: Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<(Response<Body>, bool), Failure> {
        let first: Uri = uri
            .parse()
            .map_err(|_| self.address(uri, uri, "it is no address"))?;
        let own = self.own_origin()?;
        let mut at = first;
        for _ in 0..=MAX_REDIRECTS {
            let text = at.to_string();
            let origin =
                Origin::of(&at, self.local()).map_err(|why| self.address(uri, &text, why))?;
            let authorization = authorization.filter(|_| origin == own);
            let response = ask
                .send(self.agent(&at), &at, authorization)
                .map_err(|e| Failure::Passing(e.to_string(), 0))?;
            let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !leads_on || !matches!(ask.payload, Payload::Nothing) {
                return Ok((response, origin == own));
            }
            let to = header(&response, "location").unwrap_or_default().to_owned();
            at = self.redirected(&at, &to)?;
        }
        Err(self.address(uri, &at.to_string(), "there are too many redirects"))
    }

    /// Where what shows who we are may go.
    fn own_origin(&self) -> Result<Origin, Failure> {
        self.scheme();
        let text = self.shown("");
        let uri: Uri = text
            .parse()
            .map_err(|_| self.address(&text, &text, "it is no address"))?;
        Origin::of(&uri, self.local()).map_err(|why| self.address(&text, &text, why))
    }

    /// The address that `Location` names.
    pub(super) fn redirected(&self, from: &Uri, to: &str) -> Result<Uri, Failure> {
        let shown = from.to_string();
        let bad = || self.address(&shown, to, "it is no address");
        let absolute = match to {
            _ if to.starts_with("//") => format!("{}:{to}", from.scheme_str().unwrap_or("https")),
            _ if to.starts_with('/') => {
                let authority = from.authority().ok_or_else(bad)?;
                format!("{}://{authority}{to}", from.scheme_str().unwrap_or("https"))
            }
            _ => to.to_owned(),
        };
        absolute.parse().map_err(|_| bad())
    }

    pub(super) fn address(&self, from: &str, to: &str, reason: &'static str) -> Failure {
        // A query may be a signature that lets whoever has it in.
        let plain = |text: &str| -> String {
            let text = text.split(['?', '#']).next().unwrap_or_default();
            text.chars().filter(|c| !c.is_control()).take(200).collect()
        };
        Failure::Final(self.error(OciError::Address {
            from: plain(from),
            to: plain(to),
            reason,
        }))
    }

    fn credential(&self) -> Option<Credential> {
        match (self.ctx.credentials)(self.reference) {
            Ok(found) => found,
            Err(reason) => {
                (self.ctx.base.events)(SourceEvent::Warning(format!(
                    "no login for {}: {reason}",
                    self.reference.registry()
                )));
                None
            }
        }
    }

    /// What to answer a 401 with.
    fn authorize(&self, response: &Response<Body>) -> Result<String, Failure> {
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            return self.token(bearer);
        }
        if of("basic").is_none() {
            return Err(
                self.access("asks who we are in no way that is known: neither Bearer nor Basic")
            );
        }
        match self.credential().as_ref().and_then(Credential::basic) {
            Some(value) => Ok(value),
            None => Err(self.access("asks for a login, and there is none for it")),
        }
    }

    /// Gets a token for the repository.
    fn token(&self, bearer: &Challenge) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
        }
        let realm = bearer.param("realm").unwrap_or_default();
        let from = self.shown("");
        let uri: Uri = realm
            .parse()
            .map_err(|_| self.address(&from, realm, "it is no address"))?;
        let origin =
            Origin::of(&uri, self.local()).map_err(|why| self.address(&from, realm, why))?;
        // Ours to say, whatever the registry asks for: that repository, and what is wanted of it.
        let (repository, actions) = (self.reference.repository(), self.actions);
        let scope = format!("repository:{repository}:{actions}");
        let credential = self.credential();
        if credential.is_some() && !same_domain(self.reference.host(), &origin.host) {
            return Err(self.address(
                &from,
                realm,
                "there is a login for this registry, and it is not given to a server of another domain",
            ));
        }
        let service = bearer.param("service").unwrap_or_default();
        let agent = self.agent(&uri);
        let sent = match &credential {
            Some(Credential::Identity(token)) => agent
                .post(&uri)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .send(form(&[
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("scope", &scope),
                    ("client_id", "amiforge"),
                    ("refresh_token", token),
                ])),
            other => {
                let joint = if realm.contains('?') { '&' } else { '?' };
                let mut query = vec![("scope", scope.as_str())];
                if !service.is_empty() {
                    query.insert(0, ("service", service));
                }
                let mut request = agent.get(format!("{realm}{joint}{}", form(&query)));
                if let Some(value) = other.as_ref().and_then(Credential::basic) {
                    request = request.header("Authorization", value);
                }
                request.call()
            }
        };
        let mut response =
            sent.map_err(|e| Failure::Passing(format!("{}: {e}", origin.host), 0))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 if credential.is_some() => {
                return Err(self.access(format!(
                    "does not take the login there is for it (says {})",
                    origin.host
                )));
            }
            401 | 403 => {
                return Err(self.access(format!(
                    "gives no token without a login (says {})",
                    origin.host
                )));
            }
            300..=399 => return Err(self.address(&from, realm, "it leads on to another address")),
            status => {
                return Err(refused(
                    &format!("{}://{}", origin.scheme, origin.host),
                    status,
                ));
            }
        }
        let bytes = whole(&origin.host, &mut response, MAX_TOKEN)?;
        // What it sent may be a token in a wrong form, so it is not shown.
        let bad = || {
            self.access(format!(
                "sends us to {} for a token, whose answer has none",
                origin.host
            ))
        };
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let filled = |token: Option<String>| token.filter(|t| !t.is_empty());
        let token = filled(answer.token).or_else(|| filled(answer.access_token));
        match token {
            Some(token) if token.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(format!("Bearer {token}"))
            }
            _ => Err(bad()),
        }
    }
}

/// Whether a server is of the domain of a registry: the same host, or both below a domain of at least two parts, which
/// is the registry's host without its first part (`auth.docker.io` for `registry-1.docker.io`, `gitlab.com` for
/// `registry.gitlab.com`) or that host itself.
fn same_domain(registry: &str, server: &str) -> bool {
    let registry = registry.to_ascii_lowercase();
    let below = |domain: &str| {
        server == domain
            || server
                .strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    let is_name =
        |host: &str| !host.starts_with('[') && host.parse::<std::net::Ipv4Addr>().is_err();
    if registry == server || !is_name(&registry) {
        return registry == server;
    }
    let parent = registry.split_once('.').map_or("", |(_, parent)| parent);
    below(&registry) || (parent.contains('.') && below(parent))
}

/// `name=value` pairs, everything but unreserved characters escaped (RFC 3986, 2.3).
fn form(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(char::from(b)),
                b => out.push_str(&format!("%{b:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_stays_in_the_domain() {
        for (registry, server, is) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("ghcr.io", "ghcr.io", true),
            ("ghcr.io", "token.ghcr.io", true),
            ("ghcr.io", "evil.io", false),
            ("ghcr.io", "evilghcr.io", false),
            ("a.example.com", "b.example.com.evil.io", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.1", "x.0.0.1", false),
            ("[::1]", "[::1]", true),
            ("localhost", "localhost", true),
            ("localhost", "127.0.0.1", false),
        ] {
            assert_eq!(same_domain(registry, server), is, "{registry} {server}");
        }
    }

    #[test]
    fn addresses_that_are_asked() {
        for (uri, local, ok) in [
            ("https://a.b/c", false, true),
            ("http://a.b/c", false, false),
            ("http://a.b/c", true, false),
            ("http://127.0.0.1:5/c", true, true),
            ("http://localhost/c", true, true),
            ("http://[::1]:5/c", true, true),
            ("http://127.0.0.1/c", false, false),
            ("https://u:p@a.b/c", false, false),
            ("ftp://a.b/c", true, false),
            ("/c", true, false),
        ] {
            assert_eq!(
                Origin::of(&uri.parse().unwrap(), local).is_ok(),
                ok,
                "{uri}"
            );
        }
        assert_eq!(
            form(&[("a", "x y/ä"), ("b", "1-2")]),
            "a=x%20y%2F%C3%A4&b=1-2"
        );
    }
}
