//! Names of hosts to addresses, without the C library.
//!
//! The root is an image's: its C library would load the image's own modules into our process, and a
//! static program has none to load. So `/etc/hosts` and `/etc/resolv.conf` of the root are read here
//! and the name servers asked (resolver(5), hosts(5); RFC 1035; RFC 6761 for `localhost`).
//! Nothing else of `nsswitch.conf` is known: no mDNS, no LDAP.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::dns::{self, Answer, Record};

/// Bytes of a configuration file that are read.
const MAX_FILE: u64 = 1 << 20;

/// Name servers that are asked, as in the C library.
const MAX_SERVERS: usize = 3;

/// Domains that are searched.
const MAX_SEARCH: usize = 6;

/// Time for one try when nothing else limits it.
const LONGEST: Duration = Duration::from_secs(60);

/// Time for addresses of version 6 when there are others: some servers stay silent about them.
const SECOND_KIND: Duration = Duration::from_secs(1);

/// Addresses of one name.
const MAX_ADDRESSES: usize = 16;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// The name servers, or `/etc/hosts`, say so.
    #[error("there is no host {0:?}")]
    NoHost(String),
    /// No server said anything.
    #[error("no name server answers for {host:?} ({servers})")]
    NoAnswer {
        host: String,
        /// Which were asked, and what happened last.
        servers: String,
    },
}

/// Looks names up in the live root.
#[derive(Clone, Debug)]
pub(crate) struct RootResolver {
    etc: PathBuf,
    /// A proxy: every host is there.
    via: Option<(String, u16)>,
}

impl Default for RootResolver {
    fn default() -> Self {
        Self {
            etc: PathBuf::from("/etc"),
            via: None,
        }
    }
}

impl Resolver for RootResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let usual = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let (host, port) = match &self.via {
            Some((host, port)) => (host.as_str(), *port),
            None => {
                let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
                (host, uri.port_u16().unwrap_or(usual))
            }
        };
        let found = self
            .lookup(host, Instant::now() + (*timeout.after).min(LONGEST))
            .map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut all = self.empty();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            all.push(SocketAddr::new(address, port));
        }
        Ok(all)
    }
}

impl RootResolver {
    /// One to which every host is at the proxy.
    pub(super) fn via(host: String, port: u16) -> Self {
        Self {
            via: Some((host, port)),
            ..Self::default()
        }
    }

    /// The addresses of a host, at least one, those of version 4 first.
    pub(crate) fn lookup(&self, host: &str, until: Instant) -> Result<Vec<IpAddr>, LookupError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let name = bare.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let found = in_hosts(&self.read("hosts"), name);
        if !found.is_empty() {
            return Ok(found);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let config = Config::parse(&self.read("resolv.conf"));
        let mut silent = None;
        for candidate in config.candidates(name, bare.ends_with('.')) {
            match config.ask_all(&candidate, until) {
                Ok(found) if found.is_empty() => {}
                Ok(found) => return Ok(found),
                Err(why) => silent = Some(why),
            }
        }
        Err(match silent {
            Some(why) => LookupError::NoAnswer {
                host: host.to_owned(),
                servers: why,
            },
            None => LookupError::NoHost(host.to_owned()),
        })
    }

