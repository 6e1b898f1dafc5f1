//! What a run is lent of the world outside its root, beside the [`RunSpec`](crate::RunSpec): it is
//! secret, or of this machine, and must not reach a log, an event, the environment of a step or an id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// [`lent`](Self::lent), opened.
    /// Process ids that are used up before the first step starts, so that it gets others than it would.
    #[serde(default, skip_serializing_if = "no")]
    pub skipped_pids: u32,
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

/// Proxies may hold passwords, the rest is a secret anyway.
impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("offline", &self.offline)
            .field("aws", &self.aws)
            .finish_non_exhaustive()
    }
}
