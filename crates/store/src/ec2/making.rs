//! Who is at work: `ec2/making/<id>`, an empty file for each image or snapshot that is being made.
//!
//! Its maker has the file locked from before the pending record is written until after the record says the end. A pending record without a
//! maker is of a process that was killed, or of a host that went down.

use std::path::{Path, PathBuf};

use super::{Ec2, Ec2Error};
use crate::lock::Sign;

/// Held by who makes what a pending record names. Several can have one of the same id: the command that asked, and the process of the
/// instance that does it.
#[derive(Debug)]
#[must_use = "whatever is pending has failed when nobody makes it"]
pub struct Making {
    path: PathBuf,
    sign: Option<Sign>,
}

impl Drop for Making {
    fn drop(&mut self) {
        // The record says the end by now, or another maker goes on. What stays is removed by the collection of garbage.
        drop(self.sign.take());
        let _ = remove_unless_set(&self.path);
    }
}

impl Ec2 {
    /// Says that this process makes `id`, an image or a snapshot. To be called before its pending record is written: in the transaction.
    pub fn making(&self, id: &str) -> Result<Making, Ec2Error> {
        let path = self.making_path(id);
        match Sign::join(&path)? {
            Some(sign) => Ok(Making {
                path,
                sign: Some(sign),
            }),
            None => Err(Ec2Error::damaged(&path, "another program has it locked")),
        }
    }

    /// Whether anybody makes `id`.
    pub fn is_being_made(&self, id: &str) -> Result<bool, Ec2Error> {
        Ok(Sign::is_set(&self.making_path(id))?)
    }

    fn making_path(&self, id: &str) -> PathBuf {
        self.dir("making").join(id)
    }

    /// Removes the files of makers that were killed.
    pub(super) fn sweep_makers(&self) -> Result<(), Ec2Error> {
        let dir = self.dir("making");
        for entry in std::fs::read_dir(&dir).map_err(Ec2Error::io("list", &dir))? {
            let path = entry.map_err(Ec2Error::io("list", &dir))?.path();
            remove_unless_set(&path)?;
        }
        Ok(())
    }
}

/// Alone while it is removed, so that nobody sets the sign on a file that goes.
fn remove_unless_set(path: &Path) -> Result<(), Ec2Error> {
    if let Some(_alone) = Sign::claim(path)? {
        std::fs::remove_file(path).map_err(Ec2Error::io("remove", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Home, Store};

    #[test]
    fn makers_are_seen_as_long_as_one_of_them_lives() {
        let dir = tempfile::tempdir().unwrap();
        let ec2 = Store::open(&Home::below(dir.path()))
            .unwrap()
            .ec2()
            .unwrap();
        assert!(!ec2.is_being_made("ami-1").unwrap());
        let first = ec2.making("ami-1").unwrap();
        let second = ec2.making("ami-1").unwrap();
        assert!(ec2.is_being_made("ami-1").unwrap() && !ec2.is_being_made("ami-2").unwrap());
        ec2.sweep_makers().unwrap();
        assert!(ec2.is_being_made("ami-1").unwrap());
        drop(second);
        assert!(ec2.is_being_made("ami-1").unwrap());
        drop(first);
        assert!(!ec2.is_being_made("ami-1").unwrap() && !ec2.making_path("ami-1").exists());
        // As a kill leaves it: the file stays, the lock goes.
        let left = ec2.making_path("ami-3");
        std::fs::write(&left, "").unwrap();
        assert!(!ec2.is_being_made("ami-3").unwrap());
        ec2.sweep_makers().unwrap();
        assert!(!left.exists());
    }
}
