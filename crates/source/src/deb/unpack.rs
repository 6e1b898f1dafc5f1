//! Packages to a layer, as `dpkg --unpack` of all of them would leave the file system, except that
//! configuration files already bear their final names.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amiforge_tree::{Content, Inode, InodeFlags, Kind, LayerDiff, LayerEntry, MAX_NAME, Stat};
use amiforge_types::{BlobTable, Digest, ReadAt, Timestamp};
use md5::{Digest as _, Md5};

use super::tar::Entry;
use super::{Control, DebError, EntryKind, TarReader, ar, database, deferred, members};
use crate::apt::relation;
use crate::{Context, FetchedDebian, ResolvedDebian, ResolvedPackage, SourceError, SourceEvent};

/// Symbolic links followed on the way to one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Bytes of the spool that a thread takes at a time.
const SPOOL_CHUNK: u64 = 4 << 20;

/// One package as read.
pub(crate) struct Parsed {
    pub(crate) control: Control,
    pub(crate) entries: Vec<Member>,
    /// Digests (MD5, as dpkg keeps them) by position in `entries`: of configuration files, and of
    /// all files when the package brings no list of its own.
    pub(crate) md5: BTreeMap<usize, String>,
    /// Left to dpkg: the only entry is the package itself.
    pub(crate) deferred: bool,
}

/// One entry, and where its content is in the spool.
pub(crate) struct Member {
    pub(crate) entry: Entry,
    pub(crate) offset: u64,
}

/// A node of the tree under construction.
#[derive(Debug)]
struct Node {
    /// Package that owns it, by position; `None` for what no package ships.
    owner: Option<usize>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A directory that no package has described yet.
    ImplicitDir,
    Inode(Inode),
    File {
        stat: Stat,
        size: u64,
        offset: u64,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    },
    Bytes(Stat, Vec<u8>),
    /// Another name of the file at this path.
    Link(Vec<u8>),
}

impl What {
    fn is_dir(&self) -> bool {
        matches!(
            self,
            Self::ImplicitDir
                | Self::Inode(Inode {
                    kind: Kind::Dir,
                    ..
                })
        )
    }
}

/// The spool as a byte source.
pub(crate) struct Spool {
    pub(crate) file: File,
    pub(crate) size: u64,
}

