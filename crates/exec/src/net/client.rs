//! One HTTP request: through the right proxy, to a server that its certificate vouches for, with
//! limits on time and on the head of the answer. Redirects are the caller's; bodies stay as they are
//! sent, whatever their encoding.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amiforge_proxy::Forward;
use amiforge_recipe::actions::WebUrl;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ureq::http::{HeaderMap, Method, Request, Response, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, AsSendBody, Body};

use super::error::{NetError, classify};
use super::resolver::RootResolver;
use super::roots::{self, Roots};
use crate::outside::Outside;

/// Bytes of the head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// A longer wait that a server asks for is not heeded.
const MAX_RETRY_AFTER: u64 = 60;

/// How long is waited, and how often tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Tries in all.
    pub(crate) tries: u32,
    /// Pause after the first; doubles with each.
    pub(crate) pause: Duration,
    /// For a connection.
    pub(crate) connect: Duration,
    /// For the head of an answer, and between two pieces of a body.
    pub(crate) silence: Duration,
    /// Bytes of a file that does not say how long it is.
    pub(crate) bytes: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            pause: Duration::from_secs(1),
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            bytes: 512 << 30,
        }
    }
}

/// Where a request goes, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// All of it.
    pub(crate) text: String,
}

impl From<&WebUrl> for Address {
    fn from(url: &WebUrl) -> Self {
        Self {
            secure: url.is_secure(),
            host: url.host().to_owned(),
            port: url.port(),
            text: url.to_string(),
        }
    }
}

/// A request.
pub(crate) struct Ask<'a, B> {
    pub(crate) method: Method,
    pub(crate) address: &'a Address,
    /// The address as messages may show it.
    pub(crate) place: &'a str,
    pub(crate) headers: &'a [(&'a str, String)],
    /// The server may be anybody.
    pub(crate) insecure: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) body: B,
}

impl<'a> Ask<'a, ()> {
    /// The same with a body.
    pub(crate) fn with<B>(self, body: B) -> Ask<'a, B> {
        Ask {
            method: self.method,
            address: self.address,
            place: self.place,
            headers: self.headers,
            insecure: self.insecure,
            deadline: self.deadline,
            body,
        }
    }
}

/// The proxy that is used, and whether any certificate will do.
type Way = (Option<String>, bool);

/// A client for one step.
pub(crate) struct Http<'a> {
    env: &'a BTreeMap<String, String>,
    outside: &'a Outside,
    roots: OnceCell<Roots>,
    agents: RefCell<Vec<(Way, Agent)>>,
}

impl<'a> Http<'a> {
    /// `env` is the environment of the step.
    pub(crate) fn new(env: &'a BTreeMap<String, String>, outside: &'a Outside) -> Self {
        Self {
            env,
            outside,
            roots: OnceCell::new(),
            agents: RefCell::default(),
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        self.outside.patience
    }

    /// Where the authorities are from.
    pub(crate) fn roots_from(&self) -> &str {
        &self.roots().from
    }

    /// Sends a request and gives the answer, whatever its status.
    pub(crate) fn send(&self, ask: Ask<'_, impl AsSendBody>) -> Result<Response<Body>, NetError> {
        let place = ask.place;
        if self.outside.offline && !is_loopback(&ask.address.host) {
            return Err(NetError::Offline {
                place: place.to_owned(),
            });
        }
        let agent = self.agent(ask.address, ask.insecure)?;
        let mut request = Request::builder().method(ask.method).uri(&ask.address.text);
        for (name, value) in ask.headers {
            request = request.header(*name, value);
        }
        let proxy = self.proxy(ask.address);
        if let Some(Route::Forward(url)) =
            proxy.and_then(|(_, proxy)| route(&proxy, ask.address.secure))
            && let Some((user, password)) = url.user()
        {
            request = request.header("proxy-authorization", basic(&user, &password));
        }
        let request = request.body(ask.body).map_err(|e| NetError::Broken {
            place: place.to_owned(),
            reason: e.to_string(),
        })?;
        let left = ask
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let request = agent
            .configure_request(request)
            .timeout_global(left)
            .build();
        agent
            .run(request)
            .map_err(|e| classify(place, self.roots_from(), e))
    }

    fn roots(&self) -> &Roots {
        self.roots.get_or_init(|| roots::find(self.env))
    }

    fn agent(&self, address: &Address, insecure: bool) -> Result<Agent, NetError> {
        let chosen = self.proxy(address);
        let key = (chosen.as_ref().map(|(_, proxy)| proxy.clone()), insecure);
        let mut agents = self.agents.borrow_mut();
        if let Some((_, agent)) = agents.iter().find(|(k, _)| *k == key) {
            return Ok(agent.clone());
        }
        let route = match chosen {
            Some((variable, proxy)) => route(&proxy, address.secure).ok_or_else(|| {
                // Up to the `@` may be a password.
                let shown = proxy.rsplit('@').next().unwrap_or_default().to_owned();
                NetError::Proxy {
                    variable,
                    proxy: shown,
                }
            })?,
            None => Route::Direct,
        };
        let (tunnel, forward) = match route {
            Route::Direct => (None, None),
            Route::Tunnel(proxy) => (Some(proxy), None),
            Route::Forward(url) => (None, Some(url)),
        };
        let tls = TlsConfig::builder()
            .root_certs(self.roots().certs.clone())
            .disable_verification(insecure)
            .build();
        let patience = self.outside.patience;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("amiforge")
            .accept_encoding("identity")
            .proxy(tunnel)
            .tls_config(tls)
            .max_response_header_size(MAX_HEAD)
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.silence))
            .timeout_per_read(Some(patience.silence))
            .timeout_per_write(Some(patience.silence))
            .build();
        let agent = match forward {
            None => Agent::with_parts(config, DefaultConnector::new(), RootResolver::default()),
            Some(url) => {
                let connector = DefaultConnector::new().chain(Forward);
                let resolver = RootResolver::via(url.host().to_owned(), url.port());
                Agent::with_parts(config, connector, resolver)
            }
        };
        agents.push((key, agent.clone()));
        Ok(agent)
    }

    /// The proxy for an address with the variable that names it: of the step's environment, else of
    /// the caller's.
    fn proxy(&self, address: &Address) -> Option<(String, String)> {
        let lower = if address.secure {
            "https_proxy"
        } else {
            "http_proxy"
        };
        if is_loopback(&address.host) {
            return None;
        }
        let get = |name: &str| {
            [name.to_owned(), name.to_ascii_uppercase()]
                .into_iter()
                .find_map(|n| Some((n.clone(), self.env.get(&n)?.clone())))
                .or_else(|| Some((name.to_owned(), self.outside.proxies.get(name)?.clone())))
                .filter(|(_, value)| !value.is_empty())
        };
        let without = get("no_proxy").is_some_and(|(_, list)| excepted(&list, address));
        get(lower).filter(|_| !without)
    }
}

