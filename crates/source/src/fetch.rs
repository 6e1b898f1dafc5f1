//! The `.deb` files of a lock, into the cache.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::apt::config::AptConfig;
use crate::apt::http::{Client, Patience, has_size};
use crate::{Context, FetchedDebian, ResolvedDebian, SourceError, SourceEvent};

/// Fewest and most downloads under way at once.
const PARALLEL: (usize, usize) = (4, 8);

/// Brings every package of the lock into `<cache>/archives/<sha256>.deb`. What is there is not
/// fetched again; what was left half-way is resumed. A file gets its name only after its digest is
/// that of the signed index; [`unpack`](crate::unpack()) checks it once more as it reads.
pub fn fetch(resolved: &ResolvedDebian, ctx: &Context<'_>) -> Result<FetchedDebian, SourceError> {
    fetch_with(resolved, ctx, Patience::NORMAL)
}

pub(crate) fn fetch_with(
    resolved: &ResolvedDebian,
    ctx: &Context<'_>,
    patience: Patience,
) -> Result<FetchedDebian, SourceError> {
    let dir = ctx.cache.join("archives");
    fs_err::create_dir_all(&dir).map_err(|e| SourceError::io(&dir, e))?;
    let debs: Vec<PathBuf> = resolved
        .packages
        .iter()
        .map(|p| dir.join(format!("{}.deb", p.sha256)))
        .collect();
    let mut missing: Vec<usize> = (0..debs.len())
        .filter(|i| !has_size(&debs[*i], resolved.packages[*i].size))
        .collect();
    if missing.is_empty() {
        return Ok(FetchedDebian {
            debs,
            downloaded: 0,
        });
    }
    // The largest first: they decide when the last transfer ends.
    missing.sort_by_key(|i| std::cmp::Reverse(resolved.packages[*i].size));
    let config = AptConfig::read(ctx.host_root)?;
    let client = Client::new(*ctx, &config, patience);
    let total = missing.iter().map(|i| resolved.packages[*i].size).sum();
    (ctx.events)(SourceEvent::FetchStarted {
        packages: missing.len(),
        bytes: total,
    });

    let (arrived, transferred) = (AtomicU64::new(0), AtomicU64::new(0));
    let reported = AtomicU64::new(0);
    let progress = |n: u64| {
        let bytes = arrived.fetch_add(n, Ordering::Relaxed) + n;
        // One event for each half percent is enough for any bar.
        let step = bytes / (total / 200).max(1);
        if reported.fetch_max(step, Ordering::Relaxed) < step {
            (ctx.events)(SourceEvent::FetchProgress {
                bytes: bytes.min(total),
                total,
            });
        }
    };
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<SourceError>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..ctx.jobs.clamp(PARALLEL.0, PARALLEL.1).min(missing.len()) {
            scope.spawn(|| {
                while let Some(i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let package = &resolved.packages[*i];
                    let uri = format!("{}/{}", package.uri, package.filename);
                    let result = client.file(&uri, &debs[*i], package.size, package.sha256, &progress);
                    let error = match result {
                        Ok(Some(n)) => {
                            transferred.fetch_add(n, Ordering::Relaxed);
                            continue;
                        }
                        Ok(None) => SourceError::Download { uri, reason: "the server has no such file; the archive may have moved on since it was resolved".to_owned() },
                        Err(error) => error,
                    };
                    client.stop();
                    next.store(missing.len(), Ordering::Relaxed);
                    let mut slot = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // The others end because of this one; its reason is the one to tell.
                    slot.get_or_insert(error);
                    return;
                }
            });
        }
    });
    match failure
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => {
            (ctx.events)(SourceEvent::FetchProgress {
                bytes: total,
                total,
            });
            Ok(FetchedDebian {
                debs,
                downloaded: transferred.into_inner(),
            })
        }
    }
}
