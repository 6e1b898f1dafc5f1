//! Bundles of instance-store images that are the store's own: copies, which outlive the files that they were made of.
//!
//! `bundles/<image>/` holds a manifest and its parts, as [`amiforge_ami::ec2::Image::image_location`] says; a folder that no image
//! has its manifest in is garbage.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amiforge_ami::ImageId;
use amiforge_ami::ec2::{ImageState, State};

use super::{Ec2, Ec2Error, Hold};
use crate::atomic::sync_dir;

/// The folder of a bundle that is being copied into the store; it goes when this is dropped.
#[derive(Debug)]
pub struct NewBundle {
    ec2: Ec2,
    path: PathBuf,
}

impl Ec2 {
    /// Begins a bundle of the store's own. The record that names it is to be written before `hold` ends.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn begin_bundle(&self, _hold: &Hold) -> Result<NewBundle, Ec2Error> {
        let path = self.temp_path("bundle");
        super::make_private(&path)?;
        Ok(NewBundle {
            ec2: self.clone(),
            path,
        })
    }

    /// Folders of bundles in the store, sorted.
    pub fn bundles(&self) -> Result<Vec<PathBuf>, Ec2Error> {
        let dir = self.dir("bundles");
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Ec2Error::io("list", &dir))? {
            let entry = entry.map_err(Ec2Error::io("list", &dir))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|n| n.parse::<ImageId>().is_ok()) {
                out.push(entry.path());
            }
        }
        out.sort();
        Ok(out)
    }

    /// The folders of bundles that no image needs.
    pub(super) fn dead_bundles(&self, state: &State) -> Result<Vec<PathBuf>, Ec2Error> {
        // Names, not whole paths: the store may have been moved, or be known by another path.
        let live: BTreeSet<_> = state
            .images
            .values()
            .filter(|image| match image.state {
                ImageState::Failed => false,
                ImageState::Deregistered => image.bin.is_some(),
                _ => true,
            })
            .filter_map(|image| {
                let folder = Path::new(image.image_location.as_ref()?).parent()?;
                folder.file_name().map(std::ffi::OsStr::to_owned)
            })
            .collect();
        let mut dead = self.bundles()?;
        dead.retain(|path| path.file_name().is_none_or(|name| !live.contains(name)));
        Ok(dead)
    }
}

impl NewBundle {
    /// The folder: empty, to be filled with files that are synced.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its place: that of an image's bundle. Gives its path.
    ///
    /// # Errors
    /// When there is one already, or the disk fails.
    pub fn place(self, image: &ImageId) -> Result<PathBuf, Ec2Error> {
        let place = self.ec2.dir("bundles").join(image.as_str());
        sync_dir(&self.path)?;
        fs_err::rename(&self.path, &place)
            .map_err(Ec2Error::io("rename a temporary folder to", &place))?;
        sync_dir(&self.ec2.dir("bundles"))?;
        Ok(place)
    }
}

impl Drop for NewBundle {
    fn drop(&mut self) {
        // Else it goes with the session. One that has its place is not there any more.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
