//! The hygiene gate: keys, passwords, tokens and histories that a finished image would hand to whoever starts it.
//!
//! What packages bring is public, so `/usr` (but for `/usr/local`), the databases of package managers and their caches are
//! not searched. Of every other file the names count, and of those up to [`MAX_BYTES`] the content.
//! After the hygiene that AWS asks for in AMIs that are shared
//! (`AWSEC2/latest/UserGuide/building-shared-amis.html`).

use std::collections::{BTreeMap, BTreeSet};

use amiforge_recipe::{Findings, Hygiene};
use amiforge_store::StoredLayer;
use amiforge_tree::{Content, Kind, LayerDiff, LayerEntry, Tree};
use amiforge_types::{BlobTable, Hasher};
use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::cleanup;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::{Made, Touched, Work};
use crate::load::LoadedRecipe;
use crate::settings::Engine;

/// Larger files are not searched: keys and tokens are in small ones.
const MAX_BYTES: u64 = 1 << 20;

/// Findings that are told one by one.
const MAX_TOLD: usize = 50;

/// What texts hold that nobody should find, and what to call it. The part called `secret` is what has to look like one.
const TEXTS: &[(&str, &str)] = &[
    (
        // PEM (RFC 7468) and OpenPGP armour (RFC 9580, 6.2), also in one line of JSON; a header alone is none.
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]|[A-Za-z-]+: [^\n]*)*(?P<secret>[A-Za-z0-9+/]{40})",
        "a private key",
    ),
    (
        r"PuTTY-User-Key-File-\d+: (?P<secret>[^\n]+)",
        "a private key",
    ),
    (
        r"\bAGE-SECRET-KEY-1(?P<secret>[A-Z0-9]{58})\b",
        "a private key",
    ),
    (
        r"\b(?:AKIA|ASIA)(?P<secret>[A-Z0-9]{16})\b",
        "an access key of AWS",
    ),
    (
        r#"(?i)\baws_secret_access_key["']?\s*[=:]\s*["']?(?P<secret>[A-Za-z0-9/+]{40})"#,
        "a secret key of AWS",
    ),
    (
        r"\b(?:gh[pousr]_(?P<secret>[A-Za-z0-9]{36})|github_pat_[A-Za-z0-9_]{50,})",
        "a token of GitHub",
    ),
    (
        r"\bgl(?:pat|rt|dt|ptt)-(?P<secret>[A-Za-z0-9_-]{20})",
        "a token of GitLab",
    ),
    (
        r"\b(?:xox[abprs]|xapp)-(?P<secret>[A-Za-z0-9-]{20,})|hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20}",
        "a token of Slack",
    ),
    (
        r"\bdckr_pat_(?P<secret>[A-Za-z0-9_-]{20})",
        "a token of a container registry",
    ),
    (
        r#":_authToken=["']?(?P<secret>[A-Za-z0-9_./+=-]{16,})"#,
        "a token of a package registry",
    ),
];

/// Different characters that a secret has at least: `xxxxxxxx` and `your-token-here` are none.
const MIN_DIFFERENT: usize = 10;

/// What the documentation of AWS has in its examples of keys.
const EXAMPLE: &[u8] = b"EXAMPLE";

/// Files by the end of their path, what is in them, and what they have to hold to count; empty for anything.
const FILES: &[(&str, &str, &str)] = &[
    (
        ".ssh/authorized_keys",
        "keys that may log in",
        r"(?m)^\s*[^#\s]",
    ),
    (
        "authorized_keys",
        "keys that may log in",
        r"(?m)^[^#\n]*(?:ssh-|ecdsa-|sk-)\S+ AAAA",
    ),
    (
        "authorized_keys2",
        "keys that may log in",
        r"(?m)^[^#\n]*(?:ssh-|ecdsa-|sk-)\S+ AAAA",
    ),
    (".git-credentials", "passwords of repositories", ""),
    (".netrc", "passwords of servers", r"\bpassword\b"),
    (".pgpass", "passwords of databases", r"(?m)^[^#\s]"),
    (
        ".my.cnf",
        "passwords of databases",
        r"(?m)^\s*password\s*=\s*\S",
    ),
    (
        ".pypirc",
        "passwords of package registries",
        r"(?m)^\s*password\s*[=:]\s*\S",
    ),
    (
        ".docker/config.json",
        "passwords of container registries",
        r#""auth"\s*:\s*"[^"]"#,
    ),
    (
        "containers/auth.json",
        "passwords of container registries",
        r#""auth"\s*:\s*"[^"]"#,
    ),
    (".bash_history", "a history of commands", ""),
    (".zsh_history", "a history of commands", ""),
    (".ash_history", "a history of commands", ""),
    (".python_history", "a history of commands", ""),
    (".mysql_history", "a history of commands", ""),
    (".psql_history", "a history of commands", ""),
    (".rediscli_history", "a history of commands", ""),
    (".node_repl_history", "a history of commands", ""),
    (".sqlite_history", "a history of commands", ""),
    (".lesshst", "a history of searches", ""),
    (".viminfo", "a history of edits", ""),
];

