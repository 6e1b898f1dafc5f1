//! Which way of running steps works on this machine, and why the others do not: for `doctor`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Helper, Sandbox};
use crate::error::SandboxError;
use crate::spec::{Limits, RootSpec, ScriptSpec};

/// The result of [`Sandbox::probe`].
#[derive(Debug)]
pub struct Probe {
    /// One entry for each thing looked at, in order.
    pub entries: Vec<ProbeEntry>,
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct ProbeEntry {
    /// What, for example `user namespace with mapped ids`.
    pub what: &'static str,
    /// What was found when it works.
    pub result: Result<String, SandboxError>,
}

impl Probe {
    /// True when steps can run here.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.entries.iter().all(|entry| entry.result.is_ok())
    }
}

impl Sandbox {
    /// Tries a real sandbox with its uppers below the directory `scratch`, which exists and is
    /// where the store would be.
    #[must_use]
    pub fn probe(helper: Helper, scratch: &Path) -> Probe {
        let sandbox = Self::new(helper);
        let ids = match &sandbox {
            Ok(sandbox) => Ok(format!(
                "users from {}, groups from {}, {}",
                sandbox.ids.uid_base,
                sandbox.ids.gid_base,
                if sandbox.ids.helpers {
                    "by newuidmap and newgidmap"
                } else {
                    "written directly"
                },
            )),
            Err(_) => Err(()),
        };
        let mut entries = Vec::new();
        match (sandbox, ids) {
            (Ok(sandbox), Ok(ids)) => {
                entries.push(ProbeEntry {
                    what: "subordinate ids",
                    result: Ok(ids),
                });
                entries.push(ProbeEntry {
                    what: "user namespace with overlayfs",
                    result: sandbox.try_out(scratch).map(|()| "works".to_owned()),
                });
            }
            (Err(e), _) => entries.push(ProbeEntry {
                what: "subordinate ids",
                result: Err(e),
            }),
            (Ok(_), Err(())) => {}
        }
        Probe { entries }
    }

    /// Sets up a root without any program in it; that starting one then fails is expected.
    fn try_out(&self, scratch: &Path) -> Result<(), SandboxError> {
        let dir = tempfile::Builder::new()
            .prefix("amiforge-probe-")
            .tempdir_in(scratch)
            .map_err(|source| SandboxError::Io {
                path: scratch.to_owned(),
                source,
            })?;
        let lower = dir.path().join("lower");
        fs_err::create_dir(&lower).map_err(|source| SandboxError::Io {
            path: lower.clone(),
            source,
        })?;
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
