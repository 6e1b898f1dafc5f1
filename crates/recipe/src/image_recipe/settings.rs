//! What stands below `amiforge:`.

use std::collections::BTreeSet;

use amiforge_types::{Compression, CompressionError, Span};

use super::hygiene::{self, Hygiene};
use super::limits::{self, StepLimits};
use super::parents::is_suite;
use crate::decode::{self, Cx, Fields};
use crate::node::{Node, NodeKind};
use crate::trace::Asked;

/// Settings that an AWS recipe does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmiforgeSettings {
    /// Default: BIOS and UEFI.
    pub boot_mode: BootMode,
    /// In the order of the recipe, no duplicates, at least one. Default: raw and qcow2.
    pub formats: Vec<OutputFormat>,
    /// How formats that can are compressed. Default: not at all.
    pub compression: Compression,
    /// Default: ext4.
    pub root_filesystem: RootFilesystem,
    /// Replaces the plan's id as the source of UUIDs and salts.
    pub seed: Option<String>,
    /// How a `debian:` parent is made.
    pub apt: AptSettings,
    /// What the steps of components may use.
    pub limits: StepLimits,
    /// What the steps of components can reach while the image is built. Default: the builder's network.
    pub network: StepNetwork,
    /// Parameters of components whose values nobody may see, each once.
    pub secret_parameters: Vec<SecretParameter>,
    /// Secrets that steps find in files of memory, each once. Where their values are, whoever builds says.
    pub secrets: Vec<SecretName>,
    /// What is made of secrets in the finished image.
    pub hygiene: Hygiene,
}

/// A parameter whose value nobody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretParameter {
    /// Its name, in every component that has it.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// A secret that steps find as a file of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// Its name: letters, digits, `.`, `_` and `-`, not starting with a dot.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

impl Default for AmiforgeSettings {
    fn default() -> Self {
        Self {
            boot_mode: BootMode::UefiPreferred,
            formats: vec![OutputFormat::Raw, OutputFormat::Qcow2],
            compression: Compression::None,
            root_filesystem: RootFilesystem::Ext4,
            seed: None,
            apt: AptSettings::default(),
            limits: StepLimits::default(),
            network: StepNetwork::default(),
            secret_parameters: Vec::new(),
            secrets: Vec::new(),
            hygiene: Hygiene::default(),
        }
    }
}

/// What steps can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// The network of the machine that builds.
    #[default]
    Host,
    /// Nothing but themselves.
    None,
}

impl StepNetwork {
    /// Its name in the recipe.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

fn network(node: &Node, cx: &mut Cx<'_>) -> Option<StepNetwork> {
    let networks = [StepNetwork::Host, StepNetwork::None].map(|n| (n.name(), n));
    decode::choice(node, cx, &networks)
}

/// The firmwares an image boots under, in EC2's words.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// BIOS only.
    LegacyBios,
    /// UEFI only.
    Uefi,
    /// Both.
    UefiPreferred,
}

impl BootMode {
    /// The spelling of EC2 and of recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
        }
    }
}

/// A format of disk image.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Plain bytes with holes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl OutputFormat {
    /// The spelling of recipes, and the file extension.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// The file system of the root partition.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RootFilesystem {
    /// ext4 with the features of Debian 12: `ext4`.
    Ext4,
    /// ext4 for guests whose tools do not know metadata checksums: `{type: ext4, profile: legacy}`.
    Ext4Legacy,
}

impl RootFilesystem {
    /// What plans call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4Legacy => "ext4-legacy",
        }
    }
}

/// How a `debian:` parent is made; what is absent comes from the host's apt configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AptSettings {
    /// Base URL of the archive.
    pub mirror: Option<String>,
    /// Suites to read instead of the parent's with its updates and security suites.
    pub suites: Option<Vec<String>>,
    /// Archive components (`main`, `contrib`, ...).
    pub components: Option<Vec<String>>,
    /// Path of the keyring that signs the suites, relative to the recipe's folder unless absolute.
    pub keyring: Option<String>,
    /// A point in time of the snapshot archive, `YYYYMMDDTHHMMSSZ`.
    pub snapshot: Option<String>,
    /// Replaces the default package set.
    pub packages: Option<Vec<String>>,
    /// Packages on top of the set.
    pub include: Vec<String>,
    /// Which packages come without being named, in mmdebstrap's words.
    pub variant: AptVariant,
    /// False accepts an expired index, which a snapshot needs. Default: true.
    pub check_valid_until: Option<bool>,
    /// Where the mapping `apt` stands.
    pub span: Option<Span>,
}

