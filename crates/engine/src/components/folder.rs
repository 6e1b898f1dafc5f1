//! A run of components on a folder that holds a root file system: on a copy, in the sandbox or, when the steps need
//! nothing but files, in memory. Its changes are brought to the folder when the run is over.
//!
//! The folder itself is never mounted or written to by a step, so nothing that a step does there leads anywhere
//! else. See `docs/sandbox.md`.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_exec::{ChildEvent, Limits, Outside, RootSpec, RunResult, RunSpec, TreeRoot};
use amiforge_store::{
    FileBlob, FolderError, FolderLock, FolderReport, HostTrees, LayerWriter, Owners, Store,
    apply_changes, read_folder,
};
use amiforge_tree::{Ino, LayerDiff, Stat, Tree};
use amiforge_types::{BlobId, BlobTable, Digest, LayerId, Timestamp};

use super::{ComponentRequest, mounts};
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::layers::{Scratch, component_shims, on_tree, root_spec, sandbox_error};
use crate::lent::{self, Lent};
use crate::settings::Engine;

/// Kind of the records that say under which name a run makes files in a folder, by the folder.
const RUNS: &str = "folder-runs";

/// A folder that a run works on.
pub(super) struct Folder<'e> {
    engine: &'e Engine,
    path: PathBuf,
    lock: FolderLock,
    store: Store,
    owners: Owners,
    /// What the folder holds, with the ids of the host.
    read: Tree,
    /// The same with those of the sandbox, as the run finds it.
    lower: Tree,
    blobs: BlobTable,
    /// Names that killed runs made files under, and that could not be removed.
    left: Vec<String>,
    /// Of the layers, which never get a place in the store.
    id: LayerId,
    way: Way,
}

/// What a run works on.
enum Way {
    /// The files as they were read; then, what it changed in them.
    Tree(LayerDiff),
    /// A copy of them in the sandbox.
    Sandbox(Box<Copied>),
}

/// A copy for the sandbox.
struct Copied {
    scratch: Scratch,
    /// Where the data of the files is, until this is dropped.
    _layer: LayerWriter,
    root: RootSpec,
    /// What the run is lent.
    lent: Vec<Lent>,
}

impl<'e> Folder<'e> {
    /// Reads the folder, and makes of it what a run finds. `on_files`: whether its steps need nothing but files.
    pub(super) fn open(
        engine: &'e Engine,
        request: &ComponentRequest,
        on_files: bool,
    ) -> Result<Self, EngineError> {
        let path = fs_err::canonicalize(&request.root)
            .or_fail(ErrorKind::Invalid, || context(&request.root))?;
        check_mounts(&path)?;
        outside_of(&path, &request.log_dir, "--log-dir")?;
        // Before it is made.
        outside_of(&path, &engine.settings.home.store, "the store")?;
        let lock = FolderLock::take(&path)
            .or_fail(ErrorKind::Failed, || context(&path))?
            .ok_or_else(|| {
                let message = format!("another run works on {}", path.display());
                EngineError::new(ErrorKind::Failed, message)
                    .with_hint("one run at a time: wait for the other one")
            })?;
        let store = engine.open_store()?;
        engine.clear_leftovers(&store);
        engine.stage("read", path.display().to_string());
        let spool = tempfile::tempfile_in(store.session_dir())
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let (read, blobs, left) = read(engine, &store, &lock, &path, spool)?;
        let owners = Owners::of_caller();
        let mut lower = read.clone();
        owners
            .inside(&mut lower)
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let id = LayerId(Digest::of(path.as_os_str().as_encoded_bytes()));
        let mut folder = Self {
            engine,
            path,
            lock,
            store,
            owners,
            read,
            lower,
            blobs,
            left,
            id,
            way: Way::Tree(LayerDiff::default()),
        };
        if !on_files {
            folder.copy()?;
        }
        Ok(folder)
    }

