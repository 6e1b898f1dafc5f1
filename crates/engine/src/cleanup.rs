//! What a finished machine image does not carry: what Image Builder's own clean-up removes before it makes an AMI, and
//! caches and identities that a guest makes anew.
//!
//! An empty file with the name of a section's marker keeps that section, as in the service
//! (`imagebuilder/latest/userguide/security-best-practices.html`, "Post-build cleanup"). It lies in the working directory
//! of the recipe, or in `/tmp`, where documents written for the service leave it.

use std::collections::BTreeSet;

use amiforge_exec::CLEANUP_MARKERS;
use amiforge_tree::{Content, Kind, Tree};
use regex::bytes::RegexSet;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::hygiene;
use crate::layers::{Made, Work, layer_markers};
use crate::settings::Engine;

/// What is removed together, and the marker that keeps it; paths as [`named`] reads them.
struct Section {
    marker: Option<&'static str>,
    paths: &'static [&'static str],
}

/// The sections of the service, and ours, which no marker keeps.
const SECTIONS: &[Section] = &[
    Section {
        marker: Some("skip_cleanup_cloudinit_files"),
        paths: &[
            "etc/sudoers.d/90-cloud-init-users",
            "etc/locale.conf",
            "var/log/cloud-init.log",
            "var/log/cloud-init-output.log",
            "var/lib/cloud/*",
        ],
    },
    Section {
        marker: Some("skip_cleanup_instance_files"),
        paths: &[
            "etc/.updated",
            "etc/aliases.db",
            "etc/hostname",
            "var/lib/misc/postfix.aliasesdb-stamp",
            "var/lib/postfix/master.lock",
            "var/spool/postfix/pid/master.pid",
            "var/.updated",
            "var/cache/yum/x86_64/2/.gpgkeyschecked.yum",
        ],
    },
    Section {
        marker: Some("skip_cleanup_ssh_files"),
        paths: &[
            "etc/ssh/ssh_host_*",
            "root/.ssh/authorized_keys",
            "home/*/.ssh/authorized_keys",
        ],
    },
    Section {
        marker: Some("skip_cleanup_instance_log_files"),
        paths: &[
            "var/log/audit/audit.log",
            "var/log/boot.log",
            "var/log/dmesg",
            "var/log/cron",
        ],
    },
    Section {
        marker: Some("skip_cleanup_ssm_log_files"),
        paths: &["var/log/amazon/ssm/*"],
    },
    Section {
        marker: None,
        paths: &[
            "run/*",
            "tmp/*",
            "var/tmp/*",
            "var/lib/apt/lists/*",
            "var/cache/apt/archives/*",
            "var/log/journal/*",
            "var/log/sa/sa*",
            "var/lib/dhclient/*",
            "var/lib/dhcp/*.lease",
            "var/lib/dhcp/*.leases",
            "var/lib/rsyslog/imjournal.state",
            "root/.bash_history",
            "var/lib/systemd/random-seed",
            "var/lib/systemd/credential.secret",
            "etc/.pwd.lock",
        ],
    },
];

/// Keeps the logs of AWSTOE in the working directory.
const TOE_MARKER: &str = "skip_cleanup_toe_files";

/// Stays as an empty file: the first boot gives every instance its own.
pub(crate) const MACHINE_ID: &[u8] = b"etc/machine-id";

/// Whether no image has what is at this path, whatever its markers.
pub(crate) fn is_dropped(path: &[u8]) -> bool {
    const OF_CONTAINERS: &[&str] = &["var/lib/cloud/*", "etc/ssh/ssh_host_*"];
    let always = SECTIONS.iter().filter(|section| section.marker.is_none());
    let mut patterns = always
        .flat_map(|section| section.paths)
        .chain(OF_CONTAINERS);
    patterns.any(|pattern| is_at_or_below(pattern, path))
}

/// Whether a path is one that a pattern names, or below it.
fn is_at_or_below(pattern: &str, path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/');
    pattern
        .split('/')
        .all(|part| names.next().is_some_and(|name| fits(part, name)))
}

/// Whether a name fits a part of a pattern, in which one `*` stands for any characters.
fn fits(part: &str, name: &[u8]) -> bool {
    match part.split_once('*') {
        None => part.as_bytes() == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len()
                && name.starts_with(start.as_bytes())
                && name.ends_with(end.as_bytes())
        }
    }
}

