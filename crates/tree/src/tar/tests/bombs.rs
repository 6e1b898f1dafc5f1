//! Archives that ask for more than they are: sizes, counts, depths, and what unpacks to far more than
//! it is. Limits stop them, and the error says which one and where.

use std::io;

use amiforge_types::ReadAt;

use super::*;

fn limited(bytes: &[u8], limits: Limits) -> TarError {
    let options = ReadOptions { limits, ..OPTIONS };
    let mut blobs = BlobTable::new();
    let blob = Arc::new(bytes.to_vec());
    let id = blobs.add(blob.clone());
    let error = read_at(&*blob, id, &options).unwrap_err();
    let streamed = read_stream(&mut &*bytes, &mut io::sink(), &options).unwrap_err();
    assert_eq!(error.to_string(), streamed.to_string());
    error
}

fn limit_of(error: &TarError) -> &'static str {
    match &error.kind {
        TarErrorKind::Limit { what, .. } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_petabyte_that_is_only_claimed_is_refused() {
    let petabyte = 1_u64 << 50;
    let field = |n: u64| {
        let mut field = [0; 12];
        field[4..].copy_from_slice(&n.to_be_bytes());
        field[0] = 0x80;
        field
    };
    let text = petabyte.to_string();
    let text = text.as_bytes();
    let claims = [
        vec![Block::new(b"f", b'0').set(124, &field(petabyte)).seal()],
        vec![
            Block::new(b"f", b'0')
                .set(124, &field(u64::MAX >> 1))
                .seal(),
        ],
        vec![pax(&[("size", text)]), file("f", "")],
        vec![
            Block::new(b"f", b'S')
                .set(257, b"ustar  \0")
                .set(483, &field(petabyte))
                .seal(),
        ],
        vec![
            pax(&[("GNU.sparse.size", text), ("GNU.sparse.map", b"")]),
            file("f", ""),
        ],
        vec![
            pax(&[
                ("GNU.sparse.size", text),
                ("GNU.sparse.numblocks", b"1"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", text),
            ]),
            file("f", "abc"),
        ],
        vec![
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", text),
            ]),
            file("f", &format!("{:512}", "0\n")),
        ],
    ];
    for (i, members) in claims.iter().enumerate() {
        let error = limited(&archive(members), Limits::DEFAULT);
        assert_eq!(limit_of(&error), "bytes in one file", "claim {i}");
        assert_eq!((error.entry, error.member.as_deref()), (1, Some(&b"f"[..])));
    }
    // What is within the limit of a file but not there is a cut archive.
    let terabyte = Block::new(b"f", b'0').set(124, &field(1 << 39)).seal();
    let error = limited(&archive(&[terabyte]), Limits::DEFAULT);
    assert!(matches!(error.kind, TarErrorKind::Truncated), "{error:?}");
}

/// An archive of empty files that is made while it is read.
struct Endless {
    files: u64,
    name: fn(u64) -> String,
}

impl ReadAt for Endless {
    fn size(&self) -> u64 {
        (self.files + 2) * 512
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(512) && buf.len().is_multiple_of(512));
        for (i, block) in (offset / 512..).zip(buf.chunks_exact_mut(512)) {
            block.fill(0);
            if i < self.files {
                block.copy_from_slice(&Block::new((self.name)(i).as_bytes(), b'0').seal());
            }
        }
        Ok(())
    }
}

fn endless(files: u64, name: fn(u64) -> String, limits: Limits) -> Result<Tree, TarError> {
    let archive = Endless { files, name };
    let id = BlobTable::new().add(Arc::new(Vec::new()));
    read_at(&archive, id, &ReadOptions { limits, ..OPTIONS })
}

/// Takes seconds when names are found in logarithmic time, and does not end when they are not.
#[test]
fn a_million_entries_are_read() {
    let tree = endless(1_000_000, |i| format!("d/{i}"), Limits::DEFAULT).unwrap();
    assert_eq!(tree.slots(), 1_000_002);
    let dir = tree.children(tree.lookup(b"d").unwrap()).unwrap();
    assert_eq!(dir.len(), 1_000_000);
}

