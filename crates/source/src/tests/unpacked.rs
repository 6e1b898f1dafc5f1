use std::collections::BTreeMap;

use amiforge_tree::{DataSource, Kind, LayerDiff, LayerEntry};
use amiforge_types::BlobTable;

use super::repo::{HASTY, Place, Repo};
use crate::fetch::fetch_with;
use crate::resolve::resolve_with;
use crate::{SourceError, unpack};

pub(super) fn text(diff: &LayerDiff, blobs: &BlobTable, path: &str) -> String {
    let Some(LayerEntry::Put(inode)) = diff.entries.get(path.as_bytes()) else {
        panic!("{path} is not there")
    };
    let Kind::File(content) = &inode.kind else {
        panic!("{path} is no file")
    };
    let mut out = Vec::new();
    for extent in &content.extents {
        match &extent.source {
            DataSource::Bytes(bytes) => out.extend_from_slice(bytes),
            DataSource::Blob { id, offset } => {
                let mut buf = vec![0; usize::try_from(extent.len).unwrap()];
                blobs
                    .get(*id)
                    .unwrap()
                    .read_exact_at(&mut buf, *offset)
                    .unwrap();
                out.extend_from_slice(&buf);
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn packages_become_a_merged_tree_with_a_database_that_dpkg_accepts() {
    let repo = Repo::new();
    let place = Place::new();
    let request = repo.request(&repo.file_uri(), &["web"]);
    let unpacked = || {
        place.with(false, |ctx| {
            let resolved = resolve_with(&request, ctx, HASTY).unwrap();
            let fetched = fetch_with(&resolved, ctx, HASTY).unwrap();
            let mut blobs = BlobTable::new();
            let diff = unpack(
                &resolved,
                &fetched,
                tempfile::tempfile().unwrap(),
                &mut blobs,
                ctx,
            )
            .unwrap();
            (diff, blobs)
        })
    };
    let (diff, blobs) = unpacked();
    assert_eq!(text(&diff, &blobs, "usr/bin/sh"), "shell");
    assert_eq!(text(&diff, &blobs, "usr/lib/libone.so.1"), "code");
    assert!(!diff.entries.contains_key(b"bin/sh".as_slice()));
    assert!(matches!(
        &diff.entries[b"bin".as_slice()],
        LayerEntry::Put(inode) if inode.kind == Kind::Symlink(b"usr/bin".to_vec())
    ));
    assert_eq!(text(&diff, &blobs, "etc/base.conf"), "setting");
    assert!(text(&diff, &blobs, "var/lib/dpkg/info/base.list").contains("\n/bin/sh\n"));
    assert!(text(&diff, &blobs, "var/lib/dpkg/info/libone:amd64.list").starts_with("/.\n"));
    assert_eq!(
        text(&diff, &blobs, "var/lib/apt/extended_states")
            .matches("Package: ")
            .count(),
        2,
        "libone and server-a came as dependencies"
    );

    // dpkg reads the database as it is.
    let admin = tempfile::tempdir().unwrap();
    for path in diff.entries.keys() {
        let path = std::str::from_utf8(path).unwrap();
        let Some(name) = path.strip_prefix("var/lib/dpkg/") else {
            continue;
        };
        let LayerEntry::Put(inode) = &diff.entries[path.as_bytes()] else {
            continue;
        };
        let to = admin.path().join(name);
        match inode.kind {
            Kind::Dir => std::fs::create_dir_all(to).unwrap(),
            _ => std::fs::write(to, text(&diff, &blobs, path)).unwrap(),
        }
    }
    let query = |args: &[&str]| {
        super::repo::run(
            std::process::Command::new("dpkg-query")
                .arg("--admindir")
                .arg(admin.path())
                .args(args),
        )
    };
    assert_eq!(
        query(&[
            "--showformat=${Package} ${db:Status-Status} ${Version}\n",
            "--show"
        ]),
        "base unpacked 1.0\nlibone unpacked 1.2-1\nserver-a unpacked 1\nweb unpacked 2:3.0\n"
    );
    assert!(query(&["--listfiles", "libone"]).contains("/lib/libone.so.1\n"));
    let conffiles = query(&["--showformat=${Conffiles}", "--show", "base"]);
    assert_eq!(
        conffiles.trim(),
        format!("/etc/base.conf {}", md5_of("setting"))
    );

    // The same again, whatever thread was faster.
    let (again, blobs_again) = unpacked();
    let dump = |diff: &LayerDiff, blobs: &BlobTable| -> BTreeMap<Vec<u8>, String> {
        diff.entries
            .iter()
            .map(|(path, entry)| {
                let shown = match entry {
                    LayerEntry::Put(inode) if matches!(inode.kind, Kind::File(_)) => {
                        format!(
                            "{:?} {}",
                            inode.stat,
                            text(diff, blobs, std::str::from_utf8(path).unwrap())
                        )
                    }
                    other => format!("{other:?}"),
                };
                (path.clone(), shown)
            })
            .collect()
    };
    assert_eq!(dump(&diff, &blobs), dump(&again, &blobs_again));
}

fn md5_of(text: &str) -> String {
    use md5::Digest as _;
    md5::Md5::digest(text.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn a_package_damaged_in_the_cache_is_refused_and_removed() {
    let repo = Repo::new();
    let place = Place::new();
    let request = repo.request(&repo.file_uri(), &["web"]);
    place.with(false, |ctx| {
        let resolved = resolve_with(&request, ctx, HASTY).unwrap();
        let fetched = fetch_with(&resolved, ctx, HASTY).unwrap();
        let mut bytes = std::fs::read(&fetched.debs[0]).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&fetched.debs[0], bytes).unwrap();
        let error = unpack(
            &resolved,
            &fetched,
            tempfile::tempfile().unwrap(),
            &mut BlobTable::new(),
            ctx,
        )
        .unwrap_err();
        assert!(matches!(error, SourceError::Digest { .. }), "{error}");
        assert!(!fetched.debs[0].exists());
        fetch_with(&resolved, ctx, HASTY).unwrap();
        unpack(
            &resolved,
            &fetched,
            tempfile::tempfile().unwrap(),
            &mut BlobTable::new(),
            ctx,
        )
        .unwrap();
    });
}
