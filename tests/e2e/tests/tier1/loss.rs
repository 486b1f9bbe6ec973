//! A balancer is lost.

use edge_lab::fabric::{Fabric, Mode, Settings, WorkerState};

use crate::kept::{Kept, Outcome};

/// Connections of each family.
const EACH: usize = 48;

#[test]
fn a_lost_balancers_connections_go_on_by_way_of_the_other() {
    let mut fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    for mode in [Mode::Ipip4, Mode::Gue6] {
        let mut kept = Kept::open(&fabric.client(), mode, EACH);
        let both = [0, 1].map(|balancer| {
            let status = fabric.status(balancer).expect("a status");
            status
                .pointer("/datapath/forwarded/known")
                .and_then(|count| count.as_u64())
        });
        assert!(both.iter().all(|known| *known > Some(0)), "{both:?}");
        let adopted = fabric.total("/datapath/forwarded/adopted").expect("counted");
        for balancers in [&[1][..], &[0], &[0, 1]] {
            fabric.route_over(balancers).expect("routed");
            kept.assert_unbroken(&format!("{mode:?} over {balancers:?}"));
        }
        assert!(
            fabric.total("/datapath/forwarded/adopted").expect("counted") > adopted,
            "{mode:?}"
        );
    }
    // One that is killed takes its program with it, as nothing is pinned: what still comes to it goes nowhere.
    let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    fabric.kill_balancer(0).expect("it runs");
    fabric.route_over(&[1]).expect("routed");
    kept.assert_unbroken("after the first balancer was killed");
    fabric.start_balancer(0).expect("it comes up");
    fabric.route_over(&[0]).expect("routed");
    kept.assert_unbroken("back at the first, which knows none of them");
}

/// Opens connections, has the first worker drain, loses a balancer, and says what became of the connections; beside it,
/// how many the first worker had.
fn lose_a_balancer_while_a_worker_drains(fabric: &mut Fabric, mode: Mode) -> (Outcome, usize) {
    fabric
        .configure(|settings| settings.workers[0] = WorkerState::Active)
        .expect("applied");
    fabric.route_over(&[0, 1]).expect("routed");
    let mut kept = Kept::open(&fabric.client(), mode, EACH);
    let of_first = kept.by_worker().get("w1").copied().unwrap_or_default();
    assert!(of_first > 1, "{mode:?}: {:?}", kept.by_worker());
    fabric
        .configure(|settings| settings.workers[0] = WorkerState::Draining)
        .expect("applied");
    kept.assert_unbroken(&format!("{mode:?}: while both balancers are there"));
    // The other balancer has never seen half of the connections, and selects the draining worker for none.
    fabric.route_over(&[1]).expect("routed");
    let outcome = kept.ask();
    println!("{mode:?}: {of_first} at the draining worker: {outcome:?}");
    // Whatever the first packet was, the next ones go the same way.
    assert_eq!(kept.ask().broken.len(), outcome.broken.len(), "{mode:?}");
    (outcome, of_first)
}

#[test]
fn a_balancer_lost_while_a_worker_drains_breaks_no_connection() {
    let settings = Settings {
        second_hop: true,
        ..Settings::default()
    };
    let mut fabric = Fabric::open(settings).expect("the fabric comes up");
    for mode in [Mode::Ipip4, Mode::Ipip6, Mode::Gue4, Mode::Gue6] {
        let (outcome, of_first) = lose_a_balancer_while_a_worker_drains(&mut fabric, mode);
        assert_eq!(outcome.broken, [""; 0], "{mode:?}");
        // Datagrams are not handed on: nobody knows whether a worker has their flow.
        assert!(outcome.moved < of_first, "{mode:?}: {outcome:?}");
    }
    assert!(fabric.total("/datapath/forwarded/second_hop").expect("counted") > 0);
    // Without the second hop the same breaks connections: the measure sees it.
    fabric
        .configure(|settings| settings.second_hop = false)
        .expect("applied");
    let (outcome, _) = lose_a_balancer_while_a_worker_drains(&mut fabric, Mode::Ipip4);
    assert!(!outcome.broken.is_empty(), "{outcome:?}");
    assert!(
        outcome.broken.iter().all(|what| what.starts_with("w1: ")),
        "{outcome:?}"
    );
}
