//! `component run --root DIR` on a folder, judged by a real chroot on a copy of it, by `find`, `diff` and
//! `getfattr`.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amiforge_testkit::{Env, Finished, Running, amiforge_binary, finish, run, tool};

const PROGRAMS: &[&str] = &[
    "bash", "cat", "chmod", "chown", "cp", "dd", "ln", "ls", "mkdir", "mkfifo", "mv", "rm",
    "setcap", "setfattr", "sleep", "touch", "true",
];

/// An environment with a root file system in the folder `root`, of root or of an ordinary user.
struct Case {
    env: Env,
    /// User and group that run the command, where they are not root.
    user: Option<(u32, u32)>,
}

impl Case {
    fn new(user: Option<(u32, u32)>) -> Self {
        let case = Self {
            // The sandbox has a `/tmp` of its own, where a document could not leave anything.
            env: Env::under(Path::new("/var/tmp")),
            user,
        };
        let env = &case.env;
        let root = env.path("root");
        for dir in ["usr/bin", "etc", "srv", "root"] {
            fs_err::create_dir_all(root.join(dir)).unwrap();
        }
        for top in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{top}"), root.join(top)).unwrap();
        }
        for program in PROGRAMS {
            install(program, &root);
        }
        symlink("bash", root.join("usr/bin/sh")).unwrap();
        env.write("root/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        env.write("root/etc/motd", "hello\n");
        for name in [
            "file", "gone", "keep", "suid", "owned", "capable", "times", "noted", "moved", "kind",
            "one",
        ] {
            env.write(format!("root/srv/{name}"), name);
        }
        for name in [
            "folder/a/b",
            "opaque/old/x",
            "kind2/x",
            "kind3/x",
            "dirmove/in/x",
            "still/x",
        ] {
            env.write(format!("root/srv/{name}"), name);
        }
        fs_err::hard_link(root.join("srv/one"), root.join("srv/two")).unwrap();
        symlink("keep", root.join("srv/stays")).unwrap();
        run(tool("setfattr")
            .args(["-n", "user.kept", "-v", "1"])
            .arg(root.join("etc")));
        run(tool("setfattr")
            .args(["-n", "user.kept", "-v", "2"])
            .arg(&root));
        case.age();
        if let Some((uid, gid)) = user {
            let own = format!("{uid}:{gid}");
            run(tool("chown").args(["-R", "-h", &own]).arg(env.path("")));
            let open = std::fs::Permissions::from_mode(0o755);
            fs_err::set_permissions(env.path(""), open).unwrap();
            fs_err::copy(amiforge_binary(), env.path("amiforge")).unwrap();
        }
        case
    }

    /// Gives all files an old time, so that those that change later can be told from the others.
    fn age(&self) {
        run(tool("find")
            .arg(self.root())
            .args(["-depth", "-exec"])
            .args([
                "touch",
                "-h",
                "-d",
                "2020-01-02T03:04:05.678901234Z",
                "{}",
                "+",
            ]));
    }

    fn root(&self) -> PathBuf {
        self.env.path("root")
    }

    /// A document that runs these scripts, one step each.
    fn document(&self, scripts: &[&str]) {
        let mut text = "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n".to_owned();
        for (number, script) in scripts.iter().enumerate() {
            text.push_str(&format!(
                "      - name: Step{number}\n        action: ExecuteBash\n        inputs:\n          commands:\n            - |\n"
            ));
            for line in script.lines() {
                text.push_str(&format!("              {line}\n"));
            }
        }
        self.env.write("document.yaml", text);
    }

    fn command(&self) -> Command {
        self.command_on(&self.root())
    }

    fn command_on(&self, root: &Path) -> Command {
        let mut command = match self.user {
            None => self.env.amiforge(),
            Some((uid, gid)) => {
                let mut command = self.env.command(self.env.path("amiforge"));
                command.uid(uid).gid(gid);
                command
            }
        };
        command
            .args([
                "component",
                "run",
                "document.yaml",
                "--log-dir",
                "logs",
                "--root",
            ])
            .arg(root)
            .current_dir(self.env.path(""));
        command
    }

    fn run(&self, scripts: &[&str]) -> Finished {
        self.document(scripts);
        finish(&mut self.command())
    }

