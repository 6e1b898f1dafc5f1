//! What there is to tell of an instance, as plain data.

use amiforge_ami::ec2::{self, AccountId, MetadataOptions, Region, RootDevice, Tags};
use amiforge_ami::{CreationDate, DeviceName, ImageId, InstanceId, ReservationId, VirtualName};
use amiforge_types::{Arch, Digest};
use base64::Engine as _;

use super::places;

/// What a spot instance is told that will happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpotAction {
    /// It will be hibernated.
    Hibernate,
    /// It will be stopped.
    Stop,
    /// It will be terminated.
    Terminate,
}

impl SpotAction {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hibernate => "hibernate",
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }
}

/// Notice of an interruption: `spot/instance-action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotNotice {
    /// What will happen.
    pub action: SpotAction,
    /// When.
    pub time: CreationDate,
}

/// Everything that the service tells of an instance. Absent members are not in the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// `ami-id`.
    pub image_id: ImageId,
    /// `ami-launch-index`: which of the instances of its launch it is.
    pub launch_index: u32,
    /// `ami-manifest-path`; `(unknown)` when the root is a volume.
    pub manifest_path: String,
    /// `ancestor-ami-ids`.
    pub ancestor_image_ids: Vec<ImageId>,
    /// `instance-id`.
    pub instance_id: InstanceId,
    /// `reservation-id`.
    pub reservation_id: ReservationId,
    /// The owner.
    pub account: AccountId,
    /// `placement/region`.
    pub region: Region,
    /// `placement/availability-zone`.
    pub availability_zone: String,
    /// `instance-type`.
    pub instance_type: String,
    /// `instance-life-cycle`: `on-demand` or `spot`.
    pub life_cycle: String,
    /// Of the processor.
    pub architecture: Arch,
    /// When it was launched: `pendingTime` of the identity document.
    pub pending_time: CreationDate,
    /// The root.
    pub root_device_name: DeviceName,
    /// Further volumes: `block-device-mapping/ebs1` and so on.
    pub ebs_devices: Vec<DeviceName>,
    /// Instance store volumes: `block-device-mapping/ephemeral0` and so on.
    pub ephemeral_devices: Vec<(VirtualName, DeviceName)>,
    /// `mac`, in lower case.
    pub mac: String,
    /// `local-ipv4`.
    pub private_ip: String,
    /// The subnet, for example `172.31.16.0/20`; the guest's own network mask may be another.
    pub subnet_cidr: String,
    /// The VPC, for example `172.31.0.0/16`.
    pub vpc_cidr: String,
    /// `local-hostname`, and `hostname`.
    pub private_host: String,
    /// `public-ipv4` and `public-hostname`.
    pub public: Option<(String, String)>,
    /// `security-groups`.
    pub security_groups: Vec<String>,
    /// Name and line of the key pair.
    pub public_key: Option<(String, String)>,
    /// `user-data`, decoded.
    pub user_data: Option<Vec<u8>>,
    /// `product-codes`.
    pub product_codes: Vec<String>,
    /// Codes of billed software, in the identity document.
    pub billing_products: Vec<String>,
    /// `dynamic/fws/instance-monitoring`: whether detailed monitoring is on.
    pub monitoring: bool,
    /// The instance's tags; told when the options say so.
    pub tags: Tags,
    /// How the service behaves.
    pub options: MetadataOptions,
    /// `instance-action`: `none`, `shutdown` or `bundle-pending`.
    pub instance_action: String,
    /// `spot/instance-action`, and `spot/termination-time` when it will be terminated.
    pub spot: Option<SpotNotice>,
    /// `events/recommendations/rebalance`: when the notice was given.
    pub rebalance: Option<CreationDate>,
    /// `autoscaling/target-lifecycle-state`.
    pub lifecycle_state: Option<String>,
}

/// User data that is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user data of the instance is not base64")]
pub struct UserDataError;

