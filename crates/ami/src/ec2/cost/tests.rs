use serde_json::json;

use super::*;
use crate::ec2::testing::{OTHER, caller, id, image, mapping, snapshot, state};

/// Block maps of a few snapshots: ranges of block numbers.
struct Maps(BTreeMap<String, Vec<u64>>);

impl Blocks for Maps {
    fn distinct(&self, snapshots: &[&Snapshot]) -> Option<u64> {
        let mut all: BTreeSet<u64> = BTreeSet::new();
        for snapshot in snapshots {
            all.extend(self.0.get(snapshot.snapshot_id.as_str())?);
        }
        Some(all.len() as u64)
    }
}

const GIB: u64 = 1 << 30;

fn of_volume(number: u32, volume: u32, day: u32, blocks: u64, changed: u64) -> Snapshot {
    snapshot(
        number,
        json!({"volumeId": id("vol", volume), "startTime": format!("2026-01-{day:02}T00:00:00Z"), "blocks": blocks,
            "changedBlocks": changed}),
    )
}

/// Volume 1: snapshots 1 (1 GiB), 2 (of 1 GiB, 0.25 new); volume 2, made from snapshot 2: snapshot 3. Snapshot 4 is an import of no image.
fn world() -> State {
    let mut third = of_volume(3, 2, 3, 2048, 128);
    third.parent = Some(id("snap", 2).parse().unwrap());
    state(
        [
            image(
                1,
                json!({"blockDeviceMappings": [mapping("/dev/xvda", 1), mapping("/dev/xvdb", 1)]}),
            ),
            image(2, json!({"blockDeviceMappings": [mapping("/dev/xvda", 2)]})),
            image(
                3,
                json!({"blockDeviceMappings": [mapping("/dev/xvda", 2), mapping("/dev/xvdb", 3), mapping("/dev/xvdc", 9)]}),
            ),
            image(
                4,
                json!({"rootDeviceType": "instance-store", "blockDeviceMappings": [], "region": "eu-west-1"}),
            ),
            image(5, json!({"owner": OTHER})),
            image(6, json!({"state": "deregistered"})),
        ],
        [
            of_volume(1, 1, 1, 2048, 2048),
            of_volume(2, 1, 2, 2048, 512),
            third,
            snapshot(4, json!({"blocks": 1024, "changedBlocks": 1024})),
        ],
        [],
    )
}

fn query<'a>(
    bundles: &'a BTreeMap<ImageId, u64>,
    images: Option<&'a BTreeSet<ImageId>>,
) -> CostQuery<'a> {
    CostQuery {
        images,
        all_regions: true,
        bundles,
    }
}

#[test]
fn only_what_changed_is_billed() {
    let bundles = [(id("ami", 4).parse().unwrap(), GIB)].into();
    let report = estimate(
        &world(),
        &caller(),
        &query(&bundles, None),
        &PriceTable::builtin(),
        &Unread,
    );
    let snapshots: Vec<(u64, u64, String, usize)> = report
        .snapshots
        .iter()
        .map(|s| {
            (
                s.full_bytes,
                s.billed_bytes,
                s.month.to_string(),
                s.images.len(),
            )
        })
        .collect();
    assert_eq!(
        snapshots,
        [
            (GIB, GIB, "0.0500".to_owned(), 1),
            (GIB, GIB / 4, "0.0125".to_owned(), 2),
            (GIB, GIB / 16, "0.0031".to_owned(), 1),
            (GIB / 2, GIB / 2, "0.0250".to_owned(), 0),
        ]
    );
    let after: Vec<Option<&str>> = report
        .snapshots
        .iter()
        .map(|s| s.after.as_ref().map(|a| a.as_str()))
        .collect();
    let (one, two) = (id("snap", 1), id("snap", 2));
    assert_eq!(after, [None, Some(one.as_str()), Some(two.as_str()), None]);
    assert_eq!(
        report.rows(),
        [
            [
                id("ami", 1).as_str(),
                "image 1",
                "us-east-1",
                "1.000",
                "1.000",
                "0.0500"
            ],
            [
                id("ami", 2).as_str(),
                "image 2",
                "us-east-1",
                "1.000",
                "0.250",
                "0.0125"
            ],
            [
                id("ami", 3).as_str(),
                "image 3",
                "us-east-1",
                "2.000",
                "0.313",
                "0.0156"
            ],
            [
                id("ami", 4).as_str(),
                "image 4",
                "eu-west-1",
                "1.000",
                "1.000",
                "0.0230"
            ],
            [
                id("snap", 4).as_str(),
                "(of no image)",
                "us-east-1",
                "0.500",
                "0.500",
                "0.0250"
            ],
            ["total", "", "", "3.500", "2.813", "0.1136"],
        ]
    );
    assert!(!report.exact);
    assert_eq!(report.images[1].shared_bytes, GIB / 4);
    assert_eq!(report.images[2].missing, [id("snap", 9).parse().unwrap()]);
    let archive = &report.snapshots[1].archive;
    assert_eq!(
        (
            archive.bytes,
            archive.minimum.to_string(),
            archive.restore.to_string()
        ),
        (GIB, "0.0375".into(), "0.0300".into())
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["totals"]["month"], json!(0.113625));
    assert_eq!(json["images"][0]["imageId"], id("ami", 1));
}