/// How a request reaches its server.
enum Route {
    Direct,
    /// Through a connection that a proxy makes.
    Tunnel(ureq::Proxy),
    /// By asking the proxy for it.
    Forward(WebUrl),
}

/// The way through a proxy; `None` when the text names none.
fn route(proxy: &str, secure: bool) -> Option<Route> {
    let url = match proxy.contains("://") {
        true => WebUrl::parse(proxy).ok()?,
        false => WebUrl::parse(&format!("http://{proxy}")).ok()?,
    };
    if secure || url.is_secure() {
        return ureq::Proxy::new(proxy).ok().map(Route::Tunnel);
    }
    Some(Route::Forward(url))
}

/// Whether `no_proxy` has the address: `*`, a host with those below it, with or without a port.
fn excepted(list: &str, address: &Address) -> bool {
    let host = address.host.as_str();
    list.split([',', ' ']).any(|entry| {
        let entry = entry.trim().to_ascii_lowercase();
        let (entry, port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name.to_owned(), port.parse().ok()),
            _ => (entry, None),
        };
        let name = entry.trim_start_matches('*').trim_start_matches('.');
        let matches = entry == "*"
            || (!name.is_empty()
                && (host == name
                    || host
                        .strip_suffix(name)
                        .is_some_and(|above| above.ends_with('.'))));
        matches && port.is_none_or(|port: u16| port == address.port)
    })
}

/// Whether the host is the root's own loopback, by its name.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Value of a header that says who one is (RFC 7617).
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

/// Seconds of `Retry-After`; dates are not looked at.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = text(headers, header::RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
}

/// What `Content-Length` promises.
pub(crate) fn promised(headers: &HeaderMap) -> Option<u64> {
    // Chunks have their own end.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    text(headers, header::CONTENT_LENGTH)?.trim().parse().ok()
}

/// The text of a header.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::from(&WebUrl::parse(text).unwrap())
    }

    fn proxy(env: &[(&str, &str)], lent: &[(&str, &str)], to: &str) -> Option<String> {
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let outside = Outside {
            proxies: map(lent),
            ..Outside::default()
        };
        let env = map(env);
        let found = Http::new(&env, &outside).proxy(&address(to));
        found.map(|(_, proxy)| proxy)
    }

    #[test]
    fn the_proxy_is_that_of_the_scheme_of_the_step_and_else_of_the_caller() {
        let step = [("http_proxy", "p1"), ("HTTPS_PROXY", "p2")];
        let lent = [("https_proxy", "p3"), ("http_proxy", "p4")];
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(proxy(&step, &lent, "http://h/"), some("p1"));
        assert_eq!(proxy(&step, &lent, "https://h/"), some("p2"));
        assert_eq!(proxy(&[], &lent, "https://h/"), some("p3"));
        assert_eq!(proxy(&[("http_proxy", "")], &lent, "http://h/"), None);
        for loopback in ["http://127.0.0.1/", "http://localhost:1/", "http://[::1]/"] {
            assert_eq!(proxy(&step, &lent, loopback), None, "{loopback}");
        }
    }

    #[test]
    fn no_proxy_excepts_hosts_and_what_is_below_them() {
        let all = [
            ("*", "http://h/", true),
            ("example.com", "http://example.com/", true),
            ("example.com", "http://a.example.com/", true),
            (".example.com", "http://a.example.com/", true),
            ("*.example.com", "http://A.example.com/", true),
            ("example.com", "http://badexample.com/", false),
            ("x, Example.com", "https://example.com/", true),
            ("example.com:8080", "http://example.com:8080/", true),
            ("example.com:8080", "http://example.com/", false),
            ("10.0.0.1", "http://10.0.0.1/", true),
            ("", "http://h/", false),
            (".", "http://h/", false),
        ];
        for (list, to, expected) in all {
            assert_eq!(excepted(list, &address(to)), expected, "{list} {to}");
        }
    }
}
