//! The requests that calls of EC2 are to IAM: one for each resource, with the condition keys that EC2 fills.
//!
//! Source: Service Authorization Reference, Amazon EC2; EC2 user guide, `iam-policies-for-amazon-ec2`, `ExamplePolicies_EC2`.

use std::collections::BTreeMap;

use amiforge_types::{Digest, Timestamp};

use super::context::{Principal, Request};
use crate::ec2::{
    AccountId, HttpTokens, Image, Instance, MetadataOptions, Region, RootDevice, Snapshot, Tags,
};
use crate::{BlockDeviceMapping, EbsVolume, ImageId, SnapshotId};

/// The network that instances are in here: ids that follow from account, region and zone, the same that the metadata service tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// `vpc-…`
    pub vpc: String,
    /// `subnet-…`
    pub subnet: String,
    /// `sg-…`
    pub security_group: String,
}

impl LocalNetwork {
    /// The network of an account in the first zone of a region.
    #[must_use]
    pub fn of(account: &AccountId, region: &Region) -> Self {
        Self::in_zone(account, region, &region.zone())
    }

    /// The network of an account in a zone.
    #[must_use]
    pub fn in_zone(account: &AccountId, region: &Region, zone: &str) -> Self {
        let id = |prefix: &str, of: &str| {
            let text = format!("{prefix} {account} {region} {of}");
            format!("{prefix}-{}", &Digest::of(text.as_bytes()).hex()[..17])
        };
        Self {
            vpc: id("vpc", "default"),
            subnet: id("subnet", zone),
            security_group: id("sg", "default"),
        }
    }
}

/// What an instance is wished to be, as far as policies can ask for it.
#[derive(Clone, Debug)]
pub struct LaunchWishes<'a> {
    /// For example `t3.micro`.
    pub instance_type: &'a str,
    /// The zone.
    pub availability_zone: &'a str,
    /// Name of the key pair.
    pub key_name: Option<&'a str>,
    /// The metadata options that it will have.
    pub metadata_options: &'a MetadataOptions,
    /// Its block device mappings: those of the image with the overrides laid over.
    pub mappings: &'a [BlockDeviceMapping],
    /// Whether a volume without a wish is encrypted: the account's setting for the region.
    pub encryption_by_default: bool,
    /// Whether ports of the host lead into it, which is what a public address is here.
    pub public_address: bool,
    /// The network it will be in.
    pub network: &'a LocalNetwork,
}

/// Tags that the request gives to what it makes.
#[derive(Clone, Debug, Default)]
pub struct LaunchTags {
    /// To the instance.
    pub instance: Tags,
    /// To each volume.
    pub volume: Tags,
    /// To the network interface.
    pub network_interface: Tags,
}

/// The ARN of an image; images belong to no account there.
#[must_use]
pub fn image_arn(region: &Region, image: &ImageId) -> String {
    format!("arn:aws:ec2:{region}::image/{image}")
}

/// The ARN of a snapshot; snapshots belong to no account there.
#[must_use]
pub fn snapshot_arn(region: &Region, snapshot: &SnapshotId) -> String {
    format!("arn:aws:ec2:{region}::snapshot/{snapshot}")
}

/// What makes requests of one call.
struct Maker<'a> {
    principal: &'a Principal,
    region: &'a Region,
    now: Timestamp,
    action: &'a str,
}

