//! Compression of archives, told by the first bytes.

use std::io::{self, Read};

use super::TarErrorKind;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (or in a way that is not known here; the header check then says so).
    None,
    /// gzip, RFC 1952, with one or more members.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// xz, "The .xz File Format" 1.2.
    Xz,
    /// bzip2, with one or more streams.
    Bzip2,
}

impl Compression {
    /// Bytes that [`Compression::detect`] wants to see.
    pub const MAGIC_LEN: usize = 6;

    /// Tells the compression by the first bytes of a file.
    #[must_use]
    pub fn detect(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame in front of one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// Memory that an xz stream may ask for: preset `-9` needs 65 MiB, a dictionary of 128 MiB (twice the
/// largest preset's) a little more than that.
const XZ_MEMORY: u64 = 136 << 20;
/// Largest zstd window, 2^27 = 128 MiB, the limit of the `zstd` command without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A reader of the plain archive.
pub(super) fn decoder<'a>(reader: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>, TarErrorKind> {
    let mut first = [0; Compression::MAGIC_LEN];
    let mut len = 0;
    while len < first.len() {
        match reader.read(&mut first[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(TarErrorKind::Read(e)),
        }
    }
    let compression = Compression::detect(&first[..len]);
    let whole = io::Cursor::new(first).take(len as u64).chain(reader);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(
            io::BufReader::with_capacity(64 << 10, whole),
        )),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::new(whole).map_err(TarErrorKind::Read)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(TarErrorKind::Read)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|e| TarErrorKind::Read(e.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(whole, stream))
        }
        // A block has 900 kB at most, and with it the decoder less than 8 MB.
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(
            io::BufReader::with_capacity(64 << 10, whole),
        )),
    })
}
