//! What a job without namespaces is told as if it had some: the name of the machine, and a `/proc` for systemd-tmpfiles.

use std::collections::BTreeMap;

use amiforge_exec::{ScriptSpec, Way};
use amiforge_tree::{Content, Inode, Kind, LayerEntry};

use crate::root::{Bench, never, script, stat, way};

/// A root in which this is `/usr/bin/systemd-tmpfiles`.
fn bench(program: &str) -> Bench {
    let text = format!("#!/usr/bin/perl\n$| = 1;\n{HELPERS}\n{program}");
    let content = Content::bytes(text.as_bytes());
    let inode = Inode::new(stat(0o755, 0, 0), Kind::File(content));
    Bench::with(&BTreeMap::from([(
        b"usr/bin/systemd-tmpfiles".to_vec(),
        LayerEntry::Put(inode),
    )]))
}

/// Calls by their numbers (x86-64), as Perl has no names for them.
const HELPERS: &str = r#"
sub call { my ($number, @copies) = @_; syscall($number, @copies) }
sub openat { my ($dir, $path, $flags) = @_; syscall(257, $dir, $path, $flags, 0) }
sub handle { openat(-100, $_[0], 0x200000) }
sub magic { my ($number, $of) = @_; my $buffer = "\0"; $buffer x= 120; syscall($number, $of, $buffer); sprintf "%x", unpack "Q", $buffer }
sub content { my $fd = shift; my $buffer = "\0"; $buffer x= 100; my $n = syscall(0, $fd, $buffer, 100); $n < 0 ? "none" : substr $buffer, 0, $n }
"#;

/// All that the real one does with `/proc`.
const ASKS: &str = r#"
my $kept = handle("/srv/keep");
my $own = "/proc/self/fd/$kept";
print "$ARGV[-1]: ", content(openat(-100, $own, 0));
print readlink($own), " ", readlink("/proc/$$/fd/$kept"), "\n";
call(90, $own, 0600) == 0 or print "chmod: $!\n";
call(92, $own, 5, 6) == 0 or print "chown: $!\n";
call(280, -100, $own, pack("qqqq", 1, 0, 7, 0), 0) == 0 or print "utimensat: $!\n";
call(188, $own, "user.x", "value", 5, 0) == 0 or print "setxattr: $!\n";
my $name = "user.x"; my $value = "\0"; $value x= 9;
print syscall(191, $own, $name, 0, 0), " ", syscall(191, $own, $name, $value, 9), " ", substr($value, 0, 5), "\n";
my @by = stat $own; my @direct = stat "/srv/keep";
print "@by" eq "@direct" ? "same" : "@by, @direct", sprintf(" %o", $by[2]), " $by[4] $by[5] $by[9]\n";
call(257, -100, "$own", 01 | 02000, 0) >= 0 or print "open to append: $!\n";
my $folder = handle("/srv");
opendir my $listing, "/proc/self/fd/$folder" or print "opendir: $!\n";
print join(" ", sort grep !/^\./, readdir $listing), "\n";
my $proc = handle("/proc/");
my $text = openat(-100, "/proc/sys/kernel/cap_last_cap", 0);
print magic(137, "/proc/"), " ", magic(138, $proc), " ", magic(138, $text), " ", content($text);
print content(openat(-100, "/proc/sys/kernel/random/boot_id", 0));
stat "/proc/1/root"; print "$!\n";
stat "/proc/self/fd/99"; print "$!\n";
"#;

