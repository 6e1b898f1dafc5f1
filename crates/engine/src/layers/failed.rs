//! What a failed phase leaves: the files as they are, kept in the store and beside the logs, and a shell among them.

use std::collections::BTreeMap;

use amiforge_exec::{Console, RootSpec, RunSpec, Sandbox, ShellSpec};
use amiforge_plan::LayerPlan;
use amiforge_store::Store;
use amiforge_tree::LayerDiff;
use amiforge_tree::tar::write_changes;
use amiforge_types::{BlobTable, Compression, LayerId};
use serde::{Deserialize, Serialize};

use super::overlay::Scratch;
use super::phase::Phase;
use super::sandbox::sandbox_error;
use super::{Made, Work, store_context};
use crate::compress::{BlobError, compressed};
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::event::Event;
use crate::plans::record_key;
use crate::settings::Engine;

/// Kind of the records that say where the files of a recipe's last failure are; by its name.
pub(crate) const FAILED: &str = "failed";
const FAILED_VERSION: u32 = 1;

/// In the folder of a failed build: what the failed run had changed, as OCI archives of changes are written.
pub(crate) const CHANGES_FILE: &str = "changes.tar.zst";

/// Level of zstd: fast, since somebody waits to see why it failed.
const LEVEL: u8 = 3;

