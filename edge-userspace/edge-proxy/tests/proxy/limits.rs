//! Rate limits, penalties, and bounds on slow and silent clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::{
    DescriptorBucket, Fraction, Kind, LocalRateLimit, Measure, ObjectRef, PenaltyPolicy, RateLimitAction,
    RateLimitDescriptor, RateLimitEntry, Route, TokenBucket,
};
use edge_proxy::{Limits, PathPolicy, ProxyOptions, Timeouts};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::support::{
    Backend, Client, Edge, Snap, direct, eventually, forward, free_port, get, http2, prefix, route, service,
};

/// So many requests a minute from each address.
fn per_address(max_tokens: u32) -> Arc<LocalRateLimit> {
    Arc::new(LocalRateLimit {
        object: ObjectRef {
            kind: Kind::EnvoyFilter,
            namespace: "istio-system".into(),
            name: "limit".into(),
        },
        stat_prefix: "limit".into(),
        bucket: None,
        descriptors: vec![DescriptorBucket {
            entries: vec![RateLimitEntry {
                key: "remote_address".into(),
                value: None,
            }],
            bucket: TokenBucket {
                max_tokens,
                tokens_per_fill: max_tokens,
                fill_interval: Duration::from_secs(60),
            },
        }],
        enabled: Fraction::ALWAYS,
        enforced: Fraction::ALWAYS,
        status: StatusCode::TOO_MANY_REQUESTS,
        response_headers: vec![(
            HeaderName::from_static("x-local-rate-limit"),
            HeaderValue::from_static("true"),
        )],
        x_ratelimit_headers: true,
    })
}

fn limited(mut route: Route, limit: &Arc<LocalRateLimit>) -> Route {
    route.rate_limit = Some(Arc::clone(limit));
    route.rate_limit_descriptors = Arc::new([RateLimitDescriptor {
        actions: vec![RateLimitAction::RemoteAddress],
    }]);
    route
}

#[test]
fn requests_over_the_limit_are_refused_and_told_when_to_come_back() {
    let web = Backend::start("web");
    let port = free_port();
    let limit = per_address(2);
    let routes = || vec![limited(route(prefix("/"), forward(&[("web", 1)])), &limit)];
    let snap = || Snap::new(port, routes()).with(service("web", &[web.address]));
    let edge = Edge::start(snap());
    let mut client = Client::connect(port);
    for remaining in ["1", "0"] {
        let reply = client.get("a", "/").unwrap();
        assert_eq!(
            (reply.status, reply.header("x-ratelimit-remaining")),
            (200, Some(remaining))
        );
        assert_eq!(reply.header("x-local-rate-limit"), None);
    }
    // The limit is the node's: another connection, most likely of the other worker, has no more of it, and a new
    // configuration with the same limit gives no fresh tokens.
    edge.apply(snap());
    for _ in 0..8 {
        let refused = get(port, "a", "/");
        assert_eq!((refused.status, refused.text()), (429, "local_rate_limited"));
        assert_eq!(refused.header("x-local-rate-limit"), Some("true"));
        assert_eq!(refused.header("x-ratelimit-limit"), Some("2"));
        assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
        let reset: u64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!((1..=30).contains(&reset), "{reset}");
    }
    assert_eq!(web.hits(), 2);
    edge.expect_flagged("RL", 8);
    edge.expect_metric(
        "edge_rate_limited_total",
        &["limit=\"istio-system/limit\"", "enforced=\"true\""],
        8,
    );
    assert_eq!(edge.penalties(), [], "there is no policy for penalties");
}

#[test]
fn a_source_that_goes_on_brings_one_penalty() {
    let port = free_port();
    let limit = per_address(1);
    let mut snap = Snap::new(port, vec![limited(route(prefix("/"), direct(200, "")), &limit)]);
    snap.penalties = Some(PenaltyPolicy {
        refusals: 5,
        window: Duration::from_secs(10),
        duration: Duration::from_secs(60),
        measure: Measure::default(),
    });
    let edge = Edge::start(snap);
    let begin = Instant::now();
    for refused in 0..20 {
        assert_eq!(
            edge.penalties().len(),
            usize::from(refused > 5),
            "after {refused} requests"
        );
        get(port, "a", "/");
    }
    let penalties = edge.penalties();
    assert_eq!(penalties.len(), 1);
    assert_eq!(
        penalties[0].source.to_string(),
        "127.0.0.1",
        "in the family it is seen under on the wire"
    );
    let lasts = penalties[0].until.saturating_duration_since(begin);
    assert!((60..65).contains(&lasts.as_secs()), "{lasts:?}");
    edge.expect_metric("edge_penalties_issued_total", &["reason=\"rate_limit\""], 1);
}

#[test]
fn addresses_have_buckets_of_their_own() {
    let port = free_port();
    let limit = per_address(1);
    let _edge = Edge::start(Snap::new(
        port,
        vec![limited(route(prefix("/"), direct(200, "")), &limit)],
    ));
    assert_eq!(get(port, "a", "/").status, 200);
    assert_eq!(get(port, "a", "/").status, 429);
    let over_v6 = std::net::TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(Client::over(over_v6).get("a", "/").unwrap().status, 200);
}

#[test]
fn a_limit_that_is_not_enforced_counts_and_lets_through() {
    let port = free_port();
    let limit = Arc::new(LocalRateLimit {
        enforced: Fraction::NEVER,
        ..LocalRateLimit::clone(&per_address(1))
    });
    let edge = Edge::start(Snap::new(
        port,
        vec![limited(route(prefix("/"), direct(200, "")), &limit)],
    ));
    for _ in 0..5 {
        assert_eq!(get(port, "a", "/").status, 200);
    }
    edge.expect_metric("edge_rate_limited_total", &["enforced=\"false\""], 4);
}

