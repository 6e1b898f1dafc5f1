//! Against `dpkg-deb`, which makes the packages, and `dpkg-parsechangelog`, which reads changelogs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use amiforge_testkit::{run, tool};

use super::*;
use crate::apt::deb822::Paragraphs;

const LOG: &str = "\
tool (2:1.10-1+deb12u2) bookworm-security; urgency=high

  [ A Person ]
  * Fix CVE-2026-0001.
    - and a second line

  * Another one (Closes: #1)

 -- A Person <a@example.org>  Mon, 02 Mar 2026 10:00:00 +0000

tool (2:1.9~rc1-1) unstable experimental; urgency=low, binary-only=yes

  * Candidate.

 -- B Person <b@example.org>  Tue, 03 Feb 2026 10:00:00 +0100

tool (2:1.9-1) unstable; urgency=medium

  * Release.

 -- B Person <b@example.org>  Wed, 04 Feb 2026 10:00:00 +0100

tool (1.99-1) unstable; urgency=medium

  * Before the epoch.

 -- B Person <b@example.org>  Thu, 01 Jan 2026 10:00:00 +0100

Local variables:
mode: debian-changelog
End:
";

/// What dpkg reads: source, version, distributions, urgency, maintainer, date, and the lines of the changes.
fn oracle(log: &Path, more: &[&str]) -> Vec<ChangelogEntry> {
    let mut command = Command::new("dpkg-parsechangelog");
    command.args(["--format", "rfc822", "-l"]).arg(log);
    let text = run(command.args(more)).text();
    Paragraphs::new(&text)
        .map(|paragraph| {
            let paragraph = paragraph.unwrap();
            let get = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
            let changes = get("Changes");
            // The heading is the first line, and a dot stands for an empty one.
            let changes = changes.lines().skip(1).map(|line| {
                let line = line.strip_prefix(' ').unwrap_or(line);
                if line == "." { "" } else { line }.to_owned()
            });
            let changes: Vec<String> = changes.skip_while(|line| line.trim().is_empty()).collect();
            ChangelogEntry {
                source: get("Source"),
                version: get("Version"),
                distributions: get("Distribution"),
                urgency: Some(get("Urgency")),
                changes,
                maintainer: get("Maintainer"),
                date: get("Date"),
            }
        })
        .collect()
}

#[test]
fn entries_are_those_that_dpkg_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("changelog");
    fs_err::write(&log, LOG).unwrap();
    let ours = parse(LOG);
    assert_eq!(ours.len(), 4);
    assert_eq!(ours, oracle(&log, &["--all"]));
    // Of two versions, those between: dpkg goes by place where the order of the text is that of the versions.
    let newer = newer(&[LOG.to_owned()], "2:1.9-1").unwrap();
    assert_eq!(newer.entries.len(), 1);
    assert_eq!(newer.entries, oracle(&log, &["--count", "1"]));
    assert!(newer.complete);
    let since = |version: &str| super::newer(&[LOG.to_owned()], version).unwrap();
    let versions = |version: &str| -> Vec<String> {
        let entries = since(version).entries;
        entries.into_iter().map(|entry| entry.version).collect()
    };
    assert_eq!(
        versions("2:1.9~rc1-1"),
        ["2:1.10-1+deb12u2", "2:1.9-1"],
        "a candidate is older than the release"
    );
    assert_eq!(versions("3.0").len(), 3, "an epoch counts before all else");
    assert!(!since("1.0").complete, "its beginning was cut off");
}

#[test]
fn what_drives_a_terminal_or_has_no_end_is_not_told() {
    let text = "tool (1-1) sid; urgency=low\n\n  * \u{1b}[2J\u{9b}31m\u{202e}x\ty\n\n -- \u{7}A <a@b>  now\u{1b}c\n\
                tool (2-1) sid; urgency=low\n\n  * cut off in the mid";
    let entries = parse(text);
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0].changes,
        ["  * \u{fffd}[2J\u{fffd}31m\u{fffd}x        y"]
    );
    assert_eq!(entries[0].maintainer, "\u{fffd}A <a@b>");
    assert_eq!(entries[0].date, "now\u{fffd}c");
    for no in [
        "tool(1-1) sid; urgency=low",
        "tool (1-1); urgency=low",
        "tool (1-1\u{1b}) sid; urgency=low",
        "to\u{1b}ol (1-1) sid; urgency=low",
        " tool (1-1) sid; urgency=low",
        "tool (1-1) sid",
    ] {
        assert_eq!(parse(&format!("{no}\n\n  * x\n\n -- A <a@b>  now\n")), []);
    }
    let long = format!(
        "tool (1-1) sid; urgency=low\n\n  * {}\n\n -- A <a@b>  now\n",
        "x".repeat(1 << 20)
    );
    assert!(parse(&long)[0].changes[0].len() < 2100);
}

