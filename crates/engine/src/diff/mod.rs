//! `diff`: what changed between two images.
//!
//! Both disks are opened and their file systems read at the same time; of a container the layers are applied over one
//! another. The comparison itself is
//! [`amiforge_tree::compare`]. File data is compared byte by byte only where name and size agree and
//! the runs are not the same; digests are computed only of what differs. Everything of an image that
//! becomes text is escaped ([`crate::shown`]).

mod container;
mod content;
mod layers;
mod owner;
mod report;
mod side;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use amiforge_disk::PartitionInfo;
use amiforge_store::Store;
use amiforge_tree::compare::{self, Aspect, Change, Fate};
use amiforge_tree::{Ino, Kind};
use amiforge_types::{BlobId, BlobTable, Digest};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::look::threads;
use crate::parent::InstalledPackage;
use crate::settings::Engine;
use crate::shown::{hex, path, shown};
use owner::{Hidden, Owners};
use report::{
    BootChange, Bytes, ConfigChange, Counts, FileChange, FileInfo, FileSystemChange, Happened,
    ImageInfo, PackageChange, PartitionChange, SCHEMA_VERSION, Summary,
};
use side::{Opened, Side};

pub use report::DiffReport;
use report::Field;

/// What to compare.
#[derive(Clone, Debug)]
pub struct DiffRequest {
    /// The old image: an output folder, of a container too, or a disk image.
    pub a: PathBuf,
    /// The new image.
    pub b: PathBuf,
    /// Whether modification times count.
    pub times: bool,
}

impl Engine {
    /// Compares two images.
    pub fn diff(&self, request: &DiffRequest) -> Result<DiffReport, EngineError> {
        let opened = [Opened::open(&request.a)?, Opened::open(&request.b)?];
        let mut blobs = BlobTable::new();
        self.stage(
            "read",
            format!("{}, {}", request.a.display(), request.b.display()),
        );
        let [first, second] = opened.map(|image| self.opened(image, &mut blobs));
        let [(first, x), (second, y)] = [first?, second?];
        // All data of both, twice over: files may share blocks, but not without end.
        let bytes = first.bytes().saturating_add(second.bytes());
        let budget = bytes.saturating_mul(2);
        let read = |image: Opened, blob: Option<BlobId>| match (image, blob) {
            (Opened::Disk(disk), Some(blob)) => Side::read(disk, blob, &blobs),
            (Opened::Container(container), _) => Side::of(*container, &blobs),
            _ => Err(EngineError::new(
                ErrorKind::Internal,
                "an image was not opened",
            )),
        };
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| read(second, y));
            let a = read(first, x);
            let b = other.join().unwrap_or_else(|_| {
                Err(EngineError::new(ErrorKind::Internal, "a thread panicked"))
            });
            (a, b)
        });
        let (a, b) = (a?, b?);
        for side in [&a, &b] {
            if let Some(message) = &side.root.missing {
                self.warn(message.clone());
            }
        }
        self.stage("compare", format!("{} files", b.root.tree.slots()));
        let changes = file_changes(&a, &b, &blobs, budget, request.times)?;
        let digests = file_digests(&a, &b, &changes, &blobs, budget)?;
        let store = self.existing_store();
        let files = describe_files(&a, &b, &changes, &digests, &blobs, store.as_ref());
        let boot = boot_changes(&a, &b, &changes, &digests);
        let packages = package_changes(&a.packages, &b.packages);
        let disk = fields([
            ("size", size_of_disk(&a), size_of_disk(&b)),
            ("guid", disk_guid(&a), disk_guid(&b)),
        ]);
        let partitions = partition_changes(a.partitions(), b.partitions());
        let file_systems = file_system_changes(&a, &b);
        let config = config_changes(&a.settings, &b.settings);
        let layers = layers::layer_changes(&a, &b, &files);
        let summary = Summary {
            disk: disk.len(),
            partitions: partitions.len(),
            file_systems: file_systems.len(),
            boot: boot.len(),
            config: config.len(),
            packages: count(packages.iter().map(|p| p.change)),
            files: count(files.iter().map(|f| f.change)),
        };
        Ok(DiffReport {
            schema_version: SCHEMA_VERSION,
            differs: summary != Summary::default(),
            a: image_info(&a),
            b: image_info(&b),
            summary,
            layers,
            disk,
            partitions,
            file_systems,
            boot,
            config,
            packages,
            files,
        })
    }

    /// Adds what an image has to `blobs`: a disk as it is, of a container the files.
    fn opened(
        &self,
        image: Opened,
        blobs: &mut BlobTable,
    ) -> Result<(Opened, Option<BlobId>), EngineError> {
        Ok(match image {
            Opened::Disk(disk) => {
                let blob = blobs.add(disk.source.clone());
                (Opened::Disk(disk), Some(blob))
            }
            Opened::Folder(folder) => {
                let container = Box::new(self.read_container(*folder, blobs)?);
                (Opened::Container(container), None)
            }
            container @ Opened::Container(_) => (container, None),
        })
    }

    /// The store, when there is one: looking at images makes none.
    fn existing_store(&self) -> Option<Store> {
        let home = &self.settings.home;
        home.store.is_dir().then(|| Store::open(home).ok())?
    }
}

