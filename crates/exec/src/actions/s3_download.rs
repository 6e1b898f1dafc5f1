//! `S3Download`: objects of S3 into files.
//! Reference: AWSTOE action modules, S3Download. The folder of a file, and the folder for a prefix, must
//! be there; folders below it come from the keys.

use std::path::{Path, PathBuf};

use amiforge_recipe::actions::{S3Download, S3Source, S3Uri};
use amiforge_types::Digest;

use super::fetch::{Receiver, Wanted, body, retrying};
use super::files::shown;
use super::landing::Landing;
use super::{Action, Outputs, StepCx, StepError};
use crate::aws::s3::{Frame, S3};
use crate::event::ChildEvent;
use crate::net::Http;

/// Objects of one prefix, as in AWSTOE.
const MAX_OBJECTS: usize = 1000;

/// Pages of keys; a server that sends empty ones is not asked for ever.
const MAX_PAGES: usize = 100;

impl Action for Vec<S3Download> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let http = Http::new(cx.env, cx.outside);
        let s3 = S3::new(&http, cx.outside);
        for entry in self {
            cx.check_deadline()?;
            let target = cx.full_path(&entry.destination);
            match &entry.source {
                S3Source::Object(uri) => {
                    cx.about(&format!("{uri} to {target}"));
                    object(entry, uri, Path::new(&target), &s3, cx)?;
                }
                S3Source::Prefix(uri) => prefix(entry, uri, &target, &s3, cx)?,
            }
        }
        Ok(Vec::new())
    }
}

/// The bytes of an object, of which there may be no more than `limit`.
pub(crate) fn object_bytes(
    uri: &S3Uri,
    owner: Option<&str>,
    limit: u64,
    cx: &mut StepCx<'_>,
) -> Result<Vec<u8>, StepError> {
    let (http, mut bytes) = (Http::new(cx.env, cx.outside), Vec::new());
    get(
        uri,
        owner,
        limit,
        &S3::new(&http, cx.outside),
        cx,
        &mut bytes,
    )?;
    let sha256 = Digest::of(&bytes);
    cx.fetched(&uri.to_string(), sha256, bytes.len() as u64, false)?;
    Ok(bytes)
}

/// An object into `receiver`.
fn get(
    uri: &S3Uri,
    owner: Option<&str>,
    limit: u64,
    s3: &S3<'_>,
    cx: &mut StepCx<'_>,
    receiver: &mut impl Receiver,
) -> Result<(), StepError> {
    let place = place(uri, cx);
    let wanted = Wanted {
        checksum: None,
        limit,
        deadline: cx.deadline,
    };
    if cx.take_kept(&uri.to_string(), &wanted, receiver)? {
        return Ok(());
    }
    let frame = Frame {
        place: &place,
        owner,
        deadline: cx.deadline,
    };
    let sink = &mut *cx.sink;
    let mut told = |text| sink(ChildEvent::Note { text });
    retrying(s3.http, wanted.deadline, &mut told, || {
        let response = s3.get(uri, frame)?;
        body(s3.http, response, &place, &wanted, receiver)
    })
}

/// An address as messages may show it.
fn place(uri: &S3Uri, cx: &StepCx<'_>) -> String {
    match cx.loud {
        true => uri.to_string(),
        // Nothing of a step without logging is shown.
        false => "the source".to_owned(),
    }
}

fn object(
    entry: &S3Download,
    uri: &S3Uri,
    target: &Path,
    s3: &S3<'_>,
    cx: &mut StepCx<'_>,
) -> Result<(), StepError> {
    if !entry.overwrite && cx.root.look(target)?.is_some() {
        return Err(StepError::Exists {
            path: shown(target),
        });
    }
    if let Some(folder) = target.parent().and_then(Path::to_str) {
        cx.root.existing_folder("write into", folder)?;
    }
    let mut landing = Landing::begin(target)?;
    let limit = cx.held.file_size();
    let limit = limit.unwrap_or(s3.http.patience().bytes);
    let owner = entry.expected_bucket_owner.as_deref();
    get(uri, owner, limit, s3, cx, &mut landing)?;
    let (sha256, bytes) = landing.content();
    cx.fetched(&uri.to_string(), sha256, bytes, false)?;
    landing.finish()
}

fn frame<'f>(entry: &'f S3Download, place: &'f str, cx: &StepCx<'_>) -> Frame<'f> {
    Frame {
        place,
        owner: entry.expected_bucket_owner.as_deref(),
        deadline: cx.deadline,
    }
}

