//! A second independent reader: that of the `mkext4` crate, which also recomputes every checksum and
//! the hash of every name.

use std::collections::BTreeMap;
use std::path::Path;

use amiforge_tree::{Ino, Inode, InodeFlags, Kind, Tree};
use amiforge_types::{BlobTable, Timestamp};
use mkext4::reader::Fs;
use mkext4::spec;

use crate::compare;

/// Compares the whole image with the tree: names and their types, all four times, owners, modes,
/// links, flags, devices, targets, attributes, block counts, and bytes of files up to 64 MiB.
pub fn with_mkext4(tree: &Tree, blobs: &BlobTable, image: &Path) {
    let fs = Fs::open(std::fs::File::open(image).unwrap()).unwrap();
    let mut issues = fs.verify().unwrap();
    issues.retain(|issue| !is_its_own_limit(&issue.what));
    assert!(issues.is_empty(), "{issues:?}");
    let links = tree.link_counts();
    let mut numbers: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut stack = vec![(String::from("/"), Ino::ROOT, spec::ROOT_INO)];
    while let Some((path, ino, number)) = stack.pop() {
        if *numbers.entry(ino).or_insert(number) != number {
            panic!("{path}: not the inode of its other names");
        }
        let inode = &tree.inode(ino);
        let found = fs.inode(number).unwrap();
        let lost_found = path == "/" && tree.lookup(b"lost+found").is_none();
        let wanted_links = match links[ino.index()] + u32::from(lost_found) {
            many if many > 65_000 => 1,
            few => few,
        };
        assert_eq!(found.mode & 0o7777, inode.stat.mode, "{path}");
        assert_eq!(
            (found.uid, found.gid),
            (inode.stat.uid, inode.stat.gid),
            "{path}"
        );
        assert_eq!(u32::from(found.links_count), wanted_links, "{path}: links");
        times(&path, inode, &found);
        let own = found.flags & !(spec::iflags::EXTENTS | spec::iflags::INDEX);
        assert_eq!(own, allowed(inode).bits(), "{path}: flags");
        attributes(&path, inode, &fs.xattrs(number).unwrap());
        let mapped: u64 = match found.uses_extents() {
            true => fs
                .extents(number, &found)
                .unwrap()
                .iter()
                .map(|e| u64::from(e.len))
                .sum(),
            false => 0,
        };
        assert!(
            found.blocks >= 8 * mapped,
            "{path}: {} sectors",
            found.blocks
        );
        match &inode.kind {
            Kind::Dir => {
                let children = tree.children(ino).unwrap();
                let mut entries: BTreeMap<_, _> = fs
                    .read_dir(number)
                    .unwrap()
                    .into_iter()
                    .filter(|e| e.inode != 0)
                    .map(|e| (e.name.clone(), e))
                    .collect();
                assert_eq!(entries.remove(b".".as_slice()).unwrap().inode, number);
                assert!(entries.remove(b"..".as_slice()).is_some());
                if lost_found {
                    assert_eq!(entries.remove(b"lost+found".as_slice()).unwrap().inode, 11);
                }
                assert!(entries.keys().eq(children.names()), "{path}: names");
                for (name, child) in children.iter() {
                    let entry = &entries[name];
                    assert_eq!(
                        entry.file_type,
                        type_code(&tree.inode(child).kind),
                        "{path}"
                    );
                    let below = format!("{path}/{}", String::from_utf8_lossy(name));
                    stack.push((below, child, entry.inode));
                }
            }
            Kind::File(content) => {
                assert_eq!(found.size, content.size, "{path}");
                if content.size <= 64 << 20 {
                    let bytes = fs.read_file(number).unwrap();
                    assert!(bytes == compare::content(content, blobs), "{path}: bytes");
                }
            }
            Kind::Symlink(target) => {
                assert_eq!(&fs.symlink_target(number).unwrap(), target, "{path}");
            }
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                assert_eq!(found.dev_numbers(), Some((*major, *minor)), "{path}");
            }
            // Blocks may be those of attributes.
            Kind::Fifo | Kind::Socket => assert_eq!(found.size, 0, "{path}"),
        }
    }
}

/// What it gets wrong: it takes the checksum of a descriptor over the first 32 of its 64 bytes, and
/// characters of attribute names to be unsigned in their hash, where the kernel and e2fsck take both.
fn is_its_own_limit(issue: &str) -> bool {
    let signed_name = || {
        let list = issue.split(['[', ']']).nth(1).unwrap_or("");
        list.split(", ")
            .any(|byte| byte.parse().is_ok_and(|byte: u8| byte >= 0x80))
    };
    issue.contains("desc checksum") || (issue.ends_with("e_hash mismatch") && signed_name())
}

/// As the kernel lets each type have them.
pub fn allowed(inode: &Inode) -> InodeFlags {
    let without =
        |bits: InodeFlags| InodeFlags::from_bits_truncate(inode.flags.bits() & !bits.bits());
    match &inode.kind {
        Kind::Dir => inode.flags,
        Kind::File(_) => without(InodeFlags::DIR_SYNC | InodeFlags::TOP_DIR),
        _ => inode
            .flags
            .intersection(InodeFlags::NO_DUMP | InodeFlags::NO_ATIME),
    }
}

fn times(path: &str, inode: &Inode, found: &spec::Inode) {
    const RANGE: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MIN as i64 + (1 << 34) - 1;
    let mut wanted = inode.stat.mtime;
    if !RANGE.contains(&wanted.secs) {
        wanted = Timestamp::from_secs(wanted.secs.clamp(*RANGE.start(), *RANGE.end()));
    }
    for (low, extra) in [
        (found.mtime, found.mtime_extra),
        (found.ctime, found.ctime_extra),
        (found.atime, found.atime_extra),
        (found.crtime, found.crtime_extra),
    ] {
        let time = spec::Inode::timestamp(low, extra);
        assert_eq!(time, (wanted.secs, wanted.nanos), "{path}");
    }
}

/// Values as they are on the disk; those that are converted have tests of their own.
fn attributes(path: &str, inode: &Inode, found: &[spec::XattrEntry]) {
    const PREFIXES: [(&str, u8); 4] = [
        ("user.", 1),
        ("trusted.", 4),
        ("security.", 6),
        ("system.", 7),
    ];
    assert_eq!(found.len(), inode.xattrs.len(), "{path}: attributes");
    for (name, value) in &inode.xattrs {
        let text = String::from_utf8_lossy(name);
        let (index, rest, exact): (u8, &[u8], bool) = match text.as_ref() {
            "system.posix_acl_access" => (2, b"", false),
            "system.posix_acl_default" => (3, b"", false),
            "security.capability" => (6, b"capability", false),
            _ => {
                let (prefix, index) = PREFIXES.iter().find(|(p, _)| text.starts_with(p)).unwrap();
                (*index, &name[prefix.len()..], true)
            }
        };
        let entry = found
            .iter()
            .find(|e| e.name_index == index && e.name == rest)
            .unwrap_or_else(|| panic!("{path}: no {text}"));
        assert!(!exact || entry.value == *value, "{path}: {text}");
    }
}

fn type_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Dir => 2,
        Kind::CharDev { .. } => 3,
        Kind::BlockDev { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}
