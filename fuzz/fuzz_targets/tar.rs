//! Invariant: an archive is read or refused; what is read can be written and read again, equal.
#![no_main]

use std::sync::Arc;

use amiforge_tree::tar::{self, Limits, ReadOptions};
use amiforge_types::{BlobTable, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let options = ReadOptions {
        build_clock: Timestamp::from_secs(1),
        limits: Limits::DEFAULT,
    };
    let mut spool = Vec::new();
    let Ok(spooled) = tar::read_stream(&mut &*data, &mut spool, &options) else {
        return;
    };
    let mut blobs = BlobTable::new();
    let tree = spooled.into_tree(blobs.add(Arc::new(spool)));
    let mut again = Vec::new();
    if tar::write(&tree, &blobs, &mut again).is_err() {
        return;
    }
    let mut spool = Vec::new();
    tar::read_stream(&mut again.as_slice(), &mut spool, &options)
        .expect("what we wrote can be read");
});
