//! Invariant: any text is read or answered with diagnostics that lie inside it; never a panic, never unbounded work.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (component, _) = amiforge_recipe::parse_component(text);
    if let Some(component) = component {
        // What was accepted has one canonical form.
        assert_eq!(component.canonical(), component.canonical());
    }
});
