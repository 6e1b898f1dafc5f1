//! The command line as `clap` sees it. One struct per verb; a doc comment is the help text.

use std::ffi::OsString;
use std::path::PathBuf;

use amiforge_engine as engine;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds golden machine images from EC2 Image Builder documents, on your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "amiforge",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Write events as JSON lines to this file, or to standard output with `-`; there the result is the last one of them.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Print only warnings and errors on standard error.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Run steps in this way: `mapped-ids`, `single-id`, `chroot` or `micro-vm` (see the documentation of the sandbox) [default: the first that works here]
    #[arg(long, global = true, value_name = "WAY")]
    pub(crate) sandbox: Option<engine::Way>,
    /// On a terminal, too, plain lines on standard error: no bars, and all that steps print.
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a recipe: layers, disk, manifest, boot proof.
    Build(Build),
    /// Show the layers a build would make or take from the store, and why.
    Plan(Plan),
    /// What `build --locked` takes: resolve it anew, with what changed since.
    #[command(subcommand)]
    Lock(crate::lock::Lock),
    /// Open a shell in the files of a recipe: finished, after a component or step, or where the last build failed.
    Shell(Shell),
    /// Check documents; prints every problem with its file, line and column.
    Validate(Validate),
    /// Say what the code of a problem means, for example `duplicate-key`.
    Explain {
        /// The code; without one, all of them.
        code: Option<String>,
    },
    /// Print the JSON Schema of a kind of document, for an editor.
    Schema {
        /// The kind, for example `component`; without one, the kinds are listed.
        kind: Option<String>,
    },
    /// The built-in components, and component documents without an image.
    #[command(subcommand)]
    Component(crate::component::Component),
    /// Boot an existing output under its firmware and run the test phases in it.
    Test(Test),
    /// Write documents back as AWS takes them: CloudFormation, Terraform, or files of the AWS command line.
    Export(Export),
    /// Write, convert or describe disk images.
    #[command(subcommand)]
    Disk(Disk),
    /// Look into a disk image without mounting it.
    Inspect(Inspect),
    /// Say what changed between two images: packages, files, boot, partitions.
    Diff(Diff),
    /// Start instances of an image in QEMU, in the background.
    Run(Box<crate::ec2::args::Run>),
    /// Instances: list, stop, start, log in, make images of them.
    Instance(Box<crate::ec2::args::Instance>),
    /// Images: list, register, copy, share, encrypt, retire.
    Image(Box<crate::ec2::args::Image>),
    /// Snapshots: list, create, compare, copy, export, share, delete.
    Snapshot(Box<crate::ec2::args::Snapshot>),
    /// Volumes: list, create, attach, detach, delete.
    Volume(Box<crate::ec2::args::Volume>),
    /// Keys that encrypt snapshots and volumes.
    Key(Box<crate::ec2::args::Key>),
    /// IAM policies: what they allow.
    Policy(Box<crate::ec2::args::Policy>),
    /// Find instances of images that are not approved.
    Audit(Box<crate::ec2::args::Audit>),
    /// Settings of an account in a region.
    Account(Box<crate::ec2::args::Account>),
    /// Say what this host can do, and what to install.
    Doctor(Doctor),
    /// What is kept between builds: list it, take out what is old, say why a layer is not there
    #[command(subcommand)]
    Cache(Cache),
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// A recipe and the values for its parameters.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The image or container recipe: a YAML or JSON file, a CloudFormation template, or a folder with a `recipe.yaml`.
    pub(crate) recipe: PathBuf,
    #[command(flatten)]
    pub(crate) options: RecipeOptions,
}

/// What goes for a recipe, or for several.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecipeOptions {
    /// Of a template, the recipe to build: its logical id, or that of a pipeline that uses it.
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
    /// Set a parameter of the template, or of components: `NAME=VALUE` for every one that declares it,
    /// or `COMPONENT.NAME=VALUE`.
    #[arg(long = "param", value_name = "K=V")]
    pub(crate) params: Vec<String>,
    /// Use no network: everything must be in the cache.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Where the value of a secret of the recipe is: `NAME=env:VARIABLE`, `NAME=file:PATH` or `NAME=command:TEXT`
    /// [default: what the configuration says]
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    pub(crate) secrets: Vec<(String, engine::SecretSource)>,
    /// An infrastructure configuration, whose `amiforge.limits` hold for the steps beside those of the recipe; the
    /// smaller ones count. What it says of instances has no effect here.
    #[arg(long, value_name = "FILE")]
    pub(crate) infrastructure: Option<PathBuf>,
}

