//! Instance-store images: bundles, made of an image or a disk, and taken apart again.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use amiforge_ami::MappingTarget;
use amiforge_ami::ec2::{Image, RegionSettings, RootDevice};
use amiforge_bundle::{
    BundleOptions, Bundler, Certificate, DeviceMapping, PART_BYTES, PartSink, PartSource,
    PrivateKey, Random, certificate_pem,
};
use amiforge_types::{Arch, Digest, ReadAt};

use super::desk::Place;
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
    pub certificate: Option<PathBuf>,
    /// The user's private key.
    pub private_key: Option<PathBuf>,
    /// The certificate of EC2; `None`: of EC2 in this store.
    pub ec2_certificate: Option<PathBuf>,
    /// What names of files begin with.
    pub prefix: String,
    /// The folder.
    pub out: PathBuf,
}

pub(super) struct Chance;

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
pub(super) struct Folder<'a> {
    path: &'a Path,
    /// Of new files.
    mode: u32,
}

impl<'a> Folder<'a> {
    /// A folder of the user's.
    pub(super) const fn new(path: &'a Path) -> Self {
        Self { path, mode: 0o666 }
    }

    /// A folder of the store's: new files are its owner's alone.
    pub(super) const fn private(path: &'a Path) -> Self {
        Self { path, mode: 0o600 }
    }
}

impl PartSink for Folder<'_> {
    type Part = BufWriter<File>;

    fn begin(&mut self, _index: usize, name: &str) -> io::Result<Self::Part> {
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(self.mode);
        Ok(BufWriter::with_capacity(
            1 << 20,
            file.open(self.path.join(name))?,
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
        let path = self.path.join(name);
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

/// A new file that is written from its first byte on: what is zero becomes holes.
pub(super) struct Sparse<'a> {
    file: &'a File,
    at: u64,
}

/// Bytes of what is looked at for zeros.
const GRAIN: u64 = 4096;

impl<'a> Sparse<'a> {
    pub(super) const fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }

    /// Gives the file its length: that of what was written, in whole sectors of `sector` bytes.
    pub(super) fn finish(self, sector: u64) -> io::Result<()> {
        self.file.set_len(self.at.next_multiple_of(sector))
    }
}

impl Write for Sparse<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Runs of grains of the file that are zero, or are not.
        let (mut from, mut at) = (0, 0);
        let flush = |from: usize, until: usize| match buf[from..until].iter().all(|b| *b == 0) {
            true => Ok(()),
            false => self
                .file
                .write_all_at(&buf[from..until], self.at + from as u64),
        };
        let mut run_is_zero = None;
        while at < buf.len() {
            let offset = self.at + at as u64;
            let left = usize::try_from(GRAIN - offset % GRAIN).unwrap_or(1);
            let end = buf.len().min(at + left);
            let is_zero = buf[at..end].iter().all(|b| *b == 0);
            if run_is_zero.is_some_and(|was: bool| was != is_zero) {
                flush(from, at)?;
                from = at;
            }
            run_is_zero = Some(is_zero);
            at = end;
        }
        flush(from, at)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    read_file(path, MAX_JSON).or_fail(ErrorKind::Invalid, || {
        format!("{} cannot be read", path.display())
    })
}

/// Lets bundles be registered that this certificate signed; gives its id.
pub(super) fn add_signer(settings: &mut RegionSettings, pem: String) -> String {
    let id = Digest::of(pem.as_bytes()).hex()[..32].to_owned();
    settings.signing_certificates.insert(id.clone(), pem);
    id
}

