//! The cache of verified Release files: what it saves, and what it must never let through.

use amiforge_testkit::FileServer;

use super::repo::{DATE, EARLIER, HASTY, LATER, NOW, Place, Repo};
use crate::resolve::resolve_with;
use crate::{DebianRequest, ResolvedDebian, SourceError, SourceEvent};

/// After which a cached Release file is asked for again.
const SOON: i64 = NOW + 300;

/// A repository behind HTTP, and a cache that has seen it.
struct Bench {
    repo: Repo,
    server: FileServer,
    place: Place,
    request: DebianRequest,
}

impl Bench {
    fn new() -> Self {
        let repo = Repo::new();
        let server = FileServer::start(&repo.path("repo"));
        let request = repo.request(&server.url(), &["web"]);
        let bench = Self {
            repo,
            server,
            place: Place::new(),
            request,
        };
        bench.resolve(NOW, false).unwrap();
        bench
    }

    fn resolve(&self, now: i64, offline: bool) -> Result<ResolvedDebian, SourceError> {
        self.place
            .with_at(now, offline, |ctx| resolve_with(&self.request, ctx, HASTY))
    }

    /// The one file of the cache of Release files with this ending.
    fn kept(&self, ending: &str) -> std::path::PathBuf {
        let mut found = std::fs::read_dir(self.place.path("cache/releases"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == ending));
        let path = found.next().unwrap();
        assert!(found.next().is_none());
        path
    }

