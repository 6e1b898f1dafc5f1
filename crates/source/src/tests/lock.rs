//! A lock repeats what it was made from, whatever the archive has become.

use amiforge_testkit::{Fault, FileServer};
use amiforge_tree::DumpContent;
use amiforge_types::BlobTable;
use serde_json::Value;

use super::repo::{HASTY, Place, Repo};
use crate::fetch::fetch_with;
use crate::resolve::resolve_with;
use crate::{LockError, ResolvedDebian, SourceError, unpack};

const OLD: &str = "Package: web\nVersion: 2:3.0\n";
const NEW: &str = "Package: web\nVersion: 2:3.1\n";

fn resolve(repo: &Repo, place: &Place, mirror: &str) -> ResolvedDebian {
    let request = repo.request(mirror, &["web"]);
    place
        .with(false, |ctx| resolve_with(&request, ctx, HASTY))
        .unwrap()
}

/// The layer that a lock unpacks to, as text.
fn layer(place: &Place, lock: &ResolvedDebian, offline: bool) -> Result<String, SourceError> {
    place.with(offline, |ctx| {
        let debs = fetch_with(lock, ctx, HASTY)?;
        let mut blobs = BlobTable::new();
        let diff = unpack(lock, &debs, tempfile::tempfile().unwrap(), &mut blobs, ctx)?;
        let root = amiforge_tree::Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: amiforge_types::Timestamp::default(),
        };
        let tree = amiforge_tree::Tree::from_layers(root, [&diff]).unwrap();
        Ok(tree.dump(DumpContent::Digest(&blobs)).unwrap())
    })
}

fn written(lock: &ResolvedDebian) -> Vec<u8> {
    serde_json::to_vec_pretty(lock).unwrap()
}

fn of_web(error: SourceError) -> SourceError {
    match error {
        SourceError::Package {
            package, source, ..
        } if package == "web" => *source,
        other => panic!("{other}"),
    }
}

#[test]
fn a_lock_gives_the_old_bytes_after_the_archive_has_moved_on() {
    let repo = Repo::new();
    let server = FileServer::start(&repo.path("repo"));
    let place = Place::new();
    let first = resolve(&repo, &place, &server.url());
    let old = layer(&place, &first, false).unwrap();
    let lock = written(&first);

    repo.publish(&Repo::fixture().replace(OLD, NEW));
    let later = Place::new();
    let second = resolve(&repo, &later, &server.url());
    assert_eq!(second.package("web").unwrap().version, "2:3.1");
    assert_ne!(second.digest(), first.digest());
    assert_ne!(layer(&later, &second, false).unwrap(), old);

    let again = ResolvedDebian::from_lock(&lock).unwrap();
    assert_eq!(again, first);
    assert_eq!(
        written(&again),
        lock,
        "the lock of a locked build is the same lock"
    );
    // From the cache alone, and nobody is asked.
    let asked = server.requests().len();
    assert_eq!(layer(&place, &again, true).unwrap(), old);
    assert_eq!(server.requests().len(), asked);
    // A cache that lacks the package: the archive has dropped it.
    let error = layer(&later, &again, false).unwrap_err();
    assert!(matches!(of_web(error), SourceError::Gone { .. }));
    let error = layer(&Place::new(), &again, true).unwrap_err();
    assert!(
        matches!(&error, SourceError::Package { source, .. } if matches!(**source, SourceError::Offline { .. })),
        "{error}"
    );
}

#[test]
fn a_lock_is_fetched_from_where_it_says_while_the_archive_has_the_files() {
    let repo = Repo::new();
    let server = FileServer::start(&repo.path("repo"));
    let lock = resolve(&repo, &Place::new(), &server.url());
    let before = server.requests().len();
    layer(&Place::new(), &lock, false).unwrap();
    let asked = server.requests().split_off(before);
    assert_eq!(asked.len(), lock.packages.len(), "{asked:?}");
    assert!(asked.iter().all(|r| r.contains("/pool/")), "{asked:?}");
}

