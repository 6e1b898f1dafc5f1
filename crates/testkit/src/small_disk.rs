//! A file system that is full soon.

use std::path::{Path, PathBuf};

use crate::process::{finish, run, tool};

/// A memory-backed file system of a given size, mounted on a temporary folder and unmounted when
/// dropped. Mounting needs root, or a sudo that does not ask.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts a file system that holds at most `bytes`. Panics where this process may not mount.
    #[must_use]
    #[track_caller]
    pub fn new(bytes: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("amiforge-small-")
            .tempdir()
            .expect("a temporary folder");
        run(privileged("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes},mode=1777"),
                "tmpfs",
            ])
            .arg(dir.path()));
        Self { dir }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Bytes that are free on it.
    #[must_use]
    #[track_caller]
    pub fn free(&self) -> u64 {
        let room = rustix::fs::statvfs(self.dir.path()).expect("statvfs");
        room.f_bavail * room.f_frsize
    }

    /// Makes it larger, or smaller as far as what is on it allows.
    #[track_caller]
    pub fn resize(&self, bytes: u64) {
        run(privileged("mount")
            .args(["-o", &format!("remount,size={bytes}")])
            .arg(self.dir.path()));
    }

    /// Fills it up: what is left after this is nothing.
    #[track_caller]
    pub fn fill(&self) -> PathBuf {
        let ballast = self.dir.path().join("ballast");
        let end = finish(
            tool("dd")
                .args(["if=/dev/zero", "bs=64k"])
                .arg(format!("of={}", ballast.display())),
        );
        assert!(
            end.code() != 0 && end.stderr.contains("No space left"),
            "the disk is not full\n{end}"
        );
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: whatever a failed test left open must not keep the folder from going away.
        let _ = privileged("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn privileged(program: &str) -> std::process::Command {
    if rustix::process::geteuid().is_root() {
        tool(program)
    } else {
        let mut sudo = tool("sudo");
        sudo.arg("-n").arg(program);
        sudo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_and_goes_away() {
        let disk = SmallDisk::new(1 << 20);
        let path = disk.path().to_path_buf();
        disk.fill();
        let error = fs_err::write(path.join("more"), [1; 4096]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.resize(2 << 20);
        fs_err::write(path.join("more"), [1; 4096]).unwrap();
        drop(disk);
        assert!(!path.exists());
    }
}
