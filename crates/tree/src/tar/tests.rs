//! Archives made by hand: every format variant, and what must be refused. Archives of real tools are
//! in the tests of `amiforge-store`, which may run them.

use std::io::{Read, Write};
use std::sync::Arc;

use amiforge_types::{BlobTable, Timestamp};
use proptest::prelude::*;

use super::{
    Limits, ReadOptions, SpooledTree, TarError, TarErrorKind, read_at, read_stream, write,
};
use crate::testing::{blobs, dump, tree_strategy};
use crate::{Kind, Tree};

mod bombs;
mod hostile;
mod whiteouts;

const OPTIONS: ReadOptions = ReadOptions {
    build_clock: Timestamp::from_secs(99),
    limits: Limits::DEFAULT,
};

/// A header block with everything at a usual value.
struct Block([u8; 512]);

impl Block {
    fn new(name: &[u8], typeflag: u8) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[156] = typeflag;
        Self(block)
            .set(100, b"0000644\0")
            .set(108, b"0000001\0")
            .set(116, b"0000002\0")
            .set(124, b"00000000000\0")
            .set(136, b"00000000012\0")
            .set(257, b"ustar\x0000")
    }
    fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    fn size(self, size: usize) -> Self {
        self.set(124, format!("{size:011o}\0").as_bytes())
    }
    fn link(self, to: &[u8]) -> Self {
        self.set(157, to)
    }
    fn seal(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes()).0.to_vec()
    }
    fn data(self, data: &[u8]) -> Vec<u8> {
        let mut out = self.size(data.len()).seal();
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn file(name: &str, data: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'0').data(data.as_bytes())
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let len = (1..9)
            .map(|d| body + d)
            .find(|n| n.to_string().len() + body == *n)
            .unwrap();
        data.extend_from_slice(format!("{len} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    Block::new(b"PaxHeaders/x", b'x').data(&data)
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut out = members.concat();
    out.extend_from_slice(&[0; 1024]);
    out
}

fn at(bytes: &[u8]) -> Result<(Tree, BlobTable), TarError> {
    let mut blobs = BlobTable::new();
    let blob = Arc::new(bytes.to_vec());
    let id = blobs.add(blob.clone());
    Ok((read_at(&*blob, id, &OPTIONS)?, blobs))
}

fn streamed(bytes: &[u8]) -> Result<(Tree, BlobTable), TarError> {
    let mut spool = Vec::new();
    let spooled: SpooledTree = read_stream(&mut &*bytes, &mut spool, &OPTIONS)?;
    assert_eq!(spooled.spool_bytes, spool.len() as u64);
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(spool));
    Ok((spooled.into_tree(id), blobs))
}

/// The dump of an archive, which both ways of reading have to give.
fn check(members: &[Vec<u8>]) -> Result<String, TarError> {
    let bytes = archive(members);
    let (tree, blobs) = at(&bytes)?;
    let text = dump(&tree, &blobs);
    let (tree, blobs) = streamed(&bytes).unwrap();
    assert_eq!(text, dump(&tree, &blobs));
    Ok(text)
}

/// What is wrong, and the member it is said of.
fn fails(members: &[Vec<u8>]) -> (TarErrorKind, Option<String>) {
    let error = check(members).unwrap_err();
    (
        error.kind,
        error.member.map(|m| String::from_utf8(m).unwrap()),
    )
}

fn text_of(tree: &Tree, blobs: &BlobTable, path: &str) -> String {
    match &tree.inode(tree.lookup(path.as_bytes()).unwrap()).kind {
        Kind::File(content) => {
            String::from_utf8(content.read_to_vec(blobs, 1 << 30).unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Lines of a dump without the root.
fn lines(dump: &str) -> Vec<&str> {
    dump.lines().skip(1).collect()
}

#[test]
fn plain_members_and_missing_parents() {
    let out = check(&[
        Block::new(b"./", b'5').set(100, b"0000700\0").seal(),
        file("./a/b/c", "hello"),
        Block::new(b"/abs", b'2').link(b"../x").seal(),
        Block::new(b"dev/null", b'3')
            .set(329, b"0000001\0")
            .set(337, b"0000003\0")
            .seal(),
        Block::new(b"pipe", b'6').seal(),
        Block::new(b"old/", b'\0').seal(),
        Block::new(b"a/hard", b'1').link(b"./a/b/c").size(5).seal(),
    ])
    .unwrap();
    assert!(out.starts_with("/ dir 0700 1 2 0 10.0"));
    let hello = amiforge_types::Digest::of(b"hello");
    assert_eq!(
        lines(&out),
        [
            "/a dir 0755 0 0 0 99.000000000",
            "/a/b dir 0755 0 0 0 99.000000000",
            &format!("/a/b/c file 0644 1 2 5 10.000000000 sha256={hello}"),
            "/a/hard hardlink -> /a/b/c",
            "/abs symlink 0644 1 2 4 10.000000000 -> ../x",
            "/dev dir 0755 0 0 0 99.000000000",
            "/dev/null char 0644 1 2 0 10.000000000 rdev=1:3",
            "/old dir 0644 1 2 0 10.000000000",
            "/pipe fifo 0644 1 2 0 10.000000000",
        ]
    );
}

#[test]
fn names_from_prefix_gnu_and_pax() {
    let long = "n".repeat(200);
    let deep = format!("{}/{}", "d".repeat(150), "e".repeat(100));
    let out = check(&[
        Block::new(b"name", b'0').set(345, b"pre/fix").seal(),
        // The star format's prefix ends before its times.
        Block::new(b"s", b'0')
            .set(345, &[b'p'; 131])
            .set(476, b"00000000000\0")
            .set(508, b"tar\0")
            .seal(),
        // The GNU format has no prefix there.
        Block::new(b"gnu", b'0')
            .set(257, b"ustar  \0")
            .set(345, b"12345670123\0")
            .seal(),
        Block::new(b"././@LongLink", b'L').data(format!("{long}\0").as_bytes()),
        Block::new(b"././@LongLink", b'K').data(format!("{deep}\0").as_bytes()),
        Block::new(b"cut", b'2').link(b"cut").seal(),
        pax(&[("path", deep.as_bytes()), ("comment", b"x")]),
        Block::new(b"other", b'0').seal(),
        file("after", ""),
    ])
    .unwrap();
    for part in [
        "/pre/fix/name file",
        &format!("/{}/s file", "p".repeat(131)),
        "/gnu file",
        &format!("/{long} symlink 0644 1 2 251 10.000000000 -> {deep}\n"),
        &format!("/{deep} file"),
        "/after file",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    assert!(!out.contains("other") && !out.contains("cut"));
}

#[test]
fn numbers_in_base_256_and_pax() {
    let out = check(&[
        Block::new(b"big", b'0')
            .set(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe])
            .set(
                136,
                &[
                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
                ],
            )
            .seal(),
        pax(&[
            ("mtime", b"-1.25"),
            ("uid", b"4294967294"),
            ("gid", b"3000000"),
        ]),
        Block::new(b"pax", b'0').seal(),
        pax(&[("mtime", b"123456789012.0123456789")]),
        Block::new(b"pax2", b'0').seal(),
        pax(&[("mtime", b"-0.0000000001")]),
        Block::new(b"pax3", b'0').seal(),
    ])
    .unwrap();
    let empty = amiforge_types::Digest::of(b"");
    assert_eq!(
        lines(&out),
        [
            format!("/big file 0644 4294967294 2 0 -2.000000000 sha256={empty}"),
            format!("/pax file 0644 4294967294 3000000 0 -2.750000000 sha256={empty}"),
            format!("/pax2 file 0644 1 2 0 123456789012.012345678 sha256={empty}"),
            format!("/pax3 file 0644 1 2 0 -1.999999999 sha256={empty}"),
        ]
    );
}

#[test]
fn pax_size_and_global_headers() {
    let mut body = Block::new(b"f", b'0').size(0).seal();
    body.extend_from_slice(b"0123456789");
    body.resize(1024, 0);
    let mut global = pax(&[("mtime", b"55")]);
    global[..512].copy_from_slice(&Block::new(b"g", b'g').size(12).seal());
    let out = check(&[global, pax(&[("size", b"10")]), body, file("g", "x")]).unwrap();
    assert!(out.contains("/f file 0644 1 2 10 55.0"), "{out}");
    assert!(out.contains("/g file 0644 1 2 1 55.0"), "{out}");
}

#[test]
fn attributes_keep_their_bytes() {
    let out = check(&[
        pax(&[
            ("SCHILY.xattr.user.bin", b"\0\n=\xff"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.user.empty", b""),
            (
                "SCHILY.acl.access",
                b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---",
            ),
        ]),
        file("f", ""),
    ])
    .unwrap();
    let acl =
        "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff";
    let line = lines(&out)[0];
    assert!(
        line.ends_with(&format!(
            " xattr security.selinux=6c6162656c xattr system.posix_acl_access={acl} xattr user.bin=000a3dff xattr user.empty="
        )),
        "{line}"
    );
    let (kind, _) = fails(&[
        pax(&[("SCHILY.acl.access", b"user::rw-,group:adm:r--")]),
        file("f", ""),
    ]);
    assert!(matches!(kind, TarErrorKind::Unsupported(_)));
}

#[test]
fn names_in_access_control_lists_are_those_of_the_archive() {
    let out = check(&[
        pax(&[("SCHILY.acl.access", b"user::rw-,group:adm:r--,mask::r--")]),
        file("f", ""),
        file("etc/group", "root:x:0:\nadmin:x:9:\nadm:x:4:syslog\n"),
        file("etc/passwd", "adm:x:7:7::/:/bin/false\n"),
    ])
    .unwrap();
    let acl = "0200000001000600ffffffff080004000400000010000400ffffffff";
    assert!(
        out.contains(&format!("system.posix_acl_access={acl}\n")),
        "{out}"
    );
}

#[test]
fn flags_are_read_by_the_names_of_bsdtar() {
    let flagged = |text: &[u8]| {
        let (tree, _) = at(&archive(&[pax(&[("SCHILY.fflags", text)]), file("f", "x")])).unwrap();
        tree.inode(tree.lookup(b"f").unwrap()).flags.to_string()
    };
    assert_eq!(flagged(b"schg,sappnd,nodump,noatime"), "iadA");
    assert_eq!(flagged(b"uarch,opaque,hidden"), "", "of other systems");
    assert_eq!(flagged(b""), "");
    assert_eq!(flagged(b"\xff,schg"), "i");
}

#[test]
fn sparse_in_all_versions() {
    // "abc" at 0 and "xyz" at 10,000 of 20,000 bytes.
    let expected = {
        let mut bytes = vec![0; 20_000];
        bytes[..3].copy_from_slice(b"abc");
        bytes[10_000..10_003].copy_from_slice(b"xyz");
        amiforge_types::Digest::of(&bytes)
    };
    let map_1_0 = {
        let mut data = b"3\n0\n3\n10000\n3\n20000\n0\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"abcxyz");
        data
    };
    let variants = [
        vec![
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"20000"),
            ]),
            Block::new(b"GNUSparseFile.0/s", b'0').data(&map_1_0),
        ],
        vec![
            pax(&[
                ("GNU.sparse.size", b"20000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.map", b"0,3,10000,3"),
                ("GNU.sparse.name", b"s"),
            ]),
            file("GNUSparseFile.0/s", "abcxyz"),
        ],
        vec![
            pax(&[
                ("GNU.sparse.size", b"20000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"3"),
                ("GNU.sparse.offset", b"10000"),
                ("GNU.sparse.numbytes", b"3"),
            ]),
            file("s", "abcxyz"),
        ],
        vec![
            Block::new(b"s", b'S')
                .set(257, b"ustar  \0")
                .set(386, b"00000000000\0")
                .set(398, b"00000000003\0")
                .set(410, b"00000023420\0")
                .set(422, b"00000000003\0")
                .set(483, b"00000047040\0")
                .data(b"abcxyz"),
        ],
    ];
    for (i, members) in variants.into_iter().enumerate() {
        let out = check(&members).unwrap();
        assert_eq!(
            lines(&out),
            [format!(
                "/s file 0644 1 2 20000 10.000000000 sha256={expected}"
            )],
            "variant {i}"
        );
    }
}

#[test]
fn old_gnu_sparse_goes_on_in_extension_blocks() {
    let mut head = Block::new(b"s", b'S')
        .set(257, b"ustar  \0")
        .set(483, b"00000100000\0")
        .size(5);
    for i in 0..4 {
        head = head.set(
            386 + 24 * i,
            format!("{:011o}\0{:011o}\0", i * 4096, 1).as_bytes(),
        );
    }
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(format!("{:011o}\0{:011o}\0", 4 * 4096, 1).as_bytes());
    let mut bytes = head.set(482, &[1]).seal();
    bytes.extend_from_slice(&extension);
    bytes.extend_from_slice(b"12345");
    bytes.resize(1536, 0);
    let (tree, blobs) = at(&archive(&[bytes])).unwrap();
    let text = text_of(&tree, &blobs, "s");
    assert_eq!(text.replace('\0', ""), "12345");
    assert_eq!(text.len(), 32768);
}

#[test]
fn later_members_win() {
    let out = check(&[
        file("f", "one"),
        Block::new(b"d", b'5').seal(),
        file("d/x", "kept"),
        file("f", "two"),
        Block::new(b"d", b'5').set(100, b"0000700\0").seal(),
        Block::new(b"l", b'2').link(b"d").seal(),
        Block::new(b"l", b'5').seal(),
        file("l/own", ""),
    ])
    .unwrap();
    let two = amiforge_types::Digest::of(b"two");
    assert!(out.contains(&two.hex()));
    assert!(
        out.contains("/d dir 0700") && out.contains("/d/x file") && out.contains("/l/own file"),
        "{out}"
    );
    assert!(!out.contains("/d/own"));
}

#[test]
fn a_parent_that_is_a_link_is_followed_inside_the_tree() {
    let usr = [
        Block::new(b"usr/bin", b'5').seal(),
        Block::new(b"bin", b'2').link(b"usr/bin").seal(),
    ];
    let out = check(&[&usr[..], &[file("bin/sh", "x"), file("bin/new/y", "")]].concat()).unwrap();
    assert!(
        out.contains("/usr/bin/sh file") && out.contains("/usr/bin/new/y file"),
        "{out}"
    );
    let up = Block::new(b"up", b'2').link(b"/../../usr").seal();
    let out = check(&[&usr[..], &[up, file("up/z", "")]].concat()).unwrap();
    assert!(out.contains("/usr/z file"), "{out}");
    // A hard link finds its target the same way.
    let out = check(
        &[
            &usr[..],
            &[
                file("bin/sh", "x"),
                Block::new(b"h", b'1').link(b"bin/sh").seal(),
            ],
        ]
        .concat(),
    );
    assert!(out.unwrap().contains("/usr/bin/sh hardlink -> /h"));
}

#[test]
fn hostile_members_are_refused_by_name() {
    use TarErrorKind as K;
    let link = |name: &str, to: &str| Block::new(name.as_bytes(), b'2').link(to.as_bytes()).seal();
    let hard = |name: &str, to: &str| Block::new(name.as_bytes(), b'1').link(to.as_bytes()).seal();
    let named = |members: &[Vec<u8>], name: &str| {
        let (kind, member) = fails(members);
        assert_eq!(member.as_deref(), Some(name));
        kind
    };
    assert!(matches!(named(&[file("../up", "")], "../up"), K::Name(_)));
    assert!(matches!(
        named(&[file("a/../../up", "")], "a/../../up"),
        K::Name(_)
    ));
    assert!(matches!(
        named(&[link("out", "../../host"), file("out/x", "")], "out/x"),
        K::Parent(_)
    ));
    assert!(matches!(
        named(&[link("a", "b"), link("b", "a"), file("a/x", "")], "a/x"),
        K::LinkChain(_)
    ));
    assert!(matches!(
        named(&[file("f", ""), file("f/x", "")], "f/x"),
        K::Parent(_)
    ));
    assert!(matches!(
        named(&[hard("h", "later"), file("later", "")], "h"),
        K::LinkTarget(_)
    ));
    assert!(matches!(
        named(&[Block::new(b"d", b'5').seal(), hard("h", "d")], "h"),
        K::LinkTarget(_)
    ));
    assert!(matches!(
        named(&[hard("h", "../../etc/shadow")], "h"),
        K::LinkTarget(_)
    ));
    assert!(matches!(
        named(&[file("d/x", ""), file("d", "")], "d"),
        K::ReplacesDirectory
    ));
    assert!(matches!(named(&[file(".", "x")], "."), K::Name(_)));
    assert!(matches!(
        named(&[Block::new(b"q", b'Q').seal()], "q"),
        K::Unsupported(_)
    ));
    assert!(matches!(
        named(&[Block::new(b"m", b'M').seal()], "m"),
        K::Unsupported(_)
    ));
    let long = [b'n'; 256];
    assert!(matches!(
        fails(&[pax(&[("path", &long)]), file("f", "")]).0,
        K::Name(_)
    ));
    let negative = Block::new(b"n", b'0').set(124, &[0xff; 12]).seal();
    assert!(matches!(fails(&[negative]).0, K::Field("size")));
    let damaged = {
        let mut block = file("f", "");
        block[0] ^= 1;
        block
    };
    assert!(matches!(fails(&[damaged]).0, K::Checksum));
    for records in [
        &b"9999 path=x\n"[..],
        b"4 a=\n",
        b"x path=x\n",
        b"11 path=abcd",
        b"18446744073709551616 a=b\n",
    ] {
        let (kind, _) = fails(&[Block::new(b"x", b'x').data(records), file("f", "")]);
        assert!(
            matches!(kind, K::Field("PAX record")),
            "{records:?}: {kind:?}"
        );
    }
}

#[test]
fn hostile_sparse_maps_are_refused() {
    for (map, size, data) in [
        ("0,3", "2", "abc"),
        ("10,3,0,3", "20", "abcxyz"),
        ("0,4", "20", "abc"),
        ("0,18446744073709551615,1,3", "20", "abc"),
        ("0", "20", "abc"),
        ("", "20", "abc"),
    ] {
        let records = pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ]);
        let (kind, _) = fails(&[records, file("s", data)]);
        assert!(
            matches!(kind, TarErrorKind::Field("sparse map")),
            "{map}: {kind:?}"
        );
    }
    let endless = pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"1"),
    ]);
    let (kind, _) = fails(&[endless, file("s", &"1".repeat(512))]);
    assert!(matches!(kind, TarErrorKind::Field("sparse map")));
}

