//! Documents from `fixtures/`, and documents that want to do harm.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read fixtures; the library does not read files"
)]

mod fixtures;
mod hostile;
mod properties;
