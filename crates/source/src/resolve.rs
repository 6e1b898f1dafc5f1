//! From a request to a lock.

use std::collections::BTreeSet;
use std::path::Path;

use amiforge_types::{Digest, Hasher};

use crate::apt::archive::{self, Signed};
use crate::apt::config::AptConfig;
use crate::apt::hostconf::{self, Archive};
use crate::apt::http::{Client, Patience};
use crate::apt::index::{self, Universe};
use crate::lock::FORMAT;
use crate::solver::{self, Goal};
use crate::{
    Asked, Context, DebianRequest, GeneratedFile, ResolvedArchive, ResolvedDebian, ResolvedPackage,
    SourceError, SourceEvent, Variant, defaults,
};

/// Where a resolution cached under other rules must not be taken from: raise it when a resolution of
/// the same archives can differ.
const RULES: u32 = 1;

/// Resolves a request against the archives as they are now.
///
/// Reads the host's apt configuration below `ctx.host_root`, asks for the Release files (unless that
/// was done in the last minute), and, when they changed or the request did, reads the indices and
/// solves. What is unchanged costs a few milliseconds.
pub fn resolve(request: &DebianRequest, ctx: &Context<'_>) -> Result<ResolvedDebian, SourceError> {
    resolve_with(request, ctx, Patience::NORMAL)
}

pub(crate) fn resolve_with(
    request: &DebianRequest,
    ctx: &Context<'_>,
    patience: Patience,
) -> Result<ResolvedDebian, SourceError> {
    fs_err::create_dir_all(ctx.cache).map_err(|e| SourceError::io(ctx.cache, e))?;
    let config = AptConfig::read(ctx.host_root)?;
    let client = Client::new(*ctx, &config, patience);
    let arch = request.arch.debian();
    let wanted = hostconf::archives(&request.suite, arch, &request.apt, &config, ctx)?;
    let others = match request.apt.mirror {
        Some(_) => {
            let host = crate::AptSettings::default();
            hostconf::archives(&request.suite, arch, &host, &config, ctx).unwrap_or_default()
        }
        None => Vec::new(),
    };
    let mut signed = open_all(request, &client, &config, &wanted, &others)?;

    let key = cache_key(request, &signed);
    let cached = ctx.cache.join("resolved").join(format!("{key}.json"));
    if let Some(resolved) = read_cached(&cached) {
        return Ok(resolved);
    }
    for archive in &mut signed {
        archive.read_files(ctx)?;
    }
    let resolved = solve(request, &client, &signed)?;
    let dir = ctx.cache.join("resolved");
    fs_err::create_dir_all(&dir).map_err(|e| SourceError::io(&dir, e))?;
    let json = serde_json::to_vec(&resolved)
        .map_err(|e| SourceError::malformed("resolution", e.to_string()))?;
    amiforge_store::write_atomic(&cached, &json).map_err(SourceError::Cache)?;
    Ok(resolved)
}

fn read_cached(path: &Path) -> Option<ResolvedDebian> {
    let resolved: ResolvedDebian = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (resolved.format == FORMAT).then_some(resolved)
}

/// Opens all archives at once; one that does not exist, or is not Debian's, is left out when another
/// serves the same suite.
fn open_all(
    request: &DebianRequest,
    client: &Client<'_>,
    config: &AptConfig,
    wanted: &[Archive],
    others: &[Archive],
) -> Result<Vec<Signed>, SourceError> {
    let ctx = client.context();
    let valid_default = config.flag("Acquire::Check-Valid-Until").unwrap_or(true);
    let check_date = config.flag("Acquire::Check-Date").unwrap_or(true);
    let open_one = |archive: &Archive| -> Result<Option<Signed>, SourceError> {
        let keys = archive::KeyMaterial::read(archive, others, ctx)?;
        let check_valid = request
            .apt
            .check_valid_until
            .unwrap_or_else(|| archive.check_valid_until.unwrap_or(valid_default));
        let Some(id) = &request.apt.snapshot else {
            return archive::open(client, archive, &keys, check_valid, check_date);
        };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(SourceError::malformed(
                "amiforge.apt.snapshot",
                "only letters and digits, as in 20250520T000000Z",
            ));
        }
        // What was valid then has expired since: that is the point of a snapshot.
        let pattern = if archive.uri.contains("@SNAPSHOTID@") {
            archive.uri.clone()
        } else {
            let Some(current) = archive::open(client, archive, &keys, check_valid, check_date)?
            else {
                return Ok(None);
            };
            current.release.snapshots.ok_or_else(|| SourceError::Missing {
                uri: archive.uri.clone(),
                what: "Snapshots address in its Release file; set amiforge.apt.mirror to one with @SNAPSHOTID@".to_owned(),
            })?
        };
        let uri = pattern
            .replace("@SNAPSHOTID@", id)
            .trim_end_matches('/')
            .to_owned();
        let snapshot = Archive {
            uri,
            ..archive.clone()
        };
        archive::open(client, &snapshot, &keys, false, check_date)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .iter()
            .map(|archive| scope.spawn(|| open_one(archive)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(SourceError::malformed("Release file", "its reader failed"))
                })
            })
            .collect()
    });
    let mut out: Vec<Signed> = Vec::new();
    let mut absent = Vec::new();
    for (archive, result) in wanted.iter().zip(results) {
        match result? {
            Some(signed) if archive.from_recipe || signed.release.origin == "Debian" => {
                out.push(signed)
            }
            Some(signed) => {
                (ctx.events)(SourceEvent::Warning(format!(
                    "apt source {} {} left out: it is of {:?}, not of Debian",
                    archive.uri, archive.suite, signed.release.origin
                )));
                absent.push(archive);
            }
            None => absent.push(archive),
        }
    }
    for archive in absent {
        let served = out.iter().any(|s| s.archive.suite == archive.suite);
        if !served {
            return Err(SourceError::NoSuite {
                uri: archive.uri.clone(),
                suite: archive.suite.clone(),
                has: suites_of(&archive.uri),
            });
        }
        (ctx.events)(SourceEvent::Warning(format!(
            "{} has no suite {}; left out",
            archive.uri, archive.suite
        )));
    }
    Ok(out)
}

