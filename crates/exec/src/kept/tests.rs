use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use amiforge_testkit::{WEB_CONTENT, WebServer, run, tool};

use super::*;
use crate::outside::Pins;
use crate::testing::{Ran, impatient, step};

/// Nobody answers there, and nobody is asked.
const GONE: &str = "http://192.0.2.1/tool";

/// An offline run that is lent `files`, each a text under the name that it is kept by.
fn offline(dir: &Path, files: &[(KeptName, &str)]) -> Outside {
    let lent: Vec<LentDownload> = files
        .iter()
        .map(|(name, text)| {
            let path = dir.join(name.as_str());
            fs_err::write(&path, text).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            LentDownload {
                name: name.clone(),
                path,
            }
        })
        .collect();
    Outside {
        offline: true,
        opened: Lent::open(&lent).unwrap(),
        lent,
        ..impatient()
    }
}

fn name(algorithm: &str, digits: &str) -> KeptName {
    KeptName(format!("{algorithm}-{digits}"))
}

fn digits(program: &str, dir: &Path) -> String {
    let file = dir.join("content");
    fs_err::write(&file, WEB_CONTENT).unwrap();
    let output = run(tool(program).arg(&file)).text();
    output.split(' ').next().unwrap().to_owned()
}

fn web(source: &str, to: &Path, more: &str, outside: &Outside) -> Ran {
    let entry = format!("source: '{source}', destination: '{}'{more}", to.display());
    step("action: WebDownload", &[entry], outside)
}

#[test]
fn a_download_with_any_checksum_comes_from_what_is_lent() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, program) in [
        ("md5", "md5sum"),
        ("sha1", "sha1sum"),
        ("sha256", "sha256sum"),
        ("sha512", "sha512sum"),
    ] {
        let sum = digits(program, dir.path());
        let outside = offline(dir.path(), &[(name(algorithm, &sum), WEB_CONTENT)]);
        let to = dir.path().join("to");
        let more = format!(", checksum: '{sum}', algorithm: {algorithm}");
        let ran = web(GONE, &to, &more, &outside).ok();
        assert_eq!(ran.notes(), [format!("{GONE} comes from the cache")]);
        assert_eq!(fs_err::read_to_string(&to).unwrap(), WEB_CONTENT);
        let mode = fs_err::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "as any download");
        fs_err::remove_file(&to).unwrap();
        // Nothing but the checksum says that it is this one.
        let reason = web(GONE, &to, "", &outside).reason().to_owned();
        assert!(reason.contains("the build runs offline"), "{reason}");
        assert!(!to.exists());
    }
}

#[test]
fn a_lent_file_that_is_damaged_is_not_used() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let sum = digits("sha256sum", dir.path());
    let mut outside = offline(dir.path(), &[(name("sha256", &sum), "something else")]);
    let to = dir.path().join("to");
    let more = format!(", checksum: '{sum}', algorithm: SHA256");
    let ran = web(GONE, &to, &more, &outside);
    assert!(ran.notes()[0].contains("is damaged"), "{:?}", ran.notes());
    assert!(ran.reason().contains("runs offline"), "{}", ran.reason());
    assert!(!to.exists());
    outside.offline = false;
    web(&server.url("/file/x"), &to, &more, &outside).ok();
    assert_eq!(fs_err::read_to_string(&to).unwrap(), WEB_CONTENT);
}

#[test]
fn what_the_lock_pins_is_taken_by_its_pin() {
    let dir = tempfile::tempdir().unwrap();
    let sum = digits("sha256sum", dir.path());
    let to = dir.path().join("to");
    let mut outside = offline(dir.path(), &[(name("sha256", &sum), WEB_CONTENT)]);
    let pin = |source: &str, text: &str| -> Pins {
        [(
            source.to_owned(),
            BTreeSet::from([Digest::of(text.as_bytes())]),
        )]
        .into()
    };
    outside.pins = Some(pin(GONE, WEB_CONTENT));
    web(GONE, &to, "", &outside).ok();
    fs_err::remove_file(&to).unwrap();
    // Another address, or another digest.
    for pins in [pin("http://192.0.2.1/other", WEB_CONTENT), pin(GONE, "new")] {
        outside.pins = Some(pins);
        let reason = web(GONE, &to, "", &outside).reason().to_owned();
        assert!(reason.contains("runs offline"), "{reason}");
    }
    // A checksum of the document finds a file that the lock does not want.
    let more = format!(", checksum: '{sum}', algorithm: SHA256");
    let reason = web(GONE, &to, &more, &outside).reason().to_owned();
    assert!(reason.contains("no longer what the lock has"), "{reason}");
    assert!(!to.exists());
}

#[test]
fn objects_come_from_what_is_lent_and_a_prefix_is_what_the_lock_has_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ("one", "two");
    let named = |text: &str| KeptName::of_digest(Digest::of(text.as_bytes()));
    let mut outside = offline(dir.path(), &[(named(one), one), (named(two), two)]);
    let pinned = |source: &str, text: &str| {
        let digests = BTreeSet::from([Digest::of(text.as_bytes())]);
        (source.to_owned(), digests)
    };
    outside.pins = Some(
        [
            pinned("s3://bucket/pre/a", one),
            pinned("s3://bucket/pre/b/c", two),
            pinned("s3://bucket/other", two),
        ]
        .into(),
    );
    let to = dir.path().join("to");
    fs_err::create_dir(&to).unwrap();
    let get = |source: &str, to: &Path| {
        let entry = format!("source: '{source}', destination: '{}'", to.display());
        step("action: S3Download", &[entry], &outside)
    };
    get("s3://bucket/other", &to.join("x")).ok();
    get("s3://bucket/pre/*", &to).ok();
    let read = |name: &str| fs_err::read_to_string(to.join(name)).unwrap();
    assert_eq!([read("x"), read("a"), read("b/c")], [two, one, two]);
    let reason = get("s3://bucket/none/*", &to).reason().to_owned();
    assert!(reason.contains("runs offline"), "{reason}");
}

#[test]
fn only_files_can_be_lent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs_err::write(&file, "x").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let pipe = dir.path().join("pipe");
    run(tool("mkfifo").arg(&pipe));
    let open = |path: &Path| {
        let name = KeptName::of_digest(Digest::of(b"x"));
        let path = path.to_owned();
        Lent::open(&[LentDownload { name, path }])
    };
    assert!(open(&file).is_ok());
    for path in [link, pipe, dir.path().to_owned(), dir.path().join("none")] {
        assert!(open(&path).is_err(), "{}", path.display());
    }
}

#[test]
fn a_lent_file_is_held_to_the_limit_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let text = "x".repeat(5000);
    let sum = Digest::of(text.as_bytes());
    let mut outside = offline(dir.path(), &[(KeptName::of_digest(sum), &text)]);
    outside.patience.bytes = 4999;
    let more = format!(", checksum: '{sum}', algorithm: SHA256");
    let to = dir.path().join("to");
    let reason = web(GONE, &to, &more, &outside).reason().to_owned();
    assert!(reason.contains("5000 bytes"), "{reason}");
    assert!(!to.exists());
}
