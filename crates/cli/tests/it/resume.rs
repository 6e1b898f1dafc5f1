//! Builds that go on at the step that failed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amiforge_testkit::{Env, Finished, Running, finish};

use crate::tiny::Tiny;

/// A component whose first steps take long enough to be kept.
fn component(first: &str, third: &str) -> String {
    let step = |name: &str, command: &str| {
        format!(
            "      - name: {name}\n        action: ExecuteBash\n        inputs: {{commands: [\"{command}\"]}}\n"
        )
    };
    format!(
        "name: long\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n{}{}{}",
        step(
            "First",
            &format!("echo {first} > /tmp/held; mkdir -p /srv; touch /srv/first; sleep 2.1")
        ),
        step("Second", "cat /tmp/held > /srv/second; sleep 2.1"),
        step("Third", third),
    )
}

struct Place<'e> {
    env: &'e Env,
    recipe: PathBuf,
    way: &'static str,
}

impl<'e> Place<'e> {
    /// With a third step of this command, and these settings of the recipe.
    fn new(env: &'e Env, way: &'static str, third: &str, settings: &str) -> Self {
        let tiny = Tiny::with_shell(env, &[("tiny-a", "1.0", "a")]);
        env.write("long.yaml", component("one", third));
        let recipe = tiny.container("tiny", &["long.yaml"], settings);
        Self { env, recipe, way }
    }

    fn command(&self, home: &str, out: &Path, more: &[&str]) -> Command {
        let mut command = self.env.amiforge();
        command
            .args(["--sandbox", self.way, "build"])
            .arg(&self.recipe)
            .arg("--out")
            .arg(out)
            .args(more);
        command.env("AMIFORGE_HOME", self.env.path(home));
        command
    }

    fn build(&self, home: &str, out: &Path, more: &[&str]) -> Finished {
        finish(&mut self.command(home, out, more))
    }

    /// Files that are kept of failed runs.
    fn kept(&self, home: &str) -> Vec<PathBuf> {
        let folder = self.env.path(home).join("store/v1/failed");
        let entries = fs_err::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

const GOES_ON: &str = "long goes on at step Third; an earlier run did First, Second";

#[test]
fn the_next_build_goes_on_at_the_step_that_failed() {
    for way in ["mapped-ids", "single-id"] {
        let env = Env::new();
        let place = Place::new(&env, way, "exit 3", "");
        let out = env.path("out");
        let failed = place.build("home", &out, &[]).expect_code(1);
        assert!(
            failed
                .stderr
                .contains("the next build goes on at step Third"),
            "{failed}"
        );
        assert_eq!(place.kept("home").len(), 3, "and what the third step left");
        // As often as it takes.
        let failed = place.build("home", &out, &[]).expect_code(1);
        assert!(failed.stderr.contains(GOES_ON), "{failed}");

        env.write(
            "long.yaml",
            component("one", "cat /tmp/held /srv/second > /srv/third"),
        );
        let built = place.build("home", &out, &["--events", "-"]).expect_code(0);
        assert!(!built.text().contains("\"step\":\"Second\""), "{built}");
        assert!(built.text().contains("\"step\":\"Third\""), "{built}");
        assert_eq!(place.kept("home"), Vec::<PathBuf>::new());
        // The same as in one go.
        let whole = env.path("whole");
        place.build("other", &whole, &[]).expect_code(0);
        for file in ["manifest.json", "oci/index.json", "packages.json"] {
            let [a, b] = [&out, &whole].map(|out| fs_err::read_to_string(out.join(file)).unwrap());
            assert_eq!(a, b, "{way}: {file}");
        }
    }
}

#[test]
fn steps_that_changed_are_run_again_and_what_is_damaged_is_not_used() {
    let env = Env::new();
    let place = Place::new(&env, "mapped-ids", "exit 3", "");
    let out = env.path("out");
    place.build("home", &out, &[]).expect_code(1);
    let all = |end: &Finished| {
        assert!(!end.stderr.contains("goes on at step Third; an"), "{end}");
    };
    all(&place.build("home", &out, &["--rebuild"]).expect_code(1));
    // Of a run that nobody goes on from, nothing is kept, and what is there stays.
    let again = place.build("home", &out, &[]).expect_code(1);
    assert!(again.stderr.contains(GOES_ON), "{again}");

    for path in place.kept("home") {
        let mut bytes = fs_err::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes.truncate(bytes.len() - 1);
        fs_err::write(&path, bytes).unwrap();
    }
    let damaged = place.build("home", &out, &[]).expect_code(1);
    all(&damaged);
    let told = "long starts at its first step: what an earlier run kept cannot be used";
    assert!(damaged.stderr.contains(told), "{damaged}");

    env.write("long.yaml", component("two", "exit 3"));
    all(&place.build("home", &out, &[]).expect_code(1));
    env.write(
        "long.yaml",
        component("two", "cat /tmp/held /srv/second > /srv/third"),
    );
    let built = place.build("home", &out, &[]).expect_code(0);
    assert!(built.stderr.contains(GOES_ON), "{built}");
}

/// They are in memory alone, and steps may have put them anywhere.
#[test]
fn of_steps_that_see_secrets_nothing_is_kept() {
    let env = Env::new();
    let place = Place::new(&env, "mapped-ids", "exit 3", "  secrets: [token]\n");
    let token = env.write("token", "something");
    let out = env.path("out");
    let secret = ["--secret", &format!("token=file:{}", token.display())];
    for _ in 0..2 {
        let failed = place.build("home", &out, &secret).expect_code(1);
        assert!(!failed.stderr.contains("goes on"), "{failed}");
        assert_eq!(place.kept("home").len(), 1, "what the last step left");
    }
}

#[test]
fn a_build_that_was_killed_goes_on_where_it_last_stopped() {
    let env = Env::new();
    let wait = "cat /tmp/held > /srv/third; [ -e /srv/second ]; sleep ";
    let place = Place::new(&env, "mapped-ids", &format!("{wait}1000"), "");
    let out = env.path("out");
    let mut running = Running::spawn(&mut place.command("home", &out, &[]));
    running.wait_for_stderr("build/Third", Duration::from_secs(60));
    running.kill9();
    env.write("long.yaml", component("one", &format!("{wait}0")));
    let built = place.build("home", &out, &[]).expect_code(0);
    assert!(built.stderr.contains(GOES_ON), "{built}");
}
