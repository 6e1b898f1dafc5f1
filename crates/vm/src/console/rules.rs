//! What a console line means.
//!
//! Every rule is bound to the stage the guest is in, so that a test that prints "Kernel panic" or a
//! package whose log says "GRUB" is not taken for the machine.

use super::{GuestFailure, Milestone};

fn any(line: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|p| line.contains(p))
}

/// A milestone later than `stage` that `line` shows.
pub(super) fn milestone(
    line: &str,
    stage: Option<Milestone>,
    in_initrd: bool,
) -> Option<Milestone> {
    let order = [
        (Milestone::Login, is_login(line)),
        (Milestone::Target, is_target(line)),
        (Milestone::Init, !in_initrd && is_init(line)),
        (Milestone::Kernel, is_kernel(line)),
        (Milestone::Bootloader, is_bootloader(line)),
        (Milestone::Firmware, is_firmware(line)),
    ];
    order
        .into_iter()
        .find(|(m, shown)| *shown && stage < Some(*m))
        .map(|(m, _)| m)
}

fn is_firmware(line: &str) -> bool {
    any(
        line,
        &[
            "SeaBIOS (version",
            "BdsDxe: ",
            "UEFI firmware (version",
            "Booting from ",
        ],
    )
}

fn is_bootloader(line: &str) -> bool {
    // "GRUB loading" comes from boot.img and core.img, "Welcome to GRUB" from the kernel of GRUB;
    // the others from its menu, from a Debian menu entry, and from other loaders.
    any(
        line,
        &[
            "GRUB loading",
            "Welcome to GRUB",
            "GNU GRUB",
            "Booting `",
            "Loading Linux ",
            "Loading initial ramdisk",
            "systemd-boot",
            "EFI stub: ",
            "SYSLINUX ",
            "EXTLINUX ",
        ],
    )
}

fn is_kernel(line: &str) -> bool {
    // With the printk time before it, or without, as `earlycon` prints it.
    line.find("Linux version ").is_some_and(|at| {
        let head = &line[..at];
        (head.is_empty() || head.ends_with("] "))
            && line[at + "Linux version ".len()..].starts_with(|c: char| c.is_ascii_digit())
    })
}

// A kernel told to be quiet prints no first line, so the rules below ask for no kernel before.

fn is_init(line: &str) -> bool {
    // systemd prints these before it says whether it runs in an initramfs.
    if any(
        line,
        &[
            "running in system mode",
            "Detected virtualization",
            "Detected architecture",
        ],
    ) {
        return false;
    }
    any(line, &["systemd[1]: ", "INIT: version ", "OpenRC "])
        || (line.starts_with("Welcome to ")
            && line.ends_with('!')
            && !line.contains("GRUB")
            && !enters_initrd(line))
}

fn is_target(line: &str) -> bool {
    line.contains("Reached target ")
        && any(
            line,
            &[
                "multi-user.target",
                "Multi-User System",
                "graphical.target",
                "Graphical Interface",
            ],
        )
}

fn is_login(line: &str) -> bool {
    // agetty prints "<host> login: " and waits, so it is usually the unfinished line; a kernel
    // message may follow in the same one.
    line.split_once(" login: ")
        .is_some_and(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace))
}

/// An initramfs with its own systemd (dracut, mkinitcpio).
pub(super) fn enters_initrd(line: &str) -> bool {
    any(
        line,
        &[
            "Running in initrd",
            "Running in initial RAM disk",
            "(Initramfs)!",
        ],
    )
}

/// The initramfs hands over.
pub(super) fn leaves_initrd(line: &str) -> bool {
    any(
        line,
        &[
            "Switching root",
            "Reached target initrd-switch-root",
            "Reached target Switch Root",
        ],
    )
}

/// SeaBIOS without a bootable disk, OVMF likewise, and OVMF's shell, which it falls back to.
const NOTHING_TO_BOOT: &[&str] = &[
    "No bootable device",
    "Boot failed: not a bootable disk",
    "No bootable option or device was found",
    "UEFI Interactive Shell v",
];

/// The failure that `line` shows to a guest in `stage`.
pub(super) fn failure(line: &str, stage: Option<Milestone>) -> Option<GuestFailure> {
    let shown = || line.trim().chars().take(300).collect::<String>();
    let before_kernel = stage < Some(Milestone::Kernel);
    let booted = stage >= Some(Milestone::Target);

    if before_kernel {
        if any(line, NOTHING_TO_BOOT) {
            return Some(GuestFailure::NoBootDevice(shown()));
        }
        if line.contains("Entering rescue mode...") {
            return Some(GuestFailure::BootloaderPrompt(shown()));
        }
    }
    let printk = line.trim_start().starts_with('[');
    if line.contains("Kernel panic - not syncing") && (printk || !booted) {
        return Some(GuestFailure::KernelPanic(shown()));
    }
    if booted {
        return None;
    }
    if any(
        line,
        &[
            "Dropping to a shell!",
            "Gave up waiting for root",
            "dracut-emergency",
            "rdsosreport.txt",
        ],
    ) {
        return Some(GuestFailure::Initramfs(shown()));
    }
    if any(
        line,
        &[
            "You are in emergency mode",
            "You are in rescue mode",
            "Give root password for maintenance",
            "Press Enter for maintenance",
            "Entering emergency mode",
            "Cannot open access to console, the root account is locked",
        ],
    ) {
        return Some(GuestFailure::Emergency(shown()));
    }
    None
}

/// The failure that an unfinished line shows: a prompt that waits for somebody who is not there.
pub(super) fn prompt(line: &str, stage: Option<Milestone>) -> Option<GuestFailure> {
    let text = line.trim();
    match text {
        "grub>" | "grub rescue>" if stage < Some(Milestone::Kernel) => {
            Some(GuestFailure::BootloaderPrompt(text.to_owned()))
        }
        "(initramfs)" if stage < Some(Milestone::Target) => {
            Some(GuestFailure::Initramfs(text.to_owned()))
        }
        _ => None,
    }
}
