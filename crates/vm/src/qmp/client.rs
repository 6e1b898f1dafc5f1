//! Commands with their answers, and events.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::MESSAGE_MAX;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// QEMU says no.
    Refused(String),
    /// No answer in time.
    Late,
    /// QEMU is gone.
    Gone,
}

/// A control channel in use. It ends with QEMU.
#[derive(Debug)]
pub(crate) struct Client {
    writer: Mutex<UnixStream>,
    answers: Arc<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Commands on their way, with their answers once they are there.
    waiting: BTreeMap<u64, Option<Value>>,
    gone: bool,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Reads from `stream` on a thread of its own. `on_event` is called there with name and data of each event, and once with
    /// an empty name when QEMU is gone; it must not wait for commands.
    pub(crate) fn start(
        stream: UnixStream,
        mut on_event: impl FnMut(&str, &Value) + Send + 'static,
    ) -> std::io::Result<Self> {
        let answers = Arc::<Answers>::default();
        let (reader, own) = (stream.try_clone()?, answers.clone());
        // A command is short; QEMU that does not read for so long is stopped.
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || {
                read(reader, &own, &mut on_event);
                own.lock().gone = true;
                own.changed.notify_all();
                on_event("", &Value::Null);
            })?;
        Ok(Self {
            writer: Mutex::new(stream),
            answers,
        })
    }

    /// Carries out a command and gives its answer.
    pub(crate) fn execute(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, CommandError> {
        let until = Instant::now() + limit;
        let id = {
            let mut state = self.answers.lock();
            if state.gone {
                return Err(CommandError::Gone);
            }
            state.last += 1;
            let id = state.last;
            state.waiting.insert(id, None);
            id
        };
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let line = format!("{message}\n");
        let sent = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes());
        let mut state = self.answers.lock();
        if sent.is_err() {
            state.waiting.remove(&id);
            return Err(CommandError::Gone);
        }
        loop {
            if let Some(Some(_)) = state.waiting.get(&id)
                && let Some(Some(mut answer)) = state.waiting.remove(&id)
            {
                return match answer.get("error") {
                    None => Ok(answer["return"].take()),
                    Some(error) => Err(CommandError::Refused(
                        error["desc"]
                            .as_str()
                            .unwrap_or("no reason given")
                            .to_owned(),
                    )),
                };
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.gone || left.is_zero() {
                state.waiting.remove(&id);
                return Err(match state.gone {
                    true => CommandError::Gone,
                    false => CommandError::Late,
                });
            }
            (state, _) = self
                .answers
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn read(stream: UnixStream, answers: &Answers, on_event: &mut impl FnMut(&str, &Value)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MESSAGE_MAX)
            .read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        // What is no message is the rest of one that was too long.
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        if let Some(name) = message["event"].as_str() {
            on_event(name, &message["data"]);
        } else if let Some(id) = message["id"].as_u64() {
            // An answer that nobody waits for any more came too late.
            if let Some(waiting) = answers.lock().waiting.get_mut(&id) {
                *waiting = Some(message);
            }
            answers.changed.notify_all();
        }
    }
}
