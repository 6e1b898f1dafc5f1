use serde_json::json;

use super::*;
use crate::ec2::{Image, Snapshot, Tags};
use amiforge_types::Timestamp;

const IMAGE: &str = "arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0";
const SUBNET: &str = "arn:aws:ec2:us-east-1:123456789012:subnet/subnet-1";

fn ann() -> Principal {
    Principal::user(&"123456789012".parse().unwrap(), "ann")
}

/// A document of version 2012-10-17 with these statements, one a line from line 2 on.
fn policy(kind: PolicyKind, statements: &[&str]) -> Policy {
    let text = format!(
        "{{\"Version\": \"2012-10-17\", \"Statement\": [\n{}\n]}}",
        statements.join(",\n")
    );
    match Policy::parse("p.json", kind, &text) {
        Ok(policy) => policy,
        Err(problems) => panic!("{text}\n{problems:?}"),
    }
}

fn request(action: &str, resource: &str, keys: &[(&str, &[&str])]) -> Request {
    let mut request = Request::new(&ann(), action, resource);
    for (key, values) in keys {
        request.context.set(key, values.iter().copied());
    }
    request
}

fn decide(statements: &[&str], request: &Request) -> Verdict {
    evaluate(&[policy(PolicyKind::Identity, statements)], request).verdict
}

const ALLOW_EC2: &str = r#"{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}"#;
const APPROVED: &str = r#"{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*",
    "Condition": {"StringEquals": {"ec2:ResourceTag/approved": "true"}}}"#;
const OWNER: &str = r#"{"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": "*",
    "Condition": {"StringNotEquals": {"ec2:Owner": ["123456789012"]}}}"#;
const OWNER_OF_IMAGES: &str = r#"{"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": "*",
    "Condition": {"StringNotEquals": {"ec2:Owner": ["123456789012"]}, "Null": {"ec2:ImageType": "false"}}}"#;

