//! Promises of the strict layer, for the fuzz targets: each function panics where one is broken.

use std::time::Instant;

use bytes::BytesMut;
use http::request::Parts;

use crate::h1::{Decoded, Decoder, HeadBounds, Refused, RequestParser, parse_response};
use crate::http::rebuilt;
use crate::options::Http2Limits;
use crate::proxy_protocol::{self, Origin};
use crate::strict::{Follows, Http2Guard};

/// Sizes of the pieces that streams are cut into.
const PIECES: [usize; 3] = [1, 3, 7];

/// Requests of HTTP/1.1: however the stream is cut, it is judged alike, and the head that goes upstream is one message
/// that means what the client's meant.
///
/// # Panics
/// Where that is not so.
pub fn requests(data: &[u8]) {
    let whole = scanned(data, data.len().max(1));
    for size in PIECES {
        assert_eq!(scanned(data, size), whole, "in pieces of {size}");
    }
    let (_, heads) = whole;
    let Some(client) = head(data).filter(|_| heads > 0) else {
        return;
    };
    let length = client
        .headers
        .get("content-length")
        .map(|text| text.to_str().ok()?.parse().ok());
    let body = match (length, client.headers.contains_key("transfer-encoding")) {
        (Some(length), _) => length,
        (None, true) => None,
        (None, false) => Some(0),
    };
    let Some(text) = rebuilt(&client, body) else {
        return;
    };
    assert_eq!(scanned(&text, text.len()), (None, 1), "{}", text.escape_ascii());
    let again = head(&text).unwrap_or_else(|| panic!("no head: {}", text.escape_ascii()));
    assert_eq!(again.method, client.method);
    let fields = |name: &str| again.headers.get_all(name).iter().count();
    assert_eq!(fields("host"), 1);
    match body {
        None => assert_eq!((fields("content-length"), fields("transfer-encoding")), (0, 1)),
        Some(length) => {
            assert_eq!(fields("transfer-encoding"), 0);
            let told = again
                .headers
                .get("content-length")
                .and_then(|told| told.to_str().ok()?.parse().ok());
            assert_eq!(told.unwrap_or(0), length);
        }
    }
    for name in [
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "http2-settings",
    ] {
        assert_eq!(fields(name), 0, "{name}");
    }
    // Once more it is the same.
    assert_eq!(
        rebuilt(&again, body).map(|text| head(&text).map(|head| head.uri)),
        Some(Some(again.uri))
    );
}

/// Part of a message that is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Head(Refused),
    Body,
}

/// The first fault in a stream of requests, and the heads before it.
fn scanned(data: &[u8], size: usize) -> (Option<Fault>, u64) {
    const BOUNDS: HeadBounds = HeadBounds {
        bytes: 64 * 1024,
        fields: 100,
    };
    let (mut parser, mut decoder, mut heads) = (RequestParser::default(), Decoder::Done, 0);
    let mut buffer = BytesMut::new();
    for piece in data.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            if !decoder.is_done() {
                match decoder.decode(&mut buffer) {
                    Err(_) => return (Some(Fault::Body), heads),
                    Ok(Decoded::More) => break,
                    Ok(Decoded::Data(_) | Decoded::Trailers(_) | Decoded::End) => continue,
                }
            }
            match parser.parse(&mut buffer, BOUNDS) {
                Err(refused) => return (Some(Fault::Head(refused)), heads),
                Ok(None) => break,
                Ok(Some(head)) => {
                    heads += 1;
                    // What comes next is not HTTP, or may be none.
                    if matches!(head.follows, Follows::Anything | Follows::Undecided) {
                        return (None, heads);
                    }
                    decoder = Decoder::after(head.follows);
                }
            }
        }
    }
    (None, heads)
}

