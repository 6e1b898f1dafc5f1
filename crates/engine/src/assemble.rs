//! `disk assemble`: a root file system becomes a bootable disk; and the part of it that a build
//! shares: from layers to a tree, from a tree to a disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use amiforge_image::{BootMode, DiskImage, ImageSpec, Inodes, Profile};
use amiforge_tree::{DumpContent, Ino, Stat, Tree, TreeError};
use amiforge_types::{Arch, BlobId, BlobTable, Seed, Timestamp};

use crate::diskfiles::{DiskFilesReport, OutputRequest};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::rootfs::listed;
use crate::settings::Engine;

/// How a disk boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootChoice {
    /// BIOS only.
    Bios,
    /// UEFI only.
    Uefi,
    /// Both.
    Hybrid,
    /// No boot loader.
    None,
}

/// What to assemble.
#[derive(Clone, Debug)]
pub struct AssembleRequest {
    /// Tar archives and folders, each over those before it.
    pub rootfs: Vec<PathBuf>,
    /// The disks to write.
    pub output: OutputRequest,
    /// Size of the disk in bytes; `None` for what the content needs and some room.
    pub size: Option<u64>,
    /// How it boots.
    pub boot: BootChoice,
    /// For guests whose tools do not know metadata checksums.
    pub legacy_root: bool,
    /// Inodes of the root file system; `None` for one each 16 KiB, and as many as the content needs.
    pub inodes: Option<u64>,
}

impl Engine {
    /// Makes a disk from a root file system.
    pub fn assemble(&self, request: &AssembleRequest) -> Result<DiskFilesReport, EngineError> {
        let declared = request.output.declared()?;
        let near = request
            .output
            .files
            .first()
            .ok_or_else(|| EngineError::new(ErrorKind::Invalid, "no file to write is named"))?;
        let mut blobs = BlobTable::new();
        let mut padded = BTreeSet::new();
        let mut tree = Tree::new(Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        });
        for rootfs in &request.rootfs {
            self.stage("read", rootfs.display().to_string());
            let (over, spool) = self.read_rootfs(tree, rootfs, near, request.size, &mut blobs)?;
            tree = over;
            padded.extend(spool);
        }
        self.tell_whiteouts(&tree, &request.rootfs);
        let context = || format!("cannot assemble {}", listed(&request.rootfs));
        let clock = match self.settings.source_date_epoch {
            Some(secs) => {
                clamp(&mut tree, Timestamp::from_secs(secs)).or_fail(ErrorKind::Failed, context)?;
                Timestamp::from_secs(secs)
            }
            None => newest(&tree),
        };
        let dump = tree
            .dump_digest(DumpContent::SizeOnly)
            .or_fail(ErrorKind::Failed, context)?;
        let seed = Seed::new(dump);
        self.stage("layout", format!("{} files", tree.slots()));
        let mut spec = image_spec(request.size, request.boot, seed, clock, padded);
        spec.root_profile = root_profile(request.legacy_root);
        if let Some(count) = request.inodes {
            spec.root_inodes = Inodes::Count(count);
        }
        let disk = lay_out(tree, &spec, &mut blobs)?;

        self.write_disk_files(
            &disk.extents,
            &blobs,
            &request.output,
            &declared,
            false,
            &context,
        )
    }
}

/// Everything the layout depends on besides the tree.
pub(crate) fn image_spec(
    size: Option<u64>,
    boot: BootChoice,
    seed: Seed,
    clock: Timestamp,
    padded: BTreeSet<BlobId>,
) -> ImageSpec {
    let boot = match boot {
        BootChoice::Bios => BootMode::LegacyBios,
        BootChoice::Uefi => BootMode::Uefi,
        BootChoice::Hybrid => BootMode::UefiPreferred,
        BootChoice::None => BootMode::None,
    };
    let mut spec = ImageSpec::new(boot, Arch::X86_64, seed, clock);
    spec.size = size;
    spec.padded_blobs = padded;
    spec
}

/// The features of the root file system.
pub(crate) const fn root_profile(legacy: bool) -> Profile {
    if legacy {
        Profile::Legacy
    } else {
        Profile::Standard
    }
}

/// Lays a tree out on a disk.
pub(crate) fn lay_out(
    tree: Tree,
    spec: &ImageSpec,
    blobs: &mut BlobTable,
) -> Result<DiskImage, EngineError> {
    amiforge_image::assemble(tree, spec, blobs).map_err(|error| {
        let hint = error.hint();
        EngineError::wrap(
            ErrorKind::Failed,
            "the disk cannot be laid out",
            error,
            hint,
        )
    })
}

fn newest(tree: &Tree) -> Timestamp {
    let links = tree.link_counts();
    let named = links.iter().enumerate().filter(|(_, links)| **links > 0);
    let times = named
        .filter_map(|(slot, _)| Ino::from_index(slot))
        .map(|ino| tree.stat(ino).mtime.secs);
    Timestamp::from_secs(times.max().unwrap_or(0).max(0))
}

fn clamp(tree: &mut Tree, clock: Timestamp) -> Result<(), TreeError> {
    tree.update_all(|inode| inode.stat.mtime = inode.stat.mtime.min(clock))
}
