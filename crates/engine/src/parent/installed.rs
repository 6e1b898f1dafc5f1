//! The packages of a finished image.

use amiforge_tree::Tree;
use amiforge_types::BlobTable;
use serde::{Deserialize, Serialize};

use crate::error::{Contextual, EngineError, ErrorKind};

/// Largest dpkg database that is read.
const MAX_STATUS: u64 = 64 << 20;

/// A package of the finished image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstalledPackage {
    /// Name.
    pub(crate) name: String,
    /// Version.
    pub(crate) version: String,
    /// Architecture.
    pub(crate) architecture: String,
}

/// The packages that the image's own dpkg database calls installed, by name.
pub(crate) fn installed_packages(
    tree: &Tree,
    blobs: &BlobTable,
) -> Result<Vec<InstalledPackage>, EngineError> {
    let context = || "cannot read the image's package database".to_owned();
    let Some(ino) = tree.lookup(b"var/lib/dpkg/status") else {
        return Ok(Vec::new());
    };
    let amiforge_tree::Kind::File(content) = &tree.inode(ino).kind else {
        return Ok(Vec::new());
    };
    let bytes = content
        .read_to_vec(blobs, MAX_STATUS)
        .or_fail(ErrorKind::Failed, context)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut packages = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|v| v.trim().to_owned())
        };
        if field("Status").is_some_and(|s| s.ends_with(" installed"))
            && let (Some(name), Some(version), Some(architecture)) =
                (field("Package"), field("Version"), field("Architecture"))
        {
            packages.push(InstalledPackage {
                name,
                version,
                architecture,
            });
        }
    }
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Ok(packages)
}
