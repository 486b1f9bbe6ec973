//! Which endpoints are preferred over many requests: localities, ejections, warm-up, and keys of consistent hashes.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_model::{
    Cluster, ConsistentHash, HashAlgorithm, HashKey, LoadBalancer, LocalityPolicy, OutlierDetection,
    SlowStart,
};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, eventually, forward, free_port, prefix, route, service,
    service_with,
};

fn snap(port: u16, cluster: Cluster) -> Snap {
    Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster)
}

/// How many of so many requests each backend answered, by its name.
fn answered(port: u16, requests: u32) -> HashMap<String, u32> {
    let mut client = Client::connect(port);
    let mut counts = HashMap::new();
    for _ in 0..requests {
        let name = client.get("a", "/").unwrap().told("backend");
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Asserts a share of all requests, within seven standard deviations.
#[track_caller]
fn expect_share(counts: &HashMap<String, u32>, name: &str, share: f64) {
    let all: u32 = counts.values().sum();
    let count = f64::from(counts.get(name).copied().unwrap_or(0));
    let deviation = (f64::from(all) * share * (1.0 - share)).sqrt();
    let mean = f64::from(all) * share;
    assert!(
        (count - mean).abs() <= 7.0 * deviation,
        "{name}: not about {mean} in {counts:?}"
    );
}

/// The service with its endpoints in localities, and with priorities.
fn placed(addresses: &[SocketAddr], places: &[(&str, u32)]) -> Cluster {
    let mut cluster = service_with("web", addresses, LoadBalancer::Random);
    for (endpoint, (locality, priority)) in cluster.endpoints.iter_mut().zip(places) {
        endpoint.locality = (*locality).into();
        endpoint.priority = *priority;
    }
    cluster
}

#[test]
fn localities_have_the_shares_that_are_distributed_to_them() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let port = free_port();
    let shares = vec![("near/1".into(), 80), ("far/1".into(), 20)];
    let cluster = Cluster {
        locality: LocalityPolicy::Distribute(shares),
        ..placed(&addresses, &[("near/1", 0), ("far/1", 0), ("far/1", 0)])
    };
    let _edge = Edge::start(snap(port, cluster));
    let counts = answered(port, 1000);
    for (name, share) in [("a", 0.8), ("b", 0.1), ("c", 0.1)] {
        expect_share(&counts, name, share);
    }
}

/// An endpoint that fails for as long as it is told to, with the times of its requests.
struct Moody {
    backend: RawBackend,
    fails: Arc<AtomicU64>,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Moody {
    /// Fails its first `failures` requests.
    fn start(name: &'static str, failures: u64) -> Self {
        let fails = Arc::new(AtomicU64::new(failures));
        let times = Arc::new(Mutex::new(Vec::new()));
        let (left, seen) = (Arc::clone(&fails), Arc::clone(&times));
        let backend = RawBackend::start(move |mut stream, _| {
            while !RawBackend::read_head(&mut stream).is_empty() {
                seen.lock().unwrap().push(Instant::now());
                let less = |left: u64| left.checked_sub(1);
                let is_ill = left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .is_ok();
                let status = if is_ill { "500 X" } else { "200 OK" };
                let body = format!("backend: {name}\n");
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self {
            backend,
            fails,
            times,
        }
    }

    fn requests(&self) -> usize {
        self.times.lock().unwrap().len()
    }
}

fn detection(consecutive: u32, base: Duration, max_ejection_percent: u32) -> Option<OutlierDetection> {
    Some(OutlierDetection {
        consecutive_5xx: Some(consecutive),
        base_ejection_time: base,
        max_ejection_percent,
        ..OutlierDetection::default()
    })
}

#[test]
fn the_next_locality_takes_over_while_the_preferred_one_is_ill_and_gives_back() {
    const FAILURES: u64 = 2;
    let near = Moody::start("near", FAILURES);
    let far = Backend::start("far");
    let port = free_port();
    let cluster = Cluster {
        locality: LocalityPolicy::Priority,
        outlier_detection: detection(2, Duration::from_millis(800), 100),
        ..placed(&[near.backend.address, far.address], &[("near", 0), ("far", 1)])
    };
    let _edge = Edge::start(snap(port, cluster));
    let mut client = Client::connect(port);
    for _ in 0..FAILURES {
        assert_eq!(client.get("a", "/").unwrap().status, 500);
    }
    assert_eq!(client.get("a", "/").unwrap().told("backend"), "far");
    assert_eq!(
        near.requests(),
        2,
        "the far one is asked only once the near one is ill"
    );
    assert!(eventually(
        || client.get("a", "/").unwrap().told("backend") == "near"
    ));
    assert_eq!(near.fails.load(Ordering::SeqCst), 0);
    let far_before = far.hits();
    for _ in 0..50 {
        assert_eq!(client.get("a", "/").unwrap().told("backend"), "near");
    }
    assert_eq!(far.hits(), far_before, "all of it comes back");
}

#[test]
fn each_ejection_is_longer_than_the_one_before() {
    const BASE: Duration = Duration::from_millis(250);
    /// What the clock of a cluster counts in.
    const TICK: Duration = Duration::from_millis(1);
    let (good, bad) = (Backend::start("good"), Moody::start("bad", u64::MAX));
    let port = free_port();
    let cluster = Cluster {
        outlier_detection: detection(1, BASE, 50),
        ..service("web", &[good.address, bad.backend.address])
    };
    let _edge = Edge::start(snap(port, cluster));
    let mut client = Client::connect(port);
    assert!(eventually(|| {
        client.get("a", "/").unwrap();
        bad.requests() == 4
    }));
    let times = bad.times.lock().unwrap().clone();
    for (number, pair) in (1..).zip(times.windows(2)) {
        let out = pair[1] - pair[0];
        assert!(out + TICK >= BASE * number, "ejection {number} lasted {out:?}");
    }
}

#[test]
fn no_more_endpoints_are_ejected_than_their_share() {
    let all: Vec<_> = (0..4).map(|_| Moody::start("bad", u64::MAX)).collect();
    let addresses: Vec<_> = all.iter().map(|moody| moody.backend.address).collect();
    for (percent, out) in [(0, 1), (10, 1), (50, 2), (75, 3), (100, 4)] {
        let before: Vec<_> = all.iter().map(Moody::requests).collect();
        let port = free_port();
        let cluster = Cluster {
            outlier_detection: detection(2, Duration::from_secs(60), percent),
            ..service("web", &addresses)
        };
        let edge = Edge::start(snap(port, cluster));
        let mut client = Client::connect(port);
        for _ in 0..60 {
            assert!(client.get("a", "/").unwrap().status >= 500);
        }
        let requests = all
            .iter()
            .zip(&before)
            .map(|(moody, before)| moody.requests() - before);
        let ejected = requests.filter(|requests| *requests == 2).count();
        assert_eq!(ejected, out, "{percent} %");
        let unhealthy = edge.metric("istio_requests_total", &["response_flags=\"UH\""]);
        assert_eq!(unhealthy > 0.0, out == 4, "{percent} %");
    }
}

#[test]
fn a_new_endpoint_warms_up() {
    const REQUESTS: u32 = 500;
    const WARM_UP: Duration = Duration::from_secs(1);
    let backends = ["old", "new"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let port = free_port();
    let cluster = |addresses: &[SocketAddr]| Cluster {
        slow_start: Some(SlowStart {
            duration: WARM_UP,
            minimum_percent: 10.0,
            aggression: 1.0,
        }),
        ..service("web", addresses)
    };
    let edge = Edge::start(snap(port, cluster(&addresses[..1])));
    // All that makes the old one old is time.
    std::thread::sleep(WARM_UP);
    edge.apply(snap(port, cluster(&addresses)));
    let begin = Instant::now();
    let counts = answered(port, REQUESTS);
    // Its weight has grown from a tenth of the other one's to what the time that has passed gives it.
    let grown = (begin.elapsed().as_secs_f64() / WARM_UP.as_secs_f64()).clamp(0.1, 1.0);
    let share = |weight: f64| f64::from(REQUESTS) * weight / (1.0 + weight);
    let new = f64::from(counts.get("new").copied().unwrap_or(0));
    let (least, most) = (share(0.1) - 5.0, share(grown) + 5.0);
    assert!((least..=most).contains(&new), "not {least} to {most}: {counts:?}");
    std::thread::sleep(WARM_UP);
    expect_share(&answered(port, REQUESTS), "new", 0.5);
}

fn hashing(key: HashKey, algorithm: HashAlgorithm) -> LoadBalancer {
    LoadBalancer::ConsistentHash(ConsistentHash { key, algorithm })
}

const ALGORITHMS: [HashAlgorithm; 2] = [
    HashAlgorithm::RingHash {
        minimum_ring_size: HashAlgorithm::MINIMUM_RING_SIZE,
    },
    HashAlgorithm::Maglev {
        table_size: HashAlgorithm::TABLE_SIZE,
    },
];

#[test]
fn an_endpoint_that_goes_takes_its_own_keys_along_and_few_others() {
    const KEYS: usize = 300;
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    for algorithm in ALGORITHMS {
        let port = free_port();
        let balancer = hashing(HashKey::QueryParameter("user".into()), algorithm);
        let with = |addresses: &[SocketAddr]| snap(port, service_with("web", addresses, balancer.clone()));
        let edge = Edge::start(with(&addresses));
        let mut client = Client::connect(port);
        let mut homes = || {
            let ask = |user| {
                client
                    .get("a", &format!("/?x=1&user={user}"))
                    .unwrap()
                    .told("backend")
            };
            (0..KEYS).map(ask).collect::<Vec<_>>()
        };
        let before = homes();
        assert_eq!(homes(), before, "{algorithm:?}");
        assert_eq!(before.iter().collect::<HashSet<_>>().len(), 3, "{algorithm:?}");
        edge.apply(with(&addresses[..2]));
        let after = homes();
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| *before != "c" && before != after)
            .count();
        // A ring moves none of the others, Maglev a few (NSDI '16, section 5.3).
        let most = match algorithm {
            HashAlgorithm::RingHash { .. } => 0,
            HashAlgorithm::Maglev { .. } => KEYS / 20,
        };
        assert!(moved <= most, "{algorithm:?}: {moved} moved");
        edge.apply(with(&addresses));
        assert_eq!(homes(), before, "{algorithm:?}: all come home");
    }
}

/// A client at this address of the loopback.
fn client_at(address: Ipv4Addr, port: u16) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&server.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

#[test]
fn clients_at_one_address_go_to_one_endpoint() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    for algorithm in ALGORITHMS {
        let port = free_port();
        let balancer = hashing(HashKey::SourceIp, algorithm);
        let _edge = Edge::start(snap(port, service_with("web", &addresses, balancer)));
        let mut used = HashSet::new();
        for last in 1..=30 {
            let home = || {
                let mut client = client_at(Ipv4Addr::new(127, 0, 9, last), port);
                client.get("a", "/").unwrap().told("backend")
            };
            let first = home();
            // Over connections to both workers.
            assert!((0..3).all(|_| home() == first), "{algorithm:?}");
            used.insert(first);
        }
        assert_eq!(used.len(), 3, "{algorithm:?}");
    }
}
