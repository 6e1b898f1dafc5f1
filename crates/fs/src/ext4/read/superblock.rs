//! The superblock, read. Its bytes are drawn in [`superblock`](crate::ext4::superblock); features
//! by `filesystems/ext4/super.rst` of the kernel documentation.

use amiforge_types::{Timestamp, Uuid};

use super::bytes::{le16, le32, sixteen, wide};
use super::error::{Fault, Place};
use crate::ext4::checksum::Crc;

const MAGIC: u16 = 0xEF53;
const LARGEST_LOG_BLOCK_SIZE: u32 = 6;
const CRC32C: u8 = 1;
/// Bytes that the checksum covers.
const COVERED: usize = 0x3FC;
/// Inodes 1 to 10 where the superblock does not say.
const FIRST_INODE: u32 = 11;

/// Features of the first word that matter here.
pub(super) mod compat {
    pub(in crate::ext4::read) const SPARSE_SUPER2: u32 = 0x200;
}

/// Features that a reader has to know.
pub(super) mod incompat {
    pub(in crate::ext4::read) const FILETYPE: u32 = 0x2;
    pub(in crate::ext4::read) const RECOVER: u32 = 0x4;
    pub(in crate::ext4::read) const META_BG: u32 = 0x10;
    pub(in crate::ext4::read) const EXTENTS: u32 = 0x40;
    pub(in crate::ext4::read) const BITS64: u32 = 0x80;
    pub(in crate::ext4::read) const MMP: u32 = 0x100;
    pub(in crate::ext4::read) const FLEX_BG: u32 = 0x200;
    pub(in crate::ext4::read) const EA_INODE: u32 = 0x400;
    pub(in crate::ext4::read) const CSUM_SEED: u32 = 0x2000;
    pub(in crate::ext4::read) const LARGEDIR: u32 = 0x4000;
    pub(in crate::ext4::read) const INLINE_DATA: u32 = 0x8000;
    pub(in crate::ext4::read) const ENCRYPT: u32 = 0x1_0000;
    pub(in crate::ext4::read) const CASEFOLD: u32 = 0x2_0000;
    /// All that are read, or refused file by file.
    pub(in crate::ext4::read) const KNOWN: u32 = FILETYPE
        | RECOVER
        | META_BG
        | EXTENTS
        | BITS64
        | MMP
        | FLEX_BG
        | EA_INODE
        | CSUM_SEED
        | LARGEDIR
        | INLINE_DATA
        | ENCRYPT
        | CASEFOLD;
    /// Names of the others.
    pub(in crate::ext4::read) const OTHERS: [(u32, &str); 4] = [
        (0x1, "compression"),
        (0x8, "journal_dev"),
        (0x1000, "dirdata"),
        (0x40_0000, "uninit_ordered"),
    ];
}

/// Features that a reader may ignore, but for these.
pub(super) mod ro_compat {
    pub(in crate::ext4::read) const SPARSE_SUPER: u32 = 0x1;
    pub(in crate::ext4::read) const HUGE_FILE: u32 = 0x8;
    pub(in crate::ext4::read) const GDT_CSUM: u32 = 0x10;
    pub(in crate::ext4::read) const BIGALLOC: u32 = 0x200;
    pub(in crate::ext4::read) const METADATA_CSUM: u32 = 0x400;
    pub(in crate::ext4::read) const SHARED_BLOCKS: u32 = 0x4000;
}

/// A checked superblock.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) blocks: u64,
    /// Block of the primary copy; 1 with blocks of 1024 bytes.
    pub(super) first_block: u64,
    pub(super) block_size: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes_per_group: u32,
    /// Blocks in a cluster, the unit of the free counts.
    pub(super) cluster: u64,
    pub(super) inode_size: usize,
    pub(super) first_inode: u32,
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(super) uuid: Uuid,
    pub(super) label: [u8; 16],
    pub(super) journal_inode: u32,
    pub(super) hash_seed: Uuid,
    /// Whether names are hashed as unsigned characters, where the superblock says.
    pub(super) unsigned_hash: Option<bool>,
    pub(super) descriptor_size: usize,
    pub(super) first_meta_group: u64,
    pub(super) backup_groups: [u32; 2],
    pub(super) created: Timestamp,
    /// Register that all checksums but the superblock's start with.
    pub(super) crc: Crc,
}

fn damaged(problem: &'static str) -> Fault {
    Fault::damaged(Place::Superblock, problem)
}

