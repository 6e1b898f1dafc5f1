//! Documents from `fixtures/`, and documents that want to do harm.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests read fixtures; the library does not read files; a test may panic"
)]

mod codes;
mod dockerfiles;
mod fixtures;
mod hostile;
mod properties;
mod schemas;