/// Where the files of a failure are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedState {
    version: u32,
    /// What failed: the component and its phase, or the parent's configuration.
    pub(crate) what: String,
    /// The layers that it ran on, lowest first, with their titles.
    pub(crate) below: Vec<(LayerId, String)>,
    /// The environment of its steps, without secrets.
    pub(crate) env: BTreeMap<String, String>,
    /// The folder its steps start in.
    pub(crate) dir: String,
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
        let state = match self.keep_failed(work, at, below, &left) {
            Ok(state) => state,
            Err(problem) => {
                self.warn(format!(
                    "the files of the failed run are not kept: {}",
                    chain(&problem)
                ));
                return error;
            }
        };
        if let Some(access) = work.shell {
            // Told before the shell, not only when the build ends.
            self.warn(chain(&error));
            let opened = match left {
                Left::Overlay { sandbox, root } => {
                    self.shell_on(sandbox, root, &state.shell(Vec::new()), access, &state.what)
                }
                Left::Tree { sandbox, .. } => self.sandbox(sandbox).and_then(|sandbox| {
                    let of = (work.store, work.plan.recipe.name.as_str());
                    self.enter(of, sandbox, &state, Vec::new(), access)
                }),
            };
            if let Err(problem) = opened {
                self.warn(format!("no shell: {}", chain(&problem)));
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
    ) -> Result<FailedState, EngineError> {
        let context = || "cannot keep the files of the failed run".to_owned();
        let key = record_key(&work.plan.recipe.name);
        let writer = work
            .store
            .failed_writer(&key)
            .or_fail(ErrorKind::Failed, store_context)?;
        match left {
            Left::Overlay { sandbox, root } => {
                let running = self.interruption.job();
                sandbox
                    .harvest(
                        &root.upper,
                        writer.path(),
                        below.clock,
                        None,
                        &[],
                        running.cancel(),
                    )
                    .map_err(sandbox_error)?;
            }
            Left::Tree { changes, .. } => {
                writer
                    .write(changes, &below.blobs)
                    .or_fail(ErrorKind::Failed, context)?;
            }
        }
        let mut blobs = BlobTable::new();
        let diff = writer
            .read(&mut blobs)
            .or_fail(ErrorKind::Failed, context)?;
        // Without the record the file is nothing, and a record never tells of another run's file.
        work.store
            .remove_record(FAILED, &key)
            .or_fail(ErrorKind::Failed, store_context)?;
        writer.commit().or_fail(ErrorKind::Failed, context)?;
        let layers = &work.plan.layers[..below.layers.len()];
        let (env, dir) = at.surroundings(work);
        let state = FailedState {
            version: FAILED_VERSION,
            what: at.what(work),
            below: layers.iter().map(|l| (l.id, l.title.clone())).collect(),
            env,
            dir,
        };
        let record = serde_json::to_value(&state).or_fail(ErrorKind::Internal, context)?;
        work.store
            .put_record(FAILED, &key, &record)
            .or_fail(ErrorKind::Failed, store_context)?;
        if let Some(folder) = work.logs.parent() {
            let mut file = fs_err::File::create(folder.join(CHANGES_FILE))
                .or_fail(ErrorKind::Failed, context)?
                .into_file();
            compressed::<BlobError>(&mut file, Compression::Zstd(LEVEL), work.jobs, |sink| {
                write_changes(&diff, &blobs, sink)?;
                Ok(())
            })
            .or_fail(ErrorKind::Failed, context)?;
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

    /// A shell on kept files; what it changes is thrown away.
    pub(crate) fn enter(
        &self,
        (store, recipe): (&Store, &str),
        sandbox: &Sandbox,
        state: &FailedState,
        argv: Vec<String>,
        access: &ShellAccess,
    ) -> Result<Option<i32>, EngineError> {
        let mut lowers = self.lowers_of(store, sandbox, &state.below)?;
        let scratch = Scratch::new(store, sandbox, "shell")?;
        let changes = scratch.dir.join("changes");
        let kept = store
            .failed_path(&record_key(recipe))
            .or_fail(ErrorKind::Failed, store_context)?;
        let running = self.interruption.job();
        sandbox
            .materialise(&kept, &scratch.dir.join("new"), &changes, running.cancel())
            .map_err(sandbox_error)?;
        drop(running);
        lowers.insert(0, changes);
        let root = super::root_spec(
            lowers,
            &scratch.dir,
            super::component_shims(),
            amiforge_exec::Limits::default(),
        );
        self.shell_on(sandbox, &root, &state.shell(argv), access, &state.what)
    }

    /// Runs a shell, or a command, in a root. Its exit code; `None` when a signal ended it.
    pub(crate) fn shell_on(
        &self,
        sandbox: &Sandbox,
        root: &RootSpec,
        shell: &ShellSpec,
        access: &ShellAccess,
        place: &str,
    ) -> Result<Option<i32>, EngineError> {
        let mut shell = shell.clone();
        if access.console.terminal {
            shell
                .env
                .extend(access.term.iter().map(|t| ("TERM".to_owned(), t.clone())));
        }
        let running = self.interruption.job();
        self.emit(Event::ShellStarted {
            place: place.to_owned(),
        });
        let ended = sandbox.run_shell(root, &shell, &access.console, running.cancel());
        self.emit(Event::ShellFinished {});
        Ok(ended.map_err(sandbox_error)?.exit_code)
    }
}

impl FailedState {
    fn shell(&self, argv: Vec<String>) -> ShellSpec {
        ShellSpec {
            argv,
            env: self.env.clone(),
            dir: "/".to_owned(),
            terminal: None,
        }
    }
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

    fn surroundings(&self, work: &Work<'_>) -> (BTreeMap<String, String>, String) {
        let Self::Phase(_, of) = self else {
            return (BTreeMap::new(), "/".to_owned());
        };
        let dir = work.recipe.recipe.working_directory.clone();
        (
            shell_environment(of.run, dir.as_deref()),
            dir.unwrap_or_else(|| "/".to_owned()),
        )
    }
}

/// The variables of the steps of a run, beside those of every command. None of them is a secret.
pub(crate) fn shell_environment(run: &RunSpec, dir: Option<&str>) -> BTreeMap<String, String> {
    let mut env = run.env.clone();
    env.insert("SOURCE_DATE_EPOCH".to_owned(), run.clock.secs.to_string());
    env.extend(dir.map(|dir| ("WORKING_DIRECTORY".to_owned(), dir.to_owned())));
    env
}
