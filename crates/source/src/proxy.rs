//! Proxies: which one an address is asked through, and how.
//!
//! Over TLS a proxy makes a connection (`CONNECT`), which is all that ureq knows. Proxies allow that for TLS only, and have
//! plain HTTP asked with the whole address in the first line (RFC 9112, 3.2.2): [`Forward`](amiforge_proxy::Forward) puts it there.
//!
//! ```text
//! GET /path HTTP/1.1   ─▶   GET http://host:port/path HTTP/1.1
//! ```

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The proxies of an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    /// What is asked without one.
    except: Option<String>,
}

impl Proxies {
    /// By the values of `http_proxy`, `https_proxy` and `no_proxy`.
    #[must_use]
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        Self {
            http: get("http_proxy"),
            https: get("https_proxy"),
            except: get("no_proxy"),
        }
    }

    /// That of servers with TLS.
    pub(crate) fn https(&self) -> Option<&str> {
        self.https.as_deref()
    }

    /// The proxy for an address. This machine is asked without one.
    pub(crate) fn find(&self, uri: &Uri) -> Option<&str> {
        let host = uri.host().unwrap_or_default();
        if crate::oci::is_loopback(host) || self.excepts(uri) {
            return None;
        }
        match uri.scheme_str() {
            Some("https") => self.https.as_deref(),
            _ => self.http.as_deref(),
        }
    }

    /// Whether `no_proxy` has the address: `*`, a host with those below it, with or without a port.
    pub(crate) fn excepts(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let list = self.except.as_deref().unwrap_or_default();
        list.split([',', ' ']).any(|entry| {
            let entry = entry.trim().to_ascii_lowercase();
            let (entry, of_port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => (name.to_owned(), port.parse().ok()),
                _ => (entry, None),
            };
            let name = entry.trim_start_matches('*').trim_start_matches('.');
            let below = || {
                host.strip_suffix(name)
                    .is_some_and(|above| above.ends_with('.'))
            };
            let matches = entry == "*" || (!name.is_empty() && (host == name || below()));
            matches && of_port.is_none_or(|of: u16| of == port)
        })
    }
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Direct,
    /// Through a connection that a proxy makes.
    Tunnel(ureq::Proxy),
    /// By asking the proxy for it.
    Forward {
        /// Where the proxy is.
        proxy: Uri,
        /// Who we are to it: the value of `Proxy-Authorization`.
        login: Option<String>,
    },
}

impl Route {
    /// The way through a proxy to a server with TLS or without. No password is in the reason.
    pub(crate) fn through(proxy: &str, secure: bool) -> Result<Self, String> {
        let shown = proxy.rsplit('@').next().unwrap_or_default();
        let bad = |why: String| format!("the proxy {shown}: {why}");
        let whole = match proxy.contains("://") {
            true => proxy.to_owned(),
            false => format!("http://{proxy}"),
        };
        let uri: Uri = whole
            .parse()
            .map_err(|_| bad("it is no address".to_owned()))?;
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(bad("it is no address".to_owned()));
        }
        if secure || uri.scheme_str() != Some("http") {
            let tunnel = ureq::Proxy::new(proxy).map_err(|e| bad(e.to_string()))?;
            return Ok(Self::Tunnel(tunnel));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let login = authority.rsplit_once('@').map(|(user, _)| {
            let user = match user.contains(':') {
                true => decoded(user),
                false => decoded(&format!("{user}:")),
            };
            format!("Basic {}", BASE64.encode(user))
        });
        let at = format!("http://{host}:{}", uri.port_u16().unwrap_or(80));
        let proxy = at.parse().map_err(|_| bad("it is no address".to_owned()))?;
        Ok(Self::Forward { proxy, login })
    }
}

/// Bytes of a text in which `%NN` stand for bytes (RFC 3986, 2.1).
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Has every host at the proxy.
#[derive(Debug)]
pub(crate) struct AtProxy(pub(crate) Uri);

impl Resolver for AtProxy {
    fn resolve(
        &self,
        _uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], to: &str) -> Option<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let proxies = Proxies::of(&variables);
        proxies.find(&to.parse().unwrap()).map(str::to_owned)
    }

    #[test]
    fn the_proxy_is_that_of_the_scheme_and_not_for_this_machine() {
        let both = [("http_proxy", "p1"), ("https_proxy", "p2")];
        assert_eq!(found(&both, "http://h.test/x").as_deref(), Some("p1"));
        assert_eq!(found(&both, "https://h.test/x").as_deref(), Some("p2"));
        assert_eq!(found(&both[..1], "https://h.test/x"), None);
        for here in [
            "http://localhost/",
            "http://127.1.2.3:80/",
            "https://[::1]:5000/",
        ] {
            assert_eq!(found(&both, here), None, "{here}");
        }
    }

    #[test]
    fn no_proxy_excepts_hosts_and_what_is_below_them() {
        for (list, to, excepted) in [
            ("h.test", "http://h.test/", true),
            ("h.test", "http://a.h.test/", true),
            (".h.test", "http://a.h.test/", true),
            ("*.h.test", "http://a.h.test/", true),
            ("h.test", "http://xh.test/", false),
            ("h.test:80", "http://h.test/", true),
            ("h.test:81", "http://h.test/", false),
            ("h.test:443", "https://H.test/", true),
            ("a, b h.test", "http://h.test/", true),
            ("*", "http://h.test/", true),
            ("", "http://h.test/", false),
            ("10.0.0.1", "http://10.0.0.1/", true),
        ] {
            let all = [
                ("http_proxy", "p"),
                ("https_proxy", "p"),
                ("no_proxy", list),
            ];
            assert_eq!(found(&all, to).is_none(), excepted, "{list} {to}");
        }
    }

    #[test]
    fn plain_http_is_forwarded_and_tls_tunnelled_and_no_password_is_told() {
        for (proxy, at, login) in [
            ("p.test", "http://p.test:80/", None),
            ("p.test:3128", "http://p.test:3128/", None),
            ("http://p.test:3128/", "http://p.test:3128/", None),
            (
                "http://u:p%40w@p.test",
                "http://p.test:80/",
                Some("Basic dTpwQHc="),
            ),
            ("http://u@p.test", "http://p.test:80/", Some("Basic dTo=")),
        ] {
            match Route::through(proxy, false) {
                Ok(Route::Forward {
                    proxy: found,
                    login: who,
                }) => {
                    assert_eq!((found.to_string().as_str(), who.as_deref()), (at, login));
                }
                other => panic!("{proxy}: {other:?}"),
            }
            assert!(
                matches!(Route::through(proxy, true), Ok(Route::Tunnel(_))),
                "{proxy}"
            );
        }
        assert!(matches!(
            Route::through("https://p.test", false),
            Ok(Route::Tunnel(_))
        ));
        let error = Route::through("http://user:secret@", false).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
