//! `boot-report.json`, version 1: what happened under each firmware.

use std::collections::BTreeMap;

use amiforge_ami::{ArtifactFormat, BootProof, DeviceName, Firmware, ImageId};
use amiforge_types::Digest;
use serde::{Deserialize, Serialize};

use crate::console::Milestone;
use crate::{Accelerator, QemuVersion};

/// The `schemaVersion` of the report.
pub const BOOT_REPORT_VERSION: u32 = 1;

/// A milestone and when it was reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MilestoneRecord {
    /// Which.
    pub name: Milestone,
    /// Seconds after QEMU was started.
    pub seconds: f64,
    /// True when nothing on the console showed it, but a later one did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inferred: bool,
}

/// A volume as it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeProof {
    /// Device name of the mapping.
    pub device: DeviceName,
    /// File name of the artefact; `None` for a volume that starts empty.
    pub file: Option<String>,
    /// Its format.
    pub format: Option<ArtifactFormat>,
    /// Size the guest saw, in bytes.
    pub attached_bytes: u64,
    /// Content digest before the guest ran.
    pub digest_before: Option<Digest>,
    /// Content digest after it ended.
    pub digest_after: Option<Digest>,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable kebab-case code, for example `timeout` or `kernel-panic`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// The last lines of the console, without escape codes.
    pub console_tail: Vec<String>,
}

/// One boot under one firmware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootRun {
    /// Firmware.
    pub firmware: Firmware,
    /// True when every required milestone was reached, the session passed, the guest powered off
    /// by itself, and no artefact changed.
    pub passed: bool,
    /// Seconds from start to end of QEMU.
    pub seconds: f64,
    /// QEMU's version.
    pub qemu: QemuVersion,
    /// QEMU's machine type.
    pub machine: String,
    /// What executed the guest's instructions.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// What was attached, root first.
    pub volumes: Vec<VolumeProof>,
    /// Milestones in the order they were reached.
    pub milestones: Vec<MilestoneRecord>,
    /// True when the guest itself powered the machine off.
    pub powered_off: bool,
    /// Why it failed; `None` when it passed or only its tests failed.
    pub failure: Option<Failure>,
    /// What the session returned.
    pub tests: serde_json::Value,
    /// File name of the console log.
    pub console_log: String,
}

impl BootRun {
    /// When `milestone` was reached, in seconds.
    #[must_use]
    pub fn reached(&self, milestone: Milestone) -> Option<f64> {
        self.milestones
            .iter()
            .find(|m| m.name == milestone)
            .map(|m| m.seconds)
    }

    /// The furthest milestone.
    #[must_use]
    pub fn last_milestone(&self) -> Option<Milestone> {
        self.milestones.iter().map(|m| m.name).max()
    }
}

/// The report of all boots of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootReport {
    /// [`BOOT_REPORT_VERSION`].
    pub schema_version: u32,
    /// The image.
    pub image_id: ImageId,
    /// True when there is a run and every run passed.
    pub passed: bool,
    /// One run per firmware.
    pub runs: BTreeMap<Firmware, BootRun>,
}

impl BootReport {
    /// A report without runs.
    #[must_use]
    pub fn new(image_id: ImageId) -> Self {
        Self {
            schema_version: BOOT_REPORT_VERSION,
            image_id,
            passed: false,
            runs: BTreeMap::new(),
        }
    }

    /// Adds a run; a run of the same firmware is replaced.
    pub fn add(&mut self, run: BootRun) {
        self.runs.insert(run.firmware, run);
        self.passed = self.runs.values().all(|r| r.passed);
    }

    /// The bytes of `boot-report.json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Plain structs with text keys always serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What the manifest records of this report, whose file is called `report`.
    #[must_use]
    pub fn boot_proof(&self, report: &str) -> BTreeMap<Firmware, BootProof> {
        let proof = |run: &BootRun| BootProof {
            passed: run.passed,
            seconds: run.seconds,
            report: report.to_owned(),
        };
        self.runs
            .iter()
            .map(|(firmware, run)| (*firmware, proof(run)))
            .collect()
    }
}
