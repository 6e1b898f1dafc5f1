//! Units that need no outside tool.

use std::collections::BTreeSet;

use amiforge_types::{MIB, Uuid};

use super::extent_tree::{self, Run};
use super::geometry::{self, Geometry};
use super::hash::HashSeed;
use super::{BLOCK_SIZE, Inodes, checksum::Crc};

#[test]
fn hash_of_known_names() {
    // Answers of `debugfs -R "dx_hash -h half_md4 -s <seed> <name>"`, e2fsprogs 1.47.0.
    let seed: Uuid = "deadbeef-0102-4304-8506-0708090a0b0c".parse().unwrap();
    let seed = HashSeed::new(&seed);
    for (name, major, minor) in KNOWN {
        let hash = seed.hash(name.as_bytes());
        assert_eq!((hash.major, hash.minor), (major, minor), "{name}");
    }
    let zero = HashSeed::new(&Uuid::from_bytes([0; 16]));
    assert_eq!(
        (
            zero.hash(b"lost+found").major,
            zero.hash(b"lost+found").minor
        ),
        ZERO_SEED
    );
}

#[test]
fn checksum_without_final_inversion() {
    // The check value of CRC-32C is that of the inverted register.
    assert_eq!(!Crc::START.with(b"123456789").value(), 0xE306_9283);
    assert_eq!(
        Crc::START.with(b"1234").with(b"56789"),
        Crc::START.with(b"123456789")
    );
}

#[test]
fn geometry_of_a_known_volume() {
    // 1300 MiB, as mke2fs 1.47.0 lays it out.
    let g = Geometry::new(332_800, 11, Inodes::DEFAULT).unwrap();
    assert_eq!(
        (g.group_count(), g.inodes_per_group, g.table_blocks),
        (11, 7568, 473)
    );
    assert_eq!(
        (g.descriptor_blocks, g.reserved_descriptor_blocks),
        (1, 162)
    );
    assert_eq!(g.backups().collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
    assert_eq!(geometry::journal_blocks(g.blocks), 8192);
}

#[test]
fn fixed_parts_never_overlap() {
    for blocks in (4096..3_000_000).step_by(9973) {
        for ratio in [1024, 16_384, 1 << 20] {
            let Ok(g) = Geometry::new(blocks, 11, Inodes::PerBytes(ratio)) else {
                continue;
            };
            let total: u64 = g.fixed.iter().map(|r| r.end - r.start).sum();
            let copies = 1 + g.backups().count() as u64;
            let each = 2 + g.table_blocks;
            assert_eq!(
                total,
                copies * g.super_blocks() + g.group_count() * each,
                "{blocks} {ratio}"
            );
            assert!(
                g.fixed.windows(2).all(|w| w[0].end < w[1].start),
                "{blocks} {ratio}"
            );
            assert!(
                g.fixed.last().unwrap().end <= g.blocks && g.blocks <= blocks,
                "{blocks} {ratio}"
            );
        }
    }
}

#[test]
fn every_run_is_in_the_tree_once() {
    for count in [0_u64, 1, 4, 5, 340, 341, 1360, 1361, 115_600, 500_000] {
        let runs: Vec<_> = (0..count)
            .map(|i| Run {
                logical: 2 * i,
                physical: 10 + 2 * i,
                len: 1,
            })
            .collect();
        let nodes = extent_tree::node_count(runs.len());
        let mut blocks = BTreeSet::new();
        let mut leaves = 0;
        let root = extent_tree::build(&runs, 1_000_000.., Crc::START, |number, block| {
            assert!(blocks.insert(number), "block {number} twice");
            if block[6] == 0 {
                leaves += u64::from(u16::from_le_bytes([block[2], block[3]]));
            }
        });
        assert_eq!(blocks.len(), nodes, "{count}");
        let in_root = u64::from(root[2]);
        assert_eq!(if root[6] == 0 { in_root } else { leaves }, count);
        assert!(in_root <= 4);
    }
}

#[test]
fn smallest_volume_is_a_group_with_room() {
    let g = Geometry::new(16 * MIB / BLOCK_SIZE, 11, Inodes::DEFAULT).unwrap();
    assert_eq!((g.group_count(), g.inodes()), (1, 1024));
    assert!(g.fixed[0].end < 100);
}

/// Names with the hash and minor hash that debugfs prints.
const KNOWN: [(&str, u32, u32); 5] = [
    ("a", 0x65d6_0184, 0x50d2_f463),
    ("lost+found", 0xcbe5_2904, 0x8b76_5c11),
    (
        "some-name-of-more-than-thirty-two-bytes",
        0xe20f_3a4c,
        0x6a0a_bd83,
    ),
    ("exactly-thirty-two-bytes-of-name", 0x10f5_826c, 0x7948_d4eb),
    ("caf\u{e9}", 0x12e4_a65a, 0xedb5_ae98),
];
/// The same for `lost+found` without a seed.
const ZERO_SEED: (u32, u32) = (0x591d_e422, 0x6ffc_56e0);
