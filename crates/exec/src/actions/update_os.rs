//! `UpdateOS`: brings installed packages up to date with the system's package manager.
//! Reference: AWSTOE action modules, UpdateOS. `include` are the only packages to update, `exclude`
//! are left as they are; with both, include less exclude.
//!
//! zypper and apk know no way to leave packages out that would not stay behind in the image (a lock, a line of
//! `/etc/apk/world`), so that what is to be updated is listed first and named then. References: zypper(8),
//! apk-fix(8), apk-version(8), dnf(8), dnf.conf(5), yum(8).

use std::path::{Path, PathBuf};

use amiforge_recipe::actions::UpdateOs;

use super::files::wildcard;
use super::{Action, Outputs, StepCx, StepError};

/// Folders of `PATH` where package managers live.
const FOLDERS: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// A package manager whose packages are the system's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf(&'static str),
    Zypper,
    Apk,
}

impl Manager {
    /// The one that looks after the system. Others may be installed beside it as tools: only SUSE has both
    /// zypper and dnf in use, and says who it is.
    fn find(installed: impl Fn(&str) -> bool, os_release: &str) -> Option<Self> {
        let suse = os_release.lines().any(|line| {
            let value = line
                .strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="));
            value.is_some_and(|value| value.contains("suse"))
        });
        let zypper = installed("zypper").then_some(Self::Zypper);
        installed("apt-get")
            .then_some(Self::Apt)
            .or(zypper.filter(|_| suse))
            .or_else(|| {
                ["dnf", "yum", "microdnf"]
                    .into_iter()
                    .find(|name| installed(name))
                    .map(Self::Dnf)
            })
            .or(zypper)
            .or_else(|| installed("apk").then_some(Self::Apk))
    }
}

