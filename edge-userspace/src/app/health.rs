//! Probing the workers of pools, and taking those out that do not answer.
//!
//! What a row of outcomes means is decided in [`edge_upstream::health`]; here are the connections, the clock and the
//! tasks. A probe goes to the worker's own address, never to a virtual one, so it says nothing of the way through tier 1.
//! This node's gateway workers are not probed: a worker that ends closes its sockets, and socket selection passes over
//! it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use edge_datapath::MemberId;
use edge_model::{DataPathConfig, HealthCheck, MemberState, Probe};
use edge_upstream::health::{Health, Outcome, Verdict, next_probe};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::status::HealthStatus;

/// Outcomes on their way to the one who decides.
const QUEUE: usize = 256;

/// A worker by its pool, its name and its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) pool: Arc<str>,
    pub(crate) worker: Arc<str>,
    pub(crate) address: IpAddr,
}

/// What came of a probe of a worker; the error says why it failed.
pub(crate) type Probed = (Target, Result<(), String>);

/// The workers that are probed.
#[derive(Debug)]
pub(crate) struct Probes {
    outcomes: mpsc::Sender<Probed>,
    workers: BTreeMap<Target, Watched>,
    /// Workers that an earlier process took out, until this one begins to probe.
    inherited_down: BTreeSet<Target>,
}

#[derive(Debug)]
struct Watched {
    check: HealthCheck,
    health: Health,
    /// Held for its drop.
    _task: Task,
    /// Why the last probe failed; `None` if it passed.
    error: Option<String>,
}

impl Probes {
    /// No workers yet, and where outcomes arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Probed>) {
        let (outcomes, receiver) = mpsc::channel(QUEUE);
        let probes = Self {
            outcomes,
            workers: BTreeMap::new(),
            inherited_down: BTreeSet::new(),
        };
        (probes, receiver)
    }

    /// Has workers that an earlier process took out stay so, until probes pass: taken for healthy, they would get
    /// connections for as many probes as it takes to find them dead anew.
    pub(crate) fn begin_down(&mut self, workers: impl IntoIterator<Item = MemberId>) {
        let target = |worker: MemberId| Target {
            pool: worker.pool,
            worker: worker.name,
            address: worker.address,
        };
        self.inherited_down = workers.into_iter().map(target).collect();
    }

    /// Probes the workers of a configuration and no others. One that stays keeps what is known of it. It is to be called
    /// inside of a runtime, which the probes run on.
    pub(crate) fn follow(&mut self, config: &DataPathConfig) {
        let mut next = BTreeMap::new();
        for (target, check) in wanted(config) {
            let watched = match self.workers.remove(&target) {
                Some(watched) if watched.check == *check => watched,
                old => Watched {
                    check: check.clone(),
                    health: old.map_or_else(|| self.first(&target), |old| old.health.clone()),
                    _task: Task(tokio::spawn(watch(
                        target.clone(),
                        check.clone(),
                        self.outcomes.clone(),
                    ))),
                    error: None,
                },
            };
            next.insert(target, watched);
        }
        self.workers = next;
        self.inherited_down.clear();
    }

    /// What is thought of a worker that is probed from now on.
    fn first(&self, target: &Target) -> Health {
        if !self.inherited_down.contains(target) {
            return Health::new();
        }
        let (pool, worker) = (&*target.pool, &*target.worker);
        tracing::warn!(
            pool,
            worker,
            "worker was unhealthy before the restart: it stays out until probes pass"
        );
        Health::inherited(Verdict::Unhealthy)
    }

    /// Takes an outcome; true if it takes the worker out or puts it back.
    pub(crate) fn observe(&mut self, (target, outcome): Probed, now: Instant) -> bool {
        let Some(watched) = self.workers.get_mut(&target) else {
            return false;
        };
        let kind = if outcome.is_ok() {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        watched.error = outcome.err();
        let Some(verdict) = watched.health.observe(&watched.check, kind, now) else {
            return false;
        };
        let (pool, worker) = (&*target.pool, &*target.worker);
        match verdict {
            Verdict::Healthy => tracing::info!(pool, worker, "worker is healthy again"),
            Verdict::Unhealthy => {
                let error = watched.error.as_deref().unwrap_or_default();
                tracing::warn!(pool, worker, error, "worker is unhealthy: it is taken out");
            }
        }
        true
    }

    /// The configuration with the unhealthy workers down.
    pub(crate) fn overlay(&self, config: &DataPathConfig) -> DataPathConfig {
        let mut config = config.clone();
        for pool in &mut config.pools {
            for member in &mut pool.members {
                let target = Target {
                    pool: Arc::clone(&pool.name),
                    worker: Arc::clone(&member.name),
                    address: member.address,
                };
                if self.verdict(&target) == Some(Verdict::Unhealthy) {
                    member.state = MemberState::Down;
                }
            }
        }
        config
    }

    /// What is thought of a worker; `None` if it is not probed.
    pub(crate) fn verdict(&self, target: &Target) -> Option<Verdict> {
        self.workers.get(target).map(|watched| watched.health.verdict())
    }

    /// What the probes of a worker say; `None` if it is not probed.
    pub(crate) fn status(&self, target: &Target) -> Option<HealthStatus> {
        let watched = self.workers.get(target)?;
        let (passed, failed) = watched.health.counts();
        Some(HealthStatus {
            healthy: watched.health.verdict() == Verdict::Healthy,
            passed,
            failed,
            error: watched.error.clone(),
        })
    }
}

