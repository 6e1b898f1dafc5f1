//! An earlier compressed file, whose clusters are taken over where the content is the same.
//!
//! Decompressing a cluster and comparing it costs a fraction of compressing it. The comparison makes
//! any file safe to take from: the content of the output is right whatever the file says. That the
//! *bytes* are those that compressing would have given, the name of the encoder in the file's header
//! vouches for; a file without that name is of no use.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::layout::CLUSTER_BITS;
use super::read::{Cluster, Qcow2Disk};
use crate::Compression;
use crate::format::codec::{CLUSTER_LEN, Codecs, Wrapping};
use crate::format::{Gate, OpenError};

/// A qcow2 file that this program compressed earlier.
pub struct Previous {
    disk: Qcow2Disk,
}

impl Previous {
    /// Opens it.
    pub fn open(file: Arc<dyn ReadAt>) -> Result<Self, OpenError> {
        crate::format::open(super::Format::Qcow2, Arc::clone(&file))?;
        Ok(Self {
            disk: Qcow2Disk::open(file, &Gate::SHUT)?,
        })
    }

    /// Whether it was compressed as an output with this compression would be.
    #[must_use]
    pub fn serves(&self, compression: Compression) -> bool {
        let wanted = Codecs::new(compression, Wrapping::Qcow2).name();
        wanted.is_some() && self.encoder() == wanted.as_deref()
    }

    /// What compressed it, when the clusters are of our size.
    pub(super) fn encoder(&self) -> Option<&str> {
        self.disk
            .encoder()
            .filter(|_| self.disk.cluster_bits() == CLUSTER_BITS)
    }

    /// When guest cluster `number` is compressed and holds exactly `cluster`: adds its stored bytes to
    /// `out`, and gives true. A plain cluster is no help: it did not shrink, or a guest wrote it since.
    pub(super) fn take(&self, number: u64, cluster: &[u8], out: &mut Vec<u8>) -> io::Result<bool> {
        thread_local! {
            static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        if (number + 1) << CLUSTER_BITS > self.disk.size().next_multiple_of(1 << CLUSTER_BITS) {
            return Ok(false);
        }
        SCRATCH.with_borrow_mut(|(input, content)| {
            content.resize(CLUSTER_LEN, 0);
            match self.disk.locate(number)? {
                Cluster::Zero | Cluster::Absent | Cluster::Plain { .. } => Ok(false),
                Cluster::Compressed { offset, len } => {
                    let used = self.disk.expand(offset, len, input, content)?;
                    if content != cluster {
                        return Ok(false);
                    }
                    out.extend_from_slice(&input[..used]);
                    Ok(true)
                }
            }
        })
    }
}
