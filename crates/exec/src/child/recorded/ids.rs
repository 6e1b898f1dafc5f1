//! The ids of processes: what they set, and what follows from it (credentials(7)).

use std::collections::BTreeMap;

use amiforge_sys::{Answer, Asked, Call};
use rustix::io::Errno;

use super::place::Callers;
use super::{Answered, Kernel, MAX_GROUPS, low};

/// Parents looked at before a process is taken for root.
const MAX_PARENTS: usize = 64;

/// Processes with ids of their own that are remembered before those that are gone are looked for.
const SWEEP: usize = 512;

/// User or group ids of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    files: u32,
}

/// All ids of a process. The default is root's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Credentials {
    user: Ids,
    group: Ids,
    groups: Vec<u32>,
}

struct Process {
    began: u64,
    credentials: Credentials,
}

/// The processes that are not, or have not always been, root; all others are.
#[derive(Default)]
pub(super) struct Processes {
    /// By their numbers.
    known: BTreeMap<u32, Process>,
}

impl Processes {
    /// Answers a call about ids.
    pub(super) fn answer(&mut self, callers: &Callers, asked: &Asked) -> Answered {
        let a = &asked.args;
        let value = |id: u32| Ok(Answer::Value(i64::from(id)));
        let of = |this: &Self| this.of(callers, asked.thread);
        match asked.call {
            Call::Getuid => value(of(self).user.real),
            Call::Geteuid => value(of(self).user.effective),
            Call::Getgid => value(of(self).group.real),
            Call::Getegid => value(of(self).group.effective),
            Call::Getresuid => give_three(asked, of(self).user),
            Call::Getresgid => give_three(asked, of(self).group),
            Call::Getgroups => {
                let groups = of(self).groups;
                let len = u32::try_from(groups.len()).unwrap_or(0);
                match low(a[0]) {
                    0 => {}
                    size if size < len || size.cast_signed() < 0 => {
                        return Ok(Answer::Error(Errno::INVAL.raw_os_error()));
                    }
                    _ => {
                        let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_ne_bytes()).collect();
                        if !bytes.is_empty() {
                            amiforge_sys::write_memory(asked.thread, a[1], &bytes)?;
                        }
                    }
                }
                value(len)
            }
            Call::Setgroups => {
                let len = usize::try_from(a[0])
                    .ok()
                    .filter(|len| *len <= MAX_GROUPS)
                    .ok_or(Kernel)?;
                let bytes = callers.bytes(asked, a[1], len * 4)?;
                let groups = bytes
                    .chunks_exact(4)
                    .filter_map(|four| four.try_into().ok().map(u32::from_ne_bytes))
                    .collect();
                self.change(callers, asked, |old, root| {
                    old.groups = groups;
                    root
                })
            }
            Call::Setuid => {
                let id = low(a[0]);
                self.change(callers, asked, |old, root| old.user.set(id, root))
            }
            Call::Setgid => {
                let id = low(a[0]);
                self.change(callers, asked, |old, root| old.group.set(id, root))
            }
            Call::Setreuid => {
                let (r, e) = (wanted(a[0]), wanted(a[1]));
                self.change(callers, asked, |old, root| old.user.set_two(r, e, root))
            }
            Call::Setregid => {
                let (r, e) = (wanted(a[0]), wanted(a[1]));
                self.change(callers, asked, |old, root| old.group.set_two(r, e, root))
            }
            Call::Setresuid => {
                let three = [wanted(a[0]), wanted(a[1]), wanted(a[2])];
                self.change(callers, asked, |old, root| old.user.set_three(three, root))
            }
            Call::Setresgid => {
                let three = [wanted(a[0]), wanted(a[1]), wanted(a[2])];
                self.change(callers, asked, |old, root| old.group.set_three(three, root))
            }
            // They return what was, whether it worked or not (setfsuid(2)).
            Call::Setfsuid => {
                let (old, id) = (of(self).user.files, low(a[0]));
                let _may_not =
                    self.change(callers, asked, |old, root| old.user.set_files(id, root));
                value(old)
            }
            Call::Setfsgid => {
                let (old, id) = (of(self).group.files, low(a[0]));
                let _may_not =
                    self.change(callers, asked, |old, root| old.group.set_files(id, root));
                value(old)
            }
            _ => Err(Kernel),
        }
    }

    /// Owner and group of a file that the caller makes.
    pub(super) fn files_of(&self, callers: &Callers, asked: &Asked) -> (u32, u32) {
        let is = self.of(callers, asked.thread);
        (is.user.files, is.group.files)
    }

    /// Whether the caller may give a file away: root may, others may give their own to a group of theirs (chown(2)).
    pub(super) fn may_chown(
        &self,
        callers: &Callers,
        asked: &Asked,
        old: (u32, u32),
        new: (u32, u32),
    ) -> bool {
        let is = self.of(callers, asked.thread);
        let own = is.user.files;
        own == 0
            || (old.0 == own
                && new.0 == own
                && (new.1 == old.1 || new.1 == is.group.files || is.groups.contains(&new.1)))
    }

    fn of(&self, callers: &Callers, thread: u32) -> Credentials {
        if self.known.is_empty() {
            return Credentials::default();
        }
        // A child has what its parent has until it changes it.
        let mut next = thread;
        for _ in 0..MAX_PARENTS {
            let Ok(status) = callers.status(next) else {
                break;
            };
            if let Some(known) = self.known.get(&status.process)
                && callers.began(status.process).ok() == Some(known.began)
            {
                return known.credentials.clone();
            }
            next = status.parent;
        }
        Credentials::default()
    }

    /// Changes the ids of the caller's process by `change`, which is told whether it is root, and says whether it may.
    fn change(
        &mut self,
        callers: &Callers,
        asked: &Asked,
        change: impl FnOnce(&mut Credentials, bool) -> bool,
    ) -> Answered {
        let old = self.of(callers, asked.thread);
        let mut new = old.clone();
        if !change(&mut new, old.user.effective == 0) {
            return Ok(Answer::Error(Errno::PERM.raw_os_error()));
        }
        if new != old {
            let process = callers.status(asked.thread)?.process;
            let began = callers.began(process)?;
            if self.known.len() >= SWEEP {
                self.known
                    .retain(|pid, known| callers.began(*pid).ok() == Some(known.began));
            }
            self.known.insert(
                process,
                Process {
                    began,
                    credentials: new,
                },
            );
        }
        Ok(Answer::Value(0))
    }
}

