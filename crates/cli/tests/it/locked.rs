//! `build --locked`, and downloads that do not come to their end.

use std::path::Path;
use std::time::Duration;

use amiforge_testkit::{Env, Fault, FileServer, Finished, Running, finish};

use crate::tiny::Tiny;
use crate::web::{Web, names, steps, verify_sums};

const LIMIT: Duration = Duration::from_secs(300);

fn json(path: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// Builds as far as it goes: a tiny archive has no shell to configure its packages with.
fn unpacked(env: &Env, recipe: &Path, args: &[&str]) -> (Finished, serde_json::Value) {
    let end = finish(
        env.amiforge()
            .args(["build", "--no-test", "--out"])
            .arg(env.path("out"))
            .arg(recipe)
            .args(args),
    )
    .expect_code(1);
    assert!(end.stderr.contains("packages configured"), "{end}");
    let plan = json(env.path("out.failed/plan.json"));
    (end, plan["layers"][0]["id"].clone())
}

#[test]
fn a_locked_build_repeats_what_the_archive_no_longer_has() {
    let env = Env::new();
    let old = [("tiny-a", "1.0", "first"), ("tiny-b", "1.0", "same")];
    let tiny = Tiny::new(&env, &old);
    let server = FileServer::start(&tiny.root());
    let recipe = tiny.recipe(&server.url(), "[tiny-a]");
    let (_, first) = unpacked(&env, &recipe, &[]);
    let lock = env.path("lock.json");
    fs_err::copy(env.path("out.failed/lock.json"), &lock).unwrap();

    tiny.publish(&[("tiny-a", "1.1", "second"), ("tiny-b", "1.0", "same")]);
    // A Release file is not asked for again within a minute; this one is read as if for the first time.
    fs_err::remove_dir_all(env.state().join("cache/v1/releases")).unwrap();
    let (end, second) = unpacked(&env, &recipe, &[]);
    assert_ne!(second, first, "{end}");

    let asked = server.requests().len();
    for args in [&["--locked"][..], &["--locked", "--offline"]] {
        let (end, again) = unpacked(&env, &recipe, args);
        assert_eq!(again, first, "{end}");
        assert!(end.stderr.contains("lock.json"), "{end}");
        let kept = fs_err::read(env.path("out.failed/lock.json")).unwrap();
        assert!(
            kept == fs_err::read(&lock).unwrap(),
            "the lock is kept as it is"
        );
    }
    assert_eq!(server.requests().len(), asked, "nobody is asked");

    // Where neither the cache nor the archive has it: by name, with what to do.
    let empty = Env::new();
    for (args, package, told) in [
        (
            &["--locked"][..],
            "package tiny-a 1.0",
            "does not have this file any more",
        ),
        // Both are missing, and whichever is looked for first is told.
        (
            &["--locked", "--offline"],
            "package tiny-",
            "not in the cache",
        ),
    ] {
        let end = finish(
            empty
                .amiforge()
                .args(["build", "--no-test", "--out"])
                .arg(empty.path("out"))
                .arg(&recipe)
                .args(args),
        )
        .expect_code(1);
        let error = end.stderr.split_once("error: ").unwrap().1;
        for text in [package, told, "hint: "] {
            assert!(error.contains(text), "no `{text}` in\n{end}");
        }
    }
}

#[test]
fn a_lock_that_does_not_fit_or_cannot_be_read_is_a_clear_error() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a"), ("tiny-b", "1.0", "b")]);
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = tiny.recipe(&mirror, "[tiny-a]");
    let locked = |told: &[&str]| {
        let end = finish(
            env.amiforge()
                .args(["build", "--no-test", "--locked", "--out"])
                .arg(env.path("out"))
                .arg(&recipe),
        )
        .expect_code(2);
        for text in told {
            assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
        }
        assert!(!env.path("out").exists(), "{end}");
    };
    locked(&["neither", "out/lock.json", "build once without --locked"]);
    unpacked(&env, &recipe, &[]);
    let lock = env.path("lock.json");
    fs_err::copy(env.path("out.failed/lock.json"), &lock).unwrap();

    tiny.recipe(&mirror, "[tiny-a, tiny-b]");
    locked(&["does not fit the recipe", "tiny-b is new"]);
    tiny.recipe("file:///somewhere/else", "[tiny-a]");
    locked(&["does not fit the recipe", "mirror is another"]);
    tiny.recipe(&mirror, "[tiny-a]");

    let whole = fs_err::read(&lock).unwrap();
    fs_err::write(&lock, &whole[..whole.len() / 2]).unwrap();
    locked(&["lock.json cannot be used", "it is not a lock", "line "]);
    fs_err::write(
        &lock,
        String::from_utf8(whole.clone())
            .unwrap()
            .replace("\"format\": 2", "\"format\": 9"),
    )
    .unwrap();
    locked(&["lock.json cannot be used", "it has format 9"]);
    fs_err::write(
        &lock,
        String::from_utf8(whole)
            .unwrap()
            .replace("pool/tiny-a", "../tiny-a"),
    )
    .unwrap();
    locked(&[
        "lock.json cannot be used",
        "(tiny-a): not the path of a package",
    ]);
    fs_err::remove_file(&lock).unwrap();
    amiforge_testkit::run(amiforge_testkit::tool("mkfifo").arg(&lock));
    locked(&["lock.json", "not a regular file"]);
}

