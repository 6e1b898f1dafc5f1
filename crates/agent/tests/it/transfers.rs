//! The transfer actions in a sandbox: with the machine's network, without any, and that nothing of the
//! credentials they are lent can be found anywhere.

use std::path::Path;

use amiforge_exec::aws::{AwsAccess, Credentials};
use amiforge_exec::{ChildEvent, Outside, RootSpec, RunResult, Status, ToeLog};
use amiforge_testkit::{WEB_CONTENT, WebServer};
use amiforge_tree::{Content, Kind, LayerEntry};

use crate::root::{Bench, build, never};

struct Ran {
    result: RunResult,
    events: Vec<ChildEvent>,
}

fn run(bench: &Bench, root: &RootSpec, text: &str, outside: &Outside) -> Ran {
    let mut events = Vec::new();
    let result = bench
        .sandbox
        .run_component_with(root, &build(text), outside, &never(), &mut |event| {
            events.push(event)
        })
        .unwrap();
    Ran { result, events }
}

fn document(steps: &str) -> String {
    format!("schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n{steps}")
}

#[test]
fn a_download_is_in_the_layer_and_nothing_else() {
    let (bench, server) = (Bench::new(), WebServer::start());
    let mut root = bench.root();
    root.network = true;
    // The root has neither hosts nor resolver, nor certificates.
    let url = server.url("/redirect/2").replace("127.0.0.1", "localhost");
    let text = document(&format!(
        "      - {{name: Get, action: WebDownload, inputs: [{{source: '{url}', destination: srv/new/file}}]}}\n"
    ));
    let ran = run(&bench, &root, &text, &Outside::default());
    assert_eq!(
        ran.result.status,
        Status::Success,
        "{:?}",
        ran.result.failure
    );
    let step = &ran.result.documents[0].phases[0].steps[0];
    assert_eq!(step.outputs[0]["destination"], "/srv/new/file");
    let layer = bench.harvest(&root, ran.result.start);
    let names: Vec<String> = layer.keys().map(|k| k.escape_ascii().to_string()).collect();
    assert_eq!(names, ["", "srv", "srv/new", "srv/new/file"]);
    let Some(LayerEntry::Put(inode)) = layer.get(&b"srv/new/file"[..]) else {
        panic!("{layer:?}")
    };
    assert_eq!(
        inode.kind,
        Kind::File(Content::bytes(WEB_CONTENT.as_bytes()))
    );
    assert_eq!(
        (inode.stat.mode, inode.stat.uid, inode.stat.gid),
        (0o644, 0, 0)
    );
}

#[test]
fn without_a_network_the_error_says_so() {
    let bench = Bench::new();
    for source in ["http://192.0.2.1/x", "https://web.test/x"] {
        let text = document(&format!(
            "      - {{name: Get, action: WebDownload, inputs: [{{source: '{source}', destination: /x}}]}}\n"
        ));
        let ran = run(&bench, &bench.root(), &text, &Outside::default());
        let expected =
            format!("{source} cannot be reached: this root has no network but its own loopback");
        assert_eq!(ran.result.failure.unwrap().reason, expected);
    }
    let text = document(
        "      - {name: Get, action: S3Download, inputs: [{source: 's3://bucket/x', destination: /srv/x}]}\n",
    );
    let ran = run(&bench, &bench.root(), &text, &Outside::default());
    assert_eq!(
        ran.result.failure.unwrap().reason,
        "s3://bucket/x cannot be reached: this root has no network but its own loopback"
    );
}

/// Parts of what must not be found.
const CANARIES: [&str; 3] = ["CANARYID", "CANARYSECRET", "CANARYTOKEN"];

#[test]
fn credentials_are_used_and_found_nowhere() {
    let (bench, server) = (Bench::new(), WebServer::start());
    let mut root = bench.root();
    root.network = true;
    let mut outside = Outside::default();
    outside.aws = Some(AwsAccess {
        credentials: Some(Credentials {
            access_key_id: CANARIES[0].into(),
            secret_access_key: CANARIES[1].into(),
            session_token: Some(CANARIES[2].into()),
            source: "the test".into(),
        }),
        endpoint: Some(server.url("")),
        ..AwsAccess::default()
    });
    // What root inside can look at: environments, command lines and memory of processes, files.
    let text = document(
        "      - {name: Use, action: S3Download, inputs: [{source: 's3://file/x', destination: /srv/x}]}
      - {name: Mirror, action: S3Download, onFailure: Continue, inputs: [{source: 's3://mirror/x', destination: /srv/y}]}
      - {name: Silent, action: S3Download, onFailure: Continue, disableLogging: true, inputs: [{source: 's3://mirror/x', destination: /srv/y}]}
      - name: Look
        action: ExecuteBash
        inputs:
          commands:
            - env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | grep -a CANAR[Y] && echo found
            - grep -ra CANAR[Y] /etc /root /run /srv /tmp /usr/lib /var 2>/dev/null && echo found
            - grep -a CANAR[Y] /proc/1/mem /proc/1/fd/* /proc/1/maps && echo found
            - 'true'
",
    );
    let ran = run(&bench, &root, &text, &outside);
    let steps = &ran.result.documents[0].phases[0].steps;
    let statuses: Vec<Status> = steps.iter().map(|s| s.status).collect();
    let expected = [
        Status::Success,
        Status::Failed,
        Status::Failed,
        Status::Success,
    ];
    assert_eq!(statuses, expected, "{:?}", ran.result);
    // It was sent where it belongs, and the server did send it back.
    assert!(
        server
            .requests()
            .iter()
            .all(|line| line.contains(CANARIES[0]))
    );
    assert!(
        steps[1].failure_message.contains("[hidden]"),
        "{}",
        steps[1].failure_message
    );

    let logs = bench.dir.path().join("logs");
    let mut log = ToeLog::create(&logs, &build(&text)).unwrap();
    ran.events.iter().for_each(|event| log.event(event));
    log.finish(&ran.result).unwrap();
    let told = format!(
        "{} {} {outside:?} {:?}",
        serde_json::to_string(&ran.events).unwrap(),
        serde_json::to_string(&ran.result).unwrap(),
        ran.result
    );
    assert!(
        !told.contains("\"found\"") && !told.contains("CANARY"),
        "{told}"
    );
    bench.harvest(&root, ran.result.start);
    // Logs, the layer, and what else the job left beside the lower directories that it was given.
    let mut looked_at = 0;
    search(&logs, &mut looked_at);
    for entry in fs_err::read_dir(bench.dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
    {
        if entry.is_file() && entry.extension().is_some_and(|e| e == "layer") {
            check(&entry, &mut looked_at);
        }
    }
    assert!(looked_at >= 6, "{looked_at} files");
}

fn search(folder: &Path, looked_at: &mut usize) {
    for path in fs_err::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            search(&path, looked_at);
        } else {
            check(&path, looked_at);
        }
    }
}

fn check(path: &Path, looked_at: &mut usize) {
    *looked_at += 1;
    let bytes = fs_err::read(path).unwrap();
    for canary in CANARIES {
        let found = bytes.windows(canary.len()).any(|w| w == canary.as_bytes());
        assert!(!found, "{canary} is in {}", path.display());
    }
}
