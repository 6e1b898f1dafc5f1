//! The threads of [`emit`](super::emit()).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use amiforge_types::{BlobTable, Digest};

use super::window::{WINDOW, Window, WindowPlan, buffer};
use super::{EmitError, EmitOptions, Encoded, Finished, Ordered, Output, Sinks, Watch};
use crate::digest::{BLOCK, block_digest};
use crate::{ExtentData, Extents, Format};

/// Windows in memory at once. Encoded clusters can double each, so 24 MiB stay below 50.
const WINDOWS_IN_FLIGHT: usize = 24;

/// Largest piece that one copy of the target takes, so that threads share a large file.
const COPY_PIECE: u64 = 8 << 20;

pub(super) struct Run<'s> {
    /// Digests of the blocks with data, in order; empty when not asked for.
    pub blocks: Vec<(u64, Digest)>,
    /// The ordered half of each output that has one, all windows seen.
    pub ordered: Vec<Option<Box<dyn Ordered + 's>>>,
}

/// Buffers that come back when the last user of a window drops it.
struct Pool {
    free: Mutex<(Vec<Vec<u8>>, usize)>,
    returned: Condvar,
}

impl Pool {
    fn new(total: usize) -> Self {
        Self {
            free: Mutex::new((Vec::new(), total)),
            returned: Condvar::new(),
        }
    }

    /// Waits for a buffer; `None` after a failure elsewhere.
    fn take(&self, stop: &AtomicBool) -> Option<std::io::Result<Vec<u8>>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop.load(Ordering::Acquire) {
                return None;
            }
            if let Some(buffer) = free.0.pop() {
                return Some(Ok(buffer));
            }
            if free.1 > 0 {
                free.1 -= 1;
                return Some(buffer());
            }
            free = self
                .returned
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&self, buffer: Vec<u8>) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push(buffer);
        self.returned.notify_one();
    }

    fn wake_all(&self) {
        // The lock orders this with a waiter between its look at the flag and its wait.
        let _guard = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.returned.notify_all();
    }
}

/// A window shared by the ordered sinks.
struct Shared<'p> {
    window: Option<Window>,
    pool: &'p Pool,
}

impl Shared<'_> {
    fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            self.pool.give(window.into_buffer());
        }
    }
}

type Message<'p> = (usize, Arc<Shared<'p>>, Encoded);

/// What every thread of a run shares.
struct Common<'p> {
    pool: &'p Pool,
    stop: AtomicBool,
    error: Mutex<Option<EmitError>>,
    next: AtomicUsize,
    done: AtomicU64,
}

impl Common<'_> {
    fn fail(&self, error: EmitError) {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stop.store(true, Ordering::Release);
        self.pool.wake_all();
    }
}

/// Reads every window once and feeds all sinks.
pub(super) fn run<'s>(
    plan: &WindowPlan<'_>,
    blobs: &BlobTable,
    outputs: &[Output<'_>],
    sinks: &mut [Sinks<'s>],
    options: EmitOptions,
    watch: &Watch<'_>,
) -> Result<Run<'s>, EmitError> {
    let pool = Pool::new(WINDOWS_IN_FLIGHT);
    let common = Common {
        pool: &pool,
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
    };
    let mut ordered: Vec<Option<Box<dyn Ordered + 's>>> =
        sinks.iter_mut().map(|s| s.ordered.take()).collect();
    let sinks: &[Sinks<'s>] = sinks;
    let parallel: Vec<_> = sinks.iter().map(|s| &*s.parallel).collect();
    let write_error = |output: usize, source| EmitError::Write {
        output,
        format: outputs[output].format,
        source,
    };

    let (mut blocks, mut finished) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let mut senders: Vec<Option<Sender<Message<'_>>>> = Vec::new();
        let mut consumers = Vec::new();
        for (output, sink) in ordered.iter_mut().enumerate() {
            let Some(sink) = sink.take() else {
                senders.push(None);
                consumers.push(None);
                continue;
            };
            let (sender, receiver) = channel();
            senders.push(Some(sender));
            let (common, total) = (&common, plan.len());
            consumers.push(Some(scope.spawn(move || {
                match consume(sink, &receiver, total) {
                    Ok(done) => done,
                    Err(source) => {
                        common.fail(write_error(output, source));
                        None
                    }
                }
            })));
        }
        let mut workers = Vec::new();
        for _ in 0..options.threads.clamp(1, WINDOWS_IN_FLIGHT) {
            let senders = senders.clone();
            let (common, parallel, write_error) = (&common, &parallel, &write_error);
            workers.push(scope.spawn(move || {
                let mut blocks = Vec::new();
                if let Err(error) = work(
                    common,
                    plan,
                    blobs,
                    parallel,
                    &senders,
                    options,
                    &mut blocks,
                    write_error,
                    watch,
                ) {
                    common.fail(error);
                }
                blocks
            }));
        }
        drop(senders);
        for worker in workers {
            match worker.join() {
                Ok(mut done) => blocks.append(&mut done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        for consumer in consumers {
            finished.push(match consumer.map(std::thread::ScopedJoinHandle::join) {
                Some(Ok(done)) => done,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => None,
            });
        }
    });
    if let Some(error) = common
        .error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(error);
    }
    blocks.sort_unstable_by_key(|(number, _)| *number);
    Ok(Run {
        blocks,
        ordered: finished,
    })
}

/// Ends the ordered halves, each on a thread of its own since some read their file back. The error
/// names the output.
pub(super) fn finish(
    ordered: Vec<Option<Box<dyn Ordered + '_>>>,
    content: Option<&Digest>,
) -> Result<Vec<Option<Finished>>, (usize, std::io::Error)> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = ordered
            .into_iter()
            .map(|sink| sink.map(|sink| scope.spawn(move || sink.finish(content))))
            .collect();
        let mut out = Vec::with_capacity(threads.len());
        for (output, thread) in threads.into_iter().enumerate() {
            out.push(match thread.map(std::thread::ScopedJoinHandle::join) {
                Some(Ok(done)) => Some(done.map_err(|source| (output, source))?),
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => None,
            });
        }
        Ok(out)
    })
}

