//! Metadata as a tree of paths and texts.

use std::collections::BTreeMap;

use amiforge_ami::ec2::Tags;
use serde_json::json;

use super::metadata::{Metadata, SpotAction};
use super::places;

/// The versions that are listed; all of them are served the same tree.
pub(super) const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A folder: one name a line, those of folders with a slash behind.
    Listing(String),
    /// A value.
    Text(&'a str),
    /// User data.
    Bytes(&'a [u8]),
}

/// Everything below a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(Node);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder(BTreeMap<String, Node>),
    Text(String),
    Bytes(Vec<u8>),
    /// Keys are names as they are, slashes and all.
    Tags(Vec<(String, String)>),
    /// One key pair, listed as `0=name`.
    Key {
        name: String,
        line: String,
    },
}

impl Node {
    fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_) | Self::Tags(_) | Self::Key { .. })
    }

    fn put(&mut self, path: &str, node: Self) {
        let mut at = self;
        for part in path.split('/') {
            let Self::Folder(entries) = at else {
                return;
            };
            at = entries
                .entry(part.to_owned())
                .or_insert_with(|| Self::Folder(BTreeMap::new()));
        }
        *at = node;
    }
}

impl Tree {
    /// The tree of an instance.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let mut root = Node::Folder(BTreeMap::new());
        let mut put = |path: String, text: String| root.put(&path, Node::Text(text));
        for (path, text) in meta_data(metadata) {
            put(format!("meta-data/{path}"), text);
        }
        let monitoring = if metadata.monitoring {
            "enabled"
        } else {
            "disabled"
        };
        put("dynamic/fws/instance-monitoring".into(), monitoring.into());
        put(
            "dynamic/instance-identity/document".into(),
            metadata.identity_document(),
        );
        if let Some((name, line)) = &metadata.public_key {
            let name = name.replace(char::is_control, "_");
            let key = Node::Key {
                name,
                line: line.clone(),
            };
            root.put("meta-data/public-keys", key);
        }
        if metadata.options.instance_metadata_tags {
            let tags = listable(&metadata.tags);
            if !tags.is_empty() {
                root.put("meta-data/tags/instance", Node::Tags(tags));
            }
        }
        if let Some(data) = &metadata.user_data {
            root.put("user-data", Node::Bytes(data.clone()));
        }
        Self(root)
    }

    /// What `path` leads to; it is decoded, begins below the version, and may have slashes too many.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Found<'_>> {
        let mut parts = path.split('/').filter(|p| !p.is_empty());
        let mut node = &self.0;
        loop {
            match node {
                Node::Folder(entries) => match parts.next() {
                    Some(part) => node = entries.get(part)?,
                    None => return Some(Found::Listing(listing(entries))),
                },
                Node::Text(text) => return parts.next().is_none().then_some(Found::Text(text)),
                Node::Bytes(bytes) => return parts.next().is_none().then_some(Found::Bytes(bytes)),
                Node::Tags(tags) => {
                    let key: Vec<&str> = parts.collect();
                    if key.is_empty() {
                        let names: Vec<&str> = tags.iter().map(|(key, _)| key.as_str()).collect();
                        return Some(Found::Listing(names.join("\n")));
                    }
                    return tag(tags, &key.join("/")).map(Found::Text);
                }
                Node::Key { name, line } => {
                    return match (parts.next(), parts.next(), parts.next()) {
                        (None, ..) => Some(Found::Listing(format!("0={name}"))),
                        (Some("0"), None, _) => Some(Found::Listing("openssh-key".into())),
                        (Some("0"), Some("openssh-key"), None) => Some(Found::Text(line)),
                        _ => None,
                    };
                }
            }
        }
    }
}

fn listing(entries: &BTreeMap<String, Node>) -> String {
    let names: Vec<String> = entries
        .iter()
        .map(|(name, node)| match node.is_folder() {
            true => format!("{name}/"),
            false => name.clone(),
        })
        .collect();
    names.join("\n")
}

