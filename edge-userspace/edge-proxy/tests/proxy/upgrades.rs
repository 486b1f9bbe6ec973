//! WebSockets, by Upgrade and by extended CONNECT, and what is not switched.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use edge_model::{Cluster, UpstreamProtocol};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;

use crate::desync::frames::{
    Connection, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, RST_STREAM, SETTINGS, block,
};
use crate::support::{
    Client, Edge, RawBackend, Snap, eventually, forward, free_port, listening, prefix, route, service,
};

/// An endpoint that agrees, greets, and gives back what it gets until the client ends; then it says goodbye.
fn agreeing() -> RawBackend {
    RawBackend::start(|mut stream, _| {
        let head = RawBackend::read_head(&mut stream);
        let has = |line: &str| head.lines().any(|own| own.eq_ignore_ascii_case(line));
        if !(has("connection: upgrade") && has("upgrade: websocket") && head.contains("sec-websocket-key: "))
        {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
            return;
        }
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let accept = proof(key.unwrap());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\nhello"
        );
        let _ = stream.write_all(answer.as_bytes());
        echo(&mut stream);
        let _ = stream.write_all(b"bye");
    })
}

/// What a server answers to a key (RFC 6455 section 4.2.2).
fn proof(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    BASE64.encode(digest)
}

fn echo(stream: &mut TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
                   sec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nsec-websocket-version: 13\r\n\r\n";

#[test]
fn a_websocket_goes_both_ways_and_ends_one_side_after_the_other() {
    let web = agreeing();
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    // What comes right behind the request waits for the answer.
    client.write(format!("{ASK}early ")).unwrap();
    let reply = client.read("HEAD").unwrap();
    assert_eq!(reply.status, 101);
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    assert_eq!(reply.header("connection"), Some("Upgrade"));
    assert_eq!(
        reply.header("sec-websocket-accept"),
        Some(proof("AQIDBAUGBwgJCgsMDQ4PEA==").as_str())
    );
    // Bytes that would be a request elsewhere are none here.
    client.write("GET /smuggled HTTP/1.1\n\n\0").unwrap();
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        client.rest().unwrap(),
        b"helloearly GET /smuggled HTTP/1.1\n\n\0bye"
    );
    edge.expect_metric("istio_requests_total", &["response_code=\"101\""], 1);
    assert_eq!(edge.lines("istio_tcp"), "", "the bytes are those of a request");
    assert!(eventually(|| web.open() == 0));
}

