//! FAT against dosfstools, mtools and our own reader.

use std::sync::Arc;

use amiforge_disk::Extents;
use amiforge_fs::fat::{self, FatError, FatFile, Options, Reader};
use amiforge_types::{BlobTable, MIB, Timestamp};

use crate::image::{self, HostFile, Image};
use crate::{corpus, tool};

fn options(size: u64) -> Options {
    Options {
        size,
        volume_id: 0x1234_ABCD,
        label: "efi".into(),
        clock: corpus::CLOCK,
        hidden_sectors: 0,
    }
}

fn files() -> Vec<FatFile> {
    let mut files = vec![
        FatFile::new("EFI/BOOT/BOOTX64.EFI", corpus::noise(948_768, 1)),
        FatFile::new("EFI/BOOT/grubx64.efi", corpus::noise(600_001, 2)),
        FatFile::new("EFI/debian/grub.cfg", b"configfile\n".to_vec()),
        FatFile::new(
            "EFI/debian/fonts/a name with spaces and \u{e9}.pf2",
            corpus::noise(513, 3),
        ),
        FatFile::new("empty.txt", Vec::new()),
        FatFile::new("meta-data", b"instance-id: x\n".to_vec()),
    ];
    files.extend(
        (0..100).map(|i| FatFile::new(format!("loader/entries/entry-{i:03}.conf"), vec![i; 700])),
    );
    files
}

fn made(files: &[FatFile], options: &Options) -> (Extents, Image) {
    let extents = fat::build(files, options).unwrap();
    let image = image::write(&extents, &BlobTable::new());
    let out = tool::run("fsck.vfat", &["-n", &image.path.to_string_lossy()]);
    let text = String::from_utf8_lossy(&out.stdout);
    // The version, and the summary: nothing else.
    assert!(out.status.success() && text.lines().count() == 2, "{text}");
    (extents, image)
}

fn open(image: &Image) -> Reader {
    let source = HostFile::open(&image.path);
    let len = source.size();
    Reader::open(source, 0, len).unwrap()
}

#[test]
fn volumes_of_all_sizes_hold_their_files() {
    let files = files();
    for (size, kind) in [
        (4 * MIB, "FAT12"),
        (8 * MIB, "FAT16"),
        (16 * MIB, "FAT16"),
        (33 * MIB - 512, "FAT16"),
        (33 * MIB, "FAT32"),
        (64 * MIB, "FAT32"),
        (124 * MIB, "FAT32"),
        (512 * MIB, "FAT32"),
    ] {
        let (extents, image) = made(&files, &options(size));
        assert_eq!(extents.size(), size);
        let reader = open(&image);
        assert_eq!(
            (reader.kind(), reader.volume_id(), reader.label().as_str()),
            (kind, 0x1234_ABCD, "EFI"),
            "{size}"
        );
        let disk = image.path.to_string_lossy();
        for (index, file) in files.iter().enumerate() {
            assert!(
                reader.read(&file.path).unwrap() == *file.content,
                "{size} {}",
                file.path
            );
            if file.path.is_ascii() && index < 8 {
                let bytes = tool::stdout("mtype", &["-i", &disk, &format!("::/{}", file.path)]);
                assert!(bytes == *file.content, "{size} {}", file.path);
            }
        }
        let list = tool::text("mdir", &["-i", &disk, "-a", "::/EFI/BOOT"]);
        assert!(
            list.contains("BOOTX64") && list.contains("2020-09-13  12:26"),
            "{list}"
        );
        let entries = reader.list("/loader/entries").unwrap();
        assert_eq!(entries.len(), 100);
        assert_eq!(
            (entries[7].name.as_str(), entries[7].stat.size),
            ("entry-007.conf", 700)
        );
        assert_eq!(entries[7].stat.mtime, Some(corpus::CLOCK));
    }
}

#[test]
fn a_large_volume_with_little_in_it_is_cheap() {
    let files = [FatFile::new(
        "EFI/BOOT/BOOTX64.EFI",
        corpus::noise(5 << 20, 1),
    )];
    let (extents, _) = made(&files, &options(64 * MIB));
    assert!(
        extents.data_len() < (5 << 20) + 200_000,
        "{}",
        extents.data_len()
    );
    let (extents, _) = made(&[], &options(512 * MIB));
    assert!(extents.data_len() < 40_000, "{}", extents.data_len());
}

#[test]
fn same_input_same_bytes_in_any_order() {
    let mut files = files();
    let a = fat::build(&files, &options(64 * MIB)).unwrap();
    files.reverse();
    assert_eq!(a, fat::build(&files, &options(64 * MIB)).unwrap());
    // The clock is that of the options: nothing is left of an earlier one.
    let other = Options {
        clock: Timestamp::from_secs(0),
        ..options(64 * MIB)
    };
    let image = made(&files, &other).1;
    let list = tool::text("mdir", &["-i", &image.path.to_string_lossy(), "::/EFI"]);
    assert!(list.contains("1980-01-01   0:00"), "{list}");
    assert_eq!(a, fat::build(&files, &options(64 * MIB)).unwrap());
}

