//! The network as the transfer actions use it. One client serves a sandbox's child, whose root is an
//! image's, and the static agent in a guest: nothing here asks the C library.

mod client;
mod dns;
mod error;
mod hash;
mod resolver;
mod roots;

pub(crate) use client::{Address, Ask, Http, Patience, basic, promised, retry_after, text};
pub(crate) use error::{NetError, of_io, passing_status};
pub(crate) use hash::{Hash, hex};

#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let id = data
        .get(..2)
        .map_or(0, |b| u16::from(b[0]) << 8 | u16::from(b[1]));
    for record in [dns::Record::A, dns::Record::Aaaa] {
        // With the question that an answer must repeat, so that the rest of it is read.
        let _ = dns::answer(data, id, "h.test", record);
    }
    resolver::fuzz(&String::from_utf8_lossy(data));
}
