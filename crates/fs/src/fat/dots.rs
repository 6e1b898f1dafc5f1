//! Repairs what `fatfs` 0.3.6 writes into new directories.
//!
//! It gives `.` and `..` long names, so that they stand in the second and fourth slot of a
//! directory instead of the first and second, and on FAT32 it has `..` of a first-level directory
//! name the root's cluster instead of 0. Firmware bears both, `fsck.vfat` does not.
//!
//! ```text
//! before:  LFN "."  | "."  | LFN ".." | ".."    | names...
//! after:   "."      | ".." | deleted  | deleted | names...
//! ```

use std::io;

use super::medium::Medium;

const SLOT: usize = 32;
const ATTRIBUTES: usize = 11;
const LONG_NAME: u8 = 0x0F;
const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const DELETED: u8 = 0xE5;
/// Fewest clusters of FAT16 and FAT32.
const FAT16_FROM: u64 = 4085;
const FAT32_FROM: u64 = 65_525;

/// Sizes and places of a volume, from its boot sector. All in bytes but the clusters.
struct Volume {
    fat: u64,
    root: u64,
    root_len: u64,
    data: u64,
    cluster_len: u64,
    clusters: u64,
    root_cluster: u64,
}

/// Puts `.` and `..` of every directory in the first two slots.
pub(super) fn repair(medium: &mut Medium) -> io::Result<()> {
    let volume = Volume::read(medium)?;
    let root = if volume.clusters >= FAT32_FROM {
        volume.chain(medium, volume.root_cluster)?
    } else {
        let len = usize::try_from(volume.root_len).map_err(|_| io::ErrorKind::InvalidData)?;
        medium.get(volume.root, len)?
    };
    let below = |slots: &[u8], top| {
        directories(slots)
            .into_iter()
            .map(move |cluster| (cluster, top))
            .collect::<Vec<_>>()
    };
    let mut stack = below(&root, true);
    while let Some((cluster, top)) = stack.pop() {
        let slots = volume.chain(medium, cluster)?;
        stack.extend(below(&slots, false));
        let first = |slot: usize| slots.get(slot * SLOT).copied().unwrap_or(0);
        let is =
            |slot: usize, name: &[u8; 11]| slots.get(slot * SLOT..slot * SLOT + 11) == Some(name);
        if !is(1, b".          ") || !is(3, b"..         ") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut fixed = [0; 4 * SLOT];
        fixed[..SLOT].copy_from_slice(&slots[SLOT..2 * SLOT]);
        fixed[SLOT..2 * SLOT].copy_from_slice(&slots[3 * SLOT..4 * SLOT]);
        if top {
            // The root is cluster 0 here, also where it has a number.
            fixed[SLOT + 20..SLOT + 22].fill(0);
            fixed[SLOT + 26..SLOT + 28].fill(0);
        }
        if first(4) != 0 {
            fixed[2 * SLOT] = DELETED;
            fixed[3 * SLOT] = DELETED;
        }
        medium.put(volume.offset(cluster), &fixed)?;
    }
    Ok(())
}

/// First clusters of the directories named in a directory.
fn directories(slots: &[u8]) -> Vec<u64> {
    slots
        .chunks_exact(SLOT)
        .take_while(|slot| slot[0] != 0)
        .filter(|slot| slot[0] != DELETED && slot[0] != b'.')
        .filter(|slot| {
            let attributes = slot[ATTRIBUTES];
            attributes & LONG_NAME != LONG_NAME
                && attributes & VOLUME_ID == 0
                && attributes & DIRECTORY != 0
        })
        .map(|slot| u64::from(u32::from_le_bytes([slot[26], slot[27], slot[20], slot[21]])))
        .collect()
}

impl Volume {
    fn read(medium: &mut Medium) -> io::Result<Self> {
        let boot = medium.get(0, 512)?;
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let (sector, per_cluster, reserved, fats) =
            (word(11), u64::from(boot[13]), word(14), u64::from(boot[16]));
        let fat_sectors = if word(22) != 0 { word(22) } else { long(36) };
        let sectors = if word(19) != 0 { word(19) } else { long(32) };
        let root_len = word(17) * 32;
        let root = (reserved + fats * fat_sectors) * sector;
        let data = root + root_len.next_multiple_of(sector);
        let cluster_len = per_cluster * sector;
        let clusters = (sectors * sector)
            .saturating_sub(data)
            .checked_div(cluster_len);
        Ok(Self {
            fat: reserved * sector,
            root,
            root_len,
            data,
            cluster_len,
            clusters: clusters.ok_or(io::ErrorKind::InvalidData)?,
            root_cluster: long(44),
        })
    }

    fn offset(&self, cluster: u64) -> u64 {
        self.data + cluster.saturating_sub(2) * self.cluster_len
    }

    /// All bytes of a chain of clusters.
    fn chain(&self, medium: &mut Medium, mut cluster: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.cluster_len).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut out = Vec::new();
        for _ in 0..self.clusters {
            if !(2..self.clusters + 2).contains(&cluster) {
                break;
            }
            out.extend(medium.get(self.offset(cluster), len)?);
            cluster = self.next(medium, cluster)?;
        }
        Ok(out)
    }

    /// What follows a cluster; a number out of range ends the chain.
    fn next(&self, medium: &mut Medium, cluster: u64) -> io::Result<u64> {
        if self.clusters >= FAT32_FROM {
            let raw = medium.get(self.fat + 4 * cluster, 4)?;
            return Ok(u64::from(
                u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]) & 0x0FFF_FFFF,
            ));
        }
        let wide = self.clusters >= FAT16_FROM;
        let raw = medium.get(
            self.fat
                + if wide {
                    2 * cluster
                } else {
                    cluster + cluster / 2
                },
            2,
        )?;
        let value = u64::from(u16::from_le_bytes([raw[0], raw[1]]));
        Ok(match (wide, cluster % 2) {
            (true, _) => value,
            (false, 0) => value & 0xFFF,
            (false, _) => value >> 4,
        })
    }
}
