//! From a reference to digests.

use std::path::{Path, PathBuf};

use amiforge_types::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::document::{self, Document, MAX_CONFIG, MAX_MANIFEST};
use super::layout::{Layout, oci};
use super::model::FORMAT;
use super::registry::Registry;
use super::{OciContext, OciError, OciPlace, OciRequest, Reference, ResolvedBlob, ResolvedOci};
use crate::transfer::{Patience, Transfer};
use crate::{SourceError, SourceEvent};

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// Finds out what a reference names now: the manifest for the architecture, its configuration and layers.
///
/// A tag is asked for in the registry each time. What is named by digest comes from `<cache>/oci` when it is there;
/// offline, so does what a tag named last.
///
/// # Errors
/// When the image cannot be had, is not for the architecture, or is of a form that is not read.
pub fn resolve(request: &OciRequest, ctx: &OciContext<'_>) -> Result<ResolvedOci, SourceError> {
    resolve_with(request, ctx, Patience::NORMAL)
}

pub(super) fn resolve_with(
    request: &OciRequest,
    ctx: &OciContext<'_>,
    patience: Patience,
) -> Result<ResolvedOci, SourceError> {
    let shown = request.place.to_string();
    match &request.place {
        OciPlace::Registry(reference) => {
            let dir = folder(ctx)?;
            let transfer = Transfer::new(ctx.base, patience);
            let remote = Remote {
                registry: Registry::new(&transfer, ctx, reference)?,
                reference,
                ctx,
                dir,
            };
            let (top, media_type) = match reference.digest() {
                Some(digest) => (digest, None),
                None => remote.tag(reference.tag().unwrap_or_default())?,
            };
            walk(
                request,
                ctx,
                &remote,
                &shown,
                reference.name(),
                top,
                media_type,
            )
        }
        OciPlace::Layout { path, asked, tag } => {
            let layout = Layout::open(path, asked)?;
            let (top, media_type) = layout.manifest(tag.as_deref(), request.arch, ctx.max_bytes)?;
            walk(
                request,
                ctx,
                &layout,
                &shown,
                asked.clone(),
                top,
                Some(media_type),
            )
        }
    }
}

/// `<cache>/oci`, which is made.
pub(super) fn folder(ctx: &OciContext<'_>) -> Result<PathBuf, SourceError> {
    let dir = ctx.base.cache.join("oci");
    let tags = dir.join("tags");
    fs_err::create_dir_all(&tags).map_err(|e| SourceError::io(&tags, e))?;
    Ok(dir)
}

/// Where documents come from, by digest and verified.
trait Documents {
    /// A manifest or index, and the type that whoever has it says it has.
    fn manifest(&self, digest: Digest) -> Result<(Vec<u8>, Option<String>), SourceError>;
    /// A configuration.
    fn config(&self, config: &ResolvedBlob) -> Result<Vec<u8>, SourceError>;
}

impl Documents for Layout {
    fn manifest(&self, digest: Digest) -> Result<(Vec<u8>, Option<String>), SourceError> {
        Ok((self.blob(digest, MAX_MANIFEST)?, None))
    }

    fn config(&self, config: &ResolvedBlob) -> Result<Vec<u8>, SourceError> {
        self.blob(config.digest, MAX_CONFIG)
    }
}

fn walk(
    request: &OciRequest,
    ctx: &OciContext<'_>,
    documents: &dyn Documents,
    shown: &str,
    name: String,
    top: Digest,
    media_type: Option<String>,
) -> Result<ResolvedOci, SourceError> {
    let wrap = |e| oci(shown, e);
    let (mut at, mut media_type) = (top, media_type.filter(|t| !t.is_empty()));
    for _ in 0..MAX_DEPTH {
        let what = format!("manifest sha256:{}", at.hex());
        let (bytes, served) = documents.manifest(at)?;
        let said = media_type.as_deref().or(served.as_deref());
        let document = document::parse(&what, &bytes, said, ctx.max_bytes).map_err(wrap)?;
        let (config, layers) = match document {
            Document::Image { config, layers } => (config, layers),
            Document::Index(entries) => {
                let entry = document::select(&what, &entries, request.arch).map_err(wrap)?;
                at = entry.digest(&what).map_err(wrap)?;
                media_type = Some(entry.media_type.clone()).filter(|t| !t.is_empty());
                continue;
            }
        };
        let bytes = documents.config(&config)?;
        let what = format!("configuration sha256:{}", config.digest.hex());
        let read = document::config(&what, &bytes, layers, request.arch).map_err(wrap)?;
        return Ok(ResolvedOci {
            format: FORMAT,
            reference: shown.to_owned(),
            name,
            arch: request.arch,
            index: (at != top).then_some(top),
            manifest: at,
            config,
            layers: read.layers,
            newest: read.created.unwrap_or_default(),
            run: read.run,
        });
    }
    let reason = format!("there are more than {MAX_DEPTH} indexes in each other");
    Err(wrap(OciError::document(shown, reason)))
}

