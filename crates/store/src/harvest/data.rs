//! File data: digests and holes first, in parallel, then the copy to its place in the layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt;

use amiforge_tree::layer::{LayerWriteError, PlannedFile};
use amiforge_tree::{Content, ContentHasher, DATA_CHUNK, DataExtent, DataSource, InodeFlags};
use amiforge_types::{BlobId, WriteAt};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::flags::FlagReader;
use super::walk::FileState;
use super::{HOLE_BLOCK, HOLE_BYTES, HarvestError};
use crate::dirfd::{open_beneath, retry};
use crate::{FileBlob, FileTarget};

static ZEROS: [u8; DATA_CHUNK] = [0; DATA_CHUNK];

type Files = BTreeMap<Vec<u8>, FileState>;

/// Size, digest, data runs and flags of every file, in order. The runs' source is a placeholder: the copy
/// reads from the file itself.
pub(super) fn scan(
    upper: BorrowedFd<'_>,
    files: &Files,
    flags: FlagReader,
) -> Result<Vec<(Content, InodeFlags)>, HarvestError> {
    let list: Vec<_> = files.iter().collect();
    list.par_iter()
        .map_init(Vec::new, |buf, (path, state)| {
            if state.size == 0 {
                let content = Content {
                    digest: Some(ContentHasher::of(&[])),
                    ..Content::default()
                };
                // There is nothing to read in it, so it need not be readable.
                let flags =
                    open(upper, path, state).map_or(InodeFlags::NONE, |f| flags.of(f.as_fd()));
                return Ok((content, flags));
            }
            let file = open(upper, path, state)?;
            let content = scan_file(&file, state, buf).map_err(HarvestError::io("read", path))?;
            Ok((content, flags.of(file.as_fd())))
        })
        .collect()
}

/// Copies every run to its place.
pub(super) fn copy(
    upper: BorrowedFd<'_>,
    files: &Files,
    planned: &[PlannedFile<'_>],
    target: &FileTarget,
) -> Result<(), HarvestError> {
    planned.par_iter().try_for_each(|plan| {
        let path = plan.path;
        let Some(state) = files.get(path) else {
            return Ok(());
        };
        if plan.content.extents.is_empty() {
            return Ok(());
        }
        let file = open(upper, path, state)?;
        let blob = FileBlob::from_file(file).map_err(HarvestError::io("read", path))?;
        for (run, place) in plan.runs() {
            target
                .copy_from(&blob, run.offset, run.len, place)
                .map_err(LayerWriteError::Write)?;
        }
        // Once more, for a write during the copy.
        open(upper, path, state).map(|_| ())
    })
}

pub(super) fn open(
    upper: BorrowedFd<'_>,
    path: &[u8],
    state: &FileState,
) -> Result<File, HarvestError> {
    let fd = open_beneath(upper, path, OFlags::RDONLY | OFlags::NOATIME, Mode::empty())
        // Only the owner may ask not to touch the access time.
        .or_else(|_| open_beneath(upper, path, OFlags::RDONLY, Mode::empty()))
        .map_err(HarvestError::io("open", path))?;
    let stat = retry(|| rustix::fs::fstat(&fd)).map_err(HarvestError::io("stat", path))?;
    if FileState::of(&stat) != *state {
        return Err(HarvestError::Changed(path.to_vec()));
    }
    Ok(File::from(fd))
}

fn scan_file(file: &File, state: &FileState, buf: &mut Vec<u8>) -> io::Result<Content> {
    let mut hasher = ContentHasher::new(state.size);
    let mut zeros = ZeroRuns::new();
    while zeros.at < state.size {
        let data_end = if state.sparse {
            let (data, end) = next_data(file, zeros.at, state.size)?;
            hasher.zeros(data - zeros.at);
            zeros.hole(data - zeros.at);
            end
        } else {
            state.size
        };
        chunks(file, zeros.at, data_end, buf, |bytes, _| {
            hasher.update(bytes);
            zeros.bytes(bytes);
            Ok(())
        })
        .map_err(|(Chunk::Read(error) | Chunk::Taken(error))| error)?;
    }
    let runs = zeros.finish().into_iter().map(|(offset, end)| DataExtent {
        offset,
        len: end - offset,
        source: DataSource::Blob {
            id: BlobId::UNASSIGNED,
            offset,
        },
    });
    Ok(Content {
        size: state.size,
        extents: runs.collect(),
        digest: Some(hasher.finish()),
    })
}

/// Why [`chunks`] ended early.
pub(super) enum Chunk<E> {
    /// The file could not be read.
    Read(io::Error),
    /// Whoever was handed a chunk failed.
    Taken(E),
}

/// Hands a part of a file out, with the place of each piece, which is at most [`DATA_CHUNK`] bytes.
pub(super) fn chunks<E>(
    file: &File,
    start: u64,
    end: u64,
    buf: &mut Vec<u8>,
    mut take: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), Chunk<E>> {
    buf.resize(DATA_CHUNK, 0);
    let mut at = start;
    while at < end {
        // They end at multiples of their size, so that blocks are whole.
        let chunk = DATA_CHUNK as u64;
        let n = usize::try_from((chunk - at % chunk).min(end - at)).unwrap_or(DATA_CHUNK);
        file.read_exact_at(&mut buf[..n], at).map_err(Chunk::Read)?;
        take(&buf[..n], at).map_err(Chunk::Taken)?;
        at += n as u64;
    }
    Ok(())
}

/// The next run that may hold data at or after `at`.
pub(super) fn next_data(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => {
            // Whole blocks, so that smaller blocks of the host's file system do not show.
            let data = (data - data % HOLE_BLOCK).max(at).min(size);
            let end = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size);
            Ok((
                data,
                end.max(data + 1).next_multiple_of(HOLE_BLOCK).min(size),
            ))
        }
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => Ok((size, size)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((at, size)),
        Err(e) => Err(e.into()),
    }
}

/// Finds the holes of a file by content, which is shown to it front to back.
pub(super) struct ZeroRuns {
    /// Start and end of each run of data.
    runs: Vec<(u64, u64)>,
    /// Zero bytes in whole blocks just before `at` that may become a hole.
    zeros: u64,
    at: u64,
}

impl ZeroRuns {
    pub(super) fn new() -> Self {
        Self {
            runs: Vec::new(),
            zeros: 0,
            at: 0,
        }
    }

    /// How much was shown.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn hole(&mut self, len: u64) {
        self.at += len;
        self.zeros += len;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_boundary = HOLE_BLOCK - self.at % HOLE_BLOCK;
            let n = usize::try_from(to_boundary)
                .unwrap_or(rest.len())
                .min(rest.len());
            let (block, next) = rest.split_at(n);
            if is_zero(block) {
                self.zeros += n as u64;
                self.at += n as u64;
            } else {
                self.data(n as u64);
            }
            rest = next;
        }
    }

    /// Counts `len` bytes of data, and the zeros before them if they are too few for a hole.
    fn data(&mut self, len: u64) {
        let start = self.at;
        self.at += len;
        match self.runs.last_mut() {
            Some((_, end)) if self.zeros < HOLE_BYTES => *end = self.at,
            None if self.zeros < HOLE_BYTES => self.runs.push((0, self.at)),
            _ => self.runs.push((start, self.at)),
        }
        self.zeros = 0;
    }

    /// The runs of data, when everything was shown.
    pub(super) fn finish(mut self) -> Vec<(u64, u64)> {
        if self.zeros < HOLE_BYTES {
            self.data(0);
        }
        self.runs
    }
}

/// Whether at most [`DATA_CHUNK`] bytes are all zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    *bytes == ZEROS[..bytes.len()]
}
