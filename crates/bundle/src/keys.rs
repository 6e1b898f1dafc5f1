//! RSA keys and X.509 certificates, PEM or DER.

use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Encrypt, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::{Digest as _, Sha1};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::pem::PemLabel as _;
use x509_cert::der::{Decode as _, Document, Encode as _, EncodePem as _};

use crate::error::KeyError;
use crate::write::Random;

/// Largest file of a key or certificate, in bytes.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// An X.509 certificate of an RSA key. Its dates, issuer and uses are not looked at: in a bundle it is nothing but a public key.
#[derive(Clone, Debug)]
pub struct Certificate(RsaPublicKey);

/// An RSA private key.
#[derive(Clone)]
pub struct PrivateKey(pub(crate) RsaPrivateKey);

impl std::fmt::Debug for PrivateKey {
    /// Shows nothing of the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

pub(crate) const CERTIFICATE: &str = "certificate";
pub(crate) const PRIVATE_KEY: &str = "private key";

/// Reads a certificate, PEM (the first of several; text before it is skipped) or DER.
fn x509(bytes: &[u8]) -> Result<x509_cert::Certificate, KeyError> {
    let unreadable = |problem: String| KeyError::Unreadable {
        what: CERTIFICATE,
        problem,
    };
    let read = |der: &[u8]| {
        let certificate = x509_cert::Certificate::from_der(der);
        certificate.map_err(|e| unreadable(e.to_string()))
    };
    let Some(text) = pem(bytes, CERTIFICATE)? else {
        return read(bytes);
    };
    // Whole before it is looked at: the reader of `from_pem` never ends where the base64 does in a length.
    let (label, der) = Document::from_pem(text).map_err(|e| unreadable(e.to_string()))?;
    match label == x509_cert::Certificate::PEM_LABEL {
        true => read(der.as_bytes()),
        false => Err(unreadable(format!("its PEM is a {label}"))),
    }
}

/// A certificate of an RSA key as PEM and nothing beside: the same text for each form that it comes in.
///
/// # Errors
/// Those of [`Certificate::parse`].
pub fn certificate_pem(bytes: &[u8]) -> Result<String, KeyError> {
    Certificate::parse(bytes)?;
    x509(bytes)?
        .to_pem(LineEnding::LF)
        .map_err(|e| KeyError::Unreadable {
            what: CERTIFICATE,
            problem: e.to_string(),
        })
}

impl Certificate {
    /// Reads a certificate, PEM (the first of several; text before it is skipped) or DER.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |problem: String| KeyError::Unreadable {
            what: CERTIFICATE,
            problem,
        };
        let info = x509(bytes)?
            .tbs_certificate
            .subject_public_key_info
            .to_der()
            .map_err(|e| unreadable(e.to_string()))?;
        let key =
            RsaPublicKey::from_public_key_der(&info).map_err(|e| unreadable(e.to_string()))?;
        bits(&key, CERTIFICATE)?;
        Ok(Self(key))
    }

    /// Encrypts the hex text of 16 bytes, as bundles have it.
    pub(crate) fn seal(
        &self,
        secret: &[u8; 16],
        rng: &mut dyn Random,
    ) -> Result<Vec<u8>, KeyError> {
        self.0
            .encrypt(
                &mut Rng(rng),
                Pkcs1v15Encrypt,
                crate::error::hex(secret).as_bytes(),
            )
            .map_err(|e| KeyError::Unreadable {
                what: CERTIFICATE,
                problem: e.to_string(),
            })
    }

    /// Whether a signature is this key's over a text.
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let digest = Sha1::digest(text);
        self.0
            .verify(Pkcs1v15Sign::new::<Sha1>(), &digest, signature)
            .is_ok()
    }
}

impl PrivateKey {
    /// Reads a private key of PKCS#1 or PKCS#8, PEM or DER, without pass phrase.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |problem: String| KeyError::Unreadable {
            what: PRIVATE_KEY,
            problem,
        };
        let key = match pem(bytes, PRIVATE_KEY)? {
            Some(text)
                if text.starts_with("-----BEGIN ENCRYPTED")
                    || text.contains("Proc-Type: 4,ENCRYPTED") =>
            {
                return Err(KeyError::Encrypted);
            }
            Some(text) if text.starts_with("-----BEGIN RSA PRIVATE KEY-----") => {
                RsaPrivateKey::from_pkcs1_pem(text).map_err(|e| unreadable(e.to_string()))?
            }
            Some(text) => {
                RsaPrivateKey::from_pkcs8_pem(text).map_err(|e| unreadable(e.to_string()))?
            }
            None => match RsaPrivateKey::from_pkcs8_der(bytes) {
                Ok(key) => key,
                Err(error) => RsaPrivateKey::from_pkcs1_der(bytes)
                    .map_err(|_| unreadable(error.to_string()))?,
            },
        };
        bits(&key.to_public_key(), PRIVATE_KEY)?;
        Ok(Self(key))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> Certificate {
        Certificate(self.0.to_public_key())
    }

    /// Whether a certificate is of this key.
    #[must_use]
    pub fn matches(&self, certificate: &Certificate) -> bool {
        self.0.to_public_key() == certificate.0
    }

    /// Signs a text.
    pub(crate) fn sign(&self, text: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, KeyError> {
        let digest = Sha1::digest(text);
        self.0
            .sign_with_rng(&mut Rng(rng), Pkcs1v15Sign::new::<Sha1>(), &digest)
            .map_err(|e| KeyError::Unreadable {
                what: PRIVATE_KEY,
                problem: e.to_string(),
            })
    }

    /// The 16 bytes that [`Certificate::seal`] was given; `None` when they were sealed for another key.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<[u8; 16]> {
        let text = self.0.decrypt(Pkcs1v15Encrypt, sealed).ok()?;
        let text = std::str::from_utf8(&text).ok()?;
        crate::error::unhex(text)?.try_into().ok()
    }
}

/// The first PEM block; `None` when there is none, and it may be DER.
fn pem<'a>(bytes: &'a [u8], what: &'static str) -> Result<Option<&'a str>, KeyError> {
    if bytes.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLarge {
            what,
            bytes: bytes.len(),
        });
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(None);
    };
    let Some(start) = text.find("-----BEGIN ") else {
        return Ok(None);
    };
    let text = &text[start..];
    // Up to the end of the line that ends the block.
    let end = text.find("-----END ").map(|at| {
        let rest = &text[at..];
        at + rest.find('\n').map_or(rest.len(), |n| n + 1)
    });
    Ok(Some(&text[..end.unwrap_or(text.len())]))
}

fn bits(key: &RsaPublicKey, what: &'static str) -> Result<(), KeyError> {
    let bits = key.n().bits();
    if (1024..=4096).contains(&bits) {
        Ok(())
    } else {
        Err(KeyError::Bits { what, bits })
    }
}

/// [`Random`] for the library.
pub(crate) struct Rng<'a>(pub(crate) &'a mut dyn Random);

impl rsa::rand_core::RngCore for Rng<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for Rng<'_> {}

/// A small key for tests.
#[cfg(test)]
pub(crate) fn test_key(rng: &mut dyn Random) -> PrivateKey {
    PrivateKey(RsaPrivateKey::new(&mut Rng(rng), 1024).unwrap())
}
