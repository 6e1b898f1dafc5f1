//! Files lent to the image while a job runs.
//!
//! They are the topmost *lower* directory of the overlay, not files in the upper one and not bind
//! mounts: a job may replace, rename over or delete them like any file, and whatever it leaves
//! alone is not in the upper directory. The same layer lends the directories to mount on.
//!
//! A directory in this layer covers the attributes of the image's own, so it copies them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::ChildError;
use crate::spec::{PlaceError, image_path, lent_place};

/// What to lend.
pub(super) struct Lent<'a> {
    /// Absolute path, content, permission bits.
    pub(super) files: Vec<(&'a str, &'a [u8], u32)>,
    /// Absolute paths of directories that must exist.
    pub(super) dirs: &'a [&'a str],
}

/// Fills the empty directory `layer`, looking at the image's files in `image`.
pub(super) fn build(
    layer: BorrowedFd<'_>,
    image: BorrowedFd<'_>,
    lent: &Lent<'_>,
) -> Result<(), ChildError> {
    let mut builder = Builder {
        layer,
        image,
        made: BTreeMap::new(),
    };
    for (path, text, mode) in &lent.files {
        let fail = |e: Errno| ChildError::job(format!("cannot lend {path} to the image"), &e);
        let real = resolve(image, path).map_err(fail)?;
        builder.file(&real, text, *mode).map_err(fail)?;
    }
    for path in lent.dirs {
        let parts = image_path(path)
            .ok_or_else(|| ChildError::plain(format!("{path} is not a path in an image")))?;
        let fail = |e: Errno| ChildError::job(format!("cannot lend {path} to the image"), &e);
        match rustix::fs::statat(
            image,
            path.trim_start_matches('/'),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => {
                return Err(ChildError::plain(format!(
                    "in the image, {path} is not a directory"
                )));
            }
            Err(Errno::NOENT) => drop(builder.dir(&parts).map_err(fail)?),
            Err(e) => return Err(fail(e)),
        }
    }
    builder
        .finish()
        .map_err(|e| ChildError::job("cannot lend files to the image", &e))
}

/// The time of what the image does not have: never that of the build.
const EPOCH: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

fn set_time(fd: BorrowedFd<'_>, time: Timespec) -> Result<(), Errno> {
    rustix::fs::futimens(
        fd,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )
}

struct Builder<'a> {
    layer: BorrowedFd<'a>,
    image: BorrowedFd<'a>,
    /// Directories made, with the time they are to have.
    made: BTreeMap<Vec<Vec<u8>>, Option<Timespec>>,
}

impl Builder<'_> {
    fn file(&mut self, path: &[Vec<u8>], text: &[u8], mode: u32) -> Result<(), Errno> {
        let (name, parents) = path.split_last().ok_or(Errno::ISDIR)?;
        let dir = self.dir(parents)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)?;
        let mut rest = text;
        while !rest.is_empty() {
            let n = rustix::io::write(&file, rest)?;
            rest = &rest[n..];
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        // A step may copy it with its time.
        set_time(file.as_fd(), EPOCH)
    }

    /// Makes a directory and those above it, each like the image's own.
    fn dir(&mut self, path: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = rustix::io::fcntl_dupfd_cloexec(self.layer, 3)?;
        let mut from = Some(rustix::io::fcntl_dupfd_cloexec(self.image, 3)?);
        for (depth, name) in path.iter().enumerate() {
            from = match &from {
                None => None,
                Some(dir) => match rustix::fs::openat(dir, name.as_slice(), flags, Mode::empty()) {
                    Ok(fd) => Some(fd),
                    Err(Errno::NOENT) => None,
                    Err(e) => return Err(e),
                },
            };
            match rustix::fs::mkdirat(&to, name.as_slice(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            to = rustix::fs::openat(&to, name.as_slice(), flags, Mode::empty())?;
            self.made.insert(
                path[..=depth].to_vec(),
                copy_attributes(from.as_ref(), &to)?,
            );
        }
        Ok(to)
    }

    /// Sets the times, deepest first: making files in a directory had changed them.
    fn finish(self) -> Result<(), Errno> {
        for (path, time) in self.made.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut dir = rustix::io::fcntl_dupfd_cloexec(self.layer, 3)?;
            for name in path {
                dir = rustix::fs::openat(&dir, name.as_slice(), flags, Mode::empty())?;
            }
            set_time(dir.as_fd(), time.unwrap_or(EPOCH))?;
        }
        Ok(())
    }
}

/// Gives `to` the owner and mode of `from`, or root's and 0755; returns the time it is to have.
fn copy_attributes(from: Option<&OwnedFd>, to: &OwnedFd) -> Result<Option<Timespec>, Errno> {
    let Some(from) = from else {
        rustix::fs::fchmod(to, Mode::from_raw_mode(0o755))?;
        return Ok(None);
    };
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(Some(Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }))
}

/// The place of a lent file in the image.
fn resolve(image: BorrowedFd<'_>, path: &str) -> Result<Vec<Vec<u8>>, Errno> {
    let link = |path: &[u8]| {
        let target = rustix::fs::readlinkat(image, path, Vec::new()).ok()?;
        Some(target.into_bytes())
    };
    lent_place(path, link).map_err(|error| match error {
        PlaceError::Path => Errno::INVAL,
        PlaceError::Loop => Errno::LOOP,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn lands_behind_links_and_copies_the_directory() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let temp = tempfile::tempdir().unwrap();
        let (image, layer) = (temp.path().join("image"), temp.path().join("layer"));
        fs_err::create_dir_all(image.join("usr/sbin")).unwrap();
        fs_err::create_dir(&layer).unwrap();
        fs_err::set_permissions(
            image.join("usr/sbin"),
            std::fs::Permissions::from_mode(0o750),
        )
        .unwrap();
        symlink("usr/sbin", image.join("sbin")).unwrap();
        symlink("/run/x", image.join("resolv")).unwrap();
        let lent = Lent {
            files: vec![("/sbin/tool", b"x", 0o755), ("/resolv", b"y", 0o644)],
            dirs: &["/proc", "/usr"],
        };
        build(open(&layer).as_fd(), open(&image).as_fd(), &lent).unwrap();

        let made = fs_err::metadata(layer.join("usr/sbin")).unwrap();
        let own = fs_err::metadata(image.join("usr/sbin")).unwrap();
        assert_eq!(made.permissions().mode(), own.permissions().mode());
        assert_eq!(made.modified().unwrap(), own.modified().unwrap());
        assert_eq!(
            fs_err::read_to_string(layer.join("usr/sbin/tool")).unwrap(),
            "x"
        );
        assert_eq!(fs_err::read_to_string(layer.join("resolv")).unwrap(), "y");
        assert!(layer.join("proc").is_dir() && !layer.join("sbin").exists());
    }

    #[test]
    fn does_not_leave_the_image() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().unwrap();
        symlink("../../../etc", temp.path().join("up")).unwrap();
        symlink("loop", temp.path().join("loop")).unwrap();
        let image = open(temp.path());
        assert_eq!(
            resolve(image.as_fd(), "/up/x").unwrap(),
            vec![b"etc".to_vec(), b"x".to_vec()]
        );
        assert_eq!(resolve(image.as_fd(), "/loop/x"), Err(Errno::LOOP));
        assert_eq!(resolve(image.as_fd(), "/a/../x"), Err(Errno::INVAL));
    }
}
