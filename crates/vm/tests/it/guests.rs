use std::time::{Duration, Instant};

use amiforge_ami::{ArtifactFormat, BlockDeviceMapping, BootMode, EbsVolume, Firmware};
use amiforge_testkit::{run, tool};
use amiforge_types::Digest;
use amiforge_vm::{
    BootHooks, BootReport, BoxError, GuestFailure, LinkError, Milestone, SessionError, TinyEnding,
    TinyGuest, VmError, Volume,
};

use crate::fixture::{Image, boot_with, file_digest, passed, tools, until};

/// What a Debian guest says on its way, in short.
const WAY: &str = "GRUB loading.\r\n[    0.000000] Linux version 6.1.0-1-cloud-amd64\r\n\
    [    1.0] systemd[1]: systemd 252 running\r\n\x1b[0;32m  OK  \x1b[0m] Reached target \
    \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r\nhost login: ";

fn guest(message: &str, writes: bool, ending: TinyEnding) -> Vec<u8> {
    TinyGuest {
        message: message.into(),
        writes,
        ending,
    }
    .disk()
}

#[test]
fn a_guest_that_gets_through_passes_and_its_disk_is_untouched() {
    let image = Image::new(
        &guest(WAY, true, TinyEnding::PowerOff),
        BootMode::LegacyBios,
    );
    let before = file_digest(&image.disk());
    let mut options = image.options(Duration::from_secs(60));
    options.required = vec![Milestone::Target];
    let run = boot_with(
        &image.spec(Firmware::Bios, options),
        &mut until(Milestone::Login),
    )
    .unwrap();

    assert!(run.passed && run.powered_off, "{run:?}");
    use Milestone::{Bootloader, Init, Kernel, Login, PowerOff, Target};
    let seen: Vec<_> = run
        .milestones
        .iter()
        .map(|m| (m.name, m.inferred))
        .collect();
    let expected = [
        Milestone::Firmware,
        Bootloader,
        Kernel,
        Init,
        Target,
        Login,
        PowerOff,
    ]
    .map(|m| (m, false));
    assert_eq!(seen, expected);
    assert!(run.milestones.is_sorted_by(|a, b| a.seconds <= b.seconds));
    assert!(
        image.console().contains("SeaBIOS"),
        "the firmware speaks on the serial line"
    );
    assert!(image.console().contains("host login: "));
    assert_eq!(run.volumes[0].digest_before, Some(before));
    assert_eq!(run.volumes[0].digest_after, Some(before));
    assert_eq!(
        run.volumes[0].attached_bytes,
        1 << 30,
        "the mapping's volumeSize, not the disk's size"
    );
    assert_eq!(
        file_digest(&image.disk()),
        before,
        "the guest wrote to the overlay only"
    );
    image.assert_clean();

    let mut report = BootReport::new(image.manifest.image_id.clone());
    report.add(run);
    let back: BootReport = serde_json::from_slice(&report.to_json()).unwrap();
    assert_eq!(back, report);
    assert!(report.boot_proof("boot-report.json")[&Firmware::Bios].passed);
}

/// The guest of the test above really writes: given the disk itself, it changes it.
#[test]
fn the_writing_guest_writes() {
    let image = Image::new(&guest("", true, TinyEnding::PowerOff), BootMode::LegacyBios);
    let before = file_digest(&image.disk());
    let status = std::process::Command::new(tools().qemu)
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "64M",
        ])
        .args([
            "-blockdev",
            &format!(
                "driver=file,node-name=d,filename={}",
                image.disk().display()
            ),
        ])
        .args(["-device", "nvme,drive=d,serial=x,bootindex=0"])
        .status()
        .unwrap();
    assert!(status.success());
    assert_ne!(file_digest(&image.disk()), before);
}

