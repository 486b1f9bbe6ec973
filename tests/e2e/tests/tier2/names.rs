//! Endpoints by name, and a name server that fails, goes away, and changes its mind.

use std::fs;

use edge_lab::Process;

use crate::edge::{Setup, gateway, program, url};

/// Port of the endpoint.
const WEB: u16 = 9001;

const RULES: &str = "
  - {route: [{destination: {host: web.internal}}]}
";

const BY_NAME: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web}
spec:
  hosts: [web.internal]
  location: MESH_INTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: web.example.com, ports: {http: 9001}}]
";

#[test]
fn the_last_good_answer_is_kept_until_the_server_says_that_the_name_is_gone() {
    let keys = "dns: {nameServers: ['127.0.0.1:5353'], minTtl: 100ms, maxTtl: 100ms, timeout: 200ms}\n";
    let setup = Setup::new(&(gateway("*", RULES) + BY_NAME)).bootstrap(keys);
    let zone = setup.dir().join("zone");
    let says = |lines: &str| {
        // The server may read at any time: the file is replaced as a whole.
        let new = zone.with_extension("new");
        fs::write(&new, lines).expect("written");
        fs::rename(&new, &zone).expect("renamed");
    };
    says("web.example.com 127.0.0.1\n");
    let mut command = program(setup.netns(), "names.py");
    command.args(["127.0.0.1", "5353"]).arg(&zone);
    let mut server = Process::spawn("names", &mut command, setup.dir()).expect("python3 starts");
    let edge = setup.start();
    let _web = edge.endpoint("web", WEB);
    let get = || edge.curl().get(&url("/")).expect("an answer");
    edge.expect_metric("edge_dns_names_stale", &[], 0.0);
    let has_name = || Ok(get().status == 200);
    edge_lab::wait_until("the first answer", crate::edge::LIMIT, has_name).expect("it comes");

    // The name server fails, and then it is gone: nothing changes for clients, and it is counted.
    says("fail\n");
    edge.expect_metric("edge_dns_names_stale", &[], 1.0);
    assert_eq!(get().status, 200);
    server.kill().expect("it runs");
    let failed = edge
        .metric("edge_dns_lookups_total", &["result=\"failed\""])
        .expect("edge answers");
    let has_failed = || Ok(edge.metric("edge_dns_lookups_total", &["result=\"failed\""])? > failed + 1.0);
    edge_lab::wait_until("further questions", crate::edge::LIMIT, has_failed).expect("they are asked");
    assert_eq!(get().status, 200);

    // It comes back and says that there is no such name: that is an answer, too.
    says("other.example.com 127.0.0.1\n");
    let mut command = program(edge.netns(), "names.py");
    command.args(["127.0.0.1", "5353"]).arg(&zone);
    let _server = Process::spawn("names-again", &mut command, edge.dir()).expect("python3 starts");
    let is_gone = || Ok(get().status == 503);
    edge_lab::wait_until("the name to be gone", crate::edge::LIMIT, is_gone).expect("it goes");
    edge.expect_logged("/ 503 DF,UH no_healthy_upstream");
    let gone = edge.curl().get(&url("/gone")).expect("an answer");
    assert_eq!((gone.status, gone.text().as_str()), (503, "no healthy upstream"));
    edge.expect_metric("edge_dns_names_stale", &[], 0.0);

    says("web.example.com 127.0.0.1\n");
    let is_back = || Ok(get().status == 200);
    edge_lab::wait_until("the name", crate::edge::LIMIT, is_back).expect("it is there again");
}
