//! The output folder: built beside its place, then renamed; whole or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use amiforge_types::{Digest, Hasher};
use fs_err as fs;
use rustix::fs::{FlockOperation, RenameFlags};

use crate::container::LAYOUT_DIR;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::CHANGES_FILE;
use crate::settings::Interruption;

#[cfg(test)]
mod tests;

/// An output folder under construction, `.<name>.tmp-<pid>` beside its final place.
///
/// The open directory is locked, so a later build can tell an unfinished folder of a dead process
/// from one that is being written.
pub(crate) struct OutFolder {
    target: PathBuf,
    building: PathBuf,
    interruption: Interruption,
    _lock: File,
    done: bool,
}

impl OutFolder {
    /// Starts a folder that will become `target`. Unfinished folders of dead processes go.
    pub(crate) fn begin(target: &Path, interruption: &Interruption) -> Result<Self, EngineError> {
        let context = || format!("cannot write the output folder {}", target.display());
        // Without the slash at its end, by which a link would be followed here and not when it is replaced.
        let target: PathBuf = std::path::absolute(target)
            .or_fail(ErrorKind::Failed, context)?
            .components()
            .collect();
        let name = target
            .file_name()
            .ok_or_else(|| {
                EngineError::new(
                    ErrorKind::Invalid,
                    format!("--out {}: not a folder name", target.display()),
                )
            })?
            .to_string_lossy()
            .into_owned();
        if let Ok(meta) = std::fs::symlink_metadata(&target)
            && !meta.is_dir()
        {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!("--out {}: exists and is not a folder", target.display()),
            ));
        }
        if target.is_dir() && !is_ours(&target) {
            return Err(foreign(ErrorKind::Invalid, &target));
        }
        let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
        fs::create_dir_all(&parent).or_fail(ErrorKind::Failed, context)?;
        let prefix = format!(".{name}.tmp-");
        sweep(&parent, &prefix);
        let building = parent.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&building).or_fail(ErrorKind::Failed, context)?;
        interruption.watch(&building);
        let lock = File::open(&building).or_fail(ErrorKind::Failed, context)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .or_fail(ErrorKind::Failed, context)?;
        Ok(Self {
            target,
            building,
            interruption: interruption.clone(),
            _lock: lock,
            done: false,
        })
    }

    /// Path of a file in the folder while it is being built.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.building.join(name)
    }

    /// Path of a file of the same name in the folder that this one will replace.
    pub(crate) fn replaces(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// The folder while it is being built.
    pub(crate) fn dir(&self) -> &Path {
        &self.building
    }

    /// Writes a small file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let path = self.path(name);
        fs::write(&path, bytes).or_fail(ErrorKind::Failed, || {
            format!("cannot write {name} of the output folder")
        })
    }

    /// Writes `SHA256SUMS` over the files of the folder, in path order; `known` spares reading the
    /// large ones again, and leaves out those that have no digest there.
    pub(crate) fn write_sums(&self, known: &[(String, Option<Digest>)]) -> Result<(), EngineError> {
        let context = || "cannot write SHA256SUMS of the output folder".to_owned();
        let mut names = Vec::new();
        list(&self.building, "", &mut names).or_fail(ErrorKind::Failed, context)?;
        names.retain(|name| name != "SHA256SUMS");
        names.sort();
        let mut text = String::new();
        for name in names {
            let digest = match known.iter().find(|(k, _)| *k == name) {
                Some((_, Some(digest))) => *digest,
                Some((_, None)) => continue,
                None => {
                    let mut hasher = Hasher::new();
                    let mut file = fs::File::open(self.building.join(&name))
                        .or_fail(ErrorKind::Failed, context)?;
                    std::io::copy(&mut file, &mut hasher).or_fail(ErrorKind::Failed, context)?;
                    hasher.finish()
                }
            };
            text.push_str(&format!("{digest}  {name}\n"));
        }
        self.write("SHA256SUMS", text.as_bytes())
    }

    /// Puts the folder in its place, atomically also when an older one is there.
    pub(crate) fn commit(mut self) -> Result<PathBuf, EngineError> {
        let context = || format!("cannot put the output folder at {}", self.target.display());
        // A rename can be on disk before the data of the files it names: after a power failure the
        // folder would be there with holes in its disks, and pass for unchanged.
        sync_all(&self.building).or_fail(ErrorKind::Failed, context)?;
        self.interruption
            .finish(&self.building, || self.put_in_place())?;
        sync_parent(&self.target);
        self.done = true;
        // After an exchange the old folder is there.
        let _ = std::fs::remove_dir_all(&self.building);
        Ok(self.target.clone())
    }

    fn put_in_place(&self) -> Result<(), EngineError> {
        let context = || format!("cannot put the output folder at {}", self.target.display());
        if !self.target.exists() {
            return fs::rename(&self.building, &self.target).or_fail(ErrorKind::Failed, context);
        }
        let exchange = || {
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(
                here,
                &self.building,
                here,
                &self.target,
                RenameFlags::EXCHANGE,
            )
            .or_fail(ErrorKind::Failed, context)
        };
        exchange()?;
        // Only now nobody puts anything into the old folder by its name.
        if !is_ours(&self.building) {
            exchange()?;
            return Err(foreign(ErrorKind::Failed, &self.target));
        }
        Ok(())
    }

    /// Keeps logs and plan as `<target>.failed`, without the large artefacts, and returns its path.
    pub(crate) fn fail(mut self) -> Option<PathBuf> {
        let mut failed = failed_of(&self.target);
        for entry in std::fs::read_dir(&self.building).ok()?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("disk") {
                let _ = std::fs::remove_file(entry.path());
            }
            if entry.file_name() == LAYOUT_DIR {
                let _ = std::fs::remove_dir_all(entry.path());
            }
            if entry.file_name() == "logs" {
                // Stays unless it is empty: all layers were there, and something after them failed.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        match std::fs::symlink_metadata(&failed) {
            // Somebody else's: the logs go beside it.
            Ok(meta) if !meta.is_dir() || !is_ours(&failed) => {
                failed
                    .as_mut_os_string()
                    .push(format!("-{}", std::process::id()));
            }
            _ => {}
        }
        self.interruption.finish(&self.building, || {
            let _ = std::fs::remove_dir_all(&failed);
            std::fs::rename(&self.building, &failed).ok()
        })?;
        self.done = true;
        Some(failed)
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_dir_all(&self.building);
            self.interruption.unwatch(&self.building);
        }
    }
}

