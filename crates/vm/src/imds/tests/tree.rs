use std::collections::BTreeMap;

use amiforge_ami::CreationDate;
use amiforge_ami::ec2::Region;
use amiforge_types::Timestamp;

use super::{instance, metadata};
use crate::imds::places::{partition, private_host, zone_id};
use crate::imds::{Found, Metadata, SpotAction, SpotNotice, Tree};

/// Everything below `path`, fetched as cloud-init's `MetadataMaterializer` does: names without spaces around them, `0=name`
/// as a public key. A name that does not resolve panics.
fn crawl(tree: &Tree, path: &str, into: &mut BTreeMap<String, String>) {
    let Some(Found::Listing(names)) = tree.get(path) else {
        panic!("{path} is listed as a folder and is none");
    };
    for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
        if let Some(folder) = name.strip_suffix('/') {
            crawl(tree, &format!("{path}/{folder}"), into);
            continue;
        }
        let resource = match name.split_once('=') {
            Some((ident, _)) if ident.trim().parse::<i64>().is_ok() => {
                format!("{}/openssh-key", ident.trim())
            }
            _ => name.to_owned(),
        };
        let Some(Found::Text(text)) = tree.get(&format!("{path}/{resource}")) else {
            panic!("{path}/{name} is listed, and {resource} is not found");
        };
        into.insert(format!("{path}/{name}"), text.to_owned());
    }
}

fn crawled(metadata: &Metadata) -> BTreeMap<String, String> {
    let tree = Tree::of(metadata);
    let mut all = BTreeMap::new();
    crawl(&tree, "meta-data", &mut all);
    crawl(&tree, "dynamic", &mut all);
    all
}

#[test]
fn every_listed_name_is_found() {
    let all = crawled(&metadata());
    for (path, expected) in [
        ("ami-id", "ami-0123456789abcdef0"),
        ("ami-manifest-path", "(unknown)"),
        ("block-device-mapping/ami", "xvda"),
        ("block-device-mapping/root", "/dev/xvda"),
        ("block-device-mapping/ebs1", "sdf"),
        ("block-device-mapping/ephemeral0", "sdb"),
        ("hostname", "ip-169-255-16-10.ec2.internal"),
        ("mac", "02:ab:cd:00:00:01"),
        ("public-keys/0=my key", "ssh-ed25519 AAAAC3Nza me@here"),
        ("placement/availability-zone-id", "use1-az1"),
        ("services/domain", "amazonaws.com"),
        ("tags/instance/Name", "web"),
        ("tags/instance/cost center", "12/3 ü"),
        (
            "network/interfaces/macs/02:ab:cd:00:00:01/subnet-ipv4-cidr-block",
            "169.255.16.0/20",
        ),
        (
            "network/interfaces/macs/02:ab:cd:00:00:01/vpc-ipv4-cidr-block",
            "169.255.0.0/16",
        ),
    ] {
        let found = all.get(&format!("meta-data/{path}"));
        assert_eq!(found.map(String::as_str), Some(expected), "{path}");
    }
    assert!(all.values().all(|text| !text.ends_with('\n')));
    assert!(!all.keys().any(|path| path.contains("public-ipv4")));
}

#[test]
fn a_full_tree_is_found_too() {
    let time = CreationDate::new(Timestamp::from_secs(1_790_000_000));
    let mut full = metadata();
    full.public = Some(("203.0.113.7".into(), "ec2-203-0-113-7".into()));
    full.spot = Some(SpotNotice {
        action: SpotAction::Terminate,
        time,
    });
    full.rebalance = Some(time);
    full.product_codes = vec!["a".into(), "b".into()];
    full.lifecycle_state = Some("InService".into());
    full.ancestor_image_ids = vec!["ami-0123456789abcdef1".parse().unwrap()];
    let all = crawled(&full);
    assert_eq!(all["meta-data/product-codes"], "a\nb");
    assert!(all.contains_key(
        "meta-data/network/interfaces/macs/02:ab:cd:00:00:01/ipv4-associations/203.0.113.7"
    ));
}

#[test]
fn keys_of_tags_may_be_almost_anything() {
    let mut strange = metadata();
    let keys = [
        "a/b",
        "a//b/c",
        "/lead",
        " spaces ",
        "=",
        "a=b",
        "0=x",
        " 7 = y",
        "ü€",
        "%20",
        "a?b#c",
        "user-data",
        "x y",
        ":@+.-_",
        "security-credentials",
    ];
    strange.tags = keys
        .iter()
        .map(|key| ((*key).to_owned(), format!("value of {key}")))
        .collect();
    for bad in [
        "",
        " ",
        "end/",
        "/",
        ".",
        "..",
        "a/../b",
        "two\nlines",
        "\0",
    ] {
        strange.tags.insert(bad.to_owned(), "unseen".to_owned());
    }
    let all = crawled(&strange);
    let values: Vec<&str> = all
        .iter()
        .filter(|(path, _)| path.starts_with("meta-data/tags/instance/"))
        .map(|(_, value)| value.as_str())
        .collect();
    for key in keys {
        assert!(
            values.contains(&format!("value of {key}").as_str()),
            "{key}"
        );
    }
    assert!(!values.contains(&"unseen"));
    strange.tags.clear();
    assert!(!crawled(&strange).keys().any(|path| path.contains("tags")));
}

#[test]
fn the_identity_document_is_laid_out_as_that_of_aws() {
    let document = metadata().identity_document();
    assert!(
        document.starts_with(
            "{\n  \"accountId\" : \"123456789012\",\n  \"architecture\" : \"x86_64\",\n"
        )
    );
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(value["version"], "2017-09-30");
    assert_eq!(value["pendingTime"], "2026-09-21T14:13:20Z");
    assert_eq!(value["billingProducts"], serde_json::Value::Null);
    assert_eq!(value["privateIp"], "169.255.16.10");
    assert_eq!(value.as_object().unwrap().len(), 15);
}

#[test]
fn user_data_that_is_no_base64_is_an_error() {
    let mut instance = instance();
    instance.user_data = Some("*".into());
    assert!(Metadata::of(&instance, None).is_err());
    instance.user_data = Some(String::new());
    assert_eq!(Metadata::of(&instance, None).unwrap().user_data, None);
}

#[test]
fn regions_have_partitions_and_short_zones() {
    for (region, part, zone) in [
        ("us-east-1", "aws", "use1-az2"),
        ("eu-central-1", "aws", "euc1-az2"),
        ("ap-southeast-2", "aws", "apse2-az2"),
        ("ap-northeast-1", "aws", "apne1-az2"),
        ("us-gov-west-1", "aws-us-gov", "usgw1-az2"),
        ("cn-north-1", "aws-cn", "cnn1-az2"),
        ("my-own-3", "aws", "myo3-az2"),
    ] {
        let name: Region = region.parse().unwrap();
        assert_eq!(partition(&name), part);
        assert_eq!(zone_id(&name, &format!("{region}b")).as_deref(), Some(zone));
        assert_eq!(zone_id(&name, "elsewhere"), None);
        let host = match region {
            "us-east-1" => "ip-10-0-0-1.ec2.internal".to_owned(),
            region => format!("ip-10-0-0-1.{region}.compute.internal"),
        };
        assert_eq!(private_host(&name, "10.0.0.1"), host);
    }
}
