//! Action modules, one file each. To add one: its inputs in `amiforge-recipe`, a file here, and its
//! line in [`run`]; see `docs/adding/action.md`.

mod append_file;
mod assert;
mod copy_file;
mod copy_folder;
mod create_file;
mod create_folder;
mod create_symlink;
mod delete_file;
mod delete_folder;
mod execute_bash;
mod execute_binary;
mod fetch;
mod files;
mod landing;
mod list_files;
mod move_file;
mod move_folder;
mod read_file;
mod s3_download;
#[cfg(test)]
mod s3_tests;
mod s3_upload;
mod set_file_encoding;
mod set_file_owner;
mod set_file_permissions;
mod set_folder_owner;
mod set_folder_permissions;
mod temp_script;
mod transfer;
mod update_os;
mod web_download;
mod windows;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use amiforge_recipe::actions::{Checksum, ExecuteDocument, Reboot};
use amiforge_recipe::{ActionInputs, ActionKind};
use amiforge_types::{ByteSize, Digest};

use crate::aws::s3::S3Error;
use crate::event::{ChildEvent, Download};
use crate::executor::accounts::AccountError;
use crate::executor::{Held, Machine, Secrets, Sink, process};
use crate::kept::{Kept, KeptName};
use crate::net::NetError;
use crate::outside::Outside;
use crate::root::Root;

pub(crate) use assert::holds;
pub use fetch::download_of;
pub(crate) use fetch::{Receiver, TryError, Wanted, body, retrying, web};
pub(crate) use s3_download::object_bytes;
pub(crate) use temp_script::TempScript;

/// What one entry of a step's inputs produced.
pub(crate) type Outputs = BTreeMap<String, String>;

/// An action module: resolved inputs that can be carried out on the live root.
pub(crate) trait Action {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError>;
}

/// How inputs are carried out.
pub(crate) enum Work<'i> {
    /// By what the action does here and now.
    Here(&'i dyn Action),
    /// By a run of another document.
    Document(&'i ExecuteDocument),
    /// By a restart of the machine.
    Restart(&'i Reboot),
}

/// How one step's inputs are carried out. Every action, sorted by name.
pub(crate) fn work(inputs: &ActionInputs) -> Work<'_> {
    Work::Here(match inputs {
        ActionInputs::AppendFile(inputs) => inputs,
        ActionInputs::Assert(inputs) => inputs,
        ActionInputs::CopyFile(inputs) => inputs,
        ActionInputs::CopyFolder(inputs) => inputs,
        ActionInputs::CreateFile(inputs) => inputs,
        ActionInputs::CreateFolder(inputs) => inputs,
        ActionInputs::CreateSymlink(inputs) => inputs,
        ActionInputs::DeleteFile(inputs) => inputs,
        ActionInputs::DeleteFolder(inputs) => inputs,
        ActionInputs::ExecuteBash(inputs) => inputs,
        ActionInputs::ExecuteBinary(inputs) => inputs,
        ActionInputs::ExecuteDocument(inputs) => return Work::Document(inputs),
        ActionInputs::ExecutePowerShell(inputs) => inputs,
        ActionInputs::InstallMsi(inputs) => inputs,
        ActionInputs::ListFiles(inputs) => inputs,
        ActionInputs::MoveFile(inputs) => inputs,
        ActionInputs::MoveFolder(inputs) => inputs,
        ActionInputs::ReadFile(inputs) => inputs,
        ActionInputs::Reboot(inputs) => return Work::Restart(inputs),
        ActionInputs::S3Download(inputs) => inputs,
        ActionInputs::S3Upload(inputs) => inputs,
        ActionInputs::SetFileEncoding(inputs) => inputs,
        ActionInputs::SetFileOwner(inputs) => inputs,
        ActionInputs::SetFilePermissions(inputs) => inputs,
        ActionInputs::SetFolderOwner(inputs) => inputs,
        ActionInputs::SetFolderPermissions(inputs) => inputs,
        ActionInputs::SetRegistry(inputs) => inputs,
        ActionInputs::UninstallMsi(inputs) => inputs,
        ActionInputs::UpdateOs(inputs) => inputs,
        ActionInputs::WebDownload(inputs) => inputs,
    })
}

/// Whether an action looks at files and changes them, and does nothing else.
pub(crate) fn works_on_files(action: ActionKind) -> bool {
    match action {
        ActionKind::AppendFile
        | ActionKind::Assert
        | ActionKind::CopyFile
        | ActionKind::CopyFolder
        | ActionKind::CreateFile
        | ActionKind::CreateFolder
        | ActionKind::CreateSymlink
        | ActionKind::DeleteFile
        | ActionKind::DeleteFolder
        | ActionKind::ListFiles
        | ActionKind::MoveFile
        | ActionKind::MoveFolder
        | ActionKind::ReadFile
        | ActionKind::SetFileEncoding
        | ActionKind::SetFileOwner
        | ActionKind::SetFilePermissions
        | ActionKind::SetFolderOwner
        | ActionKind::SetFolderPermissions => true,
        ActionKind::ExecuteBash
        | ActionKind::ExecuteBinary
        | ActionKind::ExecuteDocument
        | ActionKind::ExecutePowerShell
        | ActionKind::InstallMsi
        | ActionKind::Reboot
        | ActionKind::S3Download
        | ActionKind::S3Upload
        | ActionKind::SetRegistry
        | ActionKind::UninstallMsi
        | ActionKind::UpdateOs
        | ActionKind::WebDownload => false,
    }
}

/// One attempt of one step: what it may use, and what is known about it when it fails.
pub(crate) struct StepCx<'a> {
    pub(crate) root: &'a dyn Root,
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The working directory.
    pub(crate) dir: &'a str,
    pub(crate) held: &'a Held,
    pub(crate) outside: &'a Outside,
    pub(crate) deadline: Option<Instant>,
    pub(crate) loud: bool,
    pub(crate) sink: Sink<'a>,
    /// Exit code of the last command that ended by itself.
    pub(crate) exit_code: Option<i32>,
    /// The command or path at hand.
    pub(crate) command: String,
    /// The last lines of output.
    pub(crate) tail: Vec<String>,
    /// What the action gives out although it fails.
    pub(crate) left: Vec<Outputs>,
    /// Whether a command was seen at the limit of processes.
    pub(crate) crowded: bool,
    /// What is masked.
    pub(crate) secrets: Option<&'a Secrets>,
}

