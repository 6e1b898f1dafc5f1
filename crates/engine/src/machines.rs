//! Machines that steps run in where nothing else is allowed: a kernel of Debian's, our agent as its first process, and disks
//! of our own ext4 writer.
//!
//! ```text
//! cache/v1/machine/<name>/vmlinuz    the kernel
//! cache/v1/machine/<name>/modules    an initrd of the modules that it needs
//! <lower>/disk.raw                   a layer, below `fs` of an ext4 file system
//! <upper>/disk.raw                   an empty one, with holes, for what jobs change
//! <upper>/lent.raw                   copies of the downloads that a job is lent, by their names
//! ```

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use amiforge_disk::{EmitOptions, Format, Output};
use amiforge_exec::{
    Helper, LAYERS_PORT, LINK_PORT, Machine, MachineDisks, Machines, SHELL_PORTS, SandboxError,
};
use amiforge_fs::ext4::{self, Inodes, Options, Size};
use amiforge_source::KERNEL_SUITE;
use amiforge_store::{FileBlob, FileTarget};
use amiforge_tree::{Content, Inode, Kind, LayerDiff, Stat, Tree, layer};
use amiforge_types::{BlobTable, ByteSize, Digest, GIB, ReadAt as _, Timestamp, Uuid};
use amiforge_vm::{InitrdEntry, MicroDisk, MicroSpec, MicroVm, QemuTools};
use rustix::fs::OFlags;

use crate::error::chain;
use crate::look::threads;
use crate::settings::{Engine, Watched};

/// In a directory that stands for a disk.
const DISK: &str = "disk.raw";
/// Beside the one for what jobs change.
const LENT: &str = "lent.raw";

/// Most bytes of the disk for what jobs change; below, what the host has left but for a reserve. It takes no more of it than
/// what is written.
const MAX_UPPER: u64 = 1024 * GIB;

/// What stays free on the host, and the smallest disk that is of any use.
const RESERVE: u64 = 64 << 20;
const MIN_UPPER: u64 = 64 << 20;

/// The folder of kernels in the cache.
const MACHINE: &str = "machine";
const VMLINUZ: &str = "vmlinuz";
const MODULES: &str = "modules";
const LOCK: &str = ".lock";

/// The root directory of a disk for what jobs change.
const ROOT: Stat = Stat {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: Timestamp { secs: 0, nanos: 0 },
};

/// Starts machines for an engine.
pub(crate) struct Builder {
    engine: Engine,
    /// What was found, once it was looked for.
    found: Mutex<Option<Arc<Found>>>,
}

