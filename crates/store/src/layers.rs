//! Layers and their materialised directories.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_tree::LayerDiff;
use amiforge_tree::layer::{self, LayerInfo, LayerWriteError};
use amiforge_types::{BlobId, BlobTable, LayerId, WriteAt as _};
use rayon::prelude::*;

use crate::atomic::{parent_of, sync_dir};
use crate::session::Session;
use crate::store::check_key;
use crate::{FileBlob, FileTarget, Store, StoreError, remove_tree};

/// A complete layer of the store.
#[derive(Clone, Debug)]
pub struct StoredLayer {
    /// Its id.
    pub id: LayerId,
    /// The layer file.
    pub path: PathBuf,
    /// The layer in figures.
    pub info: LayerInfo,
    /// What it changes; file data points into `blob` of the table it was loaded with.
    pub diff: Arc<LayerDiff>,
    /// The layer file in that table.
    pub blob: BlobId,
}

impl StoredLayer {
    /// Reads all data and compares it with the digests of the index: what a disk lost or changed
    /// since the layer was written is an error that names the file.
    pub fn verify(&self, blobs: &BlobTable) -> Result<(), StoreError> {
        verify_data(&self.path, &self.diff, blobs)
    }
}

fn verify_data(path: &Path, diff: &LayerDiff, blobs: &BlobTable) -> Result<(), StoreError> {
    let damaged = |source| StoreError::LayerData {
        path: path.to_owned(),
        source,
    };
    let plan = layer::plan(diff).map_err(damaged)?;
    plan.files()
        .par_iter()
        .map_init(Vec::new, |buf, file| {
            file.copy(blobs, buf, &mut |_, _| Ok(())).map(drop)
        })
        .collect::<Result<(), _>>()
        .map_err(damaged)
}

impl Store {
    /// Whether the layer is there (not whether it is whole; loading tells that).
    #[must_use]
    pub fn has_layer(&self, id: LayerId) -> bool {
        self.layer_path(id).is_file()
    }

