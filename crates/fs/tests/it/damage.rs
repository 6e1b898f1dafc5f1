//! Damaged images are errors, never panics and never endless.

use std::sync::Arc;

use amiforge_disk::{ExtentData, Extents};
use amiforge_fs::ext4::{self, FileKind, Size};
use amiforge_fs::fat::{self, FatFile};
use amiforge_types::{MIB, ReadAt};

use crate::corpus;

fn flat(extents: &Extents) -> Vec<u8> {
    let mut out = vec![0; extents.size() as usize];
    for extent in extents.list() {
        if let ExtentData::Bytes(bytes) = &extent.data {
            out[extent.offset as usize..extent.end() as usize].copy_from_slice(bytes);
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
        match entry.stat.kind {
            FileKind::Dir => walk_ext4(reader, &below, left),
            FileKind::File => drop(reader.read_at(&below, entry.stat.size / 2, &mut [0; 4096])),
            FileKind::Symlink => drop((reader.read_link(&below), reader.resolve(&below))),
            _ => {}
        }
    }
}

#[test]
fn ext4() {
    let mut tree = corpus::tree();
    for i in 0..200 {
        tree.insert(
            format!("file with a name so that there is an index {i}").as_bytes(),
            corpus::file(&[1; 5000]),
        )
        .unwrap();
    }
    let image = flat(
        &ext4::plan(&tree, &corpus::options(Size::Volume(16 * MIB)))
            .unwrap()
            .extents,
    );
    for source in damaged(
        &image,
        300,
        &[(1024, 1024), (4096, 64), (4096, 1 << 20), (0, 16 << 20)],
    ) {
        if let Ok(reader) = ext4::Reader::open(source, 0, 16 * MIB) {
            walk_ext4(&reader, b"", &mut 500);
        }
    }
}
