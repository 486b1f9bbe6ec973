//! How endpoints are spoken to by HTTP/1.1, and what of their answers is taken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Client, Edge, RawBackend, Snap, free_port};

/// Answers each request with the same bytes; the connection is kept, unless it is to be closed after an answer.
fn answers(bytes: &'static str, closes: bool) -> RawBackend {
    RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            if stream.write_all(bytes.as_bytes()).is_err() || closes {
                return;
            }
        }
    })
}

fn edge_to(web: &RawBackend) -> (Edge, Client) {
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    (edge, Client::connect(port))
}

#[test]
fn a_connection_is_used_again_only_after_an_answer_that_leaves_no_doubt() {
    const KEPT: usize = 1;
    const NEW_EACH_TIME: usize = 3;
    for (answer, closes, body, connections) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            KEPT,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx: y\r\n\r\n",
            false,
            "ok",
            KEPT,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "", KEPT),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            KEPT,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nok", true, "ok", NEW_EACH_TIME),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            NEW_EACH_TIME,
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            NEW_EACH_TIME,
        ),
        // What follows an answer might be taken for the answer to the next request, which may be another client's.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            false,
            "ok",
            NEW_EACH_TIME,
        ),
    ] {
        let web = answers(answer, closes);
        let (_edge, mut client) = edge_to(&web);
        for _ in 0..NEW_EACH_TIME {
            let reply = client.get("a", "/").unwrap();
            assert!(matches!(reply.status, 200 | 204), "{answer:?}: {}", reply.status);
            assert_eq!(reply.text(), body, "{answer:?}");
        }
        assert_eq!(web.connections(), connections as u64, "{answer:?}");
    }
}

#[test]
fn what_an_idle_connection_sends_unasked_is_nobodys_answer() {
    let web = RawBackend::start(|mut stream, number| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if number == 0 {
                std::thread::sleep(Duration::from_millis(30));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
            }
        }
    });
    let (_edge, mut client) = edge_to(&web);
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").unwrap().text(), "ok");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(web.connections(), 2);
}

#[test]
fn malformed_answers_are_502_and_never_asked_for_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: a\r\n b\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
    ] {
        let web = answers(answer, true);
        let (_edge, mut client) = edge_to(&web);
        assert_eq!(client.get("a", "/").unwrap().status, 502, "{answer:?}");
        assert_eq!(web.connections(), 1, "{answer:?}");
    }
}

#[test]
fn a_body_that_breaks_off_is_broken_off_for_the_client_too() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok!\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    ] {
        let web = answers(answer, true);
        let (_edge, mut client) = edge_to(&web);
        assert!(client.get("a", "/").is_err(), "{answer:?}");
    }
}

/// Reads until the bytes so far end in `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) && matches!(stream.read(&mut byte), Ok(1)) {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_request_is_written_with_the_framing_that_its_body_has() {
    let web = RawBackend::start(|mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            let body = read_until(&mut stream, "end");
            let rest = match body.contains("\r\n") {
                true => read_until(&mut stream, "\r\n\r\n"),
                false => String::new(),
            };
            let body = format!("{body}{rest}").replace("\r\n", "|");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    let (_edge, mut client) = edge_to(&web);
    for (request, expected) in [
        ("content-length: 5\r\n\r\nd end", "d end"),
        (
            "transfer-encoding: chunked\r\n\r\n5;x=y\r\nd end\r\n0\r\n\r\n",
            "5|d end|0||",
        ),
        (
            "transfer-encoding: chunked\r\ntrailer: x\r\n\r\n5\r\nd end\r\n000\r\nx: y\r\nhost: b\r\n\r\n",
            "5|d end|0|x: y||",
        ),
    ] {
        client
            .write(format!("POST / HTTP/1.1\r\nhost: a\r\n{request}"))
            .unwrap();
        assert_eq!(client.read("POST").unwrap().text(), expected, "{request:?}");
    }
    assert_eq!(web.connections(), 1);
}

#[test]
fn an_answer_that_comes_before_the_request_has_ended_is_passed_on() {
    let web = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
        // Not read to its end, and not closed before the client has its answer.
        let _ = stream.read(&mut [0; 10]);
        std::thread::sleep(Duration::from_millis(200));
    });
    let (_edge, mut client) = edge_to(&web);
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome of it")
        .unwrap();
    let reply = client.read("POST").unwrap();
    assert_eq!((reply.status, reply.text()), (413, "big"));
}

#[test]
fn request_and_response_stream_at_the_same_time() {
    let web = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n");
        for _ in 0..3 {
            let mut piece = [0; 2];
            if stream.read_exact(&mut piece).is_err() || stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let (_edge, mut client) = edge_to(&web);
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n")
        .unwrap();
    let head = client.read_head().unwrap();
    assert_eq!(head.status, 200);
    for piece in ["ab", "cd", "ef"] {
        client.write(piece).unwrap();
        assert_eq!(client.read_bytes(2).unwrap(), piece.as_bytes());
    }
}
