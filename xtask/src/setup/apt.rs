//! Installing Debian packages without surprises.
//!
//! `apt-get install` may solve a conflict by removing a package that the host has. That happens for
//! real: a host with `qemu-utils` from backports and the stable `qemu-system-x86` on offer loses
//! `qemu-utils`, silently. So every installation is simulated first: the missing part of such a
//! family is taken in the version of its installed part, or both in the version on offer, and when
//! neither goes without a removal, nothing is done and the user is told.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, bail};

use super::Privilege;
use crate::util::{Missing, find_program, output, run, show, stdout};

const TRIES: usize = 3;

/// Installs `packages`.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!(Missing(format!(
            "this is no Debian-like system; install what brings the programs and files above (Debian calls it: {})",
            packages.join(" ")
        )));
    }
    let privilege = Privilege::probe();
    if lists_are_absent(packages)? {
        match privilege.command("apt-get") {
            Some(command) => update(command)?,
            None => bail!(Missing(by_hand(true, &[Request::plain(packages)]))),
        }
    }
    let mut tries = 1;
    loop {
        let requests = requests(packages)?;
        let done = requests
            .iter()
            .try_for_each(|request| request.run(&privilege, &requests));
        match done {
            Ok(()) => return Ok(()),
            Err(error) if tries == TRIES || error.is::<Missing>() => return Err(error),
            // Stale lists name versions that the archive no longer has.
            Err(error) => {
                eprintln!("{error:#}; reading the package lists anew");
                if let Some(command) = privilege.command("apt-get") {
                    update(command)?;
                }
            }
        }
        tries += 1;
    }
}

/// The one line for the user to run.
fn by_hand(update: bool, requests: &[Request]) -> String {
    let update = update.then(|| "sudo apt-get update".to_owned());
    let installs = requests
        .iter()
        .map(|r| format!("sudo apt-get install {}", r.arguments().join(" ")));
    let line = update
        .into_iter()
        .chain(installs)
        .collect::<Vec<_>>()
        .join(" && ");
    format!(
        "not root, and sudo asks for a password or is not there; run this once, then again:\n  {line}"
    )
}

fn update(mut command: Command) -> Result<()> {
    command.args([
        "update",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    // One unreachable third-party archive must not stop the set-up: the installation decides.
    if let Err(error) = run(&mut command) {
        eprintln!("{error:#}; going on with the lists there are");
    }
    Ok(())
}

/// Whether apt knows no version of some package (fresh containers come without package lists).
fn lists_are_absent(packages: &[&str]) -> Result<bool> {
    let known = candidates(packages)?;
    Ok(packages.iter().any(|p| !known.contains_key(*p)))
}

/// The candidate version of each package that has one.
fn candidates(packages: &[&str]) -> Result<BTreeMap<String, String>> {
    Ok(parse_policy(&stdout(
        Command::new("apt-cache").arg("policy").args(packages),
    )?))
}

/// Reads `apt-cache policy`: a package's name at the start of a line, its candidate below.
fn parse_policy(text: &str) -> BTreeMap<String, String> {
    let mut package = "";
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            found.insert(package.to_owned(), version.to_owned());
        }
    }
    found
}

/// One call of apt.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Request {
    packages: Vec<String>,
    /// The suite that these packages and what they depend on are taken from first.
    target: Option<String>,
    /// Installed packages that move to another version, as `name/suite`.
    siblings: Vec<String>,
}

impl Request {
    fn plain(packages: &[&str]) -> Self {
        Self {
            packages: packages.iter().map(|p| (*p).to_owned()).collect(),
            ..Self::default()
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--no-install-recommends".to_owned()];
        if let Some(suite) = &self.target {
            arguments.extend(["--target-release".to_owned(), suite.clone()]);
        }
        if !self.siblings.is_empty() {
            arguments.push("--allow-downgrades".to_owned());
        }
        arguments.extend_from_slice(&self.packages);
        arguments.extend_from_slice(&self.siblings);
        arguments
    }

    fn run(&self, privilege: &Privilege, all: &[Self]) -> Result<()> {
        let Some(mut command) = privilege.command("env") else {
            bail!(Missing(by_hand(false, all)));
        };
        if !self.siblings.is_empty() {
            eprintln!(
                "To match, these installed packages change their version: {}",
                self.siblings.join(" ")
            );
        }
        command.args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "--yes",
        ]);
        // The simulation found nothing to remove; should that have changed since, apt stops.
        command.args([
            "-o",
            "Acquire::Retries=3",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "APT::Get::Remove=false",
        ]);
        run(command.args(self.arguments()))
    }
}

/// Finds requests that together install `packages` and remove nothing, by simulation.
fn requests(packages: &[&str]) -> Result<Vec<Request>> {
    let installed = installed()?;
    let mut by_suite: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for package in packages {
        let suite = suite_of_siblings(package, &installed)?;
        by_suite
            .entry(suite)
            .or_default()
            .push((*package).to_owned());
    }
    by_suite
        .into_iter()
        .rev()
        .map(|(target, packages)| fitting(packages, target, &installed))
        .collect()
}

