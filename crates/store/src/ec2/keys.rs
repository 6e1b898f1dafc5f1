//! Key material, and the data keys wrapped under it.
//!
//! `keys/<key id>`:
//!
//! ```text
//! 0    8   "AMIFKEYS"
//! 8    4   version 1, little-endian
//! 12   4   number n of material versions, 1 to 4096
//! 16   32n material, version 1 first
//! end  32  SHA-256 of all before: a damaged file is not taken for a wrong key
//! ```
//!
//! `keys/ec2.pem` is the key pair of EC2, which bundles of instance-store images are sealed for, as text.
//!
//! A data key is wrapped under the newest material of a key with AES-256-GCM; associated data: `"amiforge data key 1"`, a zero byte, the key
//! id (36 bytes), the data key id (32 bytes), the version (4 bytes, little-endian).

use std::path::PathBuf;

use amiforge_ami::ec2::{Encryption, KeyId};
use amiforge_types::Digest;
use rusqlite::{OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::crypt::{Secret, random, unwrap, wrap};
use super::files::{read_limited, write_private};
use super::{DataKey, Ec2, Ec2Error, Hold};
use crate::atomic::sync_dir;

const MAGIC: &[u8; 8] = b"AMIFKEYS";
const VERSION: u32 = 1;
const MAX_VERSIONS: usize = 4096;
const HEADER: usize = 16;
/// Name of the file of EC2's key pair; no key id is like it.
const EC2_PAIR: &str = "ec2.pem";
/// Most bytes of that file.
const MAX_PAIR: u64 = 64 << 10;

/// The key store: material of keys, 32 bytes for each version, which never leaves it.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    ec2: &'a Ec2,
}

impl Ec2 {
    /// The key store.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys { ec2: self }
    }
}

