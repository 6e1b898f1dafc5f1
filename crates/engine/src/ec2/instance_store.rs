//! Instance-store images: registered from the manifest of a bundle, launched, copied.
//!
//! A bundle that was registered stays where its owner has it: the record says where its manifest lies, and the SHA-256 of it. The
//! signature is verified when the image is registered; from then on the digest stands for it, and a manifest that was changed is another
//! one. Of the parts only presence and size are looked at then; their digests are verified whenever they are read, before
//! anything of them is used. A copy is a folder of the store's own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use amiforge_ami::ec2::{ApiError, BundleFacts, ErrorCode, Image};
use amiforge_ami::{ImageId, InstanceId};
use amiforge_bundle::{
    BundleManifest, Certificate, KeyPair, MAX_MANIFEST_BYTES, copy_parts, unpack,
};
use amiforge_store::FileBlob;
use amiforge_store::ec2::Hold;
use amiforge_types::{Digest, ReadAt};

use super::bundle::{Chance, Folder, Sparse};
use super::desk::{Desk, broken, refusal};
use super::folder::ROOT;
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::files::{check_artifact, read_file};
use crate::settings::Engine;

/// What the certificate of EC2 says of whom it is.
const EC2_NAME: &str = "EC2 on this desk";
/// Bytes of a sector: a disk has whole ones.
const SECTOR: u64 = 512;

/// A bundle as it lies there.
struct Bundle {
    /// Absolute.
    path: PathBuf,
    text: String,
    manifest: BundleManifest,
}

fn invalid_manifest(message: impl Into<String>) -> EngineError {
    refusal(ApiError::new(ErrorCode::InvalidManifest, message))
}

impl Bundle {
    fn read(path: &Path) -> Result<Self, EngineError> {
        let bad = |why: String| invalid_manifest(format!("{}: {why}", path.display()));
        let bytes =
            read_file(path, MAX_MANIFEST_BYTES as u64).map_err(|e| invalid_manifest(chain(&e)))?;
        let text = String::from_utf8(bytes).map_err(|_| bad("not a text".to_owned()))?;
        let manifest = BundleManifest::from_xml(&text).map_err(|e| bad(chain(&e)))?;
        Ok(Self {
            path: path.to_owned(),
            text,
            manifest,
        })
    }

    /// The bundle of an image, when its manifest is still the one that was registered.
    fn of(image: &Image) -> Result<Self, EngineError> {
        let location = image.image_location.as_deref().unwrap_or_default();
        let bundle = Self::read(Path::new(location))?;
        if image.bundle_manifest != Some(bundle.digest()) {
            return Err(invalid_manifest(format!(
                "{location} is not the manifest that {} was registered with: it was changed",
                image.image_id
            ))
            .with_hint("register it as an image of its own"));
        }
        Ok(bundle)
    }

    fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Whether all parts are there, and have as many bytes as the manifest says.
    fn check_presence(&self) -> Result<(), EngineError> {
        let mut total = 0;
        for part in &self.manifest.parts {
            let path = self.folder().join(&part.file_name);
            check_artifact(&path).map_err(|e| invalid_manifest(chain(&e)))?;
            let meta = std::fs::metadata(&path);
            total += meta.map_or(0, |meta| meta.len());
        }
        if total == self.manifest.bundled_size {
            return Ok(());
        }
        Err(invalid_manifest(format!(
            "{}: its parts have {total} bytes, and it says {}",
            self.path.display(),
            self.manifest.bundled_size
        )))
    }
}

/// The path of a manifest as it is recorded: whole, so that it is the same from every folder.
pub(super) fn location(path: &str) -> Result<String, EngineError> {
    let bad = |why: String| invalid_manifest(format!("{path}: {why}"));
    let whole = std::fs::canonicalize(path).map_err(|e| bad(e.to_string()))?;
    let text = whole.into_os_string().into_string();
    text.map_err(|_| bad("its path is no text".to_owned()))
}

