//! `WebDownload` against Python's web server.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use amiforge_testkit::{WEB_CONTENT, WebServer};

use crate::testing::{Ran, impatient, step, step_in};
use crate::{Outside, Status};

/// `sha256sum` of the content.
const SHA256: &str = "3ef9550502e554fbe76d38efa3b857394d56618fa8fcc8b4a2686c2df2cb5019";

fn get(source: &str, to: &Path, more: &str) -> Ran {
    get_as("action: WebDownload", source, to, more, &impatient())
}

fn get_as(fields: &str, source: &str, to: &Path, more: &str, outside: &Outside) -> Ran {
    let entry = format!("source: '{source}', destination: '{}'{more}", to.display());
    step(fields, &[entry], outside)
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).unwrap()
}

/// What is in a folder, names only.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn digest(program: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("content");
    fs_err::write(&file, WEB_CONTENT).unwrap();
    let output = amiforge_testkit::run(amiforge_testkit::tool(program).arg(&file)).text();
    output.split(' ').next().unwrap().to_owned()
}

#[test]
fn files_are_written_with_folders_and_the_paths_are_the_output() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path();
    let entry =
        |path: &str, to: String| format!("source: '{}', destination: '{to}'", server.url(path));
    let ran = step(
        "action: WebDownload",
        &[
            entry("/file/a%20b?x=/y", format!("{}/new/folder/", to.display())),
            entry("/chunked", format!("{}/named", to.display())),
            entry("/redirect/10", format!("{}/moved", to.display())),
        ],
        &impatient(),
    )
    .ok();
    let paths = ["new/folder/a b", "named", "moved"].map(|name| to.join(name));
    for path in &paths {
        assert_eq!(read(path), WEB_CONTENT);
        let mode = fs_err::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }
    let listed = paths.map(|path| path.display().to_string()).join("\n");
    assert_eq!(
        ran.step().outputs,
        [BTreeMap::from([("destination".to_owned(), listed)])]
    );
    assert_eq!(names(to), ["moved", "named", "new"], "nothing else is left");
}

#[test]
fn every_algorithm_in_any_letter_case_is_verified() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    for (algorithm, program) in [
        ("md5", "md5sum"),
        ("Sha1", "sha1sum"),
        ("SHA256", "sha256sum"),
        ("sha-512", "sha512sum"),
    ] {
        let right = digest(program);
        let more = |sum: &str| format!(", checksum: '{sum}', algorithm: {algorithm}");
        let wrong = right.replace(|c: char| c.is_ascii_digit(), "a");
        let ran = get(&server.url("/file/x"), &to, &more(&wrong));
        let reason = ran.reason();
        assert!(
            reason.contains(&right) && reason.contains(&wrong),
            "{reason}"
        );
        assert!(!to.exists(), "nothing is left of wrong bytes");
        assert_eq!(names(dir.path()), [""; 0]);
        get(&server.url("/file/x"), &to, &more(&right.to_uppercase())).ok();
        assert_eq!(read(&to), WEB_CONTENT);
        fs_err::remove_file(&to).unwrap();
    }
    assert_eq!(digest("sha256sum"), SHA256);
    // A wrong checksum is not tried again.
    assert_eq!(server.requests().len(), 8);
}

