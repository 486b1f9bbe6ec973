//! `edge run`: control, proxy and data path, joined by values. A Snapshot goes down, a Penalty comes up.

mod health;
mod inspect;
mod limits;
mod route_news;
mod start;
mod terminate;

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edge_config::{Bootstrap, Drain};
use edge_control::Control;
use edge_datapath::{DataPath, WorkerSocket};
use edge_model::{DataPathConfig, Penalty, Protocol, Snapshot};
use edge_proxy::{Proxy, ProxyOptions};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::health::{Probed, Probes};
use self::route_news::RouteNews;
use self::start::{access_log, dns_options, load_datapath, start_failure};
use self::terminate::Terminate;

use crate::admin::{self, Inspect};
use crate::cli::RunArgs;
use crate::events::Samples;
use crate::failure::Failure;

/// Penalties on their way to the data path. A source that finds the queue full is penalised on its next refusals.
const PENALTY_QUEUE: usize = 4096;
/// How often ended penalties are removed and the BPF programs' messages are read.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often samples of dropped packets are fetched. The ring buffer holds a second of a flood of four reasons.
const SAMPLING: Duration = Duration::from_millis(100);
/// Handshakes that were under way when new connections began to be refused end within this time; then the accept
/// queues hold all there is, and the proxy empties them.
const HANDSHAKES: Duration = Duration::from_millis(200);

/// How long a Snapshot waits for names of endpoints that it has and the last one did not.
const RESOLVING: Duration = Duration::from_secs(3);

/// The running edge, as the admin address sees it.
struct App {
    started: Instant,
    ready: AtomicBool,
    control: watch::Receiver<Arc<edge_control::Status>>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// `None` once it drains.
    proxy: Mutex<Option<Proxy>>,
    /// `None` when no interface is configured, and once it is detached.
    datapath: Mutex<Option<DataPath>>,
    /// Why the Snapshot is not in force as a whole; `None` when it is.
    apply_error: Mutex<Option<String>>,
    samples: Samples,
    probes: Mutex<Probes>,
    registry: Registry,
    metrics: Metrics,
}

/// Metrics of the process as a whole.
struct Metrics {
    snapshot: IntGauge,
    in_sync: IntGauge,
    penalties_written: IntCounter,
}

/// Runs until a signal asks for the end, then drains.
pub(crate) async fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut terminate = Terminate::new()?;
    let control = Control::start(&args.config).map_err(start_failure)?;
    let bootstrap = control.bootstrap().clone();
    let admin = admin::bind(bootstrap.admin)
        .await
        .map_err(Failure::CannotBeDone)?;
    let (penalties_in, mut penalties) = mpsc::channel(PENALTY_QUEUE);
    let (probes, mut probed) = Probes::new();
    let app =
        Arc::new(App::start(&control, &bootstrap, penalties_in, probes).map_err(Failure::CannotBeDone)?);
    tokio::spawn(admin::serve(admin, Arc::<App>::clone(&app) as Arc<dyn Inspect>));
    let first = Arc::clone(&app.snapshot.borrow());
    app.resolve(&first).await;
    app.ready.store(true, Ordering::Release);
    tracing::info!(admin = %bootstrap.admin, "ready");
    app.follow(&mut penalties, &mut probed, terminate.wait()).await;
    let began = Instant::now();
    app.leave(bootstrap.drain);
    let grace = bootstrap.drain.grace;
    let grace_ends = async {
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            () = terminate.wait_again() => tracing::warn!("asked twice: the grace time ends"),
        }
    };
    app.follow(&mut penalties, &mut probed, grace_ends).await;
    let left = bootstrap.drain.deadline.saturating_sub(began.elapsed());
    app.drain(left, &mut terminate).await;
    Ok(())
}

