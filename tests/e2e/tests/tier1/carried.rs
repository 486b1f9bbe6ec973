//! What a mode is to carry, and what a balancer is to say of it.

use std::collections::BTreeSet;

use edge_lab::fabric::{CLIENT, CLIENT_V6, Client, Fabric, Mode};
use serde_json::Value;

/// Traffic of one mode and family.
pub(crate) struct Traffic {
    /// Connections, each of which asks once.
    pub(crate) connections: usize,
    /// Flows of datagrams.
    pub(crate) flows: usize,
    /// Datagrams of each.
    pub(crate) datagrams: usize,
    /// Bytes that the first connection gets and sends.
    pub(crate) transfer: u64,
}

impl Traffic {
    /// Is carried over both families: to several workers, each flow to one, and they see the client's address.
    #[track_caller]
    pub(crate) fn check(&self, client: &Client<'_>, mode: Mode) {
        for (is_v6, address) in [(false, CLIENT), (true, CLIENT_V6)] {
            let name = format!("{mode:?}, IPv6: {is_v6}");
            let mut workers = BTreeSet::new();
            let mut connections = client.connect(mode, is_v6, self.connections).expect(&name);
            for connection in &mut connections {
                let reply = connection
                    .ask()
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
                assert_eq!(reply.client.to_string(), address, "{name}");
                workers.insert(reply.worker);
            }
            assert!(workers.len() > 1, "{name}: {workers:?}");
            for _ in 0..self.flows {
                let mut flow = client.datagrams(mode, is_v6).expect(&name);
                for _ in 0..self.datagrams {
                    let reply = flow.ask().unwrap_or_else(|error| panic!("{name}: {error:#}"));
                    assert_eq!(reply.client.to_string(), address, "{name}");
                }
                assert_eq!(flow.workers().len(), 1, "{name}: {:?}", flow.workers());
            }
            connections[0]
                .transfer(self.transfer)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }
}

/// Both balancers forwarded packets of flows that they knew, and dropped none of any.
#[track_caller]
pub(crate) fn assert_none_dropped(fabric: &Fabric) {
    for balancer in [0, 1] {
        let status = fabric.status(balancer).expect("a status");
        assert!(forwarded(&status, "known") > Some(0), "{status}");
        let dropped = status.pointer("/datapath/dropped").expect("drops");
        let counts = dropped.as_object().expect("by reason").values();
        assert!(counts.into_iter().all(|count| *count == 0), "{dropped}");
    }
}

/// A balancer that was started anew knew all flows that came.
#[track_caller]
pub(crate) fn assert_all_remembered(fabric: &Fabric, balancer: usize) {
    let status = fabric.status(balancer).expect("a status");
    let unknown = (forwarded(&status, "new"), forwarded(&status, "adopted"));
    assert_eq!(unknown, (Some(0), Some(0)), "all were remembered");
    assert!(forwarded(&status, "known") > Some(0), "{status}");
}

/// Packets whose worker was found so.
fn forwarded(status: &Value, way: &str) -> Option<u64> {
    status["datapath"]["forwarded"][way].as_u64()
}
