//! The PROXY protocol, from proxies in front.

use edge_proxy::{ProxyOptions, ProxyProtocolIn};

use crate::support::{Backend, Client, Edge, Snap, free_port};

/// An edge that takes the header from some proxies.
fn edge(from: &str, port: u16, web: &Backend) -> Edge {
    let options = ProxyOptions {
        proxy_protocol: ProxyProtocolIn {
            from: vec![from.parse().unwrap()],
            ports: vec![port],
        },
        ..ProxyOptions::new(1)
    };
    Edge::start_with(Snap::simple(port, &[web.address]), options)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn the_address_in_the_header_is_the_clients() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = edge("127.0.0.0/8", port, &web);
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    binary.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    binary.extend([0; 16]);
    binary.extend([0, 5, 0, 80]);
    for (header, told) in [
        (&b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n"[..], "192.0.2.7"),
        (&b"PROXY TCP6 2001:db8::7 ::1 5 80\r\n"[..], "2001:db8::7"),
        (&b"PROXY UNKNOWN\r\n"[..], "127.0.0.1"),
        (&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], "127.0.0.1"),
        (&binary, "2001:db8::7"),
    ] {
        let mut client = Client::connect(port);
        client.write([header, GET].concat()).unwrap();
        let reply = client.read("GET").unwrap();
        assert_eq!(reply.told("x-forwarded-for"), told, "{header:?}");
        // Byte by byte it is the same.
        let mut client = Client::connect(port);
        for byte in [header, GET].concat() {
            client.write([byte]).unwrap();
        }
        assert_eq!(client.read("GET").unwrap().told("x-forwarded-for"), told);
    }
}

#[test]
fn a_proxy_without_the_header_is_closed_and_counted() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = edge("127.0.0.1", port, &web);
    let bad = [
        GET,
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\n",
        b"PROXY \r\nPROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c000000000000",
        &[b'P'; 200],
    ];
    for header in bad {
        let mut client = Client::connect(port);
        client.write([header, GET].concat()).unwrap();
        assert!(client.is_at_end(), "{header:?}");
    }
    let count = u64::try_from(bad.len()).unwrap();
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"proxy protocol\""],
        count,
    );
    assert_eq!(web.hits(), 0);
}

#[test]
fn nobody_else_may_say_who_they_are() {
    let web = Backend::start("web");
    let port = free_port();
    let _edge = edge("192.0.2.0/24", port, &web);
    let mut client = Client::connect(port);
    client
        .write([b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n", GET].concat())
        .unwrap();
    assert!(client.read("GET").map_or(true, |reply| reply.status == 400));
    assert_eq!(
        Client::connect(port)
            .get("a", "/")
            .unwrap()
            .told("x-forwarded-for"),
        "127.0.0.1"
    );
}
