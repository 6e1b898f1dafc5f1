//! Machines from what was made elsewhere: a container becomes a machine that boots, by packages that its lock names, and
//! the disk of a machine, in another program's format, becomes another machine.

use std::collections::BTreeSet;
use std::path::Path;

use amiforge_testkit::{Env, finish, run, tool};
use serde_json::Value;

use crate::web::{Web, build, steps};

const BASE: &str = "\
name: base
containerType: DOCKER
semanticVersion: 1.0.0
parentImage: debian:bookworm
components: [{componentArn: ./base-component.yaml}]
targetRepository: {service: ECR, repositoryName: base}
dockerfileTemplateData: |
  FROM {{{ imagebuilder:parentImage }}}
  {{{ imagebuilder:components }}}
";
const BASE_COMPONENT: &str = "\
name: base
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - {name: Write, action: CreateFile, inputs: [{path: /etc/base, content: of the container}]}
";
/// What the container brought is there when the machine runs, and so is what was added: init, and a network.
const MACHINE_COMPONENT: &str = "\
name: machine
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - {name: Init, action: ExecuteBash, inputs: {commands: [systemctl --version]}}
  - name: test
    steps:
      - name: Runs
        action: ExecuteBash
        inputs: {commands: [grep -qx 'of the container' /etc/base, systemctl is-active systemd-networkd]}
";
const IMPORTED_COMPONENT: &str = "\
name: imported
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - {name: More, action: ExecuteBash, inputs: {commands: [cp /etc/base /etc/more]}}
  - name: test
    steps:
      - {name: Both, action: ExecuteBash, inputs: {commands: [cmp /etc/base /etc/more]}}
";

fn machine(env: &Env, name: &str, parent: &str, component: &str) -> std::path::PathBuf {
    env.write(format!("{name}/component.yaml"), component);
    env.write(
        format!("{name}/recipe.yaml"),
        format!(
            "name: {name}\nsemanticVersion: 1.0.0\nparentImage: '{parent}'\n\
             components: [{{componentArn: ./component.yaml}}]\namiforge: {{formats: [raw]}}\n"
        ),
    );
    env.path(name)
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

#[track_caller]
fn booted_twice(out: &Path) {
    let report = json(out.join("boot-report.json"));
    assert_eq!(report["passed"], true, "{report:#}");
    for firmware in ["bios", "uefi"] {
        assert_eq!(report["runs"][firmware]["passed"], true, "{report:#}");
    }
}

#[test]
fn image_containers_and_foreign_disks_become_machines() {
    let web = Web::get();
    let env = web.env();
    env.write("base-component.yaml", BASE_COMPONENT);
    let base = env.write("base.yaml", BASE);
    finish(&mut build(&env, &base, &env.path("base"))).expect_code(0);

    // The container lacks everything that a boot needs.
    let recipe = machine(&env, "machine", "oci-layout:../base/oci", MACHINE_COMPONENT);
    let out = env.path("machine-out");
    let mut command = env.amiforge();
    command.arg("build").arg(&recipe).arg("--out").arg(&out);
    let end = finish(&mut command).expect_code(0);
    assert!(
        end.stderr.contains("has no kernel, init, boot loader"),
        "{end}"
    );
    booted_twice(&out);

    // Its lock names what it was given, each as the guest's dpkg knows it.
    let lock = json(out.join("lock.json"));
    let installed = json(out.join("packages.json"));
    let version = |package: &Value| {
        let texts = ["name", "version"].map(|key| package[key].as_str().unwrap().to_owned());
        texts.join(" ")
    };
    let all = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(version).collect()
    };
    let (given, there) = (all(&lock["bootPackages"]["packages"]), all(&installed));
    assert!(given.len() > 50, "{given:?}");
    assert!(given.is_subset(&there), "{given:?} of {there:?}");
    assert!(given.iter().any(|p| p.starts_with("linux-image-")));

    // What there is now is asked of the same apt, without installing anything; versions may have moved since.
    let names = |list: &Value| -> BTreeSet<String> {
        let packages = list.as_array().unwrap().iter();
        packages
            .map(|package| package["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut command = env.amiforge();
    finish(command.args(["lock", "update"]).arg(&recipe)).expect_code(0);
    let now = json(recipe.join("lock.json"));
    assert_eq!(
        names(&now["bootPackages"]["packages"]),
        names(&lock["bootPackages"]["packages"])
    );

    // From the lock alone, on a machine that has nothing but the downloads, without a network: the same bytes.
    fs_err::copy(out.join("lock.json"), recipe.join("lock.json")).unwrap();
    run(tool("rm").arg("-rf").arg(env.state().join("store")));
    let again = env.path("again");
    let mut command = build(&env, &recipe, &again);
    let end = finish(command.arg("--locked")).expect_code(0);
    run(tool("cmp")
        .arg(out.join("disk.raw"))
        .arg(again.join("disk.raw")));
    assert_eq!(lock, json(again.join("lock.json")), "{end}");

    // Another package in the lock is not what the layer was made of.
    let mut other = lock.clone();
    other["bootPackages"]["packages"][0]["sha256"] = "0".repeat(64).into();
    env.write("machine/lock.json", other.to_string());
    let mut command = build(&env, &recipe, &env.path("other"));
    let end = finish(command.arg("--locked")).expect_code(2);
    let named = version(&lock["bootPackages"]["packages"][0]);
    assert!(end.stderr.contains(&named), "{end}");
    assert!(end.stderr.contains("packages for a boot"), "{end}");

    // Nor is a lock of other wishes: nothing is left out without a word.
    env.write("machine/lock.json", lock.to_string());
    let text = fs_err::read_to_string(recipe.join("recipe.yaml")).unwrap();
    let more = text.replace(
        "{formats: [raw]}",
        "{formats: [raw], apt: {include: [htop]}}",
    );
    env.write("machine/recipe.yaml", more);
    for verb in ["build", "plan"] {
        let mut command = env.amiforge();
        command
            .arg(verb)
            .arg(&recipe)
            .args(["--locked", "--offline"]);
        let end = finish(&mut command).expect_code(2);
        let told = "include: the lock has [], the recipe has [\"htop\"]";
        assert!(end.stderr.contains(told), "{end}");
    }

    // Its disk, as another program writes it, is a parent with everything in it.
    run(tool("qemu-img")
        .args(["convert", "-f", "raw", "-O", "vmdk"])
        .arg(out.join("disk.raw"))
        .arg(env.path("machine.vmdk")));
    let recipe = machine(&env, "imported", "disk:../machine.vmdk", IMPORTED_COMPONENT);
    let out = env.path("imported-out");
    let mut command = env.amiforge();
    command.arg("build").arg(&recipe).arg("--out").arg(&out);
    let end = finish(command.arg("--offline")).expect_code(0);
    assert_eq!(steps(&end)[0], "imported build/More (ExecuteBash)", "{end}");
    booted_twice(&out);
    let lock = json(out.join("lock.json"));
    assert!(lock.get("bootPackages").is_none(), "{lock:#}");
}
