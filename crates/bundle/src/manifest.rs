//! `image.manifest.xml`.
//!
//! ```text
//! manifest
//! ├─ version 2007-10-10
//! ├─ bundler: name, version, release
//! ├─ machine_configuration: architecture, kernel_id?, ramdisk_id?, block_device_mapping/mapping*, product_codes/product_code*   ┐ signed, as
//! ├─ image: name, user, type, digest, size, bundled_size, four encrypted values, parts/part*                                    ┘ they stand
//! └─ signature
//! ```

mod xml;

use amiforge_ami::ec2::{AccountId, BundleFacts};
use amiforge_ami::{BlockDeviceMapping, DeviceName, MappingTarget};
use amiforge_types::{Arch, Digest};

use crate::error::{ManifestError, hex, shorten, unhex};
use crate::keys::{Certificate, PrivateKey};
use xml::Element;

/// The only version there is.
pub const MANIFEST_VERSION: &str = "2007-10-10";
/// Largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Most parts of a bundle.
pub const MAX_PARTS: usize = 10_000;

/// What wrote a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundler {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its release.
    pub release: String,
}

/// A virtual device and the name that the instance has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMapping {
    /// `ami` or `root` (the root), `swap`, or `ephemeral0` to `ephemeral23`.
    pub virtual_name: String,
    /// For example `/dev/sda1`.
    pub device: String,
}

/// A part of a bundle, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// A plain file name.
    pub file_name: String,
    /// SHA-1 of its bytes.
    pub digest: [u8; 20],
}

/// A manifest. One that was read has a signature that is to be verified with [`BundleManifest::verify`] before anything else of it is used;
/// [`crate::unbundle`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleManifest {
    /// What wrote it.
    pub bundler: Bundler,
    /// `i386` or `x86_64`, or what else a tool wrote.
    pub architecture: String,
    /// `aki-…`
    pub kernel_id: Option<String>,
    /// `ari-…`
    pub ramdisk_id: Option<String>,
    /// In their order.
    pub mappings: Vec<DeviceMapping>,
    /// Codes of the marketplace.
    pub product_codes: Vec<String>,
    /// Name of the image: what its parts are called.
    pub name: String,
    /// The account that bundled it.
    pub user: AccountId,
    /// SHA-1 of the archive.
    pub digest: [u8; 20],
    /// Bytes of the image.
    pub size: u64,
    /// Bytes of all parts.
    pub bundled_size: u64,
    /// The key, sealed for EC2.
    pub ec2_encrypted_key: Vec<u8>,
    /// The key, sealed for the user.
    pub user_encrypted_key: Vec<u8>,
    /// The initialization vector, sealed for EC2.
    pub ec2_encrypted_iv: Vec<u8>,
    /// The initialization vector, sealed for the user.
    pub user_encrypted_iv: Vec<u8>,
    /// In their order.
    pub parts: Vec<PartRecord>,
    /// The signature.
    pub signature: Vec<u8>,
    /// What it is over: the two elements as they stand in the document, and as a writer that adds no white space has them.
    pub(crate) signed: [String; 2],
}

