//! The command line against files and a running edge: output, and exit codes 0, 1 and 2.

use std::fs;
use std::process::{Command, Output, Stdio};

use edge_lab::bin;
use serde_json::Value;

use crate::fixture::{demo_config, site};

/// Runs edge outside of any lab.
fn edge(words: &[&str]) -> Output {
    let mut command = Command::new(bin("edge").expect("it is built"));
    command.args(words).stdin(Stdio::null());
    command.output().expect("it starts")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

fn demo() -> String {
    demo_config().display().to_string()
}

#[test]
fn validate_answers_for_every_resource_of_the_demo() {
    let output = edge(&["validate", "--json", &demo()]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let resources = lines(&output);
    assert!(resources.len() >= 12, "{resources:?}");
    for resource in &resources {
        // The demo makes its certificate when it starts.
        let is_missing_file = |problem: &Value| {
            let message = problem["message"].as_str().unwrap_or_default();
            message.starts_with("certs/") && message.contains("cannot be read")
        };
        let problems = resource["problems"].as_array().expect("problems");
        assert!(problems.iter().all(is_missing_file), "{resource}");
        for key in ["kind", "namespace", "name", "problems"] {
            assert!(!resource[key].is_null(), "{key} is missing in {resource}");
        }
    }
}

#[test]
fn validate_names_object_field_and_hint_of_every_problem_and_exits_with_1() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bad.yaml");
    fs::write(
        &file,
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad, namespace: ns}
spec:
  hosts: [a.example.com]
  gateways: [g]
  http:
    - match: [{uri: {regex: '('}}]
      redirect: {redirectCode: 200}
    - match: [{uri: {prefix: /a}, sourceNamespace: a}]
      route: [{destination: {host: b}}]
",
    )
    .expect("written");
    let path = file.display().to_string();
    let output = edge(&["validate", &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "error VirtualService/ns/bad spec.http[0].match[0].uri",
        "spec.http[0].redirect",
        "spec.http[1].match[0].sourceNamespace",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(
        text.lines().all(|line| line.ends_with(')')),
        "every problem has a hint:\n{text}"
    );

    let output = edge(&["validate", "--json", &path]);
    assert_eq!(output.status.code(), Some(1));
    let resource = &lines(&output)[0];
    assert_eq!(resource["verdict"], "invalid");
    assert!(
        resource["problems"].as_array().expect("problems").len() >= 3,
        "{resource}"
    );
    for problem in resource["problems"].as_array().expect("problems") {
        for key in ["severity", "field", "message", "hint"] {
            assert!(problem[key].is_string(), "{key} is missing in {problem}");
        }
    }
}

#[test]
fn wrong_input_exits_with_1_and_what_cannot_be_done_with_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing").display().to_string();
    for (words, code) in [
        (vec!["validate", &missing], 1),
        (vec!["run", "--config", &missing], 1),
        (
            vec![
                "explain",
                "request",
                "--config",
                &missing,
                "--port",
                "80",
                "http://a/",
            ],
            1,
        ),
        (vec!["frobnicate"], 1),
        (vec!["validate"], 1),
        (vec!["status", "--admin", "127.0.0.1:1"], 2),
        (vec!["--help"], 0),
        (vec!["completions", "bash"], 0),
    ] {
        let output = edge(&words);
        let why = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {why}");
        assert!(code == 0 || !why.is_empty(), "{words:?} says why");
        assert!(
            why.matches("(os error").count() <= 1,
            "{words:?} says it twice: {why}"
        );
    }
}

#[test]
fn an_interface_that_is_not_there_stops_the_start_with_2() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("edge.yaml"), "interfaces: [no-such-if0]\n").expect("written");
    let output = edge(&["run", "--config", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-if0"));
}

/// Options and URL of a request to the demo's configuration; its outcome, route and clusters.
type Row<'a> = (&'a [&'a str], String, &'a str, Option<&'a str>, &'a [&'a str]);

#[test]
fn explain_request_answers_for_every_outcome() {
    let http: &[&str] = &["--port", "80"];
    let tls: &[&str] = &["--port", "443", "--tls"];
    let shop = "http://shop.example.com";
    let rows: &[Row<'_>] = &[
        (
            http,
            format!("{shop}/"),
            "route",
            Some("canary"),
            &[
                "outbound|80|v1|shop.demo.svc.cluster.local",
                "outbound|80|v2|shop.demo.svc.cluster.local",
            ],
        ),
        (
            &["--port", "80", "-H", "x-tester: yes"],
            format!("{shop}/"),
            "route",
            Some("testers"),
            &["outbound|80|v2|shop.demo.svc.cluster.local"],
        ),
        (
            http,
            format!("{shop}/api/v3/x"),
            "route",
            Some("next-api"),
            &["outbound|80|v3|shop.demo.svc.cluster.local"],
        ),
        (
            tls,
            "https://shop.example.com/api/v3/x".into(),
            "route",
            Some("next-api"),
            &["outbound|80|v3|shop.demo.svc.cluster.local"],
        ),
        (http, format!("{shop}/old"), "redirect", Some("moved"), &[]),
        (
            http,
            "http://secure.example.com/".into(),
            "tls_redirect",
            None,
            &[],
        ),
        (
            http,
            "http://nobody.example.com/".into(),
            "no_virtual_host",
            None,
            &[],
        ),
        (&["--port", "81"], format!("{shop}/"), "no_listener", None, &[]),
        (
            &["--port", "443", "--tls", "--sni", "other.example.com"],
            "https://other.example.com/".into(),
            "no_listener",
            None,
            &[],
        ),
    ];
    for (options, url, outcome, route, clusters) in rows {
        let demo = demo();
        let mut words = vec!["explain", "request", "--json", "--config", &demo];
        words.extend(*options);
        words.push(url);
        let output = edge(&words);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answer = &lines(&output)[0];
        assert_eq!(answer["outcome"], *outcome, "{words:?}: {answer}");
        assert_eq!(answer["route"].as_str(), *route, "{words:?}: {answer}");
        let names: Vec<_> = answer["clusters"]
            .as_array()
            .expect("clusters")
            .iter()
            .map(|c| c["name"].clone())
            .collect();
        assert_eq!(names, *clusters, "{words:?}");
        assert!(answer["trace"].is_array());
    }
}

#[test]
fn explain_request_says_why_the_routes_above_did_not_match() {
    let output = edge(&[
        "explain",
        "request",
        "--json",
        "--config",
        &demo(),
        "--port",
        "80",
        "http://shop.example.com/",
    ]);
    let trace = lines(&output)[0]["trace"].to_string();
    for part in ["x-tester", "/api/v3/", "/old", "VirtualService/demo/shop"] {
        assert!(trace.contains(part), "{part} is missing in {trace}");
    }
}

#[test]
fn status_and_metrics_tell_of_both_tiers() {
    let site = site();
    let table = site
        .edge_command(&["status"])
        .expect("built")
        .output()
        .expect("it runs");
    assert_eq!(table.status.code(), Some(0));
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for part in [
        "uplink",
        "native",
        "10.77.100.1:80",
        "0.0.0.0_443",
        "outbound|80|v1|",
        "worker",
        "penalties",
    ] {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }
    let (code, metrics) = site.admin("/stats/prometheus").expect("metrics");
    assert_eq!(code, 200);
    for part in [
        "edge_datapath_dropped_packets_total",
        "edge_datapath_passed_packets_total",
        "edge_config_snapshot",
    ] {
        assert!(metrics.contains(part), "{part} is missing in:\n{metrics}");
    }
    let (code, dump) = site.admin("/config_dump").expect("a dump");
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    assert_eq!((code, dump["listeners"].as_array().map(Vec::len)), (200, Some(2)));
    assert!(!dump.to_string().contains("PRIVATE KEY"));
}

#[test]
fn doctor_finds_this_machine_fit_inside_a_lab() {
    let site = site();
    let output = site
        .edge_command(&["doctor", "--interface", "uplink", "--json"])
        .expect("built")
        .output()
        .expect("it runs");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let checks: Vec<_> = lines(&output)
        .iter()
        .map(|check| check["check"].as_str().unwrap_or_default().to_owned())
        .collect();
    for part in [
        "kernel",
        "privileges",
        "BTF",
        "interface uplink: driver mode",
        "interface uplink: MTU",
    ] {
        assert!(
            checks.iter().any(|check| check == part),
            "{part} is missing in {checks:?}"
        );
    }
}
