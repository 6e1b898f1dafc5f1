//! A small tree that looks like Debian, and the outside tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use amiforge_disk::{EmitOptions, Format, Output, emit};
use amiforge_fs::{ext4, fat};
use amiforge_image::{BootMode, DiskImage, ImageSpec, assemble};
use amiforge_tree::{Content, Inode, Kind, Stat, Tree};
use amiforge_types::{Arch, BlobTable, Digest, ReadAt, Seed, Timestamp, WriteAt};
use tempfile::TempDir;

const CLOCK: Timestamp = Timestamp::from_secs(1_700_000_000);
const GRUB: &str = "/usr/lib/grub";

pub(crate) fn spec(boot: BootMode) -> ImageSpec {
    let mut spec = ImageSpec::new(boot, Arch::X86_64, Seed::new(Digest::of(b"tests")), CLOCK);
    spec.kernel_args = vec!["quiet".to_owned()];
    spec.headroom = 16 << 20;
    spec
}

/// A tree with two complete kernels, one without initrd, GRUB from this host (package grub-pc-bin)
/// and stand-ins for the signed files; less what `remove` names.
pub(crate) fn debian(remove: &[&str]) -> (Tree, BlobTable) {
    let mut tree = Tree::new(stat(0o755));
    let mut put = |path: &str, content: &[u8]| put(&mut tree, path, content);
    for version in ["6.1.0-9-cloud-amd64", "6.1.0-21-cloud-amd64"] {
        put(&format!("boot/vmlinuz-{version}"), b"kernel");
        put(&format!("boot/initrd.img-{version}"), b"initrd");
    }
    put("boot/vmlinuz-6.0.99-cloud-amd64", b"kernel");
    put("boot/vmlinuz-6.99.bak", b"kernel");
    put("etc/fstab", b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n# kept\n/dev/sda1 / ext3 defaults 0 1\n/dev/xvdb /data ext4 nofail 0 2\n");
    put(
        "var/lib/dpkg/info/grub-cloud-amd64.postinst",
        b"#!/bin/sh\n",
    );
    put("usr/lib/shim/shimx64.efi.signed", b"shim");
    put("usr/lib/shim/mmx64.efi.signed", b"manager");
    put(
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        b"signed grub",
    );
    put(
        "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
        b"unsigned grub",
    );
    put("usr/lib/grub/x86_64-efi/ext2.mod", b"module");
    let library = PathBuf::from(format!("{GRUB}/i386-pc"));
    for entry in std::fs::read_dir(&library).expect("GRUB for BIOS (package grub-pc-bin)") {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            put(
                &format!("usr/lib/grub/i386-pc/{}", entry.file_name().display()),
                &std::fs::read(entry.path()).unwrap(),
            );
        }
    }
    for path in remove {
        assert!(tree.remove(path.as_bytes()), "{path} was there");
    }
    (tree, BlobTable::new())
}

fn stat(mode: u16) -> Stat {
    Stat {
        mode,
        uid: 0,
        gid: 0,
        mtime: CLOCK,
    }
}

/// A file and the folders that lead to it.
pub(crate) fn put(tree: &mut Tree, path: &str, content: &[u8]) {
    let mut at = 0;
    while let Some(slash) = path[at..].find('/') {
        let dir = &path[..at + slash];
        if tree.lookup(dir.as_bytes()).is_none() {
            tree.insert(dir.as_bytes(), Inode::new(stat(0o755), Kind::Dir))
                .unwrap();
        }
        at += slash + 1;
    }
    tree.insert(
        path.as_bytes(),
        Inode::new(stat(0o644), Kind::File(Content::bytes(content))),
    )
    .unwrap();
}

pub(crate) fn host_file(name: &str) -> String {
    std::fs::read_to_string(format!("{GRUB}/{name}")).unwrap()
}

pub(crate) fn make(spec: &ImageSpec) -> Made {
    Made::of(debian(&[]), spec)
}

/// A disk with its bytes, in memory and as a file.
pub(crate) struct Made {
    pub(crate) disk: DiskImage,
    pub(crate) bytes: Vec<u8>,
    dir: TempDir,
}

struct FileTarget(std::fs::File);

impl WriteAt for FileTarget {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, buf, offset)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
}

impl Made {
    pub(crate) fn of((tree, blobs): (Tree, BlobTable), spec: &ImageSpec) -> Self {
        let disk = assemble(tree, spec, &blobs).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = FileTarget(std::fs::File::create(dir.path().join("disk.raw")).unwrap());
        let output = Output::new(Format::Raw, &target);
        emit(
            &disk.extents,
            &blobs,
            &[output],
            EmitOptions {
                threads: 2,
                content_digest: false,
            },
        )
        .unwrap();
        let bytes = std::fs::read(dir.path().join("disk.raw")).unwrap();
        Self { disk, bytes, dir }
    }