/// Which packages a Debian root starts with.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AptVariant {
    /// Essential packages only.
    Essential,
    /// Essential packages and apt.
    Apt,
    /// Essential packages, apt and those of priority required.
    #[default]
    Required,
    /// As `required`, and those of priority important.
    Important,
}

impl AptVariant {
    /// The spelling of recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Essential => "essential",
            Self::Apt => "apt",
            Self::Required => "required",
            Self::Important => "important",
        }
    }
}

pub(super) fn settings(node: &Node, cx: &mut Cx<'_>) -> Option<AmiforgeSettings> {
    let mut fields = Fields::of(node, "`amiforge`", cx)?;
    let modes = [
        BootMode::LegacyBios,
        BootMode::Uefi,
        BootMode::UefiPreferred,
    ]
    .map(|m| (m.name(), m));
    let boot_mode = fields.optional("bootMode", cx, |n, cx| decode::choice(n, cx, &modes));
    let formats = fields.optional("formats", cx, formats);
    let compression = fields.optional("compression", cx, compression);
    let root_filesystem = fields.optional("rootFilesystem", cx, root_filesystem);
    let seed = fields.optional("seed", cx, decode::filled);
    let apt = fields.optional("apt", cx, apt);
    let limits = fields.optional("limits", cx, limits::limits);
    let network = fields.optional("network", cx, network);
    let secret_parameters = fields.optional("secretParameters", cx, secret_parameters);
    let secrets = fields.optional("secrets", cx, secrets);
    let hygiene = fields.optional("hygiene", cx, hygiene::hygiene);
    fields.deny_unknown(cx);
    let default = AmiforgeSettings::default();
    let (formats, compression) = (
        formats?.unwrap_or(default.formats),
        compression?.unwrap_or((default.compression, node.span)),
    );
    let (compression, span) = compression;
    if compression != Compression::None && !formats.contains(&OutputFormat::Qcow2) {
        let message = "`compression` has no effect: none of the formats can be compressed";
        let help = Some("add `qcow2` to `formats`, or leave `compression` out".to_owned());
        cx.error_help("conflicting-fields", span, message, help);
        return None;
    }
    Some(AmiforgeSettings {
        boot_mode: boot_mode?.unwrap_or(default.boot_mode),
        formats,
        compression,
        root_filesystem: root_filesystem?.unwrap_or(default.root_filesystem),
        seed: seed?,
        apt: apt?.unwrap_or_default(),
        limits: limits?.unwrap_or_default(),
        network: network?.unwrap_or_default(),
        secret_parameters: secret_parameters?.unwrap_or_default(),
        secrets: secrets?.unwrap_or_default(),
        hygiene: hygiene?.unwrap_or_default(),
    })
}

/// What stands below `amiforge:` of a container recipe: there is no disk and nothing boots.
pub(super) fn container_settings(node: &Node, cx: &mut Cx<'_>) -> Option<AmiforgeSettings> {
    let mut fields = Fields::of(node, "`amiforge` of a container recipe", cx)?;
    let compression = fields.optional("compression", cx, layer_compression);
    let apt = fields.optional("apt", cx, apt);
    let limits = fields.optional("limits", cx, limits::limits);
    let network = fields.optional("network", cx, network);
    let secret_parameters = fields.optional("secretParameters", cx, secret_parameters);
    let secrets = fields.optional("secrets", cx, secrets);
    let hygiene = fields.optional("hygiene", cx, hygiene::hygiene);
    fields.deny_unknown(cx);
    let mut apt = apt?.unwrap_or_default();
    // Without a kernel and without what boots it.
    apt.packages.get_or_insert_default();
    Some(AmiforgeSettings {
        compression: compression?.unwrap_or(GZIP),
        apt,
        limits: limits?.unwrap_or_default(),
        network: network?.unwrap_or_default(),
        secret_parameters: secret_parameters?.unwrap_or_default(),
        secrets: secrets?.unwrap_or_default(),
        hygiene: hygiene?.unwrap_or_default(),
        ..AmiforgeSettings::default()
    })
}

