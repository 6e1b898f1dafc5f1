//! `lock update`, and downloads of steps in locks.

use std::path::Path;

use amiforge_testkit::{Env, FileServer, Finished, finish, run, tool};
use serde_json::{Value, json};

use crate::tiny::Tiny;

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

fn amiforge(env: &Env, args: &[&str], recipe: &Path) -> Finished {
    finish(env.amiforge().args(args).arg(recipe))
}

/// A Release file is not asked for again within a minute; the next is read as if for the first time.
fn forget_releases(env: &Env) {
    fs_err::remove_dir_all(env.state().join("cache/v1/releases")).unwrap();
}

#[test]
fn an_updated_lock_tells_packages_by_debians_order_and_is_what_a_locked_build_takes() {
    let env = Env::new();
    let tiny = Tiny::with_shell(
        &env,
        &[
            ("tiny-a", "1.9", "a"),
            ("tiny-b", "2:1.0", "b"),
            ("tiny-c", "1.0", "c"),
            ("tiny-d", "1.0", "d"),
        ],
    );
    let recipe = tiny.container("plain", &["nothing.yaml"], "");
    env.write(
        "nothing.yaml",
        "name: nothing\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - name: Nothing\n        action: ExecuteBash\n        inputs: {commands: [\"true\"]}\n",
    );
    let lock = env.path("lock.json");
    let first = amiforge(&env, &["lock", "update", "--dry-run"], &recipe).expect_code(0);
    assert!(first.text().contains("added      tiny-a 1.9"), "{first}");
    assert!(!lock.exists(), "{first}");
    amiforge(&env, &["lock", "update", "--check"], &recipe).expect_code(1);
    let end = amiforge(&env, &["lock", "update"], &recipe).expect_code(0);
    assert!(end.text().ends_with("lock.json\n"), "{end}");
    let before = fs_err::read(&lock).unwrap();
    let end = amiforge(&env, &["lock", "update", "--check"], &recipe).expect_code(0);
    assert!(end.text().starts_with("unchanged  "), "{end}");

    tiny.publish(&[
        ("tiny-a", "1.10", "a"),
        ("tiny-b", "9.0", "b"),
        ("tiny-d", "1.0", "other"),
        ("tiny-e", "1.0", "e"),
    ]);
    forget_releases(&env);
    let mut args = vec!["lock", "update", "--check", "--json"];
    let report = amiforge(&env, &args, &recipe).expect_code(1).json();
    let rows: Vec<String> = report["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            format!("{} {} {} {}", p["name"], p["change"], p["old"], p["new"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        rows,
        [
            "tiny-a upgraded 1.9 1.10",
            "tiny-b downgraded 2:1.0 9.0",
            "tiny-c removed 1.0 null",
            "tiny-d rebuilt 1.0 1.0",
            "tiny-e added null 1.0",
        ]
    );
    assert_eq!(report["written"], false);
    assert_eq!(
        report["inputs"].as_array().unwrap().len(),
        1,
        "the archive's date: {report}"
    );
    assert_eq!(fs_err::read(&lock).unwrap(), before);
    args.retain(|a| *a != "--check");
    let report = amiforge(&env, &args, &recipe).expect_code(0).json();
    assert_eq!(report["written"], true);
    let out = env.path("out");
    let end = finish(
        env.amiforge()
            .args(["build", "--locked", "--no-test", "--offline", "--out"])
            .args([&out, &recipe]),
    )
    .expect_code(0);
    assert_eq!(
        fs_err::read(out.join("lock.json")).unwrap(),
        fs_err::read(&lock).unwrap(),
        "{end}"
    );

    // What cannot be read is told, and replaced.
    fs_err::write(&lock, "{").unwrap();
    let end = amiforge(&env, &["lock", "update"], &recipe).expect_code(0);
    assert!(end.stderr.contains("everything counts as new"), "{end}");
    assert_eq!(read(&lock), read(out.join("lock.json")));
}

