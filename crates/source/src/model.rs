//! What is asked for, and what it resolved to. The second is the lock: it alone decides the bytes of
//! the unpacked layer.

use std::path::{Path, PathBuf};

use amiforge_types::{Arch, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Asked, Proxies, SourceEvent};

/// A Debian parent as the recipe asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianRequest {
    /// The suite after `debian:`, for example `bookworm`.
    pub suite: String,
    /// The architecture of the image.
    pub arch: Arch,
    /// Settings that take the place of the host's apt configuration.
    pub apt: AptSettings,
    /// Which packages form the base of the set.
    pub variant: Variant,
    /// Replaces the default packages (kernel, init, boot loader, network, cloud-init …). An entry is
    /// `name`, `name=version` or `name/suite`.
    pub packages: Option<Vec<String>>,
    /// Packages in addition, in the same form.
    pub include: Vec<String>,
    /// Packages that must not be installed, also not as a dependency.
    pub exclude: Vec<String>,
}

impl DebianRequest {
    /// The request that `debian:<suite>` alone makes.
    #[must_use]
    pub fn new(suite: &str, arch: Arch) -> Self {
        Self {
            suite: suite.to_owned(),
            arch,
            apt: AptSettings::default(),
            variant: Variant::Minimal,
            packages: None,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// Which packages are in the set whatever the lists say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Packages marked Essential, and apt.
    #[default]
    Minimal,
    /// Packages marked Essential only.
    Essential,
    /// Packages marked Essential or of priority `required`, and apt.
    Required,
    /// Packages marked Essential, of priority `required` or `important`, and apt.
    Standard,
}

/// `amiforge.apt` of a recipe. What is absent comes from the host's apt configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AptSettings {
    /// Base address of the archive (`http`, `https` or `file`), which then serves the suite alone:
    /// without the `-updates` and `-security` suites of the host. `@SNAPSHOTID@` in it is replaced by
    /// `snapshot`.
    pub mirror: Option<String>,
    /// Suites to read from `mirror`, in place of the one asked for.
    pub suites: Option<Vec<String>>,
    /// Archive components, for example `main`.
    pub components: Option<Vec<String>>,
    /// OpenPGP keyring (binary or armoured) that signs the archive; absolute, or below the recipe's
    /// folder, which the caller has already resolved.
    pub keyring: Option<PathBuf>,
    /// A point in time of the archive, for example `20250520T000000Z`. The address is the `mirror`'s
    /// `@SNAPSHOTID@`, or the one that the archive itself names in `Snapshots:` of its Release file.
    pub snapshot: Option<String>,
    /// Whether an expired Release file is refused; the host's `Acquire::Check-Valid-Until` otherwise.
    pub check_valid_until: Option<bool>,
}

/// Everything from outside that resolving and fetching may use.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Root of the host's files (`/` except in tests): `etc/apt`, `usr/share/keyrings` below it.
    pub host_root: &'a Path,
    /// Folder for downloads, usually `<cache>/v1`. Made when missing.
    pub cache: &'a Path,
    /// The wall clock, to judge signatures and `Valid-Until` by.
    pub now: Timestamp,
    /// Never use the network; what is not in the cache is an error.
    pub offline: bool,
    /// Downloads and decompressions under way at once; at least 1.
    pub jobs: usize,
    /// Proxies of archives for which the apt configuration names none, and of registries.
    pub proxies: &'a Proxies,
    /// Receives progress and warnings, from any thread.
    pub events: &'a (dyn Fn(SourceEvent) + Sync),
}

/// A Debian parent, pinned: the lock of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedDebian {
    /// Form of this structure; 2.
    pub format: u32,
    /// The suite asked for.
    pub suite: String,
    /// `Codename` of the archive's Release file.
    pub codename: String,
    /// The architecture.
    pub arch: Arch,
    /// What else was asked for.
    pub asked: Asked,
    /// The packages in the order in which their `preinst` runs: dependencies first.
    pub packages: Vec<ResolvedPackage>,
    /// The archives the packages come from.
    pub archives: Vec<ResolvedArchive>,
    /// Newest `Date` of the archives: the build clock when nothing else sets it.
    pub newest: Timestamp,
    /// Apt source files for the image: path below `/` and text.
    pub sources: Vec<GeneratedFile>,
}

impl ResolvedDebian {
    /// The lock of a package by name.
    #[must_use]
    pub fn package(&self, name: &str) -> Option<&ResolvedPackage> {
        self.packages.iter().find(|p| p.name == name)
    }

    /// Digest of all that decides the unpacked layer.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = amiforge_types::Hasher::new();
        hasher.field(b"amiforge-debian-v1");
        hasher.field(self.codename.as_bytes());
        hasher.field(self.arch.debian().as_bytes());
        for p in &self.packages {
            hasher.field(p.name.as_bytes());
            hasher.field(p.sha256.as_bytes());
            hasher.field(&[p.stage, u8::from(p.auto)]);
        }
        for file in &self.sources {
            hasher.field(file.path.as_bytes());
            hasher.field(file.text.as_bytes());
        }
        hasher.field(&self.newest.secs.to_le_bytes());
        hasher.finish()
    }

    /// Bytes of all packages together.
    #[must_use]
    pub fn download_bytes(&self) -> u64 {
        self.packages
            .iter()
            .map(|p| p.size)
            .fold(0, u64::saturating_add)
    }
}

/// One package of a [`ResolvedDebian`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPackage {
    /// Name.
    pub name: String,
    /// Version in Debian's form.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Path of the `.deb` below the archive's base address.
    pub filename: String,
    /// Base address of the archive, without a final slash.
    pub uri: String,
    /// When it is configured: 0 base-passwd and what it needs, 1 base-files likewise, 2 the other
    /// essential packages, 3 the rest.
    pub stage: u8,
    /// Installed only because another package needs it.
    pub auto: bool,
}

/// One signed archive (a Release file) of a [`ResolvedDebian`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedArchive {
    /// Base address without a final slash.
    pub uri: String,
    /// Suite as it stands in the address.
    pub suite: String,
    /// Components used.
    pub components: Vec<String>,
    /// Digest of the `InRelease` file.
    pub in_release: Digest,
    /// Its `Date`.
    pub date: Timestamp,
    /// Its `Valid-Until`.
    pub valid_until: Option<Timestamp>,
    /// Fingerprint of the key whose signature was accepted.
    pub signed_by: String,
    /// Index files with their digests, by the path in the Release file.
    pub indices: Vec<ResolvedIndex>,
}

/// One index file of a [`ResolvedArchive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedIndex {
    /// Path in the Release file, for example `main/binary-amd64/Packages.xz`.
    pub path: String,
    /// Digest of the file as downloaded.
    pub sha256: Digest,
}

/// A small text file of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedFile {
    /// Absolute path in the image.
    pub path: String,
    /// Content.
    pub text: String,
}

/// The `.deb` files of a [`ResolvedDebian`] on disk, verified, in the order of its packages.
#[derive(Clone, Debug)]
pub struct FetchedDebian {
    /// One path for each package.
    pub debs: Vec<PathBuf>,
    /// Bytes that came over the network in this run.
    pub downloaded: u64,
}
