//! File systems as extents: a [`Tree`](amiforge_tree::Tree) becomes an ext4 file system, a list of
//! small files becomes a FAT volume, and both can be looked into again.
//!
//! Writers only *plan*: they compute every byte of metadata and the final place of every byte of
//! file data, and return [`Extents`](amiforge_disk::Extents). They never read file data, never open
//! anything, and know no clock and no randomness but what the options carry.
//!
//! - [`ext4::plan`] is our own write-once ext4 writer; [`ext4::Reader`] looks into images.
//! - [`fat::build`] makes the EFI system partition; [`fat::Reader`] looks into one.
#![forbid(unsafe_code)]

pub mod ext4;
pub mod fat;
mod window;
