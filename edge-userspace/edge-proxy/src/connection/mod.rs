//! One client's connection: what it is doing, for how long it may, and the route table it sees.
//!
//! Timeouts are not timers of the connection's own, which would cost on every request. The connection notes what it
//! does and since when, and its worker looks over all connections from time to time, see [`Conn::sweep`].

mod sweep;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use edge_model::ListenAddress;
use edge_routing::Table;
use http::StatusCode;

use self::sweep::{BodyPace, Cut};
use crate::config::ListenerConfig;
use crate::http::{Flag, Peer, Tunnel};
use crate::metrics::{Kind, Observed};
use crate::protocol::Protocol;
use crate::server::OpenStreams;
use crate::tls::Handshake;
use crate::worker::{Drain, OwnPools, View, Worker};

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

/// Both ends of a connection.
pub(crate) struct Ends {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Both as text, once somebody has asked: the access log asks with each request.
    texts: OnceCell<(Box<str>, Box<str>)>,
}

impl Ends {
    /// The client's address and port.
    pub(crate) fn remote_text(&self) -> &str {
        &self.texts().0
    }

    /// Address and port that the client connected to.
    pub(crate) fn local_text(&self) -> &str {
        &self.texts().1
    }

    fn texts(&self) -> &(Box<str>, Box<str>) {
        self.texts
            .get_or_init(|| (self.remote.to_string().into(), self.local.to_string().into()))
    }
}

/// A connection of a client, from accept to close.
pub(crate) struct Conn {
    /// Its number, which no other connection of the process has.
    pub(crate) id: u64,
    worker: Rc<Worker>,
    /// What the client connected to.
    listener: Rc<ListenAddress>,
    /// The client's port.
    peer_port: u16,
    peer: Peer,
    /// Both ends, where somebody may ask for them.
    ends: OnceCell<Box<Ends>>,
    /// What the handshake of TLS has told. Boxed, as the tunnel is.
    handshake: OnceCell<Box<Handshake>>,
    /// Route table of the configuration with the given generation.
    table: RefCell<Option<(u64, Arc<Table>)>>,
    /// Its listener or TLS server is no longer configured.
    orphaned: Cell<bool>,
    protocol: Cell<Protocol>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Requests that are being answered.
    active: Cell<u32>,
    /// The request that came last asks for another protocol.
    asks_for_upgrade: Cell<bool>,
    /// The request that came last is to be the last.
    asks_for_end: Cell<bool>,
    /// Where the bytes go once both sides have agreed to another protocol.
    /// Boxed, as few connections have one and all have room for it.
    tunnel: RefCell<Option<Box<Tunnel>>>,
    /// The client takes nothing, since the last write.
    write_pending: Cell<bool>,
    last_write: Cell<Instant>,
    /// What of a request's body of HTTP/1.1 is waited for, and what came of it since.
    body: Cell<BodyPace>,
    /// What it has of its streams of HTTP/2.
    http2: OnceCell<Rc<OpenStreams>>,
    /// When it was last looked whether its responses drip away.
    looked: Cell<Instant>,
    close_when_idle: Cell<bool>,
    /// The client is to be told by GOAWAY that no request is taken after those under way.
    leaving: Cell<bool>,
    /// Why the connection is to be cut.
    aborted: Cell<Option<Cut>>,
    /// Its stream has ended or failed.
    gone: Cell<bool>,
    /// Its worker has it in the queue of those that may be parked.
    is_queued: Cell<bool>,
    /// It is idle, and is to give its buffers back.
    parks: Cell<bool>,
    /// Connections to endpoints that are told whose they are, and serve nobody else. Boxed, as the tunnel is.
    own_pools: OnceCell<Box<RefCell<OwnPools>>>,
    waker: RefCell<Option<Waker>>,
}

