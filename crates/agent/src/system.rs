//! What the agent asks of the system it runs in.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amiforge_exec::protocol::{Hello, VERSION};

/// How long the system may take to reach its target once the agent runs. The host has its own, scaled
/// limit; this one only keeps an agent from waiting for ever.
const REACH_TARGET: Duration = Duration::from_secs(900);

/// How long a clean power-off may take before the agent asks the kernel.
const POWER_OFF: Duration = Duration::from_secs(120);

/// Writes to standard error, which systemd and cloud-init put into their logs.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "amiforge-agent: {text}");
}

/// Waits until the system has reached its target, as far as that does not depend on us: the job
/// that started the agent may itself be part of the boot.
pub(crate) fn wait_for_target() {
    let until = Instant::now() + REACH_TARGET;
    while Instant::now() < until {
        match state().as_str() {
            "initializing" | "starting" if !only_we_are_missing() => {
                std::thread::sleep(Duration::from_millis(200))
            }
            _ => return,
        }
    }
}

/// What the host wants to know.
pub(crate) fn hello() -> Hello {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uptime = read("/proc/uptime");
    Hello {
        version: VERSION,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        uptime: uptime
            .split_ascii_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or_default(),
        efi: std::path::Path::new("/sys/firmware/efi").is_dir(),
        system_state: state(),
        failed_units: failed_units(),
    }
}

/// Shuts down through systemd; by the kernel when that does not happen.
pub(crate) fn power_off() {
    down("poweroff", rustix::system::RebootCommand::PowerOff);
}

/// The same for a restart.
pub(crate) fn restart() {
    down("reboot", rustix::system::RebootCommand::Restart);
}

fn down(verb: &str, command: rustix::system::RebootCommand) {
    let asked = Command::new("systemctl")
        .args(["--no-block", verb])
        .stdin(Stdio::null())
        .status();
    match asked {
        Ok(status) if status.success() => std::thread::sleep(POWER_OFF),
        Ok(status) => say(&format!("systemctl {verb}: {status}")),
        Err(error) => say(&format!("cannot start systemctl: {error}")),
    }
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(command) {
        say(&format!("the kernel does not {verb}: {error}"));
    }
}

fn state() -> String {
    match systemctl(&["is-system-running"]) {
        Some(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// True when the only jobs left are the target that waits for our own unit, and that unit.
fn only_we_are_missing() -> bool {
    let Some(jobs) = systemctl(&["list-jobs", "--no-legend", "--plain", "--full"]) else {
        return false;
    };
    let own = own_unit();
    let jobs: Vec<Vec<&str>> = jobs
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let fields = |job: &Vec<&str>| {
        (
            job.get(1).map_or("", |n| *n).to_owned(),
            job.get(3).map_or("", |n| *n).to_owned(),
        )
    };
    // An empty list while `starting` means that systemd is about to say `running`; look again.
    !jobs.is_empty()
        && jobs.iter().map(fields).all(|(unit, state)| {
            own.as_deref() == Some(unit.as_str()) || (state == "waiting" && !unit.is_empty())
        })
        && jobs
            .iter()
            .map(fields)
            .any(|(unit, _)| own.as_deref() == Some(unit.as_str()))
}

/// The unit that this process belongs to, from its control group.
fn own_unit() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    unit_of(&text)
}

fn unit_of(cgroup: &str) -> Option<String> {
    cgroup
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .find(|name| name.ends_with(".service") || name.ends_with(".scope"))
        .map(str::to_owned)
}

fn failed_units() -> Vec<String> {
    let text = systemctl(&[
        "list-units",
        "--state=failed",
        "--no-legend",
        "--plain",
        "--full",
    ])
    .unwrap_or_default();
    let mut units: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(str::to_owned)
        .collect();
    units.sort();
    units
}

/// Standard output of systemctl, whatever its exit code; `None` without systemctl.
fn systemctl(args: &[&str]) -> Option<String> {
    let output = Command::new("systemctl")
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_unit() {
        assert_eq!(
            unit_of("0::/system.slice/cloud-final.service\n").as_deref(),
            Some("cloud-final.service")
        );
        assert_eq!(
            unit_of("1:name=systemd:/system.slice/a.service\n0::/\n").as_deref(),
            Some("a.service")
        );
        assert_eq!(unit_of("0::/\n"), None);
    }
}
