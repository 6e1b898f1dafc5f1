//! Registries that ask who we are: Debian's with Basic and with tokens that it verifies, and others that mean harm.

use std::net::Ipv4Addr;

use amiforge_testkit::{Answer, RegistryServer, RegistrySettings, ScriptServer, self_signed};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::oci::ResolvedBlob;
use crate::oci::registry::Registry;
use crate::transfer::Transfer;

fn login(user: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[test]
fn a_registry_with_basic_takes_the_login() {
    let mut here = Here::new();
    let layout = make_layout(here.dir.path());
    let htpasswd = here.path("htpasswd");
    run(tool("htpasswd")
        .arg("-Bbc")
        .arg(&htpasswd)
        .args(["ann", "p:w"]));
    let server = RegistryServer::start(&RegistrySettings {
        htpasswd: Some(htpasswd),
        ..RegistrySettings::default()
    });
    let from = format!("oci:{}", image_of(&layout, "app"));
    server.push(&from, "app:1", &["--dest-creds", "ann:p:w"]);
    let request = registry(&format!("{}/app:1", server.host()));
    let error = text(&here.resolve(&request).unwrap_err());
    assert!(
        error.ends_with("asks for a login, and there is none for it"),
        "{error}"
    );
    here.login = login("ann", "wrong");
    let error = text(&here.resolve(&request).unwrap_err());
    assert!(
        error.contains("refuses app") && !error.contains("wrong"),
        "{error}"
    );
    here.login = login("ann", "p:w");
    let (_, tree, blobs) = here.image(&request).unwrap();
    same_as_umoci(&layout, "app", &tree, &blobs);
}

/// A token as the registry verifies it (distribution, "Token Authentication Specification", a JWT with `x5c`).
fn token(key: &Path, certificate: &Path, access: &serde_json::Value) -> String {
    let pem = std::fs::read_to_string(certificate).unwrap();
    let der: String = pem.lines().filter(|l| !l.starts_with('-')).collect();
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let now = since.as_secs();
    let claims = serde_json::json!({
        "iss": "test", "aud": "test", "sub": "ann", "jti": "1",
        "nbf": now - 60, "iat": now, "exp": now + 300, "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signed");
    std::fs::write(&file, &signed).unwrap();
    let mut sign = tool("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(key).arg(&file);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(run(&mut sign).stdout))
}

/// A token server that knows `ann`, a refresh token, and, of `open/…`, everybody.
fn token_server(key: PathBuf, certificate: PathBuf) -> ScriptServer {
    let basic = format!("Basic {}", STANDARD.encode("ann:pw"));
    ScriptServer::start(move |asked| {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let query = match asked.method.as_str() {
            "POST" => form.as_str(),
            _ => asked.target.split_once('?').map_or("", |(_, q)| q),
        };
        let param = |name: &str| {
            let start = format!("{name}=");
            let found = query.split('&').find_map(|p| p.strip_prefix(&start));
            let text = found.unwrap_or_default().replace("%3A", ":");
            text.replace("%2F", "/").replace("%2C", ",")
        };
        let scope = param("scope");
        let parts: Vec<&str> = scope.split(':').collect();
        let [kind, name, actions] = parts.as_slice() else {
            return Answer::new(200, &[], r#"{"token": "nothing"}"#);
        };
        let refreshed = param("refresh_token") == "R/1" && param("grant_type") == "refresh_token";
        let known = asked.headers.get("authorization") == Some(&basic) || refreshed;
        if !known && !name.starts_with("open/") {
            return Answer::new(401, &[], "{}");
        }
        let actions: Vec<&str> = actions.split(',').collect();
        let access = serde_json::json!([{"type": kind, "name": name, "actions": actions}]);
        let token = token(&key, &certificate, &access);
        let member = if refreshed { "access_token" } else { "token" };
        Answer::new(200, &[], serde_json::json!({member: token}).to_string())
    })
}

#[test]
fn a_registry_with_tokens_gets_one_for_reading_the_repository() {
    let mut here = Here::new();
    let layout = make_layout(here.dir.path());
    let (certificate, key) = self_signed(here.dir.path());
    let tokens = token_server(key, certificate.clone());
    let server = RegistryServer::start(&RegistrySettings {
        token: Some((format!("http://{}/token?x=1", tokens.host()), certificate)),
        ..RegistrySettings::default()
    });
    let from = format!("oci:{}", image_of(&layout, "app"));
    for name in ["open/app:1", "closed/app:1"] {
        server.push(&from, name, &["--dest-creds", "ann:pw"]);
    }
    let before = tokens.asked().len();
    // Without a login, of what is everybody's.
    let open = registry(&format!("{}/open/app:1", server.host()));
    let (_, tree, blobs) = here.image(&open).unwrap();
    same_as_umoci(&layout, "app", &tree, &blobs);
    let asked = tokens.asked();
    let last = asked.last().unwrap();
    // No more than reading is asked for.
    let target = "/token?x=1&service=test&scope=repository%3Aopen%2Fapp%3Apull";
    assert_eq!(last.target, target);
    assert!(!last.headers.contains_key("authorization"));
    assert!(asked.len() > before);
    let closed = registry(&format!("{}/closed/app:1", server.host()));
    let error = text(&here.resolve(&closed).unwrap_err());
    assert!(error.contains("gives no token without a login"), "{error}");
    here.login = login("ann", "wrong");
    let error = text(&here.resolve(&closed).unwrap_err());
    assert!(
        error.contains("does not take the login") && !error.contains("wrong"),
        "{error}"
    );
    for credential in [
        login("ann", "pw"),
        Some(Credential::Identity("R/1".to_owned())),
    ] {
        here.login = credential;
        here.resolve(&closed).unwrap();
    }
    assert_eq!(tokens.asked().last().unwrap().method, "POST");
}

/// A registry that asks everybody for this.
fn asking(header: &str) -> ScriptServer {
    let header = header.to_owned();
    ScriptServer::start(move |_| Answer::new(401, &[("WWW-Authenticate", &header)], ""))
}

#[test]
fn a_password_is_not_given_to_another_domain() {
    let mut here = Here::new();
    here.login = login("ann", "secret");
    let other = ScriptServer::start_at(Ipv4Addr::new(127, 0, 0, 2), |_| {
        Answer::new(200, &[], r#"{"token": "T"}"#)
    });
    let server = asking(&format!("Bearer realm=\"http://{}/t?q=1\"", other.host()));
    let request = registry(&format!("{}/app", server.host()));
    let error = text(&here.resolve(&request).unwrap_err());
    assert!(
        error.contains("a server of another domain") && !error.contains("q=1"),
        "{error}"
    );
    assert!(other.asked().is_empty());
    // Without a login there is nothing to lose; a token that is not taken is no loop.
    here.login = None;
    let error = text(&here.resolve(&request).unwrap_err());
    assert!(error.contains("refuses app"), "{error}");
    assert_eq!(other.asked().len(), 1);
    // Other addresses are not asked at all.
    for (header, why) in [
        (
            "Bearer realm=\"http://example.com/token\"",
            "it is not https",
        ),
        (
            "Bearer realm=\"https://u:p@example.com/t\"",
            "it has a user in it",
        ),
        ("Bearer realm=\"file:///etc/passwd\"", "is not followed"),
        ("Bearer", "it is no address"),
        ("Negotiate", "neither Bearer nor Basic"),
    ] {
        let server = asking(header);
        let request = registry(&format!("{}/app", server.host()));
        let error = text(&here.resolve(&request).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn answers_of_a_token_server_that_are_none() {
    let here = Here::new();
    let none = "whose answer has none";
    for (status, body, why) in [
        (200, "{}".to_owned(), none),
        (200, "secret".to_owned(), none),
        (200, r#"{"token": "a b"}"#.to_owned(), none),
        (200, r#"{"token": "a\r\nX: y"}"#.to_owned(), none),
        (
            200,
            format!("{{\"token\": \"{}\"}}", "x".repeat(2 << 20)),
            "larger than",
        ),
        (302, String::new(), "leads on"),
        (404, String::new(), "answered 404"),
    ] {
        let server = ScriptServer::start(move |asked| {
            if asked.target.starts_with("/t") {
                let away = ("Location", "http://127.0.0.1:1/");
                return Answer::new(status, &[away], body.clone());
            }
            let realm = format!("Bearer realm=\"http://{}/t\"", asked.headers["host"]);
            Answer::new(401, &[("WWW-Authenticate", &realm)], "")
        });
        let request = registry(&format!("{}/app", server.host()));
        let error = text(&here.resolve(&request).unwrap_err());
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_login_goes_to_its_registry_alone() {
    let mut here = Here::new();
    here.login = login("ann", "pw");
    let blob = b"layer".to_vec();
    // Where blobs are: another origin, which must not learn anything.
    let content = blob.clone();
    let elsewhere = ScriptServer::start(move |_| Answer::new(200, &[], content.clone()));
    let to = format!("http://{}/blob?signature=S", elsewhere.host());
    let server = ScriptServer::start(move |asked| {
        if !asked.headers.contains_key("authorization") {
            return Answer::new(401, &[("WWW-Authenticate", "Basic realm=x")], "");
        }
        match asked.target.as_str() {
            "/v2/app/blobs/here" => Answer::new(307, &[("Location", &to)], ""),
            _ => Answer::new(307, &[("Location", "/v2/app/blobs/here")], ""),
        }
    });
    let reference: Reference = format!("{}/app", server.host()).parse().unwrap();
    std::fs::create_dir_all(here.path("cache")).unwrap();
    let wanted = ResolvedBlob {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        media_type: String::new(),
    };
    let dest = here.path("cache/blob");
    here.with(|ctx| {
        let transfer = Transfer::new(ctx.base, HASTY);
        let client = Registry::new(&transfer, ctx, &reference).unwrap();
        client.blob(&wanted, &dest, &|_| {}).unwrap();
    });
    assert_eq!(std::fs::read(dest).unwrap(), blob);
    let with_login = |a: &&amiforge_testkit::Asked| a.headers.contains_key("authorization");
    // A redirect inside the registry keeps the login.
    assert_eq!(server.asked().iter().filter(with_login).count(), 2);
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
}

#[test]
fn a_cache_in_a_registry_with_tokens_gets_one_for_writing() {
    let mut here = Here::new();
    let (certificate, key) = self_signed(here.dir.path());
    let tokens = token_server(key, certificate.clone());
    let server = RegistryServer::start(&RegistrySettings {
        token: Some((format!("http://{}/token", tokens.host()), certificate)),
        ..RegistrySettings::default()
    });
    let place: crate::SharedPlace = format!("oci:{}/closed/cache", server.host())
        .parse()
        .unwrap();
    let file = here.path("file");
    std::fs::write(&file, b"content").unwrap();
    let blob = crate::SharedBlob {
        digest: Digest::of(b"content"),
        bytes: 7,
    };
    let names = ["layer-a.b".to_owned(), "layer-a".to_owned()];
    let entry = crate::SharedEntry {
        names: &names,
        document: b"document",
        blob: Some((blob, &file)),
        again: false,
    };
    let with = |here: &Here, write: bool, work: &dyn Fn(&crate::SharedCache<'_>)| {
        here.with(|ctx| {
            let places = [(place.clone(), write)];
            crate::with_shared(&places, ctx, |caches| work(&caches[0])).unwrap();
        });
    };
    with(&here, true, &|cache| {
        let error = text(&cache.put(&entry).unwrap_err());
        assert!(error.contains("without a login"), "{error}");
    });
    here.login = login("ann", "pw");
    with(&here, true, &|cache| {
        assert!(cache.entry("layer-a").unwrap().is_none());
        cache.put(&entry).unwrap();
        cache.put(&entry).unwrap();
        assert!(cache.entry("layer-a").unwrap().is_some());
    });
    let dest = here.path("dest");
    with(&here, false, &|cache| {
        assert_eq!(cache.entry("layer-a.b").unwrap().unwrap(), b"document");
        assert_eq!(cache.entry("layer-b").unwrap(), None);
        cache.bring(blob, &dest, &|_| ()).unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), b"content");
        // A reader's token is none for writing.
        let other = crate::SharedEntry {
            document: b"other",
            ..entry
        };
        assert!(cache.put(&other).is_err());
    });
    let asked: Vec<String> = tokens.asked().into_iter().map(|a| a.target).collect();
    assert!(asked.iter().any(|t| t.contains("pull%2Cpush")), "{asked:?}");
    assert!(
        asked
            .iter()
            .any(|t| t.contains("%3Apull") && !t.contains("push")),
        "{asked:?}"
    );
}
