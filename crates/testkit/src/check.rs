//! The outside checkers. Each panics, with the tool's output, when the tool finds anything.

use std::path::Path;
use std::process::Command;

use crate::process::{Finished, finish, run, tool};

/// `e2fsck -fn`: the file system is clean, and the forced full check finds nothing to mend.
#[track_caller]
pub fn e2fsck(image: &Path) -> Finished {
    let end = run(tool("e2fsck").arg("-fn").arg(image));
    // Exit code 0 is not the whole story with -n: complaints that it would only optimise away end in 0.
    let odd = end
        .text()
        .lines()
        .any(|line| line.contains("? no") || line.contains("UNEXPECTED"));
    assert!(!odd, "e2fsck would change something\n{end}");
    end
}

/// `debugfs -R <request>` on an ext4 image; its standard output.
///
/// debugfs exits with 0 whatever happened, so anything but its banner on standard error is a failure.
#[track_caller]
pub fn debugfs(image: &Path, request: &str) -> Vec<u8> {
    let end = run(tool("debugfs").args(["-R", request]).arg(image));
    let complaints: Vec<_> = end
        .stderr
        .lines()
        .filter(|l| !l.starts_with("debugfs 1."))
        .collect();
    assert!(complaints.is_empty(), "debugfs complains\n{end}");
    end.stdout
}

/// `debugfs cat`: content of a file in an ext4 image.
#[track_caller]
pub fn ext4_cat(image: &Path, path: &str) -> Vec<u8> {
    debugfs(image, &format!("cat \"{path}\""))
}

/// `fsck.vfat -n`: no complaint at all.
#[track_caller]
pub fn fsck_vfat(image: &Path) -> Finished {
    let end = run(tool("fsck.vfat").args(["-n", "-v"]).arg(image));
    let odd = [
        "differ",
        "Dirty bit",
        "Orphan",
        "Bad",
        "Wrong",
        "Reclaim",
        "Free cluster summary",
        "corrupt",
    ];
    let text = end.text();
    let found = text
        .lines()
        .find(|line| odd.iter().any(|o| line.contains(o)));
    assert!(found.is_none(), "fsck.vfat says {found:?}\n{end}");
    end
}

/// `sgdisk -v`: both tables and the protective MBR, no problem and no warning. (It also prints a
/// "Caution" about partition *ends* off the alignment, which is no defect.)
#[track_caller]
pub fn sgdisk_verify(disk: &Path) -> Finished {
    let end = run(tool("sgdisk").arg("-v").arg(disk));
    let text = end.text();
    assert!(
        text.contains("No problems found") && !text.contains("Warning"),
        "sgdisk finds problems\n{end}"
    );
    end
}

/// `sgdisk -i <slot>`: what sgdisk knows of one partition.
#[track_caller]
pub fn sgdisk_info(disk: &Path, slot: u32) -> String {
    run(tool("sgdisk").arg("-i").arg(slot.to_string()).arg(disk)).text()
}

/// `qemu-img check`: no error, no leaked cluster. The format is declared, never guessed.
#[track_caller]
pub fn qemu_img_check(image: &Path, format: &str) -> Finished {
    let end = run(tool("qemu-img").args(["check", "-f", format]).arg(image));
    assert!(
        end.text().contains("No errors were found"),
        "qemu-img check finds errors\n{end}"
    );
    end
}

/// `qemu-img compare`: same virtual bytes. Strict would also compare sizes of holes, which formats may choose.
#[track_caller]
pub fn qemu_img_compare(a: &Path, a_format: &str, b: &Path, b_format: &str) -> Finished {
    let end = run(tool("qemu-img")
        .args(["compare", "-f", a_format, "-F", b_format])
        .arg(a)
        .arg(b));
    assert!(end.text().contains("Images are identical"), "{end}");
    end
}

/// `qemu-img info --output=json`.
#[track_caller]
pub fn qemu_img_info(image: &Path, format: &str) -> serde_json::Value {
    run(tool("qemu-img")
        .args(["info", "--output=json", "-f", format])
        .arg(image))
    .json()
}

/// Every file and folder of a FAT image as mtools lists it (`/EFI/BOOT/BOOTX64.EFI`, folders end in `/`), sorted.
#[track_caller]
pub fn fat_list(image: &Path) -> Vec<String> {
    let end = finish(
        tool("mdir")
            .args(["-/", "-b", "-a", "-i"])
            .arg(image)
            .arg("::"),
    );
    // mdir calls an empty root folder "File not found" and exits with 1.
    let empty = end.code() != 0 && end.stderr.contains("not found") && end.stdout.is_empty();
    let end = if empty { end } else { end.expect_code(0) };
    let text = end.text();
    let mut list: Vec<String> = text
        .lines()
        .map(|l| l.trim_start_matches("::").to_owned())
        .collect();
    list.retain(|l| !l.is_empty());
    list.sort_unstable();
    list
}

/// Content of a file of a FAT image, by mtools.
#[track_caller]
pub fn fat_cat(image: &Path, path: &str) -> Vec<u8> {
    run(tool("mtype").arg("-i").arg(image).arg(format!("::{path}"))).stdout
}

