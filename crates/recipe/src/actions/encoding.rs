//! Text encodings of the actions that read and write files.
//! Reference: AWSTOE action modules, the `encoding` input. `ascii` is ours.

use super::Fields;
use crate::decode::{self, Cx};
use crate::node::Node;
use crate::suggest;
use crate::trace::Asked;

/// A text encoding; none writes a byte order mark of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// ASCII; not in the reference.
    Ascii,
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

/// Bytes that are no text of an encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} is not {encoding}: {what}")]
pub struct NotText {
    /// Where it is, from 0.
    pub offset: usize,
    /// The encoding asked for.
    pub encoding: &'static str,
    /// What is wrong.
    pub what: String,
}

/// A character that an encoding lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{encoding} has no {character:?}, which is at byte {offset} of the text")]
pub struct NotEncodable {
    /// Where it is in the UTF-8 text, from 0.
    pub offset: usize,
    /// The encoding asked for.
    pub encoding: &'static str,
    /// The character.
    pub character: char,
}

/// The character of a byte order mark.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

impl Encoding {
    /// The name for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ascii => "ASCII",
            Self::Utf8 => "UTF-8",
            Self::Utf16Le => "UTF-16-LE",
            Self::Utf16Be => "UTF-16-BE",
            Self::Utf32Le => "UTF-32-LE",
            Self::Utf32Be => "UTF-32-BE",
        }
    }

    /// The bytes of `text`.
    ///
    /// # Errors
    /// When the encoding lacks a character.
    pub fn encode(self, text: &str) -> Result<Vec<u8>, NotEncodable> {
        Ok(match self {
            Self::Ascii => match text.char_indices().find(|(_, c)| !c.is_ascii()) {
                Some((offset, character)) => {
                    return Err(NotEncodable {
                        offset,
                        encoding: self.name(),
                        character,
                    });
                }
                None => text.as_bytes().to_vec(),
            },
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
        })
    }

    /// The text of `bytes`; a byte order mark stays in it.
    ///
    /// # Errors
    /// Names the first byte that is no text of this encoding.
    pub fn decode(self, bytes: &[u8]) -> Result<String, NotText> {
        match self {
            Self::Ascii => match bytes.iter().position(|b| !b.is_ascii()) {
                Some(offset) => Err(self.not_text(offset, "it is above 0x7f")),
                // ASCII is UTF-8.
                None => Ok(String::from_utf8_lossy(bytes).into_owned()),
            },
            Self::Utf8 => std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| {
                let what = if e.error_len().is_none() {
                    "the character is cut off"
                } else {
                    "no character is written so"
                };
                self.not_text(e.valid_up_to(), what)
            }),
            Self::Utf16Le => self.utf16(bytes, u16::from_le_bytes),
            Self::Utf16Be => self.utf16(bytes, u16::from_be_bytes),
            Self::Utf32Le => self.utf32(bytes, u32::from_le_bytes),
            Self::Utf32Be => self.utf32(bytes, u32::from_be_bytes),
        }
    }

    fn not_text(self, offset: usize, what: impl Into<String>) -> NotText {
        NotText {
            offset,
            encoding: self.name(),
            what: what.into(),
        }
    }

    fn utf16(self, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, NotText> {
        let (units, rest) = bytes.as_chunks::<2>();
        if units.first().is_some_and(|first| unit(*first) == 0xfffe) {
            let what = "the byte order mark is of the other order";
            return Err(self.not_text(0, what));
        }
        let mut text = String::with_capacity(units.len());
        let mut offset = 0;
        for character in char::decode_utf16(units.iter().map(|u| unit(*u))) {
            let character = character.map_err(|e| {
                let what = format!("0x{:04x} has no other half", e.unpaired_surrogate());
                self.not_text(offset, what)
            })?;
            offset += 2 * character.len_utf16();
            text.push(character);
        }
        if !rest.is_empty() {
            return Err(self.not_text(offset, "the last character is cut off"));
        }
        Ok(text)
    }

    fn utf32(self, bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Result<String, NotText> {
        let (units, rest) = bytes.as_chunks::<4>();
        let mut text = String::with_capacity(units.len());
        for (index, number) in units.iter().map(|u| unit(*u)).enumerate() {
            let character = char::from_u32(number).ok_or_else(|| {
                self.not_text(4 * index, format!("0x{number:08x} is no character"))
            })?;
            text.push(character);
        }
        if !rest.is_empty() {
            return Err(self.not_text(4 * units.len(), "the last character is cut off"));
        }
        Ok(text)
    }
}

/// The names of the reference; in any letter case, and also without the first `-`. `ascii` is read too.
const NAMES: [&str; 7] = [
    "utf-8",
    "utf-16",
    "utf-16-LE",
    "utf-16-BE",
    "utf-32",
    "utf-32-LE",
    "utf-32-BE",
];

/// The value of an `encoding` field.
pub(super) fn encoding(node: &Node, cx: &mut Cx<'_>) -> Option<Encoding> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || {
        Asked::Usual(NAMES.map(str::to_owned).to_vec())
    });
    if cx.defers(&text) {
        return Some(Encoding::Utf8);
    }
    match text.to_ascii_lowercase().as_str() {
        "ascii" | "us-ascii" => {
            cx.warning(
                "aws-limit",
                node.span,
                format!("AWSTOE has no encoding {}", decode::shown(&text)),
                "write `utf-8`: the bytes of a text in ASCII are the same",
            );
            Some(Encoding::Ascii)
        }
        "utf8" | "utf-8" => Some(Encoding::Utf8),
        "utf16" | "utf-16" | "utf16-le" | "utf-16-le" => Some(Encoding::Utf16Le),
        "utf16-be" | "utf-16-be" => Some(Encoding::Utf16Be),
        "utf32" | "utf-32" | "utf32-le" | "utf-32-le" => Some(Encoding::Utf32Le),
        "utf32-be" | "utf-32-be" => Some(Encoding::Utf32Be),
        _ => {
            let message = format!("{} is not a known encoding", decode::shown(&text));
            let help = suggest::did_you_mean(&text, NAMES).unwrap_or_else(|| {
                "write utf-8; there are utf-16 and utf-32 too, alone or with -LE or -BE".to_owned()
            });
            cx.error_help("invalid-choice", node.span, message, Some(help));
            None
        }
    }
}

