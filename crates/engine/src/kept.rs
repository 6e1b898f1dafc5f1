//! Downloads of steps that are kept in the cache and lent to the runs that want them.
//!
//! ```text
//! <cache>/v1/downloads/<algorithm>-<digits>    0600, by the checksum of a document or the digest of a lock
//! ```
//!
//! What is known by its digest before a step runs is fetched here, beside the sandbox, and the executor copies it
//! from there ([why so](../../../docs/decisions/0071-downloads-are-fetched-ahead.md)). All else the step fetches itself, and nobody keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use amiforge_exec::{
    Download, KeptName, LentDownload, MOST_LENT, Origin, Outside, Pins, fetch_download,
};
use amiforge_recipe::actions::{ActionKind, S3Source};
use amiforge_recipe::{ActionInputs, Scope, Step, StepNetwork};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Work;
use crate::load::LoadedComponent;
use crate::settings::Engine;

/// The folder in the cache.
const FOLDER: &str = "downloads";

/// A file that a phase may want.
#[derive(Debug)]
struct Want {
    /// What it may be known by.
    names: Vec<KeptName>,
    /// Where it is fetched from when none of them is there; `None`: only its step can, or may never do.
    from: Option<Origin>,
    /// How people are told of it.
    shown: String,
}

/// The values of a component's references that are known before it runs.
pub(crate) fn known_values(component: &LoadedComponent) -> Scope {
    let mut scope = Scope::new(component.component.variables(&component.parameters));
    let external = component.external.iter();
    scope.external = external
        .map(|(name, value)| (name.clone(), value.value.clone()))
        .collect();
    scope
}

/// The inputs of a step, if nothing of them depends on other steps.
pub(crate) fn known_inputs(step: &Step, scope: &Scope) -> Option<ActionInputs> {
    if step.repeat.is_some() {
        return None;
    }
    let resolved = scope.resolve(step.inputs.as_ref()?).ok()?;
    step.decode_inputs(Some(&resolved)).0
}

/// Whether a text has the value of a secret in it.
pub(crate) fn has_secret(component: &LoadedComponent, text: &str) -> bool {
    let mut secrets = component.external.values().filter(|value| value.secret);
    secrets.any(|s| !s.value.is_empty() && text.contains(&s.value))
}

/// The downloads that a phase may want and that a checksum or the lock says the content of. Those of the lock that no
/// step of `all` names are anybody's whose addresses come out as it runs.
fn wants((all, index): (&[LoadedComponent], usize), phase: &str, pins: Option<&Pins>) -> Vec<Want> {
    let mut found = Vec::new();
    let mut named = BTreeSet::new();
    let mut open = false;
    for (n, component) in all.iter().enumerate() {
        let steps = component.component.phase(phase).map(|phase| &phase.steps);
        let scope = known_values(component);
        for step in steps.into_iter().flatten() {
            let mut asked = Asked {
                component,
                step,
                pins,
                found: Vec::new(),
                named: &mut named,
            };
            let is_known = asked.step(&scope);
            if n == index {
                found.append(&mut asked.found);
                open |= !is_known;
            }
        }
    }
    let rest = pins.into_iter().flatten().filter(|_| open);
    for (source, digests) in rest.filter(|(source, _)| !named.contains(*source)) {
        found.push(Want {
            names: digests.iter().copied().map(KeptName::of_digest).collect(),
            from: Origin::of(source),
            shown: source.clone(),
        });
    }
    found
}

/// What one step asks for.
struct Asked<'a> {
    component: &'a LoadedComponent,
    step: &'a Step,
    pins: Option<&'a Pins>,
    found: Vec<Want>,
    /// Sources that are found.
    named: &'a mut BTreeSet<String>,
}

impl Asked<'_> {
    /// Whether all that it asks for is known.
    fn step(&mut self, scope: &Scope) -> bool {
        let downloads = matches!(
            self.step.action,
            ActionKind::WebDownload | ActionKind::S3Download
        );
        if !downloads {
            // A document brings steps of its own.
            return self.step.action != ActionKind::ExecuteDocument;
        }
        match known_inputs(self.step, scope) {
            Some(ActionInputs::WebDownload(entries)) => {
                for entry in &entries {
                    let from = Origin::Web {
                        url: entry.source.clone(),
                        insecure: entry.ignore_certificate_errors,
                    };
                    let sum = entry.checksum.as_ref().map(KeptName::of);
                    self.one(from, sum);
                }
                true
            }
            Some(ActionInputs::S3Download(entries)) => {
                for entry in &entries {
                    let owner = entry.expected_bucket_owner.clone();
                    match &entry.source {
                        S3Source::Object(uri) => {
                            let uri = uri.clone();
                            self.one(Origin::S3 { uri, owner }, None);
                        }
                        S3Source::Prefix(uri) => self.below(&uri.to_string(), owner.as_deref()),
                    }
                }
                true
            }
            _ => false,
        }
    }

    fn one(&mut self, from: Origin, sum: Option<KeptName>) {
        let text = from.to_string();
        let source = Download::shown_source(&text, !self.step.disable_logging);
        let has_secret = has_secret(self.component, &text);
        let pinned = self.pins.and_then(|pins| pins.get(&source));
        // Of a step with a condition only the lock says that it ran.
        let is_sure = self.step.condition.is_none() || pinned.is_some();
        let pinned = pinned.into_iter().flatten().copied();
        let names = sum.into_iter().chain(pinned.map(KeptName::of_digest));
        self.found.push(Want {
            names: names.collect(),
            from: is_sure.then_some(from),
            shown: match has_secret || self.step.disable_logging {
                true => format!("a file for {} {}", self.component.name, self.step.name),
                false => text,
            },
        });
        self.named.insert(source);
    }

    /// What the lock has below a prefix.
    fn below(&mut self, prefix: &str, owner: Option<&str>) {
        let pins = self.pins.into_iter().flatten();
        for (source, digests) in pins.filter(|(source, _)| source.starts_with(prefix)) {
            let mut from = Origin::of(source);
            if let Some(Origin::S3 { owner: of, .. }) = &mut from {
                *of = owner.map(str::to_owned);
            }
            self.found.push(Want {
                names: digests.iter().copied().map(KeptName::of_digest).collect(),
                from,
                shown: source.clone(),
            });
            self.named.insert(source.clone());
        }
    }
}

