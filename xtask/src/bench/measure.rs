//! Time and memory of one program run.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::util::show;

/// Wall-clock seconds of a run that must succeed. Its output goes to `log`, not to a terminal, which would slow it.
pub(super) fn seconds(command: &mut Command, log: &Path) -> Result<f64> {
    quiet(command, log)?;
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let took = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("`{}` failed: {status}\n{}", show(command), tail(log));
    }
    Ok(took)
}

/// Largest resident memory, in MiB, of a run and all its descendants together: the sum of their
/// proportional set sizes, sampled. Not combined with timing, since the sampling costs time.
pub(super) fn peak_mib(command: &mut Command, log: &Path) -> Result<f64> {
    quiet(command, log)?;
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let mut peak = 0;
    let status = loop {
        peak = peak.max(tree_kib(child.id()));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        bail!("`{}` failed: {status}\n{}", show(command), tail(log));
    }
    Ok(f64::from(u32::try_from(peak).unwrap_or(u32::MAX)) / 1024.0)
}

fn quiet(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs_err::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Sum over a process and its descendants.
fn tree_kib(root: u32) -> u64 {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            && let Some(parent) = parent_of(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut pending = vec![root];
    let mut sum = 0;
    while let Some(pid) = pending.pop() {
        sum += pss_kib(pid).unwrap_or(0);
        pending.extend(children.get(&pid).into_iter().flatten());
    }
    sum
}

/// Field 4 of `/proc/<pid>/stat`; the name before it may hold anything, parentheses too.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn pss_kib(pid: u32) -> Option<u64> {
    let rollup = fs_err::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| {
        line.strip_prefix("Pss:")?
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .ok()
    })
}

/// The middle value; for an even count the lower of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn memory_of_a_grandchild_counts() {
        let log = std::env::temp_dir().join(format!("amiforge-peak-{}", std::process::id()));
        let mut command = Command::new("sh");
        // The inner shell holds 64 MiB in a variable for a while.
        command.args([
            "-c",
            "sh -c 'x=$(head -c 67108864 /dev/zero | tr \"\\0\" x); sleep 1'; true",
        ]);
        let peak = peak_mib(&mut command, &log).unwrap();
        fs_err::remove_file(&log).unwrap();
        assert!((64.0..400.0).contains(&peak), "{peak}");
    }
}
