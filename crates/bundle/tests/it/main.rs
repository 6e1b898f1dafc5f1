//! Bundles against outside tools: openssl opens, verifies and decrypts what we write, gzip and tar unpack it, and a bundle made
//! by these tools alone is read. A missing tool is a failure.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests run tools on files"
)]

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use amiforge_bundle::{
    BundleManifest, BundleOptions, Bundled, Bundler, Certificate, DeviceMapping, KeyError, KeyPair,
    PartSink, PartSource, PrivateKey, Random, bundle, certificate_pem, unbundle,
};
use amiforge_testkit::{Env, run, tool};
use amiforge_types::{Arch, Timestamp};

/// Bytes that look like chance and are the same each time.
struct Chance(u64);

impl Random for Chance {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 32) as u8;
        }
    }
}

/// A folder of parts.
struct Folder(PathBuf);

impl PartSink for Folder {
    type Part = File;

    fn begin(&mut self, _: usize, name: &str) -> io::Result<File> {
        File::create(self.0.join(name))
    }

    fn end(&mut self, part: File) -> io::Result<()> {
        part.sync_all()
    }
}

impl PartSource for Folder {
    type Part = File;

    fn open(&mut self, _: usize, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }
}

/// Runs a program to its good end; its standard output.
fn output(program: &str, args: &[&str]) -> Vec<u8> {
    run(tool(program).args(args)).stdout
}

fn words(program: &str, args: &[&str]) -> String {
    String::from_utf8(output(program, args))
        .unwrap()
        .trim()
        .to_owned()
}

