//! Which packages the layer for a boot is made of: chosen and fetched by the parent's apt once, and by their digests from
//! then on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use amiforge_exec::{RootSpec, Sandbox};
use amiforge_plan::LayerPlan;
use amiforge_source::{
    BOOT_LIST, BOOT_PACKAGES, BootArchive, BootPackages, Context, fetch_sized_file, keep_file,
};
use amiforge_store::{FileBlob, LayerUse, RootUse, Store};
use amiforge_tree::{Content, Inode, Kind, LayerDiff, LayerEntry, Stat};
use amiforge_types::{BlobTable, ByteSize, Digest, Hasher, LayerId};
use serde::{Deserialize, Serialize};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{Made, Work, store_context};
use crate::parent::source_error;
use crate::settings::Engine;

/// Most packages, and most bytes of the list of them.
const MAX_PACKAGES: usize = 10_000;
const MAX_LIST: u64 = 16 << 20;

/// Bytes that a package may have, and all of them together.
const MAX_PACKAGE: u64 = 4 << 30;
const MAX_ALL: u64 = 16 << 30;

/// What a lock says of the packages for a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BootLock {
    /// What the recipe asked for.
    pub(crate) asked: BootAsked,
    /// What that came to, sorted.
    pub(crate) packages: Vec<BootPackage>,
}

/// What a recipe asks for; a lock of something else does not fit it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BootAsked {
    /// Packages in place of the default ones; `None` leaves it at these.
    packages: Option<Vec<String>>,
    include: Vec<String>,
    mirror: Option<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// SHA-256 of the armoured keyring.
    keyring: Option<Digest>,
}

impl BootAsked {
    pub(super) fn of(wanted: &BootPackages) -> Self {
        let archive = wanted.archive.as_ref();
        let list = |of: fn(&BootArchive) -> &Vec<String>| archive.map(of).cloned();
        Self {
            packages: wanted.packages.clone(),
            include: wanted.include.clone(),
            mirror: archive.map(|archive| archive.mirror.clone()),
            suites: list(|archive| &archive.suites).unwrap_or_default(),
            components: list(|archive| &archive.components).unwrap_or_default(),
            keyring: archive
                .and_then(|archive| archive.keys.as_ref())
                .map(|keys| Digest::of(keys.as_bytes())),
        }
    }
}

impl BootLock {
    /// Whether every package is one, and each is there once.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (at, package) in self.packages.iter().enumerate() {
            let checked = package.check();
            checked.map_err(|reason| format!("packages[{at}]: {reason}"))?;
            if !seen.insert((&package.name, &package.arch)) {
                return Err(format!(
                    "packages[{at}]: {} {} is there twice",
                    package.name, package.arch
                ));
            }
        }
        Ok(())
    }
}

/// A package that a layer for a boot was made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BootPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) sha256: Digest,
    /// Bytes of the package.
    pub(crate) size: u64,
    /// Where apt had it from, without user and password.
    pub(crate) uri: String,
}

impl BootPackage {
    /// Its file name.
    fn file(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.arch)
    }

    /// Its name, version and architecture as apt writes them into a file name; `None` of other names.
    fn of_file(name: &str) -> Option<(String, String, String)> {
        let mut parts = name.strip_suffix(".deb")?.split('_');
        let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
        let version = version.replace("%3a", ":");
        let found = (name.to_owned(), version, arch.to_owned());
        (parts.next().is_none() && is_package(&found.0, &found.1, &found.2)).then_some(found)
    }

    /// Whether nothing in it is more than the name of a package or an address (deb-control(5), deb-version(7)).
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_package(&self.name, &self.version, &self.arch) {
            return Err("not the name, version and architecture of a package".to_owned());
        }
        let printed = self.uri.bytes().all(|b| b.is_ascii_graphic());
        if self.uri.is_empty() || self.uri.len() > 4096 || !printed {
            return Err("uri: not an address".to_owned());
        }
        if self.size > MAX_PACKAGE {
            return Err(format!("size: more than {}", ByteSize(MAX_PACKAGE)));
        }
        Ok(())
    }
}

fn is_package(name: &str, version: &str, arch: &str) -> bool {
    let all = |text: &str, more: &str| {
        let is = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is)
    };
    all(name, "+-.") && all(version, "+-.:~") && all(arch, "-") && version.len() < 128
}

/// The lines of `apt-get --print-uris`: address by file name.
fn addresses(list: &str) -> BTreeMap<&str, &str> {
    list.lines().filter_map(address).collect()
}

