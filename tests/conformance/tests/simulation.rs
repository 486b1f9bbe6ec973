//! Istio's own gateway tests: every call gets the listener, route table, virtual host and cluster that Istio gives it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use edge_conformance::{Answer, Request, ask, compile_text};
use edge_control::{CompileOptions, Compiled};
use serde::Deserialize;

const CASES: &str = include_str!("../data/gateway-simulation.jsonl");

#[derive(Deserialize)]
struct Case {
    id: String,
    path: String,
    name: String,
    config: String,
    kube: String,
    calls: Vec<Call>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Call {
    #[serde(default)]
    name: String,
    call: Sent,
    result: Expected,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Sent {
    #[serde(default)]
    host_header: String,
    port: u16,
    path: Option<String>,
    protocol: String,
    #[serde(rename = "TLS", default)]
    tls: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Expected {
    error: Option<String>,
    listener_matched: Option<String>,
    route_config_matched: Option<String>,
    virtual_host_matched: Option<String>,
    cluster_matched: Option<String>,
    /// Whether fields that are not given must be empty.
    #[serde(default)]
    strict_match: bool,
}

#[test]
fn every_call_gets_what_istio_gives_it() {
    let mut failures = vec![];
    let mut calls = 0;
    for case in cases() {
        assert_eq!(
            case.kube, "",
            "{}: Kubernetes' own ingress kinds are not read",
            case.id
        );
        let compiled = compile(&case.config);
        for call in &case.calls {
            calls += 1;
            if let Err(error) = check(&compiled, call) {
                failures.push(format!(
                    "{} {} {:?} {:?}: {error}",
                    case.id, case.path, case.name, call.name
                ));
            }
        }
    }
    assert!(calls > 25, "only {calls} calls were made");
    assert!(
        failures.is_empty(),
        "of {calls} calls failed:\n{}",
        failures.join("\n")
    );
}

fn cases() -> Vec<Case> {
    let lines = CASES.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("a line of the data is a case"))
        .collect()
}

/// Istio's fixture: a gateway at 1.1.1.1 without a cluster domain.
fn compile(config: &str) -> Compiled {
    let options = CompileOptions {
        gateway_addresses: vec![IpAddr::from([1, 1, 1, 1])],
        cluster_domain: String::new(),
        ..CompileOptions::default()
    };
    compile_text(config, &options)
}

fn check(compiled: &Compiled, call: &Call) -> Result<(), String> {
    let host = match call.call.protocol.as_str() {
        "HTTP" => call.call.host_header.as_str(),
        // The bytes of a connection name no host.
        "TCP" => "tcp",
        other => return Err(format!("protocol {other} is not known here")),
    };
    let scheme = if call.call.tls.is_empty() { "http" } else { "https" };
    let path = call.call.path.as_deref().unwrap_or("/");
    let request = Request {
        request: format!("GET {scheme}://{host}{path}"),
        host: None,
        port: Some(call.call.port),
        sni: None,
        headers: vec![],
        draw: 0,
    };
    let answer = ask(&compiled.snapshot, &request)?;
    let expected = &call.result;
    let error = expected.error.as_deref();
    let outcomes: &[&str] = match error {
        // Istio's simulation does not ask whether the cluster exists.
        None => &["route", "no_cluster", "forward"],
        Some("ErrNoRoute") => &["no_route"],
        Some("ErrNoVirtualHost") => &["no_virtual_host"],
        Some("ErrNoListener") => &["no_listener"],
        Some("ErrTLSRedirect") => &["tls_redirect"],
        // Envoy would refuse the whole listener for two servers with one name; the edge leaves the later one out.
        Some("ErrMultipleFilterChain") => return is_reported(compiled, "this server is left out"),
        Some(other) => return Err(format!("{other} is not known here")),
    };
    if !outcomes.contains(&answer.outcome.as_str()) {
        return Err(format!("expected {error:?}, got {answer:?}"));
    }
    check_names(expected, &answer)
}

fn is_reported(compiled: &Compiled, message: &str) -> Result<(), String> {
    let found = compiled
        .problems
        .iter()
        .any(|problem| problem.message.contains(message));
    found
        .then_some(())
        .ok_or_else(|| format!("no problem says {message:?}: {:?}", compiled.problems))
}

fn check_names(expected: &Expected, answer: &Answer) -> Result<(), String> {
    let cluster = answer.clusters.keys().next();
    for (what, expected_name, actual) in [
        ("listener", &expected.listener_matched, answer.listener.as_ref()),
        (
            "route table",
            &expected.route_config_matched,
            answer.route_config.as_ref(),
        ),
        (
            "virtual host",
            &expected.virtual_host_matched,
            answer.virtual_host.as_ref(),
        ),
        ("cluster", &expected.cluster_matched, cluster),
    ] {
        let must_agree = expected_name.is_some() || expected.strict_match;
        if must_agree && expected_name.as_ref() != actual {
            return Err(format!("{what}: expected {expected_name:?}, got {actual:?}"));
        }
    }
    Ok(())
}
