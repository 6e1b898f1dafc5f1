//! What an image starts from: `parentImage`.

mod decode;
mod oci;
mod releases;
#[cfg(test)]
mod tests;

use std::fmt;

use amiforge_types::{Diagnostics, Digest, Span};

use crate::decode::Cx;
use crate::node::Node;
use crate::version::VersionPattern;

pub(super) use self::decode::{container_parent, is_suite, parent_image};
pub use self::oci::OciReference;
pub use self::releases::{instead_of_docker, instead_of_suite};

/// What an image starts from. Paths are relative to the folder of the document that names them, unless absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentImage {
    /// `debian:<suite>`: packages of the signed archive.
    Debian {
        /// The suite, for example `bookworm`.
        suite: String,
    },
    /// `oci:<reference>`: an image of a registry.
    Oci(OciReference),
    /// `oci-layout:<path>[:tag]`: an image of a folder in the form of the OCI image layout.
    OciLayout {
        /// The folder.
        path: String,
        /// Which image of several.
        tag: Option<String>,
    },
    /// `tar:<path or URL>[#sha256=…]`: a root file system as an archive, plain or compressed.
    Tar {
        /// Where it is.
        place: ArchivePlace,
        /// Digest of the file as it is stored; of a URL it is always there.
        sha256: Option<Digest>,
    },
    /// `disk:<path>[#format=…&partition=…&sha256=…]`: the root file system of a disk image.
    Disk {
        /// The file.
        path: String,
        /// The format where the extension does not tell.
        format: Option<DiskFormat>,
        /// Number of the partition where the disk does not tell.
        partition: Option<u32>,
        /// Digest of the file.
        sha256: Option<Digest>,
    },
    /// `image:<name>/<version>`: an image of the catalog.
    Image {
        /// Name of its recipe.
        name: String,
        /// Which versions fit; the latest of them is meant.
        version: VersionPattern,
    },
    /// `scratch`: nothing.
    Scratch,
    /// What only AWS has: an ARN, `ssm:<parameter>`, an AMI id, a product of the Marketplace, as it is
    /// written. The user's configuration says what stands for it here.
    Aws(String),
}

/// A file of this host or of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlace {
    /// A path.
    Path(String),
    /// An address with `http` or `https`, without user name, password and fragment.
    Url(String),
}

/// The form of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// Plain bytes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// VMware's virtual disk.
    Vmdk,
    /// Microsoft's virtual hard disk.
    Vhd,
}

impl DiskFormat {
    const ALL: [Self; 4] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhd];

    /// The spelling of recipes, and the usual file extension.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format that the extension of a file declares.
    #[must_use]
    pub fn of_file(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let extension = name.rsplit_once('.')?.1.to_ascii_lowercase();
        match extension.as_str() {
            "img" => Some(Self::Raw),
            "qcow" => Some(Self::Qcow2),
            "vpc" => Some(Self::Vhd),
            extension => Self::from_name(extension),
        }
    }
}

impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(text) | Self::Url(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for ParentImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite } => write!(f, "debian:{suite}"),
            Self::Oci(reference) => write!(f, "oci:{reference}"),
            Self::OciLayout { path, tag: None } => write!(f, "oci-layout:{path}"),
            Self::OciLayout {
                path,
                tag: Some(tag),
            } => write!(f, "oci-layout:{path}:{tag}"),
            Self::Tar { place, sha256 } => {
                write!(f, "tar:{place}")?;
                options(f, [("sha256", sha256.map(|digest| digest.to_string()))])
            }
            Self::Disk {
                path,
                format,
                partition,
                sha256,
            } => {
                write!(f, "disk:{path}")?;
                let all = [
                    ("format", format.map(|format| format.name().to_owned())),
                    ("partition", partition.map(|number| number.to_string())),
                    ("sha256", sha256.map(|digest| digest.to_string())),
                ];
                options(f, all)
            }
            Self::Image { name, version } => write!(f, "image:{name}/{version}"),
            Self::Scratch => f.write_str("scratch"),
            Self::Aws(text) => f.write_str(text),
        }
    }
}

/// `#name=value&…` of those that are there.
fn options(
    f: &mut fmt::Formatter<'_>,
    all: impl IntoIterator<Item = (&'static str, Option<String>)>,
) -> fmt::Result {
    let present = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    for (at, (name, value)) in present.enumerate() {
        let mark = if at == 0 { '#' } else { '&' };
        write!(f, "{mark}{name}={value}")?;
    }
    Ok(())
}

impl ParentImage {
    /// Reads what the user's configuration names as parent.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut diags = Diagnostics::new();
        let node = Node::text(Span::default(), text);
        match parent_image(&node, &mut Cx::new(&mut diags)) {
            Some(Self::Aws(_)) => Err(format!(
                "{} is a name of AWS again; name a parent such as debian:bookworm",
                crate::decode::shown(text)
            )),
            Some(parent) => Ok(parent),
            None => Err(diags
                .iter()
                .map(|problem| problem.message.clone())
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }
}
