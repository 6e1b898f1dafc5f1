//! `InstallMSI` and `UninstallMSI`: packages of the Windows Installer.
//! Reference: AWSTOE action modules, InstallMSI, UninstallMSI. Windows only.

use std::collections::BTreeMap;

use amiforge_types::Span;

use super::{Inputs, required_inputs};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Node, NodeKind};
use crate::trace::Asked;

/// Letters of `logOptions`.
const LOG_OPTIONS: &str = "iwearucmopvx+!*";

/// One package. Outputs: `logFile`, `msiExitCode`, `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msi {
    /// A path, or an address that starts with `s3://`, `http://` or `https://`.
    pub path: String,
    /// Whether the machine may restart.
    pub reboot: MsiReboot,
    /// Flags of `msiexec /L`.
    pub log_options: String,
    /// Where the log goes.
    pub log_file: Option<String>,
    /// Properties of the package.
    pub properties: BTreeMap<String, String>,
    /// Take a package whose signature is not valid.
    pub ignore_signature_errors: bool,
    /// Take a package without signature.
    pub allow_unsigned: bool,
}

/// What a package that wants a restart gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsiReboot {
    /// It may.
    Allow,
    /// It does.
    Force,
    /// It does not.
    Skip,
}

/// Inputs of `InstallMSI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallMsi(pub Msi);

/// Inputs of `UninstallMSI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UninstallMsi(pub Msi);

impl Inputs for InstallMsi {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        msi(inputs, step, "InstallMSI", cx).map(Self)
    }
}

impl Inputs for UninstallMsi {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        msi(inputs, step, "UninstallMSI", cx).map(Self)
    }
}

fn msi(inputs: Option<&Node>, step: Span, what: &'static str, cx: &mut Cx<'_>) -> Option<Msi> {
    let node = required_inputs(inputs, step, cx)?;
    let mut fields = Fields::of(node, what, cx)?;
    let path = fields.required("path", cx, decode::path);
    let reboot = fields.optional("reboot", cx, |n, cx| {
        let choices = [
            ("Allow", MsiReboot::Allow),
            ("Force", MsiReboot::Force),
            ("Skip", MsiReboot::Skip),
        ];
        decode::choice(n, cx, &choices)
    });
    let log_options = fields.optional("logOptions", cx, log_options);
    let log_file = fields.optional("logFile", cx, decode::path);
    let properties = fields.optional("properties", cx, properties);
    let ignore = fields.optional("ignoreAuthenticodeSignatureErrors", cx, decode::boolean);
    let unsigned = fields.optional("allowUnsignedInstaller", cx, decode::boolean);
    fields.deny_unknown(cx);
    Some(Msi {
        path: path?,
        reboot: reboot?.unwrap_or(MsiReboot::Allow),
        log_options: log_options?.unwrap_or_else(|| "*VX".to_owned()),
        log_file: log_file?,
        properties: properties?.unwrap_or_default(),
        ignore_signature_errors: ignore?.unwrap_or(false),
        allow_unsigned: unsigned?.unwrap_or(false),
    })
}

fn log_options(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let known = |c: char| LOG_OPTIONS.contains(c.to_ascii_lowercase());
    if !cx.defers(&text) && !text.chars().all(known) {
        let message = format!("{} has flags that msiexec does not know", shown(&text));
        let help = Some(format!("flags are the characters of `{LOG_OPTIONS}`"));
        cx.error_help("invalid-choice", node.span, message, help);
        return None;
    }
    Some(text)
}

fn properties(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, String>> {
    let NodeKind::Map(fields) = &node.kind else {
        decode::wrong_type(node, "a mapping", cx);
        return None;
    };
    cx.asks(node.span, || Asked::Named { most: usize::MAX });
    let pairs: Vec<Option<(String, String)>> = fields
        .iter()
        .map(|(key, value)| Some((key.text.clone(), decode::text(value, cx)?)))
        .collect();
    pairs.into_iter().collect()
}