#[test]
fn hidden_sectors_are_in_both_boot_sectors() {
    for (size, copies) in [(64 * MIB, vec![0, 6]), (16 * MIB, vec![0])] {
        let options = Options {
            hidden_sectors: 2_099_200,
            ..options(size)
        };
        let (_, image) = made(&files(), &options);
        let bytes = std::fs::read(&image.path).unwrap();
        for sector in &copies {
            let at = sector * 512 + 28;
            assert_eq!(
                bytes[at..at + 4],
                2_099_200_u32.to_le_bytes(),
                "{size} {sector}"
            );
        }
        if copies.len() == 2 {
            assert_eq!(bytes[..512], bytes[6 * 512..7 * 512]);
            assert_eq!(bytes[512..1024], bytes[7 * 512..8 * 512]);
        }
    }
}

#[test]
fn what_cannot_be_stored_is_named() {
    let build = |paths: &[&str], size: u64| {
        let files: Vec<_> = paths
            .iter()
            .map(|p| FatFile::new(*p, vec![1; 100_000]))
            .collect();
        fat::build(&files, &options(size)).unwrap_err()
    };
    for path in [
        "",
        "/EFI",
        "a//b",
        "a/",
        "a:b",
        "../x.",
        "nul\0",
        "a/..",
        &"n".repeat(256),
    ] {
        assert!(
            matches!(build(&[path], MIB), FatError::BadPath(p) if p == path),
            "{path:?}"
        );
    }
    match build(&["a", "b", "c"], 128 << 10) {
        FatError::TooSmall { size, needed } => {
            assert!(size == 128 << 10 && needed > 300_000, "{size} {needed}")
        }
        other => panic!("{other}"),
    }
    for size in [0, 1000, 4096, 513 * 1024 + 1, 4 << 40] {
        assert!(
            matches!(build(&["a"], size), FatError::Size(s) if s == size),
            "{size}"
        );
    }
    let label = Options {
        label: "twelve chars".into(),
        ..options(MIB)
    };
    assert!(matches!(fat::build(&[], &label), Err(FatError::Label(_))));
}

