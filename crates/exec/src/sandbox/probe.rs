//! Which way of running steps works on this machine, and why the others do not.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Helper, Sandbox};
use crate::error::SandboxError;
use crate::spec::{Limits, RootSpec, ScriptSpec, Way};

/// A way that was tried and cannot be taken.
#[derive(Debug)]
pub struct Tried {
    /// Which.
    pub way: Way,
    /// Why not.
    pub error: SandboxError,
}

/// The way that is taken.
#[derive(Debug)]
pub struct Chosen {
    /// A sandbox that was tried out.
    pub sandbox: Sandbox,
    /// Those that would have been better and do not work here, the best first.
    pub passed: Vec<Tried>,
}

impl Sandbox {
    /// Tries the ways in their order, or the one that is asked for, with real jobs below the directory `scratch`, which
    /// exists and is where the store is. The first that works is taken: whatever is wrong with one that nobody asked for, the
    /// next may do.
    ///
    /// # Errors
    /// What the one that was asked for lacks; else [`SandboxError::NoWay`], or [`SandboxError::Cancelled`].
    pub fn choose(
        helper: &Helper,
        asked: Option<Way>,
        scratch: &Path,
    ) -> Result<Chosen, SandboxError> {
        let ways = asked.as_ref().map_or(Way::ALL, std::slice::from_ref);
        let mut passed = Vec::new();
        for way in ways {
            let tried = match (asked, way) {
                // Starting one takes seconds, and says nothing that its first job does not.
                (Some(_), Way::MicroVm) => Self::new(helper.clone(), *way),
                _ => Self::usable(helper.clone(), *way, scratch),
            };
            match tried {
                Ok(sandbox) => return Ok(Chosen { sandbox, passed }),
                Err(error) if asked.is_some() || matches!(error, SandboxError::Cancelled) => {
                    return Err(error);
                }
                Err(error) => passed.push(Tried { way: *way, error }),
            }
        }
        Err(SandboxError::NoWay { tried: passed })
    }

    /// A sandbox of this way that was tried out.
    ///
    /// # Errors
    /// Why it does not work.
    pub fn usable(helper: Helper, way: Way, scratch: &Path) -> Result<Self, SandboxError> {
        let sandbox = Self::new(helper, way)?;
        sandbox.try_out(scratch)?;
        Ok(sandbox)
    }

    /// Sets up a root without any program in it; that starting one then fails is expected.
    fn try_out(&self, scratch: &Path) -> Result<(), SandboxError> {
        let io = |path: &Path, source| SandboxError::Io {
            path: path.to_owned(),
            source,
        };
        let dir = tempfile::Builder::new()
            .prefix("amiforge-probe-")
            .tempdir_in(scratch)
            .map_err(|source| io(scratch, source))?;
        let lower = dir.path().join("lower");
        // Whatever the caller's umask is: root of the sandbox is somebody else.
        fs_err::create_dir(&lower)
            .and_then(|()| fs_err::set_permissions(&lower, Permissions::from_mode(0o755)))
            .map_err(|source| io(&lower, source))?;
        let root = RootSpec {
            lowers: vec![lower],
            upper: dir.path().join("upper"),
            work: dir.path().join("work"),
            shims: Vec::new(),
            resolv_conf: None,
            network: false,
            limits: Limits::default(),
        };
        let script = ScriptSpec {
            interpreter: Vec::new(),
            text: String::new(),
            env: BTreeMap::new(),
            timeout_seconds: Some(60),
        };
        let tried = self.run_script(&root, &script, &AtomicBool::new(false), &mut |_| ());
        let removed = self.remove_trees(&[root.upper, root.work]);
        tried?;
        removed
    }
}
