//! Who has which MAC address: found without being told, and followed when it changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use edge_lab::fabric::{Fabric, Mode, Settings, WorkerState};
use edge_lab::{BpfFs, NetNs, wait_until};

use crate::kept::Kept;

/// Connections of each family.
const EACH: usize = 16;
/// How often the neighbour tables are emptied.
const FLUSHES: usize = 10;
/// From one to the next: a hundred times what an answer takes.
const PAUSE: Duration = Duration::from_millis(100);
/// Ample for what takes a second at most.
const LIMIT: Duration = Duration::from_secs(60);

/// Empties the neighbour tables of a namespace, as an operator may.
fn flush(netns: &NetNs) {
    for family in ["-4", "-6"] {
        netns
            .ip(&format!("{family} neighbour flush dev eth0"))
            .expect("root may");
    }
}

#[test]
fn an_emptied_neighbour_table_loses_no_packet() {
    let mut settings = Settings {
        second_hop: true,
        ..Settings::default()
    };
    settings.workers[0] = WorkerState::Draining;
    let fabric = Fabric::open(settings).expect("the fabric comes up");
    let (mut flows, client) = (Vec::new(), fabric.client());
    for mode in Mode::ALL {
        for is_v6 in [false, true] {
            flows.push(client.datagrams(mode, is_v6).expect("a socket"));
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Every datagram is answered before the next is sent, and none is sent twice: one that is lost ends the test.
        let flows: Vec<_> = flows
            .into_iter()
            .map(|mut flow| {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        flow.ask().expect("no datagram is lost");
                    }
                    flow.counts().1
                })
            })
            .collect();
        for _ in 0..FLUSHES {
            for balancer in [0, 1] {
                flush(fabric.balancer(balancer).expect("it is there"));
            }
            thread::sleep(PAUSE);
        }
        is_over.store(true, Ordering::Relaxed);
        for flow in flows {
            assert!(flow.join().expect("no datagram is lost") > 0);
        }
    });
    assert_eq!(fabric.total("/datapath/dropped/no_route").expect("counted"), 0);
}

/// Gives the first worker another MAC address. Who takes over an address says so to its neighbours (RFC 5227 3, RFC 4861
/// 7.2.6); here the kernels of these balancers are told directly.
fn move_worker(fabric: &Fabric, balancers: &[usize]) {
    let worker = fabric.worker(0).expect("it is there");
    worker
        .ip("link set eth0 address 02:80:00:00:01:99")
        .expect("root may");
    for balancer in balancers {
        let netns = fabric.balancer(*balancer).expect("it is there");
        for address in fabric.worker_addresses(0) {
            netns
                .ip(&format!(
                    "neighbour replace {address} lladdr 02:80:00:00:01:99 dev eth0 nud reachable"
                ))
                .expect("root may");
        }
    }
}

#[test]
fn a_worker_with_another_mac_address_gets_its_packets_there() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let mut kept: Vec<_> = [Mode::Ipip4, Mode::Gue6, Mode::L2]
        .map(|mode| Kept::open(&fabric.client(), mode, EACH))
        .into();
    move_worker(&fabric, &[0, 1]);
    for kept in &mut kept {
        // What leaves before edge has heard of it goes to the old address.
        wait_until("the new address to be used", LIMIT, || {
            let outcome = kept.ask();
            assert_eq!(outcome.moved, 0, "{outcome:?}");
            Ok(outcome.broken.is_empty())
        })
        .expect("it is found");
        kept.assert_unbroken("with another MAC address");
    }
}

#[test]
fn the_programs_of_a_killed_edge_go_on_by_the_kernels_routes() {
    let fs = BpfFs::mount().expect("root may mount");
    let settings = Settings {
        pins: Some(fs.path().join("edge")),
        ..Settings::default()
    };
    let mut fabric = Fabric::open(settings).expect("the fabric comes up");
    fabric.route_over(&[0]).expect("routed");
    let mut kept = Kept::open(&fabric.client(), Mode::Gue4, EACH);
    fabric.kill_balancer(0).expect("it runs");
    // What the killed edge had found is good for five seconds.
    thread::sleep(Duration::from_secs(7));
    let netns = fabric.balancer(0).expect("it is there");
    let neighbours = netns.ip("-details neighbour show dev eth0").expect("root may");
    assert!(neighbours.contains("managed"), "{neighbours}");
    // Only programs that ask find the worker now.
    move_worker(&fabric, &[0]);
    kept.assert_unbroken("long after the edge was killed");
}

#[test]
fn a_worker_that_does_not_answer_is_named_and_one_that_does_again_is_found() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let worker = fabric.worker(3).expect("it is there");
    let obstacle = |balancer| -> anyhow::Result<String> {
        let status = fabric.status(balancer)?;
        let workers = status["datapath"]["pool_workers"].as_array();
        let of = |worker: &&serde_json::Value| worker["name"] == "w4" && worker["pool"] == "ipip4";
        let worker = workers
            .into_iter()
            .flatten()
            .find(of)
            .cloned()
            .unwrap_or_default();
        Ok(worker["obstacle"].as_str().unwrap_or_default().to_owned())
    };
    worker.ip("link set eth0 down").expect("root may");
    let [v4, _] = fabric.worker_addresses(3);
    let netns = fabric.balancer(0).expect("it is there");
    netns
        .ip(&format!("neighbour flush {v4} dev eth0"))
        .expect("root may");
    let expected = format!("{v4} does not say its MAC address on eth0");
    wait_until("the worker to be missed", LIMIT, || Ok(obstacle(0)? == expected)).expect("it is");
    wait_until("a line of the log", LIMIT, || {
        Ok(fabric.log(0)?.contains(&expected))
    })
    .expect("it is told");
    worker.ip("link set eth0 up").expect("root may");
    wait_until("the worker to be found", LIMIT, || Ok(obstacle(0)?.is_empty())).expect("it is");
    assert_eq!(obstacle(1).expect("a status"), "");
}
