//! From a listening socket to connections.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_model::{ListenAddress, TcpRoute};
use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

use super::{Registered, Worker};
use crate::config::ListenerConfig;
use crate::connection::Conn;
use crate::listener::refuse_new;
use crate::overload::Admitted;
use crate::protocol::Protocol;
use crate::proxy_protocol::{self, Origin};
use crate::server::{ClientStream, Served, serve};
use crate::sniff::{Ahead, ahead, first_bytes, readable};
use crate::tls::Handshake;
use crate::{client_hello, tcp};

/// How long a closing socket waits for handshakes that had begun: a round trip over half of the world.
const HANDSHAKES_END: Duration = Duration::from_millis(250);

/// Pause after an accept failed for want of descriptors or memory: others have to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause between two lines of the log about accepts that fail.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// A port of one worker.
pub(super) struct Port {
    pub(super) worker: Rc<Worker>,
    pub(super) address: Rc<ListenAddress>,
    pub(super) listener: TcpListener,
    /// What the port last spoke; it outlives its configuration until the queue is empty.
    pub(super) config: Arc<ListenerConfig>,
    /// When it was last said that connections cannot be accepted.
    pub(super) starved: Option<Instant>,
    /// When idle connections to endpoints were last closed, because their files were wanted.
    pub(super) made_room: Option<Instant>,
}

impl Port {
    /// Accepts until `stop`, and then what is still in the kernel's queue.
    pub(super) async fn run(mut self, stop: oneshot::Receiver<()>) {
        let mut stop = stop.fuse();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = self.accept() => {}
            }
        }
        if let Err(error) = refuse_new(&self.listener) {
            tracing::warn!(address = %self.address, %error, "cannot filter the socket; connections may be lost as it closes");
        }
        let handshakes_end = tokio::time::sleep(HANDSHAKES_END);
        tokio::pin!(handshakes_end);
        loop {
            tokio::select! {
                biased;
                () = self.accept() => {}
                () = &mut handshakes_end => break,
            }
        }
    }

    async fn accept(&mut self) {
        match self.listener.accept().await {
            Ok((stream, peer)) => self.start(stream, peer),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => self.starved(&error).await,
        }
    }

    /// Descriptors or memory have run out. The connection stays in the kernel's queue while others end; idle ones to
    /// endpoints are closed for it.
    async fn starved(&mut self, error: &std::io::Error) {
        let reason = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "descriptors",
            Some(libc::ENOMEM | libc::ENOBUFS) => "memory",
            _ => "other",
        };
        self.worker.overload().accept_failed(reason);
        // One line for all attempts of some seconds.
        if self.starved.is_none_or(|last| last.elapsed() >= WARN_PAUSE) {
            self.starved = Some(Instant::now());
            let hint = "raise the limit of open files (ulimit -n), or lower overload.maxConnections";
            tracing::warn!(address = %self.address, %error, hint, "cannot accept connections for now");
        }
        self.worker.close_idle_upstreams();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr) {
        let (overload, file) = (self.worker.overload(), stream.as_raw_fd());
        let is_due = |last: Instant| last.elapsed() >= ACCEPT_PAUSE;
        if overload.is_reserved(file) && self.made_room.is_none_or(is_due) {
            // Those who come next have what is idle.
            self.worker.close_idle_upstreams();
            self.made_room = Some(Instant::now());
        }
        let Some(admitted) = overload.admit(file, || self.worker.crowd_out()) else {
            // Closed at once, unread: to answer would cost what is scarce.
            return;
        };
        if let Some(config) = self.worker.view().config().listener(*self.address) {
            self.config = Arc::clone(config);
        }
        let (worker, address, config) = (
            Rc::clone(&self.worker),
            Rc::clone(&self.address),
            Arc::clone(&self.config),
        );
        match worker.reads_proxy_header(address.port, peer.ip()) {
            true => {
                tokio::task::spawn_local(Box::pin(behind_proxy(
                    worker,
                    address,
                    config,
                    (stream, admitted),
                    peer,
                )));
            }
            false => begin(&worker, address, config, (stream, admitted), peer, None),
        }
    }
}

