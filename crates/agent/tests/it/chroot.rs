//! What is particular to steps in a changed root directory, without namespaces.

use std::collections::BTreeMap;

use amiforge_exec::Way;
use amiforge_tree::LayerEntry;

use crate::ordinary::is_root;
use crate::root::{Bench, dir, file, link, programs, way};
use crate::steps::{CROWD, marked, run};

/// A folder `/base` of everything that there is to change.
fn base() -> BTreeMap<Vec<u8>, LayerEntry> {
    let mut entries = programs();
    let mut put = |path: &str, entry: LayerEntry| entries.insert(path.as_bytes().to_vec(), entry);
    put("base", dir(0o755));
    for name in ["a", "b", "c", "d", "e"] {
        put(&format!("base/{name}"), file(&format!("text of {name}\n")));
    }
    put("base/folder", dir(0o750));
    put("base/folder/x", file("x\n"));
    put("base/folder/y", file("y\n"));
    put("base/folder/deep", dir(0o755));
    put("base/folder/deep/z", file("z\n"));
    put("base/other", dir(0o755));
    put("base/other/o", file("o\n"));
    put("base/empty", dir(0o755));
    put("base/link", link("a"));
    put("base/h1", file("several names\n"));
    for name in ["h2", "h3"] {
        put(
            &format!("base/{name}"),
            LayerEntry::Link(b"base/h1".to_vec()),
        );
    }
    entries
}

/// What steps do to files, one a line; each is tried on a root of its own.
const CHANGES: &[&str] = &[
    "true",
    "echo more >> a; echo new > b; echo other > new; mkdir -p deep/er; echo n > deep/er/n",
    "rm a; rm -r folder; rmdir empty",
    // The inode number of what was removed is used again at once
    "rm -r folder; mkdir folder; echo n > folder/x",
    "rmdir empty; mkdir empty; rm a; echo n > a",
    // Another type in the place
    "rm -r folder; echo file > folder; rm a; mkdir a; touch a/in; rm b; ln -s a b; rm link; mkfifo link",
    "mv folder moved; mv a moved/a; mv b c; mv other/o folder 2>/dev/null; mv link link2",
    "mv folder/deep .; mv folder deep/f; mkdir folder",
    "chmod 700 a; chown 5:6 b; chmod 2775 folder; chown 7 folder/deep; chown -h 8:9 link; touch -d @1000000000 c other",
    "chown -R 0:0 .",
    "touch -a a; : >> b; exec 3<>c; exec 3>&-; cat d > /dev/null",
    "mkdir t; touch t/x; rm -r t; touch folder/t; rm folder/t",
    // Several names of one file
    "echo more >> h2",
    "chmod 600 h3; rm h1",
    "chown 5 h1 h2",
    "ln a another; ln folder/x folder/deep/x2; echo more >> another",
    "cp -a h1 h2 h3 other/; ln other/h1 other/h4",
    "rm h2; cp -a h1 h5; ln h5 h6",
    "mv h1 other/; echo n > h1",
    "cp /bin/cat tool; setcap cap_net_raw+ep tool; chmod 4755 tool; cp -a tool tool2; perl -e 'open F, \">sparse\"; seek F, 1<<20, 0; print F 1; close F'",
    "cp -a /base /base2; rm -rf /base; mkdir /base; mv /base2/folder /base/",
    "chmod 711 /; touch /top; rm -r /srv",
    // What is not the image's stays out of it
    "touch /tmp/a /run/b /dev/shm/c /dev/d 2>/dev/null; mkdir /tmp/e; cp -a /tmp/e e; mv /tmp/a moved",
    "mknod whiteout c 0 0 2>/dev/null; perl -e 'my ($f, $t) = (\"/base/a\", \"/base/renamed\"); syscall(316, -100, $f, -100, $t, 4)'",
];