impl App {
    /// Loads the data path, starts the proxy and joins the two by the first Snapshot.
    fn start(
        control: &Control,
        bootstrap: &Bootstrap,
        penalties: mpsc::Sender<Penalty>,
        mut probes: Probes,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry)?;
        let datapath = load_datapath(bootstrap)?;
        let (mut snapshots, process) = (control.snapshots(), control.process());
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if let Some(datapath) = &datapath {
            probes.begin_down(datapath.inherited_down(&snapshot.datapath));
        }
        let options = ProxyOptions {
            access_log: bootstrap.access_log.as_ref().map(access_log),
            trusted_proxies: bootstrap.num_trusted_proxies,
            timeouts: bootstrap.timeouts.clone(),
            limits: bootstrap.limits.clone(),
            paths: bootstrap.paths,
            proxy_protocol: bootstrap.proxy_protocol.clone(),
            bounds: limits::bounds(bootstrap.overload),
            dns: dns_options(&bootstrap.dns),
            ..ProxyOptions::new(process.workers)
        };
        let ask = move |penalty: Penalty| {
            if penalties.try_send(penalty).is_err() {
                tracing::warn!(source = %penalty.source, "a penalty was not written: too many at once");
            }
        };
        let proxy = Proxy::start(options, &snapshot, ask, &registry)?;
        let app = Self {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            control: control.status(),
            snapshot: snapshots,
            proxy: Mutex::new(Some(proxy)),
            datapath: Mutex::new(datapath),
            apply_error: Mutex::default(),
            samples: Samples::new(),
            probes: Mutex::new(probes),
            registry,
            metrics,
        };
        app.steer(&snapshot)?;
        app.metrics.in_force(&snapshot);
        Ok(app)
    }

    /// Has the names of a Snapshot resolved before it is needed.
    async fn resolve(&self, snapshot: &Snapshot) {
        let proxy = lock(&self.proxy).as_ref().map(|proxy| proxy.resolving(snapshot));
        let Some(resolving) = proxy else { return };
        if tokio::time::timeout(RESOLVING, resolving).await.is_err() {
            tracing::warn!("some names of endpoints are not resolved yet");
        }
    }

    /// Applies Snapshots, writes penalties and keeps house, until the end.
    async fn follow(
        &self,
        penalties: &mut mpsc::Receiver<Penalty>,
        probed: &mut mpsc::Receiver<Probed>,
        end: impl Future<Output = ()>,
    ) {
        tokio::pin!(end);
        // A clone has seen what the original has: the Snapshot of the start, and none that came since.
        let mut snapshots = self.snapshot.clone();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut routes = RouteNews::open(lock(&self.datapath).as_ref());
        let mut sampling = tokio::time::interval(SAMPLING);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut end => return,
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        tracing::error!("the configuration is no longer watched; the last one goes on serving");
                        return end.await;
                    }
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    self.resolve(&snapshot).await;
                    self.apply(&snapshot);
                }
                Some(penalty) = penalties.recv() => self.penalise(&penalty),
                Some(outcome) = probed.recv() => self.judge(outcome),
                _ = housekeeping.tick() => self.keep_house(),
                () = routes.wait() => {
                    let began = Instant::now();
                    self.keep_routes();
                    routes.rest(began.elapsed());
                }
                _ = sampling.tick() => self.publish_samples(),
            }
        }
    }

    /// Brings a Snapshot into force. What cannot be done is reported, and the rest goes on as it was.
    fn apply(&self, snapshot: &Snapshot) {
        let applied = || -> anyhow::Result<()> {
            if let Some(proxy) = lock(&self.proxy).as_ref() {
                proxy.apply(snapshot)?;
            }
            self.steer(snapshot)
        };
        let outcome = applied();
        match &outcome {
            Ok(()) => {
                self.metrics.in_force(snapshot);
                tracing::info!(version = snapshot.version, "configuration applied");
            }
            Err(error) => {
                tracing::error!(version = snapshot.version, "configuration not applied: {error:#}");
            }
        }
        *lock(&self.apply_error) = outcome.err().map(|error| format!("error: {error:#}"));
    }

    /// Makes the data path what the Snapshot asks for, with the sockets that the proxy listens on now.
    fn steer(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let sockets = lock(&self.proxy)
            .as_ref()
            .map(Proxy::sockets)
            .transpose()
            .context("listening sockets")?;
        let mut datapath = lock(&self.datapath);
        let Some(datapath) = datapath.as_mut() else {
            return Ok(());
        };
        let sockets = sockets.unwrap_or_default();
        let sockets: Vec<_> = sockets
            .iter()
            .map(|socket| WorkerSocket {
                worker: socket.worker,
                port: socket.address.port,
                address: socket.address.bind,
                protocol: Protocol::Tcp,
                fd: socket.socket.as_fd(),
            })
            .collect();
        let plan = datapath.reconcile(&self.desired(snapshot), &sockets)?;
        tracing::debug!(?plan, "data path reconciled");
        Ok(())
    }

    /// What the Snapshot asks of the data path, with the workers that do not answer taken out.
    fn desired(&self, snapshot: &Snapshot) -> DataPathConfig {
        let mut probes = lock(&self.probes);
        probes.follow(&snapshot.datapath);
        probes.overlay(&snapshot.datapath)
    }

    /// Takes the outcome of a probe, and a worker out or in, if it comes to that.
    fn judge(&self, outcome: Probed) {
        if !lock(&self.probes).observe(outcome, Instant::now()) {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot.borrow());
        if let Err(error) = self.steer(&snapshot) {
            tracing::error!("the data path does not follow the health of its workers: {error:#}");
        }
    }

    /// Tells tier 1 whom to drop.
    fn penalise(&self, penalty: &Penalty) {
        let seconds = penalty
            .until
            .saturating_duration_since(Instant::now())
            .as_secs_f64();
        let (source, reason) = (penalty.source, penalty.reason.name());
        match lock(&self.datapath)
            .as_mut()
            .map(|datapath| datapath.penalise(penalty))
        {
            Some(Ok(())) => {
                self.metrics.penalties_written.inc();
                tracing::info!(%source, reason, seconds, "penalty: held at the NIC");
            }
            Some(Err(error)) => tracing::warn!(%source, reason, "the penalty cannot be written: {error}"),
            None => {
                tracing::debug!(%source, reason, "penalty without a data path: refused by the proxy alone")
            }
        }
    }

    /// Fetches what the data path sampled, whether somebody reads it or not: a reader is to get what is dropped while it
    /// reads, and not what was in the ring before.
    fn publish_samples(&self) {
        let events = lock(&self.datapath).as_mut().map(DataPath::events);
        self.samples.publish(&events.unwrap_or_default());
    }

    /// Has the data path follow the routes to workers elsewhere and to clients.
    fn keep_routes(&self) {
        if let Some(Err(error)) = lock(&self.datapath).as_mut().map(DataPath::keep_routes) {
            tracing::warn!("the kernel's routes cannot be followed: {error}");
        }
    }

    fn keep_house(&self) {
        self.keep_routes();
        let in_sync = self.control.borrow().is_current && lock(&self.apply_error).is_none();
        self.metrics.in_sync.set(i64::from(in_sync));
        let mut datapath = lock(&self.datapath);
        let Some(datapath) = datapath.as_mut() else { return };
        datapath.drain_log();
        match datapath.expire() {
            Ok(ended) => {
                for penalty in ended {
                    tracing::info!(source = %penalty.source, dropped = penalty.dropped, "penalty ended");
                }
            }
            Err(error) => tracing::warn!("ended penalties cannot be removed: {error}"),
        }
    }

    /// Tells everybody that the end is near, while new connections are still taken.
    fn leave(&self, drain: Drain) {
        self.ready.store(false, Ordering::Release);
        let (grace, deadline) = (drain.grace.as_secs_f64(), drain.deadline.as_secs_f64());
        tracing::info!(grace_seconds = grace, deadline_seconds = deadline, "draining");
        if let Some(proxy) = lock(&self.proxy).as_ref() {
            proxy.leave();
        }
    }

    /// Ends without losing a request: new connections are refused, those that the kernel has accepted are served, idle
    /// ones closed, and requests under way finish or meet the deadline. A second signal ends the wait.
    async fn drain(&self, deadline: Duration, terminate: &mut Terminate) {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let refused = lock(&self.datapath)
            .as_mut()
            .map(|datapath| datapath.reconcile(&self.desired(&snapshot), &[]));
        if let Some(refused) = refused {
            if let Err(error) = refused {
                tracing::warn!("new connections cannot be refused while draining: {error}");
            }
            tokio::time::sleep(HANDSHAKES).await;
        }
        let proxy = lock(&self.proxy).take();
        if let Some(proxy) = proxy {
            tokio::select! {
                drained = proxy.drain(deadline) => tracing::info!(cut = drained.cut, "drained"),
                () = terminate.wait_again() => tracing::warn!("asked twice: what is under way is cut"),
            }
        }
        let datapath = lock(&self.datapath).take();
        if let Some(Err(error)) = datapath.map(DataPath::detach) {
            tracing::warn!("the data path left something behind: {error}");
        }
    }
}

impl Metrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let written = "edge_datapath_penalties_written_total";
        let penalties_written = IntCounter::new(written, "Penalties written into the data path")?;
        registry.register(Box::new(penalties_written.clone()))?;
        let in_sync = gauge(
            "edge_config_in_sync",
            "1 while the files on disk are what is in force",
        )?;
        in_sync.set(1);
        let snapshot = gauge("edge_config_snapshot", "Number of the configuration in force")?;
        Ok(Self {
            snapshot,
            in_sync,
            penalties_written,
        })
    }

    fn in_force(&self, snapshot: &Snapshot) {
        self.snapshot
            .set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
    }
}

/// Locks; a holder that panicked left a value that is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
