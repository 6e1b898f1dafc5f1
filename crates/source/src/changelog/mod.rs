//! What changed in a package: the entries of its Debian changelog that are newer than a version.
//!
//! ```text
//! usr/share/doc/PACKAGE/changelog.Debian.gz         of a package with an upstream (Debian policy, 12.7)
//! usr/share/doc/PACKAGE/changelog.gz                of a native one; else that of upstream, which is in no form
//! usr/share/doc/PACKAGE/changelog.Debian.ARCH.gz    the entry of a rebuild, beside the others
//! usr/share/doc/PACKAGE -> OTHER                    the same changelog as that package's
//! ```

mod text;

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use amiforge_types::Digest;
use serde::Serialize;

use crate::ResolvedPackage;
use crate::apt::version::compare;
use crate::deb::{Control, DebError, EntryKind, TarReader, decompress, members};

pub(crate) use text::parse;

/// Most bytes that the files of a package may have before its changelog is found.
const MAX_DATA: u64 = 8 << 30;

/// Most bytes of one changelog as it is stored, and of its text; the newest entries come first, so that what is beyond
/// is what is least wanted.
const MAX_STORED: u64 = 8 << 20;
const MAX_TEXT: u64 = 8 << 20;

/// Most entries of one package that are told, and most bytes of their text.
const MAX_ENTRIES: usize = 500;
const MAX_BYTES: usize = 512 << 10;

/// Packages that one may lead on to.
const MAX_HOPS: usize = 4;

/// Where documents are.
const DOC: &str = "usr/share/doc/";

/// One entry of a changelog (deb-changelog(5)). All texts are of one line and have no character that drives a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangelogEntry {
    /// Source package.
    pub source: String,
    /// Its version.
    pub version: String,
    /// Where it was uploaded to, such as `bookworm-security`.
    pub distributions: String,
    /// `low`, `medium`, `high` … as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urgency: Option<String>,
    /// The changes, line by line, as they are indented.
    pub changes: Vec<String>,
    /// Name and address.
    pub maintainer: String,
    /// As written, in the form of RFC 5322.
    pub date: String,
}

/// What changed in a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    /// The newest first.
    pub entries: Vec<ChangelogEntry>,
    /// Whether it reaches back to the old version. Debian cuts off what is old, and so are we when it is too much.
    pub complete: bool,
}

/// What of a package says which entries are new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageSource {
    /// The source package.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A changelog that is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangelogError {
    /// The package cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The package is damaged.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The package is not in its form.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// It has none.
    #[error("the package has no changelog")]
    Missing,
    /// It has one that is not in the form of a Debian changelog.
    #[error("its changelog is not a Debian changelog")]
    Form,
    /// It is that of a package which is not at hand.
    #[error("its changelog is that of {package}, which is not installed")]
    Elsewhere {
        /// The other package.
        package: String,
    },
    /// The source has other versions than the package.
    #[error("the versions of its source are others, and the package of before is not in the cache")]
    Unknown,
}

/// A package file, verified.
pub struct PackageFile<'p> {
    package: &'p ResolvedPackage,
    bytes: Vec<u8>,
}

/// A changelog in a package, or where to look.
enum Found {
    Texts(Vec<Vec<u8>>),
    Elsewhere(String),
}

impl<'p> PackageFile<'p> {
    /// Reads the `.deb` of a package.
    ///
    /// # Errors
    /// When it cannot be read, or is not the one that the lock names.
    pub fn open(package: &'p ResolvedPackage, deb: &Path) -> Result<Self, ChangelogError> {
        let path = || deb.to_owned();
        let bytes = fs_err::read(deb).map_err(|source| ChangelogError::Io {
            path: path(),
            source,
        })?;
        if Digest::of(&bytes) != package.sha256 {
            return Err(ChangelogError::Damaged { path: path() });
        }
        Ok(Self { package, bytes })
    }

    /// The source that it was built from.
    ///
    /// # Errors
    /// When the package is not in its form.
    pub fn source(&self) -> Result<PackageSource, ChangelogError> {
        let (control, _) = members(&self.bytes)?;
        let control = Control::read(control, self.package)?;
        Ok(source_of(
            control.field("Source"),
            &self.package.name,
            &self.package.version,
        ))
    }

    /// The entries that are newer than `old`, a version of the package; `before` is the source of that one, where it is
    /// known. `other` gives the files of other installed packages.
    ///
    /// # Errors
    /// Why there are none.
    pub fn changelog(
        &self,
        old: &str,
        before: Option<&PackageSource>,
        other: &mut dyn FnMut(&str) -> Option<PackageFile<'p>>,
    ) -> Result<Changelog, ChangelogError> {
        let source = self.source()?;
        let since = match before {
            // A rebuild is newer than its source, which has not changed.
            Some(before) if is_rebuilt_or_same(old, &before.version) => old,
            Some(before) => &before.version,
            None if is_rebuilt_or_same(&self.package.version, &source.version) => old,
            None => return Err(ChangelogError::Unknown),
        };
        let mut next: Option<PackageFile<'p>> = None;
        for _ in 0..MAX_HOPS {
            let at = next.as_ref().unwrap_or(self);
            match at.find()? {
                Found::Texts(texts) => {
                    let texts: Vec<String> = texts
                        .iter()
                        .map(|text| String::from_utf8_lossy(text).into_owned())
                        .collect();
                    return newer(&texts, since);
                }
                Found::Elsewhere(name) => {
                    let Some(file) = other(&name) else {
                        return Err(ChangelogError::Elsewhere { package: name });
                    };
                    next = Some(file);
                }
            }
        }
        Err(ChangelogError::Missing)
    }

