//! `ExecuteDocument`: run the phases of another component document.
//! Reference: AWSTOE action modules, ExecuteDocument.

use std::collections::BTreeMap;
use std::fmt;

use amiforge_types::Span;

use super::s3_uri::account_id;
use super::{Inputs, S3Uri, required_inputs};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::Node;

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
            return Ok(Self::Path(text.to_owned()));
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
    if cx.defers(&text) {
        return Some(DocumentSource::Path(text));
    }
    match DocumentSource::of(&text) {
        Ok(source) => {
            if matches!(&source, DocumentSource::Path(path) if !path.starts_with('/')) {
                let message = format!(
                    "{} starts in the working folder of the machine that runs the step",
                    shown(&text)
                );
                let help = "the folder of this document is not looked into: write the whole path that the file has on the machine";
                cx.warning("relative-path", node.span, message, help);
            }
            Some(source)
        }
        Err(problem) => {
            let message = format!("{} names no document: {problem}", shown(&text));
            let help = "write a path of the machine, `s3://bucket/key`, or the ARN of a component";
            cx.error_help(
                "invalid-document",
                node.span,
                message,
                Some(help.to_owned()),
            );
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
