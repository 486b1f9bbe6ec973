//! Other ways through a balancer than the usual one, in the driver and out by the interface that a packet came in by: in the
//! kernel's generic stage, and out by another interface.

use edge_lab::fabric::{Fabric, Mode, Segment, Settings, Xdp};
use serde_json::Value;

use crate::carried::{Traffic, assert_none_dropped};

/// What each mode carries.
const TRAFFIC: Traffic = Traffic {
    connections: 16,
    flows: 1,
    datagrams: 16,
    transfer: TRANSFER,
};
/// Bytes of a transfer.
const TRANSFER: u64 = 4 << 20;

/// Lets the fabric carry some modes.
fn check(settings: Settings, modes: &[Mode]) -> Fabric {
    let fabric = Fabric::open(settings).expect("the fabric comes up");
    let client = fabric.client();
    for &mode in modes {
        TRAFFIC.check(&client, mode);
    }
    let forwarded = fabric.total("/datapath/forwarded/known").expect("counted");
    assert!(
        forwarded > TRANSFER / 1500,
        "{forwarded} packets of known flows were forwarded"
    );
    assert_none_dropped(&fabric);
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
