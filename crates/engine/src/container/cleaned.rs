//! Layers without what an image does not keep: the same files that a disk image is made without, here
//! taken out of every layer, since what a layer holds can be read from it whatever the layers above hide.

use std::borrow::Cow;

use amiforge_tree::{Content, Kind, LayerDiff, LayerEntry};

use crate::cleanup;

/// The layer without them. The id of a machine stays as an empty file.
pub(super) fn cleaned(diff: &LayerDiff) -> Cow<'_, LayerDiff> {
    let has_id = diff.entries.get(cleanup::MACHINE_ID).is_some_and(has_data);
    if !has_id && !diff.entries.keys().any(|path| cleanup::is_dropped(path)) {
        return Cow::Borrowed(diff);
    }
    let mut out = diff.without(cleanup::is_dropped);
    if let Some(LayerEntry::Put(inode)) = out.entries.get_mut(cleanup::MACHINE_ID)
        && let Kind::File(content) = &mut inode.kind
    {
        *content = Content::default();
    }
    Cow::Owned(out)
}

fn has_data(entry: &LayerEntry) -> bool {
    matches!(entry, LayerEntry::Put(inode) if matches!(&inode.kind, Kind::File(content) if content.size > 0))
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Inode, Stat};
    use amiforge_types::Timestamp;

    use super::*;

    fn file(text: &str) -> LayerEntry {
        let stat = Stat {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let content = Content::bytes(text.as_bytes());
        LayerEntry::Put(Inode::new(stat, Kind::File(content)))
    }

    fn diff(entries: Vec<(&str, LayerEntry)>) -> LayerDiff {
        LayerDiff {
            entries: entries
                .into_iter()
                .map(|(path, entry)| (path.as_bytes().to_vec(), entry))
                .collect(),
        }
    }

    #[test]
    fn what_an_image_does_not_keep_is_in_no_layer() {
        let link = |to: &str| LayerEntry::Link(to.as_bytes().to_vec());
        let before = diff(vec![
            ("etc/machine-id", file("0123")),
            ("etc/ssh/ssh_host_rsa_key", file("secret")),
            ("etc/ssh/sshd_config", file("kept")),
            ("tmp/a", file("shared")),
            ("usr/b", link("tmp/a")),
            ("usr/c", link("tmp/a")),
        ]);
        let after = cleaned(&before);
        let LayerEntry::Put(id) = &after.entries[b"etc/machine-id".as_slice()] else {
            panic!("{after:?}");
        };
        assert_eq!(id.kind, Kind::File(Content::default()));
        let mut rest = after.into_owned();
        rest.entries.remove(b"etc/machine-id".as_slice());
        assert_eq!(
            rest,
            diff(vec![
                ("etc/ssh/sshd_config", file("kept")),
                ("usr/b", file("shared")),
                ("usr/c", link("usr/b")),
            ])
        );
    }

    #[test]
    fn a_layer_without_them_is_not_copied() {
        let before = diff(vec![("usr/b", file("x")), ("tmpx", file("y"))]);
        assert!(matches!(cleaned(&before), Cow::Borrowed(_)));
    }
}
