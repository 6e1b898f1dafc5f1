//! The journal (jbd2), replayed: which blocks of the file system have their newest version in it.
//! All numbers are big-endian. Kernel documentation, `filesystems/ext4/journal.rst`.
//!
//! ```text
//! block 0:     superblock {header, block size, length, first, sequence, start, ..., features, uuid, ..., checksum}
//! log:         (descriptor | data ... | revoke) ... commit, again and again, in a ring
//! header:      magic, type (1 descriptor, 2 commit, 3 and 4 superblock, 5 revoke), sequence
//! descriptor:  header | tags {block, checksum, flags, block high} ... | checksum
//! revoke:      header | bytes in use | block numbers ... | checksum
//! ```
//!
//! Nothing is copied: the result says where in the log the data of a block is. The log is read once,
//! and what is kept of it is a few words for each of its blocks. A transaction counts once its commit
//! block is there. A checksum that does not match inside the log means that something was lost, and
//! the file system is refused, as Linux refuses to mount it.

use std::collections::HashMap;

use super::bytes::{be16, be32, le16, le32, sixteen, wide};
use super::error::{Fault, Place};
use super::fs::Fs;
use super::inode::Inode;
use super::map::{Budget, Run};
use super::volume::Logged;
use crate::ext4::checksum::Crc;

pub(super) const MAGIC: u32 = 0xC03B_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;
const HEADER: usize = 12;
/// Bytes of the checksum at the end of descriptor and revoke blocks.
const TAIL: usize = 4;

/// The one compatible feature: commit blocks carry a CRC-32 of the transaction.
const CHECKSUM: u32 = 0x1;
const BITS64: u32 = 0x2;
const ASYNC_COMMIT: u32 = 0x4;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Revoke records are the feature that is not tested anywhere.
const KNOWN: u32 = 0x1 | BITS64 | ASYNC_COMMIT | CSUM_V2 | CSUM_V3 | FAST_COMMIT;

/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

/// Blocks for fast commits where the superblock does not say, and the smallest log beside them.
const FAST_COMMIT_BLOCKS: u64 = 256;
const SMALLEST_LOG: u64 = 1024;
/// Tag of the first record of a fast commit.
const FAST_COMMIT_HEAD: u16 = 9;

/// Most blocks of a journal; mke2fs makes 262,144 at most.
const MAX_BLOCKS: u64 = 1 << 22;

struct Log<'f> {
    fs: &'f Fs,
    runs: Vec<Run>,
    /// The ring.
    first: u64,
    last: u64,
    compat: u32,
    incompat: u32,
    crc: Crc,
}

/// A block of the file system that a transaction writes.
struct Tag {
    target: u64,
    /// Block of the journal with the data.
    at: u64,
    flags: u32,
    checksum: u32,
}

/// Which blocks the journal has newer versions of, and where.
pub(super) fn replay(fs: &Fs) -> Result<HashMap<u64, Logged>, Fault> {
    if fs.sb.journal_inode == 0 {
        return Err(Fault::Unsupported(
            "a journal on another device that has to be replayed".to_owned(),
        ));
    }
    let inode = fs.inode(fs.sb.journal_inode)?;
    let (log, start, sequence) = Log::open(fs, &inode)?;
    // Shut down in order, with nothing to do.
    if start == 0 {
        return Ok(HashMap::new());
    }
    let (overlay, end) = log.read(start, sequence)?;
    if log.incompat & FAST_COMMIT != 0 {
        log.refuse_fast_commits(end)?;
    }
    Ok(overlay)
}

