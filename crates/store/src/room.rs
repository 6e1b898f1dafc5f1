//! Room on a disk.

use std::io;
use std::path::Path;

/// Bytes that are free on the disk of `dir` for those who are not root of the machine (statvfs(3)).
///
/// # Errors
/// When the file system does not say.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(dir)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}