/// The file name and the address of `'URI' name size digest`.
fn address(line: &str) -> Option<(&str, &str)> {
    let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    Some((rest.split(' ').next()?, uri))
}

/// An address without user and password.
fn public(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => uri.to_owned(),
    }
}

/// The packages as a lower directory, for as long as it lives.
pub(super) struct Lent<'a> {
    engine: &'a Engine,
    store: &'a Store,
    id: LayerId,
    uses: Vec<RootUse>,
    _used: LayerUse,
    /// The directory.
    pub(super) lower: PathBuf,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // What cannot be removed belongs to no build, and goes when the store is collected.
        self.uses.clear();
        let _ = self.engine.remove_root(self.store, self.id);
        let _ = self.store.remove_layer(self.id);
    }
}

impl Engine {
    /// Has the parent's apt choose packages and fetch them, in an overlay of its own; brings them into the cache.
    pub(super) fn download_boot_packages(
        &self,
        work: &Work<'_>,
        planned: &LayerPlan,
        made: &Made,
        sandbox: &Sandbox,
        script: String,
    ) -> Result<Vec<BootPackage>, EngineError> {
        let parent = &work.plan.parent_image;
        let what = format!("fetching the packages for a boot of {parent}");
        let run = |root: &RootSpec, cancel: &AtomicBool| {
            self.run_script(sandbox, root, cancel, planned, made, (script, what))
        };
        let mut blobs = BlobTable::new();
        let diff = self.changes(work, sandbox, planned, made, &mut blobs, run)?;
        let bad = |reason: String| {
            let message = format!("the apt of {parent} fetched no packages: {reason}");
            EngineError::new(ErrorKind::Failed, message)
        };
        let mut files = BTreeMap::new();
        for (path, entry) in &diff.entries {
            let name = std::str::from_utf8(path).ok();
            let name = name.and_then(|path| path.strip_prefix(BOOT_PACKAGES)?.strip_prefix('/'));
            let (Some(name), LayerEntry::Put(inode)) = (name, entry) else {
                continue;
            };
            if let Kind::File(content) = &inode.kind {
                files.insert(name, content);
            }
        }
        let list = match files.get(BOOT_LIST) {
            Some(list) => list.read_to_vec(&blobs, MAX_LIST),
            None => return Err(bad("there is no list of them".to_owned())),
        };
        let list = list.or_fail(ErrorKind::Failed, store_context)?;
        let list = String::from_utf8(list).map_err(|_| bad("their list is no text".to_owned()))?;
        let addresses = addresses(&list);
        if addresses.len() > MAX_PACKAGES {
            return Err(bad(format!("there are more than {MAX_PACKAGES}")));
        }
        let bytes = files.values().map(|content| content.size);
        if bytes.fold(0, u64::saturating_add) > MAX_ALL {
            return Err(bad(format!("they have more than {}", ByteSize(MAX_ALL))));
        }
        let cache = self.settings.home.downloads();
        let mut packages = Vec::new();
        for (name, uri) in addresses {
            let named = crate::shown::shown(name.as_bytes());
            let content = files
                .get(name)
                .ok_or_else(|| bad(format!("{named} is not there")))?;
            let (name, version, arch) = BootPackage::of_file(name)
                .ok_or_else(|| bad(format!("{named} is not the name of a package")))?;
            let (sha256, size) = keep_file(&cache, &mut content.reader(&blobs))
                .map_err(|error| source_error(error, format!("cannot keep {named}")))?;
            let package = BootPackage {
                name,
                version,
                arch,
                sha256,
                size,
                uri: public(uri),
            };
            package
                .check()
                .map_err(|reason| bad(format!("{named}: {reason}")))?;
            packages.push(package);
        }
        packages.sort();
        Ok(packages)
    }

