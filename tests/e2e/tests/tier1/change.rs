//! Workers that drain, fail and come back.

use edge_lab::fabric::{CLIENT, Fabric, Mode, Settings, VIP, VIP_V6, WorkerState};
use edge_lab::output;
use serde_json::Value;

use crate::kept::Kept;

/// Connections of each family: so many that every worker has some.
const EACH: usize = 40;

/// What `edge status flows` lists on a balancer.
fn listed(fabric: &Fabric, balancer: usize, words: &[&str]) -> Vec<Value> {
    let all = [&["status", "flows", "--json"], words].concat();
    let mut command = fabric.edge_command(balancer, &all).expect("it is built");
    let text = output(&mut command).expect("edge answers");
    let listing: Value = serde_json::from_str(&text).expect("JSON");
    listing["flows"].as_array().cloned().expect("flows")
}

#[test]
fn the_status_lists_flows_by_virtual_address_and_worker() {
    let fabric = Fabric::open(Settings::default()).expect("the fabric comes up");
    let kept = Kept::open(&fabric.client(), Mode::Gue4, EACH);
    let _others = Kept::open(&fabric.client(), Mode::L2, EACH);
    let all = |words: &[&str]| -> Vec<Value> {
        let of = |balancer| listed(&fabric, balancer, words);
        [0, 1].into_iter().flat_map(of).collect()
    };
    let port = Mode::Gue4.port();
    let vips = [
        format!("{VIP}:{port}/tcp"),
        format!("{VIP}:{port}/udp"),
        format!("[{VIP_V6}]:{port}/tcp"),
        format!("[{VIP_V6}]:{port}/udp"),
    ];
    let mut found = Vec::new();
    for vip in &vips {
        let flows = all(&["--limit", "1000", "--vip", vip]);
        assert!(flows.iter().all(|flow| flow["vip"] == **vip), "{vip}: {flows:?}");
        found.extend(flows);
    }
    for (worker, count) in kept.by_worker() {
        let of = |flow: &&Value| flow["worker"] == *worker && flow["confirmed"] == true;
        assert_eq!(found.iter().filter(of).count(), count, "{worker}");
        let alone = all(&["--limit", "1000", "--vip", &vips[0], "--worker", &worker]);
        assert!(alone.iter().all(|flow| flow["worker"] == *worker), "{alone:?}");
        let clients = alone.iter().filter_map(|flow| flow["client"].as_str());
        assert!(clients.into_iter().all(|client| client == CLIENT), "{alone:?}");
    }
    assert_eq!(listed(&fabric, 0, &["--limit", "3"]).len(), 3);
    let none = listed(&fabric, 0, &["--limit", "3", "--worker", "no such & worker"]);
    assert_eq!(none, [] as [Value; 0], "a name is free text");
    let mut table = fabric
        .edge_command(0, &["status", "flows", "--limit", "1", "--worker", "w1"])
        .expect("it is built");
    let table = output(&mut table).expect("edge answers");
    assert!(table.contains("/w1") && table.contains("confirmed"), "{table}");
    all_show_what_was_forwarded(&fabric);
}

/// Status and metrics of a node that has no connection itself.
fn all_show_what_was_forwarded(fabric: &Fabric) {
    let status = |words: &[&str]| {
        let mut command = fabric
            .edge_command(0, &[&["status"], words].concat())
            .expect("it is built");
        output(&mut command).expect("edge answers")
    };
    let flows: Vec<Value> = serde_json::from_str(&status(&["flows", "--json"])).expect("JSON");
    let known = flows.iter().find(|row| row["forwarded"] == "known");
    assert!(
        known.and_then(|row| row["packets"].as_u64()) > Some(0),
        "{flows:?}"
    );
    assert!(flows.iter().any(|row| row["evicted"] == "confirmed"), "{flows:?}");
    let table = status(&[]);
    assert!(
        table.contains("forwarded known") && table.contains("gue4/w1 "),
        "{table}"
    );
    let metrics = fabric.metrics(0).expect("edge answers");
    let count = |series: &str| -> Option<f64> {
        let of = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        metrics.lines().find_map(of)
    };
    let vip = format!("{VIP}:{}/tcp", Mode::Gue4.port());
    for series in [
        format!("edge_datapath_vip_packets_total{{vip=\"{vip}\"}}"),
        "edge_datapath_pool_worker_packets_total{pool=\"gue4\",worker=\"w1\"}".to_owned(),
        "edge_datapath_forwarded_packets_total{flow=\"known\"}".to_owned(),
    ] {
        assert!(count(&series) > Some(0.0), "{series} in:\n{metrics}");
    }
    assert!(
        count("edge_datapath_evicted_flows_total{kind=\"confirmed\"}").is_some(),
        "{metrics}"
    );
}

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
        let reselected = fabric.total("/datapath/forwarded/reselected").expect("counted");
        fabric
            .configure(|settings| settings.workers[0] = drained)
            .expect("applied");
        kept.assert_unbroken(&name);
        let fresh = Kept::open(&fabric.client(), mode, EACH).by_worker();
        assert!(!fresh.contains_key("w1") && fresh.len() == 3, "{name}: {fresh:?}");
        assert_eq!(
            fabric.total("/datapath/forwarded/reselected").expect("counted"),
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
        let counted = fabric.total("/datapath/forwarded/reselected").expect("counted") - reselected;
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
