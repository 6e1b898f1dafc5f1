//! `lock.json`: a resolution written down, and read back so that a build can be repeated.
//!
//! The form is [`ResolvedDebian`] as JSON (`docs/formats/lock.md`). What is read back decides what is
//! downloaded and which bytes go into an image, so it is held to the rules that an archive's own index is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::apt::{hostconf, index, version};
use crate::{DebianRequest, ResolvedDebian, Variant};

/// The only form that is written and read.
pub(crate) const FORMAT: u32 = 2;

/// Longest lock that is read, in bytes; a thousand packages take half a megabyte.
pub const MAX_LOCK_BYTES: u64 = 64 << 20;

/// What was asked for when a lock was made: a recipe that asks for something else since does not fit it.
///
/// Only what the recipe says. What the host's apt configuration or the defaults of this program add
/// is no reason to refuse a lock: to be independent of these is what a lock is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// See [`crate::AptSettings::mirror`].
    pub mirror: Option<String>,
    /// See [`crate::AptSettings::suites`].
    pub suites: Option<Vec<String>>,
    /// See [`crate::AptSettings::components`].
    pub components: Option<Vec<String>>,
    /// See [`crate::AptSettings::snapshot`].
    pub snapshot: Option<String>,
    /// See [`DebianRequest::variant`].
    pub variant: Variant,
    /// See [`DebianRequest::packages`].
    pub packages: Option<Vec<String>>,
    /// See [`DebianRequest::include`].
    pub include: Vec<String>,
    /// See [`DebianRequest::exclude`].
    pub exclude: Vec<String>,
}

impl Asked {
    pub(crate) fn of(request: &DebianRequest) -> Self {
        Self {
            mirror: request.apt.mirror.clone(),
            suites: request.apt.suites.clone(),
            components: request.apt.components.clone(),
            snapshot: request.apt.snapshot.clone(),
            variant: request.variant,
            packages: request.packages.clone(),
            include: request.include.clone(),
            exclude: request.exclude.clone(),
        }
    }
}

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Not JSON of the right shape: cut off, edited, or another file.
    #[error("it is not a lock")]
    Json(#[source] serde_json::Error),
    /// Made by another release.
    #[error("it has format {found}, this release reads {read}")]
    Format {
        /// The format found.
        found: u64,
        /// The format of this release.
        read: u32,
    },
    /// A value that no resolution has.
    #[error("{place}: {reason}")]
    Value {
        /// The member, for example `packages[3] (nginx)`.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ResolvedDebian {
    /// Reads a lock and checks every value in it.
    pub fn from_lock(bytes: &[u8]) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(LockError::Json)?;
        if head.format != u64::from(FORMAT) {
            return Err(LockError::Format {
                found: head.format,
                read: FORMAT,
            });
        }
        let lock: Self = serde_json::from_slice(bytes).map_err(LockError::Json)?;
        lock.check()?;
        Ok(lock)
    }

    fn check(&self) -> Result<(), LockError> {
        let arch = self.arch.debian();
        let mut names = BTreeSet::new();
        for (at, package) in self.packages.iter().enumerate() {
            let reason = if !index::is_package_name(&package.name) {
                "not a package name"
            } else if !names.insert(&package.name) {
                "this package is in it twice"
            } else if !version::is_valid(&package.version) {
                "not a version"
            } else if package.arch != arch && package.arch != "all" {
                "of another architecture"
            } else if !index::is_pool_path(&package.filename) {
                "not the path of a package"
            } else if !hostconf::is_base_uri(&package.uri) {
                "not the address of an archive"
            } else if package.stage > 3 {
                "there is no such stage"
            } else {
                continue;
            };
            // A name that is none is not repeated: it may be anything.
            let name = if reason == "not a package name" {
                ""
            } else {
                &package.name
            };
            return Err(LockError::Value {
                place: format!("packages[{at}] ({name})"),
                reason,
            });
        }
        for (at, file) in self.sources.iter().enumerate() {
            let plain = file.path.starts_with("/etc/apt/")
                && file.path.len() <= 255
                && file.path.bytes().all(|b| b.is_ascii_graphic())
                && file
                    .path
                    .split('/')
                    .skip(1)
                    .all(|p| !p.is_empty() && p != "." && p != "..");
            if !plain {
                return Err(LockError::Value {
                    place: format!("sources[{at}]"),
                    reason: "not a file below /etc/apt",
                });
            }
        }
        Ok(())
    }

    /// In what a request differs from the one that this lock was made for; empty when it fits.
    #[must_use]
    pub fn unlike(&self, request: &DebianRequest) -> Vec<String> {
        let (was, is) = (&self.asked, Asked::of(request));
        let mut out = Vec::new();
        if self.suite != request.suite {
            out.push(format!(
                "the lock is of debian:{}, the recipe says debian:{}",
                self.suite, request.suite
            ));
        }
        if self.arch != request.arch {
            out.push(format!(
                "the lock is of {}, the image is of {}",
                self.arch, request.arch
            ));
        }
        if was.variant != is.variant {
            out.push("amiforge.apt.variant is another".to_owned());
        }
        match (&was.packages, &is.packages) {
            (Some(was), Some(is)) => out.extend(list_change("packages", was, is)),
            (None, None) => {}
            (Some(_), None) => out
                .push("amiforge.apt.packages: the lock has a list, the recipe has none".to_owned()),
            (None, Some(_)) => out.push(
                "amiforge.apt.packages: the recipe has a list, the lock is of the defaults"
                    .to_owned(),
            ),
        }
        out.extend(list_change("include", &was.include, &is.include));
        out.extend(list_change("exclude", &was.exclude, &is.exclude));
        // Values are not shown: an address can hold a password.
        for (name, same) in [
            ("mirror", was.mirror == is.mirror),
            ("suites", was.suites == is.suites),
            ("components", was.components == is.components),
            ("snapshot", was.snapshot == is.snapshot),
        ] {
            if !same {
                out.push(format!("amiforge.apt.{name} is another"));
            }
        }
        out
    }
}

/// What changed between two lists of packages; their order counts for nothing.
fn list_change(name: &str, was: &[String], is: &[String]) -> Option<String> {
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (was.iter().collect(), is.iter().collect());
    let new = is.difference(&was).map(|p| format!("{p} is new"));
    let gone = was.difference(&is).map(|p| format!("{p} is gone"));
    let changes: Vec<String> = new.chain(gone).collect();
    (!changes.is_empty()).then(|| format!("amiforge.apt.{name}: {}", changes.join(", ")))
}
