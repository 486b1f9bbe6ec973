//! HTTP/1.1 with a client: one request after the other, each answered before the next one is looked at (RFC 9112 section
//! 9.3.2).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame};

use super::wire::{Came, Wire};
use super::{ClientStream, Served};
use crate::connection::Conn;
use crate::h1::{Length, Outbox, Refused, RequestHead, RequestParser, spare, write_response_head};
use crate::http::{self as exchange, Incoming, Record, ResponseBody, has_no_body};
use crate::strict::Follows;

/// For how long a client that is still at sending is read from after its last answer, and how long it may pause (Envoy
/// waits for 1 s, `delayed_close_timeout`).
const LINGER: Duration = Duration::from_secs(5);
const LINGER_SILENT: Duration = Duration::from_secs(1);

/// How many octets are read in that time.
const MAX_LINGER: usize = 8 * 1024 * 1024;

/// Serves requests until the client or the gateway has enough, or nothing comes.
pub(super) async fn serve(conn: &Rc<Conn>, stream: ClientStream, prefix: Bytes) -> Served {
    let wire = Wire::new(conn, stream, prefix);
    let bounds = conn.worker().head_bounds();
    let mut parser = RequestParser::default();
    loop {
        let came = poll_fn(|cx| wire.poll_head(cx, &mut parser, bounds)).await;
        let after = match came {
            Came::Request(head) => answer(conn, &wire, head).await,
            Came::Refused(refused) => refuse(conn, &wire, refused).await,
            Came::End => After::Close,
            Came::Parks => {
                return match Rc::into_inner(wire) {
                    Some(wire) => Served::Parked(wire.into_parts().0),
                    None => Served::Ended,
                };
            }
        };
        match after {
            After::Next => {}
            After::Close => {
                // The client may be gone by now, and has its answers.
                let _ = poll_fn(|cx| wire.poll_shutdown(cx)).await;
                return Served::Ended;
            }
            After::CloseLate => {
                let _ = poll_fn(|cx| wire.poll_shutdown(cx)).await;
                linger(conn, &wire).await;
                return Served::Ended;
            }
            After::Cut => return Served::Ended,
            After::Switch => {
                if let (Some(tunnel), Some(wire)) = (conn.take_tunnel(), Rc::into_inner(wire)) {
                    let (stream, ahead) = wire.into_parts();
                    // However it ended, the connection ends with it.
                    let _ = Box::pin(tunnel.run(stream, ahead)).await;
                }
                return Served::Ended;
            }
        }
    }
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Another request may follow.
    Next,
    /// It ends here.
    Close,
    /// It ends here, while the client may still be at sending.
    CloseLate,
    /// It is broken, and the client must see that.
    Cut,
    /// It is one of another protocol.
    Switch,
}

/// Reads on for a little while after the last answer: a socket that is closed with something unread, or that gets more,
/// resets the connection, and a reset takes from the client what of its answer it has not read yet (RFC 9112 section 9.6).
async fn linger(conn: &Conn, wire: &Wire) {
    // Where places are scarce, others have more need of this one.
    if conn.worker().overload().haste().is_some() {
        return;
    }
    let timers = conn.worker().timers();
    let (mut end, mut left) = (timers.after(LINGER), MAX_LINGER);
    loop {
        let mut silence = timers.after(LINGER_SILENT);
        let read = poll_fn(|cx| {
            if Pin::new(&mut end).poll(cx).is_ready() || Pin::new(&mut silence).poll(cx).is_ready() {
                return Poll::Ready(0);
            }
            wire.poll_unwanted(cx)
        });
        match read.await {
            length @ 1.. if length < left => left -= length,
            _ => return,
        }
    }
}

/// Answers what is no request.
async fn refuse(conn: &Conn, wire: &Wire, refused: Refused) -> After {
    let status = match refused {
        Refused::Malformed(reason) => {
            tracing::debug!(client = %conn.peer().address, reason, "malformed HTTP/1.1");
            StatusCode::BAD_REQUEST
        }
        Refused::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refused::TargetTooLong => StatusCode::URI_TOO_LONG,
        // Whoever speaks something else does not understand an answer.
        Refused::Foreign => return After::Cut,
    };
    conn.count_unparsed(status);
    wire.answer(|outbox| {
        write_response_head(status, &HeaderMap::new(), Length::Known(0), true, outbox.next())
    });
    let written = poll_fn(|cx| {
        let written = wire.poll_write(cx);
        if written.is_pending() {
            conn.waits(cx);
        }
        written
    });
    match written.await {
        Ok(()) => After::CloseLate,
        Err(_) => After::Cut,
    }
}

/// What of a request its answer is written by.
#[derive(Debug, Clone, Copy)]
struct Asked {
    is_head: bool,
    keeps_alive: bool,
    takes_trailers: bool,
}

/// Answers a request.
async fn answer(conn: &Rc<Conn>, wire: &Rc<Wire>, head: RequestHead) -> After {
    let asked = Asked {
        is_head: head.parts.method == Method::HEAD,
        keeps_alive: head.keeps_alive(),
        takes_trailers: head.framing.takes_trailers(),
    };
    let body = wire.begin(&head).map_or(Incoming::Empty, Incoming::Http1);
    let record = Record::begin(conn);
    conn.asks_for(head.follows == Follows::Undecided, !asked.keeps_alive);
    let response = {
        let mut response = pin!(exchange::serve(conn, head.parts, body, record));
        poll_fn(|cx| unless_gone(conn, wire, cx, |cx| response.as_mut().poll(cx))).await
    };
    match response {
        Some(response) => send(conn, wire, asked, response).await,
        None => After::Cut,
    }
}

