//! Looking into an ext4 image, through `ext4-view` (which reads ext2 and a dirty journal as well).

use std::error::Error;
use std::sync::Arc;

use amiforge_types::{ReadAt, Timestamp, Uuid};
use ext4_view::{Ext4, Ext4Read, FileType, Path};

use crate::window::Window;

/// Largest file that [`Reader::read`] takes into memory, in bytes.
const MAX_WHOLE_FILE: u64 = 1 << 30;

/// An image that cannot be read, or a path in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not ext2, ext3 or ext4, or cut off.
    #[error("not a readable ext4 file system")]
    Open(#[source] Box<dyn Error + Send + Sync>),
    /// The file system is damaged where the path leads.
    #[error("{}: the file system is damaged", String::from_utf8_lossy(.path))]
    Corrupt {
        /// Path in the image.
        path: Vec<u8>,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The path leads to nothing.
    #[error("{}: no such file or directory", String::from_utf8_lossy(.0))]
    NotFound(Vec<u8>),
    /// Something on the way, or the target of a listing, is not a directory.
    #[error("{}: not a directory", String::from_utf8_lossy(.0))]
    NotADirectory(Vec<u8>),
    /// A file's data was asked for, and the path leads to something else.
    #[error("{}: a {}, not a regular file", String::from_utf8_lossy(.path), kind.name())]
    NotAFile {
        /// Path in the image.
        path: Vec<u8>,
        /// What it leads to.
        kind: FileKind,
    },
    /// The target of a link was asked for, and the path leads to something else.
    #[error("{}: not a symbolic link", String::from_utf8_lossy(.0))]
    NotASymlink(Vec<u8>),
    /// The path has a NUL, a name that is too long, or `..` above what is there.
    #[error("{}: not a path", String::from_utf8_lossy(.0))]
    BadPath(Vec<u8>),
    /// The file is larger than what is read at once.
    #[error("{}: {size} bytes are too many to read at once", String::from_utf8_lossy(.path))]
    TooLarge {
        /// Path in the image.
        path: Vec<u8>,
        /// Its size.
        size: u64,
    },
    /// The image could not be read.
    #[error("{}: cannot be read", String::from_utf8_lossy(.path))]
    Io {
        /// Path in the image.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The image uses something the reader does not know.
    #[error("{}: the file system uses a feature that is not supported", String::from_utf8_lossy(.path))]
    Unsupported {
        /// Path in the image.
        path: Vec<u8>,
        /// Which.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDev,
    /// Block device.
    BlockDev,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

impl FileKind {
    /// A word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "regular file",
            Self::Dir => "directory",
            Self::Symlink => "symbolic link",
            Self::CharDev => "character device",
            Self::BlockDev => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
        }
    }

    fn of(kind: FileType) -> Self {
        match kind {
            FileType::Regular => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDev,
            FileType::BlockDevice => Self::BlockDev,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
        }
    }
}

/// What is known of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Type.
    pub kind: FileKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Creation, where the inode is large enough to tell.
    pub crtime: Option<Timestamp>,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it leads to; a link is not followed.
    pub stat: FileStat,
}

/// An ext4 image, opened for reading.
///
/// Paths are bytes, absolute or relative to the root. Symbolic links *on the way* are followed
/// inside the image (it has its own root, so nothing leads out); one at the *end* of a path never
/// is: take [`Reader::resolve`] first where that is wanted.
pub struct Reader {
    fs: Ext4,
}

impl Reader {
    /// Opens the file system in `len` bytes of `source` from `offset` on.
    pub fn open(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Self, ReadError> {
        let window = Window::new(source, offset, len).map_err(|e| ReadError::Open(Box::new(e)))?;
        let fs = Ext4::load(Box::new(Source(window)))
            .map_err(|e| ReadError::Open(Box::new(Foreign::of(e))))?;
        Ok(Self { fs })
    }

    /// File system UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(*self.fs.uuid().as_bytes())
    }

    /// Volume label.
    #[must_use]
    pub fn label(&self) -> Vec<u8> {
        let bytes = self.fs.label().as_bytes();
        bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())].to_vec()
    }

    /// What a path leads to; a link at its end is not followed.
    pub fn stat(&self, path: &[u8]) -> Result<FileStat, ReadError> {
        let full = absolute(path)?;
        let meta = self
            .fs
            .symlink_metadata(view(&full)?)
            .map_err(|e| explain(path, e))?;
        Ok(stat_of(&meta))
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, path: &[u8]) -> Result<Vec<DirEntry>, ReadError> {
        if self.stat(path)?.kind != FileKind::Dir {
            return Err(ReadError::NotADirectory(path.to_vec()));
        }
        let full = absolute(path)?;
        let mut out = Vec::new();
        for entry in self
            .fs
            .read_dir(view(&full)?)
            .map_err(|e| explain(path, e))?
        {
            let entry = entry.map_err(|e| explain(path, e))?;
            let name = entry.file_name().as_ref().to_vec();
            if name != b"." && name != b".." {
                let stat = stat_of(&entry.metadata().map_err(|e| explain(path, e))?);
                out.push(DirEntry { name, stat });
            }
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        let full = absolute(path)?;
        let target = self
            .fs
            .read_link(view(&full)?)
            .map_err(|e| explain(path, e))?;
        Ok(AsRef::<[u8]>::as_ref(&target).to_vec())
    }

    /// The path without links and `..`, as the image's own system would find it.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        let full = absolute(path)?;
        let real = self
            .fs
            .canonicalize(view(&full)?)
            .map_err(|e| explain(path, e))?;
        Ok(AsRef::<[u8]>::as_ref(&real).to_vec())
    }

    /// Reads a part of a regular file. Fewer bytes than `buf` has are returned only at the file's end.
    pub fn read_at(&self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let size = self.regular(path)?;
        if offset >= size {
            return Ok(0);
        }
        let full = absolute(path)?;
        let mut file = self.fs.open(view(&full)?).map_err(|e| explain(path, e))?;
        file.seek_to(offset).map_err(|e| explain(path, e))?;
        let mut done = 0;
        while done < buf.len() {
            match file
                .read_bytes(&mut buf[done..])
                .map_err(|e| explain(path, e))?
            {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Reads a whole regular file of at most 1 GiB.
    pub fn read(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        let size = self.regular(path)?;
        if size > MAX_WHOLE_FILE {
            return Err(ReadError::TooLarge {
                path: path.to_vec(),
                size,
            });
        }
        // Grown as it is read: the size is a foreign number.
        let full = absolute(path)?;
        let mut file = self.fs.open(view(&full)?).map_err(|e| explain(path, e))?;
        let mut out = Vec::new();
        let mut buf = vec![0; 1 << 16];
        loop {
            match file.read_bytes(&mut buf).map_err(|e| explain(path, e))? {
                0 => return Ok(out),
                n => out.extend_from_slice(&buf[..n]),
            }
        }
    }

    fn regular(&self, path: &[u8]) -> Result<u64, ReadError> {
        match self.stat(path)? {
            FileStat {
                kind: FileKind::File,
                size,
                ..
            } => Ok(size),
            FileStat { kind, .. } => Err(ReadError::NotAFile {
                path: path.to_vec(),
                kind,
            }),
        }
    }
}

fn absolute(path: &[u8]) -> Result<Vec<u8>, ReadError> {
    if path.contains(&0) {
        return Err(ReadError::BadPath(path.to_vec()));
    }
    let mut full = b"/".to_vec();
    full.extend_from_slice(path.strip_prefix(b"/").unwrap_or(path));
    Ok(full)
}

fn view(full: &[u8]) -> Result<Path<'_>, ReadError> {
    Path::try_from(full).map_err(|_| ReadError::BadPath(full.to_vec()))
}

fn stat_of(meta: &ext4_view::Metadata) -> FileStat {
    let time = |t: ext4_view::Timestamp| Timestamp {
        secs: t.seconds(),
        nanos: t.nanoseconds(),
    };
    FileStat {
        kind: FileKind::of(meta.file_type()),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        size: meta.len(),
        mtime: time(meta.modified()),
        crtime: meta.created().map(time),
    }
}

fn explain(path: &[u8], error: ext4_view::Ext4Error) -> ReadError {
    use ext4_view::Ext4Error as E;
    let path = path.to_vec();
    match error {
        E::NotFound => ReadError::NotFound(path),
        E::NotADirectory => ReadError::NotADirectory(path),
        E::IsADirectory => ReadError::NotAFile {
            path,
            kind: FileKind::Dir,
        },
        E::NotASymlink => ReadError::NotASymlink(path),
        E::MalformedPath | E::PathTooLong | E::NotAbsolute => ReadError::BadPath(path),
        E::Io(source) => ReadError::Io { path, source },
        e @ E::Incompatible(_) => ReadError::Unsupported {
            path,
            source: Box::new(Foreign::of(e)),
        },
        e => ReadError::Corrupt {
            path,
            source: Box::new(Foreign::of(e)),
        },
    }
}

/// An error of `ext4-view` as text, so that its type stays out of our interface.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Foreign(String);

impl Foreign {
    fn of(error: ext4_view::Ext4Error) -> Self {
        Self(error.to_string())
    }
}

struct Source(Window);

impl Ext4Read for Source {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(dst, start_byte)?)
    }
}