impl Engine {
    /// Adds to `outside` what the cache has of the downloads of a phase, and what it can be brought of them now.
    ///
    /// What cannot be fetched is left to its step, which may know another way and says what is wrong.
    pub(crate) fn lend_downloads(
        &self,
        work: &Work<'_>,
        (index, phase): (usize, &str),
        outside: &mut Outside,
    ) -> Result<(), EngineError> {
        // Without a network a step can download nothing, whatever lies in the cache of this machine.
        if work.recipe.recipe.amiforge.network == StepNetwork::None {
            return Ok(());
        }
        let components = &work.recipe.components;
        let mut lent = BTreeMap::new();
        for want in wants((components, index), phase, outside.pins.as_ref()) {
            if want.names.is_empty() || lent.len() >= MOST_LENT {
                continue;
            }
            let mut there = Vec::new();
            for name in &want.names {
                if let Some(path) = self.kept(name)? {
                    there.push((name.clone(), path));
                }
            }
            if let (true, Some(from), false) = (there.is_empty(), &want.from, work.offline) {
                self.stage("download", want.shown.clone());
                match self.keep(from, &want.names, outside)? {
                    Ok(kept) => there.push(kept),
                    Err(reason) => {
                        let detail = format!("{}: left to its step: {reason}", want.shown);
                        self.stage("download", detail);
                    }
                }
            }
            lent.extend(there);
        }
        let lent = lent.into_iter();
        outside.lent = lent
            .map(|(name, path)| LentDownload { name, path })
            .collect();
        Ok(())
    }

    fn kept_folder(&self) -> PathBuf {
        self.settings.home.downloads().join(FOLDER)
    }

    /// The file of a name, if it is there and whole; one that is damaged goes.
    fn kept(&self, name: &KeptName) -> Result<Option<PathBuf>, EngineError> {
        let path = self.kept_folder().join(name.as_str());
        let context = || format!("cannot read {}", path.display());
        let file = match File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
        {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).or_fail(ErrorKind::Failed, context),
        };
        if name.is_of(&file).or_fail(ErrorKind::Failed, context)? {
            // The age of what is used is that of its last use, also where no times of reading are kept.
            let _ = file.set_modified(SystemTime::now());
            return Ok(Some(path));
        }
        self.warn(format!("{} is damaged and goes", path.display()));
        std::fs::remove_file(&path).or_fail(ErrorKind::Failed, context)?;
        Ok(None)
    }

    /// Fetches a file and keeps it by the first of `names` that it is of. The inner error is the far end's.
    fn keep(
        &self,
        from: &Origin,
        names: &[KeptName],
        outside: &Outside,
    ) -> Result<Result<(KeptName, PathBuf), String>, EngineError> {
        let (mut file, folder) = self.unnamed()?;
        let running = self.interruption.job();
        let found = fetch_download(from, outside, file.as_file_mut(), running.cancel());
        if let Err(reason) = found {
            return Ok(Err(reason));
        }
        for name in names {
            let is_of = name.is_of(file.as_file());
            if is_of.or_fail(ErrorKind::Failed, unwritten)? {
                let path = named(file, &folder, name)?;
                return Ok(Ok((name.clone(), path)));
            }
        }
        let names: Vec<&str> = names.iter().map(KeptName::as_str).collect();
        let reason = format!("what is there now is not {}", names.join(" or "));
        Ok(Err(reason))
    }

    /// What is at an address now, which the cache keeps, too. The inner error is the far end's.
    pub(crate) fn keep_now(
        &self,
        from: &Origin,
        outside: &Outside,
    ) -> Result<Result<Download, String>, EngineError> {
        let (mut file, folder) = self.unnamed()?;
        let running = self.interruption.job();
        let found = fetch_download(from, outside, file.as_file_mut(), running.cancel());
        if let Ok(found) = &found {
            named(file, &folder, &KeptName::of_digest(found.sha256))?;
        }
        Ok(found)
    }

    /// A file of the cache without its name yet. Nobody else may read it.
    fn unnamed(&self) -> Result<(tempfile::NamedTempFile, PathBuf), EngineError> {
        let folder = self.kept_folder();
        let made = fs_err::create_dir_all(&folder).and_then(|()| {
            let mut new = tempfile::Builder::new();
            new.prefix(".new-").tempfile_in(&folder)
        });
        Ok((made.or_fail(ErrorKind::Failed, unwritten)?, folder))
    }
}

fn named(
    file: tempfile::NamedTempFile,
    folder: &Path,
    name: &KeptName,
) -> Result<PathBuf, EngineError> {
    let path = folder.join(name.as_str());
    file.persist(&path)
        .map_err(|e| e.error)
        .or_fail(ErrorKind::Failed, unwritten)?;
    Ok(path)
}

fn unwritten() -> String {
    "the cache of downloads cannot be written".to_owned()
}