/// Suites that are told of an archive, at most.
const MOST_SUITES: usize = 20;

/// The suites of an archive in a folder; of one behind a server nothing is known.
fn suites_of(uri: &str) -> Vec<String> {
    let Some(root) = uri.strip_prefix("file://") else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(Path::new(root).join("dists")) else {
        return Vec::new();
    };
    let is_suite = |path: &Path| {
        let mut files = ["InRelease", "Release"].iter();
        files.any(|file| path.join(file).is_file())
    };
    let suites = entries.flatten().filter(|entry| is_suite(&entry.path()));
    let mut suites: Vec<String> = suites
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    suites.sort();
    suites.truncate(MOST_SUITES);
    suites
}

/// Everything that a resolution depends on.
fn cache_key(request: &DebianRequest, signed: &[Signed]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(
        format!(
            "amiforge-resolution {FORMAT} {RULES} {}",
            solver::SOLVER_VERSION
        )
        .as_bytes(),
    );
    hasher.field(format!("{request:?}").as_bytes());
    hasher.field(defaults::packages(request.arch).join("\n").as_bytes());
    for s in signed {
        hasher.field(s.archive.uri.as_bytes());
        hasher.field(s.archive.suite.as_bytes());
        hasher.field(s.archive.components.join(" ").as_bytes());
        hasher.field(s.digest.as_bytes());
        hasher.field(s.fingerprint.as_bytes());
    }
    hasher.finish()
}

fn solve(
    request: &DebianRequest,
    client: &Client<'_>,
    signed: &[Signed],
) -> Result<ResolvedDebian, SourceError> {
    let arch = request.arch.debian();
    // Every index of every archive, in order, decompressed side by side.
    let jobs: Vec<(usize, &str)> = signed
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.archive.components.iter().map(move |c| (i, c.as_str())))
        .collect();
    let texts: Vec<Result<_, SourceError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|(i, component)| {
                scope.spawn(move || archive::index(client, &signed[*i], component, arch))
            })
            .collect();
        threads
            .into_iter()
            .map(|t| {
                t.join().unwrap_or_else(|_| {
                    Err(SourceError::malformed("package index", "its reader failed"))
                })
            })
            .collect()
    });
    let mut indices: Vec<Vec<crate::ResolvedIndex>> = signed.iter().map(|_| Vec::new()).collect();
    let mut loaded = Vec::new();
    for ((i, _), text) in jobs.iter().zip(texts) {
        let (text, resolved) = text?;
        let what = format!(
            "{} {} {}",
            signed[*i].archive.uri, signed[*i].archive.suite, resolved.path
        );
        indices[*i].push(resolved);
        loaded.push((*i, what, text));
    }
    let mut entries = Vec::new();
    for (i, what, text) in &loaded {
        index::parse(text, what, arch, *i, &mut entries)?;
    }
    let universe = Universe::new(entries, arch, |i| {
        if signed[i].release.not_automatic {
            1
        } else {
            500
        }
    });

    let wanted = wanted(request, &universe);
    let goal = Goal {
        wanted: wanted.iter().map(String::as_str).collect(),
        exclude: request.exclude.iter().map(String::as_str).collect(),
        suites: signed.iter().map(|s| s.archive.suite.as_str()).collect(),
        arch,
    };
    // The search recurses as deep as dependencies do.
    let picked = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("solver".to_owned())
            .stack_size(64 << 20)
            .spawn_scoped(scope, || solver::solve(&universe, &goal))
            .map_err(|e| SourceError::io("solver thread", e))?;
        thread
            .join()
            .map_err(|_| SourceError::malformed("solver", "stopped unexpectedly"))?
            .map_err(SourceError::Unresolvable)
    })?;

    let mut packages = Vec::with_capacity(picked.len());
    for placed in solver::installation_order(&universe, &picked, arch) {
        let entry = universe.entry(placed.position);
        packages.push(ResolvedPackage {
            name: entry.name.to_owned(),
            version: entry.version.to_owned(),
            arch: entry.arch.to_owned(),
            sha256: entry.digest()?,
            size: entry.size,
            filename: entry.filename.to_owned(),
            uri: signed[entry.archive].archive.uri.clone(),
            stage: placed.stage,
            auto: !picked.get(&placed.position).copied().unwrap_or(false),
        });
    }
    let archives: Vec<_> = signed
        .iter()
        .zip(indices)
        .map(|(s, indices)| ResolvedArchive {
            uri: s.archive.uri.clone(),
            suite: s.archive.suite.clone(),
            components: s.archive.components.clone(),
            in_release: s.digest,
            date: s.release.date,
            valid_until: s.release.valid_until,
            signed_by: s.fingerprint.clone(),
            indices,
        })
        .collect();
    Ok(ResolvedDebian {
        format: FORMAT,
        suite: request.suite.clone(),
        codename: signed
            .first()
            .map(|s| s.release.codename.clone())
            .unwrap_or_default(),
        arch: request.arch,
        asked: Asked::of(request),
        packages,
        archives,
        newest: archive::newest(signed),
        sources: sources(request, signed),
    })
}

