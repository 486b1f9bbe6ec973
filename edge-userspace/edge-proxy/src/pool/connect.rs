//! New connections to an endpoint, by what is spoken on them.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use http::header::TE;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::checked::Checked;
use super::target::http2_request;
use crate::http::RequestBody;
use crate::protocol::Protocol;
use crate::serve::LocalExec;
use crate::strict::Expected;
use crate::tls::ClientTls;

/// Largest response head, as for request heads.
const MAX_HEAD: usize = 64 * 1024;

/// What an endpoint may send of one body, and of all bodies of a connection, ahead of the clients.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Requests that are put on one HTTP/2 connection before another is opened, unless the endpoint allows fewer.
const MAX_STREAMS: u32 = 100;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting failed: {0}")]
    Io(#[from] io::Error),
    #[error("connecting took longer than the cluster's connectTimeout")]
    Timeout,
    #[error("TLS to the cluster's endpoints cannot be had, see the log of the configuration")]
    NoTls,
    #[error("the connection was lost as it was opened: {0}")]
    Http(#[from] hyper::Error),
}

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(Exclusive),
    Http2(Shared),
}

/// A connection that one request at a time uses.
#[derive(Debug)]
pub(crate) struct Exclusive {
    sender: http1::SendRequest<RequestBody>,
    expected: Rc<Expected>,
}

/// A connection that several requests use at once.
#[derive(Debug)]
pub(crate) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    /// Handles of the connection, this one included.
    users: Rc<Cell<u32>>,
    /// Requests at once that the endpoint allows.
    limit: Rc<Cell<u32>>,
}

impl Sender {
    /// Sends a request and waits for the head of its response. An error holds the request if nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, TrySendError<http::Request<RequestBody>>> {
        match self {
            Self::Http1(exclusive) => {
                // A field of one hop, which servers of gRPC over HTTP/2 ask for and nobody else.
                request.headers_mut().remove(TE);
                exclusive.expected.no_body.set(*request.method() == Method::HEAD);
                exclusive.sender.try_send_request(request).await
            }
            Self::Http2(shared) => shared.sender.try_send_request(http2_request(request)).await,
        }
    }

    /// Whether no further request can go over it.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(exclusive) => exclusive.sender.is_closed(),
            Self::Http2(shared) => shared.sender.is_closed(),
        }
    }

    /// Waits until a request can be sent; fails at once for a connection that the endpoint has closed, as far as is
    /// known by now.
    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(exclusive) => exclusive.sender.ready().await,
            Self::Http2(shared) => shared.sender.ready().await,
        }
    }
}

impl Shared {
    /// One more handle, if the connection takes one more request now.
    pub(super) fn share(&self) -> Option<Self> {
        // The pool holds a handle of its own.
        let streams = self.users.get().saturating_sub(1);
        (streams < self.limit.get().min(MAX_STREAMS) && !self.sender.is_closed()).then(|| self.clone())
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
            limit: Rc::clone(&self.limit),
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
}

/// A stream to an endpoint, over TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug> Stream for S {}

/// Opens a connection.
pub(super) async fn connect(target: &Target, protocol: Protocol) -> Result<Sender, ConnectError> {
    let stream = tcp(target.address).await?;
    match &target.tls {
        None => speak(target.address, stream, protocol).await,
        Some(tls) => {
            let stream = shake_hands(tls.as_deref(), stream, Some(protocol)).await?;
            speak(target.address, stream, protocol).await
        }
    }
}

/// Opens a connection for bytes that are forwarded as they are.
pub(crate) async fn connect_bytes(target: &Target) -> Result<Box<dyn Stream>, ConnectError> {
    let stream = tcp(target.address).await?;
    Ok(match &target.tls {
        None => Box::new(stream),
        Some(tls) => Box::new(shake_hands(tls.as_deref(), stream, None).await?),
    })
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

async fn speak<S: Stream + 'static>(
    address: SocketAddr,
    stream: S,
    protocol: Protocol,
) -> Result<Sender, ConnectError> {
    match protocol {
        Protocol::Http1 => http1(address, stream).await,
        Protocol::Http2 => http2(address, stream).await,
    }
}

async fn http1<S: Stream + 'static>(address: SocketAddr, stream: S) -> Result<Sender, ConnectError> {
    let expected = Rc::new(Expected::default());
    let io = TokioIo::new(Checked::new(stream, Rc::clone(&expected)));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_header_size(MAX_HEAD);
    let (sender, connection) = builder.handshake(io).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to endpoint ended");
        }
    });
    Ok(Sender::Http1(Exclusive { sender, expected }))
}

async fn http2<S: Stream + 'static>(address: SocketAddr, stream: S) -> Result<Sender, ConnectError> {
    let io = TokioIo::new(stream);
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let (sender, mut connection) = builder.handshake(io).await?;
    let limit = Rc::new(Cell::new(MAX_STREAMS));
    let told = Rc::clone(&limit);
    tokio::task::spawn_local(async move {
        let driven = poll_fn(|cx| {
            let end = Pin::new(&mut connection).poll(cx);
            let allowed = u32::try_from(connection.current_max_send_streams());
            told.set(allowed.unwrap_or(u32::MAX));
            end
        });
        if let Err(error) = driven.await {
            tracing::debug!(%address, %error, "connection to endpoint ended");
        }
    });
    Ok(Sender::Http2(Shared {
        sender,
        users: Rc::new(Cell::new(1)),
        limit,
    }))
}
