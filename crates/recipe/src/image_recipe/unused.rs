//! Settings of `amiforge.apt` that say nothing about the parent that a recipe has.

use super::ParentImage;
use crate::decode::Cx;
use crate::node::{Node, NodeKind};

/// What a machine image of files from elsewhere is completed with (`docs/parents.md`, "Machines from what was made for
/// containers").
const OF_BOOT: &[&str] = &[
    "mirror",
    "suite",
    "suites",
    "components",
    "keyring",
    "packages",
    "include",
];

/// Of these, what describes the archive that `mirror` names.
const OF_MIRROR: &[&str] = &["suite", "suites", "components", "keyring"];

/// Tells of every setting of `apt` that has no effect. Of a parent that only the user's configuration knows, nothing is told.
pub(super) fn warn(
    amiforge: Option<&Node>,
    parent: &ParentImage,
    is_machine: bool,
    cx: &mut Cx<'_>,
) {
    let imported = match parent {
        ParentImage::Debian { .. } | ParentImage::Aws(_) => return,
        ParentImage::Scratch => false,
        ParentImage::Oci(_)
        | ParentImage::OciLayout { .. }
        | ParentImage::Tar { .. }
        | ParentImage::Disk { .. }
        | ParentImage::Image { .. } => true,
    };
    let Some(apt) = amiforge.and_then(|node| node.get("apt")) else {
        return;
    };
    let NodeKind::Map(settings) = &apt.kind else {
        return;
    };
    let has_mirror = apt.get("mirror").is_some();
    for (key, _) in settings {
        let name = key.text.as_str();
        let why = match (imported, is_machine) {
            (true, true) if !OF_BOOT.contains(&name) => {
                "it is about the packages of a `debian:` parent; of others only what a boot lacks is added"
            }
            (true, true) if OF_MIRROR.contains(&name) && !has_mirror => {
                "without `mirror` packages come from the image's own sources"
            }
            (true, true) => continue,
            (true, false) => {
                "nothing is added to the files of this parent, since a container needs no boot"
            }
            (false, _) => "nothing is added to `scratch`",
        };
        let message = format!("`amiforge.apt.{name}` has no effect with the parent `{parent}`");
        cx.warning("unused-setting", key.span, message, why);
    }
}
