//! What a rule does besides forwarding: retries, time limits, faults, mirrors and CORS.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_model::{
    AbortStatus, CorsPolicy, Fault, FaultAbort, FaultDelay, Forward, Fraction, Mirror, RetryPolicy, Route,
    RouteAction, StringMatch,
};
use http::{HeaderValue, StatusCode};

use crate::support::{
    Backend, Client, Edge, RawBackend, Reply, Snap, cluster, destination, direct, eventually, free_port, get,
    prefix, retries, route, service,
};

/// A rule that forwards to `web` as `change` says.
fn forwarding(change: impl FnOnce(&mut Forward)) -> Route {
    let mut forward = Forward::to(vec![destination("web", 1)]);
    change(&mut forward);
    route(prefix("/"), RouteAction::Forward(forward))
}

fn retrying(attempts: u32, on: &[&str], change: impl FnOnce(&mut RetryPolicy)) -> Route {
    let mut policy = retries(attempts, on);
    change(&mut policy);
    forwarding(|forward| forward.retries = Arc::new(policy))
}

fn post(port: u16, body: &str) -> Reply {
    let mut client = Client::connect(port);
    let length = body.len();
    client
        .write(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .unwrap();
    client.read("POST").unwrap()
}

/// Answers its first `failures` requests with 503, and then with 200 and the request's body.
fn fails_first(failures: u64) -> (RawBackend, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let backend = RawBackend::start(move |mut stream, _| {
        loop {
            let head = RawBackend::read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let attempt = head
                .lines()
                .find_map(|line| line.strip_prefix("x-envoy-attempt-count: "))
                .unwrap_or("none")
                .to_owned();
            let status = if number < failures {
                "503 Unavailable"
            } else {
                "200 OK"
            };
            let head = format!("HTTP/1.1 {status}\r\nattempt: {attempt}\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    (backend, requests)
}

#[test]
fn a_response_that_the_policy_names_is_tried_again_with_the_whole_body() {
    let (web, requests) = fails_first(2);
    let port = free_port();
    let edge = Edge::start(
        Snap::new(port, vec![retrying(3, &["5xx"], |_| {})]).with(service("web", &[web.address])),
    );
    let body = "b".repeat(30_000);
    let reply = post(port, &body);
    assert_eq!((reply.status, reply.header("attempt")), (200, Some("3")));
    assert!(reply.body == body.as_bytes());
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    edge.expect_flagged("-", 1);
}

#[test]
fn when_all_tries_are_used_the_last_response_is_passed_on_and_flagged() {
    let (web, requests) = fails_first(u64::MAX);
    let port = free_port();
    let edge = Edge::start(
        Snap::new(port, vec![retrying(2, &["5xx"], |_| {})]).with(service("web", &[web.address])),
    );
    assert_eq!(post(port, "x").status, 503);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    edge.expect_flagged("URX", 1);
}

#[test]
fn a_body_too_large_to_be_kept_is_sent_once() {
    let (web, requests) = fails_first(u64::MAX);
    let port = free_port();
    let _edge = Edge::start(
        Snap::new(port, vec![retrying(5, &["5xx"], |_| {})]).with(service("web", &[web.address])),
    );
    assert_eq!(post(port, &"b".repeat(200_000)).status, 503);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn without_attempts_nothing_is_tried_again() {
    let (web, requests) = fails_first(u64::MAX);
    let port = free_port();
    let edge = Edge::start(
        Snap::new(port, vec![retrying(0, &["5xx"], |_| {})]).with(service("web", &[web.address])),
    );
    assert_eq!(post(port, "x").status, 503);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    edge.expect_flagged("-", 1);
}

#[test]
fn a_try_that_takes_too_long_goes_to_another_endpoint() {
    let slow = RawBackend::start(|mut stream, _| {
        RawBackend::read_head(&mut stream);
        // Until the gateway lets go of it.
        let _ = stream.read(&mut [0]);
    });
    let good = Backend::start("good");
    let port = free_port();
    let per_try = |policy: &mut RetryPolicy| policy.per_try_timeout = Some(Duration::from_millis(500));
    let snap = Snap::new(port, vec![retrying(2, &["reset"], per_try)])
        .with(service("web", &[slow.address, good.address]));
    let edge = Edge::start(snap);
    for _ in 0..4 {
        assert_eq!(get(port, "a", "/").status, 200);
    }
    assert!(slow.connections() > 0, "the slow one was tried");
    edge.expect_flagged("-", 4);
}

#[test]
fn when_the_last_try_takes_too_long_the_answer_is_504() {
    let backend = Backend::start("one");
    let port = free_port();
    let per_try = |policy: &mut RetryPolicy| policy.per_try_timeout = Some(Duration::from_millis(50));
    let snap = Snap::new(port, vec![retrying(1, &["5xx"], per_try)]).with(service("web", &[backend.address]));
    let edge = Edge::start(snap);
    let reply = get(port, "a", "/sleep/2000");
    assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
    edge.expect_flagged("URX,UT", 1);
}

#[test]
fn the_routes_timeout_covers_all_tries_and_is_told_to_the_upstream() {
    let backend = Backend::start("one");
    let port = free_port();
    let timed = |time| forwarding(|forward| forward.timeout = Some(Duration::from_millis(time)));
    let edge = Edge::start(Snap::new(port, vec![timed(300)]).with(service("web", &[backend.address])));
    let told = get(port, "a", "/").told("x-envoy-expected-rq-timeout-ms");
    assert_eq!(told, "300");
    let began = Instant::now();
    let reply = get(port, "a", "/sleep/5000");
    assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    edge.expect_flagged("UT", 1);
}

fn faulty(delay: Option<FaultDelay>, abort: Option<FaultAbort>) -> Route {
    Route {
        fault: Some(Arc::new(Fault { delay, abort })),
        ..forwarding(|forward| forward.timeout = Some(Duration::from_millis(200)))
    }
}

#[test]
fn a_fault_delays_before_the_timeout_begins_and_then_aborts() {
    let backend = Backend::start("one");
    let port = free_port();
    let delay = FaultDelay {
        duration: Duration::from_millis(400),
        share: Fraction::ALWAYS,
    };
    let abort = FaultAbort {
        status: AbortStatus::Http(StatusCode::from_u16(556).unwrap()),
        share: Fraction::ALWAYS,
    };
    let snap = |route| Snap::new(port, vec![route]).with(service("web", &[backend.address]));
    let edge = Edge::start(snap(faulty(Some(delay), Some(abort))));
    let began = Instant::now();
    let reply = get(port, "a", "/");
    assert_eq!((reply.status, reply.text()), (556, "fault filter abort"));
    assert!(began.elapsed() >= Duration::from_millis(400));
    edge.expect_flagged("DI,FI", 1);
    edge.apply(snap(faulty(Some(delay), None)));
    assert_eq!(get(port, "a", "/").status, 200);
    edge.expect_flagged("DI", 1);
}

#[test]
fn a_fault_falls_to_its_share_of_the_requests() {
    let backend = Backend::start("one");
    let port = free_port();
    let abort = FaultAbort {
        status: AbortStatus::Http(StatusCode::IM_A_TEAPOT),
        share: Fraction::per_million(300_000),
    };
    let _edge = Edge::start(
        Snap::new(port, vec![faulty(None, Some(abort))]).with(service("web", &[backend.address])),
    );
    let mut client = Client::connect(port);
    let aborted = (0..1000)
        .filter(|_| client.get("a", "/").unwrap().status == 418)
        .count();
    // Seven standard deviations around 300.
    assert!((200..400).contains(&aborted), "{aborted}");
}

fn grpc_get(port: u16, path: &str) -> Reply {
    let mut client = Client::connect(port);
    client
        .write(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n"
        ))
        .unwrap();
    client.read("POST").unwrap()
}

#[test]
fn clients_of_grpc_are_answered_in_their_own_terms() {
    let port = free_port();
    let abort = |code| FaultAbort {
        status: AbortStatus::Grpc(code),
        share: Fraction::ALWAYS,
    };
    let snap = |routes| Snap::new(port, routes).with(service("web", &[]));
    let edge = Edge::start(snap(vec![faulty(None, Some(abort(7)))]));
    let check = |reply: Reply, status: &str, message: &str| {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
        assert_eq!(reply.header("grpc-status"), Some(status));
        assert_eq!(reply.header("grpc-message"), Some(message));
        assert!(reply.body.is_empty());
    };
    check(grpc_get(port, "/"), "7", "fault filter abort");
    assert_eq!(get(port, "a", "/").status, 403, "others get the HTTP status");
    edge.apply(snap(vec![forwarding(|_| {})]));
    check(grpc_get(port, "/"), "14", "no healthy upstream");
    edge.apply(snap(vec![route(prefix("/x"), direct(200, "x"))]));
    let reply = grpc_get(port, "/");
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("12")));
}

/// Keeps the heads and bodies of the requests that it gets.
fn recording() -> (RawBackend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let backend = RawBackend::start(move |mut stream, _| {
        loop {
            let mut request = RawBackend::read_head(&mut stream);
            if request.is_empty() {
                return;
            }
            let length = request
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            request += std::str::from_utf8(&body).unwrap();
            log.lock().unwrap().push(request);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (backend, seen)
}

#[test]
fn a_call_of_grpc_has_the_time_that_its_client_tells_and_no_more_than_the_route_gives() {
    let web = Backend::start("web");
    let port = free_port();
    let with_timeout = |path: &str, timeout| {
        let to = Forward::to(vec![destination("web", 1)]);
        route(prefix(path), RouteAction::Forward(Forward { timeout, ..to }))
    };
    let routes = vec![
        with_timeout("/sleep/", None),
        with_timeout("/", Some(Duration::from_secs(20))),
    ];
    let edge = Edge::start(Snap::new(port, routes).with(service("web", &[web.address])));
    let ask = |path: &str, fields: &str| {
        let mut client = Client::connect(port);
        client
            .write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
            .unwrap();
        client.read("GET").unwrap()
    };
    let reply = ask(
        "/sleep/8000",
        "content-type: application/grpc\r\ngrpc-timeout: 300m\r\n",
    );
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("14")));
    edge.expect_flagged("UT", 1);
    // No call of gRPC, and one that says nothing that can be read.
    for fields in [
        "grpc-timeout: 1m\r\n",
        "content-type: application/grpc\r\ngrpc-timeout: 1x\r\n",
    ] {
        assert_eq!(ask("/sleep/300", fields).text(), "slept", "{fields}");
    }
    for (told, expected) in [("3S", "3000"), ("1M", "20000"), ("0S", "20000")] {
        let reply = ask(
            "/",
            &format!("content-type: application/grpc\r\ngrpc-timeout: {told}\r\n"),
        );
        assert_eq!(reply.told("x-envoy-expected-rq-timeout-ms"), expected, "{told}");
        assert_eq!(reply.told("grpc-timeout"), told);
    }
}

#[test]
fn a_mirror_gets_a_copy_and_its_answer_is_forgotten() {
    let backend = Backend::start("main");
    let (mirror, seen) = recording();
    let port = free_port();
    let copied = |share| {
        forwarding(|forward| {
            forward.mirrors = vec![Mirror {
                cluster: cluster("copy"),
                share,
            }];
        })
    };
    let snap = |share| {
        Snap::new(port, vec![copied(share)])
            .with(service("web", &[backend.address]))
            .with(service("copy", &[mirror.address]))
    };
    let edge = Edge::start(snap(Fraction::ALWAYS));
    let mut client = Client::connect(port);
    for round in 1..=3 {
        client
            .write("POST /m?x HTTP/1.1\r\nhost: a.com:81\r\ncontent-length: 4\r\n\r\nbody")
            .unwrap();
        assert_eq!(client.read("POST").unwrap().status, 200);
        assert!(
            eventually(|| seen.lock().unwrap().len() == round),
            "copy {round} came"
        );
    }
    let copy = seen.lock().unwrap()[0].clone();
    assert!(
        copy.starts_with("POST /m?x HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nbody"),
        "{copy}"
    );
    assert!(copy.contains("host: a.com-shadow:81\r\n"), "{copy}");
    edge.apply(snap(Fraction::NEVER));
    assert_eq!(get(port, "a", "/").status, 200);
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[test]
fn a_mirror_that_hangs_holds_nobody_up() {
    let backend = Backend::start("main");
    let hanging =
        RawBackend::start(|mut stream, _| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {});
    let port = free_port();
    let copied = forwarding(|forward| {
        forward.mirrors = vec![Mirror {
            cluster: cluster("copy"),
            share: Fraction::ALWAYS,
        }];
    });
    let snap = Snap::new(port, vec![copied])
        .with(service("web", &[backend.address]))
        .with(service("copy", &[hanging.address]));
    let _edge = Edge::start(snap);
    let body = "m".repeat(2_000_000);
    assert_eq!(post(port, &body).told("body-length"), "2000000");
    assert!(eventually(|| hanging.connections() == 1));
}

fn with_cors(forward_unmatched_preflights: bool) -> Route {
    Route {
        cors: Some(Arc::new(CorsPolicy {
            allow_origins: vec![StringMatch::Exact("https://good.example".into())],
            allow_methods: Some(HeaderValue::from_static("GET,POST")),
            allow_headers: Some(HeaderValue::from_static("x-a")),
            expose_headers: Some(HeaderValue::from_static("x-b")),
            max_age: Some(HeaderValue::from_static("86400")),
            allow_credentials: true,
            forward_unmatched_preflights,
        })),
        ..forwarding(|_| {})
    }
}

#[test]
fn cors_answers_preflights_of_allowed_origins_and_marks_their_responses() {
    let backend = Backend::start("one");
    let port = free_port();
    let snap = |forward| Snap::new(port, vec![with_cors(forward)]).with(service("web", &[backend.address]));
    let edge = Edge::start(snap(true));
    let ask = |method: &str, origin: &str, extra: &str| {
        let mut client = Client::connect(port);
        client
            .write(format!(
                "{method} / HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\n{extra}\r\n"
            ))
            .unwrap();
        client.read(method).unwrap()
    };
    const PREFLIGHT: &str = "access-control-request-method: GET\r\n";
    let preflight = ask("OPTIONS", "https://good.example", PREFLIGHT);
    assert_eq!((preflight.status, backend.hits()), (200, 0));
    for (name, value) in [
        ("access-control-allow-origin", "https://good.example"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-max-age", "86400"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(preflight.header(name), Some(value));
    }
    let simple = ask("GET", "https://good.example", "");
    assert_eq!(
        simple.header("access-control-allow-origin"),
        Some("https://good.example")
    );
    assert_eq!(simple.header("access-control-expose-headers"), Some("x-b"));
    assert_eq!(backend.hits(), 1);
    let foreign = ask("GET", "https://bad.example", "");
    assert_eq!(
        (foreign.status, foreign.header("access-control-allow-origin")),
        (200, None)
    );
    assert_eq!(
        ask("OPTIONS", "https://bad.example", PREFLIGHT).told("backend"),
        "one"
    );
    edge.apply(snap(false));
    let unmatched = ask("OPTIONS", "https://bad.example", PREFLIGHT);
    assert_eq!((unmatched.status, unmatched.text()), (200, ""));
    assert_eq!(unmatched.header("access-control-allow-origin"), None);
}
