//! The text files of a boot: `grub.cfg`, `grubenv`, GRUB's defaults, `fstab`.

use std::fmt::Write as _;

use amiforge_tree::Content;

use super::Ids;
use crate::files::Files;
use crate::{ImageError, ImageSpec};

/// Serial port first in the list, screen last named: the last `console=` becomes `/dev/console`.
const CONSOLES: &str = "console=tty0 console=ttyS0,115200";
/// Exact size of GRUB's environment block.
const GRUBENV_BYTES: usize = 1024;
const FSTAB: &str = "/etc/fstab";

/// The UUID that udev gives a FAT volume.
pub(crate) fn fat_uuid(volume_id: u32) -> String {
    format!("{:04X}-{:04X}", volume_id >> 16, volume_id & 0xFFFF)
}

/// The kernel's command line.
pub(super) fn command_line(spec: &ImageSpec, ids: Ids) -> Result<String, ImageError> {
    let mut line = format!("root=UUID={} ro {CONSOLES}", ids.root);
    for arg in &spec.kernel_args {
        // Printable and free of what GRUB's shell gives a meaning to.
        let ok = !arg.is_empty()
            && arg
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"'\\$`;&|<>{}#()".contains(&b));
        if !ok {
            return Err(ImageError::BadKernelArg(arg.clone()));
        }
        let _ = write!(line, " {arg}");
    }
    Ok(line)
}

pub(super) fn install(
    files: &mut Files<'_>,
    spec: &ImageSpec,
    ids: Ids,
    kernels: &[String],
    command_line: &str,
) -> Result<(), ImageError> {
    files.write_text(
        "/boot/grub/grub.cfg",
        grub_cfg(spec, ids, kernels, command_line),
    )?;
    files.write("/boot/grub/grubenv", Content::bytes(grubenv()))?;
    files.copy(
        "/usr/share/grub/unicode.pf2",
        "/boot/grub/fonts/unicode.pf2",
    )?;
    if !files.exists("/etc/default/grub") {
        let text = "# Read by update-grub; see also /etc/default/grub.d.\nGRUB_DEFAULT=0\n";
        files.write_text("/etc/default/grub", text.to_owned())?;
    }
    files.write_text("/etc/default/grub.d/50-amiforge.cfg", grub_defaults(spec))?;
    if files.exists("/var/lib/dpkg/info/grub-cloud-amd64.postinst") {
        // The package installs a new GRUB on an upgrade only where this file exists. It is not
        // executable, so grub-mkconfig passes over it.
        files.write("/etc/grub.d/enable_cloud", Content::default())?;
    }
    let old = files.read(FSTAB)?.unwrap_or_default();
    files.write_text(FSTAB, fstab(&String::from_utf8_lossy(&old), spec, ids))?;
    if spec.boot.uefi() {
        files.make_dir("/boot/efi")?;
    }
    install_host_keys(files)
}

/// Images hold no host keys of SSH: every instance has its own. cloud-init makes them at the first boot;
/// where it is missing, sshd would not start, and its unit makes them first.
fn install_host_keys(files: &mut Files<'_>) -> Result<(), ImageError> {
    let mut keys = files.names("/etc/ssh").into_iter();
    if keys.any(|name| name.starts_with("ssh_host_"))
        || files.exists("/usr/bin/cloud-init")
        || !files.exists("/usr/bin/ssh-keygen")
        || !files.exists("/usr/lib/systemd/system/ssh.service")
    {
        return Ok(());
    }
    let text = "# This image has no host keys, and nothing else that would make them.\n\
        [Service]\n\
        ExecStartPre=\n\
        ExecStartPre=/usr/bin/ssh-keygen -A\n\
        ExecStartPre=/usr/sbin/sshd -t\n";
    let path = "/etc/systemd/system/ssh.service.d/50-host-keys.conf";
    files.write_text(path, text.to_owned())
}

