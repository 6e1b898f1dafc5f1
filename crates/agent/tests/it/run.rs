//! Jobs and what they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amiforge_exec::{ChildEvent, Sandbox, SandboxError, Shim, Status, ToeLog, Way};
use amiforge_tree::{Content, Inode, Kind, LayerEntry};
use amiforge_types::Timestamp;

use crate::root::{Bench, CLOCK, build, dir, file, helper, link, never, script, stat, way};

#[test]
fn the_first_way_that_works_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    let chosen = Sandbox::choose(&helper(), None, temp.path()).unwrap();
    // Who is tested with another way may lack those before it, and is told why.
    let passed: Vec<Way> = chosen.passed.iter().map(|tried| tried.way).collect();
    let taken = chosen.sandbox.way();
    let at = Way::ALL.iter().position(|way| *way == taken).unwrap();
    assert!(taken <= way() && passed == Way::ALL[..at], "{chosen:?}");
    // Machines are the engine's to bring.
    let machine = Sandbox::choose(&helper(), Some(Way::MicroVm), temp.path());
    assert!(
        matches!(machine, Err(SandboxError::NoMachine { .. })),
        "{machine:?}"
    );
    for way in Way::ALL[at..].iter().filter(|way| **way != Way::MicroVm) {
        // Which takes root, and nothing else.
        if *way == Way::Chroot && !crate::ordinary::is_root() {
            let error = Sandbox::choose(&helper(), Some(*way), temp.path()).unwrap_err();
            assert!(error.is_environment(), "{error}");
            continue;
        }
        let chosen = Sandbox::choose(&helper(), Some(*way), temp.path()).unwrap();
        assert_eq!(chosen.sandbox.way(), *way);
        assert_eq!(way.to_string().parse(), Ok(*way));
    }
    assert!(
        "elsewhere"
            .parse::<Way>()
            .unwrap_err()
            .contains("single-id")
    );
    assert_eq!(
        fs_err::read_dir(temp.path()).unwrap().count(),
        0,
        "it leaves nothing"
    );
}

