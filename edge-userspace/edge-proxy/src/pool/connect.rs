//! New connections to an endpoint, by what is spoken on them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_model::ProxyProtocolVersion;
use edge_upstream::circuit::Place;
use http::header::{CONNECTION, TE, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::heard::Heard;
use super::link::{Asked, BodyFault, Link, LinkBody, SendError, is_reset_here, poll_http2};
use super::target::{http2_request, http2_websocket};
use super::{EndpointStream, Limits};
use crate::connection::Conn;
use crate::h1::{MAX_HEAD, push_field};
use crate::http::{RequestBody, RequestBodyError};
use crate::protocol::Protocol;
use crate::proxy_protocol;
use crate::server::LocalExec;
use crate::tls::ClientTls;

/// What an endpoint may send of one body, and of all bodies of a connection, ahead of the clients.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Requests that are put on one HTTP/2 connection before another is opened, unless the endpoint allows fewer.
const MAX_STREAMS: u32 = 100;

/// How long an endpoint of HTTP/2 has for its first SETTINGS, where a request depends on them.
const SETTINGS_COME: Duration = Duration::from_secs(1);

/// The driving side of a connection of HTTP/2.
type Connection = http2::Connection<TokioIo<Heard>, RequestBody, LocalExec>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting failed: {0}")]
    Io(#[from] io::Error),
    #[error("connecting took longer than the cluster's connectTimeout")]
    Timeout,
    #[error("the cluster has as many connections, and requests waiting for one, as it may")]
    Overflow,
    #[error("TLS to the cluster's endpoints cannot be had, see the log of the configuration")]
    NoTls,
    #[error("the connection was lost as it was opened: {0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// What the transport says of it, as Envoy writes it in one word (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`); `None` where no
    /// transport has failed.
    pub(crate) fn transport_failure(&self) -> Option<String> {
        let Self::Io(error) = self else { return None };
        let source = error.get_ref();
        let text = match source.and_then(|source| source.downcast_ref::<rustls::Error>()) {
            Some(error) => format!("TLS_error:|{error}"),
            None => {
                let text = error.to_string();
                let reason = text
                    .split_once(" (os error")
                    .map_or(text.as_str(), |(reason, _)| reason);
                format!("delayed_connect_error:_{reason}")
            }
        };
        Some(text.replace(char::is_whitespace, "_"))
    }
}

/// A connection, or a share of one.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(Rc<Link>),
    Http2(Shared),
}

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

impl Sender {
    /// The gateway's own address on it.
    pub(super) fn local(&self) -> Option<Rc<str>> {
        match self {
            Self::Http1(link) => link.local(),
            Self::Http2(shared) => shared.local.clone(),
        }
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<EndpointBody>, SendError> {
        match self {
            Self::Http1(link) => {
                // A field of one hop, which servers of gRPC over HTTP/2 ask for and nobody else.
                request.headers_mut().remove(TE);
                let (head, body) = request.into_parts();
                let asked = Asked {
                    no_body: head.method == Method::HEAD,
                    upgrade: head.headers.contains_key(UPGRADE),
                };
                let write_head = |_: &RequestBody, text: &mut Vec<u8>| write_head(&head, text);
                let response = link.exchange(asked, write_head, body).await?;
                Ok(response.map(EndpointBody::Http1))
            }
            Self::Http2(shared) => {
                shared.requests.set(shared.requests.get().saturating_add(1));
                if request.headers().contains_key(UPGRADE) {
                    return Box::pin(shared.ask_for_websocket(request)).await;
                }
                let sent = shared.sender.try_send_request(http2_request(request)).await;
                sent.map(|response| response.map(EndpointBody::Http2))
                    .map_err(http2_error)
            }
        }
    }
}

/// Writes a head as HTTP/1.1 has it. Its fields are all there, those for framing too.
pub(crate) fn write_head(head: &Parts, text: &mut Vec<u8>) {
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.extend_from_slice(b" ");
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    text.extend_from_slice(target.as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        push_field(text, name.as_str(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
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

/// The body of a response.
#[derive(Debug)]
pub(crate) enum EndpointBody {
    Http1(LinkBody),
    Http2(Incoming),
    /// None: the stream is one of another protocol from now on (RFC 8441).
    Http2Tunnel(OnUpgrade),
}

impl Body for EndpointBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => poll_http2(body, cx),
            Self::Http2Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Http2Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Http2Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl Shared {
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

/// Where a connection leads to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `Some(None)` when TLS is asked for and cannot be had.
    pub(crate) tls: Option<Option<Arc<ClientTls>>>,
    /// Header of the PROXY protocol that its connections begin with.
    pub(crate) announced: Option<Announced>,
}

/// Whose connection an endpoint is told that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) version: ProxyProtocolVersion,
    /// The client, and where it connected to; `None` for a connection of the gateway's own.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
}

impl Target {
    /// The same for connections that each belong to one client, where endpoints are told whose they are.
    pub(crate) fn on_behalf_of(&self, conn: &Conn) -> Self {
        let announced = self.announced.map(|announced| Announced {
            ends: Some(conn.ends()),
            ..announced
        });
        Self {
            announced,
            ..self.clone()
        }
    }
}

/// Opens a connection.
/// `place` is held until it is closed.
pub(super) async fn connect(
    target: &Target,
    protocol: Protocol,
    limits: &Limits,
    place: Place,
) -> Result<Sender, ConnectError> {
    let stream = open(target, Some(protocol), limits).await?;
    match protocol {
        Protocol::Http1 => Ok(Sender::Http1(Link::new(stream, place))),
        Protocol::Http2 => http2(target.address, stream, limits, place).await,
    }
}

/// Opens a connection for bytes that are forwarded as they are.
pub(crate) async fn connect_bytes(target: &Target, limits: &Limits) -> Result<EndpointStream, ConnectError> {
    open(target, None, limits).await
}

async fn open(
    target: &Target,
    protocol: Option<Protocol>,
    limits: &Limits,
) -> Result<EndpointStream, ConnectError> {
    let mut stream = tcp(target.address).await?;
    limits.keep_alive(&stream)?;
    if let Some(announced) = target.announced {
        announce(announced, &mut stream).await?;
    }
    Ok(match &target.tls {
        None => EndpointStream::Plain(stream),
        Some(tls) => EndpointStream::Tls(Box::new(shake_hands(tls.as_deref(), stream, protocol).await?)),
    })
}

/// Tells whose connection it is, in front of everything else: a handshake of TLS comes behind it (Envoy wraps the
/// transport socket of TLS into that of the PROXY protocol, too).
async fn announce(announced: Announced, stream: &mut TcpStream) -> io::Result<()> {
    let header = match announced.ends {
        Some((client, local)) => proxy_protocol::header(announced.version, client, local),
        None => proxy_protocol::header_of_own(announced.version, stream.local_addr()?, stream.peer_addr()?),
    };
    stream.write_all(&header).await
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn shake_hands(
    tls: Option<&ClientTls>,
    stream: TcpStream,
    protocol: Option<Protocol>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls = tls.ok_or(ConnectError::NoTls)?;
    let connector = TlsConnector::from(tls.config(protocol));
    Ok(connector.connect(tls.name(), stream).await?)
}

async fn http2(
    address: SocketAddr,
    stream: EndpointStream,
    limits: &Limits,
    place: Place,
) -> Result<Sender, ConnectError> {
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
    Ok(Sender::Http2(Shared {
        sender,
        users: Rc::new(Cell::new(1)),
        settings,
        opened: Instant::now(),
        local,
        requests: Rc::default(),
    }))
}
