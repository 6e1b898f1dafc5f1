//! The records of dpkg and apt about unpacked packages.
//!
//! ```text
//! var/lib/dpkg/status                     a paragraph for each package, "install ok unpacked"
//! var/lib/dpkg/info/<package>[:<arch>].*  list, md5sums, conffiles, scripts, triggers, templates …
//! var/lib/dpkg/info/format                "1"
//! var/lib/dpkg/triggers/File              "<path> <package>[/noawait]" for triggers by path
//! var/lib/dpkg/triggers/<name>            "<package>[/noawait]" for the others
//! var/lib/apt/extended_states             what was installed only because something needs it
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::EntryKind;
use super::unpack::Parsed;
use crate::ResolvedDebian;

/// Path below the root, mode and content of every file of the records.
pub(super) fn files(
    resolved: &ResolvedDebian,
    parsed: &[Parsed],
    lost: &HashMap<usize, Vec<Vec<u8>>>,
) -> Vec<(String, u16, Vec<u8>)> {
    let mut out = Vec::new();
    let mut status = BTreeMap::new();
    let mut file_triggers = String::new();
    let mut named_triggers: BTreeMap<String, String> = BTreeMap::new();
    for (i, package) in parsed.iter().enumerate() {
        // dpkg is to know nothing of a package that it will unpack.
        if package.deferred {
            continue;
        }
        let info = package.control.info_name();
        let base = format!("var/lib/dpkg/info/{info}");
        let lost: BTreeSet<&[u8]> = lost
            .get(&i)
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
            .collect();

        let mut list = Vec::new();
        let mut seen = BTreeSet::new();
        for member in &package.entries {
            let path = &member.entry.path;
            if lost.contains(path.as_slice()) || !seen.insert(path) {
                continue;
            }
            list.push(b'/');
            if path.is_empty() {
                list.push(b'.');
            }
            list.extend_from_slice(path);
            list.push(b'\n');
        }
        out.push((format!("{base}.list"), 0o644, list));

        let conffiles = package.control.conffiles();
        for (name, (executable, content)) in &package.control.files {
            out.push((
                format!("{base}.{name}"),
                if *executable { 0o755 } else { 0o644 },
                content.clone(),
            ));
        }
        if !package.control.files.contains_key("md5sums") {
            let mut sums = Vec::new();
            for (at, sum) in &package.md5 {
                let entry = &package.entries[*at].entry;
                if entry.kind != EntryKind::File
                    || conffiles.iter().any(|c| c.as_bytes() == entry.path)
                {
                    continue;
                }
                sums.extend_from_slice(sum.as_bytes());
                sums.extend_from_slice(b"  ");
                sums.extend_from_slice(&entry.path);
                sums.push(b'\n');
            }
            if !sums.is_empty() {
                out.push((format!("{base}.md5sums"), 0o644, sums));
            }
        }
        if let Some((_, content)) = package.control.files.get("triggers") {
            triggers(
                &info,
                &String::from_utf8_lossy(content),
                &mut file_triggers,
                &mut named_triggers,
            );
        }

        let mut paragraph = String::new();
        for (name, value) in &package.control.fields {
            if name.eq_ignore_ascii_case("Status") || name.eq_ignore_ascii_case("Conffiles") {
                continue;
            }
            paragraph.push_str(&format!("{name}: {value}\n"));
            if name.eq_ignore_ascii_case("Package") {
                paragraph.push_str("Status: install ok unpacked\n");
            }
        }
        if !conffiles.is_empty() {
            paragraph.push_str("Conffiles:\n");
            for conffile in &conffiles {
                let sum = package
                    .md5
                    .iter()
                    .find(|(at, _)| package.entries[**at].entry.path == conffile.as_bytes());
                let sum = sum.map_or("newconffile", |(_, sum)| sum.as_str());
                paragraph.push_str(&format!(" /{conffile} {sum}\n"));
            }
        }
        paragraph.push('\n');
        status.insert(
            (
                resolved.packages[i].name.clone(),
                resolved.packages[i].arch.clone(),
            ),
            paragraph,
        );
    }
    let mut put = |path: &str, text: String| out.push((path.to_owned(), 0o644, text.into_bytes()));
    put("var/lib/dpkg/status", status.into_values().collect());
    for empty in [
        "available",
        "diversions",
        "statoverride",
        "triggers/Unincorp",
    ] {
        put(&format!("var/lib/dpkg/{empty}"), String::new());
    }
    put("var/lib/dpkg/info/format", "1\n".to_owned());
    put("var/lib/dpkg/triggers/File", file_triggers);
    for (name, text) in named_triggers {
        put(&format!("var/lib/dpkg/triggers/{name}"), text);
    }
    let mut auto: Vec<_> = resolved.packages.iter().filter(|p| p.auto).collect();
    auto.sort_by_key(|p| &p.name);
    let native = resolved.arch.debian();
    put(
        "var/lib/apt/extended_states",
        // An architecture-independent package is kept under the native one, as apt does.
        auto.iter()
            .map(|p| {
                format!(
                    "Package: {}\nArchitecture: {native}\nAuto-Installed: 1\n\n",
                    p.name
                )
            })
            .collect(),
    );
    out
}

/// The interests of a `triggers` file (deb-triggers(5)); what it activates is dpkg's own business.
fn triggers(
    package: &str,
    text: &str,
    by_path: &mut String,
    by_name: &mut BTreeMap<String, String>,
) {
    for line in text
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default())
    {
        let mut words = line.split_whitespace();
        let (Some(directive), Some(trigger), None) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let suffix = match directive {
            "interest" | "interest-await" => "",
            "interest-noawait" => "/noawait",
            _ => continue,
        };
        if trigger.starts_with('/') {
            by_path.push_str(&format!("{trigger} {package}{suffix}\n"));
        } else if !trigger.contains('/') && !trigger.starts_with('.') && trigger.len() <= 200 {
            by_name
                .entry(trigger.to_owned())
                .or_default()
                .push_str(&format!("{package}{suffix}\n"));
        }
    }
}