#[test]
fn owners_modes_capabilities_and_removals_arrive_in_the_layer() {
    let bench = Bench::new();
    let root = bench.root();
    let (result, lines) = bench.sh(
        &root,
        "
        echo text > /srv/file; chown 1000:1001 /srv/file; chmod 4755 /srv/file
        mkdir /srv/dir; chown ann:ann /srv/dir; chmod 2770 /srv/dir
        cp /sbin/setcap /srv/capable; setcap cap_net_raw+ep /srv/capable; getcap /srv/capable
        ln /srv/file /srv/hard; ln -s file /srv/soft; mkfifo /srv/pipe
        chown 65535 /srv/soft -h
        touch -d @1000000000 /srv/old
        rm /srv/gone
        echo left > /tmp/left; echo left > /run/left; echo left > /dev/shm/left
        mknod /srv/device c 1 3 && echo DEVICE MADE
        true",
    );
    let lines = lines.join("\n");
    assert!(
        lines.contains("cap_net_raw=ep") && !lines.contains("DEVICE MADE"),
        "{lines}"
    );
    // `bash -e`: the refused device ends the script unless it stands before `&&`.
    assert!(result.is_ok(), "{result:?} {lines}");

    let layer = bench.harvest(&root, result.start);
    let put = |path: &str| match layer.get(path.as_bytes()) {
        Some(LayerEntry::Put(inode)) => inode.clone(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(put("srv/file").stat, stat(0o4755, 1000, 1001));
    assert_eq!(
        put("srv/file").kind,
        Kind::File(Content::bytes(&b"text\n"[..]))
    );
    assert_eq!(put("srv/dir").stat, stat(0o2770, 1000, 1000));
    // Version 2 of the attribute, for the host's root: the id of the user namespace is gone.
    let capability = &put("srv/capable").xattrs[&b"security.capability"[..]];
    assert_eq!(
        (capability.len(), capability[3], capability[5] & 0x20),
        (20, 2, 0x20),
        "{capability:?}"
    );
    assert_eq!(
        layer[&b"srv/hard"[..]],
        LayerEntry::Link(b"srv/file".to_vec())
    );
    assert_eq!(put("srv/soft").stat.uid, 65535);
    assert_eq!(put("srv/soft").kind, Kind::Symlink(b"file".to_vec()));
    assert_eq!(put("srv/pipe").kind, Kind::Fifo);
    assert_eq!(
        put("srv/old").stat.mtime,
        Timestamp::from_secs(1_000_000_000)
    );
    assert_eq!(layer[&b"srv/gone"[..]], LayerEntry::Whiteout);
    let mut names: Vec<String> = layer
        .keys()
        .map(|k| String::from_utf8_lossy(k).into_owned())
        .collect();
    names.retain(|n| !n.is_empty());
    assert_eq!(
        names,
        [
            "srv",
            "srv/capable",
            "srv/dir",
            "srv/file",
            "srv/gone",
            "srv/hard",
            "srv/old",
            "srv/pipe",
            "srv/soft"
        ],
        "nothing of /tmp, /run, /dev and no mount point"
    );
}

#[test]
fn lent_files_leave_no_trace_and_can_be_replaced() {
    let extra = BTreeMap::from([
        (b"etc/resolv.conf".to_vec(), link("../run/resolv/stub.conf")),
        (b"usr/sbin/tool".to_vec(), file("the image's own\n")),
        (b"usr/sbin/other".to_vec(), file("the image's other\n")),
    ]);
    let bench = Bench::with(&extra);
    let mut root = bench.root();
    let shim = |path: &str| Shim {
        path: path.into(),
        text: "#!/bin/sh\necho lent\n".into(),
        mode: 0o755,
    };
    root.shims = vec![
        shim("/sbin/tool"),
        shim("/usr/sbin/other"),
        shim("/usr/sbin/new"),
        shim("/opt/deep/new"),
    ];
    root.resolv_conf = Some("nameserver 192.0.2.1\n".into());
    let lines = bench.ok(
        &root,
        "/usr/sbin/tool; /sbin/new; /opt/deep/new; cat /etc/resolv.conf; stat -c %a /etc /usr/sbin",
    );
    assert_eq!(
        lines,
        ["lent", "lent", "lent", "nameserver 192.0.2.1", "755", "755"]
    );
    assert_eq!(
        bench
            .harvest(&root, CLOCK)
            .keys()
            .filter(|k| !k.is_empty())
            .count(),
        0
    );

    let mut again = bench.root();
    again.shims.clone_from(&root.shims);
    again.resolv_conf.clone_from(&root.resolv_conf);
    bench.ok(
        &again,
        "echo mine > /etc/resolv.new; mv /etc/resolv.new /etc/resolv.conf; rm /usr/sbin/other; echo x > /usr/sbin/x",
    );
    let layer = bench.harvest(&again, CLOCK);
    let LayerEntry::Put(Inode { kind, .. }) = &layer[&b"etc/resolv.conf"[..]] else {
        panic!("{layer:?}")
    };
    assert_eq!(*kind, Kind::File(Content::bytes(&b"mine\n"[..])));
    assert_eq!(layer[&b"usr/sbin/other"[..]], LayerEntry::Whiteout);
    assert!(
        !layer.contains_key(&b"usr/sbin/tool"[..]) && !layer.contains_key(&b"usr/sbin/new"[..])
    );
}

#[test]
fn several_lowers_and_an_upper_as_lower() {
    let bench = Bench::new();
    let first = bench.root();
    bench.ok(
        &first,
        "echo one > /srv/one; rm /srv/gone; mkdir -m 711 /opt",
    );
    let mut second = bench.root();
    second.lowers.insert(0, first.upper.clone());
    second.shims = vec![Shim {
        path: "/opt/lent".into(),
        text: String::new(),
        mode: 0o600,
    }];
    let lines = bench.ok(
        &second,
        "cat /srv/one /srv/keep; ls /srv; stat -c %a /opt /opt/lent",
    );
    assert_eq!(lines, ["one", "keep", "keep", "one", "711", "600"]);
    // A throw-away upper leaves the lower one as it was.
    bench.ok(&second, "echo two > /srv/one");
    let layer = bench.harvest(&first, CLOCK);
    let LayerEntry::Put(inode) = &layer[&b"srv/one"[..]] else {
        panic!("{layer:?}")
    };
    assert_eq!(inode.kind, Kind::File(Content::bytes(&b"one\n"[..])));
}

#[test]
fn a_component_runs_and_leaves_its_logs() {
    let bench = Bench::new();
    let root = bench.root();
    let text = "
name: web
schemaVersion: 1.0
parameters:
  - Greeting: {type: string, default: none}
phases:
  - name: build
    steps:
      - name: File
        action: CreateFile
        inputs:
          - {path: /opt/www/index.html, content: '{{ Greeting }}', owner: ann, group: '5', permissions: 0640}
      - name: Check
        action: ExecuteBash
        inputs: {commands: ['cat /opt/www/index.html', 'echo; id -u; hostname; ls /tmp; echo $0']}
";
    let mut spec = build(text);
    spec.execution_id = "abc".into();
    spec.documents[0].name = "web.yaml".into();
    spec.documents[0].parameters = BTreeMap::from([("Greeting".into(), "hello".into())]);
    let logs = tempfile::tempdir().unwrap();
    let mut log = ToeLog::create(logs.path(), &spec).unwrap();
    let result = bench
        .sandbox
        .run_component(&root, &spec, &never(), &mut |event| log.event(&event))
        .unwrap();
    let folder = log.dir().to_owned();
    log.finish(&result).unwrap();
    assert_eq!(result.status, Status::Success, "{:?}", result.failure);
    let console = fs_err::read_to_string(folder.join("console.log")).unwrap();
    let stdout: Vec<&str> = console
        .lines()
        .filter_map(|l| Some(l.split_once(" Stdout: ")?.1))
        .collect();
    assert_eq!(
        stdout,
        [
            "hello",
            "0",
            "localhost",
            "AWSTOE000000001",
            "/tmp/AWSTOE000000001/script-000000001.sh"
        ]
    );

    let layer = bench.harvest(&root, result.start);
    let LayerEntry::Put(page) = &layer[&b"opt/www/index.html"[..]] else {
        panic!("{layer:?}")
    };
    assert_eq!(page.stat, stat(0o640, 1000, 5));
    assert_eq!(
        layer[&b"opt/www"[..]],
        dir(0o755),
        "times of the build are the build clock"
    );
}

#[test]
fn a_timeout_kills_everything() {
    let bench = Bench::new();
    let root = bench.root();
    let mut spec = script("setsid sleep 1000 & sleep 1000");
    spec.timeout_seconds = Some(1);
    let start = Instant::now();
    let result = bench
        .sandbox
        .run_script(&root, &spec, &never(), &mut |_| ())
        .unwrap();
    assert!(
        result.timed_out && result.exit_code.is_none() && start.elapsed() < Duration::from_secs(20),
        "{result:?}"
    );
}

#[test]
fn background_processes_end_with_the_job() {
    let bench = Bench::new();
    let root = bench.root();
    let mark = format!("77{}", std::process::id());
    bench.ok(&root, &format!("setsid sleep {mark} > /dev/null 2>&1 &"));
    assert!(!running(&["sleep", &mark]));
}

#[test]
fn cancelling_kills_everything() {
    let bench = Bench::new();
    let root = bench.root();
    let mark = format!("88{}", std::process::id());
    let cancel = Arc::new(AtomicBool::new(false));
    let mut started = false;
    let outcome = bench.sandbox.run_script(
        &root,
        &script(&format!(
            "setsid sleep {mark} & sleep 0.5; echo started; sleep {mark}"
        )),
        &cancel,
        &mut |event| {
            if matches!(event, ChildEvent::Stdout { .. }) {
                started = running(&["sleep", &mark]);
                cancel.store(true, Ordering::Relaxed);
            }
        },
    );
    assert!(
        matches!(outcome, Err(SandboxError::Cancelled)),
        "{outcome:?}"
    );
    assert!(started && !running(&["sleep", &mark]));
}

/// Not a test by itself: the parent that the next test kills.
#[test]
fn parent_to_be_killed() {
    let Some(mark) = std::env::var_os(MARK) else {
        return;
    };
    let bench = Bench::new();
    bench.ok(
        &bench.root(),
        &format!("setsid sleep {0} & sleep {0}", mark.to_str().unwrap()),
    );
}

const MARK: &str = "AMIFORGE_TEST_SLEEP";

#[test]
fn killing_the_parent_kills_everything() {
    let mark = format!("99{}", std::process::id());
    let temp = tempfile::tempdir().unwrap();
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run::parent_to_be_killed"])
        .env(MARK, &mark)
        .env("TMPDIR", temp.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let wait_until = |what: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(60);
        while !what() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        what()
    };
    assert!(wait_until(&|| running(&["sleep", &mark])));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(
        wait_until(&|| !running(&["sleep", &mark])),
        "the job outlived its parent"
    );
    // What it left on disk is removed the way the store does it.
    let sandbox = Sandbox::new(helper(), way()).unwrap();
    let left: Vec<_> = fs_err::read_dir(temp.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(!left.is_empty());
    sandbox.remove_trees(&left).unwrap();
}

#[test]
fn a_large_output_reaches_the_parent_whole() {
    let bench = Bench::new();
    let lines = bench.ok(&bench.root(), "for i in {1..20000}; do echo line $i; done");
    assert_eq!(lines.len(), 20_000);
    assert_eq!(lines[19_999], "line 20000");
}

#[test]
fn a_missing_interpreter_is_an_error_of_the_job() {
    let bench = Bench::new();
    let mut spec = script("true");
    spec.interpreter = vec!["/no/such".into()];
    let error = bench
        .sandbox
        .run_script(&bench.root(), &spec, &never(), &mut |_| ())
        .unwrap_err();
    assert!(
        matches!(&error, SandboxError::Job { what } if what.contains("cannot run the script")),
        "{error:?}"
    );
    assert!(!error.is_environment());
}

#[test]
fn an_image_with_a_link_in_place_of_a_mount_point_is_refused() {
    let bench = Bench::with(&BTreeMap::from([(b"proc".to_vec(), link("/etc"))]));
    let error = bench
        .sandbox
        .run_script(&bench.root(), &script("true"), &never(), &mut |_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains("/proc is not a directory"),
        "{error}"
    );
}

/// Whether a process with these arguments runs on the machine.
fn running(args: &[&str]) -> bool {
    let wanted: Vec<u8> = args
        .iter()
        .flat_map(|a| [a.as_bytes(), b"\0"].concat())
        .collect();
    fs_err::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .any(|cmdline| cmdline == wanted)
}