/// What a machine is started with.
struct Found {
    tools: QemuTools,
    kernel: PathBuf,
    initrd: Vec<u8>,
    accelerator: amiforge_vm::Accelerator,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Engine {
    /// The program that plays the child of a sandbox, and what starts machines that do.
    pub(crate) fn helper(&self) -> Helper {
        let builder = Builder {
            engine: Self {
                // Else it would hold on to itself.
                sandbox: Arc::default(),
                ..self.telling(self.settings.events.clone())
            },
            found: Mutex::default(),
        };
        Helper {
            machines: Some(Arc::new(builder)),
            ..self.settings.helper.clone()
        }
    }
}

impl Engine {
    /// Whether a kernel for machines is here, as far as that can be told without looking into it.
    pub(crate) fn has_builder_kernel(&self) -> bool {
        let folder = self.settings.home.downloads().join(MACHINE);
        self.settings.builder_kernel.is_some() || is_whole(&folder.join(KERNEL_SUITE))
    }
}

/// Of the cache, single files may go.
fn is_whole(folder: &Path) -> bool {
    let files = [VMLINUZ, MODULES];
    files.iter().all(|file| folder.join(file).is_file())
}

fn none(what: impl Into<String>, hint: Option<String>) -> SandboxError {
    SandboxError::NoMachine {
        what: what.into(),
        hint,
    }
}

fn job(what: &str, error: &(dyn std::error::Error + 'static)) -> SandboxError {
    let what = format!("{what}: {}", chain(error));
    SandboxError::Job { what }
}

impl Builder {
    fn found(&self) -> Result<Arc<Found>, SandboxError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok(found.clone());
        }
        let tools = QemuTools::find().map_err(|error| {
            let hint = "install QEMU (Debian: qemu-system-x86)".to_owned();
            none(chain(&error), Some(hint))
        })?;
        let engine = &self.engine;
        let folder = self.kernel()?;
        let acceleration = engine.acceleration(&tools);
        let acceleration = acceleration.map_err(|error| none(chain(&error), None))?;
        let mut initrd = Vec::new();
        let entries = [
            ("dev".to_owned(), InitrdEntry::Dir),
            ("dev/console".to_owned(), InitrdEntry::CharDev(5, 1)),
            ("init".to_owned(), InitrdEntry::File(engine.settings.agent)),
        ];
        let written = amiforge_vm::write_initrd(&mut initrd, &entries).and_then(|()| {
            initrd.extend(fs_err::read(folder.join(MODULES))?);
            Ok(())
        });
        written.map_err(|error| job("cannot make the initrd of the machine", &error))?;
        let made = Arc::new(Found {
            tools,
            kernel: folder.join(VMLINUZ),
            initrd,
            accelerator: acceleration.accelerator,
        });
        Ok(found.insert(made).clone())
    }

    /// The folder with the kernel, filled where it is missing.
    fn kernel(&self) -> Result<PathBuf, SandboxError> {
        let settings = &self.engine.settings;
        let cache = settings.home.downloads();
        let there = |name: &str| {
            let folder = cache.join(MACHINE).join(name);
            is_whole(&folder).then_some(folder)
        };
        let given = settings.builder_kernel.as_deref();
        let (name, deb) = match given {
            Some(path) => {
                let bytes = fs_err::read(path)
                    .map_err(|error| none(chain(&error), Some(GIVEN.to_owned())))?;
                let name = Digest::of(&bytes).hex()[..16].to_owned();
                (name, Some(path.to_owned()))
            }
            None => (KERNEL_SUITE.to_owned(), None),
        };
        if let Some(folder) = there(&name) {
            return Ok(folder);
        }
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let what = format!("there is no kernel for a machine: {}", chain(error));
            none(what, Some(GIVEN.to_owned()))
        };
        let deb = match deb {
            Some(deb) => deb,
            None if self.engine.is_offline() => {
                let what = format!(
                    "there is no kernel for a machine yet: it comes from Debian {} when a build first needs it",
                    KERNEL_SUITE
                );
                return Err(none(what, Some(GIVEN.to_owned())));
            }
            None => {
                self.engine
                    .stage("machine", format!("a kernel of Debian {}", KERNEL_SUITE));
                let events = |event| self.engine.source_event(event);
                let ctx = self.engine.context(&cache, &events, false, threads());
                amiforge_source::fetch_kernel(&ctx).map_err(|error| failed(&error))?
            }
        };
        let kernel = amiforge_source::read_kernel(&deb).map_err(|error| failed(&error))?;
        let mut modules = Vec::new();
        let mut entries = vec![("modules".to_owned(), InitrdEntry::Dir)];
        for (n, (module, content)) in kernel.modules.iter().enumerate() {
            // They are loaded in the order of their names.
            let name = format!("modules/{n:02}-{module}.ko");
            entries.push((name, InitrdEntry::File(content)));
        }
        let parent = cache.join(MACHINE);
        let made = amiforge_vm::write_initrd(&mut modules, &entries)
            .and_then(|()| keep_kernel(&parent, &name, &kernel.image, &modules));
        made.map_err(|error| failed(&error))
    }
}

