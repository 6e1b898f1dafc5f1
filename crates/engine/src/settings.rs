//! What an operation is handed: state folders, clock, events, the programs to re-execute.
//!
//! This module alone reads the environment of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use amiforge_exec::aws::AwsEnvironment;
use amiforge_exec::{Helper, Sandbox, Way};
use amiforge_source::Proxies;
use amiforge_store::{Home, HomeEnv, LayerLock};
use amiforge_types::{LayerId, Timestamp};

use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::event::{Event, EventSink};

/// The environment an engine works in. Built once at the edge; tests build their own.
#[derive(Clone)]
pub struct Settings {
    /// Where store and downloads are.
    pub home: Home,
    /// `AMIFORGE_HOME`, when it is what says so: commands that are told for later begin with it.
    pub home_variable: Option<PathBuf>,
    /// The user's configuration; it may not be there.
    pub config_file: Option<PathBuf>,
    /// Root under which the host's apt configuration is read; `/` outside tests.
    pub host_root: PathBuf,
    /// `SOURCE_DATE_EPOCH`, when set.
    pub source_date_epoch: Option<i64>,
    /// Wall clock at the start of the operation.
    pub now: Timestamp,
    /// `http_proxy`, `https_proxy` and `no_proxy`, for archives and registries.
    pub source_proxies: Proxies,
    /// The same, for the downloads of steps.
    pub proxies: BTreeMap<String, String>,
    /// Whether steps get other surroundings than usual, where that must make no difference.
    pub perturbed: bool,
    /// Where credentials for AWS are looked for, once a step needs them.
    pub aws: AwsEnvironment,
    /// Files with logins of registries, in the order in which they are looked at.
    pub logins: Vec<PathBuf>,
    /// Takes the events.
    pub events: Arc<dyn EventSink>,
    /// The program that plays the child of a sandbox.
    pub helper: Helper,
    /// How steps run; `None` takes the best way that works here.
    pub sandbox: Option<Way>,
    /// The static guest agent.
    pub agent: &'static [u8],
    /// A kernel package for machines that steps run in, in place of Debian's newest.
    pub builder_kernel: Option<PathBuf>,
    /// The account that EC2 operations are of, unless they say another one.
    pub account: Option<String>,
    /// The region, likewise.
    pub region: Option<String>,
}

impl Settings {
    /// Reads `AMIFORGE_HOME`, `AMIFORGE_ACCOUNT`, `AMIFORGE_REGION`, `AMIFORGE_SANDBOX`, `AMIFORGE_BUILDER_KERNEL`, the XDG variables, `SOURCE_DATE_EPOCH` and the clock.
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
        let sandbox = match std::env::var("AMIFORGE_SANDBOX") {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(|problem| {
                EngineError::new(
                    ErrorKind::Invalid,
                    format!("AMIFORGE_SANDBOX={text}: {problem}"),
                )
            })?),
            _ => None,
        };
        Ok(Self {
            home,
            home_variable: std::env::var_os("AMIFORGE_HOME")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            config_file: config_file(),
            host_root: PathBuf::from("/"),
            source_date_epoch,
            now: Engine::wall_clock(),
            source_proxies: Proxies::of(&proxies()),
            perturbed: false,
            proxies: proxies(),
            aws: AwsEnvironment::new(std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            })),
            logins: logins(),
            events,
            helper,
            sandbox,
            agent,
            builder_kernel: std::env::var_os("AMIFORGE_BUILDER_KERNEL")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            account: variable("AMIFORGE_ACCOUNT").filter(|text| !text.is_empty()),
            region: variable("AMIFORGE_REGION").filter(|text| !text.is_empty()),
        })
    }
}

/// A variable of the environment that the user's configuration names.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where `podman login` and `docker login` keep their logins (containers-auth.json(5), docker(1)): a file that is
/// named counts alone of the former's.
fn logins() -> Vec<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = set("HOME");
    let mut files = Vec::new();
    match set("REGISTRY_AUTH_FILE") {
        Some(file) => files.push(file),
        None => {
            let config = set("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
            let folders = [set("XDG_RUNTIME_DIR"), config];
            let inside = |folder: PathBuf| folder.join("containers/auth.json");
            files.extend(folders.into_iter().flatten().map(inside));
        }
    }
    let docker = set("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
    files.extend(docker.map(|folder| folder.join("config.json")));
    files
}

/// The proxies of the environment, in either letter case, by their usual names.
fn proxies() -> BTreeMap<String, String> {
    let get = |name: &str| {
        [name.to_owned(), name.to_ascii_uppercase()]
            .into_iter()
            .find_map(|n| std::env::var(n).ok().filter(|p| !p.is_empty()))
    };
    ["http_proxy", "https_proxy", "no_proxy"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), get(name)?)))
        .collect()
}

/// `AMIFORGE_HOME/config.yaml`, else `XDG_CONFIG_HOME/amiforge/config.yaml`, which defaults to
/// `~/.config`. Empty and relative XDG values count as unset, as its specification has it.
fn config_file() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let folder = set("AMIFORGE_HOME").or_else(|| {
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        Some(config?.join("amiforge"))
    });
    Some(folder?.join("config.yaml"))
}

