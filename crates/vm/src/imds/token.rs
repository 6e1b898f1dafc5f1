//! Session tokens. They hold their own end, under a seal, so that none need be kept: a guest cannot fill the memory with them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// End in milliseconds and number, 8 bytes each.
const PLAIN: usize = 16;
/// With HMAC-SHA256 behind.
const SEALED: usize = PLAIN + 32;

/// Makes and checks tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    secret: [u8; 32],
    made: u64,
}

impl Tokens {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret, made: 0 }
    }

    /// A token that is good until `end`, unlike all others.
    pub(super) fn make(&mut self, end: Duration) -> String {
        self.made += 1;
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        let mut token = end.to_be_bytes().to_vec();
        token.extend(self.made.to_be_bytes());
        if let Some(seal) = self.seal(&token) {
            token.extend(seal.finalize().into_bytes());
        }
        URL_SAFE.encode(token)
    }

    /// Whether a token is one of ours, and still good.
    pub(super) fn good(&self, token: &str, now: Duration) -> bool {
        if token.len() != SEALED.div_ceil(3) * 4 {
            return false;
        }
        let Ok(token) = URL_SAFE.decode(token) else {
            return false;
        };
        let Some((plain, seal)) = token.split_first_chunk::<PLAIN>() else {
            return false;
        };
        let [e0, e1, e2, e3, e4, e5, e6, e7, ..] = *plain;
        let end = u64::from_be_bytes([e0, e1, e2, e3, e4, e5, e6, e7]);
        self.seal(plain)
            .is_some_and(|own| own.verify_slice(seal).is_ok())
            && now.as_millis() < u128::from(end)
    }

    fn seal(&self, plain: &[u8]) -> Option<Hmac<Sha256>> {
        // Any length of key will do.
        let mut seal = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        seal.update(plain);
        Some(seal)
    }
}
