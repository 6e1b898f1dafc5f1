//! The command as a user runs it: the real binary, real packages, real guests, outside checkers.
//!
//! Tests named `image_…` share one build of `recipes/debian-web` (see [`web`]) and run one at a time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod again;
mod archives;
mod cache;
mod check;
mod container_parents;
mod containers;
mod convert;
mod diff;
mod disks;
mod documents;
mod ec2;
mod events;
mod export;
mod faults;
mod folder;
mod hostile;
mod hygiene;
mod ids;
mod image;
mod imported;
mod inspect;
mod kept;
mod kills;
mod library;
mod lock;
mod locked;
mod many;
mod oci_parents;
mod parents;
mod progress;
mod proxies;
mod rebuilds;
mod resume;
mod secrets;
mod shared_cache;
mod shared_kills;
mod shared_mend;
mod shell;
mod steps;
mod tiny;
mod ubuntu;
mod volumes;
mod ways;
mod web;
mod why;
