//! Clear-signed Release files (RFC 9580, section 7) against a set of trusted keys.
//!
//! One good signature suffices, as with apt. Good means: by a key of the set (or its signing subkey,
//! bound in both directions) that is neither revoked nor expired at the given time, over a digest of
//! SHA-2 strength, made inside the key's life and not expired itself.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use amiforge_types::Timestamp;
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::errors::Error as PgpError;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

use crate::SourceError;

/// Largest keyring file read.
const MAX_KEYRING: u64 = 16 << 20;

/// How far a clock may be behind the signer's.
const CLOCK_SLACK_SECS: i64 = 24 * 3600;

/// Length of the parameters (modulus and exponent as OpenPGP integers) of the smallest RSA key
/// accepted: 2048 bits, as apt's own policy has it.
const MIN_RSA_BYTES: usize = 2 + 256 + 2 + 1;

/// The keys an archive may be signed with.
#[derive(Clone, Default)]
pub(crate) struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// A text whose signature was accepted.
pub(crate) struct Verified {
    /// The signed text, nothing around it.
    pub(crate) text: String,
    /// Fingerprint of the primary key, lower-case hex.
    pub(crate) fingerprint: String,
    /// From when on the answer would be another one: the signature or a key has expired.
    pub(crate) until: Option<i64>,
}

