//! Files as sources and targets.

use std::sync::Arc;

use amiforge_store::{FileBlob, FileTarget};
use amiforge_types::{ReadAt, WriteAt};

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

#[test]
fn copies_between_files_in_the_kernel_and_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(1_000_000);
    std::fs::write(dir.path().join("src"), &data).unwrap();
    let file = FileBlob::open(dir.path().join("src")).unwrap();
    let sources: [Arc<dyn ReadAt>; 2] = [Arc::new(file), Arc::new(data.clone())];
    for (i, src) in sources.into_iter().enumerate() {
        let path = dir.path().join(format!("out{i}"));
        let target = FileTarget::create(&path).unwrap();
        target.copy_from(&*src, 4096, 500_000, 1 << 20).unwrap();
        target.copy_from(&*src, 1, 3, 7).unwrap();
        target.copy_from(&*src, 0, 0, 0).unwrap();
        target.set_len(3 << 20).unwrap();
        let out = std::fs::read(&path).unwrap();
        assert_eq!(out.len(), 3 << 20);
        assert_eq!(out[1 << 20..(1 << 20) + 500_000], data[4096..504_096]);
        assert_eq!(out[7..10], data[1..4]);
        assert!(out[10..1 << 20].iter().all(|b| *b == 0));
        // What nobody wrote is a hole.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
        assert!(blocks * 512 < 600_000, "{blocks} blocks");
    }
}

#[test]
fn copying_past_the_end_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("src"), "short").unwrap();
    let src = FileBlob::open(dir.path().join("src")).unwrap();
    let target = FileTarget::create(dir.path().join("out")).unwrap();
    let error = target.copy_from(&src, 2, 10, 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

/// Between file systems the kernel may refuse; the bytes have to arrive all the same.
#[test]
fn copies_to_another_file_system() {
    let disk = amiforge_testkit::SmallDisk::new(4 << 20);
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(300_000);
    std::fs::write(dir.path().join("src"), &data).unwrap();
    let src = FileBlob::open(dir.path().join("src")).unwrap();
    let target = FileTarget::create(disk.path().join("out")).unwrap();
    target.copy_from(&src, 0, 300_000, 4096).unwrap();
    assert_eq!(
        std::fs::read(disk.path().join("out")).unwrap()[4096..],
        data
    );
}

#[test]
fn only_regular_files_are_blobs() {
    assert!(FileBlob::open("/dev/null").is_err());
    assert!(FileBlob::open("/tmp").is_err());
    let error = FileBlob::open("/no/such/file").unwrap_err();
    assert!(error.to_string().contains("/no/such/file"));
}
