//! Reading `parentImage`.

use amiforge_types::Digest;

use super::oci::is_tag;
use super::releases::{instead_of_docker, is_tag_of_docker};
use super::{ArchivePlace, DiskFormat, OciReference, ParentImage};
use crate::actions::WebUrl;
use crate::decode::{self, Cx};
use crate::node::Node;
use crate::resources::parse_arn;
use crate::suggest;

/// The kinds, by what stands before the colon.
const KINDS: &[&str] = &["debian", "disk", "image", "oci", "oci-layout", "tar"];
/// The one parent without a colon.
const SCRATCH: &str = "scratch";
const HELP: &str = "write `debian:<suite>`, for example `debian:bookworm`";

pub(in crate::image_recipe) fn parent_image(node: &Node, cx: &mut Cx<'_>) -> Option<ParentImage> {
    let text = decode::path(node, cx)?;
    if text.chars().count() > 1024 {
        cx.error(
            "out-of-range",
            node.span,
            "a parent image has at most 1024 characters",
        );
        return None;
    }
    if node.is_opaque() || is_of_aws(&text, node, cx) {
        return Some(ParentImage::Aws(text));
    }
    if let Some(parent) = local(&text, node, cx) {
        return parent;
    }
    let kind = text.split_once(':').map_or(text.as_str(), |(kind, _)| kind);
    let known = KINDS.iter().copied().chain([SCRATCH]);
    let ssm = text.strip_prefix("{{resolve:").map_or_else(
        || {
            text.strip_prefix("/aws/service/")
                .map(|rest| format!("ssm:/aws/service/{rest}"))
        },
        |rest| {
            rest.strip_suffix("}}")
                .filter(|name| name.starts_with("ssm:"))
                .map(str::to_owned)
        },
    );
    let help = match ssm {
        Some(name) => format!("a parameter of Systems Manager is written `{name}`"),
        None => instead_of_docker(&text)
            .or_else(|| suggest::did_you_mean(kind, known))
            .unwrap_or_else(|| HELP.to_owned()),
    };
    let message = format!(
        "{} is not a known kind of parent image",
        decode::shown(&text)
    );
    cx.error_help("unknown-parent", node.span, message, Some(help));
    None
}

/// The parent of a container: of the registry names that it usually has, the user's configuration says what
/// stands for them here.
pub(in crate::image_recipe) fn container_parent(
    node: &Node,
    cx: &mut Cx<'_>,
) -> Option<ParentImage> {
    let text = decode::filled(node, cx)?;
    let registry = text
        .strip_prefix("debian:")
        .is_some_and(|suite| !is_suite(suite) || is_tag_of_docker(suite));
    if node.is_opaque() || registry {
        return Some(ParentImage::Aws(text));
    }
    local(&text, node, cx).unwrap_or(Some(ParentImage::Aws(text)))
}

/// A parent of one of our own kinds; the outer `None` when it is of none of them, the inner one when it is and
/// something is wrong with it, which has been told.
fn local(text: &str, node: &Node, cx: &mut Cx<'_>) -> Option<Option<ParentImage>> {
    if text == SCRATCH {
        return Some(Some(ParentImage::Scratch));
    }
    let (kind, rest) = text.split_once(':')?;
    let read = match kind {
        "debian" => debian(rest),
        "disk" => disk(rest),
        "image" => image(rest),
        "oci" => oci(rest),
        "oci-layout" => oci_layout(rest),
        "tar" => tar(rest),
        _ => return None,
    };
    match read {
        Ok(parent) => Some(Some(parent)),
        Err(Problem { message, help }) => {
            cx.error_help("invalid-parent", node.span, message, Some(help));
            Some(None)
        }
    }
}

/// What is wrong with a parent of a known kind.
struct Problem {
    message: String,
    help: String,
}

fn problem(message: impl Into<String>, help: &str) -> Problem {
    Problem {
        message: message.into(),
        help: help.to_owned(),
    }
}

