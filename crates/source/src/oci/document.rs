//! The documents of an image: index, manifest, configuration (image-spec 1.1: image-index.md, manifest.md, config.md,
//! descriptor.md; Docker's image manifest version 2, schema 2), and Docker's list of manifests.

use amiforge_types::{Arch, Digest, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::OciError;
use super::model::{ResolvedBlob, ResolvedOciLayer};

/// Largest manifest or index that is read; registries need not take larger ones (distribution-spec, "Pushing Manifests").
pub(super) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest configuration that is read.
pub(super) const MAX_CONFIG: u64 = 8 << 20;
/// Most layers of an image; Docker's own limit is 127.
pub(super) const MAX_LAYERS: usize = 512;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// What a client says it reads.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Names bytes by their digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: String,
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, Value>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |text: &str| {
            text.chars()
                .take(40)
                .filter(|c| !c.is_control())
                .collect::<String>()
        };
        write!(f, "{}/{}", plain(&self.os), plain(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", plain(variant)),
            None => Ok(()),
        }
    }
}

impl Descriptor {
    /// The digest, if it is one that is checked.
    pub(super) fn digest(&self, what: &str) -> Result<Digest, OciError> {
        let hex = self.digest.strip_prefix("sha256:");
        hex.and_then(|hex| hex.parse().ok()).ok_or_else(|| {
            let shown: String = self.digest.chars().take(80).collect();
            OciError::document(what, format!("{shown:?} is not a digest of sha256"))
        })
    }

    /// An annotation that is text.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name)?.as_str()
    }

    pub(super) fn has_platform(&self) -> bool {
        self.platform.is_some()
    }

    fn blob(&self, what: &str, limit: u64) -> Result<ResolvedBlob, OciError> {
        if self.size > limit {
            let reason = format!(
                "{} has {} bytes, more than {limit}",
                self.digest(what)?,
                self.size
            );
            return Err(OciError::document(what, reason));
        }
        Ok(ResolvedBlob {
            digest: self.digest(what)?,
            size: self.size,
            media_type: self.media_type.clone(),
        })
    }
}

/// What a manifest's bytes are.
#[derive(Debug)]
pub(super) enum Document {
    /// Several manifests, by platform.
    Index(Vec<Descriptor>),
    /// One image.
    Image {
        config: ResolvedBlob,
        layers: Vec<ResolvedBlob>,
    },
}

/// Reads a manifest or index. `content_type` is what the server says it is.
///
/// The type is what the document says of itself, else what the server says, and its members have to be of that type:
/// bytes that could be read in two ways (CVE-2021-41190) are refused.
pub(super) fn parse(
    what: &str,
    bytes: &[u8],
    content_type: Option<&str>,
    max_bytes: u64,
) -> Result<Document, OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        #[serde(default)]
        schema_version: Option<u64>,
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<Vec<Descriptor>>,
        #[serde(default)]
        config: Option<Descriptor>,
        #[serde(default)]
        layers: Option<Vec<Descriptor>>,
        #[serde(default, rename = "fsLayers")]
        fs_layers: Option<Value>,
    }
    let bad = |reason: &str| OciError::document(what, reason);
    let served = content_type
        .and_then(|t| t.split(';').next())
        .map(str::trim)
        .unwrap_or_default();
    if served.starts_with(DOCKER_SCHEMA_1) {
        return Err(OciError::Schema1 {
            what: what.to_owned(),
        });
    }
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|e| OciError::document(what, format!("not a manifest: {e}")))?;
    let own = raw.media_type.as_deref().unwrap_or_default();
    if raw.schema_version == Some(1) || own.starts_with(DOCKER_SCHEMA_1) || raw.fs_layers.is_some()
    {
        return Err(OciError::Schema1 {
            what: what.to_owned(),
        });
    }
    if raw.schema_version != Some(2) {
        return Err(bad("schemaVersion is not 2"));
    }
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
    if known.contains(&own) && known.contains(&served) && own != served {
        return Err(bad("it says another media type than the server"));
    }
    let media_type = if own.is_empty() { served } else { own };
    let is_index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        _ if own.is_empty() => raw.manifests.is_some(),
        other => {
            let other: String = other.chars().take(100).collect();
            return Err(OciError::Unsupported {
                what: what.to_owned(),
                reason: format!("the media type {other:?} is not that of an image"),
            });
        }
    };
    match (is_index, raw.manifests, raw.config, raw.layers) {
        (true, Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (false, None, Some(config), Some(layers)) => image(what, &config, &layers, max_bytes),
        (true, _, None, None) => Err(bad("it has no manifests")),
        (false, None, _, _) => Err(bad("it has no config or no layers")),
        _ => Err(bad("it has the members of both an index and a manifest")),
    }
}

