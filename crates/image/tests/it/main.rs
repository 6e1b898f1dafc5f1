//! Disks made of small trees, looked at by the reference tools.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests hand files to outside tools, and fail by panicking"
)]

mod support;

use amiforge_disk::{FileSystemKind, disk_info};
use amiforge_image::{BootMode, ImageError, assemble};
use amiforge_types::{Arch, BlobTable, MIB};
use support::{Made, debian, make, spec};

#[test]
fn every_boot_mode_makes_a_sound_disk() {
    for boot in [
        BootMode::None,
        BootMode::LegacyBios,
        BootMode::Uefi,
        BootMode::UefiPreferred,
    ] {
        let made = make(&spec(boot));
        made.check_table();
        made.check_root();
        let slots: Vec<u32> = made.disk.partitions.iter().map(|p| p.slot).collect();
        let expected: &[u32] = match boot {
            BootMode::None => &[1],
            BootMode::LegacyBios => &[1, 3],
            BootMode::Uefi => &[1, 2],
            BootMode::UefiPreferred => &[1, 2, 3],
        };
        assert_eq!(slots, expected, "{boot}");
        if boot.uefi() {
            made.check_esp();
        }
        let mut info = disk_info(&made.bytes).unwrap();
        for part in &mut info.partitions {
            if let Some(fs) = &mut part.file_system {
                // Known only of what is written.
                assert!(fs.usage.take().is_some(), "{boot}: slot {}", part.slot);
            }
        }
        assert_eq!(
            info.partitions, made.disk.partitions,
            "{boot}: what is told is what is there"
        );
        assert_eq!(info.disk_guid, Some(made.disk.disk_guid));
        assert_eq!(info.damage, None);
    }
}

#[test]
fn a_hybrid_disk_has_what_both_firmwares_need() {
    let made = make(&spec(BootMode::UefiPreferred));
    let root = made.disk.root.uuid;

    assert_eq!(
        made.root_file("/etc/fstab"),
        format!(
            "UUID={root} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n\
         UUID={} /boot/efi vfat umask=0077,nofail 0 2\n\
         # kept\n\
         /dev/xvdb /data ext4 nofail 0 2\n",
            made.esp_uuid(),
        )
    );
    let cfg = made.root_file("/boot/grub/grub.cfg");
    let (first, second) = (
        cfg.find("vmlinuz-6.1.0-21-cloud-amd64").unwrap(),
        cfg.find("vmlinuz-6.1.0-9-cloud-amd64").unwrap(),
    );
    assert!(first < second, "the newest kernel is the default");
    assert!(
        !cfg.contains("6.99"),
        "a kernel without its initrd is not offered"
    );
    let kernel = made.disk.kernel.as_ref().unwrap();
    assert_eq!(kernel.version, "6.1.0-21-cloud-amd64");
    assert!(cfg.contains(&format!(
        "linux /boot/vmlinuz-{} {}",
        kernel.version, kernel.command_line
    )));
    assert_eq!(
        kernel.command_line,
        format!("root=UUID={root} ro console=tty0 console=ttyS0,115200 quiet")
    );
    support::grub_script_check(&cfg);
    support::grubenv_is_empty(made.root_file("/boot/grub/grubenv").as_bytes());
    let defaults = made.root_file("/etc/default/grub.d/50-amiforge.cfg");
    for (before, after) in [
        ("", "console=tty0 console=ttyS0,115200 quiet"),
        (
            "mine console=ttyS0,115200",
            "mine console=ttyS0,115200 console=tty0 quiet",
        ),
    ] {
        let line = support::after_sourcing(&defaults, "GRUB_CMDLINE_LINUX", before);
        assert_eq!(line, after, "words of /etc/default/grub are kept");
    }
    assert_eq!(made.root_file("/etc/grub.d/enable_cloud"), "");
    assert_eq!(
        made.root_file("/boot/grub/i386-pc/moddep.lst"),
        support::host_file("i386-pc/moddep.lst")
    );
    // As many of them as grub-install copies.
    assert!(made.root_try("/boot/grub/i386-pc/video.lst").is_some());
    assert_eq!(made.root_try("/boot/grub/i386-pc/fdt.lst"), None);

    assert_eq!(made.esp_file("EFI/BOOT/BOOTX64.EFI"), b"shim");
    assert_eq!(made.esp_file("EFI/BOOT/grubx64.efi"), b"signed grub");
    assert_eq!(made.esp_file("EFI/debian/shimx64.efi"), b"shim");
    let pointer = String::from_utf8(made.esp_file("EFI/debian/grub.cfg")).unwrap();
    assert!(pointer.starts_with(&format!("search.fs_uuid {root} root\n")));
}

