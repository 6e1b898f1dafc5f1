//! One test for each class of hostile archive in `docs/formats/archives.md`. What costs time or memory
//! is in `bombs.rs`.

use super::*;

fn dir(name: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'5').seal()
}

fn symlink(name: &str, to: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'2').link(to.as_bytes()).seal()
}

fn hard(name: &str, to: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'1').link(to.as_bytes()).seal()
}

/// The error of an archive that both ways of reading refuse in the same words.
fn refused(bytes: &[u8]) -> TarError {
    let error = at(bytes).unwrap_err();
    let other = streamed(bytes).unwrap_err();
    let text = |e: &TarError| {
        use std::error::Error;
        format!("{e}: {}", e.source().unwrap())
    };
    assert_eq!(text(&error), text(&other));
    error
}

fn content(members: &[Vec<u8>], path: &str) -> String {
    let (tree, blobs) = at(&archive(members)).unwrap();
    text_of(&tree, &blobs, path)
}

#[test]
fn dots_that_lead_up_are_refused_in_every_kind_of_name() {
    let up = b"a/../../etc/shadow";
    let name = |name: &[u8]| Block::new(name, b'0').seal();
    for members in [
        vec![file("..", "")],
        vec![file("../x", "")],
        vec![file("/../x", "")],
        vec![file("a/..", "")],
        vec![dir("a/../b/")],
        vec![hard("../x", "x")],
        vec![Block::new(b"x", b'0').set(345, b"..").seal()],
        vec![Block::new(b"L", b'L').data(up), name(b"x")],
        vec![pax(&[("path", up)]), name(b"x")],
        vec![
            pax(&[
                ("GNU.sparse.map", b""),
                ("GNU.sparse.size", b"0"),
                ("GNU.sparse.name", up),
            ]),
            name(b"x"),
        ],
    ] {
        let error = refused(&archive(&members));
        assert!(matches!(error.kind, TarErrorKind::Name(_)), "{error:?}");
        assert_eq!(error.entry, 1);
    }
    // Dots inside a name are a name, and a link's target is text.
    let out = check(&[file("..a", ""), file("a/...", ""), symlink("l", "../..")]).unwrap();
    assert!(out.contains("/..a file") && out.contains("/a/... file") && out.contains("-> ../.."));
}

