//! Package indices (`Packages`): one paragraph for each binary package.

use std::collections::HashMap;

use amiforge_types::Digest;

use super::version;
use crate::SourceError;

/// What the solver and the downloader need of one paragraph. Text borrows from the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexEntry<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) arch: &'a str,
    pub(crate) priority: &'a str,
    pub(crate) essential: bool,
    pub(crate) depends: &'a str,
    pub(crate) pre_depends: &'a str,
    pub(crate) conflicts: &'a str,
    pub(crate) breaks: &'a str,
    pub(crate) provides: &'a str,
    pub(crate) filename: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: &'a str,
    /// Which archive it is from, as an index of the caller's list.
    pub(crate) archive: usize,
}

impl IndexEntry<'_> {
    /// The digest of the `.deb`.
    pub(crate) fn digest(&self) -> Result<Digest, SourceError> {
        self.sha256.parse().map_err(|_| {
            SourceError::malformed(self.name, "its SHA256 in the index is not a digest")
        })
    }
}

/// Reads a whole index. `what` names it in errors. Entries of other architectures are left out.
pub(crate) fn parse<'a>(
    text: &'a str,
    what: &str,
    arch: &str,
    archive: usize,
    out: &mut Vec<IndexEntry<'a>>,
) -> Result<(), SourceError> {
    let bad = |line: usize, reason: &str| SourceError::malformed(format!("{what}:{line}"), reason);
    let mut entry = IndexEntry {
        archive,
        ..IndexEntry::default()
    };
    let mut started = false;
    for (number, line) in text.lines().chain(std::iter::once("")).enumerate() {
        let number = number + 1;
        match line.as_bytes().first() {
            None => {
                if std::mem::take(&mut started) {
                    let done = std::mem::replace(
                        &mut entry,
                        IndexEntry {
                            archive,
                            ..IndexEntry::default()
                        },
                    );
                    finish(done, arch, out).map_err(|reason| bad(number, reason))?;
                }
                continue;
            }
            // Continuation lines belong to the description and to tags, which nothing here reads.
            Some(b' ' | b'\t' | b'#') => continue,
            Some(_) => {}
        }
        started = true;
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(number, "expected `Field: value`"))?;
        let value = value.trim();
        match name {
            "Package" => entry.name = value,
            "Version" => entry.version = value,
            "Architecture" => entry.arch = value,
            "Priority" => entry.priority = value,
            "Essential" => entry.essential = value == "yes",
            "Depends" => entry.depends = value,
            "Pre-Depends" => entry.pre_depends = value,
            "Conflicts" => entry.conflicts = value,
            "Breaks" => entry.breaks = value,
            "Provides" => entry.provides = value,
            "Filename" => entry.filename = value,
            "SHA256" => entry.sha256 = value,
            "Size" => {
                entry.size = value
                    .parse()
                    .map_err(|_| bad(number, "Size is not a number"))?
            }
            _ => {}
        }
    }
    Ok(())
}

fn finish<'a>(
    entry: IndexEntry<'a>,
    arch: &str,
    out: &mut Vec<IndexEntry<'a>>,
) -> Result<(), &'static str> {
    if entry.arch != arch && entry.arch != "all" {
        return Ok(());
    }
    if !is_package_name(entry.name) {
        return Err("not a package name");
    }
    if !version::is_valid(entry.version) {
        return Err("not a version");
    }
    if !is_pool_path(entry.filename) {
        return Err("not the path of a package");
    }
    if entry.sha256.len() != 64 {
        return Err("no SHA256");
    }
    out.push(entry);
    Ok(())
}

/// A name as Debian policy has it, of a length that some package has.
pub(crate) fn is_package_name(name: &str) -> bool {
    (2..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// A path below an archive's base address that leads nowhere else.
pub(crate) fn is_pool_path(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path
            .bytes()
            .any(|b| b <= b' ' || b >= 127 || b == b'?' || b == b'#')
        && path.split('/').all(|part| part != "..")
}

/// All packages of all archives, by name and by what they provide.
pub(crate) struct Universe<'a> {
    pub(crate) entries: Vec<IndexEntry<'a>>,
    /// Positions in `entries` for a name, best candidate first.
    pub(crate) by_name: HashMap<&'a str, Vec<u32>>,
    /// Positions in `entries` of what provides a name, with the version provided.
    pub(crate) providers: HashMap<&'a str, Vec<(u32, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// `pin` gives an archive's priority: of two versions the one with the higher pin wins, then the
    /// newer, then the one of the archive that is named first.
    pub(crate) fn new(
        entries: Vec<IndexEntry<'a>>,
        arch: &str,
        pin: impl Fn(usize) -> i32,
    ) -> Self {
        let mut by_name: HashMap<&'a str, Vec<u32>> = HashMap::with_capacity(entries.len());
        let mut providers: HashMap<&'a str, Vec<(u32, Option<&'a str>)>> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            by_name.entry(entry.name).or_default().push(i);
            if !entry.provides.is_empty() {
                for group in super::relation::parse(entry.provides, arch) {
                    for atom in group {
                        providers
                            .entry(atom.name)
                            .or_default()
                            .push((i, atom.version.map(|(_, v)| v)));
                    }
                }
            }
        }
        for list in by_name.values_mut() {
            if list.len() > 1 {
                list.sort_by(|a, b| {
                    let (x, y) = (&entries[*a as usize], &entries[*b as usize]);
                    pin(y.archive)
                        .cmp(&pin(x.archive))
                        .then_with(|| version::compare(y.version, x.version))
                        .then_with(|| a.cmp(b))
                });
            }
        }
        Self {
            entries,
            by_name,
            providers,
        }
    }

    /// The candidate of a name.
    pub(crate) fn candidate(&self, name: &str) -> Option<u32> {
        self.by_name
            .get(name)
            .and_then(|list| list.first().copied())
    }

    pub(crate) fn entry(&self, i: u32) -> &IndexEntry<'a> {
        &self.entries[i as usize]
    }
}
