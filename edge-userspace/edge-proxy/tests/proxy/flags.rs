//! Response flags: what each way to fail is counted and logged under, as far as endpoints and clients of HTTP/2 have ways
//! of their own.

use std::io::{Read, Write};
use std::net::TcpStream;

use edge_model::{Cluster, FormatString, Fraction, UpstreamProtocol};
use edge_proxy::{AccessLog, AccessLogFormat, ProxyOptions};

use crate::desync::frames::{
    Connection, DATA, END_HEADERS, Frame, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, eventually, forward, free_port, prefix, route, service,
};

const CANCEL: u32 = 8;

/// Reads a client's preface, and then frames up to the head of a request.
fn request_of_http2(stream: &mut TcpStream) -> Option<u32> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).ok()?;
    stream.write_all(&Frame::new(SETTINGS, 0, 0, []).encode()).ok()?;
    let mut connection = Connection {
        stream: stream.try_clone().ok()?,
    };
    connection
        .wait_for(|frame| frame.kind == HEADERS)
        .ok()
        .map(|frame| frame.stream)
}

/// Frames in answer to a request on a stream.
type Answer = fn(u32) -> Vec<Frame>;

/// An endpoint of HTTP/2 that answers the first request of each connection with these frames, and then waits for the end
/// or, if it `closes`, ends the connection.
fn endpoint(answer: Answer, closes: bool) -> RawBackend {
    RawBackend::start(move |mut stream, _| {
        let Some(request) = request_of_http2(&mut stream) else {
            return;
        };
        let frames: Vec<u8> = answer(request).iter().flat_map(Frame::encode).collect();
        let _ = stream.write_all(&frames);
        if !closes {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    })
}

fn head(stream: u32) -> Frame {
    // `:status: 200` of the static table.
    Frame::new(HEADERS, END_HEADERS, stream, [0x88])
}

/// Opens the window of a stream beyond the largest one.
fn too_wide_window(stream: u32) -> [Frame; 2] {
    let more = Frame::new(WINDOW_UPDATE, 0, stream, 0x7fff_ffff_u32.to_be_bytes());
    [more.clone(), more]
}

/// A log of `code flags details`, one line for each request.
struct Log(std::path::PathBuf);

impl Log {
    fn options(&self) -> ProxyOptions {
        let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
        ProxyOptions {
            access_log: Some(AccessLog {
                path: Some(self.0.clone()),
                format: AccessLogFormat::Text(FormatString::parse(format).unwrap()),
                sample: Fraction::ALWAYS,
            }),
            ..ProxyOptions::new(1)
        }
    }

    #[track_caller]
    fn expect(&self, name: &str, expected: &str) {
        let read = || std::fs::read_to_string(&self.0).unwrap_or_default();
        assert!(
            eventually(|| read() == format!("{expected}\n")),
            "{name}: {:?}, not {expected:?}",
            read()
        );
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn log(name: &str) -> Log {
    Log(std::env::temp_dir().join(format!("edge-flags-{name}-{}", std::process::id())))
}

/// An edge before an endpoint of HTTP/2, and a client of it.
fn edge_before(web: &RawBackend, log: &Log) -> (Edge, Client) {
    let port = free_port();
    let cluster = Cluster {
        protocol: UpstreamProtocol::Http2,
        ..service("web", &[web.address])
    };
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let edge = Edge::start_with(Snap::new(port, routes).with(cluster), log.options());
    (edge, Client::connect(port))
}

#[test]
fn what_an_endpoint_of_http2_does_to_a_stream_is_told_apart() {
    let rows: [(&str, Answer, bool, &str, &str); 7] = [
        (
            "reset-without-error",
            |stream| {
                vec![
                    head(stream),
                    Frame::new(DATA, 0, stream, *b"abc"),
                    Frame::new(RST_STREAM, 0, stream, 0_u32.to_be_bytes()),
                ]
            },
            false,
            "UR",
            "200 UR upstream_reset_after_response_started{remote_reset}",
        ),
        (
            "malformed-early",
            |_| vec![Frame::new(DATA, 0, 0, *b"abc")],
            false,
            "UPE",
            "502 UPE upstream_reset_before_response_started{protocol_error}",
        ),
        (
            "reset-early",
            |stream| vec![Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes())],
            false,
            "UR",
            "503 UR upstream_reset_before_response_started{remote_reset}",
        ),
        (
            "reset-late",
            |stream| {
                vec![
                    head(stream),
                    Frame::new(DATA, 0, stream, *b"abc"),
                    Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes()),
                ]
            },
            false,
            "UR",
            "200 UR upstream_reset_after_response_started{remote_reset}",
        ),
        (
            "closed-late",
            |stream| vec![head(stream), Frame::new(DATA, 0, stream, *b"abc")],
            true,
            "UC",
            "200 UC upstream_reset_after_response_started{connection_termination}",
        ),
        (
            "malformed-late",
            |stream| vec![head(stream), Frame::new(DATA, 0, 0, *b"abc")],
            false,
            "UPE",
            "200 UPE upstream_reset_after_response_started{protocol_error}",
        ),
        (
            "white-space",
            |stream| {
                // `x: 1`, with a space behind the value.
                let block = [&[0x88, 0, 1][..], b"x", &[2], b"1 "].concat();
                vec![Frame::new(HEADERS, END_HEADERS, stream, block)]
            },
            false,
            "UPE",
            "502 UPE upstream_reset_before_response_started{protocol_error}",
        ),
    ];
    for (name, answer, closes, flag, line) in rows {
        let web = endpoint(answer, closes);
        let log = log(name);
        let (edge, mut client) = edge_before(&web, &log);
        // What came is cut, or the answer is the gateway's own.
        let reply = client.get("a", "/");
        assert!(
            reply.is_err() || reply.is_ok_and(|reply| reply.status >= 500),
            "{name}"
        );
        edge.expect_flagged(flag, 1);
        log.expect(name, line);
    }
}

#[test]
fn a_stream_that_the_gateway_resets_is_told_apart_from_one_that_the_endpoint_does() {
    let rows: [(&str, Answer, &str); 2] = [
        (
            "window-early",
            |stream| too_wide_window(stream).to_vec(),
            "503 LR upstream_reset_before_response_started{local_reset}",
        ),
        (
            "window-late",
            |stream| [&[head(stream)][..], &too_wide_window(stream)].concat(),
            "200 LR upstream_reset_after_response_started{local_reset}",
        ),
    ];
    for (name, answer, line) in rows {
        let web = endpoint(answer, false);
        let log = log(name);
        let (edge, mut client) = edge_before(&web, &log);
        // The windows that are opened too far are those of a body that has not ended.
        client
            .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
            .unwrap();
        let _ = client.read("POST");
        edge.expect_flagged("LR", 1);
        log.expect(name, line);
    }
}

#[test]
fn a_body_of_http1_that_is_malformed_is_not_one_that_was_closed() {
    for (name, body, closes, flag, reason) in [
        ("chunk", "3\r\nabcXY\r\n", false, "UPE", "protocol_error"),
        ("closed", "3\r\nab", true, "UC", "connection_termination"),
    ] {
        let web = RawBackend::start(move |mut stream, _| {
            RawBackend::read_head(&mut stream);
            let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
            if !closes {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let (port, log) = (free_port(), log(name));
        let edge = Edge::start_with(Snap::simple(port, &[web.address]), log.options());
        assert!(Client::connect(port).get("a", "/").is_err(), "{name}");
        edge.expect_flagged(flag, 1);
        let details = format!("upstream_reset_after_response_started{{{reason}}}");
        log.expect(name, &format!("200 {flag} {details}"));
    }
}

#[test]
fn a_client_that_resets_one_stream_is_not_one_that_is_gone() {
    let web = Backend::start("web");
    let (port, log) = (free_port(), log("reset"));
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), log.options());
    let mut connection = Connection::open(port);
    let mut slow = Frame::get(1);
    slow.payload = crate::desync::frames::block(":method=GET :scheme=http :authority=a :path=/sleep/5000");
    connection.send(&slow).unwrap();
    assert!(eventually(|| web.hits() == 1));
    let reset = Frame::new(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    connection.send(&reset).unwrap();
    edge.expect_flagged("DR", 1);
    // The next one is lost with the connection.
    slow.stream = 3;
    connection.send(&slow).unwrap();
    assert!(eventually(|| web.hits() == 2));
    drop(connection);
    edge.expect_flagged("DC", 1);
    let mut client = Client::connect(port);
    client
        .write("GET /sleep/5000 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    assert!(eventually(|| web.hits() == 3));
    drop(client);
    edge.expect_flagged("DC", 2);
    assert_eq!(
        edge.metric("istio_requests_total", &["response_flags=\"DR\""]),
        1.0
    );
}

#[test]
fn what_a_client_sends_that_is_no_request_is_counted_as_its_own_fault() {
    let (port, log) = (free_port(), log("malformed"));
    let edge = Edge::start_with(Snap::simple(port, &[]), log.options());
    let mut connection = Connection::open(port);
    // White space in front of a value.
    let mut bad = Frame::get(1);
    bad.payload.extend(crate::desync::frames::block("x=\\x20y"));
    connection.send(&bad).unwrap();
    assert!(!connection.outcomes(&[1]).unwrap().passed[&1]);
    edge.expect_flagged("DPE", 1);
    log.expect("malformed", "400 DPE codec_error");
}
