use std::time::Duration;

use amiforge_ami::CreationDate;
use amiforge_ami::ec2::HttpTokens;
use amiforge_types::Timestamp;

use super::metadata;
use crate::imds::{Request, Response, Service, SpotAction, SpotNotice};

const NOW: Duration = Duration::from_secs(1000);
const TOKEN: &str = "X-aws-ec2-metadata-token";
const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";

fn service(change: impl FnOnce(&mut crate::imds::Metadata)) -> Service {
    let mut service = Service::new(metadata(), [7; 32]);
    service.update(change);
    service
}

fn v1() -> Service {
    service(|m| m.options.http_tokens = HttpTokens::Optional)
}

fn put(ttl: &str) -> Request {
    Request::new("PUT", "/latest/api/token").with_header(TTL, ttl)
}

fn token(service: &mut Service, ttl: &str) -> String {
    let response = service.respond(&put(ttl), NOW);
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap()
}

fn text(response: Response) -> String {
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap()
}

#[test]
fn tokens_are_given_for_up_to_six_hours() {
    let mut service = service(|_| {});
    for (ttl, status) in [
        ("1", 200),
        ("21600", 200),
        ("0", 400),
        ("21601", 400),
        ("-1", 400),
        ("+1", 400),
        ("1.5", 400),
        ("", 400),
        ("99999999999999999999999", 400),
        ("a", 400),
    ] {
        let response = service.respond(&put(ttl), NOW);
        assert_eq!(response.status, status, "{ttl:?}");
        if status == 200 {
            assert_eq!(response.content_type, "text/plain");
            let echo = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", ttl.to_owned());
            assert_eq!(response.headers, [echo]);
        }
    }
    let none = Request::new("PUT", "/latest/api/token");
    assert_eq!(service.respond(&none, NOW).status, 400);
    let again = put("60").with_header("x-forwarded-for", "10.0.0.1");
    assert_eq!(service.respond(&again, NOW).status, 403);
    assert_ne!(token(&mut service, "60"), token(&mut service, "60"));
}

#[test]
fn a_token_is_good_until_its_end_and_only_here() {
    let mut service = service(|_| {});
    let token = token(&mut service, "60");
    let get =
        |token: &str| Request::new("GET", "/latest/meta-data/ami-id").with_header(TOKEN, token);
    let after = |ms| NOW + Duration::from_millis(ms);
    for (text, now, status) in [
        (token.as_str(), NOW, 200),
        (&token, after(59_999), 200),
        (&token, after(60_000), 401),
        ("", NOW, 401),
        ("nonsense", NOW, 401),
        (&token[1..], NOW, 401),
        (&token.replacen(&token[..1], "_", 1), NOW, 401),
        (&"A".repeat(64), NOW, 401),
        (&"A".repeat(100_000), NOW, 401),
    ] {
        assert_eq!(
            service.respond(&get(text), now).status,
            status,
            "{text:.70}"
        );
    }
    let mut other = Service::new(metadata(), [8; 32]);
    assert_eq!(other.respond(&get(&token), NOW).status, 401);
    // A wrong token is refused also where none is needed.
    assert_eq!(v1().respond(&get("nonsense"), NOW).status, 401);
}

#[test]
fn without_a_token_it_depends_on_the_options() {
    let get = Request::new("GET", "/latest/meta-data/ami-id");
    assert_eq!(service(|_| {}).respond(&get, NOW).status, 401);
    assert_eq!(text(v1().respond(&get, NOW)), "ami-0123456789abcdef0");
    let mut off = service(|m| m.options.http_endpoint = false);
    for request in [
        get,
        put("60"),
        Request::new("GET", "/%"),
        Request::new("POST", "/"),
    ] {
        assert_eq!(off.respond(&request, NOW).status, 403);
    }
}

