//! The end of a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_proxy::{Drained, ProxyOptions};

use crate::support::{Backend, Client, Edge, Snap, direct, eventually, free_port, prefix, route};

const LONG: Duration = Duration::from_secs(10);

/// Sends requests without pause, over new connections when it is told to close, until no more connections are taken.
fn load(port: u16, answered: &AtomicU64) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        let mut client = Client::over(stream);
        loop {
            let reply = client
                .get("a", "/")
                .expect("a connection that was taken is answered");
            assert_eq!(reply.status, 200);
            answered.fetch_add(1, Ordering::SeqCst);
            if reply.header("connection") == Some("close") {
                break;
            }
            if answered.load(Ordering::SeqCst).is_multiple_of(10) {
                break;
            }
        }
    }
}

#[test]
fn draining_under_load_loses_nothing() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| load(port, &answered));
        }
        assert!(eventually(|| answered.load(Ordering::SeqCst) > 2000));
        let begin = Instant::now();
        assert_eq!(edge.drain(LONG), Drained { cut: 0 });
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    });
    assert_eq!(
        web.hits(),
        answered.load(Ordering::SeqCst),
        "every request that reached the backend was answered"
    );
}

#[test]
fn a_request_that_arrives_on_an_idle_connection_is_answered_and_the_connection_closed() {
    let port = free_port();
    let edge = Edge::start(Snap::new(
        port,
        vec![route(prefix("/"), direct(200, "still here"))],
    ));
    let (mut used, mut fresh, mut silent) = (
        Client::connect(port),
        Client::connect(port),
        Client::connect(port),
    );
    used.get("a", "/").unwrap();
    silent.get("a", "/").unwrap();
    let draining = std::thread::spawn(move || edge.drain(LONG));
    std::thread::sleep(Duration::from_millis(400));
    for client in [&mut used, &mut fresh] {
        let reply = client.get("a", "/").unwrap();
        assert_eq!(
            (reply.text(), reply.header("connection")),
            ("still here", Some("close"))
        );
        assert!(client.is_at_end());
    }
    assert!(silent.is_at_end());
    assert_eq!(draining.join().unwrap(), Drained { cut: 0 });
}

#[test]
fn requests_in_flight_finish_or_meet_the_deadline() {
    for (deadline, cut) in [(LONG, 0), (Duration::from_millis(300), 1)] {
        let web = Backend::start("web");
        let port = free_port();
        let edge = Edge::start(Snap::simple(port, &[web.address]));
        let mut client = Client::connect(port);
        client
            .write("GET /sleep/1500 HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        assert!(eventually(|| web.hits() == 1));
        let begin = Instant::now();
        assert_eq!(edge.drain(deadline), Drained { cut });
        let reply = client.read("GET");
        assert_eq!(reply.is_ok_and(|reply| reply.text() == "slept"), cut == 0);
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_slow_reader_gets_the_whole_of_its_response() {
    const LENGTH: usize = 8 << 20;
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), ProxyOptions::new(1));
    let mut client = Client::connect(port);
    client
        .write(format!("GET /bytes/{LENGTH} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .unwrap();
    assert!(eventually(|| web.hits() == 1));
    let draining = std::thread::spawn(move || edge.drain(LONG));
    std::thread::sleep(Duration::from_millis(1800));
    assert_eq!(client.read("GET").unwrap().body.len(), LENGTH);
    assert_eq!(draining.join().unwrap(), Drained { cut: 0 });
}

#[test]
fn while_it_leaves_new_connections_are_served_and_told_to_close() {
    let port = free_port();
    let edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(200, "here"))]));
    let (mut used, mut idle) = (Client::connect(port), Client::connect(port));
    used.get("a", "/").unwrap();
    idle.get("a", "/").unwrap();
    edge.proxy.leave();
    let says_so = || Client::connect(port).get("a", "/").unwrap().header("connection") == Some("close");
    assert!(eventually(says_so));
    let last = used.get("a", "/").unwrap();
    assert_eq!((last.text(), last.header("connection")), ("here", Some("close")));
    // A connection without a request is left alone for longer than the drain would leave it.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(idle.get("a", "/").unwrap().text(), "here");
    assert_eq!(edge.drain(LONG), Drained { cut: 0 });
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// A frame of HTTP/2 (RFC 9113 section 4.1): type, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

fn write_frame(stream: &mut TcpStream, (kind, flags, id, payload): &Frame) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], *kind, *flags];
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    stream.write_all(&bytes).unwrap();
}

fn read_frame(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).ok()?;
    Some((
        head[3],
        head[4],
        u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload,
    ))
}

/// GET of a path on a stream, its header fields neither indexed nor compressed.
fn get_frame(id: u32, path: &str) -> Frame {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'a']);
    // END_STREAM and END_HEADERS.
    (HEADERS, 0x5, id, block)
}

#[test]
fn http2_is_told_twice_and_its_streams_end_first() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), ProxyOptions::new(1));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    write_frame(&mut stream, &(4, 0, 0, vec![]));
    write_frame(&mut stream, &get_frame(1, "/sleep/1500"));
    assert!(eventually(|| web.hits() == 1));
    edge.proxy.leave();
    let (mut last_ids, mut answered, mut ended) = (vec![], 0, vec![]);
    while let Some((kind, flags, id, payload)) = read_frame(&mut stream) {
        match kind {
            GOAWAY => last_ids.push(u32::from_be_bytes([
                payload[0], payload[1], payload[2], payload[3],
            ])),
            // A stream that was on its way when the first GOAWAY came is still taken.
            PING if flags & ACK == 0 => {
                write_frame(&mut stream, &get_frame(3, "/"));
                write_frame(&mut stream, &(PING, ACK, 0, payload));
            }
            HEADERS => answered += 1,
            _ => {}
        }
        if kind <= HEADERS && flags & END_STREAM != 0 {
            ended.push(id);
        }
    }
    assert_eq!(last_ids, [(1 << 31) - 1, 3]);
    ended.sort_unstable();
    assert_eq!((answered, ended), (2, vec![1, 3]));
    assert_eq!(edge.drain(LONG), Drained { cut: 0 });
}
