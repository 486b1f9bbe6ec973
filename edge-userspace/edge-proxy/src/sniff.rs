//! What a client speaks on a plain-text port, told by its first bytes.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::connection::Conn;
use crate::protocol::Protocol;

/// How the client's preface of HTTP/2 begins (RFC 9113 section 3.4). No method of HTTP/1.1 that is served is called so.
const HTTP2: &[u8] = b"PRI ";

/// Waits for the first bytes of a connection, so that one that never sends costs no buffers. Answers what is spoken
/// and the bytes that had to be read to know it, most often none; `None` when the connection is to be closed instead.
pub(crate) async fn first_bytes(conn: &Conn, stream: &TcpStream) -> Option<(Protocol, Bytes)> {
    let mut seen = BytesMut::new();
    loop {
        if !readable(conn, stream).await {
            return None;
        }
        let mut next = [0; HTTP2.len()];
        let wanted = &mut next[..HTTP2.len() - seen.len()];
        // A method may come in pieces: what is there is looked at, and taken only when it is not enough.
        let length = match stream.try_io(Interest::READABLE, || peek(stream, wanted)) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        };
        let so_far = [&seen[..], &next[..length]].concat();
        if length == 0 || !HTTP2.starts_with(&so_far) {
            return Some((Protocol::Http1, seen.freeze()));
        }
        if so_far.len() == HTTP2.len() {
            return Some((Protocol::Http2, seen.freeze()));
        }
        conn.bytes_read();
        match stream.try_read(&mut next[..length]) {
            Ok(length) => seen.extend_from_slice(&next[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    rustix::net::recv(stream, buffer, rustix::net::RecvFlags::PEEK)
        .map(|(length, _)| length)
        .map_err(io::Error::from)
}

/// Waits until there is something to read; false when the connection is to be closed instead.
pub(crate) async fn readable(conn: &Conn, stream: &TcpStream) -> bool {
    poll_fn(|cx| {
        if stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        conn.waits(cx);
        match conn.closes_when_idle() || conn.check_aborted().is_err() {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    })
    .await
}
