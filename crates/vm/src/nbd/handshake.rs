//! The handshake: which export, and what it is like.

use std::io::{self, Read, Write};

use super::Export;
use super::proto::{
    FIXED_NEWSTYLE, GREETING, I_HAVE_OPT, MAX_REQUEST, MIN_BLOCK, NO_ZEROES, OPTION_REPLY,
    PREFERRED_BLOCK, flag, info, option, reply,
};

/// Longest data of an option that is read. Export names have at most 4096 bytes by the protocol.
const OPTION_MAX: u32 = 8 << 10;
/// Longest data that is skipped to refuse an option politely; a longer one ends the connection.
const SKIP_MAX: u32 = 64 << 10;
/// Options that a client may send.
const OPTIONS_MAX: usize = 64;

/// Speaks with a client until it wants to read and write (true) or leaves (false).
///
/// # Errors
/// When the client does not keep to the protocol, or the connection ends.
pub(super) fn handshake(
    reader: &mut impl Read,
    writer: &mut impl Write,
    export: Export<'_>,
) -> io::Result<bool> {
    let mut hello = Vec::with_capacity(18);
    hello.extend(GREETING.to_be_bytes());
    hello.extend(I_HAVE_OPT.to_be_bytes());
    hello.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    writer.write_all(&hello)?;
    let client = u32::from_be_bytes(array(reader)?);
    if client & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0
        || client & u32::from(FIXED_NEWSTYLE) == 0
    {
        return Err(refused("unknown handshake flags"));
    }
    let zeroes = client & u32::from(NO_ZEROES) == 0;
    for _ in 0..OPTIONS_MAX {
        if u64::from_be_bytes(array(reader)?) != I_HAVE_OPT {
            return Err(refused("an option without its magic number"));
        }
        let code = u32::from_be_bytes(array(reader)?);
        let length = u32::from_be_bytes(array(reader)?);
        if length > OPTION_MAX {
            if length > SKIP_MAX || code == option::EXPORT_NAME {
                return Err(refused("an option that is too long"));
            }
            io::copy(&mut reader.take(length.into()), &mut io::sink())?;
            answer(writer, code, reply::ERR_TOO_BIG, &[])?;
            continue;
        }
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data)?;
        match code {
            option::EXPORT_NAME => {
                // There is no way to say no but to leave.
                if !data.is_empty() {
                    return Err(refused("an unknown export"));
                }
                let mut answer = description(export).to_vec();
                if zeroes {
                    answer.extend([0; 124]);
                }
                writer.write_all(&answer)?;
                return Ok(true);
            }
            option::ABORT => {
                // The client may be gone already.
                let _ = answer(writer, code, reply::ACK, &[]);
                return Ok(false);
            }
            option::LIST if data.is_empty() => {
                // One export, whose name has no bytes.
                answer(writer, code, reply::SERVER, &0_u32.to_be_bytes())?;
                answer(writer, code, reply::ACK, &[])?;
            }
            option::LIST => answer(writer, code, reply::ERR_INVALID, &[])?,
            option::INFO | option::GO => match asked(&data) {
                None => answer(writer, code, reply::ERR_INVALID, &[])?,
                Some((name, _)) if !name.is_empty() => {
                    answer(writer, code, reply::ERR_UNKNOWN, &[])?;
                }
                Some((_, wanted)) => {
                    let mut about = info::EXPORT.to_be_bytes().to_vec();
                    about.extend(description(export));
                    answer(writer, code, reply::INFO, &about)?;
                    if wanted.contains(&info::NAME) {
                        answer(writer, code, reply::INFO, &info::NAME.to_be_bytes())?;
                    }
                    let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
                    for size in [MIN_BLOCK, PREFERRED_BLOCK, MAX_REQUEST] {
                        sizes.extend(size.to_be_bytes());
                    }
                    answer(writer, code, reply::INFO, &sizes)?;
                    answer(writer, code, reply::ACK, &[])?;
                    if code == option::GO {
                        return Ok(true);
                    }
                }
            },
            _ => answer(writer, code, reply::ERR_UNSUP, &[])?,
        }
    }
    Err(refused("too many options"))
}

/// Size and transmission flags.
fn description(export: Export<'_>) -> [u8; 10] {
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    flags |= match export.read_only {
        true => flag::READ_ONLY,
        false => flag::SEND_TRIM | flag::SEND_WRITE_ZEROES,
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&export.device.len().to_be_bytes());
    bytes[8..].copy_from_slice(&flags.to_be_bytes());
    bytes
}

/// Name and wanted information of `INFO` and `GO`; `None` when the data does not add up.
fn asked(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let (wanted, rest) = rest.as_chunks::<2>();
    (rest.is_empty() && wanted.len() == usize::from(u16::from_be_bytes(*count))).then(|| {
        (
            name,
            wanted.iter().map(|w| u16::from_be_bytes(*w)).collect(),
        )
    })
}

fn answer(writer: &mut impl Write, code: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(20 + data.len());
    message.extend(OPTION_REPLY.to_be_bytes());
    message.extend(code.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    message.extend(data);
    writer.write_all(&message)
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
