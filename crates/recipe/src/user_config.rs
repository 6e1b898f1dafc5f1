//! The user's configuration: what stands here for what only AWS has.
//!
//! ```yaml
//! parents:
//!   arn:aws:imagebuilder:eu-central-1:aws:image/debian-12-x86/x.x.x: debian:bookworm
//!   ssm:/aws/service/debian/release/12/latest/amd64: debian:bookworm
//! components:
//!   arn:aws:imagebuilder:eu-central-1:123456789012:component/web/1.x.x: components/web.yaml
//! references:
//!   aws:ssm:/web/domain: example.org
//!   aws:ssm:/web/token: {env: WEB_TOKEN}
//!   aws:imds:placement/region: eu-central-1
//!   secret:web.Token: {env: WEB_TOKEN}
//! cacheTrust:
//!   - ed25519:0d4f…
//! secrets:
//!   registry-token: {command: pass show registry}
//! ```

use std::collections::BTreeMap;

use amiforge_types::{Diagnostics, Span};

use crate::component::names_credentials;
use crate::decode::{self, Cx, Fields};
use crate::image_recipe::{ComponentSource, ParentImage, is_secret_name};
use crate::node::{Key, Node, NodeKind};
use crate::reference::SECRET;
use crate::trace::Asked;
use crate::version::{Version, VersionPattern};
use crate::yaml;

/// The user's configuration, without errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserConfig {
    parents: Vec<Entry<ParentImage>>,
    components: Vec<Entry<ComponentSource>>,
    references: BTreeMap<String, ReferenceValue>,
    cache_trust: Vec<String>,
    secrets: BTreeMap<String, SecretSource>,
}

/// Where the value of a secret of a recipe comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretSource {
    /// A variable of the environment.
    Env(String),
    /// A file, byte for byte. A relative path starts in the configuration's folder, or where the command is run.
    File(String),
    /// What a command of `/bin/sh` prints, without the newline at its end.
    Command(String),
}

impl SecretSource {
    /// `env:NAME`, `file:PATH` or `command:TEXT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let rest = Some(rest).filter(|rest| !rest.is_empty())?.to_owned();
        match kind {
            "env" => Some(Self::Env(rest)),
            "file" => Some(Self::File(rest)),
            "command" => Some(Self::Command(rest)),
            _ => None,
        }
    }
}

/// Where the value of a reference to AWS comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceValue {
    /// It stands in the configuration.
    Text(String),
    /// A variable of the environment has it: a secret.
    Environment(String),
    /// A file has it: a secret. A relative path starts in the configuration's folder.
    File(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<T> {
    key: String,
    value: T,
    /// Where the value stands.
    span: Span,
}

impl UserConfig {
    /// What stands for a parent that is written as `text`.
    #[must_use]
    pub fn parent(&self, text: &str) -> Option<&ParentImage> {
        find(&self.parents, text)
    }

    /// The names that `parent` stands for, in the order of the configuration.
    #[must_use]
    pub fn names_of_parent(&self, parent: &ParentImage) -> Vec<&str> {
        let same = self.parents.iter().filter(|entry| entry.value == *parent);
        same.map(|entry| entry.key.as_str()).collect()
    }

    /// What stands for a component that is written as `text`.
    #[must_use]
    pub fn component(&self, text: &str) -> Option<&ComponentSource> {
        find(&self.components, text)
    }

    /// All that stands for components, with its places.
    pub fn components(&self) -> impl Iterator<Item = (&ComponentSource, Span)> {
        self.components
            .iter()
            .map(|entry| (&entry.value, entry.span))
    }

    /// Where the value of `aws:ssm:…` or `aws:imds:…` comes from.
    #[must_use]
    pub fn reference(&self, text: &str) -> Option<&ReferenceValue> {
        self.references.get(text)
    }

    /// Public keys of those whose layers in shared caches are used, `ed25519:` and 64 hex digits each.
    #[must_use]
    pub fn cache_trust(&self) -> &[String] {
        &self.cache_trust
    }

    /// Where the value of a secret is.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&SecretSource> {
        self.secrets.get(name)
    }
}

