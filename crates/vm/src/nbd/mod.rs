//! A server of network block devices: how an instance's volumes reach QEMU.
//!
//! A [`BlockDevice`] is bytes that can be read and written anywhere; [`NbdServer`] offers one to whoever connects to a Unix
//! socket. The volumes themselves (copy-on-write over the blocks of snapshots, decrypted on the way) are made elsewhere.
//!
//! ```text
//! connection ─▶ handshake (one export, without a name) ─▶ transmission: a few threads take turns in reading
//!                                                         a request, and work on theirs side by side
//! ```
//!
//! Every length that a client names has a limit before memory is taken for it. Requests that cannot be understood end the
//! connection, those that cannot be done get an error.
//!
//! Source: `doc/proto.md` of the NBD project: the fixed newstyle handshake, simple replies, no TLS.

mod handshake;
mod proto;
mod server;
#[cfg(test)]
mod tests;
mod transmission;

use std::io;

pub use proto::MAX_REQUEST;
pub use server::NbdServer;

/// Bytes that can be read and written anywhere, from several threads at once. Offsets and lengths are in bytes and lie
/// within [`len`](Self::len): the server has checked that.
///
/// Requests that overlap and are in work at the same time may take effect in any order; one that was answered is seen by all
/// later ones. An error reaches the guest as the errno nearest to it: an invalid argument, no space left
/// ([`io::ErrorKind::StorageFull`]), no memory, not permitted, not supported, else an I/O error.
#[allow(
    clippy::len_without_is_empty,
    reason = "a device without bytes is served like any other"
)]
pub trait BlockDevice: Send + Sync {
    /// Its size in bytes; it does not change while it is served.
    fn len(&self) -> u64;

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `data` from `offset` on. It need not be durable before [`flush`](Self::flush).
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes `len` bytes from `offset` on zero. With `hole` their storage may be given back.
    ///
    /// # Errors
    /// When they cannot be written.
    fn zero_at(&self, offset: u64, len: u64, hole: bool) -> io::Result<()>;

    /// `len` bytes from `offset` on are not needed any more; what is read there afterwards is up to the device.
    ///
    /// # Errors
    /// When it fails in a way that the guest should know of.
    fn trim_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.zero_at(offset, len, true)
    }

    /// Makes durable everything that was answered before, whoever asked for it.
    ///
    /// # Errors
    /// When something could not be made durable.
    fn flush(&self) -> io::Result<()>;
}

/// What is offered to a client.
#[derive(Clone, Copy)]
struct Export<'a> {
    device: &'a dyn BlockDevice,
    read_only: bool,
}

/// A whole connection on one thread, for tests and the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn converse(
    mut reader: impl io::Read,
    mut writer: impl io::Write,
    device: &dyn BlockDevice,
    read_only: bool,
) -> io::Result<()> {
    let export = Export { device, read_only };
    if handshake::handshake(&mut reader, &mut writer, export)? {
        transmission::Connection::new(reader, writer, export).work()?;
    }
    Ok(())
}
