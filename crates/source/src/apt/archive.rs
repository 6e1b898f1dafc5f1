//! Signed archives: Release files, verified and kept in the cache, and the indices they vouch for.
//!
//! ```text
//! <cache>/releases/<digest of address>.inrelease   the file as downloaded
//! <cache>/releases/<digest of address>.verified    what its verification said, for the same keys
//! <cache>/releases/<digest of address>.json        ETag, Last-Modified, when it was asked for
//! <cache>/indices/<sha256>.index                   an index as downloaded
//! <cache>/archives/<sha256>.deb                    a package
//! <cache>/**/<sha256>.partial                      a download under way
//! <cache>/resolved/<digest of request>.json        a lock
//! ```

use std::io::Read;
use std::path::{Path, PathBuf};

use amiforge_types::{Digest, Hasher, Timestamp};

use super::hostconf::{Archive, SignedBy};
use super::http::{Client, Length, Small, Validators, has_size, is_local};
use super::release::Release;
use super::verify::{Keyring, read_keyring};
use crate::{Context, ResolvedIndex, SourceError, SourceEvent};

/// Largest Release file read.
const MAX_RELEASE: u64 = 32 << 20;

/// Largest index read, as downloaded, and unpacked; that of all of Debian has 60 MB.
const MAX_INDEX: u64 = 512 << 20;
const MAX_INDEX_TEXT: u64 = 512 << 20;

/// Memory that an xz file may ask for: xz -9 takes half of it.
const MAX_XZ_MEMORY: u64 = 128 << 20;

/// A Release file asked for this recently is not asked for again.
const FRESH_SECS: i64 = 60;

/// A verified Release file.
pub(crate) struct Signed {
    pub(crate) archive: Archive,
    pub(crate) release: Release,
    pub(crate) digest: Digest,
    pub(crate) fingerprint: String,
    /// Armour of the key that signed, for images of archives with a key of their own.
    pub(crate) armoured_key: Option<String>,
    /// Where the verification was taken from its record: what to read the list of files from.
    unread: Option<Unread>,
}

/// A Release file that is known to be good, and not read.
struct Unread {
    uri: String,
    bytes: Vec<u8>,
    keys: KeyMaterial,
}

impl Signed {
    /// Makes sure that the list of files is there: verifies and reads what was only known from its
    /// record.
    pub(crate) fn read_files(&mut self, ctx: &Context<'_>) -> Result<(), SourceError> {
        if let Some(unread) = self.unread.take() {
            let record = verify(&unread.keys, &unread.uri, &unread.bytes, ctx)?;
            // A lock is made of what was verified now, not of what the record says.
            self.release = record.release;
            self.fingerprint = record.fingerprint;
            self.armoured_key = record.armoured_key;
        }
        Ok(())
    }
}

/// Form of [`Record`], and the rules of verification: raise it when either changes.
const RECORD_VERSION: u32 = 1;

/// What the verification of a Release file said. It holds for the same bytes and the same keys, from
/// `from` until `until`; everything that depends on settings or the archive is judged anew each time.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    version: u32,
    sha256: Digest,
    keys: Digest,
    from: i64,
    until: Option<i64>,
    fingerprint: String,
    armoured_key: Option<String>,
    release: Release,
}

/// The record at `path`, if it is about these bytes and keys and holds now.
fn recorded(path: &Path, bytes: &[u8], keys: Digest, now: Timestamp) -> Option<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let holds = record.version == RECORD_VERSION
        && record.keys == keys
        && record.from <= now.secs
        && record.until.is_none_or(|until| now.secs < until)
        && record.sha256 == Digest::of(bytes);
    holds.then_some(record)
}

fn verify(
    keys: &KeyMaterial,
    uri: &str,
    bytes: &[u8],
    ctx: &Context<'_>,
) -> Result<Record, SourceError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SourceError::malformed(uri, "not UTF-8"))?;
    let keyring = keys.keyring(ctx)?;
    let verified = keyring
        .verify(text, ctx.now)
        .map_err(|reason| SourceError::Signature {
            uri: uri.to_owned(),
            reason,
        })?;
    Ok(Record {
        version: RECORD_VERSION,
        sha256: Digest::of(bytes),
        keys: keys.digest(),
        from: ctx.now.secs,
        until: verified.until,
        armoured_key: keyring.armoured(&verified.fingerprint),
        release: Release::parse(&verified.text, uri)?,
        fingerprint: verified.fingerprint,
    })
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Meta {
    validators: Validators,
    checked: i64,
    sha256: Option<Digest>,
}

