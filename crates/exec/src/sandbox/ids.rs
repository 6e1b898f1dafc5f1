//! Where the ids of an image come from: `/etc/subuid`, `/etc/subgid` (subuid(5)), and
//! `/proc/self/uid_map` (user_namespaces(7)).

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::CapabilitySet;

use crate::error::SandboxError;
use crate::spec::{ID_COUNT, IdMap};

/// Range taken as root when `/etc/subuid` has no line for root. Above what adduser, systemd-nspawn
/// (0x80000 to 0x6fffffff) and systemd's foreign ids (from 0x7ffe0000) use.
const ROOT_DEFAULT_BASE: u32 = 0x7100_0000;

/// Id inside a trusted sandbox that stands for the caller's own id.
pub(crate) const CALLER_ID: u32 = ID_COUNT;

/// Chooses the id map for the calling user.
pub(super) fn choose() -> Result<IdMap, SandboxError> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let name = login_name(&passwd, uid);
    let range = |file: &'static str| -> Result<Option<u32>, SandboxError> {
        let text = match fs_err::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(SandboxError::Io {
                    path: file.into(),
                    source,
                });
            }
        };
        Ok(subordinate(&text, name.as_deref(), uid))
    };
    let (uid_base, gid_base) = (range("/etc/subuid")?, range("/etc/subgid")?);
    if uid == 0 {
        let uid_base = uid_base.unwrap_or(ROOT_DEFAULT_BASE);
        let gid_base = gid_base.unwrap_or(ROOT_DEFAULT_BASE);
        return Ok(IdMap {
            uid_base: inside(&own_map("/proc/self/uid_map")?, uid_base, ID_COUNT)
                .ok_or(SandboxError::NoRoomForIds)?,
            gid_base: inside(&own_map("/proc/self/gid_map")?, gid_base, ID_COUNT)
                .ok_or(SandboxError::NoRoomForIds)?,
            count: ID_COUNT,
            helpers: false,
        });
    }
    let missing = |file| SandboxError::NoSubordinateIds {
        file,
        user: name.clone().unwrap_or_else(|| uid.to_string()),
    };
    let map = IdMap {
        uid_base: uid_base.ok_or_else(|| missing("/etc/subuid"))?,
        gid_base: gid_base.ok_or_else(|| missing("/etc/subgid"))?,
        count: ID_COUNT,
        helpers: true,
    };
    for tool in ["newuidmap", "newgidmap"] {
        if !on_path(tool) {
            return Err(SandboxError::MissingTool { tool });
        }
    }
    Ok(map)
}

/// One id: for root one that belongs to nobody, for everybody else the caller's own.
pub(super) fn single() -> Result<IdMap, SandboxError> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // Root of the host inside would own what the host lends (devices), and have no limits.
    let base = |file, own: u32| match uid {
        0 => inside(&own_map(file)?, ROOT_DEFAULT_BASE, 1).ok_or(SandboxError::NoRoomForIds),
        _ => Ok(own),
    };
    Ok(IdMap {
        uid_base: base("/proc/self/uid_map", uid)?,
        gid_base: base("/proc/self/gid_map", gid)?,
        count: 1,
        helpers: false,
    })
}

/// Capabilities that it takes to run steps in a changed root directory: to make files of everybody, to end processes of
/// everybody, and to give up the rest.
const CHROOT: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::FSETID, "CAP_FSETID"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::SETFCAP, "CAP_SETFCAP"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
];

/// Without a namespace: each id is itself.
pub(super) fn own() -> Result<IdMap, SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SandboxError::NotRoot);
    }
    let held = rustix::thread::capabilities(None).map_err(|e| SandboxError::Refused {
        what: "read the capabilities".to_owned(),
        source: e.into(),
    })?;
    let missing = CHROOT
        .iter()
        .filter(|(one, _)| !held.effective.contains(*one));
    let names: Vec<_> = missing.map(|(_, name)| *name).collect();
    if !names.is_empty() {
        return Err(SandboxError::MissingCapabilities { names });
    }
    Ok(IdMap {
        uid_base: 0,
        gid_base: 0,
        count: ID_COUNT,
        helpers: false,
    })
}

/// For files that are the caller's own, whoever owns what is in them.
pub(super) fn callers() -> IdMap {
    IdMap {
        uid_base: rustix::process::geteuid().as_raw(),
        gid_base: rustix::process::getegid().as_raw(),
        count: 1,
        helpers: false,
    }
}

