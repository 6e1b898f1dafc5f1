//! `lock update`: what a recipe resolves to now, written where `build --locked` reads it, and told as what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use amiforge_exec::{Download, Origin, Outside, download_of};
use amiforge_recipe::actions::{ActionKind, WebUrl};
use amiforge_recipe::{ActionInputs, Scope, Step};
use amiforge_source::{MAX_LOCK_BYTES, ResolvedArchive, ResolvedDebian, compare_versions};
use amiforge_store::write_atomic;
use amiforge_types::Digest;
use serde::Serialize;
use serde_json::Value;

use super::changelog::LockedChangelog;
use super::told;
use super::{Besides, FORMAT, Head, LOCK_FILE, ParentLock, besides_of, find_lock, lock_json};
use crate::build::default_target;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::read_file;
use crate::kept::{has_secret, known_inputs, known_values};
use crate::load::{LoadedComponent, LoadedRecipe, RecipeRequest};
use crate::parent::Parent;
use crate::settings::Engine;
use crate::shown::shown;

/// The phase whose downloads are in an image.
const BUILD: &str = "build";

/// What to resolve anew.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// The recipe.
    pub recipe: RecipeRequest,
    /// The output folder whose lock is compared with where none is beside the recipe; `./out/<name>-<version>` when absent.
    pub out: Option<PathBuf>,
    /// Write nothing.
    pub dry_run: bool,
    /// Tell what the changelogs of upgraded packages say, which are brought into the cache for that.
    pub changelog: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockReport {
    /// The lock, beside the recipe.
    pub path: PathBuf,
    /// The lock that it is compared with, if there is one.
    pub compared: Option<PathBuf>,
    /// Whether the lock beside the recipe says something else than what there is now.
    pub differs: bool,
    /// Whether it was written.
    pub written: bool,
    /// Packages, by name.
    pub packages: Vec<LockedPackage>,
    /// Other properties of the parent.
    pub inputs: Vec<LockedInput>,
    /// Files that steps bring in.
    pub downloads: Vec<LockedInput>,
    /// Sources of files that could not be asked for again, and stay as they were.
    pub kept: Vec<String>,
    /// Steps whose downloads are not known before they run: a build pins them.
    pub unknown: Vec<String>,
}

/// A package of which another version is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// `amd64`, `all` …
    pub architecture: String,
    /// What became of it, by Debian's order of versions.
    pub change: PackageFate,
    /// The version before.
    pub old: Option<String>,
    /// The version now.
    pub new: Option<String>,
    /// What changed since, if that was asked for and the package was upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changelog: Option<LockedChangelog>,
}

/// What became of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PackageFate {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// To a later version.
    Upgraded,
    /// To an earlier version.
    Downgraded,
    /// Another file of the same version.
    Rebuilt,
}

impl PackageFate {
    const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Upgraded => "upgraded",
            Self::Downgraded => "downgraded",
            Self::Rebuilt => "rebuilt",
        }
    }
}

/// Something else that is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedInput {
    /// What it is: a member of the lock, an archive, the address of a download.
    pub input: String,
    /// Before.
    pub old: Option<String>,
    /// Now.
    pub new: Option<String>,
    /// The change in words, where the values are no texts that could be shown.
    #[serde(skip)]
    told: Option<String>,
}

impl LockReport {
    /// For people: a line for each change, and one that says what was done.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for package in &self.packages {
            let versions = match (&package.old, &package.new) {
                (Some(old), Some(new)) if old == new => old.clone(),
                (Some(old), Some(new)) => format!("{old} -> {new}"),
                (old, new) => old.iter().chain(new).cloned().collect(),
            };
            let word = package.change.word();
            let _ = writeln!(text, "{word:<10} {} {versions}", package.name);
            if let Some(log) = &package.changelog {
                log.write(&mut text);
            }
        }
        for input in self.inputs.iter().chain(&self.downloads) {
            let (word, values) = match (&input.old, &input.new) {
                (Some(old), Some(new)) => ("changed", told::pair(old, new)),
                (Some(old), None) => ("removed", told::cut(old, 0)),
                (None, new) => ("added", told::cut(new.as_deref().unwrap_or_default(), 0)),
            };
            let values = input.told.as_ref().unwrap_or(&values);
            let _ = writeln!(text, "{word:<10} {}: {values}", input.input);
        }
        for source in &self.kept {
            let _ = writeln!(
                text,
                "kept       {source}: it cannot be asked for without a build"
            );
        }
        for step in &self.unknown {
            let _ = writeln!(
                text,
                "unknown    {step}: what it downloads is pinned by a build"
            );
        }
        let place = self.path.display();
        let done = match (self.differs, self.written) {
            (false, _) => format!("unchanged  {place}"),
            (true, true) => format!("wrote      {place}"),
            (true, false) => format!("stale      {place}"),
        };
        text.push_str(&done);
        text
    }
}

