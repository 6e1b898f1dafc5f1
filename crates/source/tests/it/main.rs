//! The solver against apt itself, on the archives as they are now.
//!
//! Both read the same Release files (their digests are compared), apt from a folder of its own with
//! an empty package database, and both are asked for the same packages. The two sets of name and
//! version have to be equal. What is downloaded stays in the build folder for the next run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test: what fails shall show"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amiforge_source::{Context, DebianRequest, ResolvedDebian, SourceEvent, resolve};
use amiforge_types::{Arch, Digest, Timestamp};

/// Lists that every suite has to agree on: plain ones, a dependency on what several packages provide
/// (`mail-transport-agent`), alternatives with and without a hint, versions that must be equal,
/// conflicting alternatives, Multi-Arch fields, large sets.
const LISTS: &[&[&str]] = &[
    &["nginx"],
    &["postgresql"],
    &["python3-pip", "git", "emacs-nox"],
    &["docker.io", "podman"],
    &["build-essential", "libcurl4-openssl-dev", "golang"],
    &["bsd-mailx"],
    &["bsd-mailx", "nullmailer"],
    &["apache2", "php", "mariadb-server", "wordpress"],
    &["sysvinit-core", "openssh-server", "dbus-x11", "gvfs"],
    &["linux-image-amd64", "cryptsetup-initramfs", "firefox-esr"],
];

#[test]
fn bookworm_as_apt() {
    compare("bookworm", &[&["openjdk-17-jre-headless", "tomcat10"]]);
}

#[test]
fn trixie_as_apt() {
    compare("trixie", &[&["openjdk-21-jre-headless", "tomcat11"]]);
}

/// Compares the default set, [`LISTS`] and `more`; the failure shows every difference.
fn compare(suite: &str, more: &[&[&str]]) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("as-apt-{suite}"));
    std::fs::create_dir_all(&dir).unwrap();
    // Downloads are kept, answers of an earlier solver are not.
    let _ = std::fs::remove_dir_all(dir.join("ours/resolved"));
    let (apt, moment) = Apt::of(&dir, suite);

    let mut differences = Vec::new();
    let default = request(suite, None);
    let ours = ours(&dir, &default, moment);
    assert!(
        ours.packages.len() > 150,
        "the default set is a whole system"
    );
    // The default list is an implementation's own; that apt agrees on what it needs is the point.
    let asked: Vec<&str> = ours
        .packages
        .iter()
        .filter(|p| !p.auto)
        .map(|p| p.name.as_str())
        .collect();
    report(
        &mut differences,
        "default",
        &set(&ours),
        &apt.install(&asked),
    );

    for list in LISTS.iter().chain(more) {
        let ours = set(&self::ours(&dir, &request(suite, Some(list)), moment));
        let mut asked = vec!["?essential", "usr-is-merged", "apt"];
        asked.extend_from_slice(list);
        report(
            &mut differences,
            &list.join(" "),
            &ours,
            &apt.install(&asked),
        );
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn report(out: &mut Vec<String>, what: &str, ours: &BTreeSet<String>, apt: &BTreeSet<String>) {
    if ours != apt {
        let only_ours: Vec<_> = ours.difference(apt).collect();
        let only_apt: Vec<_> = apt.difference(ours).collect();
        out.push(format!(
            "{what}: only ours {only_ours:?}, only apt's {only_apt:?}"
        ));
    }
}

fn request(suite: &str, packages: Option<&[&str]>) -> DebianRequest {
    let mut request = DebianRequest::new(suite, Arch::X86_64);
    request.packages = packages.map(|list| list.iter().map(|p| (*p).to_owned()).collect());
    request
}

fn set(resolved: &ResolvedDebian) -> BTreeSet<String> {
    resolved
        .packages
        .iter()
        .map(|p| format!("{}={}", p.name, p.version))
        .collect()
}

/// Our resolution. Network trouble is waited out by the crate; what it gives up on is tried once more.
fn ours(dir: &Path, request: &DebianRequest, now: Timestamp) -> ResolvedDebian {
    let cache = dir.join("ours");
    let events = |_: SourceEvent| {};
    let ctx = Context {
        host_root: Path::new("/"),
        cache: &cache,
        now,
        offline: false,
        jobs: 2,
        proxies: &amiforge_source::Proxies::default(),
        events: &events,
    };
    resolve(request, &ctx)
        .or_else(|_| resolve(request, &ctx))
        .unwrap_or_else(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(e) = source {
                text.push_str(&format!(": {e}"));
                source = e.source();
            }
            panic!("{:?}: {text}", request.packages)
        })
}