/// Begins a connection of a proxy in front by the client that it is passed on for.
async fn behind_proxy(
    worker: Rc<Worker>,
    address: Rc<ListenAddress>,
    config: Arc<ListenerConfig>,
    (mut stream, admitted): (TcpStream, Admitted),
    peer: SocketAddr,
) {
    let limit = worker.timeouts().header;
    let read = tokio::time::timeout(limit, proxy_protocol::read(&mut stream)).await;
    let (client, local) = match read {
        Ok(Ok(Origin::Local)) => (peer, None),
        Ok(Ok(Origin::Client { source, destination })) => (source, Some(destination)),
        Ok(Err(error)) => {
            tracing::debug!(proxy = %peer, %error, "no connection without a PROXY header");
            return worker.metrics().connection_cut("proxy protocol");
        }
        Err(_) => return worker.metrics().connection_cut("proxy protocol"),
    };
    begin(&worker, address, config, (stream, admitted), client, local);
}

/// Begins a client's connection. `local` is what the client connected to, where that is not this socket.
fn begin(
    worker: &Rc<Worker>,
    address: Rc<ListenAddress>,
    config: Arc<ListenerConfig>,
    (stream, admitted): (TcpStream, Admitted),
    peer: SocketAddr,
    local: Option<SocketAddr>,
) {
    let view = worker.view();
    let conn = Conn::new(Rc::clone(worker), address, peer, &config);
    if worker.needs_addresses()
        && let Some(local) = local.or_else(|| stream.local_addr().ok())
    {
        conn.between(peer, local);
    }
    match &*config {
        ListenerConfig::Http(table) => {
            conn.starts_with(&view, table);
            tokio::task::spawn_local(plain(worker.register(conn, admitted), stream));
        }
        ListenerConfig::Https { .. } => {
            tokio::task::spawn_local(tls(worker.register(conn, admitted), stream, Arc::clone(&config)));
        }
        ListenerConfig::Tcp(route) => {
            let (registered, route) = (worker.register(conn, admitted), Arc::clone(route));
            tokio::task::spawn_local(async move { tcp::forward(&registered.conn, stream, &route).await });
        }
    }
}

/// Errors of a connection that was gone before it was accepted (accept(2)): the next one is not concerned.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::EHOSTUNREACH
        )
    )
}

fn plain(registered: Registered, stream: TcpStream) -> impl Future<Output = ()> {
    wait(registered, ClientStream::Plain(stream), true)
}

async fn tls(registered: Registered, stream: TcpStream, config: Arc<ListenerConfig>) {
    let conn = &registered.conn;
    let Some(stream) = Box::pin(secured(conn, stream, config)).await else {
        return;
    };
    if let Served::Parked(stream) = Box::pin(served(conn, ClientStream::Tls(stream), None)).await {
        wait(registered, stream, false).await;
    }
}

/// Serves a connection each time that bytes have come, until its end.
///
/// What is done then is boxed, so that a connection that waits for its first or next byte is no larger than its wait: its
/// task takes 256 bytes (a test holds it to that), where it took 512.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn has room for its arguments twice"
)]
fn wait(registered: Registered, mut stream: ClientStream, mut is_new: bool) -> impl Future<Output = ()> {
    async move {
        loop {
            let conn = &registered.conn;
            let first = if std::mem::take(&mut is_new) {
                let first = ahead(conn, stream.tcp()).await;
                if first.is_none() {
                    return;
                }
                first
            } else if readable(conn, stream.tcp()).await {
                None
            } else {
                return;
            };
            match Box::pin(served(conn, stream, first)).await {
                Served::Parked(parked) => stream = parked,
                Served::Ended => return,
            }
        }
    }
}

/// Serves a connection until its end, or until it is parked. One that begins with `first` may speak HTTP/2 without having
/// said so.
async fn served(conn: &Rc<Conn>, stream: ClientStream, first: Option<Ahead>) -> Served {
    let mut prefix = Bytes::new();
    if let Some(first) = first {
        let Some((protocol, begin)) = first_bytes(conn, stream.tcp(), first).await else {
            return Served::Ended;
        };
        conn.speaks(protocol);
        prefix = begin;
    }
    serve(Rc::clone(conn), stream, prefix).await
}

