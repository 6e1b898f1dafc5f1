//! Layers that several machines share: asked of caches before they are made, handed to one once they are.
//!
//! Nothing of a cache is used but what somebody signed who is trusted ([`entry`]), and no layer before its bytes are those
//! that were signed. A cache that cannot be used never ends a build: it is told, and the layer is made here.
//!
//! The transport is [`SharedCache`]; the form of what is kept is in `docs/shared-cache.md`.

mod build;
mod entry;
mod key;
mod mend;
mod pack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use amiforge_plan::{LayerKind, LayerPlan, Plan};
use amiforge_source::{SharedCache, SharedEntry, SharedPlace, SourceError, with_shared};
use amiforge_store::{Store, StoredLayer};
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{BlobTable, Digest, LayerId};
use serde_json::Value;

use self::entry::{Entry, PackedLayer, Refusal, Subject};
pub use self::key::CacheWriter;
use self::key::WriterKey;
use crate::error::{EngineError, ErrorKind, chain};
use crate::event::Event;
use crate::layers::{BUILD_RESULTS, RAN, VALIDATED, is_result_of};
use crate::load::LoadedRecipe;
use crate::settings::Engine;
use crate::sources::Sources;

/// Largest layer file that is taken from a cache.
const MAX_LAYER: u64 = 64 << 30;

/// Records by layer id that go with a layer.
pub(crate) const WITH_LAYERS: [&str; 2] = [BUILD_RESULTS, RAN];

/// Which caches a build uses, and how.
#[derive(Clone, Debug, Default)]
pub struct CacheRequest {
    /// Those that are asked, in this order.
    pub from: Vec<SharedPlace>,
    /// The one that gets what it lacks.
    pub to: Option<SharedPlace>,
    /// Writers to trust, besides those of the configuration and this user.
    pub trust: Vec<CacheWriter>,
    /// The key to sign with, in the place of this user's.
    pub key: Option<PathBuf>,
    /// Hand over layers, too, whose steps were lent secrets.
    pub secrets: bool,
}

impl CacheRequest {
    fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }
}

/// A cache that is open.
struct Side<'a> {
    name: String,
    cache: &'a SharedCache<'a>,
    /// It did not answer, and is left alone.
    down: AtomicBool,
    /// It is the one that is written, too.
    written: bool,
}

impl Side<'_> {
    fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }
}

/// The caches of one build.
pub(crate) struct Shared<'a> {
    from: Vec<Side<'a>>,
    to: Option<(Side<'a>, WriterKey)>,
    trusted: Vec<CacheWriter>,
    /// Layers from this number on are not handed over.
    most: usize,
    /// Also those in which secrets are found.
    secrets: bool,
    queue: Mutex<Option<Sender<Offer>>>,
    /// Writers who were told to be unknown.
    told: Mutex<BTreeSet<String>>,
    /// Names of entries of the cache that is written which this run read from it and could not use.
    damaged: Mutex<BTreeSet<String>>,
}

/// Something to hand over.
struct Offer {
    subject: Subject,
    /// Of its record.
    key: String,
    title: String,
    /// It was made just now: what a cache has of it is not as good.
    made: bool,
}