    fn find(&self) -> Result<Found, ChangelogError> {
        let own = format!("{DOC}{}", self.package.name);
        let (_, data) = members(&self.bytes)?;
        let reader = BufReader::new(decompress(data)?.take(MAX_DATA));
        let mut tar = TarReader::new(Box::new(reader), "data");
        let mut files: BTreeMap<String, Stored> = BTreeMap::new();
        while let Some(entry) = tar.next()? {
            let Ok(path) = String::from_utf8(entry.path.clone()) else {
                continue;
            };
            if path == own
                && let EntryKind::Symlink(target) = &entry.kind
            {
                let target = joined(DOC, &String::from_utf8_lossy(target));
                return Ok(match owner(&target) {
                    Some(package) => Found::Elsewhere(package.to_owned()),
                    None => return Err(ChangelogError::Missing),
                });
            }
            let Some(name) = path.strip_prefix(&own).and_then(|p| p.strip_prefix('/')) else {
                continue;
            };
            if !names(&self.package.arch).iter().any(|known| known == name) {
                continue;
            }
            let stored = match entry.kind {
                EntryKind::File => Stored::Bytes(tar.content_vec(MAX_STORED)?),
                EntryKind::Symlink(target) => {
                    let folder = format!("{own}/");
                    Stored::Link(joined(&folder, &String::from_utf8_lossy(&target)))
                }
                EntryKind::Hardlink(target) => {
                    Stored::Link(String::from_utf8_lossy(&target).into_owned())
                }
                _ => continue,
            };
            files.insert(path, stored);
        }
        let mut texts = Vec::new();
        for name in names(&self.package.arch) {
            // What upstream calls its changelog is not ours beside one of Debian's.
            if !name.starts_with("changelog.Debian") && !texts.is_empty() {
                break;
            }
            match files.get(&format!("{own}/{name}")) {
                Some(Stored::Bytes(bytes)) => texts.push(unpacked(&name, bytes)?),
                Some(Stored::Link(target)) => match files.get(target) {
                    Some(Stored::Bytes(bytes)) => texts.push(unpacked(target, bytes)?),
                    _ => match owner(target) {
                        Some(package) if package != self.package.name => {
                            return Ok(Found::Elsewhere(package.to_owned()));
                        }
                        _ => {}
                    },
                },
                None => {}
            }
        }
        match texts.is_empty() {
            true => Err(ChangelogError::Missing),
            false => Ok(Found::Texts(texts)),
        }
    }
}

/// What a package has at the place of a changelog.
enum Stored {
    Bytes(Vec<u8>),
    /// From the root.
    Link(String),
}

/// Names of changelogs in the order in which they count.
fn names(arch: &str) -> [String; 7] {
    [
        format!("changelog.Debian.{arch}.gz"),
        format!("changelog.Debian.{arch}"),
        "changelog.Debian.gz".to_owned(),
        "changelog.Debian".to_owned(),
        format!("changelog.{arch}.gz"),
        "changelog.gz".to_owned(),
        "changelog".to_owned(),
    ]
}

/// Where a link in `folder` leads, from the root.
fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => folder.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The package whose documents a path is among.
fn owner(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(DOC)?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

fn unpacked(name: &str, bytes: &[u8]) -> Result<Vec<u8>, DebError> {
    let mut text = Vec::new();
    let read = match name.ends_with(".gz") {
        true => flate2::read::MultiGzDecoder::new(bytes)
            .take(MAX_TEXT)
            .read_to_end(&mut text),
        false => bytes.take(MAX_TEXT).read_to_end(&mut text),
    };
    read.map_err(|source| DebError::Io {
        part: "the changelog",
        source,
    })?;
    Ok(text)
}

/// `Source: name (version)`; the version only where it is not that of the package, both where they are.
fn source_of(field: Option<&str>, package: &str, version: &str) -> PackageSource {
    let field = field.map(str::trim).filter(|field| !field.is_empty());
    let (name, own) = match field {
        Some(field) => match field.split_once('(') {
            Some((name, rest)) => (name.trim(), Some(rest.trim_end_matches(')').trim())),
            None => (field, None),
        },
        None => (package, None),
    };
    PackageSource {
        name: name.to_owned(),
        version: own.unwrap_or(version).to_owned(),
    }
}

/// Whether a package has the version of its source, or that with the mark of a rebuild (`+b1`).
fn is_rebuilt_or_same(package: &str, source: &str) -> bool {
    let rest = package.strip_prefix(source);
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix("+b")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The entries of all texts that are newer than a version.
fn newer(texts: &[String], since: &str) -> Result<Changelog, ChangelogError> {
    let mut entries = Vec::new();
    let (mut complete, mut any) = (false, false);
    let mut room = MAX_BYTES;
    for entry in texts.iter().flat_map(|text| parse(text)) {
        any = true;
        if compare(&entry.version, since).is_le() {
            complete = true;
            continue;
        }
        let bytes: usize = entry.changes.iter().map(|line| line.len() + 1).sum();
        match room.checked_sub(bytes) {
            Some(left) if entries.len() < MAX_ENTRIES => {
                room = left;
                entries.push(entry);
            }
            _ => {
                complete = false;
                break;
            }
        }
    }
    match any {
        true => Ok(Changelog { entries, complete }),
        false => Err(ChangelogError::Form),
    }
}

#[cfg(test)]
mod tests;
