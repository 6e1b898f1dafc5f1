//! What stands below `amiforge.limits`.

use amiforge_types::Diagnostics;

use crate::decode::{self, Cx, Fields};
use crate::node::Node;
use crate::resources::{self, ResourceKind};
use crate::yaml;

/// What the commands of a component may use at most while the image is built; what is absent has the
/// builder's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// Processes and threads at a time.
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Size of one file in GiB.
    pub file_size_gib: Option<u64>,
}

impl StepLimits {
    /// Of each limit the smaller of the two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            processes: both(self.processes, other.processes),
            open_files: both(self.open_files, other.open_files),
            file_size_gib: both(self.file_size_gib, other.file_size_gib),
        }
    }
}

/// Reads an infrastructure configuration in the form of the API: what it says about the steps of a build. The limits
/// are there exactly when no problem is an error; those it does not name are as without it.
#[must_use]
pub fn parse_infrastructure(text: &str) -> (Option<StepLimits>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let limits = yaml::parse_node(text, &mut diags).and_then(|document| {
        let kind = ResourceKind::InfrastructureConfiguration;
        let resource = resources::resource(kind, document, text, &mut diags)?;
        match resource.document.get("amiforge") {
            // Its problems are told already.
            Some(node) => infrastructure_settings(node, &mut Cx::new(&mut Diagnostics::new())),
            None => Some(StepLimits::default()),
        }
    });
    (limits.filter(|_| !diags.has_errors()), diags)
}

pub(super) fn infrastructure_settings(node: &Node, cx: &mut Cx<'_>) -> Option<StepLimits> {
    let mut fields = Fields::of(node, "`amiforge` of an infrastructure configuration", cx)?;
    let limits = fields.optional("limits", cx, limits);
    fields.deny_unknown(cx);
    Some(limits?.unwrap_or_default())
}

/// Fewer and no shell script comes to its end.
const MIN_PROCESSES: i64 = 16;
const MIN_FILES: i64 = 64;
/// The most that Linux numbers (`PID_MAX_LIMIT`), and its default for open files (`fs.nr_open`).
const MAX_PROCESSES: i64 = 4 << 20;
const MAX_FILES: i64 = 1 << 20;
/// The largest file of ext4 with blocks of 4 KiB.
const MAX_GIB: i64 = 16 << 10;

pub(super) fn limits(node: &Node, cx: &mut Cx<'_>) -> Option<StepLimits> {
    let mut fields = Fields::of(node, "`amiforge.limits`", cx)?;
    let mut number = |name, range: std::ops::RangeInclusive<i64>, cx: &mut Cx<'_>| {
        let value = fields.optional(name, cx, |n, cx| decode::integer(n, cx, range.clone()))?;
        Some(value.and_then(|n| u64::try_from(n).ok()))
    };
    let processes = number("processes", MIN_PROCESSES..=MAX_PROCESSES, cx);
    let open_files = number("openFiles", MIN_FILES..=MAX_FILES, cx);
    let file_size_gib = number("fileSizeGib", 1..=MAX_GIB, cx);
    fields.deny_unknown(cx);
    Some(StepLimits {
        processes: processes?,
        open_files: open_files?,
        file_size_gib: file_size_gib?,
    })
}