#[test]
fn absolute_names_are_names_in_the_tree() {
    let out = check(&[
        file("/etc/passwd", "x"),
        file("//etc//./group", ""),
        hard("/h", "/etc/passwd"),
        dir("/"),
    ])
    .unwrap();
    for part in [
        "/etc/passwd file",
        "/etc/group file",
        "/h hardlink -> /etc/passwd",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}

#[test]
fn what_is_written_through_a_link_stays_in_the_tree() {
    let etc = dir("etc/");
    for to in ["/etc", "etc", "../../../etc", "/../etc/.", "./etc/../etc"] {
        let members = [etc.clone(), symlink("out", to), file("out/passwd", "mine")];
        assert_eq!(content(&members, "etc/passwd"), "mine", "{to}");
    }
    // A chain of links, and a link whose target comes from the archive later.
    let members = [
        etc,
        symlink("a", "b"),
        symlink("b", "/c"),
        symlink("c", "etc"),
        file("a/x", "1"),
    ];
    assert_eq!(content(&members, "etc/x"), "1");
    // A target that is not in the archive is not made, wherever it would be.
    for to in ["/tmp", "../../tmp", "gone"] {
        let error = refused(&archive(&[symlink("out", to), file("out/x", "")]));
        assert!(matches!(error.kind, TarErrorKind::Parent(_)), "{error:?}");
        assert_eq!((error.entry, error.offset), (2, 512));
    }
    // A link in the place of a file is replaced, not followed.
    let members = [
        file("etc/shadow", "kept"),
        symlink("x", "/etc/shadow"),
        file("x", "new"),
    ];
    assert_eq!(content(&members, "etc/shadow"), "kept");
    assert_eq!(content(&members, "x"), "new");
    for members in [
        vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")],
        vec![symlink("a", "a/a"), file("a/x", "")],
    ] {
        let error = refused(&archive(&members));
        assert!(
            matches!(error.kind, TarErrorKind::LinkChain(_)),
            "{error:?}"
        );
    }
}

#[test]
fn hard_links_lead_to_earlier_files_of_the_archive_only() {
    for to in [
        "/etc/shadow",
        "../etc/shadow",
        "d/../f",
        "missing",
        "later",
        "d",
        "d/",
        "",
        "f/x",
        "loop/x",
        "h",
    ] {
        let members = [
            file("f", ""),
            dir("d/"),
            symlink("loop", "loop"),
            hard("h", to),
            file("later", ""),
        ];
        let error = refused(&archive(&members));
        assert!(
            matches!(&error.kind, TarErrorKind::LinkTarget(found) if found == to.as_bytes()),
            "{to}: {error:?}"
        );
        assert_eq!((error.entry, error.member.as_deref()), (4, Some(&b"h"[..])));
    }
    // To a link itself, to a device, to itself when it is there.
    let out = check(&[
        symlink("l", "/etc/shadow"),
        hard("m", "l"),
        Block::new(b"null", b'3').seal(),
        hard("zero", "null"),
        hard("zero", "zero"),
    ])
    .unwrap();
    assert!(out.contains("/m hardlink -> /l\n"), "{out}");
    assert!(out.contains("/zero hardlink -> /null\n"), "{out}");
    // A name that the member itself would take away is no target.
    let error = refused(&archive(&[file("d/x", "1"), hard("d", "d/x")]));
    assert!(matches!(error.kind, TarErrorKind::ReplacesDirectory));
}

#[test]
fn the_pax_size_decides_where_the_next_header_is() {
    // What hides in the data of the one reading is a member of the other.
    let hidden = file("hidden", "");
    let visible = {
        let mut bytes = Block::new(b"f", b'0').size(0).seal();
        bytes.extend_from_slice(&hidden);
        bytes
    };
    let out = check(&[pax(&[("size", b"512")]), visible.clone()]).unwrap();
    assert!(
        out.contains("/f file 0644 1 2 512 ") && !out.contains("hidden"),
        "{out}"
    );
    let out = check(&[visible]).unwrap();
    assert!(
        out.contains("/f file 0644 1 2 0 ") && out.contains("/hidden"),
        "{out}"
    );
    let smaller = Block::new(b"f", b'0').data(&hidden);
    let out = check(&[pax(&[("size", b"0")]), smaller]).unwrap();
    assert!(
        out.contains("/f file 0644 1 2 0 ") && out.contains("/hidden"),
        "{out}"
    );
    for size in [&b"-1"[..], b"1e3", b" 1", b"0x10", b"18446744073709551616"] {
        let error = refused(&archive(&[pax(&[("size", size)]), file("f", "")]));
        assert!(
            matches!(error.kind, TarErrorKind::Field("size")),
            "{error:?}"
        );
    }
    let error = refused(&archive(&[
        pax(&[("size", b"18446744073709551615")]),
        file("f", ""),
    ]));
    assert!(
        matches!(error.kind, TarErrorKind::Limit { .. }),
        "{error:?}"
    );
    // No archive has one size, name or attribute for all its files.
    for key in [
        "size",
        "path",
        "linkpath",
        "GNU.sparse.map",
        "SCHILY.xattr.user.a",
    ] {
        let mut global = pax(&[(key, b"1")]);
        let head = Block::new(b"g", b'g').size(key.len() + 6 - usize::from(key.len() < 6));
        global[..512].copy_from_slice(&head.seal());
        let error = refused(&archive(&[global, file("f", "")]));
        assert!(
            matches!(error.kind, TarErrorKind::Unsupported(_)),
            "{error:?}"
        );
    }
}

#[test]
fn long_names_of_gnu_end_at_a_zero_and_at_the_limit() {
    let long = |name: &[u8]| Block::new(b"././@LongLink", b'L').data(name);
    let out = check(&[long(b"real\0hidden"), file("cut", "")]).unwrap();
    assert!(out.contains("/real file") && !out.contains("hidden") && !out.contains("cut"));
    // The last one counts, and a PAX path before any.
    let out = check(&[long(b"one"), long(b"two"), file("cut", "")]).unwrap();
    assert!(out.contains("/two file") && !out.contains("one"), "{out}");
    let out = check(&[pax(&[("path", b"pax")]), long(b"gnu"), file("cut", "")]).unwrap();
    assert!(out.contains("/pax file") && !out.contains("gnu"), "{out}");
    for (name, limit) in [(vec![b'n'; 256], false), (b"n/".repeat(2049), true)] {
        let error = refused(&archive(&[long(&name), file("cut", "")]));
        let is_limit = matches!(error.kind, TarErrorKind::Limit { .. });
        assert_eq!(is_limit, limit, "{error:?}");
        assert!(is_limit || matches!(error.kind, TarErrorKind::Name(_)));
    }
    // A name that nothing follows is a cut archive; an empty one names the root.
    let error = refused(&archive(&[long(b"lost")]));
    assert!(matches!(error.kind, TarErrorKind::Truncated));
    let error = refused(&archive(&[long(b""), file("cut", "")]));
    assert!(matches!(error.kind, TarErrorKind::Name(_)), "{error:?}");
}

#[test]
fn whiteouts_are_ordinary_files() {
    let out = check(&[
        file("etc/hosts", "kept"),
        file("etc/.wh.hosts", ""),
        file("etc/.wh..wh..opq", ""),
        Block::new(b"gone", b'3').seal(),
        pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.whiteout", b"y"),
        ]),
        dir("var/"),
    ])
    .unwrap();
    for part in [
        "/etc/hosts file",
        "/etc/.wh.hosts file",
        "/etc/.wh..wh..opq file",
        "/gone char 0644 1 2 0 10.000000000 rdev=0:0",
        "xattr trusted.overlay.opaque=79 xattr user.overlay.whiteout=79",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}

