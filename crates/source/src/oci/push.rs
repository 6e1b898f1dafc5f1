//! What is pushed to a registry (distribution-spec 1.1, "Push"): blobs in one piece, then the manifest that names them.

use amiforge_types::Digest;

use super::registry::{Ask, Payload, Registry};
use crate::SourceError;
use crate::transfer::{Failure, header, refused, whole};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Registry<'_> {
    /// Whether there is something at a path below the repository.
    pub(super) fn has(&self, path: &str) -> Result<bool, SourceError> {
        let uri = self.shown(path);
        let found = self.transfer().retrying(&uri, false, || {
            let ask = Ask {
                method: "HEAD",
                accept: path.starts_with("manifests/").then_some(MANIFEST),
                ..Ask::GET
            };
            match self.ask(path, ask)?.status().as_u16() {
                200 => Ok(()),
                404 | 410 => Err(Failure::NotFound),
                status => Err(refused(&uri, status)),
            }
        })?;
        Ok(found.is_some())
    }

    /// Whether there is a blob of so many bytes. A registry that does not say how many it has is believed.
    pub(super) fn has_blob(&self, digest: Digest, bytes: u64) -> Result<bool, SourceError> {
        let path = format!("blobs/sha256:{digest}");
        let uri = self.shown(&path);
        let found = self.transfer().retrying(&uri, false, || {
            let ask = Ask {
                method: "HEAD",
                ..Ask::GET
            };
            let response = self.ask(&path, ask)?;
            match response.status().as_u16() {
                200 => Ok(header(&response, "content-length").and_then(|n| n.parse().ok())),
                404 | 410 => Err(Failure::NotFound),
                status => Err(refused(&uri, status)),
            }
        })?;
        Ok(found.is_some_and(|size: Option<u64>| size.is_none_or(|size| size == bytes)))
    }

    /// A small blob, with the digest that it has; `None` when there is none.
    pub(super) fn small_blob(
        &self,
        digest: Digest,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let path = format!("blobs/sha256:{digest}");
        let uri = self.shown(&path);
        let found = self.transfer().retrying(&uri, false, || {
            let mut response = self.ask(&path, Ask::GET)?;
            match response.status().as_u16() {
                200 => whole(&uri, &mut response, limit),
                404 | 410 => Err(Failure::NotFound),
                status => Err(refused(&uri, status)),
            }
        })?;
        match found {
            Some(bytes) if Digest::of(&bytes) != digest => Err(SourceError::Digest {
                uri,
                expected: digest,
                got: Digest::of(&bytes),
            }),
            found => Ok(found),
        }
    }

    /// Sends a blob that is not there yet.
    pub(super) fn push_blob(&self, digest: Digest, body: Payload<'_>) -> Result<(), SourceError> {
        if self.has(&format!("blobs/sha256:{digest}"))? {
            return Ok(());
        }
        let path = "blobs/uploads/";
        let uri = self.shown(path);
        let sent = self.transfer().retrying(&uri, false, || {
            let begin = Ask {
                method: "POST",
                payload: Payload::Bytes(&[]),
                ..Ask::GET
            };
            let response = self.ask(path, begin)?;
            match response.status().as_u16() {
                202 => {}
                404 | 410 => return Err(Failure::NotFound),
                status => return Err(refused(&uri, status)),
            }
            let to = header(&response, "location").unwrap_or_default();
            let from = uri
                .parse()
                .map_err(|_| self.address(&uri, &uri, "it is no address"))?;
            let place = self.redirected(&from, to)?.to_string();
            let joint = if place.contains('?') { '&' } else { '?' };
            let put = Ask {
                method: "PUT",
                content_type: Some("application/octet-stream"),
                payload: body,
                ..Ask::GET
            };
            let response = self.ask_at(&format!("{place}{joint}digest=sha256%3A{digest}"), put)?;
            match response.status().as_u16() {
                201 | 204 => Ok(()),
                status => Err(refused(&uri, status)),
            }
        })?;
        sent.ok_or(SourceError::NoFile { uri })
    }

    /// Gives a manifest, whose blobs are there, the name `tag`.
    pub(super) fn push_manifest(&self, tag: &str, manifest: &[u8]) -> Result<(), SourceError> {
        let path = format!("manifests/{tag}");
        let uri = self.shown(&path);
        let sent = self.transfer().retrying(&uri, false, || {
            let put = Ask {
                method: "PUT",
                content_type: Some(MANIFEST),
                payload: Payload::Bytes(manifest),
                ..Ask::GET
            };
            match self.ask(&path, put)?.status().as_u16() {
                201 | 200 | 204 => Ok(()),
                404 | 410 => Err(Failure::NotFound),
                status => Err(refused(&uri, status)),
            }
        })?;
        sent.ok_or(SourceError::NoFile { uri })
    }
}
