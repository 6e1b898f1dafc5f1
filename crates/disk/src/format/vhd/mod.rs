//! VHD (Microsoft's Virtual Hard Disk Image Format 1.0), fixed and dynamic. Big-endian.
//!
//! ```text
//! fixed:    the disk │ footer
//! dynamic:  copy of the footer │ header │ block table │ blocks: bitmap, 2 MiB … │ footer
//! ```
//!
//! The disk in a file is a whole number of MiB, which Azure asks for; the footer's id is drawn from
//! the disk's content.

mod layout;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::{Format, FormatDriver, Gate, OpenError, Subformat};
use crate::emit::{Output, Sinks, WindowPlan};

pub(crate) struct Vhd;

impl FormatDriver for Vhd {
    fn format(&self) -> Format {
        Format::Vhd
    }
    fn name(&self) -> &'static str {
        "vhd"
    }
    fn extensions(&self) -> &'static [&'static str] {
        &["vpc"]
    }
    fn has_magic(&self, head: &[u8]) -> bool {
        head.starts_with(layout::MAGIC)
    }
    fn has_tail_magic(&self, tail: &[u8]) -> bool {
        tail.starts_with(layout::MAGIC)
    }
    fn subformats(&self) -> &'static [Subformat] {
        &[Subformat::Dynamic, Subformat::Fixed]
    }
    fn virtual_bytes(&self, disk_size: u64) -> u64 {
        layout::virtual_bytes(disk_size)
    }
    fn limit(&self) -> u64 {
        layout::MAX_DISK
    }
    fn needs_content(&self) -> bool {
        true
    }
    fn first_bytes_last(&self, output: &Output<'_>) -> bool {
        output.subformat != Subformat::Fixed
    }
    fn open(&self, file: Arc<dyn ReadAt>, _gate: &Gate<'_>) -> Result<Box<dyn ReadAt>, OpenError> {
        read::open(file)
    }
    fn sinks<'a>(&self, plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
        match output.subformat {
            Subformat::Fixed => write::fixed(plan, output),
            _ => write::dynamic(plan, output),
        }
    }
}
