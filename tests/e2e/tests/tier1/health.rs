//! Workers that probes find dead, and well again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use edge_lab::fabric::{Datagrams, Fabric, Health, Illness, Mode, Settings};
use edge_lab::{BpfFs, wait_until};
use serde_json::Value;

use crate::kept::Kept;

/// Connections of each family.
const EACH: usize = 40;
/// Flows that begin while edge restarts, so far apart: enough for the slowest start.
const FLOWS: usize = 3000;
const PACE: Duration = Duration::from_millis(10);
/// Ample for some probes, ten of which are made in a second.
const LIMIT: Duration = Duration::from_secs(30);

fn fabric(health: Health) -> Fabric {
    let settings = Settings {
        health: Some(health),
        ..Settings::default()
    };
    Fabric::open(settings).expect("the fabric comes up")
}

/// What a balancer says of the last worker of the pool that is probed.
fn last_worker(fabric: &Fabric, balancer: usize) -> anyhow::Result<Value> {
    let status = fabric.status(balancer)?;
    let workers = status["datapath"]["pool_workers"].as_array();
    let of = |worker: &&Value| worker["pool"] == Mode::Ipip4.pool() && worker["name"] == "w4";
    Ok(workers
        .into_iter()
        .flatten()
        .find(of)
        .cloned()
        .unwrap_or_default())
}

fn wait_for_health(fabric: &Fabric, is_healthy: bool) {
    for balancer in [0, 1] {
        let what = format!("balancer {balancer} to see the worker as healthy: {is_healthy}");
        wait_until(&what, LIMIT, || {
            let worker = last_worker(fabric, balancer)?;
            Ok(worker["health"]["healthy"] == is_healthy && (worker["state"] == "active") == is_healthy)
        })
        .expect("it does");
    }
}

#[test]
fn a_dead_worker_is_found_by_probes_and_comes_back() {
    for health in [Health::Tcp, Health::Http] {
        let mut fabric = fabric(health);
        let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
        assert_eq!(kept.by_worker().len(), 4, "{:?}", kept.by_worker());
        fabric.stop_server(3);
        wait_for_health(&fabric, false);
        assert!(kept.forget("w4") > 0);
        let fresh = Kept::open(&fabric.client(), Mode::Ipip4, EACH).by_worker();
        assert!(!fresh.contains_key("w4"), "{health:?}: {fresh:?}");
        fabric.start_server(3).expect("it starts");
        wait_for_health(&fabric, true);
        let fresh = Kept::open(&fabric.client(), Mode::Ipip4, EACH).by_worker();
        assert_eq!(fresh.len(), 4, "{health:?}: {fresh:?}");
        let outcome = kept.ask();
        assert_eq!(outcome.broken, [""; 0], "{health:?}: the others' connections");
    }
}

#[test]
fn a_worker_that_is_dead_when_edge_restarts_gets_no_flow() {
    let fs = BpfFs::mount().expect("root may mount");
    let settings = Settings {
        health: Some(Health::Tcp),
        pins: Some(fs.path().join("edge")),
        ..Settings::default()
    };
    let mut fabric = Fabric::open(settings).expect("the fabric comes up");
    fabric.route_over(&[0]).expect("routed");
    fabric.stop_server(3);
    wait_for_health(&fabric, false);
    let open = |_| fabric.client().datagrams(Mode::Ipip4, false).expect("a socket");
    let flows: Vec<_> = (0..FLOWS).map(open).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let begin = |mut flow: Datagrams| {
                thread::sleep(PACE);
                flow.ask().expect("somebody answers").worker
            };
            let flows = flows.into_iter();
            let flows = flows.take_while(|_| !is_over.load(Ordering::Relaxed));
            flows.map(begin).collect::<Vec<_>>()
        });
        fabric.kill_balancer(0).expect("it runs");
        fabric.start_balancer(0).expect("it comes up");
        let worker = last_worker(&fabric, 0).expect("a status");
        // As long as it would take to find it dead anew.
        thread::sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        let workers = asking.join().expect("no flow is lost");
        assert!(!workers.contains(&"w4".to_owned()), "{workers:?}");
        assert_eq!(
            (&worker["health"]["healthy"], &worker["state"]),
            (&Value::Bool(false), &"down".into()),
            "{worker}"
        );
    });
    let log = fabric.log(0).expect("a log");
    assert!(!log.contains("worker is unhealthy"), "it was known: {log}");
    let worker = last_worker(&fabric, 0).expect("a status");
    assert_eq!(worker["packets"], 0, "{worker}");
    fabric.start_server(3).expect("it starts");
    wait_for_health(&fabric, true);
    let fresh = Kept::open(&fabric.client(), Mode::Ipip4, EACH).by_worker();
    assert_eq!(fresh.len(), 4, "{fresh:?}");
}

#[test]
fn a_worker_that_fails_every_other_probe_stays_where_it_is() {
    let fabric = fabric(Health::Http);
    let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    fabric.server(3).expect("it runs").set_ill(Illness::OnAndOff);
    for balancer in [0, 1] {
        wait_until("failed probes", LIMIT, || {
            let failed = &last_worker(&fabric, balancer)?["health"]["failed"];
            Ok(failed.as_u64() >= Some(10))
        })
        .expect("they fail");
        let worker = last_worker(&fabric, balancer).expect("a status");
        assert_eq!(
            (&worker["health"]["healthy"], &worker["state"]),
            (&Value::Bool(true), &"active".into())
        );
        let log = fabric.log(balancer).expect("a log");
        assert!(!log.contains("worker is unhealthy"), "{log}");
    }
    kept.assert_unbroken("while probes fail now and then");
    // A worker that is ill for good is taken out once, and put back once.
    fabric.server(3).expect("it runs").set_ill(Illness::Ill);
    wait_for_health(&fabric, false);
    fabric.server(3).expect("it runs").set_ill(Illness::Well);
    wait_for_health(&fabric, true);
    for balancer in [0, 1] {
        let log = fabric.log(balancer).expect("a log");
        assert_eq!(log.matches("worker is unhealthy").count(), 1, "{log}");
        assert_eq!(log.matches("worker is healthy again").count(), 1, "{log}");
    }
}
