//! Packages whose preinst diverts paths, against what the real dpkg makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use amiforge_tree::{Kind, LayerDiff, LayerEntry};
use amiforge_types::BlobTable;

use super::repo::{DATE, HASTY, LATER, Place, Repo, run};
use super::unpacked::text;
use crate::fetch::fetch_with;
use crate::resolve::resolve_with;
use crate::unpack;

/// `tool` ships a program; `wrapper` puts its own in that place; `alone` diverts what only it ships;
/// `mover` diverts a file of `tool` and ships nothing there.
const PACKAGES: &[&str] = &[
    r#"Package: tool
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: ships programs
Files:
 usr/bin/run = the tool's
 usr/share/tool/data = data
 usr/share/tool/old = old"#,
    r#"Package: wrapper
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: stands in front of a program
Files:
 DEBIAN/preinst = #!/bin/sh\nset -e\ndpkg-divert --package wrapper --add --rename --divert /usr/bin/run.real /usr/bin/run\n
 usr/bin/run = the wrapper's
 usr/share/wrapper/data = data"#,
    r#"Package: alone
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: diverts a path of its own
Files:
 DEBIAN/preinst = #!/bin/sh\nset -e\nif [ "$1" = install ]; then\n  dpkg-divert --package alone --add --rename \\\n --divert /usr/bin/only.real /usr/bin/only\nfi\n
 usr/bin/only = alone's own"#,
    r#"Package: mover
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: moves a file of another package away
Files:
 DEBIAN/preinst = #!/bin/sh\nset -e\ndpkg-divert --package mover --add --rename --divert /usr/share/tool/old.moved /usr/share/tool/old\n
 usr/share/mover/data = data"#,
];

#[test]
fn diverted_files_end_where_dpkg_puts_them() {
    let repo = Repo::new();
    let mut index =
        std::fs::read_to_string(repo.path("repo/dists/test/main/binary-amd64/Packages")).unwrap();
    for package in PACKAGES {
        index.push('\n');
        index.push_str(&repo.package(package));
    }
    repo.index(&index);
    repo.release("test", DATE, Some(LATER));
    repo.sign(&["good@example.org"]);

    let names = ["tool", "wrapper", "alone", "mover"];
    let place = Place::new();
    let request = repo.request(&repo.file_uri(), &names);
    let (resolved, diff, blobs) = place.with(false, |ctx| {
        let resolved = resolve_with(&request, ctx, HASTY).unwrap();
        let fetched = fetch_with(&resolved, ctx, HASTY).unwrap();
        let spool = tempfile::tempfile().unwrap();
        let mut blobs = BlobTable::new();
        let diff = unpack(&resolved, &fetched, spool, &mut blobs, ctx).unwrap();
        (resolved, diff, blobs)
    });
    let ours = place.path("ours");
    write_out(&diff, &blobs, &ours);
    let order: Vec<&str> = resolved.packages.iter().map(|p| p.name.as_str()).collect();
    let script = format!(
        "set -eu\nfail() {{ echo \"$*\" >&2; exit 1; }}\nroot={}\norder='{}'\ndpkg_options='{OPTIONS} --root={}'\n{}",
        ours.display(),
        order.join(" "),
        ours.display(),
        include_str!("../configure/deferred.sh")
    );
    run(as_root().args(["bash", "-c", &script]));
    let ours = seen(&ours);

    // Both orders that dpkg may be given.
    for reversed in [false, true] {
        let real = place.path(&format!("real-{reversed}"));
        for dir in ["info", "updates", "triggers"] {
            std::fs::create_dir_all(real.join("var/lib/dpkg").join(dir)).unwrap();
        }
        // One /bin and /usr/bin, as in every image.
        for dir in ["bin", "sbin", "lib", "lib64"] {
            std::fs::create_dir_all(real.join("usr").join(dir)).unwrap();
            std::os::unix::fs::symlink(format!("usr/{dir}"), real.join(dir)).unwrap();
        }
        std::fs::write(real.join("var/lib/dpkg/status"), "").unwrap();
        std::fs::write(real.join("var/lib/dpkg/available"), "").unwrap();
        let mut packages = order.clone();
        if reversed {
            packages.reverse();
        }
        for name in packages {
            let package = resolved.package(name).unwrap();
            run(as_root()
                .arg("dpkg")
                .args(OPTIONS.split(' '))
                .arg(format!("--root={}", real.display()))
                .arg("--unpack")
                .arg(repo.path(&format!("repo/{}", package.filename))));
        }
        assert_eq!(ours, seen(&real), "reversed: {reversed}");
    }
    assert_eq!(ours["usr/bin/run"], "the wrapper's");
    assert_eq!(ours["usr/bin/run.real"], "the tool's");
    assert_eq!(ours["usr/bin/only"], "alone's own");
    assert!(!ours.contains_key("usr/bin/only.real"));
    assert_eq!(ours["usr/share/tool/old.moved"], "old");
}

/// No need of a root directory with a shell in it, nor of root.
const OPTIONS: &str = "--force-script-chrootless --force-not-root --log=/dev/null";

fn as_root() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--map-root-user").env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}

fn write_out(diff: &LayerDiff, blobs: &BlobTable, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for (path, entry) in &diff.entries {
        let name = std::str::from_utf8(path).unwrap();
        let LayerEntry::Put(inode) = entry else {
            panic!("{name}: {entry:?}")
        };
        let at = to.join(name);
        match &inode.kind {
            Kind::Dir => std::fs::create_dir_all(at).unwrap(),
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(std::str::from_utf8(target).unwrap(), at).unwrap();
            }
            // A package is no text.
            Kind::File(content) => {
                std::fs::write(at, content.read_to_vec(blobs, 1 << 30).unwrap()).unwrap();
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    std::fs::create_dir_all(to.join("var/lib/dpkg/updates")).unwrap();
    assert_eq!(text(diff, blobs, "usr/bin/run"), "the tool's");
}

/// The files of the packages, the diversions in order, what dpkg lists as theirs, and their state.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo: Vec<PathBuf> = vec![root.join("usr"), root.join("var/cache")];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            // The packages of every test are among ours only because they are essential.
            out.insert(
                name.to_owned(),
                std::fs::read_to_string(&path).unwrap_or_default(),
            );
        }
    }
    let admin = root.join("var/lib/dpkg");
    let diversions = std::fs::read_to_string(admin.join("diversions")).unwrap_or_default();
    let lines: Vec<&str> = diversions.lines().collect();
    for entry in lines.chunks(3) {
        out.insert(format!("diversion of {}", entry[0]), entry[1..].join(" "));
    }
    for name in ["tool", "wrapper", "alone", "mover"] {
        let list = std::fs::read_to_string(admin.join(format!("info/{name}.list"))).unwrap();
        let mut list: Vec<&str> = list.lines().collect();
        list.sort_unstable();
        out.insert(format!("list of {name}"), list.join(" "));
        let state = run(Command::new("dpkg-query")
            .arg("--admindir")
            .arg(&admin)
            .args(["--showformat=${db:Status-Abbrev}", "--show", name]));
        out.insert(format!("state of {name}"), state);
    }
    out
}
