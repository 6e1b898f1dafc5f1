//! `--cache-from` and `--cache-to`: machines that share layers, by a folder and by Debian's registry; and caches that lie.

use std::path::{Path, PathBuf};
use std::process::Command;

use amiforge_testkit::{
    Answer, Env, Finished, RegistryServer, RegistrySettings, ScriptServer, finish, run, tool,
};
use serde_json::Value;

use crate::tiny::Tiny;
use crate::web::{names, steps};

/// A build phase that gives something out, and a validate phase that takes it.
const FIRST: &str = "\
name: first
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Say
        action: ExecuteBash
        inputs: {commands: ['echo made >/first; date +%N >/when; echo word']}
  - name: validate
    steps:
      - name: Heard
        action: ExecuteBash
        inputs: {commands: ['test \"{{ build.Say.outputs.stdout }}\" = word']}
";
const SECOND: &str = "\
name: second
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Over
        action: ExecuteBash
        inputs: {commands: ['cat /first >/second']}
";
/// Without a layer of its own.
const LOOKS: &str = "\
name: looks
schemaVersion: 1.0
phases:
  - name: validate
    steps:
      - name: Look
        action: ExecuteBash
        inputs: {commands: ['test -f /second']}
";

pub(crate) struct Machines {
    pub(crate) env: Env,
    recipe: PathBuf,
}

impl Machines {
    fn new() -> Self {
        let env = Env::new();
        let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
        for (name, text) in [("first", FIRST), ("second", SECOND), ("looks", LOOKS)] {
            env.write(format!("{name}.yaml"), text);
        }
        let recipe = tiny.container("tiny", &["first.yaml", "second.yaml", "looks.yaml"], "");
        Self { env, recipe }
    }

    /// With a recipe whose two layers are made in no time.
    pub(crate) fn small() -> Self {
        let env = Env::new();
        let recipe = small(&env, &["one", "two"]);
        Self { env, recipe }
    }

    pub(crate) fn home(&self, machine: &str) -> PathBuf {
        self.env.path(format!("home-{machine}"))
    }

    fn command(&self, machine: &str) -> Command {
        let home = self.home(machine);
        fs_err::create_dir_all(&home).unwrap();
        let mut command = self.env.amiforge();
        command.env("AMIFORGE_HOME", home);
        command
    }

    pub(crate) fn new_key(&self, machine: &str) -> String {
        let mut command = self.command(machine);
        let end = finish(command.args(["cache", "key", "new"])).expect_code(0);
        end.text().trim_end().to_owned()
    }

    pub(crate) fn build(&self, machine: &str, args: &[&str]) -> Finished {
        let mut command = self.command(machine);
        command
            .arg("build")
            .arg(&self.recipe)
            .arg("--out")
            .arg(self.env.path(format!("out-{machine}")));
        finish(command.args(args))
    }