/// A package of these files below its folder of documents, made by `dpkg-deb`; `None` makes that folder a link.
struct Made {
    package: ResolvedPackage,
    deb: PathBuf,
}

fn package(dir: &Path, name: &str, version: &str, source: &str, docs: impl FnOnce(&Path)) -> Made {
    let root = dir.join(format!("{name}-{version}"));
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{source}\
         Maintainer: Nobody <nobody@example.org>\nDescription: {name}\n"
    );
    fs_err::create_dir_all(root.join("DEBIAN")).unwrap();
    fs_err::write(root.join("DEBIAN/control"), control).unwrap();
    fs_err::create_dir_all(root.join(DOC)).unwrap();
    docs(&root.join(DOC).join(name));
    let deb = dir.join(format!("{name}-{version}.deb"));
    run(tool("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&root, &deb]));
    let bytes = fs_err::read(&deb).unwrap();
    let package = ResolvedPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: "amd64".to_owned(),
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        filename: String::new(),
        uri: String::new(),
        stage: 3,
        auto: false,
    };
    Made { package, deb }
}

/// Writes files, gzipped by gzip.
fn gzipped<'a>(files: &'a [(&'a str, &'a str)]) -> impl FnOnce(&Path) + 'a {
    move |docs| {
        fs_err::create_dir_all(docs).unwrap();
        for (name, text) in files {
            let path = docs.join(name.strip_suffix(".gz").unwrap_or(name));
            fs_err::write(&path, text).unwrap();
            if name.ends_with(".gz") {
                run(tool("gzip").arg("-9n").arg(&path));
            }
        }
    }
}

fn entry(source: &str, version: &str) -> String {
    format!(
        "{source} ({version}) sid; urgency=medium\n\n  * {version} of {source}.\n\n -- A <a@b>  Mon, 02 Mar 2026 10:00:00 +0000\n\n"
    )
}

/// The versions that a package of `made` tells, since `old`.
fn told(made: &Made, old: &str, others: &[&Made]) -> Result<Vec<String>, ChangelogError> {
    let file = PackageFile::open(&made.package, &made.deb)?;
    let mut other = |name: &str| {
        let found = others.iter().find(|made| made.package.name == name)?;
        Some(PackageFile::open(&found.package, &found.deb).unwrap())
    };
    let log = file.changelog(old, None, &mut other)?;
    Ok(log.entries.into_iter().map(|entry| entry.version).collect())
}