    /// Makes a copy for the sandbox.
    fn copy(&mut self) -> Result<(), EngineError> {
        let failed = || context(&self.path);
        let engine = self.engine;
        let sandbox = engine.chosen_sandbox(&self.store)?;
        let running = engine.interruption.job();
        let layer = self
            .store
            .layer_writer(self.id)
            .or_fail(ErrorKind::Failed, failed)?;
        layer
            .write(&LayerDiff::from_tree(&self.lower), &self.blobs)
            .or_fail(ErrorKind::Failed, failed)?;
        let mut blobs = BlobTable::new();
        let diff = layer.read(&mut blobs).or_fail(ErrorKind::Failed, failed)?;
        let lower = Tree::from_layers(self.read.stat(Ino::ROOT), [&diff])
            .or_fail(ErrorKind::Failed, failed)?;
        let scratch = Scratch::new(&self.store, &sandbox, "folder")?;
        sandbox
            .materialise(
                layer.path(),
                &scratch.dir.join("new"),
                &scratch.dir.join("lower"),
                running.cancel(),
            )
            .map_err(sandbox_error)?;
        let root = root_spec(
            &sandbox,
            vec![scratch.dir.join("lower")],
            &scratch.dir,
            component_shims(),
            Limits::default(),
        );
        let lent = lent::lent(&root, &lower);
        (self.lower, self.blobs) = (lower, blobs);
        self.way = Way::Sandbox(Box::new(Copied {
            scratch,
            _layer: layer,
            root,
            lent,
        }));
        Ok(())
    }

    /// Runs the phases. The folder is what it was.
    pub(super) fn run(
        &mut self,
        run: &RunSpec,
        outside: &Outside,
        on_event: &mut dyn FnMut(ChildEvent),
    ) -> Result<RunResult, EngineError> {
        let running = self.engine.interruption.job();
        if let Way::Tree(changes) = &mut self.way {
            let clock = Engine::wall_clock();
            let root = TreeRoot::new(&self.lower, &self.blobs, clock, running.cancel());
            let root = root.without_files_of(Owners::NOBODY);
            if let Some(done) = on_tree(run, root, &[])? {
                *changes = done.changes;
                done.events.into_iter().for_each(on_event);
                return Ok(done.result);
            }
            self.copy()?;
        }
        let Way::Sandbox(copied) = &self.way else {
            let message = "the folder has no copy for the sandbox".to_owned();
            return Err(EngineError::new(ErrorKind::Internal, message));
        };
        let sandbox = &copied.scratch.sandbox;
        sandbox
            .run_component_with(&copied.root, run, outside, running.cancel(), on_event)
            .map_err(sandbox_error)
    }

    /// Brings what the run changed to the folder, also when a step failed.
    pub(super) fn bring(&mut self, result: &RunResult) -> Result<(), EngineError> {
        let shown = self.path.display().to_string();
        let failed = || format!("cannot bring the changes to {shown}");
        let HostTrees { old, new, disowned } = self.trees()?;
        check_mounts(&self.path)?;
        let spare = self.spare()?;
        // Ctrl-C waits for the end of this, or comes before it.
        let interruption = self.engine.interruption.clone();
        let report = interruption.finish(&self.path, || {
            apply_changes(self.lock.dir(), &old, &new, &self.blobs, &spare)
        });
        let report = report.map_err(|error: FolderError| {
            if error.nothing_written() && !matches!(error, FolderError::Remove(_)) {
                // A record too many is no reason to hide what went wrong.
                let _ = self.forget_spare();
            }
            let hint = match error.nothing_written() {
                true => "nothing was written: the folder is as it was before the run",
                false => "a part of the changes is in the folder",
            };
            EngineError::wrap(ErrorKind::Failed, failed(), error, Some(hint))
        })?;
        self.forget_spare()?;
        self.engine
            .stage("write", format!("{} changes in {shown}", report.changed));
        if !result.status.is_ok() && report.changed > 0 {
            self.engine.warn(format!(
                "a step failed; what was changed until then is in {shown}, as on a machine"
            ));
        }
        self.tell(&report, &shown);
        if disowned > 0 {
            self.engine.warn(format!(
                "{disowned} files of {shown} were moved or written anew whose owner the sandbox does not have (65536 and above): they are nobody's (65534) now"
            ));
        }
        Ok(())
    }

