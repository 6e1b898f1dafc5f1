//! Signed archives: Release files, verified and kept in the cache, and the indices they vouch for.
//!
//! ```text
//! <cache>/releases/<digest of address>.inrelease   the file as downloaded
//! <cache>/releases/<digest of address>.json        ETag, Last-Modified, when it was asked for
//! <cache>/indices/<sha256>.index                   an index as downloaded
//! <cache>/archives/<sha256>.deb                    a package
//! <cache>/**/<sha256>.partial                      a download under way
//! <cache>/resolved/<digest of request>.json        a lock
//! ```

use std::io::Read;
use std::path::PathBuf;

use amiforge_types::{Digest, Timestamp};

use super::hostconf::{Archive, SignedBy};
use super::http::{Client, Small, Validators, has_size, is_local};
use super::release::Release;
use super::verify::Keyring;
use crate::{Context, ResolvedIndex, SourceError, SourceEvent};

/// Largest Release file read.
const MAX_RELEASE: u64 = 32 << 20;

/// Largest index read, as downloaded, and unpacked.
const MAX_INDEX: u64 = 512 << 20;
const MAX_INDEX_TEXT: u64 = 1 << 30;

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
    keyring: &Keyring,
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
    let bytes = match cached {
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
                    (Small::Body(bytes, validators), _) => (bytes, validators, false),
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
    let signed = check(
        client,
        archive,
        keyring,
        &uri,
        &bytes,
        check_valid_until,
        check_date,
    )?;
    // Only what was verified is kept.
    if !fresh {
        let json = serde_json::to_vec(&meta).unwrap_or_default();
        amiforge_store::write_atomic(&path, &bytes).map_err(SourceError::Cache)?;
        amiforge_store::write_atomic(&meta_path, &json).map_err(SourceError::Cache)?;
    }
    Ok(Some(signed))
}

fn check(
    client: &Client<'_>,
    archive: &Archive,
    keyring: &Keyring,
    uri: &str,
    bytes: &[u8],
    check_valid_until: bool,
    check_date: bool,
) -> Result<Signed, SourceError> {
    let ctx = client.context();
    let text = std::str::from_utf8(bytes).map_err(|_| SourceError::malformed(uri, "not UTF-8"))?;
    let verified = keyring
        .verify(text, ctx.now)
        .map_err(|reason| SourceError::Signature {
            uri: uri.to_owned(),
            reason,
        })?;
    let release = Release::parse(&verified.text, uri)?;
    if !release.is_suite(&archive.suite) {
        return Err(SourceError::WrongSuite {
            uri: uri.to_owned(),
            suite: release.suite,
            codename: release.codename,
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
    Ok(Signed {
        archive: archive.clone(),
        armoured_key: keyring.armoured(&verified.fingerprint),
        release,
        digest: Digest::of(bytes),
        fingerprint: verified.fingerprint,
    })
}

/// The keys for an archive.
pub(crate) fn keyring(
    archive: &Archive,
    others: &[Archive],
    ctx: &Context<'_>,
) -> Result<Keyring, SourceError> {
    let mut keyring = Keyring::default();
    let mut looked_at = Vec::new();
    let uri = archive.uri.clone();
    let add = |path: PathBuf,
               keyring: &mut Keyring,
               looked_at: &mut Vec<PathBuf>|
     -> Result<(), SourceError> {
        looked_at.push(path.clone());
        if path.is_file() {
            keyring.add_file(&path)
        } else {
            Ok(())
        }
    };
    match &archive.signed_by {
        SignedBy::Inline(armour) => {
            keyring.add(armour.as_bytes(), std::path::Path::new("Signed-By"))?
        }
        SignedBy::Files(files, fingerprints) if !files.is_empty() => {
            for file in files {
                add(file.clone(), &mut keyring, &mut looked_at)?;
            }
            if !fingerprints.is_empty() {
                keyring.retain(fingerprints);
            }
        }
        other => {
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
            for file in files {
                // One broken file of the default set does not take the others away, as with apt.
                if let Err(e) = add(file, &mut keyring, &mut looked_at) {
                    (ctx.events)(SourceEvent::Warning(format!("keyring left out: {e}")));
                }
            }
            if let SignedBy::Files(_, fingerprints) = other {
                keyring.retain(fingerprints);
            }
        }
    }
    if keyring.is_empty() {
        return Err(SourceError::NoKeyring { uri, looked_at });
    }
    Ok(keyring)
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
                size,
                digest,
                &|_| {},
            )?;
        }
        if done.is_none() {
            done = client.file(&uri, &dest, size, digest, &|_| {})?;
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
    let reader: Box<dyn Read> = match extension {
        "xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(raw.as_slice())),
        "gz" => Box::new(flate2::read::MultiGzDecoder::new(raw.as_slice())),
        _ => Box::new(raw.as_slice()),
    };
    let mut text = String::with_capacity(raw.len() * 6);
    reader
        .take(MAX_INDEX_TEXT + 1)
        .read_to_string(&mut text)
        .map_err(|e| SourceError::malformed(&uri, format!("cannot be unpacked: {e}")))?;
    if text.len() as u64 > MAX_INDEX_TEXT {
        return Err(SourceError::malformed(uri, "unpacks to more than 1 GiB"));
    }
    Ok((
        text,
        ResolvedIndex {
            path,
            sha256: digest,
        },
    ))
}

/// The newest date of some archives.
pub(crate) fn newest(archives: &[Signed]) -> Timestamp {
    archives
        .iter()
        .map(|a| a.release.date)
        .max()
        .unwrap_or_default()
}
