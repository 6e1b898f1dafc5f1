//! The action modules: their inputs as types, decoded purely.
//!
//! An action is one file here (inputs and decoding) and one line in the `actions!` table below.
//! The table makes [`ActionInputs`]; `amiforge-exec` matches on it without a wildcard, so the
//! compiler names what is left to do there. Names come from the AWSTOE action module reference.
//!
//! Inputs are decoded twice: when a document is read, with references still in place, to find
//! mistakes early; and when the step runs, from the resolved tree.

mod append_file;
mod assert;
mod copy_file;
mod copy_folder;
mod create_file;
mod create_folder;
mod create_symlink;
mod delete_file;
mod delete_folder;
mod encoding;
mod execute_bash;
mod execute_binary;
mod execute_document;
mod execute_powershell;
mod list_files;
mod move_file;
mod move_folder;
mod msi;
mod read_file;
mod reboot;
mod s3_download;
mod s3_upload;
mod s3_uri;
mod set_file_encoding;
mod set_file_owner;
mod set_file_permissions;
mod set_folder_owner;
mod set_folder_permissions;
mod set_registry;
mod transfer;
mod update_os;
mod web_download;
mod web_url;

use amiforge_types::{Diagnostics, Span};

pub use append_file::AppendFile;
pub use assert::Assert;
pub use copy_file::CopyFile;
pub use copy_folder::CopyFolder;
pub use create_file::CreateFile;
pub use create_folder::CreateFolder;
pub use create_symlink::CreateSymlink;
pub use delete_file::DeleteFile;
pub use delete_folder::DeleteFolder;
pub use encoding::{BYTE_ORDER_MARK, Encoding, NotEncodable, NotText};
pub use execute_bash::ExecuteBash;
pub use execute_binary::ExecuteBinary;
pub use execute_document::{DocumentSource, ExecuteDocument};
pub use execute_powershell::ExecutePowerShell;
pub use list_files::ListFiles;
pub use move_file::MoveFile;
pub use move_folder::MoveFolder;
pub use msi::{InstallMsi, Msi, MsiReboot, UninstallMsi};
pub use read_file::ReadFile;
pub use reboot::Reboot;
pub use s3_download::{S3Download, S3Source};
pub use s3_upload::S3Upload;
pub use s3_uri::{S3Uri, S3UriError};
pub use set_file_encoding::SetFileEncoding;
pub use set_file_owner::SetFileOwner;
pub use set_file_permissions::SetFilePermissions;
pub use set_folder_owner::SetFolderOwner;
pub use set_folder_permissions::SetFolderPermissions;
pub use set_registry::{RegistryType, SetRegistry};
pub use transfer::Transfer;
pub use update_os::UpdateOs;
pub use web_download::{Checksum, ChecksumAlgorithm, WebDownload};
pub use web_url::{WebUrl, WebUrlError};

use crate::decode::{self, Cx, Fields};
use crate::node::{Node, NodeKind};

macro_rules! actions {
    ($($name:literal => $variant:ident($inputs:ty), outputs $outputs:expr;)*) => {
        /// The actions that amiforge runs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ActionKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        /// The decoded inputs of one step.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ActionInputs {
            $(#[doc = concat!("Inputs of `", $name, "`")] $variant($inputs),)*
        }

        impl ActionKind {
            /// Every action that amiforge runs, sorted by name.
            pub const ALL: &[ActionKind] = &[$(ActionKind::$variant,)*];

            /// The name in documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The keys of the outputs that a step with this action produces.
            #[must_use]
            pub const fn outputs(self) -> &'static [&'static str] {
                match self { $(Self::$variant => $outputs,)* }
            }

            pub(crate) fn decode_cx(self, inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<ActionInputs> {
                match self {
                    $(Self::$variant => {
                        <$inputs as Inputs>::decode_inputs(inputs, step, cx).map(ActionInputs::$variant)
                    })*
                }
            }
        }

        impl ActionInputs {
            /// Which action these inputs belong to.
            #[must_use]
            pub const fn kind(&self) -> ActionKind {
                match self { $(Self::$variant(_) => ActionKind::$variant,)* }
            }
        }
    };
}