impl Maker<'_> {
    fn request(&self, action: &str, resource: String) -> Request {
        let mut request = Request::new(self.principal, action, resource);
        let context = &mut request.context;
        context.set("ec2:Region", [self.region.as_str()]);
        context.set("aws:RequestedRegion", [self.region.as_str()]);
        context.set_time(self.now);
        request
    }

    /// A resource of the account that asks.
    fn own(&self, kind: &str, id: &str) -> Request {
        let Self {
            region, principal, ..
        } = self;
        let arn = format!("arn:aws:ec2:{region}:{}:{kind}/{id}", principal.account);
        let mut request = self.request(self.action, arn);
        request
            .context
            .set("aws:ResourceAccount", [principal.account.as_str()]);
        request
    }

    /// An image that is there.
    fn image(&self, image: &Image) -> Request {
        let mut request = self.request(self.action, image_arn(&image.region, &image.image_id));
        let context = &mut request.context;
        context.set("ec2:ImageID", [image.image_id.as_str()]);
        context.set("ec2:ImageType", ["machine"]);
        context.set("ec2:Owner", [image.owner.as_str()]);
        context.set("aws:ResourceAccount", [image.owner.as_str()]);
        context.set("ec2:Public", [image.is_public().to_string()]);
        context.set("ec2:RootDeviceType", [root_device(image.root_device_type)]);
        if !image.product_codes.is_empty() {
            context.set("ec2:ProductCode", image.product_codes.iter().cloned());
        }
        self.tags_seen(&mut request, image.tags_seen_by(&self.principal.account));
        request
    }

    /// An image that the call makes: it has neither id nor tags yet.
    fn new_image(&self, root: RootDevice, tags: &Tags) -> Request {
        let mut request =
            self.request(self.action, format!("arn:aws:ec2:{}::image/*", self.region));
        let context = &mut request.context;
        context.set("ec2:ImageType", ["machine"]);
        context.set("ec2:Owner", [self.principal.account.as_str()]);
        context.set("aws:ResourceAccount", [self.principal.account.as_str()]);
        context.set("ec2:Public", ["false"]);
        context.set("ec2:RootDeviceType", [root_device(root)]);
        self.tags_asked(&mut request, tags);
        request
    }

    /// A snapshot that is there.
    fn snapshot(&self, snapshot: &Snapshot) -> Request {
        let arn = snapshot_arn(&snapshot.region, &snapshot.snapshot_id);
        let mut request = self.request(self.action, arn);
        let context = &mut request.context;
        context.set("ec2:SnapshotID", [snapshot.snapshot_id.as_str()]);
        context.set("ec2:Owner", [snapshot.owner.as_str()]);
        context.set("aws:ResourceAccount", [snapshot.owner.as_str()]);
        context.set("ec2:Encrypted", [snapshot.encryption.is_some().to_string()]);
        context.set("ec2:VolumeSize", [snapshot.volume_size.to_string()]);
        context.set("ec2:SnapshotTime", [snapshot.start_time.to_string()]);
        if let Some(volume) = &snapshot.volume_id {
            context.set(
                "ec2:ParentVolume",
                [format!(
                    "arn:aws:ec2:{}:{}:volume/{volume}",
                    snapshot.region, snapshot.owner
                )],
            );
        }
        self.tags_seen(&mut request, snapshot.tags_seen_by(&self.principal.account));
        request
    }

    /// Tags of what is there, as the account sees them: of another account's, only those that it gave itself.
    fn tags_seen(&self, request: &mut Request, tags: Option<&Tags>) {
        if let Some(tags) = tags {
            request.context.add_tags("ec2:ResourceTag", tags);
            request.context.add_tags("aws:ResourceTag", tags);
        }
    }

    /// Tags of what is being made.
    fn tags_asked(&self, request: &mut Request, tags: &Tags) {
        request.context.add_tags("aws:RequestTag", tags);
        request.context.set("aws:TagKeys", tags.keys().cloned());
    }

    /// `ec2:CreateTags` on each thing that the call makes and tags.
    fn tagging(&self, requests: &mut Vec<Request>) {
        let operation = self.action.split_once(':').map_or(self.action, |(_, o)| o);
        let tagged: Vec<Request> = requests
            .iter()
            .filter(|r| r.context.get("aws:TagKeys").is_some())
            .map(|r| {
                let mut request = r.clone();
                "ec2:CreateTags".clone_into(&mut request.action);
                request.context.set("ec2:CreateAction", [operation]);
                request
            })
            .collect();
        requests.extend(tagged);
    }
}

const fn root_device(root: RootDevice) -> &'static str {
    match root {
        RootDevice::Ebs => "ebs",
        RootDevice::InstanceStore => "instance-store",
    }
}

/// The requests of `RunInstances`, all of which must be allowed: the image, the snapshots it needs, the instance, its volumes, network
/// interface, subnet, security group and key pair, and `ec2:CreateTags` on what the request tags. `snapshots` holds those that the
/// mappings name; one that is not there makes no request.
#[must_use]
pub fn launch_requests(
    principal: &Principal,
    region: &Region,
    image: &Image,
    snapshots: &BTreeMap<SnapshotId, Snapshot>,
    wishes: &LaunchWishes<'_>,
    tags: &LaunchTags,
    now: Timestamp,
) -> Vec<Request> {
    let maker = Maker {
        principal,
        region,
        now,
        action: "ec2:RunInstances",
    };
    let mut requests = vec![maker.image(image)];
    let ebs = || {
        wishes
            .mappings
            .iter()
            .filter_map(BlockDeviceMapping::as_ebs)
    };
    let mut named: Vec<&SnapshotId> = ebs().filter_map(|v| v.snapshot_id.as_ref()).collect();
    named.sort_unstable();
    named.dedup();
    requests.extend(
        named
            .iter()
            .filter_map(|id| snapshots.get(id))
            .map(|s| maker.snapshot(s)),
    );
    requests.push(instance_request(&maker, image, wishes, &tags.instance));
    for volume in ebs() {
        let mut request = volume_request(&maker, wishes, volume, snapshots);
        maker.tags_asked(&mut request, &tags.volume);
        requests.push(request);
    }
    let network = wishes.network;
    let vpc = format!(
        "arn:aws:ec2:{region}:{}:vpc/{}",
        principal.account, network.vpc
    );
    let subnet = format!(
        "arn:aws:ec2:{region}:{}:subnet/{}",
        principal.account, network.subnet
    );
    for (kind, id) in [
        ("network-interface", "*"),
        ("subnet", network.subnet.as_str()),
        ("security-group", network.security_group.as_str()),
    ] {
        let mut request = maker.own(kind, id);
        let context = &mut request.context;
        context.set("ec2:Vpc", [vpc.as_str()]);
        match kind {
            "network-interface" => {
                context.set("ec2:AvailabilityZone", [wishes.availability_zone]);
                context.set("ec2:Subnet", [subnet.as_str()]);
                context.set(
                    "ec2:AssociatePublicIpAddress",
                    [wishes.public_address.to_string()],
                );
                maker.tags_asked(&mut request, &tags.network_interface);
            }
            "subnet" => {
                context.set("ec2:AvailabilityZone", [wishes.availability_zone]);
                context.set("ec2:SubnetID", [id]);
            }
            _ => context.set("ec2:SecurityGroupID", [id]),
        }
        requests.push(request);
    }
    if let Some(name) = wishes.key_name {
        let mut request = maker.own("key-pair", name);
        request.context.set("ec2:KeyPairName", [name]);
        requests.push(request);
    }
    for request in &mut requests {
        request
            .context
            .set("ec2:IsLaunchTemplateResource", ["false"]);
    }
    maker.tagging(&mut requests);
    requests
}

