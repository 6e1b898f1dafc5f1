//! Block device mappings and their limits.
//! Sources: EC2 API `BlockDeviceMapping`, `EbsBlockDevice`; EC2 user guide, device naming; Image
//! Builder API `EbsInstanceBlockDeviceSpecification`.

use std::collections::BTreeMap;

use amiforge_types::Span;

use crate::decode::{self, Cx, Fields};
use crate::node::Node;
use crate::resources::forms;

/// One entry of `blockDeviceMappings`; exactly one of `ebs`, `virtual_name` and `no_device` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDeviceMapping {
    /// For example `/dev/xvda`.
    pub device_name: String,
    /// An EBS volume.
    pub ebs: Option<Ebs>,
    /// An instance store volume, `ephemeral0` to `ephemeral23`.
    pub virtual_name: Option<String>,
    /// True removes the parent's mapping of this device.
    pub no_device: bool,
    /// Where the entry stands.
    pub span: Span,
}

/// The EBS part of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ebs {
    /// GiB.
    pub volume_size: Option<u32>,
    /// `None` leaves the choice to EC2.
    pub volume_type: Option<VolumeType>,
    /// `None`: true for the root volume, false for others.
    pub delete_on_termination: Option<bool>,
    /// Whether the volume is encrypted.
    pub encrypted: Option<bool>,
    /// Operations per second.
    pub iops: Option<u32>,
    /// MiB per second.
    pub throughput: Option<u32>,
    /// Key of the encryption.
    pub kms_key_id: Option<String>,
    /// A snapshot to start the volume from.
    pub snapshot_id: Option<String>,
}

impl Ebs {
    /// A volume of a template, of which not all is known before deployment.
    const fn unknown() -> Self {
        Self {
            volume_size: None,
            volume_type: None,
            delete_on_termination: None,
            encrypted: None,
            iops: None,
            throughput: None,
            kms_key_id: None,
            snapshot_id: None,
        }
    }
}

/// A kind of EBS volume.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// Previous generation, magnetic.
    Standard,
    /// Provisioned IOPS.
    Io1,
    /// Provisioned IOPS, block express.
    Io2,
    /// General purpose.
    Gp2,
    /// General purpose with settable performance.
    Gp3,
    /// Cold HDD; cannot boot.
    Sc1,
    /// Throughput HDD; cannot boot.
    St1,
}

/// What a volume type allows: size in GiB, IOPS, throughput in MiB/s.
struct Limits {
    size: (u32, u32),
    iops: Option<(u32, u32)>,
    iops_per_gib: u32,
    iops_required: bool,
    throughput: Option<(u32, u32)>,
    bootable: bool,
}

impl VolumeType {
    const ALL: [Self; 7] = [
        Self::Standard,
        Self::Io1,
        Self::Io2,
        Self::Gp2,
        Self::Gp3,
        Self::Sc1,
        Self::St1,
    ];

    /// The spelling of the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
            Self::Sc1 => "sc1",
            Self::St1 => "st1",
        }
    }

    /// True when EC2 boots from a volume of this type.
    #[must_use]
    pub const fn is_bootable(self) -> bool {
        self.limits().bootable
    }

    const fn limits(self) -> Limits {
        let plain = Limits {
            size: (1, 16_384),
            iops: None,
            iops_per_gib: 0,
            iops_required: false,
            throughput: None,
            bootable: true,
        };
        match self {
            Self::Gp3 => Limits {
                size: (1, 65_536),
                iops: Some((3_000, 80_000)),
                iops_per_gib: 500,
                throughput: Some((125, 2_000)),
                ..plain
            },
            Self::Gp2 => plain,
            Self::Io2 => Limits {
                size: (4, 65_536),
                iops: Some((100, 256_000)),
                iops_per_gib: 1_000,
                iops_required: true,
                ..plain
            },
            Self::Io1 => Limits {
                size: (4, 16_384),
                iops: Some((100, 64_000)),
                iops_per_gib: 50,
                iops_required: true,
                ..plain
            },
            Self::Sc1 | Self::St1 => Limits {
                size: (125, 16_384),
                bootable: false,
                ..plain
            },
            Self::Standard => Limits {
                size: (1, 1_024),
                ..plain
            },
        }
    }
}