/// How layers of containers are compressed when nothing is said.
const GZIP: Compression = Compression::Zlib(6);

impl AmiforgeSettings {
    /// Those of a container recipe that has none.
    pub(super) fn of_container() -> Self {
        Self {
            compression: GZIP,
            apt: AptSettings {
                packages: Some(Vec::new()),
                ..AptSettings::default()
            },
            ..Self::default()
        }
    }
}

/// `gzip`, in containers' words; `zlib` means the same.
fn layer_compression(node: &Node, cx: &mut Cx<'_>) -> Option<Compression> {
    let text = decode::filled(node, cx)?;
    let known = match text.strip_prefix("gzip") {
        Some("") => Ok(GZIP),
        Some(level) => format!("zlib{level}").parse(),
        None => text.parse(),
    };
    if known.is_err() {
        let message = format!(
            "{} is no compression of layers; write none, gzip, gzip:1 to gzip:9, zstd, or zstd:1 to zstd:19",
            decode::shown(&text)
        );
        cx.error("invalid-choice", node.span, message);
    }
    known.ok()
}

/// `ext4`, or a mapping with its type and profile.
fn root_filesystem(node: &Node, cx: &mut Cx<'_>) -> Option<RootFilesystem> {
    let types = [("ext4", RootFilesystem::Ext4)];
    if !matches!(node.kind, NodeKind::Map(_)) {
        return decode::choice(node, cx, &types);
    }
    let mut fields = Fields::of(node, "`amiforge.rootFilesystem`", cx)?;
    let kind = fields.required("type", cx, |n, cx| decode::choice(n, cx, &types));
    let profiles = [
        ("standard", RootFilesystem::Ext4),
        ("legacy", RootFilesystem::Ext4Legacy),
    ];
    let profile = fields.optional("profile", cx, |n, cx| decode::choice(n, cx, &profiles));
    fields.deny_unknown(cx);
    kind.zip(profile)
        .map(|(kind, profile)| profile.unwrap_or(kind))
}

fn secret_parameters(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<SecretParameter>> {
    let mut names = BTreeSet::new();
    decode::list(node, cx, |node, cx| {
        let name = decode::filled(node, cx)?;
        if !names.insert(name.clone()) {
            let message = format!("{} is listed twice", decode::shown(&name));
            cx.error("duplicate-name", node.span, message);
        }
        Some(SecretParameter {
            name,
            span: node.span,
        })
    })
}

fn secrets(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<SecretName>> {
    let mut names = BTreeSet::new();
    decode::list(node, cx, |node, cx| {
        let name = secret_name(node, cx)?;
        if !names.insert(name.clone()) {
            let message = format!("{} is listed twice", decode::shown(&name));
            cx.error("duplicate-name", node.span, message);
        }
        let span = node.span;
        Some(SecretName { name, span })
    })
}

/// Most characters of the name of a secret.
const MAX_SECRET_NAME: usize = 64;

/// Whether a text can be the name of a secret: it becomes that of a file.
pub(crate) fn is_secret_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty()
        && text.len() <= MAX_SECRET_NAME
        && !text.starts_with('.')
        && text.bytes().all(plain)
}

fn secret_name(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || {
        Asked::Pattern("^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")
    });
    if !is_secret_name(&text) {
        let message = format!(
            "{} cannot be the name of a secret: letters, digits, `.`, `_` and `-`, at most {MAX_SECRET_NAME}",
            decode::shown(&text)
        );
        cx.error("invalid-value", node.span, message);
        return None;
    }
    Some(text)
}

/// The spellings of [`Compression`].
const COMPRESSIONS: &str =
    "`none`, `zlib` or `zlib:1` to `zlib:9`, `zstd` or `zstd:1` to `zstd:19`";

fn compression(node: &Node, cx: &mut Cx<'_>) -> Option<(Compression, Span)> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || Asked::Hint(COMPRESSIONS));
    cx.asks(node.span, || {
        Asked::Pattern(r"^(none|zlib(:\+?0*[1-9])?|zstd(:\+?0*([1-9]|1[0-9]))?)$")
    });
    match text.parse() {
        Ok(compression) => Some((compression, node.span)),
        Err(error) => {
            let error: CompressionError = error;
            cx.error("invalid-choice", node.span, error.to_string());
            None
        }
    }
}

