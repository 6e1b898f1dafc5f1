//! Downloads of steps in the cache: a build needs nobody else for them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, FileServer, Finished, finish, run, tool};
use serde_json::Value;

use crate::tiny::Tiny;

/// A recipe with three downloads of `url`: one with a checksum that is no SHA-256, one that only a lock says the content
/// of, and one whose address comes out as it runs. Then a step that looks for files of the host.
fn recipe(env: &Env, tiny: &Tiny<'_>, url: &str, sum: &str) -> PathBuf {
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Look\n        action: ExecuteBash\n        inputs:\n          commands:\n            \
             - 'for fd in /proc/[0-9]*/fd/*; do readlink $fd || true; done >/opt/open'\n            \
             - 'find / -xdev -name \"sha512-*\" >/opt/found'\n            \
             - 'if grep -q downloads /opt/open || [ -s /opt/found ]; then cat /opt/open /opt/found; exit 1; fi'\n            \
             - 'rm /opt/open; echo late'\n      \
             - name: Sum\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{url}/sum', destination: /opt/sum, checksum: {sum}, algorithm: SHA512}}\n      \
             - name: Pin\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{url}/pin', destination: /opt/pin}}\n      \
             - name: Late\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{url}/{{{{ build.Look.outputs.stdout }}}}', destination: /opt/late}}\n"
        ),
    );
    env.write(
        "after.yaml",
        "name: after\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - name: After\n        action: ExecuteBash\n        inputs: {commands: ['cat /opt/sum /opt/pin /opt/late >/opt/all']}\n",
    );
    tiny.container("fetching", &["fetch.yaml", "after.yaml"], "")
}

fn build(env: &Env, recipe: &Path, args: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .args(["build", "--no-test", "--out"])
            .arg(env.path("out"))
            .arg(recipe)
            .args(args),
    )
}

/// Takes the layers of components out of the store, as if they had been collected.
fn forget_layers(env: &Env) {
    let plan = fs_err::read(env.path("out/plan.json")).unwrap();
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    for layer in plan["layers"].as_array().unwrap().iter().skip(2) {
        let id = layer["id"].as_str().unwrap();
        fs_err::remove_file(env.state().join(format!("store/v1/layers/{id}.layer"))).unwrap();
    }
    fs_err::remove_dir_all(env.path("out")).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What the layers of a container build are, however they were made.
fn image(env: &Env) -> Vec<Value> {
    let manifest = fs_err::read(env.path("out/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["digest"].clone()).collect()
}

#[test]
fn offline_builds_take_pinned_and_checked_downloads_from_the_cache() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    for name in ["sum", "pin", "late"] {
        fs_err::write(web.join(name), format!("content of {name}\n")).unwrap();
    }
    let sum = run(tool("sha512sum").arg(web.join("sum"))).text();
    let sum = sum.split(' ').next().unwrap();
    let server = FileServer::start(&web);
    let recipe = recipe(&env, &tiny, &server.url(), sum);
    let kept = env.state().join("cache/v1/downloads");

    // What only the step knows the content of is its own business; the rest is fetched once.
    build(&env, &recipe, &[]).expect_code(0);
    assert_eq!(names(&kept), [format!("sha512-{sum}")]);
    assert_eq!(server.requests().len(), 3);
    let first = image(&env);
    fs_err::copy(env.path("out/lock.json"), env.path("lock.json")).unwrap();
    forget_layers(&env);

    // With the lock everything is known before.
    build(&env, &recipe, &["--locked"]).expect_code(0);
    assert_eq!(names(&kept).len(), 3);
    assert_eq!(server.requests().len(), 5, "{:?}", server.requests());
    for name in names(&kept) {
        let meta = fs_err::metadata(kept.join(&name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600, "{name}");
        let (algorithm, digits) = name.split_once('-').unwrap();
        let told = run(tool(format!("{algorithm}sum")).arg(kept.join(&name))).text();
        assert!(told.starts_with(digits), "{name}: {told}");
    }
    let url = server.url();
    drop(server);
    for way in ["mapped-ids", "single-id"] {
        forget_layers(&env);
        let args = ["--locked", "--offline", "--sandbox", way];
        let end = build(&env, &recipe, &args).expect_code(0);
        assert_eq!(image(&env), first, "{end}");
    }
    let log = env.path("out/logs");
    let told = run(tool("grep")
        .arg("-rhoE")
        .arg("[^ ]* comes from the cache")
        .arg(log))
    .text();
    assert!(told.contains(&format!("{url}/late comes from")), "{told}");

    // A damaged one is not used, and goes.
    let pinned = names(&kept).into_iter().find(|n| n.starts_with("sha256"));
    let pinned = kept.join(pinned.unwrap());
    let whole = fs_err::read(&pinned).unwrap();
    fs_err::write(&pinned, vec![b'x'; whole.len()]).unwrap();
    forget_layers(&env);
    let end = build(&env, &recipe, &["--locked", "--offline"]).expect_code(1);
    assert!(end.stderr.contains("is damaged and goes"), "{end}");
    // Of this machine, which offline builds may ask.
    assert!(end.stderr.contains("gave up after"), "{end}");
    assert!(!pinned.exists());

    // They are listed and collected with the others.
    let list = finish(env.amiforge().args(["cache", "list", "--json"])).expect_code(0);
    let before = list.json()["downloads"]["files"].as_u64().unwrap();
    run(tool("touch")
        .args(["-d", "2000-01-01"])
        .arg(kept.join(format!("sha512-{sum}"))));
    finish(env.amiforge().args(["cache", "gc", "--keep", "9000d"])).expect_code(0);
    let list = finish(env.amiforge().args(["cache", "list", "--json"])).expect_code(0);
    assert_eq!(list.json()["downloads"]["files"], before - 1, "{list}");
    assert_eq!(names(&kept).len(), 1);
}

#[test]
fn an_updated_lock_brings_its_downloads_and_a_step_without_a_network_gets_none() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    fs_err::write(web.join("tool"), "tool").unwrap();
    let server = FileServer::start(&web);
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Tool\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{}/tool', destination: /opt/tool}}\n",
            server.url()
        ),
    );
    let recipe = tiny.container("fetching", &["fetch.yaml"], "");
    let kept = env.state().join("cache/v1/downloads");
    let update = |more: &[&str]| {
        let mut command = env.amiforge();
        finish(command.args(["lock", "update"]).args(more).arg(&recipe)).expect_code(0)
    };
    update(&["--dry-run"]);
    assert!(!kept.exists(), "nothing is kept of a look");
    update(&[]);
    assert_eq!(names(&kept).len(), 1);
    drop(server);
    build(&env, &recipe, &["--locked", "--offline"]).expect_code(0);

    let cut_off = tiny.container("cut-off", &["fetch.yaml"], "  network: none\n");
    let end = build(&env, &cut_off, &["--locked", "--offline"]).expect_code(1);
    assert!(end.stderr.contains("gave up after"), "{end}");
}

