//! The data path on a veth pair with real connections and floods. Needs root.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use edge_common::{DropReason, PassReason};
use edge_datapath::{AttachedMode, DataPath, Error, LoadOptions, Stats, WorkerSocket, XdpMode};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, VIP4, VIP6, config, limited};
use edge_lab::wait_until;
use edge_model::{DataPathConfig, Measure, Penalty, PenaltyReason, Protocol, SynCookies, WorkerId};

const WORKERS: u16 = 4;
/// Connections of each family.
const CONNECTIONS: usize = 200;

fn load() -> Result<DataPath, Error> {
    let interfaces = vec!["node0".into()];
    DataPath::load(LoadOptions {
        interfaces,
        mode: XdpMode::Auto,
        manage_local_routes: true,
        pinning: None,
        ..LoadOptions::default()
    })
}

fn vips() -> [SocketAddr; 2] {
    [SocketAddr::new(VIP4.into(), 80), SocketAddr::new(VIP6.into(), 80)]
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(3))
}

/// Connections that wait at each listener.
fn accept_all(listeners: &[TcpListener]) -> Result<Vec<u64>> {
    let drain = |listener: &TcpListener| {
        let mut accepted = 0;
        loop {
            match listener.accept() {
                Ok(_) => accepted += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(accepted),
                Err(error) => return Err(error.into()),
            }
        }
    };
    listeners.iter().map(drain).collect()
}

fn opened(stats: &Stats) -> Vec<u64> {
    stats
        .workers
        .iter()
        .map(|worker| worker.traffic.new_connections)
        .collect()
}

fn steered(stats: &Stats) -> Vec<u64> {
    stats
        .workers
        .iter()
        .map(|worker| worker.steering.steered)
        .collect()
}

fn passed(stats: &Stats, reason: PassReason) -> u64 {
    stats
        .passed
        .iter()
        .filter(|(of, _)| *of == reason)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn xdp_socket_selection_and_accepts_agree_on_the_worker_of_every_connection() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        assert_eq!(datapath.interfaces()[0].mode, AttachedMode::Native);
        let sockets = sockets(&listeners, LISTENER_PORT);
        datapath.reconcile(&config(WORKERS), &sockets)?;
        assert!(
            datapath.reconcile(&config(WORKERS), &sockets)?.is_empty(),
            "nothing changed"
        );
        let clients = inside(&pair.client, || {
            let targets = vips().into_iter().flat_map(|vip| [vip; CONNECTIONS]);
            targets
                .map(|vip| connect(vip).with_context(|| vip.to_string()))
                .collect::<Result<Vec<_>>>()
        })?;
        let accepted = accept_all(&listeners)?;
        let stats = datapath.stats()?;
        assert_eq!(accepted.iter().sum::<u64>(), clients.len() as u64);
        assert_eq!(opened(&stats), accepted);
        assert_eq!(steered(&stats), accepted);
        // 100 are expected at each; 50 is more than five standard deviations.
        assert!(
            accepted.iter().all(|count| count.abs_diff(100) < 50),
            "{accepted:?}"
        );
        datapath.detach()?;
        Ok(())
    })
}

#[test]
fn a_worker_without_a_socket_or_weight_leaves_its_connections_to_others() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let mut listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        datapath.reconcile(&config(WORKERS), &sockets(&listeners, LISTENER_PORT))?;
        // The kernel takes a closed socket out by itself; the table still names its worker.
        listeners.remove(1);
        let open = |count| {
            inside(&pair.client, || {
                (0..count)
                    .map(|_| Ok(connect(vips()[0])?))
                    .collect::<Result<Vec<_>>>()
            })
        };
        let clients = open(100)?;
        assert_eq!(accept_all(&listeners)?.iter().sum::<u64>(), clients.len() as u64);
        let worker = datapath.stats()?.workers[1];
        assert!(
            worker.steering.moved > 0 && worker.steering.steered == 0,
            "{worker:?}"
        );
        assert_eq!(worker.steering.moved, worker.traffic.new_connections);

        let mut draining = config(WORKERS);
        draining.workers[0].weight = 0;
        draining.workers[1].weight = 0;
        datapath.reconcile(&draining, &[])?;
        let listening: Vec<WorkerSocket<'_>> = [0, 2, 3]
            .into_iter()
            .zip(&listeners)
            .map(|(id, listener)| WorkerSocket {
                worker: WorkerId(id),
                port: LISTENER_PORT,
                address: None,
                protocol: Protocol::Tcp,
                fd: listener.as_fd(),
            })
            .collect();
        datapath.reconcile(&draining, &listening)?;
        let clients = open(50)?;
        let accepted = accept_all(&listeners)?;
        assert_eq!(
            (accepted[0], accepted[1] + accepted[2]),
            (0, clients.len() as u64)
        );

        datapath.reconcile(&draining, &[])?;
        let refused = inside(&pair.client, || {
            Ok(connect(vips()[0]).err().map(|error| error.kind()))
        })?;
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        datapath.drain_log();
        Ok(())
    })
}