/// `jsonschema` of Python: a JSON file follows a JSON Schema of draft 7.
///
/// # Panics
/// With every place where it does not.
#[track_caller]
pub fn json_schema(schema: &Path, file: &Path) {
    const JUDGE: &str = "\
import json, sys
from jsonschema import Draft7Validator
schema, document = (json.load(open(path)) for path in sys.argv[1:3])
Draft7Validator.check_schema(schema)
problems = [e.json_path + ': ' + e.message for e in Draft7Validator(schema).iter_errors(document)]
sys.exit('\\n'.join(problems) or 0)";
    let python = crate::venv_program("python3");
    run(Command::new(python)
        .args(["-c", JUDGE])
        .arg(schema)
        .arg(file));
}

/// Bytes of a file that are no hole. `st_blocks` also counts what the file system itself needs for the file, which depends
/// on how full and how scattered it is.
#[must_use]
pub fn data_bytes(file: &Path) -> u64 {
    use rustix::fs::{SeekFrom, seek};
    let file = fs_err::File::open(file).expect("the file opens");
    let (mut at, mut bytes) = (0, 0);
    // At the end of the last data there is an error, ENXIO.
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).expect("data ends");
        bytes += at - data;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn blank(dir: &Path, name: &str, len: u64) -> std::path::PathBuf {
        let path = dir.join(name);
        fs_err::File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    fn poke(path: &Path, offset: u64, bytes: &[u8]) {
        fs_err::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .file()
            .write_all_at(bytes, offset)
            .unwrap();
    }

    fn rejects(check: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(check).is_err()
    }

    /// The checkers are only worth something if they fail on broken input.
    #[test]
    fn a_damaged_ext4_is_rejected_and_a_good_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), "e", 8 << 20);
        let tree = dir.path().join("tree");
        fs_err::create_dir(&tree).unwrap();
        fs_err::write(tree.join("hello"), "text\n").unwrap();
        run(tool("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&tree)
            .arg(&image));
        e2fsck(&image);
        assert_eq!(ext4_cat(&image, "/hello"), b"text\n");
        assert!(rejects(|| drop(debugfs(&image, "stat /missing"))));
        // s_free_blocks_count_lo of the superblock: with metadata checksums that breaks the checksum too.
        poke(&image, 1024 + 0x0C, &[9]);
        assert!(rejects(|| drop(e2fsck(&image))));
    }

    #[test]
    fn a_damaged_fat_is_rejected_and_a_good_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), "f", 40 << 20);
        run(tool("mkfs.vfat").args(["-F", "32"]).arg(&image));
        assert_eq!(fat_list(&image), Vec::<String>::new());
        run(tool("mmd").arg("-i").arg(&image).arg("::/EFI"));
        let file = dir.path().join("x");
        fs_err::write(&file, "boot").unwrap();
        run(tool("mcopy")
            .arg("-i")
            .arg(&image)
            .arg(&file)
            .arg("::/EFI/x.txt"));
        fsck_vfat(&image);
        assert_eq!(fat_list(&image), ["/EFI/", "/EFI/x.txt"]);
        assert_eq!(fat_cat(&image, "/EFI/x.txt"), b"boot");
        // The first FAT starts after 32 reserved sectors; the second is the copy it then differs from.
        poke(&image, 32 * 512 + 40, &[0xAA; 4]);
        assert!(rejects(|| drop(fsck_vfat(&image))));
    }

    #[test]
    fn a_damaged_gpt_is_rejected_and_a_good_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = blank(dir.path(), "g", 8 << 20);
        run(tool("sgdisk").args(["-n1:2048:0"]).arg(&disk));
        sgdisk_verify(&disk);
        assert!(sgdisk_info(&disk, 1).contains("First sector: 2048"));
        poke(&disk, 2 * 512 + 40, &[1, 2, 3]);
        assert!(rejects(|| drop(sgdisk_verify(&disk))));
    }

    #[test]
    fn qemu_img_sees_differences_and_leaks() {
        let dir = tempfile::tempdir().unwrap();
        let raw = blank(dir.path(), "r.raw", 4 << 20);
        poke(&raw, 1 << 20, b"data");
        let qcow2 = dir.path().join("r.qcow2");
        run(tool("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .arg(&raw)
            .arg(&qcow2));
        qemu_img_check(&qcow2, "qcow2");
        qemu_img_compare(&raw, "raw", &qcow2, "qcow2");
        assert_eq!(qemu_img_info(&qcow2, "qcow2")["virtual-size"], 4 << 20);
        poke(&raw, 2 << 20, b"more");
        assert!(rejects(|| drop(qemu_img_compare(
            &raw, "raw", &qcow2, "qcow2"
        ))));
        // The refcount block is cluster 2; cluster 3 (the L1 table) counted twice is a leak.
        poke(&qcow2, 2 * 65536 + 3 * 2, &[0, 2]);
        assert!(rejects(|| drop(qemu_img_check(&qcow2, "qcow2"))));
    }
}