fn instance_request(
    maker: &Maker<'_>,
    image: &Image,
    wishes: &LaunchWishes<'_>,
    tags: &Tags,
) -> Request {
    let mut request = maker.own("instance", "*");
    let context = &mut request.context;
    context.set("ec2:InstanceType", [wishes.instance_type]);
    context.set("ec2:AvailabilityZone", [wishes.availability_zone]);
    context.set("ec2:RootDeviceType", [root_device(image.root_device_type)]);
    context.set("ec2:Tenancy", ["default"]);
    context.set("ec2:InstanceMarketType", ["on-demand"]);
    context.set("ec2:EbsOptimized", ["false"]);
    let options = wishes.metadata_options;
    let endpoint = if options.http_endpoint {
        "enabled"
    } else {
        "disabled"
    };
    context.set("ec2:MetadataHttpEndpoint", [endpoint]);
    let tokens = match options.http_tokens {
        HttpTokens::Required => "required",
        HttpTokens::Optional => "optional",
    };
    context.set("ec2:MetadataHttpTokens", [tokens]);
    let hops = options.http_put_response_hop_limit.to_string();
    context.set("ec2:MetadataHttpPutResponseHopLimit", [hops]);
    let seen = if options.instance_metadata_tags {
        "enabled"
    } else {
        "disabled"
    };
    context.set("ec2:InstanceMetadataTags", [seen]);
    maker.tags_asked(&mut request, tags);
    request
}

fn volume_request(
    maker: &Maker<'_>,
    wishes: &LaunchWishes<'_>,
    volume: &EbsVolume,
    snapshots: &BTreeMap<SnapshotId, Snapshot>,
) -> Request {
    let mut request = maker.own("volume", "*");
    let context = &mut request.context;
    context.set("ec2:AvailabilityZone", [wishes.availability_zone]);
    context.set("ec2:VolumeSize", [volume.volume_size.to_string()]);
    context.set("ec2:VolumeType", [volume.volume_type.as_str()]);
    if let Some(iops) = volume.iops {
        context.set("ec2:VolumeIops", [iops.to_string()]);
    }
    if let Some(throughput) = volume.throughput {
        context.set("ec2:VolumeThroughput", [throughput.to_string()]);
    }
    let snapshot = volume.snapshot_id.as_ref();
    // A volume of an encrypted snapshot is encrypted whatever is wished.
    let encrypted = snapshot
        .and_then(|id| snapshots.get(id))
        .is_some_and(|s| s.encryption.is_some())
        || volume.encrypted.unwrap_or(wishes.encryption_by_default);
    context.set("ec2:Encrypted", [encrypted.to_string()]);
    if let Some(key) = &volume.kms_key_id {
        context.set("ec2:KmsKeyId", [key.as_str()]);
    }
    if let Some(id) = snapshot {
        let region = snapshots.get(id).map_or(maker.region, |s| &s.region);
        context.set("ec2:ParentSnapshot", [snapshot_arn(region, id)]);
    }
    request
}