impl Desk<'_> {
    /// EC2's key pair, when there is one.
    fn kept_ec2_pair(&self) -> Result<Option<KeyPair>, EngineError> {
        let kept = self.ec2.keys().ec2_pair().map_err(broken)?;
        kept.map(|text| self.parse_pair(&text)).transpose()
    }

    fn parse_pair(&self, text: &[u8]) -> Result<KeyPair, EngineError> {
        KeyPair::from_pem(text).or_fail(ErrorKind::Failed, || {
            let path = self.ec2.path().join("keys/ec2.pem");
            format!("{} cannot be used", path.display())
        })
    }

    /// EC2's key pair, made when it is first needed: one for all accounts and regions, so that a copy in another region needs no other key.
    pub(super) fn ec2_pair(&self) -> Result<KeyPair, EngineError> {
        if let Some(pair) = self.kept_ec2_pair()? {
            return Ok(pair);
        }
        let context = || "cannot make the key of EC2".to_owned();
        let made = KeyPair::make(EC2_NAME, Engine::wall_clock(), &mut Chance)
            .or_fail(ErrorKind::Internal, context)?;
        let text = made.to_pem().or_fail(ErrorKind::Internal, context)?;
        // Another process may have been first.
        let kept = self.ec2.keys().keep_ec2_pair(text.as_bytes());
        self.parse_pair(&kept.map_err(broken)?)
    }

    /// What the rules need to know of a manifest that is to be registered: signed for the account, sealed for EC2 here, and its parts there.
    pub(super) fn bundle_facts(&self, path: &Path) -> Result<BundleFacts, EngineError> {
        let bundle = Bundle::read(path)?;
        let shown = path.display();
        let state = self.read()?;
        let signers = state
            .settings
            .iter()
            .filter(|((account, _), _)| *account == self.caller.account)
            .flat_map(|(_, settings)| settings.signing_certificates.values());
        let signed = signers
            .filter_map(|pem| Certificate::parse(pem.as_bytes()).ok())
            .any(|signer| bundle.manifest.verify(&signer).is_ok());
        if !signed {
            return Err(invalid_manifest(format!(
                "{shown}: its signature is of no certificate of account {}, or it was changed",
                self.caller.account
            ))
            .with_hint(
                "`amiforge account --signing-certificate FILE` makes the certificate known that it was bundled with",
            ));
        }
        if !self
            .kept_ec2_pair()?
            .is_some_and(|pair| bundle.manifest.opens(pair.key()))
        {
            return Err(
                invalid_manifest(format!("{shown}: it is not sealed for EC2 here")).with_hint(
                    "bundle it with the certificate that `amiforge account --ec2-certificate FILE` writes",
                ),
            );
        }
        bundle.check_presence()?;
        let facts = bundle.manifest.facts(bundle.digest());
        facts.map_err(|e| invalid_manifest(format!("{shown}: {e}")))
    }

    /// Makes the root of an instance that is being launched from a bundle: a file in its folder, with holes where the image is zero. The
    /// whole is verified when this returns `Ok`; else the file is as good as none, and goes when the launch is ended.
    pub(super) fn make_root_of_bundle(
        &self,
        _hold: &Hold,
        id: &InstanceId,
    ) -> Result<(), EngineError> {
        let context = || format!("cannot make the root of {id}");
        let state = self.read()?;
        let image = state
            .instances
            .get(id)
            .and_then(|instance| state.images.get(&instance.image_id));
        let image = image.ok_or_else(|| EngineError::new(ErrorKind::Failed, context()))?;
        self.engine.stage("unbundle", id.to_string());
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.folder(id).path().join(ROOT))
            .or_fail(ErrorKind::Failed, context)?;
        self.unpack(image, &file)
    }

    /// Writes the root of an instance-store image to a new file: whole sectors of it.
    pub(super) fn unpack(&self, image: &Image, file: &File) -> Result<(), EngineError> {
        let bundle = Bundle::of(image)?;
        let context = || format!("cannot take {} apart", bundle.path.display());
        let Some(pair) = self.kept_ec2_pair()? else {
            let path = self.ec2.path().join("keys/ec2.pem");
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!("{}: {} is gone", context(), path.display()),
            )
            .with_hint("bring the file back; without it no bundle that was sealed for EC2 here can be opened"));
        };
        let mut out = Sparse::new(file);
        let mut parts = Folder::new(bundle.folder());
        unpack(&bundle.manifest, pair.key(), &mut parts, &mut out)
            .or_fail(ErrorKind::Failed, context)?;
        out.finish(SECTOR).or_fail(ErrorKind::Failed, context)
    }

    /// The root of an image of the caller's, as a disk: a file beside `out` without a name.
    pub(super) fn root_of(
        &self,
        image: &Image,
        out: &Path,
    ) -> Result<Box<dyn ReadAt>, EngineError> {
        if image.owner != self.caller.account {
            // As with snapshots: who may launch a shared image may not read its storage.
            return Err(refusal(ApiError::new(
                ErrorCode::InvalidRequest,
                "You do not have permission to access the storage of this ami",
            )));
        }
        let _hold = self.ec2.hold().map_err(broken)?;
        let context = || format!("cannot write {}", out.display());
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty());
        let file = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))
            .or_fail(ErrorKind::Failed, context)?;
        self.unpack(image, &file)?;
        let disk = FileBlob::from_file(file).or_fail(ErrorKind::Failed, context)?;
        Ok(Box::new(disk))
    }

    /// Copies the bundle of a copy of an image into the store, each part verified; gives where its manifest is then.
    pub(super) fn copy_bundle(&self, hold: &Hold, copy: &ImageId) -> Result<String, EngineError> {
        let state = self.read()?;
        let context = || format!("cannot copy the bundle of {copy}");
        let image = state.images.get(copy);
        // Until it is complete, its location is that of what it is a copy of.
        let image = image.ok_or_else(|| EngineError::new(ErrorKind::Failed, context()))?;
        let bundle = Bundle::of(image)?;
        self.engine.stage("copy", copy.to_string());
        let new = self.ec2.begin_bundle(hold).map_err(broken)?;
        let mut source = Folder::new(bundle.folder());
        let mut sink = Folder::private(new.path());
        copy_parts(&bundle.manifest, &mut source, &mut sink).or_fail(ErrorKind::Failed, context)?;
        let name = format!("{}.manifest.xml", bundle.manifest.name);
        write_new(&new.path().join(&name), bundle.text.as_bytes())
            .or_fail(ErrorKind::Failed, context)?;
        let place = new.place(copy).map_err(broken)?.join(name);
        place.into_os_string().into_string().map_err(|_| {
            EngineError::new(
                ErrorKind::Failed,
                format!("{}: the path of the store is no text", context()),
            )
        })
    }
}

/// Writes a private file that is not there.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
