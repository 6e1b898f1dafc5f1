//! Real overlays, harvested.

use std::fs::File;
use std::path::{Path, PathBuf};

use amiforge_store::{HarvestError, HarvestOptions, harvest};
use amiforge_tree::{Kind, LayerEntry, Tree};
use amiforge_types::Timestamp;

use crate::common::{CLOCK, EVERYTHING, ROOT, dump, dump_diff, dump_dir, harvested, options, sh};
use crate::tar::similar_asserts;

/// Runs `script` in an overlay (with `userxattr`) of `lower`; returns the upper directory.
fn overlay(dir: &Path, script: &str) -> PathBuf {
    sh(
        dir,
        &format!(
            r#"mkdir -p "$1/lower" "$1/upper" "$1/work" "$1/merged"
            unshare -m bash -euc '
                mount -t overlay overlay -o userxattr,lowerdir="$1/lower",upperdir="$1/upper",workdir="$1/work" "$1/merged"
                cd "$1/merged"; {script}' bash "$1""#
        ),
    );
    dir.join("upper")
}

#[test]
fn an_overlay_upper_turns_the_lower_into_the_merged_tree() {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    std::fs::create_dir(&lower).unwrap();
    sh(&lower, EVERYTHING);
    sh(
        &lower,
        r#"cd "$1"; mkdir -p gone/deep replaced/old todir keep/sub; echo x > gone/deep/f; echo y > replaced/old/f; : > todir/f; echo z > keep/sub/z; : > tofile; ln -s keep tolink"#,
    );
    let (lower_diff, lower_blobs) = harvested(&lower, &options());
    let upper = overlay(
        dir.path(),
        r#"rm -r gone; rm -r replaced; mkdir replaced; echo new > replaced/new; rm -r todir; echo f > todir;
           rm tofile; mkdir tofile; : > tofile/in; chmod 600 keep/sub/z; rm etc/hello; echo more >> zeros;
           ln usr/bin/su usr/bin/su2; rm tolink; setfattr -n user.new -v 1 usr/bin/ping; mkdir -m 700 fresh; mkfifo fresh/p;
           tar -C "$1" -cf "$1/merged.tar" --xattrs --xattrs-include="*" --numeric-owner --format=pax -C merged ."#,
    );
    let (diff, blobs) = harvested(&upper, &options());
    assert!(matches!(
        diff.entries[&b"replaced"[..]],
        LayerEntry::PutOpaque(_)
    ));
    assert_eq!(diff.entries[&b"gone"[..]], LayerEntry::Whiteout);
    assert!(!diff.entries.keys().any(|path| path.starts_with(b"gone/")));
    // The overlay's own view, through GNU tar.
    let archive =
        std::sync::Arc::new(amiforge_store::FileBlob::open(dir.path().join("merged.tar")).unwrap());
    let mut all = lower_blobs.clone();
    let read = amiforge_tree::tar::ReadOptions {
        build_clock: CLOCK,
        limits: amiforge_tree::tar::Limits::DEFAULT,
    };
    let id = all.add(archive.clone());
    let merged = amiforge_tree::tar::read_at(&*archive, id, &read).unwrap();
    let expected = dump(&merged, &all);
    let mut tree = Tree::from_layers(ROOT, [&lower_diff]).unwrap();
    let mut diff = diff;
    // The layer's blob moves into the common table.
    let upper_blob = {
        let out = tempfile::tempfile().unwrap();
        harvest(File::open(&upper).unwrap(), &out, &options()).unwrap();
        all.add(std::sync::Arc::new(
            amiforge_store::FileBlob::from_file(out).unwrap(),
        ))
    };
    diff.map_blobs(&mut |_| upper_blob);
    tree.apply(&diff).unwrap();
    // The overlay shows its own names of a hard-linked lower file as one inode until one is
    // copied up; `usr/bin/su` and its new name come from the upper.
    similar_asserts(&dump(&tree, &all), &expected, "lower + upper = merged");
    drop(blobs);
}

