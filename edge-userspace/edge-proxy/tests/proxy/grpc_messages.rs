//! Messages of gRPC calls, as metrics tell of them.

use std::io::Write;

use bytes::Bytes;
use edge_model::{Cluster, UpstreamProtocol};
use http::{Method, Request};
use http_body_util::Full;

use crate::support::{
    Backend, Client, Edge, Http2Backend, Snap, forward, free_port, http2, prefix, route, service,
};

const REQUESTS: &str = "istio_request_messages_total";
const RESPONSES: &str = "istio_response_messages_total";

/// Two messages, of three bytes and of none.
const TWO: &[u8] = b"\0\0\0\0\x03abc\x01\0\0\0\0";

#[track_caller]
fn expect(edge: &Edge, requests: u64, responses: u64) {
    edge.expect_metric(REQUESTS, &[], requests);
    edge.expect_metric(RESPONSES, &[], responses);
}

/// Sends a call whose body comes back, and reads the answer.
fn call(port: u16, path: &str, content_type: &str, body: &[u8]) {
    let mut client = Client::connect(port);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write([head.as_bytes(), body].concat()).unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
}

#[test]
fn messages_of_both_directions_are_counted_under_istios_labels() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    call(port, "/echo", "application/grpc", TWO);
    expect(&edge, 2, 2);
    call(port, "/bytes/0", "application/grpc+proto", TWO);
    expect(&edge, 4, 2);
    for name in [REQUESTS, RESPONSES] {
        let line = edge.lines(name);
        let labels = line.split_once('{').unwrap().1.split_once('}').unwrap().0;
        assert_eq!(labels.split(',').count(), 20, "{line}");
        for label in [
            "reporter=\"source\"",
            "source_workload=\"edge\"",
            "destination_workload=\"web-v1\"",
            "destination_service=\"web.shop.svc.cluster.local\"",
        ] {
            assert!(labels.contains(label), "{label}: {line}");
        }
    }
}

#[test]
fn what_is_no_call_has_no_messages() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    call(port, "/echo", "application/octet-stream", TWO);
    edge.expect_flagged("-", 1);
    assert_eq!(edge.lines(REQUESTS), "");
}

#[test]
fn messages_of_a_stream_are_seen_while_it_lasts() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut client = Client::connect(port);
    client
        .write(
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
             transfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let chunk = |client: &mut Client, data: &[u8]| {
        let size = format!("{:x}\r\n", data.len());
        client.write([size.as_bytes(), data, b"\r\n"].concat()).unwrap();
    };
    chunk(&mut client, TWO);
    expect(&edge, 2, 2);
    // A message may come in pieces, and two in one.
    chunk(&mut client, b"\0\0\0\0\x04ab");
    expect(&edge, 3, 3);
    chunk(&mut client, b"cd\0\0\0\0\0");
    expect(&edge, 4, 4);
    assert_eq!(edge.metric("istio_requests_total", &[]), 0.0);
    client.stream_mut().write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
    edge.expect_flagged("-", 1);
    expect(&edge, 4, 4);
}

#[test]
fn framing_that_lies_is_counted_as_far_as_it_goes() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    let mut counted = 0;
    for (body, messages) in [
        // A length of 4 GiB, one that no more comes of, and what is no prefix behind a message.
        (&b"\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0"[..], 1),
        (b"\0\0", 1),
        (b"\0\0\0\0\x01xhello", 1),
        (b"{\"json\": true}", 0),
    ] {
        call(port, "/echo", "application/grpc", body);
        counted += messages;
        expect(&edge, counted, counted);
    }
}

#[test]
fn calls_over_http2_are_counted_each() {
    const CALLS: u64 = 20;
    let grpc = Http2Backend::start();
    let port = free_port();
    let cluster = Cluster {
        protocol: UpstreamProtocol::Http2,
        ..service("web", &[grpc.address])
    };
    let edge = Edge::start(Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster));
    let call = || {
        Request::builder()
            .method(Method::POST)
            .uri("http://a.com/pkg.Service/Call")
            .header("content-type", "application/grpc")
            .body(Full::from(Bytes::from_static(TWO)))
            .unwrap()
    };
    for answer in http2(port, (0..CALLS).map(|_| call()).collect()) {
        assert_eq!(answer.unwrap().trailers.unwrap()["grpc-status"], "0");
    }
    // The backend answers with text.
    expect(&edge, 2 * CALLS, 0);
}
