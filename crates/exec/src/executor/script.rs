//! Runs one script that is not a component's.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use super::surroundings::base_environment;
use super::{Held, Sink, now, process, start_time};
use crate::actions::TempScript;
use crate::event::ScriptResult;
use crate::spec::ScriptSpec;

/// Runs the script to its end. An empty interpreter runs nothing and succeeds.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run_script(
    spec: &ScriptSpec,
    held: &Held,
    sink: Sink<'_>,
) -> io::Result<ScriptResult> {
    let start = start_time();
    if spec.interpreter.is_empty() {
        return Ok(ScriptResult {
            exit_code: Some(0),
            signal: None,
            timed_out: false,
            tail: Vec::new(),
            start,
            end: now(),
        });
    }
    let script = TempScript::write(&spec.text)?;
    let mut env = base_environment();
    env.extend(spec.env.iter().map(|(k, v)| (k.clone(), v.clone())));
    let mut argv = spec.interpreter.clone();
    argv.push(script.path().to_owned());
    let deadline = spec
        .timeout_seconds
        .and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
    let done = process::run(
        &process::Spec {
            argv: &argv,
            env: &env,
            dir: "/",
            held,
            reserve: None,
            deadline,
            loud: true,
        },
        sink,
    )?;
    Ok(ScriptResult {
        exit_code: done.status.and_then(|s| s.code()),
        signal: done.status.and_then(|s| s.signal()),
        timed_out: done.status.is_none(),
        tail: done.tail,
        start,
        end: now(),
    })
}