type Read<T> = Result<T, Problem>;

fn debian(suite: &str) -> Read<ParentImage> {
    if !is_suite(suite) {
        let message = format!("{} is not the name of a suite", decode::shown(suite));
        return Err(problem(message, HELP));
    }
    if is_tag_of_docker(suite) {
        let message = format!(
            "{} is a tag of Docker's image, not the name of a suite",
            decode::shown(suite)
        );
        let help = instead_of_docker(&format!("debian:{suite}"));
        return Err(problem(message, help.as_deref().unwrap_or(HELP)));
    }
    Ok(ParentImage::Debian {
        suite: suite.to_owned(),
    })
}

fn oci(reference: &str) -> Read<ParentImage> {
    const HELP: &str = "write `oci:<registry>/<repository>:<tag>`, for example `oci:docker.io/library/debian:bookworm`";
    OciReference::parse(reference)
        .map(ParentImage::Oci)
        .map_err(|message| problem(message, HELP))
}

fn oci_layout(rest: &str) -> Read<ParentImage> {
    const HELP: &str = "write `oci-layout:<folder>`, or `oci-layout:<folder>:<tag>`";
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if path.is_empty() {
        return Err(problem("the folder of the OCI layout is missing", HELP));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        let message = format!("{} is not a tag", decode::shown(tag));
        return Err(problem(message, HELP));
    }
    Ok(ParentImage::OciLayout {
        path: path.to_owned(),
        tag: tag.map(str::to_owned),
    })
}

fn tar(rest: &str) -> Read<ParentImage> {
    const HELP: &str = "write `tar:<path>`, or `tar:<URL>#sha256=<64 hex digits>`";
    let (place, options) = Options::split(rest, &["sha256"])?;
    if place.is_empty() {
        return Err(problem("the archive is missing", HELP));
    }
    let sha256 = options.sha256()?;
    if !place.contains("://") {
        let place = ArchivePlace::Path(place.to_owned());
        return Ok(ParentImage::Tar { place, sha256 });
    }
    let url = WebUrl::parse(place).map_err(|error| {
        let message = format!("{}: {error}", decode::shown(place));
        problem(
            message,
            "an archive is a file, or has an address with http or https",
        )
    })?;
    if url.user().is_some() {
        return Err(problem(
            "the address has a user name or password, which would be written down in locks and manifests",
            "download the archive, and name the file",
        ));
    }
    if sha256.is_none() {
        let message =
            "an archive from the network needs its digest: what the address gives may change";
        return Err(problem(message, HELP));
    }
    let place = ArchivePlace::Url(url.to_string());
    Ok(ParentImage::Tar { place, sha256 })
}

fn disk(rest: &str) -> Read<ParentImage> {
    const HELP: &str = "write `disk:<path>`, for example `disk:base.qcow2`";
    let (path, options) = Options::split(rest, &["format", "partition", "sha256"])?;
    if path.is_empty() {
        return Err(problem("the disk image is missing", HELP));
    }
    if path.contains("://") {
        let message = format!("{} is a URL; a disk is a file", decode::shown(path));
        return Err(problem(message, "download it, and name the file"));
    }
    const FORMATS: &str =
        "the formats are `raw`, `qcow2`, `vmdk` and `vhd`, for example `disk:base#format=raw`";
    let format = options.get("format").map(|name| {
        DiskFormat::from_name(name).ok_or_else(|| {
            let message = format!("{} is not a format of disks", decode::shown(name));
            problem(message, FORMATS)
        })
    });
    let format = format.transpose()?;
    if format.is_none() && DiskFormat::of_file(path).is_none() {
        let message = format!(
            "{}: the name does not tell the format of the disk",
            decode::shown(path)
        );
        return Err(problem(message, FORMATS));
    }
    let partition = options.get("partition").map(|text| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            let message = format!("{} is not the number of a partition", decode::shown(text));
            problem(message, "`amiforge disk info` shows the numbers")
        })
    });
    Ok(ParentImage::Disk {
        path: path.to_owned(),
        format,
        partition: partition.transpose()?,
        sha256: options.sha256()?,
    })
}

