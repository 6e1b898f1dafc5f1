use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Qemu;

fn sleeper() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo waiting >&2; sleep 1000 & wait"]);
    command
}

#[test]
fn the_process_dies_with_the_thread_that_started_it() {
    let mut qemu = std::thread::spawn(|| Qemu::start(sleeper()).unwrap())
        .join()
        .unwrap();
    let status = qemu.wait(Duration::from_secs(10)).expect("it was killed");
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn killing_takes_the_whole_group() {
    let mut qemu = Qemu::start(sleeper()).unwrap();
    let pid = qemu.child.id();
    let started = Instant::now();
    let members = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
            .filter(|stat| {
                let fields: Vec<_> = stat
                    .rsplit(')')
                    .next()
                    .unwrap_or("")
                    .split_whitespace()
                    .collect();
                fields.get(2) == Some(&pid.to_string().as_str()) && fields[0] != "Z"
            })
            .count()
    };
    while members() < 2 && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(members(), 2, "the shell and its sleep");
    qemu.kill();
    // `stderr` returns when nobody holds the pipe any more: not the sleep either.
    assert_eq!(qemu.stderr(), "waiting");
    assert_eq!(members(), 0);
}
