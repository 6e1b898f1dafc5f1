//! The Debian archive that the host uses, for the peer.

use anyhow::{Context, Result};

/// Address of the archive that the host's apt takes its own suite from, and that suite.
pub(super) fn of_host() -> Result<(String, String)> {
    let release = fs_err::read_to_string("/etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no suite")?
        .trim_matches('"')
        .to_owned();
    let mut files = vec!["/etc/apt/sources.list".into()];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|e| e.path()));
    }
    files.sort();
    let texts = files
        .iter()
        .filter_map(|f: &std::path::PathBuf| fs_err::read_to_string(f).ok());
    let uri = texts.filter_map(|text| uri_of(&text, &suite)).next();
    Ok((
        uri.with_context(|| format!("apt's configuration has no archive of {suite}"))?,
        suite,
    ))
}

/// The first archive with `suite` and the component main, in either format.
fn uri_of(text: &str, suite: &str) -> Option<String> {
    let one_line = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("deb "))
        .find_map(|line| {
            let line = line.trim_start();
            let rest = if line.starts_with('[') {
                line.split_once(']')?.1
            } else {
                line
            };
            let words: Vec<_> = rest.split_whitespace().collect();
            (words.get(1) == Some(&suite) && words.contains(&"main")).then(|| words[0].to_owned())
        });
    let stanza = text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|l| {
                l.strip_prefix(name)?
                    .strip_prefix(':')
                    .map(str::split_whitespace)
            })
        };
        let wanted =
            field("Suites")?.any(|s| s == suite) && field("Components")?.any(|c| c == "main");
        wanted
            .then(|| field("URIs")?.next().map(str::to_owned))
            .flatten()
    });
    one_line.or(stanza)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let old = "# x\ndeb https://other.example/ stable main\ndeb [signed-by=/k] http://a.example/debian bookworm main\n";
        assert_eq!(
            uri_of(old, "bookworm").as_deref(),
            Some("http://a.example/debian")
        );
        let new = "Types: deb\nURIs: http://b.example/s\nSuites: bookworm-security\nComponents: main\n\n\
                   Types: deb\n# note\nURIs: http://b.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(
            uri_of(new, "bookworm").as_deref(),
            Some("http://b.example/debian")
        );
        assert_eq!(uri_of(new, "trixie"), None);
    }
}