fn image_info(side: &Side) -> ImageInfo {
    ImageInfo {
        path: side.asked.clone(),
        file: side.file.clone(),
        format: side.format,
        virtual_bytes: side.info.as_ref().map(|info| info.virtual_bytes),
        root_slot: side.root.slot,
        packages_from: side.packages_from,
    }
}

fn count(all: impl Iterator<Item = Happened>) -> Counts {
    let mut counts = Counts::default();
    for happened in all {
        match happened {
            Happened::Added => counts.added += 1,
            Happened::Removed => counts.removed += 1,
            Happened::Changed | Happened::Upgraded | Happened::Downgraded => counts.changed += 1,
        }
    }
    counts
}

/// Those of (name, old, new) that differ.
fn fields<const N: usize>(all: [(&'static str, Option<String>, Option<String>); N]) -> Vec<Field> {
    all.into_iter()
        .filter(|(_, a, b)| a != b)
        .map(|(field, a, b)| Field { field, a, b })
        .collect()
}

fn size_of_disk(side: &Side) -> Option<String> {
    let info = side.info.as_ref()?;
    Some(info.virtual_bytes.to_string())
}

fn disk_guid(side: &Side) -> Option<String> {
    let guid = side.info.as_ref()?.disk_guid?;
    Some(guid.to_string())
}

fn partition_changes(old: &[PartitionInfo], new: &[PartitionInfo]) -> Vec<PartitionChange> {
    let by_slot = |parts: &[PartitionInfo]| -> BTreeMap<u32, PartitionInfo> {
        parts.iter().map(|p| (p.slot, p.clone())).collect()
    };
    let (old, new) = (by_slot(old), by_slot(new));
    let slots: BTreeSet<u32> = old.keys().chain(new.keys()).copied().collect();
    let mut changes = Vec::new();
    for slot in slots {
        let (a, b) = (old.get(&slot), new.get(&slot));
        let value = |f: fn(&PartitionInfo) -> String| (a.map(f), b.map(f));
        let row = |field, (a, b)| (field, a, b);
        let fields = fields([
            row("type", value(|p| p.type_guid.to_string())),
            row("guid", value(|p| p.guid.to_string())),
            row("name", value(|p| shown(p.name.as_bytes()))),
            row("firstLba", value(|p| p.first_lba.to_string())),
            row("bytes", value(|p| p.len_bytes().to_string())),
            row(
                "fileSystem",
                value(|p| {
                    let kind = p.file_system.as_ref().map(|fs| fs.kind.name());
                    kind.unwrap_or("none").to_owned()
                }),
            ),
        ]);
        if !fields.is_empty() {
            changes.push(PartitionChange {
                slot,
                change: happened(a.is_some(), b.is_some()),
                fields,
            });
        }
    }
    changes
}

fn happened(a: bool, b: bool) -> Happened {
    match (a, b) {
        (false, true) => Happened::Added,
        (true, false) => Happened::Removed,
        _ => Happened::Changed,
    }
}

/// Parameters of ext4 file systems, and id and label of all others, by slot.
fn file_system_changes(a: &Side, b: &Side) -> Vec<FileSystemChange> {
    let parameters = |side: &Side| {
        let mut all = side.root.parameters.clone();
        let info = side.info.iter();
        let whole = info.flat_map(|info| &info.file_system).map(|fs| (None, fs));
        let parts = side.partitions().iter();
        let parts = parts.filter_map(|p| Some((Some(p.slot), p.file_system.as_ref()?)));
        for (slot, fs) in whole.chain(parts) {
            all.entry(slot).or_insert_with(|| {
                let text = |text: &Option<String>| shown(text.as_deref().unwrap_or("").as_bytes());
                vec![("label", text(&fs.label)), ("uuid", text(&fs.uuid))]
            });
        }
        all
    };
    let (old, new) = (parameters(a), parameters(b));
    let mut changes = Vec::new();
    // A file system that came or went did so with its partition, which says so.
    for (slot, was) in &old {
        let Some(is) = new.get(slot) else { continue };
        let value = |list: &[(&'static str, String)], name| {
            let found = list.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| value.clone())
        };
        let mut names: Vec<&'static str> = was.iter().map(|(name, _)| *name).collect();
        for (name, _) in is {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        let fields: Vec<Field> = names
            .into_iter()
            .flat_map(|name| fields([(name, value(was, name), value(is, name))]))
            .collect();
        if !fields.is_empty() {
            changes.push(FileSystemChange {
                slot: *slot,
                fields,
            });
        }
    }
    changes
}

/// Settings of containers that differ.
fn config_changes(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<ConfigChange> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let names = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    names
        .map(|name| ConfigChange {
            field: name.clone(),
            a: old.get(name).cloned(),
            b: new.get(name).cloned(),
        })
        .collect()
}

fn package_changes(old: &[InstalledPackage], new: &[InstalledPackage]) -> Vec<PackageChange> {
    let by_name = |list: &[InstalledPackage]| -> BTreeMap<(String, String), String> {
        let row =
            |p: &InstalledPackage| ((p.name.clone(), p.architecture.clone()), p.version.clone());
        list.iter().map(row).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        let (a, b) = (old.get(key), new.get(key));
        if a == b {
            continue;
        }
        let change = match (a, b) {
            (Some(a), Some(b)) => match amiforge_source::compare_versions(a, b) {
                std::cmp::Ordering::Less => Happened::Upgraded,
                std::cmp::Ordering::Greater => Happened::Downgraded,
                // Two ways to write one version.
                std::cmp::Ordering::Equal => Happened::Changed,
            },
            (a, b) => happened(a.is_some(), b.is_some()),
        };
        let text = |version: Option<&String>| version.map(|v| shown(v.as_bytes()));
        changes.push(PackageChange {
            name: shown(key.0.as_bytes()),
            architecture: shown(key.1.as_bytes()),
            change,
            a: text(a),
            b: text(b),
        });
    }
    changes
}

fn file_changes(
    a: &Side,
    b: &Side,
    blobs: &BlobTable,
    budget: u64,
    times: bool,
) -> Result<Vec<Change>, EngineError> {
    let (old, new) = (&a.root.tree, &b.root.tree);
    let pairs = compare::content_pairs(old, new);
    let contents: Vec<_> = pairs
        .iter()
        .filter_map(|(x, y)| Some((a.root.content(*x)?, b.root.content(*y)?)))
        .collect();
    let contents: Vec<_> = contents.iter().map(|(x, y)| (x, y)).collect();
    let verdicts =
        content::differ(&contents, blobs, budget, threads()).or_fail(ErrorKind::Failed, || {
            format!(
                "cannot compare the files of {} and {}",
                a.file.display(),
                b.file.display()
            )
        })?;
    let different: BTreeSet<(Ino, Ino)> = pairs
        .into_iter()
        .zip(verdicts)
        .filter_map(|(pair, differs)| differs.then_some(pair))
        .collect();
    Ok(compare::compare(
        &a.root.tree,
        &b.root.tree,
        &different,
        times,
    ))
}

/// Digests by inode of the old and the new tree.
type Digests = [BTreeMap<Ino, Option<Digest>>; 2];

/// Of the files whose bytes came, went or changed.
fn file_digests(
    a: &Side,
    b: &Side,
    changes: &[Change],
    blobs: &BlobTable,
    budget: u64,
) -> Result<Digests, EngineError> {
    let mut wanted = [BTreeSet::new(), BTreeSet::new()];
    for change in changes {
        match &change.fate {
            Fate::Removed(ino) => {
                wanted[0].insert(*ino);
            }
            Fate::Added(ino) => {
                wanted[1].insert(*ino);
            }
            Fate::Changed(x, y, aspects)
                if aspects.contains(&Aspect::Content) || aspects.contains(&Aspect::Type) =>
            {
                wanted[0].insert(*x);
                wanted[1].insert(*y);
            }
            Fate::Changed(..) => {}
        }
    }
    let mut out: Digests = Default::default();
    for ((side, inos), digests) in [a, b].into_iter().zip(wanted).zip(&mut out) {
        let files: Vec<_> = inos
            .into_iter()
            .filter_map(|ino| Some((ino, side.root.content(ino)?)))
            .collect();
        let contents: Vec<_> = files.iter().map(|(_, content)| content).collect();
        let found = content::digests(&contents, blobs, budget, threads())
            .or_fail(ErrorKind::Failed, || {
                format!("cannot read the files of {}", side.file.display())
            })?;
        *digests = files.iter().map(|(ino, _)| *ino).zip(found).collect();
    }
    Ok(out)
}

fn aspect_name(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Type => "type",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Device => "device",
        Aspect::Xattrs => "xattrs",
        Aspect::Flags => "flags",
        Aspect::Links => "links",
        Aspect::Time => "mtime",
    }
}

/// The inodes that a change is about.
fn inodes(fate: &Fate) -> [Option<Ino>; 2] {
    match fate {
        Fate::Added(b) => [None, Some(*b)],
        Fate::Removed(a) => [Some(*a), None],
        Fate::Changed(a, b, _) => [Some(*a), Some(*b)],
    }
}

fn describe_files(
    a: &Side,
    b: &Side,
    changes: &[Change],
    digests: &Digests,
    blobs: &BlobTable,
    store: Option<&Store>,
) -> Vec<FileChange> {
    // What is gone belongs to whom it did.
    let is_gone = |change: &&Change| matches!(change.fate, Fate::Removed(_));
    let gone = changes.iter().filter(is_gone).map(|c| c.path.as_slice());
    let there = changes
        .iter()
        .filter(|c| !is_gone(c))
        .map(|c| c.path.as_slice());
    let gone: BTreeSet<&[u8]> = gone.collect();
    let there: BTreeSet<&[u8]> = there.collect();
    let hidden = Hidden::of(b, &gone, store);
    let gone = Owners::of(a, &gone, blobs, store);
    let there = Owners::of(b, &there, blobs, store);
    // What a layer brings that both images have differs for something that the old one had above it.
    let shared = |path: &[u8]| there.layer(path).is_some_and(|(id, _)| b.shares(a, id));
    let earlier = changes.iter().filter(|c| !is_gone(c));
    let earlier = earlier
        .map(|c| c.path.as_slice())
        .filter(|path| shared(path));
    let earlier: BTreeSet<&[u8]> = earlier.collect();
    let unhidden = Hidden::of(a, &earlier, store);
    let before = Owners::of(a, &earlier, blobs, store);
    let names = [a, b].map(|side| Describer {
        side,
        linked: compare::linked_names(&side.root.tree),
    });
    changes
        .iter()
        .map(|change| {
            let [x, y] = inodes(&change.fate);
            let owners = if y.is_none() { &gone } else { &there };
            let own = || {
                let (id, component) = owners.layer(&change.path)?;
                let step = owners.step(&change.path);
                Some((id.clone(), component.clone(), step))
            };
            let hider = |hidden: &Hidden, side: &Side, other: &Side| {
                let by = hidden.by(&change.path)?;
                let told = || (by.layer.clone(), by.component.clone(), by.step.clone());
                (!side.shares(other, &by.layer)).then(told)
            };
            let earlier = || {
                let (id, component) = before.layer(&change.path)?;
                let told = || (id.clone(), component.clone(), before.step(&change.path));
                (!a.shares(b, id)).then(told)
            };
            let origin = match (x, y) {
                (Some(_), None) => hider(&hidden, b, a),
                (None, Some(_)) => hider(&unhidden, a, b),
                _ => earlier(),
            };
            let (layer, component, step) = match origin.or_else(own) {
                Some((layer, component, step)) => (Some(layer), component, step),
                None => (None, None, None),
            };
            FileChange {
                path: path(&change.path),
                change: happened(x.is_some(), y.is_some()),
                aspects: match &change.fate {
                    Fate::Changed(_, _, aspects) => {
                        aspects.iter().copied().map(aspect_name).collect()
                    }
                    _ => Vec::new(),
                },
                a: x.map(|ino| names[0].describe(ino, &digests[0])),
                b: y.map(|ino| names[1].describe(ino, &digests[1])),
                package: owners.package(&change.path),
                conffile: owners.is_conffile(&change.path),
                layer,
                component,
                step,
            }
        })
        .collect()
}

struct Describer<'a> {
    side: &'a Side,
    linked: BTreeMap<Ino, Vec<Vec<u8>>>,
}

impl Describer<'_> {
    fn describe(&self, ino: Ino, digests: &BTreeMap<Ino, Option<Digest>>) -> FileInfo {
        let root = &self.side.root;
        let inode = root.tree.inode(ino);
        let names = self.linked.get(&ino);
        let (mut size, mut target, mut device) = (None, None, None);
        let kind = match &inode.kind {
            Kind::Dir => "directory",
            Kind::File(content) => {
                size = Some(content.size);
                "file"
            }
            Kind::Symlink(to) => {
                target = Some(shown(to));
                "symlink"
            }
            Kind::CharDev { major, minor } => {
                device = Some(format!("{major}:{minor}"));
                "char"
            }
            Kind::BlockDev { major, minor } => {
                device = Some(format!("{major}:{minor}"));
                "block"
            }
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        };
        let xattrs = inode.xattrs.iter();
        FileInfo {
            kind,
            mode: format!("{:04o}", inode.stat.mode),
            uid: inode.stat.uid,
            gid: inode.stat.gid,
            mtime: inode.stat.mtime.to_string(),
            size,
            sha256: digests.get(&ino).copied().flatten(),
            target,
            device,
            links: names.map(Vec::len),
            linked_to: names.and_then(|names| names.first()).map(|name| path(name)),
            xattrs: xattrs
                .map(|(name, value)| (shown(name), hex(value)))
                .collect(),
            flags: (!inode.flags.is_empty()).then(|| inode.flags.to_string()),
        }
    }
}

