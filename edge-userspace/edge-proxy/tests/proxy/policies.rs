//! Policies of a rule that say what is tried again, and shares of requests, over many requests.
//!
//! Bounds of shares are seven standard deviations wide: chance breaks one of them in 10^11 runs.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_model::{
    CircuitBreakers, Cluster, Fault, FaultDelay, Forward, Fraction, LoadBalancer, Mirror, RetryBudget,
    RetryCondition, RetryOn, RetryPolicy, Route, RouteAction,
};
use http::StatusCode;

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, cluster, destination, eventually, free_port, get, prefix, route,
    service, service_with,
};

fn retries(attempts: u32, conditions: &[RetryCondition]) -> RetryPolicy {
    let retry_on = conditions
        .iter()
        .fold(RetryOn::NEVER, |set, condition| set.with(*condition));
    RetryPolicy {
        attempts,
        retry_on,
        base_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    }
}

fn forwarding(change: impl FnOnce(&mut Forward)) -> Route {
    let mut forward = Forward::to(vec![destination("web", 1)]);
    change(&mut forward);
    route(prefix("/"), RouteAction::Forward(forward))
}

fn retrying(policy: RetryPolicy) -> Route {
    forwarding(|forward| forward.retries = Arc::new(policy))
}

/// Answers every request with the same bytes, or closes its connection if there are none; how many requests it got.
fn answering(answer: &'static str) -> (RawBackend, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let backend = RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            counter.fetch_add(1, Ordering::SeqCst);
            if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (backend, requests)
}

/// Whether a count is what so many independent trials may bring.
#[track_caller]
fn expect_share(count: u64, trials: u32, share: f64) {
    let (mean, trials) = (f64::from(trials) * share, f64::from(trials));
    let deviation = (trials * share * (1.0 - share)).sqrt();
    assert!(
        (count as f64 - mean).abs() <= 7.0 * deviation,
        "{count} of {trials}, and not about {mean}"
    );
}

#[test]
fn each_condition_has_its_failures_tried_again_and_no_others() {
    use RetryCondition as On;
    const CLOSES: &str = "";
    const TOO_MANY: &str = "HTTP/1.1 429 X\r\nx-envoy-ratelimited: true\r\ncontent-length: 0\r\n\r\n";
    const LIMITED: &str = "HTTP/1.1 503 X\r\nx-envoy-ratelimited: true\r\ncontent-length: 0\r\n\r\n";
    macro_rules! status {
        ($code:literal) => {
            concat!("HTTP/1.1 ", $code, " X\r\ncontent-length: 0\r\n\r\n")
        };
    }
    macro_rules! grpc {
        ($code:literal) => {
            concat!(
                "HTTP/1.1 200 X\r\ngrpc-status: ",
                $code,
                "\r\ncontent-length: 0\r\n\r\n"
            )
        };
    }
    // The condition; what is tried again; what is not.
    let rows: [(On, &[&'static str], &[&'static str]); 13] = [
        (
            On::ServerError,
            &[status!(500), status!(503), CLOSES],
            &[status!(404), status!(429), LIMITED, grpc!(14)],
        ),
        (
            On::GatewayError,
            &[status!(502), status!(504), CLOSES],
            &[status!(500), status!(409)],
        ),
        (On::Reset, &[CLOSES], &[status!(503)]),
        (On::ConnectFailure, &[], &[CLOSES, status!(503)]),
        (On::ResetBeforeRequest, &[], &[CLOSES, status!(503)]),
        (On::RefusedStream, &[], &[CLOSES, status!(503)]),
        (
            On::RateLimited,
            &[TOO_MANY, LIMITED],
            &[status!(429), status!(503)],
        ),
        (On::Retriable4xx, &[status!(409)], &[status!(404), status!(503)]),
        (
            On::RetriableStatusCodes,
            &[status!(418)],
            &[status!(500), status!(404), CLOSES],
        ),
        (On::Cancelled, &[grpc!(1)], &[grpc!(14), status!(503)]),
        (On::DeadlineExceeded, &[grpc!(4)], &[grpc!(14)]),
        (On::Internal, &[grpc!(13)], &[grpc!(0), grpc!(14)]),
        (On::Unavailable, &[grpc!(14)], &[grpc!(13), status!(503)]),
    ];
    for (condition, again, once) in rows {
        let policy = RetryPolicy {
            retriable_status_codes: vec![StatusCode::IM_A_TEAPOT],
            ..retries(2, &[condition])
        };
        let again = again.iter().map(|answer| (answer, 3));
        for (answer, tries) in again.chain(once.iter().map(|answer| (answer, 1))) {
            let (web, requests) = answering(answer);
            let port = free_port();
            let snap = Snap::new(port, vec![retrying(policy.clone())]).with(service("web", &[web.address]));
            let _edge = Edge::start(snap);
            // Not idempotent, so that nothing but the policy has it sent again.
            let mut client = Client::connect(port);
            client
                .write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
            client.read("POST").unwrap();
            assert_eq!(
                requests.load(Ordering::SeqCst),
                tries,
                "{condition:?} and {answer:?}"
            );
        }
    }
}

