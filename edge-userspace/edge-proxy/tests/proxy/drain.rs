//! The end of a proxy.

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