/// Every worker of a pool with a health check, unless it is down by configuration.
fn wanted(config: &DataPathConfig) -> impl Iterator<Item = (Target, &HealthCheck)> {
    config.pools.iter().flat_map(|pool| {
        let check = config.health.get(&pool.name);
        let members = pool
            .members
            .iter()
            .filter(|member| member.state != MemberState::Down);
        members.filter_map(move |member| {
            let target = Target {
                pool: Arc::clone(&pool.name),
                worker: Arc::clone(&member.name),
                address: member.address,
            };
            Some((target, check?))
        })
    })
}

/// Probes a worker again and again.
async fn watch(target: Target, check: HealthCheck, outcomes: mpsc::Sender<Probed>) {
    loop {
        let outcome = tokio::time::timeout(check.timeout, probe(target.address, &check.probe)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {:?}", check.timeout)));
        if outcomes.send((target.clone(), outcome)).await.is_err() {
            return;
        }
        tokio::time::sleep(next_probe(&check, fastrand::f64())).await;
    }
}

/// One probe.
async fn probe(address: IpAddr, probe: &Probe) -> Result<(), String> {
    let (Probe::Tcp { port } | Probe::Http { port, .. }) = *probe;
    let address = SocketAddr::new(address, port);
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    match probe {
        Probe::Tcp { .. } => Ok(()),
        Probe::Http { path, host, .. } => {
            let host = host.clone().unwrap_or_else(|| address.to_string());
            let status = get(stream, path, &host)
                .await
                .map_err(|error| format!("{address}: {error}"))?;
            // What Kubernetes takes for an answer of its HTTP probes.
            if (200..400).contains(&status) {
                Ok(())
            } else {
                Err(format!("{address}: status {status}"))
            }
        }
    }
}

/// Status of a GET.
async fn get(stream: TcpStream, path: &str, host: &str) -> Result<u16, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let _driver = Task(tokio::spawn(async move {
        // What went wrong on the connection, the request says.
        let _ = connection.await;
    }));
    let request = hyper::Request::get(path)
        .header("host", host)
        .header("user-agent", "edge-health-check")
        .header("connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    response
        .map(|response| response.status().as_u16())
        .map_err(|error| error.to_string())
}

/// A task that ends with the value.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use edge_model::{ForwardMode, Member, Pool};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Ample: a probe of the loopback takes a millisecond.
    const LIMIT: Duration = Duration::from_secs(20);

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn config(probe: Probe) -> DataPathConfig {
        let member = Member {
            name: "node-1".into(),
            number: None,
            address: LOOPBACK,
            mode: ForwardMode::Ipip,
            weight: 1,
            state: MemberState::Active,
            next_hop: None,
        };
        let pool = Pool {
            name: "web".into(),
            members: vec![member],
        };
        let check = HealthCheck {
            probe,
            interval: Duration::from_millis(10),
            timeout: LIMIT,
            unhealthy_threshold: 2,
            healthy_threshold: 2,
            hold: Duration::ZERO,
        };
        DataPathConfig {
            health: [("web".into(), check)].into(),
            pools: vec![pool],
            ..DataPathConfig::default()
        }
    }

    /// A port that nobody listens on (tcpmux, RFC 1078).
    const NOBODY: u16 = 1;

    /// Answers every connection with these bytes, or with those if it is told that it is ill.
    async fn server(well: &'static str, ill: &'static str, is_ill: Arc<AtomicBool>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = if is_ill.load(Ordering::Relaxed) { ill } else { well };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

    fn http(port: u16) -> Probe {
        Probe::Http {
            port,
            path: "/healthz".into(),
            host: None,
        }
    }

    #[tokio::test]
    async fn probes_pass_on_what_a_worker_in_good_order_answers() {
        let well = Arc::new(AtomicBool::new(false));
        let good = server(GOOD, "", Arc::clone(&well)).await;
        let bad = server(BAD, "", Arc::clone(&well)).await;
        let mute = server("", "", well).await;
        let rows = [
            ("a status below 400", http(good), None),
            ("a status of failure", http(bad), Some("status 503")),
            ("no HTTP", http(mute), Some("127.0.0.1")),
            ("nobody", http(NOBODY), Some("refused")),
            ("a connection", Probe::Tcp { port: bad }, None),
            ("none", Probe::Tcp { port: NOBODY }, Some("refused")),
        ];
        for (name, wanted, error) in rows {
            let outcome = probe(LOOPBACK, &wanted).await;
            let found = outcome.as_ref().err();
            assert_eq!(found.is_none(), error.is_none(), "{name}: {outcome:?}");
            assert!(
                found.is_none_or(|found| found.contains(error.unwrap_or_default())),
                "{name}: {outcome:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_worker_that_does_not_answer_goes_down_and_comes_back() {
        let is_ill = Arc::new(AtomicBool::new(true));
        let config = config(http(server(GOOD, BAD, Arc::clone(&is_ill)).await));
        let (mut probes, mut outcomes) = Probes::new();
        probes.follow(&config);
        let state = |probes: &Probes| probes.overlay(&config).pools[0].members[0].state;
        assert_eq!(state(&probes), MemberState::Active, "until probes say otherwise");
        let mut seen = Vec::new();
        let changes = async {
            while seen.len() < 2 {
                let outcome = outcomes.recv().await.expect("the sender lives");
                if probes.observe(outcome, Instant::now()) {
                    seen.push(state(&probes));
                    is_ill.store(false, Ordering::Relaxed);
                }
            }
        };
        tokio::time::timeout(LIMIT, changes).await.expect("in time");
        assert_eq!(seen, [MemberState::Down, MemberState::Active]);
        let target = wanted(&config).next().expect("one").0;
        let status = probes.status(&target).expect("probed");
        assert!(
            status.healthy && status.passed >= 2 && status.failed >= 2 && status.error.is_none(),
            "{status:?}"
        );
        probes.follow(&DataPathConfig::default());
        assert_eq!(probes.verdict(&target), None, "it is probed no longer");
    }

    #[tokio::test]
    async fn a_worker_that_was_down_before_the_restart_stays_so_until_probes_pass() {
        let is_ill = Arc::new(AtomicBool::new(true));
        let mut config = config(http(server(GOOD, BAD, Arc::clone(&is_ill)).await));
        let other = Member {
            name: "node-2".into(),
            ..config.pools[0].members[0].clone()
        };
        config.pools[0].members.push(other);
        let (mut probes, mut outcomes) = Probes::new();
        let first = MemberId {
            pool: "web".into(),
            name: "node-1".into(),
            address: LOOPBACK,
            mode: ForwardMode::Ipip,
        };
        probes.begin_down([first]);
        probes.follow(&config);
        let states = |probes: &Probes| {
            let config = probes.overlay(&config);
            [0, 1].map(|member| config.pools[0].members[member].state)
        };
        assert_eq!(states(&probes), [MemberState::Down, MemberState::Active]);
        is_ill.store(false, Ordering::Relaxed);
        let passes = async {
            while states(&probes) != [MemberState::Active; 2] {
                let outcome = outcomes.recv().await.expect("the sender lives");
                probes.observe(outcome, Instant::now());
            }
        };
        tokio::time::timeout(LIMIT, passes).await.expect("in time");
        // Later configurations know nothing of it.
        probes.follow(&DataPathConfig::default());
        probes.follow(&config);
        assert_eq!(states(&probes), [MemberState::Active; 2]);
    }
}