#[test]
fn names_that_are_one_on_fat_are_refused_with_both() {
    let build = |paths: &[&str]| {
        let files: Vec<_> = paths
            .iter()
            .map(|p| FatFile::new(*p, p.as_bytes().to_vec()))
            .collect();
        fat::build(&files, &options(4 * MIB))
    };
    for (first, second) in [
        ("README", "readme"),
        ("EFI/BOOT/a", "EFI/BOOT/A"),
        ("caf\u{e9}", "CAF\u{c9}"),
        // One character, and a letter with a mark.
        ("caf\u{e9}", "cafe\u{301}"),
        ("CAF\u{c9}", "cafe\u{301}"),
        ("\u{212b}ngstr\u{f6}m", "\u{c5}ngstro\u{308}m"),
        ("d/f", "d/f"),
        ("d", "d/f"),
        // The short name that the longer one gets.
        ("longname1.txt", "LONGNA~1.TXT"),
        ("d/longname1.txt", "d/longna~1.txt"),
    ] {
        for paths in [[first, second], [second, first]] {
            let error = build(&paths).unwrap_err();
            let FatError::Duplicate {
                first: a,
                second: b,
            } = &error
            else {
                panic!("{paths:?}: {error:?}");
            };
            let mut found = [a.as_str(), b.as_str()];
            let mut expected = if first == "d" {
                ["d", "d"]
            } else {
                [first, second]
            };
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{error}");
        }
    }
    let error = build(&["EFI/BOOT/a", "EFI/boot/b"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"EFI/boot\" and \"EFI/BOOT\" cannot both be on a FAT volume"
    );
    let error = build(&["longfolder1/a", "LONGFO~1/b"]).unwrap_err();
    assert!(matches!(error, FatError::Duplicate { .. }), "{error:?}");
}

#[test]
fn names_that_only_look_alike_are_both_there_for_mtools() {
    let names = [
        "longname1.txt",
        "longname2.txt",
        "LONGNA~9.TXT",
        "con",
        "a b.c d",
        "+,;=",
        "\u{436}\u{443}\u{43a}",
        "fi",
        "\u{fb01}x",
    ];
    let files: Vec<_> = names
        .iter()
        .map(|n| FatFile::new(*n, n.as_bytes().to_vec()))
        .collect();
    let (_, image) = made(&files, &options(4 * MIB));
    let reader = open(&image);
    let disk = image.path.to_string_lossy();
    for name in names {
        assert_eq!(reader.read(name).unwrap(), name.as_bytes());
        if name.is_ascii() {
            let path = format!("::/{name}");
            let bytes = tool::stdout("mtype", &["-i", &disk, &path]);
            assert_eq!(bytes, name.as_bytes(), "{name}");
        }
    }
    let list = tool::text("mdir", &["-i", &disk, "-b", "::/"]);
    assert_eq!(list.lines().count(), names.len(), "{list}");
    for bad in [
        "a\\b", "a?", "*", "<", ">", "a|b", "\"", "x\u{7f}", "x\n", " x", "x ", "x.", ".", "..",
        "a/ ",
    ] {
        let files = [FatFile::new(bad, vec![])];
        let error = fat::build(&files, &options(4 * MIB)).unwrap_err();
        assert!(matches!(error, FatError::BadPath(p) if p == bad), "{bad:?}");
    }
}

#[test]
fn many_names_in_a_full_directory_fail_cleanly() {
    // The fixed root directory of FAT12 and FAT16 has 512 slots.
    let files: Vec<_> = (0..600)
        .map(|i| FatFile::new(format!("a-long-name-number-{i}"), vec![]))
        .collect();
    let error = fat::build(&files, &options(8 * MIB)).unwrap_err();
    assert!(matches!(error, FatError::Write { .. }), "{error:?}");
    made(&files, &options(64 * MIB));
}

#[test]
fn the_reader_names_what_is_wrong() {
    let image = made(&files(), &options(64 * MIB)).1;
    let reader = open(&image);
    assert!(matches!(reader.read("EFI"), Err(FatError::IsADirectory(_))));
    assert!(matches!(
        reader.list("meta-data"),
        Err(FatError::NotADirectory(_))
    ));
    assert!(matches!(reader.list("nothing"), Err(FatError::NotFound(_))));
    assert!(matches!(
        reader.stat("EFI/nothing"),
        Err(FatError::NotFound(_))
    ));
    assert!(reader.stat("/").unwrap().directory);
    assert_eq!(reader.stat("efi/boot/GRUBX64.EFI").unwrap().size, 600_001);
    let mut buf = [0; 10];
    assert_eq!(
        reader
            .read_at("EFI/BOOT/grubx64.efi", 599_995, &mut buf)
            .unwrap(),
        6
    );
    assert_eq!(buf[..6], corpus::noise(600_001, 2)[599_995..]);
    let junk: Arc<dyn amiforge_types::ReadAt> = Arc::new(corpus::noise(1 << 20, 1));
    assert!(matches!(
        Reader::open(junk, 0, 1 << 20),
        Err(FatError::Open(_))
    ));
}

#[test]
fn volumes_of_mkfs_and_mtools_read_as_the_folder() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    let mut deep = host.join("tree");
    for level in 0..20 {
        deep.push(format!("a folder at level {level}"));
    }
    std::fs::create_dir_all(&deep).unwrap();
    let mut files = vec![
        ("tree/SHORT.TXT".to_owned(), b"short".to_vec()),
        (
            "tree/mixed Case and \u{fc}ml\u{e4}ut.conf".to_owned(),
            corpus::noise(70_000, 1),
        ),
        (format!("tree/{}", "n".repeat(200)), corpus::noise(513, 2)),
        ("tree/empty".to_owned(), Vec::new()),
    ];
    let below = deep
        .strip_prefix(&host)
        .unwrap()
        .to_string_lossy()
        .into_owned();
    files.push((format!("{below}/at the bottom"), corpus::noise(3000, 3)));
    for i in 0..150 {
        files.push((
            format!("tree/file number {i}"),
            vec![i; usize::from(i) * 20],
        ));
    }
    for (path, bytes) in &files {
        std::fs::write(host.join(path), bytes).unwrap();
    }
    let image = tmp.path().join("image");
    for (options, size, kind) in [
        (&["-F", "12"][..], 4 * MIB, "FAT12"),
        (&["-F", "12", "-S", "4096"], 16 * MIB, "FAT12"),
        (&["-F", "16"], 32 * MIB, "FAT16"),
        (&["-F", "16", "-f", "1", "-s", "4"], 40 * MIB, "FAT16"),
        (&["-F", "32"], 48 * MIB, "FAT32"),
        (&["-F", "32", "-s", "1"], 64 * MIB, "FAT32"),
    ] {
        let at = image.to_string_lossy();
        std::fs::File::create(&image)
            .unwrap()
            .set_len(size)
            .unwrap();
        let mut args = vec!["-n", "MADE"];
        args.extend(options);
        args.push(&at);
        tool::stdout("mkfs.vfat", &args);
        let from = host.join("tree").to_string_lossy().into_owned();
        let out = std::process::Command::new("mcopy")
            .args(["-s", "-i", &at, &from, "::/"])
            .env("LC_ALL", "C.UTF-8")
            .env("MTOOLS_SKIP_CHECK", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{options:?}: {out:?}");
        let reader = Reader::open(HostFile::open(&image), 0, size).unwrap();
        assert_eq!(
            (reader.kind(), reader.label().as_str()),
            (kind, "MADE"),
            "{options:?}"
        );
        for (path, bytes) in &files {
            assert_eq!(
                reader.stat(path).unwrap().size,
                bytes.len() as u64,
                "{path}"
            );
            assert!(reader.read(path).unwrap() == *bytes, "{options:?}: {path}");
        }
        assert_eq!(reader.list("tree").unwrap().len(), files.len());
    }
}
