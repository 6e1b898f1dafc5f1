//! An image in a folder: a disk and the manifest that goes with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use amiforge_ami::{
    Artifact, ArtifactFormat, BlockDeviceMapping, BootMode, CreationDate, EbsVolume, Firmware,
    Manifest, ManifestSpec, ParentImage, VolumeInfo,
};
use amiforge_types::{Arch, Digest, Timestamp};
use amiforge_vm::{
    Acceleration, BootHooks, BootOptions, BootRun, BootSpec, BoxError, GuestLink, Milestone,
    QemuTools, SessionError, SessionOutcome, VmError, Volume, VolumeSource, boot,
};

pub(crate) struct Image {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) manifest: Manifest,
}

pub(crate) fn file_digest(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).unwrap())
}

pub(crate) fn volume_digest(volume: &Volume) -> Result<Digest, BoxError> {
    match &volume.source {
        VolumeSource::File { path, .. } => Ok(Digest::of(&std::fs::read(path)?)),
        VolumeSource::Empty => Err("an empty volume has no file".into()),
    }
}

impl Image {
    pub(crate) fn new(disk: &[u8], boot_mode: BootMode) -> Self {
        Self::with_mappings(disk, boot_mode, Vec::new())
    }

    pub(crate) fn with_mappings(
        disk: &[u8],
        boot_mode: BootMode,
        more: Vec<BlockDeviceMapping>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk.raw"), disk).unwrap();
        let device: amiforge_ami::DeviceName = "/dev/xvda".parse().unwrap();
        let size = disk.len() as u64;
        let mut mappings = vec![BlockDeviceMapping::ebs(device.clone(), EbsVolume::gp3(1))];
        mappings.extend(more);
        let manifest = Manifest::new(ManifestSpec {
            name: "tiny".into(),
            version: "1.0.0".into(),
            architecture: Arch::X86_64,
            boot_mode,
            root_device_name: device.clone(),
            ena_support: true,
            imds_v2: false,
            tpm_v2: false,
            creation_date: CreationDate::new(Timestamp::from_secs(1_700_000_000)),
            block_device_mappings: mappings,
            volumes: vec![VolumeInfo {
                device: device.clone(),
                size,
                partitions: Vec::new(),
                content_digest: Digest::of(disk),
            }],
            artifacts: vec![Artifact {
                device,
                file: "disk.raw".into(),
                format: ArtifactFormat::Raw,
                bytes: size,
                virtual_bytes: size,
                sha256: None,
            }],
            parent_image: ParentImage {
                asked: "scratch".into(),
                resolved: "scratch".into(),
            },
            components: Vec::new(),
            layers: Vec::new(),
            recipe_digest: Digest::of(b"recipe"),
            plan_id: Digest::of(b"plan"),
            tool_version: "0.0.0".into(),
            tags: std::collections::BTreeMap::new(),
        })
        .unwrap();
        Self { dir, manifest }
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.raw")
    }

    pub(crate) fn temp(&self) -> PathBuf {
        let temp = self.dir.path().join("temp");
        std::fs::create_dir_all(&temp).unwrap();
        temp
    }

    pub(crate) fn console(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("console.log")).unwrap()
    }

    pub(crate) fn options(&self, timeout: Duration) -> BootOptions {
        BootOptions {
            memory_mib: 128,
            cpus: 1,
            acceleration: Acceleration::tcg(&tools(), "tests compare with nothing but themselves"),
            timeout,
            power_off_timeout: Duration::from_secs(10),
            required: Vec::new(),
            seed: None,
            console_log: self.dir.path().join("console.log"),
            temp_parent: self.temp(),
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }

    pub(crate) fn spec(&self, firmware: Firmware, options: BootOptions) -> BootSpec {
        BootSpec::from_manifest(&self.manifest, self.dir.path(), firmware, options).unwrap()
    }

    /// Nothing is left of a boot: no process with our folder in its command line or as its working
    /// folder, no file in the temporary folder.
    pub(crate) fn assert_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.temp()).unwrap().collect();
        assert!(left.is_empty(), "left in the temporary folder: {left:?}");
        let ours = self.dir.path().canonicalize().unwrap();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(_) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            assert!(
                !cwd.starts_with(&ours),
                "process {:?} still runs in {cwd:?}",
                entry.file_name()
            );
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline);
            assert!(
                !cmdline.contains(&*ours.to_string_lossy()),
                "still running: {cmdline}"
            );
        }
    }
}

pub(crate) fn tools() -> QemuTools {
    QemuTools::find().expect("QEMU; install it with `cargo xtask setup test`")
}

pub(crate) fn boot_with(
    spec: &BootSpec,
    session: &mut dyn FnMut(&mut GuestLink<'_>) -> Result<SessionOutcome, SessionError>,
) -> Result<BootRun, VmError> {
    let hooks = BootHooks {
        digest: &volume_digest,
        milestone: &|_, _| {},
    };
    boot(&tools(), spec, &hooks, session)
}

pub(crate) fn passed() -> SessionOutcome {
    SessionOutcome {
        passed: true,
        tests: serde_json::json!({"phases": []}),
    }
}

/// Waits for a milestone and passes.
pub(crate) fn until(
    milestone: Milestone,
) -> impl FnMut(&mut GuestLink<'_>) -> Result<SessionOutcome, SessionError> {
    move |link| {
        link.wait_for(milestone, link.remaining())?;
        Ok(passed())
    }
}