fn image(rest: &str) -> Read<ParentImage> {
    const HELP: &str = "write `image:<name>/<version>`, for example `image:debian-web/1.x.x`";
    let Some((name, version)) = rest.split_once('/') else {
        let message = format!("{} has no version", decode::shown(rest));
        return Err(problem(message, HELP));
    };
    if !decode::is_resource_name(name) {
        let message = format!("{} is not the name of an image", decode::shown(name));
        return Err(problem(message, HELP));
    }
    let version = version.parse().map_err(|error| {
        let message = format!("version {}: {error}", decode::shown(version));
        problem(message, HELP)
    })?;
    Ok(ParentImage::Image {
        name: name.to_owned(),
        version,
    })
}

/// What stands behind the `#`: `name=value`, several with `&` between them.
struct Options<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Options<'t> {
    /// What stands before them, and the options, which are among `known`.
    fn split(text: &'t str, known: &[&'static str]) -> Read<(&'t str, Self)> {
        let Some((before, after)) = text.split_once('#') else {
            return Ok((text, Self(Vec::new())));
        };
        let list: Vec<String> = known.iter().map(|name| format!("`#{name}=`")).collect();
        let help = format!("behind `#` stands {}", list.join(", "));
        let mut options: Vec<(&str, &str)> = Vec::new();
        for option in after.split('&') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !known.contains(&name) {
                let message = format!("{} is not known here", decode::shown(name));
                let near = suggest::did_you_mean(name, known.iter().copied());
                return Err(problem(message, &near.unwrap_or(help)));
            }
            if options.iter().any(|(other, _)| *other == name) {
                return Err(problem(format!("`{name}` is given twice"), &help));
            }
            options.push((name, value));
        }
        Ok((before, Self(options)))
    }

    fn get(&self, name: &str) -> Option<&'t str> {
        let mut found = self.0.iter().filter(|(other, _)| *other == name);
        found.next().map(|(_, value)| *value)
    }

    fn sha256(&self) -> Read<Option<Digest>> {
        let Some(text) = self.get("sha256") else {
            return Ok(None);
        };
        // `sha256:` once more would be taken, too, by the type.
        let digest = text.parse().ok().filter(|_| text.len() == 64);
        let message = || format!("{} is not a SHA-256 digest", decode::shown(text));
        let help = "it has 64 hex digits; `sha256sum` prints it";
        digest.map_or_else(|| Err(problem(message(), help)), |digest| Ok(Some(digest)))
    }
}

/// Whether a parent is named as AWS does; warns of names that AWS cannot have given.
fn is_of_aws(text: &str, node: &Node, cx: &mut Cx<'_>) -> bool {
    let unusual = |what: &str, cx: &mut Cx<'_>| {
        let message = format!("{} is not {what}", decode::shown(text));
        cx.warning("unusual-parent", node.span, message, "AWS will not find it");
    };
    if let Some(id) = text.strip_prefix("ami-") {
        let hex = id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !matches!(id.len(), 8 | 17) || !hex {
            unusual("the id of an AMI: `ami-` and 17 hex digits", cx);
        }
        return true;
    }
    if text.starts_with("arn:") {
        let image = parse_arn(text).is_ok_and(|arn| arn.path.first() == Some(&"image"));
        if !image && !text.contains(":ssm:") {
            unusual("the ARN of an image", cx);
        }
        return true;
    }
    let uuid = text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // A dynamic reference of CloudFormation to a parameter says the same as `ssm:`.
    text.strip_prefix("ssm:")
        .is_some_and(|name| !name.is_empty())
        || text.starts_with("prod-")
        || uuid
}

/// A suite becomes part of URLs and cache paths, so it must be one plain path component.
pub(in crate::image_recipe) fn is_suite(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'+'));
    first && rest && text.len() <= 64
}