    /// The folder before and after the run.
    fn trees(&mut self) -> Result<HostTrees, EngineError> {
        let failed = || {
            format!(
                "cannot read what the run changed in {}",
                self.path.display()
            )
        };
        let (diff, covered) = match &self.way {
            Way::Tree(changes) => (changes.clone(), Vec::new()),
            Way::Sandbox(copied) => {
                let running = self.engine.interruption.job();
                let writer = self
                    .store
                    .layer_writer(self.id)
                    .or_fail(ErrorKind::Failed, failed)?;
                copied
                    .scratch
                    .sandbox
                    .harvest(
                        &copied.root.upper,
                        writer.path(),
                        Timestamp::default(),
                        None,
                        &[],
                        running.cancel(),
                    )
                    .map_err(sandbox_error)?;
                // The file stays open, so its data can be read when its name is gone.
                let diff = writer
                    .read(&mut self.blobs)
                    .or_fail(ErrorKind::Failed, failed)?;
                let own = lent::without(&copied.lent, &self.lower, &diff, &self.blobs)
                    .or_fail(ErrorKind::Failed, failed)?;
                (own.unwrap_or(diff), lent::covered(&copied.lent))
            }
        };
        let mut changed = self.lower.clone();
        changed.apply(&diff).or_fail(ErrorKind::Failed, failed)?;
        changed.visit(&mut |path, _| short_enough(path))?;
        self.owners
            .outside(&self.read, &self.lower, &changed, &covered)
            .or_fail(ErrorKind::Failed, failed)
    }

    /// A name for files in the making. Nobody can have foreseen it, and the store knows it, so that the next run
    /// finds what a killed one left.
    fn spare(&self) -> Result<String, EngineError> {
        let now = Engine::wall_clock();
        let seed = [
            self.store.session_dir().as_os_str().as_bytes(),
            format!("{}.{} {}", now.secs, now.nanos, std::process::id()).as_bytes(),
            self.id.to_string().as_bytes(),
        ]
        .concat();
        let name = format!(".amiforge-{}", &Digest::of(&seed).hex()[..24]);
        let key = self.key()?;
        let record = serde_json::json!({ "version": 1, "spare": name, "left": self.left });
        self.store
            .put_record(RUNS, &key, &record)
            .or_fail(ErrorKind::Failed, || context(&self.path))?;
        Ok(name)
    }

    fn forget_spare(&self) -> Result<(), EngineError> {
        let (store, key) = (&self.store, self.key()?);
        let done = match self.left.is_empty() {
            true => store.remove_record(RUNS, &key),
            false => {
                let record = serde_json::json!({ "version": 1, "left": self.left });
                store.put_record(RUNS, &key, &record)
            }
        };
        done.or_fail(ErrorKind::Failed, || context(&self.path))
    }

    fn key(&self) -> Result<String, EngineError> {
        key_of(self.lock.dir()).or_fail(ErrorKind::Failed, || context(&self.path))
    }

    fn tell(&self, report: &FolderReport, shown: &str) {
        if report.split > 0 {
            self.engine.warn(format!(
                "{} files of {shown} with several names were written under one: the other names keep the old file",
                report.split
            ));
        }
        if !report.refused.is_empty() {
            let listed: Vec<String> = report
                .refused
                .iter()
                .map(|(what, count)| format!("{what} of {count}"))
                .collect();
            self.engine.warn(format!(
                "this user may not set all that the run set in {shown}: {}; as root they are set",
                listed.join(", ")
            ));
        }
    }
}

fn context(path: &Path) -> String {
    format!("cannot work on {}", path.display())
}

