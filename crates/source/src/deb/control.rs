//! The control member: the package's paragraph, its scripts and lists.

use std::collections::BTreeMap;

use super::ar::{Member, decompress};
use super::{DebError, EntryKind, TarReader};
use crate::ResolvedPackage;
use crate::apt::deb822::Paragraphs;

/// Largest single file, and all together; `templates` in every language is the largest in Debian.
const MAX_FILE: u64 = 16 << 20;
const MAX_ALL: usize = 64 << 20;

/// The files that `dpkg` leaves in `/var/lib/dpkg/info`, by the part after the package's name.
#[derive(Debug)]
pub(crate) struct Control {
    /// The paragraph, fields in order.
    pub(crate) fields: Vec<(String, String)>,
    /// Everything beside `control`: name to executable and content.
    pub(crate) files: BTreeMap<String, (bool, Vec<u8>)>,
}

impl Control {
    /// Reads the member, and checks that it is of the package that the lock means.
    pub(crate) fn read(member: Member<'_>, expected: &ResolvedPackage) -> Result<Self, DebError> {
        let mut tar = TarReader::new(decompress(member)?, "control");
        let mut files = BTreeMap::new();
        let mut total = 0;
        while let Some(entry) = tar.next()? {
            if entry.kind != EntryKind::File {
                continue;
            }
            let bad = || DebError::BadPath {
                path: String::from_utf8_lossy(&entry.path).into_owned(),
                reason: "not the name of a control file",
            };
            let name = String::from_utf8(entry.path.clone()).map_err(|_| bad())?;
            let plain = !name.is_empty()
                && name.len() <= 100
                && !name.starts_with('.')
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'));
            if !plain {
                return Err(bad());
            }
            let content = tar.content_vec(MAX_FILE)?;
            total += content.len();
            if total > MAX_ALL {
                return Err(DebError::Limit {
                    what: "bytes of control files",
                    limit: MAX_ALL as u64,
                });
            }
            files.insert(name, (entry.mode & 0o111 != 0, content));
        }
        let bad = |reason: String| DebError::malformed("control", 0, reason);
        let (_, text) = files
            .remove("control")
            .ok_or_else(|| bad("no file control".to_owned()))?;
        let text =
            String::from_utf8(text).map_err(|_| bad("the file control is not UTF-8".to_owned()))?;
        let paragraph = Paragraphs::new(&text)
            .next()
            .ok_or_else(|| bad("the file control is empty".to_owned()))?
            .map_err(|e| bad(format!("file control, {e}")))?;
        let fields: Vec<(String, String)> = paragraph
            .fields()
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let get = |name: &str| paragraph.get(name).unwrap_or_default();
        let found = (get("Package"), get("Version"), get("Architecture"));
        if found
            != (
                expected.name.as_str(),
                expected.version.as_str(),
                expected.arch.as_str(),
            )
        {
            return Err(DebError::WrongPackage {
                found: format!("{} {} {}", found.0, found.1, found.2),
                expected: format!("{} {} {}", expected.name, expected.version, expected.arch),
            });
        }
        Ok(Self { fields, files })
    }

    /// A field of the paragraph.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Paths of the configuration files, without the leading slash; those that an upgrade removes are
    /// not among them.
    pub(crate) fn conffiles(&self) -> Vec<String> {
        let Some((_, content)) = self.files.get("conffiles") else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(content);
        text.lines()
            .map(str::trim_end)
            .filter(|line| line.starts_with('/'))
            .map(|line| line.trim_start_matches('/').to_owned())
            .collect()
    }

    /// The name under which dpkg keeps the package's files: with the architecture when several may be
    /// installed side by side.
    pub(crate) fn info_name(&self) -> String {
        let name = self.field("Package").unwrap_or_default();
        match (self.field("Multi-Arch"), self.field("Architecture")) {
            (Some("same"), Some(arch)) => format!("{name}:{arch}"),
            _ => name.to_owned(),
        }
    }
}