#[test]
fn a_download_of_a_step_is_pinned_and_a_locked_build_refuses_another() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    fs_err::write(web.join("tool"), "first").unwrap();
    fs_err::write(web.join("other"), "same").unwrap();
    let server = FileServer::start(&web);
    let url = server.url();
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nparameters:\n  - File: {{type: string, default: tool}}\n\
             phases:\n  - name: build\n    steps:\n      \
             - name: Tool\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{url}/{{{{ File }}}}', destination: /opt/tool}}\n      \
             - name: Quiet\n        action: WebDownload\n        disableLogging: true\n        inputs:\n          \
             - {{source: '{url}/other', destination: /opt/other}}\n"
        ),
    );
    let recipe = tiny.container("fetching", &["fetch.yaml"], "");
    let out = env.path("out");
    let build = |more: &[&str], code: i32| {
        finish(
            env.amiforge()
                .args(["build", "--no-test", "--out"])
                .args([&out, &recipe])
                .args(more),
        )
        .expect_code(code)
    };
    build(&[], 0);
    let digest = |text: &str| amiforge_types::Digest::of(text.as_bytes()).to_string();
    let lock = read(out.join("lock.json"));
    let quiet = amiforge_types::Digest::of(format!("{url}/other").as_bytes()).hex();
    assert_eq!(
        lock["downloads"],
        json!([
            {"source": format!("hidden:{}", &quiet[..32]), "sha256": digest("same"), "bytes": 4},
            {"source": format!("{url}/tool"), "sha256": digest("first"), "bytes": 5},
        ])
    );
    assert_eq!(lock["format"], 2);
    fs_err::copy(out.join("lock.json"), env.path("lock.json")).unwrap();

    // The layer of the store is what the lock has; whoever makes it again meets the other file.
    fs_err::write(web.join("tool"), "second").unwrap();
    build(&["--locked"], 0);
    build(&["--locked", "--offline"], 0);
    let end = build(&["--locked", "--rebuild"], 1);
    let told = format!(
        "{url}/tool is no longer what the lock has: that is sha256 {}, this is {}",
        digest("first"),
        digest("second")
    );
    assert!(end.stderr.contains(&told), "{end}");

    let end = amiforge(&env, &["lock", "update"], &recipe).expect_code(0);
    assert_eq!(
        end.text(),
        format!(
            "changed    {url}/tool: sha256 {} -> sha256 {}\nwrote      {}\n",
            digest("first"),
            digest("second"),
            env.path("lock.json").display()
        ),
        "{end}"
    );
    // Now it is the layer that is not what the lock has.
    let end = build(&["--locked"], 2);
    assert!(
        end.stderr.contains("--rebuild makes the layers again"),
        "{end}"
    );
    build(&["--locked", "--rebuild"], 0);
    assert_eq!(read(out.join("lock.json")), read(env.path("lock.json")));
    build(&["--locked"], 0);

    // One that the lock does not know.
    let mut lock = read(env.path("lock.json"));
    lock["downloads"].as_array_mut().unwrap().remove(1);
    env.write("lock.json", lock.to_string());
    let end = build(&["--locked", "--rebuild"], 1);
    assert!(end.stderr.contains("/tool is not in the lock"), "{end}");
    let end = build(&["--locked"], 2);
    assert!(end.stderr.contains("the lock has nothing of it"), "{end}");
    lock["downloads"][0]["source"] = "a\nb".into();
    env.write("lock.json", lock.to_string());
    let end = build(&["--locked"], 2);
    assert!(
        end.stderr.contains("downloads[0].source: not the address"),
        "{end}"
    );
}

#[test]
fn a_lock_that_serves_several_recipes_says_so_where_it_does_not_fit_one() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let web = env.path("web");
    fs_err::create_dir_all(&web).unwrap();
    fs_err::write(web.join("tool"), "tool").unwrap();
    let server = FileServer::start(&web);
    let url = server.url();
    env.write(
        "fetch.yaml",
        format!(
            "name: fetch\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
             - name: Tool\n        action: WebDownload\n        inputs:\n          \
             - {{source: '{url}/tool', destination: /opt/tool}}\n"
        ),
    );
    env.write(
        "write.yaml",
        "name: write\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Write\n        \
         action: CreateFile\n        inputs: [{path: /written, content: written}]\n",
    );
    let fetching = tiny.container("fetching", &["fetch.yaml"], "");
    let locked = |recipe: &Path, code: i32| {
        finish(
            env.amiforge()
                .args(["build", "--no-test", "--locked", "--out"])
                .args([&env.path("out"), recipe]),
        )
        .expect_code(code)
    };
    let lock = env.path("lock.json");
    let shared = format!("{} serves all recipes of its folder", lock.display());
    // Alone in its folder, a recipe has nobody to share it with.
    fs_err::write(
        &lock,
        "{\"format\": 3, \"parent\": \"scratch\", \"resolved\": {\"type\": \"scratch\"}}",
    )
    .unwrap();
    let end = locked(&fetching, 2);
    let update = format!("amiforge lock update {}", fetching.display());
    assert!(
        end.stderr.contains(&update) && !end.stderr.contains(&shared),
        "{end}"
    );

    let plain = tiny.container("plain", &["write.yaml"], "");
    let text = fs_err::read_to_string(&plain).unwrap();
    let text = text
        .replace("debian:tiny", "scratch")
        .replace("name: plain", "name: bare");
    let bare = env.write("bare.yaml", &text[..text.find("amiforge:").unwrap()]);
    amiforge(&env, &["lock", "update"], &plain).expect_code(0);
    let end = locked(&bare, 2);
    for told in [
        "the lock is of debian:tiny, the recipe says scratch",
        &format!("hint: {shared}, fetching.yaml, plain.yaml too"),
        "and is of debian:tiny, the parent of fetching.yaml, plain.yaml. ",
        "needs a folder of its own",
        &format!("`amiforge lock update {}`", bare.display()),
    ] {
        assert!(end.stderr.contains(told), "no `{told}` in\n{end}");
    }

    // The same where only a download is missing: of a step that runs, and of a layer that is there.
    let end = locked(&fetching, 1);
    let told = format!(
        "hint: {shared}, bare.yaml, plain.yaml too, and is of debian:tiny, the parent of plain.yaml"
    );
    assert!(end.stderr.contains("/tool is not in the lock"), "{end}");
    assert!(end.stderr.contains(&told), "{end}");
    finish(
        env.amiforge()
            .args(["build", "--no-test", "--out"])
            .args([&env.path("out"), &fetching]),
    )
    .expect_code(0);
    let end = locked(&fetching, 2);
    let told = format!("the lock has nothing of it ({})", lock.display());
    assert!(
        end.stderr.contains(&told) && end.stderr.contains(&shared),
        "{end}"
    );
}