    /// Types, modes, owners, times, links and attributes of all files, and their content.
    fn listing(&self, root: &Path) -> String {
        let format = "%P %y %m %U:%G %n %T+ %l\n";
        let found = run(tool("find").arg(root).args(["-printf", format])).text();
        let mut lines: Vec<String> = found
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let words: Vec<&str> = words
                    .iter()
                    // When a program ran is not what is compared.
                    .map(|word| {
                        if word.starts_with("202")
                            && word.contains('+')
                            && !word.starts_with("2020")
                        {
                            "now"
                        } else {
                            word
                        }
                    })
                    .collect();
                words.join(" ")
            })
            .collect();
        lines.sort();
        let mut attributes = tool("getfattr");
        attributes.args([
            "-R",
            "-h",
            "-P",
            "-d",
            "-m",
            "^(user|security.capability|system)",
            ".",
        ]);
        lines.push(run(attributes.current_dir(root)).text());
        let mut sums = tool("find");
        sums.args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"]);
        let mut sums: Vec<String> = run(sums.current_dir(root))
            .text()
            .lines()
            .map(str::to_owned)
            .collect();
        sums.sort();
        lines.extend(sums);
        lines.join("\n")
    }

    /// What nothing but `stat` shows: when inodes changed.
    fn stamps(&self) -> String {
        let mut find = tool("find");
        find.args([".", "-printf", "%p %i %C@ %T@\n"])
            .current_dir(self.root());
        let mut lines: Vec<String> = run(&mut find).text().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    }

    fn nothing_of_ours(&self) {
        let mut find = tool("find");
        let found = run(find.arg(self.root()).args(["-name", "*amiforge*"])).text();
        assert_eq!(found, "");
        let left = run(tool("find")
            .arg(self.env.state().join("store/v1/tmp"))
            .args(["-mindepth", "1"]));
        assert_eq!(left.text(), "");
        assert_eq!(self.env.processes(), Vec::<String>::new());
    }
}

/// A program with the libraries that it loads.
fn install(program: &str, root: &Path) {
    let found = ["/usr/bin", "/usr/sbin"].map(|dir| Path::new(dir).join(program));
    let found = found.iter().find(|path| path.exists()).unwrap();
    fs_err::copy(found, root.join("usr/bin").join(program)).unwrap();
    let listed = run(tool("ldd").arg(found)).text();
    for library in listed
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let path =
            Path::new("/usr").join(library.trim_start_matches("/usr").trim_start_matches('/'));
        let to = root.join(path.strip_prefix("/").unwrap());
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(library, to).unwrap();
    }
}

/// The ordinary user that tests of the sandbox use, too.
fn ordinary() -> (u32, u32) {
    let [passwd, subuid] =
        ["/etc/passwd", "/etc/subuid"].map(|path| fs_err::read_to_string(path).unwrap());
    let ranges: BTreeSet<&str> = subuid
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    let user = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let known = fields[0] != "root" && ranges.contains(fields[0]);
        known.then(|| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    });
    user.expect(
        "no user of this machine has subordinate ids: useradd --create-home amiforge-tester",
    )
}

/// Every kind of change.
const CHANGES: &str = "\
set -e
cd /srv
echo new > file
echo added > added
mkdir -p made/deep
echo x > made/deep/x
rm gone
rm -r folder
ln added hard
ln keep keep2
ln -s /etc/passwd link
ln -s ../../../../etc up
mkfifo pipe
chmod 2775 made
chmod 1777 made/deep
chmod 4755 suid
touch -d 2001-02-03T04:05:06.123456789Z times
rm -r opaque
mkdir opaque
echo new > opaque/new
rm kind
mkdir kind
echo x > kind/x
rm -r kind2
echo x > kind2
rm -r kind3
ln -s kind2 kind3
mv moved moved2
mv dirmove dirmoved
dd if=/dev/null of=hole bs=1 seek=1048576 2> /dev/null
setfattr -n user.note -v text noted
chmod 600 two
echo more >> /etc/motd
echo top > /top
";

/// Those that an ordinary user cannot make outside.
const CHANGES_OF_ROOT: &str = "\
set -e
cd /srv
chown 1000:1001 owned
chown -h 1002 link
chown 1000 suid
chmod 6755 suid
setcap cap_net_raw+ep capable
";

