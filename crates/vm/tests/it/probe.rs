use std::time::Duration;

use amiforge_vm::{
    Acceleration, Accelerator, QemuTools, QemuVersion, ToolError, probe_acceleration,
};

use crate::fixture::tools;

#[test]
fn the_probe_ends_and_its_result_can_be_kept() {
    let tools = tools();
    // That it ends at all is what is checked: how long the kernel takes to give up a killed QEMU
    // that hangs in KVM is not ours to promise.
    let found = probe_acceleration(&tools, Duration::from_secs(2)).unwrap();
    assert!(!found.reason.is_empty());
    let kept: Acceleration = serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
    assert_eq!(kept, found);
    assert!(kept.still_valid(&tools));
    let other = Acceleration {
        kernel: "another".into(),
        ..found.clone()
    };
    assert!(!other.still_valid(&tools));
    // The probe's word is checked from outside: under KVM the same guest must end, too.
    if found.accelerator == Accelerator::Kvm {
        assert!(found.reason.contains("ran"));
    } else {
        assert!(found.scale(Duration::from_secs(1)) > Duration::from_secs(1));
    }
    let left: Vec<_> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .filter(|c| String::from_utf8_lossy(c).contains("file=probe.raw"))
        .collect();
    assert!(left.is_empty(), "the probe's QEMU still runs");
}

#[test]
fn missing_tools_name_the_package() {
    let empty = tempfile::tempdir().unwrap();
    let error = QemuTools::find_in(empty.path().as_os_str(), empty.path()).unwrap_err();
    assert!(matches!(error, ToolError::QemuMissing));
    assert!(error.to_string().contains("qemu-system-x86"));

    let path = std::env::var_os("PATH").unwrap();
    let found = QemuTools::find_in(&path, empty.path()).unwrap();
    assert!(found.ovmf.is_none());
    assert!(found.ovmf().unwrap_err().to_string().contains("ovmf"));
}

#[test]
fn versions_of_several_distributions_parse() {
    let cases = [
        (
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
            (7, 2, 22),
        ),
        ("QEMU emulator version 10.0.2", (10, 0, 2)),
        ("QEMU emulator version 9.1.0-rc1", (9, 1, 0)),
    ];
    for (text, (major, minor, micro)) in cases {
        assert_eq!(
            QemuVersion::parse(text),
            Some(QemuVersion {
                major,
                minor,
                micro
            }),
            "{text}"
        );
    }
    assert_eq!(QemuVersion::parse("bash: no such file"), None);
}