impl BundleManifest {
    /// The architecture, when it is one that is known here.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        [Arch::X86_64, Arch::Arm64]
            .into_iter()
            .find(|a| a.ec2() == self.architecture)
    }

    /// What `RegisterImage` wants to know of the manifest. The root and ephemeral volumes are those of the mapping, `/dev/` put before names without it.
    ///
    /// `document` is the digest of the manifest's text.
    ///
    /// # Errors
    /// An architecture or device name that images here cannot have.
    pub fn facts(&self, document: Digest) -> Result<BundleFacts, ManifestError> {
        let wrong = |element: &str, text: &str, expected: &str| ManifestError::Value {
            element: element.to_owned(),
            text: shorten(text),
            expected: expected.to_owned(),
        };
        let architecture = self.arch().ok_or_else(|| {
            wrong(
                "machine_configuration/architecture",
                &self.architecture,
                "x86_64",
            )
        })?;
        let (mut ephemeral, mut root) = (Vec::new(), None);
        for mapping in &self.mappings {
            let name = mapping.virtual_name.as_str();
            let target = name.parse().map(MappingTarget::Virtual);
            if target.is_err() && !matches!(name, "ami" | "root") {
                continue;
            }
            let device = mapping.device.as_str();
            let path = if device.starts_with('/') {
                device.to_owned()
            } else {
                format!("/dev/{device}")
            };
            let element = "machine_configuration/block_device_mapping/mapping/device";
            let device_name: DeviceName = path
                .parse()
                .map_err(|_| wrong(element, device, "a device name"))?;
            match target {
                Ok(target) => ephemeral.push(BlockDeviceMapping {
                    device_name,
                    target,
                }),
                // `ami` is the device as the kernel has it, `root` what it is called: the latter has the last word.
                Err(_) if name == "root" || root.is_none() => root = Some(device_name),
                Err(_) => {}
            }
        }
        Ok(BundleFacts {
            architecture,
            image_bytes: self.size,
            stored_bytes: self.bundled_size,
            manifest: document,
            root,
            ephemeral,
        })
    }

    /// The account's AES key or vector as `key` opens it: the user's value, else EC2's.
    pub(crate) fn opened(key: &PrivateKey, user: &[u8], ec2: &[u8]) -> Option<[u8; 16]> {
        key.open(user).or_else(|| key.open(ec2))
    }

    /// Whether `key` opens the bundle.
    #[must_use]
    pub fn opens(&self, key: &PrivateKey) -> bool {
        Self::opened(key, &self.user_encrypted_key, &self.ec2_encrypted_key).is_some()
            && Self::opened(key, &self.user_encrypted_iv, &self.ec2_encrypted_iv).is_some()
    }

    /// Whether the signature is that of this certificate, over the elements as they stand or without the white space that tools add
    /// between elements for reading.
    ///
    /// # Errors
    /// [`ManifestError::Signature`].
    pub fn verify(&self, signer: &Certificate) -> Result<(), ManifestError> {
        let good = |text: &String| signer.verifies(text.as_bytes(), &self.signature);
        if self.signed.iter().any(good) {
            Ok(())
        } else {
            Err(ManifestError::Signature)
        }
    }

    /// Reads a manifest. Its signature is not verified here, as that takes a certificate.
    ///
    /// # Errors
    /// What is wrong with it, and in which element.
    pub fn from_xml(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(text.len()));
        }
        // The ranges of elements count from behind the mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = xml::parse(text)?;
        if root.name != "manifest" {
            return Err(ManifestError::Missing("element `manifest`".to_owned()));
        }
        let root = At {
            element: &root,
            path: String::new(),
        };
        let version = root.text("version")?;
        if version != MANIFEST_VERSION {
            return Err(ManifestError::Version(shorten(&version)));
        }
        let bundler = root.child("bundler")?;
        let machine = root.child("machine_configuration")?;
        let image = root.child("image")?;
        let image_type = image.text("type")?;
        if image_type != "machine" {
            return Err(image.wrong("type", &image_type, "`machine`"));
        }
        let name = image.text("name")?;
        if !plain(&name) {
            return Err(image.wrong("name", &name, "a plain name"));
        }
        let user = image.text("user")?;
        let sealed = |name: &str| -> Result<Vec<u8>, ManifestError> {
            let element = image.child(name)?;
            element.algorithm("AES-128-CBC")?;
            image.hex(name)
        };
        let digest = image.child("digest")?.sha1()?;
        let parts = parts(&image.child("parts")?)?;
        let raw = |at: &At<'_>| {
            text.get(at.element.range.clone())
                .unwrap_or_default()
                .to_owned()
        };
        let canonical = |at: &At<'_>| at.element.canonical();
        Ok(Self {
            bundler: Bundler {
                name: bundler.text("name")?,
                version: bundler.text("version")?,
                release: bundler.text("release")?,
            },
            architecture: machine.text("architecture")?,
            kernel_id: machine.optional("kernel_id")?,
            ramdisk_id: machine.optional("ramdisk_id")?,
            mappings: mappings(&machine)?,
            product_codes: product_codes(&machine)?,
            user: user
                .parse()
                .map_err(|_| image.wrong("user", &user, "an account id of 12 digits"))?,
            digest,
            size: image.number("size", 1, crate::MAX_IMAGE_BYTES)?,
            bundled_size: image.number("bundled_size", 1, 2 * crate::MAX_IMAGE_BYTES)?,
            ec2_encrypted_key: sealed("ec2_encrypted_key")?,
            user_encrypted_key: sealed("user_encrypted_key")?,
            ec2_encrypted_iv: image.hex("ec2_encrypted_iv")?,
            user_encrypted_iv: image.hex("user_encrypted_iv")?,
            parts,
            signature: root.hex("signature")?,
            signed: [
                format!("{}{}", raw(&machine), raw(&image)),
                format!("{}{}", canonical(&machine), canonical(&image)),
            ],
            name,
        })
    }

    /// Writes the two elements that are signed, without white space.
    pub(crate) fn signed_xml(&self) -> String {
        let mut out = String::new();
        let leaf = xml::leaf;
        out.push_str("<machine_configuration>");
        leaf(&mut out, "architecture", &[], &self.architecture);
        for (name, value) in [
            ("kernel_id", &self.kernel_id),
            ("ramdisk_id", &self.ramdisk_id),
        ] {
            if let Some(value) = value {
                leaf(&mut out, name, &[], value);
            }
        }
        if !self.mappings.is_empty() {
            out.push_str("<block_device_mapping>");
            for mapping in &self.mappings {
                out.push_str("<mapping>");
                leaf(&mut out, "virtual", &[], &mapping.virtual_name);
                leaf(&mut out, "device", &[], &mapping.device);
                out.push_str("</mapping>");
            }
            out.push_str("</block_device_mapping>");
        }
        if !self.product_codes.is_empty() {
            out.push_str("<product_codes>");
            for code in &self.product_codes {
                leaf(&mut out, "product_code", &[], code);
            }
            out.push_str("</product_codes>");
        }
        out.push_str("</machine_configuration><image>");
        let (sha1, aes) = (
            &[("algorithm", "SHA1")][..],
            &[("algorithm", "AES-128-CBC")][..],
        );
        leaf(&mut out, "name", &[], &self.name);
        leaf(&mut out, "user", &[], self.user.as_str());
        // EC2 wants it right after the user.
        leaf(&mut out, "type", &[], "machine");
        leaf(&mut out, "digest", sha1, &hex(&self.digest));
        leaf(&mut out, "size", &[], &self.size.to_string());
        leaf(
            &mut out,
            "bundled_size",
            &[],
            &self.bundled_size.to_string(),
        );
        leaf(
            &mut out,
            "ec2_encrypted_key",
            aes,
            &hex(&self.ec2_encrypted_key),
        );
        leaf(
            &mut out,
            "user_encrypted_key",
            aes,
            &hex(&self.user_encrypted_key),
        );
        leaf(
            &mut out,
            "ec2_encrypted_iv",
            &[],
            &hex(&self.ec2_encrypted_iv),
        );
        leaf(
            &mut out,
            "user_encrypted_iv",
            &[],
            &hex(&self.user_encrypted_iv),
        );
        out.push_str(&format!("<parts count=\"{}\">", self.parts.len()));
        for (index, part) in self.parts.iter().enumerate() {
            out.push_str(&format!("<part index=\"{index}\">"));
            leaf(&mut out, "filename", &[], &part.file_name);
            leaf(&mut out, "digest", sha1, &hex(&part.digest));
            out.push_str("</part>");
        }
        out.push_str("</parts></image>");
        out
    }

    /// The whole document around what is signed.
    pub(crate) fn document(&self, signed: &str) -> String {
        let mut out = "<?xml version=\"1.0\"?><manifest>".to_owned();
        xml::leaf(&mut out, "version", &[], MANIFEST_VERSION);
        out.push_str("<bundler>");
        xml::leaf(&mut out, "name", &[], &self.bundler.name);
        xml::leaf(&mut out, "version", &[], &self.bundler.version);
        xml::leaf(&mut out, "release", &[], &self.bundler.release);
        out.push_str("</bundler>");
        out.push_str(signed);
        xml::leaf(&mut out, "signature", &[], &hex(&self.signature));
        out.push_str("</manifest>\n");
        out
    }
}