impl Engine {
    /// Opens the caches of a build for as long as `work` takes; what is offered meanwhile is handed over beside it, and
    /// has been when this returns.
    pub(crate) fn with_caches<R>(
        &self,
        request: &CacheRequest,
        (store, recipe, plan): (&Store, &LoadedRecipe, &Plan),
        (offline, jobs): (bool, usize),
        work: impl FnOnce(Option<&Shared<'_>>) -> R,
    ) -> Result<R, EngineError> {
        if request.is_empty() {
            return Ok(work(None));
        }
        let (trusted, key) = self.writers(request)?;
        let to = request.to.clone().filter(|to| self.may_use(to, offline));
        let mut from = request.from.clone();
        if trusted.is_empty() && !from.is_empty() {
            self.warn(format!(
                "{} is not used: no writer is trusted. Name those whose layers may be used with --cache-trust, or under cacheTrust in the configuration; `amiforge cache key show` prints a writer's key",
                names(&from)
            ));
            from.clear();
        }
        from.retain(|place| self.may_use(place, offline));
        self.tell_missing(&from, to.as_ref());
        let to_any = to.clone();
        let places: Vec<(SharedPlace, bool)> = from
            .into_iter()
            .map(|place| (place, false))
            .chain(to.map(|place| (place, true)))
            .collect();
        let most = match request.secrets {
            true => plan.layers.len(),
            false => first_lent(recipe, plan),
        };
        if to_any.is_some()
            && let Some(lent) = plan.layers.get(most)
        {
            self.stage(
                "share",
                format!(
                    "not {} nor what is above it: its steps are lent secrets (--cache-secrets)",
                    lent.title
                ),
            );
        }
        let opened = self.with_oci(offline, jobs, MAX_LAYER, |ctx| {
            with_shared(&places, ctx, |caches| {
                let mut from = Vec::new();
                let mut to = None;
                for ((place, write), cache) in places.iter().zip(caches) {
                    let side = Side {
                        name: place.to_string(),
                        cache,
                        down: AtomicBool::new(false),
                        written: to_any.as_ref().is_some_and(|to| mend::same(place, to)),
                    };
                    match write {
                        true => to = Some(side),
                        false => from.push(side),
                    }
                }
                let (sender, offers) = channel();
                let shared = Shared {
                    from,
                    to: to.zip(key),
                    trusted,
                    most,
                    secrets: request.secrets,
                    queue: Mutex::new(Some(sender)),
                    told: Mutex::default(),
                    damaged: Mutex::default(),
                };
                std::thread::scope(|scope| {
                    scope.spawn(|| self.hand_over(&shared, store, offers));
                    // The queue ends in any way that `work` does.
                    let _end = End(&shared);
                    work(Some(&shared))
                })
            })
        });
        opened.map_err(|error| {
            EngineError::wrap(
                ErrorKind::Environment,
                "the shared cache",
                error,
                None::<String>,
            )
        })
    }

    /// Whose layers are used, and the key to sign with.
    fn writers(
        &self,
        request: &CacheRequest,
    ) -> Result<(Vec<CacheWriter>, Option<WriterKey>), EngineError> {
        let key = match request.to {
            Some(_) => Some(self.needed_key(request.key.as_deref())?),
            None => self.writer_key(request.key.as_deref())?,
        };
        let mut trusted = request.trust.clone();
        let config = self.settings.config_file.as_deref();
        for text in Sources::load(config)?.cache_trust() {
            let writer = text.parse().map_err(|why| {
                let message = format!("cacheTrust of the configuration: {text}: {why}");
                EngineError::new(ErrorKind::Invalid, message)
            })?;
            trusted.push(writer);
        }
        trusted.extend(key.as_ref().map(WriterKey::writer));
        let mut seen = BTreeSet::new();
        trusted.retain(|writer| seen.insert(writer.to_string()));
        Ok((trusted, key))
    }

    fn may_use(&self, place: &SharedPlace, offline: bool) -> bool {
        let may = !offline || matches!(place, SharedPlace::Folder(_));
        if !may {
            self.warn(format!(
                "{place} is not used, since --offline takes no network"
            ));
        }
        may
    }

    /// A folder that is not there may be a slip of the pen.
    fn tell_missing(&self, from: &[SharedPlace], to: Option<&SharedPlace>) {
        for place in from {
            if let SharedPlace::Folder(path) = place
                && !path.is_dir()
                && to != Some(place)
            {
                self.warn(format!("there is no folder {}", path.display()));
            }
        }
    }

    /// Offers a layer, unless secrets are found in it: whoever reads a cache can read its layers one by one, before any
    /// image of them was searched.
    pub(crate) fn offer_clean(
        &self,
        shared: &Shared<'_>,
        recipe: &LoadedRecipe,
        (at, planned, made): (usize, &LayerPlan, bool),
        (layer, blobs): (&StoredLayer, &BlobTable),
    ) -> Result<(), EngineError> {
        if shared.searches(at) {
            let found = self.layer_findings(recipe, layer, blobs)?;
            if let Some(first) = found.first() {
                let more = match found.len() {
                    1 => String::new(),
                    n => format!(" and {} more", n - 1),
                };
                self.warn(format!(
                    "{} is not shared: {first}{more} (--cache-secrets shares it all the same, amiforge.hygiene.allow of the recipe says what is meant to be there)",
                    planned.title
                ));
                return Ok(());
            }
        }
        shared.offer_layer(at, planned, made);
        Ok(())
    }

    /// Takes a layer from the first cache that has it, into the store; whether one had. The caller has the right to make it.
    pub(crate) fn fetch_layer(
        &self,
        shared: Option<&Shared<'_>>,
        store: &Store,
        planned: &LayerPlan,
    ) -> bool {
        let Some(shared) = shared else { return false };
        let subject = Subject::layer(planned.id);
        let start = Instant::now();
        let taken = self.first(shared, &subject, |side, entry| {
            let layer = entry
                .layer
                .ok_or("the entry of a layer that tells of none")?;
            // Of a component, what its steps brought in is a part of what it is.
            let results = entry.records.get(BUILD_RESULTS);
            if matches!(planned.kind, LayerKind::Component { .. })
                && !results.is_some_and(|record| is_result_of(record, layer.digest))
            {
                return Err(
                    "it does not say how this very layer was made, as entries of earlier releases"
                        .to_owned(),
                );
            }
            let writer = self.take_layer(side, store, planned.id, &layer)?;
            // What an earlier file of this layer was made of says nothing of this one.
            for kind in WITH_LAYERS {
                store
                    .remove_record(kind, &planned.id.to_string())
                    .map_err(|e| chain(&e))?;
            }
            for (kind, record) in entry.records {
                if WITH_LAYERS.contains(&kind.as_str()) {
                    store
                        .put_record(&kind, &planned.id.to_string(), &record)
                        .map_err(|e| chain(&e))?;
                }
            }
            writer.commit().map_err(|e| chain(&e))
        });
        let Some((from, info)) = taken else {
            return false;
        };
        let info: LayerInfo = info;
        self.emit(Event::LayerFetched {
            id: planned.id.to_string(),
            title: planned.title.clone(),
            from,
            seconds: start.elapsed().as_secs_f64(),
            bytes: info.bytes,
        });
        true
    }

    /// Whether a cache says that a validate phase has passed.
    pub(crate) fn fetch_validated(&self, shared: Option<&Shared<'_>>, key: &str) -> Option<Value> {
        let subject = Subject::validated(key)?;
        let found = self.first(shared?, &subject, |_, mut entry| {
            let record = entry.records.remove(VALIDATED);
            record.ok_or_else(|| "it has no such record".to_owned())
        });
        Some(found?.1)
    }

    /// What `take` makes of the first entry that is whole and of a trusted writer. Others are told.
    fn first<T>(
        &self,
        shared: &Shared<'_>,
        subject: &Subject,
        take: impl Fn(&Side<'_>, Entry) -> Result<T, String>,
    ) -> Option<(String, T)> {
        for side in shared.from.iter().filter(|side| side.is_up()) {
            let mut names = vec![subject.name()];
            names.extend(shared.trusted.iter().map(|w| subject.name_by(w)));
            let mut unknown = None;
            let mut seen = BTreeSet::new();
            for (at, name) in names.iter().enumerate() {
                let document = match side.cache.entry(name) {
                    Ok(Some(document)) => document,
                    // Whoever writes leaves the first name.
                    Ok(None) if at == 0 => break,
                    Ok(None) => continue,
                    Err(error) => {
                        self.distrust_or_leave(shared, side, name, &error);
                        match side.is_up() {
                            true => continue,
                            false => break,
                        }
                    }
                };
                // The last writer's entry is there under two names.
                if !seen.insert(Digest::of(&document)) {
                    continue;
                }
                let entry = match Entry::open(&document, subject, &shared.trusted) {
                    Ok(entry) => entry,
                    Err(Refusal::Unknown(writer)) => {
                        unknown = Some(writer);
                        continue;
                    }
                    Err(Refusal::Version(version)) => {
                        let what = format!(
                            "{}: {name} has the format {version}, which this version does not know",
                            side.name
                        );
                        self.warn(what);
                        continue;
                    }
                    Err(Refusal::Bad(why)) => {
                        self.distrust(shared, side, name, &why);
                        continue;
                    }
                };
                match take(side, entry) {
                    Ok(taken) => return Some((side.name.clone(), taken)),
                    Err(why) => self.distrust(shared, side, name, &why),
                }
            }
            if let Some(writer) = unknown {
                self.tell_unknown(shared, side, &writer);
            }
        }
        None
    }

    fn distrust(&self, shared: &Shared<'_>, side: &Side<'_>, name: &str, why: &str) {
        if side.written {
            shared.found_damaged(name);
        }
        self.warn(format!(
            "{}: the entry {name} is not used: {why}",
            side.name
        ));
    }

    /// What is wrong with an entry is no reason to leave the cache alone; that it cannot be reached is.
    fn distrust_or_leave(
        &self,
        shared: &Shared<'_>,
        side: &Side<'_>,
        name: &str,
        error: &SourceError,
    ) {
        match error {
            SourceError::Malformed { .. } | SourceError::Digest { .. } => {
                self.distrust(shared, side, name, &chain(error));
            }
            _ => self.leave(side, error),
        }
    }

    fn leave(&self, side: &Side<'_>, error: &SourceError) {
        // The first that finds out tells it.
        if !side.down.swap(true, Ordering::Relaxed) {
            self.warn(format!(
                "{} is not used any more in this build: {}",
                side.name,
                chain(error)
            ));
        }
    }

    fn tell_unknown(&self, shared: &Shared<'_>, side: &Side<'_>, writer: &CacheWriter) {
        let mut told = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(writer.to_string()) {
            self.warn(format!(
                "{} has layers of a writer that is not trusted, {writer}; they are not used. If you know whose key it is: --cache-trust {writer}, or the same under cacheTrust in the configuration",
                side.name
            ));
        }
    }

    /// Hands over what is offered, until the queue ends.
    fn hand_over(&self, shared: &Shared<'_>, store: &Store, offers: Receiver<Offer>) {
        for offer in offers {
            let Some((side, key)) = &shared.to else {
                continue;
            };
            if !side.is_up() || self.interruption.is_requested() {
                continue;
            }
            if let Err(error) = self.hand_over_one(shared, (side, key), store, &offer) {
                match error {
                    NotPut::Cache(error) => self.leave(side, &error),
                    NotPut::Here(why) => {
                        self.warn(format!(
                            "{} is not put into {}: {why}",
                            offer.title, side.name
                        ));
                    }
                }
            }
        }
    }

    fn hand_over_one(
        &self,
        shared: &Shared<'_>,
        (side, key): (&Side<'_>, &WriterKey),
        store: &Store,
        offer: &Offer,
    ) -> Result<(), NotPut> {
        let subject = &offer.subject;
        let names = [subject.name_by(&key.writer()), subject.name()];
        let again = offer.made || shared.is_damaged(&names);
        if !again {
            let held = shared.holds(side, key, subject);
            if held.map_err(NotPut::Cache)? {
                return Ok(());
            }
        }
        let start = Instant::now();
        let mut entry = Entry {
            subject: subject.clone(),
            title: offer.title.clone(),
            layer: None,
            records: BTreeMap::new(),
        };
        let too_large = || NotPut::Here("its entry would be too large".to_owned());
        let id = match subject {
            Subject::Layer(id) => LayerId(*id),
            Subject::Validated(_) => {
                let record = store.get_record(VALIDATED, &offer.key);
                if let Ok(Some(record)) = record {
                    entry.records.insert(VALIDATED.to_owned(), record);
                    let document = entry.sign(key).ok_or_else(too_large)?;
                    let put = SharedEntry {
                        names: &names,
                        document: &document,
                        blob: None,
                        again,
                    };
                    side.cache.put(&put).map_err(NotPut::Cache)?;
                }
                return Ok(());
            }
        };
        for kind in WITH_LAYERS {
            if let Ok(Some(record)) = store.get_record(kind, &id.to_string()) {
                entry.records.insert(kind.to_owned(), record);
            }
        }
        let packed = pack::pack(store, id).map_err(NotPut::Here)?;
        let layer: PackedLayer = packed.layer;
        // Another build may have made it again meanwhile.
        let results = entry.records.get(BUILD_RESULTS);
        if results.is_some_and(|record| !is_result_of(record, layer.digest)) {
            return Err(NotPut::Here(
                "how this very file of it was made is not known".to_owned(),
            ));
        }
        entry.layer = Some(layer);
        let document = entry.sign(key).ok_or_else(too_large)?;
        let put = SharedEntry {
            names: &names,
            document: &document,
            blob: Some((layer.blob(), packed.path())),
            again,
        };
        side.cache.put(&put).map_err(NotPut::Cache)?;
        self.emit(Event::LayerShared {
            id: id.to_string(),
            title: offer.title.clone(),
            to: side.name.clone(),
            seconds: start.elapsed().as_secs_f64(),
            bytes: layer.packed_bytes,
        });
        Ok(())
    }
}

/// Why something was not handed over.
enum NotPut {
    /// The cache does not take it.
    Cache(SourceError),
    /// It cannot be made ready.
    Here(String),
}

impl Shared<'_> {
    /// Offers a layer of the plan to the cache that is written.
    pub(crate) fn offer_layer(&self, at: usize, planned: &LayerPlan, made: bool) {
        let key = planned.id.to_string();
        self.offer(at, (Subject::layer(planned.id), &key), &planned.title, made);
    }

    /// Whether the layer `at` would be handed over if nothing secret were in it.
    pub(crate) fn searches(&self, at: usize) -> bool {
        self.to.is_some() && at < self.most && !self.secrets
    }

    /// Offers what is known of a validate phase on the layer `at`.
    pub(crate) fn offer_validated(&self, at: usize, key: &str, title: &str, made: bool) {
        if let Some(subject) = Subject::validated(key) {
            self.offer(at, (subject, key), title, made);
        }
    }

    fn offer(&self, at: usize, (subject, key): (Subject, &str), title: &str, made: bool) {
        if self.to.is_none() || at >= self.most {
            return;
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue {
            let (key, title) = (key.to_owned(), title.to_owned());
            let _ = queue.send(Offer {
                subject,
                key,
                title,
                made,
            });
        }
    }
}

/// Ends the queue when it goes.
struct End<'s, 'a>(&'s Shared<'a>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn names(places: &[SharedPlace]) -> String {
    let texts: Vec<String> = places.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The number of the lowest layer whose steps were lent a secret: steps above it may have met what they left.
fn first_lent(recipe: &LoadedRecipe, plan: &Plan) -> usize {
    let lent = |layer: &LayerPlan| match layer.kind {
        LayerKind::Component { index } => {
            let component = recipe.components.get(index);
            // Those that the recipe names are there for all of them.
            !recipe.recipe.amiforge.secrets.is_empty()
                || component.is_some_and(|c| c.external.values().any(|value| value.secret))
        }
        _ => false,
    };
    let found = plan.layers.iter().position(lent);
    found.unwrap_or(plan.layers.len())
}
