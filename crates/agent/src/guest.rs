//! The conversation with the host.

use amiforge_exec::Outside;
use amiforge_exec::protocol::{Reply, Request};

use crate::link::Link;
use crate::system;

/// Serves the host until it asks for a power-off.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut link = Link::open()?;
    system::wait_for_target();
    talk(&mut link)?;
    system::power_off();
    Ok(())
}

/// Returns when the host asked for a power-off.
fn talk(link: &mut Link) -> anyhow::Result<()> {
    link.send(&Reply::Hello(system::hello()))?;
    let mut outside = Outside::default();
    loop {
        match link.receive()? {
            None => {}
            Some(Request::Hello) => link.send(&Reply::Hello(system::hello()))?,
            Some(Request::Lend(lent)) => outside = lent,
            Some(Request::Run(spec)) => {
                let mut broken = None;
                let result = amiforge_exec::run_here(&spec, &outside, &mut |event| {
                    if broken.is_none() {
                        broken = link.send(&Reply::Event { event }).err();
                    }
                });
                if let Some(error) = broken {
                    return Err(error);
                }
                link.send(&Reply::Result { result })?;
            }
            Some(Request::Poweroff) => return link.send(&Reply::Bye),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use amiforge_exec::{DocumentSpec, RunSpec, Status};
    use amiforge_types::Timestamp;

    use super::*;

    #[test]
    fn says_hello_runs_and_says_bye() {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut link = Link::new(File::from(OwnedFd::from(guest))).unwrap();
        let agent = std::thread::spawn(move || talk(&mut link));
        let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
        let mut host = host;
        let mut next =
            || -> Reply { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

        let Reply::Hello(hello) = next() else {
            panic!()
        };
        assert_eq!(hello.version, amiforge_exec::protocol::VERSION);
        assert!(hello.uptime > 0.0 && hello.boot_id.len() == 36 && !hello.kernel.is_empty());

        host.write_all(b"nonsense\n").unwrap();
        assert!(matches!(next(), Reply::Error { .. }));

        let text = "{schemaVersion: 1.0, phases: [{name: test, steps: [{name: S, action: ExecuteBash, inputs: {commands: ['echo from the guest']}}]}]}";
        let spec = RunSpec {
            execution_id: "1".into(),
            documents: vec![DocumentSpec {
                name: "t".into(),
                text: text.into(),
                parameters: BTreeMap::new(),
                earlier: Vec::new(),
                working_directory: None,
            }],
            phases: vec!["test".into()],
            env: BTreeMap::new(),
            clock: Timestamp::from_secs(0),
        };
        let line = serde_json::to_string(&Request::Run(spec)).unwrap();
        assert!(line.starts_with(r#"{"type":"run","#), "{line}");
        host.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut output = Vec::new();
        let result = loop {
            match next() {
                Reply::Event {
                    event: amiforge_exec::ChildEvent::Stdout { line },
                } => output.push(line),
                Reply::Event { .. } => {}
                Reply::Result { result } => break result,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            (result.status, output),
            (Status::Success, vec!["from the guest".to_owned()])
        );

        host.write_all(b"{\"type\":\"poweroff\"}\n").unwrap();
        assert_eq!(next(), Reply::Bye);
        agent.join().unwrap().unwrap();
    }
}