/// Gets and checks the Release file of an archive. `None` when the archive has no such suite.
pub(crate) fn open(
    client: &Client<'_>,
    archive: &Archive,
    keys: &KeyMaterial,
    check_valid_until: bool,
    check_date: bool,
) -> Result<Option<Signed>, SourceError> {
    let ctx = client.context();
    let uri = format!("{}/dists/{}/InRelease", archive.uri, archive.suite);
    let key = Digest::of(uri.as_bytes()).hex();
    let base = ctx.cache.join("releases");
    fs_err::create_dir_all(&base).map_err(|e| SourceError::io(&base, e))?;
    let (path, meta_path) = (
        base.join(format!("{key}.inrelease")),
        base.join(format!("{key}.json")),
    );
    let mut meta: Meta = std::fs::read(&meta_path)
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let cached = std::fs::read(&path)
        .ok()
        .filter(|b| meta.sha256 == Some(Digest::of(b)));
    let age = ctx.now.secs - meta.checked;
    let fresh =
        cached.is_some() && !is_local(&uri) && (ctx.offline || (0..FRESH_SECS).contains(&age));
    // What the cache had where the archive now has something else.
    let mut before = None;
    let mut bytes = match cached {
        Some(bytes) if fresh => {
            (ctx.events)(SourceEvent::Index {
                uri: uri.clone(),
                cached: true,
            });
            bytes
        }
        cached => {
            let known = if cached.is_some() {
                meta.validators.clone()
            } else {
                Validators::default()
            };
            let (bytes, validators, was_cached) =
                match (client.small(&uri, &known, MAX_RELEASE)?, cached) {
                    (Small::NotModified, Some(bytes)) => (bytes, known, true),
                    (Small::Body(bytes, validators), cached) => {
                        before = cached.filter(|old| *old != bytes);
                        (bytes, validators, false)
                    }
                    (Small::NotFound | Small::NotModified, _) => return Ok(None),
                };
            (ctx.events)(SourceEvent::Index {
                uri: uri.clone(),
                cached: was_cached,
            });
            meta = Meta {
                validators,
                checked: ctx.now.secs,
                sha256: Some(Digest::of(&bytes)),
            };
            bytes
        }
    };
    let record_path = base.join(format!("{key}.verified"));
    let known = recorded(&record_path, &bytes, keys.digest(), ctx.now);
    let mut from_record = known.is_some();
    let mut record = match known {
        Some(record) => record,
        None => verify(keys, &uri, &bytes, ctx)?,
    };
    // An older file may be signed as well as a newer one: a mirror that lags behind, or somebody who
    // hides that there were security updates. Like apt, go on with the newer one.
    if let Some(old) = before
        && let Ok(newer) = verify(keys, &uri, &old, ctx)
        && newer.release.date > record.release.date
    {
        (ctx.events)(SourceEvent::Warning(format!(
            "{uri}: dated {}, older than what was there before ({}), which is kept",
            record.release.date, newer.release.date
        )));
        meta = Meta {
            // The validators are those of the other file: ask anew next time.
            validators: Validators::default(),
            checked: ctx.now.secs,
            sha256: Some(newer.sha256),
        };
        (bytes, record, from_record) = (old, newer, false);
    }
    judge(
        &record.release,
        archive,
        &uri,
        check_valid_until,
        check_date,
        ctx,
    )?;
    // Only what was verified is kept.
    let write = |path: &Path, bytes: &[u8]| {
        amiforge_store::write_atomic(path, bytes).map_err(SourceError::Cache)
    };
    if !fresh {
        write(&path, &bytes)?;
        write(&meta_path, &serde_json::to_vec(&meta).unwrap_or_default())?;
    }
    if !from_record {
        let json = serde_json::to_vec(&record).unwrap_or_default();
        write(&record_path, &json)?;
    }
    Ok(Some(Signed {
        archive: archive.clone(),
        digest: record.sha256,
        fingerprint: record.fingerprint,
        armoured_key: record.armoured_key,
        release: record.release,
        unread: from_record.then(|| Unread {
            uri,
            bytes,
            keys: keys.clone(),
        }),
    }))
}

/// Whether a Release file is of the archive asked for, and of this time.
fn judge(
    release: &Release,
    archive: &Archive,
    uri: &str,
    check_valid_until: bool,
    check_date: bool,
    ctx: &Context<'_>,
) -> Result<(), SourceError> {
    if !release.is_suite(&archive.suite) {
        return Err(SourceError::WrongSuite {
            uri: uri.to_owned(),
            suite: release.suite.clone(),
            codename: release.codename.clone(),
            wanted: archive.suite.clone(),
        });
    }
    // A little slack for clocks that are not quite right, as apt has it.
    if release.date.secs > ctx.now.secs + 10 {
        match check_date {
            true => {
                return Err(SourceError::FromTheFuture {
                    uri: uri.to_owned(),
                    date: release.date,
                    now: ctx.now,
                });
            }
            false => (ctx.events)(SourceEvent::Warning(format!(
                "{uri}: dated {}, which is in the future",
                release.date
            ))),
        }
    }
    if let Some(until) = release.valid_until
        && until < ctx.now
    {
        match check_valid_until {
            true => {
                return Err(SourceError::Expired {
                    uri: uri.to_owned(),
                    until,
                    now: ctx.now,
                });
            }
            false => (ctx.events)(SourceEvent::Warning(format!(
                "{uri}: expired at {until}; used because Valid-Until is not checked"
            ))),
        }
    }
    Ok(())
}

