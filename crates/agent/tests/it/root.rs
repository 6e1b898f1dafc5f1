//! A root file system of the test machine's own programs, without network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use amiforge_exec::{
    ChildEvent, DocumentSpec, Helper, RootSpec, RunSpec, Sandbox, ScriptResult, ScriptSpec, Way,
};
use amiforge_store::FileBlob;
use amiforge_tree::{Content, DataSource, Inode, Kind, LayerDiff, LayerEntry, Stat, layer};
use amiforge_types::{BlobTable, ReadAt as _, Timestamp};

pub(crate) const CLOCK: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Programs that the tests use inside; each must be installed on the test machine.
const PROGRAMS: &[&str] = &[
    "bash", "sh", "cat", "chmod", "chown", "cp", "dd", "env", "find", "getcap", "grep", "hostname",
    "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "perl", "ps", "readlink",
    "rm", "setcap", "setsid", "sleep", "sort", "stat", "sysctl", "touch", "true", "umount", "wc",
];

/// A store-like folder with one lower directory, and what it takes to run in it.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) lower: PathBuf,
    /// What is in it.
    pub(crate) entries: BTreeMap<Vec<u8>, LayerEntry>,
    uppers: std::cell::Cell<u32>,
}

/// Set when the tests run as another user, who may not be able to reach the build directory.
pub(crate) const HELPER: &str = "AMIFORGE_TEST_HELPER";

pub(crate) fn helper() -> Helper {
    Helper::new(
        std::env::var_os(HELPER).unwrap_or_else(|| env!("CARGO_BIN_EXE_amiforge-agent").into()),
    )
}

/// Set when the tests run in another way than the first.
pub(crate) const WAY: &str = "AMIFORGE_TEST_WAY";

pub(crate) fn way() -> Way {
    std::env::var(WAY).map_or(Way::MappedIds, |way| way.parse().unwrap())
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&BTreeMap::new())
    }

    /// A root with further entries.
    pub(crate) fn with(extra: &BTreeMap<Vec<u8>, LayerEntry>) -> Self {
        let mut entries = programs();
        entries.extend(extra.clone());
        Self::of(entries)
    }

    /// A root of nothing but these entries.
    pub(crate) fn of(entries: BTreeMap<Vec<u8>, LayerEntry>) -> Self {
        Self::in_way(way(), entries)
    }

    /// The same in another way than the tests.
    pub(crate) fn in_way(way: Way, entries: BTreeMap<Vec<u8>, LayerEntry>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("amiforge-test-")
            .tempdir()
            .unwrap();
        let sandbox = Sandbox::new(helper(), way).unwrap();
        let mut bench = Self {
            dir,
            sandbox,
            lower: PathBuf::new(),
            entries: entries.clone(),
            uppers: 0.into(),
        };
        bench.lower = bench.lower("lower", entries);
        bench
    }

    /// A lower directory of these entries.
    pub(crate) fn lower(&self, name: &str, entries: BTreeMap<Vec<u8>, LayerEntry>) -> PathBuf {
        let file = self.dir.path().join(format!("{name}.layer"));
        let mut bytes = Vec::new();
        layer::write(&LayerDiff { entries }, &BlobTable::new(), &mut bytes).unwrap();
        fs_err::write(&file, bytes).unwrap();
        let lower = self.dir.path().join(name);
        self.sandbox
            .materialise(
                &file,
                &self.dir.path().join(format!("{name}.tmp")),
                &lower,
                &never(),
            )
            .unwrap();
        lower
    }

    /// A root with a fresh upper directory.
    pub(crate) fn root(&self) -> RootSpec {
        let number = self.uppers.get();
        self.uppers.set(number + 1);
        RootSpec {
            lowers: vec![self.lower.clone()],
            upper: self.dir.path().join(format!("upper{number}")),
            work: self.dir.path().join(format!("work{number}")),
            shims: Vec::new(),
            resolv_conf: None,
            network: false,
            limits: amiforge_exec::Limits::default(),
        }
    }

    pub(crate) fn sh(&self, root: &RootSpec, text: &str) -> (ScriptResult, Vec<String>) {
        let mut lines = Vec::new();
        let result = self
            .sandbox
            .run_script(root, &script(text), &never(), &mut |event| match event {
                ChildEvent::Stdout { line } | ChildEvent::Stderr { line } => lines.push(line),
                other => panic!("{other:?}"),
            })
            .unwrap();
        (result, lines)
    }

    /// Runs a script that must succeed, and returns its output.
    pub(crate) fn ok(&self, root: &RootSpec, text: &str) -> Vec<String> {
        let (result, lines) = self.sh(root, text);
        assert!(result.is_ok(), "{result:?}\n{}", lines.join("\n"));
        lines
    }

    /// The layer of what a job left in its upper directory.
    pub(crate) fn harvest(
        &self,
        root: &RootSpec,
        since: Timestamp,
    ) -> BTreeMap<Vec<u8>, LayerEntry> {
        let file = root.upper.with_extension("layer");
        fs_err::write(&file, b"").unwrap();
        self.sandbox
            .harvest(&root.upper, &file, CLOCK, Some(since), &[], &never())
            .unwrap();
        let blob = std::sync::Arc::new(FileBlob::open(&file).unwrap());
        let mut table = BlobTable::new();
        let id = table.add(blob.clone());
        let (mut diff, _) = layer::read(&*blob, id).unwrap();
        // Small contents into memory, so that tests can compare them.
        for entry in diff.entries.values_mut() {
            if let LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) = entry
                && let Kind::File(content) = &mut inode.kind
                && content.size < 1 << 20
            {
                let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
                for extent in &content.extents {
                    let at = usize::try_from(extent.offset).unwrap();
                    let len = usize::try_from(extent.len).unwrap();
                    match &extent.source {
                        DataSource::Blob { offset, .. } => blob
                            .read_exact_at(&mut bytes[at..at + len], *offset)
                            .unwrap(),
                        DataSource::Bytes(data) => bytes[at..at + len].copy_from_slice(data),
                    }
                }
                *content = Content::bytes(bytes);
            }
        }
        diff.entries
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let all: Vec<PathBuf> = fs_err::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        self.sandbox.remove_trees(&all).unwrap();
    }
}