/// A certificate and its key, as files.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn make(env: &Env, name: &str, bits: u32) -> Self {
        let (certificate, key) = (
            env.path(format!("{name}.crt")),
            env.path(format!("{name}.key")),
        );
        let subject = format!("/CN={name}");
        let bits = format!("rsa:{bits}");
        let mut command = tool("openssl");
        command.args([
            "req", "-x509", "-newkey", &bits, "-nodes", "-days", "2", "-subj", &subject,
        ]);
        run(command
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate));
        Self { certificate, key }
    }

    fn certificate(&self) -> Certificate {
        Certificate::parse(&fs::read(&self.certificate).unwrap()).unwrap()
    }

    fn key(&self) -> PrivateKey {
        PrivateKey::parse(&fs::read(&self.key).unwrap()).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Half noise, half zeros, with a bit of text.
fn image(env: &Env, bytes: usize) -> PathBuf {
    let mut image = vec![0; bytes];
    Chance(5).fill(&mut image[..bytes / 2]);
    image[bytes - 9..].copy_from_slice(b"the end.\n");
    env.write("web.img", image)
}

fn bundled(env: &Env, image: &Path, user: &Pair, ec2: &Pair) -> (Bundled, PathBuf) {
    let out = env.path("bundle");
    fs::create_dir_all(&out).unwrap();
    let bundled = bundle(
        &mut File::open(image).unwrap(),
        fs::metadata(image).unwrap().len(),
        &BundleOptions {
            prefix: "web",
            arch: Arch::X86_64,
            account: &"123456789012".parse().unwrap(),
            kernel_id: None,
            ramdisk_id: None,
            mappings: &[
                DeviceMapping {
                    virtual_name: "ami".into(),
                    device: "sda1".into(),
                },
                DeviceMapping {
                    virtual_name: "ephemeral0".into(),
                    device: "sdb".into(),
                },
            ],
            product_codes: &["A&B <1>".into()],
            part_bytes: 1024 * 1024,
            user_certificate: &user.certificate(),
            user_key: &user.key(),
            ec2_certificate: &ec2.certificate(),
            bundler: &Bundler {
                name: "amiforge".into(),
                version: "0.0.0".into(),
                release: "0".into(),
            },
        },
        &mut Chance(7),
        &mut Folder(out.clone()),
    )
    .unwrap();
    fs::write(out.join(&bundled.manifest_name), &bundled.manifest).unwrap();
    (bundled, out)
}

/// The text of the first element of a name.
fn element<'a>(manifest: &'a str, name: &str) -> &'a str {
    let start = manifest.find(&format!("<{name}")).unwrap();
    let start = start + manifest[start..].find('>').unwrap() + 1;
    &manifest[start..start + manifest[start..].find('<').unwrap()]
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// Openssl reads the key and the certificate of EC2, verifies the certificate with itself, and both are of one pair.
#[test]
fn openssl_verifies_the_certificate_of_a_pair() {
    let env = Env::new();
    let now = Timestamp {
        secs: 1_790_000_000,
        nanos: 0,
    };
    let pair = KeyPair::make("EC2 on this desk", now, &mut Chance(11)).unwrap();
    let file = env.write("ec2.pem", pair.to_pem().unwrap().as_bytes());
    let certificate = env.write("ec2.crt", pair.certificate_pem());
    let out = words(
        "openssl",
        &["x509", "-in", text(&certificate), "-noout", "-text"],
    );
    for wanted in [
        "Version: 3 (0x2)",
        "Signature Algorithm: sha256WithRSAEncryption",
        "Subject: CN = EC2 on this desk",
        "Issuer: CN = EC2 on this desk",
        "Public-Key: (2048 bit)",
        "Key Encipherment, Certificate Sign",
    ] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    let dates = words(
        "openssl",
        &["x509", "-in", text(&certificate), "-noout", "-dates"],
    );
    assert_eq!(
        dates,
        "notBefore=Sep 21 14:13:20 2026 GMT\nnotAfter=Sep 18 14:13:20 2036 GMT"
    );
    let verify = [
        "verify",
        "-check_ss_sig",
        "-attime",
        "1800000000",
        "-CAfile",
        text(&certificate),
        text(&certificate),
    ];
    assert!(words("openssl", &verify).ends_with(": OK"));
    assert_eq!(
        words("openssl", &["rsa", "-in", text(&file), "-noout", "-check"]),
        "RSA key ok"
    );
    let of = |command: &str| {
        words(
            "openssl",
            &[command, "-in", text(&file), "-noout", "-modulus"],
        )
    };
    assert_eq!(of("rsa"), of("x509"));

    let read = KeyPair::from_pem(&fs::read(&file).unwrap()).unwrap();
    assert!(read.key().matches(&pair.certificate()));
    assert_eq!(read.certificate_pem(), pair.certificate_pem());
    // The same certificate in another form, with text around it, is the same text.
    let der = output(
        "openssl",
        &["x509", "-in", text(&certificate), "-outform", "DER"],
    );
    let told = output("openssl", &["x509", "-in", text(&certificate), "-text"]);
    for form in [der, told] {
        assert_eq!(certificate_pem(&form).unwrap(), pair.certificate_pem());
    }
    // Neither half of another pair.
    let other = Pair::make(&env, "other", 1024);
    let mixed = [fs::read(&other.key).unwrap(), pair.certificate_pem().into()].concat();
    assert!(matches!(
        KeyPair::from_pem(&mixed),
        Err(KeyError::OtherPair)
    ));
    let half = pair.to_pem().unwrap();
    let half = &half[..half.find("-----BEGIN CERTIFICATE").unwrap()];
    assert!(KeyPair::from_pem(half.as_bytes()).is_err());
}

/// Wherever the base64 ends: an error, and in a moment.
#[test]
fn a_part_of_a_certificate_is_an_error() {
    let env = Env::new();
    let pair = Pair::make(&env, "user", 1024);
    let text = fs::read_to_string(&pair.certificate).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    for end in (0..body.len()).step_by(4) {
        let part = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            &body[..end]
        );
        assert!(Certificate::parse(part.as_bytes()).is_err(), "{end}");
    }
    let other = text.replace("CERTIFICATE", "X509 CRL");
    let error = Certificate::parse(other.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("X509 CRL"), "{error}");
}

