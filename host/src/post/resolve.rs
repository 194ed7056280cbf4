//! Names to addresses: `/etc/hosts` and the name servers of `/etc/resolv.conf`, as a stub resolver asks them.
//!
//! The daemon is one static binary. The C library's resolver loads modules of the machine at run time, built for the machine's
//! own C library, which a static program may not survive; so the daemon asks by itself. What modules beside `files` and `dns`
//! know (`/etc/nsswitch.conf`), it does not.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use resolv_conf::Config;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const HOSTS: &str = "/etc/hosts";
const SERVERS: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// The largest answer over UDP that is read. Servers send no more than 512 bytes unasked; some do not know that.
const MAX_DATAGRAM_BYTES: usize = 4_096;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("no name server knows it")]
    Unknown,
    #[error("it is no name of a machine")]
    NoName,
    #[error("no name server answered in time")]
    NoAnswer,
    #[error("a name server failed ({0})")]
    Failed(String),
    #[error("a name server cannot be asked ({0})")]
    Io(#[from] io::Error),
}

/// The addresses of a name, or of a number. Never empty.
pub(super) async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(number) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(number, port)]);
    }
    let hosts = fs::read_to_string(HOSTS).unwrap_or_default();
    let mut found = in_hosts(&hosts, host);
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if found.is_empty() {
        found = Servers::of(Path::new(SERVERS)).look_up(host).await?;
    }
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// The addresses that a file such as `/etc/hosts` gives a name.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

