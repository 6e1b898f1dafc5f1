//! Image → parts and manifest.

use std::io::{self, Read, Write};

use amiforge_ami::ec2::AccountId;
use amiforge_types::Arch;
use flate2::{Compression, GzBuilder};
use sha1::{Digest as _, Sha1};

use crate::cipher::Encrypt;
use crate::error::{BundleError, KeyError, carried, taken};
use crate::keys::{Certificate, PrivateKey};
use crate::manifest::{
    BundleManifest, Bundler, DeviceMapping, MAX_PARTS, PartRecord, plain, virtual_name,
};
use crate::{MAX_IMAGE_BYTES, tar};

/// Bytes of a part, unless another size is asked for: 10 MiB.
pub const PART_BYTES: u64 = 10 * 1024 * 1024;

/// A source of chance, good enough for keys.
pub trait Random {
    /// Fills a buffer.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Where parts go.
pub trait PartSink {
    /// Takes the bytes of one part.
    type Part: Write;

    /// Begins a part. Its name is a plain file name.
    ///
    /// # Errors
    /// Why there can be none.
    fn begin(&mut self, index: usize, name: &str) -> io::Result<Self::Part>;

    /// Ends it.
    ///
    /// # Errors
    /// Why it is not whole.
    fn end(&mut self, part: Self::Part) -> io::Result<()>;
}

/// What a bundle is to be.
#[derive(Clone, Copy, Debug)]
pub struct BundleOptions<'a> {
    /// Name of the image, and beginning of the names of its files.
    pub prefix: &'a str,
    /// Architecture; instance-store images are of x86 alone.
    pub arch: Arch,
    /// The account that bundles.
    pub account: &'a AccountId,
    /// `aki-…` of a paravirtual kernel.
    pub kernel_id: Option<&'a str>,
    /// `ari-…`
    pub ramdisk_id: Option<&'a str>,
    /// Devices of the instance.
    pub mappings: &'a [DeviceMapping],
    /// Codes of the marketplace.
    pub product_codes: &'a [String],
    /// Bytes of each part but the last, see [`PART_BYTES`].
    pub part_bytes: u64,
    /// Certificate of the user.
    pub user_certificate: &'a Certificate,
    /// Its private key.
    pub user_key: &'a PrivateKey,
    /// Certificate of EC2: of whoever launches the image. Here that can be the user, too.
    pub ec2_certificate: &'a Certificate,
    /// What writes the bundle.
    pub bundler: &'a Bundler,
}

/// A part that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPart {
    /// Its name.
    pub name: String,
    /// SHA-1 of its bytes.
    pub digest: [u8; 20],
    /// Its bytes.
    pub bytes: u64,
}

/// A bundle that was written.
#[derive(Clone, Debug)]
pub struct Bundled {
    /// The text of the manifest.
    pub manifest: String,
    /// What it should be called: `<prefix>.manifest.xml`.
    pub manifest_name: String,
    /// The parts.
    pub parts: Vec<WrittenPart>,
}

/// Bundles an image of known length. The same image, keys and random bytes give the same bundle.
///
/// # Errors
/// Wishes and keys that cannot be; an image of another length; a part that cannot be written, by its number and name.
pub fn bundle<S: PartSink>(
    image: &mut dyn Read,
    length: u64,
    options: &BundleOptions<'_>,
    rng: &mut dyn Random,
    sink: &mut S,
) -> Result<Bundled, BundleError> {
    check(length, options)?;
    let (mut key, mut iv) = ([0; 16], [0; 16]);
    rng.fill(&mut key);
    rng.fill(&mut iv);
    let parts = Parts {
        sink,
        prefix: options.prefix,
        part_bytes: options.part_bytes,
        current: None,
        done: Vec::new(),
    };
    // No time, name or system in the header: the same bytes everywhere.
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Encrypt::new(parts, &key, &iv), Compression::default());
    let mut archive = Hashing {
        inner: gzip,
        sha1: Sha1::new(),
    };
    let failed = |e| taken(e, BundleError::Image);
    archive
        .write_all(&tar::header(options.prefix, length))
        .map_err(failed)?;
    copy(image, length, &mut archive)?;
    let zeros = vec![0; tar::trailer(length)];
    archive.write_all(&zeros).map_err(failed)?;
    let digest = archive.sha1.finalize().into();
    let encrypt = archive.inner.finish().map_err(failed)?;
    let parts = encrypt.finish().map_err(failed)?;
    let written = parts.finish()?;
    let mut manifest = BundleManifest {
        bundler: options.bundler.clone(),
        architecture: options.arch.ec2().to_owned(),
        kernel_id: options.kernel_id.map(str::to_owned),
        ramdisk_id: options.ramdisk_id.map(str::to_owned),
        mappings: options.mappings.to_vec(),
        product_codes: options.product_codes.to_vec(),
        name: options.prefix.to_owned(),
        user: options.account.clone(),
        digest,
        size: length,
        bundled_size: written.iter().map(|p| p.bytes).sum(),
        ec2_encrypted_key: options.ec2_certificate.seal(&key, rng)?,
        user_encrypted_key: options.user_certificate.seal(&key, rng)?,
        ec2_encrypted_iv: options.ec2_certificate.seal(&iv, rng)?,
        user_encrypted_iv: options.user_certificate.seal(&iv, rng)?,
        parts: written
            .iter()
            .map(|p| PartRecord {
                file_name: p.name.clone(),
                digest: p.digest,
            })
            .collect(),
        signature: Vec::new(),
        signed: Default::default(),
    };
    let signed = manifest.signed_xml();
    manifest.signature = options.user_key.sign(signed.as_bytes(), rng)?;
    Ok(Bundled {
        manifest: manifest.document(&signed),
        manifest_name: format!("{}.manifest.xml", options.prefix),
        parts: written,
    })
}

