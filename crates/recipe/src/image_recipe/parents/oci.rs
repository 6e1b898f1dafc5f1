//! Names of images in registries.
//! Source: OCI distribution specification 1.1, "Pulling manifests"; the rule that tells a registry from a repository is
//! that of container engines.

use std::fmt;

use amiforge_types::Digest;

/// Most characters of a repository with its registry.
const MOST_NAME: usize = 255;

/// `[<registry>/]<repository>[:<tag>][@sha256:<digest>]`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    /// Host and port of the registry; where none is written, engines take `docker.io`.
    pub registry: Option<String>,
    /// Path of the repository, such as `library/debian`.
    pub repository: String,
    /// The tag; where there is neither tag nor digest, engines take `latest`.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Option<Digest>,
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

impl OciReference {
    /// Reads a reference; the error says what is wrong with which part.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let shown = crate::decode::shown;
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => match digest.strip_prefix("sha256:").map(str::parse) {
                Some(Ok(digest)) => (name, Some(digest)),
                _ => {
                    let message = "is not a digest: `sha256:` and 64 hex digits";
                    return Err(format!("{} {message}", shown(digest)));
                }
            },
        };
        let (path, tag) = match name.rsplit_once(':') {
            // A colon before a slash is that of a registry's port.
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("{} is not a tag", shown(tag)));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
                (Some(host), rest)
            }
            _ => (None, path),
        };
        if let Some(host) = registry.filter(|host| !is_host(host)) {
            return Err(format!("{} is not the address of a registry", shown(host)));
        }
        if path.len() > MOST_NAME {
            return Err(format!(
                "the name of a repository has at most {MOST_NAME} characters"
            ));
        }
        if !repository.split('/').all(is_component) {
            let message = "is not a repository: lower-case letters, digits, and `.`, `_`, `-`, `/` between them";
            return Err(format!("{} {message}", shown(repository)));
        }
        Ok(Self {
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(super) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= 128 && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    text.starts_with(plain) && text.ends_with(plain) && text.split(plain).all(separator)
}

/// A host name or address with or without a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => ("ipv6", Some(port)),
                None if rest.is_empty() => ("ipv6", None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    port && host.split('.').all(label)
}
