//! Command lines, networks, consoles, the guest agent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use amiforge_ami::Firmware;
use amiforge_ami::ec2::PortForward;
use serde_json::{Value, json};

use super::agent::GuestAgent;
use super::command::{command, quote};
use super::console::{Console, Log};
use super::*;
use crate::{Accelerator, Ovmf, QemuTools, QemuVersion};

const LIMIT: Duration = Duration::from_secs(20);

fn spec() -> InstanceSpec {
    InstanceSpec {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        instance_type: "t3.micro".into(),
        firmware: Firmware::Bios,
        accelerator: Accelerator::Tcg,
        cpus: 2,
        memory_mib: 1024,
        disks: vec![InstanceDisk {
            serial: "vol0123456789abcdef0".into(),
            boot_index: Some(0),
            source: DiskSource::Nbd("/run/i/vol-0.sock".into()),
        }],
        network: InstanceNetwork {
            mac: "02:00:00:00:00:01".into(),
            private_ip: Ipv4Addr::new(169, 255, 16, 10),
            imds_relay: Some(vec![
                "/opt/my, own/amiforge".into(),
                "__imds-relay".into(),
                "imds.sock".into(),
            ]),
            forwards: vec![PortForward {
                host: 2222,
                guest: 22,
                any_host: false,
            }],
            outbound: true,
        },
        console_log: "/run/i/console.log".into(),
        folder: "/run/i".into(),
    }
}

fn words(spec: &InstanceSpec, ovmf: Option<&Ovmf>) -> Result<Vec<String>, InstanceError> {
    let tools = QemuTools {
        qemu: "qemu".into(),
        version: QemuVersion {
            major: 8,
            minor: 0,
            micro: 0,
        },
        ovmf: None,
    };
    let command = command(&tools, spec, ovmf)?;
    let words = command.get_args().map(|w| w.to_str().unwrap().to_owned());
    Ok(words.collect())
}

/// The values of an option.
fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = words.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

#[test]
fn the_machine_is_told_what_ec2_tells() {
    let words = words(&spec(), None).unwrap();
    let uuid = "ec201234-5678-49ab-8cde-6789abcdef00";
    assert_eq!(
        values(&words, "-smbios"),
        [
            "type=0,vendor=Amazon EC2,version=1.0,date=10/16/2017,release=1.0".to_owned(),
            format!("type=1,manufacturer=Amazon EC2,product=t3.micro,serial={uuid},uuid={uuid}"),
            "type=2,manufacturer=Amazon EC2,asset=i-0123456789abcdef0".to_owned(),
            "type=3,manufacturer=Amazon EC2,asset=Amazon EC2".to_owned(),
        ]
    );
    assert_eq!(
        values(&words, "-netdev"),
        [
            "user,id=net,ipv6=off,net=169.254.0.0/15,host=169.255.16.1,dns=169.255.0.2,dhcpstart=169.255.16.10,\
             hostfwd=tcp:127.0.0.1:2222-169.255.16.10:22,\
             guestfwd=tcp:169.254.169.254:80-cmd:'/opt/my,, own/amiforge' __imds-relay imds.sock"
        ]
    );
    let nodes = values(&words, "-blockdev");
    let node: Value = serde_json::from_str(nodes[0]).unwrap();
    assert_eq!(
        node["server"],
        json!({"type": "unix", "path": "vol-0.sock"})
    );
    assert!(
        values(&words, "-device")
            .contains(&"nvme,drive=disk0,serial=vol0123456789abcdef0,bootindex=0")
    );
    assert_eq!(values(&words, "-accel"), ["tcg,thread=multi,tb-size=128"]);
    // A restart happens in place.
    assert!(!words.iter().any(|w| w == "-no-reboot"));
}

