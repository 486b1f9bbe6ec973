//! Other ways through a balancer than the usual one, in the driver and out by the interface that a packet came in by: in the
//! kernel's generic stage, and out by another interface.

use std::collections::BTreeSet;

use edge_lab::fabric::{CLIENT, CLIENT_V6, Fabric, Mode, Segment, Settings, Xdp};
use serde_json::Value;

/// Connections of each kind.
const EACH: usize = 16;
/// Bytes of a transfer.
const TRANSFER: u64 = 4 << 20;

/// Connections, transfers and datagrams of these modes, over both families.
fn check(settings: Settings, modes: &[Mode]) -> Fabric {
    let fabric = Fabric::open(settings).expect("the fabric comes up");
    let client = fabric.client();
    for &mode in modes {
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
            assert!(workers.len() > 1, "{name}: {workers:?}");
            connections[0]
                .transfer(TRANSFER)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let mut flow = client.datagrams(mode, is_v6).expect(&name);
            for _ in 0..EACH {
                flow.ask().unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
            assert_eq!(flow.workers().len(), 1, "{name}: {:?}", flow.workers());
        }
    }
    let forwarded = fabric.total("/datapath/forwarded/known").expect("counted");
    assert!(
        forwarded > TRANSFER / 1500,
        "{forwarded} packets of known flows were forwarded"
    );
    for balancer in [0, 1] {
        let status = fabric.status(balancer).expect("a status");
        let dropped = status.pointer("/datapath/dropped").expect("drops");
        let counts = dropped.as_object().expect("by reason").values();
        assert!(counts.into_iter().all(|count| *count == 0), "{dropped}");
    }
    fabric
}

/// Interfaces of a status, with their modes.
fn interfaces(status: &Value) -> Vec<(&str, &str)> {
    let all = status["datapath"]["interfaces"].as_array().into_iter().flatten();
    all.map(|interface| {
        let word = |key: &str| interface[key].as_str().expect("a word");
        (word("name"), word("mode"))
    })
    .collect()
}

#[test]
fn packets_are_forwarded_and_taken_out_of_tunnels_in_generic_mode() {
    let settings = Settings {
        xdp: Xdp::Generic,
        ..Settings::default()
    };
    let fabric = check(settings, &[Mode::Ipip4, Mode::Gue6, Mode::L2]);
    for status in [fabric.status(0), fabric.worker_status(0)] {
        let status = status.expect("a status");
        assert_eq!(interfaces(&status), [("eth0", "generic")]);
    }
}

#[test]
fn packets_are_forwarded_to_workers_behind_another_interface() {
    let settings = Settings {
        segment: Segment::Back,
        ..Settings::default()
    };
    let fabric = check(settings, &[Mode::Ipip4, Mode::Gue6, Mode::L2]);
    let status = fabric.status(0).expect("a status");
    assert_eq!(interfaces(&status), [("eth0", "native"), ("eth1", "native")]);
}