impl<'f> Log<'f> {
    /// Opens the journal. Also gives the block and the sequence number of the first transaction.
    fn open(fs: &'f Fs, inode: &Inode) -> Result<(Self, u64, u32), Fault> {
        let place = Place::Journal { block: 0 };
        let damaged = |problem| Fault::damaged(place, problem);
        let blocks = inode.size / fs.sb.block_size;
        if blocks > MAX_BLOCKS {
            return Err(Fault::Limit {
                what: "blocks of journal",
                limit: MAX_BLOCKS,
            });
        }
        let mut log = Self {
            fs,
            runs: fs.runs(inode, 0..blocks, &mut Budget::of(&fs.volume))?,
            first: 0,
            last: blocks,
            compat: 0,
            incompat: 0,
            crc: Crc::START,
        };
        let raw = log.block(0)?;
        let version = be32(&raw, 4);
        if be32(&raw, 0) != MAGIC || !(SUPERBLOCK_V1..=SUPERBLOCK_V2).contains(&version) {
            return Err(damaged("is not the superblock of a journal"));
        }
        if u64::from(be32(&raw, 0x0C)) != fs.sb.block_size {
            return Err(damaged("has another block size than the file system"));
        }
        if version == SUPERBLOCK_V2 {
            log.compat = be32(&raw, 0x24);
            log.incompat = be32(&raw, 0x28);
        }
        if log.incompat & !KNOWN != 0 {
            let unknown = log.incompat & !KNOWN;
            return Err(Fault::Unsupported(format!("journal feature {unknown:#x}")));
        }
        if log.incompat & CSUM_V2 != 0 && log.incompat & CSUM_V3 != 0 {
            return Err(damaged("has two kinds of checksums"));
        }
        if log.has_crc() {
            let crc = Crc::START.with(&raw[..0xFC]).with(&[0; 4]);
            let crc = crc.with(&raw[0x100..0x400]);
            Fault::unless_equal(place, be32(&raw, 0xFC), crc.value())?;
            log.crc = Crc::START.with(&sixteen(&raw, 0x30));
        }
        let len = u64::from(be32(&raw, 0x10));
        if len > blocks {
            return Err(damaged("says that the journal is longer than its file"));
        }
        log.first = be32(&raw, 0x14).into();
        log.last = len;
        if log.incompat & FAST_COMMIT != 0 {
            let fast = match u64::from(be32(&raw, 0x54)) {
                0 => FAST_COMMIT_BLOCKS,
                n => n,
            };
            log.last = match len.checked_sub(fast) {
                Some(last) if last >= SMALLEST_LOG => last,
                _ => len,
            };
        }
        let start = u64::from(be32(&raw, 0x1C));
        let sane = log.first > 0 && log.first < log.last && start < log.last;
        if !sane || (start != 0 && start < log.first) {
            return Err(damaged("has a log outside of the journal"));
        }
        Ok((log, start, be32(&raw, 0x18)))
    }

    /// The block of the file system that is a block of the journal.
    fn physical(&self, at: u64) -> Result<u64, Fault> {
        let next = self.runs.partition_point(|run| run.logical <= at);
        match next.checked_sub(1).and_then(|n| self.runs.get(n)) {
            Some(run) if at - run.logical < run.len => Ok(run.physical + (at - run.logical)),
            _ => Err(Fault::damaged(
                Place::Journal { block: at },
                "is a hole in the journal",
            )),
        }
    }

    fn block(&self, at: u64) -> Result<Vec<u8>, Fault> {
        let place = Place::Journal { block: at };
        self.fs.volume.block_on_disk(self.physical(at)?, place)
    }

    fn has_crc(&self) -> bool {
        self.incompat & (CSUM_V2 | CSUM_V3) != 0
    }

    /// The block after `at` in the ring.
    fn after(&self, at: u64) -> u64 {
        if at + 1 >= self.last {
            self.first
        } else {
            at + 1
        }
    }

