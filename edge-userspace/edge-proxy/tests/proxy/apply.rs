//! A new configuration under load.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edge_model::{Kind, ObjectRef};
use edge_proxy::{Error, ProxyOptions};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, direct, eventually, forward, free_port, get, prefix, route,
    service, virtual_host,
};

#[test]
fn requests_after_apply_see_the_new_routes_also_on_open_connections() {
    let port = free_port();
    let answer = |text| Snap::new(port, vec![route(prefix("/"), direct(200, text))]);
    let edge = Edge::start(answer("old"));
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        assert_eq!(client.get("a", "/").unwrap().text(), "old");
    }
    edge.apply(answer("new"));
    for client in &mut clients {
        assert_eq!(client.get("a", "/").unwrap().text(), "new");
    }
}

#[test]
fn while_a_policy_cannot_be_enforced_every_request_is_refused() {
    let port = free_port();
    let open = Snap::new(port, vec![route(prefix("/a"), direct(200, "in"))]);
    let mut closed = open.clone();
    closed.unenforced.push(ObjectRef {
        kind: Kind::AuthorizationPolicy,
        namespace: "shop".into(),
        name: "a".into(),
    });
    let edge = Edge::start(closed);
    let mut client = Client::connect(port);
    for path in ["/a", "/no-route"] {
        let reply = client.get("a", path).unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (403, "RBAC: access denied"),
            "{path}"
        );
    }
    edge.apply(open);
    assert_eq!(client.get("a", "/a").unwrap().text(), "in");
}

/// A minute of changes: a machine that has not answered a thousand requests by then answers none.
const MOST_CHANGES: u32 = 1200;

