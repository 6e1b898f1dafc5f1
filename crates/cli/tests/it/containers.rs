//! Container recipes: the image that a build leaves, looked at by other people's programs.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, finish, run, tool};
use serde_json::Value;

use crate::tiny::Tiny;
use crate::web::{steps, verify_sums};

/// Makes files of every kind in one layer.
const FIRST: &str = "\
name: first
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Files
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              mkdir -p /opt/app/old /opt/keep
              echo one >/opt/app/old/file; echo two >/opt/app/two; echo three >/opt/keep/three
              cp /usr/bin/busybox /opt/keep/tool
              chmod 4755 /opt/keep/tool; chown 12:34 /opt/keep/three
              setcap cap_net_bind_service=ep /opt/keep/tool
              ln /opt/keep/three /opt/again; ln -s ../keep/three /opt/app/link
              long=$(printf '%0200d' 0); echo x >/opt/$long
              truncate -s 1M /opt/hole; echo end >>/opt/hole
              echo secret >/etc/machine-id; echo junk >/tmp/junk
              test -e /usr/sbin/policy-rc.d; chown -R 1:1 /etc /usr/sbin
              test \"$GREETING\" = 'hello  there'; test -z \"$LATER\"
  - name: test
    steps:
      - name: Image
        action: ExecuteBash
        inputs:
          commands:
            - set -e; test ! -e /opt/app/old; test -f /opt/app/new; test \"$LATER\" = yes; touch /opt/by-test
  - name: container-host-test
    steps:
      - name: Host
        action: ExecuteBash
        inputs:
          commands: [docker version]
";

/// Removes a file and a name of another, and puts folders in the place of folders and files.
const SECOND: &str = "\
name: second
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Change
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              rm -r /opt/app; mkdir /opt/app; echo new >/opt/app/new
              rm /opt/again; rm /opt/hole; mkdir /opt/hole; echo in >/opt/hole/in
              chmod 0700 /opt/keep
  - name: test
    steps:
      - name: Same
        action: ExecuteBash
        inputs:
          commands: [test -e /opt/by-test]
";

