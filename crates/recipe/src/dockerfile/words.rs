//! Quotes, escapes and variables inside an instruction, and its list form.
//! Reference: Dockerfile reference, "Environment replacement", "Shell and exec form"; the same rules as BuildKit's shlex.

use std::collections::BTreeMap;

/// Longest value that replacing variables may come to.
pub(super) const MOST_BYTES: usize = 1 << 16;
/// `${a:-${b:-…}}`, so often.
const MOST_DEPTH: usize = 16;

/// Something that cannot be read, at an offset of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) what: String,
    /// It may be right, and is not read here.
    pub(super) unsupported: bool,
}

impl Problem {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            unsupported: false,
        }
    }
}

/// A word as it is written, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub(super) at: usize,
    pub(super) text: &'t str,
}

/// Cuts text at blanks that are not in quotes and not escaped. The quotes stay.
pub(super) fn words(text: &str, base: usize, escape: char) -> Result<Vec<Word<'_>>, Problem> {
    let mut out = Vec::new();
    let mut start = None;
    let mut quote: Option<(char, usize)> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if let Some(from) = start.take() {
                out.push(Word {
                    at: base + from,
                    text: &text[from..at],
                });
            }
            continue;
        }
        start.get_or_insert(at);
        match quote {
            _ if c == escape && quote.is_none_or(|(q, _)| q == '"') => {
                chars.next();
            }
            Some((open, _)) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some((c, at)),
            _ => {}
        }
    }
    if let Some((quote, at)) = quote {
        return Err(Problem::new(
            base + at,
            format!("the quote {quote} is not closed"),
        ));
    }
    if let Some(from) = start {
        out.push(Word {
            at: base + from,
            text: &text[from..],
        });
    }
    Ok(out)
}

/// Values of variables.
pub(super) type Variables = BTreeMap<String, String>;

/// Says what value a variable has.
type ValueOf<'v> = dyn Fn(&str) -> Option<&'v str> + 'v;

/// Takes quotes and escapes away and puts values in the place of variables.
pub(super) fn expand<'v>(
    word: Word<'_>,
    escape: char,
    value_of: &ValueOf<'v>,
) -> Result<String, Problem> {
    let mut expander = Expander {
        chars: word.text.char_indices().collect(),
        at: 0,
        base: word.at,
        escape,
        value_of,
        used: 0,
    };
    expander.until(None, 0)
}

struct Expander<'e, 'v> {
    chars: Vec<(usize, char)>,
    at: usize,
    base: usize,
    escape: char,
    value_of: &'e ValueOf<'v>,
    /// Bytes made so far, also those that were not taken.
    used: usize,
}