/// Whether a path of the root file system is read by a boot.
fn is_boot_file(path: &[u8]) -> bool {
    path.starts_with(b"boot/")
        || [
            &b"vmlinuz"[..],
            b"vmlinuz.old",
            b"initrd.img",
            b"initrd.img.old",
            b"etc/default/grub",
        ]
        .contains(&path)
        || path.starts_with(b"etc/default/grub.d/")
}

fn boot_changes(a: &Side, b: &Side, changes: &[Change], digests: &Digests) -> Vec<BootChange> {
    let mut out = Vec::new();
    let keys: BTreeSet<_> = a.boot.keys().chain(b.boot.keys()).collect();
    for key in keys {
        let (x, y) = (a.boot.get(key), b.boot.get(key));
        if x != y {
            out.push(BootChange {
                place: key.0,
                path: key.1.clone(),
                change: happened(x.is_some(), y.is_some()),
                a: x.cloned(),
                b: y.cloned(),
            });
        }
    }
    for change in changes.iter().filter(|c| is_boot_file(&c.path)) {
        let bytes = |side: &Side, ino: Option<Ino>, digests: &BTreeMap<Ino, Option<Digest>>| {
            let ino = ino?;
            let content = side.root.content(ino)?;
            Some(Bytes {
                size: content.size,
                sha256: digests.get(&ino).copied().flatten(),
            })
        };
        let [x, y] = inodes(&change.fate);
        out.push(BootChange {
            place: "root",
            path: Some(path(&change.path)),
            change: happened(x.is_some(), y.is_some()),
            a: bytes(a, x, &digests[0]),
            b: bytes(b, y, &digests[1]),
        });
    }
    out
}
