//! The benchmark itself: it runs what it compares, and says so in the agreed form.

use std::process::Command;

use serde_json::Value;

/// Whether it went well, what it printed, what it said beside.
fn bench(arguments: &[&str]) -> (bool, String, String) {
    let program = edge_lab::bin("bench-proxy").expect("the benchmark is built");
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the benchmark starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn every_case_that_is_promised_is_there() {
    let (_, names, _) = bench(&["--list"]);
    let names: Vec<_> = names.lines().collect();
    for case in [
        "h1",
        "h2c",
        "h2_tls",
        "h1_tls",
        "handshake_ecdsa",
        "handshake_rsa",
        "body_1m",
        "tcp",
        "tls_passthrough",
        "p99_fixed_rate",
        "idle_accepted",
        "idle_h1",
        "idle_tls",
        "idle_h2",
        "access_log",
        "hosts_10000",
        "routes_1000",
    ] {
        assert!(names.contains(&case), "{case} is missing");
    }
}

#[test]
fn edge_and_the_floor_are_measured_and_printed_as_one_object() {
    let quick = [
        "--json",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--connections",
        "50",
        "--peer",
        "floor",
    ];
    for (case, has_floor) in [
        ("h1", true),
        ("h2_tls", false),
        ("tcp", true),
        ("tls_passthrough", true),
        ("p99_fixed_rate", true),
        ("idle_tls", false),
        ("idle_h2", false),
    ] {
        let (is_done, line, errors) = bench(&[&quick[..], &["--case", case]].concat());
        assert!(is_done, "{case}: {errors}");
        let line: Value = serde_json::from_str(&line).expect("one object");
        assert_eq!(line["case"], case);
        assert!(line["edge"].is_number() && line["unit"].is_string(), "{line}");
        assert_eq!(line["floor"].is_number(), has_floor, "{line}");
        assert!(
            line["haproxy"].is_null() && line["nginx"].is_null() && line["envoy"].is_null(),
            "{line}"
        );
        for key in ["goal", "met"] {
            assert!(line.get(key).is_some(), "{key} of {line}");
        }
    }
}

#[test]
fn a_case_that_is_not_there_is_refused() {
    let (is_done, _, said) = bench(&["--case", "nonsense"]);
    assert!(!is_done && said.contains("nonsense"), "{said}");
}
