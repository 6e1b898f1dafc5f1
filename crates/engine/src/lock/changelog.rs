//! `lock update --changelog`: what the maintainers of upgraded packages say of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use amiforge_source::{
    ChangelogEntry, ChangelogError, PackageFile, PackageSource, ResolvedDebian, ResolvedPackage,
};
use serde::Serialize;

use super::update::{LockedPackage, PackageFate};
use crate::error::{EngineError, chain};
use crate::look::threads;
use crate::settings::Engine;

/// Most bytes of all entries that are told together.
const MAX_BYTES: usize = 16 << 20;

/// What changed in a package, by its Debian changelog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedChangelog {
    /// The source package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A package of this report, of the same source and versions, that has the entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Entries newer than the old version, the newest first. No text in them drives a terminal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<ChangelogEntry>,
    /// True: there are older entries that are not told, since the package has them no more or they are too many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl LockedChangelog {
    /// For people, below the line of the package.
    pub(super) fn write(&self, text: &mut String) {
        if let Some(other) = &self.same_as {
            let _ = writeln!(text, "    as {other}");
        }
        if let Some(why) = &self.missing {
            let _ = writeln!(text, "    no changelog: {why}");
        }
        for entry in &self.entries {
            let ChangelogEntry {
                source,
                version,
                distributions,
                ..
            } = entry;
            let urgency = entry.urgency.as_ref();
            let urgency = urgency.map_or(String::new(), |word| format!("; urgency={word}"));
            let _ = writeln!(text, "    {source} ({version}) {distributions}{urgency}");
            for line in &entry.changes {
                let _ = writeln!(text, "    {line}");
            }
            let _ = writeln!(text, "     -- {}  {}", entry.maintainer, entry.date);
        }
        if self.cut {
            let _ = writeln!(text, "    and older entries, which are not here");
        }
    }
}

impl Engine {
    /// Adds to upgraded packages what their changelogs say. Brings the packages into the cache, as the next build would.
    pub(super) fn add_changelogs(
        &self,
        packages: &mut [LockedPackage],
        old: Option<&ResolvedDebian>,
        new: &ResolvedDebian,
        offline: bool,
    ) -> Result<(), EngineError> {
        let upgraded: Vec<&ResolvedPackage> = packages
            .iter()
            .filter(|package| package.change == PackageFate::Upgraded)
            .filter_map(|package| find(new, &package.name, &package.architecture))
            .collect();
        // Offline, what is there is enough.
        if !offline {
            self.bring(new, &upgraded)?;
        }
        let (mut told, mut room) = (BTreeMap::new(), MAX_BYTES);
        for package in packages {
            let Some(now) = find(new, &package.name, &package.architecture) else {
                continue;
            };
            let (PackageFate::Upgraded, Some(version)) = (package.change, &package.old) else {
                continue;
            };
            let before = old.and_then(|old| find(old, &package.name, &package.architecture));
            let mut log = self
                .changelog(new, now, (version, before), offline, &mut told)
                .unwrap_or_else(|error| LockedChangelog {
                    missing: Some(chain(&error)),
                    ..LockedChangelog::default()
                });
            log.entries.retain(|entry| {
                let bytes: usize = entry.changes.iter().map(String::len).sum();
                let fits = bytes <= room;
                log.cut |= !fits;
                room = room.saturating_sub(bytes);
                fits
            });
            package.changelog = Some(log);
        }
        Ok(())
    }

    fn bring(
        &self,
        resolved: &ResolvedDebian,
        packages: &[&ResolvedPackage],
    ) -> Result<(), EngineError> {
        let only = ResolvedDebian {
            packages: packages.iter().map(|package| (*package).clone()).collect(),
            ..resolved.clone()
        };
        self.fetch_packages(&only, false, threads()).map(drop)
    }

    /// `told`: the packages by whose entries a source is told already.
    fn changelog(
        &self,
        all: &ResolvedDebian,
        now: &ResolvedPackage,
        (version, before): (&str, Option<&ResolvedPackage>),
        offline: bool,
        told: &mut BTreeMap<(PackageSource, String, String), String>,
    ) -> Result<LockedChangelog, ChangelogError> {
        let path = self.deb_of(now);
        if !path.is_file() {
            return Ok(LockedChangelog {
                missing: Some("the package is not in the cache".to_owned()),
                ..LockedChangelog::default()
            });
        }
        let file = PackageFile::open(now, &path)?;
        let source = file.source()?;
        // The package of before may be gone, and damaged it is of no use.
        let before = before.and_then(|before| {
            let file = PackageFile::open(before, &self.deb_of(before)).ok()?;
            file.source().ok()
        });
        let since = before.as_ref().map_or(version, |source| &source.version);
        let key = (source.clone(), since.to_owned(), now.version.clone());
        if let Some(other) = told.get(&key) {
            return Ok(LockedChangelog {
                source: Some(source.name),
                same_as: Some(other.clone()),
                ..LockedChangelog::default()
            });
        }
        let mut other = |name: &str| {
            let package = find(all, name, &now.arch).or_else(|| find(all, name, "all"))?;
            let path = self.deb_of(package);
            if !path.is_file() && !offline {
                self.bring(all, &[package]).ok()?;
            }
            PackageFile::open(package, &path).ok()
        };
        let log = file.changelog(version, before.as_ref(), &mut other)?;
        told.insert(key, now.name.clone());
        Ok(LockedChangelog {
            source: Some(source.name),
            entries: log.entries,
            cut: !log.complete,
            ..LockedChangelog::default()
        })
    }

    fn deb_of(&self, package: &ResolvedPackage) -> PathBuf {
        let cache = self.settings.home.downloads();
        cache.join(format!("archives/{}.deb", package.sha256))
    }
}

fn find<'a>(lock: &'a ResolvedDebian, name: &str, arch: &str) -> Option<&'a ResolvedPackage> {
    let mut all = lock.packages.iter();
    all.find(|package| package.name == name && package.arch == arch)
}
