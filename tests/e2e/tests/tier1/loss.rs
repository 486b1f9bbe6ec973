//! A balancer is lost.

use edge_lab::fabric::{Fabric, Mode, Settings};

use crate::kept::Kept;

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
        let adopted = fabric.total("/datapath/forwarded/adopted");
        for balancers in [&[1][..], &[0], &[0, 1]] {
            fabric.route_over(balancers).expect("routed");
            kept.assert_unbroken(&format!("{mode:?} over {balancers:?}"));
        }
        assert!(fabric.total("/datapath/forwarded/adopted") > adopted, "{mode:?}");
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