/// Shakes hands. Answers the stream where HTTP is spoken inside; forwards the bytes where it is not.
async fn secured(
    conn: &Rc<Conn>,
    stream: TcpStream,
    config: Arc<ListenerConfig>,
) -> Option<Box<TlsStream<TcpStream>>> {
    let worker = conn.worker();
    let limit = worker.timeouts().handshake;
    let handshake = Box::pin(handshake(conn, stream, &config));
    let result = tokio::select! {
        result = tokio::time::timeout(limit, handshake) => result,
        () = conn.cut() => return None,
    };
    match result.unwrap_or(Err(HandshakeError::Timeout)) {
        Ok(Secured::Http(stream)) => {
            conn.speaks(match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(_) | None => Protocol::Http1,
            });
            conn.may_be_parked();
            return Some(stream);
        }
        Ok(Secured::Bytes(stream, route)) => Box::pin(tcp::forward(conn, stream, &route)).await,
        Ok(Secured::Passed(stream, route)) => Box::pin(tcp::forward(conn, stream, &route)).await,
        Err(error) => {
            worker.metrics().handshake_failed(error.reason());
            tracing::debug!(client = %conn.peer().address, %error, "TLS handshake failed");
        }
    }
    None
}

/// What a connection to a port with TLS is, once its first flight was seen.
enum Secured {
    /// TLS ends here, with HTTP inside.
    Http(Box<TlsStream<TcpStream>>),
    /// TLS ends here, with bytes inside.
    Bytes(Box<TlsStream<TcpStream>>, Arc<TcpRoute>),
    /// TLS passes through.
    Passed(TcpStream, Arc<TcpRoute>),
}

/// Why a handshake did not end in a connection.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("it took too long")]
    Timeout,
    #[error("no server takes the name {0:?}")]
    UnknownName(Option<String>),
    #[error("the server of the name {0:?} has no usable certificate")]
    NoCertificate(Option<String>),
    #[error("{0}")]
    Tls(std::io::Error),
}

impl HandshakeError {
    /// Name in metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::UnknownName(_) => "unknown_name",
            Self::NoCertificate(_) => "no_certificate",
            Self::Tls(_) => "tls",
        }
    }
}

/// Picks the server by the client's SNI and shakes hands. Without a server the connection is closed, and no certificate
/// is shown (Envoy: no filter chain matches).
async fn handshake(
    conn: &Conn,
    stream: TcpStream,
    config: &ListenerConfig,
) -> Result<Secured, HandshakeError> {
    if config.passes_through() {
        let name = client_hello::server_name(&stream)
            .await
            .map_err(HandshakeError::Tls)?;
        match config.tls_endpoint(name.as_deref()) {
            None => return Err(HandshakeError::UnknownName(name)),
            Some((_, endpoint)) => {
                if let Some(route) = endpoint.tcp_route().filter(|_| endpoint.passes_through()) {
                    conn.shook_hands(Handshake::begun(name.as_deref()));
                    return Ok(Secured::Passed(stream, Arc::clone(route)));
                }
            }
        }
    }
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let start = acceptor.await.map_err(HandshakeError::Tls)?;
    let name = start.client_hello().server_name().map(str::to_owned);
    let Some((_, endpoint)) = config.tls_endpoint(name.as_deref()) else {
        return Err(HandshakeError::UnknownName(name));
    };
    let Some(server) = &endpoint.handshake else {
        return Err(HandshakeError::NoCertificate(name));
    };
    let stream = start
        .into_stream(Arc::clone(server))
        .await
        .map_err(HandshakeError::Tls)?;
    conn.shook_hands(Handshake::ended(name.as_deref(), stream.get_ref().1));
    let stream = Box::new(stream);
    if let Some(route) = endpoint.tcp_route() {
        return Ok(Secured::Bytes(stream, Arc::clone(route)));
    }
    conn.secured(&conn.worker().view(), &endpoint.table);
    Ok(Secured::Http(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_is_small() {
        let size = size_of_future(plain);
        // The rest of 256 bytes is what tokio has in each task, which it aligns to 128.
        assert!(size <= 144, "{size}");
    }
}
