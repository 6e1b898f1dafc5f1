//! What steps find around them: the environment of commands, and what `context:` names.

use std::collections::BTreeMap;

use amiforge_types::Timestamp;

use crate::event::RunSpec;
use crate::root::{self, Root};

/// Bytes of `os-release`.
const MAX_OS_RELEASE: u64 = 1 << 20;

/// The environment of every command: nothing of the host's, and the same on every machine.
pub(super) fn environment(spec: &RunSpec, dir: Option<&str>) -> BTreeMap<String, String> {
    let mut env = base_environment();
    // Where the service runs components, one of its own reads this.
    env.extend(dir.map(|dir| ("WORKING_DIRECTORY".to_owned(), dir.to_owned())));
    env.insert("SOURCE_DATE_EPOCH".into(), spec.clock.secs.to_string());
    env.extend(spec.env.iter().map(|(k, v)| (k.clone(), v.clone())));
    env
}

/// See `docs/sandbox.md`.
pub(super) fn base_environment() -> BTreeMap<String, String> {
    [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "root"),
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("SHELL", "/bin/sh"),
        ("TZ", "UTC0"),
        ("USER", "root"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

/// `context:` as far as it is the same for all steps of a document.
pub(super) fn context(spec: &RunSpec, root: &dyn Root) -> BTreeMap<String, String> {
    let text = |path: &str| root::read(root, path.as_ref(), MAX_OS_RELEASE);
    let release = text("/etc/os-release")
        .or_else(|_| text("/usr/lib/os-release"))
        .unwrap_or_default();
    let release = String::from_utf8_lossy(&release);
    let name = release_field(&release, "NAME").unwrap_or_else(|| "Linux".to_owned());
    let version = release_field(&release, "VERSION_ID").unwrap_or_default();
    let (date, date_time) = dates(spec.clock);
    let mut context: BTreeMap<String, String> = [
        ("accountId", "000000000000".to_owned()),
        ("date", date),
        ("dateTime", date_time),
        ("executionId", spec.execution_id.clone()),
        ("hostname", root.host_name()),
        ("osName", name),
        ("osPlatform", "linux".to_owned()),
        ("osVersion", version),
        ("region", "us-east-1".to_owned()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect();
    context.extend(spec.context.iter().map(|(k, v)| (k.clone(), v.clone())));
    context
}

/// `YYYY-MM-DD` and RFC 3339.
fn dates(clock: Timestamp) -> (String, String) {
    let text = Timestamp { nanos: 0, ..clock }.to_string();
    let date = text.split('T').next().unwrap_or_default().to_owned();
    (date, text)
}

/// A field of `os-release(5)`, whose values are quoted as in a shell.
fn release_field(text: &str, name: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    Some(
        quoted('"')
            .or_else(|| quoted('\''))
            .unwrap_or(value)
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let text =
            "PRETTY_NAME=\"Debian 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\n";
        let field = |name| release_field(text, name);
        assert_eq!(field("NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(field("VERSION_ID").as_deref(), Some("12"));
        assert_eq!(field("ID").as_deref(), Some("debian"));
        assert_eq!(field("VERSION"), None);
    }

    #[test]
    fn dates_are_those_of_the_clock() {
        let clock = Timestamp::from_secs(1_700_000_000);
        assert_eq!(
            dates(clock),
            ("2023-11-14".to_owned(), "2023-11-14T22:13:20Z".to_owned())
        );
    }
}
