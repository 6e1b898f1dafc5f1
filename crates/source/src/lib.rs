//! Parent images.
