//! LEAST_REQUEST: who gets a request while endpoints have others under way.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use edge_model::LoadBalancer;
use edge_proxy::ProxyOptions;

use crate::support::{
    Client, Edge, RawBackend, Snap, eventually, forward, free_port, prefix, route, service_with,
};

/// Answers at once, or, while it is to hold requests, not at all.
struct Endpoint {
    backend: RawBackend,
    holds: Arc<AtomicBool>,
    held: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

impl Endpoint {
    fn start() -> Self {
        let holds = Arc::<AtomicBool>::default();
        let (held, answered) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (is_holding, holding, counter) = (Arc::clone(&holds), Arc::clone(&held), Arc::clone(&answered));
        let backend = RawBackend::start(move |mut stream, _| {
            loop {
                let head = RawBackend::read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                if is_holding.load(Ordering::SeqCst) {
                    holding.fetch_add(1, Ordering::SeqCst);
                    // Until the gateway lets go of it.
                    let _ = stream.read(&mut [0]);
                    holding.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            backend,
            holds,
            held,
            answered,
        }
    }

    fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

/// Endpoints with weights and a gateway before them.
struct Lab {
    endpoints: Vec<Endpoint>,
    _edge: Edge,
    port: u16,
}

impl Lab {
    fn new(weights: &[u32], workers: u16) -> Self {
        let endpoints: Vec<_> = weights.iter().map(|_| Endpoint::start()).collect();
        let addresses: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.backend.address)
            .collect();
        let mut web = service_with("web", &addresses, LoadBalancer::LeastRequest);
        for (endpoint, weight) in web.endpoints.iter_mut().zip(weights) {
            endpoint.weight = *weight;
        }
        let port = free_port();
        let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(web);
        Self {
            endpoints,
            _edge: Edge::start_with(snap, ProxyOptions::new(workers)),
            port,
        }
    }

    /// Has so many requests hang at each endpoint until the clients that are returned go away.
    fn hold(&self, counts: &[u64]) -> Vec<Client> {
        let set = |holds| {
            self.endpoints
                .iter()
                .for_each(|own| own.holds.store(holds, Ordering::SeqCst))
        };
        let held = || self.endpoints.iter().map(Endpoint::held).collect::<Vec<_>>();
        set(true);
        let mut clients = Vec::new();
        // As they are balanced, others have some, too, until each has its own.
        while held().iter().zip(counts).any(|(held, count)| held < count) {
            assert!(clients.len() < 1000, "{:?} of {counts:?}", held());
            let before = held();
            let mut client = Client::connect(self.port);
            client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            assert!(eventually(|| held() != before));
            let index = held().iter().zip(before).position(|(now, before)| *now != before);
            clients.push((index.unwrap(), client));
        }
        let mut kept = vec![0; counts.len()];
        clients.retain(|(index, _)| {
            kept[*index] += 1;
            kept[*index] <= counts[*index]
        });
        assert!(eventually(|| held() == counts), "{:?}", held());
        set(false);
        clients.into_iter().map(|(_, client)| client).collect()
    }

    /// Answers of each endpoint to so many requests, one after the other.
    fn ask(&self, requests: u64) -> Vec<u64> {
        let before: Vec<_> = self.endpoints.iter().map(Endpoint::answered).collect();
        let mut client = Client::connect(self.port);
        for _ in 0..requests {
            assert_eq!(client.get("a", "/").unwrap().status, 200);
        }
        let now = self.endpoints.iter().zip(before);
        now.map(|(endpoint, before)| endpoint.answered() - before)
            .collect()
    }
}

#[test]
fn endpoints_of_several_weights_share_by_weight_over_the_requests_that_they_have() {
    const ROUNDS: u64 = 50;
    // Weights, requests that hang at each endpoint, and what is left: weight / (active requests + 1).
    let rows: [(&[u32], &[u64], &[u64]); 6] = [
        (&[3, 1], &[0, 0], &[3, 1]),
        (&[1, 2, 5], &[0, 0, 0], &[1, 2, 5]),
        (&[3, 1], &[2, 0], &[1, 1]),
        (&[3, 1], &[8, 0], &[1, 3]),
        (&[1, 2, 5], &[0, 3, 4], &[2, 1, 2]),
        // A single request at the large one does not have the small one take its place.
        (&[99, 1], &[1, 0], &[99, 2]),
    ];
    for (weights, active, shares) in rows {
        let lab = Lab::new(weights, 1);
        let held = lab.hold(active);
        let requests = match shares {
            [99, 2] => 5 * 101,
            _ => ROUNDS * shares.iter().sum::<u64>(),
        };
        let counts = lab.ask(requests);
        let whole: u64 = shares.iter().sum();
        for (count, share) in counts.iter().zip(shares) {
            // Turns are taken by one worker and are exact, but for where the first one of each endpoint falls, and for the one
            // that was set while it had more requests or fewer.
            let expected = requests * share / whole;
            let slack = 3 + expected / 20;
            assert!(
                count.abs_diff(expected) <= slack,
                "{weights:?} with {active:?}: {counts:?}, and not {shares:?}"
            );
        }
        drop(held);
    }
}

#[test]
fn of_equal_endpoints_the_less_busy_of_two_is_taken_whichever_worker_keeps_the_other_busy() {
    let lab = Lab::new(&[4, 4], 2);
    // More than the one request that the idle endpoint may still have when the next one comes.
    let held = lab.hold(&[0, 3]);
    for _ in 0..20 {
        // Over connections to both workers.
        assert_eq!(lab.ask(5), [5, 0]);
    }
    drop(held);
    let both_again = || lab.ask(20).iter().all(|count| *count > 0);
    assert!(eventually(both_again), "once it is idle it has its share again");
}

#[test]
fn two_of_three_are_drawn_and_not_always_the_least_busy() {
    const REQUESTS: u64 = 600;
    let lab = Lab::new(&[1, 1, 1], 1);
    let _held = lab.hold(&[0, 3, 6]);
    let counts = lab.ask(REQUESTS);
    // Two of the three pairs have the idle one, the third one is the other two's. Seven standard deviations of the 600 draws
    // are 81: chance breaks it in 10^11 runs.
    assert!(counts[0].abs_diff(REQUESTS * 2 / 3) <= 81, "{counts:?}");
    assert_eq!(counts[2], 0, "it is the busier one in each pair");
}
