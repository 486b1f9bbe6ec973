//! A connection to an endpoint that speaks HTTP/1.1: one request at a time, driven by the task that waits for its answer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use edge_upstream::circuit::Place;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::EndpointStream;
use super::upload::{Upload, UploadError};
use crate::h1::{Decoded, Decoder, Outbox, ResponseHead, parse_response, poll_read};
use crate::http::{RequestBody, RequestBodyError};
use crate::strict::Follows;

/// Interim responses that are skipped before the final one; nobody sends more than a few.
const MAX_INTERIM: u32 = 32;

/// What the request means for its response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// It is HEAD: there is no body, whatever the fields say.
    pub(crate) no_body: bool,
    /// It asks for another protocol, so that 101 is an answer.
    pub(crate) upgrade: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the connection was closed before any byte of the request was written")]
    Unsent,
    #[error("the connection was closed without a byte of a response")]
    Closed,
    #[error("the connection was closed within the head of a response")]
    Cut,
    /// The endpoint has not acted on the request (RFC 9113 section 8.7).
    #[error("the endpoint refused the stream")]
    Refused,
    #[error("the endpoint reset the stream")]
    Reset,
    #[error("the stream was reset for what the endpoint did")]
    ResetHere,
    /// It was not asked.
    #[error("the endpoint does not take extended CONNECT")]
    NoConnect,
    #[error("the response is malformed: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Body(RequestBodyError),
}

/// Why the body of a response broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Http2(#[from] hyper::Error),
    /// The parser takes NO_ERROR for an end in order, which is one only behind END_STREAM.
    #[error("the stream was ended without an error, and without its end")]
    Unfinished,
}

/// The next frame of a body of HTTP/2. One that ends without END_STREAM breaks off, whatever code it ends with: what of it
/// is missing, nobody can tell.
pub(crate) fn poll_http2(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
    Poll::Ready(match ready!(Pin::new(&mut *body).poll_frame(cx)) {
        None if !body.is_end_stream() => Some(Err(BodyFault::Unfinished)),
        frame => frame.map(|frame| frame.map_err(BodyFault::from)),
    })
}

/// Whose doing it is that a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The connection ended.
    Ended,
    /// The endpoint reset the stream.
    Reset,
    /// The parser reset the stream, for what the endpoint did to it.
    ResetHere,
    /// What came is not what the protocol allows.
    Malformed,
}

/// Whether the parser has reset a stream, for another reason than that what came is malformed.
pub(super) fn is_reset_here(error: &h2::Error) -> bool {
    error.is_library() && error.is_reset() && error.reason() != Some(h2::Reason::PROTOCOL_ERROR)
}

impl BodyFault {
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Io(_) => Cause::Ended,
            Self::Malformed(_) => Cause::Malformed,
            Self::Unfinished => Cause::Reset,
            Self::Http2(error) => {
                let source = std::error::Error::source(error);
                match source.and_then(|source| source.downcast_ref::<h2::Error>()) {
                    Some(error) if error.is_reset() && error.is_remote() => Cause::Reset,
                    Some(error) if is_reset_here(error) => Cause::ResetHere,
                    // The parser's own word: of GOAWAY or RST_STREAM that it sends for what came.
                    Some(error) if error.is_library() && error.reason().is_some() => Cause::Malformed,
                    Some(_) | None => Cause::Ended,
                }
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: RefCell<EndpointStream>,
    /// What was read and is not used up.
    buffer: RefCell<BytesMut>,
    outbox: RefCell<Outbox>,
    /// The last exchange has ended on both sides, and another one may follow.
    reusable: Cell<bool>,
    /// A request's body is not yet sent to its end.
    uploading: Cell<bool>,
    opened: Instant,
    /// The gateway's own address on it.
    local: Option<Rc<str>>,
    /// Requests that were sent over it.
    requests: Cell<u32>,
    /// Its place among the cluster's connections.
    _place: Place,
}

impl Link {
    pub(super) fn new(stream: EndpointStream, place: Place) -> Rc<Self> {
        Rc::new(Self {
            local: stream.local(),
            stream: RefCell::new(stream),
            buffer: RefCell::default(),
            outbox: RefCell::default(),
            reusable: Cell::new(true),
            uploading: Cell::new(false),
            opened: Instant::now(),
            requests: Cell::new(0),
            _place: place,
        })
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn local(&self) -> Option<Rc<str>> {
        self.local.clone()
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Whether another request can go over it.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable.get() && !self.uploading.get() && self.buffer.borrow().is_empty()
    }

    /// Whether the endpoint has neither closed it nor sent anything, as far as is known; `sure` asks the kernel.
    pub(super) fn is_quiet(&self, sure: bool) -> bool {
        let mut stream = self.stream.borrow_mut();
        match sure {
            true => stream.is_quiet(),
            false => stream.seems_quiet(),
        }
    }

    /// Sends a request, whose head `write_head` writes, and waits for the head of its response. The rest of a body that
    /// the endpoint did not wait for is sent while the response is read.
    pub(crate) async fn exchange(
        self: &Rc<Self>,
        asked: Asked,
        write_head: impl FnOnce(&RequestBody, &mut Vec<u8>),
        body: RequestBody,
    ) -> Result<Response<LinkBody>, SendError> {
        self.reusable.set(false);
        self.uploading.set(true);
        self.requests.set(self.requests.get().saturating_add(1));
        write_head(&body, self.outbox.borrow_mut().begin());
        let mut upload = Upload::new(body);
        let mut interim = 0;
        let (head, follows) = poll_fn(|cx| self.poll_exchange(cx, asked, &mut upload, &mut interim)).await?;
        let upload = match self.uploading.get() && !upload.is_broken() {
            true => Some(self.go_on(upload)),
            false => None,
        };
        let switched = head.status.as_u16() == 101;
        let body = LinkBody {
            link: Rc::clone(self),
            decoder: Decoder::after(follows),
            keeps_alive: head.keeps_alive() && follows != Follows::Anything,
            switched,
            _upload: upload,
        };
        body.note_end();
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    fn poll_exchange(
        &self,
        cx: &mut Context<'_>,
        asked: Asked,
        upload: &mut Upload,
        interim: &mut u32,
    ) -> Poll<Result<(ResponseHead, Follows), SendError>> {
        if self.uploading.get() && !upload.is_broken() {
            match self.poll_upload(cx, upload) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(UploadError::Body(error))) => {
                    return Poll::Ready(Err(SendError::Body(error)));
                }
                Poll::Ready(Err(UploadError::Io(_))) if self.outbox.borrow().written() == 0 => {
                    return Poll::Ready(Err(SendError::Unsent));
                }
                // An endpoint that takes no more may have said why.
                Poll::Ready(Err(UploadError::Io(_))) => {}
            }
        }
        self.poll_head(cx, asked, interim)
    }