/// The entry with this very key, else the first whose pattern fits.
fn find<'e, T>(entries: &'e [Entry<T>], text: &str) -> Option<&'e T> {
    let exact = entries.iter().find(|entry| entry.key == text);
    let fitting = || entries.iter().find(|entry| fits(&entry.key, text));
    exact.or_else(fitting).map(|entry| &entry.value)
}

/// Whether a text is meant by a key: they are the same between slashes, but where the key has a version
/// with `x`, the text may have any version of it, or a narrower pattern, and a build number behind.
fn fits(key: &str, text: &str) -> bool {
    let mut texts = text.split('/');
    let mut open = false;
    for part in key.split('/') {
        let Some(found) = texts.next() else {
            return false;
        };
        let pattern = part.parse::<VersionPattern>().ok();
        let wild = pattern.filter(|pattern| pattern.concrete().is_none());
        open = wild.is_some();
        let same = match wild {
            Some(pattern) => is_within(found, &pattern),
            None => part == found,
        };
        if !same {
            return false;
        }
    }
    match (texts.next(), texts.next()) {
        (None, _) => true,
        (Some(build), None) => open && build.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

fn is_within(text: &str, pattern: &VersionPattern) -> bool {
    match text.parse::<Version>() {
        Ok(version) => pattern.matches(&version),
        Err(_) => text
            .parse::<VersionPattern>()
            .is_ok_and(|narrower| narrower.is_within(pattern)),
    }
}

/// Reads the user's configuration. It is there exactly when no problem is an error.
#[must_use]
pub fn parse_config(text: &str) -> (Option<UserConfig>, Diagnostics) {
    let mut diags = Diagnostics::new();
    // A file with nothing but comments configures nothing.
    let nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(nothing) {
        return (Some(UserConfig::default()), diags);
    }
    let config = yaml::parse_node(text, &mut diags).and_then(|node| config(&node, &mut diags));
    (config.filter(|_| !diags.has_errors()), diags)
}

fn config(node: &Node, diags: &mut Diagnostics) -> Option<UserConfig> {
    decode_config(node, &mut Cx::new(diags))
}

/// The same; what is asked for goes into the trace of `cx`.
pub(crate) fn decode_config(node: &Node, cx: &mut Cx<'_>) -> Option<UserConfig> {
    yaml::deny_tags(node, cx);
    let mut fields = Fields::of(node, "the configuration", cx)?;
    let parents = fields.optional("parents", cx, |n, cx| entries(n, cx, ParentImage::parse));
    let components = fields.optional("components", cx, |n, cx| {
        entries(n, cx, ComponentSource::parse)
    });
    let references = fields.optional("references", cx, references);
    let cache_trust = fields.optional("cacheTrust", cx, writers);
    let secrets = fields.optional("secrets", cx, secrets);
    fields.deny_unknown(cx);
    Some(UserConfig {
        parents: parents?.unwrap_or_default(),
        components: components?.unwrap_or_default(),
        references: references?.unwrap_or_default(),
        cache_trust: cache_trust?.unwrap_or_default(),
        secrets: secrets?.unwrap_or_default(),
    })
}

/// Public keys. Whether one is a point of the curve is found out when it is used.
fn writers(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<String>> {
    if node.is_null() {
        return Some(Vec::new());
    }
    decode::list(node, cx, |node, cx| {
        let text = decode::filled(node, cx)?;
        let hex = text.strip_prefix("ed25519:");
        if hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Some(text);
        }
        let message = format!("{} is no key of a writer", decode::shown(&text));
        let help = "`amiforge cache key show` prints one: `ed25519:` and 64 hex digits";
        cx.error_help("invalid-value", node.span, message, Some(help.to_owned()));
        None
    })
}

fn references(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, ReferenceValue>> {
    let mut out = BTreeMap::new();
    for (key, value) in named(node, cx)? {
        if !["aws:ssm:", "aws:imds:", SECRET]
            .iter()
            .any(|form| key.text.starts_with(form))
        {
            let message = format!("{} is no reference to AWS", decode::shown(&key.text));
            let help = "write `aws:ssm:` or `aws:imds:` and what follows it in documents, or `secret:` and the name of a secret parameter";
            cx.error_help("invalid-value", key.span, message, Some(help.to_owned()));
            continue;
        }
        if names_credentials(&key.text) {
            let message = format!("{} names credentials", decode::shown(&key.text));
            let help = "no document can refer to them; leave the line out";
            cx.warning("refused-reference", key.span, message, help);
        }
        if let Some(value) = reference_value(value, cx) {
            out.insert(key.text.clone(), value);
        }
    }
    Some(out)
}

fn secrets(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, SecretSource>> {
    let mut out = BTreeMap::new();
    for (key, value) in named(node, cx)? {
        if !is_secret_name(&key.text) {
            let message = format!(
                "{} cannot be the name of a secret",
                decode::shown(&key.text)
            );
            cx.error("invalid-value", key.span, message);
        }
        if let Some(source) = secret_source(value, cx) {
            out.insert(key.text.clone(), source);
        }
    }
    Some(out)
}

fn secret_source(node: &Node, cx: &mut Cx<'_>) -> Option<SecretSource> {
    let mut fields = Fields::of(node, "the source of a secret", cx)?;
    let env = fields.optional("env", cx, decode::filled);
    let file = fields.optional("file", cx, decode::path);
    let command = fields.optional("command", cx, decode::filled);
    cx.asks(node.span, || Asked::OneOf(vec!["env", "file", "command"]));
    fields.deny_unknown(cx);
    match (env?, file?, command?) {
        (Some(name), None, None) => Some(SecretSource::Env(name)),
        (None, Some(path), None) => Some(SecretSource::File(path)),
        (None, None, Some(text)) => Some(SecretSource::Command(text)),
        (None, None, None) if fields.has_others() => None, // Told already, with what may be meant.
        _ => {
            let message = "a secret has one of the fields `env`, `file` and `command`";
            cx.error("conflicting-fields", node.span, message);
            None
        }
    }
}

fn reference_value(node: &Node, cx: &mut Cx<'_>) -> Option<ReferenceValue> {
    if node.as_text().is_some() {
        return decode::text(node, cx).map(ReferenceValue::Text);
    }
    let mut fields = Fields::of(node, "the value of a reference", cx)?;
    let env = fields.optional("env", cx, decode::filled);
    let file = fields.optional("file", cx, decode::path);
    cx.asks(node.span, || Asked::OneOf(vec!["env", "file"]));
    fields.deny_unknown(cx);
    match (env?, file?) {
        (Some(name), None) => Some(ReferenceValue::Environment(name)),
        (None, Some(path)) => Some(ReferenceValue::File(path)),
        (None, None) if fields.has_others() => None, // Told already, with what may be meant.
        _ => {
            let message = "a value is a text, or has one of the fields `env` and `file`";
            cx.error("conflicting-fields", node.span, message);
            None
        }
    }
}

/// The members of a mapping whose keys are names that the user gives; nothing has none.
fn named<'n>(node: &'n Node, cx: &mut Cx<'_>) -> Option<&'n [(Key, Node)]> {
    if node.is_null() {
        return Some(&[]);
    }
    let NodeKind::Map(fields) = &node.kind else {
        decode::wrong_type(node, "a mapping", cx);
        return None;
    };
    cx.asks(node.span, || Asked::Named { most: usize::MAX });
    Some(fields)
}

fn entries<T>(
    node: &Node,
    cx: &mut Cx<'_>,
    parse: fn(&str) -> Result<T, String>,
) -> Option<Vec<Entry<T>>> {
    let mut out = Vec::new();
    for (key, node) in named(node, cx)? {
        let Some(text) = decode::filled(node, cx) else {
            continue;
        };
        match parse(&text) {
            Ok(value) => out.push(Entry {
                key: key.text.clone(),
                value,
                span: node.span,
            }),
            Err(why) => cx.error("invalid-value", node.span, why),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_wildcards_mean_every_version_of_theirs() {
        let key = "arn:aws:imagebuilder:eu-west-1:aws:component/web/1.x.x";
        let arn =
            |version: &str| format!("arn:aws:imagebuilder:eu-west-1:aws:component/web/{version}");
        for (version, expected) in [
            ("1.0.0", true),
            ("1.2.3/4", true),
            ("1.x.x", true),
            ("1.2.x", true),
            ("x.x.x", false),
            ("2.0.0", false),
            ("1.0.0/x", false),
            ("1.0.0/1/2", false),
            ("latest", false),
        ] {
            assert_eq!(fits(key, &arn(version)), expected, "{version}");
        }
        assert!(fits("ssm:/a/b", "ssm:/a/b"));
        assert!(!fits("ssm:/a/b", "ssm:/a/b/1"));
        assert!(!fits("ssm:/a/b", "ssm:/a"));
        assert!(!fits(&arn("1.0.0"), &arn("1.0.0/1")));
    }

    #[test]
    fn the_very_key_comes_before_a_pattern() {
        let text = "parents:\n  a/x.x.x: debian:bookworm\n  a/1.0.0: debian:trixie\ncomponents:\n";
        let config = parse_config(text).0.unwrap();
        let parent = |text: &str| config.parent(text).map(ToString::to_string);
        assert_eq!(parent("a/1.0.0").as_deref(), Some("debian:trixie"));
        assert_eq!(parent("a/1.0.1").as_deref(), Some("debian:bookworm"));
        assert_eq!(parent("b/1.0.1"), None);
        assert_eq!(config.component("a/1.0.0"), None);
    }

    #[test]
    fn references_have_a_text_or_a_secret() {
        let text = "references:\n  aws:ssm:/a: plain\n  aws:ssm:/b: {env: B}\n  aws:imds:mac: {file: mac}\n";
        let config = parse_config(text).0.unwrap();
        let value = |name: &str| config.reference(name).cloned();
        assert_eq!(
            value("aws:ssm:/a"),
            Some(ReferenceValue::Text("plain".into()))
        );
        assert_eq!(
            value("aws:ssm:/b"),
            Some(ReferenceValue::Environment("B".into()))
        );
        assert_eq!(
            value("aws:imds:mac"),
            Some(ReferenceValue::File("mac".into()))
        );
        assert_eq!(value("aws:ssm:/c"), None);
        let wrong = "references:\n  ssm:/a: x\n  aws:ssm:/b: {}\n  aws:ssm:/c: {env: C, file: c}\n  aws:ssm:/d: [x]\n";
        assert_eq!(parse_config(wrong).1.iter().count(), 4);
    }

    #[test]
    fn secrets_have_one_source() {
        let text = "secrets:\n  a: {env: A}\n  b.c: {file: b}\n  d: {command: pass show d}\n";
        let config = parse_config(text).0.unwrap();
        assert_eq!(config.secret("a"), Some(&SecretSource::Env("A".into())));
        assert_eq!(config.secret("b.c"), SecretSource::parse("file:b").as_ref());
        assert_eq!(
            config.secret("d"),
            SecretSource::parse("command:pass show d").as_ref()
        );
        assert_eq!(SecretSource::parse("env:"), None);
        assert_eq!(SecretSource::parse("value:x"), None);
        let wrong = "secrets:\n  ../a: {env: A}\n  b: {}\n  c: {env: C, file: c}\n  d: plain\n";
        assert_eq!(parse_config(wrong).1.iter().count(), 4);
    }

    #[test]
    fn wrong_entries_have_their_place() {
        let codes = |text: &str| -> Vec<String> {
            parse_config(text)
                .1
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(codes("# nothing\n"), Vec::<String>::new());
        let found =
            codes("parent: {}\nparents:\n  ami-1: ami-2\n  ami-3: plan9:x\ncomponents: [a]\n");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found
                .iter()
                .any(|problem| problem.starts_with("3:10: error[invalid-value]")),
            "{found:?}"
        );
    }
}