#[test]
fn openssl_gzip_and_tar_read_what_we_write() {
    let env = Env::new();
    let (user, ec2) = (
        Pair::make(&env, "user", 2048),
        Pair::make(&env, "ec2", 1024),
    );
    let image = image(&env, 5_000_000);
    let (bundled, out) = bundled(&env, &image, &user, &ec2);
    assert_eq!(bundled.parts.len(), 3);

    // Python's parser takes the document.
    let parse = "import sys, xml.etree.ElementTree as t; print(t.parse(sys.argv[1]).find('image/parts').get('count'))";
    assert_eq!(
        words(
            "python3",
            &["-c", parse, text(&out.join("web.manifest.xml"))]
        ),
        "3"
    );

    // The signature is the user's, over the two elements.
    let start = bundled.manifest.find("<machine_configuration>").unwrap();
    let end = bundled.manifest.find("</image>").unwrap() + "</image>".len();
    let signed = env.write("signed", &bundled.manifest[start..end]);
    let signature = env.write("signature", unhex(element(&bundled.manifest, "signature")));
    let public = env.write(
        "user.pub",
        output(
            "openssl",
            &["x509", "-in", text(&user.certificate), "-noout", "-pubkey"],
        ),
    );
    let verify = [
        "dgst",
        "-sha1",
        "-verify",
        text(&public),
        "-signature",
        text(&signature),
        text(&signed),
    ];
    assert_eq!(words("openssl", &verify), "Verified OK");

    // Both keys open the same AES key and vector: hex digits.
    let open = |pair: &Pair, name: &str| {
        let sealed = env.write("sealed", unhex(element(&bundled.manifest, name)));
        words(
            "openssl",
            &[
                "pkeyutl",
                "-decrypt",
                "-inkey",
                text(&pair.key),
                "-in",
                text(&sealed),
            ],
        )
    };
    let (key, iv) = (
        open(&user, "user_encrypted_key"),
        open(&user, "user_encrypted_iv"),
    );
    assert_eq!((key.len(), iv.len()), (32, 32));
    assert_eq!(
        (
            open(&ec2, "ec2_encrypted_key"),
            open(&ec2, "ec2_encrypted_iv")
        ),
        (key.clone(), iv.clone())
    );

    // Digest of each part; together they decrypt and unpack to the image.
    let mut all = Vec::new();
    for part in &bundled.parts {
        let path = out.join(&part.name);
        let sum = words("sha1sum", &[text(&path)]);
        let digest: String = part.digest.iter().map(|b| format!("{b:02x}")).collect();
        assert!(
            sum.starts_with(&digest) && bundled.manifest.contains(&digest),
            "{}",
            part.name
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), part.bytes);
        all.extend(fs::read(&path).unwrap());
    }
    assert_eq!(
        element(&bundled.manifest, "bundled_size"),
        all.len().to_string()
    );
    let sealed = env.write("all", all);
    let gzip = env.write(
        "all.gz",
        output(
            "openssl",
            &[
                "enc",
                "-d",
                "-aes-128-cbc",
                "-K",
                &key,
                "-iv",
                &iv,
                "-in",
                text(&sealed),
            ],
        ),
    );
    let archive = env.write("all.tar", output("gzip", &["-dc", text(&gzip)]));
    let sum = words("sha1sum", &[text(&archive)]);
    let image_element = &bundled.manifest[bundled.manifest.find("<image>").unwrap()..];
    assert!(sum.starts_with(element(image_element, "digest")));
    assert_eq!(words("tar", &["-tf", text(&archive)]), "web");
    output("tar", &["-xf", text(&archive), "-C", text(&env.path("."))]);
    assert_eq!(
        fs::read(env.path("web")).unwrap(),
        fs::read(&image).unwrap()
    );

    // And we read it ourselves, with either key.
    for pair in [&user, &ec2] {
        let mut found = Vec::new();
        unbundle(
            &bundled.manifest,
            &pair.key(),
            Some(&user.certificate()),
            &mut Folder(out.clone()),
            &mut found,
        )
        .unwrap();
        assert_eq!(found, fs::read(&image).unwrap());
    }
}

