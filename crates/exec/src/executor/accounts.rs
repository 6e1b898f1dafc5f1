//! User and group names, read from `/etc/passwd` and `/etc/group` of the root that actions work on.
//!
//! Not through the C library: its name service would load modules of the image into this process.

use std::io;

use crate::root::{self, Root};

/// Bytes of one of the two files.
const MAX_BYTES: u64 = 16 << 20;

/// A user of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

/// An owner or group that is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("there is no {kind} {name:?}")]
    Unknown { kind: &'static str, name: String },
    #[error("cannot read {file}")]
    Read {
        file: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The user with this name or number. A number need not be in `/etc/passwd`.
pub(crate) fn user(root: &dyn Root, name: &str) -> Result<User, AccountError> {
    find_user(&read(root, "/etc/passwd")?, name).ok_or_else(|| AccountError::Unknown {
        kind: "user",
        name: name.to_owned(),
    })
}

/// The group with this name or number.
pub(crate) fn group(root: &dyn Root, name: &str) -> Result<u32, AccountError> {
    find_group(&read(root, "/etc/group")?, name).ok_or_else(|| AccountError::Unknown {
        kind: "group",
        name: name.to_owned(),
    })
}

/// The ids of an owner and a group; without a group, that of the user. A number that is no user's
/// has none: the group then stays.
pub(crate) fn owner(
    root: &dyn Root,
    name: &str,
    group_name: Option<&str>,
) -> Result<(u32, Option<u32>), AccountError> {
    let user = user(root, name)?;
    let group = group_name.map(|name| group(root, name)).transpose()?;
    Ok((user.uid, group.or(user.gid)))
}

fn read(root: &dyn Root, file: &'static str) -> Result<String, AccountError> {
    match root::read(root, file.as_ref(), MAX_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(AccountError::Read { file, source }),
    }
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    let number = number(name);
    let listed = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        (fields.first() == Some(&name) || number == Some(uid)).then_some(User {
            uid,
            gid: Some(gid),
        })
    });
    listed.or_else(|| number.map(|uid| User { uid, gid: None }))
}

fn find_group(group: &str, name: &str) -> Option<u32> {
    let listed = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        fields.nth(1)?.parse().ok()
    });
    listed.or_else(|| number(name))
}

/// An id as text; the highest one means "no change" to the kernel and is no id.
fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\nann:x:7:8::/:/bin/sh\n";
        let ann = User {
            uid: 7,
            gid: Some(8),
        };
        assert_eq!(find_user(passwd, "ann"), Some(ann));
        assert_eq!(find_user(passwd, "7"), Some(ann));
        assert_eq!(find_user(passwd, "9"), Some(User { uid: 9, gid: None }));
        assert_eq!(find_user(passwd, "bob"), None);
        assert_eq!(find_user(passwd, "4294967295"), None);
        assert_eq!(find_group("adm:x:4:\n", "adm"), Some(4));
        assert_eq!(find_group("adm:x:4:\n", "12"), Some(12));
        assert_eq!(find_group("adm:x:4:\n", "wheel"), None);
    }
}
