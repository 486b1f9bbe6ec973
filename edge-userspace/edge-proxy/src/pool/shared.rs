//! A connection to an endpoint that speaks HTTP/2: many requests at once, driven by a task of its own.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use edge_upstream::circuit::Place;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::heard::Heard;
use super::link::{SendError, is_reset_here};
use super::target::{http2_request, http2_websocket};
use super::{ConnectError, EndpointBody, EndpointStream, Limits};
use crate::h1::MAX_HEAD;
use crate::http::{RequestBody, RequestBodyError};
use crate::server::LocalExec;

/// What an endpoint may send of one body, and of all bodies of a connection, ahead of the clients.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Requests that are put on one HTTP/2 connection before another is opened, unless the endpoint allows fewer.
const MAX_STREAMS: u32 = 100;

/// How long an endpoint of HTTP/2 has for its first SETTINGS, where a request depends on them.
const SETTINGS_COME: Duration = Duration::from_secs(1);

/// The driving side of a connection of HTTP/2.
type Connection = http2::Connection<TokioIo<Heard>, RequestBody, LocalExec>;

/// A connection that several requests use at once.
#[derive(Debug)]
pub(crate) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    /// Handles of the connection, this one included.
    users: Rc<Cell<u32>>,
    settings: Rc<Settings>,
    opened: Instant,
    /// The gateway's own address on it.
    local: Option<Rc<str>>,
    /// Requests that were sent over it.
    requests: Rc<Cell<u32>>,
}

/// What the endpoint has told of itself by SETTINGS (RFC 9113 section 6.5), as of the last look.
#[derive(Debug)]
struct Settings {
    /// Requests at once that it allows.
    streams: Cell<u32>,
    /// Whether it takes extended CONNECT (RFC 8441 section 3).
    takes_connect: Cell<bool>,
    /// The task that looks. It is woken by requests, and not by SETTINGS.
    task: RefCell<Option<Waker>>,
    /// Told when the endpoint has sent something.
    heard: Rc<Notify>,
}

