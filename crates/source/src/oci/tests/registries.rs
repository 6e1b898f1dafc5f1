//! Images that skopeo pushed to Debian's registry, and layouts.

use amiforge_testkit::{ProxyServer, RegistryServer, RegistrySettings, self_signed};

use super::*;
use crate::{LockError, Proxies};

/// What decides the layer of an image.
fn archives(image: &ResolvedOci) -> (Vec<Digest>, Timestamp) {
    let layers = image.layers.iter().map(|layer| layer.diff_id);
    (layers.collect(), image.newest)
}

/// A lock as the builder reads it.
fn read_lock(bytes: &[u8]) -> Result<ResolvedOci, LockError> {
    let lock: ResolvedOci = serde_json::from_slice(bytes).map_err(LockError::Json)?;
    lock.check()?;
    Ok(lock)
}

#[test]
fn an_image_of_a_registry_is_what_umoci_unpacks() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    let server = RegistryServer::start(&RegistrySettings::default());
    let from = format!("oci:{}", image_of(&layout, "app"));
    server.push(&from, "team/app:1", &[]);
    server.push(&from, "team/app:docker", &["--format", "v2s2"]);
    let host = server.host();
    let (resolved, tree, blobs) = here
        .image(&registry(&format!("{host}/team/app:1")))
        .unwrap();
    let names = same_as_umoci(&layout, "app", &tree, &blobs);
    let has = |text: &str| names.iter().any(|line| line.starts_with(text));
    // What the layers were made for is in it.
    assert!(
        has("usr/bin/two 644") && has("becomes 644") && has("opt/app/sub/n "),
        "{names:?}"
    );
    assert!(!has("gone") && !has("opt/app/a") && !has("opt/app/data") && !has("usr/bin/uno"));
    assert_eq!(resolved.layers.len(), 3);
    assert!(resolved.index.is_none() && resolved.newest.secs > 1_700_000_000);
    assert_eq!(resolved.name, format!("{host}/team/app"));
    assert!(
        resolved
            .layers
            .iter()
            .all(|l| l.blob.media_type.ends_with("+gzip"))
    );
    // The form that Docker had before, of the same archives.
    let docker = here
        .resolve(&registry(&format!("{host}/team/app:docker")))
        .unwrap();
    assert!(docker.config.media_type.contains("docker") && docker.manifest != resolved.manifest);
    assert_eq!(archives(&docker), archives(&resolved));
    // By digest, and again without the network: everything is in the cache.
    let request = registry(&resolved.pinned());
    assert_eq!(here.resolve(&request).unwrap().layers, resolved.layers);
    drop(server);
    let here = Here {
        offline: true,
        ..here
    };
    assert_eq!(here.resolve(&request).unwrap().manifest, resolved.manifest);
    let request = registry(&format!("{host}/team/app:1"));
    let (again, tree, blobs) = here.image(&request).unwrap();
    assert_eq!(again, resolved);
    assert_eq!(lines(&tree, &blobs), names);
    assert_eq!(here.fetch(&request, &resolved).unwrap().downloaded, 0);
    let error = here
        .resolve(&registry(&format!("{host}/team/app:2")))
        .unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error}");
    // A lock is that value; it says what does not fit.
    let json = serde_json::to_vec(&resolved).unwrap();
    let lock = read_lock(&json).unwrap();
    assert_eq!(lock, resolved);
    assert!(lock.unlike(&request).is_empty());
    assert_eq!(lock.unlike(&registry("debian:12")).len(), 1);
    for (was, is, what) in [
        (
            "\"format\":1",
            "\"format\":2",
            "it has format 2, this release reads 1",
        ),
        ("layer.v1.tar+gzip", "layer.v1.cpio", "mediaType"),
        ("\"diffId\"", "\"diff\"", "not a lock"),
    ] {
        let text = String::from_utf8(json.clone()).unwrap();
        assert!(text.contains(was), "{text}");
        let error = read_lock(text.replace(was, is).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn compressions_are_all_read() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    let from = format!("oci:{}", image_of(&layout, "app"));
    let server = RegistryServer::start(&RegistrySettings::default());
    // Unpacked on the way, so that skopeo packs them anew.
    let plain = here.path("plain");
    let copy = |from: &str, to: &str, args: &[&str]| {
        let mut command = tool("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet"]);
        run(command.args(args).args([from, to]));
    };
    copy(
        &from,
        &format!("dir:{}", plain.display()),
        &["--dest-decompress"],
    );
    let plain = format!("dir:{}", plain.display());
    let zstd = ["--dest-compress-format", "zstd", "--format", "oci"];
    server.push(&plain, "app:zstd", &zstd);
    let host = server.host();
    let (zstd, tree, blobs) = here.image(&registry(&format!("{host}/app:zstd"))).unwrap();
    assert!(
        zstd.layers
            .iter()
            .all(|l| l.blob.media_type.ends_with("+zstd")),
        "{zstd:?}"
    );
    let names = same_as_umoci(&layout, "app", &tree, &blobs);
    // A layout of archives that are not compressed.
    let raw = here.path("raw");
    copy(
        &plain,
        &format!("oci:{}:app", raw.display()),
        &["--dest-decompress"],
    );
    let (resolved, tree, blobs) = here.image(&super::layout(&raw, None)).unwrap();
    assert_eq!(lines(&tree, &blobs), names);
    assert_eq!(archives(&resolved), archives(&zstd));
}

