//! When a request is tried again, as the endpoint sees it, and what ends it.
//!
//! What is measured comes late on a busy machine, and later for some than for others. So pauses are judged by where the half
//! of many lies, and times from a request's beginning only by what they are at least.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_model::{Forward, RetryCondition, RetryOn, RetryPolicy, RouteAction};

use crate::support::{Client, Edge, RawBackend, Reply, Snap, destination, free_port, prefix, route, service};

/// When tries came, by the path of their request.
type Arrivals = Arc<Mutex<HashMap<String, Vec<Instant>>>>;

/// Notes when each try comes, and answers it with 503, or not at all.
fn recording(answers: bool) -> (RawBackend, Arrivals) {
    let arrivals = Arrivals::default();
    let noted = Arc::clone(&arrivals);
    let backend = RawBackend::start(move |mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            let now = Instant::now();
            let Some(path) = head.split(' ').nth(1) else {
                return;
            };
            noted
                .lock()
                .unwrap()
                .entry(path.to_owned())
                .or_default()
                .push(now);
            if !answers {
                // Until the gateway lets go of it.
                let _ = stream.read(&mut [0]);
                return;
            }
            if stream
                .write_all(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
                .is_err()
            {
                return;
            }
        }
    });
    (backend, arrivals)
}

/// An edge before the endpoint, which tries again whatever fails.
fn edge_with(backend: &RawBackend, policy: RetryPolicy, timeout: Option<Duration>) -> (Edge, u16) {
    let policy = RetryPolicy {
        retry_on: RetryOn::NEVER.with(RetryCondition::ServerError),
        ..policy
    };
    let mut forward = Forward::to(vec![destination("web", 1)]);
    forward.retries = Arc::new(policy);
    forward.timeout = timeout;
    let port = free_port();
    let rules = vec![route(prefix("/"), RouteAction::Forward(forward))];
    let edge = Edge::start(Snap::new(port, rules).with(service("web", &[backend.address])));
    (edge, port)
}

#[test]
fn pauses_are_drawn_from_25_milliseconds_at_first_and_from_twice_as_many_each_time_up_to_tenfold() {
    // Fewer at once than retries that a cluster without a budget always allows.
    const CLIENTS: u32 = 50;
    const EACH: u32 = 8;
    const REQUESTS: u32 = CLIENTS * EACH;
    // Milliseconds that each pause is less than (Envoy's `base_interval`, and `max_interval` of ten times that).
    const BELOW: [u64; 6] = [25, 50, 100, 200, 250, 250];
    // What a try may come late: a tick of edge's timers, one of the runtime's, and threads that wait for a core.
    const LATE: Duration = Duration::from_millis(20);
    let (web, arrivals) = recording(true);
    let policy = RetryPolicy {
        attempts: u32::try_from(BELOW.len()).unwrap(),
        ..RetryPolicy::default()
    };
    let (_edge, port) = edge_with(&web, policy, None);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut connection = Client::connect(port);
                for request in 0..EACH {
                    let reply = connection.get("a", &format!("/{client}/{request}")).unwrap();
                    assert_eq!(reply.status, 503);
                }
            });
        }
    });
    let arrivals = arrivals.lock().unwrap();
    assert_eq!(arrivals.len(), REQUESTS as usize);
    let pauses = |tries: &Vec<Instant>| -> Vec<_> { tries.windows(2).map(|two| two[1] - two[0]).collect() };
    let pauses: Vec<_> = arrivals.values().map(pauses).collect();
    assert!(pauses.iter().all(|pauses| pauses.len() == BELOW.len()));
    // As many pauses are drawn from the lower half as from the upper one, but for seven standard deviations: chance breaks
    // that in 10^11 runs. Without a pause, or with one that does not grow, nearly all would be short; with one that grows
    // twice as fast or without end, a quarter or less.
    let half = f64::from(REQUESTS) / 2.0;
    let deviation = f64::from(REQUESTS).sqrt() / 2.0;
    for (number, below) in BELOW.into_iter().enumerate() {
        let middle = Duration::from_millis(below) / 2;
        let shorter = |than: Duration| pauses.iter().filter(|pauses| pauses[number] < than).count() as f64;
        let (short, short_or_late) = (shorter(middle), shorter(middle + LATE));
        assert!(
            short <= half + 7.0 * deviation && short_or_late >= half - 7.0 * deviation,
            "pause {number}: {short} of {REQUESTS} are below {middle:?}, {short_or_late} but for what comes late"
        );
    }
}

/// A request that is never answered by its endpoint: the reply, when tries came since it began, and how long it took.
fn fail(
    backend: &RawBackend,
    arrivals: &Arrivals,
    policy: RetryPolicy,
    timeout: Option<Duration>,
) -> (Reply, Vec<Duration>, Duration) {
    let (_edge, port) = edge_with(backend, policy, timeout);
    let mut client = Client::connect(port);
    let began = Instant::now();
    let reply = client.get("a", "/").unwrap();
    let took = began.elapsed();
    let arrivals = arrivals.lock().unwrap();
    let since = arrivals["/"].iter().map(|at| *at - began).collect();
    (reply, since, took)
}

#[test]
fn each_try_has_its_time_and_the_last_one_ends_the_request() {
    const EACH: Duration = Duration::from_millis(100);
    let (web, arrivals) = recording(false);
    let policy = RetryPolicy {
        attempts: 3,
        per_try_timeout: Some(EACH),
        ..RetryPolicy::default()
    };
    let (reply, tries, took) = fail(&web, &arrivals, policy, None);
    assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
    assert_eq!(tries.len(), 4);
    for (number, came) in (0..).zip(&tries) {
        assert!(*came >= EACH * number, "{tries:?}");
    }
    assert!(took >= EACH * 4, "{took:?}");
}

#[test]
fn the_time_of_the_request_ends_it_between_tries_that_each_have_theirs() {
    const EACH: Duration = Duration::from_millis(50);
    const ALL: Duration = Duration::from_millis(320);
    let (web, arrivals) = recording(false);
    let policy = RetryPolicy {
        attempts: 100,
        per_try_timeout: Some(EACH),
        base_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let (reply, tries, took) = fail(&web, &arrivals, policy, Some(ALL));
    assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
    assert!(took >= ALL, "{took:?}");
    // Those that begin before it is over, 50 ms after each other at least.
    assert!((1..=7).contains(&tries.len()), "{tries:?}");
}

#[test]
fn the_time_of_the_request_ends_a_pause() {
    const ALL: Duration = Duration::from_millis(200);
    let (web, arrivals) = recording(true);
    let policy = RetryPolicy {
        attempts: 1,
        // Drawn from thirty years, of which less than the request's time is one draw in 10^9.
        base_interval: Duration::from_secs(1_000_000_000),
        ..RetryPolicy::default()
    };
    let (reply, tries, took) = fail(&web, &arrivals, policy, Some(ALL));
    assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
    assert!(took >= ALL, "{took:?}");
    assert_eq!(tries.len(), 1);
}
