//! What decoders ask of a document, written down while they read one.
//!
//! The JSON Schemas come from this: a decoder is run on small documents, and what it asks for is what may
//! stand there. So a field cannot be read and be missing from the schema.

use amiforge_types::Span;

/// What was asked, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    heard: Vec<Heard>,
}

/// One question.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Of which value.
    pub(crate) span: Span,
    /// Whether a text with a reference would pass, since what it becomes is not known.
    pub(crate) deferred: bool,
    pub(crate) asked: Asked,
}

/// What is asked of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To be this mapping. Only asked where it is one.
    Mapping(&'static str),
    /// Of a mapping: names may also begin in upper case.
    EitherCase,
    /// Of a mapping: names begin in upper case.
    PascalCase,
    /// Of a mapping: this field, if it is there.
    Field(&'static str),
    /// Of a mapping: the second name says the same as the first.
    Alias(&'static str, &'static str),
    /// Of a mapping: this field is not there and has to be.
    Missing(String),
    /// Of a mapping: one of these has to be there.
    OneOf(Vec<&'static str>),
    /// Of a mapping: nothing else is there.
    Closed,
    /// Of a mapping: at most so many names, which are the author's.
    Named {
        /// How many.
        most: usize,
    },
    /// To be a list. Only asked where it is one.
    List,
    /// Of a list: from so many to so many entries.
    Items(usize, usize),
    /// To be a text, which any scalar is that is not null.
    Text,
    /// Of a text: at least one character.
    Filled,
    /// Of a text: at most so many characters.
    AtMost(usize),
    /// Of a text: a form, in words for people.
    Hint(&'static str),
    /// Of a text: this pattern, as JSON Schemas have them.
    Pattern(&'static str),
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second.
    Int(i64, i64),
    /// A number.
    Number,
    /// One of these words.
    Choice(Vec<String>),
    /// One of these words or another spelling of one.
    Usual(Vec<String>),
}

impl Asked {
    /// One of a few words.
    pub(crate) fn words(words: &[&str]) -> Self {
        Self::Choice(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

impl Trace {
    pub(crate) fn push(&mut self, span: Span, deferred: bool, asked: Asked) {
        self.heard.push(Heard {
            span,
            deferred,
            asked,
        });
    }

    /// What was asked of the value at `span`.
    pub(crate) fn of(self, span: Span) -> Vec<Heard> {
        let mut heard = self.heard;
        heard.retain(|one| one.span == span);
        heard
    }
}
