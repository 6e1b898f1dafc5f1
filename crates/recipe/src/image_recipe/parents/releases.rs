//! Releases of Debian and Ubuntu by number and suite, for who names a parent as Docker does.

use crate::suggest;

/// Debian's releases: number, suite.
const DEBIAN: &[(&str, &str)] = &[
    ("11", "bullseye"),
    ("12", "bookworm"),
    ("13", "trixie"),
    ("14", "forky"),
];

/// Suites of Debian that are no release of a number.
const MOVING: &[&str] = &["oldstable", "stable", "testing", "unstable", "sid"];

/// Ubuntu's releases.
const UBUNTU: &[(&str, &str)] = &[
    ("20.04", "focal"),
    ("22.04", "jammy"),
    ("24.04", "noble"),
    ("25.04", "plucky"),
    ("25.10", "questing"),
    ("26.04", "resolute"),
];

/// Names of images on Docker's own registry that people start from.
const IMAGES: &[&str] = &[
    "almalinux",
    "alpine",
    "amazonlinux",
    "archlinux",
    "busybox",
    "centos",
    "debian",
    "fedora",
    "opensuse",
    "oraclelinux",
    "rockylinux",
    "ubuntu",
];

/// What has to stand below `amiforge.apt` of a recipe for Ubuntu.
const UBUNTU_NEEDS: &str = "with Ubuntu's mirror, suites, components and keyring below `amiforge.apt` (docs/parents.md shows them)";

/// Whether what stands behind `debian:` is a tag of Docker's image, and no suite: `12`, `12.5-slim`, `bookworm-slim`,
/// `latest`.
pub(super) fn is_tag_of_docker(suite: &str) -> bool {
    let numbers = suite.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number_first = suite
        .split_once('-')
        .is_some_and(|(first, _)| first.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let day = suite
        .rsplit_once('-')
        .is_some_and(|(_, day)| day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()));
    numbers || number_first || day || suite.ends_with("-slim") || suite == "latest"
}

/// The suite that a tag of Docker's image is of.
fn suite_of(
    releases: &[(&'static str, &'static str)],
    tag: &str,
) -> Option<(String, &'static str)> {
    let first = tag.split('-').next().unwrap_or(tag);
    let major = first.split('.').next().unwrap_or(first);
    releases
        .iter()
        .find(|(number, suite)| [*number, *suite].contains(&first) || *number == major)
        .map(|(number, suite)| ((*number).to_owned(), *suite))
}