#[test]
fn systemd_tmpfiles_finds_proc_however_it_is_called() {
    let bench = bench(ASKS);
    let read = |path: &str| fs_err::read_to_string(path).unwrap();
    let ways = [
        ("name", "systemd-tmpfiles --create name"),
        ("path", "/usr/bin/systemd-tmpfiles path"),
        ("relative", "cd /usr/bin; ./systemd-tmpfiles relative"),
        ("within", "bash -c 'exec -a other systemd-tmpfiles within'"),
        (
            "forked",
            "perl -e 'fork or exec \"systemd-tmpfiles\", \"forked\"; wait'",
        ),
    ];
    let expected = |name: &str| {
        let text = format!(
            "{name}: keep\n/srv/keep /srv/keep\n5 5 value\nsame 100600 5 6 7\ngone keep\n9fa0 9fa0 9fa0 {}{}Permission denied\nNo such file or directory",
            read("/proc/sys/kernel/cap_last_cap"),
            read("/proc/sys/kernel/random/boot_id"),
        );
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (name, text) in ways {
        let text = format!("export LC_ALL=C; {text}");
        let lines = bench.ok(&bench.root(), &text);
        assert_eq!(lines, expected(name), "{name}");
    }
    // Started by us, and not by a program of the image.
    let spec = ScriptSpec {
        interpreter: vec!["/usr/bin/systemd-tmpfiles".into()],
        env: BTreeMap::from([("LC_ALL".into(), "C".into())]),
        ..script("")
    };
    let mut lines = Vec::new();
    bench
        .sandbox
        .run_script(&bench.root(), &spec, &never(), &mut |event| {
            if let amiforge_exec::ChildEvent::Stdout { line } = event {
                lines.push(line);
            }
        })
        .unwrap();
    assert_eq!(lines[1..], expected("")[1..]);
    assert!(lines[0].ends_with(": keep"), "{lines:?}");
}

/// Each is an attempt to get with the supervisor's help to what a job does not have.
const ATTEMPTS: &str = r#"
sub reached { print "REACHED: @_\n" }
my $kept = handle("/srv/keep");
my $inode = (stat "/srv/keep")[1];
my $top = handle("/");
for my $path ("/proc/1/root", "/proc/1/root/", "/proc/self/root", "/proc/self/cwd", "/proc/self/cwd/../..",
    "/proc/thread-self/root", "/proc/SUPERVISOR/root", "/proc/SUPERVISOR/fd/0", "/proc/self/exe", "/proc/self/mem",
    "/proc/self/fd", "/proc/self/task", "/proc//self/../1/root", "/proc/self/fd/../../1/root", "/proc/self/fd/$top/..",
    "/proc/self/fd/$top/../..", "/proc/sys/kernel/core_pattern", "/proc/self/fd/-1", "/proc/self/fd/+$kept",
    "/proc/self/fdinfo/$kept", "/proc/self", "/proc/sys") {
    for my $flags (0, 1, 2, 0x200000, 0x210000) {
        my $fd = openat(-100, $path, $flags);
        $fd < 0 or reached "$path with $flags";
    }
}
# Folders, and then up
for my $flags (0, 0x200000) {
    my $again = openat(-100, "/proc/self/fd/$top", $flags);
    $again >= 0 or reached "nothing where something was to be: $flags $!";
    for my $dir ($again, openat($again, "..", 0x200000), openat(-100, "/proc", $flags)) {
        for my $name ("HOST_MARK", "../HOST_MARK", "../../HOST_MARK", "../../../HOST_MARK", "1/root", "self/root") {
            openat($dir, $name, 0) < 0 or reached "$name from a folder";
        }
    }
}
# Texts are copies
my $text = openat(-100, "/proc/sys/kernel/cap_last_cap", 0);
for my $flags (1, 2, 01000, 01001) {
    my $fd = openat(-100, "/proc/self/fd/$text", $flags);
    $fd < 0 or call(1, $fd, "41\n", 3) < 0 or reached "a text, to change it";
    $fd = openat(-100, "/proc/sys/kernel/cap_last_cap", $flags);
    $fd < 0 or call(1, $fd, "41\n", 3) < 0 or reached "the kernel";
}
call(90, "/proc/sys/kernel/cap_last_cap", 0777) < 0 or reached "the mode of a text";
call(188, "/proc/self/fd/$kept", "trusted.x", "1", 1, 0) < 0 or reached "an attribute";
# What would keep the supervisor waiting
call(133, "/srv/pipe", 0010600, 0);
my $pipe = handle("/srv/pipe");
openat(-100, "/proc/self/fd/$pipe", 0) < 0 or reached "a pipe";
# Something else in the place of /proc
rename "/proc", "/proc2"; symlink "/srv", "/proc";
my @found = stat "/proc/self/fd/$kept"; $found[1] == $inode or reached "another file";
openat(-100, "/proc/self/fd/$top/..", 0) < 0 or reached "up";
unlink "/proc"; rename "/proc2", "/proc";
# A path that changes while it is looked at
my $shared = syscall(29, 0, 4096, 0600); my $at = syscall(30, $shared, 0, 0);
my @paths = map { pack "a64", $_ } "/proc/self/fd/$kept", "/proc/1/root/HOST_MARK", "/proc/SUPERVISOR/root/etc", "/srv/gone", "../HOST_MARK";
my $child = fork;
if (!$child) { while (getppid != 1) { shmwrite $shared, $paths[rand @paths], 0, 64 for 1..100 } exit }
my $allowed = join " ", $inode, (stat "/srv/gone")[1];
for (1..2000) {
    my $fd = openat(-100, $at, 0x200000);
    next if $fd < 0;
    open my $file, "<&=", $fd;
    my $buffer = "\0"; $buffer x= 144;
    syscall(5, $fd, $buffer);
    my $found = (unpack "QQ", $buffer)[1];
    " $allowed " =~ / $found / or reached "inode $found";
    syscall(3, $fd);
}
kill 9, $child;
syscall(31, $shared, 0, 0);
# What it starts is another program, and has no /proc
system "cat /proc/self/status /proc/self/fd/0 /proc/filesystems 2>/dev/null && echo REACHED: from another program";
print "done\n";
"#;

#[test]
fn a_hostile_program_gets_nothing_by_being_played_for() {
    if way() != Way::Chroot {
        return;
    }
    let attempts = ATTEMPTS.replace("SUPERVISOR", &std::process::id().to_string());
    let bench = bench(&attempts);
    fs_err::write(bench.dir.path().join("HOST_MARK"), "x").unwrap();
    let mut notes = Vec::new();
    let mut lines = Vec::new();
    let result = bench
        .sandbox
        .run_script(
            &bench.root(),
            &script("LC_ALL=C systemd-tmpfiles"),
            &never(),
            &mut |event| match event {
                amiforge_exec::ChildEvent::Note { text } => notes.push(text),
                amiforge_exec::ChildEvent::Stdout { line }
                | amiforge_exec::ChildEvent::Stderr { line } => lines.push(line),
                other => panic!("{other:?}"),
            },
        )
        .unwrap();
    assert!(result.is_ok(), "{result:?} {lines:?}");
    assert_eq!(lines, ["done"]);
    // What it did not find is told.
    assert_eq!(notes.len(), 1, "{notes:?}");
    let told = "systemd-tmpfiles asked for /proc/";
    assert!(notes[0].starts_with(told), "{notes:?}");
}

/// Then its work would be another than elsewhere, and the job ends.
#[test]
fn a_program_that_cannot_be_played_for_ends_the_job() {
    if way() != Way::Chroot {
        return;
    }
    let bench = bench("$> = $< = 1000 unless $>; open F, '/proc/self/fd/0'; print \"went on\\n\";");
    for (text, why) in [
        ("systemd-tmpfiles", "it runs without all rights of root"),
        (
            "perl -e '$) = $( = 1000; $< = $> = 1000; exec qw(sh -c), \"systemd-tmpfiles; true\"'",
            "it cannot be traced",
        ),
    ] {
        let error = bench
            .sandbox
            .run_script(&bench.root(), &script(text), &never(), &mut |_| ())
            .unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("a step called systemd-tmpfiles,") && told.contains(why),
            "{told}"
        );
        assert!(!error.is_environment(), "{told}");
    }
}

