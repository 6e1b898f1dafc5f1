//! `diff` between disks whose differences are known, with rsync, mke2fs and dpkg's own files as judges.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, finish, run, tool};
use serde_json::Value;

/// Runs a script in `name`, a folder of the environment; it has to succeed.
fn sh(env: &Env, name: &str, script: &str) -> PathBuf {
    let dir = env.path(name);
    fs_err::create_dir_all(&dir).unwrap();
    run(tool("bash")
        .args(["-euc", &format!("umask 022; {script}")])
        .current_dir(&dir));
    dir
}

fn assemble(env: &Env, rootfs: &Path, out: &[&Path]) {
    let mut command = env.amiforge();
    command.args(["disk", "assemble", "--boot", "none", "--rootfs"]);
    command.arg(rootfs);
    for out in out {
        command.arg("--out").arg(out);
    }
    finish(&mut command).expect_code(0);
}

fn diff(env: &Env, a: &Path, b: &Path, args: &[&str]) -> Finished {
    finish(env.amiforge().arg("diff").arg(a).arg(b).args(args))
}

/// `change path [aspects]` of all files.
fn files(report: &Value) -> BTreeSet<String> {
    let line = |file: &Value| {
        let aspects: Vec<&str> = file["aspects"]
            .as_array()
            .map(|list| list.iter().map(|a| a.as_str().unwrap()).collect())
            .unwrap_or_default();
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("change"), text("path"), aspects.join(","))
            .trim_end()
            .to_owned()
    };
    report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(line)
        .collect()
}

fn file<'r>(report: &'r Value, path: &str) -> &'r Value {
    let all = report["files"].as_array().unwrap();
    all.iter()
        .find(|f| f["path"] == path)
        .unwrap_or_else(|| panic!("no {path} in {all:#?}"))
}

const TREE: &str = r#"
mkdir -p etc usr/bin boot/grub var/empty srv/sub
echo welcome > etc/motd; ln etc/motd etc/issue; ln -s motd etc/link
head -c 300000 /dev/zero | tr '\0' t > usr/bin/tool; chmod 4755 usr/bin/tool
mknod srv/null c 1 3; mknod srv/disk b 8 1; mkfifo srv/pipe
echo kernel > boot/vmlinuz-1; echo 'set timeout=0' > boot/grub/grub.cfg; ln -s boot/vmlinuz-1 vmlinuz
truncate -s 8M srv/sparse; echo end >> srv/sparse
echo attr > srv/attr; setfattr -n user.a -v 1 srv/attr; setfacl -m u:1000:r srv/attr
for i in $(seq 100); do echo $i > srv/sub/$i; done
find . -exec touch -hd @1600000000 {} +
"#;