/// The first of these that removes nothing: the missing part of a family in the version of its
/// installed part; whatever apt would take; that, with the installed part following.
fn fitting(
    packages: Vec<String>,
    target: Option<String>,
    installed: &[(String, String)],
) -> Result<Request> {
    let mut choices = Vec::new();
    if target.is_some() {
        choices.push(Request {
            packages: packages.clone(),
            target,
            siblings: Vec::new(),
        });
    }
    choices.push(Request {
        packages: packages.clone(),
        ..Request::default()
    });
    let siblings = siblings_to_move(&packages, installed)?;
    if !siblings.is_empty() {
        choices.push(Request {
            packages,
            target: None,
            siblings,
        });
    }
    let mut refusals = Vec::new();
    for choice in choices {
        match simulate(&choice)? {
            Ok(removed) if removed.is_empty() => return Ok(choice),
            Ok(removed) => refusals.push(format!(
                "`apt-get install {}` would remove {}",
                choice.arguments().join(" "),
                removed.join(" ")
            )),
            Err(said) => refusals.push(said),
        }
    }
    bail!(Missing(format!(
        "apt finds no way that keeps what is installed; nothing was changed\n{}",
        refusals.join("\n")
    )))
}

/// Packages built from one source share the first word of their names: `qemu-utils`, `qemu-system-x86`.
fn family(package: &str) -> &str {
    package.split('-').next().unwrap_or(package)
}

/// Installed packages with their versions.
fn installed() -> Result<Vec<(String, String)>> {
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let text = stdout(Command::new("dpkg-query").args(["-W", "-f", format]))?;
    let pair = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["installed", name, version] => Some((name.to_owned(), version.to_owned())),
        _ => None,
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// The suite that offers `package` in the version of an installed package of its family, when that
/// is not what apt would choose anyway.
fn suite_of_siblings(package: &str, installed: &[(String, String)]) -> Result<Option<String>> {
    let candidate = candidates(&[package])?.remove(package);
    for (name, version) in installed {
        if family(name) == family(package)
            && candidate.as_ref() != Some(version)
            && let Some(suite) = suite_offering(package, version)?
        {
            return Ok(Some(suite));
        }
    }
    Ok(None)
}

/// Installed packages of the families of `packages` that could take the version that is on offer for these.
fn siblings_to_move(packages: &[String], installed: &[(String, String)]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in packages {
        let Some(version) = candidates(&[package])?.remove(package) else {
            continue;
        };
        for (name, have) in installed {
            if family(name) == family(package)
                && *have != version
                && let Some(suite) = suite_offering(name, &version)?
            {
                found.push(format!("{name}/{suite}"));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The suite of a configured archive that offers this version of the package.
fn suite_offering(package: &str, version: &str) -> Result<Option<String>> {
    Ok(parse_madison(
        &stdout(Command::new("apt-cache").args(["madison", package]))?,
        version,
    ))
}

/// Reads `apt-cache madison`: `package | version | archive suite/component architecture Packages`.
fn parse_madison(text: &str, version: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        let (_, offered, place) = (fields.next()?, fields.next()?, fields.next()?);
        let suite = place.split(' ').nth(1)?.rsplit_once('/')?.0;
        (offered == version && !place.ends_with("Sources")).then(|| suite.to_owned())
    })
}

/// The packages that a request would remove, or what apt says against it.
fn simulate(request: &Request) -> Result<Result<Vec<String>, String>> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--simulate", "-o", "Debug::NoLocking=1"]);
    let out = output(command.args(request.arguments()))?;
    if out.status.success() {
        return Ok(Ok(parse_simulation(&String::from_utf8_lossy(&out.stdout))));
    }
    let said = [out.stdout, out.stderr].concat();
    Ok(Err(format!(
        "`{}`\n{}",
        show(&command),
        String::from_utf8_lossy(&said).trim_end()
    )))
}

/// Reads the `Remv name [version]` lines.
fn parse_simulation(text: &str) -> Vec<String> {
    let removed = text
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next());
    removed.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_and_simulation_are_read() {
        let policy = "qemu-utils:\n  Installed: (none)\n  Candidate: 1:7.2+b3\n  Version table:\n     1:7.2+b3 500\n\
                      other:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(
            parse_policy(policy),
            BTreeMap::from([("qemu-utils".to_owned(), "1:7.2+b3".to_owned())])
        );

        let simulation = "Reading package lists...\nRemv qemu-utils [1:10.0~bpo12+1]\n\
                          Inst qemu-system-common [1:10.0~bpo12+1] (1:7.2 Debian:12/stable [amd64])\n\
                          Inst qemu-system-x86 (1:7.2 Debian:12/stable [amd64])\nConf qemu-system-x86 (1:7.2 Debian)\n";
        assert_eq!(parse_simulation(simulation), ["qemu-utils"]);
    }

    #[test]
    fn the_suite_of_a_version_is_found() {
        let madison = "qemu-utils | 1:10.0~bpo12+1 | http://mirror.example/debian bookworm-backports/main amd64 Packages\n\
                       qemu-utils | 1:7.2 | http://mirror.example/debian bookworm/main amd64 Packages\n";
        assert_eq!(parse_madison(madison, "1:7.2").as_deref(), Some("bookworm"));
        assert_eq!(
            parse_madison(madison, "1:10.0~bpo12+1").as_deref(),
            Some("bookworm-backports")
        );
        assert_eq!(parse_madison(madison, "1:8"), None);
    }

    #[test]
    fn a_request_can_be_typed() {
        let plain = Request::plain(&["a", "b"]);
        assert_eq!(plain.arguments(), ["--no-install-recommends", "a", "b"]);
        let moved = Request {
            siblings: vec!["b/stable".to_owned()],
            ..Request::plain(&["a"])
        };
        assert_eq!(
            moved.arguments(),
            [
                "--no-install-recommends",
                "--allow-downgrades",
                "a",
                "b/stable"
            ]
        );
        let line = "sudo apt-get update && sudo apt-get install --no-install-recommends a b";
        assert!(by_hand(true, &[plain]).ends_with(line));
    }
}
