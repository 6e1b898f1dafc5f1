//! `DescribeInstances`.

use super::super::check::{Api, dry_run, instance_id, no_instance};
use super::super::filter::{check, page, passes};
use super::super::request::request;
use super::super::{Caller, Filter, HttpTokens, Instance, InstanceState, State};
use super::{
    ProductCodeDescription, StateReasonDescription, TagDescription, maybe, one, product_codes,
    shape, state_reason, tags, time,
};
use crate::{Firmware, InstanceId};

request! {
    /// `DescribeInstances`.
    pub struct DescribeInstancesRequest {
        /// These.
        pub instance_ids: Vec<String>,
        /// That pass all of these.
        pub filters: Vec<Filter>,
        /// Most instances of an answer.
        pub max_results: Option<u32>,
        /// Where the answer before ended.
        pub next_token: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

shape! {
    /// `EbsInstanceBlockDevice`.
    pub struct EbsInstanceDescription {
        /// Since when.
        pub attach_time: String,
        /// Whether the volume goes with the instance.
        pub delete_on_termination: bool,
        /// `attached`.
        pub status: String,
        /// The volume.
        pub volume_id: String,
    }
}

shape! {
    /// `InstanceBlockDeviceMapping`.
    pub struct InstanceMappingDescription {
        /// The device name.
        pub device_name: String,
        /// The volume.
        pub ebs: EbsInstanceDescription,
    }
}

shape! {
    /// `InstanceState`.
    pub struct InstanceStateDescription {
        /// Its number.
        pub code: u32,
        /// Its name.
        pub name: String,
    }
}

shape! {
    /// `InstancePrivateIpAddress`.
    pub struct PrivateIpDescription {
        /// Whether it is the first one.
        pub primary: bool,
        /// Name of the address.
        pub private_dns_name: String,
        /// The address.
        pub private_ip_address: String,
    }
}

shape! {
    /// `InstanceNetworkInterface`.
    pub struct NetworkInterfaceDescription {
        /// Empty.
        pub description: String,
        /// Hardware address.
        pub mac_address: String,
        /// Its id, of the digits of the instance's.
        pub network_interface_id: String,
        /// The owner.
        pub owner_id: String,
        /// Name of the address.
        pub private_dns_name: String,
        /// The address.
        pub private_ip_address: String,
        /// The addresses.
        pub private_ip_addresses: Vec<PrivateIpDescription>,
        /// Always true.
        pub source_dest_check: bool,
        /// `in-use`.
        pub status: String,
        /// `interface`.
        pub interface_type: String,
    }
}

shape! {
    /// `CpuOptions`.
    pub struct CpuOptionsDescription {
        /// Cores.
        pub core_count: u32,
        /// Always 1: QEMU gives each virtual processor its core.
        pub threads_per_core: u32,
    }
}

shape! {
    /// `InstanceMetadataOptionsResponse`.
    pub struct MetadataOptionsDescription {
        /// `applied`.
        pub state: String,
        /// `optional` or `required`.
        pub http_tokens: String,
        /// 1 to 64.
        pub http_put_response_hop_limit: u32,
        /// `enabled` or `disabled`.
        pub http_endpoint: String,
        /// `disabled`.
        pub http_protocol_ipv6: String,
        /// `enabled` or `disabled`.
        pub instance_metadata_tags: String,
    }
}

shape! {
    /// `Placement`.
    pub struct PlacementDescription {
        /// Empty.
        pub group_name: String,
        /// `default`.
        pub tenancy: String,
        /// The zone.
        pub availability_zone: String,
    }
}

shape! {
    /// `Monitoring`.
    pub struct MonitoringDescription {
        /// `disabled`.
        pub state: String,
    }
}

shape! {
    /// `Instance`.
    pub struct InstanceDescription {
        /// `x86_64` or `arm64`.
        pub architecture: String,
        /// Its volumes.
        pub block_device_mappings: Vec<InstanceMappingDescription>,
        /// Client token of its launch.
        pub client_token: String,
        /// Always false.
        pub ebs_optimized: bool,
        /// Enhanced networking.
        pub ena_support: bool,
        /// Always `xen`, as on AWS.
        pub hypervisor: String,
        /// Its interface.
        pub network_interfaces: Vec<NetworkInterfaceDescription>,
        /// The root.
        pub root_device_name: String,
        /// `ebs` or `instance-store`.
        pub root_device_type: String,
        /// None.
        pub security_groups: Vec<String>,
        /// Always true.
        pub source_dest_check: bool,
        /// Why it is in its state.
        pub state_reason: StateReasonDescription,
        /// Tags.
        pub tags: Vec<TagDescription>,
        /// Always `hvm`.
        pub virtualization_type: String,
        /// Its processors.
        pub cpu_options: CpuOptionsDescription,
        /// Options of the metadata service.
        pub metadata_options: MetadataOptionsDescription,
        /// Boot mode of its image.
        pub boot_mode: String,
        /// For example `Linux/UNIX`.
        pub platform_details: String,
        /// For example `RunInstances`.
        pub usage_operation: String,
        /// `v2.0`.
        pub tpm_support: String,
        /// `legacy-bios` or `uefi`.
        pub current_instance_boot_mode: String,
        /// Its id.
        pub instance_id: String,
        /// The image.
        pub image_id: String,
        /// The state.
        pub state: InstanceStateDescription,
        /// Name of its private address.
        pub private_dns_name: String,
        /// Empty.
        pub public_dns_name: String,
        /// Why it is in its state, as a text.
        pub state_transition_reason: String,
        /// Name of the key pair.
        pub key_name: String,
        /// Its number in its reservation.
        pub ami_launch_index: u32,
        /// Codes of the marketplace.
        pub product_codes: Vec<ProductCodeDescription>,
        /// For example `t3.micro`.
        pub instance_type: String,
        /// When it was started last.
        pub launch_time: String,
        /// Where it runs.
        pub placement: PlacementDescription,
        /// Monitoring.
        pub monitoring: MonitoringDescription,
        /// Its private address.
        pub private_ip_address: String,
    }
}

shape! {
    /// `Reservation`.
    pub struct ReservationDescription {
        /// Its id.
        pub reservation_id: String,
        /// The owner.
        pub owner_id: String,
        /// None.
        pub groups: Vec<String>,
        /// Its instances.
        pub instances: Vec<InstanceDescription>,
    }
}

shape! {
    /// The answer of `DescribeInstances`.
    pub struct DescribeInstancesResult {
        /// Where it ended, when there is more.
        pub next_token: String,
        /// By id of their first instance.
        pub reservations: Vec<ReservationDescription>,
    }
}

impl Instance {
    /// The name of its private address, as EC2 makes it.
    #[must_use]
    pub fn private_dns_name(&self) -> String {
        let host = format!("ip-{}", self.private_ip.replace('.', "-"));
        match self.region.as_str() {
            "us-east-1" => format!("{host}.ec2.internal"),
            region => format!("{host}.{region}.compute.internal"),
        }
    }

    /// The id of its network interface: of the digits of its own id.
    #[must_use]
    pub fn network_interface_id(&self) -> String {
        format!("eni-{}", self.instance_id.digits())
    }
}

fn switch(on: bool) -> Option<String> {
    Some(if on { "enabled" } else { "disabled" }.to_owned())
}

const fn tokens(instance: &Instance) -> &'static str {
    match instance.metadata_options.http_tokens {
        HttpTokens::Optional => "optional",
        HttpTokens::Required => "required",
    }
}

const fn current_boot_mode(instance: &Instance) -> &'static str {
    match instance.firmware {
        Firmware::Bios => "legacy-bios",
        Firmware::Uefi => "uefi",
    }
}