impl ReadAt for Spool {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// The time of what no package ships: the newest of any package, so that it follows from the
/// packages alone and not from when the archive was last signed.
fn newest(parsed: &[Parsed]) -> Timestamp {
    let times = parsed
        .iter()
        .flat_map(|p| &p.entries)
        .map(|m| m.entry.mtime);
    Timestamp::from_secs(times.max().unwrap_or(0).max(0))
}

/// Unpacks the packages of a lock into a layer. File data goes into `spool`, an empty file open for
/// reading and writing that becomes one blob of `blobs`; the layer points into it.
///
/// Every package is checked against the lock's digest while it is read; a damaged one is removed
/// from the cache, so that the next [`fetch`](crate::fetch()) brings it anew. The result depends on
/// the lock alone; `ctx` gives the number of threads and the events.
pub fn unpack(
    resolved: &ResolvedDebian,
    fetched: &FetchedDebian,
    spool: File,
    blobs: &mut BlobTable,
    ctx: &Context<'_>,
) -> Result<LayerDiff, SourceError> {
    let end = AtomicU64::new(0);
    let parsed = parse_all(resolved, fetched, &spool, &end, ctx)?;
    let mut builder = Builder {
        nodes: BTreeMap::new(),
        clock: newest(&parsed),
        lost: HashMap::new(),
    };
    builder.base(resolved);
    for (i, package) in parsed.iter().enumerate() {
        let wrap = |source| SourceError::Deb {
            package: resolved.packages[i].name.clone(),
            source,
        };
        for (at, member) in package.entries.iter().enumerate() {
            builder
                .add(i, at, member, &parsed, resolved)
                .map_err(wrap)?;
        }
    }
    let lost = std::mem::take(&mut builder.lost);
    for (path, mode, bytes) in database::files(resolved, &parsed, &lost) {
        builder
            .write(&path, mode, bytes)
            .map_err(|source| SourceError::Deb {
                package: "dpkg database".to_owned(),
                source,
            })?;
    }
    for file in &resolved.sources {
        builder
            .write(
                file.path.trim_start_matches('/'),
                0o644,
                file.text.clone().into_bytes(),
            )
            .map_err(|source| SourceError::Deb {
                package: "apt sources".to_owned(),
                source,
            })?;
    }
    let size = end.into_inner();
    let id = blobs.add(Arc::new(Spool { file: spool, size }));
    Ok(builder.finish(id))
}

fn parse_all(
    resolved: &ResolvedDebian,
    fetched: &FetchedDebian,
    spool: &File,
    end: &AtomicU64,
    ctx: &Context<'_>,
) -> Result<Vec<Parsed>, SourceError> {
    if fetched.debs.len() != resolved.packages.len() {
        return Err(SourceError::malformed(
            "packages",
            "the fetched files are of another lock",
        ));
    }
    let total = resolved.packages.len();
    // The largest first, so that none is left for one thread at the end.
    let mut order: Vec<usize> = (0..total).collect();
    order.sort_by_key(|i| std::cmp::Reverse(resolved.packages[*i].size));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let slots: Vec<Mutex<Option<Parsed>>> = (0..total).map(|_| Mutex::new(None)).collect();
    let failure: Mutex<Option<(usize, SourceError)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..ctx.jobs.clamp(1, 16) {
            scope.spawn(|| {
                let mut writer = SpoolWriter {
                    file: spool,
                    end,
                    at: 0,
                    left: 0,
                    buffer: Vec::new(),
                };
                while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let package = &resolved.packages[i];
                    match parse_one(package, &fetched.debs[i], &mut writer) {
                        Ok(parsed) => {
                            *slots[i]
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(parsed)
                        }
                        Err(error) => {
                            next.store(total, Ordering::Relaxed);
                            let mut slot = failure
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner);
                            // Of several, always the same one is reported.
                            if slot.as_ref().is_none_or(|(j, _)| i < *j) {
                                *slot = Some((i, error));
                            }
                            return;
                        }
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    (ctx.events)(SourceEvent::Unpacked { done, total });
                }
                if let Err(source) = writer.flush() {
                    let mut slot = failure
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    slot.get_or_insert((usize::MAX, SourceError::io("spool", source)));
                }
            });
        }
    });
    if let Some((_, error)) = failure
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        return Err(error);
    }
    slots
        .into_iter()
        .map(|slot| {
            slot.into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .ok_or_else(|| SourceError::malformed("packages", "a package was not read"))
        })
        .collect()
}

fn parse_one(
    package: &ResolvedPackage,
    path: &Path,
    writer: &mut SpoolWriter<'_>,
) -> Result<Parsed, SourceError> {
    let bytes = fs_err::read(path).map_err(|e| SourceError::io(path, e))?;
    let got = Digest::of(&bytes);
    if got != package.sha256 {
        let _ = std::fs::remove_file(path);
        return Err(SourceError::Digest {
            uri: path.display().to_string(),
            expected: package.sha256,
            got,
        });
    }
    parse_bytes(package, &bytes, writer).map_err(|source| SourceError::Deb {
        package: package.name.clone(),
        source,
    })
}

pub(crate) fn parse_bytes(
    package: &ResolvedPackage,
    bytes: &[u8],
    writer: &mut SpoolWriter<'_>,
) -> Result<Parsed, DebError> {
    let (control, data) = members(bytes)?;
    let control = Control::read(control, package)?;
    let conffiles = control.conffiles();
    let spool = |source| DebError::Io {
        part: "spool",
        source,
    };
    if deferred::is_deferred(&control, package) {
        let offset = writer.begin(bytes.len() as u64).map_err(spool)?;
        for chunk in bytes.chunks(SpoolWriter::BUFFER) {
            writer.write(chunk).map_err(spool)?;
        }
        let data = TarReader::new(ar::decompress(data)?, "data");
        return Ok(Parsed {
            control,
            entries: vec![deferred::entry(package, bytes.len(), offset, data)?],
            md5: BTreeMap::new(),
            deferred: true,
        });
    }
    let all = !control.files.contains_key("md5sums");
    let mut tar = TarReader::new(ar::decompress(data)?, "data");
    let mut entries = Vec::new();
    let mut sums = BTreeMap::new();
    while let Some(entry) = tar.next()? {
        let mut offset = 0;
        if entry.kind == EntryKind::File {
            let wanted = all || conffiles.iter().any(|c| c.as_bytes() == entry.path);
            let mut md5 = wanted.then(Md5::new);
            offset = writer.begin(entry.size).map_err(spool)?;
            tar.content(|chunk| {
                if let Some(md5) = &mut md5 {
                    md5.update(chunk);
                }
                writer.write(chunk)
            })?;
            if let Some(md5) = md5 {
                let hex = md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
                sums.insert(entries.len(), hex);
            }
        }
        entries.push(Member { entry, offset });
    }
    Ok(Parsed {
        control,
        entries,
        md5: sums,
        deferred: false,
    })
}

