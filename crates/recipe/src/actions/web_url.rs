//! Addresses of the web, and what a redirect makes of them.
//! Reference: RFC 3986, sections 3 (syntax), 5.2 (resolution), 6.2.2 (letter case).

use std::fmt;

/// An `http` or `https` URL, its characters escaped as they are sent. A fragment is left out: it is
/// never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl {
    secure: bool,
    /// `user` or `user:password` as written.
    user: Option<String>,
    /// In lower case; an IPv6 address stands in brackets.
    host: String,
    port: Option<u16>,
    /// Starts with `/`.
    path: String,
    query: Option<String>,
}

/// Why a text is no address that can be downloaded from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebUrlError {
    /// No scheme, or another one.
    #[error("it does not start with `http://` or `https://`")]
    Scheme,
    /// Nothing between `//` and the path.
    #[error("it names no host")]
    NoHost,
    /// A character that no host name or address has.
    #[error("{0:?} is not a host name")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
    /// `%` without two hexadecimal digits.
    #[error("a `%` is not followed by two hexadecimal digits")]
    Escape,
    /// White space around it, or a control character.
    #[error("it has a control character, or white space around it")]
    Control,
    /// Longer than any server takes.
    #[error("it has more than 8000 characters")]
    Long,
}

/// Servers and proxies refuse longer ones.
const LONGEST: usize = 8000;

impl WebUrl {
    /// Reads an absolute URL. Characters that may not stand in a path or query are escaped.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, WebUrlError> {
        if text.len() > LONGEST {
            return Err(WebUrlError::Long);
        }
        if text.trim() != text || text.contains(char::is_control) {
            return Err(WebUrlError::Control);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WebUrlError::Scheme)?;
        let secure = match scheme {
            s if s.eq_ignore_ascii_case("https") => true,
            s if s.eq_ignore_ascii_case("http") => false,
            _ => return Err(WebUrlError::Scheme),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(escaped(user, "")?), rest),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host_port)?;
        let (path, query) = path_and_query(rest)?;
        Ok(Self {
            secure,
            user,
            host,
            port,
            path,
            query,
        })
    }

    /// Where a redirect from this address leads.
    ///
    /// # Errors
    /// When it is nothing that can be downloaded from.
    pub fn join(&self, location: &str) -> Result<Self, WebUrlError> {
        if location.len() > LONGEST {
            return Err(WebUrlError::Long);
        }
        if has_scheme(location) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            let scheme = if self.secure { "https:" } else { "http:" };
            return Self::parse(&format!("{scheme}{location}"));
        }
        if location.trim() != location || location.contains(char::is_control) {
            return Err(WebUrlError::Control);
        }
        let location = location.split('#').next().unwrap_or_default();
        let (path, query) = match location {
            "" => (self.path.clone(), self.query.clone()),
            _ if location.starts_with('?') => {
                let (_, query) = path_and_query(location)?;
                (self.path.clone(), query)
            }
            _ if location.starts_with('/') => path_and_query(location)?,
            _ => {
                let above = self.path.rsplit_once('/').map_or("", |(above, _)| above);
                path_and_query(&format!("{above}/{location}"))?
            }
        };
        Ok(Self {
            path,
            query,
            ..self.clone()
        })
    }

    /// True for `https`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host name or address, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, written or usual.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// The path as it is sent; starts with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// User and password, unescaped.
    #[must_use]
    pub fn user(&self) -> Option<(String, String)> {
        let (user, password) = self
            .user
            .as_deref()
            .map(|u| u.split_once(':').unwrap_or((u, "")))?;
        let plain = |text: &str| String::from_utf8_lossy(&unescaped(text)).into_owned();
        Some((plain(user), plain(password)))
    }

    /// Whether both are the same server.
    #[must_use]
    pub fn same_server(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port()) == (other.secure, &other.host, other.port())
    }

    /// The name that a file of this address has in a folder: the last part of the path, unescaped.
    /// `None` when that is nothing, or no name of a file.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        let name = String::from_utf8(unescaped(last)).unwrap_or_else(|_| last.to_owned());
        let odd = ["", ".", ".."].contains(&name.as_str())
            || name.contains(|c: char| c == '/' || c.is_control());
        (!odd).then_some(name)
    }
}

/// The address as it is asked for: without user and password.
impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// Without user and password too.
impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebUrl({self})")
    }
}

fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), WebUrlError> {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if host.is_empty() {
        return Err(WebUrlError::NoHost);
    }
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let valid = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c)),
    };
    if !valid {
        return Err(WebUrlError::Host(host.to_owned()));
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let number: Option<u16> = digits.parse().ok().filter(|n| *n > 0);
            Some(number.ok_or_else(|| WebUrlError::Port(digits.to_owned()))?)
        }
        _ => return Err(WebUrlError::Port(port.to_owned())),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// Path without `.` and `..`, and query, of what comes after the authority.
