//! Disk formats. One file (or folder) each, and one line in [`FORMATS`].

mod cache;
mod codec;
mod gate;
mod numbers;
pub(crate) mod qcow2;
pub(crate) mod raw;
mod settings;
pub(crate) mod vhd;
pub(crate) mod vmdk;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use amiforge_types::ReadAt;

use crate::emit::{Output, SettingError, Sinks, WindowPlan};

pub use gate::Opener;
pub use qcow2::Previous;

pub use amiforge_types::{Compression, CompressionError};
pub(crate) use gate::Gate;
pub use settings::{Subformat, SubformatError};

/// A disk format.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the disk, sparse where the target can.
    Raw,
    /// QEMU copy-on-write, version 3 (versions 2 and 3 are read).
    Qcow2,
    /// VMware's, streamOptimized (monolithicSparse is read, too).
    Vmdk,
    /// Virtual PC's, fixed and dynamic: what Azure takes.
    Vhd,
}

/// The format's name or extension means nothing to us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a disk format; known are {known}", known = Format::names())]
pub struct FormatError(pub String);

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The bytes are of another format than declared.
    #[error("this is not a {declared} disk: it starts like {found}")]
    Mismatch {
        /// The format asked for.
        declared: Format,
        /// What the first bytes look like.
        found: &'static str,
    },
    /// The file is damaged, or made to do harm.
    #[error("the {format} file is corrupt: {what}")]
    Corrupt {
        /// Its format.
        format: Format,
        /// What does not hold.
        what: &'static str,
    },
    /// A valid file that we do not read.
    #[error("the {format} file uses {what}, which is not supported")]
    Unsupported {
        /// Its format.
        format: Format,
        /// The feature.
        what: String,
    },
    /// The image names another file, and the caller did not allow that: an image must not choose what
    /// is read.
    #[error(
        "the {format} file needs another file ({what}), and files named inside an image are not opened"
    )]
    ExternalFile {
        /// Its format.
        format: Format,
        /// A backing file or a data file.
        what: &'static str,
    },
    /// A file that the image names, and that may be opened, is of no use.
    #[error("cannot use {name:?}, which the image names")]
    Named {
        /// The name as it stands in the image.
        name: String,
        /// Why.
        #[source]
        source: Box<OpenError>,
    },
    /// The file could not be read.
    #[error("cannot read the {format} file")]
    Io {
        /// Its format.
        format: Format,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What one format does.
pub(crate) trait FormatDriver: Sync {
    fn format(&self) -> Format;
    /// Its name, also the usual extension.
    fn name(&self) -> &'static str;
    /// Further extensions, without the dot.
    fn extensions(&self) -> &'static [&'static str];
    /// True when the first bytes of a file are this format's; raw has none.
    fn has_magic(&self, head: &[u8]) -> bool;
    /// True when the last 512 bytes of a file are this format's. Asked only of the declared format:
    /// what is at the end of a disk, its guest decides.
    fn has_tail_magic(&self, _tail: &[u8]) -> bool {
        false
    }
    /// The kinds that can be written, the usual one first; empty when there is but one.
    fn subformats(&self) -> &'static [Subformat] {
        &[]
    }
    /// Whether a file can be compressed like this.
    fn compresses(&self, compression: Compression) -> bool {
        compression == Compression::None
    }
    /// Size of the disk in a file that holds one of `disk_size` bytes: some formats count in larger
    /// units.
    fn virtual_bytes(&self, disk_size: u64) -> u64 {
        disk_size
    }
    /// The largest disk that fits.
    fn limit(&self) -> u64 {
        u64::MAX
    }
    /// Whether the first bytes of this output are only known when all data is written.
    fn first_bytes_last(&self, _output: &Output<'_>) -> bool {
        false
    }
    /// Whether the sinks need the content digest.
    fn needs_content(&self) -> bool {
        false
    }
    /// The virtual disk inside `file`.
    fn open(&self, file: Arc<dyn ReadAt>, gate: &Gate<'_>) -> Result<Box<dyn ReadAt>, OpenError>;
    /// The sinks that write one output.
    fn sinks<'a>(&self, plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>>;
}

/// Every format, in the order of [`Format`].
pub(crate) static FORMATS: &[&dyn FormatDriver] =
    &[&raw::Raw, &qcow2::Qcow2, &vmdk::Vmdk, &vhd::Vhd];