/// Writes the id map of process `pid`. With `caller`, the caller's own ids are there too.
pub(super) fn write(map: IdMap, pid: u32, caller: bool) -> Result<(), SandboxError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let one = |tool: &'static str, file: &'static str, base: u32, own: u32| {
        let mut lines = vec![[0, base, map.count]];
        if caller && base != own {
            lines.push([CALLER_ID, own, 1]);
        }
        if map.helpers {
            with_helper(tool, pid, &lines)
        } else {
            directly(file, pid, &lines)
        }
    };
    if uid != 0 && !map.helpers {
        // What it takes to map one's own group (user_namespaces(7)).
        let tool = "setgroups";
        std::fs::write(format!("/proc/{pid}/{tool}"), "deny").map_err(|e| {
            SandboxError::MapRefused {
                tool,
                message: e.to_string(),
            }
        })?;
    }
    // The kernel wants the group map first only for unprivileged writers; the order is harmless otherwise.
    one("newgidmap", "gid_map", map.gid_base, gid)?;
    one("newuidmap", "uid_map", map.uid_base, uid)
}

fn with_helper(tool: &'static str, pid: u32, lines: &[[u32; 3]]) -> Result<(), SandboxError> {
    let output = Command::new(tool)
        .arg(pid.to_string())
        .args(lines.iter().flatten().map(u32::to_string))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SandboxError::MissingTool { tool },
            _ => SandboxError::Spawn {
                helper: tool.into(),
                source,
            },
        })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let message = if message.is_empty() {
        output.status.to_string()
    } else {
        message
    };
    Err(SandboxError::MapRefused { tool, message })
}

fn directly(file: &'static str, pid: u32, lines: &[[u32; 3]]) -> Result<(), SandboxError> {
    let text: String = lines
        .iter()
        .map(|[inside, outside, count]| format!("{inside} {outside} {count}\n"))
        .collect();
    // One write call: the kernel takes the whole map at once or not at all.
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|e| SandboxError::MapRefused {
        tool: file,
        message: e.to_string(),
    })
}

/// The first range of at least 65536 ids for the user in the text of `/etc/subuid` or `/etc/subgid`.
fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Option<u32> {
    let number = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != number {
            return None;
        }
        let base: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (count >= ID_COUNT && base > 0 && base.checked_add(ID_COUNT).is_some()).then_some(base)
    })
}

fn login_name(passwd: &str, uid: u32) -> Option<String> {
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Accounts of a directory service are not in /etc/passwd; `id` asks the service.
    listed.or_else(|| {
        let output = Command::new("id")
            .arg("-un")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !name.is_empty()).then_some(name)
    })
}

/// The `(first, count)` ranges of ids that exist in our own user namespace.
fn own_map(file: &'static str) -> Result<Vec<(u32, u32)>, SandboxError> {
    let text = std::fs::read_to_string(file).map_err(|source| SandboxError::Io {
        path: file.into(),
        source,
    })?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            let first = numbers.next()?.ok()?;
            Some((first, numbers.nth(1)?.ok()?))
        })
        .collect())
}

/// `wanted` when the whole range of `count` from there exists in `ranges`, else the highest place where one
/// fits that leaves id 0 out.
fn inside(ranges: &[(u32, u32)], wanted: u32, count: u32) -> Option<u32> {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let need = u64::from(count);
    if ranges
        .iter()
        .any(|(first, count)| *first <= wanted && u64::from(wanted) + need <= end(*first, *count))
    {
        return Some(wanted);
    }
    ranges
        .iter()
        .filter_map(|(first, count)| {
            let base = end(*first, *count).checked_sub(need)?;
            (base >= u64::from(*first).max(1)).then_some(base)
        })
        .max()
        .and_then(|base| u32::try_from(base).ok())
}

fn on_path(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| is_file(&dir.join(tool))))
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_range_that_is_wide_enough() {
        let text = "other:100000:65536\nann:200000:10\nann:300000:65536\n1001:400000:65536\n";
        assert_eq!(subordinate(text, Some("ann"), 7), Some(300_000));
        assert_eq!(subordinate(text, Some("bob"), 1001), Some(400_000));
        assert_eq!(subordinate(text, Some("bob"), 7), None);
        assert_eq!(
            subordinate("ann:4294967295:65536\nann:x:y\nann\n", Some("ann"), 7),
            None
        );
    }

    #[test]
    fn keeps_inside_the_ids_of_a_container() {
        assert_eq!(
            inside(&[(0, u32::MAX)], ROOT_DEFAULT_BASE, ID_COUNT),
            Some(ROOT_DEFAULT_BASE)
        );
        assert_eq!(
            inside(&[(0, 1), (1, 131_072)], ROOT_DEFAULT_BASE, ID_COUNT),
            Some(65_537)
        );
        assert_eq!(inside(&[(0, 65_536)], ROOT_DEFAULT_BASE, ID_COUNT), None);
        assert_eq!(inside(&[(0, 65_536)], ROOT_DEFAULT_BASE, 1), Some(65_535));
        assert_eq!(inside(&[], 5, 1), None);
    }

    #[test]
    fn reads_the_login_name() {
        assert_eq!(
            login_name("root:x:0:0::/root:/bin/sh\nann:x:7:7::/:/bin/sh\n", 7).as_deref(),
            Some("ann")
        );
    }
}