/// What to ask the solver for: the base of the variant, then the default or given list, then more.
fn wanted(request: &DebianRequest, universe: &Universe<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    let mut add = |text: String| {
        if seen.insert(text.clone()) {
            out.push(text);
        }
    };
    let mut names: Vec<&str> = universe.by_name.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let Some(candidate) = universe.candidate(name) else {
            continue;
        };
        let entry = universe.entry(candidate);
        let base = entry.essential
            || match request.variant {
                Variant::Minimal | Variant::Essential => false,
                Variant::Required => entry.priority == "required",
                Variant::Standard => matches!(entry.priority, "required" | "important"),
            };
        if base && !request.exclude.iter().any(|e| e == name) {
            add(name.to_owned());
        }
    }
    // The layer has `/bin` and `/usr/bin` as one from the start; without this, a dependency would bring
    // the package that merges them, and Perl modules with it.
    if universe.candidate("usr-is-merged").is_some()
        && !request.exclude.iter().any(|e| e == "usr-is-merged")
    {
        add("usr-is-merged".to_owned());
    }
    if request.variant != Variant::Essential {
        add("apt".to_owned());
    }
    match &request.packages {
        Some(list) => list.iter().for_each(|p| add(p.clone())),
        None => {
            for entry in defaults::packages(request.arch) {
                let has = |name: &&str| universe.candidate(name.trim()).is_some();
                let pick = entry.split('|').find(has).unwrap_or(entry).trim();
                if !request.exclude.iter().any(|e| e == pick) {
                    add(pick.to_owned());
                }
            }
        }
    }
    request.include.iter().for_each(|p| add(p.clone()));
    out
}

/// Apt sources of the image: the archives it was made from, so that the guest stays maintainable.
fn sources(request: &DebianRequest, signed: &[Signed]) -> Vec<GeneratedFile> {
    let mut text = String::new();
    let mut files = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for s in signed {
        if crate::apt::http::is_local(&s.archive.uri) || seen.contains(&s.archive.uri.as_str()) {
            continue;
        }
        seen.push(&s.archive.uri);
        let of_uri: Vec<_> = signed
            .iter()
            .filter(|o| o.archive.uri == s.archive.uri)
            .collect();
        let suites: Vec<_> = of_uri.iter().map(|o| o.archive.suite.as_str()).collect();
        let key = match (&request.apt.keyring, &s.armoured_key) {
            (Some(_), Some(armour)) => {
                let path = format!(
                    "/etc/apt/keyrings/{}.asc",
                    &s.fingerprint[s.fingerprint.len().saturating_sub(16)..]
                );
                if !files.iter().any(|f: &GeneratedFile| f.path == path) {
                    files.push(GeneratedFile {
                        path: path.clone(),
                        text: armour.clone(),
                    });
                }
                path
            }
            _ => "/usr/share/keyrings/debian-archive-keyring.gpg".to_owned(),
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {key}\n",
            s.archive.uri,
            suites.join(" "),
            s.archive.components.join(" "),
        ));
        if request.apt.snapshot.is_some() {
            text.push_str("Check-Valid-Until: no\n");
        }
    }
    if !text.is_empty() {
        files.push(GeneratedFile {
            path: "/etc/apt/sources.list.d/debian.sources".to_owned(),
            text,
        });
    }
    files
}