/// A bundle made by tar (with holes), gzip, split and openssl, with a manifest that is laid out for reading.
#[test]
fn we_read_what_the_tools_write() {
    let env = Env::new();
    let (user, ec2) = (
        Pair::make(&env, "user", 2048),
        Pair::make(&env, "ec2", 2048),
    );
    let size = 8 << 20;
    let path = env.write("disk.img", b"first");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (at, bytes) in [
        (1 << 20, 70_000),
        (3 << 20, 4096),
        (5 << 20, 4096),
        (6 << 20, 4096),
        ((7 << 20) + 512, 4096),
        (size - 4096, 100),
    ] {
        let mut content = vec![0; bytes];
        Chance(at + 1).fill(&mut content);
        std::os::unix::fs::FileExt::write_all_at(&file, &content, at).unwrap();
    }
    file.set_len(size).unwrap();
    file.sync_all().unwrap();
    let out = env.path("bundle");
    fs::create_dir_all(&out).unwrap();
    let parent = env.path(".");
    for format in ["gnu", "pax", "ustar"] {
        let sparse = if format == "gnu" {
            "--sparse"
        } else {
            "--no-xattrs"
        };
        let archive = env.write(
            "a.tar",
            output(
                "tar",
                &[
                    "-c",
                    sparse,
                    "--format",
                    format,
                    "-C",
                    text(&parent),
                    "disk.img",
                ],
            ),
        );
        if format == "gnu" {
            assert!(
                fs::metadata(&archive).unwrap().len() < 200_000,
                "the holes are not in the archive"
            );
        }
        let gzip = env.write("a.gz", output("gzip", &["-c", text(&archive)]));
        let (key, iv) = (
            "000102030405060708090a0b0c0d0e0f",
            "0f0e0d0c0b0a09080706050403020100",
        );
        let sealed = env.write(
            "a.enc",
            output(
                "openssl",
                &[
                    "enc",
                    "-aes-128-cbc",
                    "-K",
                    key,
                    "-iv",
                    iv,
                    "-in",
                    text(&gzip),
                ],
            ),
        );
        let prefix = out.join("disk.part.");
        output(
            "split",
            &["-b", "30000", "-d", text(&sealed), text(&prefix)],
        );

        let sum = |path: &Path| words("sha1sum", &[text(path)])[..40].to_owned();
        let mut parts: Vec<PathBuf> = fs::read_dir(&out)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        parts.sort();
        assert!(parts.len() > 2);
        let listed: String = parts
            .iter()
            .enumerate()
            .map(|(i, path)| {
                let name = path.file_name().unwrap().to_str().unwrap();
                format!("      <part index=\"{i}\">\n        <filename>{name}</filename>\n        <digest algorithm=\"SHA1\">{}</digest>\n      </part>\n", sum(path))
            })
            .collect();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let seal = |pair: &Pair, secret: &str| {
            let plain = env.write("plain", secret);
            hex(&output(
                "openssl",
                &[
                    "pkeyutl",
                    "-encrypt",
                    "-certin",
                    "-inkey",
                    text(&pair.certificate),
                    "-in",
                    text(&plain),
                ],
            ))
        };
        let machine = "<machine_configuration>\n    <architecture>x86_64</architecture>\n  </machine_configuration>";
        let image = format!(
            "<image>\n    <name>disk</name>\n    <user>123456789012</user>\n    <type>machine</type>\n    <digest algorithm=\"SHA1\">{}</digest>\n    \
             <size>{size}</size>\n    <bundled_size>{}</bundled_size>\n    <ec2_encrypted_key algorithm=\"AES-128-CBC\">{}</ec2_encrypted_key>\n    \
             <user_encrypted_key algorithm=\"AES-128-CBC\">{}</user_encrypted_key>\n    <ec2_encrypted_iv>{}</ec2_encrypted_iv>\n    \
             <user_encrypted_iv>{}</user_encrypted_iv>\n    <parts count=\"{}\">\n{listed}    </parts>\n  </image>",
            sum(&archive),
            fs::metadata(&sealed).unwrap().len(),
            seal(&ec2, key),
            seal(&user, key),
            seal(&ec2, iv),
            seal(&user, iv),
            parts.len(),
        );
        // Signed without the white space, as the tools sign, or as it stands.
        let squeezed: String = format!("{machine}{image}")
            .lines()
            .map(str::trim_start)
            .collect();
        for signed in [squeezed, format!("{machine}{image}")] {
            let signed = env.write("signed", signed);
            let signature = hex(&output(
                "openssl",
                &["dgst", "-sha1", "-sign", text(&user.key), text(&signed)],
            ));
            let manifest = format!(
                "<?xml version='1.0' encoding='UTF-8'?>\n<manifest>\n  <version>2007-10-10</version>\n  <bundler>\n    <name>hand</name>\n    \
                 <version>1</version>\n    <release>0</release>\n  </bundler>\n  {machine}\n  {image}\n  <signature>{signature}</signature>\n</manifest>\n"
            );
            assert_eq!(
                BundleManifest::from_xml(&manifest).unwrap().parts.len(),
                parts.len()
            );
            let mut found = Vec::new();
            unbundle(
                &manifest,
                &user.key(),
                None,
                &mut Folder(out.clone()),
                &mut found,
            )
            .unwrap();
            let mut expected = Vec::new();
            File::open(&path)
                .unwrap()
                .read_to_end(&mut expected)
                .unwrap();
            assert!(found == expected, "{format}");
        }
        for part in parts {
            fs::remove_file(part).unwrap();
        }
    }
}

