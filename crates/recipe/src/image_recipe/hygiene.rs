//! What stands below `amiforge.hygiene`.

use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// What is made of secrets that are found in a finished image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hygiene {
    /// Whether they end the build.
    pub findings: Findings,
    /// Where they may be: absolute paths in which `*` stands for any part of a name, and `**` for any names.
    pub allow: Vec<String>,
}

/// How findings are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Findings {
    /// The build fails.
    #[default]
    Error,
    /// The build goes on.
    Warning,
}

pub(super) fn hygiene(node: &Node, cx: &mut Cx<'_>) -> Option<Hygiene> {
    let mut fields = Fields::of(node, "`amiforge.hygiene`", cx)?;
    let words = [("error", Findings::Error), ("warning", Findings::Warning)];
    let findings = fields.optional("findings", cx, |n, cx| decode::choice(n, cx, &words));
    let allow = fields.optional("allow", cx, |n, cx| decode::list(n, cx, path));
    fields.deny_unknown(cx);
    Some(Hygiene {
        findings: findings?.unwrap_or_default(),
        allow: allow?.unwrap_or_default(),
    })
}

fn path(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let names = text.strip_prefix('/');
    let bad = names.is_none_or(|names| {
        names
            .split('/')
            .any(|name| name.is_empty() || name == "." || name == "..")
    });
    if bad {
        let message = format!(
            "{} is no absolute path without `.`, `..` and empty names",
            decode::shown(&text)
        );
        let help = Some(
            "such as /etc/ssl/private/app.key, /home/*/.ssh/authorized_keys or /opt/app/**"
                .to_owned(),
        );
        cx.error_help("invalid-path", node.span, message, help);
        return None;
    }
    Some(text)
}
