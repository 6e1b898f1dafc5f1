//! Downloads that the caller keeps and lends to a run, so that nothing has to be fetched again.
//!
//! ```text
//! engine   finds or fetches the file of a known checksum, and names its path in the job
//! helper   opens it as the caller, before it becomes somebody else ([`Lent::open`]); in a machine of its own it opens the
//!          copy that a disk has ([`MachineDisks::lent`](crate::MachineDisks::lent))
//! executor copies it from there to where the step wants it, and checks it on the way ([`Kept::copy`])
//! ```
//!
//! Nothing flows back, and steps see no more than before: no path of the host is in their root, and what is open
//! belongs to the executor, which they cannot look into, and to no program that it starts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amiforge_recipe::actions::{Checksum, ChecksumAlgorithm, S3Uri, WebUrl};
use amiforge_types::{Digest, Hasher};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::actions::{Receiver, StepError, TryError, Wanted, body, chain, retrying, web};
use crate::aws::s3::{Frame, S3};
use crate::event::Download;
use crate::net::{Hash, Http};
use crate::outside::Outside;

/// Files that one run is lent: each is an open file of it.
pub const MOST_LENT: usize = 256;

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// What a download is known by: an algorithm and its digits, as in `sha256-…`. Also the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptName(String);

impl KeptName {
    /// By the checksum of a document.
    #[must_use]
    pub fn of(sum: &Checksum) -> Self {
        Self(format!(
            "{}-{}",
            sum.algorithm.name().to_ascii_lowercase(),
            sum.digits
        ))
    }

    /// By the digest of a lock.
    #[must_use]
    pub fn of_digest(sha256: Digest) -> Self {
        Self::of(&Checksum {
            algorithm: ChecksumAlgorithm::Sha256,
            digits: sha256.hex(),
        })
    }

    /// The name of its file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        use ChecksumAlgorithm::{Md5, Sha1, Sha256, Sha512};
        let (name, _) = self.0.split_once('-')?;
        let mut all = [Md5, Sha1, Sha256, Sha512].into_iter();
        all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Whether a file has the content that this names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_of(&self, file: &File) -> io::Result<bool> {
        let Some(algorithm) = self.algorithm() else {
            return Ok(false);
        };
        let (mut hash, mut piece, mut at) = (Hash::new(algorithm), vec![0; PIECE], 0);
        loop {
            match file.read_at(&mut piece, at)? {
                0 => break,
                count => {
                    hash.update(piece.get(..count).unwrap_or_default());
                    at += count as u64;
                }
            }
        }
        let digits = hash.finish();
        Ok(self.0.ends_with(&format!("-{digits}")))
    }
}

/// A file of the caller's that a download may be taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentDownload {
    /// What it is.
    pub name: KeptName,
    /// Where it is on the host.
    pub path: PathBuf,
}

/// The lent files, opened.
#[derive(Clone, Default)]
pub(crate) struct Lent(BTreeMap<KeptName, Arc<File>>);

/// Which files they are; what is in them is found out when they are used.
impl PartialEq for Lent {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

impl Eq for Lent {}

impl Lent {
    /// Opens what is lent, with the rights of the calling process.
    ///
    /// # Errors
    /// The path that cannot be opened or is no file, with why.
    pub(crate) fn open(all: &[LentDownload]) -> io::Result<Self> {
        let mut opened = BTreeMap::new();
        for lent in all.iter().take(MOST_LENT) {
            let told = |e: io::Error| {
                io::Error::new(
                    e.kind(),
                    format!("cannot open {}: {e}", lent.path.display()),
                )
            };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(&lent.path, flags, Mode::empty());
            let file = File::from(file.map_err(|e| told(e.into()))?);
            if !file.metadata().map_err(told)?.is_file() {
                return Err(told(io::ErrorKind::InvalidInput.into()));
            }
            opened.insert(lent.name.clone(), Arc::new(file));
        }
        Ok(Self(opened))
    }

    /// The first of `names` that is there.
    pub(crate) fn any<'n>(&self, names: impl IntoIterator<Item = &'n KeptName>) -> Option<Kept> {
        names.into_iter().find_map(|name| {
            let file = self.0.get(name)?.clone();
            Some(Kept {
                name: name.clone(),
                file,
            })
        })
    }
}

/// A lent file that a download is taken from.
pub(crate) struct Kept {
    name: KeptName,
    file: Arc<File>,
}

