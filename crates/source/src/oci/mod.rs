//! OCI images as parents: references, registries, layouts, and their layers as one layer of ours.
//!
//! - `reference`: `debian:12` and its like, as Docker and the distribution spec read them.
//! - [`resolve()`]: what the reference names now: the manifest for one architecture, its configuration, its layers,
//!   every one by digest.
//! - [`fetch()`]: the layers, into the cache or found in the layout.
//! - [`unpack()`]: the archives applied in order, whiteouts and all.
//! - `push`, `repository`: a repository as a [shared cache](crate::SharedCache).
//!
//! Sources: OCI distribution-spec 1.1, image-spec 1.1, and the forms that Docker had before
//! (image manifest version 2, schema 2; token authentication).

mod challenge;
mod credentials;
mod document;
mod error;
mod fetch;
mod layout;
mod model;
mod push;
mod reference;
mod registry;
mod repository;
mod resolve;
#[cfg(test)]
mod tests;
mod unpack;

pub use credentials::{Credential, CredentialFiles};
pub use error::{LayerError, OciError};
pub use fetch::fetch;
pub use model::{
    FetchedOci, FindCredential, OciContext, OciPlace, OciRequest, PlacedBlob, ResolvedBlob,
    ResolvedOci, ResolvedOciLayer,
};
pub(crate) use reference::is_loopback;
pub use reference::{Reference, ReferenceError};
pub(crate) use repository::Repository;
pub use resolve::resolve;
pub use unpack::unpack;

/// Reads a text as a reference, a challenge, a manifest and a configuration.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    use amiforge_types::Arch;
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(
            reference.to_string().parse(),
            Ok(reference),
            "the name of a name"
        );
    }
    let _ = challenge::parse(text);
    let bytes = text.as_bytes();
    match document::parse("fuzz", bytes, None, 1 << 30) {
        Ok(document::Document::Index(entries)) => {
            let _ = document::select("fuzz", &entries, Arch::X86_64);
        }
        Ok(document::Document::Image { layers, .. }) => {
            let total: u64 = layers.iter().map(|l| l.size).sum();
            assert!(total <= 1 << 30, "what is taken has its bound");
        }
        Err(_) => {}
    }
    let _ = document::config("fuzz", bytes, Vec::new(), Arch::X86_64);
    let _ = serde_json::from_slice::<ResolvedOci>(bytes).map(|lock| lock.check());
}
