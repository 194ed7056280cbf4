//! What becomes of bodies, seen by a server of TCP that behaves well, badly, and not at all.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::courier::Tally;
use super::*;
use crate::config::{HttpOutput, Url};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
pub(crate) struct Asked {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Deed {
    /// It answers with this status, these header lines, and this body, and keeps the connection.
    Answer(u16, &'static str, &'static str),
    /// It reads and says nothing.
    Hang,
    /// It hangs up.
    HangUp,
}

/// A server that does one thing after the other, whatever the connection, and the last one for ever.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Receiver<Asked>,
    /// Connections that were made.
    pub(crate) connections: Receiver<()>,
}

impl Server {
    pub(crate) fn doing(deeds: &[Deed]) -> Server {
        Server::at(TcpListener::bind("127.0.0.1:0").unwrap(), deeds)
    }

    pub(crate) fn at(listener: TcpListener, deeds: &[Deed]) -> Server {
        let address = listener.local_addr().unwrap();
        let (tell, asked) = channel();
        let (tell_connection, connections) = channel();
        let mut deeds = deeds.to_vec();
        thread::spawn(move || {
            // Those that hang are held open.
            let mut held = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = tell_connection.send(());
                while let Some(asked) = read(&stream) {
                    let deed = deeds[0].clone();
                    if deeds.len() > 1 {
                        deeds.remove(0);
                    }
                    if tell.send(asked).is_err() {
                        return;
                    }
                    match deed {
                        Deed::Answer(status, lines, body) => {
                            let length = body.len();
                            let answer = format!(
                                "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{lines}\r\n{body}"
                            );
                            let _ = (&stream).write_all(answer.as_bytes());
                        }
                        Deed::Hang => {
                            held.push(stream);
                            break;
                        }
                        Deed::HangUp => break,
                    }
                }
            }
        });
        Server { address, asked, connections }
    }

    pub(crate) fn next(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).expect("a request comes")
    }
}

/// The next request of a connection. None where there is none any more.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { head, body, at: Instant::now() })
}

fn config(address: SocketAddr) -> HttpOutput {
    HttpOutput::new(Url::read(&format!("http://{address}/v1/logs")).unwrap())
}

fn courier(config: &HttpOutput) -> Courier {
    Courier::start("p.logs", Endpoint::open(config).unwrap()).unwrap()
}

fn wait_for(courier: &Courier, condition: impl Fn(&Tally) -> bool) -> Tally {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tally = courier.tally();
        if condition(&tally) {
            return tally;
        }
        assert!(Instant::now() < deadline, "the condition never held: {tally:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

const OK: Deed = Deed::Answer(200, "", "");

#[test]
fn bodies_arrive_in_their_order_over_one_connection() {
    let server = Server::doing(&[OK]);
    let courier = courier(&config(server.address));
    for number in 0..20 {
        courier.put(format!("{{\"number\":{number}}}").into_bytes());
    }
    for number in 0..20 {
        let asked = server.next();
        assert_eq!(asked.body, format!("{{\"number\":{number}}}").into_bytes());
        let expected = ["post /v1/logs http/1.1\r\n", "content-type: application/json\r\n"];
        assert!(expected.iter().all(|line| asked.head.contains(line)), "{}", asked.head);
    }
    let tally = wait_for(&courier, |tally| tally.sent == 20);
    assert_eq!((tally.failures, tally.waiting_bytes, tally.last_error), (0, 0, None));
    assert_eq!(server.connections.try_iter().count(), 1);
}

#[test]
fn a_server_that_is_busy_gets_the_same_body_again_when_it_asked_for_it() {
    let wish = Deed::Answer(503, "Retry-After: 1\r\n", "");
    let server = Server::doing(&[wish, Deed::Answer(429, "", ""), OK]);
    let courier = courier(&config(server.address));
    courier.put(b"one".to_vec());
    courier.put(b"two".to_vec());
    let asked: Vec<Asked> = (0..4).map(|_| server.next()).collect();
    let bodies: Vec<&[u8]> = asked.iter().map(|asked| &asked.body[..]).collect();
    assert_eq!(bodies, [b"one", b"one", b"one", b"two"]);
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1), "it asked for a second");
    let tally = wait_for(&courier, |tally| tally.sent == 2);
    assert_eq!((tally.failures, tally.given_up.len()), (2, 0));
}

#[test]
fn what_a_server_will_never_take_is_given_up_at_once_with_its_words() {
    let server = Server::doing(&[Deed::Answer(400, "", "no \x1b[2J logs"), OK]);
    let courier = courier(&config(server.address));
    courier.put(b"bad".to_vec());
    let tally = wait_for(&courier, |tally| tally.failures == 1 && !tally.given_up.is_empty());
    assert_eq!(tally.given_up, [(GivenUp::Refused, 1)].into());
    assert_eq!(
        tally.last_error.as_deref(),
        Some("the server answers 400 Bad Request: no \\u{1b}[2J logs")
    );
    courier.put(b"good".to_vec());
    assert_eq!([server.next().body, server.next().body], [b"bad".to_vec(), b"good".to_vec()]);
    wait_for(&courier, |tally| tally.sent == 1);
}

