use std::io::{self, Read, Write};
use std::sync::OnceLock;

use amiforge_types::Arch;
use flate2::{Compression, GzBuilder};
use sha1::{Digest as _, Sha1};

use super::*;
use crate::cipher::Encrypt;
use crate::error::hex;

/// Bytes that look like chance and are the same each time.
struct Chance(u64);

impl Random for Chance {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_be_bytes()[3];
        }
    }
}

/// The user's key, EC2's and a stranger's.
fn keys() -> &'static [PrivateKey; 3] {
    static KEYS: OnceLock<[PrivateKey; 3]> = OnceLock::new();
    KEYS.get_or_init(|| [1, 2, 3].map(|n| keys::test_key(&mut Chance(n))))
}

/// Parts in memory. The number of one that fails, when it is opened or begun.
#[derive(Clone, Default)]
struct Memory {
    parts: Vec<(String, Vec<u8>)>,
    fails: Option<usize>,
}

struct Part(String, Vec<u8>);

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartSink for Memory {
    type Part = Part;

    fn begin(&mut self, index: usize, name: &str) -> io::Result<Part> {
        assert_eq!(index, self.parts.len());
        match self.fails {
            Some(n) if n == index => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(Part(name.to_owned(), Vec::new())),
        }
    }

    fn end(&mut self, part: Part) -> io::Result<()> {
        self.parts.push((part.0, part.1));
        Ok(())
    }
}

impl PartSource for Memory {
    type Part = io::Cursor<Vec<u8>>;

    fn open(&mut self, index: usize, name: &str) -> io::Result<Self::Part> {
        let part = self
            .parts
            .get(index)
            .filter(|(n, _)| n == name && self.fails != Some(index));
        part.map(|(_, bytes)| io::Cursor::new(bytes.clone()))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A manifest over these parts, signed by the user.
fn manifest_of(
    memory: &Memory,
    archive: &[u8],
    size: u64,
    key: &[u8; 16],
    iv: &[u8; 16],
) -> String {
    let [user, ec2, _] = keys();
    let mut rng = Chance(9);
    let mut manifest = BundleManifest {
        bundler: bundler(),
        architecture: "x86_64".into(),
        kernel_id: None,
        ramdisk_id: None,
        mappings: Vec::new(),
        product_codes: Vec::new(),
        name: "image".into(),
        user: "123456789012".parse().unwrap(),
        digest: Sha1::digest(archive).into(),
        size,
        bundled_size: memory.parts.iter().map(|(_, b)| b.len() as u64).sum(),
        ec2_encrypted_key: ec2.public().seal(key, &mut rng).unwrap(),
        user_encrypted_key: user.public().seal(key, &mut rng).unwrap(),
        ec2_encrypted_iv: ec2.public().seal(iv, &mut rng).unwrap(),
        user_encrypted_iv: user.public().seal(iv, &mut rng).unwrap(),
        parts: memory
            .parts
            .iter()
            .map(|(name, bytes)| PartRecord {
                file_name: name.clone(),
                digest: Sha1::digest(bytes).into(),
            })
            .collect(),
        signature: Vec::new(),
        signed: Default::default(),
    };
    let signed = manifest.signed_xml();
    manifest.signature = user.sign(signed.as_bytes(), &mut rng).unwrap();
    manifest.document(&signed)
}

fn bundler() -> Bundler {
    Bundler {
        name: "test".into(),
        version: "1".into(),
        release: "0".into(),
    }
}

/// Bundles what is compressed already, whatever it is, as one part.
fn sealed(compressed: &[u8], archive: &[u8], size: u64) -> (String, Memory) {
    let (key, iv) = ([7; 16], [8; 16]);
    let mut encrypt = Encrypt::new(Vec::new(), &key, &iv);
    encrypt.write_all(compressed).unwrap();
    let part = encrypt.finish().unwrap();
    let memory = Memory {
        parts: vec![("image.part.00".into(), part)],
        fails: None,
    };
    (manifest_of(&memory, archive, size, &key, &iv), memory)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn image(bytes: usize) -> Vec<u8> {
    let mut image = vec![0; bytes];
    Chance(5).fill(&mut image[..bytes / 2]);
    image
}

struct Wishes<'a> {
    certificates: [Certificate; 2],
    account: amiforge_ami::ec2::AccountId,
    mappings: Vec<DeviceMapping>,
    bundler: Bundler,
    key: &'a PrivateKey,
}

impl Wishes<'_> {
    fn new() -> Self {
        let [user, ec2, _] = keys();
        Wishes {
            certificates: [user.public(), ec2.public()],
            account: "123456789012".parse().unwrap(),
            mappings: vec![DeviceMapping {
                virtual_name: "root".into(),
                device: "/dev/sda1".into(),
            }],
            bundler: bundler(),
            key: user,
        }
    }

    fn options(&self) -> BundleOptions<'_> {
        BundleOptions {
            prefix: "image",
            arch: Arch::X86_64,
            account: &self.account,
            kernel_id: None,
            ramdisk_id: None,
            mappings: &self.mappings,
            product_codes: &[],
            part_bytes: 64 * 1024,
            user_certificate: &self.certificates[0],
            user_key: self.key,
            ec2_certificate: &self.certificates[1],
            bundler: &self.bundler,
        }
    }
}