#[test]
fn a_record_of_downloads_that_a_kill_left_to_another_file_is_not_believed() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    let server = FileServer::start(&web);
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Tool\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{}/tool', destination: /opt/tool}}\n",
            server.url()
        ),
    );
    let recipe = tiny.container("fetching", &["fetch.yaml"], "");
    // Builds what the server has now. The lock, and whether the step ran again.
    let built = |content: &str, args: &[&str]| {
        fs_err::write(web.join("tool"), content).unwrap();
        let _ = fs_err::remove_dir_all(env.path("out"));
        let asked = server.requests().len();
        let end = build(&env, &recipe, args).expect_code(0);
        let lock = fs_err::read(env.path("out/lock.json")).unwrap();
        let lock: Value = serde_json::from_slice(&lock).unwrap();
        let digest = lock["downloads"][0]["sha256"].as_str().unwrap().to_owned();
        (digest, server.requests().len() > asked, end)
    };
    let sum = |content: &str| {
        let file = env.write("sum", content);
        run(tool("sha256sum").arg(file)).text()[..64].to_owned()
    };
    assert_eq!(built("first", &[]).0, sum("first"));
    let plan = fs_err::read(env.path("out/plan.json")).unwrap();
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    let id = plan["layers"][2]["id"].as_str().unwrap();
    let store = env.state().join("store/v1");
    let record = store.join(format!("records/build-results/{id}.json"));
    let layer = store.join(format!("layers/{id}.layer"));
    let first = (
        fs_err::read(&record).unwrap(),
        fs_err::read(&layer).unwrap(),
    );
    let again = built("second", &["--rebuild"]);
    assert_eq!((again.0.as_str(), again.1), (&*sum("second"), true));
    // Nothing is made again of what fits.
    let unchanged = built("third", &[]);
    assert_eq!(
        (unchanged.0.as_str(), unchanged.1),
        (&*sum("second"), false)
    );

    let left: [(&str, &dyn Fn()); 3] = [
        ("the layer is of a later run", &|| {
            fs_err::write(&record, &first.0).unwrap()
        }),
        ("the record is of a later run", &|| {
            fs_err::write(&layer, &first.1).unwrap()
        }),
        ("the record is missing", &|| {
            fs_err::remove_file(&record).unwrap()
        }),
    ];
    for (at, (what, leave)) in left.into_iter().enumerate() {
        leave();
        let content = format!("after {at}");
        let (digest, asked, end) = built(&content, &[]);
        assert_eq!(digest, sum(&content), "{what}: {end}");
        assert!(asked, "{what}: {end}");
        let told = "how it was made is not known of the one in the store";
        assert!(end.stderr.contains(told), "{what}: {end}");
    }
}
