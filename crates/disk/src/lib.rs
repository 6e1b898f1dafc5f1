//! Disks as lists of extents, and the formats they are written in.
//!
//! The central idea: a disk is laid out once as [`Extents`] and emitted many times. Planning
//! computes every metadata byte and the final place of every file's data; a sink (raw, qcow2, vmdk,
//! vhd, digests) consumes the same extents, so all outputs of one build have the same logical bytes.
//!
//! - [`emit`] writes extents in any number of formats and computes the digests on the way;
//! - [`open`] gives the virtual disk inside a file of any format;
//! - [`gpt`] writes and reads partition tables, [`mbr`] reads the old ones;
//! - [`disk_info`] says what is on a disk.
//!
//! What is *not* here: file systems (`amiforge-fs`), and files: bytes come and go through
//! [`ReadAt`](amiforge_types::ReadAt) and [`WriteAt`](amiforge_types::WriteAt).
#![forbid(unsafe_code)]

mod digest;
mod emit;
mod extent;
mod format;
pub mod gpt;
mod info;
pub mod mbr;
mod part;
#[cfg(test)]
mod testing;
mod usage;

pub use digest::{BLOCK_BYTES, content_digest, zeros_sha256};
pub use emit::{
    Artifact, EmitError, EmitOptions, Emitted, Output, SettingError, Watch, emit, emit_watched,
};
pub use extent::{Extent, ExtentData, ExtentError, Extents, Make};
pub use format::{
    Compression, CompressionError, Format, FormatError, OpenError, Opener, Previous, Subformat,
    SubformatError, open, open_with,
};
pub use info::{
    DiskInfo, FileSystemInfo, FileSystemKind, InfoError, PartitionInfo, TableInfo, disk_info,
    probe_file_system,
};
pub use part::Part;
pub use usage::Usage;
