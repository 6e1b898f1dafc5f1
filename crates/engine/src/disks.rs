//! The disk files of an image's volumes, written in every format of the recipe.

use std::path::Path;
use std::sync::Arc;

use amiforge_ami::{Artifact, ArtifactFormat, DeviceName};
use amiforge_disk::{Compression, EmitOptions, Extents, Format, Output, Previous};
use amiforge_recipe::OutputFormat;
use amiforge_store::{FileBlob, FileTarget};
use amiforge_types::{BlobTable, ByteSize, Digest, GIB};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::output::OutFolder;
use crate::settings::Engine;
use crate::volumes::FurtherVolume;

/// A raw disk with more empty space than this gets no plain SHA-256: ten seconds of hashing zeros are
/// bearable, hours are not. Its content digest costs nothing there (docs/decisions/0016).
const HASHED_ZEROS: u64 = 16 * GIB;

/// A volume as written.
pub(crate) struct WrittenVolume {
    /// Identity of its content.
    pub(crate) content_digest: Digest,
    /// Its files.
    pub(crate) artifacts: Vec<Artifact>,
}

/// What files the volumes of a recipe become.
#[derive(Clone, Copy)]
pub(crate) struct Formats<'r> {
    /// The recipe's.
    pub(crate) names: &'r [OutputFormat],
    /// Of those that can be compressed.
    pub(crate) compression: Compression,
}

/// A volume to write.
struct Job<'a> {
    device: &'a DeviceName,
    /// File name up to the extension.
    stem: String,
    extents: &'a Extents,
    blobs: &'a BlobTable,
    threads: usize,
    /// An earlier compressed file of this volume.
    previous: Option<Previous>,
}

impl Engine {
    /// Writes `disk.<format>`. Of `earlier`, the qcow2 of another build, compressed clusters are taken over as far as
    /// their content is the same.
    pub(crate) fn write_root(
        &self,
        folder: &OutFolder,
        device: &DeviceName,
        formats: Formats<'_>,
        (extents, blobs): (&Extents, &BlobTable),
        threads: usize,
        earlier: Option<&Path>,
    ) -> Result<WrittenVolume, EngineError> {
        let job = Job {
            device,
            previous: earlier.and_then(|path| previous(path, formats.compression)),
            stem: "disk".to_owned(),
            extents,
            blobs,
            threads,
        };
        self.write_volume(folder, formats, &job, None)
    }

    /// Writes `disk-<device>.<format>` for every further volume, in the order given. They are empty:
    /// all hole, through the same sinks as any disk.
    pub(crate) fn write_further(
        &self,
        folder: &OutFolder,
        volumes: &[FurtherVolume],
        formats: Formats<'_>,
        threads: usize,
    ) -> Result<Vec<WrittenVolume>, EngineError> {
        let raw = formats.names.contains(&OutputFormat::Raw);
        let hashed: Vec<u64> = volumes
            .iter()
            .map(|v| v.bytes)
            .filter(|bytes| raw && *bytes <= HASHED_ZEROS)
            .collect();
        // Zeros are hashed once, up to the largest.
        let digests = amiforge_disk::zeros_sha256(&hashed);
        let blobs = BlobTable::new();
        volumes
            .iter()
            .map(|volume| {
                let extents = Extents::new(volume.bytes, Vec::new())
                    .or_fail(ErrorKind::Internal, || {
                        format!("the empty disk of {}", volume.device)
                    })?;
                let job = Job {
                    device: &volume.device,
                    stem: format!("disk-{}", volume.device.short()),
                    extents: &extents,
                    blobs: &blobs,
                    threads,
                    previous: None,
                };
                let at = hashed.iter().position(|bytes| *bytes == volume.bytes);
                let zeros = at.and_then(|at| digests.get(at).copied());
                self.write_volume(folder, formats, &job, zeros)
            })
            .collect()
    }

    fn write_volume(
        &self,
        folder: &OutFolder,
        wanted: Formats<'_>,
        job: &Job<'_>,
        raw_sha256: Option<Digest>,
    ) -> Result<WrittenVolume, EngineError> {
        let formats: Vec<(Format, ArtifactFormat)> = wanted
            .names
            .iter()
            .map(|format| match format {
                OutputFormat::Raw => (Format::Raw, ArtifactFormat::Raw),
                OutputFormat::Qcow2 => (Format::Qcow2, ArtifactFormat::Qcow2),
            })
            .collect();
        let names: Vec<String> = formats
            .iter()
            .map(|(format, _)| format!("{}.{}", job.stem, format.name()))
            .collect();
        self.stage("emit", names.join(", "));
        let context = || match job.stem.as_str() {
            "disk" => "cannot write the disk".to_owned(),
            _ => format!("cannot write the disk of {}", job.device),
        };
        let targets = names
            .iter()
            .map(|name| FileTarget::create(folder.path(name)))
            .collect::<Result<Vec<_>, _>>()
            .or_fail(ErrorKind::Failed, context)?;
        let zeros = job.extents.size().saturating_sub(job.extents.data_len());
        let hash_raw = zeros <= HASHED_ZEROS && raw_sha256.is_none();
        let outputs: Vec<Output<'_>> = formats
            .iter()
            .zip(&targets)
            .map(|((format, _), target)| Output {
                readback: Some(target),
                sha256: *format != Format::Raw || hash_raw,
                compression: format.compression(wanted.compression),
                previous: job.previous.as_ref(),
                ..Output::new(*format, target)
            })
            .collect();
        let options = EmitOptions {
            threads: job.threads,
            content_digest: true,
        };
        let watch = self.emit_watch();
        let emitted =
            amiforge_disk::emit_watched(job.extents, job.blobs, &outputs, options, &watch)
                .or_fail(ErrorKind::Failed, context)?;
        let content_digest = emitted.content_digest.ok_or_else(|| {
            EngineError::new(ErrorKind::Internal, "the disk has no content digest")
        })?;
        let mut artifacts = Vec::new();
        for (((_, format), file), written) in formats.iter().zip(names).zip(&emitted.artifacts) {
            let sha256 = match format {
                ArtifactFormat::Raw => written.sha256.or(raw_sha256),
                _ => written.sha256,
            };
            self.emit(Event::Artifact {
                file: file.clone(),
                bytes: written.bytes,
                sha256: sha256.map(|d| d.hex()),
            });
            if sha256.is_none() {
                self.warn(format!(
                    "{file} is not in SHA256SUMS: hashing {} of zeros takes too long; the manifest has its content digest",
                    ByteSize(zeros)
                ));
            }
            artifacts.push(Artifact {
                device: job.device.clone(),
                file,
                format: *format,
                bytes: written.bytes,
                virtual_bytes: written.virtual_bytes,
                sha256,
            });
        }
        Ok(WrittenVolume {
            content_digest,
            artifacts,
        })
    }
}

/// The file of an earlier build, if it can help: one that cannot costs no more than its time.
fn previous(path: &Path, compression: Compression) -> Option<Previous> {
    let previous = Previous::open(Arc::new(FileBlob::open(path).ok()?)).ok()?;
    previous.serves(compression).then_some(previous)
}