impl State {
    /// `DescribeInstances` of the caller, by reservation; terminated ones too, for an hour.
    /// `InvalidInstanceID.NotFound` for an id that is not there.
    pub fn describe_instances(
        &self,
        caller: &Caller,
        request: &DescribeInstancesRequest,
    ) -> Api<DescribeInstancesResult> {
        let ids: Vec<InstanceId> = request
            .instance_ids
            .iter()
            .map(|t| instance_id(t))
            .collect::<Api<_>>()?;
        check(&request.filters, INSTANCE_FILTERS)?;
        dry_run(request.dry_run)?;
        for id in &ids {
            self.own_instance(caller, id)
                .map_err(|_| no_instance(id.as_str()))?;
        }
        let mut found = Vec::new();
        for instance in self.instances.values() {
            if self.own_instance(caller, &instance.instance_id).is_err()
                || (!ids.is_empty() && !ids.contains(&instance.instance_id))
            {
                continue;
            }
            if passes(&request.filters, &instance.tags, |name| {
                self.instance_filter(instance, name)
            })? {
                found.push(instance);
            }
        }
        let (found, next_token) = page(
            found,
            |i| i.instance_id.as_str(),
            request.max_results,
            request.next_token.as_deref(),
        )?;
        let mut reservations: Vec<ReservationDescription> = Vec::new();
        for instance in found {
            let id = instance.reservation_id.to_string();
            let described = self.describe_instance(instance);
            match reservations
                .iter_mut()
                .find(|r| r.reservation_id.as_deref() == Some(&id))
            {
                Some(reservation) => reservation
                    .instances
                    .get_or_insert_default()
                    .push(described),
                None => reservations.push(ReservationDescription {
                    reservation_id: Some(id),
                    owner_id: Some(instance.owner.to_string()),
                    groups: Some(Vec::new()),
                    instances: Some(vec![described]),
                }),
            }
        }
        for reservation in &mut reservations {
            if let Some(instances) = &mut reservation.instances {
                instances.sort_by_key(|i| i.ami_launch_index);
            }
        }
        Ok(DescribeInstancesResult {
            next_token,
            reservations: Some(reservations),
        })
    }

