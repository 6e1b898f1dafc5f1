use std::collections::BTreeMap;

use amiforge_types::{Arch, Digest, Timestamp};

use super::{LAYOUT, LayerBlob, LayerFormat, image};
use crate::{History, ImageConfig, RunConfig, reference};

fn config() -> ImageConfig {
    ImageConfig {
        created: Timestamp::from_secs(0),
        author: None,
        architecture: Arch::X86_64,
        run: RunConfig {
            env: vec!["A=b".to_owned()],
            exposed_ports: ["80/tcp".to_owned()].into(),
            cmd: Some(vec!["sh".to_owned()]),
            ..RunConfig::default()
        },
        history: vec![History {
            created: Timestamp::from_secs(0),
            created_by: "x".to_owned(),
            comment: None,
            empty_layer: false,
        }],
    }
}

#[test]
fn documents_name_one_another_by_digest_and_size() {
    let layer = LayerBlob {
        format: LayerFormat::Gzip,
        digest: Digest::of(b"stored"),
        size: 6,
        diff_id: Digest::of(b"archive"),
    };
    let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = image(&config(), &[layer], &annotations, "1.0.0");
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let (index, manifest, config) = (
        json(&made.index),
        json(&made.manifest.1),
        json(&made.config.1),
    );
    let named = &index["manifests"][0];
    assert_eq!(named["digest"], format!("sha256:{}", made.manifest.0));
    assert_eq!(named["size"], made.manifest.1.len());
    assert_eq!(
        named["annotations"]["org.opencontainers.image.ref.name"],
        "1.0.0"
    );
    assert_eq!(named["platform"]["architecture"], "amd64");
    assert_eq!(
        manifest["config"]["digest"],
        format!("sha256:{}", made.config.0)
    );
    assert_eq!(manifest["layers"][0]["size"], 6);
    assert_eq!(manifest["annotations"]["a"], "b");
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", layer.diff_id)
    );
    assert_eq!(
        config["config"],
        serde_json::json!({"ExposedPorts": {"80/tcp": {}}, "Env": ["A=b"], "Cmd": ["sh"]})
    );
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    assert_eq!(json(LAYOUT)["imageLayoutVersion"], "1.0.0");
}

#[test]
fn a_reference_has_only_characters_of_its_grammar() {
    for (repository, version, name) in [
        ("web", "1.0.0", "web:1.0.0"),
        ("team/web", "1.2.x", "team/web:1.2.x"),
        ("//a b--c/../d_", "1", "a-b-c/d:1"),
        ("..", "", "latest"),
    ] {
        assert_eq!(reference(repository, version), name);
    }
}
