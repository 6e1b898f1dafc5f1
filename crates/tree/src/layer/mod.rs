//! The layer file: a [`LayerDiff`](crate::LayerDiff) and its file data in one file.
//!
//! The format is described in `docs/formats/layer.md`. File data comes first, each run at a
//! multiple of [`ALIGN`] so that it can be cloned or copied inside the kernel, the index last, so
//! that a writer can stream. [`read`] reads the index only and returns a diff whose content points
//! into the layer file.
//!
//! - [`write()`]: a diff to a sequential sink.
//! - [`plan`]: the same layout, for a writer that places data itself, in parallel: it copies what
//!   [`LayerPlan::files`] lists, and ends with the bytes of [`LayerPlan::finish`].

use std::io;

use amiforge_types::Digest;

mod decode;
mod encode;
mod format;
mod plan;
#[cfg(test)]
mod tests;

pub use decode::{LayerReadError, read, verify};
pub use plan::{LayerPlan, LayerWriteError, PlannedFile, plan, write};

/// Alignment in bytes of every run of file data, and of the index.
pub const ALIGN: u64 = 4096;

/// Version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 2;

/// A layer file in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerInfo {
    /// Digest of the index, which holds the digest of every file: identity of the layer's bytes.
    pub digest: Digest,
    /// Entries.
    pub entries: u64,
    /// Bytes of file data (holes and padding not counted).
    pub data_bytes: u64,
    /// Length of the layer file.
    pub bytes: u64,
}

fn align_up(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

/// Writes `len` zero bytes to a sequential sink.
fn write_zeros(sink: &mut dyn io::Write, mut len: u64) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while len > 0 {
        let n = usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len());
        sink.write_all(&ZEROS[..n])?;
        len -= n as u64;
    }
    Ok(())
}