#[test]
fn times_of_the_build_become_the_build_clock() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"mkdir "$1/old"; : > "$1/old/f"; touch -d @1000 "$1/old/f" "$1/old"; : > "$1/new"; touch -d @1000 "$1""#,
    );
    let started = Timestamp::from_secs(1_000_000_000);
    let (diff, blobs) = harvested(
        dir.path(),
        &HarvestOptions {
            newer_than: started,
            ..options()
        },
    );
    let text = dump_diff(&diff, &blobs);
    let times: Vec<_> = text.lines().map(|l| l.split(' ').nth(6).unwrap()).collect();
    assert_eq!(
        times,
        [
            "1000.000000000",
            "1700000000.000000000",
            "1000.000000000",
            "1000.000000000"
        ],
        "{text}"
    );
}

#[test]
fn excluded_paths_go_with_everything_below() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p proc/1 etc; : > proc/1/x; : > etc/resolv.conf; : > etc/resolv.conf.d; ln etc/resolv.conf etc/kept"#,
    );
    let exclude = vec![b"proc".to_vec(), b"etc/resolv.conf".to_vec()];
    let (diff, _) = harvested(
        dir.path(),
        &HarvestOptions {
            exclude,
            ..options()
        },
    );
    let paths: Vec<_> = diff
        .entries
        .keys()
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect();
    assert_eq!(paths, ["", "etc", "etc/kept", "etc/resolv.conf.d"]);
}

#[test]
fn overlay_and_host_attributes_go() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir d; : > f; : > gone; setfattr -n user.overlay.impure -v y d; setfattr -n user.overlay.origin -v 0x00 f
           setfattr -n user.overlay.whiteout -v y gone; setfattr -n user.overlay.opaque -v x d; setfattr -n trusted.overlay.opaque -v y ."#,
    );
    let (diff, _) = harvested(dir.path(), &options());
    for path in [&b"d"[..], b"f", b""] {
        let LayerEntry::Put(inode) = &diff.entries[path] else {
            panic!("{path:?}")
        };
        assert!(inode.xattrs.is_empty());
    }
    assert_eq!(diff.entries[&b"gone"[..]], LayerEntry::Whiteout);
}

