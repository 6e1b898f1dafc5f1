//! `CreateFile`: write text files.
//! Reference: AWSTOE action modules, CreateFile.

use super::{Entry, FileMode, file_mode};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// One file to write; parent folders are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFile {
    /// The file.
    pub path: String,
    /// Its text; empty when absent.
    pub content: String,
    /// How the text becomes bytes.
    pub encoding: Encoding,
    /// User name or number.
    pub owner: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// Mode; `0666` less the umask when absent.
    pub permissions: Option<FileMode>,
    /// False: an existing file is an error. True (default): it is truncated and written.
    pub overwrite: bool,
}

impl Entry for CreateFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, decode::path);
        // A plain empty value (`content:`) is the empty file it looks like.
        let content = fields.optional("content", cx, |n, cx| {
            if n.is_null() {
                Some(String::new())
            } else {
                decode::text(n, cx)
            }
        });
        let encoding = fields.optional("encoding", cx, encoding);
        let owner = fields.optional("owner", cx, decode::filled);
        let group = fields.optional("group", cx, decode::filled);
        let permissions = fields.optional("permissions", cx, file_mode);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        Some(Self {
            path: path?,
            content: content?.unwrap_or_default(),
            encoding: encoding?.unwrap_or(Encoding::Utf8),
            owner: owner?,
            group: group?,
            permissions: permissions?,
            overwrite: overwrite?.unwrap_or(true),
        })
    }
}

/// A text encoding; none writes a byte order mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, low byte first (also plain `utf16`).
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
    /// UTF-32, low byte first (also plain `utf32`).
    Utf32Le,
    /// UTF-32, high byte first.
    Utf32Be,
}

impl Encoding {
    /// The bytes of `text`.
    #[must_use]
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Self::Utf32Le => text
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect(),
            Self::Utf32Be => text
                .chars()
                .flat_map(|c| u32::from(c).to_be_bytes())
                .collect(),
        }
    }
}

fn encoding(node: &Node, cx: &mut Cx<'_>) -> Option<Encoding> {
    let text = decode::filled(node, cx)?;
    if cx.defers(&text) {
        return Some(Encoding::Utf8);
    }
    match text.to_ascii_lowercase().as_str() {
        "utf8" | "utf-8" => Some(Encoding::Utf8),
        "utf16" | "utf-16" | "utf16-le" | "utf-16-le" => Some(Encoding::Utf16Le),
        "utf16-be" | "utf-16-be" => Some(Encoding::Utf16Be),
        "utf32" | "utf-32" | "utf32-le" | "utf-32-le" => Some(Encoding::Utf32Le),
        "utf32-be" | "utf-32-be" => Some(Encoding::Utf32Be),
        _ => {
            let message = format!("{} is not a known encoding", decode::shown(&text));
            let help = "use utf-8, utf-16, utf-16-LE, utf-16-BE, utf-32, utf-32-LE or utf-32-BE";
            cx.error_help("invalid-choice", node.span, message, Some(help.to_owned()));
            None
        }
    }
}
