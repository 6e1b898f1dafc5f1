//! VMDK (VMware's Virtual Disk Format 5.0), written as streamOptimized: from front to back, compressed,
//! what EC2's image import and OVF packages take. Little-endian.
//!
//! ```text
//! header │ descriptor │ … sector 128: for every 32 MiB with data: grains, marker, grain table │
//! marker, grain directory │ marker, footer (the header with the directory's place) │ end marker
//!
//! grain:  u64 first sector of the disk │ u32 length │ zlib stream of 64 KiB │ zeros to a whole sector
//! ```
//!
//! Nothing is written twice, so the file is hashed as it is written. Grains of zeros are left out.

mod layout;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::sync::Arc;

use amiforge_types::{ReadAt, SECTOR};

use super::{Compression, Format, FormatDriver, Gate, OpenError, Subformat};
use crate::emit::{Output, Sinks, WindowPlan};

pub(crate) struct Vmdk;

impl FormatDriver for Vmdk {
    fn format(&self) -> Format {
        Format::Vmdk
    }
    fn name(&self) -> &'static str {
        "vmdk"
    }
    fn extensions(&self) -> &'static [&'static str] {
        &[]
    }
    fn has_magic(&self, head: &[u8]) -> bool {
        head.starts_with(&layout::MAGIC) || head.starts_with(layout::DESCRIPTOR_MAGIC)
    }
    fn subformats(&self) -> &'static [Subformat] {
        &[Subformat::StreamOptimized]
    }
    fn compresses(&self, compression: Compression) -> bool {
        matches!(compression, Compression::Zlib(_))
    }
    fn virtual_bytes(&self, disk_size: u64) -> u64 {
        disk_size.next_multiple_of(SECTOR)
    }
    fn limit(&self) -> u64 {
        layout::MAX_DISK
    }
    fn open(&self, file: Arc<dyn ReadAt>, _gate: &Gate<'_>) -> Result<Box<dyn ReadAt>, OpenError> {
        Ok(Box::new(read::VmdkDisk::open(file)?))
    }
    fn sinks<'a>(&self, plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
        write::sinks(plan, output)
    }
}
