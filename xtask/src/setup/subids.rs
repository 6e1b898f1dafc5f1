//! Subordinate user ids: what `newuidmap` may hand to the user.

use anyhow::Result;

use super::Privilege;
use crate::util::{Missing, run, stdout};

/// An ordinary user needs 65,536 subordinate user and group ids; `adduser` gives them on Debian, but
/// accounts made in other ways lack them. Root needs none.
pub(super) fn ensure() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let user = stdout(std::process::Command::new("id").arg("-un"))?
        .trim()
        .to_owned();
    let uid = rustix::process::getuid().as_raw().to_string();
    let has = |file: &str| {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        owns_range(&text, &user, &uid)
    };
    if has("/etc/subuid") && has("/etc/subgid") {
        return Ok(());
    }
    let taken = ["/etc/subuid", "/etc/subgid"]
        .map(|f| fs_err::read_to_string(f).unwrap_or_default())
        .concat();
    let start = free_start(&taken);
    let range = format!("{start}-{}", start + 65_535);
    eprintln!(
        "User {user} has no range of subordinate ids; build steps need one to give files their owners."
    );
    let args = ["--add-subuids", &range, "--add-subgids", &range, &user];
    match Privilege::probe().command("usermod") {
        Some(mut command) => run(command.args(args)),
        None => Err(Missing(format!(
            "run this once, then again:\n  sudo usermod {}",
            args.join(" ")
        ))
        .into()),
    }
}

/// The ordinary user as whom tests build when root runs them.
const TEST_USER: &str = "amiforge-test";

/// Tests that root runs are run once more as an ordinary user with subordinate ids: one is made.
pub(super) fn ensure_test_user() -> Result<()> {
    let accounts = fs_err::read_to_string("/etc/passwd")?;
    let there = accounts
        .lines()
        .any(|line| line.split(':').next() == Some(TEST_USER));
    if !rustix::process::geteuid().is_root() || there {
        return Ok(());
    }
    eprintln!("Making the user {TEST_USER}: tests also build as an ordinary user.");
    run(std::process::Command::new("useradd").args(["--create-home", TEST_USER]))
}

/// Lines are `user-or-uid:first:count` (subuid(5)).
fn ranges(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((
            fields.next()?,
            fields.next()?.parse().ok()?,
            fields.next()?.parse().ok()?,
        ))
    })
}

fn owns_range(text: &str, user: &str, uid: &str) -> bool {
    ranges(text).any(|(owner, _, count)| (owner == user || owner == uid) && count >= 65_536)
}

/// The first range start above everything handed out, in steps of 65,536 from 100,000 as `adduser` does.
fn free_start(text: &str) -> u64 {
    let end = ranges(text)
        .map(|(_, first, count)| first.saturating_add(count))
        .max()
        .unwrap_or(0);
    let steps = end.saturating_sub(100_000).div_ceil(65_536);
    100_000 + steps * 65_536
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_and_not_handed_out_twice() {
        let text = "a:100000:65536\nb:165536:1000\n# odd\n1001:300000:65536\n";
        assert!(owns_range(text, "a", "1"));
        assert!(owns_range(text, "z", "1001"));
        assert!(!owns_range(text, "b", "2"), "too small");
        assert_eq!(free_start(""), 100_000);
        assert_eq!(free_start("a:100000:65536\n"), 165_536);
        assert_eq!(free_start(text), 100_000 + 5 * 65_536);
    }
}
