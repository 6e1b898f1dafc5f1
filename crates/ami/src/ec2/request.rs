//! The parts that requests share, as texts: what a user writes, before any rule was looked at.
//!
//! All requests can be read from JSON in the API's shape (`--cli-input-json`, `--block-device-mappings`): members in
//! PascalCase, unknown ones refused. Ids, enums and numbers are checked by the operations, which answer with the API's codes.
//!
//! Source: EC2 API reference, `BlockDeviceMapping`, `EbsBlockDevice`, `TagSpecification`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request of the API.
macro_rules! request {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
    };
}
pub(crate) use request;

request! {
    /// `BlockDeviceMapping` of a request.
    pub struct MappingRequest {
        /// The device name; what an entry of the image is overridden by.
        pub device_name: String,
        /// An EBS volume.
        pub ebs: Option<EbsRequest>,
        /// An instance store volume, `ephemeral0` to `ephemeral23`.
        pub virtual_name: Option<String>,
        /// Present, with any text: the image's entry is left out.
        pub no_device: Option<String>,
    }
}

request! {
    /// `EbsBlockDevice` of a request. What is absent is inherited or has its default.
    pub struct EbsRequest {
        /// The snapshot that the volume is made from.
        pub snapshot_id: Option<String>,
        /// Size in GiB.
        pub volume_size: Option<u32>,
        /// The type.
        pub volume_type: Option<String>,
        /// Provisioned I/O operations per second.
        pub iops: Option<u32>,
        /// Provisioned throughput in MiB/s.
        pub throughput: Option<u32>,
        /// Whether the volume goes with the instance.
        pub delete_on_termination: Option<bool>,
        /// Encryption.
        pub encrypted: Option<bool>,
        /// The key: an id, `alias/…`, or an ARN.
        pub kms_key_id: Option<String>,
        /// Not here, as what follows: only empty, as a skeleton of the AWS command line has it.
        pub outpost_arn: Option<Value>,
        /// Not here: a volume is where its instance is.
        pub availability_zone: Option<Value>,
        /// Not here.
        pub availability_zone_id: Option<Value>,
        /// Not here: all blocks are there at once.
        pub volume_initialization_rate: Option<Value>,
        /// Not here.
        pub ebs_card_index: Option<Value>,
    }
}

impl EbsRequest {
    /// A member that means nothing here, and is not empty.
    #[must_use]
    pub fn unsupported(&self) -> Option<&'static str> {
        let members = [
            ("OutpostArn", &self.outpost_arn),
            ("AvailabilityZone", &self.availability_zone),
            ("AvailabilityZoneId", &self.availability_zone_id),
            ("VolumeInitializationRate", &self.volume_initialization_rate),
            ("EbsCardIndex", &self.ebs_card_index),
        ];
        let given = |value: &Value| !value.is_null() && *value != "" && *value != 0;
        let found = members.iter().find(|(_, v)| v.as_ref().is_some_and(given));
        found.map(|(name, _)| *name)
    }
}

/// A tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// Key, 1 to 127 characters.
    pub key: String,
    /// Value, up to 256 characters.
    #[serde(default)]
    pub value: String,
}

request! {
    /// `TagSpecification`: tags for the resources of one type that the request makes.
    pub struct TagSpecification {
        /// `image`, `snapshot`, `instance` or `volume`.
        pub resource_type: String,
        /// The tags.
        pub tags: Vec<Tag>,
    }
}

request! {
    /// `Filter`: values are alternatives, several filters must all match.
    pub struct Filter {
        /// Its name.
        pub name: String,
        /// Values, with `*` and `?`.
        pub values: Vec<String>,
    }
}

impl TagSpecification {
    /// Tags for one type.
    #[must_use]
    pub fn new<K: Into<String>, V: Into<String>>(
        resource_type: &str,
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self {
            resource_type: resource_type.to_owned(),
            tags: tags
                .into_iter()
                .map(|(key, value)| Tag {
                    key: key.into(),
                    value: value.into(),
                })
                .collect(),
        }
    }
}
