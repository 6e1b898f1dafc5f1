//! An image layout (image-spec 1.1, image-layout.md): a folder, or the tar archive of one that
//! `skopeo copy … oci-archive:` and `docker save` (since 25) make.
//!
//! ```text
//! oci-layout                 which version of the layout this is
//! index.json                 the manifests, with their tags
//! blobs/sha256/<digest>
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use amiforge_tree::{DataSource, Tree, tar};
use amiforge_types::{Arch, BlobTable, Digest, Timestamp};
use serde::Deserialize;

use super::document::{self, Descriptor, Document, MAX_MANIFEST};
use super::{OciError, PlacedBlob};
use crate::SourceError;
use crate::deb::Spool;

/// A layout that was opened.
pub(super) struct Layout {
    path: PathBuf,
    /// As messages name it.
    shown: String,
    /// Of an archive, what it holds.
    archive: Option<Tree>,
}

/// A file of the layout.
struct Found {
    place: PlacedBlob,
    size: u64,
}

impl Layout {
    /// Opens a layout and looks whether it is one.
    pub(super) fn open(path: &Path, shown: &str) -> Result<Self, SourceError> {
        let io = |e| SourceError::io(path, e);
        let meta = fs_err::metadata(path).map_err(io)?;
        let is_dir = meta.is_dir();
        if !is_dir && !meta.is_file() {
            // A named pipe would wait for its writer.
            return Err(io(std::io::Error::other(
                "not a folder and not a regular file",
            )));
        }
        let archive = match is_dir {
            true => None,
            false => {
                let file = File::open(path).map_err(io)?;
                let size = file.metadata().map_err(io)?.len();
                let options = tar::ReadOptions {
                    build_clock: Timestamp::default(),
                    limits: tar::Limits {
                        entries: 1 << 20,
                        ..tar::Limits::DEFAULT
                    },
                };
                let mut blobs = BlobTable::new();
                let file = std::sync::Arc::new(Spool { file, size });
                let id = blobs.add(file.clone());
                let tree = tar::read_at(&*file, id, &options).map_err(|e| {
                    use std::error::Error as _;
                    let why = e.source().map(ToString::to_string).unwrap_or_default();
                    oci(
                        shown,
                        OciError::document(
                            shown,
                            format!("not an archive of an image: {e}: {why}"),
                        ),
                    )
                })?;
                Some(tree)
            }
        };
        let layout = Self {
            path: path.to_path_buf(),
            shown: shown.to_owned(),
            archive,
        };
        layout.check_version()?;
        Ok(layout)
    }