/// The vectors of the reference, and what else is decided.
#[test]
fn vectors() {
    use Verdict::{Allow, ExplicitDeny, ImplicitDeny};
    let deny_deregister = r#"{"Effect": "Deny", "Action": "ec2:DeregisterImage", "Resource": "*"}"#;
    let tag_keys = r#"{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*",
        "Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}}"#;
    let describe = r#"{"Effect": "Allow", "Action": "EC2:describe*", "Resource": "*"}"#;
    let prod = r#"{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*",
        "Condition": {"StringEquals": {"ec2:ResourceTag/env": "Prod"}}}"#;
    let not_action =
        r#"{"Effect": "Allow", "NotAction": ["ec2:Terminate*", "iam:*"], "Resource": "*"}"#;
    let not_resource =
        r#"{"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:ec2:us-east-1:*"}"#;
    let own_user = r#"{"Effect": "Allow", "Action": "iam:*", "Resource": "arn:aws:iam::*:user/${aws:username}"}"#;
    let unknown_variable =
        r#"{"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:ec2:::${aws:Nothing}"}"#;
    let deny_unknown = r#"{"Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"StringNotEquals": {"ec2:Owner": "${aws:Nothing}"}}}"#;
    let several_allow = r#"{"Effect": "Allow", "Action": "*", "Resource": "*",
        "Condition": {"StringNotEquals": {"aws:TagKeys": "a"}}}"#;
    let several_deny = r#"{"Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"StringEquals": {"aws:TagKeys": "a"}}}"#;
    let run = "ec2:RunInstances";
    let none: &[(&str, &[&str])] = &[];
    for (case, statements, action, resource, keys, expected) in [
        (
            "deny wins",
            &[ALLOW_EC2, deny_deregister][..],
            "ec2:DeregisterImage",
            IMAGE,
            none,
            ExplicitDeny,
        ),
        (
            "and elsewhere not",
            &[ALLOW_EC2, deny_deregister],
            "ec2:DisableImage",
            IMAGE,
            none,
            Allow,
        ),
        (
            "without the tag",
            &[APPROVED],
            run,
            IMAGE,
            none,
            ImplicitDeny,
        ),
        (
            "with the tag",
            &[APPROVED],
            run,
            IMAGE,
            &[("ec2:ResourceTag/Approved", &["true"])],
            Allow,
        ),
        (
            "the trap",
            &[ALLOW_EC2, OWNER],
            run,
            SUBNET,
            none,
            ExplicitDeny,
        ),
        (
            "the guard",
            &[ALLOW_EC2, OWNER_OF_IMAGES],
            run,
            SUBNET,
            none,
            Allow,
        ),
        (
            "guarded",
            &[ALLOW_EC2, OWNER_OF_IMAGES],
            run,
            IMAGE,
            &[("ec2:ImageType", &["machine"]), ("ec2:Owner", &["amazon"])],
            ExplicitDeny,
        ),
        (
            "no tags are all tags",
            &[tag_keys],
            "ec2:CreateTags",
            IMAGE,
            none,
            Allow,
        ),
        (
            "tags outside",
            &[tag_keys],
            "ec2:CreateTags",
            IMAGE,
            &[("aws:TagKeys", &["a", "c"])],
            ImplicitDeny,
        ),
        (
            "the case of actions",
            &[describe],
            "ec2:DescribeImages",
            "*",
            none,
            Allow,
        ),
        (
            "the case of values",
            &[prod],
            run,
            IMAGE,
            &[("ec2:ResourceTag/env", &["prod"])],
            ImplicitDeny,
        ),
        ("nothing", &[describe], run, IMAGE, none, ImplicitDeny),
        ("not these actions", &[not_action], run, IMAGE, none, Allow),
        (
            "these actions",
            &[not_action],
            "ec2:TerminateInstances",
            IMAGE,
            none,
            ImplicitDeny,
        ),
        (
            "elsewhere",
            &[ALLOW_EC2, not_resource],
            run,
            "arn:aws:ec2:eu-west-1::image/ami-1",
            none,
            ExplicitDeny,
        ),
        (
            "not elsewhere",
            &[ALLOW_EC2, not_resource],
            run,
            IMAGE,
            none,
            Allow,
        ),
        (
            "oneself",
            &[own_user],
            "iam:GetUser",
            "arn:aws:iam::123456789012:user/ann",
            none,
            Allow,
        ),
        (
            "another",
            &[own_user],
            "iam:GetUser",
            "arn:aws:iam::123456789012:user/bob",
            none,
            ImplicitDeny,
        ),
        (
            "no value, no allow",
            &[unknown_variable],
            run,
            IMAGE,
            none,
            ImplicitDeny,
        ),
        (
            "no value, still a deny",
            &[ALLOW_EC2, deny_unknown],
            run,
            IMAGE,
            &[("ec2:Owner", &["a"])],
            ExplicitDeny,
        ),
        (
            "several values do not allow",
            &[several_allow],
            run,
            IMAGE,
            &[("aws:TagKeys", &["b", "c"])],
            ImplicitDeny,
        ),
        (
            "several values deny",
            &[ALLOW_EC2, several_deny],
            run,
            IMAGE,
            &[("aws:TagKeys", &["b", "c"])],
            ExplicitDeny,
        ),
    ] {
        assert_eq!(
            decide(statements, &request(action, resource, keys)),
            expected,
            "{case}"
        );
    }
}

#[test]
fn the_older_version_has_no_variables() {
    let text = r#"{"Statement": {"Effect": "Allow", "Action": "iam:*", "Resource": "arn:aws:iam::1:user/${aws:username}"}}"#;
    let policy = Policy::parse("old", PolicyKind::Identity, text).unwrap();
    for (resource, expected) in [
        ("arn:aws:iam::1:user/ann", Verdict::ImplicitDeny),
        ("arn:aws:iam::1:user/${aws:username}", Verdict::Allow),
    ] {
        let found = evaluate(
            std::slice::from_ref(&policy),
            &request("iam:GetUser", resource, &[]),
        );
        assert_eq!(found.verdict, expected, "{resource}");
    }
}