#[test]
fn a_folder_is_changed_as_by_a_chroot() {
    let case = Case::new(None);
    run(tool("mknod")
        .arg(case.root().join("srv/null"))
        .args(["c", "1", "3"]));
    chown(case.root().join("srv/still"), Some(123_456), Some(7)).unwrap();
    case.age();
    let copy = case.env.path("copy");
    run(tool("cp").args(["-a"]).arg(case.root()).arg(&copy));
    assert_eq!(case.listing(&case.root()), case.listing(&copy));
    let mut judge = tool("chroot");
    judge
        .arg(&copy)
        .args(["/bin/bash", "-c", &format!("{CHANGES}{CHANGES_OF_ROOT}")]);
    fs_err::create_dir(copy.join("dev")).unwrap();
    fs_err::write(copy.join("dev/null"), "").unwrap();
    run(&mut judge);
    fs_err::remove_dir_all(copy.join("dev")).unwrap();

    let end = case.run(&[CHANGES, CHANGES_OF_ROOT]).expect_code(0);
    assert_eq!(end.json()["executedStepCount"], 2);
    assert!(!end.stderr.contains("warning"), "{}", end.stderr);
    similar(&case.listing(&case.root()), &case.listing(&copy));
    let same = |a: &str, b: &str| {
        let of = |name: &str| {
            fs_err::metadata(case.root().join("srv").join(name))
                .unwrap()
                .ino()
        };
        of(a) == of(b)
    };
    assert!(same("added", "hard") && same("keep", "keep2") && same("one", "two"));
    case.nothing_of_ours();
}

/// Both listings are the same; what differs is shown.
#[track_caller]
fn similar(found: &str, expected: &str) {
    let [a, b] = [found, expected].map(|text| text.lines().collect::<BTreeSet<_>>());
    let only: Vec<_> = a.difference(&b).collect();
    let lacking: Vec<_> = b.difference(&a).collect();
    assert!(
        only.is_empty() && lacking.is_empty(),
        "only here: {only:#?}\nlacking: {lacking:#?}"
    );
}

#[test]
fn a_folder_of_an_ordinary_user_is_changed_and_what_cannot_be_is_told() {
    let case = Case::new(Some(ordinary()));
    let copy = case.env.path("copy");
    run(tool("cp").arg("-a").arg(case.root()).arg(&copy));
    fs_err::create_dir(copy.join("dev")).unwrap();
    fs_err::write(copy.join("dev/null"), "").unwrap();
    run(tool("chroot").arg(&copy).args(["/bin/bash", "-c", CHANGES]));
    fs_err::remove_dir_all(copy.join("dev")).unwrap();
    let (uid, gid) = ordinary();
    run(tool("chown")
        .args(["-R", "-h", &format!("{uid}:{gid}")])
        .arg(&copy));
    // That took it away again.
    run(tool("chmod").arg("4755").arg(copy.join("srv/suid")));
    run(tool("chmod").arg("2775").arg(copy.join("srv/made")));
    let end = case.run(&[CHANGES]).expect_code(0);
    assert!(!end.stderr.contains("warning"), "{}", end.stderr);
    similar(&case.listing(&case.root()), &case.listing(&copy));

    let end = case.run(&[CHANGES_OF_ROOT]).expect_code(0);
    assert!(
        end.stderr.contains("this user may not set all") && end.stderr.contains("owner of 3"),
        "{}",
        end.stderr
    );
    let suid = fs_err::metadata(case.root().join("srv/suid")).unwrap();
    assert_eq!((suid.uid(), suid.mode() & 0o7777), (uid, 0o755));
    case.nothing_of_ours();
}

#[test]
fn a_run_that_changes_nothing_leaves_the_folder_alone() {
    let case = Case::new(None);
    let before = case.stamps();
    case.run(&["cat /etc/passwd; ls /srv; test -d /proc/1; echo x > /tmp/x; echo y > /run/y"])
        .expect_code(0);
    assert_eq!(case.stamps(), before);
}