#[test]
fn layouts_are_folders_or_archives_and_say_their_tags() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    let request = super::layout(&layout, Some("app"));
    let (resolved, tree, blobs) = here.image(&request).unwrap();
    let names = same_as_umoci(&layout, "app", &tree, &blobs);
    assert_eq!(
        (resolved.reference.as_str(), resolved.name.as_str()),
        ("image:app", "image")
    );
    // The only image needs no tag.
    let only = here.resolve(&super::layout(&layout, None)).unwrap();
    assert_eq!(only.manifest, resolved.manifest);
    let archive = here.path("app.tar");
    run(tool("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .args([
            format!("oci:{}", image_of(&layout, "app")),
            format!("oci-archive:{}:app", archive.display()),
        ]));
    let (same, tree, blobs) = here.image(&super::layout(&archive, Some("app"))).unwrap();
    assert_eq!(lines(&tree, &blobs), names);
    assert_eq!(archives(&same), archives(&resolved));
    let failed = |path: &Path, tag| text(&here.resolve(&super::layout(path, tag)).unwrap_err());
    // With two, a tag has to say which.
    run(tool("umoci").args(["tag", "--image", &image_of(&layout, "app"), "other"]));
    let error = failed(&layout, None);
    assert!(
        error.ends_with("image has several images, and no tag says which, but app, other"),
        "{error}"
    );
    let error = failed(&layout, Some("nope"));
    assert!(
        error.ends_with("image has no tag \"nope\", but app, other"),
        "{error}"
    );
    // What is none.
    let error = failed(here.dir.path(), None);
    assert!(error.contains("no file oci-layout"), "{error}");
    let error = failed(&layout.join("index.json"), None);
    assert!(error.contains("not an archive of an image"), "{error}");
    // A blob that is not the one it is called.
    let digest = resolved.layers[1].blob.digest.hex();
    let blob = layout.join("blobs/sha256").join(digest);
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let fetched = here.fetch(&request, &resolved).unwrap();
    let error = here.unpack(&resolved, &fetched).unwrap_err();
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
    assert!(blob.exists(), "what is the user's stays");
    std::fs::write(&blob, "short").unwrap();
    let error = text(&here.fetch(&request, &resolved).unwrap_err());
    assert!(error.contains("it has 5 bytes and should have"), "{error}");
}

/// Adds an index of the given platforms, each with the manifest of `app`.
fn add_index(layout: &Path, tag: &str, platforms: &[(&str, &str)]) {
    use serde_json::{Value, json};
    let index = layout.join("index.json");
    let mut top: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let one = top["manifests"][0].clone();
    let entry = |(arch, variant): &(&str, &str)| {
        let mut platform = json!({"os": "linux", "architecture": arch});
        if !variant.is_empty() {
            platform["variant"] = (*variant).into();
        }
        json!({"mediaType": one["mediaType"], "digest": one["digest"], "size": one["size"], "platform": platform})
    };
    let entries: Vec<Value> = platforms.iter().map(entry).collect();
    let media = "application/vnd.oci.image.index.v1+json";
    let inner = json!({"schemaVersion": 2, "mediaType": media, "manifests": entries}).to_string();
    let digest = Digest::of(inner.as_bytes()).hex();
    std::fs::write(layout.join("blobs/sha256").join(&digest), &inner).unwrap();
    top["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": media, "digest": format!("sha256:{digest}"), "size": inner.len(),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }));
    std::fs::write(index, top.to_string()).unwrap();
}

#[test]
fn of_an_index_the_entry_for_the_machine_is_taken() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    add_index(
        &layout,
        "multi",
        &[("arm64", "v8"), ("amd64", "v3"), ("amd64", "")],
    );
    add_index(
        &layout,
        "others",
        &[("arm64", "v8"), ("amd64", "v3"), ("s390x", "")],
    );
    let server = RegistryServer::start(&RegistrySettings::default());
    let host = server.host();
    for (tag, name, format) in [
        ("multi", "app:multi", "oci"),
        ("multi", "app:list", "v2s2"),
        ("others", "app:others", "oci"),
    ] {
        let from = format!("oci:{}", image_of(&layout, tag));
        server.push(&from, name, &["--all", "--format", format]);
    }
    let of = |name: &str| here.resolve(&registry(&format!("{host}/{name}")));
    let resolved = of("app:multi").unwrap();
    assert!(
        resolved
            .index
            .is_some_and(|index| index != resolved.manifest)
    );
    let single = here.resolve(&super::layout(&layout, Some("app"))).unwrap();
    assert_eq!(resolved.layers, single.layers);
    let inside = here
        .resolve(&super::layout(&layout, Some("multi")))
        .unwrap();
    assert_eq!(inside.manifest, single.manifest);
    // Docker's list.
    let list = of("app:list").unwrap();
    assert!(list.index.is_some() && list.layers[0].blob.media_type.contains("docker"));
    assert_eq!(archives(&list), archives(&resolved));
    // The index pinned by its digest is as good.
    let index = resolved.index.unwrap().hex();
    assert_eq!(
        of(&format!("app@sha256:{index}")).unwrap().manifest,
        resolved.manifest
    );
    let error = text(&of("app:others").unwrap_err());
    let found = "it is not for linux/amd64, but for linux/amd64/v3, linux/arm64/v8, linux/s390x";
    assert!(error.ends_with(found), "{error}");
    // What an index says of its entry is checked against the image's own configuration.
    let arm = OciRequest {
        arch: Arch::Arm64,
        ..registry(&format!("{host}/app:multi"))
    };
    let error = text(&here.resolve(&arm).unwrap_err());
    assert!(
        error.ends_with("it is not for linux/arm64, but for linux/amd64"),
        "{error}"
    );
    let error = text(&of("app:none").unwrap_err());
    assert!(error.ends_with("does not have the tag none"), "{error}");
    let error = text(&of("none").unwrap_err());
    assert!(error.ends_with("does not have the tag latest"), "{error}");
}

