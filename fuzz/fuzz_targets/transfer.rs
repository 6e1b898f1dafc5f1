//! Invariant: answers of name servers and of S3, addresses and the files of resolver and AWS are read or refused;
//! an address is its own text, and no key leads out of the folder.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| amiforge_exec::fuzzing::transfer(data));