    /// The packages from the cache, or else from where they were, as a lower directory.
    pub(super) fn lend_boot_packages<'a>(
        &'a self,
        work: &Work<'a>,
        planned: &LayerPlan,
        made: &Made,
        sandbox: &Sandbox,
        packages: &[BootPackage],
    ) -> Result<Lent<'a>, EngineError> {
        let events = |event| self.source_event(event);
        let cache = self.settings.home.downloads();
        let context = self.context(&cache, &events, work.offline, work.jobs);
        let mut blobs = BlobTable::new();
        let mut diff = LayerDiff::default();
        let stat = |mode| Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: made.clock,
        };
        // Nothing of the parent's own shows through.
        let dir = LayerEntry::PutOpaque(Inode::new(stat(0o755), Kind::Dir));
        diff.entries.insert(BOOT_PACKAGES.into(), dir);
        let mut hash = Hasher::new();
        hash.field(b"amiforge-boot-packages-v1");
        // Of each build that makes the layer its own: nobody else's is taken away.
        hash.field(planned.id.to_string().as_bytes());
        hash.field(std::process::id().to_string().as_bytes());
        for package in packages {
            let path = self.boot_package(package, &context)?;
            let blob = FileBlob::open(&path).or_fail(ErrorKind::Failed, store_context)?;
            let id = blobs.add(Arc::new(blob));
            let content = Content::blob(id, 0, package.size);
            let inode = Inode::new(stat(0o644), Kind::File(content));
            let path = format!("{BOOT_PACKAGES}/{}", package.file());
            diff.entries.insert(path.into(), LayerEntry::Put(inode));
            hash.field(package.sha256.hex().as_bytes());
        }
        let id = LayerId(hash.finish());
        let used = work
            .store
            .use_layers(&[id], std::time::SystemTime::now())
            .or_fail(ErrorKind::Failed, store_context)?;
        work.store
            .put_layer(id, &diff, &blobs)
            .or_fail(ErrorKind::Failed, store_context)?;
        let mut lent = Lent {
            engine: self,
            store: work.store,
            id,
            uses: Vec::new(),
            _used: used,
            lower: PathBuf::new(),
        };
        let title = "the packages for a boot".to_owned();
        let (lowers, uses) = self.lowers_of(work.store, sandbox, &[(id, title)])?;
        lent.uses = uses;
        lent.lower = lowers.into_iter().next().unwrap_or_default();
        Ok(lent)
    }

    /// A package in the cache, where it is brought if need be.
    fn boot_package(
        &self,
        package: &BootPackage,
        context: &Context<'_>,
    ) -> Result<PathBuf, EngineError> {
        let what = || format!("cannot get {} {}", package.name, package.version);
        let cached = context.cache.join("files").join(package.sha256.hex());
        let of_server = ["http://", "https://"]
            .iter()
            .any(|scheme| package.uri.starts_with(scheme));
        if !of_server && !cached.exists() {
            let reason = format!(
                "{}: it is not in the cache, and {} is no address of a server",
                what(),
                package.uri
            );
            return Err(EngineError::new(ErrorKind::Failed, reason));
        }
        let path = fetch_sized_file(&package.uri, (package.sha256, package.size), context)
            .map_err(|error| source_error(error, what()))?;
        let size = fs_err::metadata(&path).or_fail(ErrorKind::Failed, store_context)?;
        if size.len() != package.size {
            let reason = format!(
                "{}: it has {} bytes, the lock says {}",
                what(),
                size.len(),
                package.size
            );
            return Err(EngineError::new(ErrorKind::Invalid, reason));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_prints_is_read() {
        let list = "'http://example.org/pool/g/gcc/libgcc-s1_12.2.0-14_amd64.deb' libgcc-s1_12.2.0-14_amd64.deb 49900 SHA256:ab\n\
                    'http://u:p@example.org/b%7e1.deb' b_1%3a2%7e1_all.deb 3 \nnoise\n'cut\n";
        let found = addresses(list);
        let found: Vec<_> = found.iter().collect();
        assert_eq!(
            found,
            [
                (&"b_1%3a2%7e1_all.deb", &"http://u:p@example.org/b%7e1.deb"),
                (
                    &"libgcc-s1_12.2.0-14_amd64.deb",
                    &"http://example.org/pool/g/gcc/libgcc-s1_12.2.0-14_amd64.deb"
                ),
            ]
        );
    }

    #[test]
    fn names_of_files_are_names_of_packages() {
        let of = BootPackage::of_file;
        let found = of("login_1%3a4.13+dfsg1-1+deb12u1_amd64.deb").unwrap();
        assert_eq!(
            (&*found.0, &*found.1, &*found.2),
            ("login", "1:4.13+dfsg1-1+deb12u1", "amd64")
        );
        for bad in [
            "a_1_all",
            "a_1.deb",
            "a_1_all_x.deb",
            "-a_1_all.deb",
            "a/b_1_all.deb",
            "a_1;x_all.deb",
            "_1_all.deb",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn passwords_stay_out_of_locks() {
        assert_eq!(public("https://u:p@h.org/a@b"), "https://h.org/a@b");
        assert_eq!(public("https://h.org/a@b"), "https://h.org/a@b");
        assert_eq!(public("file:/srv/a"), "file:/srv/a");
    }
}
