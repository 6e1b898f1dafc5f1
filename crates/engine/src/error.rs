//! One error for all operations, sorted by what its user can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use amiforge_recipe::DocumentKind;
use amiforge_types::{Diagnostic, Span};
use serde::{Deserialize, Serialize};

/// Which exit code an error has (DESIGN, command line).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The build or test failed: 1.
    Failed,
    /// Usage or an invalid document: 2.
    Invalid,
    /// The environment lacks something: 3.
    Environment,
    /// A bug of ours: 70.
    Internal,
    /// The request was only tried, and would be granted: 0.
    DryRun,
}

impl ErrorKind {
    /// The process exit code. A dry run that would be granted is an error as EC2 has it, and no failure.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Environment => 3,
            Self::Internal => 70,
            Self::DryRun => 0,
        }
    }
}

/// The problems of one document, with its text so that they can be drawn.
#[derive(Clone, Debug)]
pub struct DocumentReport {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// What kind of document it is, when that could be told.
    pub kind: Option<DocumentKind>,
    /// Its text (lossy where it was not UTF-8).
    pub text: String,
    /// The problems, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl DocumentReport {
    /// True when at least one problem is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|d| d.severity == amiforge_types::Severity::Error)
    }
}

/// The place of a document that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPlace {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// Its text, to show the place.
    pub text: Arc<str>,
    /// The place.
    pub span: Span,
}

impl std::fmt::Display for DocumentPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = self.span.start;
        write!(f, "{}:{}:{}", self.path.display(), start.line, start.column)
    }
}

/// The step of a component that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedStep {
    /// Its phase.
    pub(crate) phase: String,
    /// Its name.
    pub(crate) step: String,
    /// `file:line:column`, where it stands in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
}

/// What is known of a failure besides its words.
#[derive(Clone, Debug, Default)]
pub struct More {
    /// The place of a document that it is about.
    place: Option<DocumentPlace>,
    /// The step that failed.
    step: Option<FailedStep>,
    /// Whether the user has been told it, before a shell was opened.
    told: bool,
}

/// Why an operation ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Documents have errors; the reports say which.
    #[error("{} cannot be used", .0.iter().filter(|r| r.has_errors()).map(|r| r.path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Documents(Vec<DocumentReport>),
    /// A failure with its place, cause and hint.
    #[error("{context}")]
    Context {
        /// What failed, where.
        context: String,
        /// What kind of failure this is.
        kind: ErrorKind,
        /// What to do about it.
        hint: Option<String>,
        /// What is known of it besides.
        more: Box<More>,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl EngineError {
    /// The exit code's class.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Documents(_) => ErrorKind::Invalid.exit_code(),
            Self::Context { kind, .. } => kind.exit_code(),
        }
    }

    /// Whether nothing failed, but the request was only tried.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        matches!(
            self,
            Self::Context {
                kind: ErrorKind::DryRun,
                ..
            }
        )
    }

    /// What failed, with its place in a document and its causes, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        match self.place() {
            Some(place) => format!("{place}: {}", chain(self)),
            None => chain(self),
        }
    }

    /// The place of a document that it is about, where it is about one.
    #[must_use]
    pub fn place(&self) -> Option<&DocumentPlace> {
        match self {
            Self::Context { more, .. } => more.place.as_ref(),
            Self::Documents(_) => None,
        }
    }

    /// Whether its words have been told before a shell was opened where it happened.
    #[must_use]
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Context { more, .. } if more.told)
    }

    /// A hint that can be acted on.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Context { hint, .. } => hint.as_deref(),
            Self::Documents(_) => None,
        }
    }

    /// A failure without a cause below it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self::Context {
            context: context.into(),
            kind,
            hint: None,
            more: Box::default(),
            source: None,
        }
    }

    /// A failure with its cause, and what can be done about it if that is known.
    pub(crate) fn wrap(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
        hint: Option<impl Into<String>>,
    ) -> Self {
        Self::Context {
            context: context.into(),
            kind,
            hint: hint.map(Into::into),
            more: Box::default(),
            source: Some(Box::new(source)),
        }
    }

    /// Adds the hint.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Context { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
}

impl EngineError {
    /// Says where in a document that stands which cannot be had; an error that has a place keeps it.
    #[must_use]
    pub(crate) fn at(mut self, of: impl FnOnce() -> DocumentPlace) -> Self {
        if let Self::Context { more, .. } = &mut self {
            more.place.get_or_insert_with(of);
        }
        self
    }

    /// Says which step failed.
    #[must_use]
    pub(crate) fn of_step(mut self, step: Option<FailedStep>) -> Self {
        if let Self::Context { more, .. } = &mut self {
            more.step = step;
        }
        self
    }

    /// The step that failed, where it is one.
    pub(crate) fn step(&self) -> Option<&FailedStep> {
        match self {
            Self::Context { more, .. } => more.step.as_ref(),
            Self::Documents(_) => None,
        }
    }

    /// Says that the user has been told it.
    #[must_use]
    pub(crate) fn told(mut self) -> Self {
        if let Self::Context { more, .. } = &mut self {
            more.told = true;
        }
        self
    }
}

/// Adds kind and context to any error.
pub(crate) trait Contextual<T> {
    /// Wraps the error.
    fn or_fail(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T, EngineError>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Contextual<T> for Result<T, E> {
    fn or_fail(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T, EngineError> {
        self.map_err(|e| EngineError::wrap(kind, context(), e, None::<String>))
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
