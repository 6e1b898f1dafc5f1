//! Texts in the memory of a process that waits for an answer.

use std::ffi::CString;
use std::io;

use rustix::io::Errno;

/// Bytes of a path with its end (path_resolution(7)).
pub(super) const MAX_PATH: usize = 4096;

/// The size of a page is at least this; memory is read up to the end of one at a time.
const PAGE: u64 = 4096;

/// A text of at most `max` bytes with the zero byte at its end. `read` puts what is at an address into a buffer and
/// says how much there was.
pub(super) fn text(
    at: u64,
    max: usize,
    read: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<CString> {
    let mut text = Vec::new();
    while text.len() < max {
        let at = at
            .checked_add(text.len() as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // Up to the end of the page: what is behind it may not be there.
        let there = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
        let mut part = [0; 4096];
        let part = &mut part[..there.min(max - text.len()).min(256)];
        let read = read(at, part)?;
        if read == 0 {
            break;
        }
        match part[..read].iter().position(|b| *b == 0) {
            Some(end) => {
                text.extend_from_slice(&part[..end]);
                return Ok(CString::new(text)?);
            }
            None => text.extend_from_slice(&part[..read]),
        }
    }
    Err(Errno::NAMETOOLONG.into())
}