#[test]
fn options_of_a_spec_reach_the_command_line() {
    let mut other = spec();
    other.network.outbound = false;
    other.network.imds_relay = None;
    other.network.forwards.clear();
    other.network.private_ip = Ipv4Addr::new(172, 31, 16, 10);
    other.disks[0].source = DiskSource::Raw("/elsewhere/a, b.raw".into());
    other.disks[0].boot_index = None;
    let ovmf = Ovmf {
        code: "/ovmf/code.fd".into(),
        vars: "/ovmf/vars.fd".into(),
    };
    let words = words(&other, Some(&ovmf)).unwrap();
    assert_eq!(
        values(&words, "-netdev"),
        [
            "user,id=net,ipv6=off,net=168.0.0.0/5,host=172.31.16.1,dns=172.31.0.2,dhcpstart=172.31.16.10,restrict=on"
        ]
    );
    assert_eq!(
        values(&words, "-machine"),
        ["q35,graphics=off,dump-guest-core=off,pflash0=code,pflash1=vars"]
    );
    let nodes = values(&words, "-blockdev");
    let vars: Value = serde_json::from_str(nodes[1]).unwrap();
    assert_eq!(vars["file"]["filename"], "vars.fd");
    let disk: Value = serde_json::from_str(nodes[2]).unwrap();
    assert_eq!(disk["file"]["filename"], "/elsewhere/a, b.raw");
    assert!(values(&words, "-device").contains(&"nvme,drive=disk0,serial=vol0123456789abcdef0"));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut long = spec();
    long.disks[0].source = DiskSource::Nbd(PathBuf::from(format!("/{}", "x".repeat(107))));
    assert!(matches!(
        words(&long, None),
        Err(InstanceError::Path { .. })
    ));
    // The same is fine in the instance's folder, however deep that lies.
    long.folder = format!("/{}", "x".repeat(107)).into();
    long.disks[0].source = DiskSource::Nbd(long.folder.join("vol-0.sock"));
    assert!(words(&long, None).is_ok());
    let mut many = spec();
    many.disks = vec![many.disks[0].clone(); 21];
    assert!(matches!(
        words(&many, None),
        Err(InstanceError::TooManyDisks(21))
    ));
}

#[test]
fn the_network_is_the_smallest_with_both_ends() {
    for (guest, network) in [
        (
            "169.255.16.10",
            Some("169.254.0.0/15 169.255.16.1 169.255.0.2"),
        ),
        (
            "169.255.255.254",
            Some("169.254.0.0/15 169.255.240.1 169.255.0.2"),
        ),
        ("169.0.16.10", Some("169.0.0.0/8 169.0.16.1 169.0.0.2")),
        ("168.1.2.3", Some("168.0.0.0/7 168.1.0.1 168.1.0.2")),
        ("172.31.47.5", Some("168.0.0.0/5 172.31.32.1 172.31.0.2")),
        ("169.255.16.1", None),
        ("169.255.0.2", None),
        ("169.255.255.255", None),
        ("169.254.169.254", None),
        ("169.254.1.1", None),
        ("10.0.0.5", None),
        ("192.168.1.5", None),
        ("0.0.0.0", None),
    ] {
        let mut of = spec().network;
        of.private_ip = guest.parse().unwrap();
        let found = of.subnet().ok();
        let found = found.map(|s| format!("{}/{} {} {}", s.network, s.prefix, s.gateway, s.dns));
        assert_eq!(found.as_deref(), network, "{guest}");
    }
}

#[test]
fn words_are_quoted_as_a_shell_reads_them() {
    for (word, quoted) in [
        ("/usr/bin/a-b_c.d", "/usr/bin/a-b_c.d"),
        ("", "''"),
        ("a b", "'a b'"),
        ("it's", r"'it'\''s'"),
        ("$(x)\\\"", "'$(x)\\\"'"),
    ] {
        assert_eq!(quote(word), quoted);
    }
}

/// A console whose guest is the other end.
fn console(dir: &std::path::Path) -> (UnixStream, Arc<Console>, thread::JoinHandle<()>) {
    let (guest, ours) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(LIMIT)).unwrap();
    let console = Arc::new(Console::new(ours.try_clone().unwrap()));
    let (own, log) = (console.clone(), Log::open(&dir.join("log")).unwrap());
    let thread = thread::spawn(move || own.follow(ours, log).unwrap());
    (guest, console, thread)
}