#[test]
fn what_was_changed_before_a_step_failed_is_in_the_folder() {
    let case = Case::new(None);
    let end = case.run(&[
        "echo new > /srv/file",
        "echo half > /srv/half; exit 7",
        "rm /srv/keep",
    ]);
    let end = end.expect_code(1);
    assert_eq!(end.json()["failedStepCount"], 1);
    assert!(
        end.stderr.contains("what was changed until then"),
        "{}",
        end.stderr
    );
    let read = |name: &str| fs_err::read_to_string(case.root().join("srv").join(name)).unwrap();
    assert_eq!(
        (read("file"), read("half"), read("keep")),
        ("new\n".into(), "half\n".into(), "keep".into())
    );
    let logs = case
        .env
        .path("")
        .join(end.json()["logUrl"].as_str().unwrap());
    assert!(logs.join("console.log").is_file());
}

#[test]
fn a_step_goes_on_after_a_restart_on_what_it_changed() {
    let case = Case::new(None);
    let script = "test -e /srv/flag || { touch /srv/flag; exit 194; }; echo after > /srv/after";
    case.run(&[script]).expect_code(0);
    assert!(case.root().join("srv/flag").exists() && case.root().join("srv/after").exists());
}

#[test]
fn links_of_a_hostile_document_lead_nowhere_else() {
    let case = Case::new(None);
    let victim = case.env.path("victim");
    fs_err::create_dir_all(victim.join("sub")).unwrap();
    case.env.write("victim/file", "mine");
    symlink(&victim, case.root().join("srv/before")).unwrap();
    let before = case.listing(&victim);
    let place = victim.display();
    let first = format!(
        "ln -s / /srv/out; echo x > /srv/out/etc/HOSTILE; ln -s ../../../../../../../..{place} /srv/dots; \
         rm -r /srv/still; ln -s {place} /srv/still; mkdir -p {place}/sub; echo x > /srv/before/file; \
         echo x > /srv/dots/dots; echo x > /srv/still/sub/still"
    );
    case.run(&[
        &first,
        "echo y > /srv/still/second; chmod 777 /srv/still/sub",
    ])
    .expect_code(0);
    assert_eq!(case.listing(&victim), before);
    assert!(!Path::new("/etc/HOSTILE").exists());
    assert!(case.root().join("etc/HOSTILE").is_file());
    assert_eq!(
        fs_err::read_link(case.root().join("srv/still")).unwrap(),
        victim
    );
    // Once more, where the folder itself has the links.
    let inside = case.root().join(victim.strip_prefix("/").unwrap());
    assert!(inside.join("second").is_file());
    case.run(&["echo z > /srv/still/sub/third; rm /srv/before; mkdir /srv/before; echo z > /srv/before/file"])
        .expect_code(0);
    assert_eq!(case.listing(&victim), before);
    assert!(inside.join("sub/third").is_file());
}

#[test]
fn a_file_with_several_names_that_is_written_under_one_is_told() {
    let case = Case::new(None);
    let end = case.run(&["echo other > /srv/one"]).expect_code(0);
    assert!(end.stderr.contains("several names"), "{}", end.stderr);
    let read = |name: &str| fs_err::read_to_string(case.root().join("srv").join(name)).unwrap();
    assert_eq!((read("one"), read("two")), ("other\n".into(), "one".into()));
}

#[test]
fn somebody_elses_change_is_not_lost_and_two_runs_do_not_mix() {
    let case = Case::new(None);
    case.document(&["echo ready; echo new > /srv/file; echo x > /srv/added; while test ! -e /run/x; do sleep 1; test $((++n)) -lt 8 || break; done"]);
    let mut running = Running::spawn(&mut case.command());
    running.wait_for_stderr("ready", Duration::from_secs(60));
    let other = finish(&mut case.command()).expect_code(1);
    assert!(
        other.stderr.contains("another run works on"),
        "{}",
        other.stderr
    );
    case.env.write("root/srv/file", "of somebody else");
    let end = running.wait(Duration::from_secs(60));
    let end = end.expect_code(1);
    assert!(
        end.stderr.contains("somebody else changed it")
            && end.stderr.contains("nothing was written"),
        "{}",
        end.stderr
    );
    assert_eq!(
        fs_err::read_to_string(case.root().join("srv/file")).unwrap(),
        "of somebody else"
    );
    assert!(!case.root().join("srv/added").exists());
    case.nothing_of_ours();
}