impl Keyring {
    /// Adds keys, binary or armoured. `name` says in errors where they are from.
    pub(crate) fn add(&mut self, bytes: &[u8], name: &Path) -> Result<(), SourceError> {
        let armoured = bytes.trim_ascii_start().starts_with(b"-----BEGIN");
        let before = self.keys.len();
        if armoured {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| keyring_error(name, "armour is not text"))?;
            // A file may hold several armoured blocks one after another.
            for block in text.split_inclusive("-----END PGP PUBLIC KEY BLOCK-----") {
                if !block.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
                    continue;
                }
                let (keys, _) =
                    SignedPublicKey::from_armor_many(Cursor::new(block.as_bytes().to_vec()))
                        .map_err(|e| keyring_error(name, &e.to_string()))?;
                self.keys.extend(keys.take(1000).filter_map(Result::ok));
            }
        } else {
            let packets = PacketParser::new(Cursor::new(bytes)).filter_map(of_a_key);
            // Keys of kinds the library does not know are passed over, like gpgv does.
            let keys = SignedPublicKey::from_packets(packets.peekable());
            self.keys.extend(keys.take(1000).filter_map(Result::ok));
        }
        if self.keys.len() == before {
            return Err(keyring_error(name, "no OpenPGP public key in it"));
        }
        Ok(())
    }

    /// True without any key.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keeps the keys with these fingerprints (of the primary key or a subkey), as `Signed-By` may
    /// name them.
    pub(crate) fn retain(&mut self, fingerprints: &[String]) {
        let named = |fingerprint: String| {
            fingerprints
                .iter()
                .any(|f| f.eq_ignore_ascii_case(&fingerprint))
        };
        self.keys.retain(|key| {
            named(key.primary_key.fingerprint().to_string())
                || key
                    .public_subkeys
                    .iter()
                    .any(|sub| named(sub.key.fingerprint().to_string()))
        });
    }

    /// Armour of the key with a fingerprint.
    pub(crate) fn armoured(&self, fingerprint: &str) -> Option<String> {
        let key = self
            .keys
            .iter()
            .find(|k| k.primary_key.fingerprint().to_string() == fingerprint)?;
        key.to_armored_string(ArmorOptions::default()).ok()
    }

    /// Checks a clear-signed text; the error says why each signature was refused.
    pub(crate) fn verify(&self, text: &str, now: Timestamp) -> Result<Verified, String> {
        let (message, _) = CleartextSignedMessage::from_string(text)
            .map_err(|e| format!("not clear-signed: {e}"))?;
        let signed = message.signed_text();
        let mut refused = Vec::new();
        for signature in message.signatures().iter().take(32) {
            match self.check(signature, signed.as_bytes(), now) {
                Ok((fingerprint, until)) => {
                    return Ok(Verified {
                        text: signed.replace("\r\n", "\n"),
                        fingerprint,
                        until,
                    });
                }
                Err(reason) => refused.push(format!("{}: {reason}", issuer(signature))),
            }
        }
        if refused.is_empty() {
            refused.push("there is none".to_owned());
        }
        Err(refused.join("; "))
    }

    /// The fingerprint of the primary key, and until when the signature is good.
    fn check(
        &self,
        signature: &Signature,
        data: &[u8],
        now: Timestamp,
    ) -> Result<(String, Option<i64>), String> {
        if !matches!(
            signature.typ(),
            Some(SignatureType::Text | SignatureType::Binary)
        ) {
            return Err("not a signature over a document".to_owned());
        }
        strong(signature)?;
        let created = i64::from(signature.created().ok_or("has no time")?.as_secs());
        if created > now.secs.saturating_add(CLOCK_SLACK_SECS) {
            return Err("is from the future: is the clock right?".to_owned());
        }
        let until = signature
            .signature_expiration_time()
            .filter(|life| life.as_secs() != 0)
            .map(|life| i64::from(life.as_secs()) + created);
        if until.is_some_and(|until| now.secs >= until) {
            return Err("the signature has expired".to_owned());
        }
        let mut reason = "its key is not in the keyring".to_owned();
        for key in &self.keys {
            let primary = &key.primary_key;
            let is_issuer = |k: &dyn Fn() -> (String, String)| {
                let (id, fingerprint) = k();
                let ids = signature.issuer_key_id();
                let fingerprints = signature.issuer_fingerprint();
                ids.iter().any(|i| i.to_string() == id)
                    || fingerprints.iter().any(|f| f.to_string() == fingerprint)
            };
            let fingerprint = primary.fingerprint().to_string();
            if is_issuer(&|| {
                (
                    primary.legacy_key_id().to_string(),
                    primary.fingerprint().to_string(),
                )
            }) {
                let checked = usable_primary(key, now)
                    .and_then(|end| by(signature, primary, data).map(|()| earlier(until, end)));
                match checked {
                    Ok(until) => return Ok((fingerprint, until)),
                    Err(why) => reason = why,
                }
            }
            for sub in &key.public_subkeys {
                if is_issuer(&|| {
                    (
                        sub.key.legacy_key_id().to_string(),
                        sub.key.fingerprint().to_string(),
                    )
                }) {
                    let checked = usable_primary(key, now)
                        .and_then(|end| Ok(earlier(end, usable_subkey(key, sub, now)?)))
                        .and_then(|end| {
                            by(signature, &sub.key, data).map(|()| earlier(until, end))
                        });
                    match checked {
                        Ok(until) => return Ok((fingerprint, until)),
                        Err(why) => reason = why,
                    }
                }
            }
        }
        Err(reason)
    }
}

/// The signature itself, by a key of enough strength.
fn by(signature: &Signature, key: &impl VerifyingKey, data: &[u8]) -> Result<(), String> {
    match key.public_params() {
        PublicParams::RSA(params) if params.write_len() < MIN_RSA_BYTES => {
            return Err("its RSA key has fewer than 2048 bits".to_owned());
        }
        PublicParams::DSA(_) => return Err("DSA keys are too weak".to_owned()),
        _ => {}
    }
    signature
        .verify(key, data)
        .map_err(|_| "the signature is wrong: the text was changed".to_owned())
}

fn strong(signature: &Signature) -> Result<(), String> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => Ok(()),
        Some(weak) => Err(format!("uses the weak digest {weak}")),
        None => Err("uses no known digest".to_owned()),
    }
}