/// The devices that an image says of its instances, as manifests have them: the root, and instance store volumes.
fn devices(image: &Image) -> Vec<DeviceMapping> {
    let mapping = |virtual_name: String, device: &str| DeviceMapping {
        virtual_name,
        device: device.to_owned(),
    };
    let root = &image.root_device_name;
    let mut list = vec![
        mapping("ami".to_owned(), root.short()),
        mapping("root".to_owned(), root.as_str()),
    ];
    for entry in &image.block_device_mappings {
        if let MappingTarget::Virtual(name) = &entry.target {
            let (name, device) = (name.to_string(), entry.device_name.short());
            if list.iter().all(|m| m.virtual_name != name) {
                list.push(mapping(name, device));
            }
        }
    }
    list
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
        let (Some(user_file), Some(key_file)) = (&request.certificate, &request.private_key) else {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                "a bundle is signed by its user: --certificate and --private-key are needed",
            )
            .with_hint("`openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=me -keyout user.key -out user.crt` makes both"));
        };
        let user = certificate(user_file)?;
        let key = private_key(key_file)?;
        let given = request.ec2_certificate.as_deref();
        let given = given.map(certificate).transpose()?;
        let desk = self.desk(place)?;
        let mut mappings = Vec::new();
        let disk: Box<dyn ReadAt> = if Path::new(&request.image).is_file() {
            open_disk(Path::new(&request.image))?.1
        } else {
            let image = desk.image(&request.image)?;
            mappings = devices(&image);
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
                let what = match image.root_device_type {
                    RootDevice::Ebs => "has no root snapshot",
                    RootDevice::InstanceStore => "is a bundle already",
                };
                EngineError::new(ErrorKind::Failed, format!("{} {what}", image.image_id))
            })?;
            Box::new(desk.reader(&state, desk.snapshot(&state, snapshot.as_str())?)?)
        };
        desk.no_dry_run()?;
        let context = || format!("cannot bundle {}", request.image);
        if !key.matches(&user) {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "{} is not the key of {}",
                    key_file.display(),
                    user_file.display()
                ),
            ));
        }
        // Whoever has the key may sign for the account: bundles of this certificate can be registered from now on.
        let pem = certificate_pem(&read(user_file)?).or_fail(ErrorKind::Invalid, || {
            format!("{} cannot be used", user_file.display())
        })?;
        desk.transact(|state, _| {
            let known = state.settings.iter().any(|((account, _), settings)| {
                *account == desk.caller.account
                    && settings.signing_certificates.values().any(|p| *p == pem)
            });
            if !known {
                let mut settings = state.settings_of(&desk.caller);
                add_signer(&mut settings, pem);
                let at = (desk.caller.account.clone(), desk.caller.region.clone());
                state.settings.insert(at, settings);
            }
            Ok(())
        })?;
        let ec2 = match given {
            Some(certificate) => certificate,
            None => desk.ec2_pair()?.certificate(),
        };
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
            mappings: &mappings,
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
        let mut sink = Folder::new(&request.out);
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
        let out = &crate::files::target(out).or_fail(ErrorKind::Failed, context)?;
        let temp =
            tempfile::NamedTempFile::new_in(parent(out)).or_fail(ErrorKind::Failed, context)?;
        let folder = parent(manifest);
        {
            let mut writer = Sparse::new(temp.as_file());
            amiforge_bundle::unbundle(
                &text,
                &key,
                signer.as_ref(),
                &mut Folder::new(&folder),
                &mut writer,
            )
            .or_fail(ErrorKind::Failed, context)?;
            writer.finish(1).or_fail(ErrorKind::Failed, context)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_become_holes_wherever_they_lie() {
        let mut disk = vec![0; 1_000_001];
        for at in [0, 4095, 8192, 500_000, 500_001, 1_000_000] {
            disk[at] = 7;
        }
        for piece in [1, 511, 4096, 5000, 300_000, disk.len()] {
            let file = tempfile::tempfile().unwrap();
            let mut out = Sparse::new(&file);
            for bytes in disk.chunks(piece) {
                out.write_all(bytes).unwrap();
            }
            out.finish(512).unwrap();
            let mut found = vec![0xd1; disk.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == disk, "{piece}");
            let meta = file.metadata().unwrap();
            assert_eq!(meta.len(), 1_000_448);
            assert!(meta.blocks() * 512 <= 16 * GRAIN, "{piece}");
        }
    }
}
