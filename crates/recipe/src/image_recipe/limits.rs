//! What stands below `amiforge.limits`.

use crate::decode::{self, Cx, Fields};
use crate::node::Node;

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