/// Bytes that one output takes at most, as the output of a command does.
const MAX_OUTPUT: u64 = 4 << 20;

/// Characters of a command that a report shows.
const MAX_COMMAND: usize = 400;

/// Makes the working directory where it is missing.
pub(crate) fn prepare(root: &dyn Root, dir: &str) -> Result<(), StepError> {
    match root.look(dir)? {
        Some(found) if found.is_dir() => Ok(()),
        Some(_) => Err(StepError::WrongType {
            path: format!("the working directory {dir}"),
            is: "a file",
            wanted: "a folder",
        }),
        None => root.make_folders(dir),
    }
}

impl<'a> StepCx<'a> {
    pub(crate) fn new(
        machine: Machine<'a>,
        env: &'a BTreeMap<String, String>,
        dir: &'a str,
        deadline: Option<Instant>,
        loud: bool,
        sink: Sink<'a>,
    ) -> Self {
        Self {
            root: machine.root,
            env,
            dir,
            held: machine.held,
            outside: machine.outside,
            deadline,
            loud,
            sink,
            exit_code: None,
            command: String::new(),
            tail: Vec::new(),
            left: Vec::new(),
            crowded: false,
            secrets: None,
        }
    }

    /// The address of a download as it is told.
    fn source(&self, address: &str) -> String {
        let mut source = Download::shown_source(address, self.loud);
        if let Some(secrets) = self.secrets {
            secrets.text(&mut source);
        }
        source
    }

    /// The lent file that is the download of an address: by its checksum, else by its pin.
    fn kept(&self, address: &str, checksum: Option<&Checksum>) -> Option<Kept> {
        let pins = self.outside.pins.as_ref();
        let pinned = pins.and_then(|pins| pins.get(&self.source(address)));
        let pinned = pinned.into_iter().flatten();
        let names: Vec<KeptName> = checksum
            .map(KeptName::of)
            .into_iter()
            .chain(pinned.map(|sha256| KeptName::of_digest(*sha256)))
            .collect();
        self.outside.opened.any(&names)
    }