/// Which kinds of policies must allow what: own account, other account, keys, limits and filters.
#[test]
fn kinds_of_policies() {
    use PolicyKind::{Boundary, Identity, Resource, ResourceControl, ServiceControl, Session};
    const ALL: &str = r#"{"Effect": "Allow", "Action": "*", "Resource": "*"}"#;
    const OTHER: &str = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}"#;
    const TO_ANN: &str = r#"{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/ann"}, "Action": "*"}"#;
    const TO_ACCOUNT: &str = r#"{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "*"}"#;
    const TO_BOB: &str = r#"{"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::123456789012:user/bob"]}, "Action": "*"}"#;
    const TO_ALL: &str = r#"{"Effect": "Allow", "Principal": "*", "Action": "*"}"#;
    const NOT_TO_BOB: &str = r#"{"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::123456789012:user/bob"}, "Action": "*"}"#;
    const OF_RESOURCES: &str =
        r#"{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}"#;
    let own = "123456789012";
    let foreign = "210987654321";
    for (case, policies, action, account, expected) in [
        (
            "identity alone",
            &[(Identity, ALL)][..],
            "s3:Get",
            own,
            None,
        ),
        ("resource alone", &[(Resource, TO_ANN)], "s3:Get", own, None),
        ("everybody", &[(Resource, TO_ALL)], "s3:Get", own, None),
        (
            "the account alone passes on",
            &[(Resource, TO_ACCOUNT)],
            "s3:Get",
            own,
            Some(Identity),
        ),
        (
            "another",
            &[(Resource, TO_BOB)],
            "s3:Get",
            own,
            Some(Identity),
        ),
        (
            "abroad, identity alone",
            &[(Identity, ALL)],
            "s3:Get",
            foreign,
            Some(Resource),
        ),
        (
            "abroad, resource alone",
            &[(Resource, TO_ANN)],
            "s3:Get",
            foreign,
            Some(Identity),
        ),
        (
            "abroad, both",
            &[(Identity, ALL), (Resource, TO_ACCOUNT)],
            "s3:Get",
            foreign,
            None,
        ),
        (
            "a key, identity alone",
            &[(Identity, ALL)],
            "kms:Decrypt",
            own,
            Some(Resource),
        ),
        (
            "a key that passes on",
            &[(Identity, ALL), (Resource, TO_ACCOUNT)],
            "KMS:Decrypt",
            own,
            None,
        ),
        (
            "a key that passes on to nobody",
            &[(Resource, TO_ACCOUNT)],
            "kms:Decrypt",
            own,
            Some(Identity),
        ),
        (
            "a key's own word",
            &[(Resource, TO_ANN)],
            "kms:Decrypt",
            own,
            None,
        ),
        (
            "a boundary",
            &[(Identity, ALL), (Boundary, OTHER)],
            "ec2:Run",
            own,
            Some(Boundary),
        ),
        (
            "within a boundary",
            &[(Identity, ALL), (Boundary, OTHER)],
            "s3:Get",
            own,
            None,
        ),
        (
            "a boundary alone",
            &[(Boundary, ALL)],
            "s3:Get",
            own,
            Some(Identity),
        ),
        (
            "a session",
            &[(Identity, ALL), (Session, OTHER)],
            "ec2:Run",
            own,
            Some(Session),
        ),
        (
            "a level",
            &[
                (Identity, ALL),
                (ServiceControl(0), ALL),
                (ServiceControl(1), OTHER),
            ],
            "ec2:Run",
            own,
            Some(ServiceControl(1)),
        ),
        (
            "all levels",
            &[
                (Identity, ALL),
                (ServiceControl(0), ALL),
                (ServiceControl(1), OTHER),
            ],
            "s3:Get",
            own,
            None,
        ),
        (
            "of resources",
            &[(Identity, ALL), (ResourceControl(0), OF_RESOURCES)],
            "s3:Get",
            own,
            None,
        ),
    ] {
        let policies: Vec<Policy> = policies
            .iter()
            .map(|(kind, text)| policy(*kind, &[text]))
            .collect();
        let mut request = request(action, "arn:aws:s3:::b/k", &[]);
        request.resource_account = Some(account.parse().unwrap());
        let found = evaluate(&policies, &request);
        assert_eq!(found.lacking, expected, "{case}");
        assert_eq!(found.allowed(), expected.is_none(), "{case}");
        let denied = [policies, vec![policy(Resource, &[NOT_TO_BOB])]].concat();
        assert_eq!(
            evaluate(&denied, &request).verdict,
            Verdict::ExplicitDeny,
            "{case}"
        );
    }
    let role = Principal::session(&own.parse().unwrap(), "deploy/Images", "s1");
    let to_role = r#"{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:role/deploy/Images"}, "Action": "*"}"#;
    let found = evaluate(
        &[policy(Resource, &[to_role])],
        &Request::new(&role, "s3:Get", "*"),
    );
    assert!(found.allowed());
    let root = Principal::root(&own.parse().unwrap());
    let found = evaluate(
        &[policy(Resource, &[TO_ACCOUNT])],
        &Request::new(&root, "s3:Get", "*"),
    );
    assert!(found.allowed());
}

