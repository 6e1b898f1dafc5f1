//! What is done with a data key. Everything comes from audited crates; here it is put together.
//!
//! ```text
//! sub-key     HKDF-Expand (RFC 5869, SHA-256) of the data key, info = "amiforge " + purpose, 32 bytes
//! address     HMAC-SHA256("block address", plaintext of the block)
//! block       AES-256-GCM("block"), random nonce of 96 bits, associated data = address; seal = nonce + tag
//! map         HMAC-SHA256("map", the map's bytes)
//! volume      AES-256-XTS("volume 1", "volume 2"), sectors of 4,096 bytes, tweak = sector number
//! ```

use std::fmt;
use std::sync::Arc;

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecrypt as _, BlockEncrypt as _, KeyInit as _};
use aes_gcm::{AeadInPlace as _, Aes256Gcm};
use amiforge_ami::ec2::Encryption;
use amiforge_types::Digest;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use super::Ec2Error;

/// Bytes that an encrypted block has beside its ciphertext: nonce and tag.
pub(super) const SEAL: usize = 28;
const NONCE: usize = 12;
/// Sector of a volume's encryption.
pub(super) const SECTOR: usize = 4096;

/// 32 secret bytes, overwritten when dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// A data key in the open: what volumes and snapshots are encrypted under. It leaves memory when the last copy is dropped.
#[derive(Clone)]
pub struct DataKey {
    inner: Arc<Inner>,
}

struct Inner {
    encryption: Encryption,
    secret: Secret,
    address: Secret,
    map: Secret,
    block: Secret,
    gcm: Aes256Gcm,
    xts: Xts,
}

/// Without the key.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("encryption", &self.inner.encryption)
            .finish_non_exhaustive()
    }
}

impl DataKey {
    /// The key of this id. What is wrapped names both, so that no other secret can come to have it.
    pub(super) fn new(encryption: Encryption, secret: Secret) -> Self {
        let block = expand(&secret, "block");
        let (one, two) = (expand(&secret, "volume 1"), expand(&secret, "volume 2"));
        let inner = Inner {
            encryption,
            address: expand(&secret, "block address"),
            map: expand(&secret, "map"),
            gcm: aes_gcm::KeyInit::new((&*block).into()),
            xts: Xts {
                data: Aes256::new((&*one).into()),
                tweak: Aes256::new((&*two).into()),
            },
            block,
            secret,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A new one, from the operating system's source of randomness.
    pub(super) fn generate(encryption: Encryption) -> Result<Self, Ec2Error> {
        let mut secret = Secret::default();
        random(&mut *secret)?;
        Ok(Self::new(encryption, secret))
    }

    /// What a record says of it: its id, and the key that wraps it.
    #[must_use]
    pub fn encryption(&self) -> &Encryption {
        &self.inner.encryption
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.inner.encryption.data_key_id
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.inner.secret
    }

    /// The address of a block.
    pub(super) fn address(&self, plain: &[u8]) -> [u8; 32] {
        mac(&self.inner.address, &[plain])
    }

    /// What proves that a map was written by who has the key.
    pub(super) fn map_proof(&self, bytes: &[u8]) -> [u8; 32] {
        mac(&self.inner.map, &[bytes])
    }

    /// Compares in constant time.
    pub(super) fn is_map_proof(&self, bytes: &[u8], proof: &[u8]) -> bool {
        keyed(&self.inner.map, &[bytes]).verify_slice(proof).is_ok()
    }

    /// Encrypts a block where it stands.
    pub(super) fn seal(
        &self,
        address: &[u8; 32],
        block: &mut [u8],
    ) -> Result<[u8; SEAL], Ec2Error> {
        let mut seal = [0; SEAL];
        random(&mut seal[..NONCE])?;
        seal_in_place(&self.inner.gcm, &mut seal, address, block);
        Ok(seal)
    }

    /// Decrypts a block where it stands; false when it is not what was sealed.
    #[must_use]
    pub(super) fn unseal(&self, address: &[u8; 32], seal: &[u8; SEAL], block: &mut [u8]) -> bool {
        unseal_in_place(&self.inner.gcm, seal, address, block)
    }

    /// Decrypts a part of a block that was found whole before: GCM encrypts in counter mode, whose first counter after the
    /// nonce is 1 for the tag and 2 for the first 16 bytes (NIST SP 800-38D, 7.1).
    pub(super) fn unseal_part(&self, seal: &[u8; SEAL], offset: usize, part: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..NONCE].copy_from_slice(&seal[..NONCE]);
        iv[15] = 1;
        let mut stream = ctr::Ctr32BE::<Aes256>::new((&*self.inner.block).into(), (&iv).into());
        stream.seek(16 + offset as u64);
        stream.apply_keystream(part);
    }

    /// Encrypts whole sectors of a volume where they stand.
    pub(super) fn encrypt_sectors(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR)) {
            self.inner.xts.encrypt(number, sector);
        }
    }

    /// Decrypts whole sectors of a volume. A sector of zeros is one: a hole (of 2^32768 sectors that are written, one comes
    /// out as zeros).
    pub(super) fn decrypt_sectors(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR)) {
            if !is_zero(sector) {
                self.inner.xts.decrypt(number, sector);
            }
        }
    }
}

