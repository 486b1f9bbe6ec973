//! Routes on the wire.

use edge_model::{
    HeaderEdit, HeaderOps, LoadBalancer, RedirectPath, Rewrite, RewritePath, RouteAction, RouteMatch,
};
use http::{HeaderName, HeaderValue};

use crate::support::{
    Backend, Client, Edge, Snap, direct, forward, free_port, get, prefix, redirect, route, service,
    service_with, virtual_host,
};

fn edit(set: &[(&'static str, &'static str)], remove: &[&'static str]) -> HeaderEdit {
    HeaderEdit {
        remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
        set: set
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value).into(),
                )
            })
            .collect(),
        add: vec![],
    }
}

#[test]
fn hosts_and_paths_lead_to_their_services() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let port = free_port();
    let hosts = vec![
        virtual_host(
            "a.com",
            vec![
                route(prefix("/b/"), forward(&[("b", 1)])),
                route(prefix("/"), forward(&[("a", 1)])),
            ],
        ),
        virtual_host("*.com", vec![route(prefix("/c"), forward(&[("c", 1)]))]),
    ];
    let snap = Snap::default().listen(port, hosts);
    let snap = snap
        .with(service("a", &[a.address]))
        .with(service("b", &[b.address]));
    let edge = Edge::start(snap.with(service("c", &[c.address])));

    for (host, path, expected) in [
        ("a.com", "/", "a"),
        ("A.COM:99", "/x", "a"),
        ("a.com", "/b/x", "b"),
        ("a.com", "/x/../b/y", "b"),
        ("a.com", "/%62/", "b"),
        ("z.com", "/c", "c"),
    ] {
        let reply = get(port, host, path);
        assert_eq!(
            (reply.status, reply.told("backend").as_str()),
            (200, expected),
            "{host}{path}"
        );
    }
    for (host, path) in [("z.com", "/d"), ("z.org", "/c")] {
        let reply = get(port, host, path);
        assert_eq!((reply.status, reply.text()), (404, ""), "{host}{path}");
    }
    edge.expect_flagged("NR", 2);
    edge.expect_flagged("-", 6);
    let to_c = [
        "destination_service=\"c.shop.svc.cluster.local\"",
        "destination_version=\"v1\"",
    ];
    edge.expect_metric("istio_requests_total", &to_c, 1);
    edge.expect_metric("istio_request_duration_milliseconds_count", &to_c, 1);
}

#[test]
fn a_weighted_split_stays_within_the_binomial_bound() {
    const REQUESTS: u64 = 4000;
    let (v1, v2) = (Backend::start("v1"), Backend::start("v2"));
    let port = free_port();
    let routes = vec![route(prefix("/"), forward(&[("v1", 90), ("v2", 10)]))];
    let snap = Snap::new(port, routes).with(service("v1", &[v1.address]));
    let _edge = Edge::start(snap.with(service("v2", &[v2.address])));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                for _ in 0..REQUESTS / 4 {
                    assert_eq!(client.get("a.com", "/").unwrap().status, 200);
                }
            });
        }
    });
    assert_eq!(v1.hits() + v2.hits(), REQUESTS);
    // Five standard deviations of 4000 draws at 10 % are 95.
    assert!(v2.hits().abs_diff(400) <= 95, "v2 got {}", v2.hits());
}

#[test]
fn every_load_balancer_reaches_every_endpoint() {
    for policy in [
        LoadBalancer::RoundRobin,
        LoadBalancer::LeastRequest,
        LoadBalancer::Random,
    ] {
        let backends: Vec<_> = (0..3).map(|_| Backend::start("web")).collect();
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let port = free_port();
        let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
        let edge = Edge::start(Snap::new(port, routes).with(service_with("web", &addresses, policy.clone())));
        let mut client = Client::connect(port);
        for _ in 0..300 {
            client.get("a.com", "/").unwrap();
        }
        let hits: Vec<_> = backends.iter().map(Backend::hits).collect();
        assert!(
            hits.iter().all(|hits| (50..=150).contains(hits)),
            "{policy:?}: {hits:?}"
        );
        let status = &edge.proxy.clusters()[0];
        let totals: Vec<_> = status
            .endpoints
            .iter()
            .map(|endpoint| endpoint.requests_total)
            .collect();
        assert_eq!(totals, hits);
        assert!(
            status
                .endpoints
                .iter()
                .all(|endpoint| endpoint.requests_active == 0)
        );
    }
}

