//! Images of a real registry and of layouts, made by umoci and pushed by skopeo; and servers that mean harm.

mod hostile;
mod logins;
mod registries;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use amiforge_testkit::{run, tool};
use amiforge_tree::{Kind, Tree};
use amiforge_types::{Arch, BlobTable, Digest, Timestamp};

use super::fetch::fetch_with;
use super::resolve::resolve_with;
use super::{
    Credential, FetchedOci, OciContext, OciPlace, OciRequest, Reference, ResolvedOci, unpack,
};
use crate::transfer::Patience;
use crate::{Context, Proxies, SourceError, SourceEvent};

/// Short pauses, so that failures are tried again at once.
const HASTY: Patience = Patience {
    answer: Duration::from_secs(5),
    body: Duration::from_secs(2),
    attempts: 3,
    pause: Duration::from_millis(5),
};

/// A cache, a host and what was reported.
struct Here {
    dir: tempfile::TempDir,
    events: Mutex<Vec<SourceEvent>>,
    login: Option<Credential>,
    offline: bool,
    max_bytes: u64,
    proxies: Proxies,
}

impl Here {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            events: Mutex::default(),
            login: None,
            offline: false,
            max_bytes: 1 << 30,
            proxies: Proxies::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn with<R>(&self, work: impl FnOnce(&OciContext<'_>) -> R) -> R {
        let events = |event| self.events.lock().unwrap().push(event);
        let credentials = |_: &Reference| Ok(self.login.clone());
        let ctx = OciContext {
            base: Context {
                host_root: self.dir.path(),
                cache: &self.path("cache"),
                now: Timestamp::from_secs(0),
                offline: self.offline,
                jobs: 2,
                proxies: &self.proxies,
                events: &events,
            },
            credentials: &credentials,
            max_bytes: self.max_bytes,
        };
        work(&ctx)
    }

    fn resolve(&self, request: &OciRequest) -> Result<ResolvedOci, SourceError> {
        self.with(|ctx| resolve_with(request, ctx, HASTY))
    }

    fn fetch(
        &self,
        request: &OciRequest,
        resolved: &ResolvedOci,
    ) -> Result<FetchedOci, SourceError> {
        self.with(|ctx| fetch_with(request, resolved, ctx, HASTY))
    }

    fn unpack(
        &self,
        resolved: &ResolvedOci,
        fetched: &FetchedOci,
    ) -> Result<(Tree, BlobTable), SourceError> {
        let spool: File = tempfile::tempfile().unwrap();
        let mut blobs = BlobTable::new();
        let diff = self.with(|ctx| unpack(resolved, fetched, spool, &mut blobs, ctx))?;
        let stat = Tree::from_layers(root_stat(), [&diff]).unwrap();
        Ok((stat, blobs))
    }

    /// All three.
    fn image(&self, request: &OciRequest) -> Result<(ResolvedOci, Tree, BlobTable), SourceError> {
        let resolved = self.resolve(request)?;
        let fetched = self.fetch(request, &resolved)?;
        let (tree, blobs) = self.unpack(&resolved, &fetched)?;
        Ok((resolved, tree, blobs))
    }
}

fn root_stat() -> amiforge_tree::Stat {
    amiforge_tree::Stat {
        mode: 0o700,
        uid: 9,
        gid: 9,
        mtime: Timestamp::default(),
    }
}

fn registry(reference: &str) -> OciRequest {
    OciRequest {
        place: OciPlace::Registry(reference.parse().unwrap()),
        arch: Arch::X86_64,
    }
}

fn layout(path: &Path, tag: Option<&str>) -> OciRequest {
    OciRequest {
        place: OciPlace::Layout {
            path: path.to_path_buf(),
            asked: "image".to_owned(),
            tag: tag.map(str::to_owned),
        },
        arch: Arch::X86_64,
    }
}

/// The whole chain of an error.
fn text(error: &SourceError) -> String {
    let mut out = error.to_string();
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        out.push_str(&format!(": {source}"));
        at = source;
    }
    out
}

/// One line for each name, without owners: who runs the tests is no root.
fn lines(tree: &Tree, blobs: &BlobTable) -> Vec<String> {
    let mut first: BTreeMap<usize, String> = BTreeMap::new();
    let mut out = Vec::new();
    for (path, ino) in tree.walk() {
        let name = String::from_utf8(path).unwrap();
        let inode = tree.inode(ino);
        let what = match &inode.kind {
            Kind::Dir => "dir".to_owned(),
            Kind::Symlink(to) => format!("-> {}", String::from_utf8_lossy(to)),
            Kind::File(content) => {
                let bytes = content.read_to_vec(blobs, 1 << 30).unwrap();
                let digest = Digest::of(&bytes).hex();
                let same = first.entry(ino.index()).or_insert_with(|| name.clone());
                format!("file {} {} = {same}", bytes.len(), &digest[..12])
            }
            other => format!("{other:?}"),
        };
        let time = inode.stat.mtime.secs;
        out.push(format!("{name} {:o} {time} {what}", inode.stat.mode));
    }
    out.sort_unstable();
    out
}

