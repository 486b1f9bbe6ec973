//! A process at its bounds: descriptors and memory run out, new work is shed, what is there goes on, and all is well again
//! afterwards.

use anyhow::Context as _;
use edge_lab::{Process, wait_until};
use std::net::TcpStream;

use crate::edge::{Edge, LIMIT, PORT, Setup, gateway, service, url};

const WEB: u16 = 9001;

const RULES: &str = "
  - {route: [{destination: {host: web.internal}}]}
";

/// Connections of the namespace that have nothing to say.
fn silent(edge: &Edge, count: usize) -> Vec<TcpStream> {
    let connect = || {
        let all = (0..count).map(|_| TcpStream::connect(("127.0.0.1", PORT)));
        all.collect::<Result<_, _>>().context("the kernel takes them")
    };
    edge.netns().enter(connect).expect("connections")
}

/// A client that sends one request after the other over one connection, until it is told to end.
fn steady(edge: &Edge) -> Process {
    let mut curl = edge.netns().command("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--output",
        "/dev/null",
        "--rate",
        "20/s",
    ]);
    curl.args(["--write-out", "%{stderr}%{http_code} %{num_connects}\n"]);
    curl.arg(format!("{}#[1-100000]", url("/")));
    let client = Process::spawn("steady", &mut curl, edge.dir()).expect("curl starts");
    let has_begun = || Ok(client.log()?.lines().count() >= 2);
    wait_until("the client's first answers", LIMIT, has_begun).expect("they come");
    client
}

/// Ends the steady client: each of its requests was answered, over its first connection.
fn expect_steady(mut client: Process) {
    let before = client.log().expect("a log").lines().count();
    let goes_on = || Ok(client.log()?.lines().count() > before + 40);
    wait_until("further answers", LIMIT, goes_on)
        .unwrap_or_else(|error| panic!("{error:#}{}", client.tail()));
    client.kill().expect("it runs");
    let log = client.log().expect("a log");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.first(), Some(&"200 1"), "{log}");
    // The last line may have been cut.
    let rest = &lines[1..lines.len() - 1];
    assert!(rest.iter().all(|line| *line == "200 0"), "{log}");
}

/// An edge of so many files meets a crowd of silent clients: at least so many of them are shed for a bound, who is there
/// is served on, and so is who comes once they are gone.
fn check_crowd(
    setup: Setup,
    files: &str,
    crowd: usize,
    bound: &str,
    shed: f64,
    meanwhile: impl Fn(&Edge),
) -> Edge {
    let edge = setup.under(&["prlimit", files]).start();
    let _web = edge.endpoint("web", WEB);
    let client = steady(&edge);
    let crowd = silent(&edge, crowd);
    let labels = ["what=\"connection\"", bound];
    edge.expect_at_least("edge_overload_shed_total", &labels, shed);
    expect_steady(client);
    meanwhile(&edge);
    drop(crowd);
    serves_newcomers(&edge);
    edge
}

fn web() -> Setup {
    Setup::new(&(gateway("*", RULES) + &service("web", "http", &[WEB])))
}

#[test]
fn when_descriptors_run_out_new_connections_are_shed_and_those_that_are_there_go_on() {
    // More connections than files.
    let setup = web().bootstrap("overload: {maxConnections: 10000}\ntimeouts: {requestHeaders: 600s}\n");
    // Those who do not say what they want make room for those who do.
    let edge = check_crowd(
        setup,
        "--nofile=100",
        120,
        "bound=\"max_files\"",
        1.0,
        serves_newcomers,
    );
    edge.expect_metric("istio_requests_total", &["response_code=\"503\""], 0.0);
    edge.expect_metric("edge_accept_failures_total", &[], 0.0);
}

/// Endpoints, more than there are files for endpoints.
const ENDPOINTS: std::ops::Range<u16> = 9100..9130;

/// As many requests as `ENDPOINTS` over one connection, one for each endpoint: how many were answered with 200.
fn ask_each_endpoint(edge: &Edge) -> usize {
    let mut curl = edge.netns().command("curl");
    curl.args([
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}\n",
    ]);
    let out = curl.arg(format!("{}#[1-{}]", url("/"), ENDPOINTS.len())).output();
    let text = String::from_utf8(out.expect("curl starts").stdout).expect("digits");
    text.lines().filter(|line| *line == "200").count()
}

/// Connections to endpoints.
fn connections_to_endpoints(edge: &Edge) -> usize {
    let mut ss = edge.netns().command("ss");
    let (first, last) = (ENDPOINTS.start, ENDPOINTS.end - 1);
    ss.args(["-Htn", "state", "established"]);
    ss.arg(format!("( dport >= :{first} and dport <= :{last} )"));
    let out = ss.output().expect("ss starts");
    String::from_utf8_lossy(&out.stdout).lines().count()
}