/// AES-256-XTS of whole sectors (IEEE 1619-2018, 5.3 and 5.4): the mode alone, over the cipher of a crate, since the crate of the mode
/// goes block by block, and the cipher does eight at once in the time of one. Tests compare the two.
struct Xts {
    data: Aes256,
    tweak: Aes256,
}

impl Xts {
    fn encrypt(&self, number: u64, sector: &mut [u8]) {
        let tweaks = self.tweaks(number);
        xor(sector, &tweaks);
        let (blocks, _) = InOutBuf::from(&mut *sector).into_chunks();
        self.data.encrypt_blocks_inout(blocks);
        xor(sector, &tweaks);
    }

    fn decrypt(&self, number: u64, sector: &mut [u8]) {
        let tweaks = self.tweaks(number);
        xor(sector, &tweaks);
        let (blocks, _) = InOutBuf::from(&mut *sector).into_chunks();
        self.data.decrypt_blocks_inout(blocks);
        xor(sector, &tweaks);
    }

    /// The tweak of each block: the encrypted sector number, times 2 in GF(2^128) from one to the next.
    fn tweaks(&self, number: u64) -> [u8; SECTOR] {
        let mut first = u128::from(number).to_le_bytes();
        self.tweak.encrypt_block((&mut first).into());
        let mut tweak = u128::from_le_bytes(first);
        let mut out = [0; SECTOR];
        for block in out.as_chunks_mut::<16>().0 {
            *block = tweak.to_le_bytes();
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
        out
    }
}

fn xor(sector: &mut [u8], tweaks: &[u8; SECTOR]) {
    for (byte, tweak) in sector.iter_mut().zip(tweaks) {
        *byte ^= tweak;
    }
}

/// Wraps 32 bytes under a key: nonce, ciphertext, tag.
pub(super) fn wrap(key: &Secret, secret: &Secret, context: &[u8]) -> Result<Vec<u8>, Ec2Error> {
    let gcm: Aes256Gcm = aes_gcm::KeyInit::new((&**key).into());
    let mut seal = [0; SEAL];
    random(&mut seal[..NONCE])?;
    let mut bytes = **secret;
    seal_in_place(&gcm, &mut seal, context, &mut bytes);
    Ok([&seal[..NONCE], &bytes, &seal[NONCE..]].concat())
}

/// The way back; `None` when the key, the context or the bytes are not those of the wrapping.
pub(super) fn unwrap(key: &Secret, wrapped: &[u8], context: &[u8]) -> Option<Secret> {
    let (nonce, rest) = wrapped.split_at_checked(NONCE)?;
    let (body, tag) = rest.split_at_checked(32)?;
    let mut seal = [0; SEAL];
    seal[..NONCE].copy_from_slice(nonce);
    seal[NONCE..].copy_from_slice(<&[u8; SEAL - NONCE]>::try_from(tag).ok()?);
    let mut bytes: [u8; 32] = body.try_into().ok()?;
    let gcm: Aes256Gcm = aes_gcm::KeyInit::new((&**key).into());
    let whole = unseal_in_place(&gcm, &seal, context, &mut bytes);
    let secret = whole.then(|| Secret::new(bytes));
    bytes.zeroize();
    secret
}

/// Takes the nonce from `seal` and puts the tag there.
fn seal_in_place(gcm: &Aes256Gcm, seal: &mut [u8; SEAL], context: &[u8], bytes: &mut [u8]) {
    let (nonce, tag) = seal.split_at_mut(NONCE);
    #[allow(
        clippy::expect_used,
        reason = "GCM takes 64 GiB, and 512 KiB are given"
    )]
    let made = gcm
        .encrypt_in_place_detached((&*nonce).into(), context, bytes)
        .expect("shorter than the limit of GCM");
    tag.copy_from_slice(&made);
}

fn unseal_in_place(gcm: &Aes256Gcm, seal: &[u8; SEAL], context: &[u8], bytes: &mut [u8]) -> bool {
    let (nonce, tag) = seal.split_at(NONCE);
    gcm.decrypt_in_place_detached(nonce.into(), context, bytes, tag.into())
        .is_ok()
}

fn keyed(key: &Secret, parts: &[&[u8]]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&**key).expect("any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn mac(key: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    keyed(key, parts).finalize().into_bytes().into()
}

