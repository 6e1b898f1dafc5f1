//! Disks as lists of extents, and the formats they are written in.
//!
//! The central idea: a disk is laid out once as [`Extents`] and emitted many times. Planning
//! computes every metadata byte and the final place of every file's data; a sink (raw, qcow2,
//! digests) consumes the same extents, so all outputs of one build have the same logical bytes.
#![forbid(unsafe_code)]

mod extent;

pub use extent::{Extent, ExtentData, ExtentError, Extents};
