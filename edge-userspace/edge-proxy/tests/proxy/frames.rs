//! Frames of HTTP/2 that break a rule, and what the client is told (RFC 9113, RFC 7541).

use crate::desync::frames::{
    Connection, DATA, END_STREAM, Frame, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frames,
};
use crate::support::{Backend, Edge, Snap, direct, free_port, prefix, route};

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// Each row's frames end the connection with GOAWAY and a code.
#[track_caller]
fn check(rows: &[(&str, &str, u32)]) {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    for (name, text, code) in rows {
        let mut connection = Connection::open(port);
        for frame in frames(text) {
            // The edge may have closed by now.
            let _ = connection.send(&frame);
        }
        let told = connection.wait_for(|frame| frame.kind == GOAWAY);
        assert_eq!(told.map(|frame| frame.code()).ok(), Some(*code), "{name}");
        assert!(connection.next().is_err(), "{name}: the connection goes on");
    }
}

#[test]
fn streams_are_opened_in_order_and_closed_for_good() {
    check(&[
        ("a lower stream", "HE5 get ; HE3 get", PROTOCOL),
        ("an even stream", "HE2 get", PROTOCOL),
        ("HEADERS on stream 0", "HE0 get", PROTOCOL),
        ("DATA on an idle stream", "D abc", PROTOCOL),
        ("RST_STREAM of an idle stream", "R 8", PROTOCOL),
        (
            "WINDOW_UPDATE of an idle stream",
            "X 8 0 1 \\0\\0\\0\\x01",
            PROTOCOL,
        ),
        ("DATA after the end", "HE get ; D abc", STREAM_CLOSED),
        ("HEADERS after the end", "HE get ; HE get", STREAM_CLOSED),
        ("DATA after a reset", "H post ; R 8 ; D abc", STREAM_CLOSED),
        ("HEADERS after a reset", "H post ; R 8 ; HE get", STREAM_CLOSED),
        ("CONTINUATION after a reset", "H post ; R 8 ; C x=1", PROTOCOL),
    ]);
}

/// A stream whose client has not ended it when its response has, on a connection of its own.
fn half_open() -> (Edge, Connection) {
    let port = free_port();
    let edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(200, "abc"))]));
    let mut connection = Connection::open(port);
    connection.send(&Frame::post(1)).unwrap();
    let last = connection.wait_for(|frame| frame.flags & END_STREAM != 0 && frame.stream == 1);
    assert_eq!(last.unwrap().kind, DATA);
    (edge, connection)
}

#[test]
fn a_body_that_nobody_wants_may_end_before_its_stream_is_reset() {
    let (_edge, mut connection) = half_open();
    connection.send(&Frame::new(DATA, 0, 1, *b"abc")).unwrap();
    connection.send(&Frame::new(DATA, END_STREAM, 1, [])).unwrap();
    // Another one, which does not end, is waited for until later.
    connection.send(&Frame::post(3)).unwrap();
    let next = connection.wait_for(|frame| matches!(frame.kind, RST_STREAM | GOAWAY));
    let next = next.unwrap();
    assert_eq!((next.kind, next.stream), (RST_STREAM, 3));
}

#[test]
fn a_body_that_nobody_wants_and_that_does_not_end_is_reset_without_an_error() {
    for frames in [0, 3] {
        let (_edge, mut connection) = half_open();
        for _ in 0..frames {
            connection.send(&Frame::new(DATA, 0, 1, [0; 16_384])).unwrap();
        }
        let reset = connection
            .wait_for(|frame| matches!(frame.kind, RST_STREAM | GOAWAY))
            .unwrap();
        assert_eq!((reset.kind, reset.code()), (RST_STREAM, 0), "{frames} frames");
        // Other streams go on.
        connection.send(&Frame::get(3)).unwrap();
        assert!(connection.outcomes(&[3]).unwrap().passed[&3]);
    }
}

#[test]
fn a_window_beyond_the_largest_resets_its_stream_also_when_its_response_has_ended() {
    let (_edge, mut connection) = half_open();
    for _ in 0..2 {
        let update = Frame::new(WINDOW_UPDATE, 0, 1, 0x7fff_ffff_u32.to_be_bytes());
        connection.send(&update).unwrap();
    }
    let reset = connection
        .wait_for(|frame| matches!(frame.kind, RST_STREAM | GOAWAY))
        .unwrap();
    assert_eq!((reset.kind, reset.code()), (RST_STREAM, FLOW_CONTROL));
    connection.send(&Frame::get(3)).unwrap();
    assert!(connection.outcomes(&[3]).unwrap().passed[&3]);
}

