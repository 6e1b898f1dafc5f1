//! What a failed phase leaves: the files as they are, kept in the store and beside the logs, and a shell among them.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use amiforge_exec::{Console, RootSpec, RunSpec, Sandbox, ShellSpec};
use amiforge_plan::LayerPlan;
use amiforge_store::Store;
use amiforge_tree::LayerDiff;
use amiforge_tree::tar::write_changes;
use amiforge_types::{BlobTable, ByteSize, Compression, LayerId};
use serde::{Deserialize, Serialize};

use super::left_files;
use super::overlay::Scratch;
use super::phase::Phase;
use super::sandbox::sandbox_error;
use super::{Made, Work, store_context};
use crate::compress::{BlobError, compressed};
use crate::error::{Contextual, EngineError, ErrorKind, FailedStep, chain};
use crate::event::Event;
use crate::plans::record_key;
use crate::settings::Engine;

/// Kind of the records that say where the files of a recipe's last failure are; by its name.
pub(crate) const FAILED: &str = "failed";
const FAILED_VERSION: u32 = 1;

/// In the folder of a failed build: what the failed run had changed, as OCI archives of changes are written.
pub(crate) const CHANGES_FILE: &str = "changes.tar.zst";

/// Bytes that must be free for it: a step that filled the disk is not to fill it again.
pub(super) const ROOM: u64 = 512 << 20;

/// Level of zstd: fast, since somebody waits to see why it failed.
const LEVEL: u8 = 3;

/// Where the files of a failure are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedState {
    version: u32,
    /// What failed: the component and its phase, or the parent's configuration.
    pub(crate) what: String,
    /// The step that failed, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<FailedStep>,
    /// The layers that it ran on, lowest first, with their titles.
    pub(crate) below: Vec<(LayerId, String)>,
    /// The environment of its steps, without secrets.
    pub(crate) env: BTreeMap<String, String>,
}

/// The files of a failed run, where they are now.
pub(super) enum Left<'a> {
    /// In the upper of an overlay.
    Overlay {
        sandbox: &'a Sandbox,
        root: &'a RootSpec,
    },
    /// In memory.
    Tree {
        sandbox: &'a mut Option<Sandbox>,
        changes: &'a LayerDiff,
    },
}

impl Left<'_> {
    /// Whether anything ran: before, there is no folder for its changes.
    fn has_run(&self) -> bool {
        let Self::Overlay { root, .. } = self else {
            return true;
        };
        let upper = std::fs::symlink_metadata(&root.upper);
        upper
            .err()
            .is_none_or(|e| e.kind() != std::io::ErrorKind::NotFound)
    }
}

/// A terminal, or pipes, that shells of a build get.
#[derive(Debug)]
pub struct ShellAccess {
    /// Where they read and write.
    pub console: Console,
    /// `TERM` of the caller.
    pub term: Option<String>,
}

impl Engine {
    /// Keeps what a failed phase left, and opens a shell there if one is wanted. What cannot be kept is a warning: the
    /// failure itself is the news.
    pub(super) fn failed(
        &self,
        work: &Work<'_>,
        at: FailedAt<'_>,
        below: &Made,
        left: Left<'_>,
        error: EngineError,
    ) -> EngineError {
        let failed =
            matches!(&error, EngineError::Context { kind, .. } if *kind == ErrorKind::Failed);
        if !failed || self.interruption.is_requested() {
            return error;
        }
        let kept = self.keep_failed(work, at, below, &left, error.step());
        if let Err(problem) = &kept
            && left.has_run()
        {
            self.warn(format!(
                "the files of the failed run are not kept: {}",
                chain(problem)
            ));
        }
        if let Some(access) = work.shell {
            // Told before the shell, and not again when the build ends.
            let why = error.with_causes();
            let opened = match (left, kept) {
                (Left::Overlay { sandbox, root }, _) => {
                    let state = at.state(work, below, error.step());
                    let shell = state.shell(Vec::new());
                    let place = (state.place(), Some(why));
                    self.shell_on(sandbox, root, &shell, access, place)
                }
                (Left::Tree { sandbox, .. }, Ok(state)) => {
                    let of = (work.store, work.plan.recipe.name.as_str());
                    self.sandbox(work.store, sandbox).and_then(|sandbox| {
                        self.enter(of, sandbox, (&state, Some(why)), Vec::new(), access)
                    })
                }
                (Left::Tree { .. }, Err(problem)) => Err(problem),
            };
            match opened {
                Ok(_) => return error.told(),
                Err(problem) => self.warn(format!("no shell: {}", chain(&problem))),
            }
        }
        error
    }

