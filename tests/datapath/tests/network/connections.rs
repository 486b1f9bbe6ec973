//! Workers that connections and datagrams go to.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_common::PassReason;
use edge_datapath::{AttachedMode, Stats, WorkerSocket};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, VIP4, config, limited};
use edge_model::{Protocol, WorkerId};

use crate::{WORKERS, accept_all, connect, load, vips};

/// Connections of each family.
const CONNECTIONS: usize = 200;

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
