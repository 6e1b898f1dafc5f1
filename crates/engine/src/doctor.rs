//! What this host can do, and what to install.

use std::path::Path;

use amiforge_exec::{Sandbox, Way};
use amiforge_vm::QemuTools;
use serde::Serialize;

use crate::error::chain;
use crate::layers::describe;
use crate::settings::Engine;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is for: `steps`, `boot`, `uefi` …
    pub topic: String,
    /// Whether it is there.
    pub ok: bool,
    /// Whether a build without boot proof needs it.
    pub needed_to_build: bool,
    /// What was found, or what is missing.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// In the order of a build.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// True when an image can be built (if not booted) here.
    #[must_use]
    pub fn can_build(&self) -> bool {
        self.findings.iter().all(|f| f.ok || !f.needed_to_build)
    }

    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let mark = if finding.ok { "ok     " } else { "MISSING" };
            text.push_str(&format!(
                "{mark} {:<13} {}\n",
                finding.topic, finding.detail
            ));
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("        {:<13} -> {hint}\n", ""));
            }
        }
        text
    }
}

impl Engine {
    /// Looks at everything a build and a boot proof need.
    #[must_use]
    pub fn doctor(&self) -> DoctorReport {
        let mut findings = Vec::new();
        let mut add =
            |topic: &str, needed: bool, result: Result<String, (String, Option<String>)>| {
                let (ok, detail, hint) = match result {
                    Ok(detail) => (true, detail, None),
                    Err((detail, hint)) => (false, detail, hint),
                };
                findings.push(Finding {
                    topic: topic.to_owned(),
                    ok,
                    needed_to_build: needed,
                    detail,
                    hint,
                });
            };
        let store = self.open_store();
        match &store {
            Ok(store) => {
                add("store", true, Ok(store.path().display().to_string()));
                match store.temp_dir("probe") {
                    Ok(scratch) => self.ways(&scratch, &mut add),
                    Err(error) => add("store", true, Err((chain(&error), None))),
                }
            }
            Err(error) => add(
                "store",
                true,
                Err((chain(error), error.hint().map(str::to_owned))),
            ),
        }
        add("packages", true, crate::parent::describe_host(self));
        match QemuTools::find() {
            Ok(tools) => {
                add(
                    "qemu",
                    false,
                    Ok(format!("{} {}", tools.qemu.display(), tools.version)),
                );
                add(
                    "uefi",
                    false,
                    tools
                        .ovmf()
                        .map(|ovmf| ovmf.code.display().to_string())
                        .map_err(|e| (chain(&e), Some("install OVMF (Debian: ovmf)".to_owned()))),
                );
                if store.is_ok() {
                    add(
                        "acceleration",
                        false,
                        self.acceleration(&tools)
                            .map(|a| format!("{}: {}", a.accelerator.as_str(), a.reason))
                            .map_err(|e| (chain(&e), None)),
                    );
                }
            }
            Err(error) => {
                add(
                    "qemu",
                    false,
                    Err((
                        chain(&error),
                        Some("install QEMU (Debian: qemu-system-x86 ovmf)".to_owned()),
                    )),
                );
            }
        }
        DoctorReport { findings }
    }

    /// The ways of running steps: that there is one is needed, and the first is the best.
    fn ways(&self, scratch: &Path, add: Add<'_>) {
        // Looking is no reason to fetch a kernel.
        self.may_use_network(false);
        let tried: Vec<_> = Way::ALL
            .iter()
            .map(|way| (*way, self.way(*way, scratch)))
            .collect();
        // What is left is a leftover of the store and goes when it is opened next.
        let _ = std::fs::remove_dir(scratch);
        let taken = tried.iter().find(|(_, result)| result.is_ok());
        add(
            "steps",
            true,
            match taken {
                Some((way, _)) => Ok(format!("{way}: {}", describe(*way))),
                None => Err(("they cannot run here".to_owned(), None)),
            },
        );
        for (way, found) in tried {
            add(way.as_str(), false, found);
        }
    }

    /// Whether steps can run in this way, and by which ids.
    fn way(&self, way: Way, scratch: &Path) -> Found {
        if way == Way::MicroVm && QemuTools::find().is_ok() && !self.has_builder_kernel() {
            return Ok(format!(
                "QEMU is there; a kernel comes from Debian {} when a build first needs it",
                amiforge_source::KERNEL_SUITE
            ));
        }
        let tried = Sandbox::usable(self.helper(), way, scratch);
        tried
            .map(|sandbox| shown_ids(&sandbox))
            .map_err(|error| (chain(&error), error.hint()))
    }
}

/// What was found, or what is missing and what can be done about it.
type Found = Result<String, (String, Option<String>)>;

type Add<'a> = &'a mut dyn FnMut(&str, bool, Found);

/// The ids of a sandbox in words.
fn shown_ids(sandbox: &Sandbox) -> String {
    if sandbox.way() == Way::MicroVm {
        return "QEMU starts a machine with a kernel of its own".to_owned();
    }
    let ids = sandbox.ids();
    let how = match (sandbox.way(), ids.helpers) {
        (Way::MappedIds, true) => "by newuidmap and newgidmap",
        (Way::MappedIds, false) => "written directly",
        (Way::SingleId | Way::MicroVm, _) => "the only ones; owners are recorded",
        (Way::Chroot, _) => "each is itself",
    };
    format!(
        "users from {}, groups from {}, {how}",
        ids.uid_base, ids.gid_base
    )
}