/// The tags whose keys can stand in a list and be asked for. EC2 refuses all keys with spaces and slashes where tags are in
/// the metadata; here only those go that no client could fetch: over several lines, or taken for folders.
fn listable(tags: &Tags) -> Vec<(String, String)> {
    tags.iter()
        .filter(|(key, _)| {
            let trimmed = key.trim();
            !trimmed.is_empty()
                && !key.contains(char::is_control)
                && !trimmed.ends_with('/')
                && !trimmed.split('/').any(|part| part == "." || part == "..")
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The value of a tag, asked for as cloud-init does: without spaces around the key, and `0=name` as `0/openssh-key`, which
/// it takes for a public key.
fn tag<'a>(tags: &'a [(String, String)], asked: &str) -> Option<&'a str> {
    let plain = |key: &str| {
        let parts: Vec<&str> = key.trim().split('/').filter(|p| !p.is_empty()).collect();
        parts.join("/")
    };
    let find = |wanted: &dyn Fn(&str) -> bool| tags.iter().find(|(key, _)| wanted(key));
    let asked_plain = plain(asked);
    find(&|key| key == asked)
        .or_else(|| find(&|key| plain(key) == asked_plain))
        .or_else(|| {
            let number = asked.strip_suffix("/openssh-key")?;
            find(&|key| {
                key.trim()
                    .split_once('=')
                    .is_some_and(|(ident, _)| ident.trim() == number)
            })
        })
        .map(|(_, value)| value.as_str())
}

/// Paths below `meta-data/`, with their values.
fn meta_data(m: &Metadata) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut put = |path: &str, text: &str| all.push((path.to_owned(), text.to_owned()));
    put("ami-id", m.image_id.as_str());
    put("ami-launch-index", &m.launch_index.to_string());
    put("ami-manifest-path", &m.manifest_path);
    if !m.ancestor_image_ids.is_empty() {
        let ids: Vec<&str> = m.ancestor_image_ids.iter().map(|id| id.as_str()).collect();
        put("ancestor-ami-ids", &ids.join("\n"));
    }
    if let Some(state) = &m.lifecycle_state {
        put("autoscaling/target-lifecycle-state", state);
    }
    put("block-device-mapping/ami", m.root_device_name.short());
    put("block-device-mapping/root", m.root_device_name.as_str());
    for (n, device) in m.ebs_devices.iter().enumerate() {
        put(
            &format!("block-device-mapping/ebs{}", n + 1),
            device.short(),
        );
    }
    for (name, device) in &m.ephemeral_devices {
        put(&format!("block-device-mapping/{name}"), device.short());
    }
    put("events/maintenance/history", "[]");
    put("events/maintenance/scheduled", "[]");
    if let Some(time) = m.rebalance {
        let notice = json!({ "noticeTime": time.timestamp().to_string() });
        put("events/recommendations/rebalance", &notice.to_string());
    }
    put("hostname", &m.private_host);
    let info = json!({
        "Code": "Success",
        "LastUpdated": m.pending_time.timestamp().to_string(),
        "AccountId": m.account,
    });
    put("identity-credentials/ec2/info", &info.to_string());
    put("instance-action", &m.instance_action);
    put("instance-id", m.instance_id.as_str());
    put("instance-life-cycle", &m.life_cycle);
    put("instance-type", &m.instance_type);
    put("local-hostname", &m.private_host);
    put("local-ipv4", &m.private_ip);
    put("mac", &m.mac);
    put(
        "metrics/vhostmd",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
    );
    interface(m, &mut put);
    put("placement/availability-zone", &m.availability_zone);
    if let Some(id) = places::zone_id(&m.region, &m.availability_zone) {
        put("placement/availability-zone-id", &id);
    }
    put("placement/region", m.region.as_str());
    if !m.product_codes.is_empty() {
        put("product-codes", &m.product_codes.join("\n"));
    }
    put("profile", "default-hvm");
    if let Some((address, host)) = &m.public {
        put("public-hostname", host);
        put("public-ipv4", address);
    }
    put("reservation-id", m.reservation_id.as_str());
    put("security-groups", &m.security_groups.join("\n"));
    put("services/domain", places::domain(&m.region));
    put("services/partition", places::partition(&m.region));
    if let Some(notice) = m.spot {
        let time = notice.time.timestamp().to_string();
        let action = json!({ "action": notice.action.as_str(), "time": time });
        put("spot/instance-action", &action.to_string());
        if notice.action == SpotAction::Terminate {
            put("spot/termination-time", &time);
        }
    }
    put("system", "nitro");
    all
}

/// The network interface.
fn interface(m: &Metadata, put: &mut impl FnMut(&str, &str)) {
    let vpc = m.derived_id("vpc", "default");
    let groups: Vec<String> = m
        .security_groups
        .iter()
        .map(|name| m.derived_id("sg", name))
        .collect();
    let mut own =
        |name: &str, text: &str| put(&format!("network/interfaces/macs/{}/{name}", m.mac), text);
    own("device-number", "0");
    own("interface-id", &m.derived_id("eni", m.instance_id.as_str()));
    own("local-hostname", &m.private_host);
    own("local-ipv4s", &m.private_ip);
    own("mac", &m.mac);
    own("network-card", "0");
    own("owner-id", m.account.as_str());
    if let Some((address, host)) = &m.public {
        own(&format!("ipv4-associations/{address}"), &m.private_ip);
        own("public-hostname", host);
        own("public-ipv4s", address);
    }
    own("security-group-ids", &groups.join("\n"));
    own("security-groups", &m.security_groups.join("\n"));
    own("subnet-id", &m.derived_id("subnet", &m.availability_zone));
    own("subnet-ipv4-cidr-block", &m.subnet_cidr);
    own("vpc-id", &vpc);
    own("vpc-ipv4-cidr-block", &m.vpc_cidr);
    own("vpc-ipv4-cidr-blocks", &m.vpc_cidr);
}
