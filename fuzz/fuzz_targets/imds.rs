//! Invariant: whatever a guest sends to its metadata service is answered with a status that the service has; only `GET`,
//! `HEAD` and `PUT` succeed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| amiforge_vm::fuzzing::http(data));
