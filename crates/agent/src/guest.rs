//! The conversation with the host.

use amiforge_exec::protocol::{Reply, Request};
use amiforge_exec::{Executed, Journal, Outside, RunSpec};

use crate::link::Link;
use crate::system;

/// How the conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    PowerOff,
    Restart,
}

/// Serves the host until it asks for a power-off or a restart.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut link = Link::open()?;
    system::wait_for_target();
    match talk(&mut link)? {
        Then::PowerOff => system::power_off(),
        Then::Restart => system::restart(),
    }
    Ok(())
}

/// Returns when the host asked for a power-off or a restart.
fn talk(link: &mut Link) -> anyhow::Result<Then> {
    link.send(&Reply::Hello(system::hello()))?;
    let mut outside = Outside::default();
    loop {
        match link.receive()? {
            None => {}
            Some(Request::Hello) => link.send(&Reply::Hello(system::hello()))?,
            Some(Request::Lend(lent)) => outside = lent,
            Some(Request::Run(spec)) => run(link, &spec, &outside, Journal::default())?,
            Some(Request::Resume { run: spec, journal }) => run(link, &spec, &outside, journal)?,
            Some(Request::Restart) => {
                link.send(&Reply::Bye)?;
                return Ok(Then::Restart);
            }
            Some(Request::Poweroff) => {
                link.send(&Reply::Bye)?;
                return Ok(Then::PowerOff);
            }
        }
    }
}

/// Runs up to the end, or up to the next restart.
fn run(link: &mut Link, spec: &RunSpec, outside: &Outside, journal: Journal) -> anyhow::Result<()> {
    let mut broken = None;
    let executed = amiforge_exec::run_until_restart(spec, outside, journal, &mut |event| {
        if broken.is_none() {
            broken = link.send(&Reply::Event { event }).err();
        }
    });
    if let Some(error) = broken {
        return Err(error);
    }
    link.send(&match executed {
        Executed {
            restart: Some(journal),
            ..
        } => Reply::Restart { journal },
        Executed { mut result, .. } => {
            result.fit(amiforge_exec::protocol::MAX_RESULT);
            let result = Box::new(result);
            Reply::Result { result }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use amiforge_exec::{DocumentSpec, RunSpec, Status};

    use super::*;

    fn test_phase(text: &str) -> RunSpec {
        RunSpec {
            execution_id: "1".into(),
            documents: vec![DocumentSpec {
                name: "t".into(),
                text: text.into(),
                parameters: BTreeMap::new(),
                earlier: Vec::new(),
                working_directory: None,
            }],
            phases: vec!["test".into()],
            ..RunSpec::default()
        }
    }

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
        let spec = test_phase(text);
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
        assert_eq!(agent.join().unwrap().unwrap(), Then::PowerOff);
    }

    #[test]
    fn a_run_goes_on_after_a_restart() {
        let text = "{schemaVersion: 1.0, phases: [{name: test, steps: [\
            {name: A, action: ExecuteBash, inputs: {commands: ['echo before']}}, \
            {name: R, action: Reboot}, \
            {name: B, action: ExecuteBash, inputs: {commands: ['echo after {{ test.A.outputs.stdout }}']}}]}]}";
        let spec = test_phase(text);
        let mut request = Request::Run(spec.clone());
        let mut output = Vec::new();
        // The second round is the agent of the next boot.
        for round in 0..2 {
            let (mut host, guest) = UnixStream::pair().unwrap();
            let mut link = Link::new(File::from(OwnedFd::from(guest))).unwrap();
            let agent = std::thread::spawn(move || talk(&mut link));
            let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
            let line = serde_json::to_string(&request).unwrap();
            host.write_all(format!("{line}\n").as_bytes()).unwrap();
            loop {
                match serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() {
                    Reply::Event {
                        event: amiforge_exec::ChildEvent::Stdout { line },
                    } => output.push(line),
                    Reply::Event { .. } | Reply::Hello(_) => {}
                    Reply::Restart { journal } => {
                        let run = spec.clone();
                        request = Request::Resume { run, journal };
                        break;
                    }
                    Reply::Result { result } => {
                        assert_eq!((round, result.status), (1, Status::Success));
                        let steps = &result.documents[0].phases[0].steps;
                        assert_eq!(steps.len(), 3);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            host.write_all(b"{\"type\":\"restart\"}\n").unwrap();
            assert_eq!(agent.join().unwrap().unwrap(), Then::Restart);
        }
        assert_eq!(output, ["before", "after before"]);
    }
}