    /// An instance.
    #[must_use]
    pub fn describe_instance(&self, instance: &Instance) -> InstanceDescription {
        let gone = instance.state == InstanceState::Terminated;
        let options = &instance.metadata_options;
        let address = (!gone).then(|| instance.private_ip.clone());
        let dns = Some(if gone {
            String::new()
        } else {
            instance.private_dns_name()
        });
        InstanceDescription {
            architecture: Some(instance.architecture.to_string()),
            block_device_mappings: Some(
                instance
                    .volumes
                    .iter()
                    .filter_map(|attached| self.volumes.get(&attached.volume_id))
                    .filter_map(|volume| {
                        let attachment = volume.attachment.as_ref()?;
                        Some(InstanceMappingDescription {
                            device_name: Some(attachment.device.to_string()),
                            ebs: Some(EbsInstanceDescription {
                                attach_time: Some(time(volume.attached_since(attachment))),
                                delete_on_termination: Some(attachment.delete_on_termination),
                                status: Some("attached".to_owned()),
                                volume_id: Some(volume.volume_id.to_string()),
                            }),
                        })
                    })
                    .collect(),
            ),
            client_token: Some(instance.client_token.clone().unwrap_or_default()),
            ebs_optimized: Some(false),
            ena_support: Some(instance.ena_support),
            hypervisor: Some("xen".to_owned()),
            network_interfaces: Some(if gone {
                Vec::new()
            } else {
                vec![interface(instance)]
            }),
            root_device_name: Some(instance.root_device_name.to_string()),
            root_device_type: Some(instance.root_device_type.as_str().to_owned()),
            security_groups: Some(Vec::new()),
            source_dest_check: (!gone).then_some(true),
            state_reason: state_reason(instance.state_reason.as_ref()),
            tags: tags(Some(&instance.tags)),
            virtualization_type: Some("hvm".to_owned()),
            cpu_options: Some(CpuOptionsDescription {
                core_count: Some(instance.cpus),
                threads_per_core: Some(1),
            }),
            metadata_options: Some(MetadataOptionsDescription {
                state: Some("applied".to_owned()),
                http_tokens: Some(tokens(instance).to_owned()),
                http_put_response_hop_limit: Some(options.http_put_response_hop_limit.into()),
                http_endpoint: switch(options.http_endpoint),
                http_protocol_ipv6: switch(false),
                instance_metadata_tags: switch(options.instance_metadata_tags),
            }),
            boot_mode: instance.boot_mode.map(|m| m.to_string()),
            platform_details: Some(instance.platform_details.clone()),
            usage_operation: Some(instance.usage_operation.clone()),
            tpm_support: instance.tpm_support.map(|_| "v2.0".to_owned()),
            current_instance_boot_mode: Some(current_boot_mode(instance).to_owned()),
            instance_id: Some(instance.instance_id.to_string()),
            image_id: Some(instance.image_id.to_string()),
            state: Some(InstanceStateDescription {
                code: Some(instance.state.code()),
                name: Some(instance.state.as_str().to_owned()),
            }),
            private_dns_name: dns,
            public_dns_name: Some(String::new()),
            state_transition_reason: Some(instance.state_transition_reason.clone()),
            key_name: instance.key_name.clone(),
            ami_launch_index: Some(instance.ami_launch_index),
            product_codes: Some(product_codes(&instance.product_codes)),
            instance_type: Some(instance.instance_type.clone()),
            launch_time: Some(time(instance.launch_time)),
            placement: Some(PlacementDescription {
                group_name: Some(String::new()),
                tenancy: Some("default".to_owned()),
                availability_zone: Some(instance.availability_zone.clone()),
            }),
            monitoring: Some(MonitoringDescription {
                state: Some("disabled".to_owned()),
            }),
            private_ip_address: address,
        }
    }

