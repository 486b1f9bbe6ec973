//! A client's byte stream, watched: what was last read or written, whether it keeps the protocol's rules, and how to
//! end it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Conn;
use crate::protocol::Protocol;
use crate::strict::{Guard, Requests};

/// Tells the connection's state about every read and write, and ends the stream when the state says so.
pub(crate) struct Watched<S> {
    stream: S,
    conn: Rc<Conn>,
    /// Bytes that were read before and come first: those that told what is spoken, or that had to wait. Empty once they
    /// were taken.
    prefix: Bytes,
    /// Checks what is read; only HTTP/1.1 has one.
    guard: Option<Guard<Requests>>,
}

impl<S> Watched<S> {
    /// `prefix` has been read from `stream` before.
    pub(crate) fn new(stream: S, conn: Rc<Conn>, prefix: Bytes) -> Self {
        let guard = match conn.protocol() {
            Protocol::Http1 => Some(Guard::new(Requests)),
            Protocol::Http2 => None,
        };
        Self {
            stream,
            conn,
            prefix,
            guard,
        }
    }

    /// Whether bytes have to wait until it is known whether they are of another protocol.
    fn must_wait(&mut self) -> bool {
        let Some(guard) = &mut self.guard else {
            return false;
        };
        let scanner = guard.scanner();
        if !scanner.is_undecided() {
            return false;
        }
        match self.conn.take_upgrade_decision() {
            Some(agreed) => scanner.decide(agreed),
            None => self.conn.upgrade_is_undecided(scanner.heads()),
        }
        scanner.is_undecided()
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// What is to be read next, be it from the prefix or from the stream, after it was looked over.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ended) = self.guard.as_mut().and_then(|guard| guard.ended(buf)) {
            return Poll::Ready(ended);
        }
        let before = buf.filled().len();
        ready!(self.poll_unchecked(cx, buf))?;
        if let Some(guard) = &mut self.guard
            && buf.filled().len() > before
        {
            let later = guard.check(buf, before)?;
            if !later.is_empty() {
                self.prefix = match self.prefix.is_empty() {
                    true => later,
                    false => [later, std::mem::take(&mut self.prefix)].concat().into(),
                };
            }
            if guard.scanner().is_undecided() {
                self.conn.upgrade_is_undecided(guard.scanner().heads());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_unchecked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        if self.prefix.is_empty() {
            // An empty Bytes would still keep its allocation.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    /// A connection that is to close while idle reads an end of file, but only once nothing is left to read: a
    /// request that arrived in the meantime is served.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        if self.must_wait() {
            self.conn.waits(cx);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match self.poll_next(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.conn.bytes_read();
                }
                Poll::Ready(result)
            }
            Poll::Pending if self.conn.closes_when_idle() => Poll::Ready(Ok(())),
            Poll::Pending => {
                self.conn.waits(cx);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote<T>(&self, cx: &Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.conn.write_was(result.is_pending());
        if result.is_pending() {
            self.conn.waits(cx);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wrote(cx, result)
    }
}
