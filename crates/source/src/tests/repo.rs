//! A signed repository in a folder, made with the real tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use amiforge_types::{Arch, Digest, Timestamp};

use crate::apt::http::Patience;
use crate::{Context, DebianRequest, SourceEvent};

/// 2026-01-02T03:04:05Z, the time at which everything here happens.
pub(super) const NOW: i64 = 1_767_323_045;
pub(super) const DATE: &str = "Fri, 02 Jan 2026 03:00:00 UTC";
pub(super) const LATER: &str = "Fri, 09 Jan 2026 03:00:00 UTC";
pub(super) const EARLIER: &str = "Thu, 01 Jan 2026 03:00:00 UTC";

/// Short pauses, so that failures are tried again at once.
pub(super) const HASTY: Patience = Patience {
    answer: Duration::from_secs(5),
    body: Duration::from_secs(2),
    attempts: 3,
    pause: Duration::from_millis(5),
};

pub(super) struct Repo {
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Repo {
    /// The packages of `fixtures/repos/tiny`, signed with an Ed25519 key of a year's life.
    pub(super) fn new() -> Self {
        let repo = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir_all(repo.path("gnupg")).unwrap();
        run(Command::new("chmod").arg("700").arg(repo.path("gnupg")));
        repo.key("good@example.org", "ed25519", "1y", "2025-12-01");
        repo.export("good@example.org", "keys/good.gpg");
        repo.publish(&Self::fixture());
        repo
    }

    /// The text of `fixtures/repos/tiny`.
    pub(super) fn fixture() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/repos/tiny/packages");
        std::fs::read_to_string(path).unwrap()
    }

