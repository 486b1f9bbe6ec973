//! Every way to a worker, with both protocols and both families.

use edge_lab::Wrk;
use edge_lab::fabric::{Fabric, Mode, Settings, WORKERS};

use crate::carried::{Traffic, assert_none_dropped};

const TRAFFIC: Traffic = Traffic {
    connections: 24,
    flows: 24,
    datagrams: 3,
    transfer: 10 << 20,
};

#[test]
fn every_mode_carries_requests_and_transfers_and_shows_the_workers_the_client() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let client = fabric.client();
    for mode in Mode::ALL {
        TRAFFIC.check(&client, mode);
    }
    assert_none_dropped(&fabric);
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
