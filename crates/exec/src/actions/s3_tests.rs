//! `S3Download` and `S3Upload` against moto's S3, judged by the AWS command line; and against a server
//! that means ill.

use std::path::Path;
use std::process::Command;

use amiforge_testkit::{S3Server, WEB_CONTENT, WebServer, run, venv_program};

use crate::Outside;
use crate::aws::s3::Sizes;
use crate::aws::{AwsAccess, Credentials};
use crate::testing::{Ran, impatient, step};

fn lent(endpoint: &str) -> Outside {
    Outside {
        aws: Some(AwsAccess {
            credentials: Some(Credentials {
                access_key_id: "AKIDTEST".into(),
                secret_access_key: "secret".into(),
                session_token: None,
                source: "the test".into(),
            }),
            endpoint: Some(endpoint.to_owned()),
            ..AwsAccess::default()
        }),
        ..impatient()
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn download(source: &str, to: &Path, more: &str, outside: &Outside) -> Ran {
    let (source, to) = (quoted(source), quoted(to.to_str().unwrap()));
    let entry = format!("source: {source}, destination: {to}{more}");
    step("action: S3Download", &[entry], outside)
}

fn upload(source: &Path, to: &str, more: &str, outside: &Outside) -> Ran {
    let (source, to) = (quoted(source.to_str().unwrap()), quoted(to));
    let entry = format!("source: {source}, destination: {to}{more}");
    step("action: S3Upload", &[entry], outside)
}

/// Files of a folder with their content, as `path=content`, sorted.
fn tree(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(dir) = todo.pop() {
        for path in fs_err::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                all.push(format!("{name}={}", fs_err::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// Keys of a bucket with their sizes.
fn listed(s3: &S3Server, bucket: &str) -> Vec<String> {
    let args = [
        "s3api",
        "list-objects-v2",
        "--bucket",
        bucket,
        "--output",
        "text",
        "--query",
    ];
    let output = run(s3.aws(&args).arg("Contents[].[Key,Size]")).text();
    output.lines().map(|line| line.replace('\t', " ")).collect()
}

#[test]
fn objects_and_prefixes_are_downloaded() {
    let (s3, dir) = (S3Server::start(&[]), tempfile::tempdir().unwrap());
    run(&mut s3.aws(&["s3", "mb", "s3://bucket"]));
    run(&mut s3.aws(&[
        "s3api",
        "put-object",
        "--bucket",
        "bucket",
        "--key",
        "pre/sub/",
    ]));
    let file = dir.path().join("content");
    for key in ["one & ü+ .txt", "pre/a", "pre/sub/b c", "preother"] {
        fs_err::write(&file, key).unwrap();
        s3.put(&file, &format!("s3://bucket/{key}"));
    }
    let outside = lent(s3.endpoint());
    let one = dir.path().join("one");
    download("s3://bucket/one & ü+ .txt", &one, "", &outside).ok();
    assert_eq!(fs_err::read_to_string(&one).unwrap(), "one & ü+ .txt");
    let ran = download("s3://bucket/pre/a", &one, ", overwrite: false", &outside);
    assert!(
        ran.reason().contains("`overwrite` is false"),
        "{}",
        ran.reason()
    );
    download("s3://bucket/pre/a", &one, "", &outside).ok();
    assert_eq!(fs_err::read_to_string(&one).unwrap(), "pre/a");

    let folder = dir.path().join("folder");
    let ran = download("s3://bucket/pre/*", &folder, "", &outside);
    assert!(ran.reason().contains("No such file"), "{}", ran.reason());
    let ran = download("s3://bucket/pre/a", &folder.join("a"), "", &outside);
    assert!(ran.reason().contains("No such file"), "{}", ran.reason());
    fs_err::create_dir(&folder).unwrap();
    download("s3://bucket/pre/*", &folder, "", &outside).ok();
    assert_eq!(tree(&folder), ["a=pre/a", "sub/b c=pre/sub/b c"]);
    let ran = download("s3://bucket/pre/*", &folder, ", overwrite: false", &outside);
    assert!(
        ran.reason().contains("`overwrite` is false"),
        "{}",
        ran.reason()
    );
    let ran = download("s3://bucket/none/*", &folder, "", &outside);
    assert_eq!(ran.reason(), "there is no object below s3://bucket/none/");
}

#[test]
fn what_s3_refuses_is_told_with_code_and_hint() {
    let (s3, dir) = (S3Server::start(&[]), tempfile::tempdir().unwrap());
    run(&mut s3.aws(&["s3", "mb", "s3://bucket"]));
    let outside = lent(s3.endpoint());
    let to = dir.path().join("file");
    let ran = download("s3://bucket/None", &to, "", &outside);
    let reason = ran.reason();
    assert!(
        reason.starts_with("s3://bucket/None: S3 says NoSuchKey (status 404): ")
            && reason.ends_with("(letter case counts in keys)"),
        "{reason}"
    );
    let ran = download("s3://no-bucket/*", dir.path(), "", &outside);
    assert!(
        ran.reason().contains("S3 says NoSuchBucket (status 404)"),
        "{}",
        ran.reason()
    );
    fs_err::write(&to, "x").unwrap();
    let ran = upload(&to, "s3://no-bucket/x", "", &outside);
    assert!(
        ran.reason().contains("S3 says NoSuchBucket"),
        "{}",
        ran.reason()
    );
    assert!(ran.notes().is_empty(), "none of this is tried again");
}

#[test]
fn files_are_uploaded_alone_by_wildcard_and_with_their_folders() {
    let (s3, dir) = (S3Server::start(&[]), tempfile::tempdir().unwrap());
    run(&mut s3.aws(&["s3", "mb", "s3://bucket"]));
    let outside = lent(s3.endpoint());
    let from = dir.path().join("from");
    fs_err::create_dir_all(from.join("sub/deep")).unwrap();
    for (name, text) in [
        ("a.txt", "1"),
        ("b+ ü.txt", "22"),
        ("other", "333"),
        ("sub/c.txt", "4444"),
        ("sub/deep/empty", ""),
        (".hidden", "h"),
    ] {
        fs_err::write(from.join(name), text).unwrap();
    }
    std::os::unix::fs::symlink("other", from.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("..", from.join("sub/round")).unwrap();
    upload(
        &from.join("a.txt"),
        "s3://bucket/alone/new name",
        "",
        &outside,
    )
    .ok();
    upload(&from.join("a.txt"), "s3://bucket/into/", "", &outside).ok();
    upload(&from.join("*.txt"), "s3://bucket/wild", "", &outside).ok();
    upload(
        &from.join("*"),
        "s3://bucket/all/",
        ", recurse: 'true'",
        &outside,
    )
    .ok();
    upload(
        &from.join("sub"),
        "s3://bucket/folder/",
        ", recurse: true",
        &outside,
    )
    .ok();
    assert_eq!(
        listed(&s3, "bucket"),
        [
            "all/a.txt 1",
            "all/b+ ü.txt 2",
            "all/link.txt 3",
            "all/other 3",
            "all/sub/c.txt 4",
            "all/sub/deep/empty 0",
            "alone/new name 1",
            "folder/c.txt 4",
            "folder/deep/empty 0",
            "into/a.txt 1",
            "wild/a.txt 1",
            "wild/b+ ü.txt 2",
            "wild/link.txt 3",
        ]
    );
    // What was uploaded comes back through the command line as it was.
    let back = dir.path().join("back");
    run(s3
        .aws(&["s3", "cp", "--quiet", "--recursive", "s3://bucket/folder"])
        .arg(&back));
    assert_eq!(tree(&back), ["c.txt=4444", "deep/empty="]);
    for (source, more, expected) in [
        ("sub", "", "is a folder, and `recurse` is not true"),
        ("*.none", "", "nothing matches"),
        ("none", "", "No such file"),
        ("sub/round/../none/*", "", "cannot list"),
    ] {
        let ran = upload(&from.join(source), "s3://bucket/x/", more, &outside);
        assert!(
            ran.reason().contains(expected),
            "{source}: {}",
            ran.reason()
        );
    }
}

#[test]
fn large_files_go_in_parts_and_come_back_whole() {
    let (s3, dir) = (S3Server::start(&[]), tempfile::tempdir().unwrap());
    run(&mut s3.aws(&["s3", "mb", "s3://bucket"]));
    let mut outside = lent(s3.endpoint());
    outside.patience.bytes = 1 << 30;
    outside.sizes = Sizes {
        whole: 6 << 20,
        part: 5 << 20,
    };
    let bytes: Vec<u8> = (0u32..12 << 18)
        .flat_map(|n| (n ^ n >> 7).to_le_bytes())
        .collect();
    let from = dir.path().join("large");
    fs_err::write(&from, &bytes).unwrap();
    upload(&from, "s3://bucket/large", "", &outside).ok();
    let args = [
        "s3api",
        "head-object",
        "--bucket",
        "bucket",
        "--key",
        "large",
    ];
    let head = run(&mut s3.aws(&args)).json();
    assert_eq!(head["ContentLength"], 12 << 20);
    let tag = head["ETag"].as_str().unwrap();
    assert!(tag.ends_with("-3\""), "three parts: {tag}");
    let back = dir.path().join("back");
    run(s3
        .aws(&["s3", "cp", "--quiet", "s3://bucket/large"])
        .arg(&back));
    assert!(
        fs_err::read(&back).unwrap() == bytes,
        "as the command line gets it"
    );
    let own = dir.path().join("own");
    download("s3://bucket/large", &own, "", &outside).ok();
    assert!(fs_err::read(&own).unwrap() == bytes, "as we get it");
    // One that fails in the middle leaves no parts behind.
    outside.sizes.part = 1 << 20;
    let ran = upload(&from, "s3://bucket/small-parts", "", &outside);
    assert!(ran.reason().contains("EntityTooSmall"), "{}", ran.reason());
    let args = ["s3api", "list-multipart-uploads", "--bucket", "bucket"];
    let left = run(&mut s3.aws(&args)).text();
    assert!(!left.contains("small-parts"), "{left}");
}

#[test]
fn a_thousand_objects_are_taken_and_one_more_is_not() {
    let (s3, dir) = (S3Server::start(&[]), tempfile::tempdir().unwrap());
    run(&mut s3.aws(&["s3", "mb", "s3://bucket"]));
    let script = "import sys, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', \
        aws_access_key_id='a', aws_secret_access_key='b')\n\
        [s3.put_object(Bucket='bucket', Key=f'k/{n:04}', Body=b'x') for n in range(1001)]";
    run(Command::new(venv_program("python")).args(["-c", script, s3.endpoint()]));
    let outside = lent(s3.endpoint());
    let ran = download("s3://bucket/k/*", dir.path(), "", &outside);
    assert_eq!(
        ran.reason(),
        "s3://bucket/k/ has more than 1000 objects, which S3Download does not take at once"
    );
    assert_eq!(tree(dir.path()).len(), 0, "nothing is begun");
    run(&mut s3.aws(&["s3", "rm", "--quiet", "s3://bucket/k/0500"]));
    download("s3://bucket/k/*", dir.path(), "", &outside).ok();
    assert_eq!(tree(dir.path()).len(), 1000);
}

/// moto recomputes the signature of every request with botocore once it checks rights.
#[test]
fn signatures_are_those_that_botocore_computes() {
    let s3 = S3Server::start(&[("INITIAL_NO_AUTH_ACTION_COUNT", "4")]);
    let dir = tempfile::tempdir().unwrap();
    run(&mut s3.aws(&["s3api", "create-bucket", "--bucket", "bucket"]));
    run(&mut s3.aws(&["iam", "create-user", "--user-name", "ann"]));
    let policy = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action":
        ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"}]}"#;
    let args = [
        "iam",
        "put-user-policy",
        "--user-name",
        "ann",
        "--policy-name",
        "p",
        "--policy-document",
    ];
    run(s3.aws(&args).arg(policy));
    let key = run(&mut s3.aws(&["iam", "create-access-key", "--user-name", "ann"])).json();
    let text = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let mut outside = lent(s3.endpoint());
    let access = outside.aws.as_mut().unwrap();
    access.credentials = Some(Credentials {
        access_key_id: text("AccessKeyId"),
        secret_access_key: text("SecretAccessKey"),
        session_token: None,
        source: "ann".into(),
    });
    let from = dir.path().join("a b+ü'()~%");
    fs_err::write(&from, "signed").unwrap();
    let name = "with space+ü~%25";
    upload(&from, &format!("s3://bucket/pre/{name}"), "", &outside).ok();
    let folder = dir.path().join("folder");
    fs_err::create_dir(&folder).unwrap();
    download("s3://bucket/pre/*", &folder, "", &outside).ok();
    assert_eq!(tree(&folder), [format!("{name}=signed")]);
    let to = dir.path().join("to");
    download(&format!("s3://bucket/pre/{name}"), &to, "", &outside).ok();
    let access = outside.aws.as_mut().unwrap();
    access
        .credentials
        .as_mut()
        .unwrap()
        .secret_access_key
        .push('x');
    let ran = download(&format!("s3://bucket/pre/{name}"), &to, "", &outside);
    let reason = ran.reason();
    assert!(
        reason.contains("SignatureDoesNotMatch")
            && reason.contains("the secret key is not that of the key id"),
        "{reason}"
    );
    let access = outside.aws.as_mut().unwrap();
    access.credentials.as_mut().unwrap().access_key_id = "AKIDNOBODY".into();
    let ran = download(&format!("s3://bucket/pre/{name}"), &to, "", &outside);
    assert!(
        ran.reason().contains("InvalidAccessKeyId"),
        "{}",
        ran.reason()
    );
}

#[test]
fn without_credentials_requests_are_plain_and_a_refusal_says_why() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let mut outside = lent(&server.url(""));
    let access = outside.aws.as_mut().unwrap();
    access.credentials = None;
    access.missing = Some("there is no profile dev".to_owned());
    download("s3://file/x", &to, "", &outside).ok();
    assert_eq!(server.requests(), ["GET /file/x -"]);
    assert_eq!(fs_err::read_to_string(&to).unwrap(), WEB_CONTENT);
    let ran = download("s3://mirror/x", &to, "", &outside);
    assert!(
        ran.reason()
            .ends_with("(the request had no credentials: there is no profile dev)"),
        "{}",
        ran.reason()
    );
}

#[test]
fn a_bucket_of_another_region_is_asked_there_once() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let to = dir.path().join("file");
    let outside = lent(&server.url(""));
    download("s3://moved/x", &to, "", &outside).ok();
    assert_eq!(fs_err::read_to_string(&to).unwrap(), WEB_CONTENT);
    assert_eq!(server.requests().len(), 2);
    let ran = download("s3://lost/x", &to, "", &outside);
    assert!(
        ran.reason().contains("PermanentRedirect (status 301)")
            && ran.reason().contains("set AWS_REGION"),
        "{}",
        ran.reason()
    );
    assert_eq!(server.requests().len(), 4, "not round and round");
}

#[test]
fn a_server_that_means_ill_gets_bounded_errors_and_no_path_of_the_host() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let outside = lent(&server.url(""));
    for (source, expected) in [
        (
            "s3://bomb/*",
            "cannot be read: the answer declares or uses entities of its own",
        ),
        (
            "s3://deep/*",
            "cannot be read: the answer is nested beyond 8 levels",
        ),
        ("s3://endless/*", "has more than 16777216 bytes"),
        ("s3://garbage/*", "gave up after 5 tries"),
        ("s3://pages/*", "has more than 1000 objects"),
        (
            "s3://keys/pre/*",
            "is not downloaded: the key \"pre/../../../../../../tmp/evil\"",
        ),
        ("s3://keys/*", "is not downloaded: the key"),
    ] {
        let ran = download(source, dir.path(), "", &outside);
        assert!(
            ran.reason().contains(expected),
            "{source}: {}",
            ran.reason()
        );
        assert_eq!(tree(dir.path()).len(), 0, "{source}");
    }
    for (source, expected) in [
        ("s3://endless/x", "more than the 1048576 bytes"),
        ("s3://short/x", "gave up after 5 tries"),
        ("s3://huge/x", "more than the 1048576 bytes"),
        ("s3://head/x", "gave up after 5 tries"),
        ("s3://status/503", "gave up after 5 tries"),
        ("s3://nowhere/x", "S3 says nothing (status 302)"),
    ] {
        let ran = download(source, &dir.path().join("x"), "", &outside);
        assert!(
            ran.reason().contains(expected),
            "{source}: {}",
            ran.reason()
        );
        assert_eq!(tree(dir.path()).len(), 0, "{source}");
    }
    let file = dir.path().join("file");
    fs_err::write(&file, "x").unwrap();
    let before = server.requests().len();
    let ran = upload(&file, "s3://bucket/x", "", &outside);
    assert!(
        ran.reason().contains("SlowDown (status 503)"),
        "{}",
        ran.reason()
    );
    assert_eq!(server.requests().len() - before, 5);
}

#[test]
fn nothing_of_the_credentials_is_shown_even_when_the_server_sends_it_back() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let mut outside = lent(&server.url(""));
    let access = outside.aws.as_mut().unwrap();
    access.credentials = Some(Credentials {
        access_key_id: "CANARYID".into(),
        secret_access_key: "CANARYSECRET".into(),
        session_token: Some("CANARYTOKEN".into()),
        source: "the test".into(),
    });
    let to = dir.path().join("x");
    let ran = download(
        "s3://mirror/x",
        &to,
        ", expectedBucketOwner: '123456789012'",
        &outside,
    );
    let reason = ran.reason();
    assert!(
        reason.contains("[hidden]"),
        "the server did send it back: {reason}"
    );
    // Once in the hint, once since the server got it.
    assert_eq!(reason.matches("123456789012").count(), 2, "{reason}");
    assert!(
        reason.contains("need s3:GetObject, and the bucket must belong to 123456789012"),
        "{reason}"
    );
    let shown = format!("{:?} {:?} {outside:?}", ran.result, ran.events);
    assert!(!shown.contains("CANARY"), "{shown}");
}

#[test]
fn the_time_of_the_step_ends_transfers() {
    let (server, dir) = (WebServer::start(), tempfile::tempdir().unwrap());
    let outside = lent(&server.url(""));
    let fields = "action: S3Download\n        timeoutSeconds: 1";
    for key in ["drip/x", "stall/x"] {
        let entry = format!(
            "source: 's3://{key}', destination: '{}/x'",
            dir.path().display()
        );
        let ran = step(fields, &[entry], &outside);
        assert_eq!(ran.reason(), "timed out after 1 seconds", "{key}");
        assert_eq!(tree(dir.path()).len(), 0);
    }
}
