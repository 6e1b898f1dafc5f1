//! Standard output: data and nothing else. With `--events -` it holds JSON lines and nothing else: a result is one
//! of them, `{"event":"result","result":…}`, and what is no JSON goes to standard error.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::CommandError;

static LINES: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicBool = AtomicBool::new(false);

/// The first line of a stream of events.
pub(crate) fn first_line() -> String {
    #[derive(Serialize)]
    #[serde(tag = "event", rename = "stream")]
    struct Line {
        version: u32,
        program: String,
    }
    let line = Line {
        version: amiforge_engine::EVENTS_VERSION,
        program: format!("amiforge {}", amiforge_engine::TOOL_VERSION),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// The same of the stream on standard output, when nothing was written there yet.
pub(crate) fn begin_lines() -> Option<String> {
    (!BEGUN.swap(true, Ordering::Relaxed)).then(first_line)
}

/// From now on events are on standard output.
pub(crate) fn json_lines() {
    LINES.store(true, Ordering::Relaxed);
}

pub(crate) fn is_json_lines() -> bool {
    LINES.load(Ordering::Relaxed)
}

/// Whether a result that has a form for people and one for programs takes the latter.
pub(crate) fn as_json(asked: bool) -> bool {
    asked || is_json_lines()
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    #[derive(Serialize)]
    #[serde(tag = "event", rename = "result")]
    struct Line<'a, T> {
        result: &'a T,
    }
    let text = match is_json_lines() {
        true => serde_json::to_string(&Line { result: value }),
        false => serde_json::to_string_pretty(value),
    };
    let first = is_json_lines().then(begin_lines).flatten();
    let mut out = std::io::stdout().lock();
    if let Some(first) = first {
        writeln!(out, "{first}")?;
    }
    writeln!(out, "{}", text.map_err(std::io::Error::from)?)?;
    out.flush()?;
    Ok(())
}

pub(crate) fn print_line(text: &str) -> Result<(), CommandError> {
    let mut out = writer();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Where data goes that is no JSON.
pub(crate) fn writer() -> Box<dyn Write> {
    match is_json_lines() {
        true => Box::new(std::io::stderr().lock()),
        false => Box::new(std::io::stdout().lock()),
    }
}
