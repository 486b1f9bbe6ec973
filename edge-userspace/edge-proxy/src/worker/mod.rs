//! A gateway worker: one thread, one runtime, its own sockets.

mod accept;
mod crowd;
mod endpoint;
mod run;
mod view;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use edge_model::{PathPolicy, Penalty, WorkerId};
use fastrand::Rng;
use hyper::server::conn::http2;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use crate::access_log::{self, Batch, Fill, Line, Writer};
use crate::config::Config;
use crate::connection::Conn;
use crate::h1::HeadBounds;
use crate::metrics::{AllOngoing, Counted, Labels, Metrics, Routes, SeriesCache};
use crate::options::{Limits, ProxyOptions, Timeouts};
use crate::overload::{Admitted, Overload};
use crate::server::LocalExec;
use crate::timer::Timers;
use crowd::Crowd;
pub(crate) use endpoint::{Asker, EndpointView, OwnPools};
pub(crate) use run::{Command, spawn};
use view::Pools;
pub(crate) use view::{ClusterView, Limit, View};

/// Smallest bound on a head: a careful client's request fits into it.
const MIN_HEAD: u32 = 8192;

/// What a client may send of one body, and of all bodies of a connection, ahead of the upstream (Istio's edge profile).
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is buffered of one response while the client's window is shut.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// Streams that the gateway may have had to reset for a client's errors; more end the connection (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 64;

/// A connection on which nothing came for so long gives its buffers back. Longer than a busy client ever waits, and short
/// against the rate at which idle ones could come.
const PARK_AFTER: Duration = Duration::from_millis(100);

/// How often connections are looked over for that.
const PARK_TICK: Duration = Duration::from_millis(50);

/// How far a worker is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// It is not asked to end.
    No,
    /// New connections are still taken, and clients are told to go elsewhere with their next request.
    Leaving,
    /// No new connections are taken, and those without a request end.
    Ending,
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) metrics: Metrics,
    pub(crate) penalties: Box<dyn Fn(Penalty) + Send + Sync>,
    pub(crate) options: ProxyOptions,
    pub(crate) log: Option<Writer>,
    pub(crate) overload: Arc<Overload>,
}

/// What belongs to one worker. It never leaves its thread.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    config: RefCell<Cache<Arc<ArcSwap<Config>>, Arc<Config>>>,
    view: RefCell<Rc<View>>,
    pools: RefCell<Pools>,
    rng: RefCell<Rng>,
    timers: Rc<Timers>,
    http2: http2::Builder<LocalExec>,
    unrouted: SeriesCache,
    connections: RefCell<HashMap<u64, Rc<Conn>>>,
    crowd: Crowd,
    /// What metrics are told of while it lasts.
    ongoing: AllOngoing,
    /// Connections that are not parked, since they were first idle.
    parkable: RefCell<VecDeque<Rc<Conn>>>,
    parkable_wanted: Notify,
    /// Lines of the access log that were not handed over yet.
    lines: RefCell<Batch>,
    lines_wanted: Notify,
    /// What its lines say, if there is one.
    line: Option<Line>,
    /// Where requests of routes are counted, by virtual host and name, since the configuration has changed.
    routes: RefCell<HashMap<Box<str>, NamedRoutes>>,
    accepted: Cell<u64>,
    /// The last number that was given to a connection or a request.
    numbers: Cell<u64>,
    open_gauge: IntGauge,
    accepted_counter: IntCounter,
    closed: Notify,
    drain: Cell<Drain>,
    /// The present, as of the last sweep, or of the last look for idle connections: enough for timeouts, and free of system calls.
    now: Cell<Instant>,
}

/// Routes of a virtual host by their names for statistics.
type NamedRoutes = HashMap<Box<str>, Rc<Counted<Routes>>>;

