use super::*;

fn problem(text: &str) -> String {
    let mut diags = Diagnostics::new();
    let node = Node::text(Span::default(), text);
    let parent = parent_image(&node, &mut Cx::new(&mut diags));
    assert_eq!(parent, None, "{text}");
    let problems: Vec<String> = diags
        .iter()
        .map(|d| format!("{} ({})", d.message, d.help.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    problems[0].clone()
}

const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn parents_are_written_as_they_are_read() {
    for text in [
        "debian:bookworm",
        "scratch",
        "tar:rootfs.tar",
        "tar:./a folder/rootfs.tar.zst",
        "disk:base.qcow2",
        "disk:/images/base#format=raw",
        "disk:base.raw#partition=3",
        "image:debian web/1.x.x",
        "image:debian-web/1.2.3",
        "oci:debian",
        "oci:docker.io/library/debian:bookworm",
        "oci:localhost:5000/a/b__c--d.e:v1",
        "oci:[::1]:5000/a",
        "oci-layout:out/oci",
        "oci-layout:./out/oci:latest",
    ] {
        assert_eq!(ParentImage::parse(text).unwrap().to_string(), text);
    }
    for text in [
        format!("tar:rootfs.tar#sha256={SHA}"),
        format!("tar:https://example.com/rootfs.tar.xz?a=b#sha256={SHA}"),
        format!("disk:base.raw#format=vhd&partition=1&sha256={SHA}"),
        format!("oci:debian@sha256:{SHA}"),
        format!("oci:example.com:5000/a/debian:12@sha256:{SHA}"),
    ] {
        assert_eq!(ParentImage::parse(&text).unwrap().to_string(), text);
    }
}

#[test]
fn parts_of_a_reference_are_told_apart() {
    let parts = |text: &str| {
        let reference = OciReference::parse(text).unwrap();
        let OciReference {
            registry,
            repository,
            tag,
            ..
        } = reference;
        (
            registry.unwrap_or_default(),
            repository,
            tag.unwrap_or_default(),
        )
    };
    let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(parts("debian:12"), of("", "debian", "12"));
    assert_eq!(parts("user/debian"), of("", "user/debian", ""));
    assert_eq!(parts("localhost/debian"), of("localhost", "debian", ""));
    assert_eq!(parts("quay.io:443/a/b:c"), of("quay.io:443", "a/b", "c"));
}

#[test]
fn what_is_wrong_is_told_with_what_to_write() {
    let cases = [
        ("tar:", "the archive is missing"),
        ("tar:#sha256=1", "the archive is missing"),
        ("tar:a.tar#sha256=1", "is not a SHA-256 digest"),
        ("tar:a.tar#sha=1", "did you mean `sha256`?"),
        ("tar:a.tar#", "\"\" is not known here"),
        ("tar:https://example.com/a.tar", "needs its digest"),
        ("tar:ftp://example.com/a.tar", "http or https"),
        (
            "tar:https://me:secret@example.com/a.tar#sha256=",
            "is not a SHA-256 digest",
        ),
        ("disk:", "the disk image is missing"),
        ("disk:base", "does not tell the format"),
        ("disk:base.tar", "does not tell the format"),
        ("disk:base.raw#format=iso", "is not a format of disks"),
        (
            "disk:base.raw#partition=0",
            "is not the number of a partition",
        ),
        ("disk:base.raw#partition=1&partition=2", "is given twice"),
        ("disk:https://example.com/base.raw", "is a URL"),
        ("image:web", "has no version"),
        ("image:../1.0.0", "is not the name of an image"),
        ("image:web/1.x.0", "every part must be `x`"),
        ("oci:", "is not a repository"),
        ("oci:Debian", "is not a repository"),
        ("oci:a..b", "is not a repository"),
        ("oci:debian:", "is not a tag"),
        ("oci:debian@sha512:00", "is not a digest"),
        ("oci:a_b.example/debian", "is not the address of a registry"),
        (
            "oci:example.com:0/debian",
            "is not the address of a registry",
        ),
        ("oci:../../etc", "is not the address of a registry"),
        ("oci-layout:", "the folder of the OCI layout is missing"),
        ("oci-layout:a:", "is not a tag"),
        ("scratch:", "is not a known kind of parent image"),
        ("dsk:base.raw", "did you mean `disk`?"),
    ];
    for (text, expected) in cases {
        let found = problem(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    let secret = problem(&format!(
        "tar:https://me:secret@example.com/a.tar#sha256={SHA}"
    ));
    assert!(secret.contains("user name or password"), "{secret}");
    assert!(!secret.contains("me:secret"), "{secret}");
    // The prefix of a digest's other form is no part of this one.
    problem(&format!("tar:a.tar#sha256=sha256:{SHA}"));
    problem(&format!("oci:{}", "a/".repeat(200)));
}

#[test]
fn registries_of_containers_are_still_left_to_the_configuration() {
    let parent = |text: &str| {
        let mut diags = Diagnostics::new();
        let node = Node::text(Span::default(), text);
        container_parent(&node, &mut Cx::new(&mut diags))
    };
    for text in [
        "amazonlinux:2023",
        "debian:12@sha256:00",
        "ubuntu",
        "a/tar:1",
    ] {
        assert_eq!(parent(text), Some(ParentImage::Aws(text.to_owned())));
    }
    assert_eq!(parent("scratch"), Some(ParentImage::Scratch));
    assert_eq!(parent("disk:base"), None);
    assert!(matches!(parent("oci:debian"), Some(ParentImage::Oci(_))));
}
