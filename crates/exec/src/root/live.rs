//! The root of the calling process.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};

use super::{FileKind, Metadata, Open, Root, is_ours};
use crate::executor::processes;
use crate::spec::HOST_NAME;

/// The file system that the process itself sees at `/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live;

impl Root for Live {
    fn host_name(&self) -> String {
        // Without a namespace for it the name is the machine's own.
        if processes::adopts() {
            return HOST_NAME.to_owned();
        }
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        std::fs::metadata(path).map(|found| convert(&found))
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        std::fs::symlink_metadata(path).map(|found| convert(&found))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::read_link(path)
    }

    fn read_dir(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(regular(path)?))
    }

    fn write(&self, path: &Path, how: Open, bytes: &[u8]) -> io::Result<()> {
        options(how).open(path)?.write_all(bytes)
    }

    fn copy(&self, from: &Path, to: &Path, how: Open) -> io::Result<()> {
        let mut source = regular(from)?;
        io::copy(&mut source, &mut options(how).open(to)?).map(drop)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn hard_link(&self, original: &Path, path: &Path) -> io::Result<()> {
        std::fs::hard_link(original, path)
    }

    fn make_node(&self, path: &Path, like: &Metadata, mode: u32) -> io::Result<()> {
        let kind = match like.kind {
            FileKind::Pipe => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::CharacterDevice => FileType::CharacterDevice,
            FileKind::File | FileKind::Folder | FileKind::Link => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::mknodat(CWD, path, kind, mode, like.device)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn chown(
        &self,
        path: &Path,
        follow: bool,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<()> {
        match follow {
            true => std::os::unix::fs::chown(path, uid, gid),
            false => std::os::unix::fs::lchown(path, uid, gid),
        }
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn copy_attributes(&self, from: &Path, to: &Path) -> io::Result<()> {
        // The kernel's limits of a list of names and of a value.
        let (mut names, mut value) = (vec![0_u8; 65_536], vec![0_u8; 65_536]);
        let size = match rustix::fs::llistxattr(from, &mut names) {
            Err(rustix::io::Errno::NOTSUP) => return Ok(()),
            other => other?,
        };
        let names = names[..size].split(|b| *b == 0).filter(|n| !n.is_empty());
        for name in names.filter(|name| is_ours(name)) {
            let size = rustix::fs::lgetxattr(from, name, &mut value)?;
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(to, name, &value[..size], flags)?;
        }
        Ok(())
    }

    fn set_times(&self, path: &Path, like: &Metadata) -> io::Result<()> {
        let [modified, accessed] = like
            .times
            .map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(CWD, path, &times, flags)?)
    }
}

/// Opens a regular file for reading: to open a pipe could wait for ever.
fn regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let message = "it is not a regular file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn options(how: Open) -> OpenOptions {
    let mut options = OpenOptions::new();
    match how {
        Open::Append => options.append(true),
        Open::Replace(mode) => options.write(true).create(true).truncate(true).mode(mode),
        Open::New(mode) => options.write(true).create_new(true).mode(mode),
    };
    options
}

fn convert(found: &std::fs::Metadata) -> Metadata {
    let kind = match found.file_type() {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Folder,
        t if t.is_symlink() => FileKind::Link,
        t if t.is_fifo() => FileKind::Pipe,
        t if t.is_socket() => FileKind::Socket,
        t if t.is_block_device() => FileKind::BlockDevice,
        _ => FileKind::CharacterDevice,
    };
    Metadata {
        kind,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        len: found.len(),
        links: found.nlink(),
        identity: (found.dev(), found.ino()),
        device: found.rdev(),
        times: [
            (found.mtime(), found.mtime_nsec()),
            (found.atime(), found.atime_nsec()),
        ],
    }
}
