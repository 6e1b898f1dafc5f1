//! The one build that the `image_…` tests share, and environments that start where it ended.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use amiforge_testkit::{
    Env, Finished, amiforge_binary, finish, run, shared, target_dir, tool, workspace_root,
};

/// `recipes/debian-web`, built and booted once for each version of the program. Read-only.
pub(crate) struct Web {
    dir: PathBuf,
}

impl Web {
    /// Builds it when this program has not yet done so.
    #[track_caller]
    pub(crate) fn get() -> Self {
        let recipe = workspace_root().join("recipes/debian-web");
        let files = [
            amiforge_binary(),
            recipe.join("recipe.yaml"),
            recipe.join("components/web.yaml"),
        ];
        let sum = run(tool("sh")
            .args(["-c", "cat \"$@\" | sha256sum", "sh"])
            .args(files))
        .text();
        let dir = shared("web", &sum[..16], |dir| {
            let env = Env::new();
            let end = finish(
                env.amiforge()
                    .env("AMIFORGE_HOME", dir.join("state"))
                    .args(["build", "recipes/debian-web", "--out"])
                    .arg(dir.join("out")),
            )
            .expect_code(0);
            fs_err::write(dir.join("stdout"), &end.stdout).unwrap();
            fs_err::write(dir.join("stderr"), &end.stderr).unwrap();
        });
        Self { dir }
    }

    /// The output folder.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// What the build printed on standard output.
    pub(crate) fn stdout(&self) -> String {
        fs_err::read_to_string(self.dir.join("stdout")).unwrap()
    }

    /// What the build printed on standard error.
    pub(crate) fn stderr(&self) -> String {
        fs_err::read_to_string(self.dir.join("stderr")).unwrap()
    }

    /// An environment of its own whose store and package cache hold what the build left. The files
    /// are links: the store never writes to a file that is in place.
    #[track_caller]
    pub(crate) fn env(&self) -> Env {
        let parent = target_dir().join("testkit/envs");
        fs_err::create_dir_all(&parent).unwrap();
        let env = Env::under(&parent);
        let from = self.dir.join("state");
        let to = env.state();
        fs_err::create_dir_all(to.join("store/v1")).unwrap();
        let link = |what: &str| {
            let target = to.join(what);
            run(tool("cp")
                .arg("-al")
                .arg(from.join(what))
                .arg(target.parent().unwrap()));
        };
        let mut parts = vec!["cache", "store/version"];
        parts.extend(["store/v1/layers", "store/v1/records", "store/v1/catalog"]);
        // The materialised layers belong to subordinate ids, which an ordinary user cannot link.
        if fs_err::metadata(&to).unwrap().uid() == 0 {
            parts.push("store/v1/roots");
        }
        parts.into_iter().for_each(link);
        env
    }
}

/// `build RECIPE --offline --no-test --out OUT`.
pub(crate) fn build(env: &Env, recipe: &Path, out: &Path) -> Command {
    let mut command = env.amiforge();
    command
        .args(["build", "--offline", "--no-test"])
        .arg(recipe)
        .arg("--out")
        .arg(out);
    command
}

/// A recipe on the parent of the shared build, with one component.
pub(crate) fn recipe(env: &Env, component: &str) -> PathBuf {
    env.write("recipe/component.yaml", component);
    env.write(
        "recipe/recipe.yaml",
        "name: small-image\n\
         semanticVersion: 1.0.0\n\
         parentImage: debian:bookworm\n\
         components:\n  - componentArn: ./component.yaml\n\
         blockDeviceMappings:\n  - deviceName: /dev/xvda\n    ebs: {volumeSize: 2, volumeType: gp3}\n\
         amiforge:\n  bootMode: legacy-bios\n  formats: [raw]\n",
    )
}

/// Steps that a run says it ran, each `component phase/step (Action)`.
pub(crate) fn steps(end: &Finished) -> Vec<String> {
    end.stderr
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("step "))
        .map(str::to_owned)
        .collect()
}

/// Every sum of the folder's `SHA256SUMS` holds, and it names every file but itself.
#[track_caller]
pub(crate) fn verify_sums(out: &Path) {
    run(tool("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(out));
    let listed = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
    let mut listed: Vec<&str> = listed.lines().map(|l| &l[66..]).collect();
    listed.sort_unstable();
    let there = run(tool("find")
        .args([".", "-type", "f", "-printf", "%P\\n"])
        .current_dir(out))
    .text();
    let mut there: Vec<&str> = there.lines().filter(|f| *f != "SHA256SUMS").collect();
    there.sort_unstable();
    assert_eq!(listed, there);
}

/// File names below a folder of the store, sorted; empty when there is no such folder.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map(|entries| {
            entries
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}