/// The first head as a parser has it.
fn head(data: &[u8]) -> Option<Parts> {
    let data = data.strip_prefix(b"\r\n").unwrap_or(data);
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(data).ok()?.is_complete() {
        return None;
    }
    let mut request = http::Request::builder().method(parsed.method?).uri(parsed.path?);
    for field in parsed.headers.iter() {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// Responses of HTTP/1.1, heads and chunks: however the stream is cut, it is judged alike.
///
/// # Panics
/// Where that is not so.
pub fn responses(data: &[u8]) {
    let whole = response(data, data.len().max(1));
    let chunks = chunked(data, data.len().max(1));
    for size in PIECES {
        assert_eq!(response(data, size), whole, "in pieces of {size}");
        assert_eq!(chunked(data, size), chunks, "chunks in pieces of {size}");
    }
    // What one side takes for the end of a chunked body, the other does, too.
    let request = [b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", data].concat();
    if let Some((_, rest)) = &chunks {
        let ends_at = request.len() - rest;
        let (fault, _) = scanned(&request[..ends_at], ends_at.max(1));
        assert_eq!(fault, None, "a body that ends at {ends_at}");
    }
}

/// Status and fields of a head and what is left behind it; `None` when there is none, or a bad one.
fn response(data: &[u8], size: usize) -> Option<(u16, usize, usize)> {
    let mut buffer = BytesMut::new();
    let mut given = 0;
    for piece in data.chunks(size) {
        let seen = buffer.len();
        buffer.extend_from_slice(piece);
        given += piece.len();
        if let Some(head) = parse_response(&mut buffer, seen).ok()? {
            let rest = buffer.len() + data.len() - given;
            return Some((head.status.as_u16(), head.headers.len(), rest));
        }
    }
    None
}

/// A chunked body, and how many bytes are left behind it; `None` when it does not end, or is malformed.
fn chunked(data: &[u8], size: usize) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut buffer, mut body) = (Decoder::chunked(), BytesMut::new(), Vec::new());
    let (mut pieces, mut given) = (data.chunks(size), 0);
    loop {
        match decoder.decode(&mut buffer).ok()? {
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::Trailers(_) | Decoded::End => return Some((body, buffer.len() + data.len() - given)),
            Decoded::More => {
                let piece = pieces.next()?;
                given += piece.len();
                buffer.extend_from_slice(piece);
            }
        }
    }
}

/// Frames of HTTP/2: however the stream is cut, the same fault is found, and never more is passed on than came before
/// it. The first byte says how many of the others are sent by the gateway.
///
/// # Panics
/// Where that is not so.
pub fn frames(data: &[u8]) {
    let Some((count, data)) = data.split_first() else {
        return;
    };
    let (sent, received) = data.split_at(usize::from(*count).min(data.len()));
    let received = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", received].concat();
    let judged = |size: usize| {
        let now = Instant::now();
        let mut guard = Http2Guard::new(Http2Limits::default(), now);
        for piece in sent.chunks(size) {
            guard.sent(piece);
        }
        let fault = received.chunks(size).find_map(|piece| {
            let result = guard.received(piece, now);
            result.err().map(|(good, fault)| {
                assert!(good <= piece.len());
                fault
            })
        });
        (fault, guard.blocked())
    };
    let whole = judged(received.len());
    for size in PIECES {
        assert_eq!(judged(size), whole, "in pieces of {size}");
    }
}

/// Headers of the PROXY protocol: what is understood is told again in both versions, and understood alike.
///
/// # Panics
/// Where that is not so.
pub fn proxy_header(data: &[u8]) {
    for origin in [
        proxy_protocol::parse_text(data),
        proxy_protocol::parse_binary(data),
    ] {
        let Ok(Origin::Client { source, destination }) = origin else {
            continue;
        };
        let told = |version| proxy_protocol::header(version, source, destination);
        let text = proxy_protocol::parse_text(&told(edge_model::ProxyProtocolVersion::V1));
        let binary = proxy_protocol::parse_binary(&told(edge_model::ProxyProtocolVersion::V2));
        assert_eq!(text, binary);
        let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
        match text {
            Ok(Origin::Client {
                source: from,
                destination: to,
            }) => {
                assert_eq!(canonical(from), canonical(source));
                assert_eq!(canonical(to), canonical(destination));
            }
            other => panic!("{other:?}"),
        }
    }
}
