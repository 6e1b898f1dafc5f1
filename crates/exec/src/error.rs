//! What can go wrong with a sandbox, seen from the parent.

use std::io;
use std::path::PathBuf;

use crate::sandbox::Tried;

/// A sandbox that cannot be had, or a job in it that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// No usable range of subordinate ids.
    #[error(
        "{file} gives {user} no range of {} subordinate ids",
        crate::spec::ID_COUNT
    )]
    NoSubordinateIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// Login name.
        user: String,
    },
    /// As root, but inside a container whose own ids leave no room.
    #[error(
        "the user ids of this container end below the {} that an image needs",
        crate::spec::ID_COUNT
    )]
    NoRoomForIds,
    /// newuidmap or newgidmap is missing.
    #[error("{tool} is not installed")]
    MissingTool {
        /// Program name.
        tool: &'static str,
    },
    /// newuidmap, newgidmap or the kernel refused the id map.
    #[error("{tool} refused the id map: {message}")]
    MapRefused {
        /// Program name, or the file written.
        tool: &'static str,
        /// What it said.
        message: String,
    },
    /// Only root can change its root directory.
    #[error("only root can change its root directory")]
    NotRoot,
    /// Root, but not with all that it takes.
    #[error("root lacks {}", .names.join(", "))]
    MissingCapabilities {
        /// Their names (capabilities(7)).
        names: Vec<&'static str>,
    },
    /// The kernel, or a policy on top of it, refused something the sandbox is made of.
    #[error("cannot {what}")]
    Refused {
        /// What was tried, for example `create a user namespace`.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The helper program did not start.
    #[error("cannot start {}", .helper.display())]
    Spawn {
        /// The program.
        helper: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The job itself failed inside the sandbox.
    #[error("{what}")]
    Job {
        /// What failed, with causes.
        what: String,
    },
    /// The child ended without a result.
    #[error("the sandbox ended unexpectedly ({status}){}", if .stderr.is_empty() { String::new() } else { format!(": {}", .stderr) })]
    Died {
        /// Exit status in words.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// There is no machine to run steps in.
    #[error("{what}")]
    NoMachine {
        /// What is missing, with causes.
        what: String,
        /// What can be done about it.
        hint: Option<String>,
    },
    /// No way of running steps works here.
    #[error("there is no way to run steps on this machine{}", ways(.tried))]
    NoWay {
        /// What was tried, the best first.
        tried: Vec<Tried>,
    },
    /// The caller's cancel flag was raised.
    #[error("interrupted")]
    Cancelled,
    /// A file of the host could not be used.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SandboxError {
    /// What a child told of its failure; `refused` is the error code of the kernel, if the kernel was it.
    pub(crate) fn told(what: String, refused: Option<i32>) -> Self {
        match refused {
            Some(errno) => Self::Refused {
                what,
                source: std::io::Error::from_raw_os_error(errno),
            },
            None => Self::Job { what },
        }
    }

    /// True when the machine lacks something (exit code 3), false when the job failed.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::NoSubordinateIds { .. }
                | Self::NoRoomForIds
                | Self::MissingTool { .. }
                | Self::MapRefused { .. }
                | Self::NotRoot
                | Self::MissingCapabilities { .. }
                | Self::Refused { .. }
                | Self::NoMachine { .. }
                | Self::NoWay { .. }
        )
    }

    /// One line that a user can act on.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSubordinateIds { user, .. } => Some(format!(
                "run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}   (choose another range if a line of /etc/subuid has this one)"
            )),
            Self::NoRoomForIds => Some("start the container with a larger id range, or as real root".into()),
            Self::MissingTool { .. } => Some("run: sudo apt-get install uidmap".into()),
            Self::MapRefused { .. } => {
                Some("check the range in /etc/subuid and /etc/subgid, and that newuidmap and newgidmap are set-uid root".into())
            }
            Self::MissingCapabilities { names } => Some(format!(
                "start the container with --cap-add {}",
                names.join(" --cap-add ")
            )),
            Self::Refused { what, .. } if what.contains("a device") => Some(
                "in a container, allow device nodes (--cap-add MKNOD), and have the store on a file system that is not mounted nodev (AMIFORGE_HOME moves it)".into(),
            ),
            Self::Refused { what, .. } if what.contains("user namespace") => Some(
                "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0 and user.max_user_namespaces above 0; in a container, allow unshare and mount (--security-opt seccomp=unconfined)".into(),
            ),
            Self::Refused { what, .. } if what.contains("/proc") => {
                Some("in a container, unmask /proc (docker: --security-opt systempaths=unconfined)".into())
            }
            Self::Refused { what, .. } if what.contains("overlay") => {
                Some("overlayfs in a user namespace needs Linux 5.11, and a store on ext4, xfs, btrfs or tmpfs (AMIFORGE_HOME moves it)".into())
            }
            Self::NoMachine { hint, .. } => hint.clone(),
            // The best way is the one to get.
            Self::NoWay { tried } => tried.iter().find_map(|tried| tried.error.hint()),
            _ => None,
        }
    }
}

/// The ways that were tried, in words.
fn ways(tried: &[Tried]) -> String {
    let mut text = String::new();
    for Tried { way, error } in tried {
        text.push_str(&format!("; {way}: {error}"));
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
    }
    text
}
