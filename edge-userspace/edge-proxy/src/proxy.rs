//! The proxy as a whole: workers, listening sockets and the configuration in force.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use edge_model::{ListenAddress, Penalty, Snapshot, WorkerId};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::{mpsc, oneshot};

use crate::access_log::Writer;
use crate::config::Config;
use crate::dns::{self, Answer, Answers, Resolver};
use crate::listener::listen;
use crate::metrics::Metrics;
use crate::overload::{Overload, Watch};
use crate::worker::{Command, Shared, spawn};
use crate::{ClusterStatus, Error, ProxyOptions, WorkerStatus};

/// A running proxy. Dropping it ends the workers at once; [`Proxy::drain`] is the gentle way.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    applied: Arc<Mutex<Applied>>,
    resolver: Resolver,
    /// Behind the workers, which have lines to write until their end.
    _log: LogEnd,
    _watch: Watch,
}

/// What the configuration in force was made of. Its lock also puts changes in order.
#[derive(Default)]
struct Applied {
    /// A second descriptor of each worker's socket on each open address, by worker.
    listeners: BTreeMap<ListenAddress, Vec<TcpListener>>,
    snapshot: Snapshot,
    answers: Answers,
}

/// The sockets of a new address, by worker, with two descriptors each.
struct Opened {
    theirs: Vec<TcpListener>,
    ours: Vec<TcpListener>,
}

struct WorkerHandle {
    id: WorkerId,
    /// `None` once the proxy is being dropped.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    connections: (IntGauge, IntCounter),
}

/// A listening socket of a worker.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The worker that accepts from it.
    pub worker: WorkerId,
    /// What it listens on.
    pub address: ListenAddress,
    /// A descriptor of its own. Drop it once the socket is in its map: as long as it is open, so is the socket.
    pub socket: OwnedFd,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections with a request on them that the deadline cut.
    pub cut: usize,
}

