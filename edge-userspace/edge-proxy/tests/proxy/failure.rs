//! Upstreams that fail, and what the client sees of it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_model::RouteAction;

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, eventually, forward, free_port, listening, prefix, refusing,
    route, service,
};

fn with_timeout(timeout: Duration) -> RouteAction {
    let mut action = forward(&[("web", 1)]);
    if let RouteAction::Forward(forward) = &mut action {
        forward.timeout = Some(timeout);
    }
    action
}

#[test]
fn a_slow_upstream_is_answered_504_after_the_routes_timeout() {
    let web = Backend::start("web");
    let port = free_port();
    let routes = vec![route(prefix("/"), with_timeout(Duration::from_millis(200)))];
    let edge = Edge::start(Snap::new(port, routes).with(service("web", &[web.address])));
    let mut client = Client::connect(port);
    let begin = Instant::now();
    let late = client.get("a", "/sleep/5000").unwrap();
    assert_eq!((late.status, late.text()), (504, "upstream request timeout"));
    assert!(
        (150..2000).contains(&begin.elapsed().as_millis()),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        client.get("a", "/sleep/1").unwrap().status,
        200,
        "the client's connection goes on"
    );
    edge.expect_flagged("UT", 1);
    assert!(eventually(|| edge.proxy.clusters()[0].endpoints[0]
        .requests_active
        == 0));
}

#[test]
fn the_timeout_covers_the_body_too() {
    let web = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
        std::thread::sleep(Duration::from_secs(3));
    });
    let port = free_port();
    let routes = vec![route(prefix("/"), with_timeout(Duration::from_millis(200)))];
    let edge = Edge::start(Snap::new(port, routes).with(service("web", &[web.address])));
    let begin = Instant::now();
    assert!(Client::connect(port).get("a", "/").is_err());
    assert!(begin.elapsed() < Duration::from_secs(2));
    edge.expect_flagged("UT", 1);
}

#[test]
fn a_refused_connection_goes_to_another_endpoint() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[refusing(), web.address, refusing()]));
    let mut client = Client::connect(port);
    for _ in 0..30 {
        client
            .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
            .unwrap();
        let reply = client.read("POST").unwrap();
        assert_eq!((reply.status, reply.told("body-length").as_str()), (200, "3"));
    }
    edge.expect_flagged("-", 30);
}

#[test]
fn when_every_endpoint_refuses_the_answer_is_503_after_two_retries() {
    let port = free_port();
    let edge = Edge::start(Snap::simple(
        port,
        &[refusing(), refusing(), refusing(), refusing()],
    ));
    let reply = Client::connect(port).get("a", "/").unwrap();
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.text(),
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote \
         connection failure"
    );
    let endpoints = &edge.proxy.clusters()[0].endpoints;
    assert_eq!(
        endpoints
            .iter()
            .map(|endpoint| endpoint.requests_total)
            .sum::<u64>(),
        3
    );
    assert!(
        endpoints.iter().all(|endpoint| endpoint.requests_total <= 1),
        "no endpoint is asked twice"
    );
    edge.expect_flagged("URX,UF", 1);
}

#[test]
fn an_upstream_that_closes_without_an_answer_gives_503_and_is_not_asked_again() {
    let rude = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[rude.address]));
    assert_eq!(Client::connect(port).get("a", "/").unwrap().status, 503);
    edge.expect_flagged("UC", 1);
    assert_eq!(rude.connections(), 1);
}

#[test]
fn an_answer_that_is_not_http_gives_502() {
    let odd = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[odd.address]));
    assert_eq!(Client::connect(port).get("a", "/").unwrap().status, 502);
    edge.expect_flagged("UPE", 1);
}

#[test]
fn a_killed_backend_costs_no_more_than_what_was_in_flight_to_it() {
    const CLIENTS: usize = 4;
    let mut backends = [Backend::start("one"), Backend::start("two")];
    let addresses = [backends[0].address, backends[1].address];
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &addresses));
    let (stop, failed, good) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::SeqCst) {
                    let counter = if client.get("a", "/").unwrap().status == 200 {
                        &good
                    } else {
                        &failed
                    };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let before = eventually(|| good.load(Ordering::SeqCst) > 500);
        backends[0].kill();
        let killed_at = good.load(Ordering::SeqCst);
        let after = eventually(|| good.load(Ordering::SeqCst) > killed_at + 500);
        stop.store(true, Ordering::SeqCst);
        assert!(before && after, "{good:?} good and {failed:?} failed");
    });
    // Each client has one request at a time, so at most that many were in flight when the backend died.
    assert!(
        failed.load(Ordering::SeqCst) <= CLIENTS as u64,
        "{failed:?} failed"
    );
}

