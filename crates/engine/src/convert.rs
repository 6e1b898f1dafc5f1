//! `disk convert`: a disk file in other formats.

use std::path::PathBuf;
use std::sync::Arc;

use amiforge_disk::{Extents, Format};
use amiforge_types::{BlobTable, ReadAt};

use crate::diskfiles::{Checksums, Declared, DiskFilesReport, OutputRequest};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::look::open_disk_as;
use crate::settings::Engine;

/// What to convert.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// The disk.
    pub input: PathBuf,
    /// Its format; `None` for what its extension says.
    pub from: Option<Format>,
    /// Whether the image may name other files (a backing file, a data file).
    pub named_files: bool,
    /// The files to write.
    pub output: OutputRequest,
}

impl Engine {
    /// Writes the disk in a file to other files.
    pub fn convert(&self, request: &ConvertRequest) -> Result<DiskFilesReport, EngineError> {
        let context = || format!("cannot convert {}", request.input.display());
        let declared = request.output.declared()?;
        self.stage("read", request.input.display().to_string());
        let (format, disk, _) = open_disk_as(&request.input, request.from, request.named_files)?;
        // A raw disk that nobody has to look at is copied by the kernel, which keeps the holes.
        let copied = format == Format::Raw && request.output.checksums == Checksums::None;
        let looked_at = !copied || declared.iter().any(|d| !d.is_raw());
        self.emit_disk(disk, &request.output, &declared, looked_at, &context)
    }

    /// Writes a disk to files.
    pub(crate) fn write_disk(
        &self,
        disk: Box<dyn ReadAt>,
        output: &OutputRequest,
    ) -> Result<DiskFilesReport, EngineError> {
        let declared = output.declared()?;
        let context = || {
            let files = output.files.iter().map(|f| f.display().to_string());
            format!("cannot write {}", files.collect::<Vec<_>>().join(", "))
        };
        self.emit_disk(disk, output, &declared, true, &context)
    }

    fn emit_disk(
        &self,
        disk: Box<dyn ReadAt>,
        output: &OutputRequest,
        declared: &[Declared<'_>],
        looked_at: bool,
        context: &dyn Fn() -> String,
    ) -> Result<DiskFilesReport, EngineError> {
        let disk: Arc<dyn ReadAt> = Arc::from(disk);
        let mut blobs = BlobTable::new();
        let id = blobs.add(disk.clone());
        let extents = Extents::of_disk(&*disk, id).or_fail(ErrorKind::Failed, context)?;
        self.write_disk_files(&extents, &blobs, output, declared, looked_at, context)
    }
}
