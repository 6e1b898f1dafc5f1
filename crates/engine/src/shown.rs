//! Bytes of an image as text that can do nothing to a terminal and still says which bytes they were.

use std::fmt::Write as _;

/// Printable text as it is, a backslash doubled, bytes that are not UTF-8 as `\xNN`, characters that move
/// the cursor or the reading direction or do not show as `\u{N}`.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || is_hidden(c) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A path of the image, from its root.
pub(crate) fn path(bytes: &[u8]) -> String {
    format!("/{}", shown(bytes))
}

/// Zero width, line separators, and marks of reading direction.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_drives_a_terminal_gets_through() {
        for (bytes, text) in [
            (&b"plain name.txt"[..], "plain name.txt"),
            ("caf\u{e9} \u{4e2d}".as_bytes(), "caf\u{e9} \u{4e2d}"),
            (b"\x1b[2J\x07\r\n\t", "\\u{1b}[2J\\u{7}\\u{d}\\u{a}\\u{9}"),
            (
                "\u{9b}31m\u{202e}txt.exe".as_bytes(),
                "\\u{9b}31m\\u{202e}txt.exe",
            ),
            (b"a\\x41\xff", "a\\\\x41\\xff"),
            (b"\xc3", "\\xc3"),
        ] {
            assert_eq!(shown(bytes), text);
        }
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
