//! `ExecuteDocument`: run the phases of another component document.
//! Reference: AWSTOE action modules, ExecuteDocument.

use std::collections::BTreeMap;
use std::fmt;

use amiforge_types::Span;

use super::s3_uri::account_id;
use super::{Inputs, S3Uri, required_inputs};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Node, NodeKind};

/// What is run, found when the step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteDocument {
    /// Where the document is.
    pub document: DocumentSource,
    /// The account that must own the bucket, 12 digits.
    pub bucket_owner: Option<String>,
    /// Phases to run; empty for all.
    pub phases: Vec<String>,
    /// Values of its parameters.
    pub parameters: BTreeMap<String, String>,
}

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentSource {
    /// A file of the machine.
    Path(String),
    /// An object of S3.
    S3(S3Uri),
    /// The ARN of a component's build version.
    Arn(String),
}

impl DocumentSource {
    fn of(text: &str) -> Result<Self, String> {
        if text.starts_with("s3://") {
            return match S3Uri::parse(text) {
                Ok(uri) if uri.key.is_empty() => Err("it names a bucket and no key".to_owned()),
                Ok(uri) => Ok(Self::S3(uri)),
                Err(error) => Err(error.to_string()),
            };
        }
        if !text.starts_with("arn:") {
            return match scheme(text) {
                Some(scheme) => Err(format!("`{scheme}://` is no place of documents")),
                None => Ok(Self::Path(text.to_owned())),
            };
        }
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["arn", _, "imagebuilder", _, _, name] if name.starts_with("component/") => {
                Ok(Self::Arn(text.to_owned()))
            }
            _ => Err("it is not the ARN of a component".to_owned()),
        }
    }
}

/// What stands before `://`, when that is how the text begins.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(is_part))
        .then_some(scheme)
}

/// Whether a path says on which machine's root or drive it begins; those of Windows are none of ours.
fn is_whole(path: &str) -> bool {
    let drive = |bytes: &[u8]| matches!(bytes, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    path.starts_with('/') || path.starts_with(r"\\") || drive(path.as_bytes())
}

/// Whether the ARN of a component names one build: `component/<name>/<x.y.z>/<build>`.
fn is_of_a_build(arn: &str) -> bool {
    let parts: Vec<&str> = arn.split('/').collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    matches!(parts.as_slice(), [_, _, version, build]
        if number(build) && version.split('.').count() == 3 && version.split('.').all(number))
}

impl fmt::Display for DocumentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(text) | Self::Arn(text) => f.write_str(text),
            Self::S3(uri) => uri.fmt(f),
        }
    }
}

impl Inputs for ExecuteDocument {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        let mut fields = Fields::of(node, "ExecuteDocument", cx)?;
        let document = fields.required("document", cx, document);
        let bucket_owner = fields.optional("document-s3-bucket-owner", cx, account_id);
        let phases = fields.optional("phases", cx, phases);
        let parameters = fields.optional("parameters", cx, parameters);
        fields.deny_unknown(cx);
        Some(Self {
            document: document?,
            bucket_owner: bucket_owner?,
            phases: phases?.unwrap_or_default(),
            parameters: parameters?.unwrap_or_default(),
        })
    }
}

fn document(node: &Node, cx: &mut Cx<'_>) -> Option<DocumentSource> {
    let text = decode::path(node, cx)?;
    if cx.defers(&text) || node.is_opaque() {
        return Some(DocumentSource::Path(text));
    }
    match DocumentSource::of(&text) {
        Ok(source) => {
            match &source {
                DocumentSource::Path(path) if !is_whole(path) => {
                    let message = format!(
                        "{} starts in the working folder of the machine that runs the step",
                        shown(&text)
                    );
                    let help = "the folder of this document is not looked into: write the whole path that the file has on the machine";
                    cx.warning("relative-path", node.span, message, help);
                }
                DocumentSource::Arn(arn) if !is_of_a_build(arn) => {
                    let message = format!("{} names no build of a component", shown(&text));
                    let help = "ExecuteDocument takes the ARN of one build: end it with a whole version and a build number, as `/1.0.0/1`";
                    cx.warning("no-build-version", node.span, message, help);
                }
                _ => {}
            }
            Some(source)
        }
        Err(problem) => {
            let message = format!("{} names no document: {problem}", shown(&text));
            let help = match scheme(&text).map(str::to_ascii_lowercase).as_deref() {
                Some("http" | "https") => {
                    "get it with WebDownload in a step before, and write the path that it has then"
                        .to_owned()
                }
                Some("file") => {
                    let path = text.get("file://".len()..).unwrap_or_default();
                    let path = path.strip_prefix("localhost").unwrap_or(path);
                    format!("write the path: `{path}`")
                }
                _ => "write a path of the machine, `s3://bucket/key`, or the ARN of a component"
                    .to_owned(),
            };
            cx.error_help("invalid-document", node.span, message, Some(help));
            None
        }
    }
}

fn phases(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<String>> {
    let text = decode::text(node, cx)?;
    let names = text.split(',').map(|name| name.trim().to_owned());
    Some(names.filter(|name| !name.is_empty()).collect())
}

fn parameters(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, String>> {
    if matches!(node.kind, NodeKind::Map(_)) {
        let help = Some("write each as `- {name: Name, value: text}`".to_owned());
        let message = "expected a list, found a mapping";
        cx.error_help("wrong-type", node.span, message, help);
        return None;
    }
    let pairs = decode::list(node, cx, |n, cx| {
        let mut fields = Fields::of(n, "a parameter", cx)?;
        let name = fields.required("name", cx, decode::filled);
        let value = fields.required("value", cx, |n, cx| {
            if n.is_null() {
                return Some(String::new());
            }
            decode::text(n, cx)
        });
        fields.deny_unknown(cx);
        Some((name?, value?, n.span))
    })?;
    let mut all = BTreeMap::new();
    for (name, value, span) in pairs {
        if all.insert(name.clone(), value).is_some() {
            let message = format!("the parameter {} is given twice", shown(&name));
            cx.error("duplicate-name", span, message);
            return None;
        }
    }
    Some(all)
}
