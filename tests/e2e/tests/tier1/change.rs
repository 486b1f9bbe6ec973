//! Workers that drain, fail and come back.

use edge_lab::fabric::{Fabric, Mode, Settings, WorkerState};

use crate::kept::Kept;

/// Connections of each family: so many that every worker has some.
const EACH: usize = 40;

#[test]
fn a_draining_worker_keeps_its_connections_and_a_failed_ones_are_given_to_others() {
    let mut fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    for (mode, drained) in [
        (Mode::Ipip4, WorkerState::Draining),
        (Mode::L2, WorkerState::WeightZero),
    ] {
        let name = format!("{mode:?}, {drained:?}");
        let mut kept = Kept::open(&fabric.client(), mode, EACH);
        let of_first = kept.by_worker().get("w1").copied().unwrap_or_default();
        assert!(of_first > 0, "{name}: {:?}", kept.by_worker());
        let reselected = fabric.total("/datapath/forwarded/reselected");
        fabric
            .configure(|settings| settings.workers[0] = drained)
            .expect("applied");
        kept.assert_unbroken(&name);
        let fresh = Kept::open(&fabric.client(), mode, EACH).by_worker();
        assert!(!fresh.contains_key("w1") && fresh.len() == 3, "{name}: {fresh:?}");
        assert_eq!(
            fabric.total("/datapath/forwarded/reselected"),
            reselected,
            "{name}"
        );

        fabric
            .configure(|settings| settings.workers[0] = WorkerState::Down)
            .expect("applied");
        let outcome = kept.ask();
        assert_eq!(
            outcome.broken.len() + outcome.moved,
            of_first,
            "{name}: {outcome:?}"
        );
        assert!(
            outcome.broken.iter().all(|what| what.starts_with("w1: ")),
            "{outcome:?}"
        );
        let counted = fabric.total("/datapath/forwarded/reselected") - reselected;
        assert!(counted as usize >= of_first, "{name}: {counted} of {of_first}");

        fabric
            .configure(|settings| settings.workers[0] = WorkerState::Active)
            .expect("applied");
        kept.forget("w1");
        kept.assert_unbroken(&name);
        let fresh = Kept::open(&fabric.client(), mode, EACH).by_worker();
        assert_eq!(fresh.len(), 4, "{name}: {fresh:?}");
    }
}
