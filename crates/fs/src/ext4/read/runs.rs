//! The data of a file as runs of bytes: where each is on the disk, and where there is none.

use std::sync::Arc;

use super::bytes::index;
use super::error::{Fault, Place};
use super::fs::Fs;
use super::inode::Inode;
use super::map::Budget;

/// Where the bytes of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlace {
    /// At this offset from the start of the file system.
    Disk(u64),
    /// Here: data inside the inode, or in the journal in another form.
    Bytes(Arc<[u8]>),
}

/// A run of a file's data. What no run covers is a hole and reads as zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRun {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes, above zero.
    pub len: u64,
    /// Where they are.
    pub place: DataPlace,
}

/// All runs of a regular file, in order, none past its end.
pub(super) fn data_runs(
    fs: &Fs,
    inode: &Inode,
    budget: &mut Budget,
) -> Result<Vec<DataRun>, Fault> {
    inode.refuse_transformed()?;
    if inode.has_inline_data() {
        let data = fs.inline_data(inode)?;
        let run = DataRun {
            offset: 0,
            len: data.len() as u64,
            place: DataPlace::Bytes(data.into()),
        };
        return Ok(if run.len == 0 { Vec::new() } else { vec![run] });
    }
    let size = fs.sb.block_size;
    let mut out = Vec::new();
    for run in fs.runs(inode, 0..inode.size.div_ceil(size), budget)? {
        if fs.volume.has_overlay() {
            for block in 0..run.len {
                let offset = (run.logical + block) * size;
                let len = size.min(inode.size - offset);
                push(fs, inode, &mut out, offset, len, run.physical + block)?;
            }
        } else {
            let offset = run.logical * size;
            let len = (run.len * size).min(inode.size - offset);
            join(&mut out, offset, len, run.physical * size);
        }
    }
    Ok(out)
}

/// Adds a block that may be in the journal.
fn push(
    fs: &Fs,
    inode: &Inode,
    out: &mut Vec<DataRun>,
    offset: u64,
    len: u64,
    block: u64,
) -> Result<(), Fault> {
    let size = fs.sb.block_size;
    let (at, escaped) = fs.volume.find(block);
    if !escaped {
        join(out, offset, len, at * size);
        return Ok(());
    }
    let mut bytes = vec![0; index(len)];
    let place = Place::Data {
        inode: inode.number,
    };
    fs.volume.read(block * size, &mut bytes, place)?;
    out.push(DataRun {
        offset,
        len,
        place: DataPlace::Bytes(bytes.into()),
    });
    Ok(())
}

fn join(out: &mut Vec<DataRun>, offset: u64, len: u64, at: u64) {
    if let Some(last) = out.last_mut()
        && let DataPlace::Disk(start) = last.place
        && last.offset + last.len == offset
        && start + last.len == at
    {
        last.len += len;
        return;
    }
    out.push(DataRun {
        offset,
        len,
        place: DataPlace::Disk(at),
    });
}