#[test]
fn decisions_name_their_statements() {
    let deny = r#"{"Sid": "NoDeletes", "Effect": "Deny", "Action": "ec2:Dereg*", "Resource": "*"}"#;
    let policies = [policy(PolicyKind::Identity, &[ALLOW_EC2, deny])];
    let found = evaluate(&policies, &request("ec2:DeregisterImage", IMAGE, &[]));
    assert_eq!(
        serde_json::to_value(&found).unwrap(),
        json!({"verdict": "explicitDeny", "deciding": [{"policy": 0, "policyName": "p.json", "policyKind": "identity",
            "statement": 2, "sid": "NoDeletes", "line": 3, "column": 1}]})
    );
    assert_eq!(
        found.deciding[0].to_string(),
        "p.json:3:1, statement 2 \"NoDeletes\""
    );

    let policies = [policy(PolicyKind::Identity, &[APPROVED])];
    let found = evaluate(&policies, &request("ec2:RunInstances", IMAGE, &[]));
    assert_eq!(
        found.misses[0].why,
        "StringEquals: ec2:ResourceTag/approved is absent"
    );
    let asked = [request("ec2:RunInstances", IMAGE, &[])];
    assert_eq!(
        authorize(&policies, &asked).unwrap_err().to_string(),
        "UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ann is not \
         authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0 because no \
         identity-based policy allows the ec2:RunInstances action (p.json:2:1, statement 1: StringEquals: ec2:ResourceTag/approved is absent)"
    );
    let found = evaluate(&policies, &request("ec2:RunInstances", SUBNET, &[]));
    assert_eq!(found.misses[0].why, "Resource is arn:aws:ec2:*::image/*");
}

