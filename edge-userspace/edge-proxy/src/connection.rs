//! One client's connection: what it is doing, for how long it may, and the route table it sees.
//!
//! Timeouts are not timers of the connection's own, which would cost on every request. The connection notes what it
//! does and since when, and its worker looks over all connections from time to time, see [`Conn::sweep`].

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edge_routing::Table;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::ListenerConfig;
use crate::http::{Flag, Peer, Service};
use crate::io::Watched;
use crate::metrics::{Kind, Observed};
use crate::worker::{View, Worker};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TLS handshake, which has a timer of its own.
    Handshake,
    /// Nothing has come from the client yet.
    Fresh,
    /// A part of a request head is there.
    Head,
    /// A request is being answered.
    Busy,
    /// The last response is out, and nothing came since.
    Idle,
}

/// A connection of a client, from accept to close.
pub(crate) struct Conn {
    worker: Rc<Worker>,
    port: u16,
    peer: Peer,
    /// Both ends, where the access log may ask for them.
    addresses: OnceCell<(SocketAddr, SocketAddr)>,
    /// Server name of the TLS handshake.
    sni: OnceCell<Box<str>>,
    /// Route table of the configuration with the given generation.
    table: RefCell<Option<(u64, Arc<Table>)>>,
    /// Its listener or TLS server is no longer configured.
    orphaned: Cell<bool>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// The client takes nothing, since the last write.
    write_pending: Cell<bool>,
    last_write: Cell<Instant>,
    close_when_idle: Cell<bool>,
    aborted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Conn {
    /// A connection that was just accepted on `port`.
    pub(crate) fn new(worker: Rc<Worker>, port: u16, address: IpAddr, listener: &ListenerConfig) -> Self {
        let (scheme, phase) = match listener {
            ListenerConfig::Http(_) => ("http", Phase::Fresh),
            ListenerConfig::Https { .. } => ("https", Phase::Handshake),
        };
        let now = worker.now();
        Self {
            worker,
            port,
            peer: Peer::new(address, scheme),
            addresses: OnceCell::new(),
            sni: OnceCell::new(),
            table: RefCell::default(),
            orphaned: Cell::new(false),
            phase: Cell::new(phase),
            since: Cell::new(now),
            write_pending: Cell::new(false),
            last_write: Cell::new(now),
            close_when_idle: Cell::new(false),
            aborted: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// Its worker.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// The client.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Notes both ends of the connection.
    pub(crate) fn between(&self, remote: SocketAddr, local: SocketAddr) {
        // Set once: a connection does not move.
        let _ = self.addresses.set((canonical(remote), canonical(local)));
    }

    /// The client's address and port.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.addresses.get().map(|(remote, _)| *remote)
    }

    /// Address and port that the client connected to.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.addresses.get().map(|(_, local)| *local)
    }

    /// Server name of the TLS handshake.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.sni.get().map(|name| &**name)
    }

    /// The TLS handshake is over; from here on the connection sees the table of the server that was chosen.
    pub(crate) fn shook_hands(&self, name: Option<&str>, view: &View, table: &Arc<Table>) {
        if let Some(name) = name {
            // Set once: there is one handshake.
            let _ = self.sni.set(name.into());
        }
        self.starts_with(view, table);
        self.enter(Phase::Fresh);
    }

    /// The table that requests see until the configuration changes.
    pub(crate) fn starts_with(&self, view: &View, table: &Arc<Table>) {
        *self.table.borrow_mut() = Some((view.config().generation, Arc::clone(table)));
    }

    /// The table for the next request. When the listener or TLS server is gone from the configuration, it is
    /// the last one it had, and the connection closes after the response.
    pub(crate) fn table(&self, view: &View) -> Option<Arc<Table>> {
        let generation = view.config().generation;
        let mut cached = self.table.borrow_mut();
        if cached.as_ref().is_none_or(|(of, _)| *of != generation) {
            match self.look_up(view) {
                Some(table) => *cached = Some((generation, table)),
                None => self.orphaned.set(true),
            }
        }
        cached.as_ref().map(|(_, table)| Arc::clone(table))
    }

    fn look_up(&self, view: &View) -> Option<Arc<Table>> {
        let listener = view.config().listener(self.port)?;
        match (&**listener, self.peer.scheme) {
            (ListenerConfig::Http(table), "http") => Some(Arc::clone(table)),
            (ListenerConfig::Https { .. }, "https") => {
                let endpoint = listener.tls_endpoint(self.sni.get().map(|name| &**name))?;
                Some(Arc::clone(&endpoint.table))
            }
            (ListenerConfig::Http(_) | ListenerConfig::Https { .. }, _) => None,
        }
    }