pub(crate) fn script(text: &str) -> ScriptSpec {
    ScriptSpec {
        interpreter: vec!["/bin/bash".into(), "-e".into()],
        text: text.into(),
        env: BTreeMap::new(),
        timeout_seconds: Some(120),
    }
}

pub(crate) fn never() -> AtomicBool {
    AtomicBool::new(false)
}

pub(crate) fn stat(mode: u16, uid: u32, gid: u32) -> Stat {
    Stat {
        mode,
        uid,
        gid,
        mtime: CLOCK,
    }
}

pub(crate) fn dir(mode: u16) -> LayerEntry {
    LayerEntry::Put(Inode::new(stat(mode, 0, 0), Kind::Dir))
}

pub(crate) fn file(text: &str) -> LayerEntry {
    LayerEntry::Put(Inode::new(
        stat(0o644, 0, 0),
        Kind::File(Content::bytes(text.as_bytes())),
    ))
}

pub(crate) fn link(target: &str) -> LayerEntry {
    LayerEntry::Put(Inode::new(
        stat(0o777, 0, 0),
        Kind::Symlink(target.as_bytes().to_vec()),
    ))
}

/// The programs with the libraries they load, at the paths of the test machine.
pub(crate) fn programs() -> BTreeMap<Vec<u8>, LayerEntry> {
    let mut entries = BTreeMap::from([
        (b"".to_vec(), dir(0o755)),
        (b"etc".to_vec(), dir(0o755)),
        (
            b"etc/passwd".to_vec(),
            file("root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/:/bin/bash\n"),
        ),
        (
            b"etc/group".to_vec(),
            file("root:x:0:\ntty:x:5:\nann:x:1000:\n"),
        ),
        (b"root".to_vec(), dir(0o700)),
        (b"srv".to_vec(), dir(0o755)),
        (b"srv/keep".to_vec(), file("keep\n")),
        (b"srv/gone".to_vec(), file("gone\n")),
    ]);
    let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
    for program in PROGRAMS {
        let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
            .iter()
            .map(|d| Path::new(d).join(program))
            .find(|p| p.exists());
        let path = found.unwrap_or_else(|| panic!("{program} is not installed"));
        let output = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        wanted.extend(
            text.split_ascii_whitespace()
                .filter(|w| w.starts_with('/'))
                .map(PathBuf::from),
        );
        wanted.insert(path);
    }
    for path in wanted {
        // The name without links among its folders; /bin and the like stay links to /usr.
        let parent = fs_err::canonicalize(path.parent().unwrap()).unwrap();
        let real = parent.join(path.file_name().unwrap());
        let bytes = fs_err::read(&real).unwrap();
        let mut above = parent.as_path();
        while above != Path::new("/") {
            entries.entry(name(above)).or_insert_with(|| dir(0o755));
            above = above.parent().unwrap();
        }
        let inode = Inode::new(stat(0o755, 0, 0), Kind::File(Content::bytes(bytes)));
        entries.insert(name(&real), LayerEntry::Put(inode));
    }
    for top in ["bin", "sbin", "lib", "lib64"] {
        entries
            .entry(top.as_bytes().to_vec())
            .or_insert_with(|| link(&format!("usr/{top}")));
    }
    entries
}

fn name(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    path.strip_prefix("/")
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec()
}

/// A run of the build phase of one document.
pub(crate) fn build(text: &str) -> RunSpec {
    RunSpec {
        execution_id: "1".into(),
        documents: vec![DocumentSpec {
            name: "component.yaml".into(),
            text: text.to_owned(),
            parameters: BTreeMap::new(),
            earlier: Vec::new(),
            working_directory: None,
        }],
        phases: vec!["build".into()],
        clock: CLOCK,
        ..RunSpec::default()
    }
}