#[test]
fn one_tree_in_any_format_has_no_differences() {
    let env = Env::new();
    let root = sh(&env, "tree", TREE);
    let (raw, qcow2) = (env.path("a.raw"), env.path("b.qcow2"));
    assemble(&env, &root, &[&raw, &qcow2]);
    let end = diff(&env, &raw, &qcow2, &["--exit-code", "--times"]).expect_code(0);
    assert!(end.text().ends_with("\nno differences\n"), "{end}");
    let report = diff(&env, &raw, &qcow2, &["--json"]).expect_code(0).json();
    assert_eq!(
        (&report["differs"], &report["schemaVersion"]),
        (&false.into(), &1.into())
    );
    for list in [
        "disk",
        "partitions",
        "fileSystems",
        "boot",
        "packages",
        "files",
    ] {
        assert_eq!(report[list], Value::Array(vec![]), "{list}");
    }
    // The file system as mke2fs makes it of the folder: other parameters, the same files.
    let theirs = env.path("theirs.img");
    run(tool("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&root)
        .arg(&theirs)
        .arg("64M"));
    let report = diff(&env, &raw, &theirs, &["--json", "--times"])
        .expect_code(0)
        .json();
    // A folder in which mke2fs wrote has its own time; the root's is that.
    let found: Vec<_> = files(&report)
        .into_iter()
        .filter(|f| !f.ends_with(" mtime"))
        .collect();
    assert_eq!(found, [""; 0]);
    assert_eq!(report["differs"], true);
}

#[test]
fn every_kind_of_change_is_found_and_nothing_else() {
    let env = Env::new();
    let a = sh(&env, "a", TREE);
    run(tool("cp").arg("-a").arg(&a).arg(env.path("b")));
    let b = sh(
        &env,
        "b",
        r#"
        chmod 0755 usr/bin/tool; chown 7:8 etc; ln -sfn issue etc/link
        printf x | dd of=usr/bin/tool bs=1 seek=299999 conv=notrunc status=none; chmod 0755 usr/bin/tool
        rm etc/issue; cp -p etc/motd etc/issue
        rm srv/null; mknod srv/null c 1 5; rm srv/pipe; mkdir srv/pipe; echo in > srv/pipe/in
        setfattr -n user.a -v 2 srv/attr; setfacl -m u:1000:rw srv/attr
        printf y | dd of=srv/sparse bs=1 seek=4000000 conv=notrunc status=none
        rm -r srv/sub/1 var/empty; mkdir opt; echo new > opt/new; ln opt/new opt/too
        echo kernel2 > boot/vmlinuz-2; ln -sfn boot/vmlinuz-2 vmlinuz; echo changed > boot/grub/grub.cfg
        touch -d @1700000000 srv/sub/2
        "#,
    );
    let (old, new) = (env.path("a.raw"), env.path("b.qcow2"));
    assemble(&env, &a, &[&old]);
    assemble(&env, &b, &[&new]);
    let report = diff(&env, &old, &new, &["--json"]).expect_code(0).json();
    let expected: BTreeSet<String> = [
        "added /boot/vmlinuz-2",
        "added /opt",
        "added /opt/new",
        "added /opt/too",
        "added /srv/pipe/in",
        "changed /boot/grub/grub.cfg content",
        "changed /etc owner",
        "changed /etc/issue links",
        "changed /etc/link target",
        "changed /etc/motd links",
        "changed /srv/attr mode,xattrs",
        "changed /srv/null device",
        "changed /srv/pipe type,mode",
        "changed /srv/sparse content",
        "changed /usr/bin/tool mode,content",
        "changed /vmlinuz target",
        "removed /srv/sub/1",
        "removed /var/empty",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    assert_eq!(files(&report), expected);

    // rsync, which would make the old folder the new one, names the same paths but for links and times.
    let rsync = run(tool("rsync")
        .args(["-nrlpgoDcHAXi", "--delete"])
        .arg(format!("{}/", b.display()))
        .arg(format!("{}/", a.display())));
    let named = |line: &str| {
        let (code, path) = line.split_at(11);
        let path = path
            .trim()
            .split(" -> ")
            .next()
            .unwrap()
            .trim_end_matches('/');
        let path = path.split(" => ").next().unwrap();
        (!code.starts_with("h") || code.contains('+')).then(|| format!("/{path}"))
    };
    let theirs: BTreeSet<String> = rsync.text().lines().filter_map(named).collect();
    let is_link_only = |line: &String| line.ends_with(" links");
    let ours: BTreeSet<String> = expected
        .iter()
        .filter(|line| !is_link_only(line))
        .map(|line| line.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(ours, theirs, "{rsync}");

    // Values of both sides.
    let tool_change = file(&report, "/usr/bin/tool");
    assert_eq!(
        (&tool_change["a"]["mode"], &tool_change["b"]["mode"]),
        (&"4755".into(), &"0755".into())
    );
    for (side, root) in [("a", &a), ("b", &b)] {
        let sum = run(tool("sha256sum").arg(root.join("usr/bin/tool"))).text();
        assert_eq!(tool_change[side]["sha256"].as_str().unwrap(), &sum[..64]);
    }
    let motd = file(&report, "/etc/motd");
    assert_eq!(
        (&motd["a"]["links"], &motd["a"]["linkedTo"]),
        (&2.into(), &"/etc/issue".into())
    );
    assert_eq!(motd["b"]["links"], Value::Null);
    let null = file(&report, "/srv/null");
    assert_eq!(
        (&null["a"]["device"], &null["b"]["device"]),
        (&"1:3".into(), &"1:5".into())
    );
    let attr = file(&report, "/srv/attr");
    assert_eq!(
        (
            &attr["a"]["xattrs"]["user.a"],
            &attr["b"]["xattrs"]["user.a"]
        ),
        (&"31".into(), &"32".into())
    );
    assert_ne!(
        attr["a"]["xattrs"]["system.posix_acl_access"],
        attr["b"]["xattrs"]["system.posix_acl_access"]
    );
    let boot: Vec<&str> = report["boot"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["path"].as_str().unwrap())
        .collect();
    assert_eq!(boot, ["/boot/grub/grub.cfg", "/boot/vmlinuz-2", "/vmlinuz"]);
    assert_eq!(report["summary"]["files"]["added"], 5);
    // Ids are drawn from the content, so they changed.
    assert_eq!(report["partitions"][0]["slot"], 1);
    assert_eq!(report["fileSystems"][0]["slot"], 1);

    // The other way round everything is turned.
    let back = diff(&env, &new, &old, &["--json"]).expect_code(0).json();
    let turned: BTreeSet<String> = expected
        .iter()
        .map(|line| match line.split_once(' ').unwrap() {
            ("added", rest) => format!("removed {rest}"),
            ("removed", rest) => format!("added {rest}"),
            (_, rest) => format!("changed {rest}"),
        })
        .collect();
    assert_eq!(files(&back), turned);
    let times = diff(&env, &old, &new, &["--json", "--times"])
        .expect_code(0)
        .json();
    assert_eq!(
        file(&times, "/srv/sub/2")["aspects"],
        serde_json::json!(["mtime"])
    );

    let end = diff(&env, &old, &new, &["--exit-code"]).expect_code(1);
    let text = end.text();
    for line in [
        "\nboot\n",
        "  ~ root /boot/grub/grub.cfg (14 → 8 bytes)\n",
        "\nfiles\n",
        "  ~ /usr/bin/tool  mode 4755 → 0755  content (300000 bytes)\n",
        "  ~ /etc/motd  links 2 → 1\n",
        "  + /opt/new  file of 4 bytes\n",
        "files: 5 added, 2 removed, 11 changed",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    let short = diff(&env, &old, &new, &["--limit", "2"])
        .expect_code(0)
        .text();
    assert!(
        short.contains("  … 16 more (--limit 0 shows all)\n"),
        "{short}"
    );
    assert!(
        short.contains("files: 5 added") && !short.contains("/opt/new"),
        "{short}"
    );
}

const PACKAGES: &str = r#"
mkdir -p usr/bin etc var/lib/dpkg/info; ln -s usr/bin bin
package() { printf 'Package: %s\nStatus: install ok installed\nVersion: %s\nArchitecture: %s\nDescription: x\n more\n\n' "$@" >> var/lib/dpkg/status; }
: > var/lib/dpkg/status
"#;

#[test]
fn packages_and_the_files_that_are_theirs() {
    let env = Env::new();
    let a = sh(
        &env,
        "a",
        &format!(
            r#"{PACKAGES}
            package base 1.9 all; package tools 2:1.0-1 amd64; package old 1 amd64; package down 1.0~rc1 amd64
            printf 'Package: half\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n' >> var/lib/dpkg/status
            printf '/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n' > var/lib/dpkg/info/tools:amd64.list
            printf '/etc/tool.conf\n' > var/lib/dpkg/info/tools:amd64.conffiles
            printf '/usr/bin/gone\n' > var/lib/dpkg/info/old.list
            echo 1 > usr/bin/tool; echo 1 > etc/tool.conf; echo 1 > usr/bin/gone"#
        ),
    );
    let b = sh(
        &env,
        "b",
        &format!(
            r#"{PACKAGES}
            package base 1.10 all; package tools 2:1.0-1 amd64; package new 3 amd64; package down 1.0~beta9 amd64
            printf '/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n' > var/lib/dpkg/info/tools:amd64.list
            printf '/etc/tool.conf\n' > var/lib/dpkg/info/tools:amd64.conffiles
            echo 2 > usr/bin/tool; echo 2 > etc/tool.conf; echo 1 > usr/bin/nobodys"#
        ),
    );
    let (old, new) = (env.path("a.raw"), env.path("b.raw"));
    assemble(&env, &a, &[&old]);
    assemble(&env, &b, &[&new]);
    let report = diff(&env, &old, &new, &["--json"]).expect_code(0).json();
    let packages: Vec<String> = report["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let text = |name: &str| p[name].as_str().unwrap_or("-");
            format!(
                "{}:{} {} {} {}",
                text("name"),
                text("architecture"),
                text("change"),
                text("a"),
                text("b")
            )
        })
        .collect();
    assert_eq!(
        packages,
        [
            "base:all upgraded 1.9 1.10",
            "down:amd64 downgraded 1.0~rc1 1.0~beta9",
            "new:amd64 added - 3",
            "old:amd64 removed 1 -",
        ]
    );
    // dpkg agrees which is which.
    for (a, b) in [("1.9", "1.10"), ("1.0~beta9", "1.0~rc1")] {
        run(tool("dpkg").args(["--compare-versions", a, "lt", b]));
    }
    let owner = |path: &str| {
        (
            file(&report, path)["package"].as_str(),
            file(&report, path)["conffile"].as_bool(),
        )
    };
    assert_eq!(owner("/usr/bin/tool"), (Some("tools:amd64"), None));
    assert_eq!(owner("/etc/tool.conf"), (Some("tools:amd64"), Some(true)));
    assert_eq!(owner("/usr/bin/gone"), (Some("old"), None));
    assert_eq!(owner("/usr/bin/nobodys"), (None, None));
    assert_eq!(report["a"]["packagesFrom"], "dpkg");
    let text = diff(&env, &old, &new, &[]).expect_code(0).text();
    for line in [
        "  ~ base:all 1.9 → 1.10\n",
        "  ~ down:amd64 1.0~rc1 → 1.0~beta9 (downgraded)\n",
        "  ~ /etc/tool.conf  content (2 bytes)  [tools:amd64, configuration]\n",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}

#[test]
fn an_image_cannot_drive_the_terminal() {
    let env = Env::new();
    let a = sh(&env, "a", "mkdir d; echo x > d/f");
    let b = sh(
        &env,
        "b",
        r#"mkdir d; echo x > d/f; ln -s "$(printf 'to\033]0;t\007')" "$(printf 'e\033[2Jvil\nname\303')"
        setfattr -n "$(printf 'user.\033[31m')" -v 1 d/f
        mkdir -p var/lib/dpkg; printf 'Package: p\033[1m\nStatus: install ok installed\nVersion: 1\r2\nArchitecture: all\n' > var/lib/dpkg/status"#,
    );
    let (old, new) = (env.path("a.raw"), env.path("b.raw"));
    assemble(&env, &a, &[&old]);
    assemble(&env, &b, &[&new]);
    for args in [&["--limit", "0"][..], &["--json"]] {
        let end = diff(&env, &old, &new, args).expect_code(0);
        let text = end.text();
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(text.contains("vil"), "{text}");
    }
    let report = diff(&env, &old, &new, &["--json"]).json();
    let link = file(&report, "/e\\u{1b}[2Jvil\\u{a}name\\xc3");
    assert_eq!(link["b"]["target"], "to\\u{1b}]0;t\\u{7}");
}

#[test]
fn what_cannot_be_compared_is_told() {
    let env = Env::new();
    let root = sh(&env, "tree", "echo x > f");
    let raw = env.path("a.raw");
    assemble(&env, &root, &[&raw]);
    let text = env.write("b.raw", "this is no disk\n".repeat(1000));
    let cut = env.path("cut.raw");
    let bytes = fs_err::read(&raw).unwrap();
    fs_err::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs_err::create_dir(env.path("folder")).unwrap();
    for (other, code, told) in [
        (env.path("missing.raw"), 2, "missing.raw"),
        (env.path("folder"), 2, "is not an output folder"),
        (cut, 1, "cut.raw"),
    ] {
        for (a, b) in [(&raw, &other), (&other, &raw)] {
            let end = diff(&env, a, b, &["--exit-code"]).expect_code(code);
            assert!(end.stderr.contains(told) && end.stdout.is_empty(), "{end}");
        }
    }
    // A disk without a file system is one, and everything in the other was added.
    let end = diff(&env, &text, &raw, &["--json"]).expect_code(0);
    assert!(end.stderr.contains("no ext4 file system"), "{end}");
    assert!(files(&end.json()).contains("added /f"), "{end}");
    assert!(
        !env.state().join("store").exists(),
        "looking makes no store"
    );
}
