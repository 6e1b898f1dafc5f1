//! Damaged images are errors, never panics and never endless.

use std::sync::Arc;

use amiforge_disk::{ExtentData, Extents};
use amiforge_fs::ext4::{self, FileKind, Size};
use amiforge_fs::fat::{self, FatFile};
use amiforge_types::{BlobTable, MIB, ReadAt};

use crate::corpus;

fn flat(extents: &Extents) -> Vec<u8> {
    let mut out = vec![0; extents.size() as usize];
    for extent in extents.list() {
        if !matches!(extent.data, ExtentData::Blob { .. }) {
            let range = extent.offset as usize..extent.end() as usize;
            extent
                .read_exact(&BlobTable::new(), &mut out[range], 0)
                .unwrap();
        }
    }
    out
}

/// Copies of `image` with a few bytes changed, most of them where there is metadata.
fn damaged(
    image: &[u8],
    rounds: u32,
    hot: &[(usize, usize)],
) -> impl Iterator<Item = Arc<dyn ReadAt>> {
    (0..rounds).map(move |round| {
        let mut bytes = image.to_vec();
        let noise = corpus::noise(64, round + 1);
        for change in noise.chunks(8).take(1 + round as usize % 8) {
            let (start, len) = hot[change[0] as usize % hot.len()];
            let at = start
                + (usize::from(change[1]) << 16
                    | usize::from(change[2]) << 8
                    | usize::from(change[3]))
                    % len;
            bytes[at] = if change[4] % 3 == 0 { 0xFF } else { change[5] };
        }
        Arc::new(bytes) as Arc<dyn ReadAt>
    })
}

fn walk_fat(reader: &fat::Reader, path: &str, left: &mut u32) {
    let Ok(entries) = reader.list(path) else {
        return;
    };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let below = format!("{path}/{}", entry.name);
        let _ = reader.stat(&below);
        if entry.stat.directory {
            walk_fat(reader, &below, left);
        } else {
            let _ = reader.read_at(&below, entry.stat.size / 2, &mut [0; 4096]);
        }
    }
}

#[test]
fn fat() {
    let mut files: Vec<_> = (0..30)
        .map(|i| FatFile::new(format!("a/b/some long name {i}"), vec![i; 3000]))
        .collect();
    files.push(FatFile::new(
        "EFI/BOOT/BOOTX64.EFI",
        corpus::noise(50_000, 1),
    ));
    for size in [MIB, 8 * MIB, 34 * MIB] {
        let options = fat::Options {
            size,
            volume_id: 1,
            label: String::new(),
            clock: corpus::CLOCK,
            hidden_sectors: 0,
        };
        let image = flat(&fat::build(&files, &options).unwrap());
        let rounds = if size > 10 * MIB { 60 } else { 400 };
        for source in damaged(
            &image,
            rounds,
            &[(0, 64), (0, 4096), (512, 60_000), (0, 800_000)],
        ) {
            if let Ok(reader) = fat::Reader::open(source, 0, size) {
                walk_fat(&reader, "", &mut 500);
            }
        }
    }
}

/// Reads everything there is, and does not mind errors.
fn walk_ext4(reader: &ext4::Reader, path: &[u8], left: &mut u32) {
    let Ok(entries) = reader.list(path) else {
        return;
    };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let below = [path, b"/", &entry.name].concat();
        let _ = reader.xattrs(&below);
        match entry.stat.kind {
            FileKind::Dir => walk_ext4(reader, &below, left),
            FileKind::File => {
                drop(reader.data_runs(&below));
                drop(reader.read_at(&below, entry.stat.size / 2, &mut [0; 4096]));
            }
            FileKind::Symlink => drop((reader.read_link(&below), reader.resolve(&below))),
            _ => {}
        }
    }
}

/// An image with some bytes changed.
struct Patched {
    base: Arc<Vec<u8>>,
    patches: Vec<(usize, u8)>,
}

impl ReadAt for Patched {
    fn size(&self) -> u64 {
        self.base.len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.base.read_exact_at(buf, offset)?;
        let start = offset as usize;
        for (at, byte) in &self.patches {
            if (start..start + buf.len()).contains(at) {
                buf[at - start] = *byte;
            }
        }
        Ok(())
    }
}