const DOCKERFILE: &str = "\
FROM {{{ imagebuilder:parentImage }}}
ENV GREETING=\"hello  there\"
{{{ imagebuilder:environments }}}
{{{ imagebuilder:components }}}
ENV LATER=yes
LABEL org.example.team=web
EXPOSE 80
USER 12:34
WORKDIR /opt
ENTRYPOINT [\"/opt/keep/tool\"]
CMD [\"true\"]
";

fn recipe(env: &Env, tiny: &Tiny<'_>, dockerfile: &str, settings: &str) -> PathBuf {
    env.write("first.yaml", FIRST);
    env.write("second.yaml", SECOND);
    let mirror = format!("file://{}", tiny.root().display());
    let dockerfile: String = dockerfile.lines().map(|l| format!("  {l}\n")).collect();
    env.write(
        "container.yaml",
        format!(
            "name: tiny web\ncontainerType: DOCKER\nsemanticVersion: 1.0.x\nparentImage: debian:tiny\n\
             description: a test\n\
             components:\n  - componentArn: ./first.yaml\n  - componentArn: ./second.yaml\n\
             targetRepository: {{service: ECR, repositoryName: team/web}}\n\
             dockerfileTemplateData: |\n{dockerfile}\
             amiforge:\n  apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential}}\n{settings}"
        ),
    )
}

pub(crate) fn build(env: &Env, recipe: &Path, args: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .arg("build")
            .arg(recipe)
            .arg("--out")
            .arg(env.path("out"))
            .args(args),
    )
}

pub(crate) fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// What Python's reader makes of the layers.
fn files(layout: &Path, short: bool) -> String {
    let mut command = tool("python3");
    command.args(["-c", include_str!("oci.py")]).arg(layout);
    if short {
        command.env("SHORT", "1");
    }
    run(&mut command).text()
}

#[test]
fn a_container_recipe_gives_an_image_that_other_programs_read() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let recipe = recipe(&env, &tiny, DOCKERFILE, "");
    let end = build(&env, &recipe, &[]).expect_code(0);
    let out = env.path("out");
    verify_sums(&out);
    assert!(
        end.stderr
            .contains("first: the phase container-host-test is skipped"),
        "{end}"
    );
    assert_eq!(
        steps(&end)
            .iter()
            .filter(|step| step.contains("test/"))
            .count(),
        2,
        "{end}"
    );

    // The documents, by skopeo, which also compares every digest while it copies.
    let layout = out.join("oci");
    let image = format!("oci:{}:team/web:1.0.0", layout.display());
    let told = run(tool("skopeo").args(["inspect", &image])).json();
    assert_eq!(told["Labels"]["org.example.team"], "web");
    assert_eq!(told["Layers"].as_array().unwrap().len(), 4);
    assert_eq!(told["Architecture"], "amd64");
    let config = run(tool("skopeo").args(["inspect", "--config", &image])).json();
    assert_eq!(
        config["config"],
        serde_json::json!({
            "User": "12:34",
            "ExposedPorts": {"80/tcp": {}},
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "GREETING=hello  there",
                "LATER=yes"
            ],
            "Entrypoint": ["/opt/keep/tool"],
            "Cmd": ["true"],
            "WorkingDir": "/opt",
            "Labels": {"org.example.team": "web"}
        })
    );
    let history = config["history"].as_array().unwrap();
    assert!(history.iter().any(|h| h["created_by"] == "component first"));
    for (kind, name) in [("docker-archive", "image.tar"), ("dir", "image.dir")] {
        let to = format!("{kind}:{}", env.path(name).display());
        run(tool("skopeo").args(["--insecure-policy", "copy", "--quiet", &image, &to]));
    }

    // The files, by Python's reader of archives.
    let all = files(&layout, false);
    let line = |path: &str| {
        let start = format!("'{path}' ");
        let found = all.lines().find(|l| l.starts_with(&start));
        found.map(str::to_owned)
    };
    let tool_line = line("opt/keep/tool").unwrap();
    assert!(
        tool_line.contains("f 0o4755") && tool_line.contains("security.capability"),
        "{tool_line}"
    );
    assert!(line("opt/keep").unwrap().contains("d 0o700"));
    assert!(line("opt/keep/three").unwrap().contains(" 12:34 "));
    assert!(line("opt/app/new").is_some() && line("opt/hole/in").is_some());
    assert!(line(&format!("opt/{}", "0".repeat(200))).is_some());
    for gone in [
        "opt/app/old",
        "opt/app/two",
        "opt/app/link",
        "opt/again",
        "opt/by-test",
        "tmp/junk",
        // Lent to the steps, and given another owner by one.
        "etc/resolv.conf",
        "usr/sbin/policy-rc.d",
    ] {
        assert_eq!(line(gone), None);
    }
    if let Some(id) = line("etc/machine-id") {
        // SHA-256 of nothing.
        assert!(id.contains("e3b0c44298fc1c14"), "{id}");
    }

    // How the second component's layer says it, by GNU tar.
    let manifest = json(out.join("manifest.json"));
    let blob = |at: usize| {
        let digest = manifest["layers"][at]["digest"].as_str().unwrap();
        layout.join("blobs/sha256").join(digest)
    };
    let members = run(tool("tar").arg("-tzf").arg(blob(3))).text();
    let members: Vec<&str> = members.lines().collect();
    for name in ["opt/.wh.again", "opt/app/.wh..wh..opq", "opt/app/new"] {
        assert!(members.contains(&name), "{name} in {members:?}");
    }

    // The same, by umoci.
    let bundle = env.path("bundle");
    run(tool("umoci")
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:team/web:1.0.0", layout.display()))
        .arg(&bundle));
    let unpacked = run(tool("python3")
        .args(["-c", include_str!("oci.py")])
        .arg(&layout)
        .arg(bundle.join("rootfs")));
    assert_eq!(unpacked.text(), files(&layout, true));

    // The manifest tells what is there.
    assert_eq!(manifest["kind"], "container");
    assert_eq!(manifest["reference"], "team/web:1.0.0");
    assert_eq!(
        json(layout.join("index.json"))["manifests"][0]["digest"],
        format!("sha256:{}", manifest["digest"].as_str().unwrap())
    );
    assert_eq!(manifest["tests"].as_array().unwrap().len(), 3);
    assert_eq!(manifest["tests"][1]["outcome"], "skipped");
    let id = manifest["imageId"].as_str().unwrap();
    assert!(end.text().starts_with(&format!("{id} ")), "{end}");
    let entry = env
        .state()
        .join(format!("store/v1/catalog/images/{id}.json"));
    assert_eq!(json(entry)["manifest"], manifest);

    // There is nothing to boot, and no disk to look into.
    for verb in [&["test"][..], &["inspect"]] {
        let mut command = env.amiforge();
        command.args(verb).arg(&out);
        if verb == ["inspect"] {
            command.args(["ls", "/"]);
        }
        let refused = finish(&mut command).expect_code(2);
        assert!(refused.stderr.contains("container image"), "{refused}");
    }

    // Again: nothing to do. From nothing, elsewhere: the same bytes.
    let again = build(&env, &recipe, &[]).expect_code(0);
    assert_eq!(steps(&again), Vec::<String>::new());
    let sums = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
    let blobs = |sums: &str| {
        let lines = sums.lines().filter(|l| l.contains("  oci/"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    fs_err::remove_dir_all(env.state()).unwrap();
    build(&env, &recipe, &["--jobs", "1", "--no-test"]).expect_code(0);
    let fresh = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert_eq!(blobs(&fresh), blobs(&sums));
}

#[test]
fn what_no_build_follows_is_an_error_of_its_line_and_a_warning_of_the_document() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a")]);
    let dockerfile = "FROM {{{ imagebuilder:parentImage }}}\nRUN echo \\\n  more\n{{{ imagebuilder:components }}}\n";
    let recipe = recipe(&env, &tiny, dockerfile, "");
    let end = build(&env, &recipe, &[]).expect_code(2);
    assert!(
        end.stderr.contains("unsupported-instruction")
            && end.stderr.contains("container.yaml:12:3"),
        "{end}"
    );
    assert!(!env.path("out").exists());
    let valid = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(0);
    assert!(valid.stderr.contains("RUN runs a command"), "{valid}");
    // There is no disk to say anything of.
    let text = fs_err::read_to_string(&recipe).unwrap();
    env.write(
        "container.yaml",
        text.replace("amiforge:\n", "amiforge:\n  formats: [raw]\n"),
    );
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(2);
    assert!(end.stderr.contains("no field \"formats\""), "{end}");
}

#[test]
fn a_container_recipe_of_a_template_is_planned_without_a_kernel() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a"), ("tiny-b", "1.0", "b")]);
    let mirror = format!("file://{}", tiny.root().display());
    let template = format!(
        "Parameters: {{Team: {{Type: String, Default: web}}}}\nResources:\n  Image:\n    Type: AWS::ImageBuilder::ContainerRecipe\n    \
         Metadata:\n      amiforge:\n        apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential}}\n    \
         Properties:\n      Name: tiny\n      Version: 1.0.0\n      ContainerType: DOCKER\n      \
         ParentImage: debian:tiny\n      TargetRepository: {{Service: ECR, RepositoryName: tiny}}\n      \
         Components: [{{ComponentArn: !Ref Hello}}]\n      \
         DockerfileTemplateData: !Sub |\n        FROM {{{{{{ imagebuilder:parentImage }}}}}}\n        \
         LABEL team=${{Team}}\n        RUN true\n        {{{{{{ imagebuilder:components }}}}}}\n  \
         Hello:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: hello\n      Version: 1.0.0\n      \
         Platform: Linux\n      Data: |\n        schemaVersion: 1.0\n        phases:\n          - name: build\n            \
         steps:\n              - {{name: A, action: ExecuteBash, inputs: {{commands: [\"true\"]}}}}\n"
    );
    let path = env.write("template.yaml", &template);
    let plan = |path: &Path| {
        finish(
            env.amiforge()
                .args(["plan", "--json", "--resource", "Image"])
                .arg(path),
        )
    };
    let end = plan(&path).expect_code(2);
    assert!(end.stderr.contains("template.yaml:18:9"), "{end}");
    env.write("template.yaml", template.replace("        RUN true\n", ""));
    let planned = plan(&path).expect_code(0).json();
    let inputs = planned["plan"]["layers"][0]["inputs"].as_object().unwrap();
    let packages: Vec<&String> = inputs
        .keys()
        .filter(|k| k.starts_with("package."))
        .collect();
    assert_eq!(packages, ["package.tiny-a", "package.tiny-b"]);
    assert_eq!(planned["plan"]["layers"].as_array().unwrap().len(), 3);
}