    /// Whether the next response is the connection's last.
    pub(crate) fn closes_after_response(&self) -> bool {
        self.orphaned.get() || self.worker.is_draining()
    }

    /// Whether a request is on it that would be lost if it were cut now.
    pub(crate) fn is_in_use(&self) -> bool {
        match self.phase.get() {
            Phase::Head | Phase::Busy => true,
            Phase::Handshake | Phase::Fresh | Phase::Idle => self.write_pending.get(),
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.worker.now());
    }

    /// hyper has parsed a request head.
    pub(crate) fn request_began(&self) {
        self.enter(Phase::Busy);
    }

    /// hyper could not parse a request head and has answered it by itself, most often with 400.
    fn count_unparsed(&self) {
        let (status, flags) = (
            StatusCode::BAD_REQUEST.as_u16(),
            Flag::DownstreamProtocolError.into(),
        );
        self.worker.unrouted().observe(
            self.worker.metrics(),
            (status, flags, Kind::Http),
            &Observed {
                took: Duration::ZERO,
                received: 0,
                sent: 0,
            },
        );
    }

    /// The response was handed to hyper, or will never be.
    pub(crate) fn request_ended(&self) {
        self.enter(Phase::Idle);
    }

    /// Bytes have come from the client.
    pub(crate) fn bytes_read(&self) {
        // It is not idle after all. If it was to be closed, the next response says so.
        if self.close_when_idle.take() {
            self.orphaned.set(true);
        }
        match self.phase.get() {
            Phase::Fresh | Phase::Idle => self.enter(Phase::Head),
            Phase::Handshake | Phase::Head | Phase::Busy => {}
        }
    }

    /// A write went through, or must wait for the client to take what is on its way.
    pub(crate) fn write_was(&self, pending: bool) {
        self.write_pending.set(pending);
        if !pending {
            self.last_write.set(self.worker.now());
        }
    }

    /// Whether reading is to end here.
    pub(crate) fn closes_when_idle(&self) -> bool {
        self.close_when_idle.get()
    }

    /// Fails once the connection is to be cut.
    pub(crate) fn check_aborted(&self) -> io::Result<()> {
        match self.aborted.get() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Notes whom to wake when the connection is to end.
    pub(crate) fn waits(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Ends the connection if it has done for too long what it is doing.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeouts = self.worker.timeouts();
        let for_long = |since: &Cell<Instant>, limit| now.saturating_duration_since(since.get()) >= limit;
        let stalled = self.write_pending.get() && for_long(&self.last_write, timeouts.stalled);
        let (limit_idle, limit_fresh) = match self.worker.is_draining() {
            true => (timeouts.drain_idle, timeouts.drain_idle),
            false => (timeouts.idle, timeouts.header),
        };
        match self.phase.get() {
            Phase::Head if for_long(&self.since, timeouts.header) => self.abort(),
            Phase::Busy | Phase::Idle if stalled => self.abort(),
            Phase::Fresh if for_long(&self.since, limit_fresh) => self.close_when_idle(),
            Phase::Idle if !self.write_pending.get() && for_long(&self.since, limit_idle) => {
                self.close_when_idle();
            }
            Phase::Handshake | Phase::Head | Phase::Busy | Phase::Fresh | Phase::Idle => {}
        }
    }

    fn close_when_idle(&self) {
        self.close_when_idle.set(true);
        self.wake();
    }

    fn abort(&self) {
        self.aborted.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Serves requests until the client or the gateway has enough.
pub(crate) async fn serve<S>(conn: Rc<Conn>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(Watched::new(stream, Rc::clone(&conn)));
    let connection = conn.worker.http().serve_connection(io, Service(Rc::clone(&conn)));
    if let Err(error) = connection.await {
        tracing::debug!(client = %conn.peer.address, %error, "connection ended");
        if error.is_parse() {
            conn.count_unparsed();
        }
    }
}

/// Waits for the first byte of a connection, so that one that never sends costs no buffers. False when it is to be
/// closed instead.
pub(crate) async fn first_byte(conn: &Conn, stream: &TcpStream) -> bool {
    std::future::poll_fn(|cx| {
        if stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        conn.waits(cx);
        match conn.closes_when_idle() {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    })
    .await
}

/// IPv4 as such, also on a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
