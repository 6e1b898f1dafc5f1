//! What an operation is handed: state folders, clock, events, the programs to re-execute.
//!
//! This module alone reads the environment of the process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use amiforge_exec::Helper;
use amiforge_store::{Home, HomeEnv};
use amiforge_types::Timestamp;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::{Event, EventSink};

/// The environment an engine works in. Built once at the edge; tests build their own.
pub struct Settings {
    /// Where store and downloads are.
    pub home: Home,
    /// Root under which the host's apt configuration is read; `/` outside tests.
    pub host_root: PathBuf,
    /// `SOURCE_DATE_EPOCH`, when set.
    pub source_date_epoch: Option<i64>,
    /// Wall clock at the start of the operation.
    pub now: Timestamp,
    /// `http_proxy`, when set.
    pub proxy: Option<String>,
    /// Takes the events.
    pub events: Arc<dyn EventSink>,
    /// The program that plays the child of a sandbox.
    pub helper: Helper,
    /// The static guest agent.
    pub agent: &'static [u8],
}

impl Settings {
    /// Reads `AMIFORGE_HOME`, the XDG variables, `SOURCE_DATE_EPOCH` and the clock.
    pub fn from_environment(
        events: Arc<dyn EventSink>,
        helper: Helper,
        agent: &'static [u8],
    ) -> Result<Self, EngineError> {
        let home = Home::resolve(&HomeEnv {
            amiforge_home: std::env::var_os("AMIFORGE_HOME"),
            xdg_data_home: std::env::var_os("XDG_DATA_HOME"),
            xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
            home: std::env::var_os("HOME"),
        })
        .or_fail(ErrorKind::Environment, || {
            "no place for the store".to_owned()
        })?;
        let source_date_epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) if !text.is_empty() => Some(text.trim().parse().map_err(|_| {
                EngineError::new(
                    ErrorKind::Invalid,
                    format!("SOURCE_DATE_EPOCH={text}: not a number of seconds"),
                )
            })?),
            _ => None,
        };
        Ok(Self {
            home,
            host_root: PathBuf::from("/"),
            source_date_epoch,
            now: Engine::wall_clock(),
            proxy: std::env::var("http_proxy").ok().filter(|p| !p.is_empty()),
            events,
            helper,
            agent,
        })
    }
}

/// The operations, bound to their environment.
pub struct Engine {
    pub(crate) settings: Settings,
    interruption: Interruption,
}

/// Folders and files that must go when the process is interrupted.
#[derive(Clone, Default)]
pub struct Interruption {
    folders: Arc<Mutex<Vec<PathBuf>>>,
}

impl Interruption {
    /// Removes every unfinished output and what a running guest needs. Called once, when the process is about to end.
    pub fn clean_up(&self) {
        let Ok(folders) = self.folders.lock() else {
            return;
        };
        for folder in folders.iter() {
            // The process ends right after; what cannot be removed is found by the next build.
            if std::fs::remove_file(folder).is_err() {
                let _ = std::fs::remove_dir_all(folder);
            }
        }
    }

    pub(crate) fn watch(&self, folder: &Path) {
        if let Ok(mut folders) = self.folders.lock() {
            folders.push(folder.to_owned());
        }
    }

    /// Watches a folder for as long as the guard lives.
    pub(crate) fn guard(&self, folder: &Path) -> Watched {
        self.watch(folder);
        Watched {
            interruption: self.clone(),
            folder: folder.to_owned(),
        }
    }

    pub(crate) fn unwatch(&self, folder: &Path) {
        if let Ok(mut folders) = self.folders.lock() {
            folders.retain(|f| f != folder);
        }
    }
}

/// See [`Interruption::guard`].
pub(crate) struct Watched {
    interruption: Interruption,
    folder: PathBuf,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.interruption.unwatch(&self.folder);
    }
}

impl Engine {
    /// An engine for these settings. Touches nothing on disk yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            interruption: Interruption::default(),
        }
    }

    /// What has to be cleaned up when the process is interrupted.
    #[must_use]
    pub fn interruption(&self) -> Interruption {
        self.interruption.clone()
    }

    pub(crate) fn emit(&self, event: Event) {
        self.settings.events.event(event);
    }

    pub(crate) fn stage(&self, name: &'static str, detail: impl Into<String>) {
        self.emit(Event::Stage {
            name,
            detail: detail.into(),
        });
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warning {
            message: message.into(),
        });
    }

    /// Wall clock now. Only for file times of running steps, names of logs and ages; never for bytes of an image.
    pub(crate) fn wall_clock() -> Timestamp {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp {
            secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanos: now.subsec_nanos(),
        }
    }
}
