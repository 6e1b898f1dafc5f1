//! Instances, images, snapshots, volumes, keys, policies: arguments to operations, results to text.

pub(crate) mod args;
mod images;
mod instances;
mod others;
mod serial;
mod table;
mod volumes;

use std::path::Path;

use amiforge_engine::ec2::{self, api};
use amiforge_engine::{Engine, EngineError, ErrorKind};

use crate::CommandError;
use crate::commands::{Outcome, usage};

pub(crate) use images::image;
pub(crate) use instances::{instance, run};
pub(crate) use others::{account, audit, key, policy, snapshot};
pub(crate) use volumes::volume;

impl From<&args::Place> for ec2::Place {
    fn from(place: &args::Place) -> Self {
        Self {
            account: place.account.clone(),
            region: place.region.clone(),
            dry_run: place.dry_run,
        }
    }
}

/// `K=V`, each; a key alone has the empty value.
fn tags(texts: &[String]) -> Vec<api::Tag> {
    let tag = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        api::Tag {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    };
    texts.iter().map(tag).collect()
}

/// Tags for each kind of resource that a request makes.
fn tags_for(kinds: &[&str], texts: &[String]) -> Vec<api::TagSpecification> {
    let tags = tags(texts);
    if tags.is_empty() {
        return Vec::new();
    }
    let of = |kind: &&str| api::TagSpecification {
        resource_type: (*kind).to_owned(),
        tags: tags.clone(),
    };
    kinds.iter().map(of).collect()
}

/// `Name=instance-state-name,Values=running,stopped`, or `instance-state-name=running,stopped`.
fn filters(texts: &[String]) -> Result<Vec<api::Filter>, CommandError> {
    let bad = |text: &str| {
        usage(format!(
            "--filter {text}: write NAME=VALUES or Name=NAME,Values=VALUES"
        ))
    };
    texts
        .iter()
        .map(|text| {
            let (name, values) = match text.strip_prefix("Name=") {
                Some(rest) => rest.split_once(",Values=").ok_or_else(|| bad(text))?,
                None => text.split_once('=').ok_or_else(|| bad(text))?,
            };
            Ok(api::Filter {
                name: name.to_owned(),
                values: values.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// JSON text, or the file that has it (also with `file://`, as the AWS command line writes it).
fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, CommandError> {
    let bad = |problem: String| {
        CommandError::from(EngineError::new(
            ErrorKind::Invalid,
            format!("{what}: {problem}"),
        ))
    };
    let (name, content) = if text.trim_start().starts_with(['[', '{']) {
        ("the JSON given".to_owned(), text.to_owned())
    } else {
        let path = text.strip_prefix("file://").unwrap_or(text);
        let content = read_bytes(Path::new(path)).map_err(|e| bad(format!("{path}: {e}")))?;
        (
            path.to_owned(),
            String::from_utf8_lossy(&content).into_owned(),
        )
    };
    serde_json::from_str(&content).map_err(|e| bad(format!("{name}: {e}")))
}

/// Longest request that is read from a file.
const REQUEST_MAX: u64 = 1 << 20;

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    if file.take(REQUEST_MAX + 1).read_to_end(&mut bytes)? as u64 > REQUEST_MAX {
        return Err(std::io::Error::other(format!(
            "longer than {REQUEST_MAX} bytes"
        )));
    }
    Ok(bytes)
}

/// A dry run that would be granted is a success, as far as a shell is concerned.
fn granted<T>(
    result: Result<T, EngineError>,
    place: &args::Place,
) -> Result<Option<T>, CommandError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_dry_run() => {
            if crate::out::as_json(place.json) {
                crate::out::print_json(&serde_json::json!({ "DryRunOperation": true }))?;
            } else {
                crate::out::print_line("the request would be granted")?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints an answer: as JSON, or the line that says it.
fn said(place: &args::Place, json: &serde_json::Value, line: &str) -> Outcome {
    if crate::out::as_json(place.json) {
        crate::out::print_json(json)?;
    } else {
        crate::out::print_line(line)?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

/// Prints what a request gave, unless it was a dry run.
fn done(result: Result<(), EngineError>, place: &args::Place, line: &str) -> Outcome {
    match granted(result, place)? {
        Some(()) => said(place, &serde_json::json!({ "Return": true }), line),
        None => Ok(std::process::ExitCode::SUCCESS),
    }
}

/// The process of an instance, started by `run`; ends with it.
pub(crate) fn instance_main(
    engine: &Engine,
    id: &str,
    asked_to_end: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> std::process::ExitCode {
    match engine.supervise(id, asked_to_end) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            crate::render::error(&error);
            std::process::ExitCode::from(error.exit_code())
        }
    }
}
