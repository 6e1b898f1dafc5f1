//! The documents of an OCI image layout (image-spec 1.1): configuration, manifest, index, `oci-layout`.
//!
//! ```text
//! oci-layout                          which version of the layout this is
//! index.json        ─▶ manifest      with the name of the image
//! blobs/sha256/<m>     manifest ─▶ configuration, layers
//! blobs/sha256/<c>     configuration: how to run it, the digests of the layers' archives, their history
//! blobs/sha256/<l>…    layers: archives of changes, compressed
//! ```
//!
//! Documents only, from values to bytes: equal values are equal bytes. The archives are written by
//! `amiforge-tree`, and who puts all of it into a folder is `amiforge-engine`.
#![forbid(unsafe_code)]

mod config;
mod manifest;
mod reference;

pub use config::{Healthcheck, History, ImageConfig, RunConfig};
pub use manifest::{Descriptor, Image, LAYOUT, LayerBlob, LayerFormat, image};
pub use reference::reference;
