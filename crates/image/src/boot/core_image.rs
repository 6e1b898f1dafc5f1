//! `core.img` for `i386-pc`, as `grub-mkimage` makes it.
//!
//! ```text
//! diskboot.img (512)        block list at its end: how many sectors follow
//! lzma_decompress.img       sizes of what follows at 0x08 (compressed) and 0x0C (plain)
//! LZMA stream of:
//!   kernel.img              loaded sections, from address 0x9000 on
//!   module info (12)        "mimg", offset of the first module, bytes of all
//!   modules                 header {type, size}, ELF file, padded to 4
//!   prefix                  header {type 3, size}, NUL-terminated, padded to 4
//! ```
//!
//! The LZMA stream is raw: properties are fixed in the decompressor (lc 3, lp 0, pb 2) and it stops
//! after the plain size, so the end marker that liblzma appends is never looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use liblzma::stream::{Action, Filters, LzmaOptions, MatchFinder, Mode, Status, Stream};

use super::elf;
use crate::ImageError;

/// Where kernel.img is linked to.
const LINK_ADDRESS: u32 = 0x9000;
/// "mimg", little-endian.
const MODULE_MAGIC: u32 = 0x676D_696D;
const TYPE_ELF: u32 = 0;
const TYPE_PREFIX: u32 = 3;
/// Offsets in lzma_decompress.img.
const COMPRESSED_SIZE: usize = 0x08;
const PLAIN_SIZE: usize = 0x0C;
/// Number of sectors in the block list of diskboot.img, and the segment they are loaded to.
const SECTOR_COUNT: usize = 512 - 4;
const SEGMENT: usize = 512 - 2;
const FIRST_SEGMENT: u16 = 0x0820;
/// The decompressor must end below the kernel: 0x9000 less its own address 0x8200.
const MAX_DECOMPRESSOR: usize = 0xE00;
/// Everything loaded must end below the BIOS data at 0x78000 (GRUB's limit).
const MAX_CORE: usize = 0x7_8000 - 0x8200;

/// A core image and what is inside it.
pub(crate) struct CoreImage {
    /// The file.
    pub bytes: Vec<u8>,
    /// The part that is compressed in it, plain.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "compared with the real grub-mkimage in tests")
    )]
    pub plain: Vec<u8>,
}

/// Gives a file of GRUB's library directory by its name.
pub(crate) type ReadFile<'a> = dyn Fn(&str) -> Result<Arc<[u8]>, ImageError> + 'a;

/// Builds a core image from the files that `read` gives by name.
pub(crate) fn build(
    read: &ReadFile<'_>,
    prefix: &str,
    modules: &[&str],
) -> Result<CoreImage, ImageError> {
    let bad = |name: &str, what: &str| ImageError::BadLoader {
        path: name.to_owned(),
        what: what.to_owned(),
    };

    let mut plain =
        elf::flatten(&read("kernel.img")?, LINK_ADDRESS).map_err(|what| bad("kernel.img", what))?;
    let mut parts = Vec::new();
    for name in resolve(&String::from_utf8_lossy(&read("moddep.lst")?), modules) {
        put_part(&mut parts, TYPE_ELF, &read(&format!("{name}.mod"))?)
            .ok_or_else(|| bad(&name, "too large"))?;
    }
    let mut text = prefix.as_bytes().to_vec();
    text.push(0);
    put_part(&mut parts, TYPE_PREFIX, &text).ok_or_else(|| bad("prefix", "too large"))?;
    let info = [
        MODULE_MAGIC,
        12,
        u32::try_from(parts.len() + 12).unwrap_or(u32::MAX),
    ];
    plain.extend(info.iter().flat_map(|word| word.to_le_bytes()));
    plain.extend(parts);

    let packed = compress(&plain)
        .map_err(|error| bad("core.img", &format!("cannot be compressed: {error}")))?;
    let mut decompressor = read("lzma_decompress.img")?.to_vec();
    if !(PLAIN_SIZE + 4..=MAX_DECOMPRESSOR).contains(&decompressor.len()) {
        return Err(bad("lzma_decompress.img", "its size is impossible"));
    }
    let size = |len: usize| {
        u32::try_from(len)
            .map(u32::to_le_bytes)
            .map_err(|_| bad("core.img", "too large"))
    };
    decompressor[COMPRESSED_SIZE..COMPRESSED_SIZE + 4].copy_from_slice(&size(packed.len())?);
    decompressor[PLAIN_SIZE..PLAIN_SIZE + 4].copy_from_slice(&size(plain.len())?);

    let mut bytes = read("diskboot.img")?.to_vec();
    if bytes.len() != 512 || bytes[SEGMENT..] != FIRST_SEGMENT.to_le_bytes() {
        return Err(bad("diskboot.img", "not a boot sector with a block list"));
    }
    let rest = decompressor.len() + packed.len();
    if rest > MAX_CORE {
        return Err(bad("core.img", "it does not fit into low memory"));
    }
    let sectors = u16::try_from(rest.div_ceil(512)).map_err(|_| bad("core.img", "too large"))?;
    bytes[SECTOR_COUNT..SECTOR_COUNT + 2].copy_from_slice(&sectors.to_le_bytes());
    bytes.extend(decompressor);
    bytes.extend(packed);
    Ok(CoreImage { bytes, plain })
}

fn put_part(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) -> Option<()> {
    let len = bytes.len().next_multiple_of(4);
    out.extend(kind.to_le_bytes());
    out.extend(u32::try_from(len + 8).ok()?.to_le_bytes());
    out.extend(bytes);
    out.resize(out.len() + len - bytes.len(), 0);
    Some(())
}

/// The modules with all that they need, needed ones first, in the order that `grub-mkimage` has.
fn resolve(moddep: &str, wanted: &[&str]) -> Vec<String> {
    let table: BTreeMap<&str, Vec<&str>> = moddep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, needs)| (name, needs.split_whitespace().rev().collect()))
        .collect();
    let mut out: Vec<String> = Vec::new();
    // Depth first; the marker says that all a module needs has been seen to.
    let mut stack: Vec<(&str, bool)> = wanted.iter().rev().map(|name| (*name, false)).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some((name, ready)) = stack.pop() {
        if ready {
            out.push(name.to_owned());
        } else if seen.insert(name) {
            stack.push((name, true));
            stack.extend(
                table
                    .get(name)
                    .into_iter()
                    .flatten()
                    .rev()
                    .map(|need| (*need, false)),
            );
        }
    }
    out
}

/// LZMA1 without a header, with the parameters that the decompressor is built for.
fn compress(plain: &[u8]) -> Result<Vec<u8>, liblzma::stream::Error> {
    let mut options = LzmaOptions::new_preset(6)?;
    options
        .dict_size(1 << 16)
        .literal_context_bits(3)
        .literal_position_bits(0)
        .position_bits(2)
        .mode(Mode::Normal)
        .nice_len(32)
        .match_finder(MatchFinder::BinaryTree4)
        .depth(32);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut stream = Stream::new_raw_encoder(&filters)?;
    let mut out = Vec::with_capacity(plain.len() + 4096);
    loop {
        let done = usize::try_from(stream.total_in()).unwrap_or(plain.len());
        out.reserve(4096);
        if stream.process_vec(&plain[done..], &mut out, Action::Finish)? == Status::StreamEnd {
            return Ok(out);
        }
    }
}

#[cfg(test)]
#[path = "core_image_tests.rs"]
mod tests;
