//! mkosi of the host's Debian, from the same packages.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::util::{run as run_shown, stdout};

/// mkosi into a folder, in a tmpfs of its own; then the initrd, which mkosi leaves out of folders. The archive is mounted
/// elsewhere, since mkosi covers `/dev` of the root, and with it `/dev/shm`, while packages are installed.
pub(super) const BOOTSTRAP: &str = r#"mkdir "$out/mkosi" "$out/archive"
mount -t tmpfs -o mode=755 tmpfs "$out/mkosi"
archive=$(mktemp -d /var/tmp/amiforge-bench-XXXXXX)
trap 'umount "$archive"; rmdir "$archive"' EXIT
mount --bind "$input/archive" "$archive"
suite=$(cat "$input/suite")
(cd "$out/mkosi" && mkosi --force --distribution debian --release "$suite" --format directory --with-docs \
    --local-mirror "file:$archive" --repository-key-check=no --package "$(cat "$input/names")" \
    --workspace-dir "$out/mkosi" --output-dir "$out/mkosi" --output root build </dev/null)
ln -s "mkosi/debian~$suite/root" "$out/root"
mount -t proc proc "$out/root/proc"
mount --bind /dev "$out/root/dev"
chroot "$out/root" /usr/sbin/update-initramfs -c -k all
umount "$out/root/proc" "$out/root/dev"
"#;

/// What mkosi always asks for and our image does not have: it stands in, so that nobody installs more.
const ALWAYS: &str = "libpam-systemd";

/// Makes a suite of the flat archive in `dir`, beside what other peers read: the form that debootstrap takes.
pub(super) fn suite(dir: &Path) -> Result<()> {
    let archive = dir.join("archive");
    let suite = fs_err::read_to_string(dir.join("suite"))?;
    let lists = archive.join("dists").join(&suite);
    let main = lists.join("main/binary-amd64");
    fs_err::create_dir_all(&main)?;
    let empty = dir.join("empty");
    fs_err::create_dir_all(empty.join("DEBIAN"))?;
    fs_err::write(
        empty.join("DEBIAN/control"),
        format!(
            "Package: {ALWAYS}\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@localhost>\nDescription: stands in\n"
        ),
    )?;
    run_shown(
        Command::new("dpkg-deb")
            .arg("--build")
            .arg(&empty)
            .arg(archive.join("empty.deb")),
    )?;
    let index = stdout(
        Command::new("dpkg-scanpackages")
            .args(["--multiversion", "."])
            .current_dir(&archive),
    )?;
    fs_err::write(main.join("Packages"), index)?;
    let release = stdout(
        Command::new("apt-ftparchive")
            .args([
                "-o".to_owned(),
                format!("APT::FTPArchive::Release::Suite={suite}"),
                "-o".to_owned(),
                format!("APT::FTPArchive::Release::Codename={suite}"),
            ])
            .args(["-o", "APT::FTPArchive::Release::Components=main"])
            .args(["-o", "APT::FTPArchive::Release::Architectures=amd64"])
            .arg("release")
            .arg(&lists),
    )?;
    fs_err::write(lists.join("Release"), release)?;
    Ok(())
}