/// The operations, bound to their environment.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) interruption: Interruption,
    /// Held while an image is booted: guests that have to share the processors miss their times.
    pub(crate) boots: Arc<Mutex<()>>,
    /// Layers that this run was asked to make again, and has.
    pub(crate) rebuilt: Arc<Mutex<BTreeSet<LayerId>>>,
    /// Held while layers are made again, by the lowest of them: recipes of one run share it.
    pub(crate) rebuilding: Arc<Mutex<BTreeMap<LayerId, Weak<LayerLock>>>>,
    /// The sandbox that was chosen, once one was needed.
    pub(crate) sandbox: Arc<Mutex<Option<Sandbox>>>,
    /// Whether the operation may not use the network.
    pub(crate) offline: Arc<AtomicBool>,
}

/// How a running operation is ended from outside, and what must go then.
#[derive(Clone, Default)]
pub struct Interruption {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Folders and files that are not finished.
    unfinished: Mutex<Vec<PathBuf>>,
    requested: AtomicBool,
    /// Jobs under way that look at `requested`.
    jobs: AtomicUsize,
}

/// How long a job gets to end its processes, and the operation to clear up after it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Interruption {
    /// Ends the operation, on a thread of its own; the process ends right after this returns.
    ///
    /// A job of the sandbox is told, and the operation then fails by itself: it ends all processes of
    /// the job, removes what belongs to other ids, and usually the process with it, so that this never
    /// returns. Whatever else is under way is left where it is. Then every unfinished output goes, and
    /// what a running guest needs; no output is put in its place any more.
    pub fn interrupt(&self) {
        self.shared.requested.store(true, Ordering::SeqCst);
        let mut until = Instant::now();
        if self.shared.jobs.load(Ordering::SeqCst) > 0 {
            until += PATIENCE;
        }
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let Ok(unfinished) = self.shared.unfinished.lock() else {
            return;
        };
        for path in unfinished.iter() {
            // What cannot be removed is found by the next run.
            if std::fs::remove_file(path).is_err() {
                let _ = std::fs::remove_dir_all(path);
            }
        }
        // Held until the process ends: nothing is finished meanwhile.
        std::mem::forget(unfinished);
    }

    /// Whether [`Interruption::interrupt`] was called.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::SeqCst)
    }

    /// Says that a job runs that looks at the flag, for as long as the guard lives.
    pub(crate) fn job(&self) -> Running<'_> {
        self.shared.jobs.fetch_add(1, Ordering::SeqCst);
        Running(&self.shared)
    }

    pub(crate) fn watch(&self, path: &Path) {
        if let Ok(mut unfinished) = self.shared.unfinished.lock() {
            unfinished.push(path.to_owned());
        }
    }

    /// Watches a path for as long as the guard lives.
    pub(crate) fn guard(&self, path: &Path) -> Watched {
        self.watch(path);
        Watched {
            interruption: self.clone(),
            path: path.to_owned(),
        }
    }

    pub(crate) fn unwatch(&self, path: &Path) {
        self.finish(path, || ());
    }

    /// Does the step that finishes a watched path. It happens whole or, when the process is ending, not
    /// at all.
    pub(crate) fn finish<T>(&self, path: &Path, step: impl FnOnce() -> T) -> T {
        let unfinished = self.shared.unfinished.lock();
        let done = step();
        if let Ok(mut unfinished) = unfinished {
            unfinished.retain(|p| p != path);
        }
        done
    }
}

/// See [`Interruption::job`].
pub(crate) struct Running<'a>(&'a Shared);

impl Running<'_> {
    /// Set once the job has to end.
    pub(crate) fn cancel(&self) -> &AtomicBool {
        &self.0.requested
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::SeqCst);
    }
}

/// See [`Interruption::guard`].
pub(crate) struct Watched {
    interruption: Interruption,
    path: PathBuf,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.interruption.unwatch(&self.path);
    }
}

impl Engine {
    /// An engine for these settings. Touches nothing on disk yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            interruption: Interruption::default(),
            boots: Arc::default(),
            rebuilt: Arc::default(),
            rebuilding: Arc::default(),
            sandbox: Arc::default(),
            offline: Arc::default(),
        }
    }

    /// Notes whether what the operation needs beside its inputs may come from the network.
    pub(crate) fn may_use_network(&self, may: bool) {
        self.offline.store(!may, Ordering::Relaxed);
    }

    /// Whether the operation may not use the network, as far as that is known.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// The same engine, whose events go elsewhere; ended from outside together with this one.
    pub(crate) fn telling(&self, events: Arc<dyn EventSink>) -> Self {
        Self {
            settings: Settings {
                events,
                ..self.settings.clone()
            },
            interruption: self.interruption.clone(),
            boots: self.boots.clone(),
            rebuilt: self.rebuilt.clone(),
            rebuilding: self.rebuilding.clone(),
            sandbox: self.sandbox.clone(),
            offline: self.offline.clone(),
        }
    }

    /// How operations are ended from outside.
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

    /// Tells the problems of a document that is used all the same.
    pub(crate) fn warn_of(&self, report: &DocumentReport) {
        let text: Arc<str> = report.text.as_str().into();
        for diagnostic in &report.diagnostics {
            self.emit(Event::Problem {
                message: format!("{}:{diagnostic}", report.path.display()),
                path: report.path.clone(),
                text: text.clone(),
                diagnostic: diagnostic.clone(),
            });
        }
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
