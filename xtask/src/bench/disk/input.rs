//! The inputs: a Debian root, many small files, one large file with holes, one large folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bench::archive;
use crate::util::{run as run_shown, stdout};

/// A Debian root of about 350 MB with a kernel and both boot loaders. mmdebstrap makes it once.
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,grub-efi-amd64-signed,shim-signed,grub-pc-bin,\
    grub-cloud-amd64,cloud-init,cloud-guest-utils,ifupdown,isc-dhcp-client,openssh-server,ca-certificates,locales";

/// Files of the archive of small files.
pub(super) const SMALL_FILES: u32 = 200_000;
/// Files in one of its folders.
const SMALL_PER_FOLDER: u32 = 200;
/// Bytes of the file with holes.
pub(super) const HALF_HOLE_BYTES: u64 = 4 << 30;
/// Bytes of a run of data, and of the hole after it.
const HALF_HOLE_RUN: u64 = 1 << 20;

/// The root, made once and kept.
pub(super) fn debian_root(cache: &Path) -> Result<PathBuf> {
    let (uri, suite) = archive::of_host()?;
    let tar = cache.join(format!("rootfs-{suite}.tar"));
    if !tar.exists() {
        let part = cache.join("rootfs.part.tar");
        run_shown(
            Command::new("mmdebstrap")
                .args([
                    "--quiet",
                    "--variant=apt",
                    "--format=tar",
                    "--aptopt=Acquire::Retries \"3\"",
                ])
                .arg(format!("--include={}", PACKAGES.replace(' ', "")))
                .arg(&suite)
                .arg(&part)
                .arg(uri),
        )?;
        fs_err::rename(part, &tar)?;
    }
    Ok(tar)
}

/// Entries of an archive.
pub(super) fn entries(tar: &Path) -> Result<usize> {
    Ok(stdout(Command::new("tar").arg("-tf").arg(tar))?
        .lines()
        .count())
}

/// An archive of [`SMALL_FILES`] files of about 4 KiB in folders of [`SMALL_PER_FOLDER`].
pub(super) fn small_files(tar: &Path) -> Result<()> {
    let mut out = tar::Builder::new(std::io::BufWriter::with_capacity(
        1 << 20,
        fs_err::File::create(tar)?,
    ));
    let mut noise = Noise(1);
    for i in 0..SMALL_FILES {
        if i % SMALL_PER_FOLDER == 0 {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            out.append_data(
                &mut header,
                format!("d{:04}/", i / SMALL_PER_FOLDER),
                std::io::empty(),
            )?;
        }
        // 3 to 5 KiB.
        let mut data = vec![0; 3 * 1024 + usize::try_from(noise.next() % 2048)?];
        noise.fill(&mut data);
        let mut header = header(tar::EntryType::Regular, 0o644, data.len() as u64);
        out.append_data(
            &mut header,
            format!("d{:04}/file-{i:06}", i / SMALL_PER_FOLDER),
            &*data,
        )?;
    }
    out.into_inner()?.flush()?;
    Ok(())
}

/// A folder of `names` empty files.
pub(super) fn one_folder(dir: &Path, names: u32) -> Result<()> {
    fs_err::create_dir(dir)?;
    for i in 0..names {
        fs_err::File::create(dir.join(format!("entry-with-a-usual-name-{i:06}")))?;
    }
    Ok(())
}

/// An archive (GNU sparse format) of one file of [`HALF_HOLE_BYTES`], every other MiB a hole.
pub(super) fn half_hole(dir: &Path, tar: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let folder = dir.join("holes");
    fs_err::create_dir(&folder)?;
    let file = fs_err::File::create(folder.join("file"))?;
    file.set_len(HALF_HOLE_BYTES)?;
    let mut data = vec![0; usize::try_from(HALF_HOLE_RUN)?];
    let mut noise = Noise(2);
    noise.fill(&mut data);
    let mut offset = 0;
    while offset < HALF_HOLE_BYTES {
        data[..8].copy_from_slice(&offset.to_le_bytes());
        file.file().write_all_at(&data, offset)?;
        offset += 2 * HALF_HOLE_RUN;
    }
    drop(file);
    run_shown(
        Command::new("tar")
            .args(["-c", "--sparse", "-f"])
            .arg(tar)
            .arg("-C")
            .arg(&folder)
            .arg("file"),
    )?;
    fs_err::remove_dir_all(folder)?;
    Ok(())
}

/// An archive of one file of 1 MiB, as a small component leaves it; `seed` decides what is in it.
pub(super) fn one_file(seed: u64, tar: &Path) -> Result<()> {
    let mut data = vec![0; 1 << 20];
    Noise(seed).fill(&mut data);
    let mut out = tar::Builder::new(fs_err::File::create(tar)?);
    let mut header = header(tar::EntryType::Regular, 0o644, data.len() as u64);
    out.append_data(&mut header, "srv/component", &*data)?;
    out.into_inner()?;
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

/// Reproducible data that compresses about as well as programs do: words of a small alphabet.
struct Noise(u64);

impl Noise {
    /// xorshift64 (Marsaglia, 2003).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next() & 0x3F3F_0F0F_3F3F_0F0F;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}