#[test]
fn grub_itself_reads_the_root_partition() {
    let made = make(&spec(BootMode::UefiPreferred));
    assert_eq!(
        made.through_grub("/boot/grub/grub.cfg"),
        made.root_file("/boot/grub/grub.cfg").into_bytes()
    );
}

#[test]
fn boot_code_points_at_the_bios_boot_partition() {
    let made = make(&spec(BootMode::LegacyBios));
    let lba = made
        .disk
        .partitions
        .iter()
        .find(|p| p.slot == 3)
        .unwrap()
        .first_lba;
    let word = |at: usize| u64::from_le_bytes(made.bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(0x5C), lba);
    assert_eq!(made.bytes[0x64..0x68], [0xFF, 0xFA, 0x90, 0x90]);
    let core = usize::try_from(lba).unwrap() * 512;
    assert_eq!(word(core + 0x1F4), lba + 1);
    let sectors = usize::from(u16::from_le_bytes([
        made.bytes[core + 0x1FC],
        made.bytes[core + 0x1FD],
    ]));
    let after = core + 512 * (1 + sectors);
    assert!(
        made.bytes[after - 512..after].iter().any(|b| *b != 0),
        "the last sector of core.img is in use"
    );
    assert!(made.bytes[after..core + (1 << 20)].iter().all(|b| *b == 0));
    // The same file lies in the root file system, as grub-install leaves it.
    let copy = made.root_bytes("/boot/grub/i386-pc/core.img");
    assert_eq!(copy[512..], made.bytes[core + 512..core + copy.len()]);
}

#[test]
fn the_same_input_gives_the_same_disk_and_another_seed_another() {
    let a = make(&spec(BootMode::UefiPreferred));
    assert!(make(&spec(BootMode::UefiPreferred)).bytes == a.bytes);
    let mut other = spec(BootMode::UefiPreferred);
    other.seed = other.seed.child("other");
    let b = make(&other);
    assert_ne!(a.disk.disk_guid, b.disk.disk_guid);
    assert_ne!(a.disk.root.uuid, b.disk.root.uuid);
    assert_ne!(a.esp_uuid(), b.esp_uuid());
}

#[test]
fn a_given_size_is_filled_and_one_too_small_is_told() {
    const LARGE: u64 = 240 * MIB;
    let mut spec = spec(BootMode::UefiPreferred);
    spec.size = Some(LARGE);
    let made = make(&spec);
    assert_eq!(made.disk.extents.size(), LARGE);
    assert_eq!(made.disk.partitions[0].last_lba, LARGE / 512 - 2048 - 1);
    made.check_table();
    made.check_root();

    for size in [0, 512, 60 * MIB, 70 * MIB] {
        spec.size = Some(size);
        let (tree, blobs) = debian(&[]);
        let error = assemble(tree, &spec, &blobs).unwrap_err();
        let ImageError::TooSmall {
            needed,
            volume_gib: 1,
            ..
        } = error
        else {
            panic!("{size}: {error}")
        };
        spec.size = Some(needed);
        make(&spec).check_root();
    }
    spec.size = Some(LARGE + 1);
    assert!(matches!(
        assemble(debian(&[]).0, &spec, &BlobTable::new()),
        Err(ImageError::BadSize { .. })
    ));
}

