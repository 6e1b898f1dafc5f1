//! The command line of instances, images, snapshots, keys and policies.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Whose, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// The account that asks, 12 digits [default: AMIFORGE_ACCOUNT, else 123456789012]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// The region that is asked [default: AMIFORGE_REGION, else us-east-1]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// Print as JSON, in the shape of the API where it has one.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Only say whether the request would be granted.
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
}

/// Answers of the metadata service without a session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokensArg {
    /// IMDSv1 works, too.
    Optional,
    /// IMDSv2 only.
    Required,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        self == Self::Enabled
    }
}

/// `AllowedImagesSettingsState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AllowedImagesArg {
    /// Images that fit no criterion are as if they did not exist.
    Enabled,
    /// All can be used; `image show` and `audit` tell which fit.
    AuditMode,
    /// All can be used.
    Disabled,
}

impl From<AllowedImagesArg> for amiforge_engine::ec2::api::AllowedImagesState {
    fn from(state: AllowedImagesArg) -> Self {
        match state {
            AllowedImagesArg::Enabled => Self::Enabled,
            AllowedImagesArg::AuditMode => Self::AuditMode,
            AllowedImagesArg::Disabled => Self::Disabled,
        }
    }
}

/// Starts instances of an image in QEMU, in the background. Prints their ids.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) place: Place,
    /// An image id, the name of an image, `NAME/VERSION` of a build, or an output folder.
    pub(crate) image: String,
    /// How many.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) count: u32,
    /// The instance type: it decides processors, memory and firmware.
    #[arg(long, default_value = "t3.micro", value_name = "TYPE")]
    pub(crate) instance_type: String,
    /// Processors instead of the type's.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory instead of the type's, for example 512MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// User data: a file, as it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// A public key for the default user: the file, or that of the private key beside it.
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Name of the key pair in the metadata [default: the name of the file]
    #[arg(long, value_name = "NAME")]
    pub(crate) key_name: Option<String>,
    /// Changes to the image's volumes: a file, or JSON text, as `aws ec2 run-instances` takes it.
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) block_device_mappings: Option<String>,
    /// A tag of the instance and of its volumes.
    #[arg(long = "tag", value_name = "K=V")]
    pub(crate) tags: Vec<String>,
    /// Lead a port of this host, on 127.0.0.1, into the instance; one to port 22 is always there.
    #[arg(long = "port", value_name = "HOST:GUEST")]
    pub(crate) ports: Vec<String>,
    /// No way out: else it reaches what this host does, services on the host's own 127.0.0.1 among them.
    #[arg(long)]
    pub(crate) isolated: bool,
    /// Whether requests for metadata need a session token [default: as the image says]
    #[arg(long, value_enum)]
    pub(crate) http_tokens: Option<TokensArg>,
    /// Whether the metadata service answers.
    #[arg(long, value_enum, default_value = "enabled")]
    pub(crate) http_endpoint: Switch,
    /// Whether tags are in the metadata.
    #[arg(long, value_enum, default_value = "disabled")]
    pub(crate) metadata_tags: Switch,
    /// The same token gives the same instances again.
    #[arg(long, value_name = "TEXT")]
    pub(crate) client_token: Option<String>,
}