fn path_and_query(text: &str) -> Result<(String, Option<String>), WebUrlError> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(escaped(query, ":@/?")?)),
        None => (text, None),
    };
    Ok((without_dots(&escaped(path, ":@/")?), query))
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let last = parts.len() - 1;
    for (at, part) in parts.into_iter().enumerate() {
        match part {
            ".." | "." => {
                if part == ".." {
                    kept.pop();
                }
                if at == last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// The text with every character escaped that may not stand there: not unreserved, no sub-delimiter,
/// none of `also`. What is escaped already stays so.
fn escaped(text: &str, also: &str) -> Result<String, WebUrlError> {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let c = char::from(*byte);
        match c {
            '%' => {
                let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
                if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(WebUrlError::Escape);
                }
                out.push(c);
            }
            _ if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c) => out.push(c),
            _ if also.contains(c) && byte.is_ascii() => out.push(c),
            // Between user and password.
            ':' if also.is_empty() => out.push(c),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        WebUrl::parse(text).unwrap().to_string()
    }

    #[test]
    fn urls_are_normalised_and_escaped() {
        let all = [
            ("HTTP://Example.COM", "http://example.com/"),
            ("https://h:8443/a/../b/./c", "https://h:8443/b/c"),
            ("https://h?x=1", "https://h/?x=1"),
            (
                "http://h/a b/ü{}?q=a b&c=[1]#part",
                "http://h/a%20b/%C3%BC%7B%7D?q=a%20b&c=%5B1%5D",
            ),
            ("http://[::1]:80/x%2fy", "http://[::1]:80/x%2fy"),
            ("http://user:pa%40ss@h/x", "http://h/x"),
            ("http://h:/x", "http://h/x"),
            ("http://h//a//b", "http://h//a//b"),
        ];
        for (text, expected) in all {
            assert_eq!(shown(text), expected);
        }
        let with_user = WebUrl::parse("http://us%3Aer:pa@ss@h/x").unwrap();
        assert_eq!(with_user.user(), Some(("us:er".into(), "pa@ss".into())));
        assert!(!format!("{with_user:?}").contains("ss"));
    }

    #[test]
    fn what_is_no_url_of_the_web_is_told() {
        let all = [
            ("ftp://h/x", WebUrlError::Scheme),
            ("/etc/passwd", WebUrlError::Scheme),
            ("file:///etc/passwd", WebUrlError::Scheme),
            ("http:///x", WebUrlError::NoHost),
            ("http://:80/x", WebUrlError::NoHost),
            ("http://a b/x", WebUrlError::Host("a b".into())),
            ("http://[::g]/", WebUrlError::Host("[::g]".into())),
            ("http://ü.example/", WebUrlError::Host("ü.example".into())),
            ("http://h:0/", WebUrlError::Port("0".into())),
            ("http://h:65536/", WebUrlError::Port("65536".into())),
            ("http://h:x/", WebUrlError::Port(":x".into())),
            ("http://h/%zz", WebUrlError::Escape),
            ("http://h/%2", WebUrlError::Escape),
            (" http://h/", WebUrlError::Control),
            ("http://h/\r\nHost: x", WebUrlError::Control),
        ];
        for (text, expected) in all {
            assert_eq!(WebUrl::parse(text), Err(expected), "{text}");
        }
        assert_eq!(
            WebUrl::parse(&format!("http://h/{}", "x".repeat(9000))),
            Err(WebUrlError::Long)
        );
    }

    /// RFC 3986, section 5.4, as far as a redirect can say it.
    #[test]
    fn references_resolve_as_the_rfc_has_them() {
        let base = WebUrl::parse("http://a/b/c/d;p?q").unwrap();
        let all = [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("#s", "http://a/b/c/d;p?q"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("https://h/x", "https://h/x"),
        ];
        for (location, expected) in all {
            assert_eq!(
                base.join(location).unwrap().to_string(),
                expected,
                "{location}"
            );
        }
        for bad in ["file:///etc/passwd", "ftp://a/b", "javascript:x", "data:,x"] {
            assert_eq!(base.join(bad), Err(WebUrlError::Scheme), "{bad}");
        }
        assert_eq!(base.join("x\r\ny"), Err(WebUrlError::Control));
    }

    #[test]
    fn a_file_name_is_one_part_and_nothing_else() {
        let name = |text: &str| WebUrl::parse(text).unwrap().file_name();
        assert_eq!(
            name("http://h/a/b.tar.gz?x=/y").as_deref(),
            Some("b.tar.gz")
        );
        assert_eq!(name("http://h/a%20b").as_deref(), Some("a b"));
        for none in [
            "http://h",
            "http://h/a/",
            "http://h/a/..",
            "http://h/%2e%2e",
            "http://h/..%2f..%2fetc%2fpasswd",
            "http://h/a%00b",
            "http://h/a%0ab",
        ] {
            assert_eq!(name(none), None, "{none}");
        }
    }
}