impl Worker {
    fn new(id: WorkerId, shared: Arc<Shared>) -> Self {
        let mut config = Cache::new(Arc::clone(&shared.config));
        let mut rng = Rng::new();
        let mut pools = Pools::default();
        let metrics = &shared.metrics;
        let view = View::new(Arc::clone(config.load()), None, metrics, &mut pools, &mut rng);
        let (open_gauge, accepted_counter) = shared.metrics.connections(id);
        let limits = &shared.options.limits;
        let http2 = http2_builder(limits);
        let log = shared.options.access_log.as_ref();
        let line = log.map(|log| Line::new(&log.format));
        let unrouted = SeriesCache::new(metrics.destinations(), Labels::none());
        Self {
            shared,
            config: RefCell::new(config),
            view: RefCell::new(Rc::new(view)),
            pools: RefCell::new(pools),
            rng: RefCell::new(rng),
            timers: Timers::new(Instant::now()),
            http2,
            unrouted,
            connections: RefCell::default(),
            crowd: Crowd::default(),
            ongoing: AllOngoing::default(),
            parkable: RefCell::default(),
            parkable_wanted: Notify::new(),
            lines: RefCell::default(),
            lines_wanted: Notify::new(),
            line,
            routes: RefCell::default(),
            accepted: Cell::new(0),
            numbers: Cell::new(u64::from(id.0)),
            open_gauge,
            accepted_counter,
            closed: Notify::new(),
            drain: Cell::new(Drain::No),
            now: Cell::new(Instant::now()),
        }
    }

    /// The configuration in force, as this worker sees it.
    pub(crate) fn view(&self) -> Rc<View> {
        let mut cache = self.config.borrow_mut();
        let config = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(config, view.config()) {
            let (mut pools, mut rng) = (self.pools.borrow_mut(), self.rng.borrow_mut());
            let metrics = self.metrics();
            self.routes.borrow_mut().clear();
            *view = Rc::new(View::new(
                Arc::clone(config),
                Some(&view),
                metrics,
                &mut pools,
                &mut rng,
            ));
        }
        Rc::clone(&view)
    }