/// Refuses what no whole path could name afterwards: nobody else's programs could, either.
fn short_enough(path: &[u8]) -> Result<(), EngineError> {
    /// `PATH_MAX`, with room for the folder's own path.
    const MOST: usize = 4096;
    if path.len() < MOST {
        return Ok(());
    }
    let start = String::from_utf8_lossy(&path[..40]).into_owned();
    let message = format!("the run made a path of more than {MOST} bytes: {start:?}…");
    Err(EngineError::new(ErrorKind::Failed, message)
        .with_hint("nothing was written: the folder is as it was before the run"))
}

/// What the folder holds, without what killed runs left in it, and the names of what of that is still there.
fn read(
    engine: &Engine,
    store: &Store,
    lock: &FolderLock,
    path: &Path,
    spool: File,
) -> Result<(Tree, BlobTable, Vec<String>), EngineError> {
    let failed = || context(path);
    let key = key_of(lock.dir()).or_fail(ErrorKind::Failed, failed)?;
    let record = store
        .get_record(RUNS, &key)
        .or_fail(ErrorKind::Failed, failed)?;
    let spares = record.as_ref().map(spares).unwrap_or_default();
    let root = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let tree = Tree::new(root);
    let mut tree = read_folder(lock.dir(), tree, &spool).or_fail(ErrorKind::Failed, failed)?;
    let mut left = Vec::new();
    if !spares.is_empty() {
        let name_of = |path: &[u8]| {
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            spares.iter().find(|spare| spare.as_bytes() == name)
        };
        let found: Vec<(Vec<u8>, &String)> = tree
            .walk()
            .into_iter()
            .filter_map(|(path, _)| name_of(&path).map(|name| (path, name)))
            .collect();
        for (leftover, name) in found {
            if let Err(error) = amiforge_store::remove_below(lock.dir(), &leftover) {
                let shown = path.join(OsStr::from_bytes(&leftover));
                engine.warn(format!(
                    "{} is of a run that did not end, and cannot be removed: {}",
                    shown.display(),
                    chain(&error)
                ));
                left.push(name.clone());
            }
            // Nothing that a step should see.
            tree.remove(&leftover);
        }
        left.dedup();
    }
    let mut blobs = BlobTable::new();
    let blob = FileBlob::from_file(spool).or_fail(ErrorKind::Failed, failed)?;
    let id: BlobId = blobs.add(Arc::new(blob));
    tree.assign_blob(id);
    Ok((tree, blobs, left))
}

/// The names that a record has, if it is of this version.
fn spares(record: &serde_json::Value) -> Vec<String> {
    if record["version"] != 1 {
        return Vec::new();
    }
    let left = record["left"].as_array().into_iter().flatten();
    left.chain([&record["spare"]])
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// The key of a folder's record.
fn key_of(dir: &File) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = dir.metadata()?;
    Ok(format!("{}-{}", meta.dev(), meta.ino()))
}

/// Nothing may be mounted in the folder: it would be read as a part of it, and written to.
fn check_mounts(path: &Path) -> Result<(), EngineError> {
    let info = fs_err::read("/proc/self/mountinfo").or_fail(ErrorKind::Failed, || context(path))?;
    match mounts::below(&info, path) {
        None => Ok(()),
        Some(point) => {
            let message = format!("{} is a mount point in {}", point.display(), path.display());
            Err(EngineError::new(ErrorKind::Invalid, message).with_hint(
                "unmount it first: the sandbox brings /dev, /proc, /sys and /run itself",
            ))
        }
    }
}

/// What a run writes lies outside of what it reads.
fn outside_of(root: &Path, other: &Path, what: &str) -> Result<(), EngineError> {
    let real = other
        .ancestors()
        .map(|above| match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        })
        .find_map(|above| std::fs::canonicalize(above).ok());
    if !real.is_some_and(|real| real.starts_with(root)) {
        return Ok(());
    }
    let message = format!("{what} ({}) is in {}", other.display(), root.display());
    Err(EngineError::new(ErrorKind::Invalid, message)
        .with_hint("choose a folder outside of the root file system"))
}
