//! What the sandbox is asked to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The root file system of a sandbox, and what the outside world lends it.
///
/// `upper` and `work` are made when missing (their parent must exist and be on a file system that
/// overlayfs takes as upper: ext4, xfs, btrfs or tmpfs). After the job, `upper` holds what
/// changed and nothing else: not the mounts, not the shims unless the job changed them, and
/// nothing below `/dev`, `/proc`, `/sys`, `/run`, `/tmp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSpec {
    /// Lower directories, topmost first, at least one; owned by mapped ids (see `Sandbox::materialise`).
    pub lowers: Vec<PathBuf>,
    /// Directory that receives the changes, in overlayfs form with `user.overlay.*` attributes.
    pub upper: PathBuf,
    /// Working directory of overlayfs on the same file system as `upper`; also holds the job's `/tmp`.
    pub work: PathBuf,
    /// Files that cover the image's own while the job runs, without a trace in `upper`.
    pub shims: Vec<Shim>,
    /// Text of `/etc/resolv.conf` while the job runs; `None` leaves the image's own.
    pub resolv_conf: Option<String>,
    /// True: the host's network. False: a network of its own with nothing but `lo`.
    pub network: bool,
    /// What the commands of the job may use at most.
    pub limits: Limits,
}

/// Directories that every root has mounts on.
pub(crate) const MOUNT_POINTS: &[&str] = &["/dev", "/proc", "/sys", "/run", "/tmp"];

/// A device that a sandbox has.
pub(crate) struct Device {
    /// Its name in `/dev`.
    pub(crate) name: &'static str,
    /// Major and minor number.
    pub(crate) number: (u32, u32),
    /// Whether a job can do without.
    pub(crate) optional: bool,
}

/// The devices of a sandbox.
pub(crate) const DEVICES: &[Device] = &[
    device("full", (1, 7)),
    device("null", (1, 3)),
    device("random", (1, 8)),
    Device {
        optional: true,
        ..device("tty", (5, 0))
    },
    device("urandom", (1, 9)),
    device("zero", (1, 5)),
];

const fn device(name: &'static str, number: (u32, u32)) -> Device {
    Device {
        name,
        number,
        optional: false,
    }
}

/// Links in `/dev`, by their names.
pub(crate) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// File mode mask of every command and of all that actions make.
pub(crate) const UMASK: u16 = 0o022;

/// Name of the machine that steps run on.
pub(crate) const HOST_NAME: &str = "localhost";

/// Symbolic links that one path may lead through, as in the kernel.
pub(crate) const MAX_LINKS: usize = 40;

impl RootSpec {
    /// The same without a network. What it was lent to look up names with is of no use there, and the scripts of
    /// resolvers would keep copies of it.
    #[must_use]
    pub fn cut_off(&self) -> Self {
        Self {
            network: false,
            resolv_conf: None,
            ..self.clone()
        }
    }

    /// The files that a job is lent: absolute path in the image, content, permission bits.
    pub fn lent(&self) -> impl Iterator<Item = (&str, &[u8], u32)> {
        let resolv_conf = self.resolv_conf.iter();
        let resolv_conf = resolv_conf.map(|text| ("/etc/resolv.conf", text.as_bytes(), 0o644));
        let shims = self.shims.iter();
        shims
            .map(|shim| (shim.path.as_str(), shim.text.as_bytes(), shim.mode))
            .chain(resolv_conf)
    }
}

/// The names on the way to where a lent file lies: the symbolic links among the *directories* of its path followed
/// inside the image, since a shim for `/sbin/x` must land in `/usr/sbin` where `/sbin` is a link, or it would
/// replace the link. A link in the last place is covered by the shim. `link` says where what is at a path
/// without leading slash leads, if it is a link.
///
/// # Errors
/// [`PlaceError`]
pub fn lent_place(
    path: &str,
    mut link: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, PlaceError> {
    let mut todo: Vec<Vec<u8>> = image_path(path).ok_or(PlaceError::Path)?;
    todo.reverse();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.pop();
            continue;
        }
        done.push(name);
        if todo.is_empty() {
            break;
        }
        let Some(target) = link(&done.join(&b'/')) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(PlaceError::Loop);
        }
        match target.starts_with(b"/") {
            true => done.clear(),
            false => drop(done.pop()),
        }
        let parts = target
            .split(|b| *b == b'/')
            .filter(|part| !part.is_empty() && *part != b".");
        todo.extend(parts.rev().map(<[u8]>::to_vec));
    }
    Ok(done)
}

