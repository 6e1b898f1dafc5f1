//! Runs that stop between two steps, and go on in another root.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use amiforge_exec::{
    ChildEvent, Outside, Pause, Pauses, RootSpec, RunResult, RunSpec, StepResult, Way,
};
use amiforge_tree::LayerEntry;

use crate::root::{Bench, CLOCK, build, dir, file, never, way};

fn component(steps: &[(&str, &str)]) -> RunSpec {
    let mut text = "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n".to_owned();
    for (name, command) in steps {
        text.push_str(&format!(
            "      - name: {name}\n        action: ExecuteBash\n        inputs:\n          commands:\n            - |\n              {}\n",
            command.replace('\n', "\n              ")
        ));
    }
    build(&text)
}

fn bench() -> Bench {
    let entries = [
        (b"srv".to_vec(), dir(0o755)),
        (b"srv/old".to_vec(), file("old")),
    ];
    Bench::with(&entries.into())
}

/// A stop, with what its root was like.
struct Kept {
    pause: Pause,
    upper: PathBuf,
    tmp: PathBuf,
}

/// Runs with stops wherever there may be some. The result, the stops, and the steps that were begun.
fn stopping(
    bench: &Bench,
    root: &RootSpec,
    spec: &RunSpec,
    from: Option<Pause>,
) -> (RunResult, Vec<Kept>, Vec<String>) {
    let (mut kept, mut begun) = (Vec::new(), Vec::new());
    let mut keep = |pause: &Pause| {
        let harvest = |dir: PathBuf, what: &str| {
            let layer = bench.dir.path().join(format!("{what}{}", kept.len()));
            fs_err::write(&layer, b"").unwrap();
            let harvested = bench
                .sandbox
                .harvest(&dir, &layer, CLOCK, None, &[], &never());
            harvested.unwrap();
            layer
        };
        let upper = harvest(root.upper.clone(), "kept-upper");
        let tmp = harvest(root.work.join("tmp"), "kept-tmp");
        kept.push(Kept {
            pause: pause.clone(),
            upper,
            tmp,
        });
        Some(Duration::ZERO)
    };
    let pauses = Pauses {
        from,
        after: Some(Duration::ZERO),
        keep: &mut keep,
    };
    let outside = Outside::default();
    let result = bench
        .sandbox
        .run_component_pausing(root, spec, &outside, pauses, &never(), &mut |event| {
            if let ChildEvent::StepStarted { step, .. } = event {
                begun.push(step);
            }
        })
        .unwrap();
    (result, kept, begun)
}

fn steps(result: &RunResult) -> Vec<&StepResult> {
    result.documents[0].phases[0].steps.iter().collect()
}