/// The paths below a directory of a tree that a pattern names.
fn named(tree: &Tree, dir: &[u8], pattern: &str) -> Vec<Vec<u8>> {
    let mut found = vec![dir.to_vec()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for dir in found {
            let Some(children) = tree.lookup(&dir).and_then(|ino| tree.children(ino)) else {
                continue;
            };
            let fitting = children.names().filter(|name| fits(part, name));
            next.extend(fitting.map(|name| join(&dir, name)));
        }
        found = next;
    }
    found
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir.is_empty() {
        true => name.to_vec(),
        false => [dir, b"/", name].concat(),
    }
}

/// What is kept in spite of the clean-up.
struct Kept {
    /// Names of markers.
    markers: BTreeSet<String>,
    /// Paths that the recipe wants in the image.
    allowed: RegexSet,
    /// Without leading slash; empty for `/`.
    working_directory: Vec<u8>,
}

/// Removes what no image carries. What was removed and opens a way in: its paths.
fn clean(tree: &mut Tree, kept: &Kept) -> Vec<Vec<u8>> {
    let mut logins = Vec::new();
    let has = |marker: Option<&str>| marker.is_some_and(|name| kept.markers.contains(name));
    for section in SECTIONS.iter().filter(|section| !has(section.marker)) {
        for pattern in section.paths {
            for path in named(tree, b"", pattern) {
                let is_login = path.ends_with(b"/authorized_keys");
                if is_login && kept.allowed.is_match(&path) {
                    continue;
                }
                tree.remove(&path);
                if is_login {
                    logins.push(path);
                }
            }
        }
    }
    let dir = &kept.working_directory;
    let mut names: Vec<&str> = CLEANUP_MARKERS.to_vec();
    names.push("perform_cleanup");
    for name in names {
        tree.remove(&join(dir, name.as_bytes()));
    }
    if !has(Some(TOE_MARKER)) {
        for path in named(tree, dir, "TOE_*") {
            tree.remove(&path);
        }
    }
    logins
}

impl Engine {
    /// The tree of an image: its layers over one another, of a machine without what it does not carry. From a container's
    /// layers that is taken one by one.
    pub(crate) fn image_tree(&self, work: &Work<'_>, made: &Made) -> Result<Tree, EngineError> {
        let mut tree = made.tree().or_fail(ErrorKind::Failed, || {
            "the layers do not fit on one another".to_owned()
        })?;
        if work.recipe.recipe.container.is_none() {
            self.clean_up(work, &mut tree)?;
        }
        Ok(tree)
    }

