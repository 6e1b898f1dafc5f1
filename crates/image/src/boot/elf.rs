//! The loaded bytes of a static 32-bit ELF file.

const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u32 = 2;
/// No kernel of GRUB is near this.
const MAX_LOADED: usize = 1 << 20;

/// Places every section that is loaded at its address less `base`; the gaps and the end up to a
/// multiple of four are zero. Sections without bytes in the file come last and are left out.
pub(super) fn flatten(file: &[u8], base: u32) -> Result<Vec<u8>, &'static str> {
    let truncated = "the ELF file is cut off";
    if file.get(..6) != Some(b"\x7FELF\x01\x01") {
        return Err("not a 32-bit little-endian ELF file");
    }
    let u16_at = |at: usize| {
        Some(u16::from_le_bytes(
            file.get(at..at.checked_add(2)?)?.try_into().ok()?,
        ))
    };
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(
            file.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    let table = u32_at(32).ok_or(truncated)? as usize;
    let entry = usize::from(u16_at(46).ok_or(truncated)?);
    let count = usize::from(u16_at(48).ok_or(truncated)?);
    let mut out: Vec<u8> = Vec::new();
    for i in 0..count {
        let at = table.checked_add(i * entry).ok_or(truncated)?;
        let field = |n: usize| at.checked_add(4 * n).and_then(u32_at).ok_or(truncated);
        let (kind, flags, address) = (field(1)?, field(2)?, field(3)?);
        if flags & SHF_ALLOC == 0 || kind == SHT_NOBITS {
            continue;
        }
        let (offset, size) = (field(4)? as usize, field(5)? as usize);
        let start = address
            .checked_sub(base)
            .ok_or("a section is below the load address")? as usize;
        let bytes = offset
            .checked_add(size)
            .and_then(|end| file.get(offset..end))
            .ok_or(truncated)?;
        let end = start + size;
        if end > MAX_LOADED {
            return Err("it is too large");
        }
        if out.len() < end {
            out.resize(end, 0);
        }
        out[start..end].copy_from_slice(bytes);
    }
    if out.is_empty() {
        return Err("nothing of it is loaded");
    }
    Ok(out)
}
