//! The file tree of an image: inodes in memory, file data elsewhere.
//!
//! A [`Tree`] holds metadata only. The data of a file is a list of [`DataExtent`]s that point into
//! a [`BlobTable`](amiforge_types::BlobTable), so a tree of a 10 GiB image costs a few megabytes.
//! Every producer (tar, layers, packages) builds a `Tree` or a [`LayerDiff`]; every consumer (ext4,
//! tar out, dump) walks one.
#![forbid(unsafe_code)]

pub mod compare;
mod content;
mod content_digest;
mod diff;
mod dump;
mod flags;
pub mod layer;
mod model;
mod names;
mod pack;
pub mod tar;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use content::{ContentReader, DATA_CHUNK};
pub use content_digest::ContentHasher;
pub use diff::ApplyError;
pub use dump::{DumpContent, dump_entries};
pub use flags::InodeFlags;
pub use model::{
    Content, DataExtent, DataSource, Ino, Inode, Kind, LayerDiff, LayerEntry, MAX_NAME, Stat, Tree,
    TreeError, XattrName,
};
pub use names::{Children, NameRef};
pub use pack::FileRuns;
