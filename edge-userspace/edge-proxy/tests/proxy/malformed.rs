//! Requests that are not what they should be, over raw sockets.

use crate::support::{Backend, Client, Edge, Snap, free_port};

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Answered with the status, and the connection is closed.
    Refused(u16),
    /// Answered with 200, and the connection goes on.
    Answered,
    /// Closed without an answer.
    Closed,
}
use Fate::{Answered, Closed, Refused};

/// Behind every row a second request is sent; it must come out as a request of its own or not at all.
const SECOND: &str = "GET /second HTTP/1.1\r\nhost: a\r\n\r\n";

#[track_caller]
fn check(rows: &[(&str, &str, Fate)]) {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    for (name, request, expected) in rows {
        let before = web.hits();
        let mut client = Client::connect(port);
        client.write(format!("{request}{SECOND}")).unwrap();
        let first = client.read("GET").map(|reply| reply.status);
        let second = client.read("GET").map(|reply| reply.told("line"));
        let fate = match (first, second.as_deref()) {
            (Ok(200), Ok("GET /second")) => Answered,
            (Ok(status), Err(_)) => Refused(status),
            (Err(_), _) => Closed,
            (Ok(status), Ok(line)) => panic!("{name}: {status}, and then {line:?}"),
        };
        assert_eq!(fate, *expected, "{name}");
        let expected_hits = match expected {
            Answered => 2,
            Refused(_) | Closed => 0,
        };
        assert_eq!(
            web.hits() - before,
            expected_hits,
            "{name}: requests that reached the backend"
        );
    }
}

#[test]
fn hosts() {
    check(&[
        ("a good request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", Answered),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", Refused(400)),
        (
            "two different Hosts",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            Refused(400),
        ),
        (
            "two equal Hosts",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        ("an empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", Refused(400)),
        (
            "a port that is no number",
            "GET / HTTP/1.1\r\nhost: a:80x\r\n\r\n",
            Refused(400),
        ),
        (
            "user information in Host",
            "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
            Refused(400),
        ),
        (
            "a list in Host",
            "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
            Refused(400),
        ),
        (
            "an absolute target without Host",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            Refused(400),
        ),
    ]);
}

#[test]
fn lines() {
    check(&[
        ("HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\n\r\n", Refused(426)),
        ("HTTP/0.9", "GET /\r\n", Refused(400)),
        ("HTTP/1.2", "GET / HTTP/1.2\r\nhost: a\r\n\r\n", Refused(400)),
        (
            "HTTP/2 in text",
            "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "a method that is no token",
            "G@T{} / HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        ("two spaces", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
        (
            "a space in the target",
            "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "a target without slash",
            "GET a HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "an asterisk for GET",
            "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "an unknown scheme",
            "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "a NUL in the path",
            "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        (
            "CONNECT",
            "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
            Refused(405),
        ),
    ]);
}

#[test]
fn fields() {
    check(&[
        (
            "a space before the colon",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            Refused(400),
        ),
        (
            "a folded line",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
            Refused(400),
        ),
        (
            "a name with a space",
            "GET / HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n",
            Refused(400),
        ),
        (
            "a line without colon",
            "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n",
            Refused(400),
        ),
        (
            "a bare CR in a value",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\ry: 2\r\n\r\n",
            Refused(400),
        ),
        (
            "a NUL in a value",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n",
            Refused(400),
        ),
        (
            "an unknown expectation",
            "GET / HTTP/1.1\r\nhost: a\r\nexpect: x\r\n\r\n",
            Refused(417),
        ),
    ]);
}

#[test]
fn framing() {
    check(&[
        (
            "a length that is no number",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3x\r\n\r\nabc",
            Refused(400),
        ),
        (
            "a negative length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc",
            Refused(400),
        ),
        (
            "a length with a sign",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
            Refused(400),
        ),
        (
            "two different lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            Refused(400),
        ),
        (
            "an unknown coding before chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: x, chunked\r\n\r\n0\r\n\r\n",
            Refused(400),
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            Refused(400),
        ),
        (
            "a coding that is not chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nabc",
            Refused(400),
        ),
        (
            "a length beside chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            Refused(400),
        ),
    ]);
}

#[test]
fn sizes() {
    let long_line = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let many_lines = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(200));
    let large_but_good = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(30_000));
    check(&[
        ("a head over 64 KB", &long_line, Refused(431)),
        ("two hundred lines", &many_lines, Refused(431)),
        ("a head of 30 KB", &large_but_good, Answered),
    ]);
}

#[test]
fn refusals_are_counted_whether_or_not_the_head_could_be_parsed() {
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[]));
    for request in ["GET / HTTP/1.1\r\n\r\n", "G@T / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::connect(port);
        client.write(request).unwrap();
        assert_eq!(client.read("GET").unwrap().status, 400);
    }
    edge.expect_flagged("DPE", 2);
}

#[test]
fn a_head_that_ends_in_the_middle_is_closed_without_harm() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let whole = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab";
    let head = whole.len() - 2;
    for length in 0..whole.len() {
        let mut client = Client::connect(port);
        client.write(&whole[..length]).unwrap();
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        // A body that breaks off may be answered, as the client could still be listening.
        match client.read("POST") {
            Ok(reply) => assert_eq!((reply.status, length >= head), (400, true), "{length}"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{length}"),
        }
    }
    assert_eq!(Client::connect(port).get("a", "/").unwrap().status, 200);
}