impl Conn {
    /// A connection that was just accepted on `listener`, which speaks what `config` says.
    pub(crate) fn new(
        worker: Rc<Worker>,
        listener: Rc<ListenAddress>,
        peer: SocketAddr,
        config: &ListenerConfig,
    ) -> Self {
        let (scheme, phase) = match config {
            ListenerConfig::Http(_) => ("http", Phase::Fresh),
            ListenerConfig::Https { .. } => ("https", Phase::Handshake),
            ListenerConfig::Tcp(_) => ("tcp", Phase::Busy),
        };
        let now = worker.now();
        Self {
            id: worker.next_number(),
            worker,
            listener,
            peer_port: peer.port(),
            peer: Peer::new(peer.ip(), scheme),
            ends: OnceCell::new(),
            handshake: OnceCell::new(),
            table: RefCell::default(),
            orphaned: Cell::new(false),
            protocol: Cell::new(Protocol::Http1),
            phase: Cell::new(phase),
            since: Cell::new(now),
            active: Cell::new(0),
            asks_for_upgrade: Cell::new(false),
            asks_for_end: Cell::new(false),
            tunnel: RefCell::default(),
            write_pending: Cell::new(false),
            last_write: Cell::new(now),
            body: Cell::new(BodyPace::new(now)),
            http2: OnceCell::new(),
            looked: Cell::new(now),
            close_when_idle: Cell::new(false),
            leaving: Cell::new(false),
            aborted: Cell::new(None),
            gone: Cell::new(false),
            is_queued: Cell::new(false),
            parks: Cell::new(false),
            own_pools: OnceCell::new(),
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
        let _ = self.ends.set(Box::new(Ends {
            remote: canonical(remote),
            local: canonical(local),
            texts: OnceCell::new(),
        }));
    }

    /// Both ends, where they were noted.
    pub(crate) fn known_ends(&self) -> Option<&Ends> {
        self.ends.get().map(|ends| &**ends)
    }

    /// The client, and what it connected to. Where that was not noted, as nobody was to ask for it when the connection
    /// began, no address stands beside its port.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        self.known_ends()
            .map(|ends| (ends.remote, ends.local))
            .unwrap_or_else(|| {
                let client = SocketAddr::new(self.peer.address, self.peer_port);
                let unknown = match client {
                    SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                (client, SocketAddr::new(unknown, self.listener.port))
            })
    }

    /// Connections to endpoints that are opened for this client alone.
    pub(crate) fn own_pools(&self) -> &RefCell<OwnPools> {
        self.own_pools.get_or_init(Box::default)
    }

    /// What the handshake of TLS has told; `None` where there was none.
    pub(crate) fn handshake(&self) -> Option<&Handshake> {
        self.handshake.get().map(|handshake| &**handshake)
    }

    /// Server name of the TLS handshake.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.handshake()?.server_name()
    }

    /// Notes what the handshake has told. Of the client's certificate, endpoints are told.
    pub(crate) fn shook_hands(&self, handshake: Handshake) {
        if let Some(certificate) = handshake.forwarded() {
            // Set once, as what follows is: there is one handshake.
            let _ = self.peer.certificate.set(Box::new(certificate));
        }
        let _ = self.handshake.set(Box::new(handshake));
    }

    /// TLS is there for requests; from here on the connection sees the table of the server that was chosen.
    pub(crate) fn secured(&self, view: &View, table: &Arc<Table>) {
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
        let listener = view.config().listener(*self.listener)?;
        match (&**listener, self.peer.scheme) {
            (ListenerConfig::Http(table), "http") => Some(Arc::clone(table)),
            (ListenerConfig::Https { .. }, "https") => {
                let (_, endpoint) = listener.tls_endpoint(self.server_name())?;
                Some(Arc::clone(&endpoint.table))
            }
            (ListenerConfig::Http(_) | ListenerConfig::Https { .. } | ListenerConfig::Tcp(_), _) => None,
        }
    }

    /// Whether a request for `host` (without port) came over a connection that was opened for another TLS server, as
    /// clients of HTTP/2 do when a certificate is good for both (RFC 9113 section 9.1.1).
    pub(crate) fn is_misdirected(&self, view: &View, host: &str) -> bool {
        let Some(listener) = view.config().listener(*self.listener) else {
            return false;
        };
        let name = self.server_name();
        if name.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            return false;
        }
        let host = host.to_ascii_lowercase();
        match (listener.tls_endpoint(name), listener.tls_endpoint(Some(&host))) {
            (Some((own, _)), Some((other, _))) => own != other,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Whether the next response is the connection's last.
    pub(crate) fn closes_after_response(&self) -> bool {
        self.orphaned.get() || self.asks_for_end.get() || self.worker.drain() != Drain::No
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

    /// It is known by now what is spoken.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// What is spoken.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// The head of a request is there.
    pub(crate) fn request_began(&self) {
        self.active.set(self.active.get() + 1);
        self.enter(Phase::Busy);
        // What was before is no part of the body's pace.
        self.body.set(BodyPace::new(self.worker.now()));
    }

    /// Whether the request that now comes asks for another protocol, and for the end of the connection (HTTP/1.1 only).
    pub(crate) fn asks_for(&self, upgrade: bool, end: bool) {
        self.asks_for_upgrade.set(upgrade);
        self.asks_for_end.set(end);
    }

    /// Whether the request that came last asks for another protocol.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.asks_for_upgrade.get()
    }

    /// Both sides have agreed to another protocol (HTTP/1.1 only).
    pub(crate) fn will_switch(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(Box::new(tunnel));
    }

    /// Where the bytes go after the response that switches protocols.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.borrow_mut().take().map(|tunnel| *tunnel)
    }

