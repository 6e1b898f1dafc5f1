//! Partition solver and boot loaders.
