//! The superblock. Kernel documentation, `filesystems/ext4/super.rst`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use super::checksum::Crc;
use super::extent_tree::{low_u16, low_u32};
use super::geometry::{
    BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, FIRST_INODE, Geometry, INODE_SIZE, LOG_GROUPS_PER_FLEX,
};
use super::{Options, Profile};

/// Offset of the superblock in block 0; copies are at the start of their block.
pub(super) const OFFSET: usize = 1024;
/// Number of the journal's inode.
pub(super) const JOURNAL_INODE: u32 = 8;

/// has_journal, ext_attr, resize_inode, dir_index.
const COMPAT: u32 = 0x3C;
/// filetype, extents, 64bit, flex_bg.
const INCOMPAT: u32 = 0x2C2;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize.
const RO_COMPAT: u32 = 0x6B;
const METADATA_CSUM: u32 = 0x400;
const MAGIC: u16 = 0xEF53;
const CLEAN: u16 = 1;
const CONTINUE_ON_ERRORS: u16 = 1;
const NEVER: u16 = u16::MAX;
const LOG_BLOCK_SIZE: u32 = 2;
const DYNAMIC_REVISION: u32 = 1;
const HALF_MD4: u8 = 1;
const SIGNED_HASH: u32 = 1;
const INODE_BACKUP: u8 = 1;
const USER_XATTR_AND_ACL: u32 = 0x0C;
const EXTRA_ISIZE: u16 = 32;
const CRC32C: u8 = 1;

/// The superblock as it lies on the disk.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawSuperblock {
    s_inodes_count: U32,
    s_blocks_count_lo: U32,
    s_r_blocks_count_lo: U32,
    s_free_blocks_count_lo: U32,
    s_free_inodes_count: U32,
    s_first_data_block: U32,
    s_log_block_size: U32,
    s_log_cluster_size: U32,
    s_blocks_per_group: U32,
    s_clusters_per_group: U32,
    s_inodes_per_group: U32,
    s_mtime: U32,
    s_wtime: U32,
    s_mnt_count: U16,
    s_max_mnt_count: U16,
    s_magic: U16,
    s_state: U16,
    s_errors: U16,
    s_minor_rev_level: U16,
    s_lastcheck: U32,
    s_checkinterval: U32,
    s_creator_os: U32,
    s_rev_level: U32,
    s_def_resuid: U16,
    s_def_resgid: U16,
    s_first_ino: U32,
    s_inode_size: U16,
    s_block_group_nr: U16,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_volume_name: [u8; 16],
    s_last_mounted: [u8; 64],
    s_algorithm_usage_bitmap: U32,
    s_prealloc_blocks: u8,
    s_prealloc_dir_blocks: u8,
    s_reserved_gdt_blocks: U16,
    s_journal_uuid: [u8; 16],
    s_journal_inum: U32,
    s_journal_dev: U32,
    s_last_orphan: U32,
    s_hash_seed: [u8; 16],
    s_def_hash_version: u8,
    s_jnl_backup_type: u8,
    s_desc_size: U16,
    s_default_mount_opts: U32,
    s_first_meta_bg: U32,
    s_mkfs_time: U32,
    s_jnl_blocks: [u8; 60],
    s_jnl_size_high: U32,
    s_jnl_size_low: U32,
    s_blocks_count_hi: U32,
    s_r_blocks_count_hi: U32,
    s_free_blocks_count_hi: U32,
    s_min_extra_isize: U16,
    s_want_extra_isize: U16,
    s_flags: U32,
    s_raid_stride: U16,
    s_mmp_interval: U16,
    s_mmp_block: U64,
    s_raid_stripe_width: U32,
    s_log_groups_per_flex: u8,
    s_checksum_type: u8,
    s_reserved_pad: U16,
    s_kbytes_written: U64,
    snapshots_and_errors: [u8; 0xC8],
    s_overhead_blocks: U32,
    s_backup_bgs: [U32; 2],
    s_encrypt_algos: [u8; 4],
    s_encrypt_pw_salt: [u8; 16],
    s_lpf_ino: U32,
    s_prj_quota_inum: U32,
    s_checksum_seed: U32,
    s_wtime_hi: u8,
    s_mtime_hi: u8,
    s_mkfs_time_hi: u8,
    s_lastcheck_hi: u8,
    s_reserved: [u8; 0x184],
    s_checksum: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == 1024);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_hash_seed) == 0xEC);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_jnl_blocks) == 0x10C);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_kbytes_written) == 0x178);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_overhead_blocks) == 0x248);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_wtime_hi) == 0x274);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, s_checksum) == 0x3FC);

