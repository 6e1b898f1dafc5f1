//! Why something could not be fetched, and whether another try may help.

use std::io;
use std::time::Duration;

use amiforge_recipe::actions::WebUrlError;

use super::resolver::LookupError;

/// A request that came to nothing. `place` is the address it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    #[error("{place} is not fetched: the build runs offline (`--offline`)")]
    Offline { place: String },
    #[error("{place} cannot be reached: {reason}")]
    Unreachable { place: String, reason: String },
    #[error("{place}: {reason}")]
    Broken { place: String, reason: String },
    #[error("{place} cannot be reached: this root has no network but its own loopback")]
    NoNetwork { place: String },
    #[error("{place} cannot be reached")]
    NoHost {
        place: String,
        #[source]
        source: Box<LookupError>,
    },
    #[error(
        "the certificate of {place} is not accepted: {reason}; authorities from {roots} (`ignoreCertificateErrors: true` of WebDownload accepts any)"
    )]
    Certificate {
        place: String,
        reason: String,
        roots: String,
    },
    #[error("{place} and this machine do not agree on TLS: {reason}")]
    Tls { place: String, reason: String },
    #[error("{place} answered with status {status}{}", told(.status))]
    Status {
        place: String,
        status: u16,
        retry_after: Option<Duration>,
    },
    #[error("{place} leads on more than {limit} times")]
    Redirects { place: String, limit: u32 },
    #[error("{place} leads to {location:?}, from which nothing is downloaded")]
    Redirect {
        place: String,
        location: String,
        #[source]
        source: WebUrlError,
    },
    #[error("{place} leads on, and does not say where")]
    NoLocation { place: String },
    #[error("{place} ended after {got} of {promised} bytes")]
    Short {
        place: String,
        got: u64,
        promised: u64,
    },
    #[error("{place} has more than the {limit} bytes that are taken")]
    TooLarge { place: String, limit: u64 },
    #[error("{place} has the {algorithm} checksum {found}, not {expected}")]
    Checksum {
        place: String,
        algorithm: &'static str,
        found: String,
        expected: String,
    },
    #[error("the proxy {proxy} of {variable} is not an address of a proxy")]
    Proxy { variable: String, proxy: String },
}

impl NetError {
    /// Whether the same may succeed a little later. A server that says no, wrong bytes and a wrong
    /// certificate stay what they are.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Short { .. } => true,
            Self::NoHost { source, .. } => matches!(**source, LookupError::NoAnswer { .. }),
            Self::Status { status, .. } => passing_status(*status),
            _ => false,
        }
    }

    /// What the server asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Statuses of a server that is busy or broken at the moment.
pub(crate) fn passing_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599) && status != 501
}

fn told(status: &u16) -> &'static str {
    match status {
        401 => " (it wants a user and a password)",
        403 => " (forbidden)",
        404 => " (there is nothing)",
        407 => " (the proxy wants a user and a password)",
        410 => " (it is gone)",
        429 => " (too many requests)",
        500..=599 => " (a fault of the server)",
        _ => "",
    }
}

/// Sorts what the HTTP client says. `roots` is where the certificate authorities are from.
pub(super) fn classify(place: &str, roots: &str, error: ureq::Error) -> NetError {
    let place = place.to_owned();
    let reason = |text: &str| text.to_owned();
    match error {
        ureq::Error::Io(error) => of_io(place, roots, &error),
        ureq::Error::Rustls(error) => of_tls(place, roots, &error),
        ureq::Error::Other(error) => match error.downcast::<LookupError>() {
            Ok(_) if cut_off() => NetError::NoNetwork { place },
            Ok(source) => NetError::NoHost { place, source },
            Err(other) => NetError::Broken {
                place,
                reason: other.to_string(),
            },
        },
        ureq::Error::HostNotFound => NetError::NoHost {
            source: Box::new(LookupError::NoHost(place.clone())),
            place,
        },
        ureq::Error::Timeout(_) => NetError::Broken {
            place,
            reason: reason("nothing was heard for too long"),
        },
        ureq::Error::ConnectionFailed => NetError::Unreachable {
            place,
            reason: reason("the connection failed"),
        },
        ureq::Error::ConnectProxyFailed(why) => NetError::Unreachable { place, reason: why },
        // Nonsense in an answer may be one bad server of several.
        other => NetError::Broken {
            place,
            reason: other.to_string(),
        },
    }
}

/// The same for an error while a body is read or written.
pub(crate) fn of_io(place: String, roots: &str, error: &io::Error) -> NetError {
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return of_tls(place, roots, tls);
    }
    if let Some(ureq::Error::Timeout(_)) = inner.and_then(|e| e.downcast_ref()) {
        return NetError::Broken {
            place,
            reason: "nothing was heard for too long".to_owned(),
        };
    }
    match error.kind() {
        _ if error.raw_os_error() == Some(NO_FAMILY) && cut_off() => NetError::NoNetwork { place },
        io::ErrorKind::NetworkUnreachable if cut_off() => NetError::NoNetwork { place },
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => NetError::Unreachable {
            place,
            reason: error.to_string(),
        },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => NetError::Broken {
            place,
            reason: "nothing was heard for too long".to_owned(),
        },
        _ => NetError::Broken {
            place,
            reason: format!("the connection broke: {error}"),
        },
    }
}

fn of_tls(place: String, roots: &str, error: &rustls::Error) -> NetError {
    match error {
        rustls::Error::InvalidCertificate(why) => NetError::Certificate {
            place,
            reason: why.to_string(),
            roots: roots.to_owned(),
        },
        other => NetError::Tls {
            place,
            reason: other.to_string(),
        },
    }
}

/// What the kernel, or a filter, says where there are no sockets of the internet (socket(2), `EAFNOSUPPORT`).
const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

/// Whether there is no interface but `lo`, or not even that.
fn cut_off() -> bool {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0");
    if socket.is_err_and(|error| error.raw_os_error() == Some(NO_FAMILY)) {
        return true;
    }
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    !text.is_empty() && names.map(str::trim).all(|name| name == "lo")
}
