//! Package sources of the host (sources.list(5)), in both formats, and what of them belongs to a
//! Debian suite.

use std::path::{Path, PathBuf};

use super::config::{AptConfig, parts};
use super::deb822::{Paragraphs, value_lines};
use crate::{AptSettings, Context, SourceError, SourceEvent};

/// Largest configuration file that is read.
const MAX_CONFIG: u64 = 4 << 20;

/// Names a base suite of Debian can have; the host's entries are searched for them.
const SUITES: &[&str] = &[
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// What signs an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// The keys apt trusts for every archive.
    Default,
    /// Keyring files (paths on the host), and fingerprints that further restrict the keys.
    Files(Vec<PathBuf>, Vec<String>),
    /// An armoured key in the configuration itself.
    Inline(String),
}

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    /// Base address without a final slash.
    pub(crate) uri: String,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    pub(crate) signed_by: SignedBy,
    /// `check-valid-until` of the entry itself.
    pub(crate) check_valid_until: Option<bool>,
    /// Named by the recipe: any `Origin` will do.
    pub(crate) from_recipe: bool,
}

/// One entry as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    architectures: Option<Vec<String>>,
    signed_by: SignedBy,
    check_valid_until: Option<bool>,
}

/// The archives to read for a suite, the base suite first.
pub(crate) fn archives(
    suite: &str,
    arch: &str,
    settings: &AptSettings,
    config: &AptConfig,
    ctx: &Context<'_>,
) -> Result<Vec<Archive>, SourceError> {
    if !is_suite_name(suite) {
        return Err(SourceError::BadSuite(suite.to_owned()));
    }
    let signed_by = settings
        .keyring
        .as_ref()
        .map(|path| SignedBy::Files(vec![path.clone()], Vec::new()));
    if let Some(mirror) = &settings.mirror {
        let suites = settings
            .suites
            .clone()
            .unwrap_or_else(|| vec![suite.to_owned()]);
        return suites
            .into_iter()
            .map(|suite| {
                if !is_suite_name(&suite) {
                    return Err(SourceError::BadSuite(suite));
                }
                Ok(Archive {
                    uri: base_uri(mirror)?,
                    suite,
                    components: settings
                        .components
                        .clone()
                        .unwrap_or_else(|| vec!["main".to_owned()]),
                    signed_by: signed_by.clone().unwrap_or(SignedBy::Default),
                    check_valid_until: None,
                    from_recipe: true,
                })
            })
            .collect();
    }
    let entries = read(ctx.host_root)?;
    let mut out: Vec<Archive> = Vec::new();
    for entry in &entries {
        let for_us = entry.architectures.as_ref().is_none_or(|list| list.iter().any(|a| a == arch))
            // A host of another architecture has the same archive.
            || entry.architectures.as_ref().is_some_and(|list| !list.iter().any(|a| a == "amd64" || a == "arm64"));
        if !for_us || !entry.components.iter().any(|c| c == "main") {
            continue;
        }
        for have in &entry.suites {
            let Some(mapped) = map_suite(have, suite) else {
                continue;
            };
            for uri in &entry.uris {
                let uri = match base_uri(uri) {
                    Ok(uri) => uri,
                    Err(_) => {
                        (ctx.events)(SourceEvent::Warning(format!(
                            "apt source left out, its kind of address is not supported: {}",
                            scheme(uri)
                        )));
                        continue;
                    }
                };
                match out.iter_mut().find(|a| a.uri == uri && a.suite == mapped) {
                    Some(known) => {
                        for component in &entry.components {
                            if !known.components.contains(component) {
                                known.components.push(component.clone());
                            }
                        }
                    }
                    None => out.push(Archive {
                        uri,
                        suite: mapped.clone(),
                        components: entry.components.clone(),
                        signed_by: signed_by.clone().unwrap_or_else(|| entry.signed_by.clone()),
                        check_valid_until: entry.check_valid_until,
                        from_recipe: false,
                    }),
                }
            }
        }
    }
    if let Some(suites) = &settings.suites {
        out.retain(|a| suites.contains(&a.suite));
    }
    for archive in &mut out {
        if let Some(components) = &settings.components {
            archive.components.clone_from(components);
        } else {
            // What the host has enabled beyond the distribution itself does not reach an image.
            archive.components.retain(|c| c == "main");
        }
    }
    out.sort_by_key(|a| a.suite != suite);
    match out.first() {
        Some(first) if first.suite == suite => {
            let _ = config;
            Ok(out)
        }
        _ => Err(SourceError::NoArchive {
            suite: suite.to_owned(),
        }),
    }
}