#[test]
fn problems_of_documents() {
    let statement =
        |members: &str| format!("{{\"Version\": \"2012-10-17\", \"Statement\": {{{members}}}}}");
    let good = r#""Effect": "Allow", "Action": "ec2:*", "Resource": "*""#;
    for (text, code, message) in [
        ("[]".to_owned(), "policy-type", "expected a policy document"),
        ("{}".into(), "policy-missing", "no `Statement`"),
        (
            r#"{"Version": "2012-10-18", "Statement": []}"#.into(),
            "policy-version",
            "2012-10-18",
        ),
        (
            r#"{"statement": []}"#.into(),
            "policy-unknown-element",
            "statement",
        ),
        (
            r#"{"Statement": []}"#.into(),
            "policy-empty",
            "at least one",
        ),
        (
            r#"{"Statement": ["x"]}"#.into(),
            "policy-type",
            "a statement, an object",
        ),
        (
            statement(r#""Action": "ec2:*", "Resource": "*""#),
            "policy-missing",
            "`Effect`",
        ),
        (
            statement(r#""Effect": "allow", "Action": "ec2:*", "Resource": "*""#),
            "policy-effect",
            "\"allow\"",
        ),
        (
            statement(r#""Effect": "Allow", "Resource": "*""#),
            "policy-missing",
            "`NotAction`",
        ),
        (
            statement(r#""Effect": "Allow", "Action": "ec2:*""#),
            "policy-missing",
            "`NotResource`",
        ),
        (
            statement(&format!("{good}, \"NotAction\": \"s3:*\"")),
            "policy-both",
            "not both",
        ),
        (
            statement(&format!("{good}, \"Principal\": \"*\"")),
            "policy-principal",
            "names no principal",
        ),
        (
            statement(&format!("{good}, \"Sids\": \"x\"")),
            "policy-unknown-element",
            "Sids",
        ),
        (
            statement(r#""Effect": "Allow", "Action": [], "Resource": "*""#),
            "policy-empty",
            "empty list",
        ),
        (
            statement(r#""Effect": "Allow", "Action": "RunInstances", "Resource": "*""#),
            "policy-action",
            "RunInstances",
        ),
        (
            statement(r#""Effect": "Allow", "Action": "e*:Run", "Resource": "*""#),
            "policy-action",
            "after the colon",
        ),
        (
            statement(r#""Effect": "Allow", "Action": 1, "Resource": "*""#),
            "policy-type",
            "found a number",
        ),
        (
            statement(r#""Effect": "Allow", "Action": "ec2:*", "Resource": "ami-1""#),
            "policy-resource",
            "neither an ARN",
        ),
        (
            statement(
                r#""Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:*:us-east-1::image/x""#,
            ),
            "policy-resource",
            "no service",
        ),
        (
            statement(
                r#""Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:ec2:us-east-1""#,
            ),
            "policy-resource",
            "six segments",
        ),
        (
            statement(
                r#""Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:s3:::${user}""#,
            ),
            "policy-variable",
            "no variable",
        ),
        (
            statement(&format!("{good}, \"Condition\": {{\"StringIs\": {{}}}}")),
            "policy-operator",
            "StringIs",
        ),
        (
            statement(&format!(
                "{good}, \"Condition\": {{\"Bool\": {{\"a:b\": \"maybe\"}}}}"
            )),
            "policy-value",
            "maybe",
        ),
        (
            statement(&format!(
                "{good}, \"Condition\": {{\"Bool\": {{\"b\": true}}}}"
            )),
            "policy-key",
            "\"b\"",
        ),
        (
            statement(&format!(
                "{good}, \"Condition\": {{\"Bool\": {{\"a:b\": {{}}}}}}"
            )),
            "policy-type",
            "found an object",
        ),
        (
            r#"{"Statement": [{"Sid": "a", "Effect": "Deny", "Action": "*", "Resource": "*"},
            {"Sid": "a", "Effect": "Deny", "Action": "*", "Resource": "*"}]}"#
                .into(),
            "policy-duplicate-sid",
            "\"a\"",
        ),
    ] {
        let found = Policy::parse("p", PolicyKind::Identity, &text).unwrap_err();
        let good = found
            .iter()
            .any(|d| d.code == code && d.message.contains(message) && d.span.is_some());
        assert!(good, "{text}: {found:?}");
    }
    // All problems at once, in order.
    let text =
        "{\"Statement\": {\n\"Effect\": \"Perhaps\",\n\"Action\": \"x\",\n\"Resource\": \"y\"}}";
    let found = Policy::parse("p", PolicyKind::Identity, text).unwrap_err();
    let lines: Vec<u32> = found.iter().map(|d| d.span.unwrap().start.line).collect();
    assert_eq!(lines, [2, 3, 4]);
}

fn image(owner: &str) -> Image {
    serde_json::from_value(json!({
        "imageId": "ami-0123456789abcdef0", "name": "web", "owner": owner, "region": "us-east-1", "state": "available",
        "creationDate": "2026-11-01T00:00:00Z", "architecture": "x86_64", "rootDeviceType": "ebs", "rootDeviceName": "/dev/xvda",
        "blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"snapshotId": "snap-0123456789abcdef0", "volumeSize": 8,
            "volumeType": "gp3", "deleteOnTermination": true}}],
        "platformDetails": "Linux/UNIX", "usageOperation": "RunInstances", "tags": {"approved": "true"},
        "launchPermissions": ["all"],
    }))
    .unwrap()
}

fn snapshot(owner: &str) -> Snapshot {
    serde_json::from_value(json!({
        "snapshotId": "snap-0123456789abcdef0", "owner": owner, "region": "us-east-1", "volumeId": "vol-0123456789abcdef0",
        "state": "completed", "startTime": "2026-11-01T00:00:00Z", "volumeSize": 8,
        "map": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "blocks": 10, "changedBlocks": 10,
        "tags": {"approved": "true"},
    }))
    .unwrap()
}

/// The requests of a launch, as `action resource` lines with chosen keys.
fn launch(owner: &str, tags: &LaunchTags) -> Vec<Request> {
    let image = image(owner);
    let snapshot = snapshot(owner);
    let snapshots = [(snapshot.snapshot_id.clone(), snapshot)].into();
    let ann = ann();
    let region = image.region.clone();
    let network = LocalNetwork::of(&ann.account, &region);
    let options = serde_json::from_value(json!({"httpEndpoint": true, "httpTokens": "required",
        "httpPutResponseHopLimit": 2, "instanceMetadataTags": false}))
    .unwrap();
    let wishes = LaunchWishes {
        instance_type: "t3.micro",
        availability_zone: "us-east-1a",
        key_name: Some("ann"),
        metadata_options: &options,
        mappings: &image.block_device_mappings,
        encryption_by_default: false,
        public_address: false,
        network: &network,
    };
    launch_requests(
        &ann,
        &region,
        &image,
        &snapshots,
        &wishes,
        tags,
        Timestamp::from_secs(0),
    )
}

#[test]
fn a_launch_asks_for_every_resource() {
    let tags = LaunchTags {
        instance: Tags::from([("team".into(), "web".into())]),
        ..LaunchTags::default()
    };
    let requests = launch("123456789012", &tags);
    let network = LocalNetwork::of(
        &"123456789012".parse().unwrap(),
        &"us-east-1".parse().unwrap(),
    );
    let lines: Vec<String> = requests
        .iter()
        .map(|r| format!("{} {}", r.action, r.resource))
        .collect();
    let own = "ec2:RunInstances arn:aws:ec2:us-east-1:123456789012";
    assert_eq!(
        lines,
        [
            "ec2:RunInstances arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0".to_owned(),
            "ec2:RunInstances arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0".to_owned(),
            format!("{own}:instance/*"),
            format!("{own}:volume/*"),
            format!("{own}:network-interface/*"),
            format!("{own}:subnet/{}", network.subnet),
            format!("{own}:security-group/{}", network.security_group),
            format!("{own}:key-pair/ann"),
            "ec2:CreateTags arn:aws:ec2:us-east-1:123456789012:instance/*".to_owned(),
        ]
    );
    for (at, key, expected) in [
        (0, "ec2:ImageID", Some("ami-0123456789abcdef0")),
        (0, "ec2:Owner", Some("123456789012")),
        (0, "ec2:Public", Some("true")),
        (0, "ec2:RootDeviceType", Some("ebs")),
        (0, "ec2:ResourceTag/approved", Some("true")),
        (0, "aws:RequestTag/team", None),
        (
            1,
            "ec2:ParentVolume",
            Some("arn:aws:ec2:us-east-1:123456789012:volume/vol-0123456789abcdef0"),
        ),
        (1, "ec2:VolumeSize", Some("8")),
        (2, "ec2:InstanceType", Some("t3.micro")),
        (2, "ec2:MetadataHttpTokens", Some("required")),
        (2, "aws:RequestTag/team", Some("web")),
        (2, "aws:TagKeys", Some("team")),
        (
            3,
            "ec2:ParentSnapshot",
            Some("arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0"),
        ),
        (3, "ec2:Encrypted", Some("false")),
        (3, "ec2:VolumeType", Some("gp3")),
        (5, "ec2:ImageType", None),
        (7, "ec2:KeyPairName", Some("ann")),
        (8, "ec2:CreateAction", Some("RunInstances")),
        (8, "aws:username", Some("ann")),
        (8, "aws:CurrentTime", Some("1970-01-01T00:00:00Z")),
    ] {
        let found = requests[at].context.get(key).map(|v| v[0].as_str());
        assert_eq!(found, expected, "{key} of {}", lines[at]);
    }
}

/// The patterns of the user guide over whole launches.
#[test]
fn launches_are_authorized() {
    let approved = [
        APPROVED,
        r#"{"Effect": "Allow", "Action": "ec2:RunInstances", "NotResource": "arn:aws:ec2:*::image/*"}"#,
    ];
    let no_tags = LaunchTags::default();
    for (case, statements, owner, expected) in [
        ("own, approved", &approved[..], "123456789012", Ok(())),
        (
            "shared: its tags are not seen",
            &approved,
            "210987654321",
            Err("ec2:ResourceTag/approved is absent"),
        ),
        (
            "the trap",
            &[ALLOW_EC2, OWNER],
            "123456789012",
            Err(
                "instance/* with an explicit deny in an identity-based policy (p.json:3:1, statement 2)",
            ),
        ),
        (
            "the guard",
            &[ALLOW_EC2, OWNER_OF_IMAGES],
            "123456789012",
            Ok(()),
        ),
        (
            "guarded",
            &[ALLOW_EC2, OWNER_OF_IMAGES],
            "210987654321",
            Err("image/ami-0123456789abcdef0 with an explicit deny"),
        ),
    ] {
        let found = authorize(
            &[policy(PolicyKind::Identity, statements)],
            &launch(owner, &no_tags),
        );
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(message)) => {
                assert!(error.message.contains(message), "{case}: {error}")
            }
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
}

#[test]
fn calls_of_an_images_life() {
    let (image, snapshot) = (image("123456789012"), snapshot("123456789012"));
    let tags = Tags::from([("team".into(), "web".into())]);
    let no_tags = Tags::new();
    let image_line = format!("{} {IMAGE}", "ec2:DeregisterImage");
    for (call, expected) in [
        (
            ImageCall::On {
                operation: "DeregisterImage",
                image: &image,
                snapshots: vec![&snapshot],
            },
            vec![
                image_line.as_str(),
                "ec2:DeregisterImage arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0",
            ],
        ),
        (
            ImageCall::Tag {
                operation: "CreateTags",
                image: &image,
                tags: &tags,
            },
            vec!["ec2:CreateTags arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0"],
        ),
        (
            ImageCall::Copy {
                source: &image,
                snapshots: vec![&snapshot],
                image_tags: &tags,
                snapshot_tags: &no_tags,
            },
            vec![
                "ec2:CopyImage arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0",
                "ec2:CopyImage arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0",
                "ec2:CopyImage arn:aws:ec2:eu-west-1::image/*",
                "ec2:CopyImage arn:aws:ec2:eu-west-1::snapshot/*",
                "ec2:CreateTags arn:aws:ec2:eu-west-1::image/*",
            ],
        ),
        (
            ImageCall::Register {
                snapshots: vec![&snapshot],
                root: image.root_device_type,
                image_tags: &no_tags,
            },
            vec![
                "ec2:RegisterImage arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0",
                "ec2:RegisterImage arn:aws:ec2:eu-west-1::image/*",
            ],
        ),
    ] {
        let region = "eu-west-1".parse().unwrap();
        let requests = image_requests(&ann(), &region, &call, Timestamp::from_secs(0));
        let lines: Vec<String> = requests
            .iter()
            .map(|r| format!("{} {}", r.action, r.resource))
            .collect();
        assert_eq!(lines, expected);
        let ids = requests
            .iter()
            .filter(|r| r.context.get("ec2:ImageID").is_some())
            .count();
        let existing = matches!(call, ImageCall::On { .. } | ImageCall::Tag { .. });
        assert_eq!(ids, usize::from(existing));
    }
}
