//! Instance-store images.

use std::path::Path;

use amiforge_ami::ec2::{BundleFacts, CopiedImage, Launch};
use amiforge_store::ec2::Hold;

use super::desk::Desk;
use crate::error::{EngineError, ErrorKind};

fn not_here() -> EngineError {
    EngineError::new(ErrorKind::Failed, "instance-store images cannot be registered or launched here: their bundles are encrypted for EC2's private key")
        .with_hint("`amiforge image unbundle` with the user's key makes a disk of it, and `image register --disk` an image")
}

impl Desk<'_> {
    pub(super) fn bundle_facts(&self, _manifest: &Path) -> Result<BundleFacts, EngineError> {
        Err(not_here())
    }

    pub(super) fn make_root_of_bundle(
        &self,
        _hold: &Hold,
        _launch: &Launch,
        _manifest: &Path,
    ) -> Result<(), EngineError> {
        Err(not_here())
    }

    pub(super) fn copy_bundle(&self, _copied: &CopiedImage) -> Result<String, EngineError> {
        Err(not_here())
    }
}
