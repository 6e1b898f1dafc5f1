#![allow(
    clippy::disallowed_types,
    reason = "the reference is the real grub-mkimage"
)]

use std::process::Command;

use super::*;

const LIBRARY: &str = "/usr/lib/grub/i386-pc";

fn read(name: &str) -> Result<Arc<[u8]>, ImageError> {
    #[allow(clippy::disallowed_methods, reason = "a test reads the host's GRUB")]
    let bytes = std::fs::read(format!("{LIBRARY}/{name}"));
    bytes.map(Arc::from).map_err(|source| ImageError::Read {
        path: name.to_owned(),
        source,
    })
}

/// The plain part of a core image, unpacked by liblzma.
fn unpack(core: &[u8], decompressor: usize) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(core[at..at + 4].try_into().unwrap()) as usize;
    let (packed, plain) = (word(512 + COMPRESSED_SIZE), word(512 + PLAIN_SIZE));
    let stream = &core[512 + decompressor..512 + decompressor + packed];
    let mut options = LzmaOptions::new_preset(6).unwrap();
    options
        .dict_size(1 << 16)
        .literal_context_bits(3)
        .literal_position_bits(0)
        .position_bits(2);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut decoder = Stream::new_raw_decoder(&filters).unwrap();
    let mut out = Vec::with_capacity(plain);
    let _ = decoder.process_vec(stream, &mut out, Action::Run).unwrap();
    assert_eq!(out.len(), plain);
    out
}

#[test]
fn the_real_grub_mkimage_makes_the_same() {
    for modules in [
        &["biosdisk", "part_gpt", "ext2"][..],
        &["normal", "linux", "search", "serial", "lvm", "ext2"],
    ] {
        let prefix = "(,gpt1)/boot/grub";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core.img");
        let mut command = Command::new("grub-mkimage");
        command
            .args(["-O", "i386-pc", "-d", LIBRARY, "-p", prefix, "-o"])
            .arg(&path)
            .args(modules);
        assert!(
            command
                .status()
                .expect("grub-mkimage (package grub-common)")
                .success()
        );
        #[allow(clippy::disallowed_methods, reason = "a test reads what it made")]
        let theirs = std::fs::read(&path).unwrap();
        let ours = build(&read, prefix, modules).unwrap();

        let decompressor = read("lzma_decompress.img").unwrap().len();
        assert_eq!(unpack(&ours.bytes, decompressor), ours.plain);
        let their_plain = unpack(&theirs, decompressor);
        assert_eq!(ours.plain.len(), their_plain.len());
        assert!(
            ours.plain == their_plain,
            "the plain parts of {modules:?} differ"
        );
        assert!(
            ours.bytes.len() <= theirs.len() + theirs.len() / 100,
            "{} bytes against {}",
            ours.bytes.len(),
            theirs.len()
        );
        // Before the stream only the two sizes that depend on the encoder may differ.
        let mask = |core: &[u8]| {
            let mut head = core[..512 + decompressor].to_vec();
            head[SECTOR_COUNT..SECTOR_COUNT + 2].fill(0);
            head[512 + COMPRESSED_SIZE..512 + COMPRESSED_SIZE + 4].fill(0);
            head
        };
        assert!(mask(&ours.bytes) == mask(&theirs), "the heads differ");
    }
}

#[test]
fn needed_modules_come_first_and_once() {
    let table = "a: b c\nb: d\nc: d\nd:\n";
    assert_eq!(resolve(table, &["a", "d", "c"]), ["d", "c", "b", "a"]);
    assert_eq!(resolve("x: y\ny: x\n", &["x"]), ["y", "x"], "a cycle ends");
}

#[test]
fn damaged_inputs_are_refused() {
    for (broken, replacement) in [
        ("kernel.img", &b"\x7FELF\x01\x01"[..]),
        ("kernel.img", b"nothing"),
        ("diskboot.img", &[0; 512]),
        ("lzma_decompress.img", &[0; 4]),
    ] {
        let read = |name: &str| {
            if name == broken {
                Ok(Arc::from(replacement))
            } else {
                read(name)
            }
        };
        assert!(build(&read, "/boot/grub", &["ext2"]).is_err(), "{broken}");
    }
}
