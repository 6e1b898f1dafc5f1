//! The member loop: headers and extensions to inodes.

use std::collections::BTreeMap;

use amiforge_types::Timestamp;

use super::header::{self, BLOCK, BLOCK_BYTES, Header};
use super::input::Input;
use super::pax::Pax;
use super::whiteout::{self, Lower};
use super::{ReadOptions, TarError, TarErrorKind, Used, acl, sparse};
use crate::{Content, DataExtent, Ino, Inode, Kind, MAX_NAME, Stat, Tree, TreeError};

/// Symbolic links followed on the way to one parent, as many as Linux follows.
const MAX_HOPS: usize = 40;

pub(super) struct Reader<'a> {
    input: &'a mut dyn Input,
    options: &'a ReadOptions,
    pub(super) tree: Tree,
    /// What lies below, when the archive is one of changes.
    pub(super) lower: Option<Lower>,
    global: Pax,
    /// Members so far.
    members: u64,
    /// Members and directories made for them.
    entries: u64,
    data_bytes: u64,
    metadata_bytes: u64,
    /// The last parent, since members of a directory come together. Dropped when a name changes its
    /// meaning.
    pub(super) parent: Option<(Vec<u8>, Parent)>,
    /// The user databases of the archive, for names in access control lists.
    passwd: Vec<u8>,
    group: Vec<u8>,
    /// Access control lists with names, which can be looked up once the databases are read.
    pending: Vec<PendingAcl>,
}

/// A directory that a member goes to.
#[derive(Clone, Copy)]
pub(super) struct Parent {
    pub(super) ino: Ino,
    /// Bytes of its path in the tree, links followed.
    path_len: u64,
}

struct PendingAcl {
    entry: u64,
    ino: Ino,
    attr: &'static [u8],
    text: Vec<u8>,
    offset: u64,
    member: Vec<u8>,
}

/// Bytes that an attribute takes besides its name and value, about.
const ATTRIBUTE_COST: usize = 64;

/// Largest user database that is kept for names.
const MAX_DATABASE: u64 = 4 << 20;

/// Extensions in front of a member.
#[derive(Default)]
struct Ahead {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: u64,
}

/// The tree that an archive is unpacked into when there is none yet.
pub(super) fn empty(options: &ReadOptions) -> Tree {
    Tree::new(Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: options.build_clock,
    })
}

pub(super) fn read(
    input: &mut dyn Input,
    tree: Tree,
    options: &ReadOptions,
) -> Result<Tree, TarError> {
    read_over(input, tree, None, options).map(|(tree, _)| tree)
}

/// Reads an archive; with `lower` as one of changes to what `tree` holds.
pub(super) fn read_over(
    input: &mut dyn Input,
    tree: Tree,
    lower: Option<Lower>,
    options: &ReadOptions,
) -> Result<(Tree, Used), TarError> {
    let mut reader = Reader {
        input,
        options,
        tree,
        lower,
        global: Pax::default(),
        members: 0,
        entries: 0,
        data_bytes: 0,
        metadata_bytes: 0,
        parent: None,
        passwd: Vec::new(),
        group: Vec::new(),
        pending: Vec::new(),
    };
    let mut ahead = Ahead::default();
    loop {
        let offset = reader.input.position();
        let mut block = [0; BLOCK];
        let mut member = None;
        match reader.step(&mut block, &mut ahead, &mut member) {
            Ok(true) => {}
            Ok(false) => return reader.finish(),
            Err(kind) => {
                // A member that has a name was counted.
                let before = u64::from(member.is_none());
                return Err(TarError {
                    entry: reader.members + before,
                    offset,
                    member,
                    kind,
                });
            }
        }
    }
}

/// Numbers by name: the first and third field of each line, as `passwd(5)` and `group(5)` both have
/// them. The first line of a name counts.
fn numbers(database: &[u8]) -> BTreeMap<&str, u32> {
    let mut numbers = BTreeMap::new();
    for line in database.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) {
            numbers.entry(name).or_insert(number);
        }
    }
    numbers
}