impl Settings {
    fn look(&self, connection: &Connection, cx: &Context<'_>) {
        let allowed = u32::try_from(connection.current_max_send_streams());
        self.streams.set(allowed.unwrap_or(u32::MAX));
        self.takes_connect
            .set(connection.is_extended_connect_protocol_enabled());
        let mut task = self.task.borrow_mut();
        if task.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Has the task look again.
    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

impl Shared {
    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<EndpointBody>, SendError> {
        self.requests.set(self.requests.get().saturating_add(1));
        if request.headers().contains_key(UPGRADE) {
            return Box::pin(self.ask_for_websocket(request)).await;
        }
        let sent = self.sender.try_send_request(http2_request(request)).await;
        sent.map(|response| response.map(EndpointBody::Http2))
            .map_err(http2_error)
    }

    /// Whether the endpoint takes extended CONNECT, which may be asked for only once it has said so (RFC 8441 section 3).
    /// On a connection that was just opened it may not have said anything yet.
    async fn takes_connect(&self) -> bool {
        let settings = &self.settings;
        let end = tokio::time::Instant::from_std(self.opened + SETTINGS_COME);
        // Nobody is told who holds no handle.
        let told = Rc::clone(&settings.heard);
        loop {
            let mut heard = pin!(told.notified());
            // From here on nothing is missed.
            heard.as_mut().enable();
            settings.wake();
            tokio::task::yield_now().await;
            let is_known = settings.takes_connect.get() || self.sender.is_closed();
            if is_known
                || tokio::time::Instant::now() >= end
                || tokio::time::timeout_at(end, heard).await.is_err()
            {
                return settings.takes_connect.get();
            }
        }
    }

    /// Asks for a WebSocket by extended CONNECT (RFC 8441 section 5). An endpoint that agrees answers with 200, which is
    /// given the form of HTTP/1.1; any other answer is as it is. One that does not know extended CONNECT is not asked, and
    /// is taken for one that resets the stream, as it would have to.
    async fn ask_for_websocket(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<EndpointBody>, SendError> {
        if !self.takes_connect().await {
            return Err(SendError::NoConnect);
        }
        let sent = self
            .sender
            .try_send_request(http2_websocket(http2_request(request)))
            .await;
        let mut response = sent.map_err(http2_error)?;
        if response.status() != StatusCode::OK {
            return Ok(response.map(EndpointBody::Http2));
        }
        let upgrade = hyper::upgrade::on(&mut response);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        Ok(response.map(|_| EndpointBody::Http2Tunnel(upgrade)))
    }

    /// One more handle, if the connection takes one more request now.
    pub(super) fn share(&self, most: u32) -> Option<Self> {
        // The pool holds a handle of its own.
        let streams = self.users.get().saturating_sub(1);
        let most = self.settings.streams.get().min(MAX_STREAMS).min(most);
        (streams < most && !self.sender.is_closed()).then(|| self.clone())
    }

    /// The gateway's own address on it.
    pub(super) fn local(&self) -> Option<Rc<str>> {
        self.local.clone()
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Whether the connection is closed, or is old and carries no request.
    pub(super) fn is_unneeded(&self, old: bool) -> bool {
        self.sender.is_closed() || (old && self.users.get() <= 1)
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        self.users.set(self.users.get() + 1);
        Self {
            sender: self.sender.clone(),
            users: Rc::clone(&self.users),
            settings: Rc::clone(&self.settings),
            opened: self.opened,
            local: self.local.clone(),
            requests: Rc::clone(&self.requests),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.users.set(self.users.get().saturating_sub(1));
    }
}

fn http2_error(mut error: TrySendError<Request<RequestBody>>) -> SendError {
    let unsent = error.take_message().is_some();
    let error = error.into_error();
    if error.is_parse() {
        return SendError::Malformed("a response of HTTP/2");
    }
    let source = std::error::Error::source(&error);
    if source.is_some_and(|own| own.is::<RequestBodyError>()) {
        return SendError::Body(RequestBodyError::Broken);
    }
    let cause = source.and_then(|own| own.downcast_ref::<h2::Error>());
    if let Some(cause) = cause.filter(|cause| cause.is_library() && cause.reason().is_some()) {
        return match is_reset_here(cause) {
            true => SendError::ResetHere,
            false => SendError::Malformed("frames of HTTP/2"),
        };
    }
    if let Some(cause) = cause.filter(|cause| cause.is_remote()) {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        // Of a connection that goes away, only streams end that it has not taken.
        if refused || cause.is_go_away() {
            return SendError::Refused;
        }
        if cause.is_reset() {
            return SendError::Reset;
        }
    }
    match (unsent, error.is_user()) {
        (true, _) => SendError::Unsent,
        (false, true) => SendError::Body(RequestBodyError::Broken),
        (false, false) => SendError::Closed,
    }
}

/// Begins to speak HTTP/2 on a stream that was opened. `place` is held until the connection is closed.
pub(super) async fn begin(
    address: SocketAddr,
    stream: EndpointStream,
    limits: &Limits,
    place: Place,
) -> Result<Shared, ConnectError> {
    let local = stream.local();
    let heard = Rc::new(Notify::new());
    let io = TokioIo::new(Heard::new(stream, Rc::clone(&heard)));
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    if let Some(keepalive) = limits.http2_keepalive() {
        builder
            .timer(TokioTimer::new())
            .keep_alive_while_idle(true)
            .keep_alive_interval(keepalive.interval)
            .keep_alive_timeout(keepalive.timeout);
    }
    let (sender, mut connection) = builder.handshake(io).await?;
    let settings = Rc::new(Settings {
        streams: Cell::new(MAX_STREAMS),
        takes_connect: Cell::new(false),
        task: RefCell::default(),
        heard,
    });
    let told = Rc::clone(&settings);
    tokio::task::spawn_local(async move {
        let _place = place;
        let driven = poll_fn(|cx| {
            let end = Pin::new(&mut connection).poll(cx);
            told.look(&connection, cx);
            end
        });
        if let Err(error) = driven.await {
            tracing::debug!(%address, %error, "connection to endpoint ended");
        }
    });
    Ok(Shared {
        sender,
        users: Rc::new(Cell::new(1)),
        settings,
        opened: Instant::now(),
        local,
        requests: Rc::default(),
    })
}
