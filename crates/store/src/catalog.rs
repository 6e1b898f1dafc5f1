//! The catalog of images on this host.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::Value;

use crate::records::{json_stems, read_json};
use crate::store::check_key;
use crate::{Store, StoreError};

/// One image of the catalog.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogImage {
    /// `ami-` and 17 hex digits.
    pub image_id: String,
    /// Name of the recipe.
    pub name: String,
    /// Version of the recipe.
    pub version: String,
    /// Directory with the image's files, absolute.
    pub path: PathBuf,
    /// The image's `manifest.json`.
    pub manifest: Value,
}

impl Store {
    /// Registers an image, replacing an entry of the same id.
    pub fn put_image(&self, image: &CatalogImage) -> Result<(), StoreError> {
        self.write_json(&self.image_path(&image.image_id)?, image)
    }

    /// The image with this id.
    pub fn image(&self, image_id: &str) -> Result<Option<CatalogImage>, StoreError> {
        read_json(&self.image_path(image_id)?)
    }

    /// The image of this name and version. Two of them (the same recipe built from different
    /// parents) are an error that asks for the id.
    pub fn image_by_name(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Option<CatalogImage>, StoreError> {
        let mut found = self
            .images()?
            .into_iter()
            .filter(|i| i.name == name && i.version == version);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(StoreError::Ambiguous {
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            (image, None) => Ok(image),
        }
    }

    /// All images, by name, version, id.
    pub fn images(&self) -> Result<Vec<CatalogImage>, StoreError> {
        let mut images = Vec::new();
        for id in json_stems(&self.root.join("catalog/images"))? {
            // One that went in between is no error.
            images.extend(self.image(&id)?);
        }
        images.sort_by(|a, b| {
            (&a.name, &a.version, &a.image_id).cmp(&(&b.name, &b.version, &b.image_id))
        });
        Ok(images)
    }

    /// When the build of an image was finished last: it was registered then. `None` of one that the catalog does not have.
    #[must_use]
    pub fn image_finished(&self, image_id: &str) -> Option<SystemTime> {
        let entry = std::fs::metadata(self.image_path(image_id).ok()?).ok()?;
        entry.modified().ok()
    }

    /// Takes an image out of the catalog; its files stay. True when it was there.
    pub fn remove_image(&self, image_id: &str) -> Result<bool, StoreError> {
        let path = self.image_path(image_id)?;
        match fs_err::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("remove", path)(e)),
        }
    }

    fn image_path(&self, image_id: &str) -> Result<PathBuf, StoreError> {
        check_key(image_id)?;
        Ok(self
            .root
            .join("catalog/images")
            .join(format!("{image_id}.json")))
    }
}
