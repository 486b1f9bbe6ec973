//! More flows than the connection table has room for.

use std::time::Duration;

use edge_lab::fabric::{Fabric, Mode, Settings, VIP, WorkerState};
use edge_lab::{Process, bin, wait_until};

use crate::fresh::open_while;
use crate::kept::Kept;

/// Places of the table of each family, for more connections than that.
const PLACES: u32 = 256;
/// The same, for a flood: so many that no bucket of four gets five of the flows that are established before and meanwhile
/// (once in 30,000 runs), as the fifth is not remembered, flood or not.
const FLOODED_PLACES: u32 = 16_384;
/// Connections that are opened while the flood lasts.
const OPENED: usize = 200;
/// Connections that are established before the others come.
const EACH: usize = 32;
/// How long a flood may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn small(flows: u32) -> Fabric {
    let settings = Settings {
        flows,
        ..Settings::default()
    };
    let fabric = Fabric::open(settings).expect("the fabric comes up");
    // One table has them all.
    fabric.route_over(&[0]).expect("routed");
    fabric
}

#[test]
fn four_times_more_connections_than_places_are_served_and_what_gives_way_is_counted() {
    let fabric = small(PLACES);
    let mut first = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    let mut further: Vec<_> = (0..4)
        .map(|_| {
            fabric
                .client()
                .connect(Mode::Ipip4, false, PLACES as usize)
                .expect("connections")
        })
        .collect();
    let mut workers = Vec::new();
    for connection in further.iter_mut().flatten() {
        workers.push(connection.ask().expect("an answer").worker);
    }
    first.assert_unbroken("the first, after the others came");
    for (connection, worker) in further.iter_mut().flatten().zip(&workers) {
        assert_eq!(&connection.ask().expect("an answer").worker, worker);
    }
    let evicted = fabric.total("/datapath/evicted/confirmed").expect("counted");
    assert!(evicted >= u64::from(3 * PLACES), "{evicted} gave way");
}

#[test]
fn a_flood_of_syns_four_times_the_tables_size_takes_no_place_of_an_established_connection_and_new_ones_are_served()
 {
    let mut fabric = small(FLOODED_PLACES);
    let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    let of_first = kept.by_worker().get("w1").copied().unwrap_or_default();
    assert!(of_first > 0, "{:?}", kept.by_worker());
    fabric.let_floods_through().expect("GRO is there");
    let client = fabric.client();
    let mut command = client.netns().command(bin("edge-pktgen").expect("it is built"));
    command.args(["--interface", "eth0", "--kind", "syn", "--json", "--pps", "40000"]);
    command.args(["--src-base", "198.18.0.1", "--src-count", "60000"]);
    let port = Mode::Ipip4.port().to_string();
    command.args(["--dst", VIP, "--dst-port", &port, "--seconds", "300"]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut flood = Process::spawn("flood", &mut command, folder.path()).expect("it starts");
    let gave_way = || fabric.total("/datapath/evicted/unconfirmed").expect("counted");
    wait_until("the table to be full", LIMIT, || Ok(gave_way() > 0)).expect("it is");
    let opened = open_while(&client, Mode::Ipip4, OPENED..=OPENED, || {
        assert!(flood.is_running().expect("a process"), "{}", flood.tail());
        gave_way() > u64::from(4 * FLOODED_PLACES)
    });
    assert!(
        flood.terminate(LIMIT).expect("it ends").success(),
        "{}",
        flood.tail()
    );
    let gone = gave_way();
    println!("{opened} opened, {gone} gave way");
    assert_eq!(opened, OPENED);
    assert!(
        gone > u64::from(4 * FLOODED_PLACES),
        "{gone} gave way: {}",
        flood.tail()
    );
    // What the table has lost would show now: the selection no longer leads to the worker.
    fabric
        .configure(|settings| settings.workers[0] = WorkerState::Draining)
        .expect("applied");
    kept.assert_unbroken("after the flood, with the first worker draining");
}