    fn warnings(&self) -> Vec<String> {
        let events = self.place.events.lock().unwrap();
        let text = |event: &SourceEvent| match event {
            SourceEvent::Warning(text) => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }
}

fn changed(path: &std::path::Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_fresh_file_is_neither_fetched_nor_verified_again() {
    let bench = Bench::new();
    let asked = bench.server.requests().len();
    let first = bench.resolve(NOW, false).unwrap();
    assert_eq!(bench.server.requests().len(), asked);
    assert_eq!(bench.resolve(NOW, true).unwrap(), first);
    // A record that names another key is believed for finding a lock, and finds none; the lock that is
    // made then is of what was verified.
    changed(
        &bench.kept("verified"),
        "\"fingerprint\":\"",
        "\"fingerprint\":\"00",
    );
    let locks = bench.place.path("cache/resolved");
    assert_eq!(std::fs::read_dir(&locks).unwrap().count(), 1);
    assert_eq!(bench.resolve(NOW, true).unwrap(), first);
    assert_eq!(std::fs::read_dir(&locks).unwrap().count(), 2);
}

#[test]
fn a_record_that_is_no_record_is_made_again() {
    let bench = Bench::new();
    let first = bench.resolve(NOW, false).unwrap();
    let good = std::fs::read(bench.kept("verified")).unwrap();
    for bad in ["", "{}", "\0\0\0", "[1"] {
        std::fs::write(bench.kept("verified"), bad).unwrap();
        assert_eq!(bench.resolve(NOW, true).unwrap(), first);
        assert_eq!(std::fs::read(bench.kept("verified")).unwrap(), good);
    }
    changed(&bench.kept("verified"), "\"version\":1", "\"version\":2");
    assert_eq!(bench.resolve(NOW, true).unwrap(), first);
    assert_eq!(std::fs::read(bench.kept("verified")).unwrap(), good);
}

#[test]
fn what_other_keys_verified_is_verified_anew() {
    let bench = Bench::new();
    let keyring = bench.repo.path("keys/good.gpg");
    let good = std::fs::read(&keyring).unwrap();
    bench
        .repo
        .key("other@example.org", "ed25519", "1y", "2025-12-01");
    bench.repo.export("other@example.org", "keys/good.gpg");
    for offline in [true, false] {
        let error = bench.resolve(NOW, offline).unwrap_err();
        assert!(matches!(error, SourceError::Signature { .. }), "{error}");
    }
    // A keyring with one more key is another keyring, and does.
    let mut both = std::fs::read(&keyring).unwrap();
    both.extend_from_slice(&good);
    std::fs::write(&keyring, both).unwrap();
    bench.resolve(NOW, true).unwrap();
    std::fs::write(&keyring, good).unwrap();
    bench.resolve(NOW, true).unwrap();
}

#[test]
fn a_key_revoked_since_is_refused() {
    let bench = Bench::new();
    bench.repo.revoke("good@example.org");
    bench.repo.export("good@example.org", "keys/good.gpg");
    match bench.resolve(NOW, true) {
        Err(SourceError::Signature { reason, .. }) => {
            assert!(reason.contains("revoked"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_verification_holds_no_longer_than_the_key() {
    let bench = Bench::new();
    // The key lives for a year from December 2025; without Valid-Until only it sets an end.
    bench.repo.release("test", DATE, None);
    bench.repo.sign(&["good@example.org"]);
    bench.resolve(SOON, false).unwrap();
    let after = NOW + 400 * 86_400;
    match bench.resolve(after, true) {
        Err(SourceError::Signature { reason, .. }) => {
            assert!(reason.contains("expired"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    // Nor does it hold before it was made: a clock that was wrong then says nothing now.
    bench.resolve(NOW - 3600, true).unwrap_err();
}

#[test]
fn valid_until_is_looked_at_each_time() {
    let bench = Bench::new();
    let after = NOW + 8 * 86_400;
    for offline in [true, false] {
        let error = bench.resolve(after, offline).unwrap_err();
        assert!(matches!(error, SourceError::Expired { .. }), "{error}");
    }
    let mut waived = bench.request.clone();
    waived.apt.check_valid_until = Some(false);
    bench
        .place
        .with_at(after, true, |ctx| resolve_with(&waived, ctx, HASTY))
        .unwrap();
    // The archive has a new one by then.
    bench
        .repo
        .release("test", LATER, Some("Fri, 16 Jan 2026 03:00:00 UTC"));
    bench.repo.sign(&["good@example.org"]);
    bench.resolve(after, false).unwrap();
}

#[test]
fn changed_bytes_of_the_cache_are_not_used() {
    let bench = Bench::new();
    let first = bench.resolve(NOW, false).unwrap();
    let path = bench.kept("inrelease");
    let good = std::fs::read(&path).unwrap();
    changed(&path, "Origin: Tiny", "Origin: Tony");
    let error = bench.resolve(NOW, true).unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error}");
    // With the network it is fetched anew.
    assert_eq!(bench.resolve(NOW, false).unwrap(), first);
    assert_eq!(std::fs::read(&path).unwrap(), good);

    // Also when the digest beside it was made to fit: then the signature does not.
    changed(&path, "Origin: Tiny", "Origin: Tony");
    let digest = |bytes: &[u8]| amiforge_types::Digest::of(bytes).hex();
    let new = digest(&std::fs::read(&path).unwrap());
    changed(&bench.kept("json"), &digest(&good), &new);
    let error = bench.resolve(NOW, true).unwrap_err();
    assert!(matches!(error, SourceError::Signature { .. }), "{error}");
    // And when the record was made to fit too: the list of files is read from what is signed only.
    changed(&bench.kept("verified"), &digest(&good), &new);
    std::fs::remove_dir_all(bench.place.path("cache/resolved")).unwrap();
    let error = bench.resolve(NOW, true).unwrap_err();
    assert!(matches!(error, SourceError::Signature { .. }), "{error}");
}

#[test]
fn an_older_file_does_not_take_the_place_of_a_newer_one() {
    let bench = Bench::new();
    let first = bench.resolve(NOW, false).unwrap();
    let newer = std::fs::read(bench.kept("inrelease")).unwrap();
    bench.repo.release("test", EARLIER, Some(LATER));
    bench.repo.sign(&["good@example.org"]);
    for now in [SOON, SOON + 300] {
        assert_eq!(bench.resolve(now, false).unwrap(), first);
        assert_eq!(std::fs::read(bench.kept("inrelease")).unwrap(), newer);
    }
    let warnings = bench.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("older than what was there before"),
        "{warnings:?}"
    );

    // The newer one is not kept beyond its time,
    let after = NOW + 8 * 86_400;
    let error = bench.resolve(after, false).unwrap_err();
    assert!(matches!(error, SourceError::Expired { .. }), "{error}");
    // nor for keys that do not vouch for it,
    bench
        .repo
        .key("other@example.org", "ed25519", "1y", "2025-12-01");
    bench.repo.export("other@example.org", "keys/good.gpg");
    bench.repo.sign(&["other@example.org"]);
    let other = bench.resolve(SOON + 600, false).unwrap();
    assert_ne!(other.newest, first.newest);
    // and one that is newer still takes its place.
    bench.repo.release("test", DATE, Some(LATER));
    bench.repo.sign(&["other@example.org"]);
    assert_eq!(
        bench.resolve(SOON + 900, false).unwrap().newest,
        first.newest
    );
}