/// A host suite such as `bookworm-updates` as that of the asked suite; `None` for others.
fn map_suite(have: &str, wanted: &str) -> Option<String> {
    let have = have.trim_end_matches('/');
    let base = SUITES.iter().find(|s| {
        have.strip_prefix(**s)
            .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security" | "/updates"))
    });
    let rest = match base {
        Some(base) => &have[base.len()..],
        // A release newer than this program: the host runs what is asked for.
        None => have
            .strip_prefix(wanted)
            .filter(|rest| matches!(*rest, "" | "-updates" | "-security"))?,
    };
    // The rolling suites have neither updates nor security.
    let rolling = matches!(
        wanted,
        "sid" | "unstable" | "testing-proposed-updates" | "experimental"
    );
    match rest {
        "" => Some(wanted.to_owned()),
        _ if rolling => None,
        "-updates" => Some(format!("{wanted}-updates")),
        _ => Some(format!("{wanted}-security")),
    }
}

fn is_suite_name(suite: &str) -> bool {
    !suite.is_empty()
        && suite.len() <= 64
        && suite
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/'))
        && suite
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// An address that can be fetched from, without its final slash.
fn base_uri(uri: &str) -> Result<String, SourceError> {
    let trimmed = uri.trim_end_matches('/');
    let supported = ["http://", "https://", "file:///"]
        .iter()
        .any(|s| trimmed.starts_with(s) && trimmed.len() > s.len())
        || trimmed
            .strip_prefix("file:/")
            .is_some_and(|rest| !rest.starts_with('/'));
    let authority = trimmed
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    if !supported || trimmed.bytes().any(|b| b <= b' ' || b >= 127) {
        return Err(SourceError::malformed(
            scheme(uri),
            "only http, https and file addresses are supported",
        ));
    }
    if authority.contains('@') {
        // It would reach the lock and the image.
        return Err(SourceError::malformed(
            "archive address",
            "a user name or password in it is not supported",
        ));
    }
    Ok(match trimmed.strip_prefix("file:/") {
        Some(rest) => format!("file:///{}", rest.trim_start_matches('/')),
        None => trimmed.to_owned(),
    })
}

/// Whether an address is one that [`archives`] could have given.
pub(crate) fn is_base_uri(uri: &str) -> bool {
    base_uri(uri).is_ok_and(|base| base == uri)
}

fn scheme(uri: &str) -> String {
    uri.split(':')
        .next()
        .unwrap_or_default()
        .chars()
        .take(20)
        .collect::<String>()
        + ":"
}

/// All `deb` entries of the host.
fn read(host_root: &Path) -> Result<Vec<Entry>, SourceError> {
    let apt = host_root.join("etc/apt");
    let mut files = vec![apt.join("sources.list")];
    files.extend(parts(
        &apt.join("sources.list.d"),
        &["list", "sources"],
        false,
    )?);
    let mut entries = Vec::new();
    for path in files {
        let Some(text) = read_small(&path)? else {
            continue;
        };
        let result = match path.extension().is_some_and(|e| e == "sources") {
            true => parse_deb822(&text, host_root, &mut entries),
            false => parse_one_line(&text, host_root, &mut entries),
        };
        result.map_err(|(line, reason)| SourceError::Config {
            path,
            line,
            reason: reason.to_owned(),
        })?;
    }
    Ok(entries)
}

/// A configuration file's text; `None` when it does not exist.
pub(crate) fn read_small(path: &Path) -> Result<Option<String>, SourceError> {
    match fs_err::metadata(path) {
        Ok(meta) if meta.len() > MAX_CONFIG => Err(SourceError::Config {
            path: path.to_owned(),
            line: 0,
            reason: "larger than 4 MiB".to_owned(),
        }),
        Ok(meta) if meta.is_dir() => Ok(None),
        Ok(_) => {
            let bytes = fs_err::read(path).map_err(|e| SourceError::io(path, e))?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SourceError::io(path, e)),
    }
}

/// `deb [option=value …] uri suite [component …]`
fn parse_one_line(
    text: &str,
    host_root: &Path,
    out: &mut Vec<Entry>,
) -> Result<(), (usize, &'static str)> {
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb")
            .filter(|r| r.starts_with([' ', '\t', '[']))
        else {
            match line.is_empty() || line.starts_with("deb-src") {
                true => continue,
                false => return Err((number, "expected `deb` or `deb-src`")),
            }
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or((number, "`[` without `]`"))?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let uri = words.next().ok_or((number, "no address"))?;
        let suite = words.next().ok_or((number, "no suite"))?;
        let mut entry = Entry {
            uris: vec![uri],
            suites: vec![suite],
            components: words.collect(),
            architectures: None,
            signed_by: SignedBy::Default,
            check_valid_until: None,
        };
        for option in options.split_whitespace() {
            let (name, value) = option
                .split_once('=')
                .ok_or((number, "an option is `name=value`"))?;
            match name
                .trim_end_matches(['+', '-'])
                .to_ascii_lowercase()
                .as_str()
            {
                "signed-by" => entry.signed_by = signed_by(value, host_root),
                "arch" if !name.ends_with(['+', '-']) => {
                    entry.architectures = Some(value.split(',').map(str::to_owned).collect());
                }
                "check-valid-until" => entry.check_valid_until = truth(value),
                _ => {}
            }
        }
        out.push(entry);
    }
    Ok(())
}

fn parse_deb822(
    text: &str,
    host_root: &Path,
    out: &mut Vec<Entry>,
) -> Result<(), (usize, &'static str)> {
    for paragraph in Paragraphs::new(text) {
        let paragraph = paragraph.map_err(|e| (e.line, e.reason))?;
        let words = |name: &str| -> Vec<String> {
            value_lines(paragraph.get(name).unwrap_or_default())
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect()
        };
        if !words("Types").iter().any(|t| t == "deb")
            || paragraph.get("Enabled").and_then(truth) == Some(false)
        {
            continue;
        }
        let (uris, suites) = (words("URIs"), words("Suites"));
        if uris.is_empty() {
            return Err((paragraph.line, "no URIs"));
        }
        if suites.is_empty() {
            return Err((paragraph.line, "no Suites"));
        }
        let architectures = words("Architectures");
        out.push(Entry {
            uris,
            suites,
            components: words("Components"),
            architectures: (!architectures.is_empty()).then_some(architectures),
            signed_by: paragraph
                .get("Signed-By")
                .map_or(SignedBy::Default, |v| signed_by(v, host_root)),
            check_valid_until: paragraph.get("Check-Valid-Until").and_then(truth),
        });
    }
    Ok(())
}

fn signed_by(value: &str, host_root: &Path) -> SignedBy {
    if value.contains("-----BEGIN PGP") {
        // Continuation lines are indented, and an empty one is a single full stop.
        let lines = value
            .lines()
            .map(str::trim)
            .map(|l| if l == "." { "" } else { l });
        return SignedBy::Inline(lines.collect::<Vec<_>>().join("\n"));
    }
    let mut files = Vec::new();
    let mut fingerprints = Vec::new();
    for part in value
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|p| !p.is_empty())
    {
        match part.strip_prefix('/') {
            Some(path) => files.push(host_root.join(path)),
            None => fingerprints.push(part.trim_end_matches('!').to_owned()),
        }
    }
    SignedBy::Files(files, fingerprints)
}

fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
