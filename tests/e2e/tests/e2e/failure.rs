//! Backends that die, and edge being asked to end, under load.

use std::thread;
use std::time::Duration;

use edge_lab::{Curl, Process, address};

use crate::fixture::{LIMIT, Load, SHOP, site, url};

#[test]
fn killing_a_backend_loses_no_more_than_the_requests_under_way_to_it() {
    let mut site = site();
    // v1 and v2 behind one subset, so that each can stand in for the other.
    let both = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: demo}
spec:
  hosts: [shop.example.com]
  gateways: [public]
  http: [{route: [{destination: {host: shop}}]}]
";
    std::fs::write(site.config().join("virtual-service.yaml"), both).expect("written");
    site.wait_for_snapshot(2).expect("applied");
    let connections = 16;
    let load = Load::start(&site, "/");
    load.goes_on(&site, 1, 500);
    site.backend(1).expect("v1").kill().expect("it runs");
    load.goes_on(&site, 2, 500);
    let report = load.finish();
    // Each connection of the client has one request under way; those at the dead backend may be lost.
    assert!(report.failures() <= connections, "{report:?}");
    assert!(report.requests > 1000, "{report:?}");
    // The dead backend is still listed: every request finds its way to another one.
    let burst = Curl::new(site.lab().client())
        .header(SHOP)
        .burst(&url("/"), 200)
        .expect("curl runs");
    assert_eq!(burst.count(200), 200, "{burst:?}");
}

#[test]
fn sigterm_under_load_answers_what_is_under_way_and_exits_with_0() {
    let mut site = site();
    let dir = site.lab().dir().to_owned();
    // Half of the clients keep their connection, half make a new one for every request; some requests are slow.
    let clients: Vec<Process> = (0..8)
        .map(|number| {
            let connection = if number % 2 == 0 {
                "connection: keep-alive"
            } else {
                "connection: close"
            };
            let path = if number < 2 { "/slow?ms=300" } else { "/" };
            let mut curl = site.lab().client().command("curl");
            curl.args([
                "--silent",
                "--fail-early",
                "--connect-timeout",
                "2",
                "--noproxy",
                "*",
                "--header",
                SHOP,
                "--header",
                connection,
            ]);
            curl.args([
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code} %{exitcode}\n",
            ]);
            curl.arg(format!("{}#[1-20000]", url(path)));
            Process::spawn(&format!("client-{number}"), &mut curl, &dir).expect("curl starts")
        })
        .collect();
    thread::sleep(Duration::from_millis(1500));
    let status = site.edge().terminate(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", site.edge().tail());

    let mut answered = 0;
    for mut client in clients {
        client.wait(LIMIT).expect("curl ends soon when nobody listens");
        let log = client.log().expect("a log");
        // Each request was answered, until a connection was refused (curl's exit code 7), or went nowhere (28) because
        // edge and its route had gone.
        for line in log.lines() {
            assert!(
                matches!(line, "200 0" | "000 7" | "000 28"),
                "{line} in {}",
                client.tail()
            );
        }
        answered += log.lines().filter(|line| *line == "200 0").count();
    }
    assert!(answered > 500, "{answered} requests were answered");
}

#[test]
fn an_edge_that_ended_leaves_no_program_and_no_route_behind() {
    let mut site = site();
    assert!(site.edge().terminate(LIMIT).expect("it ends").success());
    let links = site.lab().node().ip("link show uplink").expect("ip works");
    assert!(!links.contains("xdp"), "{links}");
    let routes = site.lab().node().ip("route show table local").expect("ip works");
    assert!(!routes.contains(address::VIP), "{routes}");
    site.restart_edge().expect("it starts anew");
    let answer = Curl::new(site.lab().client())
        .header(SHOP)
        .get(&url("/"))
        .expect("an answer");
    assert_eq!(answer.status, 200);
}
