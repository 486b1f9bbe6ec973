//! Heads on their way through: what the upstream is told, what it is not, and what comes back.

use crate::support::{Backend, Client, Edge, RawBackend, Snap, free_port};
use std::io::Write;

/// What the backend saw of a request with the given header lines.
fn upstream_saw(lines: &str) -> crate::support::Reply {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    client
        .write(format!("GET / HTTP/1.1\r\nhost: a.com\r\n{lines}\r\n"))
        .unwrap();
    client.read("GET").unwrap()
}

#[test]
fn what_concerns_one_connection_or_only_a_gateway_may_say_is_not_passed_on() {
    let seen = upstream_saw(
        "connection: keep-alive, X-Nominated, close-not\r\nx-nominated: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nte: trailers\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\
         x-envoy-expected-rq-timeout-ms: 1\r\nx-forwarded-client-cert: Hash=1\r\nx-kept: 1\r\n",
    );
    for dropped in [
        "connection",
        "x-nominated",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "x-envoy-expected-rq-timeout-ms",
        "x-forwarded-client-cert",
    ] {
        assert_eq!(seen.told(dropped), "", "{dropped} was passed on");
    }
    assert_eq!(seen.told("x-kept"), "1");
    assert_eq!(seen.told("host"), "a.com");
}

#[test]
fn the_upstream_learns_who_asked_and_how() {
    let seen = upstream_saw(
        "x-forwarded-for: 192.0.2.7\r\nx-forwarded-for: 192.0.2.8\r\nx-forwarded-proto: gopher\r\n",
    );
    assert_eq!(seen.told("x-forwarded-for"), "192.0.2.7,192.0.2.8,127.0.0.1");
    assert_eq!(seen.told("x-forwarded-proto"), "http");
    assert_eq!(seen.told("x-envoy-external-address"), "127.0.0.1");
}

#[test]
fn every_request_gets_a_random_uuid_whatever_the_client_called_it() {
    let (one, two) = (upstream_saw(""), upstream_saw(""));
    let id = one.told("x-request-id");
    let shape: String = id
        .chars()
        .map(|c| if c.is_ascii_hexdigit() { 'h' } else { c })
        .collect();
    assert_eq!(shape, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh");
    assert_eq!(&id[14..15], "4");
    assert!("89ab".contains(&id[19..20]), "{id}");
    assert_ne!(id, two.told("x-request-id"));
    assert_eq!(
        upstream_saw("x-request-id: mine\r\n").told("x-request-id").len(),
        36
    );
}

#[test]
fn responses_name_the_gateway_and_the_upstreams_time() {
    let reply = upstream_saw(
        "reply-server: nginx\r\nreply-connection: x-hop\r\nreply-x-hop: 1\r\nreply-keep-alive: 1\r\n",
    );
    assert_eq!(reply.header("server"), Some("istio-envoy"));
    assert!(
        reply
            .header("x-envoy-upstream-service-time")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            < 5000
    );
    assert_eq!(
        (
            reply.header("x-hop"),
            reply.header("keep-alive"),
            reply.header("connection")
        ),
        (None, None, None)
    );
    assert!(reply.header("date").is_some());
}

#[test]
fn an_upgrade_is_not_passed_on_and_a_switch_nobody_asked_for_is_refused() {
    let rude = RawBackend::start(|mut stream, _| {
        let head = RawBackend::read_head(&mut stream);
        assert!(!head.to_ascii_lowercase().contains("upgrade"), "{head}");
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    });
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[rude.address]));
    let mut client = Client::connect(port);
    client
        .write("GET / HTTP/1.1\r\nhost: a.com\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        .unwrap();
    assert_eq!(client.read("GET").unwrap().status, 502);
    edge.expect_flagged("UPE", 1);
}

#[test]
fn an_absolute_target_goes_upstream_in_origin_form_under_its_own_authority() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    client
        .write("GET http://b.com:81/x?y HTTP/1.1\r\nhost: a.com\r\n\r\n")
        .unwrap();
    let seen = client.read("GET").unwrap();
    assert_eq!(
        (seen.told("line").as_str(), seen.told("host").as_str()),
        ("GET /x?y", "b.com:81")
    );
}
