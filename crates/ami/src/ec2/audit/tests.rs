use serde_json::json;

use super::*;
use crate::ec2::testing::{OTHER, caller, id, image, instance, state};

fn world() -> State {
    state(
        [
            image(1, json!({"tags": {"approved": "yes", "team": "web"}})),
            image(2, json!({})),
            image(3, json!({"owner": OTHER, "tags": {"approved": "yes"}})),
        ],
        [],
        [
            instance(1, 1, json!({})),
            instance(2, 2, json!({})),
            instance(3, 3, json!({"state": "pending"})),
            instance(4, 4, json!({})),
            instance(5, 2, json!({"state": "stopped"})),
            // To Config it is deleted: no rule says anything of it.
            instance(6, 2, json!({"state": "terminated"})),
            instance(7, 2, json!({"owner": OTHER})),
            instance(8, 2, json!({"region": "eu-west-1"})),
        ],
    )
}

#[test]
fn rules_over_instances() {
    use Compliance::{Compliant as Yes, NonCompliant as No, NotApplicable as Na};
    let ids = ApprovedIds::from_str(&format!("{}, {}", id("ami", 1), id("ami", 3))).unwrap();
    let tag = ApprovedTags::from_str("approved:yes").unwrap();
    let key = ApprovedTags::from_str("other:x,team").unwrap();
    let value = ApprovedTags::from_str("approved:no").unwrap();
    let amazon = |image: &Image| image.owner.as_str() == OTHER;
    let nobody = |_: &Image| false;
    for (rule, stopped, expected) in [
        (Rule::ApprovedById(&ids), false, [Yes, No, Yes, No, Na]),
        (Rule::ApprovedById(&ids), true, [Yes, No, Yes, No, No]),
        (Rule::ApprovedByTag(&tag), false, [Yes, No, No, No, Na]),
        (Rule::ApprovedByTag(&key), false, [Yes, No, No, No, Na]),
        (Rule::ApprovedByTag(&value), true, [No, No, No, No, No]),
        (
            Rule::LaunchedWithAllowedAmi(Some(&amazon)),
            false,
            [Yes, Yes, Yes, No, Na],
        ),
        (
            Rule::LaunchedWithAllowedAmi(Some(&nobody)),
            true,
            [Yes, Yes, No, No, Yes],
        ),
        (
            Rule::LaunchedWithAllowedAmi(None),
            true,
            [Na, Na, Na, Na, Na],
        ),
    ] {
        let found = audit(&world(), &caller(), &rule, Scope { stopped });
        let verdicts: Vec<Compliance> = found.iter().map(|e| e.compliance).collect();
        assert_eq!(verdicts, expected, "{rule:?}");
        assert_eq!(compliant(&found), !expected.contains(&No), "{rule:?}");
    }
    let found = audit(
        &world(),
        &caller(),
        &Rule::ApprovedByTag(&tag),
        Scope { stopped: false },
    );
    assert_eq!(
        serde_json::to_value(&found[2]).unwrap(),
        json!({"instanceId": id("i", 3), "imageId": id("ami", 3), "imageName": "image 3", "compliance": "NON_COMPLIANT",
            "reason": format!("{} is shared by {OTHER}, whose tags others do not see", id("ami", 3))})
    );
}

#[test]
fn parameters_have_limits() {
    let ids = |n: u32| (0..n).map(|i| id("ami", i)).collect::<Vec<_>>().join(",");
    for (text, good) in [
        (ids(1), true),
        (ids(46), true),
        (ids(47), false),
        ("ami-12345678".to_owned(), true),
        ("ami-1".into(), false),
        (String::new(), false),
        (" , ".into(), false),
    ] {
        assert_eq!(ApprovedIds::from_str(&text).is_ok(), good, "{text}");
    }
    let tags = |n: u32| {
        (0..n)
            .map(|i| format!("k{i}:v"))
            .collect::<Vec<_>>()
            .join(",")
    };
    for (text, good) in [
        (tags(10), true),
        (tags(11), false),
        ("a:b:c".to_owned(), true),
        (":b".into(), false),
        ("a:".into(), true),
        (String::new(), false),
        ("k".repeat(129), false),
        (format!("k:{}", "v".repeat(257)), false),
    ] {
        assert_eq!(ApprovedTags::from_str(&text).is_ok(), good, "{text}");
    }
}

#[test]
fn allowed_images_of_the_settings() {
    let now = crate::ec2::testing::time("2026-11-28T12:00:00Z");
    let place = (caller().account, caller().region);
    for (setting, expected) in [
        (json!({}), None),
        (
            json!({"allowedImages": {"state": "audit-mode", "imageCriteria": [{"imageProviders": [OTHER]}]}}),
            Some(true),
        ),
        (
            json!({"allowedImages": {"state": "enabled", "imageCriteria": [{"imageProviders": ["amazon"]}]}}),
            Some(false),
        ),
        (
            json!({"allowedImages": {"state": "disabled", "imageCriteria": [{"imageProviders": [OTHER]}]}}),
            None,
        ),
    ] {
        let mut world = world();
        world.settings.insert(
            place.clone(),
            serde_json::from_value(setting.clone()).unwrap(),
        );
        let me = caller();
        let allows = allowed_amis(&world, &me, now);
        let rule =
            Rule::LaunchedWithAllowedAmi(allows.as_ref().map(|f| f as &dyn Fn(&Image) -> bool));
        let found = audit(&world, &me, &rule, Scope { stopped: false });
        let third = match found[2].compliance {
            Compliance::Compliant => Some(true),
            Compliance::NonCompliant => Some(false),
            Compliance::NotApplicable => None,
        };
        assert_eq!(third, expected, "{setting}");
    }
}

#[test]
fn tags_that_the_account_gave_a_shared_image() {
    let mut world = world();
    let shared = world
        .images
        .get_mut(&id("ami", 3).parse().unwrap())
        .unwrap();
    let own = [("approved".to_owned(), "mine".to_owned())].into();
    shared.other_tags.insert(caller().account, own);
    let tags = ApprovedTags::from_str("approved:mine").unwrap();
    let found = audit(
        &world,
        &caller(),
        &Rule::ApprovedByTag(&tags),
        Scope { stopped: false },
    );
    assert_eq!(found[2].compliance, Compliance::Compliant);
}