#[test]
fn ports_and_routes_come_and_go_under_load_without_a_lost_request() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (port, coming_and_going) = (free_port(), free_port());
    let with = |backend: &Backend, both: bool| {
        let routes = || vec![route(prefix("/"), forward(&[("web", 1)]))];
        let snap = Snap::new(port, routes()).with(service("web", &[backend.address]));
        if both {
            snap.listen(coming_and_going, vec![virtual_host("*", routes())])
        } else {
            snap
        }
    };
    let edge = Edge::start(with(&one, true));
    let (stop, answered, answered_there) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for keeps_alive in [true, true, false] {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("a", "/").unwrap().status, 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                    if !keeps_alive {
                        client = Client::connect(port);
                    }
                }
            });
        }
        scope.spawn(|| {
            let address = SocketAddr::from(([127, 0, 0, 1], coming_and_going));
            while !stop.load(Ordering::SeqCst) {
                // While the port is away, connecting fails, and that is as it should be. Once connected, though, a
                // request is answered.
                let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
                    continue;
                };
                assert_eq!(Client::over(stream).get("a", "/").unwrap().status, 200);
                answered_there.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Forty changes, and more on a busy machine: until as much was asked as the counts below want.
        let is_enough = || {
            answered.load(Ordering::SeqCst) > 1000
                && answered_there.load(Ordering::SeqCst) > 10
                && one.hits() > 100
                && two.hits() > 100
        };
        for round in 0..MOST_CHANGES {
            edge.apply(with(if round % 2 == 0 { &two } else { &one }, round % 4 < 2));
            std::thread::sleep(Duration::from_millis(50));
            if round >= 40 && is_enough() {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(answered.load(Ordering::SeqCst) > 1000, "{answered:?}");
    assert!(answered_there.load(Ordering::SeqCst) > 10, "{answered_there:?}");
    assert!(one.hits() > 100 && two.hits() > 100);
}

#[test]
fn a_connection_of_a_vanished_port_is_served_once_more_and_closed() {
    let (staying, vanishing) = (free_port(), free_port());
    let routes = || vec![route(prefix("/"), direct(200, "here"))];
    let both = Snap::new(staying, routes()).listen(vanishing, vec![virtual_host("*", routes())]);
    let edge = Edge::start(both);
    let mut client = Client::connect(vanishing);
    assert_eq!(client.get("a", "/").unwrap().header("connection"), None);
    edge.apply(Snap::new(staying, routes()));
    let last = client.get("a", "/").unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(client.is_at_end());
    let address = SocketAddr::from(([127, 0, 0, 1], vanishing));
    assert!(eventually(|| {
        TcpStream::connect_timeout(&address, Duration::from_millis(50))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }));
}

/// A client whose socket takes little before it is read from.
fn narrow_client(port: u16) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&server.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

#[test]
fn what_a_client_has_sent_ahead_costs_it_nothing_of_the_last_answer() {
    // More than the client's socket takes, and less than the gateway's.
    const LENGTH: usize = 64 << 10;
    let web = Backend::start("web");
    let (staying, vanishing) = (free_port(), free_port());
    let rule = || vec![route(prefix("/"), forward(&[("web", 1)]))];
    let snap = || Snap::new(staying, rule()).with(service("web", &[web.address]));
    let edge = Edge::start(snap().listen(vanishing, vec![virtual_host("*", rule())]));
    let mut client = narrow_client(vanishing);
    assert_eq!(client.get("a", "/").unwrap().status, 200);
    edge.apply(snap());
    // Requests that are not looked at any more: a socket that is closed with them unread resets its connection, and what is
    // still in it of the answer is gone.
    let ahead = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(5000);
    client
        .write(format!("GET /bytes/{LENGTH} HTTP/1.1\r\nhost: a\r\n\r\n{ahead}"))
        .unwrap();
    edge.expect_metric("edge_downstream_connections", &[], 0);
    let last = client.read("GET").unwrap();
    assert_eq!(
        (last.header("connection"), last.body.len()),
        (Some("close"), LENGTH)
    );
    assert!(client.is_at_end());
}

#[test]
fn connections_to_an_endpoint_that_is_gone_are_closed_and_others_kept() {
    let keep_alive = || {
        RawBackend::start(|mut stream, _| {
            while !RawBackend::read_head(&mut stream).is_empty() {
                let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                std::io::Write::write_all(&mut stream, ok).unwrap();
            }
        })
    };
    let (stays, goes) = (keep_alive(), keep_alive());
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[stays.address, goes.address]));
    let mut client = Client::connect(port);
    for _ in 0..10 {
        client.get("a", "/").unwrap();
    }
    assert_eq!((stays.connections(), goes.connections(), goes.open()), (1, 1, 1));
    edge.apply(Snap::simple(port, &[stays.address]));
    for _ in 0..10 {
        client.get("a", "/").unwrap();
    }
    assert_eq!(
        stays.connections(),
        1,
        "the connection to the endpoint that stayed is used on"
    );
    assert!(eventually(|| goes.open() == 0));
}

#[test]
fn a_port_that_cannot_be_had_changes_nothing() {
    let foreign = TcpListener::bind("[::]:0").unwrap();
    let taken = foreign.local_addr().unwrap().port();
    let (port, other) = (free_port(), free_port());
    let hosts = |text| vec![virtual_host("*", vec![route(prefix("/"), direct(200, text))])];
    let edge = Edge::start(Snap::default().listen(port, hosts("old")));
    let worse = Snap::default()
        .listen(port, hosts("new"))
        .listen(other, hosts("new"))
        .listen(taken, hosts("new"));
    let error = edge.proxy.apply(&worse.build()).unwrap_err();
    assert!(
        matches!(error, Error::Listen { address, .. } if address == taken.into()),
        "{error}"
    );
    assert!(error.to_string().contains("another process listens"), "{error}");
    assert_eq!(get(port, "a", "/").text(), "old");
    assert!(TcpStream::connect(("127.0.0.1", other)).is_err());
}

/// What is answered at an address; `None` where nobody listens.
fn at(address: &str, port: u16) -> Option<String> {
    let stream = TcpStream::connect((address, port)).ok()?;
    Some(Client::over(stream).get("a", "/").unwrap().text().to_owned())
}

#[test]
fn a_listener_with_an_address_of_its_own_is_there_alone_and_beside_one_for_all() {
    let port = free_port();
    let hosts = |text| vec![virtual_host("*", vec![route(prefix("/"), direct(200, text))])];
    let bound = |snap: Snap, address: &str, text| {
        let mut snap = snap.listen(port, hosts(text));
        let listener = Arc::make_mut(snap.listeners.last_mut().unwrap());
        listener.bind = Some(address.parse().unwrap());
        snap
    };
    let edge = Edge::start(bound(Snap::default(), "127.0.0.8", "eight"));
    assert_eq!(at("127.0.0.8", port).as_deref(), Some("eight"));
    assert_eq!(at("127.0.0.1", port), None);
    let mut kept = Client::over(TcpStream::connect(("127.0.0.8", port)).unwrap());
    assert_eq!(kept.get("a", "/").unwrap().text(), "eight");
    edge.apply(bound(
        Snap::default().listen(port, hosts("all")),
        "127.0.0.8",
        "eight again",
    ));
    assert_eq!(at("127.0.0.8", port).as_deref(), Some("eight again"));
    assert_eq!(at("127.0.0.1", port).as_deref(), Some("all"));
    assert_eq!(kept.get("a", "/").unwrap().text(), "eight again");
    edge.apply(Snap::default().listen(port, hosts("all")));
    let falls_to_all = || at("127.0.0.8", port).as_deref() == Some("all");
    assert!(eventually(falls_to_all), "its socket is closed a little later");
    // An address that is not this machine's.
    let foreign = bound(Snap::default().listen(port, hosts("new")), "192.0.2.1", "x");
    let error = edge.proxy.apply(&foreign.build()).unwrap_err();
    assert!(
        error.to_string().contains(&format!("192.0.2.1:{port}")),
        "{error}"
    );
    assert_eq!(at("127.0.0.1", port).as_deref(), Some("all"));
}

#[test]
fn every_worker_has_a_socket_on_every_port_for_tier_1_to_steer_to() {
    let (a, b) = (free_port(), free_port());
    let hosts = || vec![virtual_host("*", vec![route(prefix("/"), direct(200, ""))])];
    let edge = Edge::start(Snap::default().listen(a, hosts()).listen(b, hosts()));
    let sockets = edge.proxy.sockets().unwrap();
    let mut seen: Vec<_> = sockets
        .iter()
        .map(|socket| (socket.address.port, socket.worker.0))
        .collect();
    seen.sort_unstable();
    let mut expected = vec![(a, 0), (a, 1), (b, 0), (b, 1)];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    for socket in sockets {
        let listener = TcpListener::from(socket.socket);
        assert_eq!(listener.local_addr().unwrap().port(), socket.address.port);
    }
}

#[test]
fn connections_are_spread_over_the_workers_and_counted_there() {
    let port = free_port();
    let edge = Edge::start(Snap::new(port, vec![route(prefix("/"), direct(200, ""))]));
    let open: Vec<_> = (0..100).map(|_| Client::connect(port)).collect();
    let counted = || {
        edge.proxy
            .workers()
            .iter()
            .map(|worker| worker.connections)
            .sum::<u64>()
    };
    assert!(eventually(|| counted() == 100));
    assert!(
        edge.proxy
            .workers()
            .iter()
            .all(|worker| worker.connections_total > 10),
        "{:?}",
        edge.proxy.workers()
    );
    drop(open);
    assert!(eventually(|| counted() == 0), "{:?}", edge.proxy.workers());
    edge.expect_metric("edge_downstream_connections_total", &[], 100);
}

#[test]
fn a_pinned_worker_runs_on_one_core() {
    let port = free_port();
    let options = ProxyOptions {
        pin_to_cores: true,
        ..ProxyOptions::new(2)
    };
    let snap = Snap::new(port, vec![route(prefix("/"), direct(200, ""))]);
    let _edge = Edge::start_with(snap, options);
    assert!(eventually(|| pinned_workers() == 2));
}

/// Worker threads of this process that may run on one core only.
fn pinned_workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // Threads of other tests end as they are looked at.
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let on_one_core = |line: &str| {
        let cores = line.strip_prefix("Cpus_allowed_list:\t");
        cores.is_some_and(|cores| cores.parse::<u32>().is_ok())
    };
    let is_pinned = |status: &String| status.contains("worker-") && status.lines().any(on_one_core);
    statuses.filter(is_pinned).count()
}