/// The fields `content`, empty when absent, and `encoding`, which must have all its characters.
pub(super) fn content(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<(String, Encoding)> {
    // A plain empty value (`content:`) is the empty file it looks like.
    let content = fields.optional("content", cx, |node, cx| {
        let text = if node.is_null() {
            String::new()
        } else {
            decode::text(node, cx)?
        };
        Some((text, node.span))
    });
    let encoding = fields.optional("encoding", cx, encoding);
    let (content, encoding) = (content?, encoding?.unwrap_or(Encoding::Utf8));
    let Some((text, span)) = content else {
        return Some((String::new(), encoding));
    };
    if !cx.defers(&text)
        && let Err(problem) = encoding.encode(&text)
    {
        cx.error("not-encodable", span, problem.to_string());
        return None;
    }
    Some((text, encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Encoding] = &[
        Encoding::Utf8,
        Encoding::Utf16Le,
        Encoding::Utf16Be,
        Encoding::Utf32Le,
        Encoding::Utf32Be,
    ];

    #[test]
    fn text_comes_back_from_its_bytes() {
        for text in ["", "plain\n", "\u{feff}mark", "ä€😀\0", "\u{10ffff}"] {
            for encoding in ALL {
                let bytes = encoding.encode(text).unwrap();
                assert_eq!(encoding.decode(&bytes).unwrap(), text, "{encoding:?}");
            }
        }
        assert_eq!(Encoding::Ascii.encode("a\n").unwrap(), b"a\n");
        assert_eq!(Encoding::Ascii.decode(b"a\n").unwrap(), "a\n");
        assert_eq!(Encoding::Utf16Be.encode("ä").unwrap(), b"\0\xe4");
        assert_eq!(Encoding::Utf16Le.encode("ä").unwrap(), b"\xe4\0");
    }

    #[test]
    fn errors_name_the_byte() {
        let cases: &[(Encoding, &[u8], &str)] = &[
            (
                Encoding::Ascii,
                b"ab\x80",
                "byte 2 is not ASCII: it is above 0x7f",
            ),
            (
                Encoding::Utf8,
                b"abc\xff",
                "byte 3 is not UTF-8: no character is written so",
            ),
            (
                Encoding::Utf8,
                b"\xc3\xa4\xe2\x82",
                "byte 2 is not UTF-8: the character is cut off",
            ),
            (
                Encoding::Utf16Le,
                b"a\0b",
                "byte 2 is not UTF-16-LE: the last character is cut off",
            ),
            (
                Encoding::Utf16Le,
                b"a\0\0\xd8",
                "byte 2 is not UTF-16-LE: 0xd800 has no other half",
            ),
            (
                Encoding::Utf16Be,
                b"\xd8\x3d\xde\x00\xde\x00",
                "byte 4 is not UTF-16-BE: 0xde00 has no other half",
            ),
            (
                Encoding::Utf16Le,
                b"\xfe\xff\0a",
                "byte 0 is not UTF-16-LE: the byte order mark is of the other order",
            ),
            (
                Encoding::Utf16Be,
                b"\xff\xfea\0",
                "byte 0 is not UTF-16-BE: the byte order mark is of the other order",
            ),
            (
                Encoding::Utf32Le,
                b"a\0\0\0\0\0\x11\0",
                "byte 4 is not UTF-32-LE: 0x00110000 is no character",
            ),
            (
                Encoding::Utf32Be,
                b"\0\0\0a\0",
                "byte 4 is not UTF-32-BE: the last character is cut off",
            ),
        ];
        for (encoding, bytes, expected) in cases {
            assert_eq!(encoding.decode(bytes).unwrap_err().to_string(), *expected);
        }
        assert_eq!(
            Encoding::Ascii.encode("ab€").unwrap_err().to_string(),
            "ASCII has no '€', which is at byte 2 of the text"
        );
    }
}
