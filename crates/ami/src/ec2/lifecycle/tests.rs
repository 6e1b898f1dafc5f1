use serde_json::{Value, json};

use super::*;
use crate::ec2::testing::{ME, OTHER, caller, id, image, instance, mapping, snapshot, state, time};
use crate::ec2::{Image, State};

const NOW: &str = "2026-11-28T12:00:00Z";

fn detail(action: &str, filter: Value, exclusions: Value) -> Value {
    let include = json!({"amis": true, "snapshots": action == "DELETE"});
    json!({"action": {"type": action, "includeResources": include}, "filter": filter, "exclusionRules": exclusions})
}

fn age(value: u32, unit: &str, retain: Option<u32>) -> Value {
    let mut filter = json!({"type": "AGE", "value": value, "unit": unit});
    if let Some(count) = retain {
        filter["retainAtLeast"] = count.into();
    }
    filter
}

fn count(value: u32) -> Value {
    json!({"type": "COUNT", "value": value})
}

fn document(details: &[Value], selection: Value) -> Value {
    json!({"name": "old images", "executionRole": "lifecycle", "resourceType": "AMI_IMAGE", "policyDetails": details,
        "resourceSelection": selection})
}

fn policy(details: &[Value]) -> LifecyclePolicy {
    let selection = json!({"recipes": [{"name": "web", "semanticVersion": "x.x.x"}]});
    LifecyclePolicy::from_json(&document(details, selection).to_string()).unwrap()
}

