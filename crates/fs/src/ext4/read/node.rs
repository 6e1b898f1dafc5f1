//! One inode of an image, and what can be asked of it.

use std::collections::BTreeMap;

use amiforge_tree::XattrName;

use super::bytes::index;
use super::error::ReadError;
use super::fs::Fs;
use super::inode::Inode;
use super::map::Budget;
use super::runs::{self, DataRun};
use super::{DirEntry, FileKind, FileStat, dir, xattr};

/// Largest file that is taken into memory, in bytes.
const MAX_WHOLE_FILE: u64 = 1 << 30;
/// Bytes that a file in memory grows by while it is read: its size is a foreign number.
const STEP: u64 = 4 << 20;

/// An inode of an image.
pub struct Node<'r> {
    fs: &'r Fs,
    inode: Inode,
    /// How it was asked for, for errors.
    path: Vec<u8>,
}

impl<'r> Node<'r> {
    pub(super) fn new(fs: &'r Fs, inode: Inode, path: Vec<u8>) -> Self {
        Self { fs, inode, path }
    }

    /// What is known of it.
    #[must_use]
    pub fn stat(&self) -> FileStat {
        self.inode.stat()
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self) -> Result<Vec<DirEntry>, ReadError> {
        if self.inode.kind != FileKind::Dir {
            return Err(ReadError::NotADirectory(self.path.clone()));
        }
        let fail = |fault: super::Fault| fault.at(&self.path);
        let mut names = Vec::new();
        dir::scan(
            self.fs,
            &self.inode,
            &mut Budget::of(&self.fs.volume),
            |entry| {
                names.push((entry.inode, entry.name.to_vec()));
                Ok(true)
            },
        )
        .map_err(fail)?;
        // By number, so that an inode table is read from front to back.
        names.sort_unstable();
        let mut out = Vec::with_capacity(names.len());
        for (number, name) in names {
            let inode = self
                .fs
                .named_inode(number)
                .map_err(|fault| fault.at(&[&self.path[..], b"/", &name[..]].concat()))?;
            out.push(DirEntry {
                name,
                stat: inode.stat(),
            });
        }
        out.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self) -> Result<Vec<u8>, ReadError> {
        if self.inode.kind != FileKind::Symlink {
            return Err(ReadError::NotASymlink(self.path.clone()));
        }
        self.fs
            .link_target(&self.inode)
            .map_err(|fault| fault.at(&self.path))
    }

    /// The extended attributes by full name, with the values that `getxattr` gives.
    pub fn xattrs(&self) -> Result<BTreeMap<XattrName, Vec<u8>>, ReadError> {
        xattr::read(self.fs, &self.inode).map_err(|fault| fault.at(&self.path))
    }

    /// True with extended attributes, as far as can be told without reading them.
    #[must_use]
    pub fn may_have_xattrs(&self) -> bool {
        self.inode.xattr_block != 0 || self.inode.tail().iter().any(|b| *b != 0)
    }

    /// Where the data of a regular file is; what the runs leave out is a hole.
    pub fn data_runs(&self) -> Result<Vec<DataRun>, ReadError> {
        self.regular()?;
        runs::data_runs(self.fs, &self.inode, &mut Budget::of(&self.fs.volume))
            .map_err(|fault| fault.at(&self.path))
    }

    /// Reads a part of a regular file. Fewer bytes than `buf` has are returned only at the file's end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.regular()?.saturating_sub(offset);
        let len = index(left).min(buf.len());
        if len > 0 {
            let budget = &mut Budget::of(&self.fs.volume);
            self.fs
                .read_data(&self.inode, offset, &mut buf[..len], budget)
                .map_err(|fault| fault.at(&self.path))?;
        }
        Ok(len)
    }

    /// Reads a whole regular file of at most 1 GiB.
    pub fn read(&self) -> Result<Vec<u8>, ReadError> {
        let size = self.regular()?;
        if size > MAX_WHOLE_FILE {
            return Err(ReadError::TooLarge {
                path: self.path.clone(),
                size,
            });
        }
        let mut out = Vec::new();
        while (out.len() as u64) < size {
            let start = out.len();
            out.resize(index((start as u64 + STEP).min(size)), 0);
            self.read_at(start as u64, &mut out[start..])?;
        }
        Ok(out)
    }

    fn regular(&self) -> Result<u64, ReadError> {
        match self.inode.kind {
            FileKind::File => Ok(self.inode.size),
            kind => Err(ReadError::NotAFile {
                path: self.path.clone(),
                kind,
            }),
        }
    }
}
