//! What runs leave in the store that is no layer of it: files in the form of layers, beside a record that says what they are.
//! Without the record the files are nothing, and a record never tells of another run's files.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use amiforge_exec::Sandbox;
use amiforge_store::{LayerWriter, Store};
use amiforge_types::Timestamp;
use serde::Serialize;

use super::sandbox::{sandbox_error, verify};
use super::store_context;
use crate::error::{Contextual, EngineError, ErrorKind};

/// A directory of a root as it is, with real times and what layers leave out, as the file of a key that is not in its place yet.
pub(super) fn as_it_is(
    store: &Store,
    sandbox: &Sandbox,
    (dir, key): (&Path, &str),
    clock: Timestamp,
    cancel: &AtomicBool,
) -> Result<LayerWriter, EngineError> {
    let writer = store
        .failed_writer(key)
        .or_fail(ErrorKind::Failed, store_context)?;
    sandbox
        .harvest(dir, writer.path(), clock, None, &[], cancel)
        .map_err(sandbox_error)?;
    verify(sandbox, &writer)?;
    Ok(writer)
}

/// Puts files and their record in the place of those of the run before.
pub(super) fn replace<R: Serialize>(
    store: &Store,
    (kind, key): (&str, &str),
    record: &R,
    files: impl IntoIterator<Item = LayerWriter>,
) -> Result<(), EngineError> {
    let record = serde_json::to_value(record).or_fail(ErrorKind::Internal, store_context)?;
    let _lock = store
        .lock_failed(key)
        .or_fail(ErrorKind::Failed, store_context)?;
    store
        .remove_record(kind, key)
        .or_fail(ErrorKind::Failed, store_context)?;
    for file in files {
        file.commit().or_fail(ErrorKind::Failed, store_context)?;
    }
    store
        .put_record(kind, key, &record)
        .or_fail(ErrorKind::Failed, store_context)
}

/// Forgets the record of a key and the files of `keys`.
pub(super) fn forget(
    store: &Store,
    (kind, key): (&str, &str),
    keys: &[&str],
) -> Result<(), EngineError> {
    let record = store.get_record(kind, key);
    if record.or_fail(ErrorKind::Failed, store_context)?.is_none() {
        return Ok(());
    }
    let _lock = store
        .lock_failed(key)
        .or_fail(ErrorKind::Failed, store_context)?;
    store
        .remove_record(kind, key)
        .or_fail(ErrorKind::Failed, store_context)?;
    for key in keys {
        let path = store
            .failed_path(key)
            .or_fail(ErrorKind::Failed, store_context)?;
        // Without the record it is nothing, and `cache gc` finds it.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