    /// A file below `/etc`; nothing when it is not there.
    fn read(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        let path = self.etc.join(name);
        // To open a pipe would wait for ever.
        if std::fs::metadata(&path).is_ok_and(|m| m.is_file())
            && let Ok(file) = File::open(&path)
        {
            let _ends_early = file.take(MAX_FILE).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The addresses of a name in hosts(5), those of version 4 first.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        let listed = words.any(|word| word.eq_ignore_ascii_case(name));
        if listed && !found.contains(&address) && found.len() < MAX_ADDRESSES {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    let _ = in_hosts(text, "h.test");
    let config = Config::parse(text);
    assert!((1..=MAX_SERVERS).contains(&config.servers.len()));
}

/// What resolv.conf(5) says.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => config.server(words.next()),
                Some("search" | "domain") => {
                    config.search = words
                        .take(MAX_SEARCH)
                        .map(str::to_ascii_lowercase)
                        .collect();
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        config
    }

    fn server(&mut self, word: Option<&str>) {
        if self.servers.len() >= MAX_SERVERS {
            return;
        }
        let Some(word) = word else { return };
        if let Ok(address) = word.parse::<IpAddr>() {
            self.servers.push((address, 53).into());
        } else if cfg!(test)
            && let Ok(address) = word.parse::<SocketAddr>()
        {
            // A port that a test may listen on.
            self.servers.push(address);
        }
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u32>() else {
            return;
        };
        // The limits of the C library.
        match name {
            "ndots" => self.dots = usize::try_from(value.min(15)).unwrap_or(15),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str, absolute: bool) -> Vec<String> {
        if absolute {
            return vec![name.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut all: Vec<String> = searched.collect();
        let first = name.matches('.').count() >= self.dots;
        all.insert(if first { 0 } else { all.len() }, name.to_owned());
        all
    }

    /// Both kinds of addresses of one name; none when there is no such name. The error says why
    /// nobody answered.
    fn ask_all(&self, name: &str, until: Instant) -> Result<Vec<IpAddr>, String> {
        let mut found = self.ask(name, Record::A, until)?;
        let until = match found.is_empty() {
            true => until,
            false => until.min(Instant::now() + SECOND_KIND),
        };
        match self.ask(name, Record::Aaaa, until) {
            Ok(more) => found.extend(more),
            // What is known is enough.
            Err(why) if found.is_empty() => return Err(why),
            Err(_) => {}
        }
        Ok(found)
    }

    fn ask(&self, name: &str, record: Record, until: Instant) -> Result<Vec<IpAddr>, String> {
        let mut last = String::from("none asked");
        for _ in 0..self.attempts {
            for server in &self.servers {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(format!("{last}; no time left"));
                }
                match exchange(*server, name, record, self.timeout.min(left)) {
                    Ok(Answer::Addresses(found)) => return Ok(found),
                    Ok(Answer::NoName) => return Ok(Vec::new()),
                    Ok(Answer::Failed(code)) => last = format!("{}: code {code}", server.ip()),
                    Ok(Answer::Cut) => last = format!("{}: an answer without end", server.ip()),
                    Err(e) => last = format!("{}: {}", server.ip(), told(&e)),
                }
            }
        }
        Err(last)
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// One question to one server: over UDP, and over TCP when the answer was cut.
fn exchange(server: SocketAddr, name: &str, record: Record, time: Duration) -> io::Result<Answer> {
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
    // Not to be guessed, as little as the port that the kernel picks.
    let id = u16::try_from(RandomState::new().build_hasher().finish() & 0xffff).unwrap_or(1);
    let question = dns::question(id, name, record).ok_or_else(|| invalid("no name of a host"))?;
    let until = Instant::now() + time;
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::Error::from(io::ErrorKind::TimedOut)),
            false => Ok(Some(left)),
        }
    };
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let mut buffer = [0; dns::MAX_UDP];
    loop {
        socket.set_read_timeout(left()?)?;
        let count = socket.recv(&mut buffer)?;
        match dns::answer(&buffer[..count], id, name, record) {
            Some(Answer::Cut) => break,
            Some(answer) => return Ok(answer),
            // Somebody else's, or an older question's.
            None => {}
        }
    }
    let mut stream = TcpStream::connect_timeout(&server, time)?;
    stream.set_write_timeout(left()?)?;
    let length = u16::try_from(question.len()).map_err(|_| invalid("no name of a host"))?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let mut read = |buffer: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            stream.set_read_timeout(left()?)?;
            match stream.read(&mut buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    };
    let mut length = [0; 2];
    read(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read(&mut message)?;
    dns::answer(&message, id, name, record)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer that is none"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn with(hosts: &str, resolv_conf: &str) -> (tempfile::TempDir, RootResolver) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("hosts"), hosts).unwrap();
        fs_err::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        let etc = dir.path().to_owned();
        (dir, RootResolver { etc, via: None })
    }

    /// A name server for as many questions as there are replies: `None` stays silent; a flag for
    /// UDP says whether the answer is cut there and given over TCP.
    fn server(replies: Vec<Option<(u16, Vec<[u8; 4]>)>>) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            for reply in replies {
                let mut buffer = [0; 512];
                let (count, from) = udp.recv_from(&mut buffer).unwrap();
                let Some((flags, addresses)) = reply else {
                    continue;
                };
                let answer = |flags: u16, addresses: &[[u8; 4]]| {
                    let mut out = buffer[..count].to_vec();
                    out[2..4].copy_from_slice(&flags.to_be_bytes());
                    out[7] = u8::try_from(addresses.len()).unwrap();
                    for address in addresses {
                        out.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
                        out.extend_from_slice(address);
                    }
                    out
                };
                // Noise of others comes first.
                udp.send_to(b"noise", from).unwrap();
                if flags & 0x0200 == 0 {
                    udp.send_to(&answer(flags, &addresses), from).unwrap();
                    continue;
                }
                udp.send_to(&answer(flags, &[]), from).unwrap();
                let (mut stream, _) = tcp.accept().unwrap();
                let mut asked = vec![0; count + 2];
                stream.read_exact(&mut asked).unwrap();
                let out = answer(0x8180, &addresses);
                let length = u16::try_from(out.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &out].concat()).unwrap();
            }
        });
        address
    }

    #[test]
    fn addresses_and_hosts_need_no_server() {
        let (_dir, resolver) = with(
            "# comment\n::7 both.test\n10.0.0.1\tBOTH.test alias # not.this\nnonsense x\n",
            "nameserver 192.0.2.1\n",
        );
        let look = |name: &str| resolver.lookup(name, soon()).unwrap();
        let addresses =
            |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        assert_eq!(look("192.0.2.9"), addresses(&["192.0.2.9"]));
        assert_eq!(look("[::1]"), addresses(&["::1"]));
        assert_eq!(look("both.test"), addresses(&["10.0.0.1", "::7"]));
        assert_eq!(look("Alias"), addresses(&["10.0.0.1"]));
        assert_eq!(look("localhost"), addresses(&["127.0.0.1", "::1"]));
        assert_eq!(look("x.localhost."), addresses(&["127.0.0.1", "::1"]));
    }

    #[test]
    fn servers_are_asked_for_both_kinds_and_over_tcp_when_the_answer_is_cut() {
        let address = server(vec![
            Some((0x8380, vec![[192, 0, 2, 1], [192, 0, 2, 2]])),
            Some((0x8180, Vec::new())),
        ]);
        let (_dir, resolver) = with("", &format!("nameserver {address}\n"));
        let found = resolver.lookup("web.test", soon()).unwrap();
        let expected: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_silent_or_failing_server_gives_way_to_the_next() {
        let silent = server(vec![None, None]);
        let failing = server(vec![Some((0x8182, Vec::new())), Some((0x8182, Vec::new()))]);
        let good = server(vec![
            Some((0x8180, vec![[192, 0, 2, 3]])),
            Some((0x8180, Vec::new())),
        ]);
        let (_dir, resolver) = with(
            "",
            &format!(
                "nameserver {silent}\nnameserver {failing}\nnameserver {good}\noptions timeout:1\n"
            ),
        );
        let found = resolver.lookup("web.test", soon()).unwrap();
        assert_eq!(found, ["192.0.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn no_name_differs_from_no_answer() {
        let address = server(vec![Some((0x8183, Vec::new())); 2]);
        let (_dir, resolver) = with("", &format!("nameserver {address}\n"));
        let error = resolver.lookup("no.test", soon()).unwrap_err();
        assert!(matches!(error, LookupError::NoHost(_)), "{error}");
        let address = server(vec![Some((0x8185, Vec::new())); 4]);
        let (_dir, resolver) = with("", &format!("nameserver {address}\noptions attempts:1\n"));
        let error = resolver.lookup("no.test", soon()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no name server answers for \"no.test\" (127.0.0.1: code 5)"
        );
    }

    #[test]
    fn resolv_conf_is_read_as_the_manual_page_has_it() {
        let config = Config::parse(
            "; old\ndomain a.test\nsearch B.test c.test # more\nnameserver ::1\nnameserver x\n\
             nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n\
             options ndots:2 timeout:99 attempts:9 rotate ndots:x\n",
        );
        assert_eq!(config.search, ["b.test", "c.test"]);
        assert_eq!(config.servers.len(), 3);
        assert_eq!((config.dots, config.attempts), (2, 5));
        assert_eq!(config.timeout, Duration::from_secs(30));
        assert_eq!(
            config.candidates("h.x", false),
            ["h.x.b.test", "h.x.c.test", "h.x"]
        );
        assert_eq!(config.candidates("h.x.y", false)[0], "h.x.y");
        assert_eq!(config.candidates("h", true), ["h"]);
        assert_eq!(Config::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
