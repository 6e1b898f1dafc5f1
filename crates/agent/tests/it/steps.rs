//! What steps are given: a folder to run in, and limits that they cannot leave.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use amiforge_exec::{ChildEvent, RootSpec, RunResult, Status};
use amiforge_tree::LayerEntry;

use crate::root::{Bench, CLOCK, build, dir, never};

/// Runs the build phase of a component whose steps are given as YAML.
pub(crate) fn run(
    bench: &Bench,
    root: &RootSpec,
    folder: Option<&str>,
    steps: &str,
) -> (RunResult, Vec<String>) {
    let text = format!("schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n{steps}");
    let mut spec = build(&text);
    spec.documents[0].working_directory = folder.map(str::to_owned);
    let mut lines = Vec::new();
    let result = bench
        .sandbox
        .run_component(root, &spec, &never(), &mut |event| {
            if let ChildEvent::Stdout { line } | ChildEvent::Stderr { line } = event {
                lines.push(line);
            }
        })
        .unwrap();
    (result, lines)
}

#[test]
fn steps_run_in_the_working_directory_which_is_made_and_stays() {
    let bench = Bench::new();
    let root = bench.root();
    let steps = "
      - name: Script
        action: ExecuteBash
        inputs: {commands: ['pwd; echo $WORKING_DIRECTORY; echo mine > by-script']}
      - name: Program
        action: ExecuteBinary
        inputs: {path: bash, arguments: ['-c', 'pwd; cat by-script']}
      - name: File
        action: CreateFile
        inputs: [{path: sub/by-action, content: x}, {path: /srv/absolute, content: y}]
      - name: Copy
        action: CopyFile
        inputs: [{source: 'by-*', destination: copies/}]
      - name: Gone
        action: ExecuteBash
        inputs: {commands: ['rm -r /opt/app/here']}
      - name: Again
        action: ExecuteBash
        inputs: {commands: ['pwd; touch again']}
";
    let (result, lines) = run(&bench, &root, Some("/opt/app/here"), steps);
    assert_eq!(result.status, Status::Success, "{:?}", result.failure);
    assert_eq!(
        lines,
        [
            "/opt/app/here",
            "/opt/app/here",
            "/opt/app/here",
            "mine",
            "/opt/app/here"
        ]
    );
    let layer = bench.harvest(&root, result.start);
    let names: Vec<String> = layer
        .keys()
        .map(|k| String::from_utf8_lossy(k).into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "",
            "opt",
            "opt/app",
            "opt/app/here",
            "opt/app/here/again",
            "srv",
            "srv/absolute"
        ]
    );
    for path in ["opt/app", "opt/app/here"] {
        assert_eq!(
            layer[path.as_bytes()],
            dir(0o755),
            "mode and time of {path}"
        );
    }
}

#[test]
fn without_one_steps_run_in_the_root() {
    let bench = Bench::new();
    let steps = "
      - {name: P, action: ExecuteBash, inputs: {commands: ['pwd; echo \"${WORKING_DIRECTORY-none}\"']}}
";
    let (result, lines) = run(&bench, &bench.root(), None, steps);
    assert_eq!(result.status, Status::Success, "{:?}", result.failure);
    assert_eq!(lines, ["/", "none"]);
}

#[test]
fn a_working_directory_that_is_a_file_is_told() {
    let bench = Bench::new();
    let steps = "
      - {name: P, action: ExecuteBash, inputs: {commands: ['true']}}
";
    let reason = |folder| {
        let (result, _) = run(&bench, &bench.root(), Some(folder), steps);
        result.failure.unwrap().reason
    };
    assert_eq!(
        reason("/srv/keep"),
        "the working directory /srv/keep is a file, not a folder"
    );
    let below = reason("/srv/keep/below");
    assert!(
        below.starts_with("cannot look at /srv/keep/below: Not a directory"),
        "{below}"
    );
}