#[test]
fn a_websocket_of_http2_is_a_stream_beside_others() {
    let web = agreeing();
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut connection = Connection::open(port);
    let settings = connection
        .wait_for(|frame| frame.kind == SETTINGS && frame.flags == 0)
        .unwrap();
    // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
    assert!(
        settings
            .payload
            .chunks(6)
            .any(|setting| setting == [0, 8, 0, 0, 0, 1])
    );
    let ask =
        ":method=CONNECT :protocol=websocket :scheme=http :authority=a :path=/chat sec-websocket-version=13";
    connection
        .send(&Frame::new(HEADERS, END_HEADERS, 1, block(ask)))
        .unwrap();
    connection.send(&Frame::get(3)).unwrap();
    connection.send(&Frame::new(DATA, 0, 1, *b"abc")).unwrap();
    let (mut statuses, mut ended, mut body) = (Vec::new(), false, Vec::new());
    while !ended || body != b"helloabc" {
        let frame = connection.next().unwrap();
        match (frame.kind, frame.stream) {
            (HEADERS, stream) => statuses.push((stream, frame.payload[0], frame.flags & END_STREAM)),
            (DATA, 1) => body.extend(frame.payload),
            (DATA, 3) => ended |= frame.flags & END_STREAM != 0,
            (RST_STREAM, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    statuses.sort_unstable();
    // 200, and the stream goes on.
    assert_eq!(statuses[0], (1, 0x88, 0));
    connection.send(&Frame::new(DATA, END_STREAM, 1, *b"")).unwrap();
    let mut last: Vec<u8> = Vec::new();
    loop {
        let frame = connection.wait_for(|frame| frame.stream == 1).unwrap();
        if frame.kind == DATA {
            last.extend(&frame.payload);
        }
        if frame.kind == RST_STREAM || frame.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(last, b"bye");
}

/// An endpoint of HTTP/2 that agrees to extended CONNECT, and gives back what it gets. It tells the path by a header, and
/// answers requests for `/refused` with 403.
fn agreeing_http2(pause: Duration) -> SocketAddr {
    listening(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.enable_connect_protocol();
            tokio::spawn(async move {
                // Its SETTINGS come some time after its connection is there.
                tokio::time::sleep(pause).await;
                server
                    .serve_connection(TokioIo::new(stream), service_fn(switch))
                    .await
            });
        }
    })
}

async fn switch(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    let asks = request.method() == "CONNECT" && protocol.is_some_and(|name| name.as_str() == "websocket");
    let extra = ["connection", "upgrade", "sec-websocket-key"];
    let is_clean = !extra.iter().any(|name| request.headers().contains_key(*name));
    let response = Response::builder().header("x-path", request.uri().path());
    if !asks || !is_clean || request.uri().path() == "/refused" {
        return Ok(response.status(403).body(Full::from("no")).unwrap());
    }
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    Ok(response.body(Full::default()).unwrap())
}

fn over_http2(address: SocketAddr) -> (Edge, u16) {
    let port = free_port();
    let cluster = Cluster {
        protocol: UpstreamProtocol::Http2,
        ..service("web", &[address])
    };
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    (Edge::start(Snap::new(port, routes).with(cluster)), port)
}

#[test]
fn an_endpoint_of_http2_is_asked_by_extended_connect() {
    let (edge, port) = over_http2(agreeing_http2(Duration::from_millis(200)));
    // By HTTP/1.1: the gateway proves that the key was seen.
    let mut client = Client::connect(port);
    client.write(format!("{ASK}early ")).unwrap();
    let reply = client.read("HEAD").unwrap();
    assert_eq!((reply.status, reply.header("x-path")), (101, Some("/chat")));
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    assert_eq!(reply.header("connection"), Some("Upgrade"));
    assert_eq!(
        reply.header("sec-websocket-accept"),
        Some(proof("AQIDBAUGBwgJCgsMDQ4PEA==").as_str())
    );
    client.write("GET / HTTP/1.1\n\n\0").unwrap();
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"early GET / HTTP/1.1\n\n\0");
    // And by HTTP/2.
    let mut connection = Connection::open(port);
    let ask = ":method=CONNECT :protocol=websocket :scheme=http :authority=a :path=/chat";
    let head = Frame::new(HEADERS, END_HEADERS, 1, block(ask));
    connection.send(&head).unwrap();
    connection.send(&Frame::new(DATA, 0, 1, *b"abc")).unwrap();
    let answer = connection.wait_for(|frame| frame.kind == HEADERS).unwrap();
    assert_eq!((answer.payload[0], answer.flags & END_STREAM), (0x88, 0));
    let echoed = connection.wait_for(|frame| frame.kind == DATA).unwrap();
    assert_eq!(echoed.payload, b"abc");
    connection.send(&Frame::new(DATA, END_STREAM, 1, *b"")).unwrap();
    let end = connection.wait_for(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0);
    assert_eq!(end.unwrap().kind, DATA);
    edge.expect_metric("istio_requests_total", &["response_code=\"101\""], 2);
}

#[test]
fn an_endpoint_that_does_not_know_extended_connect_is_not_asked() {
    let asked = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&asked);
    let plain = RawBackend::start(move |mut stream, _| {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).unwrap();
        stream
            .write_all(&Frame::new(SETTINGS, 0, 0, []).encode())
            .unwrap();
        let mut connection = Connection { stream };
        while let Ok(frame) = connection.next() {
            noted.fetch_or(frame.kind == HEADERS, Ordering::SeqCst);
        }
    });
    let (edge, port) = over_http2(plain.address);
    let mut client = Client::connect(port);
    client.write(ASK).unwrap();
    assert_eq!(client.read("GET").unwrap().status, 503);
    edge.expect_flagged("UR", 1);
    assert!(!asked.load(Ordering::SeqCst));
}

