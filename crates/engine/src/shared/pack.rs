//! Layer files on their way: packed with zstd, and back, with limits.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use amiforge_store::{LayerWriter, Store};
use amiforge_types::{BlobTable, ByteSize, Hasher, LayerId};

use super::entry::PackedLayer;
use super::{MAX_LAYER, Side};
use crate::error::chain;
use crate::event::Event;
use crate::settings::Engine;

/// Fast, and most of what there is to win.
const LEVEL: i32 = 3;
/// Largest window that a packed file may ask for, as a power of two.
const MAX_WINDOW: u32 = 27;

/// A folder of the store's temporary space, removed with what is in it.
struct Room(PathBuf);

impl Room {
    fn new(store: &Store) -> Result<Self, String> {
        store.temp_dir("shared").map(Self).map_err(|e| chain(&e))
    }

    fn packed(&self) -> PathBuf {
        self.0.join("packed")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A packed layer in the store's temporary space; it goes with this.
pub(super) struct Packed {
    pub(super) layer: PackedLayer,
    path: PathBuf,
    _room: Room,
}

impl Packed {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Packs a layer of the store, which was compared with its digests when this build took or made it.
pub(super) fn pack(store: &Store, id: LayerId) -> Result<Packed, String> {
    let stored = store
        .layer(id, &mut BlobTable::new())
        .map_err(|e| chain(&e))?
        .ok_or("it is not in the store any more")?;
    let room = Room::new(store)?;
    let path = room.packed();
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    let mut file = File::open(&stored.path).map_err(named(&stored.path))?;
    let out = Counted {
        file: File::create(&path).map_err(named(&path))?,
        hasher: Hasher::new(),
        bytes: 0,
    };
    let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(named(&path))?;
    let bytes = std::io::copy(&mut file, &mut encoder).map_err(named(&path))?;
    let out = encoder.finish().map_err(named(&path))?;
    Ok(Packed {
        layer: PackedLayer {
            digest: stored.info.digest,
            bytes,
            packed_digest: out.hasher.finish(),
            packed_bytes: out.bytes,
        },
        path,
        _room: room,
    })
}

struct Counted {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl std::io::Write for Counted {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Engine {
    /// Brings a packed layer and unpacks it: first the digest of what came, then no more than was said, then the layer's
    /// own index and data. Not committed yet.
    pub(super) fn take_layer(
        &self,
        side: &Side<'_>,
        store: &Store,
        id: LayerId,
        layer: &PackedLayer,
    ) -> Result<LayerWriter, String> {
        let room = Room::new(store)?;
        has_room(&room.0, layer)?;
        let packed = room.packed();
        let done = std::cell::Cell::new(0);
        let progress = |n: u64| {
            let before = done.get();
            done.set(before + n);
            // One event for each half percent is enough for any bar.
            let step = (layer.packed_bytes / 200).max(1);
            if before / step != done.get() / step {
                self.emit(Event::Progress {
                    name: "download",
                    done: done.get(),
                    total: layer.packed_bytes,
                    unit: "bytes",
                });
            }
        };
        side.cache
            .bring(layer.blob(), &packed, &progress)
            .map_err(|e| chain(&e))?;
        let writer = store.layer_writer(id).map_err(|e| chain(&e))?;
        unpack(&packed, layer, &mut writer.file())?;
        let info = writer.verify().map_err(|e| chain(&e))?;
        match info.digest == layer.digest {
            true => Ok(writer),
            false => Err(format!(
                "its layer has the digest {}, the entry says {}",
                info.digest, layer.digest
            )),
        }
    }
}

fn has_room(dir: &Path, layer: &PackedLayer) -> Result<(), String> {
    let all = layer.bytes.saturating_add(layer.packed_bytes);
    if all > MAX_LAYER {
        return Err(format!("{} are too many", ByteSize(all)));
    }
    let room = amiforge_store::free_bytes(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    match all > room {
        true => Err(format!(
            "{} are needed below {}, and {} are free",
            ByteSize(all),
            dir.display(),
            ByteSize(room)
        )),
        false => Ok(()),
    }
}

fn unpack(packed: &Path, layer: &PackedLayer, out: &mut &File) -> Result<(), String> {
    let damaged = |e: std::io::Error| format!("it cannot be unpacked: {e}");
    let file = File::open(packed).map_err(damaged)?;
    let mut decoder = zstd::Decoder::new(file).map_err(damaged)?;
    decoder.window_log_max(MAX_WINDOW).map_err(damaged)?;
    let mut decoder = decoder.take(layer.bytes.saturating_add(1));
    let mut buf = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let n = match decoder.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e)),
        };
        bytes += n as u64;
        out.write_all(&buf[..n]).map_err(damaged)?;
    }
    match bytes == layer.bytes {
        true => Ok(()),
        false => Err(format!(
            "it has {} {bytes} bytes, the entry says {}",
            if bytes > layer.bytes {
                "at least"
            } else {
                "only"
            },
            layer.bytes
        )),
    }
}

#[cfg(test)]
mod tests {
    use amiforge_types::Digest;

    use super::*;

    #[test]
    fn no_more_is_unpacked_than_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("packed"), dir.path().join("out"));
        let layer = |bytes| PackedLayer {
            digest: Digest::of(b""),
            bytes,
            packed_digest: Digest::of(b""),
            packed_bytes: 0,
        };
        let unpacked = |packed: &[u8], bytes: u64| {
            std::fs::write(&path, packed).unwrap();
            let out = File::create(&target).unwrap();
            unpack(&path, &layer(bytes), &mut &out)
        };
        let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 19).unwrap();
        assert!(unpacked(&bomb, 64 << 20).is_ok());
        assert!(unpacked(&bomb, 4096).unwrap_err().contains("at least"));
        assert!(std::fs::metadata(&target).unwrap().len() <= 4097);
        assert!(unpacked(&bomb, 65 << 20).unwrap_err().contains("only"));
        for junk in [&b""[..], b"junk", &bomb[..bomb.len() - 3]] {
            assert!(unpacked(junk, 64 << 20).is_err());
        }
        assert!(has_room(dir.path(), &layer(u64::MAX)).is_err());
    }
}
