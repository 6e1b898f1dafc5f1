//! One file of a server, by its digest.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use amiforge_types::{Digest, Hasher};

use crate::apt::config::AptConfig;
use crate::apt::http::{Client, Length, Patience, hash};
use crate::{Context, SourceError, SourceEvent};

/// Largest file that is fetched, in bytes.
const MOST_BYTES: u64 = 64 << 30;

/// Brings a file of `http` or `https` into `<cache>/files/<sha256>`, with the proxies and certificates of the host, and
/// gives its path. What is there is hashed and not fetched again; what was left half-way is resumed. A file gets its
/// name only after its digest is the one asked for.
pub fn fetch_file(uri: &str, sha256: Digest, ctx: &Context<'_>) -> Result<PathBuf, SourceError> {
    fetch_with(
        uri,
        sha256,
        ctx,
        (Length::AtMost(MOST_BYTES), Patience::NORMAL),
    )
}

/// The same of a file whose size in bytes is known: a server that sends more is not listened to.
pub fn fetch_sized_file(
    uri: &str,
    (sha256, size): (Digest, u64),
    ctx: &Context<'_>,
) -> Result<PathBuf, SourceError> {
    fetch_with(uri, sha256, ctx, (Length::Exactly(size), Patience::NORMAL))
}

/// Puts what `content` gives into `<cache>/files/<sha256>`, where [`fetch_file`] finds it; its digest and its bytes.
pub fn keep_file(cache: &Path, content: &mut dyn Read) -> Result<(Digest, u64), SourceError> {
    let dir = cache.join("files");
    fs_err::create_dir_all(&dir).map_err(|e| SourceError::io(&dir, e))?;
    let io = |e| SourceError::io(&dir, e);
    let mut file = tempfile::Builder::new()
        .suffix(".partial")
        .tempfile_in(&dir)
        .map_err(io)?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = content.read(&mut buffer).map_err(io)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(io)?;
        size += n as u64;
    }
    let digest = hasher.finish();
    file.persist(dir.join(digest.hex()))
        .map_err(|e| SourceError::io(&dir, e.error))?;
    Ok((digest, size))
}

pub(crate) fn fetch_with(
    uri: &str,
    sha256: Digest,
    ctx: &Context<'_>,
    (length, patience): (Length, Patience),
) -> Result<PathBuf, SourceError> {
    let dir = ctx.cache.join("files");
    fs_err::create_dir_all(&dir).map_err(|e| SourceError::io(&dir, e))?;
    let path = dir.join(sha256.hex());
    if let Ok(mut file) = std::fs::File::open(&path) {
        if hash(&mut file).map_err(|e| SourceError::io(&path, e))? == sha256 {
            return Ok(path);
        }
        // Damaged since.
        fs_err::remove_file(&path).map_err(|e| SourceError::io(&path, e))?;
    }
    let config = AptConfig::read(ctx.host_root)?;
    let client = Client::new(*ctx, &config, patience);
    let got = std::sync::atomic::AtomicU64::new(0);
    let progress = |n: u64| {
        let before = got.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        // One event for each 4 MiB is enough for any bar.
        if (before + n) >> 22 != before >> 22 {
            let bytes = before + n;
            (ctx.events)(SourceEvent::FetchProgress {
                bytes,
                total: bytes,
            });
        }
    };
    match client.file(uri, &path, length, sha256, &progress) {
        Ok(Some(_)) => Ok(path),
        Ok(None) => Err(SourceError::NoFile {
            uri: uri.to_owned(),
        }),
        Err(SourceError::Digest { uri, expected, got }) => Err(SourceError::OtherFile {
            what: uri,
            expected,
            got,
        }),
        Err(error) => Err(error),
    }
}
