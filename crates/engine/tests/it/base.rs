//! One build of `debian-web`, shared by the tests.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use amiforge_testkit::{Env, Running, amiforge_binary, run, shared, tool};

/// More than any build here takes on a slow machine that has other things to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(1500);

/// What the build left.
pub(crate) struct Base {
    dir: PathBuf,
}

impl Base {
    /// Builds it, once for a program and a day: a later day may have newer packages.
    #[track_caller]
    pub(crate) fn get() -> Self {
        let sum = run(tool("sha256sum").arg(amiforge_binary())).text();
        let day = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            / 86_400;
        let dir = shared("base", &format!("{}.{day}", &sum[..16]), |dir| {
            let env = Env::new();
            let mut command = env.amiforge();
            command
                .env("AMIFORGE_HOME", dir.join("state"))
                .args(["build", "recipes/debian-web", "--no-test", "--out"])
                .arg(dir.join("out"));
            Running::spawn(&mut command).wait(LIMIT).expect_code(0);
        });
        Self { dir }
    }

    /// Its `AMIFORGE_HOME`.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its output folder.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.join("out")
    }
}