    /// Reads the log; also gives the sequence number of the transaction that is not there.
    fn read(&self, start: u64, sequence: u32) -> Result<(HashMap<u64, Logged>, u32), Fault> {
        let mut overlay = HashMap::new();
        let (mut at, mut sequence) = (start, sequence);
        // Of the transaction that is being read.
        let mut tags: Vec<Tag> = Vec::new();
        let mut revokes: Vec<u64> = Vec::new();
        let mut old_crc = u32::MAX;
        let mut left = self.last - self.first;
        while let Some(rest) = left.checked_sub(1) {
            left = rest;
            let block = self.block(at)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            match be32(&block, 4) {
                DESCRIPTOR => {
                    self.check_tail(&block, at)?;
                    let old = self.compat & CHECKSUM != 0 && !self.has_crc();
                    if old {
                        old_crc = crc32(old_crc, &block);
                    }
                    for mut tag in self.tags(&block, at)? {
                        let Some(rest) = left.checked_sub(1) else {
                            return Err(Fault::damaged(
                                Place::Journal { block: at },
                                "describes more data than the journal has",
                            ));
                        };
                        left = rest;
                        at = self.after(at);
                        tag.at = at;
                        if old {
                            old_crc = crc32(old_crc, &self.block(at)?);
                        }
                        tags.push(tag);
                    }
                }
                REVOKE => {
                    self.check_tail(&block, at)?;
                    revokes.push(at);
                }
                COMMIT => {
                    if let Err(fault) = self.check_commit(&block, at, old_crc) {
                        // Written before its data was sure to be there, it only counts if it fits.
                        if self.incompat & ASYNC_COMMIT != 0 {
                            break;
                        }
                        return Err(fault);
                    }
                    self.commit(&mut overlay, &tags, &revokes, sequence)?;
                    tags.clear();
                    revokes.clear();
                    old_crc = u32::MAX;
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            at = self.after(at);
        }
        Ok((overlay, sequence))
    }

    /// Takes a whole transaction into account.
    fn commit(
        &self,
        overlay: &mut HashMap<u64, Logged>,
        tags: &[Tag],
        revokes: &[u64],
        sequence: u32,
    ) -> Result<(), Fault> {
        for tag in tags {
            let place = Place::Journal { block: tag.at };
            if tag.target >= self.fs.volume.blocks {
                return Err(Fault::damaged(
                    place,
                    "belongs to a block outside of the file system",
                ));
            }
            if self.has_crc() {
                let data = self.block(tag.at)?;
                let crc = self.crc.with(&sequence.to_be_bytes()).with(&data);
                let computed = match self.incompat & CSUM_V3 {
                    0 => crc.low().into(),
                    _ => crc.value(),
                };
                Fault::unless_equal(place, tag.checksum, computed)?;
            }
            let logged = Logged {
                block: self.physical(tag.at)?,
                escaped: tag.flags & ESCAPED != 0,
            };
            overlay.insert(tag.target, logged);
        }
        // A block that is revoked has been freed, and may hold data since: what the log has of it up
        // to here is void.
        for at in revokes {
            let block = self.block(*at)?;
            for target in self.revoked(&block, *at)? {
                overlay.remove(&target);
            }
        }
        Ok(())
    }

    /// Bytes of a descriptor or revoke block before its checksum.
    fn used<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let tail = if self.has_crc() { TAIL } else { 0 };
        &block[..block.len() - tail]
    }

    fn check_tail(&self, block: &[u8], at: u64) -> Result<(), Fault> {
        if !self.has_crc() {
            return Ok(());
        }
        let used = self.used(block);
        let crc = self.crc.with(used).with(&[0; TAIL]);
        let place = Place::Journal { block: at };
        Fault::unless_equal(place, be32(block, used.len()), crc.value())
    }

    fn check_commit(&self, block: &[u8], at: u64, old_crc: u32) -> Result<(), Fault> {
        let place = Place::Journal { block: at };
        let stored = be32(block, 0x10);
        if self.has_crc() {
            let crc = self.crc.with(&block[..0x10]).with(&[0; 4]);
            return Fault::unless_equal(place, stored, crc.with(&block[0x14..]).value());
        }
        // Type and size of the checksum; all zero where there is none.
        let kind = be16(block, 0x0C);
        if self.compat & CHECKSUM == 0 || (kind == 0 && stored == 0) {
            return Ok(());
        }
        if kind != 0x0104 {
            return Err(Fault::damaged(place, "has an unknown kind of checksum"));
        }
        Fault::unless_equal(place, stored, old_crc)
    }

    /// Bytes of a tag. Those with 16-bit checksums have two that nothing uses.
    fn tag_len(&self) -> usize {
        if self.incompat & CSUM_V3 != 0 {
            return 16;
        }
        let unused = if self.incompat & CSUM_V2 != 0 { 2 } else { 0 };
        let high = if self.incompat & BITS64 != 0 { 4 } else { 0 };
        8 + unused + high
    }

    fn tags(&self, block: &[u8], number: u64) -> Result<Vec<Tag>, Fault> {
        let used = self.used(block);
        let len = self.tag_len();
        let mut out = Vec::new();
        let mut at = HEADER;
        while let Some(raw) = used.get(at..at + len) {
            let v3 = self.incompat & CSUM_V3 != 0;
            let flags = if v3 {
                be32(raw, 4)
            } else {
                be16(raw, 6).into()
            };
            let high = if self.incompat & BITS64 != 0 {
                be32(raw, 8)
            } else {
                0
            };
            out.push(Tag {
                target: wide(high, be32(raw, 0)),
                at: 0,
                flags,
                checksum: if v3 {
                    be32(raw, 12)
                } else {
                    be16(raw, 4).into()
                },
            });
            at += len + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                return Ok(out);
            }
        }
        if out.is_empty() {
            return Err(Fault::damaged(
                Place::Journal { block: number },
                "describes nothing",
            ));
        }
        Ok(out)
    }

    fn revoked(&self, block: &[u8], at: u64) -> Result<Vec<u64>, Fault> {
        let used = usize::try_from(be32(block, HEADER)).unwrap_or(usize::MAX);
        let records = self
            .used(block)
            .get(HEADER + 4..used)
            .ok_or_else(|| Fault::damaged(Place::Journal { block: at }, "has too many records"))?;
        let wide_records = self.incompat & BITS64 != 0;
        Ok(records
            .chunks_exact(if wide_records { 8 } else { 4 })
            .map(|raw| match wide_records {
                true => wide(be32(raw, 0), be32(raw, 4)),
                false => be32(raw, 0).into(),
            })
            .collect())
    }

    /// Fast commits that follow the last whole transaction hold changes that are not replayed here.
    fn refuse_fast_commits(&self, sequence: u32) -> Result<(), Fault> {
        // Linux begins one block after the log.
        for at in [self.last, self.last + 1] {
            let Ok(block) = self.block(at) else {
                continue;
            };
            if le16(&block, 0) == FAST_COMMIT_HEAD && le32(&block, 8) == sequence {
                return Err(Fault::Unsupported(
                    "fast commits that have to be replayed (feature fast_commit)".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// CRC-32, most significant bit first, as the first journal checksums have it.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04C1_1DB7;
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            (crc << 1) ^ (POLYNOMIAL * (crc >> 31))
        })
    })
}