    /// The image's bytes, file by file.
    fn image(&self, machine: &str) -> String {
        let sums = self.env.path(format!("out-{machine}/SHA256SUMS"));
        let sums = fs_err::read_to_string(sums).unwrap();
        let lines = sums.lines().filter(|l| !l.contains("  logs/"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Nothing is half done: of a machine, and in a folder that is a cache.
    fn nothing_is_left(&self, machine: &str) {
        let tmp = self.home(machine).join("store/v1/tmp");
        assert_eq!(names(&tmp), Vec::<String>::new());
    }
}

fn events(path: &Path, event: &str) -> Vec<Value> {
    let text = fs_err::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

/// The one that fills the cache, and the one that finds everything in it.
fn nothing_is_made_twice(machines: &Machines, cache: &str) {
    let writer = machines.new_key("a");
    let made = machines.build("a", &["--cache-to", cache]).expect_code(0);
    assert_eq!(made.stderr.matches("   shared ").count(), 4, "{made}");
    assert!(!made.stderr.contains("warning"), "{made}");

    let told = machines.env.path("events");
    let args = ["--cache-from", cache, "--cache-trust", &writer, "--json"];
    let args = [&args[..], &["--events", told.to_str().unwrap()]].concat();
    let taken = machines.build("b", &args).expect_code(0);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
    assert!(!taken.stderr.contains("warning"), "{taken}");
    let from = format!("from cache {cache}");
    assert_eq!(taken.stderr.matches(&from).count(), 4, "{taken}");
    assert!(
        taken
            .stderr
            .contains("4 from shared caches, 0 from the store, 0 made"),
        "{taken}"
    );
    let outcome = taken.json();
    assert_eq!(
        (&outcome["layersBuilt"], &outcome["layersFetched"]),
        (&0.into(), &4.into())
    );
    let fetched = events(&told, "layer-fetched");
    assert!(
        fetched.len() == 4 && fetched.iter().all(|e| e["from"] == cache),
        "{fetched:#?}"
    );
    assert_eq!(machines.image("a"), machines.image("b"));
    machines.nothing_is_left("b");

    // From then on they are its own: no cache is asked.
    fs_err::remove_dir_all(machines.env.path("out-b")).unwrap();
    let again = machines.build("b", &[]).expect_code(0);
    assert_eq!(again.stderr.matches("   cached ").count(), 4, "{again}");
    assert_eq!(steps(&again), Vec::<String>::new(), "{again}");
    assert_eq!(machines.image("a"), machines.image("b"));

    // Whoever trusts nobody makes everything, and is told what there is.
    let alone = machines.build("c", &["--cache-from", cache]).expect_code(0);
    assert!(alone.stderr.contains("no writer is trusted"), "{alone}");
    assert!(steps(&alone).len() == 4, "{alone}");
    let own = machines.new_key("d");
    let alone = machines.build("d", &["--cache-from", cache]).expect_code(0);
    assert_eq!(
        alone
            .stderr
            .matches(&format!("--cache-trust {writer}"))
            .count(),
        1,
        "{alone}"
    );
    assert_eq!(steps(&alone).len(), 4, "{alone}");

    // A second writer's layers stand beside the first one's; each is found by those who trust it.
    let shared = machines.build("d", &["--cache-to", cache]).expect_code(0);
    assert_eq!(
        shared.stderr.matches("   shared ").count(),
        4,
        "unchanged, and shared: {shared}"
    );
    let shared = machines.build("d", &["--cache-to", cache]).expect_code(0);
    assert_eq!(shared.stderr.matches("   shared ").count(), 0, "{shared}");
    for (machine, writer) in [("e", &writer), ("f", &own)] {
        machines.env.write(
            format!("home-{machine}/config.yaml"),
            format!("cacheTrust:\n  - {writer}\n"),
        );
        let taken = machines
            .build(machine, &["--cache-from", cache])
            .expect_code(0);
        assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
        assert!(!taken.stderr.contains("warning"), "{taken}");
    }
    assert_eq!(machines.image("a"), machines.image("e"));
    assert_eq!(machines.image("d"), machines.image("f"));
}

fn openssl_verifies(env: &Env, entry: &Value) {
    let unhex = |text: &str| -> Vec<u8> {
        let digits = (0..text.len()).step_by(2);
        digits
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    let text = |name: &str| entry[name].as_str().unwrap();
    // SubjectPublicKeyInfo of RFC 8410.
    let mut key = unhex("302a300506032b6570032100");
    key.extend(unhex(text("writer").strip_prefix("ed25519:").unwrap()));
    let message = format!("amiforge-cache-entry\n1\n{}", text("payload"));
    run(tool("openssl")
        .args([
            "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey",
        ])
        .arg(env.write("key.der", key))
        .arg("-sigfile")
        .arg(env.write("signature", unhex(text("signature"))))
        .arg("-in")
        .arg(env.write("message", message)));
}

#[test]
fn two_machines_share_a_folder() {
    let machines = Machines::new();
    let folder = machines.env.path("cache");
    nothing_is_made_twice(&machines, &format!("dir:{}", folder.display()));
    let temp = |dir: &str| {
        let names = names(&folder.join(dir)).into_iter();
        names.filter(|name| name.starts_with('.')).count()
    };
    assert_eq!((temp("v1/entries"), temp("v1/blobs")), (0, 0));

    // What is signed, by another implementation of Ed25519.
    for name in names(&folder.join("v1/entries")) {
        let entry = fs_err::read(folder.join("v1/entries").join(name)).unwrap();
        openssl_verifies(&machines.env, &serde_json::from_slice(&entry).unwrap());
    }

    // Keys: not made over another, not readable by others, not needed for reading.
    let mut command = machines.command("a");
    let again = finish(command.args(["cache", "key", "new"])).expect_code(2);
    assert!(again.stderr.contains("there is a key already"), "{again}");
    let mut command = machines.command("b");
    let none = finish(command.args(["cache", "key", "show"])).expect_code(3);
    assert!(none.stderr.contains("amiforge cache key new"), "{none}");
    let none = machines.build("b", &["--cache-to", "cache"]).expect_code(3);
    assert!(none.stderr.contains("amiforge cache key new"), "{none}");
    let key = machines.home("a").join("cache-key");
    run(tool("chmod").arg("640").arg(&key));
    let open = machines.build("a", &["--cache-to", "cache"]).expect_code(3);
    assert!(open.stderr.contains("chmod 600"), "{open}");

    // With a lock and a folder, no network: not even an archive.
    run(tool("chmod").arg("600").arg(&key));
    let mut command = machines.command("a");
    let writer = finish(command.args(["cache", "key", "show"]))
        .expect_code(0)
        .text();
    fs_err::copy(
        machines.env.path("out-a/lock.json"),
        machines.env.path("lock.json"),
    )
    .unwrap();
    fs_err::rename(machines.env.path("repo"), machines.env.path("repo-away")).unwrap();
    let cache = folder.to_str().unwrap();
    let args = ["--cache-from", cache, "--cache-trust", writer.trim_end()];
    let args = [&args[..], &["--locked", "--offline"]].concat();
    let taken = machines.build("g", &args).expect_code(0);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
    let blobs = |machine: &str| -> Vec<String> {
        let image = machines.image(machine);
        let lines = image.lines().filter(|l| l.contains("  oci/"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(blobs("a"), blobs("g"));

    // A key that is handed to a machine that has none of its own.
    let copy = machines.env.path("copy");
    let copy = copy.to_str().unwrap();
    let lent = ["--locked", "--offline", "--cache-to", copy, "--cache-key"];
    let lent = [&lent[..], &[key.to_str().unwrap()]].concat();
    machines.build("g", &lent).expect_code(0);
    let args = ["--locked", "--offline", "--cache-from", copy];
    let args = [&args[..], &["--cache-trust", writer.trim_end()]].concat();
    let taken = machines.build("i", &args).expect_code(0);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
}

#[test]
fn two_machines_share_a_registry() {
    let machines = Machines::new();
    let server = RegistryServer::start(&RegistrySettings::default());
    let cache = format!("oci:{}/team/cache", server.host());
    nothing_is_made_twice(&machines, &cache);

    // Whatever is in the repository is of the form that the document says.
    let inspect = run(tool("skopeo")
        .args(["list-tags", "--tls-verify=false"])
        .arg(format!("docker://{}/team/cache", server.host())))
    .json();
    let tags = inspect["Tags"].as_array().unwrap();
    // Four layers and two validate phases, each of two writers and under the name of the last.
    assert_eq!(tags.len(), 18, "{inspect:#}");
    let tag = tags
        .iter()
        .filter_map(Value::as_str)
        .find(|t| t.starts_with("layer-"));
    let raw = run(tool("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!(
            "docker://{}/team/cache:{}",
            server.host(),
            tag.unwrap()
        )))
    .json();
    assert_eq!(
        raw["artifactType"],
        "application/vnd.amiforge.cache.entry.v1"
    );
    assert_eq!(raw["layers"].as_array().unwrap().len(), 1, "{raw:#}");

    // The network is refused, a registry that is gone is told once; both builds go on.
    let writer = machines.new_key("h");
    let args = ["--cache-from", &cache, "--cache-trust", &writer];
    let offline = [&args[..], &["--offline"]].concat();
    let end = machines
        .build("a", &[&offline[..], &["--rebuild"]].concat())
        .expect_code(0);
    assert!(end.stderr.contains("--offline takes no network"), "{end}");
    drop(server);
    let end = machines.build("h", &[&args[..], &["--cache-to", &cache]].concat());
    let end = end.expect_code(0);
    assert_eq!(steps(&end).len(), 4, "{end}");
    let told = end
        .stderr
        .matches("is not used any more in this build")
        .count();
    assert_eq!(
        told, 2,
        "as cache that is read, and as one that is written: {end}"
    );
}

#[test]
fn a_cache_that_lies_is_told_and_not_used() {
    let machines = Machines::small();
    let folder = machines.env.path("cache");
    let cache = folder.to_str().unwrap();
    let writer = machines.new_key("a");
    let made = machines.build("a", &["--cache-to", cache]).expect_code(0);
    let image = machines.image("a");
    let pristine = machines.env.path("pristine");
    run(tool("cp").arg("-a").arg(&folder).arg(&pristine));
    let entry_names = names(&pristine.join("v1/entries"));
    let layer_entries: Vec<&String> = entry_names
        .iter()
        .filter(|n| n.starts_with("layer-"))
        .collect();
    assert_eq!(layer_entries.len(), 4, "each under two names: {made}");
    let blobs = names(&pristine.join("v1/blobs"));

    let each_blob = |change: &dyn Fn(&mut Vec<u8>)| {
        for name in &blobs {
            let path = folder.join("v1/blobs").join(name);
            let mut bytes = fs_err::read(&path).unwrap();
            change(&mut bytes);
            fs_err::write(&path, bytes).unwrap();
        }
    };
    let each_entry = |change: &dyn Fn(&str, String) -> String| {
        for name in &layer_entries {
            let path = folder.join("v1/entries").join(name);
            let text = fs_err::read_to_string(&path).unwrap();
            fs_err::write(&path, change(name, text)).unwrap();
        }
    };
    let swap = |from: &dyn Fn(&Path) -> String| {
        let ids: Vec<&str> = layer_entries
            .iter()
            .filter(|n| n.len() == "layer-".len() + 64 + ".json".len())
            .map(|n| n.strip_suffix(".json").unwrap())
            .collect();
        for (at, id) in ids.iter().enumerate() {
            let other = ids[(at + 1) % ids.len()];
            for name in layer_entries.iter().filter(|n| n.starts_with(id)) {
                let theirs = pristine.join("v1/entries").join(name.replace(id, other));
                fs_err::write(folder.join("v1/entries").join(name), from(&theirs)).unwrap();
            }
        }
    };
    // A layer of somebody else, under the names of the trusted one.
    let stranger = machines.new_key("stranger");
    let forge = || {
        let other = machines.env.path("other");
        let end = machines.build("stranger", &["--cache-to", other.to_str().unwrap()]);
        end.expect_code(0);
        each_entry(&|name, _| {
            let last = name.get(.."layer-".len() + 64).unwrap();
            let path = other.join("v1/entries").join(format!("{last}.json"));
            fs_err::read_to_string(path).unwrap()
        });
        for blob in names(&other.join("v1/blobs")) {
            fs_err::copy(
                other.join("v1/blobs").join(&blob),
                folder.join("v1/blobs").join(&blob),
            )
            .unwrap();
        }
    };
    type Tamper<'t> = (&'t str, Box<dyn Fn() + 't>, &'t str, bool);
    let tampers: Vec<Tamper<'_>> = vec![
        (
            "a byte of the blobs",
            Box::new(|| each_blob(&|bytes| *bytes.last_mut().unwrap() ^= 1)),
            "digest is",
            true,
        ),
        (
            "blobs cut short",
            Box::new(|| each_blob(&|bytes| bytes.truncate(bytes.len() - 1))),
            "the entry says",
            true,
        ),
        (
            "blobs with more behind",
            Box::new(|| each_blob(&|bytes| bytes.push(0))),
            "the entry says",
            true,
        ),
        (
            "no blobs",
            Box::new(|| fs_err::remove_dir_all(folder.join("v1/blobs")).unwrap()),
            "no such file",
            true,
        ),
        (
            "blobs that are links to the right bytes' place",
            Box::new(|| {
                for name in &blobs {
                    let path = folder.join("v1/blobs").join(name);
                    fs_err::remove_file(&path).unwrap();
                    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
                }
            }),
            "is not used",
            true,
        ),
        (
            "another signature",
            Box::new(|| {
                each_entry(&|_, text| {
                    let (head, tail) = text.split_once("\"signature\": \"").unwrap();
                    let flipped = if tail.starts_with('0') { "1" } else { "0" };
                    format!("{head}\"signature\": \"{flipped}{}", &tail[1..])
                });
            }),
            "its signature is not of",
            true,
        ),
        (
            "another digest in what is signed",
            Box::new(|| {
                each_entry(&|_, text| {
                    let at = text.find("packedDigest").unwrap() + "packedDigest\\\":\\\"".len();
                    let flipped = if text[at..].starts_with('0') {
                        "1"
                    } else {
                        "0"
                    };
                    format!("{}{flipped}{}", &text[..at], &text[at + 1..])
                });
            }),
            "its signature is not of",
            true,
        ),
        (
            "entries swapped between layers",
            Box::new(|| swap(&|path| fs_err::read_to_string(path).unwrap())),
            "it is the entry layer-",
            true,
        ),
        (
            "entries cut short",
            Box::new(|| each_entry(&|_, text| text[..text.len() / 2].to_owned())),
            "not an entry of a cache",
            true,
        ),
        (
            "entries of another version",
            Box::new(|| each_entry(&|_, text| text.replace("\"format\": 1", "\"format\": 9"))),
            "has the format 9",
            true,
        ),
        (
            "entries too large",
            Box::new(|| each_entry(&|_, _| " ".repeat((4 << 20) + 1))),
            "larger than",
            true,
        ),
        (
            "entries of a writer nobody trusts",
            Box::new(forge),
            &stranger,
            true,
        ),
        ("nothing", Box::new(|| ()), "from cache", false),
    ];
    for (number, (what, tamper, told, lies)) in tampers.iter().enumerate() {
        fs_err::remove_dir_all(&folder).unwrap();
        run(tool("cp").arg("-a").arg(&pristine).arg(&folder));
        tamper();
        let machine = format!("reader-{number}");
        let args = ["--cache-from", cache, "--cache-trust", &writer];
        let end = machines.build(&machine, &args).expect_code(0);
        assert!(end.stderr.contains(told), "{what}: no {told:?}\n{end}");
        assert_eq!(end.stderr.contains("from cache"), !lies, "{what}\n{end}");
        assert_eq!(end.stderr.contains("warning: "), *lies, "{what}\n{end}");
        let build_steps = steps(&end).len();
        assert_eq!(build_steps, if *lies { 2 } else { 0 }, "{what}\n{end}");
        machines.nothing_is_left(&machine);
        if !lies {
            assert_eq!(machines.image(&machine), image);
        }
    }

    // Whoever makes a layer anew mends what is damaged.
    each_blob(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    let both = ["--cache-from", cache, "--cache-to", cache];
    fs_err::remove_dir_all(machines.home("a").join("store")).unwrap();
    fs_err::remove_dir_all(machines.env.path("out-a")).unwrap();
    let mended = machines.build("a", &both).expect_code(0);
    assert_eq!(mended.stderr.matches("   shared ").count(), 2, "{mended}");
    let args = ["--cache-from", cache, "--cache-trust", &writer];
    let taken = machines.build("z", &args).expect_code(0);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");

    // A cache that cannot be written, too, ends no build.
    machines.env.write("file", "");
    let file = machines.env.path("file");
    let end = machines.build("a", &["--rebuild", "--cache-to", file.to_str().unwrap()]);
    let end = end.expect_code(0);
    assert_eq!(
        end.stderr.matches("is not used any more").count(),
        1,
        "{end}"
    );
}

const TOKEN: &str = "\
name: token
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Use
        action: ExecuteBash
        inputs: {commands: ['test \"{{ aws:ssm:/token }}\" = confidential; echo used >/used']}
";

#[test]
fn layers_that_met_a_secret_stay_here() {
    let mut machines = Machines::new();
    machines.env.write("token.yaml", TOKEN);
    let text = fs_err::read_to_string(&machines.recipe).unwrap();
    let text = text
        .replace("./second.yaml", "./token.yaml")
        .replace("./looks.yaml", "./over.yaml");
    machines.recipe = machines.env.write("lent.yaml", text);
    machines.env.write("over.yaml", SECOND);
    machines.env.write(
        "home-a/config.yaml",
        "references:\n  aws:ssm:/token: {env: TOKEN}\n",
    );
    let writer = machines.new_key("a");
    let cache = machines.env.path("cache");
    let args = ["--cache-to", cache.to_str().unwrap()];
    let build = |machine: &str, args: &[&str]| {
        let mut command = machines.command(machine);
        command.env("TOKEN", "confidential");
        command.arg("build").arg(&machines.recipe).arg("--out");
        command.arg(machines.env.path(format!("out-{machine}")));
        finish(command.args(args)).expect_code(0)
    };
    let layers = || {
        let names = names(&cache.join("v1/entries")).into_iter();
        names.filter(|name| name.starts_with("layer-")).count()
    };
    let end = build("a", &args);
    assert!(
        end.stderr.contains("not token nor what is above it"),
        "{end}"
    );
    assert_eq!(
        (end.stderr.matches("   shared ").count(), layers()),
        (3, 6),
        "{end}"
    );
    let end = build("a", &[&args[..], &["--cache-secrets"]].concat());
    assert_eq!(
        (end.stderr.matches("   shared ").count(), layers()),
        (2, 10),
        "{end}"
    );
    // Nothing in the cache has the secret itself.
    for name in names(&cache.join("v1/entries")) {
        let text = fs_err::read_to_string(cache.join("v1/entries").join(name)).unwrap();
        assert!(!text.contains("confidential"), "{text}");
    }
    // The reader needs the secret's place for the plan, and no step.
    fs_err::create_dir_all(machines.home("b")).unwrap();
    fs_err::copy(
        machines.home("a").join("config.yaml"),
        machines.home("b").join("config.yaml"),
    )
    .unwrap();
    let cache = cache.to_str().unwrap();
    let taken = build("b", &["--cache-from", cache, "--cache-trust", &writer]);
    assert_eq!(steps(&taken), Vec::<String>::new(), "{taken}");
    assert_eq!(machines.image("a"), machines.image("b"));
}

/// A recipe of file actions on nothing: no package, no sandbox.
pub(crate) fn small(env: &Env, components: &[&str]) -> PathBuf {
    let mut list = String::new();
    for name in components {
        env.write(
            format!("{name}.yaml"),
            format!(
                "name: {name}\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Write\n        \
                 action: CreateFile\n        inputs: [{{path: /{name}, content: text}}]\n"
            ),
        );
        list.push_str(&format!("  - componentArn: ./{name}.yaml\n"));
    }
    env.write(
        "small.yaml",
        format!(
            "name: small\ncontainerType: DOCKER\nsemanticVersion: 1.0.0\nparentImage: scratch\ncomponents:\n{list}\
             targetRepository: {{service: ECR, repositoryName: small}}\n\
             dockerfileTemplateData: \"FROM {{{{{{ imagebuilder:parentImage }}}}}}\\n{{{{{{ imagebuilder:components }}}}}}\\n\"\n"
        ),
    )
}

#[test]
fn a_registry_that_means_harm_is_told_and_not_used() {
    let env = Env::new();
    let recipe = small(&env, &["file"]);
    let digest = "0".repeat(64);
    let manifest = |media: &str, digest: &str, size: u64| {
        format!(
            r#"{{"schemaVersion": 2, "config": {{"mediaType": "{media}", "digest": "{digest}", "size": {size}}}, "layers": []}}"#
        )
    };
    let entry = "application/vnd.amiforge.cache.entry.v1+json";
    let json = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
    let ok = |body: String| Answer::new(200, &json, body);
    let zeros = format!("sha256:{digest}");
    let answers = [
        (
            ok(manifest(entry, &zeros, 1 << 62)),
            "not of an entry of a cache",
        ),
        (
            ok(manifest("text/plain", &zeros, 2)),
            "not of an entry of a cache",
        ),
        (ok(manifest(entry, "md5:0", 2)), "is not a digest of sha256"),
        (ok(manifest(entry, &zeros, 2)), "digest is"),
        (ok("[".repeat(1 << 20)), "not of an entry of a cache"),
        (ok("null".to_owned()), "not of an entry of a cache"),
        (ok("x".repeat((4 << 20) + 1)), "larger than"),
        (
            Answer::new(307, &[("Location", "http://169.254.169.254/latest/")], ""),
            "which is not followed",
        ),
        (
            Answer::new(
                401,
                &[("WWW-Authenticate", "Bearer realm=\"http://10.0.0.1/token\"")],
                "",
            ),
            "which is not followed",
        ),
        (Answer::new(418, &[], ""), "answered 418"),
        (Answer::new(500, &[], ""), "answered 500"),
    ];
    let new_key = finish(env.amiforge().args(["cache", "key", "new"])).expect_code(0);
    assert!(new_key.text().starts_with("ed25519:"), "{new_key}");
    for (answer, told) in answers {
        let server = ScriptServer::start(move |asked| match asked.target.contains("/manifests/") {
            true => answer.clone(),
            false => Answer::new(200, &[], "{}"),
        });
        let cache = format!("oci:{}/team/cache", server.host());
        let _ = fs_err::remove_dir_all(env.state().join("store"));
        let mut command = env.amiforge();
        command
            .arg("build")
            .arg(&recipe)
            .arg("--out")
            .arg(env.path("out"));
        let end = finish(command.args(["--cache-from", &cache])).expect_code(0);
        assert!(
            end.stderr.contains("warning: ") && end.stderr.contains(told),
            "{told}: {end}"
        );
        assert_eq!(steps(&end).len(), 1, "{end}");
        assert!(end.took.as_secs() < 10, "{end}");
    }
}

/// A key is in the layer that a component makes, and the next removes it: the image has none, the cache would.
#[test]
fn layers_with_secrets_stay_here_and_what_failed_says_how_to_return() {
    let env = Env::new();
    let machines = Machines {
        recipe: small(&env, &["one", "two"]),
        env,
    };
    let env = &machines.env;
    let component = |name: &str, steps: &str| {
        let head = "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n";
        env.write(
            format!("{name}.yaml"),
            format!("name: {name}\n{head}{steps}"),
        );
    };
    let key = run(tool("openssl").args(["genpkey", "-algorithm", "ed25519"])).text();
    let key = key.replace('\n', "\\n");
    let writes = format!(
        "      - {{name: Other, action: CreateFile, inputs: [{{path: /other, content: text}}]}}\n      \
         - {{name: Key, action: CreateFile, inputs: [{{path: /etc/app.key, content: \"{key}\"}}]}}\n"
    );
    component("one", &writes);
    machines.new_key("a");
    let cache = env.path("cache");
    let cache = cache.to_str().unwrap();
    let told = "one is not shared: /etc/app.key: a private key";

    // The image is refused, and its layers were not handed over before that was known.
    let end = machines.build("a", &["--cache-to", cache]).expect_code(1);
    assert!(end.stderr.contains(told), "{end}");
    assert!(
        end.stderr.contains("/etc/app.key: a private key (from one"),
        "{end}"
    );
    let entries = || names(&env.path("cache/v1/entries"));
    let of = |name: &str| entries().iter().filter(|e| e.starts_with(name)).count();
    // Of each layer an entry of its writer and one of the last: the second component's alone.
    assert_eq!(of("layer-"), 2, "{:?}", entries());
    let failed = fs_err::read_to_string(env.path("out-a.failed/failure.txt")).unwrap();
    assert!(failed.contains("/etc/app.key: a private key"), "{failed}");

    // Nor are they when they come from the store, nor of a build that has nothing to do.
    component(
        "two",
        "      - {name: Gone, action: DeleteFile, inputs: [{path: /etc/app.key}]}\n",
    );
    for _ in 0..2 {
        let end = machines.build("a", &["--cache-to", cache]);
        assert!(end.stderr.contains(told), "{end}");
    }
    // Who asks for it gets it.
    let lent = ["--cache-to", cache, "--cache-secrets"];
    let before = of("layer-");
    let end = machines.build("a", &lent);
    assert!(!end.stderr.contains("is not shared"), "{end}");
    assert_eq!(of("layer-"), before + 2, "{:?}", entries());
}

/// A folder of a failure has all that somebody elsewhere needs, and goes when the recipe builds.
#[test]
fn a_failure_is_kept_until_the_recipe_builds() {
    let machines = Machines::small();
    let env = &machines.env;
    let fails = "name: two\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
                 - {name: Missing, action: ReadFile, inputs: [{path: /nowhere}]}\n";
    let good = fs_err::read_to_string(env.path("two.yaml")).unwrap();
    env.write("two.yaml", fails);
    let end = machines.build("a", &[]).expect_code(1);
    let failed = env.path("out-a.failed");
    let text = fs_err::read_to_string(failed.join("failure.txt")).unwrap();
    let command = format!("amiforge shell {} --failed", machines.recipe.display());
    for part in ["step Missing", &command, "changes.tar.zst"] {
        assert!(text.contains(part), "{part}: {text}\n{end}");
    }
    assert!(failed.join("changes.tar.zst").is_file());
    env.write("two.yaml", good);
    machines.build("a", &[]).expect_code(0);
    assert!(!failed.exists());
}