/// A lock of either form, as far as it is compared.
struct Old {
    path: PathBuf,
    bytes: Vec<u8>,
    debian: Option<Box<ResolvedDebian>>,
    other: Option<ParentLock>,
    besides: Besides,
}

impl Engine {
    /// Resolves the parent and the downloads of a recipe anew, and writes the lock beside it.
    pub fn lock_update(&self, request: &LockRequest) -> Result<LockReport, EngineError> {
        let recipe = self.load(&request.recipe)?;
        let out = match &request.out {
            Some(out) => out.clone(),
            None => default_target(Path::new("out"), &recipe),
        };
        let path = recipe.dir().join(LOCK_FILE);
        let old = self.old_lock(recipe.dir(), &out);
        let store = self.open_store()?;
        let _downloads = store
            .use_downloads()
            .or_fail(ErrorKind::Failed, crate::layers::store_context)?;
        let offline = request.recipe.offline;
        let parent = self.resolve_parent(&recipe, &store, offline, None)?;
        let recipe = self.over_parent(recipe, &parent)?;
        let plan = self.compile(&recipe, &parent)?;
        let before = old.as_ref().map(|old| old.besides.clone());
        let before = before.unwrap_or_default();
        let mut steps = step_downloads(&recipe);
        if !steps.unknown.is_empty() {
            // Whatever is known of these, from the lock or from a build.
            let built = super::besides(&store, &plan)?.downloads;
            for download in before.downloads.iter().chain(&built) {
                steps.earlier(download);
            }
        }
        let (downloads, mut kept) = self.ask(steps.known, (offline, !request.dry_run))?;
        let boot_packages = match offline {
            false => self.boot_packages_now(&store, &recipe, &parent, &plan)?,
            true => {
                let known = match &before.boot_packages {
                    Some(packages) => Some(packages.clone()),
                    None => super::besides(&store, &plan)?.boot_packages,
                };
                kept.extend(known.is_some().then(|| "packages for a boot".to_owned()));
                known
            }
        };
        let now = Besides {
            downloads,
            boot_packages,
        };
        let bytes = lock_json(&recipe.recipe.parent, &parent, &now)
            .or_fail(ErrorKind::Internal, || {
                "the lock cannot be written".to_owned()
            })?;
        let asked = recipe.recipe.parent.to_string();
        let inputs = parent_changes(old.as_ref(), &parent, &asked);
        let was = old.as_ref().and_then(|old| old.debian.as_deref());
        let mut packages = package_changes(&rows(was, &before), &rows(parent.packages(), &now));
        if let (true, Some(new)) = (request.changelog, parent.packages()) {
            self.add_changelogs(&mut packages, was, new, offline)?;
        }
        let differs = match &old {
            Some(old) if old.path == path => old.bytes != bytes,
            _ => true,
        };
        let written = differs && !request.dry_run;
        if written {
            write_atomic(&path, &bytes).or_fail(ErrorKind::Failed, || {
                format!("cannot write {}", path.display())
            })?;
        }
        Ok(LockReport {
            path,
            compared: old.as_ref().map(|old| old.path.clone()),
            differs,
            written,
            packages,
            inputs,
            downloads: download_changes(&before.downloads, &now.downloads),
            kept,
            unknown: steps.unknown,
        })
    }

    /// The lock that a build would take; one that cannot be read is none, and that is told.
    fn old_lock(&self, recipe: &Path, out: &Path) -> Option<Old> {
        let path = find_lock(recipe, out).ok()?;
        let read = || -> Result<Old, String> {
            let bytes = read_file(&path, MAX_LOCK_BYTES).map_err(|e| e.to_string())?;
            let head: Head = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            let (mut debian, mut other) = (None, None);
            if head.format == u64::from(FORMAT) {
                other = Some(serde_json::from_slice(&bytes).map_err(|e| e.to_string())?);
            } else {
                let lock = ResolvedDebian::from_lock(&bytes).map_err(|e| e.to_string())?;
                debian = Some(Box::new(lock));
            }
            let besides = besides_of(&bytes)?;
            Ok(Old {
                path: path.clone(),
                bytes,
                debian,
                other,
                besides,
            })
        };
        match read() {
            Ok(old) => Some(old),
            Err(reason) => {
                let message = format!("{}: {reason}; everything counts as new", path.display());
                self.warn(message);
                None
            }
        }
    }