    fn check_version(&self) -> Result<(), SourceError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let Some(bytes) = self.read("oci-layout", 4096)? else {
            return Err(self.bad(
                &self.shown,
                "it has no file oci-layout, so it is not an image layout",
            ));
        };
        match serde_json::from_slice::<Version>(&bytes) {
            Ok(version) if version.image_layout_version == "1.0.0" => Ok(()),
            Ok(_) => Err(self.bad("oci-layout", "the version of the layout is not 1.0.0")),
            Err(_) => Err(self.bad("oci-layout", "it says no version")),
        }
    }

    fn bad(&self, what: &str, reason: &str) -> SourceError {
        oci(&self.shown, OciError::document(what, reason))
    }

    /// The manifest or index of a tag, or the only one.
    pub(super) fn manifest(
        &self,
        tag: Option<&str>,
        arch: Arch,
        max_bytes: u64,
    ) -> Result<(Digest, String), SourceError> {
        let Some(bytes) = self.read("index.json", MAX_MANIFEST)? else {
            return Err(self.bad(
                &self.shown,
                "it has no file index.json, so it is not an image layout",
            ));
        };
        let wrap = |e| oci(&self.shown, e);
        let index = "application/vnd.oci.image.index.v1+json";
        let Document::Index(entries) =
            document::parse("index.json", &bytes, Some(index), max_bytes).map_err(wrap)?
        else {
            return Err(self.bad("index.json", "it is not an index"));
        };
        let name = |e: &Descriptor| {
            e.annotation("org.opencontainers.image.ref.name")
                .map(str::to_owned)
        };
        let fitting: Vec<Descriptor> = entries
            .iter()
            .filter(|e| tag.is_none() || name(e).as_deref() == tag)
            .cloned()
            .collect();
        let entry = match fitting.as_slice() {
            [only] => only,
            // One image for several machines, without an index of its own.
            [_, ..]
                if fitting
                    .iter()
                    .all(|e| e.has_platform() && (tag.is_some() || name(e).is_none())) =>
            {
                document::select("index.json", &fitting, arch).map_err(wrap)?
            }
            _ => {
                let mut tags: Vec<String> = entries.iter().filter_map(name).collect();
                tags.sort_unstable();
                tags.dedup();
                return Err(wrap(OciError::Tag {
                    place: self.shown.clone(),
                    wanted: tag.map(str::to_owned),
                    tags,
                }));
            }
        };
        let digest = entry.digest("index.json").map_err(wrap)?;
        Ok((digest, entry.media_type.clone()))
    }

    /// A blob of at most `limit` bytes, verified.
    pub(super) fn blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, SourceError> {
        let name = blob_name(digest);
        let bytes = self
            .read(&name, limit)?
            .ok_or_else(|| self.missing(&name))?;
        let got = Digest::of(&bytes);
        match got == digest {
            true => Ok(bytes),
            false => Err(SourceError::Digest {
                uri: format!("{}/{name}", self.shown),
                expected: digest,
                got,
            }),
        }
    }

    /// Where a blob of `size` bytes is.
    pub(super) fn place(&self, digest: Digest, size: u64) -> Result<PlacedBlob, SourceError> {
        let name = blob_name(digest);
        let found = self.find(&name)?.ok_or_else(|| self.missing(&name))?;
        if found.size != size {
            let reason = format!("it has {} bytes and should have {size}", found.size);
            return Err(self.bad(&name, &reason));
        }
        Ok(found.place)
    }

    fn missing(&self, name: &str) -> SourceError {
        oci(
            &self.shown,
            OciError::Missing {
                place: self.shown.clone(),
                what: name.to_owned(),
            },
        )
    }

    /// A file of at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(found) = self.find(name)? else {
            return Ok(None);
        };
        if found.size > limit {
            return Err(self.bad(name, &format!("it is larger than {limit} bytes")));
        }
        let io = |e| SourceError::io(&found.place.path, e);
        let file = File::open(&found.place.path).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(found.size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, found.place.offset)
            .map_err(io)?;
        Ok(Some(bytes))
    }

    fn find(&self, name: &str) -> Result<Option<Found>, SourceError> {
        let place = |path: PathBuf, offset| PlacedBlob {
            path,
            offset,
            cached: false,
        };
        let Some(tree) = &self.archive else {
            let path = self.path.join(name);
            return match std::fs::metadata(&path) {
                Ok(m) if m.is_file() => Ok(Some(Found {
                    size: m.len(),
                    place: place(path, 0),
                })),
                Ok(_) => Err(self.bad(name, "it is not a file")),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(SourceError::io(path, e)),
            };
        };
        let Some(ino) = tree.lookup(name.as_bytes()) else {
            return Ok(None);
        };
        let amiforge_tree::Kind::File(content) = tree.inode(ino).kind else {
            return Err(self.bad(name, "it is not a file"));
        };
        let offset = match content.extents.as_slice() {
            [] if content.size == 0 => 0,
            [run] if run.len == content.size => match run.source {
                DataSource::Blob { offset, .. } => offset,
                DataSource::Bytes(_) => return Err(self.bad(name, "it is not in the archive")),
            },
            _ => return Err(self.bad(name, "it has holes")),
        };
        Ok(Some(Found {
            place: place(self.path.clone(), offset),
            size: content.size,
        }))
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn oci(image: &str, source: OciError) -> SourceError {
    SourceError::Oci {
        image: image.to_owned(),
        source: Box::new(source),
    }
}
