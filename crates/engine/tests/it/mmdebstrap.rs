//! mmdebstrap installs the same packages; every difference to what it makes is explained.
//!
//! `fixtures/mmdebstrap/bookworm.txt` has a line for each group of differences:
//! `<kind> <path pattern> # <reason>`, where `*` stands for anything. A difference that no line
//! explains is a failure, and so is a line that explains nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use amiforge_store::FileBlob;
use amiforge_testkit::{Env, Running, run, shared, tool, workspace_root};
use amiforge_tree::{Ino, Kind, Tree, tar};
use amiforge_types::{BlobTable, Timestamp};
use serde_json::Value;

use crate::base::{Base, LIMIT};
use crate::trees;

struct Rule {
    line: usize,
    kind: String,
    pattern: String,
    used: u32,
}

fn rules(text: &str) -> Vec<Rule> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let (rule, reason) = line
                .split_once(" # ")
                .unwrap_or_else(|| panic!("line {}: no reason", at + 1));
            assert!(reason.trim().len() > 10, "line {}: no reason", at + 1);
            let (kind, pattern) = rule.trim().split_once(' ').expect("a kind and a pattern");
            Rule {
                line: at + 1,
                kind: kind.to_owned(),
                pattern: pattern.trim().to_owned(),
                used: 0,
            }
        })
        .collect()
}

/// `*` stands for any characters, `/` too.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What mmdebstrap makes of the packages of `lock`, from the downloads in `cache`.
fn reference(lock: &Value, cache: &Path) -> std::path::PathBuf {
    let packages = lock["packages"].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let env = Env::new();
    let wanted: Vec<String> = packages
        .iter()
        .map(|p| format!("{}={}", text(&p["name"]), text(&p["version"])))
        .collect();
    let sources: Vec<String> = lock["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| text(&s["text"]))
        .collect();
    let list = env.write(
        "list",
        format!("{}\n{}", wanted.join("\n"), sources.join("\n")),
    );
    let key = run(tool("sha256sum").arg(&list)).text();
    let epoch = lock["newest"]["secs"].as_i64().unwrap().to_string();
    let dir = shared("mmdebstrap", &key[..16], |dir| {
        // apt takes what is there already under the names that it would give.
        let debs = env.path("debs");
        fs_err::create_dir(&debs).unwrap();
        for p in packages {
            let name = format!(
                "{}_{}_{}.deb",
                text(&p["name"]),
                text(&p["version"]).replace(':', "%3a"),
                text(&p["arch"])
            );
            let file = cache.join(format!("v1/archives/{}.deb", text(&p["sha256"])));
            fs_err::copy(file, debs.join(name)).unwrap();
        }
        let sources = env.write("debian.sources", sources.join("\n"));
        let names: Vec<String> = packages.iter().map(|p| text(&p["name"])).collect();
        let only = env.write(
            "only",
            format!(
                "Package: *\nPin: release *\nPin-Priority: -1\n\nPackage: {}\nPin: release *\nPin-Priority: 500\n",
                names.join(" ")
            ),
        );
        let mut command = env.command("mmdebstrap");
        command
            .env("SOURCE_DATE_EPOCH", &epoch)
            .args(["--variant=apt", "--skip=download/empty", "--format=tar"])
            .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg(format!(
                "--setup-hook=mkdir -p \"$1/var/cache/apt/archives\" && cp {}/*.deb \"$1/var/cache/apt/archives/\"",
                debs.display()
            ))
            // Without this apt takes the first of `usrmerge | usr-is-merged`, and with it all of Perl.
            .arg(format!(
                "--setup-hook=cp {} \"$1/etc/apt/preferences.d/only\"",
                only.display()
            ))
            .arg("--customize-hook=rm \"$1/etc/apt/preferences.d/only\"")
            .arg(format!("--include={}", wanted.join(",")))
            .arg(text(&lock["suite"]))
            .arg(dir.join("root.tar"))
            .arg(sources);
        Running::spawn(&mut command).wait(LIMIT).expect_code(0);
    });
    dir.join("root.tar")
}

/// Names of ids, since packages that make accounts get them in the order of their configuration.
fn names(tree: &Tree, blobs: &BlobTable, file: &str) -> BTreeMap<u32, String> {
    String::from_utf8_lossy(&content(tree, blobs, file))
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((fields.get(2)?.parse().ok()?, (*fields.first()?).to_owned()))
        })
        .collect()
}

fn content(tree: &Tree, blobs: &BlobTable, file: &str) -> Vec<u8> {
    let ino = tree
        .lookup(file.as_bytes())
        .unwrap_or_else(|| panic!("no {file}"));
    let Kind::File(content) = &tree.inode(ino).kind else {
        panic!("{file} is no file");
    };
    content.read_to_vec(blobs, 1 << 20).unwrap()
}

