//! The same recipe and packages give the same bytes: with another home, folder, clock, locale, time
//! zone, umask, number of threads and processors, and as another user with other mapped ids.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use amiforge_testkit::{Env, Running, amiforge_binary, finish, run, tool, workspace_root};

use crate::base::{Base, LIMIT};
use crate::trees;

/// An ordinary user for tests that run as root, made with subordinate ids when it is missing.
const USER: &str = "amiforge-test";

fn ensure_user() {
    if finish(tool("id").arg(USER)).code() != 0 {
        run(tool("useradd").args(["--no-create-home", "--home-dir", "/nonexistent", USER]));
    }
    let has = |file: &str| {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with(&format!("{USER}:")))
    };
    if !has("/etc/subuid") || !has("/etc/subgid") {
        // Above what adduser hands out to the first thousand accounts.
        run(tool("usermod").args([
            "--add-subuids",
            "70000000-70065535",
            "--add-subgids",
            "70000000-70065535",
            USER,
        ]));
    }
}

#[test]
fn image_is_the_same_for_another_user_and_surroundings() {
    let base = Base::get();
    let env = Env::new();
    let root = env.path("").canonicalize().unwrap();
    let copy = |from: &Path, to: &Path| {
        run(tool("cp").arg("-r").arg(from).arg(to));
    };
    copy(&base.state().join("cache"), &env.path("state/cache"));
    copy(&workspace_root().join("recipes"), &env.path("recipes"));
    // The program's own folder may be closed to others.
    let program = env.path("amiforge");
    fs_err::copy(amiforge_binary(), &program).unwrap();
    let out = env.path("a folder/out");
    fs_err::create_dir(env.path("a folder")).unwrap();

    // Not so far ahead that the cached package indexes have expired.
    let mut command = env.command("faketime");
    command.args(["-f", "+30h", "taskset"]);
    command.args(["--cpu-list", &first_processor()]);
    if rustix::process::geteuid().is_root() {
        ensure_user();
        run(tool("chown").arg("-R").arg(format!("{USER}:")).arg(&root));
        fs_err::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        command.args([
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
            "--init-groups",
            "--",
        ]);
    }
    command
        .args(["sh", "-c", "umask 077; exec \"$@\"", "sh"])
        .arg(&program)
        .args([
            "build",
            "../recipes/debian-web",
            "--no-test",
            "--jobs",
            "1",
            "--out",
        ])
        .arg(&out)
        .current_dir(env.path("a folder"))
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("LANG", "de_DE.ISO-8859-1")
        .env("TZ", "Pacific/Kiritimati");
    Running::spawn(&mut command).wait(LIMIT).expect_code(0);

    let (state, base_state, base_out) = (env.state(), base.state(), base.out());
    if !same(&base_out.join("plan.json"), &out.join("plan.json")) {
        let end = finish(
            tool("diff")
                .arg("-u")
                .arg(base_out.join("plan.json"))
                .arg(out.join("plan.json")),
        );
        panic!("the plans differ\n{end}");
    }
    trees::assert_same_files((&base_state, &base_out), (&state, &out));
    for name in [
        "disk.raw",
        "disk.qcow2",
        "manifest.json",
        "packages.json",
        "lock.json",
        "components.json",
    ] {
        let (a, b) = (base_out.join(name), out.join(name));
        assert!(same(&a, &b), "{name} differs {}", first_byte(&a, &b));
    }
}

fn first_processor() -> String {
    let end = run(tool("taskset").args(["--cpu-list", "--pid", &std::process::id().to_string()]));
    let list = end
        .text()
        .trim()
        .rsplit(' ')
        .next()
        .unwrap_or("0")
        .to_owned();
    let first = list.split([',', '-']).next().unwrap_or("0");
    first.to_owned()
}

fn same(a: &Path, b: &Path) -> bool {
    first_difference(a, b).is_none()
}

fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let open =
        |path: &Path| std::io::BufReader::with_capacity(1 << 20, fs_err::File::open(path).unwrap());
    let (mut a, mut b) = (open(a), open(b));
    let (mut block_a, mut block_b) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        block_a.clear();
        block_b.clear();
        a.by_ref().take(1 << 20).read_to_end(&mut block_a).unwrap();
        b.by_ref().take(1 << 20).read_to_end(&mut block_b).unwrap();
        if block_a != block_b {
            let within = block_a
                .iter()
                .zip(&block_b)
                .take_while(|(a, b)| a == b)
                .count();
            return Some(at + within as u64);
        }
        if block_a.is_empty() {
            return None;
        }
        at += block_a.len() as u64;
    }
}

/// Where on a disk two files differ first, as far as the partition table tells.
fn first_byte(a: &Path, b: &Path) -> String {
    let Some(at) = first_difference(a, b) else {
        return String::new();
    };
    if a.extension().is_none_or(|e| e != "raw") {
        return format!("at byte {at}");
    }
    partitions_of(a)
        .into_iter()
        .find(|(_, offset, len)| (*offset..offset + len).contains(&at))
        .map_or_else(
            || format!("at byte {at}, outside of every partition"),
            |(name, offset, _)| {
                format!("at byte {at}: byte {} of the partition {name}", at - offset)
            },
        )
}

fn partitions_of(disk: &Path) -> Vec<(String, u64, u64)> {
    amiforge_testkit::disk::partitions(disk)
        .into_iter()
        .map(|p| (p.name, p.offset, p.len))
        .collect()
}