/// In the folder of a failed build: why it failed, and the way back to where it stopped.
pub(crate) const FAILURE_FILE: &str = "failure.txt";

/// Where the logs of a failed build into `target` are.
fn failed_of(target: &Path) -> PathBuf {
    let mut failed = target.to_owned().into_os_string();
    failed.push(".failed");
    PathBuf::from(failed)
}

/// Removes what an earlier failure left beside a folder that was built since.
pub(crate) fn forget_failed(target: &Path) {
    let failed = failed_of(target);
    let is_dir = std::fs::symlink_metadata(&failed).is_ok_and(|meta| meta.is_dir());
    if is_dir && is_ours(&failed) {
        let _ = std::fs::remove_dir_all(&failed);
    }
}

/// Whether a folder may be replaced: it is empty, or everything in it is what a build leaves there.
///
/// Many projects have a `manifest.json`, and what is replaced is gone, so every name counts.
fn is_ours(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    let mut empty = true;
    for entry in entries {
        let Ok(entry) = entry else {
            return false;
        };
        if !is_our_name(&entry.file_name().to_string_lossy()) {
            return false;
        }
        empty = false;
    }
    let read = |name: &str| crate::files::read_file(&dir.join(name), crate::files::MAX_JSON);
    // A finished folder has a manifest that reads as one; a failed build leaves its plan.
    empty
        || read("manifest.json").is_ok_and(|bytes| crate::build::built_id(&bytes).is_some())
        || read("plan.json").is_ok_and(|bytes| serde_json::from_slice::<PlanMark>(&bytes).is_ok())
}

/// What every version of our plans has, and those of other programs have not.
#[derive(serde::Deserialize)]
struct PlanMark {
    #[serde(rename = "planId")]
    _plan_id: Digest,
}

fn foreign(kind: ErrorKind, target: &Path) -> EngineError {
    EngineError::new(
        kind,
        format!(
            "--out {}: the folder has other files in it",
            target.display()
        ),
    )
    .with_hint("name a folder that does not exist yet, or one that amiforge wrote")
}

/// Names that a build gives the entries of its folder.
fn is_our_name(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "SHA256SUMS",
        "block-device-mappings.json",
        "boot-report.json",
        CHANGES_FILE,
        "components.json",
        FAILURE_FILE,
        "lock.json",
        "logs",
        "manifest.json",
        LAYOUT_DIR,
        "packages.json",
        "plan.json",
        "register-image.json",
    ];
    let volume = (name.starts_with("disk.") || name.starts_with("disk-"))
        && amiforge_disk::Format::from_file_name(name).is_ok();
    let console = name.starts_with("console-") && name.ends_with(".log");
    volume || console || NAMES.contains(&name)
}

fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if number.is_none_or(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        // Only real folders: opening a named pipe of that name would wait for its writer.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else {
            continue;
        };
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn list(dir: &Path, prefix: &str, out: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), out)?;
        } else if entry.file_type()?.is_file() {
            out.push(name);
        }
    }
    Ok(())
}

/// Brings a folder and all it holds to the disk.
fn sync_all(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_all(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(dir)?.sync_all()
}

fn sync_parent(path: &Path) {
    if let Some(parent) = path.parent()
        && let Ok(dir) = File::open(parent)
    {
        let _ = dir.sync_all();
    }
}