/// Walks `rounds` versions of an image, each with other damage where there are bytes at all. Returns
/// in how many the whole tree could still be read.
fn walk_damaged(image: Vec<u8>, rounds: u32) -> u32 {
    let base = Arc::new(image);
    let len = base.len() as u64;
    let hot: Vec<usize> = (0..base.len() / 1024)
        .filter(|n| base[n * 1024..(n + 1) * 1024].iter().any(|b| *b != 0))
        .collect();
    let mut whole = 0;
    for round in 0..rounds {
        let noise = corpus::noise(200, round + 1);
        let mut patches = Vec::new();
        for change in noise.chunks_exact(8).take(1 + round as usize % 12) {
            let word = |at: usize| usize::from(change[at]) << 8 | usize::from(change[at + 1]);
            let at = hot[(word(0) << 8 | word(2)) % hot.len()] * 1024 + word(4) % 1024;
            match change[6] % 5 {
                0 => patches.push((at, base[at] ^ 1 << (change[7] % 8))),
                1 => patches.push((at, 0xFF)),
                2 => patches.push((at, change[7])),
                3 => patches.extend((at / 16 * 16..at / 16 * 16 + 16).map(|at| (at, 0))),
                // Numbers of other blocks and inodes are what leads in circles.
                _ => patches.push((at / 4 * 4, change[7] % 64)),
            }
        }
        let base = Arc::clone(&base);
        let source: Arc<dyn ReadAt> = Arc::new(Patched { base, patches });
        let blob = BlobTable::new().add(Arc::clone(&source));
        if let Ok(reader) = ext4::Reader::open(source, 0, len) {
            walk_ext4(&reader, b"", &mut 2000);
            let _ = reader.usage();
            whole += u32::from(reader.tree(blob, 0).is_ok());
        }
    }
    whole
}

/// A small image of everything, with metadata of all kinds.
fn small_corpus() -> Vec<u8> {
    let mut tree = corpus::tree();
    for i in 0..200 {
        let name = format!("file with a name so that there is an index {i}");
        tree.insert(name.as_bytes(), corpus::file(&[1; 50]))
            .unwrap();
    }
    let (everything, _) = corpus::everything();
    for path in ["xattr", "dev"] {
        let dir = everything.lookup(path.as_bytes()).unwrap();
        tree.insert(path.as_bytes(), corpus::dir()).unwrap();
        for (name, ino) in everything.children(dir).unwrap().iter() {
            let full = [path.as_bytes(), b"/", name].concat();
            tree.insert(&full, everything.inode(ino)).unwrap();
        }
    }
    flat(
        &ext4::plan(&tree, &corpus::options(Size::Volume(16 * MIB)))
            .unwrap()
            .extents,
    )
}

#[test]
fn ext4_with_checksums() {
    let whole = walk_damaged(small_corpus(), 1500);
    assert!(whole < 1500);
}

#[test]
fn images_of_mke2fs_without_checksums() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    std::fs::create_dir_all(host.join("a/b/c")).unwrap();
    for i in 0..120 {
        let name = host.join(format!("a/some name that takes some room {i}"));
        std::fs::write(name, b"x").unwrap();
    }
    let file = std::fs::File::create(host.join("a/pieces")).unwrap();
    for i in 0..300_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"piece", i * 9000).unwrap();
    }
    std::os::unix::fs::symlink("b/../../a", host.join("a/link")).unwrap();
    let image = tmp.path().join("image");
    for options in [
        &["-t", "ext2", "-b", "1024"][..],
        &["-t", "ext3", "-b", "1024", "-J", "size=1"],
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "^metadata_csum,^has_journal",
        ],
        &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "^metadata_csum,^has_journal,inline_data,^resize_inode",
        ],
    ] {
        let (from, at) = (host.to_string_lossy(), image.to_string_lossy());
        let _ = std::fs::remove_file(&image);
        let mut args = vec!["-q", "-F", "-d", &from, "-N", "300"];
        args.extend(options);
        args.extend([&*at, "4M"]);
        crate::tool::stdout("mke2fs", &args);
        let out = crate::tool::run("e2fsck", &["-fyD", &at]);
        assert!(out.status.code().is_some_and(|code| code < 4), "{out:?}");
        walk_damaged(std::fs::read(&image).unwrap(), 1000);
    }
}
