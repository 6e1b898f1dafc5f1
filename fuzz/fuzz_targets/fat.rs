//! Invariant: a file system is opened or refused; walking what opens ends.
#![no_main]

use std::sync::Arc;

use amiforge_fs::fat::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(reader) = Reader::open(Arc::new(data.to_vec()), 0, data.len() as u64) else {
        return;
    };
    let _ = reader.list("/");
    let _ = reader.read("/a");
});
