//! The restrictions of a container, without a container engine.

use std::ffi::OsStr;
use std::process::Command;

use crate::tool;

const PROGRAM: &str = include_str!("container.py");

/// Runs a program as root of a container that allows neither namespaces nor mounts, as container engines start
/// them when nothing else is asked for. The file system and the processes are those of the machine.
#[must_use]
pub fn in_container(program: impl AsRef<OsStr>) -> Command {
    let mut command = tool("python3");
    command.args(["-c", PROGRAM]).arg(program);
    command
}