    /// The final response's head.
    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        asked: Asked,
        interim: &mut u32,
    ) -> Poll<Result<(ResponseHead, Follows), SendError>> {
        let mut buffer = self.buffer.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        loop {
            let seen = buffer.len();
            match poll_read(&mut *stream, cx, &mut buffer, 0) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => {
                    return Poll::Ready(Err(match seen > 0 || *interim > 0 {
                        true => SendError::Cut,
                        false => SendError::Closed,
                    }));
                }
            }
            match next_head(&mut buffer, seen, asked, interim) {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Err(reason) => {
                    tracing::debug!(reason, "malformed HTTP/1.1 of an endpoint");
                    return Poll::Ready(Err(SendError::Malformed(reason)));
                }
            }
        }
    }

    pub(super) fn poll_upload(
        &self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
    ) -> Poll<Result<(), UploadError>> {
        let mut stream = self.stream.borrow_mut();
        ready!(upload.poll(cx, &mut self.outbox.borrow_mut(), &mut *stream))?;
        self.uploading.set(false);
        Poll::Ready(Ok(()))
    }

    /// Sends the rest of a body while others read the response.
    fn go_on(self: &Rc<Self>, mut upload: Upload) -> EndsOnDrop {
        let link = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let result = poll_fn(|cx| link.poll_upload(cx, &mut upload)).await;
            if let Err(error) = result {
                tracing::debug!(%error, "the rest of a request's body was not sent");
            }
        });
        EndsOnDrop(task.abort_handle())
    }
}

/// Takes heads from `buffer` until it is the final one's; `None` while that has not come.
fn next_head(
    buffer: &mut BytesMut,
    mut seen: usize,
    asked: Asked,
    interim: &mut u32,
) -> Result<Option<(ResponseHead, Follows)>, &'static str> {
    while let Some(head) = parse_response(buffer, seen)? {
        let follows = head.follows(asked.no_body, asked.upgrade)?;
        // Interim responses are for the connection that they come over: the gateway itself answers 100-continue.
        if !head.status.is_informational() || head.status.as_u16() == 101 {
            return Ok(Some((head, follows)));
        }
        *interim += 1;
        if *interim > MAX_INTERIM {
            return Err("too many interim responses");
        }
        if buffer.is_empty() {
            return Ok(None);
        }
        seen = 0;
    }
    Ok(None)
}

/// Ends a task with whom it works for.
#[derive(Debug)]
struct EndsOnDrop(AbortHandle);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct LinkBody {
    link: Rc<Link>,
    decoder: Decoder,
    keeps_alive: bool,
    /// The response was 101: what follows is of another protocol.
    switched: bool,
    _upload: Option<EndsOnDrop>,
}

impl LinkBody {
    /// The connection as a stream of bytes, after the endpoint has agreed to another protocol (101).
    pub(crate) fn into_upgraded(self) -> Option<Upgraded> {
        self.switched.then(|| Upgraded(Rc::clone(&self.link)))
    }

    fn note_end(&self) {
        if self.decoder.is_done() {
            self.link.reusable.set(self.keeps_alive);
        }
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, BodyFault>> {
        let mut buffer = self.link.buffer.borrow_mut();
        loop {
            let decoded = self.decoder.decode(&mut buffer).map_err(BodyFault::Malformed)?;
            if !matches!(decoded, Decoded::More) {
                return Poll::Ready(Ok(decoded));
            }
            let expected = self.decoder.left().0;
            let mut stream = self.link.stream.borrow_mut();
            if ready!(poll_read(&mut *stream, cx, &mut buffer, expected))? == 0 {
                let is_cut = |reason| io::Error::new(io::ErrorKind::UnexpectedEof, reason);
                self.decoder.ended().map_err(is_cut)?;
            }
        }
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let decoded = ready!(self.poll_decoded(cx));
        self.note_end();
        Poll::Ready(match decoded {
            Ok(Decoded::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Decoded::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
            Ok(Decoded::End | Decoded::More) => None,
            Err(fault) => Some(Err(fault)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.left().1 {
            Some(exact) => SizeHint::with_exact(exact),
            None => SizeHint::default(),
        }
    }
}

/// A connection whose endpoint has switched to another protocol: what it sent behind its answer comes first.
#[derive(Debug)]
pub(crate) struct Upgraded(Rc<Link>);

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ahead = self.0.buffer.borrow_mut();
        if ahead.is_empty() {
            return Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf);
        }
        let length = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..length]);
        ahead.advance(length);
        if ahead.is_empty() {
            *ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
