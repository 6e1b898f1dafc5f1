//! `disk assemble`: a root file system becomes a bootable disk; and the part of it that a build
//! shares: from layers to a tree, from a tree to a disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_image::{BootMode, DiskImage, ImageSpec};
use amiforge_store::{FileBlob, HarvestOptions};
use amiforge_tree::{DumpContent, Stat, Tree, layer, tar};
use amiforge_types::{Arch, BlobId, BlobTable, Digest, ReadAt, Seed, Timestamp};

use crate::diskfiles::{DiskFilesReport, OutputRequest, folder_of};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Made;
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
    /// A tar archive or a folder.
    pub rootfs: PathBuf,
    /// The disks to write.
    pub output: OutputRequest,
    /// Size of the disk in bytes; `None` for what the content needs and some room.
    pub size: Option<u64>,
    /// How it boots.
    pub boot: BootChoice,
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
        self.stage("read", request.rootfs.display().to_string());
        let (mut tree, spool) = self.read_rootfs(&request.rootfs, near, &mut blobs)?;
        padded.extend(spool);
        let clock = match self.settings.source_date_epoch {
            Some(secs) => {
                clamp(&mut tree, Timestamp::from_secs(secs));
                Timestamp::from_secs(secs)
            }
            None => newest(&tree),
        };
        let context = || format!("cannot assemble {}", request.rootfs.display());
        let dump = tree
            .dump(DumpContent::SizeOnly)
            .or_fail(ErrorKind::Failed, context)?;
        let seed = Seed::new(Digest::of(dump.as_bytes()));
        self.stage("layout", format!("{} files", tree.slots()));
        let disk = lay_out(
            tree,
            &image_spec(request.size, request.boot, seed, clock, padded),
            &mut blobs,
        )?;

        self.write_disk_files(
            &disk.extents,
            &blobs,
            &request.output,
            &declared,
            false,
            &context,
        )
    }

    /// The tree of a tar archive or a folder, and the spool its data went to, if any.
    fn read_rootfs(
        &self,
        rootfs: &Path,
        near: &Path,
        blobs: &mut BlobTable,
    ) -> Result<(Tree, Option<BlobId>), EngineError> {
        let context = || format!("cannot read {}", rootfs.display());
        let root = Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        if rootfs.is_dir() {
            let spool = spool_beside(near)?;
            let dir = OwnedFd::from(File::open(rootfs).or_fail(ErrorKind::Invalid, context)?);
            let options = HarvestOptions {
                newer_than: Timestamp {
                    secs: i64::MAX,
                    nanos: 0,
                },
                build_clock: Timestamp::default(),
                exclude: Vec::new(),
            };
            // Reading and writing in one: what failed is said by the causes, where by both names.
            amiforge_store::harvest(dir, &spool, &options)
                .or_fail(ErrorKind::Failed, || spool_context(rootfs, near))?;
            let blob = Arc::new(FileBlob::from_file(spool).or_fail(ErrorKind::Failed, context)?);
            let id = blobs.add(blob.clone());
            let (diff, _) = layer::read(&*blob, id).or_fail(ErrorKind::Failed, context)?;
            let tree = Tree::from_layers(root, [&diff]).or_fail(ErrorKind::Failed, context)?;
            return Ok((tree, Some(id)));
        }
        let options = tar::ReadOptions {
            build_clock: Timestamp::default(),
            limits: tar::Limits::DEFAULT,
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
                let tree =
                    tar::read_at(&*blob, id, &options).or_fail(ErrorKind::Failed, context)?;
                return Ok((tree, None));
            }
        }
        let spool = spool_beside(near)?;
        let mut writer = BufWriter::with_capacity(
            1 << 20,
            spool.try_clone().or_fail(ErrorKind::Failed, context)?,
        );
        let spooled = tar::read_stream(
            &mut BufReader::with_capacity(1 << 20, file),
            &mut writer,
            &options,
        )
        .or_fail(ErrorKind::Failed, || spool_context(rootfs, near))?;
        writer
            .flush()
            .or_fail(ErrorKind::Failed, || spool_context(rootfs, near))?;
        drop(writer);
        let id = blobs.add(Arc::new(
            FileBlob::from_file(spool).or_fail(ErrorKind::Failed, context)?,
        ));
        Ok((spooled.into_tree(id), None))
    }
}

/// The tree of an image: its layers over one another, without what the guest makes anew.
pub(crate) fn image_tree(made: &Made) -> Result<Tree, EngineError> {
    let root = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: made.clock,
    };
    let mut tree = Tree::from_layers(root, made.layers.iter().map(|layer| &*layer.diff))
        .or_fail(ErrorKind::Failed, || {
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
    if let Some(ino) = tree.lookup(b"etc/machine-id") {
        // Empty, as in a fresh installation: the first boot gives every instance its own.
        tree.inode_mut(ino).kind = amiforge_tree::Kind::File(amiforge_tree::Content::default());
    }
    Ok(tree)
}

fn names_in(tree: &Tree, dir: &str) -> Vec<Vec<u8>> {
    tree.lookup(dir.as_bytes())
        .and_then(|ino| tree.children(ino))
        .map(|c| c.keys().cloned().collect())
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

/// Lays a tree out on a disk.
pub(crate) fn lay_out(
    tree: Tree,
    spec: &ImageSpec,
    blobs: &mut BlobTable,
) -> Result<DiskImage, EngineError> {
    amiforge_image::assemble(tree, spec, blobs).map_err(|error| {
        let hint = error.hint();
        let wrapped = EngineError::Context {
            context: "the disk cannot be laid out".to_owned(),
            kind: ErrorKind::Failed,
            hint: None,
            source: Some(Box::new(error)),
        };
        match hint {
            Some(hint) => wrapped.with_hint(hint),
            None => wrapped,
        }
    })
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

fn newest(tree: &Tree) -> Timestamp {
    let times = tree
        .walk()
        .into_iter()
        .map(|(_, ino)| tree.inode(ino).stat.mtime.secs);
    Timestamp::from_secs(times.max().unwrap_or(0).max(0))
}

fn clamp(tree: &mut Tree, clock: Timestamp) {
    for (_, ino) in tree.walk() {
        let stat = &mut tree.inode_mut(ino).stat;
        stat.mtime = stat.mtime.min(clock);
    }
}
