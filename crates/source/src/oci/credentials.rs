//! Who we are to a registry: the files in which `docker login` and `podman login` keep it, and their helpers.
//!
//! ```json
//! {
//!   "auths": {"ghcr.io": {"auth": "<base64 of user:password>"}},
//!   "credHelpers": {"x.example": "pass"},
//!   "credsStore": "secretservice"
//! }
//! ```
//!
//! Of a file, a helper named for the registry counts before what `auths` has, and that before the store for all
//! (docker-login(1), containers-auth.json(5), docker/docker-credential-helpers). Nothing of a file or of a helper's
//! answer is in an error.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::Reference;

/// Largest file or answer of a helper.
const MAX_BYTES: u64 = 1 << 20;
/// How long a helper may take: it may ask its user.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// The key of Docker's registry.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What shows a registry who we are. Its `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that gets others (OAuth 2 refresh token).
    Identity(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
        })
    }
}

impl Credential {
    /// The value of `Authorization` for a name and password.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => Some(format!(
                "Basic {}",
                BASE64.encode(format!("{user}:{password}"))
            )),
            Self::Identity(_) => None,
        }
    }
}

/// The files to look in, in order.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// Those that there are not are passed over.
    pub paths: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: BTreeMap<String, Auth>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl CredentialFiles {
    /// The credential for the registry of a reference.
    ///
    /// # Errors
    /// Why a file or helper gives none: its name and what is wrong with it.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credential>, String> {
        for path in &self.paths {
            let name = path.display();
            let mut bytes = Vec::new();
            match std::fs::File::open(path) {
                Ok(file) => file
                    .take(MAX_BYTES)
                    .read_to_end(&mut bytes)
                    .map_err(|e| format!("{name}: {e}"))?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(format!("{name}: {e}")),
            };
            // What serde says could have a secret in it.
            let file: File = serde_json::from_slice(&bytes).map_err(|e| {
                format!(
                    "{name}:{}:{}: not a file of credentials",
                    e.line(),
                    e.column()
                )
            })?;
            if let Some(found) = file.find(reference).map_err(|e| format!("{name}: {e}"))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl File {
    fn find(&self, reference: &Reference) -> Result<Option<Credential>, String> {
        let registry = reference.registry();
        let server = if registry == "docker.io" {
            DOCKER_KEY
        } else {
            registry
        };
        let helper = self
            .cred_helpers
            .iter()
            .find(|(key, _)| plain_key(key) == registry);
        if let Some((_, helper)) = helper {
            return ask(helper, server);
        }
        // The most exact key first: a repository, the folders above it, the registry.
        let mut scope = reference.name();
        loop {
            for (key, auth) in &self.auths {
                if plain_key(key) == scope
                    && let Some(found) = auth.credential(key)?
                {
                    return Ok(Some(found));
                }
            }
            match scope.rfind('/') {
                Some(at) => scope.truncate(at),
                None => break,
            }
        }
        match self.creds_store.is_empty() {
            true => Ok(None),
            false => ask(&self.creds_store, server),
        }
    }
}

/// A key without scheme and version: `https://index.docker.io/v1/` is `docker.io`.
fn plain_key(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, rest) = match key.find('/') {
        Some(at) => key.split_at(at),
        None => (key, ""),
    };
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    format!("{host}{rest}")
}

impl Auth {
    fn credential(&self, key: &str) -> Result<Option<Credential>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok((!self.username.is_empty()).then(|| Credential::Password {
                user: self.username.clone(),
                password: self.password.clone(),
            }));
        }
        let bad = || format!("auth of {key:?} is not the base64 of name:password");
        let bytes = BASE64.decode(self.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        Ok(Some(Credential::Password {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        }))
    }
}

/// Asks `docker-credential-<helper>`.
fn ask(helper: &str, server: &str) -> Result<Option<Credential>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(plain) {
        return Err(format!("{helper:?} is not the name of a helper"));
    }
    let program = format!("docker-credential-{helper}");
    let fail = |e: std::io::Error| format!("{program}: {e}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has no need to.
        let _ = stdin.write_all(format!("{server}\n").as_bytes());
    }
    let stdout = child.stdout.take();
    let (sender, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(MAX_BYTES).read_to_end(&mut bytes);
        }
        // Whoever gave up listens no more.
        let _ = sender.send(bytes);
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(fail)? {
            Some(status) => break status,
            None if start.elapsed() > HELPER_TIME => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} does not answer"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    // What it left running may hold its output open.
    let left = HELPER_TIME.saturating_sub(start.elapsed());
    let bytes = answer
        .recv_timeout(left)
        .map_err(|_| format!("{program} does not end its answer"))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&bytes);
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("{program} failed: {status}")),
        };
    }
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| format!("{program}: the answer is not a credential"))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::Identity(answer.secret),
        _ => Credential::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, reference: &str) -> Result<Option<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        let files = CredentialFiles {
            paths: vec![dir.path().join("absent"), path],
        };
        let found = files.find(&reference.parse().unwrap())?;
        Ok(found.map(|c| match c {
            Credential::Password { user, password } => format!("{user}:{password}"),
            Credential::Identity(token) => token,
        }))
    }

    #[test]
    fn the_most_exact_key_counts() {
        let b64 = |text: &str| BASE64.encode(text);
        let json = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{}"}},
                "ghcr.io/x/y": {{"auth": "{}"}},
                "ghcr.io/x": {{"auth": "{}"}},
                "https://GHCR.io": {{"username": "u", "password": "p"}},
                "t.io": {{"identitytoken": "T"}},
                "empty.io": {{}}
            }}, "credsStore": ""}}"#,
            b64("hub:a:b"),
            b64("y:1"),
            b64("x:2"),
        );
        for (reference, found) in [
            ("debian", Some("hub:a:b")),
            ("ghcr.io/x/y", Some("y:1")),
            ("ghcr.io/x/z", Some("x:2")),
            ("ghcr.io/xx", Some("u:p")),
            ("t.io/a", Some("T")),
            ("empty.io/a", None),
            ("other.io/a", None),
        ] {
            assert_eq!(
                find(&json, reference).unwrap().as_deref(),
                found,
                "{reference}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for (json, text) in [
            (r#"{"auths": {"a.io": {"auth": "c2VjcmV0"}}}"#, "base64"),
            (r#"{"auths": {"a.io": {"auth": "secret!"}}}"#, "base64"),
            (r#"{"auths": {"a.io": "secret"}}"#, "auth.json:1:"),
            (
                r#"{"credsStore": "../secret/x"}"#,
                "not the name of a helper",
            ),
            (
                r#"{"credsStore": "of-no-such-name"}"#,
                "docker-credential-of-no-such-name",
            ),
        ] {
            let error = find(json, "a.io/x").unwrap_err();
            assert!(error.contains(text), "{error}");
            assert!(!error.contains("secret") || json.contains("../"), "{error}");
        }
        let secret = Credential::Identity("secret".to_owned());
        assert_eq!(format!("{secret:?}"), "Identity");
    }
}
