//! File actions on a tree do what they do in the sandbox: the same documents, run in both ways.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use amiforge_exec::{
    ChildEvent, RootSpec, RunResult, TreeRoot, TreeRootError, run_on_tree, works_on_files,
};
use amiforge_tree::{DumpContent, LayerDiff, LayerEntry, Tree};
use amiforge_types::BlobTable;

use crate::root::{Bench, CLOCK, build, never, stat};

/// Compares a run in the sandbox with one on a tree: its result, and what the image then holds. False where there is
/// none on a tree.
pub(crate) fn same(
    bench: &Bench,
    root: &RootSpec,
    extra: BTreeMap<Vec<u8>, LayerEntry>,
    text: &str,
    result: &RunResult,
) -> Result<bool, String> {
    let (component, problems) = amiforge_recipe::parse_component(text);
    let component = component.filter(|_| !problems.has_errors());
    let Some(phase) = component.as_ref().and_then(|c| c.phase("build")) else {
        return Ok(false);
    };
    if !works_on_files(&phase.steps) {
        return Ok(false);
    }
    let lower = [bench.entries.clone(), extra].map(|entries| LayerDiff { entries });
    let lower = Tree::from_layers(stat(0o755, 0, 0), &lower).unwrap();
    let (here, changes) = on_tree(&lower, text);
    let changes = match changes {
        Ok(changes) => changes,
        Err(TreeRootError::NeedsSandbox(_)) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    differences(&told(result), &told(&here))?;
    let entries = bench.harvest(root, result.start);
    let sandbox = dump(&lower, &LayerDiff { entries });
    differences(&sandbox, &dump(&lower, &changes))?;
    Ok(true)
}

/// The first lines that are not the same.
fn differences(sandbox: &str, tree: &str) -> Result<(), String> {
    let (mut a, mut b) = (sandbox.lines(), tree.lines());
    let mut out = String::new();
    loop {
        let (one, other) = (a.next(), b.next());
        if one.is_none() && other.is_none() || out.lines().count() > 20 {
            return if out.is_empty() { Ok(()) } else { Err(out) };
        }
        if one != other {
            let _ = writeln!(out, "in the sandbox: {}", one.unwrap_or_default());
            let _ = writeln!(out, "on a tree:      {}", other.unwrap_or_default());
        }
    }
}

fn on_tree(lower: &Tree, text: &str) -> (RunResult, Result<LayerDiff, TreeRootError>) {
    let (blobs, cancel) = (BlobTable::new(), never());
    let root = TreeRoot::new(lower, &blobs, CLOCK, &cancel);
    let result = run_on_tree(&build(text), &root, &mut |_: ChildEvent| ());
    (result, root.changes(&[]))
}

/// A result without its times.
fn told(result: &RunResult) -> String {
    fn without_times(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|name, _| !["start", "end"].contains(&name.as_str()));
                fields.values_mut().for_each(without_times);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(without_times),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(result).unwrap();
    without_times(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn dump(lower: &Tree, changes: &LayerDiff) -> String {
    let mut tree = lower.clone();
    tree.apply(changes).unwrap();
    tree.dump(DumpContent::Digest(&BlobTable::new())).unwrap()
}

/// What a seed draws, the same on every machine.
struct Dice(u64);

impl Dice {
    /// Below `n` (xorshift64*).
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % n
    }

    fn of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.below(all.len())]
    }

    /// A path that other steps are likely to have used.
    fn path(&mut self) -> String {
        let top = self.of(&[
            "/srv",
            "/srv/a",
            "/srv/a/b",
            "/srv/b",
            "/srv/s",
            "/tmp",
            "/tmp/a",
            "/etc/../srv",
            "/srv/l",
            "/srv/./a/..",
            "/run",
        ]);
        let name = self.of(&["a", "b", "c", "f", "f.txt", ".h", "l", "keep", "big"]);
        let end = self.of(&["", "", "", "", "", "", "/", "/.", "/.."]);
        format!("{top}/{name}{end}")
    }

    fn pattern(&mut self) -> String {
        match self.below(4) {
            0 => format!(
                "/srv/{}",
                self.of(&["*", "a*", "*.txt", "a/*", ".*", "l/*"])
            ),
            _ => self.path(),
        }
    }

    fn bool(&mut self) -> &'static str {
        self.of(&["true", "false"])
    }

    fn mode(&mut self) -> &'static str {
        self.of(&[
            "0644", "0755", "4755", "2755", "2644", "2770", "1777", "0000", "6711",
        ])
    }

    fn owner(&mut self) -> &'static str {
        self.of(&["root", "ann", "7", "1000", "nobody", "65533"])
    }

    /// A step of a document.
    fn step(&mut self, number: usize) -> String {
        let action = self.of(&[
            "AppendFile",
            "Assert",
            "CopyFile",
            "CopyFolder",
            "CreateFile",
            "CreateFile",
            "CreateFolder",
            "CreateFolder",
            "CreateSymlink",
            "CreateSymlink",
            "DeleteFile",
            "DeleteFolder",
            "ListFiles",
            "MoveFile",
            "MoveFolder",
            "ReadFile",
            "SetFileEncoding",
            "SetFileOwner",
            "SetFilePermissions",
            "SetFolderOwner",
            "SetFolderPermissions",
        ]);
        let list = |fields: &[(&str, String)]| {
            let mut out = String::new();
            for (at, (name, value)) in fields.iter().enumerate() {
                let lead = if at == 0 { "- " } else { "  " };
                let _ = writeln!(out, "          {lead}{name}: {value}");
            }
            out
        };
        let quoted = |text: String| format!("'{text}'");
        let inputs = match action {
            "AppendFile" => list(&[("path", self.path()), ("content", format!("more {number}"))]),
            "Assert" => {
                let test = self.of(&["fileExists", "folderExists"]);
                format!("          {test}: {}\n", self.path())
            }
            "CopyFile" | "CopyFolder" | "MoveFile" | "MoveFolder" => list(&[
                ("source", quoted(self.pattern())),
                ("destination", self.path()),
                ("overwrite", self.bool().to_owned()),
            ]),
            "CreateFile" => {
                let mut fields = vec![
                    ("path", self.path()),
                    ("content", format!("text {number}")),
                    ("overwrite", self.bool().to_owned()),
                ];
                if self.below(3) == 0 {
                    fields.push(("permissions", quoted(self.mode().to_owned())));
                }
                if self.below(3) == 0 {
                    fields.push(("owner", quoted(self.owner().to_owned())));
                }
                list(&fields)
            }
            "CreateFolder" => {
                let mut fields = vec![("path", self.path()), ("overwrite", self.bool().to_owned())];
                if self.below(2) == 0 {
                    fields.push(("permissions", quoted(self.mode().to_owned())));
                }
                if self.below(3) == 0 {
                    fields.push(("group", quoted("1000".to_owned())));
                }
                list(&fields)
            }
            "CreateSymlink" => list(&[
                ("path", self.path()),
                (
                    "target",
                    self.of(&[
                        "a",
                        "../srv",
                        "/srv/a",
                        "/dev/null",
                        "l",
                        ".",
                        "f",
                        "/tmp",
                        "/srv/a/b/",
                    ])
                    .to_owned(),
                ),
                ("force", self.bool().to_owned()),
            ]),
            "DeleteFile" => list(&[("path", quoted(self.pattern()))]),
            "DeleteFolder" => list(&[("path", self.path()), ("force", self.bool().to_owned())]),
            "ListFiles" => list(&[("path", self.path()), ("recursive", self.bool().to_owned())]),
            "ReadFile" => list(&[("path", self.path())]),
            "SetFileEncoding" => list(&[("path", self.path()), ("encoding", "utf-16".to_owned())]),
            "SetFileOwner" => list(&[
                ("path", self.path()),
                ("owner", quoted(self.owner().to_owned())),
            ]),
            "SetFolderOwner" => list(&[
                ("path", self.path()),
                ("owner", quoted(self.owner().to_owned())),
                ("recursive", self.bool().to_owned()),
            ]),
            "SetFilePermissions" => list(&[
                ("path", self.path()),
                ("permissions", quoted(self.mode().to_owned())),
            ]),
            _ => list(&[
                ("path", self.path()),
                ("permissions", quoted(self.mode().to_owned())),
                ("recursive", self.bool().to_owned()),
            ]),
        };
        format!(
            "      - name: Step{number}\n        action: {action}\n        onFailure: Ignore\n        inputs:\n{inputs}"
        )
    }
}

