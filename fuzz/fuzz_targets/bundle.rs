//! Invariant: a manifest of a bundle is read or refused, no name in it is a path, and its parts are numbered without a gap; keys and
//! certificates are read or refused.
#![no_main]

use amiforge_bundle::{BundleManifest, Certificate, PrivateKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Certificate::parse(data);
    let _ = PrivateKey::parse(data);
    let Ok(manifest) = BundleManifest::from_xml(&String::from_utf8_lossy(data)) else {
        return;
    };
    let _ = manifest.facts(amiforge_types::Digest::of(b""));
    assert!(!manifest.parts.is_empty());
    assert!(
        manifest
            .parts
            .iter()
            .all(|p| !p.file_name.contains('/') && !p.file_name.starts_with('.'))
    );
});
