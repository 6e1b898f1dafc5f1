//! `cargo xtask setup`: find out what is missing, say what and why, install it.
//!
//! As root, or where sudo does not ask, it installs with apt; otherwise it prints the one line to
//! run and ends with exit code 3. Nothing is installed that is there already.

mod apt;
mod needs;
mod subids;
mod venv;

use anyhow::Result;

use crate::util::{Missing, find_program, output};
pub(crate) use needs::Purpose;

/// Installs what `purpose` needs.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let missing: Vec<_> = needs::NEEDS
        .iter()
        .filter(|n| n.wanted(purpose) && !n.is_there())
        .collect();
    if !missing.is_empty() {
        eprintln!("Missing on this machine:");
        for need in &missing {
            eprintln!(
                "  {:<34} {} (package {})",
                need.probe, need.why, need.package
            );
        }
        let mut packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
        packages.sort_unstable();
        packages.dedup();
        apt::install(&packages)?;
        if let Some(need) = missing.iter().find(|n| !n.is_there()) {
            let text = format!(
                "{} is still missing after package {} was installed",
                need.probe, need.package
            );
            return Err(Missing(text).into());
        }
    }
    subids::ensure()?;
    if purpose == Purpose::Test {
        subids::ensure_test_user()?;
        venv::ensure()?;
    }
    eprintln!("Everything for the {} is installed.", purpose.name());
    Ok(())
}

/// How a command can be run as root.
enum Privilege {
    /// We are root.
    Root,
    /// sudo works without a question.
    Sudo,
    /// Not from here.
    None,
}

impl Privilege {
    fn probe() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        let sudo = find_program("sudo").is_some()
            && output(std::process::Command::new("sudo").args(["-n", "true"]))
                .is_ok_and(|o| o.status.success());
        if sudo { Self::Sudo } else { Self::None }
    }

    /// `program` as root; `None` when that needs a person.
    fn command(&self, program: &str) -> Option<std::process::Command> {
        match self {
            Self::Root => Some(std::process::Command::new(program)),
            Self::Sudo => {
                let mut command = std::process::Command::new("sudo");
                command.args(["-n", program]);
                Some(command)
            }
            Self::None => None,
        }
    }
}