fn formats(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<OutputFormat>> {
    let known = [OutputFormat::Raw, OutputFormat::Qcow2].map(|f| (f.name(), f));
    let mut seen: Vec<OutputFormat> = Vec::new();
    let formats = decode::list(node, cx, |n, cx| {
        let format = decode::choice(n, cx, &known)?;
        if seen.contains(&format) {
            cx.error(
                "duplicate-name",
                n.span,
                format!("`{}` is listed twice", format.name()),
            );
            return None;
        }
        seen.push(format);
        Some(format)
    })?;
    if formats.is_empty() {
        cx.error(
            "empty-value",
            node.span,
            "`formats` names no format, so no image would be written",
        );
        return None;
    }
    Some(formats)
}

fn apt(node: &Node, cx: &mut Cx<'_>) -> Option<AptSettings> {
    let mut fields = Fields::of(node, "`amiforge.apt`", cx)?;
    let variants = [
        AptVariant::Essential,
        AptVariant::Apt,
        AptVariant::Required,
        AptVariant::Important,
    ]
    .map(|v| (v.name(), v));
    let mirror = fields.optional("mirror", cx, mirror);
    // `suite` is the short form for one.
    let suite = fields.optional("suite", cx, |n, cx| {
        Some(vec![word(n, cx, "suite", is_suite)?])
    });
    let suites = fields.optional("suites", cx, |n, cx| words(n, cx, "suite", is_suite));
    let components = fields.optional("components", cx, |n, cx| {
        words(n, cx, "archive component", is_suite)
    });
    let keyring = fields.optional("keyring", cx, decode::path);
    let snapshot = fields.optional("snapshot", cx, |n, cx| {
        word(n, cx, "snapshot time (YYYYMMDDTHHMMSSZ)", is_snapshot)
    });
    let packages = fields.optional("packages", cx, |n, cx| words(n, cx, "package", is_package));
    let include = fields.optional("include", cx, |n, cx| words(n, cx, "package", is_package));
    let variant = fields.optional("variant", cx, |n, cx| decode::choice(n, cx, &variants));
    let check = fields.optional("checkValidUntil", cx, decode::boolean);
    fields.deny_unknown(cx);
    let (suite, suites) = (suite?, suites?);
    if suite.is_some() && suites.is_some() {
        cx.error(
            "conflicting-fields",
            node.span,
            "`suite` and `suites` cannot both be given",
        );
        return None;
    }
    Some(AptSettings {
        mirror: mirror?,
        suites: suites.or(suite),
        components: components?,
        keyring: keyring?,
        snapshot: snapshot?,
        packages: packages?,
        include: include?.unwrap_or_default(),
        variant: variant?.unwrap_or_default(),
        check_valid_until: check?,
        span: Some(node.span),
    })
}

fn mirror(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let known = ["http://", "https://", "file:///"]
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    if !known || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let message = format!("{} is not the URL of an archive", decode::shown(&text));
        let help = Some("write http://, https:// or file:/// and the archive's folder".to_owned());
        cx.error_help("invalid-url", node.span, message, help);
        return None;
    }
    Some(text)
}

fn word(node: &Node, cx: &mut Cx<'_>, what: &str, fits: fn(&str) -> bool) -> Option<String> {
    let text = decode::filled(node, cx)?;
    if !fits(&text) {
        cx.error(
            "invalid-name",
            node.span,
            format!("{} is not a {what}", decode::shown(&text)),
        );
        return None;
    }
    Some(text)
}

fn words(node: &Node, cx: &mut Cx<'_>, what: &str, fits: fn(&str) -> bool) -> Option<Vec<String>> {
    let words = decode::list(node, cx, |n, cx| word(n, cx, what, fits))?;
    if words.is_empty() {
        cx.error(
            "empty-value",
            node.span,
            format!("this list names no {what}; leave the field out for the default"),
        );
        return None;
    }
    Some(words)
}

/// Debian policy 5.6.1, with an optional `:arch`, `=version` or `/suite` as apt takes them, and a
/// trailing `-` for "not this one".
fn is_package(text: &str) -> bool {
    let end = text.find([':', '=', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let lead = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let name_ok = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let rest_ok = rest.is_empty() || (rest.len() > 1 && rest.bytes().all(|b| b.is_ascii_graphic()));
    lead && name_ok && name.len() >= 2 && rest_ok
}

fn is_snapshot(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        })
}