#[test]
fn sshd_makes_its_host_keys_where_nothing_else_does() {
    const UNIT: &str = "usr/lib/systemd/system/ssh.service";
    let unit = |more: &[&str]| {
        let (mut tree, blobs) = support::debian(&[]);
        for path in [&[UNIT, "usr/bin/ssh-keygen", "etc/ssh/sshd_config"], more].concat() {
            support::put(&mut tree, path, b"x");
        }
        let made = Made::of((tree, blobs), &spec(BootMode::UefiPreferred));
        made.root_try("/etc/systemd/system/ssh.service.d/50-host-keys.conf")
    };
    let text = unit(&[]).expect("a part of the unit");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "[Service]",
            "ExecStartPre=",
            "ExecStartPre=/usr/bin/ssh-keygen -A",
            "ExecStartPre=/usr/sbin/sshd -t"
        ]
    );
    assert_eq!(unit(&["usr/bin/cloud-init"]), None);
    assert_eq!(unit(&["etc/ssh/ssh_host_rsa_key"]), None);
}

#[test]
fn what_is_missing_is_named() {
    let fail = |remove: &[&str], boot| {
        let (tree, blobs) = debian(remove);
        let error = assemble(tree, &spec(boot), &blobs).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let (text, hint) = fail(&["boot"], BootMode::Uefi);
    assert_eq!(text, "there is no kernel in /boot");
    assert!(hint.contains("linux-image-cloud-amd64"), "{hint}");
    let (text, hint) = fail(&["usr/lib/grub/i386-pc"], BootMode::UefiPreferred);
    assert_eq!(text, "/usr/lib/grub/i386-pc/boot.img is missing");
    assert!(hint.contains("grub-pc-bin"), "{hint}");
    let (text, hint) = fail(
        &["usr/lib/grub/x86_64-efi-signed", "usr/lib/grub/x86_64-efi"],
        BootMode::Uefi,
    );
    assert!(text.ends_with("grubx64.efi.signed is missing"), "{text}");
    assert!(hint.contains("grub-efi-amd64-signed"), "{hint}");
    let (text, hint) = fail(
        &["boot/initrd.img-6.1.0-21-cloud-amd64"],
        BootMode::LegacyBios,
    );
    assert_eq!(
        text,
        "kernel 6.1.0-21-cloud-amd64 has no /boot/initrd.img-6.1.0-21-cloud-amd64"
    );
    assert!(hint.contains("update-initramfs"), "{hint}");

    let mut arm = spec(BootMode::LegacyBios);
    arm.arch = Arch::Arm64;
    assert!(matches!(
        assemble(debian(&[]).0, &arm, &BlobTable::new()),
        Err(ImageError::NoBios(Arch::Arm64))
    ));
    let mut bad = spec(BootMode::LegacyBios);
    bad.kernel_args = vec!["a; reboot".to_owned()];
    assert!(matches!(
        assemble(debian(&[]).0, &bad, &debian(&[]).1),
        Err(ImageError::BadKernelArg(_))
    ));
}

#[test]
fn without_signed_files_the_unsigned_grub_boots() {
    let made = Made::of(
        debian(&["usr/lib/grub/x86_64-efi-signed", "usr/lib/shim"]),
        &spec(BootMode::Uefi),
    );
    assert_eq!(made.esp_file("EFI/BOOT/BOOTX64.EFI"), b"unsigned grub");
    made.check_esp();
}

#[test]
fn a_tree_without_boot_loader_is_left_alone() {
    let (tree, blobs) = debian(&["boot"]);
    let before = tree.walk().len();
    let made = Made::of((tree, blobs), &spec(BootMode::None));
    assert_eq!(made.disk.kernel, None);
    assert_eq!(
        made.disk.partitions[0].file_system.as_ref().unwrap().kind,
        FileSystemKind::Ext4
    );
    made.check_root();
    // lost+found is the only name more.
    assert_eq!(made.root_names(), before + 1);
}