fn text(entries: &BTreeMap<Vec<u8>, LayerEntry>, path: &str) -> String {
    let LayerEntry::Put(inode) = &entries[path.as_bytes()] else {
        panic!("{path}");
    };
    let amiforge_tree::Kind::File(content) = &inode.kind else {
        panic!("{path}");
    };
    let amiforge_tree::DataSource::Bytes(bytes) = &content.extents[0].source else {
        panic!("{path}");
    };
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_goes_on_in_another_root_as_if_it_had_never_stopped() {
    let spec = component(&[
        (
            "First",
            "rm /srv/old\nmkdir -p /srv/a/b /tmp/dir\necho one > /srv/a/b/f\nln /srv/a/b/f /srv/a/link\nchown 7:8 /srv/a/b/f\n\
             touch -d @1000000000 /srv/a/b\necho held > /tmp/dir/x\nchmod 600 /tmp/dir/x\necho told",
        ),
        (
            "Second",
            "cat /tmp/dir/x > /srv/second\necho {{ build.First.outputs[0].stdout }} >> /srv/second\necho $BASHPID > /srv/pid\n\
             echo two >> /srv/a/b/f\nmkdir /srv/old",
        ),
        (
            "Third",
            "stat -c '%a %u:%g' /tmp /tmp/dir/x /srv/a/link >> /srv/second\n[ /srv/a/b/f -ef /srv/a/link ]\n[ /srv/second -nt /srv/a/b ]\n\
             echo $BASHPID >> /srv/pid\necho three > /srv/old/new",
        ),
    ]);
    let bench = bench();
    let plain = bench.root();
    let whole = bench
        .sandbox
        .run_component(&plain, &spec, &never(), &mut |_| ());
    let whole = whole.unwrap();
    assert!(whole.status.is_ok(), "{:?}", whole.failure);
    let expected = bench.harvest(&plain, whole.start);
    assert_eq!(
        text(&expected, "srv/second"),
        "held\ntold\n1777 0:0\n600 0:0\n644 7:8\n"
    );

    let first = bench.root();
    let (result, kept, begun) = stopping(&bench, &first, &spec, None);
    assert!(result.status.is_ok(), "{:?}", result.failure);
    assert_eq!(begun, ["First", "Second", "Third"]);
    let done: Vec<usize> = kept.iter().map(|k| k.pause.steps("build").len()).collect();
    assert_eq!(done, [1, 2]);
    let same = |entries: &BTreeMap<Vec<u8>, LayerEntry>, what: &str| {
        let differs: Vec<_> = expected
            .keys()
            .chain(entries.keys())
            // Without a namespace the ids are those of the machine.
            .filter(|path| way() != Way::Chroot || path.as_slice() != b"srv/pid")
            .filter(|path| expected.get(*path) != entries.get(*path))
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        assert!(differs.is_empty(), "{what}: {differs:?}");
    };
    same(&bench.harvest(&first, result.start), "with stops");

    for (kept, rest) in kept.iter().zip([&["Second", "Third"][..], &["Third"]]) {
        let root = bench.root();
        let files = (kept.upper.as_path(), kept.tmp.as_path());
        let from = bench.sandbox.restore(&root, files, &kept.pause, &never());
        let (result, _, begun) = stopping(&bench, &root, &spec, Some(from.unwrap()));
        assert!(result.status.is_ok(), "{:?}", result.failure);
        assert_eq!(begun, rest);
        assert_eq!(steps(&result).len(), 3);
        assert!(result.start > whole.start, "moved");
        same(&bench.harvest(&root, result.start), "gone on");
    }
}

#[test]
fn there_is_no_stop_where_something_would_be_lost() {
    let stops = |bench: &Bench, command: &str| {
        let spec = component(&[("First", command), ("Second", "true")]);
        let root = bench.root();
        let (result, kept, _) = stopping(bench, &root, &spec, None);
        assert!(result.status.is_ok(), "{:?}", result.failure);
        kept.len()
    };
    let bench = bench();
    assert_eq!(stops(&bench, "true"), 1);
    // What is in the way is there for later steps.
    for command in [
        "sleep 1000 > /dev/null 2>&1 &",
        "setsid sleep 1000 > /dev/null 2>&1 &",
        "echo x > /run/x",
        "mkdir /run/d",
        "echo x > /dev/shm/x",
        "echo x > /tmp/x; chown 7 /tmp/x",
    ] {
        assert_eq!(stops(&bench, command), 0, "{command}");
    }
    if way() != Way::Chroot {
        for command in ["mount -t tmpfs none /srv", "hostname other"] {
            assert_eq!(stops(&bench, command), 0, "{command}");
        }
    }
    // What has failed would not be tried again by whoever goes on.
    let spec = component(&[("First", "exit 1"), ("Second", "true")]);
    for (way_on, expected) in [("Continue", 0), ("Ignore", 1)] {
        let mut spec = spec.clone();
        let text = &mut spec.documents[0].text;
        *text = text.replacen(
            "inputs:",
            &format!("onFailure: {way_on}\n        inputs:"),
            1,
        );
        let (_, kept, begun) = stopping(&bench, &bench.root(), &spec, None);
        assert_eq!((kept.len(), begun.len()), (expected, 2), "{way_on}");
    }
    // A stop as a step wants it is another thing.
    assert_eq!(
        stops(
            &bench,
            "if [ ! -e /srv/m ]; then touch /srv/m; exit 194; fi"
        ),
        1
    );
}