#[test]
fn the_changelog_is_found_where_packages_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let both = [entry("tool", "1.2-1"), entry("tool", "1.1-1")].concat();
    let upstream = "2026-01-01 Somebody\n\n\t* tool.c: new\n";

    let plain = package(
        dir,
        "plain",
        "1.2-1",
        "Source: tool\n",
        gzipped(&[("changelog.Debian.gz", &both), ("changelog.gz", upstream)]),
    );
    assert_eq!(told(&plain, "1.1-1", &[]).unwrap(), ["1.2-1"]);
    assert_eq!(told(&plain, "1.2-1", &[]).unwrap(), [""; 0]);
    let native = package(
        dir,
        "native",
        "1.2-1",
        "",
        gzipped(&[("changelog.gz", &both)]),
    );
    assert_eq!(told(&native, "1.1-1", &[]).unwrap(), ["1.2-1"]);
    let plainly = package(
        dir,
        "plainly",
        "1.2-1",
        "",
        gzipped(&[("changelog", &both)]),
    );
    assert_eq!(told(&plainly, "1.0", &[]).unwrap(), ["1.2-1", "1.1-1"]);
    let rebuilt = package(
        dir,
        "rebuilt",
        "1.2-1+b2",
        "Source: tool (1.2-1)\n",
        gzipped(&[
            ("changelog.Debian.amd64.gz", &entry("tool", "1.2-1+b2")),
            ("changelog.Debian.gz", &both),
        ]),
    );
    assert_eq!(told(&rebuilt, "1.1-1", &[]).unwrap(), ["1.2-1+b2", "1.2-1"]);
    assert_eq!(told(&rebuilt, "1.2-1+b1", &[]).unwrap(), ["1.2-1+b2"]);

    // Links: of the folder, of the file, to upstream's own, in a circle, to nowhere.
    let linked = package(dir, "linked", "1.2-1", "", |docs| {
        symlink("plain", docs).unwrap()
    });
    assert_eq!(told(&linked, "1.1-1", &[&plain]).unwrap(), ["1.2-1"]);
    assert!(matches!(
        told(&linked, "1.1-1", &[]),
        Err(ChangelogError::Elsewhere { package }) if package == "plain"
    ));
    let leading = package(dir, "leading", "1.2-1", "", |docs| {
        fs_err::create_dir_all(docs).unwrap();
        symlink(
            "../plain/changelog.Debian.gz",
            docs.join("changelog.Debian.gz"),
        )
        .unwrap();
    });
    assert_eq!(told(&leading, "1.1-1", &[&plain]).unwrap(), ["1.2-1"]);
    let own = package(dir, "own", "1.2-1", "", |docs| {
        gzipped(&[("changelog.Debian.gz", &both)])(docs);
        symlink("changelog.Debian.gz", docs.join("changelog.gz")).unwrap();
        std::fs::rename(
            docs.join("changelog.Debian.gz"),
            docs.join("changelog.amd64.gz"),
        )
        .unwrap();
        std::fs::remove_file(docs.join("changelog.gz")).unwrap();
        symlink("changelog.amd64.gz", docs.join("changelog.gz")).unwrap();
    });
    assert_eq!(told(&own, "1.1-1", &[]).unwrap(), ["1.2-1"]);
    let one = package(dir, "one", "1.2-1", "", |docs| {
        symlink("two", docs).unwrap()
    });
    let two = package(dir, "two", "1.2-1", "", |docs| {
        symlink("one", docs).unwrap()
    });
    assert!(matches!(
        told(&one, "1.1-1", &[&one, &two]),
        Err(ChangelogError::Missing)
    ));
    let out = package(dir, "out", "1.2-1", "", |docs| {
        symlink("../../../../etc/passwd", docs).unwrap();
    });
    assert!(matches!(told(&out, "1", &[]), Err(ChangelogError::Missing)));
    let without = package(dir, "without", "1.2-1", "", gzipped(&[("copyright", "x")]));
    assert!(matches!(
        told(&without, "1", &[]),
        Err(ChangelogError::Missing)
    ));
    let foreign = package(
        dir,
        "foreign",
        "1.2-1",
        "",
        gzipped(&[("changelog.gz", upstream)]),
    );
    assert!(matches!(
        told(&foreign, "1", &[]),
        Err(ChangelogError::Form)
    ));
}

#[test]
fn versions_of_the_source_count_where_they_are_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = [entry("defaults", "1.21"), entry("defaults", "1.20")].concat();
    let docs = [("changelog.gz", log.as_str())];
    let old = package(
        dir.path(),
        "cc",
        "4:12.1-1",
        "Source: defaults (1.20)\n",
        gzipped(&docs),
    );
    let new = package(
        dir.path(),
        "cc",
        "4:12.2-1",
        "Source: defaults (1.21)\n",
        gzipped(&docs),
    );
    let file = PackageFile::open(&new.package, &new.deb).unwrap();
    let before = PackageFile::open(&old.package, &old.deb)
        .unwrap()
        .source()
        .unwrap();
    assert_eq!(
        (before.name.as_str(), before.version.as_str()),
        ("defaults", "1.20")
    );
    let none = &mut |_: &str| None;
    let log = file.changelog("4:12.1-1", Some(&before), none).unwrap();
    assert_eq!(log.entries.len(), 1);
    assert_eq!(log.entries[0].version, "1.21");
    assert!(matches!(
        file.changelog("4:12.1-1", None, none),
        Err(ChangelogError::Unknown)
    ));
}

#[test]
fn what_expands_without_end_and_what_was_changed_is_refused_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    // 40 MiB behind the first entry, which shrink to 40 KiB.
    let bomb = format!("{}{}", entry("bomb", "2"), "\n".repeat(40 << 20));
    let made = package(
        dir.path(),
        "bomb",
        "2",
        "",
        gzipped(&[("changelog.gz", &bomb)]),
    );
    assert!(made.package.size < 1 << 20);
    assert_eq!(told(&made, "1", &[]).unwrap(), ["2"]);
    let many: String = (0..2000)
        .rev()
        .map(|n| entry("many", &format!("{n}")))
        .collect();
    let made = package(
        dir.path(),
        "many",
        "1999",
        "",
        gzipped(&[("changelog.gz", &many)]),
    );
    let file = PackageFile::open(&made.package, &made.deb).unwrap();
    let log = file.changelog("0", None, &mut |_| None).unwrap();
    assert_eq!((log.entries.len(), log.complete), (MAX_ENTRIES, false));

    let mut bytes = fs_err::read(&made.deb).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&made.deb, bytes).unwrap();
    assert!(matches!(
        PackageFile::open(&made.package, &made.deb),
        Err(ChangelogError::Damaged { .. })
    ));
}
