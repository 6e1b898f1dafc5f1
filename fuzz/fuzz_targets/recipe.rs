//! Invariant: any text is read or answered with diagnostics; never a panic, never unbounded work.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = amiforge_recipe::parse_recipe(text);
    let _ = amiforge_recipe::parse_document(text);
});
