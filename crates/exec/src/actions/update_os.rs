//! `UpdateOS`: brings installed packages up to date with the system's package manager.
//! Reference: AWSTOE action modules, UpdateOS. `include` are the only packages to update, `exclude`
//! are left as they are; with both, include less exclude.

use amiforge_recipe::actions::UpdateOs;

use super::{Action, Outputs, StepCx, StepError};

/// Folders of `PATH` where package managers live.
const FOLDERS: &[&str] = &["/usr/bin", "/bin", "/usr/sbin"];

impl Action for UpdateOs {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let only: Vec<&String> = self
            .include
            .iter()
            .filter(|name| !self.exclude.contains(name))
            .collect();
        if !self.include.is_empty() && only.is_empty() {
            cx.note("every package to include is also excluded, so nothing is updated");
            return Ok(Vec::new());
        }
        if installed("apt-get") {
            apt(&only, &self.exclude, cx)?;
        } else if let Some(program) = ["dnf", "yum"].into_iter().find(|name| installed(name)) {
            let mut argv = words(&[program, "-y"]);
            if only.is_empty() {
                argv.extend(self.exclude.iter().map(|name| format!("--exclude={name}")));
            }
            argv.push("update".to_owned());
            argv.extend(only.into_iter().cloned());
            run(argv, cx)?;
        } else {
            return Err(StepError::NoPackageManager);
        }
        Ok(Vec::new())
    }
}

/// Kept configuration files and no questions: nobody is there to answer.
const APT: &[&str] = &[
    "apt-get",
    "-y",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
];

fn apt(only: &[&String], exclude: &[String], cx: &mut StepCx<'_>) -> Result<(), StepError> {
    run(words(&["apt-get", "update"]), cx)?;
    let mut argv = words(APT);
    if !only.is_empty() {
        argv.extend(words(&["--only-upgrade", "install", "--"]));
        argv.extend(only.iter().map(|name| (*name).clone()));
        return run(argv, cx);
    }
    argv.extend(words(&["--with-new-pkgs", "upgrade"]));
    if exclude.is_empty() {
        return run(argv, cx);
    }
    let held = cx.command(&words(&["apt-mark", "showhold"]))?;
    let hold: Vec<String> = exclude
        .iter()
        .filter(|name| !held.lines().any(|line| line == *name))
        .cloned()
        .collect();
    if hold.is_empty() {
        return run(argv, cx);
    }
    mark("hold", &hold, cx)?;
    let upgraded = run(argv, cx);
    // Also after a failure: the hold is not the image's. The first failure is the one to report,
    // with its exit code and output.
    let (code, command, tail) = (cx.exit_code, cx.command.clone(), cx.tail.clone());
    let released = mark("unhold", &hold, cx);
    upgraded.inspect_err(|_| (cx.exit_code, cx.command, cx.tail) = (code, command, tail))?;
    released
}

fn mark(verb: &str, names: &[String], cx: &mut StepCx<'_>) -> Result<(), StepError> {
    let mut argv = words(&["apt-mark", verb, "--"]);
    argv.extend(names.iter().cloned());
    run(argv, cx)
}

fn run(argv: Vec<String>, cx: &mut StepCx<'_>) -> Result<(), StepError> {
    cx.about(&argv.join(" "));
    cx.command(&argv).map(|_stdout| ())
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn installed(program: &str) -> bool {
    FOLDERS
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).is_file())
}
