//! The virtio-serial port: lines of JSON in both directions.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use amiforge_exec::protocol::{MAX_MESSAGE, PORT, Reply, Request};
use anyhow::Context as _;

/// How long the device may take to appear after the agent started.
const WAIT: Duration = Duration::from_secs(120);

/// The open port.
pub(crate) struct Link {
    reader: BufReader<File>,
    writer: File,
}

impl Link {
    /// Waits for the port and opens it.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let path = Path::new("/dev/virtio-ports").join(PORT);
        let until = Instant::now() + WAIT;
        loop {
            match File::options().read(true).write(true).open(&path) {
                Ok(port) => return Self::new(port),
                Err(error) if Instant::now() >= until => {
                    return Err(error).with_context(|| format!("cannot open {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    pub(crate) fn new(port: File) -> anyhow::Result<Self> {
        Ok(Self {
            reader: BufReader::new(port.try_clone()?),
            writer: port,
        })
    }

    /// Writes one line. Waits while the host does not read.
    pub(crate) fn send(&mut self, reply: &Reply) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.writer
            .write_all(&line)
            .context("cannot write to the host")?;
        Ok(())
    }

    /// Reads the next request; `None` when a line is no request, which is answered.
    pub(crate) fn receive(&mut self) -> anyhow::Result<Option<Request>> {
        let mut line = Vec::new();
        while line.is_empty() || line == b"\n" {
            line.clear();
            let limit = MAX_MESSAGE as u64;
            let n = self
                .reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut line)
                .context("cannot read from the host")?;
            if n == 0 {
                // A port that no host has opened reads as ended.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        match serde_json::from_slice(&line) {
            Ok(request) => Ok(Some(request)),
            Err(error) => {
                self.send(&Reply::Error {
                    message: format!("the request is not understood: {error}"),
                })?;
                Ok(None)
            }
        }
    }
}
