//! Streams of HTTP/2 that go too slowly in either direction: ended and counted, and no harm to those beside them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use edge_proxy::{Limits, ProxyOptions, Timeouts};

use crate::desync::frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, Frame, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, block,
};
use crate::support::{Backend, Edge, RawBackend, Snap, free_port};

const ENHANCE_YOUR_CALM: u32 = 11;

/// An edge in front of a backend that answers when it has all of a request.
fn edge(timeouts: Timeouts, limits: Limits) -> (Edge, Backend, u16) {
    let web = Backend::start("web");
    let port = free_port();
    let options = ProxyOptions {
        timeouts,
        limits,
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
    (edge, web, port)
}

fn silent_after(milliseconds: u64) -> Timeouts {
    Timeouts {
        body: Duration::from_millis(milliseconds),
        ..Timeouts::default()
    }
}

/// The head of a POST on a stream, with further fields.
fn post(stream: u32, fields: &str) -> Frame {
    Frame::new(HEADERS, END_HEADERS, stream, block(&format!("post {fields}")))
}

/// Waits until a stream is answered with 408, whose status stands in the block as `08 03 "408"` or coded.
#[track_caller]
fn expect_timeout(connection: &mut Connection, stream: u32, name: &str) {
    let mut told_to_go = false;
    let answer = connection.wait_for(|frame| {
        told_to_go |= frame.kind == GOAWAY;
        frame.kind == HEADERS && frame.stream == stream
    });
    let head = answer.unwrap_or_else(|error| panic!("{name}: {error}")).payload;
    // `:status` is index 8; `408` is three octets, or `68 0f 3f` in Huffman coding.
    let coded = [0x08, 0x82, 0x68, 0x0f];
    let is_408 = head.windows(3).any(|text| text == b"408")
        || head.windows(2).any(|text| text == &coded[2..])
        || head.windows(4).any(|text| text == coded);
    assert!(is_408, "{name}: {head:x?}");
    if !told_to_go {
        let goaway = connection.wait_for(|frame| frame.kind == GOAWAY);
        assert!(goaway.is_ok(), "{name}: the client is not told to go");
    }
}

#[test]
fn a_body_that_stops_is_answered_with_408_whatever_was_told_of_its_length() {
    for (name, fields) in [
        ("a told length", "content-length=10"),
        ("no told length", ""),
        ("a length of nothing, and no end", "content-length=0"),
    ] {
        let (edge, _web, port) = edge(silent_after(500), Limits::default());
        let mut connection = Connection::open(port);
        connection.send(&post(1, fields)).unwrap();
        expect_timeout(&mut connection, 1, name);
        edge.expect_flagged("SI", 1);
        edge.expect_metric(
            "edge_downstream_connections_cut_total",
            &["reason=\"slow body\""],
            1,
        );
    }
}

#[test]
fn a_head_that_does_not_end_is_cut() {
    let timeouts = Timeouts {
        header: Duration::from_millis(1500),
        ..Timeouts::default()
    };
    for name in ["a part of a frame", "a part of a head", "a head that trickles in"] {
        let (edge, _web, port) = edge(timeouts.clone(), Limits::default());
        let mut connection = Connection::open(port);
        let head = Frame::new(HEADERS, 1, 1, block("get"));
        let bytes = head.encode();
        let written = if name == "a part of a frame" {
            5
        } else {
            bytes.len()
        };
        connection.stream.write_all(&bytes[..written]).unwrap();
        connection
            .stream
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < end, "{name}: the connection goes on");
            match connection.next() {
                Ok(_) => {}
                // So seldom that it is over before there are too many of them.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if name == "a head that trickles in" {
                        let _ = connection.send(&Frame::new(CONTINUATION, 0, 1, block("x=1")));
                    }
                }
                Err(_) => break,
            }
        }
        edge.expect_metric(
            "edge_downstream_connections_cut_total",
            &["reason=\"slow head\""],
            1,
        );
    }
}

#[test]
fn a_body_below_the_least_rate_is_answered_with_408() {
    let limits = Limits {
        body_rate: 1_000_000,
        ..Limits::default()
    };
    let (edge, _web, port) = edge(Timeouts::default(), limits);
    let mut connection = Connection::open(port);
    connection.send(&post(1, "content-length=100000")).unwrap();
    // Drips for as long as the rate is measured, and a little longer.
    connection
        .stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let answered = loop {
        assert!(Instant::now() < end, "the stream goes on");
        connection.send(&Frame::new(DATA, 0, 1, *b"x")).unwrap();
        match connection.next() {
            Ok(frame) if frame.kind == HEADERS => break frame.stream,
            Ok(_) | Err(_) => {}
        }
    };
    assert_eq!(answered, 1);
    edge.expect_flagged("SI", 1);
}

