//! The benchmark itself: every case can be measured, and prints one object.

use std::process::Command;

use serde_json::Value;

/// Whether it went well, what it printed, what it said beside.
fn bench(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench-routing"))
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
fn every_case_prints_one_object_with_value_unit_and_goal() {
    let (_, names, _) = bench(&["--list"]);
    let (is_done, lines, errors) = bench(&["--json", "--samples", "10", "--quick"]);
    assert!(is_done, "{errors}");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let cases: Vec<_> = lines.iter().filter_map(|line| line["case"].as_str()).collect();
    assert_eq!(cases, names.lines().collect::<Vec<_>>());
    for line in &lines {
        assert!(line["value"].is_number() && line["unit"].is_string(), "{line}");
        assert!(
            line["goal"].is_null() || line["goal"].as_f64().unwrap() > 0.0,
            "{line}"
        );
    }
    for case in [
        "routes_10",
        "routes_1000",
        "regex_1000_varied",
        "hosts_10000_compile",
        "hosts_10000_bytes_per_host",
        "change_one_of_10000",
    ] {
        assert!(cases.contains(&case), "{case} is missing");
    }
}

#[test]
fn every_lookup_case_leads_most_requests_to_a_route() {
    for case in [
        "routes_10",
        "routes_1000_linear",
        "regex_1000_varied",
        "headers_1000",
        "nested_1000",
        "hosts_10000",
    ] {
        let (is_done, _, said) = bench(&["--case", case, "--only-run", "100"]);
        let taken: usize = said.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(is_done && taken > 80, "{said}");
    }
}

#[test]
fn a_case_that_is_not_there_is_refused() {
    let (is_done, _, said) = bench(&["--case", "nonsense"]);
    assert!(!is_done && said.contains("nonsense"), "{said}");
}