/// Appends to the spool from one of several threads: takes a chunk of it at a time.
pub(crate) struct SpoolWriter<'a> {
    pub(crate) file: &'a File,
    pub(crate) end: &'a AtomicU64,
    /// Offset of the buffer's first byte.
    pub(crate) at: u64,
    /// Bytes of the chunk after the buffer.
    pub(crate) left: u64,
    pub(crate) buffer: Vec<u8>,
}

impl SpoolWriter<'_> {
    const BUFFER: usize = 1 << 20;

    /// Makes room for a file, and gives its offset.
    fn begin(&mut self, size: u64) -> io::Result<u64> {
        if size > self.left {
            self.flush()?;
            let take = size.max(SPOOL_CHUNK);
            self.at = self.end.fetch_add(take, Ordering::Relaxed);
            self.left = take;
        }
        Ok(self.at + self.buffer.len() as u64)
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(chunk);
        self.left = self.left.saturating_sub(chunk.len() as u64);
        if self.buffer.len() >= Self::BUFFER {
            self.flush()
        } else {
            Ok(())
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

struct Builder {
    nodes: BTreeMap<Vec<u8>, Node>,
    clock: Timestamp,
    /// Paths that a package ships and another replaces: by package, the paths as in its archive.
    lost: HashMap<usize, Vec<Vec<u8>>>,
}

impl Builder {
    fn stat(&self, mode: u16) -> Stat {
        Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: self.clock,
        }
    }

    /// What has to be there before the first package: the root, and the links that make one of `/bin`
    /// and `/usr/bin` (every suite since Debian 12 demands them; only newer ones ship them).
    fn base(&mut self, resolved: &ResolvedDebian) {
        let links: &[&str] = match resolved.arch {
            amiforge_types::Arch::X86_64 => &["bin", "sbin", "lib", "lib64"],
            amiforge_types::Arch::Arm64 => &["bin", "sbin", "lib"],
        };
        for link in links {
            let target = format!("usr/{link}").into_bytes();
            let inode = Inode::new(self.stat(0o777), Kind::Symlink(target.clone()));
            self.nodes.insert(
                link.as_bytes().to_vec(),
                Node {
                    owner: None,
                    what: What::Inode(inode),
                },
            );
            self.nodes.insert(
                target,
                Node {
                    owner: None,
                    what: What::ImplicitDir,
                },
            );
        }
        self.nodes.insert(
            b"usr".to_vec(),
            Node {
                owner: None,
                what: What::ImplicitDir,
            },
        );
    }

    /// A path with the symbolic links on the way to it followed; directories that are missing are made.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, DebError> {
        let bad = |reason| DebError::BadPath {
            path: String::from_utf8_lossy(path).into_owned(),
            reason,
        };
        if path.len() > 4096 {
            return Err(bad("longer than 4096 bytes"));
        }
        let mut todo: Vec<Vec<u8>> = path
            .split(|b| *b == b'/')
            .rev()
            .map(<[u8]>::to_vec)
            .collect();
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name.is_empty() || name == b"." {
                continue;
            }
            if name == b".." {
                // In a link's target this is lawful; in the archive's own path it was refused.
                let end = at.iter().rposition(|b| *b == b'/').unwrap_or(0);
                at.truncate(end);
                continue;
            }
            if name.len() > MAX_NAME || name.contains(&0) {
                return Err(bad("not a file name"));
            }
            let mut next = at.clone();
            if !next.is_empty() {
                next.push(b'/');
            }
            next.extend_from_slice(&name);
            if todo.is_empty() {
                return Ok(next);
            }
            match self.nodes.get(&next).map(|n| &n.what) {
                None => {
                    self.nodes.insert(
                        next.clone(),
                        Node {
                            owner: None,
                            what: What::ImplicitDir,
                        },
                    );
                    at = next;
                }
                Some(what) if what.is_dir() => at = next,
                Some(What::Inode(Inode {
                    kind: Kind::Symlink(target),
                    ..
                })) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad("too many symbolic links on the way"));
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(_) => return Err(bad("below something that is no directory")),
            }
        }
        Ok(at)
    }

    /// True when the path is, or leads by links to, a directory.
    fn leads_to_dir(&mut self, path: &[u8]) -> bool {
        let mut probe = path.to_vec();
        probe.extend_from_slice(b"/x");
        match self.place(&probe) {
            Ok(inside) => {
                let dir = &inside[..inside.iter().rposition(|b| *b == b'/').unwrap_or(0)];
                dir.is_empty() || self.nodes.get(dir).is_some_and(|n| n.what.is_dir())
            }
            Err(_) => false,
        }
    }

    fn add(
        &mut self,
        package: usize,
        at: usize,
        member: &Member,
        all: &[Parsed],
        resolved: &ResolvedDebian,
    ) -> Result<(), DebError> {
        let entry = &member.entry;
        let shown = || String::from_utf8_lossy(&entry.path).into_owned();
        if entry.path.split(|b| *b == b'/').any(|p| p == b"..") {
            return Err(DebError::BadPath {
                path: shown(),
                reason: "has `..` in it",
            });
        }
        let stat = Stat {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: Timestamp::from_secs(entry.mtime),
        };
        if entry.path.is_empty() {
            // The root itself: the first package decides, as for every directory.
            if entry.kind == EntryKind::Dir && !self.nodes.contains_key(b"".as_slice()) {
                self.nodes.insert(
                    Vec::new(),
                    Node {
                        owner: Some(package),
                        what: What::Inode(Inode::new(stat, Kind::Dir)),
                    },
                );
            }
            return Ok(());
        }
        let path = self.place(&entry.path)?;
        let what = match &entry.kind {
            EntryKind::Dir => What::Inode(Inode {
                stat,
                kind: Kind::Dir,
                xattrs: entry.xattrs.clone(),
                flags: InodeFlags::NONE,
            }),
            EntryKind::File => What::File {
                stat,
                size: entry.size,
                offset: member.offset,
                xattrs: entry.xattrs.clone(),
            },
            EntryKind::Symlink(target) => What::Inode(Inode::new(
                Stat {
                    mode: 0o777,
                    ..stat
                },
                Kind::Symlink(target.clone()),
            )),
            EntryKind::Hardlink(target) => {
                if target.split(|b| *b == b'/').any(|p| p == b"..") {
                    return Err(DebError::BadPath {
                        path: shown(),
                        reason: "is a link to a path with `..` in it",
                    });
                }
                let target = self.place(target)?;
                let known = self
                    .nodes
                    .get(&target)
                    .is_some_and(|n| n.owner == Some(package) && !n.what.is_dir());
                if !known || target == path {
                    return Err(DebError::BadPath {
                        path: shown(),
                        reason: "is a hard link to no earlier file of the package",
                    });
                }
                What::Link(target)
            }
            EntryKind::CharDev(major, minor) => What::Inode(Inode::new(
                stat,
                Kind::CharDev {
                    major: *major,
                    minor: *minor,
                },
            )),
            EntryKind::BlockDev(major, minor) => What::Inode(Inode::new(
                stat,
                Kind::BlockDev {
                    major: *major,
                    minor: *minor,
                },
            )),
            EntryKind::Fifo => What::Inode(Inode::new(stat, Kind::Fifo)),
        };
        let (have_dir, have_link, owner) = match self.nodes.get(&path) {
            None => {
                self.nodes.insert(
                    path,
                    Node {
                        owner: Some(package),
                        what,
                    },
                );
                return Ok(());
            }
            Some(node) => (
                node.what.is_dir(),
                matches!(
                    &node.what,
                    What::Inode(Inode {
                        kind: Kind::Symlink(_),
                        ..
                    })
                ),
                node.owner,
            ),
        };
        match (have_dir, what.is_dir()) {
            (true, true) => {
                // The first package's directory stays, unless nobody had described it.
                if owner.is_none() {
                    self.nodes.insert(
                        path,
                        Node {
                            owner: Some(package),
                            what,
                        },
                    );
                }
                return Ok(());
            }
            // As dpkg: a link to a directory serves as the directory, and a directory is not replaced by a link.
            (false, true) if have_link && self.leads_to_dir(&path) => return Ok(()),
            (true, false) if matches!(entry.kind, EntryKind::Symlink(_)) => return Ok(()),
            (true, false) | (false, true) => {
                return Err(DebError::BadPath {
                    path: shown(),
                    reason: "is a directory in one package and something else in another",
                });
            }
            (false, false) => {}
        }
        let Some(other) = owner.filter(|o| *o != package) else {
            self.nodes.insert(
                path,
                Node {
                    owner: Some(package),
                    what,
                },
            );
            return Ok(());
        };
        let _ = at;
        let replaces = |a: usize, b: usize| -> bool {
            let field = all[a].control.field("Replaces").unwrap_or_default();
            relation::parse(field, resolved.arch.debian())
                .into_iter()
                .flatten()
                .any(|atom| {
                    atom.name == resolved.packages[b].name
                        && atom.matches(&resolved.packages[b].version)
                })
        };
        if replaces(package, other) {
            self.lost.entry(other).or_default().push(entry.path.clone());
            self.nodes.insert(
                path,
                Node {
                    owner: Some(package),
                    what,
                },
            );
            return Ok(());
        }
        if replaces(other, package) {
            self.lost
                .entry(package)
                .or_default()
                .push(entry.path.clone());
            return Ok(());
        }
        Err(DebError::FileConflict {
            path: shown(),
            other: resolved.packages[other].name.clone(),
        })
    }

    /// A generated file.
    fn write(&mut self, path: &str, mode: u16, bytes: Vec<u8>) -> Result<(), DebError> {
        let path = self.place(path.as_bytes())?;
        let stat = self.stat(mode);
        self.nodes.insert(
            path,
            Node {
                owner: None,
                what: What::Bytes(stat, bytes),
            },
        );
        Ok(())
    }

    /// The layer, with data in blob `id`.
    fn finish(mut self, id: amiforge_types::BlobId) -> LayerDiff {
        // Names of one file: the first in path order carries it, the others point there.
        let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, node) in &self.nodes {
            let mut target = path;
            let mut hops = 0;
            let mut node = node;
            while let What::Link(next) = &node.what {
                let Some(found) = self.nodes.get(next).filter(|_| hops < MAX_LINKS) else {
                    break;
                };
                (target, node) = (next, found);
                hops += 1;
            }
            if target != path {
                groups.entry(target.clone()).or_default().push(path.clone());
            }
        }
        for (target, mut names) in groups {
            names.push(target.clone());
            names.sort();
            let first = names[0].clone();
            if first != target
                && let Some(node) = self.nodes.remove(&target)
            {
                self.nodes.insert(first.clone(), node);
            }
            for name in names.into_iter().skip(1) {
                self.nodes.insert(
                    name,
                    Node {
                        owner: None,
                        what: What::Link(first.clone()),
                    },
                );
            }
        }
        let implicit = self.stat(0o755);
        let root = Node {
            owner: None,
            what: What::ImplicitDir,
        };
        self.nodes.entry(Vec::new()).or_insert(root);
        let entries = self
            .nodes
            .into_iter()
            .map(|(path, node)| {
                let entry = match node.what {
                    What::ImplicitDir => LayerEntry::Put(Inode::new(implicit, Kind::Dir)),
                    What::Inode(inode) => LayerEntry::Put(inode),
                    What::File {
                        stat,
                        size,
                        offset,
                        xattrs,
                    } => LayerEntry::Put(Inode {
                        stat,
                        kind: Kind::File(Content::blob(id, offset, size)),
                        xattrs,
                        flags: InodeFlags::NONE,
                    }),
                    What::Bytes(stat, bytes) => {
                        LayerEntry::Put(Inode::new(stat, Kind::File(Content::bytes(bytes))))
                    }
                    What::Link(target) => LayerEntry::Link(target),
                };
                (path, entry)
            })
            .collect();
        LayerDiff { entries }
    }
}