#[allow(
    clippy::too_many_arguments,
    reason = "the body of one thread; a struct would only rename its captures"
)]
fn work<'p>(
    common: &Common<'p>,
    plan: &WindowPlan<'_>,
    blobs: &BlobTable,
    parallel: &[&dyn super::Parallel],
    senders: &[Option<Sender<Message<'p>>>],
    options: EmitOptions,
    blocks: &mut Vec<(u64, Digest)>,
    write_error: &dyn Fn(usize, std::io::Error) -> EmitError,
    watch: &Watch<'_>,
) -> Result<(), EmitError> {
    // The buffer comes before the number: whoever holds the lowest number can always go on, so the
    // ordered sinks cannot starve while other windows hold all the buffers.
    while let Some(buffer) = common.pool.take(&common.stop) {
        let index = common.next.fetch_add(1, Ordering::Relaxed);
        let buffer = buffer.map_err(|source| EmitError::Read {
            offset: 0,
            end: WINDOW,
            source,
        })?;
        if index >= plan.len() {
            common.pool.give(buffer);
            break;
        }
        let window = plan.read(index, buffer, blobs)?;
        let mut encoded = Vec::with_capacity(parallel.len());
        for (output, sink) in parallel.iter().enumerate() {
            encoded.push(
                sink.accept(&window)
                    .map_err(|source| write_error(output, source))?,
            );
        }
        if options.content_digest {
            for (number, block) in
                (window.offset() / BLOCK as u64..).zip(window.bytes().chunks(BLOCK))
            {
                blocks.push((number, block_digest(block)));
            }
        }
        let done = common.done.fetch_add(window.data_len(), Ordering::Relaxed) + window.data_len();
        watch(done, plan.data_len());
        let shared = Arc::new(Shared {
            window: Some(window),
            pool: common.pool,
        });
        for (sender, encoded) in senders.iter().zip(encoded) {
            if let Some(sender) = sender
                && sender.send((index, Arc::clone(&shared), encoded)).is_err()
            {
                return Ok(()); // the consumer failed and has said so
            }
        }
    }
    Ok(())
}

/// Feeds an ordered sink and gives it back; `None` when the workers stopped early.
fn consume<'s>(
    mut sink: Box<dyn Ordered + 's>,
    receiver: &Receiver<Message<'_>>,
    total: usize,
) -> std::io::Result<Option<Box<dyn Ordered + 's>>> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (index, shared, encoded) in receiver {
        waiting.insert(index, (shared, encoded));
        while let Some((shared, encoded)) = waiting.remove(&next) {
            if let Some(window) = shared.window() {
                sink.accept(window, encoded)?;
            }
            next += 1;
        }
    }
    Ok((next >= total).then_some(sink))
}

/// Lets the targets copy: for raw outputs whose bytes nobody needs to see.
pub(super) fn copy(
    extents: &Extents,
    blobs: &BlobTable,
    outputs: &[Output<'_>],
    threads: usize,
    watch: &Watch<'_>,
) -> Result<(), EmitError> {
    // (extent, offset in it, length), so that one large file is shared by all threads.
    let mut pieces = Vec::with_capacity(extents.list().len());
    for (index, e) in extents.list().iter().enumerate() {
        let step = match e.data {
            ExtentData::Bytes(_) => e.len,
            ExtentData::Blob { .. } => COPY_PIECE,
            ExtentData::Made { .. } => WINDOW,
        };
        let mut skip = 0;
        while skip < e.len {
            pieces.push((index, skip, step.min(e.len - skip)));
            skip += step;
        }
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, total) = (AtomicU64::new(0), extents.data_len());
    let work = || {
        // Neighbours go to one thread: a target's blocks are then allocated in order.
        const BATCH: usize = 32;
        let mut made = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = pieces
                .get(start..pieces.len().min(start + BATCH))
                .filter(|b| !b.is_empty())
            else {
                return Ok(());
            };
            for &(index, skip, len) in batch {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let e = &extents.list()[index];
                for (output, o) in outputs.iter().enumerate() {
                    let done = match &e.data {
                        ExtentData::Bytes(bytes) => o.target.write_all_at(bytes, e.offset),
                        ExtentData::Blob { id, offset } => blobs.get(*id).and_then(|blob| {
                            o.target
                                .copy_from(blob, offset + skip, len, e.offset + skip)
                        }),
                        ExtentData::Made { .. } => {
                            made.resize(usize::try_from(len).unwrap_or(0), 0);
                            e.read_exact(blobs, &mut made, skip)
                                .and_then(|()| o.target.write_all_at(&made, e.offset + skip))
                        }
                    };
                    done.map_err(|source| {
                        stop.store(true, Ordering::Relaxed);
                        EmitError::Write {
                            output,
                            format: Format::Raw,
                            source,
                        }
                    })?;
                }
            }
            let bytes: u64 = batch.iter().map(|(_, _, len)| len).sum();
            watch(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut result = Ok(());
        for handle in handles {
            match handle.join() {
                Ok(done) => result = result.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}