impl Reader<'_> {
    /// Resolves what had to wait for the whole archive.
    fn finish(mut self) -> Result<(Tree, Used), TarError> {
        let (users, groups) = match self.pending.is_empty() {
            true => Default::default(),
            false => (numbers(&self.passwd), numbers(&self.group)),
        };
        for acl in std::mem::take(&mut self.pending) {
            let names = |group: bool, name: &str| {
                let numbers = if group { &groups } else { &users };
                numbers.get(name).copied()
            };
            let at_member = |kind| TarError {
                entry: acl.entry,
                offset: acl.offset,
                member: Some(acl.member.clone()),
                kind,
            };
            let value = acl::from_text(&acl.text, &names).map_err(at_member)?;
            let set = |inode: &mut Inode| inode.xattrs.insert(acl.attr.to_vec(), value);
            self.tree
                .update(acl.ino, set)
                .map_err(|e| at_member(tree_error(e)))?;
        }
        let used = Used {
            entries: self.entries,
            data_bytes: self.data_bytes,
            metadata_bytes: self.metadata_bytes,
        };
        Ok((self.tree, used))
    }

    /// One header with what belongs to it. False at the end of the archive.
    fn step(
        &mut self,
        block: &mut [u8; BLOCK],
        ahead: &mut Ahead,
        member: &mut Option<Vec<u8>>,
    ) -> Result<bool, TarErrorKind> {
        if !self.input.read(block)? {
            // An archive ends with blocks of zeros; without them the rest is missing. Of one of changes it is a
            // digest that says whether it is whole, and some tools (umoci 0.4) leave the end out.
            if self.lower.is_none() || ahead.bytes > 0 {
                return Err(TarErrorKind::Truncated);
            }
            self.input.finish()?;
            return Ok(false);
        }
        if block.iter().all(|b| *b == 0) {
            if ahead.bytes > 0 {
                return Err(TarErrorKind::Truncated);
            }
            self.input.finish()?;
            return Ok(false);
        }
        if !header::checksum_matches(block) {
            return Err(TarErrorKind::Checksum);
        }
        let header = header::parse(block)?;
        match header.typeflag {
            b'x' | b'X' => {
                let records = self.extension(&header, ahead)?;
                let pax = match &mut ahead.pax {
                    Some(pax) => pax,
                    none => none.insert(self.global.clone()),
                };
                pax.add(&records)?;
            }
            b'g' => {
                let records = self.extension(&header, ahead)?;
                ahead.bytes = 0;
                self.global.add_global(&records)?;
            }
            b'L' => ahead.name = Some(header::until_nul(&self.extension(&header, ahead)?).to_vec()),
            b'K' => ahead.link = Some(header::until_nul(&self.extension(&header, ahead)?).to_vec()),
            // A volume label.
            b'V' => self.input.skip(padded(header.size)?)?,
            _ => self.member(block, header, std::mem::take(ahead), member)?,
        }
        Ok(true)
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header, ahead: &mut Ahead) -> Result<Vec<u8>, TarErrorKind> {
        let limit = self.options.limits.extension_bytes;
        // The header counts as well, so that empty ones cannot go on for ever.
        ahead.bytes = ahead
            .bytes
            .saturating_add(header.size)
            .saturating_add(BLOCK_BYTES);
        let len = usize::try_from(header.size)
            .ok()
            .filter(|_| ahead.bytes <= limit);
        let len = len.ok_or(TarErrorKind::Limit {
            what: "bytes of extension records",
            limit,
        })?;
        let mut data = Vec::new();
        // In steps, so that a size that the archive does not have costs nothing.
        while data.len() < len {
            let at = data.len();
            data.resize(len.min(at + (64 << 10)), 0);
            if !self.input.read(&mut data[at..])? {
                return Err(TarErrorKind::Truncated);
            }
        }
        self.input.skip(padded(header.size)? - header.size)?;
        Ok(data)
    }

    fn member(
        &mut self,
        block: &[u8; BLOCK],
        header: Header,
        ahead: Ahead,
        member: &mut Option<Vec<u8>>,
    ) -> Result<(), TarErrorKind> {
        let header_at = self.input.position().saturating_sub(BLOCK_BYTES);
        let limits = &self.options.limits;
        let pax = ahead.pax.unwrap_or_else(|| self.global.clone());
        let raw_name = match (&pax.sparse.name, pax.path, ahead.name) {
            (Some(name), _, _) => name.clone(),
            (None, Some(name), _) | (None, None, Some(name)) => name,
            (None, None, None) => header.name,
        };
        *member = Some(raw_name.clone());
        self.members += 1;
        self.count_entry()?;
        let raw_link = pax.link.or(ahead.link).unwrap_or(header.link);
        if raw_name.len().max(raw_link.len()) as u64 > limits.name_bytes {
            return Err(TarErrorKind::Limit {
                what: "bytes of a name",
                limit: limits.name_bytes,
            });
        }
        let path = normalise(&raw_name)?;
        if self.lower.is_some()
            && let Some((dir, mark)) = whiteout::mark(&path)?
        {
            if !matches!(header.typeflag, b'0' | 0 | b'7' | b'1') {
                return Err(TarErrorKind::Unsupported(
                    "a whiteout that is not a file".to_owned(),
                ));
            }
            // A hard link has no data, whatever its header says.
            if header.typeflag != b'1' {
                let size = pax.size.unwrap_or(header.size);
                let padding = self.count_data(size)?;
                self.input.skip(size)?;
                self.padding(padding)?;
            }
            return self.hide(dir, mark);
        }
        let stat = Stat {
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or(Timestamp::from_secs(header.mtime)),
        };
        let mut xattrs = pax.xattrs;
        let mut named_acls = Vec::new();
        for (attr, text) in [
            (acl::ACCESS, pax.acl_access),
            (acl::DEFAULT, pax.acl_default),
        ] {
            let Some(text) = text else { continue };
            match acl::from_text(&text, &|_, _| None) {
                // GNU tar writes the mode of a directory that has only a default list as one, too.
                // Like the kernel, keep no list that says no more than the mode.
                Ok(value) if attr == acl::ACCESS && acl::is_mode_only(&value) => {}
                Ok(value) => {
                    xattrs.insert(attr.to_vec(), value);
                }
                Err(TarErrorKind::Unsupported(_)) => named_acls.push((attr, text)),
                Err(e) => return Err(e),
            }
        }
        let held = xattrs.iter().map(|(name, value)| name.len() + value.len());
        let texts = named_acls.iter().map(|(_, text)| text.len());
        let held: usize = held.chain(texts).map(|len| len + ATTRIBUTE_COST).sum();
        self.count_metadata(split(&path).1.len() + raw_link.len() + held)?;
        let size = pax.size.unwrap_or(header.size);
        let kind = match header.typeflag {
            // Before ustar a directory was a file whose name ends with a slash.
            b'0' | 0 if raw_name.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' if pax.sparse.is_sparse() => {
                let mut left = size;
                let map = pax.sparse.map(self.input, &mut left, limits)?;
                Kind::File(self.sparse_content(&map, left)?)
            }
            b'0' | 0 | b'7' => Kind::File(self.content(&path, size)?),
            b'S' => {
                let map = sparse::read_old_gnu(block, self.input, limits)?;
                Kind::File(self.sparse_content(&map, size)?)
            }
            b'1' => return self.hard_link(&path, &raw_link),
            b'2' if raw_link.is_empty() || raw_link.contains(&0) => {
                return Err(TarErrorKind::Field("link target"));
            }
            b'2' => Kind::Symlink(raw_link),
            b'3' => Kind::CharDev {
                major: header.major,
                minor: header.minor,
            },
            b'4' => Kind::BlockDev {
                major: header.major,
                minor: header.minor,
            },
            b'5' => Kind::Dir,
            // An incremental archive's directory: its data lists the names in it.
            b'D' => {
                self.input.skip(padded(size)?)?;
                Kind::Dir
            }
            b'6' => Kind::Fifo,
            b'M' => {
                return Err(TarErrorKind::Unsupported(
                    "a file that continues from another volume".to_owned(),
                ));
            }
            other => {
                return Err(TarErrorKind::Unsupported(format!(
                    "the member type {:?}",
                    char::from(other)
                )));
            }
        };
        let ino = self.put(
            &path,
            Inode {
                stat,
                kind,
                xattrs,
                flags: pax.flags,
            },
        )?;
        for (attr, text) in named_acls {
            self.pending.push(PendingAcl {
                entry: self.members,
                ino,
                attr,
                text,
                offset: header_at,
                member: raw_name.clone(),
            });
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), TarErrorKind> {
        let limit = self.options.limits.entries;
        self.entries += 1;
        if self.entries > limit {
            Err(TarErrorKind::Limit {
                what: "entries",
                limit,
            })
        } else {
            Ok(())
        }
    }

    /// Counts what the tree keeps of a member in memory.
    fn count_metadata(&mut self, bytes: usize) -> Result<(), TarErrorKind> {
        let limit = self.options.limits.metadata_bytes;
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes as u64);
        if self.metadata_bytes > limit {
            return Err(TarErrorKind::Limit {
                what: "bytes of names, attributes and sparse maps",
                limit,
            });
        }
        Ok(())
    }

    /// Checks the limit on data; returns the padding that follows `size` bytes.
    fn count_data(&mut self, size: u64) -> Result<u64, TarErrorKind> {
        let limit = self.options.limits.data_bytes;
        self.data_bytes = self.data_bytes.saturating_add(size);
        if self.data_bytes > limit {
            return Err(TarErrorKind::Limit {
                what: "bytes of file data",
                limit,
            });
        }
        Ok(padded(size)? - size)
    }

    /// Passes over what fills the last block of data. Where the end mark may be missing, that may be too.
    fn padding(&mut self, len: u64) -> Result<(), TarErrorKind> {
        match self.input.skip(len) {
            Err(TarErrorKind::Truncated) if self.lower.is_some() => Ok(()),
            other => other,
        }
    }

    /// Passes over the data of a file.
    fn data(&mut self, size: u64) -> Result<(amiforge_types::BlobId, u64), TarErrorKind> {
        let padding = self.count_data(size)?;
        let place = self.input.data(size)?;
        self.padding(padding)?;
        Ok(place)
    }

    fn content(&mut self, path: &[u8], size: u64) -> Result<Content, TarErrorKind> {
        self.check_file_size(size)?;
        if size == 0 {
            return Ok(Content::default());
        }
        let database = match path {
            b"etc/passwd" => Some(false),
            b"etc/group" => Some(true),
            _ => None,
        };
        let keep = usize::try_from(size)
            .ok()
            .filter(|_| database.is_some() && size <= MAX_DATABASE);
        let Some(keep) = keep else {
            let (id, at) = self.data(size)?;
            return Ok(Content::blob(id, at, size));
        };
        let padding = self.count_data(size)?;
        let ((id, at), bytes) = self.input.data_kept(keep)?;
        self.padding(padding)?;
        if database == Some(true) {
            self.group = bytes;
        } else {
            self.passwd = bytes;
        }
        Ok(Content::blob(id, at, size))
    }

    fn sparse_content(
        &mut self,
        map: &sparse::SparseMap,
        size: u64,
    ) -> Result<Content, TarErrorKind> {
        self.check_file_size(map.real_size)?;
        self.count_metadata(map.runs.len().saturating_mul(size_of::<DataExtent>()))?;
        let (id, at) = self.data(size)?;
        map.content(id, at, size)
    }

    fn check_file_size(&self, size: u64) -> Result<(), TarErrorKind> {
        let limit = self.options.limits.file_bytes;
        if size > limit {
            Err(TarErrorKind::Limit {
                what: "bytes in one file",
                limit,
            })
        } else {
            Ok(())
        }
    }

    fn put(&mut self, path: &[u8], inode: Inode) -> Result<Ino, TarErrorKind> {
        let is_dir = matches!(inode.kind, Kind::Dir);
        let (dir, name) = split(path);
        if name.is_empty() {
            if !is_dir {
                return Err(TarErrorKind::Name(path.to_vec()));
            }
            self.tree
                .update(Ino::ROOT, |root| *root = inode)
                .map_err(tree_error)?;
            return Ok(Ino::ROOT);
        }
        let parent = self.parent(dir, true)?;
        self.check_path(parent, name)?;
        let parent = parent.ino;
        let Some(old) = self.child(parent, name) else {
            return self.add(parent, name, inode);
        };
        if is_dir && self.tree.is_dir(old) {
            self.tree
                .update(old, |dir| *dir = inode)
                .map_err(tree_error)?;
            if let Some(lower) = &mut self.lower {
                lower.put(old);
            }
            return Ok(old);
        }
        self.make_way(old)?;
        self.add(parent, name, inode)
    }

    /// Adds an inode under a checked name.
    fn add(&mut self, dir: Ino, name: &[u8], inode: Inode) -> Result<Ino, TarErrorKind> {
        let ino = self.tree.add(inode).map_err(tree_error)?;
        self.tree.name(dir, name, ino).map_err(tree_error)?;
        Ok(ino)
    }

    fn hard_link(&mut self, path: &[u8], raw_target: &[u8]) -> Result<(), TarErrorKind> {
        let bad_target = || TarErrorKind::LinkTarget(raw_target.to_vec());
        let target = normalise(raw_target).map_err(|_| bad_target())?;
        let (dir, name) = split(&target);
        let target_dir = self.parent(dir, false).map_err(|_| bad_target())?;
        let ino = self
            .child(target_dir.ino, name)
            .filter(|ino| self.tree.children(*ino).is_none());
        let ino = ino.ok_or_else(bad_target)?;
        let (dir, name) = split(path);
        if name.is_empty() {
            return Err(TarErrorKind::Name(path.to_vec()));
        }
        let parent = self.parent(dir, true)?;
        self.check_path(parent, name)?;
        let parent = parent.ino;
        if let Some(old) = self.child(parent, name) {
            self.make_way(old)?;
        }
        if let Some(lower) = &mut self.lower {
            lower.link(parent, name);
        }
        self.tree.name(parent, name, ino).map_err(tree_error)
    }

    /// Before a name of `old` gets another inode: a directory must be empty, or, in an archive of changes, all of it
    /// of the layers below.
    fn make_way(&mut self, old: Ino) -> Result<(), TarErrorKind> {
        self.parent = None;
        let is_empty = |children: crate::Children<'_>| children.is_empty();
        if self.tree.children(old).is_none_or(is_empty)
            || (self.lower.is_some() && !self.hide_below(old)?)
        {
            return Ok(());
        }
        Err(TarErrorKind::ReplacesDirectory)
    }

    pub(super) fn child(&self, dir: Ino, name: &[u8]) -> Option<Ino> {
        self.tree.children(dir)?.get(name)
    }

    /// Links may lead a short name to a long path.
    fn check_path(&self, parent: Parent, name: &[u8]) -> Result<(), TarErrorKind> {
        let limit = self.options.limits.name_bytes;
        if parent.path_len + 1 + name.len() as u64 > limit {
            return Err(TarErrorKind::Limit {
                what: "bytes of a name",
                limit,
            });
        }
        Ok(())
    }

    /// The directory `path`, links followed inside the tree, missing directories made if `make`.
    pub(super) fn parent(&mut self, path: &[u8], make: bool) -> Result<Parent, TarErrorKind> {
        if let Some((cached, parent)) = &self.parent
            && cached == path
        {
            return Ok(*parent);
        }
        let bad = || TarErrorKind::Parent(path.to_vec());
        let limits = self.options.limits;
        let root = Parent {
            ino: Ino::ROOT,
            path_len: 0,
        };
        let mut dirs = vec![root];
        let mut hops = 0;
        let mut followed = 0;
        // What is left to walk, in reverse; true for components that a link brought in, which must
        // exist.
        let mut todo: Vec<(Vec<u8>, bool)> = path
            .split(|b| *b == b'/')
            .rev()
            .map(|name| (name.to_vec(), false))
            .collect();
        while let Some((name, from_link)) = todo.pop() {
            let dir = *dirs.last().unwrap_or(&root);
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    // Above the root is the root.
                    if dirs.len() > 1 {
                        dirs.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let below = |ino| Parent {
                ino,
                path_len: dir.path_len + 1 + name.len() as u64,
            };
            match self.child(dir.ino, &name) {
                None if make && !from_link => {
                    self.check_path(dir, &name)?;
                    self.count_entry()?;
                    self.count_metadata(name.len())?;
                    let stat = Stat {
                        mode: 0o755,
                        uid: 0,
                        gid: 0,
                        mtime: self.options.build_clock,
                    };
                    let inode = Inode::new(stat, Kind::Dir);
                    let ino = self.add(dir.ino, &name, inode)?;
                    dirs.push(below(ino));
                }
                None => return Err(bad()),
                Some(ino) if self.tree.is_dir(ino) => dirs.push(below(ino)),
                Some(ino) => match self.tree.target(ino) {
                    Some(target) => {
                        hops += 1;
                        followed += target.len() as u64;
                        // The bytes count as well, or few links would make many steps.
                        if hops > MAX_HOPS || followed > limits.name_bytes {
                            return Err(TarErrorKind::LinkChain(path.to_vec()));
                        }
                        if target.first() == Some(&b'/') {
                            dirs.truncate(1);
                        }
                        todo.extend(
                            target
                                .split(|b| *b == b'/')
                                .rev()
                                .map(|name| (name.to_vec(), true)),
                        );
                    }
                    None => return Err(bad()),
                },
            }
            if dirs.len() > limits.depth {
                return Err(TarErrorKind::Limit {
                    what: "directories below one another",
                    limit: limits.depth as u64,
                });
            }
        }
        let parent = *dirs.last().unwrap_or(&root);
        self.parent = Some((path.to_vec(), parent));
        Ok(parent)
    }
}

fn tree_error(error: TreeError) -> TarErrorKind {
    match error {
        TreeError::TooMany => TarErrorKind::Limit {
            what: "inodes",
            limit: u64::from(u32::MAX),
        },
        TreeError::NotADirectory(path) | TreeError::NoParent(path) => TarErrorKind::Parent(path),
        TreeError::BadName(path) | TreeError::BadLink(path) => TarErrorKind::Name(path),
    }
}

/// Parent and last component of a normalised path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A member name as a path of the tree: no leading, trailing or double slashes, no `.`.
fn normalise(name: &[u8]) -> Result<Vec<u8>, TarErrorKind> {
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(TarErrorKind::Name(name.to_vec())),
            _ if part.len() > MAX_NAME || part.contains(&0) => {
                return Err(TarErrorKind::Name(name.to_vec()));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    Ok(path)
}

/// Bytes that `size` bytes of data take up in the archive.
fn padded(size: u64) -> Result<u64, TarErrorKind> {
    size.checked_next_multiple_of(BLOCK_BYTES)
        .ok_or(TarErrorKind::Field("size"))
}
