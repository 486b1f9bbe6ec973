//! Changes of the configuration while requests go on.

use std::fs;
use std::time::Duration;

use edge_lab::{Curl, wait_until};

use crate::fixture::{LIMIT, Load, SHOP, site, url};

/// Requests of the load after each change: many for each of its connections.
const EACH: u64 = 200;

/// A route that answers by itself, so that a client sees at once which configuration is in force.
fn direct_response(body: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop, namespace: demo}}
spec:
  hosts: [shop.example.com]
  gateways: [public]
  http:
    - match: [{{uri: {{exact: /which}}}}]
      directResponse: {{status: 200, body: {{string: {body}}}}}
    - route: [{{destination: {{host: shop, subset: v1}}}}]
"
    )
}

#[test]
fn a_changed_file_is_applied_without_a_lost_request() {
    let site = site();
    let file = site.config().join("virtual-service.yaml");
    let load = Load::start(&site, "/");
    for round in 0..5 {
        fs::write(&file, direct_response(&format!("round{round}"))).expect("written");
        let curl = Curl::new(site.lab().client()).header(SHOP);
        let applied = || Ok(curl.get(&url("/which"))?.text() == format!("round{round}"));
        wait_until("the change to be in force", LIMIT, applied).expect("it is applied");
        load.goes_on(&site, 1, EACH);
    }
    let report = load.finish();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.requests >= 5 * EACH, "{report:?}");
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported_until_it_is_mended() {
    let site = site();
    let file = site.config().join("virtual-service.yaml");
    let good = direct_response("good");
    fs::write(&file, &good).expect("written");
    site.wait_for_snapshot(2).expect("applied");
    let load = Load::start(&site, "/");

    fs::write(&file, good.replace("exact:", "exakt:")).expect("written");
    let problems = || {
        let status = site.status()?;
        Ok(status["config"]["in_sync"] == false
            && !status["config"]["problems"].as_array().is_none_or(Vec::is_empty))
    };
    wait_until("the problem to be reported", LIMIT, problems).expect("it is");
    let problem = site.status().expect("a status")["config"]["problems"][0].to_string();
    for part in [
        "virtual-service.yaml:8",
        "VirtualService/demo/shop",
        "spec.http[0].match[0].uri",
        "exakt",
        "exact",
    ] {
        assert!(problem.contains(part), "{part} is missing in {problem}");
    }
    assert!(site.log().expect("a log").contains("exakt"));
    let curl = Curl::new(site.lab().client()).header(SHOP);
    assert_eq!(curl.get(&url("/which")).expect("an answer").text(), "good");

    fs::write(&file, direct_response("mended")).expect("written");
    let mended = || Ok(curl.get(&url("/which"))?.text() == "mended");
    wait_until("the mended file to be in force", LIMIT, mended).expect("it is");
    load.goes_on(&site, 1, EACH);
    let status = site.status().expect("a status");
    assert_eq!(
        (
            &status["config"]["in_sync"],
            status["config"]["problems"].as_array().map(Vec::len)
        ),
        (&true.into(), Some(0))
    );

    let report = load.finish();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn a_new_listener_and_a_new_limit_come_into_force_while_it_runs() {
    let site = site();
    let gateway = fs::read_to_string(site.config().join("gateway.yaml")).expect("readable");
    fs::write(
        site.config().join("gateway.yaml"),
        gateway.replacen("number: 80\n", "number: 8000\n", 1),
    )
    .expect("written");
    let curl = Curl::new(site.lab().client()).header(SHOP);
    let moved = format!("http://{}:8000/old", edge_lab::address::VIP);
    wait_until("the new port", LIMIT, || Ok(curl.get(&moved)?.status == 308)).expect("it is served");

    let bootstrap = site.config().join("edge.yaml");
    let text = fs::read_to_string(&bootstrap).expect("readable");
    fs::write(
        &bootstrap,
        text.replace("newConnectionsPerSecond: 200", "newConnectionsPerSecond: 1")
            .replace("newConnectionsBurst: 400", "newConnectionsBurst: 1"),
    )
    .expect("written");
    let limited = || {
        // Two connections at once are one too many now; the second is repeated by TCP a second later.
        let _ = curl.clone().max_time(Duration::from_millis(300)).get(&moved);
        let _ = curl.clone().max_time(Duration::from_millis(300)).get(&moved);
        Ok(site.dropped("flood_new_connections")? > 0)
    };
    wait_until("the new flood limit", LIMIT, limited).expect("it is in force");
}
