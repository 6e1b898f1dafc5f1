//! The transmission: requests and replies.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use super::Export;
use super::handshake::refused;
use super::proto::{FUA, MAX_REQUEST, NO_HOLE, Request, SIMPLE_REPLY, command, errno};

/// Bytes of a reply before its data.
const HEADER: usize = 16;
/// What a thread keeps of its buffer between requests.
const KEPT: usize = 1 << 20;

/// The two ends of a connection, and what is behind it. Several threads [`work`](Self::work) on it.
pub(super) struct Connection<'a, R, W> {
    reader: Mutex<Input<R>>,
    writer: Mutex<W>,
    export: Export<'a>,
}

struct Input<R> {
    stream: R,
    /// Nothing more is read.
    ended: bool,
}

impl<'a, R: Read, W: Write> Connection<'a, R, W> {
    pub(super) fn new(reader: R, writer: W, export: Export<'a>) -> Self {
        Self {
            reader: Mutex::new(Input {
                stream: reader,
                ended: false,
            }),
            writer: Mutex::new(writer),
            export,
        }
    }

    /// Takes requests and does them until there are no more. While one thread works on its request, another reads the next.
    ///
    /// # Errors
    /// When a reply cannot be sent: other threads may wait for requests that will not come.
    pub(super) fn work(&self) -> io::Result<()> {
        // The header of the reply, then data.
        let mut buffer = vec![0; HEADER];
        loop {
            let request = {
                let mut input = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
                if input.ended {
                    return Ok(());
                }
                match next(&mut input.stream, &mut buffer) {
                    Ok(Some(request)) => request,
                    // It took its leave, or went without a word, or does not keep to the protocol: it is left alone then,
                    // and what the other threads still do for it is answered.
                    _ => {
                        input.ended = true;
                        return Ok(());
                    }
                }
            };
            let length = request.length as usize;
            let outcome = self.carry_out(&request, &mut buffer);
            let error = outcome.map_or_else(|errno| errno, |()| 0);
            buffer[..4].copy_from_slice(&SIMPLE_REPLY.to_be_bytes());
            buffer[4..8].copy_from_slice(&error.to_be_bytes());
            buffer[8..HEADER].copy_from_slice(&request.cookie);
            let data = match request.command == command::READ && error == 0 {
                true => length,
                false => 0,
            };
            let sent = {
                let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.write_all(&buffer[..HEADER + data])
            };
            sent?;
            if buffer.len() > KEPT {
                buffer.truncate(KEPT);
                buffer.shrink_to(KEPT);
            }
        }
    }

    /// Does a request; data to write stands in `buffer` behind the header, and so will data that was read.
    fn carry_out(&self, request: &Request, buffer: &mut Vec<u8>) -> Result<(), u32> {
        let Export { device, read_only } = self.export;
        let allowed = match request.command {
            command::WRITE | command::TRIM => FUA,
            command::WRITE_ZEROES => FUA | NO_HOLE,
            // Some clients set it everywhere once they may.
            _ => FUA,
        };
        if request.flags & !allowed != 0 {
            return Err(errno::EINVAL);
        }
        let writes = matches!(
            request.command,
            command::WRITE | command::TRIM | command::WRITE_ZEROES
        );
        if writes && read_only {
            return Err(errno::EPERM);
        }
        let end = request.offset.checked_add(request.length.into());
        if request.command != command::FLUSH && end.is_none_or(|end| end > device.len()) {
            return Err(match request.command {
                command::WRITE | command::WRITE_ZEROES => errno::ENOSPC,
                _ => errno::EINVAL,
            });
        }
        let (offset, length) = (request.offset, request.length as usize);
        let done = match request.command {
            command::READ => {
                if request.length > MAX_REQUEST {
                    return Err(errno::EINVAL);
                }
                make_room(buffer, length);
                device.read_at(&mut buffer[HEADER..HEADER + length], offset)
            }
            command::WRITE => device.write_at(&buffer[HEADER..HEADER + length], offset),
            command::FLUSH => device.flush(),
            command::TRIM => device.trim_at(offset, length as u64),
            command::WRITE_ZEROES => {
                device.zero_at(offset, length as u64, request.flags & NO_HOLE == 0)
            }
            command::CACHE => Ok(()),
            _ => return Err(errno::EINVAL),
        };
        done.map_err(|e| errno_of(&e))?;
        if writes && request.flags & FUA != 0 {
            device.flush().map_err(|e| errno_of(&e))?;
        }
        Ok(())
    }
}

/// Reads a request and its data; `None` when the client takes its leave.
fn next(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut header = [0; Request::BYTES];
    stream.read_exact(&mut header)?;
    let Some(request) = Request::parse(&header) else {
        return Err(refused("a request without its magic number"));
    };
    match request.command {
        command::DISC => return Ok(None),
        command::WRITE => {
            if request.length > MAX_REQUEST {
                return Err(refused("more data than is taken at once"));
            }
            let length = request.length as usize;
            make_room(buffer, length);
            stream.read_exact(&mut buffer[HEADER..HEADER + length])?;
        }
        _ => {}
    }
    Ok(Some(request))
}

fn make_room(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < HEADER + length {
        buffer.resize(HEADER + length, 0);
    }
}

fn errno_of(e: &io::Error) -> u32 {
    match e.kind() {
        io::ErrorKind::InvalidInput => errno::EINVAL,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => errno::ENOSPC,
        io::ErrorKind::OutOfMemory => errno::ENOMEM,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => errno::EPERM,
        io::ErrorKind::Unsupported => errno::ENOTSUP,
        _ => errno::EIO,
    }
}
