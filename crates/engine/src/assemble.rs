//! `disk assemble`: a root file system becomes a bootable disk; and the part of it that a build
//! shares: from layers to a tree, from a tree to a disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_disk::{Compression, EmitOptions, Format, Output};
use amiforge_image::{BootMode, DiskImage, ImageSpec, Inodes, Profile};
use amiforge_store::{FileBlob, FileTarget, HarvestOptions};
use amiforge_tree::{DumpContent, Stat, Tree, layer, tar};
use amiforge_types::{Arch, BlobId, BlobTable, Digest, ReadAt, Seed, Timestamp};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::layers::Made;
use crate::look::threads;
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

/// Which digests to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Content digest, and SHA-256 of every file.
    Full,
    /// Content digest, and SHA-256 of files that are not raw disks.
    Fast,
    /// None.
    None,
}

/// What to assemble.
#[derive(Clone, Debug)]
pub struct AssembleRequest {
    /// A tar archive or a folder.
    pub rootfs: PathBuf,
    /// The disks to write; the extension tells the format.
    pub out: Vec<PathBuf>,
    /// Size of the disk in bytes; `None` for what the content needs and some room.
    pub size: Option<u64>,
    /// How it boots.
    pub boot: BootChoice,
    /// For guests whose tools do not know metadata checksums.
    pub legacy_root: bool,
    /// Inodes of the root file system; `None` for one each 16 KiB, and as many as the content needs.
    pub inodes: Option<u64>,
    /// Which digests.
    pub checksums: Checksums,
}

/// What was assembled.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssembleReport {
    /// The disks.
    pub files: Vec<AssembledFile>,
    /// Identity of the disk's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<Digest>,
    /// Size of the disk in bytes.
    pub virtual_bytes: u64,
}

/// One disk file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssembledFile {
    /// Where it is.
    pub path: PathBuf,
    /// `raw` or `qcow2`.
    pub format: Format,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its SHA-256, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
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
    pub fn assemble(&self, request: &AssembleRequest) -> Result<AssembleReport, EngineError> {
        let formats = request
            .out
            .iter()
            .map(|out| {
                let name = out
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Format::from_file_name(&name)
                    .or_fail(ErrorKind::Invalid, || format!("--out {}", out.display()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut blobs = BlobTable::new();
        let mut padded = BTreeSet::new();
        self.stage("read", request.rootfs.display().to_string());
        let (mut tree, spool) = self.read_rootfs(&request.rootfs, &request.out[0], &mut blobs)?;
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

        self.stage(
            "emit",
            request
                .out
                .iter()
                .map(|o| o.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        );
        let temps = request
            .out
            .iter()
            .map(|out| beside(out))
            .collect::<Result<Vec<_>, _>>()?;
        let reopen = |temp: &NamedTempFile| temp.reopen().map(FileTarget::from_file);
        let targets = temps
            .iter()
            .map(reopen)
            .collect::<Result<Vec<_>, _>>()
            .or_fail(ErrorKind::Failed, context)?;
        let outputs: Vec<Output<'_>> = formats
            .iter()
            .zip(&targets)
            .map(|(format, target)| Output {
                format: *format,
                target,
                readback: None,
                sha256: match request.checksums {
                    Checksums::Full => true,
                    Checksums::Fast => *format != Format::Raw,
                    Checksums::None => false,
                },
                compression: Compression::None,
            })
            .collect();
        let options = EmitOptions {
            threads: threads(),
            content_digest: request.checksums != Checksums::None,
        };
        let emitted = amiforge_disk::emit(&disk.extents, &blobs, &outputs, options)
            .or_fail(ErrorKind::Failed, context)?;
        let mut files = Vec::new();
        for ((temp, out), (format, artifact)) in temps
            .into_iter()
            .zip(&request.out)
            .zip(formats.iter().zip(&emitted.artifacts))
        {
            temp.persist(out)
                .map_err(|e| e.error)
                .or_fail(ErrorKind::Failed, || {
                    format!("cannot write {}", out.display())
                })?;
            self.emit(Event::Artifact {
                file: out.display().to_string(),
                bytes: artifact.bytes,
                sha256: artifact.sha256.map(|d| d.hex()),
            });
            files.push(AssembledFile {
                path: out.clone(),
                format: *format,
                bytes: artifact.bytes,
                sha256: artifact.sha256,
            });
        }
        Ok(AssembleReport {
            files,
            content_digest: emitted.content_digest,
            virtual_bytes: disk.extents.size(),
        })
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

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// A temporary file in the folder of `out`, to be renamed to it.
fn beside(out: &Path) -> Result<NamedTempFile, EngineError> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(".amiforge-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder_of(out))
        .or_fail(ErrorKind::Failed, || {
            format!("cannot write to {}", folder_of(out).display())
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
    let mut newest = 0;
    tree.visit(&mut |_, ino| newest = newest.max(tree.inode(ino).stat.mtime.secs));
    Timestamp::from_secs(newest)
}

fn clamp(tree: &mut Tree, clock: Timestamp) {
    for (_, ino) in tree.walk() {
        let stat = &mut tree.inode_mut(ino).stat;
        stat.mtime = stat.mtime.min(clock);
    }
}