/// The instances of this host.
#[derive(Debug, Args)]
pub(crate) struct Instance {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: InstanceWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceWhat {
    /// Every instance: id, state, image, type, addresses.
    List {
        /// Instances of these ids.
        ids: Vec<String>,
        /// `Name=instance-state-name,Values=running,stopped`: as in the API.
        #[arg(long = "filter", value_name = "NAME=VALUES")]
        filters: Vec<String>,
    },
    /// Start stopped instances.
    Start {
        /// The instances.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Shut instances down; their volumes stay.
    Stop {
        /// The instances.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        how: Ending,
    },
    /// Shut instances down and start them again, as the guest's own reboot does.
    Reboot {
        /// The instances.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        how: Ending,
    },
    /// End instances for good, with the volumes that go with them.
    Terminate {
        /// The instances.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        how: Ending,
    },
    /// Print what an instance wrote to its serial console.
    Console {
        /// The instance.
        id: String,
        /// Go on until the instance ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Attach to the serial console: what is typed goes to the instance. Ctrl-] ends it.
    Serial {
        /// The instance.
        id: String,
    },
    /// Write a picture of the screen, PNG.
    Screenshot {
        /// The instance.
        id: String,
        /// Where to.
        #[arg(long, default_value = "screenshot.png", value_name = "FILE")]
        out: PathBuf,
    },
    /// Log in over SSH, or run a command there.
    Ssh {
        /// The instance.
        id: String,
        /// The user; cloud-init makes `debian` on Debian and `ubuntu` on Ubuntu.
        #[arg(long, default_value = "debian")]
        user: String,
        /// The private key.
        #[arg(long, short, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// A command and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Make an image of an instance.
    CreateImage(CreateImage),
    /// Wait until instances have a state, or have written a text to the console.
    Wait {
        /// The instances.
        #[arg(required = true)]
        ids: Vec<String>,
        /// The state.
        #[arg(long, default_value = "running")]
        state: String,
        /// A text that the console must show, too.
        #[arg(long, value_name = "TEXT")]
        console: Option<String>,
        /// Seconds to wait.
        #[arg(long, default_value_t = 600, value_name = "S")]
        timeout: u64,
    },
}

/// How an instance is shut down.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ending {
    /// At once, without asking the guest.
    #[arg(long)]
    pub(crate) force: bool,
    /// Seconds that the guest gets [default: 60, without hardware acceleration 300]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateImage {
    /// The instance.
    pub(crate) id: String,
    /// Name of the image.
    #[arg(long)]
    pub(crate) name: String,
    /// What it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Take the volumes as they are, without shutting the instance down: files that it writes just then may be torn.
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Seconds that the guest gets to shut down [default: 60, without hardware acceleration 300]
    #[arg(long, value_name = "S", conflicts_with = "no_reboot", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) timeout: Option<u64>,
    /// Changes to the volumes: a file, or JSON text, as `aws ec2 create-image` takes it.
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) block_device_mappings: Option<String>,
    /// A tag of the image and its snapshots.
    #[arg(long = "tag", value_name = "K=V")]
    pub(crate) tags: Vec<String>,
}

/// The images of this host.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: ImageWhat,
}

/// To whom.
#[derive(Clone, Debug, Args)]
pub(crate) struct Grantees {
    /// Accounts.
    #[arg(long = "to", value_name = "ACCOUNT", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Everybody.
    #[arg(long)]
    pub(crate) public: bool,
    /// An organization, by its ARN.
    #[arg(long, value_name = "ARN")]
    pub(crate) organization: Vec<String>,
    /// An organizational unit, by its ARN.
    #[arg(long, value_name = "ARN")]
    pub(crate) organizational_unit: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageWhat {
    /// Images that can be seen: id, name, state, owner, age.
    List {
        /// Images of these ids.
        ids: Vec<String>,
        /// Of these owners: accounts, or `self`.
        #[arg(long = "owner", value_name = "ACCOUNT")]
        owners: Vec<String>,
        /// That these may launch: accounts, `self` or `all`.
        #[arg(long = "executable-by", value_name = "ACCOUNT")]
        executable_by: Vec<String>,
        /// `Name=tag:approved,Values=true`: as in the API.
        #[arg(long = "filter", value_name = "NAME=VALUES")]
        filters: Vec<String>,
        /// Deprecated ones of others, too.
        #[arg(long)]
        include_deprecated: bool,
        /// Disabled ones, too.
        #[arg(long)]
        include_disabled: bool,
        /// What lies in the recycle bin instead.
        #[arg(long)]
        recycle_bin: bool,
    },
    /// All that is known of an image.
    Show {
        /// The image.
        image: String,
    },
    /// Register an image from a disk file, a bundle, or snapshots: the JSON that `aws ec2 register-image` takes.
    Register {
        /// A file with the request.
        #[arg(long, value_name = "FILE", conflicts_with = "disk")]
        cli_input_json: Option<PathBuf>,
        /// A disk image instead (.raw, .img, .qcow2, .vmdk, .vhd), which becomes the root's snapshot.
        #[arg(long, value_name = "FILE", requires = "name")]
        disk: Option<PathBuf>,
        /// The manifest of a bundle instead: an instance-store image, whose files stay where they are.
        #[arg(long, value_name = "FILE", requires = "name", conflicts_with_all = ["cli_input_json", "disk"])]
        manifest: Option<PathBuf>,
        /// Name of the image.
        #[arg(long)]
        name: Option<String>,
        /// How it boots: legacy-bios, uefi or uefi-preferred [default: of a disk uefi-preferred; of a bundle that of its instance types]
        #[arg(long, value_name = "MODE")]
        boot_mode: Option<String>,
        /// A tag of the image.
        #[arg(long = "tag", value_name = "K=V")]
        tags: Vec<String>,
    },
    /// Take an image away. Instances go on.
    Deregister {
        /// The image.
        image: String,
        /// Its snapshots, too, unless another image uses them.
        #[arg(long)]
        delete_associated_snapshots: bool,
    },
    /// Bring an image back from the recycle bin.
    Restore {
        /// The image.
        image: String,
    },
    /// Copy an image into the region that is asked.
    Copy {
        /// The image.
        image: String,
        /// The region it is in [default: by its id; of a name, the one that is asked, else that of who says none]
        #[arg(long, value_name = "NAME")]
        source_region: Option<String>,
        /// Name of the copy [default: that of the image]
        #[arg(long)]
        name: Option<String>,
        /// What it is.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Encrypt its snapshots.
        #[arg(long)]
        encrypted: bool,
        /// With this key: its id, ARN or alias.
        #[arg(long, value_name = "KEY")]
        kms_key_id: Option<String>,
        /// Copy the caller's own tags.
        #[arg(long)]
        copy_image_tags: bool,
        /// The same token gives the same copy again.
        #[arg(long, value_name = "TEXT")]
        client_token: Option<String>,
    },
    /// Let others launch an image.
    Share {
        /// The image.
        image: String,
        #[command(flatten)]
        to: Grantees,
        /// Its snapshots, too, so that others can copy it.
        #[arg(long)]
        with_snapshots: bool,
    },
    /// Take the launch permission back; what else was shared stays so.
    Unshare {
        /// The image.
        image: String,
        #[command(flatten)]
        to: Grantees,
        /// Its snapshots, too, which could be copied.
        #[arg(long)]
        with_snapshots: bool,
    },
    /// Set tags of an image, snapshot, volume or instance.
    Tag {
        /// Its id.
        id: String,
        /// The tags.
        #[arg(required = true, value_name = "K=V")]
        tags: Vec<String>,
    },
    /// Remove tags.
    Untag {
        /// The id of the resource.
        id: String,
        /// Their keys.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Hide an image from others at a time.
    Deprecate {
        /// The image.
        image: String,
        /// When, for example 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME", required_unless_present = "cancel")]
        at: Option<String>,
        /// Never.
        #[arg(long, conflicts_with = "at")]
        cancel: bool,
    },
    /// Take an image out of use, and all its launch permissions with it.
    Disable {
        /// The image.
        image: String,
    },
    /// Use a disabled image again.
    Enable {
        /// The image.
        image: String,
    },
    /// Protect an image against deregistration.
    Protect {
        /// The image.
        image: String,
        /// For another day after the protection is taken off.
        #[arg(long)]
        with_cooldown: bool,
        /// Take the protection off.
        #[arg(long, conflicts_with = "with_cooldown")]
        off: bool,
    },
    /// Write the volumes of an image as disk files (.raw, .img, .qcow2, .vmdk, .vhd).
    Export {
        /// The image.
        image: String,
        /// The file of the root volume; others get their device name.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// What storing images costs, by a table of prices.
    Cost {
        /// The images [default: all of the account in the region]
        images: Vec<String>,
        /// A table of prices instead of the built-in one.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
    },
    /// Where an image came from, and what came from it.
    Lineage {
        /// The image.
        image: String,
    },
    /// Deprecate, disable or delete images by a life cycle policy: says what it would do, and does it with --apply.
    Lifecycle {
        /// The policy: JSON or YAML.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
    /// Bundle an image for instance store: parts, digests and `image.manifest.xml`.
    Bundle(Bundle),
    /// Take a bundle apart again.
    Unbundle {
        /// The manifest.
        manifest: PathBuf,
        /// The user's private key, PEM.
        #[arg(long, value_name = "FILE")]
        private_key: PathBuf,
        /// The user's certificate: the signature must be of it.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// The disk to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// The image, or a raw disk.
    pub(crate) image: String,
    /// The user's certificate, PEM: from now on bundles that it signed can be registered.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// The user's private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
    /// The certificate of EC2 where it is to be launched, PEM [default: of EC2 here]
    #[arg(long, value_name = "FILE")]
    pub(crate) ec2_certificate: Option<PathBuf>,
    /// Names of the files begin with it.
    #[arg(long, default_value = "image")]
    pub(crate) prefix: String,
    /// The folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// The snapshots of this host.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: SnapshotWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotWhat {
    /// Snapshots that can be seen: id, state, size, what it stores, owner.
    List {
        /// Snapshots of these ids.
        ids: Vec<String>,
        /// What lies in the recycle bin instead.
        #[arg(long, conflicts_with = "ids")]
        recycle_bin: bool,
        /// `Name=volume-size,Values=2`: as in the API.
        #[arg(long = "filter", value_name = "NAME=VALUES")]
        filters: Vec<String>,
    },
    /// Make a snapshot of a volume as it is.
    Create(CreateSnapshot),
    /// Which blocks differ between two snapshots.
    Diff {
        /// The old one.
        a: String,
        /// The new one.
        b: String,
    },
    /// Write a snapshot as a disk file (.raw, .img, .qcow2, .vmdk, .vhd).
    Export {
        /// The snapshot.
        id: String,
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Copy a snapshot into the region that is asked.
    Copy {
        /// The snapshot.
        id: String,
        /// The region it is in [default: by its id]
        #[arg(long, value_name = "NAME")]
        source_region: Option<String>,
        /// Encrypt it.
        #[arg(long)]
        encrypted: bool,
        /// With this key: its id, ARN or alias.
        #[arg(long, value_name = "KEY")]
        kms_key_id: Option<String>,
    },
    /// Let others make volumes and copies of a snapshot.
    Share {
        /// The snapshot.
        id: String,
        /// Accounts.
        #[arg(long = "to", value_name = "ACCOUNT", value_delimiter = ',')]
        accounts: Vec<String>,
        /// Everybody.
        #[arg(long)]
        public: bool,
        /// Take it back instead.
        #[arg(long)]
        remove: bool,
    },
    /// Delete a snapshot that no image uses.
    Delete {
        /// The snapshot.
        id: String,
    },
    /// Bring a snapshot back from the recycle bin.
    Restore {
        /// The snapshot.
        id: String,
    },
    /// Read every block of a snapshot and compare it with its digest.
    Verify {
        /// The snapshots [default: all]
        ids: Vec<String>,
    },
    /// Give the room of blocks back that nothing refers to.
    Gc,
}

#[derive(Debug, Args)]
pub(crate) struct CreateSnapshot {
    /// The volume.
    pub(crate) volume: String,
    /// What it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A tag of the snapshot.
    #[arg(long = "tag", value_name = "K=V")]
    pub(crate) tags: Vec<String>,
}

/// The volumes of this host.
#[derive(Debug, Args)]
pub(crate) struct Volume {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: VolumeWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeWhat {
    /// Every volume: id, state, size, what it is attached to.
    List {
        /// Volumes of these ids.
        ids: Vec<String>,
        /// `Name=status,Values=available`: as in the API.
        #[arg(long = "filter", value_name = "NAME=VALUES")]
        filters: Vec<String>,
    },
    /// Make a volume, empty or of a snapshot.
    Create(CreateVolume),
    /// Delete a volume that is attached to nothing.
    Delete {
        /// The volume.
        id: String,
    },
    /// Attach a volume to a stopped instance. It stays when the instance is terminated.
    Attach {
        /// The volume.
        id: String,
        /// The instance.
        instance: String,
        /// The device name, for example /dev/sdf.
        device: String,
    },
    /// Detach a volume from its stopped instance, the root, too.
    Detach {
        /// The volume.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateVolume {
    /// Size in GiB [default: that of the snapshot]
    #[arg(long, value_name = "GIB", required_unless_present = "snapshot")]
    pub(crate) size: Option<u32>,
    /// The snapshot that it is made from.
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,
    /// The type.
    #[arg(long, default_value = "gp3", value_name = "TYPE")]
    pub(crate) volume_type: String,
    /// Provisioned I/O operations per second: kept, without effect here.
    #[arg(long, value_name = "N")]
    pub(crate) iops: Option<u32>,
    /// Provisioned throughput in MiB/s: kept, without effect here.
    #[arg(long, value_name = "N")]
    pub(crate) throughput: Option<u32>,
    /// Encrypt it.
    #[arg(long)]
    pub(crate) encrypted: bool,
    /// With this key: its id, ARN or alias.
    #[arg(long, value_name = "KEY")]
    pub(crate) kms_key_id: Option<String>,
    /// The zone [default: the first of the region]
    #[arg(long, value_name = "NAME")]
    pub(crate) availability_zone: Option<String>,
    /// A tag of the volume.
    #[arg(long = "tag", value_name = "K=V")]
    pub(crate) tags: Vec<String>,
}

/// Keys that encrypt snapshots and volumes.
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: KeyWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyWhat {
    /// Every key: id, aliases, state, who may use it.
    List,
    /// Make a key.
    Create {
        /// A name for it, `alias/…`.
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// New material for what is encrypted from now on.
    Rotate {
        /// The key: id, ARN or alias.
        key: String,
    },
    /// Let another account use a key.
    Grant {
        /// The key.
        key: String,
        /// The account.
        #[arg(long, value_name = "ACCOUNT")]
        to: String,
    },
    /// Take that back.
    Revoke {
        /// The key.
        key: String,
        /// The account.
        #[arg(long, value_name = "ACCOUNT")]
        from: String,
    },
    /// Nothing can be read or written with a disabled key.
    Disable {
        /// The key.
        key: String,
    },
    /// Use it again.
    Enable {
        /// The key.
        key: String,
    },
    /// Delete a key after a waiting time. What was encrypted with it is lost then.
    Delete {
        /// The key.
        key: String,
        /// 7 to 30 days.
        #[arg(long, default_value_t = 30, value_name = "N")]
        days: u16,
        /// Do not delete it after all.
        #[arg(long)]
        cancel: bool,
    },
}

/// IAM policies.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) what: PolicyWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyWhat {
    /// Say whether policies allow an action on an image, and which statement decided. Ends with 1 when they do not.
    Check {
        #[command(flatten)]
        files: PolicyFiles,
        /// The action; without a service, EC2's.
        #[arg(long, default_value = "ec2:RunInstances")]
        action: String,
        /// The image.
        #[arg(long)]
        image: String,
        /// The instance type of a launch.
        #[arg(long, default_value = "t3.micro")]
        instance_type: String,
        /// A tag of the request.
        #[arg(long = "tag", value_name = "K=V")]
        tags: Vec<String>,
    },
}

/// The policies that take part, JSON.
#[derive(Debug, Args)]
pub(crate) struct PolicyFiles {
    /// A policy of who asks.
    #[arg(long = "policy", required = true, value_name = "FILE")]
    pub(crate) policies: Vec<PathBuf>,
    /// A permissions boundary of who asks.
    #[arg(long, value_name = "FILE")]
    pub(crate) permissions_boundary: Vec<PathBuf>,
    /// A policy of the session of who asks.
    #[arg(long, value_name = "FILE")]
    pub(crate) session_policy: Vec<PathBuf>,
    /// Service control policies of one level of the organization: the root's first, then of each unit, then of the account.
    #[arg(long, value_name = "FILE[,FILE]")]
    pub(crate) scp: Vec<String>,
}

/// Find instances that were launched from images that are not approved. Ends with 1 when there are any.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Approved images, as the rule approved-amis-by-id takes them.
    #[arg(long, value_delimiter = ',', value_name = "AMI")]
    pub(crate) approved_ids: Vec<String>,
    /// Tags of approved images, `KEY` or `KEY:VALUE`, as the rule approved-amis-by-tag takes them.
    #[arg(long, value_delimiter = ',', value_name = "KEY[:VALUE]")]
    pub(crate) approved_tags: Vec<String>,
    /// Images that the account's own settings allow, as the rule ec2-instance-launched-with-allowed-ami has it.
    #[arg(long)]
    pub(crate) allowed_images: bool,
    /// Stopped instances, too.
    #[arg(long)]
    pub(crate) include_stopped: bool,
}

/// Settings of an account in a region: shows them, and changes those that are given.
#[derive(Debug, Args)]
pub(crate) struct Account {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Encrypt new volumes and copies.
    #[arg(long, value_enum)]
    pub(crate) encryption_by_default: Option<Switch>,
    /// The key for that: id, ARN or alias; empty: aws/ebs.
    #[arg(long, value_name = "KEY")]
    pub(crate) default_key: Option<String>,
    /// Whether images can be made public.
    #[arg(long, value_enum)]
    pub(crate) public_images: Option<Switch>,
    /// Whether snapshots cannot be made public.
    #[arg(long, value_enum)]
    pub(crate) block_public_snapshots: Option<Switch>,
    /// Whether shared images with encrypted snapshots can be copied, rather than their snapshots alone.
    #[arg(long, value_enum)]
    pub(crate) copy_shared_encrypted_images: Option<Switch>,
    /// Whether images of others that meet no criterion are hidden, or only marked.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) allowed_images: Option<AllowedImagesArg>,
    /// The criteria for that, all of them: a file, or JSON text, as `--image-criteria` of the AWS command line takes it.
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) allowed_images_criteria: Option<String>,
    /// Days that deregistered images stay in the recycle bin; 0: none.
    #[arg(long, value_name = "DAYS")]
    pub(crate) image_retention: Option<u16>,
    /// Days that deleted snapshots stay in the recycle bin; 0: none.
    #[arg(long, value_name = "DAYS")]
    pub(crate) snapshot_retention: Option<u16>,
    /// The organization that the account belongs to, its ARN; empty: none.
    #[arg(long, value_name = "ARN")]
    pub(crate) organization: Option<String>,
    /// An organizational unit that it is in, its ARN; those that are given replace all. Empty: none.
    #[arg(long, value_name = "ARN")]
    pub(crate) organizational_unit: Vec<String>,
    /// An IAM policy that launches are checked against from now on, kept under the name of its file.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,
    /// Remove a policy.
    #[arg(long, value_name = "NAME")]
    pub(crate) remove_policy: Vec<String>,
    /// A certificate that bundles of the account are signed with, PEM: they can be registered from now on.
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_certificate: Vec<PathBuf>,
    /// Remove such a certificate.
    #[arg(long, value_name = "ID")]
    pub(crate) remove_signing_certificate: Vec<String>,
    /// Write the certificate of EC2 here: bundles that are made for it elsewhere can be launched here.
    #[arg(long, value_name = "FILE")]
    pub(crate) ec2_certificate: Option<PathBuf>,
}
