//! Reaching the host's directories from inside: they are named relative to the deepest directory
//! that holds them all, which becomes the working directory while the caller's rights still count.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::ChildError;
use crate::wire::Job;

/// The common ancestor of a job's paths, entered.
pub(super) struct Dirs {
    base: PathBuf,
}

/// Directories opened in the new mount namespace (`O_PATH`), for the mounts.
pub(super) struct Opened {
    /// Topmost first.
    pub(super) lowers: Vec<OwnedFd>,
    pub(super) upper: Option<OwnedFd>,
    pub(super) work: Option<OwnedFd>,
}

impl Dirs {
    pub(super) fn of(job: &Job) -> Result<Self, ChildError> {
        let paths: Vec<&Path> = match job {
            Job::Prepare { root, .. }
            | Job::Script { root, .. }
            | Job::Component { root, .. }
            | Job::Shell { root, .. } => root
                .lowers
                .iter()
                .chain([&root.upper, &root.work])
                .map(PathBuf::as_path)
                .collect(),
            Job::Materialise {
                layer, dir, place, ..
            } => vec![layer, dir, place],
            Job::Harvest { upper, layer, .. } => vec![upper, layer],
            Job::RemoveTrees { dirs } => dirs.iter().map(PathBuf::as_path).collect(),
        };
        if let Some(path) = paths.iter().find(|p| !p.is_absolute()) {
            return Err(ChildError::plain(format!(
                "{} is not an absolute path",
                path.display()
            )));
        }
        let base = common_parent(&paths);
        rustix::process::chdir(&base)
            .map_err(|e| ChildError::job(format!("cannot enter {}", base.display()), &e))?;
        Ok(Self { base })
    }

    /// Opens what the mounts will need. The working directory moved into the new mount namespace
    /// with us; an absolute path would be looked up with fewer rights.
    pub(super) fn open(&self, job: &Job) -> Result<Opened, ChildError> {
        let Some(root) = job.foreign_root() else {
            return Ok(Opened {
                lowers: Vec::new(),
                upper: None,
                work: None,
            });
        };
        let open = |path: &Path| {
            let relative = path.strip_prefix(&self.base).unwrap_or(path);
            let relative = if relative.as_os_str().is_empty() {
                Path::new(".")
            } else {
                relative
            };
            rustix::fs::open(
                relative,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| ChildError::job(format!("cannot open {}", path.display()), &e))
        };
        Ok(Opened {
            lowers: root
                .lowers
                .iter()
                .map(|p| open(p))
                .collect::<Result<_, _>>()?,
            upper: Some(open(&root.upper)?),
            work: Some(open(&root.work)?),
        })
    }
}

/// The deepest directory above all `paths`.
fn common_parent(paths: &[&Path]) -> PathBuf {
    let mut parents = paths.iter().filter_map(|p| p.parent());
    let Some(mut common) = parents.next() else {
        return PathBuf::from("/");
    };
    for parent in parents {
        while !parent.starts_with(common) {
            common = common.parent().unwrap_or(Path::new("/"));
        }
    }
    common.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_parents() {
        let common =
            |paths: &[&str]| common_parent(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(common(&["/a/b/c", "/a/b/d/e"]), Path::new("/a/b"));
        assert_eq!(common(&["/a/b", "/ab/c"]), Path::new("/"));
        assert_eq!(common(&["/a/b/c"]), Path::new("/a/b"));
    }
}
