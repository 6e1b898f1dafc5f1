//! The vocabulary that every other crate of amiforge shares: digests, seeds, identifiers, times,
//! byte sources, and diagnostics about documents.
//!
//! What is *not* here: anything that does I/O. [`ReadAt`] and [`WriteAt`] are the traits through
//! which bytes reach the pure crates; their file implementations live in `amiforge-store`.
#![forbid(unsafe_code)]

mod arch;
mod blob;
mod compression;
mod diagnostic;
mod digest;
mod seed;
mod size;
mod time;
mod uuid;

pub use arch::Arch;
pub use blob::{BlobId, BlobTable, ReadAt, WriteAt};
pub use compression::{Compression, CompressionError};
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity, Span};
pub use digest::{Digest, DigestParseError, Hasher, LayerId};
pub use seed::Seed;
pub use size::{ByteSize, ByteSizeParseError, GIB, KIB, MIB, SECTOR};
pub use time::{Timestamp, TimestampError};
pub use uuid::Uuid;