/// What counts of a keyring file. Those that GnuPG keeps for itself have trust packets between a key's parts (RFC 9580,
/// section 5.10), as Ubuntu's has; without them a name would lose its signatures. Packets of unknown kinds say nothing.
fn of_a_key(packet: Result<Packet, PgpError>) -> Option<Result<Packet, PgpError>> {
    match &packet {
        Ok(Packet::Trust(_) | Packet::Marker(_) | Packet::Padding(_))
        | Err(PgpError::Unsupported { .. }) => None,
        Err(PgpError::InvalidPacketContent { source })
            if matches!(
                **source,
                PgpError::Unsupported { .. } | PgpError::EllipticCurve { .. }
            ) =>
        {
            None
        }
        _ => Some(packet),
    }
}

/// The earlier of two ends, where none is never.
fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).min()
}

/// The primary key is certified by itself, not revoked, not expired. Gives when it expires.
fn usable_primary(key: &SignedPublicKey, now: Timestamp) -> Result<Option<i64>, String> {
    let primary = &key.primary_key;
    if key
        .details
        .revocation_signatures
        .iter()
        .any(|s| s.verify_key(primary).is_ok())
    {
        return Err("its key is revoked".to_owned());
    }
    let direct = key
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && s.verify_key(primary).is_ok());
    let certified = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|s| {
            s.is_certification()
                && s.verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let newest = direct
        .chain(certified)
        .max_by_key(|s| s.created().map(|t| t.as_secs()));
    let newest = newest.ok_or("its key carries no signature of its own")?;
    alive(primary.created_at().as_secs(), newest, now)
}

/// The subkey is bound to the primary key and back, may sign, is not revoked, not expired.
/// Gives when it expires.
fn usable_subkey(
    key: &SignedPublicKey,
    sub: &SignedPublicSubKey,
    now: Timestamp,
) -> Result<Option<i64>, String> {
    let of = |typ: SignatureType| {
        sub.signatures
            .iter()
            .filter(move |s| s.typ() == Some(typ))
            .filter(|s| s.verify_subkey_binding(&key.primary_key, &sub.key).is_ok())
    };
    if of(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("its subkey is revoked".to_owned());
    }
    let binding = of(SignatureType::SubkeyBinding).max_by_key(|s| s.created().map(|t| t.as_secs()));
    let binding = binding.ok_or("its subkey is not bound to the key")?;
    let bound_back = binding.embedded_signature().is_some_and(|back| {
        back.verify_primary_key_binding(&sub.key, &key.primary_key)
            .is_ok()
    });
    if !binding.key_flags().sign() || !bound_back {
        return Err("its subkey may not sign".to_owned());
    }
    alive(sub.key.created_at().as_secs(), binding, now)
}

fn alive(created: u32, self_signature: &Signature, now: Timestamp) -> Result<Option<i64>, String> {
    let end = self_signature
        .key_expiration_time()
        .map(|d| d.as_secs())
        .filter(|d| *d != 0)
        .map(|d| i64::from(created) + i64::from(d));
    match end {
        Some(end) if now.secs >= end => {
            Err(format!("its key expired at {}", Timestamp::from_secs(end)))
        }
        end => Ok(end),
    }
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature
        .issuer_fingerprint()
        .first()
        .map(ToString::to_string);
    fingerprint
        .or_else(|| signature.issuer_key_id().first().map(ToString::to_string))
        .map_or_else(
            || "a signature".to_owned(),
            |id| format!("signature of {id}"),
        )
}

/// The bytes of a keyring file.
pub(crate) fn read_keyring(path: &Path) -> Result<Vec<u8>, SourceError> {
    let size = fs_err::metadata(path)
        .map_err(|e| SourceError::io(path, e))?
        .len();
    if size > MAX_KEYRING {
        return Err(keyring_error(path, "larger than 16 MiB"));
    }
    fs_err::read(path).map_err(|e| SourceError::io(path, e))
}

fn keyring_error(path: &Path, reason: &str) -> SourceError {
    SourceError::Keyring {
        path: PathBuf::from(path),
        reason: reason.to_owned(),
    }
}