/// Makes the folder `name` with both files, unless it is there and whole. One process does so at a time: else one could remove,
/// as unfinished, what the other has just finished and uses.
fn keep_kernel(
    parent: &Path,
    name: &str,
    vmlinuz: &[u8],
    modules: &[u8],
) -> std::io::Result<PathBuf> {
    const NEW: &str = ".new-";
    fs_err::create_dir_all(parent)?;
    let lock = std::fs::File::create(parent.join(LOCK))?;
    lock.lock()?;
    let folder = parent.join(name);
    if is_whole(&folder) {
        return Ok(folder);
    }
    for entry in fs_err::read_dir(parent)? {
        let entry = entry?;
        // Whoever made it was killed: it would hold the lock.
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEW.as_bytes())
        {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    let new = tempfile::Builder::new().prefix(NEW).tempdir_in(parent)?;
    for (name, bytes) in [(VMLINUZ, vmlinuz), (MODULES, modules)] {
        let mut file = fs_err::File::create(new.path().join(name))?;
        file.write_all(bytes)?;
        // A folder with both files is taken for whole.
        file.sync_all()?;
    }
    if folder.is_dir() {
        fs_err::remove_dir_all(&folder)?;
    }
    fs_err::rename(new.keep(), &folder)?;
    Ok(folder)
}

/// What a user can do where there is no kernel.
const GIVEN: &str = "AMIFORGE_BUILDER_KERNEL can name a kernel package of Debian (linux-image-<version>-cloud-amd64_<version>_amd64.deb)";

impl Machines for Builder {
    fn materialise(&self, layer_file: &Path, dir: &Path, place: &Path) -> Result<(), SandboxError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            job(&format!("cannot make {}", dir.display()), error)
        };
        let blob = FileBlob::open(layer_file).map_err(|error| failed(&error))?;
        let blob = Arc::new(blob);
        let mut blobs = BlobTable::new();
        let id = blobs.add(blob.clone());
        let (diff, _) = layer::read(&*blob, id).map_err(|error| failed(&error))?;
        let tree = amiforge_store::lower_tree(&diff, b"fs").map_err(|error| failed(&error))?;
        if let Err(error) = fs_err::create_dir(dir)
            && !dir.is_dir()
        {
            return Err(failed(&error));
        }
        let disk = dir.join(DISK);
        write_disk(&disk, &tree, &blobs, Size::Minimum { free: 0 })?;
        let renamed = rustix::fs::renameat_with(
            rustix::fs::CWD,
            dir,
            rustix::fs::CWD,
            place,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        match renamed {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) if place.is_dir() => {
                fs_err::remove_dir_all(dir).map_err(|error| failed(&error))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn start(
        &self,
        disks: &MachineDisks,
        cancel: &AtomicBool,
    ) -> Result<Box<dyn Machine>, SandboxError> {
        let found = self.found()?;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            job("cannot make a disk for what changes", error)
        };
        if let Err(error) = fs_err::create_dir(&disks.upper)
            && !disks.upper.is_dir()
        {
            return Err(failed(&error));
        }
        // Before the other disk, which is as large as what is left.
        let lent = lent_disk(disks)?;
        let upper = disks.upper.join(DISK);
        if !upper.exists() {
            let left = amiforge_store::free_bytes(&disks.upper).map_err(|error| failed(&error))?;
            let bytes = left.saturating_sub(RESERVE).min(MAX_UPPER);
            if bytes < MIN_UPPER {
                let what = format!(
                    "no room for the disk of a machine: {} are free below {}",
                    ByteSize(left),
                    disks.upper.display()
                );
                return Err(SandboxError::Job { what });
            }
            let size = Size::Volume(bytes - bytes % (1 << 20));
            write_disk(&upper, &Tree::new(ROOT), &BlobTable::new(), size)?;
        }
        let mut all: Vec<MicroDisk> = Vec::new();
        for (n, lower) in disks.lowers.iter().enumerate() {
            let file = lower.join(DISK);
            if !file.exists() {
                let failed = |error: &(dyn std::error::Error + 'static)| {
                    job(&format!("cannot use {}", lower.display()), error)
                };
                // An empty directory, as a probe has it; in any other something else has been put meanwhile.
                if fs_err::read_dir(lower)
                    .map_err(|error| failed(&error))?
                    .next()
                    .is_some()
                {
                    let what = format!("the disk in {} went away", lower.display());
                    return Err(SandboxError::Job { what });
                }
                let tree = amiforge_store::lower_tree(&LayerDiff::default(), b"fs");
                let tree = tree.map_err(|error| failed(&error))?;
                let size = Size::Minimum { free: 0 };
                write_disk(&file, &tree, &BlobTable::new(), size)?;
            }
            all.push(MicroDisk {
                file,
                serial: format!("lower{n}"),
                read_only: true,
            });
        }
        all.extend(lent.map(|file| MicroDisk {
            file,
            serial: "lent".to_owned(),
            read_only: true,
        }));
        all.push(MicroDisk {
            file: upper,
            serial: "upper".to_owned(),
            read_only: false,
        });
        let (memory_mib, cpus) = MicroSpec::sized();
        let spec = MicroSpec {
            kernel: found.kernel.clone(),
            initrd: found.initrd.clone(),
            disks: all,
            ports: [LINK_PORT, LAYERS_PORT]
                .into_iter()
                .chain(SHELL_PORTS)
                .map(str::to_owned)
                .collect(),
            network: disks.network,
            memory_mib,
            cpus,
            accelerator: found.accelerator,
        };
        let vm = MicroVm::start(&found.tools, &spec, cancel).map_err(|error| match error {
            amiforge_vm::VmError::Cancelled => SandboxError::Cancelled,
            error => none(chain(&error), None),
        })?;
        let guard = self.engine.interruption.guard(vm.folder());
        Ok(Box::new(Running { vm, _guard: guard }))
    }

    fn host(&self) -> Ipv4Addr {
        amiforge_vm::HOST_ADDRESS
    }
}

/// The disk of what jobs are lent, if there is any. The files are the caller's, and read as they lie there: a machine sees no
/// path of ours and nothing else of the cache.
fn lent_disk(disks: &MachineDisks) -> Result<Option<PathBuf>, SandboxError> {
    if disks.lent.is_empty() {
        return Ok(None);
    }
    let failed = |error: &(dyn std::error::Error + 'static)| {
        job("cannot lend downloads to a machine", error)
    };
    let (mut tree, mut blobs, mut bytes) = (Tree::new(ROOT), BlobTable::new(), 0u64);
    for lent in &disks.lent {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&lent.path);
        let blob = opened.and_then(FileBlob::from_file);
        let blob = blob.map_err(|error| {
            let what = format!("cannot lend {} to a machine", lent.path.display());
            job(&what, &error)
        })?;
        let size = blob.size();
        bytes = bytes.saturating_add(size);
        let content = Content::blob(blobs.add(Arc::new(blob)), 0, size);
        let stat = Stat {
            mode: 0o400,
            ..ROOT
        };
        let inode = Inode::new(stat, Kind::File(content));
        tree.insert(lent.name.as_str().as_bytes(), inode)
            .map_err(|error| failed(&error))?;
    }
    let left = amiforge_store::free_bytes(&disks.upper).map_err(|error| failed(&error))?;
    if left < bytes.saturating_add(RESERVE) {
        let what = format!(
            "no room for a copy of the downloads that a machine is lent: they have {}, and {} are free below {}",
            ByteSize(bytes),
            ByteSize(left),
            disks.upper.display()
        );
        return Err(SandboxError::Job { what });
    }
    let file = disks.upper.join(LENT);
    write_disk(&file, &tree, &blobs, Size::Minimum { free: 0 })?;
    Ok(Some(file))
}