/// The same lines of a folder.
fn folder_lines(root: &Path) -> Vec<String> {
    fn walk(root: &Path, name: &str, first: &mut BTreeMap<u64, String>, out: &mut Vec<String>) {
        let path = root.join(name);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            "dir".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", std::fs::read_link(&path).unwrap().display())
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let digest = Digest::of(&bytes).hex();
            let same = first.entry(meta.ino()).or_insert_with(|| name.to_owned());
            format!("file {} {} = {same}", bytes.len(), &digest[..12])
        } else {
            format!("{:?}", meta.file_type())
        };
        let mode = meta.permissions().mode() & 0o7777;
        let mode = if meta.is_symlink() { 0o777 } else { mode };
        out.push(format!("{name} {mode:o} {} {what}", meta.mtime()));
        if meta.is_dir() {
            let mut names: Vec<String> = std::fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_unstable();
            for child in names {
                let child = if name.is_empty() {
                    child
                } else {
                    format!("{name}/{child}")
                };
                walk(root, &child, first, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, "", &mut BTreeMap::new(), &mut out);
    out.sort_unstable();
    out
}

/// The result of an image, against what umoci makes of it.
#[track_caller]
fn same_as_umoci(layout: &Path, tag: &str, tree: &Tree, blobs: &BlobTable) -> Vec<String> {
    let bundle = tempfile::tempdir().unwrap();
    let to = bundle.path().join("b");
    umoci(
        &["unpack", "--rootless", "--image"],
        &image_of(layout, tag),
        &to,
    );
    let (ours, theirs) = (lines(tree, blobs), folder_lines(&to.join("rootfs")));
    assert_eq!(ours, theirs);
    ours
}

fn image_of(layout: &Path, tag: &str) -> String {
    format!("{}:{tag}", layout.display())
}

#[track_caller]
fn umoci(args: &[&str], image: &str, last: &Path) {
    run(tool("umoci").args(args).arg(image).arg(last));
}

/// An image layout with `app:1`: three layers, with everything that a layer can say.
fn make_layout(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let image = image_of(&layout, "app");
    run(tool("umoci").args(["init", "--layout"]).arg(&layout));
    run(tool("umoci").args(["new", "--image", &image]));
    let bundle = dir.join("bundle");
    umoci(&["unpack", "--rootless", "--image"], &image, &bundle);
    let root = bundle.join("rootfs");
    sh(
        &root,
        "mkdir -p etc usr/bin usr/lib var/cache opt/app/data gone/deep empty && ln -s usr/bin bin && ln -s usr/lib lib
         printf root:x:0:0 > etc/passwd && printf one > usr/bin/one && ln usr/bin/one usr/bin/uno && ln -s one usr/bin/ein
         head -c 300000 /dev/zero | tr '\\0' q > usr/lib/large && printf x > gone/deep/x && printf c > var/cache/c
         printf d > opt/app/data/d && printf a > opt/app/a && printf t > turns && chmod 4755 usr/bin/one && mkdir becomes && printf b > becomes/b",
    );
    run(tool("umoci")
        .args(["repack", "--image", &image])
        .arg(&bundle));
    // The second: names go, and change what they are.
    std::fs::remove_dir_all(&bundle).unwrap();
    umoci(&["unpack", "--rootless", "--image"], &image, &bundle);
    sh(
        &root,
        "rm -r gone var/cache/c becomes && rm turns && mkdir turns && printf in > turns/in && printf now > becomes
         printf two > usr/bin/two && ln usr/bin/two etc/two && chmod 700 opt/app && rm usr/bin/uno",
    );
    run(tool("umoci")
        .args(["repack", "--image", &image])
        .arg(&bundle));
    // The third: an opaque directory.
    let new = dir.join("new");
    std::fs::create_dir_all(new.join("sub")).unwrap();
    std::fs::write(new.join("sub/n"), "n").unwrap();
    run(tool("umoci")
        .args(["insert", "--rootless", "--opaque", "--image", &image])
        .arg(&new)
        .arg("/opt/app"));
    layout
}

#[track_caller]
fn sh(dir: &Path, script: &str) {
    run(tool("sh").args(["-ec", script]).current_dir(dir));
}
