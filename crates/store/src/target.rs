//! A file as a target of bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use amiforge_types::{ReadAt, WriteAt};
use rustix::io::Errno;

/// A regular file that is written at offsets, from any thread. Ranges that nobody writes stay
/// holes. [`WriteAt::copy_from`] lets the kernel copy, which shares the blocks on file systems that
/// can (btrfs, XFS).
#[derive(Debug)]
pub struct FileTarget {
    file: File,
    /// Cleared once the kernel said that it cannot copy between these files.
    kernel_copy: AtomicBool,
}

impl FileTarget {
    /// Creates the file, or empties an existing one. The error names the path.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path.as_ref())?;
        Ok(Self::from_file(file.into_parts().0))
    }

    /// A file that is open for writing.
    #[must_use]
    pub fn from_file(file: File) -> Self {
        Self {
            file,
            kernel_copy: AtomicBool::new(true),
        }
    }

    /// The file, for example to sync it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Copies in the kernel as far as that works; returns how many bytes it did.
    fn copy_in_kernel(
        &self,
        src: &dyn ReadAt,
        src_offset: u64,
        len: u64,
        offset: u64,
    ) -> io::Result<u64> {
        let Some(fd) = src.as_fd() else { return Ok(0) };
        let mut done = 0;
        while done < len && self.kernel_copy.load(Ordering::Relaxed) {
            let (mut from, mut to) = (src_offset + done, offset + done);
            let want = usize::try_from((len - done).min(1 << 30)).unwrap_or(1 << 30);
            match rustix::fs::copy_file_range(fd, Some(&mut from), &self.file, Some(&mut to), want)
            {
                // The source is shorter than said, or of a kind that cannot be copied this way;
                // reading tells which.
                Ok(0) => break,
                Ok(n) => done += n as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                    self.kernel_copy.store(false, Ordering::Relaxed);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(done)
    }
}

/// What was written so far, where the file is open for reading, too.
impl ReadAt for FileTarget {
    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl WriteAt for FileTarget {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn copy_from(
        &self,
        src: &dyn ReadAt,
        src_offset: u64,
        len: u64,
        offset: u64,
    ) -> io::Result<()> {
        const CHUNK: u64 = 256 << 10;
        let mut done = self.copy_in_kernel(src, src_offset, len, offset)?;
        let mut buf = vec![0; usize::try_from((len - done).min(CHUNK)).unwrap_or(0)];
        while done < len {
            let n = usize::try_from((len - done).min(CHUNK)).unwrap_or(buf.len());
            src.read_exact_at(&mut buf[..n], src_offset + done)?;
            self.write_all_at(&buf[..n], offset + done)?;
            done += n as u64;
        }
        Ok(())
    }
}