impl Superblock {
    /// Reads and checks the 1024 bytes; `len` is how many bytes there are for the file system.
    pub(super) fn parse(raw: &[u8], len: u64) -> Result<Self, Fault> {
        if le16(raw, 0x38) != MAGIC {
            return Err(damaged("has no magic number"));
        }
        let old = le32(raw, 0x4C) == 0;
        let word = |at| if old { 0 } else { le32(raw, at) };
        let (compat, incompat, ro_compat) = (word(0x5C), word(0x60), word(0x64));
        let uuid = Uuid::from_bytes(sixteen(raw, 0x68));
        if ro_compat & ro_compat::METADATA_CSUM != 0 {
            if raw.get(0x175) != Some(&CRC32C) {
                return Err(Fault::Unsupported("an unknown checksum type".to_owned()));
            }
            let computed = Crc::START.with(raw.get(..COVERED).unwrap_or(raw)).value();
            Fault::unless_equal(Place::Superblock, le32(raw, COVERED), computed)?;
        }
        known_features(incompat)?;
        let log = le32(raw, 0x18);
        if log > LARGEST_LOG_BLOCK_SIZE {
            return Err(damaged("has a block size that is too large"));
        }
        let block_size = 1024_u64 << log;
        let bits64 = incompat & incompat::BITS64 != 0;
        let high = if bits64 { le32(raw, 0x150) } else { 0 };
        let bigalloc = ro_compat & ro_compat::BIGALLOC != 0;
        let cluster = match (bigalloc, le32(raw, 0x1C).checked_sub(log)) {
            (false, _) => 1,
            (true, Some(ratio @ 0..=20)) => 1_u64 << ratio,
            (true, _) => return Err(damaged("has an impossible cluster size")),
        };
        let crc = if incompat & incompat::CSUM_SEED != 0 {
            Crc::seeded(le32(raw, 0x270))
        } else {
            Crc::of_file_system(&uuid)
        };
        let mut label = [0; 16];
        label.copy_from_slice(&sixteen(raw, 0x78));
        let created = wide(
            raw.get(0x276).copied().unwrap_or(0).into(),
            le32(raw, 0x108),
        );
        let out = Self {
            inodes: le32(raw, 0),
            blocks: wide(high, le32(raw, 0x4)),
            first_block: le32(raw, 0x14).into(),
            block_size,
            blocks_per_group: le32(raw, 0x20).into(),
            inodes_per_group: le32(raw, 0x28),
            cluster,
            inode_size: if old { 128 } else { le16(raw, 0x58).into() },
            first_inode: if old { FIRST_INODE } else { le32(raw, 0x54) },
            compat,
            incompat,
            ro_compat,
            uuid,
            label,
            journal_inode: word(0xE0),
            hash_seed: Uuid::from_bytes(sixteen(raw, 0xEC)),
            unsigned_hash: match word(0x160) & 3 {
                1 => Some(false),
                2 => Some(true),
                _ => None,
            },
            descriptor_size: if bits64 { le16(raw, 0xFE).into() } else { 32 },
            first_meta_group: word(0x104).into(),
            backup_groups: [le32(raw, 0x24C), le32(raw, 0x250)],
            created: Timestamp::from_secs(i64::try_from(created).unwrap_or(0)),
            crc,
        };
        out.check(len)?;
        Ok(out)
    }

    fn check(&self, len: u64) -> Result<(), Fault> {
        let most = 8 * self.block_size;
        let clusters = self.blocks_per_group / self.cluster;
        if self.blocks_per_group == 0
            || !self.blocks_per_group.is_multiple_of(self.cluster)
            || clusters > most
        {
            return Err(damaged("has an impossible group size"));
        }
        if self.inodes_per_group == 0 || u64::from(self.inodes_per_group) > most {
            return Err(damaged("has an impossible number of inodes in a group"));
        }
        let sane_inode = self.inode_size >= 128
            && self.inode_size.is_power_of_two()
            && self.inode_size as u64 <= self.block_size;
        if !sane_inode {
            return Err(damaged("has an impossible inode size"));
        }
        let sane_descriptor = match self.has_incompat(incompat::BITS64) {
            true => {
                self.descriptor_size.is_power_of_two()
                    && (64..=1024).contains(&self.descriptor_size)
            }
            false => true,
        };
        if !sane_descriptor {
            return Err(damaged("has an impossible descriptor size"));
        }
        if self.first_block > 1 || (self.first_block == 1 && self.block_size != 1024) {
            return Err(damaged("has an impossible first block"));
        }
        if self.blocks <= self.first_block
            || self
                .blocks
                .checked_mul(self.block_size)
                .is_none_or(|size| size > len)
        {
            return Err(damaged(
                "says that the file system is larger than its volume",
            ));
        }
        if self.groups() > u64::from(u32::MAX) {
            return Err(damaged("has too many groups"));
        }
        let room = self.groups() * u64::from(self.inodes_per_group);
        if u64::from(self.inodes) > room || self.inodes < FIRST_INODE {
            return Err(damaged("has an impossible number of inodes"));
        }
        Ok(())
    }

    pub(super) fn has_incompat(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    pub(super) fn has_ro_compat(&self, feature: u32) -> bool {
        self.ro_compat & feature != 0
    }

    /// True when structures carry CRC-32C checksums.
    pub(super) fn has_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    pub(super) fn groups(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(self.blocks_per_group)
    }

    /// True for a group that begins with a copy of the superblock.
    pub(super) fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return self.backup_groups.iter().any(|g| u64::from(*g) == group);
        }
        !self.has_ro_compat(ro_compat::SPARSE_SUPER) || crate::ext4::geometry::has_superblock(group)
    }
}

fn known_features(incompat: u32) -> Result<(), Fault> {
    let mut unknown = incompat & !incompat::KNOWN;
    if unknown == 0 {
        return Ok(());
    }
    let mut names = Vec::new();
    for (bit, name) in incompat::OTHERS {
        if unknown & bit != 0 {
            names.push(name.to_owned());
            unknown &= !bit;
        }
    }
    if unknown != 0 {
        names.push(format!("{unknown:#x}"));
    }
    Err(Fault::Unsupported(format!("feature {}", names.join(", "))))
}
