//! What a client speaks on a plain-text port, told by its first bytes.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::connection::Conn;
use crate::protocol::Protocol;

/// How the client's preface of HTTP/2 begins (RFC 9113 section 3.4). No method of HTTP/1.1 that is served is called so.
const HTTP2: &[u8] = b"PRI ";

/// Bytes that have come and are left where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    bytes: [u8; HTTP2.len()],
    /// How many of them there are; 0 at the end of the stream.
    length: usize,
}

/// Waits for the first bytes of a connection, so that one that never sends costs no buffers; `None` when the connection is
/// to be closed instead.
///
/// A socket may be said to be readable that is not, so the bytes themselves are looked for.
pub(crate) async fn ahead(conn: &Conn, stream: &TcpStream) -> Option<Ahead> {
    poll_fn(|cx| {
        while ready!(poll_readable(conn, stream, cx)) {
            let mut bytes = [0; HTTP2.len()];
            match stream.try_io(Interest::READABLE, || peek(stream, &mut bytes)) {
                Ok(length) => return Poll::Ready(Some(Ahead { bytes, length })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        Poll::Ready(None)
    })
    .await
}

/// Answers what is spoken on a connection that begins with `first`, and the bytes that had to be read to know it, most
/// often none; `None` when the connection is to be closed instead.
pub(crate) async fn first_bytes(conn: &Conn, stream: &TcpStream, first: Ahead) -> Option<(Protocol, Bytes)> {
    let mut seen = BytesMut::new();
    let mut next = first;
    loop {
        // A method may come in pieces: what is there is looked at, and taken only when it is not enough.
        let wanted = HTTP2.len() - seen.len();
        let length = next.length.min(wanted);
        let so_far = [&seen[..], &next.bytes[..length]].concat();
        if length == 0 || !HTTP2.starts_with(&so_far) {
            return Some((Protocol::Http1, seen.freeze()));
        }
        if so_far.len() == HTTP2.len() {
            return Some((Protocol::Http2, seen.freeze()));
        }
        conn.bytes_read();
        match stream.try_read(&mut next.bytes[..length]) {
            Ok(length) => seen.extend_from_slice(&next.bytes[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        next = ahead(conn, stream).await?;
    }
}

fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    rustix::net::recv(stream, buffer, rustix::net::RecvFlags::PEEK)
        .map(|(length, _)| length)
        .map_err(io::Error::from)
}

/// Waits until there is something to read; false when the connection is to be closed instead.
pub(crate) async fn readable(conn: &Conn, stream: &TcpStream) -> bool {
    poll_fn(|cx| poll_readable(conn, stream, cx)).await
}

fn poll_readable(conn: &Conn, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<bool> {
    if stream.poll_read_ready(cx).is_ready() {
        return Poll::Ready(true);
    }
    conn.waits(cx);
    match conn.closes_when_idle() || conn.check_aborted().is_err() {
        true => Poll::Ready(false),
        false => Poll::Pending,
    }
}