/// A call of an image's life.
#[derive(Clone, Debug)]
pub enum ImageCall<'a> {
    /// One on an image that is there: `DeregisterImage` (with the snapshots that go along), `ModifyImageAttribute`, `DisableImage`,
    /// `EnableImage`, `EnableImageDeprecation` and their like.
    On {
        /// The operation, without `ec2:`.
        operation: &'a str,
        /// The image.
        image: &'a Image,
        /// Snapshots that it deletes.
        snapshots: Vec<&'a Snapshot>,
    },
    /// `CreateTags` or `DeleteTags` on an image.
    Tag {
        /// The operation, without `ec2:`.
        operation: &'a str,
        /// The image.
        image: &'a Image,
        /// The tags.
        tags: &'a Tags,
    },
    /// `CreateImage`.
    Create {
        /// The instance that it is made of.
        instance: &'a Instance,
        /// How many volumes are snapshotted.
        volumes: usize,
        /// Tags of the image.
        image_tags: &'a Tags,
        /// Tags of the snapshots.
        snapshot_tags: &'a Tags,
    },
    /// `CopyImage`, asked for in the region that it goes to.
    Copy {
        /// The image that is copied.
        source: &'a Image,
        /// Its snapshots.
        snapshots: Vec<&'a Snapshot>,
        /// Tags of the copy.
        image_tags: &'a Tags,
        /// Tags of its snapshots.
        snapshot_tags: &'a Tags,
    },
    /// `RegisterImage`.
    Register {
        /// The snapshots that it names; none of an instance-store image.
        snapshots: Vec<&'a Snapshot>,
        /// Where its root comes from.
        root: RootDevice,
        /// Tags of the image.
        image_tags: &'a Tags,
    },
}

/// The requests of a call of an image's life, all of which must be allowed. An image that a call makes has no `ec2:ImageID` yet.
#[must_use]
pub fn image_requests(
    principal: &Principal,
    region: &Region,
    call: &ImageCall<'_>,
    now: Timestamp,
) -> Vec<Request> {
    let action = match call {
        ImageCall::On { operation, .. } | ImageCall::Tag { operation, .. } => {
            format!("ec2:{operation}")
        }
        ImageCall::Create { .. } => "ec2:CreateImage".to_owned(),
        ImageCall::Copy { .. } => "ec2:CopyImage".to_owned(),
        ImageCall::Register { .. } => "ec2:RegisterImage".to_owned(),
    };
    let maker = Maker {
        principal,
        region,
        now,
        action: &action,
    };
    let new_snapshot = |tags: &Tags| {
        let mut request = maker.request(&action, format!("arn:aws:ec2:{region}::snapshot/*"));
        request
            .context
            .set("ec2:Owner", [principal.account.as_str()]);
        request
            .context
            .set("aws:ResourceAccount", [principal.account.as_str()]);
        maker.tags_asked(&mut request, tags);
        request
    };
    match call {
        ImageCall::On {
            image, snapshots, ..
        } => {
            let mut requests = vec![maker.image(image)];
            requests.extend(snapshots.iter().map(|s| maker.snapshot(s)));
            requests
        }
        ImageCall::Tag { image, tags, .. } => {
            let mut request = maker.image(image);
            maker.tags_asked(&mut request, tags);
            vec![request]
        }
        ImageCall::Create {
            instance,
            volumes,
            image_tags,
            snapshot_tags,
        } => {
            let mut made = vec![maker.new_image(instance.root_device_type, image_tags)];
            made.extend((*volumes > 0).then(|| new_snapshot(snapshot_tags)));
            maker.tagging(&mut made);
            let mut source = maker.own("instance", instance.instance_id.as_str());
            source
                .context
                .set("ec2:InstanceID", [instance.instance_id.as_str()]);
            source
                .context
                .set("ec2:InstanceType", [instance.instance_type.as_str()]);
            source.context.set(
                "ec2:AvailabilityZone",
                [instance.availability_zone.as_str()],
            );
            source.context.set(
                "ec2:RootDeviceType",
                [root_device(instance.root_device_type)],
            );
            let own = instance.owner == principal.account;
            maker.tags_seen(&mut source, own.then_some(&instance.tags));
            made.insert(0, source);
            made
        }
        ImageCall::Copy {
            source,
            snapshots,
            image_tags,
            snapshot_tags,
        } => {
            let mut made = vec![maker.new_image(source.root_device_type, image_tags)];
            made.extend((!snapshots.is_empty()).then(|| new_snapshot(snapshot_tags)));
            maker.tagging(&mut made);
            let mut requests = vec![maker.image(source)];
            // The id of the source cannot be asked for in `CopyImage`.
            requests[0].context.set("ec2:ImageID", None::<String>);
            requests.extend(snapshots.iter().map(|s| maker.snapshot(s)));
            requests.extend(made);
            requests
        }
        ImageCall::Register {
            snapshots,
            root,
            image_tags,
        } => {
            let mut made = vec![maker.new_image(*root, image_tags)];
            maker.tagging(&mut made);
            let mut requests: Vec<Request> = snapshots.iter().map(|s| maker.snapshot(s)).collect();
            requests.extend(made);
            requests
        }
    }
}
