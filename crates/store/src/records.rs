//! Build records: small JSON documents by kind and key.

use std::path::PathBuf;

use serde_json::Value;

use crate::atomic::write_atomic_by;
use crate::store::check_key;
use crate::{Store, StoreError};

impl Store {
    /// Writes a record, replacing one of the same kind and key.
    pub fn put_record(&self, kind: &str, key: &str, record: &Value) -> Result<(), StoreError> {
        let path = self.record_path(kind, key)?;
        let dir = crate::atomic::parent_of(&path);
        fs_err::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        self.write_json(&path, record)
    }

    /// Reads a record; `None` when it is not there, or is not JSON any more: records explain and speed
    /// up, and what they say is found out again.
    pub fn get_record(&self, kind: &str, key: &str) -> Result<Option<Value>, StoreError> {
        match read_json(&self.record_path(kind, key)?) {
            Err(StoreError::Json { .. }) => Ok(None),
            other => other,
        }
    }

    /// Removes a record; content when it is not there.
    pub fn remove_record(&self, kind: &str, key: &str) -> Result<(), StoreError> {
        let path = self.record_path(kind, key)?;
        match fs_err::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(e))
            }
            _ => Ok(()),
        }
    }

    /// Keys of all records of a kind, sorted.
    pub fn record_keys(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        check_key(kind)?;
        let dir = self.root.join("records").join(kind);
        json_stems(&dir)
    }

    fn record_path(&self, kind: &str, key: &str) -> Result<PathBuf, StoreError> {
        check_key(kind)?;
        check_key(key)?;
        Ok(self
            .root
            .join("records")
            .join(kind)
            .join(format!("{key}.json")))
    }
}

impl Store {
    pub(crate) fn write_json(
        &self,
        path: &std::path::Path,
        value: &impl serde::Serialize,
    ) -> Result<(), StoreError> {
        let mut text = serde_json::to_vec_pretty(value).map_err(|source| StoreError::Json {
            path: path.to_owned(),
            source,
        })?;
        text.push(b'\n');
        write_atomic_by(self.session.dir(), path, &text)
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &std::path::Path,
) -> Result<Option<T>, StoreError> {
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("read", path)(e)),
    };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|source| StoreError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Names of the JSON files of a directory without their extension, sorted; none when the directory
/// is missing.
pub(crate) fn json_stems(dir: &std::path::Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list", dir)(e)),
    };
    let mut out = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let stem = name
            .to_str()
            .and_then(|n| n.strip_suffix(".json"))
            .filter(|n| !n.starts_with('.'));
        out.extend(stem.map(str::to_owned));
    }
    out.sort();
    Ok(out)
}
