use amiforge_testkit::{Fault, FileServer};

use super::repo::{DATE, EARLIER, HASTY, LATER, Place, Repo};
use crate::fetch::fetch_with;
use crate::resolve::resolve_with;
use crate::{ResolvedDebian, SourceError, SourceEvent};

fn try_resolve(repo: &Repo, place: &Place) -> Result<ResolvedDebian, SourceError> {
    let request = repo.request(&repo.file_uri(), &["web"]);
    place.with(false, |ctx| resolve_with(&request, ctx, HASTY))
}

/// What went wrong with a package.
fn of_package(error: SourceError, name: &str) -> SourceError {
    match error {
        SourceError::Package {
            package, source, ..
        } if package == name => *source,
        other => panic!("{other}"),
    }
}

#[test]
fn a_good_archive_resolves_with_dependencies_alternatives_and_provides() {
    let repo = Repo::new();
    let resolved = try_resolve(&repo, &Place::new()).unwrap();
    let got: Vec<_> = resolved
        .packages
        .iter()
        .map(|p| (p.name.as_str(), p.version.as_str(), p.stage, p.auto))
        .collect();
    assert_eq!(
        got,
        [
            ("libone", "1.2-1", 2, true),
            ("base", "1.0", 2, false),
            ("server-a", "1", 3, true),
            ("web", "2:3.0", 3, false)
        ]
    );
    assert_eq!(resolved.newest.to_string(), "2026-01-02T03:00:00Z");
    // A lock survives being written down.
    let json = serde_json::to_string(&resolved).unwrap();
    assert_eq!(
        serde_json::from_str::<ResolvedDebian>(&json).unwrap(),
        resolved
    );
}

#[test]
fn the_chain_of_a_conflict_is_told() {
    let repo = Repo::new();
    let request = repo.request(&repo.file_uri(), &["broken"]);
    let error = Place::new()
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap_err();
    let SourceError::Unresolvable(why) = error else {
        panic!("{error}")
    };
    assert_eq!(
        why.to_string(),
        "broken needs absent (>= 2): absent is not in the archive"
    );
    let request = repo.request(&repo.file_uri(), &["nosuch"]);
    let error = Place::new()
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap_err();
    assert!(matches!(error, SourceError::Unresolvable(_)), "{error}");
}

#[test]
fn one_good_signature_of_several_suffices_and_rsa_works() {
    let repo = Repo::new();
    repo.key("other@example.org", "rsa3072", "1y", "2025-12-01");
    repo.sign(&["other@example.org", "good@example.org"]);
    try_resolve(&repo, &Place::new()).unwrap();
    repo.export("other@example.org", "keys/good.gpg");
    try_resolve(&repo, &Place::new()).unwrap();
}

#[test]
fn bad_signatures_are_refused() {
    let refused = |repo: &Repo, part: &str| {
        let place = Place::new();
        match try_resolve(repo, &place) {
            Err(SourceError::Signature { reason, .. }) => {
                assert!(reason.contains(part), "{reason}")
            }
            other => panic!("{part}: {other:?}"),
        }
        // What was not verified is not kept.
        assert_eq!(
            std::fs::read_dir(place.path("cache/releases"))
                .unwrap()
                .count(),
            0
        );
    };
    let repo = Repo::new();
    repo.key("other@example.org", "ed25519", "1y", "2025-12-01");
    repo.sign(&["other@example.org"]);
    refused(&repo, "not in the keyring");

    repo.sign(&["good@example.org"]);
    let in_release = repo.path("repo/dists/test/InRelease");
    let text = std::fs::read_to_string(&in_release).unwrap();
    std::fs::write(&in_release, text.replace("Origin: Tiny", "Origin: Tony")).unwrap();
    refused(&repo, "was changed");

    repo.sign(&["good@example.org"]);
    repo.revoke("good@example.org");
    repo.export("good@example.org", "keys/good.gpg");
    refused(&repo, "revoked");

    std::fs::copy(repo.path("Release"), &in_release).unwrap();
    refused(&repo, "not clear-signed");
}

/// GnuPG's own keyring file, as Ubuntu ships it, has trust packets between the parts of a key.
#[test]
fn a_keyring_that_gnupg_uses_itself_is_read() {
    let repo = Repo::new();
    repo.key("good2@example.org", "rsa2048", "never", "2025-12-01");
    repo.export("good2@example.org", "plain.gpg");
    let keyring = repo.keep("plain.gpg", "keys/good.gpg");
    assert!(keyring.contains(":trust packet:"), "{keyring}");
    repo.sign(&["good2@example.org"]);
    try_resolve(&repo, &Place::new()).unwrap();
}