/// HKDF-Expand of one block.
fn expand(key: &Secret, purpose: &str) -> Secret {
    Secret::new(mac(key, &[b"amiforge ", purpose.as_bytes(), &[1]]))
}

/// Random bits from getrandom(2), for ids and the like.
///
/// # Errors
/// When the kernel gives none.
pub fn random_u128() -> Result<u128, Ec2Error> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// Fills `bytes` from getrandom(2), which waits until the kernel's generator is seeded.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Ec2Error> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                return Err(Ec2Error::io("read random bytes for", "getrandom(2)")(
                    e.into(),
                ));
            }
        }
    }
    Ok(())
}

/// Whether all bytes are zero; most blocks that are not say so early.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<64>();
    lines
        .iter()
        .all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DataKey {
        let encryption = Encryption {
            key_id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
            data_key_id: Digest::of(b"id"),
        };
        DataKey::new(
            encryption,
            Secret::new(std::array::from_fn(|i| u8::try_from(i).unwrap())),
        )
    }

    #[test]
    fn parts_of_a_sealed_block_decrypt_like_the_whole() {
        let key = key();
        let plain: Vec<u8> = (0..100_000u32)
            .map(|i| u8::try_from(i * 7 % 253).unwrap())
            .collect();
        let address = key.address(&plain);
        let mut block = plain.clone();
        let seal = key.seal(&address, &mut block).unwrap();
        for (offset, len) in [
            (0, 100),
            (1, 1),
            (15, 2),
            (16, 4096),
            (4099, 50_001),
            (99_999, 1),
        ] {
            let mut part = block[offset..offset + len].to_vec();
            key.unseal_part(&seal, offset, &mut part);
            assert_eq!(part, plain[offset..offset + len]);
        }
        let mut other = block.clone();
        other[77_777] ^= 1;
        assert!(!key.unseal(&address, &seal, &mut other));
        assert!(!key.unseal(&[0; 32], &seal, &mut block.clone()));
        assert!(key.unseal(&address, &seal, &mut block));
        assert_eq!(block, plain);
    }

    /// HKDF-Expand: RFC 5869, test case 3 has another PRK, so here only that one block of it is an HMAC over info and 1;
    /// the forms of all sub-keys are pinned, since stores depend on them.
    #[test]
    fn sub_keys_stay() {
        let key = key();
        let mut sectors = vec![0; 2 * SECTOR];
        key.encrypt_sectors(5, &mut sectors);
        assert_eq!(
            (
                Digest::of(&sectors).short(),
                Digest::of(&key.address(b"x")).short(),
                Digest::of(&key.map_proof(b"x")).short()
            ),
            (
                "962367505d52".to_owned(),
                "6884e7b98979".to_owned(),
                "e537cccf0bb1".to_owned()
            )
        );
        key.decrypt_sectors(5, &mut sectors);
        assert!(is_zero(&sectors));
    }

    /// Against the crate of the mode.
    #[test]
    fn sectors_are_those_of_xts() {
        let key = key();
        let cipher = |purpose| Aes256::new((&*expand(&key.inner.secret, purpose)).into());
        let other = xts_mode::Xts128::new(cipher("volume 1"), cipher("volume 2"));
        for first in [0, 1, 255, 256, u64::from(u32::MAX), 1 << 52] {
            let plain: Vec<u8> = (0..3 * SECTOR)
                .map(|i| u8::try_from(i * 31 % 241).unwrap())
                .collect();
            let (mut ours, mut theirs) = (plain.clone(), plain.clone());
            key.encrypt_sectors(first, &mut ours);
            other.encrypt_area(
                &mut theirs,
                SECTOR,
                first.into(),
                xts_mode::get_tweak_default,
            );
            assert_eq!(ours, theirs);
            key.decrypt_sectors(first, &mut ours);
            assert_eq!(ours, plain);
        }
    }

    #[test]
    fn wrapped_keys_need_key_context_and_bytes() {
        let (key, secret) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let wrapped = wrap(&key, &secret, b"here").unwrap();
        assert_eq!(wrapped.len(), 60);
        assert_eq!(unwrap(&key, &wrapped, b"here"), Some(secret));
        assert_eq!(unwrap(&key, &wrapped, b"there"), None);
        assert_eq!(unwrap(&Secret::new([3; 32]), &wrapped, b"here"), None);
        assert_eq!(unwrap(&key, &wrapped[..59], b"here"), None);
        assert_eq!(unwrap(&key, &[], b"here"), None);
        for at in 0..60 {
            let mut bad = wrapped.clone();
            bad[at] ^= 128;
            assert_eq!(unwrap(&key, &bad, b"here"), None);
        }
    }

    #[test]
    fn zeros_are_found() {
        for len in [0, 1, 63, 64, 65, 4096, 5000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zero(&bytes));
                bytes[at] = 0;
            }
        }
    }
}
