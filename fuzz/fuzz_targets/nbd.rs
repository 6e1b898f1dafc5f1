//! Invariant: whatever a client of NBD says, the device is asked for nothing beyond its end, and one that is read-only stays
//! as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| amiforge_vm::fuzzing::nbd(data));