/// Polls what is done for a client; `None` when the client is gone, or has to go.
fn unless_gone<T>(
    conn: &Conn,
    wire: &Wire,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<Option<T>> {
    if conn.check_aborted().is_err() {
        return Poll::Ready(None);
    }
    if let Poll::Ready(done) = poll(cx) {
        return Poll::Ready(Some(done));
    }
    if wire.poll_gone(cx).is_ready() {
        return Poll::Ready(None);
    }
    conn.waits(cx);
    Poll::Pending
}

/// Sends an answer.
async fn send(conn: &Conn, wire: &Wire, asked: Asked, response: Response<ResponseBody>) -> After {
    let (head, body) = response.into_parts();
    let length = length(asked, head.status, &body);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let is_last = !switches && (!asked.keeps_alive || wire.owes_interim());
    let says_close =
        wire.answer(|outbox| write_response_head(head.status, &head.headers, length, is_last, outbox.next()));
    let closes = is_last || (!switches && says_close);
    let mut sending = Sending::new(body, length, asked);
    spare::give_back(head.headers);
    let sent = poll_fn(|cx| unless_gone(conn, wire, cx, |cx| sending.poll(cx, wire))).await;
    match sent {
        Some(Ok(())) if switches => After::Switch,
        Some(Ok(())) => match poll_fn(|cx| Poll::Ready(wire.has_ended(cx))).await {
            // Who has not asked for the end may have sent further requests by now.
            true if closes && !asked.keeps_alive => After::Close,
            true if !closes => After::Next,
            true | false => After::CloseLate,
        },
        Some(Err(Broken)) | None => After::Cut,
    }
}

/// How the end of the body is told (RFC 9112 section 6.3). Where there is none, the head says what it would have been.
fn length(asked: Asked, status: StatusCode, body: &ResponseBody) -> Length {
    match body.size_hint().exact() {
        _ if has_no_body(asked.is_head, status) => Length::NoBody,
        Some(length) => Length::Known(length),
        None => Length::Chunked,
    }
}

/// The answer could not be finished.
#[derive(Debug)]
struct Broken;

/// The body of an answer on its way.
struct Sending {
    /// Dropped as soon as it has ended, with the account of the request.
    body: Option<ResponseBody>,
    left: Left,
    takes_trailers: bool,
}

/// What of a body is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// So many bytes.
    Bytes(u64),
    Chunks,
    /// Nothing but its end.
    End,
}

impl Sending {
    fn new(body: ResponseBody, length: Length, asked: Asked) -> Self {
        let left = match length {
            Length::Known(length @ 1..) => Left::Bytes(length),
            Length::Chunked => Left::Chunks,
            Length::Known(_) | Length::NoBody => Left::Nothing,
        };
        Self {
            body: (left != Left::Nothing).then_some(body),
            left,
            takes_trailers: asked.takes_trailers,
        }
    }

    /// Writes what is in the outbox and all of the body behind it.
    fn poll(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<Result<(), Broken>> {
        loop {
            // The first piece goes with the head.
            let piece = match wire.answer(|outbox| outbox.has_room()) {
                true => self.poll_piece(cx, wire)?,
                false => Poll::Ready(()),
            };
            ready!(wire.poll_write(cx)).map_err(|_| Broken)?;
            if self.left == Left::Nothing && wire.answer(|outbox| outbox.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            ready!(piece);
        }
    }

    /// Puts the next piece of the body into the outbox.
    fn poll_piece(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Result<Poll<()>, Broken> {
        let Some(body) = &mut self.body else {
            return Ok(Poll::Ready(()));
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        let frame = frame.transpose().map_err(|_| Broken)?;
        let has_ended = frame.is_none() || body.is_end_stream();
        wire.answer(|outbox| self.push(frame, has_ended, outbox))?;
        if self.left == Left::Nothing {
            self.body = None;
        }
        Ok(Poll::Ready(()))
    }

    /// `is_last` says that nothing follows.
    fn push(
        &mut self,
        frame: Option<Frame<Bytes>>,
        is_last: bool,
        outbox: &mut Outbox,
    ) -> Result<(), Broken> {
        match frame.map(Frame::into_data) {
            None => self.end(None, outbox)?,
            Some(Err(frame)) => self.end(frame.into_trailers().ok().as_ref(), outbox)?,
            Some(Ok(data)) => match self.left {
                Left::Chunks if is_last => {
                    outbox.push_final_chunk(data);
                    self.left = Left::Nothing;
                }
                Left::Chunks => outbox.push_chunk(data),
                Left::Bytes(left) => {
                    // No more than was told may be sent: the rest would be taken for another answer.
                    let left = left.checked_sub(data.len() as u64).ok_or(Broken)?;
                    outbox.push(data);
                    self.left = match (left, is_last) {
                        (0, true) => Left::Nothing,
                        (0, false) => Left::End,
                        (_, true) => return Err(Broken),
                        (left, false) => Left::Bytes(left),
                    };
                }
                Left::Nothing | Left::End if !data.is_empty() => return Err(Broken),
                Left::Nothing | Left::End if is_last => self.left = Left::Nothing,
                Left::Nothing | Left::End => {}
            },
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, outbox: &mut Outbox) -> Result<(), Broken> {
        match self.left {
            Left::Chunks => outbox.push_last_chunk(trailers.filter(|_| self.takes_trailers)),
            Left::Bytes(_) => return Err(Broken),
            Left::End | Left::Nothing => {}
        }
        self.left = Left::Nothing;
        Ok(())
    }
}