    fn instance_filter(&self, instance: &Instance, name: &str) -> Option<Vec<String>> {
        let attachments = || {
            instance
                .volumes
                .iter()
                .filter_map(|v| self.volumes.get(&v.volume_id))
                .filter_map(|v| Some((v, v.attachment.as_ref()?)))
        };
        match name {
            "architecture" => one(instance.architecture),
            "availability-zone" => one(&instance.availability_zone),
            "block-device-mapping.attach-time" => Some(
                attachments()
                    .map(|(v, _)| v.create_time.to_string())
                    .collect(),
            ),
            "block-device-mapping.delete-on-termination" => Some(
                attachments()
                    .map(|(_, a)| a.delete_on_termination.to_string())
                    .collect(),
            ),
            "block-device-mapping.device-name" => Some(
                instance
                    .volumes
                    .iter()
                    .map(|v| v.device.to_string())
                    .collect(),
            ),
            "block-device-mapping.status" => {
                Some(attachments().map(|_| "attached".to_owned()).collect())
            }
            "block-device-mapping.volume-id" => Some(
                instance
                    .volumes
                    .iter()
                    .map(|v| v.volume_id.to_string())
                    .collect(),
            ),
            "boot-mode" => maybe(instance.boot_mode),
            "client-token" => maybe(instance.client_token.as_ref()),
            "current-instance-boot-mode" => one(current_boot_mode(instance)),
            "hypervisor" => one("xen"),
            "image-id" => one(&instance.image_id),
            "instance-id" => one(&instance.instance_id),
            "instance-state-code" => one(instance.state.code()),
            "instance-state-name" => one(instance.state.as_str()),
            "instance-type" => one(&instance.instance_type),
            "key-name" => maybe(instance.key_name.as_ref()),
            "launch-index" => one(instance.ami_launch_index),
            "launch-time" => one(instance.launch_time),
            "metadata-options.http-tokens" => one(tokens(instance)),
            "owner-id" => one(&instance.owner),
            "platform-details" => one(&instance.platform_details),
            "private-dns-name" => one(instance.private_dns_name()),
            "private-ip-address" => one(&instance.private_ip),
            "product-code" => Some(instance.product_codes.clone()),
            "reason" => one(&instance.state_transition_reason),
            "reservation-id" => one(&instance.reservation_id),
            "root-device-name" => one(&instance.root_device_name),
            "root-device-type" => one(instance.root_device_type.as_str()),
            "state-reason-code" => maybe(instance.state_reason.as_ref().map(|r| &r.code)),
            "usage-operation" => one(&instance.usage_operation),
            "virtualization-type" => one("hvm"),
            _ => None,
        }
    }
}

fn interface(instance: &Instance) -> NetworkInterfaceDescription {
    NetworkInterfaceDescription {
        description: Some(String::new()),
        mac_address: Some(instance.mac.clone()),
        network_interface_id: Some(instance.network_interface_id()),
        owner_id: Some(instance.owner.to_string()),
        private_dns_name: Some(instance.private_dns_name()),
        private_ip_address: Some(instance.private_ip.clone()),
        private_ip_addresses: Some(vec![PrivateIpDescription {
            primary: Some(true),
            private_dns_name: Some(instance.private_dns_name()),
            private_ip_address: Some(instance.private_ip.clone()),
        }]),
        source_dest_check: Some(true),
        status: Some("in-use".to_owned()),
        interface_type: Some("interface".to_owned()),
    }
}

pub(in super::super) const INSTANCE_FILTERS: &[&str] = &[
    "architecture",
    "availability-zone",
    "block-device-mapping.attach-time",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.status",
    "block-device-mapping.volume-id",
    "boot-mode",
    "client-token",
    "current-instance-boot-mode",
    "hypervisor",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "key-name",
    "launch-index",
    "launch-time",
    "metadata-options.http-tokens",
    "owner-id",
    "platform-details",
    "private-dns-name",
    "private-ip-address",
    "product-code",
    "reason",
    "reservation-id",
    "root-device-name",
    "root-device-type",
    "state-reason-code",
    "usage-operation",
    "virtualization-type",
];
