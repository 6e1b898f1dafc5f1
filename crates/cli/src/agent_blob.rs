//! The guest agent: a static program, built by `build.rs`.

pub(crate) static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/amiforge-agent"));
