//! The apt side: the host's configuration, signed archives, indices, downloads.

pub(crate) mod archive;
pub(crate) mod config;
pub(crate) mod deb822;
pub(crate) mod hostconf;
pub(crate) mod http;
pub(crate) mod index;
pub(crate) mod relation;
pub(crate) mod release;
pub(crate) mod verify;
pub(crate) mod version;