/// The forms that keys and certificates come in.
#[test]
fn keys_of_all_forms() {
    let env = Env::new();
    let pair = Pair::make(&env, "user", 2048);
    let (key, certificate) = (pair.key(), pair.certificate());
    assert!(key.matches(&certificate));
    let pkcs1 = output("openssl", &["rsa", "-in", text(&pair.key), "-traditional"]);
    let der1 = output(
        "openssl",
        &[
            "rsa",
            "-in",
            text(&pair.key),
            "-traditional",
            "-outform",
            "DER",
        ],
    );
    let der8 = output(
        "openssl",
        &[
            "pkcs8",
            "-topk8",
            "-nocrypt",
            "-in",
            text(&pair.key),
            "-outform",
            "DER",
        ],
    );
    for bytes in [pkcs1, der1, der8] {
        assert!(PrivateKey::parse(&bytes).unwrap().matches(&certificate));
    }
    let told = output(
        "openssl",
        &["x509", "-in", text(&pair.certificate), "-text"],
    );
    let der = output(
        "openssl",
        &["x509", "-in", text(&pair.certificate), "-outform", "DER"],
    );
    let chain = [
        fs::read(&pair.certificate).unwrap(),
        fs::read(&pair.certificate).unwrap(),
    ]
    .concat();
    for bytes in [told, der, chain] {
        assert!(key.matches(&Certificate::parse(&bytes).unwrap()));
    }
    let under = output(
        "openssl",
        &[
            "pkcs8",
            "-topk8",
            "-in",
            text(&pair.key),
            "-passout",
            "pass:x",
        ],
    );
    assert!(
        PrivateKey::parse(&under)
            .unwrap_err()
            .to_string()
            .contains("is encrypted")
    );
    let old = output(
        "openssl",
        &[
            "rsa",
            "-in",
            text(&pair.key),
            "-traditional",
            "-aes128",
            "-passout",
            "pass:x",
        ],
    );
    assert!(
        PrivateKey::parse(&old)
            .unwrap_err()
            .to_string()
            .contains("is encrypted")
    );
    let (curve, curve_key) = (env.path("ec.crt"), env.path("ec.key"));
    output(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            text(&curve_key),
            "-out",
            text(&curve),
        ],
    );
    assert!(
        Certificate::parse(&fs::read(&curve).unwrap())
            .unwrap_err()
            .to_string()
            .contains("RSA")
    );
    assert!(
        PrivateKey::parse(&fs::read(&curve_key).unwrap())
            .unwrap_err()
            .to_string()
            .contains("RSA")
    );
    let short = Pair::make(&env, "short", 768);
    assert!(
        PrivateKey::parse(&fs::read(&short.key).unwrap())
            .unwrap_err()
            .to_string()
            .contains("768 bits")
    );
}
