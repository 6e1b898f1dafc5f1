//! `SetRegistry`: values of the Windows registry.
//! Reference: AWSTOE action modules, SetRegistry. Windows only.

use super::Entry;
use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Node, NodeKind};

/// One value to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRegistry {
    /// The key, from one of the roots.
    pub path: String,
    /// The value's name.
    pub name: String,
    /// The value: one text, or one per entry of a list.
    pub value: Vec<String>,
    /// How it is stored.
    pub kind: RegistryType,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryType {
    /// Bytes.
    Binary,
    /// A number of 32 bits.
    Dword,
    /// A number of 64 bits.
    Qword,
    /// Text.
    Sz,
    /// Text with references to the environment.
    ExpandSz,
    /// Texts.
    MultiSz,
}

const TYPES: [(&str, RegistryType); 6] = [
    ("BINARY", RegistryType::Binary),
    ("DWORD", RegistryType::Dword),
    ("QWORD", RegistryType::Qword),
    ("SZ", RegistryType::Sz),
    ("EXPAND_SZ", RegistryType::ExpandSz),
    ("MULTI_SZ", RegistryType::MultiSz),
];

/// Short and long form of the roots.
const ROOTS: [(&str, &str); 5] = [
    ("HKCR", "HKEY_CLASSES_ROOT"),
    ("HKU", "HKEY_USERS"),
    ("HKLM", "HKEY_LOCAL_MACHINE"),
    ("HKCC", "HKEY_CURRENT_CONFIG"),
    ("HKCU", "HKEY_CURRENT_USER"),
];

impl Entry for SetRegistry {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, path);
        let name = fields.required("name", cx, decode::text);
        let value = fields.required("value", cx, value);
        let kind = fields.required("type", cx, |n, cx| decode::choice(n, cx, &TYPES));
        Some(Self {
            path: path?,
            name: name?,
            value: value?,
            kind: kind?,
        })
    }
}

fn path(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let root = text.split('\\').next().unwrap_or_default();
    let root = root.trim_end_matches(':').to_ascii_uppercase();
    let known = ROOTS
        .iter()
        .any(|(short, long)| root == *short || root == *long);
    if !known && !cx.defers(&text) {
        let message = format!(
            "{} does not begin with a root of the registry",
            shown(&text)
        );
        let roots: Vec<String> = ROOTS
            .iter()
            .map(|(short, _)| format!("`{short}:\\`"))
            .collect();
        let help = format!("roots: {}", roots.join(", "));
        cx.error_help("invalid-path", node.span, message, Some(help));
        return None;
    }
    Some(text)
}

fn value(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<String>> {
    match &node.kind {
        NodeKind::Seq(_) => decode::list(node, cx, decode::text),
        _ => decode::text(node, cx).map(|text| vec![text]),
    }
}