impl Keys<'_> {
    /// Makes material for a new key.
    ///
    /// # Errors
    /// [`Ec2Error::KeyExists`].
    pub fn create(&self, key: &KeyId) -> Result<(), Ec2Error> {
        let _lock = self.lock()?;
        let path = self.path(key);
        if path.symlink_metadata().is_ok() {
            return Err(Ec2Error::KeyExists {
                key: key.clone(),
                path,
            });
        }
        let mut secret = Secret::default();
        random(&mut *secret)?;
        self.write(key, &[secret])
    }

    /// Adds versions of material until there are `count`: new data keys are wrapped under the last one, older ones stay readable. Content when
    /// there are more, as an interrupted rotation leaves them.
    ///
    /// # Errors
    /// [`Ec2Error::NoMaterial`] for an unknown key.
    pub fn provide(&self, key: &KeyId, count: u32) -> Result<(), Ec2Error> {
        let _lock = self.lock()?;
        let mut versions = self.material(key)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if versions.len() >= count {
            return Ok(());
        }
        if count > MAX_VERSIONS {
            return Err(Ec2Error::damaged(
                self.path(key),
                "no room for more versions",
            ));
        }
        while versions.len() < count {
            let mut secret = Secret::default();
            random(&mut *secret)?;
            versions.push(secret);
        }
        self.write(key, &versions)
    }

    /// How many versions a key has; `None` without material.
    pub fn versions(&self, key: &KeyId) -> Result<Option<u32>, Ec2Error> {
        match self.material(key) {
            Ok(versions) => Ok(u32::try_from(versions.len()).ok()),
            Err(Ec2Error::NoMaterial { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Destroys a key's material: whatever is encrypted under it can never be read again. Content when there is none.
    ///
    /// The file is overwritten before it goes; what a file system with a journal or copies of its own keeps of it is beyond reach.
    pub fn destroy(&self, key: &KeyId) -> Result<(), Ec2Error> {
        let _lock = self.lock()?;
        let path = self.path(key);
        let gone = self.ec2.temp_path("key");
        match fs_err::rename(&path, &gone) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Ec2Error::io("remove", path)(e)),
        }
        sync_dir(&self.ec2.dir("keys"))?;
        let wipe = || {
            let len = std::fs::metadata(&gone)?.len();
            let file = std::fs::OpenOptions::new().write(true).open(&gone)?;
            let zeros = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or(0)];
            std::os::unix::fs::FileExt::write_all_at(&file, &zeros, 0)?;
            file.sync_all()?;
            std::fs::remove_file(&gone)
        };
        wipe().map_err(Ec2Error::io("overwrite", &gone))
    }

    /// The key pair of EC2, which bundles are sealed for, as it was kept; `None` while there is none.
    pub fn ec2_pair(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Ec2Error> {
        let path = self.ec2.dir("keys").join(EC2_PAIR);
        Ok(read_limited(&path, MAX_PAIR)?.map(Zeroizing::new))
    }

    /// Keeps a key pair of EC2, unless there is one. Gives the one that is kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep_ec2_pair(&self, pair: &[u8]) -> Result<Zeroizing<Vec<u8>>, Ec2Error> {
        let _lock = self.lock()?;
        if let Some(there) = self.ec2_pair()? {
            return Ok(there);
        }
        let path = self.ec2.dir("keys").join(EC2_PAIR);
        write_private(self.ec2.session().dir(), &path, pair)?;
        Ok(Zeroizing::new(pair.to_vec()))
    }

    fn path(&self, key: &KeyId) -> PathBuf {
        self.ec2.dir("keys").join(key.as_str())
    }

    fn lock(&self) -> Result<crate::LayerLock, Ec2Error> {
        loop {
            if let Some(lock) = crate::lock::lock(&self.ec2.dir("keys.lock"), true)? {
                return Ok(lock);
            }
        }
    }

    fn write(&self, key: &KeyId, versions: &[Secret]) -> Result<(), Ec2Error> {
        // With all its room at once: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + 32 * versions.len() + 32));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(versions.len()).unwrap_or(0).to_le_bytes());
        for secret in versions {
            bytes.extend_from_slice(&**secret);
        }
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        write_private(self.ec2.session().dir(), &self.path(key), &bytes)
    }

    /// All versions, at least one.
    fn material(&self, key: &KeyId) -> Result<Vec<Secret>, Ec2Error> {
        let path = self.path(key);
        let limit = HEADER + 32 * MAX_VERSIONS + 32;
        let Some(bytes) = read_limited(&path, limit as u64)?.map(Zeroizing::new) else {
            return Err(Ec2Error::NoMaterial {
                key: key.clone(),
                path,
            });
        };
        let word = |at: usize| {
            let word = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(word))
        };
        let (Some(MAGIC), Some(version), Some(count)) = (bytes.first_chunk(), word(8), word(12))
        else {
            return Err(Ec2Error::damaged(path, "not a key file"));
        };
        if version != VERSION {
            return Err(Ec2Error::Version {
                path,
                found: version.into(),
                known: VERSION.into(),
            });
        }
        let (body, sum) = bytes.split_at(bytes.len().saturating_sub(32));
        let count = count as usize;
        if count == 0
            || body.len() != HEADER + 32 * count
            || Digest::of(body).as_bytes().as_slice() != sum
        {
            return Err(Ec2Error::damaged(path, "its length or checksum is wrong"));
        }
        let (versions, _) = body[HEADER..].as_chunks::<32>();
        Ok(versions.iter().map(|bytes| Secret::new(*bytes)).collect())
    }
}

impl Ec2 {
    /// Makes a data key, wrapped under the newest version of `key`. The record that names it ([`DataKey::encryption`]) is to be
    /// written before the hold ends.
    ///
    /// # Errors
    /// [`Ec2Error::NoMaterial`].
    pub fn generate_data_key(&self, hold: &Hold, key: &KeyId) -> Result<DataKey, Ec2Error> {
        let mut id = [0; 32];
        random(&mut id)?;
        let encryption = Encryption {
            key_id: key.clone(),
            data_key_id: Digest::from_bytes(id),
        };
        self.create_data_key(hold, &encryption)
    }

