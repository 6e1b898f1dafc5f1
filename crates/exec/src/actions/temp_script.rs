//! Scripts on disk while they run, where AWSTOE puts them: `AWSTOE<digits>/script-<digits>.sh`.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;

/// A script file in a folder of its own in `/tmp`, removed with the value.
///
/// The digits count up from 1: a script may print its own name, and that must not differ between
/// two builds. Making the folder fails when the name is taken, so nobody can prepare one.
pub(crate) struct TempScript {
    dir: String,
    path: String,
}

const TRIES: u32 = 100_000;

impl TempScript {
    pub(crate) fn write(text: &str) -> io::Result<Self> {
        for number in 1..TRIES {
            let dir = format!("/tmp/AWSTOE{number:09}");
            match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let path = format!("{dir}/script-{number:09}.sh");
                    let script = Self { dir, path };
                    fs_err::write(&script.path, text)?;
                    return Ok(script);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(io::Error::new(
                        e.kind(),
                        format!("cannot create {dir}: {e}"),
                    ));
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "/tmp is full of script folders",
        ))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for TempScript {
    fn drop(&mut self) {
        // What the script itself did to its folder is its own affair.
        let _gone = std::fs::remove_file(&self.path);
        let _gone = std::fs::remove_dir(&self.dir);
    }
}
