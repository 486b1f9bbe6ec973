//! Every way to a worker, with both protocols and both families.

use std::collections::BTreeSet;

use edge_lab::Wrk;
use edge_lab::fabric::{CLIENT, CLIENT_V6, Fabric, Mode, Settings, WORKERS};

/// Connections, and flows of datagrams, of each kind.
const EACH: usize = 24;
/// Bytes of a transfer.
const TRANSFER: u64 = 10 << 20;

#[test]
fn every_mode_carries_requests_and_transfers_and_shows_the_workers_the_client() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let client = fabric.client();
    for mode in Mode::ALL {
        for (is_v6, address) in [(false, CLIENT), (true, CLIENT_V6)] {
            let name = format!("{mode:?}, IPv6: {is_v6}");
            let mut workers = BTreeSet::new();
            let mut connections = client.connect(mode, is_v6, EACH).expect(&name);
            for connection in &mut connections {
                let reply = connection
                    .ask()
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
                assert_eq!(reply.client.to_string(), address, "{name}");
                workers.insert(reply.worker);
            }
            for _ in 0..EACH {
                let mut flow = client.datagrams(mode, is_v6).expect(&name);
                for _ in 0..3 {
                    let reply = flow.ask().unwrap_or_else(|error| panic!("{name}: {error:#}"));
                    assert_eq!(reply.client.to_string(), address, "{name}");
                }
                assert_eq!(flow.workers().len(), 1, "{name}: {:?}", flow.workers());
            }
            assert!(workers.len() > 1, "{name}: {workers:?}");
            connections[0]
                .transfer(TRANSFER)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }
    for balancer in [0, 1] {
        let status = fabric.status(balancer).expect("a status");
        let known = status.pointer("/datapath/forwarded/known");
        assert!(known.and_then(|count| count.as_u64()) > Some(0), "{status}");
        let dropped = status.pointer("/datapath/dropped").expect("drops");
        let counts = dropped.as_object().expect("by reason").values();
        assert!(counts.into_iter().all(|count| *count == 0), "{dropped}");
    }
}

#[test]
fn every_mode_carries_the_load_of_many_requests_and_none_fails() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let client = fabric.client();
    for mode in Mode::ALL {
        for is_v6 in [false, true] {
            let url = client.url(mode, is_v6).expect("an address");
            let load = Wrk::new(client.netns()).connections(16, 1);
            let report = load
                .run(&url)
                .unwrap_or_else(|error| panic!("{mode:?}: {error:#}"));
            println!("{mode:?} {url}: {report:?}");
            // Not what a slow machine answers late.
            let failed = report.bad_status + report.connect_errors + report.io_errors;
            assert_eq!(failed, 0, "{mode:?} {url}: {report:?}");
            assert!(report.requests > 0, "{mode:?} {url}: {report:?}");
        }
    }
    let accepted = |worker| fabric.server(worker).map_or(0, |server| server.accepted());
    assert!((0..WORKERS).all(|worker| accepted(worker) > 0));
}
