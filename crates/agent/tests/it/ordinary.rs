//! The same tests as an ordinary user.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use amiforge_exec::Way;
use amiforge_testkit::in_container;

use crate::root::{HELPER, WAY};

/// When the tests run as root, runs all the others again as a user with subordinate ids. When they
/// do not, there is nothing to add.
#[test]
fn every_test_passes_as_an_ordinary_user() {
    if !is_first() {
        return;
    }
    let (name, uid, gid) = user_with_subordinate_ids().expect(
        "no user of this machine has 65536 subordinate ids; make one: \
         useradd --create-home amiforge-tester (useradd gives it ranges in /etc/subuid and /etc/subgid)",
    );
    run_all(&name, Some((uid, gid)), Way::MappedIds, &[]);
}

/// The same as somebody who has no subordinate ids, and no line in `/etc/passwd` either. The fork bombs, which wait
/// for a minute and a half, are the same.
#[test]
fn every_test_passes_with_one_id() {
    if is_first() {
        run_all(
            "nobody known",
            Some((54_321, 54_322)),
            Way::SingleId,
            &["a_fork_bomb"],
        );
    }
}

/// What cannot be the same in a changed root directory; `chroot` has tests of what there is instead.
const OTHERWISE: &[&str] = &[
    // Root may not call reboot(2) at all, and nothing ends.
    "a_job_that_reboots",
    // It is refused to signal all at once, which without a namespace would be all of the container.
    "a_job_that_kills_all",
    // There is not even loopback.
    "without_network_there_is_only_loopback",
    // The kernel does not count the processes of root: they are ended when they are seen to be too many.
    "a_fork_bomb",
    // Devices are the job's own and can be changed, and `/tmp` is no mount of its own: what is moved from it is renamed.
    "steps_by_lot_do_the_same_on_a_tree",
    // It asks `ps`, which finds no `/proc`.
    "background_processes_end_with_a_job_that_fails",
];

/// The same as root of a container that allows neither namespaces nor mounts.
#[test]
fn every_test_passes_in_a_changed_root() {
    if is_first() {
        run_all("root", None, Way::Chroot, OTHERWISE);
    }
}

/// Runs the tests of this program as another user, or as root of a container, but for these.
fn run_all(name: &str, ids: Option<(u32, u32)>, way: Way, skipped: &[&str]) {
    // A place that the user can reach: a build directory often is in somebody's home.
    let place = tempfile::Builder::new()
        .prefix("amiforge-tester-")
        .tempdir()
        .unwrap();
    fs_err::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, to: &str| {
        let to = place.path().join(to);
        fs_err::copy(from, &to).unwrap();
        fs_err::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let helper = copy(Path::new(env!("CARGO_BIN_EXE_amiforge-agent")), "helper");
    let fixtures = place.path().join("fixtures");
    copy_tree(&crate::actions::fixtures(), &fixtures);
    let home = place.path().join("home");
    fs_err::create_dir(&home).unwrap();
    let (uid, gid) = ids.unwrap_or((0, 0));
    std::os::unix::fs::chown(&home, Some(uid), Some(gid)).unwrap();
    // Nobody else may enter, as in a well-kept home.
    fs_err::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = match ids {
        Some((uid, gid)) => {
            let mut command = Command::new(&tests);
            command.uid(uid).gid(gid);
            command
        }
        None => in_container(&tests),
    };
    let output = command
        .args(["--test-threads=2", "--color=never"])
        .args(skipped.iter().flat_map(|name| ["--skip", name]))
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("USER", name)
        .env("TMPDIR", &home)
        .env(crate::actions::FIXTURES, &fixtures)
        .env(HELPER, helper)
        .env(WAY, way.as_str())
        .current_dir("/")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr]
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .concat();
    assert!(output.status.success(), "as {name}, {way}:\n{text}");
    assert!(
        text.contains("harm::the_host_is_not_touched ... ok"),
        "{text}"
    );
}

fn copy_tree(from: &Path, to: &Path) {
    fs_err::create_dir(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
        let place = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_tree(&entry, &place)
        } else {
            fs_err::copy(&entry, &place).map(|_| ()).unwrap()
        }
    }
}

/// Whether the tests run as root, and not because one of these runs them.
fn is_first() -> bool {
    is_root() && std::env::var_os(WAY).is_none()
}

pub(crate) fn is_root() -> bool {
    fs_err::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|l| l.starts_with("Uid:\t0\t0"))
}

fn user_with_subordinate_ids() -> Option<(String, u32, u32)> {
    let [passwd, subuid, subgid] = ["/etc/passwd", "/etc/subuid", "/etc/subgid"]
        .map(|p| fs_err::read_to_string(p).unwrap_or_default());
    let has = |text: &str, name: &str| {
        text.lines()
            .map(|l| l.split(':').collect::<Vec<_>>())
            .any(|f| {
                f.first() == Some(&name)
                    && f.get(2)
                        .and_then(|n| n.parse::<u32>().ok())
                        .is_some_and(|n| n >= 65_536)
            })
    };
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (
            *fields.first()?,
            fields.get(2)?.parse().ok()?,
            fields.get(3)?.parse().ok()?,
        );
        (uid != 0 && has(&subuid, name) && has(&subgid, name)).then(|| (name.to_owned(), uid, gid))
    })
}
