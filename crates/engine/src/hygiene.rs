//! The hygiene gate: keys, passwords, tokens and histories that a finished image would hand to whoever starts it.
//!
//! What packages bring is public, so `/usr` (but for `/usr/local`), the databases of package managers and their caches are
//! not searched. Of every other file the name counts, and of those up to [`MAX_BYTES`] the content.
//! After the hygiene that AWS asks for in AMIs that are shared
//! (`AWSEC2/latest/UserGuide/building-shared-amis.html`).

use std::collections::{BTreeMap, BTreeSet};

use amiforge_recipe::{Findings, Hygiene};
use amiforge_tree::{Content, Kind, LayerDiff, LayerEntry, Tree};
use amiforge_types::{BlobTable, Hasher};
use regex::bytes::{Regex, RegexSet};

use crate::assemble;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{Made, Work};
use crate::settings::Engine;

/// Larger files are not searched: keys and tokens are in small ones.
const MAX_BYTES: u64 = 1 << 20;

/// Findings that are told one by one.
const MAX_TOLD: usize = 50;

/// What is in `/etc/shadow` of a user that no password lets in (shadow(5)); also whatever begins with `!` or `*`.
const LOCKED: &[u8] = b"!*";

/// Id of an access key of AWS, and how those end that its documentation shows.
const AWS_KEY: &str = r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b";
const EXAMPLE: &[u8] = b"EXAMPLE";

/// What texts hold that nobody should find, and what to call it.
const TEXTS: &[(&str, &str)] = &[
    (
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
        "a private key",
    ),
    (
        r#"(?i)\baws_secret_access_key["']?\s*[=:]\s*["']?[A-Za-z0-9/+]{40}"#,
        "a secret key of AWS",
    ),
    (
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})",
        "a token of GitHub",
    ),
    (r"\bglpat-[A-Za-z0-9_-]{20}", "a token of GitLab"),
    (r"\bxox[abprs]-[A-Za-z0-9-]{10,}", "a token of Slack"),
    (r":_authToken=\S", "a token of a package registry"),
];

/// Files of a user's folder, and what is in them.
const HOME_FILES: &[(&str, &str)] = &[
    (".ssh/authorized_keys", "keys that may log in"),
    (".aws/credentials", "credentials of AWS"),
    (".git-credentials", "passwords of repositories"),
    (".netrc", "passwords of servers"),
    (".pgpass", "passwords of databases"),
    (".my.cnf", "passwords of databases"),
    (".pypirc", "passwords of package registries"),
    (".bash_history", "a history of commands"),
    (".zsh_history", "a history of commands"),
    (".ash_history", "a history of commands"),
    (".python_history", "a history of commands"),
    (".mysql_history", "a history of commands"),
    (".psql_history", "a history of commands"),
    (".rediscli_history", "a history of commands"),
    (".node_repl_history", "a history of commands"),
    (".sqlite_history", "a history of commands"),
    (".lesshst", "a history of searches"),
    (".viminfo", "a history of edits"),
];

/// Something in an image that should not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// With a leading slash.
    path: String,
    what: String,
    /// Title of the layer that put it there.
    layer: String,
}