#[test]
fn a_server_that_says_nothing_costs_the_timeout_and_one_that_hangs_up_costs_nothing() {
    let server = Server::doing(&[Deed::Hang, Deed::HangUp, OK]);
    let config = HttpOutput { timeout: Duration::from_millis(200), ..config(server.address) };
    let courier = courier(&config);
    courier.put(b"one".to_vec());
    let tally = wait_for(&courier, |tally| tally.failures == 1);
    assert_eq!(tally.last_error.as_deref(), Some("no answer within 200ms"));
    let tally = wait_for(&courier, |tally| tally.sent == 1);
    assert_eq!((tally.failures, tally.last_error), (2, None));
}

#[test]
fn a_kept_connection_that_the_server_closed_meanwhile_is_no_failure() {
    let server = Server::doing(&[OK, Deed::HangUp, OK]);
    let courier = courier(&config(server.address));
    courier.put(b"one".to_vec());
    wait_for(&courier, |tally| tally.sent == 1);
    courier.put(b"two".to_vec());
    let tally = wait_for(&courier, |tally| tally.sent == 2);
    assert_eq!(tally.failures, 0);
    let bodies = [server.next().body, server.next().body, server.next().body];
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec(), b"two".to_vec()]);
    assert_eq!(server.connections.try_iter().count(), 2);
}

#[test]
fn a_server_that_comes_up_late_gets_what_waited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let courier = courier(&config(address));
    courier.put(b"waits".to_vec());
    let tally = wait_for(&courier, |tally| tally.failures > 0);
    assert!(tally.last_error.unwrap().contains("cannot be reached"));
    assert_eq!(tally.waiting_bytes, 5);
    let server = Server::at(TcpListener::bind(address).unwrap(), &[OK]);
    assert_eq!(server.next().body, b"waits");
    wait_for(&courier, |tally| tally.sent == 1 && tally.waiting_bytes == 0);
}

#[test]
fn a_body_is_given_up_once_it_was_tried_for_long_enough() {
    let server = Server::doing(&[Deed::Answer(503, "", "")]);
    let config = HttpOutput { retry_for: Duration::from_secs(1), ..config(server.address) };
    let courier = courier(&config);
    courier.put(b"one".to_vec());
    let tally = wait_for(&courier, |tally| !tally.given_up.is_empty());
    assert_eq!(tally.given_up, [(GivenUp::Unreachable, 1)].into());
    assert!(tally.failures >= 2, "{tally:?}");
    // A wish beyond that time is not waited for.
    let patient = Server::doing(&[Deed::Answer(503, "Retry-After: 3600\r\n", ""), OK]);
    let second = self::courier(&HttpOutput { url: self::config(patient.address).url, ..config });
    second.put(b"one".to_vec());
    let tally = wait_for(&second, |tally| !tally.given_up.is_empty());
    assert_eq!((tally.failures, tally.given_up[&GivenUp::Unreachable]), (1, 1));
}

#[test]
fn a_full_queue_loses_its_oldest_and_nobody_waits() {
    let server = Server::doing(&[Deed::Hang]);
    let config = HttpOutput { queue_bytes: 100, ..config(server.address) };
    let courier = courier(&config);
    courier.put(vec![b'0'; 40]);
    drop(server.next());
    let began = Instant::now();
    for number in 1..=9 {
        courier.put(vec![b'0' + number; 30]);
    }
    // One that is larger than the queue is taken all the same.
    courier.put(vec![b'x'; 200]);
    assert!(began.elapsed() < Duration::from_secs(5), "it blocked");
    let tally = courier.tally();
    assert_eq!(tally.given_up, [(GivenUp::QueueFull, 9)].into());
    assert_eq!(tally.waiting_bytes, 240);
}

#[test]
fn at_the_end_what_waits_is_sent_within_its_time_and_the_rest_is_counted() {
    let server = Server::doing(&[Deed::Answer(503, "Retry-After: 60\r\n", ""), OK]);
    let first = courier(&config(server.address));
    first.put(b"one".to_vec());
    first.put(b"two".to_vec());
    wait_for(&first, |tally| tally.failures == 1);
    first.close(Duration::from_secs(30));
    first.join();
    assert_eq!((first.tally().sent, first.tally().given_up.len()), (2, 0));

    let dead = Server::doing(&[Deed::Hang]);
    let second = courier(&config(dead.address));
    second.put(b"one".to_vec());
    second.put(b"two".to_vec());
    drop(dead.next());
    let began = Instant::now();
    second.close(Duration::from_millis(300));
    second.join();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let tally = second.tally();
    assert_eq!((tally.given_up, tally.waiting_bytes), ([(GivenUp::Stopped, 2)].into(), 0));
}