impl Expander<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn problem(&self, at: usize, what: impl Into<String>) -> Problem {
        let offset = self.chars.get(at).map_or_else(
            || self.chars.last().map_or(0, |(o, c)| o + c.len_utf8()),
            |(o, _)| *o,
        );
        Problem::new(self.base + offset, what)
    }

    fn add(&mut self, out: &mut String, text: &str) -> Result<(), Problem> {
        self.used = self.used.saturating_add(text.len());
        if self.used > MOST_BYTES {
            return Err(self.problem(
                0,
                format!("its value has more than {MOST_BYTES} bytes once variables are replaced"),
            ));
        }
        out.push_str(text);
        Ok(())
    }

    fn until(&mut self, stop: Option<char>, depth: usize) -> Result<String, Problem> {
        let mut out = String::new();
        let mut buffer = [0; 4];
        loop {
            let begin = self.at;
            let Some(c) = self.next() else {
                return match stop {
                    None => Ok(out),
                    Some(_) => Err(self.problem(begin, "`${` is not closed")),
                };
            };
            if Some(c) == stop {
                return Ok(out);
            }
            match c {
                '\'' => loop {
                    match self.next() {
                        None => return Err(self.problem(begin, "the quote ' is not closed")),
                        Some('\'') => break,
                        Some(c) => self.add(&mut out, c.encode_utf8(&mut buffer))?,
                    }
                },
                '"' => self.quoted(begin, &mut out, depth)?,
                '$' => {
                    let value = self.variable(begin, depth)?;
                    self.add(&mut out, &value)?;
                }
                c if c == self.escape => match self.next() {
                    // A lone one at the end stands for itself.
                    None => self.add(&mut out, c.encode_utf8(&mut buffer))?,
                    Some(next) => self.add(&mut out, next.encode_utf8(&mut buffer))?,
                },
                c => self.add(&mut out, c.encode_utf8(&mut buffer))?,
            }
        }
    }

    fn quoted(&mut self, begin: usize, out: &mut String, depth: usize) -> Result<(), Problem> {
        let mut buffer = [0; 4];
        loop {
            let here = self.at;
            match self.next() {
                None => return Err(self.problem(begin, "the quote \" is not closed")),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.variable(here, depth)?;
                    self.add(out, &value)?;
                }
                Some(c) if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.at += 1;
                        self.add(out, next.encode_utf8(&mut buffer))?;
                    }
                    _ => self.add(out, c.encode_utf8(&mut buffer))?,
                },
                Some(c) => self.add(out, c.encode_utf8(&mut buffer))?,
            }
        }
    }

    /// After a `$`.
    fn variable(&mut self, begin: usize, depth: usize) -> Result<String, Problem> {
        if depth == MOST_DEPTH {
            return Err(self.problem(begin, "references are nested too deeply"));
        }
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok((self.value_of)(&name).unwrap_or_default().to_owned());
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err(self.problem(self.at, "`${` needs the name of a variable"));
        }
        let value = (self.value_of)(&name).map(str::to_owned);
        let operator = self.at;
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let filled = value.filter(|value| !value.is_empty());
                match self.next() {
                    Some(sign @ ('-' | '+' | '?')) => self.choose(begin, sign, filled, depth),
                    _ => Err(self.unsupported(operator)),
                }
            }
            Some(sign @ ('-' | '+' | '?')) => self.choose(begin, sign, value, depth),
            None => Err(self.problem(begin, "`${` is not closed")),
            Some('#' | '%' | '/') => Err(self.unsupported(operator)),
            Some(_) => Err(self.problem(operator, "this cannot stand in a variable's name")),
        }
    }

    fn unsupported(&self, at: usize) -> Problem {
        Problem {
            unsupported: true,
            ..self.problem(
                at,
                "of what can be done with a variable, only `:-`, `:+`, `:?`, `-`, `+` and `?` are known here",
            )
        }
    }

    fn choose(
        &mut self,
        begin: usize,
        sign: char,
        value: Option<String>,
        depth: usize,
    ) -> Result<String, Problem> {
        let word = self.until(Some('}'), depth + 1)?;
        match (sign, value) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ => Err(self.problem(begin, format!("the variable has no value: {word}"))),
        }
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while let Some(c) = self.peek() {
            let first = self.at == start;
            if c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit()) {
                self.at += 1;
            } else if first && c.is_ascii_digit() {
                // Arguments of a shell have one digit, and never a value here.
                self.at += 1;
                break;
            } else {
                break;
            }
        }
        self.chars[start..self.at].iter().map(|(_, c)| c).collect()
    }
}

/// The list form of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// Anything else, also what looks like a list and is none.
    Shell(String),
}

/// Tells list and shell form apart.
pub(super) fn form(text: &str, base: usize) -> Result<Form, Problem> {
    if !text.starts_with('[') {
        return Ok(Form::Shell(text.to_owned()));
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => Ok(Form::Shell(text.to_owned())),
        Ok(items) => items
            .into_iter()
            .map(|item| match item {
                serde_json::Value::String(text) => Ok(text),
                other => Err(Problem::new(
                    base,
                    format!("the list holds {other}, which is not text in double quotes"),
                )),
            })
            .collect::<Result<_, _>>()
            .map(Form::Exec),
    }
}