#[test]
fn a_hanging_guest_ends_in_time_and_names_the_last_milestone() {
    let message = "GRUB loading.\r\n[    0.000000] Linux version 6.1.0\r\n[ 1.0] sda: looking\r\n";
    let image = Image::new(
        &guest(message, false, TinyEnding::Hang),
        BootMode::LegacyBios,
    );
    let before = file_digest(&image.disk());
    let options = image.options(Duration::from_secs(4));
    let started = Instant::now();
    let error = boot_with(
        &image.spec(Firmware::Bios, options),
        &mut until(Milestone::Target),
    )
    .unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "took {:?}",
        started.elapsed()
    );
    assert!(
        matches!(
            error,
            VmError::Timeout {
                last: Some(Milestone::Kernel),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("last milestone: kernel"),
        "{error}"
    );
    assert_eq!(error.console_tail().last().unwrap(), "[ 1.0] sda: looking");
    let run = error.run().unwrap();
    assert!(!run.passed && !run.powered_off);
    assert_eq!(run.failure.as_ref().unwrap().code, "timeout");
    assert_eq!(run.volumes[0].digest_after, Some(before));
    image.assert_clean();
}

#[test]
fn a_session_that_waits_for_a_message_ends_with_the_boot() {
    let image = Image::new(&guest(WAY, false, TinyEnding::Hang), BootMode::LegacyBios);
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(3)));
    let mut seen = None;
    let error = boot_with(&spec, &mut |link| {
        link.wait_for(Milestone::Login, link.remaining())?;
        link.send(&serde_json::json!({"hello": 1}), Duration::from_secs(1))?;
        let short = link.recv(Duration::from_millis(50)).unwrap_err();
        assert_eq!(short, LinkError::Timeout("answer"));
        let error = link.recv(Duration::from_secs(3600)).unwrap_err();
        seen = Some(error.clone());
        Err(error.into())
    })
    .unwrap_err();
    assert_eq!(seen, Some(LinkError::BootTimeout));
    assert!(
        matches!(
            error,
            VmError::Timeout {
                last: Some(Milestone::Login),
                ..
            }
        ),
        "{error:?}"
    );
    image.assert_clean();
}

#[test]
fn a_panic_is_named_long_before_the_timeout() {
    let message = "Linux version 6.1.0\r\n[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n";
    let image = Image::new(
        &guest(message, false, TinyEnding::Hang),
        BootMode::LegacyBios,
    );
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(300)));
    let started = Instant::now();
    let error = boot_with(&spec, &mut until(Milestone::Target)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(30));
    let VmError::Guest {
        failure: GuestFailure::KernelPanic(line),
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(line.contains("Unable to mount root fs"));
    image.assert_clean();
}

#[test]
fn a_disk_without_boot_code_is_named() {
    let image = Image::new(&vec![0; 1 << 20], BootMode::UefiPreferred);
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(120)));
    let error = boot_with(&spec, &mut until(Milestone::Target)).unwrap_err();
    assert!(
        matches!(
            error,
            VmError::Guest {
                failure: GuestFailure::NoBootDevice(_),
                ..
            }
        ),
        "{error:?}"
    );
    let spec = image.spec(Firmware::Uefi, image.options(Duration::from_secs(120)));
    let error = boot_with(&spec, &mut until(Milestone::Target)).unwrap_err();
    assert!(
        matches!(
            error,
            VmError::Guest {
                failure: GuestFailure::NoBootDevice(_),
                ..
            }
        ),
        "{error:?}"
    );
    image.assert_clean();
}

#[test]
fn a_guest_that_goes_too_early_or_restarts_is_named() {
    for (ending, word) in [
        (TinyEnding::PowerOff, "powered off"),
        (TinyEnding::Reset, "restarted"),
    ] {
        let image = Image::new(
            &guest("Linux version 6\r\n", false, ending),
            BootMode::LegacyBios,
        );
        let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(60)));
        let error = boot_with(&spec, &mut until(Milestone::Target)).unwrap_err();
        let VmError::Exited { how, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(how, word);
        image.assert_clean();
    }
}

#[test]
fn a_guest_that_ignores_the_power_button_is_killed() {
    let image = Image::new(&guest(WAY, false, TinyEnding::Hang), BootMode::LegacyBios);
    let mut options = image.options(Duration::from_secs(60));
    options.power_off_timeout = Duration::from_secs(1);
    let error = boot_with(
        &image.spec(Firmware::Bios, options),
        &mut until(Milestone::Login),
    )
    .unwrap_err();
    assert!(matches!(error, VmError::NoPowerOff { .. }), "{error:?}");
    image.assert_clean();
}

#[test]
fn a_session_that_fails_or_panics_leaves_nothing() {
    let image = Image::new(&guest(WAY, false, TinyEnding::Hang), BootMode::LegacyBios);
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(60)));
    let error = boot_with(&spec, &mut |_| {
        Err(SessionError::from("the agent spoke nonsense"))
    })
    .unwrap_err();
    assert!(matches!(error, VmError::Session { .. }), "{error:?}");
    image.assert_clean();
    let result =
        std::panic::catch_unwind(|| boot_with(&spec, &mut |_| panic!("a bug in the session")));
    assert!(result.is_err());
    image.assert_clean();
}