#[test]
fn another_try_avoids_the_endpoint_that_failed() {
    const REQUESTS: u32 = 400;
    let good = Backend::start("good");
    let (bad, _) = answering("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
    let failed = |avoid_previous_hosts| {
        let policy = RetryPolicy {
            avoid_previous_hosts,
            ..retries(1, &[RetryCondition::ServerError])
        };
        let port = free_port();
        let addresses = [good.address, bad.address];
        let web = service_with("web", &addresses, LoadBalancer::Random);
        let _edge = Edge::start(Snap::new(port, vec![retrying(policy)]).with(web));
        let mut client = Client::connect(port);
        let fails = || client.get("a", "/").unwrap().status == 503;
        std::iter::repeat_with(fails)
            .take(REQUESTS as usize)
            .filter(|failed| *failed)
            .count() as u64
    };
    // Both tries at the bad one, of two.
    expect_share(failed(false), REQUESTS, 0.25);
    // One more draw for each of the five attempts to find another one (Envoy `host_selection_retry_max_attempts`).
    let most = f64::from(REQUESTS) * 0.5 * 0.5_f64.powi(5);
    let avoided = failed(true);
    assert!(
        (avoided as f64) < 4.0 * most,
        "{avoided}, and not at most about {most}"
    );
}

#[test]
fn retries_stay_within_their_share_of_the_load() {
    const CLIENTS: u32 = 40;
    const ROUNDS: u32 = 5;
    let (now, most, all) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let counters = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&all));
    // Holds each request for a while, so that many are under way at once, and then fails it.
    let web = RawBackend::start(move |mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let is_retry = !head.contains("x-envoy-attempt-count: 1\r\n");
            let (now, most, all) = &counters;
            all.fetch_add(1, Ordering::SeqCst);
            if is_retry {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(10));
            if is_retry {
                now.fetch_sub(1, Ordering::SeqCst);
            }
            let _ = stream.write_all(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let port = free_port();
    let cluster = Cluster {
        circuit_breakers: CircuitBreakers {
            retry_budget: Some(RetryBudget {
                percent: 20.0,
                min_retry_concurrency: 1,
                budget_interval: None,
            }),
            ..CircuitBreakers::default()
        },
        ..service("web", &[web.address])
    };
    let policy = retries(3, &[RetryCondition::ServerError]);
    let edge = Edge::start(Snap::new(port, vec![retrying(policy)]).with(cluster));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                for _ in 0..ROUNDS {
                    assert_eq!(client.get("a", "/").unwrap().status, 503);
                }
            });
        }
    });
    let most = most.load(Ordering::SeqCst);
    assert!(
        (1..=u64::from(CLIENTS / 5)).contains(&most),
        "{most} retries at once"
    );
    // Without a budget it would be four for each.
    let (all, asked) = (all.load(Ordering::SeqCst), u64::from(CLIENTS * ROUNDS));
    assert!(all < 2 * asked, "{all} tries for {asked} requests");
    assert!(edge.metric("istio_requests_total", &["response_flags=\"UO\""]) > 0.0);
}

#[test]
fn a_mirror_gets_its_share_of_the_requests() {
    const REQUESTS: u32 = 500;
    let (web, copy) = (Backend::start("main"), Backend::start("copy"));
    let port = free_port();
    let rule = forwarding(|forward| {
        forward.mirrors = vec![Mirror {
            cluster: cluster("copy"),
            share: Fraction::per_million(300_000),
        }];
    });
    let snap = Snap::new(port, vec![rule])
        .with(service("web", &[web.address]))
        .with(service("copy", &[copy.address]));
    let edge = Edge::start(snap);
    let mut client = Client::connect(port);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    let sent = || {
        let clusters = edge.proxy.clusters();
        let copies = clusters.iter().filter(|own| own.name == cluster("copy"));
        let endpoints: Vec<_> = copies.flat_map(|own| own.endpoints.clone()).collect();
        (
            endpoints.iter().map(|own| own.requests_total).sum::<u64>(),
            endpoints
                .iter()
                .map(|own| u64::from(own.requests_active))
                .sum::<u64>(),
        )
    };
    assert!(eventually(|| sent().1 == 0), "every copy has its answer");
    assert_eq!(sent().0, copy.hits());
    expect_share(copy.hits(), REQUESTS, 0.3);
    assert_eq!(web.hits(), u64::from(REQUESTS));
}

#[test]
fn a_delay_falls_to_its_share_of_the_requests() {
    const REQUESTS: u32 = 300;
    let web = Backend::start("one");
    let port = free_port();
    let delay = FaultDelay {
        duration: Duration::from_millis(2),
        share: Fraction::per_million(300_000),
    };
    let rule = Route {
        fault: Some(Arc::new(Fault {
            delay: Some(delay),
            abort: None,
        })),
        ..forwarding(|_| {})
    };
    let edge = Edge::start(Snap::new(port, vec![rule]).with(service("web", &[web.address])));
    let mut client = Client::connect(port);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    let counted =
        |flags: &str| edge.metric("istio_requests_total", &[&format!("response_flags=\"{flags}\"")]);
    let all = || counted("DI") + counted("-");
    assert!(eventually(|| (all() - f64::from(REQUESTS)).abs() < 0.5));
    expect_share(counted("DI") as u64, REQUESTS, 0.3);
}

#[test]
fn a_try_that_meets_nobody_may_go_to_the_last_endpoint_that_is_left() {
    // Two that refuse and one that serves: the default policy finds it in three tries.
    let web = Backend::start("one");
    let nobody: [SocketAddr; 2] = std::array::from_fn(|_| crate::support::refusing());
    let port = free_port();
    let addresses = [nobody[0], nobody[1], web.address];
    let _edge = Edge::start(Snap::simple(port, &addresses));
    for _ in 0..30 {
        assert_eq!(get(port, "a", "/").status, 200);
    }
}
