//! Invariant: a package is unpacked into a layer that can be stored, or refused.
#![no_main]

use std::io::Write;
use std::path::Path;

use amiforge_source::{
    Asked, Context, FetchedDebian, ResolvedDebian, ResolvedPackage, unpack,
};
use amiforge_tree::layer;
use amiforge_types::{Arch, BlobTable, Digest, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut deb = tempfile::NamedTempFile::new().expect("a temporary file");
    deb.write_all(data).expect("room for it");
    let package = ResolvedPackage {
        // As in the seeds: another name is refused before anything is read.
        name: "x".into(),
        version: "1.0-1".into(),
        arch: "all".into(),
        sha256: Digest::of(data),
        size: data.len() as u64,
        filename: "x.deb".into(),
        uri: "file:/x".into(),
        stage: 3,
        auto: false,
    };
    let resolved = ResolvedDebian {
        format: 2,
        suite: "x".into(),
        codename: "x".into(),
        arch: Arch::X86_64,
        asked: Asked::default(),
        packages: vec![package],
        archives: Vec::new(),
        newest: Timestamp::default(),
        sources: Vec::new(),
    };
    let fetched = FetchedDebian {
        debs: vec![deb.path().to_owned()],
        downloaded: 0,
    };
    let context = Context {
        host_root: Path::new("/nonexistent"),
        cache: Path::new("/nonexistent"),
        now: Timestamp::default(),
        offline: true,
        jobs: 1,
        proxies: &amiforge_source::Proxies::default(),
        events: &|_| {},
    };
    let spool = tempfile::tempfile().expect("a temporary file");
    let mut blobs = BlobTable::new();
    if let Ok(diff) = unpack(&resolved, &fetched, spool, &mut blobs, &context) {
        let mut stored = Vec::new();
        layer::write(&diff, &blobs, &mut stored).expect("what was unpacked can be stored");
    }
});