/// The name servers, and how they are asked.
struct Servers {
    addresses: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Servers {
    /// Those of a file such as `/etc/resolv.conf`. Where there is none, that of this machine.
    fn of(path: &Path) -> Servers {
        let (config, _) = Config::parse_with_errors(&fs::read(path).unwrap_or_default());
        let addresses = config.get_nameservers_or_local();
        let search = config.get_last_search_or_domain().cloned().collect();
        Servers {
            addresses: addresses.iter().map(|it| SocketAddr::new(it.into(), PORT)).collect(),
            search,
            ndots: config.ndots as usize,
            timeout: Duration::from_secs(u64::from(config.timeout.clamp(1, 30))),
            attempts: config.attempts.clamp(1, 5),
        }
    }

    /// The names that a name may stand for, the likeliest first (resolv.conf(5), `ndots`).
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let of_domain = |domain: &String| format!("{host}.{}", domain.trim_matches('.'));
        let mut names: Vec<String> = self.search.iter().map(of_domain).collect();
        let dots = host.matches('.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, host.to_owned());
        names
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let mut failure = ResolveError::Unknown;
        for name in self.candidates(host) {
            let (four, six) = tokio::join!(self.ask(&name, TYPE::A), self.ask(&name, TYPE::AAAA));
            let mut found = Vec::new();
            for answer in [four, six] {
                match answer {
                    Ok(addresses) => found.extend(addresses),
                    Err(ResolveError::Unknown) => {}
                    Err(other) => failure = other,
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(failure)
    }

    /// Asks the servers, one after the other, until one knows whether there is such a name.
    async fn ask(&self, name: &str, kind: TYPE) -> Result<Vec<IpAddr>, ResolveError> {
        let mut failure = ResolveError::NoAnswer;
        for server in (0..self.attempts).flat_map(|_| &self.addresses) {
            match timeout(self.timeout, ask_one(*server, name, kind)).await {
                Ok(Err(error @ (ResolveError::Unknown | ResolveError::NoName))) => {
                    return Err(error);
                }
                Ok(Err(error)) => failure = error,
                Ok(found) => return found,
                Err(_) => {}
            }
        }
        Err(failure)
    }
}

/// Asks one server: over UDP, and over TCP where the answer did not fit.
async fn ask_one(server: SocketAddr, name: &str, kind: TYPE) -> Result<Vec<IpAddr>, ResolveError> {
    let id = chance();
    let question = question(id, name, kind)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut answer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // What answers another question, or none, is not for us.
        match read_answer(&answer[..length], id, name) {
            Some(Reading::Whole(found)) => return found,
            Some(Reading::Truncated) => break,
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| ResolveError::NoName)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match read_answer(&answer, id, name) {
        Some(Reading::Whole(found)) => found,
        Some(Reading::Truncated) | None => {
            Err(ResolveError::Failed("its answer over TCP is none".to_owned()))
        }
    }
}

/// An id that nobody can guess, so that nobody else can answer.
fn chance() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(()) as u16
}

fn question(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, ResolveError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|_| ResolveError::NoName)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(|_| ResolveError::NoName)
}

enum Reading {
    Whole(Result<Vec<IpAddr>, ResolveError>),
    /// There is more, which did not fit.
    Truncated,
}

/// What an answer says. None where it is none to the question.
fn read_answer(bytes: &[u8], id: u16, name: &str) -> Option<Reading> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = packet.questions.first().map(|question| question.qname.to_string());
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && asked.is_some_and(|asked| asked.eq_ignore_ascii_case(name.trim_end_matches('.')));
    if !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Reading::Truncated);
    }
    // The server followed aliases: whatever address is in the answer is one of the name.
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(record) => Some(IpAddr::from(Ipv4Addr::from(record.address))),
        RData::AAAA(record) => Some(IpAddr::from(Ipv6Addr::from(record.address))),
        _ => None,
    });
    Some(Reading::Whole(match packet.rcode() {
        RCODE::NoError => Ok(addresses.collect()),
        RCODE::NameError => Err(ResolveError::Unknown),
        other => Err(ResolveError::Failed(format!("{other:?}"))),
    }))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::thread;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA};

    use super::*;

    #[test]
    fn a_file_of_hosts_is_read_by_name_and_alias() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 none\n10.0.0.2\tcollector collector.local # x\n::2 Collector\nbad line\n";
        let check = |host: &str, expected: &[&str]| {
            let expected: Vec<IpAddr> = expected.iter().map(|it| it.parse().unwrap()).collect();
            assert_eq!(in_hosts(text, host), expected, "{host}");
        };
        check("collector", &["10.0.0.2", "::2"]);
        check("collector.local", &["10.0.0.2"]);
        check("none", &[]);
        check("x", &[]);
    }

    #[test]
    fn short_names_are_looked_for_in_the_search_list_first_and_long_ones_last() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "nameserver 10.96.0.10\nsearch web.svc.cluster.local svc.cluster.local\noptions ndots:2 timeout:2 attempts:3\n",
        )
        .unwrap();
        let servers = Servers::of(file.path());
        assert_eq!(servers.addresses, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!((servers.timeout, servers.attempts), (Duration::from_secs(2), 3));
        assert_eq!(
            servers.candidates("otel.obs"),
            ["otel.obs.web.svc.cluster.local", "otel.obs.svc.cluster.local", "otel.obs"]
        );
        assert_eq!(servers.candidates("a.b.c")[0], "a.b.c");
        assert_eq!(servers.candidates("a.b."), ["a.b"]);
        // That of this machine, by both of its numbers.
        assert_eq!(Servers::of(Path::new("/nowhere")).addresses.len(), 2);
    }

    /// A name server that answers so many questions.
    fn server(
        answer: impl Fn(&mut Packet<'_>, &str) + Send + 'static,
        questions: usize,
    ) -> SocketAddr {
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            for _ in 0..questions {
                let mut bytes = [0; 512];
                let (length, client) = socket.recv_from(&mut bytes).unwrap();
                let asked = Packet::parse(&bytes[..length]).unwrap();
                let kind = format!("{:?}", asked.questions[0].qtype);
                let mut packet = Packet::new_reply(asked.id());
                packet.questions = asked.questions.clone();
                answer(&mut packet, &kind);
                // One that nobody asked for comes first.
                let mut stray = packet.clone();
                stray.set_id(asked.id().wrapping_add(1));
                for packet in [stray, packet] {
                    socket.send_to(&packet.build_bytes_vec().unwrap(), client).unwrap();
                }
            }
        });
        address
    }

    fn look_up(addresses: Vec<SocketAddr>) -> Result<Vec<IpAddr>, ResolveError> {
        let servers = Servers {
            addresses,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(10),
            attempts: 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(servers.look_up("collector.example"))
    }

    #[test]
    fn both_kinds_of_addresses_are_asked_for_and_strays_are_not_taken() {
        let answers = |packet: &mut Packet<'_>, kind: &str| {
            let name = Name::new_unchecked("collector.example").into_owned();
            let data = match kind.contains("AAAA") {
                true => RData::AAAA(AAAA { address: 2 }),
                false => RData::A(A { address: 0x0a00_0001 }),
            };
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
        };
        let found = look_up(vec![server(answers, 2)]).unwrap();
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::2".parse().unwrap()]);
    }

    #[test]
    fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
        use std::io::{Read as _, Write as _};

        // A port that is free for both.
        let (udp, tcp) = loop {
            let udp = StdSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        thread::spawn(move || {
            for _ in 0..2 {
                let mut bytes = [0; 512];
                let (length, client) = udp.recv_from(&mut bytes).unwrap();
                let asked = Packet::parse(&bytes[..length]).unwrap();
                let mut packet = Packet::new_reply(asked.id());
                packet.questions = asked.questions.clone();
                packet.set_flags(PacketFlag::TRUNCATION);
                udp.send_to(&packet.build_bytes_vec().unwrap(), client).unwrap();
            }
        });
        thread::spawn(move || {
            for mut stream in tcp.incoming().take(2).map(Result::unwrap) {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut bytes).unwrap();
                let asked = Packet::parse(&bytes).unwrap();
                let mut packet = Packet::new_reply(asked.id());
                packet.questions = asked.questions.clone();
                let name = Name::new_unchecked("collector.example").into_owned();
                let data = RData::A(A { address: 0x0a00_0002 });
                packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
                let bytes = packet.build_bytes_vec().unwrap();
                stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&bytes).unwrap();
            }
        });
        let found = look_up(vec![address]).unwrap();
        assert_eq!(found[0], "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_server_that_fails_is_not_the_last_word_and_one_that_knows_of_no_such_name_is() {
        let fails = |packet: &mut Packet<'_>, _: &str| *packet.rcode_mut() = RCODE::ServerFailure;
        let knows_none = |packet: &mut Packet<'_>, _: &str| *packet.rcode_mut() = RCODE::NameError;
        let failed = look_up(vec![server(fails, 2)]).unwrap_err();
        assert!(matches!(failed, ResolveError::Failed(_)), "{failed}");
        let unknown = look_up(vec![server(fails, 2), server(knows_none, 2)]).unwrap_err();
        assert!(matches!(unknown, ResolveError::Unknown), "{unknown}");
    }
}
