//! Other files that an image names: who may open them.
//!
//! An image must not choose what is read on the host. So nothing is opened for it, unless the caller
//! hands in an [`Opener`], which decides by name.

use std::io;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::{Format, OpenError};

/// Opens files that an image names. Handing one in allows it.
pub trait Opener {
    /// The bytes of the file of this name, and the opener for what is named in it: a relative name
    /// counts from the file that it stands in.
    fn open(&self, name: &str) -> io::Result<(Arc<dyn ReadAt>, Box<dyn Opener>)>;
}

/// Images over images are followed this deep.
const MAX_DEPTH: u32 = 16;

/// A file that was opened, and who opens what it names in turn.
type Opened = (Arc<dyn ReadAt>, Box<dyn Opener>);

/// What an image may have opened.
pub(crate) struct Gate<'a> {
    opener: Option<&'a dyn Opener>,
    depth: u32,
}

impl<'a> Gate<'a> {
    /// Nothing.
    pub(crate) const SHUT: Gate<'static> = Gate {
        opener: None,
        depth: 0,
    };

    /// What the opener allows.
    pub(super) fn new(opener: &'a dyn Opener) -> Self {
        Self {
            opener: Some(opener),
            depth: 0,
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.opener.is_none()
    }

    fn opened(&self, format: Format, name: &str) -> Result<Opened, OpenError> {
        let opener = self.opener.ok_or(OpenError::ExternalFile {
            format,
            what: "another file",
        })?;
        opener.open(name).map_err(|source| OpenError::Named {
            name: name.to_owned(),
            source: Box::new(OpenError::Io { format, source }),
        })
    }

    /// The bytes of a file that an image of `format` names.
    pub(super) fn open_bytes(
        &self,
        format: Format,
        name: &str,
    ) -> Result<Arc<dyn ReadAt>, OpenError> {
        Ok(self.opened(format, name)?.0)
    }

    /// The disk in a file of format `inner` that an image of `format` names.
    pub(super) fn open_disk(
        &self,
        format: Format,
        name: &str,
        inner: Format,
    ) -> Result<Box<dyn ReadAt>, OpenError> {
        if self.depth == MAX_DEPTH {
            return Err(OpenError::Unsupported {
                format,
                what: format!("more than {MAX_DEPTH} images over one another"),
            });
        }
        let (file, opener) = self.opened(format, name)?;
        let gate = Gate {
            opener: Some(&*opener),
            depth: self.depth + 1,
        };
        super::open_through(inner, file, &gate).map_err(|source| OpenError::Named {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }
}
