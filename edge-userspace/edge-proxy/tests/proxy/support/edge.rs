//! A proxy under test.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_model::Penalty;
use edge_proxy::{Drained, Proxy, ProxyOptions};
use prometheus::{Encoder, Registry, TextEncoder};
use socket2::{Domain, Socket, Type};

use super::Snap;

/// A running proxy, with what it has reported.
pub(crate) struct Edge {
    pub(crate) proxy: Proxy,
    registry: Registry,
    penalties: Arc<Mutex<Vec<Penalty>>>,
}

impl Edge {
    /// Two workers and default timeouts.
    pub(crate) fn start(snap: Snap) -> Self {
        Self::start_with(snap, ProxyOptions::new(2))
    }

    pub(crate) fn start_with(snap: Snap, options: ProxyOptions) -> Self {
        let registry = Registry::new();
        let penalties = Arc::new(Mutex::new(Vec::new()));
        let reported = Arc::clone(&penalties);
        let report = move |penalty| reported.lock().unwrap().push(penalty);
        let proxy = Proxy::start(options, &snap.build(), report, &registry).unwrap();
        Self {
            proxy,
            registry,
            penalties,
        }
    }

    pub(crate) fn apply(&self, snap: Snap) {
        self.proxy.apply(&snap.build()).unwrap();
    }

    /// Drains to the end, on a runtime of its own.
    pub(crate) fn drain(self, deadline: Duration) -> Drained {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.proxy.drain(deadline))
    }

    pub(crate) fn penalties(&self) -> Vec<Penalty> {
        self.penalties.lock().unwrap().clone()
    }

    /// The samples of a metric as text.
    pub(crate) fn lines(&self, name: &str) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|line| line.starts_with(name)).collect()
    }

    /// Sum of the samples of a metric whose line has all of the given parts.
    pub(crate) fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        let is_meant = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        };
        let lines = text.lines().filter(is_meant);
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Asserts that so many requests are counted under a response flag. A request is counted once its connection
    /// has let go of it, which may be after the client has its answer.
    #[track_caller]
    pub(crate) fn expect_flagged(&self, flag: &str, expected: u64) {
        self.expect_metric(
            "istio_requests_total",
            &[&format!("response_flags=\"{flag}\"")],
            expected,
        );
    }

    /// Asserts that a metric comes to a value.
    #[track_caller]
    pub(crate) fn expect_metric(&self, name: &str, parts: &[&str], expected: u64) {
        let expected = expected as f64;
        let is_there = || self.metric(name, parts) == expected;
        assert!(
            eventually(is_there),
            "{name} {parts:?} is {}, not {expected}",
            self.metric(name, parts)
        );
    }
}

/// Whether a condition holds within five seconds.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    condition()
}

/// Ports that tests were given. None is given twice: some listen anew on theirs, and their clients, or edges whose endpoint it
/// was, would meet somebody else's listener.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A listener on a port of its own, which nobody else gets even after it has ended.
pub(crate) fn listener(address: SocketAddr) -> TcpListener {
    loop {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        // A port that was asked for is the caller's own.
        if address.port() != 0 || GIVEN.lock().unwrap().insert(port) {
            return listener;
        }
    }
}

/// A port that nobody listens on just now, and that no other test was given.
pub(crate) fn free_port() -> u16 {
    listener("[::]:0".parse().unwrap()).local_addr().unwrap().port()
}

/// An address that refuses connections: of a socket that is bound and never listens, so that nobody else gets its port.
pub(crate) fn refusing() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
