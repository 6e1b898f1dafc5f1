//! The parent `debian:<suite>`: resolving it, and making its lowest layer.

use std::collections::BTreeMap;
use std::path::Path;

use amiforge_recipe::{AptVariant, ParentImage, instead_of_suite};
use amiforge_source::oci::OciError;
use amiforge_source::{
    AptSettings, Context, DebianRequest, FetchedDebian, ResolvedDebian, SHIMS, SourceError,
    SourceEvent, Variant,
};
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{Arch, Digest, LayerId, Timestamp};

use crate::error::{EngineError, ErrorKind};
use crate::event::Event;
use crate::layers::Work;
use crate::load::LoadedRecipe;
use crate::look::threads;
use crate::settings::Engine;

impl Engine {
    /// The packages of the recipe's parent.
    pub(super) fn resolve_debian(
        &self,
        recipe: &LoadedRecipe,
        offline: bool,
    ) -> Result<ResolvedDebian, EngineError> {
        let request = debian_request(recipe)?;
        let events = |event| self.source_event(event);
        let cache = self.settings.home.downloads();
        amiforge_source::resolve(&request, &self.context(&cache, &events, offline, threads()))
            .map_err(|error| {
                let hint = recipe_hint(&recipe.recipe.amiforge.apt, &error);
                let error = source_error(error, format!("cannot resolve {}", recipe.recipe.parent));
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            })
    }

    /// Brings the packages into the cache.
    pub(crate) fn fetch_packages(
        &self,
        resolved: &ResolvedDebian,
        offline: bool,
        jobs: usize,
    ) -> Result<FetchedDebian, EngineError> {
        let events = |event| self.source_event(event);
        let cache = self.settings.home.downloads();
        amiforge_source::fetch(resolved, &self.context(&cache, &events, offline, jobs))
            .map_err(|error| source_error(error, "cannot fetch the packages".to_owned()))
    }

    /// Makes the layer of the unpacked packages.
    pub(crate) fn unpack_debian(
        &self,
        work: &Work<'_>,
        resolved: &ResolvedDebian,
        id: LayerId,
    ) -> Result<LayerInfo, EngineError> {
        let debs = self.fetch_packages(resolved, work.offline, work.jobs)?;
        self.stage("unpack", format!("{} packages", resolved.packages.len()));
        unpack(self, work, resolved, &debs, id)
    }

    /// What resolving and fetching may use.
    pub(crate) fn context<'a>(
        &'a self,
        cache: &'a Path,
        events: &'a (dyn Fn(SourceEvent) + Sync),
        offline: bool,
        jobs: usize,
    ) -> Context<'a> {
        Context {
            host_root: &self.settings.host_root,
            cache,
            now: self.settings.now,
            offline,
            jobs,
            proxies: &self.settings.source_proxies,
            events,
        }
    }

    pub(crate) fn source_event(&self, event: SourceEvent) {
        match event {
            SourceEvent::Warning(message) => self.warn(message),
            SourceEvent::FetchStarted { packages, bytes } => {
                self.stage(
                    "download",
                    format!("{packages} packages, {}", amiforge_types::ByteSize(bytes)),
                );
            }
            SourceEvent::FetchProgress { bytes, total } => {
                self.emit(Event::Progress {
                    name: "download",
                    done: bytes,
                    total,
                    unit: "bytes",
                });
            }
            SourceEvent::Retry {
                uri,
                attempt,
                reason,
            } => self.warn(format!("{uri}: attempt {attempt} failed: {reason}")),
            SourceEvent::Unpacked { done, total } => {
                self.emit(Event::Progress {
                    name: "unpack",
                    done: done as u64,
                    total: total as u64,
                    unit: "packages",
                });
            }
            SourceEvent::LayersStarted { layers, bytes } => {
                self.stage(
                    "download",
                    format!("{layers} layers, {}", amiforge_types::ByteSize(bytes)),
                );
            }
            SourceEvent::LayerUnpacked { done, total } => {
                self.emit(Event::Progress {
                    name: "unpack",
                    done: done as u64,
                    total: total as u64,
                    unit: "layers",
                });
            }
            _ => {}
        }
    }
}