#[test]
fn cancelling_ends_the_boot() {
    let image = Image::new(&guest("", false, TinyEnding::Hang), BootMode::LegacyBios);
    let options = image.options(Duration::from_secs(60));
    let cancel = options.cancel.clone();
    let spec = image.spec(Firmware::Bios, options);
    let error = boot_with(&spec, &mut |link| {
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        Err(link.recv(Duration::from_secs(30)).unwrap_err().into())
    })
    .unwrap_err();
    assert!(matches!(error, VmError::Cancelled), "{error:?}");
    image.assert_clean();
}

#[test]
fn a_disk_that_is_not_the_manifests_is_not_booted() {
    let image = Image::new(
        &guest(WAY, false, TinyEnding::PowerOff),
        BootMode::LegacyBios,
    );
    let mut bytes = std::fs::read(image.disk()).unwrap();
    bytes[4096] = 1;
    std::fs::write(image.disk(), bytes).unwrap();
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(60)));
    let error = boot_with(&spec, &mut |_| Ok(passed())).unwrap_err();
    assert!(matches!(error, VmError::NotTheArtefact { .. }), "{error:?}");
}

#[test]
fn the_manifest_says_what_is_attached() {
    let data = BlockDeviceMapping::ebs("/dev/sdf".parse().unwrap(), EbsVolume::gp3(3));
    let image = Image::with_mappings(
        &guest(WAY, false, TinyEnding::PowerOff),
        BootMode::LegacyBios,
        vec![data],
    );
    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(60)));
    assert_eq!(spec.volumes.len(), 2);
    assert_eq!(spec.volumes[1].attached_bytes, 3 << 30);
    let run = boot_with(&spec, &mut until(Milestone::Login)).unwrap();
    assert!(run.passed);
    assert_eq!(run.volumes[1].file, None);

    let options = image.options(Duration::from_secs(60));
    let refused = amiforge_vm::BootSpec::from_manifest(
        &image.manifest,
        image.dir.path(),
        Firmware::Uefi,
        options,
    );
    assert!(refused.unwrap_err().to_string().contains("legacy-bios"));
}

#[test]
fn a_link_in_place_of_a_disk_is_refused() {
    let image = Image::new(
        &guest(WAY, false, TinyEnding::PowerOff),
        BootMode::LegacyBios,
    );
    let elsewhere = image.dir.path().join("elsewhere");
    std::fs::rename(image.disk(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, image.disk()).unwrap();
    let refused = amiforge_vm::BootSpec::from_manifest(
        &image.manifest,
        image.dir.path(),
        Firmware::Bios,
        image.options(Duration::from_secs(60)),
    );
    assert!(matches!(
        refused,
        Err(amiforge_vm::SpecError::NotAFile { .. })
    ));
}

#[test]
fn a_qcow2_artefact_boots_and_is_untouched() {
    let raw = guest(WAY, true, TinyEnding::PowerOff);
    let mut image = Image::new(&raw, BootMode::LegacyBios);
    let qcow2 = image.dir.path().join("disk.qcow2");
    run(tool("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(image.disk())
        .arg(&qcow2));
    std::fs::remove_file(image.disk()).unwrap();
    let artifact = &mut image.manifest.artifacts[0];
    artifact.file = "disk.qcow2".into();
    artifact.format = ArtifactFormat::Qcow2;
    artifact.bytes = std::fs::metadata(&qcow2).unwrap().len();
    let before = file_digest(&qcow2);

    let spec = image.spec(Firmware::Bios, image.options(Duration::from_secs(60)));
    // The content is what the manifest knows, so the digest here is of the disk, not of the file.
    let inside = |_: &Volume| -> Result<Digest, BoxError> {
        let out = qcow2.with_extension("out");
        run(tool("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(&qcow2)
            .arg(&out));
        Ok(file_digest(&out))
    };
    let hooks = BootHooks {
        digest: &inside,
        milestone: &|_, _| {},
    };
    let run = amiforge_vm::boot(&tools(), &spec, &hooks, &mut until(Milestone::Login)).unwrap();
    assert!(run.passed);
    assert_eq!(file_digest(&qcow2), before);
    image.assert_clean();
}
