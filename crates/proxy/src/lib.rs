//! Plain HTTP through a proxy: the request is sent to the proxy with the whole address in its first line
//! (RFC 9112, section 3.2.2). Tunnels, which ureq makes for everything, are what proxies allow for TLS
//! only.
//!
//! ```text
//! GET /path HTTP/1.1   ─▶   GET http://host:port/path HTTP/1.1
//! ```

#![forbid(unsafe_code)]

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes every connection one to a proxy; where that is, the resolver says.
#[derive(Debug)]
pub struct Forward;

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let authority = details.uri.authority().ok_or(ureq::Error::HostNotFound)?;
        Ok(chained.map(|inner| Forwarded {
            inner,
            origin: format!("http://{authority}"),
            starts: true,
        }))
    }
}

/// A connection to a proxy for one server.
#[derive(Debug)]
pub struct Forwarded<In> {
    inner: In,
    origin: String,
    /// What is sent next begins a request.
    starts: bool,
}

impl<In: Transport> Transport for Forwarded<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::take(&mut self.starts) {
            return self.inner.transmit_output(amount, timeout);
        }
        let added = with_origin(self.inner.buffers().output(), amount, &self.origin)
            .ok_or(ureq::Error::ConnectionFailed)?;
        self.inner.transmit_output(added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.starts = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Puts the origin behind the method of the request in the first `amount` bytes of a buffer, and returns
/// how many they are then.
fn with_origin(buffer: &mut [u8], amount: usize, origin: &str) -> Option<usize> {
    let at = buffer.get(..amount)?.iter().position(|b| *b == b' ')? + 1;
    let (after, total) = (at + origin.len(), amount.checked_add(origin.len())?);
    if total > buffer.len() {
        return None;
    }
    buffer.copy_within(at..amount, after);
    buffer
        .get_mut(at..after)?
        .copy_from_slice(origin.as_bytes());
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_stands_in_the_first_line_when_there_is_room() {
        let mut buffer = *b"GET /x HTTP/1.1\r\n..........";
        let total = with_origin(&mut buffer, 17, "http://h").unwrap();
        assert_eq!(&buffer[..total], b"GET http://h/x HTTP/1.1\r\n");
        assert_eq!(with_origin(&mut buffer, 25, "http://h"), None, "no room");
        assert_eq!(with_origin(&mut [b'x'; 9], 3, "y"), None, "no request");
    }
}
