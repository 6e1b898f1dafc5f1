//! `WebDownload`: files from the web.
//! Reference: AWSTOE action modules, WebDownload. Up to five tries with a pause that doubles, for what
//! may pass; a status such as 404, a wrong checksum and a wrong certificate end it at once.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use amiforge_recipe::actions::{Checksum, WebDownload, WebUrl};

use super::fetch::{Wanted, retrying, web};
use super::files::{failed, wrong_type};
use super::landing::Landing;
use super::{Action, Outputs, StepCx, StepError};
use crate::event::ChildEvent;
use crate::net::{Hash, Http};

impl Action for Vec<WebDownload> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let http = Http::new(cx.env, cx.outside);
        let mut written = Vec::new();
        for entry in self {
            cx.check_deadline()?;
            written.push(download(entry, &http, cx)?);
        }
        let key = "destination".to_owned();
        Ok(vec![Outputs::from([(key, written.join("\n"))])])
    }
}

/// Downloads one file, and returns its path.
fn download(
    entry: &WebDownload,
    http: &Http<'_>,
    cx: &mut StepCx<'_>,
) -> Result<String, StepError> {
    let mut target = cx.full_path(&entry.destination);
    if target.ends_with('/') {
        let name = entry.source.file_name();
        target.push_str(&name.ok_or_else(|| StepError::NoName {
            path: entry.source.to_string(),
        })?);
    }
    cx.about(&format!("{} to {target}", entry.source));
    if let Some(found) = cx.root.look(&target)? {
        if found.is_dir() {
            return Err(wrong_type(&target, &found, "a file"));
        }
        if !entry.overwrite {
            return Err(StepError::Exists { path: target });
        }
        if let Some(sum) = &entry.checksum
            && found.is_file()
            && digest(cx, &target, sum)? == sum.digits
        {
            if cx.loud {
                cx.note(format!("{target} has this checksum already"));
            }
            return Ok(target);
        }
    }
    cx.root.make_parents(&target)?;
    let mut landing = Landing::begin(Path::new(&target))?;
    let wanted = Wanted {
        checksum: entry.checksum.as_ref(),
        limit: cx.held.file_size().unwrap_or(http.patience().bytes),
        deadline: cx.deadline,
    };
    let address = entry.source.to_string();
    if cx.take_kept(&address, &wanted, &mut landing)? {
        return landed(entry, landing, target, cx);
    }
    let loud = cx.loud;
    let show = |url: &WebUrl| match loud {
        true => url.to_string(),
        // Nothing of a step without logging is shown.
        false => "the source".to_owned(),
    };
    let sink = &mut *cx.sink;
    let mut told = |text| sink(ChildEvent::Note { text });
    retrying(http, wanted.deadline, &mut told, || {
        web(
            http,
            &entry.source,
            entry.ignore_certificate_errors,
            &show,
            &wanted,
            &mut landing,
        )
    })?;
    landed(entry, landing, target, cx)
}

/// Tells what came, and puts it in place.
fn landed(
    entry: &WebDownload,
    mut landing: Landing,
    target: String,
    cx: &mut StepCx<'_>,
) -> Result<String, StepError> {
    let (sha256, bytes) = landing.content();
    let checked = entry.checksum.is_some();
    cx.fetched(&entry.source.to_string(), sha256, bytes, checked)?;
    landing.finish()?;
    Ok(target)
}

fn digest(cx: &StepCx<'_>, path: &str, sum: &Checksum) -> Result<String, StepError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut hash = Hash::new(sum.algorithm);
    let mut piece = vec![0; 1 << 16];
    loop {
        cx.check_deadline()?;
        match file.read(&mut piece).map_err(failed("read", path))? {
            0 => return Ok(hash.finish()),
            count => hash.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
