//! A bounded cache of tables and clusters that readers share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Memory of one cache.
const CACHE_BYTES: usize = 8 << 20;

/// Values by number, at most [`CACHE_BYTES`] of them.
pub(super) struct Cache<T>(Mutex<BTreeMap<u64, Arc<[T]>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Cache<T> {
    pub(super) fn get(&self, key: u64) -> Option<Arc<[T]>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }

    /// Adds a value of `bytes` bytes; a full cache is emptied, which is enough for the mostly forward
    /// reads it sees.
    pub(super) fn put(&self, key: u64, value: Arc<[T]>, bytes: usize) -> Arc<[T]> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= (CACHE_BYTES / bytes.max(1)).max(1) {
            cache.clear();
        }
        cache.insert(key, Arc::clone(&value));
        value
    }
}