#[test]
fn setuid_and_devices_are_kept_as_they_are() {
    let out = check(&[
        Block::new(b"su", b'0').set(100, b"0104755\0").seal(),
        Block::new(b"mail", b'0').set(100, b"0002755\0").seal(),
        Block::new(b"tmp", b'5').set(100, b"0001777\0").seal(),
        Block::new(b"sda", b'4')
            .set(329, b"0000010\0")
            .set(337, b"0000001\0")
            .seal(),
        Block::new(b"mem", b'3')
            .set(329, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
            .seal(),
        Block::new(b"fifo", b'6').set(100, b"0004666\0").seal(),
    ])
    .unwrap();
    for part in [
        "/su file 4755 1 2",
        "/mail file 2755 1 2",
        "/tmp dir 1777 1 2",
        "/sda block 0644 1 2 0 10.000000000 rdev=8:1",
        "/mem char 0644 1 2 0 10.000000000 rdev=4294967295:0",
        "/fifo fifo 4666",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    let negative = Block::new(b"n", b'3').set(329, &[0xff; 8]).seal();
    let error = refused(&archive(&[negative]));
    assert!(
        matches!(error.kind, TarErrorKind::Field("devmajor")),
        "{error:?}"
    );
}

#[test]
fn names_that_look_alike_are_different_names() {
    let names = [
        &b"README"[..],
        b"readme",
        b"ReadMe",
        // e with acute accent: one character, a letter with a mark, and one byte of Latin-1.
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"caf\xe9",
        "\u{212b}".as_bytes(),
        "\u{c5}".as_bytes(),
        b"a ",
        b"a",
        b"a.",
        b"con",
        b"\xff\xfe",
        b"new\nline",
        "\u{202e}txt".as_bytes(),
    ];
    let members: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| Block::new(name, b'0').data(i.to_string().as_bytes()))
        .collect();
    let (tree, blobs) = at(&archive(&members)).unwrap();
    assert_eq!(tree.children(crate::Ino::ROOT).unwrap().len(), names.len());
    for (i, name) in names.iter().enumerate() {
        let Kind::File(content) = &tree.inode(tree.lookup(name).unwrap()).kind else {
            panic!("{name:?}")
        };
        assert_eq!(
            content.read_to_vec(&blobs, 9).unwrap(),
            i.to_string().as_bytes()
        );
    }
}

#[test]
fn of_two_members_with_one_name_the_last_counts() {
    // The first file keeps its other name; the second is a file of its own.
    let members = [
        file("f", "one"),
        hard("h", "f"),
        file("./f", "two"),
        hard("i", "f"),
        file("//f", "three"),
    ];
    for (path, text) in [("f", "three"), ("h", "one"), ("i", "two")] {
        assert_eq!(content(&members, path), text, "{path}");
    }
    let out = check(&[
        file("x", ""),
        dir("x/"),
        dir("y/"),
        file("y", ""),
        symlink("z", "x"),
        dir("z/"),
        file("z/in", ""),
        pax(&[("SCHILY.xattr.user.a", b"1")]),
        dir("x/"),
        Block::new(b"x/", b'5').set(100, b"0000711\0").seal(),
    ])
    .unwrap();
    let expected = [
        "/x dir 0711 1 2 0 10.000000000\n",
        "/y file",
        "/z dir",
        "/z/in file",
    ];
    for part in expected {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}

#[test]
fn a_cut_archive_says_where_it_ends() {
    let bytes = archive(&[file("a", "hello"), file("b", &"x".repeat(2000))]);
    for (len, entry, offset, member) in [
        (100, 1, 0, None),
        (700, 1, 0, Some("a")),
        (1024, 2, 1024, None),
        (1200, 2, 1024, None),
        (1600, 2, 1024, Some("b")),
        (3584, 3, 3584, None),
    ] {
        let error = refused(&bytes[..len]);
        assert!(matches!(error.kind, TarErrorKind::Truncated), "{error:?}");
        let found = error.member.map(|m| String::from_utf8(m).unwrap());
        assert_eq!(
            (error.entry, error.offset, found.as_deref()),
            (entry, offset, member),
            "{len}"
        );
    }
}

#[test]
fn what_follows_the_end_mark_is_not_read() {
    let good = archive(&[file("a", "hello")]);
    let expected = check(&[file("a", "hello")]).unwrap();
    let garbage = vec![0x5a; 3000];
    let second = archive(&[file("b", "")]);
    for tail in [&garbage, &second, &vec![0; 10240]] {
        let bytes = [&good[..], tail].concat();
        for (tree, blobs) in [at(&bytes).unwrap(), streamed(&bytes).unwrap()] {
            assert_eq!(dump(&tree, &blobs), expected);
        }
    }
    // A compressed stream has to be whole to its end: what follows it was never an archive.
    for (name, packed) in compressed(&good) {
        let error = streamed(&[&packed[..], &garbage].concat()).unwrap_err();
        assert!(
            matches!(error.kind, TarErrorKind::Read(_)),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_wrong_checksum_is_found_at_its_header() {
    let members = [file("a", "hello"), file("b", ""), file("c", "")];
    for at_byte in [0, 99, 107, 130, 148, 150, 156, 345, 511] {
        let mut bytes = archive(&members);
        bytes[1024 + at_byte] ^= 0x04;
        let error = refused(&bytes);
        assert!(
            matches!(error.kind, TarErrorKind::Checksum),
            "byte {at_byte}: {error:?}"
        );
        assert_eq!((error.entry, error.offset, &error.member), (2, 1024, &None));
        assert_eq!(error.to_string(), "tar archive, entry 2 at byte 1024");
    }
    // Signed sums of old writers count as well.
    let mut block = Block::new(b"caf\xe9", b'0').seal();
    let sum: i32 = block
        .iter()
        .enumerate()
        .map(|(i, b)| i32::from(if (148..156).contains(&i) { b' ' } else { *b }.cast_signed()))
        .sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check(&[block]).unwrap();
}

#[test]
fn times_are_kept_as_far_as_they_are_numbers() {
    let mtime = |bytes: &[u8; 12]| archive(&[Block::new(b"f", b'0').set(136, bytes).seal()]);
    let secs = |value: i64| {
        let mut field = if value < 0 { [0xff; 12] } else { [0; 12] };
        field[4..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
        field
    };
    for value in [-1, -2_147_483_649, 1 << 40, i64::MAX, i64::MIN, 0] {
        let (tree, _) = at(&mtime(&secs(value))).unwrap();
        let stat = tree.inode(tree.lookup(b"f").unwrap()).stat;
        assert_eq!(stat.mtime, Timestamp::from_secs(value));
    }
    let (tree, _) = at(&mtime(b"777777777777")).unwrap();
    let stat = tree.inode(tree.lookup(b"f").unwrap()).stat;
    assert_eq!(stat.mtime.secs, 0o777_777_777_777);
    let mut beyond = secs(i64::MIN);
    beyond[3] = 0x7f;
    for field in [
        &beyond,
        b"0000000000x\0",
        b"-0000000001\0",
        b"00000009999\0",
    ] {
        let error = refused(&mtime(field));
        assert!(
            matches!(error.kind, TarErrorKind::Field("mtime")),
            "{field:?}"
        );
    }
    for text in [
        &b"99999999999999999999"[..],
        b"1.2.3",
        b"--1",
        b"1,5",
        b"nan",
        b"1e9",
    ] {
        let error = refused(&archive(&[pax(&[("mtime", text)]), file("f", "")]));
        assert!(
            matches!(error.kind, TarErrorKind::Field("mtime")),
            "{text:?}"
        );
    }
}

#[test]
fn names_of_attributes_are_bytes_up_to_what_linux_takes() {
    let attr = |name: &[u8], value: &[u8]| {
        let key = [&b"SCHILY.xattr."[..], name].concat();
        [pax_bytes(&key, value), file("f", "")].concat()
    };
    for name in [
        &b"user.../../etc/passwd"[..],
        b"user.new\nline\x1b[31m",
        b"user.\xff\xfe",
        b"trusted.x",
        b"nonsense",
        &[b'n'; 255],
    ] {
        let (tree, _) = at(&archive(&[attr(name, b"v")])).unwrap();
        let inode = tree.inode(tree.lookup(b"f").unwrap());
        assert_eq!(inode.xattrs.get(name).map(Vec::as_slice), Some(&b"v"[..]));
    }
    // `=` and `%` are written as `%3D` and `%25` by GNU tar.
    let (tree, _) = at(&archive(&[attr(b"user.a%3Db%25%41", b"=v")])).unwrap();
    let inode = tree.inode(tree.lookup(b"f").unwrap());
    assert_eq!(inode.xattrs.get(&b"user.a=b%%41"[..]).unwrap(), b"=v");
    for (name, value) in [
        (&b""[..], &b"v"[..]),
        (b"user.a\0b", b"v"),
        (&[b'n'; 256], b"v"),
        (b"user.large", &[0; (64 << 10) + 1]),
    ] {
        let error = refused(&archive(&[attr(name, value)]));
        assert!(
            matches!(error.kind, TarErrorKind::Field("extended attribute")),
            "{error:?}"
        );
    }
}

/// A PAX header with one record whose key is not text.
fn pax_bytes(key: &[u8], value: &[u8]) -> Vec<u8> {
    let placeholder: String = "k".repeat(key.len());
    let mut bytes = pax(&[(&placeholder, value)]);
    let at = 512 + bytes[512..].iter().position(|b| *b == b' ').unwrap() + 1;
    bytes[at..at + key.len()].copy_from_slice(key);
    bytes
}
