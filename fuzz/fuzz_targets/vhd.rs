//! Invariant: an image is opened or refused; whatever opens can be read anywhere without a panic.
#![no_main]

use std::sync::Arc;

use amiforge_disk::{Format, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(disk) = open(Format::Vhd, Arc::new(data.to_vec())) else {
        return;
    };
    let mut buf = [0; 4096];
    let last = disk.size().saturating_sub(buf.len() as u64);
    for offset in [0, last / 3, last / 2, last] {
        let len = buf
            .len()
            .min(usize::try_from(disk.size()).unwrap_or(buf.len()));
        let _ = disk.read_exact_at(&mut buf[..len], offset);
    }
});