#[test]
fn one_that_hangs_ends_with_its_step() {
    let bench = bench(
        "my $kept = handle('/srv/keep'); print content(openat(-100, \"/proc/self/fd/$kept\", 0)); fork; sleep 99;",
    );
    let spec = ScriptSpec {
        timeout_seconds: Some(1),
        ..script("export LC_ALL=C; systemd-tmpfiles")
    };
    let mut lines = Vec::new();
    let result = bench
        .sandbox
        .run_script(&bench.root(), &spec, &never(), &mut |event| {
            if let amiforge_exec::ChildEvent::Stdout { line } = event {
                lines.push(line);
            }
        })
        .unwrap();
    assert!(result.timed_out, "{result:?}");
    assert_eq!(lines, ["keep"]);
}

#[test]
fn the_machine_is_called_localhost() {
    let bench = Bench::new();
    let asks = "export LC_ALL=C; hostname; perl -e 'my $n = \"\\0\" x 390; syscall(63, $n); print +(split /\\0+/, $n)[1], \"\\n\"'";
    let lines = bench.ok(
        &bench.root(),
        &format!(
            "{asks}\nperl -e '$) = $( = 1000; $< = $> = 1000; exec @ARGV' sh -c '{}'",
            asks.replace('\'', "'\\''")
        ),
    );
    assert_eq!(lines, ["localhost"; 4]);
}
