//! Invariant: control files, Release files and indices are read or refused with a line; the solver
//! ends, and orders what it picked.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        amiforge_source::fuzzing::deb822(text);
    }
});