#[test]
fn an_existing_file_is_replaced_kept_or_an_error() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let url = server.url("/file/x");
    fs_err::write(&to, "old").unwrap();
    fs_err::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ran = get(&url, &to, ", overwrite: false");
    assert!(
        ran.reason().contains("`overwrite` is false"),
        "{}",
        ran.reason()
    );
    assert_eq!(read(&to), "old");
    let sum = format!(", checksum: {SHA256}, algorithm: SHA256");
    get(&url, &to, &sum).ok();
    assert_eq!(read(&to), WEB_CONTENT);
    let mode = fs_err::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ran = get(&url, &to, &sum).ok();
    assert!(ran.notes()[0].contains("has this checksum already"));
    assert_eq!(
        server.requests().len(),
        1,
        "a file with the checksum is not fetched"
    );
    get(&url, &to, "").ok();
    assert_eq!(server.requests().len(), 2);
    let ran = get(&url, dir.path(), "");
    assert!(
        ran.reason().contains("is a folder, not a file"),
        "{}",
        ran.reason()
    );
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    for path in [
        "/flaky/500/4/a",
        "/flaky/429/1/b",
        "/flaky/503/2/c",
        "/flaky/0/3/d",
    ] {
        let ran = get(&server.url(path), &to, "").ok();
        let tries: usize = path.split('/').nth(3).unwrap().parse().unwrap();
        assert_eq!(ran.notes().len(), tries, "{path}: {:?}", ran.notes());
        assert_eq!(read(&to), WEB_CONTENT);
    }
    fs_err::write(&to, "old").unwrap();
    let before = server.requests().len();
    let ran = get(&server.url("/status/500"), &to, "");
    let expected = format!(
        "gave up after 5 tries: {} answered with status 500 (a fault of the server)",
        server.url("/status/500")
    );
    assert_eq!(ran.reason(), expected);
    assert_eq!(server.requests().len() - before, 5);
    for status in [201, 206, 304, 400, 401, 403, 404, 410, 501] {
        let before = server.requests().len();
        let url = server.url(&format!("/status/{status}"));
        let ran = get(&url, &to, "");
        let expected = format!("{url} answered with status {status}");
        assert!(ran.reason().starts_with(&expected), "{}", ran.reason());
        assert_eq!(server.requests().len() - before, 1, "{status}");
    }
    assert_eq!(read(&to), "old", "a failure leaves the old file");
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn redirects_end_and_lead_to_the_web_only() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let secret = dir.path().join("secret");
    fs_err::write(&secret, "s3cret").unwrap();
    let file = format!("/to?file://{}", secret.display());
    for (path, expected) in [
        ("/loop", "leads on more than 10 times"),
        ("/redirect/11", "leads on more than 10 times"),
        (
            file.as_str(),
            "from which nothing is downloaded: it does not start with `http://`",
        ),
        ("/to?ftp://127.0.0.1/x", "from which nothing is downloaded"),
        (
            "/to?http://",
            "from which nothing is downloaded: it names no host",
        ),
        ("/nowhere", "leads on, and does not say where"),
    ] {
        let before = server.requests().len();
        let ran = get(&server.url(path), &to, "");
        assert!(ran.reason().contains(expected), "{path}: {}", ran.reason());
        assert!(ran.notes().is_empty() && !to.exists(), "{path}");
        let asked = server.requests().len() - before;
        assert!(asked <= 11, "{path}: {asked} requests");
    }
    // The name in a folder is that of the address as written.
    let folder = format!("{}/into/", dir.path().display());
    get(&server.url("/redirect/1"), Path::new(&folder), "").ok();
    assert_eq!(names(Path::new(&folder)), ["1"]);
}

#[test]
fn lying_endless_and_garbled_answers_are_bounded_errors() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    for (path, expected) in [
        ("/short", "gave up after 5 tries"),
        ("/huge", "has more than the 1048576 bytes that are taken"),
        ("/endless", "has more than the 1048576 bytes that are taken"),
        ("/head", "gave up after 5 tries"),
        ("/many", "gave up after 5 tries"),
        ("/garbage", "gave up after 5 tries"),
    ] {
        let ran = get(&server.url(path), &to, "");
        let reason = ran.reason();
        assert!(reason.contains(expected), "{path}: {reason}");
        assert!(reason.contains(&server.url(path)), "{path}: {reason}");
        assert_eq!(names(dir.path()), [""; 0], "{path}");
    }
    get(&server.url("/long"), &to, "").ok();
    assert_eq!(
        read(&to),
        WEB_CONTENT[..4],
        "what is beyond the promise is not the body"
    );
}

#[test]
fn bytes_stay_as_they_are_sent() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file.gz");
    get(&server.url("/zipped"), &to, "").ok();
    let bytes = fs_err::read(&to).unwrap();
    assert!(bytes.starts_with(b"\x1f\x8b") && bytes.len() < 100_000);
    get(&server.url("/echo"), &to, "").ok();
    assert!(
        read(&to)
            .to_lowercase()
            .contains("accept-encoding: identity")
    );
}

#[test]
fn the_time_of_the_step_ends_a_download_that_still_flows() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    for path in ["/drip", "/stall"] {
        let fields = "action: WebDownload\n        timeoutSeconds: 1";
        let ran = get_as(fields, &server.url(path), &to, "", &impatient());
        assert_eq!(ran.reason(), "timed out after 1 seconds", "{path}");
        assert_eq!(names(dir.path()), [""; 0], "{path}");
    }
    // Nor is a pause longer than the step.
    let mut patient = impatient();
    patient.patience.pause = Duration::from_secs(3600);
    let fields = "action: WebDownload\n        timeoutSeconds: 1";
    let ran = get_as(fields, &server.url("/status/500"), &to, "", &patient);
    assert_eq!(ran.reason(), "timed out after 1 seconds");
}

#[test]
fn silence_is_a_failed_try() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let mut outside = impatient();
    outside.patience.silence = Duration::from_millis(200);
    outside.patience.tries = 2;
    let to = dir.path().join("file");
    let ran = get_as(
        "action: WebDownload",
        &server.url("/stall"),
        &to,
        "",
        &outside,
    );
    let reason = ran.reason();
    assert!(
        reason.contains("gave up after 2 tries")
            && reason.contains("nothing was heard for too long"),
        "{reason}"
    );
}