#[test]
fn a_killed_run_leaves_old_or_new_files_and_the_next_one_clears_up() {
    let case = Case::new(None);
    for number in 0..400 {
        case.env.write(format!("root/srv/many/{number}"), "old");
    }
    let script = "cd /srv/many; for file in *; do printf new > $file; done; echo ready";
    case.document(&[script]);
    for delay in [0, 20, 60, 120] {
        let mut running = Running::spawn(&mut case.command());
        running.wait_for_stderr("ready", Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(delay));
        let _ended = running.kill9();
        for number in 0..400 {
            let text =
                fs_err::read_to_string(case.root().join(format!("srv/many/{number}"))).unwrap();
            assert!(text == "old" || text == "new", "{text:?}");
        }
    }
    finish(&mut case.command()).expect_code(0);
    case.nothing_of_ours();
    // What one that is killed between two names leaves, whether or not one of those was.
    let key = fs_err::metadata(case.root()).unwrap();
    let record = case.env.state().join(format!(
        "store/v1/records/folder-runs/{}-{}.json",
        key.dev(),
        key.ino()
    ));
    assert!(!record.exists());
    fs_err::write(&record, r#"{"version": 1, "spare": ".amiforge-left"}"#).unwrap();
    case.env.write("root/srv/.amiforge-left", "half");
    finish(&mut case.command()).expect_code(0);
    for number in 0..400 {
        let text = fs_err::read_to_string(case.root().join(format!("srv/many/{number}"))).unwrap();
        assert_eq!(text, "new");
    }
    case.nothing_of_ours();
}

#[test]
fn mounts_and_places_inside_of_the_folder_are_refused() {
    let case = Case::new(None);
    case.document(&["true"]);
    fs_err::create_dir_all(case.root().join("mnt")).unwrap();
    let run = |mounts: &str, root: &Path| {
        let command = case.command_on(root);
        let mut words = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
        let mut shell = case.env.command("unshare");
        shell
            .args([
                "--mount",
                "sh",
                "-c",
                &format!("{mounts} && exec \"$@\""),
                "sh",
            ])
            .args(words);
        finish(shell.current_dir(case.env.path("")))
    };
    let root = case.root();
    let bind = |from: &str, to: &Path| format!("mount --bind {from} {}", to.display());
    let end = run(&bind("/etc", &root.join("mnt")), &root).expect_code(2);
    assert!(end.stderr.contains("is a mount point"), "{}", end.stderr);
    // The machine itself, whatever the way there.
    for (mounts, root) in [
        (bind("/", &root), root.clone()),
        ("true".to_owned(), PathBuf::from("//")),
        (
            format!("ln -sfn / {}", case.env.path("way").display()),
            case.env.path("way"),
        ),
    ] {
        let end = run(&mounts, &root).expect_code(2);
        assert!(end.stderr.contains("--live"), "{}", end.stderr);
    }
    let mut command = case.env.amiforge();
    command
        .args(["component", "run", "document.yaml", "--root"])
        .arg(&root);
    let end = finish(
        command
            .arg("--log-dir")
            .arg(root.join("srv/logs"))
            .current_dir(case.env.path("")),
    );
    let end = end.expect_code(2);
    assert!(end.stderr.contains("--log-dir"), "{}", end.stderr);
    let home = root.join("srv/home");
    let end = finish(case.command().env("AMIFORGE_HOME", &home)).expect_code(2);
    assert!(end.stderr.contains("the store"), "{}", end.stderr);
    assert!(!home.exists());
    let end = finish(&mut case.command_on(&case.env.path("document.yaml"))).expect_code(2);
    assert!(end.stderr.contains("not a folder"), "{}", end.stderr);
}

#[test]
fn what_may_not_be_changed_is_found_before_anything_is_written() {
    let case = Case::new(None);
    run(tool("chattr").arg("+i").arg(case.root().join("srv/keep")));
    let end = case.run(&["echo x > /srv/added; rm /srv/keep"]);
    run(tool("chattr").arg("-i").arg(case.root().join("srv/keep")));
    let end = end.expect_code(1);
    assert!(
        end.stderr.contains("immutable") && end.stderr.contains("nothing was written"),
        "{}",
        end.stderr
    );
    assert!(!case.root().join("srv/added").exists() && case.root().join("srv/keep").exists());

    let case = Case::new(Some(ordinary()));
    chown(case.root().join("etc"), Some(0), Some(0)).unwrap();
    let before = case.stamps();
    let end = case
        .run(&["echo x > /srv/added; echo y > /etc/added"])
        .expect_code(1);
    assert!(end.stderr.contains("may not write to"), "{}", end.stderr);
    assert_eq!(case.stamps(), before);
    // A directory of one's own may be without the right to write: that is no hindrance, and stays so.
    let closed = case.root().join("srv/folder");
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    case.run(&["echo x > /srv/folder/added; rm -r /srv/folder/a"])
        .expect_code(0);
    assert_eq!(fs_err::metadata(&closed).unwrap().mode() & 0o7777, 0o555);
    assert!(closed.join("added").is_file() && !closed.join("a").exists());
}

#[test]
fn files_that_the_sandbox_lends_are_not_left_in_the_folder() {
    let case = Case::new(None);
    let root = case.root();
    fs_err::create_dir_all(root.join("usr/sbin")).unwrap();
    case.env
        .write("root/etc/resolv.conf", "nameserver 192.0.2.1\n");
    case.age();
    let before = case.listing(&root);
    let script = "chown -R 0:0 /etc; chmod -R go-w /usr/sbin; touch /sbin/policy-rc.d /etc/resolv.conf; test -x /sbin/policy-rc.d";
    case.run(&[script]).expect_code(0);
    similar(&case.listing(&root), &before);
    // What a step writes itself stays, also through a link among the directories.
    fs_err::remove_dir(root.join("usr/sbin")).unwrap();
    symlink("bin", root.join("usr/sbin")).unwrap();
    run(tool("setfattr")
        .args(["-n", "user.kept", "-v", "3"])
        .arg(root.join("usr/bin")));
    case.run(&["echo 'nameserver 192.0.2.2' > /etc/resolv.conf; touch /usr/bin/new; chmod 755 /sbin/policy-rc.d"])
        .expect_code(0);
    let text = fs_err::read_to_string(root.join("etc/resolv.conf")).unwrap();
    assert_eq!(text, "nameserver 192.0.2.2\n");
    assert!(root.join("usr/bin/new").exists() && !root.join("usr/bin/policy-rc.d").exists());
    let kept = run(tool("getfattr")
        .args(["-n", "user.kept", "--only-values"])
        .arg(root.join("usr/bin")));
    assert_eq!(kept.text(), "3");
}

#[test]
fn a_tree_with_a_folder_of_somebody_else_is_removed_whole_or_not_at_all() {
    let case = Case::new(Some(ordinary()));
    chown(case.root().join("srv/folder/a"), Some(0), Some(0)).unwrap();
    let before = case.stamps();
    let end = case.run(&["rm -rf /srv/folder"]).expect_code(1);
    assert!(
        end.stderr.contains("may not write to \"srv/folder/a\"")
            && end.stderr.contains("nothing was written"),
        "{}",
        end.stderr
    );
    assert_eq!(case.stamps(), before);
}

#[test]
fn what_a_killed_run_left_and_cannot_be_removed_is_told_and_hidden() {
    let case = Case::new(Some(ordinary()));
    case.run(&["echo x > /srv/added"]).expect_code(0);
    let key = fs_err::metadata(case.root()).unwrap();
    let records = case.env.state().join("store/v1/records/folder-runs");
    let record = records.join(format!("{}-{}.json", key.dev(), key.ino()));
    fs_err::write(&record, r#"{"version": 1, "spare": ".amiforge-left"}"#).unwrap();
    let left = "srv/folder/.amiforge-left/x";
    case.env.write(format!("root/{left}"), "");
    for path in ["srv/folder/.amiforge-left", left] {
        chown(case.root().join(path), Some(0), Some(0)).unwrap();
    }
    for _ in 0..2 {
        let end = case
            .run(&["test ! -e /srv/folder/.amiforge-left; echo y >> /srv/added"])
            .expect_code(0);
        assert!(
            end.stderr.contains("srv/folder/.amiforge-left")
                && end.stderr.contains("cannot be removed"),
            "{}",
            end.stderr
        );
    }
    // One of another version is none.
    fs_err::write(&record, r#"{"version": 2, "spare": "motd"}"#).unwrap();
    run(tool("rm")
        .arg("-r")
        .arg(case.root().join("srv/folder/.amiforge-left")));
    case.run(&["echo z >> /srv/added"]).expect_code(0);
    assert!(case.root().join("etc/motd").exists() && !record.exists());
}

#[test]
fn somebody_elses_mode_of_a_folder_is_not_reverted() {
    let case = Case::new(None);
    case.document(&["echo ready; echo x > /srv/added; while test ! -e /run/x; do sleep 1; test $((++n)) -lt 8 || break; done"]);
    let mut running = Running::spawn(&mut case.command());
    running.wait_for_stderr("ready", Duration::from_secs(60));
    let private = std::fs::Permissions::from_mode(0o700);
    fs_err::set_permissions(case.root().join("srv"), private).unwrap();
    let end = running.wait(Duration::from_secs(60)).expect_code(1);
    assert!(
        end.stderr.contains("somebody else changed it")
            && end.stderr.contains("nothing was written"),
        "{}",
        end.stderr
    );
    assert!(!case.root().join("srv/added").exists());
    let records = case.env.state().join("store/v1/records/folder-runs");
    assert_eq!(fs_err::read_dir(records).unwrap().count(), 0);
}

#[test]
fn moved_files_whose_owner_the_sandbox_does_not_have_are_told() {
    let case = Case::new(None);
    for name in ["moved", "keep"] {
        chown(case.root().join("srv").join(name), Some(123_456), Some(7)).unwrap();
    }
    let end = case
        .run(&["mv /srv/moved /srv/moved2; chmod 600 /srv/keep"])
        .expect_code(0);
    assert!(end.stderr.contains("1 files of"), "{}", end.stderr);
    let uid = |name: &str| fs_err::metadata(case.root().join(name)).unwrap().uid();
    assert_eq!((uid("srv/moved2"), uid("srv/keep")), (65_534, 123_456));
}

/// A user of no account: without subordinate ids there is no sandbox for it.
const NOBODYS: u32 = 61_111;

#[test]
fn steps_that_need_nothing_but_files_need_no_sandbox() {
    let case = Case::new(Some((NOBODYS, NOBODYS)));
    symlink("/../../../etc/motd", case.root().join("srv/out")).unwrap();
    let steps = [
        "CreateFile\n        inputs: [{path: /srv/new/file, content: text, permissions: '0640'}]",
        "AppendFile\n        inputs: [{path: /srv/out, content: more}]",
        "MoveFolder\n        inputs: [{source: /srv/folder, destination: /srv/moved-folder}]",
        "DeleteFile\n        inputs: [{path: '/srv/k*'}]",
        "CreateSymlink\n        inputs: [{path: /srv/null, target: /dev/null}]",
    ];
    let document = |steps: &[&str]| {
        let mut text = "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n".to_owned();
        for (number, step) in steps.iter().enumerate() {
            let step = format!("      - name: Step{number}\n        action: {step}\n");
            text.push_str(&step);
        }
        case.env.write("document.yaml", text);
    };
    document(&steps);
    let end = finish(&mut case.command()).expect_code(0);
    assert_eq!(end.json()["executedStepCount"], 5);
    let read = |path: &str| fs_err::read_to_string(case.root().join(path)).unwrap();
    assert_eq!(read("srv/new/file"), "text");
    assert_eq!(read("etc/motd"), "hello\nmore", "and not the host's");
    assert_eq!(read("srv/moved-folder/a/b"), "folder/a/b");
    assert!(!case.root().join("srv/folder").exists());
    assert!(!case.root().join("srv/keep").exists());
    let null = fs_err::read_link(case.root().join("srv/null")).unwrap();
    assert_eq!(null, Path::new("/dev/null"));
    let made = fs_err::metadata(case.root().join("srv/new/file")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (NOBODYS, 0o640));
    case.nothing_of_ours();

    // Its `/proc` is that of a sandbox, which this user has not in the way that is asked for.
    let before = case.stamps();
    document(&[
        "CreateFile\n        inputs: [{path: /srv/other, content: text}]",
        "ListFiles\n        inputs: [{path: /proc/1}]",
    ]);
    let end = finish(case.command().args(["--sandbox", "mapped-ids"])).expect_code(3);
    assert!(end.stderr.contains("subuid"), "{}", end.stderr);
    assert_eq!(case.stamps(), before);
}
