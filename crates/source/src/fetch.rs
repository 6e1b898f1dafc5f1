//! The `.deb` files of a lock, into the cache.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::apt::config::AptConfig;
use crate::apt::hostconf;
use crate::apt::http::{Client, Length, Patience, has_size};
use crate::{
    AptSettings, Context, FetchedDebian, ResolvedDebian, ResolvedPackage, SourceError, SourceEvent,
};

/// Fewest and most downloads under way at once.
const PARALLEL: (usize, usize) = (4, 8);

/// Brings every package of the lock into `<cache>/archives/<sha256>.deb`. What is there is not
/// fetched again; what was left half-way is resumed. A file gets its name only after its digest is
/// that of the lock; [`unpack`](crate::unpack()) checks it once more as it reads.
///
/// A package is asked for at the address that the lock names, and where that archive cannot give it,
/// at the archives of the recipe or of the host's apt configuration: a lock outlives the mirror it was
/// made with, and the digest says whether the bytes are the same.
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
    let mirrors = Mirrors::new(resolved, &config, ctx);
    let total = missing.iter().map(|i| resolved.packages[*i].size).sum();
    (ctx.events)(SourceEvent::FetchStarted {
        packages: missing.len(),
        bytes: total,
    });
    let threads = ctx.jobs.clamp(PARALLEL.0, PARALLEL.1);
    let downloaded = client
        .transfer()
        .together(&missing, threads, total, |i, progress| {
            bring(
                &client,
                &mirrors,
                &resolved.packages[*i],
                &debs[*i],
                progress,
            )
        })?;
    Ok(FetchedDebian { debs, downloaded })
}

/// The archives that may have a package.
struct Mirrors {
    /// Base addresses of the recipe or of the host, in their order.
    known: Vec<String>,
    /// Those that did not answer: asked last from then on, since each waits for its time-outs.
    silent: Mutex<Vec<String>>,
}

impl Mirrors {
    fn new(resolved: &ResolvedDebian, config: &AptConfig, ctx: &Context<'_>) -> Self {
        let settings = AptSettings {
            mirror: resolved.asked.mirror.clone(),
            suites: resolved.asked.suites.clone(),
            ..AptSettings::default()
        };
        let arch = resolved.arch.debian();
        // What the host's configuration has of no use here was said when it was resolved.
        let quiet = Context {
            events: &|_| {},
            ..*ctx
        };
        // A host without apt sources has just no second place to ask at.
        let archives = hostconf::archives(&resolved.suite, arch, &settings, config, &quiet);
        let mut known: Vec<String> = Vec::new();
        for archive in archives.unwrap_or_default() {
            if !known.contains(&archive.uri) && !archive.uri.contains("@SNAPSHOTID@") {
                known.push(archive.uri);
            }
        }
        Self {
            known,
            silent: Mutex::new(Vec::new()),
        }
    }

    /// The one that the lock names, then the others.
    fn of<'a>(&'a self, package: &'a ResolvedPackage) -> Vec<&'a str> {
        let silent = self
            .silent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let others = self.known.iter().filter(|uri| **uri != package.uri);
        let mut list: Vec<&str> = std::iter::once(&package.uri)
            .chain(others)
            .map(String::as_str)
            .collect();
        list.sort_by_key(|uri| silent.iter().any(|s| s == uri));
        list
    }

    fn is_silent(&self, uri: &str) {
        self.silent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(uri.to_owned());
    }
}

/// Brings one package from the first archive that has it; the number of bytes transferred.
fn bring(
    client: &Client<'_>,
    mirrors: &Mirrors,
    package: &ResolvedPackage,
    dest: &Path,
    progress: &dyn Fn(u64),
) -> Result<u64, SourceError> {
    let mut failed: Vec<(String, SourceError)> = Vec::new();
    for base in mirrors.of(package) {
        let uri = format!("{base}/{}", package.filename);
        let size = Length::Exactly(package.size);
        let error = match client.file(&uri, dest, size, package.sha256, progress) {
            Ok(Some(n)) => return Ok(n),
            Ok(None) => SourceError::Gone { uri },
            Err(error @ (SourceError::Digest { .. } | SourceError::Offline { .. })) => error,
            Err(error @ SourceError::Download { .. }) => {
                mirrors.is_silent(base);
                error
            }
            // A full disk, for example: no other archive helps.
            Err(error) => return Err(error),
        };
        failed.push((base.to_owned(), error));
        if client.is_stopped() {
            break;
        }
    }
    // The archive of the lock is the one whose answer counts.
    let own = failed.iter().position(|(base, _)| *base == package.uri);
    let (_, source) = failed.remove(own.unwrap_or(0));
    let elsewhere = match source {
        SourceError::Offline { .. } => Vec::new(),
        _ => failed.into_iter().map(|(base, _)| base).collect(),
    };
    Err(SourceError::Package {
        package: package.name.clone(),
        version: package.version.clone(),
        elsewhere,
        source: Box::new(source),
    })
}
