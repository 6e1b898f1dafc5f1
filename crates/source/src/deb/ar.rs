//! The outer container (deb(5), ar(5)).
//!
//! ```text
//! 0   "!<arch>\n"
//! 8   header of 60 bytes: name 16, mtime 12, uid 6, gid 6, mode 8, size 10 (decimal), "`\n"
//! 68  content, padded to an even length
//! …   the next header
//! ```

use super::DebError;

/// A package has three members; some tools add a signature or two.
const MAX_MEMBERS: usize = 16;

/// Name and content of a member.
pub(crate) type Member<'a> = (&'a str, &'a [u8]);

/// The members `debian-binary` (checked), `control.tar*` and `data.tar*`, as names and contents.
pub(crate) fn members(file: &[u8]) -> Result<(Member<'_>, Member<'_>), DebError> {
    let bad = |offset: usize, reason: &str| DebError::malformed("ar", offset as u64, reason);
    let mut rest = file
        .strip_prefix(b"!<arch>\n")
        .ok_or_else(|| bad(0, "not a Debian package"))?;
    let (mut version, mut control, mut data) = (None, None, None);
    for _ in 0..MAX_MEMBERS {
        if rest.is_empty() {
            break;
        }
        let offset = file.len() - rest.len();
        let (header, after) = rest
            .split_at_checked(60)
            .ok_or_else(|| bad(offset, "cut off in a member's header"))?;
        if &header[58..] != b"`\n" {
            return Err(bad(offset, "bad member header"));
        }
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range]).map(str::trim_end).ok()
        };
        let name = text(0..16).ok_or_else(|| bad(offset, "bad member name"))?;
        let name = name.strip_suffix('/').unwrap_or(name);
        let size = text(48..58)
            .filter(|s| s.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|s| s.parse::<usize>().ok())
            .ok_or_else(|| bad(offset, "bad member size"))?;
        let (content, after) = after
            .split_at_checked(size)
            .ok_or_else(|| bad(offset, "cut off in a member"))?;
        let slot = match name {
            "debian-binary" => &mut version,
            n if n == "control.tar" || n.starts_with("control.tar.") => &mut control,
            n if n == "data.tar" || n.starts_with("data.tar.") => &mut data,
            _ => &mut None,
        };
        if slot.replace((name, content)).is_some() {
            return Err(bad(offset, "a member twice"));
        }
        rest = if size % 2 == 1 {
            after.get(1..).unwrap_or_default()
        } else {
            after
        };
    }
    match version {
        Some((_, content)) if content.starts_with(b"2.") => {}
        Some(_) => {
            return Err(DebError::Unsupported(
                "the package format version".to_owned(),
            ));
        }
        None => return Err(bad(8, "no member debian-binary")),
    }
    let control = control.ok_or_else(|| bad(file.len(), "no member control.tar"))?;
    let data = data.ok_or_else(|| bad(file.len(), "no member data.tar"))?;
    Ok((control, data))
}

/// A reader of a member's decompressed bytes.
pub(crate) fn decompress<'a>(
    (name, content): Member<'a>,
) -> Result<Box<dyn std::io::BufRead + 'a>, DebError> {
    use std::io::BufReader;
    const BUFFER: usize = 256 << 10;
    let suffix = name.rsplit_once(".tar").map_or("", |(_, suffix)| suffix);
    Ok(match suffix {
        "" => Box::new(content),
        ".gz" => Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::read::MultiGzDecoder::new(content),
        )),
        ".xz" => {
            // 256 MiB is what the strongest preset needs four times over. The SHA-256 of the whole package was compared
            // before, so the checksums of the stream would say nothing new.
            let stream = liblzma::stream::Stream::new_stream_decoder(
                256 << 20,
                liblzma::stream::CONCATENATED | liblzma::stream::IGNORE_CHECK,
            )
            .map_err(|e| DebError::Io {
                part: "xz",
                source: e.into(),
            })?;
            Box::new(BufReader::with_capacity(
                BUFFER,
                liblzma::read::XzDecoder::new_stream(content, stream),
            ))
        }
        ".zst" => {
            let decoder = zstd::stream::read::Decoder::with_buffer(content).map_err(|source| {
                DebError::Io {
                    part: "zstd",
                    source,
                }
            })?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
        other => return Err(DebError::Unsupported(format!("compression {other:?}"))),
    })
}
