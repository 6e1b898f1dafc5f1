//! AES-128 in CBC mode with PKCS#7 padding, as streams: what `openssl enc -aes-128-cbc -K … -iv …` does.

use std::io::{self, Read, Write};

use aes::Aes128;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};

use crate::error::{BundleError, carried};

const BLOCK: usize = 16;
const CHUNK: usize = 64 * 1024;

/// Encrypts what is written.
pub(crate) struct Encrypt<W> {
    inner: W,
    cbc: cbc::Encryptor<Aes128>,
    buffer: Vec<u8>,
}

impl<W: Write> Encrypt<W> {
    pub(crate) fn new(inner: W, key: &[u8; 16], iv: &[u8; 16]) -> Self {
        Self {
            inner,
            cbc: cbc::Encryptor::new(key.into(), iv.into()),
            buffer: Vec::with_capacity(CHUNK + BLOCK),
        }
    }

    /// Writes the whole blocks of the buffer.
    fn drain(&mut self) -> io::Result<()> {
        let whole = self.buffer.len() / BLOCK * BLOCK;
        for block in self.buffer[..whole].chunks_exact_mut(BLOCK) {
            self.cbc
                .encrypt_block_mut(GenericArray::from_mut_slice(block));
        }
        self.inner.write_all(&self.buffer[..whole])?;
        self.buffer.drain(..whole);
        Ok(())
    }

    /// Pads, and gives the inner writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let missing = BLOCK - self.buffer.len() % BLOCK;
        let padding = u8::try_from(missing).unwrap_or(16);
        self.buffer.extend(std::iter::repeat_n(padding, missing));
        self.drain()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Encrypt<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK);
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.drain()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Decrypts what is read. The last block is held back until the end is known, since it holds the padding.
pub(crate) struct Decrypt<R> {
    inner: R,
    cbc: cbc::Decryptor<Aes128>,
    /// Not yet decrypted.
    pending: Vec<u8>,
    /// Decrypted, from `at` on not yet read.
    plain: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Decrypt<R> {
    pub(crate) fn new(inner: R, key: &[u8; 16], iv: &[u8; 16]) -> Self {
        Self {
            inner,
            cbc: cbc::Decryptor::new(key.into(), iv.into()),
            pending: Vec::with_capacity(CHUNK + BLOCK),
            plain: Vec::with_capacity(CHUNK + BLOCK),
            at: 0,
            ended: false,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let bad = |problem| carried(BundleError::Cipher(problem));
        let held = self.pending.len();
        self.pending.resize(CHUNK, 0);
        let read = loop {
            match self.inner.read(&mut self.pending[held..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.pending.truncate(held + read);
        self.ended = read == 0;
        let len = self.pending.len();
        let ready = match self.ended {
            true if len == 0 || !len.is_multiple_of(BLOCK) => {
                return Err(bad("their bytes are not whole blocks"));
            }
            true => len,
            // Something may follow, or nothing: then this is the last block.
            false => len.saturating_sub(1) / BLOCK * BLOCK,
        };
        self.plain.clear();
        self.at = 0;
        self.plain.extend_from_slice(&self.pending[..ready]);
        self.pending.drain(..ready);
        for block in self.plain.chunks_exact_mut(BLOCK) {
            self.cbc
                .decrypt_block_mut(GenericArray::from_mut_slice(block));
        }
        if self.ended {
            let padding = self.plain.last().copied().unwrap_or(0);
            let count = usize::from(padding);
            let start = self.plain.len().saturating_sub(count);
            if !(1..=BLOCK).contains(&count) || self.plain[start..].iter().any(|b| *b != padding) {
                return Err(bad("the padding is not PKCS#7"));
            }
            self.plain.truncate(start);
        }
        Ok(())
    }
}

impl<R: Read> Read for Decrypt<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if self.ended || out.is_empty() {
                return Ok(0);
            }
            self.fill()?;
        }
        let count = out.len().min(self.plain.len() - self.at);
        out[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one to seven bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 % 7 + 1;
            let count = self.1.min(self.0.len()).min(out.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    const KEY: [u8; 16] = *b"0123456789abcdef";
    const IV: [u8; 16] = *b"fedcba9876543210";

    fn encrypted(plain: &[u8]) -> Vec<u8> {
        let mut encrypt = Encrypt::new(Vec::new(), &KEY, &IV);
        encrypt.write_all(plain).unwrap();
        encrypt.finish().unwrap()
    }

    /// NIST SP 800-38A, F.2.1: the first block of CBC-AES128.
    #[test]
    fn known_answer() {
        let of =
            |text: &str| -> [u8; 16] { crate::error::unhex(text).unwrap().try_into().unwrap() };
        let key = of("2b7e151628aed2a6abf7158809cf4f3c");
        let iv = of("000102030405060708090a0b0c0d0e0f");
        let mut encrypt = Encrypt::new(Vec::new(), &key, &iv);
        encrypt
            .write_all(&of("6bc1bee22e409f96e93d7e117393172a"))
            .unwrap();
        let found = encrypt.finish().unwrap();
        assert_eq!(found.len(), 32);
        assert_eq!(found[..16], of("7649abac8119b246cee98e9b12e9197d"));
    }

    #[test]
    fn any_length_goes_both_ways() {
        for len in [
            0,
            1,
            15,
            16,
            17,
            31,
            32,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            3 * CHUNK,
        ] {
            let plain: Vec<u8> = (0..len)
                .map(|i| u8::try_from(i * 7 % 251).unwrap())
                .collect();
            let sealed = encrypted(&plain);
            assert_eq!(sealed.len(), len / 16 * 16 + 16);
            for drip in [false, true] {
                let mut found = Vec::new();
                match drip {
                    true => Decrypt::new(Drip(&sealed, 0), &KEY, &IV)
                        .read_to_end(&mut found)
                        .unwrap(),
                    false => Decrypt::new(&sealed[..], &KEY, &IV)
                        .read_to_end(&mut found)
                        .unwrap(),
                };
                assert_eq!(found, plain, "{len}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_of_another_key_is_refused() {
        let sealed = encrypted(b"a text of more than sixteen bytes");
        for (sealed, key) in [
            (&sealed[..0], KEY),
            (&sealed[..40], KEY),
            (&sealed[..32], KEY),
            (&sealed[..], IV),
        ] {
            let found = Decrypt::new(sealed, &key, &IV)
                .read_to_end(&mut Vec::new())
                .unwrap_err();
            assert!(matches!(
                found.downcast::<BundleError>(),
                Ok(BundleError::Cipher(_))
            ));
        }
    }
}