    /// Loads a layer: reads and checks its index and adds its file to `blobs`. `None` when it is not
    /// in the store.
    pub fn layer(
        &self,
        id: LayerId,
        blobs: &mut BlobTable,
    ) -> Result<Option<StoredLayer>, StoreError> {
        let path = self.layer_path(id);
        if std::fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(StoreError::LayerKind(path));
        }
        let blob = match FileBlob::open(&path) {
            Ok(blob) => Arc::new(blob),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("open", path)(e)),
        };
        let blob_id = blobs.add(blob.clone());
        let (diff, info) = layer::read(&*blob, blob_id).map_err(|source| StoreError::Layer {
            path: path.clone(),
            source,
        })?;
        Ok(Some(StoredLayer {
            id,
            path,
            info,
            diff: Arc::new(diff),
            blob: blob_id,
        }))
    }

    /// The figures of a layer, without keeping it.
    pub fn layer_info(&self, id: LayerId) -> Result<Option<LayerInfo>, StoreError> {
        Ok(self
            .layer(id, &mut BlobTable::new())?
            .map(|layer| layer.info))
    }

    /// Begins a layer file. Hold [`Store::lock_layer`] meanwhile, so that no other process does the
    /// same work.
    pub fn layer_writer(&self, id: LayerId) -> Result<LayerWriter, StoreError> {
        self.writer(self.layer_path(id))
    }

    /// Begins a file of the same form that holds what a failed run of `key` had changed; it replaces that of the run
    /// before.
    pub fn failed_writer(&self, key: &str) -> Result<LayerWriter, StoreError> {
        self.writer(self.failed_path(key)?)
    }

    /// Where that file is, or would be.
    pub fn failed_path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.failed_dir().join(format!("{key}.layer")))
    }

    /// The folder of all of them.
    #[must_use]
    pub fn failed_dir(&self) -> PathBuf {
        self.root.join("failed")
    }

    fn writer(&self, target: PathBuf) -> Result<LayerWriter, StoreError> {
        let temp = self.session.path("layer");
        let file = open_private(&temp)?;
        Ok(LayerWriter {
            temp,
            file,
            target,
            _session: self.session.clone(),
        })
    }

    /// Writes a whole layer from a diff and commits it.
    pub fn put_layer(
        &self,
        id: LayerId,
        diff: &LayerDiff,
        blobs: &BlobTable,
    ) -> Result<LayerInfo, PutLayerError> {
        let writer = self.layer_writer(id)?;
        writer.write(diff, blobs)?;
        Ok(writer.commit()?)
    }

    /// Removes a layer and is content when it is not there. Its root directory has to be removed
    /// apart, in a user namespace.
    pub fn remove_layer(&self, id: LayerId) -> Result<(), StoreError> {
        let path = self.layer_path(id);
        if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            return fs_err::remove_dir_all(&path).map_err(StoreError::io("remove", path));
        }
        match fs_err::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path)(e))
            }
            _ => Ok(()),
        }
    }

    /// Ids of all layers, sorted.
    pub fn layers(&self) -> Result<Vec<LayerId>, StoreError> {
        let dir = self.root.join("layers");
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let name = entry.map_err(StoreError::io("list", &dir))?.file_name();
            let id = name
                .to_str()
                .and_then(|n| n.strip_suffix(".layer"))
                .and_then(|hex| hex.parse().ok());
            ids.extend(id.map(LayerId));
        }
        ids.sort();
        Ok(ids)
    }

    /// The directory that holds the layer in overlay form, when it was materialised.
    #[must_use]
    pub fn root(&self, id: LayerId) -> Option<PathBuf> {
        let path = self.root_path(id);
        path.is_dir().then_some(path)
    }

    /// Begins a root directory. Fill [`RootWriter::path`] with [`materialise`](crate::materialise)
    /// inside a user namespace, then commit.
    pub fn root_writer(&self, id: LayerId) -> Result<RootWriter, StoreError> {
        let temp = self.session.path("root");
        fs_err::create_dir(&temp).map_err(StoreError::io("create", &temp))?;
        Ok(RootWriter {
            temp,
            target: self.root_path(id),
            _session: self.session.clone(),
        })
    }

    /// Where the file of a layer is, or would be.
    #[must_use]
    pub fn layer_path(&self, id: LayerId) -> PathBuf {
        self.root.join("layers").join(format!("{id}.layer"))
    }

    /// Where the root directory of a layer is, or would be.
    #[must_use]
    pub fn root_path(&self, id: LayerId) -> PathBuf {
        self.root.join("roots").join(id.to_string())
    }
}

/// Writes a layer into an empty file, its data by as many threads as there are: the same bytes as
/// [`layer::write`].
fn write_layer(
    diff: &LayerDiff,
    blobs: &BlobTable,
    out: &File,
) -> Result<LayerInfo, LayerWriteError> {
    let write = LayerWriteError::Write;
    let plan = layer::plan(diff)?;
    let target = FileTarget::from_file(out.try_clone().map_err(write)?);
    target.write_all_at(&plan.header(), 0).map_err(write)?;
    let digests: Vec<_> = plan
        .files()
        .par_iter()
        .map_init(Vec::new, |buf, file| {
            file.copy(blobs, buf, &mut |bytes, at| target.write_all_at(bytes, at))
        })
        .collect::<Result<_, _>>()?;
    let (tail, info) = plan.finish(&digests)?;
    let at = plan.tail_offset();
    target.write_all_at(&tail, at).map_err(write)?;
    Ok(info)
}

/// [`Store::put_layer`] failed; nothing was committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutLayerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer could not be written.
    #[error("cannot write {}", path.display())]
    Layer {
        /// The temporary file.
        path: PathBuf,
        /// Why.
        source: LayerWriteError,
    },
}