struct Side<'a> {
    tree: &'a Tree,
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl<'a> Side<'a> {
    fn new(tree: &'a Tree, blobs: &BlobTable) -> Self {
        Self {
            tree,
            users: names(tree, blobs, "etc/passwd"),
            groups: names(tree, blobs, "etc/group"),
        }
    }

    fn files(&self) -> BTreeMap<String, Ino> {
        self.tree
            .walk()
            .into_iter()
            .map(|(path, ino)| (format!("/{}", String::from_utf8_lossy(&path)), ino))
            .collect()
    }

    /// Attribute by attribute what is to be equal.
    fn facts(&self, ino: Ino) -> BTreeMap<&'static str, String> {
        let inode = self.tree.inode(ino);
        let name = |names: &BTreeMap<u32, String>, id: u32| {
            names.get(&id).cloned().unwrap_or_else(|| id.to_string())
        };
        let mut facts = BTreeMap::from([
            (
                "owner",
                format!(
                    "{}:{}",
                    name(&self.users, inode.stat.uid),
                    name(&self.groups, inode.stat.gid)
                ),
            ),
            ("attributes", format!("{:?}", inode.xattrs)),
        ]);
        let kind = match &inode.kind {
            Kind::Dir => "directory",
            Kind::File(content) => {
                facts.insert("size", content.size.to_string());
                "file"
            }
            Kind::Symlink(target) => {
                facts.insert("target", String::from_utf8_lossy(target).into_owned());
                "link"
            }
            Kind::CharDev { .. } | Kind::BlockDev { .. } => "device",
            Kind::Fifo => "pipe",
            Kind::Socket => "socket",
        };
        facts.insert("type", kind.to_owned());
        if kind != "link" {
            facts.insert("mode", format!("{:04o}", inode.stat.mode));
        }
        facts
    }
}

/// Lines `<kind> <path>` and, for people, the two values.
fn differences(ours: &Side<'_>, theirs: &Side<'_>) -> Vec<(String, String, String)> {
    let (a, b) = (ours.files(), theirs.files());
    let mut found = Vec::new();
    for (path, ino) in &a {
        let Some(other) = b.get(path) else {
            found.push(("only-here".to_owned(), path.clone(), String::new()));
            continue;
        };
        let (facts, other) = (ours.facts(*ino), theirs.facts(*other));
        for (kind, value) in &facts {
            match other.get(kind) {
                Some(there) if there == value => {}
                there => found.push((
                    (*kind).to_owned(),
                    path.clone(),
                    format!("{value}, mmdebstrap: {}", there.map_or("-", String::as_str)),
                )),
            }
        }
    }
    for path in b.keys().filter(|path| !a.contains_key(*path)) {
        found.push(("only-there".to_owned(), path.clone(), String::new()));
    }
    found
}

#[test]
fn image_differs_from_mmdebstrap_only_as_explained() {
    let base = Base::get();
    let lock: Value =
        serde_json::from_slice(&fs_err::read(base.out().join("lock.json")).unwrap()).unwrap();
    let archive = reference(&lock, &base.state().join("cache"));

    let (stacks, ours_blobs) = trees::stacks(&base.state(), &base.out());
    let ours = Side::new(&stacks[1].1, &ours_blobs);
    let mut blobs = BlobTable::new();
    let blob = Arc::new(FileBlob::open(&archive).unwrap());
    let id = blobs.add(blob.clone());
    let options = tar::ReadOptions {
        build_clock: Timestamp::default(),
        limits: tar::Limits::DEFAULT,
    };
    let tree = tar::read_at(&*blob, id, &options).unwrap();
    let theirs = Side::new(&tree, &blobs);

    let fixture = workspace_root().join("fixtures/mmdebstrap/bookworm.txt");
    let mut rules = rules(&fs_err::read_to_string(fixture).unwrap());
    let mut unexplained = Vec::new();
    for (kind, path, values) in differences(&ours, &theirs) {
        let rule = rules
            .iter_mut()
            .find(|r| r.kind == kind && matches(&r.pattern, &path));
        match rule {
            Some(rule) => rule.used += 1,
            None => unexplained.push(format!("{kind} {path} {values}")),
        }
    }
    let unused: Vec<String> = rules
        .iter()
        .filter(|r| r.used == 0)
        .map(|r| format!("line {}: {} {}", r.line, r.kind, r.pattern))
        .collect();
    assert!(
        unexplained.is_empty() && unused.is_empty(),
        "{} differences have no explanation:\n{}\nexplanations of nothing:\n{}",
        unexplained.len(),
        unexplained.join("\n"),
        unused.join("\n")
    );
}

#[test]
fn patterns_match_whole_paths() {
    assert!(matches("/a/*", "/a/b/c") && matches("/a", "/a") && matches("*/x/*.y", "/p/x/q.y"));
    assert!(!matches("/a", "/ab") && !matches("/a/*c", "/a/b") && !matches("a*", "/a"));
}