#[test]
fn what_spreads_an_inode_over_layers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#": > "$1/f"; setfattr -n user.overlay.metacopy -v "" "$1/f""#,
    );
    let out = tempfile::tempfile().unwrap();
    match harvest(File::open(dir.path()).unwrap(), &out, &options()) {
        Err(HarvestError::Overlay { path, feature }) => {
            assert_eq!(
                (path.as_slice(), feature.as_str()),
                (&b"f"[..], "user.overlay.metacopy")
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A capability set inside a user namespace is stored with the namespace's root id (revision 3); the
/// image has to have revision 2.
#[test]
fn capabilities_of_a_user_namespace_become_the_image_s() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; cp /bin/true ping; setfattr -n security.capability -v 0x0100000300200000000000000000000000000000a0860100 ping"#,
    );
    let (diff, _) = harvested(dir.path(), &options());
    let LayerEntry::Put(inode) = &diff.entries[&b"ping"[..]] else {
        panic!()
    };
    let value = &inode.xattrs[&b"security.capability"[..]];
    assert_eq!(
        value.as_slice(),
        [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
}

/// Where the holes are must not depend on how the host's file system stored the file.
#[test]
fn holes_are_found_by_content() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir a b; truncate -s 1000000 a/f; printf x | dd of=a/f bs=1 seek=300001 conv=notrunc status=none
           dd if=a/f of=b/f bs=64K status=none conv=notrunc; truncate -s 70000 a/g; head -c 70000 /dev/zero > b/g
           head -c 5000 /dev/zero > a/h; truncate -s 5000 b/h"#,
    );
    let entries = |name: &str| {
        let (diff, _) = harvested(&dir.path().join(name), &options());
        diff.entries
            .into_values()
            .filter_map(|e| match e {
                LayerEntry::Put(inode) => match inode.kind {
                    Kind::File(content) => Some(content),
                    _ => None,
                },
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let (a, b) = (entries("a"), entries("b"));
    assert_eq!(a, b);
    let runs: Vec<_> = a
        .iter()
        .map(|c| {
            c.extents
                .iter()
                .map(|e| (e.offset, e.len))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(runs, [vec![(299_008, 4096)], vec![], vec![(0, 5000)]]);
}

#[test]
fn the_same_directory_gives_the_same_bytes_whatever_the_order() {
    let bytes = |script: &str, threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), script);
        let out = tempfile::NamedTempFile::new().unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            harvest(File::open(dir.path()).unwrap(), out.as_file(), &options()).unwrap()
        });
        std::fs::read(out.path()).unwrap()
    };
    let forth = r#"cd "$1"; for i in $(seq 300); do head -c $((i * 37)) /bin/bash > f$i; done; ln f7 a; touch -d @5 * ."#;
    let back = r#"cd "$1"; umask 077; for i in $(seq 300 -1 1); do head -c $((i * 37)) /bin/bash > f$i; done; ln f7 a; chmod 644 *; chmod 700 .; touch -d @5 * ."#;
    assert!(bytes(&format!("{forth}; chmod 700 ."), 1) == bytes(back, 4));
}

#[test]
fn a_mount_inside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("m")).unwrap();
    sh(dir.path(), r#"mount -t tmpfs none "$1/m""#);
    let out = tempfile::tempfile().unwrap();
    let result = harvest(File::open(dir.path()).unwrap(), &out, &options());
    sh(dir.path(), r#"umount "$1/m""#);
    assert!(matches!(result, Err(HarvestError::Mount(path)) if path == b"m"));
}

#[test]
fn very_deep_directories_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; n=$(printf 'd%.0s' {1..200}); for i in $(seq 60); do mkdir "$n"; cd "$n"; done; echo deep > file"#,
    );
    let text = dump_dir(dir.path());
    assert_eq!(text.lines().count(), 62);
    assert!(text.contains("/file file 0644"));
    amiforge_store::remove_tree(dir.path()).unwrap();
}

/// Flags need a file system that has them; both the temporary folder's and `/dev/shm`'s do here, and
/// without one the test fails, which says so.
#[test]
fn inode_flags_of_a_folder_are_kept_but_for_those_it_passes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    // What anybody may set on a file of their own; `chattr +i` takes root.
    sh(
        &root,
        r#"cd "$1"; mkdir d; echo x > d/nodump; : > d/empty; echo y > plain
           chattr +d d/nodump d/empty; chattr +A d"#,
    );
    let flags = |path: &str| {
        let (diff, _) = harvested(&root, &options());
        match &diff.entries[path.as_bytes()] {
            LayerEntry::Put(inode) => inode.flags.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ["", "d", "d/nodump", "d/empty", "plain"].map(flags),
        ["", "A", "d", "d", ""]
    );
    // The folder itself has it: what it holds may have it from there.
    sh(&root, r#"chattr +d "$1""#);
    assert_eq!(["", "d", "d/nodump"].map(flags), ["", "A", ""]);
}

#[test]
fn flags_that_an_overlay_keeps_aside_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    // As overlayfs stores `chattr +i` and `chattr +a` under `userxattr`.
    sh(
        &root,
        r#"cd "$1"; echo x > fixed; echo y > log; mkdir sealed
           setfattr -n user.overlay.protattr -v i fixed
           setfattr -n user.overlay.protattr -v a log
           setfattr -n user.overlay.protattr -v ai sealed"#,
    );
    let (diff, _) = harvested(&root, &options());
    let flags = |path: &str| match &diff.entries[path.as_bytes()] {
        LayerEntry::Put(inode) => {
            assert!(inode.xattrs.is_empty(), "{path}");
            inode.flags.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(["fixed", "log", "sealed"].map(flags), ["i", "a", "ia"]);
}
