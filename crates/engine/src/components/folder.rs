//! A run of components on a folder that holds a root file system: in the sandbox, on a copy, whose changes are
//! brought to the folder when the run is over.
//!
//! The folder itself is never mounted or written to by a step, so nothing that a step does there leads anywhere
//! else. See `docs/sandbox.md`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_exec::{ChildEvent, Limits, Outside, RunResult, RunSpec, Sandbox};
use amiforge_store::{
    FileBlob, FolderError, FolderLock, FolderReport, LayerWriter, Owners, Store, apply_changes,
    read_folder,
};
use amiforge_tree::{Ino, LayerDiff, Stat, Tree};
use amiforge_types::{BlobId, BlobTable, Digest, LayerId, Timestamp};

use super::{ComponentRequest, mounts};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{component_shims, root_spec, sandbox_error};
use crate::settings::Engine;

/// Kind of the records that say under which name a run makes files in a folder, by the folder.
const RUNS: &str = "folder-runs";

/// A folder that a run works on.
pub(super) struct Folder<'e> {
    engine: &'e Engine,
    path: PathBuf,
    lock: FolderLock,
    scratch: Scratch,
    owners: Owners,
    /// What the folder holds, with the ids of the host.
    read: Tree,
    /// The same with those of the sandbox, as the run finds it.
    lower: Tree,
    blobs: BlobTable,
    /// Where the data of both is, until this is dropped.
    _layer: LayerWriter,
    /// Of the layers, which never get a place in the store.
    id: LayerId,
    /// Directories that the sandbox lays files of its own over.
    covered: Vec<Vec<u8>>,
}

/// The directories of the run, which belong to ids of the sandbox.
struct Scratch {
    sandbox: Sandbox,
    dir: PathBuf,
    store: Store,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let names = ["new", "lower", "fs", "work"];
        // What cannot be removed is a leftover of the store and goes when it is opened next.
        let _ = self
            .sandbox
            .remove_trees(&names.map(|name| self.dir.join(name)));
        let _ = std::fs::remove_dir(&self.dir);
    }
}

impl<'e> Folder<'e> {
    /// Reads the folder, and makes of it what a run finds.
    pub(super) fn open(
        engine: &'e Engine,
        request: &ComponentRequest,
    ) -> Result<Self, EngineError> {
        let path = fs_err::canonicalize(&request.root)
            .or_fail(ErrorKind::Invalid, || context(&request.root))?;
        check_mounts(&path)?;
        outside_of(&path, &request.log_dir, "--log-dir")?;
        let lock = FolderLock::take(&path)
            .or_fail(ErrorKind::Failed, || context(&path))?
            .ok_or_else(|| {
                let message = format!("another run works on {}", path.display());
                EngineError::new(ErrorKind::Failed, message)
                    .with_hint("one run at a time: wait for the other one")
            })?;
        let store = engine.open_store()?;
        outside_of(&path, store.path(), "the store")?;
        engine.clear_leftovers(&store);
        let sandbox = Sandbox::new(engine.settings.helper.clone()).map_err(sandbox_error)?;
        engine.stage("read", path.display().to_string());
        let spool = tempfile::tempfile_in(store.session_dir())
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let (read, spooled) = read(&store, &lock, &path, spool)?;

        let running = engine.interruption.job();
        let owners = Owners::of_caller();
        let mut inside = read.clone();
        owners
            .inside(&mut inside)
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let id = LayerId(Digest::of(path.as_os_str().as_encoded_bytes()));
        let layer = store
            .layer_writer(id)
            .or_fail(ErrorKind::Failed, || context(&path))?;
        layer
            .write(&LayerDiff::from_tree(&inside), &spooled)
            .or_fail(ErrorKind::Failed, || context(&path))?;
        drop((inside, spooled));
        let mut blobs = BlobTable::new();
        let diff = layer
            .read(&mut blobs)
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let lower = Tree::from_layers(read.stat(Ino::ROOT), [&diff])
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let dir = store
            .temp_dir("folder")
            .or_fail(ErrorKind::Failed, || context(&path))?;
        let scratch = Scratch {
            sandbox,
            dir,
            store,
        };
        scratch
            .sandbox
            .materialise(
                layer.path(),
                &scratch.dir.join("new"),
                &scratch.dir.join("lower"),
                running.cancel(),
            )
            .map_err(sandbox_error)?;
        Ok(Self {
            engine,
            path,
            lock,
            scratch,
            owners,
            read,
            lower,
            blobs,
            _layer: layer,
            id,
            covered: covered(),
        })
    }

    /// Runs the phases. The folder is what it was.
    pub(super) fn run(
        &self,
        run: &RunSpec,
        outside: &Outside,
        on_event: &mut dyn FnMut(ChildEvent),
    ) -> Result<RunResult, EngineError> {
        let running = self.engine.interruption.job();
        let scratch = &self.scratch;
        let root = root_spec(
            vec![scratch.dir.join("lower")],
            &scratch.dir,
            component_shims(),
            Limits::default(),
        );
        scratch
            .sandbox
            .run_component_with(&root, run, outside, running.cancel(), on_event)
            .map_err(sandbox_error)
    }

