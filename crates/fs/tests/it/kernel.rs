//! ext4 against the running kernel, as root: read through a loop mount, changed, checked again.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use amiforge_fs::ext4::{self, Options, Profile, Size};
use amiforge_tree::{Inode, Kind, Tree};
use amiforge_types::{BlobTable, MIB, Timestamp};

use crate::corpus::{self, options};
use crate::{compare, image, tool};

#[test]
fn kernel_mounts_it() {
    // Only root may mount; elsewhere the other tests have to do.
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root || !Path::new("/dev/loop-control").exists() {
        return;
    }
    for profile in [Profile::Standard, Profile::Legacy] {
        mount_and_change(profile);
    }
}

fn mount_and_change(profile: Profile) {
    let (mut tree, blobs) = corpus::wide();
    // An index of two levels, to look names up in by hash.
    tree.insert(b"big", corpus::dir()).unwrap();
    for i in 0..20_000 {
        let name = format!("big/{i:->200}");
        tree.link(name.as_bytes(), b"etc/hostname").unwrap();
    }
    let options = Options {
        profile,
        ..options(Size::Volume(256 * MIB))
    };
    let plan = ext4::plan(&tree, &options).unwrap();
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    let point = image.folder.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let (disk, at) = (image.path.to_string_lossy(), point.to_string_lossy());
    tool::stdout("mount", &["-o", "loop,ro,noload", &disk, &at]);
    let mounted = Mounted(&at);
    with_mount(&tree, &blobs, &point);
    drop(mounted);
    // Writable as well: the kernel recovers nothing, changes directories, and e2fsck agrees.
    tool::stdout("mount", &["-o", "loop", &disk, &at]);
    let change = || -> std::io::Result<()> {
        std::fs::remove_file(point.join("usr/bin/command-number-00007"))?;
        for i in 0..2000 {
            std::fs::write(point.join(format!("usr/bin/new-{i}")), format!("{i}"))?;
        }
        std::fs::create_dir_all(point.join("empty/a/b/c"))?;
        std::fs::write(point.join("var/pieces"), b"short now")?;
        std::fs::rename(point.join("etc/hostname"), point.join("usr/bin/hostname"))
    };
    let changed = change();
    let fixed = std::fs::write(point.join("etc/fixed"), "no");
    tool::stdout("umount", &[&at]);
    changed.unwrap();
    assert!(fixed.is_err(), "an immutable file was written to");
    tool::e2fsck(&image.path);
}

/// Unmounts, also when an assertion fails.
struct Mounted<'a>(&'a str);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        tool::run("umount", &[self.0]);
    }
}

fn with_mount(tree: &Tree, blobs: &BlobTable, point: &Path) {
    let mut numbers = BTreeMap::new();
    let links = tree.link_counts();
    let flags = tool::text("lsattr", &["-aR", &point.to_string_lossy()]);
    let flags: BTreeMap<&str, &str> = flags
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(letters, path)| (path.trim_start(), letters))
        .collect();
    for (path, ino) in tree.walk() {
        let host = point.join(std::ffi::OsStr::from_bytes(&path));
        let meta =
            std::fs::symlink_metadata(&host).unwrap_or_else(|e| panic!("{}: {e}", host.display()));
        let inode = &tree.inode(ino);
        let shown = host.display();
        assert_eq!(meta.mode() & 0o7777, u32::from(inode.stat.mode), "{shown}");
        assert_eq!(
            (meta.uid(), meta.gid()),
            (inode.stat.uid, inode.stat.gid),
            "{shown}"
        );
        let time = Timestamp {
            secs: meta.mtime(),
            nanos: meta.mtime_nsec() as u32,
        };
        assert_eq!(time, inode.stat.mtime, "{shown}");
        assert_eq!(
            (meta.ctime(), meta.ctime_nsec()),
            (meta.mtime(), meta.mtime_nsec())
        );
        let lost_found = u64::from(path.is_empty());
        assert_eq!(
            meta.nlink(),
            u64::from(links[ino.index()]) + lost_found,
            "{shown}: links"
        );
        if let Some(letters) = host.to_str().and_then(|p| flags.get(p)) {
            // Extents and index are the file system's own.
            let own: String = letters.chars().filter(|c| !"-eI".contains(*c)).collect();
            assert_eq!(own, inode.flags.to_string(), "{shown}: flags");
        }
        assert_eq!(
            *numbers.entry(ino).or_insert(meta.ino()),
            meta.ino(),
            "{shown}: hard link"
        );
        let kind = meta.file_type();
        match &inode.kind {
            Kind::Dir => {
                let children = tree.children(ino).unwrap();
                let found = std::fs::read_dir(&host).unwrap().count();
                assert_eq!(
                    found,
                    children.len() + usize::from(path.is_empty()),
                    "{shown}"
                );
            }
            Kind::File(content) => {
                assert_eq!(meta.size(), content.size, "{shown}");
                if content.size < 64 << 20 {
                    assert!(
                        std::fs::read(&host).unwrap() == compare::content(content, blobs),
                        "{shown}"
                    );
                }
            }
            Kind::Symlink(target) => {
                assert_eq!(
                    std::fs::read_link(&host).unwrap().as_os_str().as_bytes(),
                    target,
                    "{shown}"
                );
            }
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                let is_char = matches!(inode.kind, Kind::CharDev { .. });
                assert_eq!(kind.is_char_device(), is_char, "{shown}");
                assert_eq!(kind.is_block_device(), !is_char, "{shown}");
                // As the C library packs both.
                let (major, minor) = (u64::from(*major), u64::from(*minor));
                let rdev = (major << 8 | minor & 0xFF) | (minor & !0xFF) << 12;
                assert_eq!(meta.rdev(), rdev, "{shown}");
            }
            Kind::Fifo => assert!(kind.is_fifo(), "{shown}"),
            Kind::Socket => assert!(kind.is_socket(), "{shown}"),
        }
        if !matches!(inode.kind, Kind::Symlink(_)) {
            xattrs(&host, inode);
        }
    }
}

/// Attributes as the kernel gives them back, ACLs in the form of `getxattr`.
fn xattrs(host: &Path, inode: &Inode) {
    for (name, value) in &inode.xattrs {
        let name = std::str::from_utf8(name).unwrap();
        let out = tool::stdout(
            "getfattr",
            &[
                "-h",
                "--only-values",
                "--absolute-names",
                "-n",
                name,
                &host.to_string_lossy(),
            ],
        );
        if name == "security.capability" {
            assert_eq!(
                out[..4],
                0x0200_0001_u32.to_le_bytes(),
                "{}",
                host.display()
            );
        } else {
            assert_eq!(&out, value, "{} {name}", host.display());
        }
    }
}