/// Idle connections to endpoints that speak `protocol`, which `program` is, give way where descriptors run out.
fn check_idle_endpoints(protocol: &str, program: &str) {
    let ports: Vec<_> = ENDPOINTS.collect();
    let in_turn = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web.internal, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
";
    let setup = Setup::new(&(gateway("*", RULES) + &service("web", protocol, &ports) + in_turn));
    let setup = setup.bootstrap("overload: {maxConnections: 10000}\ntimeouts: {requestHeaders: 600s}\n");
    let edge = setup.under(&["prlimit", "--nofile=100"]).start();
    let list: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let mut command = edge.program(program);
    command.args(["127.0.0.1", &list.join(","), "web"]);
    let _endpoints = Process::spawn("endpoints", &mut command, edge.dir()).expect("python3 starts");
    // Ports are listened on in their order.
    let last = format!("http://127.0.0.1:{}/", ENDPOINTS.end - 1);
    let listens = || Ok(edge.curl().get(&last)?.status == 200);
    wait_until("the endpoints", LIMIT, listens).expect("they start");
    let has_all =
        || Ok(ask_each_endpoint(&edge) == ports.len() && connections_to_endpoints(&edge) == ports.len());
    wait_until("a connection to each endpoint", LIMIT, has_all).expect("they are opened");

    let client = steady(&edge);
    let mut curl = edge.netns().command("curl");
    curl.args(["--silent", "--no-buffer"]).arg(url("/events"));
    let mut events = Process::spawn("events", &mut curl, edge.dir()).expect("curl starts");
    let has_first = || Ok(events.log()? == "data: first\n\n");
    wait_until("the first event", LIMIT, has_first).expect("it comes");
    let crowd = silent(&edge, 120);
    edge.expect_at_least(
        "edge_overload_shed_total",
        &["what=\"connection\"", "bound=\"max_files\""],
        1.0,
    );
    let made_room = connections_to_endpoints(&edge);
    assert!(made_room < ports.len() / 2, "{protocol}: {made_room} are left");
    serves_newcomers(&edge);
    // More than the files that are left would be open if none were closed for the next.
    for _ in 0..3 {
        let has_asked = || Ok(ask_each_endpoint(&edge) == ports.len());
        wait_until("a newcomer to reach each endpoint", LIMIT, has_asked).expect("it does");
    }
    expect_steady(client);
    let go = edge
        .curl()
        .get(&format!("http://127.0.0.1:{}/go", ENDPOINTS.start));
    assert_eq!(go.expect("an answer").status, 200);
    assert!(events.wait(LIMIT).expect("it ends").success());
    assert!(events.log().expect("a log").ends_with("data: second\n\n"));
    drop(crowd);
    serves_newcomers(&edge);
    edge.expect_metric("istio_requests_total", &["response_code=\"503\""], 0.0);
}

#[test]
fn when_descriptors_run_out_idle_connections_to_endpoints_give_way() {
    check_idle_endpoints("http", "endpoint.py");
}

#[test]
fn when_descriptors_run_out_idle_connections_of_http2_to_endpoints_give_way() {
    check_idle_endpoints("http2", "endpoint_http2.py");
}

fn serves_newcomers(edge: &Edge) {
    let is_served = || Ok(edge.curl().get(&url("/"))?.status == 200);
    wait_until("new clients to be served", LIMIT, is_served).expect("they are");
}

#[test]
fn beyond_the_bound_of_connections_new_ones_are_closed_and_those_that_are_there_go_on() {
    // Of the files 256 are for all else, and half of the others for endpoints.
    check_crowd(
        web(),
        "--nofile=356",
        90,
        "bound=\"max_connections\"",
        41.0,
        |_| {},
    );
}

/// Resident memory of edge, in bytes.
fn resident(edge: &Edge) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.and_then(|text| text.parse().ok()).expect("a number");
    kibibytes << 10
}

#[test]
fn when_memory_runs_out_requests_are_refused_until_there_is_some_again_and_those_under_way_end_well() {
    const ROOM: u64 = 16 << 20;
    let resources = gateway("*", RULES) + &service("web", "http", &[WEB]);
    let bound = resident(&Edge::start(&resources)) + ROOM;
    let edge = Setup::new(&resources)
        .bootstrap(&format!("overload: {{maxMemory: {bound}}}\n"))
        .start();
    let _web = edge.endpoint("web", WEB);
    let mut events = edge.netns().command("curl");
    events.args(["--silent", "--no-buffer"]).arg(url("/events"));
    let mut events = Process::spawn("events", &mut events, edge.dir()).expect("curl starts");
    let has_first = || Ok(events.log()?.contains("first"));
    wait_until("the first event", LIMIT, has_first).expect("it comes");

    // Bodies that are kept for another try, of requests that nobody answers: 600 of 60 kB at most, 10 MB a second.
    let body = edge.dir().join("body");
    std::fs::write(&body, vec![b'x'; 60_000]).expect("written");
    let mut load = edge.netns().command("h2load");
    load.args(["-n", "600", "-c", "4", "-m", "150", "--rps", "40", "--data"]);
    load.arg(&body).arg(url("/silent"));
    let mut load = Process::spawn("load", &mut load, edge.dir()).expect("h2load starts");
    let mut refused = None;
    let is_refused = || {
        refused = Some(edge.curl().get(&url("/"))?);
        Ok(refused.as_ref().is_some_and(|answer| answer.status == 503))
    };
    wait_until("memory to run out", LIMIT, is_refused).expect("it does");
    let refused = refused.expect("an answer");
    assert_eq!(refused.text(), "envoy overloaded");
    assert_eq!(refused.header("x-envoy-local-overloaded"), Some("true"));
    edge.expect_logged("/ 503 OM overload");
    edge.expect_at_least(
        "edge_overload_shed_total",
        &["what=\"request\"", "bound=\"max_memory\""],
        1.0,
    );
    // Past edge: what was under way goes on to its end.
    let go = edge.curl().get(&format!("http://127.0.0.1:{WEB}/go"));
    assert_eq!(go.expect("an answer").status, 200);
    assert!(events.wait(LIMIT).expect("it ends").success());
    assert!(events.log().expect("a log").ends_with("data: second\n\n"));

    load.kill().expect("it runs");
    serves_newcomers(&edge);
    edge.expect_metric("edge_overload_pressure", &[], 0.0);
}