/// The keys for an archive, as they stand in their files.
#[derive(Clone)]
pub(crate) struct KeyMaterial {
    uri: String,
    files: Vec<(PathBuf, Vec<u8>)>,
    looked_at: Vec<PathBuf>,
    /// If set, only the keys with these fingerprints.
    only: Option<Vec<String>>,
    /// One broken file does not take the others away.
    tolerant: bool,
}

impl KeyMaterial {
    /// Reads the files.
    pub(crate) fn read(
        archive: &Archive,
        others: &[Archive],
        ctx: &Context<'_>,
    ) -> Result<Self, SourceError> {
        let mut out = Self {
            uri: archive.uri.clone(),
            files: Vec::new(),
            looked_at: Vec::new(),
            only: None,
            tolerant: false,
        };
        match &archive.signed_by {
            SignedBy::Inline(armour) => out
                .files
                .push((PathBuf::from("Signed-By"), armour.as_bytes().to_vec())),
            SignedBy::Files(files, fingerprints) if !files.is_empty() => {
                for file in files {
                    out.add(file, ctx)?;
                }
                if !fingerprints.is_empty() {
                    out.only = Some(fingerprints.clone());
                }
            }
            other => {
                out.tolerant = true;
                for file in trusted(archive, others, ctx)? {
                    out.add(&file, ctx)?;
                }
                if let SignedBy::Files(_, fingerprints) = other {
                    out.only = Some(fingerprints.clone());
                }
            }
        }
        Ok(out)
    }

