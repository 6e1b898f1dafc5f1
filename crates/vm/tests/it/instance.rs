//! Instances with guests of a few dozen bytes, their volume in memory behind NBD.

use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amiforge_ami::Firmware;
use amiforge_ami::ec2::PortForward;
use amiforge_vm::nbd::{BlockDevice, NbdServer};
use amiforge_vm::{
    Accelerator, DiskSource, ExitReason, InstanceDisk, InstanceError, InstanceEvent,
    InstanceNetwork, InstanceSpec, RunningInstance, ScreenFormat, TinyEnding, TinyGuest,
};

use crate::fixture::tools;

const LIMIT: Duration = Duration::from_secs(60);

/// A disk in memory.
struct Memory(Mutex<Vec<u8>>);

impl BlockDevice for Memory {
    fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.0.lock().unwrap()[offset..offset + buf.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.write_at(&vec![0; usize::try_from(len).unwrap()], offset)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Tiny {
    instance: RunningInstance,
    events: Receiver<InstanceEvent>,
    disk: Arc<Memory>,
    dir: tempfile::TempDir,
    _server: NbdServer,
}

fn start(guest: &TinyGuest) -> Tiny {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("an instance's, folder");
    std::fs::create_dir(&folder).unwrap();
    let disk = Arc::new(Memory(Mutex::new(guest.disk())));
    let socket = folder.join("root.sock");
    let server =
        NbdServer::start(UnixListener::bind(&socket).unwrap(), disk.clone(), false).unwrap();
    std::fs::write(folder.join("ephemeral0.raw"), vec![0; 1 << 20]).unwrap();
    let spec = InstanceSpec {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        instance_type: "t3.micro".into(),
        firmware: Firmware::Bios,
        accelerator: Accelerator::Tcg,
        cpus: 1,
        memory_mib: 128,
        disks: vec![
            InstanceDisk {
                serial: "vol0123456789abcdef0".into(),
                boot_index: Some(0),
                source: DiskSource::Nbd(socket),
            },
            InstanceDisk {
                serial: "AWS0123456789ABCDEF0".into(),
                boot_index: None,
                source: DiskSource::Raw(folder.join("ephemeral0.raw")),
            },
        ],
        network: InstanceNetwork {
            mac: "02:00:00:00:00:01".into(),
            private_ip: "169.255.16.10".parse().unwrap(),
            imds_relay: Some(vec![
                "/bin/a relay, with 'quotes'".into(),
                "imds.sock".into(),
            ]),
            forwards: vec![PortForward {
                host: free_port(),
                guest: 22,
                any_host: false,
            }],
            outbound: false,
        },
        console_log: folder.join("console.log"),
        folder,
    };
    let (send, events) = mpsc::channel();
    let instance = RunningInstance::start(&tools(), &spec, move |event| {
        let _ = send.send(event);
    })
    .unwrap();
    Tiny {
        instance,
        events,
        disk,
        dir,
        _server: server,
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_guest_that_powers_off_ends_its_instance() {
    let tiny = start(&TinyGuest {
        message: "hello from the volume".into(),
        writes: true,
        ending: TinyEnding::PowerOff,
    });
    let exit = tiny.instance.wait(LIMIT).unwrap();
    assert_eq!(exit.reason, ExitReason::PowerOff, "{}", exit.stderr);
    assert_eq!(exit.stderr, "");
    assert!(exit.status.unwrap().success());
    let events: Vec<InstanceEvent> = tiny.events.try_iter().collect();
    let shutdown = InstanceEvent::Shutdown(ExitReason::PowerOff);
    assert_eq!(
        events[events.len() - 2..],
        [shutdown, InstanceEvent::Exited(exit)]
    );
    let disk = tiny.disk.0.lock().unwrap();
    assert_eq!(disk[..512], disk[512..1024], "the guest has written");
    let log = tiny.dir.path().join("an instance's, folder/console.log");
    let log = std::fs::read(log).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("hello from the volume"));
    assert!(matches!(tiny.instance.status(), Err(InstanceError::Gone)));
}

#[test]
fn a_guest_that_hangs_is_shown_told_and_ended() {
    let tiny = start(&TinyGuest {
        message: "I stay".into(),
        writes: false,
        ending: TinyEnding::Hang,
    });
    // The console, through a socket.
    let socket = tiny.dir.path().join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let _console = tiny.instance.serve_console(listener).unwrap();
    let mut watcher = UnixStream::connect(&socket).unwrap();
    watcher.set_read_timeout(Some(LIMIT)).unwrap();
    let mut seen = Vec::new();
    let mut buf = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("I stay") {
        let n = watcher.read(&mut buf).unwrap();
        assert_ne!(n, 0);
        seen.extend(&buf[..n]);
    }
    let status = tiny.instance.status().unwrap();
    assert!(status.running, "{status:?}");
    let picture = tiny.dir.path().join("screen");
    tiny.instance
        .screendump(&picture, ScreenFormat::Ppm)
        .unwrap();
    assert!(std::fs::read(&picture).unwrap().starts_with(b"P6\n"));
    match tiny.instance.screendump(&picture, ScreenFormat::Png) {
        Ok(()) => assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG")),
        Err(e) => assert!(matches!(e, InstanceError::Refused { .. }), "{e}"),
    }
    assert!(matches!(
        tiny.instance.fs_freeze(LIMIT),
        Err(InstanceError::NoAgent)
    ));
    // The guest does not listen to its power button.
    tiny.instance.power_down().unwrap();
    assert_eq!(tiny.instance.wait(Duration::from_millis(100)), None);
    tiny.instance.reset().unwrap();
    let reset = tiny.events.recv_timeout(LIMIT).unwrap();
    assert_eq!(reset, InstanceEvent::Reset { by_guest: false });
    let exit = tiny.instance.quit(LIMIT);
    assert_eq!(exit.reason, ExitReason::Ended);
    while watcher.read(&mut buf).unwrap() > 0 {}
}

#[test]
fn a_guest_that_restarts_does_so_in_place() {
    let tiny = start(&TinyGuest {
        message: String::new(),
        writes: false,
        ending: TinyEnding::Reset,
    });
    for _ in 0..2 {
        let reset = tiny.events.recv_timeout(LIMIT).unwrap();
        assert_eq!(reset, InstanceEvent::Reset { by_guest: true });
    }
    // Dropping ends it.
    let pid = tiny.instance.pid();
    let Tiny {
        instance, events, ..
    } = tiny;
    drop(instance);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let last = events.into_iter().last().unwrap();
    let InstanceEvent::Exited(exit) = last else {
        panic!("{last:?}");
    };
    assert_eq!(exit.reason, ExitReason::Ended);
}

#[test]
fn a_volume_that_is_not_served_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spec = InstanceSpec {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        instance_type: "t3.micro".into(),
        firmware: Firmware::Bios,
        accelerator: Accelerator::Tcg,
        cpus: 1,
        memory_mib: 64,
        disks: vec![InstanceDisk {
            serial: "vol0".into(),
            boot_index: Some(0),
            source: DiskSource::Nbd(dir.path().join("nobody.sock")),
        }],
        network: InstanceNetwork {
            mac: "02:00:00:00:00:01".into(),
            private_ip: "172.31.16.10".parse().unwrap(),
            imds_relay: None,
            forwards: Vec::new(),
            outbound: true,
        },
        console_log: dir.path().join("console.log"),
        folder: dir.path().to_owned(),
    };
    let error = RunningInstance::start(&tools(), &spec, |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nobody.sock"), "{text}");
}
