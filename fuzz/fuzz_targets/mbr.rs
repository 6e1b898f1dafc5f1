//! Invariant: a partition table is read or refused; partitions that are read lie on the disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let disk = data.to_vec();
    if let Ok(table) = amiforge_disk::mbr::Mbr::read(&disk) {
        for part in table.partitions {
            assert!(
                part.first_lba <= part.last_lba && (part.last_lba + 1) * 512 <= disk.len() as u64
            );
        }
    }
});
