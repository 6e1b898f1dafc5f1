//! `S3Upload`: files into objects of S3.
//! Reference: AWSTOE action modules, S3Upload. Links to files are the files; links to folders are not
//! entered, pipes and devices not read.

use std::fs::File;
use std::path::{Path, PathBuf};

use amiforge_recipe::actions::{S3Upload, S3Uri};

use super::fetch::retrying;
use super::files::{failed, shown, wrong_type};
use super::{Action, Outputs, StepCx, StepError};
use crate::aws::s3::{Frame, Piece, S3};
use crate::event::ChildEvent;
use crate::net::Http;

impl Action for Vec<S3Upload> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let http = Http::new(cx.env, cx.outside);
        let s3 = S3::new(&http, cx.outside);
        for entry in self {
            cx.check_deadline()?;
            for (path, uri) in objects(entry, cx)? {
                cx.check_deadline()?;
                cx.about(&format!("{} to {uri}", shown(&path)));
                upload(entry, &path, &uri, &s3, cx)?;
            }
        }
        Ok(Vec::new())
    }
}

/// The files with the objects they become.
fn objects(entry: &S3Upload, cx: &mut StepCx<'_>) -> Result<Vec<(PathBuf, S3Uri)>, StepError> {
    let pattern = cx.path(&entry.source);
    cx.about(&format!("{pattern} to {}", entry.destination));
    let to = &entry.destination;
    if !entry.source.contains('*') {
        let path = PathBuf::from(&pattern);
        let is_folder = cx.root.look(&path)?.is_some_and(|found| found.is_dir());
        if !is_folder {
            let key = match to.key.is_empty() || to.key.ends_with('/') {
                true => format!("{}{}", to.key, name(&path)?),
                false => to.key.clone(),
            };
            return Ok(vec![(path, with_key(to, key))]);
        }
        if !entry.recurse {
            return Err(StepError::NotRecursive { path: pattern });
        }
        let mut all = Vec::new();
        below(&path, &prefix(to), to, cx, &mut all)?;
        return not_none(all, pattern);
    }
    let mut all = Vec::new();
    for path in cx.root.matches(&pattern, &|_, _| Ok(true))? {
        let key = format!("{}{}", prefix(to), name(&path)?);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                if entry.recurse {
                    below(&path, &format!("{key}/"), to, cx, &mut all)?;
                }
            }
            _ => add(path, key, to, cx, &mut all)?,
        }
    }
    not_none(all, pattern)
}

fn not_none(
    all: Vec<(PathBuf, S3Uri)>,
    pattern: String,
) -> Result<Vec<(PathBuf, S3Uri)>, StepError> {
    match all.is_empty() {
        true => Err(StepError::NoMatch { pattern }),
        false => Ok(all),
    }
}

/// All files below a folder.
fn below(
    folder: &Path,
    prefix: &str,
    to: &S3Uri,
    cx: &mut StepCx<'_>,
    all: &mut Vec<(PathBuf, S3Uri)>,
) -> Result<(), StepError> {
    for (path, found) in cx.root.children(folder)? {
        cx.check_deadline()?;
        let key = format!("{prefix}{}", name(&path)?);
        if found.is_dir() {
            below(&path, &format!("{key}/"), to, cx, all)?;
        } else {
            add(path, key, to, cx, all)?;
        }
    }
    Ok(())
}

/// Adds a file, or a link to one; says what is neither.
fn add(
    path: PathBuf,
    key: String,
    to: &S3Uri,
    cx: &mut StepCx<'_>,
    all: &mut Vec<(PathBuf, S3Uri)>,
) -> Result<(), StepError> {
    // A link that leads nowhere, or round in a circle, is no file.
    if matches!(cx.root.look(&path), Ok(Some(found)) if found.is_file()) {
        all.push((path, with_key(to, key)));
    } else if cx.loud {
        cx.note(format!("{} is no file and is not uploaded", shown(&path)));
    }
    Ok(())
}

/// The key as the beginning of keys.
fn prefix(to: &S3Uri) -> String {
    match to.key.is_empty() || to.key.ends_with('/') {
        true => to.key.clone(),
        false => format!("{}/", to.key),
    }
}

fn with_key(to: &S3Uri, key: String) -> S3Uri {
    S3Uri {
        bucket: to.bucket.clone(),
        key,
    }
}

fn name(path: &Path) -> Result<&str, StepError> {
    let name = path
        .file_name()
        .ok_or_else(|| StepError::NoName { path: shown(path) })?;
    name.to_str()
        .ok_or_else(|| StepError::NotUtf8Key { path: shown(path) })
}

fn upload(
    entry: &S3Upload,
    path: &Path,
    uri: &S3Uri,
    s3: &S3<'_>,
    cx: &mut StepCx<'_>,
) -> Result<(), StepError> {
    let found = cx.root.metadata(path).map_err(failed("read", path))?;
    if !found.is_file() {
        return Err(wrong_type(path, &found, "a file"));
    }
    let file = File::open(path).map_err(failed("read", path))?;
    let size = file.metadata().map_err(failed("read", path))?.len();
    let place = match cx.loud {
        true => uri.to_string(),
        // Nothing of a step without logging is shown.
        false => "the destination".to_owned(),
    };
    let deadline = cx.deadline;
    let frame = Frame {
        place: &place,
        owner: entry.expected_bucket_owner.as_deref(),
        deadline,
    };
    let piece = |range| {
        Piece::read(&file, range, deadline)
            .map_err(failed("read", path))?
            .ok_or(StepError::TimedOut)
    };
    let sizes = cx.outside.sizes;
    let sink = &mut *cx.sink;
    let mut told = |text| sink(ChildEvent::Note { text });
    let Some(parts) = sizes.parts(size) else {
        let piece = piece((0, size))?;
        return retrying(s3.http, deadline, &mut told, || {
            Ok(s3.put(uri, &piece, frame)?)
        });
    };
    let upload = retrying(s3.http, deadline, &mut told, || Ok(s3.begin(uri, frame)?))?;
    let send_all = || {
        let mut tags = Vec::with_capacity(parts.len());
        for (number, range) in (1..).zip(parts) {
            let piece = piece(range)?;
            tags.push(retrying(s3.http, deadline, &mut told, || {
                Ok(s3.part(uri, &upload, number, &piece, frame)?)
            })?);
        }
        retrying(s3.http, deadline, &mut told, || {
            Ok(s3.complete(uri, &upload, &tags, frame)?)
        })
    };
    let sent = send_all();
    if sent.is_err() {
        // Parts without an object cost money. Their removal has its own time, and its failure does not
        // hide what failed first.
        let deadline = std::time::Instant::now().checked_add(s3.http.patience().silence);
        let _stays_there = s3.abort(uri, &upload, Frame { deadline, ..frame });
    }
    sent
}