// Sorted by name.
actions! {
    "AppendFile" => AppendFile(Vec<AppendFile>), outputs &[];
    "Assert" => Assert(Assert), outputs &[];
    "CopyFile" => CopyFile(Vec<CopyFile>), outputs &[];
    "CopyFolder" => CopyFolder(Vec<CopyFolder>), outputs &[];
    "CreateFile" => CreateFile(Vec<CreateFile>), outputs &[];
    "CreateFolder" => CreateFolder(Vec<CreateFolder>), outputs &[];
    "CreateSymlink" => CreateSymlink(Vec<CreateSymlink>), outputs &[];
    "DeleteFile" => DeleteFile(Vec<DeleteFile>), outputs &[];
    "DeleteFolder" => DeleteFolder(Vec<DeleteFolder>), outputs &[];
    "ExecuteBash" => ExecuteBash(ExecuteBash), outputs &["stdout"];
    "ExecuteBinary" => ExecuteBinary(ExecuteBinary), outputs &["stdout"];
    "ExecuteDocument" => ExecuteDocument(ExecuteDocument), outputs &[
        "executedStepCount", "executionId", "failedStepCount", "failureMessage",
        "ignoredFailedStepCount", "logUrl", "status",
    ];
    "ExecutePowerShell" => ExecutePowerShell(ExecutePowerShell), outputs &["stdout"];
    "InstallMSI" => InstallMsi(InstallMsi), outputs &["logFile", "msiExitCode", "stdout"];
    "ListFiles" => ListFiles(Vec<ListFiles>), outputs &["files"];
    "MoveFile" => MoveFile(Vec<MoveFile>), outputs &[];
    "MoveFolder" => MoveFolder(Vec<MoveFolder>), outputs &[];
    "ReadFile" => ReadFile(Vec<ReadFile>), outputs &["content"];
    "Reboot" => Reboot(Reboot), outputs &[];
    "S3Download" => S3Download(Vec<S3Download>), outputs &[];
    "S3Upload" => S3Upload(Vec<S3Upload>), outputs &[];
    "SetFileEncoding" => SetFileEncoding(Vec<SetFileEncoding>), outputs &[];
    "SetFileOwner" => SetFileOwner(Vec<SetFileOwner>), outputs &[];
    "SetFilePermissions" => SetFilePermissions(Vec<SetFilePermissions>), outputs &[];
    "SetFolderOwner" => SetFolderOwner(Vec<SetFolderOwner>), outputs &[];
    "SetFolderPermissions" => SetFolderPermissions(Vec<SetFolderPermissions>), outputs &[];
    "SetRegistry" => SetRegistry(Vec<SetRegistry>), outputs &[];
    "UninstallMSI" => UninstallMsi(UninstallMsi), outputs &["logFile", "msiExitCode", "stdout"];
    "UpdateOS" => UpdateOs(UpdateOs), outputs &[];
    "WebDownload" => WebDownload(Vec<WebDownload>), outputs &["destination"];
}

impl ActionKind {
    /// The action called `name`; letter case counts, as in AWSTOE.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether there is such an action on `Linux`, `Windows` or `macOS` (AWSTOE action modules).
    #[must_use]
    pub fn is_on(self, platform: &str) -> bool {
        match self {
            Self::CreateSymlink
            | Self::ExecuteBash
            | Self::SetFileOwner
            | Self::SetFilePermissions
            | Self::SetFolderOwner
            | Self::SetFolderPermissions => platform != "Windows",
            Self::ExecutePowerShell | Self::InstallMsi | Self::SetRegistry | Self::UninstallMsi => {
                platform == "Windows"
            }
            Self::UpdateOs => platform != "macOS",
            _ => true,
        }
    }

