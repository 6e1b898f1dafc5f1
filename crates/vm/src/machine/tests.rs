use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Shared;
use crate::console::Milestone;
use crate::link::{GuestLink, LinkError, MAX_LINE_BYTES};

/// Runs `guest` on one end of the agent's channel and `host` on the other.
fn talk(guest: impl FnOnce(UnixStream) + Send, host: impl FnOnce(&mut GuestLink<'_>, &Shared)) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let shared = Shared::new(1);
    let mut reader = ours.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| shared.read_agent(&mut reader));
        scope.spawn(|| guest(theirs));
        let mut link = GuestLink::new(
            &shared,
            ours,
            None,
            Duration::from_secs(20),
            Instant::now() + Duration::from_secs(20),
        );
        host(&mut link, &shared);
        shared.update(|state| state.closing = true);
    });
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn messages_go_both_ways() {
    talk(
        |mut stream| {
            stream.write_all(b"{\"hello\":1}\n").unwrap();
            let mut buf = [0; 64];
            let n = stream.read(&mut buf).unwrap();
            assert_eq!(&buf[..n], b"{\"run\":[1,2]}\n");
            stream.write_all(b"{\"done\":").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(b"true}\n").unwrap();
        },
        |link, _| {
            assert_eq!(link.recv(SOON).unwrap(), json!({"hello": 1}));
            assert!(link.reached(Milestone::Agent) && link.reached(Milestone::Kernel));
            link.send(&json!({"run": [1, 2]}), SOON).unwrap();
            assert_eq!(link.recv(SOON).unwrap(), json!({"done": true}));
        },
    );
}

#[test]
fn garbage_and_endless_lines_are_thrown_away() {
    talk(
        |mut stream| {
            stream
                .write_all(b"\xff\xfe\x00 login: \n[1,2]\n\"text\"\n{\"broken\":\n\n")
                .unwrap();
            stream.write_all("[".repeat(100_000).as_bytes()).unwrap();
            stream.write_all(b"\n").unwrap();
            let chunk = vec![b'x'; 1 << 16];
            for _ in 0..=MAX_LINE_BYTES / chunk.len() {
                stream.write_all(&chunk).unwrap();
            }
            stream.write_all(b"\n{\"good\":1}\n").unwrap();
        },
        |link, _| assert_eq!(link.recv(SOON).unwrap(), json!({"good": 1})),
    );
}

#[test]
fn a_guest_that_floods_has_to_wait_and_nothing_is_lost() {
    talk(
        |mut stream| {
            let filler = "x".repeat(10_000);
            for i in 0..6_000 {
                writeln!(stream, "{}", json!({"i": i, "filler": filler})).unwrap();
            }
        },
        |link, shared| {
            std::thread::sleep(Duration::from_millis(300));
            assert!(shared.lock().messages.len() <= super::QUEUE_MAX.0);
            for i in 0..6_000 {
                assert_eq!(link.recv(SOON).unwrap()["i"], i);
            }
        },
    );
}

#[test]
fn what_was_said_before_the_end_is_still_received() {
    talk(
        |mut stream| stream.write_all(b"{\"last\":1}\n").unwrap(),
        |link, shared| {
            use std::os::unix::process::ExitStatusExt;
            shared.update(|state| state.exited = Some(std::process::ExitStatus::from_raw(0)));
            assert_eq!(link.recv(SOON).unwrap(), json!({"last": 1}));
            assert_eq!(link.recv(SOON).unwrap_err(), LinkError::GuestGone);
            assert_eq!(
                link.send(&Value::Null, SOON).unwrap_err(),
                LinkError::GuestGone
            );
        },
    );
}

#[test]
fn a_guest_that_does_not_read_costs_the_time_of_the_call_only() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    talk(
        move |stream| {
            let _ = stopped.recv();
            drop(stream);
        },
        |link, _| {
            let big = json!({"data": "x".repeat(MAX_LINE_BYTES - 100)});
            let started = Instant::now();
            let error = link.send(&big, Duration::from_millis(300)).unwrap_err();
            assert_eq!(error, LinkError::Timeout("take a message"));
            assert!(started.elapsed() < SOON);
            let error = link
                .send(&json!("x".repeat(MAX_LINE_BYTES)), SOON)
                .unwrap_err();
            assert!(matches!(error, LinkError::TooLong(_)));
            drop(stop);
        },
    );
}
