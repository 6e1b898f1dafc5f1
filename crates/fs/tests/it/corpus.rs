//! Trees that the tests share.

use std::sync::Arc;

use amiforge_fs::ext4::{Options, Size};
use amiforge_tree::{Content, DataExtent, DataSource, Inode, InodeFlags, Kind, Stat, Tree};
use amiforge_types::{BlobTable, Timestamp, Uuid};

pub const CLOCK: Timestamp = Timestamp::from_secs(1_600_000_000);

pub fn options(size: Size) -> Options {
    let uuid: Uuid = "0a1b2c3d-4e5f-4a6b-8c7d-9e8f70615243".parse().unwrap();
    let seed: Uuid = "deadbeef-0102-4304-8506-0708090a0b0c".parse().unwrap();
    Options {
        label: "corpus".to_owned(),
        ..Options::new(size, uuid, seed, CLOCK)
    }
}

pub fn stat(mode: u16) -> Stat {
    Stat {
        mode,
        uid: 0,
        gid: 0,
        mtime: CLOCK,
    }
}

pub fn dir() -> Inode {
    Inode::new(stat(0o755), Kind::Dir)
}

pub fn file(bytes: &[u8]) -> Inode {
    Inode::new(stat(0o644), Kind::File(Content::bytes(bytes)))
}

pub fn tree() -> Tree {
    Tree::new(stat(0o755))
}

/// Bytes that differ from offset to offset.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect()
}