/// A backend that closes a connection just as its second request arrives, without a word.
fn closes_on_reuse(requests: &Arc<AtomicU64>) -> RawBackend {
    let requests = Arc::clone(requests);
    RawBackend::start(move |mut stream, _| {
        for answered in 0.. {
            if RawBackend::read_head(&mut stream).is_empty() {
                return;
            }
            requests.fetch_add(1, Ordering::SeqCst);
            if answered == 1 {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn a_get_that_meets_a_closing_connection_is_answered_over_a_fresh_one() {
    let requests = Arc::default();
    let web = closes_on_reuse(&requests);
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    for _ in 0..50 {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    assert!(
        requests.load(Ordering::SeqCst) > 70,
        "connections were used again and lost"
    );
    edge.expect_flagged("-", 50);
}

#[test]
fn a_post_that_may_have_acted_is_not_sent_twice() {
    let requests: Arc<AtomicU64> = Arc::default();
    let web = closes_on_reuse(&requests);
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    let mut lost = 0;
    for _ in 0..50 {
        client.write("POST / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        lost += u64::from(client.read("POST").unwrap().status == 503);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 50, "each was sent exactly once");
    assert!(lost > 0);
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_used_again() {
    let requests: Arc<AtomicU64> = Arc::default();
    let counter = Arc::clone(&requests);
    let web = RawBackend::start(move |mut stream, _| {
        RawBackend::read_head(&mut stream);
        counter.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        client.write("POST / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(client.read("POST").unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 20);
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let gone = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&gone);
    let web = RawBackend::start(move |mut stream, _| {
        RawBackend::read_head(&mut stream);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        seen.store(matches!(stream.read(&mut [0]), Ok(0)), Ordering::SeqCst);
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(eventually(|| web.connections() == 1));
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    assert!(
        eventually(|| gone.load(Ordering::SeqCst)),
        "the upstream connection is closed"
    );
    edge.expect_flagged("DC", 1);
}

#[test]
fn an_upstream_that_resets_the_connection_gives_503_and_is_not_asked_again() {
    let rude = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        // A close without lingering is a reset.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[rude.address]));
    let reply = Client::connect(port).get("a", "/").unwrap();
    assert_eq!(
        (reply.status, reply.text()),
        (
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        )
    );
    edge.expect_flagged("UC", 1);
    assert_eq!(rude.connections(), 1);
}

/// A listener whose queue is full: the kernel drops every further handshake, as a host that is gone would.
fn unreachable() -> (socket2::Socket, Vec<std::net::TcpStream>, std::net::SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let queued = std::iter::from_fn(|| connect().ok()).take(16).collect();
    (socket, queued, address)
}

#[test]
fn an_endpoint_that_does_not_answer_the_handshake_is_given_up_after_the_connect_timeout() {
    let (_socket, _queued, address) = unreachable();
    let port = free_port();
    let mut cluster = service("web", &[address]);
    cluster.connect_timeout = Duration::from_millis(200);
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let edge = Edge::start(Snap::new(port, routes).with(cluster));
    let reply = Client::connect(port).get("a", "/").unwrap();
    assert_eq!(
        (reply.status, reply.text()),
        (
            503,
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
             connection timeout"
        )
    );
    edge.expect_flagged("URX,UF", 1);
}

/// A backend of HTTP/2 that resets the first streams, so many, and answers the others; how many streams it saw.
fn resetting(reason: h2::Reason, resets: u64) -> (std::net::SocketAddr, Arc<AtomicU64>) {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let address = listening(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if counter.fetch_add(1, Ordering::SeqCst) < resets {
                        respond.send_reset(reason);
                    } else {
                        let _ = respond.send_response(http::Response::new(()), true);
                    }
                }
            });
        }
    });
    (address, seen)
}

#[test]
fn a_stream_that_is_refused_is_sent_again_and_one_that_is_reset_is_not() {
    for (reason, resets, method, expected) in [
        (h2::Reason::REFUSED_STREAM, 2, "POST", (200, "", "-", 3)),
        (
            h2::Reason::REFUSED_STREAM,
            9,
            "GET",
            (
                503,
                "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote \
                 refused stream reset",
                "URX,UR",
                3,
            ),
        ),
        (
            h2::Reason::CANCEL,
            9,
            "GET",
            (
                503,
                "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
                "UR",
                1,
            ),
        ),
    ] {
        let (address, seen) = resetting(reason, resets);
        let port = free_port();
        let mut cluster = service("web", &[address]);
        cluster.protocol = edge_model::UpstreamProtocol::Http2;
        let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
        let edge = Edge::start(Snap::new(port, routes).with(cluster));
        let mut client = Client::connect(port);
        client
            .write(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"))
            .unwrap();
        let reply = client.read(method).unwrap();
        let (status, text, flags, streams) = expected;
        assert_eq!(
            (reply.status, reply.text()),
            (status, text),
            "{reason:?} {method}"
        );
        assert_eq!(seen.load(Ordering::SeqCst), streams, "{reason:?} {method}");
        edge.expect_flagged(flags, 1);
    }
}