#[test]
fn udp_reaches_the_bound_socket_of_its_worker() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let socket = UdpSocket::bind("[::]:5300")?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut datapath = load()?;
        let worker = WorkerSocket {
            worker: WorkerId(0),
            port: 5300,
            address: None,
            protocol: Protocol::Udp,
            fd: socket.as_fd(),
        };
        datapath.reconcile(&config(1), &[worker])?;
        inside(&pair.client, || {
            for vip in vips() {
                let any: IpAddr = if vip.is_ipv4() {
                    [0; 4].into()
                } else {
                    [0_u16; 8].into()
                };
                UdpSocket::bind((any, 0))?.send_to(b"ping", (vip.ip(), 53))?;
            }
            Ok(())
        })?;
        for _ in vips() {
            let mut bytes = [0; 16];
            let (len, _) = socket.recv_from(&mut bytes)?;
            assert_eq!(&bytes[..len], b"ping");
        }
        assert_eq!(datapath.stats()?.workers[0].steering.steered, 2);
        Ok(())
    })
}

#[test]
fn the_nodes_own_traffic_is_left_alone() -> Result<()> {
    let pair = Pair::new()?;
    // The VIP's address is the node's own too, as on a machine with one address and ssh on it.
    pair.node
        .ip(&format!("address add {}/32 dev lo", IpAddr::from(VIP4)))?;
    inside(&pair.node, || {
        let own = TcpListener::bind("[::]:2222")?;
        let mut datapath = load()?;
        datapath.reconcile(&limited(WORKERS, 1000, 1000), &[])?;
        inside(&pair.client, || {
            connect("10.77.0.2:2222".parse()?)?;
            connect(SocketAddr::new(VIP4.into(), 2222))?;
            Ok(())
        })?;
        own.set_nonblocking(true)?;
        assert_eq!(accept_all(&[own])?, [2]);
        let stats = datapath.stats()?;
        assert!(passed(&stats, PassReason::NoVip) > 0 && passed(&stats, PassReason::PortNotServed) > 0);
        assert_eq!(stats.dropped_total(), 0);
        Ok(())
    })
}

#[test]
fn a_flood_is_dropped_and_a_good_client_does_not_notice() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        datapath.reconcile(&limited(WORKERS, 100, 50), &sockets(&listeners, LISTENER_PORT))?;
        for (kind, reason) in [
            ("syn", DropReason::FloodNewConnections),
            ("udp", DropReason::FloodPackets),
        ] {
            let before = datapath.stats()?;
            let flood = flood(&pair, kind)?;
            let good = inside(&pair.client, || {
                thread::sleep(Duration::from_millis(300));
                Ok(connect(vips()[1])?)
            });
            let output = flood.wait_with_output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let sent = report["sent"].as_u64().context("sent")?;
            let after = datapath.stats()?;
            let dropped = after.dropped_for(reason) - before.dropped_for(reason);
            assert!(sent > 20_000, "{kind}: {report}");
            assert!(
                dropped * 100 >= sent * 99 && dropped <= sent,
                "{kind}: {dropped} of {report}"
            );
            good.context(kind)?;
        }
        Ok(())
    })
}

/// Starts a flood of one second from four sources.
fn flood(pair: &Pair, kind: &str) -> Result<std::process::Child> {
    let mut command = pair.client.command(env!("CARGO_BIN_EXE_edge-pktgen"));
    let port = if kind == "syn" { "80" } else { "53" };
    command.args([
        "--interface",
        "client0",
        "--kind",
        kind,
        "--dst",
        "10.77.100.1",
        "--dst-port",
        port,
    ]);
    command.args([
        "--src-base",
        "10.77.0.100",
        "--src-count",
        "4",
        "--seconds",
        "1",
        "--json",
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Ok(command.spawn()?)
}

#[test]
fn the_generator_keeps_to_its_rate_and_to_virtual_interfaces() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let mut datapath = load()?;
        datapath.reconcile(&config(1), &[])?;
        let run = |interface: &str| -> Result<std::process::Output> {
            let mut command: Command = pair.client.command(env!("CARGO_BIN_EXE_edge-pktgen"));
            command.args([
                "--interface",
                interface,
                "--kind",
                "udp",
                "--src-base",
                "198.18.0.1",
                "--dst",
            ]);
            command.args([
                "10.77.100.1",
                "--dst-port",
                "53",
                "--seconds",
                "1",
                "--pps",
                "2000",
                "--json",
            ]);
            Ok(command.output()?)
        };
        let report: serde_json::Value = serde_json::from_slice(&run("client0")?.stdout)?;
        let sent = report["sent"].as_u64().context("sent")?;
        assert!((1500..=2000).contains(&sent), "{report}");
        let stats = datapath.stats()?;
        let received: u64 = stats.vips.iter().map(|vip| vip.traffic.packets).sum();
        assert_eq!(received, sent, "every frame is a sound one to the VIP");
        let refused = run("lo")?;
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("veth"));
        Ok(())
    })
}

