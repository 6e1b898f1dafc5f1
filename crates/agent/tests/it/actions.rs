//! `fixtures/actions/<Action>/<case>/` and `fixtures/runs/<topic>/<case>/`: `component.yaml` is run on the
//! small root, with the files of `root/` added to it; `after.txt` lists what its layer then holds, or
//! `error.txt` is part of why it fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use amiforge_exec::Way;
use amiforge_tree::{Content, Inode, Kind, LayerEntry};

use crate::root::{Bench, build, dir, never, stat, way};

/// Where the fixtures are, when the source tree cannot be reached.
pub(crate) const FIXTURES: &str = "AMIFORGE_TEST_FIXTURES";

pub(crate) fn fixtures() -> PathBuf {
    std::env::var_os(FIXTURES).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures"),
        PathBuf::from,
    )
}

#[test]
fn every_action_does_what_its_cases_say() {
    let cases = run_all("actions", |name, text| {
        text.contains(&format!("action: {name}"))
    });
    assert!(cases.0 >= 100 && cases.1 >= 40, "{cases:?} cases");
}

#[test]
fn every_run_goes_as_its_folder_says() {
    let cases = run_all("runs", |_, _| true);
    assert!(cases.0 >= 30 && cases.1 >= 5, "{cases:?} cases");
}

/// Runs the cases of every folder below one of the fixtures; how many there are, and how many were run on a tree, too.
fn run_all(folder: &str, is_about: impl Fn(&str, &str) -> bool) -> (usize, usize) {
    let bench = aged();
    let (mut cases, mut on_tree, mut wrong) = (0, 0, String::new());
    for topic in folders(&fixtures().join(folder)) {
        let name = topic.file_name().unwrap().to_str().unwrap().to_owned();
        for case in folders(&topic) {
            cases += 1;
            let text = fs_err::read_to_string(case.join("component.yaml")).unwrap();
            assert!(
                is_about(&name, &text),
                "{} is not about {name}",
                case.display()
            );
            // Which takes a namespace.
            if way() == Way::Chroot && text.contains("mount --bind") {
                continue;
            }
            match check(&bench, &case, text, cases) {
                Ok(compared) => on_tree += usize::from(compared),
                Err(told) => {
                    let _ = writeln!(wrong, "{}:\n{told}", case.display());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    (cases, on_tree)
}

fn check(bench: &Bench, case: &Path, text: String, number: usize) -> Result<bool, String> {
    let mut root = bench.root();
    let extra = extra(&case.join("root"));
    root.lowers
        .insert(0, bench.lower(&format!("case{number}"), extra.clone()));
    let result = bench
        .sandbox
        .run_component(&root, &build(&text), &never(), &mut |_| ())
        .map_err(|e| format!("{e}: {:?}", std::error::Error::source(&e)))?;
    let compared = crate::on_tree::same(bench, &root, extra, &text, &result)?;
    if case.join("error.txt").exists() {
        let expected = fs_err::read_to_string(case.join("error.txt")).unwrap();
        let reason = result.failure.map(|f| f.reason).unwrap_or_default();
        return if reason.contains(expected.trim_end()) {
            Ok(compared)
        } else {
            Err(format!("fails with {reason:?}"))
        };
    }
    if !result.status.is_ok() {
        return Err(format!("{:?}", result.failure));
    }
    let expected = fs_err::read_to_string(case.join("after.txt")).unwrap();
    let found = listing(&bench.harvest(&root, result.start));
    if found == expected {
        Ok(compared)
    } else {
        Err(found)
    }
}

fn listing(layer: &BTreeMap<Vec<u8>, LayerEntry>) -> String {
    let mut out = String::new();
    for (path, entry) in layer {
        let path = path.escape_ascii();
        let (LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode)) = entry else {
            let _ = writeln!(
                out,
                "{path} {}",
                if *entry == LayerEntry::Whiteout {
                    "gone"
                } else {
                    "link"
                }
            );
            continue;
        };
        let owner = format!("{} {}", inode.stat.uid, inode.stat.gid);
        let mode = inode.stat.mode;
        // A folder that was there before is in the layer only because something in it changed.
        let before = ["", "srv", "usr", "usr/bin"].contains(&path.to_string().as_str());
        let _ = match &inode.kind {
            Kind::Dir if before => Ok(()),
            Kind::Dir => writeln!(out, "{path} dir {mode:04o} {owner}"),
            Kind::File(content) => {
                writeln!(out, "{path} file {mode:04o} {owner} \"{}\"", bytes(content))
            }
            Kind::Symlink(target) => {
                writeln!(out, "{path} symlink {owner} \"{}\"", target.escape_ascii())
            }
            other => writeln!(out, "{path} {other:?}"),
        };
    }
    out
}

fn bytes(content: &Content) -> String {
    content
        .extents
        .iter()
        .map(|extent| match &extent.source {
            amiforge_tree::DataSource::Bytes(bytes) => bytes.escape_ascii().to_string(),
            amiforge_tree::DataSource::Blob { .. } => panic!("a large file"),
        })
        .collect()
}

/// The usual root, made before the clock of the runs, so that it shows what they gave a new time.
pub(crate) fn aged() -> Bench {
    let mut entries = crate::root::programs();
    for entry in entries.values_mut() {
        if let LayerEntry::Put(inode) = entry {
            inode.stat.mtime.secs -= 1000;
        }
    }
    Bench::of(entries)
}

/// The files below `root/` of a case.
fn extra(from: &Path) -> BTreeMap<Vec<u8>, LayerEntry> {
    let mut entries = BTreeMap::from([(Vec::new(), dir(0o755))]);
    let mut todo = if from.is_dir() {
        vec![from.to_owned()]
    } else {
        Vec::new()
    };
    while let Some(folder) = todo.pop() {
        for path in fs_err::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            let name = path
                .strip_prefix(from)
                .unwrap()
                .to_str()
                .unwrap()
                .as_bytes()
                .to_vec();
            if path.is_dir() {
                entries.insert(name, dir(0o755));
                todo.push(path);
            } else {
                let execute = fs_err::metadata(&path).unwrap().permissions().mode() & 0o111 != 0;
                let mode = if execute { 0o755 } else { 0o644 };
                let content = Content::bytes(fs_err::read(&path).unwrap());
                entries.insert(
                    name,
                    LayerEntry::Put(Inode::new(stat(mode, 0, 0), Kind::File(content))),
                );
            }
        }
    }
    entries
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs_err::read_dir(of)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    list.sort();
    list
}