/// What the recipe asks for as parent.
pub(crate) fn debian_request(recipe: &LoadedRecipe) -> Result<DebianRequest, EngineError> {
    let settings = &recipe.recipe.amiforge.apt;
    let ParentImage::Debian { suite } = &recipe.recipe.parent else {
        return Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{} is not supported as parent", recipe.recipe.parent),
        ));
    };
    let mut request = DebianRequest::new(suite, Arch::X86_64);
    request.apt = AptSettings {
        mirror: settings.mirror.clone(),
        suites: settings.suites.clone(),
        components: settings.components.clone(),
        keyring: settings.keyring.as_ref().map(|k| recipe.dir().join(k)),
        snapshot: settings.snapshot.clone(),
        check_valid_until: settings.check_valid_until,
    };
    request.variant = match settings.variant {
        AptVariant::Essential => Variant::Essential,
        AptVariant::Apt => Variant::Minimal,
        AptVariant::Required => Variant::Required,
        AptVariant::Important => Variant::Standard,
    };
    request.packages.clone_from(&settings.packages);
    request.include.clone_from(&settings.include);
    Ok(request)
}

/// What to write for a suite that its archive does not have, or where the recipe's own archive has no key.
fn recipe_hint(apt: &amiforge_recipe::AptSettings, error: &SourceError) -> Option<String> {
    if matches!(error, SourceError::NoKeyring { .. }) {
        return match (&apt.keyring, &apt.mirror) {
            (Some(file), _) => Some(format!(
                "amiforge.apt.keyring of the recipe names {file}: have the public key of the archive in it, from the recipe's folder"
            )),
            (None, Some(mirror)) => Some(format!(
                "name a file with the public key of {mirror} in the recipe: amiforge.apt.keyring; for a mirror of Debian itself, \
                 installing debian-archive-keyring is enough"
            )),
            (None, None) => None,
        };
    }
    let SourceError::NoSuite { uri, suite, has } = error else {
        return None;
    };
    // Behind a server, nothing but its own pages says what an archive of the recipe has.
    Some(match &apt.mirror {
        Some(_) if has.is_empty() => format!("{uri}/dists/ shows the suites that it has"),
        _ => instead_of_suite(suite, has),
    })
}

pub(crate) fn source_error(error: SourceError, context: String) -> EngineError {
    // Of a package, why it cannot be had decides what to do.
    let reason = match &error {
        SourceError::Package { source, .. } => &**source,
        other => other,
    };
    let kind = match reason {
        SourceError::NoArchive { .. }
        | SourceError::NoKeyring { .. }
        | SourceError::Config { .. } => ErrorKind::Environment,
        SourceError::BadSuite(_) => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    };
    let hint = match reason {
        SourceError::NoArchive { .. } => {
            Some("name a mirror and a keyring in the recipe: amiforge.apt {mirror, keyring}")
        }
        SourceError::NoKeyring { .. } => Some(
            "install debian-archive-keyring, or name a keyring in the recipe: amiforge.apt.keyring",
        ),
        SourceError::Offline { .. } => Some("build once without --offline"),
        SourceError::Gone { .. } => Some(
            "the archive has moved on: build without --locked to take the packages it has now, or name a point in its past in the recipe: amiforge.apt.snapshot",
        ),
        SourceError::Download { .. } => Some(
            "run it again: finished downloads are kept, and a broken one goes on where it stopped",
        ),
        SourceError::Oci { source, .. } if matches!(**source, OciError::Access { .. }) => {
            Some("log in first, with `podman login` or `docker login`")
        }
        _ => None,
    };
    EngineError::wrap(kind, context, error, hint)
}

/// Unpacks the packages into the layer `id`.
fn unpack(
    engine: &Engine,
    work: &Work<'_>,
    resolved: &ResolvedDebian,
    debs: &FetchedDebian,
    id: LayerId,
) -> Result<LayerInfo, EngineError> {
    let context = || {
        format!(
            "cannot unpack the packages into the store {}",
            work.store.path().display()
        )
    };
    let events = |event| engine.source_event(event);
    let cache = engine.settings.home.downloads();
    super::keep_unpacked(work, id, context, |spool, blobs| {
        let ctx = engine.context(&cache, &events, true, work.jobs);
        amiforge_source::unpack(resolved, debs, spool, blobs, &ctx)
            .map_err(|error| source_error(error, context()))
    })
}