/// An edge whose clients have little time.
fn impatient(timeouts: Timeouts) -> (Edge, u16) {
    let port = free_port();
    let options = ProxyOptions {
        timeouts,
        ..ProxyOptions::new(1)
    };
    let snap = Snap::new(port, vec![route(prefix("/"), direct(200, ""))]);
    (Edge::start_with(snap, options), port)
}

#[test]
fn a_head_that_trickles_in_is_cut_at_the_header_timeout() {
    let (_edge, port) = impatient(Timeouts {
        header: Duration::from_millis(500),
        ..Timeouts::default()
    });
    let mut client = Client::connect(port);
    let begin = Instant::now();
    let mut trickle = "GET / HTTP/1.1\r\nhost: a\r\n"
        .bytes()
        .chain(std::iter::repeat(b'x'));
    while client.write([trickle.next().unwrap()]).is_ok() {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the connection is still open"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_silent_connection_is_closed_at_the_header_timeout_and_an_idle_one_at_the_idle_timeout() {
    let (_edge, port) = impatient(Timeouts {
        header: Duration::from_millis(500),
        idle: Duration::from_millis(2500),
        ..Timeouts::default()
    });
    let (mut silent, mut idle) = (Client::connect(port), Client::connect(port));
    idle.get("a", "/").unwrap();
    let begin = Instant::now();
    assert!(silent.is_at_end());
    let silent_for = begin.elapsed();
    assert_eq!(
        idle.get("a", "/").unwrap().status,
        200,
        "the header timeout is not for idle connections"
    );
    let begin = Instant::now();
    assert!(idle.is_at_end());
    assert!(silent_for < Duration::from_secs(3), "{silent_for:?}");
    // A sweep a second, and a time that is taken from the last one.
    assert!(
        (1..5).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_client_that_takes_nothing_of_its_response_is_cut() {
    let web = Backend::start("web");
    let port = free_port();
    let options = ProxyOptions {
        timeouts: Timeouts {
            stalled: Duration::from_millis(500),
            ..Timeouts::default()
        },
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
    let mut client = Client::connect(port);
    client
        .write("GET /bytes/50000000 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    assert!(eventually(|| web.hits() == 1));
    assert!(eventually(|| edge.proxy.workers()[0].connections == 0));
    assert!(client.read("GET").is_err(), "the response is cut, not finished");
}

#[test]
fn a_body_that_trickles_in_or_stops_is_cut() {
    for (name, limits, timeouts, text) in [
        (
            "a silent body",
            Limits::default(),
            Timeouts {
                body: Duration::from_millis(500),
                ..Timeouts::default()
            },
            "transfer-encoding: chunked\r\n\r\n5\r\na",
        ),
        (
            "a slow body",
            Limits {
                body_rate: 1_000_000,
                ..Limits::default()
            },
            Timeouts::default(),
            "content-length: 100\r\n\r\na",
        ),
    ] {
        let web = Backend::start("web");
        let port = free_port();
        let options = ProxyOptions {
            timeouts,
            limits,
            ..ProxyOptions::new(1)
        };
        let edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
        let mut client = Client::connect(port);
        client
            .stream()
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        client
            .write(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{text}"))
            .unwrap();
        // The head of the echo may have come; the rest never does.
        while client.read("HEAD").is_ok() {}
        let end = client.rest();
        let waits = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!end.as_ref().is_err_and(waits), "{name}: the connection goes on");
        edge.expect_metric(
            "edge_downstream_connections_cut_total",
            &["reason=\"slow body\""],
            1,
        );
    }
}

#[test]
fn heads_have_their_bounds_in_both_versions() {
    let web = Backend::start("web");
    let port = free_port();
    let options = ProxyOptions {
        limits: Limits {
            fields: 10,
            target: 50,
            ..Limits::default()
        },
        ..ProxyOptions::new(1)
    };
    let _edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
    for (fields, target, status) in [(8, 50, 200), (11, 10, 431), (1, 51, 414)] {
        let path = format!("/{}", "a".repeat(target - 1));
        let lines: String = (0..fields).map(|n| format!("x-{n}: 1\r\n")).collect();
        let mut client = Client::connect(port);
        client
            .write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n"))
            .unwrap();
        assert_eq!(client.read("GET").unwrap().status, status, "{fields} {target}");
        let mut request = http::Request::builder().uri(format!("http://a{path}"));
        for n in 0..fields {
            request = request.header(format!("x-{n}"), "1");
        }
        let answers = http2(port, vec![request.body(http_body_util::Full::default()).unwrap()]);
        assert_eq!(answers[0].as_ref().unwrap().status, status, "{fields} {target}");
    }
    assert_eq!(web.hits(), 2);
}

#[test]
fn paths_are_treated_by_the_operators_policy() {
    let web = Backend::start("web");
    let port = free_port();
    let options = ProxyOptions {
        paths: PathPolicy {
            normalization: edge_model::PathNormalization::MergeSlashes,
            escaped_slashes: edge_model::EscapedSlashes::UnescapeAndRedirect,
        },
        ..ProxyOptions::new(1)
    };
    let _edge = Edge::start_with(Snap::simple(port, &[web.address]), options);
    assert_eq!(get(port, "a", "/a//b/../c").told("line"), "GET /a/c");
    let reply = get(port, "a", "/a%2F..%2Fb?x%2F");
    assert_eq!((reply.status, reply.header("location")), (307, Some("/b?x%2F")));
}