/// A name that is no path and nothing else: letters, digits, `.`, `_` and `-`, at most 128, not beginning with a dot.
pub(crate) fn plain(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether a mapping's virtual name is one.
pub(crate) fn virtual_name(name: &str) -> bool {
    matches!(name, "ami" | "root" | "swap") || name.parse::<amiforge_ami::VirtualName>().is_ok()
}

fn mappings(machine: &At<'_>) -> Result<Vec<DeviceMapping>, ManifestError> {
    let Some(list) = machine.maybe("block_device_mapping")? else {
        return Ok(Vec::new());
    };
    list.all("mapping")
        .map(|mapping| {
            let (virtual_name, device) = (mapping.text("virtual")?, mapping.text("device")?);
            if !self::virtual_name(&virtual_name) {
                return Err(mapping.wrong(
                    "virtual",
                    &virtual_name,
                    "`ami`, `root`, `swap` or `ephemeral0` to `ephemeral23`",
                ));
            }
            Ok(DeviceMapping {
                virtual_name,
                device,
            })
        })
        .collect()
}

fn product_codes(machine: &At<'_>) -> Result<Vec<String>, ManifestError> {
    match machine.maybe("product_codes")? {
        None => Ok(Vec::new()),
        Some(list) => list
            .all("product_code")
            .map(|code| code.own_text())
            .collect(),
    }
}

fn parts(list: &At<'_>) -> Result<Vec<PartRecord>, ManifestError> {
    let mut found = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (number, part) in list.all("part").enumerate() {
        if number == MAX_PARTS {
            return Err(list.wrong("part", "more", &format!("one of at most {MAX_PARTS}")));
        }
        let index = part.element.attribute("index").unwrap_or_default();
        if index != number.to_string() {
            return Err(part.wrong("@index", index, &number.to_string()));
        }
        let file_name = part.text("filename")?;
        if !plain(&file_name) || !names.insert(file_name.clone()) {
            return Err(part.wrong("filename", &file_name, "a plain file name of its own"));
        }
        let digest = part.child("digest")?.sha1()?;
        found.push(PartRecord { file_name, digest });
    }
    let count = list.element.attribute("count").unwrap_or_default();
    if found.is_empty() || count != found.len().to_string() {
        return Err(list.wrong(
            "@count",
            count,
            &format!("the number of its parts, {}", found.len()),
        ));
    }
    Ok(found)
}

/// An element and the names above it.
struct At<'a> {
    element: &'a Element,
    path: String,
}