#[test]
fn entries_end_at_the_limit() {
    let limits = Limits {
        entries: 1000,
        ..Limits::DEFAULT
    };
    let error = endless(u64::MAX >> 10, |i| i.to_string(), limits).unwrap_err();
    assert_eq!((limit_of(&error), error.entry), ("entries", 1001));
    assert_eq!(error.offset, 1000 * 512);
    // Folders that the archive leaves out count as well.
    let error = endless(u64::MAX >> 10, |i| format!("{i}/a/b/c"), limits).unwrap_err();
    assert_eq!((limit_of(&error), error.entry), ("entries", 251));
    // So do members that replace one another.
    let error = endless(u64::MAX >> 10, |_| "f".to_owned(), limits).unwrap_err();
    assert_eq!((limit_of(&error), error.entry), ("entries", 1001));
}

#[test]
fn nesting_ends_at_the_limit_also_through_links() {
    let long = |name: &[u8]| Block::new(b"L", b'L').data(name);
    let deep = |levels: usize| b"d/".repeat(levels);
    // As deep as a name can be.
    let out = check(&[long(&[&deep(2047)[..], b"f"].concat()), file("cut", "")]).unwrap();
    assert_eq!(out.lines().count(), 2049);
    // From there on with a short name.
    let thousand = b"dd/".repeat(1000);
    let link = Block::new(b"K", b'K').data(&thousand);
    let members = [
        long(&thousand),
        Block::new(b"cut", b'5').seal(),
        link,
        Block::new(b"s", b'2').seal(),
        long(&[&b"s/"[..], &thousand, b"f"].concat()),
        file("cut", ""),
    ];
    let error = limited(&archive(&members), Limits::DEFAULT);
    assert_eq!((limit_of(&error), error.entry), ("bytes of a name", 3));
    let shallow = Limits {
        depth: 100,
        ..Limits::DEFAULT
    };
    let error = limited(
        &archive(&[file(&"d/".repeat(49), "")]),
        Limits {
            depth: 10,
            ..shallow
        },
    );
    assert_eq!(limit_of(&error), "directories below one another");
    // Few links that make many steps.
    let round = b"./".repeat(1000);
    let members = [
        Block::new(b"d", b'5').seal(),
        Block::new(b"K", b'K').data(&[&round[..], b"b"].concat()),
        Block::new(b"a", b'2').seal(),
        Block::new(b"K", b'K').data(&[&round[..], b"c"].concat()),
        Block::new(b"b", b'2').seal(),
        Block::new(b"K", b'K').data(&[&round[..], b"d"].concat()),
        Block::new(b"c", b'2').seal(),
        file("b/x", ""),
        file("a/x", ""),
    ];
    let error = limited(&archive(&members), Limits::DEFAULT);
    assert!(
        matches!(error.kind, TarErrorKind::LinkChain(_)),
        "{error:?}"
    );
    assert_eq!(error.entry, 6);
}

#[test]
fn what_unpacks_to_more_than_the_limit_stops_there() {
    let zeros = vec![0; 8 << 20];
    let bytes = archive(&[
        file("small", "x"),
        Block::new(b"bomb", b'0').data(&zeros),
        Block::new(b"bomb2", b'0').data(&zeros),
    ]);
    let limits = Limits {
        data_bytes: 10 << 20,
        ..Limits::DEFAULT
    };
    let options = ReadOptions { limits, ..OPTIONS };
    for (name, packed) in compressed(&bytes) {
        assert!(packed.len() < 200_000, "{name}: {}", packed.len());
        let mut spool = Vec::new();
        let error = read_stream(&mut packed.as_slice(), &mut spool, &options).unwrap_err();
        assert_eq!(limit_of(&error), "bytes of file data", "{name}");
        assert_eq!((error.entry, error.offset), (3, (8 << 20) + 1536), "{name}");
        assert!(spool.len() <= 10 << 20, "{name}: {}", spool.len());
    }
    // After the end mark nothing is kept, and not for ever read.
    let mut bytes = archive(&[file("f", "x")]);
    bytes.resize(bytes.len() + (80 << 20), 0);
    let packed = zstd::encode_all(&*bytes, 1).unwrap();
    streamed(&packed).unwrap();
}