fn image(
    what: &str,
    config: &Descriptor,
    layers: &[Descriptor],
    max_bytes: u64,
) -> Result<Document, OciError> {
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        let other: String = config.media_type.chars().take(100).collect();
        return Err(OciError::Unsupported {
            what: what.to_owned(),
            reason: format!("it is an artifact of type {other:?}, not an image"),
        });
    }
    if layers.len() > MAX_LAYERS {
        let reason = format!("it has {} layers, more than {MAX_LAYERS}", layers.len());
        return Err(OciError::document(what, reason));
    }
    let mut left = max_bytes;
    let mut blobs = Vec::with_capacity(layers.len());
    for layer in layers {
        let kind = layer.media_type.as_str();
        if kind.contains("nondistributable") || kind.contains(".foreign.") {
            return Err(OciError::Foreign {
                digest: layer.digest.chars().take(80).collect(),
                media_type: kind.chars().take(100).collect(),
            });
        }
        if !is_layer(kind) {
            let other: String = kind.chars().take(100).collect();
            return Err(OciError::Unsupported {
                what: what.to_owned(),
                reason: format!("a layer of type {other:?}"),
            });
        }
        let blob = layer.blob(what, left)?;
        left -= blob.size;
        blobs.push(blob);
    }
    Ok(Document::Image {
        config: config.blob(what, MAX_CONFIG)?,
        layers: blobs,
    })
}

/// Whether a media type is that of a layer which can be read.
pub(super) fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}

/// The entry of an index for a machine.
pub(super) fn select<'d>(
    what: &str,
    entries: &'d [Descriptor],
    arch: Arch,
) -> Result<&'d Descriptor, OciError> {
    // Of several that fit, the one that asks least of the processor.
    let rank = |entry: &Descriptor| {
        let platform = entry.platform.as_ref()?;
        if platform.os != "linux" || platform.architecture != arch.debian() {
            return None;
        }
        match (arch, platform.variant.as_deref().unwrap_or_default()) {
            (_, "") => Some(0),
            (Arch::X86_64, "v1") | (Arch::Arm64, "v8") => Some(1),
            _ => None,
        }
    };
    let fitting = entries.iter().filter_map(|e| Some((rank(e)?, e)));
    // The first of equals.
    if let Some((_, entry)) = fitting.min_by_key(|(rank, _)| *rank) {
        return Ok(entry);
    }
    // Without platforms, the configuration has the last word.
    if let [only] = entries
        && !only.has_platform()
    {
        return Ok(only);
    }
    let mut found: Vec<String> = entries
        .iter()
        .filter_map(|e| e.platform.as_ref())
        .filter(|p| p.os != "unknown")
        .map(Platform::to_string)
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.is_empty() {
        true => Err(OciError::document(
            what,
            "it does not say which machines its images are for",
        )),
        false => Err(OciError::Platform {
            wanted: format!("linux/{}", arch.debian()),
            found,
        }),
    }
}

/// What of a configuration decides the files.
pub(super) struct Config {
    /// `created`; none where it says nothing, or something before 1970.
    pub(super) created: Option<Timestamp>,
    pub(super) layers: Vec<ResolvedOciLayer>,
    /// `config`: how a container is started.
    pub(super) run: Value,
}

/// Reads a configuration, and checks that it is for this machine and these layers.
pub(super) fn config(
    what: &str,
    bytes: &[u8],
    layers: Vec<ResolvedBlob>,
    arch: Arch,
) -> Result<Config, OciError> {
    #[derive(Deserialize)]
    struct RootFs {
        r#type: String,
        #[serde(default)]
        diff_ids: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    struct Raw {
        #[serde(flatten)]
        platform: Platform,
        #[serde(default)]
        created: Option<String>,
        #[serde(default)]
        config: Value,
        rootfs: RootFs,
    }
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|e| OciError::document(what, format!("not the configuration of an image: {e}")))?;
    if raw.platform.os != "linux" || raw.platform.architecture != arch.debian() {
        return Err(OciError::Platform {
            wanted: format!("linux/{}", arch.debian()),
            found: vec![raw.platform.to_string()],
        });
    }
    let ids = raw.rootfs.diff_ids.unwrap_or_default();
    if raw.rootfs.r#type != "layers" || ids.len() != layers.len() {
        let reason = format!(
            "rootfs has {} diff_ids, and the manifest {} layers",
            ids.len(),
            layers.len()
        );
        return Err(OciError::document(what, reason));
    }
    let mut resolved = Vec::with_capacity(layers.len());
    for (blob, id) in layers.into_iter().zip(ids) {
        let hex = id.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
        let diff_id = hex.ok_or_else(|| {
            let shown: String = id.chars().take(80).collect();
            OciError::document(what, format!("{shown:?} is not a digest of sha256"))
        })?;
        resolved.push(ResolvedOciLayer { blob, diff_id });
    }
    let created = raw.created.and_then(|text| text.parse().ok());
    Ok(Config {
        // In whole seconds: it names the layer, and a second holds no two images of the same layers.
        created: created
            .filter(|time: &Timestamp| time.secs >= 0)
            .map(|time| Timestamp::from_secs(time.secs)),
        layers: resolved,
        run: raw.config,
    })
}
