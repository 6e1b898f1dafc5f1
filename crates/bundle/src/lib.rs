//! Bundles of instance-store (S3-backed) images, both directions, as streams.
//!
//! ```text
//! image ─▶ tar of one file ─▶ gzip ─▶ AES-128-CBC, PKCS#7 ─▶ parts of 10 MiB <prefix>.part.00 …
//!             └ SHA-1                                          └ SHA-1 each   ─▶ <prefix>.manifest.xml, signed
//! ```
//!
//! [`bundle`] writes parts and manifest, [`BundleManifest::from_xml`] reads a manifest, [`unbundle`] gives the image back. Key and initialization
//! vector are drawn for each bundle from the [`Random`] handed in, and lie in the manifest under the certificates of the user and of EC2.
//!
//! A bundle is foreign input: the signature is verified before anything of the manifest is used, each part's digest before a byte of it is
//! decrypted, and the image is bounded by the size that the manifest says. The digest of the whole is known at its end alone, so what
//! [`unbundle`] wrote is worth nothing until it returns `Ok`.
//!
//! SHA-1 and PKCS#1 v1.5 are the format's, not a choice: a bundle is no proof against somebody who can make collisions.
//!
//! A [`KeyPair`] stands for EC2 where bundles are launched: a key, and a certificate that others bundle for.
//!
//! What is *not* here: files, the catalog, and images of more than 10 GiB, which instance stores cannot have.
//!
//! Source: EC2 user guide of 2023, `componentsamis`, `ami-tools-commands`; the layout that ec2-ami-tools and euca2ools write.
#![forbid(unsafe_code)]

mod cipher;
mod error;
mod keys;
mod manifest;
mod pair;
mod read;
mod tar;
#[cfg(test)]
mod tests;
mod write;

pub use error::{BundleError, KeyError, ManifestError};
pub use keys::{Certificate, MAX_KEY_BYTES, PrivateKey, certificate_pem};
pub use manifest::{
    BundleManifest, Bundler, DeviceMapping, MANIFEST_VERSION, MAX_MANIFEST_BYTES, MAX_PARTS,
    PartRecord,
};
pub use pair::KeyPair;
pub use read::{MAX_PART_BYTES, PartSource, Unbundled, copy_parts, unbundle, unpack};
pub use write::{BundleOptions, Bundled, PART_BYTES, PartSink, Random, WrittenPart, bundle};

/// Most bytes that the image of an instance-store root has: 10 GiB.
pub const MAX_IMAGE_BYTES: u64 = 10 << 30;
