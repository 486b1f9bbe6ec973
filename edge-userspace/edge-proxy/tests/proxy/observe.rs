//! What is told of requests: the access log, sizes and gRPC's statuses in metrics, values in header operations.

use edge_model::{FormatString, Fraction, HeaderTemplate};
use edge_proxy::{AccessLog, AccessLogFormat, ProxyOptions};
use http::HeaderName;

use crate::support::{
    Backend, Client, Edge, Log, Snap, direct, forward, free_port, get, prefix, route, service,
};

#[test]
fn each_request_has_a_line_in_istios_format() {
    let backend = Backend::start("one");
    let (port, log) = (free_port(), Log::new("text"));
    let options = log.options(AccessLogFormat::istio_text(), Fraction::ALWAYS);
    let _edge = Edge::start_with(Snap::simple(port, &[backend.address]), options);
    let mut client = Client::connect(port);
    client
        .write(
            "POST /bytes/7?q HTTP/1.1\r\nhost: a.com\r\nuser-agent: me \"x\"\r\ncontent-length: 3\r\n\r\nabc",
        )
        .unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
    let lines = log.expect(1);
    let line = &lines[0];
    let address = backend.address;
    assert!(line.starts_with('['), "{line}");
    for part in [
        "Z] \"POST /bytes/7?q HTTP/1.1\" 200 - via_upstream - \"-\" 3 7 ",
        " \"127.0.0.1\" \"me \\\"x\\\"\" \"",
        &format!("\" \"a.com\" \"{address}\" outbound|80||web.shop.svc.cluster.local 127.0.0.1:"),
        &format!(" 127.0.0.1:{port} 127.0.0.1:"),
        " - route",
    ] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[test]
fn lines_that_still_wait_are_written_before_the_end() {
    let (port, log) = (free_port(), Log::new("end"));
    let options = log.options(AccessLogFormat::istio_text(), Fraction::ALWAYS);
    let edge = Edge::start_with(
        Snap::new(port, vec![route(prefix("/"), direct(200, "x"))]),
        options,
    );
    assert_eq!(get(port, "a", "/").status, 200);
    edge.expect_flagged("-", 1);
    drop(edge);
    assert_eq!(log.lines().len(), 1);
}

#[test]
fn json_lines_have_numbers_and_nulls_and_tell_of_failures() {
    let (port, log) = (free_port(), Log::new("json"));
    let options = log.options(AccessLogFormat::istio_json(), Fraction::ALWAYS);
    let _edge = Edge::start_with(Snap::simple(port, &[]), options);
    assert_eq!(get(port, "a", "/").status, 503);
    let line = &log.expect(1)[0];
    for part in [
        "\"response_code\":503",
        "\"response_flags\":\"UH\"",
        "\"response_code_details\":\"no_healthy_upstream\"",
        "\"bytes_sent\":19",
        "\"upstream_host\":null",
        "\"upstream_cluster\":\"outbound|80||web.shop.svc.cluster.local\"",
        "\"user_agent\":null",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn a_sample_of_none_logs_nothing_and_formats_may_be_ones_own() {
    let port = free_port();
    let format = || {
        AccessLogFormat::Text(FormatString::parse("%REQ(:METHOD)% %REQ(X-A?X-B):3%|%RESP(x-c)%\n").unwrap())
    };
    let (none, all) = (Log::new("none"), Log::new("own"));
    let snap = || Snap::new(port, vec![route(prefix("/"), direct(200, "x"))]);
    let edge = Edge::start_with(snap(), none.options(format(), Fraction::NEVER));
    assert_eq!(get(port, "a", "/").status, 200);
    edge.expect_flagged("-", 1);
    drop(edge);
    assert!(none.lines().is_empty());
    let _edge = Edge::start_with(snap(), all.options(format(), Fraction::ALWAYS));
    let mut client = Client::connect(port);
    client
        .write("GET / HTTP/1.1\r\nhost: a\r\nx-b: 12345\r\n\r\n")
        .unwrap();
    assert_eq!(client.read("GET").unwrap().status, 200);
    assert_eq!(all.expect(1), ["GET 123|-"]);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let options = ProxyOptions {
        access_log: Some(AccessLog {
            path: Some("/nonexistent/log".into()),
            format: AccessLogFormat::istio_text(),
            sample: Fraction::ALWAYS,
        }),
        ..ProxyOptions::new(1)
    };
    let registry = prometheus::Registry::new();
    let snapshot = Snap::default().build();
    let error = edge_proxy::Proxy::start(options, &snapshot, |_| {}, &registry)
        .err()
        .unwrap();
    assert!(error.to_string().contains("accessLog.path"), "{error}");
}

#[test]
fn sizes_and_grpc_statuses_are_counted() {
    let backend = Backend::start("one");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client
        .write(
            "POST /bytes/500 HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nreply-grpc-status: 5\r\n\
             content-length: 4\r\n\r\nabcd",
        )
        .unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
    let labels = ["grpc_response_status=\"5\"", "request_protocol=\"grpc\""];
    edge.expect_metric("istio_requests_total", &labels, 1);
    edge.expect_metric("istio_request_bytes_sum", &labels, 4);
    edge.expect_metric("istio_response_bytes_sum", &labels, 500);
    assert_eq!(get(port, "a", "/").status, 200);
    edge.expect_metric("istio_requests_total", &["request_protocol=\"http\""], 1);
}

#[test]
fn header_operations_fill_in_format_commands() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut rule = route(prefix("/"), forward(&[("web", 1)]));
    let pair = |name, text| {
        (
            HeaderName::from_static(name),
            HeaderTemplate::parse(text).unwrap(),
        )
    };
    rule.headers.request.set = vec![
        pair("x-user", "<%REQ(x-who)%>"),
        pair("x-from", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        pair("x-none", "%REQ(x-missing)%"),
    ];
    rule.headers.response.set = vec![
        pair("x-host", "%UPSTREAM_HOST%"),
        pair("x-copy", "%RESP(x-told)%"),
    ];
    let _edge = Edge::start(Snap::new(port, vec![rule]).with(service("web", &[backend.address])));
    let mut client = Client::connect(port);
    client
        .write("GET / HTTP/1.1\r\nhost: a\r\nx-who: ann\r\nreply-x-told: yes\r\n\r\n")
        .unwrap();
    let reply = client.read("GET").unwrap();
    assert_eq!(reply.told("x-user"), "<ann>");
    assert_eq!(reply.told("x-from"), "127.0.0.1");
    assert_eq!(reply.told("x-none"), "");
    assert_eq!(reply.header("x-host"), Some(backend.address.to_string().as_str()));
    assert_eq!(reply.header("x-copy"), Some("yes"));
}

#[test]
fn behind_trusted_proxies_their_word_is_taken() {
    let backend = Backend::start("one");
    let port = free_port();
    let options = ProxyOptions {
        trusted_proxies: 2,
        ..ProxyOptions::new(1)
    };
    let _edge = Edge::start_with(Snap::simple(port, &[backend.address]), options);
    let ask = |headers: &str| {
        let mut client = Client::connect(port);
        client
            .write(format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"))
            .unwrap();
        client.read("GET").unwrap()
    };
    let told = ask(
        "x-forwarded-for: 198.51.100.1, 192.0.2.7, 192.0.2.8\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n",
    );
    assert_eq!(told.told("x-envoy-external-address"), "192.0.2.7");
    assert_eq!(told.told("x-forwarded-proto"), "https");
    assert_eq!(told.told("x-request-id"), "mine");
    let short = ask("x-forwarded-for: 192.0.2.8\r\n");
    assert_eq!(short.told("x-envoy-external-address"), "127.0.0.1");
}

#[test]
fn metrics_tell_the_version_under_istios_name() {
    let edge = Edge::start(Snap::new(free_port(), vec![]));
    let version = format!("tag=\"{}\"", env!("CARGO_PKG_VERSION"));
    edge.expect_metric("istio_build", &["component=\"proxy\"", &version], 1);
}
