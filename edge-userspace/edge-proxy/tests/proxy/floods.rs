//! Clients of HTTP/2 that make much work by few bytes: cut after at most 500 frames, counted, and no harm to others.

use std::time::Duration;

use edge_proxy::{ProxyOptions, Timeouts};

use crate::desync::frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, field,
};
use crate::support::{Backend, Client, Edge, Snap, free_port};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames of a flood, by their number.
type Flood = fn(u32) -> Vec<Frame>;

/// Sends a flood of 500 steps, and asserts that the client is told to be calm.
#[track_caller]
fn check(name: &str, prelude: &[Frame], flood: Flood) {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), ProxyOptions::new(1));
    let mut good = Client::connect(port);
    assert_eq!(good.get("a", "/").unwrap().status, 200);
    let mut connection = Connection::open(port);
    let steps = (0..500).flat_map(flood);
    for frame in prelude.iter().cloned().chain(steps) {
        if connection.send(&frame).is_err() {
            break;
        }
    }
    let told = connection.wait_for(|frame| frame.kind == GOAWAY);
    assert_eq!(
        told.map(|frame| frame.code()).ok(),
        Some(ENHANCE_YOUR_CALM),
        "{name}"
    );
    assert!(connection.next().is_err(), "{name}: the connection goes on");
    edge.expect_metric("edge_downstream_connections_cut_total", &[], 1);
    assert_eq!(good.get("a", "/").unwrap().status, 200, "{name}: another client");
}

/// A stream of the client's, by its number.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

#[test]
fn streams_that_are_reset_at_once() {
    check("rapid reset", &[], |n| {
        vec![
            Frame::get(stream(n)),
            Frame::new(RST_STREAM, 0, stream(n), 8u32.to_be_bytes()),
        ]
    });
}

#[test]
fn streams_that_the_gateway_has_to_reset() {
    check("broken streams", &[], |n| {
        let head = block("get connection=close");
        vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, stream(n), head)]
    });
}

#[test]
fn heads_that_never_end() {
    let begin = [Frame::new(HEADERS, END_STREAM, 1, block("get"))];
    check("CONTINUATION", &begin, |_| {
        vec![Frame::new(CONTINUATION, 0, 1, block("x=1"))]
    });
    check("empty CONTINUATION", &begin, |_| {
        vec![Frame::new(CONTINUATION, 0, 1, [])]
    });
}

#[test]
fn heads_that_grow_as_they_are_decoded() {
    // A field of 4,000 octets goes into the table, and then stands thousands of times for one octet each.
    let mut first = block("get");
    let mut large = vec![];
    field(&mut large, b"x", &[b'a'; 4000]);
    large[0] = 0x40;
    first.extend(large);
    let first = [Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, first)];
    check("HPACK bomb", &first, |n| {
        let mut bomb = block("get");
        bomb.extend([0xbe; 8000]);
        vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), bomb)]
    });
}

#[test]
fn heads_that_are_a_little_too_large() {
    let mut first = block("get");
    let mut large = vec![];
    field(&mut large, b"x", &[b'a'; 4000]);
    large[0] = 0x40;
    first.extend(large);
    let first = [Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, first)];
    check("HPACK bombs", &first, |n| {
        let mut bomb = block("get");
        bomb.extend([0xbe; 20]);
        vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), bomb)]
    });
}

#[test]
fn frames_that_ask_for_nothing() {
    let control: [(&str, Flood); 4] = [
        ("SETTINGS", |_| vec![Frame::new(SETTINGS, 0, 0, [])]),
        ("PING", |_| vec![Frame::new(PING, 0, 0, [0; 8])]),
        ("PRIORITY", |n| vec![Frame::new(2, 0, stream(n), [0, 0, 0, 0, 1])]),
        ("unknown frames", |_| vec![Frame::new(0xff, 0, 0, [])]),
    ];
    for (name, flood) in control {
        check(name, &[], flood);
    }
    check("empty DATA", &[Frame::post(1)], |_| {
        vec![Frame::new(DATA, 0, 1, [])]
    });
    check("WINDOW_UPDATE", &[], |_| {
        vec![Frame::new(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes())]
    });
}

#[test]
fn a_window_that_is_never_opened() {
    let web = Backend::start("web");
    let port = free_port();
    let options = ProxyOptions {
        timeouts: Timeouts {
            window: Duration::from_millis(500),
            ..Timeouts::default()
        },
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
    let mut connection = Connection::open_with(port, &[(4, 0)]);
    for n in 0..50 {
        connection.send(&Frame::get(stream(n))).unwrap();
    }
    let told = connection.wait_for(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(told.code(), ENHANCE_YOUR_CALM);
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"window shut\""],
        1,
    );
}

#[test]
fn a_window_that_is_opened_by_an_octet_at_a_time() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), ProxyOptions::new(1));
    let mut connection = Connection::open_with(port, &[(4, 0)]);
    let mut get = Frame::get(1);
    get.payload = block(":method=GET :scheme=http :authority=a :path=/bytes/100000");
    connection.send(&get).unwrap();
    let mut told = None;
    // Each octet comes in a frame of its own.
    for _ in 0..500 {
        if connection
            .send(&Frame::new(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes()))
            .is_err()
        {
            break;
        }
        match connection.wait_for(|frame| matches!(frame.kind, DATA | GOAWAY)) {
            Ok(frame) if frame.kind == GOAWAY => told = Some(frame.code()),
            Ok(_) => continue,
            Err(_) => {}
        }
        break;
    }
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"too many window updates\""],
        1,
    );
}

#[test]
fn clients_that_work_hard_are_let_be() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), ProxyOptions::new(1));
    let mut connection = Connection::open_with(port, &[(4, 10_000)]);
    // A thousand requests in turn, each of which opens windows as octets come, as some clients do for every frame.
    for n in 0..1000 {
        let mut get = Frame::get(stream(n));
        get.payload = block(":method=GET :scheme=http :authority=a :path=/bytes/30000");
        connection.send(&get).unwrap();
        loop {
            let frame = connection
                .wait_for(|frame| matches!(frame.kind, DATA | GOAWAY))
                .unwrap();
            let reasons = edge.lines("edge_downstream_connections_cut_total");
            assert_eq!(frame.kind, DATA, "request {n}: {reasons}");
            let length = u32::try_from(frame.payload.len()).unwrap();
            if length > 0 {
                let length = length.to_be_bytes();
                connection.send(&Frame::new(WINDOW_UPDATE, 0, 0, length)).unwrap();
                connection
                    .send(&Frame::new(WINDOW_UPDATE, 0, stream(n), length))
                    .unwrap();
            }
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
        if n % 10 == 0 {
            connection.send(&Frame::new(PING, 0, 0, [0; 8])).unwrap();
        }
    }
    assert_eq!(edge.metric("edge_downstream_connections_cut_total", &[]), 0.0);
}