#[test]
fn a_console_is_shown_logged_and_typed_at() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), "before\n").unwrap();
    let (mut guest, console, follower) = console(dir.path());
    guest.write_all(b"early\n").unwrap();
    while std::fs::read(dir.path().join("log")).unwrap().len() < 13 {
        thread::sleep(Duration::from_millis(5));
    }
    let (client, end) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let own = console.clone();
    let attached = thread::spawn(move || own.attach(&end).unwrap());
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, "early\n");
    guest.write_all(b"late\n").unwrap();
    line.clear();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, "late\n");
    client.get_mut().write_all(b"typed").unwrap();
    let mut typed = [0; 5];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(typed, *b"typed");
    // Somebody who does not read does not hold up the guest.
    guest.write_all(&vec![b'x'; 2 << 20]).unwrap();
    drop(guest);
    follower.join().unwrap();
    drop(client);
    attached.join().unwrap();
    let log = std::fs::read(dir.path().join("log")).unwrap();
    assert!(log.starts_with(b"before\nearly\nlate\nxxx"));
    assert_eq!(log.len(), 18 + (2 << 20));
    // Nobody is shown a console that has ended.
    let (mut client, end) = UnixStream::pair().unwrap();
    console.attach(&end).unwrap();
    drop(end);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_long_log_is_begun_anew_and_one_old_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guest, _, follower) = console(dir.path());
    for n in 0..11_u8 {
        guest.write_all(&vec![b'0' + n; 1 << 20]).unwrap();
    }
    drop(guest);
    follower.join().unwrap();
    let length = |name| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let (log, old) = (length("log"), length("log.1"));
    assert!((4 << 20..5 << 20).contains(&old), "{old}");
    assert!(log < 4 << 20, "{log}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let end = std::fs::read(dir.path().join("log")).unwrap();
    assert!(end.ends_with(b"::::"));
}

/// A guest agent that answers each line with what `answer` makes of it.
fn agent(
    mut answer: impl FnMut(&Value) -> Vec<u8> + Send + 'static,
) -> (GuestAgent, Arc<AtomicBool>) {
    let (guest, ours) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut writer = guest.try_clone().unwrap();
        let mut reader = BufReader::new(guest);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let json = line.strip_prefix(b"\xff").unwrap_or(&line);
            let message = serde_json::from_slice(json).unwrap();
            if writer.write_all(&answer(&message)).is_err() {
                return;
            }
            line.clear();
        }
    });
    let open = Arc::new(AtomicBool::new(true));
    (GuestAgent::new(ours, open.clone()), open)
}

fn synchronized(message: &Value) -> Option<Vec<u8>> {
    (message["execute"] == "guest-sync-delimited").then(|| {
        let answer = json!({ "return": message["arguments"]["id"] });
        [b"\xff".to_vec(), format!("{answer}\n").into_bytes()].concat()
    })
}

#[test]
fn a_guest_agent_is_asked_after_what_it_said_before_is_gone() {
    let (agent, open) = agent(|message| match synchronized(message) {
        Some(answer) => [
            b"stale {\n{\"return\": 7}\n\xff{\"return\": 12345}\n\xff\xff{\"error\": {}}\n"
                .to_vec(),
            answer,
        ]
        .concat(),
        None if message["execute"] == "guest-fsfreeze-freeze" => b"{\"return\": 3}\n".to_vec(),
        None => b"{\"error\": {\"class\": \"x\", \"desc\": \"no\\u0007\"}}\n".to_vec(),
    });
    for _ in 0..2 {
        let answer = agent.execute("guest-fsfreeze-freeze", Value::Null, LIMIT);
        assert_eq!(answer.unwrap(), json!(3));
    }
    let error = agent
        .execute("guest-other", Value::Null, LIMIT)
        .unwrap_err();
    assert_eq!(error.to_string(), "the guest agent refused guest-other: no");
    open.store(false, Ordering::SeqCst);
    let error = agent
        .execute("guest-other", Value::Null, LIMIT)
        .unwrap_err();
    assert!(matches!(error, InstanceError::NoAgent));
}

#[test]
fn a_guest_agent_that_misbehaves_costs_no_more_than_the_time() {
    type Misbehaves = fn(&Value) -> Vec<u8>;
    let cases: [Misbehaves; 5] = [
        |_| Vec::new(),
        |_| vec![b'x'; 2 << 20],
        |_| vec![0xFF; 2 << 20],
        |m| synchronized(m).unwrap_or_else(|| vec![b'x'; 100 << 10]),
        |m| synchronized(m).unwrap_or_else(|| b"[]\n".to_vec()),
    ];
    for misbehaves in cases {
        let (agent, _) = agent(misbehaves);
        let begun = std::time::Instant::now();
        let answer = agent.execute("guest-ping", Value::Null, Duration::from_millis(300));
        assert!(matches!(
            answer,
            Err(InstanceError::Late(_) | InstanceError::Agent { .. })
        ));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
