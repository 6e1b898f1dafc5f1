//! The network as the transfer actions use it. One client serves a sandbox's child, whose root is an
//! image's, and the static agent in a guest: nothing here asks the C library.

mod client;
mod dns;
mod error;
mod forward;
mod hash;
mod resolver;
mod roots;

pub(crate) use client::{Address, Ask, Http, Patience, basic, promised, retry_after, text};
pub(crate) use error::{NetError, of_io, passing_status};
pub(crate) use hash::{Hash, hex};