/// What a tag named when it was last asked for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tagged {
    format: u32,
    reference: String,
    digest: Digest,
    media_type: Option<String>,
}

struct Remote<'a> {
    registry: Registry<'a>,
    reference: &'a Reference,
    ctx: &'a OciContext<'a>,
    dir: PathBuf,
}

impl Remote<'_> {
    fn missing(&self, what: String) -> SourceError {
        oci(
            &self.reference.to_string(),
            OciError::Missing {
                place: self.reference.name(),
                what,
            },
        )
    }

    /// What a tag names. Its document is in the cache afterwards.
    fn tag(&self, tag: &str) -> Result<(Digest, Option<String>), SourceError> {
        let shown = self.reference.to_string();
        let mut hasher = Hasher::new();
        hasher.field(shown.as_bytes());
        let record = self
            .dir
            .join("tags")
            .join(format!("{}.json", hasher.finish().hex()));
        if self.ctx.base.offline {
            let known: Option<Tagged> = std::fs::read(&record)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .filter(|t: &Tagged| t.format == FORMAT && t.reference == shown);
            return match known {
                Some(tagged) => Ok((tagged.digest, tagged.media_type)),
                None => Err(SourceError::Offline { what: shown }),
            };
        }
        let sent = self.registry.manifest(tag)?;
        let sent = sent.ok_or_else(|| self.missing(format!("the tag {tag}")))?;
        let digest = Digest::of(&sent.bytes);
        // What it says itself is no proof of anything, but has to be true.
        let said = sent
            .digest
            .as_deref()
            .and_then(|d| d.strip_prefix("sha256:"));
        if let Some(expected) = said.and_then(|hex| hex.parse::<Digest>().ok())
            && expected != digest
        {
            return Err(SourceError::Digest {
                uri: shown,
                expected,
                got: digest,
            });
        }
        keep(&self.path(digest), &sent.bytes)?;
        let tagged = Tagged {
            format: FORMAT,
            reference: shown,
            digest,
            media_type: sent.content_type,
        };
        let json = serde_json::to_vec(&tagged)
            .map_err(|e| SourceError::malformed("record of a tag", e.to_string()))?;
        keep(&record, &json)?;
        (self.ctx.base.events)(SourceEvent::Index {
            uri: tagged.reference,
            cached: false,
        });
        Ok((tagged.digest, tagged.media_type))
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }
}

impl Documents for Remote<'_> {
    fn manifest(&self, digest: Digest) -> Result<(Vec<u8>, Option<String>), SourceError> {
        let path = self.path(digest);
        if let Some(bytes) = cached(&path, digest, MAX_MANIFEST) {
            return Ok((bytes, None));
        }
        let of = format!("sha256:{}", digest.hex());
        let sent = self.registry.manifest(&of)?;
        let sent = sent.ok_or_else(|| self.missing(format!("the manifest {of}")))?;
        let got = Digest::of(&sent.bytes);
        if got != digest {
            return Err(SourceError::Digest {
                uri: format!("{}@{of}", self.reference.name()),
                expected: digest,
                got,
            });
        }
        keep(&path, &sent.bytes)?;
        Ok((sent.bytes, sent.content_type))
    }

    fn config(&self, config: &ResolvedBlob) -> Result<Vec<u8>, SourceError> {
        bring_config(&self.registry, config, &self.path(config.digest))
    }
}

/// The configuration, from the cache or the registry.
pub(super) fn bring_config(
    registry: &Registry<'_>,
    config: &ResolvedBlob,
    path: &Path,
) -> Result<Vec<u8>, SourceError> {
    if let Some(bytes) = cached(path, config.digest, MAX_CONFIG) {
        return Ok(bytes);
    }
    let _ = std::fs::remove_file(path);
    registry.blob(config, path, &|_| {})?;
    fs_err::read(path).map_err(|e| SourceError::io(path, e))
}

/// A document of the cache, when it is there and whole.
fn cached(path: &Path, digest: Digest, limit: u64) -> Option<Vec<u8>> {
    let len = std::fs::metadata(path).ok()?.len();
    let bytes = (len <= limit).then(|| std::fs::read(path).ok()).flatten()?;
    (Digest::of(&bytes) == digest).then_some(bytes)
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    amiforge_store::write_atomic(path, bytes).map_err(SourceError::Cache)
}