    fn keep_failed(
        &self,
        work: &Work<'_>,
        at: FailedAt<'_>,
        below: &Made,
        left: &Left<'_>,
        step: Option<&FailedStep>,
    ) -> Result<FailedState, EngineError> {
        let context = || "cannot keep the files of the failed run".to_owned();
        let key = record_key(&work.plan.recipe.name);
        let free = amiforge_store::free_bytes(work.store.path()).ok();
        if let (Left::Overlay { .. }, Some(free)) = (left, free.filter(|free| *free < ROOM)) {
            let message = format!("only {} are free on the disk of the store", ByteSize(free));
            return Err(EngineError::new(ErrorKind::Failed, message));
        }
        let writer = match left {
            Left::Overlay { sandbox, root } => {
                let running = self.interruption.job();
                let of = (root.upper.as_path(), key.as_str());
                left_files::as_it_is(work.store, sandbox, of, below.clock, running.cancel())?
            }
            Left::Tree { changes, .. } => {
                let writer = work
                    .store
                    .failed_writer(&key)
                    .or_fail(ErrorKind::Failed, store_context)?;
                writer
                    .write(changes, &below.blobs)
                    .or_fail(ErrorKind::Failed, context)?;
                writer
            }
        };
        let mut blobs = BlobTable::new();
        let diff = writer
            .read(&mut blobs)
            .or_fail(ErrorKind::Failed, context)?;
        let state = at.state(work, below, step);
        left_files::replace(work.store, (FAILED, &key), &state, [writer])?;
        if let Some(folder) = work.logs.parent() {
            let path = folder.join(CHANGES_FILE);
            if let Err(error) = write_archive(&path, &diff, &blobs, work.jobs) {
                self.warn(format!("{CHANGES_FILE} is not written: {}", chain(&error)));
                // What was written of it says less than nothing.
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(state)
    }

    /// The state that the last failure of a recipe left.
    pub(crate) fn last_failed(
        &self,
        store: &Store,
        recipe: &str,
    ) -> Result<Option<FailedState>, EngineError> {
        let record = store
            .get_record(FAILED, &record_key(recipe))
            .or_fail(ErrorKind::Failed, store_context)?;
        let state: Option<FailedState> =
            record.and_then(|record| serde_json::from_value(record).ok());
        Ok(state.filter(|state| state.version == FAILED_VERSION))
    }

    /// Forgets the last failure of a recipe, which was built since.
    pub(crate) fn forget_failed(&self, store: &Store, recipe: &str) -> Result<(), EngineError> {
        let key = record_key(recipe);
        left_files::forget(store, (FAILED, &key), &[&key])
    }

    /// A shell on kept files, as the last failure of the recipe left them; what it changes is thrown away. `failure` is told with it.
    pub(crate) fn enter(
        &self,
        (store, recipe): (&Store, &str),
        sandbox: &Sandbox,
        (state, failure): (&FailedState, Option<String>),
        argv: Vec<String>,
        access: &ShellAccess,
    ) -> Result<Option<i32>, EngineError> {
        let (mut lowers, uses) = self.lowers_of(store, sandbox, &state.below)?;
        let mut scratch = Scratch::new(store, sandbox, "shell")?;
        scratch.uses = uses;
        let changes = scratch.dir.join("changes");
        let kept = store
            .failed_path(&record_key(recipe))
            .or_fail(ErrorKind::Failed, store_context)?;
        let lock = store
            .lock_failed(&record_key(recipe))
            .or_fail(ErrorKind::Failed, store_context)?;
        if self.last_failed(store, recipe)?.as_ref() != Some(state) {
            return Err(EngineError::new(
                ErrorKind::Failed,
                "another build of the recipe has failed meanwhile",
            )
            .with_hint("run it again to see that one"));
        }
        let running = self.interruption.job();
        sandbox
            .materialise(&kept, &scratch.dir.join("new"), &changes, running.cancel())
            .map_err(sandbox_error)?;
        drop((running, lock));
        lowers.insert(0, changes);
        let root = super::root_spec(
            sandbox,
            lowers,
            &scratch.dir,
            super::component_shims(),
            amiforge_exec::Limits::default(),
        );
        let place = (state.place(), failure);
        self.shell_on(sandbox, &root, &state.shell(argv), access, place)
    }

    /// Runs a shell, or a command, in a root: `place` is where, for people, and why the build failed if it is for that. Its exit
    /// code; `None` when a signal ended it.
    pub(crate) fn shell_on(
        &self,
        sandbox: &Sandbox,
        root: &RootSpec,
        shell: &ShellSpec,
        access: &ShellAccess,
        (place, failure): (String, Option<String>),
    ) -> Result<Option<i32>, EngineError> {
        let mut shell = shell.clone();
        if access.console.terminal {
            shell
                .env
                .extend(access.term.iter().map(|t| ("TERM".to_owned(), t.clone())));
        }
        let running = self.interruption.job();
        self.emit(Event::ShellStarted { place, failure });
        let ended = sandbox.run_shell(root, &shell, &access.console, running.cancel());
        self.emit(Event::ShellFinished {});
        Ok(ended.map_err(sandbox_error)?.exit_code)
    }
}

impl FailedState {
    /// Where it failed, for people: the component and its phase, and the step with its place.
    pub(crate) fn place(&self) -> String {
        let Some(step) = &self.step else {
            return self.what.clone();
        };
        let mut text = format!("{}, step {}", self.what, step.step);
        if let Some(place) = &step.place {
            text.push_str(&format!(" ({place})"));
        }
        text
    }

    fn shell(&self, argv: Vec<String>) -> ShellSpec {
        ShellSpec {
            argv,
            env: self.env.clone(),
            dir: "/".to_owned(),
            terminal: None,
        }
    }
}

/// The changes as an archive.
fn write_archive(
    path: &Path,
    diff: &LayerDiff,
    blobs: &BlobTable,
    jobs: usize,
) -> Result<(), BlobError> {
    // As layers in the store: it may hold hashes of passwords, and secrets of steps.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    compressed::<BlobError>(&mut file, Compression::Zstd(LEVEL), jobs, |sink| {
        write_changes(diff, blobs, sink)?;
        Ok(())
    })?;
    Ok(())
}

