//! What a run is lent of the world outside its root, beside the [`RunSpec`](crate::RunSpec): it is
//! secret, or of this machine, and must not reach a log, an event, the environment of a step or an id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

use amiforge_types::Digest;
use serde::{Deserialize, Serialize};

use crate::aws::AwsAccess;
use crate::aws::s3::Sizes;
use crate::kept::{Lent, LentDownload};
use crate::net::Patience;

/// The end of the reason of a step that wants a download which the lock does not have.
pub const NOT_PINNED: &str = "is not in the lock, and its step has no checksum";

/// The digests that the file at an address may have, by the address as [`Download`](crate::Download) has it.
pub type Pins = BTreeMap<String, BTreeSet<Digest>>;

/// What the transfer actions may use of the caller's. It crosses the pipe to a sandbox and the port of
/// a guest, and is dropped with the run.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// True: nothing is fetched but from the root's own loopback.
    #[serde(default)]
    pub offline: bool,
    /// `http_proxy`, `https_proxy` and `no_proxy` of the caller; the environment of the step wins.
    #[serde(default)]
    pub proxies: BTreeMap<String, String>,
    /// For the S3 actions. `None`: as if no source of credentials knew any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsAccess>,
    /// What downloads must be: anything else fails the step, and so does one that is not here and has no checksum of
    /// its own. `None`: they may be anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Pins>,
    /// Files that downloads are taken from instead of being fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lent: Vec<LentDownload>,
    /// Secrets by their names, which are names of files: there in `/run/secrets` while the run takes, and masked in all
    /// it tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Process ids that are used up before the first step starts, so that it gets others than it would.
    #[serde(default, skip_serializing_if = "no")]
    pub skipped_pids: u32,
    /// [`lent`](Self::lent), opened.
    #[serde(skip)]
    pub(crate) opened: Lent,
    #[serde(skip)]
    pub(crate) patience: Patience,
    #[serde(skip)]
    pub(crate) sizes: Sizes,
}

fn no(count: &u32) -> bool {
    *count == 0
}

impl Outside {
    /// The same for a machine of its own, which reaches our loopback at `host`, and has the lent files in the folder `lent`.
    pub(crate) fn seen_from_machine(mut self, host: Ipv4Addr, lent: &Path) -> Self {
        for (name, proxy) in &mut self.proxies {
            if name != "no_proxy"
                && let Some(there) = proxy_seen_from_machine(proxy, host)
            {
                *proxy = there;
            }
        }
        for file in &mut self.lent {
            file.path = lent.join(file.name.as_str());
        }
        self
    }
}

/// A proxy on our loopback, by the address that a machine reaches it at; `None` when it is elsewhere. Of other addresses of
/// the loopback network nothing is known: somebody else may listen there.
fn proxy_seen_from_machine(proxy: &str, host: Ipv4Addr) -> Option<String> {
    let after_scheme = proxy.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = proxy.split_at(after_scheme);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, place) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let port_at = match place.find(']') {
        Some(at) => at + 1,
        None => place.find(':').unwrap_or(place.len()),
    };
    let (name, port) = place.split_at(port_at);
    let ours = name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]");
    ours.then(|| format!("{scheme}{user}{host}{port}{path}"))
}

/// Proxies may hold passwords, the rest is a secret anyway.
impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("offline", &self.offline)
            .field("aws", &self.aws)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::KeptName;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    #[test]
    fn a_proxy_on_our_loopback_has_another_address_in_a_machine() {
        for (here, there) in [
            ("127.0.0.1:3128", Some("10.0.2.2:3128")),
            ("localhost", Some("10.0.2.2")),
            ("http://localhost:3128/", Some("http://10.0.2.2:3128/")),
            ("HTTP://LocalHost:3128", Some("HTTP://10.0.2.2:3128")),
            ("http://[::1]:3128", Some("http://10.0.2.2:3128")),
            ("[::1]", Some("10.0.2.2")),
            (
                "http://bob:p%40ss@127.0.0.1:1/x?y",
                Some("http://bob:p%40ss@10.0.2.2:1/x?y"),
            ),
            // Not ours, or not known to be the same.
            ("http://127.0.0.1.example.com:1", None),
            ("http://localhost.example.com", None),
            ("http://localhost:pw@proxy.example.com:1", None),
            ("http://proxy.example.com/127.0.0.1", None),
            ("http://127.0.0.2:3128", None),
            ("http://[::1", None),
            ("http://[2001:db8::1]:1", None),
            ("http://10.0.2.2:3128", None),
            ("", None),
        ] {
            let found = proxy_seen_from_machine(here, HOST);
            assert_eq!(found.as_deref(), there, "{here}");
        }
    }

    #[test]
    fn what_a_machine_is_lent_is_named_as_it_is_there() {
        let name = KeptName::of_digest(Digest::of(b"x"));
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            let list = list.iter();
            list.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let outside = Outside {
            proxies: map(&[
                ("http_proxy", "localhost:1"),
                ("https_proxy", "http://proxy.test:2"),
                ("no_proxy", "localhost"),
            ]),
            lent: vec![LentDownload {
                name: name.clone(),
                path: "/home/somebody/cache/x".into(),
            }],
            ..Outside::default()
        };
        let there = outside.seen_from_machine(HOST, Path::new("/lent"));
        let proxies = map(&[
            ("http_proxy", "10.0.2.2:1"),
            ("https_proxy", "http://proxy.test:2"),
            ("no_proxy", "localhost"),
        ]);
        assert_eq!(there.proxies, proxies);
        let path = Path::new("/lent").join(name.as_str());
        assert_eq!(there.lent, [LentDownload { name, path }]);
    }
}