    /// Makes these packages all that the archive has.
    pub(super) fn publish(&self, text: &str) {
        for old in ["repo/pool", "build"] {
            let _ = std::fs::remove_dir_all(self.path(old));
        }
        let mut index = String::new();
        for paragraph in text.split("\n\n").filter(|p| !p.trim().is_empty()) {
            index.push_str(&self.package(paragraph));
            index.push('\n');
        }
        self.index(&index);
        self.release("test", DATE, Some(LATER));
        self.sign(&["good@example.org"]);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gpg(&self, faked: &str) -> Command {
        let mut command = Command::new("gpg");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .args(["--batch", "--yes", "--homedir"])
            .arg(self.path("gnupg"));
        command.args([
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--faked-system-time",
            faked,
        ]);
        command
    }

    pub(super) fn key(&self, name: &str, algorithm: &str, life: &str, born: &str) {
        run(self
            .gpg(&format!("{}T000000!", born.replace('-', "")))
            .args(["--quick-generate-key", name, algorithm, "sign", life]));
    }

    pub(super) fn export(&self, name: &str, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(self
            .gpg("20260102T030000!")
            .arg("-o")
            .arg(to)
            .args(["--export", name]));
    }

    /// Imports exported keys into a keyring file `to`, as an administrator keeps one; gives its packets as gpg lists them.
    pub(super) fn keep(&self, exported: &str, to: &str) -> String {
        let file = self.path(to);
        let _ = std::fs::remove_file(&file);
        let gpg = || {
            let mut command = self.gpg("20260102T030000!");
            command
                .args([
                    "--no-auto-check-trustdb",
                    "--no-default-keyring",
                    "--keyring",
                ])
                .arg(&file);
            command
        };
        // An empty file is taken for a keyring of the old form, which has trust packets.
        std::fs::write(&file, b"").unwrap();
        run(gpg().arg("--import").arg(self.path(exported)));
        run(gpg().arg("--list-packets").arg(&file))
    }

    pub(super) fn revoke(&self, name: &str) {
        let listed = run(self
            .gpg("20260102T030000!")
            .args(["--with-colons", "--list-keys", name]));
        let fingerprint = listed
            .lines()
            .find_map(|l| l.strip_prefix("fpr:::::::::"))
            .unwrap()
            .trim_end_matches(':')
            .to_owned();
        let file = self.path(&format!("gnupg/openpgp-revocs.d/{fingerprint}.rev"));
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace(":-----BEGIN", "-----BEGIN");
        std::fs::write(&file, text).unwrap();
        run(self.gpg("20260102T030000!").arg("--import").arg(&file));
    }

    /// Builds one package, and gives its paragraph of the index. What lies in `DEBIAN/` is a script.
    pub(super) fn package(&self, paragraph: &str) -> String {
        let (control, files) = paragraph.split_once("\nFiles:\n").unwrap();
        let field = |name: &str| {
            control
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{name}: ")))
                .unwrap()
                .to_owned()
        };
        let root = self.path(&format!("build/{}", field("Package")));
        std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
        std::fs::write(
            root.join("DEBIAN/control"),
            format!("{}\n", control.trim_start()),
        )
        .unwrap();
        let mut conffiles = String::new();
        for line in files.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if let Some((path, target)) = line.split_once(" -> ") {
                std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(target, root.join(path)).unwrap();
                continue;
            }
            let (path, text) = line.split_once(" = ").unwrap();
            if path.ends_with('/') {
                std::fs::create_dir_all(root.join(path)).unwrap();
                continue;
            }
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            let content = match text.strip_prefix("@random ") {
                Some(size) => noise(size.parse().unwrap()),
                None => unescaped(text).into_bytes(),
            };
            std::fs::write(root.join(path), content).unwrap();
            if path.starts_with("DEBIAN/") {
                run(Command::new("chmod").arg("755").arg(root.join(path)));
            }
            if path.starts_with("etc/") {
                conffiles.push_str(&format!("/{path}\n"));
            }
        }
        if !conffiles.is_empty() {
            std::fs::write(root.join("DEBIAN/conffiles"), conffiles).unwrap();
        }
        let name = format!(
            "{}_{}.deb",
            field("Package"),
            field("Version").replace(':', ".")
        );
        let filename = format!("pool/{name}");
        std::fs::create_dir_all(self.path("repo/pool")).unwrap();
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(self.path(&format!("repo/{filename}")))
            .env("SOURCE_DATE_EPOCH", "1700000000"));
        let bytes = std::fs::read(self.path(&format!("repo/{filename}"))).unwrap();
        format!(
            "{}\nFilename: {filename}\nSize: {}\nSHA256: {}\n",
            control.trim(),
            bytes.len(),
            Digest::of(&bytes)
        )
    }

    pub(super) fn index(&self, text: &str) {
        let dir = self.path("repo/dists/test/main/binary-amd64");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("Packages"), text).unwrap();
        let _ = std::fs::remove_file(dir.join("Packages.xz"));
        run(Command::new("xz").arg("-k").arg(dir.join("Packages")));
    }

    /// Writes the Release file; `sign` comes after.
    pub(super) fn release(&self, suite: &str, date: &str, valid_until: Option<&str>) {
        let mut text = format!("Origin: Tiny\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n");
        if let Some(until) = valid_until {
            text.push_str(&format!("Valid-Until: {until}\n"));
        }
        text.push_str("Architectures: amd64\nComponents: main\nSHA256:\n");
        for name in ["Packages", "Packages.xz"] {
            let path = format!("main/binary-amd64/{name}");
            let bytes = std::fs::read(self.path(&format!("repo/dists/test/{path}"))).unwrap();
            text.push_str(&format!(" {} {} {path}\n", Digest::of(&bytes), bytes.len()));
        }
        std::fs::write(self.path("Release"), text).unwrap();
    }

    pub(super) fn sign(&self, keys: &[&str]) {
        let mut gpg = self.gpg("20260102T030000!");
        for key in keys {
            gpg.args(["-u", key]);
        }
        run(gpg
            .arg("-o")
            .arg(self.path("repo/dists/test/InRelease"))
            .arg("--clearsign")
            .arg(self.path("Release")));
    }

    pub(super) fn request(&self, mirror: &str, packages: &[&str]) -> DebianRequest {
        let mut request = DebianRequest::new("test", Arch::X86_64);
        request.variant = crate::Variant::Essential;
        request.apt.mirror = Some(mirror.to_owned());
        request.apt.keyring = Some(self.path("keys/good.gpg"));
        request.packages = Some(packages.iter().map(|p| (*p).to_owned()).collect());
        request
    }

    pub(super) fn file_uri(&self) -> String {
        format!("file://{}", self.path("repo").display())
    }
}

/// `\\n` is the end of a line, `\\` and any other character that character.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            other => out.push(other),
        }
    }
    out
}

/// Bytes that do not compress, always the same.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(size)
    .collect()
}

/// A place to resolve in: empty host, own cache, all events kept.
pub(super) struct Place {
    dir: tempfile::TempDir,
    pub(super) events: Mutex<Vec<SourceEvent>>,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("host/etc/apt")).unwrap();
        Self {
            dir,
            events: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn with<T>(&self, offline: bool, use_it: impl FnOnce(&Context<'_>) -> T) -> T {
        self.with_at(NOW, offline, use_it)
    }

    /// The same at another time.
    pub(super) fn with_at<T>(
        &self,
        now: i64,
        offline: bool,
        use_it: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        let events = |event| self.events.lock().unwrap().push(event);
        use_it(&Context {
            host_root: &self.path("host"),
            cache: &self.path("cache"),
            now: Timestamp::from_secs(now),
            offline,
            jobs: 2,
            proxies: &crate::Proxies::default(),
            events: &events,
        })
    }
}