/// Layers hold password hashes and host keys of images, so nobody else may read them.
fn open_private(path: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("create", path))
}

/// A layer file in the making. Dropped without [`LayerWriter::commit`], it goes.
#[derive(Debug)]
pub struct LayerWriter {
    temp: PathBuf,
    file: File,
    target: PathBuf,
    _session: Arc<Session>,
}

impl LayerWriter {
    /// The temporary file, open for reading and writing; can be handed to a child process.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Path of the temporary file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Writes a whole layer into the file.
    pub fn write(&self, diff: &LayerDiff, blobs: &BlobTable) -> Result<LayerInfo, PutLayerError> {
        write_layer(diff, blobs, &self.file).map_err(|source| PutLayerError::Layer {
            path: self.temp.clone(),
            source,
        })
    }

    /// What was written, whose data is then in `blobs`. The file goes with the writer, unless it is committed.
    pub fn read(&self, blobs: &mut BlobTable) -> Result<LayerDiff, StoreError> {
        Ok(self.load(blobs)?.0)
    }

    /// Reads index and data of what was written and compares both with their digests: for a file that was made elsewhere.
    pub fn verify(&self) -> Result<LayerInfo, StoreError> {
        let mut blobs = BlobTable::new();
        let (diff, info) = self.load(&mut blobs)?;
        verify_data(&self.temp, &diff, &blobs)?;
        Ok(info)
    }

    fn load(&self, blobs: &mut BlobTable) -> Result<(LayerDiff, LayerInfo), StoreError> {
        let path = &self.temp;
        let copy = self
            .file
            .try_clone()
            .map_err(StoreError::io("read", path))?;
        let blob = Arc::new(FileBlob::from_file(copy).map_err(StoreError::io("read", path))?);
        let id = blobs.add(blob.clone());
        layer::read(&*blob, id).map_err(|source| StoreError::Layer {
            path: path.clone(),
            source,
        })
    }

    /// Checks the index of what was written, makes it durable and gives it its name. A layer of
    /// the same id is replaced.
    pub fn commit(self) -> Result<LayerInfo, StoreError> {
        let path = &self.temp;
        let (_, info) = self.load(&mut BlobTable::new())?;
        self.file.sync_all().map_err(StoreError::io("sync", path))?;
        fs_err::rename(path, &self.target)
            .map_err(StoreError::io("rename a layer to", &self.target))?;
        sync_dir(parent_of(&self.target))?;
        Ok(info)
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        // After a commit the file is not there any more; everything else goes with the session.
        let _ = std::fs::remove_file(&self.temp);
    }
}

/// A root directory in the making. Dropped without [`RootWriter::commit`], it goes as far as the
/// process may remove it.
#[derive(Debug)]
pub struct RootWriter {
    temp: PathBuf,
    target: PathBuf,
    _session: Arc<Session>,
}

impl RootWriter {
    /// The name that [`RootWriter::commit`] gives the directory. A directory that belongs to a mapped
    /// id can only be moved from inside the user namespace (rename(2) wants to write to it), which
    /// then takes the place of the commit.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The directory to fill.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Gives the directory its name. When another process was quicker, its directory stays, and
    /// this one is left in the temporary space.
    ///
    /// Nothing is synced: that would cost more than making the root again. After a power failure a
    /// root may have lost data, so whoever uses one checks that it was made since the last boot.
    pub fn commit(self) -> Result<PathBuf, StoreError> {
        match fs_err::rename(&self.temp, &self.target) {
            Ok(()) => {}
            Err(_) if self.target.is_dir() => {}
            Err(e) => return Err(StoreError::io("rename a directory to", &self.target)(e)),
        }
        sync_dir(parent_of(&self.target))?;
        Ok(self.target.clone())
    }
}

impl Drop for RootWriter {
    fn drop(&mut self) {
        let _ = remove_tree(&self.temp);
    }
}