/// Databases of users and groups (passwd(5), shadow(5), gshadow(5)) and their copies: the second field is the password.
const PASSWORDS: &[&str] = &[
    "etc/passwd",
    "etc/passwd-",
    "etc/shadow",
    "etc/shadow-",
    "etc/gshadow",
    "etc/gshadow-",
];

/// Something in an image that should not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// With a leading slash.
    path: String,
    what: String,
    /// Title of the layer that put it there, and its step where that is known.
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
        let hygiene = &work.recipe.recipe.amiforge.hygiene;
        let (rules, allowed) = Rules::of(work.recipe).or_fail(ErrorKind::Internal, context)?;
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (planned, layer) in work.plan.layers.iter().zip(&made.layers).rev() {
            let mut of_layer = Vec::new();
            rules
                .search(&layer.diff, &made.blobs, hidden, &mut |path, what| {
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
            let touched = match of_layer.is_empty() {
                true => Touched::default(),
                false => Touched::read(work.store, planned.id),
            };
            found.extend(of_layer.into_iter().map(|(path, what)| {
                let layer = match touched.step(&crate::shown::path(&path)) {
                    Some(step) => format!("{}, step {step}", planned.title),
                    None => planned.title.clone(),
                };
                Finding {
                    path: shown(&path),
                    what,
                    layer,
                }
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
            "{}, or list the paths that are meant to be there in amiforge.hygiene.allow of the recipe; all layers are in the store: `amiforge shell RECIPE` looks around in the image",
            match hidden {
                true => "remove them in the component that makes them, since whoever has the image can read each of its layers",
                false => "remove them in the last step that needs them",
            }
        )))
    }
}

impl Engine {
    /// What of a layer nobody may see who is handed the layer alone: a line for each finding that the recipe does not allow.
    pub(crate) fn layer_findings(
        &self,
        recipe: &LoadedRecipe,
        layer: &StoredLayer,
        blobs: &BlobTable,
    ) -> Result<Vec<String>, EngineError> {
        let context = || "cannot search a layer for secrets".to_owned();
        let (rules, allowed) = Rules::of(recipe).or_fail(ErrorKind::Internal, context)?;
        let mut found = BTreeSet::new();
        rules
            .search(&layer.diff, blobs, true, &mut |path, what| {
                if !allowed.is_match(path) {
                    found.insert(format!("{}: {what}", shown(path)));
                }
            })
            .or_fail(ErrorKind::Failed, context)?;
        Ok(found.into_iter().collect())
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

/// Keys and tokens are ASCII. A `\b` of Unicode would leave the fast automata at the first other byte of a file.
fn of_bytes(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}

struct Rules {
    texts: Vec<(Regex, &'static str)>,
    any_text: RegexSet,
    files: Vec<(&'static str, &'static str, Regex)>,
    /// Values of secrets that steps of this build were lent.
    lent: Vec<(Regex, String)>,
}

impl Rules {
    /// The rules with the secrets that steps of a recipe were lent, and the paths that it allows.
    fn of(recipe: &LoadedRecipe) -> Result<(Self, RegexSet), regex::Error> {
        let rules = Self::new()?.knowing(recipe.step_secrets.known())?;
        Ok((rules, patterns(&recipe.recipe.amiforge.hygiene.allow)?))
    }

    fn new() -> Result<Self, regex::Error> {
        let texts = TEXTS
            .iter()
            .map(|(pattern, what)| Ok((of_bytes(pattern)?, *what)));
        let files = FILES
            .iter()
            .map(|(name, what, holds)| Ok((*name, *what, of_bytes(holds)?)));
        Ok(Self {
            texts: texts.collect::<Result<_, regex::Error>>()?,
            any_text: RegexSetBuilder::new(TEXTS.iter().map(|(pattern, _)| pattern))
                .unicode(false)
                .build()?,
            files: files.collect::<Result<_, regex::Error>>()?,
            lent: Vec::new(),
        })
    }

    /// The same, and values of secrets by their names.
    fn knowing<'s>(
        mut self,
        secrets: impl Iterator<Item = (&'s str, &'s [u8])>,
    ) -> Result<Self, regex::Error> {
        for (name, value) in secrets {
            let bytes = value.trim_ascii().iter();
            let bytes: String = bytes.map(|b| format!("\\x{b:02x}")).collect();
            let mut pattern = RegexBuilder::new(&format!("(?-u:{bytes})"));
            // One of half a megabyte needs more than the default.
            let pattern = pattern.size_limit(256 << 20).build()?;
            self.lent.push((pattern, format!("the secret {name}")));
        }
        Ok(self)
    }

    /// Tells what a layer has. `alone`: what no image has of it is left out; who has the image's tree knows better.
    fn search(
        &self,
        diff: &LayerDiff,
        blobs: &BlobTable,
        alone: bool,
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
                .filter(|name| !(is_public(name) || alone && cleanup::is_dropped(name)))
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
        let bytes = match content.size <= MAX_BYTES {
            true => content.read_to_vec(blobs, MAX_BYTES)?,
            false => Vec::new(),
        };
        let mut held: Vec<&str> = Vec::new();
        for number in self.any_text.matches(&bytes) {
            let (pattern, what) = &self.texts[number];
            if pattern.captures_iter(&bytes).any(|found| is_secret(&found)) && !held.contains(what)
            {
                held.push(what);
            }
        }
        for path in names {
            let ends = |name: &str| {
                path.strip_suffix(name.as_bytes())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with(b"/"))
            };
            let known = self.files.iter().find(|(name, _, holds)| {
                // Of one that is too large to be searched, the name is enough.
                ends(name) && (bytes.is_empty() || holds.is_match(&bytes))
            });
            if let Some((_, what, _)) = known {
                tell(path, what);
            }
            for what in &held {
                tell(path, what);
            }
            for (value, what) in &self.lent {
                if value.is_match(&bytes) {
                    tell(path, what);
                }
            }
            if PASSWORDS.iter().any(|name| *path == name.as_bytes()) {
                passwords(&bytes, path.starts_with(b"etc/gshadow"), &mut |what| {
                    tell(path, what)
                });
            }
        }
        Ok(())
    }
}

/// Whether what was found is more than the form of a secret.
fn is_secret(found: &Captures<'_>) -> bool {
    let Some(secret) = found.name("secret").map(|found| found.as_bytes()) else {
        return true;
    };
    let different: BTreeSet<u8> = secret.iter().copied().collect();
    let example = secret.windows(EXAMPLE.len()).any(|part| part == EXAMPLE);
    different.len() >= MIN_DIFFERENT && !example
}

/// A path with a leading slash, on one line whatever is in it.
fn shown(path: &[u8]) -> String {
    let mut out = String::from("/");
    for c in String::from_utf8_lossy(path).chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Users or groups that a password, or none, lets in. One that is locked (`!` before it) is there to be found out all the
/// same. No password at all is the rule for groups.
fn passwords(text: &[u8], groups: bool, tell: &mut dyn FnMut(&str)) {
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(user), Some(password)) = (fields.next(), fields.next()) else {
            continue;
        };
        let user = shown(user);
        let user = user.trim_start_matches('/');
        let locked = password.iter().take_while(|b| **b == b'!').count();
        let hash = &password[locked..];
        if password.is_empty() && !groups {
            tell(&format!("{user} needs no password to log in"));
        } else if hash.starts_with(b"$") || hash.len() >= 13 {
            tell(&format!("the hash of a password of {user}"));
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
pub(crate) fn patterns(allow: &[String]) -> Result<RegexSet, regex::Error> {
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
            .search(&diff, &BlobTable::new(), true, &mut |path, what| {
                found.push((String::from_utf8_lossy(path).into_owned(), what.to_owned()));
            })
            .unwrap();
        found
    }

    #[test]
    fn secrets_are_known_by_name_or_content() {
        let body = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB";
        let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n");
        let armour = format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n{body}\n");
        let encrypted =
            format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{body}\n");
        let json = format!("{{\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n{body}\\n\"}}");
        let all = [
            ("etc/app.pem", key.as_str(), "a private key"),
            ("opt/k", &armour, "a private key"),
            ("opt/k", &encrypted, "a private key"),
            ("opt/gcp.json", &json, "a private key"),
            (
                "srv/env",
                "KEY=AKIAI44QH8DHBRT7QW3X\n",
                "an access key of AWS",
            ),
            (
                "home/u/.aws/credentials",
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYq8Zr3aBcDe\n",
                "a secret key of AWS",
            ),
            (
                "srv/a.json",
                "{\"aws_secret_access_key\": \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYq8Zr3aBcDe\"}",
                "a secret key of AWS",
            ),
            (
                "root/.ssh/authorized_keys",
                "ssh-ed25519 AAAA\n",
                "keys that may log in",
            ),
            (
                "etc/skel/.ssh/authorized_keys",
                "ssh-ed25519 AAAA\n",
                "keys that may log in",
            ),
            (
                "data/rssh/authorized_keys",
                "command=\"x\" ssh-rsa AAAAB3\n",
                "keys that may log in",
            ),
            ("srv/u/.zsh_history", "ls\n", "a history of commands"),
            (
                "root/.docker/config.json",
                "{\"auths\":{\"r\":{\"auth\": \"eA==\"}}}",
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
            (
                "etc/shadow-",
                "root:$y$j9T$x$y:1:::::\n",
                "the hash of a password of root",
            ),
            (
                "etc/shadow",
                "u:!$6$salt$hash:1:::::\n",
                "the hash of a password of u",
            ),
            ("etc/shadow", "u::1:::::\n", "u needs no password to log in"),
            (
                "etc/passwd",
                "u::1000:1000::/home/u:/bin/sh\n",
                "u needs no password to log in",
            ),
            (
                "etc/gshadow",
                "g:$6$salt$hash::\n",
                "the hash of a password of g",
            ),
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
        let key = Content::bytes(
            *b"-----BEGIN PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n",
        );
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
        rules
            .search(&diff, &BlobTable::new(), true, &mut tell)
            .unwrap();
        assert_eq!(found, ["keys that may log in", "a private key"]);
        assert_eq!(shown(b"a\n/x"), "/a\\n/x");
    }

    #[test]
    fn what_is_public_or_meant_is_no_secret() {
        let key =
            "-----BEGIN PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n";
        let none = found(&[
            (
                "etc/shadow",
                "root:*:1:::::\ndaemon:!:1:::::\nu:!!:1:::::\nv:!*:1:::::\n",
            ),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("etc/gshadow", "g:!::\nh:::\n"),
            ("etc/ssl/app.crt", "-----BEGIN CERTIFICATE-----\n"),
            ("etc/ssh/key.pub", "ssh-rsa AAAA\n"),
            (
                "srv/doc",
                "AKIAIOSFODNN7EXAMPLE and -----BEGIN PUBLIC KEY-----\n",
            ),
            (
                "srv/aws",
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
            ),
            (
                "usr/local/lib/pem.py",
                "if x.startswith('-----BEGIN RSA PRIVATE KEY-----'):\n    return\n",
            ),
            (
                "srv/README",
                "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
            ),
            (
                "srv/env",
                "A=AKIAXXXXXXXXXXXXXXXX B=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx C=xoxb-your-token\n",
            ),
            ("usr/share/doc/x/key.pem", key),
            ("tmp/key", key),
            ("etc/ssh/ssh_host_rsa_key", key),
            ("root/.ssh/authorized_keys", "# none yet\n"),
            (
                "root/.aws/credentials",
                "[default]\ncredential_process = /usr/bin/x\n",
            ),
            ("root/.my.cnf", "[client]\nuser = x\n"),
            ("root/.docker/config.json", "{\"credsStore\":\"pass\"}"),
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