    /// Takes a download from a lent file, if there is one and it is whole; says so.
    fn take_kept(
        &mut self,
        address: &str,
        wanted: &Wanted<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<bool, StepError> {
        let Some(kept) = self.kept(address, wanted.checksum) else {
            return Ok(false);
        };
        let taken = kept.copy(wanted, receiver)?;
        if self.loud {
            self.note(match taken {
                true => format!("{address} comes from the cache"),
                false => format!("{address}: the file in the cache is damaged"),
            });
        }
        Ok(taken)
    }

    /// Tells of a file from elsewhere before it is used, and holds it against its pin. `checked`: its document has
    /// a checksum, which it has met.
    fn fetched(
        &mut self,
        address: &str,
        sha256: Digest,
        bytes: u64,
        checked: bool,
    ) -> Result<(), StepError> {
        let source = self.source(address);
        if let Some(pins) = &self.outside.pins {
            match pins.get(&source) {
                Some(pinned) if pinned.contains(&sha256) => {}
                Some(pinned) => {
                    let pinned: Vec<String> = pinned.iter().map(Digest::to_string).collect();
                    return Err(StepError::Drifted {
                        place: source,
                        pinned: pinned.join(" or "),
                        found: sha256,
                    });
                }
                None if checked => {}
                None => return Err(StepError::NotPinned { place: source }),
            }
        }
        (self.sink)(ChildEvent::Fetched {
            download: Download {
                source,
                sha256,
                bytes,
                checked,
            },
        });
        Ok(())
    }

    /// A path of the inputs: one that does not start with `/` is below the working directory.
    fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        format!("{}/{path}", self.dir.trim_end_matches('/'))
    }

