//! Bodies in both directions.

use std::io::Write;
use std::net::Shutdown;

use crate::support::{Backend, Client, Edge, RawBackend, Snap, direct, eventually, free_port, prefix, route};

fn edge() -> (Backend, Edge, u16) {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    (web, edge, port)
}

/// Bytes that differ at every place where a piece could be lost, doubled or moved.
fn pattern(length: usize) -> Vec<u8> {
    let words = (0u32..).flat_map(u32::to_le_bytes);
    words.take(length).collect()
}

#[test]
fn ten_megabytes_pass_both_ways_unchanged_with_and_without_a_length() {
    const LENGTH: usize = 10 << 20;
    let (_web, _edge, port) = edge();
    let sent = pattern(LENGTH);
    for chunked in [false, true] {
        let client = Client::connect(port);
        let mut writer = client.stream().try_clone().unwrap();
        let body = sent.clone();
        let writing = std::thread::spawn(move || {
            if chunked {
                writer
                    .write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
                    .unwrap();
                for piece in body.chunks(100_000) {
                    write!(writer, "{:x}\r\n", piece.len()).unwrap();
                    writer.write_all(piece).unwrap();
                    writer.write_all(b"\r\n").unwrap();
                }
                writer.write_all(b"0\r\n\r\n").unwrap();
            } else {
                write!(
                    writer,
                    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n"
                )
                .unwrap();
                writer.write_all(&body).unwrap();
            }
        });
        let mut client = client;
        let reply = client.read("POST").unwrap();
        writing.join().unwrap();
        assert!(
            reply.body == sent,
            "the body changed (chunked: {chunked}, {} bytes)",
            reply.body.len()
        );
        assert_eq!(
            client.get("a", "/").unwrap().status,
            200,
            "the connection goes on"
        );
    }
}

#[test]
fn a_body_begins_to_pass_before_it_has_ended() {
    let (_web, _edge, port) = edge();
    let mut client = Client::connect(port);
    client
        .write("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .unwrap();
    let mut first = [0; 4096];
    let mut seen = String::new();
    while !seen.contains("abc") {
        let read = std::io::Read::read(&mut client.stream(), &mut first).unwrap();
        assert!(read > 0, "{seen}");
        seen += std::str::from_utf8(&first[..read]).unwrap();
    }
    client.write("0\r\n\r\n").unwrap();
}

#[test]
fn framing_of_requests_is_written_from_what_was_read() {
    let (_web, _edge, port) = edge();
    let mut client = Client::connect(port);
    for (request, length, coding, read) in [
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            "3",
            "",
            "3",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            "0",
            "",
            "0",
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "", "", "0"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-trailer: 1\r\n\r\n",
            "",
            "chunked",
            "2",
        ),
        (
            "DELETE / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab",
            "2",
            "",
            "2",
        ),
    ] {
        client.write(request).unwrap();
        let seen = client.read("GET").unwrap();
        assert_eq!(seen.told("content-length"), length, "{request}");
        assert_eq!(seen.told("transfer-encoding"), coding, "{request}");
        assert_eq!(seen.told("body-length"), read, "{request}");
    }
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let (_web, _edge, port) = edge();
    let mut client = Client::connect(port);
    client
        .write("HEAD /bytes/12345 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let head = client.read("HEAD").unwrap();
    assert_eq!(
        head.header("content-length"),
        Some("12345"),
        "the length that GET would have"
    );
    for status in [204, 304] {
        let reply = client.get("a", &format!("/status/{status}")).unwrap();
        assert_eq!((reply.status, reply.header("transfer-encoding")), (status, None));
    }
    assert_eq!(client.get("a", "/bytes/5").unwrap().body, b"xxxxx");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let (_web, _edge, port) = edge();
    let mut client = Client::connect(port);
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .unwrap();
    assert_eq!(client.read("POST").unwrap().status, 100);
    client.write("ab").unwrap();
    let seen = client.read("POST").unwrap();
    assert_eq!(
        (seen.told("body-length").as_str(), seen.told("expect").as_str()),
        ("2", "")
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_web, _edge, port) = edge();
    let mut client = Client::connect(port);
    let requests: String = (0..50)
        .map(|n| format!("GET /n/{n} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    client.write(requests).unwrap();
    for n in 0..50 {
        assert_eq!(client.read("GET").unwrap().told("line"), format!("GET /n/{n}"));
    }
}

#[test]
fn a_response_that_breaks_off_is_not_finished_cleanly() {
    for (framing, piece) in [
        ("content-length: 100", "abc"),
        ("transfer-encoding: chunked", "64\r\nabc"),
    ] {
        let broken = RawBackend::start(move |mut stream, _| {
            RawBackend::read_head(&mut stream);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{piece}");
            let _ = stream.shutdown(Shutdown::Both);
        });
        let port = free_port();
        let edge = Edge::start(Snap::simple(port, &[broken.address]));
        let mut client = Client::connect(port);
        assert!(
            client.get("a", "/").is_err(),
            "{framing}: the client must see that a part is missing"
        );
        edge.expect_flagged("UC", 1);
    }
}

#[test]
fn a_response_with_two_lengths_or_an_unknown_coding_is_not_passed_on_as_it_is() {
    for framing in [
        "content-length: 50\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "content-length: 3x\r\n\r\nabc",
    ] {
        let odd = RawBackend::start(move |mut stream, _| {
            RawBackend::read_head(&mut stream);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{framing}");
        });
        let port = free_port();
        let _edge = Edge::start(Snap::simple(port, &[odd.address]));
        let reply = Client::connect(port).get("a", "/").unwrap();
        assert_eq!(reply.status, 502, "{framing}: {}", reply.text());
    }
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_ends_the_connection_where_the_body_is_not_there() {
    let port = free_port();
    let _edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(403, "no"))]));
    for (request, closes) in [
        // All of it is there, and is thrown away.
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            false,
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab", true),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            true,
        ),
    ] {
        let mut client = Client::connect(port);
        client.write(request).unwrap();
        let reply = client.read("POST").unwrap();
        assert_eq!((reply.status, reply.text()), (403, "no"), "{request}");
        match closes {
            true => assert!(client.is_at_end(), "{request}"),
            false => assert_eq!(client.get("a", "/").unwrap().status, 403, "{request}"),
        }
    }
}