#[test]
fn an_update_tells_the_changelogs_of_upgraded_packages() {
    let env = Env::new();
    let both = |version: &'static str| {
        [
            ("tiny-a", version, "a"),
            ("tiny-b", version, "b"),
            ("tiny-c", "1.0", "c"),
        ]
    };
    let tiny = Tiny::with_shell(&env, &both("1.0-1"));
    let recipe = tiny.container("plain", &["nothing.yaml"], "");
    env.write(
        "nothing.yaml",
        "name: nothing\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - name: Nothing\n        action: ExecuteBash\n        inputs: {commands: [\"true\"]}\n",
    );
    amiforge(&env, &["lock", "update"], &recipe).expect_code(0);
    let entry = |version: &str, text: &str| {
        format!(
            "tiny ({version}) sid; urgency=low\n\n  * {text}\n\n -- A B <a@example.org>  Mon, 02 Mar 2026 10:00:00 +0000\n\n"
        )
    };
    let log = [
        entry("1.10-1", "Newest \u{1b}[31mred\u{1b}[0m."),
        entry("1.9-1", "Between."),
        entry("1.0-1", "Known."),
        entry("0.9-1", "Old."),
    ]
    .concat();
    for name in ["tiny-a", "tiny-b"] {
        env.write(format!("build/{name}-1.10-1.source"), "Source: tiny\n");
        let docs = format!("build/{name}-1.10-1/usr/share/doc/{name}");
        let log = env.write(format!("{docs}/changelog.Debian"), &log);
        run(tool("gzip").arg("-n").arg(log));
    }
    tiny.publish(&both("1.10-1"));
    forget_releases(&env);
    let archives = env.state().join("cache/v1/archives");
    let cached = || fs_err::read_dir(&archives).map_or(0, Iterator::count);
    // Without the option nothing is brought.
    let before = cached();
    let end = amiforge(&env, &["lock", "update", "--check"], &recipe).expect_code(1);
    assert!(!end.text().contains("Newest"), "{end}");
    assert_eq!(cached(), before);
    let args = ["lock", "update", "--check", "--changelog", "--json"];
    let report = amiforge(&env, &args, &recipe).expect_code(1).json();
    let packages = report["packages"].as_array().unwrap();
    let first = &packages[0]["changelog"];
    let told: Vec<&Value> = first["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["version"])
        .collect();
    assert_eq!(told, ["1.10-1", "1.9-1"], "{report:#}");
    assert_eq!(first["source"], "tiny");
    assert_eq!(
        first["entries"][0],
        json!({
            "source": "tiny", "version": "1.10-1", "distributions": "sid", "urgency": "low",
            "changes": ["  * Newest \u{fffd}[31mred\u{fffd}[0m."],
            "maintainer": "A B <a@example.org>", "date": "Mon, 02 Mar 2026 10:00:00 +0000",
        })
    );
    assert_eq!(
        packages[1]["changelog"],
        json!({"source": "tiny", "sameAs": "tiny-a"})
    );
    assert_eq!(cached(), before + 2);
    let end = amiforge(
        &env,
        &["lock", "update", "--changelog", "--offline"],
        &recipe,
    )
    .expect_code(0);
    let text = end.text();
    for line in [
        "upgraded   tiny-a 1.0-1 -> 1.10-1\n    tiny (1.10-1) sid; urgency=low\n      * Newest",
        "\n     -- A B <a@example.org>  Mon, 02 Mar 2026 10:00:00 +0000\n    tiny (1.9-1)",
        "upgraded   tiny-b 1.0-1 -> 1.10-1\n    as tiny-a\n",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{end}");
    }
    assert!(
        !text.contains("Known.") && !text.contains('\u{1b}'),
        "{text}"
    );

    // A package that cannot be had offline, and one without a changelog.
    fs_err::remove_dir_all(&archives).unwrap();
    tiny.publish(&[("tiny-a", "1.11-1", "a"), ("tiny-c", "1.0", "c")]);
    forget_releases(&env);
    let end = amiforge(&env, &["lock", "update", "--check", "--changelog"], &recipe).expect_code(1);
    assert!(
        end.text()
            .contains("no changelog: the package has no changelog"),
        "{end}"
    );
    fs_err::remove_dir_all(&archives).unwrap();
    let args = ["lock", "update", "--check", "--changelog", "--offline"];
    let end = amiforge(&env, &args, &recipe).expect_code(1);
    assert!(
        end.text()
            .contains("no changelog: the package is not in the cache"),
        "{end}"
    );
}
