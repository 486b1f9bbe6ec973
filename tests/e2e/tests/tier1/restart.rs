//! edge is killed and started again under traffic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use edge_lab::BpfFs;
use edge_lab::fabric::{Fabric, Mode, Settings, WorkerState};

use crate::carried::assert_all_remembered;
use crate::kept::Kept;

/// Connections of each family.
const EACH: usize = 32;
/// Kills and starts of each balancer.
const ROUNDS: usize = 2;
/// Bytes of each transfer.
const TRANSFER: u64 = 1 << 20;

fn pinned(fs: &BpfFs) -> Fabric {
    let settings = Settings {
        pins: Some(fs.path().join("edge")),
        ..Settings::default()
    };
    Fabric::open(settings).expect("the fabric comes up")
}

#[test]
fn a_killed_edge_loses_no_packet_and_its_flows_stay_with_their_workers() {
    let fs = BpfFs::mount().expect("root may mount");
    let mut fabric = pinned(&fs);
    let mut kept = Kept::open(&fabric.client(), Mode::Gue4, EACH);
    assert_eq!(kept.by_worker().len(), 4, "{:?}", kept.by_worker());
    // From now on the connection table alone knows where the first worker's flows are.
    fabric
        .configure(|settings| settings.workers[0] = WorkerState::Draining)
        .expect("applied");
    let streams: Vec<_> = [false, true]
        .into_iter()
        .flat_map(|is_v6| (0..4).map(move |_| is_v6))
        .map(|is_v6| fabric.client().datagrams(Mode::Ipip4, is_v6).expect("a socket"))
        .collect();
    let transfers = fabric
        .client()
        .connect(Mode::Ipip6, false, 2)
        .expect("connections");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Every datagram is answered before the next is sent, and none is sent twice: one that is lost ends the test.
        let streams = streams.into_iter().map(|mut stream| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    stream.ask().expect("no datagram is lost");
                }
                assert_eq!(stream.workers().len(), 1, "{:?}", stream.workers());
                stream.counts()
            })
        });
        let streams: Vec<_> = streams.collect();
        let transfers = transfers.into_iter().map(|mut connection| {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    connection.download(TRANSFER).expect("it goes on");
                    connection.upload(TRANSFER).expect("it goes on");
                    count += 1;
                }
                count
            })
        });
        let transfers: Vec<_> = transfers.collect();
        let rounds = thread::scope(|inner| {
            let rounds = inner.spawn(|| {
                for _ in 0..ROUNDS {
                    for balancer in [0, 1] {
                        fabric.kill_balancer(balancer).expect("it runs");
                        kept.assert_unbroken("with the program alone");
                        fabric.start_balancer(balancer).expect("it comes up");
                        kept.assert_unbroken("with the next edge");
                    }
                }
            });
            let outcome = rounds.join();
            is_over.store(true, Ordering::Relaxed);
            outcome
        });
        for stream in streams {
            let (sent, answered) = stream.join().expect("no datagram is lost");
            assert!(sent > 100 && sent == answered, "{sent} sent, {answered} answered");
        }
        for transfer in transfers {
            assert!(transfer.join().expect("it goes on") > 0);
        }
        if let Err(panic) = rounds {
            std::panic::resume_unwind(panic);
        }
    });
    for balancer in [0, 1] {
        assert!(fabric.log(balancer).expect("a log").contains("took over"));
        assert_all_remembered(&fabric, balancer);
    }
}

#[test]
fn flows_stay_with_their_workers_though_nobody_chose_a_seed() {
    let fs = BpfFs::mount().expect("root may mount");
    let settings = Settings {
        hash_seed: None,
        pins: Some(fs.path().join("edge")),
        ..Settings::default()
    };
    let mut fabric = Fabric::open(settings).expect("the fabric comes up");
    // Balancers that draw their keys by themselves do not agree.
    fabric.route_over(&[0]).expect("routed");
    let mut kept = Kept::open(&fabric.client(), Mode::Gue4, EACH);
    assert_eq!(kept.by_worker().len(), 4, "{:?}", kept.by_worker());
    for _ in 0..ROUNDS {
        fabric.kill_balancer(0).expect("it runs");
        fabric.start_balancer(0).expect("it comes up");
        kept.assert_unbroken("with the next edge");
        assert_all_remembered(&fabric, 0);
    }
}

#[test]
fn a_table_of_another_size_is_built_anew_and_other_workers_do_not_inherit_flows() {
    let fs = BpfFs::mount().expect("root may mount");
    let mut fabric = pinned(&fs);
    fabric.route_over(&[0]).expect("routed");
    let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    // The first worker of the list goes, so the others move up: flows must not follow the places in the list.
    fabric.kill_balancer(0).expect("it runs");
    fabric.configure_next(|settings| settings.workers[0] = WorkerState::Gone);
    fabric.start_balancer(0).expect("it comes up");
    let of_first = kept.by_worker().get("w1").copied().unwrap_or_default();
    let outcome = kept.ask();
    assert_eq!(outcome.broken.len() + outcome.moved, of_first, "{outcome:?}");
    kept.forget("w1");

    fabric.kill_balancer(0).expect("it runs");
    fabric.configure_next(|settings| {
        settings.workers[0] = WorkerState::Active;
        settings.flows *= 2;
    });
    fabric.start_balancer(0).expect("it comes up");
    assert!(
        fabric
            .log(0)
            .expect("a log")
            .contains("a pinned map has another shape")
    );
    // Nothing is remembered, and the selection finds the same workers.
    let adopted = fabric.total("/datapath/forwarded/adopted").expect("counted");
    let outcome = kept.ask();
    assert_eq!(outcome.broken, [""; 0], "with a new table");
    assert!(fabric.total("/datapath/forwarded/adopted").expect("counted") > adopted);
}
