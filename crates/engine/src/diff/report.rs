//! What a diff says, as plain data: the JSON of `docs/formats/diff.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amiforge_plan::InputChange;
use amiforge_types::Digest;
use serde::Serialize;

/// Version of the JSON form.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The differences between two images. Text of the images is escaped.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffReport {
    /// Version of this form.
    pub schema_version: u32,
    /// Whether anything below is not empty.
    pub differs: bool,
    /// The old image.
    pub a: ImageInfo,
    /// The new image.
    pub b: ImageInfo,
    /// Counts.
    pub summary: Summary,
    /// Layers, the lowest first, where both images are output folders of builds.
    pub layers: Vec<LayerChange>,
    /// The disk as a whole.
    pub disk: Vec<Field>,
    /// Partitions, by slot.
    pub partitions: Vec<PartitionChange>,
    /// Parameters of file systems, by slot.
    pub file_systems: Vec<FileSystemChange>,
    /// What a boot reads.
    pub boot: Vec<BootChange>,
    /// How a container is run, by name.
    pub config: Vec<ConfigChange>,
    /// Packages, by name.
    pub packages: Vec<PackageChange>,
    /// Files of the root file system, in the order of a walk.
    pub files: Vec<FileChange>,
}

/// One of the two images.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// What was asked for.
    pub path: PathBuf,
    /// The disk file that was read, or the layout of a container.
    pub file: PathBuf,
    /// Its format: that of a disk, or `oci`.
    pub format: &'static str,
    /// Size of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_bytes: Option<u64>,
    /// Slot of the partition with the root file system; absent when it fills the disk or is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_slot: Option<u32>,
    /// Where the list of packages comes from: `dpkg`, `packages.json` or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages_from: Option<&'static str>,
}

/// How many differences of each sort there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Fields of the disk.
    pub disk: usize,
    /// Partitions.
    pub partitions: usize,
    /// File systems.
    pub file_systems: usize,
    /// Things that a boot reads.
    pub boot: usize,
    /// Settings of a container.
    pub config: usize,
    /// Packages.
    pub packages: Counts,
    /// Files.
    pub files: Counts,
}

/// Differences of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Only in the new image.
    pub added: usize,
    /// Only in the old image.
    pub removed: usize,
    /// In both, and not the same.
    pub changed: usize,
}

/// What happened to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Happened {
    /// Only the new image has it.
    Added,
    /// Only the old image has it.
    Removed,
    /// Both have it, with differences.
    Changed,
    /// A package of a higher version.
    Upgraded,
    /// A package of a lower version.
    Downgraded,
}

/// A layer that is not the same, or that files come from which are not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerChange {
    /// For people.
    pub title: String,
    /// The component that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What happened.
    pub change: Happened,
    /// Its id in the old image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// Its id in the new image: the same where its bytes alone differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
    /// The inputs that differ: `input`, `old`, `new`.
    pub inputs: Vec<InputChange>,
    /// Whether a layer below it differs.
    pub below: bool,
    /// Files below that come from it.
    pub files: usize,
    /// Of these, those whose step is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepFiles>,
}

/// Files that one step was the last to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepFiles {
    /// Its name.
    pub step: String,
    /// How many.
    pub files: usize,
}

/// A named value that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Its name.
    pub field: &'static str,
    /// In the old image.
    pub a: Option<String>,
    /// In the new image.
    pub b: Option<String>,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionChange {
    /// Number in the table.
    pub slot: u32,
    /// What happened.
    pub change: Happened,
    /// In what.
    pub fields: Vec<Field>,
}

/// A file system.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemChange {
    /// Slot of its partition; absent when it fills the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// In what.
    pub fields: Vec<Field>,
}

/// Bytes that a boot reads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootChange {
    /// `bootSector`, `biosBoot`, `esp` or `root`.
    pub place: &'static str,
    /// Path there, where the place has files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What happened.
    pub change: Happened,
    /// In the old image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Bytes>,
    /// In the new image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Bytes>,
}

/// A setting of a container that is not the same.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigChange {
    /// Its name: a member of `config` of the OCI configuration, of variables and labels with their own.
    pub field: String,
    /// In the old image.
    pub a: Option<String>,
    /// In the new image.
    pub b: Option<String>,
}

/// Size and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// Bytes.
    pub size: u64,
    /// Their SHA-256; absent for what is no file, or too much to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A package.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageChange {
    /// Name.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// What happened.
    pub change: Happened,
    /// Version in the old image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// Version in the new image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
}

/// A file of the root file system.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// Path from the root.
    pub path: String,
    /// What happened.
    pub change: Happened,
    /// In what, where both have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aspects: Vec<&'static str>,
    /// In the old image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<FileInfo>,
    /// In the new image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<FileInfo>,
    /// The package that it belongs to, by dpkg's lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Whether that package calls it a configuration file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub conffile: bool,
    /// The uppermost layer that has it, where the image's layers are in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The component that made that layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The step of it that changed the file last, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A file in one of the images.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// `file`, `directory`, `symlink`, `char`, `block`, `fifo` or `socket`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Permission bits, four octal digits.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, RFC 3339.
    pub mtime: String,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of a file whose content came, went or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `major:minor` of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Number of names, above 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<usize>,
    /// The first of these names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linked_to: Option<String>,
    /// Extended attributes, values in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// Flags of `chattr`, as a hexadecimal number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
}
