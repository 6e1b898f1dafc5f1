//! Each rule of the service, its tree crawled, and HTTP from the outside.

mod http;
mod service;
mod tree;

use amiforge_ami::ec2::{
    AccountId, EphemeralVolume, HttpTokens, Instance, InstanceState, InstanceVolume,
    MetadataOptions, Region, RootDevice,
};
use amiforge_ami::{CreationDate, Firmware, VirtualName};
use amiforge_types::{Arch, Timestamp};

use super::Metadata;

/// An instance with everything that has a place in the metadata.
fn instance() -> Instance {
    let device = |name: &str| name.parse().unwrap();
    let volume = |name: &str, id: &str| InstanceVolume {
        device: device(name),
        volume_id: id.parse().unwrap(),
    };
    Instance {
        ami_launch_index: 0,
        ran: true,
        disable_api_termination: false,
        shutdown_behavior: amiforge_ami::ec2::ShutdownBehavior::Stop,
        ena_support: true,
        tpm_support: None,
        platform_details: "Linux/UNIX".to_owned(),
        usage_operation: "RunInstances".to_owned(),
        product_codes: Vec::new(),
        client_token: None,
        client_request: None,
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        reservation_id: "r-0123456789abcdef0".parse().unwrap(),
        owner: AccountId::local(),
        region: Region::local(),
        availability_zone: "us-east-1a".into(),
        image_id: "ami-0123456789abcdef0".parse().unwrap(),
        instance_type: "t3.micro".into(),
        cpus: 2,
        memory_mib: 1024,
        architecture: Arch::X86_64,
        firmware: Firmware::Bios,
        boot_mode: None,
        state: InstanceState::Running,
        state_transition_reason: String::new(),
        state_reason: None,
        launch_time: CreationDate::new(Timestamp::from_secs(1_790_000_000)),
        terminated: None,
        root_device_type: RootDevice::Ebs,
        root_device_name: device("/dev/xvda"),
        volumes: vec![
            volume("/dev/xvda", "vol-0123456789abcdef0"),
            volume("/dev/sdf", "vol-0123456789abcdef1"),
        ],
        ephemeral: vec![EphemeralVolume {
            device: device("/dev/sdb"),
            virtual_name: VirtualName::new(0).unwrap(),
            size: 1,
        }],
        key_name: Some("my key".into()),
        public_key: Some("ssh-ed25519 AAAAC3Nza me@here\n".into()),
        user_data: Some("IyEvYmluL3NoCmVjaG8gaGkKAP8=".into()),
        metadata_options: MetadataOptions {
            http_endpoint: true,
            http_tokens: HttpTokens::Required,
            http_put_response_hop_limit: 1,
            instance_metadata_tags: true,
        },
        mac: "02:AB:cd:00:00:01".into(),
        private_ip: "169.255.16.10".into(),
        ports: Vec::new(),
        outbound: true,
        tags: [("Name", "web"), ("cost center", "12/3 ü")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    }
}

fn metadata() -> Metadata {
    Metadata::of(&instance(), None).unwrap()
}
