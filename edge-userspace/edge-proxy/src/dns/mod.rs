//! Names of endpoints (`resolution: DNS`), resolved by a thread of their own and never while a request waits.
//!
//! Each name is asked for again when its answer has lived its time, within bounds. An answer that is new is merged into
//! the configuration in force. When no server answers, the last answer stays in use; a server that says that there is
//! no such name, or no address, is believed.

mod answers;
mod schedule;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::DnsOptions;
pub(crate) use answers::{Answers, names, names_of};
use schedule::{Bounds, Ended, Schedule};

/// Where the system keeps its name servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Questions under way at once.
const AT_ONCE: usize = 64;

/// Answers that come within this time of each other are taken up together.
const TOGETHER: Duration = Duration::from_millis(20);

/// A name with its addresses, in the order of the answer; none when the name has none.
pub(crate) type Answer = (Arc<str>, Arc<[IpAddr]>);

/// The resolver's thread. It ends with this value.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// `None` once it ends.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    /// Ask for these names, and for no others.
    Set(BTreeSet<Arc<str>>),
    /// Ask for these, too, and tell when all names were tried.
    Add(BTreeSet<Arc<str>>, oneshot::Sender<()>),
}

impl Resolver {
    /// Starts the thread. `report` is called on it with answers.
    pub(crate) fn start(
        options: DnsOptions,
        registry: &Registry,
        report: impl FnMut(Vec<Answer>) + Send + 'static,
    ) -> Result<Self, crate::Error> {
        let metrics = Metrics::new(registry)?;
        let failed = |source| crate::Error::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (commands, received) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                let running = Running::new(options, metrics, Box::new(report));
                runtime.block_on(running.run(received));
            })
            .map_err(failed)?;
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// The names that are to be known from now on.
    pub(crate) fn set(&self, names: BTreeSet<Arc<str>>) {
        self.send(Command::Set(names));
    }

    /// Further names; the receiver hears of it once each name was tried.
    pub(crate) fn add(&self, names: BTreeSet<Arc<str>>) -> oneshot::Receiver<()> {
        let (tried, all_tried) = oneshot::channel();
        self.send(Command::Add(names, tried));
        all_tried
    }

    fn send(&self, command: Command) {
        let sent = self.commands.as_ref().map(|commands| commands.send(command));
        if sent.is_some_and(|sent| sent.is_err()) {
            tracing::error!("the resolver has ended unexpectedly: names of endpoints are no longer resolved");
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst, and said so.
            let _ = thread.join();
        }
    }
}

/// Counts of the resolver.
struct Metrics {
    lookups: IntCounterVec,
    names: IntGauge,
    stale: IntGauge,
}

impl Metrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Questions for the addresses of a name, by how they ended";
        let lookups = IntCounterVec::new(Opts::new("edge_dns_lookups_total", help), &["result"])?;
        let names = IntGauge::new("edge_dns_names", "Names that endpoints are resolved from")?;
        let help = "Names whose last question was not answered; their last good answer is in use";
        let stale = IntGauge::new("edge_dns_names_stale", help)?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(names.clone()))?;
        registry.register(Box::new(stale.clone()))?;
        Ok(Self {
            lookups,
            names,
            stale,
        })
    }

    fn looked_up(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Addresses(..) => "answered",
            Outcome::Nothing => "empty",
            Outcome::Failed(_) => "failed",
        };
        self.lookups.with_label_values(&[result]).inc();
    }

    fn gauge(&self, schedule: &Schedule) {
        let (names, stale) = schedule.counts();
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.names.set(number(names));
        self.stale.set(number(stale));
    }
}

/// How a question ended.
#[derive(Debug)]
enum Outcome {
    Addresses(Vec<IpAddr>, Duration),
    /// There is no such name, or it has no address.
    Nothing,
    Failed(String),
}

struct Running {
    options: DnsOptions,
    schedule: Schedule,
    servers: Servers,
    under_way: JoinSet<(Arc<str>, Outcome)>,
    waiting: Vec<oneshot::Sender<()>>,
    metrics: Metrics,
    report: Box<dyn FnMut(Vec<Answer>) + Send>,
}

impl Running {
    fn new(options: DnsOptions, metrics: Metrics, report: Box<dyn FnMut(Vec<Answer>) + Send>) -> Self {
        Self {
            schedule: Schedule::new(Bounds {
                min_ttl: options.min_ttl,
                max_ttl: options.max_ttl,
            }),
            servers: Servers::default(),
            under_way: JoinSet::new(),
            waiting: Vec::new(),
            metrics,
            report,
            options,
        }
    }

