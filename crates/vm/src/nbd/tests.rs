//! Conversations over streams in memory, and over sockets.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::proto::{command, errno, flag, info, option, reply};
use super::*;

/// A device in memory that keeps count of what is asked of it.
#[derive(Default)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<String>>,
    fails: Option<io::ErrorKind>,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let bytes = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
        Self {
            bytes: Mutex::new(bytes),
            ..Self::default()
        }
    }

    fn call(&self, text: String) -> io::Result<()> {
        self.calls.lock().unwrap().push(text);
        self.fails.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl BlockDevice for Memory {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(format!("read {offset}+{}", buf.len()))?;
        let offset = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + buf.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.call(format!("write {offset}+{}", data.len()))?;
        let offset = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64, hole: bool) -> io::Result<()> {
        self.call(format!("zero {offset}+{len} {hole}"))?;
        let (offset, len) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(len).unwrap(),
        );
        self.bytes.lock().unwrap()[offset..offset + len].fill(0);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.call("flush".into())
    }
}

/// What a client says.
#[derive(Default)]
struct Says(Vec<u8>);

impl Says {
    fn hello(flags: u32) -> Self {
        Self(flags.to_be_bytes().to_vec())
    }

    fn option(mut self, code: u32, data: &[u8]) -> Self {
        self.0.extend(b"IHAVEOPT");
        self.0.extend(code.to_be_bytes());
        self.0
            .extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        self.0.extend(data);
        self
    }

    /// Straight into transmission.
    fn begin() -> Self {
        Self::hello(3).option(option::EXPORT_NAME, b"")
    }

    fn request(mut self, flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) -> Self {
        self.0.extend(0x2560_9513_u32.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
        self.0.extend(command.to_be_bytes());
        self.0.extend(b"cookie!!");
        self.0.extend(offset.to_be_bytes());
        self.0.extend(length.to_be_bytes());
        self.0.extend(data);
        self
    }

    /// What it hears, without the greeting, and whether the handshake was kept to.
    fn to(self, device: &dyn BlockDevice, read_only: bool) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        let outcome = converse(self.0.as_slice(), &mut heard, device, read_only);
        assert_eq!(heard[..18], *b"NBDMAGICIHAVEOPT\0\x03");
        (heard.split_off(18), outcome.is_ok())
    }

    /// The errors of its requests, when none reads.
    fn errors(self, device: &dyn BlockDevice, read_only: bool) -> Vec<u32> {
        let (heard, _) = self.to(device, read_only);
        let (replies, rest) = heard[10..].as_chunks::<16>();
        assert!(rest.is_empty());
        replies
            .iter()
            .map(|r| {
                assert_eq!(r[..4], 0x6744_6698_u32.to_be_bytes());
                assert_eq!(r[8..], *b"cookie!!");
                u32::from_be_bytes([r[4], r[5], r[6], r[7]])
            })
            .collect()
    }
}