    fn add(&mut self, path: &Path, ctx: &Context<'_>) -> Result<(), SourceError> {
        self.looked_at.push(path.to_owned());
        if !path.is_file() {
            return Ok(());
        }
        match read_keyring(path) {
            Ok(bytes) => self.files.push((path.to_owned(), bytes)),
            Err(e) if self.tolerant => left_out(&e, ctx),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Of all that decides which keys these are.
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(&[u8::from(self.tolerant), u8::from(self.only.is_some())]);
        for fingerprint in self.only.iter().flatten() {
            hasher.field(fingerprint.as_bytes());
        }
        for (_, bytes) in &self.files {
            hasher.field(b"file");
            hasher.field(bytes);
        }
        hasher.finish()
    }

    /// Reads the keys themselves.
    fn keyring(&self, ctx: &Context<'_>) -> Result<Keyring, SourceError> {
        let mut keyring = Keyring::default();
        for (path, bytes) in &self.files {
            match keyring.add(bytes, path) {
                Ok(()) => {}
                Err(e) if self.tolerant => left_out(&e, ctx),
                Err(e) => return Err(e),
            }
        }
        if let Some(only) = &self.only {
            keyring.retain(only);
        }
        if keyring.is_empty() {
            return Err(SourceError::NoKeyring {
                uri: self.uri.clone(),
                looked_at: self.looked_at.clone(),
            });
        }
        Ok(keyring)
    }
}

fn left_out(error: &SourceError, ctx: &Context<'_>) {
    (ctx.events)(SourceEvent::Warning(format!("keyring left out: {error}")));
}

/// The files of the keys that apt trusts for every archive.
fn trusted(
    archive: &Archive,
    others: &[Archive],
    ctx: &Context<'_>,
) -> Result<Vec<PathBuf>, SourceError> {
    let apt = ctx.host_root.join("etc/apt");
    let mut files = vec![apt.join("trusted.gpg")];
    files.extend(super::config::parts(
        &apt.join("trusted.gpg.d"),
        &["gpg", "asc"],
        false,
    )?);
    if archive.from_recipe {
        // The recipe names a mirror of the archive that the host knows by another address.
        for entry in others {
            if let SignedBy::Files(list, _) = &entry.signed_by {
                files.extend(list.iter().cloned());
            }
        }
        let shared = ctx.host_root.join("usr/share/keyrings");
        files.push(shared.join("debian-archive-keyring.gpg"));
        files.push(shared.join("debian-archive-keyring.pgp"));
    }
    Ok(files)
}

/// Gets one component's package index as text.
pub(crate) fn index(
    client: &Client<'_>,
    signed: &Signed,
    component: &str,
    arch: &str,
) -> Result<(String, ResolvedIndex), SourceError> {
    let dir = format!("{component}/binary-{arch}");
    let suite_uri = format!("{}/dists/{}", signed.archive.uri, signed.archive.suite);
    let found = ["xz", "gz", ""].into_iter().find_map(|extension| {
        let path = if extension.is_empty() {
            format!("{dir}/Packages")
        } else {
            format!("{dir}/Packages.{extension}")
        };
        signed
            .release
            .files
            .get(&path)
            .map(|(size, digest)| (path, extension, *size, *digest))
    });
    let Some((path, extension, size, digest)) = found else {
        return Err(SourceError::Missing {
            uri: format!("{suite_uri}/InRelease"),
            what: format!("{dir}/Packages"),
        });
    };
    if size > MAX_INDEX {
        return Err(SourceError::malformed(
            format!("{suite_uri}/{path}"),
            "larger than 512 MiB",
        ));
    }
    let ctx = client.context();
    let base = ctx.cache.join("indices");
    fs_err::create_dir_all(&base).map_err(|e| SourceError::io(&base, e))?;
    let dest = base.join(format!("{digest}.index"));
    let mut raw = std::fs::read(&dest)
        .ok()
        .filter(|b| Digest::of(b) == digest);
    let uri = format!("{suite_uri}/{path}");
    (ctx.events)(SourceEvent::Index {
        uri: uri.clone(),
        cached: raw.is_some(),
    });
    if raw.is_none() {
        let _ = std::fs::remove_file(&dest);
        let mut done = None;
        if signed.release.by_hash {
            done = client.file(
                &format!("{suite_uri}/{dir}/by-hash/SHA256/{digest}"),
                &dest,
                Length::Exactly(size),
                digest,
                &|_| {},
            )?;
        }
        if done.is_none() {
            done = client.file(&uri, &dest, Length::Exactly(size), digest, &|_| {})?;
        }
        if done.is_none() || !has_size(&dest, size) {
            return Err(SourceError::Missing {
                uri: format!("{suite_uri}/InRelease"),
                what: path,
            });
        }
        let bytes = fs_err::read(&dest).map_err(|e| SourceError::io(&dest, e))?;
        let got = Digest::of(&bytes);
        if got != digest {
            return Err(SourceError::Digest {
                uri,
                expected: digest,
                got,
            });
        }
        raw = Some(bytes);
    }
    let raw = raw.unwrap_or_default();
    // The Release file has the unpacked form, too, so it says how long the text is to be.
    let promised = signed.release.files.get(&format!("{dir}/Packages"));
    let limit = promised.map_or(MAX_INDEX_TEXT, |(size, _)| *size.min(&MAX_INDEX_TEXT));
    let text = unpack_index(&raw, extension, limit)
        .map_err(|reason| SourceError::malformed(&uri, reason))?;
    Ok((
        text,
        ResolvedIndex {
            path,
            sha256: digest,
        },
    ))
}

/// The text of an index, of at most `limit` bytes: what a small file unpacks to has no bound of its own.
fn unpack_index(raw: &[u8], extension: &str, limit: u64) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot be unpacked: {e}");
    let reader: Box<dyn Read + '_> = match extension {
        "xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                MAX_XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|e| failed(e.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(raw, stream))
        }
        "gz" => Box::new(flate2::read::MultiGzDecoder::new(raw)),
        _ => Box::new(raw),
    };
    let mut text = String::new();
    reader
        .take(limit + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    match text.len() as u64 > limit {
        true => Err(format!("unpacks to more than {limit} bytes")),
        false => Ok(text),
    }
}

/// The newest date of some archives.
pub(crate) fn newest(archives: &[Signed]) -> Timestamp {
    archives
        .iter()
        .map(|a| a.release.date)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(program: &str, args: &[&str], text: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = std::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(text).unwrap());
            child.wait_with_output().unwrap().stdout
        })
    }

    #[test]
    fn an_index_that_unpacks_to_too_much_or_asks_for_too_much_memory_is_refused() {
        let bomb = vec![b'a'; 20 << 20];
        for (program, extension) in [("xz", "xz"), ("gzip", "gz")] {
            let raw = packed(program, &["-1"], &bomb);
            assert!(raw.len() < 200_000, "{program}: {}", raw.len());
            let whole = unpack_index(&raw, extension, bomb.len() as u64).unwrap();
            assert_eq!(whole.len(), bomb.len());
            let error = unpack_index(&raw, extension, 1000).unwrap_err();
            assert_eq!(error, "unpacks to more than 1000 bytes");
            let error = unpack_index(&raw[..raw.len() / 2], extension, u64::MAX - 1).unwrap_err();
            assert!(error.starts_with("cannot be unpacked: "), "{error}");
        }
        let greedy = packed("xz", &["--lzma2=preset=0,dict=256MiB"], b"text");
        let error = unpack_index(&greedy, "xz", 1000).unwrap_err();
        assert!(error.starts_with("cannot be unpacked: "), "{error}");
    }
}
