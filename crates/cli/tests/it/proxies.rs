//! Archives and registries through the proxies of the environment. What ends in `.test` is nowhere but at the proxy.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, FileServer, Finished, ProxyServer, finish};

use crate::tiny::Tiny;

fn lock(env: &Env, recipe: &Path, variables: &[(&str, &str)]) -> Finished {
    // A Release file is not asked for again within a minute.
    let _ = fs_err::remove_dir_all(env.state().join("cache"));
    let mut command = env.amiforge();
    for name in [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ] {
        command.env_remove(name);
    }
    finish(
        command
            .args(["lock", "update", "--dry-run"])
            .arg(recipe)
            .envs(variables.iter().copied()),
    )
}

fn recipe(env: &Env, name: &str, parent: &str, settings: &str) -> PathBuf {
    env.write(
        format!("{name}.yaml"),
        format!(
            "name: {name}\ncontainerType: DOCKER\nsemanticVersion: 1.0.0\nparentImage: {parent}\n\
             targetRepository: {{service: ECR, repositoryName: tiny}}\n\
             dockerfileTemplateData: \"FROM {{{{{{ imagebuilder:parentImage }}}}}}\\n\
             {{{{{{ imagebuilder:components }}}}}}\\n\"\n{settings}"
        ),
    )
}

#[test]
fn an_archive_is_asked_through_a_proxy_that_makes_no_connections_to_port_80() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a")]);
    let server = FileServer::start(&tiny.root());
    let host = server.url().split("//").nth(1).unwrap().to_owned();
    let proxy = ProxyServer::start(&host);
    let settings = "amiforge:\n  apt: {mirror: \"http://mirror.test\", keyring: tiny.gpg, variant: essential}\n";
    let recipe = recipe(&env, "archive", "debian:tiny", settings);
    let address = proxy.address();
    for name in ["http_proxy", "HTTP_PROXY"] {
        let before = proxy.requests().len();
        let value = format!("http://user:p%40ss@{address}/");
        let end = lock(&env, &recipe, &[(name, &value), ("no_proxy", "other.test")]).expect_code(0);
        assert!(end.text().contains("added      tiny-a 1.0"), "{end}");
        let asked = proxy.requests().split_off(before);
        let release = "GET http://mirror.test/dists/tiny/InRelease Basic dXNlcjpwQHNz".to_owned();
        assert!(asked.contains(&release), "{asked:?}");
        assert!(
            asked
                .iter()
                .all(|line| line.starts_with("GET http://mirror.test/")),
            "{asked:?}"
        );
    }
    // Without it nobody knows the host; and for TLS it is not the proxy.
    let asked = proxy.requests().len();
    for variables in [
        &[
            ("http_proxy", address.as_str()),
            ("no_proxy", "mirror.test"),
        ][..],
        &[("http_proxy", address.as_str()), ("NO_PROXY", ".test")],
        &[("https_proxy", address.as_str())],
    ] {
        let end = lock(&env, &recipe, variables).expect_code(1);
        assert!(end.stderr.contains("mirror.test"), "{end}");
    }
    assert_eq!(proxy.requests().len(), asked);
}

#[test]
fn registries_of_parents_are_asked_through_the_proxy_for_tls() {
    let env = Env::new();
    // Whoever it is does not speak TLS: what counts is who is asked.
    let server = FileServer::start(env.path(".").as_path());
    let host = server.url().split("//").nth(1).unwrap().to_owned();
    let proxy = ProxyServer::start(&host);
    let recipe = recipe(&env, "registry", "oci:registry.test/team/app:1", "");
    let address = proxy.address();
    for name in ["https_proxy", "HTTPS_PROXY"] {
        let before = proxy.requests().len();
        lock(&env, &recipe, &[(name, &address)]).expect_code(1);
        let asked = proxy.requests().split_off(before);
        assert!(
            !asked.is_empty() && asked.iter().all(|line| line == "CONNECT registry.test:443"),
            "{asked:?}"
        );
    }
    let asked = proxy.requests().len();
    for variables in [
        &[
            ("https_proxy", address.as_str()),
            ("no_proxy", "registry.test"),
        ][..],
        &[("http_proxy", address.as_str())],
    ] {
        lock(&env, &recipe, variables).expect_code(1);
    }
    assert_eq!(proxy.requests().len(), asked);
}