/// The first configuration; `update-grub` in the guest replaces it by its own.
fn grub_cfg(spec: &ImageSpec, ids: Ids, kernels: &[String], command_line: &str) -> String {
    let root = ids.root;
    let mut out = String::from(
        "# First boot configuration; update-grub replaces it.\n\
         if [ -s $prefix/grubenv ]; then\n\
         \x20 load_env\n\
         fi\n\
         set default=0\n\
         if [ \"${next_entry}\" ]; then\n\
         \x20 set default=\"${next_entry}\"\n\
         \x20 set next_entry=\n\
         \x20 save_env next_entry\n\
         fi\n",
    );
    let style = if spec.boot_timeout == 0 {
        "hidden"
    } else {
        "menu"
    };
    let _ = write!(
        out,
        "set timeout_style={style}\nset timeout={}\n",
        spec.boot_timeout
    );
    // Under UEFI the firmware's console is the serial port too; a second driver would print twice.
    out.push_str(
        "if [ \"$grub_platform\" = pc ]; then\n\
         \x20 serial --unit=0 --speed=115200\n\
         \x20 terminal_input console serial\n\
         \x20 terminal_output console serial\n\
         fi\n\
         insmod part_gpt\n\
         insmod ext2\n",
    );
    let _ = writeln!(out, "search --no-floppy --fs-uuid --set=root {root}");
    for version in kernels {
        let _ = write!(
            out,
            "menuentry 'Linux {version}' --class gnu-linux --class os --id 'linux-{version}' {{\n\
             \x20 search --no-floppy --fs-uuid --set=root {root}\n\
             \x20 linux /boot/vmlinuz-{version} {command_line}\n\
             \x20 initrd /boot/initrd.img-{version}\n\
             }}\n"
        );
    }
    out
}

fn grubenv() -> Vec<u8> {
    let mut out = b"# GRUB Environment Block\n\
        # WARNING: Do not edit this file by tools other than grub-editenv!!!\n"
        .to_vec();
    out.resize(GRUBENV_BYTES, b'#');
    out
}

/// Keeps console and arguments when the guest runs `update-grub`. A file of its own, because
/// `/etc/default/grub` is a conffile and a change in it would stop an unattended upgrade. It adds the
/// words that are missing and takes none away: what somebody writes into `/etc/default/grub` must
/// reach the kernel.
fn grub_defaults(spec: &ImageSpec) -> String {
    let ours = spec.kernel_args.iter().map(String::as_str);
    // Quoted, since a word may hold what a shell takes for a pattern.
    let words: Vec<String> = CONSOLES
        .split(' ')
        .chain(ours)
        .map(|word| format!("\"{word}\""))
        .collect();
    let style = if spec.boot_timeout == 0 {
        "hidden"
    } else {
        "menu"
    };
    format!(
        "# How this image was built to boot; read after /etc/default/grub.\n\
         GRUB_TIMEOUT={timeout}\n\
         GRUB_TIMEOUT_STYLE={style}\n\
         for word in {words}; do\n\
         \x20 case \" $GRUB_CMDLINE_LINUX \" in\n\
         \x20   *\" $word \"*) ;;\n\
         \x20   *) GRUB_CMDLINE_LINUX=\"${{GRUB_CMDLINE_LINUX:+$GRUB_CMDLINE_LINUX }}$word\" ;;\n\
         \x20 esac\n\
         done\n\
         GRUB_TERMINAL=\"console serial\"\n\
         GRUB_SERIAL_COMMAND=\"serial --unit=0 --speed=115200\"\n\
         GRUB_DISABLE_OS_PROBER=true\n",
        timeout = spec.boot_timeout,
        words = words.join(" "),
    )
}

/// The lines of `old` for other mount points, behind ours.
pub(crate) fn fstab(old: &str, spec: &ImageSpec, ids: Ids) -> String {
    let ours = |mount_point: &str| {
        mount_point == "/" || spec.boot.uefi() && mount_point.trim_end_matches('/') == "/boot/efi"
    };
    let kept = old.lines().filter(|line| {
        let is_placeholder = line.trim() == "# UNCONFIGURED FSTAB FOR BASE SYSTEM";
        let mount_point = line
            .split_whitespace()
            .nth(1)
            .filter(|_| !line.trim_start().starts_with('#'));
        !is_placeholder && !mount_point.is_some_and(ours)
    });
    let mut out = format!(
        "UUID={} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n",
        ids.root
    );
    if spec.boot.uefi() {
        let _ = writeln!(
            out,
            "UUID={} /boot/efi vfat umask=0077,nofail 0 2",
            fat_uuid(ids.esp)
        );
    }
    for line in kept {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// The `fstab` of a tree that boots by other means: only the root's line is certain.
pub(crate) fn install_fstab_only(
    files: &mut Files<'_>,
    spec: &ImageSpec,
    ids: Ids,
) -> Result<(), ImageError> {
    match files.read(FSTAB)? {
        Some(old) => files.write_text(FSTAB, fstab(&String::from_utf8_lossy(&old), spec, ids)),
        None => Ok(()),
    }
}
