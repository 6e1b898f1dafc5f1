//! Invariant: a file system is opened or refused; reading everything in what opens ends.
#![no_main]

use std::sync::Arc;

use amiforge_fs::ext4::{FileKind, Reader};
use amiforge_types::{BlobTable, ReadAt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let source: Arc<dyn ReadAt> = Arc::new(data.to_vec());
    let blob = BlobTable::new().add(Arc::clone(&source));
    let Ok(reader) = Reader::open(source, 0, data.len() as u64) else {
        return;
    };
    let _ = reader.usage();
    let _ = reader.tree(blob, 0);
    for entry in reader.list(b"/").unwrap_or_default() {
        let Ok(node) = reader.by_number(entry.stat.ino) else {
            continue;
        };
        let _ = node.xattrs();
        let _ = match entry.stat.kind {
            FileKind::Dir => node.list().map(drop),
            FileKind::Symlink => reader.resolve(&entry.name).map(drop),
            _ => node.read_at(entry.stat.size / 2, &mut [0; 4096]).map(drop),
        };
        let _ = reader.stat(&entry.name);
    }
});
