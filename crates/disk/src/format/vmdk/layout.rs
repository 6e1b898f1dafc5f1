//! Numbers, the header and the descriptor.
//!
//! ```text
//! header, one sector        0 "KDMV"   4 version   8 flags   12 capacity   20 grain size
//!                          28 descriptor place, 36 length   44 entries of a grain table
//!                          48 redundant directory   56 directory   64 first grain   72 unclean
//!                          73 "\n", " ", "\r\n"   77 compression (1: deflate)
//! ```
//!
//! All numbers are little-endian, all places and lengths in sectors of 512 bytes.

use amiforge_types::SECTOR;

use crate::format::numbers::{le32, le64};

/// First bytes of a sparse extent.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// First bytes of a descriptor that is a file of its own; the data is in others.
pub(super) const DESCRIPTOR_MAGIC: &[u8] = b"# Disk DescriptorFile";
/// Sectors of a grain of the files we write.
pub(super) const GRAIN_SECTORS: u64 = 128;
/// Bytes of it.
pub(super) const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
/// Entries of a grain table.
pub(super) const TABLE: u64 = 512;
/// Where the first grain is, in sectors: behind header and descriptor, aligned.
pub(super) const OVERHEAD: u64 = 128;
/// Where the descriptor is, and its room.
pub(super) const DESCRIPTOR: (u64, u64) = (1, 20);
/// Place of the directory that says: in the footer.
pub(super) const AT_END: u64 = u64::MAX;
/// The largest file: places are numbers of sectors in 32 bits. Data that does not shrink makes a
/// disk of this size fit, too.
pub(super) const MAX_DISK: u64 = (1 << 32) * SECTOR / 32 * 31;

/// Flag: the four bytes from 73 on detect a transfer as text.
pub(super) const FLAG_NEWLINES: u32 = 1;
/// Flag: a table entry of 1 is a grain of zeros.
pub(super) const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before grains and metadata.
pub(super) const FLAG_MARKERS: u32 = 1 << 17;

/// What a metadata marker announces.
#[derive(Clone, Copy)]
pub(super) enum Marker {
    EndOfStream = 0,
    GrainTable = 1,
    GrainDirectory = 2,
    Footer = 3,
}

/// A marker: one sector.
pub(super) fn marker(sectors: u64, kind: Marker) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend(sectors.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend((kind as u32).to_le_bytes());
    out.resize(512, 0);
    out
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub flags: u32,
    pub capacity: u64,
    pub grain_sectors: u64,
    pub descriptor: (u64, u64),
    pub table_entries: u32,
    pub directory: u64,
    pub overhead: u64,
    pub compression: u16,
}

impl Header {
    /// The header of a file we write, its directory at `directory`.
    pub(super) fn stream_optimized(capacity: u64, directory: u64) -> Self {
        Self {
            version: 3,
            flags: FLAG_NEWLINES | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity,
            grain_sectors: GRAIN_SECTORS,
            descriptor: DESCRIPTOR,
            table_entries: 512,
            directory,
            overhead: OVERHEAD,
            compression: 1,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut h = Vec::with_capacity(512);
        h.extend(MAGIC);
        h.extend(self.version.to_le_bytes());
        h.extend(self.flags.to_le_bytes());
        h.extend(self.capacity.to_le_bytes());
        h.extend(self.grain_sectors.to_le_bytes());
        h.extend(self.descriptor.0.to_le_bytes());
        h.extend(self.descriptor.1.to_le_bytes());
        h.extend(self.table_entries.to_le_bytes());
        h.extend(0u64.to_le_bytes()); // no redundant directory
        h.extend(self.directory.to_le_bytes());
        h.extend(self.overhead.to_le_bytes());
        h.extend(b"\0\n \r\n");
        h.extend(self.compression.to_le_bytes());
        h.resize(512, 0);
        h
    }

    pub(super) fn decode(h: &[u8; 512]) -> Option<Self> {
        h.starts_with(&MAGIC).then(|| Self {
            version: le32(h, 4),
            flags: le32(h, 8),
            capacity: le64(h, 12),
            grain_sectors: le64(h, 20),
            descriptor: (le64(h, 28), le64(h, 36)),
            table_entries: le32(h, 44),
            directory: le64(h, 56),
            overhead: le64(h, 64),
            compression: u16::from_le_bytes([h[77], h[78]]),
        })
    }
}

/// The descriptor of a file we write. It names itself, and says the same for every disk of a size:
/// the content id only matters between a disk and a delta of it.
pub(super) fn descriptor(capacity: u64) -> Vec<u8> {
    let cylinders = capacity / (255 * 63);
    let mut text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\n\
         # Extent description\nRDONLY {capacity} SPARSE \"disk.vmdk\"\n\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\n"
    )
    .into_bytes();
    text.resize(20 * 512, 0);
    text
}
