//! The command line as `clap` sees it. One struct per verb; a doc comment is the help text.

use std::path::PathBuf;

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
    /// Write events as JSON lines to this file, or to standard output with `-`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Print only warnings and errors on standard error.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a recipe: layers, disk, manifest, boot proof.
    Build(Build),
    /// Show the layers a build would make or take from the store, and why.
    Plan(Plan),
    /// Check documents; prints every problem with its file, line and column.
    Validate(Validate),
    /// Boot an existing output under its firmware and run the test phases in it.
    Test(Test),
    /// Write or describe disk images.
    #[command(subcommand)]
    Disk(Disk),
    /// Look into a disk image without mounting it.
    Inspect(Inspect),
    /// Say what this host can do, and what to install.
    Doctor(Doctor),
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// A recipe and the values for its parameters.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The recipe: a YAML or JSON file, or a folder with a `recipe.yaml`.
    pub(crate) recipe: PathBuf,
    /// Set a component parameter: `NAME=VALUE` for every component that declares it, or
    /// `COMPONENT.NAME=VALUE`.
    #[arg(long = "param", value_name = "K=V")]
    pub(crate) params: Vec<String>,
    /// Use no network: everything must be in the cache.
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// The output folder [default: ./out/NAME-VERSION]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Fail if the resolved packages differ from the `lock.json` of the output folder.
    #[arg(long)]
    pub(crate) locked: bool,
    /// Skip the boot proof and the test phases. The manifest then says that nothing was proven.
    #[arg(long)]
    pub(crate) no_test: bool,
    /// Make every layer again, whatever the store holds.
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Threads to use [default: one per processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Seconds a boot may take [default: 300, more without hardware acceleration]
    #[arg(long, value_name = "S")]
    pub(crate) boot_timeout: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Recipes and component documents.
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

#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Make a bootable disk from a root file system: a tar archive or a folder.
    Assemble(Assemble),
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
    /// The root file system: a tar archive (plain, gzip, zstd, xz) or a folder.
    #[arg(long, value_name = "TAR_OR_DIR")]
    pub(crate) rootfs: PathBuf,
    /// Where to write; the extension tells the format (.raw, .img, .qcow2). May be repeated.
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
    /// Which digests to compute.
    #[arg(long, value_enum, default_value = "fast")]
    pub(crate) checksums: ChecksumsArg,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A disk image (.raw, .img, .qcow2).
    pub(crate) file: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A disk image (.raw, .img, .qcow2) or an output folder.
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
        path: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a file.
    Cat {
        /// Path in the image.
        path: String,
    },
    /// Show type, mode, owner, size, time and extended attributes.
    Stat {
        /// Path in the image.
        path: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