/// A machine, whose folder goes with it.
struct Running {
    vm: MicroVm,
    _guard: Watched,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.vm.fmt(f)
    }
}

impl Machine for Running {
    fn link(&self) -> &std::os::unix::net::UnixStream {
        &self.vm.ports()[0]
    }

    fn layers(&self) -> &std::os::unix::net::UnixStream {
        &self.vm.ports()[1]
    }

    fn shell(&self) -> [&std::os::unix::net::UnixStream; 3] {
        let ports = self.vm.ports();
        [&ports[2], &ports[3], &ports[4]]
    }

    fn last_words(&self) -> String {
        self.vm.last_words()
    }
}

/// An ext4 file system in a new file.
fn write_disk(path: &Path, tree: &Tree, blobs: &BlobTable, size: Size) -> Result<(), SandboxError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        job(&format!("cannot write {}", path.display()), error)
    };
    let uuid = Uuid::from_bytes([0x6d; 16]);
    let mut options = Options::new(size, uuid, uuid, Timestamp::default());
    options.reserved_percent = 0;
    if matches!(size, Size::Minimum { .. }) {
        options.inodes = Inodes::Content;
    }
    let plan = ext4::plan(tree, &options).map_err(|error| failed(&error))?;
    // Everything in it can be read by who can read the file, whatever its modes inside.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(&error))?;
    let target = FileTarget::from_file(file);
    let output = [Output::new(Format::Raw, &target)];
    let options = EmitOptions {
        threads: threads(),
        content_digest: false,
    };
    amiforge_disk::emit(&plan.extents, blobs, &output, options).map_err(|error| failed(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use amiforge_exec::{KeptName, LentDownload};
    use amiforge_testkit::check;

    use super::*;

    #[test]
    fn what_a_machine_is_lent_is_a_disk_of_copies_and_only_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let lent = |text: &str| {
            let path = dir.path().join(format!("file-{}", text.len()));
            fs_err::write(&path, text).unwrap();
            LentDownload {
                name: KeptName::of_digest(Digest::of(text.as_bytes())),
                path,
            }
        };
        // Of no whole number of blocks, and none at all.
        let texts = ["x".repeat(70_001), "some".to_owned(), String::new()];
        let mut disks = MachineDisks {
            lowers: Vec::new(),
            upper: dir.path().to_owned(),
            network: true,
            lent: texts.iter().map(|text| lent(text)).collect(),
        };
        let disk = lent_disk(&disks).unwrap().unwrap();
        check::e2fsck(&disk);
        for (file, text) in disks.lent.iter().zip(&texts) {
            let there = check::ext4_cat(&disk, &format!("/{}", file.name.as_str()));
            assert_eq!(there, text.as_bytes());
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&disks.lent[0].path, &link).unwrap();
        for path in [link, dir.path().to_owned(), dir.path().join("none")] {
            disks.lent[0].path = path.clone();
            let error = lent_disk(&disks).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        disks.lent.clear();
        assert_eq!(lent_disk(&disks).unwrap(), None);
    }

    #[test]
    fn kernels_are_kept_whole_also_when_several_processes_make_them() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("machine");
        // What somebody who was killed left.
        fs_err::create_dir_all(parent.join(".new-x")).unwrap();
        fs_err::create_dir_all(parent.join("k")).unwrap();
        fs_err::write(parent.join("k").join(VMLINUZ), "half").unwrap();
        let whole = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let folder = keep_kernel(&parent, "k", b"kernel", b"modules").unwrap();
                        // From its end on it is there for good.
                        (0..200).all(|_| is_whole(&folder))
                    })
                })
                .collect();
            makers.into_iter().all(|maker| maker.join().unwrap())
        });
        assert!(whole);
        let read = |name: &str| fs_err::read(parent.join("k").join(name)).unwrap();
        assert_eq!(
            (read(VMLINUZ), read(MODULES)),
            (b"kernel".to_vec(), b"modules".to_vec())
        );
        let mut names: Vec<_> = fs_err::read_dir(&parent)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [LOCK, "k"]);
    }
}
