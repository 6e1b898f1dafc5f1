//! qcow2 (QEMU `docs/interop/qcow2`), written once from front to back; all numbers big-endian.
//!
//! ```text
//! plain:       header │ refcount table │ refcount blocks │ L1 │ L2 … │ data clusters in guest order
//! compressed:  header │ data, and each L2 after its data … │ L1 │ refcount blocks │ refcount table
//! ```
//!
//! Plain files have all metadata in front because every address follows from the extents alone, so
//! data is written by all threads at once and hashed in one pass. A compressed file's addresses are
//! known when the data is, so its metadata comes last; so do those of a plain file whose zeros are to
//! be found, since only the data tells which clusters there are.

mod layout;
mod previous;
mod read;
#[cfg(test)]
mod tests;
mod write_compressed;
mod write_plain;

use std::io;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::{Compression, Format, FormatDriver, Gate, OpenError};
use crate::emit::{Output, Sinks, WindowPlan};

pub use previous::Previous;

pub(crate) struct Qcow2;

impl FormatDriver for Qcow2 {
    fn format(&self) -> Format {
        Format::Qcow2
    }
    fn name(&self) -> &'static str {
        "qcow2"
    }
    fn extensions(&self) -> &'static [&'static str] {
        &["qcow"]
    }
    fn has_magic(&self, head: &[u8]) -> bool {
        head.starts_with(&layout::MAGIC)
    }
    fn open(&self, file: Arc<dyn ReadAt>, gate: &Gate<'_>) -> Result<Box<dyn ReadAt>, OpenError> {
        Ok(Box::new(read::Qcow2Disk::open(file, gate)?))
    }
    fn sinks<'a>(&self, plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
        if self.first_bytes_last(output) {
            write_compressed::sinks(plan, output)
        } else {
            write_plain::sinks(plan, output)
        }
    }
    fn compresses(&self, _compression: Compression) -> bool {
        true
    }
    fn virtual_bytes(&self, disk_size: u64) -> u64 {
        layout::virtual_bytes(disk_size)
    }
    fn limit(&self) -> u64 {
        layout::MAX_DISK
    }
    fn first_bytes_last(&self, output: &Output<'_>) -> bool {
        output.compression != Compression::None || output.find_zeros
    }
}
