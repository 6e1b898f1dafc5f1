//! The upper directory of an overlay to a layer file.
//!
//! Reads the form that overlayfs has with the mount option `userxattr` (kernel documentation,
//! "Overlay Filesystem"): a removed name is a character device 0:0 or an empty file with
//! `user.overlay.whiteout`, a directory that hides what is below it has `user.overlay.opaque` = `y`.
//!
//! The bytes of the layer depend on the image alone. Times of the build become the build clock, the
//! attributes of overlayfs and of the host go, and holes are found by content: runs of zeros of
//! [`HOLE_BYTES`] or more become holes whatever the host's file system made of them. Of the inode flags those that
//! mean the same everywhere are kept, unless the root folder has them too and so may have passed them on.

mod data;
mod flags;
mod folder;
mod walk;
pub(crate) mod xattr;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use amiforge_tree::layer::{self, LayerInfo, LayerWriteError};
use amiforge_tree::{Kind, LayerEntry, TreeError};
use amiforge_types::{Timestamp, WriteAt};

use crate::FileTarget;

pub use folder::read_folder;
pub(crate) use walk::{kind_of, stat_of};

/// Zero runs of at least this many bytes (in whole blocks of [`HOLE_BLOCK`]) become holes.
pub(crate) const HOLE_BYTES: u64 = 64 << 10;
/// Alignment of holes in the file.
pub(crate) const HOLE_BLOCK: u64 = 4096;

/// How to read an upper directory.
#[derive(Clone, Debug)]
pub struct HarvestOptions {
    /// Modification times at or after this point (the wall clock's reading when the step started)
    /// become `build_clock`.
    pub newer_than: Timestamp,
    /// See `newer_than`.
    pub build_clock: Timestamp,
    /// Paths of the image, without leading slash, that are left out with everything below them: mount
    /// points and files of the sandbox.
    pub exclude: Vec<Vec<u8>>,
}

/// An upper directory that could not be read into a layer. What was written so far is not a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarvestError {
    /// A system call failed.
    #[error("cannot {action} {:?}", String::from_utf8_lossy(path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Path in the image.
        path: Vec<u8>,
        /// Why it failed.
        source: io::Error,
    },
    /// The overlay was mounted with a feature that spreads an inode over layers.
    #[error(
        "{:?} uses the overlay feature {feature:?}, which cannot be harvested",
        String::from_utf8_lossy(path)
    )]
    Overlay {
        /// Path in the image.
        path: Vec<u8>,
        /// Name of the attribute.
        feature: String,
    },
    /// Another file system is mounted inside.
    #[error("another file system is mounted at {:?}", String::from_utf8_lossy(.0))]
    Mount(Vec<u8>),
    /// A file changed while it was read: something still runs that writes it.
    #[error("{:?} changed while it was read", String::from_utf8_lossy(.0))]
    Changed(Vec<u8>),
    /// The layer could not be written.
    #[error("cannot write the layer")]
    Write(#[from] LayerWriteError),
    /// The data of a folder's files could not be written.
    #[error("cannot write the data of the files")]
    Spool(#[source] io::Error),
    /// What is not a directory has the name of one that holds something.
    #[error("{:?} would replace a folder that is not empty", String::from_utf8_lossy(.0))]
    Replaces(Vec<u8>),
    /// The files do not fit a tree.
    #[error("the folder cannot become a tree")]
    Tree(#[from] TreeError),
}

impl HarvestError {
    pub(crate) fn io(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_vec();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Reads the overlay upper directory `upper` and writes the layer to `out` (a regular file open for
/// reading and writing, emptied first). Call it inside the user namespace of the step, so that
/// owners are those of the image, and after the step's last process has ended. `/proc` has to be
/// mounted.
///
/// ```no_run
/// # use amiforge_store::{harvest, HarvestOptions, Home, Store};
/// # use amiforge_types::{Digest, LayerId, Timestamp};
/// # fn f(started: Timestamp) -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::open(&Home::below("/var/lib/amiforge"))?;
/// let writer = store.layer_writer(LayerId(Digest::of(b"what it was made from")))?;
/// let upper = std::fs::File::open("/path/to/upper")?;
/// let options = HarvestOptions {
///     newer_than: started,
///     build_clock: Timestamp::from_secs(1_700_000_000),
///     exclude: vec![b"proc".to_vec(), b"etc/resolv.conf".to_vec()],
/// };
/// harvest(upper, writer.file(), &options)?;
/// writer.commit()?;
/// # Ok(())
/// # }
/// ```
pub fn harvest(
    upper: impl AsFd,
    out: &File,
    options: &HarvestOptions,
) -> Result<LayerInfo, HarvestError> {
    let upper = upper.as_fd();
    let write = |e| HarvestError::Write(LayerWriteError::Write(e));
    out.set_len(0).map_err(write)?;
    let flags = flags::FlagReader::below(upper);
    let walked = walk::walk(upper, options, flags)?;
    let mut diff = walked.diff;
    let files = data::scan(upper, &walked.files, flags)?;
    for (path, (scanned, flags)) in walked.files.keys().zip(&files) {
        if let Some(LayerEntry::Put(inode)) = diff.entries.get_mut(path) {
            inode.kind = Kind::File(scanned.clone());
            inode.flags = inode.flags | *flags;
        }
    }
    let plan = layer::plan(&diff)?;
    let target = FileTarget::from_file(out.try_clone().map_err(write)?);
    target.write_all_at(&plan.header(), 0).map_err(write)?;
    data::copy(upper, &walked.files, plan.files(), &target)?;
    let digests: Vec<_> = files
        .iter()
        .filter_map(|(content, _)| content.digest)
        .collect();
    let (tail, info) = plan.finish(&digests)?;
    target
        .write_all_at(&tail, plan.tail_offset())
        .map_err(write)?;
    Ok(info)
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The upper directory of an overlay.
    Overlay,
    /// Just what it looks like.
    Plain,
}