    fn clean_up(&self, work: &Work<'_>, tree: &mut Tree) -> Result<(), EngineError> {
        let recipe = &work.recipe.recipe;
        let folder = recipe.working_directory.as_deref().unwrap_or("/");
        let working_directory = folder.trim_matches('/').as_bytes().to_vec();
        let mut markers = BTreeSet::new();
        // Those of another image were for that one.
        for layer in work.plan.layers.iter().skip(work.parent.continued()) {
            markers.extend(layer_markers(work.store, layer.id)?);
        }
        for name in CLEANUP_MARKERS {
            let there = [&working_directory[..], b"tmp"].map(|dir| join(dir, name.as_bytes()));
            if there.iter().any(|path| tree.lookup(path).is_some()) {
                markers.insert((*name).to_owned());
            }
        }
        let kept = Kept {
            markers,
            allowed: hygiene::patterns(&recipe.amiforge.hygiene.allow)
                .or_fail(ErrorKind::Internal, || "the allowed paths".to_owned())?,
            working_directory,
        };
        for path in clean(tree, &kept) {
            self.warn(format!(
                "/{} is not in the image: the clean-up of Image Builder removes it; skip_cleanup_ssh_files in the working directory, or its path in amiforge.hygiene.allow of the recipe, keeps it",
                crate::shown::path(&path)
            ));
        }
        if let Some(ino) = tree.lookup(MACHINE_ID) {
            tree.update(ino, |inode| inode.kind = Kind::File(Content::default()))
                .or_fail(ErrorKind::Failed, || "the tree is full".to_owned())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use amiforge_tree::{Inode, Stat};
    use amiforge_types::Timestamp;

    use super::*;

    const FILES: &[&str] = &[
        "etc/hostname",
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_rsa_key.pub",
        "etc/ssh/sshd_config",
        "etc/sudoers.d/90-cloud-init-users",
        "etc/sudoers.d/mine",
        "home/a/.ssh/authorized_keys",
        "home/b/.ssh/authorized_keys",
        "home/b/.ssh/config",
        "root/.ssh/authorized_keys",
        "srv/TOE_2026/console.log",
        "srv/TOEs",
        "srv/perform_cleanup",
        "var/lib/cloud/instances/i/x",
        "var/lib/dhcp/dhclient.leases",
        "var/log/amazon/ssm/errors.log",
        "var/log/boot.log",
        "var/log/dpkg.log",
        "var/log/sa/sa01",
        "var/log/sa/sar01",
    ];

    fn left(markers: &[&str], allow: &[&str]) -> (Vec<String>, usize) {
        let stat = Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        let mut tree = Tree::new(stat);
        let mut all: Vec<String> = FILES.iter().map(|path| (*path).to_owned()).collect();
        all.extend(markers.iter().map(|name| format!("srv/{name}")));
        for path in &all {
            for (at, _) in path.match_indices('/') {
                if tree.lookup(&path.as_bytes()[..at]).is_none() {
                    let dir = Inode::new(stat, Kind::Dir);
                    tree.insert(&path.as_bytes()[..at], dir).unwrap();
                }
            }
            let file = Inode::new(stat, Kind::File(Content::bytes(b"x".as_slice())));
            tree.insert(path.as_bytes(), file).unwrap();
        }
        let allow: Vec<String> = allow.iter().map(|path| (*path).to_owned()).collect();
        let kept = Kept {
            markers: markers.iter().map(|name| (*name).to_owned()).collect(),
            allowed: hygiene::patterns(&allow).unwrap(),
            working_directory: b"srv".to_vec(),
        };
        let logins = clean(&mut tree, &kept).len();
        let files = tree
            .walk()
            .into_iter()
            .filter(|(_, ino)| !tree.is_dir(*ino));
        let names = files.map(|(path, _)| String::from_utf8(path).unwrap());
        (names.collect(), logins)
    }

    #[test]
    fn what_the_service_removes_is_removed() {
        let stays = [
            "etc/ssh/sshd_config",
            "etc/sudoers.d/mine",
            "home/b/.ssh/config",
            "srv/TOEs",
            "var/log/dpkg.log",
        ];
        assert_eq!(left(&[], &[]), (stays.map(str::to_owned).to_vec(), 3));
    }

    #[test]
    fn a_marker_keeps_its_section_and_goes_itself() {
        let (all, _) = left(&[], &[]);
        for (marker, kept) in [
            (
                "skip_cleanup_cloudinit_files",
                "etc/sudoers.d/90-cloud-init-users var/lib/cloud/instances/i/x",
            ),
            ("skip_cleanup_instance_files", "etc/hostname"),
            (
                "skip_cleanup_ssh_files",
                "etc/ssh/ssh_host_rsa_key etc/ssh/ssh_host_rsa_key.pub home/a/.ssh/authorized_keys \
                 home/b/.ssh/authorized_keys root/.ssh/authorized_keys",
            ),
            ("skip_cleanup_instance_log_files", "var/log/boot.log"),
            ("skip_cleanup_toe_files", "srv/TOE_2026/console.log"),
            (
                "skip_cleanup_ssm_log_files",
                "var/log/amazon/ssm/errors.log",
            ),
        ] {
            let (left, _) = left(&[marker], &[]);
            let more: Vec<_> = left.iter().filter(|path| !all.contains(path)).collect();
            let kept: Vec<&str> = kept.split_whitespace().collect();
            assert_eq!(more, kept, "{marker}");
        }
        assert_eq!(CLEANUP_MARKERS.len(), 6);
    }

    #[test]
    fn logins_that_the_recipe_allows_stay() {
        let (left, logins) = left(&[], &["/home/*/.ssh/authorized_keys"]);
        assert_eq!(logins, 1);
        assert!(left.contains(&"home/a/.ssh/authorized_keys".to_owned()));
        assert!(!left.contains(&"root/.ssh/authorized_keys".to_owned()));
    }

    #[test]
    fn only_what_no_marker_keeps_is_dropped_from_every_layer() {
        for path in [
            "tmp/a/b",
            "run/x",
            "root/.bash_history",
            "etc/ssh/ssh_host_rsa_key",
            "var/lib/cloud/seed/x",
            "var/log/journal/id/system.journal",
        ] {
            assert!(is_dropped(path.as_bytes()), "{path}");
        }
        for path in [
            "tmp",
            "tmpx/a",
            "etc/hostname",
            "etc/ssh/sshd_config",
            "root/.ssh/authorized_keys",
            "root/.bash_history2",
        ] {
            assert!(!is_dropped(path.as_bytes()), "{path}");
        }
    }
}
