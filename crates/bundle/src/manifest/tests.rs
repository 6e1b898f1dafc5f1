use super::*;

fn manifest() -> BundleManifest {
    BundleManifest {
        bundler: Bundler {
            name: "a<b>".into(),
            version: "1".into(),
            release: "0".into(),
        },
        architecture: "x86_64".into(),
        kernel_id: Some("aki-12345678".into()),
        ramdisk_id: None,
        mappings: vec![
            DeviceMapping {
                virtual_name: "ami".into(),
                device: "sda1".into(),
            },
            DeviceMapping {
                virtual_name: "ephemeral0".into(),
                device: "/dev/sdb".into(),
            },
        ],
        product_codes: vec!["A&B".into()],
        name: "image".into(),
        user: "123456789012".parse().unwrap(),
        digest: [1; 20],
        size: 10,
        bundled_size: 32,
        ec2_encrypted_key: vec![1, 2],
        user_encrypted_key: vec![3],
        ec2_encrypted_iv: vec![4],
        user_encrypted_iv: vec![5],
        parts: vec![PartRecord {
            file_name: "image.part.00".into(),
            digest: [2; 20],
        }],
        signature: vec![6],
        signed: Default::default(),
    }
}

#[test]
fn what_is_written_is_read() {
    let mut manifest = manifest();
    let signed = manifest.signed_xml();
    let text = manifest.document(&signed);
    manifest.signed = [signed.clone(), signed];
    assert_eq!(BundleManifest::from_xml(&text).unwrap(), manifest);
    assert_eq!(manifest.arch(), Some(Arch::X86_64));
    let marked = format!("\u{feff}{text}");
    assert_eq!(BundleManifest::from_xml(&marked).unwrap(), manifest);
    // A tool that adds white space for reading: the same without it.
    let pretty = text.replace("><", ">\n  <");
    let read = BundleManifest::from_xml(&pretty).unwrap();
    assert_ne!(read.signed[0], manifest.signed[0]);
    assert_eq!(read.signed[1], manifest.signed[0]);
}

#[test]
fn manifests_that_are_refused() {
    let good = {
        let manifest = manifest();
        manifest.document(&manifest.signed_xml())
    };
    assert!(BundleManifest::from_xml(&good).is_ok());
    let part = "<part index=\"0\"><filename>image.part.00</filename>";
    for (from, to, message) in [
        (
            "<manifest>",
            "<!DOCTYPE manifest [<!ENTITY x \"y\">]><manifest>",
            "document type",
        ),
        ("<manifest>", "<manifest><!-- x -->", "comment"),
        ("<manifest>", "<manifest><?x y?>", "instruction"),
        (
            "<name>image</name>",
            "<name><![CDATA[image]]></name>",
            "CDATA",
        ),
        ("<name>image</name>", "<name>&x;</name>", "the entity"),
        ("<name>image</name>", "<name>im<b/>age</name>", "beside"),
        ("<name>image</name>", "<name>../image</name>", "image/name"),
        ("<name>image</name>", "", "no image/name"),
        (
            "<name>image</name>",
            "<name>image</name><name>image</name>",
            "there twice",
        ),
        ("</manifest>\n", "", "ends early"),
        ("</manifest>\n", "</manifest><manifest/>", "a second root"),
        ("</manifest>\n", "</manifest>x", "a text beside"),
        ("2007-10-10", "2008-01-01", "2008-01-01"),
        ("<user>123456789012</user>", "<user>1</user>", "12 digits"),
        ("<type>machine</type>", "<type>kernel</type>", "`machine`"),
        ("<size>10</size>", "<size>0</size>", "a number from 1"),
        ("<size>10</size>", "<size>+10</size>", "a number from 1"),
        (
            "<size>10</size>",
            "<size>10737418241</size>",
            "to 10737418240",
        ),
        (
            "<bundled_size>32</bundled_size>",
            "<bundled_size>99999999999999999999</bundled_size>",
            "image/bundled_size",
        ),
        (
            "<user_encrypted_key algorithm=\"AES-128-CBC\">03",
            "<user_encrypted_key algorithm=\"AES-128-CBC\">0",
            "hex digits",
        ),
        (
            "<user_encrypted_key algorithm=\"AES-128-CBC\">",
            "<user_encrypted_key algorithm=\"DES\">",
            "AES-128-CBC",
        ),
        (
            "<user_encrypted_iv>05</user_encrypted_iv>",
            "",
            "no image/user_encrypted_iv",
        ),
        ("<signature>06</signature>", "", "no signature"),
        (
            "<parts count=\"1\">",
            "<parts count=\"2\">",
            "image/parts/@count",
        ),
        ("index=\"0\"", "index=\"1\"", "image/parts/part[0]/@index"),
        ("image.part.00", "../image.part.00", "plain file name"),
        ("image.part.00", "/etc/passwd", "plain file name"),
        ("image.part.00", ".part", "plain file name"),
        (
            "<virtual>ephemeral0",
            "<virtual>ephemeral99",
            "block_device_mapping/mapping[1]/virtual",
        ),
        (
            "0202020202020202020202020202020202020202",
            "02",
            "40 hex digits",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let found = BundleManifest::from_xml(&good.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(found.contains(message), "{to}: {found}");
    }
    let twice = good.replacen(
        part,
        &format!(
            "{part}<digest algorithm=\"SHA1\">{}</digest></part>{}",
            "02".repeat(20),
            part.replace("\"0\"", "\"1\"")
        ),
        1,
    );
    let found = BundleManifest::from_xml(&twice).unwrap_err().to_string();
    assert!(found.contains("file name of its own"), "{found}");
    for text in [
        "",
        "x",
        "<a>",
        "<manifest/>",
        "<a></b>",
        "<a b=\"1\" b=\"2\"/>",
        &"<a>".repeat(1000),
        &" ".repeat(5 << 20),
    ] {
        assert!(BundleManifest::from_xml(text).is_err());
    }
    let many = format!("<manifest>{}</manifest>", "<a/>".repeat(100_000));
    let found = BundleManifest::from_xml(&many).unwrap_err().to_string();
    assert!(found.contains("elements"), "{found}");
}

#[test]
fn facts_for_registering() {
    let facts = manifest().facts(Digest::of(b"text")).unwrap();
    assert_eq!(
        (facts.architecture, facts.image_bytes, facts.ephemeral.len()),
        (Arch::X86_64, 10, 1)
    );
    assert_eq!(
        (facts.stored_bytes, facts.manifest),
        (manifest().bundled_size, Digest::of(b"text"))
    );
    assert_eq!(facts.ephemeral[0].device_name.as_str(), "/dev/sdb");
    assert_eq!(facts.root.unwrap().as_str(), "/dev/sda1");
    let short = BundleManifest {
        architecture: "i386".into(),
        ..manifest()
    };
    assert!(
        short
            .facts(Digest::of(b"text"))
            .unwrap_err()
            .to_string()
            .contains("i386")
    );
    let mut odd = manifest();
    odd.mappings[1].device = "../sdb".into();
    assert!(
        odd.facts(Digest::of(b"text"))
            .unwrap_err()
            .to_string()
            .contains("mapping/device")
    );
}