/// The numbers that only a finished layout knows.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u64,
    /// Blocks that can never hold data: fixed parts and journal.
    pub(super) overhead_blocks: u64,
    /// `i_block` and size of the journal's inode.
    pub(super) journal: ([u8; 60], u64),
}

/// The superblock of group 0, without its checksum.
pub(super) fn encode(options: &Options, geometry: &Geometry, totals: &Totals) -> RawSuperblock {
    let mut raw = RawSuperblock::new_zeroed();
    let reserved = geometry.blocks * u64::from(options.reserved_percent) / 100;
    raw.s_inodes_count.set(low_u32(geometry.inodes()));
    raw.s_blocks_count_lo.set(low_u32(geometry.blocks));
    raw.s_blocks_count_hi.set(low_u32(geometry.blocks >> 32));
    raw.s_r_blocks_count_lo.set(low_u32(reserved));
    raw.s_r_blocks_count_hi.set(low_u32(reserved >> 32));
    raw.s_free_blocks_count_lo.set(low_u32(totals.free_blocks));
    raw.s_free_blocks_count_hi
        .set(low_u32(totals.free_blocks >> 32));
    raw.s_free_inodes_count.set(low_u32(totals.free_inodes));
    raw.s_log_block_size.set(LOG_BLOCK_SIZE);
    raw.s_log_cluster_size.set(LOG_BLOCK_SIZE);
    raw.s_blocks_per_group.set(low_u32(BLOCKS_PER_GROUP));
    raw.s_clusters_per_group.set(low_u32(BLOCKS_PER_GROUP));
    raw.s_inodes_per_group
        .set(low_u32(geometry.inodes_per_group));
    raw.s_max_mnt_count.set(NEVER);
    raw.s_magic.set(MAGIC);
    raw.s_state.set(CLEAN);
    raw.s_errors.set(CONTINUE_ON_ERRORS);
    raw.s_rev_level.set(DYNAMIC_REVISION);
    raw.s_first_ino.set(FIRST_INODE);
    raw.s_inode_size.set(low_u16(INODE_SIZE));
    raw.s_feature_compat.set(COMPAT);
    raw.s_feature_incompat.set(INCOMPAT);
    match options.profile {
        Profile::Standard => {
            raw.s_feature_ro_compat.set(RO_COMPAT | METADATA_CSUM);
            raw.s_checksum_type = CRC32C;
        }
        Profile::Legacy => raw.s_feature_ro_compat.set(RO_COMPAT),
    }
    raw.s_uuid = *options.uuid.as_bytes();
    let label = options.label.as_bytes();
    let label_len = label.len().min(16);
    raw.s_volume_name[..label_len].copy_from_slice(&label[..label_len]);
    raw.s_reserved_gdt_blocks
        .set(low_u16(geometry.reserved_descriptor_blocks));
    raw.s_journal_inum.set(JOURNAL_INODE);
    raw.s_hash_seed = *options.hash_seed.as_bytes();
    raw.s_def_hash_version = HALF_MD4;
    raw.s_jnl_backup_type = INODE_BACKUP;
    raw.s_desc_size.set(low_u16(DESCRIPTOR_SIZE));
    raw.s_default_mount_opts.set(USER_XATTR_AND_ACL);
    raw.s_jnl_blocks = totals.journal.0;
    raw.s_jnl_size_high.set(low_u32(totals.journal.1 >> 32));
    raw.s_jnl_size_low.set(low_u32(totals.journal.1));
    raw.s_min_extra_isize.set(EXTRA_ISIZE);
    raw.s_want_extra_isize.set(EXTRA_ISIZE);
    raw.s_flags.set(SIGNED_HASH);
    raw.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX;
    raw.s_overhead_blocks.set(low_u32(totals.overhead_blocks));
    // Unsigned 40 bits; nothing before 1970.
    let clock = options.clock.secs.clamp(0, (1 << 40) - 1).cast_unsigned();
    let high = clock.to_le_bytes()[4];
    for field in [&mut raw.s_wtime, &mut raw.s_lastcheck, &mut raw.s_mkfs_time] {
        field.set(low_u32(clock));
    }
    (raw.s_wtime_hi, raw.s_lastcheck_hi, raw.s_mkfs_time_hi) = (high, high, high);
    raw
}

/// The bytes of the copy in `group`, with checksum where there are any.
pub(super) fn copy_for(raw: &RawSuperblock, group: u64) -> [u8; 1024] {
    let mut raw = raw.clone();
    raw.s_block_group_nr.set(low_u16(group));
    let mut out = [0; 1024];
    out.copy_from_slice(raw.as_bytes());
    let start = match raw.s_checksum_type {
        0 => Crc::OFF,
        _ => Crc::START,
    };
    let sum = start.with(&out[..0x3FC]).value();
    out[0x3FC..].copy_from_slice(&sum.to_le_bytes());
    out
}
