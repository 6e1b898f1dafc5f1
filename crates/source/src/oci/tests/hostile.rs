//! Registries whose answers are wrong, and images that mean harm.

use std::io::Write as _;

use amiforge_testkit::{Answer, ScriptServer};
use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image in memory, for changing.
#[derive(Clone)]
struct Fake {
    manifest: Value,
    config: Value,
    layers: Vec<Vec<u8>>,
    content_type: &'static str,
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::of(bytes).hex())
}

/// A regular file of an archive, whatever its name.
fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [
        (100, "0000644"),
        (108, "0000000"),
        (116, "0000000"),
        (124, &format!("{:011o}", data.len())),
        (136, "00000000000"),
        (156, "0"),
        (257, "ustar\x0000"),
    ] {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

impl Fake {
    /// One layer of these members.
    fn new(members: &[Vec<u8>]) -> Self {
        let archive = [members.concat(), vec![0; 1024]].concat();
        let mut fake = Self {
            manifest: json!({"schemaVersion": 2, "mediaType": MANIFEST}),
            config: json!({
                "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
                "rootfs": {"type": "layers", "diff_ids": [digest_of(&archive)]},
            }),
            layers: vec![gzip(&archive)],
            content_type: MANIFEST,
        };
        fake.describe();
        fake
    }

    /// Writes the descriptors of the manifest anew.
    fn describe(&mut self) {
        let config = self.config.to_string();
        self.manifest["config"] = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config.as_bytes()), "size": config.len(),
        });
        let layer = |bytes: &Vec<u8>| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest_of(bytes), "size": bytes.len(),
            })
        };
        self.manifest["layers"] = self.layers.iter().map(layer).collect();
    }

    fn answer(&self, target: &str) -> Answer {
        let manifest = self.manifest.to_string().into_bytes();
        if target.contains("/manifests/") {
            return Answer::new(200, &[("Content-Type", self.content_type)], manifest);
        }
        let config = self.config.to_string().into_bytes();
        let blobs = self.layers.iter().cloned().chain([config]);
        let found = blobs.into_iter().find(|b| target.ends_with(&digest_of(b)));
        match found {
            Some(bytes) => Answer::new(200, &[], bytes),
            None => Answer::new(404, &[], ""),
        }
    }

    /// What comes of it.
    fn serve(self) -> Result<Vec<String>, String> {
        serve(Here::new(), move |asked| self.answer(&asked.target))
    }

    #[track_caller]
    fn refused(self, why: &str) {
        let error = self.serve().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

fn serve(
    here: Here,
    script: impl Fn(&amiforge_testkit::Asked) -> Answer + Send + Sync + 'static,
) -> Result<Vec<String>, String> {
    let server = ScriptServer::start(script);
    let request = registry(&format!("{}/app:1", server.host()));
    match here.image(&request) {
        Ok((_, tree, blobs)) => Ok(lines(&tree, &blobs)),
        Err(error) => Err(text(&error)),
    }
}

#[test]
fn the_image_that_is_changed_below_is_whole() {
    let names = Fake::new(&[member("a", b"text")]).serve().unwrap();
    assert_eq!(names.len(), 2);
    assert!(names[1].starts_with("a 644 0 file 4"), "{names:?}");
}

#[test]
fn manifests_that_are_none() {
    let good = Fake::new(&[member("a", b"text")]);
    let changed = |change: &dyn Fn(&mut Fake)| {
        let mut fake = good.clone();
        change(&mut fake);
        fake
    };
    let with = |name: &str, value: Value| changed(&|fake| fake.manifest[name] = value.clone());
    let first = |name: &str, value: Value| {
        changed(&|fake| fake.manifest["layers"][0][name] = value.clone())
    };
    with("schemaVersion", json!(1)).refused("schema 1");
    with("fsLayers", json!([])).refused("schema 1");
    changed(&|f| f.content_type = "application/vnd.docker.distribution.manifest.v1+prettyjws")
        .refused("schema 1");
    with("schemaVersion", json!(3)).refused("schemaVersion is not 2");
    with("mediaType", json!("text/x")).refused("is not that of an image");
    with("mediaType", json!(INDEX)).refused("another media type than the server");
    with("manifests", json!([])).refused("both an index and a manifest");
    changed(&|f| {
        f.content_type = "text/plain";
        f.manifest["mediaType"] = json!(INDEX);
        f.manifest["manifests"] = json!([]);
    })
    .refused("both an index and a manifest");
    with("layers", Value::Null).refused("no config or no layers");
    with("layers", json!("x")).refused("not a manifest");
    with("pad", json!("x".repeat(5 << 20))).refused("larger than 4194304 bytes");
    changed(&|f| f.manifest["config"]["mediaType"] = json!("application/vnd.helm"))
        .refused("it is an artifact of type \"application/vnd.helm\"");
    changed(&|f| f.manifest["config"]["size"] = json!(9 << 20)).refused("more than 8388608");
    first("size", json!(2_u64 << 30)).refused("has 2147483648 bytes, more than 1073741824");
    first("size", json!(-1)).refused("not a manifest");
    first("digest", json!("sha512:00")).refused("\"sha512:00\" is not a digest of sha256");
    first("digest", json!("sha256:../../../etc/passwd")).refused("is not a digest of sha256");
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    first("mediaType", json!(foreign)).refused("is not distributed with it");
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    first("mediaType", json!(foreign)).refused("is not distributed with it");
    first("mediaType", json!("text/x")).refused("a layer of type \"text/x\"");
    changed(&|f| f.manifest["layers"] = vec![f.manifest["layers"][0].clone(); 513].into())
        .refused("it has 513 layers, more than 512");
    let config = |change: &dyn Fn(&mut Value)| {
        changed(&|fake| {
            change(&mut fake.config);
            fake.describe();
        })
    };
    config(&|c| c["rootfs"]["diff_ids"] = json!([]))
        .refused("0 diff_ids, and the manifest 1 layers");
    config(&|c| c["rootfs"]["type"] = json!("x")).refused("diff_ids");
    config(&|c| c["rootfs"]["diff_ids"][0] = json!("sha256:0")).refused("not a digest");
    config(&|c| c["os"] = json!("windows")).refused("not for linux/amd64, but for windows/amd64");
    config(&|c| c["rootfs"] = json!(1)).refused("not the configuration of an image");
    let other = digest_of(b"other");
    config(&|c| c["rootfs"]["diff_ids"][0] = json!(other)).refused("the configuration says");
    // An index that leads to itself has no end, but its digest would have to be known before it.
    let entry = json!({"mediaType": INDEX, "digest": digest_of(b"x"), "size": 1});
    changed(&|f| {
        f.content_type = INDEX;
        f.manifest = json!({"schemaVersion": 2, "manifests": [entry]});
    })
    .refused("it should be");
}

#[test]
fn bytes_that_are_not_those_of_their_digest() {
    let good = Fake::new(&[member("a", b"text")]);
    let header = ("Docker-Content-Digest", digest_of(b"other"));
    let fake = good.clone();
    let error = serve(Here::new(), move |asked| {
        let mut answer = fake.answer(&asked.target);
        answer.headers.push((header.0.to_owned(), header.1.clone()));
        answer
    });
    assert!(error.unwrap_err().contains("it should be"));
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 3] = [
        (|bytes| bytes[12] ^= 1, "it should be"),
        (|bytes| bytes.push(0), "more than the promised"),
        (|bytes| bytes.truncate(bytes.len() - 1), "ended after"),
    ];
    for (change, why) in changes {
        let fake = good.clone();
        let here = Here::new();
        let cache = here.path("cache/oci");
        let server = ScriptServer::start(move |asked| {
            let mut answer = fake.answer(&asked.target);
            if asked.target.ends_with(&digest_of(&fake.layers[0])) {
                change(&mut answer.body);
            }
            answer
        });
        let request = registry(&format!("{}/app:1", server.host()));
        let resolved = here.resolve(&request).unwrap();
        let error = text(&here.fetch(&request, &resolved).unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(!cache.join(resolved.layers[0].blob.digest.hex()).exists());
    }
    // By digest, another manifest.
    let fake = good.clone();
    let server = ScriptServer::start(move |asked| fake.answer(&asked.target));
    let pinned = format!("{}/app@{}", server.host(), digest_of(b"other"));
    let error = Here::new().resolve(&registry(&pinned)).unwrap_err();
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
}

#[test]
fn layers_that_mean_harm() {
    for (name, why) in [
        (
            "../out",
            "entry 1 at byte 0, \"../out\": the name \"../out\" is not allowed",
        ),
        ("a/../../out", "is not allowed"),
        (".wh...", "is not allowed"),
        (".wh..wh.aufs", "is not supported"),
    ] {
        Fake::new(&[member(name, b"x")]).refused(&format!("layer 1 of 1, {}", ""));
        Fake::new(&[member(name, b"x")]).refused(why);
    }
    let mut fake = Fake::new(&[]);
    fake.layers = vec![b"\xfd7zXZ\0rest".to_vec()];
    fake.describe();
    fake.refused("it is compressed with xz; gzip and zstd are read");
    let mut fake = Fake::new(&[member("a", b"x")]);
    fake.layers[0].truncate(40);
    fake.describe();
    fake.refused("layer 1 of 1");
    // A bomb: 64 MiB from 64 KiB, inside a file, and after the archive's end.
    for bomb in [
        member("a", &vec![0; 64 << 20]),
        [member("a", b""), vec![0; 64 << 20]].concat(),
    ] {
        let fake = Fake::new(&[bomb]);
        let here = Here {
            max_bytes: 1 << 20,
            ..Here::new()
        };
        let error = serve(here, move |asked| fake.answer(&asked.target)).unwrap_err();
        let data = error.contains("more than 1048576 bytes");
        assert!(data || error.contains("have more than 1048576"), "{error}");
    }
}

#[test]
fn redirects_end_and_stay_on_https() {
    let round = |_: &amiforge_testkit::Asked| Answer::new(302, &[("Location", "/v2/again")], "");
    let error = serve(Here::new(), round).unwrap_err();
    assert!(error.contains("there are too many redirects"), "{error}");
    for (to, why) in [
        (
            "http://example.com/x?sig=secret",
            "leads to http://example.com/x, which is not followed: it is not https",
        ),
        ("//example.com/x", "it is not https"),
        ("https://u:p@example.com/", "it has a user in it"),
        ("file:///etc/passwd", "is not followed"),
        ("", "it is no address"),
        ("relative", "is not followed"),
    ] {
        let error = serve(Here::new(), move |_| {
            Answer::new(307, &[("Location", to)], "")
        });
        let error = error.unwrap_err();
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }
    // A server that fails now and then is asked again, one that always does is not asked for ever.
    let fake = Fake::new(&[member("a", b"text")]);
    let count = std::sync::atomic::AtomicU32::new(0);
    let now_and_then = move |asked: &amiforge_testkit::Asked| match count
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        % 2
    {
        0 => Answer::new(503, &[], ""),
        _ => fake.answer(&asked.target),
    };
    assert_eq!(serve(Here::new(), now_and_then).unwrap().len(), 2);
    let error = serve(Here::new(), |_| Answer::new(500, &[], "")).unwrap_err();
    assert!(error.contains("answered 500"), "{error}");
}