    /// Makes the data key of an id that was chosen before, as [`Ec2::generate_data_key`] does. When there is one of this id, it is
    /// that one, whoever made it.
    ///
    /// # Errors
    /// [`Ec2Error::NoMaterial`]; [`Ec2Error::DataKeyExists`] when the id is that of a data key under another key.
    pub fn create_data_key(
        &self,
        _hold: &Hold,
        encryption: &Encryption,
    ) -> Result<DataKey, Ec2Error> {
        let made = DataKey::generate(encryption.clone())?;
        if self.keep(&made, Keep::New)? {
            Ok(made)
        } else {
            self.open_data_key(encryption)
        }
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// [`Ec2Error::NoDataKey`], [`Ec2Error::NoMaterial`], [`Ec2Error::NoMaterialVersion`], [`Ec2Error::WrongMaterial`].
    pub fn open_data_key(&self, encryption: &Encryption) -> Result<DataKey, Ec2Error> {
        let Encryption {
            key_id,
            data_key_id,
        } = encryption;
        let fail = self.db().error("read");
        let row = self.db().read(|transaction| {
            transaction
                .prepare_cached("SELECT version, wrapped FROM data_keys WHERE id = ?1 AND key = ?2")
                .and_then(|mut query| {
                    query
                        .query_row(
                            params![&data_key_id.as_bytes()[..], key_id.as_str()],
                            |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?)),
                        )
                        .optional()
                })
                .map_err(&fail)
        })?;
        let Some((version, wrapped)) = row else {
            return Err(Ec2Error::NoDataKey {
                key: key_id.clone(),
                data_key: *data_key_id,
            });
        };
        let material = self.keys().material(key_id)?;
        let index = usize::try_from(version).unwrap_or(0).checked_sub(1);
        let Some(material) = index.and_then(|index| material.get(index)) else {
            return Err(Ec2Error::NoMaterialVersion {
                key: key_id.clone(),
                version,
                path: self.keys().path(key_id),
            });
        };
        unwrap(material, &wrapped, &context(encryption, version))
            .map(|secret| DataKey::new(encryption.clone(), secret))
            .ok_or_else(|| Ec2Error::WrongMaterial {
                key: key_id.clone(),
                data_key: *data_key_id,
            })
    }

    /// Wraps the same data key under the newest version of another key (or of the same one, after a rotation); what it was wrapped
    /// under before stays until no record names it. No block is touched.
    ///
    /// # Errors
    /// Those of [`Ec2::open_data_key`] and [`Ec2::generate_data_key`].
    pub fn rewrap(
        &self,
        _hold: &Hold,
        encryption: &Encryption,
        to: &KeyId,
    ) -> Result<DataKey, Ec2Error> {
        let key = self.open_data_key(encryption)?;
        let key = DataKey::new(
            Encryption {
                key_id: to.clone(),
                data_key_id: key.id(),
            },
            key.secret().clone(),
        );
        self.keep(&key, Keep::Known)?;
        Ok(key)
    }

    /// Wraps a data key and keeps it; false when there is one of its id, and it is new.
    fn keep(&self, data_key: &DataKey, which: Keep) -> Result<bool, Ec2Error> {
        let encryption = data_key.encryption();
        let key = &encryption.key_id;
        let material = self.keys().material(key)?;
        let version = u32::try_from(material.len()).unwrap_or(u32::MAX);
        let Some(newest) = material.last() else {
            return Err(Ec2Error::damaged(self.keys().path(key), "no material"));
        };
        let wrapped = wrap(newest, data_key.secret(), &context(encryption, version))?;
        let id = &encryption.data_key_id.as_bytes()[..];
        let fail = self.db().error("write");
        self.db().write(|transaction| {
            if which == Keep::New {
                let keys: Vec<String> = transaction
                    .prepare_cached("SELECT key FROM data_keys WHERE id = ?1")
                    .and_then(|mut query| query.query_map([id], |row| row.get(0))?.collect())
                    .map_err(&fail)?;
                if keys.iter().any(|there| there == key.as_str()) {
                    return Ok(false);
                }
                if !keys.is_empty() {
                    return Err(Ec2Error::DataKeyExists {
                        data_key: encryption.data_key_id,
                    });
                }
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO data_keys(id, key, version, wrapped) VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut put| put.execute(params![id, key.as_str(), version, wrapped]))
                .map_err(&fail)?;
            Ok(true)
        })
    }
}

/// Where a data key that is to be kept comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It was made just now.
    New,
    /// It was opened, and its secret is that of its id.
    Known,
}

fn context(encryption: &Encryption, version: u32) -> Vec<u8> {
    let mut context = b"amiforge data key 1\0".to_vec();
    context.extend_from_slice(encryption.key_id.as_str().as_bytes());
    context.extend_from_slice(encryption.data_key_id.as_bytes());
    context.extend_from_slice(&version.to_le_bytes());
    context
}