/// A bomb that waits for its children, and the well-known one that does not. Their processes keep the
/// arguments of the shell they come from, so `MARK` tells them apart from all others.
const BOMBS: &[&str] = &[
    "bash -c 'bomb() { bomb | bomb; }; bomb' MARK",
    "bash -c 'bomb() { bomb | bomb & }; bomb' MARK",
];

/// More processes than any limit here, which stay. Not of bash, which tries to fork for half a minute.
pub(crate) const CROWD: &str = "sh -c 'mkfifo /tmp/f; exec 3<>/tmp/f; i=0; while [ $i -lt 200 ]; do (read x <&3; :) & i=$((i+1)); done; wait' MARK";

#[test]
fn a_fork_bomb_ends_its_own_step_only() {
    const LIMIT: usize = 64;
    let bench = Bench::new();
    for (number, bomb) in BOMBS.iter().enumerate() {
        let mark = format!("BOMB_{}_{number}", std::process::id());
        let mut root = bench.root();
        root.limits.processes = LIMIT as u64;
        // The bomb that goes to the background may still be growing when its step ends, or be over by itself:
        // the second step needs more processes than there are either way.
        let steps = format!(
            "
      - {{name: Bomb, action: ExecuteBash, timeoutSeconds: 300, inputs: {{commands: [\"{}\"]}}}}
      - {{name: After, action: ExecuteBash, timeoutSeconds: 300, inputs: {{commands: [\"{}\"]}}}}
",
            bomb.replace("MARK", &mark),
            CROWD.replace("MARK", &mark)
        );
        let (done, most, refused) = (
            AtomicBool::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let result = std::thread::scope(|scope| {
            // Both with pauses: the bomb needs the processors to grow.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    most.fetch_max(marked(&mark), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            // Meanwhile the host starts programs, as the same user.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if !Command::new("true").status().is_ok_and(|s| s.success()) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let (result, _) = run(&bench, &root, None, &steps);
            done.store(true, Ordering::Relaxed);
            result
        });
        assert_eq!(marked(&mark), 0, "nothing of it is left");
        assert_eq!(
            refused.into_inner(),
            0,
            "the host was never out of processes"
        );
        let most = most.into_inner();
        // The shells of the step, and what was seen while it came or went, are not in the crowd.
        assert!((LIMIT - 8..=LIMIT).contains(&most), "{most} at a time");
        let failure = result.failure.unwrap();
        assert!(
            failure.reason.ends_with(
                "; it reached the limit of 64 processes (amiforge.limits.processes of the recipe)"
            ),
            "{failure}"
        );
    }
}

#[test]
fn background_processes_end_with_a_job_that_fails() {
    let bench = Bench::new();
    for ending in ["exit 3", "kill -9 $$", "true"] {
        let mark = format!("66{}", std::process::id());
        let steps = format!(
            "
      - name: Daemon
        action: ExecuteBash
        inputs: {{commands: ['setsid bash -c \"setsid sleep {mark} & setsid sleep {mark}\" > /dev/null 2>&1 &', 'until ps ax | grep -q \"[s]leep {mark}\"; do sleep 0.1; done; {ending}']}}
"
        );
        let (result, _) = run(&bench, &bench.root(), None, &steps);
        assert_eq!(result.status.is_ok(), ending == "true", "{result:?}");
        assert_eq!(marked(&mark), 0, "after {ending}");
    }
}

#[test]
fn limits_hold_and_cannot_be_raised() {
    let bench = Bench::new();
    let mut root = bench.root();
    let (soft, hard) = ("ulimit -Sn", "ulimit -Hn");
    let lines = bench.ok(&root, &format!("{soft}; {hard}; ulimit -Hc; ulimit -Hu"));
    let number = |at: usize| lines[at].parse::<u64>().unwrap();
    assert_eq!((number(0), number(2)), (1024, 0));
    assert!(number(1) >= 1024 && number(3) <= 4096, "{lines:?}");

    root.limits.processes = 100;
    root.limits.open_files = Some(64);
    root.limits.file_size = Some(1 << 20);
    let (result, lines) = bench.sh(
        &root,
        // One stream, so that what the shell says of a signal has its place in the order.
        r#"
        exec 2>&1
        ulimit -Sn; ulimit -Hn; ulimit -Hu
        ulimit -Hu 101 2>/dev/null && echo RAISED processes
        ulimit -Hn 65 2>/dev/null && echo RAISED files
        bash -c 'for i in {1..100}; do exec {fd}</dev/null || break; done; echo $i' 2>&1
        dd if=/dev/zero of=/srv/large bs=64K count=32 2>&1 || true
        stat -c %s /srv/large
        true"#,
    );
    assert!(result.is_ok(), "{result:?} {lines:?}");
    assert_eq!(&lines[..3], ["64", "64", "100"]);
    let text = lines.join("\n");
    assert!(
        text.contains("Too many open files") && !text.contains("RAISED"),
        "{text}"
    );
    assert_eq!(lines.last().unwrap(), "1048576");
}

#[test]
fn a_file_beyond_its_limit_is_told() {
    let bench = Bench::new();
    let mut root = bench.root();
    root.limits.file_size = Some(1 << 20);
    let steps = "
      - {name: Large, action: ExecuteBash, inputs: {commands: ['dd if=/dev/zero of=/srv/large bs=64K count=32']}}
";
    let reason = run(&bench, &root, None, steps).0.failure.unwrap().reason;
    assert!(
        reason.contains("it reached the limit of 1048576 bytes for a file"),
        "{reason}"
    );
}

/// A tebibyte of hole is neither read nor hashed byte by byte; it would take half an hour.
#[test]
fn holes_of_a_step_cost_nothing() {
    let bench = Bench::new();
    let root = bench.root();
    bench.ok(
        &root,
        "dd if=/dev/null of=/srv/sparse bs=1 seek=8T 2>&1; echo end | dd of=/srv/sparse bs=1 seek=1T conv=notrunc 2>&1",
    );
    let layer = bench.harvest(&root, CLOCK);
    let LayerEntry::Put(inode) = &layer[&b"srv/sparse"[..]] else {
        panic!("{layer:?}")
    };
    let amiforge_tree::Kind::File(content) = &inode.kind else {
        panic!("{inode:?}")
    };
    assert_eq!((content.size, content.data_len()), (8 << 40, 4096));
    // And on the way back, as what a later step sees.
    let again = bench.dir.path().join("again");
    bench
        .sandbox
        .materialise(
            &root.upper.with_extension("layer"),
            &bench.dir.path().join("again.tmp"),
            &again,
            &never(),
        )
        .unwrap();
    let mut root = bench.root();
    root.lowers.insert(0, again);
    let lines = bench.ok(
        &root,
        "stat -c '%s' /srv/sparse; dd if=/srv/sparse bs=1 skip=1T count=3 2>/dev/null",
    );
    assert_eq!(lines[0], (8_u64 << 40).to_string());
}

/// Processes of this machine with the text among their arguments, and those of the same user that have ended.
pub(crate) fn marked(text: &str) -> usize {
    let mut users = std::collections::BTreeSet::new();
    let (mut marked, mut dead) = (0, Vec::new());
    for entry in fs_err::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let read = |name| std::fs::read(path.join(name)).unwrap_or_default();
        let (Ok(meta), cmdline, stat) = (std::fs::metadata(&path), read("cmdline"), read("stat"))
        else {
            continue;
        };
        if cmdline.split(|b| *b == 0).any(|arg| arg == text.as_bytes()) {
            users.insert(meta.uid());
            marked += 1;
        } else if stat.windows(4).any(|part| part == b") Z ") {
            dead.push(meta.uid());
        }
    }
    // What has ended has no arguments any more, and counts until somebody waits for it: a shell that tries to
    // fork does not.
    marked + dead.iter().filter(|user| users.contains(*user)).count()
}
