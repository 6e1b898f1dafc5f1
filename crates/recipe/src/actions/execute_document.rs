//! `ExecuteDocument`: run the phases of another component document.
//! Reference: AWSTOE action modules, ExecuteDocument.

use std::collections::BTreeMap;

use amiforge_types::Span;

use super::{Inputs, required_inputs};
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
    /// `s3://bucket/key`, whole.
    S3(String),
    /// The ARN of a component's build version.
    Arn(String),
}

impl DocumentSource {
    fn of(text: &str) -> Self {
        let text = text.to_owned();
        if text.starts_with("s3://") {
            Self::S3(text)
        } else if text.starts_with("arn:") {
            Self::Arn(text)
        } else {
            Self::Path(text)
        }
    }

    /// As the document names it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Path(text) | Self::S3(text) | Self::Arn(text) => text,
        }
    }
}

impl Inputs for ExecuteDocument {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        let mut fields = Fields::of(node, "ExecuteDocument", cx)?;
        let document = fields.required("document", cx, document);
        let bucket_owner = fields.optional("document-s3-bucket-owner", cx, account);
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
    let source = DocumentSource::of(&text);
    if cx.defers(&text) {
        return Some(source);
    }
    let (problem, help) = match &source {
        DocumentSource::S3(uri) => {
            let place = uri.trim_start_matches("s3://").split_once('/');
            if place.is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) {
                return Some(source);
            }
            ("is not an object of S3", "write `s3://bucket/key`")
        }
        DocumentSource::Arn(arn) => {
            let parts: Vec<&str> = arn.split(':').collect();
            if matches!(parts.as_slice(), ["arn", _, "imagebuilder", _, _, name] if name.starts_with("component/"))
            {
                return Some(source);
            }
            (
                "is not the ARN of a component",
                "it looks like `arn:aws:imagebuilder:us-east-1:123456789012:component/name/1.0.0/1`",
            )
        }
        DocumentSource::Path(_) => return Some(source),
    };
    let message = format!("{} {problem}", shown(&text));
    cx.error_help(
        "invalid-document",
        node.span,
        message,
        Some(help.to_owned()),
    );
    None
}

fn account(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::text(node, cx)?;
    let digits = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits && !cx.defers(&text) {
        let message = format!("{} is not the id of an account", shown(&text));
        let help = Some("an account id has 12 digits; put it in quotes".to_owned());
        cx.error_help("invalid-account", node.span, message, help);
        return None;
    }
    Some(text)
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