/// An apt that knows nothing of this machine's packages.
struct Apt {
    root: PathBuf,
}

impl Apt {
    /// Sets it up to read what our resolution of the suite read, byte for byte, and gives the moment
    /// of that resolution.
    fn of(dir: &Path, suite: &str) -> (Self, Timestamp) {
        let apt = Self {
            root: dir.join("apt"),
        };
        for sub in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg",
        ] {
            std::fs::create_dir_all(apt.root.join(sub)).unwrap();
        }
        std::fs::write(apt.root.join("var/lib/dpkg/status"), "").unwrap();
        // The folder has to be known before apt looks for the machine's own configuration.
        let conf = format!(
            "Dir \"{}\";\nDir::Cache::pkgcache \"pkgcache.bin\";\nDir::Cache::srcpkgcache \"srcpkgcache.bin\";\n{}",
            apt.root.display(),
            Self::transport()
        );
        std::fs::write(apt.root.join("etc/apt/apt.conf"), conf).unwrap();
        let mut shift = 0;
        for _ in 0..4 {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let now = Timestamp::from_secs(i64::try_from(clock.as_secs()).unwrap() + shift);
            let resolved = ours(dir, &request(suite, None), now);
            let sources: String = resolved
                .archives
                .iter()
                .map(|a| {
                    format!(
                        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {} {}\n",
                        a.uri,
                        a.suite,
                        a.components.join(" ")
                    )
                })
                .collect();
            std::fs::write(apt.root.join("etc/apt/sources.list"), sources).unwrap();
            let (ok, _, err) = apt.get(&["update"]);
            let read: BTreeSet<Digest> = std::fs::read_dir(apt.root.join("var/lib/apt/lists"))
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.to_string_lossy().ends_with("_InRelease"))
                .map(|p| Digest::of(&std::fs::read(p).unwrap()))
                .collect();
            let wanted = resolved.archives.iter().map(|a| a.in_release).collect();
            if ok && read == wanted {
                return (apt, now);
            }
            eprintln!("apt and we do not read the same archive yet: {err}");
            // The archive moved on between the two: ask for the Release files anew.
            shift += 61;
            std::thread::sleep(Duration::from_secs(2));
        }
        panic!("apt never read the Release files that we read");
    }

    /// How this machine reaches archives (proxies), in the form of apt's configuration.
    fn transport() -> String {
        let output = Command::new("apt-config")
            .arg("dump")
            .env("LC_ALL", "C")
            .output()
            .expect("apt-config runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("Acquire::http"))
            .map(|l| format!("{l}\n"))
            .collect()
    }

    fn get(&self, arguments: &[&str]) -> (bool, String, String) {
        let root = self.root.display();
        let output = Command::new("apt-get")
            .arg(format!("-oDir={root}"))
            .arg(format!("-oDir::State::status={root}/var/lib/dpkg/status"))
            .args([
                "-oAPT::Architecture=amd64",
                "-oAPT::Architectures=amd64",
                "-oAPT::Sandbox::User=root",
                "-oAPT::Get::Assume-Yes=false",
                "-oAcquire::Languages=none",
                "-oAcquire::Retries=5",
                "-q",
                "--no-install-recommends",
            ])
            .args(arguments)
            .env("APT_CONFIG", self.root.join("etc/apt/apt.conf"))
            .env("LC_ALL", "C")
            .output()
            .expect("apt-get runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// What apt would install into an empty system.
    fn install(&self, packages: &[&str]) -> BTreeSet<String> {
        let mut arguments = vec!["--simulate", "install"];
        arguments.extend_from_slice(packages);
        let (ok, out, err) = self.get(&arguments);
        assert!(ok, "apt refuses {packages:?}: {out}{err}");
        out.lines()
            .filter_map(|l| l.strip_prefix("Inst "))
            .map(|l| {
                let (name, rest) = l.split_once(" (").expect("a version after the name");
                let version = rest.split_whitespace().next().unwrap();
                format!("{name}={version}")
            })
            .collect()
    }
}
