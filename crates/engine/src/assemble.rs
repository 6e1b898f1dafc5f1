//! `disk assemble`: a root file system becomes a bootable disk; and the part of it that a build
//! shares: from layers to a tree, from a tree to a disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use amiforge_image::{BootMode, DiskImage, ImageSpec, Inodes, Profile};
use amiforge_tree::{DumpContent, Ino, Stat, Tree, TreeError};
use amiforge_types::{Arch, BlobId, BlobTable, Seed, Timestamp};

use crate::diskfiles::{DiskFilesReport, OutputRequest};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Made;
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

/// What a finished image does not carry: caches and identities that a guest makes anew. Directories
/// are emptied, files removed.
const EMPTIED: &[&str] = &[
    "run",
    "tmp",
    "var/tmp",
    "var/lib/apt/lists",
    "var/cache/apt/archives",
    "var/lib/cloud",
    "var/log/journal",
];
const REMOVED: &[&str] = &[
    "root/.bash_history",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "etc/.pwd.lock",
];
/// Paths whose files are removed where the name starts like this.
const HOST_KEYS: (&str, &[u8]) = ("etc/ssh", b"ssh_host_");
/// Stays as an empty file: the first boot gives every instance its own.
pub(crate) const MACHINE_ID: &[u8] = b"etc/machine-id";

/// Whether a finished image does not carry what is at this path.
pub(crate) fn is_dropped(path: &[u8]) -> bool {
    let below = |dir: &str| {
        path.strip_prefix(dir.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let removed = |name: &str| path == name.as_bytes() || below(name);
    let (dir, prefix) = HOST_KEYS;
    let host_key = path
        .strip_prefix(dir.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"/"))
        .is_some_and(|name| name.starts_with(prefix));
    EMPTIED.iter().any(|dir| below(dir)) || REMOVED.iter().any(|name| removed(name)) || host_key
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

/// The tree of an image: its layers over one another, without what the guest makes anew.
pub(crate) fn image_tree(made: &Made) -> Result<Tree, EngineError> {
    let mut tree = made.tree().or_fail(ErrorKind::Failed, || {
        "the layers do not fit on one another".to_owned()
    })?;
    for dir in EMPTIED {
        for name in names_in(&tree, dir) {
            tree.remove(&[dir.as_bytes(), b"/", &name].concat());
        }
    }
    for path in REMOVED {
        tree.remove(path.as_bytes());
    }
    let (dir, prefix) = HOST_KEYS;
    for name in names_in(&tree, dir)
        .into_iter()
        .filter(|name| name.starts_with(prefix))
    {
        tree.remove(&[dir.as_bytes(), b"/", &name].concat());
    }
    if let Some(ino) = tree.lookup(MACHINE_ID) {
        tree.update(ino, |inode| {
            inode.kind = amiforge_tree::Kind::File(amiforge_tree::Content::default());
        })
        .or_fail(ErrorKind::Failed, || "the tree is full".to_owned())?;
    }
    Ok(tree)
}

fn names_in(tree: &Tree, dir: &str) -> Vec<Vec<u8>> {
    tree.lookup(dir.as_bytes())
        .and_then(|ino| tree.children(ino))
        .map(|c| c.names().map(<[u8]>::to_vec).collect())
        .unwrap_or_default()
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