#[test]
fn a_certificate_that_nobody_signed_counts_only_when_told() {
    let (server, dir) = (WebServer::secure(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let url = server.url("/file/x");
    let ran = get(&url, &to, "");
    let reason = ran.reason();
    for part in [
        &format!("the certificate of {url} is not accepted"),
        "authorities from /etc/ssl",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(ran.notes().is_empty(), "it is not tried again");
    get(&url, &to, ", ignoreCertificateErrors: true").ok();
    assert_eq!(read(&to), WEB_CONTENT);
    // The authorities that the step's environment names.
    let entry = format!("source: '{url}', destination: '{}'", to.display());
    let certificate = server.certificate();
    let env = [("SSL_CERT_FILE", certificate.to_str().unwrap())];
    step_in("action: WebDownload", &[entry], &impatient(), &env).ok();
    let plain = url.replace("https:", "http:");
    assert!(get(&plain, &to, "").result.status == Status::Failed);
}

#[test]
fn user_and_password_go_to_their_own_server_and_not_into_messages() {
    let (server, other) = (WebServer::start(), WebServer::start());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("file");
    let with_user = |url: String| url.replacen("http://", "http://ann:s%40crt@", 1);
    get(&with_user(server.url("/redirect/1")), &to, "").ok();
    let basic = "Basic YW5uOnNAY3J0";
    assert!(
        server.requests().iter().all(|line| line.ends_with(basic)),
        "{:?}",
        server.requests()
    );
    get(
        &with_user(server.url(&format!("/to?{}", other.url("/file/x")))),
        &to,
        "",
    )
    .ok();
    assert_eq!(other.requests(), ["GET /file/x -"]);
    let ran = get(&with_user(server.url("/status/404")), &to, "");
    let shown = format!("{} {:?}", ran.reason(), ran.notes());
    assert!(
        !shown.contains("crt") && shown.contains("/status/404"),
        "{shown}"
    );
}

#[test]
fn proxies_of_the_environment_are_used() {
    let (proxy, secure) = (WebServer::start(), WebServer::secure());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("file");
    let env = [
        (
            "http_proxy",
            proxy.url("").replace("http://", "http://bob:pw@"),
        ),
        ("https_proxy", proxy.url("")),
        ("no_proxy", "direct.test".to_owned()),
    ];
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let run = |url: &str, more: &str, outside: &Outside| {
        let entry = format!("source: '{url}', destination: '{}'{more}", to.display());
        step_in("action: WebDownload", &[entry], outside, &env)
    };
    // Only the proxy knows this host.
    let url = format!("http://web.test:{}/file/x", proxy.port());
    run(&url, "", &impatient()).ok();
    assert_eq!(read(&to), WEB_CONTENT);
    // Proxies allow tunnels to servers with TLS only: this one is asked for the whole address.
    let expected = format!("GET {url} proxy:Basic Ym9iOnB3");
    assert_eq!(proxy.requests(), [expected]);
    let url = format!("https://web.test:{}/file/x", secure.port());
    run(&url, ", ignoreCertificateErrors: true", &impatient()).ok();
    assert_eq!(secure.requests().len(), 1);
    assert!(
        proxy
            .requests()
            .iter()
            .any(|line| line.starts_with("CONNECT web.test:"))
    );
    let before = proxy.requests().len();
    let mut outside = impatient();
    outside.patience.tries = 1;
    let ran = run("http://direct.test:1/x", "", &outside);
    assert!(ran.reason().contains("direct.test"), "{}", ran.reason());
    assert_eq!(
        proxy.requests().len(),
        before,
        "an exception goes past the proxy"
    );
}

#[test]
fn offline_says_so_and_a_server_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("file");
    let mut offline = impatient();
    offline.offline = true;
    let ran = get_as(
        "action: WebDownload",
        "http://192.0.2.1/x",
        &to,
        "",
        &offline,
    );
    assert_eq!(
        ran.reason(),
        "http://192.0.2.1/x is not fetched: the build runs offline (`--offline`)"
    );
    let server = WebServer::start();
    let ran = get_as(
        "action: WebDownload",
        &server.url("/file/x"),
        &to,
        "",
        &offline,
    );
    assert_eq!(
        ran.result.status,
        Status::Success,
        "the root's own loopback is not outside"
    );
    let gone = server.url("/file/x");
    drop(server);
    let ran = get(&gone, &to, "");
    let reason = ran.reason();
    assert!(
        reason.contains(&gone) && reason.contains("refused"),
        "{reason}"
    );
    assert_eq!(ran.notes().len(), 4);
}

#[test]
fn of_a_silent_step_no_address_is_shown() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let fields = "action: WebDownload\n        disableLogging: true";
    let ran = get_as(
        fields,
        &server.url("/status/404?t0ken"),
        &to,
        "",
        &impatient(),
    );
    assert!(ran.reason().contains("status 404"), "{}", ran.reason());
    let shown = format!("{:?} {:?}", ran.result, ran.events);
    assert!(!shown.contains("t0ken"), "{shown}");
}

#[test]
fn links_are_followed_and_devices_refused() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("real", &link).unwrap();
    get(&server.url("/file/x"), &link, "").ok();
    assert_eq!(read(&dir.path().join("real")), WEB_CONTENT);
    assert_eq!(names(dir.path()), ["link", "real"]);
    let ran = get(&server.url("/file/x"), Path::new("/dev/null"), "");
    assert!(
        ran.reason().contains("is a device, not a file"),
        "{}",
        ran.reason()
    );
}