fn secret(text: &str) -> Result<(String, engine::SecretSource), &'static str> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let parts = parts
        .and_then(|(name, source)| Some((name.to_owned(), engine::SecretSource::parse(source)?)));
    parts.ok_or("write NAME=env:VARIABLE, NAME=file:PATH or NAME=command:TEXT")
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Image or container recipes: YAML or JSON files, CloudFormation templates, or folders with a `recipe.yaml`. Several are
    /// built side by side; what they have in common is made once.
    #[arg(required = true, value_name = "RECIPE")]
    pub(crate) recipes: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) options: RecipeOptions,
    /// The output folder [default: ./out/NAME-VERSION]; with several recipes, the folder of their NAME-VERSION [default: ./out]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Repeat a build: take the parent of `lock.json`, beside the recipe or else in the output folder, whatever
    /// archive or registry has now; one that cannot be had any more is an error.
    #[arg(long)]
    pub(crate) locked: bool,
    /// Build a second time, in a fresh store and under another clock, time zone, locale, file mode mask, home and number of
    /// processors, and compare byte by byte. Ends with 1 when anything differs, and says which file of which step it is.
    #[arg(long)]
    pub(crate) check: bool,
    /// Skip the boot proof and the test phases. The manifest then says that nothing was proven.
    #[arg(long)]
    pub(crate) no_test: bool,
    /// Make every layer again, whatever the store holds; those of a parent `image:` stay as they are.
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Threads that download, unpack and write disks; of several recipes, also how many are built at a time
    /// [default: one per processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Seconds a boot may take [default: 300, more without hardware acceleration]
    #[arg(long, value_name = "S")]
    pub(crate) boot_timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) caches: crate::shared::CacheOptions,
    /// When a phase of a component fails, open a shell in the files as it left them. What is changed there is thrown away.
    #[arg(long)]
    pub(crate) shell_on_failure: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Layers that are missing are made first. Whatever is changed in the shell is thrown away when it ends.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// After the build phase of this component, or after this step of it; without it, the finished image.
    #[arg(long, value_name = "NAME[/STEP]", conflicts_with = "failed")]
    pub(crate) after: Option<String>,
    /// Where the last build of this recipe failed.
    #[arg(long)]
    pub(crate) failed: bool,
    /// A command to run instead of a shell, with its arguments. When it fails, the exit code is 1, and a message has its own.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Print the plan as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Name the input that changed since the last build.
    #[arg(long)]
    pub(crate) why: bool,
    /// Plan what `build --locked` would: with the parent of `lock.json`, beside the recipe or else in the output folder.
    #[arg(long)]
    pub(crate) locked: bool,
    /// The output folder whose lock is taken where none is beside the recipe [default: ./out/NAME-VERSION]
    #[arg(long, value_name = "DIR", requires = "locked")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Component documents, recipes, other resources of Image Builder, workflow documents, templates.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print the problems as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which firmware to boot under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirmwareArg {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
    /// Every one that the image's boot mode promises.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// An output folder, its `manifest.json`, or an image id of the local catalog.
    pub(crate) image: PathBuf,
    /// Which firmware.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) firmware: FirmwareArg,
    /// Seconds a boot may take [default: 300, more without hardware acceleration]
    #[arg(long, value_name = "S")]
    pub(crate) timeout: Option<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormatArg {
    /// One template.
    #[value(name = "cloudformation")]
    CloudFormation,
    /// A folder with `main.tf.json` and the documents of components.
    Terraform,
    /// A folder with `create.sh` and an input for each of its calls.
    Cli,
}

