//! What the actions that copy and move have in common.
//!
//! A tree is put at a place entry by entry. Folders that exist there are added to and keep their
//! owner and mode, anything else that exists is replaced, and a folder never replaces a file nor a
//! file a folder. Links in the tree stay links: nothing is read or written through one.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, lchown, symlink,
};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::files::{
    children, failed, identity, look, look_here, masked, matches, set_mode, shown, wrong_type,
};
use super::{StepCx, StepError};

/// Sources with their targets. `wanted` says which entries a wildcard means; a `destination` that
/// ends in `/` is a folder and keeps the source's name.
pub(super) fn pairs(
    cx: &mut StepCx<'_>,
    source: &str,
    destination: &str,
    wanted: &dyn Fn(&Path, &Metadata) -> Result<bool, StepError>,
) -> Result<Vec<(PathBuf, PathBuf)>, StepError> {
    let (pattern, destination) = (cx.path(source), cx.path(destination));
    cx.about(&format!("{pattern} to {destination}"));
    let into_folder = destination.ends_with('/');
    let sources = if source.contains('*') {
        matches(&pattern, wanted)?
    } else {
        vec![PathBuf::from(&pattern)]
    };
    match sources.len() {
        0 => return Err(StepError::NoMatch { pattern }),
        1 => {}
        _ if into_folder => {}
        _ => return Err(StepError::ManyMatches { pattern }),
    }
    let target = |source: PathBuf| {
        if !into_folder {
            return Ok((source, PathBuf::from(&destination)));
        }
        let name = source.file_name().ok_or_else(|| StepError::NoName {
            path: shown(&source),
        })?;
        let target = Path::new(&destination).join(name);
        Ok((source, target))
    };
    sources.into_iter().map(target).collect()
}

/// The folder that a target means: of a link to a folder, that folder.
pub(super) fn folder_target(target: PathBuf) -> Result<PathBuf, StepError> {
    match look(&target)? {
        Some(found) if found.is_dir() => {
            std::fs::canonicalize(&target).map_err(failed("look at", &target))
        }
        _ => Ok(target),
    }
}

/// Refuses a target that is the folder `source` or is inside it; what has not been made yet counts.
pub(super) fn not_within(source: &Path, about: &Metadata, target: &Path) -> Result<(), StepError> {
    let mut above = target;
    let deepest = loop {
        match std::fs::canonicalize(above) {
            Ok(path) => break path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at", target)(e)),
        }
        match above.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => above = parent,
            _ => return Ok(()),
        }
    };
    for folder in deepest.ancestors() {
        let found = look(folder)?;
        if found.is_none_or(|found| identity(&found) != identity(about)) {
            continue;
        }
        return Err(if folder == deepest && above == target {
            StepError::OntoItself {
                path: shown(target),
            }
        } else {
            StepError::IntoItself {
                source_path: shown(source),
                target: shown(target),
            }
        });
    }
    Ok(())
}

/// How a tree is put somewhere.
pub(super) struct Put<'a, 'cx> {
    pub(super) cx: &'a StepCx<'cx>,
    /// Whether owners, modes, times, attributes and hard links are kept. Without, what is new
    /// belongs to the one who copies, with the mode less the mask and the set-id bits.
    pub(super) keep: bool,
    /// Where the first name of a file with several is.
    pub(super) links: BTreeMap<(u64, u64), PathBuf>,
}

