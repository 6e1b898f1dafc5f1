//! A repository as a shared cache: an entry is a manifest under a tag, whose configuration is the entry's document and
//! whose one layer is what the document tells of.

use std::fs::File;
use std::path::Path;

use amiforge_types::Digest;
use serde::Deserialize;
use serde_json::json;

use super::registry::{Payload, Registry};
use super::{OciContext, Reference, ResolvedBlob, document};
use crate::shared::{MAX_ENTRY, SharedBlob};
use crate::transfer::Transfer;
use crate::{SharedEntry, SourceError};

const ARTIFACT: &str = "application/vnd.amiforge.cache.entry.v1";
const DOCUMENT: &str = "application/vnd.amiforge.cache.entry.v1+json";
const BLOB: &str = "application/vnd.amiforge.cache.blob.v1";
/// A manifest has at least one layer (image-spec 1.1, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The client of a repository that is a cache.
pub(crate) struct Repository<'a> {
    registry: Registry<'a>,
    reference: &'a Reference,
}

impl<'a> Repository<'a> {
    pub(crate) fn new(
        transfer: &'a Transfer<'a>,
        ctx: &'a OciContext<'a>,
        reference: &'a Reference,
        write: bool,
    ) -> Result<Self, SourceError> {
        let registry = Registry::new(transfer, ctx, reference)?;
        let registry = if write { registry.writing() } else { registry };
        Ok(Self {
            registry,
            reference,
        })
    }

    pub(crate) fn has_blob(&self, blob: SharedBlob) -> Result<bool, SourceError> {
        self.registry.has_blob(blob.digest, blob.bytes)
    }

    /// The document of an entry. Whatever manifest is there decides nothing but which blob it is.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        #[derive(Deserialize)]
        struct Manifest {
            config: document::Descriptor,
        }
        let Some(sent) = self.registry.manifest(name)? else {
            return Ok(None);
        };
        let what = format!("the manifest {}:{name}", self.reference.name());
        let bad = |reason: String| SourceError::malformed(&what, reason);
        let manifest: Manifest = serde_json::from_slice(&sent.bytes)
            .map_err(|e| bad(format!("not of an entry of a cache: {e}")))?;
        if manifest.config.media_type != DOCUMENT || manifest.config.size > MAX_ENTRY {
            return Err(bad("not of an entry of a cache".to_owned()));
        }
        let digest = manifest
            .config
            .digest(&what)
            .map_err(|e| bad(e.to_string()))?;
        match self.registry.small_blob(digest, MAX_ENTRY)? {
            Some(document) => Ok(Some(document)),
            None => Err(bad(format!("the registry does not have its {digest}"))),
        }
    }

    pub(crate) fn bring(
        &self,
        blob: SharedBlob,
        dest: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), SourceError> {
        let blob = ResolvedBlob {
            digest: blob.digest,
            size: blob.bytes,
            media_type: BLOB.to_owned(),
        };
        self.registry.blob(&blob, dest, progress).map(drop)
    }

    pub(crate) fn put(&self, entry: &SharedEntry<'_>) -> Result<(), SourceError> {
        let layer = match &entry.blob {
            Some((blob, path)) => {
                let file = File::open(path).map_err(|e| SourceError::io(*path, e))?;
                self.registry.push_blob(blob.digest, Payload::File(&file))?;
                descriptor(BLOB, blob.digest, blob.bytes)
            }
            None => {
                let digest = Digest::of(b"{}");
                self.registry.push_blob(digest, Payload::Bytes(b"{}"))?;
                descriptor(EMPTY, digest, 2)
            }
        };
        let digest = Digest::of(entry.document);
        self.registry
            .push_blob(digest, Payload::Bytes(entry.document))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": ARTIFACT,
            "config": descriptor(DOCUMENT, digest, entry.document.len() as u64),
            "layers": [layer],
        });
        let manifest = manifest.to_string();
        for name in entry.names {
            self.registry.push_manifest(name, manifest.as_bytes())?;
        }
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}
