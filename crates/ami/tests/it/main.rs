//! The files for AWS, checked by the AWS command line and a local EC2; the manifest, checked by an
//! independent JSON Schema validator.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests of a pure crate, against real programs"
)]

mod aws;
mod example;
mod recorder;
mod schema;