impl Proxy {
    /// Starts the workers and serves `snapshot`. `penalties` is called on a worker's thread with each source that tier 1
    /// is to drop, and must not block.
    ///
    /// # Errors
    /// When a thread or a listening socket cannot be had; nothing is left running then.
    pub fn start(
        options: ProxyOptions,
        snapshot: &Snapshot,
        penalties: impl Fn(Penalty) + Send + Sync + 'static,
        registry: &Registry,
    ) -> Result<Self, Error> {
        if options.workers == 0 {
            return Err(Error::NoWorkers);
        }
        let workers = 0..options.workers;
        let empty = Config::new(&Snapshot::default(), &Answers::default(), None, Instant::now());
        let metrics = Metrics::new(registry)?;
        let log = match &options.access_log {
            Some(log) => {
                let path = log.path.as_deref();
                let writer = Writer::start(path, metrics.log_dropped());
                Some(writer.map_err(|source| Error::AccessLog {
                    path: path.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string()),
                    source,
                })?)
            }
            None => None,
        };
        let overload = Overload::new(options.bounds, registry)?;
        let watch = Watch::start(&overload).map_err(|source| Error::Thread { source })?;
        let dns = options.dns.clone();
        let shared = Arc::new(Shared {
            log,
            config: Arc::new(ArcSwap::from_pointee(empty)),
            metrics,
            penalties: Box::new(penalties),
            options,
            overload,
        });
        let workers = workers.map(|id| WorkerHandle::start(WorkerId(id), &shared));
        let workers = workers.collect::<Result<_, _>>()?;
        let applied = Arc::<Mutex<Applied>>::default();
        let take_up = {
            let (shared, applied) = (Arc::clone(&shared), Arc::clone(&applied));
            move |answers| lock(&applied).take_up(answers, &shared)
        };
        let proxy = Self {
            workers,
            resolver: Resolver::start(dns, registry, take_up)?,
            applied,
            _log: LogEnd(Arc::clone(&shared)),
            shared,
            _watch: watch,
        };
        proxy.apply(snapshot)?;
        Ok(proxy)
    }

    /// Has the names of `snapshot` resolved, so that its endpoints are there when it is applied. The future ends once each
    /// name was tried; without new names at once.
    pub fn resolving(&self, snapshot: &Snapshot) -> impl Future<Output = ()> + use<> {
        let tried = self.resolver.add(dns::names(snapshot));
        async move {
            // Without a resolver there is nothing to wait for.
            let _ = tried.await;
        }
    }

    /// Replaces the configuration in force. Requests that begin after the return see the new one; those under way
    /// end under the old one. Ports that vanish are closed once their queues are empty, and connections that came in by
    /// them end after their next response.
    ///
    /// # Errors
    /// When a new port cannot be listened on. Nothing has changed then.
    pub fn apply(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut applied = lock(&self.applied);
        let Applied {
            listeners: open,
            snapshot: latest,
            answers,
        } = &mut *applied;
        let config = Config::new(
            snapshot,
            answers,
            Some(&self.shared.config.load()),
            Instant::now(),
        );
        let is_virtual = |address: IpAddr| snapshot.datapath.vips.iter().any(|vip| vip.address == address);
        let new = config.addresses().filter(|address| !open.contains_key(address));
        let opened: Vec<(ListenAddress, Opened)> = new
            .map(|address| {
                Ok((
                    address,
                    self.listen(address, address.bind.is_some_and(is_virtual))?,
                ))
            })
            .collect::<Result<_, Error>>()?;
        let vanished: Vec<ListenAddress> = open
            .keys()
            .copied()
            .filter(|address| config.listener(*address).is_none())
            .collect();

        let config = Arc::new(config);
        self.shared.config.store(Arc::clone(&config));
        if !latest.clusters.is_same(&snapshot.clusters) {
            let names = dns::names(snapshot);
            answers.retain(&names);
            self.resolver.set(names);
        }
        *latest = snapshot.clone();
        for (address, Opened { theirs, ours }) in opened {
            self.hand_over(address, theirs, &config)?;
            open.insert(address, ours);
        }
        for address in vanished {
            open.remove(&address);
            for worker in &self.workers {
                worker.send(Command::Close { address })?;
            }
        }
        Ok(())
    }

    /// One socket for each worker. A virtual address need not be there yet.
    fn listen(&self, address: ListenAddress, is_virtual: bool) -> Result<Opened, Error> {
        let pair = || {
            let theirs = listen(address, is_virtual)?;
            let ours = theirs.try_clone()?;
            Ok((theirs, ours))
        };
        let pairs: io::Result<Vec<_>> = self.workers.iter().map(|_| pair()).collect();
        let (theirs, ours) = pairs
            .map_err(|source| Error::Listen { address, source })?
            .into_iter()
            .unzip();
        Ok(Opened { theirs, ours })
    }

    /// Gives the workers their sockets on an address.
    fn hand_over(
        &self,
        address: ListenAddress,
        listeners: Vec<TcpListener>,
        config: &Config,
    ) -> Result<(), Error> {
        let Some(listener_config) = config.listener(address) else {
            return Ok(());
        };
        for (worker, listener) in self.workers.iter().zip(listeners) {
            let config = Arc::clone(listener_config);
            worker.send(Command::Listen {
                address,
                listener,
                config,
            })?;
        }
        Ok(())
    }

    /// The sockets that are listened on now, for tier 1 to steer connections to.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn sockets(&self) -> io::Result<Vec<ListeningSocket>> {
        let applied = lock(&self.applied);
        let sockets = applied.listeners.iter().flat_map(|(address, listeners)| {
            self.workers.iter().zip(listeners).map(|(worker, listener)| {
                Ok(ListeningSocket {
                    worker: worker.id,
                    address: *address,
                    socket: listener.try_clone()?.into(),
                })
            })
        });
        sockets.collect()
    }

    /// Tells clients to go elsewhere: responses say `connection: close`, and HTTP/2 connections get GOAWAY. New
    /// connections are still taken, as who spreads them may not know yet.
    pub fn leave(&self) {
        for worker in &self.workers {
            if let Err(error) = worker.send(Command::Leave) {
                tracing::error!(%error, "cannot drain");
            }
        }
    }

    /// Brings the proxy to its end: the kernel's queues are accepted and then closed, responses say `connection: close`,
    /// idle connections are closed after [`Timeouts::drain_idle`](crate::Timeouts), and what is left at the deadline is
    /// cut.
    pub async fn drain(self, deadline: Duration) -> Drained {
        let deadline = Instant::now() + deadline;
        lock(&self.applied).listeners.clear();
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            match worker.send(Command::Drain { deadline, done }) {
                Ok(()) => answers.push(answer),
                Err(error) => tracing::error!(%error, "cannot drain"),
            }
        }
        let mut cut = 0;
        for answer in answers {
            cut += answer.await.unwrap_or(0);
        }
        Drained { cut }
    }

    /// The clusters in force, by name.
    #[must_use]
    pub fn clusters(&self) -> Vec<ClusterStatus> {
        let config = self.shared.config.load();
        let mut clusters: Vec<_> = config.clusters.values().map(|cluster| cluster.status()).collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        clusters
    }

    /// The workers and their connections.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let status = |worker: &WorkerHandle| WorkerStatus {
            id: worker.id,
            connections: u64::try_from(worker.connections.0.get()).unwrap_or(0),
            connections_total: worker.connections.1.get(),
        };
        self.workers.iter().map(status).collect()
    }
}

/// Has the access log's last lines written when it is dropped.
struct LogEnd(Arc<Shared>);

impl Drop for LogEnd {
    fn drop(&mut self) {
        if let Some(log) = &self.0.log {
            log.finish();
        }
    }
}

impl Applied {
    /// Takes up answers of name servers.
    fn take_up(&mut self, answers: Vec<Answer>, shared: &Shared) {
        let news: Vec<_> = answers
            .into_iter()
            .filter_map(|(name, addresses)| {
                tracing::debug!(%name, ?addresses, "resolved");
                self.answers.set(Arc::clone(&name), addresses).then_some(name)
            })
            .collect();
        if !news.is_empty() {
            let config = shared.config.load();
            let config = config.resolved(&self.snapshot, &self.answers, &news, Instant::now());
            shared.config.store(Arc::new(config));
        }
    }
}

/// Whoever panicked under the lock left at worst a descriptor open that nobody will use.
fn lock(applied: &Mutex<Applied>) -> MutexGuard<'_, Applied> {
    applied.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerHandle {
    fn start(id: WorkerId, shared: &Arc<Shared>) -> Result<Self, Error> {
        let (commands, received) = mpsc::unbounded_channel();
        let thread = spawn(id, Arc::clone(shared), received)
            .map_err(|source| Error::Worker { worker: id.0, source })?;
        Ok(Self {
            id,
            commands: Some(commands),
            thread: Some(thread),
            connections: shared.metrics.connections(id),
        })
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        let sent = self
            .commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok());
        match sent {
            true => Ok(()),
            false => Err(Error::WorkerGone { worker: self.id.0 }),
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(worker = self.id.0, "the worker had panicked");
        }
    }
}
