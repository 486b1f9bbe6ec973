//! WebSockets, by Upgrade and by extended CONNECT, and what is not switched.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::desync::frames::{
    Connection, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, SETTINGS, block,
};
use crate::support::{Client, Edge, RawBackend, Snap, eventually, free_port};

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
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              sec-websocket-accept: x\r\n\r\nhello",
        );
        echo(&mut stream);
        let _ = stream.write_all(b"bye");
    })
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
    assert_eq!(reply.header("sec-websocket-accept"), Some("x"));
    // Bytes that would be a request elsewhere are none here.
    client.write("GET /smuggled HTTP/1.1\n\n\0").unwrap();
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        client.rest().unwrap(),
        b"helloearly GET /smuggled HTTP/1.1\n\n\0bye"
    );
    edge.expect_metric("istio_requests_total", &["response_code=\"101\""], 1);
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