#[test]
fn a_client_that_is_still_at_sending_can_read_its_answer() {
    let port = free_port();
    let _edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(413, "too much"))]));
    let length = 4 * 1024 * 1024;
    // It reads nothing before it has written everything, of which the edge wants nothing.
    for head in [
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"),
        // Not a request: nobody can tell where the next one would begin.
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(),
    ] {
        let mut client = Client::connect(port);
        client.write(&head).unwrap();
        let written = (0..length / 65_536).try_for_each(|_| client.write([b'x'; 65_536]));
        assert!(written.is_ok(), "{head}: {written:?}");
        let status = client.read("POST").map(|reply| reply.status);
        assert!(matches!(status, Ok(400 | 413)), "{head}: {status:?}");
        assert!(client.is_at_end(), "{head}");
    }
}

#[test]
fn a_client_that_sends_for_ever_is_closed_all_the_same() {
    let port = free_port();
    let _edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(413, "too much"))]));
    let mut client = Client::connect(port);
    client
        .write("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let sent = std::iter::repeat_n([b'x'; 65_536], 1024).try_for_each(|piece| client.write(piece));
    assert!(sent.is_err(), "64 MiB were taken");
}

#[test]
fn an_answer_to_head_tells_the_length_that_get_would_have() {
    let port = free_port();
    let _edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(200, "four"))]));
    let mut client = Client::connect(port);
    for _ in 0..2 {
        client.write("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(client.read("HEAD").unwrap().header("content-length"), Some("4"));
    }
    assert_eq!(client.get("a", "/").unwrap().text(), "four");
}

#[test]
fn a_client_that_leaves_before_its_answer_frees_the_endpoint() {
    let silent = RawBackend::start(|mut stream, _| {
        let mut rest = Vec::new();
        RawBackend::read_head(&mut stream);
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[silent.address]));
    let mut client = Client::connect(port);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(eventually(|| silent.open() == 1));
    drop(client);
    assert!(eventually(|| silent.open() == 0));
    edge.expect_flagged("DC", 1);
}