fn prefix(
    entry: &S3Download,
    uri: &S3Uri,
    folder: &str,
    s3: &S3<'_>,
    cx: &mut StepCx<'_>,
) -> Result<(), StepError> {
    cx.about(&format!("{uri}* to {folder}"));
    cx.root.existing_folder("write into", folder)?;
    let place = place(uri, cx);
    let keys = match pinned_keys(uri, cx) {
        // What the lock has of the prefix is what there was of it.
        Some(keys) if cx.outside.offline => keys,
        _ => keys(entry, uri, &place, s3, cx)?,
    };
    if keys.is_empty() {
        return Err(StepError::NoObject { place });
    }
    // All names first: nothing is written for a listing with one that leads elsewhere.
    let mut targets = Vec::with_capacity(keys.len());
    for key in keys {
        let shown = if cx.loud { key.as_str() } else { "" };
        let below = below(&key, &uri.key).ok_or_else(|| StepError::Key {
            place: place.clone(),
            key: shown.chars().take(200).collect(),
        })?;
        let below = below.map(|below| Path::new(folder).join(below));
        targets.extend(below.map(|target| (key, target)));
    }
    for (key, target) in targets {
        cx.check_deadline()?;
        let object_uri = S3Uri {
            bucket: uri.bucket.clone(),
            key,
        };
        cx.root.make_parents(&target)?;
        object(entry, &object_uri, &target, s3, cx)?;
    }
    Ok(())
}

/// The keys below a prefix whose objects are pinned; `None` when nothing is.
fn pinned_keys(uri: &S3Uri, cx: &StepCx<'_>) -> Option<Vec<String>> {
    let pins = cx.outside.pins.as_ref()?;
    let whole = uri.to_string();
    let below = pins.keys().filter_map(|source| source.strip_prefix(&whole));
    let keys: Vec<String> = below.map(|rest| format!("{}{rest}", uri.key)).collect();
    (!keys.is_empty() && keys.len() <= MAX_OBJECTS).then_some(keys)
}

/// All keys below a prefix.
fn keys(
    entry: &S3Download,
    uri: &S3Uri,
    place: &str,
    s3: &S3<'_>,
    cx: &mut StepCx<'_>,
) -> Result<Vec<String>, StepError> {
    let mut keys = Vec::new();
    let mut next: Option<String> = None;
    let frame = frame(entry, place, cx);
    for _ in 0..MAX_PAGES {
        let sink = &mut *cx.sink;
        let mut told = |text| sink(ChildEvent::Note { text });
        let page = retrying(s3.http, frame.deadline, &mut told, || {
            Ok(s3.list(uri, next.as_deref(), frame)?)
        })?;
        keys.extend(page.keys);
        if keys.len() > MAX_OBJECTS {
            break;
        }
        next = page.next;
        if next.is_none() {
            return Ok(keys);
        }
    }
    Err(StepError::ManyObjects {
        place: place.to_owned(),
        limit: MAX_OBJECTS,
    })
}

/// Where the object of a key belongs below the folder: `Some(None)` for nowhere, since a key that ends
/// in `/` only marks a folder; `None` for a key that would lead elsewhere.
#[allow(
    clippy::option_option,
    reason = "nowhere and elsewhere differ: one is passed over, the other an error"
)]
fn below(key: &str, prefix: &str) -> Option<Option<PathBuf>> {
    let rest = key.strip_prefix(prefix)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (path, marker) = match rest.strip_suffix('/') {
        Some(path) => (path, true),
        None => (rest, false),
    };
    let odd = |part: &str| ["", ".", ".."].contains(&part) || part.contains('\0');
    if path.split('/').any(odd) {
        return None;
    }
    Some((!marker).then(|| PathBuf::from(path)))
}

#[cfg(fuzzing)]
pub(super) fn fuzz(key: &str) {
    use std::path::Component::Normal;
    if let Some(Some(path)) = below(key, "") {
        assert!(
            path.components().all(|part| matches!(part, Normal(_))),
            "{path:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_below_the_folder_or_nowhere() {
        let inside = |key: &str| below(key, "pre/").map(|p| p.map(|p| p.display().to_string()));
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(inside("pre/a"), some("a"));
        assert_eq!(inside("pre/a/b c"), some("a/b c"));
        assert_eq!(inside("pre/..a"), some("..a"));
        assert_eq!(inside("pre/"), Some(None), "the folder itself");
        assert_eq!(inside("pre/a/"), Some(None), "a folder");
        for bad in [
            "other",
            "pre/../x",
            "pre/a/../../x",
            "pre/..",
            "pre/.",
            "pre//etc/passwd",
            "pre/a//b",
            "pre/a\0b",
            "pre/../",
            "pre//",
        ] {
            assert_eq!(inside(bad), None, "{bad:?}");
        }
        assert_eq!(below("a", ""), Some(Some(PathBuf::from("a"))));
        assert_eq!(below("/etc/passwd", ""), None);
    }
}