fn give_three(asked: &Asked, ids: Ids) -> Answered {
    for (to, id) in asked.args.iter().zip([ids.real, ids.effective, ids.saved]) {
        amiforge_sys::write_memory(asked.thread, *to, &id.to_ne_bytes())?;
    }
    Ok(Answer::Value(0))
}

/// An id that is asked for; the highest one asks for none.
fn wanted(arg: u64) -> Option<u32> {
    Some(low(arg)).filter(|id| *id != u32::MAX)
}

impl Ids {
    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2)
    fn set(&mut self, id: u32, root: bool) -> bool {
        if root {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return false;
        }
        (self.effective, self.files) = (id, id);
        true
    }

    /// setreuid(2)
    fn set_two(&mut self, real: Option<u32>, effective: Option<u32>, root: bool) -> bool {
        let old = *self;
        if !root
            && (real.is_some_and(|id| id != old.real && id != old.effective)
                || effective.is_some_and(|id| !old.has(id)))
        {
            return false;
        }
        self.real = real.unwrap_or(old.real);
        self.effective = effective.unwrap_or(old.effective);
        self.files = self.effective;
        if real.is_some() || effective.is_some_and(|id| id != old.real) {
            self.saved = self.effective;
        }
        true
    }

    /// setresuid(2)
    fn set_three(&mut self, [real, effective, saved]: [Option<u32>; 3], root: bool) -> bool {
        let old = *self;
        if !root
            && [real, effective, saved]
                .iter()
                .flatten()
                .any(|id| !old.has(*id))
        {
            return false;
        }
        self.real = real.unwrap_or(old.real);
        self.effective = effective.unwrap_or(old.effective);
        self.saved = saved.unwrap_or(old.saved);
        self.files = self.effective;
        true
    }

    /// setfsuid(2)
    fn set_files(&mut self, id: u32, root: bool) -> bool {
        if !root && !self.has(id) && id != self.files {
            return false;
        }
        self.files = id;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_may_become_anybody_and_not_go_back() {
        let mut ids = Ids::default();
        assert!(ids.set(33, true));
        assert_eq!((ids.real, ids.saved, ids.files), (33, 33, 33));
        assert!(!ids.set(0, false) && ids.set(33, false));
        assert!(!ids.set_three([None, Some(0), None], false));
    }

    #[test]
    fn an_effective_id_can_be_taken_back() {
        let mut ids = Ids::default();
        assert!(ids.set_three([None, Some(33), None], true));
        assert_eq!((ids.real, ids.effective, ids.saved), (0, 33, 0));
        assert!(ids.set_three([None, Some(0), None], false));
        assert!(ids.set_two(None, Some(33), true));
        assert_eq!((ids.real, ids.effective, ids.saved), (0, 33, 33));
    }
}
