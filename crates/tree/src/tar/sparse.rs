//! Sparse members (GNU tar manual, "Storing Sparse Files"): the old GNU header, and the PAX versions
//! 0.0, 0.1 and 1.0. Each says which runs of the file the member's data holds.

use amiforge_types::BlobId;

use super::header::{self, BLOCK, BLOCK_BYTES};
use super::input::Input;
use super::pax::decimal;
use super::{Limits, TarErrorKind};
use crate::{Content, DataExtent, DataSource};

const BAD: TarErrorKind = TarErrorKind::Field("sparse map");

/// Runs of data (offset in the file, bytes) and the size of the file.
#[derive(Debug)]
pub(super) struct SparseMap {
    pub(super) runs: Vec<(u64, u64)>,
    pub(super) real_size: u64,
}

/// The `GNU.sparse.*` records.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxSparse {
    /// Name of the file, where the member's own name is made up (0.1 and 1.0).
    pub(super) name: Option<Vec<u8>>,
    real_size: Option<u64>,
    size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    map: Vec<u64>,
    /// Whether any map was given in the records (0.0 and 0.1).
    has_map: bool,
}

impl PaxSparse {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarErrorKind> {
        let number = || decimal(value).ok_or(BAD);
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" => self.real_size = Some(number()?),
            b"size" => self.size = Some(number()?),
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"numblocks" => self.has_map = true,
            b"offset" | b"numbytes" => {
                // Pairs, in this order.
                if (key == b"offset") != self.map.len().is_multiple_of(2) {
                    return Err(BAD);
                }
                self.map.push(number()?);
                self.has_map = true;
            }
            b"map" => {
                self.map = if value.is_empty() {
                    Vec::new()
                } else {
                    value
                        .split(|b| *b == b',')
                        .map(decimal)
                        .collect::<Option<_>>()
                        .ok_or(BAD)?
                };
                self.has_map = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether these records make the member sparse.
    pub(super) fn is_sparse(&self) -> bool {
        self.major.is_some() || self.has_map
    }

    /// The map. Version 1.0 has it at the start of the member's data: that part is read here, and
    /// `size`, the bytes of data left, becomes smaller.
    pub(super) fn map(
        &self,
        input: &mut dyn Input,
        size: &mut u64,
        limits: &Limits,
    ) -> Result<SparseMap, TarErrorKind> {
        let real_size = self.real_size.or(self.size).ok_or(BAD)?;
        let numbers = match (self.major, self.minor) {
            (Some(1), Some(0) | None) => read_map(input, size, limits)?,
            (None | Some(0), _) if self.has_map => self.map.clone(),
            (major, minor) => {
                let version = format!("{}.{}", major.unwrap_or(0), minor.unwrap_or(0));
                return Err(TarErrorKind::Unsupported(format!(
                    "the sparse format {version}"
                )));
            }
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(BAD);
        }
        let runs = numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        Ok(SparseMap { runs, real_size })
    }
}

/// Version 1.0: decimal numbers, each ended by a newline: the count of runs, then offset and length
/// of each; padded to a block.
fn read_map(
    input: &mut dyn Input,
    size: &mut u64,
    limits: &Limits,
) -> Result<Vec<u64>, TarErrorKind> {
    let mut numbers = Vec::new();
    let mut current: Option<u64> = None;
    let mut wanted: Option<u64> = None;
    let mut read = 0_u64;
    while wanted.is_none_or(|wanted| (numbers.len() as u64) < wanted) {
        let mut block = [0; BLOCK];
        *size = size.checked_sub(BLOCK_BYTES).ok_or(BAD)?;
        read += BLOCK_BYTES;
        if read > limits.extension_bytes {
            return Err(TarErrorKind::Limit {
                what: "bytes of extension records",
                limit: limits.extension_bytes,
            });
        }
        if !input.read(&mut block)? {
            return Err(TarErrorKind::Truncated);
        }
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let value = current
                        .unwrap_or(0)
                        .checked_mul(10)
                        .and_then(|n| n.checked_add(digit));
                    current = Some(value.ok_or(BAD)?);
                }
                b'\n' => {
                    let value = current.take().ok_or(BAD)?;
                    match wanted {
                        None => wanted = Some(value.checked_mul(2).ok_or(BAD)?),
                        Some(_) => numbers.push(value),
                    }
                    if wanted == Some(numbers.len() as u64) {
                        break;
                    }
                }
                _ => return Err(BAD),
            }
        }
    }
    Ok(numbers)
}

/// The old GNU format: four runs in the header, 21 in each block that follows it.
pub(super) fn read_old_gnu(
    block: &[u8; BLOCK],
    input: &mut dyn Input,
    limits: &Limits,
) -> Result<SparseMap, TarErrorKind> {
    let mut runs = Vec::new();
    push_runs(&block[386..482], &mut runs)?;
    let real_size = header::size(&block[483..495])?;
    let mut more = block[482] != 0;
    let mut read = 0;
    while more {
        let mut next = [0; BLOCK];
        read += BLOCK_BYTES;
        if read > limits.extension_bytes {
            return Err(TarErrorKind::Limit {
                what: "bytes of extension records",
                limit: limits.extension_bytes,
            });
        }
        if !input.read(&mut next)? {
            return Err(TarErrorKind::Truncated);
        }
        push_runs(&next[..504], &mut runs)?;
        more = next[504] != 0;
    }
    Ok(SparseMap { runs, real_size })
}

fn push_runs(fields: &[u8], runs: &mut Vec<(u64, u64)>) -> Result<(), TarErrorKind> {
    for pair in fields.chunks_exact(24) {
        // An unused slot is all zeros; a used one has digits.
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        runs.push((
            header::size(&pair[..12]).map_err(|_| BAD)?,
            header::size(&pair[12..]).map_err(|_| BAD)?,
        ));
    }
    Ok(())
}

impl SparseMap {
    /// The content, given the place of the member's `data_len` bytes of data.
    pub(super) fn content(
        &self,
        id: BlobId,
        data_at: u64,
        data_len: u64,
    ) -> Result<Content, TarErrorKind> {
        let mut extents: Vec<DataExtent> = Vec::new();
        let mut end = 0;
        let mut used = 0_u64;
        for (offset, len) in &self.runs {
            if *len == 0 {
                continue;
            }
            let run_end = offset.checked_add(*len).ok_or(BAD)?;
            if *offset < end || run_end > self.real_size {
                return Err(BAD);
            }
            let source = DataSource::Blob {
                id,
                offset: data_at.checked_add(used).ok_or(BAD)?,
            };
            used = used.checked_add(*len).ok_or(BAD)?;
            extents.push(DataExtent {
                offset: *offset,
                len: *len,
                source,
            });
            end = run_end;
        }
        if used != data_len {
            return Err(BAD);
        }
        Ok(Content {
            size: self.real_size,
            extents,
            digest: None,
        })
    }
}
