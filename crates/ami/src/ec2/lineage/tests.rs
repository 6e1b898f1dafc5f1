use serde_json::{Value, json};

use super::*;
use crate::ec2::testing::{OTHER, id, image, instance, state};

fn build(recipe: &str, parent: &str) -> Value {
    json!({"recipe": recipe, "version": "1.0.0", "parent": parent,
        "planId": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"})
}

/// debian → 1 (base) → 2 (web, built on it) → instance 1 → 3 → 4 (copy); 2 → instance 2; 1 → 5 (copy of another); instance 9 is gone: 6.
fn world() -> State {
    state(
        [
            image(
                1,
                json!({"name": "base", "build": build("base", "debian:bookworm")}),
            ),
            image(
                2,
                json!({"name": "web", "build": build("web", "image:base/1.0.0"), "creationDate": "2026-02-01T00:00:00Z"}),
            ),
            image(
                3,
                json!({"sourceInstanceId": id("i", 1), "sourceImageId": id("ami", 2), "sourceImageRegion": "us-east-1",
                "creationDate": "2026-03-01T00:00:00Z"}),
            ),
            image(
                4,
                json!({"sourceImageId": id("ami", 3), "sourceImageRegion": "us-east-1", "region": "eu-west-1", "state": "disabled",
                "creationDate": "2026-04-01T00:00:00Z"}),
            ),
            image(
                5,
                json!({"sourceImageId": id("ami", 1), "sourceImageRegion": "us-east-1", "owner": OTHER,
                "creationDate": "2026-05-01T00:00:00Z"}),
            ),
            image(
                6,
                json!({"sourceInstanceId": id("i", 9), "sourceImageId": id("ami", 5), "sourceImageRegion": "us-east-1",
                "creationDate": "2026-06-01T00:00:00Z"}),
            ),
            image(
                7,
                json!({"sourceImageId": id("ami", 99), "sourceImageRegion": "ap-south-1"}),
            ),
            image(8, json!({})),
        ],
        [],
        [
            instance(1, 2, json!({"launchTime": "2026-02-02T00:00:00Z"})),
            instance(
                2,
                2,
                json!({"state": "stopped", "launchTime": "2026-02-03T00:00:00Z"}),
            ),
        ],
    )
}

/// The tree with short ids, without accounts and dates.
fn text(state: &State, number: u32) -> String {
    let found = lineage(state, &id("ami", number).parse().unwrap()).unwrap();
    let text = found
        .to_text()
        .replace("00000000000000", "")
        .replace(", us-east-1", "")
        .replace(", 123456789012", "");
    let mut lines = Vec::new();
    for line in text.lines() {
        let parts: Vec<&str> = line
            .split(", ")
            .filter(|p| !p.starts_with("2026-"))
            .collect();
        lines.push(parts.join(", "));
    }
    lines.join("\n")
}

#[test]
fn trees() {
    let base = "\
debian:bookworm
└─ * built on it: ami-001, \"base\", available, recipe base/1.0.0
   ├─ built on it: ami-002, \"web\", available, recipe web/1.0.0
   │  ├─ launched: i-001, running
   │  │  └─ created from the instance: ami-003, \"image 3\", available
   │  │     └─ copy: ami-004, \"image 4\", eu-west-1, disabled
   │  └─ launched: i-002, stopped
   └─ copy: ami-005, \"image 5\", 210987654321, available
      └─ created from the instance: ami-006, \"image 6\", available";
    let copy = "\
debian:bookworm
└─ built on it: ami-001, \"base\", available, recipe base/1.0.0
   └─ built on it: ami-002, \"web\", available, recipe web/1.0.0
      └─ launched: i-001, running
         └─ created from the instance: ami-003, \"image 3\", available
            └─ * copy: ami-004, \"image 4\", eu-west-1, disabled";
    let gone = "\
debian:bookworm
└─ built on it: ami-001, \"base\", available, recipe base/1.0.0
   └─ copy: ami-005, \"image 5\", 210987654321, available
      └─ launched: i-009, not known here
         └─ * created from the instance: ami-006, \"image 6\", available";
    let missing = "\
ami-063, ap-south-1, not known here
└─ * copy: ami-007, \"image 7\", available";
    for (number, expected) in [
        (1, base),
        (4, copy),
        (6, gone),
        (7, missing),
        (8, "* ami-008, \"image 8\", available"),
    ] {
        assert_eq!(
            text(&world(), number),
            expected,
            "{number}\n{}",
            text(&world(), number)
        );
    }
    assert_eq!(lineage(&world(), &id("ami", 50).parse().unwrap()), None);
}

#[test]
fn circles_end() {
    let of = |n: u32, source: u32| {
        image(
            n,
            json!({"sourceImageId": id("ami", source), "sourceImageRegion": "us-east-1"}),
        )
    };
    let world = state([of(1, 3), of(2, 1), of(3, 2), of(4, 4)], [], []);
    let found = lineage(&world, &id("ami", 1).parse().unwrap()).unwrap();
    let up: Vec<(bool, &str)> = found
        .ancestors
        .iter()
        .map(|a| (a.node.circular, a.node.id.as_str()))
        .collect();
    let (one, two, three) = (id("ami", 1), id("ami", 2), id("ami", 3));
    assert_eq!(
        up,
        [
            (false, three.as_str()),
            (false, two.as_str()),
            (true, one.as_str())
        ]
    );
    let last = &found.image.children[0].children[0].children[0];
    assert!(last.node.circular && last.children.is_empty());
    let own = lineage(&world, &id("ami", 4).parse().unwrap()).unwrap();
    assert!(own.ancestors[0].node.circular && own.image.children[0].node.circular);
}

#[test]
fn long_lines_and_many_children_are_cut() {
    let of = |n: u32, source: u32| {
        image(
            n,
            json!({"sourceImageId": id("ami", source), "sourceImageRegion": "us-east-1"}),
        )
    };
    let chain = state((1..=300).map(|n| of(n, n - 1)), [], []);
    let found = lineage(&chain, &id("ami", 1).parse().unwrap()).unwrap();
    assert!(found.to_text().ends_with("…\n"));
    let found = lineage(&chain, &id("ami", 300).parse().unwrap()).unwrap();
    assert_eq!(found.ancestors.len(), MAX_DEPTH);
    let wide = state((1..=12_000).map(|n| of(n, u32::from(n > 1))), [], []);
    let found = lineage(&wide, &id("ami", 1).parse().unwrap()).unwrap();
    assert!(found.image.cut);
    assert_eq!(found.image.children.len(), MAX_NODES - 1);
}

#[test]
fn parents_that_are_images() {
    let plain = |n: u32, recipe: &str, date: &str, region: &str| {
        image(
            n,
            json!({"build": build(recipe, "scratch"), "creationDate": date, "region": region}),
        )
    };
    let child = |parent: &str| {
        image(
            9,
            json!({"build": build("web", parent), "creationDate": "2026-06-01T00:00:00Z"}),
        )
    };
    for (parent, expected) in [
        ("image:base/1.0.0", id("ami", 2)),
        ("image:base/2.0.0", "image:base/2.0.0".to_owned()),
        ("image:base", "image:base".to_owned()),
        (id("ami", 3).as_str(), id("ami", 3)),
        ("oci:debian", "oci:debian".to_owned()),
    ] {
        let world = state(
            [
                plain(1, "base", "2026-01-01T00:00:00Z", "us-east-1"),
                plain(2, "base", "2026-02-01T00:00:00Z", "us-east-1"),
                plain(3, "base", "2026-03-01T00:00:00Z", "eu-west-1"),
                plain(4, "base", "2026-07-01T00:00:00Z", "us-east-1"),
                child(parent),
            ],
            [],
            [],
        );
        let found = lineage(&world, &id("ami", 9).parse().unwrap()).unwrap();
        assert_eq!(found.ancestors[0].node.id, expected, "{parent}");
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["ancestors"][0]["relation"], "built-on");
        assert_eq!(json["image"]["built"]["parent"], parent);
    }
}