    fn part(&self, slot: u32) -> (u64, u64) {
        let part = self
            .disk
            .partitions
            .iter()
            .find(|p| p.slot == slot)
            .unwrap();
        (part.offset(), part.len_bytes())
    }

    /// A file with one partition's bytes.
    fn extract(&self, slot: u32) -> PathBuf {
        let (offset, len) = self.part(slot);
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
        let path = self.dir.path().join(format!("part{slot}"));
        std::fs::write(&path, &self.bytes[range]).unwrap();
        path
    }

    pub(crate) fn check_table(&self) {
        let disk = self.dir.path().join("disk.raw");
        let text = run("sgdisk", &["-v".as_ref(), disk.as_ref()]);
        assert!(text.contains("No problems found"), "{text}");
        let text = run("sfdisk", &["--verify".as_ref(), disk.as_ref()]);
        assert!(text.contains("No errors detected"), "{text}");
        // The order on the disk is 3, 2, 1, so root can grow.
        let mut by_place: Vec<_> = self.disk.partitions.iter().collect();
        by_place.sort_by_key(|p| p.first_lba);
        assert_eq!(by_place.last().unwrap().slot, 1);
        assert!(by_place.iter().all(|p| p.first_lba % 2048 == 0));
    }

    pub(crate) fn check_root(&self) {
        run("e2fsck", &["-fn".as_ref(), self.extract(1).as_ref()]);
    }

    pub(crate) fn check_esp(&self) {
        run("fsck.vfat", &["-n".as_ref(), self.extract(2).as_ref()]);
    }

    fn source(&self) -> Arc<dyn ReadAt> {
        Arc::new(self.bytes.clone())
    }

    fn root(&self) -> ext4::Reader {
        let (offset, len) = self.part(1);
        ext4::Reader::open(self.source(), offset, len).unwrap()
    }

    pub(crate) fn root_bytes(&self, path: &str) -> Vec<u8> {
        self.root().read(path.as_bytes()).unwrap()
    }

    pub(crate) fn root_file(&self, path: &str) -> String {
        String::from_utf8(self.root_bytes(path)).unwrap()
    }

    /// A file of the root file system, where it is there.
    pub(crate) fn root_try(&self, path: &str) -> Option<String> {
        let bytes = self.root().read(path.as_bytes()).ok()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Number of names in the root file system, the root itself with them.
    pub(crate) fn root_names(&self) -> usize {
        let root = self.root();
        let (mut count, mut todo) = (1, vec![Vec::from(b"/")]);
        while let Some(dir) = todo.pop() {
            for entry in root.list(&dir).unwrap() {
                if entry.name == b"." || entry.name == b".." {
                    continue;
                }
                count += 1;
                let path = [dir.as_slice(), b"/", &entry.name].concat();
                if root.stat(&path).unwrap().kind == ext4::FileKind::Dir {
                    todo.push(path);
                }
            }
        }
        count
    }

    pub(crate) fn esp_file(&self, path: &str) -> Vec<u8> {
        let (offset, len) = self.part(2);
        fat::Reader::open(self.source(), offset, len)
            .unwrap()
            .read(path)
            .unwrap()
    }

    pub(crate) fn esp_uuid(&self) -> String {
        let esp = self.disk.partitions.iter().find(|p| p.slot == 2).unwrap();
        esp.file_system.as_ref().unwrap().uuid.clone().unwrap()
    }

    /// A file as GRUB's own drivers read it (`grub-fstest`, package grub-common).
    pub(crate) fn through_grub(&self, path: &str) -> Vec<u8> {
        let output = Command::new("grub-fstest")
            .arg(self.dir.path().join("disk.raw"))
            .args(["cat", &format!("(loop0,gpt1){path}")])
            .output()
            .expect("grub-fstest (package grub-common)");
        assert!(output.status.success());
        output.stdout
    }
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}");
    text.into_owned()
}

fn on_file(program: &str, args: &[&str], content: &[u8], after: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let mut all: Vec<&std::ffi::OsStr> = args.iter().map(AsRef::as_ref).collect();
    all.push(Path::as_os_str(file.path()));
    all.extend(after.iter().map(|arg| -> &std::ffi::OsStr { arg.as_ref() }));
    run(program, &all)
}

/// What a shell variable that was `before` is after a shell has read `script`.
pub(crate) fn after_sourcing(script: &str, name: &str, before: &str) -> String {
    let script = format!("{name}='{before}'\n{script}\nprintf %s \"${name}\"");
    let out = Command::new("sh").args(["-euc", &script]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

pub(crate) fn grub_script_check(script: &str) {
    on_file("grub-script-check", &[], script.as_bytes(), &[]);
}

pub(crate) fn grubenv_is_empty(block: &[u8]) {
    assert_eq!(block.len(), 1024);
    assert_eq!(on_file("grub-editenv", &[], block, &["list"]), "");
}