/// An image of a recipe, made in a month of 2026, with the snapshot of its own number.
fn built(number: u32, recipe: &str, month: u32, over: Value) -> Image {
    let mut members = json!({
        "creationDate": format!("2026-{month:02}-28T12:00:00Z"),
        "build": {"recipe": recipe, "version": "1.2.0", "parent": "debian:bookworm",
            "planId": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    });
    for (key, value) in over.as_object().unwrap() {
        members[key] = value.clone();
    }
    image(number, members)
}

/// Images 1 to 5 of the recipe `web`, one a month from January to May.
fn five(over: impl Fn(u32) -> Value) -> State {
    let images = (1..=5).map(|n| built(n, "web", n, over(n)));
    state(images, (1..=5).map(|n| snapshot(n, json!({}))), [])
}

/// The plan as `ACTION number` words.
fn steps(policy: &LifecyclePolicy, state: &State) -> Vec<String> {
    let plan = policy.plan(state, &caller(), time(NOW));
    plan.steps
        .iter()
        .map(|s| {
            format!(
                "{} {}",
                s.action.as_str(),
                u32::from_str_radix(s.image.digits(), 16).unwrap()
            )
        })
        .collect()
}

#[test]
fn filters_and_exclusions() {
    let none = |_| json!({});
    let only = |n: u32, over: Value| move |i: u32| if i == n { over.clone() } else { json!({}) };
    let launched = |text: &str| json!({"lastLaunchedTime": text});
    let delete = |filter: Value, exclusions: Value| vec![detail("DELETE", filter, exclusions)];
    let last = json!({"amis": {"lastLaunched": {"value": 30, "unit": "DAYS"}}});
    let all = ["DELETE 1", "DELETE 2", "DELETE 3", "DELETE 4", "DELETE 5"];
    for (case, details, state, expected) in [
        (
            "by age",
            delete(age(8, "MONTHS", None), json!({})),
            five(none),
            &all[..2],
        ),
        (
            "at the very age",
            delete(age(9, "MONTHS", None), json!({})),
            five(none),
            &all[..1],
        ),
        (
            "by weeks",
            delete(age(30, "WEEKS", None), json!({})),
            five(none),
            &all[..4],
        ),
        (
            "by years",
            delete(age(1, "YEARS", None), json!({})),
            five(none),
            &[],
        ),
        (
            "all are old, two stay",
            delete(age(1, "DAYS", Some(2)), json!({})),
            five(none),
            &all[..3],
        ),
        (
            "fewer than stay",
            delete(age(1, "DAYS", Some(10)), json!({})),
            five(none),
            &[],
        ),
        (
            "by count",
            delete(count(3), json!({})),
            five(none),
            &all[..2],
        ),
        (
            "by a count that is not reached",
            delete(count(5), json!({})),
            five(none),
            &[],
        ),
        (
            "a disabled one is no substitute",
            delete(count(1), json!({})),
            five(only(5, json!({"state": "disabled"}))),
            &all[..3],
        ),
        (
            "of another",
            delete(count(1), json!({})),
            five(only(1, json!({"owner": OTHER}))),
            &all[1..4],
        ),
        (
            "gone already",
            delete(count(1), json!({})),
            five(only(1, json!({"state": "deregistered"}))),
            &all[1..4],
        ),
        (
            "still being made",
            delete(count(1), json!({})),
            five(only(5, json!({"state": "pending"}))),
            &all[..3],
        ),
        (
            "protected",
            delete(count(3), json!({})),
            five(only(
                1,
                json!({"deregistrationProtection": "enabled-without-cooldown"}),
            )),
            &all[1..2],
        ),
        (
            "protected for a day more",
            delete(count(3), json!({})),
            five(only(
                1,
                json!({"deregistrationProtection": {"enabled-with-cooldown": {"offSince": "2026-11-27T13:00:00Z"}}}),
            )),
            &all[1..2],
        ),
        (
            "protected no more",
            delete(count(3), json!({})),
            five(only(
                1,
                json!({"deregistrationProtection": {"enabled-with-cooldown": {"offSince": "2026-11-27T12:00:00Z"}}}),
            )),
            &all[..2],
        ),
        (
            "excluded by tag",
            delete(count(3), json!({"tagMap": {"keep": "true"}})),
            five(only(1, json!({"tags": {"keep": "true"}}))),
            &all[1..2],
        ),
        (
            "tagged otherwise",
            delete(count(3), json!({"amis": {"tagMap": {"keep": "true"}}})),
            five(only(1, json!({"tags": {"keep": "false"}}))),
            &all[..2],
        ),
        (
            "public",
            delete(count(3), json!({"amis": {"isPublic": true}})),
            five(only(2, json!({"launchPermissions": ["all"]}))),
            &all[..1],
        ),
        (
            "shared with the account",
            delete(count(3), json!({"amis": {"sharedAccounts": [OTHER]}})),
            five(only(2, json!({"launchPermissions": [{"userId": OTHER}]}))),
            &all[..1],
        ),
        (
            "launched lately",
            delete(count(3), last.clone()),
            five(only(1, launched("2026-11-01T00:00:00Z"))),
            &all[1..2],
        ),
        (
            "launched long ago",
            delete(count(3), last),
            five(only(1, launched("2026-10-01T00:00:00Z"))),
            &all[..2],
        ),
    ] {
        assert_eq!(steps(&policy(&details), &state), expected, "{case}");
    }
}

#[test]
fn each_image_gets_the_strongest_action_that_applies() {
    let details = [
        detail("DEPRECATE", age(6, "MONTHS", None), json!({})),
        detail("DISABLE", age(8, "MONTHS", None), json!({})),
        detail("DELETE", age(9, "MONTHS", Some(2)), json!({})),
    ];
    let stronger_fails = five(|n| match n {
        1 => json!({"deregistrationProtection": "enabled-without-cooldown"}),
        2 => json!({"state": "disabled"}),
        3 => json!({"deprecationTime": "2026-06-01T00:00:00Z"}),
        4 => json!({"deprecationTime": "2027-06-01T00:00:00Z"}),
        _ => json!({}),
    });
    for (case, state, expected) in [
        (
            "plain",
            five(|_| json!({})),
            &["DEPRECATE 3", "DEPRECATE 4", "DISABLE 2", "DELETE 1"][..],
        ),
        (
            "the stronger fails, or nothing is left",
            stronger_fails,
            &["DEPRECATE 4", "DISABLE 1"],
        ),
    ] {
        assert_eq!(steps(&policy(&details), &state), expected, "{case}");
    }
    let plan = policy(&details).plan(
        &five(|_| json!({})),
        &caller(),
        time("2027-12-01T00:00:00Z"),
    );
    let kept: Vec<&str> = plan.kept.iter().map(|k| k.reason.as_str()).collect();
    assert_eq!(
        kept,
        ["older than 9 months, but one of the newest 2, which stay"; 2]
    );
    let off = LifecyclePolicy {
        status: Some("DISABLED".into()),
        ..policy(&details)
    };
    assert_eq!(
        off.plan(&five(|_| json!({})), &caller(), time(NOW)),
        LifecyclePlan::default()
    );
}

#[test]
fn selection() {
    let images = || {
        [
            built(1, "web", 1, json!({})),
            built(
                2,
                "web",
                2,
                json!({"build": {"recipe": "web", "version": "2.0.0", "parent": "p",
                "planId": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}),
            ),
            built(3, "db", 3, json!({"tags": {"role": "db", "stage": "test"}})),
            built(
                4,
                "db",
                4,
                json!({"region": "eu-west-1", "tags": {"role": "db"}}),
            ),
            image(
                5,
                json!({"tags": {"role": "db", "stage": "test"}, "creationDate": "2026-05-28T12:00:00Z"}),
            ),
            image(
                6,
                json!({"tags": {"role": "db", "stage": "test"}, "creationDate": "2026-06-28T12:00:00Z"}),
            ),
        ]
    };
    let recipe = |name: &str, version: &str| json!({"recipes": [{"name": name, "semanticVersion": version}]});
    let tags = |tags: Value| json!({"tagMap": tags});
    for (selection, exclusions, filter, expected) in [
        (
            recipe("web", "x.x.x"),
            json!({}),
            age(1, "DAYS", None),
            &["DISABLE 1", "DISABLE 2"][..],
        ),
        (
            recipe("web", "1.x.x"),
            json!({}),
            age(1, "DAYS", None),
            &["DISABLE 1"],
        ),
        (
            recipe("web", "1.2.0"),
            json!({}),
            age(1, "DAYS", None),
            &["DISABLE 1"],
        ),
        (recipe("web", "1.2"), json!({}), age(1, "DAYS", None), &[]),
        (recipe("w", "x.x.x"), json!({}), age(1, "DAYS", None), &[]),
        (
            tags(json!({"role": "db"})),
            json!({}),
            age(1, "DAYS", None),
            &["DISABLE 3", "DISABLE 4", "DISABLE 5", "DISABLE 6"],
        ),
        (
            tags(json!({"role": "db", "stage": "test"})),
            json!({}),
            age(1, "DAYS", None),
            &["DISABLE 3", "DISABLE 5", "DISABLE 6"],
        ),
        (
            tags(json!({"role": "db"})),
            json!({"amis": {"regions": ["eu-west-1"]}}),
            age(1, "DAYS", None),
            &["DISABLE 3", "DISABLE 5", "DISABLE 6"],
        ),
        // Each recipe of each region keeps its newest, and so do images of no recipe.
        (
            tags(json!({"role": "db"})),
            json!({}),
            count(1),
            &["DISABLE 5"],
        ),
    ] {
        let shown = format!("{selection} {exclusions} {filter}");
        let text = document(&[detail("DISABLE", filter, exclusions)], selection).to_string();
        let policy = LifecyclePolicy::from_json(&text).unwrap();
        assert_eq!(
            steps(&policy, &state(images(), [], [])),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn snapshots_go_when_nothing_needs_them() {
    let binned = json!({"state": "deregistered", "bin": {"entered": "2026-11-01T00:00:00Z", "exits": "2026-12-01T00:00:00Z"}});
    let mut shared_by_two =
        json!({"blockDeviceMappings": [mapping("/dev/xvda", 1), mapping("/dev/xvdb", 7)]});
    let images = [
        built(1, "web", 1, shared_by_two.take()),
        built(
            2,
            "web",
            2,
            json!({"blockDeviceMappings": [mapping("/dev/xvda", 2), mapping("/dev/xvdb", 7)]}),
        ),
        built(
            3,
            "web",
            3,
            json!({"blockDeviceMappings": [mapping("/dev/xvda", 3), mapping("/dev/xvdb", 8)]}),
        ),
        built(
            4,
            "web",
            4,
            json!({"blockDeviceMappings": [mapping("/dev/xvda", 4), mapping("/dev/xvdb", 9)]}),
        ),
        built(
            5,
            "web",
            5,
            json!({"blockDeviceMappings": [mapping("/dev/xvda", 5), mapping("/dev/xvdb", 8)]}),
        ),
        built(6, "db", 6, {
            let mut over = binned.clone();
            over["blockDeviceMappings"] = json!([mapping("/dev/xvda", 4)]);
            over
        }),
    ];
    let mut snapshots: Vec<_> = (1..=8).map(|n| snapshot(n, json!({}))).collect();
    snapshots[2] = snapshot(3, json!({"owner": OTHER}));
    let world = state(
        images,
        snapshots,
        [
            instance(1, 1, json!({})),
            instance(2, 1, json!({"state": "terminated"})),
        ],
    );
    let plan = policy(&[detail("DELETE", count(1), json!({}))]).plan(&world, &caller(), time(NOW));
    let found: Vec<(Vec<String>, Vec<String>)> = plan
        .steps
        .iter()
        .map(|s| {
            let deleted = s.snapshots.iter().map(ToString::to_string).collect();
            let kept = s
                .kept_snapshots
                .iter()
                .map(|k| format!("{}: {}", k.snapshot_id, k.reason))
                .collect();
            (deleted, kept)
        })
        .collect();
    let s = |n: u32| id("snap", n);
    assert_eq!(
        found,
        [
            (
                vec![s(1)],
                vec![format!("{}: {} uses it", s(7), id("ami", 2))]
            ),
            (vec![s(2), s(7)], vec![]),
            (
                vec![],
                vec![
                    format!("{}: it belongs to {OTHER}", s(3)),
                    format!("{}: {} uses it", s(8), id("ami", 5))
                ]
            ),
            (
                vec![],
                vec![
                    format!("{}: {} uses it", s(4), id("ami", 6)),
                    format!("{}: it is not there", s(9))
                ]
            ),
        ]
    );
    assert_eq!(
        plan.steps[0].notes,
        [format!(
            "launched from it, and left as they are: {}",
            id("i", 1)
        )]
    );
    assert_eq!(
        serde_json::to_value(&plan.steps[1]).unwrap(),
        json!({"image": id("ami", 2), "name": "image 2", "region": "us-east-1", "creationDate": "2026-02-28T12:00:00.000Z",
            "action": "DELETE", "reason": "not one of the newest 1", "snapshots": [s(2), s(7)]})
    );
    // Without them in the policy, all stay.
    let text = document(
        &[json!({"action": {"type": "DELETE"}, "filter": count(1)})],
        json!({"recipes": [{"name": "web", "semanticVersion": "x.x.x"}]}),
    );
    let plan =
        LifecyclePolicy::from_json(&text.to_string())
            .unwrap()
            .plan(&world, &caller(), time(NOW));
    assert!(plan.steps.iter().all(|s| s.snapshots.is_empty()));
    assert_eq!(plan.steps.len(), 4);
}

#[test]
fn sharing_that_ends_is_noted() {
    let world = five(|n| {
        if n == 1 {
            json!({"launchPermissions": ["all", {"userId": OTHER}]})
        } else {
            json!({})
        }
    });
    let plan = policy(&[detail("DISABLE", count(4), json!({}))]).plan(&world, &caller(), time(NOW));
    assert_eq!(
        plan.steps[0].notes,
        ["it is public: others lose it, and its launch permissions do not come back"]
    );
}

/// The canonical form that recipes' documents are turned into: all scalars are texts; and CloudFormation's capital letters.
#[test]
fn other_spellings() {
    let quoted = r#"{"executionRole":"lifecycle","name":"old images","policyDetails":[{"action":{"includeResources":{"amis":"true",
        "snapshots":"true"},"type":"DELETE"},"exclusionRules":{"amis":{"isPublic":"true","lastLaunched":{"unit":"DAYS","value":"365"},
        "regions":["eu-central-1"],"sharedAccounts":["123456789012"]},"tagMap":{"keep":"true"}},"filter":{"retainAtLeast":"2",
        "type":"AGE","unit":"MONTHS","value":"6"}},{"action":{"type":"DEPRECATE"},"filter":{"type":"COUNT","value":"10"}}],
        "resourceSelection":{"recipes":[{"name":"web","semanticVersion":"1.x.x"}]},"resourceType":"AMI_IMAGE","status":"ENABLED"}"#;
    let capital = r#"{"ExecutionRole":"lifecycle","Name":"old images","PolicyDetails":[{"Action":{"IncludeResources":{"Amis":true,
        "Snapshots":true},"Type":"DELETE"},"ExclusionRules":{"Amis":{"IsPublic":true,"LastLaunched":{"Unit":"DAYS","Value":365},
        "Regions":["eu-central-1"],"SharedAccounts":["123456789012"]},"TagMap":{"keep":"true"}},"Filter":{"RetainAtLeast":2,
        "Type":"AGE","Unit":"MONTHS","Value":6}},{"Action":{"Type":"DEPRECATE"},"Filter":{"Type":"COUNT","Value":10}}],
        "ResourceSelection":{"Recipes":[{"Name":"web","SemanticVersion":"1.x.x"}]},"ResourceType":"AMI_IMAGE","Status":"ENABLED"}"#;
    let read = LifecyclePolicy::from_json(quoted).unwrap();
    assert_eq!(read, LifecyclePolicy::from_json(capital).unwrap());
    assert_eq!(
        read.policy_details[0].filter,
        Filter::Age {
            value: 6,
            unit: TimeUnit::Months,
            retain_at_least: 2
        }
    );
    let accounts: Vec<&str> = read.policy_details[0]
        .exclusion_rules
        .amis
        .shared_accounts
        .iter()
        .map(|a| a.as_str())
        .collect();
    assert_eq!(accounts, [ME]);
}

