//! A key pair with a certificate of its own: what stands for EC2 where bundles are launched.
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----     PKCS#8
//! -----BEGIN CERTIFICATE-----     X.509, signed by the key itself
//! ```

use std::str::FromStr as _;
use std::time::Duration;

use amiforge_types::Timestamp;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use rsa::sha2::{Digest as _, Sha256};
use rsa::{RsaPrivateKey, traits::PublicKeyParts as _};
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, ObjectIdentifier, UtcTime};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{DateTime, Decode as _, Encode as _, EncodePem as _};
use x509_cert::ext::AsExtension as _;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::keys::{CERTIFICATE, Certificate, PRIVATE_KEY, PrivateKey, Rng, certificate_pem};
use crate::write::Random;

/// Bits of a new key.
const BITS: usize = 2048;
/// How long a certificate says that it is valid: ten years. Nobody who bundles looks at it.
const VALID_SECS: i64 = 3650 * 86_400;
/// RFC 4055, section 5: `sha256WithRSAEncryption`.
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// A private key and the certificate of its public half.
#[derive(Clone, Debug)]
pub struct KeyPair {
    key: PrivateKey,
    certificate: String,
}

impl KeyPair {
    /// Makes a key of 2048 bits, and a certificate of `name` that it signs itself (SHA-256), valid for ten years from `now` on.
    /// The same random bytes give the same pair.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`] for a name that cannot stand in a certificate, or a time before 1970.
    pub fn make(name: &str, now: Timestamp, rng: &mut dyn Random) -> Result<Self, KeyError> {
        let key = RsaPrivateKey::new(&mut Rng(rng), BITS).map_err(|e| KeyError::Unreadable {
            what: PRIVATE_KEY,
            problem: e.to_string(),
        })?;
        let certificate =
            self_signed(&key, name, now, rng).map_err(|problem| KeyError::Unreadable {
                what: CERTIFICATE,
                problem,
            })?;
        Ok(Self {
            key: PrivateKey(key),
            certificate,
        })
    }

    /// Reads what [`KeyPair::to_pem`] gave.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::OtherPair`] when the two are not of one pair.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let key = PrivateKey::parse(text)?;
        let marker: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let at = text.windows(marker.len()).position(|w| w == marker);
        let certificate = certificate_pem(&text[at.unwrap_or(text.len())..])?;
        if !key.matches(&Certificate::parse(certificate.as_bytes())?) {
            return Err(KeyError::OtherPair);
        }
        Ok(Self { key, certificate })
    }

    /// Both as one text: the key, then the certificate.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`] when the key cannot be written.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let mut text = self
            .key
            .0
            .to_pkcs8_pem(rsa::pkcs8::LineEnding::LF)
            .map_err(|e| KeyError::Unreadable {
                what: PRIVATE_KEY,
                problem: e.to_string(),
            })?;
        // With all its room at once: growing would leave a copy of the key behind.
        let mut both = Zeroizing::new(String::with_capacity(text.len() + self.certificate.len()));
        both.push_str(&text);
        both.push_str(&self.certificate);
        zeroize::Zeroize::zeroize(&mut *text);
        Ok(both)
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The certificate, for [`crate::BundleOptions`].
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.key.public()
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }
}

/// RFC 5280, section 4.1: a certificate of a key by itself.
fn self_signed(
    key: &RsaPrivateKey,
    name: &str,
    now: Timestamp,
    rng: &mut dyn Random,
) -> Result<String, String> {
    let text = |e: x509_cert::der::Error| e.to_string();
    let mut serial = [0; 16];
    rng.fill(&mut serial);
    // Positive, and not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let subject = Name::from_str(&format!("CN={name}")).map_err(text)?;
    let info = key
        .to_public_key()
        .to_public_key_der()
        .map_err(|e| e.to_string())?;
    let algorithm = AlgorithmIdentifierOwned {
        oid: SHA256_WITH_RSA,
        parameters: Some(Any::null()),
    };
    let mut extensions = Vec::new();
    let authority = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    extensions.push(
        authority
            .to_extension(&subject, &extensions)
            .map_err(text)?,
    );
    let usage = KeyUsage(KeyUsages::KeyEncipherment | KeyUsages::KeyCertSign);
    extensions.push(usage.to_extension(&subject, &extensions).map_err(text)?);
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial).map_err(text)?,
        signature: algorithm.clone(),
        issuer: subject.clone(),
        validity: Validity {
            not_before: time(now.secs)?,
            not_after: time(now.secs.saturating_add(VALID_SECS))?,
        },
        subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(info.as_bytes())
            .map_err(text)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let digest = Sha256::digest(tbs.to_der().map_err(text)?);
    let signature = key
        .sign_with_rng(&mut Rng(rng), Pkcs1v15Sign::new::<Sha256>(), &digest)
        .map_err(|e| e.to_string())?;
    debug_assert_eq!(signature.len(), key.size());
    x509_cert::Certificate {
        tbs_certificate: tbs,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature).map_err(text)?,
    }
    .to_pem(LineEnding::LF)
    .map_err(text)
}

/// RFC 5280, section 4.1.2.5: two digits of the year until 2049, four from then on.
fn time(secs: i64) -> Result<Time, String> {
    let since = u64::try_from(secs).map_err(|_| "a time before 1970".to_owned())?;
    let at = DateTime::from_unix_duration(Duration::from_secs(since)).map_err(|e| e.to_string())?;
    Ok(match UtcTime::from_date_time(at) {
        Ok(short) => Time::UtcTime(short),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_date_time(at)),
    })
}
