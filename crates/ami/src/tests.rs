use std::collections::BTreeMap;

use amiforge_types::{Arch, Digest, GIB, Timestamp};

use super::*;

fn device(name: &str) -> DeviceName {
    name.parse().unwrap()
}

pub(crate) fn spec() -> ManifestSpec {
    let root = device("/dev/xvda");
    ManifestSpec {
        name: "debian-web".into(),
        version: "1.0.0".into(),
        architecture: Arch::X86_64,
        boot_mode: BootMode::UefiPreferred,
        root_device_name: root.clone(),
        ena_support: true,
        imds_v2: true,
        tpm_v2: false,
        creation_date: CreationDate::new(Timestamp::from_secs(1_795_215_480)),
        block_device_mappings: vec![BlockDeviceMapping::ebs(root.clone(), EbsVolume::gp3(2))],
        volumes: vec![VolumeInfo {
            device: root.clone(),
            size: 2 * GIB,
            partitions: Vec::new(),
            content_digest: Digest::of(b"abc"),
        }],
        artifacts: vec![Artifact {
            device: root,
            file: "disk.raw".into(),
            format: ArtifactFormat::Raw,
            bytes: 2 * GIB,
            virtual_bytes: 2 * GIB,
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
        tags: BTreeMap::new(),
    }
}

fn problems(change: impl FnOnce(&mut ManifestSpec)) -> Vec<ManifestProblem> {
    let mut spec = spec();
    change(&mut spec);
    match Manifest::new(spec) {
        Err(ManifestError::Invalid { problems }) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_come_from_content() {
    let manifest = Manifest::new(spec()).unwrap();
    let snapshot = manifest
        .root_mapping()
        .unwrap()
        .as_ebs()
        .unwrap()
        .snapshot_id
        .clone()
        .unwrap();
    // SHA-256 of "abc" (FIPS 180-2, appendix B.1) begins ba7816bf8f01cfea4.
    assert_eq!(snapshot.as_str(), "snap-ba7816bf8f01cfea4");
    let id = |change: fn(&mut ManifestSpec)| {
        let mut spec = spec();
        change(&mut spec);
        Manifest::new(spec).unwrap().image_id
    };
    let same: [fn(&mut ManifestSpec); 4] = [
        |s| s.creation_date = CreationDate::new(Timestamp::from_secs(0)),
        |s| s.artifacts.clear(),
        |s| s.tool_version = "9".into(),
        |s| s.plan_id = Digest::of(b"other"),
    ];
    for change in same {
        assert_eq!(id(change), manifest.image_id);
    }
    let other: [fn(&mut ManifestSpec); 4] = [
        |s| s.volumes[0].content_digest = Digest::of(b"abd"),
        |s| s.version = "1.0.1".into(),
        |s| s.boot_mode = BootMode::Uefi,
        |s| {
            s.block_device_mappings[0] =
                BlockDeviceMapping::ebs(device("/dev/xvda"), EbsVolume::gp3(3))
        },
    ];
    for change in other {
        assert_ne!(id(change), manifest.image_id);
    }
}

#[test]
fn bytes_are_canonical_and_come_back() {
    let manifest = Manifest::new(spec()).unwrap();
    let bytes = manifest.to_json();
    assert_eq!(bytes.last(), Some(&b'\n'));
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.starts_with("{\n  \"schemaVersion\": 1,\n  \"imageId\": \"ami-"));
    assert!(text.contains("\"creationDate\": \"2026-11-20T22:58:00.000Z\""));
    assert!(text.contains("\"tpmSupport\": null"));
    let back = Manifest::from_json(&bytes).unwrap();
    assert_eq!(back, manifest);
    assert_eq!(back.to_json(), bytes);
}

#[test]
fn foreign_manifests_are_refused_with_the_reason() {
    let good = String::from_utf8(Manifest::new(spec()).unwrap().to_json()).unwrap();
    let read = |text: &str| Manifest::from_json(text.as_bytes());
    assert!(matches!(
        read(&good.replace("\"schemaVersion\": 1", "\"schemaVersion\": 2, \"x\": 1")),
        Err(ManifestError::Version { found: 2 })
    ));
    assert!(matches!(read("{}"), Err(ManifestError::Json(_))));
    assert!(matches!(
        read(&"[".repeat(100_000)),
        Err(ManifestError::Json(_))
    ));
    assert!(matches!(
        Manifest::from_json(&vec![b' '; MAX_MANIFEST_BYTES + 1]),
        Err(ManifestError::TooLong { .. })
    ));
    // A member this version does not know is of a later one.
    assert!(
        read(&good.replace(
            "\"schemaVersion\": 1,",
            "\"schemaVersion\": 1, \"later\": {},"
        ))
        .is_ok()
    );
    for (from, to) in [
        ("disk.raw", "../disk.raw"),
        ("\"snap-ba", "\"snap-bb"),
        ("debian-web", "debian-wob"),
        ("\"uefi-preferred\"", "\"uefi\""),
    ] {
        assert!(good.contains(from));
        let error = read(&good.replace(from, to)).unwrap_err();
        assert!(
            matches!(error, ManifestError::Invalid { .. }),
            "{from} -> {to}: {error:?}"
        );
    }
}

#[test]
fn contradictions_are_all_found() {
    let found = problems(|s| {
        s.architecture = Arch::Arm64;
        s.tpm_v2 = true;
        s.volumes[0].size = 3 * GIB;
        s.artifacts[0].file = "a/b".into();
        s.tags.insert("aws:x".into(), String::new());
    });
    use ManifestProblem as P;
    assert!(
        matches!(
            found[..],
            [
                P::BootMode { .. },
                P::TpmNeedsUefi(_),
                P::VolumeTooSmall { gib: 2, .. },
                P::ArtifactName(_),
                P::ArtifactSize { .. },
                P::Tag(_)
            ]
        ),
        "{found:?}"
    );
    let found = problems(|s| s.root_device_name = device("/dev/sda1"));
    assert!(
        matches!(
            found[..],
            [P::Mapping(MappingError::NoRoot(_)), P::NoRootVolume(_)]
        ),
        "{found:?}"
    );
    let found = problems(|s| {
        s.volumes.push(VolumeInfo {
            device: device("/dev/sdf"),
            ..s.volumes[0].clone()
        })
    });
    assert!(matches!(found[..], [P::VolumeUnmapped(_)]), "{found:?}");
}

#[test]
fn device_names() {
    for good in [
        "/dev/sda1",
        "/dev/xvda",
        "/dev/sdf",
        "/dev/sdz",
        "/dev/xvdbz",
        "/dev/xvddx",
    ] {
        assert!(good.parse::<DeviceName>().is_ok(), "{good}");
    }
    for bad in [
        "sda1",
        "/dev/sdf1",
        "/dev/sda3",
        "/dev/xvdaaa",
        "/dev/xvddy",
        "/dev/xvdea",
        "/dev/nvme0n1",
        "/dev/sd",
        "",
    ] {
        assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
    }
    let clash = |a: &str, b: &str| device(a).clashes(&device(b));
    assert!(clash("/dev/sdf", "/dev/xvdf"));
    assert!(clash("/dev/xvda", "/dev/sda1"));
    assert!(!clash("/dev/sda1", "/dev/sda2"));
    assert!(!clash("/dev/xvda", "/dev/xvdaa"));
    assert!(!clash("/dev/sdf", "/dev/sdg"));
}

#[test]
fn volume_rules() {
    let volume = |volume_type, volume_size, iops, throughput| EbsVolume {
        volume_type,
        iops,
        throughput,
        ..EbsVolume::gp3(volume_size)
    };
    use VolumeType::{Gp2, Gp3, Io1, Io2, Sc1, St1, Standard};
    let good = [
        volume(Gp3, 1, None, None),
        volume(Gp3, 1, Some(3_000), Some(125)),
        volume(Gp3, 160, Some(80_000), Some(2_000)),
        volume(Gp3, 8, Some(3_000), Some(750)),
        volume(Gp2, 16_384, None, None),
        volume(Io1, 4, Some(200), None),
        volume(Io2, 64, Some(64_000), None),
        volume(St1, 125, None, None),
        volume(Standard, 1_024, None, None),
    ];
    for v in good {
        assert_eq!(v.check(), [], "{v:?}");
    }
    let bad = [
        volume(Gp3, 0, None, None),
        volume(Gp3, 65_537, None, None),
        volume(Gp3, 8, Some(2_999), None),
        volume(Gp3, 8, Some(4_001), None),
        volume(Gp3, 8, None, Some(751)),
        volume(Gp2, 8, Some(3_000), None),
        volume(Gp2, 8, None, Some(125)),
        volume(Io1, 8, None, None),
        volume(Io1, 4, Some(201), None),
        volume(Io2, 3, Some(100), None),
        volume(Sc1, 124, None, None),
        volume(Standard, 1_025, None, None),
        EbsVolume {
            kms_key_id: Some("k".into()),
            ..EbsVolume::gp3(8)
        },
    ];
    for v in bad {
        assert_eq!(v.check().len(), 1, "{v:?}: {:?}", v.check());
    }
    let root = device("/dev/xvda");
    let st1 = [BlockDeviceMapping::ebs(
        root.clone(),
        volume(St1, 125, None, None),
    )];
    assert!(matches!(
        check_mappings(&root, &st1)[..],
        [MappingError::NotBootable { .. }]
    ));
    let twice = [
        BlockDeviceMapping::ebs(root.clone(), EbsVolume::gp3(8)),
        BlockDeviceMapping::ebs(device("/dev/sda"), EbsVolume::gp3(8)),
    ];
    assert!(matches!(
        check_mappings(&root, &twice)[..],
        [MappingError::Clash { .. }]
    ));
}

#[test]
fn mappings_hold_exactly_one_target() {
    let read = |text: &str| serde_json::from_str::<BlockDeviceMapping>(text);
    let virtual_name = read(r#"{"deviceName": "/dev/sdb", "virtualName": "ephemeral23"}"#).unwrap();
    assert_eq!(
        serde_json::to_string(&virtual_name).unwrap(),
        r#"{"deviceName":"/dev/sdb","virtualName":"ephemeral23"}"#
    );
    assert!(read(r#"{"deviceName": "/dev/sdb", "noDevice": ""}"#).is_ok());
    for bad in [
        r#"{"deviceName": "/dev/sdb"}"#,
        r#"{"deviceName": "/dev/sdb", "noDevice": "", "virtualName": "ephemeral0"}"#,
        r#"{"deviceName": "/dev/sdb", "virtualName": "ephemeral24"}"#,
        r#"{"deviceName": "/dev/sdb", "virtualName": "ephemeral007"}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn boot_modes() {
    assert!(BootMode::UefiPreferred.allows(Firmware::Bios));
    assert!(!BootMode::Uefi.allows(Firmware::Bios));
    assert!(!BootMode::LegacyBios.allows(Firmware::Uefi));
    assert!(!BootMode::LegacyBios.fits(Arch::Arm64));
    assert_eq!("uefi-preferred".parse(), Ok(BootMode::UefiPreferred));
}

#[test]
fn names() {
    assert!(check_ami_name("debian-web-1.0.0 (test) [x] a/b@c_d'e").is_ok());
    assert!(matches!(
        check_ami_name("ab"),
        Err(NameError::Length { len: 2, .. })
    ));
    assert!(matches!(
        check_ami_name("a+bc"),
        Err(NameError::Character { character: '+', .. })
    ));
    assert!(check_ami_name(&"x".repeat(129)).is_err());
}
