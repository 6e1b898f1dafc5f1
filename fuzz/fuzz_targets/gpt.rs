//! Invariant: a partition table is read or refused; partitions that are read lie on the disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = amiforge_disk::gpt::read_gpt(&data.to_vec());
});