    /// Brings what the run changed to the folder, also when a step failed.
    pub(super) fn bring(&mut self, result: &RunResult) -> Result<(), EngineError> {
        let shown = self.path.display().to_string();
        let failed = || format!("cannot bring the changes to {shown}");
        let (old, new) = self.trees()?;
        check_mounts(&self.path)?;
        let spare = self.spare()?;
        // Ctrl-C waits for the end of this, or comes before it.
        let interruption = self.engine.interruption.clone();
        let report = interruption.finish(&self.path, || {
            apply_changes(self.lock.dir(), &old, &new, &self.blobs, &spare)
        });
        let report = report.map_err(|error: FolderError| {
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
        Ok(())
    }

    /// The folder before and after the run.
    fn trees(&mut self) -> Result<(Tree, Tree), EngineError> {
        let scratch = &self.scratch;
        let failed = || {
            format!(
                "cannot read what the run changed in {}",
                self.path.display()
            )
        };
        let running = self.engine.interruption.job();
        let writer = scratch
            .store
            .layer_writer(self.id)
            .or_fail(ErrorKind::Failed, failed)?;
        scratch
            .sandbox
            .harvest(
                &scratch.dir.join("fs"),
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
        let mut changed = self.lower.clone();
        changed.apply(&diff).or_fail(ErrorKind::Failed, failed)?;
        self.owners
            .outside(&self.read, &self.lower, &changed, &self.covered)
            .or_fail(ErrorKind::Failed, failed)
    }

    /// A name for files in the making. Nobody can have foreseen it, and the store knows it, so that the next run
    /// finds what a killed one left.
    fn spare(&self) -> Result<String, EngineError> {
        use std::os::unix::ffi::OsStrExt as _;
        let now = Engine::wall_clock();
        let seed = [
            self.scratch.dir.as_os_str().as_bytes(),
            format!("{}.{} {}", now.secs, now.nanos, std::process::id()).as_bytes(),
            self.id.to_string().as_bytes(),
        ]
        .concat();
        let name = format!(".amiforge-{}", &Digest::of(&seed).hex()[..24]);
        let record = serde_json::json!({ "version": 1, "spare": name });
        self.put_record(&record)?;
        Ok(name)
    }

    fn forget_spare(&self) -> Result<(), EngineError> {
        self.put_record(&serde_json::json!({ "version": 1 }))
    }

    fn put_record(&self, record: &serde_json::Value) -> Result<(), EngineError> {
        let key = key_of(self.lock.dir()).or_fail(ErrorKind::Failed, || context(&self.path))?;
        self.scratch
            .store
            .put_record(RUNS, &key, record)
            .or_fail(ErrorKind::Failed, || context(&self.path))
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

/// What the folder holds, without what a killed run left in it.
fn read(
    store: &Store,
    lock: &FolderLock,
    path: &Path,
    spool: File,
) -> Result<(Tree, BlobTable), EngineError> {
    let failed = || context(path);
    let key = key_of(lock.dir()).or_fail(ErrorKind::Failed, failed)?;
    let record = store
        .get_record(RUNS, &key)
        .or_fail(ErrorKind::Failed, failed)?;
    let spare = record
        .as_ref()
        .and_then(|record| record["spare"].as_str())
        .map(str::to_owned);
    let root = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let tree = Tree::new(root);
    let mut tree = read_folder(lock.dir(), tree, &spool).or_fail(ErrorKind::Failed, failed)?;
    if let Some(spare) = spare {
        let left: Vec<Vec<u8>> = tree
            .walk()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.split(|b| *b == b'/').next_back() == Some(spare.as_bytes()))
            .collect();
        for leftover in left {
            amiforge_store::remove_below(lock.dir(), &leftover)
                .or_fail(ErrorKind::Failed, failed)?;
            tree.remove(&leftover);
        }
    }
    let mut blobs = BlobTable::new();
    let blob = FileBlob::from_file(spool).or_fail(ErrorKind::Failed, failed)?;
    let id: BlobId = blobs.add(Arc::new(blob));
    tree.assign_blob(id);
    Ok((tree, blobs))
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

/// The directories above the files that the sandbox lends.
fn covered() -> Vec<Vec<u8>> {
    let lent = component_shims().into_iter().map(|shim| shim.path);
    let mut dirs: Vec<Vec<u8>> = lent
        .chain(["/etc/resolv.conf".to_owned()])
        .flat_map(|path| {
            let path = path.trim_start_matches('/').as_bytes().to_vec();
            let ends: Vec<usize> = (0..path.len()).filter(|at| path[*at] == b'/').collect();
            ends.into_iter().map(move |end| path[..end].to_vec())
        })
        .collect();
    dirs.push(Vec::new());
    dirs
}
