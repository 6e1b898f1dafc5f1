//! Looking into a FAT volume.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use amiforge_types::{ReadAt, Timestamp};
use fatfs::{Dir, FileSystem, FsOptions};

use super::FatError;
use crate::window::Window;

/// Most entries that one listing returns; a damaged directory chain may be endless.
const MAX_ENTRIES: usize = 1 << 20;

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// True for a directory.
    pub directory: bool,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Last modification, read as UTC; `None` for the root, which has none.
    pub mtime: Option<Timestamp>,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The long name, or the short one where there is no other.
    pub name: String,
    /// What it leads to.
    pub stat: Stat,
}

/// A FAT volume, opened for reading. Paths have `/` between names; case does not matter.
pub struct Reader {
    fs: FileSystem<Cursor>,
}

impl Reader {
    /// Opens the volume in `len` bytes of `source` from `offset` on.
    pub fn open(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Self, FatError> {
        let window = Window::new(source, offset, len).map_err(FatError::Open)?;
        let options = FsOptions::new().update_accessed_date(false);
        let fs = FileSystem::new(
            Cursor {
                window,
                position: 0,
            },
            options,
        )
        .map_err(FatError::Open)?;
        Ok(Self { fs })
    }

    /// The volume label, without its padding.
    #[must_use]
    pub fn label(&self) -> String {
        self.fs.volume_label()
    }

    /// The volume serial number.
    #[must_use]
    pub fn volume_id(&self) -> u32 {
        self.fs.volume_id()
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.fs.fat_type() {
            fatfs::FatType::Fat12 => "FAT12",
            fatfs::FatType::Fat16 => "FAT16",
            fatfs::FatType::Fat32 => "FAT32",
        }
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, FatError> {
        let mut out = Vec::new();
        for entry in self.dir(path)?.iter().take(MAX_ENTRIES) {
            let entry = entry.map_err(|source| FatError::Read {
                path: path.to_owned(),
                source,
            })?;
            let name = entry.file_name();
            if name != "." && name != ".." {
                out.push(DirEntry {
                    name,
                    stat: stat_of(&entry),
                });
            }
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// What a path leads to.
    pub fn stat(&self, path: &str) -> Result<Stat, FatError> {
        let Some((parent, name)) = split(path) else {
            return Ok(Stat {
                directory: true,
                size: 0,
                mtime: None,
            });
        };
        let wanted = name.to_uppercase();
        for entry in self.dir(&parent)?.iter().take(MAX_ENTRIES) {
            let entry = entry.map_err(|source| FatError::Read {
                path: path.to_owned(),
                source,
            })?;
            if entry.file_name().to_uppercase() == wanted
                || entry.short_file_name().to_uppercase() == wanted
            {
                return Ok(stat_of(&entry));
            }
        }
        Err(FatError::NotFound(path.to_owned()))
    }

    /// Reads a part of a file. Fewer bytes than `buf` has are returned only at the file's end.
    pub fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, FatError> {
        let stat = self.stat(path)?;
        if stat.directory {
            return Err(FatError::IsADirectory(path.to_owned()));
        }
        if offset >= stat.size {
            return Ok(0);
        }
        let failed = |source| FatError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = self
            .fs
            .root_dir()
            .open_file(&joined(path))
            .map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut done = 0;
        while done < buf.len() {
            match file.read(&mut buf[done..]).map_err(failed)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Reads a whole file. Files end at 4 GiB, the limit of the format.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, FatError> {
        let stat = self.stat(path)?;
        if stat.directory {
            return Err(FatError::IsADirectory(path.to_owned()));
        }
        let failed = |source| FatError::Read {
            path: path.to_owned(),
            source,
        };
        let mut out = Vec::new();
        let file = self
            .fs
            .root_dir()
            .open_file(&joined(path))
            .map_err(failed)?;
        file.take(stat.size).read_to_end(&mut out).map_err(failed)?;
        Ok(out)
    }

    fn dir(&self, path: &str) -> Result<Dir<'_, Cursor>, FatError> {
        let root = self.fs.root_dir();
        let clean = joined(path);
        if clean.is_empty() {
            return Ok(root);
        }
        root.open_dir(&clean).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FatError::NotFound(path.to_owned()),
            io::ErrorKind::Other => FatError::NotADirectory(path.to_owned()),
            _ => FatError::Read {
                path: path.to_owned(),
                source,
            },
        })
    }
}

fn stat_of(entry: &fatfs::DirEntry<'_, Cursor>) -> Stat {
    let time = entry.modified();
    Stat {
        directory: entry.is_dir(),
        size: if entry.is_dir() { 0 } else { entry.len() },
        mtime: Some(unix(time)),
    }
}

/// Seconds since 1970 of a FAT time read as UTC; months and days out of range count on.
fn unix(time: fatfs::DateTime) -> Timestamp {
    let (y, m, d) = (
        i64::from(time.date.year),
        i64::from(time.date.month),
        i64::from(time.date.day),
    );
    let year = if m <= 2 { y - 1 } else { y };
    let month = (m + 9) % 12;
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + d - 1 - 719_468;
    let clock =
        i64::from(time.time.hour) * 3600 + i64::from(time.time.min) * 60 + i64::from(time.time.sec);
    Timestamp::from_secs(days * 86_400 + clock)
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

fn joined(path: &str) -> String {
    parts(path).collect::<Vec<_>>().join("/")
}

fn split(path: &str) -> Option<(String, String)> {
    let mut all: Vec<_> = parts(path).collect();
    let name = all.pop()?;
    Some((all.join("/"), name.to_owned()))
}

/// A window with a position; writing fails.
struct Cursor {
    window: Window,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.window.len().saturating_sub(self.position);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.window.read_exact_at(&mut buf[..len], self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.window.len().checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