/// A recipe with its components, and whatever is given along. Nothing is sent anywhere.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// What is written.
    #[arg(value_enum)]
    pub(crate) format: ExportFormatArg,
    /// Recipes (or folders with a `recipe.yaml`), and other documents: components, infrastructure, distribution,
    /// pipelines, workflows, container recipes, life cycle policies, templates. They may name each other by their names.
    #[arg(required = true, value_name = "RECIPE")]
    pub(crate) files: Vec<PathBuf>,
    /// The file of a template [default: standard output], or the folder of the other formats.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// Set a parameter of components, or of a template: `NAME=VALUE` or `COMPONENT.NAME=VALUE`.
    #[arg(long = "param", value_name = "K=V")]
    pub(crate) params: Vec<String>,
    /// What recipes start from on AWS: the id of an AMI, the ARN of an image, or `ssm:` and a parameter [default: what the
    /// configuration has for the same parent, else whoever deploys says it]
    #[arg(long, value_name = "NAME")]
    pub(crate) parent: Option<String>,
    /// Make built-in components components of your own, instead of naming Amazon's.
    #[arg(long)]
    pub(crate) own_library: bool,
    /// Where in S3 the document of a component lies, when it is too long to be written out.
    #[arg(long = "uri", value_name = "COMPONENT=S3URI")]
    pub(crate) uris: Vec<String>,
    /// Replace files that are there with another content.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Make a bootable disk from a root file system: a tar archive or a folder.
    Assemble(Assemble),
    /// Write a disk image in other formats.
    Convert(Convert),
    /// Show format, partitions, file systems and digests of a disk image.
    Info(Info),
}

/// How a disk boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BootArg {
    /// BIOS only.
    Bios,
    /// UEFI only.
    Uefi,
    /// Both, from one disk.
    Hybrid,
    /// A partition table and a root file system without a boot loader.
    None,
}

/// Features of an ext4 file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Those of Debian 12.
    Standard,
    /// Without metadata checksums, for guests whose e2fsck is older than 1.43.
    Legacy,
}

/// Which digests to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChecksumsArg {
    /// The content digest and SHA-256 of every file written.
    Full,
    /// The content digest and SHA-256 of compact formats, not of raw disks.
    Fast,
    /// None.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Assemble {
    /// The root file system: a tar archive (plain, gzip, zstd, xz, bzip2) or a folder. May be repeated: each lies
    /// over those before it, as if extracted into the same folder.
    #[arg(long, required = true, value_name = "TAR_OR_DIR")]
    pub(crate) rootfs: Vec<PathBuf>,
    /// Where to write; the extension tells the format (.raw, .img, .qcow2, .vmdk, .vhd). May be
    /// repeated.
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) out: Vec<PathBuf>,
    /// Size of the disk, for example 2GiB [default: what the content needs and some room]
    #[arg(long, value_name = "S")]
    pub(crate) size: Option<String>,
    /// How the disk boots.
    #[arg(long, value_enum, default_value = "hybrid")]
    pub(crate) boot: BootArg,
    /// Features of the root file system.
    #[arg(long, value_enum, default_value = "standard")]
    pub(crate) filesystem_profile: ProfileArg,
    /// Inodes of the root file system [default: one for each 16 KiB, more where the content needs them]
    #[arg(long, value_name = "N")]
    pub(crate) inodes: Option<u64>,
    #[command(flatten)]
    pub(crate) how: DiskOutput,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How disk files are written.
#[derive(Debug, Args)]
pub(crate) struct DiskOutput {
    /// Compress: none, zlib, zlib:1 to zlib:9, zstd, zstd:1 to zstd:19. For qcow2; vmdk is always
    /// zlib, and takes its level.
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) compress: engine::Compression,
    /// Kind of file: dynamic or fixed for vhd [default: dynamic], streamOptimized for vmdk.
    #[arg(long, value_name = "KIND")]
    pub(crate) subformat: Option<engine::Subformat>,
    /// A qcow2 file of earlier, written by amiforge with the same --compress: clusters with the same
    /// content are taken over instead of compressed again. No byte of the result depends on it.
    #[arg(long, value_name = "QCOW2")]
    pub(crate) reuse: Option<PathBuf>,
    /// Which digests to compute.
    #[arg(long, value_enum, default_value = "fast")]
    pub(crate) checksums: ChecksumsArg,
}

