//! A process at its bounds: new work is refused, what is under way goes on.

use std::io::ErrorKind;
use std::time::Duration;

use edge_proxy::{Bounds, ProxyOptions};

use crate::support::{Backend, Client, Edge, Snap, eventually, free_port};

fn with_bounds(bounds: Bounds) -> ProxyOptions {
    ProxyOptions {
        bounds,
        ..ProxyOptions::new(2)
    }
}

fn connections(max_connections: usize) -> Bounds {
    Bounds {
        max_connections,
        ..Bounds::default()
    }
}

#[test]
fn a_connection_beyond_the_bound_is_closed_and_those_that_are_there_go_on() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), with_bounds(connections(2)));
    let mut first = Client::connect(port);
    let mut second = Client::connect(port);
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    for _ in 0..3 {
        assert!(Client::connect(port).get("a", "/").is_err());
    }
    let parts = ["what=\"connection\"", "bound=\"max_connections\""];
    edge.expect_metric("edge_overload_shed_total", &parts, 3);
    assert_eq!(first.get("a", "/").unwrap().status, 200);
    drop(second);
    assert!(
        eventually(|| Client::connect(port).get("a", "/").is_ok()),
        "there is room again"
    );
}

#[test]
fn idle_connections_make_room_when_it_is_scarce() {
    let web = Backend::start("web");
    let port = free_port();
    let bounds = Bounds {
        idle_in_haste: Duration::from_millis(200),
        ..connections(2)
    };
    let _edge = Edge::start_with(Snap::simple(port, &[web.address]), with_bounds(bounds));
    let mut idle = [Client::connect(port), Client::connect(port)];
    for client in &mut idle {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    assert!(eventually(|| Client::connect(port).get("a", "/").is_ok()));
    assert!(idle.iter_mut().any(Client::is_at_end));
}

#[test]
fn who_does_not_say_what_it_wants_makes_room_for_others() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start_with(
        Snap::simple(port, &[web.address]),
        ProxyOptions {
            bounds: connections(10),
            ..ProxyOptions::new(1)
        },
    );
    let mut good = Client::connect(port);
    assert_eq!(good.get("a", "/").unwrap().status, 200);
    let mut slow: Vec<_> = (0..9).map(|_| Client::connect(port)).collect();
    for client in &mut slow[..5] {
        client.write("GET / HTTP/1.1\r\nhost: ").unwrap();
    }
    // All places are taken; for a second everybody is given the chance to ask.
    let mut later = Vec::new();
    let gets_in = || {
        let mut client = Client::connect(port);
        let is_served = client.get("a", "/").is_ok_and(|reply| reply.status == 200);
        later.push(client);
        is_served
    };
    assert!(eventually(gets_in));
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"crowded out\""],
        1,
    );
    for client in &slow {
        client.stream().set_nonblocking(true).unwrap();
    }
    // Only what is over can be read from: nobody was answered.
    let is_over = |client: &&Client| {
        let peeked = client.stream().peek(&mut [0]);
        peeked.is_ok() || peeked.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    };
    assert!(eventually(|| slow.iter().filter(is_over).count() == 1));
    assert_eq!(good.get("a", "/").unwrap().status, 200, "who has asked stays");
}

/// Resident memory of this process, in which the proxy runs, too.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kibibytes << 10
}

#[test]
fn at_the_memory_bound_requests_get_503_and_connections_are_closed_until_there_is_memory_again() {
    const ROOM: u64 = 256 << 20;
    let web = Backend::start("web");
    let port = free_port();
    let bounds = Bounds {
        max_memory: Some(resident() + ROOM),
        ..Bounds::default()
    };
    let edge = Edge::start_with(Snap::simple(port, &[web.address]), with_bounds(bounds));
    let mut kept = Client::connect(port);
    assert_eq!(kept.get("a", "/").unwrap().status, 200);

    let ballast = vec![1u8; usize::try_from(ROOM).unwrap() + (64 << 20)];
    edge.expect_metric("edge_overload_pressure", &[], 3);
    let refused = kept.get("a", "/").unwrap();
    assert_eq!((refused.status, refused.text()), (503, "envoy overloaded"));
    assert_eq!(refused.header("x-envoy-local-overloaded"), Some("true"));
    assert!(kept.is_at_end(), "the connection costs memory, too");
    assert!(Client::connect(port).get("a", "/").is_err());
    edge.expect_flagged("OM", 1);
    edge.expect_metric("edge_overload_shed_total", &["what=\"request\""], 1);
    edge.expect_metric(
        "edge_overload_shed_total",
        &["what=\"connection\"", "bound=\"max_memory\""],
        1,
    );

    assert_eq!(ballast.last(), Some(&1));
    drop(ballast);
    assert!(eventually(|| Client::connect(port)
        .get("a", "/")
        .is_ok_and(|reply| reply.status == 200)));
}