    /// What is at the addresses now, which the cache gets if it is to `keep` it, and the sources of what could not be asked for.
    fn ask(
        &self,
        known: BTreeMap<String, Known>,
        (offline, keep): (bool, bool),
    ) -> Result<(Vec<Download>, Vec<String>), EngineError> {
        let mut outside = Outside::default();
        outside.offline = offline;
        outside.proxies.clone_from(&self.settings.proxies);
        let (mut all, mut kept) = (BTreeSet::new(), Vec::new());
        for (source, known) in known {
            let Some(url) = known.url.filter(|_| !offline) else {
                all.extend(known.earlier);
                kept.push(source);
                continue;
            };
            self.stage("download", source.clone());
            let found = if keep {
                let insecure = known.insecure;
                self.keep_now(&Origin::Web { url, insecure }, &outside)?
            } else {
                download_of(&url, known.insecure, &outside)
            };
            let found = found.map_err(|reason| {
                EngineError::new(ErrorKind::Failed, format!("{source}: {reason}"))
            })?;
            all.insert(Download {
                source,
                checked: known.checked,
                ..found
            });
        }
        Ok((all.into_iter().collect(), kept))
    }
}

/// A file that steps bring in, and how it is asked for.
#[derive(Default)]
struct Known {
    /// `None`: only a build can.
    url: Option<WebUrl>,
    insecure: bool,
    checked: bool,
    earlier: Vec<Download>,
}

/// What can be said of a recipe's downloads before a build.
#[derive(Default)]
struct StepDownloads {
    /// By source.
    known: BTreeMap<String, Known>,
    /// Steps.
    unknown: Vec<String>,
}

impl StepDownloads {
    /// Takes note of a download of a build.
    fn earlier(&mut self, download: &Download) {
        let known = self.known.entry(download.source.clone()).or_default();
        if known.url.is_none() {
            // One with a mask in it is another address.
            let whole = !download.source.contains('*');
            known.url = WebUrl::parse(&download.source).ok().filter(|_| whole);
            known.checked = download.checked;
            known.earlier.push(download.clone());
        }
    }
}

fn step_downloads(recipe: &LoadedRecipe) -> StepDownloads {
    let mut found = StepDownloads::default();
    for component in &recipe.components {
        let Some(phase) = component.component.phase(BUILD) else {
            continue;
        };
        let scope = known_values(component);
        for step in &phase.steps {
            if !matches!(
                step.action,
                ActionKind::WebDownload | ActionKind::S3Download | ActionKind::ExecuteDocument
            ) {
                continue;
            }
            match step_urls(component, step, &scope) {
                Some(urls) => found.known.extend(urls),
                None => found
                    .unknown
                    .push(format!("{} {}", component.name, step.name)),
            }
        }
    }
    found
}

/// The files of a step, if its inputs say all of them.
fn step_urls(
    component: &LoadedComponent,
    step: &Step,
    scope: &Scope,
) -> Option<Vec<(String, Known)>> {
    if step.condition.is_some() {
        return None;
    }
    let Some(ActionInputs::WebDownload(inputs)) = known_inputs(step, scope) else {
        return None;
    };
    let texts: Vec<String> = inputs.iter().map(|i| i.source.to_string()).collect();
    // Where a secret is masked, only the step knows what the address is.
    let is_masked = |text: &String| text.contains('*') || has_secret(component, text);
    if texts.iter().any(is_masked) {
        return None;
    }
    let known = inputs.iter().zip(texts).map(|(input, text)| {
        let source = Download::shown_source(&text, !step.disable_logging);
        let known = Known {
            url: Some(input.source.clone()),
            insecure: input.ignore_certificate_errors,
            checked: input.checksum.is_some(),
            earlier: Vec::new(),
        };
        (source, known)
    });
    Some(known.collect())
}

