//! The parent `tar:`: a root file system as an archive, one layer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amiforge_plan::ImportedLayer;
use amiforge_recipe::ArchivePlace;
use amiforge_tree::layer::LayerInfo;
use amiforge_tree::{LayerDiff, Stat, Tree};
use amiforge_types::{BlobTable, Digest, LayerId, Timestamp};

use super::debian::source_error;
use super::file::Stamp;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{Work, store_context};
use crate::load::LoadedRecipe;
use crate::look::threads;
use crate::settings::Engine;

/// An archive that is known by its bytes.
#[derive(Debug)]
pub(crate) struct ResolvedTar {
    /// As the recipe names it.
    asked: String,
    source: Source,
    /// Of the file as it is stored.
    pub(super) sha256: Digest,
}

#[derive(Debug)]
enum Source {
    File { path: PathBuf, stamp: Stamp },
    Url(String),
}

impl ResolvedTar {
    /// The one layer that it becomes.
    pub(super) fn layer(&self) -> ImportedLayer {
        ImportedLayer {
            title: self.asked.clone(),
            inputs: BTreeMap::from([("tar".to_owned(), format!("sha256:{}", self.sha256))]),
        }
    }
}

impl Engine {
    /// Of a file the digest is taken; at an address nothing is asked, since the recipe has the digest.
    pub(super) fn resolve_tar(
        &self,
        recipe: &LoadedRecipe,
        place: &ArchivePlace,
        wanted: Option<Digest>,
    ) -> Result<ResolvedTar, EngineError> {
        let asked = recipe.recipe.parent.to_string();
        let relative = match (place, wanted) {
            (ArchivePlace::Path(relative), _) => relative,
            (ArchivePlace::Url(url), Some(sha256)) => {
                let source = Source::Url(url.clone());
                return Ok(ResolvedTar {
                    asked,
                    source,
                    sha256,
                });
            }
            (ArchivePlace::Url(_), None) => {
                let message = format!("{asked} has no digest");
                return Err(EngineError::new(ErrorKind::Invalid, message));
            }
        };
        let path = recipe.parent_dir.join(relative);
        let (stamp, sha256) = Stamp::with_digest(&path, &asked)?;
        super::file::check_digest(&path, wanted, sha256, &asked)?;
        Ok(ResolvedTar {
            asked,
            source: Source::File { path, stamp },
            sha256,
        })
    }

    /// Reads the archive into the layer `id`.
    pub(super) fn import_tar(
        &self,
        work: &Work<'_>,
        tar: &ResolvedTar,
        id: LayerId,
    ) -> Result<LayerInfo, EngineError> {
        let path = match &tar.source {
            Source::File { path, .. } => path.clone(),
            Source::Url(url) => {
                self.stage("download", url.clone());
                let events = |event| self.source_event(event);
                let cache = self.settings.home.downloads();
                let context = self.context(&cache, &events, work.offline, threads());
                amiforge_source::fetch_file(url, tar.sha256, &context)
                    .map_err(|error| source_error(error, format!("cannot fetch {}", tar.asked)))?
            }
        };
        self.stage("read", path.display().to_string());
        let dir = work
            .store
            .temp_dir("import")
            .or_fail(ErrorKind::Failed, store_context)?;
        let mut blobs = BlobTable::new();
        let root = Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let read = self.read_rootfs(Tree::new(root), &path, &dir.join("spool"), None, &mut blobs);
        let (tree, _) = read?;
        self.tell_whiteouts(&tree, std::slice::from_ref(&path));
        let diff = LayerDiff::from_tree(&tree);
        let context = || format!("cannot keep the layer of {}", tar.asked);
        let writer = work
            .store
            .layer_writer(id)
            .or_fail(ErrorKind::Failed, context)?;
        writer
            .write(&diff, &blobs)
            .or_fail(ErrorKind::Failed, context)?;
        let _ = std::fs::remove_dir(&dir);
        // Else the layer is not of the bytes that its id names.
        if let Source::File { path, stamp } = &tar.source {
            stamp.check(path)?;
        }
        writer.commit().or_fail(ErrorKind::Failed, context)
    }
}