#[test]
fn an_expired_key_is_refused() {
    let repo = Repo::new();
    // Alive when it signs (gpg's clock is 03:00:00), expired five minutes later.
    repo.key(
        "brief@example.org",
        "ed25519",
        "seconds=97260",
        "2026-01-01",
    );
    repo.export("brief@example.org", "keys/good.gpg");
    repo.sign(&["brief@example.org"]);
    match try_resolve(&repo, &Place::new()) {
        Err(SourceError::Signature { reason, .. }) => {
            assert!(reason.contains("key expired"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn dates_are_honoured_and_can_be_waived_with_a_warning() {
    let repo = Repo::new();
    repo.release("test", EARLIER, Some(DATE));
    repo.sign(&["good@example.org"]);
    assert!(matches!(
        try_resolve(&repo, &Place::new()),
        Err(SourceError::Expired { .. })
    ));
    let place = Place::new();
    let mut request = repo.request(&repo.file_uri(), &["web"]);
    request.apt.check_valid_until = Some(false);
    place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap();
    assert!(
        place
            .events
            .lock()
            .unwrap()
            .iter()
            .any(|e| matches!(e, SourceEvent::Warning(_)))
    );
    let place = Place::new();
    std::fs::write(
        place.path("host/etc/apt/apt.conf"),
        "Acquire::Check-Valid-Until \"false\";\n",
    )
    .unwrap();
    try_resolve(&repo, &place).unwrap();

    repo.release("test", LATER, None);
    repo.sign(&["good@example.org"]);
    assert!(matches!(
        try_resolve(&repo, &Place::new()),
        Err(SourceError::FromTheFuture { .. })
    ));
    repo.release("other", DATE, None);
    repo.sign(&["good@example.org"]);
    assert!(matches!(
        try_resolve(&repo, &Place::new()),
        Err(SourceError::WrongSuite { .. })
    ));
}

#[test]
fn a_changed_index_is_refused() {
    let repo = Repo::new();
    let path = repo.path("repo/dists/test/main/binary-amd64/Packages.xz");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        try_resolve(&repo, &Place::new()),
        Err(SourceError::Digest { .. } | SourceError::Download { .. })
    ));
}

#[test]
fn an_index_longer_than_its_release_file_says_is_refused() {
    let repo = Repo::new();
    // The compressed form is signed as it is, and holds more than the plain one.
    let plain = repo.path("repo/dists/test/main/binary-amd64/Packages");
    std::fs::write(&plain, "Package: base\n").unwrap();
    repo.release("test", DATE, Some(LATER));
    repo.sign(&["good@example.org"]);
    match try_resolve(&repo, &Place::new()) {
        Err(SourceError::Malformed { what, reason }) => {
            assert!(what.ends_with("Packages.xz"), "{what}");
            assert_eq!(reason, "unpacks to more than 14 bytes");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn downloads_are_resumed_after_a_cut_and_a_stall() {
    let repo = Repo::new();
    let server = FileServer::start(&repo.path("repo"));
    let place = Place::new();
    let request = repo.request(&server.url(), &["big"]);
    let resolved = place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap();
    server.fault("big_1.deb", Fault::CloseAfter(300_000), 1);
    server.fault("big_1.deb", Fault::StallAfter(50_000), 1);
    let fetched = place
        .with(false, |ctx| fetch_with(&resolved, ctx, HASTY))
        .unwrap();
    let asked: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|r| r.contains("big_1.deb"))
        .collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1].ends_with("300000-"), "{asked:?}");
    assert_eq!(fetched.downloaded, resolved.download_bytes());
    // Again: nothing to do, also without the network.
    drop(server);
    let again = place
        .with(true, |ctx| fetch_with(&resolved, ctx, HASTY))
        .unwrap();
    assert_eq!(again.downloaded, 0);
    assert_eq!(
        place
            .with(true, |ctx| resolve_with(&request, ctx, HASTY))
            .unwrap(),
        resolved
    );
}

#[test]
fn a_garbled_package_is_fetched_again_and_refused_when_it_stays_garbled() {
    let repo = Repo::new();
    let server = FileServer::start(&repo.path("repo"));
    let request = repo.request(&server.url(), &["big"]);
    let place = Place::new();
    let resolved = place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap();
    server.fault("big_1.deb", Fault::Corrupt(1000), 1);
    place
        .with(false, |ctx| fetch_with(&resolved, ctx, HASTY))
        .unwrap();

    let place = Place::new();
    let resolved = place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap();
    server.fault("big_1.deb", Fault::Corrupt(1000), 9);
    let error = place
        .with(false, |ctx| fetch_with(&resolved, ctx, HASTY))
        .unwrap_err();
    let error = of_package(error, "big");
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
    let kept = place.path(&format!(
        "cache/archives/{}.deb",
        resolved.package("big").unwrap().sha256
    ));
    assert!(!kept.exists());
}

#[test]
fn a_mirror_that_always_stops_half_way_ends_in_one_clear_error() {
    let repo = Repo::new();
    let server = FileServer::start(&repo.path("repo"));
    let request = repo.request(&server.url(), &["big"]);
    let place = Place::new();
    let resolved = place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap();
    server.fault("big_1.deb", Fault::CloseAfter(1000), 100);
    let error = place
        .with(false, |ctx| fetch_with(&resolved, ctx, HASTY))
        .unwrap_err();
    let error = of_package(error, "big");
    assert!(matches!(error, SourceError::Download { .. }), "{error}");
    assert!(
        place
            .events
            .lock()
            .unwrap()
            .iter()
            .any(|e| matches!(e, SourceEvent::Retry { .. }))
    );
}

#[test]
fn offline_without_a_cache_says_what_is_missing() {
    let repo = Repo::new();
    let request = repo.request("http://127.0.0.1:1/none", &["web"]);
    let error = Place::new()
        .with(true, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error}");
}
