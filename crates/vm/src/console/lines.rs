//! Console bytes to plain lines.

/// Longest line that is kept together; longer ones are cut.
const LINE_MAX: usize = 4096;
/// Longest escape sequence; anything longer was not one.
const ESCAPE_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`: ends at a byte of 0x40-0x7E (ECMA-48 section 5.4).
    Csi,
    /// After ESC `]` and the like: ends at BEL or ESC `\`.
    String,
    /// ESC inside a string.
    StringEscape,
    /// After ESC and an intermediate byte such as `(`: one more byte.
    Designate,
}

/// Splits console output into lines: escape codes removed, ended by LF, by CR (progress lines are
/// overwritten that way), or by a code that moves the cursor elsewhere (menus are drawn that way).
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: State,
    escape_len: usize,
    line: Vec<u8>,
}

impl Lines {
    /// Feeds bytes; returns the lines they finished, blank ones left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut done = Vec::new();
        for &b in bytes {
            self.byte(b, &mut done);
        }
        done
    }

    /// The line begun.
    pub(super) fn partial(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    fn byte(&mut self, b: u8, done: &mut Vec<String>) {
        if self.state != State::Text {
            self.escape_len += 1;
            if self.escape_len > ESCAPE_MAX {
                self.state = State::Text;
            }
        }
        self.state = match (self.state, b) {
            (_, 0x1B) if self.state != State::String => {
                self.escape_len = 0;
                State::Escape
            }
            (State::Text, b'\n' | b'\r') => {
                self.finish(done);
                State::Text
            }
            (State::Text, b'\t') => {
                self.push(b' ', done);
                State::Text
            }
            // Backspace takes back the last character: prompts and spinners use it.
            (State::Text, 0x08) => {
                self.line.pop();
                State::Text
            }
            (State::Text, 0x00..=0x1F | 0x7F) => State::Text,
            (State::Text, _) => {
                self.push(b, done);
                State::Text
            }
            (State::Escape, b'[') => State::Csi,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape, b' '..=b'/') => State::Designate,
            (State::Escape, b'c') => {
                self.finish(done);
                State::Text
            }
            (State::Escape | State::Designate, _) => State::Text,
            (State::Csi, 0x40..=0x7E) => {
                // Cursor up, down, next line, previous line, position; erase display.
                if matches!(b, b'A' | b'B' | b'E' | b'F' | b'H' | b'f' | b'J' | b'd') {
                    self.finish(done);
                }
                State::Text
            }
            (State::Csi, _) => State::Csi,
            (State::String, 0x07) | (State::StringEscape, _) => State::Text,
            (State::String, 0x1B) => State::StringEscape,
            (State::String, _) => State::String,
        };
    }

    fn push(&mut self, b: u8, done: &mut Vec<String>) {
        self.line.push(b);
        if self.line.len() >= LINE_MAX {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: &mut Vec<String>) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if !text.trim().is_empty() {
            done.push(text.to_owned());
        }
        self.line.clear();
    }
}