fn check(length: u64, options: &BundleOptions<'_>) -> Result<(), BundleError> {
    let refuse = |what: &'static str, problem: String| Err(BundleError::Option { what, problem });
    if !(1..=MAX_IMAGE_BYTES).contains(&length) {
        return refuse(
            "image",
            format!(
                "it has {length} bytes; the root of an instance-store image has 1 to {MAX_IMAGE_BYTES} (10 GiB)"
            ),
        );
    }
    // The name is also that of the file in the archive, and the parts' names are longer.
    if !plain(options.prefix) || options.prefix.len() > 90 {
        return refuse(
            "prefix",
            format!(
                "{:?} is no plain name: up to 90 letters, digits, `.`, `_` and `-`",
                options.prefix
            ),
        );
    }
    if options.arch != Arch::X86_64 {
        return refuse(
            "architecture",
            format!(
                "{}: no instance type for it has instance stores that boot",
                options.arch
            ),
        );
    }
    let max = crate::MAX_PART_BYTES;
    // Incompressible images grow by a few bytes; the archive adds its header.
    let enough =
        options.part_bytes.saturating_mul(MAX_PARTS as u64) > length + length / 512 + 64 * 1024;
    if !(64 * 1024..=max).contains(&options.part_bytes) || !enough {
        return refuse(
            "part size",
            format!(
                "{} bytes: parts have 64 KiB to {max} bytes, and there are at most {MAX_PARTS}",
                options.part_bytes
            ),
        );
    }
    if let Some(mapping) = options
        .mappings
        .iter()
        .find(|m| !virtual_name(&m.virtual_name))
    {
        return refuse(
            "mapping",
            format!(
                "{:?} is not `ami`, `root`, `swap` or `ephemeral0` to `ephemeral23`",
                mapping.virtual_name
            ),
        );
    }
    let mut names: Vec<&str> = options
        .mappings
        .iter()
        .map(|m| m.virtual_name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse("mapping", format!("{:?} is there twice", pair[0]));
    }
    let texts = options
        .mappings
        .iter()
        .map(|m| m.device.as_str())
        .chain(options.product_codes.iter().map(String::as_str))
        .chain(options.kernel_id)
        .chain(options.ramdisk_id)
        .chain(
            [
                &options.bundler.name,
                &options.bundler.version,
                &options.bundler.release,
            ]
            .map(String::as_str),
        );
    for text in texts {
        let graphic = |b: u8| b.is_ascii_graphic() || b == b' ';
        if text.trim() != text || text.is_empty() || text.len() > 128 || !text.bytes().all(graphic)
        {
            return refuse("text", format!("{text:?} cannot stand in a manifest"));
        }
    }
    match options.user_key.matches(options.user_certificate) {
        true => Ok(()),
        false => Err(KeyError::Mismatch.into()),
    }
}

/// Copies exactly `length` bytes.
fn copy(image: &mut dyn Read, length: u64, out: &mut impl Write) -> Result<(), BundleError> {
    let mut buffer = vec![0; 256 * 1024];
    let mut got = 0;
    loop {
        let count = match image.read(&mut buffer) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(BundleError::Image(e)),
        };
        got += count as u64;
        if got > length {
            return Err(BundleError::ImageLong(length));
        }
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count])
            .map_err(|e| taken(e, BundleError::Image))?;
    }
    if got < length {
        return Err(BundleError::ImageShort { length, got });
    }
    Ok(())
}

/// SHA-1 of what passes.
struct Hashing<W> {
    inner: W,
    sha1: Sha1,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sha1.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Current<P> {
    part: P,
    name: String,
    sha1: Sha1,
    bytes: u64,
}

/// Cuts what is written into parts.
struct Parts<'a, S: PartSink> {
    sink: &'a mut S,
    prefix: &'a str,
    part_bytes: u64,
    current: Option<Current<S::Part>>,
    done: Vec<WrittenPart>,
}

impl<S: PartSink> Parts<'_, S> {
    fn error(&self, name: &str, source: io::Error) -> BundleError {
        BundleError::PartWrite {
            index: self.done.len(),
            name: name.to_owned(),
            source,
        }
    }

    fn end(&mut self) -> Result<(), BundleError> {
        if let Some(Current {
            part,
            name,
            sha1,
            bytes,
        }) = self.current.take()
        {
            if let Err(source) = self.sink.end(part) {
                return Err(self.error(&name, source));
            }
            self.done.push(WrittenPart {
                name,
                digest: sha1.finalize().into(),
                bytes,
            });
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, BundleError> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => {
                let index = self.done.len();
                let name = format!("{}.part.{index:02}", self.prefix);
                let part = match self.sink.begin(index, &name) {
                    Ok(part) => part,
                    Err(source) => return Err(self.error(&name, source)),
                };
                Current {
                    part,
                    name,
                    sha1: Sha1::new(),
                    bytes: 0,
                }
            }
        };
        let left = usize::try_from(self.part_bytes - current.bytes).unwrap_or(usize::MAX);
        let count = left.min(bytes.len());
        if let Err(source) = current.part.write_all(&bytes[..count]) {
            return Err(self.error(&current.name, source));
        }
        current.sha1.update(&bytes[..count]);
        current.bytes += count as u64;
        let full = current.bytes == self.part_bytes;
        self.current = Some(current);
        if full {
            self.end()?;
        }
        Ok(count)
    }

    fn finish(mut self) -> Result<Vec<WrittenPart>, BundleError> {
        self.end()?;
        Ok(self.done)
    }
}

impl<S: PartSink> Write for Parts<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.put(bytes).map_err(carried)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
