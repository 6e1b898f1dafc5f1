//! Who writes to a shared cache: Ed25519 keys (RFC 8032).
//!
//! ```text
//! <AMIFORGE_HOME>/cache-key   "amiforge-cache-key 1", then 64 hex digits; mode 0600
//! ed25519:<64 hex digits>     the public half, as it is shown and trusted
//! ```

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use amiforge_types::Digest;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// First line of a key's file.
const FORMAT: &str = "amiforge-cache-key 1";
/// What public keys begin with.
const KIND: &str = "ed25519:";

/// The public key of a writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CacheWriter(VerifyingKey);

impl fmt::Display for CacheWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}{}", Digest::from_bytes(self.0.to_bytes()).hex())
    }
}

impl fmt::Debug for CacheWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for CacheWriter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix(KIND).filter(|hex| hex.len() == 64);
        let bytes: Option<Digest> = hex.and_then(|hex| hex.parse().ok());
        let bytes = bytes.ok_or("not `ed25519:` and 64 hex digits")?;
        match VerifyingKey::from_bytes(bytes.as_bytes()) {
            // Anybody can sign for a key of small order.
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err("no public key of Ed25519".to_owned()),
        }
    }
}

impl CacheWriter {
    /// What stands for it in names of entries.
    pub(super) fn short(&self) -> String {
        Digest::from_bytes(self.0.to_bytes()).hex()[..16].to_owned()
    }

    /// Whether it signed the message.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

/// The key of a writer.
pub(crate) struct WriterKey(SigningKey);

impl WriterKey {
    /// Reads a key; `None` when there is no file.
    fn load(path: &Path) -> Result<Option<Self>, EngineError> {
        let context = || format!("the key of the shared cache, {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).or_fail(ErrorKind::Environment, context),
        };
        let fail = |what: &str| {
            let message = format!("{}: {what}", context());
            EngineError::new(ErrorKind::Environment, message)
        };
        let mode = std::fs::metadata(path)
            .or_fail(ErrorKind::Environment, context)?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            let how = format!("chmod 600 {}", path.display());
            return Err(fail("others than its owner may use it").with_hint(how));
        }
        let mut lines = text.lines();
        let secret: Option<Digest> = match (lines.next(), lines.next(), lines.next()) {
            (Some(FORMAT), Some(hex), None) => hex.parse().ok(),
            _ => None,
        };
        let secret = secret.ok_or_else(|| fail("not a key of this version"))?;
        Ok(Some(Self(SigningKey::from_bytes(secret.as_bytes()))))
    }

    /// The public half.
    pub(super) fn writer(&self) -> CacheWriter {
        CacheWriter(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    #[cfg(test)]
    pub(super) fn of(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }
}

impl Engine {
    /// Where this user's key is, or would be.
    fn cache_key_path(&self) -> PathBuf {
        let home = self.settings.home.store.parent();
        home.unwrap_or(Path::new(".")).join("cache-key")
    }

    /// The key in `file`, or this user's.
    pub(super) fn writer_key(&self, file: Option<&Path>) -> Result<Option<WriterKey>, EngineError> {
        let own = self.cache_key_path();
        match (WriterKey::load(file.unwrap_or(&own))?, file) {
            (None, Some(file)) => Err(EngineError::new(
                ErrorKind::Environment,
                format!("there is no key {}", file.display()),
            )),
            (found, _) => Ok(found),
        }
    }

    /// Makes this user's key, by which layers in shared caches are known. The public half.
    ///
    /// # Errors
    /// When there is one already: what others trust is not replaced.
    pub fn new_cache_key(&self) -> Result<CacheWriter, EngineError> {
        let path = self.cache_key_path();
        let context = || format!("cannot write {}", path.display());
        if let Some(dir) = path.parent() {
            fs_err::create_dir_all(dir).or_fail(ErrorKind::Failed, context)?;
        }
        let mut secret = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut secret))
            .or_fail(ErrorKind::Environment, || "no random bytes".to_owned())?;
        let text = format!("{FORMAT}\n{}\n", Digest::from_bytes(secret).hex());
        // Complete under its name, or not there; and never over another.
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut temp = tempfile::NamedTempFile::new_in(dir).or_fail(ErrorKind::Failed, context)?;
        std::io::Write::write_all(&mut temp, text.as_bytes())
            .and_then(|()| temp.as_file().sync_all())
            .or_fail(ErrorKind::Failed, context)?;
        if let Err(e) = temp.persist_noclobber(&path) {
            if e.error.kind() == std::io::ErrorKind::AlreadyExists {
                let message = format!("there is a key already, {}", path.display());
                return Err(EngineError::new(ErrorKind::Invalid, message)
                    .with_hint("`amiforge cache key show` shows its public half; remove the file to make another, which nobody trusts yet"));
            }
            return Err(e.error).or_fail(ErrorKind::Failed, context);
        }
        Ok(WriterKey(SigningKey::from_bytes(&secret)).writer())
    }

    /// The public half of this user's key.
    ///
    /// # Errors
    /// When there is none.
    pub fn cache_key(&self) -> Result<CacheWriter, EngineError> {
        match self.writer_key(None)? {
            Some(key) => Ok(key.writer()),
            None => Err(no_key(&self.cache_key_path())),
        }
    }

    /// The key that writing takes.
    pub(super) fn needed_key(&self, file: Option<&Path>) -> Result<WriterKey, EngineError> {
        let key = self.writer_key(file)?;
        key.ok_or_else(|| no_key(&self.cache_key_path()))
    }
}

fn no_key(path: &Path) -> EngineError {
    let message = format!("there is no key to sign layers with, {}", path.display());
    EngineError::new(ErrorKind::Environment, message).with_hint(
        "`amiforge cache key new` makes one; give its public half to those who are to trust it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_as_text() {
        let writer = WriterKey::of(1).writer();
        assert_eq!(writer.to_string().parse(), Ok(writer));
        assert_eq!(writer.to_string().len(), KIND.len() + 64);
        for bad in [
            "",
            "ed25519:",
            "ed25519:00",
            "rsa:0000000000000000000000000000000000000000000000000000000000000000",
            // Of small order: the identity.
            "ed25519:0100000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert!(bad.parse::<CacheWriter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_its_own_signatures_of_the_same_bytes() {
        let (one, two) = (WriterKey::of(1), WriterKey::of(2));
        let signature = one.sign(b"message");
        assert!(one.writer().signed(b"message", &signature));
        assert!(!two.writer().signed(b"message", &signature));
        assert!(!one.writer().signed(b"massage", &signature));
        let mut other = signature;
        other[40] ^= 1;
        assert!(!one.writer().signed(b"message", &other));
    }
}