fn parent_changes(old: Option<&Old>, parent: &Parent, asked: &str) -> Vec<LockedInput> {
    let mut inputs = Vec::new();
    let was = old.map(|old| match (&old.debian, &old.other) {
        (Some(debian), _) => format!("debian:{}", debian.suite),
        (None, Some(lock)) => lock.parent.clone(),
        (None, None) => String::new(),
    });
    if was.as_deref() != Some(asked) {
        inputs.push(LockedInput {
            input: "parentImage".to_owned(),
            old: was,
            new: Some(asked.to_owned()),
            told: None,
        });
    }
    let debian = old.and_then(|old| old.debian.as_deref());
    inputs.extend(changes(archives(debian), archives(parent.packages())));
    let members = |value: Option<&Value>| -> BTreeMap<String, String> {
        let members = value.and_then(Value::as_object);
        let members = members.into_iter().flatten();
        members
            .filter(|(name, value)| *name != "type" && !value.is_null())
            .map(|(name, value)| {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                (name.clone(), shown(text.as_bytes()))
            })
            .collect()
    };
    let other = old.and_then(|old| old.other.as_ref());
    let before = other.and_then(|lock| serde_json::to_value(&lock.resolved).ok());
    let now = parent.locked();
    let now = now.and_then(|locked| serde_json::to_value(locked).ok());
    let of = |value: &Option<Value>, name: &str| {
        let member = value.as_ref().and_then(|value| value.get(name));
        member.filter(|value| !value.is_null()).cloned()
    };
    let mut changed = changes(members(before.as_ref()), members(now.as_ref()));
    for input in &mut changed {
        let (old, new) = (of(&before, &input.input), of(&now, &input.input));
        input.told = Some(told::change(old.as_ref(), new.as_ref()));
    }
    inputs.extend(changed);
    inputs
}

/// The date of each archive, which its signature covers.
fn archives(debian: Option<&ResolvedDebian>) -> BTreeMap<String, String> {
    let archives = debian.into_iter().flat_map(|debian| &debian.archives);
    let row = |archive: &ResolvedArchive| {
        let name = format!("{} {}", archive.uri, archive.suite);
        let state = format!("{}, InRelease {}", archive.date, archive.in_release);
        (shown(name.as_bytes()), state)
    };
    archives.map(row).collect()
}

/// Version and digest of each package, by name and architecture.
type Rows = BTreeMap<(String, String), (String, Digest)>;

/// The packages that a lock names: of the parent, and those that it was given for a boot.
fn rows(debian: Option<&ResolvedDebian>, besides: &Besides) -> Rows {
    let debian = debian.into_iter().flat_map(|debian| &debian.packages);
    let debian = debian.map(|p| {
        (
            (p.name.clone(), p.arch.clone()),
            (p.version.clone(), p.sha256),
        )
    });
    let boot = besides.boot_packages.iter().flat_map(|lock| &lock.packages);
    let boot = boot.map(|p| {
        (
            (p.name.clone(), p.arch.clone()),
            (p.version.clone(), p.sha256),
        )
    });
    debian.chain(boot).collect()
}

fn package_changes(old: &Rows, new: &Rows) -> Vec<LockedPackage> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut all = Vec::new();
    for name in names {
        let change = match (old.get(name), new.get(name)) {
            (None, _) => PackageFate::Added,
            (_, None) => PackageFate::Removed,
            (Some((a, x)), Some((b, y))) => match compare_versions(a, b) {
                std::cmp::Ordering::Less => PackageFate::Upgraded,
                std::cmp::Ordering::Greater => PackageFate::Downgraded,
                std::cmp::Ordering::Equal if x == y => continue,
                std::cmp::Ordering::Equal => PackageFate::Rebuilt,
            },
        };
        let version = |side: &BTreeMap<_, (String, _)>| side.get(name).map(|(v, _)| v.clone());
        all.push(LockedPackage {
            name: name.0.clone(),
            architecture: name.1.clone(),
            change,
            old: version(old),
            new: version(new),
            changelog: None,
        });
    }
    all
}

fn download_changes(old: &[Download], new: &[Download]) -> Vec<LockedInput> {
    let by_source = |list: &[Download]| -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for download in list {
            let digests = all.entry(shown(download.source.as_bytes())).or_default();
            digests.push(format!("sha256 {}", download.sha256));
        }
        let joined = all.into_iter();
        joined.map(|(source, d)| (source, d.join(" or "))).collect()
    };
    changes(by_source(old), by_source(new))
}

fn changes(old: BTreeMap<String, String>, new: BTreeMap<String, String>) -> Vec<LockedInput> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    differing
        .map(|name| LockedInput {
            input: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
            told: None,
        })
        .collect()
}