#[test]
fn a_decoder_is_not_given_all_the_memory_it_asks_for() {
    let bytes = archive(&[file("f", &"data".repeat(10_000))]);
    // A real dictionary of 512 MiB would have to be allocated to write this: change the byte that
    // declares it, in the block header, and the header's checksum.
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&bytes).unwrap();
    let mut xz = xz.finish().unwrap();
    let header_len = (usize::from(xz[12]) + 1) * 4;
    let header = &mut xz[12..12 + header_len];
    let at = header.windows(2).position(|w| *w == [0x21, 0x01]).unwrap() + 2;
    header[at] = 34;
    let crc = flate2_crc(&header[..header_len - 4]);
    header[header_len - 4..].copy_from_slice(&crc.to_le_bytes());
    let error = streamed(&xz).unwrap_err();
    assert!(matches!(error.kind, TarErrorKind::Read(_)), "{error:?}");

    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&bytes).unwrap();
    let error = streamed(&encoder.finish().unwrap()).unwrap_err();
    assert!(matches!(error.kind, TarErrorKind::Read(_)), "{error:?}");
}

fn flate2_crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn what_the_tree_holds_is_limited_as_a_whole() {
    let limits = Limits {
        metadata_bytes: 10_000,
        ..Limits::DEFAULT
    };
    let value = [b'v'; 900];
    let heavy = |i: usize| {
        let name = format!("SCHILY.xattr.user.{i}");
        [pax(&[(&name, &value[..])]), file(&i.to_string(), "")].concat()
    };
    let error = limited(&archive(&(0..20).map(heavy).collect::<Vec<_>>()), limits);
    assert_eq!(
        limit_of(&error),
        "bytes of names, attributes and sparse maps"
    );
    assert_eq!(error.entry, 11);

    let runs: Vec<String> = (0..300).map(|i| format!("{},1", i * 10)).collect();
    let sparse = [
        pax(&[
            ("GNU.sparse.size", b"9000"),
            ("GNU.sparse.map", runs.join(",").as_bytes()),
        ]),
        file("f", &"x".repeat(300)),
    ]
    .concat();
    let error = limited(&archive(&[sparse]), limits);
    assert_eq!(
        limit_of(&error),
        "bytes of names, attributes and sparse maps"
    );

    let target = vec![b't'; 4000];
    let link = |i: usize| {
        let name = i.to_string();
        [
            Block::new(b"K", b'K').data(&target),
            Block::new(name.as_bytes(), b'2').seal(),
        ]
        .concat()
    };
    let error = limited(&archive(&(0..5).map(link).collect::<Vec<_>>()), limits);
    assert_eq!(error.entry, 3);
}

#[test]
fn a_list_of_names_is_looked_up_once() {
    // As many entries as an attribute holds, each with a name, and as many users.
    let users: String = (0..5000).map(|i| format!("user{i}:x:{i}:\n")).collect();
    let text: String = (0..5000).map(|i| format!("user:user{i}:r--,")).collect();
    let acl = pax(&[("SCHILY.acl.access", text.as_bytes())]);
    let members = [acl, file("f", ""), file("etc/passwd", &users)];
    let (tree, _) = at(&archive(&members)).unwrap();
    let inode = tree.inode(tree.lookup(b"f").unwrap());
    let value = &inode.xattrs[&b"system.posix_acl_access"[..]];
    assert_eq!(value.len(), 4 + 5000 * 8);
    let too_long = pax(&[("SCHILY.acl.access", &b"user:1:r--,".repeat(60_000))]);
    let error = at(&archive(&[too_long, file("f", "")])).unwrap_err();
    assert!(matches!(error.kind, TarErrorKind::Field(_)), "{error:?}");
}
