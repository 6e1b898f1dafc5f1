//! Real QEMU with guests of a few dozen bytes: no kernel, no network, a second each.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixture;
mod guests;
mod instance;
mod probe;
mod uefi;
