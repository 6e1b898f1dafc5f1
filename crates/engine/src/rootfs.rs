//! The root file system that a disk is made of: tar archives, plain or compressed, and folders, each over those
//! before it.
//!
//! A plain archive in a regular file stays where it is, and the disk's data is copied out of it. All
//! others go through a spool, a file without a name beside the output. What archives may ask for and
//! what is done about it: `docs/formats/archives.md`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_store::FileBlob;
use amiforge_tree::{Ino, Tree, tar};
use amiforge_types::{BlobId, BlobTable, ReadAt, Timestamp};

use crate::diskfiles::folder_of;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// Part of the free space beside the output that the spool of a compressed archive may fill.
const SPOOL_SHARE: (u64, u64) = (9, 10);

impl Engine {
    /// `tree` with a tar archive or a folder over it, and the spool its data went to, if it is padded.
    pub(crate) fn read_rootfs(
        &self,
        mut tree: Tree,
        rootfs: &Path,
        near: &Path,
        disk_size: Option<u64>,
        blobs: &mut BlobTable,
    ) -> Result<(Tree, Option<BlobId>), EngineError> {
        let context = || format!("cannot read {}", rootfs.display());
        if rootfs.is_dir() {
            return read_folder(tree, rootfs, near, blobs);
        }
        tree.next_layer();
        let mut limits = tar::Limits::DEFAULT;
        if let Some(size) = disk_size {
            // More can never fit.
            limits.data_bytes = limits.data_bytes.min(size);
        }
        let mut options = tar::ReadOptions {
            build_clock: Timestamp::default(),
            limits,
        };
        let file = fs_err::File::open(rootfs)
            .or_fail(ErrorKind::Invalid, context)?
            .into_parts()
            .0;
        let regular = file
            .metadata()
            .or_fail(ErrorKind::Invalid, context)?
            .is_file();
        if regular {
            let blob = Arc::new(
                FileBlob::from_file(file.try_clone().or_fail(ErrorKind::Failed, context)?)
                    .or_fail(ErrorKind::Failed, context)?,
            );
            let mut first = [0; tar::Compression::MAGIC_LEN];
            let len = first
                .len()
                .min(usize::try_from(blob.size()).unwrap_or(usize::MAX));
            blob.read_exact_at(&mut first[..len], 0)
                .or_fail(ErrorKind::Failed, context)?;
            if tar::Compression::detect(&first[..len]) == tar::Compression::None {
                let id = blobs.add(blob.clone());
                let tree = tar::read_at_over(tree, &*blob, id, &options)
                    .map_err(|e| refused(e, rootfs))?;
                return Ok((tree, None));
            }
        }
        let spool = spool_beside(near)?;
        let room = rustix::fs::fstatvfs(&spool)
            .map_err(std::io::Error::from)
            .or_fail(ErrorKind::Failed, context)?;
        let room = room.f_bavail.saturating_mul(room.f_frsize) / SPOOL_SHARE.1 * SPOOL_SHARE.0;
        options.limits.data_bytes = options.limits.data_bytes.min(room);
        let mut writer = BufWriter::with_capacity(
            1 << 20,
            spool.try_clone().or_fail(ErrorKind::Failed, context)?,
        );
        let spooled = tar::read_stream_over(
            tree,
            &mut BufReader::with_capacity(1 << 20, file),
            &mut writer,
            &options,
        )
        .map_err(|error| match error.kind {
            tar::TarErrorKind::Spool(_) => EngineError::wrap(
                ErrorKind::Failed,
                spool_context(rootfs, near),
                error,
                None::<String>,
            ),
            _ => refused(error, rootfs),
        })?;
        writer
            .flush()
            .or_fail(ErrorKind::Failed, || spool_context(rootfs, near))?;
        drop(writer);
        let id = blobs.add(Arc::new(
            FileBlob::from_file(spool).or_fail(ErrorKind::Failed, context)?,
        ));
        Ok((spooled.into_tree(id), None))
    }

    /// A layer of a container image is no root file system, and looks like one.
    pub(crate) fn tell_whiteouts(&self, tree: &Tree, rootfs: &[PathBuf]) {
        let names = (0..tree.slots())
            .filter_map(|slot| tree.children(Ino::from_index(slot)?))
            .flat_map(|children| children.names());
        let count = names.filter(|name| name.starts_with(b".wh.")).count();
        if count > 0 {
            self.warn(format!(
                "{}: {count} names start with `.wh.`, as the whiteouts of container image layers do; they are \
                 kept as ordinary files and remove nothing",
                listed(rootfs)
            ));
        }
    }
}

/// The names of root file systems that lie over one another, for people.
pub(crate) fn listed(rootfs: &[PathBuf]) -> String {
    let names: Vec<_> = rootfs.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

/// The data of a folder goes to the spool.
fn read_folder(
    tree: Tree,
    rootfs: &Path,
    near: &Path,
    blobs: &mut BlobTable,
) -> Result<(Tree, Option<BlobId>), EngineError> {
    let context = || format!("cannot read {}", rootfs.display());
    let spool = spool_beside(near)?;
    let dir = OwnedFd::from(File::open(rootfs).or_fail(ErrorKind::Invalid, context)?);
    // Reading and writing in one: what failed is said by the causes, where by both names.
    let mut tree = amiforge_store::read_folder(dir, tree, &spool).map_err(|error| {
        let hint = match &error {
            amiforge_store::HarvestError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Some("files of other users can be read by root, or from a tar archive made by root")
            }
            amiforge_store::HarvestError::Mount(_) => {
                Some("unmount it, or make a tar archive without it (`tar --one-file-system`)")
            }
            _ => None,
        };
        EngineError::wrap(ErrorKind::Failed, spool_context(rootfs, near), error, hint)
    })?;
    let blob = FileBlob::from_file(spool).or_fail(ErrorKind::Failed, context)?;
    let id = blobs.add(Arc::new(blob));
    tree.assign_blob(id);
    Ok((tree, Some(id)))
}

fn refused(error: tar::TarError, rootfs: &Path) -> EngineError {
    let hint = match &error.kind {
        tar::TarErrorKind::Limit {
            what: "bytes of file data",
            ..
        } => Some(
            "the limit is the size of the disk, nine tenths of the free space beside the output, or 1 TiB",
        ),
        _ => None,
    };
    EngineError::wrap(
        ErrorKind::Failed,
        format!("cannot read {}", rootfs.display()),
        error,
        hint,
    )
}

/// A file without a name in the folder of `out`: the data of archives that cannot be read in place.
fn spool_beside(out: &Path) -> Result<File, EngineError> {
    tempfile::tempfile_in(folder_of(out)).or_fail(ErrorKind::Failed, || {
        format!("cannot write to {}", folder_of(out).display())
    })
}

fn spool_context(rootfs: &Path, out: &Path) -> String {
    format!(
        "cannot copy {} to {}",
        rootfs.display(),
        folder_of(out).display()
    )
}
