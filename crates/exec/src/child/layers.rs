//! Layers in and out of directories with mapped owners.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_store::{FileBlob, HarvestOptions, RemoveError, UNSAID};
use amiforge_tree::{LayerEntry, layer};
use amiforge_types::{BlobTable, Timestamp};
use rustix::fs::{Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{ChildError, chrooted};
use crate::sandbox::made_since;
use crate::wire::Shift;

/// Fills the new or empty directory `dir` with one layer, then gives it the name `place`. When
/// somebody else was quicker, theirs stays.
pub(super) fn materialise(
    layer_file: &Path,
    dir: &Path,
    place: &Path,
    shift: Option<Shift>,
) -> Result<(), ChildError> {
    let fail = |path: &Path| format!("cannot make {}", path.display());
    let blob = Arc::new(
        FileBlob::open(layer_file)
            .map_err(|e| ChildError::job(format!("cannot read {}", layer_file.display()), &e))?,
    );
    let mut blobs = BlobTable::new();
    let id = blobs.add(blob.clone());
    let (mut diff, _) = layer::read(&*blob, id)
        .map_err(|e| ChildError::job(format!("cannot read {}", layer_file.display()), &e))?;
    if let Some(shift) = shift {
        for entry in diff.entries.values_mut() {
            if let LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) = entry {
                inode.stat.mtime = shift.of(inode.stat.mtime);
            }
        }
    }
    match rustix::fs::mkdir(dir, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(ChildError::job(fail(dir), &e)),
    }
    let target = open(dir)?;
    amiforge_store::materialise(&diff, &blobs, &target)
        .map_err(|e| ChildError::job(fail(dir), &e))?;
    if !diff.entries.contains_key(&b""[..]) {
        // A layer that says nothing of the root directory still needs one that overlayfs can show. Its time is never that
        // of now, and tells that another layer has to be asked.
        let unsaid = Timespec {
            tv_sec: UNSAID.secs,
            tv_nsec: UNSAID.nanos.into(),
        };
        rustix::fs::fchown(
            &target,
            Some(rustix::thread::Uid::ROOT),
            Some(rustix::thread::Gid::ROOT),
        )
        .and_then(|()| rustix::fs::fchmod(&target, Mode::from_raw_mode(0o755)))
        .and_then(|()| {
            let times = Timestamps {
                last_access: unsaid,
                last_modification: unsaid,
            };
            rustix::fs::futimens(&target, &times)
        })
        .map_err(|e| ChildError::job(fail(dir), &e))?;
    }
    // A directory that lost its data in a power failure would be taken for whole.
    rustix::fs::syncfs(&target).map_err(|e| ChildError::job(fail(dir), &e))?;
    match rustix::fs::renameat_with(
        rustix::fs::CWD,
        dir,
        rustix::fs::CWD,
        place,
        RenameFlags::NOREPLACE,
    ) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if place.is_dir() => amiforge_store::remove_tree(dir)
            .map_err(|e| ChildError::job(format!("cannot remove {}", dir.display()), &e)),
        Err(e) => Err(ChildError::job(fail(place), &e)),
    }
}

/// Writes the upper directory into the layer file, which exists.
pub(super) fn harvest(
    upper: &Path,
    layer_file: &Path,
    clock: Timestamp,
    since: Option<Timestamp>,
    exclude: Vec<String>,
) -> Result<(), ChildError> {
    let out = File::options()
        .read(true)
        .write(true)
        .open(layer_file)
        .map_err(|e| ChildError::job(format!("cannot open {}", layer_file.display()), &e))?;
    // Mounts need no mention: they never show in an upper directory of ours. A shim does once a step has given it
    // another mode, owner or time, since that copies it there: who lent it takes it out of the layer.
    let options = HarvestOptions {
        newer_than: since.map_or(Timestamp::from_secs(i64::MAX), made_since),
        build_clock: clock,
        exclude: exclude.into_iter().map(String::into_bytes).collect(),
    };
    amiforge_store::harvest(open(upper)?, &out, &options)
        .map(|_info| ())
        .map_err(|e| ChildError::job(format!("cannot make a layer of {}", upper.display()), &e))
}

/// Removes directories with everything below.
pub(super) fn remove(dirs: &[PathBuf]) -> Result<(), ChildError> {
    dirs.iter().try_for_each(|dir| {
        remove_tree(dir)
            .map_err(|e| ChildError::job(format!("cannot remove {}", dir.display()), &e))
    })
}

/// Removes a directory with everything below. Before that go the changed root directories of jobs in it, each by itself:
/// what is deep is moved up while it is removed, and would come to be above a root directory that somebody still has.
pub(super) fn remove_tree(dir: &Path) -> Result<(), RemoveError> {
    // That of a store's session, of one of its runs, and the run's work directory.
    const LEVELS: usize = 3;
    let mut places = vec![dir.to_owned()];
    places.retain(|place| place.symlink_metadata().is_ok_and(|meta| meta.is_dir()));
    for level in 0..LEVELS {
        if level > 0 {
            places = places.iter().flat_map(|place| folders(place)).collect();
        }
        for place in &places {
            if level == 0 || place.ends_with("work") {
                amiforge_store::remove_tree(&place.join(chrooted::ROOT))?;
            }
        }
    }
    amiforge_store::remove_tree(dir)
}

/// The directories in a directory, as far as it can be listed.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn open(dir: &Path) -> Result<std::os::fd::OwnedFd, ChildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|e| ChildError::job(format!("cannot open {}", dir.display()), &e))
}