    /// Works until the sender of the commands is gone.
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            self.ask();
            let next = self.schedule.next().filter(|_| self.under_way.len() < AT_ONCE);
            // Whatever ends the sleep, the loop looks at everything anew.
            let sleep = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Set(names)) => self.schedule.set(&names, Instant::now()),
                    Some(Command::Add(names, tried)) => {
                        self.schedule.add(&names, Instant::now());
                        self.waiting.push(tried);
                    }
                    None => return,
                },
                Some(ended) = self.under_way.join_next() => self.ended(ended).await,
                () = sleep => {}
            }
            self.metrics.gauge(&self.schedule);
            if self.schedule.all_tried() {
                for waiting in self.waiting.drain(..) {
                    // Whoever asked may have gone.
                    let _ = waiting.send(());
                }
            }
        }
    }

    /// Begins what is due.
    fn ask(&mut self) {
        while self.under_way.len() < AT_ONCE
            && let Some(name) = self.schedule.take(Instant::now())
        {
            let resolver = self.servers.resolver(&self.options);
            let is_full = !self.options.name_servers.is_empty();
            self.under_way.spawn(async move {
                let outcome = match resolver {
                    Ok(resolver) => look_up(&resolver, &name, is_full).await,
                    Err(error) => Outcome::Failed(error),
                };
                (name, outcome)
            });
        }
    }

    /// Takes up what has ended, and what ends at about the same time.
    async fn ended(&mut self, first: Result<(Arc<str>, Outcome), tokio::task::JoinError>) {
        let mut ended = vec![first];
        let soon = tokio::time::sleep(TOGETHER);
        tokio::pin!(soon);
        loop {
            tokio::select! {
                biased;
                Some(next) = self.under_way.join_next() => ended.push(next),
                () = &mut soon => break,
            }
        }
        let answers: Vec<_> = ended
            .into_iter()
            .filter_map(|ended| self.take_up(ended.ok()?))
            .collect();
        if !answers.is_empty() {
            (self.report)(answers);
        }
    }

    fn take_up(&mut self, (name, outcome): (Arc<str>, Outcome)) -> Option<Answer> {
        self.metrics.looked_up(&outcome);
        let (ended, addresses) = match outcome {
            Outcome::Addresses(addresses, ttl) => (Ended::Answered(ttl), Some(addresses)),
            Outcome::Nothing => {
                tracing::warn!(%name, "the name of an endpoint has no address");
                (Ended::Answered(Duration::ZERO), Some(vec![]))
            }
            Outcome::Failed(error) => {
                tracing::warn!(%name, %error, "the name of an endpoint cannot be resolved; its last answer stays in use");
                (Ended::Failed, None)
            }
        };
        let is_wanted = self.schedule.ended(&name, ended, Instant::now(), fastrand::f64());
        addresses
            .filter(|_| is_wanted)
            .map(|addresses| (name, addresses.into()))
    }
}

/// The resolver, made anew when the system's configuration has changed.
#[derive(Default)]
struct Servers {
    made: Option<(Option<SystemTime>, TokioResolver)>,
}

impl Servers {
    fn resolver(&mut self, options: &DnsOptions) -> Result<TokioResolver, String> {
        let changed = match options.name_servers.is_empty() {
            true => std::fs::metadata(RESOLV_CONF)
                .and_then(|meta| meta.modified())
                .ok(),
            false => None,
        };
        if let Some((of, resolver)) = &self.made
            && *of == changed
        {
            return Ok(resolver.clone());
        }
        let resolver = make(options).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        self.made = Some((changed, resolver.clone()));
        Ok(resolver)
    }
}

fn make(options: &DnsOptions) -> Result<TokioResolver, NetError> {
    let mut builder = match options.name_servers.as_slice() {
        [] => TokioResolver::builder_tokio()?,
        servers => {
            let servers = servers.iter().map(|server| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                NameServerConfig::new(server.ip(), true, connections)
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let own: &mut ResolverOpts = builder.options_mut();
    own.timeout = options.timeout;
    own.attempts = 1;
    // When an answer is asked for anew is decided here.
    own.cache_size = 0;
    // As Istio's V4_PREFERRED: a node may well have no way to IPv6.
    own.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build()
}

/// Asks for a name; one that `is_full` is not looked for in search domains.
async fn look_up(resolver: &TokioResolver, name: &str, is_full: bool) -> Outcome {
    let asked = match is_full && !name.ends_with('.') {
        true => format!("{name}."),
        false => name.to_owned(),
    };
    match resolver.lookup_ip(asked).await {
        Ok(found) => {
            let ttl = found.valid_until().saturating_duration_since(Instant::now());
            match found.iter().collect::<Vec<_>>() {
                none if none.is_empty() => Outcome::Nothing,
                addresses => Outcome::Addresses(addresses, ttl),
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            Outcome::Nothing
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