impl<'a> At<'a> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.path)
        }
    }

    fn wrong(&self, name: &str, text: &str, expected: &str) -> ManifestError {
        ManifestError::Value {
            element: if name.is_empty() {
                self.path.clone()
            } else {
                self.path_of(name)
            },
            text: shorten(text),
            expected: expected.to_owned(),
        }
    }

    fn all(&self, name: &'a str) -> impl Iterator<Item = At<'a>> {
        let path = self.path_of(name);
        let named = self.element.children.iter().filter(move |c| c.name == name);
        named.enumerate().map(move |(i, element)| At {
            element,
            path: format!("{path}[{i}]"),
        })
    }

    /// The one child of a name.
    fn maybe(&self, name: &str) -> Result<Option<At<'a>>, ManifestError> {
        let mut named = self.element.children.iter().filter(|c| c.name == name);
        let first = named.next();
        if named.next().is_some() {
            return Err(self.wrong(name, "there twice", "one element"));
        }
        Ok(first.map(|element| At {
            element,
            path: self.path_of(name),
        }))
    }

    fn child(&self, name: &str) -> Result<At<'a>, ManifestError> {
        self.maybe(name)?
            .ok_or_else(|| ManifestError::Missing(self.path_of(name)))
    }

    /// The text of an element without elements.
    fn own_text(&self) -> Result<String, ManifestError> {
        if self.element.children.is_empty() {
            Ok(self.element.text.trim().to_owned())
        } else {
            Err(self.wrong("", "elements", "a text"))
        }
    }

    fn text(&self, name: &str) -> Result<String, ManifestError> {
        self.child(name)?.own_text()
    }

    fn optional(&self, name: &str) -> Result<Option<String>, ManifestError> {
        self.maybe(name)?.map(|at| at.own_text()).transpose()
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, ManifestError> {
        let text = self.text(name)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|n| digits && (least..=most).contains(n))
            .ok_or_else(|| self.wrong(name, &text, &format!("a number from {least} to {most}")))
    }

    /// Hex digits, at most those of an RSA value.
    fn hex(&self, name: &str) -> Result<Vec<u8>, ManifestError> {
        let text = self.text(name)?;
        unhex(&text)
            .filter(|bytes| (1..=1024).contains(&bytes.len()))
            .ok_or_else(|| self.wrong(name, &text, "hex digits"))
    }

    fn algorithm(&self, wanted: &str) -> Result<(), ManifestError> {
        match self.element.attribute("algorithm") {
            Some(found) if found == wanted => Ok(()),
            found => Err(self.wrong("@algorithm", found.unwrap_or_default(), wanted)),
        }
    }

    fn sha1(&self) -> Result<[u8; 20], ManifestError> {
        self.algorithm("SHA1")?;
        let text = self.own_text()?;
        unhex(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| self.wrong("", &text, "40 hex digits"))
    }
}

#[cfg(test)]
mod tests;
