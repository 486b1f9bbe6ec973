//! One file for each rule of how Istio binds, matches and acts: configuration, requests, expected decisions.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use edge_config::VirtualAddress;
use edge_conformance::{Request, ask, compile_text, contains};
use edge_control::{CompileOptions, Compiled};
use serde::Deserialize;
use serde_json::Value;

/// Rules that must have a file; those that only show on the wire are tests/live.rs's.
const RULES: [&str; 52] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19",
    "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33", "34", "35", "36",
    "37", "38", "39", "43", "44", "45", "46", "47", "48", "49", "50", "51", "52", "53", "54", "g",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Number of the rule; the file's name begins with it.
    rule: String,
    /// The rule in a sentence.
    says: String,
    #[serde(default)]
    edge: Edge,
    config: String,
    /// What an error says, when the rule can only be shown with something that the edge refuses.
    refused: Option<String>,
    #[serde(default)]
    requests: Vec<Exchange>,
    /// Texts, each of which a problem must contain; the problems of a case without them may be any.
    #[serde(default)]
    problems: Vec<String>,
    /// Tier 1's services as `address:port -> listener port`.
    vips: Option<Vec<String>>,
}

/// The edge's own identity, where it is not the default.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Edge {
    labels: Option<BTreeMap<String, String>>,
    namespace: Option<String>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    virtual_addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Exchange {
    #[serde(flatten)]
    request: Request,
    expect: Value,
}

#[test]
fn every_rule_decides_as_expected() {
    let mut failures = vec![];
    let mut seen = BTreeSet::new();
    for (name, case) in cases() {
        let number = case
            .rule
            .parse()
            .map_or(case.rule.clone(), |rule: u32| format!("{rule:02}"));
        assert!(
            name.starts_with(&format!("{number}-")),
            "{name} is about rule {}",
            case.rule
        );
        assert!(
            case.says.ends_with('.'),
            "{name}: a sentence ends with a full stop"
        );
        failures.extend(
            check(&case)
                .into_iter()
                .map(|failure| format!("{name}: {failure}")),
        );
        seen.insert(case.rule);
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let missing: Vec<_> = RULES.iter().filter(|rule| !seen.contains(**rule)).collect();
    assert!(missing.is_empty(), "no case for rules {missing:?}");
}

#[test]
fn every_configuration_is_one_that_the_edge_accepts() {
    let mut failures = vec![];
    for (name, case) in cases() {
        let parsed = edge_config::parse_documents(&name, &case.config);
        let checked = parsed.resources.iter().flat_map(edge_config::check);
        let errors: Vec<_> = checked
            .chain(parsed.problems)
            .filter(|problem| problem.is_error())
            .map(|problem| problem.with_location())
            .collect();
        match &case.refused {
            None => failures.extend(errors),
            Some(reason) if errors.iter().any(|error| error.contains(reason)) => {}
            Some(reason) => failures.push(format!("{name}: nothing is refused for {reason:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn compiling_does_not_depend_on_the_order_of_the_documents() {
    for (name, case) in cases() {
        let documents: Vec<_> = case.config.split("\n---\n").collect();
        let reversed: Vec<_> = documents.iter().rev().copied().collect();
        let forward = compile(&case);
        let backward = compile_text(&reversed.join("\n---\n"), &options(&case.edge));
        assert_eq!(forward.snapshot, backward.snapshot, "{name}");
    }
}

fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/rules");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the data is there")
        .map(|entry| entry.expect("the data can be read").path())
        .collect();
    paths.sort();
    let read = |path: &Path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(path).expect("the data is text");
        let case = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, case)
    };
    paths.iter().map(|path| read(path)).collect()
}

fn options(edge: &Edge) -> CompileOptions {
    let default = CompileOptions::default();
    let address = |address: &IpAddr| VirtualAddress {
        free_bits: 0,
        unserved: edge_model::Unserved::Drop,
        address: *address,
        ports: vec![],
    };
    CompileOptions {
        gateway_labels: edge.labels.clone().unwrap_or(default.gateway_labels),
        gateway_namespace: edge.namespace.clone().unwrap_or(default.gateway_namespace),
        gateway_addresses: edge.addresses.clone(),
        virtual_addresses: edge.virtual_addresses.iter().map(address).collect(),
        ..CompileOptions::default()
    }
}

fn compile(case: &Case) -> Compiled {
    compile_text(&case.config, &options(&case.edge))
}

fn check(case: &Case) -> Vec<String> {
    let compiled = compile(case);
    let mut failures = vec![];
    for exchange in &case.requests {
        let answer = ask(&compiled.snapshot, &exchange.request);
        let answer = answer.map(|answer| serde_json::to_value(answer).expect("an answer is plain data"));
        if let Err(error) = answer.and_then(|answer| contains(&answer, &exchange.expect)) {
            failures.push(format!("{}: {error}", exchange.request.request));
        }
    }
    let problems: Vec<_> = compiled.problems.iter().map(ToString::to_string).collect();
    for expected in &case.problems {
        if !problems.iter().any(|problem| problem.contains(expected)) {
            failures.push(format!(
                "no problem says {expected:?}, there are:\n{}",
                problems.join("\n")
            ));
        }
    }
    if case.problems.is_empty() {
        let errors = problems.iter().filter(|problem| problem.starts_with("error"));
        failures.extend(errors.map(|error| format!("unexpected {error}")));
    }
    if let Some(expected) = &case.vips {
        let vips = &compiled.snapshot.datapath.vips;
        let vips: Vec<_> = vips
            .iter()
            .map(|vip| format!("{}:{} -> {}", vip.address, vip.port, vip.listener_port))
            .collect();
        if vips != *expected {
            failures.push(format!("expected VIPs {expected:?}, got {vips:?}"));
        }
    }
    failures
}