    /// What came is no request, and is answered with this status.
    pub(crate) fn count_unparsed(&self, status: StatusCode) {
        let (status, flags) = (status.as_u16(), Flag::DownstreamProtocolError.into());
        self.worker.unrouted().observe(
            (status, flags, Kind::Http),
            &Observed {
                took: Duration::ZERO,
                received: 0,
                sent: 0,
            },
        );
    }

    /// The response was handed to the connection, or will never be.
    pub(crate) fn request_ended(self: &Rc<Self>) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 {
            self.enter(Phase::Idle);
            self.may_be_parked();
        }
    }

    /// Its worker is to park it if nothing comes for a while.
    pub(crate) fn may_be_parked(self: &Rc<Self>) {
        if self.protocol.get() == Protocol::Http1 && !self.is_queued.replace(true) {
            self.worker.may_park(self);
        }
    }

    /// Whether it stays in the queue of those that may be parked; it is told to park if it was idle since `before`.
    pub(crate) fn stays_queued(&self, before: Instant) -> bool {
        let is_idle = matches!(self.phase.get(), Phase::Fresh | Phase::Idle) && !self.write_pending.get();
        if is_idle && self.since.get() <= before {
            self.is_queued.set(false);
            self.parks.set(true);
            self.wake();
        }
        self.is_queued.get()
    }

    /// Whether it is to give its buffers back now. Asked when it waits for the client.
    pub(crate) fn takes_park(&self) -> bool {
        let is_idle = matches!(self.phase.get(), Phase::Fresh | Phase::Idle) && !self.write_pending.get();
        self.parks.take() && is_idle
    }

    /// Bytes have come from the client.
    pub(crate) fn bytes_read(&self) {
        // It is not idle after all. If it was to be closed, the next response says so.
        if self.close_when_idle.take() {
            self.orphaned.set(true);
        }
        match (self.phase.get(), self.protocol.get()) {
            (Phase::Fresh | Phase::Idle, Protocol::Http1) => self.enter(Phase::Head),
            // Frames of HTTP/2 need not be of a request.
            (Phase::Fresh, Protocol::Http2) => self.enter(Phase::Idle),
            (Phase::Handshake | Phase::Head | Phase::Busy | Phase::Idle, _) => {}
        }
    }

    /// A write went through, or must wait for the client to take what is on its way; `progress` when something of a
    /// response has gone out.
    pub(crate) fn write_was(&self, pending: bool, progress: bool) {
        self.write_pending.set(pending);
        if progress {
            self.last_write.set(self.worker.now());
        }
    }

    /// Whether reading is to end here.
    pub(crate) fn closes_when_idle(&self) -> bool {
        self.close_when_idle.get()
    }

    /// Whether HTTP/2 is to be ended by GOAWAY (RFC 9113 section 6.8).
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Nothing more comes of its stream, or goes.
    pub(crate) fn is_over(&self) {
        self.gone.set(true);
    }

    /// Whether it is over, so that no request can go on.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.get() || self.aborted.get().is_some()
    }

    /// The present, up to a sweep interval late.
    pub(crate) fn now(&self) -> Instant {
        self.worker.now()
    }

    /// Its streams of HTTP/2.
    pub(crate) fn open_streams(&self) -> &Rc<OpenStreams> {
        let new = || Rc::new(OpenStreams::new(self.worker.limits().http2, self.worker.now()));
        self.http2.get_or_init(new)
    }

    /// Has its task look at the client again, unless it is the one that asks.
    pub(crate) fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if let Some(other) = waker.take_if(|known| !known.will_wake(cx.waker())) {
            other.wake();
        }
    }

    /// Notes whom to wake when the connection is to end.
    pub(crate) fn waits(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes its task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// IPv4 as such, also on a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