impl Put<'_, '_> {
    /// Puts what is at `from`, which is `about`, at `to`, whose parent is there.
    pub(super) fn entry(
        &mut self,
        from: &Path,
        about: &Metadata,
        to: &Path,
    ) -> Result<(), StepError> {
        self.cx.check_deadline()?;
        let before = look_here(to)?;
        if about.is_dir() {
            return self.folder(from, about, to, before);
        }
        if let Some(before) = before {
            if before.is_dir() {
                return Err(wrong_type(to, &before, "a file"));
            }
            if identity(&before) == identity(about) && about.nlink() < 2 {
                return Err(StepError::OntoItself { path: shown(to) });
            }
            std::fs::remove_file(to).map_err(failed("replace", to))?;
        }
        if self.keep && about.nlink() > 1 {
            if let Some(first) = self.links.get(&identity(about)) {
                return std::fs::hard_link(first, to).map_err(failed("write", to));
            }
            self.links.insert(identity(about), to.to_owned());
        }
        let file_type = about.file_type();
        if file_type.is_symlink() {
            let target = std::fs::read_link(from).map_err(failed("read", from))?;
            symlink(target, to).map_err(failed("create the link", to))?;
        } else if file_type.is_file() {
            let mut source = File::open(from).map_err(failed("read", from))?;
            let mut out = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(masked(about.mode()))
                .open(to)
                .map_err(failed("write", to))?;
            io::copy(&mut source, &mut out).map_err(failed("write", to))?;
        } else {
            let node = if file_type.is_fifo() {
                FileType::Fifo
            } else if file_type.is_socket() {
                FileType::Socket
            } else if file_type.is_block_device() {
                FileType::BlockDevice
            } else {
                FileType::CharacterDevice
            };
            let mode = Mode::from_raw_mode(masked(about.mode()));
            rustix::fs::mknodat(CWD, to, node, mode, about.rdev())
                .map_err(|e| failed("write", to)(e.into()))?;
        }
        if self.keep {
            attributes(from, about, to)?;
        }
        Ok(())
    }

    fn folder(
        &mut self,
        from: &Path,
        about: &Metadata,
        to: &Path,
        before: Option<Metadata>,
    ) -> Result<(), StepError> {
        let new = match before {
            // The same folder by another way, such as a bind mount: replacing would remove the source.
            Some(before) if identity(&before) == identity(about) => {
                return Err(StepError::OntoItself { path: shown(to) });
            }
            Some(before) if before.is_dir() => false,
            Some(before) => return Err(wrong_type(to, &before, "a folder")),
            None => true,
        };
        if new {
            // Nobody else's until all is in it.
            DirBuilder::new()
                .mode(0o700)
                .create(to)
                .map_err(failed("create the folder", to))?;
        }
        for (path, about) in children(from)? {
            let name = path.file_name().unwrap_or_default();
            self.entry(&path, &about, &to.join(name))?;
        }
        match (new, self.keep) {
            (true, true) => attributes(from, about, to),
            (true, false) => set_mode(to, masked(about.mode())),
            (false, _) => Ok(()),
        }
    }
}

/// Extended attributes that the kernel or a policy sets, and that cannot be given.
const NOT_OURS: &[&str] = &["security.selinux", "security.ima", "security.evm"];

/// Gives `to` what `from` has besides content: owner, mode, extended attributes, times.
fn attributes(from: &Path, about: &Metadata, to: &Path) -> Result<(), StepError> {
    lchown(to, Some(about.uid()), Some(about.gid())).map_err(failed("change the owner of", to))?;
    if !about.file_type().is_symlink() {
        // After the owner: changing that clears the set-id bits.
        set_mode(to, about.mode() & 0o7777)?;
    }
    extended(from, to).map_err(|e| failed("set the attributes of", to)(e.into()))?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: about.atime(),
            tv_nsec: about.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: about.mtime(),
            tv_nsec: about.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed("set the times of", to)(e.into()))
}

fn extended(from: &Path, to: &Path) -> rustix::io::Result<()> {
    // The kernel's limits of a list of names and of a value.
    let (mut names, mut value) = (vec![0_u8; 65_536], vec![0_u8; 65_536]);
    let size = match rustix::fs::llistxattr(from, &mut names) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    for name in names[..size].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if NOT_OURS.iter().any(|other| other.as_bytes() == name) {
            continue;
        }
        let size = rustix::fs::lgetxattr(from, name, &mut value)?;
        rustix::fs::lsetxattr(to, name, &value[..size], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}
