//! Raw: the bytes of the disk at their own offsets, holes left out.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_types::{Digest, Hasher, ReadAt, WriteAt};

use super::{Format, FormatDriver, Gate, OpenError};
use crate::digest::is_zero;
use crate::emit::{
    Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan, feed_zeros,
};

pub(crate) struct Raw;

impl FormatDriver for Raw {
    fn format(&self) -> Format {
        Format::Raw
    }
    fn name(&self) -> &'static str {
        "raw"
    }
    fn extensions(&self) -> &'static [&'static str] {
        &["img"]
    }
    fn has_magic(&self, _head: &[u8]) -> bool {
        false
    }
    fn open(&self, file: Arc<dyn ReadAt>, _gate: &Gate<'_>) -> Result<Box<dyn ReadAt>, OpenError> {
        Ok(Box::new(RawDisk(file)))
    }
    fn sinks<'a>(&self, plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
        let size = plan.disk_size();
        output.target.set_len(size)?;
        let ordered: Option<Box<dyn Ordered + 'a>> = if output.sha256 {
            Some(Box::new(RawHash {
                hasher: Hasher::new(),
                at: 0,
                size,
            }))
        } else {
            None
        };
        Ok(Sinks {
            parallel: Box::new(RawWrite::new(output)),
            ordered,
            fixed_bytes: size,
        })
    }
}

/// Writes every window at its own offset.
pub(super) struct RawWrite<'a> {
    target: &'a dyn WriteAt,
    find_zeros: bool,
}

impl<'a> RawWrite<'a> {
    pub(super) fn new(output: &Output<'a>) -> Self {
        Self {
            target: output.target,
            find_zeros: output.find_zeros,
        }
    }
}

impl Parallel for RawWrite<'_> {
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        for run in window.runs() {
            if self.find_zeros {
                for part in non_zero(window.bytes(), run.clone(), 4096) {
                    let at = window.offset() + part.start as u64;
                    self.target.write_all_at(&window.bytes()[part], at)?;
                }
            } else {
                self.target.write_all_at(
                    &window.bytes()[run.clone()],
                    window.offset() + run.start as u64,
                )?;
            }
        }
        Ok(Encoded::default())
    }
}

/// The stretches of `bytes[range]` whose `unit`s, aligned, are not all zero.
pub(super) fn non_zero(
    bytes: &[u8],
    range: Range<usize>,
    unit: usize,
) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end_of = |at: usize| ((at / unit + 1) * unit).min(range.end);
        while at < range.end && is_zero(&bytes[at..end_of(at)]) {
            at = end_of(at);
        }
        let start = at;
        while at < range.end && !is_zero(&bytes[at..end_of(at)]) {
            at = end_of(at);
        }
        (start < at).then_some(start..at)
    })
}

struct RawHash {
    hasher: Hasher,
    at: u64,
    size: u64,
}

impl Ordered for RawHash {
    fn accept(&mut self, window: &Window, _encoded: Encoded) -> io::Result<()> {
        feed_zeros(&mut self.hasher, window.offset() - self.at);
        self.hasher.update(window.bytes());
        self.at = window.offset() + window.bytes().len() as u64;
        Ok(())
    }
    fn finish(mut self: Box<Self>, _content: Option<&Digest>) -> io::Result<Finished> {
        feed_zeros(&mut self.hasher, self.size - self.at);
        Ok(Finished {
            bytes: self.size,
            sha256: Some(self.hasher.finish()),
        })
    }
}

/// The file itself.
struct RawDisk(Arc<dyn ReadAt>);

impl ReadAt for RawDisk {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<std::ops::Range<u64>>> {
        self.0.next_data(offset)
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.as_fd()
    }
}
