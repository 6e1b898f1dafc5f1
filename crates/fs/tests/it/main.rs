//! Outside tools judge what this crate writes. A missing tool is a failure.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests run tools on files"
)]

mod compare;
mod corpus;
mod damage;
mod differential;
mod ext4;
mod fat;
mod foreign;
mod image;
mod journal;
mod kernel;
mod layers;
mod profile;
mod property;
mod reader;
mod scale;
mod size;
mod tool;
