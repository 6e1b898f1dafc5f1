//! The store against real file systems, real archives and real overlays.
//!
//! Needs root (owners, overlay mounts, capabilities) and GNU tar, setfattr, setcap, mount.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod crash;
mod ec2;
mod extractors;
mod harvest;
mod materialise;
mod remove;
mod store;
mod tar;
mod target;
