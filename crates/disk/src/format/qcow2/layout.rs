//! Numbers and the header of the files we write (version 3, 64 KiB clusters, 16-bit refcounts).

/// First bytes of every qcow2 file.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xFB";
/// log2 of the cluster size.
pub(super) const CLUSTER_BITS: u32 = 16;
/// Bytes of a cluster.
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table, one cluster each.
pub(super) const L2_ENTRIES: u64 = CLUSTER / 8;
/// Guest bytes that one L2 table covers: 512 MiB.
pub(super) const L2_SPAN: u64 = L2_ENTRIES * CLUSTER;
/// Entries of a refcount block.
pub(super) const REFCOUNTS: u64 = CLUSTER / 2;
/// Bit of L1 and L2 entries: this cluster is used exactly once.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit of an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bits below this hold the byte offset of compressed data, bits from it the further sectors.
pub(super) const COMPRESSED_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);

/// Incompatible feature: the compression type is not deflate.
pub(super) const INCOMPAT_COMPRESSION: u64 = 1 << 3;

/// Header extension of ours: what compressed the clusters, as text. Readers skip extensions that
/// they do not know; [`Previous`](super::Previous) takes clusters over only from the same encoder.
pub(super) const ENCODER_EXTENSION: u32 = u32::from_be_bytes(*b"AmFc");

/// The addresses that a header holds.
pub(super) struct Header {
    pub virtual_bytes: u64,
    pub l1_entries: u64,
    pub l1_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u64,
    pub zstd: bool,
    /// What compressed the clusters, for [`ENCODER_EXTENSION`].
    pub encoder: Option<String>,
}

impl Header {
    /// One cluster. `None` when a count does not fit its field (disks beyond 2^41 GiB).
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut h = Vec::with_capacity(usize::try_from(CLUSTER).ok()?);
        h.extend(MAGIC);
        h.extend(3u32.to_be_bytes());
        h.extend([0; 12]); // no backing file
        h.extend(CLUSTER_BITS.to_be_bytes());
        h.extend(self.virtual_bytes.to_be_bytes());
        h.extend([0; 4]); // no encryption
        h.extend(u32::try_from(self.l1_entries).ok()?.to_be_bytes());
        h.extend(self.l1_offset.to_be_bytes());
        h.extend(self.refcount_table_offset.to_be_bytes());
        h.extend(
            u32::try_from(self.refcount_table_clusters)
                .ok()?
                .to_be_bytes(),
        );
        h.extend([0; 12]); // no snapshots
        h.extend((if self.zstd { INCOMPAT_COMPRESSION } else { 0 }).to_be_bytes());
        h.extend([0; 16]); // no compatible, no auto-clear features
        h.extend(4u32.to_be_bytes()); // refcounts of 2^4 bits
        h.extend(112u32.to_be_bytes()); // length of the header
        h.extend([u8::from(self.zstd), 0, 0, 0, 0, 0, 0, 0]);
        if let Some(encoder) = &self.encoder {
            h.extend(ENCODER_EXTENSION.to_be_bytes());
            h.extend(u32::try_from(encoder.len()).ok()?.to_be_bytes());
            h.extend(encoder.as_bytes());
            h.resize(h.len().next_multiple_of(8), 0);
        }
        h.resize(usize::try_from(CLUSTER).ok()?, 0); // and the end of the extensions: zeros
        Some(h)
    }
}

/// Entries of the L1 table of a disk.
pub(super) fn l1_entries(virtual_bytes: u64) -> u64 {
    virtual_bytes.div_ceil(L2_SPAN).max(1)
}

/// The largest disk: QEMU reads first-level tables of up to 32 MiB, 4 Mi entries.
pub(super) const MAX_DISK: u64 = (32 << 20) / 8 * L2_SPAN;

/// The size a qcow2 file states: whole sectors.
pub(super) fn virtual_bytes(disk_size: u64) -> u64 {
    disk_size.next_multiple_of(512)
}

/// Refcount blocks and the clusters of their table, for a file of `others` clusters besides them.
pub(super) fn refcount_clusters(others: u64) -> (u64, u64) {
    let (mut blocks, mut table) = (1, 1);
    loop {
        let total = others + blocks + table;
        let (b, t) = (
            total.div_ceil(REFCOUNTS),
            (total.div_ceil(REFCOUNTS) * 8).div_ceil(CLUSTER),
        );
        if (b, t) == (blocks, table) {
            return (blocks, table);
        }
        (blocks, table) = (b.max(blocks), t.max(table));
    }
}

/// Big-endian table of `entries`, padded to whole clusters.
pub(super) fn table(entries: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut out: Vec<u8> = entries.flat_map(u64::to_be_bytes).collect();
    let cluster = 1usize << CLUSTER_BITS;
    out.resize(out.len().next_multiple_of(cluster), 0);
    out
}