impl Format {
    /// Every format.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|driver| driver.format())
    }

    /// Its name, which is also its usual extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.driver().name()
    }

    /// The format that a file's name declares by its extension.
    pub fn from_file_name(name: &str) -> Result<Self, FormatError> {
        let base = name.rsplit('/').next().unwrap_or(name);
        match base.rsplit_once('.') {
            Some((_, extension)) => extension.parse(),
            None => Err(FormatError(base.to_owned())),
        }
    }

    /// The kinds that can be written, the usual one first; empty when there is but one.
    #[must_use]
    pub fn subformats(self) -> &'static [Subformat] {
        self.driver().subformats()
    }

    /// Whether a file of this format can be compressed like this.
    #[must_use]
    pub fn compresses(self, compression: Compression) -> bool {
        self.driver().compresses(compression)
    }

    /// The compression of a file of this format where `wanted` is for all formats that can.
    #[must_use]
    pub fn compression(self, wanted: Compression) -> Compression {
        match self.compresses(wanted) {
            true => wanted,
            false => Compression::None,
        }
    }

    /// Size of the disk in a file that holds one of `disk_size` bytes: qcow2 and vmdk count in
    /// sectors, vhd in MiB.
    #[must_use]
    pub fn virtual_bytes(self, disk_size: u64) -> u64 {
        self.driver().virtual_bytes(disk_size)
    }

    /// Whether a disk of this size can be written like this.
    pub fn check(
        self,
        subformat: Subformat,
        compression: Compression,
        disk_size: u64,
    ) -> Result<(), SettingError> {
        let driver = self.driver();
        if subformat != Subformat::Default && !driver.subformats().contains(&subformat) {
            return Err(SettingError::NoSubformat {
                format: self,
                subformat,
            });
        }
        if compression != Compression::None && !driver.compresses(compression) {
            return Err(SettingError::NoCompression {
                format: self,
                compression,
            });
        }
        if disk_size > driver.limit() {
            return Err(SettingError::TooLarge {
                format: self,
                size: disk_size,
                limit: driver.limit(),
            });
        }
        Ok(())
    }

    fn names() -> String {
        FORMATS
            .iter()
            .map(|driver| driver.name())
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(crate) fn driver(self) -> &'static dyn FormatDriver {
        FORMATS[self as usize]
    }
}

impl FromStr for Format {
    type Err = FormatError;

    /// Accepts a name or an extension, in any case.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let wanted = text.to_ascii_lowercase();
        FORMATS
            .iter()
            .find(|driver| {
                driver.name() == wanted || driver.extensions().contains(&wanted.as_str())
            })
            .map(|driver| driver.format())
            .ok_or_else(|| FormatError(text.to_owned()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens a file of a declared format and gives the virtual disk inside it.
///
/// The format is never guessed; the first bytes are only looked at to refuse a wrong declaration. An image that names other files is refused; [`open_with`] opens them.
pub fn open(format: Format, file: Arc<dyn ReadAt>) -> Result<Box<dyn ReadAt>, OpenError> {
    open_through(format, file, &Gate::SHUT)
}

/// [`open`] that lets a qcow2 image have its backing file and its data file, by the opener's grace.
pub fn open_with(
    format: Format,
    file: Arc<dyn ReadAt>,
    opener: &dyn Opener,
) -> Result<Box<dyn ReadAt>, OpenError> {
    open_through(format, file, &Gate::new(opener))
}

pub(crate) fn open_through(
    format: Format,
    file: Arc<dyn ReadAt>,
    gate: &Gate<'_>,
) -> Result<Box<dyn ReadAt>, OpenError> {
    let mut head = [0; 512];
    let len = usize::try_from(file.size()).unwrap_or(512).min(512);
    file.read_exact_at(&mut head[..len], 0)
        .map_err(|source| OpenError::Io { format, source })?;
    let head = &head[..len];
    let mut tail = [0; 512];
    if let Some(at) = file.size().checked_sub(512) {
        file.read_exact_at(&mut tail, at)
            .map_err(|source| OpenError::Io { format, source })?;
    }
    if format.driver().has_tail_magic(&tail) {
        return format.driver().open(file, gate);
    }
    let found = FORMATS
        .iter()
        .find(|driver| driver.has_magic(head))
        .map(|driver| driver.format());
    match found {
        Some(found) if found != format => Err(OpenError::Mismatch {
            declared: format,
            found: found.name(),
        }),
        None if format != Format::Raw => Err(OpenError::Mismatch {
            declared: format,
            found: "something else",
        }),
        _ => format.driver().open(file, gate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_the_order_of_the_enum() {
        for (i, format) in Format::all().enumerate() {
            assert_eq!(format as usize, i);
            assert_eq!(format.name().parse(), Ok(format));
        }
    }

    #[test]
    fn file_names_declare_formats() {
        assert_eq!(Format::from_file_name("a.b/disk.QCOW2"), Ok(Format::Qcow2));
        assert_eq!(Format::from_file_name("disk.img"), Ok(Format::Raw));
        assert!(Format::from_file_name("a.raw/disk").is_err());
        let text = Format::from_file_name("x.docx").unwrap_err().to_string();
        assert_eq!(
            text,
            "\"docx\" is not a disk format; known are raw, qcow2, vmdk, vhd"
        );
    }

    #[test]
    fn a_wrong_declaration_is_refused() {
        let mut bytes = vec![0; 1024];
        bytes[..4].copy_from_slice(b"QFI\xFB");
        let Err(error) = open(Format::Raw, Arc::new(bytes)) else {
            panic!("opened")
        };
        assert_eq!(
            error.to_string(),
            "this is not a raw disk: it starts like qcow2"
        );
        assert!(matches!(
            open(Format::Qcow2, Arc::new(vec![0; 1024])),
            Err(OpenError::Mismatch { .. })
        ));
    }
}
