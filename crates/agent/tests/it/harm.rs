//! A job that tries to get at the host. What it tries inside may succeed inside; nothing of it may
//! reach the host, whose state is compared before and after.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;

use amiforge_exec::{SandboxError, Way};
use amiforge_tree::{Kind, LayerEntry};

use crate::root::{Bench, never, script, way};

/// Each line is one attempt; a line that prints `REACHED` reached the host.
const ATTEMPTS: &str = r#"
set +e
reached() { echo "REACHED: $*"; }
# Files of the host through other roots
cat /proc/1/root/etc/shadow 2>/dev/null && reached shadow
ls /proc/1/fd/ 2>/dev/null | grep -q . && reached descriptors of the first process
readlink /proc/1/exe 2>/dev/null && reached program of the first process
echo '{"Done":"Unit"}' > /proc/1/fd/1 2>/dev/null && reached way to the parent
perl -e 'exit(0 == syscall(101, 16, 1, 0, 0) ? 0 : 1)' && reached tracing of the first process
perl -e 'exit(open(my $f, "+<", "/proc/1/mem") ? 0 : 1)' && reached memory of the first process
kill -9 1; kill -STOP 1
test -e /.oldroot && reached old root
for dir in /proc/[0-9]*/root /proc/[0-9]*/cwd; do test -e $dir/HOST_MARK && reached $dir; done
grep -q HOST_MARK /proc/self/mountinfo && reached mounts
# Devices
mknod /tmp/disk b 254 0 2>/dev/null && reached block device
mknod /tmp/mem c 1 1 2>/dev/null && reached memory device
mknod /dev/kmsg2 c 1 11 2>/dev/null && reached kernel log device
for d in /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/kvm /dev/loop0 /dev/fuse; do test -e $d && reached $d; done
for d in null zero full random urandom tty; do
  chmod 600 /dev/$d 2>/dev/null && reached the mode of /dev/$d
  chown 5 /dev/$d 2>/dev/null && reached the owner of /dev/$d
done
mount -t ext4 /dev/vda /mnt 2>/dev/null && reached disk
# Kernel settings that are the host's
for f in kernel/panic vm/swappiness kernel/core_pattern kernel/sysrq fs/file-max kernel/printk; do
  v=$(cat /proc/sys/$f 2>/dev/null)
  echo "$v" > /proc/sys/$f 2>/dev/null && reached writing /proc/sys/$f
done
sysctl -qw vm.swappiness=1 2>/dev/null && reached sysctl
echo b > /proc/sysrq-trigger 2>/dev/null && reached sysrq
echo 1 > /sys/power/state 2>/dev/null && reached /sys/power
# Processes
kill -9 HOST_PID 2>/dev/null && reached a process of the host
for p in /proc/[0-9]*; do grep -qa HOST_COMMAND $p/cmdline 2>/dev/null && reached seeing a process of the host; done
# Clock, swap, modules, kernel log, accounting, quota; perl gives plain system calls
perl -e 'exit(0 == syscall(164, pack("qq", 1, 0), 0) ? 0 : 1)' && reached settimeofday
perl -e 'my $p = "/tmp/x"; exit(0 == syscall(167, $p, 0) ? 0 : 1)' && reached swapon
perl -e 'my ($m, $p) = ("", ""); exit(0 == syscall(175, $m, 0, $p) ? 0 : 1)' && reached init_module
perl -e 'my $b = "\0" x 64; exit(syscall(103, 5, $b, 0) == 0 ? 0 : 1)' && reached clearing the kernel log
perl -e 'my $p = "/tmp/acct"; exit(0 == syscall(163, $p) ? 0 : 1)' && reached acct
# Inside, the name of the host is ours
hostname sandboxed || reached a host name that cannot change
# A mount of our own is fine and stays ours
mount -t tmpfs none /mnt && touch /mnt/INSIDE_ONLY
# The identity: no id of the host
touch /tmp/mine; test "$(stat -c %u /tmp/mine)" = 0 || reached another owner
true
"#;

#[test]
fn the_host_is_not_touched() {
    let bench = Bench::new();
    fs_err::write(bench.dir.path().join("HOST_MARK"), "x").unwrap();
    let mark = format!("HOST_COMMAND_{}", std::process::id());
    let mut victim = std::process::Command::new("sleep")
        .arg0(&mark)
        .arg("600")
        .spawn()
        .unwrap();
    let attempts = ATTEMPTS
        .replace("HOST_PID", &victim.id().to_string())
        .replace("HOST_COMMAND", &mark);
    let before = host_state();
    // One that is watched shows how many descriptors it has, and no more of them.
    let attempts = match way() {
        Way::MappedIds => attempts,
        Way::Chroot => in_changed_root(&attempts),
        _ => attempts.replace(
            "ls /proc/1/fd/ 2>/dev/null | grep -q .",
            "readlink /proc/1/fd/* 2>/dev/null | grep -q .",
        ),
    };
    for network in [false, true] {
        let mut root = bench.root();
        root.network = network;
        let (result, lines) = bench.sh(&root, &attempts);
        let text = lines.join("\n");
        assert!(
            result.is_ok() && !text.contains("REACHED"),
            "network {network}: {result:?}\n{text}"
        );
    }
    assert_eq!(host_state(), before);
    assert!(
        victim.try_wait().unwrap().is_none(),
        "the process of the host still runs"
    );
    victim.kill().unwrap();
    victim.wait().unwrap();
}

