//! Taking a disk image apart with outside tools.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::process::{run, tool};

/// A partition as `sfdisk` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Slot number, from 1.
    pub number: u32,
    /// Byte offset on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Partition type GUID, upper case.
    pub kind: String,
    /// Unique GUID, upper case.
    pub guid: String,
    /// Name, empty when there is none.
    pub name: String,
}

impl Partition {
    /// Copies the partition of `disk` to `to`, keeping holes, and returns `to`.
    #[track_caller]
    pub fn extract(&self, disk: &Path, to: &Path) -> PathBuf {
        extract(disk, self.offset, self.len, to)
    }
}

/// The partitions of a raw disk in slot order, read by `sfdisk --json`.
#[track_caller]
pub fn partitions(disk: &Path) -> Vec<Partition> {
    let json = run(tool("sfdisk").arg("--json").arg(disk)).json();
    let table = &json["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let list = table["partitions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let prefix = text(&table["device"]);
    let mut found: Vec<Partition> = list
        .iter()
        .map(|p| {
            let node = text(&p["node"]);
            // `disk.raw1`, or `disk0p1` when the file name ends in a digit.
            let slot = node
                .strip_prefix(&prefix)
                .unwrap_or(&node)
                .trim_start_matches('p');
            Partition {
                number: slot
                    .parse()
                    .unwrap_or_else(|_| panic!("no slot number in {node:?} of {prefix:?}")),
                offset: p["start"].as_u64().unwrap_or_default() * sector,
                len: p["size"].as_u64().unwrap_or_default() * sector,
                kind: text(&p["type"]),
                guid: text(&p["uuid"]),
                name: text(&p["name"]),
            }
        })
        .collect();
    found.sort_by_key(|p| p.number);
    found
}

/// Copies `len` bytes of `file` from `offset` to the new file `to`; zero blocks become holes.
#[track_caller]
pub fn extract(file: &Path, offset: u64, len: u64, to: &Path) -> PathBuf {
    const BLOCK: usize = 64 << 10;
    let source = fs_err::File::open(file).expect("the disk image");
    let mut target = fs_err::File::create(to).expect("the extracted partition");
    target
        .set_len(len)
        .expect("the extracted partition's length");
    let mut buf = vec![0; BLOCK];
    let mut done = 0;
    while done < len {
        let n = usize::try_from(len - done).map_or(BLOCK, |left| left.min(BLOCK));
        source
            .file()
            .read_exact_at(&mut buf[..n], offset + done)
            .unwrap_or_else(|e| {
                panic!(
                    "{} holds no {n} bytes at {}: {e}",
                    file.display(),
                    offset + done
                )
            });
        if buf[..n].iter().any(|&b| b != 0) {
            target.seek(SeekFrom::Start(done)).expect("seek");
            target
                .write_all(&buf[..n])
                .expect("write the extracted partition");
        }
        done += n as u64;
    }
    to.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_and_extracted() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk0");
        fs_err::File::create(&disk)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        run(tool("sgdisk")
            .args(["-n2:2048:+1M", "-t2:ef00", "-c2:esp", "-n1:6144:0"])
            .arg(&disk));
        let found = partitions(&disk);
        let seen: Vec<_> = found
            .iter()
            .map(|p| (p.number, p.offset, p.name.as_str()))
            .collect();
        assert_eq!(seen, [(1, 6144 * 512, ""), (2, 1 << 20, "esp")]);
        assert_eq!(found[1].kind, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");

        let file = fs_err::OpenOptions::new().write(true).open(&disk).unwrap();
        file.file()
            .write_all_at(b"here", (1 << 20) + 70_000)
            .unwrap();
        let out = found[1].extract(&disk, &dir.path().join("esp"));
        let data = fs_err::read(out).unwrap();
        assert_eq!(data.len() as u64, found[1].len);
        assert_eq!(&data[70_000..70_004], b"here");
    }
}
