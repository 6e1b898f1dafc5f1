//! Nothing in the repository names the machine it was written on: its folders, its package archives.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{Findings, Repo};

/// Hosts that anybody may name.
const PUBLIC: &[&str] = &["localhost", "127.0.0.1", "github.com"];

/// Folders that say nothing about a machine, so that a clone below them proves nothing.
const COMMON: &[&str] = &[
    "app",
    "bin",
    "boot",
    "build",
    "ci",
    "code",
    "data",
    "dev",
    "etc",
    "home",
    "lib",
    "media",
    "mnt",
    "nix",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "src",
    "sys",
    "tmp",
    "usr",
    "var",
    "workspace",
];

pub(super) fn check(repo: &Repo, findings: &mut Findings) {
    let words: Vec<String> = archive_hosts()
        .into_iter()
        .chain(machine_folders(&repo.root))
        .collect();
    check_words(repo, &words, findings);
}

fn check_words(repo: &Repo, words: &[String], findings: &mut Findings) {
    // Cargo.lock names the registry, which is nobody's machine.
    for file in repo.files.iter().filter(|f| f.path != "Cargo.lock") {
        let Some(text) = &file.text else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| stands_alone(line, word)) {
                findings.push(format!(
                    "{}:{}: names this machine's {word}",
                    file.path,
                    number + 1
                ));
            }
        }
    }
}

/// Whether `word` occurs and is not the tail of a longer name.
fn stands_alone(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        // A host follows the slashes of its URL.
        if word.starts_with('/') {
            !before.is_some_and(part)
        } else {
            !before.is_some_and(|c| c != '/' && part(c))
        }
    })
}

/// Host names of the package archives in the machine's apt configuration, comments included.
fn archive_hosts() -> BTreeSet<String> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|file| fs_err::read_to_string(file).ok())
        .flat_map(|text| hosts_in(&text))
        .collect()
}

fn hosts_in(text: &str) -> Vec<String> {
    let mut hosts = Vec::new();
    for scheme in ["http://", "https://"] {
        for (at, _) in text.match_indices(scheme) {
            let rest = &text[at + scheme.len()..];
            let host = rest
                .split(['/', ' ', '\n', '\t', ']'])
                .next()
                .unwrap_or_default();
            let host = host
                .rsplit('@')
                .next()
                .unwrap_or_default()
                .split(':')
                .next()
                .unwrap_or_default();
            if host.contains('.') && !PUBLIC.contains(&host) {
                hosts.push(host.to_owned());
            }
        }
    }
    hosts
}

/// The folder of this clone and the one around it, as far as they are particular to a machine.
fn machine_folders(root: &Path) -> Vec<String> {
    let particular = |path: &&Path| {
        let mut parts = path.components().filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        });
        match (parts.next(), parts.next()) {
            (Some(first), None) => !COMMON.contains(&first.as_str()),
            (first, _) => first.is_some(),
        }
    };
    let folders = root.ancestors().take(2).filter(particular);
    folders.map(|path| format!("{}/", path.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_from_both_formats_and_comments() {
        let text = "deb [trusted=yes] http://user:pw@mirror.example:8080/debian stable main\n\
                    # https://old.example/x\nURIs: https://a.example\nURIs: http://localhost:3142/debian file:/x\n";
        let mut hosts = hosts_in(text);
        hosts.sort();
        assert_eq!(hosts, ["a.example", "mirror.example", "old.example"]);
    }

    #[test]
    fn folders_that_are_common_are_no_sign() {
        assert_eq!(machine_folders(Path::new("/tmp/x")), ["/tmp/x/"]);
        assert_eq!(machine_folders(Path::new("/src")), Vec::<String>::new());
        assert_eq!(
            machine_folders(Path::new("/odd/clone")),
            ["/odd/clone/", "/odd/"]
        );
    }

    #[test]
    fn a_name_is_found_only_where_it_stands_alone() {
        assert!(stands_alone(
            "see http://mirror.example/debian",
            "mirror.example"
        ));
        assert!(!stands_alone(
            "see http://my-mirror.example/debian",
            "mirror.example"
        ));
        assert!(stands_alone("in /odd/clone", "/odd/"));
        assert!(!stands_alone("in .ci/odd/clone", "/odd/"));
        let mut found = Findings::new();
        check_words(
            &Repo::of(&[("a", "x\n/odd/x\n")]),
            &["/odd/".to_owned()],
            &mut found,
        );
        assert_eq!(found, ["a:2: names this machine's /odd/"]);
    }
}