/// A counter of the namespace's TCP (`TcpExt` in /proc/net/netstat).
fn tcp_counter(name: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let pair = names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(of, _)| *of == name);
    pair.context(name.to_owned())?.1.parse().context("a number")
}

#[test]
fn connections_by_cookie_carry_data_both_ways_and_keep_their_options() -> Result<()> {
    let pair = Pair::new()?;
    // Frames that XDP sends back arrive at a veth's peer only if that has a program, too.
    let peer = LoadOptions {
        interfaces: vec!["client0".into()],
        ..LoadOptions::default()
    };
    let _peer = inside(&pair.client, || Ok(DataPath::load(peer)?))?;
    inside(&pair.node, || {
        std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "2")?;
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        let always = DataPathConfig {
            syn_cookies: Some(SynCookies::Always),
            ..config(WORKERS)
        };
        datapath.reconcile(&always, &sockets(&listeners, LISTENER_PORT))?;
        let before = tcp_counter("SyncookiesRecv")?;
        for vip in vips() {
            for _ in 0..20 {
                echo(&pair, &listeners, vip).with_context(|| vip.to_string())?;
            }
        }
        let answered: u64 = datapath.stats()?.replied.iter().map(|(_, count)| count).sum();
        // One SYN a second is the kernel's to answer.
        assert!(answered >= 20, "{answered}");
        assert_eq!(
            tcp_counter("SyncookiesRecv")? - before,
            40,
            "every connection came by a cookie"
        );
        assert_eq!(tcp_counter("SyncookiesFailed")?, 0);
        datapath.detach()?;
        Ok(())
    })
}

/// Connects, and sends 100 kB there and back.
fn echo(pair: &Pair, listeners: &[TcpListener], vip: SocketAddr) -> Result<()> {
    const LEN: usize = 100_000;
    let client = inside(&pair.client, || Ok(connect(vip)?))?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let accepted = std::cell::RefCell::new(None);
    wait_until("the connection is accepted", Duration::from_secs(5), || {
        *accepted.borrow_mut() = listeners.iter().find_map(|listener| listener.accept().ok());
        Ok(accepted.borrow().is_some())
    })?;
    let (server, _) = accepted.into_inner().context("accepted")?;
    server.set_nonblocking(false)?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let mut bytes = vec![0; LEN];
            (&server).read_exact(&mut bytes)?;
            (&server).write_all(&bytes)?;
            Ok(())
        });
        (&client).write_all(&vec![7; LEN])?;
        let mut bytes = vec![0; LEN];
        (&client).read_exact(&mut bytes)?;
        ensure!(bytes.iter().all(|&byte| byte == 7), "other bytes came back");
        echo.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })
}

#[test]
fn a_penalty_stops_its_source_at_the_interface_until_it_ends() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        datapath.reconcile(&config(WORKERS), &sockets(&listeners, LISTENER_PORT))?;
        let until = Instant::now() + Duration::from_secs(2);
        let source = IpAddr::from([10, 77, 0, 1]);
        datapath.penalise(&Penalty {
            source: source.into(),
            until,
            reason: PenaltyReason::RateLimit,
            measure: Measure::default(),
        })?;
        let short = Duration::from_millis(500);
        let refused = inside(&pair.client, || {
            Ok(TcpStream::connect_timeout(&vips()[0], short).is_err())
        })?;
        assert!(refused, "a penalised source reaches no VIP");
        inside(&pair.client, || Ok(connect(vips()[1])?)).context("by its other address it does")?;
        let penalty = datapath.penalties()?[0];
        assert!(
            penalty.source == source.into() && !penalty.remaining.is_zero() && penalty.dropped > 0,
            "{penalty:?}"
        );
        assert_eq!(
            datapath.stats()?.dropped_for(DropReason::Penalty),
            penalty.dropped
        );
        assert!(datapath.expire()?.is_empty());

        thread::sleep(until.saturating_duration_since(Instant::now()) + Duration::from_millis(20));
        inside(&pair.client, || Ok(connect(vips()[0])?)).context("the penalty is over")?;
        assert_eq!(datapath.expire()?.len(), 1);
        assert!(datapath.penalties()?.is_empty());
        Ok(())
    })
}