/// One of everything.
pub fn everything() -> (Tree, BlobTable) {
    let mut blobs = BlobTable::new();
    let blob = blobs.add(Arc::new(noise(3 << 20, 7)));
    let mut t = tree();
    let mut put = |path: &[u8], inode: Inode| {
        t.insert(path, inode).unwrap();
    };
    for path in [
        "etc", "usr", "usr/bin", "dev", "var", "var/log", "deep", "empty",
    ] {
        put(path.as_bytes(), dir());
    }
    put(b"etc/hostname", file(b"corpus\n"));
    put(b"etc/zero", file(b""));
    put(b"etc/block", file(&noise(4096, 1)));
    put(b"etc/block+1", file(&noise(4097, 2)));
    put(
        b"usr/bin/tool",
        Inode::new(
            stat(0o4755),
            Kind::File(Content::blob(blob, 12_345, 1_000_001)),
        ),
    );
    put(
        b"usr/bin/second",
        Inode::new(
            stat(0o2711),
            Kind::File(Content::blob(blob, 2 << 20, 70_000)),
        ),
    );
    let part = |offset, len, at| DataExtent {
        offset,
        len,
        source: DataSource::Blob {
            id: blob,
            offset: at,
        },
    };
    let sparse = Content {
        size: 10_000_000,
        extents: vec![
            part(100, 200, 5),
            part(300, 10, 900),
            part(5000, 4096, 4096),
            part(9_000_000, 999_999, 77),
        ],
        digest: None,
    };
    put(b"var/sparse", Inode::new(stat(0o600), Kind::File(sparse)));
    let pieces = (0..2000)
        .map(|i| part(i * 8192 + i % 3, 100, i * 64))
        .collect();
    put(
        b"var/pieces",
        Inode::new(
            stat(0o600),
            Kind::File(Content {
                size: 2000 * 8192,
                extents: pieces,
                digest: None,
            }),
        ),
    );
    put(
        b"var/hole",
        Inode::new(
            stat(0o600),
            Kind::File(Content {
                size: 1 << 30,
                extents: vec![],
                digest: None,
            }),
        ),
    );
    for (name, len) in [("short", 3), ("fast", 59), ("slow", 60), ("long", 4095)] {
        put(
            format!("etc/link-{name}").as_bytes(),
            Inode::new(
                stat(0o777),
                Kind::Symlink(b"xy/".iter().copied().cycle().take(len).collect()),
            ),
        );
    }
    put(
        b"dev/null",
        Inode::new(stat(0o666), Kind::CharDev { major: 1, minor: 3 }),
    );
    put(
        b"dev/disk",
        Inode::new(
            stat(0o660),
            Kind::BlockDev {
                major: 259,
                minor: 1_048_575,
            },
        ),
    );
    put(b"dev/pipe", Inode::new(stat(0o600), Kind::Fifo));
    put(b"dev/sock", Inode::new(stat(0o700), Kind::Socket));
    put(b"etc/\xff\xfe not utf-8 \x01", file(b"bytes"));
    put(&[b'n'; 255], file(b"longest name"));
    let owners = Stat {
        mode: 0o1777,
        uid: 4_000_000_000,
        gid: 70_000,
        mtime: Timestamp {
            secs: 5,
            nanos: 123_456_789,
        },
    };
    put(b"var/tmp", Inode::new(owners, Kind::Dir));
    let late = Stat {
        mtime: Timestamp {
            secs: 5_000_000_000,
            nanos: 999_999_999,
        },
        ..owners
    };
    put(
        b"var/late",
        Inode::new(late, Kind::File(Content::bytes(b"2128".as_slice()))),
    );
    let mut path = b"deep".to_vec();
    for _ in 0..200 {
        path.extend_from_slice(b"/d");
        put(&path, dir());
    }
    put(b"xattr", dir());
    put(
        b"xattr/few",
        with_xattrs(file(b"few"), &[("user.a", b"1"), ("user.empty", b"")]),
    );
    put(
        b"xattr/many",
        with_xattrs(
            file(b"many"),
            &[
                ("user.comment", &[b'c'; 300]),
                ("user.a", &[b'a'; 40]),
                ("user.caf\u{e9}", &[b'e'; 77]),
                ("trusted.md5", &[7; 16]),
                ("security.ima", &[9; 33]),
            ],
        ),
    );
    let acl: Vec<u8> = acl(&[
        (1, 7, u32::MAX),
        (2, 5, 1000),
        (4, 5, u32::MAX),
        (8, 7, 4),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ]);
    put(
        b"xattr/journal",
        with_xattrs(
            dir(),
            &[
                ("system.posix_acl_access", &acl),
                ("system.posix_acl_default", &acl),
            ],
        ),
    );
    let mut cap = 0x0300_0001_u32.to_le_bytes().to_vec();
    cap.extend_from_slice(&[0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    cap.extend_from_slice(&100_000_u32.to_le_bytes());
    put(
        b"xattr/ping",
        with_xattrs(file(b"ping"), &[("security.capability", &cap)]),
    );
    for i in 0..700 {
        put(
            format!("usr/bin/command-number-{i:05}").as_bytes(),
            file(format!("command {i}\n").as_bytes()),
        );
    }
    t.link(b"usr/bin/again", b"usr/bin/tool").unwrap();
    t.link(b"again", b"usr/bin/tool").unwrap();
    t.link(b"dev/zero", b"dev/null").unwrap();
    (t, blobs)
}

/// [`everything`] and what the reader of `ext4-view` gets wrong or does not show: times outside 1970
/// to 2038 in their era, inode flags.
pub fn wide() -> (Tree, BlobTable) {
    let (mut t, blobs) = everything();
    let mut put = |path: &str, secs, nanos, mut inode: Inode, flags| {
        inode.stat.mtime = Timestamp { secs, nanos };
        inode.flags = flags;
        t.insert(path.as_bytes(), inode).unwrap();
    };
    let none = InodeFlags::NONE;
    put("etc/1969", -5, 123_456_789, file(b"1969"), none);
    put("etc/1901", i64::from(i32::MIN), 999_999_999, dir(), none);
    put("etc/2040", 2_208_988_800, 1, file(b"2040"), none);
    put(
        "etc/2446",
        (1 << 34) - (1 << 31) - 1,
        5,
        file(b"2446"),
        none,
    );
    put("etc/fixed", 1, 0, file(b"fixed"), InodeFlags::IMMUTABLE);
    put(
        "etc/log",
        2,
        0,
        file(b"log"),
        InodeFlags::APPEND_ONLY | InodeFlags::NO_DUMP,
    );
    put(
        "etc/sealed",
        3,
        0,
        dir(),
        InodeFlags::IMMUTABLE | InodeFlags::NO_ATIME,
    );
    let most = Stat {
        uid: u32::MAX - 1,
        gid: u32::MAX - 1,
        ..stat(0o7777)
    };
    let block = |major, minor| Inode::new(most, Kind::BlockDev { major, minor });
    put("dev/old", 4, 0, block(255, 255), none);
    put("dev/new", 5, 0, block(256, 0), none);
    put("dev/most", 6, 0, block(4095, (1 << 20) - 1), none);
    (t, blobs)
}

pub fn with_xattrs(mut inode: Inode, list: &[(&str, &[u8])]) -> Inode {
    inode.xattrs = list
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
        .collect();
    inode
}

/// A list in the form that `getxattr` returns.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}