    /// The worker's random numbers. Not to be held across an await.
    pub(crate) fn rng(&self) -> RefMut<'_, Rng> {
        self.rng.borrow_mut()
    }

    /// The worker's timers.
    pub(crate) fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    /// What a client of HTTP/1.1 may send of a head.
    pub(crate) fn head_bounds(&self) -> HeadBounds {
        let limits = self.limits();
        let size = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        HeadBounds {
            bytes: size(limits.head.max(MIN_HEAD)),
            fields: size(limits.fields),
        }
    }

    /// How HTTP/2 is spoken with clients.
    pub(crate) fn http2(&self) -> &http2::Builder<LocalExec> {
        &self.http2
    }

    /// Metrics of requests and connections that got no further than the gateway.
    pub(crate) fn unrouted(&self) -> &SeriesCache {
        &self.unrouted
    }

    /// What metrics are to be told of while it lasts.
    pub(crate) fn ongoing(&self) -> &AllOngoing {
        &self.ongoing
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.shared.options.timeouts
    }

    /// Whether a connection from `peer` to `port` begins with a header of the PROXY protocol.
    fn reads_proxy_header(&self, port: u16, peer: IpAddr) -> bool {
        self.shared.options.proxy_protocol.applies(port, peer)
    }

    /// What is made of paths.
    pub(crate) fn paths(&self) -> PathPolicy {
        self.shared.options.paths
    }

    /// How much a client may send.
    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.options.limits
    }

    /// A number that none of the process's connections and requests has been given.
    pub(crate) fn next_number(&self) -> u64 {
        // Each worker counts by their number.
        let number = self.numbers.get() + u64::from(self.shared.options.workers.max(1));
        self.numbers.set(number);
        number
    }

    /// Where requests are counted that take routes of a virtual host with this name for statistics.
    pub(crate) fn route_series(&self, host: &str, name: &str) -> Rc<Counted<Routes>> {
        let mut known = self.routes.borrow_mut();
        if let Some(counted) = known.get(host).and_then(|routes| routes.get(name)) {
            return Rc::clone(counted);
        }
        let counted = Rc::new(self.metrics().routes().enter([host, name]));
        let routes = known.entry(host.into()).or_default();
        routes.insert(name.into(), Rc::clone(&counted));
        counted
    }

    /// What lines of the access log say, if there is one.
    pub(crate) fn log_line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// Whether the access log is to tell of this request.
    pub(crate) fn is_drawn_for_log(&self) -> bool {
        let log = self.shared.options.access_log.as_ref();
        log.is_some_and(|log| log.sample.takes(self.rng().u32(..1_000_000)))
    }

    /// Adds the line that `write` writes to the access log.
    pub(crate) fn log(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let fill = self.lines.borrow_mut().push(write);
        match fill {
            Fill::First => self.lines_wanted.notify_one(),
            Fill::More => {}
            Fill::Full => self.hand_over_lines(),
        }
    }

    /// Hands over what there is for the access log.
    fn hand_over_lines(&self) {
        let lines = self.lines.take();
        if let Some(log) = self.shared.log.as_ref().filter(|_| !lines.is_empty()) {
            log.write(lines);
        }
    }

    /// Hands lines over before they are old, for ever. It rests while there are none.
    async fn log_in_time(&self) {
        loop {
            self.lines_wanted.notified().await;
            tokio::time::sleep(access_log::PAUSE).await;
            self.hand_over_lines();
        }
    }

    /// Proxies in front of this one whose x-forwarded-for is believed.
    pub(crate) fn trusted_proxies(&self) -> u32 {
        self.shared.options.trusted_proxies
    }

    /// Whether somebody may ask for the addresses of both ends of a connection.
    pub(crate) fn needs_addresses(&self) -> bool {
        let view = self.view();
        self.line.is_some() || view.has_formats() || view.config().announces
    }

    /// How far the end has come.
    pub(crate) fn drain(&self) -> Drain {
        self.drain.get()
    }

    /// The bounds of the process.
    pub(crate) fn overload(&self) -> &Arc<Overload> {
        &self.shared.overload
    }

    /// Closes the upstream connections that no request uses.
    pub(crate) fn close_idle_upstreams(&self) {
        self.view.borrow().close_idle();
    }

    /// The present, up to a sweep interval late.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Asks tier 1 to drop a source.
    pub(crate) fn penalise(&self, penalty: Penalty) {
        tracing::info!(source = %penalty.source, reason = penalty.reason.name(), "penalty issued");
        self.shared.metrics.penalty(&penalty);
        (self.shared.penalties)(penalty);
    }

    /// Keeps `conn` in sight until the guard is dropped.
    fn register(self: &Rc<Self>, conn: Conn, admitted: Admitted) -> Registered {
        let id = self.accepted.get();
        self.accepted.set(id + 1);
        let conn = Rc::new(conn);
        self.connections.borrow_mut().insert(id, Rc::clone(&conn));
        self.open_gauge.inc();
        self.accepted_counter.inc();
        Registered {
            id,
            conn,
            _admitted: admitted,
        }
    }

    /// Ends the connection whose client has made it wait for a whole request for longest, if there is one, to make room
    /// for another.
    fn crowd_out(&self) -> bool {
        self.crowd.out(self.connections.borrow().values(), Instant::now())
    }

    /// Parks a connection if nothing comes over it for a while.
    pub(crate) fn may_park(&self, conn: &Rc<Conn>) {
        let mut parkable = self.parkable.borrow_mut();
        if parkable.is_empty() {
            // The clock stood still while there was nothing to do.
            self.now.set(Instant::now());
            self.parkable_wanted.notify_one();
        }
        parkable.push_back(Rc::clone(conn));
    }

    /// Parks idle connections, for ever. It rests while there are none that could be parked.
    async fn park(&self) {
        loop {
            if self.parkable.borrow().is_empty() {
                self.parkable_wanted.notified().await;
            }
            tokio::time::sleep(PARK_TICK).await;
            let now = Instant::now();
            self.now.set(now);
            if let Some(before) = now.checked_sub(PARK_AFTER) {
                // One that nobody else holds has ended.
                let stays = |conn: &Rc<Conn>| Rc::strong_count(conn) > 1 && conn.stays_queued(before);
                self.parkable.borrow_mut().retain(stays);
            }
        }
    }

    /// Ends what has gone on for too long, and tells the metrics of what goes on.
    fn sweep(&self) {
        let now = Instant::now();
        self.now.set(now);
        for conn in self.connections.borrow().values() {
            conn.sweep(now);
        }
        for pool in self.pools.borrow().values() {
            pool.sweep(now);
        }
        self.view.borrow().sweep(now);
        self.ongoing.report();
    }
}

/// A connection that its worker knows of.
struct Registered {
    id: u64,
    conn: Rc<Conn>,
    _admitted: Admitted,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // A tunnel that was not begun holds the connection.
        drop(self.conn.take_tunnel());
        let worker = self.conn.worker();
        worker.connections.borrow_mut().remove(&self.id);
        worker.open_gauge.dec();
        worker.closed.notify_one();
    }
}

fn http2_builder(limits: &Limits) -> http2::Builder<LocalExec> {
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(limits.head)
        .max_pending_accept_reset_streams(usize::try_from(limits.http2.resets).unwrap_or(usize::MAX))
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .enable_connect_protocol();
    builder
}