/// The layers that jobs leave are those of jobs on an overlay of the kernel's, also when one goes on where another ended.
#[test]
fn the_same_changes_as_an_overlay() {
    if !is_root() || way() != Way::MappedIds {
        return;
    }
    let benches = [Way::MappedIds, Way::Chroot].map(|way| Bench::in_way(way, base()));
    let layers = |one: &str, two: Option<&str>| {
        benches.each_ref().map(|bench| {
            let root = bench.root();
            let start = bench.sh(&root, &format!("cd /base\n{one}")).0.start;
            if let Some(two) = two {
                bench.sh(&root, &format!("cd /base 2>/dev/null\n{two}"));
            }
            bench.harvest(&root, start)
        })
    };
    let mut wrong = Vec::new();
    for (number, one) in CHANGES.iter().enumerate() {
        // Every third goes on.
        let next = CHANGES.get(number + 1).copied().filter(|_| number % 3 == 0);
        for two in std::iter::once(None).chain(next.map(Some)) {
            let [overlay, ours] = layers(one, two);
            let differs = |path: &&Vec<u8>| overlay.get(*path) != ours.get(*path);
            let all = overlay.keys().chain(ours.keys());
            for path in all.filter(differs) {
                wrong.push(format!(
                    "{one} | {two:?}: {}:\n  overlay {:?}\n  ours    {:?}",
                    String::from_utf8_lossy(path),
                    overlay.get(path),
                    ours.get(path)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each line is one attempt; a line that prints `REACHED` got somewhere.
const ATTEMPTS: &str = r#"
set +e
reached() { echo "REACHED: $*"; }
mkdir /tmp/below
perl -e 'my $p = "/tmp/below"; exit(0 == syscall(161, $p) ? 0 : 1)' && reached another root directory
perl -e 'my $h = pack("LLQ", 8, 1, 2); my $m = 0; exit(syscall(304, 0, $h, 0) >= 0 ? 0 : 1)' && reached a file by its handle
perl -e 'exit(0 == syscall(272, 0x10000000) ? 0 : 1)' && reached a user namespace
perl -e 'exit(0 == syscall(62, -1, 0) ? 0 : 1)' && reached everybody
perl -e 'exit(0 == syscall(62, SUPERVISOR, 0) ? 0 : 1)' && reached who started this
perl -e 'exit(0 == syscall(302, SUPERVISOR, 7, 0, 0) ? 0 : 1)' && reached the limits of who started this
perl -e 'exit(0 == syscall(310, SUPERVISOR, 0, 0, 0, 0, 0) ? 0 : 1)' && reached the memory of who started this
perl -e 'exit(0 == syscall(72, 0, 8, SUPERVISOR) ? 0 : 1)' && reached who started this by a descriptor
perl -e 'my $p = fork; if (!$p) { sleep 9; exit } my $r = syscall(101, 0x4206, $p, 0, 0); kill 9, $p; exit($r == 0 ? 0 : 1)' && reached another process
perl -e 'my $p = "\0"; $p x= 120; exit(syscall(425, 8, $p) >= 0 ? 0 : 1)' && reached io_uring
perl -e 'exit(syscall(41, 16, 3, 9) >= 0 ? 0 : 1)' && reached the audit log
mknod /srv/white c 0 0 2>/dev/null && reached a whiteout
ls /proc/* /sys/* 2>/dev/null && reached the kernel
ls /HOST_MARK ../../../../../HOST_MARK 2>/dev/null && reached the host
true
"#;

#[test]
fn root_cannot_leave_its_directory() {
    if way() != Way::Chroot {
        return;
    }
    let bench = Bench::new();
    fs_err::write(bench.dir.path().join("HOST_MARK"), "x").unwrap();
    let sockets = "LC_ALL=C perl -e 'for my $f (1, 2, 10, 16) { $! = 0; my $r = syscall(41, $f, $f == 16 ? 3 : 1, 0); print \"$f \", ($r >= 0 ? \"yes\" : $!), \"\\n\" }'";
    let attempts = ATTEMPTS.replace("SUPERVISOR", &std::process::id().to_string());
    for network in [false, true] {
        let mut root = bench.root();
        root.network = network;
        let (result, lines) = bench.sh(&root, &attempts);
        let text = lines.join("\n");
        assert!(
            result.is_ok() && !text.contains("REACHED"),
            "network {network}: {result:?}\n{text}"
        );
        let no = "Address family not supported by protocol";
        let lines = bench.ok(&root, sockets);
        let expected = match network {
            true => ["1 yes", "2 yes", "10 yes", "16 yes"].map(str::to_owned),
            false => [
                "1 yes".to_owned(),
                format!("2 {no}"),
                format!("10 {no}"),
                format!("16 {no}"),
            ],
        };
        assert_eq!(lines, expected, "network {network}");
    }
}

#[test]
fn too_many_processes_are_ended() {
    if way() != Way::Chroot {
        return;
    }
    let bench = Bench::new();
    let mark = format!("CROWD_{}", std::process::id());
    let mut root = bench.root();
    root.limits.processes = 64;
    let steps = format!(
        "
      - {{name: Crowd, action: ExecuteBash, timeoutSeconds: 100, inputs: {{commands: [\"{}\"]}}}}
",
        CROWD.replace("MARK", &mark)
    );
    let (result, _) = run(&bench, &root, None, &steps);
    assert_eq!(marked(&mark), 0, "nothing of it is left");
    let failure = result.failure.unwrap();
    let told = "; it reached the limit of 64 processes (amiforge.limits.processes of the recipe)";
    assert!(failure.reason.ends_with(told), "{failure}");
    // The next job has all of them.
    assert_eq!(bench.ok(&bench.root(), "echo fine"), ["fine"]);
}

#[test]
fn what_is_left_running_ends_with_the_job() {
    if way() != Way::Chroot {
        return;
    }
    let bench = Bench::new();
    for ending in ["exit 3", "kill -9 $$", "true"] {
        let mark = format!("55{}", std::process::id());
        // Forked twice, in sessions of their own, as somebody else, and deaf.
        let text = format!(
            "export LC_ALL=C; perl -e 'fork and exit; syscall(112); fork and exit; $SIG{{TERM}} = $SIG{{HUP}} = \"IGNORE\"; $) = $( = 1000; $< = $> = 1000; open STDOUT, \">/dev/null\"; open STDERR, \">/dev/null\"; exec \"sleep\", \"{mark}\"'
            (setsid sleep {mark} &) > /dev/null 2>&1
            sleep 0.3; {ending}"
        );
        let (result, _) = bench.sh(&bench.root(), &text);
        assert_eq!(result.is_ok(), ending == "true", "{result:?}");
        assert_eq!(marked(&mark), 0, "after {ending}");
    }
}