/// What the Image Builder API takes at most; EC2 itself goes higher.
const MOST_GIB: u32 = 16_000;
const MOST_IOPS: u32 = 64_000;
const MOST_THROUGHPUT: u32 = 1_000;

pub(super) fn mappings(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<BlockDeviceMapping>> {
    let items = decode::seq(node, cx)?;
    let all: Vec<BlockDeviceMapping> = items.iter().filter_map(|item| mapping(item, cx)).collect();
    let mut ok = all.len() == items.len();
    let mut slots: BTreeMap<&str, &str> = BTreeMap::new();
    // Of entries with other mistakes, too.
    for item in items {
        let name = ["deviceName", "DeviceName"]
            .iter()
            .find_map(|key| item.get(key));
        let Some(name) = name
            .filter(|node| !node.is_opaque())
            .and_then(Node::as_text)
        else {
            continue;
        };
        if let Some(first) = slots.insert(slot(name), name) {
            let message = if first == name {
                format!("`{name}` is mapped twice")
            } else {
                format!("`{first}` and `{name}` are the same slot of an instance")
            };
            cx.error("duplicate-name", item.span, message);
            ok = false;
        }
    }
    ok.then_some(all)
}

/// The mapping of the root volume: `/dev/xvda` or `/dev/sda1`, else the first EBS volume.
pub(super) fn root(mappings: &[BlockDeviceMapping]) -> Option<&BlockDeviceMapping> {
    let usual = mappings
        .iter()
        .find(|m| matches!(m.device_name.as_str(), "/dev/xvda" | "/dev/sda1"));
    usual.or_else(|| mappings.iter().find(|m| m.ebs.is_some()))
}

/// `sdX` and `xvdX` are the same slot, and `sda1` is the whole disk `sda`.
fn slot(device: &str) -> &str {
    let name = device.trim_start_matches("/dev/");
    let letters = name
        .strip_prefix("xvd")
        .or_else(|| name.strip_prefix("sd"))
        .unwrap_or(name);
    letters.strip_suffix('1').unwrap_or(letters)
}

fn mapping(node: &Node, cx: &mut Cx<'_>) -> Option<BlockDeviceMapping> {
    let mut fields = Fields::of_either_case(node, "a block device mapping", cx)?;
    let device_name = fields.required("deviceName", cx, device_name);
    let ebs = fields.optional("ebs", cx, ebs);
    let virtual_name = fields.optional("virtualName", cx, decode::filled);
    // `noDevice: ""` removes a mapping; any value does.
    let removed = fields.node("noDevice", cx);
    if let Some(node) = removed {
        forms::empty(node, cx);
    }
    let no_device = removed.is_some();
    fields.deny_unknown(cx);
    let unknown = fields.is_unknown();
    // Of what is there, whether it could be read or not: nothing waits for another mistake.
    let has_ebs = fields.peek("ebs").is_some();
    let named = fields.peek("virtualName").filter(|_| !has_ebs);
    if has_ebs && fields.peek("virtualName").is_some() {
        // Templates of AWS itself have both, and EC2 takes them.
        let at = fields.place("virtualName");
        let message = "`virtualName` has no effect beside `ebs`";
        cx.warning(
            "ignored-field",
            at,
            message,
            "it names instance store volumes",
        );
    }
    let virtual_name = match (virtual_name, named) {
        (Some(Some(name)), Some(node)) => ephemeral(&name, node, cx).map(|()| Some(name)),
        (Some(_), None) => Some(None),
        (other, _) => other,
    };
    let kinds = usize::from(has_ebs) + usize::from(named.is_some()) + usize::from(no_device);
    if kinds != 1 && !unknown {
        let mapping = match &device_name {
            Some(name) => format!("`{name}`"),
            None => "a block device mapping".to_owned(),
        };
        let message = format!(
            "{mapping} needs exactly one of `ebs`, `virtualName` and `noDevice`, found {kinds}"
        );
        cx.error("conflicting-fields", node.span, message);
        return None;
    }
    let (device_name, ebs, virtual_name) = (device_name?, ebs?, virtual_name?);
    Some(BlockDeviceMapping {
        device_name,
        ebs,
        virtual_name,
        no_device,
        span: node.span,
    })
}

fn device_name(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    if !node.is_opaque() && !is_device_name(&text) {
        let message = format!(
            "{} is not a device name of an HVM instance",
            decode::shown(&text)
        );
        let help = "use /dev/xvda or /dev/sda1 for the root, /dev/sdb to /dev/sdz or /dev/xvdba to /dev/xvddx for others";
        cx.error_help("invalid-device", node.span, message, Some(help.to_owned()));
        return None;
    }
    Some(text)
}

/// `/dev/sd[a-z]`, `/dev/sda1`, `/dev/sda2`, `/dev/xvd[a-z]`, `/dev/xvd[a-c][a-z]`, `/dev/xvdd[a-x]`.
fn is_device_name(text: &str) -> bool {
    // Windows has no /dev; EC2's guide names its devices xvdb to xvdz.
    let Some(name) = text.strip_prefix("/dev/") else {
        return text.strip_prefix("xvd").is_some_and(|letters| {
            matches!(
                letters.as_bytes(),
                [b'a'..=b'z'] | [b'a'..=b'c', b'a'..=b'z']
            )
        });
    };
    if let Some(letters) = name.strip_prefix("sd") {
        return matches!(letters.as_bytes(), [b'a'..=b'z']) || letters == "a1" || letters == "a2";
    }
    let Some(letters) = name.strip_prefix("xvd") else {
        return false;
    };
    matches!(
        letters.as_bytes(),
        [b'a'..=b'z'] | [b'a'..=b'c', b'a'..=b'z'] | [b'd', b'a'..=b'x']
    )
}

/// `ephemeral0` to `ephemeral23`.
fn ephemeral(text: &str, node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let number = text
        .strip_prefix("ephemeral")
        .and_then(|n| n.parse::<u8>().ok().filter(|v| v.to_string() == n));
    if !node.is_opaque() && number.is_none_or(|n| n > 23) {
        cx.error(
            "invalid-device",
            node.span,
            format!("{} is not ephemeral0 to ephemeral23", decode::shown(text)),
        );
        return None;
    }
    Some(())
}

fn ebs(node: &Node, cx: &mut Cx<'_>) -> Option<Ebs> {
    let mut fields = Fields::of_either_case(node, "`ebs`", cx)?;
    let types = VolumeType::ALL.map(|t| (t.name(), t));
    let number = |n: &Node, cx: &mut Cx<'_>| {
        let value = decode::integer(n, cx, 1..=i64::from(u32::MAX))?;
        Some((u32::try_from(value).ok()?, n.span))
    };
    let volume_size = fields.optional("volumeSize", cx, number);
    let volume_type = fields.optional("volumeType", cx, |n, cx| decode::choice(n, cx, &types));
    let delete_on_termination = fields.optional("deleteOnTermination", cx, decode::boolean);
    let encrypted = fields.optional("encrypted", cx, decode::boolean);
    let iops = fields.optional("iops", cx, number);
    let throughput = fields.optional("throughput", cx, number);
    let kms_key_id = fields.optional("kmsKeyId", cx, |n, cx| {
        Some((decode::filled(n, cx)?, n.span))
    });
    let snapshot_id = fields.optional("snapshotId", cx, snapshot_id);
    fields.deny_unknown(cx);
    if fields.is_opaque() {
        // Limits depend on each other, and not all is known.
        return Some(Ebs::unknown());
    }
    let before = cx.diags.len();
    // Whatever is wrong with the other fields. Without a type EC2 takes gp2, which allows no more than gp3 does; only the
    // ranges are checked.
    if let (Some(size), Some(kind), Some(iops), Some(throughput)) =
        (volume_size, volume_type, iops, throughput)
    {
        let kind = kind.unwrap_or(VolumeType::Gp2);
        check_limits(kind, size, iops, throughput, node.span, cx);
    }
    if let (Some(Some((_, span))), Some(None | Some(false))) = (&kms_key_id, encrypted) {
        cx.error(
            "conflicting-fields",
            *span,
            "`kmsKeyId` needs `encrypted: true`",
        );
    }
    let (volume_size, volume_type, iops) = (volume_size?, volume_type?, iops?);
    let (throughput, kms_key_id, encrypted) = (throughput?, kms_key_id?, encrypted?);
    let (delete_on_termination, snapshot_id) = (delete_on_termination?, snapshot_id?);
    if cx
        .diags
        .iter()
        .skip(before)
        .any(|d| d.severity == amiforge_types::Severity::Error)
    {
        return None;
    }
    Some(Ebs {
        volume_size: volume_size.map(|(v, _)| v),
        volume_type,
        delete_on_termination,
        encrypted,
        iops: iops.map(|(v, _)| v),
        throughput: throughput.map(|(v, _)| v),
        kms_key_id: kms_key_id.map(|(v, _)| v),
        snapshot_id,
    })
}