#[test]
fn an_interface_without_native_xdp_falls_back_and_says_so() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let options = |mode| LoadOptions {
            interfaces: vec!["lo".into()],
            mode,
            manage_local_routes: false,
            pinning: None,
            ..LoadOptions::default()
        };
        let datapath = DataPath::load(options(XdpMode::Auto))?;
        let mode = datapath.interfaces()[0].mode.clone();
        assert!(
            matches!(&mode, AttachedMode::Generic { because: Some(_) }),
            "{mode:?}"
        );
        drop(datapath);
        let native = DataPath::load(options(XdpMode::Native))
            .err()
            .context("lo has no native XDP")?;
        assert!(
            native
                .to_string()
                .starts_with("interface lo: XDP cannot be attached in native mode"),
            "{native}"
        );
        let nowhere = LoadOptions {
            interfaces: vec!["nowhere0".into()],
            ..options(XdpMode::Auto)
        };
        let unknown = DataPath::load(nowhere)
            .err()
            .context("there is no such interface")?;
        assert!(matches!(unknown, Error::UnknownInterface { .. }), "{unknown}");
        let _first = load()?;
        let busy = load().err().context("the interface has a program")?;
        assert!(matches!(busy, Error::InterfaceBusy { .. }), "{busy}");
        Ok(())
    })
}

#[test]
fn detaching_leaves_nothing_behind_and_only_own_routes_are_removed() -> Result<()> {
    let pair = Pair::new()?;
    // The IPv6 VIP is configured on an interface, so its local route is not the data path's.
    pair.node.ip("address add fd77:100::1/128 dev node0 nodad")?;
    let stranger = inside(&pair.node, || Ok(TcpListener::bind("[::]:80")?))?;
    let connects = || inside(&pair.client, || Ok(connect(vips()[1]).is_ok()));
    let program = inside(&pair.node, || {
        let mut datapath = load()?;
        datapath.reconcile(&config(1), &[])?;
        assert!(pair.node.ip("route show table local")?.contains("10.77.100.1"));
        assert!(!connects()?, "a stranger's socket is not for the VIP");
        let program = program_on(&pair, "node0")?.context("the program is attached")?;
        datapath.detach()?;
        Ok(program)
    })?;
    assert!(connects()?, "socket selection is gone");
    drop(stranger);
    assert!(!pair.node.ip("route show table local")?.contains("10.77.100.1"));
    assert!(pair.node.ip("-6 route show table local")?.contains("fd77:100::1"));
    assert_eq!(program_on(&pair, "node0")?, None);
    // The kernel frees programs a little after the last link is gone.
    wait_until("the program is freed", Duration::from_secs(5), || {
        let loaded: Result<Vec<_>, _> = loaded_programs().collect();
        Ok(loaded?.iter().all(|loaded| loaded.id() != program))
    })
}

/// Id of the XDP program on an interface of the node.
fn program_on(pair: &Pair, interface: &str) -> Result<Option<u32>> {
    let link = pair.node.ip(&format!("link show {interface}"))?;
    let mut words = link
        .split_whitespace()
        .skip_while(|word| !word.starts_with("prog/xdp"));
    words.nth(2).map(|id| id.parse().context("an id")).transpose()
}

#[test]
fn what_a_killed_process_left_behind_is_cleaned_up() -> Result<()> {
    let pair = Pair::new()?;
    pair.node.ip("route add local 10.77.100.9/32 dev lo proto 237")?;
    pair.node.ip("route add local 10.77.100.10/32 dev lo")?;
    inside(&pair.node, || {
        let mut datapath = load()?;
        let left = pair.node.ip("route show table local")?;
        assert!(
            left.contains("10.77.100.9"),
            "packets keep coming until there is a configuration"
        );
        datapath.reconcile(&config(1), &[])?;
        let routes = pair.node.ip("route show table local")?;
        assert!(!routes.contains("10.77.100.9/"), "{routes}");
        assert!(!routes.contains("10.77.100.9 "), "{routes}");
        assert!(routes.contains("10.77.100.10"), "{routes}");
        datapath.detach()?;
        Ok(())
    })
}