#[test]
fn tls_is_checked_against_the_hosts_certificates() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    let tls = self_signed(here.dir.path());
    let certificate = tls.0.clone();
    let server = RegistryServer::start(&RegistrySettings {
        tls: Some(tls),
        ..RegistrySettings::default()
    });
    server.push(&format!("oci:{}", image_of(&layout, "app")), "app:1", &[]);
    let port = server.host().split(':').nth(1).unwrap().to_owned();
    let request = registry(&format!("localhost:{port}/app:1"));
    let error = here.resolve(&request).unwrap_err();
    assert!(matches!(error, SourceError::Download { .. }), "{error}");
    std::fs::create_dir_all(here.path("etc/ssl/certs")).unwrap();
    std::fs::copy(certificate, here.path("etc/ssl/certs/ca-certificates.crt")).unwrap();
    let (_, tree, blobs) = here.image(&request).unwrap();
    same_as_umoci(&layout, "app", &tree, &blobs);
}

#[test]
fn a_layer_damaged_in_the_cache_is_brought_anew_and_one_cut_off_is_resumed() {
    let here = Here::new();
    let layout = make_layout(here.dir.path());
    let server = RegistryServer::start(&RegistrySettings::default());
    server.push(&format!("oci:{}", image_of(&layout, "app")), "app:1", &[]);
    let request = registry(&format!("{}/app:1", server.host()));
    let (resolved, ..) = here.image(&request).unwrap();
    let first = &resolved.layers[0].blob;
    let file = here.path("cache/oci").join(first.digest.hex());
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let fetched = here.fetch(&request, &resolved).unwrap();
    let error = here.unpack(&resolved, &fetched).unwrap_err();
    assert!(
        matches!(error, SourceError::Digest { .. }) && !file.exists(),
        "{error}"
    );
    let half = whole.len() / 2;
    std::fs::write(file.with_extension("partial"), &whole[..half]).unwrap();
    let fetched = here.fetch(&request, &resolved).unwrap();
    assert_eq!(fetched.downloaded, (whole.len() - half) as u64);
    here.unpack(&resolved, &fetched).unwrap();
}

/// The proxy knows where `registry.test` is, and nobody else.
#[test]
fn a_registry_is_asked_through_the_proxy_of_the_environment() {
    let mut here = Here::new();
    let layout = make_layout(here.dir.path());
    let tls = self_signed(here.dir.path());
    std::fs::create_dir_all(here.path("etc/ssl/certs")).unwrap();
    std::fs::copy(&tls.0, here.path("etc/ssl/certs/ca-certificates.crt")).unwrap();
    let server = RegistryServer::start(&RegistrySettings {
        tls: Some(tls),
        ..RegistrySettings::default()
    });
    server.push(&format!("oci:{}", image_of(&layout, "app")), "app:1", &[]);
    let proxy = ProxyServer::start(&server.host());
    let set = |here: &mut Here, except: &str| {
        let variables = [
            (
                "https_proxy",
                format!("http://user:word@{}", proxy.address()),
            ),
            ("no_proxy", except.to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        here.proxies = Proxies::of(&variables.into());
    };
    set(&mut here, "other.test");
    let (_, tree, blobs) = here.image(&registry("registry.test/app:1")).unwrap();
    same_as_umoci(&layout, "app", &tree, &blobs);
    let asked = proxy.requests();
    assert!(
        asked
            .iter()
            .all(|r| r == "CONNECT registry.test:443 Basic dXNlcjp3b3Jk"),
        "{asked:?}"
    );
    assert!(!asked.is_empty());

    // What is excepted, and this machine, are asked without it.
    set(&mut here, ".test");
    assert!(here.resolve(&registry("registry.test/app:1")).is_err());
    let port = server.host().split(':').nth(1).unwrap().to_owned();
    let local = registry(&format!("localhost:{port}/app:1"));
    set(&mut here, "");
    here.resolve(&local).unwrap();
    assert_eq!(proxy.requests().len(), asked.len());
}
