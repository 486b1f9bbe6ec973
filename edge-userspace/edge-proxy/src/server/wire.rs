//! A client's connection of HTTP/1.1, as those share it who work on it: the task that serves it, and whoever reads the body
//! of the request.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::ClientStream;
use crate::connection::Conn;
use crate::h1::{Decoded, Decoder, HeadBounds, Outbox, Refused, RequestHead, RequestParser, poll_read};
use crate::pool::BodyFault;
use crate::strict::{self, Follows};

/// What is told to a client that waits for it before it sends its body (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is read of a body that nobody wants, to get to the next request; whoever has more to send is cut.
const MAX_UNWANTED: usize = 64 * 1024;

/// A connection.
pub(super) struct Wire {
    conn: Rc<Conn>,
    stream: RefCell<ClientStream>,
    /// What was read and is not used up.
    buffer: RefCell<BytesMut>,
    outbox: RefCell<Outbox>,
    /// Where in the body of the request the stream is.
    decoder: RefCell<Decoder>,
    interim: Cell<Interim>,
    /// Counts ended answers: the body of an earlier request reads nothing more.
    turn: Cell<u64>,
}

/// Where the interim response stands that the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interim {
    /// Nobody waits for it, or it is out.
    No,
    /// It is sent once somebody wants the body.
    Wanted,
    /// It is in the outbox.
    Sending,
}

/// What came of waiting for a request.
pub(super) enum Came {
    Request(RequestHead),
    /// It is no request.
    Refused(Refused),
    /// Nothing more comes, or nothing more is wanted.
    End,
    /// Nothing has come for a while.
    Parks,
}

impl Wire {
    /// `prefix` has been read from `stream` before.
    pub(super) fn new(conn: &Rc<Conn>, stream: ClientStream, prefix: Bytes) -> Rc<Self> {
        Rc::new(Self {
            conn: Rc::clone(conn),
            stream: RefCell::new(stream),
            buffer: RefCell::new(prefix.into()),
            outbox: RefCell::default(),
            decoder: RefCell::new(Decoder::Done),
            interim: Cell::new(Interim::No),
            turn: Cell::new(0),
        })
    }

    /// The stream, and what was read from it and not used.
    pub(super) fn into_parts(self) -> (ClientStream, Bytes) {
        (self.stream.into_inner(), self.buffer.into_inner().freeze())
    }

    /// Waits for the head of the next request.
    pub(super) fn poll_head(
        &self,
        cx: &mut Context<'_>,
        parser: &mut RequestParser,
        bounds: HeadBounds,
    ) -> Poll<Came> {
        let mut buffer = self.buffer.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        loop {
            if self.conn.check_aborted().is_err() {
                return Poll::Ready(Came::End);
            }
            if !buffer.is_empty() {
                match parser.parse(&mut buffer, bounds) {
                    Ok(Some(head)) => return Poll::Ready(Came::Request(head)),
                    Ok(None) => self.conn.bytes_read(),
                    Err(refused) => return Poll::Ready(Came::Refused(refused)),
                }
            }
            match poll_read(&mut *stream, cx, &mut buffer, 0) {
                Poll::Ready(Ok(1..)) => self.conn.bytes_read(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Came::End),
                // A request that arrived in the meantime was served.
                Poll::Pending if self.conn.closes_when_idle() => return Poll::Ready(Came::End),
                Poll::Pending if buffer.is_empty() && self.conn.takes_park() => {
                    return Poll::Ready(Came::Parks);
                }
                Poll::Pending => {
                    self.conn.waits(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// A request begins; answers its body.
    pub(super) fn begin(self: &Rc<Self>, head: &RequestHead) -> Option<WireBody> {
        // Behind CONNECT there is no body (RFC 9110 section 9.3.6).
        let decoder = match head.follows == Follows::Anything {
            true => Decoder::Done,
            false => Decoder::after(head.follows),
        };
        let body = (!decoder.is_done()).then(|| WireBody {
            wire: Rc::downgrade(self),
            turn: self.turn.get(),
        });
        self.interim
            .set(match head.framing.expects_continue() && body.is_some() {
                true => Interim::Wanted,
                false => Interim::No,
            });
        *self.decoder.borrow_mut() = decoder;
        body
    }

    /// Whether the client still waits to be told that its body is wanted.
    pub(super) fn owes_interim(&self) -> bool {
        self.interim.get() == Interim::Wanted && !self.decoder.borrow().is_done()
    }

    /// The outbox, for the head and the body of the answer. There is no interim one from here on.
    pub(super) fn answer<R>(&self, write: impl FnOnce(&mut Outbox) -> R) -> R {
        self.interim.set(Interim::No);
        write(&mut self.outbox.borrow_mut())
    }

    /// Ready when the client has ended while its request is being answered. What it sends ahead is read once, and kept.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.conn.is_gone() {
            return Poll::Ready(());
        }
        let mut buffer = self.buffer.borrow_mut();
        if !buffer.is_empty() || !self.decoder.borrow().is_done() {
            return Poll::Pending;
        }
        match ready!(poll_read(&mut *self.stream.borrow_mut(), cx, &mut buffer, 0)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => {
                self.conn.is_over();
                Poll::Ready(())
            }
        }
    }

    /// Writes what is in the outbox.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let mut stream = self.stream.borrow_mut();
        let mut outbox = self.outbox.borrow_mut();
        let before = outbox.written();
        let mut result = outbox.poll_write(&mut *stream, cx);
        if matches!(result, Poll::Ready(Ok(()))) {
            result = Pin::new(&mut *stream).poll_flush(cx);
        }
        self.conn
            .write_was(result.is_pending(), outbox.written() > before);
        if matches!(result, Poll::Ready(Err(_))) {
            self.conn.is_over();
        }
        result
    }

    /// Ends the stream in this direction.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.check_aborted()?;
        let result = Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx);
        self.conn.write_was(result.is_pending(), false);
        if result.is_pending() {
            self.conn.waits(cx);
        }
        result
    }