impl Engine {
    /// Looks through what a build made. `hidden`: also what higher layers cover, which whoever has the layers can read.
    pub(crate) fn hygiene(
        &self,
        work: &Work<'_>,
        made: &Made,
        tree: &Tree,
        hidden: bool,
    ) -> Result<(), EngineError> {
        let context = || "cannot search the image for secrets".to_owned();
        let rules = Rules::new().or_fail(ErrorKind::Internal, context)?;
        let hygiene = &work.recipe.recipe.amiforge.hygiene;
        let allowed = patterns(&hygiene.allow).or_fail(ErrorKind::Internal, context)?;
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (planned, layer) in work.plan.layers.iter().zip(&made.layers).rev() {
            let mut of_layer = Vec::new();
            rules
                .search(&layer.diff, &made.blobs, &mut |path, what| {
                    let is_there = hidden || tree.lookup(path).is_some();
                    if is_there && !allowed.is_match(path) {
                        of_layer.push((path.to_vec(), what.to_owned()));
                    }
                })
                .or_fail(ErrorKind::Failed, context)?;
            // Of a path, the layer that put what is seen: the highest one.
            of_layer.retain(|(path, _)| hidden || !seen.contains(path));
            if !hidden {
                seen.extend(layer.diff.entries.keys().cloned());
            }
            found.extend(of_layer.into_iter().map(|(path, what)| Finding {
                path: format!("/{}", String::from_utf8_lossy(&path)),
                what,
                layer: planned.title.clone(),
            }));
        }
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by(|a, b| (&a.path, &a.what).cmp(&(&b.path, &b.what)));
        let mut lines: Vec<String> = found
            .iter()
            .take(MAX_TOLD)
            .map(|f| format!("{}: {} (from {})", f.path, f.what, f.layer))
            .collect();
        if found.len() > MAX_TOLD {
            lines.push(format!("and {} more", found.len() - MAX_TOLD));
        }
        if hygiene.findings == Findings::Warning {
            lines.into_iter().for_each(|line| self.warn(line));
            return Ok(());
        }
        Err(EngineError::new(
            ErrorKind::Failed,
            format!(
                "whoever starts the image would find secrets in it\n  {}",
                lines.join("\n  ")
            ),
        )
        .with_hint(format!(
            "{}, or list the paths that are meant to be there in amiforge.hygiene.allow of the recipe",
            match hidden {
                true => "remove them in the component that makes them, since whoever has the image can read each of its layers",
                false => "remove them in the last step that needs them",
            }
        )))
    }
}

/// Raise it when more is found.
const RULES_VERSION: &[u8] = b"amiforge-hygiene-v1";

/// What an output that was held against it is known by.
pub(crate) fn key(hygiene: &Hygiene) -> String {
    let mut hasher = Hasher::new();
    hasher.field(RULES_VERSION);
    hasher.field(match hygiene.findings {
        Findings::Error => b"error",
        Findings::Warning => b"warning",
    });
    for path in &hygiene.allow {
        hasher.field(path.as_bytes());
    }
    hasher.finish().hex()
}

struct Rules {
    texts: RegexSet,
    aws_key: Regex,
    home: Regex,
}

impl Rules {
    fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            texts: RegexSet::new(TEXTS.iter().map(|(pattern, _)| pattern))?,
            aws_key: Regex::new(AWS_KEY)?,
            home: Regex::new(r"(?s-u)^(?:root|home/[^/]+)/(.+)$")?,
        })
    }

    fn search(
        &self,
        diff: &LayerDiff,
        blobs: &BlobTable,
        tell: &mut dyn FnMut(&[u8], &str),
    ) -> std::io::Result<()> {
        // A file has every name that leads to it.
        let mut links: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for (path, entry) in &diff.entries {
            if let LayerEntry::Link(target) = entry {
                links.entry(target).or_default().push(path);
            }
        }
        for (path, entry) in &diff.entries {
            let LayerEntry::Put(inode) = entry else {
                continue;
            };
            let Kind::File(content) = &inode.kind else {
                continue;
            };
            if content.size == 0 {
                continue;
            }
            let others = links.get(path.as_slice()).into_iter().flatten().copied();
            let names: Vec<&[u8]> = std::iter::once(path.as_slice())
                .chain(others)
                .filter(|name| !is_public(name) && !assemble::is_dropped(name))
                .collect();
            if !names.is_empty() {
                self.file(&names, content, blobs, tell)?;
            }
        }
        Ok(())
    }

    fn file(
        &self,
        names: &[&[u8]],
        content: &Content,
        blobs: &BlobTable,
        tell: &mut dyn FnMut(&[u8], &str),
    ) -> std::io::Result<()> {
        let small = content.size <= MAX_BYTES;
        let bytes = match small {
            true => content.read_to_vec(blobs, MAX_BYTES)?,
            false => Vec::new(),
        };
        let mut held: Vec<&str> = self
            .texts
            .matches(&bytes)
            .iter()
            .map(|n| TEXTS[n].1)
            .collect();
        let mut keys = self.aws_key.find_iter(&bytes);
        if keys.any(|key| !key.as_bytes().ends_with(EXAMPLE)) {
            held.push("an access key of AWS");
        }
        for path in names {
            let home = self.home.captures(path).and_then(|found| found.get(1));
            let name = home.map(|name| name.as_bytes());
            let known = HOME_FILES
                .iter()
                .find(|(file, _)| name == Some(file.as_bytes()));
            if let Some((_, what)) = known {
                tell(path, what);
            }
            for what in &held {
                tell(path, what);
            }
            if name.is_some_and(|name| LOGINS.contains(&name)) && has_text(&bytes, b"\"auth\"") {
                tell(path, "passwords of container registries");
            }
            if matches!(*path, b"etc/shadow" | b"etc/shadow-") {
                shadow(&bytes, &mut |what| tell(path, what));
            }
        }
        Ok(())
    }
}

