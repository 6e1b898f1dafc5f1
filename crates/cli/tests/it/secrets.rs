//! Secrets of recipes: in files of memory while steps run, and nowhere else.

use std::path::Path;

use amiforge_testkit::{Env, Finished, finish, tool};

use crate::tiny::{Tiny, planned_layers};

const TOKEN: &str = "tok-5f1ff09a7c-EN";
const KEY: &str = "-----PRIVATE-9a8b7c-----\nsecond-line-of-the-key";
const PRINTED: &str = "printed-by-a-command-77";

/// Looks at the files, uses them, and tells them in every way it can.
const USER: &str = "\
name: user
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Use
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              cd /run/secrets; mkdir /opt; ls >/opt/names
              stat -c '%a %U %s' token; grep ' /run ' /proc/mounts | cut -d ' ' -f 3 >/opt/where
              test \"$(sha256sum <token | head -c 64)\" = DIGEST; test \"$(wc -l <key)\" = 2
              echo \"here: $(cat token), $(cat key), $(cat printed)\"; cat token >&2
              base64 token; echo; base64 printed
              ! env | grep -q tok-5f1ff
      - name: Read
        action: ReadFile
        inputs: [{path: /run/secrets/token}]
  - name: validate
    steps:
      - name: There
        action: ExecuteBash
        inputs: {commands: [test -s /run/secrets/key]}
";

fn build(env: &Env, recipe: &Path, more: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .env("TOKEN", TOKEN)
            .args(["build", "--events"])
            .arg(env.path("events.jsonl"))
            .arg("--out")
            .args([&env.path("out"), recipe])
            .args(more),
    )
}

fn prepared(env: &Env) -> (Tiny<'_>, std::path::PathBuf) {
    let tiny = Tiny::with_shell(env, &[]);
    let digest = amiforge_types::Digest::of(TOKEN.as_bytes()).hex();
    env.write("user.yaml", USER.replace("DIGEST", &digest));
    env.write("key.pem", KEY.to_owned() + "\n");
    let config = env.state().join("config.yaml");
    fs_err::create_dir_all(env.state()).unwrap();
    let command = "printf '%s\\n' printed-by-a-command-$((70+7))";
    fs_err::write(
        &config,
        format!(
            "secrets:\n  token: {{env: TOKEN}}\n  printed: {{command: \"{}\"}}\n",
            command.replace('\\', "\\\\")
        ),
    )
    .unwrap();
    let recipe = tiny.container(
        "secretive",
        &["user.yaml"],
        "  secrets: [token, key, printed]\n",
    );
    (tiny, recipe)
}

#[test]
fn steps_find_secrets_in_files_and_nothing_else_ever_has_them() {
    let env = Env::new();
    let (tiny, recipe) = prepared(&env);
    let key = format!("key=file:{}", env.path("key.pem").display());
    let end = build(&env, &recipe, &["--secret", &key]).expect_code(0);
    assert!(end.stderr.contains("400 root 17"), "{end}");
    assert!(end.stderr.contains("here: ********, ********"), "{end}");
    assert!(env.path("out/manifest.json").is_file());

    // In the clear, coded, and as a part of a file with the programs that wrote it.
    let mut traces = vec![TOKEN.to_owned(), PRINTED.to_owned()];
    traces.extend(KEY.lines().map(str::to_owned));
    for text in [TOKEN, PRINTED] {
        let mut base64 = tool("sh");
        base64.args(["-c", "printf %s \"$1\" | base64 | tr -d =", "sh", text]);
        traces.push(amiforge_testkit::run(&mut base64).text().trim().to_owned());
    }
    for trace in &traces {
        for text in [&end.stderr, &end.text()] {
            assert!(!text.contains(trace.as_str()), "{trace} in\n{end}");
        }
        for place in [
            env.state().join("store"),
            env.path("out"),
            env.path("events.jsonl"),
        ] {
            let mut grep = tool("grep");
            grep.args(["-raFl", "-e", trace]).arg(&place);
            let found = finish(&mut grep);
            assert_eq!(found.text(), "", "{trace} in {}", place.display());
        }
        // The layers of the image are compressed.
        let mut tars = tool("sh");
        tars.args(["-c", "for f in \"$1\"/*; do gzip -dcf \"$f\" | grep -aqF -e \"$2\" && echo \"$f\"; done; true", "sh"]);
        tars.arg(env.path("out/oci/blobs/sha256")).arg(trace);
        assert_eq!(finish(&mut tars).text(), "", "{trace}");
    }

    // Nothing of a value is in an id; a name is.
    let ids = |tail: &str, token: &str| {
        let recipe = tiny.container("secretive", &["user.yaml"], tail);
        let mut command = env.amiforge();
        command
            .env("TOKEN", token)
            .args(["plan", "--json"])
            .arg(recipe);
        let plan = env.run(command.args(["--secret", &key])).json();
        plan["layers"][2]["id"].as_str().unwrap().to_owned()
    };
    let all = "  secrets: [token, key, printed]\n";
    assert_eq!(ids(all, TOKEN), ids(all, "another-value"));
    assert_ne!(ids(all, TOKEN), ids("  secrets: [key, printed]\n", TOKEN));
    let end = build(
        &env,
        &recipe,
        &["--secret", "other=env:TOKEN", "--secret", &key],
    )
    .expect_code(2);
    assert!(
        end.stderr.contains("the recipe names no such secret"),
        "{end}"
    );
}