#[test]
fn what_an_endpoint_of_http2_answers_instead_is_passed_on() {
    let (_edge, port) = over_http2(agreeing_http2(Duration::from_millis(200)));
    let mut client = Client::connect(port);
    client.write(ASK.replace("/chat", "/refused")).unwrap();
    let reply = client.read("GET").unwrap();
    assert_eq!((reply.status, reply.text()), (403, "no"));
    assert_eq!(
        client.get("a", "/").unwrap().status,
        403,
        "the connection goes on"
    );
}

/// Answers every request with the same bytes.
fn answering(answer: &'static str) -> RawBackend {
    RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

#[test]
fn an_answer_that_agrees_to_something_else_or_only_by_half_is_none() {
    for (name, answer) in [
        ("no protocol", "connection: upgrade"),
        ("another protocol", "connection: upgrade\r\nupgrade: h2c"),
        ("two protocols", "connection: upgrade\r\nupgrade: websocket, h2c"),
        (
            "two lines",
            "connection: upgrade\r\nupgrade: websocket\r\nupgrade: websocket",
        ),
        ("not for this connection", "upgrade: websocket"),
        (
            "a body",
            "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5",
        ),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n\r\nhello");
        let web = answering(answer.leak());
        let port = free_port();
        let edge = Edge::start(Snap::simple(port, &[web.address]));
        let mut client = Client::connect(port);
        client.write(ASK).unwrap();
        assert_eq!(client.read("GET").unwrap().status, 502, "{name}");
        edge.expect_flagged("UPE", 1);
    }
}

#[test]
fn an_endpoint_has_to_prove_that_it_saw_the_key_that_the_gateway_made() {
    let web = answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
    );
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut connection = Connection::open(port);
    let ask = ":method=CONNECT :protocol=websocket :scheme=http :authority=a :path=/chat";
    connection
        .send(&Frame::new(HEADERS, END_HEADERS, 1, block(ask)))
        .unwrap();
    let outcomes = connection.outcomes(&[1]).unwrap();
    assert!(!outcomes.passed[&1], "{outcomes:?}");
    edge.expect_flagged("UPE", 1);
    // A client of HTTP/1.1 has a key of its own, and judges by itself.
    let mut client = Client::connect(port);
    client.write(ASK).unwrap();
    assert_eq!(client.read("HEAD").unwrap().status, 101);
}

#[test]
fn an_endpoint_that_does_not_agree_answers_as_to_any_request() {
    let web = RawBackend::start(|mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
        }
    });
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    // The request behind it is one after all.
    client
        .write(format!("{ASK}GET /second HTTP/1.1\r\nhost: a\r\n\r\n"))
        .unwrap();
    for _ in 0..2 {
        let reply = client.read("GET").unwrap();
        assert_eq!((reply.status, reply.text()), (200, "no"));
    }
}

#[test]
fn other_protocols_are_not_offered_to_the_endpoint() {
    let web = agreeing();
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    for lines in [
        "connection: upgrade\r\nupgrade: h2c\r\n",
        "connection: upgrade\r\nupgrade: TLS/1.2\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\n",
        "upgrade: websocket\r\n",
    ] {
        let mut client = Client::connect(port);
        client
            .write(format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n"))
            .unwrap();
        assert_eq!(client.read("GET").unwrap().text(), "no", "{lines}");
    }
}
