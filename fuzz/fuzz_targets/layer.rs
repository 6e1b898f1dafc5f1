//! Invariant: a layer file is read or refused with an offset.
#![no_main]

use std::sync::Arc;

use amiforge_types::BlobTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes: Arc<[u8]> = data.into();
    let id = BlobTable::new().add(Arc::new(Arc::clone(&bytes)));
    let _ = amiforge_tree::layer::read(&bytes, id);
});
