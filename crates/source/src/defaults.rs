//! The packages of a Debian image when the recipe names none.

use amiforge_types::Arch;

/// Default packages beyond the essential ones, without anything recommended. An entry may offer
/// alternatives (`a | b`): the first that the suite has is taken, because a name came or went between
/// two releases, or another distribution of the family (Ubuntu) has the same by other names.
///
/// Together they boot by BIOS and UEFI, bring up every Ethernet interface by DHCP (systemd-networkd,
/// which is in the systemd package: the fewest processes on the way to a network), and let cloud-init
/// work with its NoCloud and Ec2 sources (the DHCP client that the latter wants, to reach the metadata
/// service before the network is configured, is among cloud-init's own dependencies).
#[must_use]
pub(crate) fn packages(arch: Arch) -> Vec<&'static str> {
    let mut out = vec![
        // Boot.
        "initramfs-tools",
        "zstd",
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        // Network and time.
        "iproute2",
        "systemd-resolved",
        "systemd-timesyncd",
        "ca-certificates",
        // First boot and growth of the disk.
        "cloud-init",
        "cloud-guest-utils",
        "e2fsprogs",
        "fdisk",
        // Getting in.
        "openssh-server",
        "sudo",
        "passwd",
        "procps",
    ];
    match arch {
        Arch::X86_64 => out.extend([
            "linux-image-cloud-amd64 | linux-image-virtual",
            // What this one brings has to be named where it is missing.
            "grub-cloud-amd64 | grub2-common",
            "grub-cloud-amd64 | grub-pc-bin",
            "grub-cloud-amd64 | grub-efi-amd64-signed",
            "grub-cloud-amd64 | shim-signed",
        ]),
        Arch::Arm64 => {
            out.extend([
                "linux-image-cloud-arm64",
                "grub-efi-arm64",
                "grub-efi-arm64-signed",
                "shim-signed",
            ]);
        }
    }
    out
}