#[test]
fn maps_make_it_exact() {
    let none = BTreeMap::new();
    let maps = |entries: &[(u32, std::ops::Range<u64>)]| {
        Maps(
            entries
                .iter()
                .map(|(n, r)| (id("snap", *n), r.clone().collect()))
                .collect(),
        )
    };
    let all = maps(&[(1, 0..2048), (2, 512..2560), (3, 640..2688), (4, 0..1024)]);
    let report = estimate(
        &world(),
        &caller(),
        &query(&none, None),
        &PriceTable::builtin(),
        &all,
    );
    assert!(report.exact);
    assert_eq!(report.totals.distinct_bytes, Some(2688 * BLOCK_BYTES));
    // The one between was deleted: what it had is billed for the one after it.
    let mut without = world();
    without.snapshots.remove(&id("snap", 2).parse().unwrap());
    let report = estimate(
        &without,
        &caller(),
        &query(&none, None),
        &PriceTable::builtin(),
        &all,
    );
    assert_eq!(report.snapshots[1].after, None);
    assert_eq!(report.snapshots[1].billed_bytes, 2048 * BLOCK_BYTES);
    let mut third = of_volume(3, 1, 3, 2048, 128);
    third.snapshot_id = id("snap", 3).parse().unwrap();
    without.snapshots.insert(third.snapshot_id.clone(), third);
    let report = estimate(
        &without,
        &caller(),
        &query(&none, None),
        &PriceTable::builtin(),
        &all,
    );
    assert_eq!(report.snapshots[1].billed_bytes, 640 * BLOCK_BYTES);
}

#[test]
fn nothing_is_shared_across_owners_regions_and_keys() {
    let none = BTreeMap::new();
    let key = |n: u32| {
        json!({"keyId": format!("00000000-0000-0000-0000-{n:012}"),
            "dataKeyId": format!("{n:064}")})
    };
    for (case, before, after, billed) in [
        ("shared", json!({}), json!({}), 1),
        ("another owner", json!({"owner": OTHER}), json!({}), 2048),
        (
            "another region",
            json!({"region": "eu-west-1"}),
            json!({}),
            2048,
        ),
        (
            "one encrypted",
            json!({}),
            json!({"encryption": key(1)}),
            2048,
        ),
        (
            "another key",
            json!({"encryption": key(2)}),
            json!({"encryption": key(1)}),
            2048,
        ),
        (
            "the same key",
            json!({"encryption": key(1)}),
            json!({"encryption": key(1)}),
            1,
        ),
        (
            "one that failed",
            json!({"state": "error"}),
            json!({}),
            2048,
        ),
        (
            "a later one",
            json!({"startTime": "2027-01-01T00:00:00Z"}),
            json!({}),
            2048,
        ),
    ] {
        let with = |n: u32, day: u32, over: &serde_json::Value| {
            let mut members = json!({"volumeId": id("vol", 1), "startTime": format!("2026-01-{day:02}T00:00:00Z"), "changedBlocks": 1});
            for (k, v) in over.as_object().unwrap() {
                members[k] = v.clone();
            }
            snapshot(n, members)
        };
        let world = state([], [with(1, 1, &before), with(2, 2, &after)], []);
        let report = estimate(
            &world,
            &caller(),
            &query(&none, None),
            &PriceTable::builtin(),
            &Unread,
        );
        let second = report
            .snapshots
            .iter()
            .find(|s| s.snapshot_id.as_str() == id("snap", 2))
            .unwrap();
        assert_eq!(second.billed_bytes, billed * BLOCK_BYTES, "{case}");
    }
}

#[test]
fn some_images_or_one_region() {
    let none = BTreeMap::new();
    let two = [id("ami", 2).parse().unwrap()].into();
    let report = estimate(
        &world(),
        &caller(),
        &query(&none, Some(&two)),
        &PriceTable::builtin(),
        &Unread,
    );
    assert_eq!((report.images.len(), report.snapshots.len()), (1, 1));
    assert_eq!(report.totals.month.to_string(), "0.0125");
    let here = CostQuery {
        images: None,
        all_regions: false,
        bundles: &none,
    };
    let report = estimate(&world(), &caller(), &here, &PriceTable::builtin(), &Unread);
    assert_eq!(report.images.len(), 3);
}

#[test]
fn copies() {
    let bundles = [(id("ami", 4).parse().unwrap(), GIB)].into();
    let mut prices = PriceTable::builtin();
    prices.regions.insert(
        "eu-west-1".into(),
        RegionPrices {
            snapshot_gb_month: Some(Money::from_nanos(55_000_000)),
            ..RegionPrices::default()
        },
    );
    let world = world();
    for (image, to, expected) in [
        (1, "eu-west-1", (GIB, "0.0200", "0.0550")),
        (3, "eu-west-1", (2 * GIB, "0.0400", "0.1100")),
        (1, "us-east-1", (GIB, "0.0000", "0.0500")),
        (4, "us-east-1", (GIB, "0.0200", "0.0230")),
    ] {
        let image = &world.images[&id("ami", image).parse().unwrap()];
        let found = copy_cost(
            &world,
            image,
            &to.parse().unwrap(),
            &query(&bundles, None),
            &prices,
        );
        assert_eq!(
            (
                found.bytes,
                found.transfer.to_string().as_str(),
                found.month.to_string().as_str()
            ),
            expected
        );
    }
}

#[test]
fn tables_are_checked() {
    let table = PriceTable::builtin();
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(PriceTable::from_json(&text).unwrap(), table);
    assert!(matches!(
        PriceTable::from_json(&text.replace("\"schemaVersion\":1", "\"schemaVersion\":2")),
        Err(PriceError::Version(2))
    ));
    for (from, to) in [
        ("\"currency\"", "\"money\""),
        ("0.05", "-1"),
        ("\"transferGb\":0.02,", ""),
    ] {
        assert!(
            matches!(
                PriceTable::from_json(&text.replacen(from, to, 1)),
                Err(PriceError::Json(_))
            ),
            "{from}"
        );
    }
    assert!(matches!(
        PriceTable::from_json(&" ".repeat(2 << 20)),
        Err(PriceError::TooLarge(_))
    ));
}
