//! Content store, layers, build records, catalog.