/// What failed.
#[derive(Clone, Copy)]
pub(crate) enum FailedAt<'a> {
    /// Configuring the parent.
    Layer(&'a LayerPlan),
    /// A phase of a component on this layer.
    Phase(&'a LayerPlan, Phase<'a>),
}

impl FailedAt<'_> {
    pub(super) fn layer(&self) -> &LayerPlan {
        match self {
            Self::Layer(layer) | Self::Phase(layer, _) => layer,
        }
    }

    fn what(&self, work: &Work<'_>) -> String {
        match self {
            Self::Layer(layer) => layer.title.clone(),
            Self::Phase(_, of) => {
                format!(
                    "{}, {} phase",
                    work.recipe.components[of.index].name, of.phase
                )
            }
        }
    }

    fn state(&self, work: &Work<'_>, below: &Made, step: Option<&FailedStep>) -> FailedState {
        let layers = &work.plan.layers[..below.layers.len()];
        let dir = work.recipe.recipe.working_directory.as_deref();
        FailedState {
            version: FAILED_VERSION,
            what: self.what(work),
            step: step.cloned(),
            below: layers.iter().map(|l| (l.id, l.title.clone())).collect(),
            env: match self {
                Self::Layer(_) => BTreeMap::new(),
                Self::Phase(_, of) => shell_environment(of.run, dir),
            },
        }
    }
}

/// The variables of the steps of a run, beside those of every command. None of them is a secret.
pub(crate) fn shell_environment(run: &RunSpec, dir: Option<&str>) -> BTreeMap<String, String> {
    let mut env = run.env.clone();
    env.insert("SOURCE_DATE_EPOCH".to_owned(), run.clock.secs.to_string());
    env.extend(dir.map(|dir| ("WORKING_DIRECTORY".to_owned(), dir.to_owned())));
    env
}