/// Between raw, qcow2, vmdk and vhd; the extension of a file tells its format. What is zero takes no
/// room in the result, and the result depends on the disk's content alone.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The disk image (.raw, .img, .qcow2, .vmdk, .vhd).
    pub(crate) input: PathBuf,
    /// The files to write, all in one pass over the input.
    #[arg(required = true, value_name = "OUT")]
    pub(crate) out: Vec<PathBuf>,
    /// Format of the input [default: by its extension]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) from: Option<engine::Format>,
    /// Open the backing file or data file that a qcow2 image names. Only for images that you trust:
    /// they choose which file of yours is read.
    #[arg(long)]
    pub(crate) allow_backing_file: bool,
    #[command(flatten)]
    pub(crate) how: DiskOutput,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A disk image (.raw, .img, .qcow2, .vmdk, .vhd).
    pub(crate) file: PathBuf,
    /// Also the content digest of each partition.
    #[arg(long)]
    pub(crate) digests: bool,
    /// Open the backing file or data file that a qcow2 image names. Only for images that you trust:
    /// they choose which file of yours is read.
    #[arg(long)]
    pub(crate) allow_backing_file: bool,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A disk image (.raw, .img, .qcow2, .vmdk, .vhd) or an output folder.
    pub(crate) image: PathBuf,
    /// GPT slot number of the partition [default: the root partition]
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    #[command(subcommand)]
    pub(crate) what: InspectWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InspectWhat {
    /// List a directory.
    Ls {
        /// Path in the image.
        #[arg(default_value = "/")]
        path: OsString,
        /// Permissions, `+` or `@` with attributes, number of names, owner, size, time.
        #[arg(short, long)]
        long: bool,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Draw everything below a directory.
    Tree {
        /// Path in the image.
        #[arg(default_value = "/")]
        path: OsString,
        /// How many directories deep.
        #[arg(long, value_name = "N")]
        depth: Option<u32>,
        /// Print as JSON, one list of all names.
        #[arg(long)]
        json: bool,
    },
    /// Print a file.
    Cat {
        /// Path in the image.
        path: OsString,
    },
    /// Show type, mode, owner, size, inode, names, times, flags and extended attributes.
    Stat {
        /// Path in the image.
        path: OsString,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The old image: a disk image or an output folder.
    pub(crate) a: PathBuf,
    /// The new image.
    pub(crate) b: PathBuf,
    /// Compare modification times as well.
    #[arg(long)]
    pub(crate) times: bool,
    /// Show at most this many lines of packages, boot files and files each; 0 shows all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// End with 1 when the images differ.
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Print all differences as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Every layer: id, size, time since its last use, title, recipes whose last build has it, images
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take out what was not used for long. What a running build or an image of the catalog uses stays, and is told
    Gc(Gc),
    /// The key by which others know the layers that this user puts into shared caches
    #[command(subcommand)]
    Key(crate::shared::Key),
    /// Say which layers a build would make, and which input of each changed: `plan --why`
    Why {
        #[command(flatten)]
        recipe: RecipeArgs,
        /// Print the plan as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// What stays: layers and downloads used within a time (`12h`, `30d`, `8w`), or layers up to a size together, the last used
    /// first (`20GiB`). Of both, each counts [default: 30d]
    #[arg(long, value_name = "TIME|SIZE")]
    pub(crate) keep: Vec<KeepArg>,
    /// Only say what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `cache gc` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepArg {
    Age(std::time::Duration),
    Size(u64),
}

impl std::str::FromStr for KeepArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &text[count.len()..] {
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            "" => return Err("say a time such as `30d` or a size such as `20GiB`".to_owned()),
            _ => {
                let size: amiforge_types::ByteSize = text
                    .parse()
                    .map_err(|_| "neither a time such as `30d` nor a size such as `20GiB`")?;
                return Ok(Self::Size(size.0));
            }
        };
        let count: u64 = count
            .parse()
            .map_err(|_| format!("{count:?} is no number"))?;
        let seconds = count.checked_mul(seconds).ok_or("that is too long")?;
        Ok(Self::Age(std::time::Duration::from_secs(seconds)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
