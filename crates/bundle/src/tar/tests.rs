use super::*;

fn archive(size: u64, content: &[u8]) -> Vec<u8> {
    let mut all = header("image", size).to_vec();
    all.extend_from_slice(content);
    all.resize(all.len() + trailer(content.len() as u64), 0);
    all
}

fn unpacked(archive: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match read(&mut &archive[..], size, &mut out) {
        Ok(()) => Ok(out),
        Err(error) => Err(error.to_string()),
    }
}

/// A header made right again after a change.
fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut all = archive(4, b"text");
    change(&mut all);
    sum(&mut all[..BLOCK]);
    all
}

fn sum(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn the_tar_crate_reads_what_is_written() {
    for len in [0_usize, 1, 511, 512, 513, 8192, 8193, 8704, 9000, 100_000] {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let all = archive(len as u64, &content);
        assert_eq!(all.len() % 10240, 0, "{len}");
        assert_eq!(unpacked(&all, len as u64).unwrap(), content);
        let mut reader = ::tar::Archive::new(&all[..]);
        let mut entries = reader.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("image"));
        let mut found = Vec::new();
        entry.read_to_end(&mut found).unwrap();
        assert_eq!(found, content);
        assert!(entries.next().is_none());
    }
}

#[test]
fn sizes_beyond_eight_gibibytes() {
    for size in [0, (1 << 33) - 1, 1 << 33, 10 << 30] {
        let header = header("image", size);
        assert_eq!(number(&header[124..136]), Some(size));
        assert_eq!(
            ::tar::Header::from_byte_slice(&header)
                .entry_size()
                .unwrap(),
            size
        );
    }
}

#[test]
fn hostile_archives() {
    let good = archive(4, b"text");
    let mut second = good[..1024].to_vec();
    second.extend_from_slice(&good);
    let mut trailing = good.clone();
    *trailing.last_mut().unwrap() = 1;
    let mut checksum = good.clone();
    checksum[0] = b'x';
    for (case, all, size, message) in [
        ("nothing", Vec::new(), 4, "at byte 0: it ends early"),
        ("zeros", vec![0; 10240], 4, "no file in it"),
        ("cut", good[..514].to_vec(), 4, "at byte 512: it ends early"),
        (
            "another size",
            good.clone(),
            5,
            "4 bytes, and the manifest says 5",
        ),
        ("two files", second, 4, "something follows"),
        (
            "a byte at the end",
            trailing,
            4,
            "at byte 10239: something follows",
        ),
        ("a wrong sum", checksum, 4, "checksum"),
        ("a link", changed(|h| h[156] = b'2'), 4, "type '2'"),
        ("a folder", changed(|h| h[156] = b'5'), 4, "type '5'"),
        (
            "a path",
            changed(|h| h[..8].copy_from_slice(b"../image")),
            4,
            "no plain name",
        ),
        (
            "an absolute path",
            changed(|h| h[..6].copy_from_slice(b"/image")),
            4,
            "no plain name",
        ),
        ("no name", changed(|h| h[..5].fill(0)), 4, "no plain name"),
        (
            "no number",
            changed(|h| h[124] = b'9'),
            4,
            "a size that is no number",
        ),
        (
            "a negative size",
            changed(|h| h[124] = 0xff),
            4,
            "a size that is no number",
        ),
        (
            "a long name without end",
            changed(|h| {
                h[156] = b'L';
                h[124] = b'7';
            }),
            4,
            "more than 65536",
        ),
        (
            "PAX that is none",
            changed(|h| h[156] = b'x'),
            4,
            "extended header",
        ),
    ] {
        let found = unpacked(&all, size).unwrap_err();
        assert!(found.contains(message), "{case}: {found}");
    }
}

/// A PAX header before the file.
fn with_pax(records: &[&str]) -> Vec<u8> {
    let data: String = records
        .iter()
        .map(|r| {
            let length = (r.len() + 2..)
                .find(|n| *n == n.to_string().len() + r.len() + 2)
                .unwrap();
            format!("{length} {r}\n")
        })
        .collect();
    let mut all = header("x", data.len() as u64);
    all[156] = b'x';
    sum(&mut all);
    let mut all = all.to_vec();
    all.extend_from_slice(data.as_bytes());
    all.resize(1024, 0);
    all.extend(changed(|h| h[124..135].copy_from_slice(b"00000000000")));
    all
}

#[test]
fn pax_headers() {
    assert_eq!(
        unpacked(&with_pax(&["size=4", "path=web.img", "mtime=1.5"]), 4).unwrap(),
        b"text"
    );
    for (record, message) in [
        ("size=x", "extended header"),
        ("size=+4", "extended header"),
        ("path=/etc/passwd", "no plain name"),
        ("GNU.sparse.major=1", "sparse file of PAX"),
    ] {
        let found = unpacked(&with_pax(&["size=4", record]), 4).unwrap_err();
        assert!(found.contains(message), "{record}: {found}");
    }
}

/// An old GNU sparse file of 16 bytes with these pieces.
fn sparse_file(pieces: &[(u64, u64)], stored: &[u8]) -> Vec<u8> {
    let mut all = header("image", stored.len() as u64);
    all[156] = b'S';
    for (i, (offset, bytes)) in pieces.iter().take(4).enumerate() {
        all[386 + 24 * i..][..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
        all[398 + 24 * i..][..12].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
    }
    all[482] = u8::from(pieces.len() > 4);
    all[483..495].copy_from_slice(b"00000000020\0");
    sum(&mut all);
    let mut all = all.to_vec();
    if pieces.len() > 4 {
        let mut more = [0; BLOCK];
        for (i, (offset, bytes)) in pieces[4..].iter().enumerate() {
            more[24 * i..][..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            more[24 * i + 12..][..12].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
        }
        all.extend_from_slice(&more);
    }
    all.extend_from_slice(stored);
    all.resize(all.len().div_ceil(10240) * 10240, 0);
    all
}

#[test]
fn sparse_files() {
    let of = |pieces: &[(u64, u64)], stored: &[u8]| unpacked(&sparse_file(pieces, stored), 16);
    assert_eq!(
        of(&[(2, 3), (8, 1), (16, 0)], b"abcd").unwrap(),
        b"\0\0abc\0\0\0d\0\0\0\0\0\0\0"
    );
    assert_eq!(
        of(
            &[(0, 1), (2, 1), (4, 1), (6, 1), (8, 1), (15, 1)],
            b"abcdef"
        )
        .unwrap(),
        b"a\0b\0c\0d\0e\0\0\0\0\0\0f"
    );
    assert_eq!(of(&[], b"").unwrap(), [0; 16]);
    for (pieces, stored, message) in [
        (&[(4, 2), (2, 2)][..], &b"abcd"[..], "overlap"),
        (&[(0, 3), (2, 2)], b"abcde", "overlap"),
        (&[(15, 2)], b"ab", "outside"),
        (&[(u64::MAX >> 31, 1)], b"a", "outside"),
        (&[(0, 4)], b"ab", "overlap or lie outside"),
        (&[(0, 1)], b"ab", "more bytes than its pieces"),
    ] {
        let found = of(pieces, stored).unwrap_err();
        assert!(found.contains(message), "{pieces:?}: {found}");
    }
    let found = unpacked(&sparse_file(&[(0, 1)], b"a"), 17).unwrap_err();
    assert!(found.contains("another size"), "{found}");
}
