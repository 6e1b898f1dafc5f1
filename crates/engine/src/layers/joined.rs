//! Many layers as few directories: an overlay, and a machine with disks, take only so many.

use std::time::SystemTime;

use amiforge_store::{LayerUse, Store};
use amiforge_tree::{LayerDiff, Stat, Tree};
use amiforge_types::{BlobTable, Hasher, LayerId, Timestamp};

use super::store_context;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// Most lower directories that become of layers; a caller may put one or two over them. mount(2) takes 4095 bytes of
/// options, which name about 220 directories; a machine has 176 disks, each of which costs a start about 75 ms of a
/// processor under QEMU's translator.
const MOST: usize = 128;

/// Layers are joined in multiples of this, so that a stack that grows finds the same again.
const STEP: usize = 64;

/// How many of the lowest of so many layers become one.
fn joined(count: usize) -> usize {
    match count.saturating_sub(MOST) {
        0 => 0,
        over => (over + 1).next_multiple_of(STEP).min(count),
    }
}

/// Layers that become directories, with their titles, the lowest first.
pub(super) struct Joined {
    pub(super) layers: Vec<(LayerId, String)>,
    /// Keeps the one that is of several in the store, until its directory is used.
    _used: Option<LayerUse>,
}

impl Engine {
    /// The same layers; the lowest of very many are one, which the store has then.
    pub(super) fn joined_layers(
        &self,
        store: &Store,
        layers: &[(LayerId, String)],
    ) -> Result<Joined, EngineError> {
        let (below, above) = layers.split_at(joined(layers.len()));
        if below.is_empty() {
            return Ok(Joined {
                layers: layers.to_vec(),
                _used: None,
            });
        }
        let title = format!("the lowest {} layers in one", below.len());
        let mut blobs = BlobTable::new();
        let mut stored = Vec::new();
        let mut hash = Hasher::new();
        hash.field(b"amiforge-joined-layers-v1");
        for (id, title) in below {
            let layer = store.layer(*id, &mut blobs);
            let layer = layer.or_fail(ErrorKind::Failed, store_context)?;
            let layer = layer.ok_or_else(|| {
                EngineError::new(ErrorKind::Failed, format!("the layer {title} is gone"))
                    .with_hint("run it again: what is missing is made again")
            })?;
            // One that was made again may be another.
            hash.field(id.to_string().as_bytes());
            hash.field(layer.info.digest.hex().as_bytes());
            stored.push(layer);
        }
        let id = LayerId(hash.finish());
        let used = store.use_layers(&[id], SystemTime::now());
        let used = used.or_fail(ErrorKind::Failed, store_context)?;
        // One that is damaged is made again, as others are.
        if !matches!(store.layer_info(id), Ok(Some(_))) {
            self.stage("layer", format!("join {title}"));
            let context = || format!("cannot join {title}");
            let diffs: Vec<&LayerDiff> = stored.iter().map(|layer| &*layer.diff).collect();
            let diff = join(&diffs).or_fail(ErrorKind::Failed, context)?;
            store
                .put_layer(id, &diff, &blobs)
                .or_fail(ErrorKind::Failed, context)?;
        }
        let all = std::iter::once((id, title)).chain(above.iter().cloned());
        Ok(Joined {
            layers: all.collect(),
            _used: Some(used),
        })
    }
}

/// What layers put, the lowest first, as one layer that is the lowest.
fn join(layers: &[&LayerDiff]) -> Result<LayerDiff, amiforge_tree::ApplyError> {
    let stat = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let tree = Tree::from_layers(stat, layers.iter().copied())?;
    let mut diff = LayerDiff::from_tree(&tree);
    if !layers
        .iter()
        .any(|layer| layer.entries.contains_key(&b""[..]))
    {
        // Nothing is said of the root directory.
        diff.entries.remove(&b""[..]);
    }
    Ok(diff)
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Content, Inode, Kind, LayerEntry};

    use super::*;

    #[test]
    fn few_layers_stay_and_of_many_there_are_few_in_steps() {
        for (count, expected) in [
            (0, 0),
            (1, 0),
            (128, 0),
            (129, 64),
            (190, 64),
            (191, 64),
            (192, 128),
            (512, 448),
        ] {
            assert_eq!(joined(count), expected, "{count}");
            let rest = count - expected + usize::from(expected > 0);
            assert!(rest <= MOST, "{count}");
        }
    }

    #[test]
    fn joined_layers_put_what_they_put_one_after_the_other() {
        let stat = |mode| Stat {
            mode,
            uid: 1,
            gid: 2,
            mtime: Timestamp::default(),
        };
        let file = |text: &str| {
            let kind = Kind::File(Content::bytes(text.as_bytes()));
            LayerEntry::Put(Inode::new(stat(0o644), kind))
        };
        let dir = || Inode::new(stat(0o711), Kind::Dir);
        let layer = |entries: Vec<(&str, LayerEntry)>| {
            let mut diff = LayerDiff::default();
            for (path, entry) in entries {
                diff.entries.insert(path.into(), entry);
            }
            diff
        };
        let lowest = layer(vec![
            ("a", LayerEntry::Put(dir())),
            ("a/gone", file("gone")),
            ("a/old", file("old")),
            ("a/other", LayerEntry::Link("a/old".into())),
            ("b", LayerEntry::Put(dir())),
            ("b/hidden", file("hidden")),
        ]);
        let next = layer(vec![
            ("a/gone", LayerEntry::Whiteout),
            ("a/old", file("new")),
            ("b", LayerEntry::PutOpaque(dir())),
            ("b/seen", file("seen")),
        ]);
        let all = join(&[&lowest, &next]).unwrap();
        let expected = layer(vec![
            ("a", LayerEntry::Put(dir())),
            ("a/old", file("new")),
            ("a/other", file("old")),
            ("b", LayerEntry::Put(dir())),
            ("b/seen", file("seen")),
        ]);
        assert_eq!(all, expected);
        // Who says what the root directory is like is heard.
        let root = layer(vec![("", LayerEntry::Put(dir()))]);
        let all = join(&[&lowest, &root, &next]).unwrap();
        assert_eq!(all.entries.get(&b""[..]), root.entries.get(&b""[..]));
    }
}