/// Where logins of container registries are kept, in a user's folder.
const LOGINS: &[&[u8]] = &[b".docker/config.json", b".config/containers/auth.json"];

fn has_text(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}

/// Users that a password, or none, lets in (shadow(5)).
fn shadow(text: &[u8], tell: &mut dyn FnMut(&str)) {
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(user), Some(password)) = (fields.next(), fields.next()) else {
            continue;
        };
        let user = String::from_utf8_lossy(user);
        match password.first() {
            None => tell(&format!("{user} needs no password to log in")),
            Some(first) if LOCKED.contains(first) => {}
            Some(_) => tell(&format!("the hash of a password of {user}")),
        }
    }
}

/// Where only packages write.
fn is_public(path: &[u8]) -> bool {
    const PUBLIC: &[&str] = &[
        "usr/",
        "var/lib/dpkg/",
        "var/lib/apt/",
        "var/lib/rpm/",
        "var/cache/",
        "etc/ssl/certs/",
    ];
    let below = |dir: &str| path.starts_with(dir.as_bytes());
    PUBLIC.iter().any(|dir| below(dir)) && !below("usr/local/")
}

/// Matches paths without leading slash.
fn patterns(allow: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSet::new(allow.iter().map(|path| {
        let mut pattern = String::from("(?s-u)^");
        let names = path.strip_prefix('/').unwrap_or(path);
        for (at, part) in names.split("**").enumerate() {
            if at > 0 {
                pattern.push_str(".*");
            }
            let parts: Vec<String> = part.split('*').map(regex::escape).collect();
            pattern.push_str(&parts.join("[^/]*"));
        }
        pattern.push('$');
        pattern
    }))
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Inode, Stat};
    use amiforge_types::Timestamp;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let stat = Stat {
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let entries = files.iter().map(|(path, text)| {
            let content = Content::bytes(text.as_bytes());
            let inode = Inode::new(stat, Kind::File(content));
            (path.as_bytes().to_vec(), LayerEntry::Put(inode))
        });
        let diff = LayerDiff {
            entries: entries.collect(),
        };
        let mut found = Vec::new();
        let rules = Rules::new().unwrap();
        rules
            .search(&diff, &BlobTable::new(), &mut |path, what| {
                found.push((String::from_utf8_lossy(path).into_owned(), what.to_owned()));
            })
            .unwrap();
        found
    }

    #[test]
    fn secrets_are_known_by_name_or_content() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n";
        let all = [
            ("etc/app.pem", key, "a private key"),
            (
                "opt/k",
                "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
                "a private key",
            ),
            (
                "srv/env",
                "KEY=AKIAI44QH8DHBEXAMPLX\n",
                "an access key of AWS",
            ),
            (
                "home/u/.aws/credentials",
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
                "credentials of AWS",
            ),
            (
                "root/.ssh/authorized_keys",
                "ssh-ed25519 AAAA\n",
                "keys that may log in",
            ),
            ("home/u/.zsh_history", "ls\n", "a history of commands"),
            (
                "root/.docker/config.json",
                "{\"auths\":{\"r\":{\"auth\":\"eA==\"}}}",
                "passwords of container registries",
            ),
            (
                "usr/local/bin/run",
                "T=ghp_0123456789abcdefghijABCDEFGHIJ012345\n",
                "a token of GitHub",
            ),
            (
                "etc/shadow",
                "root:$y$j9T$x$y:1:::::\n",
                "the hash of a password of root",
            ),
            ("etc/shadow", "u::1:::::\n", "u needs no password to log in"),
        ];
        for (path, text, what) in all {
            let found = found(&[(path, text)]);
            assert!(found.iter().any(|f| f.1 == what), "{path}: {found:?}");
        }
    }

    #[test]
    fn every_name_of_a_file_counts() {
        let stat = Stat {
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let key = Content::bytes(*b"-----BEGIN PRIVATE KEY-----\n");
        let link = |to: &str| LayerEntry::Link(to.as_bytes().to_vec());
        let entries = [
            (
                "etc/ssh/ssh_host_rsa_key",
                LayerEntry::Put(Inode::new(stat, Kind::File(key))),
            ),
            (
                "home/\u{fffd}/.ssh/authorized_keys",
                link("etc/ssh/ssh_host_rsa_key"),
            ),
            ("usr/share/key", link("etc/ssh/ssh_host_rsa_key")),
        ];
        let diff = LayerDiff {
            entries: entries
                .into_iter()
                .map(|(path, entry)| (path.as_bytes().to_vec(), entry))
                .collect(),
        };
        let mut found = Vec::new();
        let mut tell = |_: &[u8], what: &str| found.push(what.to_owned());
        let rules = Rules::new().unwrap();
        rules.search(&diff, &BlobTable::new(), &mut tell).unwrap();
        assert_eq!(found, ["keys that may log in", "a private key"]);
    }

    #[test]
    fn what_is_public_or_meant_is_no_secret() {
        let none = found(&[
            (
                "etc/shadow",
                "root:*:1:::::\ndaemon:!:1:::::\nu:!$6$x:1:::::\n",
            ),
            ("etc/ssl/app.crt", "-----BEGIN CERTIFICATE-----\n"),
            ("etc/ssh/key.pub", "ssh-rsa AAAA\n"),
            (
                "srv/doc",
                "AKIAIOSFODNN7EXAMPLE and -----BEGIN PUBLIC KEY-----\n",
            ),
            ("usr/share/doc/x/key.pem", "-----BEGIN PRIVATE KEY-----\n"),
            ("root/.ssh/authorized_keys", ""),
            ("root/.docker/config.json", "{\"credsStore\":\"pass\"}"),
            ("srv/.bash_history", "ls\n"),
            ("tmp/key", "-----BEGIN PRIVATE KEY-----\n"),
            ("etc/ssh/ssh_host_rsa_key", "-----BEGIN PRIVATE KEY-----\n"),
        ]);
        assert_eq!(none, []);
    }

    #[test]
    fn allowed_paths_are_whole_and_stars_stop_at_names() {
        let set = patterns(&[
            "/etc/a*.key".to_owned(),
            "/opt/**".to_owned(),
            "/srv/(x)".to_owned(),
        ])
        .unwrap();
        for (path, is) in [
            ("etc/a.key", true),
            ("etc/app.key", true),
            ("etc/a/b.key", false),
            ("etc/a.keys", false),
            ("x/etc/a.key", false),
            ("opt/x/y", true),
            ("srv/(x)", true),
            ("srv/x", false),
        ] {
            assert_eq!(set.is_match(path.as_bytes()), is, "{path}");
        }
        assert!(!patterns(&[]).unwrap().is_match(b"etc/x"));
    }
}