#[test]
fn others_on_the_connection_are_served_to_their_end() {
    let (edge, _web, port) = edge(silent_after(500), Limits::default());
    let mut connection = Connection::open(port);
    let mut sleeps = Frame::get(1);
    sleeps.payload = block(":method=GET :scheme=http :authority=a :path=/sleep/3000");
    connection.send(&sleeps).unwrap();
    connection.send(&post(3, "content-length=10")).unwrap();
    expect_timeout(&mut connection, 3, "a slow body");
    let slept = connection.wait_for(|frame| frame.kind == DATA && frame.payload == b"slept");
    assert_eq!(slept.unwrap().stream, 1);
    edge.expect_flagged("SI", 1);
    edge.expect_flagged("-", 1);
}

#[test]
fn what_an_endpoint_does_not_take_is_not_the_client_s_fault() {
    // It reads the head, and nothing of the body for a while.
    let slow = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(2500));
        let mut left = vec![0; 4096];
        let mut body = 0;
        while body < 10_000_000 {
            match stream.read(&mut left) {
                Ok(length @ 1..) => body += length,
                Ok(_) | Err(_) => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let port = free_port();
    let options = ProxyOptions {
        timeouts: silent_after(500),
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(Snap::simple(port, &[slow.address]), options);
    let body = bytes::Bytes::from(vec![b'x'; 10_000_000]);
    let request = http::Request::post("http://a/")
        .body(http_body_util::Full::new(body))
        .unwrap();
    let answers = crate::support::http2(port, vec![request]);
    assert_eq!(answers[0].as_ref().unwrap().status, 200);
    edge.expect_flagged("SI", 0);
}

#[test]
fn streams_of_grpc_and_those_that_are_answered_may_be_silent() {
    // It answers at once, and ends when the request does.
    let echo = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
        let mut all = Vec::new();
        let mut piece = [0; 100];
        while !all.ends_with(b"0\r\n\r\n") {
            match stream.read(&mut piece) {
                Ok(length @ 1..) => all.extend_from_slice(&piece[..length]),
                Ok(_) | Err(_) => return,
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    });
    let port = free_port();
    let options = ProxyOptions {
        timeouts: silent_after(300),
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(Snap::simple(port, &[echo.address]), options);
    let mut connection = Connection::open(port);
    connection.send(&post(1, "")).unwrap();
    connection
        .wait_for(|frame| frame.kind == DATA && frame.payload == b"a")
        .unwrap();
    let (grpc_edge, _web, grpc_port) = self::edge(silent_after(300), Limits::default());
    let mut grpc = Connection::open(grpc_port);
    grpc.send(&post(1, "content-type=application/grpc")).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    connection.send(&Frame::new(DATA, 1, 1, *b"b")).unwrap();
    let end = connection.wait_for(|frame| frame.stream == 1 && frame.flags & 1 == 1);
    assert_eq!(end.unwrap().kind, DATA);
    grpc.send(&Frame::new(DATA, 1, 1, *b"b")).unwrap();
    let told = grpc.wait_for(|frame| frame.kind == DATA).unwrap();
    assert!(String::from_utf8_lossy(&told.payload).contains("body-length: 1"));
    edge.expect_flagged("SI", 0);
    grpc_edge.expect_flagged("SI", 0);
}

#[test]
fn a_response_that_is_taken_by_drops_is_cut_and_one_that_pauses_is_not() {
    let limits = Limits {
        response_rate: 1000,
        ..Limits::default()
    };
    let (edge, _web, port) = edge(Timeouts::default(), limits);
    let mut get = Frame::get(1);
    get.payload = block(":method=GET :scheme=http :authority=a :path=/bytes/100000");
    let [mut drips, mut pauses] = [1, 2].map(|_| {
        let mut connection = Connection::open_with(port, &[(4, 100)]);
        connection.send(&get).unwrap();
        connection
            .wait_for(|frame| frame.kind == DATA)
            .map(|_| connection)
            .unwrap()
    });
    drips
        .stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let code = loop {
        assert!(Instant::now() < end, "the connection goes on");
        let more = Frame::new(WINDOW_UPDATE, 0, 1, 100u32.to_be_bytes());
        // The edge may have closed by now; its last word is still to be read.
        let _ = drips.send(&more);
        std::thread::sleep(Duration::from_millis(300));
        match drips.next() {
            Ok(frame) if frame.kind == GOAWAY => break frame.code(),
            Ok(frame) => assert_ne!(frame.kind, RST_STREAM),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    };
    assert_eq!(code, ENHANCE_YOUR_CALM);
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"slow read\""],
        1,
    );
    // The other one goes on where it left off.
    for stream in [0, 1] {
        let more = Frame::new(WINDOW_UPDATE, 0, stream, 1_000_000u32.to_be_bytes());
        pauses.send(&more).unwrap();
    }
    let last = pauses.wait_for(|frame| frame.kind == DATA && frame.flags & 1 == 1);
    assert!(last.is_ok());
}
