//! Instance-store images: bundles, made of an image or a disk, and taken apart again.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use amiforge_ami::MappingTarget;
use amiforge_ami::ec2::{BundleFacts, CopiedImage, Launch};
use amiforge_bundle::{
    BundleOptions, Bundler, Certificate, PART_BYTES, PartSink, PartSource, PrivateKey, Random,
};
use amiforge_store::ec2::Hold;
use amiforge_types::{Arch, ReadAt};

use super::desk::{Desk, Place};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::look::open_disk;
use crate::settings::Engine;

/// What to bundle.
#[derive(Clone, Debug)]
pub struct BundleRequest {
    /// An image, or a disk file.
    pub image: String,
    /// The user's certificate.
    pub certificate: PathBuf,
    /// The user's private key.
    pub private_key: PathBuf,
    /// The certificate of EC2.
    pub ec2_certificate: PathBuf,
    /// What names of files begin with.
    pub prefix: String,
    /// The folder.
    pub out: PathBuf,
}

struct Chance;

impl Random for Chance {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(16) {
            // getrandom(2) cannot fail once the kernel has started; a key of zeros must never be used all the same.
            #[allow(
                clippy::expect_used,
                reason = "no key at all is better than one that can be guessed"
            )]
            let bits = amiforge_store::ec2::random_u128().expect("random bytes of the kernel");
            part.copy_from_slice(&bits.to_le_bytes()[..part.len()]);
        }
    }
}

/// Parts in a folder.
struct Folder<'a>(&'a Path);

impl PartSink for Folder<'_> {
    type Part = BufWriter<File>;

    fn begin(&mut self, _index: usize, name: &str) -> io::Result<Self::Part> {
        Ok(BufWriter::with_capacity(
            1 << 20,
            File::create_new(self.0.join(name))?,
        ))
    }

    fn end(&mut self, part: Self::Part) -> io::Result<()> {
        part.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    }
}

impl PartSource for Folder<'_> {
    type Part = io::BufReader<File>;

    fn open(&mut self, _index: usize, name: &str) -> io::Result<Self::Part> {
        let path = self.0.join(name);
        crate::files::check_artifact(&path).map_err(io::Error::other)?;
        Ok(io::BufReader::with_capacity(1 << 20, File::open(path)?))
    }
}

/// A disk from its first byte on.
struct Stream<'a> {
    disk: &'a dyn ReadAt,
    at: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.size() - self.at;
        let n = usize::try_from(left.min(buf.len() as u64)).unwrap_or(buf.len());
        self.disk.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    read_file(path, MAX_JSON).or_fail(ErrorKind::Invalid, || {
        format!("{} cannot be read", path.display())
    })
}

fn certificate(path: &Path) -> Result<Certificate, EngineError> {
    Certificate::parse(&read(path)?).or_fail(ErrorKind::Invalid, || {
        format!("{} cannot be used", path.display())
    })
}

fn private_key(path: &Path) -> Result<PrivateKey, EngineError> {
    PrivateKey::parse(&read(path)?).or_fail(ErrorKind::Invalid, || {
        format!("{} cannot be used", path.display())
    })
}

impl Engine {
    /// Bundles the root of an image, or a disk; gives the path of the manifest. The folder must not have files of these names.
    pub fn bundle_image(
        &self,
        place: &Place,
        request: &BundleRequest,
    ) -> Result<PathBuf, EngineError> {
        let user = certificate(&request.certificate)?;
        let key = private_key(&request.private_key)?;
        let ec2 = certificate(&request.ec2_certificate)?;
        let desk = self.desk(place)?;
        let disk: Box<dyn ReadAt> = if Path::new(&request.image).is_file() {
            open_disk(Path::new(&request.image))?.1
        } else {
            let image = desk.image(&request.image)?;
            let state = desk.read()?;
            let root = image
                .block_device_mappings
                .iter()
                .find(|m| m.device_name == image.root_device_name);
            let snapshot = root.and_then(|m| match &m.target {
                MappingTarget::Ebs(ebs) => ebs.snapshot_id.clone(),
                _ => None,
            });
            let snapshot = snapshot.ok_or_else(|| {
                EngineError::new(
                    ErrorKind::Failed,
                    format!("{} has no root snapshot", image.image_id),
                )
            })?;
            Box::new(desk.reader(&state, desk.snapshot(&state, snapshot.as_str())?)?)
        };
        desk.no_dry_run()?;
        let context = || format!("cannot bundle {}", request.image);
        fs_err::create_dir_all(&request.out).or_fail(ErrorKind::Failed, context)?;
        let bundler = Bundler {
            name: "amiforge".to_owned(),
            version: crate::plans::TOOL_VERSION.to_owned(),
            release: "0".to_owned(),
        };
        let options = BundleOptions {
            bundler: &bundler,
            prefix: &request.prefix,
            arch: Arch::X86_64,
            account: &desk.caller.account,
            kernel_id: None,
            ramdisk_id: None,
            mappings: &[],
            product_codes: &[],
            part_bytes: PART_BYTES,
            user_certificate: &user,
            user_key: &key,
            ec2_certificate: &ec2,
        };
        let mut stream = Stream {
            disk: &*disk,
            at: 0,
        };
        let mut sink = Folder(&request.out);
        let made =
            amiforge_bundle::bundle(&mut stream, disk.size(), &options, &mut Chance, &mut sink)
                .or_fail(ErrorKind::Failed, context)?;
        // The manifest comes last: a bundle without one is none.
        let path = request.out.join(&made.manifest_name);
        amiforge_store::write_atomic(&path, made.manifest.as_bytes())
            .or_fail(ErrorKind::Failed, context)?;
        Ok(path)
    }

    /// Takes a bundle apart: the disk appears whole or not at all.
    pub fn unbundle_image(
        &self,
        manifest: &Path,
        key: &Path,
        signer: Option<&Path>,
        out: &Path,
    ) -> Result<(), EngineError> {
        let text = String::from_utf8_lossy(&read(manifest)?).into_owned();
        let key = private_key(key)?;
        let signer = signer.map(certificate).transpose()?;
        let context = || format!("cannot take {} apart", manifest.display());
        let parent = |path: &Path| {
            path.parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
                .to_owned()
        };
        let mut temp =
            tempfile::NamedTempFile::new_in(parent(out)).or_fail(ErrorKind::Failed, context)?;
        let folder = parent(manifest);
        {
            let mut writer = BufWriter::with_capacity(1 << 20, temp.as_file_mut());
            amiforge_bundle::unbundle(
                &text,
                &key,
                signer.as_ref(),
                &mut Folder(&folder),
                &mut writer,
            )
            .or_fail(ErrorKind::Failed, context)?;
            writer.flush().or_fail(ErrorKind::Failed, context)?;
        }
        temp.as_file()
            .sync_all()
            .or_fail(ErrorKind::Failed, context)?;
        temp.persist(out)
            .map(drop)
            .map_err(|e| e.error)
            .or_fail(ErrorKind::Failed, context)
    }
}

fn not_here() -> EngineError {
    EngineError::new(
        ErrorKind::Failed,
        "instance-store images cannot be registered or launched here: their bundles are sealed for EC2's own key",
    )
    .with_hint("`amiforge image unbundle` with your key makes a disk of it, and `image register --disk` an image")
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
