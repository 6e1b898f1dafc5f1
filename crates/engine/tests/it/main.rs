//! Whole builds by the real program: the same bytes whatever the circumstances, and what a Debian
//! installed by other means has.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attributes;
mod base;
mod guest;
mod mmdebstrap;
mod reproducible;
mod trees;
mod trixie;