fn check_limits(
    kind: VolumeType,
    size: Option<(u32, Span)>,
    iops: Option<(u32, Span)>,
    throughput: Option<(u32, Span)>,
    ebs: Span,
    cx: &mut Cx<'_>,
) {
    let (name, limits) = (kind.name(), kind.limits());
    let mut range = |field: &str,
                     value: Option<(u32, Span)>,
                     allowed: Option<(u32, u32)>,
                     unit: &str| match (value, allowed) {
        (Some((_, span)), None) => {
            cx.error(
                "conflicting-fields",
                span,
                format!("`{field}` cannot be set for a volume of type {name}"),
            );
        }
        (Some((value, span)), Some((least, most))) if !(least..=most).contains(&value) => {
            let message = format!(
                "`{field}` {value} is not within {least} to {most}{unit} of a volume of type {name}"
            );
            cx.error("out-of-range", span, message);
        }
        _ => {}
    };
    range("volumeSize", size, Some(limits.size), " GiB");
    range("iops", iops, limits.iops, "");
    range("throughput", throughput, limits.throughput, " MiB/s");
    if limits.iops_required && iops.is_none() {
        cx.error(
            "missing-field",
            ebs,
            format!("a volume of type {name} needs the field `iops`"),
        );
    }
    if let (Some((size, _)), Some((iops, span))) = (size, iops)
        && limits.iops.is_some()
        // The baseline of gp3 is granted to every size.
        && (kind != VolumeType::Gp3 || iops > 3_000)
        && u64::from(iops) > u64::from(size) * u64::from(limits.iops_per_gib)
    {
        let most = u64::from(size) * u64::from(limits.iops_per_gib);
        cx.error(
            "out-of-range",
            span,
            format!("{size} GiB of type {name} allow at most {most} `iops`"),
        );
    }
    // gp3: a quarter of a MiB/s for each provisioned operation.
    if let Some((throughput, span)) = throughput.filter(|_| kind == VolumeType::Gp3) {
        let iops = iops.map_or(3_000, |(v, _)| v);
        if u64::from(throughput) * 4 > u64::from(iops) {
            let needed = u64::from(throughput) * 4;
            let message = format!(
                "`throughput` {throughput} needs at least {needed} `iops`, there are {iops}"
            );
            cx.error("out-of-range", span, message);
        }
    }
    // What EC2 takes and the API of Image Builder does not.
    for (field, value, most, own, unit) in [
        ("volumeSize", size, MOST_GIB, Some(limits.size), " GiB"),
        ("iops", iops, MOST_IOPS, limits.iops, ""),
        (
            "throughput",
            throughput,
            MOST_THROUGHPUT,
            limits.throughput,
            " MiB/s",
        ),
    ] {
        let within = |v: u32| own.is_some_and(|(_, own)| v <= own);
        if let Some((value, span)) = value.filter(|(v, _)| *v > most && within(*v)) {
            let message = format!(
                "Image Builder itself takes at most {most}{unit} for `{field}`, this is {value}"
            );
            let help = "the image can be built here, but not by the service";
            cx.warning("aws-limit", span, message, help);
        }
    }
}

fn snapshot_id(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let hex = text.strip_prefix("snap-").unwrap_or("");
    let fits = matches!(hex.len(), 8 | 17)
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !fits && !node.is_opaque() {
        let message = format!("{} is not a snapshot id", decode::shown(&text));
        let help = Some("write `snap-` and 17 hex digits".to_owned());
        cx.error_help("invalid-name", node.span, message, help);
        return None;
    }
    Some(text)
}
