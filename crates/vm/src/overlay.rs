//! The throw-away layer over a volume: an empty qcow2, written here so that no `qemu-img` is needed.
//!
//! ```text
//! cluster 0    header, 104 bytes (version 3), end of extensions
//! cluster 1    refcount table: one entry
//! cluster 2    refcount block: 1 for every cluster of this file
//! cluster 3..  L1 table, all zero: nothing allocated
//! ```
//!
//! Source: QEMU's `docs/interop/qcow2.txt`. The header names no backing file: the command line
//! does, by node, so nothing written in a disk image decides which host file is opened.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of disk behind one L1 entry: a full L2 table of clusters.
const L1_REACH: u64 = CLUSTER / 8 * CLUSTER;

/// The parts of the file that are not zero, and its length.
fn layout(disk_bytes: u64) -> (Vec<(u64, Vec<u8>)>, u64) {
    let l1_entries = disk_bytes.div_ceil(L1_REACH).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;

    let mut header = Vec::with_capacity(112);
    header.extend(*b"QFI\xFB");
    header.extend(3_u32.to_be_bytes()); // version
    header.extend(0_u64.to_be_bytes()); // backing_file_offset: none
    header.extend(0_u32.to_be_bytes()); // backing_file_size
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(disk_bytes.to_be_bytes()); // size
    header.extend(0_u32.to_be_bytes()); // crypt_method
    header.extend(u32::try_from(l1_entries).unwrap_or(u32::MAX).to_be_bytes()); // l1_size
    header.extend((3 * CLUSTER).to_be_bytes()); // l1_table_offset
    header.extend(CLUSTER.to_be_bytes()); // refcount_table_offset
    header.extend(1_u32.to_be_bytes()); // refcount_table_clusters
    header.extend(0_u32.to_be_bytes()); // nb_snapshots
    header.extend(0_u64.to_be_bytes()); // snapshots_offset
    header.extend([0; 24]); // incompatible, compatible, autoclear features
    header.extend(4_u32.to_be_bytes()); // refcount_order: 16 bits
    header.extend(104_u32.to_be_bytes()); // header_length
    header.extend([0; 8]); // end of header extensions

    let table = (2 * CLUSTER).to_be_bytes().to_vec();
    let counts = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    (
        vec![(0, header), (CLUSTER, table), (2 * CLUSTER, counts)],
        clusters * CLUSTER,
    )
}

/// Creates an empty overlay of a disk of `disk_bytes`, a multiple of 512, at `path`.
pub(crate) fn create(path: &Path, disk_bytes: u64) -> io::Result<()> {
    let (parts, len) = layout(disk_bytes);
    let file = std::fs::File::create_new(path)?;
    file.set_len(len)?;
    parts
        .iter()
        .try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
}

/// Refuses a qcow2 artefact that would make QEMU open another file: ours never do.
pub(crate) fn check_qcow2(path: &Path) -> io::Result<()> {
    let bad = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let mut head = [0; 80];
    std::fs::File::open(path)?.read_exact_at(&mut head, 0)?;
    let be = |at: usize| {
        head[at..at + 8]
            .iter()
            .fold(0_u64, |n, b| n << 8 | u64::from(*b))
    };
    if head[..4] != *b"QFI\xFB" || be(0) & 0xFFFF_FFFF != 3 {
        return bad("not a qcow2 file of version 3");
    }
    if be(8) != 0 {
        return bad("the qcow2 file names a backing file");
    }
    // Bit 2: external data file.
    if be(72) & 0x4 != 0 {
        return bad("the qcow2 file keeps its data in another file");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