#[test]
fn a_rewrite_reaches_the_backend_with_what_was_asked_for() {
    let web = Backend::start("web");
    let port = free_port();
    let mut action = forward(&[("web", 1)]);
    if let RouteAction::Forward(forward) = &mut action {
        forward.rewrite = Rewrite {
            path: Some(RewritePath::Uri("/new".into())),
            authority: Some(HeaderValue::from_static("inner.com")),
        };
    }
    let snap = Snap::new(port, vec![route(prefix("/old"), action)]);
    let _edge = Edge::start(snap.with(service("web", &[web.address])));
    let reply = get(port, "a.com:81", "/old/x?q=1");
    assert_eq!(reply.told("line"), "GET /new/x?q=1");
    assert_eq!(reply.told("host"), "inner.com");
    assert_eq!(reply.told("x-envoy-original-path"), "/old/x?q=1");
    assert_eq!(reply.told("x-envoy-original-host"), "a.com:81");
}

#[test]
fn header_operations_act_on_requests_and_responses() {
    let web = Backend::start("web");
    let port = free_port();
    let mut with_ops = route(RouteMatch::any(), forward(&[("web", 1)]));
    with_ops.headers = HeaderOps {
        request: edit(&[("x-set", "by-route"), ("connection", "upgrade")], &["x-gone"]),
        response: edit(&[("x-answer", "42"), ("content-length", "7")], &["x-secret"]),
    };
    let _edge = Edge::start(Snap::new(port, vec![with_ops]).with(service("web", &[web.address])));
    let mut client = Client::connect(port);
    let head = "GET / HTTP/1.1\r\nhost: a.com\r\nx-gone: 1\r\nx-set: client\r\nreply-x-secret: 1\r\n\r\n";
    client.write(head).unwrap();
    let reply = client.read("GET").unwrap();
    assert_eq!(
        (reply.told("x-set").as_str(), reply.told("x-gone").as_str()),
        ("by-route", "")
    );
    assert_eq!(
        reply.told("connection"),
        "",
        "framing and connection are not for routes to set"
    );
    assert_eq!(
        (reply.header("x-answer"), reply.header("x-secret")),
        (Some("42"), None)
    );
}

#[test]
fn redirects_and_direct_responses_are_answered_by_the_gateway() {
    let port = free_port();
    let mut answers = vec![
        route(
            prefix("/r/"),
            redirect(308, Some("b.com"), RedirectPath::Whole("/new".into())),
        ),
        route(prefix("/p/"), redirect(302, None, RedirectPath::Unchanged)),
        route(prefix("/d"), direct(503, "closed for today")),
    ];
    for answer in &mut answers {
        answer.headers.response = edit(&[("x-by", "route")], &[]);
    }
    let edge = Edge::start(Snap::new(port, answers));
    let mut client = Client::connect(port);
    for (path, status, location, body) in [
        ("/r/x?q=1", 308, Some("http://b.com/new?q=1"), ""),
        ("/p/x", 302, Some("http://a.com:81/p/x"), ""),
        ("/d", 503, None, "closed for today"),
    ] {
        let reply = client.get("a.com:81", path).unwrap();
        assert_eq!(
            (reply.status, reply.header("location"), reply.text()),
            (status, location, body),
            "{path}"
        );
        assert_eq!(reply.header("x-by"), Some("route"));
    }
    edge.expect_flagged("-", 3);
}

#[test]
fn https_redirect_answers_for_every_path_of_its_host() {
    let port = free_port();
    let mut host = virtual_host("a.com", vec![route(prefix("/only"), direct(200, "plain"))]);
    host.require_tls = true;
    let _edge = Edge::start(Snap::default().listen(port, vec![host]));
    let reply = get(port, "a.com", "/any?q=1");
    assert_eq!(
        (reply.status, reply.header("location")),
        (301, Some("https://a.com/any?q=1"))
    );
    assert_eq!(get(port, "b.com", "/").status, 404);
}

#[test]
fn an_unknown_cluster_and_one_without_endpoints_answer_503_under_their_flags() {
    let port = free_port();
    let routes = vec![
        route(prefix("/nc"), forward(&[("nowhere", 1)])),
        route(prefix("/uh"), forward(&[("empty", 1)])),
    ];
    let edge = Edge::start(Snap::new(port, routes).with(service("empty", &[])));
    let no_cluster = get(port, "a.com", "/nc");
    assert_eq!((no_cluster.status, no_cluster.text()), (503, ""));
    let no_endpoint = get(port, "a.com", "/uh");
    assert_eq!(
        (no_endpoint.status, no_endpoint.text()),
        (503, "no healthy upstream")
    );
    edge.expect_flagged("NC", 1);
    edge.expect_flagged("UH", 1);
}