#[test]
fn methods_and_paths() {
    let mut service = v1();
    for (method, target, status) in [
        ("GET", "/", 200),
        ("GET", "", 200),
        ("GET", "/latest", 200),
        ("GET", "/latest/", 200),
        ("GET", "//latest///meta-data//ami-id", 200),
        ("GET", "/latest/meta-data/ami-id/", 200),
        ("GET", "/latest/meta%2ddata/ami-id?x=y", 200),
        ("GET", "/2021-03-23/meta-data/instance-id", 200),
        ("GET", "/1.0/meta-data/instance-id", 200),
        ("GET", "/2009-04-04/user-data", 200),
        ("HEAD", "/latest/meta-data/ami-id", 200),
        ("HEAD", "/latest/meta-data/nothing", 404),
        ("GET", "/1999-01-01/meta-data/instance-id", 404),
        ("GET", "/latest/meta-data/nothing", 404),
        ("GET", "/latest/meta-data/ami-id/below", 404),
        ("GET", "/latest/meta-data/../meta-data/ami-id", 404),
        (
            "GET",
            "/latest/meta-data/events/recommendations/rebalance",
            404,
        ),
        ("GET", "/latest/meta-data/spot/instance-action", 404),
        ("GET", "/latest/meta-data/public-ipv4", 404),
        ("GET", "/latest/meta-data/iam/info", 404),
        ("GET", "/%", 400),
        ("GET", "/%zz", 400),
        ("GET", "/%00", 400),
        ("GET", "/%ff", 400),
        ("GET", "/latest/api/token", 405),
        ("POST", "/latest/api/token", 405),
        ("POST", "/latest/meta-data/ami-id", 405),
        ("DELETE", "/", 405),
        ("PUT", "/latest/meta-data/ami-id", 405),
        ("PUT", "/2021-03-23/api/token", 403),
        ("BREW", "/", 405),
    ] {
        let response = service.respond(&Request::new(method, target), NOW);
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(
            response.body.is_empty(),
            method == "HEAD",
            "{method} {target}"
        );
        assert_ne!(response.content_length, 0, "{method} {target}");
    }
}

#[test]
fn user_data_is_bytes_or_not_there() {
    let get = Request::new("GET", "/latest/user-data");
    let response = v1().respond(&get, NOW);
    assert_eq!(response.content_type, "application/octet-stream");
    assert_eq!(response.body, b"#!/bin/sh\necho hi\n\0\xff");
    let mut none = v1();
    none.update(|m| m.user_data = None);
    assert_eq!(none.respond(&get, NOW).status, 404);
    let list = none.respond(&Request::new("GET", "/latest"), NOW);
    assert_eq!(text(list), "dynamic/\nmeta-data/");
}

#[test]
fn what_changes_while_it_runs_is_told() {
    let mut service = v1();
    let get = |service: &mut Service, path: &str| {
        service.respond(
            &Request::new("GET", &format!("/latest/meta-data/{path}")),
            NOW,
        )
    };
    let time = CreationDate::new(Timestamp::from_secs(1_790_000_000));
    service.update(|m| {
        m.tags.insert("Name".into(), "db".into());
        m.rebalance = Some(time);
        m.spot = Some(SpotNotice {
            action: SpotAction::Terminate,
            time,
        });
    });
    assert_eq!(text(get(&mut service, "tags/instance/Name")), "db");
    assert_eq!(
        text(get(&mut service, "spot/instance-action")),
        r#"{"action":"terminate","time":"2026-09-21T14:13:20Z"}"#
    );
    assert_eq!(
        text(get(&mut service, "spot/termination-time")),
        "2026-09-21T14:13:20Z"
    );
    assert_eq!(
        text(get(&mut service, "events/recommendations/rebalance")),
        r#"{"noticeTime":"2026-09-21T14:13:20Z"}"#
    );
    service.update(|m| {
        m.spot = Some(SpotNotice {
            action: SpotAction::Stop,
            time,
        });
        m.options.instance_metadata_tags = false;
    });
    assert_eq!(get(&mut service, "spot/termination-time").status, 404);
    assert_eq!(get(&mut service, "tags/instance/Name").status, 404);
    assert_eq!(get(&mut service, "tags").status, 404);
}
