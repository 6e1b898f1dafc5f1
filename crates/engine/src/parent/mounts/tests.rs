use amiforge_disk::{FileSystemInfo, FileSystemKind};
use amiforge_types::Uuid;

use super::*;

fn part(slot: u8, kind: FileSystemKind, uuid: &str, name: &str) -> PartitionInfo {
    PartitionInfo {
        slot: slot.into(),
        name: name.to_owned(),
        type_guid: Uuid::from_bytes([1; 16]),
        guid: Uuid::from_bytes([slot; 16]),
        mbr_type: None,
        digest: None,
        first_lba: 1,
        last_lba: 2,
        file_system: Some(FileSystemInfo {
            kind,
            uuid: Some(uuid.to_owned()),
            label: Some(format!("label-{slot}")),
            usage: None,
        }),
    }
}

fn disk() -> DiskInfo {
    DiskInfo {
        virtual_bytes: 1,
        table: None,
        disk_guid: None,
        partitions: vec![
            part(1, FileSystemKind::Ext4, "aaaa", "root"),
            part(2, FileSystemKind::Vfat, "BBBB-CCCC", "esp"),
            part(3, FileSystemKind::Ext4, "dddd", "boot"),
            part(4, FileSystemKind::Swap, "eeee", "swap"),
        ],
        file_system: None,
        damage: None,
    }
}

#[test]
fn file_systems_beside_the_root_are_named() {
    let found = |line: &str| check(line, &disk(), Some(1)).err();
    for line in [
        "UUID=dddd /boot ext4 defaults 0 2",
        "UUID=DDDD /boot/ ext4",
        "LABEL=label-3 /srv ext4",
        "PARTLABEL=boot /boot ext4",
        "PARTUUID=03030303-0303-0303-0303-030303030303 /boot ext4",
        "/dev/disk/by-uuid/dddd /boot ext4",
        "/dev/nvme0n1p3 /boot ext4",
        "\t/dev/sda3\t/boot\text4",
    ] {
        let why = found(line).unwrap_or_else(|| panic!("{line}"));
        assert!(why.ends_with("in partition 3"), "{line}: {why}");
    }
    assert!(
        found("/dev/mapper/vg-usr /usr ext4")
            .unwrap()
            .ends_with("on /dev/mapper/vg-usr")
    );
    for line in [
        "# UUID=dddd /boot ext4",
        "UUID=aaaa / ext4 defaults 0 1",
        "UUID=BBBB-CCCC /boot/efi vfat umask=0077 0 1",
        "UUID=eeee none swap sw 0 0",
        "UUID=ffff /data ext4 nofail 0 2",
        "server:/export /srv nfs",
        "tmpfs /var tmpfs",
        "UUID=dddd",
        "",
    ] {
        assert_eq!(found(line), None, "{line}");
    }
}

#[test]
fn lines_of_partitions_that_do_not_come_along_go() {
    let text = "# fstab\nUUID=aaaa / ext4 rw 0 1\nUUID=BBBB-CCCC  /boot/efi vfat umask=0077 0 1\n\
        UUID=eeee none swap sw 0 0\n/swapfile none swap sw 0 0\ntmpfs /tmp tmpfs\n";
    let (kept, gone) = without_partitions(text, &disk(), Some(1));
    assert_eq!(
        kept,
        "# fstab\nUUID=aaaa / ext4 rw 0 1\n/swapfile none swap sw 0 0\ntmpfs /tmp tmpfs\n"
    );
    assert_eq!(gone, ["UUID=eeee none swap sw 0 0"]);
    // A disk without partitions has nothing that could be left behind.
    let bare = DiskInfo {
        partitions: Vec::new(),
        ..disk()
    };
    assert!(without_partitions(text, &bare, None).1.is_empty());
}