#[test]
fn limits_stop_bombs() {
    let limits = Limits {
        entries: 3,
        data_bytes: 10,
        file_bytes: 8,
        name_bytes: 20,
        depth: 3,
        extension_bytes: 2048,
        metadata_bytes: 1000,
    };
    let run = |members: &[Vec<u8>]| {
        let options = ReadOptions { limits, ..OPTIONS };
        let mut blobs = BlobTable::new();
        let bytes = Arc::new(archive(members));
        let id = blobs.add(bytes.clone());
        match read_at(&*bytes, id, &options) {
            Err(TarError {
                kind: TarErrorKind::Limit { what, .. },
                ..
            }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        run(&[file("a", ""), file("b", ""), file("c", ""), file("d", "")]),
        "entries"
    );
    assert_eq!(run(&[file("a/b/c/d", "")]), "entries");
    assert_eq!(
        run(&[file("a", "123456"), file("b", "123456")]),
        "bytes of file data"
    );
    assert_eq!(run(&[file("a", "123456789")]), "bytes in one file");
    assert_eq!(run(&[file("a23456789b12345678901", "")]), "bytes of a name");
    assert_eq!(
        run(&[Block::new(b"x", b'L').data(&[b'n'; 4096]), file("f", "")]),
        "bytes of extension records"
    );
    let endless = vec![Block::new(b"x", b'x').seal(); 100].concat();
    assert_eq!(run(&[endless]), "bytes of extension records");
}

#[test]
fn a_declared_size_costs_nothing() {
    let huge = Block::new(b"x", b'x').set(124, b"77777777777\0").seal();
    assert!(matches!(fails(&[huge]).0, TarErrorKind::Limit { .. }));
    let huge = Block::new(b"f", b'0').set(124, b"77777777777\0").seal();
    assert!(matches!(fails(&[huge]).0, TarErrorKind::Truncated));
}

#[test]
fn every_truncation_is_found() {
    let bytes = archive(&[pax(&[("mtime", b"1")]), file("a", "hello"), file("b", "")]);
    let end = bytes.len() - 1024;
    for len in 0..=end {
        assert!(at(&bytes[..len]).is_err(), "{len} bytes in place");
        assert!(streamed(&bytes[..len]).is_err(), "{len} bytes streamed");
    }
    // One block of zeros is enough of an end.
    at(&bytes[..end + 512]).unwrap();
}

#[test]
fn nothing_is_an_archive_but_an_archive() {
    assert!(matches!(at(b"").unwrap_err().kind, TarErrorKind::Truncated));
    assert!(matches!(
        at(&[b'x'; 2048]).unwrap_err().kind,
        TarErrorKind::Checksum
    ));
    assert!(at(&[0; 1024]).is_ok(), "an empty archive");
}

fn compressed(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    encoder.read_to_end(&mut gzip).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    vec![
        ("bzip2", bzip2.finish().unwrap()),
        ("gzip", gzip),
        ("zstd", zstd::encode_all(bytes, 1).unwrap()),
        ("xz", xz.finish().unwrap()),
    ]
}

#[test]
fn compressed_archives_are_read_and_their_damage_is_found() {
    let bytes = archive(&[file("a", "hello"), file("b", &"data ".repeat(5000))]);
    let (tree, blobs) = at(&bytes).unwrap();
    let expected = dump(&tree, &blobs);
    for (name, packed) in compressed(&bytes) {
        let (tree, blobs) = streamed(&packed).unwrap();
        assert_eq!(dump(&tree, &blobs), expected, "{name}");
        for len in 1..packed.len() {
            // zstd's frame without its checksum may lack the last bytes of an empty block only.
            assert!(
                streamed(&packed[..len]).is_err(),
                "{name} cut to {len} of {}",
                packed.len()
            );
        }
        let twice = [packed.clone(), packed.clone()].concat();
        assert!(
            streamed(&twice).is_ok(),
            "{name}: a second stream after the end mark"
        );
    }
}

#[test]
fn a_damaged_bzip2_archive_is_an_error_and_never_another_tree() {
    let bytes = archive(&[file("a", "hello"), file("b", &"data ".repeat(500))]);
    let (tree, blobs) = at(&bytes).unwrap();
    let expected = dump(&tree, &blobs);
    let (_, packed) = compressed(&bytes).swap_remove(0);
    for at in 0..packed.len() {
        for bit in [0, 3, 7] {
            let mut broken = packed.clone();
            broken[at] ^= 1 << bit;
            // A larger block size than the stream needs is no damage.
            if let Ok((tree, blobs)) = streamed(&broken) {
                assert_eq!(dump(&tree, &blobs), expected, "byte {at}, bit {bit}");
            }
        }
    }
    for junk in [
        &b"BZh9"[..],
        b"BZh91AY&SY",
        b"BZh91AY&SY and more",
        b"BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x01",
    ] {
        assert!(streamed(junk).is_err(), "{junk:?}");
    }
    let mut more = packed.clone();
    more.extend_from_slice(b"what is no stream");
    assert!(streamed(&more).is_err() || dump_of(&more) == expected);
}

fn dump_of(packed: &[u8]) -> String {
    let (tree, blobs) = streamed(packed).unwrap();
    dump(&tree, &blobs)
}

#[test]
fn data_in_the_spool_is_aligned_and_in_place_points_into_the_archive() {
    let bytes = archive(&[file("a", "hello"), file("b", "world")]);
    let (tree, _) = at(&bytes).unwrap();
    let offset = |tree: &Tree, path: &[u8]| match &tree.inode(tree.lookup(path).unwrap()).kind {
        Kind::File(content) => match content.extents[0].source {
            crate::DataSource::Blob { offset, .. } => offset,
            crate::DataSource::Bytes(_) => panic!("copied"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!((offset(&tree, b"a"), offset(&tree, b"b")), (512, 1536));
    let (tree, _) = streamed(&bytes).unwrap();
    assert_eq!((offset(&tree, b"a"), offset(&tree, b"b")), (0, 4096));
}

proptest! {
    #[test]
    fn what_is_written_is_read(tree in tree_strategy()) {
        let blobs = blobs();
        let mut bytes = Vec::new();
        write(&tree, &blobs, &mut bytes).unwrap();
        let mut again = Vec::new();
        write(&tree, &blobs, &mut again).unwrap();
        prop_assert_eq!(&bytes, &again);
        let (back, table) = at(&bytes).unwrap();
        prop_assert_eq!(dump(&back, &table), dump(&tree, &blobs));
        let (back, table) = streamed(&bytes).unwrap();
        prop_assert_eq!(dump(&back, &table), dump(&tree, &blobs));
    }

    #[test]
    fn damaged_archives_never_panic(
        tree in tree_strategy(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        reseal in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        write(&tree, &blobs(), &mut bytes).unwrap();
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        if reseal {
            // Every block that looks like a header gets a right checksum, so that its fields are read.
            for block in bytes.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok((tree, blobs)) = at(&bytes) {
            for (_, ino) in tree.walk() {
                if let Kind::File(content) = &tree.inode(ino).kind {
                    prop_assert!(content.is_well_formed());
                    if content.size < 1 << 20 {
                        content.read_to_vec(&blobs, 1 << 20).unwrap();
                    }
                }
            }
        }
        let _ = streamed(&bytes);
    }
}
