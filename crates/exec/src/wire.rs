//! What the two halves of a sandbox say to one another over the child's standard input and output,
//! one JSON object per line.
//!
//! ```text
//! parent → child   ToChild            the job
//! child → parent   Unshared           in its new user namespace, without ids yet
//! parent → child   go                 the id map is written
//! child → parent   Event …            while the job runs
//! child → parent   Opened             a shell is there; its descriptors are on the socket (unix(7), SCM_RIGHTS)
//! child → parent   Done or Failed     and the child ends
//! ```

use std::path::PathBuf;
use std::time::Duration;

use amiforge_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{ChildEvent, RunSpec, ScriptResult, ShellResult};
use crate::executor::{Executed, Journal};
use crate::kept::LentDownload;
use crate::outside::Outside;
use crate::spec::{RootSpec, ScriptSpec, ShellSpec, Way};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToChild {
    /// Process id of the parent, to notice that it died before we could ask to die with it.
    pub(crate) parent: i32,
    pub(crate) way: Way,
    pub(crate) job: Job,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Makes the upper and work directories. Trusted.
    Prepare {
        root: RootSpec,
        /// Whether `/tmp` of the run before is kept.
        keep_tmp: bool,
        /// What the job that is prepared for is lent: a machine is started with it.
        lent: Vec<LentDownload>,
    },
    /// Writes a layer into a directory and renames that. Trusted.
    Materialise {
        layer: PathBuf,
        dir: PathBuf,
        place: PathBuf,
        shift: Option<Shift>,
    },
    /// Makes a layer of an upper directory. Trusted.
    Harvest {
        upper: PathBuf,
        layer: PathBuf,
        clock: Timestamp,
        since: Option<Timestamp>,
        exclude: Vec<String>,
    },
    /// Removes directories with everything below. Trusted.
    RemoveTrees { dirs: Vec<PathBuf> },
    /// Runs a script in a root.
    Script { root: RootSpec, script: ScriptSpec },
    /// Runs component phases in a root, up to the next restart. The journal is that of the restart
    /// before.
    Component {
        root: RootSpec,
        run: Box<RunSpec>,
        journal: Journal,
        outside: Box<Outside>,
        /// After how long it stops between two steps, as if one wanted a restart.
        pause_after: Option<Duration>,
    },
    /// Runs a command in a root whose input and output are handed to the parent.
    Shell { root: RootSpec, shell: ShellSpec },
}

impl Job {
    /// Trusted jobs run our own code only and may use the caller's files; the others run foreign
    /// code, in namespaces where the caller's own ids do not exist.
    pub(crate) fn trusted(&self) -> bool {
        self.foreign_root().is_none()
    }

    /// The root that the job runs foreign code in.
    pub(crate) fn foreign_root(&self) -> Option<&RootSpec> {
        match self {
            Self::Script { root, .. } | Self::Component { root, .. } | Self::Shell { root, .. } => {
                Some(root)
            }
            Self::Prepare { .. }
            | Self::Materialise { .. }
            | Self::Harvest { .. }
            | Self::RemoveTrees { .. } => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    Unshared,
    Event(ChildEvent),
    Opened,
    Done(JobResult),
    Failed {
        /// What was being done, with causes.
        what: String,
        /// The system's error number, when the machine refused something the sandbox is made of.
        refused: Option<i32>,
    },
}

/// Files that are as old as `since`, or younger, become so much younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shift {
    pub(crate) since: Timestamp,
    pub(crate) nanos: i128,
}

/// To the first process of a machine, in which our paths do not exist: the job has the machine's own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToMachine {
    /// The wall clock, which a machine does not know well.
    pub(crate) now: Timestamp,
    pub(crate) job: Job,
}

/// From there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromMachine {
    /// It waits for jobs.
    Ready,
    /// It is still at a job.
    Busy,
    /// What the child that has the job says.
    Child(FromChild),
    /// So many bytes of a layer come on the other line.
    Layer(u64),
    /// It cannot go on.
    Broken(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum JobResult {
    Unit,
    Script(ScriptResult),
    Run(Box<Executed>),
    Shell(ShellResult),
}

impl JobResult {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unit => "a trusted job",
            Self::Script(_) => "a script",
            Self::Run(_) => "a run",
            Self::Shell(_) => "a shell",
        }
    }
}
