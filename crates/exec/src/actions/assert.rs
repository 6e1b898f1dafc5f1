//! `Assert`: fails unless a condition holds.
//! Reference: AWSTOE action modules, Assert. Programs are looked up in `PATH`, without the shell's
//! own commands; a file that is not there has no digest.

use amiforge_recipe::actions::Assert;
use amiforge_recipe::condition::{Algorithm, Condition, Facts};
use sha2::Digest as _;

use super::files::failed;
use super::{Action, Outputs, StepCx, StepError};

impl Action for Assert {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        cx.about(&self.condition.to_string());
        if holds(&self.condition, cx)? {
            return Ok(Vec::new());
        }
        Err(StepError::False {
            // Of a step without logging nothing may be shown.
            condition: if cx.loud {
                format!(": {}", self.condition)
            } else {
                String::new()
            },
        })
    }
}

/// Whether a condition is true of this machine.
pub(crate) fn holds(condition: &Condition, cx: &StepCx<'_>) -> Result<bool, StepError> {
    condition.holds(&mut Machine { cx })
}

struct Machine<'a, 'cx> {
    cx: &'a StepCx<'cx>,
}

impl Facts for Machine<'_, '_> {
    type Error = StepError;

    fn binary_exists(&mut self, name: &str) -> Result<bool, StepError> {
        let program = |path: &str| -> Result<bool, StepError> {
            let found = self.cx.root.look(path)?;
            Ok(found.is_some_and(|f| f.is_file() && f.mode & 0o111 != 0))
        };
        if name.contains('/') {
            return program(&self.cx.path(name));
        }
        let folders = self.cx.env.get("PATH").map_or("", String::as_str);
        for folder in folders.split(':') {
            // A folder of it that is a file, or that cannot be entered, has no programs.
            if program(&format!("{folder}/{name}")).unwrap_or(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn file_exists(&mut self, path: &str) -> Result<bool, StepError> {
        Ok(self
            .cx
            .root
            .look(self.cx.path(path))?
            .is_some_and(|found| found.is_file()))
    }

    fn folder_exists(&mut self, path: &str) -> Result<bool, StepError> {
        Ok(self
            .cx
            .root
            .look(self.cx.path(path))?
            .is_some_and(|found| found.is_dir()))
    }

    fn digest(&mut self, algorithm: Algorithm, path: &str) -> Result<Option<Vec<u8>>, StepError> {
        let path = self.cx.path(path);
        if self
            .cx
            .root
            .look(&path)?
            .is_none_or(|found| !found.is_file())
        {
            return Ok(None);
        }
        // Two generations of one family of crates: the traits differ, the methods do not.
        let digest = match algorithm {
            Algorithm::Md5 => {
                let mut hash = <md5::Md5 as md5::Digest>::new();
                self.each(&path, |bytes| md5::Digest::update(&mut hash, bytes))?;
                md5::Digest::finalize(hash).to_vec()
            }
            Algorithm::Sha1 => {
                let mut hash = <sha1::Sha1 as sha1::Digest>::new();
                self.each(&path, |bytes| sha1::Digest::update(&mut hash, bytes))?;
                sha1::Digest::finalize(hash).to_vec()
            }
            Algorithm::Sha256 => {
                let mut hash = sha2::Sha256::new();
                self.each(&path, |bytes| hash.update(bytes))?;
                hash.finalize().to_vec()
            }
            Algorithm::Sha512 => {
                let mut hash = sha2::Sha512::new();
                self.each(&path, |bytes| hash.update(bytes))?;
                hash.finalize().to_vec()
            }
        };
        Ok(Some(digest))
    }
}

impl Machine<'_, '_> {
    /// Gives the bytes of a file piece by piece.
    fn each(&self, path: &str, mut take: impl FnMut(&[u8])) -> Result<(), StepError> {
        let mut file = self
            .cx
            .root
            .open(path.as_ref())
            .map_err(failed("read", path))?;
        let mut piece = vec![0; 1 << 16];
        loop {
            self.cx.check_deadline()?;
            match file.read(&mut piece).map_err(failed("read", path))? {
                0 => return Ok(()),
                count => take(&piece[..count]),
            }
        }
    }
}