fn replies(mut heard: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !heard.is_empty() {
        assert_eq!(heard[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let word = |at: usize| u32::from_be_bytes(heard[at..at + 4].try_into().unwrap());
        let (code, kind, length) = (word(8), word(12), word(16) as usize);
        all.push((code, kind, heard[20..20 + length].to_vec()));
        heard = &heard[20 + length..];
    }
    all
}

fn go(name: &[u8], wanted: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name);
    data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
    data.extend(wanted.iter().flat_map(|w| w.to_be_bytes()));
    data
}

#[test]
fn export_name_gives_size_and_flags_with_or_without_zeros() {
    let device = Memory::new(5000);
    let all = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_TRIM
        | flag::SEND_WRITE_ZEROES
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    for (hello, read_only, zeros) in [(3, false, 0), (1, false, 124), (3, true, 0)] {
        let (heard, kept) = Says::hello(hello)
            .option(option::EXPORT_NAME, b"")
            .to(&device, read_only);
        let flags = match read_only {
            false => all,
            true => all & !flag::SEND_TRIM & !flag::SEND_WRITE_ZEROES | flag::READ_ONLY,
        };
        assert!(kept);
        assert_eq!(heard[..8], 5000_u64.to_be_bytes());
        assert_eq!(heard[8..10], flags.to_be_bytes());
        assert_eq!(heard[10..], vec![0; zeros]);
    }
}

#[test]
fn options_are_answered() {
    let device = Memory::new(5000);
    let (heard, kept) = Says::hello(3)
        .option(option::LIST, b"")
        .option(option::LIST, b"x")
        .option(5, b"")
        .option(8, b"")
        .option(77, &[0; 8192])
        .option(77, &[0; 8193])
        .option(option::INFO, b"shrt")
        .option(option::INFO, &go(b"other", &[]))
        .option(option::INFO, &go(b"", &[info::NAME, info::BLOCK_SIZE]))
        .option(option::ABORT, b"")
        .to(&device, false);
    assert!(kept);
    let answers = replies(&heard);
    let kinds: Vec<(u32, u32)> = answers.iter().map(|a| (a.0, a.1)).collect();
    assert_eq!(
        kinds,
        [
            (option::LIST, reply::SERVER),
            (option::LIST, reply::ACK),
            (option::LIST, reply::ERR_INVALID),
            (5, reply::ERR_UNSUP),
            (8, reply::ERR_UNSUP),
            (77, reply::ERR_UNSUP),
            (77, reply::ERR_TOO_BIG),
            (option::INFO, reply::ERR_INVALID),
            (option::INFO, reply::ERR_UNKNOWN),
            (option::INFO, reply::INFO),
            (option::INFO, reply::INFO),
            (option::INFO, reply::INFO),
            (option::INFO, reply::ACK),
            (option::ABORT, reply::ACK),
        ]
    );
    assert_eq!(answers[0].2, [0; 4]);
    let mut sizes = vec![0, 3, 0, 0, 0, 1, 0, 0, 16, 0];
    sizes.extend((32_u32 << 20).to_be_bytes());
    assert_eq!(answers[11].2, sizes);
}

#[test]
fn a_client_that_does_not_keep_to_the_protocol_is_left() {
    let device = Memory::new(5000);
    let long = {
        let mut says = Says::hello(3);
        says.0.extend(b"IHAVEOPT");
        says.0.extend(option::GO.to_be_bytes());
        says.0.extend(u32::MAX.to_be_bytes());
        says
    };
    let wrong = [
        Says::hello(0),
        Says::hello(7),
        Says(vec![0]),
        Says::hello(3).option(option::EXPORT_NAME, b"other"),
        long,
        Says([Says::hello(3).0, b"IHAVENOT0000000000".to_vec()].concat()),
        (0..65).fold(Says::hello(3), |says, _| says.option(77, b"")),
    ];
    for says in wrong {
        assert!(!says.to(&device, false).1);
    }
    assert!(device.calls.lock().unwrap().is_empty());
}

#[test]
fn requests_are_done() {
    let device = Memory::new(5000);
    let before = device.bytes.lock().unwrap().clone();
    let (heard, _) = Says::hello(3)
        .option(option::GO, &go(b"", &[]))
        .request(0, command::READ, 100, 4000, b"")
        .request(0, command::DISC, 0, 0, b"")
        .request(0, command::READ, 0, 1, b"")
        .to(&device, false);
    let data = &heard[heard.len() - 4000..];
    assert_eq!(data, &before[100..4100]);
    let errors = Says::begin()
        .request(1, command::WRITE, 10, 3, b"abc")
        .request(0, command::WRITE_ZEROES, 11, 1, b"")
        .request(2, command::WRITE_ZEROES, 20, 1, b"")
        .request(0, command::TRIM, 0, 5000, b"")
        .request(0, command::FLUSH, 0, 0, b"")
        .request(0, command::CACHE, 0, 5000, b"")
        .errors(&device, false);
    assert_eq!(errors, [0; 6]);
    assert_eq!(
        *device.calls.lock().unwrap(),
        [
            "read 100+4000",
            "write 10+3",
            "flush",
            "zero 11+1 true",
            "zero 20+1 false",
            "zero 0+5000 true",
            "flush"
        ]
    );
}

#[test]
fn requests_that_cannot_be_done_get_an_error_and_the_next_is_served() {
    let device = Memory::new(5000);
    let errors = Says::begin()
        .request(0, command::READ, 4999, 2, b"")
        .request(0, command::READ, u64::MAX, 2, b"")
        .request(0, command::READ, 0, u32::MAX, b"")
        .request(0, command::WRITE, 4999, 2, b"ab")
        .request(0, command::WRITE_ZEROES, 4999, 2, b"")
        .request(0, command::TRIM, 4999, 2, b"")
        .request(0, command::CACHE, 5000, 1, b"")
        .request(16, command::WRITE_ZEROES, 0, 2, b"")
        .request(4, command::READ, 0, 2, b"")
        .request(0, 7, 0, 2, b"")
        .request(0, 99, 0, 2, b"")
        .request(0, command::FLUSH, 0, 0, b"")
        .errors(&device, false);
    let (inval, space) = (errno::EINVAL, errno::ENOSPC);
    assert_eq!(
        errors,
        [
            inval, inval, inval, space, space, inval, inval, inval, inval, inval, inval, 0
        ]
    );
    let errors = Says::begin()
        .request(0, command::WRITE, 0, 2, b"ab")
        .request(0, command::WRITE_ZEROES, 0, 2, b"")
        .request(0, command::TRIM, 0, 2, b"")
        .request(0, command::FLUSH, 0, 0, b"")
        .errors(&device, true);
    assert_eq!(errors, [errno::EPERM, errno::EPERM, errno::EPERM, 0]);
    assert_eq!(*device.calls.lock().unwrap(), ["flush", "flush"]);
}

#[test]
fn errors_of_the_device_are_those_of_the_protocol() {
    for (kind, expected) in [
        (io::ErrorKind::StorageFull, errno::ENOSPC),
        (io::ErrorKind::InvalidInput, errno::EINVAL),
        (io::ErrorKind::PermissionDenied, errno::EPERM),
        (io::ErrorKind::OutOfMemory, errno::ENOMEM),
        (io::ErrorKind::Unsupported, errno::ENOTSUP),
        (io::ErrorKind::Other, errno::EIO),
        (io::ErrorKind::UnexpectedEof, errno::EIO),
    ] {
        let device = Memory {
            fails: Some(kind),
            ..Memory::new(5000)
        };
        // A read that failed has no data behind its reply.
        let errors = Says::begin()
            .request(0, command::WRITE, 0, 2, b"ab")
            .request(0, command::READ, 0, 2, b"")
            .request(0, command::FLUSH, 0, 0, b"")
            .errors(&device, false);
        assert_eq!(errors, [expected; 3]);
    }
}

#[test]
fn data_that_is_too_long_or_missing_ends_the_connection() {
    let device = Memory::new(5000);
    let errors = Says::begin()
        .request(0, command::WRITE, 0, MAX_REQUEST + 1, b"ab")
        .request(0, command::FLUSH, 0, 0, b"")
        .errors(&device, false);
    assert!(errors.is_empty());
    let errors = Says::begin()
        .request(0, command::WRITE, 0, 3, b"ab")
        .errors(&device, false);
    assert!(errors.is_empty());
    assert!(device.calls.lock().unwrap().is_empty());
}

/// A device whose first read waits for its second.
struct Meeting {
    readers: Mutex<u32>,
    both: Condvar,
}

impl BlockDevice for Meeting {
    fn len(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut readers = self.readers.lock().unwrap();
        *readers += 1;
        self.both.notify_all();
        while *readers < 2 {
            let (guard, late) = self
                .both
                .wait_timeout(readers, Duration::from_secs(20))
                .unwrap();
            readers = guard;
            if late.timed_out() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        buf.fill(u8::try_from(offset).unwrap());
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("a device that panics")
    }

    fn zero_at(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        // Longer than it takes to tell the server to stop.
        thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn connect(dir: &tempfile::TempDir) -> (NbdServer, UnixStream) {
    let path = dir.path().join("nbd");
    let device = Arc::new(Meeting {
        readers: Mutex::new(0),
        both: Condvar::new(),
    });
    let server = NbdServer::start(UnixListener::bind(&path).unwrap(), device, false).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    client.write_all(&Says::begin().0).unwrap();
    client.read_exact(&mut [0; 28]).unwrap();
    (server, client)
}

#[test]
fn requests_of_one_connection_are_done_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = connect(&dir);
    let says = Says::default()
        .request(0, command::READ, 1, 5, b"")
        .request(0, command::READ, 2, 5, b"");
    client.write_all(&says.0).unwrap();
    let mut answers = [[0; 21]; 2];
    for answer in &mut answers {
        client.read_exact(answer).unwrap();
        assert_eq!(answer[4..8], [0; 4]);
    }
    answers.sort_unstable();
    assert_eq!(answers.map(|a| a[16..].to_vec()), [[1; 5], [2; 5]]);
    assert_eq!(server.connections(), 1);
    client
        .write_all(&Says::default().request(0, command::DISC, 0, 0, b"").0)
        .unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    server.stop();
}

#[test]
fn stopping_answers_what_is_being_done_and_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = connect(&dir);
    let zero = Says::default().request(0, command::WRITE_ZEROES, 0, 5, b"");
    client.write_all(&zero.0).unwrap();
    thread::sleep(Duration::from_millis(100));
    server.stop();
    let mut answer = [0; 16];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], [0; 4]);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert!(UnixStream::connect(dir.path().join("nbd")).is_err());
}

#[test]
fn a_device_that_panics_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = connect(&dir);
    let write = Says::default().request(0, command::WRITE, 0, 2, b"ab");
    client.write_all(&write.0).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    server.stop();
}

#[test]
fn a_client_that_does_not_read_does_not_hinder_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = connect(&dir);
    let reads = (0..8).fold(Says::default(), |says, _| {
        says.request(0, command::READ, 0, 1 << 20, b"")
    });
    client.write_all(&reads.0).unwrap();
    thread::sleep(Duration::from_millis(100));
    server.stop();
}
