//! Names of images (distribution-spec 1.1, "Pulling manifests"; the grammar of Docker's `distribution/reference`).
//!
//! ```text
//! reference  ::= [registry "/"] repository [":" tag] ["@" digest]
//! registry   ::= host [":" port]           told from a repository by a `.` or `:` in it, or `localhost`
//! repository ::= part ("/" part)*
//! part       ::= [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
//! tag        ::= [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! digest     ::= "sha256:" [0-9a-f]{64}
//! ```

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use amiforge_types::Digest;

/// The registry of names without one.
const DOCKER: &str = "docker.io";
/// Where that registry answers.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Longest repository, in bytes.
const MAX_REPOSITORY: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// The name of an image in a registry. Every part is of the grammar's characters, so it can stand in an address.
///
/// ```
/// # use amiforge_source::oci::Reference;
/// let debian: Reference = "debian:12".parse()?;
/// assert_eq!(debian.to_string(), "docker.io/library/debian:12");
/// # Ok::<(), amiforge_source::oci::ReferenceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at character {at})")]
pub struct ReferenceError {
    /// Which character, the first is 1.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Reference {
    /// The registry by name, `docker.io` for Docker's: host and, where there is one, port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it, `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, which counts where there is a tag too.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag; `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Registry and repository.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Host and port that answer for the registry.
    pub(super) fn authority(&self) -> &str {
        match self.registry.as_str() {
            DOCKER => DOCKER_HOST,
            other => other,
        }
    }

    /// Host without port, brackets of IPv6 stay.
    pub(super) fn host(&self) -> &str {
        split_port(self.authority()).0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@sha256:{}", digest.hex()),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |at: usize, reason: &str| {
            Err(ReferenceError {
                // Counted in characters, since a name that is none may have any.
                at: text.get(..at).map_or(at, |before| before.chars().count()) + 1,
                reason: reason.to_owned(),
            })
        };
        let (rest, digest) = match text.find('@') {
            None => (text, None),
            Some(at) => match digest(&text[at + 1..]) {
                Ok(digest) => (&text[..at], Some(digest)),
                Err(reason) => return fail(at + 1, reason),
            },
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            None => (rest, None),
            Some(at) => {
                let at = slash + at;
                let tag = &rest[at + 1..];
                if let Err((skip, reason)) = check_tag(tag) {
                    return fail(at + 1 + skip, reason);
                }
                (&rest[..at], Some(tag.to_owned()))
            }
        };
        let (registry, repository, from) = match name.split_once('/') {
            Some((first, others)) if is_registry(first) => {
                if let Err((skip, reason)) = check_registry(first) {
                    return fail(skip, reason);
                }
                (first.to_ascii_lowercase(), others, first.len() + 1)
            }
            _ => (DOCKER.to_owned(), name, 0),
        };
        if let Err((skip, reason)) = check_repository(repository) {
            return fail(from + skip, reason);
        }
        let registry = match registry.as_str() {
            "index.docker.io" | DOCKER_HOST => DOCKER.to_owned(),
            _ => registry,
        };
        let repository = match registry == DOCKER && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        if repository.len() > MAX_REPOSITORY {
            return fail(from + MAX_REPOSITORY, "a name has at most 255 characters");
        }
        let latest = || digest.is_none().then(|| "latest".to_owned());
        Ok(Self {
            registry,
            repository,
            tag: tag.or_else(latest),
            digest,
        })
    }
}

fn digest(text: &str) -> Result<Digest, &'static str> {
    let Some(hex) = text.strip_prefix("sha256:") else {
        return Err(match text.split_once(':') {
            Some(("sha512", _)) => "digests of sha512 are not supported, only of sha256",
            _ => "a digest is sha256: and 64 hex digits",
        });
    };
    let small = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match hex.len() == 64 && hex.bytes().all(small) {
        true => hex.parse().map_err(|_| "not a digest"),
        false => Err("a digest of sha256 has 64 hex digits, in small letters"),
    }
}

type Problem = (usize, &'static str);

fn check_tag(tag: &str) -> Result<(), Problem> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.bytes().next() {
        None => return Err((0, "the tag is missing")),
        Some(first) if !word(first) => {
            return Err((0, "a tag begins with a letter, a digit or _"));
        }
        Some(_) => {}
    }
    if let Some(at) = tag.bytes().position(|b| !word(b) && b != b'.' && b != b'-') {
        return Err((at, "a tag has letters, digits, _, . and - only"));
    }
    match tag.len() > MAX_TAG {
        true => Err((MAX_TAG, "a tag has at most 128 characters")),
        false => Ok(()),
    }
}

/// Whether the first part of a name is a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Host and port, brackets of IPv6 stay.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    let from = registry.rfind(']').unwrap_or(0);
    match registry[from..].rfind(':') {
        Some(at) => (&registry[..from + at], Some(&registry[from + at + 1..])),
        None => (registry, None),
    }
}