    /// The same, from the root.
    pub(crate) fn full_path(&self, path: &str) -> String {
        let path = self.path(path);
        if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        }
    }

    /// Names what is being done, for the report of a failure. Steps without logging stay silent.
    fn about(&mut self, what: &str) {
        self.command = match what.char_indices().nth(MAX_COMMAND) {
            _ if !self.loud => String::new(),
            Some((end, _)) => format!("{}…", &what[..end]),
            None => what.to_owned(),
        };
    }

    /// Checks the deadline between the entries of a list.
    fn check_deadline(&self) -> Result<(), StepError> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(StepError::TimedOut),
            _ => Ok(()),
        }
    }

    /// Runs a command whose standard output is what the step gives out, also when it fails.
    fn printing(&mut self, argv: &[String]) -> Result<Vec<Outputs>, StepError> {
        let outputs = |stdout| vec![Outputs::from([("stdout".to_owned(), stdout)])];
        let mut stdout = String::new();
        let ended = self.run_into(argv, &mut stdout);
        if ended.is_err() {
            self.left = outputs(std::mem::take(&mut stdout));
        }
        ended.map(|()| outputs(stdout))
    }

    /// Runs a command to its end; anything but exit code 0 is an error. Returns its output.
    fn command(&mut self, argv: &[String]) -> Result<String, StepError> {
        let mut stdout = String::new();
        self.run_into(argv, &mut stdout).map(|()| stdout)
    }

    /// The same; what it wrote to standard output is in `stdout` however it ended.
    fn run_into(&mut self, argv: &[String], stdout: &mut String) -> Result<(), StepError> {
        let spec = process::Spec {
            argv,
            env: self.env,
            dir: self.dir,
            held: self.held,
            reserve: self.held.reserve(),
            deadline: self.deadline,
            loud: self.loud,
        };
        let program = argv.first().cloned().unwrap_or_default();
        self.exit_code = None;
        let done = process::run(&spec, self.sink).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StepError::NoProgram {
                program: program.clone(),
            },
            _ => StepError::Start {
                program: program.clone(),
                source,
            },
        })?;
        self.tail = done.tail;
        self.crowded |= done.crowded;
        self.exit_code = done.status.and_then(|status| status.code());
        *stdout = done.stdout;
        Err(
            match done.status.map(|status| (status.code(), status.signal())) {
                None if done.filled.is_some() => StepError::Filled {
                    program,
                    left: ByteSize(done.filled.unwrap_or_default()),
                },
                None => StepError::TimedOut,
                // It filled the sandbox and went away: nothing that comes after it could run.
                Some((Some(0), _)) if done.left_crowded => StepError::LeftRunning { program },
                Some((Some(0), _)) => return Ok(()),
                Some((Some(code), _)) => StepError::Exit { program, code },
                Some((None, signal)) => StepError::Signal {
                    program,
                    signal: signal.unwrap_or(0),
                },
            },
        )
    }

    fn note(&mut self, text: impl Into<String>) {
        (self.sink)(ChildEvent::Note { text: text.into() });
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("timed out")]
    TimedOut,
    #[error("there is no program {program:?}")]
    NoProgram { program: String },
    #[error("cannot start {program:?}")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} ended with exit code {code}")]
    Exit { program: String, code: i32 },
    #[error("{program} was ended by signal {signal}")]
    Signal { program: String, signal: i32 },
    #[error("{program} was ended: it left no more than {left} on the disk that it writes to")]
    Filled { program: String, left: ByteSize },
    #[error("{program} ended and left processes running")]
    LeftRunning { program: String },
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} exists and `overwrite` is false")]
    Exists { path: String },
    #[error("{path} is {is}, not {wanted}")]
    WrongType {
        path: String,
        is: &'static str,
        wanted: &'static str,
    },
    #[error("nothing matches {pattern}")]
    NoMatch { pattern: String },
    #[error("several files match {pattern}, so `destination` must end in `/`")]
    ManyMatches { pattern: String },
    #[error("{path} would be copied or moved onto itself")]
    OntoItself { path: String },
    #[error("{target} is inside {source_path}, which cannot hold itself")]
    IntoItself { source_path: String, target: String },
    #[error("{source_path} is inside {target}, which it cannot become")]
    OntoParent { source_path: String, target: String },
    #[error("{path} names no file, so there is no name to keep in `destination`")]
    NoName { path: String },
    #[error("{path} is the root of the image, which stays")]
    Root { path: String },
    #[error("the condition is false{condition}")]
    False { condition: String },
    #[error("{path} is not empty and `force` is not true")]
    NotEmpty { path: String },
    #[error("{path} exists and `force` is not true")]
    LinkExists { path: String },
    #[error("there is no {target}, which {path} should lead to")]
    NoTarget { path: String, target: String },
    #[error("{path} is not text")]
    NotText {
        path: String,
        #[source]
        source: amiforge_recipe::actions::NotText,
    },
    #[error(transparent)]
    NotEncodable(#[from] amiforge_recipe::actions::NotEncodable),
    #[error("{path} has {size} bytes, and no more than {limit} can be taken")]
    TooLarge { path: String, size: u64, limit: u64 },
    #[error("the name of {path} is not UTF-8, so it cannot stand in a list")]
    NotUtf8Name { path: String },
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("{action} works on Windows only, and this is Linux")]
    NotThisPlatform { action: &'static str },
    #[error("none of apt-get, dnf, yum, microdnf, zypper and apk is installed")]
    NoPackageManager,
    #[error(transparent)]
    Net(Box<NetError>),
    #[error(transparent)]
    S3(Box<S3Error>),
    #[error("{place} is no longer what the lock has: that is sha256 {pinned}, this is {found}")]
    Drifted {
        place: String,
        pinned: String,
        found: Digest,
    },
    #[error("{place} {}", crate::NOT_PINNED)]
    NotPinned { place: String },
    #[error("{place} is not downloaded: the key {key:?} cannot become a path below the folder")]
    Key { place: String, key: String },
    #[error("there is no object below {place}")]
    NoObject { place: String },
    #[error("{place} has more than {limit} objects, which S3Download does not take at once")]
    ManyObjects { place: String, limit: usize },
    #[error("{path} is a folder, and `recurse` is not true")]
    NotRecursive { path: String },
    #[error("the name of {path} is not UTF-8, so it cannot be a key")]
    NotUtf8Key { path: String },
    #[error("gave up after {tries} tries")]
    GaveUp {
        tries: u32,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(fuzzing)]
pub(crate) fn fuzz_key(key: &str) {
    s3_download::fuzz(key);
}