impl Action for UpdateOs {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let only: Vec<&String> = self
            .include
            .iter()
            .filter(|name| !is_among(&self.exclude, name))
            .collect();
        if !self.include.is_empty() && only.is_empty() {
            cx.note("every package to include is also excluded, so nothing is updated");
            return Ok(Vec::new());
        }
        let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        match Manager::find(installed, &os_release).ok_or(StepError::NoPackageManager)? {
            Manager::Apt => apt(&only, &self.exclude, cx)?,
            Manager::Dnf(program) => dnf(program, &only, &self.exclude, cx)?,
            Manager::Zypper => zypper(&only, &self.exclude, cx)?,
            Manager::Apk => apk(&only, &self.exclude, cx)?,
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

fn dnf(
    program: &str,
    only: &[&String],
    exclude: &[String],
    cx: &mut StepCx<'_>,
) -> Result<(), StepError> {
    let mut argv = words(&[program, "-y"]);
    // Amazon Linux 2023 calls it `dnf` where it is small. It knows options of repositories alone.
    let micro = path_of(program)
        .and_then(|path| std::fs::canonicalize(path).ok())
        .is_some_and(|path| path.ends_with("microdnf"));
    // Amazon Linux 2023 and Fedora have it that a repository which cannot be reached is no failure: nothing is updated, and
    // all seems well. What a repository says of itself holds, but to microdnf. yum 3 fails unless a repository says otherwise.
    if micro {
        argv.push("--setopt=*.skip_if_unavailable=False".to_owned());
    } else if program != "yum" {
        argv.push("--setopt=skip_if_unavailable=False".to_owned());
    }
    // With names, too: these may be patterns, and need packages that are excluded.
    let option = if micro {
        "--setopt=*.excludepkgs"
    } else {
        "--exclude"
    };
    argv.extend(exclude.iter().map(|name| format!("{option}={name}")));
    argv.push("update".to_owned());
    argv.extend(only.iter().map(|name| (*name).clone()));
    run(argv, cx)
}

/// How often zypper is run again since it updated itself first.
const ZYPPER_RUNS: usize = 4;

fn zypper(only: &[&String], exclude: &[String], cx: &mut StepCx<'_>) -> Result<(), StepError> {
    const REBOOT_NEEDED: i32 = 102;
    const RUN_AGAIN: i32 = 103;
    run(words(&["zypper", "--non-interactive", "refresh"]), cx)?;
    // `update` takes what a package provides for its name, and installs one that was not there. Of a pattern, which this
    // search does not know, only what is installed is updated.
    for name in only.iter().filter(|name| !name.contains(['*', '?', '['])) {
        let mut argv = words(&["zypper", "--non-interactive", "search"]);
        argv.extend(words(&["--type", "package", "--match-exact", "--"]));
        argv.push((*name).clone());
        run(argv, cx)?;
    }
    for left in (0..ZYPPER_RUNS).rev() {
        let mut argv = words(&[
            "zypper",
            "--non-interactive",
            "update",
            "--auto-agree-with-licenses",
        ]);
        // Each time: the first run may have been of zypper alone.
        let Some(names) = named(only, exclude, cx, |cx| {
            let argv = words(&["zypper", "--non-interactive", "--xmlout", "list-updates"]);
            Ok(packages_of(&cx.command(&argv)?))
        })?
        else {
            return Ok(());
        };
        if !names.is_empty() {
            argv.push("--".to_owned());
            argv.extend(names);
        }
        match run(argv, cx) {
            Err(StepError::Exit {
                code: RUN_AGAIN, ..
            }) if left > 0 => {
                cx.note("zypper updated itself, and is run again for the rest");
            }
            Err(StepError::Exit {
                code: REBOOT_NEEDED,
                ..
            }) => {
                cx.exit_code = Some(0);
                cx.note("zypper says that a restart is needed");
                return Ok(());
            }
            ended => return ended,
        }
    }
    Ok(())
}

/// The names in `<update kind="package" name="…" …>` of `zypper --xmlout list-updates`.
fn packages_of(xml: &str) -> Vec<String> {
    let elements = xml.split("<update ").skip(1);
    let tags = elements.filter_map(|element| element.split('>').next());
    let value = |tag: &str, key: &str| {
        let start = tag.split_once(&format!("{key}=\""))?.1;
        start.split_once('"').map(|(value, _)| value.to_owned())
    };
    tags.filter(|tag| value(tag, "kind").as_deref() == Some("package"))
        .filter_map(|tag| value(tag, "name"))
        .collect()
}

fn apk(only: &[&String], exclude: &[String], cx: &mut StepCx<'_>) -> Result<(), StepError> {
    // Without a cache, so that no lists stay behind. `upgrade` fails by itself when a repository cannot be reached, the other
    // commands go on with what they have.
    if !only.is_empty() || !exclude.is_empty() {
        run(words(&["apk", "--no-cache", "update"]), cx)?;
    }
    let names = named(only, exclude, cx, |cx| {
        let listed = cx.command(&words(&[
            "apk",
            "--no-cache",
            "--quiet",
            "version",
            "-l",
            "<",
        ]))?;
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    })?;
    let Some(names) = names else { return Ok(()) };
    if names.is_empty() {
        return run(words(&["apk", "--no-cache", "upgrade"]), cx);
    }
    // Other than `add --upgrade`, this leaves the list of wanted packages alone.
    let mut argv = words(&["apk", "--no-cache", "fix", "--upgrade", "--"]);
    argv.extend(names);
    run(argv, cx)
}

/// The packages to name, none for all, or `None` when there is nothing to update.
fn named(
    only: &[&String],
    exclude: &[String],
    cx: &mut StepCx<'_>,
    list: impl FnOnce(&mut StepCx<'_>) -> Result<Vec<String>, StepError>,
) -> Result<Option<Vec<String>>, StepError> {
    if !only.is_empty() || exclude.is_empty() {
        return Ok(Some(only.iter().map(|name| (*name).clone()).collect()));
    }
    let mut names = list(cx)?;
    names.retain(|name| !is_among(exclude, name));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        cx.note("nothing is left to update");
        return Ok(None);
    }
    Ok(Some(names))
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

/// Whether it is one of these names, which may have `*` in them.
fn is_among(names: &[String], name: &str) -> bool {
    names
        .iter()
        .any(|pattern| wildcard(pattern.as_bytes(), name.as_bytes()))
}

fn installed(program: &str) -> bool {
    path_of(program).is_some()
}

fn path_of(program: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_manager_is_chosen() {
        let find =
            |installed: &[&str], os: &str| Manager::find(|name| installed.contains(&name), os);
        let (suse, fedora) = (
            "NAME=x\nID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n",
            "ID=fedora\n",
        );
        for (installed, os, expected) in [
            (&["zypper", "dnf"][..], suse, Some(Manager::Zypper)),
            (&["zypper", "dnf", "yum"], fedora, Some(Manager::Dnf("dnf"))),
            (&["yum"], fedora, Some(Manager::Dnf("yum"))),
            (&["microdnf"], fedora, Some(Manager::Dnf("microdnf"))),
            (
                &["apt-get", "zypper", "dnf", "apk"],
                "ID=debian\n",
                Some(Manager::Apt),
            ),
            (&["zypper"], "", Some(Manager::Zypper)),
            (&["apk"], "ID=alpine\n", Some(Manager::Apk)),
            (&[], suse, None),
        ] {
            assert_eq!(find(installed, os), expected, "{installed:?}");
        }
    }

    #[test]
    fn packages_are_read_from_zyppers_list() {
        let xml = "<?xml version='1.0'?>\n<stream>\n<update-status version=\"0.6\">\n<update-list>\n\
            <update kind=\"package\" name=\"bash\" edition=\"5.2-1\" arch=\"x86_64\" edition-old=\"5.1-1\">\
            <summary>A shell</summary><source url=\"http://x/\" alias=\"oss\"/></update>\n\
            <update kind=\"patch\" name=\"SUSE-1\" edition=\"1\"/>\n\
            <update name=\"libstdc++6\" kind=\"package\"/></update-list></update-status></stream>";
        assert_eq!(packages_of(xml), ["bash", "libstdc++6"]);
        assert_eq!(packages_of(""), Vec::<String>::new());
        assert_eq!(
            packages_of("<update kind=\"package\" name=\"cut"),
            Vec::<String>::new()
        );
    }
}