/// An environment that has everything but the packages and the layer that they unpack to, and a
/// server that has the packages.
fn without_packages(web: &Web) -> (Env, FileServer, std::path::PathBuf) {
    let env = web.env();
    let mut lock = json(web.out().join("lock.json"));
    let layer = json(web.out().join("plan.json"))["layers"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    fs_err::remove_file(env.state().join(format!("store/v1/layers/{layer}.layer"))).unwrap();
    let archives = archives(&env);
    let mirror = env.path("mirror");
    let server = FileServer::start(&mirror);
    for package in lock["packages"].as_array_mut().unwrap() {
        let deb = archives.join(format!("{}.deb", package["sha256"].as_str().unwrap()));
        let place = mirror.join(package["filename"].as_str().unwrap());
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
        fs_err::rename(deb, place).unwrap();
        package["uri"] = server.url().into();
    }
    let recipe = env.path("recipe");
    amiforge_testkit::run(
        amiforge_testkit::tool("cp")
            .arg("-r")
            .arg(amiforge_testkit::workspace_root().join("recipes/debian-web"))
            .arg(&recipe),
    );
    // The recipe names the server, so that the host's own archive is no second place to ask at.
    lock["asked"]["mirror"] = server.url().into();
    let text = fs_err::read_to_string(recipe.join("recipe.yaml")).unwrap();
    fs_err::write(
        recipe.join("recipe.yaml"),
        text.replace(
            "amiforge:\n",
            &format!("amiforge:\n  apt: {{mirror: \"{}\"}}\n", server.url()),
        ),
    )
    .unwrap();
    fs_err::write(recipe.join("lock.json"), serde_json::to_vec(&lock).unwrap()).unwrap();
    (env, server, recipe)
}

fn archives(env: &Env) -> std::path::PathBuf {
    let dir = env.state().join("cache/v1/archives");
    assert!(dir.is_dir(), "{} is the package cache", dir.display());
    dir
}

/// The file name in the pool of the largest package: it is under way the longest.
fn largest(web: &Web) -> (String, String) {
    let lock = json(web.out().join("lock.json"));
    let package = lock["packages"]
        .as_array()
        .unwrap()
        .iter()
        .max_by_key(|p| p["size"].as_u64())
        .unwrap()
        .clone();
    let text = |name: &str| package[name].as_str().unwrap().to_owned();
    let file = text("filename").rsplit('/').next().unwrap().to_owned();
    (file, text("sha256"))
}

/// Every package of the cache has the bytes that its name promises.
#[track_caller]
fn no_half_file_has_a_whole_name(env: &Env) {
    for name in names(&archives(env)) {
        if let Some(sum) = name.strip_suffix(".deb") {
            let file = archives(env).join(&name);
            let found = amiforge_testkit::run(amiforge_testkit::tool("sha256sum").arg(file)).text();
            assert!(found.starts_with(sum), "{name}: {found}");
        }
    }
}

fn locked(env: &Env, recipe: &Path) -> std::process::Command {
    let mut command = env.amiforge();
    command
        .args(["build", "--no-test", "--locked", "--out"])
        .arg(env.path("out"))
        .arg(recipe);
    command
}

#[test]
fn image_a_download_that_is_interrupted_goes_on_where_it_stopped() {
    let web = Web::get();
    let (env, server, recipe) = without_packages(&web);
    let (file, sum) = largest(&web);
    let partial = archives(&env).join(format!("{sum}.partial"));
    let part = 1 << 20;
    let length = || std::fs::metadata(&partial).map_or(0, |m| m.len());

    server.fault(&file, Fault::StallAfter(part), 1);
    let mut running = Running::spawn(&mut locked(&env, &recipe));
    running.wait_until("the stall", LIMIT, |_| length() == part);
    running.interrupt();
    let end = running.wait(LIMIT).expect_code(130);
    assert!(!env.path("out").exists(), "{end}");
    no_half_file_has_a_whole_name(&env);

    server.fault(&file, Fault::StallAfter(part), 1);
    let mut running = Running::spawn(&mut locked(&env, &recipe));
    running.wait_until("the second stall", LIMIT, |_| length() == 2 * part);
    let end = running.kill9();
    assert!(!env.path("out").exists(), "{end}");
    no_half_file_has_a_whole_name(&env);

    let end = env.run(&mut locked(&env, &recipe));
    let asked: Vec<String> = server
        .requests()
        .into_iter()
        .filter(|r| r.contains(&file))
        .collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1].ends_with(&format!(" {part}-")), "{asked:?}");
    assert!(asked[2].ends_with(&format!(" {}-", 2 * part)), "{asked:?}");
    assert_eq!(
        steps(&end),
        Vec::<String>::new(),
        "the layers above are cached\n{end}"
    );
    verify_sums(&env.path("out"));
    let digest =
        |out: &Path| json(out.join("manifest.json"))["volumes"][0]["contentDigest"].clone();
    assert_eq!(digest(&env.path("out")), digest(&web.out()));
    let left: Vec<String> = names(&archives(&env))
        .into_iter()
        .filter(|n| !n.ends_with(".deb"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    no_half_file_has_a_whole_name(&env);

    // The same lock without a network and without the server.
    drop(server);
    let end = env.run(locked(&env, &recipe).arg("--offline"));
    assert!(end.stderr.contains("unchanged"), "{end}");
}

#[test]
fn image_a_mirror_that_always_stops_half_way_is_one_clear_error() {
    let web = Web::get();
    let (env, server, recipe) = without_packages(&web);
    let (file, _) = largest(&web);
    server.fault(&file, Fault::CloseAfter(1000), 1000);
    let end = finish(&mut locked(&env, &recipe)).expect_code(1);
    let error = end.stderr.split_once("error: ").unwrap().1;
    let package = file.split('_').next().unwrap();
    for text in ["cannot fetch the packages", package, "hint: "] {
        assert!(error.contains(text), "no `{text}` in\n{end}");
    }
    assert!(!env.path("out").exists(), "{end}");
    no_half_file_has_a_whole_name(&env);
}