/// A lent file has no place in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not an absolute path without `..`.
    #[error("it is not a path in an image")]
    Path,
    /// Symbolic links lead in a circle.
    #[error("too many symbolic links on the way")]
    Loop,
}

/// The names of an absolute path without `..`.
pub(crate) fn image_path(path: &str) -> Option<Vec<Vec<u8>>> {
    let rest = path.strip_prefix('/')?;
    let parts: Vec<Vec<u8>> = rest
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .map(|p| p.as_bytes().to_vec())
        .collect();
    (!parts.is_empty() && parts.iter().all(|p| p != b".." && !p.contains(&0))).then_some(parts)
}

/// What the commands of a job may use at most. A limit that the caller itself has and that is lower
/// stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads of one user of the sandbox at a time.
    pub processes: u64,
    /// Open files of one process. `None`: 1024, which a program may raise to 524,288 for itself.
    pub open_files: Option<u64>,
    /// Bytes of one file.
    pub file_size: Option<u64>,
}

impl Limits {
    /// Enough for a parallel build on a large machine, and few enough that a small one stays usable.
    pub const PROCESSES: u64 = 4096;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: Self::PROCESSES,
            open_files: None,
            file_size: None,
        }
    }
}

/// A file that is there while a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shim {
    /// Absolute path in the image. Missing directories are lent too.
    pub path: String,
    /// Content.
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// A shell script to run as root of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptSpec {
    /// Program that reads the script, with its arguments, for example `["/bin/sh", "-e"]`. The path
    /// of the script is added as last argument.
    pub interpreter: Vec<String>,
    /// The script.
    pub text: String,
    /// Environment beside the fixed base (see `docs/sandbox.md`); wins over it.
    pub env: BTreeMap<String, String>,
    /// Kill everything after this many seconds.
    pub timeout_seconds: Option<u64>,
}

/// A command for a person, or for a script that talks to it, as root of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellSpec {
    /// Program and arguments; a name without slash is looked up in the image's `PATH`. Empty: the image's shell.
    pub argv: Vec<String>,
    /// Environment beside the fixed base (see `docs/sandbox.md`); wins over it.
    pub env: BTreeMap<String, String>,
    /// The folder it starts in.
    pub dir: String,
    /// Rows and columns of the terminal that it gets. `None`: it talks through pipes.
    pub terminal: Option<(u16, u16)>,
}

/// A way of running steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A user namespace in which every id of an image has one of the host's behind it.
    MappedIds,
    /// A user namespace with the caller's own id alone, behind root; owners are recorded.
    SingleId,
    /// A changed root directory, as root of a container in which there can be no namespaces and no mounts.
    Chroot,
    /// A machine of our own under QEMU, in which everything is allowed.
    MicroVm,
}

impl Way {
    /// All of them, in the order in which they are tried.
    pub const ALL: &'static [Self] =
        &[Self::MappedIds, Self::SingleId, Self::Chroot, Self::MicroVm];

    /// Its name for people and options.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MappedIds => "mapped-ids",
            Self::SingleId => "single-id",
            Self::Chroot => "chroot",
            Self::MicroVm => "micro-vm",
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|way| way.as_str() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|way| way.as_str()).collect();
            format!(
                "there is no such way of running steps; there are {}",
                names.join(", ")
            )
        })
    }
}

/// Which user and group ids of the host stand behind the ids `0..65536` of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Host user id behind user 0 of the image.
    pub uid_base: u32,
    /// Host group id behind group 0 of the image.
    pub gid_base: u32,
    /// How many ids there are: [`ID_COUNT`], or one. Without a namespace every id is itself.
    pub count: u32,
    /// True: written by newuidmap and newgidmap. False: written directly, as root or of one's own ids.
    pub helpers: bool,
}

/// Ids that an image can use: `0..65536`.
pub const ID_COUNT: u32 = 65_536;