/// The host's own mirror has the same package under the same path.
#[test]
fn a_mirror_that_is_gone_is_replaced_by_one_that_has_the_same_bytes() {
    let repo = Repo::new();
    let mut lock = resolve(&repo, &Place::new(), &repo.file_uri());
    let server = FileServer::start(&repo.path("repo"));
    let gone = "http://127.0.0.1:1/debian".to_owned();
    for package in &mut lock.packages {
        package.uri.clone_from(&gone);
    }
    lock.asked.mirror = Some(server.url());
    let place = Place::new();
    let fetched = place
        .with(false, |ctx| fetch_with(&lock, ctx, HASTY))
        .unwrap();
    assert_eq!(fetched.downloaded, lock.download_bytes());

    // Other bytes under the path are no replacement, and the error is about the archive of the lock.
    server.fault(".deb", Fault::Corrupt(100), 100);
    let error = Place::new()
        .with(false, |ctx| fetch_with(&lock, ctx, HASTY))
        .unwrap_err();
    let SourceError::Package {
        elsewhere, source, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(elsewhere, [server.url()]);
    assert!(matches!(*source, SourceError::Download { .. }), "{source}");
}

#[test]
fn what_changed_in_the_recipe_since_is_told() {
    let repo = Repo::new();
    let request = repo.request(&repo.file_uri(), &["web"]);
    let lock = resolve(&repo, &Place::new(), &repo.file_uri());
    assert_eq!(lock.unlike(&request), Vec::<String>::new());
    let told = |change: &dyn Fn(&mut crate::DebianRequest)| {
        let mut request = request.clone();
        change(&mut request);
        lock.unlike(&request).join("\n")
    };
    for (got, wanted) in [
        (
            told(&|r| r.suite = "other".to_owned()),
            "the lock is of debian:test, the recipe says debian:other",
        ),
        (
            told(&|r| r.packages = Some(vec!["big".to_owned()])),
            "amiforge.apt.packages: big is new, web is gone",
        ),
        (
            told(&|r| r.packages = None),
            "amiforge.apt.packages: the lock has a list, the recipe has none",
        ),
        (
            told(&|r| r.include = vec!["big".to_owned()]),
            "amiforge.apt.include: big is new",
        ),
        (
            told(&|r| r.variant = crate::Variant::Standard),
            "amiforge.apt.variant is another",
        ),
        (
            told(&|r| r.apt.mirror = Some("http://user:secret@host".to_owned())),
            "amiforge.apt.mirror is another",
        ),
        (
            told(&|r| r.apt.snapshot = Some("20260101T000000Z".to_owned())),
            "amiforge.apt.snapshot is another",
        ),
    ] {
        assert_eq!(got, wanted);
    }
    // The keyring's place on this host is not part of what was asked for.
    assert_eq!(told(&|r| r.apt.keyring = None), "");
}

#[test]
fn a_lock_that_is_cut_off_edited_or_of_another_format_is_refused_with_the_place() {
    let repo = Repo::new();
    let bytes = written(&resolve(&repo, &Place::new(), &repo.file_uri()));
    for cut in (0..bytes.len()).step_by(97) {
        let error = ResolvedDebian::from_lock(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, LockError::Json(_)), "{cut}: {error}");
    }
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        edit(&mut value);
        ResolvedDebian::from_lock(&serde_json::to_vec(&value).unwrap()).unwrap_err()
    };
    for format in [1, 3] {
        let error = edited(&|v| v["format"] = format.into());
        assert!(matches!(error, LockError::Format { .. }), "{error}");
    }
    for (member, value) in [
        ("name", "../../etc/x".into()),
        ("version", "1 2".into()),
        ("arch", "arm64".into()),
        ("filename", "../../etc/shadow".into()),
        ("filename", "/etc/shadow".into()),
        ("uri", "ftp://host".into()),
        ("uri", "http://user:secret@host".into()),
        ("stage", Value::from(4)),
    ] {
        let error = edited(&|v| v["packages"][1][member] = value.clone());
        assert!(
            error.to_string().starts_with("packages[1] ("),
            "{member}: {error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    for path in [
        "/etc/shadow",
        "/etc/apt/../shadow",
        "etc/apt/x",
        "/etc/apt//x",
    ] {
        let file = serde_json::json!([{"path": path, "text": "x"}]);
        let error = edited(&|v| v["sources"] = file.clone());
        assert!(
            error.to_string().starts_with("sources[0]: "),
            "{path}: {error}"
        );
    }
    let error = edited(&|v| v["packages"][1] = v["packages"][0].clone());
    assert!(error.to_string().contains("twice"), "{error}");
    assert!(matches!(
        edited(&|v| v["packages"][0]["sha256"] = "beef".into()),
        LockError::Json(_)
    ));
}