/// The script that configures the unpacked packages.
pub(crate) fn configure_script(resolved: &ResolvedDebian, clock: Timestamp) -> String {
    amiforge_source::configure_script(resolved, clock.secs)
}

/// Paths and texts of the scripts that stand in for programs while steps run: none starts a service,
/// and with `configuring` none makes an initrd, of which the configuration makes one by itself.
pub(crate) fn shims(configuring: bool) -> Vec<(String, String)> {
    SHIMS
        .iter()
        .filter(|shim| configuring || !shim.configuring_only)
        .map(|shim| (shim.path.to_owned(), shim.text.to_owned()))
        .collect()
}

/// What decides the bytes of the parent's two layers: the packages, and the scripts.
pub(crate) fn inputs(
    resolved: &ResolvedDebian,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut unpacked: BTreeMap<String, String> = resolved
        .packages
        .iter()
        .map(|p| {
            (
                format!("package.{}", p.name),
                format!(
                    "{} sha256:{}{}",
                    p.version,
                    p.sha256,
                    if p.auto { " auto" } else { "" }
                ),
            )
        })
        .collect();
    for file in &resolved.sources {
        unpacked.insert(
            format!("file.{}", file.path),
            format!("sha256:{}", Digest::of(file.text.as_bytes())),
        );
    }
    unpacked.insert("codename".to_owned(), resolved.codename.clone());
    // The clock is an input of its own, and where it follows from the packages it is not known yet.
    let script = Digest::of(configure_script(resolved, Timestamp::default()).as_bytes());
    let configured = BTreeMap::from([
        ("configureScript".to_owned(), format!("sha256:{script}")),
        ("shims".to_owned(), shims_input()),
    ]);
    (unpacked, configured)
}

/// What stands for the [`shims`] among the inputs of a layer.
pub(super) fn shims_input() -> String {
    let shims: String = shims(true)
        .into_iter()
        .map(|(path, text)| format!("{path}\0{text}\0"))
        .collect();
    format!("sha256:{}", Digest::of(shims.as_bytes()))
}

/// Identity of the resolved parent: what its unpacked layer is made of.
pub(crate) fn digest(resolved: &ResolvedDebian) -> Digest {
    let (unpacked, configured) = inputs(resolved);
    let mut hasher = amiforge_types::Hasher::new();
    for (name, value) in unpacked.iter().chain(&configured) {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.finish()
}

/// What `doctor` says of the host's package archives.
pub(crate) fn describe_host(engine: &Engine) -> Result<String, (String, Option<String>)> {
    let dir = engine.settings.host_root.join("etc/apt");
    if dir.join("sources.list").exists() || dir.join("sources.list.d").exists() {
        Ok(format!("apt configuration in {}", dir.display()))
    } else {
        Err((
            "this host has no apt configuration".to_owned(),
            Some(
                "name a mirror and a keyring in the recipe: amiforge.apt {mirror, keyring}"
                    .to_owned(),
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_asked_for_where_the_recipe_names_its_archive() {
        let error = || SourceError::NoKeyring {
            uri: "https://deb.example.org".to_owned(),
            looked_at: Vec::new(),
        };
        let hint = |mirror: Option<&str>, keyring: Option<&str>| {
            let apt = amiforge_recipe::AptSettings {
                mirror: mirror.map(str::to_owned),
                keyring: keyring.map(str::to_owned),
                ..Default::default()
            };
            recipe_hint(&apt, &error())
        };
        let own = hint(Some("https://deb.example.org"), None).unwrap();
        assert!(
            own.starts_with("name a file with the public key of https://deb.example.org"),
            "{own}"
        );
        let named = hint(Some("https://deb.example.org"), Some("own.gpg")).unwrap();
        assert!(
            named.contains("names own.gpg") && !named.contains("debian-archive"),
            "{named}"
        );
        // Of the host's archives the general one holds.
        assert_eq!(hint(None, None), None);
        let told = source_error(error(), String::new());
        assert!(
            told.hint()
                .unwrap()
                .contains("install debian-archive-keyring")
        );
    }
}
