//! The lab with real traffic: the sample backend on the node, curl and wrk on the client.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use edge_lab::{Curl, Lab, Process, Signal, Wrk, address, bin, wait_until};

/// Ample for a program that starts in milliseconds, on a machine that compiles at the same time.
const LIMIT: Duration = Duration::from_secs(10);
/// Set for the copy of this test program that holds a lab until it is interrupted.
const HOLD: &str = "EDGE_LAB_TEST_HOLD";

/// A lab with one backend that listens on every address of the node, port 8080.
fn lab_with_backend() -> (Lab, Process) {
    let lab = Lab::new().expect("the lab comes up");
    let mut command = lab.node().command(bin("edge-backend").expect("it is built"));
    command.args(["--listen", "[::]:8080", "--version", "v7"]);
    let backend = Process::spawn("backend", &mut command, lab.dir()).expect("it starts");
    wait_until("the backend", LIMIT, || Ok(backend.log()?.contains("listens"))).expect("it listens");
    (lab, backend)
}

fn url(path: &str) -> String {
    format!("http://{}:8080{path}", address::NODE)
}

#[test]
fn every_client_reaches_the_node_from_its_own_address() {
    let (lab, _backend) = lab_with_backend();
    let rows = [
        (address::CLIENT, address::NODE.to_owned()),
        (address::ABUSER, address::NODE.to_owned()),
        (address::CLIENT_V6, format!("[{}]", address::NODE_V6)),
        (address::ABUSER_V6, format!("[{}]", address::NODE_V6)),
    ];
    for (source, node) in rows {
        let answer = Curl::new(lab.client())
            .source(source)
            .get(&format!("http://{node}:8080/"));
        let answer = answer.unwrap_or_else(|error| panic!("{source}: {error:#}"));
        assert_eq!((answer.status, answer.local_ip.as_str()), (200, source));
        let remote = answer.json().expect("JSON")["remote"].to_string();
        assert!(remote.contains(source), "{remote}");
    }
}

#[test]
fn the_backend_describes_the_request() {
    let (lab, _backend) = lab_with_backend();
    let request = Curl::new(lab.client())
        .header("x-tag: one")
        .header("x-tag: two")
        .body("hello");
    let answer = request.get(&url("/a/b?c=d")).expect("an answer");
    let body = answer.json().expect("JSON");
    assert_eq!(answer.header("x-version"), Some("v7"));
    let told = ["version", "method", "path", "query"].map(|key| body[key].as_str().unwrap_or_default());
    assert_eq!(told, ["v7", "POST", "/a/b", "c=d"]);
    assert_eq!(body["body_length"], 5);
    let fields = body["headers"].to_string();
    assert!(fields.contains(r#"["x-tag","one"],["x-tag","two"]"#), "{fields}");
}

#[test]
fn a_burst_counts_what_came_back_and_what_did_not() {
    let (lab, mut backend) = lab_with_backend();
    let curl = Curl::new(lab.client()).source(address::ABUSER);
    assert_eq!(curl.burst(&url("/"), 100).expect("curl runs").count(200), 100);
    backend.kill().expect("it runs");
    assert_eq!(curl.burst(&url("/"), 10).expect("curl runs").count(0), 10);
}

#[test]
fn wrk_reports_a_load_without_failures() {
    let (lab, _backend) = lab_with_backend();
    let report = Wrk::new(lab.client())
        .connections(4, 1)
        .run(&url("/"))
        .expect("wrk runs");
    assert!(report.requests > 100, "{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn a_request_under_way_is_answered_after_sigterm() {
    let (lab, mut backend) = lab_with_backend();
    let mut slow = lab.client().command("curl");
    slow.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        &url("/slow?ms=2000"),
    ]);
    let mut slow = Process::spawn("slow", &mut slow, lab.dir()).expect("curl starts");
    let connected = || {
        Ok(lab
            .node()
            .exec(&["ss", "-Htn", "state", "established"])?
            .contains(":8080"))
    };
    wait_until("the connection", LIMIT, connected).expect("it is made");
    assert!(
        backend.terminate(LIMIT).expect("it ends").success(),
        "{}",
        backend.tail()
    );
    assert!(slow.wait(LIMIT).expect("it ends").success(), "{}", slow.tail());
    assert!(slow.log().expect("a log").contains("/slow"), "{}", slow.tail());
}

#[test]
fn a_backend_that_crashes_leaves_its_client_without_an_answer() {
    let (lab, mut backend) = lab_with_backend();
    assert!(Curl::new(lab.client()).get(&url("/crash")).is_err());
    assert_eq!(backend.wait(LIMIT).expect("it ends").code(), Some(70));
}

#[test]
fn ctrl_c_takes_the_lab_and_its_programs_down() {
    if std::env::var_os(HOLD).is_some() {
        hold_a_lab();
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut copy = Command::new(std::env::current_exe().expect("a path"));
    copy.args([
        "--exact",
        "ctrl_c_takes_the_lab_and_its_programs_down",
        "--nocapture",
    ])
    .env(HOLD, "1");
    let mut copy = Process::spawn("copy", &mut copy, dir.path()).expect("it starts");
    wait_until("the copy's lab", LIMIT, || Ok(copy.log()?.contains("held"))).expect("it comes up");
    let own = format!("edge-{}-", copy.pid());
    assert!(
        namespaces().iter().any(|name| name.starts_with(&own)),
        "the copy has no lab"
    );

    copy.signal(Signal::INT).expect("it runs");
    assert_eq!(
        copy.wait(LIMIT).expect("it ends").code(),
        Some(130),
        "{}",
        copy.tail()
    );
    let left: Vec<String> = namespaces()
        .into_iter()
        .filter(|name| name.starts_with(&own))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let backend = copy
        .log()
        .expect("a log")
        .lines()
        .find_map(|l| l.strip_prefix("held ")?.parse::<u32>().ok());
    let backend = format!("/proc/{}", backend.expect("the copy told its backend's id"));
    wait_until("the backend's end", LIMIT, || {
        Ok(!std::path::Path::new(&backend).exists())
    })
    .expect("it ends");
}

/// What the copy does: it makes a lab, tells the id of the program inside, and waits to be interrupted.
fn hold_a_lab() -> ! {
    let (lab, backend) = lab_with_backend();
    println!("held {}", backend.pid());
    lab.hold()
}

fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").expect("a lab was made");
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}
