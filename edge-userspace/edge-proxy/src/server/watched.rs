//! A client's byte stream of HTTP/2, watched: what was last read or written, whether it keeps the protocol's rules, and how
//! to end it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClientStream, OpenStreams};
use crate::connection::Conn;
use crate::strict::{Code, Http2Fault};

/// Tells the connection's state about every read and write, and ends the stream when the state says so.
pub(super) struct Watched {
    stream: ClientStream,
    conn: Rc<Conn>,
    /// Bytes that were read before, to find out what is spoken. Empty once they were taken.
    prefix: Bytes,
    /// Its guard looks over what is read and what is written.
    streams: Rc<OpenStreams>,
    verdict: Verdict,
}

/// What the guard of HTTP/2 has found.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Good,
    /// The next read fails; what came before the fault was given.
    Fault(Http2Fault),
    Ended,
}

impl Watched {
    /// `prefix` has been read from `stream` before.
    pub(super) fn new(stream: ClientStream, conn: Rc<Conn>, prefix: Bytes) -> Self {
        Self {
            stream,
            streams: Rc::clone(conn.open_streams()),
            conn,
            prefix,
            verdict: Verdict::Good,
        }
    }

    /// What is to be read next, be it from the prefix or from the stream, after it was looked over.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_unchecked(cx, buf))?;
        if buf.filled().len() == before {
            return Poll::Ready(Ok(()));
        }
        let result = self
            .streams
            .guard()
            .borrow_mut()
            .received(&buf.filled()[before..], self.conn.now());
        let (good, fault) = match result {
            Ok(()) => match self.reset_streams(cx) {
                Ok(()) => return Poll::Ready(Ok(())),
                // What came before it is not looked at any more.
                Err(fault) => (0, fault),
            },
            Err(fault) => fault,
        };
        buf.set_filled(before + good);
        if good > 0 {
            self.verdict = Verdict::Fault(fault);
            return Poll::Ready(Ok(()));
        }
        self.refuse(cx, fault)
    }

    /// Resets streams where the parser behind does not.
    fn reset_streams(&mut self, cx: &mut Context<'_>) -> Result<(), Http2Fault> {
        loop {
            let Some(frame) = self.streams.guard().borrow_mut().take_reset()? else {
                return Ok(());
            };
            self.reset_stream(cx, &frame)?;
        }
    }

    fn reset_stream(&mut self, cx: &mut Context<'_>, frame: &[u8]) -> Result<(), Http2Fault> {
        let stream = &mut self.stream;
        let written = Pin::new(&mut *stream).poll_write(cx, frame);
        // What does not fit into the socket stays with TLS, whose next write takes it along.
        let _ = Pin::new(stream).poll_flush(cx);
        match written {
            Poll::Ready(Ok(length)) if length == frame.len() => Ok(()),
            Poll::Ready(_) | Poll::Pending => Err(Http2Fault::UNSENT),
        }
    }

    /// Tells a client of HTTP/2 why it is cut, if that can be done without waiting, and ends the stream.
    fn refuse(&mut self, cx: &mut Context<'_>, fault: Http2Fault) -> Poll<io::Result<()>> {
        self.conn.cut_for(fault.reason);
        self.say_goodbye(cx, fault.code);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.reason)))
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

impl AsyncRead for Watched {
    /// A connection that is to close while idle reads an end of file, but only once nothing is left to read: a
    /// request that arrived in the meantime is served.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.conn.check_aborted() {
            let code = self.conn.goodbye();
            self.say_goodbye(cx, code);
            return Poll::Ready(Err(error));
        }
        let fault = match self.verdict {
            Verdict::Good => self.streams.guard().borrow().fault(),
            Verdict::Fault(fault) => Some(fault),
            Verdict::Ended => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        };
        if let Some(fault) = fault {
            return self.refuse(cx, fault);
        }
        let before = buf.filled().len();
        match self.poll_next(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.conn.bytes_read();
                } else {
                    self.conn.is_over();
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

impl Watched {
    /// GOAWAY and the end of the stream, unless they would have to wait.
    fn say_goodbye(&mut self, cx: &mut Context<'_>, code: Code) {
        if matches!(
            std::mem::replace(&mut self.verdict, Verdict::Ended),
            Verdict::Ended
        ) {
            return;
        }
        let frame = self.streams.guard().borrow().goaway(code);
        let Some(frame) = frame else { return };
        let stream = &mut self.stream;
        // Whether it goes out or not, the connection ends.
        if Pin::new(&mut *stream).poll_write(cx, &frame).is_ready()
            && Pin::new(&mut *stream).poll_flush(cx).is_ready()
        {
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
    }

    /// Some bytes of `bufs` were written. Answers whether something of a response was among them.
    fn note_written(&self, bufs: &[io::IoSlice<'_>], result: &Poll<io::Result<usize>>) -> bool {
        let Poll::Ready(Ok(length)) = result else {
            return false;
        };
        let (mut guard, mut left, mut progress) = (self.streams.guard().borrow_mut(), *length, false);
        for buf in bufs {
            let taken = left.min(buf.len());
            progress |= guard.sent(&buf[..taken]);
            left -= taken;
        }
        if guard.take_calmed() {
            self.conn.cut_for("too much for the parser");
        }
        progress
    }

    /// `progress` says whether something of a response went out.
    fn wrote<T>(&self, cx: &Context<'_>, result: Poll<io::Result<T>>, progress: bool) -> Poll<io::Result<T>> {
        self.conn.write_was(result.is_pending(), progress);
        if matches!(result, Poll::Ready(Err(_))) {
            self.conn.is_over();
        }
        if result.is_pending() {
            self.conn.waits(cx);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        let progress = self.note_written(&[io::IoSlice::new(buf)], &result);
        self.wrote(cx, result, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        let progress = self.note_written(bufs, &result);
        self.wrote(cx, result, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(cx, result, false)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wrote(cx, result, false)
    }
}
