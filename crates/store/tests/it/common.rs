//! Directories with everything in them, and shell commands.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use amiforge_store::{FileBlob, HarvestError, HarvestOptions, harvest, read_folder};
use amiforge_testkit::{run, tool};
use amiforge_tree::{DumpContent, LayerDiff, Stat, Tree, layer};
use amiforge_types::{BlobTable, Timestamp};

pub(crate) const CLOCK: Timestamp = Timestamp::from_secs(1_700_000_000);
pub(crate) const ROOT: Stat = Stat {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: CLOCK,
};

/// Runs a script with the directory as `$1`; it has to succeed.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    run(tool("bash")
        .args(["-euc", script, "bash"])
        .arg(dir)
        .env("LC_ALL", "C"))
    .text()
}

pub(crate) fn command(name: &str) -> Command {
    tool(name)
}

pub(crate) fn options() -> HarvestOptions {
    // Nothing is newer than the end of time: times stay.
    HarvestOptions {
        build_clock: CLOCK,
        newer_than: Timestamp::from_secs(i64::MAX),
        exclude: Vec::new(),
    }
}

/// Reads a directory into a layer file and back.
pub(crate) fn harvested(dir: &Path, options: &HarvestOptions) -> (LayerDiff, BlobTable) {
    let out = tempfile::tempfile().unwrap();
    let info = harvest(File::open(dir).unwrap(), &out, options).unwrap();
    let blob = Arc::new(FileBlob::from_file(out).unwrap());
    let mut blobs = BlobTable::new();
    let id = blobs.add(blob.clone());
    let (diff, read) = layer::read(&*blob, id).unwrap();
    assert_eq!(info, read);
    layer::verify(&diff, &blobs).unwrap();
    (diff, blobs)
}

/// Reads a directory as a root file system.
pub(crate) fn folder(dir: &Path) -> (Tree, BlobTable) {
    folder_over(dir, Tree::new(ROOT)).unwrap()
}

/// The same over a tree whose data is in memory.
pub(crate) fn folder_over(dir: &Path, tree: Tree) -> Result<(Tree, BlobTable), HarvestError> {
    let spool = tempfile::tempfile().unwrap();
    let mut tree = read_folder(File::open(dir).unwrap(), tree, &spool)?;
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(FileBlob::from_file(spool).unwrap()));
    tree.assign_blob(id);
    Ok((tree, blobs))
}

pub(crate) fn dump(tree: &Tree, blobs: &BlobTable) -> String {
    tree.dump(DumpContent::Digest(blobs)).unwrap()
}

pub(crate) fn dump_diff(diff: &LayerDiff, blobs: &BlobTable) -> String {
    dump(&Tree::from_layers(ROOT, [diff]).unwrap(), blobs)
}

pub(crate) fn dump_dir(dir: &Path) -> String {
    let (diff, blobs) = harvested(dir, &options());
    dump_diff(&diff, &blobs)
}

/// Every type, owner, mode bit and name that a tar can carry, below `$1`.
pub(crate) const EVERYTHING: &str = r#"
cd "$1"; umask 022
mkdir -p etc usr/bin "sp ace" deep
echo hello > etc/hello; ln etc/hello etc/also; ln etc/hello usr/bin/third
ln -s ../usr/bin link; ln -s "$(printf 'x%.0s' {1..150})" longlink
mkfifo pipe; mknod null c 1 3; mknod disk b 8 17
printf 'odd' > "$(printf 'o\001d\377 \\name')"
name=$(printf 'n%.0s' {1..255}); echo long > "deep/$name"
d=deep; for i in 1 2 3; do d="$d/$(printf 'd%.0s' {1..100})"; mkdir "$d"; done; echo x > "$d/file"; ln "$d/file" "$d/hard"
: > empty
truncate -s 1M sparse; printf data | dd of=sparse bs=1 seek=524288 conv=notrunc status=none
truncate -s 300K hole
dd if=/dev/zero of=zeros bs=1K count=200 status=none
i=0; for off in $(seq 0 131072 4000000); do printf "run$off" | dd of=many bs=1 seek=$off conv=notrunc status=none; done
truncate -s 4500000 many
cp /bin/true usr/bin/ping; setcap cap_net_raw+ep usr/bin/ping
cp /bin/true usr/bin/su; chmod 4755 usr/bin/su
mkdir -m 1777 tmp; mkdir -m 2755 spool; chmod 0000 etc/also
setfattr -n user.bin -v 0x000a3dff00 empty; setfattr -n 'user.a=b%' -v v empty; setfattr -n user.dir -v x usr
setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff zeros
setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff04000500ffffffff20000000ffffffff spool
chown 1000:1001 "sp ace"; chown -h 65534:3000000 link; chown 3000000:4294967294 empty
touch -d @-5.5 empty; touch -d @0 hole; touch -d '2100-01-01 UTC' zeros; touch -hd @1600000000.123456789 link
touch -d @1500000000 etc usr/bin deep .
"#;