fn check_registry(registry: &str) -> Result<(), Problem> {
    let (host, port) = split_port(registry);
    if let Some(port) = port {
        let number: Option<u16> = port
            .parse()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
        if number.is_none_or(|n| n == 0) {
            return Err((
                host.len() + 1,
                "the registry's port is not a number below 65536",
            ));
        }
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err((0, "the registry is not an IPv6 address in brackets")),
        };
    }
    let mut at = 0;
    for label in host.split('.') {
        let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        if let Some(bad) = label
            .bytes()
            .position(|b| !b.is_ascii_alphanumeric() && b != b'-')
        {
            return Err((
                at + bad,
                "the name of a registry has letters, digits, - and . only",
            ));
        }
        if !outer(label.bytes().next()) || !outer(label.bytes().next_back()) {
            return Err((at, "not the name of a registry"));
        }
        at += label.len() + 1;
    }
    match host.len() > 253 {
        true => Err((253, "the name of a registry has at most 253 characters")),
        false => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), Problem> {
    if repository.is_empty() {
        return Err((0, "the name of the image is missing"));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut at = 0;
    for part in repository.split('/') {
        if part.is_empty() {
            return Err((at, "a part of the name is empty"));
        }
        if let Some(bad) = part
            .bytes()
            .position(|b| !plain(b) && !matches!(b, b'.' | b'_' | b'-'))
        {
            let reason = match part.as_bytes()[bad].is_ascii_uppercase() {
                true => "the name of an image has no capital letters",
                false => "the name of an image has small letters, digits, ., _, - and / only",
            };
            return Err((at + bad, reason));
        }
        let mut from = 0;
        // The runs of separators: none at the ends, and each of a form that there is.
        for run in part.split(|c: char| plain(u8::try_from(c).unwrap_or(0))) {
            let here = at + from;
            from += run.len() + 1;
            let known = matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
            if !known {
                return Err((here, "separators in a name are a ., a _, a __ or several -"));
            }
        }
        let inner = |b: Option<u8>| b.is_some_and(plain);
        if !inner(part.bytes().next()) {
            return Err((at, "a part of a name begins with a letter or digit"));
        }
        if !inner(part.bytes().next_back()) {
            return Err((
                at + part.len() - 1,
                "a part of a name ends with a letter or digit",
            ));
        }
        at += part.len() + 1;
    }
    let id = repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit());
    match id {
        true => Err((0, "64 hex digits are the id of an image, not a name")),
        false => Ok(()),
    }
}

/// Whether a host (brackets of IPv6 may stay) is this machine by its name alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host == "::1"
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_reads_them() {
        let long = "a".repeat(64);
        let sha = format!("sha256:{}", "0f".repeat(32));
        for (text, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("docker.io/library/debian:12", "docker.io/library/debian:12"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Ghcr.IO/x/y", "ghcr.io/x/y:latest"),
            ("a.b/c__d/e--f.g_h", "a.b/c__d/e--f.g_h:latest"),
            (&format!("ghcr.io/x/y@{sha}"), &format!("ghcr.io/x/y@{sha}")),
            (
                &format!("x:1@{sha}"),
                &format!("docker.io/library/x:1@{sha}"),
            ),
            (&format!("x/{long}"), &format!("docker.io/x/{long}:latest")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference, canonical.parse().unwrap());
        }
    }

    #[test]
    fn what_is_no_name_says_where() {
        let id = "a".repeat(64);
        let long = format!("x/{}", "a".repeat(254));
        let tag = format!("x:{}", "a".repeat(129));
        for (text, at, reason) in [
            ("", 1, "missing"),
            ("Debian", 1, "capital"),
            ("Host/x", 1, "capital"),
            ("debian:", 8, "tag is missing"),
            ("debian:.1", 8, "begins with"),
            ("debian:1 2", 9, "letters, digits"),
            ("a//b", 3, "empty"),
            ("a/b/", 5, "empty"),
            ("ghcr.io/", 9, "missing"),
            ("ghcr.io/x/Y", 11, "capital"),
            ("a..b", 2, "separators"),
            ("a-", 2, "ends with"),
            ("_a", 1, "begins with"),
            ("ä", 1, "small letters"),
            ("ä.de/x", 1, "registry has letters"),
            ("-x.de/x", 1, "not the name of a registry"),
            ("h:99999/x", 3, "port"),
            ("h:+80/x", 3, "port"),
            ("[::g]/x", 1, "IPv6"),
            ("x@sha512:00", 3, "sha512"),
            ("x@sha256:00", 3, "64 hex digits"),
            ("x@y", 3, "sha256:"),
            ("ä@y", 3, "sha256:"),
            (&id, 1, "64 hex digits are the id"),
            (&long, 256, "255 characters"),
            (&tag, 131, "128 characters"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert_eq!(error.at, at, "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_known_by_its_name() {
        for (name, is) in [
            ("localhost:1/x", true),
            ("127.9.9.9/x", true),
            ("[::1]:80/x", true),
            ("localhost.de/x", false),
            ("127.0.0.1.de/x", false),
            ("[::2]/x", false),
            ("debian", false),
        ] {
            let reference: Reference = name.parse().unwrap();
            assert_eq!(is_loopback(reference.host()), is, "{name}");
        }
    }
}
