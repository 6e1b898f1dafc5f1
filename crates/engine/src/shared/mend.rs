//! What of a cache has to be put again: an entry that is there and of no use.

use std::sync::PoisonError;

use amiforge_source::{SharedPlace, SourceError};

use super::entry::{Entry, Refusal, Subject};
use super::key::{CacheWriter, WriterKey};
use super::{Shared, Side};

/// What is under a name.
enum Found {
    /// What whoever trusts its writer can use, as far as a look at it tells.
    Whole,
    /// Of a format to come.
    Later,
    /// Of a writer that is not trusted here: others may trust it.
    Stranger,
    /// Nothing, or what nobody can use.
    Useless,
}

impl Shared<'_> {
    /// Keeps that an entry of the cache that is written could not be used.
    pub(super) fn found_damaged(&self, name: &str) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.insert(name.to_owned());
    }

    /// Whether this run could not use one of these entries.
    pub(super) fn is_damaged(&self, names: &[String]) -> bool {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().any(|name| damaged.contains(name))
    }

    /// Whether a cache has what its readers need to find the writer's entry, and to use it: that entry, and another or
    /// the same under the name of whoever wrote last. Blobs are not read: a byte that is another is found by whoever reads.
    pub(super) fn holds(
        &self,
        side: &Side<'_>,
        key: &WriterKey,
        subject: &Subject,
    ) -> Result<bool, SourceError> {
        let writer = key.writer();
        let own = subject.name_by(&writer);
        let Some(known) = document(side, &own)? else {
            return Ok(false);
        };
        match judge(side, &known, subject, &[writer])? {
            // Nobody else has anything to put under this name.
            Found::Useless | Found::Stranger => return Ok(false),
            Found::Whole | Found::Later => {}
        }
        match document(side, &subject.name())? {
            None => Ok(false),
            // What was looked at a moment ago.
            Some(last) if last == known => Ok(true),
            Some(last) => {
                let judged = judge(side, &last, subject, &self.trusted)?;
                Ok(!matches!(judged, Found::Useless))
            }
        }
    }
}

/// The document under a name; `None` where there is none that can be read.
fn document(side: &Side<'_>, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
    match side.cache.entry(name) {
        Err(SourceError::Malformed { .. } | SourceError::Digest { .. }) => Ok(None),
        found => found,
    }
}

fn judge(
    side: &Side<'_>,
    document: &[u8],
    subject: &Subject,
    trusted: &[CacheWriter],
) -> Result<Found, SourceError> {
    let entry = match Entry::open(document, subject, trusted) {
        Ok(entry) => entry,
        Err(Refusal::Unknown(_)) => return Ok(Found::Stranger),
        Err(Refusal::Version(_)) => return Ok(Found::Later),
        Err(Refusal::Bad(_)) => return Ok(Found::Useless),
    };
    let whole = match (&entry.layer, subject) {
        (Some(layer), _) => side.cache.has_blob(layer.blob())?,
        (None, Subject::Validated(_)) => true,
        (None, Subject::Layer(_)) => false,
    };
    Ok(match whole {
        true => Found::Whole,
        false => Found::Useless,
    })
}

/// Whether two names are of one cache, as far as names and folders tell.
pub(super) fn same(a: &SharedPlace, b: &SharedPlace) -> bool {
    let folder = |place: &SharedPlace| match place {
        SharedPlace::Folder(path) => path.canonicalize().ok(),
        SharedPlace::Registry(_) => None,
    };
    a == b || folder(a).is_some_and(|path| folder(b) == Some(path))
}