/// What is otherwise without namespaces: `/dev` has nodes of the job's own, `/proc` and `/sys` are folders of the job's own, the
/// name of the machine cannot be changed, and before Linux 6.12 root may signal other processes of root.
fn in_changed_root(attempts: &str) -> String {
    let release = kernel_release();
    let attempts = attempts
        .replace("2>/dev/null && reached the mode of", "2>/dev/null; : ")
        .replace("2>/dev/null && reached the owner of", "2>/dev/null; : ")
        .replace("&& reached sysrq", "; :")
        .replace(
            "hostname sandboxed || reached",
            "hostname sandboxed 2>/dev/null && reached",
        );
    match release >= (6, 12) {
        true => attempts,
        false => attempts.replace("&& reached a process of the host", "; :"),
    }
}

fn kernel_release() -> (u32, u32) {
    let text = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split('.').map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn a_job_that_reboots_ends_itself_only() {
    let bench = Bench::new();
    // RB_AUTOBOOT through the plain system call.
    let reboot = script("perl -e 'syscall(169, 0xfee1dead, 672274793, 0x1234567, 0)'; sleep 60");
    let error = bench
        .sandbox
        .run_script(&bench.root(), &reboot, &never(), &mut |_| ())
        .unwrap_err();
    assert!(
        matches!(&error, SandboxError::Job { what } if what.contains("reboot")),
        "{error:?}"
    );
}

#[test]
fn a_job_that_kills_all_it_sees_ends_itself_only() {
    let bench = Bench::new();
    let text = "sleep 600 & echo before; kill -9 -1; wait $! || echo alone";
    let (result, lines) = bench.sh(&bench.root(), text);
    assert!(result.is_ok(), "{result:?}");
    // What the shell says of it comes in between.
    let told = |text: &str| lines.iter().any(|line| line == text);
    assert!(told("before") && told("alone"), "{lines:?}");
    // The next one is not touched by it.
    assert_eq!(bench.ok(&bench.root(), "echo fine"), ["fine"]);
}

/// What a job leaves in the place of a folder, and goes on changing to its last moment, leads nowhere.
#[test]
fn links_do_not_lead_out_when_a_layer_is_made_and_removed() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::write(outside.join("keep"), "kept").unwrap();
    let root = bench.root();
    let text = r#"
mkdir -p /opt/deep/folder; ln -s OUTSIDE /opt/out; ln -s OUTSIDE/keep /opt/file
(while :; do
    mkdir -p /opt/swap; touch /opt/swap/keep; rm -rf /opt/swap
    ln -s OUTSIDE /opt/swap; rm -f /opt/swap
done) > /dev/null 2>&1 &
rm -rf /opt/deep/folder; ln -s OUTSIDE /opt/deep/folder
sleep 0.3
"#;
    let text = text.replace("OUTSIDE", &outside.to_string_lossy());
    let (result, lines) = bench.sh(&root, &text);
    assert!(result.is_ok(), "{result:?}\n{lines:?}");
    let layer = bench.harvest(&root, result.start);
    assert!(matches!(
        layer.get(&b"opt/out"[..]),
        Some(LayerEntry::Put(inode)) if matches!(inode.kind, Kind::Symlink(_))
    ));
    assert!(
        !layer.keys().any(|path| path.starts_with(b"opt/out/")),
        "nothing behind the link"
    );
    bench
        .sandbox
        .remove_trees(&[root.upper.clone(), root.work.clone()])
        .unwrap();
    let kept = fs_err::read_to_string(outside.join("keep")).unwrap();
    assert_eq!(kept, "kept");
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn without_network_there_is_only_loopback() {
    let bench = Bench::new();
    let lines = bench.ok(
        &bench.root(),
        "grep : /proc/net/dev; exec 3<>/dev/udp/127.0.0.1/9 && echo up",
    );
    let text = lines.join(" ");
    assert!(
        text.contains("lo") && text.ends_with("up") && !text.contains("eth"),
        "{text}"
    );
}

/// What a job could have changed and must not.
fn host_state() -> BTreeMap<&'static str, String> {
    let read = |path: &'static str| (path, std::fs::read_to_string(path).unwrap_or_default());
    let mut state = BTreeMap::from([
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/panic"),
        read("/proc/sys/kernel/core_pattern"),
        read("/proc/sys/vm/swappiness"),
        read("/proc/sys/kernel/sysrq"),
        read("/proc/sys/kernel/printk"),
        read("/proc/swaps"),
        read("/proc/self/mountinfo"),
        read("/proc/modules"),
        read("/etc/passwd"),
        read("/etc/resolv.conf"),
    ]);
    // What the host lends belongs to the host.
    for device in ["/dev/null", "/dev/urandom", "/dev/tty"] {
        let found = fs_err::metadata(device).unwrap();
        let shown = format!("{:o} {} {}", found.mode(), found.uid(), found.gid());
        state.insert(device, shown);
    }
    state.insert(
        "inside",
        std::path::Path::new("/mnt/INSIDE_ONLY")
            .exists()
            .to_string(),
    );
    state
}