fn bundled(image: &[u8]) -> (Bundled, Memory) {
    let (wishes, mut memory) = (Wishes::new(), Memory::default());
    let bundled = bundle(
        &mut &image[..],
        image.len() as u64,
        &wishes.options(),
        &mut Chance(4),
        &mut memory,
    )
    .unwrap();
    (bundled, memory)
}

fn unbundled(manifest: &str, key: usize, memory: &mut Memory) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    // EC2 knows the user's certificate.
    let signer = keys()[0].public();
    match unbundle(manifest, &keys()[key], Some(&signer), memory, &mut out) {
        Ok(found) => {
            assert_eq!(found.bytes, out.len() as u64);
            Ok(out)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_image_goes_both_ways() {
    for bytes in [1, 511, 512, 70_000, 300_000, 2_000_000] {
        let image = image(bytes);
        let (bundled, mut memory) = bundled(&image);
        assert_eq!(bundled.manifest_name, "image.manifest.xml");
        let names: Vec<String> = (0..memory.parts.len())
            .map(|i| format!("image.part.{i:02}"))
            .collect();
        assert_eq!(
            memory
                .parts
                .iter()
                .map(|(n, _)| n.clone())
                .collect::<Vec<_>>(),
            names
        );
        assert!(
            memory
                .parts
                .iter()
                .rev()
                .skip(1)
                .all(|(_, b)| b.len() == 64 * 1024),
            "{bytes}"
        );
        for key in [0, 1] {
            assert_eq!(
                unbundled(&bundled.manifest, key, &mut memory).as_ref(),
                Ok(&image),
                "{bytes}"
            );
        }
        let mut out = Vec::new();
        let found = unbundle(&bundled.manifest, &keys()[0], None, &mut memory, &mut out).unwrap();
        assert_eq!(found.manifest.arch(), Some(Arch::X86_64));
        assert_eq!(found.manifest.mappings, Wishes::new().mappings);
    }
}

#[test]
fn the_same_wishes_give_the_same_bytes() {
    let image = image(200_000);
    let (a, parts) = bundled(&image);
    let (b, again) = bundled(&image);
    assert_eq!(a.manifest, b.manifest);
    assert_eq!(parts.parts, again.parts);
}

#[test]
fn damaged_parts_are_named() {
    let image = image(400_000);
    let (bundled, good) = bundled(&image);
    let last = good.parts.len() - 1;
    assert!(last > 1);
    let change = |change: &dyn Fn(&mut Memory)| {
        let mut memory = good.clone();
        change(&mut memory);
        unbundled(&bundled.manifest, 0, &mut memory).unwrap_err()
    };
    let total: usize = good.parts.iter().map(|(_, b)| b.len()).sum();
    for (found, message) in [
        (
            change(&|m| m.parts[1].1[5] ^= 1),
            "part 1 (image.part.01) is damaged: its SHA-1 is ".to_owned(),
        ),
        (
            change(&|m| m.parts.swap(0, 1)),
            "part 0 (image.part.00) cannot be read".into(),
        ),
        (
            change(&|m| {
                m.parts.swap(0, 1);
                m.parts[0].0 = "image.part.00".into();
            }),
            "part 0 (image.part.00) is damaged".into(),
        ),
        (
            change(&|m| {
                m.parts.pop();
            }),
            format!("part {last} (image.part.{last:02}) cannot be read"),
        ),
        (
            change(&|m| m.fails = Some(1)),
            "part 1 (image.part.01) cannot be read".into(),
        ),
        (
            change(&|m| {
                m.parts[last].1.pop();
            }),
            format!(
                "the parts up to it have {} bytes, and the manifest says {total}",
                total - 1
            ),
        ),
        (
            change(&|m| m.parts[last].1.push(0)),
            format!("the parts up to it have {} bytes", total + 1),
        ),
        (
            change(&|m| {
                m.parts[0].1.pop();
            }),
            "part 0 (image.part.00) is damaged".into(),
        ),
        (
            change(&|m| m.parts[0].1.extend(vec![0; 1 << 20])),
            "part 0 (image.part.00): the parts up to it".into(),
        ),
    ] {
        assert!(found.contains(&message), "{message}: {found}");
    }
}

#[test]
fn copies_have_the_parts_that_the_manifest_says() {
    let image = image(300_000);
    let (bundled, mut memory) = bundled(&image);
    let manifest = BundleManifest::from_xml(&bundled.manifest).unwrap();
    let [user, ec2, stranger] = keys();
    assert_eq!(
        [user, ec2, stranger].map(|key| manifest.opens(key)),
        [true, true, false]
    );
    let mut copy = Memory::default();
    copy_parts(&manifest, &mut memory, &mut copy).unwrap();
    assert_eq!(copy.parts, memory.parts);
    let mut out = Vec::new();
    unpack(&manifest, ec2, &mut copy, &mut out).unwrap();
    assert!(out == image);

    let last = memory.parts.len() - 1;
    memory.parts[last].1[0] ^= 1;
    let found = copy_parts(&manifest, &mut memory, &mut Memory::default());
    assert!(matches!(found, Err(BundleError::PartDigest { index, .. }) if index == last));
    memory.parts[last].1.push(0);
    let found = copy_parts(&manifest, &mut memory, &mut Memory::default());
    assert!(matches!(found, Err(BundleError::PartSize { .. })));
    let mut full = Memory {
        fails: Some(1),
        ..Memory::default()
    };
    let found = copy_parts(&manifest, &mut copy, &mut full);
    assert!(matches!(
        found,
        Err(BundleError::PartWrite { index: 1, .. })
    ));
}

#[test]
fn manifests_of_others_are_refused() {
    let (bundled, mut memory) = bundled(&image(1000));
    let changed = bundled
        .manifest
        .replace("<device>/dev/sda1", "<device>/dev/sdb1");
    let found = unbundled(&changed, 0, &mut memory).unwrap_err();
    assert!(found.contains("does not verify"), "{found}");
    let found = unbundle(
        &bundled.manifest,
        &keys()[2],
        None,
        &mut memory,
        &mut io::sink(),
    )
    .unwrap_err();
    assert!(matches!(
        found,
        BundleError::Manifest(ManifestError::Signature)
    ));
    let found = unbundle(
        &bundled.manifest,
        &keys()[0],
        Some(&keys()[2].public()),
        &mut memory,
        &mut io::sink(),
    )
    .unwrap_err();
    assert!(matches!(
        found,
        BundleError::Manifest(ManifestError::Signature)
    ));
    let found = unbundled(&bundled.manifest, 2, &mut memory).unwrap_err();
    assert!(found.contains("opens neither"), "{found}");
    // White space between elements is not part of what is signed.
    let pretty = bundled.manifest.replace("><", ">\n<");
    assert!(unbundled(&pretty, 0, &mut memory).is_ok());
}

/// Bundles that are well signed, and hold what they should not.
#[test]
fn hostile_contents() {
    let archive = |size: u64, content: &[u8]| {
        let mut all = tar::header("image", size).to_vec();
        all.extend_from_slice(content);
        all.resize(all.len() + tar::trailer(content.len() as u64), 0);
        all
    };
    let good = archive(4, b"text");
    let bomb = archive(4, &vec![0; 64 << 20]);
    let mut two = gzip(&good);
    two.extend(gzip(&good));
    let mut garbage = gzip(&good);
    garbage.extend([1; 100]);
    let mut crc = gzip(&good);
    let at = crc.len() - 8;
    crc[at] ^= 1;
    for (case, compressed, archive, size, message) in [
        (
            "a bomb",
            gzip(&bomb),
            &bomb,
            4,
            "more than 1048580 bytes, which its image cannot need",
        ),
        ("a second stream", two, &good, 4, "follows the gzip stream"),
        ("garbage", garbage, &good, 4, "follows the gzip stream"),
        ("a wrong CRC", crc, &good, 4, "no gzip stream"),
        ("no gzip", good.clone(), &good, 4, "no gzip stream"),
        ("cut", gzip(&good)[..60].to_vec(), &good, 4, ""),
        (
            "another size",
            gzip(&good),
            &good,
            5,
            "4 bytes, and the manifest says 5",
        ),
        ("another digest", gzip(&good), &bomb, 4, "its SHA-1 is"),
        ("nothing", gzip(b""), &Vec::new(), 4, "it ends early"),
    ] {
        let (manifest, mut memory) = sealed(&compressed, archive, size);
        let found = unbundled(&manifest, 0, &mut memory).unwrap_err();
        assert!(found.contains(message), "{case}: {found}");
    }
    let (manifest, mut memory) = sealed(&gzip(&good), &good, 4);
    assert_eq!(unbundled(&manifest, 0, &mut memory).unwrap(), b"text");
    // Not sealed under the key of the manifest.
    memory.parts[0].1 = vec![1; 64];
    let manifest = manifest_of(&memory, &good, 4, &[7; 16], &[8; 16]);
    let found = unbundled(&manifest, 0, &mut memory).unwrap_err();
    assert!(
        found.contains("do not decrypt") || found.contains("no gzip"),
        "{found}"
    );
}

#[test]
fn wishes_that_cannot_be() {
    let wishes = Wishes::new();
    let twice = [wishes.mappings.clone(), wishes.mappings.clone()].concat();
    let odd = [DeviceMapping {
        virtual_name: "ebs1".into(),
        device: "sdb".into(),
    }];
    let control = ["a\nb".to_owned()];
    let with = |change: &dyn Fn(&mut BundleOptions<'_>)| {
        let mut options = wishes.options();
        change(&mut options);
        let image = [1; 100];
        bundle(
            &mut &image[..],
            100,
            &options,
            &mut Chance(4),
            &mut Memory::default(),
        )
        .unwrap_err()
        .to_string()
    };
    for (found, message) in [
        (with(&|o| o.prefix = "a/b"), "prefix"),
        (with(&|o| o.prefix = ".."), "prefix"),
        (with(&|o| o.prefix = ""), "prefix"),
        (with(&|o| o.arch = Arch::Arm64), "architecture"),
        (with(&|o| o.part_bytes = 1), "part size"),
        (with(&|o| o.part_bytes = 1 << 30), "part size"),
        (with(&|o| o.kernel_id = Some("")), "cannot stand"),
    ] {
        assert!(found.contains(message), "{message}: {found}");
    }
    for (mappings, codes, message) in [
        (&twice[..], &[][..], "there twice"),
        (&odd, &[], "ebs1"),
        (&[], &control, "cannot stand"),
    ] {
        let mut options = wishes.options();
        (options.mappings, options.product_codes) = (mappings, codes);
        let found = bundle(
            &mut &[1][..],
            1,
            &options,
            &mut Chance(4),
            &mut Memory::default(),
        )
        .unwrap_err()
        .to_string();
        assert!(found.contains(message), "{message}: {found}");
    }
    let mut mixed = wishes.options();
    mixed.user_certificate = &wishes.certificates[1];
    let found = bundle(
        &mut &[1][..],
        1,
        &mixed,
        &mut Chance(4),
        &mut Memory::default(),
    )
    .unwrap_err();
    assert!(matches!(found, BundleError::Key(KeyError::Mismatch)));
    let options = wishes.options();
    let of = |bytes: u64, length: u64, fails: Option<usize>| {
        let mut memory = Memory {
            fails,
            ..Memory::default()
        };
        let mut image = io::repeat(1).take(bytes);
        bundle(&mut image, length, &options, &mut Chance(4), &mut memory)
            .unwrap_err()
            .to_string()
    };
    for (found, message) in [
        (of(9, 10, None), "ends after 9 of 10"),
        (of(11, 10, None), "more than the 10 bytes"),
        (of(0, 0, None), "10 GiB"),
        (of(0, (10 << 30) + 1, None), "10 GiB"),
        (
            of(10, 10, Some(0)),
            "part 0 (image.part.00) cannot be written",
        ),
        (of(0, 10 << 30, None), "part size"),
    ] {
        assert!(found.contains(message), "{message}: {found}");
    }
}

#[test]
fn keys_that_are_none() {
    for text in [
        "",
        "x",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----",
    ] {
        assert!(Certificate::parse(text.as_bytes()).is_err());
        assert!(PrivateKey::parse(text.as_bytes()).is_err());
    }
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(
        PrivateKey::parse(encrypted).unwrap_err(),
        KeyError::Encrypted
    );
    assert!(matches!(
        PrivateKey::parse(&[0; 70_000]),
        Err(KeyError::TooLarge { .. })
    ));
    assert_eq!(format!("{:?}", keys()[0]), "PrivateKey(…)");
    assert_eq!(hex(&[0, 255]), "00ff");
}