#[test]
fn a_secret_that_cannot_be_had_is_told_with_its_place_and_without_its_value() {
    let env = Env::new();
    let (tiny, recipe) = prepared(&env);
    let end = build(&env, &recipe, &[]).expect_code(2);
    for text in [
        "error[unresolved-secret]",
        "the secret key has no source",
        "secretive.yaml:",
        "--secret key=env:NAME",
    ] {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
    let end = build(&env, &recipe, &["--secret", "key=env:NO_SUCH_VARIABLE"]).expect_code(2);
    assert!(
        end.stderr.contains("NO_SUCH_VARIABLE, which is not set"),
        "{end}"
    );
    let end = build(&env, &recipe, &["--secret", "key=file:/no/such/file"]).expect_code(2);
    assert!(
        end.stderr.contains("/no/such/file, which is not there"),
        "{end}"
    );
    let end = build(&env, &recipe, &["--secret", "key"]).expect_code(2);
    assert!(end.stderr.contains("NAME=env:VARIABLE"), "{end}");
    let failing = "key=command:echo half-of-a-value-1; echo the vault is closed >&2; exit 3";
    let end = build(&env, &recipe, &["--secret", failing]).expect_code(1);
    for text in [
        "the command for the secret key failed",
        "exit status: 3",
        "| the vault is closed",
        "secretive.yaml:",
    ] {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
    assert!(!end.stderr.contains("half-of-a-value-1"), "{end}");
    // Nothing ran, so nothing is missing of what it left.
    assert!(!end.stderr.contains("warning: the files of"), "{end}");
    let end = build(&env, &recipe, &["--secret", "key=command:printf abc"]).expect_code(2);
    assert!(end.stderr.contains("3 bytes"), "{end}");

    // A step that writes one into the image ends the build.
    let copying = "name: copying\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
                   - name: Copy\n        action: CopyFile\n        inputs: [{source: /run/secrets/token, destination: /srv/token}]\n";
    env.write("copying.yaml", copying);
    let copies = tiny.container("copies", &["copying.yaml"], "  secrets: [token]\n");
    let end = build(&env, &copies, &[]).expect_code(1);
    assert!(
        end.stderr
            .contains("/srv/token: the secret token (from copying, step Copy)"),
        "{end}"
    );
    assert!(!end.stderr.contains(TOKEN), "{end}");

    // A check of the documents goes on without; names cannot lead elsewhere.
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(0);
    assert!(end.stderr.contains("warning[unresolved-secret]"), "{end}");
    let recipe = tiny.container("secretive", &["user.yaml"], "  secrets: [../token]\n");
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(2);
    assert!(
        end.stderr.contains("cannot be the name of a secret"),
        "{end}"
    );
    assert!(planned_layers(&env, &tiny.container("plain", &["user.yaml"], ""), &[]).len() == 3);
}

/// Without namespaces `/run` is a folder of the store, and secrets are lent where that is in memory.
#[test]
fn in_a_changed_root_secrets_need_a_store_in_memory() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    env.write(
        "look.yaml",
        "name: look\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Look\n        \
         action: ExecuteBash\n        inputs: {commands: [grep -c tok- /run/secrets/token]}\n",
    );
    let recipe = tiny.container("looks", &["look.yaml"], "  secrets: [token]\n");
    let build = |home: &Path| {
        let mut command = env.amiforge();
        command
            .env("TOKEN", TOKEN)
            .env("AMIFORGE_HOME", home)
            .args([
                "--sandbox",
                "chroot",
                "build",
                "--secret",
                "token=env:TOKEN",
            ])
            .args(["--out".as_ref(), env.path("out").as_os_str()])
            .arg(&recipe);
        finish(&mut command)
    };
    let mut kind = tool("stat");
    let kind = amiforge_testkit::run(kind.args(["-f", "-c", "%T"]).arg(env.path("")));
    if kind.text().trim() != "tmpfs" {
        let end = build(&env.state()).expect_code(1);
        for text in [
            "error: ./look.yaml: secrets cannot be put into /run/secrets: /run is not in memory",
            "hint: with --sandbox chroot",
            "AMIFORGE_HOME=/dev/shm/amiforge",
        ] {
            assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
        }
    }
    let memory = format!("/dev/shm/amiforge-test-{}", std::process::id());
    let memory = Path::new(&memory);
    fs_err::create_dir(memory).unwrap();
    let end = build(memory);
    fs_err::remove_dir_all(memory).unwrap();
    end.expect_code(0);
}
