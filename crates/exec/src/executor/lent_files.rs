//! Secrets as files: in `/run/secrets`, in memory, for as long as a run takes.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Where steps find them.
const PLACE: &str = "/run/secrets";
/// `statfs(2)`: the file system of `tmpfs(5)`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// End of the reason why secrets cannot be lent, where files of `/run` would stay on a disk.
pub const NOT_IN_MEMORY: &str = "/run is not in memory";

/// The files, which go with the value.
pub(super) struct LentFiles(bool);

impl LentFiles {
    /// Writes the secrets, each into a file of its name that only root can read.
    ///
    /// # Errors
    /// Why that cannot be, in one line: above all, when `/run` is no memory, since then something would be left.
    pub(super) fn put(secrets: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        if secrets.is_empty() {
            return Ok(Self(false));
        }
        let told = |e: std::io::Error| format!("secrets cannot be put into {PLACE}: {e}");
        let run = rustix::fs::statfs("/run").map_err(|e| told(e.into()))?;
        #[allow(
            clippy::useless_conversion,
            reason = "its type differs by architecture"
        )]
        if i64::from(run.f_type) != TMPFS_MAGIC {
            return Err(format!(
                "secrets cannot be put into {PLACE}: {NOT_IN_MEMORY}"
            ));
        }
        DirBuilder::new().mode(0o700).create(PLACE).map_err(told)?;
        // From here on it is ours to remove.
        let files = Self(true);
        for (name, value) in secrets {
            let mut open = OpenOptions::new();
            open.write(true).create_new(true).mode(0o400);
            let file = open.open(Path::new(PLACE).join(name));
            file.and_then(|mut file| file.write_all(value))
                .map_err(told)?;
        }
        Ok(files)
    }
}

impl Drop for LentFiles {
    fn drop(&mut self) {
        if self.0 {
            // A step may have been there first; /run goes with the sandbox.
            let _ = std::fs::remove_dir_all(PLACE);
        }
    }
}