impl Metadata {
    /// What is told of `instance`, launched from `image` (absent when it is gone).
    ///
    /// # Errors
    /// When the instance's user data is not base64.
    pub fn of(instance: &ec2::Instance, image: Option<&ec2::Image>) -> Result<Self, UserDataError> {
        let user_data = match instance.user_data.as_deref() {
            None | Some("") => None,
            Some(text) => Some(
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|_| UserDataError)?,
            ),
        };
        let public_key = instance.public_key.as_ref().map(|line| {
            let name = instance.key_name.clone().unwrap_or_else(|| "key".into());
            (name, line.trim().to_owned())
        });
        let mut parts = instance.private_ip.split('.');
        let [a, b, c] = [(); 3].map(|()| parts.next().unwrap_or("0"));
        let third = c.parse::<u8>().unwrap_or(0) & 0xF0;
        Ok(Self {
            image_id: instance.image_id.clone(),
            launch_index: instance.ami_launch_index,
            manifest_path: match (instance.root_device_type, image) {
                (RootDevice::InstanceStore, Some(image)) => image
                    .image_location
                    .clone()
                    .unwrap_or_else(|| "(unknown)".into()),
                _ => "(unknown)".into(),
            },
            ancestor_image_ids: image
                .and_then(|i| i.source_image_id.clone())
                .into_iter()
                .collect(),
            instance_id: instance.instance_id.clone(),
            reservation_id: instance.reservation_id.clone(),
            account: instance.owner.clone(),
            region: instance.region.clone(),
            availability_zone: instance.availability_zone.clone(),
            instance_type: instance.instance_type.clone(),
            life_cycle: "on-demand".into(),
            architecture: instance.architecture,
            pending_time: instance.launch_time,
            root_device_name: instance.root_device_name.clone(),
            ebs_devices: instance
                .volumes
                .iter()
                .map(|v| v.device.clone())
                .filter(|d| *d != instance.root_device_name)
                .collect(),
            ephemeral_devices: instance
                .ephemeral
                .iter()
                .map(|e| (e.virtual_name, e.device.clone()))
                .collect(),
            mac: instance.mac.to_ascii_lowercase(),
            private_ip: instance.private_ip.clone(),
            subnet_cidr: format!("{a}.{b}.{third}.0/20"),
            vpc_cidr: format!("{a}.{b}.0.0/16"),
            private_host: places::private_host(&instance.region, &instance.private_ip),
            public: None,
            security_groups: vec!["default".into()],
            public_key,
            user_data: user_data.filter(|data| !data.is_empty()),
            product_codes: image.map_or_else(Vec::new, |i| i.product_codes.clone()),
            billing_products: image.map_or_else(Vec::new, |i| i.billing_products.clone()),
            monitoring: false,
            tags: instance.tags.clone(),
            options: instance.metadata_options,
            instance_action: "none".into(),
            spot: None,
            rebalance: None,
            lifecycle_state: None,
        })
    }

    /// An id of something that is not kept as a record, such as its subnet: the same for the same `of`.
    pub(super) fn derived_id(&self, prefix: &str, of: &str) -> String {
        let text = format!("{prefix} {} {} {of}", self.account, self.region);
        format!("{prefix}-{}", &Digest::of(text.as_bytes()).hex()[..17])
    }

    /// The identity document, as AWS lays it out: keys in order, ` : ` between key and value.
    #[must_use]
    pub fn identity_document(&self) -> String {
        let text = |s: &str| serde_json::Value::from(s).to_string();
        let list = |items: &[String]| match items {
            [] => "null".to_owned(),
            items => serde_json::Value::from(items.to_vec()).to_string(),
        };
        let members = [
            ("accountId", text(self.account.as_str())),
            ("architecture", text(self.architecture.ec2())),
            ("availabilityZone", text(&self.availability_zone)),
            ("billingProducts", list(&self.billing_products)),
            ("devpayProductCodes", "null".to_owned()),
            ("marketplaceProductCodes", list(&self.product_codes)),
            ("imageId", text(self.image_id.as_str())),
            ("instanceId", text(self.instance_id.as_str())),
            ("instanceType", text(&self.instance_type)),
            ("kernelId", "null".to_owned()),
            (
                "pendingTime",
                text(&self.pending_time.timestamp().to_string()),
            ),
            ("privateIp", text(&self.private_ip)),
            ("ramdiskId", "null".to_owned()),
            ("region", text(self.region.as_str())),
            ("version", text("2017-09-30")),
        ];
        let lines: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("  \"{key}\" : {value}"))
            .collect();
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}