/// What to write for a parent that is named as Docker names images: `ubuntu:22.04`, `debian:12`,
/// `docker.io/library/alpine`; `None` where it is no such name.
#[must_use]
pub fn instead_of_docker(text: &str) -> Option<String> {
    let reference = text
        .strip_prefix("docker://")
        .or_else(|| text.strip_prefix("docker:"))
        .unwrap_or(text);
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let (image, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let docker = format!("Docker's image is `oci:{reference}`");
    let said = |system: &str, number: &str, suite: &str, needs: &str| {
        format!("{system} {number} is the suite `{suite}`: write `debian:{suite}`{needs}; {docker}")
    };
    match image {
        "debian" => Some(match suite_of(DEBIAN, tag) {
            Some((number, suite)) => said("Debian", &number, suite, ""),
            None => {
                format!("a release is named by its suite, for example `debian:bookworm`; {docker}")
            }
        }),
        "ubuntu" => Some(match suite_of(UBUNTU, tag) {
            Some((number, suite)) => said("Ubuntu", &number, suite, &format!(", {UBUNTU_NEEDS}")),
            None => {
                format!("Ubuntu is a suite, for example `debian:noble`, {UBUNTU_NEEDS}; {docker}")
            }
        }),
        image if IMAGES.contains(&image) || reference != text || name != reference => Some(
            format!("an image of a registry is written `oci:{reference}`"),
        ),
        _ => None,
    }
}

/// What to write for a suite that an archive does not have. `has` are those that it is known to have; where nothing is
/// known of the archive, those of Debian are told.
#[must_use]
pub fn instead_of_suite(suite: &str, has: &[String]) -> String {
    let debian = || {
        let released = DEBIAN.iter().map(|(_, suite)| *suite);
        released.chain(MOVING.iter().copied())
    };
    let near = match has.is_empty() {
        true => suggest::did_you_mean(suite, debian()),
        false => suggest::did_you_mean(suite, has.iter().map(String::as_str)),
    };
    let has = match has.is_empty() {
        true => format!(
            "the suites of Debian are {}",
            debian().collect::<Vec<_>>().join(", ")
        ),
        false => format!("it has {}", has.join(", ")),
    };
    if let Some((number, suite)) = UBUNTU.iter().find(|(_, known)| *known == suite) {
        return format!("`{suite}` is Ubuntu {number}: it is built {UBUNTU_NEEDS}");
    }
    match near {
        Some(near) => format!("{near} {}", capitalised(&has)),
        None => has,
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_docker_become_parents_of_ours() {
        for (text, told) in [
            (
                "ubuntu:22.04",
                "Ubuntu 22.04 is the suite `jammy`: write `debian:jammy`, with Ubuntu's mirror",
            ),
            ("ubuntu:22.04", "Docker's image is `oci:ubuntu:22.04`"),
            ("ubuntu:noble", "Ubuntu 24.04 is the suite `noble`"),
            ("ubuntu", "for example `debian:noble`, with Ubuntu's"),
            (
                "debian:12",
                "Debian 12 is the suite `bookworm`: write `debian:bookworm`; ",
            ),
            (
                "debian:12.5-slim",
                "write `debian:bookworm`; Docker's image is `oci:debian:12.5-slim`",
            ),
            ("debian:trixie-slim", "Debian 13 is the suite `trixie`"),
            ("debian:latest", "for example `debian:bookworm`"),
            (
                "docker://ubuntu:20.04",
                "Docker's image is `oci:ubuntu:20.04`",
            ),
            (
                "docker.io/library/debian:12",
                "`oci:docker.io/library/debian:12`",
            ),
            ("docker.io/me/base:1", "written `oci:docker.io/me/base:1`"),
            (
                "alpine:3.20",
                "an image of a registry is written `oci:alpine:3.20`",
            ),
        ] {
            let help = instead_of_docker(text).unwrap();
            assert!(help.contains(told), "{text}: {help}");
        }
        for text in ["debain:bookworm", "choose-one", "tar:ubuntu.tar", ""] {
            assert_eq!(instead_of_docker(text), None, "{text}");
        }
    }

    #[test]
    fn a_tag_of_docker_is_no_suite() {
        for tag in [
            "12",
            "12.5",
            "12-slim",
            "bookworm-slim",
            "latest",
            "bookworm-20240211",
        ] {
            assert!(is_tag_of_docker(tag), "{tag}");
        }
        for suite in [
            "bookworm",
            "bookworm-backports",
            "stable",
            "sid",
            "tiny",
            "v12",
            "noble",
        ] {
            assert!(!is_tag_of_docker(suite), "{suite}");
        }
    }

    #[test]
    fn suites_that_there_are_are_told() {
        let own = ["tiny".to_owned()];
        for (suite, has, told) in [
            (
                "nosuch",
                &[][..],
                "the suites of Debian are bullseye, bookworm, trixie, forky, oldstable",
            ),
            (
                "bokworm",
                &[],
                "did you mean `bookworm`? The suites of Debian are",
            ),
            (
                "jammy",
                &[],
                "`jammy` is Ubuntu 22.04: it is built with Ubuntu's mirror",
            ),
            ("nosuch", &own, "it has tiny"),
            ("tine", &own, "did you mean `tiny`? It has tiny"),
        ] {
            let help = instead_of_suite(suite, has);
            assert!(help.starts_with(told), "{suite}: {help}");
        }
    }
}