/// Steps drawn by lot, most of which meet what others left.
#[test]
fn steps_by_lot_do_the_same_on_a_tree() {
    let bench = crate::actions::aged();
    let (mut wrong, mut compared) = (String::new(), 0);
    for seed in 1..=40 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let steps: String = (0..150).map(|number| dice.step(number)).collect();
        let text = format!("schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n{steps}");
        let root = bench.root();
        let run = bench
            .sandbox
            .run_component(&root, &build(&text), &never(), &mut |_| ())
            .unwrap();
        assert!(run.status.is_ok(), "{:?}", run.failure);
        let done = run.documents[0].phases[0].steps.iter();
        let done = done.filter(|step| step.status == amiforge_exec::Status::Success);
        assert!(done.count() > 5, "seed {seed}: hardly anything was done");
        match same(&bench, &root, BTreeMap::new(), &text, &run) {
            Ok(here) => compared += usize::from(here),
            Err(told) => {
                let _ = writeln!(wrong, "seed {seed}:\n{told}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(compared >= 30, "{compared} of them ran on a tree");
}

/// In a sandbox as on a tree; those in other working directories are in layers.
#[test]
fn markers_that_no_layer_has_are_told() {
    let bench = Bench::new();
    let lower = LayerDiff {
        entries: bench.entries.clone(),
    };
    let lower = Tree::from_layers(stat(0o755, 0, 0), [&lower]).unwrap();
    let steps = "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Mark\n        action: CreateFile\n        inputs:\n          \
                 - {path: /tmp/skip_cleanup_ssh_files}\n          - {path: skip_cleanup_toe_files}\n";
    let ssh = "skip_cleanup_ssh_files";
    for (folder, expected) in [
        ("/tmp/toe", &[ssh, "skip_cleanup_toe_files"][..]),
        ("/srv", &[ssh]),
    ] {
        let mut spec = build(steps);
        spec.documents[0].working_directory = Some(folder.to_owned());
        let root = bench.root();
        let there = bench
            .sandbox
            .run_component(&root, &spec, &never(), &mut |_| ())
            .unwrap();
        let (blobs, cancel) = (BlobTable::new(), never());
        let tree = TreeRoot::new(&lower, &blobs, CLOCK, &cancel);
        let here = run_on_tree(&spec, &tree, &mut |_: ChildEvent| ());
        tree.changes(&[]).unwrap();
        for run in [there, here] {
            assert!(run.status.is_ok(), "{:?}", run.failure);
            assert_eq!(run.markers, expected, "{folder}");
        }
    }
}