impl Kept {
    /// Copies it into `receiver`. `false` when it is no longer what its name says, or not what is `wanted`: then the
    /// receiver is empty again.
    pub(crate) fn copy(
        &self,
        wanted: &Wanted<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<bool, StepError> {
        receiver.restart()?;
        let (mut piece, mut at) = (vec![0; PIECE], 0);
        let mut sum = wanted.checksum.map(|sum| Hash::new(sum.algorithm));
        let mut own = self.name.algorithm().map(Hash::new);
        let is_whole = loop {
            if wanted.is_late() {
                return Err(StepError::TimedOut);
            }
            let count = match self.file.read_at(&mut piece, at) {
                Ok(0) => break true,
                Ok(count) => count,
                Err(_) => break false,
            };
            at += count as u64;
            if at > wanted.limit {
                return Err(StepError::TooLarge {
                    path: format!("the download {}", self.name.as_str()),
                    size: self.file.metadata().map_or(at, |m| m.len()),
                    limit: wanted.limit,
                });
            }
            let bytes = piece.get(..count).unwrap_or_default();
            for hash in sum.iter_mut().chain(&mut own) {
                hash.update(bytes);
            }
            receiver.write(bytes)?;
        };
        let sum = sum.map(Hash::finish);
        let fits = wanted.checksum.map(|wanted| &wanted.digits) == sum.as_ref();
        let own = own.map(|own| format!("-{}", own.finish()));
        if is_whole && fits && own.is_some_and(|own| self.name.as_str().ends_with(&own)) {
            return Ok(true);
        }
        receiver.restart()?;
        Ok(false)
    }
}

/// Where a download comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The web.
    Web {
        /// Its address.
        url: WebUrl,
        /// True: the server may be anybody.
        insecure: bool,
    },
    /// An object of S3.
    S3 {
        /// Its address.
        uri: S3Uri,
        /// The account that must own the bucket.
        owner: Option<String>,
    },
}

impl Origin {
    /// The one of an address as a lock has it; `None` where that is masked or says nothing.
    #[must_use]
    pub fn of(address: &str) -> Option<Self> {
        // One with a mask in it is another address.
        if address.contains('*') {
            return None;
        }
        if let Ok(uri) = S3Uri::parse(address) {
            return Some(Self::S3 { uri, owner: None });
        }
        let url = WebUrl::parse(address).ok()?;
        Some(Self::Web {
            url,
            insecure: false,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web { url, .. } => url.fmt(f),
            Self::S3 { uri, .. } => uri.fmt(f),
        }
    }
}

/// Takes in what a download brings, and what is to be known of it.
struct Filling<'f> {
    file: &'f mut File,
    hasher: Hasher,
    bytes: u64,
    cancel: &'f AtomicBool,
}

impl Receiver for Filling<'_> {
    fn restart(&mut self) -> Result<(), StepError> {
        use std::io::Seek as _;
        (self.hasher, self.bytes) = (Hasher::new(), 0);
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(unwritten)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        use std::io::Write as _;
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StepError::TimedOut);
        }
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.file.write_all(bytes).map_err(unwritten)
    }
}

fn unwritten(source: io::Error) -> StepError {
    StepError::File {
        action: "write",
        path: "the cache of downloads".to_owned(),
        source,
    }
}

/// Fetches what is at an address into `file`, as an action of a step would; ends soon once `cancel` is raised.
///
/// # Errors
/// Why there is nothing, in one line.
pub fn fetch_download(
    from: &Origin,
    outside: &Outside,
    file: &mut File,
    cancel: &AtomicBool,
) -> Result<Download, String> {
    let env = BTreeMap::new();
    let http = Http::new(&env, outside);
    let wanted = Wanted {
        checksum: None,
        limit: http.patience().bytes,
        deadline: None,
    };
    let place = from.to_string();
    let mut filling = Filling {
        file,
        hasher: Hasher::new(),
        bytes: 0,
        cancel,
    };
    let s3 = S3::new(&http, outside);
    retrying(&http, None, &mut |_| {}, || match from {
        Origin::Web { url, insecure } => {
            let show = |url: &WebUrl| url.to_string();
            web(&http, url, *insecure, &show, &wanted, &mut filling)
        }
        Origin::S3 { uri, owner } => {
            let frame = Frame {
                place: &place,
                owner: owner.as_deref(),
                deadline: None,
            };
            let response = s3.get(uri, frame).map_err(TryError::from)?;
            body(&http, response, &place, &wanted, &mut filling)
        }
    })
    .map_err(|error| chain(&error))?;
    Ok(Download {
        source: place.clone(),
        sha256: filling.hasher.finish(),
        bytes: filling.bytes,
        checked: false,
    })
}

#[cfg(test)]
mod tests;