#[test]
fn frames_have_their_sizes_and_places() {
    check(&[
        ("a frame over 16 KiB", "X 0 0 1 %{a*16385}", FRAME_SIZE),
        ("SETTINGS of five octets", "X 4 0 0 12345", FRAME_SIZE),
        (
            "an acknowledgement that says something",
            "X 4 1 0 123456",
            FRAME_SIZE,
        ),
        ("PING of seven octets", "X 6 0 0 1234567", FRAME_SIZE),
        ("WINDOW_UPDATE of three octets", "X 8 0 0 123", FRAME_SIZE),
        ("RST_STREAM of three octets", "HE get ; X 3 0 1 123", FRAME_SIZE),
        ("PRIORITY of four octets", "X 2 0 1 1234", FRAME_SIZE),
        ("GOAWAY of seven octets", "X 7 0 0 1234567", FRAME_SIZE),
        ("SETTINGS on a stream", "X 4 0 1", PROTOCOL),
        ("PING on a stream", "X 6 0 1 12345678", PROTOCOL),
        ("GOAWAY on a stream", "X 7 0 1 12345678", PROTOCOL),
        ("PRIORITY on stream 0", "X 2 0 0 12345", PROTOCOL),
        ("RST_STREAM on stream 0", "R0 8", PROTOCOL),
        ("DATA on stream 0", "D0 abc", PROTOCOL),
        ("PUSH_PROMISE", "X 5 4 1 \\0\\0\\0\\x02\\x82", PROTOCOL),
        ("padding beyond HEADERS", "X 1 d 1 \\xff\\x82", PROTOCOL),
        ("CONTINUATION without a head", "C x=1", PROTOCOL),
        (
            "another frame within a head",
            "HE- get ; X 6 0 0 12345678",
            PROTOCOL,
        ),
        ("an unknown frame within a head", "HE- get ; X ff 0 0", PROTOCOL),
        ("CONTINUATION of another stream", "HE- get ; C3 x=1", PROTOCOL),
    ]);
}

#[test]
fn settings_windows_and_field_blocks_have_their_values() {
    check(&[
        (
            "a window beyond 31 bits in SETTINGS",
            "X 4 0 0 \\0\\x04\\x80\\0\\0\\0",
            FLOW_CONTROL,
        ),
        ("ENABLE_PUSH of 2", "X 4 0 0 \\0\\x02\\0\\0\\0\\x02", PROTOCOL),
        (
            "MAX_FRAME_SIZE below the least",
            "X 4 0 0 \\0\\x05\\0\\0\\x3f\\xff",
            PROTOCOL,
        ),
        (
            "MAX_FRAME_SIZE beyond 24 bits",
            "X 4 0 0 \\0\\x05\\x01\\0\\0\\0",
            PROTOCOL,
        ),
        ("a window increment of zero", "X 8 0 0 \\0\\0\\0\\0", PROTOCOL),
        (
            "a window beyond 31 bits",
            "X 8 0 0 \\x7f\\xff\\xff\\xff",
            FLOW_CONTROL,
        ),
        ("an index beyond the tables", "HE get hex:ff8001", COMPRESSION),
        ("index zero", "HE get hex:80", COMPRESSION),
        ("a table update after a field", "HE get hex:20", COMPRESSION),
        ("a table beyond its bound", "HE hex:3fe2ff03 get", COMPRESSION),
        ("a string beyond its block", "HE get hex:0001787f31", COMPRESSION),
        ("a pseudo-header in trailers", "H post ; HE :path=/b", PROTOCOL),
        (
            "an unknown scheme",
            "HE :method=GET :scheme=ftp :path=/ host=a",
            PROTOCOL,
        ),
    ]);
}

#[test]
fn what_concerns_one_stream_leaves_the_others_alone() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut connection = Connection::open(port);
    // A name in capitals ends the connection, as the parser behind has it; it is not among them.
    for (stream, text) in [
        (3, "HE3 get connection=close"),
        (7, "HE7 get :status=200"),
        (9, "X 1 25 9 \\0\\0\\0\\x09\\x10\\x82"),
    ] {
        for frame in frames(text) {
            connection.send(&frame).unwrap();
        }
        let ended = connection.wait_for(|frame| frame.kind == RST_STREAM && frame.stream == stream);
        assert_eq!(ended.unwrap().code(), PROTOCOL, "{text}");
    }
    connection.send(&Frame::get(11)).unwrap();
    assert!(connection.outcomes(&[11]).unwrap().passed[&11]);
}

#[test]
fn what_comes_after_the_answer_is_judged_too() {
    // It answers before it has the body.
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    for rest in ["D abc ; DE d", "DE abc", "DE", "H x=1", "D a ; HE x=1"] {
        let mut connection = Connection::open(port);
        let head = ":method=POST :scheme=http :authority=a :path=/bytes/5 content-length=2";
        connection.send(&frames(&format!("H {head}"))[0]).unwrap();
        assert!(connection.outcomes(&[1]).unwrap().passed[&1], "{rest}");
        for frame in frames(rest) {
            // The edge may have closed by now.
            let _ = connection.send(&frame);
        }
        let told = connection.wait_for(|frame| frame.kind == GOAWAY);
        assert_eq!(told.map(|frame| frame.code()).ok(), Some(PROTOCOL), "{rest}");
    }
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[]));
    let mut connection = Connection::open(port);
    connection.send(&Frame::new(PING, 0, 0, *b"12345678")).unwrap();
    let settings = connection.wait_for(|frame| frame.kind == SETTINGS && frame.flags == 0);
    assert!(settings.is_ok());
    let mut acknowledged = [false; 2];
    while acknowledged != [true; 2] {
        let frame = connection.next().unwrap();
        acknowledged[0] |= frame.kind == SETTINGS && frame.flags == 1;
        acknowledged[1] |= frame.kind == PING && frame.flags == 1 && frame.payload == b"12345678";
    }
}