    /// Decodes resolved inputs. `step` is the place to blame when inputs are missing altogether.
    /// `None` comes with at least one error.
    #[must_use]
    pub fn decode(self, inputs: Option<&Node>, step: Span) -> (Option<ActionInputs>, Diagnostics) {
        let mut diags = Diagnostics::new();
        let decoded = self.decode_cx(inputs, step, &mut Cx::new(&mut diags));
        (decoded.filter(|_| !diags.has_errors()), diags)
    }

    /// Checks inputs whose references are not resolved yet.
    pub(crate) fn check(self, inputs: Option<&Node>, step: Span, diags: &mut Diagnostics) {
        let mut cx = Cx::new(diags);
        cx.unresolved = true;
        let _checked_only = self.decode_cx(inputs, step, &mut cx);
    }
}

/// The whole `inputs` of a step.
trait Inputs: Sized {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self>;
}

/// One entry of the `inputs` of an action that takes a list of them.
trait Entry: Sized {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self>;
}

impl<T: Entry> Inputs for Vec<T> {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        if matches!(node.kind, NodeKind::Map(_)) {
            cx.warning(
                "inputs-not-a-list",
                node.span,
                "this action takes a list of entries; the single mapping is read as a list of one",
                "put `- ` before the first field",
            );
            return Some(vec![entry(node, cx)?]);
        }
        let entries = decode::list(node, cx, entry)?;
        if entries.is_empty() {
            cx.error(
                "empty-value",
                node.span,
                "`inputs` has no entry, so the step would do nothing",
            );
            return None;
        }
        Some(entries)
    }
}

fn entry<T: Entry>(node: &Node, cx: &mut Cx<'_>) -> Option<T> {
    let mut fields = Fields::of(node, "an entry of `inputs`", cx)?;
    let decoded = T::decode_entry(&mut fields, cx);
    fields.deny_unknown(cx);
    decoded
}

fn required_inputs<'n>(inputs: Option<&'n Node>, step: Span, cx: &mut Cx<'_>) -> Option<&'n Node> {
    let given = inputs.filter(|node| !node.is_null());
    if given.is_none() {
        let span = inputs.map_or(step, |node| node.span);
        cx.error(
            "missing-field",
            span,
            "this action needs the field `inputs`",
        );
    }
    given
}

/// A path where `*` means nothing, which is said.
fn one_path(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    if path.contains('*') && !cx.defers(&path) {
        cx.warning(
            "literal-wildcard",
            node.span,
            "`*` is no wildcard here but a part of the name",
            "CopyFile, CopyFolder, MoveFile, MoveFolder, DeleteFile and ListFiles take wildcards",
        );
    }
    Some(path)
}

/// Whether `*` stands in the last part of the path only.
fn wildcard(path: &str, span: Span, cx: &mut Cx<'_>) -> bool {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    if cx.defers(path) || !above.contains('*') {
        return true;
    }
    let help = "only the part after the last `/` may hold `*`";
    cx.error_help(
        "invalid-wildcard",
        span,
        "a wildcard stands before the last `/`",
        Some(help.to_owned()),
    );
    false
}

/// Permission bits of a file, `0` to `0o7777`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(pub u16);

/// Octal digits, with or without a leading zero: `644`, `0644`, `4755`, `04755`, `0o644`.
fn file_mode(node: &Node, cx: &mut Cx<'_>) -> Option<FileMode> {
    let text = decode::filled(node, cx)?;
    if cx.defers(&text) {
        return Some(FileMode(0));
    }
    let digits = text.strip_prefix("0o").unwrap_or(&text);
    let octal = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u16::from_str_radix(digits, 8) {
        Ok(bits) if octal && bits <= 0o7777 => Some(FileMode(bits)),
        _ => {
            let message = format!("{} is not a file mode", decode::shown(&text));
            cx.error_help(
                "invalid-mode",
                node.span,
                message,
                Some("write octal digits such as `0644`".to_owned()),
            );
            None
        }
    }
}
