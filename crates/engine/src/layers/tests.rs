use std::collections::BTreeMap;

use amiforge_plan::{LayerKind, LayerPlan, Plan, PlannedComponent, RecipeSummary, SCHEMA_VERSION};
use amiforge_types::{Digest, LayerId};

use super::validated::{validated_key, validated_on};

fn id(text: &str) -> LayerId {
    LayerId(Digest::of(text.as_bytes()))
}

/// A plan of a parent and of components by name; one that starts with `-` has no build phase.
fn plan(names: &[&str]) -> Plan {
    let layer = |kind, title: &str| LayerPlan {
        id: id(title),
        kind,
        title: title.to_owned(),
        inputs: BTreeMap::new(),
        parent: None,
    };
    let mut layers = vec![
        layer(LayerKind::ParentUnpacked, "unpacked"),
        layer(LayerKind::ParentConfigured, "configured"),
    ];
    let mut components = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let builds = !name.starts_with('-');
        if builds {
            layers.push(layer(LayerKind::Component { index }, name));
        }
        components.push(PlannedComponent {
            name: (*name).to_owned(),
            version: None,
            reference: (*name).to_owned(),
            digest: Digest::of(name.as_bytes()),
            parameters: BTreeMap::from([("P".to_owned(), "1".to_owned())]),
            phases: Vec::new(),
            layer: builds.then(|| id(name)),
        });
    }
    Plan {
        schema_version: SCHEMA_VERSION,
        plan_id: Digest::of(b""),
        recipe: RecipeSummary {
            name: "r".to_owned(),
            version: "1.0.0".to_owned(),
            digest: Digest::of(b""),
        },
        parent_image: "debian:bookworm".to_owned(),
        image_inputs: BTreeMap::new(),
        layers,
        components,
    }
}

#[test]
fn every_component_is_validated_once_on_what_it_could_see() {
    let plan = plan(&["-first", "a", "b", "-check", "-more", "c"]);
    let found: Vec<Vec<usize>> = (0..plan.layers.len())
        .map(|at| validated_on(&plan, at))
        .collect();
    assert_eq!(found, [vec![], vec![0], vec![1], vec![2, 3, 4], vec![5]]);
}

#[test]
fn what_passed_is_known_by_layer_document_and_parameters() {
    let plan = plan(&["a", "-check", "-more"]);
    let top = &plan.layers[2];
    let key = |plan: &Plan, layer: &LayerPlan, index: usize| {
        validated_key(plan, layer, index, None, &BTreeMap::new())
    };
    // The layer covers its build phase alone.
    let own = key(&plan, top, 0);
    let mut other = plan.clone();
    other.components[0].digest = Digest::of(b"another validate phase");
    assert_ne!(own, key(&other, top, 0));
    assert!(own.starts_with(&format!("{}.", top.id)), "{own}");
    let check = key(&plan, top, 1);
    assert_ne!(check, key(&plan, top, 2));
    assert_ne!(check, key(&plan, &plan.layers[1], 1));
    let nothing = BTreeMap::new();
    assert_ne!(check, validated_key(&plan, top, 1, Some("/srv"), &nothing));
    let value = BTreeMap::from([("reference.aws:ssm:/a".to_owned(), "1".to_owned())]);
    assert_ne!(check, validated_key(&plan, top, 1, None, &value));
    other = plan.clone();
    other.components[1]
        .parameters
        .insert("P".to_owned(), "2".to_owned());
    assert_ne!(check, key(&other, top, 1));
}
