//! The shared files `~/.aws/config` and `~/.aws/credentials`.
//!
//! ```text
//! [profile name]            in credentials: [name]; in both: [default]
//! key = value
//! s3 =
//!     endpoint_url = …      an indented line belongs to the key above: `s3.endpoint_url`
//! [services name]
//! ```
//!
//! AWS SDKs and Tools Reference Guide, shared config and credentials files.

use std::collections::BTreeMap;

/// Sections by name, each with its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sections(BTreeMap<String, BTreeMap<String, String>>);

impl Sections {
    /// Lines that make no sense are passed over, as the SDKs do.
    pub(super) fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut section = None;
        let mut above = String::new();
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(inside) = trimmed.strip_prefix('[') {
                let name = inside.split(']').next().unwrap_or_default();
                let words: Vec<&str> = name.split_ascii_whitespace().collect();
                let name = words.join(" ").replace('"', "");
                all.entry(name.clone()).or_default();
                section = Some(name);
                above.clear();
                continue;
            }
            let Some(keys) = section.as_ref().and_then(|name| all.get_mut(name)) else {
                continue;
            };
            let Some((key, value)) = trimmed.split_once('=') else {
                continue;
            };
            let key = key.trim().to_ascii_lowercase();
            let nested = line.starts_with([' ', '\t']) && !above.is_empty();
            if nested {
                keys.insert(format!("{above}.{key}"), value.trim().to_owned());
            } else {
                keys.insert(key.clone(), value.trim().to_owned());
                above = key;
            }
        }
        Self(all)
    }

    /// A value that is not empty.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<&str> {
        let value = self.0.get(section)?.get(key)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    pub(super) fn has(&self, section: &str) -> bool {
        self.0.contains_key(section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_and_nested_keys() {
        let sections = Sections::parse(
            "stray = 1\n[default]\nregion=eu-west-1\n# c\n; c\nEmpty =\n[profile  dev]\n\
             services = mine\nregion = us-west-2 \nnonsense\n[services mine]\ns3 =\n  \
             endpoint_url = http://h:1\ndynamodb =\n  endpoint_url = http://no\n[broken\nx = 1\n",
        );
        assert_eq!(sections.get("default", "region"), Some("eu-west-1"));
        assert_eq!(sections.get("default", "empty"), None);
        assert_eq!(sections.get("profile dev", "region"), Some("us-west-2"));
        assert_eq!(
            sections.get("services mine", "s3.endpoint_url"),
            Some("http://h:1")
        );
        assert_eq!(sections.get("nothing", "region"), None);
        assert!(sections.has("broken") && !sections.has("stray"));
    }
}