#[test]
fn documents_that_are_refused() {
    let good = || {
        document(
            &[detail("DISABLE", count(1), json!({}))],
            json!({"tagMap": {"a": "b"}}),
        )
    };
    let with = |path: &str, value: Value| {
        let mut document = good();
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    for (document, message) in [
        (
            with("/resourceType", json!("CONTAINER_IMAGE")),
            "container images",
        ),
        (with("/policyDetails", json!([])), "one to three"),
        (
            with(
                "/policyDetails",
                json!([good()["policyDetails"][0], good()["policyDetails"][0]]),
            ),
            "same action",
        ),
        (
            with("/policyDetails/0/action", json!({"type": "ARCHIVE"})),
            "unknown variant",
        ),
        (
            with(
                "/policyDetails/0/action/includeResources",
                json!({"amis": true, "snapshots": true}),
            ),
            "can be deleted only",
        ),
        (
            with(
                "/policyDetails/0/action/includeResources",
                json!({"containers": true}),
            ),
            "no container images",
        ),
        (
            with(
                "/policyDetails/0/action",
                json!({"type": "DELETE", "includeResources": {"snapshots": true}}),
            ),
            "go with their images",
        ),
        (
            with(
                "/policyDetails/0/filter",
                json!({"type": "AGE", "value": 1}),
            ),
            "has a `unit`",
        ),
        (
            with("/policyDetails/0/filter", age(1, "DAYS", Some(11))),
            "1 to 10",
        ),
        (
            with("/policyDetails/0/filter", age(0, "DAYS", None)),
            "1 to 1000",
        ),
        (
            with("/policyDetails/0/filter", age(1, "HOURS", None)),
            "unknown variant",
        ),
        (
            with(
                "/policyDetails/0/filter",
                json!({"type": "COUNT", "value": 1, "unit": "DAYS"}),
            ),
            "neither",
        ),
        (
            with(
                "/policyDetails/0/filter",
                json!({"type": "SIZE", "value": 1}),
            ),
            "AGE or COUNT",
        ),
        (
            with(
                "/policyDetails/0/filter",
                json!({"type": "COUNT", "value": -1}),
            ),
            "not negative",
        ),
        (
            with(
                "/policyDetails/0/exclusionRules",
                json!({"amis": {"lastLaunched": {"value": 366, "unit": "DAYS"}}}),
            ),
            "1 to 365",
        ),
        (
            with(
                "/policyDetails/0/exclusionRules",
                json!({"amis": {"isPublic": 1}}),
            ),
            "true or false",
        ),
        (
            with(
                "/policyDetails/0/exclusionRules",
                json!({"amis": {"sharedAccounts": ["1"]}}),
            ),
            "12 digits",
        ),
        (with("/resourceSelection", json!({})), "either"),
        (
            with(
                "/resourceSelection",
                json!({"tagMap": {"a": "b"}, "recipes": [{"name": "a", "semanticVersion": "x.x.x"}]}),
            ),
            "either",
        ),
        (
            with("/resourceSelection", json!({"tags": {}})),
            "unknown field",
        ),
    ] {
        let error = LifecyclePolicy::from_json(&document.to_string()).unwrap_err();
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let shown = format!("{error}: {cause}");
        assert!(shown.contains(message), "{document}: {shown}");
        assert!(cause.is_empty() || cause.contains("line 1"), "{shown}");
    }
    assert!(matches!(
        LifecyclePolicy::from_json(&" ".repeat(70_000)),
        Err(PolicyError::TooLarge(70_000))
    ));
}

#[test]
fn what_aws_would_not_do() {
    let bare = json!({"action": {"type": "DELETE"}, "filter": count(1)});
    let found = policy(&[detail("DISABLE", count(1), json!({})), bare]).warnings();
    assert!(found[0].starts_with("policyDetails[0]: AWS takes a filter by COUNT with DELETE only"));
    assert!(found[1].starts_with("policyDetails[1]: without `includeResources`"));
    assert_eq!(
        policy(&[detail("DELETE", count(1), json!({}))]).warnings(),
        [] as [&str; 0]
    );
}