    /// Throws away what comes after the last answer. Answers how much; 0 when nothing more comes, or has to.
    pub(super) fn poll_unwanted(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.conn.check_aborted().is_err() || self.conn.closes_when_idle() {
            return Poll::Ready(0);
        }
        let mut buffer = self.buffer.borrow_mut();
        *buffer = BytesMut::new();
        let read = poll_read(&mut *self.stream.borrow_mut(), cx, &mut buffer, u64::MAX);
        if read.is_pending() {
            self.conn.waits(cx);
        }
        read.map(|read| read.unwrap_or(0))
    }

    /// Whether the request has ended, so that another one can follow: what of its body is here, and not much, is thrown
    /// away.
    pub(super) fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        self.turn.set(self.turn.get() + 1);
        let mut unwanted = 0;
        while !self.decoder.borrow().is_done() && unwanted <= MAX_UNWANTED {
            match self.poll_decoded(cx) {
                Poll::Ready(Ok(Decoded::Data(data))) => unwanted += data.len(),
                Poll::Ready(Ok(Decoded::Trailers(_) | Decoded::End | Decoded::More)) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return false,
            }
        }
        self.decoder.borrow().is_done()
    }

    fn poll_decoded(&self, cx: &mut Context<'_>) -> Poll<Result<Decoded, BodyFault>> {
        let mut decoder = self.decoder.borrow_mut();
        let mut buffer = self.buffer.borrow_mut();
        loop {
            let decoded = decoder.decode(&mut buffer).map_err(BodyFault::Malformed)?;
            if !matches!(decoded, Decoded::More) {
                return Poll::Ready(Ok(decoded));
            }
            let kind = match &*decoder {
                Decoder::Length(_) => strict::Body::Told,
                Decoder::Chunked(..) | Decoder::Done | Decoder::UntilEnd => strict::Body::Chunked,
            };
            ready!(self.poll_interim(cx, buffer.is_empty()))?;
            let mut stream = self.stream.borrow_mut();
            match poll_read(&mut *stream, cx, &mut buffer, decoder.left().0) {
                Poll::Ready(Ok(0)) => {
                    self.conn.is_over();
                    decoder.ended().map_err(BodyFault::Malformed)?;
                }
                Poll::Ready(Ok(length)) => self.conn.body_read(Some(kind), length),
                Poll::Ready(Err(error)) => {
                    self.conn.is_over();
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Pending => {
                    self.conn.body_waits(Some(kind));
                    return Poll::Pending;
                }
            }
        }
    }

    /// Tells a client that waits for it that its body is wanted, unless `it_waits` no more.
    fn poll_interim(&self, cx: &mut Context<'_>, it_waits: bool) -> Poll<io::Result<()>> {
        match (self.interim.get(), it_waits) {
            (Interim::No, _) => return Poll::Ready(Ok(())),
            (Interim::Wanted, false) => {
                self.interim.set(Interim::No);
                return Poll::Ready(Ok(()));
            }
            (Interim::Wanted, true) => {
                self.outbox.borrow_mut().next().extend_from_slice(CONTINUE);
                self.interim.set(Interim::Sending);
            }
            (Interim::Sending, _) => {}
        }
        ready!(self.poll_write(cx))?;
        self.interim.set(Interim::No);
        Poll::Ready(Ok(()))
    }
}

/// The body of a request, for as long as that is being answered: whoever still reads it then must not get the next one's.
pub(crate) struct WireBody {
    wire: Weak<Wire>,
    turn: u64,
}

impl WireBody {
    /// The connection, until the answer has ended.
    fn wire(&self) -> Option<Rc<Wire>> {
        self.wire.upgrade().filter(|wire| wire.turn.get() == self.turn)
    }
}

impl fmt::Debug for WireBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireBody")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(wire) = self.wire() else {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())));
        };
        let decoded = ready!(wire.poll_decoded(cx));
        if wire.decoder.borrow().is_done() || wire.conn.is_gone() {
            // From now on the connection's own task watches the client.
            wire.conn.wakes(cx);
        }
        Poll::Ready(match decoded {
            Ok(Decoded::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Decoded::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
            Ok(Decoded::End | Decoded::More) => None,
            Err(fault) => Some(Err(fault)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.wire().is_some_and(|wire| wire.decoder.borrow().is_done())
    }

    fn size_hint(&self) -> SizeHint {
        match self.wire().and_then(|wire| wire.decoder.borrow().left().1) {
            Some(exact) => SizeHint::with_exact(exact),
            None => SizeHint::default(),
        }
    }
}
